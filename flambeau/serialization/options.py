"""How files are written and read unless a call says otherwise: checksums, byte order, mappings."""

from __future__ import annotations

import enum
import mmap
import re
import sys
import threading
import warnings
from typing import Any

__all__ = ["LoadEndianness", "check_module_version_greater_or_equal", "get_crc32_options",
           "get_default_load_endianness", "get_default_mmap_options", "is_foreign_order",
           "set_crc32_options", "set_default_load_endianness", "set_default_mmap_options",
           "skip_data", "skips_data"]

_MAPPINGS = {"MAP_PRIVATE": getattr(mmap, "MAP_PRIVATE", 2),
             "MAP_SHARED": getattr(mmap, "MAP_SHARED", 1)}


class LoadEndianness(enum.Enum):
    """The byte order of checkpoints that do not note theirs."""

    NATIVE = 1
    LITTLE = 2
    BIG = 3


class _Options:
    """What holds for the whole process."""

    checksums = True
    endianness: LoadEndianness | None = None
    mapping = _MAPPINGS["MAP_PRIVATE"]


class _Skipping(threading.local):
    """What holds for a thread."""

    active = False


_options, _skipping = _Options(), _Skipping()


def get_crc32_options() -> bool:
    """Whether `save` stores a checksum of each record."""
    return _options.checksums


def set_crc32_options(compute_crc32: bool) -> None:
    """Choose whether `save` stores checksums. Without them, damage goes unnoticed by `load`."""
    _options.checksums = bool(compute_crc32)


# -- byte order -----------------------------------------------------------------------------------

def get_default_load_endianness() -> LoadEndianness | None:
    """The byte order assumed of checkpoints that do not note theirs; None: little, as PyTorch's."""
    return _options.endianness


def set_default_load_endianness(endianness: LoadEndianness | None) -> None:
    """Choose the byte order of checkpoints that do not note theirs (PyTorch before 2.1)."""
    if endianness is not None and not isinstance(endianness, LoadEndianness):
        raise TypeError("set_default_load_endianness() takes a LoadEndianness or None, not "
                        f"{type(endianness).__name__}")
    _options.endianness = endianness


def is_foreign_order(noted: str | None) -> bool:
    """Whether data has to be swapped.

    Args:
        noted: "little" or "big" as a checkpoint says; None if it says nothing.
    """
    if noted is None:
        chosen = _options.endianness
        noted = {LoadEndianness.NATIVE: sys.byteorder, LoadEndianness.BIG: "big"}.get(
            chosen, "little") if chosen else "little"
    return noted != sys.byteorder


# -- mapping --------------------------------------------------------------------------------------

def get_default_mmap_options() -> int:
    """How `load(mmap=True)` maps files: `mmap.MAP_PRIVATE` or `mmap.MAP_SHARED`."""
    return _options.mapping


class set_default_mmap_options:
    """Choose how `load(mmap=True)` maps files; as a context manager, inside the block only.

    Args:
        flags: `mmap.MAP_PRIVATE`: writing to tensors leaves the file as it is;
            `mmap.MAP_SHARED`: it changes the file.

    Raises:
        ValueError: another number.
    """

    def __init__(self, flags: int) -> None:
        if flags not in _MAPPINGS.values():
            raise ValueError("Invalid argument in function set_default_mmap_options, expected "
                             f"mmap.MAP_PRIVATE or mmap.MAP_SHARED, but got {flags}")
        self._before, _options.mapping = _options.mapping, flags

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        _options.mapping = self._before


# -- structure without numbers --------------------------------------------------------------------

def skips_data() -> bool:
    """Is this inside of `skip_data`?"""
    return _skipping.active


class skip_data:
    """Inside the block, `save` leaves room for numbers without writing them (a hole in the file).

    What `load` reads inside the block are uninitialized tensors.

    Args:
        materialize_fake_tensors: accepted; there are no fake tensors here.
    """

    def __init__(self, materialize_fake_tensors: bool = False) -> None:
        self.materialize_fake_tensors = materialize_fake_tensors
        self._before = False

    def __enter__(self) -> None:
        self._before, _skipping.active = _skipping.active, True

    def __exit__(self, *_: object) -> None:
        _skipping.active = self._before


# -- versions -------------------------------------------------------------------------------------

def check_module_version_greater_or_equal(module: Any, req_version_tuple: tuple,
                                          error_if_malformed: bool = True) -> bool:
    """Whether `module.__version__` is at least a tuple of numbers such as (1, 12).

    Raises:
        RuntimeError: the version cannot be read as numbers; a warning if `error_if_malformed` is
            False, and the answer is then True.
    """
    version = str(module.__version__)
    found = [re.match(r"\d+", part) for part in version.split(".")[:len(req_version_tuple)]]
    if all(found):
        numbers = tuple(type(wanted)(part[0]) for wanted, part in
                        zip(req_version_tuple, found, strict=False))
        return numbers >= tuple(req_version_tuple[:len(numbers)])
    message = (f"'{module.__name__}' module version string is malformed '{version}' and cannot be "
               f"compared with tuple {req_version_tuple}")
    if error_if_malformed:
        raise RuntimeError(message)
    warnings.warn(f"{message}, but continuing assuming that requirement is met", stacklevel=2)
    return True
