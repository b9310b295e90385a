"""`save` and `load`: PyTorch's checkpoint files, both ways, without ever running code from one."""

from __future__ import annotations

import functools
import mmap as memory_map
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from flambeau.serialization import safetensors
from flambeau.serialization.allow import AllowList
from flambeau.serialization.archive import ALIGNMENT, ArchiveReader, ArchiveWriter, is_zip
from flambeau.serialization.errors import CheckpointError, CorruptError
from flambeau.serialization.files import is_path, name_of, opened_for_reading, replacing
from flambeau.serialization.globals import StorageKind
from flambeau.serialization.legacy import load_legacy, looks_like_tar, save_legacy
from flambeau.serialization.locations import Restore, restore_function
from flambeau.serialization.pickle_reader import PickleMachine
from flambeau.serialization.pickle_writer import SavedStorage, pickle_object
from flambeau.serialization.rebuild import StorageRef, aligned_buffer, storage_id
from flambeau.serialization.tensors import TensorAdapter, adapter

__all__ = ["get_crc32_options", "get_unsafe_globals_in_checkpoint", "load", "save",
           "set_crc32_options"]

DEFAULT_PROTOCOL = 2
_compute_crc32 = True


def get_crc32_options() -> bool:
    """Whether `save` stores a checksum of each record."""
    return _compute_crc32


def set_crc32_options(compute_crc32: bool) -> None:
    """Choose whether `save` stores checksums. Without them, damage goes unnoticed by `load`."""
    global _compute_crc32
    _compute_crc32 = bool(compute_crc32)


# -- save -----------------------------------------------------------------------------------------

def save(obj: Any, f: Any, pickle_module: Any = None, pickle_protocol: int = DEFAULT_PROTOCOL,
         _use_new_zipfile_serialization: bool = True,
         _disable_byteorder_record: bool = False) -> None:
    """Write `obj` to a checkpoint that `load` and PyTorch's `torch.load` open.

    Tensors that share memory share it in the file too. A path is replaced only when everything is
    on the disk: an interrupted save leaves the old file.

    Args:
        obj: containers, numbers, strings, tensors, and objects that can be pickled.
        f: a path, or a binary file.
        pickle_module: None or the standard `pickle`; others are refused.
        pickle_protocol: 2 is the one that `torch.load(weights_only=True)` fully supports.
        _use_new_zipfile_serialization: False writes the format before PyTorch 1.6.

    Raises:
        pickle.PicklingError: something in `obj` cannot be saved; the message says where it is.
        SaveError: the file cannot be written; also an OSError with the system's `errno`.
    """
    if pickle_module is not None and getattr(pickle_module, "__name__", "") != "pickle":
        raise RuntimeError(f"save() pickles by itself and cannot use {pickle_module!r}; leave "
                           "pickle_module out")
    if not is_path(f) and not hasattr(f, "write"):
        raise AttributeError("expected 'f' to be a path or a file opened for writing in binary "
                             f"mode, but got {type(f).__name__}, which has no 'write'")
    tensors = adapter()
    if not _use_new_zipfile_serialization:
        write_old = functools.partial(_write_old, obj, tensors, pickle_protocol)
        _write_to(f, 0, write_old)
        return
    data, storages = pickle_object(obj, tensors, pickle_protocol)
    folder = _folder_for(f)
    names = ["data.pkl", ".format_version", ".storage_alignment", "byteorder", "version",
             *(f"data/{saved.key}" for saved in storages)]
    needed = (len(data) + sum(saved.record.nbytes for saved in storages)
              + ArchiveWriter.overhead(folder, names))
    write_new = functools.partial(_write_archive, folder, data, storages,
                                  not _disable_byteorder_record)
    _write_to(f, needed, write_new)


def _write_to(f: Any, needed: int, write: Callable[[BinaryIO], None]) -> None:
    if not is_path(f):
        write(f)
        return
    with replacing(f, needed) as file:
        write(file)


def _write_old(obj: Any, tensors: TensorAdapter, protocol: int, file: BinaryIO) -> None:
    save_legacy(obj, file, tensors, protocol)


def _folder_for(f: Any) -> str:
    """The folder inside the archive: the file's stem, as PyTorch names it."""
    name = os.path.splitext(os.path.basename(os.fspath(f)))[0] if is_path(f) else ""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # a file name that is no text
        return "archive"
    return name or "archive"


def _write_archive(folder: str, data: bytes, storages: list[SavedStorage], byteorder: bool,
                   file: BinaryIO) -> None:
    writer = ArchiveWriter(file, folder, checksum=_compute_crc32)
    writer.add("data.pkl", data)
    writer.add(".format_version", b"1")
    writer.add(".storage_alignment", str(ALIGNMENT).encode())
    if byteorder:
        writer.add("byteorder", sys.byteorder.encode())
    for saved in storages:
        writer.add(f"data/{saved.key}", saved.memory())
    writer.add("version", b"3\n")
    writer.close()


# -- load -----------------------------------------------------------------------------------------

def load(f: Any, map_location: Any = None, pickle_module: Any = None, *,
         weights_only: bool | None = True, mmap: bool | None = None,
         **pickle_load_args: Any) -> Any:
    """The object in a checkpoint written by `save`, by PyTorch, or (by name) in safetensors.

    No code from the file runs. Tensors, containers, numbers, strings, NumPy arrays and a few plain
    classes of the standard library load as they are; other classes only after
    `serialization.add_safe_globals([TheClass])`.

    Args:
        f: a path, or a binary file at the start of the checkpoint.
        map_location: where tensors go: None (where they were saved), a device, a dict from saved
            to wanted locations, or a function (storage, location) that returns a storage or None.
        pickle_module: must be None.
        weights_only: True; False is refused.
        mmap: True maps the file instead of reading it: fast, and data is read only when it is
            used. Writing to such tensors does not change the file. Checksums are not verified.
        **pickle_load_args: `encoding` of strings that Python 2 wrote.

    Raises:
        CheckpointError: (a pickle.UnpicklingError and RuntimeError) the file is damaged, cut short,
            not a checkpoint, on a device that is missing, or names classes that are not allowed.
    """
    _refuse_unsafe_arguments(pickle_module, weights_only)
    if is_path(f) and os.fspath(f).endswith(".safetensors"):
        return _load_safetensors(f, map_location)
    if mmap and not is_path(f):
        raise ValueError("mmap=True needs a path; f is an open file")
    with opened_for_reading(f) as file:
        try:
            encoding = pickle_load_args.pop("encoding", "utf-8")
            if pickle_load_args:
                raise TypeError("load() got unexpected arguments: "
                                + ", ".join(sorted(pickle_load_args)))
            return _load_open(file, restore_function(map_location), bool(mmap), encoding)
        except CheckpointError as error:
            raise type(error)(f"cannot load {name_of(f)}: {error}") from error.__cause__


def _refuse_unsafe_arguments(pickle_module: Any, weights_only: bool | None) -> None:
    if weights_only is False:
        raise CheckpointError(
            "load(weights_only=False) would run code from the file, which Flambeau never does. "
            "Leave weights_only out; for classes that the checkpoint needs and that you trust, "
            "call serialization.add_safe_globals([TheClass, ...]) first, or load inside "
            "`with serialization.safe_globals([TheClass, ...]):`. "
            "serialization.get_unsafe_globals_in_checkpoint(f) lists what a file needs"
        )
    if pickle_module is not None:
        raise RuntimeError("load() reads pickles by itself and cannot use another pickle_module; "
                           "leave it out")


def _load_safetensors(f: Any, map_location: Any) -> dict[str, Any]:
    if isinstance(map_location, dict) or (callable(map_location)
                                          and type(map_location).__name__ != "device"):
        raise RuntimeError("a safetensors file is loaded to one device: map_location must be a "
                           "device or its name")
    return safetensors.load_file(f, device="cpu" if map_location is None else str(map_location))


def _load_open(file: BinaryIO, restore: Restore, mapped: bool, encoding: str) -> Any:
    tensors = adapter()
    if is_zip(file):
        archive = ArchiveReader(file)
        data = _read_pickle(archive)
        storages = _Storages(archive, tensors, restore, _map(file) if mapped else None)
        allowed = AllowList(tensors, functools.partial(bytes, data))
        machine = PickleMachine(data, allowed.find, storages.persistent_load,
                                builders=allowed.builders, encoding=encoding)
        try:
            return machine.run()
        finally:
            archive.finish()
    if mapped:
        raise CheckpointError("mmap=True works only with checkpoints in the zip format; load this "
                              "one without it and save it again")
    data = _read_old(file)
    allowed = AllowList(tensors, functools.partial(bytes, data))
    return load_legacy(data, tensors, allowed, restore, encoding)


def _read_pickle(archive: ArchiveReader) -> bytes:
    if "constants.pkl" in archive:
        raise CheckpointError("it is a TorchScript archive; open it with jit.load")
    return archive.read("data.pkl")


def _read_old(file: BinaryIO) -> bytes:
    if looks_like_tar(file):
        raise CheckpointError("it is in the tar format of PyTorch 0.1, which cannot be read "
                              "without running code; load and save it with PyTorch first")
    return file.read()


def _map(file: BinaryIO) -> np.ndarray:
    """The whole file as bytes; writes go to private copies of its pages."""
    return np.frombuffer(memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_COPY), np.uint8)


class _Storages:
    """Loads each storage of an archive at its first use.

    Args:
        mapped: the archive's file in memory, or None to read.
    """

    def __init__(self, archive: ArchiveReader, tensors: TensorAdapter, restore: Restore,
                 mapped: np.ndarray | None):
        self.archive, self.tensors, self.restore = archive, tensors, restore
        self.mapped = mapped
        self.loaded: dict[str, tuple[Any, int]] = {}
        self.swap = self._foreign_order()

    def _foreign_order(self) -> bool:
        order = b"little"
        if "byteorder" in self.archive:
            order = self.archive.read("byteorder")
        if order not in (b"little", b"big"):
            raise CorruptError(f"byte order {order!r} is neither little nor big")
        return order.decode() != sys.byteorder

    def persistent_load(self, saved: Any) -> StorageRef:
        kind, key, location, count = storage_id(saved, 5)
        if key not in self.loaded:
            self.loaded[key] = self._load(kind, key, location)
        storage, nbytes = self.loaded[key]
        itemsize = kind.dtype.itemsize if kind.dtype else 1
        if count * itemsize > nbytes:
            raise CorruptError(f"storage {key} should have {count * itemsize} bytes, but record "
                               f"data/{key} has {nbytes}")
        return StorageRef(storage, nbytes, kind.dtype)

    def _load(self, kind: StorageKind, key: str, location: str) -> tuple[Any, int]:
        record = self.archive.find(f"data/{key}")
        itemsize = kind.dtype.itemsize if kind.dtype else 1
        if self.mapped is not None and not record.compressed and not self.swap and (
                record.offset % itemsize == 0):
            buffer = self.mapped[record.offset:record.offset + record.size]
        else:
            buffer = aligned_buffer(record.size)
            self.archive.read_into(record, memoryview(buffer))
        if self.swap:
            self.archive.finish()
            _swap_bytes(buffer, kind)
        storage = self.tensors.foreign_storage(buffer.__array_interface__["data"][0], record.size,
                                               buffer)
        return self.restore(storage, location), record.size


def _swap_bytes(buffer: np.ndarray, kind: StorageKind) -> None:
    """From the other byte order to ours, in place."""
    if kind.dtype is None or kind.name == "UntypedStorage":
        raise CheckpointError(f"it was saved on a machine of the other byte order, and {kind.name} "
                              "does not say how to swap; cast such tensors before saving")
    part = kind.dtype.itemsize // (2 if kind.dtype.is_complex else 1)
    if part > 1:
        buffer[:len(buffer) // part * part].view(f"u{part}").byteswap(inplace=True)


# -- what a file needs ----------------------------------------------------------------------------

def get_unsafe_globals_in_checkpoint(f: Any) -> list[str]:
    """The names of classes and functions that a checkpoint needs and that are not allowed.

    Nothing is loaded. Pass the objects to `add_safe_globals` to load the file.
    """
    with opened_for_reading(f) as file:
        try:
            data = _read_pickle(ArchiveReader(file)) if is_zip(file) else _read_old(file)
        except CheckpointError as error:
            raise type(error)(f"cannot read {name_of(f)}: {error}") from error.__cause__
        return AllowList(adapter(), functools.partial(bytes, data)).refused_names()
