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
    """The inverse of square matrices (..., n, n): `linalg.inv`.

    >>> torch.inverse(torch.tensor([[2., 0.], [0., 4.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    return systems.inv(input, out=out)


def triangular_solve(input: Any, A: Any, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False, *, out: Any = None) -> Any:
    """(solution of A X = input, or of A^T X = input; a copy of A). `linalg.solve_triangular` is
    newer.

    >>> a = torch.tensor([[2., 1.], [0., 3.]])
    >>> torch.triangular_solve(torch.tensor([[3.], [3.]]), a).solution
    tensor([[1.],
            [1.]])
    """
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
    """`linalg.cholesky` under its old name: `torch.cholesky`.

    >>> torch.cholesky(torch.tensor([[4., 2.], [2., 5.]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    need_square("cholesky", input)
    return written("cholesky", ops._cholesky(input, bool(upper), "cholesky")[0], out)


def lu(A: Any, pivot: bool = True, get_infos: bool = False, out: Any = None) -> Any:
    """(LU, pivots), and info if `get_infos`: `torch.lu`, whose newer name is `linalg.lu_factor`.

    >>> factors, pivots = torch.lu(torch.tensor([[0., 2.], [3., 4.]]))
    >>> factors
    tensor([[3., 4.],
            [0., 2.]])
    >>> pivots
    tensor([2, 2], dtype=torch.int32)
    """
    need_matrices("torch.lu", A)
    need_pivot("linalg.lu_factor", pivot)
    found = ops._lu_factor(A)
    if get_infos:
        return named("_lu_with_info", ("LU", "pivots", "info"), found, out)
    if out is None:
        return tuple(found)[:2]
    return tuple(written("torch.lu", x, o) for x, o in zip(found, out, strict=False))


def lu_solve(input: Any, LU_data: Any, LU_pivots: Any, *, out: Any = None) -> Any:
    """`linalg.lu_solve` under its old name and order: `torch.lu_solve`.

    >>> factors, pivots = torch.linalg.lu_factor(torch.tensor([[0., 2.], [3., 4.]]))
    >>> torch.lu_solve(torch.tensor([[2.], [7.]]), factors, pivots)
    tensor([[1.],
            [1.]])
    """
    return systems.lu_solve(LU_data, LU_pivots, input, out=out)


# ---------------------------------------------------------------------- others
def det(input: Any) -> Any:
    """The determinants of square matrices: `linalg.det`.

    >>> torch.det(torch.tensor([[1., 2.], [3., 4.]]))
    tensor(-2.)
    """
    return spectral.det(input)


def slogdet(input: Any, *, out: Any = None) -> Any:
    """`linalg.slogdet` under its old name: `torch.slogdet`.

    >>> torch.slogdet(torch.tensor([[0., 1.], [1., 0.]]))
    torch.return_types.slogdet(
    sign=tensor(-1.),
    logabsdet=tensor(0.))
    """
    need_square("linalg.slogdet", input)
    return named("slogdet", ("sign", "logabsdet"), ops._slogdet(input)[:2], out)


def qr(input: Any, some: bool = True, *, out: Any = None) -> Any:
    """(Q, R): `torch.qr`, whose newer name is `linalg.qr`; the mode is "reduced" if `some`, else
    "complete".

    >>> Q, R = torch.qr(torch.tensor([[3., 1.], [4., 2.]]))
    >>> Q @ R
    tensor([[3.0000, 1.0000],
            [4.0000, 2.0000]])
    """
    need_matrices("linalg.qr", input)
    return named("qr", ("Q", "R"), ops._qr(input, not some), out)


def svd(input: Any, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> Any:
    """(U, S, V), not V^H: `torch.svd`, whose newer name is `linalg.svd`. Without `compute_uv` U and
    V are zeros.

    >>> U, S, V = torch.svd(torch.tensor([[3., 0.], [0., 4.]]))
    >>> S
    tensor([4., 3.])
    """
    need_matrices("linalg.svd", input)
    if compute_uv:
        u, s, vh = ops._svd(input, not some)
        v = adjoint(vh)
    else:
        s = spectral.singular_values(input)
        lead, (m, n) = input.shape[:-2], input.shape[-2:]
        u, v = (creation.zeros((*lead, size, size), dtype=input.dtype, device=input.device)
                for size in (m, n))
    return named("svd", ("U", "S", "V"), (u, s, v), out)


def pinverse(input: Any, rcond: Any = 1e-15) -> Any:
    """`linalg.pinv` under its old name.

    >>> torch.pinverse(torch.tensor([[2., 0.], [0., 0.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]])
    """
    return spectral.pinv(input, rcond)


def matrix_power(input: Any, n: int, *, out: Any = None) -> Any:
    """`linalg.matrix_power`: `torch.matrix_power`.

    >>> torch.matrix_power(torch.tensor([[1., 1.], [1., 0.]]), 10)
    tensor([[89., 55.],
            [55., 34.]])
    """
    return spectral.matrix_power(input, n, out=out)


def matrix_exp(input: Any) -> Any:
    """The exponential of square matrices: `linalg.matrix_exp`.

    >>> torch.matrix_exp(torch.tensor([[0., 1.], [0., 0.]]))
    tensor([[1., 1.],
            [0., 1.]])
    """
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
