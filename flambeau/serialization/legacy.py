"""PyTorch's format before 1.6: five pickles in a row, then the storages, each with its length."""

from __future__ import annotations

import pickle
import struct
import sys
from typing import Any, BinaryIO

import numpy as np

from flambeau.core.dtypes import DType
from flambeau.serialization.allow import AllowList
from flambeau.serialization.errors import CheckpointError, CorruptError, TruncatedError
from flambeau.serialization.geometry import aligned_buffer
from flambeau.serialization.locations import Restore
from flambeau.serialization.pickle_reader import PickleMachine
from flambeau.serialization.pickle_writer import pickle_object
from flambeau.serialization.rebuild import storage_id
from flambeau.serialization.stored import restored_storage, swap_bytes
from flambeau.serialization.tensors import TensorAdapter

__all__ = ["MAGIC_NUMBER", "load_legacy", "looks_like_tar", "save_legacy"]

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001


def looks_like_tar(file: BinaryIO) -> bool:
    """Whether a tar archive starts at the file's position, which stays where it is."""
    start = file.tell()
    head = file.read(265)
    file.seek(start)
    return head[257:262] == b"ustar"


class _Storages:
    """Hands out storages while the pickle is read, though their data comes after it."""

    def __init__(self, tensors: TensorAdapter, restore: Restore, available: int):
        self.tensors, self.restore = tensors, restore
        self.available = available  # bytes of the file that may still hold data
        self.storages: dict[str, Any] = {}
        self.buffers: dict[str, tuple[np.ndarray, DType]] = {}
        self.views: dict[tuple[str, str], Any] = {}

    def persistent_load(self, saved: Any) -> Any:
        if type(saved) is tuple and saved and saved[0] in ("module", b"module"):
            return saved[1] if len(saved) > 1 else None  # a class, with its source beside it
        kind, key, location, count = storage_id(saved, 6)
        if key not in self.storages:
            self._allocate(key, kind.dtype, location, count)
        return self.storages[key] if saved[5] is None else self._view_of(key, saved[5])

    def _allocate(self, key: str, dtype: Any, location: str, count: int) -> None:
        nbytes = count * dtype.itemsize
        self.available -= nbytes
        if self.available < 0:
            raise TruncatedError(f"storage {key} should have {nbytes} bytes, more than the file "
                                 "has left; get the file again")
        buffer = aligned_buffer(nbytes)
        storage = self.tensors.foreign_storage(buffer.__array_interface__["data"][0], nbytes,
                                               buffer)
        self.buffers[key] = buffer, dtype
        self.storages[key] = self.tensors.storage_handle(
            restored_storage(self.tensors, self.restore, storage, location), dtype)

    def _view_of(self, key: str, view: Any) -> Any:
        """Part of a storage as a storage of its own (PyTorch 0.3)."""
        if type(view) is not tuple or len(view) != 3:
            raise CorruptError("a storage's view has the wrong form")
        name, offset, count = str(view[0]), view[1], view[2]
        buffer, dtype = self.buffers[key]
        itemsize = dtype.itemsize
        if (type(offset), type(count)) != (int, int) or offset < 0 or count < 0 or (
                (offset + count) * itemsize > len(buffer)):
            raise CorruptError(f"view {name} lies outside storage {key}")
        if (key, name) not in self.views:
            part = buffer[offset * itemsize:(offset + count) * itemsize]
            storage = self.tensors.foreign_storage(part.__array_interface__["data"][0], len(part),
                                                   part)
            self.views[key, name] = self.tensors.storage_handle(storage, dtype)
        return self.views[key, name]


def load_legacy(data: bytes, tensors: TensorAdapter, allowed: AllowList, restore: Restore,
                encoding: str) -> tuple[Any, int]:
    """The object in the bytes of a file of the old format, and where it ends.

    Raises:
        CheckpointError: it is no checkpoint, or a damaged one.
    """
    if not data:
        raise TruncatedError("the file is empty")
    if data[0] != 0x80:
        raise CheckpointError(
            f"this is no checkpoint: it starts with {data[:8]!r}, neither a zip archive nor a "
            "pickle. Was it downloaded through a page that returned HTML, or is it of another "
            "format?"
        )
    storages = _Storages(tensors, restore, len(data))

    def run(start: int) -> tuple[Any, int]:
        machine = PickleMachine(data, allowed.find, storages.persistent_load, start=start,
                                builders=allowed.builders, encoding=encoding)
        return machine.run(), machine.at

    magic, at = run(0)
    if magic != MAGIC_NUMBER:
        raise CheckpointError("this is a pickle, but not one that torch.save wrote (its magic "
                              "number is missing)")
    version, at = run(at)
    if version != _PROTOCOL_VERSION:
        raise CheckpointError(f"checkpoint version {version!r} is unknown; {_PROTOCOL_VERSION} is "
                              "the only one of this format")
    _, start = run(at)  # the system that wrote it; data is little-endian on all of them
    allowed.rebuilder.filled = False
    value, at = run(start)
    keys, at = run(at)
    end = _fill_storages(data, at, keys, storages)
    if allowed.rebuilder.incomplete:  # something looks at numbers, which are there now
        allowed.rebuilder.filled = True
        value, _ = run(start)
    return value, end


def _fill_storages(data: bytes, at: int, keys: Any, storages: _Storages) -> int:
    if type(keys) is not list or {str(key) for key in keys} != set(storages.buffers):
        raise CorruptError("the list of storages does not fit those that tensors use")
    for key in keys:
        buffer, dtype = storages.buffers[str(key)]
        itemsize = dtype.itemsize
        if at + 8 > len(data):
            raise TruncatedError(f"the file ends before storage {key}; get the file again")
        (count,) = struct.unpack_from("<q", data, at)
        at += 8
        if count * itemsize != len(buffer):
            raise CorruptError(f"storage {key} has {count} elements where its tensors say "
                               f"{len(buffer) // itemsize}")
        if at + len(buffer) > len(data):
            raise TruncatedError(f"the file ends inside storage {key}; get the file again")
        buffer[:] = np.frombuffer(data, np.uint8, len(buffer), at)
        at += len(buffer)
        if sys.byteorder == "big":
            swap_bytes(buffer, dtype)
    return at


def save_legacy(value: Any, file: BinaryIO, tensors: TensorAdapter, protocol: int) -> None:
    """Write `value` in the old format."""
    system = {"protocol_version": _PROTOCOL_VERSION, "little_endian": sys.byteorder == "little",
              "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for header in (MAGIC_NUMBER, _PROTOCOL_VERSION, system):
        file.write(pickle.dumps(header, protocol))
    body, saved = pickle_object(value, tensors, protocol, legacy=True)
    file.write(body)
    saved.sort(key=_key)
    file.write(pickle.dumps([storage.key for storage in saved], protocol))
    for storage in saved:
        file.write(struct.pack("<q", storage.count))
        memory = storage.memory()
        if sys.byteorder == "big" and storage.dtype is not None:
            memory = np.frombuffer(memory, np.uint8).copy()
            swap_bytes(memory, storage.dtype)
        file.write(memory)
    if hasattr(file, "flush"):
        file.flush()


def _key(storage: Any) -> str:
    return storage.key
