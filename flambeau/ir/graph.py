"""Values, primitives and graphs.

A `Value` is the single result of applying a `Primitive` to other values. Shapes are concrete: a
program is traced for one set of shapes, and the compiler turns the sizes into run-time parameters
of its kernels, so that one compiled kernel serves all sizes.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence

from flambeau.core import dtypes
from flambeau.core.dtypes import DType

__all__ = ["Value", "Primitive", "Graph", "tensor_input", "number_input", "constant", "mark",
           "serial_of", "sort"]

_serial = itertools.count()
mark = _serial.__next__
"""A number between those of the values made before and after: values are numbered in order."""


class Value:
    """One typed value of a program.

    Attributes:
        prim: the primitive that computes it.
        inputs: the values it is computed from.
        attrs: static attributes, a tuple whose meaning belongs to the primitive.
        shape, dtype: of the result.
        number: True if it stands for a Python number, which yields to tensors in type promotion.
        serial: its place in the program; greater than those of its inputs.
    """

    __slots__ = ("prim", "inputs", "attrs", "shape", "dtype", "number", "serial")

    def __init__(self, prim: Primitive, inputs: tuple[Value, ...], attrs: tuple,
                 shape: tuple[int, ...], dtype: DType, number: bool = False):
        self.prim = prim
        self.inputs = inputs
        self.attrs = attrs
        self.shape = shape
        self.dtype = dtype
        self.number = number
        self.serial = next(_serial)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    def __repr__(self) -> str:
        kind = "number" if self.number else list(self.shape)
        return f"<{self.prim.name} {self.dtype.name}{kind}>"

    def __bool__(self) -> bool:
        raise TypeError("the truth of a traced value is not known while a program is traced: use "
                        "where() to choose by value")

    __hash__ = object.__hash__


class Primitive:
    """An operation that the compiler knows how to emit.

    Attributes:
        name: unique.
        kind: "source", "elementwise", "movement", "reduce", "lookup", "scatter", "dot", "conv",
            "fold", "cat", "scan", "sort", "random", "joint", "fourier" or "external": how the
            scheduler treats it.
        infer: (inputs, attrs) -> (shape, dtype).
        vjp: (node, g) -> one gradient Value or None per input, or None if it has no gradient.
        jvp: (node, tangents) -> the tangent of the result, or None if it is zero.
        batch: (node, inputs, flags, size) -> the result for a batch of examples.
        emit: elementwise only: (k, dtype, *registers) -> register; `k` is the code generator.
        cost: elementwise only: rough cycles per element, for the fusion heuristics.
        results, composite, dense, any_order: joint only: how many results its kernel has, what they
            are, how many of the last operands it reads row-major, and whether it takes all strides
            of the others (see `ops/primitives/joint.py`).
    """

    __slots__ = ("name", "kind", "infer", "vjp_rule", "jvp_rule", "batch_rule", "emit", "cost",
                 "index_map", "layout", "differentiable", "results", "composite", "dense",
                 "any_order")

    def __init__(self, name: str, kind: str, infer: Callable, emit: Callable | None = None,
                 cost: int = 1, index_map: Callable | None = None, layout: Callable | None = None):
        self.name = name
        self.kind = kind
        self.infer = infer
        self.emit = emit
        self.cost = cost
        self.index_map = index_map
        self.layout = layout
        self.vjp_rule: Callable | None = None
        self.jvp_rule: Callable | None = None
        self.batch_rule: Callable | None = None
        self.differentiable = True
        self.results = 1
        self.composite: Callable | None = None
        self.dense = 0
        self.any_order = False

    def __call__(self, *inputs: Value, attrs: tuple = ()) -> Value:
        shape, dtype = self.infer(inputs, attrs)
        number = bool(inputs) and all(value.number for value in inputs)
        return Value(self, inputs, attrs, tuple(shape), dtype, number)

    def vjp(self, rule: Callable) -> Callable:
        """Decorator: `rule(node, g)` gives the gradients of the inputs from that of the result."""
        self.vjp_rule = rule
        return rule

    def jvp(self, rule: Callable) -> Callable:
        """Decorator: `rule(node, tangents)` gives the tangent of the result from those of the
        inputs (None: zero). Without one it follows from the gradient (`ops/tangents.py`)."""
        self.jvp_rule = rule
        return rule

    def batch(self, rule: Callable) -> Callable:
        """Decorator: `rule(node, inputs, flags, size)` gives the results of `size` examples, along
        a new first dimension; so lie the inputs that have a true flag, others serve them all."""
        self.batch_rule = rule
        return rule

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def _infer_given(inputs: Sequence[Value], attrs: tuple) -> tuple:
    return attrs[0], attrs[1]


INPUT = Primitive("input", "source", _infer_given)
NUMBER = Primitive("number", "source", _infer_given)
CONSTANT = Primitive("constant", "source", _infer_given)


def tensor_input(shape: Iterable[int], dtype: DType) -> Value:
    """A placeholder for a tensor that the program is given."""
    return Value(INPUT, (), (), tuple(shape), dtype)


_NUMBER_DTYPES = {bool: dtypes.bool_, int: dtypes.int64, float: dtypes.float64,
                  complex: dtypes.complex128}


def number_input(kind: type) -> Value:
    """A placeholder for a Python number of type `kind` (bool, int, float)."""
    return Value(NUMBER, (), (), (), _NUMBER_DTYPES[kind], True)


def constant(value: bool | int | float, dtype: DType | None = None, number: bool = True) -> Value:
    """A constant scalar; a Python number unless `dtype` fixes its type."""
    if dtype is None:
        dtype = _NUMBER_DTYPES[value.__class__]
    return Value(CONSTANT, (), (value,), (), dtype, number)


def sort(outputs: Iterable[Value], stop: Iterable[Value] = ()) -> list[Value]:
    """All values that `outputs` need, in the order in which the program was written down (so each
    after its inputs); `stop` is not looked into."""
    seen: set[Value] = set(stop)
    order: list[Value] = []
    pending = list(outputs)
    while pending:
        value = pending.pop()
        if value not in seen:
            seen.add(value)
            order.append(value)
            pending += value.inputs
    order.sort(key=serial_of)
    return order


serial_of = operator.attrgetter("serial")
"""The key that values are sorted by."""


class Graph:
    """A program: `inputs` (placeholders, in order) and `outputs`."""

    __slots__ = ("inputs", "outputs", "_order")

    def __init__(self, inputs: Sequence[Value], outputs: Sequence[Value]):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._order: tuple[Value, ...] | None = None

    def order(self) -> tuple[Value, ...]:
        """All values that the outputs need, each after its inputs."""
        if self._order is None:
            self._order = tuple(sort(self.outputs))
        return self._order

    def __str__(self) -> str:
        """One line a value: `%3 = mul(%1, %2) : float32[4, 5]`."""
        names = {value: f"%{index}" for index, value in enumerate(self.inputs)}
        lines = ["inputs " + ", ".join(f"{names[v]} {v.dtype.name}{list(v.shape)}"
                                       for v in self.inputs)]
        for value in self.order():
            if value in names:
                continue
            names[value] = f"%{len(names)}"
            args = [names[v] for v in value.inputs] + [repr(a) for a in value.attrs]
            lines.append(f"{names[value]} = {value.prim.name}({', '.join(args)}) : "
                         f"{value.dtype.name}{list(value.shape)}")
        lines.append("outputs " + ", ".join(names[v] for v in self.outputs))
        return "\n".join(lines)
