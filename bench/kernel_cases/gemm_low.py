"""Matrix products in bfloat16, float16 and of 8-bit integers."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal
from kernel_cases.gemm import MODELS, operand


def build(m: int, n: int, k: int, form: str, dtype: str, T, variant: str):
    if dtype == "int8":
        a = (normal(T, m, k) * 20).to(T.int8)
        b = (normal(T, n, k, seed=1) * 20).to(T.int8).t()
        return functools.partial(T._int_mm, a, b)
    a = operand(T, m, k, form[0] == "T", dtype)
    b = operand(T, k, n, form[1] == "T", dtype)
    return functools.partial(T.matmul, a, b)


def cases(full: bool):
    for dtype in ("bfloat16", "float16", "int8"):
        shapes = {f"{s}^3": (s, s, s) for s in (32, 64, 128, 256, 512, 1024) + (2048,) * full}
        few = (32,) if dtype == "int8" else (1, 4, 8, 32)
        shapes |= {f"{m}x1024^2": (m, 1024, 1024) for m in few}
        for name, (m, n, k) in (shapes | MODELS).items():
            if dtype == "int8" and (m <= 16 or n % 8 or k % 8):
                continue
            for form in ("NN", "NT", "TN") if full and dtype != "int8" else ("NT",):
                yield Case("gemm_low", f"{name} {form} {dtype}",
                           functools.partial(build, m, n, k, form, dtype), flops=2.0 * m * n * k,
                           tolerance=2e-2)
