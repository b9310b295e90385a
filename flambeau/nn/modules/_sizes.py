"""Arguments that are one number or one number per spatial dimension."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["ntuple", "reverse_repeat"]


def ntuple(value: Any, count: int) -> tuple:
    """`value` as a tuple: a single number is repeated, an iterable is taken as it is."""
    if isinstance(value, Iterable):
        return tuple(value)
    return (value,) * count


def reverse_repeat(values: tuple, times: int) -> tuple:
    """The values in reverse, each `times` times: the order in which `F.pad` wants its padding."""
    return tuple(value for value in reversed(values) for _ in range(times))
