"""Random fills against PyTorch's, on the same seed: every kind, dtype and a range of lengths.

The bits must agree, and the streams must stand at the same place afterwards. Values in float64 that
pass through a logarithm, sine, cosine or exponential may differ in their last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flambeau

pytorch = pytest.importorskip("torch")

# Around the vectors (8, 16), the blocks of normals (16), pairs, and the words of a state (624).
LENGTHS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100, 311, 312, 313, 623, 624, 625, 1000, 1247,
           1248, 2503)
FLOATING = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
ALL = (*FLOATING, *INTEGERS, "bool")


def uniform(T: Any, x: Any) -> Any:
    return x.uniform_(-0.3, 2.7)


def normal(T: Any, x: Any) -> Any:
    return x.normal_(0.5, 3.0)


def exponential(T: Any, x: Any) -> Any:
    return x.exponential_(1.5)


def log_normal(T: Any, x: Any) -> Any:
    return x.log_normal_(0.5, 0.25)


def cauchy(T: Any, x: Any) -> Any:
    return x.cauchy_(1.0, 0.5)


def geometric(T: Any, x: Any) -> Any:
    return x.geometric_(0.2)


def bernoulli(T: Any, x: Any) -> Any:
    return x.bernoulli_(0.3)


def bernoulli_each(T: Any, x: Any) -> Any:
    chances = (T.arange(x.numel()) % 101 / 101).to(x.dtype).reshape(x.shape)
    return x.bernoulli_(chances)


def random(T: Any, x: Any) -> Any:
    return x.random_()


def random_below(T: Any, x: Any) -> Any:
    return x.random_(100) if x.dtype is not T.bool else x.random_(2)


def random_between(T: Any, x: Any) -> Any:
    return x.random_(-2**62, 2**62 + 12345)


def random_beyond(T: Any, x: Any) -> Any:
    return x.random_(-2**63, None)


def dropout(T: Any, x: Any) -> Any:
    return T.nn.functional.dropout(x.fill_(3.0), 0.3)


KINDS: list[tuple[Callable, tuple[str, ...]]] = [
    (uniform, FLOATING), (normal, FLOATING), (exponential, FLOATING), (log_normal, FLOATING),
    (cauchy, FLOATING), (geometric, (*FLOATING, *INTEGERS)), (bernoulli, ALL),
    (bernoulli_each, FLOATING), (random, ALL), (random_below, ALL), (random_between, ("int64",)),
    (random_beyond, ("int64",)), (dropout, FLOATING)]

# In float64, the rounding of these functions is the platform's: units of the last place.
ROUNDED = {"normal": 2, "exponential": 2, "log_normal": 4, "cauchy": 2}

LAYOUTS = {
    "contiguous": lambda T, n, dtype: T.zeros(n, dtype=dtype),
    "strided": lambda T, n, dtype: T.zeros(3 * n, dtype=dtype)[::3],
    "transposed": lambda T, n, dtype: T.zeros(n, 2, dtype=dtype).t(),
}


def drawn(T: Any, kind: Callable, dtype: str, layout: str, n: int) -> tuple[np.ndarray, bytes]:
    """(elements in row-major order as float64 or integers, state afterwards) of the second fill of
    its kind: the stream then stands within a block, and a sample of a pair may be waiting."""
    T.manual_seed(1000 + n)
    x = LAYOUTS[layout](T, n, getattr(T, dtype))
    kind(T, LAYOUTS[layout](T, 3, x.dtype))
    values = kind(T, x)
    wide = values.double() if values.dtype.is_floating_point else values.long()
    return wide.contiguous().numpy().copy(), bytes(T.get_rng_state().numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kind", "dtype"), [(kind, dtype) for kind, able in KINDS
                                             for dtype in able],
                         ids=lambda one: getattr(one, "__name__", one))
def test_fills_are_pytorchs(kind, dtype, layout):
    for n in LENGTHS if layout == "contiguous" else LENGTHS[::3]:
        ours, state = drawn(flambeau, kind, dtype, layout, n)
        theirs, expected = drawn(pytorch, kind, dtype, layout, n)
        bound = ROUNDED.get(kind.__name__, 0) if dtype == "float64" else 0
        if bound:
            apart = np.abs(ours - theirs) / np.spacing(np.maximum(np.abs(theirs), 1))
            assert apart.max() <= bound, (n, apart.max())
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{n} elements")
        assert without_relics(state) == without_relics(expected), n


def without_relics(state: bytes) -> bytes:
    """A saved state with a waiting normal sample reduced to its leading bits: it is a double."""
    return state[:5016] + state[5032:]


FACTORIES: dict[str, Callable] = {
    "rand": lambda T, n: T.rand(n), "rand 2d": lambda T, n: T.rand(n, 3),
    "rand float64": lambda T, n: T.rand((n,), dtype=T.float64),
    "randn": lambda T, n: T.randn(n), "randn bfloat16": lambda T, n: T.randn(n, dtype=T.bfloat16),
    "randint": lambda T, n: T.randint(-7, 1000, (n,)),
    "randint wide": lambda T, n: T.randint(2**40, [n]),
    "randint float32": lambda T, n: T.randint(10, (n,), dtype=T.float32),
    "randperm": lambda T, n: T.randperm(n), "randperm int32": lambda T, n: T.randperm(
        n, dtype=T.int32),
    "rand_like": lambda T, n: T.rand_like(T.zeros(n)),
    "randn_like": lambda T, n: T.randn_like(T.zeros(n, dtype=T.float16)),
    "randint_like": lambda T, n: T.randint_like(T.zeros(n), 3, 90),
    "bernoulli": lambda T, n: T.bernoulli(T.arange(n) / n),
    "normal": lambda T, n: T.normal(T.arange(n) / n, 2.0),
    "normal each": lambda T, n: T.normal(0.0, T.arange(n) / n),
    "complex": lambda T, n: T.view_as_real(T.randn(n, dtype=T.complex64)),
    "multinomial": lambda T, n: T.multinomial(T.arange(n) + 1.0, 5, True),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_factories_draw_as_pytorchs(name):
    make = FACTORIES[name]
    for n in LENGTHS:
        results = []
        for T in (flambeau, pytorch):
            T.manual_seed(77 + n)
            made = [make(T, n) for _ in range(3)]  # the later ones by what the first left ready
            results.append([*(one.double().numpy().copy() for one in made),
                            np.frombuffer(without_relics(bytes(T.get_rng_state().numpy())),
                                          np.uint8)])
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{n} elements")


def test_streams_continue_each_other():
    """A state saved by either side goes on in the other, in the middle of a pair of normals too."""
    for draw in (1, 5, 623, 700):
        flambeau.manual_seed(draw)
        flambeau.rand(draw)
        flambeau.randn(3)
        pytorch.set_rng_state(pytorch.from_numpy(flambeau.get_rng_state().numpy().copy()))
        assert np.array_equal(flambeau.randn(5).numpy(), pytorch.randn(5).numpy())
        pytorch.rand(draw)
        flambeau.set_rng_state(flambeau.from_numpy(pytorch.get_rng_state().numpy().copy()))
        assert np.array_equal(flambeau.rand(2000).numpy(), pytorch.rand(2000).numpy())
