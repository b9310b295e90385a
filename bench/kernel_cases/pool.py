"""Pooling and resizing, forward and gradient, in both memory formats."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal

SHAPES = ((8, 64, 112, 112), (64, 32, 28, 28), (8, 512, 7, 7))


def build(name: str, shape: tuple, way: str, T, variant: str):
    x = normal(T, *shape)
    if variant == "channels_last":
        x = x.to(memory_format=T.channels_last)
    x.requires_grad_(way == "grad")
    F = T.nn.functional
    call = {
        "max_pool 3s2": lambda x: F.max_pool2d(x, 3, 2, 1),
        "max_pool 2": lambda x: F.max_pool2d(x, 2),
        "avg_pool 3s2": lambda x: F.avg_pool2d(x, 3, 2, 1),
        "avg_pool 2": lambda x: F.avg_pool2d(x, 2),
        "adaptive_avg 1": lambda x: F.adaptive_avg_pool2d(x, 1),
        "nearest 2": lambda x: F.interpolate(x, scale_factor=2),
        "bilinear 2": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    }[name]
    if way == "forward":
        return functools.partial(call, x)
    y = call(x)
    g = normal(T, *y.shape, seed=5)
    if variant == "channels_last":
        g = g.to(memory_format=T.channels_last)
    return functools.partial(T.autograd.grad, y, (x,), g, True)


def cases(full: bool):
    for shape in SHAPES if full else SHAPES[:2]:
        size = 4 * shape[0] * shape[1] * shape[2] * shape[3]
        for name in ("max_pool 3s2", "max_pool 2", "avg_pool 3s2", "avg_pool 2", "adaptive_avg 1",
                     "nearest 2", "bilinear 2"):
            for way in ("forward", "grad"):
                yield Case("pool", f"{name} {'x'.join(map(str, shape))} {way}",
                           functools.partial(build, name, shape, way), ("nchw", "channels_last"),
                           bytes=size)
