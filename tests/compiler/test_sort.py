"""Sorting against NumPy: dtypes, lengths around thresholds, layouts, NaN, stability, gradients."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.autograd.gradcheck import gradcheck

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
SIZES = [1, 2, 15, 16, 17, 33, 100, 599, 600, 1499, 1500, 5000]
SPECIAL = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2, -5, 1e-7, -1e-7])


def values(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Few enough different values for ties."""
    found = np.random.default_rng(seed).integers(-100, 100, shape) * 0.75
    return found > 0 if dtype == "bool" else found.astype(dtype)


def order(array: np.ndarray, dim: int, descending: bool = False) -> np.ndarray:
    """The stable permutation; NaN is the largest."""
    if not descending:
        return np.argsort(array, dim, kind="stable")
    backwards = np.flip(array, dim)
    found = np.flip(np.argsort(backwards, dim, kind="stable"), dim)
    return array.shape[dim] - 1 - found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("descending", [False, True])
def test_rows_of_every_length(dtype: str, descending: bool) -> None:
    for size in SIZES:
        array = values(dtype, 3, size, seed=size)
        found = torch.sort(torch.tensor(array), 1, descending, stable=True)
        expected = order(array, 1, descending)
        np.testing.assert_array_equal(found.indices.numpy(), expected)
        np.testing.assert_array_equal(found.values.numpy(),
                                      np.take_along_axis(array, expected, 1))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [40, 3000])
@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_largest_and_zeros_are_equal(dtype: str, size: int, descending: bool) -> None:
    array = np.random.default_rng(1).choice(SPECIAL, size).astype(dtype)
    found = torch.sort(torch.tensor(array), descending=descending)
    np.testing.assert_array_equal(found.indices.numpy(), order(array, 0, descending))


def test_bfloat16_sorts_by_value() -> None:
    x = torch.tensor(np.random.default_rng(2).choice(SPECIAL, 50)).to(torch.bfloat16)
    expected = np.argsort(x.float().numpy(), kind="stable")
    np.testing.assert_array_equal(torch.argsort(x).numpy(), expected)


@pytest.mark.parametrize(("shape", "dim"), [((3, 40), 0), ((2, 17, 3), 1), ((700, 2), 0),
                                            ((0, 3), 0), ((3, 0), 1), ((0, 3), 1)])
def test_dimensions_and_layouts(shape: tuple, dim: int) -> None:
    array = values("float32", *shape)
    for x, a in ((torch.tensor(array), array), (torch.tensor(array).transpose(0, 1), None)):
        a = np.swapaxes(array, 0, 1) if a is None else a
        np.testing.assert_array_equal(torch.argsort(x, dim).numpy(), order(a, dim))
        np.testing.assert_array_equal(torch.msort(x).numpy(), np.sort(a, 0))
    strided = torch.tensor(values("float32", 30, 20))[:, ::2]
    np.testing.assert_array_equal(torch.sort(strided)[0].numpy(), np.sort(strided.numpy(), 1))


def test_all_keys_equal_and_large_integers() -> None:
    assert torch.argsort(torch.zeros(2000)).tolist() == list(range(2000))
    big = np.array([2**63 - 1, -2**63, 0, -1, 2**62] * 400)
    np.testing.assert_array_equal(torch.sort(torch.tensor(big))[0].numpy(), np.sort(big))
    with pytest.raises(RuntimeError, match="complex"):
        torch.sort(torch.tensor([1j]))


def test_selection() -> None:
    array = np.random.default_rng(3).permutation(360).reshape(4, 90).astype("float32")
    x = torch.tensor(array)
    ascending = np.sort(array, 1)
    found = torch.topk(x, 7)
    np.testing.assert_array_equal(found.values.numpy(), ascending[:, ::-1][:, :7])
    np.testing.assert_array_equal(np.take_along_axis(array, found.indices.numpy(), 1),
                                  found.values.numpy())
    np.testing.assert_array_equal(x.topk(2, 0, False)[0].numpy(), np.sort(array, 0)[:2])
    np.testing.assert_array_equal(torch.kthvalue(x, 5)[0].numpy(), ascending[:, 4])
    np.testing.assert_array_equal(torch.median(x, 1, True)[0].numpy(), ascending[:, 44:45])
    assert x.median().item() == np.sort(array.ravel())[179]
    for bad in (lambda: torch.topk(x, 91), lambda: torch.kthvalue(x, 0)):
        with pytest.raises(RuntimeError, match="out of range"):
            bad()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spread", [1, 1000])
def test_the_first_of_long_rows(dtype: str, spread: int) -> None:
    array = values(dtype, 2, 9000)
    if dtype not in ("bool", "uint8", "int8"):
        array[0, :7] = array[0, :7] // spread
    if dtype.startswith("float"):
        array[1, 5::70] = np.nan
    x = torch.tensor(array)
    for k in (1, 10, 2250):
        for largest in (True, False):
            expected = order(array, 1, largest)[:, :k]
            np.testing.assert_array_equal(torch.topk(x, k, 1, largest).indices.numpy(), expected)
    np.testing.assert_array_equal(torch.kthvalue(x, 40).indices.numpy(), order(array, 1)[:, 39])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("size", [256, 259, 1030])
def test_the_first_few_of_a_row(dtype: str, size: int) -> None:
    """Rows in any order, sorted both ways, of equal keys, and of special values."""
    rng = np.random.default_rng(size)
    rows = [rng.integers(-100, 100, size), np.arange(size), np.arange(size)[::-1], np.zeros(size)]
    if dtype.startswith("float"):
        rows += [rng.choice(SPECIAL, size), np.full(size, np.nan)]
    array = np.stack(rows).astype(dtype)
    for k in (1, 2, size // 8):
        for largest in (True, False):
            found = torch.topk(torch.tensor(array), k, 1, largest)
            expected = order(array, 1, largest)[:, :k]
            np.testing.assert_array_equal(found.indices.numpy(), expected)


@pytest.mark.parametrize("dtype", ["int16", "int64", "float16", "float32"])
@pytest.mark.parametrize("size", [255, 2048, 9001])
def test_one_place_of_long_rows(dtype: str, size: int) -> None:
    """kthvalue and the medians look for one place in the order, not for the whole of it."""
    rng = np.random.default_rng(size)
    rows = [rng.integers(-100, 100, size), rng.standard_normal(size) * 1000, np.zeros(size),
            np.arange(size)[::-1]]
    if dtype.startswith("float"):
        rows += [rng.choice(SPECIAL, size), np.full(size, np.nan)]
    array = np.stack(rows).astype(dtype)
    x, whole = torch.tensor(array), order(array, 1)
    for k in (1, size // 4, (size + 1) // 2, size):
        np.testing.assert_array_equal(torch.kthvalue(x, k, 1).indices.numpy(), whole[:, k - 1])
    missing = np.isnan(array)
    middle = np.where(missing.any(1), missing.argmax(1), whole[:, (size - 1) // 2])
    np.testing.assert_array_equal(torch.median(x, 1).indices.numpy(), middle)
    rank = np.maximum((~missing).sum(1) - 1, 0) // 2
    np.testing.assert_array_equal(torch.nanmedian(x, 1).indices.numpy(),
                                  whole[np.arange(len(rows)), rank])


def test_medians_and_nan() -> None:
    array = values("float64", 4, 9)
    array[1, 3] = array[2, :] = np.nan
    x = torch.tensor(array)
    found = torch.median(x, 1)
    assert np.isnan(found.values.numpy()).tolist() == [False, True, True, False]
    assert found.indices.tolist()[1:3] == [3, 0]
    kept = np.sort(array[1][~np.isnan(array[1])])
    assert torch.nanmedian(x, 1).values[1].item() == kept[3]
    assert np.isnan(torch.median(x).item()) and not np.isnan(torch.nanmedian(x).item())


@pytest.mark.parametrize("how", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantiles(how: str) -> None:
    array = np.random.default_rng(4).normal(size=(4, 9))
    x = torch.tensor(array)
    q = [0.0, 0.1, 0.37, 0.5, 1.0]
    found = torch.quantile(x, torch.tensor(q, dtype=torch.float64), 1, interpolation=how)
    np.testing.assert_allclose(found.numpy(), np.quantile(array, q, 1, method=how), 1e-12)
    found = torch.quantile(x, 0.3, keepdim=True, interpolation=how)
    np.testing.assert_allclose(found.numpy(), np.quantile(array, 0.3, method=how, keepdims=True))
    array[0, 0] = np.nan
    x = torch.tensor(array)
    np.testing.assert_allclose(torch.quantile(x, 0.3, 0, interpolation=how).numpy(),
                               np.quantile(array, 0.3, 0, method=how))
    np.testing.assert_allclose(torch.nanquantile(x, 0.3, 0, interpolation=how).numpy(),
                               np.nanquantile(array, 0.3, 0, method=how), 1e-12)


def test_the_most_frequent_value() -> None:
    x = torch.tensor([[3, 1, 3, 1, 0], [2, 2, 1, 0, 5], [4, 4, 4, 4, 4]])
    found = torch.mode(x, 1)
    assert found.values.tolist() == [1, 2, 4]
    assert found.indices.tolist() == [3, 1, 4]
    assert torch.mode(x, 0, True).values.tolist() == [[2, 1, 1, 0, 0]]


@pytest.mark.parametrize("dtype", ["int64", "float32", "bool"])
def test_distinct_elements(dtype: str) -> None:
    array = values(dtype, 6, 11) if dtype != "int64" else values("int64", 6, 11) % 7
    found = torch.unique(torch.tensor(array), return_inverse=True, return_counts=True)
    expected = np.unique(array, return_inverse=True, return_counts=True)
    np.testing.assert_array_equal(found[0].numpy(), expected[0])
    np.testing.assert_array_equal(found[1].numpy(), expected[1].reshape(array.shape))
    np.testing.assert_array_equal(found[2].numpy(), expected[2])
    assert torch.unique(torch.zeros(0)).shape == (0,)


def test_distinct_rows_and_runs() -> None:
    array = np.array([[1, 2], [0, 5], [1, 2], [0, 4], [1, 2]])
    x = torch.tensor(array)
    found = torch.unique(x, dim=0, return_inverse=True, return_counts=True)
    assert [part.tolist() for part in found] == [[[0, 4], [0, 5], [1, 2]], [2, 1, 2, 0, 2],
                                                 [1, 1, 3]]
    runs = torch.unique_consecutive(torch.tensor([1, 1, 2, 2, 2, 1]), return_inverse=True,
                                    return_counts=True)
    assert [part.tolist() for part in runs] == [[1, 2, 1], [0, 0, 1, 1, 1, 2], [2, 3, 1]]
    assert torch.unique_consecutive(x, dim=0).tolist() == array.tolist()


@pytest.mark.parametrize("function", [
    lambda x: torch.sort(x, 1)[0], lambda x: torch.sort(x, 0, True)[0],
    lambda x: torch.topk(x, 2)[0], lambda x: torch.kthvalue(x, 2)[0],
    lambda x: torch.median(x, 0)[0], lambda x: torch.median(x),
    lambda x: torch.quantile(x, 0.4, 1), lambda x: torch.msort(x), lambda x: torch.mode(x)[0]])
def test_gradients(function) -> None:
    array = np.random.default_rng(5).permutation(12).reshape(3, 4) * 0.3
    assert gradcheck(function, (torch.tensor(array).requires_grad_(),))


def test_the_median_of_everything_shares_its_gradient() -> None:
    x = torch.tensor([1.0, 2.0, 2.0, 3.0]).requires_grad_()
    x.median().backward()
    assert x.grad.tolist() == [0, 0.5, 0.5, 0]


def test_scalars() -> None:
    x = torch.tensor(3.0)
    assert x.sort().indices.item() == 0 and x.topk(1).values.item() == 3
    assert x.median().item() == 3 and torch.argsort(x).item() == 0


# ---------------------------------------------------------------------- wide keys, duplicates
def wide_rows(kind: str, rows: int, size: int) -> np.ndarray:
    """Rows of 64-bit numbers whose keys share their leading bits, their last ones, or neither."""
    draw = np.random.default_rng(size)
    limits = np.iinfo("int64")
    if kind == "anything":
        return draw.integers(limits.min, limits.max, (rows, size), endpoint=True)
    if kind == "few":
        return draw.integers(-2, 2, (rows, size))
    if kind == "clusters":
        return draw.integers(0, 2, (rows, size)) * 2**60 + draw.integers(0, 50, (rows, size))
    if kind == "ends":
        return np.where(draw.random((rows, size)) < 0.5, limits.min, limits.max)
    if kind == "outlier":
        found = draw.integers(0, 9, (rows, size))
        found[:, size // 2] = limits.max
        return found
    found = 1 + draw.integers(0, 500, (rows, size)) * 2.0**-50  # "close"
    found[draw.random((rows, size)) < 0.1] = np.nan
    return np.where(draw.random((rows, size)) < 0.1, -0.0, found)


@pytest.mark.parametrize("kind", ["anything", "few", "clusters", "ends", "outlier", "close"])
def test_keys_of_64_bits(kind: str) -> None:
    for size in (2, 17, 599, 600, 3000):
        array = wide_rows(kind, 2, size)
        x = torch.tensor(array)
        for descending in (False, True):
            expected = order(array, 1, descending)
            found = torch.argsort(x, 1, descending)
            np.testing.assert_array_equal(found.numpy(), expected)
            for wanted in {1, size // 50 + 1, size // 5 + 1}:
                found = torch.topk(x, wanted, 1, descending).indices
                np.testing.assert_array_equal(found.numpy(), expected[:, :wanted])
        for place in {1, (size + 1) // 2, size}:
            found = torch.kthvalue(x, place, 1).indices
            np.testing.assert_array_equal(found.numpy(), order(array, 1)[:, place - 1])


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_ranks_among_duplicates(dtype: str) -> None:
    array = (np.random.default_rng(3).integers(-5, 3, (2, 4000)).clip(0)).astype(dtype)
    array[1] = 1
    for place in (1, 2, 1999, 3000, 4000):
        found = torch.kthvalue(torch.tensor(array), place, 1).indices
        np.testing.assert_array_equal(found.numpy(), order(array, 1)[:, place - 1])
    for wanted in (1, 100, 400, 1000):
        found = torch.topk(torch.tensor(array), wanted, 1).indices
        np.testing.assert_array_equal(found.numpy(), order(array, 1, True)[:, :wanted])


# ---------------------------------------------------------------------- what is repeated
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
@pytest.mark.parametrize("call", [
    lambda x, d: torch.sort(x, d), lambda x, d: torch.sort(x, d, descending=True),
    lambda x, d: torch.topk(x, 2, d), lambda x, d: torch.kthvalue(x, 2, d),
    lambda x, d: torch.median(x, d), lambda x, d: torch.mode(x, d)])
def test_expanded_tensors_are_sorted_as_copies_are(call, dtype: str) -> None:
    for shape, seen in (((1, 9), (700, 9)), ((9, 1), (9, 30)), ((2, 1, 9), (2, 4, 9)),
                        ((1, 1, 9), (3, 2, 9)), ((1,), (8,))):
        base = torch.tensor(values("float32", *shape, seed=5)).to(getattr(torch, dtype))
        x = base.expand(seen)
        for dim in range(x.ndim):
            found, expected = call(x, dim), call(x.contiguous(), dim)
            for one, other in zip(found, expected, strict=True):
                assert one.shape == other.shape and bool((one == other).all())
