"""Methods of `Tensor` that are about sparse tensors; dense tensors have them too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core.arguments import kind_of
from flambeau.core.dtypes import DType
from flambeau.core.shapes import Size
from flambeau.tensor.composed import unsupported
from flambeau.tensor.creation import zeros
from flambeau.tensor.formats import Layout, sparse_coo, strided
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.method_docs import shown
from flambeau.tensor.sizes import shape_of
from flambeau.tensor.sparse import convert, products
from flambeau.tensor.sparse.patterns import Coo, is_row_compressed
from flambeau.tensor.sparse.tensor import SparseTensor, assemble, values_of
from flambeau.tensor.sparse.tensor import coalesced as coalesced_form

__all__ = [
    "to_dense", "to_sparse", "to_sparse_coo", "to_sparse_csr", "to_sparse_csc", "to_sparse_bsr",
    "to_sparse_bsc", "indices", "values", "_indices", "_values", "crow_indices", "col_indices",
    "ccol_indices", "row_indices", "coalesce", "is_coalesced", "_is_coalesced", "_coalesced_",
    "_nnz", "sparse_dim", "dense_dim", "_dimI", "_dimV", "sparse_mask", "sparse_resize_",
    "sparse_resize_and_clear_", "resize_as_sparse_", "smm", "sspaddmm", "hspmm", "is_same_size",
    "indices_copy", "values_copy", "crow_indices_copy", "col_indices_copy", "ccol_indices_copy",
    "row_indices_copy"]


# ---------------------------------------------------------------------- conversions
def to_dense(self: Any, dtype: DType | None = None, *, masked_grad: bool | None = None) -> Any:
    """The tensor with all its elements in memory; a dense tensor as it is.

    Args:
        dtype: of the result.
        masked_grad: accepted; the gradient of a sparse tensor is always sparse.

    >>> torch.eye(2).to_sparse().to_dense()
    tensor([[1., 0.],
            [0., 1.]])
    """
    if isinstance(self, SparseTensor):
        if dtype is not None:
            raise RuntimeError("dtype argument is not supported by sparse_to_dense; use "
                               ".to(dtype) before or after it")
        return convert.to_dense(self)
    if not self._meta.strided:
        return self.to_padded_dense(dtype)
    return self if dtype is None else self.to(dtype)


def to_sparse(self: Any, sparse_dim: Any = None, *, layout: Layout | None = None,
              blocksize: Sequence[int] | None = None, dense_dim: int | None = None) -> Any:
    """A sparse tensor of the elements that are not zero.

    Args:
        sparse_dim: how many dimensions get indices (COO only); all by default.
        layout: torch.sparse_coo (default), sparse_csr, sparse_csc, sparse_bsr or sparse_bsc.
        blocksize: (height, width) of the blocks of BSR and BSC.
        dense_dim: how many dimensions at the end stay dense.

    >>> torch.tensor([[0., 5.], [0., 0.]]).to_sparse()
    tensor(indices=tensor([[0],
                           [1]]),
           values=tensor([5.]),
           size=(2, 2), nnz=1, layout=torch.sparse_coo)
    """
    if isinstance(sparse_dim, Layout):
        sparse_dim, layout = None, sparse_dim
    if sparse_dim is not None and (layout is not None or blocksize is not None):
        raise RuntimeError("to_sparse: sparse_dim excludes layout, blocksize and dense_dim")
    if layout in (None, sparse_coo) and blocksize is None:
        if sparse_dim is None and dense_dim is not None:
            sparse_dim = self.ndim - dense_dim
        return convert.as_coo(self, sparse_dim)
    if layout is None:
        raise RuntimeError("to_sparse: blocksize needs layout=torch.sparse_bsr or sparse_bsc")
    if not isinstance(layout, Layout):
        raise TypeError(f"to_sparse(): argument 'layout' must be torch.layout, not "
                        f"{kind_of(layout)}")
    return convert.as_layout(self, layout, blocksize, dense_dim)


def to_sparse_coo(self: Any) -> Any:
    """The tensor in coordinates.

    >>> torch.tensor([0., 5.]).to_sparse_coo()
    tensor(indices=tensor([[1]]),
           values=tensor([5.]),
           size=(2,), nnz=1, layout=torch.sparse_coo)
    """
    return convert.as_coo(self)


def _compression(name: str) -> Any:
    def method(self: Any, dense_dim: int | None = None) -> Any:
        from flambeau.tensor import formats

        return convert.as_layout(self, getattr(formats, f"sparse_{name}"), None, dense_dim)

    method.__name__ = method.__qualname__ = f"to_sparse_{name}"
    method.__doc__ = shown(method.__name__, f"The tensor in layout torch.sparse_{name}.")
    return method


def _blocking(name: str) -> Any:
    def method(self: Any, blocksize: Any, dense_dim: int | None = None) -> Any:
        from flambeau.tensor import formats

        return convert.as_layout(self, getattr(formats, f"sparse_{name}"), blocksize, dense_dim)

    method.__name__ = method.__qualname__ = f"to_sparse_{name}"
    doc = f"The tensor in layout torch.sparse_{name}, in blocks (height, width)."
    method.__doc__ = shown(method.__name__, doc)
    return method


to_sparse_csr, to_sparse_csc = _compression("csr"), _compression("csc")
to_sparse_bsr, to_sparse_bsc = _blocking("bsr"), _blocking("bsc")


# ---------------------------------------------------------------------- parts
def _layout_name(tensor: Any) -> str:
    return tensor.layout.title


def _need_coo(name: str, tensor: Any) -> Coo:
    if not isinstance(tensor, SparseTensor) or tensor.layout is not sparse_coo:
        raise RuntimeError(f"{name} expected sparse coordinate tensor layout but got "
                           f"{_layout_name(tensor)}")
    return tensor._pattern


def indices(self: Any) -> Any:
    """The coordinates (sparse_dim, nnz) of a coalesced COO tensor.

    >>> torch.eye(2).to_sparse().indices()
    tensor([[0, 1],
            [0, 1]])
    """
    if not _need_coo("indices", self).coalesced:
        raise RuntimeError("Cannot get indices on an uncoalesced tensor, please call .coalesce() "
                           "first")
    return self._pattern.indices[0].detach()


def values(self: Any) -> Any:
    """The values of a sparse tensor (COO: of a coalesced one), with their history.

    >>> torch.tensor([[0., 5.], [6., 0.]]).to_sparse().values()
    tensor([5., 6.])
    """
    if not isinstance(self, SparseTensor):
        if self._meta.strided:
            raise RuntimeError("values expected sparse tensor layout but got "
                               f"{_layout_name(self)}")
        return self.jagged_values()
    if isinstance(self._pattern, Coo) and not self._pattern.coalesced:
        raise RuntimeError("Cannot get values on an uncoalesced tensor, please call .coalesce() "
                           "first")
    found = values_of(self)
    return found if found._rg else found.detach()


def _indices(self: Any) -> Any:
    """The coordinates (sparse_dim, nnz) of a COO tensor, coalesced or not."""
    if not isinstance(self, SparseTensor) or self.layout is not sparse_coo:
        raise _only_sparse("_indices", self)
    return self._pattern.indices[0].detach()


def _values(self: Any) -> Any:
    """The values of a sparse tensor, coalesced or not, without history."""
    if not isinstance(self, SparseTensor):
        raise _only_sparse("_values", self)
    return self._elements.detach()


def _only_sparse(name: str, tensor: Any) -> NotImplementedError:
    backend = "CPU" if tensor.layout is strided else f"{_layout_name(tensor)}CPU"
    return unsupported(name, backend, "Only sparse COO tensors have it; convert with "
                       ".to_sparse().")


def _nnz(self: Any) -> int:
    """How many entries a sparse tensor has."""
    if not isinstance(self, SparseTensor):
        raise _only_sparse("_nnz", self)
    return self._pattern.nnz


def _compressed_part(name: str, rows: bool, place: int) -> Any:
    def method(self: Any) -> Any:
        compressed = isinstance(self, SparseTensor) and self.layout is not sparse_coo
        if not compressed or is_row_compressed(self.layout) is not rows:
            raise RuntimeError(f"{name} expected sparse {'row' if rows else 'column'} compressed "
                               f"tensor layout but got {_layout_name(self)}")
        return self._pattern.indices[place].detach()

    method.__name__ = method.__qualname__ = name
    kind = ("CSR or BSR", "CSC or BSC")[not rows]
    doc = f"The {'plain' if place else 'compressed'} indices of a {kind} tensor."
    method.__doc__ = shown(name, doc)
    return method


crow_indices, col_indices = (_compressed_part("crow_indices", True, 0),
                             _compressed_part("col_indices", True, 1))
ccol_indices, row_indices = (_compressed_part("ccol_indices", False, 0),
                             _compressed_part("row_indices", False, 1))


def coalesce(self: Any) -> Any:
    """A COO tensor with sorted, unique entries: values of equal ones are added up.

    >>> torch.sparse_coo_tensor([[0, 0]], [1., 2.], (2,)).coalesce()
    tensor(indices=tensor([[0]]),
           values=tensor([3.]),
           size=(2,), nnz=1, layout=torch.sparse_coo)
    """
    _need_coo("coalesce", self)
    return coalesced_form(self)


def is_coalesced(self: Any) -> bool:
    """Is a COO tensor known to have sorted, unique entries?

    >>> torch.sparse_coo_tensor([[0, 0]], [1., 2.], (2,)).is_coalesced()
    False
    """
    return _need_coo("is_coalesced", self).coalesced


_is_coalesced = is_coalesced


def _coalesced_(self: Any, coalesced: bool) -> Any:
    """Say that a COO tensor is coalesced, or that it is not."""
    pattern = _need_coo("_coalesced_", self)
    self._pattern = Coo(pattern.indices[0], pattern.shape, coalesced)
    return self


def sparse_dim(self: Any) -> int:
    """How many dimensions have indices (0 for a dense tensor).

    >>> torch.sparse_coo_tensor([[0]], [[1., 2.]], (3, 2)).sparse_dim()
    1
    """
    return self._pattern.sparse_dim if isinstance(self, SparseTensor) else 0


def dense_dim(self: Any) -> int:
    """How many dimensions the values of an entry have (all, for a dense tensor).

    >>> torch.sparse_coo_tensor([[0]], [[1., 2.]], (3, 2)).dense_dim()
    1
    """
    return len(self._pattern.dense_shape) if isinstance(self, SparseTensor) else self.ndim


_dimI, _dimV = sparse_dim, dense_dim


def sparse_mask(self: Any, mask: Any) -> Any:
    """A sparse tensor with the entries of the sparse tensor `mask` and the elements of this one.

    >>> torch.tensor([[1., 2.], [3., 4.]]).sparse_mask(torch.eye(2).to_sparse()).to_dense()
    tensor([[1., 0.],
            [0., 4.]])
    """
    if not isinstance(mask, SparseTensor):
        raise RuntimeError("sparse_mask(): expected mask to be sparse, got layout "
                           f"{mask.layout!r}")
    if tuple(self.shape) != tuple(mask.shape):
        raise RuntimeError("sparse_mask(): operands have incompatible sizes; self has size "
                           f"{list(self.shape)} but mask has size {list(mask.shape)}")
    return assemble(mask._pattern, convert.values_at(self, mask._pattern))


def _copy_of(name: str) -> Any:
    method = globals()[name]

    def copied(input: Any, *, out: Any = None) -> Any:
        made = method(input).clone()
        return made if out is None else out.resize_(tuple(made.shape)).copy_(made)

    copied.__name__ = copied.__qualname__ = f"{name}_copy"
    copied.__doc__ = shown(copied.__name__, f"A copy of what `Tensor.{name}` gives.")
    return copied


indices_copy, values_copy = _copy_of("indices"), _copy_of("values")
crow_indices_copy, col_indices_copy = _copy_of("crow_indices"), _copy_of("col_indices")
ccol_indices_copy, row_indices_copy = _copy_of("ccol_indices"), _copy_of("row_indices")


# ---------------------------------------------------------------------- sizes
def sparse_resize_(self: Any, size: Any, sparse_dim: int, dense_dim: int) -> Any:
    """Another shape, in place; with entries, dimensions may only grow.

    >>> torch.eye(2).to_sparse().sparse_resize_((3, 3), 2, 0).shape
    torch.Size([3, 3])
    """
    pattern = _need_coo("sparse_resize_", self)
    shape = _checked_size("sparse_resize_", self, size, sparse_dim, dense_dim)
    if pattern.nnz:
        if (sparse_dim, dense_dim) != (pattern.sparse_dim, len(pattern.dense_shape)):
            raise RuntimeError("changing the number of sparse or dense dimensions on a non-empty "
                               "sparse tensor is not supported")
        if any(new < old for new, old in zip(shape, pattern.shape, strict=True)):
            raise RuntimeError("shrinking the size of dimensions (from "
                               f"{list(pattern.shape)} to {list(shape)}) on a non-empty sparse "
                               "tensor is not supported")
    indices = pattern.indices[0]
    elements = self._elements
    if not pattern.nnz:
        made = convert.empty_sparse(shape, self.dtype, sparse_coo, dense_dim)
        indices, elements = made._pattern.indices[0], made._elements
    elif shape[sparse_dim:] != pattern.dense_shape:
        larger = zeros((pattern.nnz, *shape[sparse_dim:]), dtype=self.dtype)
        larger[(slice(None), *(slice(0, n) for n in pattern.dense_shape))] = elements
        elements = larger
    return _resized(self, Coo(indices, shape, pattern.coalesced), elements)


def _resized(self: Any, pattern: Coo, elements: Any) -> Any:
    self._pattern, self._elements = pattern, elements
    self._meta = pattern.meta(elements.dtype)
    self._storage.version += 1
    return self


def _checked_size(name: str, self: Any, size: Any, sparse_dim: int, dense_dim: int) -> tuple:
    if self._rg:
        raise RuntimeError(f"{name}: cannot resize a tensor that requires grad; use .detach()")
    shape = shape_of((size,))
    if sparse_dim + dense_dim != len(shape):
        raise RuntimeError(f"'len(size) == sparse_dim + dense_dim' is not satisfied: len(size) = "
                           f"{len(shape)}, sparse_dim = {sparse_dim}, dense_dim = {dense_dim}")
    return shape


def sparse_resize_and_clear_(self: Any, size: Any, sparse_dim: int, dense_dim: int) -> Any:
    """Another shape and no entries, in place.

    >>> torch.eye(2).to_sparse().sparse_resize_and_clear_((3, 3), 2, 0)._nnz()
    0
    """
    _need_coo("sparse_resize_and_clear_", self)
    shape = _checked_size("sparse_resize_and_clear_", self, size, sparse_dim, dense_dim)
    made = convert.empty_sparse(shape, self.dtype, sparse_coo, dense_dim)
    return _resized(self, made._pattern, made._elements)


def resize_as_sparse_(self: Any, the_template: Any) -> Any:
    """The shape of another COO tensor, in place.

    >>> a = torch.eye(2).to_sparse()
    >>> torch.zeros(1).to_sparse().resize_as_sparse_(a).shape
    torch.Size([2, 2])
    """
    pattern = _need_coo("resize_as_sparse_", the_template)
    return sparse_resize_(self, Size(pattern.shape), pattern.sparse_dim,
                          len(pattern.dense_shape))


def is_same_size(self: Any, other: TensorBase) -> bool:
    """Have both tensors the same shape?

    >>> torch.is_same_size(torch.zeros(2, 3), torch.ones(2, 3))
    True
    """
    return tuple(self.shape) == tuple(other.shape)


# ---------------------------------------------------------------------- products
smm, hspmm, sspaddmm = products.smm, products.hspmm, products.sspaddmm
