"""What `torch.compile` returns: chooses a program for a call, or captures a new one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import mode
from flambeau.compile.capture import Capture, CaptureError, Forgiving, refuse
from flambeau.compile.guards import Guard, find_objects, flatten, number_sources
from flambeau.compile.recording import Gradients, Recording
from flambeau.compile.replay import Replay
from flambeau.tensor import dispatch, launches

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
        grads = Gradients(objects)
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
