"""Memory that several processes, or a file, share: mappings and how others find them.

A mapping is kept alive by the storages on it (as their `owner`), and goes when the last of them
does. In between processes it travels by one of two strategies:

file_descriptor   the memory has no name; a duplicate of its descriptor is sent. The system counts
                  who uses it, so nothing can be left behind, but each mapping holds a descriptor.
file_system       the memory is a file in /dev/shm, sent by name, with a count of its users in
                  front; the last one removes it. What is sent and never received stays, as
                  does what a process has when it is killed.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import secrets
import tempfile
import weakref
from typing import Any

from flambeau.runtime import memory

try:
    import fcntl
except ImportError:  # Windows, where nothing is shared
    fcntl = None  # type: ignore[assignment]

__all__ = ["STRATEGIES", "Mapping", "adopt_descriptor", "adopt_name", "announce", "map_file",
           "set_strategy", "shared_storage", "strategy"]

STRATEGIES = ("file_descriptor", "file_system")
_HEADER = 64  # bytes in front of named memory: the number of its users, and nothing
_FOLDER = "/dev/shm"
_state = {"strategy": "file_descriptor"}
_numbers = itertools.count()


def strategy() -> str:
    """How memory that is shared from now on travels."""
    return _state["strategy"]


def set_strategy(name: str) -> None:
    """Choose one of `STRATEGIES`."""
    if name not in STRATEGIES:
        raise ValueError(f"there is no sharing strategy {name!r}; there are {list(STRATEGIES)}")
    _state["strategy"] = name


class Mapping:
    """A mapped file or nameless memory.

    Attributes:
        ptr, nbytes: where it is in this process, without the header.
        fd: a descriptor of nameless memory, which this object closes; else None.
        name: the path of named memory, whose users are counted; else None.
        filename: the user's own file, or None.
        shared: do others see what is written?
    """

    __slots__ = ("__weakref__", "_map", "_process", "_view", "fd", "filename", "name", "nbytes",
                 "ptr", "shared")

    def __init__(self, map_: mmap.mmap, nbytes: int, offset: int = 0, *, fd: int | None = None,
                 name: str | None = None, filename: str | None = None, shared: bool = True):
        self._map, self.nbytes = map_, nbytes
        self._view = ctypes.c_char.from_buffer(map_)  # while it lives the mapping cannot be closed
        self.ptr = ctypes.addressof(self._view) + offset
        self.fd, self.name, self.filename, self.shared = fd, name, filename, shared
        self._process = os.getpid()  # a forked child has the mapping too, but is not counted
        if name is not None:
            _keep_count(self)

    def storage(self) -> Any:
        """A storage on the memory."""
        return memory.foreign(self.ptr, self.nbytes, self)

    def __del__(self) -> None:
        fd = getattr(self, "fd", None)
        if fd is not None:
            os.close(fd)
        self.leave()

    def leave(self) -> None:
        """Be no longer counted as a user of named memory."""
        name = getattr(self, "name", None)
        if name is not None and self._process == os.getpid():
            self.name = None
            _count(name, -1)


_known: weakref.WeakValueDictionary[tuple, Mapping] = weakref.WeakValueDictionary()
"""What has been received, by what it is: the same memory is mapped once in a process."""


_named_here: weakref.WeakSet[Mapping] = weakref.WeakSet()
_leaving: list[int] = []


def _keep_count(mapping: Mapping) -> None:
    """Leave named memory also where a process ends without taking its objects apart."""
    _named_here.add(mapping)
    if os.getpid() not in _leaving:
        _leaving.append(os.getpid())
        from multiprocessing import util  # late: it costs every import 9 ms

        util.Finalize(None, _leave_all, exitpriority=-100)


def _leave_all() -> None:
    for mapping in list(_named_here):
        mapping.leave()


# ---------------------------------------------------------------------- making
def shared_storage(nbytes: int) -> Any:
    """A storage of new memory that other processes can map."""
    if os.name == "nt":
        raise NotImplementedError("sharing memory between processes is not implemented on Windows; "
                                  "send arrays (tensor.numpy()) instead")
    if strategy() == "file_system":
        return _named(nbytes).storage()
    return _nameless(nbytes).storage()


def _nameless(nbytes: int) -> Mapping:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("flambeau", os.MFD_CLOEXEC)
    else:
        folder = _FOLDER if os.path.isdir(_FOLDER) else None
        fd, path = tempfile.mkstemp(prefix="flambeau_", dir=folder)
        os.unlink(path)
    try:
        os.ftruncate(fd, max(nbytes, 1))
        made = Mapping(mmap.mmap(fd, max(nbytes, 1)), nbytes, fd=fd)
    except BaseException:
        os.close(fd)
        raise
    _known[_identity(fd)] = made
    return made


def _named(nbytes: int) -> Mapping:
    folder = _FOLDER if os.path.isdir(_FOLDER) else tempfile.gettempdir()
    path = os.path.join(folder, f"flambeau_{os.getpid()}_{secrets.token_hex(4)}_{next(_numbers)}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, _HEADER + max(nbytes, 1))
        os.pwrite(fd, (1).to_bytes(8, "little"), 0)
        made = Mapping(mmap.mmap(fd, _HEADER + max(nbytes, 1)), nbytes, _HEADER, name=path)
        _known[_identity(fd)] = made
    finally:
        os.close(fd)
    return made


def _identity(fd: int) -> tuple:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


# ---------------------------------------------------------------------- receiving
def adopt_descriptor(fd: int, nbytes: int) -> Mapping:
    """The memory of a descriptor, which belongs to the mapping from now on."""
    found = _known.get(_identity(fd))
    if found is not None:
        os.close(fd)
        return found
    made = Mapping(mmap.mmap(fd, max(nbytes, 1)), nbytes, fd=fd)
    _known[_identity(fd)] = made
    return made


def adopt_name(path: str, nbytes: int) -> Mapping:
    """The memory of a name, whose count of users already includes the receiver."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        found = _known.get(_identity(fd))
        if found is not None:
            _count(path, -1)
            return found
        made = Mapping(mmap.mmap(fd, _HEADER + max(nbytes, 1)), nbytes, _HEADER, name=path)
        _known[_identity(fd)] = made
        return made
    finally:
        os.close(fd)


def _count(path: str, change: int) -> None:
    """Change the number of users of named memory; the last one removes it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        left = int.from_bytes(os.pread(fd, 8, 0), "little") + change
        os.pwrite(fd, max(left, 0).to_bytes(8, "little"), 0)
        if left <= 0:
            os.unlink(path)
    finally:
        os.close(fd)  # which also unlocks


def announce(mapping: Mapping) -> None:
    """Count the receiver that named memory is about to be sent to."""
    if mapping.name is not None:
        _count(mapping.name, 1)


# ---------------------------------------------------------------------- files
def map_file(path: str, shared: bool, nbytes: int) -> Mapping:
    """A user's file as memory. What is written goes to the file if `shared`, which then may be new
    and grows to `nbytes`; else to a private copy of the pages.

    Raises:
        RuntimeError: the file is missing, or too short.
    """
    path = os.fspath(path)
    mode = os.O_RDWR | os.O_CREAT if shared else os.O_RDONLY
    try:
        fd = os.open(path, mode | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        word = "read-write" if shared else "read-only"
        raise RuntimeError(f"unable to open file <{path}> in {word} mode: {error.strerror} "
                           f"({error.errno})") from None
    try:
        size = os.fstat(fd).st_size
        if shared and size < nbytes:
            os.ftruncate(fd, nbytes)
        elif size < nbytes:
            raise RuntimeError(f"file <{path}> has {size} bytes, and {nbytes} were asked for; a "
                               "file that is not shared cannot grow")
        access = mmap.ACCESS_WRITE if shared else mmap.ACCESS_COPY
        map_ = mmap.mmap(fd, nbytes, access=access) if nbytes else mmap.mmap(-1, 1)
    finally:
        os.close(fd)
    return Mapping(map_, nbytes, filename=path, shared=shared)
