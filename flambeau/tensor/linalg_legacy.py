"""Linear algebra under its older names and signatures: `torch.svd`, `torch.lu`, `torch.qr` ...

They are what PyTorch had before `torch.linalg`, and what `Tensor` has as methods.
"""

from __future__ import annotations

from typing import Any

from flambeau.tensor import creation
from flambeau.tensor import linalg_spectral as spectral
from flambeau.tensor import linalg_systems as systems
from flambeau.tensor.functions import ops
from flambeau.tensor.linalg_checks import (
    adjoint,
    batch_of,
    named,
    need_matrices,
    need_pivot,
    need_same_dtype,
    need_square,
    written,
)

__all__ = ["METHODS", "attach", "cholesky", "det", "inverse", "lu", "lu_solve", "matrix_exp",
           "matrix_power", "pinverse", "qr", "slogdet", "svd", "triangular_solve"]


# ---------------------------------------------------------------------- systems
def inverse(input: Any, *, out: Any = None) -> Any:
    """The inverse of square matrices (..., n, n): `linalg.inv`."""
    return systems.inv(input, out=out)


def triangular_solve(input: Any, A: Any, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False, *, out: Any = None) -> Any:
    """(solution of A X = input, or of A^T X = input; a copy of A). `linalg.solve_triangular` is
    newer."""
    b = input
    need_square("triangular_solve", A)
    need_same_dtype("triangular_solve", A, b, ("A", "b"))
    if b.ndim < 2 or A.shape[-1] != b.shape[-2]:
        raise RuntimeError("Incompatible matrix sizes for triangular_solve: each A matrix is "
                           f"{A.shape[-1]} by {A.shape[-1]} but each b matrix is "
                           f"{' by '.join(map(str, b.shape[-2:]))}")
    a = A.transpose(-2, -1) if transpose else A
    x = ops._solve_triangular(a, b, bool(upper) != bool(transpose), True, bool(unitriangular))
    lead = batch_of(A, b)
    copy = A.expand(*lead, *A.shape[-2:]).clone()
    return named("triangular_solve", ("solution", "cloned_coefficient"), (x, copy), out)


def cholesky(input: Any, upper: bool = False, *, out: Any = None) -> Any:
    """`linalg.cholesky` under its old name: `torch.cholesky`."""
    need_square("cholesky", input)
    return written("cholesky", ops._cholesky(input, bool(upper), "cholesky")[0], out)


def lu(A: Any, pivot: bool = True, get_infos: bool = False, out: Any = None) -> Any:
    """(LU, pivots), and info if `get_infos`: `torch.lu`, whose newer name is `linalg.lu_factor`."""
    need_matrices("torch.lu", A)
    need_pivot("linalg.lu_factor", pivot)
    found = ops._lu_factor(A)
    if get_infos:
        return named("_lu_with_info", ("LU", "pivots", "info"), found, out)
    if out is None:
        return tuple(found)[:2]
    return tuple(written("torch.lu", x, o) for x, o in zip(found, out, strict=False))


def lu_solve(input: Any, LU_data: Any, LU_pivots: Any, *, out: Any = None) -> Any:
    """`linalg.lu_solve` under its old name and order: `torch.lu_solve`."""
    return systems.lu_solve(LU_data, LU_pivots, input, out=out)


# ---------------------------------------------------------------------- others
def det(input: Any) -> Any:
    """The determinants of square matrices: `linalg.det`."""
    return spectral.det(input)


def slogdet(input: Any, *, out: Any = None) -> Any:
    """`linalg.slogdet` under its old name: `torch.slogdet`."""
    need_square("linalg.slogdet", input)
    return named("slogdet", ("sign", "logabsdet"), ops._slogdet(input)[:2], out)


def qr(input: Any, some: bool = True, *, out: Any = None) -> Any:
    """(Q, R): `torch.qr`, whose newer name is `linalg.qr`; the mode is "reduced" if `some`, else
    "complete"."""
    need_matrices("linalg.qr", input)
    return named("qr", ("Q", "R"), ops._qr(input, not some), out)


def svd(input: Any, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> Any:
    """(U, S, V), not V^H: `torch.svd`, whose newer name is `linalg.svd`. Without `compute_uv` U and
    V are zeros."""
    need_matrices("linalg.svd", input)
    if compute_uv:
        u, s, vh = ops._svd(input, not some)
        v = adjoint(vh)
    else:
        s = spectral.singular_values(input)
        lead, (m, n) = input.shape[:-2], input.shape[-2:]
        u, v = (creation.zeros((*lead, size, size), dtype=input.dtype) for size in (m, n))
    return named("svd", ("U", "S", "V"), (u, s, v), out)


def pinverse(input: Any, rcond: Any = 1e-15) -> Any:
    """`linalg.pinv` under its old name."""
    return spectral.pinv(input, rcond)


def matrix_power(input: Any, n: int, *, out: Any = None) -> Any:
    """`linalg.matrix_power`: `torch.matrix_power`."""
    return spectral.matrix_power(input, n, out=out)


def matrix_exp(input: Any) -> Any:
    """The exponential of square matrices: `linalg.matrix_exp`."""
    return spectral.matrix_exp(input)


METHODS = {
    **dict.fromkeys(("cholesky_inverse", "cholesky_solve"), systems),
    **dict.fromkeys(("geqrf", "logdet", "orgqr", "ormqr"), spectral),
}
"""Methods of `Tensor` that have the signature of the newer function -> where it is."""


def attach(cls: type) -> None:
    """Give `cls` (Tensor) its methods of linear algebra."""
    for name, home in METHODS.items():
        setattr(cls, name, getattr(home, name))
    for function in (cholesky, det, inverse, lu, lu_solve, matrix_exp, matrix_power, pinverse, qr,
                     slogdet, svd, triangular_solve):
        setattr(cls, function.__name__, function)
