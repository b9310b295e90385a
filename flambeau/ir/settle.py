"""Programs for sizes that vary, settled: the same program for given sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from flambeau.core.symbolic import is_symbolic
from flambeau.ir.graph import Graph, Value, sort

__all__ = ["Settler", "settled"]


class Settler:
    """Rewrites values, and what their attributes are made of, with plain sizes.

    Args:
        number: gives the plain number for a symbolic one.
    """

    def __init__(self, number: Callable[[Any], Any]):
        self.number = number
        self.values: dict[Value, Value] = {}
        self._made: dict[int, tuple[Any, Any]] = {}  # an object is settled once: it may be shared

    def graph(self, graph: Graph) -> Graph:
        """The graph for these sizes."""
        self.add(graph.inputs)
        return Graph(self.add(graph.inputs), self.add(graph.outputs))

    def add(self, values: Iterable[Value]) -> list[Value]:
        """`values`, and all that they are computed from, for these sizes."""
        values = list(values)
        done = self.values
        for value in sort(values, stop=done):
            if value not in done:
                done[value] = self._value(value)
        return [done[value] for value in values]

    def _value(self, value: Value) -> Value:
        inputs = tuple([self.values[each] for each in value.inputs])
        shape, attrs = self.tree(value.shape), self.tree(value.attrs)
        if inputs == value.inputs and shape is value.shape and attrs is value.attrs:
            return value
        made = Value(value.prim, inputs, attrs, shape, value.dtype, value.number)
        made.serial = value.serial  # the same place in the order
        return made

    def tree(self, item: Any) -> Any:
        """Attributes with plain numbers; the same object if there is nothing to settle."""
        kind = type(item)
        if kind is int or kind is float or kind is str or item is None:
            return item
        if is_symbolic(item):
            return self.number(item)
        if kind is tuple or kind is list:
            parts = [self.tree(each) for each in item]
            same = all(a is b for a, b in zip(parts, item, strict=True))
            return item if same else kind(parts)
        if isinstance(item, tuple):  # a shape, a named tuple
            parts = [self.tree(each) for each in item]
            if all(a is b for a, b in zip(parts, item, strict=True)):
                return item
            return kind._make(parts) if hasattr(kind, "_make") else kind(parts)
        if dataclasses.is_dataclass(item):
            return self._dataclass(item)
        return item

    def _dataclass(self, item: Any) -> Any:
        if id(item) not in self._made:
            parts = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)
                     if field.init}
            plain = {name: self.tree(part) for name, part in parts.items()}
            same = all(plain[name] is part for name, part in parts.items())
            self._made[id(item)] = item, item if same else dataclasses.replace(item, **plain)
        return self._made[id(item)][1]


def settled(graph: Graph, number: Callable[[Any], Any]) -> Graph:
    """`graph` for the sizes that `number` gives."""
    return Settler(number).graph(graph)
