"""Vector mathematics: accuracy against numpy, scipy and mpmath, special values, independence of
the vector width, and no calls of the C library."""

from __future__ import annotations

import ctypes
import functools
import re

import mpmath
import numpy as np
import pytest
from scipy import special

from flambeau.compiler import llvm, target
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.vectormath import BINARY, FUNCTIONS, MAX_ULP
from flambeau.runtime.loader import load_kernel

DTYPE = {"float": np.float32, "double": np.float64}
UNARY = [name for name in FUNCTIONS if name not in BINARY]
BOTH = pytest.mark.parametrize("scalar", ["float", "double"])
INF, NAN = float("inf"), float("nan")


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def module_text(names: tuple[str, ...], scalar: str, lanes: int, machine: target.Target) -> str:
    """One kernel per name: out[i] = name(x[i], y[i]); slots x, y, out, n (a multiple of lanes)."""
    module = Module(machine.attributes)
    type_ = vector(lanes, scalar)
    for name in names:
        f = module.function(f"k_{name}", [("ptr", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                                          ("i32", "thread")])
        x, y, out = (f.load("ptr", f.args["args"], slot) for slot in range(3))
        with f.loop(0, f.load("i64", f.args["args"], 3), lanes) as i:
            operands = [f.load(type_, x, i)]
            if name in BINARY:
                operands.append(f.load(type_, y, i))
            f.store(FUNCTIONS[name](f, *operands), out, i)
    return module.text()


@functools.cache
def compiled(name: str, scalar: str, lanes: int | None = None):
    lanes = lanes or target.host().lanes(np.dtype(DTYPE[scalar]).itemsize)
    address = load_kernel(f"k_{name}", module_text((name,), scalar, lanes, target.host()))
    native = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int] * 3)(address)

    def run(x, y=None):
        count = len(x)
        padded = -count % lanes
        arrays = [np.concatenate([np.asarray(a, DTYPE[scalar]), np.ones(padded, DTYPE[scalar])])
                  for a in (x, x if y is None else y)]
        arrays.append(np.empty_like(arrays[0]))
        slots = (ctypes.c_int64 * 4)(*[a.ctypes.data for a in arrays], count + padded)
        native(ctypes.addressof(slots), 0, 1, 0)
        return arrays[2][:count]

    return run


def errors(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Errors in units of the last place of `expected` (of a wider type); inf for a wrong NaN,
    infinity or sign of zero."""
    info = np.finfo(got.dtype)
    rounded = expected.astype(got.dtype)
    magnitude = np.where(np.isfinite(rounded), np.abs(rounded), info.max)
    ulp = np.spacing(np.maximum(magnitude, info.tiny))
    error = np.abs(got.astype(expected.dtype) - expected) / ulp
    error = np.where(np.isnan(error), INF, error)
    agree = np.where(np.isnan(rounded), np.isnan(got), np.isinf(rounded) & (got == rounded))
    error = np.where(agree, 0, error)
    lost_sign = (got == 0) & (rounded == 0) & (np.signbit(got) != np.signbit(rounded))
    return np.where(lost_sign, INF, error)


def check(name: str, got: np.ndarray, expected: np.ndarray, *operands: np.ndarray) -> None:
    error = errors(got, expected)
    worst = int(np.argmax(error))
    assert error[worst] <= MAX_ULP[name], (
        f"{name}({', '.join(repr(a[worst]) for a in operands)}) = {got[worst]!r}, not "
        f"{expected[worst]!r}: {error[worst]:.2f} ulp")


# ---------------------------------------------------------------------- oracles
def silu(x):
    return x / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(x.dtype.type(0), x)


def mish(x):
    return x * np.tanh(softplus(x))


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


NUMPY = {name: getattr(np, alias) for name, alias in {
    "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2",
    "log10": "log10", "log1p": "log1p", "sin": "sin", "cos": "cos", "tan": "tan",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint", "pow": "power",
    "atan2": "arctan2"}.items()} | {"sigmoid": sigmoid, "silu": silu, "mish": mish,
                                      "softplus": softplus}
SCIPY = {"erf": special.erf, "erfc": special.erfc, "erfinv": special.erfinv,
         "lgamma": special.gammaln, "digamma": special.digamma}


def erfinv_exact(x):
    """Newton's method from scipy's double."""
    y = mpmath.mpf(float(special.erfinv(float(x))))
    for _ in range(3):
        slope = 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-y * y)
        y -= (mpmath.erf(y) - x) / slope
    return y


MPMATH = {"erf": mpmath.erf, "erfc": mpmath.erfc, "erfinv": erfinv_exact,
          "lgamma": mpmath.loggamma, "digamma": mpmath.digamma}


def by_mpmath(function, x: np.ndarray) -> np.ndarray:
    """function(x) as long doubles, from 40 digits."""
    out = np.empty(len(x), np.longdouble)
    with mpmath.workdps(40):
        for i, value in enumerate(x):
            exact = mpmath.mpf(function(mpmath.mpf(float(value))))
            out[i] = np.longdouble(float(exact)) + np.longdouble(float(exact - float(exact)))
    return out


# ---------------------------------------------------------------------- arguments
def all_floats(step: int) -> np.ndarray:
    """Every step-th bit pattern: both signs, every exponent, NaNs, denormals."""
    return np.arange(0, 1 << 32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


def doubles(rng: np.random.Generator, count: int) -> np.ndarray:
    patterns = rng.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64)
    near_one = 1 + rng.uniform(-1, 1, count) * np.exp2(rng.uniform(-52, -1, count))
    scaled = rng.choice([-1, 1], count) * np.exp2(rng.uniform(-12, 10, count))
    edges = [0.0, -0.0, INF, -INF, NAN, 5e-324, -5e-324, 2.3e-308, 1e9, 1.7e308]
    return np.concatenate([patterns, near_one, -near_one, scaled, rng.uniform(-800, 800, count),
                           rng.uniform(-1, 1, count), edges])


# ---------------------------------------------------------------------- accuracy
@pytest.mark.parametrize("name", UNARY)
def test_float_accuracy(name):
    x = all_floats(20011)
    if name == "digamma":  # scipy has no digamma(-0) and other infinities at the poles
        x = x[(x > 0) | (x != np.rint(x))]
    if name in ("lgamma", "digamma"):
        x = x[(x > 0) | (x < -1e-30) & (x > -1e4)]
    expected = (NUMPY | SCIPY)[name](x.astype(np.float64))
    check(name, compiled(name, "float")(x), expected, x)


@pytest.mark.parametrize("name", [name for name in UNARY if name in NUMPY])
def test_double_accuracy(name):
    x = doubles(np.random.default_rng(1), 20000)
    check(name, compiled(name, "double")(x), NUMPY[name](x.astype(np.longdouble)), x)


@pytest.mark.parametrize("name", MPMATH)
def test_double_accuracy_special(name):
    rng = np.random.default_rng(2)
    ranges = {"erf": (-6.5, 6.5), "erfc": (-6.5, 27.5), "erfinv": (-1, 1),
              "lgamma": (0, 40), "digamma": (0, 40)}
    low, high = ranges[name]
    small = np.exp2(rng.uniform(-40, -1, 100))
    x = np.concatenate([rng.uniform(low, high, 200), small, 1 - small, np.exp2(
        rng.uniform(-20, 4 if name in ("lgamma", "digamma") else 0, 100))])
    check(name, compiled(name, "double")(x), by_mpmath(MPMATH[name], x), x)


@BOTH
@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_gamma_of_negative_numbers(name, scalar):
    x = np.random.default_rng(3).uniform(-30, -0.1, 300).astype(DTYPE[scalar])
    expected = by_mpmath(lambda v: mpmath.re(MPMATH[name](v)), x)
    tolerance = 1e-6 if scalar == "float" else 3e-15
    assert np.all(np.abs(compiled(name, scalar)(x) - expected)
                  <= tolerance * (np.abs(expected) + 100 * (scalar == "double")))


@BOTH
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_circular_functions_of_far_arguments(name, scalar):
    rng = np.random.default_rng(4)
    multiples = np.rint(np.exp2(rng.uniform(0, 40, 20000))) * (np.pi / 2)
    x = np.concatenate([multiples, np.exp2(rng.uniform(15, 120, 20000)), [1e6, 1e9, 1e22]])
    x = x.astype(DTYPE[scalar])
    wide = np.float64 if scalar == "float" else np.longdouble
    check(name, compiled(name, scalar)(x), NUMPY[name](x.astype(wide)), x)


EDGES = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, INF, -INF, NAN, 1e-45, -1e-45,
         5e-324, 3.4e38, -3.4e38, 1e308, 7.0, 2.5, 1e10, 16777217.0]


def pairs(scalar: str, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    width, word = (32, np.uint32) if scalar == "float" else (64, np.uint64)
    x, y = (a.ravel().astype(DTYPE[scalar]) for a in np.meshgrid(EDGES, EDGES))
    patterns = [rng.integers(0, 1 << width, count, dtype=word).view(DTYPE[scalar])
                for _ in range(2)]
    near = 1 + rng.uniform(-1, 1, count) * np.exp2(rng.uniform(-30, -1, count))
    return [np.concatenate(parts).astype(DTYPE[scalar]) for parts in (
        [x, patterns[0], rng.uniform(0, 10, count), near],
        [y, patterns[1], rng.uniform(-30, 30, count), rng.uniform(-1000, 1000, count)])]


@BOTH
@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_binary_accuracy(name, scalar):
    x, y = pairs(scalar, 20000)
    wide = np.float64 if scalar == "float" else np.longdouble
    check(name, compiled(name, scalar)(x, y), NUMPY[name](x.astype(wide), y.astype(wide)), x, y)


@BOTH
def test_fmod_is_exact(scalar):
    x, y = pairs(scalar, 20000)
    expected = np.fmod(x, y)
    got = compiled("fmod", scalar)(x, y)
    np.testing.assert_array_equal(got, expected)
    assert np.array_equal(np.signbit(got[got == 0]), np.signbit(expected[got == 0]))


@BOTH
def test_remainder_has_the_sign_of_the_divisor(scalar):
    x, y = pairs(scalar, 20000)
    inside = np.isfinite(y)
    x, y = x[inside], y[inside]
    np.testing.assert_array_equal(compiled("remainder", scalar)(x, y), np.mod(x, y))


# ---------------------------------------------------------------------- special values
@BOTH
@pytest.mark.parametrize("name, x, expected", [
    ("erf", [INF, -INF, -0.0, NAN], [1, -1, -0.0, NAN]),
    ("erfc", [INF, -INF, 0, NAN], [0, 2, 1, NAN]),
    ("erfinv", [1, -1, 1.5, -0.0, NAN], [INF, -INF, NAN, -0.0, NAN]),
    ("sigmoid", [INF, -INF, 0, NAN], [1, 0, 0.5, NAN]),
    ("lgamma", [0, -0.0, 1, 2, -1, -3, INF, -INF, NAN], [INF, INF, 0, 0, INF, INF, INF, INF, NAN]),
    ("digamma", [0, -0.0, -1, -2, INF, -INF, NAN], [-INF, INF, NAN, NAN, INF, NAN, NAN]),
    ("remainder", [5.5, -5.5, 5.5, -5.5, 1, NAN], [1.5, 0.5, 1.5, 0.5, 1, NAN]),
])
def test_special_values(name, x, expected, scalar):
    got = compiled(name, scalar)(x, [2.0] * len(x))
    np.testing.assert_array_equal(got, np.asarray(expected, DTYPE[scalar]))
    zeros = np.asarray(expected) == 0
    if name.startswith("erf"):
        assert np.array_equal(np.signbit(got[zeros]), np.signbit(np.asarray(expected)[zeros]))


@pytest.mark.parametrize("name", UNARY)
def test_every_nan_stays_nan(name):
    payloads = np.array([0x7FC00001, 0x7FFFFFFF, 0xFFC00001, 0xFFFFFFFF], np.uint32)
    assert np.isnan(compiled(name, "float")(payloads.view(np.float32))).all()


# ---------------------------------------------------------------------- any width, any target
@pytest.mark.parametrize("lanes", [1, 3, 32])
@pytest.mark.parametrize("name", ["exp", "log1p", "sin", "tanh", "erf", "lgamma", "pow", "fmod"])
def test_width_does_not_change_a_bit(name, lanes):
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.uniform(0, 50, 500), [1e7, 1e30, INF, NAN, -1.0]])
    y = rng.uniform(-5, 5, len(x))
    np.testing.assert_array_equal(compiled(name, "float", lanes)(x, y),
                                  compiled(name, "float")(x, y))


TARGETS = [
    ("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma", 256, r"\bcall\w*\s+(\S+)"),
    ("aarch64-unknown-linux-gnu", "generic", "+neon", 128, r"\bbl\s+(\S+)"),
]


@BOTH
@pytest.mark.parametrize("triple, cpu, features, bits, call", TARGETS, ids=["x86", "aarch64"])
def test_nothing_calls_the_c_library(triple, cpu, features, bits, call, scalar):
    machine = target.Target(triple, cpu, features, bits, 32)
    lanes = machine.lanes(np.dtype(DTYPE[scalar]).itemsize)
    text = llvm.emit_assembly(module_text(tuple(FUNCTIONS), scalar, lanes, machine), machine,
                              jit=False)
    called = {name.split("@")[0] for name in re.findall(call, text)}
    assert called <= {"flambeau_reduce_far"}


def test_other_types_are_refused_with_advice():
    f = Function(Module(), "f", [], "void", False, "")
    with pytest.raises(NotImplementedError, match="extend the argument to float"):
        FUNCTIONS["exp"](f, Value("%x", "half"))
