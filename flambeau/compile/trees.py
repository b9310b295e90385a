"""Nested containers of tensors and numbers, taken apart and put together again."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from flambeau.core.device import Device
from flambeau.core.dtypes import DType
from flambeau.core.followed import Followed
from flambeau.core.symbolic import is_symbolic
from flambeau.tensor.meta import TensorBase

__all__ = ["Computed", "Passed", "containers", "flatten", "is_container", "objects_in", "rebuild",
           "values_key", "with_passed", "without_passed", "written_back"]

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


# ---------------------------------------------------------------------- containers by identity
class Passed:
    """Stands in a result for a container that the function was given, or that it reaches.

    Attributes:
        item: the container, if it is always the same one, else None.
        path: how it is found in (args, kwargs).
    """

    __slots__ = ("item", "path")

    def __init__(self, item: Any = None, path: tuple = ()):
        self.item, self.path = item, path

    def found(self, given: Any) -> Any:
        """The container among these (args, kwargs)."""
        if self.item is not None:
            return self.item
        for step in self.path:
            given = vars(given)[step.name] if step.__class__ is _Name else given[step]
        return given


class _Name:
    """A step to an attribute."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


def containers(tree: Any, path: tuple = ()) -> Iterator[tuple[Any, tuple]]:
    """(container, its path) of the changeable containers in a tree that `flatten` takes apart."""
    if is_container(tree):
        yield tree, path
    for step, item in _steps(tree):
        yield from containers(item, (*path, step))


def is_container(tree: Any) -> bool:
    """Is it a container that can change and that `flatten` takes apart?"""
    return isinstance(tree, (list, dict)) or _is_record(tree)


def _is_record(tree: Any) -> bool:
    return dataclasses.is_dataclass(tree) and _holds_tensors(tree)


def _steps(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(step, item) for what a container holds."""
    if isinstance(tree, (list, tuple)):
        yield from enumerate(tree)
    elif isinstance(tree, dict):
        yield from tree.items()
    elif _is_record(tree):
        for name, item in vars(tree).items():
            yield _Name(name), item


def with_passed(tree: Any, passed: Mapping[int, Passed]) -> Any:
    """A tree with what stands for the containers whose ids are given in their places."""
    if id(tree) in passed:
        return passed[id(tree)]
    return _mapped(tree, with_passed, passed)


def without_passed(tree: Any, given: Any) -> Any:
    """A tree with the containers themselves; `given` are the (args, kwargs) of this call."""
    if tree.__class__ is Passed:
        return tree.found(given)
    return _mapped(tree, without_passed, given)


def _mapped(tree: Any, change: Callable[[Any, Any], Any], how: Any) -> Any:
    """A tree with its items changed: itself if none of them is."""
    kind = type(tree)
    if kind is dict:
        items = {key: change(item, how) for key, item in tree.items()}
        return items if any(items[key] is not tree[key] for key in tree) else tree
    if isinstance(tree, (list, tuple)):
        changed = [change(item, how) for item in tree]
        if all(a is b for a, b in zip(changed, tree, strict=True)):
            return tree
        return changed if kind is list else (
            kind._make(changed) if hasattr(kind, "_make") else kind(changed))
    return tree


def written_back(tree: Any, copy: Any) -> Any:
    """`tree`, with what was done to `copy` (see `rebuild`) done to it: the same containers, which
    hold what the copied ones hold, and plain numbers."""
    if type(copy) is Followed:
        return copy.value
    if type(tree) is not type(copy) or isinstance(copy, TensorBase):
        return copy
    if type(tree) is list:
        old = dict(enumerate(tree))
        tree[:] = [written_back(old.get(i), item) for i, item in enumerate(copy)]
    elif type(tree) is dict:
        old = dict(tree)
        tree.clear()
        tree.update((key, written_back(old.get(key), item)) for key, item in copy.items())
    elif type(tree) is tuple:
        items = [written_back(a, b) for a, b in zip(tree, copy, strict=False)]
        same = len(tree) == len(copy) and all(
            a is b for a, b in zip(items, tree, strict=True))
        return tree if same else copy
    elif _is_record(tree):
        for name, item in vars(copy).items():
            object.__setattr__(tree, name, written_back(vars(tree).get(name), item))
    else:
        return copy
    return tree
