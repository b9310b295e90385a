"""Convolutions of bfloat16 images: results and gradients against float32, on any machine."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.convolution import low
from flambeau.compiler.convolution.geometry import Convolution, Operand
from flambeau.compiler.convolution.low import dot_engine
from flambeau.compiler.convolution.low_plan import is_patches
from flambeau.compiler.products.packing import tile_for
from flambeau.compiler.target import LEVELS, Target, host
from flambeau.nn import functional as F

CASES = {  # n, channels, lanes, image, kernel, stride, padding, dilation
    "3x3": (2, 64, 64, (14, 14), (3, 3), 1, 1, 1),
    "ragged": (2, 40, 70, (13, 9), (3, 3), 1, 1, 1),
    "small": (3, 32, 33, (7, 7), (3, 3), 1, 1, 1),
    "strided": (2, 64, 48, (13, 9), (3, 3), 2, 1, 1),
    "pointwise": (2, 64, 128, (6, 6), (1, 1), 1, 0, 1),
    "pointwise strided": (2, 64, 32, (12, 12), (1, 1), 2, 0, 1),
    "stem": (2, 3, 64, (40, 38), (7, 7), 2, 3, 1),
    "one channel": (2, 1, 20, (30, 20), (3, 3), 1, 1, 1),
    "uneven": (2, 20, 8, (30, 20), (3, 5), (1, 2), (2, 1), (2, 1)),
    "stride 3": (2, 33, 64, (20, 20), (3, 3), 3, 0, 1),
    "dilated": (1, 128, 32, (20, 50), (3, 3), 1, 4, 4),
    "one lane": (1, 48, 1, (40, 30), (3, 3), 1, 0, 1),
    "windows": (2, 96, 160, (8, 8), (2, 2), 2, 0, 1),
    "gaps": (2, 32, 32, (9, 9), (2, 2), 3, 0, 1),
}


def _tensors(case: tuple, last: bool) -> tuple:
    n, channels, lanes, image, kernel, *_ = case
    torch.manual_seed(7)
    x, w, b = torch.randn(n, channels, *image), torch.randn(lanes, channels, *kernel), torch.randn(
        lanes)
    found = [t.bfloat16() for t in (x, w * 0.1, b)]
    if last:
        found[:2] = [t.contiguous(memory_format=torch.channels_last) for t in found[:2]]
    return tuple(t.requires_grad_() for t in found)


def _close(found, wanted) -> None:
    a, b = found.detach().float().numpy(), wanted.detach().numpy()
    np.testing.assert_allclose(a, b, rtol=1e-2, atol=6e-3 * max(1e-6, np.abs(b).max()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "row-major"])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_float32(name: str, last: bool, bias: bool) -> None:
    _check(CASES[name], last, bias)


def _check(case: tuple, last: bool, bias: bool) -> None:
    geometry = dict(zip(("stride", "padding", "dilation"), case[5:], strict=True))
    given = _tensors(case, last)
    wide = [t.detach().float().contiguous().requires_grad_() for t in given]
    if not bias:
        given, wide = (*given[:2], None), [*wide[:2], None]
    y, wanted = F.conv2d(*given, **geometry), F.conv2d(*wide, **geometry)
    assert y.dtype is torch.bfloat16
    _close(y, wanted)
    g = torch.randn(y.shape).bfloat16()
    y.backward(g)
    wanted.backward(g.float())
    for a, b in zip(given, wide, strict=True):
        if a is not None:
            assert a.grad.dtype is torch.bfloat16
            _close(a.grad, b.grad)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    torch.manual_seed(1)
    image, kernel = (50, 6, 7)[:rank], (3, 2, 3)[:rank]
    x = torch.randn(2, 32, *image).bfloat16().requires_grad_()
    w = (torch.randn(40, 32, *kernel) * 0.1).bfloat16().requires_grad_()
    xf, wf = (t.detach().float().requires_grad_() for t in (x, w))
    conv = (F.conv1d, None, F.conv3d)[rank - 1]
    y, wanted = conv(x, w, stride=2, padding=1), conv(xf, wf, stride=2, padding=1)
    _close(y, wanted)
    g = torch.randn(y.shape).bfloat16()
    y.backward(g)
    wanted.backward(g.float())
    _close(x.grad, xf.grad)
    _close(w.grad, wf.grad)


def test_long_lines_and_large_images_are_cut() -> None:
    torch.manual_seed(2)
    x = torch.randn(1, 64, 9000).bfloat16().requires_grad_()
    w = (torch.randn(64, 64, 5) * 0.1).bfloat16().requires_grad_()
    xf, wf = (t.detach().float().requires_grad_() for t in (x, w))
    y, wanted = F.conv1d(x, w, padding=2), F.conv1d(xf, wf, padding=2)
    _close(y, wanted)
    g = torch.randn(y.shape).bfloat16()
    y.backward(g)
    wanted.backward(g.float())
    _close(x.grad, xf.grad)
    _close(w.grad, wf.grad)


def test_equal_bits_on_any_number_of_threads() -> None:
    case = (4, 64, 96, (30, 30), (3, 3), 1, 1, 1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            x, w, b = _tensors(case, True)
            y = F.conv2d(x, w, b, padding=1)
            y.backward(y.detach())
            found.append([t.detach().float().numpy().tobytes() for t in (y, x.grad, w.grad)])
    finally:
        torch.set_num_threads(before)
    assert all(one == found[0] for one in found)


def test_what_follows_is_done_by_the_kernel() -> None:
    x, w, b = _tensors(CASES["3x3"], True)

    def block(x, w, b):
        return F.relu(F.conv2d(x, w, b, padding=1) + x)

    with torch.no_grad():
        _close(torch.compile(block)(x, w, b), block(x.float(), w.float(), b.float()))


def test_infinities_stay_where_they_are() -> None:
    """Neighbours in the copy are not neighbours in the image."""
    x = torch.zeros(1, 3, 12, 12)
    x[0, 0, 5, 11] = float("inf")
    w = torch.ones(16, 3, 3, 3)
    for last in (True, False):
        low = x.bfloat16()
        low = low.contiguous(memory_format=torch.channels_last) if last else low
        y = F.conv2d(low, w.bfloat16(), padding=1).float()
        assert torch.equal(y, F.conv2d(x, w, padding=1))


def test_machines_without_dot_products_widen() -> None:
    assert dot_engine(Target("x86_64-unknown-linux-gnu", "x86-64-v3", "+" + ",+".join(
        LEVELS["x86-64-v3"].split()), 256, 16)) is None


@pytest.mark.parametrize("name", ["ragged", "stem", "strided"])
def test_dot_products_without_tiles(name: str, monkeypatch: pytest.MonkeyPatch,
                                    fresh_plans: None) -> None:
    """The kernels of machines with AVX512-BF16 but without AMX."""
    engine = dot_engine(host())
    if engine is None or not host().has("avx512bf16"):
        pytest.skip("this machine has no dot products of bfloat16")
    tile = tile_for("float", host())
    lesser = dataclasses.replace(engine, kind="bf16", rows=tile.rows, width=tile.width)
    monkeypatch.setattr(low, "engine_for", lambda memory, target: lesser)
    _check((5, *CASES[name][1:]), True, True)


def test_few_channels_become_patches() -> None:
    def problem(channels: int, dilation: int) -> Convolution:
        x = Operand(0, (1, channels, 9, 9), (81 * channels, 1, 9 * channels, channels))
        w = Operand(0, (8, channels, 3, 3), (9 * channels, 1, 3 * channels, channels))
        return Convolution("forward", x, w, x, None, (1, 1), (1, 1), (dilation, dilation), 1)

    assert is_patches(problem(3, 1))
    assert not is_patches(problem(3, 2))
    assert not is_patches(problem(64, 1))
