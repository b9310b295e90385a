"""Pooling: maxima and means of sliding windows, and their transposes.

The last `rank` dimensions slide. A window's elements outside of the input count as the lowest value
of the dtype for maxima and as 0 for means. All primitives carry a `Sliding` as first attribute.
"""

from __future__ import annotations

import dataclasses
import math

from flambeau.core import dtypes
from flambeau.ir.graph import Primitive, Value
from flambeau.ops.primitives.structure import lookup, reshape

__all__ = ["POOL_MAX", "POOL_ARGMAX", "POOL_MAX_BACK", "POOL_MEAN", "POOL_MEAN_BACK", "Sliding",
           "pool_max", "pool_argmax", "pool_mean"]


@dataclasses.dataclass(frozen=True)
class Sliding:
    """Sliding windows, one entry per dimension.

    Attributes:
        size, out: of the input and of the result.
        include_pad, divisor: means only; what a sum is divided by: the elements that lie in the
            input, or in the padded input, or this number.
        bins: window i covers the places floor(i n / o) .. ceil((i + 1) n / o) of n, for o
            windows (adaptive pooling). `kernel` is then no less than the longest of them.
    """

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    include_pad: bool = True
    divisor: int | None = None
    bins: bool = False


def _pooled(inputs, attrs):
    return inputs[0].shape[:-len(attrs[0].out)] + attrs[0].out


def _infer_forward(inputs, attrs):
    return _pooled(inputs, attrs), inputs[0].dtype


def _infer_position(inputs, attrs):
    return _pooled(inputs, attrs), dtypes.int64


def _infer_back(inputs, attrs):
    return inputs[0].shape[:-len(attrs[0].out)] + attrs[0].size, inputs[0].dtype


POOL_MAX = Primitive("pool_max", "pool", _infer_forward)
POOL_ARGMAX = Primitive("pool_argmax", "pool", _infer_position)
POOL_MAX_BACK = Primitive("pool_max_back", "pool", _infer_back)
POOL_MEAN = Primitive("pool_mean", "pool", _infer_forward)
POOL_MEAN_BACK = Primitive("pool_mean_back", "pool", _infer_back)
POOL_ARGMAX.differentiable = False


def pool_max(x: Value, windows: Sliding) -> Value:
    """The largest element of each window; NaN is larger than everything."""
    return POOL_MAX(x, attrs=(windows,))


def pool_argmax(x: Value, windows: Sliding) -> Value:
    """Where each window's first maximum (or last NaN) lies, row-major over the input's dimensions
    that slide."""
    return POOL_ARGMAX(x, attrs=(windows,))


def pool_mean(x: Value, windows: Sliding) -> Value:
    """The sum of each window over the number that `windows` says."""
    return POOL_MEAN(x, attrs=(windows,))


@POOL_MAX.vjp
def pool_max_vjp(node, g):
    """It goes to the first maximum of each window."""
    return (POOL_MAX_BACK(g, node.inputs[0], node, attrs=node.attrs),)


@POOL_MAX_BACK.vjp
def pool_max_back_vjp(node, g):
    (windows,), x = node.attrs, node.inputs[1]
    lead = x.shape[:-len(windows.size)]
    at = pool_argmax(x, windows)
    flat = reshape(at, (*lead, math.prod(windows.out)))
    plane = reshape(g, (*lead, math.prod(windows.size)))
    found = lookup(plane, [*range(len(lead)), flat], flat.shape)
    return reshape(found, at.shape), None, None


@POOL_MEAN.vjp
def pool_mean_vjp(node, g):
    return (POOL_MEAN_BACK(g, attrs=node.attrs),)


@POOL_MEAN_BACK.vjp
def pool_mean_back_vjp(node, g):
    return (POOL_MEAN(g, attrs=node.attrs),)
