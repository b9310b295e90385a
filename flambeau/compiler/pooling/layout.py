"""The two layouts that pooling kernels are made for: contiguous rows, or contiguous channels."""

from __future__ import annotations

from flambeau.compiler.expression import Buffer
from flambeau.core.shapes import contiguous_strides

__all__ = ["fits_pool", "pool_strides", "runs_last"]


def runs_last(image: Buffer, rank: int) -> bool:
    """Are the channels of an image contiguous, and its rows not?"""
    return not fits_pool(image, rank, False) and fits_pool(image, rank, True)


def fits_pool(buffer: Buffer, rank: int, last: bool) -> bool:
    """Can a pooling kernel over channels (`last`) or over rows use this array as it is?"""
    at = len(buffer.shape) - rank - 1 if last else len(buffer.shape) - 1
    return buffer.strides[at] == 1 or buffer.shape[at] == 1


def pool_strides(shape: tuple[int, ...], rank: int, last: bool) -> tuple[int, ...]:
    """Strides of a dense array for `fits_pool`."""
    if not last:
        return contiguous_strides(shape)
    lead = len(shape) - rank - 1
    moved = contiguous_strides((*shape[:lead], *shape[lead + 1:], shape[lead]))
    return (*moved[:lead], 1, *moved[lead:-1])
