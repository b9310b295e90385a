"""A finished capture: the graph, and how Python takes part in the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.compile.capture import Capture, Memory
from flambeau.compile.differentiable import Joint, is_alias
from flambeau.ir.graph import Graph, Value, sort

__all__ = ["Gradients", "Recording"]


class Gradients:
    """What a run has done to the `.grad` of leaves.

    Attributes:
        before: id of a leaf -> (leaf, its gradient before the run).
    """

    def __init__(self, tensors: list):
        self.before = {id(t): (t, t._grad) for t in tensors}

    def held(self, capture: Capture, leaves: list) -> list[tuple[Any, bool]]:
        """(leaf, had it a gradient before the run?) for leaves that are no arguments: whether a
        backward adds or begins anew depends on it."""
        touched = {id(leaf) for leaf in (*leaves, *capture.produced)} - capture.forgotten
        return [(leaf, grad is not None) for key, (leaf, grad) in self.before.items()
                if key in touched]

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

    def dropped(self, capture: Capture) -> list[Any]:
        """Leaves that have no gradient after a run that had one, or dropped it."""
        return [leaf for key, (leaf, grad) in self.before.items() if leaf._grad is None and (
            grad is not None or key in capture.forgotten)]

    def replaced(self, changes: list) -> bool:
        """Has a leaf been given a gradient that the run has not computed?"""
        new = {id(leaf) for leaf, _ in changes}
        return any(leaf._grad is not None and leaf._grad is not grad and key not in new
                   for key, (leaf, grad) in self.before.items())


class Recording:
    """A finished capture: the program and how Python takes part in it."""

    def __init__(self, capture: Capture, leaves: list, outputs: list, shape: Any,
                 gradients: list[tuple[Any, Any]], joint: Joint | None = None):
        self.capture, self.origins = capture, capture.origins
        self.joint = joint
        self.shape = shape
        self.gradients = gradients
        self.outputs = outputs
        self.place = place = {id(leaf): i for i, leaf in enumerate(leaves)}
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
        self.renewed = [owner for owner, (leaf, _) in zip(self.owners, gradients, strict=True)
                        if id(leaf) in capture.forgotten]
        # kept: for a backward that comes later
        self.kept, self.read = ([], []) if joint is None else joint.choose(capture, self.results)
        values = [capture.value_of(t) for t in self.results] + self.kept
        values += [m.value for m in self.updates]
        used = _used([*values, *self.read, *capture.randoms.values()])
        if joint is not None:
            used |= set(sort(joint.gradients, stop=(*self.read, *joint.given)))
        self.inputs = [(v, t, sources.get(id(t))) for v, t in capture.inputs
                       if v in used or any(m.initial is v for m in self.updates)]
        self.numbers = [n for n in capture.numbers if n[0] in used]
        placeholders = [v for v, _, _ in self.inputs] + [v for v, _ in self.numbers]
        self.graph = Graph(placeholders, values)
        self.effects = list(capture.randoms.values())

    def _where(self, tensor: Any, place: dict, sources: dict) -> tuple[str, Any]:
        """How replays find a returned tensor: an argument, a view of older memory, or a result."""
        if id(tensor) in place:
            return "leaf", place[id(tensor)]
        memory_ = self.capture.memory_of(tensor)
        root = memory_.tensor
        if not is_alias(memory_, tensor):
            self.results.append(tensor)
            return "result", len(self.results) - 1
        if tensor is root and id(root) not in sources:
            return "same", tensor
        return "view", (sources.get(id(root), root), tensor._meta, tensor._ptr - root._ptr,
                        tensor._rg, tensor._inherits)

    def escaped(self) -> list:
        """Tensors that the run made and that live on in Python, but for its results."""
        capture = self.capture
        capture.kept.clear()
        results = {id(capture._owner(t)) for t in (*self.outputs, *self.results)}
        alive = {id(owner): tensor for ref in capture.made if (tensor := ref()) is not None
                 and id(owner := capture._owner(tensor)) not in results
                 and capture.memory_of(tensor).initial is None
                 and not (self.joint and self.joint.alone_holds(tensor))}
        return list(alive.values())


def _used(values: Sequence[Value]) -> set[Value]:
    return set(sort(values))
