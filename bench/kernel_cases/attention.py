"""Scaled dot product attention, forward and backward."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal


def build(batch: int, heads: int, length: int, width: int, kind: str, way: str, T, variant: str):
    shape = (batch, heads, length, width)
    grad = way == "backward"
    kv = (batch, heads // 4, length, width) if kind == "gqa" else shape
    q, k, v = (normal(T, *s, seed=i, grad=grad) for i, s in enumerate((shape, kv, kv)))
    options = {"causal": {"is_causal": True}, "gqa": {"enable_gqa": True},
               "dropout": {"dropout_p": 0.1}}.get(kind, {})
    if kind == "masked":
        options = {"attn_mask": normal(T, length, length, seed=7) > -1}
    call = functools.partial(T.nn.functional.scaled_dot_product_attention, q, k, v, **options)
    if not grad:
        return call
    y = call()
    return functools.partial(T.autograd.grad, y, (q, k, v), normal(T, *y.shape, seed=5), True)


def cases(full: bool):
    for length in (128, 512, 1024) + (2048, 4096) * full:
        for width in (64, 128):
            batch, heads = max(1, 1024 // length), 8
            for kind in ("plain", "causal", "masked", "gqa", "dropout"):
                for way in ("forward", "backward"):
                    flops = batch * heads * length * length * width * 4.0
                    flops *= (2.5 if way == "backward" else 1) * (0.5 if kind == "causal" else 1)
                    yield Case("attention", f"{kind} S={length} d={width} {way}",
                               functools.partial(build, batch, heads, length, width, kind, way),
                               flops=flops, tolerance=1e-3, check=kind != "dropout")
