"""Gradients of structural primitives that need elementwise ones."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value, constant
from flambeau.ops.primitives import elementwise as e
from flambeau.ops.primitives.structure import (
    AS_STRIDED,
    DIAGONAL,
    REDUCE_MAX,
    REDUCE_MIN,
    REDUCE_PROD,
    SCATTER,
    cat,
    coordinates,
    expand,
    iota,
    lookup,
    permute,
    reduce_sum,
    reshape,
    scatter,
    slice_dim,
    unreduce,
)

__all__: list[str] = []


@DIAGONAL.vjp
def diagonal_vjp(node, g):
    row, column, _ = node.attrs
    (x,) = node.inputs
    zero = expand(constant(0, x.dtype, number=False), x.shape)
    at = iota(g.shape, g.ndim - 1)
    rows = e.add(at, e.filled(row, at))
    columns = e.add(at, e.filled(column, at))
    return (scatter(zero, [*range(g.ndim - 1), rows, columns], g, "add"),)


@AS_STRIDED.vjp
def as_strided_vjp(node, g):
    (x,), (shape, strides, offset) = node.inputs, node.attrs
    place = expand(constant(offset, dtypes.int64, number=False), shape)
    for d, stride in enumerate(strides):
        at = iota(shape, d)
        place = e.add(place, e.mul(at, e.filled(stride, at)))
    zero = expand(constant(0, x.dtype, number=False), (x.numel,))
    return (reshape(scatter(zero, [place], g, "add"), x.shape),)


def _extremum_vjp(node, g):
    """All elements equal to the extremum share the gradient (PyTorch's amax)."""
    (x,), dims = node.inputs, node.attrs[0]
    hit = e.eq(x, unreduce(node, x.shape, dims))
    hits = e.cast(hit, attrs=(x.dtype,))
    share = e.div(g, reduce_sum(hits, dims))
    return (e.mul(hits, unreduce(share, x.shape, dims)),)


REDUCE_MAX.vjp(_extremum_vjp)
REDUCE_MIN.vjp(_extremum_vjp)


@SCATTER.vjp
def scatter_vjp(node, g):
    base, source, *indices = node.inputs
    coords, mode = coordinates(node.attrs[0], indices), node.attrs[1]
    if mode == "add":
        return (g, lookup(g, coords, source.shape)) + (None,) * len(indices)
    if mode == "set":
        kept = scatter(g, coords, e.zero_like(source), "set")
        return (kept, lookup(g, coords, source.shape)) + (None,) * len(indices)
    if mode == "mul":
        return product_gradients(base, source, coords, g) + (None,) * len(indices)
    raise NotImplementedError(f"the gradient of a scatter with reduction {mode!r} is not "
                              "implemented; use 'sum', or gather and reduce explicitly")


def product_gradients(base: Value, source: Value, coords, g: Value) -> tuple[Value, Value]:
    """g times the product of the other factors: from the product of those that are not 0, and the
    number of those that are."""
    zeros = scatter(_is_zero(base), coords, _is_zero(source), "add")
    whole = scatter(_without_zeros(base), coords, _without_zeros(source), "mul")
    to_base = e.mul(g, _others(base, whole, zeros))
    at = [lookup(x, coords, source.shape) for x in (whole, zeros, g)]
    return to_base, e.mul(at[2], _others(source, at[0], at[1]))


def _is_zero(x: Value) -> Value:
    return e.convert(e.eq(x, e.zero_like(x)), x.dtype)


def _without_zeros(x: Value) -> Value:
    return e.where(e.eq(x, e.zero_like(x)), e.filled(1, x), x)


def _others(x: Value, whole: Value, zeros: Value) -> Value:
    """The product of all factors but x."""
    nil = e.zero_like(x)
    alone = e.where(e.eq(zeros, e.filled(1, x)), whole, nil)
    rest = e.where(e.eq(zeros, nil), e.div(whole, _without_zeros(x)), nil)
    return e.where(e.eq(x, nil), alone, rest)


@REDUCE_PROD.vjp
def reduce_prod_vjp(node, g):
    """The product of the other elements, from those before and those after: no division, so zeros
    are exact in every order."""
    (x,), dims = node.inputs, node.attrs[0]
    order = [d for d in range(x.ndim) if d not in dims] + list(dims)
    moved = permute(x, order)
    kept = [x.shape[d] for d in order[:x.ndim - len(dims)]]
    flat = reshape(moved, [*kept, _count(x.shape, dims)])
    others = e.mul(_products_before(flat, 1), _products_before(flat, -1))
    back = sorted(range(x.ndim), key=order.__getitem__)
    others = permute(reshape(others, moved.shape), back)
    return (e.mul(unreduce(g, x.shape, dims), e.conj(others)),)


def _count(shape, dims) -> int:
    """How many elements lie along dims."""
    count = 1
    for d in dims:
        count *= shape[d]
    return count


def _products_before(x: Value, direction: int) -> Value:
    """The product of all elements before (direction 1) or after (-1) each one, along the last
    dimension: shifted by one, then by doubling steps."""
    size, step = x.shape[-1], 1
    result = _shifted(x, direction)
    while step < size:
        result = e.mul(result, _shifted(result, direction * step))
        step *= 2
    return result


def _shifted(x: Value, by: int) -> Value:
    """The elements moved by `by` places along the last dimension; ones come in."""
    last, size = x.ndim - 1, x.shape[-1]
    if abs(by) >= size:
        return e.filled(1, x)
    ones = e.filled(1, slice_dim(x, last, 0, 1, abs(by)))
    if by > 0:
        return cat((ones, slice_dim(x, last, 0, 1, size - by)), last)
    return cat((slice_dim(x, last, -by, 1, size + by), ones), last)
