"""Which programs only move: their results are other layouts of their input's memory."""

from __future__ import annotations

from flambeau.ir.graph import Graph, Value
from flambeau.tensor.meta import Meta, meta_of

__all__ = ["LayoutOf", "only_moves", "moved"]


class LayoutOf:
    """Evaluates a traced program of one input on a layout instead of on elements."""

    def __init__(self, meta: Meta, graph: Graph):
        self.layouts = {graph.inputs[0]: (tuple(meta.strides), 0)}

    def of(self, value: Value) -> tuple | None:
        """(strides, offset) of a value in elements; None if it is not a view of the input."""
        if value in self.layouts:
            return self.layouts[value]
        if _passes(value):
            return self.of(value.inputs[0])
        if value.prim.layout is None:
            return None
        below = self.of(value.inputs[0])
        if below is None:
            return None
        shape = value.inputs[0].shape
        return value.prim.layout(shape, below[0], below[1], value.attrs, value.shape)


def _passes(value: Value) -> bool:
    return value.prim.kind == "elementwise" and value.prim.name == "stop_gradient"


def only_moves(graph: Graph) -> bool:
    """Does a program of one input compute nothing?"""
    return len(graph.inputs) == 1 and all(_comes_from(o, graph.inputs[0]) for o in graph.outputs)


def _comes_from(value: Value, source: Value) -> bool:
    while value is not source:
        if not _passes(value) and (value.prim.layout is None or len(value.inputs) != 1):
            return False
        value = value.inputs[0]
    return True


def moved(graph: Graph, meta: Meta) -> list[tuple[Meta, int]] | None:
    """(layout, offset in bytes) of each result of a program that only moves; None if the memory of
    an input of this layout does not allow one of them without a copy."""
    layouts = LayoutOf(meta, graph)
    found = []
    for out in graph.outputs:
        place = layouts.of(out)
        if place is None:
            return None
        found.append((meta_of(out.dtype, out.shape, place[0], meta.device),
                      place[1] * out.dtype.itemsize))
    return found
