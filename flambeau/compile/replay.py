"""A captured program that is ready to run again: one native call over planned memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from flambeau.autograd.grad_mode import mode
from flambeau.compile.differentiable import Backward, spent_node
from flambeau.compile.guards import Guard
from flambeau.compile.interface import interface_of, room_of
from flambeau.compile.quick import quick
from flambeau.compile.recording import Recording
from flambeau.compile.trees import Passed, objects_in, rebuild
from flambeau.compiler.program import Plan
from flambeau.compiler.target import host
from flambeau.core import failures
from flambeau.runtime import memory, plan_cache, pool
from flambeau.runtime.executable import build_program
from flambeau.tensor import launches, tape

__all__ = ["Replay", "found"]


class Replay:
    """A compiled program, ready to run again."""

    def __init__(self, recording: Recording, guard: Guard,
                 planner: Callable[..., Plan] = plan_cache.planned):
        self.guard = guard
        self.sources = [(tensor, spot, tensor._meta) for _, tensor, spot in recording.inputs]
        self.interface = face = interface_of(recording, [m for _, _, m in self.sources])
        self.metas, self.updated = face.results, face.updated
        self.plan = planner(recording.graph, face.inputs, face.outputs, host(),
                            pool.get_num_threads(), face.aliases, recording.effects)
        kinds = [None] * len(face.given) + [float] * face.numbers
        self.program = build_program(self.plan, kinds, len(face.made))
        generators = {id(v.attrs[4]): v.attrs[4] for v in recording.effects}
        self.locks = [generators[key].lock for key in sorted(generators)]
        self.pools = [(meta, memory.size_class(room_of(meta))) for meta in self.metas]
        # the bytes of those with gaps between their elements
        self.gapped = {i: room_of(meta) for i, meta in enumerate(self.metas)
                       if room_of(meta) > meta.nbytes}
        self.arena = memory.size_class(self.plan.arena_bytes) if self.plan.arena_bytes else None
        self.count = len(recording.numbers)
        self.dropped: list[Any] = []
        self.shape, self.returned = recording.shape, recording.returned
        # the function may be run once more when a kernel has failed: nothing was changed
        self.repeatable = not self.updated and not recording.effects
        self.passes = any(item.__class__ is Passed for _, item in objects_in(self.shape))
        self.owners = recording.owners
        self.records = [
            (wanted, None, 0) if spent is None else
            (wanted, spent_node(spent[0], [meta] * (spent[1] + 1)), spent[1])
            for meta, (wanted, spent) in zip(self.metas, recording.records, strict=False)]
        self.renewed = recording.renewed  # whose old gradients make room for the new ones
        self.first_gradient, self.first_kept = recording.first_gradient, len(recording.results)
        self.backward = None if recording.joint is None else Backward(recording, self.metas)
        self.origins, self.kept = recording.origins, recording.kept
        self.quick: Callable | None = None
        recording.capture.kept = []

    def prepare(self) -> None:
        """Generate the function that runs this program, if it is of the plain kind."""
        self.quick = quick(self, raise_compiled, view_of)

    def _launch(self, argv: list) -> tuple[int, int] | None:
        launches.settle("a compiled function")
        if not self.locks:
            return launches.late.at_once(self.program.address, *argv)
        with contextlib.ExitStack() as held:  # one draw from a generator at a time
            for lock in self.locks:
                held.enter_context(lock)
            return launches.late.at_once(self.program.address, *argv)

    def run(self, leaves: list, numbers: list) -> Any:
        """One native call."""
        if self.quick is not None:
            return self.quick(leaves, numbers)
        inputs = [tensor if spot is None else found(spot, leaves)
                  for tensor, spot, _ in self.sources]
        guard = self.guard
        given = guard.compute(numbers)
        argv = [t._ptr for t in inputs] + given
        for leaf in self.renewed:
            found(leaf, leaves)._grad = None
        results = [launches.fresh(meta, size_class) for meta, size_class in self.pools]
        for i, nbytes in self.gapped.items():
            results[i]._storage = storage = self.pools[i][1].new(nbytes)
            results[i]._ptr = storage.ptr
        argv += [t._ptr for t in results]
        argv += [inputs[i]._ptr for i in self.updated]
        if self.arena is not None:
            arena = self.arena.new(self.plan.arena_bytes)
            argv.append(arena.ptr)
        failure = self._launch(argv)
        if failure is not None:
            raise_compiled(failure)
        for i in self.updated:
            inputs[i]._storage.version += 1
        kept = results[self.first_kept:]
        del results[self.first_kept:]
        for leaf, grad in zip(self.owners, results[self.first_gradient:], strict=True):
            found(leaf, leaves)._grad = grad
        for leaf in self.dropped:
            found(leaf, leaves)._grad = None
        for result, (wanted, node, number) in zip(results, self.records, strict=True):
            if wanted:
                result._rg, result._grad_fn = True, node
                if number:
                    result._output_nr = number
        if self.backward is not None:
            self.backward.attach(results, kept, inputs, given, leaves)
        known = {}
        for one in self.returned:
            if id(one) not in known:
                kind, what = one
                known[id(one)] = (
                    results[what] if kind == "result" else leaves[what] if kind == "leaf" else
                    view_of(found(what[0], leaves), *what[1:]) if kind == "view" else
                    view_of(results[what[0]], *what[1:]) if kind == "part" else
                    found(what, leaves) if kind == "found" else what)
        if guard.computed is not None:
            numbers = dict(enumerate(numbers)) | guard.computed(numbers)
        if guard.finish is not None:
            guard.finish(numbers)
        return rebuild(self.shape, [known[id(one)] for one in self.returned], numbers)

    def explain(self) -> str:
        """What the program consists of."""
        names: dict[str, int] = {}
        for step in self.plan.steps:
            family = step.name.rsplit("_", 1)[0] if step.name.startswith("nest") else step.name
            names[family] = names.get(family, 0) + 1
        kernels = ", ".join(f"{count} {name}" for name, count in sorted(names.items()))
        return (f"  program: {len(self.sources)} tensors and {self.count} numbers in, "
                f"{self.first_kept} results, {len(self.updated)} tensors updated in place, "
                f"{len(self.plan.steps)} kernels ({kernels}), "
                f"{self.plan.arena_bytes / 1e6:.1f} MB of temporaries"
                + ("" if self.backward is None else self.backward.explain()))


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


def raise_compiled(failure: tuple[int, int]) -> None:
    """A kernel of a compiled program has reported an error."""
    error = _error(*failure)
    error.of_kernel = True  # type: ignore[attr-defined]
    raise error


def _error(code: int, value: int) -> Exception:
    if code == 1:
        return IndexError(f"index {value} is out of range in a compiled function; run it without "
                          "torch.compile to see the operation")
    if code >= failures.FIRST:
        return failures.failure(code, value)
    return RuntimeError("ZeroDivisionError: integer division by zero in a compiled function")
