"""Norms of vectors and matrices: which one the arguments ask for."""

from __future__ import annotations

import math
from typing import Any

from flambeau.core.arguments import need_tensor
from flambeau.tensor import creation, linalg_spectral
from flambeau.tensor.functions import ops
from flambeau.tensor.linalg_checks import need_matrices, written
from flambeau.tensor.linalg_systems import inv_ex

__all__ = ["norm", "linalg_norm", "vector_norm", "matrix_norm", "cond"]


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None,
         dtype: Any = None) -> Any:
    """The vector norm of order p over dim (all elements by default); "fro" is 2, "nuc" the sum of
    the singular values of matrices.

    >>> torch.norm(torch.tensor([3., 4.]))
    tensor(5.)
    """
    dim = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    if p == "nuc":
        dim = (-2, -1) if dim is None else (dim,) if isinstance(dim, int) else dim
        return matrix_norm(input, "nuc", dim, keepdim, dtype=dtype, out=out)
    if isinstance(p, str) and p != "fro":
        raise RuntimeError(f"only valid values for p are 'fro', 'nuc' and numbers, got {p!r}")
    order = 2.0 if p in ("fro", None) else float(p)
    return ops.vector_norm(input, order, dim, keepdim, dtype=dtype, out=out)


def norm_method(self: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False,
                dtype: Any = None) -> Any:
    """The norm of order p over dim, as `torch.norm`."""
    return norm(self, p, dim, keepdim, dtype=dtype)


def linalg_norm(input: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *,
                out: Any = None, dtype: Any = None) -> Any:
    """The norm of order `ord` over dim: of vectors (one dimension, or all elements if neither ord
    nor dim is given), of matrices if dim names two dimensions or input is a matrix.

    >>> torch.linalg.norm(torch.tensor([3., -4.]), ord=1)
    tensor(7.)
    >>> torch.linalg.norm(torch.tensor([[3., 0.], [0., 4.]]))
    tensor(5.)
    """
    need_tensor("linalg.norm", "input", input)
    dim = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    if dim is not None and not isinstance(dim, int) and len(dim) not in (1, 2):
        raise RuntimeError("linalg.norm: If dim is specified, it must be of length 1 or 2. Got "
                           f"{list(dim)}")
    if dim is None and ord is not None and input.ndim not in (1, 2):
        raise RuntimeError("linalg.norm: If dim is not specified but ord is, the input must be 1D "
                           f"or 2D. Got {input.ndim}D.")
    pair = dim if isinstance(dim, tuple) and len(dim) == 2 else (
        (-2, -1) if dim is None and input.ndim == 2 else None)
    if ord is not None and pair is not None:
        return matrix_norm(input, ord, pair, keepdim, dtype=dtype, out=out)
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.norm: Order '{ord}' is of matrices: the input has {input.ndim} "
                           "dimensions and dim does not name two")
    return vector_norm(input, 2.0 if ord is None else ord, dim, keepdim, dtype=dtype, out=out)


def vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
                out: Any = None) -> Any:
    """The vector norm (sum |x|^ord)^(1/ord) over dim (all elements by default).

    >>> torch.linalg.vector_norm(torch.tensor([3., -4.]))
    tensor(5.)
    >>> torch.linalg.vector_norm(torch.tensor([3., -4.]), ord=float("inf"))
    tensor(4.)
    """
    return ops.vector_norm(x, float(ord), dim, keepdim, dtype=dtype, out=out)


def matrix_norm(A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *,
                dtype: Any = None, out: Any = None) -> Any:
    """The norm of matrices, which lie in the two dimensions `dim`: "fro", 1, -1, inf, -inf; "nuc",
    2 and -2 need singular values.

    >>> torch.linalg.matrix_norm(torch.tensor([[3., 0.], [0., 4.]]), ord=2)
    tensor(4.)
    """
    need_tensor("linalg.matrix_norm", "A", A)
    dim = tuple(dim)
    if A.ndim < 2:
        raise RuntimeError("linalg.matrix_norm: The input tensor A must have at least 2 "
                           "dimensions.")
    if len(dim) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {list(dim)}")
    if dim[0] % A.ndim == dim[1] % A.ndim:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different. Got ({dim[0]}, {dim[1]})")
    if ord == "fro":
        return vector_norm(A, 2.0, dim, keepdim, dtype=dtype, out=out)
    if ord in ("nuc", 2, -2):
        return written("linalg.matrix_norm", _spectral_norm(A, ord, dim, keepdim, dtype), out)
    if ord not in (1, -1, float("inf"), -float("inf")):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    return ops._matrix_norm(A, float(ord), dim, keepdim, dtype=dtype, out=out)


def _spectral_norm(A: Any, ord: Any, dim: tuple, keepdim: bool, dtype: Any) -> Any:
    """The sum (nuc), the largest (2) or the smallest (-2) of singular values."""
    dim = tuple(d % A.ndim for d in dim)
    A = A if dtype is None else A.to(dtype)
    values = linalg_spectral.svdvals(A.movedim(dim, (-2, -1)))
    if ord == "nuc" or ord == 2 and not values.shape[-1]:
        found = values.sum(-1)
    else:
        found = values.amax(-1) if ord == 2 else values.amin(-1)
    if keepdim:
        for d in sorted(dim):
            found = found.unsqueeze(d)
    return found


def cond(A: Any, p: Any = None, *, out: Any = None) -> Any:
    """The condition number of matrices: the norm of order p of A times that of its inverse (inf
    where there is none); by default, and for 2 and -2, from singular values.

    >>> torch.linalg.cond(torch.tensor([[2., 0.], [0., 8.]]))
    tensor(4.)
    """
    need_matrices("linalg.cond", A)
    if p in (None, 2, -2):
        if not A.numel():
            return written("linalg.cond", _norms_of_nothing(A), out)
        s = linalg_spectral.singular_values(A)
        ratio = s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
        return written("linalg.cond", ratio, out)
    if p not in ("fro", "nuc", 1, -1, math.inf, -math.inf):
        raise RuntimeError(f"linalg.cond got an invalid norm type: {p}")
    if not A.numel():
        return written("linalg.cond", _norms_of_nothing(A), out)
    if A.shape[-1] != A.shape[-2]:
        raise RuntimeError(f"linalg.cond: with norm type p={p!r} A must be batches of square "
                           f"matrices, but they are {A.shape[-2]} by {A.shape[-1]} matrices")
    inverse, info = inv_ex(A)
    product = matrix_norm(A, p) * matrix_norm(inverse, p)
    return written("linalg.cond", product.masked_fill(info > 0, math.inf), out)


def _norms_of_nothing(A: Any) -> Any:
    return creation.zeros(A.shape[:-2], dtype=A.dtype.to_real(), device=A.device)
