"""Layouts and memory formats: the named constants of the API, and channels_last strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.compiler.memory_order import strides_in_order

__all__ = ["Layout", "MemoryFormat", "strided", "jagged", "sparse_coo", "sparse_csr",
           "sparse_csc", "sparse_bsr", "sparse_bsc", "contiguous_format",
           "legacy_contiguous_format", "preserve_format", "channels_last", "channels_last_3d",
           "is_channels_last", "channels_last_strides", "lies_channels_last"]


class _Constant:
    """A named constant of the API, for example `torch.strided`."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name


class Layout(_Constant):
    """How a tensor's elements are stored.

    >>> torch.zeros(1).layout
    torch.strided
    """

    __slots__ = ()

    @property
    def title(self) -> str:
        """As messages name it: "SparseCsr"; "Sparse" for COO."""
        words = self.name.removesuffix("_coo").split("_")
        return "".join(word.capitalize() for word in words)


class MemoryFormat(_Constant):
    """The order of the dimensions in memory.

    >>> torch.channels_last
    torch.channels_last
    """


strided, jagged, sparse_coo = Layout("strided"), Layout("jagged"), Layout("sparse_coo")
sparse_csr, sparse_csc = Layout("sparse_csr"), Layout("sparse_csc")
sparse_bsr, sparse_bsc = Layout("sparse_bsr"), Layout("sparse_bsc")
contiguous_format = legacy_contiguous_format = MemoryFormat("contiguous_format")
preserve_format = MemoryFormat("preserve_format")
channels_last = MemoryFormat("channels_last")
channels_last_3d = MemoryFormat("channels_last_3d")


def is_channels_last(memory_format: Any) -> bool:
    """Is this `torch.channels_last` or `torch.channels_last_3d`?"""
    return memory_format is channels_last or memory_format is channels_last_3d


def channels_last_strides(shape: Sequence[int], memory_format: Any) -> tuple[int, ...]:
    """Strides of an (n, c, h, w) tensor, or (n, c, d, h, w) in `channels_last_3d`, whose channels
    are innermost.

    Raises:
        RuntimeError: another number of dimensions.
    """
    rank = _rank(memory_format)
    if len(shape) != rank:
        raise RuntimeError(f"required rank {rank} tensor to use {memory_format.name} format")
    return strides_in_order(shape, True)


def lies_channels_last(shape: Sequence[int], strides: Sequence[int], memory_format: Any) -> bool:
    """Do elements of this shape lie densely with their channels innermost? (Where there is one
    index only, any stride will do.)"""
    if len(shape) != _rank(memory_format):
        return False
    return all(size == 1 or own == wanted for size, own, wanted in
               zip(shape, strides, strides_in_order(shape, True), strict=True))


def _rank(memory_format: Any) -> int:
    return 5 if memory_format is channels_last_3d else 4
