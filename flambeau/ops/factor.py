"""Factorizations over Values: what LAPACK's routines compute, and their gradients.

Every function takes matrices (..., m, n) whose leading dimensions are alike. Gradients are written
with products and triangular solves, so that they have gradients themselves. With complex numbers g
is the gradient with respect to the conjugate, as everywhere; x^H is the conjugate transpose.

Sources: M. Giles, "Collected matrix derivative results" (2008), for symmetric and triangular ones;
P. Walter, L. Lehmann, "Algorithmic differentiation of linear algebra functions" (2012), for QR;
C. Boeddeker et al., "On the computation of complex-valued gradients" (2017), for eigenvectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.core.failures import code_of
from flambeau.ir.graph import Value, constant
from flambeau.ops import matmul as m
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.primitives.factors import Form, factor, factor_rule

__all__ = ["adjoint", "cholesky", "diagonal_of", "eig", "eigh", "eye", "inverse", "least_squares",
           "lu", "lu_of_transpose", "mask", "on_diagonal", "order_of", "permuted", "qr",
           "solve_lu", "solve_triangular", "svd", "transposed", "triangle"]

Grads = Sequence[Value | None]


# --------------------------------------------------------------------------- parts of matrices
def transposed(x: Value) -> Value:
    """The last two dimensions swapped."""
    return p.permute(x, [*range(x.ndim - 2), x.ndim - 1, x.ndim - 2])


def adjoint(x: Value) -> Value:
    """The conjugate transpose."""
    return transposed(p.conj(x))


def times(a: Value, b: Value) -> Value:
    """The product of matrices."""
    return m.product(a, b)


def mask(shape: Sequence[int], upper: bool, offset: int = 0) -> Value:
    """Whether an element of a matrix lies in a triangle: above (below) the diagonal with this
    number, or on it."""
    row, column = p.iota(shape, len(shape) - 2), p.iota(shape, len(shape) - 1)
    moved = p.add(row, p.filled(offset, row))
    return p.ge(column, moved) if upper else p.le(column, moved)


def triangle(x: Value, upper: bool, offset: int = 0) -> Value:
    """One triangle of matrices, zeros elsewhere."""
    return p.where(mask(x.shape, upper, offset), x, p.zero_like(x))


def eye(shape: Sequence[int], dtype) -> Value:
    """Identities of a shape, square or not."""
    same = p.eq(p.iota(shape, len(shape) - 2), p.iota(shape, len(shape) - 1))
    return convert(same, dtype)


def diagonal_of(x: Value) -> Value:
    """The diagonals of matrices."""
    return p.take_diagonal(x, 0, 0, min(x.shape[-2:]))


def on_diagonal(x: Value) -> Value:
    """Vectors as the diagonals of square matrices."""
    n = x.shape[-1]
    wide = column_scale(x, n)
    here = p.eq(p.iota(wide.shape, x.ndim - 1), p.iota(wide.shape, x.ndim))
    return p.where(here, wide, p.zero_like(wide))


def with_diagonal(x: Value, diagonal: Value) -> Value:
    """x with another diagonal."""
    here = p.eq(p.iota(x.shape, x.ndim - 2), p.iota(x.shape, x.ndim - 1))
    return p.where(here, column_scale(diagonal, x.shape[-2]), x)


def column_scale(x: Value, rows: int) -> Value:
    """Vectors as what multiplies the columns of matrices with so many rows."""
    return p.expand(p.reshape(x, (*x.shape[:-1], 1, x.shape[-1])),
                    (*x.shape[:-1], rows, x.shape[-1]))


def row_scale(x: Value, columns: int) -> Value:
    """Vectors as what multiplies the rows of matrices with so many columns."""
    return p.expand(p.reshape(x, (*x.shape, 1)), (*x.shape, columns))


def halved_diagonal(x: Value) -> Value:
    here = p.eq(p.iota(x.shape, x.ndim - 2), p.iota(x.shape, x.ndim - 1))
    return p.where(here, p.mul(x, p.filled(0.5, x)), x)


def skew(x: Value) -> Value:
    return p.sub(x, adjoint(x))


def columns(x: Value, start: int, count: int) -> Value:
    """Some columns of matrices."""
    return p.slice_dim(x, x.ndim - 1, start, 1, count)


def rows(x: Value, start: int, count: int) -> Value:
    """Some rows of matrices."""
    return p.slice_dim(x, x.ndim - 2, start, 1, count)


def total(parts: Sequence[Value | None]) -> Value | None:
    """The sum of what is there; None if nothing is."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    result = known[0]
    for part in known[1:]:
        result = p.add(result, part)
    return result


def filled_as(value: float, shape: Sequence[int], dtype) -> Value:
    """A constant of this shape and dtype."""
    return p.expand(constant(value, dtype, number=False), shape)


def touched(result: Value, *inputs: Value) -> Value:
    """`result`, which follows from empty matrices or is empty itself, as a function of them: their
    gradients are zeros rather than nothing."""
    for value in inputs:
        nothing = p.reduce_sum(convert(value, result.dtype), range(value.ndim))
        result = p.add(result, p.expand(nothing, result.shape))
    return result


def zeros(shape: Sequence[int], dtype) -> Value:
    return p.expand(constant(0, dtype, number=False), shape)


def _form(routine: str, x: Value, *flags: str | None, name: tuple[str, str] | None = None,
          unread: int = 0, real: tuple[int, ...] = (), core: int = 2) -> Form:
    code = code_of(*name) if name else 0
    return Form(routine, x.dtype, x.ndim - core, tuple(flag for flag in flags if flag), code,
                unread, real)


# --------------------------------------------------------------------------- Cholesky
def cholesky(x: Value, upper: bool, name: str | None) -> list[Value]:
    """(L, info) with A = L L^H, or with upper U and A = U^H U. `name`: of the operation that raises
    if A is not positive definite."""
    return factor(_form("cholesky", x, upper and "upper", name=name and (name, "cholesky")), x)


@factor_rule("cholesky")
def cholesky_rule(node, results, grads):
    """Of the triangle."""
    return [cholesky_gradient(results[0], grads[0], "upper" in node.attrs[0].flags)]


def cholesky_gradient(result: Value, g: Value, upper: bool) -> Value:
    """By L^-H phi(L^H g) L^-1, made Hermitian; phi takes the lower triangle, half the diagonal."""
    low, g = (adjoint(result), adjoint(g)) if upper else (result, g)
    middle = halved_diagonal(triangle(times(adjoint(low), g), False))
    inner = solve_triangular(low, middle, False, adjoint=True)
    both = solve_triangular(low, inner, False, left=False)
    return p.mul(p.add(both, adjoint(both)), p.filled(0.5, both))


def cholesky_solve(low: Value, b: Value, upper: bool) -> Value:
    """X with L L^H X = B, or with U^H U X = B."""
    if not b.numel:
        return touched(zeros(b.shape, b.dtype), low, b)
    form = _form("cholesky_solve", low, upper and "upper")
    return p.conj(factor(form, low, p.conj(b))[0])


@factor_rule("cholesky_solve")
def cholesky_solve_rule(node, results, grads):
    """As if all of L were read, as in PyTorch: gradients pass through A = L L^H. The routine itself
    solves with the conjugate of A."""
    (low, _), upper = node.inputs, "upper" in node.attrs[0].flags
    g_b = p.conj(cholesky_solve(low, p.conj(grads[0]), upper))
    g_a = p.conj(times(g_b, adjoint(results[0])))
    both = p.neg(p.add(g_a, adjoint(g_a)))
    return [times(low, both) if upper else times(both, low), g_b]


# --------------------------------------------------------------------------- triangular systems
def solve_triangular(a: Value, b: Value, upper: bool, left: bool = True, unit: bool = False,
                     adjoint: bool = False) -> Value:
    """X with op(A) X = B, or X op(A) = B; op(A) is A or A^H, of which one triangle is read."""
    if not b.numel or not a.numel:
        return touched(zeros(b.shape, b.dtype), a, b)
    form = _form("triangular", a, upper and "upper", left and "left", unit and "unit",
                 adjoint and "adjoint")
    return factor(form, a, b)[0]


@factor_rule("triangular")
def triangular_rule(node, results, grads):
    """The same system with the other of A and A^H for B; for A what B's gradient and X make."""
    flags, (a, _), g, x = node.attrs[0].flags, node.inputs, grads[0], results[0]
    upper, left, unit, turned = (word in flags for word in ("upper", "left", "unit", "adjoint"))
    g_b = solve_triangular(a, g, upper, left, unit, not turned)
    if left:
        g_a = times(x, adjoint(g_b)) if turned else times(g_b, adjoint(x))
    else:
        g_a = times(adjoint(g_b), x) if turned else times(adjoint(x), g_b)
    offset = 0 if not unit else 1 if upper else -1
    return [p.neg(triangle(g_a, upper, offset)), g_b]


# --------------------------------------------------------------------------- LU
def lu(x: Value, name: str | None) -> list[Value]:
    """(LU, pivots, info): L without its diagonal of ones and U in one matrix; row i was exchanged
    with row pivots[i] - 1."""
    return factor(_form("lu", x, name=name and (name, "lu_factor")), x)


@factor_rule("lu")
def lu_rule(node, results, grads):
    """Of the matrix that holds both factors."""
    return [lu_gradient(*results[:2], grads[0])]


def lu_gradient(both: Value, pivots: Value, g: Value) -> Value:
    """Through the square part, where A = P L U, and what is beyond it."""
    high, wide = both.shape[-2:]
    k = min(high, wide)
    low, up = columns(rows(both, 0, k), 0, k), columns(rows(both, 0, k), 0, k)
    g_square = columns(rows(g, 0, k), 0, k)
    g_low, g_up = triangle(g_square, False, -1), triangle(g_square, True)
    beyond = None
    if wide > k:  # U2 = L^-1 A2
        g_rest, rest = columns(g, k, wide - k), columns(both, k, wide - k)
        beyond = solve_triangular(low, g_rest, False, unit=True, adjoint=True)
        g_low = p.sub(g_low, triangle(times(beyond, adjoint(rest)), False, -1))
    elif high > k:  # L2 = A2 U^-1
        g_rest, rest = rows(g, k, high - k), rows(both, k, high - k)
        beyond = solve_triangular(up, g_rest, True, left=False, adjoint=True)
        g_up = p.sub(g_up, triangle(times(adjoint(rest), beyond), True))
    l_part = triangle(times(adjoint(_unit_low(low)), g_low), False, -1)
    u_part = triangle(times(g_up, adjoint(triangle(up, True))), True)
    inner = solve_triangular(low, p.add(l_part, u_part), False, unit=True, adjoint=True)
    square = solve_triangular(up, inner, True, left=False, adjoint=True)
    if beyond is not None:
        square = p.cat((square, beyond), both.ndim - 1 if wide > k else both.ndim - 2)
    return permuted(square, p.argsort(order_of(both, pivots), False))


def _unit_low(x: Value) -> Value:
    return p.add(triangle(x, False, -1), eye(x.shape, x.dtype))


def order_of(both: Value, pivots: Value) -> Value:
    """Which row of A each row of L U is: (..., m) int64."""
    return factor(Form("permutation", both.dtype, both.ndim - 2), both, pivots)[0]


def permuted(x: Value, order: Value) -> Value:
    """Rows in another order: row i of the result is row order[i]."""
    lead = x.ndim - 2
    wide = p.expand(p.reshape(order, (*order.shape, 1)), (*order.shape, x.shape[-1]))
    shape = (*order.shape, x.shape[-1])
    return p.lookup(x, [*range(lead), wide, lead + 1], shape)


def lu_of_transpose(x: Value, name: tuple[str, str] | None) -> list[Value]:
    """(LU, pivots, info) of the transpose, in LAPACK's own order: for `solve_lu`, determinants.
    `name`: (of the operation that raises if there is a zero pivot, which message it has)."""
    return factor(_form("lu_of_transpose", x, name=name), x)


@factor_rule("lu_of_transpose")
def lu_of_transpose_rule(node, results, grads):
    """Of the factors."""
    return [factors_gradient(*results[:2], grads[0])]


def factors_gradient(both: Value, pivots: Value, g: Value | None) -> Value | None:
    """The gradient of A by that of the factors of its transpose."""
    if g is None:
        return None
    return transposed(lu_gradient(transposed(both), pivots, transposed(g)))


def solve_lu(a: Value, both: Value, pivots: Value, b: Value, transpose: bool = False) -> Value:
    """X with A X = B, or A^T X = B, with A's factors from `lu_of_transpose`."""
    if not b.numel:
        return touched(zeros(b.shape, b.dtype), a, b)
    form = _form("lu_solve", both, transpose and "transposed", unread=1)
    return factor(form, a, both, pivots, b)[0]


@factor_rule("lu_solve")
def solve_lu_rule(node, results, grads):
    """With the same factors: A^H is the conjugate of A^T."""
    a, both, pivots, _ = node.inputs
    turned = "transposed" in node.attrs[0].flags
    g_b = p.conj(solve_lu(a, both, pivots, p.conj(grads[0]), not turned))
    g_a = p.neg(times(g_b, adjoint(results[0])))
    return [transposed(g_a) if turned else g_a, None, None, g_b]


def inverse(x: Value, name: str | None) -> list[Value]:
    """(A^-1, info)."""
    return factor(_form("inverse", x, name=name and (name, "inverse")), x)


@factor_rule("inverse")
def inverse_rule(node, results, grads):
    """Of the inverse."""
    return [inverse_gradient(results[0], grads[0])]


def inverse_gradient(x: Value, g: Value) -> Value:
    """-X^H g X^H"""
    turned = adjoint(x)
    return p.neg(times(turned, times(g, turned)))


# --------------------------------------------------------------------------- QR
def qr(x: Value, mode: str) -> list[Value]:
    """(Q, R); for the mode "r" R alone."""
    flag = {"reduced": None, "complete": "complete", "r": "r"}[mode]
    return factor(_form("qr", x, flag), x)


@factor_rule("qr")
def qr_rule(node, results, grads):
    """Of Q and R."""
    if "r" in node.attrs[0].flags:
        raise NotImplementedError("R alone has no derivative; use qr")
    return [qr_gradient(node.inputs[0], *results, *grads)]


def qr_gradient(x: Value, q: Value, r: Value, g_q: Value | None, g_r: Value | None
                ) -> Value | None:
    """Of what is square or high; what is beyond the square of a wide one follows from Q. Columns of
    Q beyond those of a high matrix are any basis of what is left: their gradient is right if what
    is computed from them does not depend on which."""
    high, wide = x.shape[-2:]
    if g_q is None and g_r is None:
        return None
    if not x.numel:
        return p.zero_like(x)
    if r.shape[-2] > wide:
        rest, g_rest = columns(q, wide, high - wide), None
        if g_q is not None:
            g_rest = columns(g_q, wide, high - wide)
        q, r = columns(q, 0, wide), rows(r, 0, wide)
        g_q = None if g_q is None else columns(g_q, 0, wide)
        g_r = None if g_r is None else rows(g_r, 0, wide)
        if g_rest is not None:
            g_q = p.sub(g_q, times(rest, times(adjoint(g_rest), q)))
    beyond = None
    if wide > high:
        if g_r is not None:
            rest = columns(g_r, high, wide - high)
            beyond = times(q, rest)
            g_q = total([g_q, times(columns(x, high, wide - high), adjoint(rest))])
            g_r = columns(g_r, 0, high)
        r = columns(r, 0, high)
    middle = total([None if g_r is None else times(g_r, adjoint(r)),
                    None if g_q is None else p.neg(times(adjoint(q), g_q))])
    upper = triangle(middle, True)
    symmetric = halved_diagonal(p.add(upper, adjoint(upper)))
    inner = total([g_q, times(q, symmetric)])
    result = solve_triangular(r, inner, True, left=False, adjoint=True)
    if wide > high:
        if beyond is None:
            beyond = zeros((*x.shape[:-1], wide - high), x.dtype)
        result = p.cat((result, beyond), x.ndim - 1)
    return result


# --------------------------------------------------------------------------- eigenvalues
def eigh(x: Value, upper: bool, vectors: bool, name: str) -> list[Value]:
    """(eigenvalues, ascending, and vectors, info) of Hermitian matrices of which one triangle is
    read; without vectors (eigenvalues, info)."""
    form = _form("hermitian", x, upper and "upper", vectors and "vectors", name=(name, "eig"))
    return factor(form, x)


@factor_rule("hermitian")
def eigh_rule(node, results, grads):
    """Of eigenvalues and vectors."""
    if "vectors" not in node.attrs[0].flags:
        raise NotImplementedError("eigenvalues without vectors have no derivative; use eigh")
    return [eigh_gradient(*results[:2], *grads[:2])]


def eigh_gradient(values: Value, v: Value, g_values: Value | None, g_v: Value | None
                  ) -> Value | None:
    """V (g_L + skew(V^H g_V) / (L_j - L_i)) V^H"""
    turned = adjoint(v)
    if g_v is None:
        if g_values is None:
            return None
        scaled = p.mul(v, column_scale(convert(g_values, v.dtype), v.shape[-2]))
        return times(scaled, turned)
    middle = skew(times(turned, g_v))
    middle = p.mul(middle, p.filled(0.5, middle))
    inner = p.div(middle, convert(_differences(values), v.dtype))
    if g_values is not None:
        inner = with_diagonal(inner, convert(g_values, v.dtype))
    return times(v, times(inner, turned))


def _differences(values: Value) -> Value:
    """L_j - L_i, and 1 on the diagonal."""
    n = values.shape[-1]
    difference = p.sub(column_scale(values, n), row_scale(values, n))
    return with_diagonal(difference, p.filled(1, values))


def eig(x: Value, vectors: bool, name: str) -> list[Value]:
    """(eigenvalues, vectors of length 1, info), complex; without vectors (eigenvalues, info)."""
    found = factor(_form("general", x, vectors and "vectors", name=(name, "eig")), x)
    if x.dtype.is_complex:
        return found
    return [*(p.view_as_complex(v) for v in found[:-1]), found[-1]]


def eig_gradient(values: Value, v: Value, g_values: Value | None, g_v: Value | None) -> Value:
    """V^-H (g_L + (V^H g_V - V^H V real(diag(V^H g_V))) / conj(L_j - L_i)) V^H"""
    turned = adjoint(v)
    if g_v is not None:
        middle = times(turned, g_v)
        length = column_scale(convert(p.real(diagonal_of(middle)), v.dtype), v.shape[-2])
        middle = p.sub(middle, times(turned, p.mul(v, length)))
        middle = p.div(middle, p.conj(_differences(values)))
        if g_values is not None:
            middle = with_diagonal(middle, g_values)
        inner = times(middle, turned)
    else:
        inner = p.mul(row_scale(g_values, v.shape[-1]), turned)
    both, pivots, _ = lu_of_transpose(turned, None)
    return solve_lu(turned, both, pivots, inner)


# --------------------------------------------------------------------------- singular values
def svd(x: Value, full: bool, name: str) -> list[Value]:
    """(U, S, V^H, info)."""
    return factor(_form("singular", x, "full" if full else None, name=(name, "svd")), x)


def singular_values(x: Value, name: str) -> list[Value]:
    """(S, info)."""
    return factor(_form("singular", x, "none", name=(name, "svd")), x)


@factor_rule("singular")
def svd_rule(node, results, grads):
    """Of the first min(m, n) singular vectors."""
    if "none" in node.attrs[0].flags:
        raise NotImplementedError("singular values without vectors have no derivative; use svd")
    (u, s, vh, _), (g_u, g_s, g_vh, _) = results, grads
    k = s.shape[-1]
    g_u = None if g_u is None else columns(g_u, 0, k)
    g_vh = None if g_vh is None else rows(g_vh, 0, k)
    return [svd_gradient(columns(u, 0, k), s, rows(vh, 0, k), g_u, g_s, g_vh)]


def svd_gradient(u: Value, s: Value, vh: Value, g_u: Value | None, g_s: Value | None,
                 g_vh: Value | None) -> Value | None:
    """U ((skew(U^H g_U) S + S skew(V^H g_V)) / (S_j^2 - S_i^2) + g_S) V^H, and what leads out of
    the spaces of U and of V."""
    if g_u is None and g_vh is None:
        if g_s is None:
            return None
        return times(p.mul(u, column_scale(convert(g_s, u.dtype), u.shape[-2])), vh)
    k, real = s.shape[-1], convert(s, u.dtype)
    gaps = convert(_differences(p.mul(s, s)), u.dtype)
    u_h, parts = adjoint(u), []
    if g_u is not None:
        turn = skew(times(u_h, g_u))
        parts.append(p.mul(p.div(turn, gaps), column_scale(real, k)))
        if u.dtype.is_complex:
            two = p.mul(real, p.filled(2, real))
            parts.append(on_diagonal(p.div(diagonal_of(turn), two)))
    if g_vh is not None:
        turn = skew(times(vh, adjoint(g_vh)))
        parts.append(p.mul(row_scale(real, k), p.div(turn, gaps)))
    if g_s is not None:
        parts.append(on_diagonal(convert(g_s, u.dtype)))
    inner = times(u, times(total(parts), vh))
    high, wide = u.shape[-2], vh.shape[-1]
    if high > k and g_u is not None:
        out = p.div(p.sub(g_u, times(u, times(u_h, g_u))), column_scale(real, high))
        inner = p.add(inner, times(out, vh))
    if wide > k and g_vh is not None:
        out = p.sub(g_vh, times(times(g_vh, adjoint(vh)), vh))
        inner = p.add(inner, times(u, p.div(out, row_scale(real, wide))))
    return inner


# --------------------------------------------------------------------------- others
def least_squares(a: Value, b: Value, rcond: Value, driver: str, name: str) -> list[Value]:
    """(X and what residuals are made of below it, rank, singular values, info)."""
    form = _form("least_squares", a, driver, name=(name, "lstsq"), real=(2,))
    return factor(form, a, b, rcond)


def exponential(x: Value) -> Value:
    """The exponential of matrices."""
    return factor(_form("exponential", x), x)[0] if x.numel else x


@factor_rule("exponential")
def exponential_rule(node, results, grads):
    """The upper right block of the exponential of [[A^H, g], [0, A^H]]."""
    (x,), g = node.inputs, grads[0]
    n, turned = x.shape[-1], adjoint(x)
    above = p.cat((turned, g), x.ndim - 1)
    below = p.cat((zeros(x.shape, x.dtype), turned), x.ndim - 1)
    whole = exponential(p.cat((above, below), x.ndim - 2))
    return [columns(rows(whole, 0, n), n, n)]
