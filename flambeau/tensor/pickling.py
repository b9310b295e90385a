"""Copying and pickling of tensors."""

from __future__ import annotations

from typing import Any

from flambeau.core.dtypes import by_name
from flambeau.runtime import memory
from flambeau.tensor import interop

__all__ = ["reduce_tensor", "deep_copy"]


def deep_copy(tensor: Any, memo: dict) -> Any:
    """A copy with its own memory; tensors that share memory still share it in the copy."""
    storage = tensor._storage
    copied = memo.get(id(storage))
    if copied is None:
        copied = memory.allocate(storage.nbytes)
        if storage.nbytes:
            import ctypes

            ctypes.memmove(copied.ptr, storage.ptr, storage.nbytes)
        memo[id(storage)] = copied
        memo[("keep", id(storage))] = storage
    made = interop.new_view(copied, copied.ptr + tensor._ptr - storage.ptr, tensor._meta)
    if type(tensor) is not type(made):
        made = made.as_subclass(type(tensor))
    made._rg = tensor._rg
    if tensor._grad is not None:
        made._grad = tensor._grad.__deepcopy__(memo)
    for name, value in tensor.__dict__.items():
        if not name.startswith("_"):
            made.__dict__[name] = value
    memo[id(tensor)] = made
    return made


def reduce_tensor(tensor: Any) -> tuple:
    """How `pickle` and `copy` rebuild a tensor."""
    dense = tensor.detach().contiguous()
    return rebuild_tensor, (type(tensor), tensor.dtype.name, tuple(tensor.shape),
                            interop.read_bytes(dense), tensor._rg)


def rebuild_tensor(cls: type, dtype: str, shape: tuple, data: bytes, requires_grad: bool) -> Any:
    import numpy as np

    kind = by_name(dtype)
    array = np.frombuffer(data, kind.numpy).reshape(shape)
    made = interop.from_array_copy(array, kind)
    if type(made) is not cls:
        made = made.as_subclass(cls)
    made._rg = requires_grad
    return made
