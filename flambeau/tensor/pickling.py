"""Copying and pickling of tensors."""

from __future__ import annotations

import ctypes
from typing import Any

from flambeau.core.device import META
from flambeau.core.dtypes import by_name
from flambeau.core.shapes import required_span
from flambeau.runtime import memory
from flambeau.tensor import interop, launches

__all__ = ["reduce_tensor", "shallow_copy", "deep_copy"]


def deep_copy(tensor: Any, memo: dict) -> Any:
    """A copy with its own memory; tensors that share memory still share it in the copy."""
    device = tensor._meta.device
    if device is not META:
        launches.look(tensor, "a copy of a tensor's memory")
    storage = tensor._storage
    copied = memo.get(id(storage))
    if copied is None:
        copied = memory.pool_on(device, storage.nbytes).new(storage.nbytes)
        if storage.nbytes and device is not META:
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


def shallow_copy(tensor: Any) -> Any:
    """Another tensor object on the same memory, with the same attributes (`copy.copy`)."""
    made = interop.new_view(tensor._storage, tensor._ptr, tensor._meta)
    if type(tensor) is not type(made):
        made = made.as_subclass(type(tensor))
    made._rg = tensor._rg
    for name, value in tensor.__dict__.items():
        if not name.startswith("_"):
            made.__dict__[name] = value
    return made


def reduce_tensor(tensor: Any) -> tuple:
    """How `pickle` rebuilds a tensor: from the memory between its first and last element."""
    meta = tensor._meta
    if meta.device is META:
        return rebuild_without_data, (type(tensor), meta.dtype.name, tuple(meta.shape),
                                      tuple(meta.strides), tensor._rg), *_attributes(tensor)
    launches.look(tensor, "pickling a tensor")
    span = required_span(meta.shape, meta.strides) * meta.dtype.itemsize
    data = ctypes.string_at(tensor._ptr, span) if span else b""
    return rebuild_tensor, (type(tensor), meta.dtype.name, tuple(meta.shape), tuple(meta.strides),
                            data, tensor._rg), *_attributes(tensor)


def _attributes(tensor: Any) -> tuple:
    """What the user has set on the tensor, as `pickle` takes it; () if nothing."""
    found = {name: value for name, value in tensor.__dict__.items() if not name.startswith("_")}
    return (found,) if found else ()


def rebuild_tensor(cls: type, dtype: str, shape: tuple, strides: tuple, data: bytes,
                   requires_grad: bool) -> Any:
    """The tensor that `reduce_tensor` took apart, with memory of its own."""
    storage = memory.allocate(len(data))
    if data:
        ctypes.memmove(storage.ptr, data, len(data))
    return _finished(interop.from_storage(storage, by_name(dtype), shape, strides), cls,
                     requires_grad)


def rebuild_without_data(cls: type, dtype: str, shape: tuple, strides: tuple, requires_grad: bool
                         ) -> Any:
    """A tensor of the meta device."""
    kind = by_name(dtype)
    storage = memory.imagined(required_span(shape, strides) * kind.itemsize)
    return _finished(interop.from_storage(storage, kind, shape, strides), cls, requires_grad)


def _finished(made: Any, cls: type, requires_grad: bool) -> Any:
    if type(made) is not cls:
        made = made.as_subclass(cls)
    made._rg = requires_grad
    return made
