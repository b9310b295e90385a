"""Nested tensors against their parts."""

from __future__ import annotations

import copy
import pickle

import pytest

import flambeau as torch
from flambeau.nn import functional as F

LAYOUTS = (torch.jagged, torch.strided)


def parts(*lengths, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, width, generator=generator, dtype=torch.float64) for n in lengths]


def same(nested, expected):
    found = nested.unbind()
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_and_sizes(layout):
    given = parts(2, 4)
    n = torch.nested.nested_tensor(given, layout=layout)
    assert isinstance(n, torch.Tensor) and n.is_nested and n.layout is layout
    assert (n.dim(), n.size(0), n.size(-1), n.numel(), len(n)) == (3, 2, 3, 18, 2)
    assert n.dtype is torch.float64 and not given[0].is_nested
    same(n, given)
    assert torch.equal(n[1], given[1]) and torch.equal(n[0][1], given[0][1])
    with pytest.raises(IndexError):
        n[2]


def test_text_and_shape():
    j = torch.nested.nested_tensor([[1.0, 2.0], [3.0]], layout=torch.jagged)
    name = repr(j.size(1))
    assert name.startswith("j") and repr(j.shape) == f"torch.Size([2, {name}])"
    assert repr(j) == f"NestedTensor(size=(2, {name}), offsets=tensor([0, 2, 3]), contiguous=True)"
    assert j.offsets().tolist() == [0, 2, 3] and j.values().tolist() == [1, 2, 3]
    assert j.size(1) == j.sin().size(1) and j.size(1) != 2
    n = torch.nested.nested_tensor([[1.0, 2.0], [3.0]])
    assert repr(n) == "nested_tensor([\n  tensor([1., 2.]),\n  tensor([3.])\n])"
    with pytest.raises(RuntimeError, match="sizes"):
        n.size()
    with pytest.raises(RuntimeError, match="irregular"):
        n.size(1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", [
    torch.sin, F.gelu, F.relu, lambda x: x + x * 2, lambda x: x > 0, lambda x: x.to(torch.float32),
    lambda x: F.softmax(x, -1), lambda x: F.layer_norm(x, (3,)), lambda x: x.clone().mul_(2),
    lambda x: F.linear(x, torch.eye(3, dtype=torch.float64)[:2]), lambda x: x.sum(-1),
    lambda x: x @ torch.ones(3, 5, dtype=torch.float64), lambda x: torch.where(x > 0, x, -x),
    lambda x: torch.zeros_like(x), lambda x: torch.ones_like(x), lambda x: F.dropout(x, 0.0),
])
def test_operations_equal_those_of_the_parts(layout, function):
    given = parts(2, 5, 1)
    same(function(torch.nested.nested_tensor(given, layout=layout)), [function(p) for p in given])


def test_jagged_ones_broadcast():
    given, row = parts(2, 4), torch.arange(3.0, dtype=torch.float64)
    j = torch.nested.nested_tensor(given, layout=torch.jagged)
    same(j * row, [p * row for p in given])
    same(row + j, [row + p for p in given])
    each = torch.arange(6.0, dtype=torch.float64).reshape(2, 1, 3)
    same(j - each, [p - e for p, e in zip(given, each, strict=True)])
    with pytest.raises(RuntimeError, match="different shapes"):
        j + torch.nested.nested_tensor(parts(3, 3), layout=torch.jagged)
    with pytest.raises(NotImplementedError, match="sort"):
        j.sort()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding(layout):
    given = parts(2, 4)
    n = torch.nested.nested_tensor(given, layout=layout)
    padded = torch.nested.to_padded_tensor(n, -1.0)
    assert padded.shape == (2, 4, 3) and torch.equal(padded[0, :2], given[0])
    assert bool((padded[0, 2:] == -1).all())
    assert n.to_padded_tensor(0.0, (2, 5, 4)).shape == (2, 5, 4)
    with pytest.raises(RuntimeError, match="output_size"):
        n.to_padded_tensor(0.0, (2, 3, 3))


def test_reductions():
    given = parts(2, 4)
    j = torch.nested.nested_tensor(given, layout=torch.jagged)
    torch.testing.assert_close(j.sum(), sum(p.sum() for p in given))
    torch.testing.assert_close(j.sum(1), torch.stack([p.sum(0) for p in given]))
    same(j.mean(-1, keepdim=True), [p.mean(-1, keepdim=True) for p in given])
    assert j.max() == max(p.max() for p in given)
    with pytest.raises(RuntimeError, match="batch"):
        j.sum(0)


def test_transposes_and_attention():
    given = parts(3, 5, width=8)
    j = torch.nested.nested_tensor(given, layout=torch.jagged)
    same(j.transpose(1, 2), [p.t() for p in given])
    heads = torch.nested.nested_tensor([p.reshape(-1, 2, 4) for p in given], layout=torch.jagged)
    q = heads.transpose(1, 2)
    found = F.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2)
    expected = []
    for p in given:
        h = p.reshape(-1, 2, 4).transpose(0, 1)
        expected.append(F.scaled_dot_product_attention(h, h, h, is_causal=True).transpose(0, 1))
    same(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_reach_parts_and_weights(layout):
    given = [p.requires_grad_() for p in parts(2, 4)]
    weight = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    n = torch.nested.as_nested_tensor(given, layout=layout)
    F.gelu(F.linear(n, weight)).to_padded_tensor(0.0).sum().backward()
    found = [p.grad for p in given] + [weight.grad]
    for t in (*given, weight):
        t.grad = None
    sum(F.gelu(F.linear(p, weight)).sum() for p in given).backward()
    for a, b in zip(found, [*(p.grad for p in given), weight.grad], strict=True):
        torch.testing.assert_close(a, b)


def test_leaves_have_nested_gradients():
    j = torch.nested.nested_tensor(parts(2, 4), layout=torch.jagged, requires_grad=True)
    for _ in range(2):
        (j * j).sum().backward()
    assert j.grad.is_nested and j.is_leaf
    same(j.grad, [4 * p for p in j.detach().unbind()])
    values = torch.ones(5, 2, requires_grad=True)
    made = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 2, 5]))
    made.unbind()[1].sum().backward()
    assert values.grad.sum(1).tolist() == [0, 0, 2, 2, 2]


def test_other_ways_to_make_them():
    values = torch.arange(10.0).reshape(5, 2)
    by_lengths = torch.nested.nested_tensor_from_jagged(values, lengths=torch.tensor([2, 3]))
    same(by_lengths, [values[:2], values[2:]])
    same(torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 2, 5]),
                                                torch.tensor([1, 2])), [values[:1], values[2:4]])
    dense = torch.arange(12.0).reshape(2, 3, 2)
    same(torch.nested.as_nested_tensor(dense, layout=torch.jagged), list(dense))
    same(torch.nested.narrow(dense, 1, torch.tensor([0, 1]), torch.tensor([1, 2]),
                             layout=torch.jagged), [dense[0, :1], dense[1, 1:]])
    mask = torch.tensor([[True, False, True], [False, False, True]])
    same(torch.nested.masked_select(dense[:, :, 0], mask),
         [dense[0, [0, 2], 0], dense[1, [2], 0]])
    for wrong, message in (((torch.tensor([0, 9]),), "at most"), ((), "required")):
        with pytest.raises(RuntimeError, match=message):
            torch.nested.nested_tensor_from_jagged(values, *wrong)
    with pytest.raises(RuntimeError, match="same dimension"):
        torch.nested.nested_tensor([torch.ones(2), torch.ones(2, 2)])
    with pytest.raises(RuntimeError, match="jagged layout"):
        torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 2)], layout=torch.jagged)
    wide = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(2, 1)], layout=torch.jagged)
    assert wide.offsets().tolist() == [0, 3, 4] and wide.size(1) == 2
    assert [tuple(part.shape) for part in wide.unbind()] == [(2, 3), (2, 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies(layout):
    n = torch.nested.nested_tensor(parts(2, 4), layout=layout)
    for other in (copy.copy(n), copy.deepcopy(n), pickle.loads(pickle.dumps(n))):
        assert other.layout is layout
        same(other, n.unbind())
