"""Complex functions at infinite, huge and tiny arguments, by C99 annex G and by limits."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

import flambeau as torch

INF, NAN = math.inf, math.nan
PI = math.pi
LARGEST = {torch.complex64: float(np.finfo(np.float32).max), torch.complex128: 1.7e308}


def value(name: str, z: complex, dtype) -> complex:
    return getattr(torch, name)(torch.tensor([z], dtype=dtype)).item()


def same(a: float, b: float) -> bool:
    return math.isnan(a) and math.isnan(b) or a == b or math.isclose(a, b, rel_tol=1e-6)


DIRECTIONS = [
    ("asin", complex(INF, 1), complex(PI / 2, INF)),
    ("asin", complex(-INF, -1), complex(-PI / 2, -INF)),
    ("asin", complex(INF, INF), complex(PI / 4, INF)),
    ("asinh", complex(1, INF), complex(INF, PI / 2)),
    ("acos", complex(INF, INF), complex(PI / 4, -INF)),
    ("acos", complex(-INF, INF), complex(3 * PI / 4, -INF)),
    ("acosh", complex(-INF, INF), complex(INF, 3 * PI / 4)),
    ("exp", complex(INF, INF), complex(INF, NAN)),
    ("exp", complex(-INF, NAN), 0j),
    ("log", complex(INF, NAN), complex(INF, NAN)),
    ("sinh", complex(INF, INF), complex(INF, NAN)),
    ("cosh", complex(INF, INF), complex(INF, NAN)),
    ("tanh", complex(INF, 5), 1 + 0j),
    ("tanh", complex(INF, NAN), 1 + 0j),
    ("sigmoid", complex(-800, 1), 0j),
    ("expm1", complex(900, 1), complex(INF, INF)),
]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("case", DIRECTIONS, ids=lambda case: f"{case[0]}{case[1]}")
def test_infinite_arguments(case, dtype):
    name, z, wanted = case
    found = value(name, z, dtype)
    assert same(found.real, wanted.real) and same(found.imag, wanted.imag), (found, wanted)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_huge_arguments_of_arcs_have_the_limit(dtype):
    huge = LARGEST[dtype]
    for name, z in (("atan", complex(huge, 1)), ("atan", complex(-huge, 1e-5)),
                    ("atanh", complex(0.5, huge)), ("atanh", complex(huge, 2)),
                    ("asin", complex(huge, 1)), ("tanh", complex(1, huge))):
        wanted = getattr(cmath, name)(torch.tensor(z, dtype=dtype).item())
        found = value(name, z, dtype)
        assert cmath.isclose(found, wanted, rel_tol=1e-5), (name, z, found, wanted)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_sigmoid_and_silu_where_the_exponential_overflows(dtype):
    z = complex(-100 if dtype is torch.complex64 else -720, 1e-5)
    assert abs(value("sigmoid", z, dtype)) < 1e-30
    silu = torch.nn.functional.silu(torch.tensor([z], dtype=dtype)).item()
    assert abs(silu) < 1e-30


def test_square_roots_by_power():
    z = torch.tensor([complex(INF, 1), complex(2, INF), complex(-4, 0)])
    assert torch.equal(z ** 0.5, z.sqrt())
