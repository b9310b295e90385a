"""Rules of matrix products.

A sparse matrix times a dense one is one kernel over compressed rows (`_segment_sum`). A dense one
times a sparse one is the same for the transposes. The product of two sparse ones is a list of all
pairs of entries that meet, added up.
"""

from __future__ import annotations

from typing import Any

from flambeau.autograd.grad_mode import is_recording
from flambeau.autograd.graph import node_type
from flambeau.tensor import tape
from flambeau.tensor.composed import PartsNode, write_out
from flambeau.tensor.formats import sparse_coo, sparse_csr
from flambeau.tensor.functions import ops
from flambeau.tensor.sparse.convert import (
    as_coo,
    as_csr,
    as_layout,
    by_rows,
    to_dense,
    transposed_entries,
    values_at,
)
from flambeau.tensor.sparse.elementwise import add
from flambeau.tensor.sparse.patterns import Compressed, Coo
from flambeau.tensor.sparse.shaping import chosen_segments, merged_rows, t
from flambeau.tensor.sparse.tensor import SparseTensor, assemble, coalesced, values_of

__all__ = ["addmm", "addmv", "bmm", "hspmm", "linear", "matmul", "mm", "mm_reduce", "mv",
           "sampled_addmm", "smm", "sspaddmm"]


def _check(name: str, a: Any, b: Any) -> None:
    if a.ndim != 2 or b.ndim != 2:
        raise RuntimeError(f"{name}: Expected matrices, got {a.ndim}D and {b.ndim}D tensors")
    if a.shape[1] != b.shape[0]:
        raise RuntimeError(f"{name}: mat1 and mat2 shapes cannot be multiplied "
                           f"({a.shape[0]}x{a.shape[1]} and {b.shape[0]}x{b.shape[1]})")
    if a.dtype is not b.dtype:
        raise RuntimeError(f"{name}: expected m1 and m2 to have the same dtype, but got: "
                           f"{a.dtype.scalar_name} != {b.dtype.scalar_name}")


def mm(input: Any, mat2: Any) -> Any:
    """input @ mat2 of matrices, one of them sparse, or both (then the result is)."""
    _check("mm", input, mat2)
    if not isinstance(input, SparseTensor):
        return ops.t(_times_dense(t(mat2), ops.t(input)))
    if isinstance(mat2, SparseTensor):
        return _sparse_product(input, mat2)
    return _times_dense(input, mat2)


def _times_dense(sparse: SparseTensor, dense: Any) -> Any:
    if isinstance(sparse._pattern, Compressed) and sparse._pattern.block:
        sparse = as_coo(sparse)
    if isinstance(sparse._pattern, Coo) and sparse._pattern.dense_shape:
        raise RuntimeError("mm: a sparse operand must have 2 sparse and no dense dimensions, got "
                           f"{len(sparse._pattern.dense_shape)} dense ones")
    ordered = by_rows(sparse)
    offsets, columns, values = as_csr(ordered)
    if dense._rg and is_recording():
        turned = transposed_entries(ordered._pattern)
        return ops._sparse_product(offsets, columns, *turned, dense, values)
    return ops._segment_sum(offsets, columns, dense, values)


def _sparse_product(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    left = coalesced(as_coo(a, 2))
    offsets, columns, right = as_csr(b)
    entry, place = chosen_segments(offsets, left._pattern.row(1))
    rows, found = left._pattern.row(0)[entry], columns[place]
    values = ops.mul(ops.index_select(values_of(left), 0, entry),
                     ops.index_select(right, 0, place))
    pattern = Coo(ops.stack((rows, found), 0), (a.shape[0], b.shape[1]))
    made = coalesced(assemble(pattern, values))
    return as_layout(made, sparse_csr) if a.layout is not sparse_coo else made


def mv(input: Any, vec: Any) -> Any:
    """A sparse matrix times a dense vector."""
    if input.ndim != 2 or vec.ndim != 1:
        raise RuntimeError("mv: Expected a matrix and a vector, got "
                           f"{input.ndim}D and {vec.ndim}D tensors")
    if isinstance(vec, SparseTensor):
        raise RuntimeError("mv: the vector must be dense; use vec.to_dense()")
    return ops.squeeze(mm(input, ops.unsqueeze(vec, 1)), 1)


def bmm(input: Any, mat2: Any) -> Any:
    """Products of a batch of sparse matrices (b, n, m) with dense ones (b, m, p)."""
    if input.ndim != 3 or mat2.ndim != 3 or input.shape[0] != mat2.shape[0] or (
            input.shape[2] != mat2.shape[1]):
        raise RuntimeError("bmm: batches of matrices cannot be multiplied: "
                           f"{list(input.shape)} and {list(mat2.shape)}")
    if not isinstance(input, SparseTensor):
        turned = bmm(_batch_turned(mat2), ops.transpose(input, 1, 2))
        return ops.transpose(turned, 1, 2)
    if isinstance(mat2, SparseTensor):
        raise RuntimeError("bmm: the second operand must be dense if the first is sparse")
    batch, rows, _ = input.shape
    diagonal = merged_rows(as_coo(input, 3))
    tall = mat2.reshape(batch * mat2.shape[1], mat2.shape[2])
    return mm(diagonal, tall).reshape(batch, rows, mat2.shape[2])


def _batch_turned(tensor: SparseTensor) -> SparseTensor:
    from flambeau.tensor.sparse.shaping import transpose

    return transpose(as_coo(tensor, 3), 1, 2)


def matmul(input: Any, other: Any) -> Any:
    """The product that the dimensions ask for: matrices, a matrix and a vector, batches."""
    ranks = input.ndim, other.ndim
    if ranks == (2, 2):
        return mm(input, other)
    if ranks == (2, 1):
        return mv(input, other)
    if ranks == (1, 2) and isinstance(other, SparseTensor):
        return mv(t(other), input)
    if ranks == (3, 3):
        return bmm(input, other)
    if ranks[1] == 2 and isinstance(other, SparseTensor):
        rows = input.reshape(-1, input.shape[-1])
        return mm(rows, other).reshape(*input.shape[:-1], other.shape[1])
    raise RuntimeError(f"matmul: sparse operands of shapes {list(input.shape)} and "
                       f"{list(other.shape)} cannot be multiplied (expand is unsupported for "
                       "Sparse tensors)")


def addmm(input: Any, mat1: Any, mat2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * (mat1 @ mat2)."""
    if not (isinstance(mat1, SparseTensor) or isinstance(mat2, SparseTensor)):
        raise RuntimeError("addmm: expected a sparse operand beside a sparse input; the product of "
                           "dense matrices is dense")
    product = mm(mat1, mat2)
    if isinstance(input, SparseTensor) and not isinstance(product, SparseTensor):
        raise RuntimeError("addmm_sparse_dense: expected strided result tensor, got tensor with "
                           f"layout {input.layout.title}")
    if alpha != 1:
        product = product * alpha
    if not isinstance(input, SparseTensor) and beta == 0:
        return to_dense(product) if isinstance(product, SparseTensor) else product
    scaled = input if beta == 1 else input * beta
    if isinstance(product, SparseTensor):
        return add(scaled, product)
    return ops.add(product, scaled)


def addmv(input: Any, mat: Any, vec: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * (mat @ vec)."""
    product = mv(mat, vec)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else ops.add(product, input if beta == 1 else input * beta)


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """input @ weight.T + bias with a sparse weight (out, in)."""
    if isinstance(input, SparseTensor):
        result = mm(input, t(weight) if isinstance(weight, SparseTensor) else ops.t(weight))
    else:
        rows = input.reshape(-1, input.shape[-1])
        result = ops.t(mm(weight, ops.t(rows))).reshape(*input.shape[:-1], weight.shape[0])
    return result if bias is None else ops.add(result, bias)


# ---------------------------------------------------------------------- functions of torch.sparse
def _need_sparse(name: str, place: int, tensor: Any) -> None:
    if not isinstance(tensor, SparseTensor):
        raise RuntimeError(f"{name}: argument #{place} must be a sparse tensor, got layout "
                           f"{tensor.layout!r}")


def sampled_addmm(input: SparseTensor, mat1: Any, mat2: Any, beta: Any = 1, alpha: Any = 1
                  ) -> SparseTensor:
    """beta * input + alpha * (mat1 @ mat2) at the entries of `input`, which is compressed."""
    if not isinstance(input, SparseTensor) or input.layout is not sparse_csr:
        raise RuntimeError("sampled_addmm: Expected self to be torch.sparse_csr, but got "
                           f"{input.layout!r}")
    for name, mat in (("mat1", mat1), ("mat2", mat2)):
        if isinstance(mat, SparseTensor) or mat.ndim < 2:
            raise RuntimeError(f"sampled_addmm: Expected {name} to be a strided matrix, got "
                               f"{mat.ndim} dimensions and layout {mat.layout!r}")
    if mat1.dtype is not input.dtype or mat2.dtype is not input.dtype:
        raise RuntimeError("sampled_addmm: Expected mat1, mat2 and self to have the same dtype, "
                           f"got {mat1.dtype!r}, {mat2.dtype!r} and {input.dtype!r}")
    if mat1.shape[-1] != mat2.shape[-2]:
        raise RuntimeError("sampled_addmm: mat1 and mat2 shapes cannot be multiplied "
                           f"({mat1.shape[-2]}x{mat1.shape[-1]} and "
                           f"{mat2.shape[-2]}x{mat2.shape[-1]})")
    if tuple(input.shape[-2:]) != (mat1.shape[-2], mat2.shape[-1]):
        raise RuntimeError(f"sampled_addmm: self of shape {list(input.shape)} does not fit the "
                           f"product of {list(mat1.shape)} and {list(mat2.shape)}")
    pattern = input._pattern
    if pattern.batch:
        product = values_at(ops.matmul(mat1, mat2), pattern)
    else:
        row, column = pattern.coordinates()
        left = ops.index_select(mat1, 0, row)
        right = ops.index_select(ops.transpose(mat2, 0, 1), 0, column)
        product = ops.sum(ops.mul(left, right), 1)
    product = product if alpha == 1 else product * alpha
    values = input._elements
    if beta != 0:
        product = ops.add(product, values if beta == 1 else values * beta)
    made = assemble(pattern, product)
    return made if not (input._rg and is_recording()) else _sampled(made, input, beta)


class _SampledNode(PartsNode):
    """Of `sampled_addmm`: the gradient of `input` is that of the result as it is, dense if that is;
    the product's is read at the entries."""

    __slots__ = ("beta",)

    def apply(self, grads: list) -> tuple:
        grad = grads[0]
        scaled = grad if self.beta == 1 else grad * self.beta.conjugate()
        return scaled, self.rule(grad, self.pattern) if self.next_edges[1] is not None else None


_SAMPLED = node_type("SparseSampledAddmmBackward0", _SampledNode)


def _sampled(made: SparseTensor, input: SparseTensor, beta: Any) -> SparseTensor:
    """`made` with a history that leads to `input`, and to the product if that has one."""
    edge = None if made._grad_fn is None else made._grad_fn.next_edges[0]
    node = _SAMPLED((tape.edge_of(input), edge), (made._meta,))
    node.pattern, node.rule, node.beta = made._pattern, values_at, beta
    made._grad_fn, made._rg = node, True
    return made


_REDUCTIONS = {"sum": "add", "mean": "mean", "amax": "amax", "amin": "amin"}


def mm_reduce(mat1: Any, mat2: Any, reduce: str) -> Any:
    """The product of a sparse matrix and a dense one with another way to join the terms."""
    if reduce not in _REDUCTIONS:
        raise RuntimeError("_sparse_mm: reduce argument must be one of sum, mean, amax, amin, got "
                           f"{reduce!r}")
    _check("sparse.mm", mat1, mat2)
    _need_sparse("sparse.mm", 1, mat1)
    if mat1.layout is not sparse_csr:
        raise NotImplementedError("Could not run 'aten::_sparse_mm_reduce_impl' with arguments "
                                  "from the 'SparseCPU' backend: convert with .to_sparse_csr() "
                                  "first.")
    if reduce == "sum":
        return mm(mat1, mat2)
    pattern = mat1._pattern
    row, column = pattern.coordinates()
    terms = ops.mul(ops.index_select(mat2, 0, column), ops.unsqueeze(values_of(mat1), 1))
    nothing = ops.mul(mat2[:1], 0).detach() if mat2.shape[0] else mat2.detach()
    result = nothing.new_zeros((mat1.shape[0], mat2.shape[1]))
    return ops.index_reduce(result, 0, row, terms, _REDUCTIONS[reduce], include_self=False)


def smm(input: SparseTensor, mat2: Any) -> SparseTensor:
    """A sparse matrix times a dense one, as a sparse matrix: rows without entries have none.

    >>> torch.smm(torch.eye(2).to_sparse(), torch.tensor([[1., 2.], [3., 4.]])).to_dense()
    tensor([[1., 2.],
            [3., 4.]])
    """
    _need_sparse("smm", 1, input)
    _check("smm", input, mat2)
    return _full_rows(input, mat2)


def hspmm(mat1: SparseTensor, mat2: Any, *, out: SparseTensor | None = None) -> SparseTensor:
    """A sparse matrix times a dense one, with a sparse and a dense dimension.

    >>> torch.hspmm(torch.eye(2).to_sparse(), torch.tensor([[1., 2.], [3., 4.]])).to_dense()
    tensor([[1., 2.],
            [3., 4.]])
    """
    _need_sparse("hspmm", 1, mat1)
    _check("hspmm", mat1, mat2)
    rows, product = _rows_with_entries(mat1, mat2)
    shape = (mat1.shape[0], mat2.shape[1])
    made = assemble(Coo(ops.unsqueeze(rows, 0), shape, True), product)
    return made if out is None else write_out(out, made)


def _rows_with_entries(sparse: SparseTensor, dense: Any) -> tuple[Any, Any]:
    """(the rows of a sparse matrix that have entries, these rows of the product)."""
    from flambeau.tensor.compress import nonzero_positions

    offsets, columns, values = as_csr(sparse)
    rows = nonzero_positions(ops.ne(offsets[1:], offsets[:-1]))
    product = ops._segment_sum(offsets, columns, dense, values)
    return rows, ops.index_select(product, 0, rows)


def _full_rows(sparse: SparseTensor, dense: Any) -> SparseTensor:
    from flambeau.tensor.creation import arange

    rows, product = _rows_with_entries(sparse, dense)
    count, width = product.shape
    row = ops.expand(ops.unsqueeze(rows, 1), (count, width)).reshape(-1)
    column = ops.expand(arange(width), (count, width)).reshape(-1)
    shape = (sparse.shape[0], width)
    return assemble(Coo(ops.stack((row, column), 0), shape, True), product.reshape(-1))


def sspaddmm(input: SparseTensor, mat1: SparseTensor, mat2: Any, *, beta: Any = 1,
             alpha: Any = 1, out: SparseTensor | None = None) -> SparseTensor:
    """beta * input + alpha * (mat1 @ mat2) with sparse input and mat1, as a sparse matrix.

    >>> s = torch.eye(2).to_sparse()
    >>> torch.sspaddmm(s, s, torch.tensor([[1., 2.], [3., 4.]])).to_dense()
    tensor([[2., 2.],
            [3., 5.]])
    """
    _need_sparse("sspaddmm", 0, input)
    _need_sparse("sspaddmm", 1, mat1)
    _check("sspaddmm", mat1, mat2)
    product = _full_rows(mat1, mat2)
    scaled = input if beta == 1 else input * beta
    both = Coo(ops.cat((scaled._pattern.indices[0], product._pattern.indices[0]), 1),
               product.shape)
    values = values_of(product) if alpha == 1 else values_of(product) * alpha
    made = assemble(both, ops.cat((values_of(scaled), values), 0))
    return made if out is None else write_out(out, made)


