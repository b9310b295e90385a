"""What automatic mixed precision does to the operands of each op, on the CPU.

The lists are those that PyTorch 2.13 applies under `autocast("cpu")`, found by asking it op by op
(tests/conformance asks again). An op that is in none of them takes its operands as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.ops.record import Op

__all__ = ["LOWER", "SINGLE", "WIDEST", "policy_of"]

LOWER = frozenset({
    "mm", "bmm", "matmul", "linear", "addmm", "addbmm", "baddbmm", "vecdot", "multi_dot",
    "tensordot", "_einsum", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "prelu", "_attention", "_recurrent_layer",
})
"""Products: computed in the lower precision, with sums in float32."""

SINGLE = frozenset({
    "prod", "trace", "cdist", "_quantile", "avg_pool3d", "max_pool3d", "adaptive_avg_pool3d",
    "adaptive_max_pool3d", "_max_unpool", "grid_sample", "view_as_complex", "polar", "_complex",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss",
    "smooth_l1_loss", "huber_loss", "nll_loss", "cross_entropy", "kl_div", "poisson_nll_loss",
    "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "soft_margin_loss",
    "triplet_margin_loss", "multi_margin_loss", "multilabel_margin_loss", "_ctc_step",
})
"""Losses and long sums: computed in float32."""

WIDEST = frozenset({"cat", "stack", "index_copy"})
"""Ops that need one dtype: operands meet in the widest."""


def policy_of(record: Op, args: Sequence) -> str | None:
    """"lower", "single", "widest" or None for a call of `record`."""
    name = record.name
    if name in LOWER:
        gru = name == "_recurrent_layer" and _argument(record, args, "mode") == "GRU"
        return None if gru else "lower"
    if name in SINGLE:
        return "single"
    if name in WIDEST:
        return "widest"
    if name == "pad":  # reflected and replicated padding only
        plain = _argument(record, args, "mode") in ("constant", "circular")
        return None if plain else "single"
    return None


def _argument(record: Op, args: Sequence, name: str) -> object:
    return next(a for p, a in zip(record.params, args, strict=True) if p.name == name)
