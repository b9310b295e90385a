"""Counting: how many elements fall into each bin."""

from __future__ import annotations

import math

import numpy as np

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import beside, floats_only
from flambeau.ops.index import positions, scatter_reduce, scatter_reduce_vjp
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Number, Tensor, Tensors, op
from flambeau.ops.samples import Arr, sample


def _hidden(samples):
    return op(opmath=False, method=False, public=(), out=False, differentiable=False,
              samples=samples)


def _zeros(size: int, dtype: DType) -> Value:
    return p.expand(constant(0, dtype, number=False), (size,))


def _added(bins: Value, inside: Value | None, weights: Value | None, count: int, dtype: DType
           ) -> Value:
    """(count,): the weights (ones, counted as integers) of the elements whose bin has this number.

    Args:
        inside: elements where it is false belong to no bin.
    """
    if inside is not None:
        bins = p.where(inside, bins, e.like(count, bins))  # one bin more, which is left out
    kind = dtypes.int64 if weights is None else dtype
    ones = e.like(1, convert(bins, kind)) if weights is None else weights
    total = p.scatter(_zeros(count + 1, kind), [bins], ones, "add")
    return convert(p.slice_dim(total, 0, 0, 1, count), dtype)


# --------------------------------------------------------------------------- of integers
@_hidden(lambda: iter([sample(Arr((40,), "int64", 0, 7), None, 7),
                       sample(Arr((40,), "int32", 0, 7), Arr((40,), "float32"), 9)]))
def _bincount(input: Index, weights: Tensor | None, count: int):
    """How often each of the numbers 0 to count - 1 occurs, or the sum of their weights."""
    bins = positions("bincount", input)
    if weights is None:
        return _added(bins, None, None, count, dtypes.int64)
    dtype = dtypes.float32 if weights.dtype is dtypes.float32 else dtypes.float64
    if weights.dtype.is_complex:
        weights = p.real(weights)
    return _added(bins, None, convert(weights, dtype), count, dtype)


# --------------------------------------------------------------------------- of numbers
def _rounding(dtype: DType):
    """A function that rounds to `dtype` what was computed in float32 for it."""
    def rounded(x: Value) -> Value:
        return convert(convert(x, dtype), x.dtype) if dtype.is_reduced else x

    return rounded


@_hidden(lambda: iter([sample(Arr((3, 40)), 5, -1.0, 1.5), sample(Arr((0,)), 3, 0.0, 1.0)]))
def _histc(input: Tensor, bins: int, low: Number, high: Number):
    """How many elements lie in each of `bins` equal parts of [low, high], both ends included."""
    floats_only("histogram_cpu", input)
    rounded = _rounding(input.dtype)
    x = convert(input, dtypes.float32) if input.dtype.is_reduced else input
    x = p.reshape(x, (input.numel,))
    low, high = (rounded(beside(number, x)) for number in (low, high))
    inside = p.logical_and(p.ge(x, low), p.le(x, high))
    scaled = rounded(p.mul(rounded(p.sub(x, low)), e.like(bins, x)))
    place = rounded(p.div(scaled, rounded(p.sub(high, low))))
    number = convert(p.where(inside, place, p.zero_like(place)), dtypes.int64)
    number = p.minimum(number, e.like(bins - 1, number))  # the upper end belongs to the last part
    return _added(number, inside, None, bins, input.dtype)


def _histogram_samples():
    edges = np.array([-1.5, -0.5, 0.0, 0.25, 1.0], "float32")
    yield sample(Arr((60, 1), "float32"), None, (edges,))
    yield sample(Arr((60, 2), "float32"), Arr((60,), "float32", 0), (edges, edges[1:]), True)


@_hidden(_histogram_samples)
def _histogram(input: Tensor, weight: Tensor | None, edges: Tensors, density: bool = False):
    """The number (or weight) of the points that lie in each box between the edges.

    Args:
        input: (points, dimensions).
        edges: of each dimension, in order. A box includes its lower edges; the last one of a
            dimension the upper edge too.
        density: divide by the total weight and by the volume of the box.
    """
    sizes = [max(0, along.shape[0] - 1) for along in edges]
    inside, number = None, _zeros(input.shape[0], dtypes.int64)
    for d, (along, size) in enumerate(zip(edges, sizes, strict=True)):
        x = p.reshape(p.slice_dim(input, 1, d, 1, 1), input.shape[:1])
        bounds = [p.slice_dim(along, 0, end, 1, 1) for end in (0, max(0, along.shape[0] - 1))]
        low, high = (p.expand(bound, x.shape) for bound in bounds)
        within = p.logical_and(p.ge(x, low), p.le(x, high))
        inside = within if inside is None else p.logical_and(inside, within)
        place = p.search(along, x, True)
        place = p.minimum(p.sub(place, e.like(1, place)), e.like(max(0, size - 1), place))
        number = p.add(p.mul(number, e.like(size, number)), place)
    total = math.prod(sizes)
    weight = None if weight is None else p.reshape(weight, input.shape[:1])
    counts = p.reshape(_added(number, inside, weight, total, input.dtype), sizes)
    return _as_density(counts, edges) if density else counts


def _as_density(counts: Value, edges: Tensors) -> Value:
    """Counts divided by their sum and by the volumes of their boxes."""
    total = p.reduce_sum(counts, range(counts.ndim))
    result = p.div(counts, p.expand(total, counts.shape))
    for d, along in enumerate(edges):
        size = counts.shape[d]
        width = p.sub(p.slice_dim(along, 0, 1, 1, size), p.slice_dim(along, 0, 0, 1, size))
        shape = [size if other == d else 1 for other in range(counts.ndim)]
        result = p.div(result, p.expand(p.reshape(width, shape), counts.shape))
    return result


# --------------------------------------------------------------------------- over segments
_IDENTITY = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf}
_SCATTERS = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "min": "amin"}


def _segment_samples():
    lengths = np.array([2, 0, 3])
    for how in ("sum", "mean", "max", "min", "prod"):
        yield sample(Arr((5, 3)), how, lengths=lengths, initial=0.5)
    yield sample(Arr((2, 5)), "sum", lengths=np.array([[2, 3], [4, 1]]), axis=1)
    yield sample(Arr((5,)), "mean", offsets=np.array([0, 4, 5]))


@op(method=False, out=False, samples=_segment_samples, grad="SegmentReduceBackward0")
def segment_reduce(data: Tensor, reduce: str, *, lengths: Index | None = None,
                   indices: Index | None = None, offsets: Index | None = None, axis: int = 0,
                   unsafe: bool = False, initial: float | None = None):
    """Each run of neighbours along `axis` combined: "sum", "mean", "max", "min" or "prod".

    Args:
        data: (*lead, n, *rest) with n at `axis`.
        lengths: (*lead, runs), how long each run is; or
        offsets: (*lead, runs + 1), where each starts, and at last where the last one ends.
        initial: takes part in every run; and is the result of empty ones.

    >>> torch.segment_reduce(torch.tensor([1., 2., 3., 4.]), "sum", lengths=torch.tensor([1, 3]))
    tensor([1., 9.])
    """
    floats_only("_segment_reduce_cpu", data)
    runs = _Runs(data, reduce, lengths, indices, offsets, axis, initial)
    total = scatter_reduce(runs.base, runs.at, runs.index, data, _SCATTERS[reduce])
    return runs.finished(total)


@segment_reduce.vjp
def segment_reduce_vjp(g, data, output, reduce, lengths, indices, offsets, axis, unsafe, initial):
    """Sums pass g on, means share it, extrema share it among the equal, products pass on the
    product of the other factors: as `scatter_reduce` does."""
    runs = _Runs(data, reduce, lengths, indices, offsets, axis, initial)
    if reduce == "mean":
        g = p.where(runs.empty, p.zero_like(g), p.div(g, runs.counts))
    g, output = (p.spread(x, (0,) * x.ndim, (1,) * x.ndim, runs.base.shape) for x in (g, output))
    return scatter_reduce_vjp(g, output, runs.base, runs.at, runs.index, data, _SCATTERS[reduce],
                              True)[1]


class _Runs:
    """The runs of a `segment_reduce`, in the terms of `scatter_reduce`.

    Attributes:
        at: the axis.
        base: what the runs start with; one run more, for what lies behind the last one.
        index: the number of the run of each element.
        counts, empty: how many elements each run of the result has (at least 1); whether none.
    """

    def __init__(self, data: Value, reduce: str, lengths: Value | None, indices: Value | None,
                 offsets: Value | None, axis: int, initial: float | None):
        if reduce not in _SCATTERS:
            raise RuntimeError(f"unsupported reduction {reduce!r}: choose one of "
                               f"{', '.join(map(repr, _SCATTERS))}")
        if not data.ndim:
            raise RuntimeError("segment_reduce(): data has no dimension to cut into runs")
        self.at, ends = _segment_ends(data, lengths, indices, offsets, axis)
        self.reduce, self.initial = reduce, initial
        at, n, runs, lead = self.at, data.shape[self.at], ends.shape[-1], data.shape[:self.at]
        run = p.search(ends, p.iota((*lead, n), at), True)
        self.index = p.expand(p.reshape(run, (*lead, n) + (1,) * (data.ndim - at - 1)), data.shape)
        self.shape = (*lead, runs, *data.shape[at + 1:])
        start = _IDENTITY[reduce] if initial is None else initial
        self.base = p.expand(constant(float(start), data.dtype, number=False),
                             (*lead, runs + 1, *data.shape[at + 1:]))
        before = p.spread(p.slice_dim(ends, at, 0, 1, max(0, runs - 1)), (0,) * at + (1,),
                          (1,) * ends.ndim, ends.shape)
        counts = p.reshape(p.sub(ends, before), (*ends.shape, *(1,) * (data.ndim - at - 1)))
        counts = p.expand(counts, self.shape)
        self.empty = p.eq(counts, p.zero_like(counts))
        self.counts = convert(p.where(self.empty, e.like(1, counts), counts), data.dtype)

    def finished(self, total: Value) -> Value:
        """The result, from what the scatter gave."""
        total = p.slice_(total, (0,) * total.ndim, (1,) * total.ndim, self.shape)
        if self.reduce != "mean":
            return total
        nothing = e.like(math.nan if self.initial is None else float(self.initial), total)
        return p.where(self.empty, nothing, p.div(total, self.counts))


def _segment_ends(data: Value, lengths: Value | None, indices: Value | None,
                  offsets: Value | None, axis: int) -> tuple[int, Value]:
    """(the axis, where each run ends)."""
    if indices is not None:
        raise RuntimeError("segment_reduce(): indices based reduction is not supported yet.")
    if lengths is None and offsets is None:
        raise RuntimeError("segment_reduce(): Either lengths or offsets must be defined.")
    if not data.numel:
        raise RuntimeError("segment_reduce(): data must not be empty")
    given = offsets if lengths is None else lengths
    at = axis + data.ndim if axis < 0 else axis
    if at != given.ndim - 1:
        raise RuntimeError("segment_reduce(): Expected axis to be the last dimension of lengths "
                           f"but got {axis}.")
    if given.shape[:-1] != data.shape[:at]:
        raise RuntimeError("segment_reduce(): data and lengths must agree in the dimensions before "
                           f"axis, got {list(data.shape)} and {list(given.shape)}")
    given = convert(given, dtypes.int64)
    if lengths is not None:
        return at, p.cumsum(given, given.ndim - 1)
    return at, p.slice_dim(given, given.ndim - 1, 1, 1, given.shape[-1] - 1)
