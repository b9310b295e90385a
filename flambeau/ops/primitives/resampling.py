"""Resizing images: weighted sums of a few rows and columns, by tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flambeau.ir.graph import Primitive, Value

__all__ = ["RESIZE", "RESIZE_BACK", "Resized", "resize"]


@dataclasses.dataclass(frozen=True)
class Resized:
    """How (n, c, *size) becomes (n, c, *out).

    Attributes:
        size, out: height and width.
        taps: how many places each place of the result is made of, by dimension; 0 if the dimension
            stays as it is.
        weighted: whether places have weights, or count as they are.
        most: of how many places of the result one place can be part, by dimension, where that is
            known (and entries of the tables may be missing); else 0.
    """

    size: tuple[int, int]
    out: tuple[int, int]
    taps: tuple[int, int]
    weighted: bool
    most: tuple[int, int] = (0, 0)


def _infer_resized(inputs, attrs):
    return inputs[0].shape[:2] + attrs[0].out, inputs[0].dtype


def _infer_restored(inputs, attrs):
    return inputs[0].shape[:2] + attrs[0].size, inputs[0].dtype


RESIZE = Primitive("resize", "resize", _infer_resized)
RESIZE_BACK = Primitive("resize_back", "resize", _infer_restored)


def resize(x: Value, how: Resized, tables: Sequence[Value]) -> Value:
    """y[o, p] = sum over taps s, t of x[i[s, o], j[t, p]] v[s, o] w[t, p], in every channel.

    Args:
        tables: for each dimension that changes the places (taps, out), int64, and if `weighted`
            the weights (taps, out), of the dtype of x. Places must lie in the image and not fall;
            where there are more than four taps, those of a place follow one another, and a place
            of -1 is none.
    """
    return RESIZE(x, *tables, attrs=(how,))


@RESIZE.vjp
def resize_vjp(node, g):
    tables = node.inputs[1:]
    return (RESIZE_BACK(g, *tables, attrs=node.attrs),) + (None,) * len(tables)


@RESIZE_BACK.vjp
def resize_back_vjp(node, g):
    tables = node.inputs[1:]
    return (RESIZE(g, *tables, attrs=node.attrs),) + (None,) * len(tables)
