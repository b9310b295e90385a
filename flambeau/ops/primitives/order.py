"""Order: the permutation that sorts, and where a value belongs in what is sorted."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Primitive, Value

__all__ = ["ARGSORT", "SEARCH", "argsort", "search"]


def _infer_position(inputs, attrs):
    return inputs[0].shape[:-1] + (attrs[1] - attrs[2],), dtypes.int64


ARGSORT = Primitive("argsort", "sort", _infer_position)
ARGSORT.differentiable = False


def argsort(x: Value, descending: bool, limit: int | None = None, first: int = 0) -> Value:
    """For every row (the last dimension) the positions of its elements in order. Equal elements
    keep theirs; NaN is larger than everything. Of each row only those from the place `first` up to
    the place `limit` in order are found."""
    return ARGSORT(x, attrs=(descending, x.shape[-1] if limit is None else limit, first))


def _infer_search(inputs, attrs):
    return inputs[1].shape, dtypes.int64


SEARCH = Primitive("search", "sort", _infer_search)
SEARCH.differentiable = False


def search(ordered: Value, values: Value, right: bool) -> Value:
    """Where each value belongs in its sorted row: how many elements are less (less or equal if
    `right`). NaN belongs at the end.

    Args:
        ordered: (n,), one row for all values; or (..., n), one for each row of values (..., m).
        values: of the same dtype.
    """
    return SEARCH(ordered, values, attrs=(right,))
