"""`torch.sparse`: functions of sparse tensors. The engine is in flambeau/tensor/sparse."""

from __future__ import annotations

from typing import Any

import flambeau
from flambeau.sparse.checking import as_sparse_gradcheck, check_sparse_tensor_invariants
from flambeau.sparse.diagonals import spdiags
from flambeau.tensor.sparse import products as _products
from flambeau.tensor.sparse import reductions as _reductions
from flambeau.tensor.sparse.products import sampled_addmm as _sampled_addmm
from flambeau.tensor.sparse.tensor import SparseTensor

__all__ = ["addmm", "check_sparse_tensor_invariants", "mm", "sum", "softmax", "log_softmax",
           "sampled_addmm", "spdiags", "as_sparse_gradcheck", "to_sparse_semi_structured"]


def mm(mat1: Any, mat2: Any, reduce: str | None = None, *, out: Any = None) -> Any:
    """The product of two matrices; sparse if both are.

    Args:
        reduce: how the terms of an element are joined, for a CSR and a dense matrix: "sum",
            "mean", "amax" or "amin".

    >>> torch.sparse.mm(torch.tensor([[0., 2.], [3., 0.]]).to_sparse(), torch.tensor([[1.], [1.]]))
    tensor([[2.],
            [3.]])
    """
    if reduce is not None:
        return _products.mm_reduce(mat1, mat2, reduce)
    return flambeau.mm(mat1, mat2) if out is None else flambeau.mm(mat1, mat2, out=out)


def addmm(mat: Any, mat1: Any, mat2: Any, *, beta: Any = 1.0, alpha: Any = 1.0) -> Any:
    """beta * mat + alpha * (mat1 @ mat2) with a sparse mat1.

    >>> torch.sparse.addmm(torch.ones(2, 1), torch.eye(2).to_sparse(), torch.tensor([[5.], [6.]]))
    tensor([[6.],
            [7.]])
    """
    return flambeau.addmm(mat, mat1, mat2, beta=beta, alpha=alpha)


def sum(input: Any, dim: Any = None, dtype: Any = None) -> Any:
    """The sum over `dim` (all dimensions by default); sparse as long as a sparse dimension is
    left.

    >>> torch.sparse.sum(torch.tensor([[0., 2.], [3., 0.]]).to_sparse(), dim=0).to_dense()
    tensor([3., 2.])
    """
    if not isinstance(input, SparseTensor):
        raise NotImplementedError("sparse.sum: expected a sparse tensor, got layout "
                                  f"{input.layout!r}; use torch.sum")
    dims = tuple(dim) if isinstance(dim, (tuple, list)) else dim
    return _reductions.sum_(input, dims, False, dtype)


def softmax(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """softmax along `dim` over the stored elements: those that are not stored count as -inf.

    >>> torch.sparse.softmax(torch.tensor([[0., 2.], [3., 3.]]).to_sparse(), dim=1).to_dense()
    tensor([[0.0000, 1.0000],
            [0.5000, 0.5000]])
    """
    return _reductions.softmax(input, dim, dtype)


def log_softmax(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """The logarithm of `softmax`.

    >>> torch.sparse.log_softmax(torch.tensor([[0., 2.], [3., 3.]]).to_sparse(), dim=1).to_dense()
    tensor([[ 0.0000,  0.0000],
            [-0.6931, -0.6931]])
    """
    return _reductions.log_softmax(input, dim, dtype)


def sampled_addmm(input: Any, mat1: Any, mat2: Any, *, beta: Any = 1.0, alpha: Any = 1.0,
                  out: Any = None) -> Any:
    """beta * input + alpha * (mat1 @ mat2) at the entries of `input` (CSR) only.

    >>> a = torch.eye(2).to_sparse_csr()
    >>> torch.sparse.sampled_addmm(a, torch.ones(2, 2), torch.ones(2, 2)).to_dense()
    tensor([[3., 0.],
            [0., 3.]])
    """
    made = _sampled_addmm(input, mat1, mat2, beta, alpha)
    if out is None:
        return made
    if out.layout is not made.layout or out.shape != made.shape:
        raise RuntimeError(f"sampled_addmm: expected out of layout {made.layout!r} and shape "
                           f"{list(made.shape)}, got {out.layout!r} and {list(out.shape)}")
    out._take_parts(made.detach())
    return out


def to_sparse_semi_structured(original_tensor: Any, transposed: bool = False) -> Any:
    """Raises: 2:4 sparsity is a format of some GPUs' matrix units."""
    raise NotImplementedError("to_sparse_semi_structured: 2:4 sparsity is computed by GPUs only; "
                              "use to_sparse_csr(), or the dense tensor")


_LEGACY = {"BFloat16Tensor": "bfloat16", "ByteTensor": "uint8", "CharTensor": "int8",
           "DoubleTensor": "float64", "FloatTensor": "float32", "HalfTensor": "float16",
           "IntTensor": "int32", "LongTensor": "int64", "ShortTensor": "int16"}


def __getattr__(name: str) -> Any:
    """The legacy types `torch.sparse.FloatTensor` and the like."""
    if name in _LEGACY:
        from flambeau.sparse.legacy import legacy_type

        made = legacy_type(name, getattr(flambeau, _LEGACY[name]))
        globals()[name] = made
        return made
    raise AttributeError(f"module 'flambeau.sparse' has no attribute {name!r}")
