"""Normalisation, softmax, losses and sums: forward and gradient, over sizes from the models, about
4 million elements, and rows of 7 and of 100,003."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal

ROWS = ((4096, 1024), (512, 768), (100_000, 7), (40, 100_003))
IMAGES = ((8, 64, 56, 56), (8, 512, 7, 7), (16, 32, 112, 112))


def _gradient(T, function, inputs, y_shape=None):
    y = function(*inputs)
    g = normal(T, *y.shape, seed=5)
    wanted = tuple(t for t in inputs if t.requires_grad)
    return functools.partial(T.autograd.grad, y, wanted, g, True)


def rows(name: str, shape: tuple, way: str, T, variant: str):
    x = normal(T, *shape, grad=way == "grad")
    F, width = T.nn.functional, shape[-1]
    w, b = (normal(T, width, seed=s, grad=way == "grad") for s in (1, 2))
    target = T.arange(shape[0]) % width
    calls = {
        "softmax": (lambda x: F.softmax(x, -1), (x,)),
        "log_softmax": (lambda x: F.log_softmax(x, -1), (x,)),
        "layer_norm": (lambda x, w, b: F.layer_norm(x, (width,), w, b), (x, w, b)),
        "rms_norm": (lambda x, w: F.rms_norm(x, (width,), w), (x, w)),
        "cross_entropy": (lambda x: F.cross_entropy(x, target), (x,)),
        "sum rows": (lambda x: x.sum(-1), (x,)), "sum columns": (lambda x: x.sum(0), (x,)),
        "sum all": (lambda x: x.sum(), (x,)), "mean all": (lambda x: x.mean(), (x,)),
        "max rows": (lambda x: x.amax(-1), (x,)), "argmax rows": (lambda x: x.argmax(-1), (x,)),
        "logsumexp": (lambda x: x.logsumexp(-1), (x,)), "var rows": (lambda x: x.var(-1), (x,)),
        "norm": (lambda x: x.norm(), (x,)),
    }
    function, inputs = calls[name]
    if way == "grad":
        return _gradient(T, function, inputs)
    return functools.partial(function, *inputs)


def images(name: str, shape: tuple, way: str, T, variant: str):
    x = normal(T, *shape)
    if variant == "channels_last":
        x = x.to(memory_format=T.channels_last)
    x.requires_grad_(way == "grad")
    F, channels = T.nn.functional, shape[1]
    w, b = (normal(T, channels, seed=s, grad=way == "grad") for s in (1, 2))
    mean, var = T.zeros(channels), T.ones(channels)
    calls = {
        "batch_norm": lambda x, w, b: F.batch_norm(x, mean, var, w, b, True, 0.0),
        "batch_norm eval": lambda x, w, b: F.batch_norm(x, mean, var, w, b, False),
        "group_norm": lambda x, w, b: F.group_norm(x, 8, w, b),
        "sum space": lambda x, w, b: x.sum((2, 3)),
        "sum channels": lambda x, w, b: x.sum((0, 2, 3)),
    }
    if way == "grad":
        return _gradient(T, calls[name], (x, w, b) if "norm" in name else (x,))
    return functools.partial(calls[name], x, w, b)


def cases(full: bool):
    for shape in ROWS:
        size = 4 * shape[0] * shape[1]
        for name in ("softmax", "log_softmax", "layer_norm", "rms_norm", "cross_entropy"):
            for way in ("forward", "grad"):
                yield Case("norm", f"{name} {shape[0]}x{shape[1]} {way}",
                           functools.partial(rows, name, shape, way),
                           bytes=size * (2 if way == "forward" else 3), tolerance=1e-3)
        for name in ("sum rows", "sum columns", "sum all", "mean all", "max rows", "argmax rows",
                     "logsumexp", "var rows", "norm"):
            yield Case("norm", f"{name} {shape[0]}x{shape[1]}",
                       functools.partial(rows, name, shape, "forward"), bytes=size, tolerance=1e-3)
    for shape in IMAGES if full else IMAGES[:2]:
        size = 4 * shape[0] * shape[1] * shape[2] * shape[3]
        label = "x".join(map(str, shape))
        for name in ("batch_norm", "batch_norm eval", "group_norm", "sum space", "sum channels"):
            for way in ("forward", "grad") if "norm" in name else ("forward",):
                yield Case("norm", f"{name} {label} {way}",
                           functools.partial(images, name, shape, way), ("nchw", "channels_last"),
                           bytes=size * (2 if way == "forward" else 3), tolerance=1e-3)
