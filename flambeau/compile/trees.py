"""Nested containers of tensors and numbers, taken apart and put together again."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Iterator
from typing import Any

import numpy as np

from flambeau.core.device import Device
from flambeau.core.dtypes import DType
from flambeau.core.followed import Followed
from flambeau.core.symbolic import is_symbolic
from flambeau.tensor.meta import TensorBase

__all__ = ["Computed", "flatten", "objects_in", "rebuild", "values_key"]

_CONSTANT = (str, bytes, type(None), DType, Device, enum.Enum, type)


class _Leaf(int):
    """The place of a tensor among the leaves."""


class _Number(int):
    """The place of a number among the numbers."""


class Computed(str):
    """The expression of a number that a program computes in Python, and its present `value`."""

    value: Any


class _Object:
    """An object that is what it is; equal to itself only."""

    __slots__ = ("item",)

    def __init__(self, item: Any):
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and other.item is self.item

    def __hash__(self) -> int:
        return id(self.item)


class _Array:
    """A NumPy array by its content: what Python computes of it becomes part of a program."""

    __slots__ = ("item", "content")

    def __init__(self, item: np.ndarray):
        self.item = item
        self.content = item.dtype.str, item.shape, item.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Array) and other.content == self.content

    def __hash__(self) -> int:
        return hash(self.content)


def flatten(tree: Any, leaves: list, numbers: list | None = None) -> Any:
    """Collect the tensors of nested containers into `leaves` and the numbers into `numbers`; what
    is left is a hashable key. Without `numbers` they are part of it."""
    kind = type(tree)
    if isinstance(tree, TensorBase):
        leaves.append(tree)
        return _Leaf(len(leaves) - 1)
    if kind is Followed:
        computed = Computed(tree.text)
        computed.value = tree.value
        return computed
    if (kind is float or kind is int) and numbers is not None:
        numbers.append(tree)
        return _Number(len(numbers) - 1)
    if kind is tuple or kind is list:
        return kind, tuple([flatten(item, leaves, numbers) for item in tree])
    if kind is dict:
        return kind, tuple([(key, flatten(item, leaves, numbers)) for key, item in tree.items()])
    if isinstance(tree, _CONSTANT) or kind is bool or kind is int or kind is float or (
            is_symbolic(tree)):
        return None, kind, tree
    return _flatten_other(tree, kind, leaves, numbers)


def _flatten_other(tree: Any, kind: type, leaves: list, numbers: list) -> Any:
    if isinstance(tree, (tuple, list)):
        return kind, tuple([flatten(item, leaves, numbers) for item in tree])
    if isinstance(tree, dict) or dataclasses.is_dataclass(tree) and _holds_tensors(tree):
        items = tree.items() if isinstance(tree, dict) else ()
        held = dict(getattr(tree, "__dict__", {}))
        if isinstance(tree, collections.defaultdict):
            held["default_factory"] = tree.default_factory
        return (kind, tuple([(key, flatten(item, leaves, numbers)) for key, item in items]),
                tuple([(key, flatten(item, leaves, numbers)) for key, item in held.items()]))
    if isinstance(tree, np.ndarray):
        return None, kind, _Array(tree)
    if isinstance(tree, (complex, np.generic)):
        return None, kind, repr(tree), _Same(tree)
    return None, kind, _Object(tree)


class _Same(_Object):
    """Equal to all of its kind: something else in the key tells values apart."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is _Same

    def __hash__(self) -> int:
        return 0


def _holds_tensors(item: Any) -> bool:
    return not isinstance(item, type) and any(
        isinstance(value, TensorBase) for value in getattr(item, "__dict__", {}).values())


def objects_in(key: Any) -> Iterator[tuple[str, Any]]:
    """("an argument", object) for the objects in a key that were not taken apart."""
    if key.__class__ is tuple:
        for part in key:
            yield from objects_in(part)
    elif key.__class__ is _Object:
        yield "an argument", key.item


def rebuild(key: Any, leaves: list, numbers: list) -> Any:
    """The inverse of `flatten`; `numbers` also maps `Computed` expressions to values."""
    kind = key.__class__
    if kind is _Leaf:
        return leaves[key]
    if kind is _Number or kind is Computed:
        return numbers[key]
    kind, content = key[0], key[1]
    if kind is None:
        last = key[-1]
        return last.item if isinstance(last, (_Object, _Array)) else last
    if kind is dict:
        return {name: rebuild(item, leaves, numbers) for name, item in content}
    if len(key) == 3:
        return _rebuild_object(key, leaves, numbers)
    items = [rebuild(item, leaves, numbers) for item in content]
    if kind is list:
        return items
    return kind._make(items) if hasattr(kind, "_make") else kind(items)


def _rebuild_object(key: Any, leaves: list, numbers: list) -> Any:
    """A mapping of another type, or a data class."""
    kind, items, held = key
    made = kind.__new__(kind)
    put = collections.OrderedDict.__setitem__ if issubclass(
        kind, collections.OrderedDict) else dict.__setitem__
    for name, item in items:
        put(made, name, rebuild(item, leaves, numbers))
    for name, item in held:
        object.__setattr__(made, name, rebuild(item, leaves, numbers))
    return made


def values_key(numbers: list, loose: Any = ()) -> tuple:
    """Hashable: the numbers by type and value; the `loose` ones by type alone."""
    return tuple([
        (number.__class__, None) if i in loose else number if number.__class__ is int and number
        > 1 else (number.__class__, number if number and number == number else repr(number))
        for i, number in enumerate(numbers)])
