"""Levels: the transforms (forward mode, vmap) that are at work in a thread, one inside the other.

While a thread is inside of one, every call of an operation goes to the innermost level that
concerns one of its arguments: tensors that stand for the examples of a batch (`batched.py`), or
that have tangents (`tangents.py`). A level turns the call into another one, on what its arguments
are made of, and runs that among the levels below it. Since calls are turned into calls, each level
needs to know nothing of operations; at the bottom they are compiled and launched like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from flambeau.autograd.grad_mode import INSIDE, LEVELS, RECORD, mode, set_bits
from flambeau.ops.derive import Call, OpCall
from flambeau.tensor import launches, tape, viewing
from flambeau.tensor.launches import Launch, LaunchCache
from flambeau.tensor.meta import Meta, TensorBase
from flambeau.tensor.overriding import ACTIVE

__all__ = ["Below", "Level", "Recorded", "active", "assign", "call_of", "concerned", "current",
           "everywhere", "run", "run_view", "top"]

_LEVELS: ContextVar[tuple] = ContextVar("flambeau_levels", default=())
current = _LEVELS.get
"""The levels of this thread, the innermost last."""

DEAD = 1 << 30
"""The depth of a level that was left."""


def active() -> bool:
    """Is this thread inside of a transform?"""
    return bool(mode() & LEVELS)


class _Token:
    """Stands in dispatch's `ACTIVE` while a thread is inside of a level."""


class Level:
    """One transform at work; a context manager.

    Attributes:
        depth: its place among the levels of the thread.
        batches: its tensors stand for the examples of a batch.
    """

    depth = DEAD
    batches = False

    def __enter__(self) -> Any:
        stack = current()
        self.depth = len(stack)
        self._token = _Token()
        _LEVELS.set((*stack, self))
        ACTIVE.append(self._token)
        self._before = set_bits(LEVELS | INSIDE, LEVELS | INSIDE)
        return self

    def __exit__(self, *error: object) -> None:
        below = current()[:self.depth]
        self.depth = DEAD
        _LEVELS.set(below)
        ACTIVE.remove(self._token)
        set_bits(LEVELS | INSIDE, self._before & (LEVELS | INSIDE))

    def compute(self, call: Call, flat: Sequence) -> list:
        """The results of a call on arguments that this level concerns."""
        raise NotImplementedError

    def view(self, call: Call, base: Any) -> list:
        """The views of `base` that a call of a view op gives."""
        raise NotImplementedError

    def write(self, target: Any, source: Any) -> None:
        """Overwrite `target` with `source`, which has its shape and dtype."""
        raise NotImplementedError


class Below:
    """Within the block, only the levels below one are at work."""

    __slots__ = ("level", "stack")

    def __init__(self, level: Level):
        self.level = level

    def __enter__(self) -> None:
        self.stack = current()
        _LEVELS.set(self.stack[:self.level.depth])
        if not self.level.depth:
            set_bits(LEVELS, 0)

    def __exit__(self, *error: object) -> None:
        _LEVELS.set(self.stack)
        set_bits(LEVELS, LEVELS)


def everywhere(valid: Any) -> bool:
    """Is a condition true of all elements, of all examples if there are any?"""
    level = valid._level
    if level is None:
        return bool(valid.all())
    with Below(level):
        return everywhere(valid._value)


def top(tensors: Sequence) -> Level | None:
    """The innermost level that concerns one of the arguments, or None."""
    stack = current()
    depth, limit = -1, len(stack)
    for tensor in tensors:
        if not isinstance(tensor, TensorBase):
            continue
        own = tensor._level
        if own is not None and depth < own.depth < limit:
            depth = own.depth
        known = tensor._tangents
        if known is None and tensor._base is not None:
            known = tensor._base._tangents  # a view moves with its base
        if known:
            for level, tangent in known.items():
                if tangent is not None and depth < level.depth < limit:
                    depth = level.depth
    return None if depth < 0 else stack[depth]


def run(call: Call, flat: Sequence) -> list:
    """The results of a call among the levels of this thread, recorded where recording is on."""
    level = top(flat)
    if level is None:
        return tape.run_call(call, flat)
    return level.compute(call, flat)


def concerned(bound: Sequence) -> Level | None:
    """The innermost level that concerns one of the arguments, or of the lists among them."""
    for arg in bound:
        if arg.__class__ is tuple or arg.__class__ is list:
            flat: list = []
            for item in bound:
                flat += item if item.__class__ is tuple or item.__class__ is list else (item,)
            return top(flat)
    return top(bound)


_calls = LaunchCache()


def call_of(record: Any, key: tuple, structure: Sequence, flat: Sequence) -> OpCall:
    """The call of an op for one key of dispatch: always the same object, which what is derived from
    it hangs on. `flat`: the tensors (or layouts) and numbers that it is for."""
    found = _calls.get((record, key))
    if found is None:
        metas = [getattr(a, "_meta", a) for a in flat]
        avals = [(tuple(m.shape), m.dtype) if isinstance(m, Meta) else m.__class__ for m in metas]
        found = _calls[record, key] = OpCall(record, structure, avals)
    return found


# ---------------------------------------------------------------------- views
def run_view(call: Call, base: Any) -> list:
    """The views that a call of a view op gives of its only tensor, among the levels."""
    level = top((base,))
    if level is None:
        return viewing.views_of(call, base)
    return level.view(call, base)


# ---------------------------------------------------------------------- writing
def assign(target: Any, source: Any) -> None:
    """Overwrite `target` with `source`, broadcast and converted, among the levels."""
    ops = launches.late.ops
    level = top((target, source))
    if level is None:
        ops.copy_(target, source)
        return
    if source._meta.dtype is not target._meta.dtype:
        source = ops._to_dtype(source, target._meta.dtype)
    if source._meta.shape != target._meta.shape:
        source = ops.expand(source, tuple(target._meta.shape))
    level.write(target, source)


# ---------------------------------------------------------------------- recording
class Recorded:
    """Stands for a launch on the tape: a call whose gradient is known, whoever ran it."""

    plan_for = Launch.plan_for

    def __init__(self, call: Call, flat: Sequence, outs: Sequence):
        self.call = call
        self.metas = tuple([a._meta if isinstance(a, TensorBase) else a.__class__ for a in flat])
        self.metas_out = tuple([out._meta for out in outs])
        self.plans: dict = {}
        record = getattr(call, "record", None)
        able = (record is None or record.differentiable) and any(
            meta.dtype.kind in "fc" for meta in self.metas_out)
        self.node_class = viewing.tape_node(call) if able else None


def recorded(call: Call, flat: Sequence, outs: Sequence) -> Recorded:
    """The `Recorded` of a call, made once."""
    found = call.__dict__.get("recorded")
    if found is None:
        found = call.recorded = Recorded(call, flat, outs)
    return found


def attach(call: Call, flat: Sequence, outs: Sequence, wanted: tuple[bool, ...]) -> None:
    """Record that `outs` are the results of a call, if one of the `wanted` arguments needs it."""
    word = mode()
    if word & 3 != RECORD or True not in wanted:
        return
    stand_in = recorded(call, flat, outs)
    if stand_in.node_class is None:
        return
    plan = stand_in.plan_for(wanted, tuple(out._meta.dtype.kind in "fc" for out in outs))
    tape.record(stand_in, plan, wanted, tuple(flat), tuple(outs), word)


launches.late.run = run
