"""Linear algebra: `torch.linalg`. The functions are in flambeau/tensor/linalg*.py, what they are
made of in the op table."""

from __future__ import annotations

from typing import Any

from flambeau.core.failures import LinAlgError
from flambeau.tensor import public
from flambeau.tensor.functions import ops
from flambeau.tensor.linalg_spectral import (
    det,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    householder_product,
    lstsq,
    matrix_exp,
    matrix_power,
    matrix_rank,
    pinv,
    qr,
    slogdet,
    svd,
    svdvals,
)
from flambeau.tensor.linalg_systems import (
    cholesky,
    cholesky_ex,
    inv,
    inv_ex,
    ldl_factor,
    ldl_factor_ex,
    ldl_solve,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    solve,
    solve_ex,
    solve_triangular,
    tensorinv,
    tensorsolve,
)
from flambeau.tensor.norms import cond, matrix_norm, vector_norm
from flambeau.tensor.norms import linalg_norm as norm
from flambeau.tensor.overriding import fit_doors
from flambeau.tensor.vandermonde import linalg_vander as vander

__all__ = ["LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig",
           "eigh", "eigvals", "eigvalsh", "householder_product", "inv", "inv_ex", "ldl_factor",
           "ldl_factor_ex", "ldl_solve", "lstsq", "lu", "lu_factor", "lu_factor_ex", "lu_solve",
           "matmul", "matrix_exp", "matrix_norm", "matrix_power", "matrix_rank", "multi_dot",
           "norm", "pinv", "qr", "slogdet", "solve", "solve_ex", "solve_triangular", "svd",
           "svdvals", "tensorinv", "tensorsolve", "vander", "vecdot", "vector_norm"]


def cross(input: Any, other: Any, *, dim: int = -1, out: Any = None) -> Any:
    """The cross product of vectors of three elements along dim.

    >>> torch.linalg.cross(torch.tensor([1., 0., 0.]), torch.tensor([0., 1., 0.]))
    tensor([0., 0., 1.])
    """
    return ops.cross(input, other, dim, out=out)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """The diagonals of matrices, which lie in dimensions dim1 and dim2.

    >>> torch.linalg.diagonal(torch.arange(8).reshape(2, 2, 2))
    tensor([[0, 3],
            [4, 7]])
    """
    return ops.diagonal(A, offset, dim1, dim2)


def __getattr__(name: str) -> Any:
    if name == "matmul":
        return ops.matmul
    found = public.lookup("linalg", name)
    if found is None:
        raise AttributeError(f"module 'flambeau.linalg' has no attribute {name!r}: not implemented "
                             "yet, or no such name in PyTorch")
    return found


fit_doors(globals(), __all__)
