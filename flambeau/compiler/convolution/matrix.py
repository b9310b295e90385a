"""Images as the matrices that elementwise phases are refined to, so that they can be epilogues.

    by plane    (images, channels, pixels)        row-major images
    by pixel    (1, images * pixels, channels)    channels innermost
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flambeau.core.shapes import contiguous_strides

__all__ = ["fits_low", "image_matrix", "is_by_pixel", "pixel_strides"]


def image_matrix(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int, int] | None:
    """(batch, rows, columns) of dense images (n, c, *spatial) in the order of memory, or None."""
    n, channels, pixels = shape[0], shape[1], math.prod(shape[2:])
    if channels < 2 or not n * pixels:
        return None
    if is_by_pixel(shape, strides):
        return 1, n * pixels, channels
    dense = _same(shape, strides, contiguous_strides(shape))
    return (n, channels, pixels) if dense else None


def is_by_pixel(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Do the channels of a pixel follow each other, and pixels too?"""
    return _same(shape, strides, pixel_strides(shape))


def pixel_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Dense strides with channels innermost."""
    last = contiguous_strides((shape[0], *shape[2:], shape[1]))
    return last[0], last[-1], *last[1:-1]


def fits_low(shape: Sequence[int], strides: Sequence[int], weights: bool) -> bool:
    """Can the kernels for bfloat16 read images (or weights) that lie like this? Channels must
    follow each other; of weights either the channels of the input or those of the output."""
    if weights and strides[0] == 1 and shape[1] >= 32:
        return True
    return strides[1] == 1 or shape[1] == 1


def _same(shape: Sequence[int], strides: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(size == 1 or a == b for size, a, b in zip(shape, strides, wanted, strict=True))
