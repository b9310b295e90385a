"""Order: the permutation that sorts. Everything else about sorting is a lookup with it."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Primitive, Value

__all__ = ["ARGSORT", "argsort"]


def _infer_position(inputs, attrs):
    return inputs[0].shape, dtypes.int64


ARGSORT = Primitive("argsort", "sort", _infer_position)
ARGSORT.differentiable = False


def argsort(x: Value, descending: bool) -> Value:
    """For every row (the last dimension) the positions of its elements in order. Equal elements
    keep theirs; NaN is larger than everything."""
    return ARGSORT(x, attrs=(descending,))
