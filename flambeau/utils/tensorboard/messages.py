"""Protocol buffers, as far as events need them: fields are numbered, values know their kind.

    message((1, "scalar"), (2, Float(0.5)))

Text and bytes (messages too) are written with their length, integers as varints, `Float` and
`Double` in 4 and 8 bytes. None is left out. See
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

__all__ = ["Double", "Float", "message", "packed_doubles", "packed_floats", "packed_ints",
           "parsed"]


_SIZES = {1: 8, 5: 4}  # bytes of the fields of fixed length, by kind


class Float(float):
    """A number in 32 bits."""


class Double(float):
    """A number in 64 bits."""


def message(*fields: tuple[int, Any]) -> bytes:
    """A message of (number, value) fields; a list of values repeats its field."""
    parts = []
    for number, value in fields:
        values = value if isinstance(value, list) else [value]
        parts += [_field(number, each) for each in values if each is not None]
    return b"".join(parts)


def _field(number: int, value: Any) -> bytes:
    if isinstance(value, Double):
        return _varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, Float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(int(value))
    data = value.encode() if isinstance(value, str) else bytes(value)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; negative ones in 64 bits."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def parsed(data: bytes) -> dict[int, list]:
    """{number: values} of a message: integers, or bytes of whatever else.

    Raises:
        ValueError: it ends inside a field, or has fields that are not used any more.
    """
    found: dict[int, list] = {}
    at = 0
    try:
        while at < len(data):
            key, at = _number_at(data, at)
            kind = key & 7
            if kind == 0:
                value, at = _number_at(data, at)
            else:
                if kind not in _SIZES and kind != 2:
                    raise ValueError(f"byte {at} starts a field of kind {kind}")
                size, at = _number_at(data, at) if kind == 2 else (_SIZES[kind], at)
                value, at = data[at:at + size], at + size
                if at > len(data):
                    raise IndexError
            found.setdefault(key >> 3, []).append(value)
    except IndexError:
        raise ValueError("the message ends inside a field") from None
    return found


def _number_at(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if not byte & 128:
            return value, at


def packed_doubles(values: Sequence[float]) -> bytes:
    """The content of a packed field of doubles."""
    return struct.pack(f"<{len(values)}d", *values)


def packed_floats(values: Sequence[float]) -> bytes:
    """The content of a packed field of floats."""
    return struct.pack(f"<{len(values)}f", *values)


def packed_ints(values: Sequence[int]) -> bytes:
    """The content of a packed field of integers."""
    return b"".join(_varint(int(value)) for value in values)
