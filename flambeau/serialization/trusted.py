"""What `load(weights_only=False)` may name besides the allow-list: classes that are there already.

The program has imported them, so nothing of the file decides which code exists. Instances are made
without calling `__init__`, and get their attributes as data: still no code runs, neither the
file's nor the class's own. Functions come as values, from the op table alone, and are not called.
"""

from __future__ import annotations

import enum
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

from flambeau.serialization.errors import UnsafeError
from flambeau.serialization.globals import build_object
from flambeau.serialization.homes import our_name
from flambeau.serialization.pickle_reader import Rule
from flambeau.serialization.tensors import TensorAdapter

__all__ = ["trusted_rule"]

# Rooms of this package whose classes are state and nothing else; they may be imported for a file.
_ROOMS = ("flambeau.nn.", "flambeau.optim.", "flambeau.distributions.", "flambeau.utils.data.",
          "flambeau.amp.", "flambeau.cuda.amp.", "flambeau.autograd.handles.")
_FUNCTIONS = "torch._C._VariableFunctionsClass"  # whose attributes PyTorch's own functions are


def trusted_rule(name: str, tensors: TensorAdapter) -> Rule | None:
    """The rule of a class or function that the program has imported; None if it has none such."""
    if name == _FUNCTIONS:
        return Rule(_FUNCTIONS)
    if name == "builtins.getattr":
        return Rule(_operation, call=_operation)
    ours = our_name(name)
    if ours.startswith("flambeau."):
        return _own_rule(ours, tensors)
    found = _imported(ours)
    if ours.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return None
    return _class_rule(found, tensors) if isinstance(found, type) else None


def _operation(owner: Any, name: Any) -> Any:
    """getattr(torch._C._VariableFunctionsClass, "relu"): how PyTorch pickles torch.relu."""
    rule = _function_rule(f"flambeau.{name}") if owner == _FUNCTIONS and type(name) is str else None
    if rule is None:
        raise UnsafeError(f"the file asks for attribute {name!r} of {owner!r}, which is not "
                          "allowed")
    return rule.value


def _imported(name: str) -> Any:
    """What a dotted name stands for in the modules that are imported; None if nothing does."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        found = sys.modules.get(".".join(parts[:cut]))
        if isinstance(found, types.ModuleType):
            for part in parts[cut:]:
                found = vars(found).get(part) if hasattr(found, "__dict__") else None
            return found
    return None


def _own_rule(name: str, tensors: TensorAdapter) -> Rule | None:
    if not name.startswith(_ROOMS):
        return _function_rule(name)
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    if not isinstance(found, type):
        return _function_rule(name)
    at_home = f"{found.__module__}.".startswith(_ROOMS)  # not merely imported there
    return _class_rule(found, tensors) if at_home else None


def _function_rule(name: str) -> Rule | None:
    """A function of torch.nn.functional or an operation: as a value only."""
    module, _, attribute = name.rpartition(".")
    if module not in ("flambeau", "flambeau.nn.functional") or attribute.startswith("_"):
        return None
    found = getattr(importlib.import_module("flambeau.nn.functional"), attribute, None)
    operations = importlib.import_module("flambeau.tensor.functions").ops
    if found is None and hasattr(operations, attribute):
        found = getattr(importlib.import_module("flambeau"), attribute, None)
    return Rule(found) if isinstance(found, types.FunctionType) else None


# -- classes --------------------------------------------------------------------------------------

def _class_rule(cls: type, tensors: TensorAdapter) -> Rule | None:
    if issubclass(cls, tensors.tensor_type):  # made by what rebuilds tensors alone
        return Rule(cls)
    if hasattr(cls, "__del__") or issubclass(cls, type):
        return None
    if issubclass(cls, enum.Enum):
        member = _member_of(cls)
        return Rule(cls, call=member)
    if issubclass(cls, tuple):
        make = _named_tuple(cls) if hasattr(cls, "_fields") else None
        return make and Rule(cls, call=make, new=make)
    base = dict if issubclass(cls, dict) else object
    if cls.__new__ is not base.__new__:
        return None
    build = _attribute_setter(cls)
    return build and Rule(cls, new=_instance_maker(cls, base), build=build)


def _member_of(cls: type[enum.Enum]) -> Callable[[Any], Any]:
    def find_member(value: Any) -> Any:
        for member in cls:
            if type(member.value) is type(value) and member.value == value:
                return member
        raise UnsafeError(f"{cls.__qualname__} has no member of value {value!r}")
    return find_member


def _named_tuple(cls: type) -> Callable[..., Any]:
    def make_named_tuple(*values: Any) -> Any:
        if len(values) != len(cls._fields):
            raise UnsafeError(f"{cls.__qualname__} has {len(cls._fields)} fields, not "
                              f"{len(values)}")
        return tuple.__new__(cls, values)
    return make_named_tuple


def _instance_maker(cls: type, base: type) -> Callable[[], Any]:
    def make_instance() -> Any:
        return base.__new__(cls)
    return make_instance


def _attribute_setter(cls: type) -> Callable[[Any, Any], None] | None:
    """What gives instances their state: ours by their own way, others by setting attributes."""
    own_way = getattr(cls, "__setstate__", None)
    if own_way is None:
        return _set_attributes
    return build_object if own_way.__module__.startswith("flambeau.") else None


def _set_attributes(instance: Any, state: Any) -> None:
    """Give an instance its attributes without running code of its class."""
    plain, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
    for values in (plain or {}, slots or {}):
        if type(values) is not dict or not all(type(name) is str for name in values):
            raise UnsafeError(f"the state of a {type(instance).__name__} is no dict of names")
    if plain:
        object.__getattribute__(instance, "__dict__").update(plain)
    for name, value in (slots or {}).items():
        slot = getattr(type(instance), name, None)
        if not isinstance(slot, types.MemberDescriptorType):
            raise UnsafeError(f"{type(instance).__name__} has no slot called {name!r}")
        slot.__set__(instance, value)
