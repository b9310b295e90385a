"""Linear algebra: values against NumPy and SciPy, gradients, errors, batches, compiled programs.

The walking tests check the records; here is what they cannot: matrices that are positive definite,
Hermitian or singular, vectors whose sign or phase is free, and what users call.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

import flambeau as torch
from flambeau.autograd import gradcheck, gradgradcheck
from flambeau.func import jvp, vmap
from flambeau.runtime import lapack

la = torch.linalg
DTYPES = ("float32", "float64", "complex64", "complex128")
SHAPES = ((3, 3), (2, 5, 5), (40, 40), (0, 3, 3), (0, 0), (1, 1), (2, 3, 4, 4))


def array(shape: tuple, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        made = made + 1j * rng.standard_normal(shape)
    return made.astype(dtype)


def adjoint(x: np.ndarray) -> np.ndarray:
    return np.conj(np.swapaxes(x, -1, -2))


def definite(shape: tuple, dtype: str) -> np.ndarray:
    x = array(shape, dtype)
    return (x @ adjoint(x) + np.eye(shape[-1])).astype(dtype)


def close(found: torch.Tensor, wanted: np.ndarray) -> None:
    found, wanted = found.resolve_conj().numpy(), np.asarray(wanted)
    assert found.shape == wanted.shape
    single = found.dtype in (np.float32, np.complex64)
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=scale * (2e-3 if single else 1e-9))


# ---------------------------------------------------------------------- values
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_square(shape: tuple, dtype: str):
    a = array(shape, dtype) / max(1, 2 * shape[-1] ** 0.5)
    a = (a + 1.5 * np.eye(shape[-1])).astype(dtype)
    s = definite(shape, dtype)
    b = array((*shape[:-1], 2), dtype, 1)
    A, S, B = map(torch.from_numpy, (a, s, b))
    close(la.inv(A) @ A, np.broadcast_to(np.eye(shape[-1]), shape))
    close(A @ la.solve(A, B), b)
    close(la.solve(A, B.mT, left=False) @ A, np.swapaxes(b, -1, -2))
    close(la.det(A), np.linalg.det(a))
    close(torch.logdet(S).real, np.linalg.slogdet(s)[1])
    low = la.cholesky(S)
    close(low @ low.mH, s)
    up = la.cholesky(S, upper=True)
    close(up.mH @ up, s)
    close(S @ torch.cholesky_solve(B, low), b)
    close(S @ torch.cholesky_inverse(up, upper=True), np.broadcast_to(np.eye(shape[-1]), shape))
    values, vectors = la.eigh(S)
    close((vectors * values.unsqueeze(-2)) @ vectors.mH, s)
    close(la.eigvalsh(S, UPLO="U"), np.linalg.eigvalsh(s))
    values, vectors = la.eig(A)
    close(A.to(vectors.dtype) @ vectors, (vectors * values.unsqueeze(-2)).numpy())
    close(la.eigvals(A).sum(-1), np.trace(a, axis1=-2, axis2=-1).astype(values.dtype.numpy))
    parts = la.ldl_factor(S, hermitian=True)
    close(S @ la.ldl_solve(*parts, B, hermitian=True), b)
    close(la.matrix_power(A, -2) @ A @ A, np.broadcast_to(np.eye(shape[-1]), shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (2, 3, 5), (70, 33), (0, 3), (3, 0), (0, 2, 3)])
def test_rectangular(shape: tuple, dtype: str):
    a = array(shape, dtype)
    A = torch.from_numpy(a)
    k = min(shape[-2:])
    for full in (False, True):
        u, s, vh = la.svd(A, full_matrices=full)
        close((u[..., :k] * s.unsqueeze(-2)) @ vh[..., :k, :], a)
        for square in (u.mH @ u, vh @ vh.mH):
            close(square, np.broadcast_to(np.eye(square.shape[-1]), square.shape))
    close(la.svdvals(A), np.linalg.svd(a, compute_uv=False))
    for mode in ("reduced", "complete"):
        q, r = la.qr(A, mode)
        close(q @ r, a)
        close(q.mH @ q, np.broadcast_to(np.eye(q.shape[-1]), (*shape[:-2], *q.shape[-1:] * 2)))
        close(r, np.triu(r.numpy()))
    p, low, up = la.lu(A)
    close(p @ low @ up, a)
    close(la.pinv(A), np.linalg.pinv(a) if a.size else np.zeros((*shape[:-2], shape[-1],
                                                                 shape[-2])))
    close(torch.orgqr(*torch.geqrf(A)) @ la.qr(A)[1] if shape[-2] >= shape[-1] else A, a)


@pytest.mark.parametrize("dtype", DTYPES)
def test_triangular(dtype: str):
    a = array((2, 4, 4), dtype) + 3 * np.eye(4, dtype=dtype)
    b = array((4, 3), dtype, 1)
    A, B = torch.from_numpy(a), torch.from_numpy(b)
    for upper in (False, True):
        for unit in (False, True):
            part = np.triu(a) if upper else np.tril(a)
            if unit:
                part = part - part * np.eye(4) + np.eye(4)
            part = torch.from_numpy(part.astype(dtype))
            options = {"upper": upper, "unitriangular": unit}
            wide = np.broadcast_to(b, (2, 4, 3))
            close(part @ la.solve_triangular(A, B, **options), wide)
            close(la.solve_triangular(A, B.mT, left=False, **options) @ part,
                  np.swapaxes(wide, -1, -2))
            close(part.mT @ torch.triangular_solve(B, A, upper, True, unit)[0], wide)
            # strided, broadcast: only the view counts
            turned = torch.from_numpy(np.swapaxes(a, -1, -2).copy()).mT
            assert torch.equal(la.solve_triangular(turned, B, **options),
                               la.solve_triangular(A, B, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_matrix_exp(dtype: str, scale: float):
    a = (array((3, 6, 6), dtype) * scale / 6).astype(dtype)
    close(la.matrix_exp(torch.from_numpy(a)), scipy.linalg.expm(a.astype(np.complex128 if dtype[0]
                                                                == "c" else np.float64)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("driver", ["gels", "gelsy", "gelsd", "gelss"])
def test_lstsq(driver: str, dtype: str):
    for shape in ((6, 3), (3, 5), (2, 30, 28)):
        a, b = array(shape, dtype), array((*shape[:-1], 2), dtype, 1)
        found = la.lstsq(torch.from_numpy(a), torch.from_numpy(b), driver=driver)
        close(found.solution, np.linalg.pinv(a) @ b)
        if driver != "gels":
            assert (found.rank == min(shape[-2:])).all()
        if driver in ("gelsd", "gelss"):
            close(found.singular_values, np.linalg.svd(a, compute_uv=False))
        if shape == (6, 3) and driver != "gelsy":
            rest = a @ (np.linalg.pinv(a) @ b) - b
            close(found.residuals, (np.abs(rest) ** 2).sum(-2))


def test_lu_solve_in_all_directions():
    a, b = array((2, 4, 4), "complex128"), array((2, 4, 3), "complex128", 1)
    A, B = torch.from_numpy(a), torch.from_numpy(b)
    parts = la.lu_factor(A)
    close(A @ la.lu_solve(*parts, B), b)
    close(A.mH @ la.lu_solve(*parts, B, adjoint=True), b)
    close(la.lu_solve(*parts, B.mH, left=False) @ A, adjoint(b))
    close(la.lu_solve(*parts, B.mH, left=False, adjoint=True) @ A.mH, adjoint(b))


def test_norms_of_singular_values():
    a = array((2, 3, 4), "float64")
    A, s = torch.from_numpy(a), np.linalg.svd(a, compute_uv=False)
    close(la.matrix_norm(A, "nuc"), s.sum(-1))
    close(la.norm(A, 2, (-2, -1), keepdim=True), s.max(-1)[:, None, None])
    close(la.matrix_norm(A, -2, (0, 2)), np.linalg.svd(a.swapaxes(0, 1), compute_uv=False).min(-1))
    close(la.cond(A), s[:, 0] / s[:, -1])
    assert la.cond(torch.zeros(2, 2), 1) == float("inf")
    assert la.matrix_rank(A[0].T @ A[0]) == 3
    assert la.matrix_rank(torch.ones(3, 3), hermitian=True) == 1


def test_low_rank():
    A = torch.randn(40, 3) @ torch.randn(3, 30)
    u, s, v = torch.svd_lowrank(A)
    close((u * s) @ v.mT, A.numpy())
    assert torch.pca_lowrank(A, q=4)[1][3] < 1e-3
    M = torch.randn(2, 30, 30, dtype=torch.float64)
    M = M @ M.mT
    for largest in (False, True):
        wanted = la.eigvalsh(M)
        wanted = wanted.flip(-1)[:, :2] if largest else wanted[:, :2]
        values, vectors = torch.lobpcg(M, k=2, largest=largest)
        close(values, wanted.numpy())
        torch.testing.assert_close(M @ vectors, vectors * values.unsqueeze(-2), rtol=1e-4,
                                   atol=1e-4)
    with pytest.raises(ValueError, match="not applicable"):
        torch.lobpcg(M, k=11)


def test_vander():
    x = array((4,), "float64")
    close(torch.vander(torch.from_numpy(x)), np.vander(x))
    close(la.vander(torch.from_numpy(x), N=3), np.vander(x, 3, increasing=True))


# ---------------------------------------------------------------------- gradients
def hermitian(a: torch.Tensor) -> torch.Tensor:
    return a @ a.mH + 2 * torch.eye(a.shape[-1], dtype=a.dtype)


def of_eigh(a: torch.Tensor) -> tuple:
    values, vectors = la.eigh(hermitian(a))
    return values, vectors.abs()


def of_eig(a: torch.Tensor) -> tuple:
    values, vectors = la.eig(a)
    return values.abs(), vectors.abs()


def of_svd(a: torch.Tensor) -> tuple:
    u, s, vh = la.svd(a, full_matrices=False)
    return u.abs(), s, vh.abs(), u @ vh


def of_complete_qr(a: torch.Tensor) -> tuple:
    q, r = la.qr(a, "complete")
    rest = q[:, a.shape[-1]:]
    return q[:, :a.shape[-1]], r, rest @ rest.mH


def of_solve(a: torch.Tensor) -> torch.Tensor:
    return la.solve(a, a.mH @ a)


def of_lstsq(a: torch.Tensor) -> tuple:
    return la.lstsq(a, a[:, :1] * a[:, :1].conj(), driver="gelsd")[:2]


def of_reflectors(a: torch.Tensor) -> tuple:
    tau = a[0, :2]
    return la.householder_product(a[:, :2], tau), torch.ormqr(a[:, :2], tau, a)


FUNCTIONS = {
    "cholesky": lambda a: la.cholesky(hermitian(a)), "inv": la.inv, "det": la.det,
    "slogdet": lambda a: la.slogdet(a), "logdet": lambda a: torch.logdet(hermitian(a)),
    "solve": of_solve, "lu": lambda a: la.lu(a)[1:], "eigh": of_eigh, "eig": of_eig,
    "svd": of_svd, "svdvals": la.svdvals, "qr": lambda a: la.qr(a), "matrix_exp": la.matrix_exp,
    "pinv": la.pinv, "eigvals": lambda a: la.eigvals(a).abs(), "cond": la.cond,
    "reflectors": of_reflectors, "power": lambda a: la.matrix_power(a, 3),
}


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_gradients(name: str, dtype: str):
    a = torch.from_numpy(array((3, 3), dtype)).requires_grad_()
    assert gradcheck(FUNCTIONS[name], (a,))
    assert gradgradcheck(FUNCTIONS[name], (a,))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("function", [of_complete_qr, of_lstsq, of_svd, la.pinv])
def test_gradients_of_high_matrices(function, dtype: str):
    a = torch.from_numpy(array((4, 2), dtype)).requires_grad_()
    assert gradcheck(function, (a,))
    assert gradgradcheck(function, (a,))


def test_gradient_of_a_singular_determinant():
    a = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    torch.det(a).backward()
    close(a.grad, np.array([[1.0, -1.0], [-1.0, 1.0]]))


def test_equal_singular_values_have_a_gradient():
    a = torch.eye(3, requires_grad=True)
    la.svdvals(a).sum().backward()
    close(a.grad, np.eye(3))


# ---------------------------------------------------------------------- transforms
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"reflectors", "eigh"}))
def test_tangents_and_batches(name: str):
    function = FUNCTIONS[name]
    a, v = (torch.from_numpy(array((3, 3), "float64", seed)) for seed in range(2))
    step = 1e-6
    wanted = [(x - y) / (2 * step) for x, y in zip(
        *(torch.utils._pytree.tree_leaves(function(a + sign * step * v)) for sign in (1, -1)),
        strict=True)]
    for found, want in zip(torch.utils._pytree.tree_leaves(jvp(function, (a,), (v,))[1]), wanted,
                           strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)
    both = torch.stack([a, v])
    for found, one in zip(torch.utils._pytree.tree_leaves(vmap(function)(both)),
                          torch.utils._pytree.tree_leaves(function(v)), strict=True):
        torch.testing.assert_close(found[1], one)


# ---------------------------------------------------------------------- errors
def test_errors_name_the_matrix():
    batch = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 0.0, 2.0]))])
    message = (r"linalg.inv: \(Batch element 1\): The diagonal element 2 is zero, the inversion "
               "could not be completed because the input matrix is singular.")
    with pytest.raises(la.LinAlgError, match=message):
        la.inv(batch)
    with pytest.raises(la.LinAlgError, match=r"^torch.linalg.solve: The solver failed"):
        la.solve(batch[1], torch.ones(3))
    with pytest.raises(la.LinAlgError, match=r"leading minor of order 2 is not positive-definite"):
        la.cholesky(batch[1])
    assert issubclass(la.LinAlgError, RuntimeError) and la.LinAlgError.__name__ == "_LinAlgError"
    _, info = la.inv_ex(batch)
    assert info.tolist() == [0, 2] and info.dtype is torch.int32
    assert la.cholesky_ex(batch).info.tolist() == [0, 2]
    with pytest.raises(la.LinAlgError):
        la.cholesky_ex(batch, check_errors=True)


@pytest.mark.parametrize("name", ["inv", "cholesky", "eigh", "svd", "eig", "lstsq"])
def test_not_finite(name: str):
    a = torch.eye(3)
    a[1, 1] = float("nan")
    if name == "inv":
        assert la.inv(a).isnan().any()
        return
    with pytest.raises(la.LinAlgError):
        la.lstsq(a, a) if name == "lstsq" else getattr(la, name)(a)


@pytest.mark.parametrize("name", ["inv", "det", "cholesky", "eigh", "svd", "qr", "pinv"])
def test_wrong_arguments(name: str):
    function = getattr(la, name)
    for wrong in (torch.ones(3, 3, dtype=torch.int64), torch.ones(3, 3).half(), torch.ones(3)):
        with pytest.raises(RuntimeError):
            function(wrong)
    if name not in ("svd", "qr", "pinv"):
        with pytest.raises(RuntimeError, match="must be batches of square matrices, but they are 2 "
                                               "by 3 matrices"):
            function(torch.ones(2, 3))
    with pytest.raises(TypeError):
        function([[1.0]])


def test_out():
    a, out = torch.randn(3, 3), torch.empty(0)
    assert la.inv(a, out=out) is out
    close(out @ a, np.eye(3))
    values, vectors = torch.empty(0), torch.empty(0)
    found = la.eigh(a, out=(values, vectors))
    assert found.eigenvalues is values and found[1] is vectors
    with pytest.raises(RuntimeError, match="can't be cast"):
        la.inv(a, out=torch.empty(3, 3, dtype=torch.int64))


def test_names_of_results():
    a = torch.eye(2)
    assert repr(torch.slogdet(a)) == ("torch.return_types.slogdet(\nsign=tensor(1.),\n"
                                      "logabsdet=tensor(0.))")
    assert type(la.svd(a)).__name__ == "linalg_svd" and la.svd(a)._fields == ("U", "S", "Vh")
    assert torch.svd(a)._fields == ("U", "S", "V")
    assert la.lu_factor_ex(a)._fields == ("LU", "pivots", "info")


# ---------------------------------------------------------------------- compiled, threads
def step_of(weight: torch.Tensor, x: torch.Tensor) -> tuple:
    s = weight @ weight.mT + torch.eye(4)
    loss = (la.solve(s, x) ** 2).sum() - torch.logdet(s)
    return loss, la.eigvalsh(s), torch.cholesky_solve(x, la.cholesky(s))


def test_compiled():
    weight, x = torch.randn(4, 4), torch.randn(4, 2)
    wanted = step_of(weight, x)
    for options in ({}, {"options": {"exact": True}}):
        compiled = torch.compile(step_of, **options)
        for _ in range(3):
            for found, want in zip(compiled(weight, x), wanted, strict=True):
                torch.testing.assert_close(found, want)
    inv = torch.compile(la.inv)
    inv(torch.eye(3))
    inv(torch.eye(3))
    with pytest.raises(la.LinAlgError, match="singular"):
        inv(torch.zeros(3, 3))


def test_bits_do_not_depend_on_threads():
    before = torch.get_num_threads()
    a, b = torch.randn(64, 20, 20), torch.randn(200, 200)
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append([la.inv(a), la.svd(a)[0], la.inv(b), la.qr(b)[0], la.eigh(b)[1],
                          la.cholesky(b @ b.T + 20 * torch.eye(200))])
        for one, other in zip(*found, strict=True):
            assert torch.equal(one, other)
    finally:
        torch.set_num_threads(before)


def test_a_function_that_lapack_lacks():
    with pytest.raises(NotImplementedError, match="has no function 'dnothing'"):
        lapack.address_of("dnothing")
