"""The caching allocator: memory that tensors own, kept for reuse when it is freed.

A fresh page costs microseconds (the kernel must zero it), so freed blocks stay in free lists by
size class, up to a cap. Classes are multiples of 64 bytes up to 512, then eight a power of two: a
block is less than 12.5 % larger than asked for.

    pool = size_class(nbytes)      # once, in a launch record
    storage = pool.new(nbytes)     # each time: about 10 ns

`Storage` and `SizeClass` are native types (storage_types.py); where those are not possible, plain
Python classes with the same attributes stand in.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import operator
import os
import threading
from typing import Any

from flambeau.core import config
from flambeau.core.device import CPU, Device
from flambeau.core.symbolic import hint, is_symbolic
from flambeau.runtime import native

__all__ = ["Storage", "allocate", "class_bytes", "empty_all",  # noqa: F822 - Storage: made late
           "empty_cache", "exchange", "foreign", "held_back", "imagined", "in_use_address",
           "is_imagined", "mark_new", "memory_stats", "pool_on", "reset_peak",
           "set_cache_limit", "set_peak", "size_class", "untouch"]

ALIGNMENT = 64
_MAPPED = 1 << 20  # from this size on blocks come straight from the system, page-aligned
_HUGE = 1 << 21  # size and alignment of a huge page
_HUGE_FROM = 1 << 22
_RESERVE = 256 << 20  # bytes left free on the machine below which cached blocks are given back
_SPARE = 64 << 20  # cached bytes that are never too many on a machine that has enough

# Words of the ledger, which native code updates: bytes in use, their peak, cached bytes, their cap.
# Foreign memory is not counted.
IN_USE, PEAK, CACHED, CAP = range(4)


def class_bytes(nbytes: int) -> int:
    """Size of the blocks that serve `nbytes`."""
    if nbytes <= 512:
        return max(ALIGNMENT, (nbytes + 63) & -64)
    step = 1 << ((nbytes - 1).bit_length() - 4)
    return (nbytes + step - 1) & -step


def size_class(nbytes: int):
    """The pool of the blocks that serve `nbytes`; `pool.new(nbytes)` makes a Storage."""
    if is_symbolic(nbytes):
        return _Hinted(size_class(nbytes.hint))
    if nbytes < 0:
        raise ValueError(f"cannot allocate {nbytes} bytes")
    if nbytes >= 1 << 63:
        raise RuntimeError(f"Storage size calculation overflowed: a tensor of {nbytes} bytes "
                           "cannot exist; check the sizes it is made with")
    size = class_bytes(nbytes)
    found = _classes.get(size)
    if found is None:
        made = _types().size_class(size, _ledger, _refill, size >= _MAPPED)
        found = _classes.setdefault(size, made)  # another thread may have been faster
    return found


class _Hinted:
    """A pool that takes symbolic numbers of bytes."""

    def __init__(self, pool: Any):
        self.pool = pool

    def new(self, nbytes: Any):
        return self.pool.new(hint(nbytes))


def allocate(nbytes: int):
    """A Storage of `nbytes` uninitialised bytes. Raises MemoryError."""
    return size_class(nbytes).new(nbytes)


def pool_on(device: Device, nbytes: int):
    """The pool of the blocks that serve `nbytes` on a device."""
    return size_class(nbytes) if device is CPU else _imagination


class _Imagination:
    """The pool of the meta device: ranges of addresses that no other tensor has and behind which
    there is no memory, so that views, offsets and overlaps mean what they mean elsewhere."""

    FIRST, END = 1 << 60, 1 << 62

    def __init__(self) -> None:
        self._next = self.FIRST
        self._lock = threading.Lock()

    def new(self, nbytes: int):
        """A Storage of `nbytes` that must not be touched."""
        size = hint(nbytes)
        if size >= 1 << 63:
            raise RuntimeError(f"Storage size calculation overflowed: a tensor of {size} bytes "
                               "cannot exist; check the sizes it is made with")
        with self._lock:
            address = self._next
            self._next += (size & -ALIGNMENT) + ALIGNMENT
            if self._next >= self.END:
                self._next = self.FIRST
        return foreign(address, size, None)


_imagination = _Imagination()


def imagined(nbytes: int):
    """A Storage of `nbytes` on the meta device."""
    return _imagination.new(nbytes)


def is_imagined(storage: Any) -> bool:
    """Is there no memory behind a storage's addresses?"""
    return storage.ptr >= _Imagination.FIRST


def foreign(ptr: int, nbytes: int, owner: object):
    """A Storage of memory that belongs to `owner` (a numpy array, a DLPack capsule, ...)."""
    return _types().make(None, operator.index(ptr), nbytes, owner)


def exchange(a, b) -> None:
    """Let two storages exchange their memory (ptr, nbytes, owner), not their versions: how a tensor
    is resized while its views keep the storage."""
    types = _types()
    if not isinstance(a, types.storage) or not isinstance(b, types.storage):
        raise TypeError("exchange takes two storages")
    types.exchange(a, b)


def held_back() -> tuple:
    """(hold_back, let_go): functions for who still needs memory that dies; only where storages are
    native.

    hold_back(list) lets storages that die go to the list, still alive, until hold_back(None). The
    caller keeps the list. let_go(list) empties it: the memory is free now.
    """
    types = _types()
    return types.hold_back, types.let_go


def mark_new(change: int, mode: Any, bit: int, version: object) -> None:
    """Let `change` more (or fewer) regions of the program ask for another first version: as long as
    there are any, a new storage begins with `version` instead of 0 where `mode`, a ContextVar that
    holds an int, has `bit` set. The caller keeps `mode` and `version` for ever."""
    _types().mark_new(change, mode, bit, version)


def empty_cache() -> int:
    """Give the cached blocks back to the system; returns their bytes."""
    before = _ledger[CACHED]
    for pool in list(_classes.values()):
        pool.trim()
    return before - _ledger[CACHED]


def empty_all() -> None:
    """Give back all that the process has and does not use: cached blocks, and what its C library
    keeps of memory that has been freed, as compilers leave it behind."""
    empty_cache()
    _system().trim()


def set_cache_limit(nbytes: int) -> None:
    """Cap the bytes of freed blocks that are kept. What is above it goes back to the system."""
    _set_first_cap()
    _ledger[CAP] = nbytes
    if _ledger[CACHED] > nbytes:
        empty_cache()


def memory_stats() -> dict[str, int]:
    """Bytes in blocks: in use, the most that ever were, cached for reuse, and the cap of those."""
    _set_first_cap()
    return {"in_use": _ledger[IN_USE], "peak": _ledger[PEAK], "cached": _ledger[CACHED],
            "cache_limit": _ledger[CAP]}


def in_use_address() -> int:
    """Where native code reads how many bytes are in use."""
    return ctypes.addressof(_ledger) + 8 * IN_USE


def untouch(storage: Any) -> None:
    """Let the system have the pages of a storage that nobody reads any more, those that it shares
    with nobody else; it stays in use, its content is undefined."""
    if storage.owner is None:
        _system().untouch(storage.ptr, storage.nbytes)


def set_peak(nbytes: int) -> None:
    """Let the peak be `nbytes`: some of the memory in use was taken, but never touched."""
    _ledger[PEAK] = nbytes


def reset_peak() -> None:
    """Let the peak start again from what is in use now."""
    _ledger[PEAK] = _ledger[IN_USE]


@functools.cache
def _set_first_cap() -> None:
    _ledger[CAP] = config.settings().memory_cache_bytes


# ------------------------------------------------------------------ blocks
class OutOfMemoryError(MemoryError, RuntimeError):
    """There is no memory for a tensor. PyTorch raises a RuntimeError, Python a MemoryError: this is
    both."""


def _refill(pool, nbytes: int):
    """A Storage with a new block: what `pool.new` comes to when its free list is empty."""
    size = pool.size
    if size >= _HUGE_FROM and _ledger[CACHED]:
        excess = _excess(size)
        if excess > 0:
            _give_back(excess)
    address = _acquire(size)
    if not address:
        empty_cache()
        gc.collect()  # tensors in reference cycles
        empty_cache()
        address = _acquire(size)
    if not address:
        raise OutOfMemoryError(
            f"DefaultCPUAllocator: can't allocate memory: cannot allocate {_human(nbytes)}: "
            f"flambeau holds {_human(_ledger[IN_USE])} in use "
            f"(peak {_human(_ledger[PEAK])}) and {_human(_ledger[CACHED])} cached; the machine has "
            f"{_human(config.available_memory())}")
    _ledger[IN_USE] += size
    _ledger[PEAK] = max(_ledger[PEAK], _ledger[IN_USE])
    return _types().make(pool, address, nbytes, None)


def _excess(size: int) -> int:
    """How many cached bytes shall go before `size` more are taken: all when the machine runs short
    (it would swap or kill rather than say no), else what is held beyond a quarter more than was
    ever in use, or `_SPARE`, as by a program that has changed the sizes it uses. A program that
    goes through many sizes needs more blocks than it ever uses at a time: each block that it loses
    costs a page fault every 4 KiB, in every step."""
    if config.free_memory() < size + _RESERVE:
        return _ledger[CACHED]
    most = max(_ledger[PEAK], _ledger[IN_USE] + size)
    return _ledger[IN_USE] + _ledger[CACHED] + size - most - max(most // 4, _SPARE)


def _give_back(nbytes: int) -> None:
    """Return at least this many cached bytes to the system, or all. The size classes take turns, so
    that a program which uses many sizes in turn does not lose all its blocks again and again."""
    wanted = _ledger[CACHED] - nbytes
    large = [size for size in list(_classes) if size >= _HUGE_FROM]
    last = _last_given_back[0]
    for size in sorted(large, key=lambda size: (size <= last, size)):
        if _ledger[CACHED] <= wanted:
            return
        _classes[size].trim()
        _last_given_back[0] = size
    if _ledger[CACHED] > wanted:
        empty_cache()


def _human(nbytes: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if nbytes >> shift:
            return f"{nbytes / (1 << shift):.2f} {unit} ({nbytes} bytes)"
    return f"{nbytes} bytes"


@functools.cache
def _system() -> _Posix | _Windows:
    return _Windows() if os.name == "nt" else _Posix()


def _acquire(size: int) -> int:
    """`size` bytes from the system, 0 when there are none."""
    return _system().acquire(size)


class _Posix:
    """posix_memalign below _MAPPED, mmap above."""

    def __init__(self):
        libc = ctypes.CDLL(None)
        self.libc = libc
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        libc.posix_memalign.argtypes = [ctypes.POINTER(pointer), size, size]
        libc.free.argtypes = [pointer]
        libc.free.restype = None
        libc.mmap.argtypes = [pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                              ctypes.c_long]
        libc.mmap.restype = pointer
        libc.munmap.argtypes = [pointer, size]
        libc.madvise.argtypes = [pointer, size, ctypes.c_int]
        import mmap

        self.protection = mmap.PROT_READ | mmap.PROT_WRITE
        self.flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.huge = getattr(mmap, "MADV_HUGEPAGE", None)
        self.unneeded = getattr(mmap, "MADV_DONTNEED", None)
        self.page = mmap.PAGESIZE

    def acquire(self, size: int) -> int:
        if size < _MAPPED:
            found = ctypes.c_void_p()
            failed = self.libc.posix_memalign(ctypes.byref(found), ALIGNMENT, size)
            return 0 if failed else found.value
        if self.huge is None or size < _HUGE_FROM:
            return self._map(size)
        # Huge pages need a start on their boundary: map more, and give the ends back.
        start = self._map(size + _HUGE)
        if not start:
            return self._map(size)
        aligned = (start + _HUGE - 1) & -_HUGE
        if aligned > start:
            self.libc.munmap(start, aligned - start)
        rest = start + _HUGE - aligned
        if rest:
            self.libc.munmap(aligned + size, rest)
        self.libc.madvise(aligned, size, self.huge)
        return aligned

    def _map(self, size: int) -> int:
        address = self.libc.mmap(None, size, self.protection, self.flags, -1, 0)
        return 0 if address in (None, ctypes.c_void_p(-1).value) else address

    def release(self, address: int, size: int) -> None:
        if size < _MAPPED:
            self.libc.free(address)
        else:
            self.libc.munmap(address, size)

    def untouch(self, address: int, size: int) -> None:
        # a small block is the C library's, which keeps its own notes on either side of it
        start, stop = (address + self.page - 1) & -self.page, (address + size) & -self.page
        if self.unneeded is not None and start < stop:
            self.libc.madvise(start, stop - start, self.unneeded)

    def trim(self) -> None:
        trim = getattr(self.libc, "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


class _Windows:
    """The C runtime's aligned allocation."""

    def __init__(self):
        runtime = ctypes.CDLL("ucrtbase")
        self._malloc, self._free = runtime._aligned_malloc, runtime._aligned_free
        self._malloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
        self._malloc.restype = ctypes.c_void_p
        self._free.argtypes = [ctypes.c_void_p]
        self._free.restype = None

    def acquire(self, size: int) -> int:
        return self._malloc(size, ALIGNMENT if size < _MAPPED else 4096) or 0

    def release(self, address: int, size: int) -> None:
        self._free(address)

    def untouch(self, address: int, size: int) -> None:
        """Blocks are the C runtime's: it keeps their pages."""

    def trim(self) -> None:
        """The C runtime trims its heap itself."""


# ------------------------------------------------------------------ the Python types
class PythonStorage:
    """Owned memory.

    Attributes:
        ptr: address of the first byte, a multiple of 64 for memory of our own.
        nbytes: bytes that may be used.
        version: counts in-place changes.
        owner: keeps foreign memory alive; None for our own.
    """

    __slots__ = ("_pool", "nbytes", "owner", "ptr", "version")

    def __del__(self):
        self.owner = None  # whatever it does when it dies, the block is not free yet
        if self._pool is not None:
            self._pool.take_back(self.ptr)


class PythonSizeClass:
    """The free list of one size."""

    __slots__ = ("_free", "_ledger", "_refill", "size")

    def __init__(self, size: int, ledger, refill, mapped: bool):
        self.size = size
        self._ledger = ledger
        self._refill = refill
        self._free = []

    def new(self, nbytes: int) -> PythonStorage:
        """A Storage of `nbytes`, which must not exceed `size`."""
        if not self._free:
            return self._refill(self, nbytes)
        address, ledger, size = self._free.pop(), self._ledger, self.size
        ledger[CACHED] -= size
        ledger[IN_USE] += size
        if ledger[IN_USE] > ledger[PEAK]:
            ledger[PEAK] = ledger[IN_USE]
        return make_python_storage(self, address, nbytes, None)

    def take_back(self, address: int) -> None:
        ledger, size = self._ledger, self.size
        ledger[IN_USE] -= size
        if ledger[CACHED] + size > ledger[CAP]:
            _system().release(address, size)
            return
        ledger[CACHED] += size
        self._free.append(address)

    def trim(self) -> None:
        """Give the free blocks back to the system."""
        while self._free:
            self._ledger[CACHED] -= self.size
            _system().release(self._free.pop(), self.size)


def make_python_storage(pool, ptr: int, nbytes: int, owner: object) -> PythonStorage:
    made = PythonStorage.__new__(PythonStorage)
    made._pool = pool
    made.ptr = ptr
    made.nbytes = nbytes
    made.version = 0
    if _PythonTypes.regions and _PythonTypes.mode.get() & _PythonTypes.bit:
        made.version = _PythonTypes.mark
    made.owner = owner
    return made


def exchange_python_storages(a: PythonStorage, b: PythonStorage) -> None:
    for name in ("_pool", "nbytes", "owner", "ptr"):
        mine, other = getattr(a, name), getattr(b, name)
        setattr(a, name, other)
        setattr(b, name, mine)


class _PythonTypes:
    regions, mode, bit, mark = 0, None, 0, None
    storage = PythonStorage
    exchange = staticmethod(exchange_python_storages)
    size_class = PythonSizeClass
    make = staticmethod(make_python_storage)

    @classmethod
    def mark_new(cls, change: int, mode: Any, bit: int, version: object) -> None:
        cls.mode, cls.bit, cls.mark = mode, bit, version
        cls.regions += change


@functools.cache
def _types():
    """The native types where they are possible. Made at the first use: making them needs LLVM."""
    _set_first_cap()
    if native.allowed():
        from flambeau.runtime import storage_types

        return storage_types.build()
    return _PythonTypes


def __getattr__(name: str):
    if name == "Storage":
        return _types().storage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_classes: dict[int, object] = {}
_last_given_back = [0]  # the size class that had its turn last
_ledger = native.immortal((ctypes.c_int64 * 8)())
