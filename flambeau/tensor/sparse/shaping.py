"""Rules of operations that move, choose and join entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.shapes import normalize_dim
from flambeau.tensor.composed import unsupported
from flambeau.tensor.compress import nonzero_positions
from flambeau.tensor.creation import arange, zeros
from flambeau.tensor.formats import (
    sparse_bsc,
    sparse_bsr,
    sparse_coo,
    sparse_csc,
    sparse_csr,
)
from flambeau.tensor.functions import ops
from flambeau.tensor.sparse.convert import as_coo
from flambeau.tensor.sparse.patterns import Compressed, Coo
from flambeau.tensor.sparse.tensor import SparseTensor, assemble, coalesced, values_of

__all__ = ["alias", "cat", "chosen_segments", "hstack", "index_select", "merged_rows", "movedim",
           "narrow_copy", "permute", "refuse", "select", "slice_", "stack", "t", "transpose",
           "unbind", "unsqueeze", "vstack"]

_TURNED = {sparse_csr: sparse_csc, sparse_csc: sparse_csr, sparse_bsr: sparse_bsc,
           sparse_bsc: sparse_bsr}


def alias(input: SparseTensor) -> SparseTensor:
    """The same parts."""
    return assemble(input._pattern, values_of(input))


def refuse(message: str) -> Any:
    """The rule of an operation that PyTorch refuses with a message of its own."""

    def rule(*args: Any) -> Any:
        raise RuntimeError(message)

    return rule


# ---------------------------------------------------------------------- dimensions
def permute(input: SparseTensor, dims: Sequence[int]) -> SparseTensor:
    """Other orders of the sparse dimensions, and of the dense ones, each among themselves."""
    pattern, rank = input._pattern, input.ndim
    order = tuple(normalize_dim(d, rank) for d in dims)
    if sorted(order) != list(range(rank)):
        raise RuntimeError("permute(sparse_coo): number of dimensions in the tensor input does not "
                           "match the length of the desired ordering of dimensions i.e. "
                           f"input.dim() = {rank} is not equal to len(dims) = {len(order)}")
    if order == tuple(range(rank)):
        return alias(input)
    if isinstance(pattern, Compressed):
        return _permute_compressed(input, order)
    sparse = pattern.sparse_dim
    if any((d < sparse) != (place < sparse) for place, d in enumerate(order)):
        raise RuntimeError("transpose: sparse and dense dimensions cannot change places (the first "
                           f"{sparse} dimensions are sparse), got dims {list(order)}")
    made = pattern.kept(f"permuted {order[:sparse]}", lambda: Coo(
        ops.stack(tuple(pattern.row(d) for d in order[:sparse]), 0),
        [pattern.shape[d] for d in order]))
    if order[:sparse] == tuple(range(sparse)):
        made.coalesced = pattern.coalesced
    values = values_of(input)
    if order[sparse:] != tuple(range(sparse, rank)):
        values = ops.permute(values, (0, *(d - sparse + 1 for d in order[sparse:])))
        made = Coo(made.indices[0], [pattern.shape[d] for d in order], made.coalesced)
    return assemble(made, values)


def _permute_compressed(input: SparseTensor, order: tuple) -> SparseTensor:
    pattern, batch = input._pattern, len(input._pattern.batch)
    swapped = (*range(batch), batch + 1, batch, *range(batch + 2, input.ndim))
    if order != swapped:
        raise unsupported("permute", "SparseCsrCPU", "Only rows and columns of a compressed "
                          "tensor can change places; use to_sparse_coo() for other orders.")
    values = values_of(input)
    if pattern.block:
        values = ops.transpose(values, batch + 1, batch + 2)
    made = Compressed(_TURNED[pattern.layout], *pattern.indices,
                      [pattern.shape[d] for d in order], pattern.block[::-1])
    return assemble(made, values)


def transpose(input: SparseTensor, dim0: int, dim1: int) -> SparseTensor:
    """Two dimensions exchanged."""
    order = list(range(input.ndim))
    a, b = normalize_dim(dim0, input.ndim), normalize_dim(dim1, input.ndim)
    order[a], order[b] = order[b], order[a]
    return permute(input, order)


def t(input: SparseTensor) -> SparseTensor:
    """A matrix transposed."""
    if input.ndim > 2:
        raise RuntimeError("t() expects a tensor with <= 2 sparse and 0 dense dimensions, but got "
                           f"{input._pattern.sparse_dim} sparse and "
                           f"{len(input._pattern.dense_shape)} dense dimensions")
    return transpose(input, 0, 1) if input.ndim == 2 else alias(input)


def unsqueeze(input: SparseTensor, dim: int) -> SparseTensor:
    """A new dimension of size 1."""
    pattern, rank = _coo("unsqueeze", input), input.ndim
    at = normalize_dim(dim, rank + 1)
    sparse = pattern.sparse_dim
    shape = (*pattern.shape[:at], 1, *pattern.shape[at:])
    if at > sparse:
        made = Coo(pattern.indices[0], shape, pattern.coalesced)
        return assemble(made, ops.unsqueeze(values_of(input), at - sparse + 1))
    row = zeros((1, pattern.nnz), dtype=dtypes.int64)
    indices = ops.cat((pattern.indices[0][:at], row, pattern.indices[0][at:]), 0)
    return assemble(Coo(indices, shape, pattern.coalesced), values_of(input))


def _coo(name: str, input: SparseTensor) -> Coo:
    if not isinstance(input._pattern, Coo):
        raise unsupported(name, "SparseCsrCPU", "Convert with .to_sparse_coo() or .to_dense() "
                          "first.")
    return input._pattern


# ---------------------------------------------------------------------- choosing
def _kept(input: SparseTensor, mask: Any, indices: Any, shape: Sequence[int]) -> SparseTensor:
    """The entries where `mask` holds, with other indices (of all entries) and another shape."""
    kept = nonzero_positions(mask)
    pattern = Coo(ops.index_select(indices, 1, kept), shape, input._pattern.coalesced)
    return assemble(pattern, ops.index_select(values_of(input), 0, kept))


def select(input: SparseTensor, dim: int, index: int) -> Any:
    """One slice along a dimension."""
    if isinstance(input._pattern, Compressed):
        at = normalize_dim(dim, input.ndim)
        if at < len(input._pattern.batch) and -input.shape[at] <= index < input.shape[at]:
            return _of_batch(input, at, index)
        input = as_coo(input)
    pattern, rank = input._pattern, input.ndim
    at = normalize_dim(dim, rank)
    size = pattern.shape[at]
    if not -size <= index < size:
        raise IndexError(f"select(): index {index} out of range for tensor of size "
                         f"{list(pattern.shape)} at dimension {dim}")
    index %= size
    shape = (*pattern.shape[:at], *pattern.shape[at + 1:])
    if at >= pattern.sparse_dim:
        made = Coo(pattern.indices[0], shape, pattern.coalesced)
        return assemble(made, ops.select(values_of(input), at - pattern.sparse_dim + 1, index))
    mask = ops.eq(pattern.row(at), index)
    if pattern.sparse_dim == 1:
        kept = nonzero_positions(mask)
        total = ops.index_select(values_of(input), 0, kept)
        return ops.sum(total, 0, dtype=input.dtype)
    rest = ops.cat((pattern.indices[0][:at], pattern.indices[0][at + 1:]), 0)
    return _kept(input, mask, rest, shape)


def _of_batch(input: SparseTensor, at: int, index: int) -> SparseTensor:
    """One slice along a dimension of a batch of compressed matrices."""
    pattern = input._pattern
    indices = (ops.select(part, at, index) for part in pattern.indices)
    made = Compressed(pattern.layout, *indices, (*pattern.shape[:at], *pattern.shape[at + 1:]),
                      pattern.block)
    return assemble(made, ops.select(values_of(input), at, index))


def narrow_copy(input: SparseTensor, dim: int, start: int, length: int) -> SparseTensor:
    """The slices start ... start + length - 1 along a dimension."""
    pattern = _coo("narrow_copy", input)
    at = normalize_dim(dim, input.ndim)
    size = pattern.shape[at]
    if start < 0:
        start += size
    if length < 0 or not 0 <= start <= size - length:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size}).")
    shape = (*pattern.shape[:at], length, *pattern.shape[at + 1:])
    if at >= pattern.sparse_dim:
        made = Coo(pattern.indices[0], shape, pattern.coalesced)
        return assemble(made, ops.narrow(values_of(input), at - pattern.sparse_dim + 1, start,
                                         length))
    row = pattern.row(at)
    mask = ops.logical_and(ops.ge(row, start), ops.lt(row, start + length))
    indices = pattern.indices[0]
    if start:
        indices = ops.cat((indices[:at], (row - start).unsqueeze(0), indices[at + 1:]), 0)
    return _kept(input, mask, indices, shape)


def slice_(input: SparseTensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
           ) -> SparseTensor:
    """x[start:end] along a dimension; only a step of 1."""
    if step != 1:
        raise unsupported("slice with a step", "SparseCPU", "Use index_select().")
    at = normalize_dim(dim, input.ndim)
    first, last, _ = slice(start, end).indices(input.shape[at])
    return narrow_copy(input, at, first, max(last - first, 0))


def index_select(input: SparseTensor, dim: int, index: Any) -> SparseTensor:
    """The slices that `index` (n,) names, in its order."""
    if input.layout is not sparse_coo:
        input = as_coo(input)
    at, pattern = normalize_dim(dim, input.ndim), input._pattern
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise RuntimeError("index_select(): the index is supposed to be a vector of integers, got "
                           f"{index.dtype!r} of shape {list(index.shape)}")
    shape = (*pattern.shape[:at], index.shape[0], *pattern.shape[at + 1:])
    if at >= pattern.sparse_dim:
        made = Coo(pattern.indices[0], shape, pattern.coalesced)
        return assemble(made, ops.index_select(values_of(input), at - pattern.sparse_dim + 1,
                                               index))
    size = pattern.shape[at]
    wrong = index[ops.logical_or(ops.lt(index, -size), ops.ge(index, size))]
    if wrong.shape[0]:
        raise IndexError(f"index_select(): index contains {wrong[0].item()} that is out of range "
                         f"for tensor of size {list(pattern.shape)} at dimension {dim}")
    index = ops.remainder(index.to(dtypes.int64), size)
    order = ops.argsort(pattern.row(at))
    offsets = ops._segment_offsets(pattern.row(at), size)
    rows, place = chosen_segments(offsets, index)
    entry = order[place]
    indices = ops.index_select(pattern.indices[0], 1, entry)
    indices = ops.cat((indices[:at], rows.unsqueeze(0), indices[at + 1:]), 0)
    return assemble(Coo(indices, shape), ops.index_select(values_of(input), 0, entry))


def chosen_segments(offsets: Any, index: Any) -> tuple[Any, Any]:
    """The entries of the segments that `index` names, one segment after the other.

    Returns:
        For every entry the number of its segment's place in `index`, and its own place.
    """
    starts = offsets[index]
    counts = offsets[index + 1] - starts
    ends = ops.cat((zeros(1, dtype=dtypes.int64), ops.cumsum(counts, 0)))
    total = int(ends[-1].item())
    rows = ops._segment_rows(ends, total)
    return rows, arange(total) - ends[rows] + starts[rows]


# ---------------------------------------------------------------------- joining
def cat(tensors: Sequence, dim: int = 0) -> SparseTensor:
    """The entries of all, those of later tensors moved along `dim`."""
    for place, tensor in enumerate(tensors):
        if not isinstance(tensor, SparseTensor):
            raise RuntimeError("Concatenating sparse tensors, but a dense tensor was found at "
                               f"position {place}.")
    first = tensors[0]
    rank, sparse = first.ndim, _coo("cat", first).sparse_dim
    at = normalize_dim(dim, rank)
    for place, tensor in enumerate(tensors):
        other = _coo("cat", tensor)
        if other.sparse_dim != sparse or tensor.ndim != rank:
            raise RuntimeError("All tensors must have the same dimensions: "
                               f"{sparse} sparse and {rank - sparse} dense, but tensor at position "
                               f"{place} has {other.sparse_dim}, {tensor.ndim - other.sparse_dim}.")
        if any(a != b for d, (a, b) in enumerate(zip(first.shape, tensor.shape, strict=True))
               if d != at):
            raise RuntimeError("Sizes of tensors must match except in dimension "
                               f"{at}. Expected {list(first.shape)}, but got "
                               f"{list(tensor.shape)} at position {place}.")
    total = sum(tensor.shape[at] for tensor in tensors)
    shape = (*first.shape[:at], total, *first.shape[at + 1:])
    indices, values, before = [], [], 0
    for tensor in tensors:
        at_entry, elements = tensor._pattern.indices[0], values_of(tensor)
        if at >= sparse:
            elements = _padded(elements, at - sparse + 1, before, total)
        elif before:
            moved = (at_entry[at] + before).unsqueeze(0)
            at_entry = ops.cat((at_entry[:at], moved, at_entry[at + 1:]), 0)
        indices.append(at_entry)
        values.append(elements)
        before += tensor.shape[at]
    sorted_ = at == 0 and sparse > 0 and all(t._pattern.coalesced for t in tensors)
    made = Coo(ops.cat(tuple(indices), 1), shape, sorted_)
    return assemble(made, ops.cat(tuple(values), 0))


def _padded(values: Any, dim: int, before: int, total: int) -> Any:
    """Values among zeros along a dense dimension."""
    def nothing(size: int) -> Any:
        shape = list(values.shape)
        shape[dim] = size
        return zeros(shape, dtype=values.dtype)

    after = total - before - values.shape[dim]
    return ops.cat((nothing(before), values, nothing(after)), dim)


def stack(tensors: Sequence, dim: int = 0) -> SparseTensor:
    """Tensors of one shape along a new dimension."""
    if not all(isinstance(tensor, SparseTensor) for tensor in tensors):
        raise RuntimeError("stack: all tensors must be sparse if one is")
    at = normalize_dim(dim, tensors[0].ndim + 1)
    return cat([unsqueeze(tensor, at) for tensor in tensors], at)


def hstack(tensors: Sequence) -> SparseTensor:
    """Tensors side by side: along dim 1, vectors along dim 0."""
    return cat(tensors, 0 if tensors[0].ndim == 1 else 1)


def vstack(tensors: Sequence) -> SparseTensor:
    """Tensors one above the other; vectors are rows."""
    return cat([unsqueeze(t, 0) if t.ndim == 1 else t for t in tensors], 0)


def movedim(input: SparseTensor, source: Any, destination: Any) -> SparseTensor:
    """Dimensions moved to other places; the rest keeps its order."""
    here, there = (((d,) if isinstance(d, int) else tuple(d)) for d in (source, destination))
    rank = input.ndim
    moved = {normalize_dim(b, rank): normalize_dim(a, rank)
             for a, b in zip(here, there, strict=True)}
    rest = iter(d for d in range(rank) if d not in moved.values())
    return permute(input, [moved[d] if d in moved else next(rest) for d in range(rank)])


def unbind(input: SparseTensor, dim: int = 0) -> tuple:
    """All slices along a dimension."""
    return tuple(select(input, dim, k) for k in range(input.shape[normalize_dim(dim,
                                                                                input.ndim)]))


def merged_rows(input: SparseTensor) -> Any:
    """A tensor (b, n, m) in coordinates as the block diagonal matrix (b * n, b * m)."""
    input = coalesced(input)
    pattern = input._pattern
    batch, rows, columns = pattern.shape
    made = pattern.kept("diagonal", lambda: Coo(ops.stack(
        (pattern.row(0) * rows + pattern.row(1), pattern.row(0) * columns + pattern.row(2)), 0),
        (batch * rows, batch * columns), True))
    return assemble(made, values_of(input))

