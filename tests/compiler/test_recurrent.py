"""Recurrent kernels against formulas that are stepped through time one by one."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch

KINDS = ("LSTM", "GRU", "RNN")
SHAPES = ((1, 1, 1, 1), (5, 3, 7, 4), (9, 2, 16, 33), (12, 20, 24, 64))  # steps, batch, in, hidden


def stepped(kind: str, x, weights: list):
    """The outputs of one direction, step by step."""
    state, outputs = None, []
    for time in range(x.shape[0]):
        state = _step(kind, x[time], state, weights)
        outputs.append(state[0] if kind == "LSTM" else state)
    return torch.stack(outputs)


def _step(kind: str, x, state, weights: list):
    w_ih, w_hh, b_ih, b_hh = weights
    hidden = w_hh.shape[1]
    if state is None:
        zero = torch.zeros(x.shape[0], hidden, dtype=x.dtype)
        state = (zero, zero) if kind == "LSTM" else zero
    h = state[0] if kind == "LSTM" else state
    given, recurrent = x @ w_ih.t() + b_ih, h @ w_hh.t() + b_hh
    if kind == "RNN":
        return torch.tanh(given + recurrent)
    if kind == "GRU":
        (rx, zx, nx), (rh, zh, nh) = given.chunk(3, 1), recurrent.chunk(3, 1)
        r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
        n = torch.tanh(nx + r * nh)
        return n + z * (h - n)
    i, f, g, o = (given + recurrent).chunk(4, 1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind, shape):
    steps, batch, size, hidden = shape
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(size, hidden).double()
    weights = list(layer.parameters())
    x = torch.randn(steps, batch, size, dtype=torch.float64, requires_grad=True)
    out, _ = layer(x)
    expected = stepped(kind, x, weights)
    assert torch.allclose(out, expected, atol=1e-10)
    g = torch.randn(*out.shape, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(out, (x, *weights), g),
                    torch.autograd.grad(expected, (x, *weights), g), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_agrees_with_float64(kind):
    torch.manual_seed(1)
    layer = getattr(torch.nn, kind)(40, 70, 2, batch_first=True, bidirectional=True)
    x = torch.randn(6, 11, 40)
    single = layer(x)[0].detach().numpy().copy()
    double = layer.double()(x.double())[0].detach().numpy()
    assert np.allclose(single, double, atol=2e-5)


@pytest.mark.parametrize("batch", (1, 3, 16))
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_threads(kind, batch):
    torch.manual_seed(2)
    layer = getattr(torch.nn, kind)(32, 96)
    x = torch.randn(7, batch, 32)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            out, _ = layer(x)
            grads = torch.autograd.grad(out.sum(), tuple(layer.parameters()))
            results.append([t.detach().numpy().copy() for t in (out, *grads)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)
