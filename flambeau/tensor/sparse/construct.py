"""What users make sparse tensors with, and the checks of what they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import kind_of
from flambeau.core.device import CPU, Device, place
from flambeau.core.dtypes import DType
from flambeau.ops.record import dtypes_default
from flambeau.tensor import interop
from flambeau.tensor.creation import checked, sizes
from flambeau.tensor.devices import moved_to
from flambeau.tensor.formats import (
    Layout,
    jagged,
    sparse_bsc,
    sparse_bsr,
    sparse_coo,
    sparse_csc,
    sparse_csr,
)
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.sparse import invariants
from flambeau.tensor.sparse.convert import empty_sparse
from flambeau.tensor.sparse.patterns import Compressed, Coo, is_blocked, is_row_compressed
from flambeau.tensor.sparse.tensor import SparseTensor, assemble

__all__ = ["sparse_bsc_tensor", "sparse_bsr_tensor", "sparse_compressed_tensor",
           "sparse_coo_tensor", "sparse_csc_tensor", "sparse_csr_tensor"]

COMPRESSED = (sparse_csr, sparse_csc, sparse_bsr, sparse_bsc)


def _given(data: Any, dtype: DType | None = None) -> Any:
    """Data as a tensor; a tensor stays what it is, history included."""
    if isinstance(data, TensorBase):
        return data if dtype in (None, data.dtype) else data.to(dtype)
    return interop.from_data(data, dtype)


def _indices(name: str, data: Any, keep: bool = False) -> Any:
    """Indices as an int64 tensor without history (int32 stays if `keep`)."""
    found = _given(data).detach()
    if found.dtype is dtypes.int64 or keep and found.dtype is dtypes.int32:
        return found
    if found.dtype.kind not in "iuf" or keep and found.numel():
        raise RuntimeError(f"{name} must be an int32 or int64 tensor, but got {found.dtype!r}")
    return found.to(dtypes.int64)


def _finished(made: SparseTensor, requires_grad: bool) -> SparseTensor:
    if not requires_grad:
        return made
    return made.detach().requires_grad_()


def _place(values: Any, device: Any) -> Device:
    """Where the parts shall be: by default where the values are."""
    if device is None and isinstance(values, TensorBase):
        return values._meta.device
    return place(device)


def sparse_coo_tensor(indices: Any = None, values: Any = None, size: Any = None, *,
                      dtype: DType | None = None, device: Any = None, pin_memory: bool = False,
                      requires_grad: bool = False, check_invariants: bool | None = None,
                      is_coalesced: bool | None = None) -> SparseTensor:
    """A sparse tensor in coordinates.

    Args:
        indices: (sparse_dim, nnz) ints; column k says where entry k is. Entries may repeat: their
            values add up. Given alone, the size of a tensor without entries.
        values: (nnz, *sizes of the dense dimensions).
        size: the shape; by default the smallest that holds all indices.
        dtype: of the values.
        requires_grad: whether the new tensor is a leaf that wants gradients.
        check_invariants: also check what costs more than the indices' range.
        is_coalesced: whether the entries are sorted and unique; by default found out when needed.

    Raises:
        RuntimeError: shapes do not go together, or an index is out of range.

    >>> torch.sparse_coo_tensor([[0, 1, 1], [2, 0, 2]], [3., 4., 5.], (2, 3))
    tensor(indices=tensor([[0, 1, 1],
                           [2, 0, 2]]),
           values=tensor([3., 4., 5.]),
           size=(2, 3), nnz=3, layout=torch.sparse_coo)
    >>> torch.sparse_coo_tensor([[0, 0], [1, 1]], [3., 4.], (1, 2)).to_dense()  # sums
    tensor([[0., 7.]])
    """
    checked(dtype, device)
    where = _place(values, device)
    if values is None:
        shape = sizes((indices,)) if size is None else sizes((size,))
        made = empty_sparse(shape, dtype or dtypes_default(), sparse_coo, device=where)
        return made.requires_grad_() if requires_grad else made
    at, elements = _indices("indices", indices), _given(values, dtype)
    at, elements = moved_to(at, where), moved_to(elements, where)
    shape = invariants.check_coo(at, elements, None if size is None else sizes((size,)))
    if is_coalesced and invariants.wanted(check_invariants):
        invariants.check_coalesced(Coo(at, shape))
    made = assemble(Coo(at, shape, bool(is_coalesced)), elements)
    return _finished(made, requires_grad)


def sparse_compressed_tensor(compressed_indices: Any, plain_indices: Any, values: Any,
                             size: Any = None, *, dtype: DType | None = None,
                             layout: Layout | None = None, device: Any = None,
                             pin_memory: bool = False, requires_grad: bool = False,
                             check_invariants: bool | None = None) -> SparseTensor:
    """A sparse matrix, or a batch of them, with offsets for its rows or columns.

    Args:
        compressed_indices: (*batch, rows + 1): how many entries come before each row (for CSC and
            BSC: column), in blocks.
        plain_indices: (*batch, nnz): the column (row) of each entry, rising within a row (column).
        values: (*batch, nnz, *block, *sizes of the dense dimensions).
        size: the shape; by default the smallest that holds all indices.
        layout: torch.sparse_csr, sparse_csc, sparse_bsr or sparse_bsc.

    Raises:
        RuntimeError: shapes do not go together, or an index is out of range.

    >>> rows, columns = torch.tensor([0, 1, 2]), torch.tensor([0, 1])
    >>> a = torch.sparse_compressed_tensor(rows, columns, torch.ones(2), layout=torch.sparse_csr)
    >>> a.to_dense()
    tensor([[1., 0.],
            [0., 1.]])
    """
    if layout not in COMPRESSED:
        raise RuntimeError("sparse_compressed_tensor expected sparse compressed tensor layout but "
                           f"got {'none' if layout is None else layout!r}")
    return _compressed(layout, compressed_indices, plain_indices, values, size, dtype, device,
                       requires_grad, check_invariants)


def _compressed(layout: Layout, offsets: Any, plain: Any, values: Any, size: Any,
                dtype: DType | None, device: Any, requires_grad: bool,
                check: bool | None) -> SparseTensor:
    checked(dtype, device)
    where = _place(values, device)
    names = ("crow_indices", "col_indices") if is_row_compressed(layout) else (
        "ccol_indices", "row_indices")
    offsets, plain = (_indices(name, data, keep=True)
                      for name, data in zip(names, (offsets, plain), strict=True))
    if offsets.dtype is not plain.dtype:
        raise RuntimeError(f"`{names[0]}` and `{names[1]}` must have the same dtype, got "
                           f"{offsets.dtype!r} and {plain.dtype!r}")
    elements = moved_to(_given(values, dtype), where)
    offsets, plain = moved_to(offsets, where), moved_to(plain, where)
    block = invariants.check_compressed_parts(names, layout, offsets, plain, elements)
    if size is None:
        shape = _estimated(layout, offsets, plain, elements, block)
    else:
        shape = sizes((size,))
    pattern = Compressed(layout, offsets, plain, shape, block)
    invariants.check_compressed(names, pattern, elements, invariants.wanted(check))
    return _finished(assemble(pattern, elements), requires_grad)


def _estimated(layout: Layout, offsets: Any, plain: Any, values: Any, block: tuple) -> tuple:
    """The smallest shape that holds the entries."""
    batch = tuple(plain.shape[:-1])
    lines = offsets.shape[-1] - 1
    if plain.is_meta:
        raise RuntimeError("tensors on meta have no indices to find the size by: give the size")
    across = int(plain.max().item()) + 1 if plain.numel() else 0
    rows, columns = (lines, across) if is_row_compressed(layout) else (across, lines)
    height, width = block or (1, 1)
    dense = tuple(values.shape[len(batch) + 1 + len(block):])
    return (*batch, rows * height, columns * width, *dense)


def sparse_csr_tensor(crow_indices: Any, col_indices: Any, values: Any, size: Any = None, *,
                      dtype: DType | None = None, device: Any = None, pin_memory: bool = False,
                      requires_grad: bool = False,
                      check_invariants: bool | None = None) -> SparseTensor:
    """A matrix with compressed rows; see `sparse_compressed_tensor`.

    >>> rows, columns = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1])
    >>> torch.sparse_csr_tensor(rows, columns, torch.tensor([1., 2., 3.])).to_dense()
    tensor([[1., 2.],
            [0., 3.]])
    """
    return _compressed(sparse_csr, crow_indices, col_indices, values, size, dtype, device,
                       requires_grad, check_invariants)


def sparse_csc_tensor(ccol_indices: Any, row_indices: Any, values: Any, size: Any = None, *,
                      dtype: DType | None = None, device: Any = None, pin_memory: bool = False,
                      requires_grad: bool = False,
                      check_invariants: bool | None = None) -> SparseTensor:
    """A matrix with compressed columns; see `sparse_compressed_tensor`.

    >>> columns, rows = torch.tensor([0, 1, 2]), torch.tensor([1, 0])
    >>> torch.sparse_csc_tensor(columns, rows, torch.tensor([5., 6.])).to_dense()
    tensor([[0., 6.],
            [5., 0.]])
    """
    return _compressed(sparse_csc, ccol_indices, row_indices, values, size, dtype, device,
                       requires_grad, check_invariants)


def sparse_bsr_tensor(crow_indices: Any, col_indices: Any, values: Any, size: Any = None, *,
                      dtype: DType | None = None, device: Any = None, pin_memory: bool = False,
                      requires_grad: bool = False,
                      check_invariants: bool | None = None) -> SparseTensor:
    """A matrix of blocks with compressed rows; see `sparse_compressed_tensor`.

    >>> blocks = torch.tensor([[[1., 2.], [3., 4.]]])
    >>> torch.sparse_bsr_tensor(torch.tensor([0, 1]), torch.tensor([1]), blocks, (2, 4)).to_dense()
    tensor([[0., 0., 1., 2.],
            [0., 0., 3., 4.]])
    """
    return _compressed(sparse_bsr, crow_indices, col_indices, values, size, dtype, device,
                       requires_grad, check_invariants)


def sparse_bsc_tensor(ccol_indices: Any, row_indices: Any, values: Any, size: Any = None, *,
                      dtype: DType | None = None, device: Any = None, pin_memory: bool = False,
                      requires_grad: bool = False,
                      check_invariants: bool | None = None) -> SparseTensor:
    """A matrix of blocks with compressed columns; see `sparse_compressed_tensor`.

    >>> columns, rows = torch.tensor([0, 1, 2]), torch.tensor([0, 1])
    >>> blocks = torch.tensor([[[1.]], [[2.]]])
    >>> torch.sparse_bsc_tensor(columns, rows, blocks, (2, 2)).to_dense()
    tensor([[1., 0.],
            [0., 2.]])
    """
    return _compressed(sparse_bsc, ccol_indices, row_indices, values, size, dtype, device,
                       requires_grad, check_invariants)


def sparse_zeros(shape: Sequence[int], dtype: DType, layout: Any, requires_grad: bool,
                 device: Device = CPU) -> SparseTensor:
    """`zeros` and `empty` with a sparse layout."""
    if layout is jagged:
        raise RuntimeError("layout=torch.jagged needs the sizes of the parts; use "
                           "torch.nested.nested_tensor")
    if not isinstance(layout, Layout):
        raise TypeError(f"argument 'layout' must be torch.layout, not {kind_of(layout)}")
    if is_blocked(layout):
        raise RuntimeError(f"empty_sparse_compressed expected non-block layout but got {layout!r}")
    made = empty_sparse(shape, dtype, layout, device=device)
    return made.requires_grad_() if requires_grad else made


