"""Margins between the targets of a row and its other classes, all pairs of them summed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flambeau.core import dtypes
from flambeau.ir.graph import Value, constant
from flambeau.ops.primitives.elementwise import (
    add,
    cast,
    eq,
    gt,
    logical_and,
    lt,
    mul,
    neg,
    sub,
    where,
)
from flambeau.ops.primitives.joint import joint
from flambeau.ops.primitives.structure import (
    expand,
    iota,
    reduce_sum,
    scatter,
    unreduce,
)

__all__ = ["LABEL_MARGINS", "label_margins"]


@dataclasses.dataclass(frozen=True)
class _Form:
    """A joint primitive's first attribute: here there is nothing to choose."""


def _number(number: int, dtype: dtypes.DType, shape) -> Value:
    one = constant(number, dtypes.int64, number=False)
    return expand(one if dtype is dtypes.int64 else cast(one, attrs=(dtype,)), shape)


def _composite(inputs: Sequence[Value], attrs: tuple) -> tuple[Value, Value]:
    """The definition, over (row, target, class)."""
    x, target, count, picked = inputs
    n, c = x.shape
    live = lt(iota((n, c), 1), unreduce(count, (n, c), (1,)))
    place = where(live, target, _number(0, dtypes.int64, (n, c)))
    hits = scatter(_number(0, dtypes.int64, (n, c)), [0, place],
                   cast(live, attrs=(dtypes.int64,)), "add")
    pairs = (n, c, c)
    other = eq(hits, _number(0, dtypes.int64, (n, c)))
    counts = logical_and(unreduce(live, pairs, (2,)), unreduce(other, pairs, (1,)))
    gap = sub(unreduce(x, pairs, (1,)), unreduce(picked, pairs, (2,)))
    gap, zero = add(gap, _number(1, x.dtype, pairs)), _number(0, x.dtype, pairs)
    counts = logical_and(counts, gt(gap, zero))
    ones = where(counts, _number(1, x.dtype, pairs), zero)
    slopes = scatter(reduce_sum(ones, (1,)), [0, place], neg(reduce_sum(ones, (2,))), "add")
    return reduce_sum(where(counts, gap, zero), (1, 2)), slopes


def _infer(inputs, attrs):
    x = inputs[0]
    return (x.shape[:1] if attrs[-1] == 0 else x.shape), x.dtype


LABEL_MARGINS = joint("label_margins", 2, _infer, _composite)


def label_margins(x: Value, target: Value, count: Value, picked: Value) -> Value:
    """The sum of max(0, 1 - x[t] + x[i]) over the first `count` targets t of a row and all classes
    i that are none of them: (rows,).

    Its kernel's second result is the derivative by x, (rows, classes): how often a class counts as
    another, less the number of classes that count against it as a target.

    Args:
        x: (rows, classes), floats.
        target: (rows, classes), int64; the first `count` (rows,) of each row are in range.
        picked: x at those.
    """
    return LABEL_MARGINS(x, target, count, picked, attrs=(_Form(), 0))


def _slopes(node: Value) -> Value:
    return LABEL_MARGINS(*node.inputs, attrs=(_Form(), 1))


@LABEL_MARGINS.vjp
def label_margins_vjp(node: Value, g: Value):
    """The whole derivative goes to x; its own is 0 wherever there is one."""
    if node.attrs[-1] == 1:
        return None, None, None, None
    return mul(unreduce(g, node.inputs[0].shape, (1,)), _slopes(node)), None, None, None


@LABEL_MARGINS.jvp
def label_margins_jvp(node: Value, tangents: Sequence[Value | None]) -> Value | None:
    """The tangent of x along the derivative."""
    if node.attrs[-1] == 1 or tangents[0] is None:
        return None
    return reduce_sum(mul(tangents[0], _slopes(node)), (1,))
