"""Linear systems: solving them, inverses, and the factorizations for that."""

from __future__ import annotations

import math
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.tensor import creation
from flambeau.tensor.functions import ops
from flambeau.tensor.linalg_checks import (
    adjoint,
    is_vector,
    named,
    need_fit,
    need_floats,
    need_matrices,
    need_pivot,
    need_same_dtype,
    need_square,
    written,
)

__all__ = ["cholesky", "cholesky_ex", "cholesky_inverse", "cholesky_solve", "inv", "inv_ex",
           "ldl_factor", "ldl_factor_ex", "ldl_solve", "lu", "lu_factor", "lu_factor_ex",
           "lu_solve", "lu_unpack", "solve", "solve_ex", "solve_triangular", "tensorinv",
           "tensorsolve"]


# ---------------------------------------------------------------------- inverses
def inv(A: Any, *, out: Any = None) -> Any:
    """The inverse of square matrices (..., n, n).

    Raises:
        LinAlgError: a matrix is singular.

    >>> torch.linalg.inv(torch.tensor([[2., 0.], [0., 4.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    need_square("linalg.inv", A)
    return written("linalg.inv", ops._inverse(A, "linalg.inv")[0], out)


def inv_ex(A: Any, *, check_errors: bool = False, out: Any = None) -> Any:
    """(inverse, info) of square matrices; where `info` is not 0 a matrix is singular and its
    inverse undefined. With `check_errors` that is an error.

    >>> torch.linalg.inv_ex(torch.tensor([[2., 0.], [0., 0.]])).info
    tensor(2, dtype=torch.int32)
    """
    need_square("linalg.inv", A)
    found = ops._inverse(A, "linalg.inv_ex" if check_errors else None)
    return named("linalg_inv_ex", ("inverse", "info"), found, out)


# ---------------------------------------------------------------------- systems
def solve(A: Any, B: Any, *, left: bool = True, out: Any = None) -> Any:
    """X with A X = B, or with X A = B if not `left`: A (..., n, n), B (..., n, k) or vectors
    (..., n). Batches broadcast.

    Raises:
        LinAlgError: a matrix is singular.

    >>> torch.linalg.solve(torch.tensor([[2., 1.], [1., 3.]]), torch.tensor([3., 4.]))
    tensor([1., 1.])
    """
    found = _solve("linalg.solve", A, B, left, "torch.linalg.solve")[0]
    return written("linalg.solve", found, out)


def solve_ex(A: Any, B: Any, *, left: bool = True, check_errors: bool = False, out: Any = None
             ) -> Any:
    """(result, info) of `solve`; `info` is not 0 where a matrix is singular.

    >>> torch.linalg.solve_ex(torch.tensor([[2., 1.], [1., 3.]]), torch.tensor([3., 4.])).result
    tensor([1., 1.])
    """
    found = _solve("linalg.solve", A, B, left,
                   "torch.linalg.solve_ex" if check_errors else None)
    return named("linalg_solve_ex", ("result", "info"), found, out)


def _solve(name: str, A: Any, B: Any, left: bool, raising: str | None) -> tuple:
    need_square(name, A)
    need_same_dtype(name, A, B)
    vector = is_vector(A, B)
    if vector and not left:
        raise RuntimeError(f"{name}: Vector broadcasting of the left hand side is not supported "
                           f"for left=False. In this case {name} is equivalent to B / "
                           "A.squeeze(-1)")
    b = B.unsqueeze(-1) if vector else B
    need_fit(name, A, b, left)
    if left:
        x, _, _, info = ops._solve(A, b, raising)
    else:
        x, _, _, info = ops._solve(A.transpose(-2, -1), b.transpose(-2, -1), raising)
        x = x.transpose(-2, -1)
    return x.squeeze(-1) if vector else x, info


def solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True,
                     unitriangular: bool = False, out: Any = None) -> Any:
    """X with A X = B, or with X A = B if not `left`, for triangular A (..., n, n): only that
    triangle of A is read, and not its diagonal if it is `unitriangular`. Batches broadcast.

    >>> a = torch.tensor([[2., 1.], [0., 3.]])
    >>> torch.linalg.solve_triangular(a, torch.tensor([[3.], [3.]]), upper=True)
    tensor([[1.],
            [1.]])
    """
    name = "linalg.solve_triangular"
    need_square(name, A)
    need_same_dtype(name, A, B)
    need_fit(name, A, B, left)
    return written(name, ops._solve_triangular(A, B, bool(upper), bool(left),
                                               bool(unitriangular)), out)


# ---------------------------------------------------------------------- Cholesky
def cholesky(A: Any, *, upper: bool = False, out: Any = None) -> Any:
    """L with A = L L^H of Hermitian positive definite matrices (..., n, n), of which the lower
    triangle is read; or U with A = U^H U and the upper one.

    Raises:
        LinAlgError: a matrix is not positive definite.

    >>> torch.linalg.cholesky(torch.tensor([[4., 2.], [2., 5.]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    need_square("linalg.cholesky", A)
    return written("linalg.cholesky", ops._cholesky(A, bool(upper), "linalg.cholesky")[0], out)


def cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False, out: Any = None
                ) -> Any:
    """(L, info) of `cholesky`; `info` is the order of the first minor that is not positive, or
    0.

    >>> a = torch.tensor([[4., 2.], [2., 0.]])
    >>> torch.linalg.cholesky_ex(a).info  # the leading minor that is not positive
    tensor(2, dtype=torch.int32)
    """
    need_square("linalg.cholesky", A)
    found = ops._cholesky(A, bool(upper), "linalg.cholesky_ex" if check_errors else None)
    return named("linalg_cholesky_ex", ("L", "info"), found, out)


def cholesky_solve(input: Any, input2: Any, upper: bool = False, *, out: Any = None) -> Any:
    """X with A X = input, by the Cholesky factor input2 of A (the upper one if `upper`).

    >>> torch.cholesky_solve(torch.tensor([[6.], [7.]]), torch.tensor([[2., 0.], [1., 2.]]))
    tensor([[1.],
            [1.]])
    """
    B, L = input, input2
    name = "cholesky_solve"
    for what, x in (("b", B), ("u", L)):
        need_tensor(name, what, x)
        if x.ndim < 2:
            raise RuntimeError(f"{what} should have at least 2 dimensions, but has {x.ndim} "
                               "dimensions instead")
    need_square(name, L, "L")
    need_same_dtype(name, B, L, ("B", "L"))
    need_fit(name, L, B, True)
    return written(name, ops._cholesky_solve(B, L, bool(upper)), out)


def cholesky_inverse(input: Any, upper: bool = False, *, out: Any = None) -> Any:
    """The inverse of A, by its Cholesky factor (the upper one if `upper`).

    >>> torch.cholesky_inverse(torch.tensor([[2., 0.], [1., 2.]]))
    tensor([[ 0.3125, -0.1250],
            [-0.1250,  0.2500]])
    """
    L = input
    need_square("cholesky_inverse", L, "L")
    identity = creation.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    return written("cholesky_inverse", ops._cholesky_solve(identity, L, bool(upper)), out)


# ---------------------------------------------------------------------- LU
def lu_factor(A: Any, *, pivot: bool = True, out: Any = None) -> Any:
    """(LU, pivots) of A = P L U: L below the diagonal (whose ones are left out) and U above it in
    one matrix; row i was exchanged with row pivots[i] - 1.

    Raises:
        LinAlgError: U has a zero on its diagonal.

    >>> torch.linalg.lu_factor(torch.tensor([[0., 2.], [3., 4.]]))
    torch.return_types.linalg_lu_factor(
    LU=tensor([[3., 4.],
            [0., 2.]]),
    pivots=tensor([2, 2], dtype=torch.int32))
    """
    need_matrices("torch.linalg.lu_factor", A)
    need_pivot("linalg.lu_factor", pivot)
    found = ops._lu_factor(A, "torch.linalg.lu_factor")[:2]
    return named("linalg_lu_factor", ("LU", "pivots"), found, out)


def lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False, out: Any = None
                 ) -> Any:
    """(LU, pivots, info) of `lu_factor`; `info` is the place of the first zero on the diagonal of
    U, or 0.

    >>> torch.linalg.lu_factor_ex(torch.zeros(2, 2)).info
    tensor(1, dtype=torch.int32)
    """
    need_matrices("torch.linalg.lu_factor_ex", A)
    need_pivot("linalg.lu_factor", pivot)
    found = ops._lu_factor(A, "torch.linalg.lu_factor_ex" if check_errors else None)
    return named("linalg_lu_factor_ex", ("LU", "pivots", "info"), found, out)


def lu(A: Any, *, pivot: bool = True, out: Any = None) -> Any:
    """(P, L, U) with A = P L U: P (..., m, m) a permutation, L (..., m, k), U (..., k, n).

    >>> P, L, U = torch.linalg.lu(torch.tensor([[0., 2.], [3., 4.]]))
    >>> P @ L @ U
    tensor([[0., 2.],
            [3., 4.]])
    """
    need_matrices("linalg.lu", A)
    need_pivot("linalg.lu", pivot)
    both, pivots, _ = ops._lu_factor(A)
    return named("linalg_lu", ("P", "L", "U"), _unpacked(both, pivots, True, True), out)


def lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True,
              *, out: Any = None) -> Any:
    """(P, L, U) of what `lu_factor` gives; what is not asked for is empty.

    >>> P, L, U = torch.lu_unpack(*torch.linalg.lu_factor(torch.tensor([[0., 2.], [3., 4.]])))
    >>> U
    tensor([[3., 4.],
            [0., 2.]])
    """
    need_matrices("torch.lu_unpack", LU_data, "LU_data")
    need_tensor("lu_unpack", "LU_pivots", LU_pivots)
    if unpack_pivots and LU_pivots.dtype is not dtypes.int32:
        raise RuntimeError("torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of "
                           "torch.int32 dtype. Note: this function is intended to be used with "
                           "the output produced by torch.linalg.lu_factor")
    found = _unpacked(LU_data, LU_pivots, unpack_data, unpack_pivots)
    return named("lu_unpack", ("P", "L", "U"), found, out)


def _unpacked(both: Any, pivots: Any, data: bool, permutation: bool) -> tuple:
    rows, k = both.shape[-2], min(both.shape[-2:])
    none = creation.empty(0, dtype=both.dtype, device=both.device)
    p = low = up = none
    if permutation:
        order = ops._row_order(both.detach(), pivots)
        places = creation.arange(rows, device=both.device).unsqueeze(-1)
        p = (order.unsqueeze(-2) == places).to(both.dtype)
    if data:
        one = creation.eye(rows, k, dtype=both.dtype, device=both.device)
        low, up = both[..., :k].tril(-1) + one, both[..., :k, :].triu()
    return p, low, up


def lu_solve(LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False,
             out: Any = None) -> Any:
    """X with A X = B by the factors of A from `lu_factor`; with `adjoint` A^H X = B; if not `left`
    X A = B (X A^H = B).

    >>> factors, pivots = torch.linalg.lu_factor(torch.tensor([[0., 2.], [3., 4.]]))
    >>> torch.linalg.lu_solve(factors, pivots, torch.tensor([[2.], [7.]]))
    tensor([[1.],
            [1.]])
    """
    name = "torch.linalg.lu_solve"
    need_square(name, LU, "LU")
    need_same_dtype(name, LU, B, ("LU", "B"))
    need_tensor(name, "pivots", pivots)
    if pivots.dtype is not dtypes.int32:
        raise RuntimeError("linalg.lu_solve: pivots should be a Tensor of scalar type torch.int32")
    need_fit(name, LU, B, left)
    if LU.shape[-1] != pivots.shape[-1]:
        raise RuntimeError("linalg.lu_solve: Number of pivots per batch should be same as the "
                           "dimension of the matrix")
    if tuple(LU.shape[:-1]) != tuple(pivots.shape):
        raise RuntimeError("linalg.lu_solve: Expected LU.shape[:-1] and pivots.shape to be the "
                           f"same, but got pivots with shape {list(pivots.shape)} instead")
    found = _lu_solved(LU, pivots, B, adjoint) if left else (
        _turned(_lu_solved(LU, pivots, _turned(B), not adjoint)))
    return written(name, found, out)


_turned = adjoint


def _lu_solved(LU: Any, pivots: Any, B: Any, turned: bool) -> Any:
    order = ops._row_order(LU.detach(), pivots)
    if not turned:
        inner = ops._solve_triangular(LU, ops._permuted(B, order), False, True, True)
        return ops._solve_triangular(LU, inner, True)
    inner = ops._solve_triangular(LU, B, True, True, False, True)
    inner = ops._solve_triangular(LU, inner, False, True, True, True)
    return ops._permuted(inner, order.argsort(-1))


# ---------------------------------------------------------------------- LDL
def ldl_factor(A: Any, *, hermitian: bool = False, out: Any = None) -> Any:
    """(LD, pivots) of symmetric matrices A = L D L^T (Hermitian ones: L^H), of which the lower
    triangle is read. Not differentiable.

    >>> torch.linalg.ldl_factor(torch.tensor([[4., 2.], [2., 5.]])).LD.tril()
    tensor([[4.0000, 0.0000],
            [0.5000, 4.0000]])
    """
    need_square("torch.linalg.ldl_factor", A)
    found = ops._ldl_factor(A, bool(hermitian), "torch.linalg.ldl_factor")[:2]
    return named("linalg_ldl_factor", ("LD", "pivots"), found, out)


def ldl_factor_ex(A: Any, *, hermitian: bool = False, check_errors: bool = False,
                  out: Any = None) -> Any:
    """(LD, pivots, info) of `ldl_factor`.

    >>> torch.linalg.ldl_factor_ex(torch.tensor([[4., 2.], [2., 5.]])).info
    tensor(0, dtype=torch.int32)
    """
    need_square("torch.linalg.ldl_factor_ex", A)
    name = "torch.linalg.ldl_factor_ex" if check_errors else None
    found = ops._ldl_factor(A, bool(hermitian), name)
    return named("linalg_ldl_factor_ex", ("LD", "pivots", "info"), found, out)


def ldl_solve(LD: Any, pivots: Any, B: Any, *, hermitian: bool = False, out: Any = None) -> Any:
    """X with A X = B by the factors of A from `ldl_factor`.

    >>> LD, pivots = torch.linalg.ldl_factor(torch.tensor([[4., 2.], [2., 5.]]))
    >>> torch.linalg.ldl_solve(LD, pivots, torch.tensor([[6.], [7.]]))
    tensor([[1.],
            [1.]])
    """
    name = "torch.linalg.ldl_solve"
    need_square(name, LD, "LD")
    need_tensor(name, "B", B)
    need_tensor(name, "pivots", pivots)
    if B.ndim < 2:
        raise RuntimeError(f"{name}: Expected B to have at least 2 dimensions, but it has {B.ndim} "
                           "dimensions instead")
    if tuple(pivots.shape) != tuple(LD.shape[:-1]):
        raise RuntimeError(f"{name}: Expected LD.shape[:-1] and pivots.shape to be the same, but "
                           f"got pivots with shape {list(pivots.shape)} instead")
    if not pivots.dtype.is_integral or pivots.dtype.kind == "b":
        raise RuntimeError(f"{name}: Expected pivots to be integers. Got "
                           f"{pivots.dtype.scalar_name}")
    need_same_dtype(name, LD, B, ("LD", "B"))
    need_fit(name, LD, B, True)
    return written(name, ops._ldl_solve(LD, pivots.to(dtypes.int32), B, bool(hermitian)), out)


# ---------------------------------------------------------------------- over several dimensions
def tensorinv(A: Any, ind: int = 2, *, out: Any = None) -> Any:
    """The inverse of A as a map from its last dimensions to its first `ind` ones.

    >>> a = torch.eye(4).reshape(4, 2, 2)
    >>> torch.linalg.tensorinv(a, ind=1).shape
    torch.Size([2, 2, 4])
    """
    need_floats("linalg.tensorinv", A)
    if ind <= 0:
        raise RuntimeError("Expected a strictly positive integer for 'ind'")
    first, last = A.shape[:ind], A.shape[ind:]
    rows, columns = math.prod(first), math.prod(last)
    if rows != columns:
        raise RuntimeError("Expected self to satisfy the requirement prod(self.shape[ind:]) == "
                           f"prod(self.shape[:ind]), but got {columns} != {rows}")
    found = inv(A.reshape(rows, columns)).reshape(*last, *first)
    return written("linalg.tensorinv", found, out)


def tensorsolve(A: Any, B: Any, dims: Any = None, *, out: Any = None) -> Any:
    """X with tensordot(A, X, X.ndim) = B; `dims` of A are moved to its end first.

    >>> torch.linalg.tensorsolve(torch.eye(4).reshape(2, 2, 4), torch.tensor([[1., 2.], [3., 4.]]))
    tensor([1., 2., 3., 4.])
    """
    name = "linalg.tensorsolve"
    need_floats(name, A)
    need_tensor(name, "B", B)
    if dims is not None:
        dims = tuple(dims) if isinstance(dims, (list, tuple)) else (dims,)
        A = A.movedim(dims, tuple(range(A.ndim - len(dims), A.ndim)))
    result = A.shape[B.ndim:]
    count = math.prod(result)
    if count != math.prod(A.shape[:B.ndim]):
        raise RuntimeError("Expected self to satisfy the requirement prod(self.shape[other.ndim:])"
                           f" == prod(self.shape[:other.ndim]), but got {count} != "
                           f"{math.prod(A.shape[:B.ndim])}")
    found = solve(A.reshape(count, count), B.reshape(-1)).reshape(result)
    return written(name, found, out)
