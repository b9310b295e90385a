"""Depthwise and grouped convolutions against NumPy, in both memory formats."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as fb

# n, channels in, out, groups, size, kernel, stride, padding, dilation
CASES = (
    (2, 6, 6, 6, (9, 19), (3, 3), 1, 1, 1), (2, 40, 40, 40, (7, 7), (3, 3), 1, 1, 1),
    (1, 16, 16, 16, (14, 17), (5, 3), 2, 2, 1), (2, 16, 32, 16, (8, 9), (3, 3), 2, 0, 2),
    (2, 32, 32, 8, (6, 18), (3, 3), 1, 1, 1), (1, 24, 24, 12, (9, 9), (2, 3), (1, 2), (0, 1), 1),
)


def _reference(x, w, gy, groups, stride, padding, dilation):
    """(output, gradient of x, gradient of w), tap by tap in float64."""
    s, p, d = ((v, v) if isinstance(v, int) else v for v in (stride, padding, dilation))
    wide = np.pad(x.astype("f8"), ((0, 0), (0, 0), (p[0], p[0]), (p[1], p[1])))
    y, gx, gw = np.zeros(gy.shape), np.zeros_like(wide), np.zeros(w.shape)
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for ky, kx in np.ndindex(*w.shape[2:]):
        window = tuple(slice(k * a, k * a + b * (o - 1) + 1, b)
                       for k, a, b, o in zip((ky, kx), d, s, gy.shape[2:], strict=True))
        for g in range(groups):
            i, o = slice(g * per_in, (g + 1) * per_in), slice(g * per_out, (g + 1) * per_out)
            part, factor = wide[:, i, window[0], window[1]], w[o, :, ky, kx]
            y[:, o] += np.einsum("nchw,oc->nohw", part, factor)
            gx[:, i, window[0], window[1]] += np.einsum("nohw,oc->nchw", gy[:, o], factor)
            gw[o, :, ky, kx] = np.einsum("nohw,nchw->oc", gy[:, o], part)
    return y, gx[:, :, p[0]:p[0] + x.shape[2], p[1]:p[1] + x.shape[3]], gw


@pytest.mark.parametrize("memory_format", ("contiguous_format", "channels_last"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_grouped(case, memory_format):
    n, c_in, c_out, groups, size, kernel, *geometry = case
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c_in, *size)).astype("f4")
    w = rng.standard_normal((c_out, c_in // groups, *kernel)).astype("f4")
    form = getattr(fb, memory_format)
    tx = fb.from_numpy(x).to(memory_format=form).requires_grad_()
    tw = fb.from_numpy(w).requires_grad_()
    y = fb.nn.functional.conv2d(tx, tw, None, *geometry, groups)
    gy = rng.standard_normal(tuple(y.shape)).astype("f4")
    gradients = fb.autograd.grad(y, (tx, tw), fb.from_numpy(gy).to(memory_format=form))
    expected = _reference(x, w, gy, groups, *geometry)
    for got, wanted in zip((y, *gradients), expected, strict=True):
        assert np.abs(got.detach().numpy() - wanted).max() < 2e-6 * np.abs(wanted).max()
