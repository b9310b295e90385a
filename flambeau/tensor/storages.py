"""Storages as users see them: `UntypedStorage` (bytes) and `TypedStorage` (elements of a dtype).

They are handles: the memory, its version and who shares it belong to the runtime's storage, which
tensors point to. Writing through a handle counts as a change of every tensor on the memory.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from flambeau.core.device import CPU, META, NO_DATA, Device, as_device
from flambeau.core.dtypes import EVERY, DType, uint8
from flambeau.ops.record import dtypes_default
from flambeau.runtime import memory, shared
from flambeau.tensor import interop, launches
from flambeau.tensor.meta import TensorBase, contiguous_meta

__all__ = ["UntypedStorage", "attach_conversions", "from_file", "handle_of", "is_shared",
           "move_to_shared", "replace_memory"]


# ---------------------------------------------------------------------- memory that moves
def replace_memory(storage: Any, other: Any, only: Any = None) -> None:
    """Let a storage have the memory of another, which has its content; tensors on it follow.

    A tensor that the new memory is too small for keeps the old one, and is alone with it.

    Args:
        only: the tensor that alone is known to use the storage; else all tensors are looked at.
    """
    old, tensors = storage.ptr, [only] if only is not None else _tensors_on(storage)
    memory.exchange(storage, other)
    for tensor in tensors:
        offset = tensor._ptr - old
        alias = tensor._storage is not storage
        if offset + _reach(tensor._meta) > storage.nbytes:
            tensor._storage = other
        else:
            tensor._ptr = storage.ptr + offset
            if alias:
                tensor._storage = memory.foreign(storage.ptr, storage.nbytes, storage)
    storage.version += 1


def _tensors_on(storage: Any) -> list:
    """All tensors on a storage, those included that have the memory with a version of its own."""
    found = []
    for item in gc.get_objects():
        if issubclass(type(item), TensorBase) and item._meta.strided:
            try:
                owner = item._storage
            except RuntimeError:  # of a vmap that has ended: nothing may be done with it
                continue
            while isinstance(owner, memory.Storage) and owner is not storage:
                owner = owner.owner
            if owner is storage:
                found.append(item)
    return found


def _root(storage: Any) -> Any:
    """The storage whose memory it is."""
    while isinstance(storage.owner, memory.Storage):
        storage = storage.owner
    return storage


def _reach(meta: Any) -> int:
    """Bytes from the first element to behind the last."""
    if not meta.numel:
        return 0
    last = sum((n - 1) * step for n, step in zip(meta.shape, meta.strides, strict=True))
    return (last + 1) * meta.dtype.itemsize


def move_to_shared(storage: Any, only: Any = None) -> shared.Mapping:
    """The mapping of a storage's memory, to which it moves if it is not shared yet; `only` as in
    `replace_memory`."""
    storage = _root(storage)
    owner = storage.owner
    if isinstance(owner, shared.Mapping) and (owner.fd, owner.name) != (None, None):
        return owner
    launches.settle("memory moves to where other processes see it")
    made = shared.shared_storage(storage.nbytes)
    if storage.nbytes:
        ctypes.memmove(made.ptr, storage.ptr, storage.nbytes)
    mapping = made.owner
    replace_memory(storage, made, only)
    return mapping


def is_shared(storage: Any) -> bool:
    """Do other processes, or can they, see what is written to a storage?"""
    owner = _root(storage).owner
    return isinstance(owner, shared.Mapping) and owner.shared


# ---------------------------------------------------------------------- bytes
class UntypedStorage:
    """The bytes of a memory.

    Args:
        a number of bytes, or a sequence of their values.
        device: "cpu", or "meta": no bytes, but how many there would be.
    """

    __slots__ = ("__weakref__", "_memory")
    is_cuda = is_hpu = is_sparse = is_sparse_csr = False

    def __init__(self, *args: Any, device: Any = None) -> None:
        where = as_device(device)
        if len(args) > 1:
            raise TypeError(f"UntypedStorage() takes at most 1 positional argument, got "
                            f"{len(args)}")
        data = args[0] if args else 0
        if isinstance(data, int):
            self._memory = memory.pool_on(where, data).new(data)
            return
        values = bytes(int(value) & 255 for value in data)
        self._memory = memory.allocate(len(values))
        ctypes.memmove(self._memory.ptr, values, len(values))
        if where is META:
            self._memory = memory.imagined(len(values))

    # ------------------------------------------------------------------ facts
    @property
    def device(self) -> Device:
        """Where the bytes are."""
        return META if memory.is_imagined(self._memory) else CPU

    @property
    def filename(self) -> str | None:
        """The file that the memory is a mapping of, or None."""
        owner = _root(self._memory).owner
        return owner.filename if isinstance(owner, shared.Mapping) else None

    @property
    def _cdata(self) -> int:
        return id(self._memory)

    def data_ptr(self) -> int:
        """The address of the first byte; 0 on the meta device."""
        return self._memory.ptr if self.device is CPU else 0

    def nbytes(self) -> int:
        """How many bytes there are."""
        return self._memory.nbytes

    size = __len__ = nbytes

    def element_size(self) -> int:
        """1: the size of a byte."""
        return 1

    def get_device(self) -> int:
        """-1: no accelerator."""
        return -1

    def resizable(self) -> bool:
        """May the memory grow? Not if it is somebody else's."""
        return self._memory.owner is None

    def is_shared(self) -> bool:
        """Is the memory visible to other processes?"""
        return is_shared(self._memory)

    def is_pinned(self, device: Any = "cuda") -> bool:
        """False: page-locked memory serves copies to an accelerator."""
        return False

    def untyped(self) -> UntypedStorage:
        """Itself."""
        return self

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The class's name."""
        if dtype is None:
            return "torch.storage.UntypedStorage"
        raise NotImplementedError("UntypedStorage.type(dtype) is not implemented; use .float(), "
                                  ".long(), ...")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and other._memory is self._memory

    def __hash__(self) -> int:
        return hash(id(self._memory))

    def __repr__(self) -> str:
        lines = "...\n" if self.device is META else "".join(
            f" {value}\n" for value in self.tolist())
        return f"{lines}[torch.storage.UntypedStorage(device={self.device}) of size {len(self)}]"

    # ------------------------------------------------------------------ content
    def _bytes(self) -> np.ndarray:
        launches.share(None)
        return interop.array_of(self._tensor())

    def _tensor(self, dtype: DType = uint8) -> Any:
        count = self._memory.nbytes // dtype.itemsize
        return interop.new_view(self._memory, self._memory.ptr,
                                contiguous_meta(dtype, (count,), self.device))

    def _written(self) -> UntypedStorage:
        self._memory.version += 1
        return self

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            if index.step not in (None, 1):
                raise RuntimeError(f"Trying to slice with a step of {index.step}, but only a step "
                                   "of 1 is supported")
            start, stop, _ = index.indices(len(self))
            part = memory.foreign(self._memory.ptr + start, max(stop - start, 0), self._memory)
            return handle_of(part)
        return int(self._bytes()[_place(index, len(self), self)])

    def __setitem__(self, key: Any, value: Any) -> None:
        where = key if isinstance(key, slice) else _place(key, len(self), self)
        self._bytes()[where] = int(value) & 255
        self._written()

    def __delitem__(self, key: Any) -> None:
        raise TypeError("'torch.UntypedStorage' object doesn't support item deletion")

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())

    def tolist(self) -> list[int]:
        """The bytes as numbers."""
        return self._bytes().tolist()

    def fill_(self, value: Any) -> UntypedStorage:
        """Set every byte."""
        if self.device is META:
            return self
        self._bytes()[...] = int(value) & 255
        return self._written()

    def copy_(self, source: Any, non_blocking: bool | None = None) -> UntypedStorage:
        """Take over the bytes of a storage of the same size."""
        other = source.untyped()
        if len(other) != len(self):
            raise RuntimeError(f"size does not match: {len(self)} bytes cannot take over "
                               f"{len(other)}")
        if self.device is not META:
            self._bytes()[...] = other._bytes()
        return self._written()

    def byteswap(self, dtype: DType) -> None:
        """Reverse the bytes of every element, in place (of each part of a complex number)."""
        size = dtype.itemsize // (2 if dtype.is_complex else 1)
        data = self._bytes()
        whole = data[:len(data) // size * size].reshape(-1, size)
        whole[...] = whole[:, ::-1].copy()
        self._written()

    # ------------------------------------------------------------------ others
    def clone(self) -> UntypedStorage:
        """A copy with memory of its own."""
        made = memory.pool_on(self.device, len(self)).new(len(self))
        launches.share(None)
        if self.device is not META:
            ctypes.memmove(made.ptr, self._memory.ptr, len(self))
        return handle_of(made)

    __copy__ = clone

    def __deepcopy__(self, memo: dict) -> UntypedStorage:
        kept = memo.setdefault("torch", {})
        if self._cdata not in kept:
            kept[self._cdata] = self.clone()
        return kept[self._cdata]

    def __reduce__(self) -> tuple:
        if self.device is META:
            return _on_meta, (len(self),)
        return _rebuild_untyped, (self._bytes().tobytes(),)

    def new(self) -> UntypedStorage:
        """An empty storage."""
        return UntypedStorage(0)

    def cpu(self) -> UntypedStorage:
        """The storage on the CPU: itself. Raises on the meta device."""
        return self.to(device=CPU)

    def to(self, *, device: Any, non_blocking: bool = False) -> UntypedStorage:
        """The storage on another device; itself if it is there."""
        where = as_device(device)
        if where is self.device:
            return self
        if self.device is META:
            raise NotImplementedError(NO_DATA)
        return handle_of(memory.imagined(len(self)))

    def cuda(self, device: Any = None, non_blocking: bool = False) -> UntypedStorage:
        """Raises where there is no such device."""
        return self.to(device="cuda" if device is None else device)

    def hpu(self, device: Any = None, non_blocking: bool = False) -> UntypedStorage:
        """Raises: there is no such device."""
        return self.to(device="hpu")

    def mps(self) -> UntypedStorage:
        """Raises: there is no such device."""
        return self.to(device="mps")

    def pin_memory(self, device: Any = "cuda") -> UntypedStorage:
        """Raises: page-locked memory serves copies to an accelerator, and there is none."""
        raise RuntimeError("Cannot access accelerator device when none is available. (pin_memory: "
                           "leave it out on the CPU)")

    def resize_(self, size: int) -> UntypedStorage:
        """Another number of bytes; those that stay keep their values, and tensors follow."""
        if not isinstance(size, int) or size < 0:
            raise TypeError(f"resize_ expects a number of bytes, got {size!r}")
        if size != len(self):
            if not self.resizable():
                raise RuntimeError("Trying to resize storage that is not resizable")
            launches.settle("a storage is resized")
            other = memory.pool_on(self.device, size).new(size)
            if self.device is not META:
                ctypes.memmove(other.ptr, self._memory.ptr, min(size, len(self)))
            replace_memory(self._memory, other)
        return self

    def share_memory_(self) -> UntypedStorage:
        """Move to memory that other processes can map; tensors follow."""
        if self.device is META:
            raise RuntimeError("_share_fd_: only available on CPU: there is no memory to share")
        move_to_shared(self._memory)
        return self

    @classmethod
    def _new_shared(cls, size: int, *, device: Any = "cpu") -> UntypedStorage:
        return handle_of(shared.shared_storage(size))

    @classmethod
    def from_buffer(cls, buffer: Any, byte_order: str | None = None, count: int = -1,
                    offset: int = 0, *, dtype: DType = uint8) -> UntypedStorage:
        """A copy of the bytes of a buffer that hold `count` elements from `offset` on."""
        data = memoryview(buffer).cast("B")[offset:]
        data = data if count < 0 else data[:count * dtype.itemsize]
        if len(data) % dtype.itemsize or count >= 0 and len(data) < count * dtype.itemsize:
            raise ValueError(f"a buffer of {len(data)} bytes does not hold whole elements of "
                             f"{dtype.itemsize} bytes")
        made = cls(0)
        made._memory = memory.allocate(len(data))
        ctypes.memmove(made._memory.ptr, bytes(data), len(data))
        if byte_order not in (None, "native", sys.byteorder):
            made.byteswap(dtype)
        return made

    @classmethod
    def from_file(cls, filename: str, shared: bool = False, nbytes: int = 0) -> UntypedStorage:
        """A file as memory.

        Args:
            shared: write to the file what is written to the memory; it is made, and grows, if
                needed.
            nbytes: how much of it.
        """
        return handle_of(_mapped(filename, shared, nbytes))


def _mapped(filename: str, shared_: bool, nbytes: int) -> Any:
    return shared.map_file(filename, shared_, nbytes).storage()


def _on_meta(nbytes: int) -> UntypedStorage:
    return UntypedStorage(nbytes, device=META)


def _rebuild_untyped(data: bytes) -> UntypedStorage:
    return UntypedStorage.from_buffer(data)


def _place(index: Any, size: int, storage: Any) -> int:
    if not hasattr(index, "__index__"):
        raise RuntimeError(f"can't index a {type(storage)} with {type(index)}")
    place = index.__index__()
    if not -size <= place < size:
        raise IndexError(f"index {place} out of range for storage of size {size}")
    return place


def handle_of(storage: Any) -> UntypedStorage:
    """The handle of a runtime storage."""
    made = object.__new__(UntypedStorage)
    made._memory = storage
    return made


def from_file(filename: str, shared: bool | None = None, size: int | None = 0, *,
              dtype: DType | None = None, layout: Any = None, device: Any = None,
              pin_memory: bool = False, requires_grad: bool = False) -> Any:
    """A vector on the memory of a file.

    Args:
        shared: write to the file what is written to the tensor; it is made, and grows, if needed.
        size: how many elements.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([1, 2, 3]))
    ...     file.flush()
    ...     torch.from_file(file.name, size=3, dtype=torch.uint8)
    tensor([1, 2, 3], dtype=torch.uint8)
    """
    from flambeau.tensor.creation import checked

    dtype = checked(dtype, device, layout) or dtypes_default()
    storage = _mapped(filename, bool(shared), (size or 0) * dtype.itemsize)
    made = interop.new_view(storage, storage.ptr, contiguous_meta(dtype, (size or 0,)))
    return made.requires_grad_() if requires_grad else made


CONVERSIONS = {
    "double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32",
    "short": "int16", "char": "int8", "byte": "uint8", "bool": "bool", "bfloat16": "bfloat16",
    "complex_double": "complex128", "complex_float": "complex64",
}
_FLOAT8 = ("float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz")
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in EVERY}


def attach_conversions(cls: type, make: Any) -> None:
    """Give a class of storages its conversions."""
    for name, dtype in CONVERSIONS.items():
        setattr(cls, name, make(name, BY_NAME[dtype]))
    for name in _FLOAT8:
        setattr(cls, name, make(name, BY_NAME[name]))
