"""Layouts and memory formats: the named constants of the API, and channels_last strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Layout", "MemoryFormat", "strided", "jagged", "sparse_coo", "sparse_csr",
           "sparse_csc", "sparse_bsr", "sparse_bsc", "contiguous_format",
           "legacy_contiguous_format", "preserve_format", "channels_last", "channels_last_3d",
           "is_channels_last", "channels_last_strides"]


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
    """Is this `torch.channels_last`?

    Raises:
        NotImplementedError: channels_last_3d.
    """
    if memory_format is channels_last_3d:
        raise NotImplementedError("memory_format=torch.channels_last_3d is not implemented; use "
                                  "the contiguous format")
    return memory_format is channels_last


def channels_last_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of an (n, c, h, w) tensor whose channels are innermost."""
    if len(shape) != 4:
        raise RuntimeError("required rank 4 tensor to use channels_last format")
    _, c, h, w = shape
    return (h * w * c, 1, w * c, c)
