"""Counts whose number or limits depend on the data: bincount, histc, histogram, histogramdd."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import LEVELS, mode
from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.core.device import META
from flambeau.core.symbolic import index_of
from flambeau.tensor import launches, tape
from flambeau.tensor.creation import linspace
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.results import result_class

__all__ = ["bincount", "histc", "histogram", "histogramdd"]


def _into(found: Any, out: Any) -> Any:
    return found if out is None else out.resize_(found.shape).copy_(found)


def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each non-negative integer up to the largest occurs; with weights, their sums.

    Args:
        input: a vector of integers.
        weights: of the same length; the result is float32 if they are, else float64.
        minlength: the least number of counts.

    >>> torch.bincount(torch.tensor([1, 1, 3]))
    tensor([0, 2, 0, 1])
    """
    need_tensor("bincount", "input", input)
    if input.dtype.kind not in "iu":
        raise NotImplementedError(f"\"bincount_cpu\" not implemented for '{input.dtype.scalar_name}"
                                  "': it counts integers; convert the input with .long()")
    minlength = index_of(minlength)
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if mode() & LEVELS:
        given = (input,) if weights is None else (input, weights)
        return launches.late.each(lambda *some: bincount(*some, minlength=minlength), *given)
    if input.ndim == 1 and not input.numel():
        return ops._bincount(input, None, minlength)
    low, high = (int(end.item()) for end in ops.aminmax(input)) if input.ndim == 1 else (-1, 0)
    if low < 0:
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if weights is not None:
        need_tensor("bincount", "weights", weights)
        if tuple(weights.shape) != tuple(input.shape):
            raise RuntimeError("weights should be 1-d and have the same length as input")
    counts = ops._bincount(input, None if weights is None else weights.detach(),
                           max(minlength, high + 1))
    return tape.underivable("bincount", counts, weights)


# ---------------------------------------------------------------------- equal parts
def histc(input: Any, bins: int = 100, min: Any = 0, max: Any = 0, *, out: Any = None) -> Any:
    """How many elements lie in each of `bins` equal parts of [min, max] (of the range of the
    elements, if both are equal). Elements outside, and NaN, count nowhere.

    Raises:
        RuntimeError: no bins; limits that are not finite, or in the wrong order.

    >>> torch.histc(torch.tensor([0., 1., 1., 2.]), bins=3, min=0, max=3)
    tensor([1., 2., 1.])
    """
    need_tensor("histc", "input", input)
    bins = _index("histc", bins)
    if input.dtype.kind != "f":
        raise NotImplementedError("\"histogram_cpu\" not implemented for "
                                  f"'{input.dtype.scalar_name}': convert the input with .float()")
    if bins <= 0:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0")
    low, high = float(min), float(max)
    if low == high and mode() & LEVELS:
        return _into(launches.late.each(lambda one: histc(one, bins, min, max), input), out)
    if low == high and input.numel() and input.device is not META:
        low, high = (float(end.item()) for end in ops.aminmax(input.detach()))
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"torch.histc: range of [{low:g}, {high:g}] is not finite")
    if low > high:
        raise RuntimeError("torch.histc: max must be larger than min")
    return _into(ops._histc(input.detach(), bins, low, high), out)


def _index(name: str, bins: Any) -> int:
    if isinstance(bins, float) or not hasattr(bins, "__index__"):
        raise TypeError(f"{name}(): argument 'bins' (position 2) must be int, not "
                        f"{type(bins).__name__}")
    return index_of(bins)


# ---------------------------------------------------------------------- given or equal parts
def histogram(input: Any, bins: Any = 100, *, range: Sequence[float] | None = None,
              weight: Any = None, density: bool = False, out: Any = None) -> Any:
    """How many elements lie between each two neighbouring edges.

    Args:
        bins: the number of equal parts, or the edges in order (a vector).
        range: (lowest, highest) edge; by default those of the elements.
        weight: what each element counts, instead of 1; of the input's shape.
        density: divide by the total and by the width of each bin: an integral of 1.

    Returns:
        (hist, bin_edges).

    >>> torch.histogram(torch.tensor([0.5, 1.5, 1.6]), bins=2, range=(0., 2.))
    torch.return_types.histogram(
    hist=tensor([1., 2.]),
    bin_edges=tensor([0., 1., 2.]))
    """
    need_tensor("histogram", "input", input)
    if not isinstance(bins, TensorBase) and not hasattr(bins, "__index__"):
        raise TypeError("histogram(): argument 'bins' (position 2) must be int or Tensor, not "
                        f"{type(bins).__name__}")
    if isinstance(bins, TensorBase) and range is not None:
        raise TypeError("histogram() got edges as 'bins' and a 'range': leave out the range, or "
                        "give the number of bins")
    if mode() & LEVELS:
        return _of_examples(functools.partial(histogram, range=range, density=density), input,
                            (bins,), weight)
    if weight is not None and isinstance(weight, TensorBase):
        weight = weight.reshape(-1)
    counts, edges = _counted(input.reshape(-1, 1), [bins], range, weight, density)
    made = result_class("histogram", ("hist", "bin_edges"))((counts, edges[0]))
    if out is None:
        return made
    for target, result in zip(out, made, strict=True):
        target.resize_(result.shape).copy_(result)
    return out


def histogramdd(input: Any, bins: Any, range: Sequence[float] | None = None, weight: Any = None,
                density: bool = False) -> Any:
    """How many points lie in each box of a grid.

    Args:
        input: (..., d), points of d coordinates.
        bins: the number of parts, for all dimensions or one each; or the edges of each.
        range: lowest and highest edge of each dimension, one after the other.
        weight: (...), what each point counts, instead of 1.
        density: divide by the total and by the volume of each box.

    Returns:
        (hist, bin_edges): d-dimensional counts, and the edges of each dimension.

    >>> torch.histogramdd(torch.tensor([[0., 0.], [1., 1.]]), bins=[2, 2]).hist
    tensor([[1., 0.],
            [0., 1.]])
    """
    need_tensor("histogramdd", "input", input)
    if input.ndim < 2:
        raise RuntimeError("torch.histogramdd: input tensor should have at least 2 dimensions")
    if mode() & LEVELS:
        several = isinstance(bins, (list, tuple)) and isinstance(bins[0], TensorBase)
        return _of_examples(functools.partial(histogramdd, range=range, density=density), input,
                            bins if several else (bins,), weight, several)
    size = input.shape[-1]
    given = [bins] * size if hasattr(bins, "__index__") else list(bins)
    if len(given) != size:
        raise RuntimeError("histogramdd: The size of bins must be equal to the innermost dimension "
                           "of the input.")
    if weight is not None:
        weight = _checked_weight(input, weight).reshape(-1)
    points = math.prod(input.shape[:-1])
    counts, edges = _counted(input.reshape(points, size), given, range, weight, density)
    return result_class("histogramdd", ("hist", "bin_edges"))((counts, tuple(edges)))


def _of_examples(function: Any, input: Any, bins: Sequence, weight: Any, several: bool = False
                 ) -> Any:
    """A histogram inside of a vmap: one for each example."""
    edges = [given for given in bins if isinstance(given, TensorBase)]

    def one(points: Any, *rest: Any) -> Any:
        cuts = rest[:len(edges)] if edges else bins
        return function(points, cuts if several else cuts[0],
                        weight=rest[len(edges)] if weight is not None else None)

    return launches.late.each(one, input, *edges, *([] if weight is None else [weight]))


def _checked_weight(points: Any, weight: Any) -> Any:
    need_tensor("histogramdd", "weight", weight)
    if weight.dtype is not points.dtype:
        raise RuntimeError("torch.histogramdd: if weight tensor is provided, input tensor and "
                           "weight tensor should have the same dtype, but got input("
                           f"{points.dtype.name}), and weight({weight.dtype.name})")
    if tuple(weight.shape) != tuple(points.shape[:-1]):
        raise RuntimeError("torch.histogramdd: if weight tensor is provided it should have the "
                           "same shape as the input tensor excluding its innermost dimension, but "
                           f"got input with shape {list(points.shape)} and weight with shape "
                           f"{list(weight.shape)}")
    return weight


def _counted(points: Any, bins: list, range: Sequence[float] | None, weight: Any, density: bool
             ) -> tuple[Any, list]:
    """(counts, edges) of points (n, d)."""
    if points.dtype not in (dtypes.float32, dtypes.float64):
        raise NotImplementedError(f"\"histogramdd\" not implemented for '{points.dtype.scalar_name}"
                                  "': convert the input with .float()")
    sources = (points, weight, *bins)
    if weight is not None:
        weight = _checked_weight(points, weight).detach()
    points = points.detach()
    for d, given in enumerate(bins):
        if not isinstance(given, TensorBase) and _index("histogramdd", given) <= 0:
            raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {given} for "
                               f"dimension {d}")
    if any(isinstance(given, TensorBase) for given in bins):
        edges = [_checked_edges(points, given, d) for d, given in enumerate(bins)]
    else:
        edges = [linspace(low, high, index_of(count) + 1, dtype=points.dtype)
                 for count, (low, high) in zip(bins, _limits(points, range), strict=True)]
    counts = ops._histogram(points, weight, edges, density)
    return (tape.underivable("histogram", counts, *sources),
            [tape.underivable("histogram", each, *sources) for each in edges])


def _checked_edges(points: Any, edges: Any, d: int) -> Any:
    need_tensor("histogramdd", f"bins[{d}]", edges)
    if edges.dtype is not points.dtype:
        raise RuntimeError("torch.histogramdd: input tensor and bins tensors should have the same "
                           f"dtype, but got input with dtype {points.dtype.name} and bins for "
                           f"dimension {d} with dtype {edges.dtype.name}")
    if edges.ndim != 1:
        raise RuntimeError("torch.histogramdd: bins tensor should have one dimension, but got "
                           f"{edges.ndim} dimensions in the bins tensor for dimension {d}")
    if not edges.numel():
        raise RuntimeError("torch.histogramdd: bins tensor should have at least 1 element, but got "
                           f"0 elements in the bins tensor for dimension {d}")
    if edges.numel() == 1:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got 0 for dimension {d}")
    return edges.detach()


def _limits(points: Any, range: Sequence[float] | None) -> list[tuple[float, float]]:
    """(lowest, highest) edge of each dimension."""
    size = points.shape[1]
    if range is not None:
        if len(range) != 2 * size:
            raise RuntimeError(f"torch.histogramdd: for a {size}-dimensional histogram range "
                               f"should have {2 * size} elements, but got {len(range)}")
        pairs = [(float(range[2 * d]), float(range[2 * d + 1])) for d in _range(size)]
    elif points.shape[0] and size:
        low, high = ops.aminmax(points, dim=0)
        pairs = list(zip(low.tolist(), high.tolist(), strict=True))
    else:
        pairs = [(0.0, 1.0)] * size
    for d, (low, high) in enumerate(pairs):
        if not (math.isfinite(low) and math.isfinite(high)):
            raise RuntimeError(f"torch.histogramdd: dimension {d}'s range [{low:g}, {high:g}] is "
                               "not finite")
        if low > high:
            raise RuntimeError(f"torch.histogramdd: min should not exceed max, but got min {low:g} "
                               f"max {high:g} for dimension {d}")
        if low == high:
            pairs[d] = low - 0.5, high + 0.5
    return pairs


_range = range  # the builtin, where an argument has its name
