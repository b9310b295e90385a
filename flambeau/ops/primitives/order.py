"""Order: the permutation that sorts. Everything else about sorting is a lookup with it."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Primitive, Value

__all__ = ["ARGSORT", "argsort"]


def _infer_position(inputs, attrs):
    return inputs[0].shape[:-1] + (attrs[1] - attrs[2],), dtypes.int64


ARGSORT = Primitive("argsort", "sort", _infer_position)
ARGSORT.differentiable = False


def argsort(x: Value, descending: bool, limit: int | None = None, first: int = 0) -> Value:
    """For every row (the last dimension) the positions of its elements in order. Equal elements
    keep theirs; NaN is larger than everything. Of each row only those from the place `first` up to
    the place `limit` in order are found."""
    return ARGSORT(x, attrs=(descending, x.shape[-1] if limit is None else limit, first))
