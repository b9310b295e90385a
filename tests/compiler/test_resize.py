"""Resizing of images against sums over tables of places and weights, in both memory formats."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as fb

CASES = [("nearest", None), ("bilinear", False), ("bilinear", True), ("bicubic", False),
         ("bicubic", True)]
SIZES = [((7, 9), (14, 18)), ((12, 33), (5, 40)), ((6, 5), (6, 21)), ((8, 8), (1, 3))]


def _cubic(t: np.ndarray) -> np.ndarray:
    """The convolution kernel of Keys (1981) with a = -0.75."""
    a, t = -0.75, np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def _matrix(mode: str, corners: bool | None, old: int, new: int) -> np.ndarray:
    """The matrix (new, old) that resizes one dimension."""
    made = np.zeros((new, old))
    if mode == "nearest":
        made[np.arange(new), np.arange(new) * old // new] = 1
        return made
    for i in range(new):
        at = (i * (old - 1) / (new - 1) if new > 1 else 0.0) if corners else (
            (i + 0.5) * old / new - 0.5)
        if mode == "bilinear":
            at = max(at, 0.0)
        low = int(np.floor(at))
        taps = range(low, low + 2) if mode == "bilinear" else range(low - 1, low + 3)
        for tap in taps:
            weight = max(0.0, 1 - abs(at - tap)) if mode == "bilinear" else _cubic(
                np.array(at - tap))
            made[i, min(max(tap, 0), old - 1)] += weight
    return made


@pytest.mark.parametrize("form", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize(("mode", "corners"), CASES)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resizing_and_its_gradient(mode: str, corners: bool | None, old: tuple, new: tuple,
                                   form: str) -> None:
    rng = np.random.default_rng(0)
    array = rng.standard_normal((2, 19, *old)).astype("f4")
    x = fb.from_numpy(array).to(memory_format=getattr(fb, form)).requires_grad_()
    y = fb.nn.functional.interpolate(x, size=new, mode=mode, align_corners=corners)
    g = rng.standard_normal(tuple(y.shape)).astype("f4")
    (gx,) = fb.autograd.grad(y, x, fb.from_numpy(g).to(memory_format=getattr(fb, form)))
    rows, columns = (_matrix(mode, corners, o, n) for o, n in zip(old, new, strict=True))
    np.testing.assert_allclose(y.detach().numpy(), rows @ array.astype("f8") @ columns.T, 2e-5,
                               2e-5)
    np.testing.assert_allclose(gx.numpy(), rows.T @ g.astype("f8") @ columns, 2e-5, 2e-5)
