"""Conversions to half and bfloat against numpy and ml_dtypes, and exact arithmetic."""

from __future__ import annotations

import ctypes
import fractions

import ml_dtypes
import numpy as np
import pytest

from flambeau.compiler import soft_float
from flambeau.runtime import loader

# numpy says so of signalling NaN, which are part of the tests.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in cast:RuntimeWarning")

TYPES = {"half": np.float16, "bfloat": ml_dtypes.bfloat16, "float": np.float32,
         "double": np.float64}
WORDS = {2: np.uint16, 4: np.uint32}


def convert(name: str, source: str, result: str, x: np.ndarray) -> np.ndarray:
    address = loader.load_kernel("each", f"""
define void @each(ptr %a, ptr %b, i64 %n) nounwind {{
entry:
  br label %body
body:
  %i = phi i64 [ 0, %entry ], [ %i1, %body ]
  %p = getelementptr {source}, ptr %a, i64 %i
  %x = load {source}, ptr %p
  %y = call {result} @{name}({source} %x)
  %q = getelementptr {result}, ptr %b, i64 %i
  store {result} %y, ptr %q
  %i1 = add i64 %i, 1
  %c = icmp slt i64 %i1, %n
  br i1 %c, label %body, label %out
out:
  ret void
}}
""" + soft_float.soft_float_ir())
    x = np.ascontiguousarray(x)
    y = np.empty(x.shape, TYPES[result])
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)(
        x.ctypes.data, y.ctypes.data, x.size)
    return y


def floats() -> np.ndarray:
    source = np.random.default_rng(0)
    anything = source.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    halves = source.integers(0x32800000, 0x47900000, 200_000, dtype=np.uint32)  # in half's range
    ties = np.concatenate([halves & ~np.uint32(0xFFF), anything & ~np.uint32(0x7FFF)])
    return np.concatenate([anything, halves, ties]).view(np.float32)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    words = WORDS[found.itemsize]
    nan = np.isnan(expected.astype(np.float64))
    np.testing.assert_array_equal(np.isnan(found.astype(np.float64)), nan)
    np.testing.assert_array_equal(found.view(words)[~nan], expected.view(words)[~nan])


@pytest.mark.parametrize("name, result", [("__truncsfhf2", "half"), ("__truncsfbf2", "bfloat")])
def test_from_float(name, result):
    x = floats()
    same(convert(name, "float", result, x), x.astype(TYPES[result]))


def test_from_half():
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    same(convert("__extendhfsf2", "half", "float", x), x.astype(np.float32))


@pytest.mark.parametrize("name, result", [("__truncdfhf2", "half"), ("__truncdfbf2", "bfloat")])
def test_from_double_rounds_once(name, result):
    """Midpoints between neighbours, and the doubles next to them, which float cannot tell apart."""
    words = np.arange(0, 0x7C00 if result == "half" else 0x7F80, 7, dtype=np.uint16)
    low, high = words.view(TYPES[result]), (words + 1).view(TYPES[result])
    finite = np.isfinite(high.astype(np.float64))
    words, low, high = words[finite], low[finite], high[finite]
    middle = (low.astype(np.float64) + high.astype(np.float64)) / 2
    even = np.where(words & 1 == 0, low, high)
    for sign in (1.0, -1.0):
        for x, expected in ((np.nextafter(middle, 0), low), (middle, even),
                            (np.nextafter(middle, np.inf), high)):
            found = convert(name, "double", result, sign * x)
            np.testing.assert_array_equal(found.astype(np.float64), sign * expected.astype(
                np.float64))
    i = 100
    assert fractions.Fraction(float(middle[i])) * 2 == (
        fractions.Fraction(float(low[i])) + fractions.Fraction(float(high[i])))


@pytest.mark.parametrize("name, result", [("__truncdfhf2", "half"), ("__truncdfbf2", "bfloat")])
def test_special_doubles(name, result):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 1e-300, -1e-300, 5e-324])
    found = convert(name, "double", result, x).astype(np.float64)
    np.testing.assert_array_equal(found, [0, -0.0, np.inf, -np.inf, np.nan, np.inf, -np.inf, 0,
                                          -0.0, 0])
    np.testing.assert_array_equal(np.signbit(found[[0, 1, 7, 8]]), [False, True, False, True])


def test_kernels_find_them():
    """A processor without the instructions: LLVM calls functions that nobody else provides."""
    address = loader.load_kernel("k", """
define void @k(ptr %a) "target-cpu"="x86-64" "target-features"="-avx512bf16,-f16c" {
  %x = load double, ptr %a
  %b = fptrunc double %x to bfloat
  store bfloat %b, ptr %a
  ret void
}""")
    x = np.array([3.140625])
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(x.ctypes.data)
    assert x.view(ml_dtypes.bfloat16)[0] == 3.140625
