"""Between which numbers the integers of a graph lie: coordinates that are computed from places and
sizes alone need no check at run time."""

from __future__ import annotations

from flambeau.ir.graph import Value
from flambeau.ops.primitives.structure import coordinates

__all__ = ["is_index_arithmetic", "lies_inside", "range_of"]


def is_index_arithmetic(lookup: Value) -> bool:
    """Does a lookup only read places that follow from its own indices? Then it is a movement."""
    x = lookup.inputs[0]
    places = zip(x.shape, coordinates(lookup.attrs[0], lookup.inputs[1:]), strict=True)
    return all(isinstance(place, int) or lies_inside(place, size) for size, place in places)


def lies_inside(value: Value, size: int) -> bool:
    """Is every element of `value` surely a place of a dimension of that size?"""
    found = range_of(value)
    return found is not None and type(size) is int and found[0] >= 0 and found[1] < size


def range_of(value: Value, depth: int = 12) -> tuple[int, int] | None:
    """The least and the greatest number that an element of `value` can be, as far as that follows
    from how it is computed; None if it does not."""
    name = value.prim.name
    if name == "iota":
        size = value.attrs[0][value.attrs[1]]
        return (0, max(0, size - 1)) if type(size) is int else None
    if name == "constant":
        number = value.attrs[0]
        return (number, number) if type(number) is int else None
    rule = _RULES.get(name)
    if rule is None or depth == 0:
        return None
    ranges = [range_of(x, depth - 1) for x in value.inputs[_PASSED.get(name, 0):]]
    return None if None in ranges else rule(*ranges)


def _either(a, b):
    return min(a[0], b[0]), max(a[1], b[1])


def _unchanged(a):
    return a


def _absolute(a):
    return 0 if a[0] <= 0 <= a[1] else min(abs(a[0]), abs(a[1])), max(abs(a[0]), abs(a[1]))


def _sum(a, b):
    return a[0] + b[0], a[1] + b[1]


def _difference(a, b):
    return a[0] - b[1], a[1] - b[0]


def _smaller(a, b):
    return min(a[0], b[0]), min(a[1], b[1])


def _larger(a, b):
    return max(a[0], b[0]), max(a[1], b[1])


_PASSED = {"where": 1}  # operands whose range does not matter
_RULES = {"add": _sum, "sub": _difference, "minimum": _smaller, "maximum": _larger,
          "abs": _absolute, "where": _either, "expand": _unchanged, "reshape": _unchanged,
          "permute": _unchanged, "stop_gradient": _unchanged}
