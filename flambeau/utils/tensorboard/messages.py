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

__all__ = ["Double", "Float", "message", "packed_doubles", "packed_floats", "packed_ints"]


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


def packed_doubles(values: Sequence[float]) -> bytes:
    """The content of a packed field of doubles."""
    return struct.pack(f"<{len(values)}d", *values)


def packed_floats(values: Sequence[float]) -> bytes:
    """The content of a packed field of floats."""
    return struct.pack(f"<{len(values)}f", *values)


def packed_ints(values: Sequence[int]) -> bytes:
    """The content of a packed field of integers."""
    return b"".join(_varint(int(value)) for value in values)
