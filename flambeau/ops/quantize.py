"""Quantisation: played through in floating point, as training for it needs, and the integers
themselves (`tensor/quantized/`)."""

from __future__ import annotations

import numpy as np

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import beside, floats_only
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Operand, Tensor, lift, op
from flambeau.ops.samples import Arr, sample


def _levels(x: Value, scale: Value, zero_point: Value) -> Value:
    """The level of each element before it is limited, as a float."""
    shift = convert(zero_point, x.dtype)
    return p.add(p.round_(p.mul(x, p.div(e.like(1, scale), scale))), shift)


def _quantised(x: Value, scale: Value, zero_point: Value, low: int, high: int) -> Value:
    level = _levels(x, scale, zero_point)
    level = p.minimum(p.maximum(level, e.like(low, level)), e.like(high, level))
    return p.mul(p.sub(level, convert(zero_point, x.dtype)), scale)


def _passed(g: Value, x: Value, scale: Value, zero_point: Value, low: int, high: int) -> Value:
    """The gradient: what lies between the limits is passed on as if nothing had been rounded."""
    level = _levels(x, scale, zero_point)
    inside = p.logical_and(p.ge(level, e.like(low, level)), p.le(level, e.like(high, level)))
    return p.where(inside, g, p.zero_like(g))


def _check_range(low: int, high: int) -> None:
    if low > high:
        raise RuntimeError("`quant_min` should be less than or equal to `quant_max`, got "
                           f"{low} and {high}")


# the gradient is none of the steps, so finite differences know nothing of it
def _tensor_samples():
    yield sample(Arr((3, 4), requires_grad=False), 0.1, 3, -8, 7)
    yield sample(Arr((40,), requires_grad=False), Arr((), "float32", 0.1, 0.2, False),
                 Arr((), "int32", 0, 3), 0, 255)


@op(method=False, out=False, samples=_tensor_samples,
    grad="FakeQuantizePerTensorAffineCachemaskBackward0")
def fake_quantize_per_tensor_affine(input: Tensor, scale: Operand, zero_point: Operand,
                                    quant_min: int, quant_max: int):
    """The input rounded to the levels scale * (q - zero_point) for quant_min <= q <= quant_max.

    >>> torch.fake_quantize_per_tensor_affine(torch.tensor([-1., 0.23, 1.]), 0.1, 0, 0, 255)
    tensor([0.0000, 0.2000, 1.0000])
    """
    floats_only("fake_quantize", input)
    _check_range(quant_min, quant_max)
    scale, zero_point = beside(scale, input), beside(zero_point, input)
    return _quantised(input, scale, zero_point, quant_min, quant_max)


@fake_quantize_per_tensor_affine.vjp
def fake_quantize_per_tensor_affine_vjp(g, input, scale, zero_point, quant_min, quant_max):
    """Passed on between the limits."""
    return [_passed(g, input, beside(scale, input), beside(zero_point, input), quant_min,
                    quant_max), None, None]


def _channel_samples():
    scale, shift = np.array([0.1, 0.2, 0.3], "float32"), np.array([0, 1, 2], "int32")
    yield sample(Arr((3, 4), requires_grad=False), scale, shift, 0, -8, 7)
    yield sample(Arr((2, 3, 5), requires_grad=False), scale, shift, 1, 0, 255)


@op(method=False, out=False, samples=_channel_samples,
    grad="FakeQuantizePerChannelAffineCachemaskBackward0")
def fake_quantize_per_channel_affine(input: Tensor, scale: Index, zero_point: Index, axis: int,
                                     quant_min: int, quant_max: int):
    """`fake_quantize_per_tensor_affine` with a scale and a zero point for each slice of `axis`.

    >>> x = torch.tensor([[0.23, 1.], [0.23, 1.]])
    >>> zeros = torch.zeros(2, dtype=torch.int32)
    >>> torch.fake_quantize_per_channel_affine(x, torch.tensor([0.1, 0.5]), zeros, 0, 0, 255)
    tensor([[0.2000, 1.0000],
            [0.0000, 1.0000]])
    """
    floats_only("fake_quantize", input)
    _check_range(quant_min, quant_max)
    scale, zero_point = _by_channel(input, scale, zero_point, axis)
    return _quantised(input, scale, zero_point, quant_min, quant_max)


@fake_quantize_per_channel_affine.vjp
def fake_quantize_per_channel_affine_vjp(g, input, scale, zero_point, axis, quant_min, quant_max):
    """Passed on between the limits."""
    scale, zero_point = _by_channel(input, scale, zero_point, axis)
    return [_passed(g, input, scale, zero_point, quant_min, quant_max), None, None]


def _by_channel(x: Value, scale: Value, zero_point: Value, axis: int) -> tuple[Value, Value]:
    if not 0 <= axis < x.ndim:
        raise RuntimeError("`axis` must be between 0 and number of dimensions of input, got "
                           f"{axis}")
    for name, given in (("scale", scale), ("zero-point", zero_point)):
        if given.ndim != 1 or given.shape[0] != x.shape[axis]:
            raise RuntimeError(f"dimensions of {name} and the input along axis {axis} must match, "
                               f"got {list(given.shape)} and {list(x.shape)}")
    if scale.dtype is not dtypes.float32 and scale.dtype is not x.dtype:
        raise RuntimeError(f"Scale must be Float, found {scale.dtype.scalar_name}")
    shape = [x.shape[axis] if d == axis else 1 for d in range(x.ndim)]
    return tuple(p.expand(p.reshape(convert(given, x.dtype), shape), x.shape)
                 for given in (scale, zero_point))


# --------------------------------------------------------------------------- levels of their own
@op(name="_quantize_levels", public=(), method=False, out=False, opmath=False, differentiable=False,
    samples=lambda: iter([
        sample(Arr((3, 4), requires_grad=False), 0.1, 3, 0, 255, dtypes.uint8),
        sample(Arr((3, 4), requires_grad=False), 0.1, 3, 0, 15, dtypes.uint8, True)]))
def quantize_levels(input: Index, scale: Operand, zero_point: Operand, low: int, high: int,
                    dtype: object, apart: bool = False):
    """The integers nearest to input / scale + zero_point, limited to low .. high.

    Args:
        scale, zero_point: numbers, or tensors that broadcast to the input.
        apart: round before the zero point is added (ties then go to an even input / scale).
    """
    shift = beside(zero_point, input)
    inverse = beside(scale, input)
    value = p.mul(input, p.div(e.like(1, inverse), inverse))
    value = p.add(p.round_(value), shift) if apart else p.round_(p.add(value, shift))
    if dtype is dtypes.int32:  # its limits are no float32, and NaN is the lowest
        value = convert(value, dtypes.float64)
    low, high = e.like(float(low), value), e.like(float(high), value)
    if dtype is dtypes.int32:
        value = p.where(p.ge(value, low), value, low)
        value = p.where(p.le(value, high), value, high)
    else:  # NaN is the highest
        value = p.where(p.le(value, high), value, high)
        value = p.where(p.ge(value, low), value, low)
    return convert(convert(value, dtypes.int32), dtype)


@op(name="_dequantize_levels", public=(), method=False, out=False, opmath=False,
    differentiable=False, samples=lambda: iter([
        sample(Arr((3, 4), "uint8", requires_grad=False), 0.1, 3)]))
def dequantize_levels(input: Index, scale: Operand, zero_point: Operand):
    """(input - zero_point) * scale in float32; both may be numbers or tensors that broadcast."""
    shift = lift(zero_point)
    if shift.dtype.is_integral:
        above = p.sub(convert(input, dtypes.int64), _spread_to(shift, input, dtypes.int64))
        above = convert(above, dtypes.float32)
    else:
        above = p.sub(convert(input, dtypes.float32), _spread_to(shift, input, dtypes.float32))
    return p.mul(above, _spread_to(lift(scale), input, dtypes.float32))


def _spread_to(value: Value, x: Value, dtype) -> Value:
    return p.expand(convert(value, dtype), x.shape)
