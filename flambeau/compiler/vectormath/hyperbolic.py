"""Hyperbolic functions and their inverses, from expm1 and from logarithms of unrounded sums."""

from __future__ import annotations

from flambeau.compiler.emitter import Function, Value, scalar_of
from flambeau.compiler.vectormath.basic import (
    at_most,
    copysign,
    divide_by_sum,
    fabs,
    fast_two_sum,
    format_of,
    polynomial,
    sqrt,
    two_product,
    two_sum,
)
from flambeau.compiler.vectormath.exp_log import exp_reduced, log_sum, power_of_two, powers_of_two

__all__ = ["sinh", "cosh", "tanh", "asinh", "acosh", "atanh"]

# (sinh(x) / x - 1) / x**2 as a polynomial in x**2, |x| <= 1: 2**-31.5, 2**-61.7
_SINH = {
    "float": (0.166666672, 0.00833331142, 0.000198426351, 2.78392758e-06),
    "double": (0.16666666666666669, 0.008333333333332915, 0.00019841269841589358,
               2.7557319108364587e-06, 2.5052130712531484e-08, 1.6056682664527321e-10,
               7.775875959050756e-13),
}


def tanh(f: Function, x: Value) -> Value:
    """The hyperbolic tangent: u / (u + 2) with u = expm1(2 |x|)."""
    fmt = format_of(x)
    t = at_most(f, fabs(f, x), 9.1 if fmt.scalar == "float" else 19.1)  # 1 beyond
    q, n = exp_reduced(f, f.fadd(t, t), fmt.bias)
    power = power_of_two(f, n)
    u = f.fma(power, q, f.fsub(power, 1.0))
    return copysign(f, divide_by_sum(f, u, f.const(2.0, x.type), u), x)


def _half_exp(f: Function, t: Value) -> Value:
    """e**t / 2 for t >= 0, infinite only where the half is."""
    fmt = format_of(t)
    t = at_most(f, t, 90.0 if fmt.scalar == "float" else 711.0)
    q, n = exp_reduced(f, t, 2 * fmt.bias)
    first, second = powers_of_two(f, n)
    return f.fmul(f.fma(q, first, first), f.fmul(second, 0.5))


def sinh(f: Function, x: Value) -> Value:
    """The hyperbolic sine."""
    t = fabs(f, x)
    h = _half_exp(f, t)
    far = copysign(f, f.fsub(h, f.fdiv(0.25, h)), x)
    z = f.fmul(x, x)
    near = f.fma(f.fmul(x, z), polynomial(f, z, _SINH[scalar_of(x.type)]), x)
    return f.select(f.cmp("olt", t, 1.0), copysign(f, near, x), far)


def cosh(f: Function, x: Value) -> Value:
    """The hyperbolic cosine."""
    h = _half_exp(f, fabs(f, x))
    return f.fadd(h, f.fdiv(0.25, h))


def _root(f: Function, high: Value, low: Value) -> tuple[Value, Value]:
    """sqrt(high + low) as a pair, for high >= 0."""
    root = sqrt(f, high)
    left = f.fadd(f.fma(f.fneg(root), root, high), low)
    divisor = f.select(f.cmp("oeq", root, 0.0), 1.0, f.fadd(root, root))
    return root, f.fdiv(left, divisor)


def _log_with_root(f: Function, x: Value, offset: float) -> Value:
    """log(x + sqrt(x**2 + offset)), offset 1 or -1, for x >= |offset| / 1000."""
    fmt = format_of(x)
    # where the root is x to all digits: log(2 x)
    large = f.cmp("ogt", x, 2.0 ** (fmt.mantissa // 2 + 3))
    y = f.select(large, 1.0, x)
    square, square_low = two_product(f, y, y)
    total, error = two_sum(f, square, f.const(offset, x.type))
    total, error = fast_two_sum(f, total, f.fadd(error, square_low))
    root, root_low = _root(f, total, error)
    high, low = two_sum(f, y, root)
    high = f.select(large, x, high)
    low = f.select(large, 0.0, f.fadd(low, root_low))
    doublings = f.select(large, f.const(1.0, x.type), 0.0)
    return log_sum(f, high, low, doublings)


def asinh(f: Function, x: Value) -> Value:
    """The inverse hyperbolic sine: log(|x| + sqrt(x**2 + 1)), x - x**3 / 6 near 0."""
    small = 2.0**-10 if scalar_of(x.type) == "float" else 2.0**-13
    t = fabs(f, x)
    near = f.fma(f.fmul(f.fmul(t, t), t), -1.0 / 6.0, t)
    return copysign(f, f.select(f.cmp("olt", t, small), near, _log_with_root(f, t, 1.0)), x)


def acosh(f: Function, x: Value) -> Value:
    """The inverse hyperbolic cosine; NaN below 1."""
    return f.select(f.cmp("olt", x, 1.0), float("nan"), _log_with_root(f, x, -1.0))


def atanh(f: Function, x: Value) -> Value:
    """The inverse hyperbolic tangent: log(1 + 2 |x| / (1 - |x|)) / 2."""
    t = fabs(f, x)
    top = f.fadd(t, t)
    bottom, bottom_low = fast_two_sum(f, f.const(1.0, x.type), f.fneg(t))
    v = f.fdiv(top, bottom)
    left = f.fma(f.fneg(v), bottom_low, f.fma(f.fneg(v), bottom, top))
    high, low = two_sum(f, v, f.const(1.0, x.type))
    low = f.fadd(low, f.fdiv(left, bottom))
    result = log_sum(f, high, low)
    return copysign(f, f.fmul(result, 0.5), x)
