"""Sparse matrices from diagonals."""

from __future__ import annotations

from typing import Any

import flambeau
from flambeau.tensor.formats import sparse_coo, sparse_csc, sparse_csr

__all__ = ["spdiags"]


def spdiags(diagonals: Any, offsets: Any, shape: tuple[int, int], layout: Any = None) -> Any:
    """A sparse matrix with the rows of `diagonals` on its diagonals.

    Element c of a row goes to column c of the diagonal, as far as it is in the matrix.

    Args:
        diagonals: (n, length), or (length,) for one diagonal.
        offsets: (n,) ints, all different: 0 the main diagonal, above 0 those above it.
        shape: of the matrix.
        layout: torch.sparse_coo (default), sparse_csr or sparse_csc.

    Raises:
        ValueError, RuntimeError: arguments that do not go together.

    >>> torch.sparse.spdiags(torch.tensor([[1., 2.]]), torch.tensor([0]), (2, 2)).to_dense()
    tensor([[1., 0.],
            [0., 2.]])
    """
    if diagonals.ndim > 2:
        raise RuntimeError("Diagonals must be vector or matrix, got a tensor of "
                           f"{diagonals.ndim} dimensions")
    if len(shape) != 2:
        raise RuntimeError(f"Output shape must be 2d, got {tuple(shape)}")
    if layout not in (None, sparse_coo, sparse_csr, sparse_csc):
        raise RuntimeError("Only output layouts (Sparse, SparseCsc, SparseCsr) are supported, got "
                           f"{layout!r}")
    table = diagonals.reshape(1, -1) if diagonals.ndim < 2 else diagonals
    places = offsets.reshape(-1)
    if offsets.ndim > 1:
        raise RuntimeError(f"Offsets must be scalar or vector, got {offsets.ndim} dimensions")
    if places.dtype is not flambeau.int64:
        raise RuntimeError(f"Offset Tensor must have dtype Long but got {places.dtype!r}")
    if table.shape[0] != places.shape[0]:
        raise RuntimeError(f"Number of diagonals ({table.shape[0]}) does not match the number of "
                           f"offsets ({places.shape[0]})")
    if len(set(places.tolist())) != places.shape[0]:
        raise RuntimeError("Offset tensor contains duplicate values")
    rows, columns = shape
    column = flambeau.arange(table.shape[1]).expand(table.shape)
    row = column - places.unsqueeze(1)
    inside = (row >= 0) & (row < rows) & (column < columns)
    indices = flambeau.stack((row[inside], column[inside]))
    made = flambeau.sparse_coo_tensor(indices, table[inside], tuple(shape))
    return made if layout in (None, sparse_coo) else made.to_sparse(layout=layout)
