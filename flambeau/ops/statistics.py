"""Reductions beyond the plain ones: those that skip NaN, distances, covariance, integrals by
trapezoids."""

from __future__ import annotations

import numpy as np

from flambeau.core.shapes import broadcast_shapes, normalize_dim, normalize_dims
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops import reduce as r
from flambeau.ops.checks import one_dtype
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.samples import Arr, sample


# --------------------------------------------------------------------------- without NaN
def _numbers(x: Value) -> Value:
    """Which elements are numbers."""
    return p.eq(x, x)


@op(samples=r.over(), oracle=np.nansum)
def nansum(input: Tensor, dim: int | tuple | None = None, keepdim: bool = False, *,
           dtype: object = None):
    """The sum over dim of all elements that are not NaN; integers add up in int64.

    >>> torch.nansum(torch.tensor([1., float("nan"), 3.]))
    tensor(4.)
    """
    if input.dtype.is_complex:
        raise RuntimeError("nansum does not support complex inputs")
    x = input
    if x.dtype.kind == "f":
        x = p.where(_numbers(x), x, e.like(0, x))
    return r.sum.body(x, dim, keepdim, dtype=dtype)


@op(samples=r.over(empty=False), oracle=np.nanmean, grad="DivBackward0")
def nanmean(input: Tensor, dim: int | tuple | None = None, keepdim: bool = False, *,
            dtype: object = None):
    """The mean over dim of all elements that are not NaN.

    >>> torch.nanmean(torch.tensor([1., float("nan"), 3.]))
    tensor(2.)
    """
    if input.dtype.is_integral:
        raise RuntimeError("nanmean(): expected input to have floating point or complex dtype but "
                           f"got {input.dtype.scalar_name}")
    if input.dtype.is_complex:
        raise RuntimeError("nansum on CPU does not support complex inputs")
    x = input if dtype is None else convert(input, dtype)
    counted = _numbers(x)
    total = r.sum.body(p.where(counted, x, e.like(0, x)), dim, keepdim)
    return p.div(total, r.sum.body(convert(counted, x.dtype), dim, keepdim))


# --------------------------------------------------------------------------- both extrema
@op(returns=("min", "max"), samples=lambda: iter([
    sample(Arr((3, 4))), sample(Arr((3, 4)), dim=1),
    sample(Arr((2, 3, 17)), dim=-1, keepdim=True)]))
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False):
    """The smallest and the largest element, over dim or all.

    >>> torch.aminmax(torch.tensor([3., 1., 2.]))
    torch.return_types.aminmax(
    min=tensor(1.),
    max=tensor(3.))
    """
    dims = normalize_dims(dim, input.ndim)
    if input.numel == 0 and r.count_of(input, dims) == 0:
        if dim is not None:
            raise IndexError(f"aminmax(): Expected reduction dim {dim} to have non-zero size.")
        raise RuntimeError("aminmax(): cannot compute aminmax over an empty dimension as the "
                           "operation has no identity.")
    if input.dtype.is_complex:
        raise NotImplementedError("\"aminmax_cpu\" not implemented for complex numbers; take the "
                                  "extrema of input.abs()")
    low, high = p.reduce_min(input, dims), p.reduce_max(input, dims)
    return r.kept(low, input, dims, keepdim), r.kept(high, input, dims, keepdim)


# --------------------------------------------------------------------------- distances
@op(promote="match", refuses="bui", samples=lambda: iter([
    sample(Arr((3, 4)), Arr((4,))), sample(Arr((5,)), Arr((5,)), 1),
    sample(Arr((5,)), Arr((5,)), float("inf"))]))
def dist(input: Tensor, other: Tensor, p: float = 2):
    """The norm of order p of input - other.

    >>> torch.dist(torch.tensor([0., 0.]), torch.tensor([3., 4.]))
    tensor(5.)
    """
    return _norm_of(e.sub(input, other), p)


def _norm_of(gap: Value, order: float) -> Value:
    return norm(gap, order, None, False)


def norm(x: Value, order: float, dim, keepdim: bool) -> Value:
    """The vector norm, written so that its derived gradient is 0 where the norm is."""
    dims = normalize_dims(dim, x.ndim)
    size = p.abs_(x)
    if order in (float("inf"), float("-inf")):
        result = (p.reduce_max if order > 0 else p.reduce_min)(size, dims)
    elif order == 0:
        result = r.how_many(size, dims)
    elif order == 1:
        result = p.reduce_sum(size, dims)
    else:
        zero = p.eq(size, p.zero_like(size))
        safe = p.where(zero, p.filled(1, size), size)
        power = p.mul(safe, safe) if order == 2 else p.pow_(safe, p.filled(order, safe))
        total = p.reduce_sum(p.where(zero, p.zero_like(size), power), dims)
        nothing = p.eq(total, p.zero_like(total))
        safe = p.where(nothing, p.filled(1, total), total)
        root = p.sqrt(safe) if order == 2 else p.pow_(safe, p.filled(1 / order, safe))
        result = p.where(nothing, p.zero_like(total), root)
    return r.kept(result, x, dims, keepdim)


@op(name="_matrix_norm", public=(), method=False, samples=lambda: iter([
    sample(Arr((3, 4)), 1.0, (0, 1)), sample(Arr((2, 3, 4)), float("inf"), (-2, -1), True),
    sample(Arr((2, 3, 4)), -1.0, (0, 2))]), grad="AminBackward0")
def _matrix_norm(A: Tensor, ord: float, dim: tuple, keepdim: bool = False, *,
                 dtype: object = None):
    """The largest (ord > 0) or smallest sum of sizes of a column (ord 1, -1) or row (inf, -inf)."""
    x = A if dtype is None else convert(A, dtype)
    rows, columns = (normalize_dim(d, x.ndim) for d in dim)
    summed, rest = (rows, columns) if abs(ord) == 1 else (columns, rows)
    if not x.shape[rest]:
        if ord < 0:
            raise IndexError(f"amin(): Expected reduction dim {rest} to have non-zero size.")
        shape = [size for d, size in enumerate(x.shape) if d not in (rows, columns)]
        nothing = p.expand(e.like(0, p.reduce_sum(x, range(x.ndim))), shape)
        return r.kept(convert(nothing, x.dtype.to_real()), x, (rows, columns), keepdim)
    sums = p.reduce_sum(p.abs_(x), (summed,))
    at = rest - (summed < rest)
    extremum = (p.reduce_max if ord > 0 else p.reduce_min)(sums, (at,))
    return r.kept(extremum, x, (rows, columns), keepdim)


@op(method=False, out=False, samples=lambda: iter([
    sample(Arr((3, 4)), Arr((5, 4))), sample(Arr((2, 3, 4)), Arr((5, 4)), 1.0),
    sample(Arr((3, 4)), Arr((2, 4)), float("inf")),
    sample(Arr((30, 2)), Arr((3, 2)))]), refuses="bui",
    check=one_dtype("expected scalar type {first} but found {other}", 0, 1))
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0,
          compute_mode: str | None = "use_mm_for_euclid_dist_if_necessary"):
    """The distances of all pairs of rows: (..., n, m) and (..., k, m) -> (..., n, k).

    Args:
        compute_mode: whether Euclidean distances come from one matrix product, which is fast, but
            loses digits of small ones: "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist", or
            "use_mm_for_euclid_dist_if_necessary", for more than 25 rows.

    >>> torch.cdist(torch.tensor([[0., 0.]]), torch.tensor([[3., 4.], [0., 1.]]))
    tensor([[5., 1.]])
    """
    many = max(x.shape[-2] if x.ndim > 1 else 0 for x in (x1, x2)) > 25
    by_product = {None: many, "use_mm_for_euclid_dist_if_necessary": many,
                  "use_mm_for_euclid_dist": True, "donot_use_mm_for_euclid_dist": False}
    if compute_mode not in by_product:
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    return _pair_distances(x1, x2, p, by_product[compute_mode])


def _euclidean(a: Value, b: Value) -> Value:
    """sqrt(|a|^2 - 2 a b + |b|^2) of all pairs of rows; the gradient of no distance is 0."""
    products = p.dot(a, p.permute(b, [*range(b.ndim - 2), b.ndim - 1, b.ndim - 2]))
    rows, columns = (p.reduce_sum(p.mul(x, x), (x.ndim - 1,)) for x in (a, b))
    both = p.add(p.unreduce(rows, products.shape, (products.ndim - 1,)),
                 p.unreduce(columns, products.shape, (products.ndim - 2,)))
    square = p.sub(both, p.mul(p.filled(2, products), products))
    nil = p.le(square, p.zero_like(square))
    root = p.sqrt(p.where(nil, p.filled(1, square), square))
    return p.where(nil, p.zero_like(root), root)


def _pair_distances(x1: Value, x2: Value, order: float, by_product: bool) -> Value:
    for name, x in (("X1", x1), ("X2", x2)):
        if x.ndim < 2:
            raise RuntimeError(f"cdist only supports at least 2D tensors, {name} got: {x.ndim}D")
        if x.dtype.kind != "f":
            raise RuntimeError(f"cdist only supports floating-point dtypes, {name} got: "
                               f"{x.dtype.scalar_name}")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError("X1 and X2 must have the same number of columns. X1: "
                           f"{x1.shape[-1]} X2: {x2.shape[-1]}")
    if order < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    batch = broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    rows, columns, width = x1.shape[-2], x2.shape[-2], x1.shape[-1]
    if order == 2 and by_product and width and rows and columns:
        return _euclidean(p.expand(x1, (*batch, rows, width)),
                          p.expand(x2, (*batch, columns, width)))
    shape = (*batch, rows, columns, width)
    a = p.expand(p.reshape(x1, (*x1.shape[:-1], 1, width)), shape)
    b = p.expand(p.reshape(x2, (*x2.shape[:-2], 1, columns, width)), shape)
    return norm(p.sub(a, b), order, -1, False)


@op(inplace=True, refuses="bui", samples=lambda: iter([sample(Arr((3, 4)), 2, 0, 1.5),
                                                      sample(Arr((3, 4, 2)), 1, -1, 0.5)]))
def renorm(input: Tensor, p: float, dim: int, maxnorm: float):
    """input with every slice along dim scaled down to a norm of at most maxnorm.

    >>> torch.renorm(torch.tensor([[3., 4.], [0.3, 0.4]]), 2, 0, 1)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    return _renormed(input, p, dim, maxnorm)


def _renormed(x: Value, order: float, dim: int, limit: float) -> Value:
    if order <= 0:
        raise RuntimeError("renorm: non-positive-norm not supported")
    if limit < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {limit}")
    if x.ndim < 2:
        raise RuntimeError("renorm: input needs at least 2 dimensions, got "
                           f"{x.ndim} dimensions")
    at = normalize_dim(dim, x.ndim)
    rest = tuple(d for d in range(x.ndim) if d != at)
    size = norm(x, order, rest, True)
    top = p.filled(limit, size)
    scale = p.where(p.gt(size, top), p.div(top, p.add(size, p.filled(1e-7, size))),
                    p.filled(1, size))
    return p.mul(x, convert(p.expand(scale, x.shape), x.dtype))


# --------------------------------------------------------------------------- covariance
def _covariance_samples():
    yield sample(Arr((3, 5)))
    yield sample(Arr((3, 5)), correction=0)
    yield sample(Arr((4,)))
    yield sample(Arr((2, 4)), fweights=Arr((4,), "int64", 1, 4), aweights=Arr((4,), None, 0.5, 2))


@op(out=False, samples=_covariance_samples, grad="SqueezeBackward0")
def cov(input: Tensor, *, correction: int = 1, fweights: Index | None = None,
        aweights: Tensor | None = None):
    """The covariance of variables (rows) over observations (columns), which may be weighted.

    >>> torch.cov(torch.tensor([[1., 2., 3.], [3., 2., 1.]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if input.ndim > 2:
        raise RuntimeError("cov(): expected input to have two or fewer dimensions but got an input "
                           f"with {input.ndim} dimensions")
    if input.dtype.kind == "b":
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = e.default_float(p.reshape(input, (1, input.numel)) if input.ndim < 2 else input)
    count = x.shape[1]
    weights = _observation_weights(fweights, aweights, count, x.dtype.to_real())
    if weights is None:
        total = p.filled(count, p.reduce_sum(p.real(x) if x.dtype.is_complex else x, (0, 1)))
        average = p.div(p.reduce_sum(x, (1,)), p.filled(max(count, 1), p.reduce_sum(x, (1,))))
        weighted = None
    else:
        total = p.reduce_sum(weights, (0,))
        weighted = convert(p.expand(weights, x.shape), x.dtype)
        sums = p.reduce_sum(p.mul(x, weighted), (1,))
        average = p.div(sums, convert(p.expand(total, sums.shape), x.dtype))
    centred = p.sub(x, p.unreduce(average, x.shape, (1,)))
    right = centred if weighted is None else p.mul(centred, weighted)
    products = _outer_products(centred, p.conj(right))
    freedom = _freedom(total, weights, fweights, aweights, correction)
    result = p.div(products, convert(p.expand(freedom, products.shape), products.dtype))
    return p.reshape(result, ()) if result.shape == (1, 1) else result


def _outer_products(a: Value, b: Value) -> Value:
    """a @ b.T"""
    if not a.numel:
        return p.expand(constant(0, a.dtype, number=False), (a.shape[0], a.shape[0]))
    if a.shape[0] == 1:
        return p.reshape(p.reduce_sum(p.mul(a, b), (1,)), (1, 1))
    return p.dot(a, p.permute(b, (1, 0)))


def _observation_weights(fweights, aweights, count: int, dtype) -> Value | None:
    weights = None
    for name, given in (("fweights", fweights), ("aweights", aweights)):
        if given is None:
            continue
        if given.ndim > 1:
            raise RuntimeError(f"cov(): expected {name} to have one or fewer dimensions but got "
                               f"{name} with {given.ndim} dimensions")
        if given.dtype.kind not in ("ui" if name == "fweights" else "f"):
            kind = "integral" if name == "fweights" else "floating point"
            raise RuntimeError(f"cov(): expected {name} to have {kind} dtype but got {name} with "
                               f"{given.dtype.scalar_name} dtype")
        if given.numel != count:
            raise RuntimeError(f"cov(): expected {name} to have the same numel as there are "
                               f"observations in the input but got {given.numel} != {count}")
        flat = convert(p.reshape(given, (count,)), dtype)
        weights = flat if weights is None else p.mul(weights, flat)
    return weights


def _freedom(total: Value, weights, fweights, aweights, correction: int) -> Value:
    """What the sums of products are divided by."""
    if weights is None or aweights is None or correction == 0:
        lost = p.filled(correction, total)
    else:
        flat = convert(p.reshape(aweights, weights.shape), weights.dtype)
        lost = p.mul(p.div(p.reduce_sum(p.mul(weights, flat), (0,)), total),
                     p.filled(correction, total))
    return p.maximum(p.sub(total, lost), p.zero_like(total))


@op(out=False, samples=lambda: iter([sample(Arr((3, 5))), sample(Arr((4,)))]),
    grad="ClampBackward1")
def corrcoef(input: Tensor):
    """The correlations of variables (rows) over observations (columns).

    >>> torch.corrcoef(torch.tensor([[1., 2., 3.], [3., 2., 1.]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if input.ndim > 2:
        raise RuntimeError("corrcoef(): expected input to have two or fewer dimensions but got an "
                           f"input with {input.ndim} dimensions")
    products = cov.body(input)
    if products.ndim == 0:
        return p.div(products, products)
    spread = p.take_diagonal(products, 0, 0, products.shape[0])
    spread = p.sqrt(p.real(spread) if spread.dtype.is_complex else spread)
    spread = convert(spread, products.dtype)
    n = products.shape[0]
    for shape in ((n, 1), (1, n)):
        products = p.div(products, p.expand(p.reshape(spread, shape), products.shape))
    if products.dtype.is_complex:
        return p.complex_(_within_one(p.real(products)), _within_one(p.imag(products)))
    return _within_one(products)


def _within_one(x: Value) -> Value:
    one = p.filled(1, x)
    return p.where(p.gt(x, one), one, p.where(p.lt(x, p.neg(one)), p.neg(one), x))


# --------------------------------------------------------------------------- trapezoids
def _trapezoid_grad(call) -> str:
    return "MulBackward1" if len(call.avals) == 1 else "DivBackward1"


def _trapezoid_samples():
    yield sample(Arr((5,)))
    yield sample(Arr((3, 4)), dx=0.5, dim=0)
    yield sample(Arr((3, 4)), x=Arr((4,)))
    yield sample(Arr((3, 4)), x=Arr((3, 4)), dim=0)


def _no_truths(y: Value, x: Value | None, *rest: object) -> None:
    for name, value in (("y", y), ("x", x)):
        if value is not None and value.dtype.kind == "b":
            raise RuntimeError(f"trapezoid: received a bool input for `{name}`, but bool is not "
                               "supported")


@op(out=False, method=False, samples=_trapezoid_samples, aliases=("trapz",), grad=_trapezoid_grad,
    promote="match", check=_no_truths)
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1):
    """The integral along dim by the trapezoidal rule, over places x or steps of dx.

    >>> torch.trapezoid(torch.tensor([1., 2., 3.]))
    tensor(4.)
    >>> torch.trapezoid(torch.tensor([1., 2., 3.]), torch.tensor([0., 1., 3.]))
    tensor(6.5000)
    """
    areas, at = _areas("trapezoid", y, x, dx, dim)
    return p.reduce_sum(areas, (at,))


@op(out=False, method=False, samples=_trapezoid_samples, grad="CumsumBackward0", promote="match",
    check=_no_truths)
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float | None = None,
                         dim: int = -1):
    """The integrals along dim up to each place but the first, by the trapezoidal rule.

    >>> torch.cumulative_trapezoid(torch.tensor([1., 2., 3.]))
    tensor([1.5000, 4.0000])
    """
    areas, at = _areas("cumulative_trapezoid", y, x, dx, dim)
    return p.cumsum(areas, at)


def _areas(name: str, y: Value, x: Value | None, dx: float | None, dim: int) -> tuple[Value, int]:
    """(the areas of the trapezoids, the dimension they follow each other in)."""
    if x is not None and dx is not None:
        raise TypeError(f"{name}() takes either x or dx, not both")
    if not y.ndim:
        raise IndexError(f"{name}: Dimension specified as {dim} but tensor has no dimensions")
    at = normalize_dim(dim, y.ndim)
    if x is None:
        return e.mul(p.add(*_neighbours(y, at)), (1.0 if dx is None else dx) / 2), at
    if x.ndim == 1:
        if x.shape[0] != y.shape[at]:
            raise RuntimeError(f"{name}: There must be one `x` value for each sample point")
        x = p.reshape(x, [x.shape[0] if d == at else 1 for d in range(y.ndim)])
    elif x.ndim < y.ndim:
        x = p.reshape(x, (1,) * (y.ndim - x.ndim) + x.shape)
    low, high = _neighbours(x, at)
    left, right = _neighbours(y, at)
    return e.div(e.mul(e.sub(high, low), p.add(left, right)), 2.0), at


def _neighbours(x: Value, at: int) -> tuple[Value, Value]:
    """(all but the last, all but the first) along a dimension."""
    size = max(x.shape[at] - 1, 0)
    return p.slice_dim(x, at, 0, 1, size), p.slice_dim(x, at, min(1, x.shape[at]), 1, size)


# --------------------------------------------------------------------------- differences
def _hidden(samples):
    return op(public=(), method=False, out=False, promote="float", samples=samples)


@_hidden(lambda: iter([sample(Arr((5,)), 0.5, 0, 1), sample(Arr((3, 4)), 2.0, 1, 2)]))
def _gradient_along(input: Tensor, spacing: float, dim: int, edge_order: int):
    """The derivative along dim, of values `spacing` apart: see `torch.gradient`."""
    size = input.shape[dim]
    inner = p.div(p.sub(p.slice_dim(input, dim, 2, 1, size - 2),
                        p.slice_dim(input, dim, 0, 1, size - 2)),
                  _like_slice(2 * spacing, input, dim, size - 2))
    first = _edge(input, spacing, dim, (0, 1, 2), edge_order)
    last = _edge(input, -spacing, dim, (size - 1, size - 2, size - 3), edge_order)
    return p.cat([part for part in (first, inner, last) if part.shape[dim]], dim)


def _like_slice(value: float, x: Value, dim: int, size: int) -> Value:
    return p.filled(value, p.slice_dim(x, dim, 0, 1, size))


def _edge(x: Value, spacing: float, dim: int, places, order: int) -> Value:
    """The one-sided derivative at the first of `places`."""
    a, b = (p.slice_dim(x, dim, place, 1, 1) for place in places[:2])
    if order == 1:
        return p.div(p.sub(b, a), p.filled(spacing, a))
    c = p.slice_dim(x, dim, places[2], 1, 1)
    total = p.add(p.mul(a, p.filled(-1.5 / spacing, a)), p.mul(b, p.filled(2 / spacing, a)))
    return p.add(total, p.mul(c, p.filled(-0.5 / spacing, a)))


@_hidden(lambda: iter([sample(Arr((3, 5)), Arr((5,), None, 1, 2), 1, 1)]))
def _gradient_over(input: Tensor, coordinates: Tensor, dim: int, edge_order: int):
    """The derivative along dim, of values at the given coordinates: see `torch.gradient`."""
    size = input.shape[dim]
    wide = [size if d == dim else 1 for d in range(input.ndim)]
    x = p.expand(p.reshape(coordinates, wide), input.shape)
    low, high = _neighbours(x, dim)
    step = p.sub(high, low)
    left, right = _neighbours(step, dim)
    below, middle, above = (p.slice_dim(input, dim, k, 1, size - 2) for k in range(3))
    both = p.add(left, right)
    inner = p.sub(p.mul(above, p.div(left, p.mul(right, both))),
                  p.mul(below, p.div(right, p.mul(left, both))))
    inner = p.add(inner, p.mul(middle, p.div(p.sub(right, left), p.mul(left, right))))
    first = _uneven_edge(input, step, dim, False, edge_order)
    last = _uneven_edge(input, step, dim, True, edge_order)
    return p.cat([part for part in (first, inner, last) if part.shape[dim]], dim)


def _uneven_edge(x: Value, step: Value, dim: int, end: bool, order: int) -> Value:
    """The one-sided derivative at the start or the end, over uneven steps."""
    size = x.shape[dim]
    places = (size - 1, size - 2, size - 3) if end else (0, 1, 2)
    steps = (size - 2, size - 3) if end else (0, 1)
    a, b = (p.slice_dim(x, dim, k, 1, 1) for k in places[:2])
    h = p.slice_dim(step, dim, steps[0], 1, 1)
    if order == 1:
        return p.div(p.sub(a, b) if end else p.sub(b, a), h)
    c, k = p.slice_dim(x, dim, places[2], 1, 1), p.slice_dim(step, dim, steps[1], 1, 1)
    both = p.add(h, k)
    at_a = p.neg(p.div(p.add(p.add(h, h), k), p.mul(h, both)))
    at_b = p.div(both, p.mul(h, k))
    at_c = p.neg(p.div(h, p.mul(k, both)))
    total = p.add(p.add(p.mul(a, at_a), p.mul(b, at_b)), p.mul(c, at_c))
    return p.neg(total) if end else total
