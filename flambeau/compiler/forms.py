"""How values are written down, as numbers.

Passes ask again and again whether two values are computed in the same way: by the same primitive
with the same attributes, to the same shape and dtype. Each way, a *form*, is spelled out once and
has a number from then on, so that what is compared and hashed are small integers.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from flambeau.core.symbolic import environment, key_of
from flambeau.ir.graph import Value

__all__ = ["Forms"]


class Forms:
    """The forms of the values of one program."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._known: dict[Value, int] = {}

    def of(self, value: Value) -> int:
        """The number of a value's form: it says all about the value but what its operands are."""
        found = self._known.get(value)
        if found is None:
            shape = key_of(tuple(value.shape)) if environment else value.shape
            attrs = _spelled(value.attrs) if value.attrs else ()
            form = value.prim, attrs, shape, value.dtype, value.number
            found = self._known[value] = self._numbers.setdefault(form, len(self._numbers))
        return found

    def note(self, value: Value, form: int) -> None:
        """Say what form a value has, which was made after another one."""
        self._known[value] = form


def _spelled(item: Any) -> Hashable:
    """An attribute as a key that tells 1, 1.0 and True, and 0.0 and -0.0 apart; symbolic numbers go
    by their expressions."""
    kind = type(item)
    if kind is tuple:
        return tuple([each if type(each) is int else _spelled(each) for each in item])
    if kind is bool or kind is float or kind is complex:
        return kind, repr(item)
    return tuple(map(_spelled, item)) if isinstance(item, tuple) else key_of(item)
