"""Elementwise work that is fused into products: which steps take it in, and that results agree."""

from __future__ import annotations

import numpy
import pytest

import flambeau as torch
from flambeau.compiler import program

F = torch.nn.functional


@pytest.fixture
def fused(monkeypatch, fresh_plans):
    """The number of phases that each product takes in, program by program."""
    seen: list[list[int]] = []
    plain = program.fuse

    def spy(steps, *rest):
        result = plain(steps, *rest)
        seen.append([len(s.epilogue) for s in result if hasattr(s, "epilogue")])
        return result

    monkeypatch.setattr(program, "fuse", spy)
    return seen


SHAPES = [(1, 16, 8), (5, 33, 17), (3, 64, 700), (40, 7, 350), (130, 530, 90), (9, 2, 1)]
BODIES = {
    "bias": lambda x, w, b, r: F.linear(x, w, b),
    "gelu": lambda x, w, b, r: F.gelu(F.linear(x, w, b)),
    "residual": lambda x, w, b, r: F.linear(x, w, b) + r,
    "scale": lambda x, w, b, r: (x @ w.t()) * 0.125,
    "twice": lambda x, w, b, r: (lambda h: h * torch.sigmoid(h))(F.linear(x, w)),
    "rows": lambda x, w, b, r: (x @ w.t()) * r[:, :1],
    "position": lambda x, w, b, r: (x @ w.t()).triu(),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BODIES)
def test_what_follows_a_product_is_fused_and_right(name, shape, fused):
    m, n, k = shape
    torch.manual_seed(0)
    x, w, b, r = torch.randn(m, k), torch.randn(n, k), torch.randn(n), torch.randn(m, n)
    expected = BODIES[name](*(t.double() for t in (x, w, b, r)))
    compiled = torch.compile(BODIES[name])
    fused.clear()
    compiled(x, w, b, r)
    result = compiled(x, w, b, r)
    assert any(counts and max(counts) >= 1 for counts in fused)
    numpy.testing.assert_allclose(result.numpy(), expected.float().numpy(), rtol=2e-4, atol=2e-4)


def test_the_plain_product_is_kept_where_it_is_needed():
    x, w = torch.randn(6, 5), torch.randn(5, 9)

    def both(x, w):
        h = x @ w
        return h, torch.relu(h), h.sum()

    compiled = torch.compile(both)
    compiled(x, w)
    for mine, expected in zip(compiled(x, w), both(x, w), strict=True):
        assert torch.allclose(mine, expected)


def test_a_batch_of_products_takes_in_what_follows():
    q = torch.randn(3, 4, 10, 6)

    def scores(q):
        return (q @ q.transpose(-1, -2)) * 0.5 + 1

    compiled = torch.compile(scores)
    compiled(q)
    assert torch.allclose(compiled(q), scores(q), atol=1e-5)


def test_an_update_in_place_of_what_the_product_reads_is_not_taken_in():
    def update(x, w):
        x.copy_(torch.relu(x @ w))
        return x

    start, w = torch.randn(40, 40), torch.randn(40, 40)
    expected = torch.relu(start @ w)
    compiled = torch.compile(update)
    compiled(start.clone(), w)
    assert torch.allclose(compiled(start.clone(), w), expected, atol=1e-5)


def test_a_residual_that_is_updated_in_place():
    def update(r, x, w):
        r += x @ w
        return r

    r, x, w = torch.randn(30, 50), torch.randn(30, 20), torch.randn(20, 50)
    expected = r + x @ w
    compiled = torch.compile(update)
    compiled(r.clone(), x, w)
    assert torch.allclose(compiled(r.clone(), x, w), expected, atol=1e-5)


def test_heads_are_split_and_joined_around_products():
    x, w = torch.randn(4, 8, 32), torch.randn(64, 32)

    def heads(x, w):
        return torch.relu(F.linear(x, w)).reshape(4, 8, 4, 16).permute(0, 2, 1, 3).contiguous()

    compiled = torch.compile(heads)
    compiled(x, w)
    assert torch.allclose(compiled(x, w), heads(x, w), atol=1e-5)
