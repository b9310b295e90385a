"""`save` and `load`: PyTorch's checkpoint files, both ways, without ever running code from one."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from flambeau.serialization import safetensors
from flambeau.serialization.allow import AllowList
from flambeau.serialization.archive import ALIGNMENT, ArchiveReader, ArchiveWriter, is_zip
from flambeau.serialization.errors import CheckpointError
from flambeau.serialization.files import is_path, name_of, opened_for_reading, replacing
from flambeau.serialization.legacy import load_legacy, looks_like_tar, save_legacy
from flambeau.serialization.locations import CallbackError, is_meta, restore_function
from flambeau.serialization.options import get_crc32_options, skips_data
from flambeau.serialization.pickle_reader import PickleMachine
from flambeau.serialization.pickle_writer import SavedStorage, pickle_object
from flambeau.serialization.stored import Storages, mapped_file
from flambeau.serialization.tensors import TensorAdapter, adapter

__all__ = ["get_unsafe_globals_in_checkpoint", "load", "save"]

DEFAULT_PROTOCOL = 2


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

    >>> import io
    >>> file = io.BytesIO()
    >>> torch.save({"w": torch.tensor([1., 2.])}, file)
    >>> file.getvalue()[:2]  # a zip archive
    b'PK'
    """
    if pickle_module is not None and getattr(pickle_module, "__name__", "") != "pickle":
        raise RuntimeError(f"save() pickles by itself and cannot use {pickle_module!r}; leave "
                           "pickle_module out")
    if not is_path(f) and not hasattr(f, "write"):
        raise AttributeError("expected 'f' to be a path or a file opened for writing in binary "
                             f"mode, but got {type(f).__name__}, which has no 'write'")
    tensors = adapter()
    if not _use_new_zipfile_serialization:
        if skips_data():
            raise RuntimeError("Cannot use skip_data=True with "
                               "_use_new_zipfile_serialization=False")
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
    writer = ArchiveWriter(file, folder, checksum=get_crc32_options())
    writer.add("data.pkl", data)
    writer.add(".format_version", b"1")
    writer.add(".storage_alignment", str(ALIGNMENT).encode())
    if byteorder:
        writer.add("byteorder", sys.byteorder.encode())
    for saved in storages:
        if skips_data():
            writer.skip(f"data/{saved.key}", saved.record.nbytes)
        else:
            writer.add(f"data/{saved.key}", saved.memory())
    writer.add("version", b"3\n")
    writer.close()


# -- load -----------------------------------------------------------------------------------------

def load(f: Any, map_location: Any = None, pickle_module: Any = None, *,
         weights_only: bool | None = None, mmap: bool | None = None,
         **pickle_load_args: Any) -> Any:
    """The object in a checkpoint written by `save`, by PyTorch, or (by name) in safetensors.

    No code from the file runs. Tensors, containers, numbers, strings, NumPy arrays and a few plain
    classes of the standard library load as they are; other classes only after
    `serialization.add_safe_globals([TheClass])`.

    Args:
        f: a path, or a binary file at the start of the checkpoint.
        map_location: where tensors go: None (where they were saved), a device, a dict from saved
            to wanted locations, or a function (storage, location) that returns a storage or None.
        pickle_module: None, or the standard `pickle` together with weights_only=False.
        weights_only: False also makes instances of classes that the program has imported: modules
            and optimizers of this package, and the program's own. Their `__init__` is not called,
            functions are not, and nothing is imported for the file. None is True, unless the
            environment has TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1; TORCH_FORCE_WEIGHTS_ONLY_LOAD=1
            makes it True in any case.
        mmap: True maps the file instead of reading it: fast, and data is read only when it is
            used. Writing to such tensors does not change the file, unless
            `set_default_mmap_options` says so. Checksums are not verified.
        **pickle_load_args: `encoding` of strings that Python 2 wrote.

    Raises:
        CheckpointError: (a pickle.UnpicklingError and RuntimeError) the file is damaged, cut short,
            not a checkpoint, on a device that is missing, or names classes that are not allowed.

    >>> import io
    >>> file = io.BytesIO()
    >>> torch.save({"w": torch.tensor([1., 2.])}, file)
    >>> _ = file.seek(0)
    >>> torch.load(file)
    {'w': tensor([1., 2.])}
    """
    trusting = _is_trusting(weights_only)
    _check_pickle_module(pickle_module, trusting)
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
            return _load_open(file, map_location, bool(mmap), encoding, trusting)
        except CallbackError as error:
            raise error.__cause__ from None
        except CheckpointError as error:
            raise type(error)(f"cannot load {name_of(f)}: {error}") from error.__cause__


def _is_trusting(weights_only: bool | None) -> bool:
    """Whether classes that the program has imported are allowed."""
    if _is_set("TORCH_FORCE_WEIGHTS_ONLY_LOAD"):
        return False
    return weights_only is False or weights_only is None and _is_set(
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "0").lower() in ("1", "y", "yes", "true")


def _check_pickle_module(pickle_module: Any, trusting: bool) -> None:
    if pickle_module is None or trusting and getattr(pickle_module, "__name__", "") == "pickle":
        return
    if not trusting:
        raise RuntimeError("Can not safely load weights when explicit pickle_module is specified")
    raise RuntimeError(f"load() reads pickles by itself and cannot use {pickle_module!r}; leave "
                       "pickle_module out")


def _load_safetensors(f: Any, map_location: Any) -> dict[str, Any]:
    if isinstance(map_location, dict) or (callable(map_location)
                                          and type(map_location).__name__ != "device"):
        raise RuntimeError("a safetensors file is loaded to one device: map_location must be a "
                           "device or its name")
    return safetensors.load_file(f, device="cpu" if map_location is None else str(map_location))


def _load_open(file: BinaryIO, map_location: Any, mapped: bool, encoding: str,
               trusting: bool) -> Any:
    tensors, restore, meta = adapter(), restore_function(map_location), is_meta(map_location)
    if is_zip(file):
        archive = ArchiveReader(file)
        data = _read_pickle(archive)
        allowed = AllowList(tensors, functools.partial(bytes, data), trusting)
        allowed.rebuilder.meta_only = meta
        storages = Storages(archive, tensors, restore, mapped_file(file) if mapped else None,
                            reads=not meta)
        allowed.rebuilder.swap = storages.swap_for if storages.foreign else None
        machine = PickleMachine(data, allowed.find, storages.persistent_load,
                                builders=allowed.builders, encoding=encoding)
        try:
            return machine.run()
        finally:
            archive.finish()
    if mapped:
        raise CheckpointError("mmap=True works only with checkpoints in the zip format; load this "
                              "one without it and save it again")
    start, data = file.tell(), _read_old(file)
    allowed = AllowList(tensors, functools.partial(bytes, data), trusting)
    allowed.rebuilder.meta_only = meta
    value, end = load_legacy(data, tensors, allowed, restore, encoding)
    file.seek(start + end)  # where another one may begin
    return value


def _read_pickle(archive: ArchiveReader) -> bytes:
    if "constants.pkl" in archive:
        raise CheckpointError("it is a TorchScript archive; open it with jit.load")
    return archive.read("data.pkl")


def _read_old(file: BinaryIO) -> bytes:
    if looks_like_tar(file):
        raise CheckpointError("it is in the tar format of PyTorch 0.1, which cannot be read "
                              "without running code; load and save it with PyTorch first")
    return file.read()


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
