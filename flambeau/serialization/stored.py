"""The storages of a zip checkpoint: read or mapped at their first use, in our byte order."""

from __future__ import annotations

import mmap
import sys
from typing import Any, BinaryIO

import numpy as np

from flambeau.core.dtypes import DType
from flambeau.serialization.archive import ArchiveReader, Record
from flambeau.serialization.errors import CheckpointError, CorruptError
from flambeau.serialization.geometry import aligned_buffer
from flambeau.serialization.globals import StorageKind
from flambeau.serialization.locations import CallbackError, Restore
from flambeau.serialization.options import (
    get_default_mmap_options,
    is_foreign_order,
    skips_data,
)
from flambeau.serialization.rebuild import storage_id
from flambeau.serialization.tensors import TensorAdapter

__all__ = ["Storages", "mapped_file", "restored_storage", "swap_bytes"]


def mapped_file(file: BinaryIO) -> np.ndarray:
    """The whole file as bytes; writes go to private copies of its pages, or to the file."""
    if get_default_mmap_options() == getattr(mmap, "MAP_SHARED", None):
        with open(file.name, "r+b") as writable:
            return np.frombuffer(mmap.mmap(writable.fileno(), 0), np.uint8)
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


def swap_bytes(buffer: np.ndarray, dtype: DType) -> None:
    """Elements of a dtype from the other byte order to ours, in place."""
    part = _part_size(dtype)
    if part > 1:
        buffer[:len(buffer) // part * part].view(f"u{part}").byteswap(inplace=True)


def _part_size(dtype: DType) -> int:
    return dtype.itemsize // (2 if dtype.is_complex else 1)


def restored_storage(tensors: TensorAdapter, restore: Restore, storage: Any,
                     location: str) -> Any:
    """A storage where `map_location` wants it."""
    restored = restore(tensors.storage_handle(storage), location)
    parts = tensors.storage_parts(restored)
    if parts is None:
        error = TypeError("map_location should give a storage or None, but it gave a "
                          f"{type(restored).__name__}")
        raise CallbackError from error
    return parts[0]


class Storages:
    """Loads each storage of an archive at its first use.

    Args:
        mapped: the archive's file in memory, or None to read.
        reads: False leaves memory as it is: nobody will look at it.

    Attributes:
        foreign: whether the file has the other byte order.
    """

    def __init__(self, archive: ArchiveReader, tensors: TensorAdapter, restore: Restore,
                 mapped: np.ndarray | None, reads: bool = True):
        self.archive, self.tensors, self.restore = archive, tensors, restore
        self.mapped, self.reads = mapped, reads and not skips_data()
        self.loaded: dict[str, Any] = {}  # the bytes, by key
        self.typed: dict[tuple[str, str], Any] = {}
        self.foreign = is_foreign_order(self._noted_order())
        self._unswapped: dict[int, tuple[Any, np.ndarray]] = {}  # by id of the kept storage
        self._swapped: dict[int, int] = {}  # the size that they were swapped by

    def _noted_order(self) -> str | None:
        if "byteorder" not in self.archive:
            return None
        order = self.archive.read("byteorder")
        if order not in (b"little", b"big"):
            raise CorruptError(f"byte order {order!r} is neither little nor big")
        return order.decode()

    def persistent_load(self, saved: Any) -> Any:
        """The storage of a persistent id, as users hold it; always the same one for the same id."""
        kind, key, location, count = storage_id(saved, 5)
        if (key, kind.name) not in self.typed:
            if key not in self.loaded:
                self.loaded[key] = self._load(kind, key, location)
            self.typed[key, kind.name] = self._as_kind(kind, self.loaded[key])
        made = self.typed[key, kind.name]
        nbytes = self.tensors.storage_parts(made)[1]
        itemsize = kind.dtype.itemsize if kind.dtype else 1
        if count * itemsize > nbytes:
            raise CorruptError(f"storage {key} should have {count * itemsize} bytes, but record "
                               f"data/{key} has {nbytes}")
        return made

    def _as_kind(self, kind: StorageKind, storage: Any) -> Any:
        if kind.name == "UntypedStorage":
            return storage
        return self.tensors.storage_handle(self.tensors.storage_parts(storage)[0], kind.dtype)

    def _load(self, kind: StorageKind, key: str, location: str) -> Any:
        record = self.archive.find(f"data/{key}")
        buffer = self._bytes_of(record, kind)
        storage = self.tensors.foreign_storage(buffer.__array_interface__["data"][0], record.size,
                                               buffer)
        if self.foreign:
            self.archive.finish()
            self._unswapped[id(storage)] = storage, buffer
            if kind.dtype is not None and kind.name != "UntypedStorage":
                self.swap_for(storage, kind.dtype)
        return self.tensors.storage_handle(
            restored_storage(self.tensors, self.restore, storage, location))

    def _bytes_of(self, record: Record, kind: StorageKind) -> np.ndarray:
        itemsize = kind.dtype.itemsize if kind.dtype else 1
        if self.mapped is not None and not record.compressed and not self.foreign and (
                record.offset % itemsize == 0):
            return self.mapped[record.offset:record.offset + record.size]
        buffer = aligned_buffer(record.size)
        if self.reads:
            self.archive.read_into(record, memoryview(buffer))
        return buffer

    def swap_for(self, storage: Any, dtype: DType) -> None:
        """Bring a storage into our byte order, now that a tensor says what its elements are.

        Raises:
            CheckpointError: tensors with elements of several sizes share it.
        """
        size = _part_size(dtype)
        known = self._swapped.get(id(storage))
        if id(storage) not in self._unswapped or known == size:
            return
        if known is not None:
            raise CheckpointError(
                "it was saved on a machine of the other byte order, and tensors with elements of "
                f"{known} and {size} bytes share memory; save copies of them ({sys.byteorder}-"
                "endian machines cannot tell how to swap)")
        self._swapped[id(storage)] = size
        swap_bytes(self._unswapped[id(storage)][1], dtype)
