"""Sorting, selection by rank, quantiles, the most frequent value. NaN is larger than everything."""

from __future__ import annotations

import numpy as np

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.core.shapes import normalize_dim
from flambeau.ir.graph import Value, constant
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import Arr, sample


def _samples(*args, **kwargs):
    def samples():
        for shape in ((5,), (3, 40), (2, 3, 17), (700,)):
            yield sample(Arr(shape), *args, **kwargs)

    return samples


# --------------------------------------------------------------------------- building blocks
def _to_last(x: Value, at: int) -> Value:
    return p.permute(x, [*(d for d in range(x.ndim) if d != at), at])


def _from_last(x: Value, at: int) -> Value:
    order = list(range(x.ndim - 1))
    return p.permute(x, [*order[:at], x.ndim - 1, *order[at:]])


def _order(name: str, x: Value, at: int, descending: bool, limit: int | None = None,
           first: int = 0) -> Value:
    """The positions along dimension `at` in order, or those from `first` up to `limit`."""
    if x.dtype.is_complex:
        if name in ("kthvalue", "median", "nanmedian"):
            raise NotImplementedError(f"\"{name}_cpu\" not implemented for "
                                      f"'{x.dtype.scalar_name}': complex numbers have no order")
        raise NotImplementedError(f" {name.capitalize()} does not support complex dtypes on CPU")
    plain = convert(x, dtypes.uint8) if x.dtype.kind == "b" else x
    return _from_last(p.argsort(_to_last(plain, at), descending, limit, first), at)


def _at(x: Value, at: int, index: Value) -> Value:
    """x with the positions `index` along dimension `at`: like `gather`."""
    return p.lookup(x, [index if d == at else d for d in range(x.ndim)], index.shape)


def _zero_index() -> Value:
    return p.expand(constant(0, dtypes.int64, number=False), ())


def _kept(at: int, keepdim: bool, *values: Value) -> tuple[Value, ...]:
    if keepdim:
        return values
    return tuple(p.reshape(v, v.shape[:at] + v.shape[at + 1:]) for v in values)


def _nan_count(x: Value, at: int) -> Value:
    """How many NaN each row holds, with the dimension kept."""
    found = p.reduce_sum(convert(p.ne(x, x), dtypes.int64), (at,))
    return p.reshape(found, x.shape[:at] + (1,) + x.shape[at + 1:])


# --------------------------------------------------------------------------- sorting
@op(samples=_samples(), returns=("values", "indices"), opmath=False)
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None):
    """The elements in order along dim, and where they were. Always stable.

    >>> torch.sort(torch.tensor([3., 1., 2.]), descending=True)
    torch.return_types.sort(
    values=tensor([3., 2., 1.]),
    indices=tensor([0, 2, 1]))
    """
    at = normalize_dim(dim, input.ndim)
    if input.ndim == 0:
        return p.stop_copy(input), _zero_index()
    index = _order("sort", input, at, descending)
    return _at(input, at, index), index


@op(samples=_samples(), opmath=False, differentiable=False)
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None):
    """Where the elements in order along dim are.

    >>> torch.argsort(torch.tensor([3., 1., 2.]))
    tensor([1, 2, 0])
    """
    at = normalize_dim(dim, input.ndim)
    return _order("sort", input, at, descending) if input.ndim else _zero_index()


@op(samples=_samples(), opmath=False, grad="SortBackward0", oracle=lambda x: np.sort(x, 0))
def msort(input: Tensor):
    """The elements in order along the first dimension.

    >>> torch.msort(torch.tensor([[3, 1], [2, 5]]))
    tensor([[2, 1],
            [3, 5]])
    """
    return sort(input, 0)[0] if input.ndim else p.stop_copy(input)


@op(samples=_samples(2), returns=("values", "indices"), opmath=False)
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True):
    """The k largest (or smallest) elements along dim, in order, and where they are.

    >>> torch.topk(torch.tensor([3., 1., 2.]), 2)
    torch.return_types.topk(
    values=tensor([3., 2.]),
    indices=tensor([0, 2]))
    """
    at = normalize_dim(dim, input.ndim)
    if not 0 <= k <= (input.shape[at] if input.ndim else 1):
        raise RuntimeError("selected index k out of range")
    if input.ndim == 0:
        return p.stop_copy(input), _zero_index()
    index = _order("topk", input, at, largest, k)
    return _at(input, at, index), index


@op(samples=_samples(2), returns=("values", "indices"), opmath=False)
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False):
    """The k-th smallest element along dim (k counts from 1), and where it is.

    >>> torch.kthvalue(torch.tensor([3., 1., 2.]), 2)
    torch.return_types.kthvalue(
    values=tensor(2.),
    indices=tensor(2))
    """
    at = normalize_dim(dim, input.ndim)
    size = input.shape[at] if input.ndim else 1
    if not 1 <= k <= size:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {at}")
    if input.ndim == 0:
        return p.stop_copy(input), _zero_index()
    index = _order("kthvalue", input, at, False, k, k - 1)
    return _kept(at, keepdim, _at(input, at, index), index)


# --------------------------------------------------------------------------- medians
def _middle(name: str, x: Value, at: int, ignore_nan: bool) -> Value:
    """Where along `at` the lower median is; the first NaN, unless those do not count."""
    if not x.shape[at]:
        raise IndexError(f"{name}(): Expected reduction dim {at} to have non-zero size.")
    size = x.shape[at]
    half = (size - 1) // 2
    if x.dtype.is_integral:
        return _order(name, x, at, False, half + 1, half)
    if not ignore_nan:
        middle = _order(name, x, at, False, half + 1, half)
        largest = p.reshape(p.reduce_arg(x, (at,), True), middle.shape)  # the first NaN, if any
        value = _at(x, at, largest)
        return p.where(p.ne(value, value), largest, middle)
    missing = _nan_count(x, at)
    known = p.sub(p.filled(size, missing), missing)
    one = p.filled(1, known)
    rank = p.shift_right(p.maximum(p.sub(known, one), p.zero_like(known)), one)
    return _at(_order(name, x, at, False, half + 1), at, rank)


def _median(name: str, x: Value, dim: int, keepdim: bool, ignore_nan: bool):
    at = normalize_dim(dim, x.ndim)
    if x.ndim == 0:
        return p.stop_copy(x), _zero_index()
    index = _middle(name, x, at, ignore_nan)
    return _kept(at, keepdim, _at(x, at, index), index)


def _of_nothing(dtype: DType) -> float | int:
    """NaN, or what a processor makes of it as an integer."""
    if dtype.is_floating_point:
        return float("nan")
    return dtypes.iinfo(dtype).min if dtype.itemsize >= 4 else 0


def _median_all(name: str, x: Value, ignore_nan: bool) -> Value:
    if x.numel == 0:
        return p.expand(constant(_of_nothing(x.dtype), x.dtype, number=False), ())
    flat = p.reshape(x, (x.numel,))
    return p.reshape(_at(flat, 0, _middle(name, flat, 0, ignore_nan)), ())


def _shared(g: Value, input: Value, output: Value) -> Value:
    """The gradient of a median of everything: all elements equal to it share it."""
    middle = p.expand(output, input.shape)
    both_nan = p.logical_and(p.ne(input, input), p.ne(middle, middle))
    hit = convert(p.logical_or(p.eq(input, middle), both_nan), g.dtype)
    share = p.div(g, p.reduce_sum(hit, range(input.ndim)))
    return p.mul(hit, p.expand(share, input.shape))


@op(name="median_dim", samples=_samples(-1), returns=("values", "indices"), opmath=False,
    method=False, public=(), grad="MedianBackward1")
def median_dim(input: Tensor, dim: int = -1, keepdim: bool = False):
    """The lower of the middle elements along dim, and where it is; NaN if there is one."""
    return _median("median", input, dim, keepdim, False)


@op(name="nanmedian_dim", samples=_samples(-1), returns=("values", "indices"), opmath=False,
    method=False, public=(), grad="NanmedianBackward1")
def nanmedian_dim(input: Tensor, dim: int = -1, keepdim: bool = False):
    """The median along dim of what is not NaN, and where it is."""
    return _median("nanmedian", input, dim, keepdim, True)


@op(name="median_all", samples=_samples(), opmath=False, method=False, public=(),
    grad="MedianBackward0")
def median_all(input: Tensor):
    """The lower of the middle elements; NaN if there is one."""
    return _median_all("median", input, False)


@op(name="nanmedian_all", samples=_samples(), opmath=False, method=False, public=(),
    grad="NanmedianBackward0")
def nanmedian_all(input: Tensor):
    """The median of what is not NaN."""
    return _median_all("nanmedian", input, True)


@median_all.vjp
def median_all_vjp(g, input, output):
    """Equal elements share it."""
    return _shared(g, input, output)


@nanmedian_all.vjp
def nanmedian_all_vjp(g, input, output):
    """Equal elements share it."""
    return _shared(g, input, output)


@op(samples=_samples(), returns=("values", "indices"), opmath=False)
def mode(input: Tensor, dim: int = -1, keepdim: bool = False):
    """The most frequent element along dim (the smallest of several), and where it last is.

    >>> torch.mode(torch.tensor([1, 3, 3, 2]))
    torch.return_types.mode(
    values=tensor(3),
    indices=tensor(2))
    """
    at = normalize_dim(dim, input.ndim)
    if input.ndim == 0:
        return p.stop_copy(input), _zero_index()
    size = input.shape[at]
    if not size:
        raise IndexError(f"mode(): Expected reduction dim {at} to have non-zero size.")
    order = _order("mode", input, at, False)
    values = _at(input, at, order)
    place = p.iota(values.shape, at)
    starts, steps = [0] * values.ndim, [1] * values.ndim
    starts[at] = 1
    before = p.spread(p.slice_dim(values, at, 0, 1, size - 1), starts, steps, values.shape)
    new = p.logical_or(p.ne(values, before), p.eq(place, p.zero_like(place)))
    start = p.cumarg(p.where(new, place, p.filled(-1, place)), at, True)
    length = p.sub(place, start)
    longest = p.reduce_arg(length, (at,), True)
    longest = p.reshape(longest, values.shape[:at] + (1,) + values.shape[at + 1:])
    index = _at(order, at, longest)
    return _kept(at, keepdim, _at(input, at, index), index)


# --------------------------------------------------------------------------- quantiles
def _quantile_samples():
    yield sample(Arr((3, 40)), Arr((4,), None, 0, 1, False), 1)
    yield sample(Arr((2, 5)), Arr((), None, 0, 1, False), None)


@op(name="_quantile", samples=_quantile_samples, method=False, public=(), out=False, opmath=False,
    grad="QuantileBackward0")
def _quantile(input: Tensor, q: Tensor, dim: int | None = None, keepdim: bool = False,
              interpolation: str = "linear", ignore_nan: bool = False):
    """The values below which the fractions q of the elements lie; q's dimension comes first."""
    x = input if dim is not None and input.ndim else p.reshape(input, (input.numel,))
    at = 0 if dim is None else normalize_dim(dim, input.ndim)
    row = _to_last(x, at)
    size, lead = row.shape[-1], row.shape[:-1]
    values = _at(row, row.ndim - 1, p.argsort(row, False))
    missing = _nan_count(row, row.ndim - 1)  # (..., 1)
    count = p.filled(size, missing)
    if ignore_nan:
        count = p.maximum(p.sub(count, missing), p.filled(1, missing))
    many = q.shape[0] if q.ndim else 1
    last = convert(p.sub(count, p.filled(1, count)), dtypes.float64)
    fraction = p.expand(p.reshape(convert(q, dtypes.float64), (many,)), (*lead, many))
    rank = p.mul(fraction, p.expand(last, (*lead, many)))
    if interpolation in ("lower", "higher", "nearest"):
        rank = {"lower": p.floor, "higher": p.ceil, "nearest": p.round_}[interpolation](rank)
    if not ignore_nan:  # a row with NaN gives its last element: NaN
        known = p.expand(p.eq(missing, p.zero_like(missing)), rank.shape)
        rank = p.where(known, rank, p.expand(last, rank.shape))
    below = p.floor(rank)
    low, high = (_at(values, row.ndim - 1, convert(r, dtypes.int64)) for r in (below, p.ceil(rank)))
    weight = convert(p.sub(rank, below), x.dtype)
    if interpolation == "midpoint":
        weight = p.mul(p.ceil(weight), p.filled(0.5, weight))
    result = p.where(p.eq(weight, p.zero_like(weight)), low,
                     p.add(low, p.mul(weight, p.sub(high, low))))
    result = p.permute(result, [len(lead), *range(len(lead))])  # (many, ...)
    shape = lead
    if keepdim and input.ndim:
        shape = (1,) * input.ndim if dim is None else lead[:at] + (1,) + lead[at:]
    return p.reshape(result, ((many,) if q.ndim else ()) + tuple(shape))


# --------------------------------------------------------------------------- distinct values
@op(name="_new_in_order", samples=lambda: iter([sample(Arr((40,)))]), method=False, public=(),
    out=False, differentiable=False)
def _new_in_order(input: Tensor):
    """Where a vector differs from the element before (True at the start)."""
    size = input.shape[0]
    before = p.spread(p.slice_dim(input, 0, 0, 1, max(size - 1, 0)), (1,), (1,), input.shape)
    place = p.iota(input.shape, 0)
    return p.logical_or(p.ne(input, before), p.eq(place, p.zero_like(place)))


def rows_differ(x: Value) -> Value:
    """Whether each row of a matrix differs from the one before."""
    size = x.shape[0]
    before = p.spread(p.slice_dim(x, 0, 0, 1, max(size - 1, 0)), (1, 0), (1, 1), x.shape)
    return p.reduce_max(p.ne(x, before), (1,))


@op(name="_new_rows", samples=lambda: iter([sample(Arr((5, 3)))]), method=False, public=(),
    out=False, differentiable=False)
def _new_rows(input: Tensor):
    """Where a row of a matrix differs from the one before (True at the start)."""
    place = p.iota(input.shape[:1], 0)
    return p.logical_or(rows_differ(input), p.eq(place, p.zero_like(place)))
