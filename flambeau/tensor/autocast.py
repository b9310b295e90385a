"""Automatic mixed precision: the state of a thread, and the casts of operands.

While a thread is inside an `autocast` region, dispatch's general path asks `cast` for the operands
of each call and goes on with those. The casts are operations like others: autograd records them,
and a captured program contains them. A weight is cast once per region: its casts are kept until the
outermost region ends, or until the weight is written to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from flambeau.autograd.grad_mode import RECORD, mode
from flambeau.core.dtypes import DType, bfloat16, float16, float32, float64
from flambeau.ops.autocast import policy_of
from flambeau.ops.record import Op
from flambeau.tensor import launches
from flambeau.tensor.meta import TensorBase

__all__ = ["DEVICES", "State", "cast", "clear_cache", "current", "eligible", "enter", "leave",
           "own_casts", "replace", "setting"]

DEVICES = ("cpu", "cuda")


class State(NamedTuple):
    """What a thread has asked for.

    Attributes:
        enabled: names of the devices whose ops are cast.
        lower: the lower precision of each device, in the order of `DEVICES`.
        caching: keep the casts of weights.
        depth: how many regions the thread is inside of.
    """

    enabled: tuple[str, ...] = ()
    lower: tuple[DType, DType] = (bfloat16, float16)
    caching: bool = True
    depth: int = 0

    @property
    def casting(self) -> bool:
        """Are operations cast? Tensors live on the CPU; the other devices' settings are kept."""
        return "cpu" in self.enabled


_OFF = State()
_STATE: ContextVar[State] = ContextVar("flambeau_autocast", default=_OFF)
current: Callable[[], State] = _STATE.get
"""The state of this thread."""

_KEPT: ContextVar[dict | None] = ContextVar("flambeau_autocast_kept", default=None)


class _Token:
    """Stands in dispatch's `ACTIVE` once per thread that casts, so that no call is overlooked."""


WATCH = _Token()


def replace(state: State, active: list) -> None:
    """Set the state of this thread; `active` is dispatch's list of what watches operations."""
    before, after = current().casting, state.casting
    _STATE.set(state)
    if after and not before:
        active.append(WATCH)
    elif before and not after:
        active.remove(WATCH)


def enter(state: State, active: list) -> State:
    """Begin a region with the settings of `state`; gives the state to `leave` it with."""
    before = current()
    replace(state._replace(depth=before.depth + 1), active)
    return before


def leave(before: State, active: list) -> None:
    """End a region. The end of the outermost one forgets the casts of weights."""
    replace(before, active)
    if before.depth == 0:
        clear_cache()


def clear_cache() -> None:
    """Forget the casts of weights."""
    _KEPT.set(None)


@contextlib.contextmanager
def own_casts() -> Iterator[None]:
    """Casts of weights that are made inside serve inside only, as a capture needs it."""
    token = _KEPT.set(None)
    try:
        yield
    finally:
        _KEPT.reset(token)


def setting() -> tuple:
    """What of the state decides about casts; () outside of regions."""
    state = current()
    return (state.enabled, state.lower) if state.enabled else ()


def cast(record: Op, bound: Sequence) -> Sequence:
    """The operands as the thread's autocast region wants them."""
    policy = policy_of(record, bound)
    if policy is None:
        return bound
    if policy == "widest" and len({t._meta.dtype for t in _tensors(bound) if eligible(t)}) < 2:
        return bound
    state = current()
    wanted = state.lower[0] if policy == "lower" else float32
    return [_converted(a, wanted, state) for a in bound]


def _tensors(bound: Sequence) -> Any:
    for arg in bound:
        if isinstance(arg, TensorBase):
            yield arg
        elif isinstance(arg, (list, tuple)):
            yield from (a for a in arg if isinstance(a, TensorBase))


def eligible(tensor: Any) -> bool:
    """Is this a tensor that autocast may cast?"""
    dtype = tensor._meta.dtype
    return dtype.kind == "f" and dtype is not float64


def _converted(arg: Any, wanted: DType, state: State) -> Any:
    if isinstance(arg, (list, tuple)) and any(isinstance(a, TensorBase) for a in arg):
        return [_converted(a, wanted, state) for a in arg]
    if not isinstance(arg, TensorBase) or not eligible(arg) or arg._meta.dtype is wanted:
        return arg
    keep = (wanted is not float32 and arg._meta.dtype is float32 and arg._rg and state.caching
            and arg._base is None and arg._grad_fn is None)
    if not keep:
        return arg.to(wanted)
    kept = _KEPT.get()
    if kept is None:
        kept = {}
        _KEPT.set(kept)
    # a capture must see every cast itself, and one that was made without recording has no gradient
    watcher = launches.late.observers[-1] if launches.late.observers else None
    situation = arg._storage.version, wanted, mode() & 3 == RECORD, watcher
    found = kept.get(id(arg))
    if found is not None and found[1] == situation:
        return found[2]
    result = arg.to(wanted)
    kept[id(arg)] = arg, situation, result
    return result
