"""A few of the largest singular values, principal components, or extreme eigenpairs of a matrix.

Sources: N. Halko, P. Martinsson, J. Tropp, "Finding structure with randomness" (2009), algorithms
4.4 and 5.1; A. Knyazev, "Toward the optimal preconditioned eigensolver: locally optimal block
preconditioned conjugate gradient method" (2001).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.tensor import random
from flambeau.tensor.functions import ops
from flambeau.tensor.linalg_checks import adjoint, differentiated
from flambeau.tensor.linalg_spectral import eigh, qr, svd
from flambeau.tensor.linalg_systems import cholesky, solve_triangular

__all__ = ["lobpcg", "pca_lowrank", "svd_lowrank"]


# ---------------------------------------------------------------------- by random projections
def svd_lowrank(A: Any, q: int | None = 6, niter: int | None = 2, M: Any = None) -> tuple:
    """(U, S, V): about the first q singular values and vectors of matrices (..., m, n), or of
    A - M; A is about U diag(S) V^H if its rank is about q.

    Args:
        q: some more than the rank that is expected.
        niter: how many times the space of the projections is improved.

    >>> _ = torch.manual_seed(0)
    >>> U, S, V = torch.svd_lowrank(torch.tensor([[3., 0.], [0., 4.]]), q=1)
    >>> S.shape
    torch.Size([1])
    """
    need_tensor("svd_lowrank", "A", A)
    q, niter = 6 if q is None else q, 2 if niter is None else niter
    rest = A if M is None else A - M.expand(A.shape)
    wide = A.shape[-2] < A.shape[-1]
    if wide:
        rest = adjoint(rest)
    basis = _range_of(rest, q, niter)
    u, s, vh = svd(adjoint(basis) @ rest, full_matrices=False)
    u, v = basis @ u, adjoint(vh)
    return (v, s, u) if wide else (u, s, v)


def _range_of(A: Any, q: int, niter: int) -> Any:
    """An orthonormal basis of about the first q left singular vectors."""
    drawn = random.randn(A.shape[-1], q, dtype=A.dtype, device=A.device)
    basis = qr(A @ drawn)[0]
    turned = adjoint(A)
    for _ in range(niter):
        basis = qr(turned @ basis)[0]
        basis = qr(A @ basis)[0]
    return basis


def pca_lowrank(A: Any, q: int | None = None, center: bool = True, niter: int = 2) -> tuple:
    """(U, S, V) of the principal components of A (..., m, n), whose rows are samples: V's columns
    are directions, S^2 / (m - 1) their variances, A V[..., :k] the first k components.

    Args:
        q: how many components there may be; min(6, m, n) by default.
        center: whether to subtract the mean of the samples.

    >>> _ = torch.manual_seed(0)
    >>> U, S, V = torch.pca_lowrank(torch.tensor([[1., 2.], [2., 4.], [3., 6.]]), q=1)
    >>> S
    tensor([3.1623])
    """
    need_tensor("pca_lowrank", "A", A)
    most = min(A.shape[-2:])
    q = min(6, most) if q is None else q
    if not 0 <= q <= most:
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than "
                         f"min(m, n)={most}")
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    return svd_lowrank(A - A.mean(-2, keepdim=True) if center else A, q, niter)


# ---------------------------------------------------------------------- by conjugate gradients
def lobpcg(A: Any, k: int | None = None, B: Any = None, X: Any = None, n: int | None = None,
           iK: Any = None, niter: int | None = None, tol: float | None = None,
           largest: bool | None = None, method: str | None = None,
           tracker: Callable | None = None, ortho_iparams: dict | None = None,
           ortho_fparams: dict | None = None, ortho_bparams: dict | None = None) -> tuple:
    """(E, X): the k largest (or smallest) generalized eigenvalues, A x = e B x, of symmetric
    matrices (..., m, m) with B positive definite (the identity if absent), and their vectors as
    columns (..., m, k).

    Args:
        X: where to start, (..., m, n); random by default. n: vectors that are iterated, k or more.
        iK: a preconditioner: about the inverse of A.
        niter: the most iterations, 1000 by default; tol: of the relative residuals.
        method: "ortho" or "basic": both iterate the same spaces here.
        tracker: called after every iteration with an object that has E, X, R (residuals), istep
            and converged_count.
        ortho_iparams, ortho_fparams, ortho_bparams: for PyTorch's orthogonalization; not needed.

    A gradient, if it is wanted, is that of `linalg.eigh`, which then finds the pairs.

    >>> values, _ = torch.lobpcg(torch.diag(torch.arange(1., 13.)), k=1, X=torch.ones(12, 1))
    >>> values.round()
    tensor([12.])
    """
    need_tensor("lobpcg", "A", A)
    if method not in (None, "ortho", "basic"):
        raise ValueError(f"lobpcg: method must be 'ortho' or 'basic', got {method!r}")
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise RuntimeError(f"lobpcg: A must be a square matrix, got shape {list(A.shape)}")
    k = (1 if X is None else X.shape[-1]) if k is None else k
    n = (k if X is None else X.shape[-1]) if n is None else n
    if A.shape[-1] < 3 * n:
        raise ValueError(f"LPBPCG algorithm is not applicable when the number of A rows "
                         f"(={A.shape[-1]}) is smaller than 3 x the number of requested eigenpairs "
                         f"(={n})")
    up = True if largest is None else largest
    if differentiated(A, B):
        return _by_eigh(A, B, k, up)
    if A.ndim > 2:
        return _one_by_one(A, k, B, X, n, iK, niter, tol, up, tracker)
    return _Iteration(A, B, X, n, iK, niter, tol, up, tracker).run(k)


def _by_eigh(A: Any, B: Any, k: int, largest: bool) -> tuple:
    if B is not None:
        factor = cholesky(B)
        inner = solve_triangular(factor, A, upper=False)
        A = adjoint(solve_triangular(factor, adjoint(inner), upper=False))
    values, vectors = eigh(A)
    if largest:
        values, vectors = values.flip(-1), vectors.flip(-1)
    values, vectors = values[..., :k], vectors[..., :k]
    if B is not None:
        vectors = solve_triangular(adjoint(factor), vectors, upper=True)
    return values, vectors


def _one_by_one(A: Any, k: int, B: Any, X: Any, n: int, iK: Any, *rest: Any) -> tuple:
    lead, size = A.shape[:-2], A.shape[-1]
    flat = [None if x is None else x.expand(*lead, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
            for x in (A, B, X, iK)]
    pairs = []
    for at in range(flat[0].shape[0]):
        a, b, x, preconditioner = (None if m is None else m[at] for m in flat)
        pairs.append(_Iteration(a, b, x, n, preconditioner, *rest).run(k))
    values = ops.stack([pair[0] for pair in pairs]).reshape(*lead, k)
    return values, ops.stack([pair[1] for pair in pairs]).reshape(*lead, size, k)


class _Iteration:
    """One matrix. Every step takes the best vectors of the space of the present ones, of their
    residuals and of the steps before.

    Attributes:
        E, X, R: eigenvalues, vectors and residuals so far.
        istep, converged_count: iterations done, leading pairs that have converged.
    """

    def __init__(self, A: Any, B: Any, X: Any, n: int, iK: Any, niter: int | None,
                 tol: float | None, largest: bool, tracker: Callable | None):
        self.A, self.B, self.iK, self.largest, self.tracker = A, B, iK, largest, tracker
        self.n, self.most = n, 1000 if niter is None else niter
        self.tol = dtypes.finfo(A.dtype).eps ** 0.5 if tol is None else tol
        start = X if X is not None else random.randn(A.shape[-1], n, dtype=A.dtype,
                                                     device=A.device)
        self.X, self.P = start[..., :n], None
        self.istep, self.converged_count = 0, 0
        self._take(self.X)

    def run(self, k: int) -> tuple:
        """(the first k eigenvalues, their vectors)."""
        while self.istep < self.most:
            self._judge()
            if self.tracker is not None:
                self.tracker(self)
            if self.converged_count >= k:
                break
            step = self.R if self.iK is None else self.iK @ self.R
            parts = [self.X, step] if self.P is None else [self.X, step, self.P]
            self._take(ops.cat(parts, -1))
            self.istep += 1
        return self.E[:k], self.X[:, :k]

    def _take(self, space: Any) -> None:
        """The extreme eigenvectors within a space, by Rayleigh and Ritz."""
        basis = self._orthonormal(space)
        values, inner = eigh(adjoint(basis) @ (self.A @ basis))
        if self.largest:
            values, inner = values.flip(-1), inner.flip(-1)
        known, self.E = self.X, values[:self.n]
        self.X = basis @ inner[:, :self.n]
        if space is not known:  # what is new in the vectors leads on
            self.P = self.X - known @ (adjoint(known) @ self._by_b(self.X))
        self.R = self.A @ self.X - self._by_b(self.X) * self.E

    def _by_b(self, x: Any) -> Any:
        return x if self.B is None else self.B @ x

    def _orthonormal(self, space: Any) -> Any:
        """A basis with U^H B U = 1 of the space's columns, without those that others make up."""
        space = qr(space)[0]
        size, turn = eigh(adjoint(space) @ self._by_b(space))
        limit = dtypes.finfo(space.dtype).eps * space.shape[-1] * size[-1]
        kept = int((size > limit).sum())
        return space @ (turn[:, -kept:] / size[-kept:].sqrt())

    def _judge(self) -> None:
        """Count the leading pairs whose residuals are small beside A and B."""
        norm_a, norm_b = self.A.norm(), 1.0 if self.B is None else self.B.norm()
        size = self.R.norm(dim=0) / (
            self.X.norm(dim=0) * (norm_a + self.E.abs() * norm_b))
        failing = (size > self.tol).nonzero()
        self.converged_count = int(failing[0]) if failing.shape[0] else self.n
