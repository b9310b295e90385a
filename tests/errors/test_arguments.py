"""NumPy's names for arguments, Python's types as dtypes, numbers that do not fit."""

from __future__ import annotations

import numpy as np
import pytest


def test_numpy_names(torch):
    x = torch.arange(6.0).reshape(2, 3)
    assert x.sum(axis=0).tolist() == [3, 5, 7]
    assert torch.mean(x, axis=1, keepdims=True).shape == (2, 1)
    assert torch.cat([x, x], axis=1).shape == (2, 6)
    assert torch.softmax(x, axis=0).shape == (2, 3)
    assert x.unsqueeze(axis=0).shape == (1, 2, 3)
    with pytest.raises(TypeError, match="multiple values for argument 'dim'"):
        x.sum(0, axis=1)
    with pytest.raises(TypeError, match="missing 1 required positional arguments: \"dim\""):
        x.softmax()


def test_python_types_as_dtypes(torch):
    assert torch.ones(2, dtype=float).dtype is torch.float64
    assert torch.ones(2, dtype=int).dtype is torch.int64
    assert torch.ones(2).sum(dtype=float).dtype is torch.float64
    with pytest.raises(TypeError, match=r"'dtype' must be torch\.dtype, not str"):
        torch.ones(2).sum(dtype="float32")


def test_arrays_as_operands(torch):
    """As in PyTorch, NumPy computes and gives a tensor."""
    mixed = torch.ones(2) + np.ones(2)
    assert isinstance(mixed, torch.Tensor) and mixed.tolist() == [2, 2]
    assert (np.float32(3) / torch.ones(2)).tolist() == [3, 3]
    for wrong in (lambda: np.ones(2) * torch.ones(2), lambda: np.ones(2) - torch.ones(2),
                  lambda: np.ones(2) + torch.ones(2)):
        with pytest.raises(TypeError, match=r"torch\.from_numpy"):
            wrong()


def test_numbers_that_do_not_fit(torch):
    x = torch.ones(2)
    for wrong in (1 << 64, -(1 << 63) - 1, 1 << 200):
        with pytest.raises(OverflowError):
            x + wrong
    assert (torch.zeros(2, dtype=torch.int64) + ((1 << 63) - 1)).tolist() == [2**63 - 1] * 2
    for _ in range(2):  # the second call knows the kernel
        assert (x + (1 << 63)).tolist() == [2.0**63] * 2
        assert (torch.zeros(2, dtype=torch.int64) + (1 << 63)).tolist() == [-(2**63)] * 2
        assert torch.ones(2).fill_(1 << 63).tolist() == [2.0**63] * 2
    with pytest.raises(RuntimeError, match="cannot be converted to type uint8 without overflow"):
        torch.tensor(300, dtype=torch.uint8)
    assert torch.tensor(-1, dtype=torch.uint8).item() == 255
    with pytest.raises(RuntimeError, match="without overflow"):
        torch.tensor([1, float("nan")], dtype=torch.int32)


def test_dtype_of_mixed_data(torch):
    assert torch.tensor([np.ones(2), np.ones(2)]).dtype is torch.float64
    assert torch.tensor([np.int32(1)]).dtype is torch.int32
    assert torch.tensor([1, torch.tensor(2.0)]).dtype is torch.float32
    assert torch.tensor([torch.ones(1), torch.ones(1)]).shape == (2,)


def test_views_stay_inside_their_storage(torch):
    x = torch.arange(4.0)
    assert x[2:].as_strided((2,), (1,), 0).tolist() == [0, 1]
    assert x[2:].as_strided((2,), (1,)).tolist() == [2, 3]
    with pytest.raises(RuntimeError, match="out of bounds for storage of size 16"):
        x.as_strided((5,), (1,))
    with pytest.raises(RuntimeError, match="storage offset"):
        x.as_strided((1,), (1,), -1)


def test_memory_errors_are_both_kinds(torch):
    for kind in (RuntimeError, MemoryError, torch.OutOfMemoryError):
        with pytest.raises(kind, match="GiB"):
            torch.empty(1 << 45)


def test_unavailable_devices_are_both_kinds(torch):
    for kind in (RuntimeError, AssertionError):
        with pytest.raises(kind, match="CUDA"):
            torch.ones(2, device="cuda")
