"""Symbolic integers: sizes that are not fixed yet, with a value to go on with.

While a function is captured for all sizes, the sizes that may vary are `SymInt`s. Such a number has
a *hint*, the value that it has in this run, and says by an expression how it follows from the sizes
of the function's arguments. Arithmetic gives new expressions. Whatever needs the plain number (a
comparison, `range`, an index, a format, a hash) gets the answer for the hint, and that answer is
noted as a *guard*: the program that is made is right for all sizes that give the same answers. So
code that knows nothing of symbols is right, if sometimes needlessly specialised.

Integers are polynomials with integer coefficients over *atoms*: the sizes, and results of other
operations (a quotient, say). Equal polynomials are equal without a guard, and what follows from
sizes being 2 or more needs none either: 0 and 1 are never symbolic.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from flambeau.core.errors import is_internal

__all__ = ["Environment", "Guard", "SymInt", "SymFloat", "Unfit", "Valuation", "choice",
           "environment", "evaluated", "fixed", "float_of", "hint", "index_of", "is_symbolic",
           "key_of", "pinned"]

SMALLEST = 2  # sizes of 0 and 1 mean something else: nothing, and broadcasting
MOST_TERMS = 32  # a product with more is an atom of its own

Terms = tuple[tuple[tuple[int, ...], int], ...]
"""A polynomial: ((atoms of a product in order, coefficient), ...) in order; () are the units."""


class Unfit(Exception):
    """A guard does not hold, or an expression has no value, for other sizes."""


class Guard:
    """An answer that was given for the hints: `left relation right` is `outcome`.

    Attributes:
        where: the user's line that asked, or that called what asked.
    """

    __slots__ = ("left", "relation", "right", "outcome", "where")

    def __init__(self, left: Any, relation: Callable, right: Any, outcome: bool, where: str):
        self.left, self.relation, self.right = left, relation, right
        self.outcome, self.where = outcome, where

    def __str__(self) -> str:
        word = _WORDS[self.relation]
        told = f"{describe(self.left)} {word} {describe(self.right)}"
        return told if self.outcome else f"not {told}"


_WORDS = {operator.eq: "==", operator.lt: "<", operator.le: "<="}


class Environment:
    """The symbols, atoms and guards of one capture.

    Attributes:
        sizes: the values that the symbols have in this run.
        names: how messages call them.
        guards: the answers given, by what was asked.
        undo: (cache, key) of entries that must not outlive the capture.
        metas: layouts with symbolic sizes.
    """

    def __init__(self, exact: bool = False) -> None:
        self.sizes: list[int] = []
        self.names: list[str] = []
        self.atoms: list[tuple[Callable | None, tuple]] = []
        self.lows: list[int | None] = []  # below which an atom never lies; None: unknown
        self.hints: list[Any] = []
        self.guards: dict[tuple, Guard] = {}
        self.undo: list[tuple[dict, Any]] = []
        self.metas: dict[tuple, Any] = {}
        self._known: dict[tuple, int] = {}
        self.planning = False  # numbers are hashed by their expressions
        self.choosing = 0  # answers are only choices: no guard
        self.exact = exact  # then none is: rounding depends on them
        self.closed = False  # no more guards: the capture is over
        self.sealed = False  # nobody may ask: another program is being made from what was captured

    def size(self, value: int, name: str) -> SymInt:
        """A new symbol."""
        if value < SMALLEST:
            raise ValueError(f"a size of {value} is never symbolic")
        self.sizes.append(value)
        self.names.append(name)
        return SymInt(self, (((self._atom(None, (len(self.sizes) - 1,), value, SMALLEST),), 1),))

    def _atom(self, function: Callable | None, args: tuple, value: Any, low: int | None) -> int:
        key = (function, key_of(args), tuple(map(type, args)))  # 2 and 2.0 are equal keys
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.atoms)
            self.atoms.append((function, args))
            self.lows.append(low)
            self.hints.append(value)
        return found

    def apply(self, function: Callable, *args: Any, low: int | None = None) -> Any:
        """`function(*args)` as an atom: computed anew for other sizes."""
        value = function(*[hint(arg) for arg in args])
        atom = self._atom(function, args, value, low)
        if isinstance(value, float):
            return SymFloat(self, atom)
        return SymInt(self, (((atom,), 1),))

    def ask(self, left: Any, relation: Callable, right: Any) -> bool:
        """The answer for the hints, noted as a guard."""
        outcome = relation(hint(left), hint(right))
        if self.sealed:
            raise Unfit("a symbolic size has outlived its capture")
        if not self.closed and (not self.choosing or self.exact):
            key = (relation, key_of(left), key_of(right))
            if key not in self.guards:
                self.guards[key] = Guard(left, relation, right, outcome, _asker())
        return outcome

    @contextlib.contextmanager
    def at(self, sizes: Sequence[int]) -> Iterator[None]:
        """Let the hints be those of other sizes meanwhile.

        Raises:
            Unfit: an expression has no value for them.
        """
        valuation, captured, own = Valuation(self, sizes), self.hints, self.sizes
        self.hints = [valuation.atom(atom) for atom in range(len(self.atoms))]
        self.sizes = list(sizes)
        try:
            yield
        finally:  # the tape of the capture may be alive
            self.sizes = own
            self.hints[:len(captured)] = captured
            valuation = Valuation(self, own)
            for atom in range(len(captured), len(self.atoms)):
                with contextlib.suppress(Unfit):
                    self.hints[atom] = valuation.atom(atom)

    def pin(self, number: Any) -> Any:
        """The plain number, which the program then depends on."""
        self.ask(number, operator.eq, number.hint)
        return number.hint


_LIBRARY = os.path.dirname(os.__file__)


def _asker() -> str:
    """The user's line that is running."""
    frame = sys._getframe(2)
    while frame.f_back is not None and (is_internal[frame.f_code.co_filename] or
                                        frame.f_code.co_filename.startswith(_LIBRARY)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


environment: list[Environment] = []
"""The environment of the capture that is going on, if one has symbols."""


def choice(function: Callable) -> Callable:
    """Decorator: whatever the function answers, what follows is right. What it compares is no guard
    (but for exact programs, whose rounding must be that of their sizes)."""

    @functools.wraps(function)
    def choose(*args: Any, **kwargs: Any) -> Any:
        if not environment:
            return function(*args, **kwargs)
        env = environment[-1]
        env.choosing += 1
        try:
            return function(*args, **kwargs)
        finally:
            env.choosing -= 1

    return choose


def fixed(number: Any) -> Any:
    """A number that was chosen: a plain one, but in exact programs."""
    return number.hint if type(number) is SymInt and not number.env.exact else number


def pinned(item: Any) -> Any:
    """Nested tuples with plain numbers: what is made of them depends on each."""
    if type(item) is tuple:
        return tuple([pinned(each) for each in item])
    return item.env.pin(item) if type(item) in _SYMBOLIC else item


def evaluated(function: Callable, *args: Any) -> Any:
    """`function(*args)`, computed anew for other sizes if any argument is symbolic."""
    env = next((arg.env for arg in args if type(arg) in _SYMBOLIC), None)
    return function(*args) if env is None else env.apply(function, *args, low=0)


def hint(number: Any) -> Any:
    """The value in this run of a number that may be symbolic, without a guard."""
    return number.hint if type(number) in _SYMBOLIC else number


def is_symbolic(number: Any) -> bool:
    """Does a number depend on sizes that may vary?"""
    return type(number) in _SYMBOLIC


def float_of(number: Any) -> Any:
    """`float(number)`, but for symbolic integers, which give symbolic floats."""
    if type(number) is SymFloat:
        return number
    return number / 1 if type(number) is SymInt else float(number)


def index_of(number: Any) -> Any:
    """`operator.index`, but for symbolic integers, which stay what they are."""
    return number if type(number) is SymInt else operator.index(number)


def key_of(item: Any) -> Any:
    """What identifies a number, or nested tuples of them: symbolic ones by their expressions."""
    kind = type(item)
    if kind is tuple:
        return tuple([key_of(each) for each in item])
    if kind in _SYMBOLIC:
        return item.key
    return item


def _poly(number: Any) -> dict:
    """A polynomial as a dictionary."""
    if type(number) is SymInt:
        return dict(number.terms)
    return {(): int(number)} if number else {}


def _number(env: Environment, terms: dict) -> Any:
    """The number with this polynomial: a plain int where nothing varies."""
    found = tuple(sorted((atoms, factor) for atoms, factor in terms.items() if factor))
    if not found:
        return 0
    if len(found) == 1 and not found[0][0]:
        return found[0][1]
    return SymInt(env, found)


def _low(env: Environment, terms: Iterable) -> int | None:
    """What a polynomial is never below, if that is easily seen."""
    total = 0
    for atoms, factor in _with_quotients_bounded(env, terms):
        for atom in atoms:
            low = env.lows[atom]
            if low is None or low < 0 or factor < 0:
                return None
            factor *= low
        total += factor
    return total


def _with_quotients_bounded(env: Environment, terms: Iterable) -> Iterable:
    """A polynomial that is nowhere greater: what is taken off for a // b is at most a / b."""
    terms = list(terms)
    whole: dict = {}
    for atoms, factor in terms:
        top, below = env.atoms[atoms[0]][1] if (
            factor < 0 and len(atoms) == 1 and env.atoms[atoms[0]][0] is operator.floordiv
        ) else (None, 0)
        if type(below) is not int or below <= 0:
            whole[atoms] = whole.get(atoms, 0) + factor
            continue
        for inner, scale in _poly(top).items():
            whole[inner] = whole.get(inner, 0) + Fraction(factor * scale, below)
    return whole.items()


def _sum(a: Any, b: Any, sign: int = 1) -> Any:
    env = a.env if type(a) is SymInt else b.env
    terms = _poly(a)
    for atoms, factor in _poly(b).items():
        terms[atoms] = terms.get(atoms, 0) + sign * factor
    return _number(env, terms)


def _product(a: Any, b: Any) -> Any:
    env = a.env if type(a) is SymInt else b.env
    left, right = _poly(a), _poly(b)
    if len(left) * len(right) > MOST_TERMS:
        return env.apply(operator.mul, a, b)
    terms: dict = {}
    for atoms, factor in left.items():
        for more, other in right.items():
            product = tuple(sorted(atoms + more))
            terms[product] = terms.get(product, 0) + factor * other
    return _number(env, terms)


def _without(atoms: tuple, divisor: tuple) -> tuple | None:
    """A product of atoms without those of `divisor`; None if it has not all of them."""
    rest = list(atoms)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _quotient(a: Any, b: Any) -> Any:
    """a // b: exact parts are divided, what is left is an atom."""
    env = a.env if type(a) is SymInt else b.env
    if not b:
        raise ZeroDivisionError("integer division or modulo by zero")
    divisor = _poly(b)
    whole: dict = {}
    rest = _poly(a)
    if len(divisor) == 1:
        (below, scale), = divisor.items()
        for atoms, factor in list(rest.items()):
            left = _without(atoms, below)
            if left is not None and factor % scale == 0:
                whole[left] = factor // scale
                del rest[atoms]
    elif _divides(divisor, rest):
        return next(iter(rest.values())) // next(iter(divisor.values()))
    if not rest:
        return _number(env, whole)
    remaining = _number(env, rest)
    if type(remaining) is not SymInt and type(b) is not SymInt:
        part = remaining // b
    else:
        part = _rest_quotient(env, remaining, b)
    return _number(env, whole) + part if whole else part


def _rest_quotient(env: Environment, a: Any, b: Any) -> Any:
    """a // b that cannot be taken further apart: known if |a| < b."""
    if _at_least(env, b, 1):
        if _at_least(env, a, 0):
            if _at_least(env, b - a, 1):
                return 0
            low = _low(env, _poly(a).items())
            least = low // b if low is not None and type(b) is int else 0
            return env.apply(operator.floordiv, a, b, low=int(least))
        if _at_least(env, -a, 1) and _at_least(env, a + b, 0):
            return -1
    return env.apply(operator.floordiv, a, b)


def _at_least(env: Environment, number: Any, bound: int) -> bool:
    low = _low(env, _poly(number).items())
    return low is not None and low >= bound


def _divides(divisor: dict, terms: dict) -> bool:
    """Is the second polynomial an integer times the first?"""
    if divisor.keys() != terms.keys():
        return False
    ratios = {(terms[atoms] // factor, terms[atoms] % factor) for atoms, factor in divisor.items()}
    return len(ratios) == 1 and next(iter(ratios))[1] == 0


def _compare(a: Any, relation: Callable, b: Any) -> bool:
    """`a relation b` for two integers, by their difference."""
    if type(b) is not SymInt and not isinstance(b, int):
        return _ask_general(a, relation, b)
    difference = _sum(a, b, -1)
    if type(difference) is not SymInt:
        return relation(difference, 0)
    env = a.env
    low = _low(env, difference.terms)
    if low is not None and low > 0:
        return False  # a > b
    if low == 0 and relation is operator.lt:
        return False
    high = _low(env, [(atoms, -factor) for atoms, factor in difference.terms])
    if high is not None and high > 0:
        return relation is not operator.eq  # a < b
    if high == 0 and relation is operator.le:
        return True
    return env.ask(difference, relation, 0)


def _ask_general(a: Any, relation: Callable, b: Any) -> bool:
    return a.env.ask(a, relation, b)


def _is_int(number: Any) -> bool:
    return type(number) in (int, SymInt, bool)


class _Symbolic:
    """What symbolic integers and floats share."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(self.env.pin(self))

    def __format__(self, spec: str) -> str:
        return format(self.env.pin(self), spec)

    def __hash__(self) -> int:
        if self.env.planning or self.env.closed:  # what was planned is let go of later
            return hash(self.key)
        return hash(self.env.pin(self))

    def __bool__(self) -> bool:
        return bool(self.__ne__(0))

    def __float__(self) -> float:
        return float(self.env.pin(self))

    def __int__(self) -> int:
        return int(self.env.pin(self))

    def __complex__(self) -> complex:
        return complex(self.env.pin(self))

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        value: Any = self
        return -value if value < 0 else value

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict) -> Any:
        return self

    def __reduce__(self) -> tuple:
        value = self.env.pin(self)
        return type(value), (value,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env.pin(self), name)

    def __truediv__(self, other: Any) -> Any:
        return _float_of(operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _float_of(operator.truediv, other, self)

    def __rpow__(self, other: Any) -> Any:
        return _float_of(operator.pow, other, self)

    def __ne__(self, other: Any) -> bool:
        return not self == other

    def __gt__(self, other: Any) -> bool:
        return not self <= other

    def __ge__(self, other: Any) -> bool:
        return not self < other


def _float_of(function: Callable, a: Any, b: Any) -> Any:
    """An operation that has no normal form; NotImplemented for other operands than numbers."""
    for each in (a, b):
        if type(each) not in (int, float, bool, SymInt, SymFloat):
            return NotImplemented
    env = a.env if type(a) in _SYMBOLIC else b.env
    return env.apply(function, a, b)


class SymInt(_Symbolic):
    """An integer that follows from sizes which may vary. Serves wherever an int does."""

    __slots__ = ("env", "terms")

    def __init__(self, env: Environment, terms: Terms):
        self.env, self.terms = env, terms

    @property
    def hint(self) -> int:
        """The value in this run."""
        total, hints = 0, self.env.hints
        for atoms, factor in self.terms:
            for atom in atoms:
                factor *= hints[atom]
            total += factor
        return total

    __class__ = property(lambda self: int)  # isinstance(size, int) is what callers ask

    @property
    def key(self) -> tuple:
        return (id(self.env), self.terms)

    def __index__(self) -> int:
        return self.env.pin(self)

    __hash__ = _Symbolic.__hash__

    def __add__(self, other: Any) -> Any:
        return _sum(self, other) if _is_int(other) else _float_of(operator.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return _sum(self, other, -1) if _is_int(other) else _float_of(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Any:
        return _sum(other, self, -1) if _is_int(other) else _float_of(operator.sub, other, self)

    def __neg__(self) -> Any:
        return _product(self, -1)

    def __mul__(self, other: Any) -> Any:
        if not _is_int(other) and isinstance(other, (str, bytes, tuple, list)):
            return other * self.env.pin(self)
        return _product(self, other) if _is_int(other) else _float_of(operator.mul, self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return (_quotient(self, other) if _is_int(other)
                else _float_of(operator.floordiv, self, other))

    def __rfloordiv__(self, other: Any) -> Any:
        return (_quotient(other, self) if _is_int(other)
                else _float_of(operator.floordiv, other, self))

    def __mod__(self, other: Any) -> Any:
        if not _is_int(other):
            return _float_of(operator.mod, self, other)
        return self - other * _quotient(self, other)

    def __rmod__(self, other: Any) -> Any:
        if not _is_int(other):
            return (other % self.env.pin(self) if isinstance(other, str)
                    else _float_of(operator.mod, other, self))
        return other - self * _quotient(other, self)

    def __divmod__(self, other: Any) -> tuple:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple:
        return other // self, other % self

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if modulus is not None:
            return pow(self.env.pin(self), other, modulus)
        if type(other) is int and 0 <= other <= 4:
            return math.prod([self] * other)
        return _float_of(operator.pow, self, other)

    def __and__(self, other: Any) -> Any:
        return _bits(operator.and_, self, other)

    def __or__(self, other: Any) -> Any:
        return _bits(operator.or_, self, other)

    def __xor__(self, other: Any) -> Any:
        return _bits(operator.xor, self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __lshift__(self, other: Any) -> Any:
        return _bits(operator.lshift, self, other)

    def __rshift__(self, other: Any) -> Any:
        return _bits(operator.rshift, self, other)

    def __rlshift__(self, other: Any) -> Any:
        return other << self.env.pin(self)

    def __rrshift__(self, other: Any) -> Any:
        return other >> self.env.pin(self)

    def __invert__(self) -> Any:
        return -self - 1

    def __round__(self, digits: int = 0) -> Any:
        return self if not digits or digits > 0 else round(self.env.pin(self), digits)

    def __floor__(self) -> Any:
        return self

    __ceil__ = __trunc__ = __floor__

    def __eq__(self, other: Any) -> bool:
        if type(other) is SymInt:
            return self is other or self.terms == other.terms or _compare(self, operator.eq, other)
        if not isinstance(other, (int, float, complex)):
            return NotImplemented
        return _compare(self, operator.eq, other)

    def __lt__(self, other: Any) -> bool:
        return _compare(self, operator.lt, other) if isinstance(other, (int, float)) \
            else NotImplemented

    def __le__(self, other: Any) -> bool:
        return _compare(self, operator.le, other) if isinstance(other, (int, float)) \
            else NotImplemented


def _bits(function: Callable, a: SymInt, b: Any) -> Any:
    if type(b) not in (int, bool, SymInt):
        return NotImplemented
    low = _low(a.env, a.terms)
    shrinks = function in (operator.and_, operator.rshift) and low is not None and low >= 0
    return a.env.apply(function, a, b, low=0 if shrinks else None)


class SymFloat(_Symbolic):
    """A float that follows from sizes which may vary."""

    __slots__ = ("env", "atom")

    def __init__(self, env: Environment, atom: int):
        self.env, self.atom = env, atom

    @property
    def hint(self) -> float:
        """The value in this run."""
        return self.env.hints[self.atom]

    __class__ = property(lambda self: float)

    @property
    def key(self) -> tuple:
        return (id(self.env), self.atom)

    __hash__ = _Symbolic.__hash__

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, (int, float, complex)):
            return NotImplemented
        twin: Any = other
        if type(twin) is SymFloat and twin.env is self.env and twin.atom == self.atom:
            return True
        return self.env.ask(self, operator.eq, other)

    def __lt__(self, other: Any) -> bool:
        return self.env.ask(self, operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self.env.ask(self, operator.le, other)

    def __ceil__(self) -> Any:
        return self.env.apply(math.ceil, self)

    def __floor__(self) -> Any:
        return self.env.apply(math.floor, self)

    def __trunc__(self) -> Any:
        return self.env.apply(math.trunc, self)

    def __round__(self, digits: int | None = None) -> Any:
        return self.env.apply(round, self) if digits is None else round(self.env.pin(self), digits)

    def __neg__(self) -> Any:
        return self.env.apply(operator.neg, self)


def _float_method(name: str, function: Callable, swapped: bool) -> Callable:
    def method(self: SymFloat, other: Any) -> Any:
        return _float_of(function, other, self) if swapped else _float_of(function, self, other)

    method.__name__ = method.__qualname__ = name
    return method


for _name in ("add", "sub", "mul", "floordiv", "mod", "pow"):
    for _swapped in (False, True):
        _full = f"__{'r' if _swapped else ''}{_name}__"
        setattr(SymFloat, _full, _float_method(_full, getattr(operator, _name), _swapped))

_SYMBOLIC = frozenset((SymInt, SymFloat))


class Valuation:
    """What the expressions of an environment come to for given sizes.

    Raises:
        Unfit: while evaluating, if an expression has no value for these sizes.
    """

    def __init__(self, env: Environment, sizes: Sequence[int]):
        self.env, self.sizes = env, sizes
        self.atoms: list[Any] = [None] * len(env.atoms)

    def number(self, number: Any) -> Any:
        """The plain number that `number` comes to."""
        kind = type(number)
        if kind is SymFloat:
            return self.atom(number.atom)
        if kind is not SymInt:
            return number
        total = 0
        for atoms, factor in number.terms:
            for atom in atoms:
                factor *= self.atom(atom)
            total += factor
        return total

    def atom(self, atom: int) -> Any:
        """The value of an atom."""
        if atom >= len(self.atoms):  # planning for other sizes has added some
            self.atoms += [None] * (len(self.env.atoms) - len(self.atoms))
        found = self.atoms[atom]
        if found is None:
            function, args = self.env.atoms[atom]
            if function is None:
                found = self.sizes[args[0]]
            else:
                try:
                    found = function(*[self.number(arg) for arg in args])
                except (ArithmeticError, ValueError) as error:
                    raise Unfit(str(error)) from None
            self.atoms[atom] = found
        return found

    def tree(self, item: Any) -> Any:
        """Nested tuples and lists with plain numbers in place of symbolic ones."""
        kind = type(item)
        if kind in _SYMBOLIC:
            return self.number(item)
        if kind is tuple:
            return tuple([self.tree(each) for each in item])
        if kind is list:
            return [self.tree(each) for each in item]
        return item

    def check(self, guards: Mapping[Any, Guard]) -> Guard | None:
        """The first guard that does not hold for these sizes, or None."""
        for guard in guards.values():
            if guard.relation(self.number(guard.left), self.number(guard.right)) \
                    is not guard.outcome:
                return guard
        return None


def describe(number: Any) -> str:
    """An expression in words, by the names of its sizes."""
    kind = type(number)
    if kind is SymInt:
        parts = []
        for atoms, factor in number.terms:
            names = [_name_of(number.env, atom) for atom in atoms]
            parts.append("*".join(([str(factor)] if factor != 1 or not names else []) + names))
        return " + ".join(parts)
    return _name_of(number.env, number.atom) if kind is SymFloat else str(number)


def _name_of(env: Environment, atom: int) -> str:
    function, args = env.atoms[atom]
    if function is None:
        return env.names[args[0]]
    return f"{function.__name__}({', '.join(describe(arg) for arg in args)})"
