"""Between layouts: dense, COO, and the compressed ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.device import CPU, Device
from flambeau.core.dtypes import DType
from flambeau.tensor.creation import arange, empty, zeros
from flambeau.tensor.formats import Layout, sparse_bsr, sparse_coo, sparse_csr, strided
from flambeau.tensor.functions import ops
from flambeau.tensor.sparse.patterns import (
    Compressed,
    Coo,
    Pattern,
    is_blocked,
    is_row_compressed,
    locate,
)
from flambeau.tensor.sparse.tensor import (
    SparseTensor,
    assemble,
    coalesced,
    same_pattern,
    values_of,
)

__all__ = ["as_coo", "as_csr", "as_layout", "by_rows", "dense_to_coo", "empty_sparse", "to_dense",
           "transposed_entries", "values_at"]


# ---------------------------------------------------------------------- to dense
def to_dense(tensor: SparseTensor) -> Any:
    """All elements, zeros where none are stored; equal entries are added up."""
    pattern, values = tensor._pattern, values_of(tensor)
    if isinstance(pattern, Coo):
        count = math.prod(pattern.sparse_shape)
        return _placed(values, pattern.keys(), count).reshape(pattern.shape)
    matrices, (rows, columns) = math.prod(pattern.batch), pattern.matrix
    flat = values.reshape(-1, *values.shape[len(pattern.batch) + 1:])
    blocks = _placed(flat, pattern.keys(), matrices * rows * columns)
    return _from_blocks(blocks, pattern)


def _placed(values: Any, keys: Any, count: int) -> Any:
    """Rows of zeros with `values` added at the places `keys`."""
    kind = dtypes.uint8 if values.dtype.kind == "b" else values.dtype
    nothing = zeros((count, *values.shape[1:]), dtype=kind, device=values.device)
    if not values.shape[0] or not values.numel():
        return nothing.to(values.dtype)
    summed = ops.index_add(nothing, 0, keys, values.to(kind))
    return summed.to(values.dtype)


def _from_blocks(blocks: Any, pattern: Compressed) -> Any:
    """(matrices * rows * columns, *block, *dense) -> the tensor's shape."""
    if not pattern.block:
        return blocks.reshape(pattern.shape)
    height, width = pattern.block
    split = blocks.reshape(-1, *pattern.matrix, height, width, math.prod(pattern.dense_shape))
    return split.permute(0, 1, 3, 2, 4, 5).reshape(pattern.shape)


def _to_blocks(dense: Any, pattern: Compressed) -> Any:
    """The inverse of `_from_blocks`."""
    count = math.prod(pattern.batch) * math.prod(pattern.matrix)
    if not pattern.block:
        return dense.reshape(count, *pattern.dense_shape)
    (rows, columns), (height, width) = pattern.matrix, pattern.block
    split = dense.reshape(-1, rows, height, columns, width, math.prod(pattern.dense_shape))
    return split.permute(0, 1, 3, 2, 4, 5).reshape(count, height, width, *pattern.dense_shape)


# ---------------------------------------------------------------------- at a pattern
def values_at(tensor: Any, pattern: Pattern) -> Any:
    """The elements of a tensor of any layout at the entries of a pattern, in the form of its
    values."""
    if not isinstance(tensor, SparseTensor):
        if isinstance(pattern, Coo):
            rows = tensor.reshape(math.prod(pattern.sparse_shape), *pattern.dense_shape)
        else:
            rows = _to_blocks(tensor, pattern)
        return _shaped(ops.index_select(rows, 0, pattern.keys()), pattern)
    if same_pattern(tensor._pattern, pattern):
        return values_of(tensor)
    if isinstance(pattern, Compressed) and (pattern.block or pattern.batch):
        return values_at(to_dense(tensor), pattern)
    source = coalesced(as_coo(tensor, pattern.sparse_dim))
    place, found = locate(source._pattern.keys(), pattern.keys())
    if not source._pattern.nnz:
        return zeros((pattern.nnz, *pattern.dense_shape), dtype=tensor.dtype)
    chosen = ops.index_select(values_of(source), 0, place)
    found = found.reshape(found.shape[0], *(1,) * (chosen.ndim - 1))
    return ops.masked_fill(chosen, ops.logical_not(found), 0)


def _shaped(values: Any, pattern: Pattern) -> Any:
    """Values by entries of the whole batch, in the form of the pattern's values."""
    if isinstance(pattern, Compressed) and pattern.batch:
        return values.reshape(*pattern.batch, pattern.nnz, *values.shape[1:])
    return values


# ---------------------------------------------------------------------- to COO
def as_coo(tensor: Any, sparse_dim: int | None = None) -> SparseTensor:
    """The tensor in coordinates (itself if it is), with this many sparse dimensions."""
    if not isinstance(tensor, SparseTensor):
        return dense_to_coo(tensor, sparse_dim)
    pattern = tensor._pattern
    if isinstance(pattern, Coo):
        if sparse_dim in (None, pattern.sparse_dim):
            return tensor
        return dense_to_coo(to_dense(tensor), sparse_dim)
    if sparse_dim not in (None, 2) and not pattern.batch:
        raise RuntimeError(f"sparse_compressed_to_sparse: conversion from {tensor.layout.title} to "
                           "Sparse with sparse_dim argument !=2 is not supported")
    if pattern.batch:
        return dense_to_coo(to_dense(tensor), len(pattern.batch) + 2)
    if pattern.block:
        return _blocks_to_coo(tensor)
    row, column = pattern.coordinates()
    found = pattern.kept("coo", lambda: Coo(ops.stack((row, column), 0), pattern.shape))
    return coalesced(assemble(found, values_of(tensor)))


def _blocks_to_coo(tensor: SparseTensor) -> SparseTensor:
    """All elements of the blocks of a matrix, zeros included, in coordinates."""
    pattern, values = tensor._pattern, values_of(tensor)
    height, width = pattern.block
    row, column = (at.reshape(-1, 1, 1) for at in pattern.coordinates())
    places = (row * height + arange(height, device=pattern.device).reshape(1, height, 1),
              column * width + arange(width, device=pattern.device).reshape(1, 1, width))
    shape = (pattern.nnz, height, width)
    made = Coo(ops.stack(tuple(ops.expand(place, shape).reshape(-1) for place in places), 0),
               pattern.shape)
    return coalesced(assemble(made, values.reshape(-1, *pattern.dense_shape)))


def dense_to_coo(tensor: Any, sparse_dim: int | None = None) -> SparseTensor:
    """The elements that are not zero (or the slices that are not all zero)."""
    rank = tensor.ndim
    dims = rank if sparse_dim is None else sparse_dim
    if not 0 <= dims <= rank or (rank > 0 and dims == 0):
        raise RuntimeError(f"dense_to_sparse: sparse_dim argument must be in [0,{rank}] range, "
                           f"but {sparse_dim} is given")
    sizes, rest = tuple(tensor.shape[:dims]), tuple(tensor.shape[dims:])
    rows = tensor.reshape(math.prod(sizes), *rest)
    there = ops.ne(rows.detach(), 0)
    if rest:
        there = ops.any(there.reshape(rows.shape[0], -1), 1)
    keys = _positions(there)
    indices = _coordinates(keys, sizes)
    values = ops.index_select(rows, 0, keys)
    return assemble(Coo(indices, tuple(tensor.shape), True), values)


def _positions(mask: Any) -> Any:
    from flambeau.tensor.compress import nonzero_positions

    return nonzero_positions(mask)


def _coordinates(keys: Any, sizes: Sequence[int]) -> Any:
    """(dims, n) coordinates of row-major places."""
    columns, step = [], 1
    for size in reversed(sizes):
        column = keys if step == 1 else ops.floor_divide(keys, step)
        columns.append(ops.remainder(column, size) if size else column)
        step *= size
    if not columns:
        return empty((0, keys.shape[0]), dtype=dtypes.int64)
    return ops.stack(tuple(columns[::-1]), 0)


# ---------------------------------------------------------------------- to compressed layouts
def by_rows(tensor: SparseTensor) -> SparseTensor:
    """A sparse matrix with its entries in the order of rows: CSR, or coalesced COO."""
    pattern = tensor._pattern
    if isinstance(pattern, Compressed) and pattern.layout is sparse_csr and not pattern.batch:
        return tensor
    return coalesced(as_coo(tensor, 2))


def as_csr(tensor: SparseTensor) -> tuple[Any, Any, Any]:
    """(row offsets, columns, values) of a sparse matrix, int64; its values' history goes on."""
    plain = by_rows(tensor)
    pattern = plain._pattern
    columns = pattern.plain() if isinstance(pattern, Compressed) else pattern.row(1)
    return pattern.offsets(), columns, values_of(plain)


def as_layout(tensor: Any, layout: Layout, block: Sequence[int] | None = None,
              dense_dim: int | None = None) -> Any:
    """The tensor in another layout.

    Args:
        block: (height, width) of blocks, for BSR and BSC.
        dense_dim: how many dimensions at the end stay dense.
    """
    if layout is strided:
        return to_dense(tensor) if isinstance(tensor, SparseTensor) else tensor
    if layout is sparse_coo:
        return as_coo(tensor, None if dense_dim is None else tensor.ndim - dense_dim)
    name = f"to_sparse_{layout.name.removeprefix('sparse_')}"
    _check_block(name, layout, block)
    if isinstance(tensor, SparseTensor) and tensor.layout is layout and (
            not is_blocked(layout) or tuple(block or ()) == tensor._pattern.block):
        return tensor
    dense = dense_dim or 0
    if isinstance(tensor, SparseTensor):
        dense = len(tensor._pattern.dense_shape)
    if tensor.ndim - dense < 2:
        raise RuntimeError(f"{name}: expected a tensor with at least 2 sparse dimensions, got a "
                           f"tensor of shape {list(tensor.shape)}")
    if tensor.ndim - dense > 2:
        return _compress_batch(tensor, layout, block, dense)
    if is_blocked(layout):
        return _compress_blocks(tensor, layout, tuple(block), dense)
    return _compress(coalesced(as_coo(tensor, 2)), layout)


def _check_block(name: str, layout: Layout, block: Sequence[int] | None) -> None:
    if not is_blocked(layout):
        return
    if block is None:
        raise RuntimeError(f"{name}: conversion to {layout.title} needs a blocksize")
    if len(tuple(block)) != 2 or min(block) <= 0:
        raise RuntimeError(f"{name}: blocksize needs to be a tuple of two positive ints, got "
                           f"{tuple(block)}")


def transposed_entries(pattern: Pattern) -> tuple[Any, Any, Any]:
    """Of a matrix whose entries are in the order of rows: (column offsets, rows in the order of
    columns, the entries in that order)."""
    return pattern.kept("transposed", lambda: _transposed_entries(pattern))


def _transposed_entries(pattern: Pattern) -> tuple[Any, Any, Any]:
    row, column = pattern.coordinates() if isinstance(pattern, Compressed) else (
        pattern.row(0), pattern.row(1))
    order = ops.argsort(column)  # stable: rows keep rising within a column
    return ops._segment_offsets(column, pattern.shape[1]), row[order], order


def _compress(tensor: SparseTensor, layout: Layout) -> SparseTensor:
    """A coalesced COO matrix as CSR or CSC."""
    pattern = tensor._pattern
    if layout is sparse_csr:
        made = pattern.kept("csr", lambda: Compressed(
            layout, pattern.offsets(), pattern.row(1).clone(), pattern.shape))
        return assemble(made, values_of(tensor))
    offsets, rows, order = transposed_entries(pattern)
    made = pattern.kept("csc", lambda: Compressed(layout, offsets, rows, pattern.shape))
    return assemble(made, ops.index_select(values_of(tensor), 0, order))


def _compress_blocks(tensor: Any, layout: Layout, block: tuple, dense: int) -> SparseTensor:
    """A matrix as BSR or BSC: the blocks that are not all zero."""
    name = f"dense_to_{layout.name}"
    whole = to_dense(tensor) if isinstance(tensor, SparseTensor) else tensor
    sizes = tuple(whole.shape[:2])
    if any(size % side for size, side in zip(sizes, block, strict=True)):
        raise RuntimeError(f"{name}: tensor sparse size ({sizes[0]},{sizes[1]}) must be divisible "
                           f"by given blocksize ({block[0]},{block[1]})")
    nothing = empty(0, dtype=dtypes.int64)
    shape = Compressed(sparse_bsr, nothing, nothing, tuple(whole.shape), block)
    rows, columns = shape.matrix
    blocks = _to_blocks(whole, shape)
    table = blocks.reshape(rows, columns, -1)
    there = ops.any(ops.ne(table.detach(), 0), 2)
    if not is_row_compressed(layout):
        there = there.t()
    keys = _positions(there.contiguous())
    lines, length = there.shape
    plain = ops.remainder(keys, max(length, 1))
    offsets = ops._segment_offsets(ops.floor_divide(keys, max(length, 1)), lines)
    made = Compressed(layout, offsets, plain, tuple(whole.shape), block)
    return assemble(made, ops.index_select(blocks, 0, made.keys()))


def _compress_batch(tensor: Any, layout: Layout, block: Any, dense: int) -> SparseTensor:
    """Matrices of a batch, each compressed; all must have the same number of entries."""
    whole = to_dense(tensor) if isinstance(tensor, SparseTensor) else tensor
    lead = tuple(whole.shape[:whole.ndim - dense - 2])
    flat = whole.reshape(-1, *whole.shape[len(lead):])
    parts = [as_layout(flat[i], layout, block, dense) for i in range(flat.shape[0])]
    if len({part._pattern.nnz for part in parts}) > 1:
        raise RuntimeError("Expect the same number of specified elements per batch.")
    offsets, plain = (ops.stack(tuple(part._pattern.indices[k] for part in parts), 0)
                      for k in range(2))
    values = ops.stack(tuple(values_of(part) for part in parts), 0)
    made = Compressed(layout, offsets.reshape(*lead, -1), plain.reshape(*lead, -1),
                      tuple(whole.shape), parts[0]._pattern.block)
    return assemble(made, values.reshape(*lead, *values.shape[1:]))


def empty_sparse(shape: Sequence[int], dtype: DType, layout: Layout, dense: int = 0,
                 block: tuple = (), device: Device = CPU) -> SparseTensor:
    """A sparse tensor without entries."""
    shape = tuple(shape)
    if layout is sparse_coo:
        indices = empty((len(shape) - dense, 0), dtype=dtypes.int64, device=device)
        values = empty((0, *shape[len(shape) - dense:]), dtype=dtype, device=device)
        return assemble(Coo(indices, shape, True), values)
    if len(shape) - dense < 2:
        raise RuntimeError(f"a tensor of layout {layout!r} needs at least 2 dimensions, got shape "
                           f"{list(shape)}")
    lead = shape[:len(shape) - dense - 2]
    lines = shape[len(lead) + (not is_row_compressed(layout))] // (block[0] if block else 1)
    offsets = zeros((*lead, lines + 1), dtype=dtypes.int64, device=device)
    plain = empty((*lead, 0), dtype=dtypes.int64, device=device)
    values = empty((*lead, 0, *block, *shape[len(shape) - dense:]), dtype=dtype, device=device)
    return assemble(Compressed(layout, offsets, plain, shape, block), values)


SparseTensor.values_at = staticmethod(values_at)
