"""The safetensors format: a JSON header with dtypes, shapes and byte ranges, then the bytes."""

from __future__ import annotations

import ctypes
import json
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from flambeau.core.dtypes import DType, by_name
from flambeau.core.shapes import contiguous_strides, is_contiguous
from flambeau.serialization.errors import CheckpointError, CorruptError, TruncatedError
from flambeau.serialization.files import replacing
from flambeau.serialization.locations import restore_function
from flambeau.serialization.rebuild import aligned_buffer, check_geometry
from flambeau.serialization.tensors import TensorRecord, adapter

__all__ = ["load_file", "save_file"]

_MOST_HEADER = 100_000_000  # bytes; the format's own limit
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
           "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
           "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
           "C128": "complex128"}
_CODES = {name: code for code, name in _DTYPES.items()}


def load_file(filename: str | os.PathLike, device: str = "cpu") -> dict[str, Any]:
    """The tensors of a safetensors file, by name.

    Raises:
        CheckpointError: the file is cut short or contradicts itself.
    """
    try:
        with open(filename, "rb") as file:
            return _load(file, device)
    except CheckpointError as error:
        raise type(error)(f"cannot load {os.fspath(filename)}: {error}") from None


def _load(file: BinaryIO, device: str) -> dict[str, Any]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if len(start) < 8:
        raise TruncatedError("it is too short for a safetensors file")
    (length,) = struct.unpack("<Q", start)
    if length > min(_MOST_HEADER, size - 8):
        raise TruncatedError(f"its header should have {length} bytes, but the file has {size}")
    try:
        header = json.loads(file.read(length))
    except ValueError as error:
        raise CorruptError(f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise CorruptError("its header is no JSON object")
    header.pop("__metadata__", None)
    restore = restore_function(device)
    return {name: _read_tensor(file, name, entry, 8 + length, size, restore)
            for name, entry in header.items()}


def _read_tensor(file: BinaryIO, name: str, entry: Any, base: int, size: int, restore: Any) -> Any:
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        valid = 0 <= begin <= end and all(type(value) is int for value in (begin, end, *shape))
    except (TypeError, KeyError, ValueError):
        valid = False
    if not valid:
        raise CorruptError(f"tensor {name!r} is described in a way that makes no sense: {entry!r}")
    if base + end > size:
        raise TruncatedError(f"tensor {name!r} should end at byte {base + end}, but the file has "
                             f"{size}; get the file again")
    if code not in _DTYPES:
        raise CheckpointError(f"tensor {name!r} has dtype {code}, which Flambeau does not have")
    dtype, strides = by_name(_DTYPES[code]), contiguous_strides(shape)
    check_geometry(end - begin, dtype.itemsize, shape, strides, 0)
    buffer = aligned_buffer(end - begin)
    file.seek(base + begin)
    if file.readinto(memoryview(buffer)) != end - begin:
        raise TruncatedError(f"the file ends inside tensor {name!r}")
    tensors = adapter()
    storage = tensors.foreign_storage(buffer.__array_interface__["data"][0], len(buffer), buffer)
    return tensors.build_tensor(restore(storage, "cpu"), dtype, tuple(shape), strides, 0, False)


def save_file(tensors: Mapping[str, Any], filename: str | os.PathLike,
              metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors by name; the format knows no sharing.

    Raises:
        ValueError: a value is no contiguous tensor, or of a dtype that the format does not know.
        SaveError: the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    parts, at = [], 0
    for name, tensor in tensors.items():
        part, dtype, shape = _memory_of(name, tensor)
        if dtype.name not in _CODES:
            raise ValueError(f"{name!r} has dtype {dtype!r}, which the safetensors format has no "
                             "name for; convert it, or use torch.save")
        header[name] = {"dtype": _CODES[dtype.name], "shape": list(shape),
                        "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    with replacing(filename, 8 + len(text) + at) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for part in parts:
            file.write(part)


def _memory_of(name: str, tensor: Any) -> tuple[memoryview, DType, tuple[int, ...]]:
    library = adapter()
    if not library.is_tensor(tensor):
        raise ValueError(f"{name!r} is a {type(tensor).__name__}; safetensors holds only tensors")
    record: TensorRecord = library.describe(tensor)
    if not is_contiguous(record.shape, record.strides) or record.conj or record.neg:
        raise ValueError(f"tensor {name!r} is not contiguous; save its .contiguous()")
    count = int(np.prod(record.shape, dtype=np.int64)) * record.dtype.itemsize
    if not count:
        return memoryview(b""), record.dtype, record.shape
    address = record.ptr + record.offset * record.dtype.itemsize
    memory = (ctypes.c_ubyte * count).from_address(address)
    return memoryview(memory).cast("B"), record.dtype, record.shape
