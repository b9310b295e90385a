"""Embeddings, gathers, scatters, joins, transposed copies."""

from __future__ import annotations

import functools

import numpy

from kernel_cases import Case, normal


def _integers(T, high: int, *shape: int):
    return T.from_numpy(numpy.random.default_rng(9).integers(0, high, shape))


def build(name: str, T, variant: str):
    F = T.nn.functional
    words, width = 30_000, 768
    if name.startswith("embedding"):
        table = normal(T, words, width, grad="grad" in name)
        index = _integers(T, words, 16, 128)
        if "grad" not in name:
            return functools.partial(F.embedding, index, table)
        y = F.embedding(index, table)
        return functools.partial(T.autograd.grad, y, (table,), normal(T, *y.shape, seed=1), True)
    x = normal(T, 4096, 1024)
    index = _integers(T, 4096, 4096)
    spread = _integers(T, 4096, 4096, 1024)
    source = normal(T, 4096, 1024, seed=2)
    images = normal(T, 16, 64, 64, 64)
    calls = {
        "index_add rows": lambda: x.index_add(0, index, source),
        "scatter_add": lambda: x.scatter_add(0, spread, source),
        "gather": lambda: x.gather(0, spread),
        "index_select rows": lambda: x.index_select(0, index),
        "index_select columns": lambda: x.index_select(1, index[:1024] % 1024),
        "x[index]": lambda: x[index],
        "masked_fill": lambda: x.masked_fill(x > 0, 0.0),
        "where": lambda: T.where(x > source, x, source),
        "cat rows": lambda: T.cat((x, source), 0),
        "cat columns": lambda: T.cat((x, source), 1),
        "stack": lambda: T.stack((x, source), -1),
        "transposed copy": lambda: x.t().contiguous(),
        "permuted copy": lambda: images.permute(0, 2, 3, 1).contiguous(),
        "permuted back": lambda: images.view(16, 64, 64, 64).permute(0, 3, 1, 2).contiguous(),
        "flip": lambda: x.flip(1), "roll": lambda: x.roll(3, 1),
        "triu": lambda: x.triu(), "one_hot": lambda: F.one_hot(index % 100, 100),
        "repeat": lambda: x.repeat(1, 2), "pad": lambda: F.pad(images, (1, 1, 1, 1)),
        "unfold": lambda: F.unfold(images[:4], 3, padding=1),
    }
    return calls[name]


NAMES = ("embedding", "embedding grad", "index_add rows", "scatter_add", "gather",
         "index_select rows", "index_select columns", "x[index]", "masked_fill", "where",
         "cat rows", "cat columns", "stack", "transposed copy", "permuted copy", "permuted back",
         "flip", "roll", "triu", "one_hot", "repeat", "pad", "unfold")


def cases(full: bool):
    for name in NAMES:
        yield Case("index", name, functools.partial(build, name), bytes=4 * 4096 * 1024 * 2)
