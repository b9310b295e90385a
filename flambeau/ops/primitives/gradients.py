"""Gradients of structural primitives that need elementwise ones."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value, constant
from flambeau.ops.primitives import elementwise as e
from flambeau.ops.primitives.scan import cumprod, shifted
from flambeau.ops.primitives.structure import (
    AS_STRIDED,
    DIAGONAL,
    REDUCE_MAX,
    REDUCE_MIN,
    REDUCE_PROD,
    SCATTER,
    coordinates,
    expand,
    iota,
    lookup,
    permute,
    reduce_sum,
    reshape,
    scatter,
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
        return product_gradients(base, source, coords, g, node) + (None,) * len(indices)
    raise NotImplementedError(f"the gradient of a scatter with reduction {mode!r} is not "
                              "implemented; use 'sum', or gather and reduce explicitly")


def product_gradients(base: Value, source: Value, coords, g: Value, whole: Value
                      ) -> tuple[Value, Value]:
    """g times the product of the other factors. `whole` is the product of all: divided by a factor
    that is not 0 it is that of the others; the only 0 of a product has theirs as its own.

    The second derivative with respect to two zeros of `source` in one product is not known to it
    (it is 0).
    """
    one, nil = e.filled(1, source), e.zero_like(source)
    base_or_one = e.where(e.eq(base, e.zero_like(base)), e.filled(1, base), base)
    others = e.div(scatter(base_or_one, coords, source, "mul"), base_or_one)
    is_zero = e.eq(source, nil)
    zeros = scatter(e.zero_like(base), coords, e.convert(is_zero, source.dtype), "add")
    zeros_at = lookup(zeros, coords, source.shape)
    alone = e.logical_and(is_zero, e.eq(zeros_at, e.filled(1, zeros_at)))
    without = scatter(base, coords, e.where(alone, one, source), "mul")
    whole_at, without_at, g_at = (lookup(x, coords, source.shape) for x in (whole, without, g))
    rest = e.where(is_zero, e.where(alone, without_at, nil),
                   e.div(whole_at, e.where(is_zero, one, source)))
    return e.mul(g, e.conj(others)), e.mul(g_at, e.conj(rest))


@REDUCE_PROD.vjp
def reduce_prod_vjp(node, g):
    """The product of the other elements, from those before and those after: no division, so zeros
    are exact in every order."""
    (x,), dims = node.inputs, node.attrs[0]
    order = [d for d in range(x.ndim) if d not in dims] + list(dims)
    moved = permute(x, order)
    kept = [x.shape[d] for d in order[:x.ndim - len(dims)]]
    flat = reshape(moved, [*kept, _count(x.shape, dims)])
    last = flat.ndim - 1
    before = shifted(cumprod(flat, last), last, False, 1)
    after = shifted(cumprod(flat, last, True), last, True, 1)
    others = e.mul(before, after)
    back = sorted(range(x.ndim), key=order.__getitem__)
    others = permute(reshape(others, moved.shape), back)
    return (e.mul(unreduce(g, x.shape, dims), e.conj(others)),)


def _count(shape, dims) -> int:
    """How many elements lie along dims."""
    count = 1
    for d in dims:
        count *= shape[d]
    return count
