"""Scans: running sums, products and extrema along one dimension, forwards or backwards, and linear
recurrences."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Primitive, Value
from flambeau.ops.primitives import elementwise as e
from flambeau.ops.primitives.structure import infer_same, slice_dim, spread

__all__ = ["CUMSUM", "CUMPROD", "CUMARGMAX", "CUMARGMIN", "CUMLOGSUMEXP", "RECURRENCE", "cumsum",
           "cumprod", "cumlogsumexp", "cumarg", "recurrence", "shifted"]


def _infer_position(inputs, attrs):
    return inputs[0].shape, dtypes.int64


CUMSUM = Primitive("cumsum", "scan", infer_same)
CUMPROD = Primitive("cumprod", "scan", infer_same)
CUMLOGSUMEXP = Primitive("cumlogsumexp", "scan", infer_same)
CUMARGMAX = Primitive("cumargmax", "scan", _infer_position)
CUMARGMIN = Primitive("cumargmin", "scan", _infer_position)
RECURRENCE = Primitive("recurrence", "scan", infer_same)
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


def recurrence(a: Value, b: Value, dim: int, reverse: bool = False) -> Value:
    """y[i] = a[i] * y[i - 1] + b[i] along `dim` (y[i + 1] if `reverse`), from 0."""
    return RECURRENCE(a, b, attrs=(dim, reverse))


def shifted(x: Value, dim: int, reverse: bool, fill: float) -> Value:
    """Each element's predecessor along `dim` (its successor if `reverse`); `fill` where there is
    none."""
    size = x.shape[dim]
    if not size:
        return x
    starts = [0] * x.ndim
    starts[dim] = 0 if reverse else 1
    kept = slice_dim(x, dim, 1 if reverse else 0, 1, size - 1)
    return spread(kept, starts, (1,) * x.ndim, x.shape, fill)


def cumarg(x: Value, dim: int, largest: bool) -> Value:
    """Where along `dim` the extremum of all elements up to each last occurs; NaN is extreme."""
    return (CUMARGMAX if largest else CUMARGMIN)(x, attrs=(dim, False))


@CUMSUM.vjp
def cumsum_vjp(node, g):
    dim, reverse = node.attrs
    return (cumsum(g, dim, not reverse),)


@CUMPROD.vjp
def cumprod_vjp(node, g):
    """What lies before each element, times the sum of g over what follows, each g with the factors
    in between: no division, so zeros are exact in every order."""
    (x,), (dim, reverse) = node.inputs, node.attrs
    following = recurrence(shifted(e.conj(x), dim, not reverse, 0), g, dim, not reverse)
    return (e.mul(following, e.conj(shifted(node, dim, reverse, 1))),)


@RECURRENCE.vjp
def recurrence_vjp(node, g):
    """The gradient of each result flows back through all that follow: a recurrence the other way
    around."""
    (a, _), (dim, reverse) = node.inputs, node.attrs
    flow = recurrence(shifted(e.conj(a), dim, not reverse, 0), g, dim, not reverse)
    return e.mul(flow, e.conj(shifted(node, dim, reverse, 0))), flow


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
