"""Forms: numbers for the ways in which values are computed."""

from __future__ import annotations

from flambeau.compiler.forms import Forms
from flambeau.core import dtypes
from flambeau.ir.graph import constant, tensor_input
from flambeau.ops.primitives.elementwise import add, mul
from flambeau.ops.primitives.structure import reshape


def test_operands_are_no_part_of_a_form():
    forms = Forms()
    x, y = (tensor_input((2, 3), dtypes.float32) for _ in range(2))
    assert forms.of(add(x, y)) == forms.of(add(y, y)) != forms.of(mul(x, y))


def test_attributes_and_shapes_are():
    forms = Forms()
    x = tensor_input((2, 3), dtypes.float32)
    flat, turned, again = reshape(x, (6,)), reshape(x, (3, 2)), reshape(add(x, x), (6,))
    assert forms.of(flat) == forms.of(again) != forms.of(turned)


def test_numbers_that_python_calls_equal_are_told_apart():
    forms = Forms()
    values = [constant(number, dtypes.float32, number=False)
              for number in (1, 1.0, True, 0.0, -0.0)]
    assert len({forms.of(value) for value in values}) == len(values)


def test_a_form_that_was_noted_is_kept():
    forms = Forms()
    x = tensor_input((2,), dtypes.float32)
    value, other = add(x, x), add(x, x)
    forms.note(other, forms.of(value))
    assert forms.of(other) == forms.of(value)
