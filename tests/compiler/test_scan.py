"""Scans against NumPy: every dimension, layout and dtype, extrema with NaN and ties, gradients."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.autograd.gradcheck import gradcheck, gradgradcheck

SHAPES = [((7,), 0), ((3, 40), 0), ((3, 40), 1), ((2, 17, 3), 1), ((2, 17, 5), -1), ((0, 3), 1),
          ((3, 0), 1), ((5, 1), 1), ((1, 5), 1), ((300, 70), 0), ((2, 5000), 0), ((2, 3, 33), 1)]


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, shape)


def running_extremum(array: np.ndarray, dim: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """The plain definition: ties and NaN take over, nothing else follows a NaN."""
    moved = np.moveaxis(array, dim, -1)
    best, index = np.empty_like(moved), np.zeros(moved.shape, np.int64)
    for row in np.ndindex(moved.shape[:-1]):
        top, at = None, 0
        for i, x in enumerate(moved[row]):
            beats = top is None or x != x or (top == top and (x >= top if largest else x <= top))
            top, at = (x, i) if beats else (top, at)
            best[(*row, i)], index[(*row, i)] = top, at
    return np.moveaxis(best, -1, dim), np.moveaxis(index, -1, dim)


@pytest.mark.parametrize(("shape", "dim"), SHAPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_every_dimension_and_layout(shape: tuple, dim: int, transposed: bool) -> None:
    array = values(*shape) * 0.7
    x = torch.tensor(array)
    if transposed:
        x, array = x.permute(*range(len(shape))[::-1]), array.transpose()
    np.testing.assert_allclose(torch.cumsum(x, dim).numpy(), np.cumsum(array, dim), 1e-12, 1e-12)
    np.testing.assert_allclose(torch.cumprod(x, dim).numpy(), np.cumprod(array, dim), 1e-12)
    if array.size:
        np.testing.assert_allclose(torch.logcumsumexp(x, dim).numpy(),
                                   np.logaddexp.accumulate(array, dim), 1e-11, 1e-11)
    for name, largest in (("cummax", True), ("cummin", False)):
        found = getattr(torch, name)(x, dim)
        best, index = running_extremum(array, dim, largest)
        np.testing.assert_array_equal(found.values.numpy(), best)
        np.testing.assert_array_equal(found.indices.numpy(), index)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64"])
def test_integers_add_up_in_int64(dtype: str) -> None:
    array = (values(3, 50) * 60).astype(dtype)
    x = torch.tensor(array)
    wide = array.astype(np.int64)
    found = torch.cumsum(x, 1)
    assert found.dtype is torch.int64
    np.testing.assert_array_equal(found.numpy(), np.cumsum(wide, 1))
    np.testing.assert_array_equal(torch.cumprod(x, 1).numpy(), np.cumprod(wide, 1))
    best, index = running_extremum(array, 1, True)
    found = torch.cummax(x, 1)
    assert found.values.dtype is x.dtype
    np.testing.assert_array_equal(found.values.numpy(), best)
    np.testing.assert_array_equal(found.indices.numpy(), index)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 2e-3),
                                                  ("bfloat16", 1e-2)])
def test_narrow_floats_are_carried_in_double_precision(dtype: str, tolerance: float) -> None:
    x = torch.tensor(values(20000) * 0.1).to(getattr(torch, dtype))
    exact = np.cumsum(x.double().numpy())
    np.testing.assert_allclose(torch.cumsum(x, 0).double().numpy(), exact, tolerance, tolerance)


def test_nan_and_infinities() -> None:
    array = np.array([1, np.nan, 3, 0, np.nan, 5.0])
    found = torch.cummax(torch.tensor(array), 0)
    assert found.indices.tolist() == [0, 1, 1, 1, 4, 4]
    x = torch.tensor([-np.inf, -np.inf, 1.0, 1000.0, -1000.0, np.inf, 3.0], dtype=torch.float64)
    expected = [-np.inf, -np.inf, 1, 1000, 1000, np.inf, np.inf]
    assert torch.logcumsumexp(x, 0).tolist() == expected


def test_scalars_and_options() -> None:
    x = torch.tensor(3.0)
    assert torch.cumsum(x, 0).item() == torch.cumprod(x, -1).item() == 3
    assert torch.cummax(x, 0).indices.item() == 0
    assert torch.cumsum(torch.ones(3), 0, dtype=torch.float64).dtype is torch.float64
    y = torch.ones(2, 3)
    assert y.cumsum_(1) is y and y.tolist() == [[1, 2, 3]] * 2
    with pytest.raises(IndexError):
        torch.cumsum(torch.ones(3), 1)


def test_complex_scans() -> None:
    array = values(3, 9) + 1j * values(3, 9, seed=1)
    x = torch.tensor(array)
    np.testing.assert_allclose(torch.cumsum(x, 1).numpy(), np.cumsum(array, 1), 1e-12)
    np.testing.assert_allclose(torch.cumprod(x, 1).numpy(), np.cumprod(array, 1), 1e-12)
    assert gradcheck(lambda z: torch.cumprod(z, 1), (x[:, :4].clone().requires_grad_(),))


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"])
def test_gradients(name: str) -> None:
    def function(x):
        found = getattr(torch, name)(x, 1)
        return found[0] if isinstance(found, tuple) else found

    x = torch.tensor(values(2, 5)).requires_grad_()
    assert gradcheck(function, (x,))
    assert gradgradcheck(function, (x,))


def test_the_gradient_of_a_product_with_zeros() -> None:
    array = values(4, 5)
    array[1, 2] = array[2, 0] = array[2, 3] = 0
    assert gradcheck(lambda x: torch.cumprod(x, 1), (torch.tensor(array).requires_grad_(),))


def test_gradients_of_large_numbers() -> None:
    x = torch.tensor([-500.0, 1, 400, -1000, 700, -20], dtype=torch.float64).requires_grad_()
    torch.logcumsumexp(x, 0).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [1, 1, 2, 0, 2, 0], 1e-12, 1e-12)


def test_differences() -> None:
    array = values(4, 6)
    x = torch.tensor(array)
    np.testing.assert_allclose(torch.diff(x, n=2, dim=0).numpy(), np.diff(array, 2, 0), 1e-12)
    np.testing.assert_allclose(torch.diff(x, prepend=x[:, :2]).numpy(),
                               np.diff(array, prepend=array[:, :2]), 1e-12)
    assert torch.diff(torch.tensor([True, True, False])).tolist() == [False, True]


def test_threads_do_not_change_a_bit() -> None:
    x = torch.tensor(values(300, 3000)).to(torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append((torch.cumsum(x, 0).numpy(), torch.cumsum(x, 1).numpy()))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][0], other[0])
        np.testing.assert_array_equal(results[0][1], other[1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bfloat16"])
def test_rows_of_a_few_registers(dtype: str) -> None:
    draw = np.random.default_rng(4)
    for size in (4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 66):
        x = torch.tensor(draw.integers(-3, 4, (300, size))).to(getattr(torch, dtype))
        whole = x.to(torch.float64).numpy()
        np.testing.assert_array_equal(torch.cumsum(x, 1).to(torch.float64).numpy(),
                                      whole.cumsum(1))
        np.testing.assert_array_equal(torch.cumprod(x.sign(), 1).to(torch.float64).numpy(),
                                      np.sign(whole).cumprod(1))
        found = torch.cummax(x, 1)
        expected = np.maximum.accumulate(whole, 1)
        np.testing.assert_array_equal(found.values.to(torch.float64).numpy(), expected)
        last = np.where(whole == expected, np.arange(size), 0)
        np.testing.assert_array_equal(found.indices.numpy(), np.maximum.accumulate(last, 1))
