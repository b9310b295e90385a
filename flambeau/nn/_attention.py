"""Attention on tensors: dropout masks, projections, and the masks in their many forms."""

from __future__ import annotations

import math
import warnings
from typing import Any

import flambeau
from flambeau.core.shapes import broadcast_shapes
from flambeau.tensor import Tensor, functions
from flambeau.tensor.random import room

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor,
                                 attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """softmax(query @ key.T * scale + mask) @ value.

    Args:
        query: (..., heads, l, d); key: (..., heads, s, d); value: (..., heads, s, w).
        attn_mask: broadcasts to (..., l, s): bool (True takes part) or added to the products.
        dropout_p: how likely an element of the softmax is dropped, always.
        is_causal: whether query i sees keys 0 to i only.
        scale: 1 / sqrt(d) by default.
        enable_gqa: whether key and value may have fewer heads, each for a group of the query's.

    >>> q = torch.tensor([[[1., 0.], [0., 1.]]])  # 1 batch, 2 positions, 2 features
    >>> F.scaled_dot_product_attention(q, q, q, is_causal=True)
    tensor([[[1.0000, 0.0000],
             [0.3302, 0.6698]]])
    """
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    if scale is not None:
        scale = float(scale)
    if query.is_nested:
        return _of_parts(query, key, value, attn_mask, dropout_p=dropout_p, is_causal=is_causal,
                         scale=scale, enable_gqa=enable_gqa)
    drop = None
    if dropout_p > 0.0:
        heads = query.shape[:-2] if enable_gqa else broadcast_shapes(
            tuple(query.shape[:-2]), tuple(key.shape[:-2]))
        shape = (*heads, query.shape[-2], key.shape[-2])
        drop = room(query.new_empty(shape, dtype=flambeau.bool)).bernoulli_(1 - dropout_p)
    return functions._attention(query, key, value, attn_mask, drop, is_causal=is_causal,
                                scale=scale, enable_gqa=enable_gqa,
                                dropout_p=float(dropout_p) if drop is not None else 0.0)[0]


def _of_parts(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None,
              **options: Any) -> Tensor:
    """The attention of nested tensors (batch, heads, ragged, d): of each part to itself."""
    from flambeau.tensor.nested.tensor import on_parts

    if attn_mask is not None:
        raise RuntimeError("scaled_dot_product_attention: nested tensors need no attn_mask, since "
                           "parts do not see one another; use is_causal, or dense tensors")
    return on_parts(scaled_dot_product_attention, (query, key, value), **options)


def _additive(mask: Tensor | None, name: str, other: Tensor | None, other_name: str,
              dtype: Any) -> Tensor | None:
    """A mask to be added to products: True becomes -inf."""
    if mask is None:
        return None
    if mask.dtype is not flambeau.bool and not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {name} are supported")
    if other is not None and other.dtype is not mask.dtype:
        warnings.warn(f"Support for mismatched {name} and {other_name} is deprecated. Use same "
                      "type for both instead.", stacklevel=4)
    if mask.is_floating_point():
        return mask
    return flambeau.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        mask, -math.inf)


def _check_ranks(query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None,
                 mask: Tensor | None, heads: int) -> bool:
    """Is the input batched?"""
    if query.dim() not in (2, 3):
        raise AssertionError("query should be unbatched 2D or batched 3D tensor but received "
                             f"{query.dim()}-D query tensor")
    batched = query.dim() == 3
    if key.dim() != query.dim() or value.dim() != query.dim():
        raise AssertionError(f"For {'batched (3-D)' if batched else 'unbatched (2-D)'} `query`, "
                             f"expected `key` and `value` to be {query.dim()}-D but found "
                             f"{key.dim()}-D and {value.dim()}-D tensors respectively")
    if padding is not None and padding.dim() != query.dim() - 1:
        raise AssertionError("expected `key_padding_mask` to be `None` or "
                             f"{query.dim() - 1}-D but found {padding.dim()}-D tensor instead")
    if mask is not None:
        if mask.dim() not in (2, 3):
            raise AssertionError(f"expected `attn_mask` to be `None`, 2-D or 3-D but found "
                                 f"{mask.dim()}-D tensor instead")
        if not batched and mask.dim() == 3 and tuple(mask.shape) != (
                heads, query.shape[0], key.shape[0]):
            raise AssertionError(f"Expected `attn_mask` shape to be "
                                 f"{(heads, query.shape[0], key.shape[0])} but got "
                                 f"{tuple(mask.shape)}")
    return batched


def _projected(query: Tensor, key: Tensor, value: Tensor, weights: tuple, bias: Tensor | None
               ) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values by their projections; one product if the inputs are one tensor."""
    if len(weights) == 1:
        (packed,) = weights
        if query is key and key is value:
            return functions.linear(query, packed, bias).chunk(3, -1)
        weights = packed.chunk(3)
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return tuple(functions.linear(x, w, b) for x, w, b in
                 zip((query, key, value), weights, biases, strict=True))


def _check_embedding(query: Tensor, embed_dim: int, heads: int) -> int:
    """The width of one head."""
    width = query.shape[-1]
    if width != embed_dim:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim}, but got {width}")
    if width % heads:
        raise AssertionError(f"embed_dim {width} not divisible by num_heads {heads}")
    return width // heads


def _checked_mask(mask: Tensor | None, lead: int, rows: int, columns: int) -> Tensor | None:
    """The mask with a dimension for samples and heads."""
    if mask is None:
        return None
    wanted = (rows, columns) if mask.dim() == 2 else (lead, rows, columns)
    if tuple(mask.shape) != wanted:
        raise RuntimeError(f"The shape of the {mask.dim()}D attn_mask is {tuple(mask.shape)}, but "
                           f"should be {wanted}.")
    return mask.unsqueeze(0) if mask.dim() == 2 else mask


def _one_more(mask: Tensor | None) -> Tensor | None:
    """A mask with a column for an added key, which is seen."""
    return None if mask is None else functions.pad(mask, (0, 1))


class _Heads:
    """Projected queries, keys and values of a multi-head attention, head by head.

    Attributes:
        query, key, value: (batch * heads, length, width).
        mask: what is added to the products, or None.
    """

    def __init__(self, batch: int, heads: int, width: int):
        self.batch, self.heads, self.width = batch, heads, width

    def split(self, x: Tensor) -> Tensor:
        """(length, batch, embedding) by head."""
        return x.reshape(x.shape[0], self.batch * self.heads, self.width).transpose(0, 1)

    def given(self, x: Tensor, name: str) -> Tensor:
        """Keys or values that came split already."""
        for dim, size in ((0, self.batch * self.heads), (2, self.width)):
            if x.size(dim) != size:
                raise AssertionError(f"expecting {name}.size({dim}) of {size}, but got "
                                     f"{x.size(dim)}")
        return x

    def with_zero(self, x: Tensor) -> Tensor:
        """One more place, which is zero."""
        zero = flambeau.zeros((x.shape[0], 1, x.shape[2]), dtype=x.dtype, device=x.device)
        return flambeau.cat([x, zero], 1)

    def merged_mask(self, mask: Tensor | None, padding: Tensor | None,
                    columns: int) -> Tensor | None:
        """Both masks as one: (1 or batch * heads, rows or 1, columns)."""
        if padding is None:
            return mask
        if tuple(padding.shape) != (self.batch, columns):
            raise AssertionError(f"expecting key_padding_mask shape of {(self.batch, columns)}, "
                                 f"but got {tuple(padding.shape)}")
        wide = padding.reshape(self.batch, 1, 1, columns)
        wide = wide.expand(self.batch, self.heads, 1, columns)
        wide = wide.reshape(self.batch * self.heads, 1, columns)
        return wide if mask is None else mask + wide

    def joined(self, x: Tensor) -> Tensor:
        """(batch * heads, length, width) as (length, batch, embedding)."""
        length = x.shape[1]
        return x.transpose(0, 1).reshape(length, self.batch, self.heads * self.width)

    def by_sample(self, x: Tensor) -> Tensor:
        return x.reshape(self.batch, self.heads, *x.shape[1:])


def multi_head_attention_forward(
        query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
        in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
        bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
        out_proj_bias: Tensor | None, training: bool = True,
        key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None, static_k: Tensor | None = None,
        static_v: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attention of several heads on projections of query (l, n, e), key and value (s, n, .).

    Returns the result (l, n, e) and, if `need_weights`, the softmax: (n, l, s) averaged over the
    heads, or (n, heads, l, s). Without a batch dimension, n is missing everywhere. See
    `nn.MultiheadAttention`.

    >>> q = torch.eye(2).unsqueeze(1)  # 2 positions, 1 sequence, 2 features
    >>> w, o = torch.eye(2).repeat(3, 1), torch.eye(2)
    >>> F.multi_head_attention_forward(
    ...     q, q, q, 2, 1, w, None, None, None, False, 0.0, o, None)[1][0]
    tensor([[0.6698, 0.3302],
            [0.3302, 0.6698]])
    """
    batched = _check_ranks(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        query, key, value = _with_batch(query, key, value)
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    rows, batch = query.shape[:2]
    width = _check_embedding(query, embed_dim_to_check, num_heads)
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
    padding = _additive(key_padding_mask, "key_padding_mask", attn_mask, "attn_mask", query.dtype)
    if is_causal and padding is None and not need_weights:
        mask = None
    else:
        mask = _additive(attn_mask, "attn_mask", None, "", query.dtype)
        is_causal = False
    weights = ((q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight
               else (in_proj_weight,))
    _check_memory(key, value, use_separate_proj_weight)
    q, k, v = _projected(query, key, value, weights, in_proj_bias)
    heads = _Heads(batch, num_heads, width)
    mask = _checked_mask(mask, batch * num_heads, rows, key.shape[0])
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise AssertionError("bias cannot be added to static key or value.")
        k = flambeau.cat([k, bias_k.expand(1, batch, bias_k.shape[-1])])
        v = flambeau.cat([v, bias_v.expand(1, batch, bias_v.shape[-1])])
        mask, padding = _one_more(mask), _one_more(padding)
    q = heads.split(q)
    k = heads.split(k) if static_k is None else heads.given(static_k, "static_k")
    v = heads.split(v) if static_v is None else heads.given(static_v, "static_v")
    if add_zero_attn:
        k, v = heads.with_zero(k), heads.with_zero(v)
        mask, padding = _one_more(mask), _one_more(padding)
    mask, drop = heads.merged_mask(mask, padding, k.shape[1]), dropout_p if training else 0.0
    if need_weights:
        result, found = _with_weights(heads, q, k, v, mask, drop, average_attn_weights)
    else:
        result, found = _without_weights(heads, q, k, v, mask, drop, is_causal), None
    result = functions.linear(heads.joined(result), out_proj_weight, out_proj_bias)
    if not batched:
        result = result.squeeze(1)
        found = None if found is None else found.squeeze(0)
    return result, found


def _with_batch(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A batch dimension for each; what was one tensor stays one."""
    wide = query.unsqueeze(1)
    wide_key = wide if key is query else key.unsqueeze(1)
    wide_value = wide_key if value is key else value.unsqueeze(1)
    return wide, wide_key, wide_value


def _check_memory(key: Tensor, value: Tensor, separate: bool) -> None:
    same = key.shape[:2] == value.shape[:2] if separate else key.shape == value.shape
    if not same:
        raise AssertionError(f"key shape {tuple(key.shape)} does not match value shape "
                             f"{tuple(value.shape)}")


def _with_weights(heads: _Heads, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
                  drop: float, average: bool) -> tuple[Tensor, Tensor]:
    """(attention by head, the softmax by sample)."""
    scores = flambeau.bmm(q * math.sqrt(1.0 / heads.width), k.transpose(1, 2))
    if mask is not None:
        scores = scores + mask
    weights = functions.softmax(scores, -1)
    if drop > 0.0:
        from flambeau.tensor.random import dropout

        weights = dropout(weights, drop)
    shown = heads.by_sample(weights)
    return flambeau.bmm(weights, v), shown.mean(1) if average else shown


def _without_weights(heads: _Heads, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
                     drop: float, is_causal: bool) -> Tensor:
    """Attention by head; no softmax is kept."""
    if mask is not None:
        mask = mask.unsqueeze(0) if mask.shape[0] == 1 else heads.by_sample(mask)
    result = scaled_dot_product_attention(heads.by_sample(q), heads.by_sample(k),
                                          heads.by_sample(v), mask, drop, is_causal)
    return result.reshape(q.shape)
