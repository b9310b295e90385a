"""Memory for what is read, and whether a tensor lies inside of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flambeau.serialization.errors import CorruptError

__all__ = ["MOST_ELEMENTS", "aligned_buffer", "check_geometry"]

MOST_ELEMENTS = 2**62
_MOST_DIMS = 64


def aligned_buffer(nbytes: int, alignment: int = 64) -> np.ndarray:
    """Uninitialized bytes whose address is a multiple of `alignment`."""
    raw = np.empty(nbytes + alignment, np.uint8)
    start = -raw.__array_interface__["data"][0] % alignment
    return raw[start:start + nbytes]


def check_geometry(nbytes: int, itemsize: int, shape: Any, strides: Any, offset: Any) -> None:
    """The tensor must lie inside its storage of `nbytes` bytes."""
    sizes = (*_integers(shape, "size"), *_integers(strides, "stride"), *_integers((offset,),
                                                                               "offset"))
    if len(shape) != len(strides) or len(shape) > _MOST_DIMS:
        raise CorruptError(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    if max(sizes) >= MOST_ELEMENTS or math.prod(max(size, 1) for size in shape) >= MOST_ELEMENTS:
        raise CorruptError(f"a tensor of shape {tuple(shape)} cannot exist")
    if 0 in shape:
        return
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if (last + 1) * itemsize > nbytes:
        raise CorruptError(
            f"a tensor of shape {tuple(shape)}, strides {tuple(strides)} and offset {offset} needs "
            f"{(last + 1) * itemsize} bytes, but its storage has {nbytes}"
        )


def _integers(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple | list):
        raise CorruptError(f"a tensor's {what} is a {type(values).__name__}")
    for value in values:
        if type(value) is not int or value < 0:
            raise CorruptError(f"a tensor's {what} is {value!r}")
    return tuple(values)
