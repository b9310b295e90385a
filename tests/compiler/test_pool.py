"""Pooling against NumPy, window by window: ranks, layouts, dtypes, gradients, NaN, ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import flambeau as fb

F = fb.nn.functional
FORMATS = ("rows", "channels")  # what is contiguous

# size, kernel, stride, padding, dilation, ceil_mode
CASES = (
    ((37,), (3,), (2,), (1,), (1,), False), ((64,), (5,), (5,), (0,), (1,), True),
    ((9, 19), (3, 3), (1, 1), (1, 1), (1, 1), False),
    ((14, 35), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((13, 34), (3, 2), (2, 3), (1, 0), (1, 1), True),
    ((7, 7), (7, 7), (1, 1), (0, 0), (1, 1), False),
    ((11, 40), (3, 3), (2, 2), (1, 1), (2, 1), False),
    ((5, 6, 18), (2, 3, 3), (2, 1, 2), (1, 1, 1), (1, 1, 1), False),
)
UNDILATED = [case for case in CASES if set(case[4]) == {1}]


def _outputs(case) -> tuple:
    found = []
    for n, k, s, p, d in zip(*case[:5], strict=True):
        over = n + 2 * p - d * (k - 1) - 1
        count = (-(-over // s) if case[5] else over // s) + 1
        found.append(count - (case[5] and (count - 1) * s >= n + p))
    return tuple(found)


def _windows(case):
    """(place of the result, places of its window inside of the image) for all windows."""
    size, kernel, stride, padding, dilation, _ = case
    for place in np.ndindex(*_outputs(case)):
        axes = [[q * s - p + t * d for t in range(k)] for q, k, s, p, d in
                zip(place, kernel, stride, padding, dilation, strict=True)]
        yield place, [at for at in itertools.product(*axes)
                      if all(0 <= i < n for i, n in zip(at, size, strict=True))]


def _image(case, dtype: str = "f4", channels: int = 20) -> np.ndarray:
    return np.random.default_rng(len(case[0])).standard_normal((2, channels, *case[0])).astype(
        dtype)


def _arranged(array: np.ndarray, form: str):
    if form == "channels":
        array = np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
    return fb.from_numpy(array)


def _tensor(array: np.ndarray, form: str):
    return _arranged(array, form).requires_grad_()


def _run(function, array: np.ndarray, form: str) -> tuple:
    """(result, its cotangent, gradient of the image)."""
    x = _tensor(array, form)
    y = function(x)
    g = np.random.default_rng(9).standard_normal(tuple(y.shape)).astype(array.dtype)
    (gx,) = fb.autograd.grad(y, x, _arranged(g, form))
    return y.detach().numpy(), g, gx.numpy()


def _layouts(cases) -> list:
    return [(case, form) for case in cases for form in FORMATS]


@pytest.mark.parametrize(("case", "form"), _layouts(CASES), ids=str)
def test_maximum(case, form: str) -> None:
    array = _image(case)
    pool = getattr(F, f"max_pool{len(case[0])}d")
    y, g, gx = _run(lambda x: pool(x, *case[1:]), array, form)
    wanted, gradient = np.empty(g.shape), np.zeros(array.shape)
    for place, window in _windows(case):
        values = np.stack([array[(..., *at)] for at in window])
        wanted[(..., *place)] = values.max(0)
        first = values.argmax(0)
        for number, at in enumerate(window):
            gradient[(..., *at)] += np.where(first == number, g[(..., *place)], 0)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_allclose(gx, gradient, 1e-5, 1e-5)


@pytest.mark.parametrize(("case", "form"), _layouts(UNDILATED), ids=str)
@pytest.mark.parametrize("padded", [True, False])
def test_mean(case, form: str, padded: bool) -> None:
    array = _image(case)
    size, kernel, stride, padding, _, ceil_mode = case
    pool = getattr(F, f"avg_pool{len(size)}d")
    y, g, gx = _run(lambda x: pool(x, kernel, stride, padding, ceil_mode, padded), array, form)
    wanted, gradient = np.empty(g.shape), np.zeros(array.shape)
    for place, window in _windows(case):
        count = len(window)
        if padded:  # what lies beyond the padding does not count
            count = np.prod([min(q * s - p + k, n + p) - (q * s - p) for q, k, s, p, n in
                             zip(place, kernel, stride, padding, size, strict=True)])
        wanted[(..., *place)] = sum(array[(..., *at)].astype("f8") for at in window) / count
        for at in window:
            gradient[(..., *at)] += g[(..., *place)].astype("f8") / count
    np.testing.assert_allclose(y, wanted, 1e-5, 1e-6)
    np.testing.assert_allclose(gx, gradient, 1e-5, 1e-5)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("out", [(1, 1), (7, 7), (3, 5), (14, 4)])
@pytest.mark.parametrize("rule", ["avg", "max"])
def test_adaptive(rule: str, out: tuple, form: str) -> None:
    array = np.random.default_rng(4).standard_normal((2, 18, 14, 21)).astype("f4")
    pool = getattr(F, f"adaptive_{rule}_pool2d")
    y, g, gx = _run(lambda x: pool(x, out), array, form)
    wanted, gradient = np.empty(g.shape), np.zeros(array.shape)
    for i, j in np.ndindex(*out):
        rows, columns = (slice(q * n // m, -(-(q + 1) * n // m)) for q, n, m in
                         zip((i, j), array.shape[2:], out, strict=True))
        part, below = array[:, :, rows, columns].astype("f8"), g[:, :, i, j]
        if rule == "avg":
            wanted[:, :, i, j] = part.mean((2, 3))
            share = below / (part.shape[2] * part.shape[3])
            gradient[:, :, rows, columns] += share[:, :, None, None]
        else:
            wanted[:, :, i, j] = part.max((2, 3))
            gradient[:, :, rows, columns] += np.where(
                part == wanted[:, :, i, j][:, :, None, None], below[:, :, None, None], 0)
    np.testing.assert_allclose(y, wanted, 1e-5, 1e-6)
    np.testing.assert_allclose(gx, gradient, 1e-5, 1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_ties_and_indices(form: str) -> None:
    """Of equal elements the first counts, in the order of memory of a row-major image."""
    array = np.random.default_rng(5).integers(0, 3, (2, 17, 10, 33)).astype("f4")
    case = (array.shape[2:], (3, 3), (2, 2), (1, 1), (1, 1), False)
    x = _tensor(array, form)
    y, index = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    (gx,) = fb.autograd.grad(y.sum(), x)
    gradient = np.zeros(array.shape)
    for place, window in _windows(case):
        first = np.stack([array[(..., *at)] for at in window]).argmax(0)
        flat = np.array([at[0] * 33 + at[1] for at in window])
        np.testing.assert_array_equal(index.numpy()[(..., *place)], flat[first])
        for number, at in enumerate(window):
            gradient[(..., *at)] += first == number
    np.testing.assert_array_equal(gx.numpy(), gradient)


@pytest.mark.parametrize("form", FORMATS)
def test_nan_and_infinity(form: str) -> None:
    array = np.random.default_rng(6).standard_normal((1, 16, 8, 40)).astype("f4")
    array[:, ::3, 2, 5::7] = np.nan
    array[:, 1::3, :, ::2] = -np.inf
    y = F.max_pool2d(_tensor(array, form), 2).detach().numpy()
    wanted = array.reshape(1, 16, 4, 2, 20, 2).max((3, 5))
    np.testing.assert_array_equal(y, wanted)
    y = F.avg_pool2d(_tensor(array, form), 2).detach().numpy()
    np.testing.assert_allclose(y, array.reshape(1, 16, 4, 2, 20, 2).mean((3, 5)), 1e-5, 1e-6)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types(dtype: str, form: str) -> None:
    wide = np.random.default_rng(7).standard_normal((2, 19, 9, 26)).astype("f4")
    x = _arranged(wide, form).to(getattr(fb, dtype))
    assert x.stride() == _arranged(wide, form).stride()
    plain = x.to(fb.float64).contiguous()
    found = F.max_pool2d(x, 3, 2, 1)
    assert found.dtype is x.dtype
    np.testing.assert_array_equal(found.to(fb.float64).numpy(),
                                  F.max_pool2d(plain, 3, 2, 1).numpy())
    rounding = {"float64": 1e-12, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    np.testing.assert_allclose(F.avg_pool2d(x, 3, 2, 1).to(fb.float64).numpy(),
                               F.avg_pool2d(plain, 3, 2, 1).numpy(), rounding, rounding)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["plain", "ties", "nan", "low"])
@pytest.mark.parametrize(("size", "out"), [
    ((90,), (7,)), ((5,), (11,)), ((40, 37), (3, 4)), ((9, 36), (6, 2)), ((6, 7, 34), (4, 7, 3))])
def test_places_in_bins(size: tuple, out: tuple, kind: str, form: str) -> None:
    """The first maximum of a bin, or its last NaN; the gradient goes there."""
    draws = np.random.default_rng(8)
    array = draws.standard_normal((2, 19, *size)).astype("f4") - 9 * (kind == "low")
    if kind == "ties":
        array = np.round(array)
    elif kind != "plain":
        array[draws.random(array.shape) < 0.1] = np.nan if kind == "nan" else -np.inf
    x = _tensor(array, form)
    pool = getattr(F, f"adaptive_max_pool{len(size)}d")
    y, index = pool(x, out, return_indices=True)
    g = draws.integers(-3, 4, y.shape).astype("f4")
    (gx,) = fb.autograd.grad(y, x, fb.from_numpy(g))
    numbers, gradient = np.arange(np.prod(size)).reshape(size), np.zeros((38, np.prod(size)))
    for place in np.ndindex(*out):
        bin_ = tuple(slice(q * n // m, -(-(q + 1) * n // m))
                     for q, n, m in zip(place, size, out, strict=True))
        part, flat = array[(..., *bin_)].reshape(38, -1), numbers[bin_].reshape(-1)
        lost = np.isnan(part)
        at = np.where(lost.any(1), part.shape[1] - 1 - lost[:, ::-1].argmax(1), part.argmax(1))
        np.testing.assert_array_equal(index.numpy()[(..., *place)].reshape(-1), flat[at])
        np.testing.assert_array_equal(y.detach().numpy()[(..., *place)].reshape(-1),
                                      part[np.arange(38), at])
        np.add.at(gradient, (np.arange(38), flat[at]), g[(..., *place)].reshape(-1))
    np.testing.assert_array_equal(gx.numpy().reshape(38, -1), gradient)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_bins_of_other_types(dtype: str, form: str) -> None:
    wide = np.random.default_rng(9).standard_normal((2, 19, 13, 26)).astype("f4")
    x = _arranged(wide, form).to(getattr(fb, dtype))
    plain = x.to(fb.float64).contiguous()
    assert (F.adaptive_max_pool2d(x, (4, 7)).to(fb.float64)
            == F.adaptive_max_pool2d(plain, (4, 7))).all()
    found, rounding = F.adaptive_avg_pool2d(x, (4, 7)), {"float64": 1e-12}.get(dtype, 8e-3)
    np.testing.assert_allclose(found.to(fb.float64).numpy(),
                               F.adaptive_avg_pool2d(plain, (4, 7)).numpy(), rounding, rounding)
