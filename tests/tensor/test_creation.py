"""Functions that make tensors. These tests also run under PyTorch (tests/conformance)."""

from __future__ import annotations

import math

import numpy as np
import pytest


# --------------------------------------------------------------------------- from data
@pytest.mark.parametrize(("data", "name"), [
    (3, "int64"), (2.5, "float32"), (True, "bool"), (1j, "complex64"), ([1, 2], "int64"),
    ([1, 2.5], "float32"), ([True, False], "bool"), ([True, 2], "int64"), ([1, 2j], "complex64"),
    ([], "float32"), ([[]], "float32"), ((1, 2), "int64"), (np.float64(2), "float64"),
    (np.int32(2), "int32"), (np.arange(3, dtype=np.int16), "int16"),
    ([np.float64(1), np.float64(2)], "float64"),
])
def test_dtypes_are_inferred(torch, data, name):
    x = torch.tensor(data)
    assert x.dtype is getattr(torch, name)
    assert x.numpy().tolist() == np.asarray(data).tolist()
    assert tuple(x.shape) == np.shape(data)


def test_tensor_copies(torch):
    array = np.zeros(3)
    x = torch.tensor(array)
    array[0] = 1
    assert x[0].item() == 0
    for share in (torch.as_tensor, torch.asarray, torch.from_numpy):
        y = share(array)
        array[0] += 1
        assert y[0].item() == array[0]
    z = torch.zeros(2)
    assert torch.as_tensor(z) is z
    assert torch.as_tensor(z, dtype=torch.int64).dtype is torch.int64


def test_nested_tensors_and_options(torch):
    assert torch.tensor([torch.tensor(1), torch.tensor(2)]).tolist() == [1, 2]
    x = torch.tensor([[1, 2], [3, 4]], dtype=torch.float64, requires_grad=True)
    assert x.requires_grad and x.is_leaf and x.dtype is torch.float64
    assert x.device == torch.device("cpu") and str(x.device) == "cpu"
    assert torch.scalar_tensor(2).dtype is torch.float32
    assert torch.tensor(300, dtype=torch.int16).item() == 300


@pytest.mark.parametrize(("data", "error", "text"), [
    ([[1, 2], [3]], ValueError, "expected sequence of length 2 at dim 1"),
    ("abc", TypeError, "invalid data type 'str'"),
    (None, (TypeError, RuntimeError), "NoneType|infer dtype"),
    ([1, None], (TypeError, RuntimeError), "NoneType|infer dtype|must be real number"),
    ([1, "a"], (TypeError, ValueError), "str|too many dimensions"),
])
def test_bad_data(torch, data, error, text):
    with pytest.raises(error, match=text):
        torch.tensor(data)


def test_numbers_that_do_not_fit(torch):
    with pytest.raises((RuntimeError, ValueError)):
        torch.tensor(2 ** 70)
    with pytest.raises(RuntimeError, match=r"requires_grad|floating point"):
        torch.tensor([1], requires_grad=True)


# --------------------------------------------------------------------------- filled
def test_sizes_are_given_in_many_ways(torch):
    for make in (torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn):
        for size in ((2, 3), ((2, 3),), ([2, 3],), (torch.Size([2, 3]),),
                     (torch.zeros(2, 3).shape,)):
            assert make(*size).shape == (2, 3)
        assert make(()).shape == make([]).shape == ()
        assert make(0).shape == (0,) and make(2, 0).shape == (2, 0)
    assert torch.full((2,), 7).dtype is torch.int64
    assert torch.full((2,), 7.0).dtype is torch.float32
    assert torch.full((2,), True).dtype is torch.bool
    assert torch.full((2,), 7, dtype=torch.float64).tolist() == [7.0, 7.0]
    with pytest.raises(RuntimeError):
        torch.zeros(-1)
    with pytest.raises(TypeError):
        torch.zeros("a")
    with pytest.raises(TypeError):
        torch.zeros(2.5)


@pytest.mark.parametrize("name", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16",
                                  "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_every_dtype_can_be_made(torch, name):
    dtype = getattr(torch, name)
    assert torch.zeros(3, dtype=dtype).tolist() == [0, 0, 0]
    assert torch.ones(3, dtype=dtype).tolist() == [1, 1, 1]
    assert torch.full((2,), 1, dtype=dtype).dtype is dtype
    x = torch.tensor([0, 1, 2], dtype=dtype)
    assert x.tolist() == ([False, True, True] if name == "bool" else [0, 1, 2])
    assert torch.zeros_like(x).dtype is dtype and torch.empty_like(x).shape == (3,)


def test_likes_keep_the_order_in_memory(torch):
    x = torch.zeros(2, 3, 4).permute(2, 0, 1)
    for make in (torch.zeros_like, torch.ones_like, torch.empty_like, torch.rand_like):
        assert make(x).stride() == x.stride()
        assert make(x, dtype=torch.float64).dtype is torch.float64
    assert torch.full_like(x, 3).unique().tolist() == [3.0]
    assert torch.ones_like(x, memory_format=torch.contiguous_format).is_contiguous()
    assert torch.zeros_like(x[:, :1].expand(4, 3, 3)).shape == (4, 3, 3)
    assert torch.ones_like(x, requires_grad=True).requires_grad


def test_new_ones_take_the_dtype(torch):
    x = torch.zeros(1, dtype=torch.float64)
    assert x.new_zeros(2, 3).dtype is torch.float64 and x.new_zeros((2, 3)).shape == (2, 3)
    assert x.new_ones(2, dtype=torch.int32).dtype is torch.int32
    assert x.new_full((2,), 5).tolist() == [5.0, 5.0]
    assert x.new_tensor([1, 2]).dtype is torch.float64
    assert x.new_empty(3).shape == (3,)


def test_empty_strided(torch):
    x = torch.empty_strided((2, 3), (1, 2))
    assert x.shape == (2, 3) and x.stride() == (1, 2)
    x.fill_(1.0)
    assert x.sum().item() == 6


# --------------------------------------------------------------------------- ranges
@pytest.mark.parametrize("args", [
    (5,), (0,), (2, 7), (2, 7, 2), (7, 2, -2), (5.0,), (0, 1, 0.1), (1, 0, -0.25), (-3, 3),
    (0.5, 3), (1, 2.5, 0.3)])
def test_arange_is_numpys(torch, args):
    x = torch.arange(*args)
    expected = np.arange(*args)
    whole = all(isinstance(a, int) for a in args)
    assert x.dtype is (torch.int64 if whole else torch.float32)
    np.testing.assert_allclose(x.numpy(), expected.astype(x.numpy().dtype), 1e-6)


def test_arange_options(torch):
    assert torch.arange(3, dtype=torch.float64).dtype is torch.float64
    assert torch.arange(0, 5, 2, dtype=torch.int32).tolist() == [0, 2, 4]
    assert torch.arange(start=1, end=4).tolist() == [1, 2, 3]
    assert torch.arange(3.0, requires_grad=True).requires_grad
    assert torch.arange(torch.tensor(3)).tolist() == [0, 1, 2]
    for args in ((0, 5, -1), (0, 5, 0), (0, math.inf)):
        with pytest.raises(RuntimeError):
            torch.arange(*args)


@pytest.mark.parametrize("args", [(0, 1, 5), (-2, 2, 1), (3, -3, 7), (0, 10, 11), (0, 1, 0)])
def test_linspace_is_numpys(torch, args):
    np.testing.assert_allclose(torch.linspace(*args).numpy(), np.linspace(*args), 1e-6, 1e-7)
    np.testing.assert_allclose(torch.linspace(*args, dtype=torch.float64).numpy(),
                               np.linspace(*args), 1e-12, 1e-15)


def test_linspace_of_integers_and_logspace(torch):
    assert torch.linspace(0, 10, 5, dtype=torch.int64).tolist() == [0, 2, 5, 7, 10]
    np.testing.assert_allclose(torch.logspace(0, 2, 3).numpy(), [1, 10, 100], 1e-5)
    np.testing.assert_allclose(torch.logspace(0, 3, 4, base=2).numpy(), [1, 2, 4, 8], 1e-5)
    with pytest.raises(RuntimeError):
        torch.linspace(0, 1, -1)


def test_matrices(torch):
    assert torch.eye(2).tolist() == [[1, 0], [0, 1]]
    assert torch.eye(2, 3, dtype=torch.int64).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert torch.eye(0).shape == (0, 0)
    x = torch.arange(9).reshape(3, 3)
    assert torch.tril(x).tolist() == np.tril(x.numpy()).tolist()
    assert torch.triu(x, 1).tolist() == np.triu(x.numpy(), 1).tolist()
    assert torch.tril_indices(3, 3).tolist() == np.stack(np.tril_indices(3)).tolist()
    assert torch.triu_indices(2, 3, 1).tolist() == np.stack(np.triu_indices(2, 1, 3)).tolist()


def test_meshgrid(torch):
    a, b = torch.arange(2), torch.arange(3)
    for indexing in ("ij", "xy"):
        found = torch.meshgrid(a, b, indexing=indexing)
        expected = np.meshgrid(a.numpy(), b.numpy(), indexing=indexing)
        for x, y in zip(found, expected, strict=True):
            assert x.tolist() == y.tolist()


# --------------------------------------------------------------------------- random
def test_random_factories(torch):
    torch.manual_seed(0)
    assert torch.rand(100).min() >= 0 and torch.rand(100).max() < 1
    assert torch.randint(3, 7, (50,)).unique().tolist() == [3, 4, 5, 6]
    assert torch.randint(5, (2, 2)).dtype is torch.int64
    assert sorted(torch.randperm(9).tolist()) == list(range(9))
    assert torch.randn(3, dtype=torch.float64).dtype is torch.float64
    torch.manual_seed(7)
    first = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(first, torch.rand(3))
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(first, torch.rand(3, generator=generator))
    assert torch.rand(2, requires_grad=True).requires_grad
    with pytest.raises(RuntimeError):
        torch.randint(3, 3, (2,))


def test_legacy_constructor(torch):
    assert torch.Tensor([1, 2]).dtype is torch.float32
    assert torch.Tensor(2, 3).shape == (2, 3)
    assert torch.Tensor().shape == (0,)
    assert isinstance(torch.zeros(1), torch.Tensor)
    assert torch.is_tensor(torch.zeros(1)) and not torch.is_tensor(1)
