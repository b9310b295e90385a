"""A finished capture: the graph, and how Python takes part in the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.autograd.tape import RELEASED
from flambeau.compile.capture import Capture, Memory
from flambeau.ir.graph import Graph, Value, sort
from flambeau.tensor import launches

__all__ = ["Gradients", "Recording"]


def _consumed(node: Any) -> bool:
    """Has a backward pass freed the graph of this node already?"""
    seen, stack = set(), [node]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if getattr(node, "tape_saved", None) is RELEASED:
            return True
        stack += [edge[0] for edge in node.next_edges if edge is not None]
    return False


class Gradients:
    """Which leaves' `.grad` a run has replaced."""

    def __init__(self, objects: list):
        self.before = {id(t): t._grad is not None for _, t in objects
                       if isinstance(t, launches.TensorBase) and t._rg}

    def held(self, leaves: list) -> list[tuple[Any, bool]]:
        """(leaf, had it a gradient before the run?) for leaves that are no arguments: whether a
        backward adds or begins anew depends on it."""
        return [(leaf, self.before[id(leaf)]) for leaf in leaves if id(leaf) in self.before]

    def changes(self, capture: Capture) -> list[tuple[Any, Any]]:
        """(leaf, new gradient or None) for inputs whose gradient is not the one it had."""
        found = []
        for _, tensor in capture.inputs:
            grad = tensor._grad
            if grad is None:
                continue
            known = capture.memories.get(id(capture._owner(grad)))
            if known is not None and known.initial is None:
                found.append((tensor, grad))
        return found


class Recording:
    """A finished capture: the program and how Python takes part in it."""

    def __init__(self, capture: Capture, leaves: list, outputs: list, shape: Any,
                 gradients: list[tuple[Any, Any]]):
        self.capture = capture
        self.shape = shape
        self.gradients = gradients
        self.outputs = outputs
        place = {id(leaf): i for i, leaf in enumerate(leaves)}
        sources = {id(t._grad): ("grad", t) for _, t in capture.inputs if t._grad is not None}
        sources |= capture.spots
        self.updates: list[Memory] = capture.writes()
        # results: what the function returns and new gradients, but for memory that already exists
        self.results: list[Any] = []
        self.returned: list[tuple[str, Any]] = []
        known: dict[int, tuple] = {}
        for tensor in outputs:
            if id(tensor) not in known:
                known[id(tensor)] = self._where(tensor, place, sources)
            self.returned.append(known[id(tensor)])
        self.first_gradient = len(self.results)
        self.results += [grad for _, grad in gradients]
        self.records = [(t._rg, t._grad_fn is not None) for t in self.results]
        self.owners = [sources.get(id(leaf), leaf) for leaf, _ in gradients]
        self.differentiable = any(t._rg and t._grad_fn is not None and not _consumed(t._grad_fn)
                                  for t in outputs)
        values = [capture.value_of(t) for t in self.results]
        values += [m.value for m in self.updates]
        used = _used([*values, *capture.randoms.values()])
        self.inputs = [(v, t, sources.get(id(t))) for v, t in capture.inputs
                       if v in used or any(m.initial is v for m in self.updates)]
        self.numbers = [n for n in capture.numbers if n[0] in used]
        placeholders = [v for v, _, _ in self.inputs] + [v for v, _, _ in self.numbers]
        self.graph = Graph(placeholders, values)
        self.effects = list(capture.randoms.values())

    def _where(self, tensor: Any, place: dict, sources: dict) -> tuple[str, Any]:
        """How replays find a returned tensor: an argument, a view of older memory, or a result."""
        if id(tensor) in place:
            return "leaf", place[id(tensor)]
        memory_ = self.capture.memory_of(tensor)
        root = memory_.tensor
        if memory_.initial is None or tensor._rg and not root._rg or (
                tensor._rg and tensor._grad_fn is None and not tensor._inherits):
            self.results.append(tensor)
            return "result", len(self.results) - 1
        if tensor is root and id(root) not in sources:
            return "same", tensor
        return "view", (sources.get(id(root), root), tensor._meta, tensor._ptr - root._ptr,
                        tensor._rg, tensor._inherits)

    def read_anew(self) -> dict[int, set]:
        anew: dict[int, set] = {}
        for _, group, key in self.numbers:
            anew.setdefault(id(group), set()).add(key)
        return anew

    def escaped(self) -> list:
        """Shapes of tensors that the run made and that live on in Python, but for its results."""
        capture = self.capture
        capture.kept.clear()
        results = {id(capture._owner(t)) for t in (*self.outputs, *self.results)}
        alive = {id(owner): tensor for ref in capture.made if (tensor := ref()) is not None
                 and id(owner := capture._owner(tensor)) not in results
                 and capture.memory_of(tensor).initial is None}
        return [list(tensor._meta.shape) for tensor in alive.values()]


def _used(values: Sequence[Value]) -> set[Value]:
    return set(sort(values))
