"""Tensors and the rest of Python: NumPy, DLPack, numbers, copies, pickles. These tests also run
under PyTorch (tests/conformance)."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

NAMES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
         "complex64", "complex128")


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_shared_both_ways(torch, name):
    array = np.zeros((2, 3), name)
    x = torch.from_numpy(array)
    assert x.dtype is getattr(torch, name) and x.shape == (2, 3)
    array[0, 1] = 1
    assert x[0, 1].item() == 1
    x[1, 2] = 1
    assert array[1, 2] == 1
    back = x.numpy()
    assert back.dtype == array.dtype and np.shares_memory(back, array)
    x.fill_(1)
    assert back.all()


def test_numpy_keeps_the_memory_alive(torch):
    array = torch.arange(1000.0).numpy()
    gc.collect()
    torch.full((1000,), 7.0)
    assert array.sum() == 499500
    x = torch.from_numpy(np.arange(1000.0))
    gc.collect()
    np.full(1000, 7.0)
    assert x.sum().item() == 499500


def test_strides_come_along(torch):
    array = np.arange(12.0).reshape(3, 4)
    for view in (array.T, array[::2], array[:, 1:3], array[1], np.broadcast_to(array, (2, 3, 4))):
        if view.flags.writeable:
            x = torch.from_numpy(view)
            assert x.tolist() == view.tolist()
            assert x.stride() == tuple(s // 8 for s in view.strides)
    assert torch.arange(6).reshape(2, 3).t().numpy().strides == (8, 24)


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda: np.arange(4)[::-1], ValueError, "stride in the given numpy array is "
                                             "negative|negative"),
    (lambda: np.array(["a"]), TypeError, "can't convert np.ndarray of type"),
    (lambda: np.array([None]), TypeError, "can't convert np.ndarray of type"),
    (lambda: np.arange(4).astype(">i4"), ValueError, "byte order"),
    (lambda: [1, 2], TypeError, "expected np.ndarray"),
])
def test_arrays_that_no_tensor_can_share(torch, make, error, text):
    with pytest.raises(error, match=text):
        torch.from_numpy(make())


def test_tensors_that_no_array_can_share(torch):
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="requires grad"):
        x.numpy()
    assert x.detach().numpy().tolist() == x.numpy(force=True).tolist() == [1, 1]
    with pytest.raises(TypeError, match="BFloat16"):
        torch.ones(2, dtype=torch.bfloat16).numpy()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_numpy_functions_take_tensors(torch):
    x = torch.arange(6.0).reshape(2, 3)
    assert np.asarray(x).tolist() == x.tolist() and np.shares_memory(np.asarray(x), x.numpy())
    assert np.array(x).sum() == 15 and np.array(x, dtype=np.float64).dtype == np.float64
    np.testing.assert_allclose(np.exp(x.numpy()), torch.exp(x).numpy(), 1e-6)
    assert np.concatenate([x, x]).shape == (4, 3)
    assert np.asarray(torch.tensor([True])).dtype == np.bool_


def test_dlpack(torch):
    x = torch.arange(6.0).reshape(2, 3)
    array = np.from_dlpack(x)
    x[0, 0] = 9
    assert array[0, 0] == 9 and array.shape == (2, 3)
    source = np.arange(4, dtype=np.int32)
    y = torch.from_dlpack(source)
    source[1] = 7
    assert y.tolist() == [0, 7, 2, 3] and y.dtype is torch.int32
    again = torch.from_dlpack(x)
    again[1, 2] = -1
    assert x[1, 2].item() == -1
    assert x.__dlpack_device__()[0] == 1
    for take in (np.from_dlpack, torch.from_dlpack):
        with pytest.raises(BufferError):
            take(torch.ones(1, requires_grad=True))


def test_dlpack_copies_only_if_asked(torch):
    x = torch.arange(3)
    source = x.numpy()
    copies = [torch.from_dlpack(x, copy=True), torch.from_dlpack(source, copy=True, device="cpu"),
              np.from_dlpack(x, copy=True), torch.asarray(x, copy=True),
              torch.asarray(source, copy=True)]
    shared = [torch.from_dlpack(x, device="cpu"), torch.from_dlpack(source), np.from_dlpack(x),
              torch.asarray(source)]
    x[0] = 5
    assert [int(y[0]) for y in copies] == [0] * len(copies)
    assert [int(y[0]) for y in shared] == [5] * len(shared)
    with pytest.raises(AssertionError):
        torch.from_dlpack(torch.to_dlpack(x), copy=True)
    with pytest.raises(RuntimeError):
        torch.from_dlpack(x, device="cuda")


# --------------------------------------------------------------------------- Python numbers
@pytest.mark.parametrize("name", (*NAMES, "bfloat16"))
def test_items_and_lists(torch, name):
    x = torch.tensor([[0, 1]], dtype=getattr(torch, name))
    kind = {"b": bool, "c": complex, "i": int, "u": int, "f": float}[
        "f" if name == "bfloat16" else np.dtype(name).kind]
    assert type(x[0, 1].item()) is kind and x[0, 1].item() == 1
    assert x.tolist() == [[0, 1]] and type(x.tolist()[0][0]) is kind
    assert x.reshape(2)[1:].item() == 1 and torch.tensor(1, dtype=x.dtype).tolist() == 1


def test_conversions_to_numbers(torch):
    assert int(torch.tensor(3.7)) == 3 and float(torch.tensor([2])) == 2.0
    assert complex(torch.tensor(1j)) == 1j and bool(torch.tensor([[0.5]])) is True
    assert [10, 20, 30][torch.tensor(1)] == 20 and range(5)[torch.tensor(2)] == 2
    assert f"{torch.tensor(1.23456):.2f}" == "1.23" and format(torch.tensor(5), "03d") == "005"
    assert round(torch.tensor(2.6).item()) == 3
    assert torch.tensor(3) == 3
    assert sum(torch.tensor([1, 2, 3])).item() == 6 and max(torch.tensor([1, 3, 2])).item() == 3


def test_facts(torch):
    x = torch.zeros(2, 3, dtype=torch.float64)
    assert x.ndim == x.dim() == 2 and x.numel() == x.nelement() == 6
    assert x.size() == x.shape == torch.Size([2, 3]) and x.size(1) == 3 and x.size(-1) == 3
    assert x.stride() == (3, 1) and x.stride(0) == 3
    assert x.element_size() == x.itemsize == 8 and x.nbytes == 48
    assert x.is_floating_point() and not x.is_complex() and x.is_signed()
    assert x.data_ptr() == x[0].data_ptr() and x[1].data_ptr() == x.data_ptr() + 24
    assert x.is_cpu and not x.is_cuda and x.layout is torch.strided
    assert x.get_device() == -1 and len(x) == 2


# --------------------------------------------------------------------------- copies
def test_copies(torch):
    x = torch.arange(4.0)
    for duplicate in (copy.deepcopy, torch.clone, lambda t: t.detach().clone()):
        y = duplicate(x)
        y[0] = 9
        assert x[0].item() == 0
    shallow = copy.copy(x)
    shallow[1] = 7
    assert x[1].item() == 7


def test_deep_copies_keep_what_is_shared(torch):
    x = torch.arange(4.0, requires_grad=True)
    pair = {"a": x, "b": x}
    again = copy.deepcopy(pair)
    assert again["a"] is again["b"] and again["a"] is not x
    assert again["a"].requires_grad and again["a"].is_leaf
    base = torch.zeros(4)
    first, second = copy.deepcopy([base, base[1:]])
    first[1] = 5
    assert second[0].item() == 5
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2)


@pytest.mark.parametrize("name", (*NAMES, "bfloat16"))
def test_pickles(torch, name):
    x = torch.tensor([[0, 1], [1, 0]], dtype=getattr(torch, name))
    for tensor in (x, x.t(), x[1], x[:, :0], torch.tensor(1, dtype=x.dtype)):
        again = pickle.loads(pickle.dumps(tensor))
        assert again.dtype is tensor.dtype and again.stride() == tensor.stride()
        assert again.tolist() == tensor.tolist()


def test_pickles_keep_requires_grad(torch):
    x = torch.ones(2, requires_grad=True)
    again = pickle.loads(pickle.dumps(x))
    assert again.requires_grad and again.is_leaf


# --------------------------------------------------------------------------- subclasses
def test_subclasses(torch):
    class Marked(torch.Tensor):
        pass

    x = torch.ones(2).as_subclass(Marked)
    assert isinstance(x, Marked) and isinstance(x, torch.Tensor)
    assert x.tolist() == [1, 1] and (x + 1).tolist() == [2, 2]
    x.add_(1)
    assert x.tolist() == [2, 2]


def test_torch_function(torch):
    calls = []

    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            calls.append(func.__name__)
            return super().__torch_function__(func, types, args, kwargs or {})

    x = torch.ones(2).as_subclass(Logged)
    y = torch.exp(x)
    assert "exp" in calls and isinstance(y, Logged)

    class Foreign:
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return "foreign"

    assert torch.add(torch.ones(2), Foreign()) == "foreign"
