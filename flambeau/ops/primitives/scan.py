"""Scans: running sums, products and extrema along one dimension, forwards or backwards."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Primitive, Value
from flambeau.ops.primitives import elementwise as e
from flambeau.ops.primitives.structure import infer_same

__all__ = ["CUMSUM", "CUMPROD", "CUMARGMAX", "CUMARGMIN", "CUMLOGSUMEXP", "cumsum", "cumprod",
           "cumlogsumexp", "cumarg"]


def _infer_position(inputs, attrs):
    return inputs[0].shape, dtypes.int64


CUMSUM = Primitive("cumsum", "scan", infer_same)
CUMPROD = Primitive("cumprod", "scan", infer_same)
CUMLOGSUMEXP = Primitive("cumlogsumexp", "scan", infer_same)
CUMARGMAX = Primitive("cumargmax", "scan", _infer_position)
CUMARGMIN = Primitive("cumargmin", "scan", _infer_position)
CUMARGMAX.differentiable = CUMARGMIN.differentiable = False


def cumsum(x: Value, dim: int, reverse: bool = False) -> Value:
    """The sum of all elements up to and including each (from the end if `reverse`)."""
    return CUMSUM(x, attrs=(dim, reverse))


def cumprod(x: Value, dim: int, reverse: bool = False) -> Value:
    """The product of all elements up to and including each."""
    return CUMPROD(x, attrs=(dim, reverse))


def cumlogsumexp(x: Value, dim: int, reverse: bool = False) -> Value:
    """log(cumsum(exp(x))) without overflow."""
    return CUMLOGSUMEXP(x, attrs=(dim, reverse))


def cumarg(x: Value, dim: int, largest: bool) -> Value:
    """Where along `dim` the extremum of all elements up to each last occurs; NaN is extreme."""
    return (CUMARGMAX if largest else CUMARGMIN)(x, attrs=(dim, False))


@CUMSUM.vjp
def cumsum_vjp(node, g):
    dim, reverse = node.attrs
    return (cumsum(g, dim, not reverse),)


@CUMPROD.vjp
def cumprod_vjp(node, g):
    """Before the first zero of a row sum(g * y) / x over what follows; at the zero the same with it
    left out of the products; behind it nothing."""
    (x,), (dim, reverse) = node.inputs, node.attrs
    zero, one = e.zero_like(x), e.filled(1, x)
    hit = e.eq(x, zero)
    seen = cumsum(e.cast(hit, attrs=(dtypes.int64,)), dim, reverse)
    before = e.eq(seen, e.zero_like(seen))
    first = e.logical_and(hit, e.eq(seen, e.filled(1, seen)))
    follow = cumsum(e.mul(g, e.conj(node)), dim, not reverse)
    ordinary = e.div(follow, e.conj(e.where(before, x, one)))
    without = cumprod(e.where(first, one, x), dim, reverse)
    at_zero = cumsum(e.mul(g, e.conj(without)), dim, not reverse)
    return (e.where(before, ordinary, e.where(first, at_zero, zero)),)


@CUMLOGSUMEXP.vjp
def cumlogsumexp_vjp(node, g):
    """sum(g * exp(x - y)) over what follows, in logarithms, for positive and negative g apart."""
    (x,), (dim, reverse) = node.inputs, node.attrs

    def half(size: Value) -> Value:
        some = e.gt(size, e.zero_like(size))
        logs = e.where(some, e.log(e.where(some, size, e.filled(1, size))),
                       e.filled(float("-inf"), size))
        flow = e.where(some, e.sub(logs, node), logs)
        return e.exp(e.add(cumlogsumexp(flow, dim, not reverse), x))

    return (e.sub(half(g), half(e.neg(g))),)
