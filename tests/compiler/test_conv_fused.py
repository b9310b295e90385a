"""Convolutions that run what follows them, and those of few pixels with many weights."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler import program

F = torch.nn.functional

# n, c_in, c_out, image, kernel, stride, padding, groups
CASES = (
    (2, 16, 32, (14, 14), 3, 1, 1, 1),
    (1, 3, 33, (17, 9), 3, 2, 1, 1),
    (2, 20, 40, (7, 7), 1, 1, 0, 1),
    (3, 8, 24, (8, 1), 3, 1, 1, 1),
    (2, 32, 32, (15, 13), 3, 1, 1, 32),
    (2, 17, 17, (9, 30), 3, 2, 1, 17),
    (2, 64, 64, (9, 8), 3, 1, 1, 4),
    (4, 8, 8, (1, 1), 1, 1, 0, 1),
    (1, 4, 1, (8, 8), 3, 1, 1, 1),
    (1, 2, 40, (3, 2000), 3, 1, 1, 1),
    (1, 64, 128, (7, 7), 3, 1, 1, 1),
    (2, 30, 300, (5, 9), 3, 1, 0, 1),
)
FEW_PIXELS = (
    (1, 64, 128, (7, 7), 3, 1, 1, 1),
    (1, 70, 130, (9, 11), 3, 2, 1, 1),
    (2, 30, 300, (5, 9), 3, 1, 0, 1),
    (1, 300, 250, (14, 14), 1, 2, 0, 1),
    (1, 64, 128, (1, 33), 3, 1, 1, 1),
    (1, 32, 200, (11, 13), 5, 3, 2, 1),
)


def operands(case: tuple, last: bool) -> list[torch.Tensor]:
    n, c_in, c_out, size, kernel, *_, groups = case
    torch.manual_seed(0)
    x, w = torch.randn(n, c_in, *size), torch.randn(c_out, c_in // groups, kernel, kernel)
    if last:
        x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))
    return [x, w, torch.randn(c_out)]


BODIES = {
    "norm relu": lambda y, r, s: F.relu(F.batch_norm(y, s, s * s + 0.5, s, s, False)),
    "silu residual": lambda y, r, s: F.silu(y) + r,
    "kept": lambda y, r, s: (y, F.relu6(y) * 2),
    "summed": lambda y, r, s: F.relu(y + r).sum(),
}


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_follows_a_convolution(case, name, last):
    x, w, b = operands(case, last)
    stride, padding, groups = case[5:]

    def body(x, w, r, s):
        return BODIES[name](F.conv2d(x, w, b, stride, padding, 1, groups), r, s)

    r = torch.randn_like(F.conv2d(x, w, None, stride, padding, 1, groups))
    expected, compiled = body(x, w, r, b), torch.compile(body)
    compiled(x, w, r, b)
    results = compiled(x, w, r, b)
    if name != "kept":
        expected, results = [expected], [results]
    for mine, wanted in zip(results, expected, strict=True):
        scale = float(wanted.abs().max())
        np.testing.assert_allclose(mine.numpy(), wanted.numpy(), rtol=0, atol=1e-5 * scale)
        assert mine.stride() == wanted.stride()


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("case", CASES[:7], ids=str)
def test_no_pass_over_memory_is_left(case, last, monkeypatch, fresh_plans):
    seen: list[list] = []
    plain = program.fuse
    monkeypatch.setattr(program, "fuse", lambda *args: seen.append(plain(*args)) or seen[-1])
    x, w, _ = operands(case, last)
    stride, padding, groups = case[5:]
    compiled = torch.compile(
        lambda x, w: F.relu(F.conv2d(x, w, None, stride, padding, 1, groups)) * 2)
    compiled(x, w)
    compiled(x, w)
    assert [len(step.epilogue) for step in seen[-1]] == [1]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("formats", ((False, False), (False, True), (True, False), (True, True)))
@pytest.mark.parametrize("case", FEW_PIXELS, ids=str)
def test_few_pixels(case, formats, threads):
    """Against the product of unfolded patches; equal bits on any number of threads."""
    (x, _, _), (_, w, _) = operands(case, formats[0]), operands(case, formats[1])
    kernel, stride, padding, _ = case[4:]
    patches = F.unfold(x.double().contiguous(), kernel, 1, padding, stride)
    wanted = w.double().reshape(w.shape[0], -1) @ patches
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append(F.conv2d(x, w, None, stride, padding))
    wanted = wanted.reshape(results[0].shape)
    error = (results[0].double() - wanted).abs().max() / wanted.abs().max()
    assert float(error) < 4e-6
    assert all(torch.equal(results[0], other) for other in results[1:])
