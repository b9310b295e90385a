"""A finished capture: the graph, and how Python takes part in the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.compile.capture import Capture, Memory, refuse
from flambeau.compile.differentiable import Joint
from flambeau.compile.results import Parts
from flambeau.core.symbolic import hint
from flambeau.ir.graph import Graph, Value, sort
from flambeau.tensor.meta import TensorBase

__all__ = ["Gradients", "Marks", "Recording"]


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
        touched |= capture.looked_at
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


class Marks:
    """What a run has done to tensors from outside, but for their elements."""

    def __init__(self, tensors: Sequence):
        self.tensors = tensors
        self.before = [_marks(tensor) for tensor in tensors]

    def changed(self) -> str | None:
        """What has changed of one of them, or None."""
        for tensor, before in zip(self.tensors, self.before, strict=True):
            now = _marks(tensor)
            for what, old, new in zip(_MARKED, before, now, strict=True):
                if old != new:
                    return what
        return None


_MARKED = ("the memory", "the layout", "requires_grad", "a hook", "the history")


def _marks(tensor: Any) -> tuple:
    own, node = tensor._hooks, tensor._grad_fn
    hooks: list[Any] = [] if own is None else [*own.values(), *own.post.values()]
    of_node = None if node is None else node.tape_hooks
    if of_node is not None:
        hooks += [*(of_node.pre or {}).values(), *(of_node.post or {}).values(), *of_node.retain]
        hooks += [hook for by_output in of_node.tensor.values() for hook in by_output.values()]
    place = hint(tensor._ptr) if tensor._meta.strided else None  # tensors made of others have none
    return (Capture._owner(tensor), (tensor._meta, place), tensor._rg,
            list(map(id, hooks)), (node is None, tensor._retains_grad))


class Recording:
    """A finished capture: the program and how Python takes part in it."""

    def __init__(self, capture: Capture, leaves: list, outputs: list, shape: Any,
                 gradients: list[tuple[Any, Any]], parts: Parts, joint: Joint | None = None):
        self.capture, self.origins = capture, capture.origins
        self.joint = joint
        self.shape = shape
        self.gradients = gradients
        self.outputs = outputs
        self.place = {id(leaf): i for i, leaf in enumerate(leaves)}
        sources = {id(t._grad): ("grad", t) for _, t in capture.inputs if t._grad is not None}
        sources |= capture.spots
        self.updates: list[Memory] = capture.writes()
        # results: what the function returns and new gradients, but for memory that already exists
        self.results: list[Any] = [*parts.bases, *(grad for _, grad in gradients)]
        self.first_gradient = len(parts.bases)
        self.returned: list[tuple[str, Any]] = []
        number = {id(t): i for i, t in reversed(list(enumerate(self.results)))}
        known: dict[int, tuple] = {}
        for tensor in outputs:
            if id(tensor) not in known:
                known[id(tensor)] = self._where(tensor, sources, number, parts)
            self.returned.append(known[id(tensor)])
        self.records = [_record(t, joint) for t in self.results]
        self.owners = [sources.get(id(leaf), leaf) for leaf, _ in gradients]
        self.renewed = [owner for owner, (leaf, _) in zip(self.owners, gradients, strict=True)
                        if id(leaf) in capture.forgotten]
        # kept: for a backward that comes later
        self.kept, self.read = ([], []) if joint is None else joint.choose(capture, self.results)
        values = [capture.value_of(t) for t in self.results] + self.kept
        values += [m.value for m in self.updates]
        used = _used([*values, *self.read, *capture.randoms.values()])
        for value, what in capture.fleeting:
            if value in used:
                raise refuse(what, "Ask for it outside of the compiled function.")
        if joint is not None:
            used |= set(sort(joint.gradients, stop=(*self.read, *joint.given)))
        self.inputs = [(v, t, sources.get(id(t))) for v, t in capture.inputs
                       if v in used or any(m.initial is v for m in self.updates)]
        self.numbers = [n for n in capture.numbers if n[0] in used]
        placeholders = [v for v, _, _ in self.inputs] + [v for v, _ in self.numbers]
        self.graph = Graph(placeholders, values)
        self.effects = list(capture.randoms.values())

    def _where(self, tensor: Any, sources: dict, number: dict, parts: Parts) -> tuple[str, Any]:
        """How replays find a returned tensor: an argument, something from outside, a view of older
        memory, a result, a part of one, or (found) a base or gradient of any of those."""
        if id(tensor) in self.place:
            return "leaf", self.place[id(tensor)]
        if id(tensor) in number:
            return "result", number[id(tensor)]
        if id(tensor) in parts.parts:
            base, *how = parts.parts[id(tensor)]
            return "part", (number[id(base)], *how)
        if id(tensor) in parts.outside:
            return "same", tensor
        root = self.capture.memory_of(tensor).tensor
        if tensor is root:
            return ("found", sources[id(root)]) if id(root) in sources else ("same", tensor)
        return "view", (sources.get(id(root), root), tensor._meta, tensor._ptr - root._ptr,
                        tensor._rg, tensor._inherits)

    def passed_on(self) -> list[Any]:
        """The tensors from outside that are returned."""
        return [what if kind == "same" else what[0] for kind, what in self.returned
                if kind == "same" or kind == "view" and isinstance(what[0], TensorBase)]

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


def _record(result: Any, joint: Joint | None) -> tuple[bool, tuple[str, int] | None]:
    """(does a result require grad by itself?, of one whose graph the run has freed: the name of its
    node and which output it is)."""
    if result._grad_fn is None:
        return result._rg, None
    if joint is not None and any(result is root for root in joint.roots):
        return False, None  # it gets a node
    return True, (result._grad_fn.name(), result._output_nr)


def _used(values: Sequence[Value]) -> set[Value]:
    return set(sort(values))
