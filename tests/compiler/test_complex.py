"""Complex numbers against NumPy: forward values, special values, views, gradients, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.autograd.gradcheck import gradcheck, gradgradcheck

NUMPY_NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh",
               "acosh": "arccosh", "atanh": "arctanh", "neg": "negative"}
FUNCTIONS = ["neg", "sqrt", "exp", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan",
             "sinh", "cosh", "tanh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "abs",
             "angle", "reciprocal", "square", "conj", "real", "imag", "isreal", "isnan", "isfinite"]
SMOOTH = ["exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin", "acos", "atan",
          "asinh", "acosh", "atanh", "sgn", "abs", "angle", "reciprocal", "rsqrt", "sigmoid",
          "log1p", "expm1", "log2", "log10", "prod", "std", "view_as_real", "real", "imag", "conj",
          "mean"]


def numbers(*shape: int, seed: int = 0, low: float = -2.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(low, 2, shape) + 1j * rng.uniform(low, 2, shape)


def oracle(name: str):
    return getattr(np, NUMPY_NAMES.get(name, name))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.complex64, 2e-6), (np.complex128, 1e-13)])
def test_functions_match_numpy(name: str, dtype: type, tolerance: float) -> None:
    for array in (numbers(5, 7).astype(dtype), numbers(40).astype(dtype)[::3],
                  numbers().astype(dtype), numbers(0, 3).astype(dtype)):
        found = getattr(torch, name)(torch.tensor(array)).numpy()
        expected = oracle(name)(array)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, tolerance, tolerance)


@pytest.mark.parametrize("name", ["sqrt", "log", "exp", "asin", "acos", "atan", "asinh", "acosh",
                                  "atanh", "tanh", "sinh", "cosh", "abs"])
def test_signed_zeros_and_extreme_sizes(name: str) -> None:
    parts = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 1e-200, 1e200, 1e-310]
    array = np.array([complex(a, b) for a in parts for b in parts])
    with np.errstate(all="ignore"):
        expected = oracle(name)(array)
    found = getattr(torch, name)(torch.tensor(array)).numpy()
    for a, b in ((found.real, expected.real), (found.imag, expected.imag)):
        np.testing.assert_allclose(a, b, 1e-13, 0)
        known = ~np.isnan(b)
        if name not in ("sinh", "cosh"):
            np.testing.assert_array_equal(np.signbit(a[known]), np.signbit(b[known]))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow"])
@pytest.mark.parametrize("other", [numbers(3, 4, seed=1), numbers(4, seed=2), numbers(3, 1).real,
                                   1.5 - 2j, 2, 0.5])
def test_arithmetic_matches_numpy(name: str, other: object) -> None:
    word = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
            "pow": np.power}[name]
    array = numbers(3, 4)
    second = torch.tensor(other) if isinstance(other, np.ndarray) else other
    found = getattr(torch, name)(torch.tensor(array), second)
    np.testing.assert_allclose(found.numpy(), word(array, other), 1e-12)


def test_division_neither_overflows_nor_traps() -> None:
    big = torch.tensor([1e300 + 1e300j, 1e-300 + 0j, 3 + 4j], dtype=torch.complex128)
    by = torch.tensor([1e300 - 1e300j, 1e-300 + 1e-300j, 0j], dtype=torch.complex128)
    found = (big / by).numpy()
    np.testing.assert_allclose(found[:2], [1j, 0.5 - 0.5j], 1e-15)
    assert np.isinf(found[2].real) and np.isinf(found[2].imag)


@pytest.mark.parametrize("move", [
    lambda x: x.permute(2, 0, 1), lambda x: x.transpose(0, 2).reshape(-1), lambda x: x[:, 1:, ::2],
    lambda x: x.flip(0, 2), lambda x: x.diagonal(0, 0, 1), lambda x: x.tril(), lambda x: x.roll(1),
    lambda x: torch.cat([x, x], 1), lambda x: torch.stack([x, x.conj()]), lambda x: x.sum((0, 2)),
    lambda x: x.mean(1), lambda x: x.as_strided((2, 2), (5, 1), 3), lambda x: x.unfold(2, 2, 1),
    lambda x: torch.where(x.abs() > 1, x, 2j), lambda x: x.masked_fill(x.real > 0, 1 - 1j),
    lambda x: x.expand(2, 2, 3, 4) * 1j, lambda x: torch.view_as_complex(torch.view_as_real(x))])
def test_movement_and_its_gradient(move) -> None:
    x = torch.tensor(numbers(2, 3, 4)).requires_grad_()
    assert gradcheck(move, (x,))
    doubled = move(x * 2)
    if doubled.is_complex() and doubled.shape == move(x).shape:
        back = torch.autograd.grad(doubled.real.sum(), x)[0]
        assert back.dtype is torch.complex128


def test_movement_matches_numpy() -> None:
    array = numbers(2, 3, 4)
    x = torch.tensor(array)
    np.testing.assert_array_equal(x.permute(2, 0, 1).numpy(), array.transpose(2, 0, 1))
    np.testing.assert_array_equal((x.flip(0) + 0).numpy(), array[::-1])
    np.testing.assert_array_equal(torch.cat([x, x.conj()], 1).numpy(),
                                  np.concatenate([array, array.conj()], 1))
    np.testing.assert_array_equal(x.as_strided((2, 2), (5, 1), 3).numpy(),
                                  array.ravel()[[[3, 4], [8, 9]]])


def test_reductions_and_products_match_numpy() -> None:
    array, other = numbers(5, 301), numbers(301, 6, seed=3)
    x, y = torch.tensor(array), torch.tensor(other)
    np.testing.assert_allclose(x.sum(1).numpy(), array.sum(1), 1e-12)
    np.testing.assert_allclose(x.mean().numpy(), array.mean(), 1e-12)
    np.testing.assert_allclose(x.prod(1).numpy(), array.prod(1), 1e-10)
    np.testing.assert_allclose(x.std(0).numpy(), array.std(0, ddof=1), 1e-12)
    np.testing.assert_allclose((x @ y).numpy(), array @ other, 1e-11)
    np.testing.assert_allclose(torch.vdot(x[0], x[1]).numpy(), np.vdot(array[0], array[1]), 1e-12)
    np.testing.assert_allclose((x.mH @ x).numpy(), array.conj().T @ array, 1e-11)
    assert torch.zeros(2, 0, dtype=torch.complex64).prod(1).tolist() == [1, 1]


def test_parts_are_views() -> None:
    z = torch.zeros(3, dtype=torch.complex64)
    z.real[1] = 2
    z.imag = torch.tensor([1.0, 2, 3])
    torch.view_as_real(z)[0, 0] = 5
    assert z.tolist() == [5 + 1j, 2 + 2j, 3j]
    pairs = torch.arange(6.0).reshape(3, 2)
    torch.view_as_complex(pairs)[0] = 7j
    assert pairs.tolist() == [[0, 7], [2, 3], [4, 5]]
    x = torch.ones(2)
    assert x.real is x and torch.conj(x) is x and torch.resolve_conj(x) is x


def test_writes_through_parts_are_recorded() -> None:
    def function(x):
        y = x * 1
        y.real.mul_(2.0)
        y.imag[0] = 1.0
        torch.view_as_real(y)[1].zero_()
        return y * y

    assert gradcheck(function, (torch.tensor(numbers(3)).requires_grad_(),))


def test_in_place_operations_read_both_parts_before_they_write() -> None:
    array = numbers(4, 5)
    x = torch.tensor(array)
    x *= 2 - 1j
    x *= x
    x.t().div_(torch.tensor(array.T))
    np.testing.assert_allclose(x.numpy(), (array * (2 - 1j)) ** 2 / array, 1e-12)


def test_conversions() -> None:
    array = numbers(4)
    x = torch.tensor(array)
    assert x.to(torch.complex64).numpy().dtype == np.complex64
    np.testing.assert_array_equal(x.to(torch.float64).numpy(), array.real)
    assert torch.tensor([0j, 1j, 1]).bool().tolist() == [False, True, True]
    assert (torch.ones(2) * 1j).dtype is torch.complex64
    assert (torch.ones(2, dtype=torch.float64) * 1j).dtype is torch.complex128
    assert torch.complex(torch.ones(2), torch.zeros(2)).dtype is torch.complex64
    np.testing.assert_allclose(torch.polar(x.abs(), x.angle()).numpy(), array, 1e-14)
    assert torch.equal(x == x.clone(), torch.ones(4, dtype=torch.bool))


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients(name: str) -> None:
    def function(x):
        return getattr(torch, name)(x)

    x = torch.tensor(numbers(3, low=0.3)).requires_grad_()
    assert gradcheck(function, (x,))
    assert gradgradcheck(function, (x,))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "matmul"])
def test_gradients_of_two(name: str) -> None:
    def function(x, y):
        return getattr(torch, name)(x, y)

    pair = tuple(torch.tensor(numbers(2, 2, seed=s, low=0.3)).requires_grad_() for s in (1, 2))
    assert gradcheck(function, pair)
    assert gradgradcheck(function, pair)


def test_the_gradient_of_a_real_loss_points_uphill() -> None:
    z = torch.tensor([1 + 2j, -3j]).requires_grad_()
    (z * z.conj()).real.sum().backward()
    assert z.grad.tolist() == [2 + 4j, -6j]
    x = torch.tensor([2.0]).requires_grad_()
    (x * (1 + 1j)).abs().sum().backward()
    assert x.grad.dtype is torch.float32 and abs(x.grad.item() - 2 ** 0.5) < 1e-6


@pytest.mark.parametrize("refused", [
    lambda z: z < z, lambda z: z.floor(), lambda z: torch.sign(z), lambda z: torch.erf(z),
    lambda z: z % 2])
def test_what_complex_numbers_have_not_is_refused(refused) -> None:
    with pytest.raises(NotImplementedError):
        refused(torch.tensor([1 + 1j]))


def test_views_that_cannot_be_are_refused() -> None:
    with pytest.raises(RuntimeError, match="last dimension of size 2"):
        torch.view_as_complex(torch.ones(3))
    with pytest.raises(RuntimeError, match="only supported for complex"):
        torch.view_as_real(torch.ones(3))
    with pytest.raises(RuntimeError, match="non-complex"):
        torch.imag(torch.ones(3))
    with pytest.raises(RuntimeError):
        torch.view_as_complex(torch.ones(3, 4)[:, ::2])
    with pytest.raises(RuntimeError, match="Float but got scalar type Double"):
        torch.complex(torch.ones(2), torch.ones(2, dtype=torch.float64))


def test_random_numbers_fill_both_parts() -> None:
    torch.manual_seed(0)
    z = torch.randn(20000, dtype=torch.complex128)
    assert abs(z.abs().square().mean().item() - 1) < 0.03
    assert abs(z.real.var().item() - 0.5) < 0.02
    torch.manual_seed(0)
    u = torch.rand(3, dtype=torch.complex64)
    torch.manual_seed(0)
    assert torch.equal(torch.view_as_real(u).reshape(-1), torch.rand(6))


def test_compiled_functions_follow_views_as_reals() -> None:
    @torch.compile
    def update(z):
        z.real.mul_(3)
        torch.view_as_real(z)[0, 1] = 1.0
        return z * 1j

    z = torch.tensor([1 + 1j, 2 - 1j])
    for step in range(1, 4):
        assert update(z).tolist() == [-1 + 1j * 3 ** step, 1 + 2j * 3 ** step]
        assert z.tolist() == [3 ** step + 1j, 2 * 3 ** step - 1j]
