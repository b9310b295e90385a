"""What `autograd.forward_ad` is made of: the level that users enter, and tensors' part in it."""

from __future__ import annotations

from typing import Any

from flambeau.tensor import (
    levels,
    tangents,
    transformed,  # noqa: F401 - dispatch meets the levels
)
from flambeau.tensor.tangents import JvpLevel

__all__ = ["dual", "enter", "leave", "named", "unpack"]


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
        tensor = tangents.without(tensor, level)
    tangent = tangents.fitting(tensor, tangent)
    if tangent._meta.dtype is not tensor._meta.dtype:
        raise RuntimeError("Expected the primal and the tangent to have the same dtype, but got "
                           f"{tensor.dtype!r} and {tangent.dtype!r}")
    return tangents.dual(tensor, tangent, level)


def unpack(tensor: Any, level: JvpLevel) -> tuple[Any, Any]:
    """(value, tangent or None)."""
    return tangents.without(tensor, level), tangents.tangent_of(tensor, level)

