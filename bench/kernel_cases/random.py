"""Random fills from PyTorch's stream."""

from __future__ import annotations

import functools

from kernel_cases import Case


def build(name: str, count: int, T, variant: str):
    x = T.ones(count)
    p = T.full((count,), 0.3)
    calls = {
        "rand": lambda: T.rand(count), "randn": lambda: T.randn(count),
        "rand float64": lambda: T.rand(count, dtype=T.float64),
        "randn float64": lambda: T.randn(count, dtype=T.float64),
        "randint": lambda: T.randint(0, 1000, (count,)), "randperm": lambda: T.randperm(count),
        "bernoulli": lambda: T.bernoulli(p), "bernoulli_ p": lambda: x.bernoulli_(0.3),
        "dropout": lambda: T.nn.functional.dropout(x, 0.1),
        "uniform_": lambda: x.uniform_(-1, 1), "normal_": lambda: x.normal_(0, 2),
        "exponential_": lambda: x.exponential_(),
    }

    def seeded():
        T.manual_seed(3)
        return calls[name]()

    return seeded


def cases(full: bool):
    for name in ("rand", "randn", "rand float64", "randn float64", "randint", "randperm",
                 "bernoulli", "bernoulli_ p", "dropout", "uniform_", "normal_", "exponential_"):
        for count in (4_000_000,) + (1000, 100_003) * full:
            yield Case("random", f"{name} {count}", functools.partial(build, name, count),
                       bytes=4 * count, check=name not in ("exponential_", "bernoulli_ p"))
