"""Multi-head attention."""

from __future__ import annotations

from typing import Any

import flambeau
from flambeau.nn import functional as F
from flambeau.nn import init
from flambeau.nn.modules.linear import NonDynamicallyQuantizableLinear
from flambeau.nn.modules.module import Module
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention of several heads: each sees its own projections (Vaswani et al. 2017).

    Args:
        embed_dim: size of queries and results; a multiple of `num_heads`.
        num_heads: number of heads.
        dropout: how likely an element of the softmax is dropped, in training.
        bias: whether the projections have biases.
        add_bias_kv: whether a learned key and value are added to all others.
        add_zero_attn: whether a key and value of zeros are added.
        kdim, vdim: sizes of keys and values; `embed_dim` by default.
        batch_first: whether inputs are (batch, length, size) rather than (length, batch, size).
        device: where the parameters live.
        dtype: of the parameters.

    Attributes:
        in_proj_weight: (3 * embed_dim, embed_dim); or q_proj_weight, k_proj_weight and
            v_proj_weight if the sizes differ.
        in_proj_bias: (3 * embed_dim,) or None.
        out_proj: the linear layer that joins the heads.
    """

    __constants__ = ["batch_first"]

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError("embed_dim and num_heads must be greater than 0, got embed_dim="
                             f"{embed_dim} and num_heads={num_heads} instead")
        made = {"device": device, "dtype": dtype}
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        self._make_projections(bias, made)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, **made)
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, Parameter(flambeau.empty((1, 1, embed_dim), **made))
                                    if add_bias_kv else None)
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _make_projections(self, bias: bool, made: dict) -> None:
        size = self.embed_dim
        packed = self._qkv_same_embed_dim
        shapes = {"q_proj_weight": (size, size), "k_proj_weight": (size, self.kdim),
                  "v_proj_weight": (size, self.vdim)}
        if packed:
            self.in_proj_weight = Parameter(flambeau.empty((3 * size, size), **made))
        for name, shape in shapes.items():
            self.register_parameter(name, None if packed else Parameter(
                flambeau.empty(shape, **made)))
        if not packed:
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", Parameter(flambeau.empty(3 * size, **made))
                                if bias else None)

    def _reset_parameters(self) -> None:
        """Draw the projections anew; biases are zero."""
        if self._qkv_same_embed_dim:
            init.xavier_uniform_(self.in_proj_weight)
        else:
            for weight in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.constant_(self.in_proj_bias, 0.0)
            init.constant_(self.out_proj.bias, 0.0)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(self, query: Tensor, key: Tensor, value: Tensor,
                key_padding_mask: Tensor | None = None, need_weights: bool = True,
                attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """The result and, if `need_weights`, the softmax (averaged over the heads by default).

        Args:
            query: (l, n, embed_dim); key: (s, n, kdim); value: (s, n, vdim).
            key_padding_mask: (n, s), True (or -inf) for keys to leave out.
            attn_mask: (l, s) or (n * num_heads, l, s): True leaves out, floats are added.
            is_causal: whether `attn_mask` is the causal one; a hint.
        """
        if query.is_nested:
            return self._on_parts(query, key, value, key_padding_mask, attn_mask, need_weights,
                                  average_attn_weights)
        turned = self.batch_first and query.dim() == 3
        if turned:
            query, key, value = _length_first(query, key, value)
        separate = not self._qkv_same_embed_dim
        result, weights = F.multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight,
            self.in_proj_bias, self.bias_k, self.bias_v, self.add_zero_attn, self.dropout,
            self.out_proj.weight, self.out_proj.bias, training=self.training,
            key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            use_separate_proj_weight=separate, q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight, v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights, is_causal=is_causal)
        return (result.transpose(0, 1) if turned else result), weights

    def _on_parts(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None,
                  attn_mask: Tensor | None, need_weights: bool, average: bool
                  ) -> tuple[Tensor, Tensor | None]:
        """Nested tensors (batch, length, size): each part attends to itself. Weights are padded
        with zeros."""
        if key_padding_mask is not None or attn_mask is not None or not self.batch_first:
            raise RuntimeError("MultiheadAttention: nested tensors are (batch, length, size) and "
                               "need no masks, since their parts are not padded")
        found = [self.forward(q, k, v, need_weights=need_weights, average_attn_weights=average)
                 for q, k, v in zip(query.unbind(), key.unbind(), value.unbind(), strict=True)]
        result = flambeau.nested.as_nested_tensor([one for one, _ in found], layout=query.layout)
        weights = None
        if need_weights:
            weights = flambeau.nested.nested_tensor([w for _, w in found]).to_padded_tensor(0.0)
        return result, weights


def _length_first(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(batch, length, size) as (length, batch, size); what was one tensor stays one."""
    turned = query.transpose(0, 1)
    turned_key = turned if key is query else key.transpose(0, 1)
    turned_value = turned_key if value is key else value.transpose(0, 1)
    return turned, turned_key, turned_value
