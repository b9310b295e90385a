"""Distances and similarities of vectors."""

from __future__ import annotations

import math

from flambeau.core.shapes import normalize_dim
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import Arr, sample


def _similarity_samples():
    yield sample(Arr((3, 4)), Arr((3, 4)))
    yield sample(Arr((2, 3, 17)), Arr((1, 3, 17)), dim=-1)
    yield sample(Arr((3, 4)), Arr((3, 4)), dim=0, eps=0.5)


@op(promote="float", out=False, method=False, public=("torch", "nn.functional"),
    samples=_similarity_samples, grad="SumBackward1")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8):
    """<x1, x2> / (max(|x1|, eps) max(|x2|, eps)) along `dim`."""
    a, b = e.broadcast(x1, x2)
    at = normalize_dim(dim, a.ndim)

    def unit(x: Value) -> Value:
        square = p.reduce_sum(p.mul(x, x), (at,) if x.ndim else ())
        zero = p.eq(square, p.zero_like(square))  # where the root has no gradient
        root = p.sqrt(p.where(zero, e.like(1, square), square))
        norm = p.where(zero, p.zero_like(root), root)
        lift = p.sub(p.maximum(norm, e.like(eps, norm)), norm)
        norm = p.add(norm, p.stop_gradient(lift))  # the limit does not change the gradient
        return p.div(x, p.unreduce(norm, x.shape, (at,)))

    return p.reduce_sum(p.mul(unit(a), unit(b)), (at,) if a.ndim else ())


def _distance_samples():
    yield sample(Arr((3, 4)), Arr((3, 4)))
    yield sample(Arr((2, 3, 5)), Arr((5,)), 1.0, keepdim=True)
    yield sample(Arr((3, 4)), Arr((3, 4)), 3.0)


def distance(a: Value, b: Value, degree: float, eps: float) -> Value:
    """(sum |a - b + eps|^degree)^(1 / degree) over the last dimension."""
    a, b = e.broadcast(a, b)
    gap = p.add(p.sub(a, b), e.like(eps, a))
    last = (gap.ndim - 1,) if gap.ndim else ()
    size = p.abs_(gap)
    if degree == 2:
        return p.sqrt(p.reduce_sum(p.mul(gap, gap), last))
    if degree == 1:
        return p.reduce_sum(size, last)
    if degree == math.inf:
        return p.reduce_max(size, last)
    total = p.reduce_sum(p.pow_(size, e.like(degree, size)), last)
    return p.pow_(total, e.like(1 / degree, total))


@op(promote="float", method=False, out=False, public=("torch", "nn.functional"),
    samples=_distance_samples, grad="NormBackward1")
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6,
                      keepdim: bool = False):
    """The p-norm of x1 - x2 + eps along the last dimension."""
    result = distance(x1, x2, p, eps)
    return _kept_last(result) if keepdim else result


def _kept_last(x: Value) -> Value:
    return p.reshape(x, (*x.shape, 1))
