"""What a function reaches by itself: the Python state that a captured program depends on.

The walk starts at the function and its arguments, and follows what code may read: closures, globals
and defaults of functions, attributes of objects, items of containers. Attributes and globals count
if a function that may run names them; code is looked at, never run. Each *place* (an item, a cell,
a size) can be read again, which is what guards compare.
"""

from __future__ import annotations

import array
import collections
import contextlib
import enum
import functools
import os
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from flambeau.compile.capture import refuse
from flambeau.compile.surroundings import origin_of, unrepeatable
from flambeau.core.device import Device
from flambeau.core.dtypes import DType
from flambeau.tensor.meta import TensorBase

__all__ = ["Place", "Reach", "PLAIN", "is_plain", "snapshot", "unchanged"]

PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, enum.Enum)
_ATOMS = (DType, Device, types.BuiltinFunctionType, types.MethodDescriptorType,
          types.WrapperDescriptorType, property, range, slice)
_VALUES = (set, frozenset, collections.deque, bytearray, array.array)
_LIMIT = 500  # items of a container that are looked at one by one
_MOST = 200_000  # objects that a walk visits at most
_ABSENT = object()


class Place:
    """Somewhere that Python code may read a value from.

    Attributes:
        kind: "item" of a dict or list, "cell", "attribute", "size", "content" of a value type.
        owner, key: what holds the value, and under which name or index.
        path: how a user would write it.
        before: the value when the walk passed, with `snapshot` for what can change by itself.
    """

    __slots__ = ("kind", "owner", "key", "path", "before")

    def __init__(self, kind: str, owner: Any, key: Any, path: str, before: Any):
        self.kind, self.owner, self.key = kind, owner, key
        self.path, self.before = path, before

    def now(self) -> Any:
        """The value at this moment; a private mark if there is none any more."""
        try:
            if self.kind == "item":
                if isinstance(self.owner, dict):  # a look must not make an entry
                    return dict.get(self.owner, self.key, _ABSENT)
                return self.owner[self.key]
            if self.kind == "cell":
                return self.owner.cell_contents
            if self.kind == "attribute":
                return getattr(self.owner, self.key)
        except (KeyError, IndexError, ValueError, AttributeError):
            return _ABSENT
        return len(self.owner) if self.kind == "size" else snapshot(self.owner)

    @property
    def settable(self) -> bool:
        """Can a value be put here?"""
        return self.kind in ("cell", "attribute") or self.kind == "item" and isinstance(
            self.owner, (dict, list))

    def put(self, value: Any) -> None:
        """Replace the value."""
        if self.kind == "item":
            self.owner[self.key] = value
        elif self.kind == "cell":
            self.owner.cell_contents = value
        else:
            setattr(self.owner, self.key, value)

    def put_back(self, old: Any) -> None:
        """Make the place what it was, if that is possible."""
        if self.settable:
            self.put(old)
        elif self.kind == "size" and isinstance(self.owner, list):
            del self.owner[old:]
        elif self.kind == "size" and isinstance(self.owner, dict):
            for key in list(self.owner)[old:]:
                del self.owner[key]

    def differs(self, now: Any) -> bool:
        """Is the value not what it was when the walk passed?"""
        if self.kind in ("size", "content"):
            return now is not self.before and now != self.before
        return not unchanged(now, self.before)

    @property
    def identity(self) -> tuple:
        """Equal for the same place of two walks."""
        return self.kind, id(self.owner), self.key


def is_plain(value: Any) -> bool:
    """Is the value all there is to it? Also tuples of such."""
    if type(value) in (tuple, frozenset):
        return all(is_plain(item) for item in value)
    return isinstance(value, (*PLAIN, DType, Device))


def snapshot(value: Any) -> Any:
    """What of a container without named places can be compared later."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, os._Environ):
        return dict(value._data)
    return tuple(value) if isinstance(value, (list, collections.deque)) else type(value)(value)


def unchanged(value: Any, before: Any) -> bool:
    """Is a value what it was? Plain values by type and content, others by identity."""
    if value is before:
        return True
    if type(value) is not type(before) or isinstance(value, TensorBase):
        return False
    if type(value) is float:  # 0.0 is not -0.0; nan is nan
        return value.hex() == before.hex()
    if type(value) is tuple:
        return len(value) == len(before) and all(map(unchanged, value, before))
    return is_plain(value) and bool(value == before)


@functools.lru_cache(maxsize=4096)
def _names_in(code: types.CodeType) -> frozenset[str]:
    """Every name and string constant in a function's code and the functions inside of it."""
    names = set(code.co_names) | set(code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, str):
            names.add(constant)
        elif isinstance(constant, tuple):
            names.update(item for item in constant if isinstance(item, str))
        elif isinstance(constant, types.CodeType):
            names |= _names_in(constant)
    return frozenset(names)


_STATEFUL = ("nn", "optim", "amp", "cli")  # packages of ours whose objects are the user's state
_ANY_NAME = frozenset(("getattr", "vars", "__dict__", "eval", "exec", "__getattribute__"))
_SKIPPED = frozenset((
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks", "_non_persistent_buffers_set", "_is_full_backward_hook",
    "_compiled_call_impl", "_optimizer_state_dict_pre_hooks", "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks", "_optimizer_load_state_dict_post_hooks", "defaults"))
_NEVER = frozenset((  # of a class: what no step calls, or is no state
    "__init__", "__new__", "__post_init__", "__repr__", "__str__", "__del__", "__reduce__",
    "__reduce_ex__", "__getstate__", "__setstate__", "__copy__", "__deepcopy__", "__set_name__",
    "__init_subclass__", "__dict__", "__weakref__", "__doc__", "__module__", "__slots__",
    "__annotations__", "__parameters__", "__orig_bases__", "__qualname__", "__match_args__",
    "__dataclass_params__", "__dataclass_fields__", "__abstractmethods__", "_abc_impl",
    "extra_repr"))
_ALWAYS = frozenset((
    "training", "_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks",
    "_backward_hooks", "_backward_pre_hooks", "forward", "step", "state", "param_groups"))


class Reach:
    """One walk.

    Attributes:
        places: what may be read, with the values of the moment.
        objects: (path, object) of everything visited.
        tensors: the tensors among them.
        classes: the user's classes among the types of the objects.
        unrepeatable: (path, what using it is) of objects that a replay would not use.
        watched: (path, object, its plain attributes) of objects of other packages.
        spaces: (path, dict of an object's attributes or a function's globals, names in it).
    """

    def __init__(self, *roots: tuple[str, Any]):
        self.places: list[Place] = []
        self.objects: list[tuple[str, Any]] = []
        self.tensors: list[Any] = []
        self.classes: set[type] = set()
        self.unrepeatable: list[tuple[str, str]] = []
        self.watched: list[tuple[str, Any, dict]] = []
        self.spaces: dict[int, tuple[str, dict, frozenset]] = {}
        self._names: set[str] = set(_ALWAYS)
        self._waiting: dict[str, list[tuple[str, Any, Any]]] = {}
        self._any_name = False
        self._seen: dict[int, Any] = {}
        self._stack: list[tuple[str, Any]] = list(reversed(roots))
        while self._stack and len(self._seen) < _MOST:
            path, item = self._stack.pop()
            if not self._atomic(item) and id(item) not in self._seen:
                self._seen[id(item)] = item
                self._visit(path, item)

    def added(self) -> Iterator[tuple[str, dict, str]]:
        """(path, dict, name) of attributes and globals that were not there when the walk passed."""
        for path, space, names in self.spaces.values():
            if len(space) != len(names):
                for name in [name for name in space if name not in names]:
                    yield f"{path}.{name}" if path else name, space, name

    @contextlib.contextmanager
    def undisturbed(self, what: str) -> Iterator[None]:
        """Put Python state back that code within changes.

        Raises:
            CaptureError: there was some; `what` did it.
        """
        before = [place.now() for place in self.places]
        try:
            yield
        finally:
            changed = [(place, old) for place, old in zip(self.places, before, strict=True)
                       if not unchanged(place.now(), old)]
            for place, old in changed:
                place.put_back(old)
        if changed:
            raise refuse(f"{what} ({changed[0][0].path})",
                         "Call backward() inside of the compiled function.")

    def used(self) -> Iterator[str]:
        """Paths of objects of other packages that are not what they were."""
        for path, item, before in self.watched:
            if _plain_attributes(item) != before:
                yield path

    @staticmethod
    def _atomic(item: Any) -> bool:
        return isinstance(item, (*PLAIN, *_ATOMS))

    def _visit(self, path: str, item: Any) -> None:
        self.objects.append((path, item))
        what = unrepeatable(item, self._names)
        if what is not None:
            self.unrepeatable.append((path, what))
            return
        if isinstance(item, TensorBase):
            self.tensors.append(item)
            if item._hooks is not None:
                self._container(f"the hooks of {path}", item._hooks)
                self._container(f"the hooks of {path}", item._hooks.post)
        elif isinstance(item, types.FunctionType):
            self._function(path, item)
        elif isinstance(item, types.MethodType):
            self._stack += [(path, item.__func__), (path.rpartition(".")[0] or "self",
                                                    item.__self__)]
        elif isinstance(item, functools.partial):
            self._stack += [(path, item.func), (f"{path}.args", item.args),
                            (f"{path}.keywords", item.keywords)]
        elif isinstance(item, types.ModuleType):
            self._module(path, item)
        elif isinstance(item, type):
            self._class(path, item)
        else:
            self._instance(path, item)

    # ------------------------------------------------------------------ code
    def _learn(self, names: frozenset[str]) -> None:
        """Code that names these may run: what waited for them is followed."""
        if not self._any_name and names & _ANY_NAME:
            self._any_name = True
            waiting, self._waiting = self._waiting, {}
            for places in waiting.values():
                for place in places:
                    self._note("item", *place)
        for name in names - self._names:
            self._names.add(name)
            for place in self._waiting.pop(name, ()):
                self._note("item", *place)

    def _function(self, path: str, item: types.FunctionType) -> None:
        if getattr(item, "constant_result", False):  # torch.compiler.assume_constant_result
            return
        wrapped = getattr(item, "__wrapped__", None)
        generated = item.__code__.co_filename.startswith("<flambeau")
        origin = "ours" if generated else origin_of(item.__globals__.get("__name__"))
        if origin != "user" and wrapped is None:
            return
        code = item.__code__
        for name, cell in zip(code.co_freevars, item.__closure__ or (), strict=False):
            try:
                self._note("cell", name, cell, None, cell.cell_contents)
            except ValueError:  # not assigned yet
                continue
        if origin != "user":  # a decorator of ours around the user's function
            return
        self._learn(_names_in(code))
        self._space("", item.__globals__)
        for name in _names_in(code):
            if name in item.__globals__:
                self._note("item", name, item.__globals__, name)
        self._note("attribute", f"{path or item.__name__}.__defaults__", item, "__defaults__")
        self._note("attribute", f"{path or item.__name__}.__kwdefaults__", item, "__kwdefaults__")

    def _module(self, path: str, item: types.ModuleType) -> None:
        if item is os and "environ" in self._names:
            self._instance("os.environ", os.environ)
        if origin_of(item.__name__) == "user":
            self._attributes(path, vars(item), {})

    def _class(self, path: str, item: type) -> None:
        for base in item.__mro__:
            origin = origin_of(base.__module__)
            if origin == "foreign" or base.__name__ in ("Module", "ModuleState", "ModuleHooks"):
                continue
            if origin == "user":
                self._attributes(base.__name__, vars(base), _NEVER)
                self._learn(frozenset(name for name in vars(base) if name.startswith("__"))
                            - _ANY_NAME)
                continue
            for name, value in vars(base).items():
                if isinstance(value, types.FunctionType) and name not in _NEVER:
                    self._learn(_names_in(value.__code__) - _ANY_NAME)

    # ------------------------------------------------------------------ objects
    def _note(self, kind: str, path: str, owner: Any, key: Any, value: Any = _ABSENT) -> None:
        """A place and what is there."""
        if value is _ABSENT:
            value = getattr(owner, key) if kind == "attribute" else owner[key]
        self.places.append(Place(kind, owner, key, path, value))
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, (property, functools.cached_property)):
            value = value.fget if isinstance(value, property) else value.func
        if not self._atomic(value):
            self._stack.append((path, value))

    def _space(self, path: str, space: dict) -> None:
        if id(space) not in self.spaces:
            self.spaces[id(space)] = path, space, frozenset(space)

    def _attributes(self, path: str, space: Any, skipped: Any) -> None:
        """The named values of an object, a class or a module."""
        for name in list(space):
            if name in skipped:
                continue
            place = (f"{path}.{name}" if path else name, space, name)
            if self._any_name or name in self._names:
                self._note("item", *place)
            else:
                self._waiting.setdefault(name, []).append(place)

    def _instance(self, path: str, item: Any) -> None:
        kind = type(item)
        if isinstance(item, (list, dict, tuple)):
            self._container(path, item)
            if kind in (list, dict, tuple, collections.OrderedDict, collections.defaultdict):
                return
        elif isinstance(item, (np.ndarray, os._Environ, *_VALUES)):
            self.places.append(Place("content", item, None, path, snapshot(item)))
            return
        if kind.__name__ in ("Compiled", "Disabled") and kind.__module__.startswith("flambeau."):
            self._stack.append((path, item.function))
            return
        origin = origin_of(kind.__module__)
        if origin == "foreign" and hasattr(item, "__dict__"):
            self.watched.append((path, item, _plain_attributes(item)))
        if origin == "foreign" or origin == "ours" and (
                kind.__module__.split(".")[1] not in _STATEFUL):
            return
        if kind not in self.classes:
            self.classes.add(kind)
            self._class(kind.__name__, kind)
        if hasattr(item, "__dict__"):
            self._space(path, vars(item))
            if origin == "ours":  # our own modules and optimizers read what they hold
                for name in vars(item):
                    if name not in _SKIPPED:
                        self._note("item", f"{path}.{name}" if path else name, vars(item), name)
            else:
                self._attributes(path, vars(item), _SKIPPED)
        for name in _slots(kind):
            if hasattr(item, name):
                self._note("attribute", f"{path}.{name}", item, name)

    def _container(self, path: str, item: Any) -> None:
        if not isinstance(item, tuple):
            self.places.append(Place("size", item, None, f"len({path})", len(item)))
        if len(item) > _LIMIT:
            values = item.values() if isinstance(item, dict) else item
            if all(type(value) in PLAIN for value in values):
                self.places.append(Place("content", item, None, path, snapshot(item)))
            return
        if isinstance(item, dict):
            for key, value in list(item.items()):
                if not self._atomic(key):
                    self._stack.append((f"a key of {path}", key))
                shown = repr(key) if isinstance(key, PLAIN) else type(key).__name__
                self._note("item", f"{path}[{shown}]", item, key, value)
        elif isinstance(item, tuple):
            self._stack += [(f"{path}[{i}]", x) for i, x in enumerate(item)]
        else:
            for i, value in enumerate(item):
                self._note("item", f"{path}[{i}]", item, i, value)


def _plain_attributes(item: Any) -> dict:
    return {name: value for name, value in vars(item).items() if type(value) in PLAIN}


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__"):
                yield name
