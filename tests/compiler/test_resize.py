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


def _windows(old: int, new: int, cubic: bool) -> np.ndarray:
    """The matrix (new, old) of an antialiasing kernel, as wide as what it shrinks."""
    made, ratio = np.zeros((new, old)), old / new
    stretch = max(ratio, 1.0)
    support = (2 if cubic else 1) * stretch
    for i in range(new):
        centre = ratio * (i + 0.5)
        for k in range(max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), old)):
            t = abs((k - centre + 0.5) / stretch)
            if not cubic:
                made[i, k] = max(0.0, 1 - t)
            elif t < 2:  # Keys with a = -0.5
                made[i, k] = ((1.5 * t - 2.5) * t * t + 1 if t < 1 else
                              ((-0.5 * t + 2.5) * t - 4) * t + 2)
        made[i] /= made[i].sum()
    return made


def _resized_bytes(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The last dimension resized: weights rounded to the finest binary places that 16 bits hold."""
    digits = 0
    while digits < 22 and int(0.5 + matrix.max() * 2 ** (digits + 1)) < 1 << 15:
        digits += 1
    whole = np.trunc(matrix * 2**digits + np.copysign(0.5, matrix)).astype("i8")
    return np.clip((x.astype("i8") @ whole.T + (1 << (digits - 1))) >> digits, 0, 255)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_bytes_are_resized_in_whole_numbers(mode: str, antialias: bool) -> None:
    rng = np.random.default_rng(1)
    for old, new in [((7, 9), (14, 18)), ((12, 33), (5, 40)), ((6, 21), (6, 5)), ((40, 8), (3, 3))]:
        array = rng.integers(0, 256, (2, 3, *old)).astype("u1")
        expected = array
        for d in (3, 2):
            if old[d - 2] != new[d - 2]:
                sizes = old[d - 2], new[d - 2]
                matrix = (_windows(*sizes, mode == "bicubic") if antialias else
                          _matrix(mode, False, *sizes))
                expected = _resized_bytes(expected.swapaxes(d, 3), matrix).swapaxes(d, 3)
        y = fb.nn.functional.interpolate(fb.from_numpy(array), size=new, mode=mode,
                                         antialias=antialias)
        assert y.dtype is fb.uint8
        np.testing.assert_array_equal(y.numpy(), expected)


def test_other_integers_are_not_resized_smoothly() -> None:
    with pytest.raises(NotImplementedError, match="not implemented for 'Int'"):
        fb.nn.functional.interpolate(fb.ones(1, 1, 2, 2, dtype=fb.int32), size=3, mode="bilinear")
    with pytest.raises(NotImplementedError, match="not implemented for 'Byte'"):
        fb.nn.functional.interpolate(fb.ones(1, 1, 2, dtype=fb.uint8), size=3, mode="linear")


@pytest.mark.parametrize("form", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("old", "new"), [*SIZES, ((40, 70), (3, 2)), ((1, 5), (4, 90))])
def test_kernels_as_wide_as_what_they_shrink(mode: str, old: tuple, new: tuple, form: str) -> None:
    rng = np.random.default_rng(2)
    array = rng.standard_normal((2, 19, *old)).astype("f4")
    x = fb.from_numpy(array).to(memory_format=getattr(fb, form)).requires_grad_()
    y = fb.nn.functional.interpolate(x, size=new, mode=mode, antialias=True)
    g = rng.standard_normal(tuple(y.shape)).astype("f4")
    (gx,) = fb.autograd.grad(y, x, fb.from_numpy(g))
    rows, columns = (_windows(o, n, mode == "bicubic") for o, n in zip(old, new, strict=True))
    np.testing.assert_allclose(y.detach().numpy(), rows @ array.astype("f8") @ columns.T, 3e-5,
                               3e-5)
    np.testing.assert_allclose(gx.numpy(), rows.T @ g.astype("f8") @ columns, 3e-5, 3e-5)


def test_antialiasing_reads_no_place_that_has_no_weight() -> None:
    x = fb.zeros(1, 1, 1, 20)
    x[..., -1] = float("inf")
    y = fb.nn.functional.interpolate(x, size=(1, 5), mode="bilinear", antialias=True)
    assert y.isinf().tolist() == [[[[False, False, False, False, True]]]]


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_an_infinite_gradient_stays_where_it_belongs(mode: str) -> None:
    x = fb.ones(1, 1, 6, 20, requires_grad=True)
    y = fb.nn.functional.interpolate(x, size=(5, 23), mode=mode)
    g = fb.ones(*y.shape)
    g[..., 0] = float("inf")
    (gx,) = fb.autograd.grad(y, x, g)
    assert gx[..., 4:].isfinite().all() and not gx[..., 0, 0].isfinite().any()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("new", [1, 5, 40])
def test_signals(new: int, last: bool) -> None:
    rng = np.random.default_rng(3)
    array = rng.standard_normal((2, 17, 19)).astype("f4")
    x = fb.from_numpy(array)
    if last:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    y = fb.nn.functional.interpolate(x.requires_grad_(), size=new, mode="linear")
    g = rng.standard_normal(tuple(y.shape)).astype("f4")
    (gx,) = fb.autograd.grad(y, x, fb.from_numpy(g))
    matrix = _matrix("bilinear", False, 19, new)
    np.testing.assert_allclose(y.detach().numpy(), array.astype("f8") @ matrix.T, 2e-5, 2e-5)
    np.testing.assert_allclose(gx.numpy(), g.astype("f8") @ matrix, 2e-5, 2e-5)
