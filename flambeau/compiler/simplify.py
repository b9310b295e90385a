"""Simplification: equal computations become one, constants are computed, and what changes nothing
goes. Every rule keeps all bits of every result.

Large elementwise values are the exception to the first rule: each reader computes them anew in its
own loops, which is cheaper than memory; but sums over equal values are equal, and become one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from flambeau.core.dtypes import DType
from flambeau.core.shapes import same_shape
from flambeau.core.symbolic import hint, is_symbolic, key_of
from flambeau.ir.graph import Graph, Value, constant, sort

__all__ = ["simplify", "spelled"]

SMALL = 4096  # elements up to which an elementwise value is worth sharing

_FOLDED = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
           "neg": np.negative}


def simplify(graph: Graph, effects: Sequence[Value]) -> tuple[Graph, list[Value]]:
    """The same program, with fewer values, and the values of `effects` in it.

    A program whose operations are kept apart stays as it is: its operations have been simplified
    one by one, as eager ones are, so that they round alike.
    """
    order = sort([*graph.outputs, *effects], graph.inputs)
    if any(value.prim.name == "boundary" for value in order):
        return graph, list(effects)
    return _Simplifier(graph.inputs).run(order, graph, effects)


class _Simplifier:
    """Attributes:
        made: what stands for each value of the old graph.
        number: equal for values that are equal, though they may be two.
    """

    def __init__(self, inputs: Sequence[Value]) -> None:
        self.made: dict[Value, Value] = {value: value for value in inputs}
        self.number: dict[Value, int] = {}
        self.known: dict[Any, tuple[int, Value]] = {}
        for value in inputs:
            self.number[value] = len(self.known)
            self.known[value] = len(self.known), value

    def run(self, order: Sequence[Value], graph: Graph, effects: Sequence[Value]
            ) -> tuple[Graph, list[Value]]:
        for value in order:
            self.made[value] = self._simplified(value)
        outputs = [self.made[value] for value in graph.outputs]
        return Graph(graph.inputs, outputs), [self.made[value] for value in effects]

    def _simplified(self, value: Value) -> Value:
        inputs = tuple(self.made[operand] for operand in value.inputs)
        kept = _unchanged(value, inputs)
        if kept is not None:
            return kept
        folded = _folded(value, inputs)
        place = value.serial  # what is made anew stays where the program was written down
        if folded is not None:
            folded.serial = place
            return self._known(folded)
        if inputs != value.inputs:
            value = Value(value.prim, inputs, value.attrs, value.shape, value.dtype, value.number)
            value.serial = place
        return self._known(value)

    def _known(self, value: Value) -> Value:
        """The value that is the same as this one, if there is one already."""
        key = self._key(value)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = len(self.known), value
        self.number[value] = found[0]
        own_loops = value.prim.kind == "elementwise" and hint(value.numel) > SMALL
        return value if own_loops else found[1]

    def _key(self, value: Value) -> Any:
        kind, name = value.prim.kind, value.prim.name
        if kind == "random" or kind == "source" and name not in ("constant", "iota"):
            return value
        return (value.prim, tuple([self.number[operand] for operand in value.inputs]),
                spelled(key_of(value.attrs)), key_of(tuple(value.shape)), value.dtype,
                value.number)


def spelled(attrs: Any) -> Any:
    """Attributes as a key that tells 1, 1.0 and True, and 0.0 and -0.0 apart."""
    if isinstance(attrs, tuple):
        return tuple([spelled(item) for item in attrs])
    if type(attrs) in (bool, float, complex):
        return type(attrs), repr(attrs)
    return attrs


# ---------------------------------------------------------------------- rules
def _unchanged(value: Value, inputs: Sequence[Value]) -> Value | None:
    """An operand that the value is equal to, bit for bit."""
    name = value.prim.name
    if name == "stop_gradient":
        return inputs[0]
    if not inputs or value.number != inputs[0].number or not same_shape(
            inputs[0].shape, value.shape):
        return None
    if name == "cast":
        return _cast_back(value, inputs[0])
    if inputs[0].dtype is not value.dtype:
        return None
    if name == "reshape" or name == "expand" or (
            name == "permute" and value.attrs[0] == tuple(range(value.ndim))):
        return inputs[0]
    if name in ("mul", "div") and _is(inputs[1], 1) or name == "sub" and _is(inputs[1], 0):
        return inputs[0]
    return None


def _cast_back(value: Value, operand: Value) -> Value | None:
    """x, if the value is x in a wider dtype and back."""
    if operand.prim.name != "cast" or operand.inputs[0].dtype is not value.dtype:
        return None
    narrow, wide = value.dtype, operand.dtype
    if narrow.kind == "f" and wide.kind == "f" and wide.itemsize > narrow.itemsize:
        return operand.inputs[0] if operand.inputs[0].number == value.number else None
    return None


def _is(value: Value, number: int) -> bool:
    """Is every element of the value this number (and 0 not negative)?"""
    while value.prim.name in ("expand", "reshape"):
        value = value.inputs[0]
    if value.prim.name != "constant" or value.dtype.kind not in "fiu":
        return False
    found = value.attrs[0]
    return not is_symbolic(found) and found == number and math.copysign(1, found) == 1


def _folded(value: Value, inputs: Sequence[Value]) -> Value | None:
    """The constant that a scalar computation on constants gives."""
    if value.prim.kind != "elementwise" or value.shape or not inputs or value.number or any(
            operand.prim.name != "constant" or is_symbolic(operand.attrs[0])
            for operand in inputs):
        return None
    name = value.prim.name
    if name == "cast":
        return _cast_constant(inputs[0], value.dtype)
    rule = _FOLDED.get(name)
    if rule is None or value.dtype.name not in ("float32", "float64") or any(
            operand.dtype is not value.dtype for operand in inputs):
        return None
    kind = value.dtype.numpy.type
    with np.errstate(all="ignore"):
        return constant(float(rule(*[kind(operand.attrs[0]) for operand in inputs])), value.dtype,
                        number=False)


def _cast_constant(operand: Value, dtype: DType) -> Value | None:
    """A real constant in another dtype; conversions that lose integers are left to the kernel."""
    number = operand.attrs[0]
    if operand.number or isinstance(number, complex) or dtype.name not in ("float32", "float64"):
        return None
    if operand.dtype.kind == "f" and operand.dtype.name not in ("float32", "float64"):
        return None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = operand.dtype.numpy.type(number)
        return constant(float(dtype.numpy.type(source)), dtype, number=False)
