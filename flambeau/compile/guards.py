"""Guards: when a captured program may be used again, and which numbers it reads anew.

A program depends on layouts of tensors and on Python values. Arguments, variables that the function
closes over or names globally, training flags of modules and optimizers' options are compared before
each replay. Floating options of optimizers (learning rates) are inputs instead.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from flambeau.autograd.grad_mode import mode
from flambeau.tensor.meta import TensorBase

__all__ = ["flatten", "rebuild", "Guard", "find_objects", "number_sources"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def flatten(tree: Any, leaves: list) -> Any:
    """Collect the tensors of nested containers into `leaves`; what is left is a comparable key."""
    if isinstance(tree, TensorBase):
        leaves.append(tree)
        return _Leaf(len(leaves) - 1)
    if isinstance(tree, (tuple, list)):
        return (type(tree), tuple(flatten(item, leaves) for item in tree))
    if isinstance(tree, dict):
        return (dict, tuple((key, flatten(item, leaves)) for key, item in tree.items()))
    return (None, tree)


class _Leaf(int):
    """The place of a tensor among the leaves."""


def rebuild(key: Any, leaves: list) -> Any:
    """The inverse of `flatten`."""
    if isinstance(key, _Leaf):
        return leaves[key]
    kind, content = key
    if kind is None:
        return content
    if kind is dict:
        return {name: rebuild(item, leaves) for name, item in content}
    items = [rebuild(item, leaves) for item in content]
    if hasattr(kind, "_fields"):
        return kind(items) if not hasattr(kind, "_make") else kind._make(items)
    return kind(items)


def find_objects(function: Any) -> Iterator[tuple[str, Any]]:
    """(name, object) of everything that a function reaches by itself.

    That is what it is bound to, closes over, names globally or has as defaults; functions among
    those are followed.
    """
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", function)]
    while stack:
        name, item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield name, item
        if isinstance(item, types.MethodType):
            stack += [(f"{name}.__self__", item.__self__), (name, item.__func__)]
        elif isinstance(item, types.FunctionType) and not _ours(item):
            code = item.__code__
            for cell_name, cell in zip(code.co_freevars, item.__closure__ or (), strict=False):
                try:
                    stack.append((cell_name, cell.cell_contents))
                except ValueError:  # not assigned yet
                    continue
            stack += [(n, item.__globals__[n]) for n in code.co_names if n in item.__globals__]
            stack += [(name, default) for default in item.__defaults__ or ()]
        elif isinstance(item, (list, tuple)) and len(item) < 1000:
            stack += [(f"{name}[{i}]", x) for i, x in enumerate(item)]
        elif isinstance(item, dict) and len(item) < 1000:
            stack += [(f"{name}[{key!r}]", x) for key, x in item.items()]
        elif _holds_state(item):
            stack += [(f"{name}.{key}", x) for key, x in vars(item).items()]


def _holds_state(item: Any) -> bool:
    """Whether an object's attributes may be state of the user's program."""
    return (hasattr(item, "__dict__") and not _engine(item) and not isinstance(
        item, (types.ModuleType, type, types.FunctionType, TensorBase)))


def _ours(function: types.FunctionType) -> bool:
    """Functions of the package hold no state of the user's program; cli/'s recipes are programs."""
    module = function.__module__ or ""
    return module.split(".")[0] == "flambeau" and not module.startswith("flambeau.cli")


def _engine(item: Any) -> bool:
    """Objects whose insides are no state of the user's program."""
    module = type(item).__module__ or ""
    return module.split(".")[0] in ("numpy", "threading", "weakref", "logging", "ctypes") or (
        module.startswith("flambeau.") and not module.startswith(
            ("flambeau.nn", "flambeau.optim", "flambeau.cli")))


def number_sources(objects: list[tuple[str, Any]]) -> dict[int, tuple[Any, Any]]:
    """id of a float option of an optimizer -> (its group, its key): such are inputs of programs."""
    found: dict[int, tuple[Any, Any]] = {}
    for _, item in objects:
        groups = getattr(item, "param_groups", None)
        if isinstance(groups, list):
            for group in groups:
                for key, value in group.items():
                    if type(value) is float:
                        group[key] = value = float(repr(value))  # an object of its own
                        found[id(value)] = (group, key)
    return found


class Guard:
    """What must be unchanged for a program to be valid."""

    def __init__(self, objects: list[tuple[str, Any]], inputs: dict[int, set]):
        """`inputs` maps the id of an optimizer's group to the keys that the program reads anew."""
        self.mode = mode() & 3
        self.flags = [(item, item.training) for _, item in objects
                      if isinstance(getattr(item, "training", None), bool)]
        self.values: list[tuple[Any, Any, Any]] = []
        for _, item in objects:
            groups = getattr(item, "param_groups", None)
            if isinstance(groups, list):
                for group in groups:
                    self.values += [(group, key, value) for key, value in group.items()
                                    if isinstance(value, _PLAIN)
                                    and key not in inputs.get(id(group), ())]
        self.scalars = [(owner, name, value) for owner, name, value in _scalars(objects)]

    def holds(self) -> str | None:
        """None if everything is unchanged, else what is not."""
        if mode() & 3 != self.mode:
            return "grad mode"
        for item, flag in self.flags:
            if item.training is not flag:
                return f"{type(item).__name__}.training"
        for group, key, value in self.values:
            if group.get(key) != value:
                return f"the optimizer's {key}"
        for owner, name, value in self.scalars:
            if owner(name) != value:
                return f"the variable {name!r}"
        return None


def _scalars(objects: list[tuple[str, Any]]) -> Iterator[tuple[Any, Any, Any]]:
    """Plain values that functions and the user's objects hold, and how to read them again."""
    for _, item in objects:
        if isinstance(item, types.FunctionType) and not _ours(item):
            cells = dict(zip(item.__code__.co_freevars, item.__closure__ or (), strict=False))
            for name, cell in cells.items():
                try:
                    value = cell.cell_contents
                except ValueError:
                    continue
                if isinstance(value, _PLAIN):
                    yield _cell_reader(cell), name, value
            for name in item.__code__.co_names:
                value = item.__globals__.get(name)
                if isinstance(value, _PLAIN) and name in item.__globals__:
                    yield item.__globals__.get, name, value
        elif _holds_state(item):
            for name, value in vars(item).items():
                if isinstance(value, _PLAIN) and name != "training":
                    yield vars(item).get, name, value


def _cell_reader(cell: Any) -> Any:
    def read(name: str) -> Any:
        return cell.cell_contents

    return read
