"""Elementwise functions on 4 million elements, and their gradients."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal

UNARY = ("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "sqrt", "rsqrt", "abs", "neg",
         "relu", "log1p", "expm1", "reciprocal", "round", "atan", "square", "pow3")
ACTIVATIONS = ("gelu", "gelu tanh", "silu", "softplus", "elu", "leaky_relu", "hardswish", "mish")
BINARY = ("add", "mul", "div", "pow", "maximum", "add scalar", "add row", "add column", "addcmul",
          "lerp", "atan2")


def build(name: str, dtype: str, way: str, T, variant: str):
    x = normal(T, 2048, 2048, dtype=dtype).abs() + 0.1
    y = normal(T, 2048, 2048, seed=1, dtype=dtype)
    F = T.nn.functional
    if name in ACTIVATIONS:
        options = {"approximate": "tanh"} if name == "gelu tanh" else {}
        function = functools.partial(getattr(F, name.split()[0]), **options)
        if way == "grad":
            y.requires_grad_(True)
            out = function(y)
            return functools.partial(T.autograd.grad, out, (y,), x, True)
        return functools.partial(function, y)
    row, column = y[:1], y[:, :1]
    special = {
        "pow3": lambda: x ** 3, "add scalar": lambda: x + 1.5, "add row": lambda: x + row,
        "add column": lambda: x + column, "addcmul": lambda: T.addcmul(x, y, y, value=0.5),
        "lerp": lambda: T.lerp(x, y, 0.3), "relu": lambda: T.relu(y),
    }
    if name in special:
        return special[name]
    return functools.partial(getattr(T, name), x, *((y,) if name in BINARY else ()))


def cases(full: bool):
    for dtype in ("float32",) + ("float64", "bfloat16", "float16") * full:
        size = 2048 * 2048 * {"float32": 4, "float64": 8}.get(dtype, 2)
        for name in (*UNARY, *ACTIVATIONS, *BINARY):
            for way in ("forward", "grad") if name in ACTIVATIONS else ("forward",):
                yield Case("pointwise", f"{name} {way} {dtype}",
                           functools.partial(build, name, dtype, way),
                           bytes=size * (3 if name in BINARY or way == "grad" else 2),
                           tolerance=1e-5 if dtype in ("float32", "float64") else 2e-2)
