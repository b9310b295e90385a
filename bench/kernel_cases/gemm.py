"""Matrix products in float32 and float64: squares, few rows, models' shapes, all transposes."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal

MODELS = {  # (M, N, K) of linear layers: tokens x outputs x inputs
    "bert qkv": (512, 768, 768), "bert up": (512, 3072, 768), "bert down": (512, 768, 3072),
    "gpt mlp": (1024, 1536, 384), "gpt head": (256, 8192, 384), "lstm gates": (32, 2048, 512),
    "mlp in": (128, 512, 784), "mlp head": (128, 10, 512), "resnet head": (8, 1000, 512),
}
ODD = ((17, 33, 65), (100, 100, 100), (127, 255, 511), (333, 77, 1001), (1000, 7, 1000))


def operand(T, rows: int, columns: int, transposed: bool, dtype: str, batch: int = 0):
    lead = (batch,) if batch else ()
    shape = (columns, rows) if transposed else (rows, columns)
    x = normal(T, *lead, *shape, seed=rows, dtype=dtype)
    return x.mT if transposed else x


def build(m: int, n: int, k: int, form: str, dtype: str, batch: int, T, variant: str):
    a = operand(T, m, k, form[0] == "T", dtype, batch)
    b = operand(T, k, n, form[1] == "T", dtype, batch)
    return functools.partial(T.matmul, a, b)


def case(name: str, m: int, n: int, k: int, form: str = "NN", dtype: str = "float32",
         batch: int = 0) -> Case:
    return Case("gemm", f"{name} {form}" + ("" if dtype == "float32" else f" {dtype}"),
                functools.partial(build, m, n, k, form, dtype, batch),
                flops=2.0 * m * n * k * max(batch, 1))


def cases(full: bool):
    squares = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024) + (2048, 4096) * full
    for size in squares:
        yield case(f"{size}^3", size, size, size)
    for form in ("NT", "TN", "TT"):
        for size in (64, 256, 512) + (32, 128, 1024) * full:
            yield case(f"{size}^3", size, size, size, form)
    for m in (1, 2, 4, 8, 16, 32):
        for k, n in ((256, 256), (1024, 1024)) + ((768, 3072), (4096, 4096)) * full:
            for form in ("NN", "NT"):
                yield case(f"{m}x{n}x{k}", m, n, k, form)
    for name, (m, n, k) in MODELS.items():
        yield case(name, m, n, k, "NT")
        if full:
            yield case(f"{name} grad input", m, k, n, "NN")
            yield case(f"{name} grad weight", n, k, m, "TN")
    for m, n, k in ODD:
        yield case(f"{m}x{n}x{k}", m, n, k)
    for batch, m, n, k in ((96, 128, 128, 64), (96, 128, 64, 128), (64, 16, 16, 16)):
        yield case(f"{batch} of {m}x{n}x{k}", m, n, k, "NT", batch=batch)
    for size in (64, 256, 512) + (1024,) * full:
        yield case(f"{size}^3", size, size, size, dtype="float64")
