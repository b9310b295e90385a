"""Attention: a softmax over products of queries and keys, which weights the values."""

from __future__ import annotations

import math

from flambeau.core import dtypes
from flambeau.core.shapes import broadcast_shapes
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import floats_only
from flambeau.ops.matmul import product
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.samples import Arr, sample


class _Attention:
    """Queries (..., l, d), keys (..., s, d) and values (..., s, w), checked, with one batch shape.

    Attributes:
        weights: the softmax, (..., l, s); rows in which all keys are masked are 0.
        kept: the weights after dropout.
    """

    def __init__(self, query: Value, key: Value, value: Value, mask: Value | None,
                 drop: Value | None, causal: bool, scale: float | None, groups: bool):
        _check(query, key, value, mask, causal)
        self.group = query.shape[-3] // key.shape[-3] if groups else 1
        if groups:
            key, value = self._repeated(key), self._repeated(value)
        self.batch = broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
        self.query, self.key, self.value = (
            p.expand(x, (*self.batch, *x.shape[-2:])) for x in (query, key, value))
        self.scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        self.weights = self._softmax(mask, causal)
        self.drop = None if drop is None else convert(drop, self.weights.dtype)
        self.kept = self.weights if drop is None else p.mul(self.weights, self.drop)

    def _repeated(self, x: Value) -> Value:
        """Each head as often as it is shared."""
        *lead, heads, rows, width = x.shape
        wide = p.reshape(x, (*lead, heads, 1, rows, width))
        wide = p.expand(wide, (*lead, heads, self.group, rows, width))
        return p.reshape(wide, (*lead, heads * self.group, rows, width))

    def _softmax(self, mask: Value | None, causal: bool) -> Value:
        scaled = p.mul(self.query, e.like(self.scale, self.query))
        scores = product(scaled, p.transpose(self.key))
        never = e.like(-math.inf, scores)
        if causal:
            rows, columns = (p.iota(scores.shape, scores.ndim - d) for d in (2, 1))
            scores = p.where(p.ge(rows, columns), scores, never)
        if mask is not None and mask.dtype.kind == "b":
            scores = p.where(p.expand(mask, scores.shape), scores, never)
        elif mask is not None:
            scores = p.add(scores, p.expand(convert(mask, scores.dtype), scores.shape))
        last = (scores.ndim - 1,)
        if scores.shape[-1] == 0:
            return scores
        top = p.reduce_max(scores, last)
        blocked = p.eq(top, e.like(-math.inf, top))
        top = p.stop_gradient(p.where(blocked, p.zero_like(top), top))
        exps = p.exp(p.sub(scores, p.unreduce(top, scores.shape, last)))
        total = p.reduce_sum(exps, last)
        total = p.where(blocked, e.like(1, total), total)
        return p.div(exps, p.unreduce(total, scores.shape, last))

    def summed_groups(self, g: Value) -> Value:
        """The gradient of keys or values from that of their repetitions."""
        if self.group == 1:
            return g
        *lead, heads, rows, width = g.shape
        split = p.reshape(g, (*lead, heads // self.group, self.group, rows, width))
        return p.reduce_sum(split, (split.ndim - 3,))


def _check(query: Value, key: Value, value: Value, mask: Value | None, causal: bool) -> None:
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError("scaled_dot_product_attention: Expected query, key, and value to all be "
                           f" at least 2 dimensional, but got dims {query.ndim}, {key.ndim} and "
                           f"{value.ndim}")
    if not query.dtype is key.dtype is value.dtype:
        raise RuntimeError("scaled_dot_product_attention: Expected query, key, and value to have "
                           f"the same dtype, but got query.dtype: {query.dtype.name} key.dtype: "
                           f"{key.dtype.name} and value.dtype: {value.dtype.name} instead.")
    floats_only("scaled_dot_product_attention", query)
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError("scaled_dot_product_attention: query (..., l, d), key (..., s, d) and "
                           f"value (..., s, w) do not fit together, got {list(query.shape)}, "
                           f"{list(key.shape)} and {list(value.shape)}")
    if mask is not None and causal:
        raise RuntimeError("scaled_dot_product_attention: Explicit attn_mask should not be set "
                           "when is_causal=True")
    if mask is not None and mask.dtype.kind != "b" and mask.dtype is not query.dtype and (
            mask.dtype is not dtypes.float32):
        raise RuntimeError("scaled_dot_product_attention: Expected attn_mask dtype to be bool or "
                           "float or to match query dtype, but got attn_mask.dtype: "
                           f"{mask.dtype.name} and  query.dtype: {query.dtype.name} instead.")


def _samples():
    q, k, v = Arr((2, 3, 4, 5)), Arr((2, 3, 6, 5)), Arr((2, 3, 6, 7))
    yield sample(q, k, v)
    yield sample(q, k, v, is_causal=True)
    yield sample(q, k, v, Arr((4, 6), "bool"), scale=0.3)
    yield sample(q, k, v, Arr((2, 1, 4, 6)))
    yield sample(Arr((4, 5)), Arr((6, 5)), Arr((6, 7)))
    yield sample(Arr((2, 6, 4, 5)), k, v, enable_gqa=True)


@op(name="_attention", method=False, out=False, public=(), samples=_samples,
    grad="ScaledDotProductFlashAttentionForCpuBackward0")
def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
               drop: Index | None = None, *, is_causal: bool = False, scale: float | None = None,
               enable_gqa: bool = False):
    """softmax(query key^T scale + mask) value (Vaswani et al. 2017).

    `attn_mask` says which keys count (bool), or is added to the products. `drop` multiplies the
    softmax. With `enable_gqa` every head of key and value serves several heads of the query.
    """
    made = _Attention(query, key, value, attn_mask, drop, is_causal, scale, enable_gqa)
    if made.key.shape[-2] == 0:
        shape = (*made.batch, query.shape[-2], value.shape[-1])
        return p.expand(constant(0.0, query.dtype, number=False), shape)
    return product(made.kept, made.value)


@_attention.vjp
def _attention_vjp(g, query, key, value, attn_mask, drop, is_causal, scale, enable_gqa):
    """Through the softmax: w (dw - <dw, w>), w being the weights and dw = g value^T."""
    made = _Attention(query, key, value, attn_mask, drop, is_causal, scale, enable_gqa)
    to_value = product(p.transpose(made.kept), g)
    to_weights = product(g, p.transpose(made.value))
    if drop is not None:
        to_weights = p.mul(to_weights, made.drop)
    last = (made.weights.ndim - 1,)
    inner = p.reduce_sum(p.mul(to_weights, made.weights), last)
    inner = p.unreduce(inner, made.weights.shape, last)
    to_scores = p.mul(made.weights, p.sub(to_weights, inner))
    factor = e.like(made.scale, to_scores)
    scaled = p.mul(to_scores, factor)
    to_query = product(scaled, made.key)
    to_key = product(p.transpose(scaled), made.query)
    to_mask = None
    if attn_mask is not None and attn_mask.dtype.kind == "f":
        to_mask = e.reduced(to_scores, attn_mask)
    return [e.reduced(to_query, query), e.reduced(made.summed_groups(to_key), key),
            e.reduced(made.summed_groups(to_value), value), to_mask]
