"""Rules of reductions, and the softmax over entries."""

from __future__ import annotations

from typing import Any

from flambeau.core import dtypes
from flambeau.core.shapes import normalize_dim
from flambeau.tensor.creation import full, zeros
from flambeau.tensor.formats import sparse_coo
from flambeau.tensor.functions import ops
from flambeau.tensor.sparse.convert import as_coo, as_layout
from flambeau.tensor.sparse.patterns import Coo, joined_keys
from flambeau.tensor.sparse.tensor import SparseTensor, assemble, coalesced, values_of

__all__ = ["any_", "log_softmax", "norm", "softmax", "sum_"]


def sum_(input: SparseTensor, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The sum over some dimensions: dense if no sparse dimension is left, else sparse."""
    values, rank = values_of(input), input.ndim
    dims = range(rank) if dim is None or dim == () else dim if isinstance(dim, tuple) else (dim,)
    dims = sorted({normalize_dim(d, rank) for d in dims})
    if len(dims) == rank and not keepdim:
        return ops.sum(values, dtype=dtype)
    if input.layout is not sparse_coo:
        if not keepdim:
            raise RuntimeError("reduction operations on CSR tensors with keepdim=False is "
                               "unsupported")
        total = sum_(as_coo(input), tuple(dims), True, dtype)
        return as_layout(total, input.layout)
    pattern = input._pattern
    sparse = pattern.sparse_dim
    inner = tuple(d - sparse + 1 for d in dims if d >= sparse)
    if inner:
        values = ops.sum(values, inner, keepdim, dtype=dtype)
    elif dtype is not None:
        values = values.to(dtype)
    elif values.dtype.is_integral:
        values = values.to(dtypes.int64)
    gone = [d for d in dims if d < sparse]
    if len(gone) == sparse and not keepdim:
        return ops.sum(values, 0)
    shape = [1 if d in dims else size for d, size in enumerate(pattern.shape)]
    left = [d for d in range(sparse) if keepdim or d not in gone]
    if not keepdim:
        shape = [size for d, size in enumerate(pattern.shape) if d not in dims]
    if not gone:
        return assemble(Coo(pattern.indices[0], shape, pattern.coalesced), values)
    none = zeros(pattern.nnz, dtype=dtypes.int64)
    indices = ops.stack(tuple(none if d in gone else pattern.row(d) for d in left), 0)
    return coalesced(assemble(Coo(indices, shape), values))


def any_(input: SparseTensor, dim: Any = None, keepdim: bool = False) -> Any:
    """Is any stored element not zero?"""
    if dim is not None:
        raise NotImplementedError("any: a sparse tensor can only be reduced over all dimensions; "
                                  "use .to_dense()")
    return ops.any(coalesced(as_coo(input))._elements)


def norm(x: SparseTensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
         ) -> Any:
    """The norm of all elements."""
    dims = () if dim is None else dim if isinstance(dim, tuple) else (dim,)
    if dims and len({d % x.ndim for d in dims}) < x.ndim or keepdim:
        raise RuntimeError("norm_sparse currently only supports full reductions, so 'dim' must "
                           "either be empty or contain all dimensions of the input")
    if ord <= 0:
        raise RuntimeError(f"norm of a sparse tensor needs an order above 0, got {ord}")
    plain = coalesced(x) if x.layout is sparse_coo else x
    return ops.vector_norm(values_of(plain), ord, dtype=dtype)


# ---------------------------------------------------------------------- softmax
def softmax(input: SparseTensor, dim: int, dtype: Any = None) -> SparseTensor:
    """softmax along `dim` over the stored elements: those that are not count as -inf."""
    return _over_entries("softmax", input, dim, dtype)


def log_softmax(input: SparseTensor, dim: int, dtype: Any = None) -> SparseTensor:
    """The logarithm of `softmax`."""
    return _over_entries("log_softmax", input, dim, dtype)


def _over_entries(name: str, input: SparseTensor, dim: int, dtype: Any) -> SparseTensor:
    if not isinstance(input, SparseTensor) or input.layout is not sparse_coo:
        raise NotImplementedError(f"sparse.{name}: expected a COO tensor; convert with "
                                  ".to_sparse_coo()")
    if dtype is not None and dtype is not input.dtype:
        input = input.to(dtype)
    if not input.dtype.is_floating_point:
        raise RuntimeError(f"sparse.{name}: expected floating values, got {input.dtype!r}; pass "
                           "dtype=torch.float32")
    at = normalize_dim(dim, input.ndim)
    plain = coalesced(input)
    pattern, values = plain._pattern, values_of(plain)
    if at >= pattern.sparse_dim:
        found = getattr(ops, name)(values, at - pattern.sparse_dim + 1)
        return assemble(pattern, found)
    if not pattern.nnz:
        return assemble(pattern, values)
    pool, count = pattern.kept(f"pools {at}", lambda: _pools(pattern, at))
    low = full((count, *values.shape[1:]), float("-inf"), dtype=values.dtype)
    top = ops.index_reduce(low, 0, pool, values.detach(), "amax")
    shifted = ops.sub(values, ops.index_select(top, 0, pool))
    total = ops.index_add(ops.mul(top, 0).nan_to_num(), 0, pool, ops.exp(shifted))
    if name == "softmax":
        return assemble(pattern, ops.div(ops.exp(shifted), ops.index_select(total, 0, pool)))
    return assemble(pattern, ops.sub(shifted, ops.index_select(ops.log(total), 0, pool)))


def _pools(pattern: Coo, at: int) -> tuple[Any, int]:
    """(the number of the pool of each entry, how many there are): a pool's entries differ along
    one dimension only."""
    others = [d for d in range(pattern.sparse_dim) if d != at]
    if not others:
        return zeros(pattern.nnz, dtype=dtypes.int64), 1
    rest = ops.stack(tuple(pattern.row(d) for d in others), 0)
    keys = joined_keys(rest, [pattern.shape[d] for d in others])
    order = ops.argsort(keys)
    number = ops.cumsum(ops._new_in_order(keys[order]), 0) - 1
    pool = zeros(pattern.nnz, dtype=dtypes.int64)
    pool[order] = number
    return pool, int(number[-1].item()) + 1
