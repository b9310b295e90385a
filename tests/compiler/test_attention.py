"""Attention kernels against softmax(Q K^T) V, and against autograd through that formula."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch

F = torch.nn.functional


def plain(q, k, v, mask=None, causal=False):
    """The definition, with tensors of any framework of ours; differentiable."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        keep = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~keep, float("-inf"))
    if mask is not None and mask.dtype is torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    return torch.softmax(scores, -1) @ v


SHAPES = (  # batch, heads, rows, keys, depth, width
    (1, 1, 1, 1, 1, 1), (2, 3, 5, 7, 4, 6), (1, 2, 130, 130, 64, 64), (2, 1, 33, 300, 17, 20),
    (1, 2, 300, 40, 128, 128),
)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("kind", ("plain", "causal", "bool", "float"))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(shape, kind, dtype):
    batch, heads, rows, keys, depth, width = shape
    torch.manual_seed(0)
    kind_of = getattr(torch, dtype)
    q = torch.randn(batch, heads, rows, depth, dtype=kind_of, requires_grad=True)
    k = torch.randn(batch, heads, keys, depth, dtype=kind_of, requires_grad=True)
    v = torch.randn(batch, heads, keys, width, dtype=kind_of, requires_grad=True)
    mask = None
    if kind == "bool":
        mask = torch.rand(rows, keys) > 0.3
        mask[:, 0] = True
    elif kind == "float":
        mask = torch.randn(batch, 1, rows, keys, dtype=kind_of)
    causal = kind == "causal"
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    if causal and rows != keys:
        pytest.skip("the formula above aligns the mask at the upper left only for squares")
    expected = plain(q, k, v, mask, causal)
    g = torch.randn(*out.shape, dtype=kind_of)
    tolerance = 3e-5 if dtype == "float32" else 1e-12
    assert torch.allclose(out, expected, rtol=tolerance, atol=tolerance)
    for a, b in zip(torch.autograd.grad(out, (q, k, v), g),
                    torch.autograd.grad(expected, (q, k, v), g), strict=True):
        assert torch.allclose(a, b, rtol=tolerance * 10, atol=tolerance * 10)


@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
@pytest.mark.parametrize("kind", ("plain", "causal", "bool", "float"))
@pytest.mark.parametrize("shape", (*SHAPES, (1, 1, 40, 513, 300, 270), (1, 1, 16, 31, 32, 33)),
                         ids=str)
def test_sixteen_bits(shape, kind, dtype):
    """Weights are rounded once, results once."""
    batch, heads, rows, keys, depth, width = shape
    if kind == "causal" and rows != keys:
        pytest.skip("as above")
    torch.manual_seed(0)
    kind_of = getattr(torch, dtype)
    q = torch.randn(batch, heads, rows, depth).to(kind_of)
    k = torch.randn(batch, heads, keys, depth).to(kind_of)
    v = torch.randn(batch, heads, keys, width).to(kind_of)
    mask = None
    if kind == "bool":
        mask = torch.rand(rows, keys) > 0.3
        mask[:, 0] = True
    elif kind == "float":
        mask = torch.randn(batch, 1, rows, keys).to(kind_of)
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "causal")
    assert out.dtype is kind_of
    wide = mask.double() if kind == "float" else mask
    expected = plain(q.double(), k.double(), v.double(), wide, kind == "causal")
    error = (out.double() - expected).abs().max().item()
    assert error <= 1.5 * torch.finfo(kind_of).eps * max(1.0, expected.abs().max().item())


def test_grouped_queries_and_transposed_operands():
    torch.manual_seed(1)
    q = torch.randn(2, 50, 8, 16).transpose(1, 2)
    k, v = (torch.randn(2, 50, 2, 16).transpose(1, 2) for _ in range(2))
    out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    expected = plain(q, k.repeat_interleave(4, 1), v.repeat_interleave(4, 1))
    assert torch.allclose(out, expected, atol=2e-5)


def test_rows_that_see_nothing_are_zero():
    q, k, v = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 6, 8), torch.randn(1, 1, 6, 8)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[2] = False
    out = F.scaled_dot_product_attention(q, k, v, mask)
    assert (out[0, 0, 2] == 0).all() and not out.isnan().any()


def test_large_scores_do_not_overflow():
    q = torch.full((1, 1, 3, 4), 1e3)
    v = torch.randn(1, 1, 5, 4)
    out = F.scaled_dot_product_attention(q, torch.full((1, 1, 5, 4), 1e3), v)
    assert np.allclose(out.numpy(), v.mean(2, keepdim=True).expand(1, 1, 3, 4).numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_bits_do_not_depend_on_threads(dtype):
    before, results = torch.get_num_threads(), []
    torch.manual_seed(2)
    q, k, v = (torch.randn(2, 3, 200, 64).to(dtype).requires_grad_() for _ in range(3))
    try:
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            grads = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
            results.append([t.detach().float().numpy().copy() for t in (out, *grads)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)
