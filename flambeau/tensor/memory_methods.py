"""Methods of `Tensor` about its memory: storages, resizing, sharing."""

from __future__ import annotations

import ctypes
from sys import getrefcount
from typing import Any

from flambeau.core.arguments import kind_of
from flambeau.core.device import CPU, META
from flambeau.core.shapes import contiguous_strides
from flambeau.runtime import memory
from flambeau.tensor import interop, launches, storages
from flambeau.tensor.meta import TensorBase, contiguous_meta
from flambeau.tensor.sizes import shape_of
from flambeau.tensor.tensor import Tensor
from flambeau.tensor.typed_storages import TypedStorage, storage_class, storage_of

__all__ = ["attach"]


def untyped_storage(self: Tensor) -> storages.UntypedStorage:
    """The memory that views share, as bytes.

    >>> x = torch.zeros(4)
    >>> x.untyped_storage().nbytes()
    16
    >>> x[:2].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    True
    """
    launches.share(None)
    return storages.handle_of(self._storage)


def storage_type(self: Tensor) -> Any:
    """The old name of the kind of its storage: `torch.FloatStorage`.

    >>> torch.ones(2).storage_type().__name__
    'FloatStorage'
    """
    return storage_class(self.dtype)


def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Do both name the same elements of the same memory?

    >>> x = torch.zeros(4)
    >>> x.is_set_to(x.view(4)), x.is_set_to(x.clone())
    (True, False)
    """
    return self._storage is tensor._storage and self._ptr == tensor._ptr and (
        self._meta is tensor._meta)


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Change the shape in place; new elements are uninitialised. Views keep sharing the memory.

    >>> torch.tensor([1, 2, 3, 4]).resize_(2, 2)
    tensor([[1, 2],
            [3, 4]])
    """
    shape = shape_of(sizes)
    if any(size < 0 for size in shape):
        raise RuntimeError("Trying to create tensor with negative dimension "
                           f"{min(shape)}: {list(shape)}")
    if self._rg:
        raise RuntimeError("cannot resize variables that require grad")
    meta = contiguous_meta(self.dtype, shape, self._meta.device)
    offset = self._ptr - self._storage.ptr
    if offset + meta.nbytes > self._storage.nbytes:
        _grow(self, offset + meta.nbytes)
    self._meta = meta
    return self


class _Slot:
    __slots__ = ("_storage",)


def _probe() -> int:
    slot = _Slot()
    slot._storage = object()
    return getrefcount(slot._storage)


_ALONE = _probe()  # what getrefcount says of something that one attribute holds


def _grow(tensor: Tensor, nbytes: int) -> None:
    """Give a tensor's storage more bytes."""
    if not storages.handle_of(tensor._storage).resizable():
        raise RuntimeError("Trying to resize storage that is not resizable: its memory is "
                           f"another's ({kind_of(tensor._storage.owner)})")
    launches.settle("a tensor's memory grows")
    larger = memory.pool_on(tensor._meta.device, nbytes).new(nbytes)
    if tensor._meta.device is CPU:
        ctypes.memmove(larger.ptr, tensor._storage.ptr, min(tensor._storage.nbytes, nbytes))
    only = tensor if getrefcount(tensor._storage) <= _ALONE else None
    storages.replace_memory(tensor._storage, larger, only)


def set_(self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None,
         stride: Any = None) -> Tensor:
    """Take over the memory of another tensor or of a storage.

    Args:
        source: a tensor, a storage, or None for no memory.
        storage_offset: of the first element, in elements.
        size: the shape; by default the tensor's, or all of the storage.
        stride: in elements; row-major by default.

    Raises:
        RuntimeError: another dtype, or the elements lie outside of the memory.

    >>> x = torch.zeros(2)
    >>> _ = x.set_(torch.tensor([1., 2., 3.]))
    >>> x
    tensor([1., 2., 3.])
    """
    storage, known = _memory_of(self, source)
    if memory.is_imagined(storage) is not (self._meta.device is META):
        other = META if self._meta.device is CPU else CPU
        raise RuntimeError(f'Attempted to set the storage of a tensor on device "{self.device}" to '
                           f'a storage on different device "{other}".  This is no longer allowed; '
                           "the devices must match.")
    launches.share(None)
    if known is not None and size is None:
        self._storage, self._ptr, self._meta = storage, known._ptr, known._meta
        return self
    if size is None:
        shape = (storage.nbytes // self.dtype.itemsize - storage_offset,)
    else:
        shape = shape_of((size,))
    strides = contiguous_strides(shape) if stride is None else shape_of((stride,))
    other = interop.from_storage(storage, self.dtype, shape, strides, storage_offset)
    self._storage, self._ptr, self._meta = other._storage, other._ptr, other._meta
    return self


def _memory_of(tensor: Tensor, source: Any) -> tuple[Any, Any]:
    """(the runtime's storage, the tensor if it is one)."""
    if source is None:
        return memory.pool_on(tensor._meta.device, 0).new(0), None
    if isinstance(source, TensorBase):
        if source.dtype is not tensor.dtype:
            raise RuntimeError(f"Could not set tensor of type {source.dtype.scalar_name} to a "
                               f"tensor of type {tensor.dtype.scalar_name}")
        return source._storage, source
    if isinstance(source, TypedStorage):
        if source.dtype is not tensor.dtype:
            raise RuntimeError(f"Expected a Storage of type {tensor.dtype.scalar_name} or an "
                               f"UntypedStorage, but got type {source.type()} for argument 1 "
                               "'storage'")
        return source.untyped()._memory, None
    if isinstance(source, storages.UntypedStorage):
        return source._memory, None
    raise TypeError("set_(): argument 'source' (position 1) must be a Tensor or a Storage, not "
                    f"{kind_of(source)}")


# ---------------------------------------------------------------------- sharing
def share_memory_(self: Tensor) -> Tensor:
    """Move the memory to where other processes can map it; views move along. Itself.

    >>> torch.ones(2).share_memory_()
    tensor([1., 1.])
    """
    if self._meta.device is META:
        raise RuntimeError("_share_fd_: only available on CPU: there is no memory to share")
    only = self if getrefcount(self._storage) <= _ALONE else None
    storages.move_to_shared(self._storage, only)
    return self


def is_shared(self: Tensor) -> bool:
    """Can other processes see what is written to the tensor?

    >>> torch.ones(2).share_memory_().is_shared()
    True
    """
    return self._meta.strided and storages.is_shared(self._storage)


def is_pinned(self: Tensor, device: Any = None) -> bool:
    """False: page-locked memory serves copies to an accelerator.

    >>> torch.ones(2).is_pinned()
    False
    """
    return False


def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """Raises: page-locked memory serves copies to an accelerator, and there is none.

    >>> x = torch.ones(2)
    >>> x.pin_memory() if torch.accelerator.is_available() else x
    tensor([1., 1.])
    """
    raise RuntimeError("Cannot access accelerator device when none is available. (pin_memory: "
                       "leave it out on the CPU)")


def attach(cls: type) -> None:
    """Give Tensor these methods."""
    for method in (untyped_storage, storage_type, is_set_to, resize_, set_, share_memory_,
                   is_shared, is_pinned, pin_memory):
        setattr(cls, method.__name__, method)
    cls.storage = cls._typed_storage = storage_of
