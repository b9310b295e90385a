"""Layouts: interned descriptions of tensors' elements in memory; and the bare tensor object."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from flambeau.core.device import CPU, Device
from flambeau.core.dtypes import DType
from flambeau.core.shapes import Size, contiguous_strides, dense_order, is_contiguous
from flambeau.core.symbolic import environment, hint, is_symbolic, key_of

__all__ = ["Meta", "meta_of", "contiguous_meta", "hinted", "TensorBase", "like_order"]


class Meta:
    """dtype, shape, strides and device of a tensor. Equal layouts are one object: compare with
    `is`. Launches are found by layouts, so where a tensor lies costs a known call nothing.

    Attributes:
        numel: number of elements; nbytes: of a dense tensor of this shape.
        contiguous: row-major without gaps.
        strided: whether elements lie in memory at all; not so in tensors made of others.
    """

    strided = True
    __slots__ = ("dtype", "shape", "strides", "device", "numel", "nbytes", "contiguous", "ndim",
                 "__weakref__")

    def __init__(self, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...],
                 device: Device = CPU):
        self.device = device
        self.dtype = dtype
        self.shape = Size(shape)
        self.strides = strides
        self.numel = self.shape.numel()
        self.nbytes = self.numel * dtype.itemsize
        self.contiguous = is_contiguous(shape, strides)
        self.ndim = len(shape)

    def __repr__(self) -> str:
        place = "" if self.device is CPU else f" on {self.device}"
        return f"<{self.dtype.name}{list(self.shape)} strides {list(self.strides)}{place}>"


# Weak: a layout lives as long as a tensor or a launch has it.
_interned: weakref.WeakValueDictionary[tuple, Meta] = weakref.WeakValueDictionary()
_dense: weakref.WeakValueDictionary[tuple, Meta] = weakref.WeakValueDictionary()


def meta_of(dtype: DType, shape: Sequence[int], strides: Sequence[int], device: Device = CPU
            ) -> Meta:
    """The one layout with these properties."""
    key: tuple = (dtype, tuple(shape), tuple(strides))
    if device is not CPU:
        key += (device,)
    if environment and any(map(is_symbolic, (*key[1], *key[2]))):
        return _symbolic_meta(key)
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = Meta(*key)
    return found


def contiguous_meta(dtype: DType, shape: Sequence[int], device: Device = CPU) -> Meta:
    """The row-major layout of `shape`."""
    key: tuple = (dtype, tuple(shape))
    if device is not CPU:
        key += (device,)
    if environment and any(map(is_symbolic, key[1])):
        return meta_of(dtype, key[1], contiguous_strides(key[1]), device)
    found = _dense.get(key)
    if found is None:
        found = _dense[key] = meta_of(dtype, key[1], contiguous_strides(key[1]), device)
    return found


def _symbolic_meta(key: tuple) -> Meta:
    """A layout with sizes that may vary, interned as long as its capture lasts."""
    known = environment[-1].metas
    name = key_of(key)
    if name not in known:
        known[name] = Meta(*key)
    return known[name]


def hinted(meta: Meta) -> Meta:
    """The layout that a symbolic one is in this run."""
    return meta_of(meta.dtype, tuple(map(hint, meta.shape)), tuple(map(hint, meta.strides)),
                   meta.device)


def like_order(shape: Sequence[int], operands: Sequence[Meta]) -> tuple[int, ...]:
    """Strides of an elementwise result: dense, in the order in which its operands lie in memory.

    Of two dimensions the one with the smaller stride goes inside, by the first operand that says
    so: one that is broadcast along either says nothing.
    """
    whole = all(m.shape == shape for m in operands)
    if 0 in shape or whole and all(m.contiguous for m in operands):
        return contiguous_strides(shape)
    first = operands[0].strides
    if whole and all(m.strides == first for m in operands) and dense_order(shape, first):
        return first
    rank = len(shape)
    known = [_broadcast_strides(shape, m) for m in operands]

    def compared(inner: int, outer: int) -> int:
        """1: the dimensions must be exchanged; -1: they must not; 0: nobody minds."""
        for strides in known:
            a, b = strides[inner], strides[outer]
            if a and b and (a != b or shape[inner] > shape[outer]):
                return 1 if a >= b else -1
        return 0

    order = list(reversed(range(rank)))  # innermost first
    for end in range(1, rank):  # insertion sort: few dimensions, partial order
        position = end
        for before in range(end - 1, -1, -1):
            verdict = compared(order[before], order[position])
            if verdict > 0:
                order[before], order[position] = order[position], order[before]
                position = before
            elif verdict < 0:
                break
    strides, step = [0] * rank, 1
    for d in order:
        strides[d] = step
        step *= shape[d]
    return tuple(strides)


def _broadcast_strides(shape: Sequence[int], meta: Meta) -> list[int]:
    """The strides by which an operand is read for a result of this shape."""
    lead = len(shape) - len(meta.shape)
    return [0] * lead + [0 if size == 1 and shape[lead + d] != 1 else stride
                         for d, (size, stride) in enumerate(zip(meta.shape, meta.strides,
                                                                strict=True))]


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
