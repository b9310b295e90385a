"""Factorizations of matrices and what is solved with them: the records behind `torch.linalg`.

Their matrices lie in the last two dimensions, batches are alike or broadcast. What users call, with
PyTorch's checks, names and overloads, is in tensor/linalg*.py.
"""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.core.shapes import broadcast_shapes
from flambeau.ir.graph import Value
from flambeau.ops import factor as f
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.primitives.factors import Form, factor
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.samples import Arr, sample


def _matrices(first: Value, *others: object) -> None:
    """A check for records: they take matrices."""
    if first.ndim < 2:
        raise RuntimeError("linalg: The input tensor must have at least 2 dimensions, got shape "
                           f"{list(first.shape)}")


PRIVATE = {"public": (), "method": False, "out": False, "refuses": "bui", "check": _matrices}


def _square_samples(*args, **kwargs):
    def samples():
        for shape in ((3, 3), (2, 3, 3), (1, 1), (0, 3, 3), (20, 20), (0, 0)):
            yield sample(Arr(shape, None, 0.5, 2.0), *args, **kwargs)

    return samples


def _matrix_samples(*args, **kwargs):
    def samples():
        for shape in ((3, 3), (4, 3), (3, 4), (2, 3, 2), (0, 3, 2), (0, 2), (17, 5)):
            yield sample(Arr(shape), *args, **kwargs)

    return samples


def _info(x: Value) -> Value:
    return f.zeros(x.shape[:-2], dtypes.int32)


def batched(x: Value, lead: tuple[int, ...], core: int = 2) -> Value:
    """x with these leading dimensions."""
    return p.expand(x, (*lead, *x.shape[x.ndim - core:]))


def together(a: Value, b: Value) -> tuple[Value, Value]:
    """Matrices with the same batch."""
    lead = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return batched(a, lead), batched(b, lead)


# --------------------------------------------------------------------------- Cholesky
@op(name="_cholesky", samples=lambda: iter([sample(Arr((0, 3, 3))), sample(Arr((0, 0)))]),
    grad="LinalgCholeskyExBackward0", **PRIVATE)
def cholesky(A: Tensor, upper: bool = False, name: str | None = None):
    """(L, info): A = L L^H of Hermitian positive definite matrices, or U with A = U^H U. `info` is
    the order of the first minor that is not positive."""
    if not A.numel:
        return p.stop_copy(A), _info(A)
    return tuple(f.cholesky(A, upper, name))


@cholesky.vjp
def cholesky_vjp(g, output, upper):
    """By triangular solves with L."""
    return None if g[0] is None else f.cholesky_gradient(output[0], g[0], upper)


def _definite_samples():
    for upper in (False, True):
        yield sample(Arr((3, 2)), Arr((3, 3), None, 1.0, 2.0, False), upper)
    yield sample(Arr((2, 3, 1)), Arr((3, 3), None, 1.0, 2.0, False), False)
    yield sample(Arr((0, 2)), Arr((0, 0)), False)


@op(name="_cholesky_solve", samples=_definite_samples, grad="CholeskySolveBackward0", **PRIVATE)
def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False):
    """X with A X = B, by the Cholesky factor L (or U) of A."""
    low, b = together(L, B)
    return f.cholesky_solve(low, b, upper)


# --------------------------------------------------------------------------- triangular systems
def _triangular_samples():
    for upper in (False, True):
        for left in (False, True):
            shape = (3, 2) if left else (2, 3)
            yield sample(Arr((3, 3), None, 1.0, 2.0), Arr(shape), upper, left)
    yield sample(Arr((2, 1, 3, 3), None, 1.0, 2.0), Arr((4, 3, 2)), True, True, True)
    yield sample(Arr((0, 0)), Arr((0, 3)), False)


@op(name="_solve_triangular", samples=_triangular_samples, grad="LinalgSolveTriangularBackward0",
    **PRIVATE)
def solve_triangular(A: Tensor, B: Tensor, upper: bool, left: bool = True, unit: bool = False,
                     adjoint: bool = False):
    """X with A X = B, or X A = B, or the same with A^H; one triangle of A is read."""
    return f.solve_triangular(*together(A, B), upper, left, unit, adjoint)


# --------------------------------------------------------------------------- LU
@op(name="_lu_factor", samples=_matrix_samples(), grad="LinalgLuFactorExBackward0", **PRIVATE)
def lu_factor(A: Tensor, name: str | None = None):
    """(LU, pivots, info): A = P L U with partial pivoting, L and U in one matrix."""
    if not A.numel:
        return (p.stop_copy(A), f.zeros((*A.shape[:-2], min(A.shape[-2:])), dtypes.int32),
                _info(A))
    return tuple(f.lu(A, name))


@lu_factor.vjp
def lu_factor_vjp(g, output):
    """By triangular solves with L and U."""
    return f.lu_gradient(*output[:2], g[0]) if g[0] is not None else None


def _order_samples():
    yield sample(Arr((3, 4)), Arr((3,), "int32", 3, 4))


@op(name="_row_order", samples=_order_samples, differentiable=False, **PRIVATE)
def row_order(LU: Tensor, pivots: Index):
    """Which row of A each row of L U is: A[order] = L U."""
    if not pivots.numel:
        return convert(p.iota((*LU.shape[:-1],), LU.ndim - 2), dtypes.int64)
    return f.order_of(LU, pivots)


@op(name="_permuted", samples=lambda: iter([sample(Arr((3, 4)), Arr((3,), "int64", 0, 3))]),
    grad="IndexBackward0", **PRIVATE)
def permuted(x: Tensor, order: Index):
    """Rows in another order: row i of the result is row order[i]."""
    lead = broadcast_shapes(x.shape[:-2], order.shape[:-1])
    return f.permuted(batched(x, lead), batched(order, lead, 1))


def _system_samples():
    yield sample(Arr((3, 3), None, 0.5, 2.0), Arr((3, 2)))
    yield sample(Arr((2, 3, 3), None, 0.5, 2.0), Arr((3, 1)))
    yield sample(Arr((0, 3, 3)), Arr((0, 3, 2)))
    yield sample(Arr((3, 3), None, 0.5, 2.0), Arr((3, 0)))


@op(name="_solve", samples=_system_samples, grad="LinalgSolveExBackward0", **PRIVATE)
def solve(A: Tensor, B: Tensor, name: str | None = None):
    """(X with A X = B, LU and pivots of A^T, info)."""
    if not A.numel:
        _, b = together(A, B)
        return (f.zeros(b.shape, b.dtype), p.stop_copy(A), f.zeros(A.shape[:-1], dtypes.int32),
                _info(A))
    both, pivots, info = f.lu_of_transpose(A, name and (name, "solve"))
    lead = broadcast_shapes(A.shape[:-2], B.shape[:-2])
    x = f.solve_lu(batched(A, lead), batched(both, lead), batched(pivots, lead, 1),
                   batched(B, lead))
    return x, both, pivots, info


@solve.vjp
def solve_vjp(g, A, B, output):
    """A^-H g for B, and minus its product with X^H for A."""
    x, both, pivots, _ = output
    if not A.numel:
        return p.zero_like(A), p.zero_like(B)
    factors = f.factors_gradient(both, pivots, g[1])
    if g[0] is None:
        return factors, None
    lead = x.shape[:-2]
    g_b = p.conj(f.solve_lu(batched(A, lead), batched(both, lead), batched(pivots, lead, 1),
                            p.conj(g[0]), True))
    g_a = p.neg(f.times(g_b, f.adjoint(x)))
    g_a = p.sum_to_shape(g_a, A.shape)
    return f.total([g_a, factors]), p.sum_to_shape(g_b, B.shape)


@op(name="_inverse", samples=_square_samples(), grad="LinalgInvExBackward0", **PRIVATE)
def inverse(A: Tensor, name: str | None = None):
    """(A^-1, info)."""
    if not A.numel:
        return p.stop_copy(A), _info(A)
    return tuple(f.inverse(A, name))


@inverse.vjp
def inverse_vjp(g, output):
    """-X^H g X^H"""
    return f.inverse_gradient(output[0], g[0]) if g[0] is not None else None


# --------------------------------------------------------------------------- determinants
def _sign(pivots: Value, dtype) -> Value:
    """1 or -1 in dtype."""
    place = p.iota(pivots.shape, pivots.ndim - 1)
    moved = p.ne(convert(pivots, dtypes.int64), p.add(place, p.filled(1, place)))
    factors = p.where(moved, *(f.filled_as(value, pivots.shape, dtype) for value in (-1, 1)))
    return p.reduce_prod(factors, (pivots.ndim - 1,))


@op(name="_det", samples=_square_samples(), grad="LinalgDetBackward0", **PRIVATE)
def det(A: Tensor):
    """(determinant, LU and pivots of A^T)."""
    if not A.shape[-1] or not A.numel:
        one = f.filled_as(1, A.shape[:-2], A.dtype)
        return one, p.stop_copy(A), f.zeros(A.shape[:-1], dtypes.int32)
    both, pivots, _ = f.lu_of_transpose(A, None)
    diagonal = f.diagonal_of(both)
    last = diagonal.ndim - 1
    value = p.mul(p.reduce_prod(diagonal, (last,)), _sign(pivots, A.dtype))
    return value, both, pivots


@det.vjp
def det_vjp(g, A, output):
    """g conj(det) A^-H; zero pivots count as tiny ones, which is right to first order: det is a
    polynomial."""
    value, both, pivots = output
    if not A.numel:
        return p.zero_like(A)
    factors = f.factors_gradient(both, pivots, g[1])
    if g[0] is None:
        return factors
    both = p.stop_gradient(both)
    pivot = f.diagonal_of(both)
    tiny = f.filled_as(dtypes.finfo(A.dtype.to_real()).eps, pivot.shape, A.dtype)
    some = p.where(p.eq(pivot, p.zero_like(pivot)), tiny, pivot)
    size = p.mul(p.reduce_prod(some, (pivot.ndim - 1,)), _sign(pivots, A.dtype))
    size = p.where(p.eq(value, p.zero_like(value)), size, value)
    scaled = _inverse_times(A, f.with_diagonal(both, some), pivots, p.mul(g[0], p.conj(size)))
    return f.total([scaled, factors])


def _inverse_times(A: Value, both: Value, pivots: Value, scale: Value) -> Value:
    """scale A^-H, by A's factors."""
    wide = f.on_diagonal(p.expand(p.reshape(scale, (*scale.shape, 1)), A.shape[:-1]))
    return p.conj(f.solve_lu(A, both, pivots, p.conj(wide), True))


@op(name="_slogdet", samples=_square_samples(), grad="LinalgSlogdetBackward0", **PRIVATE)
def slogdet(A: Tensor):
    """(sign, logarithm of the absolute value of the determinant, LU and pivots of A^T)."""
    if not A.shape[-1] or not A.numel:
        lead = A.shape[:-2]
        return (f.filled_as(1, lead, A.dtype), f.zeros(lead, A.dtype.to_real()), p.stop_copy(A),
                f.zeros(A.shape[:-1], dtypes.int32))
    both, pivots, _ = f.lu_of_transpose(A, None)
    diagonal = f.diagonal_of(both)
    last = diagonal.ndim - 1
    size = p.abs_(diagonal)
    some = p.where(p.eq(size, p.zero_like(size)), p.filled(1, size), size)
    unit = p.div(diagonal, convert(some, A.dtype)) if A.dtype.is_complex else p.sign(diagonal)
    sign = p.mul(p.reduce_prod(unit, (last,)), _sign(pivots, A.dtype))
    return sign, p.reduce_sum(p.log(size), (last,)), both, pivots


@slogdet.vjp
def slogdet_vjp(g, A, output):
    """A^-H times the gradient of the logarithm; of a complex sign what turns it."""
    sign, _, both, pivots = output
    parts = []
    if g[1] is not None:
        parts.append(convert(g[1], A.dtype))
    if g[0] is not None and A.dtype.is_complex:
        turn = p.mul(g[0], p.conj(sign))
        parts.append(p.complex_(p.zero_like(p.real(turn)), p.imag(turn)))
    if not A.numel:
        return p.zero_like(A)
    scale = f.total(parts)
    scaled = p.zero_like(A) if scale is None else _inverse_times(A, both, pivots, scale)
    return f.total([scaled, f.factors_gradient(both, pivots, g[2])])


# --------------------------------------------------------------------------- LDL
@op(name="_ldl_factor", samples=_square_samples(), no_derivative=True, **PRIVATE)
def ldl_factor(A: Tensor, hermitian: bool = False, name: str | None = None):
    """(LD, pivots, info): A = L D L^T (or L^H) of symmetric matrices by Bunch and Kaufman."""
    if not A.numel:
        return p.stop_copy(A), f.zeros(A.shape[:-1], dtypes.int32), _info(A)
    code = f.code_of(name, "ldl") if name else 0
    form = Form("ldl", A.dtype, A.ndim - 2, ("hermitian",) if hermitian else (), code)
    return tuple(factor(form, A))


def _ldl_system_samples():
    yield sample(Arr((3, 3), None, 1.0, 2.0), Arr((3,), "int32", 3, 4), Arr((3, 2)))


@op(name="_ldl_solve", samples=_ldl_system_samples, no_derivative=True, **PRIVATE)
def ldl_solve(LD: Tensor, pivots: Index, B: Tensor, hermitian: bool = False):
    """X with A X = B, by the factors from `_ldl_factor`."""
    lead = broadcast_shapes(LD.shape[:-2], B.shape[:-2])
    b = batched(B, lead)
    if not b.numel:
        return f.zeros(b.shape, b.dtype)
    form = Form("ldl_solve", LD.dtype, len(lead), ("hermitian",) if hermitian else ())
    return factor(form, batched(LD, lead), batched(pivots, lead, 1), b)[0]


@ldl_factor.vjp
def ldl_factor_vjp(A):
    """None: the node of an operation without a derivative raises before it gets here."""
    return [None]


@ldl_solve.vjp
def ldl_solve_vjp(LD, B):
    """None, as of `_ldl_factor`."""
    return [None, None]


# --------------------------------------------------------------------------- QR
@op(name="_geqrf", samples=_matrix_samples(), no_derivative=True, **PRIVATE)
def geqrf(input: Tensor):
    """(a, tau): R on and above the diagonal of a, below it the reflectors whose product is Q."""
    if not input.numel:
        return (p.stop_copy(input),
                f.zeros((*input.shape[:-2], min(input.shape[-2:])), input.dtype))
    return tuple(factor(Form("reflectors", input.dtype, input.ndim - 2), input))


@geqrf.vjp
def geqrf_vjp(input):
    """None, as of `_ldl_factor`."""
    return [None]


@op(name="_qr", samples=_matrix_samples(), grad="LinalgQrBackward0", **PRIVATE)
def qr(A: Tensor, complete: bool = False):
    """(Q, R) with A = Q R."""
    high, wide = A.shape[-2:]
    if not A.numel:
        count = high if complete else min(high, wide)
        lead = A.shape[:-2]
        return f.eye((*lead, high, count), A.dtype), f.zeros((*lead, count, wide), A.dtype)
    return tuple(f.qr(A, "complete" if complete else "reduced"))


@qr.vjp
def qr_vjp(g, A, output):
    """By triangular solves with R."""
    return f.qr_gradient(A, *output, *g)


@op(name="_qr_r", samples=_matrix_samples(), differentiable=False, **PRIVATE)
def qr_r(A: Tensor):
    """R of A = Q R alone."""
    if not A.numel:
        return f.zeros((*A.shape[:-2], min(A.shape[-2:]), A.shape[-1]), A.dtype)
    return f.qr(A, "r")[0]


def _reflector_samples():
    yield sample(Arr((4, 3)), Arr((3,)))
    yield sample(Arr((2, 3, 3)), Arr((2, 2)))
    yield sample(Arr((0, 0)), Arr((0,)))


def _reflectors(A: Value, tau: Value) -> tuple[Value, Value]:
    """(V, S): the product of the reflectors I - tau v v^H is I - V S V^H; the columns v of V have
    ones on the diagonal of A and its elements below. S^-1 = T^-1 + triu(V^H V, 1) with T the
    diagonal of tau: without dividing by tau, S = (I + T triu(V^H V, 1))^-1 T."""
    count = tau.shape[-1]
    below = f.columns(A, 0, count)
    v = p.add(f.triangle(below, False, -1), f.eye(below.shape, A.dtype))
    beyond = f.triangle(f.times(f.adjoint(v), v), True, 1)
    system = p.mul(f.row_scale(tau, count), beyond)
    return v, f.solve_triangular(system, f.on_diagonal(tau), True, unit=True)


@op(name="_householder_product", samples=_reflector_samples, **PRIVATE,
    grad="LinalgHouseholderProductBackward0")
def householder_product(input: Tensor, tau: Tensor):
    """The first n columns of the product of the reflectors that the columns of input (..., m, n)
    describe."""
    identity = f.eye(input.shape, input.dtype)
    if not tau.numel or not input.numel:
        return identity
    v, s = _reflectors(input, tau)
    top = f.adjoint(f.rows(v, 0, input.shape[-1]))
    return p.sub(identity, f.times(v, f.times(s, top)))


def _ormqr_samples():
    yield sample(Arr((4, 3)), Arr((3,)), Arr((4, 2)))
    yield sample(Arr((4, 3)), Arr((3,)), Arr((2, 4)), False, True)


@op(name="_ormqr", samples=_ormqr_samples, grad="OrmqrBackward0", **PRIVATE)
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False):
    """Q other, or other Q, with the whole product Q of reflectors, or with Q^H."""
    if not tau.numel or not other.numel:
        return p.stop_copy(other)
    v, s = _reflectors(input, tau)
    if transpose:
        s = f.adjoint(s)
    if left:
        return p.sub(other, f.times(v, f.times(s, f.times(f.adjoint(v), other))))
    return p.sub(other, f.times(f.times(f.times(other, v), s), f.adjoint(v)))


# --------------------------------------------------------------------------- others
@op(name="_matrix_exp", samples=_square_samples(), grad="LinalgMatrixExpBackward0", **PRIVATE)
def matrix_exp(input: Tensor):
    """The exponential of matrices."""
    return f.exponential(input) if input.numel else p.stop_copy(input)


# --------------------------------------------------------------------------- eigenvalues
def _hermitian_samples():
    """Of eigh one triangle is read, but gradients are those of Hermitian matrices; vectors of eig
    have phases. tests/ops/test_linalg.py checks gradients."""
    for shape in ((3, 3), (2, 4, 4), (0, 0)):
        yield sample(Arr(shape, None, -2.0, 2.0, False))


@op(name="_eigh", samples=_hermitian_samples, grad="LinalgEighBackward0", **PRIVATE)
def eigh(A: Tensor, upper: bool = False, name: str = "linalg.eigh"):
    """(eigenvalues, ascending, and vectors) of Hermitian matrices; one triangle is read."""
    if not A.numel:
        return f.zeros(A.shape[:-1], A.dtype.to_real()), p.stop_copy(A)
    return tuple(f.eigh(A, upper, True, name)[:2])


@eigh.vjp
def eigh_vjp(g, output):
    """Eigenvalues that repeat have vectors without a gradient: infinite or NaN."""
    return f.eigh_gradient(*output, *g)


@op(name="_eigvalsh", samples=_square_samples(), differentiable=False, **PRIVATE)
def eigvalsh(A: Tensor, upper: bool = False, name: str = "linalg.eigvalsh"):
    """The eigenvalues of Hermitian matrices, ascending, without vectors."""
    if not A.numel:
        return f.zeros(A.shape[:-1], A.dtype.to_real())
    return f.eigh(A, upper, False, name)[0]


@op(name="_eig", samples=_hermitian_samples, grad="LinalgEigBackward0", **PRIVATE)
def eig(A: Tensor, name: str = "linalg.eig"):
    """(eigenvalues, vectors), complex, of square matrices."""
    if not A.numel:
        dtype = A.dtype.to_complex()
        return f.zeros(A.shape[:-1], dtype), f.zeros(A.shape, dtype)
    return tuple(f.eig(A, True, name)[:2])


@eig.vjp
def eig_vjp(g, A, output):
    """Of vectors of length 1, whatever their phase."""
    if g[0] is None and g[1] is None:
        return None
    return p.zero_like(A) if not A.numel else f.eig_gradient(*output, *g)


@op(name="_eigvals", samples=_square_samples(), differentiable=False, **PRIVATE)
def eigvals(A: Tensor, name: str = "linalg.eigvals"):
    """The eigenvalues of square matrices, complex, without vectors."""
    if not A.numel:
        return f.zeros(A.shape[:-1], A.dtype.to_complex())
    return f.eig(A, False, name)[0]


# --------------------------------------------------------------------------- singular values
@op(name="_svd", samples=_matrix_samples(), grad="LinalgSvdBackward0", **PRIVATE)
def svd(A: Tensor, full: bool = False, name: str = "linalg.svd"):
    """(U, S, V^H) with A = U S V^H; with `full` U and V are square."""
    high, wide = A.shape[-2:]
    if not A.numel:
        lead, k = A.shape[:-2], min(high, wide)
        rows, columns = (high, wide) if full else (k, k)
        return (f.eye((*lead, high, rows), A.dtype), f.zeros((*lead, k), A.dtype.to_real()),
                f.eye((*lead, columns, wide), A.dtype))
    return tuple(f.svd(A, full, name)[:3])


@svd.vjp
def svd_vjp(g, A, output):
    """Of the first min(m, n) vectors: the others are any basis of what is left."""
    (u, s, vh), (g_u, g_s, g_vh) = output, g
    if not A.numel:
        return p.zero_like(A)
    k = s.shape[-1]
    g_u = None if g_u is None else f.columns(g_u, 0, k)
    g_vh = None if g_vh is None else f.rows(g_vh, 0, k)
    return f.svd_gradient(f.columns(u, 0, k), s, f.rows(vh, 0, k), g_u, g_s, g_vh)


@op(name="_svdvals", samples=_matrix_samples(), differentiable=False, **PRIVATE)
def svdvals(A: Tensor, name: str = "linalg.svdvals"):
    """The singular values, descending, without vectors."""
    if not A.numel:
        return f.zeros((*A.shape[:-2], min(A.shape[-2:])), A.dtype.to_real())
    return f.singular_values(A, name)[0]


# --------------------------------------------------------------------------- least squares
def _least_squares_samples():
    for driver in ("gels", "gelsy", "gelsd", "gelss"):
        yield sample(Arr((5, 3)), Arr((5, 2)), Arr((), "float64", 0.0, 1e-9), driver)


@op(name="_lstsq", samples=_least_squares_samples, differentiable=False, **PRIVATE)
def lstsq(A: Tensor, B: Tensor, rcond: Index, driver: str):
    """(max(m, n) rows: X in the first n, below it what residuals are made of; rank; singular
    values). `rcond`: the size, in terms of the largest, up to which a singular value is 0."""
    high, wide = A.shape[-2:]
    lead, k = A.shape[:-2], B.shape[-1]
    if not A.numel or not B.numel:
        rest = p.spread(B, (0,) * B.ndim, (1,) * B.ndim, (*lead, max(high, wide), k)) \
            if not wide else f.zeros((*lead, max(high, wide), k), A.dtype)
        return (rest, f.zeros(lead, dtypes.int64),
                f.zeros((*lead, min(high, wide)), A.dtype.to_real()))
    limit = p.expand(convert(rcond, A.dtype.to_real()), lead)
    return tuple(f.least_squares(A, B, limit, driver, "torch.linalg.lstsq")[:3])


# --------------------------------------------------------------------------- the pseudo-inverse
def _pseudo_samples():
    for shape, hermitian in (((3, 2), False), ((2, 2, 3), False), ((3, 3), False)):
        yield sample(Arr(shape), Arr((), "float64", 0.0, 1e-9, False),
                     Arr((), "float64", 0.0, 1e-9, False), hermitian)


@op(name="_pinv", samples=_pseudo_samples, grad="LinalgPinvBackward0", **PRIVATE)
def pinv(A: Tensor, atol: Index, rtol: Index, hermitian: bool = False):
    """The pseudo-inverse: singular values up to max(atol, rtol * the largest one) count as 0."""
    lead = broadcast_shapes(A.shape[:-2], atol.shape, rtol.shape)
    a = batched(A, lead)
    if not a.numel:
        return f.zeros((*lead, A.shape[-1], A.shape[-2]), A.dtype)
    if hermitian:
        values, v = f.eigh(a, False, True, "linalg.eigh")[:2]
        u, size = f.adjoint(v), p.abs_(values)
    else:
        left, values, vh = f.svd(a, False, "linalg.svd")[:3]
        v, u, size = f.adjoint(vh), f.adjoint(left), values
    last = size.ndim - 1
    largest = p.reduce_max(size, (last,))
    limits = [p.expand(convert(x, size.dtype), lead) for x in (atol, rtol)]
    limit = p.maximum(limits[0], p.mul(limits[1], largest))
    kept = p.gt(size, p.expand(p.reshape(limit, (*lead, 1)), size.shape))
    some = p.where(kept, values, p.filled(1, values))
    inverse = p.where(kept, p.div(p.filled(1, values), some), p.zero_like(values))
    return f.times(p.mul(v, f.column_scale(convert(inverse, A.dtype), v.shape[-2])), u)


@pinv.vjp
def pinv_vjp(g, A, output):
    """G. Golub, V. Pereyra, "The differentiation of pseudo-inverses" (1973): of constant rank."""
    a = batched(A, output.shape[:-2])
    if not a.numel:
        return p.zero_like(A)
    x, x_h, g_h = output, f.adjoint(output), f.adjoint(g)
    if a.shape[-2] <= a.shape[-1]:
        k = f.times(g_h, x)
        inner = f.times(k, x_h)
        parts = [p.neg(f.adjoint(f.times(x, k))), inner, p.neg(f.times(f.times(a, x), inner)),
                 f.times(f.times(x_h, x), p.sub(g_h, f.times(k, a)))]
    else:
        k = f.times(x, g_h)
        inner = f.times(x_h, k)
        parts = [p.neg(f.adjoint(f.times(k, x))), inner, p.neg(f.times(f.times(inner, x), a)),
                 f.times(f.times(p.sub(g_h, f.times(a, k)), x), x_h)]
    return p.sum_to_shape(f.total(parts), A.shape)
