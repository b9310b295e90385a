"""Numbers that remember how they were computed.

While a function is captured, a Python number that differs from call to call is replaced by a
`Followed`. Arithmetic on it gives further ones, each with the expression that computes it. What
else Python does with it (a comparison, `int()`, printing) reads its value, and that is noted: the
program is valid only while that reading gives the same.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

__all__ = ["Followed", "Readings", "plain"]


class Readings:
    """What was followed during one run.

    Attributes:
        conditions: expression -> the value that Python has read of it.
        sources: id of the float handed to an operation -> its expression.
        kept: those floats, so that their ids stay their own.
    """

    def __init__(self) -> None:
        self.conditions: dict[str, Any] = {}
        self.sources: dict[int, str] = {}
        self.kept: list[float] = []

    def handed(self, number: Followed) -> float | int:
        """The plain number for an operation. Floats become inputs of the program, integers do
        not: they decide about dtypes and loops."""
        if number.kind is not float:
            return number.read()
        unique = math.ldexp(number.value, 0)  # an object of its own
        self.kept.append(unique)
        self.sources[id(unique)] = number.text
        return unique


class Followed:
    """An int or float with the expression that gives it; passes for its kind in `isinstance`.

    Attributes:
        value: the plain number; kind: int or float.
        text: Python source of the expression, over the names of the followed numbers.
        readings: of the run that it belongs to.
    """

    __slots__ = ("value", "kind", "text", "readings")

    def __init__(self, value: float, text: str, readings: Readings):
        self.value, self.text, self.readings = value, text, readings
        self.kind = type(value)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        return self.kind

    def read(self) -> Any:
        """The value, which the program now depends on."""
        self.readings.conditions[self.text] = self.value
        return self.value

    def __reduce__(self) -> tuple:
        return self.kind, (self.read(),)

    def __repr__(self) -> str:
        return repr(self.read())

    def __format__(self, spec: str) -> str:
        return format(self.read(), spec)

    def __hash__(self) -> int:
        return hash(self.read())

    def __bool__(self) -> bool:
        return self._condition(f"bool({self.text})", bool(self.value))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.read(), name)  # is_integer, bit_length, real and the like

    def _condition(self, text: str, value: bool) -> bool:
        self.readings.conditions[text] = value
        return value


def plain(number: Any) -> Any:
    """The number itself, without its history."""
    return number.value if type(number) is Followed else number


def _operand(other: Any) -> tuple[Any, str] | None:
    """(value, source) of what a followed number is combined with; None if it is no plain number."""
    kind = type(other)
    if kind is Followed:
        return other.value, other.text
    if kind is bool or kind is int or kind is float and math.isfinite(other):
        return other, f"({other!r})"
    return None


def _binary(name: str, symbol: str) -> None:
    compute = getattr(operator, name)

    def forward(self: Followed, other: Any) -> Any:
        known = _operand(other)
        if known is None:
            return NotImplemented if not isinstance(other, (float, complex)) else compute(
                self.read(), other)
        return _result(compute(self.value, known[0]), f"({self.text} {symbol} {known[1]})", self)

    def reflected(self: Followed, other: Any) -> Any:
        known = _operand(other)
        if known is None:
            return NotImplemented if not isinstance(other, (float, complex)) else compute(
                other, self.read())
        return _result(compute(known[0], self.value), f"({known[1]} {symbol} {self.text})", self)

    _method(f"__{name}__", forward)
    _method(f"__r{name}__", reflected)


def _result(value: Any, text: str, origin: Followed) -> Any:
    if type(value) not in (int, float) or len(text) > 2000:
        origin.readings.conditions[text] = value
        return value
    return Followed(value, text, origin.readings)


def _comparison(name: str, symbol: str) -> None:
    compute = getattr(operator, name)

    def compare(self: Followed, other: Any) -> Any:
        known = _operand(other)
        if known is None:
            return compute(self.read(), other)
        return self._condition(f"({self.text} {symbol} {known[1]})",
                               compute(self.value, known[0]))

    _method(f"__{name}__", compare)


def _unary(name: str, form: str) -> None:
    compute: Callable[[Any], Any] = getattr(operator, name)

    def apply(self: Followed) -> Any:
        return _result(compute(self.value), form.format(self.text), self)

    _method(f"__{name}__", apply)


def _reader(name: str, read: Callable) -> None:
    def convert(self: Followed, *args: Any) -> Any:
        return read(self.read(), *args)

    _method(f"__{name}__", convert)


def _method(name: str, function: Callable) -> None:
    function.__name__ = name
    setattr(Followed, name, function)


for _name, _symbol in (("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/"),
                       ("floordiv", "//"), ("mod", "%"), ("pow", "**")):
    _binary(_name, _symbol)
for _name, _symbol in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="),
                       ("ne", "!=")):
    _comparison(_name, _symbol)
for _name, _form in (("pos", "(+{})"), ("neg", "(-{})"), ("abs", "abs({})")):
    _unary(_name, _form)
def _index(value: Any) -> int:
    return operator.index(value)  # a float has none: TypeError, as without capture


for _name, _read in (("int", int), ("float", float), ("complex", complex), ("index", _index),
                     ("round", round), ("trunc", math.trunc), ("floor", math.floor),
                     ("ceil", math.ceil), ("divmod", divmod), ("and", operator.and_),
                     ("or", operator.or_), ("xor", operator.xor), ("lshift", operator.lshift),
                     ("rshift", operator.rshift), ("invert", operator.invert)):
    _reader(_name, _read)
