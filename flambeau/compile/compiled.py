"""What `torch.compile` returns: captures, compiles, replays, explains."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import mode
from flambeau.autograd.tape import RELEASED
from flambeau.compile.capture import Capture, CaptureError, Forgiving, Memory, refuse
from flambeau.compile.guards import Guard, find_objects, flatten, number_sources, rebuild
from flambeau.compiler.program import buffer_for, plan
from flambeau.compiler.target import host
from flambeau.ir.graph import Graph, Value
from flambeau.runtime import memory, pool
from flambeau.runtime.executable import build_program
from flambeau.tensor import dispatch, launches, tape
from flambeau.tensor.meta import contiguous_meta

__all__ = ["Compiled"]

ATTEMPTS = 3  # runs that may leave new state behind before a function is taken to be unsteady


class Compiled:
    """A function with its captured programs."""

    def __init__(self, function: Any, exact: bool = False, fullgraph: bool = False):
        self.function = function
        self.exact = exact
        self.fullgraph = fullgraph
        self.eager: set = set()  # signatures under which the function cannot be captured
        functools.update_wrapper(self, function)
        launches.resettable.add(self)
        self.programs: dict[Any, list[Replay]] = {}
        self.history: list[str] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves: list = []
        key = flatten((args, kwargs), leaves)
        shared = sharing(leaves)
        if shared is MIXED:  # one memory, for which gradients are wanted and are not
            return self.function(*args, **kwargs)
        signature = (mode() & 3, _hashable(key),
                     tuple([(t._meta, t._rg, t._grad is None) for t in leaves]), shared)
        reason = "first call with these layouts"
        for program in self.programs.get(signature, ()):
            changed = program.mismatch()
            if changed is None:
                return program.run(leaves)
            reason = f"{changed} has changed"
        if signature in self.eager:
            return self.function(*args, **kwargs)
        return self._capture(signature, leaves, args, kwargs, reason)

    def forget(self) -> None:
        """Drop the programs; the next calls are captured again."""
        self.programs.clear()

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _capture(self, signature: Any, leaves: list, args: tuple, kwargs: dict,
                 reason: str) -> Any:
        if dispatch.observers:  # inside another capture: become part of it
            return self.function(*args, **kwargs)
        objects = list(find_objects(self.function)) + [
            pair for item in (*args, *kwargs.values()) if not isinstance(item, launches.TensorBase)
            for pair in find_objects(item)]
        capture = Capture(number_sources(objects), self.exact)
        capture.bind(leaves)
        grads = _Gradients(objects)
        observer = capture if self.fullgraph else Forgiving(capture)
        dispatch.observe(observer)
        try:
            result = self.function(*args, **kwargs)
        finally:
            dispatch.unobserve(observer)
        if isinstance(observer, Forgiving) and observer.failure is not None:
            return self._give_up(signature, observer.failure, result)
        outputs: list = []
        shape = flatten(result, outputs)
        if any(m.tensor._grad_fn is not None for m in capture.writes()):
            return self._give_up(signature, refuse(
                "an in-place operation that autograd records, on a tensor from outside",
                "Write to a clone and return it."), result)
        finished = Recording(capture, leaves, outputs, shape, grads.changes(capture))
        if finished.differentiable:
            return self._give_up(signature, refuse(
                "a result whose gradient is computed after the function has returned",
                "Call backward() inside of the compiled function, or run it under "
                "torch.no_grad()."), result)
        escaped = finished.escaped()
        if escaped:
            self.history.append(f"captured ({reason}), not kept: the run left new state behind, of "
                                f"shapes {escaped}; the next call is captured again")
            return result
        replay = Replay(finished, Guard(objects, finished.read_anew()))
        replay.held = grads.held([leaf for leaf, _ in finished.gradients
                                  if id(leaf) not in capture.forgotten])
        self.programs.setdefault(signature, []).insert(0, replay)
        self.history.append(f"captured ({reason}): {capture.operations} operations in "
                            f"{len(replay.plan.steps)} kernels")
        return result

    def _give_up(self, signature: Any, failure: CaptureError, result: Any) -> Any:
        """Run eagerly from now on for these arguments, and say so once."""
        self.eager.add(signature)
        self.history.append(f"runs eagerly: {failure}")
        warnings.warn(f"{failure}\n  So this function runs eagerly, as without torch.compile; with "
                      "fullgraph=True this is an error.", UserWarning, stacklevel=4)
        return result

    def explain(self) -> str:
        """The captured programs, their kernels and memory, in plain words."""
        lines = [f"compile({getattr(self.function, '__qualname__', self.function)})"]
        lines += [f"  call {n}: {event}" for n, event in enumerate(self.history, 1)]
        for programs in self.programs.values():
            for program in programs:
                lines.append(program.explain())
        return "\n".join(lines)


def _hashable(key: Any) -> Any:
    try:
        hash(key)
    except TypeError:
        return repr(key)
    return key


MIXED = "mixed"


def sharing(leaves: Sequence) -> Any:
    """Which arguments lie in the same memory, and where; None if each has its own."""
    pattern = [None if t._meta.contiguous or t._base is None else
               (t._base._meta, t._ptr - t._base._ptr) for t in leaves]
    owners = [id(Capture._owner(t)) for t in leaves]
    if len(set(owners)) == len(leaves):
        return tuple(pattern) if any(pattern) else None
    for i, leaf in enumerate(leaves):
        if leaf._rg is not leaves[owners.index(owners[i])]._rg:
            return MIXED
        first = leaves[owners.index(owners[i])]
        base = None if leaf._base is None else (leaf._base._meta, leaf._ptr - leaf._base._ptr)
        pattern[i] = (owners.index(owners[i]), leaf._ptr - first._ptr, base)
    return tuple(pattern)


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


class _Gradients:
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
        known = {id(t) for t in self.outputs} | {id(g) for _, g in self.gradients}
        capture = self.capture
        made = {id(capture._owner(m.tensor)): m for m in capture.memories.values()
                if m.initial is None}
        results = {id(capture._owner(t)) for t in (*self.outputs, *self.results)}
        capture.kept.clear()
        import sys
        shapes = []
        for key, m in made.items():
            if key in results:
                continue
            storage = capture._owner(m.tensor)
            shape = list(m.tensor._meta.shape)
            alive = id(m.tensor) in known
            m.tensor = None
            # the local name and getrefcount's argument hold it; any more is the user's
            if not alive and sys.getrefcount(storage) > 2:
                shapes.append(shape)
        return shapes


def _used(values: Sequence[Value]) -> set[Value]:
    from flambeau.ir.graph import sort

    return set(sort(values))


class Replay:
    """A compiled program, ready to run again."""

    def __init__(self, recording: Recording, guard: Guard):
        self.recording, self.guard = recording, guard
        graph = recording.graph
        self.sources = [(tensor, spot, tensor._meta) for _, tensor, spot in recording.inputs]
        self.numbers = [(group, key) for _, group, key in recording.numbers]
        self.metas = [contiguous_meta(t._meta.dtype, tuple(t._meta.shape))
                      for t in recording.results]
        position = {v: i for i, (v, _, _) in enumerate(recording.inputs)}
        count = len(recording.results)
        self.updated = [position[m.initial] for m in recording.updates]
        aliases = {count + i: source for i, source in enumerate(self.updated)}
        inputs = [buffer_for("in", i, m.dtype, m.shape, m.strides)
                  for i, (_, _, m) in enumerate(self.sources)] + [None] * len(self.numbers)
        layouts = self.metas + [self.sources[i][2] for i in self.updated]
        outputs = [buffer_for("out", i, m.dtype, m.shape, m.strides)
                   for i, m in enumerate(layouts)]
        self.plan = plan(graph, inputs, outputs, host(), pool.get_num_threads(), aliases,
                         recording.effects)
        kinds = [None] * len(self.sources) + [float] * len(self.numbers)
        self.program = build_program(self.plan, kinds, len(outputs))
        generators = {id(v.attrs[4]): v.attrs[4] for v in recording.effects}
        self.locks = [generators[key].lock for key in sorted(generators)]
        self.pools = [(meta, memory.size_class(meta.nbytes)) for meta in self.metas]
        self.arena = memory.size_class(self.plan.arena_bytes) if self.plan.arena_bytes else None
        self.shape, self.returned = recording.shape, recording.returned
        self.owners, self.records = recording.owners, recording.records
        self.held: list[tuple[Any, bool]] = []
        self.first_gradient = recording.first_gradient
        recording.capture.kept = []

    def mismatch(self) -> str | None:
        """None if the program may run now, else what has changed."""
        for tensor, spot, meta in self.sources:
            if spot is None and tensor._meta is not meta:
                return f"the layout of a tensor of shape {list(meta.shape)}"
            if spot.__class__ is tuple and spot[0] == "grad":
                grad = spot[1]._grad
                if grad is None or grad._meta is not meta:
                    return f"the gradient of a tensor of shape {list(meta.shape)}"
        for leaf, had in self.held:
            if (leaf._grad is not None) is not had:
                return f"the gradient of a tensor of shape {list(leaf.shape)}"
        return self.guard.holds()

    def _launch(self, argv: list) -> tuple[int, int] | None:
        if not self.locks:
            return launches.late.launch(self.program.address, *argv)
        with contextlib.ExitStack() as held:  # one draw from a generator at a time
            for lock in self.locks:
                held.enter_context(lock)
            return launches.late.launch(self.program.address, *argv)

    def run(self, leaves: list) -> Any:
        """One native call."""
        inputs = [tensor if spot is None else found(spot, leaves)
                  for tensor, spot, _ in self.sources]
        numbers = [group[key] for group, key in self.numbers]
        argv = [t._ptr for t in inputs] + numbers
        results = [launches.fresh(meta, size_class) for meta, size_class in self.pools]
        argv += [t._ptr for t in results]
        argv += [inputs[i]._ptr for i in self.updated]
        if self.arena is not None:
            arena = self.arena.new(self.plan.arena_bytes)
            argv.append(arena.ptr)
        failure = self._launch(argv)
        if failure is not None:
            raise_compiled(failure, inputs)
        for i in self.updated:
            inputs[i]._storage.version += 1
        for leaf, grad in zip(self.owners, results[self.first_gradient:], strict=True):
            found(leaf, leaves)._grad = grad
        for result, (wanted, recorded) in zip(results, self.records, strict=True):
            if not recorded:
                result._rg, result._grad_fn = wanted, None
        values = {}
        for one in self.returned:
            if id(one) not in values:
                kind, what = one
                values[id(one)] = (
                    results[what] if kind == "result" else leaves[what] if kind == "leaf" else
                    view_of(found(what[0], leaves), *what[1:]) if kind == "view" else what)
        return rebuild(self.shape, [values[id(one)] for one in self.returned])

    def explain(self) -> str:
        """What the program consists of."""
        names: dict[str, int] = {}
        for step in self.plan.steps:
            family = step.name.rsplit("_", 1)[0] if step.name.startswith("nest") else step.name
            names[family] = names.get(family, 0) + 1
        kernels = ", ".join(f"{count} {name}" for name, count in sorted(names.items()))
        return (f"  program: {len(self.sources)} tensors and {len(self.numbers)} numbers in, "
                f"{len(self.metas)} results, {len(self.updated)} tensors updated in place, "
                f"{len(self.plan.steps)} kernels ({kernels}), "
                f"{self.plan.arena_bytes / 1e6:.1f} MB of temporaries")


def found(spot: Any, leaves: list) -> Any:
    """A tensor of this call: an argument by its place, its base, a gradient, or the tensor itself.
    """
    if spot.__class__ is int:
        return leaves[spot]
    if spot.__class__ is not tuple:
        return spot
    kind, of = spot
    tensor = leaves[of] if of.__class__ is int else of
    return tensor._base if kind == "base" else tensor._grad


def view_of(root: Any, meta: Any, offset: int, recorded: bool, inherits: bool) -> Any:
    """A part of `root`, `offset` bytes behind its start; its history is made when asked for, unless
    the view was made while nothing was recorded."""
    view = tape.alias_of(root)
    view._meta, view._ptr = meta, root._ptr + offset
    if recorded and root._rg and mode() & 3 == 1:
        view._base, view._rg = root if root._base is None else root._base, True
        if inherits:
            view._inherits, view._view_no_grad = True, True
            view._view_version = view._storage.version
    return view


def raise_compiled(failure: tuple[int, int], inputs: list) -> None:
    """A kernel of a compiled program has reported an error."""
    code, value = failure
    if code == 1:
        raise IndexError(f"index {value} is out of range in a compiled function; run it without "
                         "torch.compile to see the operation")
    raise RuntimeError("ZeroDivisionError: integer division by zero in a compiled function")
