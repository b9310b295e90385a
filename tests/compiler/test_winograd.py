"""Convolutions of 3 x 3 pixels by Winograd's algorithm against one in float64, tap by tap."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.convolution import winograd_plan
from flambeau.compiler.convolution.geometry import Convolution, Operand
from flambeau.compiler.target import host
from flambeau.core.shapes import contiguous_strides

F = torch.nn.functional

# n, c_in, c_out, image, padding
CASES = (
    (8, 32, 32, (14, 14), 1),
    (2, 33, 47, (19, 30), 1),
    (1, 70, 130, (27, 21), 0),
    (2, 40, 64, (28, 28), 2),
    (1, 32, 40, (9, 300), 1),
    (16, 64, 33, (7, 7), 1),
    (1, 33, 64, (300, 5), (0, 2)),
)


def correlate(x: np.ndarray, w: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    (p, q), (high, wide) = padding, w.shape[2:]
    x = np.pad(x.astype("f8"), ((0, 0), (0, 0), (p, p), (q, q)))
    h, v = x.shape[2] - high + 1, x.shape[3] - wide + 1
    return sum(np.einsum("nchw,oc->nohw", x[:, :, a:a + h, b:b + v], w[:, :, a, b].astype("f8"),
                         optimize=True) for a in range(high) for b in range(wide))


def operands(case: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, weight, bias; weights as large as initialisation makes them."""
    n, c_in, c_out, size, _ = case
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(shape, "f4")
                  for shape in ((n, c_in, *size), (c_out, c_in, 3, 3), (c_out,)))
    return x, w * np.float32(np.sqrt(2 / (9 * c_in))), bias


def tensors(last: bool, *arrays: np.ndarray) -> list[torch.Tensor]:
    layout = torch.channels_last if last else torch.contiguous_format
    return [torch.from_numpy(a).to(memory_format=layout) for a in arrays]


def error(got: torch.Tensor, wanted: np.ndarray) -> float:
    assert got.shape == wanted.shape
    return float(np.abs(got.detach().numpy() - wanted).max() / np.abs(wanted).max())


def is_chosen(n: int, c_in: int, c_out: int, size: tuple, padding=1, dtype: str = "float") -> bool:
    """Does a forward convolution of these sizes go this way?"""
    p, q = (padding, padding) if isinstance(padding, int) else padding
    out = size[0] + 2 * p - 2, size[1] + 2 * q - 2
    x, w, y = (Operand(0, shape, contiguous_strides(shape))
               for shape in ((n, c_in, *size), (c_out, c_in, 3, 3), (n, c_out, *out)))
    problem = Convolution("forward", x, w, y, None, (1, 1), (p, q), (1, 1), 1)
    return winograd_plan.winograd_steps(problem, dtype, host(), 2) is not None


needs_masks = pytest.mark.skipif(not is_chosen(8, 64, 64, (28, 28)),
                                 reason="this machine has no masked vectors")


@pytest.mark.parametrize("formats", ((0, 0), (1, 1), (0, 1), (1, 0)), ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradient(case, formats):
    x, w, bias = operands(case)
    padding = case[-1] if isinstance(case[-1], tuple) else (case[-1],) * 2
    wanted = correlate(x, w, padding) + bias[:, None, None]
    g = np.random.default_rng(1).standard_normal(wanted.shape, "f4")
    (image, gradient), (weight,) = tensors(formats[0], x, g), tensors(formats[1], w)
    image.requires_grad_()
    y = F.conv2d(image, weight, torch.from_numpy(bias), 1, padding)
    assert error(y, wanted) < 1e-5
    assert error(F.conv2d(image.detach(), weight, None, 1, padding),
                 wanted - bias[:, None, None]) < 1e-5
    turned = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    backward = correlate(g, turned, tuple(2 - p for p in padding))
    assert error(torch.autograd.grad(y, image, gradient)[0], backward) < 1e-5


@needs_masks
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cases_are_chosen(case):
    assert is_chosen(*case)


def test_what_is_not_chosen():
    assert not is_chosen(8, 64, 64, (28, 28), dtype="double")
    assert not is_chosen(8, 3, 64, (28, 28))
    assert not is_chosen(1, 64, 64, (4, 4))


@pytest.mark.parametrize("channels", (64, 512))
def test_accuracy(channels):
    """Of sums over many channels, hardly worse than that of direct convolution (2e-6)."""
    x, w, _ = operands((1, channels, 32, (24, 24), 1))
    assert error(F.conv2d(*tensors(True, x, w), None, 1, 1), correlate(x, w, (1, 1))) < 5e-6


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_bits_do_not_depend_on_threads(case, last, threads):
    x, w = tensors(last, *operands(case)[:2])
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append(F.conv2d(x, w, None, 1, case[-1]))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_follows_is_done_in_the_kernel(case, last):
    """Eager and exact compiled programs agree bit for bit."""
    x, w, bias = (torch.from_numpy(a) for a in operands(case))
    if last:
        x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))

    def block(x, w, bias):
        return F.relu(F.conv2d(x, w, bias, 1, case[-1])) * 2

    expected = block(x, w, bias)
    exact = torch.compile(block, options={"exact": True})
    exact(x, w, bias)
    found = exact(x, w, bias)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    quick = torch.compile(block)
    quick(x, w, bias)
    np.testing.assert_allclose(quick(x, w, bias).numpy(), expected.numpy(), atol=1e-4)
