"""Attention: a softmax over products of queries and keys, which weights the values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from flambeau.core import dtypes
from flambeau.core.shapes import broadcast_shapes
from flambeau.ir.graph import Value, constant
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import floats_only
from flambeau.ops.matmul import product
from flambeau.ops.primitives import convert
from flambeau.ops.primitives.batching import into, out_of, spread_over
from flambeau.ops.primitives.joint import joint
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.samples import Arr, sample


# ---------------------------------------------------------------------- the definition
@dataclasses.dataclass(frozen=True)
class _Form:
    """What attention does besides its operands.

    Attributes:
        mask, drop: whether there are such operands.
        causal: whether query i sees keys 0 to i only.
        scale: of the products of queries and keys.
        factor: of the weights that `drop` keeps.
    """

    mask: bool
    drop: bool
    causal: bool
    scale: float
    factor: float

    def split(self, operands: Sequence[Value]) -> tuple:
        """(query, key, value, mask or None, drop or None, the others)."""
        query, key, value, *rest = operands
        mask = rest.pop(0) if self.mask else None
        drop = rest.pop(0) if self.drop else None
        return query, key, value, mask, drop, rest


def _wide(dtype):
    """In which results are computed."""
    return dtypes.float32 if dtype.is_reduced else dtype


def _repeated(x: Value, heads: int) -> Value:
    """(batch, fewer heads, rows, width), each head as often as it is shared."""
    batch, own, rows, width = x.shape
    wide = p.reshape(x, (batch, own, 1, rows, width))
    wide = p.expand(wide, (batch, own, heads // own, rows, width))
    return p.reshape(wide, (batch, heads, rows, width))


def _scores(form: _Form, query: Value, key: Value, mask: Value | None) -> Value:
    """(batch, heads, rows, keys): -inf where a key is masked."""
    scaled = p.mul(query, e.like(form.scale, query))
    scores = product(scaled, p.transpose(_repeated(key, query.shape[1])))
    never = e.like(-math.inf, scores)
    if form.causal:
        rows, columns = (p.iota(scores.shape, d) for d in (2, 3))
        scores = p.where(p.ge(rows, columns), scores, never)
    if mask is not None and mask.dtype.kind == "b":
        return p.where(mask, scores, never)
    return scores if mask is None else p.add(scores, mask)


def _kept(form: _Form, drop: Value | None, weights: Value) -> Value:
    if drop is None:
        return weights
    return p.mul(weights, p.where(drop, e.like(form.factor, weights), p.zero_like(weights)))


def _composite(operands: Sequence[Value], attrs: tuple) -> tuple[Value, Value]:
    """(result, log of the sum of the exponentials of the scores); both are 0 in rows in which all
    keys are masked. 16-bit operands give float32."""
    (form,) = attrs
    query, key, value, mask, drop, _ = form.split(operands)
    query, key, value = (convert(x, _wide(x.dtype)) for x in (query, key, value))
    scores = _scores(form, query, key, mask)
    top = p.reduce_max(scores, (3,))
    blocked = p.eq(top, e.like(-math.inf, top))
    top = p.stop_gradient(p.where(blocked, p.zero_like(top), top))
    exps = p.exp(p.sub(scores, p.unreduce(top, scores.shape, (3,))))
    total = p.reduce_sum(exps, (3,))
    total = p.where(blocked, e.like(1, total), total)
    weights = p.div(exps, p.unreduce(total, scores.shape, (3,)))
    result = product(_kept(form, drop, weights), _repeated(value, query.shape[1]))
    return result, p.add(top, p.log(total))


def _slopes(form: _Form, operands: Sequence[Value]) -> tuple[Value, Value, Value]:
    """(softmax, the same after dropout, gradient with respect to the scores)."""
    query, key, value, mask, drop, (g, lse, delta) = form.split(operands)
    scores = _scores(form, query, key, mask)
    weights = p.exp(p.sub(scores, p.unreduce(lse, scores.shape, (3,))))
    slope = product(g, p.transpose(_repeated(value, query.shape[1])))
    slope = p.sub(_kept(form, drop, slope), p.unreduce(delta, scores.shape, (3,)))
    return weights, _kept(form, drop, weights), p.mul(weights, slope)


def _composite_gradients(operands: Sequence[Value], attrs: tuple) -> tuple[Value, ...]:
    """Of query, key and value, given the result's gradient g, lse, and delta = <g, result>."""
    (form,) = attrs
    query, key, value, _, _, (g, _, _) = form.split(operands)
    _, kept, change = _slopes(form, operands)
    change = p.mul(change, e.like(form.scale, change))
    to_query = product(change, _repeated(key, query.shape[1]))
    to_key = product(p.transpose(change), query)
    to_value = product(p.transpose(kept), g)
    return to_query, _summed(to_key, key), _summed(to_value, value)


def _summed(g: Value, like: Value) -> Value:
    """The gradient of keys or values from that of their repetitions."""
    batch, own, rows, width = like.shape
    if g.shape[1] == own:
        return g
    return p.reduce_sum(p.reshape(g, (batch, own, g.shape[1] // own, rows, width)), (2,))


def _infer(inputs, attrs):
    query, value = inputs[0], inputs[2]
    last = (value.shape[3],) if attrs[-1] == 0 else ()
    return (*query.shape[:3], *last), _wide(query.dtype)


def _infer_gradient(inputs, attrs):
    return inputs[attrs[-1]].shape, inputs[0].dtype


ATTENTION = joint("attention", 2, _infer, _composite)
ATTENTION_GRADIENT = joint("attention_gradient", 3, _infer_gradient, _composite_gradients,
                           dense=2)


@ATTENTION.batch
@ATTENTION_GRADIENT.batch
def _attention_batch(node: Value, inputs: Sequence[Value], flags: Sequence[bool], size: int
                     ) -> Value:
    """Examples become a part of the batch that all operands have."""
    wide = [into(spread_over(x, flag, size), 0) for x, flag in zip(inputs, flags, strict=True)]
    return out_of(node.prim(*wide, attrs=node.attrs), 0, size)


# ---------------------------------------------------------------------- operands of any shape
class _Attention:
    """Queries (..., heads, l, d), keys (..., s, d), values (..., s, w) and masks, checked, as
    operands (batch, heads, rows, columns) of the primitives."""

    def __init__(self, query: Value, key: Value, value: Value, mask: Value | None,
                 drop: Value | None, causal: bool, scale: float | None, groups: bool,
                 dropout_p: float):
        _check(query, key, value, mask, causal)
        self.dtype = query.dtype
        self.widened = _wide(query.dtype)
        self.heads = broadcast_shapes(*(x.shape[:-3] if groups else x.shape[:-2]
                                        for x in (query, key, value)))
        if groups:
            _check_groups(query, key, value)
            self.heads = (*self.heads, query.shape[-3])
        self.groups = groups
        self.result_shape = (*self.heads, query.shape[-2], value.shape[-1])
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None and query.shape[-1] else scale
        factor = 0.0 if dropout_p == 1 else 1 / (1 - dropout_p)
        self.form = _Form(mask is not None, drop is not None, causal, scale or 0.0, factor)
        operands = [self._operand(x) for x in (query, key, value)]
        sizes = query.shape[-2], key.shape[-2]
        self.operands = operands + [self._masks(x, sizes) for x in (mask, drop) if x is not None]
        self.empty = 0 in (*self.result_shape, *sizes, query.shape[-1])

    def _operand(self, x: Value) -> Value:
        lead, own = (self.heads[:-1], x.shape[-3]) if self.groups else (
            self.heads[:-1], self.heads[-1] if self.heads else 1)
        heads = (*lead, own) if self.heads else ()
        x = p.expand(x, (*heads, *x.shape[-2:]))
        return p.reshape(x, (math.prod(lead), own, *x.shape[-2:]))

    def _masks(self, x: Value, sizes: tuple[int, int]) -> Value:
        if x.dtype.kind == "f":
            x = convert(x, self.widened)
        return self.rows(p.expand(x, (*self.heads, *sizes)))

    def rows(self, x: Value) -> Value:
        """A value with all heads as (batch, heads, rows, columns)."""
        return p.reshape(x, (math.prod(self.heads[:-1]), self.heads[-1] if self.heads else 1,
                             *x.shape[len(self.heads):]))

    def results(self) -> tuple[Value, Value]:
        """(result, log-sum-exp); the second is float32 for 16-bit floats."""
        attrs = (self.form,)
        if self.empty:
            zero = constant(0.0, self.widened, number=False)
            found = p.expand(zero, self.result_shape), p.expand(zero, self.result_shape[:-1])
        else:
            found = tuple(ATTENTION(*self.operands, attrs=(*attrs, k)) for k in (0, 1))
        result, lse = found
        return (convert(p.reshape(result, self.result_shape), self.dtype),
                p.reshape(lse, self.result_shape[:-1]))

    def gradients(self, g: Value, delta: Value, lse: Value, like: Sequence[Value],
                  mask: Value | None) -> list[Value | None]:
        """Of `like` (query, key, value) and of a floating mask."""
        if self.empty:
            return [p.zero_like(x) for x in like] + [None if mask is None else p.zero_like(mask)]
        wide = [convert(x, self.widened) if x.dtype.kind == "f" else x for x in self.operands]
        operands = [*wide, *(self.rows(x) for x in (g, lse, delta))]
        found: list[Value | None] = []
        for number, x in enumerate(like):
            part = ATTENTION_GRADIENT(*operands, attrs=(self.form, number))
            heads = self.heads and (*self.heads[:-1], part.shape[1])
            found.append(e.reduced(p.reshape(part, (*heads, *part.shape[2:])), x))
        if mask is None:
            return [*found, None]
        change = _slopes(self.form, operands)[2]
        return [*found, e.reduced(p.reshape(change, (*self.heads, *change.shape[2:])), mask)]


def _check_groups(query: Value, key: Value, value: Value) -> None:
    if min(query.ndim, key.ndim, value.ndim) < 3 or any(
            query.shape[-3] % x.shape[-3] for x in (key, value)) \
            or key.shape[-3] != value.shape[-3]:
        raise RuntimeError("scaled_dot_product_attention: with enable_gqa, the number of heads in "
                           "key and value should be equal and divide that of query, but got "
                           f"shapes {list(query.shape)}, {list(key.shape)} and "
                           f"{list(value.shape)}")


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
    yield sample(Arr((2, 3)), Arr((3, 3)), Arr((3, 2)))
    yield sample(Arr((1, 2, 2, 2)), Arr((2, 2)), Arr((2, 1)), Arr((2, 2)), is_causal=False)
    yield sample(q, k, v)
    yield sample(q, k, v, is_causal=True)
    yield sample(q, k, v, Arr((4, 6), "bool"), scale=0.3)
    yield sample(q, k, v, Arr((2, 1, 4, 6)))
    yield sample(q, k, v, None, Arr((2, 3, 4, 6), "bool"), dropout_p=0.25)
    yield sample(Arr((4, 5)), Arr((6, 5)), Arr((6, 7)))
    yield sample(Arr((2, 6, 4, 5)), k, v, enable_gqa=True)


@op(name="_attention", method=False, out=False, public=(), samples=_samples, opmath=False,
    returns=("output", "logsumexp"), grad="ScaledDotProductFlashAttentionForCpuBackward0")
def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
               drop: Index | None = None, *, is_causal: bool = False, scale: float | None = None,
               enable_gqa: bool = False, dropout_p: float = 0.0):
    """softmax(query key^T scale + mask) value (Vaswani et al. 2017), and the logarithm of the
    softmax's denominator.

    `attn_mask` says which keys count (bool), or is added to the products. `drop` says which
    weights are kept, times 1 / (1 - `dropout_p`). With `enable_gqa` every head of key and value
    serves several heads of the query.
    """
    return _Attention(query, key, value, attn_mask, drop, is_causal, scale, enable_gqa,
                      dropout_p).results()


@_attention.vjp
def _attention_vjp(g, output, query, key, value, attn_mask, drop, is_causal, scale, enable_gqa,
                   dropout_p):
    """Through the softmax: w (dw - <dw, w>), w being the weights and dw = g value^T; the second
    term is <g, output>. The softmax is computed anew from the log of its sums."""
    made = _Attention(query, key, value, attn_mask, drop, is_causal, scale, enable_gqa, dropout_p)
    result, lse = output
    result = convert(result, made.widened)
    to_result = p.zero_like(result) if g[0] is None else convert(g[0], made.widened)
    last = (result.ndim - 1,)
    delta = p.reduce_sum(p.mul(to_result, result), last)
    if g[1] is not None:
        delta = p.sub(delta, g[1])
    mask = attn_mask if attn_mask is not None and attn_mask.dtype.kind == "f" else None
    return made.gradients(to_result, delta, lse, (query, key, value), mask)
