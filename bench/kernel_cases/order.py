"""Scans, sorting and selection."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal

SHAPES = ((4096, 1024), (100_000, 7), (40, 100_003), (4_000_000,))


def build(name: str, shape: tuple, T, variant: str):
    x = normal(T, *shape)
    return {
        "cumsum": lambda: x.cumsum(-1), "cumsum columns": lambda: x.cumsum(0),
        "cumprod": lambda: x.cumprod(-1), "cummax": lambda: x.cummax(-1),
        "sort": lambda: x.sort(dim=-1, stable=True)[0],
        "argsort": lambda: x.argsort(dim=-1, stable=True),
        "topk 5": lambda: x.topk(5, -1)[0], "median": lambda: x.median(-1)[0],
        "kthvalue": lambda: x.kthvalue(3, -1)[0], "unique": lambda: T.unique(x.round(decimals=1)),
    }[name]


def cases(full: bool):
    for shape in SHAPES:
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        for name in ("cumsum", "cumsum columns", "cumprod", "cummax", "sort", "argsort", "topk 5",
                     "median", "kthvalue", "unique"):
            if name == "cumsum columns" and len(shape) == 1:
                continue
            yield Case("order", f"{name} {'x'.join(map(str, shape))}",
                       functools.partial(build, name, shape), bytes=2 * size, tolerance=1e-3)
