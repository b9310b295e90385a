"""What a loop nest computes: indices over loop variables, and scalar expressions over loads.

An `Index` is an affine function of loop variables plus data-dependent terms. Everything here holds
concrete numbers; `nest.canonical` later replaces them by run-time parameters.
"""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections.abc import Iterable, Mapping, Sequence

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.core.symbolic import is_symbolic

__all__ = ["Index", "Expr", "Buffer", "loop_index"]


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A strided array in memory: an argument of the program or a temporary.

    Attributes:
        kind: "in", "out" or "temp"; `number` counts within the kind.
        offset, strides: in elements of `dtype`.
        per_thread: if not 0, every thread has its own copy, this many bytes after the last one's.
    """

    kind: str
    number: int
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    per_thread: int = 0

    def index(self, position: Iterable[Index]) -> Index:
        """The element index of a position."""
        total = Index({}, self.offset)
        for i, stride in zip(position, self.strides, strict=True):
            total = total.plus(i.scaled(stride))
        return total

    def seen_as(self, shape: Sequence[int], strides: Sequence[int], offset: int) -> Buffer:
        """Elements of the same memory in another shape."""
        return Buffer(self.kind, self.number, self.dtype, tuple(shape), tuple(strides), offset)


class Index:
    """terms[var] * var + ... + const + stride * expr + ...; immutable."""

    __slots__ = ("terms", "const", "dynamic", "key", "_hash")

    def __init__(self, terms: Mapping[int, int], const: int = 0,
                 dynamic: tuple[tuple[Expr, int], ...] = ()):
        self.terms = {var: factor for var, factor in terms.items() if factor}
        self.const = const
        self.dynamic = dynamic
        self.key = (tuple(sorted(self.terms.items())), const, dynamic)
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Index) and self.key == other.key

    def zero(self) -> Index:
        return ZERO

    def scaled(self, factor: int) -> Index:
        if factor == 1:
            return self
        if factor == 0 and not self.dynamic:  # a user's index is checked wherever it leads
            return ZERO
        return Index({v: f * factor for v, f in self.terms.items()}, self.const * factor,
                     tuple((e, s * factor) for e, s in self.dynamic))

    def shifted(self, amount: int) -> Index:
        return Index(self.terms, self.const + amount, self.dynamic) if amount else self

    def plus(self, other: Index) -> Index:
        if not other.terms and not other.const and not other.dynamic:
            return self
        terms = dict(self.terms)
        for var, factor in other.terms.items():
            terms[var] = terms.get(var, 0) + factor
        return Index(terms, self.const + other.const, self.dynamic + other.dynamic)

    def unspread(self, start: int, step: int, size: int) -> tuple[Index, list[Expr]]:
        """The p with start + p * step == self, and the conditions under which it exists."""
        moved = self.shifted(-start)
        if step in (1, -1):
            moved = moved.scaled(step)
            return moved, [Expr("inside", dtypes.bool_, (), (moved, size))]
        quotient = Expr("quotient", dtypes.int64, (), (moved, step))
        position = Index({}, 0, ((quotient, 1),))
        return position, [Expr("divides", dtypes.bool_, (), (moved, step)),
                          Expr("inside", dtypes.bool_, (), (position, size))]


ZERO = Index({})


def loop_index(var: int) -> Index:
    """The index that is the loop variable itself."""
    return Index({var: 1})


class Expr:
    """One scalar computation inside a nest; immutable, and one object for each structure.

    Kinds: "load" data=(buffer, index, conditions) · "op" data=primitive · "cast" · "const"
    data=value · "number" data=argument number · "index" data=index (as int64) · "inside"
    data=(index, size): 0 <= index < size · "divides", "quotient" data=(index, step) · "wrap"
    data=size: a user's index, checked and made non-negative.

    Equal expressions are the same object, so that comparing two of them costs nothing, however
    large they are and however often they use their parts.
    """

    __slots__ = ("__weakref__", "_loads", "_order", "_variables", "args", "data", "dtype", "kind")

    kind: str
    dtype: DType
    args: tuple[Expr, ...]
    data: object

    def __new__(cls, kind: str, dtype: DType, args: tuple[Expr, ...] = (),
                data: object = None) -> Expr:
        # 0.0 == -0.0 and 1 == True: constants are told apart by how they are written
        key = (kind, dtype, args, _spelled(data) if kind == "const" else data)
        known = _expressions.get(key)
        if known is not None:
            return known
        made = super().__new__(cls)
        made.kind, made.dtype, made.args, made.data = kind, dtype, args, data
        made._order = made._loads = made._variables = None
        return _expressions.setdefault(key, made)

    def indices(self) -> list[Index]:
        """The index expressions that this expression (not its arguments) contains."""
        if self.kind == "load":
            return [self.data[1]]
        if self.kind == "index":
            return [self.data]
        if self.kind in ("inside", "divides", "quotient"):
            return [self.data[0]]
        return []

    def children(self) -> tuple[Expr, ...]:
        """Arguments, conditions and the data-dependent parts of indices."""
        below = self.args
        if self.kind == "load":
            below = below + self.data[2]
        for index in self.indices():
            below = below + tuple(expr for expr, _ in index.dynamic)
        return below

    def order(self) -> tuple[Expr, ...]:
        """This expression and all under it, children first, each once."""
        if self._order is None:
            self._order = _children_first(self)
        return self._order

    def loads(self) -> tuple[Expr, ...]:
        """The loads among those."""
        if self._loads is None:
            self._loads = tuple([expr for expr in self.order() if expr.kind == "load"])
        return self._loads

    def variables(self) -> frozenset[int]:
        """The loop variables of all indices in it."""
        if self._variables is None:
            self._variables = frozenset(itertools.chain.from_iterable(
                index.terms for expr in self.order() for index in expr.indices()))
        return self._variables


def _spelled(constant: object) -> object:
    return constant if is_symbolic(constant) else repr(constant)


def _children_first(root: Expr) -> tuple[Expr, ...]:
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack = [(root, False)]
    while stack:
        expr, ready = stack.pop()
        if ready:
            order.append(expr)
        elif expr not in seen:
            seen.add(expr)
            stack.append((expr, True))
            stack.extend((child, False) for child in reversed(expr.children())
                         if child not in seen)
    return tuple(order)


_expressions: weakref.WeakValueDictionary[tuple, Expr] = weakref.WeakValueDictionary()
