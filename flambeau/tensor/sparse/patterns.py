"""Patterns: where the elements of a sparse tensor are. They hold no values and have no history.

What follows from a pattern alone (the order that sorts it, row offsets, rows) is computed when it
is first needed and kept with it: a matrix that is multiplied in every step is sorted once. The
kept parts are dropped if somebody has written to the indices in the meantime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.grad_mode import no_grad
from flambeau.core import dtypes
from flambeau.core.device import META, Device
from flambeau.core.dtypes import DType
from flambeau.core.shapes import contiguous_strides
from flambeau.tensor.composed import ComposedMeta, composed_meta
from flambeau.tensor.compress import nonzero_positions
from flambeau.tensor.creation import arange, empty
from flambeau.tensor.formats import Layout, sparse_bsc, sparse_bsr, sparse_coo, sparse_csr
from flambeau.tensor.functions import ops

__all__ = ["Compressed", "Coo", "Coalescing", "Pattern", "is_blocked", "is_row_compressed",
           "joined_keys", "locate"]

_LARGEST_KEY = 1 << 62


class Pattern:
    """Base of patterns.

    Attributes:
        layout, shape: of the tensor.
        indices: the dense int tensors that users see as its indices.
    """

    __slots__ = ("layout", "shape", "indices", "_kept", "_versions", "__weakref__")

    def __init__(self, layout: Layout, shape: Sequence[int], indices: tuple):
        self.layout, self.shape, self.indices = layout, tuple(shape), indices
        self._kept: dict[str, Any] = {}
        self._versions: tuple = ()

    @property
    def device(self) -> Device:
        """Where the indices are."""
        return self.indices[0]._meta.device

    def meta(self, dtype: DType) -> ComposedMeta:
        """The layout of a tensor with this pattern."""
        return composed_meta(dtype, self.shape, self.layout, self.device)

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, computed once; the indices must not have changed since."""
        versions = tuple(part._storage.version for part in self.indices)
        if versions != self._versions:
            self._kept.clear()
            self._versions = versions
        if name not in self._kept:
            with no_grad():
                self._kept[name] = make()
        return self._kept[name]


class Coalescing:
    """How entries become unique and sorted.

    Attributes:
        pattern: the coalesced one.
        order: the positions of the entries in order, or None if they are in order already.
        offsets: where the runs of equal entries begin, and their end; None if all differ.
    """

    __slots__ = ("pattern", "order", "offsets")

    def __init__(self, pattern: Coo, order: Any, offsets: Any):
        self.pattern, self.order, self.offsets = pattern, order, offsets


class Coo(Pattern):
    """Coordinates: indices (sparse_dim, nnz); values have shape (nnz, *dense sizes).

    Attributes:
        coalesced: whether entries are known to be sorted and unique.
    """

    __slots__ = ("coalesced",)

    def __init__(self, indices: Any, shape: Sequence[int], coalesced: bool = False):
        super().__init__(sparse_coo, shape, (indices,))
        self.coalesced = coalesced or indices.shape[1] < 2

    @property
    def nnz(self) -> int:
        """How many entries there are."""
        return self.indices[0].shape[1]

    @property
    def sparse_dim(self) -> int:
        """How many dimensions have indices; they come first."""
        return self.indices[0].shape[0]

    @property
    def dense_shape(self) -> tuple:
        """The sizes of the dimensions that values have."""
        return self.shape[self.sparse_dim:]

    @property
    def sparse_shape(self) -> tuple:
        """The sizes of the dimensions that have indices."""
        return self.shape[:self.sparse_dim]

    def row(self, dim: int) -> Any:
        """The indices of one dimension, (nnz,)."""
        return self.indices[0][dim]

    def keys(self) -> Any:
        """The entries' places in a row-major tensor of the sparse dimensions, (nnz,)."""
        return self.kept("keys", lambda: joined_keys(self.indices[0], self.sparse_shape))

    def offsets(self) -> Any:
        """Of a coalesced matrix: how many entries come before each row."""
        return self.kept("offsets", lambda: ops._segment_offsets(self.row(0), self.shape[0]))

    def coalescing(self) -> Coalescing:
        """How to make the entries unique and sorted."""
        return self.kept("coalescing", self._coalescing)

    def _coalescing(self) -> Coalescing:
        indices = self.indices[0]
        if self.coalesced:
            return Coalescing(self, None, None)
        if self.device is META:  # nobody knows which entries repeat: none, say
            return Coalescing(Coo(indices, self.shape, True), None, None)
        if math.prod(self.sparse_shape) >= _LARGEST_KEY:
            order, new = self._by_columns(indices)
        else:
            order, new = self._by_keys()
        if new is None or bool(ops.all(new)):
            found = indices if order is None else ops.index_select(indices, 1, order)
            return Coalescing(Coo(found, self.shape, True), order, None)
        first = nonzero_positions(new)
        kept = first if order is None else order[first]
        offsets = empty(first.shape[0] + 1, dtype=dtypes.int64)
        offsets[:-1] = first
        offsets[-1] = self.nnz
        found = ops.index_select(indices, 1, kept)
        return Coalescing(Coo(found, self.shape, True), order, offsets)

    def _by_keys(self) -> tuple[Any, Any]:
        """(order, where an entry differs from the one before), each None if trivial."""
        keys = self.keys()
        if bool(ops.all(ops.lt(keys[:-1], keys[1:]))):
            return None, None
        order = ops.argsort(keys)
        return order, ops._new_in_order(keys[order])

    def _by_columns(self, indices: Any) -> tuple[Any, Any]:
        """The same where places are too many to be numbered."""
        order = arange(self.nnz)
        for dim in range(self.sparse_dim - 1, -1, -1):  # stable: the last column counts least
            order = order[ops.argsort(indices[dim][order])]
        return order, ops._new_rows(ops.index_select(indices, 1, order).t())


def joined_keys(indices: Any, sizes: Sequence[int]) -> Any:
    """Row-major places in a tensor of `sizes` for coordinates (dims, n): (n,) int64."""
    if not sizes:
        return empty(indices.shape[1], dtype=dtypes.int64).zero_()
    found = None
    for dim, step in enumerate(contiguous_strides(tuple(sizes))):
        part = indices[dim] if step == 1 else indices[dim] * step
        found = part if found is None else found + part
    return found


def locate(keys: Any, wanted: Any) -> tuple[Any, Any]:
    """Where each of `wanted` (m,) is in `keys` (n,), which rise: (place or any place, found?)."""
    count = keys.shape[0]
    if not count or not wanted.shape[0]:
        place = empty(wanted.shape[0], dtype=dtypes.int64).zero_()
        return place, ops.ne(place, place)
    order = ops.argsort(ops.cat((keys, wanted)))  # stable: a key comes before its equals
    known = ops.lt(order, count)
    last = ops.cumsum(known, 0) - 1  # the last key that comes no later than each
    place = empty(count + wanted.shape[0], dtype=dtypes.int64)
    place[order] = ops.clamp_min(last, 0)
    place = place[count:]
    return place, ops.eq(keys[place], wanted)


# ---------------------------------------------------------------------- compressed layouts
def is_row_compressed(layout: Layout) -> bool:
    """Do rows have offsets (CSR, BSR), rather than columns (CSC, BSC)?"""
    return layout in (sparse_csr, sparse_bsr)


def is_blocked(layout: Layout) -> bool:
    """Are the entries blocks (BSR, BSC)?"""
    return layout in (sparse_bsr, sparse_bsc)


class Compressed(Pattern):
    """CSR, CSC, BSR, BSC: offsets (*batch, rows + 1) of the entries of each row (column) of blocks,
    and the columns (rows) of these, (*batch, nnz).

    Values have shape (*batch, nnz, *block, *dense sizes).

    Attributes:
        block: (height, width) of the entries; () for single elements.
    """

    __slots__ = ("block",)

    def __init__(self, layout: Layout, offsets: Any, plain: Any, shape: Sequence[int],
                 block: tuple = ()):
        super().__init__(layout, shape, (offsets, plain))
        self.block = block

    @property
    def nnz(self) -> int:
        """How many entries there are in each matrix."""
        return self.indices[1].shape[-1]

    @property
    def batch(self) -> tuple:
        """The sizes of the dimensions before the matrices."""
        return tuple(self.indices[1].shape[:-1])

    @property
    def sparse_dim(self) -> int:
        """2: rows and columns."""
        return 2

    @property
    def dense_shape(self) -> tuple:
        """The sizes of the dimensions behind the matrices."""
        return self.shape[len(self.batch) + 2:]

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns, in blocks."""
        rows, columns = self.shape[len(self.batch):len(self.batch) + 2]
        height, width = self.block or (1, 1)
        return rows // height, columns // width

    def offsets(self) -> Any:
        """The offsets into the entries of the whole batch, (compressed rows + 1,)."""
        return self.kept("offsets", self._offsets)

    def _offsets(self) -> Any:
        given = self.indices[0].to(dtypes.int64)
        if not self.batch:
            return given
        count = math.prod(self.batch)
        start = ops.mul(arange(count), self.nnz).unsqueeze(1)
        flat = (given.reshape(count, -1)[:, :-1] + start).reshape(-1)
        return ops.cat((flat, ops.mul(arange(1) + 1, count * self.nnz)))

    def plain(self) -> Any:
        """The plain indices of the whole batch as one vector."""
        return self.kept("plain", lambda: self.indices[1].to(dtypes.int64).reshape(-1))

    def compressed(self) -> Any:
        """The compressed dimension's index of each entry; later matrices go on counting."""
        return self.kept("compressed", lambda: ops._segment_rows(
            self.offsets(), self.nnz * math.prod(self.batch)))

    def coordinates(self) -> tuple[Any, Any]:
        """(row, column) of the blocks' entries of a single matrix."""
        pair = self.compressed(), self.plain()
        return pair if is_row_compressed(self.layout) else pair[::-1]

    def keys(self) -> Any:
        """The entries' places among the blocks of all matrices, row-major."""
        return self.kept("keys", self._keys)

    def _keys(self) -> Any:
        rows, columns = self.matrix
        compressed, plain = self.compressed(), self.plain()
        if is_row_compressed(self.layout):
            return compressed * columns + plain
        batch = ops.floor_divide(compressed, max(columns, 1))
        return (batch * rows + plain) * columns + ops.remainder(compressed, max(columns, 1))
