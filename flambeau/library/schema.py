"""Schemas: what an operator takes, returns and writes to, as text and as an object."""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from flambeau.core import dtypes
from flambeau.core.device import Device
from flambeau.core.dtypes import DType
from flambeau.tensor import Tensor

__all__ = ["Argument", "FunctionSchema", "infer_schema", "parse_schema"]


@dataclasses.dataclass(frozen=True)
class Argument:
    """One parameter: `type` as schemas write it ("Tensor?", "SymInt[]"), without its alias."""

    name: str
    type: str
    default: Any = inspect.Parameter.empty
    kwarg_only: bool = False
    mutates: bool = False
    alias: str = ""

    def has_default_value(self) -> bool:
        return self.default is not inspect.Parameter.empty

    @property
    def default_value(self) -> Any:
        return self.default if self.has_default_value() else None

    @property
    def is_write(self) -> bool:
        return self.mutates

    def __str__(self) -> str:
        kind = self.type.replace("Tensor", f"Tensor({self.alias})", 1) if self.alias else self.type
        text = f"{kind} {self.name}"
        if self.has_default_value():
            shown = f'"{self.default}"' if isinstance(self.default, str) else str(self.default)
            if isinstance(self.default, DType):
                shown = shown.rsplit(".", 1)[-1]
            text += f"={shown}"
        return text


@dataclasses.dataclass(frozen=True)
class FunctionSchema:
    """The schema of an operator: `name(arguments) -> returns`."""

    name: str
    arguments: tuple[Argument, ...]
    returns: tuple[str, ...]
    overload_name: str = ""

    def __str__(self) -> str:
        parts: list[str] = []
        for argument in self.arguments:
            if argument.kwarg_only and "*" not in parts:
                parts.append("*")
            parts.append(str(argument))
        many = len(self.returns) != 1
        returns = f"({', '.join(self.returns)})" if many else self.returns[0]
        overload = f".{self.overload_name}" if self.overload_name else ""
        return f"{self.name}{overload}({', '.join(parts)}) -> {returns}"

    @property
    def full_name(self) -> str:
        """The name with that of the overload: "namespace::name.overload"."""
        return f"{self.name}.{self.overload_name}" if self.overload_name else self.name

    @property
    def is_mutable(self) -> bool:
        return any(argument.mutates for argument in self.arguments)

    def bind(self, args: tuple, kwargs: dict) -> list:
        """The values of all arguments, defaults filled in, each checked against its type.

        Raises:
            RuntimeError: too many, unknown or missing arguments, or one of another type.
        """
        places = [a for a in self.arguments if not a.kwarg_only]
        if len(args) > len(places):
            raise RuntimeError(f"{self.name}() expected at most {len(places)} argument(s) but "
                               f"received {len(args)} argument(s). Declaration: {self}")
        given = dict(zip((a.name for a in places), args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise RuntimeError(f"{self.name}() got multiple values for argument {name!r}. "
                                   f"Declaration: {self}")
            given[name] = value
        values = []
        for position, argument in enumerate(self.arguments):
            if argument.name in given:
                value = given.pop(argument.name)
                if not _fits(argument.type, value):
                    raise RuntimeError(
                        f"{self.name}() Expected a value of type '{argument.type}' for argument "
                        f"'{argument.name}' but instead found type '{type(value).__name__}'.\n"
                        f"Position: {position}\nValue: {value!r}\nDeclaration: {self}")
                value = _converted(argument.type, value)
            elif argument.has_default_value():
                value = argument.default
            else:
                raise RuntimeError(f"{self.name}() is missing value for argument "
                                   f"'{argument.name}'. Declaration: {self}")
            values.append(value)
        if given:
            raise RuntimeError(f"Unknown keyword argument '{next(iter(given))}' for operator "
                               f"'{self.name}'. Declaration: {self}")
        return values


def _is_int(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, (bool, Tensor))


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "Tensor": lambda v: isinstance(v, Tensor) or hasattr(type(v), "__torch_function__"),
    "SymInt": _is_int, "int": _is_int,
    "float": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "bool": lambda v: isinstance(v, (bool, int)),
    "str": lambda v: isinstance(v, str),
    "Scalar": lambda v: isinstance(v, (bool, int, float, complex)),
    "ScalarType": lambda v: isinstance(v, DType),
    "Device": lambda v: isinstance(v, (Device, str)),
}


def _converted(kind: str, value: Any) -> Any:
    """An argument as kernels get it: numbers of the type that the schema says, lists for tuples."""
    if value is None:
        return value
    kind = kind.removesuffix("?")
    if kind == "float":
        return float(value)
    if kind == "bool":
        return bool(value)
    if kind == "Device":
        return Device(value)
    if kind.endswith("]"):
        inner = kind[:kind.rindex("[")]
        return [_converted(inner, one) for one in value]
    return value


def _fits(kind: str, value: Any) -> bool:
    if kind.endswith("?"):
        return value is None or _fits(kind[:-1], value)
    listed = re.fullmatch(r"(.*)\[\d*\]", kind)
    if listed:
        return isinstance(value, (list, tuple)) and all(_fits(listed[1], v) for v in value)
    check = _CHECKS.get(kind)
    return check is None or check(value)


# -- from annotations -----------------------------------------------------------------------------
_NAMES = {Tensor: "Tensor", int: "SymInt", float: "float", bool: "bool", str: "str",
          DType: "ScalarType", Device: "Device"}
_NUMBER = frozenset({int, float, bool})


def _type_name(annotation: Any) -> str | None:
    """An annotation as schemas write it; None if they cannot."""
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        rest = [one for one in inner if one is not type(None)]
        optional = "?" if len(rest) < len(inner) else ""
        if frozenset(rest) == _NUMBER:
            return "Scalar" + optional
        name = _type_name(rest[0]) if len(rest) == 1 else None
        return None if name is None else name + optional
    if origin in (list, collections.abc.Sequence) and len(inner) == 1:
        name = _type_name(inner[0])
        return None if name is None else name + "[]"
    return None


def infer_schema(prototype_function: Callable, /, *, mutates_args: str | Iterable[str],
                 op_name: str | None = None, tags: Any = ()) -> str:
    """The schema of a function, from its annotations.

    Args:
        mutates_args: the names of the arguments that it writes to, or "unknown" for all tensors.
        op_name: what the schema begins with.

    Raises:
        ValueError: an argument without an annotation, or of a type that schemas do not have.
    """
    signature = inspect.signature(prototype_function)
    try:
        hints = typing.get_type_hints(prototype_function)
    except NameError as error:
        raise ValueError(f"infer_schema(func): an annotation cannot be resolved: {error}"
                         ) from error
    named = set() if mutates_args == "unknown" else set(mutates_args)
    unknown = named - set(signature.parameters)
    if unknown:
        raise ValueError(f"infer_schema(func): mutates_args holds {sorted(unknown)}, which are no "
                         f"parameters of func{signature}")
    arguments = []
    for position, parameter in enumerate(signature.parameters.values()):
        arguments.append(_argument(position, parameter, hints, signature,
                                   named if mutates_args != "unknown" else None))
    returns = _returns(hints.get("return", inspect.Parameter.empty), signature)
    text = str(FunctionSchema("", tuple(arguments), returns))
    return (op_name or "") + text


def _argument(position: int, parameter: Any, hints: dict, signature: Any,
              mutated: set | None) -> Argument:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD,
                          parameter.POSITIONAL_ONLY):
        raise ValueError(f"infer_schema(func): positional-only and variadic parameters are not "
                         f"supported, such as {name}. Got func with signature {signature}")
    if parameter.annotation is parameter.empty:
        raise ValueError(f"infer_schema(func): Parameter {name} must have a type annotation. Got "
                         f"func with signature {signature}")
    kind = _type_name(hints[name])
    if kind is None and typing.get_origin(hints[name]) is tuple:
        raise ValueError(f"infer_schema(func): Parameter {name} has unsupported type "
                         f"{hints[name]}: arguments are no tuples, annotate it as a list. Got "
                         f"func with signature {signature}")
    if kind is None:
        raise ValueError(f"infer_schema(func): Parameter {name} has unsupported type "
                         f"{hints[name]}. The valid types are Tensor, int, float, bool, str, "
                         "torch.dtype, torch.device, number, and Optional and Sequence of them. "
                         f"Got func with signature {signature}")
    tensor = kind.startswith("Tensor")
    mutates = tensor if mutated is None else name in mutated
    if mutates and not tensor:
        raise ValueError(f"infer_schema(func): Parameter {name} is in mutates_args but only "
                         f"Tensors or collections of Tensors can be mutated, not {kind}")
    default = parameter.default
    if not isinstance(default, (int, float, bool, str, type(None), DType)) and (
            default is not parameter.empty):
        raise ValueError(f"infer_schema(func): Parameter {name} has an unsupported default value "
                         f"type {type(default)}. Got func with signature {signature}")
    return Argument(name, kind, default, parameter.kind is parameter.KEYWORD_ONLY, mutates,
                    f"a{position}!" if mutates else "")


def _returns(annotation: Any, signature: Any) -> tuple[str, ...]:
    if annotation is inspect.Parameter.empty:
        raise ValueError("infer_schema(func): the function must have a return annotation "
                         f"(None if it returns nothing). Got func with signature {signature}")
    if annotation is None or annotation is type(None):
        return ()
    inner = (typing.get_args(annotation) if typing.get_origin(annotation) is tuple
             else (annotation,))
    names = [_type_name(one) for one in inner]
    for one, name in zip(inner, names, strict=True):
        if name not in ("Tensor", "Tensor[]", "SymInt", "float", "bool", "Scalar"):
            raise ValueError(f"infer_schema(func): Return has unsupported type {one}. It may be "
                             f"Tensors and numbers. Got func with signature {signature}")
    return tuple(name for name in names if name is not None)


# -- from text ------------------------------------------------------------------------------------
_PARAMETER = re.compile(r"([\w.]+)(?:\(([^)]*)\))?((?:\[\d*\]|\?)*)\s+(\w+)(?:\s*=\s*(.*))?$")


_KINDS = {"Tensor", "int", "SymInt", "float", "SymFloat", "bool", "SymBool", "str", "Scalar",
          "ScalarType", "Device", "Layout", "MemoryFormat", "Generator", "Dimname", "Storage",
          "Stream", "complex", "Any"}


def parse_schema(text: str) -> FunctionSchema:
    """The schema that a text such as "f(Tensor x, int k=2) -> Tensor" describes.

    Raises:
        RuntimeError: it is not such a text.

    >>> schema = torch.parse_schema("f(Tensor x, *, int k=2) -> Tensor")
    >>> schema.name, [argument.name for argument in schema.arguments]
    ('f', ['x', 'k'])
    """
    whole = re.fullmatch(r"\s*([\w:]+)(?:\.(\w+))?\s*\((.*)\)\s*->\s*(.*?)\s*", text, re.S)
    if whole is None:
        raise RuntimeError(f"not a schema: {text!r}; expected something like "
                           "'name(Tensor x, int k=2) -> Tensor'")
    name, overload, inner, result = whole.groups()
    arguments, named = [], False
    for part in _split(inner):
        if part == "*":
            named = True
            continue
        match = _PARAMETER.fullmatch(part)
        if match is None:
            raise RuntimeError(f"cannot parse the argument {part!r} of the schema {text!r}")
        kind, alias, suffix, parameter, default = match.groups()
        if kind not in _KINDS and "." not in kind:
            raise RuntimeError(f"unknown type specifier {kind!r} in the schema {text!r}; there are "
                               f"{', '.join(sorted(_KINDS))}")
        value = inspect.Parameter.empty if default is None else _literal(default, kind)
        arguments.append(Argument(parameter, kind + suffix, value, named,
                                  bool(alias) and "!" in alias, alias or ""))
    listed = result.startswith("(") and result.endswith(")")
    returns = tuple(re.sub(r"\(.*?\)", "", part).split()[0] for part in
                    _split(result[1:-1] if listed else result))
    return FunctionSchema(name, tuple(arguments), returns, overload or "")


def _split(text: str) -> list[str]:
    """The parts of a list at its own commas, not those within brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text + ","):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append(text[start:place].strip())
            start = place + 1
    return [part for part in parts if part]


def _literal(text: str, kind: str) -> Any:
    if kind.startswith("ScalarType") and text != "None":
        return dtypes.by_name(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
