"""Reshapes in schedules: which of them are index arithmetic, and results that are reshapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flambeau.compiler.expression import Buffer, Index, loop_index
from flambeau.compiler.shared_values import has_buffer
from flambeau.core.shapes import reshape_strides
from flambeau.ir.graph import Value

__all__ = ["only_unit_dims", "seen_through", "split_index"]


def seen_through(final: Mapping[Value, Buffer], known: Collection[Value]) -> dict[Value, Buffer]:
    """Maps of which results join dimensions, with the results' memory in the maps' shape: there
    they are computed at once. (Elsewhere they would be stored first, then joined by a copy.)

    Args:
        final: results and their memory; `known`: values that have a place already.
    """
    found: dict[Value, Buffer] = {}
    waiting = list(final.items())
    while waiting:
        value, buffer = waiting.pop()
        if value.prim.name != "reshape":
            continue
        (x,) = value.inputs
        if x in known or x in found or has_buffer(x) or not x.numel \
                or only_unit_dims(value) or _joins_nothing(value):
            continue
        strides = reshape_strides(buffer.shape, buffer.strides, x.shape)
        if strides is not None:
            found[x] = buffer.seen_as(x.shape, strides, buffer.offset)
            waiting.append((x, found[x]))
    return found


def _joins_nothing(value: Value) -> bool:
    """Does this reshape only cut dimensions, so that its operand can be read in place?"""
    return split_index(value, tuple(loop_index(d) for d in range(value.ndim))) is not None


def split_index(value: Value, index: tuple[Index, ...]) -> tuple[Index, ...] | None:
    """Where a reshape that does nothing but cut dimensions into several reads its operand."""
    sizes, made = list(zip(value.shape, index, strict=True))[::-1], []
    for wanted in value.inputs[0].shape:
        place, count = Index({}), 1
        while sizes and count < wanted:
            size, i = sizes.pop()
            place, count = place.scaled(size).plus(i), count * size
        if count != wanted:
            return None
        made.append(place)
    return None if any(size != 1 for size, _ in sizes) else tuple(made)


def only_unit_dims(value: Value) -> bool:
    """Does this reshape only add or drop dimensions of size 1?"""
    old = [size for size in value.inputs[0].shape if size != 1]
    return old == [size for size in value.shape if size != 1]
