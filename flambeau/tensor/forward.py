"""What `autograd.forward_ad` is made of: the level that users enter, and tensors' part in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.registry import tensors
from flambeau.tensor import (
    launches,
    levels,
    tangents,
    transformed,  # noqa: F401 - dispatch meets the levels
)
from flambeau.tensor.batched import Batched, VmapLevel
from flambeau.tensor.custom import apply_custom
from flambeau.tensor.tangents import JvpLevel

__all__ = ["apply_custom", "dual", "enter", "leave", "moving", "named", "over_batch", "push",
           "stacked", "unpack"]


def named() -> JvpLevel | None:
    """The level that the user has entered in this thread, or None."""
    for level in levels.current():
        if isinstance(level, JvpLevel) and level.named:
            return level
    return None


def enter() -> JvpLevel:
    """Begin the user's level."""
    return JvpLevel(True).__enter__()


def leave() -> None:
    """End the user's level."""
    level = named()
    level.__exit__(None, None, None)


def dual(tensor: Any, tangent: Any, level: JvpLevel) -> Any:
    """A view of `tensor` with a tangent."""
    if tangents.tangent_of(tensor, level) is not None:
        raise RuntimeError("Making a dual Tensor based on a Tensor that already has a forward "
                           "gradient at the same level is not supported: take "
                           "unpack_dual(tensor).primal.")
    if tangents.tangent_of(tangent, level) is not None:
        raise RuntimeError("Setting a forward grad that itself has a forward gradient at the same "
                           "level is not supported: take unpack_dual(tangent).primal.")
    tangent = tangents.fitting(tensor, tangent)
    if tangent._meta.dtype is not tensor._meta.dtype:
        tangent = tangent.to(tensor._meta.dtype)
    return tangents.dual(tensor, tangent, level)


def unpack(tensor: Any, level: JvpLevel) -> tuple[Any, Any]:
    """(value, tangent or None)."""
    return tangents.without(tensor, level), tangents.tangent_of(tensor, level)



def moving() -> Any:
    """The variable that says whether results have tangents."""
    return tangents.moving


def push(func: Callable, primals: Sequence, moves: Sequence) -> tuple[Any, tuple]:
    """(results, tangents of each of them) of a function at `primals` moved along `moves`."""
    with JvpLevel() as level:
        given = [tangents.dual(one.detach(), tangents.fitting(one, move), level)
                 for one, move in zip(primals, moves, strict=True)]
        results = func(*given)
        outputs = results if isinstance(results, tuple) else (results,)
        found = [tangents.tangent_of(out, level) if isinstance(out, tensors.cls) else None
                 for out in outputs]
    return results, tuple([tensors.make.zeros_like(out.detach()) if t is None else t
                           for out, t in zip(outputs, found, strict=True)])


def stacked(rows: Sequence) -> Any:
    """Tensors of one shape along a new first dimension."""
    return launches.late.ops.stack(tuple(rows), 0)


def over_batch(func: Callable, rows: Sequence, size: int) -> tuple:
    """What `func`, which takes and gives tensors, gives for each of `size` examples, which lie
    along the first dimension of arguments and results: `vmap` without its frills."""
    with VmapLevel(size) as level:
        results = func(*[level.wrap(row, 0) for row in rows])
        found = [(r._value, r._bdim) if r.__class__ is Batched and r._level is level else (r, None)
                 for r in results]
    return tuple([value.expand((size, *value.shape)) if place is None else value.movedim(place, 0)
                  for value, place in found])
