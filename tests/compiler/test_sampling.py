"""Images read at the places of a grid, against plain sums over the places' neighbours."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as fb

F = fb.nn.functional


def _bilinear(x: np.ndarray, grid: np.ndarray, border: bool) -> np.ndarray:
    """`grid_sample` with corners aligned."""
    n, c, h, w = x.shape
    made = np.zeros((n, c, *grid.shape[1:3]))
    for b, i, j in np.ndindex(grid.shape[:3]):
        at = [(grid[b, i, j, 1 - d] + 1) / 2 * (size - 1) for d, size in enumerate((h, w))]
        if border:
            at = [min(max(v, 0), size - 1) for v, size in zip(at, (h, w), strict=True)]
        low = [int(np.floor(v)) for v in at]
        for y, z in np.ndindex(2, 2):
            row, column = low[0] + y, low[1] + z
            if 0 <= row < h and 0 <= column < w:
                share = (1 - abs(at[0] - row)) * (1 - abs(at[1] - column))
                made[b, :, i, j] += share * x[b, :, row, column]
    return made


@pytest.mark.parametrize("form", ["contiguous_format", "channels_last", "broadcast"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("border", [False, True])
def test_bilinear(border: bool, dtype: str, form: str) -> None:
    rng = np.random.default_rng(0)
    for channels, out in ((3, (2, 5)), (13, (20, 31))):
        x = rng.standard_normal((2, channels, 6, 7))
        grid = rng.uniform(-1.3, 1.3, (2, *out, 2))
        kind = getattr(fb, dtype)
        image, places = fb.tensor(x).to(kind), fb.tensor(grid).to(kind)
        if form == "broadcast":
            image = image[:1].expand(2, -1, -1, -1)
        else:
            image = image.to(memory_format=getattr(fb, form))
        found = F.grid_sample(image, places, padding_mode="border" if border else "zeros",
                              align_corners=True)
        wanted = _bilinear(image.double().numpy(), places.double().numpy(), border)
        near = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 3e-2}[dtype]
        np.testing.assert_allclose(found.double().numpy(), wanted, near, near)


@pytest.mark.parametrize("channels", [2, 9])
def test_gradients_agree_with_differences(channels: int) -> None:
    rng = np.random.default_rng(1)
    x = fb.tensor(rng.standard_normal((2, channels, 4, 5))).requires_grad_()
    grid = fb.tensor(rng.uniform(-1.2, 1.2, (2, 3, 2, 2))).requires_grad_()
    for mode in ("bilinear", "bicubic"):
        assert fb.autograd.gradcheck(
            lambda a, b, mode=mode: F.grid_sample(a, b, mode=mode, align_corners=False), (x, grid))


def test_what_lies_outside_is_not_read() -> None:
    x = fb.ones(1, 1, 3, 3)
    x[0, 0, 0, 0] = float("inf")
    grid = fb.tensor([[[[-3.0, 0.2], [1e30, -1e30], [float("nan"), 0.0], [0.0, 0.0]]]])
    found = F.grid_sample(x, grid, align_corners=True)[0, 0, 0].tolist()
    assert found[:2] == [0, 0] and np.isnan(found[2]) and found[3] == 1


def test_bits_do_not_depend_on_threads() -> None:
    rng = np.random.default_rng(2)
    x = fb.tensor(rng.standard_normal((2, 20, 30, 40)).astype("f4"))
    grid = fb.tensor(rng.uniform(-1.1, 1.1, (2, 40, 50, 2)).astype("f4"))
    before, found = fb.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fb.set_num_threads(threads)
            found.append(F.grid_sample(x, grid, mode="bicubic", align_corners=False))
    finally:
        fb.set_num_threads(before)
    assert all(fb.equal(found[0], other) for other in found[1:])
