"""Eigenvalues, singular values, QR, and what follows from them."""

from __future__ import annotations

import math
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.tensor import creation
from flambeau.tensor.functions import ops
from flambeau.tensor.linalg_checks import (
    batch_of,
    differentiated,
    is_vector,
    named,
    need_floats,
    need_matrices,
    need_square,
    written,
)
from flambeau.tensor.linalg_systems import inv
from flambeau.tensor.meta import TensorBase

__all__ = ["det", "eig", "eigh", "eigvals", "eigvalsh", "geqrf", "householder_product",
           "logdet", "lstsq", "matrix_exp", "matrix_power", "matrix_rank", "orgqr", "ormqr", "pinv",
           "qr", "singular_values", "slogdet", "svd", "svdvals"]


# ---------------------------------------------------------------------- determinants
def det(A: Any, *, out: Any = None) -> Any:
    """The determinants of square matrices (..., n, n).

    >>> torch.linalg.det(torch.tensor([[1., 2.], [3., 4.]]))
    tensor(-2.)
    """
    need_square("linalg.det", A)
    return written("linalg.det", ops._det(A)[0], out)


def slogdet(A: Any, *, out: Any = None) -> Any:
    """(sign, logarithm of the absolute value) of the determinants of square matrices.

    >>> torch.linalg.slogdet(torch.tensor([[0., 1.], [1., 0.]]))
    torch.return_types.linalg_slogdet(
    sign=tensor(-1.),
    logabsdet=tensor(0.))
    """
    need_square("linalg.slogdet", A)
    return named("linalg_slogdet", ("sign", "logabsdet"), ops._slogdet(A)[:2], out)


def logdet(input: Any) -> Any:
    """The logarithm of the determinants of square matrices: NaN where they are negative.

    >>> torch.logdet(torch.tensor([[1., 0.], [0., 5.]]))
    tensor(1.6094)
    """
    need_square("logdet", input)
    sign, size = ops._slogdet(input)[:2]
    if sign.is_complex():
        return sign.log() + size
    return ops.where(sign == -1, math.nan, size)


# ---------------------------------------------------------------------- QR
def qr(A: Any, mode: str = "reduced", *, out: Any = None) -> Any:
    """(Q, R) with A = Q R: orthonormal columns, an upper triangle; of matrices (..., m, n).

    Args:
        mode: "reduced": Q (..., m, k) with k = min(m, n); "complete": Q (..., m, m); "r": Q is
            empty.

    >>> Q, R = torch.linalg.qr(torch.tensor([[3., 1.], [4., 2.]]))
    >>> R
    tensor([[-5.0000, -2.2000],
            [ 0.0000,  0.4000]])
    """
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced' "
                           "(default), 'r', or 'complete'")
    need_matrices("linalg.qr", A)
    if mode == "r":
        r = ops._qr(A)[1] if differentiated(A) else ops._qr_r(A)
        found = creation.empty(0, dtype=A.dtype, device=A.device), r
    else:
        found = ops._qr(A, mode == "complete")
    return named("linalg_qr", ("Q", "R"), found, out)


def geqrf(input: Any, *, out: Any = None) -> Any:
    """(a, tau): R on and above the diagonal of a, below it and in tau the reflectors whose product
    is Q: see `linalg.householder_product`.

    >>> a, tau = torch.geqrf(torch.tensor([[3., 1.], [4., 2.]]))
    >>> a.triu()
    tensor([[-5.0000, -2.2000],
            [ 0.0000,  0.4000]])
    """
    need_tensor("geqrf", "input", input)
    if input.dtype.is_integral or input.dtype.is_reduced:
        raise NotImplementedError(f'"geqrf_cpu" not implemented for \'{input.dtype.scalar_name}\'')
    if input.ndim < 2:
        raise RuntimeError("torch.geqrf: input must have at least 2 dimensions.")
    return named("geqrf", ("a", "tau"), ops._geqrf(input), out)


def householder_product(A: Any, tau: Any, *, out: Any = None) -> Any:
    """The first n columns of H_1 H_2 ... H_k, H_i = I - tau_i v_i v_i^H: v_i has 1 in place i, and
    below that column i of A (..., m, n).

    >>> a, tau = torch.geqrf(torch.tensor([[3., 1.], [4., 2.]]))
    >>> torch.linalg.householder_product(a, tau)
    tensor([[-0.6000, -0.8000],
            [-0.8000,  0.6000]])
    """
    name = "torch.linalg.householder_product"
    _need_reflectors(name, A, tau)
    if A.shape[-2] < A.shape[-1]:
        raise RuntimeError(f"{name}: input.shape[-2] must be greater than or equal to "
                           "input.shape[-1]")
    return written(name, ops._householder_product(A, tau), out)


def orgqr(input: Any, input2: Any, *, out: Any = None) -> Any:
    """`linalg.householder_product` under LAPACK's name.

    >>> torch.orgqr(*torch.geqrf(torch.tensor([[3., 1.], [4., 2.]])))
    tensor([[-0.6000, -0.8000],
            [-0.8000,  0.6000]])
    """
    return householder_product(input, input2, out=out)


def _need_reflectors(name: str, A: Any, tau: Any) -> None:
    need_floats(name, A)
    need_tensor(name, "tau", tau)
    if A.ndim < 2:
        raise RuntimeError(f"{name}: input must have at least 2 dimensions.")
    if A.shape[-1] < tau.shape[-1]:
        raise RuntimeError(f"{name}: input.shape[-1] must be greater than or equal to "
                           "tau.shape[-1]")
    if A.ndim - tau.ndim != 1:
        raise RuntimeError(f"{name}: Expected tau to have one dimension less than input, but got "
                           f"tau.ndim equal to {tau.ndim} and input.ndim is equal to {A.ndim}")
    if tuple(tau.shape[:-1]) != tuple(A.shape[:-2]):
        raise RuntimeError(f"{name}: Expected batch dimensions of tau to be equal to "
                           f"input.shape[:-2], but got {list(tau.shape[:-1])}")
    if A.dtype is not tau.dtype:
        raise RuntimeError(f"{name}: tau dtype {tau.dtype.scalar_name} does not match input dtype "
                           f"{A.dtype.scalar_name}")


def ormqr(input: Any, input2: Any, input3: Any, left: bool = True, transpose: bool = False, *,
          out: Any = None) -> Any:
    """Q input3 (input3 Q if not `left`), with the (m, m) product Q of the reflectors that input and
    input2 (tau) describe, or with Q^H if `transpose`.

    >>> a, tau = torch.geqrf(torch.tensor([[3., 1.], [4., 2.]]))
    >>> torch.ormqr(a, tau, torch.eye(2))
    tensor([[-0.6000, -0.8000],
            [-0.8000,  0.6000]])
    """
    tau, other = input2, input3
    name = "torch.ormqr"
    _need_reflectors(name, input, tau)
    need_tensor(name, "other", other)
    if other.ndim < 2:
        raise RuntimeError(f"{name}: other must have at least 2 dimensions.")
    side = -2 if left else -1
    if other.shape[side] < tau.shape[-1]:
        raise RuntimeError(f"{name}: other.shape[{side}] must be greater than or equal to "
                           "tau.shape[-1]")
    if other.shape[side] != input.shape[-2]:
        raise RuntimeError(f"{name}: other.shape[{side}] must be equal to input.shape[-2]")
    if tuple(other.shape[:-2]) != tuple(input.shape[:-2]):
        raise RuntimeError(f"{name}: Expected batch dimensions of other to be equal to "
                           f"input.shape[:-2], but got {list(other.shape[:-2])}")
    if other.dtype is not input.dtype:
        raise RuntimeError(f"{name}: Expected input and other to have the same dtype, but got "
                           f"{input.dtype.scalar_name} and {other.dtype.scalar_name}")
    return written(name, ops._ormqr(input, tau, other, bool(left), bool(transpose)), out)


# ---------------------------------------------------------------------- eigenvalues
def _is_upper(uplo: str) -> bool:
    if not isinstance(uplo, str) or uplo[:1].upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {uplo}")
    return uplo[:1].upper() == "U"


def eigh(A: Any, UPLO: str = "L", *, out: Any = None) -> Any:
    """(eigenvalues, ascending, and orthonormal eigenvectors as columns) of Hermitian matrices, of
    which the lower or upper triangle is read.

    Raises:
        LinAlgError: the iteration does not converge.

    >>> values, vectors = torch.linalg.eigh(torch.tensor([[2., 1.], [1., 2.]]))
    >>> values
    tensor([1., 3.])
    >>> vectors.abs()
    tensor([[0.7071, 0.7071],
            [0.7071, 0.7071]])
    """
    need_square("linalg.eigh", A)
    found = ops._eigh(A, _is_upper(UPLO), "linalg.eigh")
    return named("linalg_eigh", ("eigenvalues", "eigenvectors"), found, out)


def eigvalsh(A: Any, UPLO: str = "L", *, out: Any = None) -> Any:
    """The eigenvalues of Hermitian matrices, ascending.

    >>> torch.linalg.eigvalsh(torch.tensor([[2., 1.], [1., 2.]]))
    tensor([1., 3.])
    """
    need_square("linalg.eigvalsh", A)
    upper = _is_upper(UPLO)
    found = ops._eigh(A, upper)[0] if differentiated(A) else ops._eigvalsh(A, upper)
    return written("linalg.eigvalsh", found, out)


def eig(A: Any, *, out: Any = None) -> Any:
    """(eigenvalues, eigenvectors of length 1 as columns), complex, of square matrices.

    >>> values, vectors = torch.linalg.eig(torch.tensor([[0., -1.], [1., 0.]]))
    >>> values.imag.sort().values
    tensor([-1.,  1.])
    """
    need_square("linalg.eig", A)
    found = ops._eig(A, "torch.linalg.eig")
    return named("linalg_eig", ("eigenvalues", "eigenvectors"), found, out)


def eigvals(A: Any, *, out: Any = None) -> Any:
    """The eigenvalues of square matrices, complex.

    >>> torch.linalg.eigvals(torch.tensor([[2., 1.], [0., 3.]])).real.sort().values
    tensor([2., 3.])
    """
    need_square("linalg.eigvals", A)
    found = ops._eig(A)[0] if differentiated(A) else ops._eigvals(A, "torch.linalg.eigvals")
    return written("linalg.eigvals", found, out)


# ---------------------------------------------------------------------- singular values
def _no_driver(name: str, driver: str | None) -> None:
    if driver is not None:
        raise RuntimeError(f"torch.{name}: keyword argument `driver=` is only supported on CUDA "
                           "inputs with cuSOLVER backend.")


def svd(A: Any, full_matrices: bool = True, *, driver: str | None = None, out: Any = None) -> Any:
    """(U, S, Vh) with A = U diag(S) Vh, S descending, of matrices (..., m, n). U and Vh are square
    with `full_matrices`, else (..., m, k) and (..., k, n) with k = min(m, n).

    Raises:
        LinAlgError: the iteration does not converge.

    >>> U, S, Vh = torch.linalg.svd(torch.tensor([[3., 0.], [0., 4.]]))
    >>> S
    tensor([4., 3.])
    >>> U @ torch.diag(S) @ Vh
    tensor([[3., 0.],
            [0., 4.]])
    """
    need_matrices("linalg.svd", A)
    _no_driver("linalg.svd", driver)
    found = ops._svd(A, bool(full_matrices))
    return named("linalg_svd", ("U", "S", "Vh"), found, out)


def svdvals(A: Any, *, driver: str | None = None, out: Any = None) -> Any:
    """The singular values of matrices, descending.

    >>> torch.linalg.svdvals(torch.tensor([[3., 0.], [0., 4.]]))
    tensor([4., 3.])
    """
    need_matrices("linalg.svdvals", A)
    _no_driver("linalg.svdvals", driver)
    return written("linalg.svdvals", singular_values(A), out)


def singular_values(A: Any) -> Any:
    """Singular values, which have a gradient if somebody asks for one."""
    return ops._svd(A)[1] if differentiated(A) else ops._svdvals(A, "linalg.svd")


def _tolerances(name: str, A: Any, atol: Any, rtol: Any) -> tuple[Any, Any]:
    """(absolute, relative) tolerance as tensors; the default is the precision times the larger
    size, unless an absolute one is given."""
    real = A.dtype.to_real()
    usual = dtypes.finfo(real).eps * max(A.shape[-2:])
    for what, value in (("atol", atol), ("rtol", rtol)):
        if isinstance(value, TensorBase) and value.dtype.is_complex:
            raise RuntimeError(f"{name}: {what} tensor of complex type is not supported.")
    if rtol is None:
        if isinstance(atol, TensorBase):
            rtol = ops.where(atol > 0, 0.0, usual)
        else:
            rtol = 0.0 if atol else usual
    return tuple(_as_tensor(0.0 if value is None else value, real, A.device)
                 for value in (atol, rtol))


def _as_tensor(value: Any, dtype: Any, device: Any) -> Any:
    if isinstance(value, TensorBase):
        return value.to(dtype)
    return creation.tensor(float(value), dtype=dtype, device=device)


def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None,
                rtol: Any = None, out: Any = None) -> Any:
    """How many singular values (with `hermitian` absolute eigenvalues) of matrices are greater than
    max(atol, rtol * the largest one). `tol` is an older name of `atol`.

    >>> torch.linalg.matrix_rank(torch.tensor([[1., 2.], [2., 4.]]))
    tensor(1)
    """
    name = "torch.linalg.matrix_rank"
    need_matrices(name, A)
    if tol is not None:
        atol, rtol = tol, 0.0
    atol, rtol = _tolerances(name, A, atol, rtol)
    if hermitian:
        need_square("linalg.eigvalsh", A)
    A = A.detach()
    s = ops._eigvalsh(A).abs() if hermitian else ops._svdvals(A)
    if not s.shape[-1] or not s.numel():
        none = creation.zeros(s.shape[:-1], dtype=dtypes.int64, device=A.device)
        return written(name, none, out)
    limit = ops.maximum(atol, rtol * s.amax(-1))
    return written(name, (s > limit.unsqueeze(-1)).sum(-1), out)


def pinv(A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None,
         rtol: Any = None, out: Any = None) -> Any:
    """The pseudo-inverse (Moore, Penrose) of matrices (..., m, n) -> (..., n, m): singular values
    up to max(atol, rtol * the largest one) count as 0. `rcond` is an older name of `rtol`.

    >>> torch.linalg.pinv(torch.tensor([[2., 0.], [0., 0.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]])
    """
    name = "linalg.pinv"
    need_tensor(name, "A", A)
    if A.ndim < 2 or A.dtype.is_integral or A.dtype.is_reduced:
        raise RuntimeError(f"{name}({A.dtype.scalar_name}{{{list(A.shape)}}}): expected a tensor "
                           "with 2 or more dimensions of float, double, cfloat or cdouble types")
    if hermitian:
        need_square(name, A)
    atol, rtol = _tolerances(f"torch.{name}", A, atol, rtol if rcond is None else rcond)
    return written(name, ops._pinv(A, atol, rtol, bool(hermitian)), out)


# ---------------------------------------------------------------------- powers
def matrix_power(A: Any, n: int, *, out: Any = None) -> Any:
    """Square matrices times themselves; for negative n their inverses.

    >>> torch.linalg.matrix_power(torch.tensor([[1., 1.], [1., 0.]]), 10)
    tensor([[89., 55.],
            [55., 34.]])
    """
    need_tensor("linalg.matrix_power", "A", A)
    _need_square_of_any("linalg.matrix_power", A)
    if n < 0:
        A, n = inv(A), -n
    if n == 0:
        result = creation.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand(A.shape).clone()
    else:
        result, square = None, A
        while n:
            if n & 1:
                result = square if result is None else result @ square
            n >>= 1
            square = square @ square if n else square
        result = result.clone() if result is A else result
    return written("linalg.matrix_power", result, out)


def _need_square_of_any(name: str, A: Any) -> None:
    if A.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    if A.shape[-1] != A.shape[-2]:
        raise RuntimeError(f"{name}: A must be batches of square matrices, but they are "
                           f"{A.shape[-2]} by {A.shape[-1]} matrices")


def matrix_exp(A: Any) -> Any:
    """The exponential of square matrices: the sum of A^k / k!.

    >>> torch.linalg.matrix_exp(torch.tensor([[0., 1.], [0., 0.]]))
    tensor([[1., 1.],
            [0., 1.]])
    """
    need_tensor("linalg.matrix_exp", "A", A)
    if A.dtype.is_reduced:
        return matrix_exp(A.to(dtypes.float32)).to(A.dtype)
    need_square("linalg.matrix_exp", A)
    return ops._matrix_exp(A)


# ---------------------------------------------------------------------- least squares
_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


def lstsq(A: Any, B: Any, rcond: float | None = None, *, driver: str | None = None,
          out: Any = None) -> Any:
    """(solution, residuals, rank, singular_values) of min |A X - B|: A (..., m, n), B (..., m, k)
    or vectors (..., m).

    Args:
        rcond: singular values up to rcond times the largest one count as 0.
        driver: "gels" (A has full rank), "gelsy" (the default), "gelsd", "gelss".

    Returns:
        `residuals` are sums of squares, and empty if m <= n or the rank is not full or for "gelsy";
        `rank` is empty for "gels"; `singular_values` are empty for "gels" and "gelsy".

    >>> a = torch.tensor([[1., 0.], [1., 1.], [1., 2.]])
    >>> torch.linalg.lstsq(a, torch.tensor([[1.], [3.], [5.]])).solution
    tensor([[1.0000],
            [2.0000]])
    """
    name = "torch.linalg.lstsq"
    need_matrices(name, A, "input")
    need_tensor(name, "other", B)
    driver = "gelsy" if driver is None else driver
    if driver not in _DRIVERS:
        raise RuntimeError(f"{name}: parameter `driver` should be one of ({', '.join(_DRIVERS)})")
    if B.ndim < 1:
        raise RuntimeError(f"{name}: other must have at least 1 dimension.")
    if A.dtype is not B.dtype:
        raise RuntimeError(f"{name}: Expected input and other to have the same dtype, but got "
                           f"input's dtype {A.dtype.scalar_name} and other's dtype "
                           f"{B.dtype.scalar_name}")
    vector = is_vector(A, B)
    b = B.unsqueeze(-1) if vector else B
    if b.ndim < 2 or A.shape[-2] != b.shape[-2]:
        raise RuntimeError(f"{name}: input.size(-2) should match other.size("
                           f"{'-1' if vector else '-2'})")
    found = _least_squares(A, b, rcond, driver)
    solution = found[0].squeeze(-1) if vector else found[0]
    return named("linalg_lstsq", ("solution", "residuals", "rank", "singular_values"),
                 (solution, *found[1:]), out)


def _least_squares(A: Any, b: Any, rcond: float | None, driver: str) -> tuple:
    lead, (m, n), real = batch_of(A, b), A.shape[-2:], A.dtype.to_real()
    a, b = A.expand(*lead, m, n), b.expand(*lead, *b.shape[-2:])
    if rcond is None:
        rcond = dtypes.finfo(real).eps * max(m, n)
    limit = creation.tensor(rcond, dtype=real, device=A.device)
    raw, rank, values = ops._lstsq(a.detach(), b.detach(), limit, driver)
    nothing = creation.empty(0, dtype=real, device=A.device)
    solution, residuals = raw[..., :n, :], nothing
    wanted = m > n and driver != "gelsy" and (driver == "gels" or bool((rank == n).all()))
    if differentiated(a, b):
        solution = pinv(a, rcond if rcond > 0 else None) @ b
        if wanted:
            residuals = (a @ solution - b).abs().square().sum(-2)
    elif wanted:
        residuals = raw[..., n:, :].abs().square().sum(-2)
    return (solution, residuals,
            nothing.to(dtypes.int64) if driver == "gels" else rank,
            values if driver in ("gelsd", "gelss") else nothing)
