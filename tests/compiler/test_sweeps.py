"""Nests and sweeps: gradients of normalisation in mixed memory formats, and equal bits."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau
from flambeau.nn import functional as F

EPS = 1e-5
SHAPES = [(2, 4, 1, 1), (1, 8, 7, 7), (3, 24, 5, 9), (8, 64, 14, 14), (2, 3, 33, 31)]
FORMATS = [(a, b) for a in ("contiguous", "channels_last") for b in ("contiguous", "channels_last")]


def _normalised_gradient(x, g, axes):
    """Gradient of (x - mean) / sqrt(var + EPS) over `axes`, and what was normalised."""
    centred = x - x.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt((centred**2).mean(axes, keepdims=True) + EPS)
    y = centred * rstd
    inner = g - g.mean(axes, keepdims=True) - y * (g * y).mean(axes, keepdims=True)
    return inner * rstd, y


def _expected(name, x, g, w):
    """Gradients of x, weight and bias, in double precision."""
    x, g, w = (a.astype(np.float64) for a in (x, g, w))
    weight = w if name == "layer_norm" else w[:, None, None]
    if name == "group_norm":
        grouped = (x.shape[0], 1, -1)
        dx, y = _normalised_gradient(x.reshape(grouped), (g * weight).reshape(grouped), (2,))
        dx, y = dx.reshape(x.shape), y.reshape(x.shape)
    else:
        axes = (0, 2, 3) if name == "batch_norm" else (1, 2, 3)
        dx, y = _normalised_gradient(x, g * weight, axes)
    over = 0 if name == "layer_norm" else (0, 2, 3)
    return dx, (g * y).sum(over), g.sum(over)


def _gradients(name, x, g, w, formats=("contiguous", "channels_last")):
    x, g = (flambeau.from_numpy(a).contiguous(memory_format=getattr(
        flambeau, f"{f}_format" if f == "contiguous" else f))
        for a, f in zip((x, g), formats, strict=True))
    w = flambeau.from_numpy(w)
    b = flambeau.zeros(*w.shape)
    for tensor in (x, w, b):
        tensor.requires_grad_(True)
    if name == "batch_norm":
        y = F.batch_norm(x, None, None, w, b, True, 0.1, EPS)
    elif name == "group_norm":
        y = F.group_norm(x, 1, w, b, EPS)
    else:
        y = F.layer_norm(x, x.shape[1:], w, b, EPS)
    return [t.numpy() for t in flambeau.autograd.grad(y, (x, w, b), g)]


def _data(name, shape):
    rng = np.random.default_rng(sum(shape))
    width = shape[1:] if name == "layer_norm" else shape[1:2]
    return [rng.standard_normal(s, dtype=np.float32) for s in (shape, shape, width)]


@pytest.mark.parametrize("formats", FORMATS, ids="-".join)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "layer_norm"])
def test_gradients_in_mixed_formats(name, shape, formats):
    x, g, w = _data(name, shape)
    for ours, wanted in zip(_gradients(name, x, g, w, formats), _expected(name, x, g, w),
                            strict=True):
        scale = max(1.0, float(abs(wanted).max()))
        np.testing.assert_allclose(ours / scale, wanted / scale, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (301, 7), (64, 129), (3, 4099)], ids=str)
def test_softmax_gradient(shape):
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    for dim in (0, 1):
        ours = flambeau.from_numpy(x).requires_grad_(True)
        (grad,) = flambeau.autograd.grad(F.softmax(ours, dim), (ours,), flambeau.from_numpy(g))
        y = np.exp(x.astype(np.float64))
        y /= y.sum(dim, keepdims=True)
        np.testing.assert_allclose(grad.numpy(), y * (g - (g * y).sum(dim, keepdims=True)),
                                   atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 24, 5, 9), (8, 64, 14, 14), (2, 3, 33, 31)], ids=str)
@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "layer_norm"])
def test_equal_bits_on_any_number_of_threads(name, shape):
    before = flambeau.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 4):
            flambeau.set_num_threads(threads)
            results.append(_gradients(name, *_data(name, shape)))
    finally:
        flambeau.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("shape", [(100, 7), (1000, 16), (20_001, 7), (700, 515), (40, 9001)],
                         ids=str)
def test_sums_of_columns(shape):
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    before = flambeau.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 4):
            flambeau.set_num_threads(threads)
            results.append(flambeau.from_numpy(x).sum(0).numpy())
    finally:
        flambeau.set_num_threads(before)
    np.testing.assert_allclose(results[0], x.astype(np.float64).sum(0), atol=2e-3)
    assert len({r.tobytes() for r in results}) == 1
