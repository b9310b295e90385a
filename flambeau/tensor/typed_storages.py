"""`TypedStorage`, and the old names of its kinds: `FloatStorage`, `LongStorage` ..."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ops.record import dtypes_default
from flambeau.tensor import interop
from flambeau.tensor.storages import (
    UntypedStorage,
    _place,
    attach_conversions,
    handle_of,
)

__all__ = ["KINDS", "TypedStorage", "is_storage", "storage_class", "storage_of", "typed"]

_warned: list[bool] = []


def warn_of_typed() -> None:
    """Say once that TypedStorage is on its way out."""
    if not _warned:
        _warned.append(True)
        warnings.warn("TypedStorage is deprecated. It will be removed in the future and "
                      "UntypedStorage will be the only storage class. This should only matter to "
                      "you if you are using storages directly.  To access UntypedStorage "
                      "directly, use tensor.untyped_storage() instead of tensor.storage()",
                      UserWarning, stacklevel=3)


class TypedStorage:
    """A memory as elements of a dtype.

    Args:
        a number of elements, or a sequence of their values.
        wrap_storage: the bytes to see so, instead.
        dtype: of the elements; the default dtype if none is given.
    """

    __slots__ = ("__weakref__", "_untyped_storage", "dtype")
    is_cuda = is_hpu = is_sparse = False

    def __init__(self, *args: Any, wrap_storage: UntypedStorage | None = None,
                 dtype: DType | None = None, device: Any = None, _internal: bool = False) -> None:
        self.dtype = dtype or dtypes_default()
        if wrap_storage is not None:
            if args or dtype is None:
                raise RuntimeError("wrap_storage needs a dtype, and excludes a size or values")
            if not isinstance(wrap_storage, UntypedStorage):
                raise TypeError("Argument 'wrap_storage' must be UntypedStorage, but got "
                                f"{type(wrap_storage)}")
            self._untyped_storage = wrap_storage
        elif len(args) > 1:
            raise TypeError(f"TypedStorage() takes at most 1 positional argument, got {len(args)}")
        elif not args or isinstance(args[0], int):
            count = args[0] if args else 0
            self._untyped_storage = UntypedStorage(count * self.dtype.itemsize, device=device)
        else:
            made = interop.from_data(args[0], self.dtype)
            self._untyped_storage = handle_of(made._storage)

    # ------------------------------------------------------------------ facts
    @property
    def device(self) -> Any:
        return self._untyped_storage.device

    @property
    def filename(self) -> str | None:
        """The file that the memory is a mapping of, or None."""
        return self._untyped_storage.filename

    @property
    def _cdata(self) -> int:
        return self._untyped_storage._cdata

    def untyped(self) -> UntypedStorage:
        """The bytes."""
        return self._untyped_storage

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self._untyped_storage.data_ptr()

    def nbytes(self) -> int:
        """How many bytes there are."""
        return self._untyped_storage.nbytes()

    def size(self) -> int:
        """How many elements there are."""
        return self.nbytes() // self.dtype.itemsize

    __len__ = _size = size

    def element_size(self) -> int:
        """The bytes of an element."""
        return self.dtype.itemsize

    def get_device(self) -> int:
        """-1: no accelerator."""
        return -1

    def resizable(self) -> bool:
        """May the memory grow?"""
        return self._untyped_storage.resizable()

    def is_shared(self) -> bool:
        """Is the memory visible to other processes?"""
        return self._untyped_storage.is_shared()

    def is_pinned(self, device: Any = "cuda") -> bool:
        """False: page-locked memory serves copies to an accelerator."""
        return False

    def pickle_storage_type(self) -> str:
        """The name of the kind: "FloatStorage"."""
        return self.dtype.legacy.replace("Tensor", "Storage")

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The name of the kind, or the elements converted."""
        if dtype is None:
            return f"torch.{self.pickle_storage_type()}"
        return self._to(dtype if isinstance(dtype, DType) else dtype.dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypedStorage) and other.dtype is self.dtype and (
            other._untyped_storage == self._untyped_storage)

    def __hash__(self) -> int:
        return hash((self._cdata, self.dtype))

    def __repr__(self) -> str:
        lines = "...\n" if self.device.type == "meta" else "".join(
            f" {value}\n" for value in self.tolist())
        return (f"{lines}[torch.storage.TypedStorage(dtype={self.dtype!r}, device={self.device}) "
                "of size "
                f"{len(self)}]")

    # ------------------------------------------------------------------ content
    def _tensor(self) -> Any:
        return self._untyped_storage._tensor(self.dtype)

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            raise RuntimeError("slices are only supported in UntypedStorage.__getitem__")
        place = _place(idx, len(self), self)
        return self._tensor()[place % len(self)].item()

    def __setitem__(self, idx: Any, value: Any) -> None:
        if isinstance(idx, slice):
            self._tensor()[idx] = value
        else:
            self._tensor()[_place(idx, len(self), self)] = value

    def __iter__(self) -> Iterator:
        return iter(self.tolist())

    def tolist(self) -> list:
        """The elements."""
        return self._tensor().tolist()

    def fill_(self, value: Any) -> TypedStorage:
        """Set every element."""
        self._tensor().fill_(value)
        return self

    def copy_(self, source: Any, non_blocking: bool | None = None) -> TypedStorage:
        """Take over the elements of a storage of the same size, converted."""
        if isinstance(source, UntypedStorage):
            self._untyped_storage.copy_(source)
            return self
        if len(source) != len(self):
            raise RuntimeError(f"size does not match: {len(self)} elements cannot take over "
                               f"{len(source)}")
        self._tensor().copy_(source._tensor())
        return self

    # ------------------------------------------------------------------ others
    def _to(self, dtype: DType) -> TypedStorage:
        return typed(self._tensor().to(dtype).untyped_storage(), dtype)

    def to(self, *, device: Any, non_blocking: bool = False) -> TypedStorage:
        """The storage on another device; itself if it is there."""
        moved = self._untyped_storage.to(device=device)
        return self if moved is self._untyped_storage else typed(moved, self.dtype)

    def cpu(self) -> TypedStorage:
        """The storage on the CPU: itself. Raises on the meta device."""
        return self.to(device="cpu")

    def cuda(self, device: Any = None, non_blocking: bool = False) -> TypedStorage:
        """Raises where there is no such device."""
        return self.to(device="cuda" if device is None else device)

    def hpu(self, device: Any = None, non_blocking: bool = False) -> TypedStorage:
        """Raises: there is no such device."""
        return self.to(device="hpu")

    def pin_memory(self, device: Any = "cuda") -> TypedStorage:
        """Raises: page-locked memory serves copies to an accelerator, and there is none."""
        self._untyped_storage.pin_memory()
        return self

    def clone(self) -> TypedStorage:
        """A copy with memory of its own."""
        return typed(self._untyped_storage.clone(), self.dtype)

    __copy__ = clone

    def __deepcopy__(self, memo: dict) -> TypedStorage:
        return typed(self._untyped_storage.__deepcopy__(memo), self.dtype)

    def __reduce__(self) -> tuple:
        return typed, (self._untyped_storage, self.dtype)

    def new(self) -> TypedStorage:
        """An empty storage of the dtype."""
        return TypedStorage(0, dtype=self.dtype)

    def resize_(self, size: int) -> TypedStorage:
        """Another number of elements; tensors follow."""
        self._untyped_storage.resize_(size * self.dtype.itemsize)
        return self

    def share_memory_(self) -> TypedStorage:
        """Move to memory that other processes can map; tensors follow."""
        self._untyped_storage.share_memory_()
        return self

    @classmethod
    def _new_shared(cls, size: int, *, dtype: DType | None = None) -> TypedStorage:
        dtype = dtype or dtypes_default()
        return typed(UntypedStorage._new_shared(size * dtype.itemsize), dtype)

    @classmethod
    def from_buffer(cls, *args: Any, dtype: DType | None = None, **options: Any) -> TypedStorage:
        """A copy of a buffer; see `UntypedStorage.from_buffer`."""
        dtype = dtype or dtypes_default()
        return typed(UntypedStorage.from_buffer(*args, dtype=dtype, **options), dtype)

    @classmethod
    def from_file(cls, filename: str, shared: bool = False, size: int = 0, *,
                  dtype: DType | None = None) -> TypedStorage:
        """A file as memory of `size` elements; see `UntypedStorage.from_file`."""
        dtype = dtype or dtypes_default()
        made = UntypedStorage.from_file(filename, shared, size * dtype.itemsize)
        return typed(made, dtype)


def _conversion(name: str, dtype: DType) -> Any:
    def convert(self: TypedStorage) -> TypedStorage:
        return self._to(dtype)

    convert.__name__ = name
    convert.__doc__ = f"The elements converted to {dtype!r}."
    return convert


def _bytes_conversion(name: str, dtype: DType) -> Any:
    def convert(self: UntypedStorage) -> TypedStorage:
        return typed(self._tensor().to(dtype).untyped_storage(), dtype)

    convert.__name__ = name
    convert.__doc__ = f"The bytes' values as a storage of {dtype!r}."
    return convert


attach_conversions(TypedStorage, _conversion)
attach_conversions(UntypedStorage, _bytes_conversion)


def is_storage(obj: Any) -> bool:
    """Is this a storage?

    >>> torch.is_storage(torch.zeros(2).untyped_storage())
    True
    """
    return isinstance(obj, (UntypedStorage, TypedStorage))


def typed(storage: UntypedStorage, dtype: DType) -> TypedStorage:
    """Bytes as elements of a dtype."""
    return TypedStorage(wrap_storage=storage, dtype=dtype)


def storage_of(tensor: Any) -> TypedStorage:
    """`tensor.storage()`.

    >>> import warnings
    >>> warnings.simplefilter("ignore")  # deprecated: use untyped_storage
    >>> torch.zeros(2).storage().size()
    2
    """
    warn_of_typed()
    return typed(tensor.untyped_storage(), tensor.dtype)


# ---------------------------------------------------------------------- old names
class _Kind(type):
    """A name for the storages of one dtype: instances are TypedStorages."""

    dtype: DType

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, TypedStorage) and instance.dtype is cls.dtype

    def __call__(cls, *args: Any, **options: Any) -> TypedStorage:
        return TypedStorage(*args, dtype=cls.dtype, **options)

    def _new_shared(cls, size: int) -> TypedStorage:
        return TypedStorage._new_shared(size, dtype=cls.dtype)

    def from_buffer(cls, *args: Any, **options: Any) -> TypedStorage:
        """See `TypedStorage.from_buffer`."""
        return TypedStorage.from_buffer(*args, dtype=cls.dtype, **options)

    def from_file(cls, filename: str, shared: bool = False, size: int = 0) -> TypedStorage:
        """See `TypedStorage.from_file`."""
        return TypedStorage.from_file(filename, shared, size, dtype=cls.dtype)

    def __repr__(cls) -> str:
        return f"<class 'torch.{cls.__name__}'>"


def _make(dtype: DType) -> _Kind:
    name = dtype.legacy.replace("Tensor", "Storage")
    return _Kind(name, (), {"dtype": dtype, "__module__": "torch",
                            "__doc__": f"Storages of {dtype!r}, by their old name."})


KINDS = {kind.__name__: kind for kind in map(_make, (
    dtypes.float64, dtypes.float32, dtypes.float16, dtypes.bfloat16, dtypes.int64, dtypes.int32,
    dtypes.int16, dtypes.int8, dtypes.uint8, dtypes.bool_, dtypes.complex64, dtypes.complex128,
    *dtypes.QUANTIZED))}


def storage_class(dtype: DType) -> Any:
    """The old name of a dtype's storages."""
    return KINDS[dtype.legacy.replace("Tensor", "Storage")]


def __getattr__(name: str) -> Any:
    if name in KINDS:
        return KINDS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
