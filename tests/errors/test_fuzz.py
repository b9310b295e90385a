"""Public functions called with arbitrary arguments: no internal error comes out."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

from flambeau.tensor import public

USERS = (TypeError, ValueError, RuntimeError, IndexError, OverflowError, MemoryError, BufferError)
"""What a mistake may raise. Not: KeyError, AttributeError, AssertionError, ZeroDivisionError ..."""


def functions(torch, namespace: str) -> dict:
    found = {name: public.lookup(namespace, name) for name in public.names(namespace)}
    return {name: function for name, function in found.items() if function is not None}


def anything(torch) -> list:
    return [torch.ones(2, 3), torch.ones(3), torch.tensor(1.0), torch.ones(0), torch.arange(3),
            torch.ones(2, 2).bool(), torch.ones(2, 3, 4, 5),
            torch.ones(2, 2, dtype=torch.complex64), torch.ones(2, 3, requires_grad=True),
            np.ones(3), [1, 2], [torch.ones(2)], 1, -1, 0, 7,
            2.5, True, None, "a", "mean", object(), {}, (), (0,), (0, 0), (2, 2), float("nan"), 1j,
            torch.float32, slice(None), 1 << 70, "cuda"]


def calls(torch, name: str, count: int, method: bool):
    rng = random.Random(name)
    for _ in range(count):
        values = anything(torch)
        args = [rng.choice(values) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4]))]
        if method or args and rng.random() < 0.7:
            args[:1] = [rng.choice(values[:9])]
        words = ["dim", "axis", "keepdim", "out", "dtype", "foo"]
        kwargs = {rng.choice(words): rng.choice(values)} if rng.random() < 0.2 else {}
        yield args, kwargs


def check(torch, name: str, function, count: int, method: bool = False) -> None:
    for args, kwargs in calls(torch, name, count, method):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                function(*args, **kwargs)
            except USERS as error:
                text = str(error)
            except Exception as error:
                pytest.fail(f"{name}{args}{kwargs}: {type(error).__name__}: {error}")
            else:
                continue
        assert text, (name, args)
        for ours in ("LLVM", "object has no attribute", "unhashable", "zip() argument",
                     "tuple index out of range"):
            assert ours not in text, (name, args, kwargs, text)


@pytest.mark.parametrize("namespace", ["torch", "nn.functional", "linalg", "special"])
def test_ops(torch, namespace):
    for name, function in functions(torch, namespace).items():
        check(torch, f"{namespace}.{name}", function, 4)


def test_methods(torch):
    for name in functions(torch, "torch"):
        method = getattr(torch.Tensor, name, None)
        if method is not None and callable(method):
            check(torch, f"Tensor.{name}", method, 3, method=True)


def test_factories(torch):
    for name in ("zeros", "ones", "empty", "full", "arange", "linspace", "eye", "rand", "randn",
                 "randint", "randperm", "tensor", "as_tensor", "from_numpy", "empty_like",
                 "zeros_like", "full_like", "rand_like", "bernoulli", "multinomial", "normal"):
        check(torch, name, getattr(torch, name), 25)
