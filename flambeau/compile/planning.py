"""`torch.compiler.plan`: the memory that a step will need, found without computing anything.

The step runs on stand-ins: copies of the model, the optimizer and the inputs whose memory is taken
from the allocator but never touched, so that the system does not provide it. Every operation goes
its way (checks, allocations, the tape) up to the launch of its kernels, which is left out. So what
is counted is what the real step asks the same allocator for, and not a model of it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from flambeau.autograd.grad_mode import no_grad
from flambeau.autograd.tape import RELEASED, Node
from flambeau.compile.deferral import deferring
from flambeau.compile.differentiable import _contents, _reachable
from flambeau.compile.origins import passes
from flambeau.compile.trees import flatten
from flambeau.core.errors import describe, is_internal, user_location
from flambeau.runtime import memory
from flambeau.runtime.launch import launcher
from flambeau.tensor import dispatch, launches
from flambeau.tensor.launches import late
from flambeau.tensor.meta import TensorBase

__all__ = ["MemoryPlan", "plan"]

WARM_UP = 3  # steps until optimizer state exists and programs are captured


@dataclasses.dataclass
class MemoryPlan:
    """The memory of a step, in bytes, counted in whole blocks of the allocator.

    Attributes:
        peak: the most that is held at one time, by what the plan was asked about.
        parameters: with buffers; `inputs`: the tensors that the model is given.
        gradients, optimizer_state: at the moment of the peak.
        activations: what is kept for the backward at that moment; results that wait, in a forward.
        temporaries: everything else: gradients on their way, workspaces, the arena of a program.
        saved: what the forward keeps for the backward, at its end.
        when: the part of the step in which the peak is.
        where: the user's line then.
    """

    peak: int
    parameters: int
    inputs: int
    gradients: int
    optimizer_state: int
    activations: int
    temporaries: int
    saved: int
    when: str
    where: str
    title: str = "a step"

    def __str__(self) -> str:
        rows = [("parameters and buffers", self.parameters), ("inputs", self.inputs),
                ("gradients", self.gradients), ("optimizer state", self.optimizer_state),
                ("activations", self.activations), ("temporaries", self.temporaries)]
        lines = [f"{self.title} holds {_size(self.peak)} at most, in the {self.when}"]
        if self.where:
            lines.append(f"  at {self.where}")
        lines += [f"  {_size(nbytes):>10}  {name}" for name, nbytes in rows if nbytes]
        if self.saved:
            lines.append(f"  at the end of the forward, {_size(self.saved)} are kept for the "
                         "backward")
        return "\n".join(lines)


def plan(model: Any, inputs: Any, optimizer: Any = None,
         loss: Callable[[Any], Any] | None = None, *, compiled: bool = False) -> MemoryPlan:
    """The peak memory of a step of `model`, before anything runs: no kernel is started and the
    memory is not touched. The kernels that the step needs are compiled, as by its first call.

    With an `optimizer` or a `loss` it is a training step in the steady state: gradients dropped,
    forward, loss, backward, optimizer step. Without, it is a forward under `no_grad`. The model,
    the optimizer and the inputs stay as they are; random streams do not move.

    Args:
        model: a module; a compiled one is planned as it would run. A function, if nothing is
            trained: what it closes over cannot be copied.
        inputs: its argument, or a tuple of them; a dict gives keyword arguments.
        optimizer: of the model's parameters.
        loss: function of the model's result that gives a scalar; None: the result itself if it is
            one, its sum otherwise. What it needs besides (targets) is not counted.
        compiled: the whole step is one function given to `torch.compile`.

    Raises:
        NotImplementedError: the step reads a value in Python (`.item()`, a branch on a result),
            which is not known before it runs.
        TypeError: a function is to be trained, or gives no tensor to begin a backward with.
        RuntimeError: called while something is captured.

    What was allocated before and belongs to none of the arguments (a data set) is not counted.
    """
    if dispatch.observers or deferring():
        raise RuntimeError("torch.compiler.plan: called inside of a compiled function; plan before")
    if (optimizer is not None or loss is not None) and not hasattr(model, "named_parameters"):
        raise TypeError("torch.compiler.plan: a training step is planned on a copy of the model, "
                        f"which {type(model).__name__} does not give; pass the module")
    with _Standing(compiled or _is_compiled(model)) as standing:
        return _Step(standing, model, inputs, optimizer, loss, compiled).planned()


def _is_compiled(model: Any) -> bool:
    from flambeau.compile.compiled import Compiled
    from flambeau.compile.module import OptimizedModule

    return isinstance(model, (Compiled, OptimizedModule))


class _Standing:
    """While it is open, launches of this thread are left out, but noted.

    Attributes:
        base: bytes in use when it was opened.
        noted: called at each launch with its program's address, or None.
    """

    def __init__(self, programs: bool):
        self.programs = programs
        self.thread = threading.get_ident()
        self.noted: Callable[[int], None] | None = None

    def __enter__(self) -> _Standing:
        if late.launch is launches.run_native:
            late.launch = late.checked = late.at_once = launcher()
        gc.collect()
        self.doors = late.launch, late.checked, late.at_once
        self.peak = memory.memory_stats()["peak"]
        self.base = self.in_use()
        self.left_out = late.launch, late.checked, late.at_once = tuple(
            map(self._left_out, self.doors))
        self.watcher = None if self.programs else _Watcher(self.thread)
        return self

    def __exit__(self, *failure: Any) -> None:
        late.launch, late.checked, late.at_once = self.doors
        gc.collect()
        memory.empty_cache()
        memory._ledger[memory.PEAK] = max(self.peak, self.in_use())

    def _left_out(self, door: Callable) -> Callable:
        def launch(address: int, *args: Any) -> Any:
            if threading.get_ident() != self.thread:
                return door(address, *args)
            if self.noted is not None:
                self.noted(address)
            return None

        return launch

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Refuse to read what was not computed; a capture refuses by itself."""
        if self.watcher is None:
            yield
            return
        dispatch.observe(self.watcher)
        try:
            yield
        finally:
            dispatch.unobserve(self.watcher)

    def check(self) -> None:
        """Has nothing run?

        Raises:
            NotImplementedError: a compiled function has gone its own way.
        """
        if (late.launch, late.checked, late.at_once) != self.left_out:
            raise NotImplementedError(
                "torch.compiler.plan: a compiled part of the step reads values in Python and so "
                "does not become one program; plan it without torch.compile")

    @staticmethod
    def in_use() -> int:
        """Bytes in blocks that are held."""
        return memory._ledger[memory.IN_USE]


class _Watcher:
    """An observer that lets everything happen but reading."""

    exact = True  # as in eager runs, gradients that only move are views

    def __init__(self, thread: int):
        self.thread = thread

    def read(self, tensor: Any) -> None:
        """Python wants to see elements."""
        if threading.get_ident() == self.thread:
            raise NotImplementedError(
                "torch.compiler.plan: the step reads a tensor's value in Python (.item(), print, "
                f"bool, numpy), and nothing has been computed\n  at {user_location()}\n  Plan the "
                "part before and the part after, or leave the reading out.")

    def _nothing(self, *event: Any) -> None:
        """Nothing to do."""

    ran = wrote = viewed = aliased = created = given = randomised = _nothing
    forgot = asked = unforeseen = host = _nothing


class _Step:
    """A step on stand-ins."""

    def __init__(self, standing: _Standing, model: Any, inputs: Any, optimizer: Any, loss: Any,
                 compiled: bool):
        self.standing, self.loss = standing, loss
        self.training = optimizer is not None or loss is not None
        self.title = f"{'a training step' if self.training else 'a forward'} of " + getattr(
            model, "__qualname__", type(getattr(model, "_orig_mod", model)).__name__)
        self._copy(model, inputs, optimizer)
        self.run = self._step
        self.phase = "forward"
        if compiled:
            import flambeau

            self.run = flambeau.compile(self._step, fullgraph=True)

    def _copy(self, model: Any, inputs: Any, optimizer: Any) -> None:
        """The stand-ins of what was given."""
        state = _state_of(optimizer)
        own = _state_of(model)
        leaves: list = []
        flatten(inputs, leaves, [])
        memo: dict = {}
        sizes = []
        for tensors in (own, leaves, state):
            before = self.standing.in_use()
            _stand_for(tensors, memo)
            sizes.append(self.standing.in_use() - before)
        self.parameters_bytes, self.inputs_bytes = sizes[:2]
        self.model, self.inputs, self.optimizer = copy.deepcopy((model, inputs, optimizer), memo)
        self.parameters = [t for t in _state_of(self.model) if t._rg]
        if self.optimizer is not None:
            self.parameters += [p for group in self.optimizer.param_groups
                                for p in group["params"]]
        self.parameters = list({id(p): p for p in self.parameters}.values())
        for parameter in self.parameters:
            parameter.grad = None
        self.given: list = []
        flatten(self.inputs, self.given, [])
        self.known = {id(_owner(t)) for t in (*_state_of(self.model), *self.given)}

    # ------------------------------------------------------------------ the step
    def _step(self) -> Any:
        if not self.training:
            with no_grad():
                return self._forward()
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        else:
            for parameter in self.parameters:
                parameter.grad = None
        result = self._scalar(self._forward())
        if self.standing.noted is not None:
            self.nodes = self._tape(result)
        self.phase = "backward"
        result.backward()
        if self.optimizer is not None:
            self.phase = "optimizer step"
            self.optimizer.step()
        return result

    def _forward(self) -> Any:
        self.phase = "forward"
        if isinstance(self.inputs, dict):
            return self.model(**self.inputs)
        return self.model(*self.inputs) if isinstance(self.inputs, (tuple, list)) else (
            self.model(self.inputs))

    def _scalar(self, result: Any) -> Any:
        if self.loss is not None:
            return self.loss(result)
        if isinstance(result, TensorBase):
            return result if result._meta.numel == 1 else result.sum()
        if isinstance(getattr(result, "loss", None), TensorBase):
            return result.loss
        raise TypeError("torch.compiler.plan: the model returns "
                        f"{type(result).__name__}; pass loss=, a function of it that gives a "
                        "scalar")

    def _tape(self, result: Any) -> list[Node]:
        self.saved = 0
        if not self.looking or result._grad_fn is None:
            return []
        nodes = list(_reachable(result._grad_fn))
        self.saved = self._saved(nodes)
        return nodes

    # ------------------------------------------------------------------ finding the peak
    def planned(self) -> MemoryPlan:
        """Run the step until it is steady, find its peak, and look closer at that moment."""
        with self.standing.watching():
            for _ in range(WARM_UP):
                self.run()
                self.standing.check()
            peak = self._measured()
            found = self._looked_at()
        total = peak - self.standing.base
        parts = self.parameters_bytes + self.inputs_bytes + sum(found[:3])
        return MemoryPlan(total, self.parameters_bytes, self.inputs_bytes, *found[:3],
                          max(0, total - parts), self.saved, *found[3:], self.title)

    def _measured(self) -> int:
        """The peak of one step."""
        self.looking, self.launches, self.at, most = False, 0, 0, 0

        def note(address: int) -> None:
            nonlocal most
            self.launches += 1
            if self.standing.in_use() > most:
                most, self.at = self.standing.in_use(), self.launches

        self.standing.noted = note
        memory.reset_peak()
        self.run()
        self.standing.noted = None
        return memory._ledger[memory.PEAK]

    def _looked_at(self) -> tuple:
        """(gradients, optimizer state, activations, part of the step, line) at the peak."""
        self.looking, self.launches, self.nodes, self.saved = True, 0, [], 0
        found: list[tuple] = []

        def note(address: int) -> None:
            self.launches += 1
            if self.launches == self.at:
                found.append(self._parts(address))

        self.standing.noted = note
        self.run()
        self.standing.noted = None
        return found[0] if found else (0, 0, 0, "forward", "")

    def _parts(self, address: int) -> tuple:
        gradients = _held(p._grad for p in self.parameters if p._grad is not None)
        state = _held(t for t in _state_of(self.optimizer) if id(_owner(t)) not in self.known)
        where = _line()
        launch = launches.by_address.get(address)
        if launch is None:  # a program: all is in its arena
            return gradients, state, self._saved(self.nodes), "program", where
        if not self.training:
            return gradients, state, 0, self.phase, where
        if self.phase == "forward":
            arena = memory.class_bytes(launch.arena_bytes) if launch.arena_bytes else 0
            rest = self.standing.in_use() - self.standing.base - self.parameters_bytes
            return gradients, state, rest - self.inputs_bytes - gradients - state - arena, (
                self.phase), where
        return gradients, state, self._saved(self.nodes), self.phase, where

    def _saved(self, nodes: Sequence[Node]) -> int:
        return _held(t for node in nodes if node.tape_saved is not RELEASED
                     for t in _contents(node)
                     if isinstance(t, TensorBase) and id(_owner(t)) not in self.known)


def _line() -> str:
    """The user's line that is running; in a backward, that of the forward's operation."""
    codes = passes()
    frame = sys._getframe(1)
    ends = _Step._step.__code__, _Step._looked_at.__code__
    while frame is not None and frame.f_code not in ends:
        if frame.f_code in codes:
            where = getattr(frame.f_locals.get("node"), "tape_where", None)
            internal = where is None or is_internal[where[0].co_filename]
            return "" if internal else str(describe(where))
        if not is_internal[frame.f_code.co_filename]:
            return str(describe((frame.f_code, frame.f_lasti)))
        frame = frame.f_back
    return ""


# ---------------------------------------------------------------------- tensors
def _state_of(holder: Any) -> list:
    """The tensors of a module (or what a compiled function closes over) or of an optimizer."""
    if holder is None:
        return []
    if hasattr(holder, "param_groups"):
        groups = [p for group in holder.param_groups for p in group["params"]]
        values = [v for state in holder.state.values() if isinstance(state, dict)
                  for v in state.values()]
        leaves: list = []
        flatten(values, leaves, [])
        return [*groups, *leaves]
    if hasattr(holder, "named_parameters"):
        return [*holder.parameters(), *holder.buffers()]
    return []


def _owner(tensor: Any) -> Any:
    storage = tensor._storage
    while type(storage.owner) is type(storage):
        storage = storage.owner
    return storage


def _stand_for(tensors: Iterable[Any], memo: dict) -> None:
    """Untouched memory in the place of the tensors' own, for a deep copy."""
    for tensor in tensors:
        if id(tensor._storage) not in memo:
            memo[id(tensor._storage)] = memory.allocate(tensor._storage.nbytes)
        if tensor._grad is not None:  # the step drops it before anything else
            memo.setdefault(id(tensor._grad._storage), memory.allocate(0))


def _held(tensors: Iterable[Any]) -> int:
    """Bytes of the blocks that tensors lie in, each once."""
    owners = {id(owner): owner for owner in map(_owner, tensors)}
    return sum(memory.class_bytes(owner.nbytes) for owner in owners.values())


def _size(nbytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes:.0f} B"
