"""Optimizer steps over 10 million parameters in 160 tensors, and over 160 small tensors."""

from __future__ import annotations

import functools

from kernel_cases import Case, normal

OPTIMIZERS = {"SGD": {"lr": 1e-4}, "SGD momentum": {"lr": 1e-4, "momentum": 0.9}, "Adam": {},
              "AdamW": {}, "RMSprop": {}, "Adagrad": {}}
SIZES = [(512, 226), (512,)] * 80  # and so about 10 million in 160 tensors
SMALL = [(1000,)] * 160
BATCHED = [(256, 256), (256,), (64, 64, 3, 3), (64,)] * 40


def build(name: str, sizes: list, T, variant: str):
    parameters = [T.nn.Parameter(normal(T, *shape, seed=n)) for n, shape in enumerate(sizes)]
    for n, parameter in enumerate(parameters):
        parameter.grad = normal(T, *parameter.shape, seed=1000 + n)
    kind, options = getattr(T.optim, name.split()[0]), OPTIMIZERS[name]
    if variant == "fused":
        options = options | {"fused": True}
    elif variant == "foreach":
        options = options | {"foreach": True}
    optimizer = kind(parameters, **options)

    def step():
        optimizer.step()
        return parameters[0]

    return step


def cases(full: bool):
    for name in OPTIMIZERS:
        peers = ("foreach",) if name == "RMSprop" else ("fused", "foreach")
        chosen = (("160 tensors", SIZES), ("160 small", SMALL), ("mixed", BATCHED))
        for label, sizes in chosen[:3 if full else 2]:
            count = sum(4 * s[0] * (s[1] if len(s) > 1 else 1) for s in sizes)
            moments = {"SGD": 3, "SGD momentum": 5, "Adam": 7, "AdamW": 7}.get(name, 5)
            yield Case("optimizer", f"{name} {label}", functools.partial(build, name, sizes), ("",),
                       peers, bytes=count * moments, tolerance=1e-3)
