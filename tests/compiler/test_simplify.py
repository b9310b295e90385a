"""Simplification keeps every bit: what is merged, folded or dropped, and what may not be."""

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.simplify import simplify
from flambeau.core import dtypes
from flambeau.ir.graph import Graph, constant, tensor_input
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert


def simplified(*outputs, inputs=()):
    graph, _ = simplify(Graph(inputs, outputs), ())
    return graph


def filled(number, like):
    return p.expand(constant(number, like.dtype, number=False), like.shape)


@pytest.fixture
def x():
    return tensor_input((3, 4), dtypes.float32)


def test_equal_values_become_one(x):
    a, b = p.mul(x, x), p.mul(x, x)
    graph = simplified(p.add(a, b), inputs=(x,))
    assert len(graph.order()) == 3
    assert graph.outputs[0].inputs[0] is graph.outputs[0].inputs[1]


def test_large_elementwise_values_stay_apart_but_their_sums_do_not():
    x = tensor_input((200, 200), dtypes.float32)
    sums = [p.reduce_sum(p.exp(x), (1,)) for _ in range(2)]
    maps = [p.exp(x) for _ in range(2)]
    graph = simplified(*sums, *maps, inputs=(x,))
    assert graph.outputs[0] is graph.outputs[1]
    assert graph.outputs[2] is not graph.outputs[3]


def test_constants_are_told_apart_by_sign_and_type(x):
    graph = simplified(p.mul(x, filled(0.0, x)), p.mul(x, filled(-0.0, x)), inputs=(x,))
    assert graph.outputs[0] is not graph.outputs[1]


@pytest.mark.parametrize("rule", ["mul 1", "div 1", "sub 0"])
def test_neutral_elements_go(x, rule):
    name, number = rule.split()
    graph = simplified(getattr(p, name)(x, filled(float(number), x)), inputs=(x,))
    assert graph.outputs[0] is x


def test_adding_zero_stays(x):
    """-0.0 + 0.0 is 0.0."""
    assert simplified(p.add(x, filled(0.0, x)), inputs=(x,)).outputs[0] is not x


def test_widening_and_back_goes_but_rounding_stays():
    half = tensor_input((5,), dtypes.bfloat16)
    single = tensor_input((5,), dtypes.float32)
    there = convert(convert(half, dtypes.float32), dtypes.bfloat16)
    rounded = convert(convert(single, dtypes.bfloat16), dtypes.float32)
    graph = simplified(there, rounded, inputs=(half, single))
    assert graph.outputs[0] is half
    assert graph.outputs[1] is not single


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64])
def test_scalars_are_folded_as_the_kernel_would_compute_them(dtype):
    one, decay = constant(1, dtype, number=False), constant(0.9, dtype, number=False)
    (found,) = simplified(p.sub(one, decay)).outputs
    kind = dtype.numpy.type
    assert found.prim.name == "constant"
    assert kind(found.attrs[0]) == kind(1) - kind(0.9)


def test_division_of_constants_by_zero_is_folded_silently():
    zero = constant(0.0, dtypes.float32, number=False)
    (found,) = simplified(p.div(constant(1.0, dtypes.float32, number=False), zero)).outputs
    assert np.isinf(found.attrs[0])


def test_random_draws_are_never_merged():
    def draw():
        return torch.rand(5), torch.rand(5)

    compiled = torch.compile(draw)
    for _ in range(3):
        torch.manual_seed(1)
        a, b = compiled()
        torch.manual_seed(1)
        c, d = draw()
        assert torch.equal(a, c) and torch.equal(b, d) and not torch.equal(a, b)


def test_lookups_read_what_was_widened_before_it_was():
    x, at = tensor_input((50, 8), dtypes.bfloat16), tensor_input((3,), dtypes.int64)
    wide = convert(x, dtypes.float64)
    found = p.lookup(convert(convert(x, dtypes.float32), dtypes.float64), [at, at], (3,))
    graph = simplified(found, p.lookup(wide, [at, at], (3,)), inputs=(x, at))
    assert {value.inputs[0] for value in graph.order() if value.prim.name == "lookup"} == {x}
    places = [value.serial for value in graph.order()]
    assert places == sorted(places)
    narrow = p.lookup(convert(tensor_input((9,), dtypes.float32), dtypes.bfloat16), [at], (3,))
    assert simplified(narrow, inputs=(at,)).outputs[0].prim.name == "lookup"
