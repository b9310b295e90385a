"""The safetensors format: a JSON header with dtypes, shapes and byte ranges, then the bytes.

    with safe_open("model.safetensors") as file:     # nothing is read yet
        weight = file.get_tensor("fc.weight")        # a view of the mapped file
        rows = file.get_slice("fc.weight")[:10]
    state = load_file("model.safetensors")
    save_file(state, "model.safetensors", {"format": "pt"})

Tensors are views of the file, which is mapped: nothing is copied, pages are read when used,
and writing to a tensor leaves the file as it is. Headers are checked as the format demands: ranges
follow one another without gaps, fit dtypes and shapes, and cover the file.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from flambeau.core.dtypes import DType, by_name
from flambeau.core.shapes import contiguous_strides, is_contiguous
from flambeau.serialization.errors import CheckpointError, CorruptError, TruncatedError
from flambeau.serialization.files import replacing
from flambeau.serialization.geometry import check_geometry
from flambeau.serialization.locations import is_meta, restore_function
from flambeau.serialization.tensors import TensorRecord, adapter

__all__ = ["load", "load_file", "safe_open", "save", "save_file"]

_MOST_HEADER = 100_000_000  # bytes; the format's own limit
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
           "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
           "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
           "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
           "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"}
_CODES = {name: code for code, name in _DTYPES.items()}


# -- reading --------------------------------------------------------------------------------------

class _Entry(NamedTuple):
    """What a header says of a tensor; bytes count from the end of the header."""

    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _File:
    """The header of a file in memory, checked, and tensors made on demand."""

    def __init__(self, data: np.ndarray, device: Any):
        self.data = data
        self.restore, self.meta = restore_function(device), is_meta(device)
        if len(data) < 8:
            raise TruncatedError("it is too short for a safetensors file")
        (length,) = struct.unpack("<Q", data[:8].tobytes())
        if length > min(_MOST_HEADER, len(data) - 8):
            raise TruncatedError(f"its header should have {length} bytes, but the file has "
                                 f"{len(data)}; get it again")
        self.start = 8 + length
        header = _parsed(data[8:self.start].tobytes())
        self.metadata = header.pop("__metadata__", None)
        if self.metadata is not None and not _is_text(self.metadata):
            raise CorruptError("its metadata are no texts by name")
        self.entries = {name: _checked(name, entry) for name, entry in header.items()}
        self._check_ranges()

    def _check_ranges(self) -> None:
        at, size = 0, len(self.data) - self.start
        for name, entry in sorted(self.entries.items(), key=_place):
            if entry.end > size:
                raise TruncatedError(f"tensor {name!r} should end at byte {self.start + entry.end},"
                                     f" but the file has {len(self.data)}; get the file again")
            if entry.begin != at:
                raise CorruptError(f"tensor {name!r} begins at byte {entry.begin} of the data, "
                                   f"where {at} was expected")
            at = entry.end
        if at != size:
            raise CorruptError(f"its tensors have {at} bytes, but the file has {size} for them")

    def tensor(self, name: str) -> Any:
        """A view of the file; a copy if it does not lie at a multiple of its elements' size."""
        entry, tensors = self.entries[name], adapter()
        dtype, strides = by_name(_DTYPES[entry.code]), contiguous_strides(entry.shape)
        if self.meta:
            return tensors.build_meta(dtype, entry.shape, strides, False)
        part = self.data[self.start + entry.begin:self.start + entry.end]
        if part.__array_interface__["data"][0] % max(dtype.itemsize, 1):
            part = part.copy()
        storage = tensors.foreign_storage(part.__array_interface__["data"][0], len(part), part)
        restored = self.restore(tensors.storage_handle(storage), "cpu")
        return tensors.build_tensor(tensors.storage_parts(restored)[0], dtype, entry.shape, strides,
                                    0, False)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise CorruptError("its header is no JSON object")
    return header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise CorruptError("its header has a name twice")
    return made


def _is_text(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())


def _place(item: tuple[str, _Entry]) -> tuple[int, int]:
    return item[1].begin, item[1].end


def _checked(name: str, entry: Any) -> _Entry:
    try:
        code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        valid = type(code) is str and 0 <= begin <= end and all(
            type(value) is int for value in (begin, end, *shape))
    except (TypeError, KeyError, ValueError):
        valid = False
    if not valid:
        shown = repr(entry)
        raise CorruptError(f"tensor {name[:80]!r} is described in a way that makes no sense: "
                           f"{shown[:200]}")
    if code not in _DTYPES:
        raise CheckpointError(f"tensor {name!r} has dtype {code}, which Flambeau does not have")
    itemsize = by_name(_DTYPES[code]).itemsize
    check_geometry(end - begin, itemsize, shape, contiguous_strides(shape), 0)
    if math.prod(shape) * itemsize != end - begin:
        raise CorruptError(f"tensor {name!r} of shape {shape} and dtype {code} should have "
                           f"{math.prod(shape) * itemsize} bytes, but has {end - begin}")
    return _Entry(code, shape, begin, end)


def _mapped(filename: str | os.PathLike) -> np.ndarray:
    """A file's bytes; writes go to private copies of its pages."""
    with open(filename, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return np.empty(0, np.uint8)  # which cannot be mapped
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


def _opened(filename: str | os.PathLike, device: Any) -> _File:
    try:
        return _File(_mapped(filename), device)
    except CheckpointError as error:
        raise type(error)(f"cannot load {os.fspath(filename)}: {error}") from None


def load_file(filename: str | os.PathLike, device: Any = "cpu") -> dict[str, Any]:
    """The tensors of a safetensors file, by name, as views of the mapped file.

    Raises:
        CheckpointError: the file is cut short or contradicts itself.
    """
    file = _opened(filename, device)
    return {name: file.tensor(name) for name in file.entries}


def load(data: bytes) -> dict[str, Any]:
    """The tensors in the bytes of a safetensors file, by name."""
    file = _File(np.frombuffer(bytearray(data), np.uint8), "cpu")
    return {name: file.tensor(name) for name in file.entries}


class safe_open:
    """A safetensors file of which single tensors are looked at: only the header is read.

    Args:
        filename: of the file.
        framework: accepted, as the safetensors package has it; tensors are always of this package.
        device: where tensors go.

    Raises:
        CheckpointError: the file is cut short or contradicts itself.
    """

    def __init__(self, filename: str | os.PathLike, framework: str = "pt", device: Any = "cpu"):
        self._file = _opened(filename, device)

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *_: object) -> None:
        """Tensors stay valid: they keep the mapping."""

    def keys(self) -> list[str]:
        """The names of the tensors."""
        return sorted(self._file.entries)

    def offset_keys(self) -> list[str]:
        """The names of the tensors as they lie in the file."""
        return [name for name, _ in sorted(self._file.entries.items(), key=_place)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def metadata(self) -> dict[str, str] | None:
        """The texts that were saved beside the tensors."""
        return self._file.metadata

    def get_tensor(self, name: str) -> Any:
        """A tensor, as a view of the mapped file."""
        return self._file.tensor(self._known(name))

    def get_slice(self, name: str) -> _Slice:
        """A tensor of which parts are asked for: `file.get_slice(name)[:10, 3]`."""
        return _Slice(self._file, self._known(name))

    def _known(self, name: str) -> str:
        if name not in self._file.entries:
            raise KeyError(f"the file does not contain a tensor called {name!r}")
        return name


class _Slice:
    """A tensor that is not made before its parts are asked for."""

    def __init__(self, file: _File, name: str):
        self._file, self._name = file, name

    def get_shape(self) -> list[int]:
        """The shape of the whole tensor."""
        return list(self._file.entries[self._name].shape)

    def get_dtype(self) -> str:
        """The format's name of the dtype, such as "F32"."""
        return self._file.entries[self._name].code

    def __getitem__(self, index: Any) -> Any:
        return self._file.tensor(self._name)[index]


# -- writing --------------------------------------------------------------------------------------

def save_file(tensors: Mapping[str, Any], filename: str | os.PathLike,
              metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors by name, those of the widest elements first.

    Raises:
        ValueError: a value is no contiguous tensor, or of a dtype that the format does not know.
        RuntimeError: tensors share memory, which the format cannot say.
        SaveError: the file cannot be written.
    """
    parts = _laid_out(tensors, metadata)
    with replacing(filename, sum(map(len, parts))) as file:
        for part in parts:
            file.write(part)


def save(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes that `save_file` writes."""
    return b"".join(_laid_out(tensors, metadata))


def _laid_out(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None) -> list:
    """The pieces of a file in order."""
    if metadata is not None and not _is_text(dict(metadata)):
        raise ValueError("safetensors' metadata are texts by name")
    described = {name: _memory_of(name, tensor) for name, tensor in tensors.items()}
    _refuse_sharing(described)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    parts, at = [], 0
    for name, (part, dtype, shape) in sorted(described.items(), key=_order):
        header[name] = {"dtype": _CODES[dtype.name], "shape": list(shape),
                        "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    return [struct.pack("<Q", len(text)) + text, *parts]


def _order(item: tuple[str, tuple[memoryview, DType, tuple]]) -> tuple[int, str]:
    name, (_, dtype, _) = item
    return -dtype.itemsize, name


def _refuse_sharing(described: Mapping[str, tuple]) -> None:
    places = sorted((_address(part), len(part), name)
                    for name, (part, _, _) in described.items() if len(part))
    for (start, size, name), (following, _, other) in itertools.pairwise(places):
        if following < start + size:
            raise RuntimeError(f"tensors {name!r} and {other!r} share memory, which safetensors "
                               "cannot say: save one of them, or clones, or use torch.save")


def _address(part: memoryview) -> int:
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(part))


def _memory_of(name: str, tensor: Any) -> tuple[memoryview, DType, tuple[int, ...]]:
    library = adapter()
    if not library.is_tensor(tensor):
        raise ValueError(f"{name!r} is a {type(tensor).__name__}; safetensors holds only tensors")
    if library.composed_parts(tensor) is not None:
        raise ValueError(f"tensor {name!r} is no dense tensor with data; save its .to_dense()")
    record: TensorRecord = library.describe(tensor)
    if not is_contiguous(record.shape, record.strides) or record.conj or record.neg:
        raise ValueError(f"tensor {name!r} is not contiguous; save its .contiguous()")
    if record.dtype.name not in _CODES:
        raise ValueError(f"{name!r} has dtype {record.dtype!r}, which the safetensors format has "
                         "no name for; convert it, or use torch.save")
    count = math.prod(record.shape) * record.dtype.itemsize
    if not count:
        return memoryview(b""), record.dtype, record.shape
    address = record.ptr + record.offset * record.dtype.itemsize
    memory = (ctypes.c_ubyte * count).from_address(address)
    memory.record = record  # which keeps the memory alive
    return memoryview(memory).cast("B"), record.dtype, record.shape
