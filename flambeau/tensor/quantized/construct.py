"""What users make quantized tensors with, and functions of quantized tensors only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.core.dtypes import DType
from flambeau.core.qschemes import (
    QScheme,
    per_channel_affine,
    per_channel_affine_float_qparams,
    per_tensor_affine,
)
from flambeau.tensor import launches
from flambeau.tensor.composed import unsupported
from flambeau.tensor.functions import ops
from flambeau.tensor.interop import from_data
from flambeau.tensor.quantized import rules as rules  # with the first quantized tensor
from flambeau.tensor.quantized.schemes import Quantizer, limits, range_parameters
from flambeau.tensor.quantized.tensor import (
    QuantizedTensor,
    levels_of,
    numbers_of,
    packed_levels,
    wrap,
)

__all__ = ["_empty_affine_quantized", "_empty_per_channel_affine_quantized",
           "_make_per_channel_quantized_tensor", "_make_per_tensor_quantized_tensor", "dequantize",
           "empty_quantized", "fused_moving_avg_obs_fake_quant", "int_repr", "q_per_channel_axis",
           "q_per_channel_scales", "q_per_channel_zero_points", "q_scale", "q_zero_point",
           "qscheme", "quantize_per_channel", "quantize_per_tensor",
           "quantize_per_tensor_dynamic", "quantized_batch_norm", "quantized_max_pool1d",
           "quantized_max_pool2d", "quantized_max_pool3d"]


# ---------------------------------------------------------------------- to levels
def _checked(name: str, input: Any, dtype: Any) -> Any:
    """The numbers to quantize.

    Raises:
        RuntimeError: no float32 tensor, or no quantized dtype.
    """
    need_tensor(name, "input", input)
    if dtype not in dtypes.QUANTIZED:
        raise RuntimeError(f"{name}: ScalarType {getattr(dtype, 'scalar_name', dtype)} is not "
                           "supported; use torch.quint8, torch.qint8 or torch.qint32")
    if input.dtype is not dtypes.float32:
        raise RuntimeError(f"Quantize only works on Float Tensor, got {input.dtype.scalar_name}; "
                           "convert with .float() first")
    return input.detach()


def _check_zero_point(zero_point: int, dtype: DType) -> None:
    low, high = limits(dtype)
    if not low <= zero_point <= high:
        side = "above upper" if zero_point > high else "below lower"
        raise RuntimeError(f"quantize_per_tensor: zero_point {zero_point} is {side} bound: "
                           f"{dtype.name} has the levels {low} to {high}")


def _number(value: Any, kind: type) -> Any:
    return kind(value.item() if hasattr(value, "item") else value)


def quantize_per_tensor(input: Any, scale: Any, zero_point: Any, dtype: DType) -> Any:
    """The tensor as integers: round(input / scale + zero_point), limited to what `dtype` holds.

    Args:
        input: float32; or a list of tensors, with a tensor of scales and one of zero points.
        scale, zero_point: numbers, or tensors of one element.
        dtype: torch.quint8, qint8, qint32, quint4x2 or quint2x4.

    >>> torch.quantize_per_tensor(torch.tensor([-1.0, 0.0, 2.04]), 0.1, 10, torch.quint8).int_repr()
    tensor([ 0, 10, 30], dtype=torch.uint8)
    """
    if isinstance(input, (list, tuple)):
        triples = zip(input, scale.tolist(), zero_point.tolist(), strict=True)
        return tuple(quantize_per_tensor(t, s, z, dtype) for t, s, z in triples)
    input = _checked("quantize_per_tensor", input, dtype)
    zero_point = _number(zero_point, int)
    _check_zero_point(zero_point, dtype)
    quantizer = Quantizer(dtype, per_tensor_affine, _number(scale, float), zero_point)
    return wrap(levels_of(input, quantizer), quantizer)


def quantize_per_channel(input: Any, scales: Any, zero_points: Any, axis: int, dtype: DType
                         ) -> Any:
    """The tensor as integers, with a scale and a zero point for each slice along `axis`.

    Args:
        input: float32.
        scales, zero_points: one element a slice; floating zero points need not be levels.
        axis: counted from the front.
        dtype: torch.quint8, qint8, qint32, quint4x2 or quint2x4.

    >>> x = torch.tensor([[-1.0, 0.5], [2.0, 4.0]])
    >>> q = torch.quantize_per_channel(x, torch.tensor([0.1, 0.5]), torch.tensor([0, 2]), 0,
    ...                                torch.qint8)
    >>> q.int_repr()
    tensor([[-10,   5],
            [  6,  10]], dtype=torch.int8)
    """
    input = _checked("quantize_per_channel", input, dtype)
    quantizer = _channels(tuple(input.shape), scales, zero_points, axis, dtype)
    return wrap(levels_of(input, quantizer), quantizer)


def _channels(shape: Sequence[int], scales: Any, zero_points: Any, axis: int, dtype: DType
              ) -> Quantizer:
    if scales.ndim != 1 or zero_points.ndim != 1 or scales.numel() != zero_points.numel():
        raise RuntimeError("number of elements in scales and zero_points must match, got shapes "
                           f"{list(scales.shape)} and {list(zero_points.shape)}")
    if not 0 <= axis < len(shape):
        raise RuntimeError("Channel axis out of range in per channel affine quantization. Got: "
                           f"{axis} Expected: [0, {len(shape)})")
    if shape[axis] != scales.numel():
        raise RuntimeError(f"length of scales must equal to channel, expected {shape[axis]} got, "
                           f"{scales.numel()}")
    if zero_points.dtype.kind == "f":
        return Quantizer(dtype, per_channel_affine_float_qparams, scales.float().detach(),
                         zero_points.float().detach(), axis)
    return Quantizer(dtype, per_channel_affine, scales.double().detach(), zero_points.long(), axis)


def quantize_per_tensor_dynamic(input: Any, dtype: DType, reduce_range: bool) -> Any:
    """`quantize_per_tensor` with a scale and a zero point that follow from the smallest and the
    largest number.

    Args:
        input: float32, not empty.
        dtype: torch.quint8 or qint8.
        reduce_range: leave out half of the levels, as old processors' products need it.

    >>> torch.quantize_per_tensor_dynamic(torch.tensor([0.0, 51.0]), torch.quint8, False).q_scale()
    0.2
    """
    input = _checked("quantize_per_tensor_dynamic", input, dtype)
    if dtype not in (dtypes.quint8, dtypes.qint8):
        raise RuntimeError(f"quantize_per_tensor_dynamic: dtype {dtype.scalar_name} not supported; "
                           "use torch.quint8 or torch.qint8")
    lowest, highest = limits(dtype)
    if reduce_range:
        lowest, highest = lowest // 2, highest // 2
    low, high = ops.amin(input).item(), ops.amax(input).item()
    return quantize_per_tensor(input, *range_parameters(low, high, lowest, highest), dtype)


def dequantize(input: Any) -> Any:
    """The numbers of a quantized tensor (or of a list of them) as float32.

    >>> torch.dequantize(torch.quantize_per_tensor(torch.tensor([0.26]), 0.1, 0, torch.qint8))
    tensor([0.3000])
    """
    if isinstance(input, (list, tuple)):
        return tuple(dequantize(item) for item in input)
    need_tensor("dequantize", "tensor", input)
    return numbers_of(input) if isinstance(input, QuantizedTensor) else input.to(dtypes.float32)


# ---------------------------------------------------------------------- from parts
def _empty_affine_quantized(*size: Any, scale: float = 1.0, zero_point: int = 0,
                            dtype: DType = dtypes.quint8, device: Any = None, layout: Any = None,
                            requires_grad: bool = False, pin_memory: bool = False,
                            memory_format: Any = None) -> Any:
    """A quantized tensor whose levels are not initialised."""
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    quantizer = Quantizer(dtype, per_tensor_affine, float(scale), int(zero_point))
    return wrap(launches.fresh_dense(dtype.carrier, shape), quantizer)


def _empty_per_channel_affine_quantized(*size: Any, scales: Any, zero_points: Any, axis: int,
                                        dtype: DType = dtypes.quint8, device: Any = None,
                                        layout: Any = None, requires_grad: bool = False,
                                        pin_memory: bool = False, memory_format: Any = None) -> Any:
    """A tensor quantized per channel whose levels are not initialised."""
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    quantizer = _channels(shape, scales, zero_points, axis, dtype)
    return wrap(launches.fresh_dense(dtype.carrier, shape), quantizer)


def empty_quantized(size: Any, qtensor: Any, *, dtype: DType | None = None, layout: Any = None,
                    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
                    memory_format: Any = None) -> Any:
    """A tensor that is quantized like `qtensor`, with levels that are not initialised.

    >>> q = torch.quantize_per_tensor(torch.ones(2), 0.5, 1, torch.quint8)
    >>> torch.empty_quantized((3,), q).q_scale()
    0.5
    """
    quantizer = _of(qtensor, "empty_quantized")
    return wrap(launches.fresh_dense(quantizer.dtype.carrier, tuple(size)), quantizer)


_OF_LEVELS = {dtypes.uint8: dtypes.quint8, dtypes.int8: dtypes.qint8, dtypes.int32: dtypes.qint32}


def _quantized_dtype(levels: Any) -> DType:
    found = _OF_LEVELS.get(levels.dtype)
    if found is None:
        raise RuntimeError("levels must be uint8, int8 or int32, got "
                           f"{levels.dtype.name}")
    return found


def _make_per_tensor_quantized_tensor(input: Any, scale: float, zero_point: int) -> Any:
    """A quantized tensor of given levels (copied)."""
    quantizer = Quantizer(_quantized_dtype(input), per_tensor_affine, float(scale), int(zero_point))
    return wrap(ops.clone(input), quantizer)


def _make_per_channel_quantized_tensor(input: Any, scale: Any, zero_point: Any, axis: int) -> Any:
    """A tensor quantized per channel of given levels (copied)."""
    quantizer = _channels(tuple(input.shape), scale, zero_point, axis, _quantized_dtype(input))
    return wrap(ops.clone(input), quantizer)


# ---------------------------------------------------------------------- what a tensor is made of
def _of(input: Any, name: str) -> Quantizer:
    need_tensor(name, "input", input)
    if not isinstance(input, QuantizedTensor):
        raise unsupported(name, "CPU", "It is a function of quantized tensors.")
    return input._quantizer


def _uniform(input: Any, name: str) -> Quantizer:
    quantizer = _of(input, name)
    if quantizer.per_channel:
        raise RuntimeError(f"{name}: expected a tensor quantized per tensor, got one of scheme "
                           f"{quantizer.scheme}; ask for q_per_channel_scales() and so on")
    return quantizer


def _by_channel(input: Any, name: str) -> Quantizer:
    quantizer = _of(input, name)
    if not quantizer.per_channel:
        raise RuntimeError(f"{name}: expected a tensor quantized per channel, got one of scheme "
                           f"{quantizer.scheme}; ask for q_scale() and q_zero_point()")
    return quantizer


def int_repr(input: Any) -> Any:
    """The levels, as integers; those of quint4x2 and quint2x4 packed into bytes, in one dimension.

    >>> torch.int_repr(torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 0.5, 3, torch.qint32))
    tensor([5, 7], dtype=torch.int32)
    """
    _of(input, "int_repr")
    return packed_levels(input)


def q_scale(input: Any) -> float:
    """The scale of a tensor quantized per tensor.

    >>> torch.q_scale(torch.quantize_per_tensor(torch.ones(2), 0.5, 1, torch.quint8))
    0.5
    """
    return _uniform(input, "q_scale").scale


def q_zero_point(input: Any) -> int:
    """The level that stands for 0, of a tensor quantized per tensor.

    >>> torch.q_zero_point(torch.quantize_per_tensor(torch.ones(2), 0.5, 1, torch.quint8))
    1
    """
    return _uniform(input, "q_zero_point").zero_point


def q_per_channel_scales(input: Any) -> Any:
    """The scale of each channel, float64.

    >>> q = torch.quantize_per_channel(torch.ones(1, 2), torch.tensor([0.5, 0.25]),
    ...                                torch.tensor([0, 3]), 1, torch.qint8)
    >>> q.q_per_channel_scales()
    tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    return _by_channel(input, "q_per_channel_scales").scale


def q_per_channel_zero_points(input: Any) -> Any:
    """The level that stands for 0 in each channel.

    >>> q = torch.quantize_per_channel(torch.ones(1, 2), torch.tensor([0.5, 0.25]),
    ...                                torch.tensor([0, 3]), 1, torch.qint8)
    >>> q.q_per_channel_zero_points()
    tensor([0, 3])
    """
    return _by_channel(input, "q_per_channel_zero_points").zero_point


def q_per_channel_axis(input: Any) -> int:
    """The dimension of channels.

    >>> q = torch.quantize_per_channel(torch.ones(1, 2), torch.tensor([0.5, 0.25]),
    ...                                torch.tensor([0, 3]), 1, torch.qint8)
    >>> q.q_per_channel_axis()
    1
    """
    return _by_channel(input, "q_per_channel_axis").axis


def qscheme(self: Any) -> QScheme:
    """How the tensor is quantized.

    >>> torch.quantize_per_tensor(torch.ones(2), 0.5, 1, torch.quint8).qscheme()
    torch.per_tensor_affine
    """
    return _of(self, "qscheme").scheme


# ---------------------------------------------------------------------- layers
def quantized_batch_norm(input: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float,
                         output_scale: float, output_zero_point: int) -> Any:
    """Batch normalisation by given statistics, of a quantized (N, C, H, W) or (N, C, D, H, W).

    >>> q = torch.quantize_per_tensor(torch.ones(1, 2, 1, 1), 0.5, 1, torch.quint8)
    >>> one, zero = torch.ones(2), torch.zeros(2)
    >>> torch.quantized_batch_norm(q, one, zero, one, one, 0.0, 0.5, 1).dequantize().flatten()
    tensor([0., 0.])
    """
    before = _uniform(input, "quantized_batch_norm")
    shape = [-1 if d == 1 else 1 for d in range(input.ndim)]
    factor = ops.rsqrt(ops.add(var, eps))
    factor = factor if weight is None else ops.mul(factor, weight)
    shift = ops.neg(ops.mul(mean, factor))
    shift = shift if bias is None else ops.add(shift, bias)
    numbers = ops.add(ops.mul(numbers_of(input), factor.reshape(shape)), shift.reshape(shape))
    quantizer = Quantizer(before.dtype, per_tensor_affine, float(output_scale),
                          int(output_zero_point))
    return wrap(levels_of(numbers.detach(), quantizer), quantizer)


def quantized_max_pool1d(input: Any, kernel_size: Any, stride: Any = (), padding: Any = 0,
                         dilation: Any = 1, ceil_mode: bool = False) -> Any:
    """The largest number of each window of a quantized (N, C, L).

    >>> q = torch.quantize_per_tensor(torch.tensor([[[1.0, 3.0, 2.0]]]), 0.5, 1, torch.quint8)
    >>> torch.quantized_max_pool1d(q, 2, 1).dequantize()
    tensor([[[3., 3.]]])
    """
    _of(input, "quantized_max_pool1d")
    return ops.max_pool1d(input, kernel_size, stride or None, padding, dilation, ceil_mode)


def quantized_max_pool2d(input: Any, kernel_size: Any, stride: Any = (), padding: Any = 0,
                         dilation: Any = 1, ceil_mode: bool = False) -> Any:
    """The largest number of each window of a quantized (N, C, H, W).

    >>> q = torch.quantize_per_tensor(torch.arange(4.0).reshape(1, 1, 2, 2), 1.0, 0, torch.quint8)
    >>> torch.quantized_max_pool2d(q, 2).dequantize()
    tensor([[[[3.]]]])
    """
    _of(input, "quantized_max_pool2d")
    return ops.max_pool2d(input, kernel_size, stride or None, padding, dilation, ceil_mode)


def quantized_max_pool3d(input: Any, kernel_size: Any, stride: Any = (), padding: Any = 0,
                         dilation: Any = 1, ceil_mode: bool = False) -> Any:
    """The largest number of each window of a quantized (N, C, D, H, W).

    >>> q = torch.quantize_per_tensor(torch.ones(1, 1, 2, 2, 2), 1.0, 0, torch.quint8)
    >>> torch.quantized_max_pool3d(q, 2).dequantize().flatten()
    tensor([1.])
    """
    _of(input, "quantized_max_pool3d")
    return ops.max_pool3d(input, kernel_size, stride or None, padding, dilation, ceil_mode)


def fused_moving_avg_obs_fake_quant(input: Any, observer_on: Any, fake_quant_on: Any,
                                    running_min: Any, running_max: Any, scale: Any,
                                    zero_point: Any, averaging_const: float, quant_min: int,
                                    quant_max: int, ch_axis: int, per_row_fake_quant: bool = False,
                                    symmetric_quant: bool = False) -> Any:
    """Moving averages of the range of numbers, and the numbers rounded to the levels that it gives.

    Args:
        observer_on, fake_quant_on: tensors of one element: update the range; round.
        running_min, running_max, scale, zero_point: written where `observer_on`; one element, or
            one for each slice along `ch_axis` (`per_row_fake_quant`).
        averaging_const: the weight of this input in the averages.
        quant_min, quant_max: the lowest and the highest level.
        symmetric_quant: 0 lies in the middle of the levels.

    >>> one, far = torch.ones(1), torch.tensor([float("inf")])
    >>> scale, zero_point = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    >>> torch.fused_moving_avg_obs_fake_quant(torch.tensor([0.0, 0.26, 25.5]), one, one, far, -far,
    ...                                       scale, zero_point, 0.01, 0, 255, 0)
    tensor([ 0.0000,  0.3000, 25.5000])
    """
    need_tensor("fused_moving_avg_obs_fake_quant", "input", input)
    if observer_on.item():
        _observe(input.detach(), running_min, running_max, averaging_const,
                 ch_axis if per_row_fake_quant else None)
        _set_parameters(running_min, running_max, scale, zero_point, quant_min, quant_max,
                        symmetric_quant)
    if not fake_quant_on.item():
        return input
    if per_row_fake_quant:
        return ops.fake_quantize_per_channel_affine(input, scale.clone(), zero_point.clone(),
                                                    ch_axis, quant_min, quant_max)
    return ops.fake_quantize_per_tensor_affine(input, scale.reshape(()).clone(),
                                               zero_point.reshape(()).clone(), quant_min,
                                               quant_max)


def _observe(input: Any, running_min: Any, running_max: Any, weight: float, axis: int | None
             ) -> None:
    """Move the averages of the smallest and the largest number; the first ones are taken over."""
    others = tuple(d for d in range(input.ndim) if d != axis)
    for running, seen in ((running_min, ops.amin(input, others)),
                          (running_max, ops.amax(input, others))):
        seen = seen.reshape(-1)
        if running.numel() != seen.numel():
            running.resize_(seen.shape).copy_(seen)
            continue
        known = ops.isfinite(running.reshape(-1))
        moved = ops.add(running.reshape(-1), ops.mul(ops.sub(seen, running.reshape(-1)), weight))
        running.copy_(ops.where(known, moved, seen).reshape(tuple(running.shape)))


def _set_parameters(low: Any, high: Any, scale: Any, zero_point: Any, lowest: int, highest: int,
                    symmetric: bool) -> None:
    found = []
    for first, last in zip(low.reshape(-1).tolist(), high.reshape(-1).tolist(), strict=True):
        if symmetric:
            first, last = min(first, -last), max(last, -first)
        step, zero = range_parameters(first, last, lowest, highest)
        found.append((step, (lowest + highest + 1) // 2 if symmetric else zero))
    for target, numbers in ((scale, [step for step, _ in found]),
                            (zero_point, [zero for _, zero in found])):
        made = from_data(numbers, target.dtype)
        if target.numel() != made.numel():
            target.resize_(made.shape)
        target.copy_(made.reshape(tuple(target.shape)))
