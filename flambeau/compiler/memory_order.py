"""Which values of a graph lie in memory channel by channel, and which pixel by pixel.

A convolution's result takes the memory format of its image or weight ("channels_last": channels are
innermost), and elementwise results that of their operands. PyTorch's rule, so that a network whose
input is channels_last stays so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from flambeau.core.shapes import contiguous_strides, dense_order
from flambeau.ir.graph import Value

__all__ = ["channels_last_values", "is_channels_last", "reordered_values", "strides_in_order"]


def channels_last_values(order: Iterable[Value], known: Mapping[Value, Sequence[int]]
                         ) -> set[Value]:
    """The values that are best stored channels_last.

    Args:
        order: all values of a graph, operands first.
        known: strides of those that lie in memory already.
    """
    found: set[Value] = set()
    known = dict(known)
    for value in order:
        if value not in known and value.prim.kind == "movement" and value.inputs[0] in known:
            base = value.inputs[0]
            view = value.prim.layout(base.shape, known[base], 0, value.attrs, value.shape)
            if view is not None:
                known[value] = tuple(view[0])
        if value.ndim not in (4, 5):
            continue
        if value in known:
            follows = is_channels_last(value.shape, known[value])
        elif value.prim.kind in ("conv", "pool", "resize"):
            follows = any(operand in found for operand in value.inputs[:2])
        elif value.prim.kind == "cat":
            follows = all(operand in found for operand in value.inputs)
        else:
            follows = value.prim.kind == "elementwise" and any(
                operand in found and operand.shape == value.shape for operand in value.inputs)
        if follows:
            found.add(value)
    return found


def reordered_values(order: Iterable[Value], known: Mapping[Value, Sequence[int]]
                     ) -> dict[Value, tuple[int, ...]]:
    """Strides of the elementwise values all of whose operands lie densely in one order that is not
    row-major: where they are stored, they follow it, so that nobody has to go across the lanes.

    Arguments as of `channels_last_values`.
    """
    found: dict[Value, tuple[int, ...]] = {}
    for value, strides in known.items():
        plain = all(type(n) is int for n in (*value.shape, *strides))
        if plain and value.ndim > 1 and tuple(strides) != contiguous_strides(value.shape) \
                and dense_order(value.shape, strides) is not None:
            found[value] = tuple(strides)
    if not found:
        return found
    uniform: set[Value] = set()  # numbers and what repeats them: they have no order
    for value in order:
        if value in known:
            continue
        operands = [x for x in value.inputs if x not in uniform]
        if not operands:
            uniform.add(value)
        elif value.prim.kind == "elementwise":
            orders = {found.get(x) for x in operands}
            if len(orders) == 1 and None not in orders:
                found[value] = orders.pop()
    return found


def is_channels_last(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Do channels lie innermost, densely? (One channel or one pixel: no order can be told.)"""
    wanted = strides_in_order(shape, True)
    return shape[1] > 1 and math.prod(shape[2:]) > 1 and all(
        size == 1 or a == b for size, a, b in zip(shape, strides, wanted, strict=True))


def strides_in_order(shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """Dense strides: row-major, or of (n, c, ...) with channels innermost."""
    if not channels_last:
        return contiguous_strides(shape)
    batch, channels, *space = shape
    moved = contiguous_strides((batch, *space, channels))
    return moved[0], moved[-1], *moved[1:-1]
