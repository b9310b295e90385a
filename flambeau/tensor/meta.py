"""Layouts: interned descriptions of tensors' elements in memory; and the bare tensor object."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from flambeau.core.dtypes import DType
from flambeau.core.shapes import Size, contiguous_strides, dense_order, is_contiguous

__all__ = ["Meta", "meta_of", "contiguous_meta", "TensorBase", "like_order"]


class Meta:
    """dtype, shape and strides of a tensor. Equal layouts are one object: compare with `is`.

    Attributes:
        numel: number of elements; nbytes: of a dense tensor of this shape.
        contiguous: row-major without gaps.
    """

    __slots__ = ("dtype", "shape", "strides", "numel", "nbytes", "contiguous", "ndim",
                 "__weakref__")

    def __init__(self, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...]):
        self.dtype = dtype
        self.shape = Size(shape)
        self.strides = strides
        self.numel = self.shape.numel()
        self.nbytes = self.numel * dtype.itemsize
        self.contiguous = is_contiguous(shape, strides)
        self.ndim = len(shape)

    def __repr__(self) -> str:
        return f"<{self.dtype.name}{list(self.shape)} strides {list(self.strides)}>"


# Weak: a layout lives as long as a tensor or a launch has it.
_interned: weakref.WeakValueDictionary[tuple, Meta] = weakref.WeakValueDictionary()
_dense: weakref.WeakValueDictionary[tuple, Meta] = weakref.WeakValueDictionary()


def meta_of(dtype: DType, shape: Sequence[int], strides: Sequence[int]) -> Meta:
    """The one layout with these properties."""
    key = (dtype, tuple(shape), tuple(strides))
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = Meta(*key)
    return found


def contiguous_meta(dtype: DType, shape: Sequence[int]) -> Meta:
    """The row-major layout of `shape`."""
    key = (dtype, tuple(shape))
    found = _dense.get(key)
    if found is None:
        found = _dense[key] = meta_of(dtype, key[1], contiguous_strides(key[1]))
    return found


def like_order(shape: Sequence[int], operands: Sequence[Meta]) -> tuple[int, ...]:
    """Strides of an elementwise result: dense, in the order in which the first operand of that
    shape (then the next, where it is indifferent) lies in memory."""
    full = [m for m in operands if tuple(m.shape) == tuple(shape)]
    if not full or all(m.contiguous for m in full) or 0 in shape:
        return contiguous_strides(shape)
    if all(m.strides == full[0].strides for m in full) and dense_order(shape, full[0].strides):
        return full[0].strides
    rank = len(shape)
    order = list(range(rank))

    def goes_inside(a: int, b: int) -> bool:
        """Must dimension a lie inside of b?"""
        for m in full:
            sa, sb = m.strides[a], m.strides[b]
            if sa == 0 or sb == 0 or shape[a] == 1 or shape[b] == 1:
                continue
            if sa != sb:
                return sa < sb
            if shape[a] != shape[b]:
                return shape[a] < shape[b]
        return False

    for end in range(1, rank):  # insertion sort, outermost first: few dimensions, partial order
        position = end
        for before in range(end - 1, -1, -1):
            if goes_inside(order[before], order[position]):
                order[before], order[position] = order[position], order[before]
                position = before
            elif any(m.strides[order[before]] and m.strides[order[position]] for m in full):
                break
    strides, step = [0] * rank, 1
    for d in reversed(order):
        strides[d] = step
        step *= max(shape[d], 1)
    return tuple(strides)


class TensorBase:
    """The attributes that every operation touches, without any behaviour.

    Attributes:
        _storage: the memory, shared by views; carries the version counter.
        _ptr: address of element 0.
        _meta: the layout.
        _rg: requires grad (a leaf that asks for it, or a recorded result).
        _grad_fn: the node that computed it, or None.
        _base: the tensor that this one is a view of, or None.
    """

    __slots__ = ("_storage", "_ptr", "_meta", "_rg", "_grad_fn", "_base", "__weakref__")
