"""Simplification: equal computations become one, constants are computed, and what changes nothing
goes. Every rule keeps all bits of every result.

Large elementwise values are the exception to the first rule: each reader computes them anew in its
own loops, which is cheaper than memory; but sums over equal values are equal, and become one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence

import numpy as np

from flambeau.compiler.forms import Forms
from flambeau.core.dtypes import DType
from flambeau.core.shapes import same_shape
from flambeau.core.symbolic import hint, is_symbolic
from flambeau.ir.graph import Graph, Primitive, Value, constant, sort
from flambeau.ops.primitives.elementwise import boundary

__all__ = ["simplify"]

SMALL = 4096  # elements up to which an elementwise value is worth sharing

_PASSING = frozenset({"stop_gradient", "cast", "reshape", "expand", "permute", "mul", "div", "sub"})
_REPEATABLE = ("constant", "iota")  # sources that are the same wherever they are written down
_FOLDED = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
           "neg": np.negative}


def simplify(graph: Graph, effects: Sequence[Value], forms: Forms | None = None
             ) -> tuple[Graph, list[Value]]:
    """The same program, with fewer values, and the values of `effects` in it; `forms`, if given,
    learns how they are written down.

    A program whose operations are kept apart stays as it is: its operations have been simplified
    one by one, as eager ones are, so that they round alike.
    """
    order = sort([*graph.outputs, *effects], graph.inputs)
    if boundary in {value.prim for value in order}:
        return graph, list(effects)
    made = _Simplifier(graph.inputs, forms or Forms()).run(order)
    return (Graph(graph.inputs, [made[value] for value in graph.outputs]),
            [made[value] for value in effects])


class _Simplifier:
    """Attributes:
        made: what stands for each value of the old graph.
        number: equal for values that are equal, though they may be two.
        known: for each way to compute something, a value that is computed so.
    """

    def __init__(self, inputs: Sequence[Value], forms: Forms) -> None:
        self.forms = forms
        self.made: dict[Value, Value] = {value: value for value in inputs}
        self.number: dict[Value, int] = {value: at for at, value in enumerate(self.made)}
        self.known: dict[Hashable, Value] = {}

    def run(self, order: Sequence[Value]) -> dict[Value, Value]:
        made = self.made
        for value in order:
            inputs = tuple([made[operand] for operand in value.inputs])
            made[value] = self._simplified(value, inputs)
        return made

    def _simplified(self, value: Value, inputs: tuple[Value, ...]) -> Value:
        """What stands for `value`, whose operands are now `inputs`."""
        prim, number = value.prim, self.number
        if prim.name in _PASSING:
            kept = _unchanged(value, inputs)
            if kept is not None:
                return kept
        if prim.name == "lookup" and _is_widened(inputs[0]):
            return self._looked_up_before(value, inputs)
        form = self.forms.of(value)
        unique = prim.kind == "random" or prim.kind == "source" and prim.name not in _REPEATABLE
        key = value if unique else (form, *[number[each] for each in inputs])
        found = self.known.get(key)
        if found is not None and (prim.kind != "elementwise" or hint(value.numel) <= SMALL):
            return found
        place = value.serial  # what is made anew stays where the program was written down
        folded = _folded(value, inputs) if found is None and inputs and not value.shape else None
        if folded is not None:
            folded.serial = place
            made = self.known[key] = self._simplified(folded, ())
            return made
        if inputs != value.inputs:
            value = Value(prim, inputs, value.attrs, value.shape, value.dtype, value.number)
            value.serial = place
            self.forms.note(value, form)
        if found is None:
            self.known[key] = value
            number[value] = len(number)
        else:
            number[value] = number[found]
        return value

    def _looked_up_before(self, value: Value, inputs: tuple[Value, ...]) -> Value:
        """A lookup in widened elements: what it finds is widened, not all there is."""
        cast = inputs[0]
        inputs = (cast.inputs[0], *inputs[1:])
        before = max(operand.serial for operand in inputs)
        found = self._new((before + value.serial) / 2, value.prim, inputs, value.attrs)
        return self._new(value.serial, cast.prim, (found,), cast.attrs)

    def _new(self, place: float, prim: Primitive, inputs: tuple[Value, ...], attrs: tuple) -> Value:
        """A value that a rule makes, at a place of the program."""
        made = prim(*inputs, attrs=attrs)
        made.serial = place
        return self._simplified(made, inputs)


# ---------------------------------------------------------------------- rules
def _is_widened(value: Value) -> bool:
    return value.prim.name == "cast" and value.inputs[0].dtype.itemsize < value.dtype.itemsize


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
