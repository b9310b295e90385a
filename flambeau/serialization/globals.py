"""The allow-list: what a name in a checkpoint may stand for.

Three layers, in this order: names that are never allowed, the rules below, and what the user added
with `add_safe_globals`. Rules never hand out a function of the library that the name belongs to;
each is a small one of our own that checks its arguments.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import re
import types
from collections.abc import Callable, Iterable
from typing import Any

from flambeau.core.dtypes import EVERY, DType, by_name
from flambeau.core.qschemes import SCHEMES
from flambeau.serialization.errors import UnsafeError
from flambeau.serialization.numpy_values import numpy_builders, numpy_rules
from flambeau.serialization.pickle_reader import Rule
from flambeau.serialization.tensors import TensorAdapter

__all__ = ["StorageKind", "add_safe_globals", "clear_safe_globals",
           "get_safe_globals", "is_blocked", "plain_builders", "plain_rules", "safe_globals",
           "storage_kind_of", "user_rule"]

# Whatever the user allows, nothing from these: they reach the machine, not data.
_BLOCKED_MODULES = frozenset({"sys", "os", "posix", "nt", "subprocess", "runpy", "importlib", "pty",
                              "ctypes", "shutil", "socket", "marshal", "code", "pickle"})
_BLOCKED_NAMES = frozenset(f"builtins.{name}" for name in (
    "eval", "exec", "compile", "open", "getattr", "setattr", "delattr", "vars", "globals", "input",
    "__import__", "breakpoint"))

_allowed: dict[int, Any] = {}  # by id: entries need not be hashable


def add_safe_globals(safe_globals: Iterable[Any]) -> None:
    """Let checkpoints build these classes and call these functions from now on.

    Args:
        safe_globals: classes or functions; or pairs of one and the dotted name under which
            checkpoints know it. An instance is made with `__new__`, then `__setstate__` or its
            `__dict__` is given the state: allow only classes for which any state is harmless.
    """
    for entry in safe_globals:
        _names_of(entry)
        if not any(entry == present for present in _allowed.values()):
            _allowed[id(entry)] = entry


def get_safe_globals() -> list[Any]:
    """What `add_safe_globals` added."""
    return list(_allowed.values())


def clear_safe_globals() -> None:
    """Allow only the built-in list again."""
    _allowed.clear()


class safe_globals:
    """`with safe_globals([MyClass]):` allows them inside the block only."""

    def __init__(self, safe_globals: Iterable[Any]):
        self.safe_globals = list(safe_globals)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        self._before = dict(_allowed)
        add_safe_globals(self.safe_globals)

    def __exit__(self, *_: object) -> None:
        _allowed.clear()
        _allowed.update(self._before)


def _names_of(entry: Any) -> tuple[Any, list[str]]:
    """The object and the names that stand for it. Our modules are also known by PyTorch's names."""
    if isinstance(entry, tuple):
        if len(entry) != 2 or not isinstance(entry[1], str):
            raise TypeError("add_safe_globals() takes classes, functions, and pairs (class or "
                            f"function, 'dotted.name'), but got {entry!r}")
        return entry[0], [entry[1]]
    module = getattr(entry, "__module__", None)
    name = getattr(entry, "__qualname__", None)
    if not module or not name:
        raise TypeError(f"add_safe_globals(): {entry!r} has no name that a checkpoint could use; "
                        "pass (object, 'dotted.name')")
    names = [f"{module}.{name}"]
    if module == "flambeau" or module.startswith("flambeau."):
        names.append(f"torch{module.removeprefix('flambeau')}.{name}")
    return entry, names


def is_blocked(name: str) -> bool:
    """Whether `name` may not be allowed even by the user."""
    return name.partition(".")[0] in _BLOCKED_MODULES or name in _BLOCKED_NAMES


def user_rule(name: str) -> Rule | None:
    """The rule of what the user allowed under `name`."""
    for entry in _allowed.values():
        value, names = _names_of(entry)
        if name in names:
            return _rule_for(value)
    return None


def _rule_for(value: Any) -> Rule:
    if not isinstance(value, type):
        return Rule(value, call=value, costs=False)

    def new_instance(*arguments: Any, **keywords: Any) -> Any:
        return value.__new__(value, *arguments, **keywords)

    return Rule(value, call=value, new=new_instance, build=build_object, costs=False)


def build_object(instance: Any, state: Any) -> None:
    """Give an allowed instance its state, as pickle would."""
    set_state = getattr(instance, "__setstate__", None)
    if set_state is not None:
        set_state(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        instance.__dict__.update(state)
    for name, value in (slots or {}).items():
        setattr(instance, name, value)


# -- values that stand for what other modules interpret -------------------------------------------

class StorageKind:
    """A typed storage class of PyTorch, `torch.FloatStorage`."""

    def __init__(self, name: str, dtype: DType):
        self.name, self.dtype = name, dtype

    def __repr__(self) -> str:
        return f"torch.{self.name}"


_STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8", "QInt32Storage": "qint32", "QUInt8Storage": "quint8",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}
_DTYPE_ALIASES = {"bool": "bool", "float": "float32", "double": "float64", "half": "float16",
                  "long": "int64", "int": "int32", "short": "int16", "cfloat": "complex64",
                  "cdouble": "complex128"}


def storage_kind_of(dtype: DType) -> str | None:
    """The name of the typed storage class of `dtype`; None for the newer dtypes without one."""
    for name, dtype_name in _STORAGE_DTYPES.items():
        if dtype_name == dtype.name:
            return name
    return None


# -- restricted constructors ----------------------------------------------------------------------

def _encode(text: str, encoding: str) -> bytes:
    """`bytes` as protocol 2 writes them."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafeError(f"bytes are encoded as {encoding!r}; only latin1 is allowed")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: str = "latin-1") -> bytearray:
    if isinstance(data, str):
        return bytearray(_encode(data, encoding))
    if not isinstance(data, bytes | bytearray | list):
        raise UnsafeError("a bytearray is made from a length; only bytes are allowed")
    return bytearray(data)


def _empty_bytes() -> bytes:
    """How protocol 2 writes b""; longer ones are encoded strings."""
    return b""


def _set(items: Any = ()) -> set:
    return set(_listed(items, "set"))


def _frozenset(items: Any = ()) -> frozenset:
    return frozenset(_listed(items, "frozenset"))


def _listed(items: Any, what: str) -> list | tuple:
    if type(items) not in (list, tuple):
        raise UnsafeError(f"a {what} is made from a {type(items).__name__}; only lists are allowed")
    return items


def _ordered_dict(pairs: Any = ()) -> collections.OrderedDict:
    """Empty as a rule; Python 2 passed a list of pairs."""
    made = collections.OrderedDict()
    for key, value in _listed(pairs, "list of pairs"):
        if isinstance(key, tuple):
            raise UnsafeError("an OrderedDict written by Python 2 has tuples as keys")
        made[key] = value
    return made


def _set_plain_attributes(instance: Any, state: Any) -> None:
    """Set attributes (a state dict's `_metadata`, say), which may not hide methods."""
    if type(state) is tuple and len(state) == 2 and not state[1]:
        state = state[0] or {}
    if type(state) is not dict or not all(type(name) is str for name in state):
        raise UnsafeError(f"the state of a {type(instance).__name__} is no dict of names")
    for name in state:
        if hasattr(type(instance), name):
            raise UnsafeError(f"the state of a {type(instance).__name__} would hide its "
                              f"{name!r}")
    instance.__dict__.update(state)


def _counter(items: Any = ()) -> collections.Counter:
    if type(items) not in (dict, tuple):
        raise UnsafeError("a Counter is made from something other than a dict")
    return collections.Counter(dict(items))


_FACTORIES = (list, dict, int, float, str, set, tuple, bool, collections.OrderedDict)


def _defaultdict(factory: Any = None, items: Any = ()) -> collections.defaultdict:
    if not (factory is None or any(factory is known for known in _FACTORIES)):
        raise UnsafeError("a defaultdict has a factory other than a built-in type")
    return collections.defaultdict(factory, dict(items))


def _deque(items: Any = (), maxlen: int | None = None) -> collections.deque:
    return collections.deque(_listed(items, "deque"), maxlen)


def _complex(real: float, imag: float) -> complex:
    return complex(float(real), float(imag))


def _path(*parts: str) -> pathlib.Path:
    if not all(type(part) is str for part in parts):
        raise UnsafeError("a path is made from something other than strings")
    return pathlib.Path(*parts)


def _slice(*bounds: Any) -> slice:
    return slice(*bounds)


def _range(*bounds: int) -> range:
    return range(*bounds)


def _instance_maker(cls: type) -> Callable[..., Any]:
    def make_instance() -> Any:
        return cls()
    return make_instance


# -- the table ------------------------------------------------------------------------------------

_TIME_TYPES = (datetime.date, datetime.time, datetime.datetime, datetime.timedelta,
               datetime.timezone)


def _standard_rules() -> dict[str, Rule]:
    ordered = Rule(collections.OrderedDict, call=_ordered_dict, new=_ordered_dict)
    rules = {
        "collections.OrderedDict": ordered,
        "collections.Counter": Rule(collections.Counter, call=_counter),
        "collections.defaultdict": Rule(collections.defaultdict, call=_defaultdict),
        "collections.deque": Rule(collections.deque, call=_deque),
        "_codecs.encode": Rule(_encode, call=_encode),
        "builtins.bytearray": Rule(bytearray, call=_bytearray),
        "builtins.set": Rule(set, call=_set),
        "builtins.frozenset": Rule(frozenset, call=_frozenset),
        "builtins.complex": Rule(complex, call=_complex),
        "builtins.slice": Rule(slice, call=_slice),
        "builtins.range": Rule(range, call=_range),
        "builtins.Ellipsis": Rule(...),
        "builtins.xrange": Rule(range, call=_range),  # what protocol 2 calls it
    }
    rules["builtins.bytes"] = Rule(bytes, call=_empty_bytes)
    for cls in (list, dict, int, float, str, tuple, bool):
        rules[f"builtins.{cls.__name__}"] = Rule(cls)
    for cls in (argparse.Namespace, types.SimpleNamespace):
        make = _instance_maker(cls)
        rules[f"{cls.__module__}.{cls.__name__}"] = Rule(
            cls, call=make, new=make, build=_set_plain_attributes)
    for name in ("Path", "PosixPath", "WindowsPath"):
        rules[f"pathlib.{name}"] = rules[f"pathlib._local.{name}"] = Rule(pathlib.Path, call=_path)
    for cls in _TIME_TYPES:
        rules[f"datetime.{cls.__name__}"] = Rule(cls, call=cls)
    return rules


def _dtype_rules() -> dict[str, Rule]:
    rules = {f"torch.{dtype.name}": Rule(dtype) for dtype in EVERY}
    for alias, name in _DTYPE_ALIASES.items():
        rules.setdefault(f"torch.{alias}", Rule(by_name(name)))
    rules |= {f"torch.{name}": Rule(scheme) for name, scheme in SCHEMES.items()}
    kinds = {name: StorageKind(name, by_name(dtype)) for name, dtype in _STORAGE_DTYPES.items()}
    for name, kind in kinds.items():
        rules[f"torch.{name}"] = rules[f"torch.cuda.{name}"] = Rule(kind)
    untyped = Rule(StorageKind("UntypedStorage", by_name("uint8")))
    for module in ("torch", "torch.storage", "torch.cuda"):
        rules[f"{module}.UntypedStorage"] = untyped
    return rules


def _device_rules(tensors: TensorAdapter) -> dict[str, Rule]:
    def make_size(values: Any = ()) -> Any:
        if type(values) not in (tuple, list) or not all(type(v) is int for v in values):
            raise UnsafeError("a torch.Size is made from something other than integers")
        return tensors.make_size(values)

    def make_device(kind: str, index: int | None = None) -> Any:
        if type(kind) is not str or not (index is None or type(index) is int):
            raise UnsafeError("a torch.device is made from something other than a name and index")
        return tensors.make_device(kind, index)

    def make_layout(name: str) -> Any:
        if not re.fullmatch(r"torch\.(strided|jagged|sparse_\w{3})", name):
            raise UnsafeError(f"there is no layout called {name!r}")
        return tensors.constant(name.removeprefix("torch."))

    return {
        "torch.Size": Rule(make_size, call=make_size, new=make_size),
        "torch.device": Rule(make_device, call=make_device, new=make_device),
        "torch.serialization._get_layout": Rule(make_layout, call=make_layout),
    }


def plain_builders() -> dict[type, Callable[[Any, Any], None]]:
    """What gives instances their state, by exact type; for types that no name has to announce."""
    return {collections.OrderedDict: _set_plain_attributes, **numpy_builders()}


def plain_rules(tensors: TensorAdapter) -> dict[str, Rule]:
    """Everything that is allowed by default, except what rebuilds tensors (see rebuild.py)."""
    return {**_standard_rules(), **numpy_rules(), **_dtype_rules(), **_device_rules(tensors)}
