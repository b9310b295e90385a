"""What operations of the table do with quantized tensors.

A rule is a function of the op's arguments, in their order. Views and moves apply themselves to the
levels; so does what keeps the order of numbers, since levels have the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.qschemes import per_tensor_affine
from flambeau.ops.record import REGISTRY, Op
from flambeau.tensor.functions import ops
from flambeau.tensor.quantized.schemes import Quantizer, limits
from flambeau.tensor.quantized.tensor import (
    QuantizedTensor,
    levels_of,
    numbers_of,
    requantized,
    wrap,
)

__all__: list[str] = []


def _call(name: str, args: Sequence) -> Any:
    """The op `name` of the table on plain arguments."""
    record = REGISTRY[name]
    pairs = list(zip(record.params, args, strict=True))
    plain = [arg for param, arg in pairs if not param.keyword_only]
    named = {param.name: arg for param, arg in pairs if param.keyword_only}
    return getattr(ops, name.split(".")[-1])(*plain, **named)


def _wrapped(result: Any, quantizer: Quantizer) -> Any:
    """Results of an op on levels, as quantized tensors; int64 ones are indices."""
    if not isinstance(result, (tuple, list)):
        return result if result.dtype is dtypes.int64 else wrap(result, quantizer)
    items = [_wrapped(item, quantizer) for item in result]
    if type(result) in (tuple, list):
        return type(result)(items)
    return type(result)(items)  # named results


# ---------------------------------------------------------------------- views
def _moved(record: Op) -> Callable:
    """The rule of a view op."""

    def rule(tensor: QuantizedTensor, *rest: Any) -> Any:
        views = _call(record.name, (tensor._levels, *rest))
        if not tensor._quantizer.per_channel:
            return _wrapped(views, tensor._quantizer)
        channels = _call(record.name, (_channels(tensor), *rest))
        if not isinstance(views, (tuple, list)):
            return wrap(views, _moved_quantizer(tensor._quantizer, channels))
        return type(views)(wrap(view, _moved_quantizer(tensor._quantizer, which))
                           for view, which in zip(views, channels, strict=True))

    return rule


def _channels(tensor: QuantizedTensor) -> Any:
    """For every element the number of its channel; it takes the memory of one row."""
    rank, axis = tensor.ndim, tensor._quantizer.axis
    numbers = ops._arange(0, 1, tensor.shape[axis], dtypes.int64)
    shape = [-1 if d == axis else 1 for d in range(rank)]
    return numbers.reshape(shape).expand(tuple(tensor.shape))


def _moved_quantizer(quantizer: Quantizer, channels: Any) -> Quantizer:
    """The quantizer after a move, told by where the numbers of channels have gone."""
    varying = [d for d, (size, step) in enumerate(zip(channels.shape, channels.stride(),
                                                      strict=True)) if size > 1 and step]
    if len(varying) > 1:
        raise RuntimeError("the channels of a per-channel quantized tensor must stay along one "
                           "dimension; .dequantize() first")
    if not varying:
        first = channels.reshape(-1)[0].item() if channels.numel() else 0
        return Quantizer(quantizer.dtype, per_tensor_affine, quantizer.scale[first].item(),
                         int(quantizer.zero_point[first].item()))
    line = channels
    for d in reversed(range(channels.ndim)):
        if d != varying[0]:
            line = line.select(d, 0)
    return Quantizer(quantizer.dtype, quantizer.scheme, quantizer.scale[line],
                     quantizer.zero_point[line], varying[0])


# ---------------------------------------------------------------------- on levels
def _uniform(tensor: QuantizedTensor, name: str) -> Quantizer:
    """The quantizer of a tensor that has one scale.

    Raises:
        NotImplementedError: it has one for each channel.
    """
    if tensor._quantizer.per_channel:
        raise NotImplementedError(f"{name} is not implemented for tensors quantized per channel; "
                                  ".dequantize() first")
    return tensor._quantizer


def _on_levels(name: str, tensor: QuantizedTensor, *rest: Any) -> Any:
    """An op that only moves or compares elements."""
    quantizer = _uniform(tensor, name)
    rest = tuple(requantized(item, quantizer) if isinstance(item, QuantizedTensor) else item
                 for item in rest)
    return _wrapped(_call(name, (tensor._levels, *rest)), quantizer)


def _copied(name: str, tensor: QuantizedTensor, *rest: Any) -> Any:
    """An op that keeps every element in its place."""
    return wrap(_call(name, (tensor._levels, *rest)), tensor._quantizer)


def _reshaped(tensor: QuantizedTensor, shape: tuple, *rest: Any) -> Any:
    if not tensor._quantizer.per_channel or tuple(shape) == tuple(tensor.shape):
        return _copied("_reshape_copy", tensor, shape, *rest)
    return ops.view(wrap(tensor._levels.contiguous(), tensor._quantizer), shape)


def _joined(name: str, tensors: Sequence, dim: Any = 0) -> Any:
    quantizer = _uniform(next(t for t in tensors if isinstance(t, QuantizedTensor)), name)
    return wrap(_call(name, (tuple(requantized(t, quantizer) for t in tensors), dim)), quantizer)


def _level(quantizer: Quantizer, number: Any) -> int:
    """The level nearest to a number."""
    given = number.item() if hasattr(number, "item") else number
    return int(levels_of(ops._arange(float(given), 0.0, 1, dtypes.float32), quantizer).item())


def _fill(tensor: QuantizedTensor, value: Any) -> Any:
    quantizer = _uniform(tensor, "fill_")
    return wrap(ops.fill(tensor._levels, _level(quantizer, value)), quantizer)


def _masked_fill(tensor: QuantizedTensor, mask: Any, value: Any) -> Any:
    quantizer = _uniform(tensor, "masked_fill")
    return wrap(ops.masked_fill(tensor._levels, mask, _level(quantizer, value)), quantizer)


def _index_put(tensor: QuantizedTensor, indices: Any, values: Any, *rest: Any) -> Any:
    quantizer = _uniform(tensor, "index_put_")
    return wrap(_call("_index_put", (tensor._levels, indices, requantized(values, quantizer),
                                     *rest)), quantizer)


def _copy(target: Any, source: Any, *rest: Any) -> Any:
    if not isinstance(target, QuantizedTensor):
        return numbers_of(source)
    levels = requantized(source, target._quantizer)
    return wrap(levels.expand(tuple(target.shape)), target._quantizer)


def _pad(tensor: QuantizedTensor, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    quantizer = _uniform(tensor, "pad")
    level = _level(quantizer, value or 0) if mode == "constant" else None
    return wrap(ops.pad(tensor._levels, pad, mode, level), quantizer)


# ---------------------------------------------------------------------- numbers
def _compared(name: str, input: Any, other: Any) -> Any:
    return _call(name, (numbers_of(input), numbers_of(other)))


def _above_zero(tensor: QuantizedTensor) -> Any:
    quantizer = _uniform(tensor, "relu")
    return wrap(ops.clamp(tensor._levels, min=int(quantizer.zero_point)), quantizer)


def _clamp(tensor: QuantizedTensor, low: Any = None, high: Any = None) -> Any:
    quantizer = _uniform(tensor, "clamp")
    low, high = (None if end is None else _level(quantizer, end) for end in (low, high))
    return wrap(ops.clamp(tensor._levels, low, high), quantizer)


def _averaged(name: str, tensor: QuantizedTensor, *rest: Any) -> Any:
    """An op computed on numbers, whose results are quantized likewise."""
    quantizer = _uniform(tensor, name)
    return wrap(levels_of(_call(name, (numbers_of(tensor), *rest)), quantizer), quantizer)


def _bounded(name: str, low: float, tensor: QuantizedTensor) -> Any:
    """A function with values in `low` .. 1, whose levels cover that."""
    before = _uniform(tensor, name)
    first, last = limits(before.dtype)
    wide = before.dtype is dtypes.qint32
    scale = (1.0 - low) / (2.0**32 if wide else 256.0)
    zero_point = first if low == 0 else (first + last + 1) // 2
    quantizer = Quantizer(before.dtype, per_tensor_affine, scale, zero_point)
    return wrap(levels_of(_call(name, (numbers_of(tensor),)), quantizer), quantizer)


_ON_LEVELS = ("flip", "roll", "index_select", "_index", "gather", "repeat", "_repeat_each", "sort",
              "topk", "amax", "amin", "max_dim", "min_dim", "max_all", "min_all", "max_pool1d",
              "max_pool2d", "max_pool3d", "_upsample_nearest", "fliplr", "flipud", "narrow_copy",
              "pixel_shuffle", "channel_shuffle", "msort")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_AVERAGES = ("mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
             "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_upsample_linear", "hardtanh",
             "leaky_relu", "elu", "hardswish", "relu6")

QuantizedTensor.moved = staticmethod(_moved)
QuantizedTensor.rules |= {
    **{name: functools.partial(_on_levels, name) for name in _ON_LEVELS},
    "clone": functools.partial(_copied, "clone"),
    **{name: functools.partial(_compared, name) for name in _COMPARISONS},
    **{name: functools.partial(_averaged, name) for name in _AVERAGES},
    "cat": functools.partial(_joined, "cat"), "stack": functools.partial(_joined, "stack"),
    "_reshape_copy": _reshaped, "fill": _fill, "zero": functools.partial(_fill, value=0),
    "masked_fill": _masked_fill, "_index_put": _index_put, "copy": _copy, "pad": _pad,
    "relu": _above_zero, "clamp": _clamp, "sigmoid": functools.partial(_bounded, "sigmoid", 0.0),
    "tanh": functools.partial(_bounded, "tanh", -1.0),
    "hardsigmoid": functools.partial(_bounded, "hardsigmoid", 0.0),
}
