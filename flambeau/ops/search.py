"""Where values belong among sorted ones, and whether they are among others."""

from __future__ import annotations

import numpy as np

from flambeau.core import dtypes
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import beside
from flambeau.ops.comparison import logical_not
from flambeau.ops.index import positions
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Operand, Tensor, op
from flambeau.ops.samples import Arr, sample

FEW = 16  # test elements up to which comparing with each is faster than sorting them


# --------------------------------------------------------------------------- in sorted rows
def _placed(ordered: Value, values: Value, right: bool, out_int32: bool) -> Value:
    """`search` for any dtype but bool and complex; sizes are right."""
    found = p.search(ordered, values, right) if values.numel else (
        p.expand(constant(0, dtypes.int64, number=False), values.shape))
    return convert(found, dtypes.int32) if out_int32 else found


def _check_kind(name: str, x: Value) -> None:
    if x.dtype.kind in "bc":
        raise NotImplementedError(f"\"{name}_out_cpu\" not implemented for '{x.dtype.scalar_name}'"
                                  ": booleans and complex numbers have no order; convert the input "
                                  "first")


def _check_search(ordered: Value, values: Value) -> None:
    if not ordered.ndim:
        raise RuntimeError("torch.searchsorted(): boundaries tensor should have positive "
                           "dimension, but got 0 dimension")
    if ordered.ndim > 1 and not values.ndim:
        raise RuntimeError("torch.searchsorted(): input value can be a scalar only when boundaries "
                           "tensor dimension is 1, but we got boundaries tensor "
                           f"dim({ordered.ndim}) and input value's dim(0) numel(1)")
    if ordered.ndim > 1 and ordered.shape[:-1] != values.shape[:-1]:
        raise RuntimeError("torch.searchsorted(): boundaries tensor should be 1 dimension or the "
                           "first N-1 dimensions of boundaries tensor and input value tensor must "
                           f"match, but we got boundaries tensor {list(ordered.shape)} and input "
                           f"value tensor {list(values.shape)}")


def _is_right(right: bool, side: str | None) -> bool:
    if side not in (None, "left", "right"):
        raise RuntimeError("torch.searchsorted(): side can only be 'left' or 'right' but got "
                           f"{side}")
    if side == "left" and right:
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites, got "
                           "side of left while right was True")
    return right or side == "right"


def _in_order(ordered: Value, sorter: Value) -> Value:
    """The rows of `ordered` in the order that `sorter` says."""
    if sorter.shape != ordered.shape:
        raise RuntimeError("torch.searchsorted(): boundary and sorter must have the same size, but "
                           f"got boundary tensor {list(ordered.shape)} and got sorter tensor "
                           f"{list(sorter.shape)}")
    if sorter.dtype is not dtypes.int64:
        raise RuntimeError("torch.searchsorted(): sorter must be a tensor of long dtype but got "
                           f"dtype {sorter.dtype.scalar_name}")
    last = ordered.ndim - 1
    coords = [*range(last), positions("searchsorted", sorter)]
    return p.lookup(ordered, coords, ordered.shape)


def _sorter_error(index: int, call, args) -> Exception:
    return RuntimeError("torch.searchsorted(): sorter index out of range: "
                        f"{index} is no position in a row")


def _search_samples():
    order = np.array([-1.5, -0.5, 0.0, 0.25, 1.0], "float32")
    for shape in ((), (7,), (3, 40), (0, 3)):
        yield sample(order, Arr(shape))
    rows = np.sort(np.random.RandomState(1).randn(3, 9)).astype("float32")
    yield sample(rows, Arr((3, 4)), right=True)
    yield sample(rows, Arr((3, 70)), side="right", out_int32=True)
    yield sample(order, 0.25, side="left")
    yield sample(np.array([1, -1, 0], "float32"), Arr((5,)), sorter=np.array([1, 2, 0]))


@op(method=False, promote="match", opmath=False, differentiable=False, samples=_search_samples,
    index_error=_sorter_error)
def searchsorted(sorted_sequence: Tensor, input: Operand, *, out_int32: bool = False,
                 right: bool = False, side: str | None = None, sorter: Index | None = None):
    """Where each value would have to be put into its sorted row: before equal elements, or behind
    them if `right`.

    Args:
        sorted_sequence: (n,) for all values, or (..., n) for values (..., m).
        side: "left" or "right", another way to say `right`.
        sorter: the positions that put the rows in order, if they are not.

    >>> torch.searchsorted(torch.tensor([1, 3, 5]), torch.tensor([3, 4]), right=True)
    tensor([2, 2])
    """
    behind = _is_right(right, side)
    values = beside(input, convert(input, sorted_sequence.dtype)) if input.number else input
    _check_search(sorted_sequence, values)
    _check_kind("searchsorted", sorted_sequence)
    if sorter is not None:
        sorted_sequence = _in_order(sorted_sequence, sorter)
    return _placed(sorted_sequence, values, behind, out_int32)


def _bucket_samples():
    limits = np.array([-1.0, 0.0, 0.5, 1.0], "float32")
    for shape in ((), (7,), (3, 40), (0, 3)):
        yield sample(Arr(shape), limits)
    yield sample(Arr((40,)), limits, right=True, out_int32=True)
    yield sample(0.5, limits, right=True)


@op(method=False, promote="match", opmath=False, differentiable=False, samples=_bucket_samples)
def bucketize(input: Operand, boundaries: Tensor, *, out_int32: bool = False, right: bool = False):
    """The number of the bucket between the sorted `boundaries` that each value lies in. A value at
    a boundary belongs to the bucket below it, or above it if `right`.

    >>> torch.bucketize(torch.tensor([1, 3, 6, 9]), torch.tensor([3, 6]))
    tensor([0, 0, 1, 2])
    """
    if boundaries.ndim != 1:
        raise RuntimeError("boundaries tensor must be 1 dimension, but got "
                           f"dim({boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


# --------------------------------------------------------------------------- among others
def _isin_samples():
    for shape in ((), (7,), (3, 40), (0, 3)):
        yield sample(Arr(shape, "int64", 0, 30), Arr((5,), "int64", 0, 30))
    yield sample(Arr((50,), "int64", 0, 30), Arr((4, 10), "int64", 0, 30), invert=True)
    yield sample(Arr((50,), "int64", 0, 30), 3)
    yield sample(3, Arr((50,), "int64", 0, 30))


def _one_tensor(elements: Value, test_elements: Value, *more: object) -> None:
    if elements.number and test_elements.number:
        raise TypeError("isin(): elements or test_elements must be a Tensor, got two numbers")


@op(method=False, promote="match", opmath=False, differentiable=False, samples=_isin_samples,
    check=_one_tensor)
def isin(elements: Operand, test_elements: Operand, *, assume_unique: bool = False,
         invert: bool = False):
    """Which elements are among the test elements (or are not, if `invert`). NaN is among none.

    >>> torch.isin(torch.tensor([1, 2, 3]), torch.tensor([2, 3, 5]))
    tensor([False,  True,  True])
    """
    x, among = (p.expand(v, v.shape) for v in (elements, test_elements))
    if x.dtype.kind in "bc":
        raise RuntimeError(f"Unsupported input type encountered for isin(): {x.dtype.scalar_name}; "
                           "convert both to numbers that have an order")
    found = _is_among(x, p.reshape(among, (among.numel,)))
    return logical_not(found) if invert else found


def _is_among(x: Value, others: Value) -> Value:
    count = others.shape[0]
    if not count:
        return e.like(False, convert(x, dtypes.bool_))
    if count <= FEW:
        each = p.expand(p.reshape(x, (*x.shape, 1)), (*x.shape, count))
        return p.reduce_max(p.eq(each, p.expand(others, each.shape)), (x.ndim,))
    ordered = p.lookup(others, [p.argsort(others, False)], others.shape)
    place = _placed(ordered, x, False, False)
    last = e.like(count - 1, place)
    nearest = p.lookup(ordered, [p.minimum(place, last)], x.shape)
    return p.eq(nearest, x)
