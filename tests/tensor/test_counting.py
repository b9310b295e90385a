"""Searching sorted rows, membership, histograms and runs, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch

RNG = np.random.RandomState(0)


# ---------------------------------------------------------------------- sorted rows
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint8"])
@pytest.mark.parametrize("n", [0, 1, 2, 17, 1000])
def test_searchsorted(dtype: str, n: int):
    row = np.sort((RNG.randn(n) * 50).astype(dtype))
    values = (RNG.randn(3000) * 50).astype(dtype)
    for side in ("left", "right"):
        found = torch.searchsorted(torch.from_numpy(row), torch.from_numpy(values), side=side)
        assert np.array_equal(found.numpy(), np.searchsorted(row, values, side))


def test_searchsorted_in_rows_of_their_own():
    rows = np.sort(RNG.randn(4, 9))
    values = RNG.randn(4, 70)
    found = torch.searchsorted(torch.from_numpy(rows), torch.from_numpy(values), out_int32=True)
    expected = [np.searchsorted(row, these) for row, these in zip(rows, values, strict=True)]
    assert found.dtype is torch.int32 and np.array_equal(found.numpy(), expected)


def test_nan_belongs_at_the_end():
    row = torch.tensor([1.0, 2.0, float("nan")])
    values = torch.tensor([float("nan"), 1.5, float("inf")])
    assert torch.searchsorted(row, values).tolist() == [3, 1, 3]


def test_a_sorter_is_checked():
    row = torch.tensor([2.0, 1.0])
    assert torch.searchsorted(row, 1.5, sorter=torch.tensor([1, 0])).item() == 1
    with pytest.raises(RuntimeError, match="sorter index out of range"):
        torch.searchsorted(row, 1.5, sorter=torch.tensor([1, 2])).item()
    with pytest.raises(RuntimeError, match="can't be set to opposites"):
        torch.searchsorted(row, 1.5, side="left", right=True)


@pytest.mark.parametrize("count", [0, 3, 16, 17, 500])
def test_isin(count: int):
    x, among = RNG.randint(0, 1000, 2000), RNG.randint(0, 1000, count)
    found = torch.isin(torch.from_numpy(x), torch.from_numpy(among))
    assert np.array_equal(found.numpy(), np.isin(x, among))


def test_isin_wants_a_tensor():
    assert torch.isin(2, torch.tensor([1, 2])).item() is True
    with pytest.raises(TypeError, match="must be a Tensor"):
        torch.isin(1, 2)


# ---------------------------------------------------------------------- counting
def test_bincount():
    x = torch.tensor([1, 1, 4])
    assert torch.bincount(x).tolist() == [0, 2, 0, 0, 1]
    assert torch.bincount(x, minlength=7).tolist() == [0, 2, 0, 0, 1, 0, 0]
    assert torch.bincount(x, torch.tensor([0.5, 1.0, 2.0])).tolist() == [0, 1.5, 0, 0, 2]
    assert torch.bincount(torch.tensor([], dtype=torch.int64), minlength=2).tolist() == [0, 0]
    with pytest.raises(RuntimeError, match="non-negative integral"):
        torch.bincount(torch.tensor([1, -1]))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-1, 1), (-3.3, 0.71)])
def test_histograms(low: float, high: float):
    x = RNG.randn(5000)
    limits = (low, high) if low < high else (x.min(), x.max())
    expected, edges = np.histogram(x, 37, limits)
    assert np.array_equal(torch.histc(torch.from_numpy(x), 37, low, high).numpy(), expected)
    found = torch.histogram(torch.from_numpy(x), 37, range=limits)
    np.testing.assert_array_equal(found.hist.numpy(), expected)
    np.testing.assert_allclose(found.bin_edges.numpy(), edges, 1e-12, 1e-12)


def test_histogram_over_points_with_weights():
    points, weight = RNG.randn(500, 2), RNG.rand(500)
    edges = [np.sort(RNG.randn(5)), np.sort(RNG.randn(4))]
    for density in (False, True):
        expected, _ = np.histogramdd(points, edges, density=density, weights=weight)
        found = torch.histogramdd(torch.from_numpy(points), [torch.from_numpy(e) for e in edges],
                                  weight=torch.from_numpy(weight), density=density)
        np.testing.assert_allclose(found.hist.numpy(), expected, 1e-12, 1e-12)


def test_segment_reduce_of_empty_runs():
    x, lengths = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 0, 1])
    wanted = {"sum": [3, 0, 3], "mean": [1.5, float("nan"), 3], "prod": [2, 1, 3],
              "max": [2, float("-inf"), 3], "min": [1, float("inf"), 3]}
    for how, expected in wanted.items():
        found = torch.segment_reduce(x, how, lengths=lengths)
        assert np.array_equal(found.numpy(), np.float32(expected), equal_nan=True)


def test_nonzero_static():
    x = torch.tensor([[0, 1, 2], [0, 3, 0]])
    assert torch.nonzero_static(x, size=2).tolist() == [[0, 1], [0, 2]]
    assert torch.nonzero_static(x, size=4, fill_value=9).tolist() == [[0, 1], [0, 2], [1, 1],
                                                                     [9, 9]]


# ---------------------------------------------------------------------- random counts
def test_poisson_and_binomial_have_their_moments():
    torch.manual_seed(0)
    for rate in (0.3, 4.0, 30.0):
        drawn = torch.poisson(torch.full((20000,), rate))
        assert abs(drawn.mean().item() / rate - 1) < 0.05
        assert abs(drawn.var().item() / rate - 1) < 0.05
    drawn = torch.binomial(torch.full((20000,), 100.0), torch.full((20000,), 0.7))
    assert abs(drawn.mean().item() - 70) < 0.3 and abs(drawn.var().item() - 21) < 1.5
    with pytest.raises(RuntimeError, match="non-negative"):
        torch.poisson(torch.tensor([-1.0]))


# ---------------------------------------------------------------------- gradients through zeros
def test_second_derivatives_of_products_with_zeros():
    x = torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    for product in (lambda t: t.cumprod(0)[-1], lambda t: torch.zeros(1, dtype=t.dtype).fill_(
            1).scatter_reduce(0, torch.zeros(3, dtype=torch.int64), t, "prod")[0]):
        first, = torch.autograd.grad(product(x), x, create_graph=True)
        assert first.tolist() == [0, 6, 0]
        second = [torch.autograd.grad(first[i], x, retain_graph=True)[0].tolist()
                  for i in range(3)]
        assert second == [[0, 3, 0], [3, 0, 2], [0, 2, 0]]


def test_a_straight_through_gradient():
    x = torch.tensor([-5.0, 0.26, 5.0], requires_grad=True)
    y = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -8, 7)
    y.sum().backward()
    assert np.allclose(y.tolist(), [-0.8, 0.3, 0.7]) and x.grad.tolist() == [0, 1, 0]


def test_complex_convolution():
    x, w = (torch.randn(2, 3, 5, 5, dtype=torch.complex128),
            torch.randn(4, 3, 2, 2, dtype=torch.complex128))
    conv = torch.nn.functional.conv2d
    real = conv(x.real, w.real) - conv(x.imag, w.imag)
    imag = conv(x.real, w.imag) + conv(x.imag, w.real)
    assert torch.allclose(conv(x, w), torch.complex(real, imag))


def test_results_are_alike_for_any_number_of_threads():
    rows, values = torch.randn(20000).sort().values, torch.randn(60000)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(torch.searchsorted(rows, values))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])
