"""Results do not depend on the number of threads: the same bits for 1, 2 and 3."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau.nn import functional as F


def programs():
    """Computations large enough to be shared out."""
    torch.manual_seed(0)
    wide, tall = torch.randn(300, 1000), torch.randn(70000, 3)
    image, kernel = torch.randn(4, 8, 40, 40), torch.randn(16, 8, 3, 3)
    index = torch.randint(0, 50, (4000,))
    yield "sum", lambda: wide.sum()
    yield "sum of columns", lambda: tall.sum(0)
    yield "sum of rows", lambda: wide.sum(1)
    yield "mean of a strided view", lambda: wide[:, ::3].mean()
    yield "softmax", lambda: wide.softmax(1)
    yield "elementwise", lambda: torch.tanh(wide) * 2 + wide.exp()
    yield "product", lambda: wide @ wide.t()
    yield "convolution", lambda: F.conv2d(image, kernel, padding=1)
    yield "variance", lambda: tall.var(0)
    yield "scatter", lambda: torch.zeros(50, 3).index_add(0, index, tall[:4000])
    yield "cumulative sum", lambda: tall.cumsum(0)
    yield "sort", lambda: wide.sort(1).values
    yield "gradient", lambda: gradient(image, kernel)


def gradient(image, kernel):
    weight = kernel.clone().requires_grad_()
    F.conv2d(image, weight, padding=1).pow(2).mean().backward()
    return weight.grad


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_equal_bits_for_any_number_of_threads(threads):
    results = {}
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        for name, compute in programs():
            results.setdefault(name, []).append(compute())
    for name, (first, *others) in results.items():
        assert all(torch.equal(first, other) for other in others), name


def test_graphs_and_programs_outlive_a_change_of_threads(threads):
    """Workspaces are per thread: a program compiled for one thread must not run on three."""
    torch.set_num_threads(1)
    a = torch.randn(400, 300).requires_grad_()
    b = torch.randn(300, 500)
    compiled = torch.compile(lambda x, y: (x @ y).tanh())
    expected = compiled(a.detach(), b), compiled(a.detach(), b)
    (a @ b).sum().backward()
    first, a.grad = a.grad, None
    out = (a @ b).sum()
    torch.set_num_threads(3)
    out.backward()
    assert torch.equal(a.grad, first)
    assert torch.equal(compiled(a.detach(), b), expected[0])
