"""Convolutions of few pixels as products in bfloat16 parts: every layout, with what follows them,
on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.products.low_packing import has_split
from flambeau.compiler.target import host
from flambeau.nn import functional as F

pytestmark = pytest.mark.skipif(not has_split(host()), reason="needs AMX tiles")

# images, channels, image, channels of the result, window, stride, padding, dilation
CASES = ((1, 256, (14, 14), 128, (3, 3), 2, 1, 1), (2, 300, (7, 7), 200, (3, 3), 1, 1, 1),
         (1, 200, (28, 28), 256, (1, 1), 2, 0, 1), (2, 200, (14, 11), 256, (3, 1), 1, (1, 0), 1),
         (1, 131, (12, 9), 170, (3, 3), 1, 2, 2), (3, 256, (13, 13), 257, (1, 1), 3, 0, 1))


def tensor(shape: tuple[int, ...], last: bool) -> torch.Tensor:
    made = torch.randn(*shape)
    return made.contiguous(memory_format=torch.channels_last) if last else made


def operands(case: tuple, images_last: bool, weights_last: bool) -> tuple:
    n, channels, size, lanes, window = case[:5]
    torch.manual_seed(0)
    return (tensor((n, channels, *size), images_last),
            tensor((lanes, channels, *window), weights_last))


def kernels(function, *args) -> list[str]:
    compiled = torch.compile(function)
    compiled(*args), compiled(*args)
    return [step.name for made in compiled.programs.values() for program in made
            for step in program.plan.steps]


@pytest.mark.parametrize("images_last", (False, True))
@pytest.mark.parametrize("weights_last", (False, True))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case, images_last, weights_last):
    x, w = operands(case, images_last, weights_last)
    y = F.conv2d(x, w, None, *case[5:])
    exact = F.conv2d(x.double(), w.double(), None, *case[5:])
    size = F.conv2d(x.double().abs(), w.double().abs(), None, *case[5:])
    assert ((y.double() - exact).abs() / size).max() < 8 * 2.0 ** -24
    assert y.is_contiguous(memory_format=torch.channels_last) or not images_last

    def follow(x, w):
        return torch.relu(F.conv2d(x, w, None, *case[5:]) * 2 + x.mean())

    expected = torch.relu(exact * 2 + x.double().mean())
    compiled = torch.compile(follow)
    for _ in range(2):
        assert torch.allclose(compiled(x, w).double(), expected, rtol=1e-4, atol=1e-4)


def test_they_are_taken():
    x, w = operands(CASES[0], True, True)
    assert any("conv_patch_rows" in name
               for name in kernels(lambda x, w: F.conv2d(x, w, None, 2, 1), x, w))
    x, w = operands(CASES[0], False, False)
    assert any("conv_patches" in name
               for name in kernels(lambda x, w: F.conv2d(x, w, None, 2, 1), x, w))


@pytest.mark.parametrize("last", (False, True))
def test_bits_do_not_depend_on_threads(last):
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            results.append([F.conv2d(*operands(case, last, last), None, *case[5:]).numpy().copy()
                            for case in CASES])
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for other in results[1:]
               for a, b in zip(results[0], other, strict=True))
