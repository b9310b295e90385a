"""Opening what is loaded and saved; a save replaces the old file completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from flambeau.serialization.errors import SaveError

__all__ = ["is_path", "name_of", "opened_for_reading", "replacing"]


def is_path(f: Any) -> bool:
    """Whether `f` names a file, rather than being one."""
    return isinstance(f, str | os.PathLike)


def name_of(f: Any) -> str:
    """What error messages call `f`."""
    if is_path(f):
        return os.fspath(f)
    name = getattr(f, "name", None)
    return name if isinstance(name, str) and name else f"<{type(f).__name__}>"


@contextlib.contextmanager
def opened_for_reading(f: Any) -> Iterator[BinaryIO]:
    """A seekable binary file: `f` itself where it is one, its content where it is a stream."""
    if is_path(f):
        with open(f, "rb") as file:
            yield file
        return
    if not hasattr(f, "read"):
        raise AttributeError(f"expected 'f' to be a path or a file opened for reading in binary "
                             f"mode, but got {type(f).__name__}, which has no 'read'")
    if isinstance(f, io.TextIOBase):
        raise TypeError(f"{name_of(f)} is open in text mode; open it with mode 'rb'")
    seekable = hasattr(f, "seek") and hasattr(f, "tell")
    if seekable and hasattr(f, "seekable"):
        seekable = f.seekable()
    yield f if seekable else io.BytesIO(f.read())


@contextlib.contextmanager
def replacing(path: str | os.PathLike, needed: int) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends without an error.

    It lies in the same folder meanwhile. Symbolic links are followed; permissions of an old file
    are kept. On any error it is removed and the old file stays as it was.

    Args:
        needed: bytes that will be written, for the error message.

    Raises:
        SaveError: the system refused, for instance because the disk is full.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    special = os.path.exists(target) and not os.path.isfile(target)
    try:
        with _in_place(target) if special else _beside(target, folder) as file:
            yield file
    except OSError as error:
        raise _save_error(error, os.fspath(path), folder, needed) from error


@contextlib.contextmanager
def _in_place(target: str) -> Iterator[BinaryIO]:
    """A device or pipe is written directly; a folder raises IsADirectoryError."""
    with open(target, "wb") as file:
        yield file


@contextlib.contextmanager
def _beside(target: str, folder: str) -> Iterator[BinaryIO]:
    # "x" with the default mode: the umask applies, and nothing that exists is written to.
    temporary = os.path.join(folder, f".{os.path.basename(target)[:200]}."
                                     f"{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            _keep_mode(target, file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _keep_mode(target: str, descriptor: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # a new file, or a system without modes
        os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode))


def _sync_folder(folder: str) -> None:
    """Make the new name survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _save_error(error: OSError, path: str, folder: str, needed: int) -> SaveError:
    if not os.path.isdir(folder):
        text = f"cannot save to {path}: folder {folder} does not exist; create it first"
        return SaveError(error.errno or errno.ENOENT, text)
    free = ""
    with contextlib.suppress(OSError):
        free = f"; {folder} has {_size(shutil.disk_usage(folder).free)} free"
    kept = "; the old file is unchanged" if os.path.exists(path) else ""
    return SaveError(error.errno or errno.EIO,
                     f"cannot save to {path}: {error.strerror or error}. The file needs "
                     f"{_size(needed)} ({needed} bytes){free}{kept}")


def _size(nbytes: int) -> str:
    amount = float(nbytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"
