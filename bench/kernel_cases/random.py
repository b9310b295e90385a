"""Random fills from PyTorch's stream."""

from __future__ import annotations

import functools

from kernel_cases import Case


def build(name: str, count: int, T, variant: str):
    """One kind of fill of `count` elements."""
    x = T.ones(count)
    p = T.full((count,), 0.3)
    integers = T.zeros(count, dtype=T.int64)
    calls = {
        "rand": lambda: T.rand(count), "randn": lambda: T.randn(count),
        "rand float64": lambda: T.rand(count, dtype=T.float64),
        "randn float64": lambda: T.randn(count, dtype=T.float64),
        "randint": lambda: T.randint(0, 1000, (count,)), "randperm": lambda: T.randperm(count),
        "bernoulli": lambda: T.bernoulli(p), "bernoulli_ p": lambda: x.bernoulli_(0.3),
        "dropout": lambda: T.nn.functional.dropout(x, 0.1),
        "uniform_": lambda: x.uniform_(-1, 1), "normal_": lambda: x.normal_(0, 2),
        "exponential_": lambda: x.exponential_(), "log_normal_": lambda: x.log_normal_(),
        "random_": lambda: integers.random_(), "rand_like": lambda: T.rand_like(x),
    }

    T.manual_seed(3)  # once: the first results are compared
    return calls[name]


def cases(full: bool):
    """Every kind, for many elements; with `full`, for few, too."""
    for name in ("rand", "randn", "rand float64", "randn float64", "randint", "randperm",
                 "bernoulli", "bernoulli_ p", "dropout", "uniform_", "normal_", "exponential_",
                 "log_normal_", "random_", "rand_like"):
        for count in (4_000_000,) + (1, 16, 100, 1000, 100_003) * full:
            yield Case("random", f"{name} {count}", functools.partial(build, name, count),
                       bytes=4 * count)
