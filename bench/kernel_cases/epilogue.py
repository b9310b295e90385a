"""Products with what follows them: bias, activation, residual, scale. Ours as one compiled program,
PyTorch's as separate operations and, for a linear layer, its own fused bias."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal
from kernel_cases.gemm import MODELS


def build(kind: str, m: int, n: int, k: int, dtype: str, T, variant: str):
    x, w = normal(T, m, k, dtype=dtype), normal(T, n, k, seed=1, dtype=dtype)
    bias, other = normal(T, n, seed=2, dtype=dtype), normal(T, m, n, seed=3, dtype=dtype)
    F = T.nn.functional
    function = {
        "bias": lambda x, w: F.linear(x, w, bias),
        "bias relu": lambda x, w: F.relu(F.linear(x, w, bias)),
        "bias gelu": lambda x, w: F.gelu(F.linear(x, w, bias)),
        "bias residual": lambda x, w: F.linear(x, w, bias) + other,
        "scale": lambda x, w: (x @ w.t()) * 0.125,
    }[kind]
    if T.__name__ == "flambeau" and variant == "compiled":
        function = T.compile(function)
    return functools.partial(function, x, w)


def cases(full: bool):
    for dtype in ("float32", "bfloat16"):
        for name, (m, n, k) in MODELS.items():
            for kind in ("bias", "bias relu", "bias gelu", "bias residual", "scale"):
                if not full and name not in ("bert up", "mlp in", "lstm gates"):
                    continue
                yield Case("epilogue", f"{kind} {name} {dtype}",
                           functools.partial(build, kind, m, n, k, dtype), ("compiled", "eager"),
                           ("eager",), flops=2.0 * m * n * k,
                           tolerance=1e-4 if dtype == "float32" else 2e-2)
