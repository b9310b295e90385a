"""The logarithms, sines and cosines behind random streams.

They are apart from the general vector maths because a stream must reproduce another
implementation's values: float32 normals need the Cephes approximations, operation by operation,
and everything in double needs errors near half an ulp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flambeau.compiler.emitter import Function, Value, lanes_of, vector

__all__ = ["cephes_log", "cephes_sincos", "exp_double", "log1p_double", "log_double",
           "sincos_double", "tan_double"]

_LN2_HIGH = 6.93147180369123816490e-01  # 33 bits: an exponent times it is exact
_LN2_LOW = 1.90821492927058770002e-10
_HALF_PI_HIGH = 1.5707963267948966
_HALF_PI_LOW = 6.123233995736766e-17


def _horner(f: Function, x: Value, coefficients: Sequence[float]) -> Value:
    """A polynomial, highest power first, one fused multiply-add a step."""
    total = f.const(coefficients[0], x.type)
    for coefficient in coefficients[1:]:
        total = f.fma(total, x, f.const(coefficient, x.type))
    return total


def cephes_log(f: Function, x: Value) -> Value:
    """log(x) of float32 in [2^-24, 1], as Cephes' logf computes it with contracted operations."""
    ints = vector(lanes_of(x.type), "i32")
    bits = f.cast("bitcast", x, ints)
    exponent = f.cast("sitofp", f.sub(f.lshr(bits, 23), 126), x.type)
    m = f.cast("bitcast", f.or_(f.and_(bits, 0x007FFFFF), 0x3F000000), x.type)  # [0.5, 1)
    below = f.cmp("olt", m, 0.707106781186547524)
    t = f.fadd(f.fsub(m, 1.0), f.select(below, m, f.const(0, x.type)))
    exponent = f.fsub(exponent, f.select(below, f.const(1, x.type), f.const(0, x.type)))
    square = f.fmul(t, t)
    y = f.fmul(t, _horner(f, t, (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)))
    y = f.fma(y, square, f.fmul(exponent, -2.12194440e-4))
    y = f.fadd(t, f.fsub(y, f.fmul(square, 0.5)))
    return f.fma(exponent, f.const(0.693359375, x.type), y)


def cephes_sincos(f: Function, x: Value) -> tuple[Value, Value]:
    """(sin, cos) of float32 in [0, 8192), as Cephes' sinf and cosf with contracted operations."""
    ints = vector(lanes_of(x.type), "i32")
    octant = f.cast("fptosi", f.fmul(x, 1.27323954473516), ints)
    octant = f.and_(f.add(octant, 1), -2)
    turns = f.cast("sitofp", octant, x.type)
    for part in (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8):
        x = f.fma(turns, f.const(part, x.type), x)
    square = f.fmul(x, x)
    cosine = f.fmul(square, _horner(f, square, (
        2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)))
    cosine = f.fadd(f.fma(cosine, square, f.fmul(square, -0.5)), 1.0)
    sine = f.fmul(square, _horner(f, square, (
        -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)))
    sine = f.fma(sine, x, x)
    return _by_quadrant(f, f.lshr(octant, 1), sine, cosine)


def _by_quadrant(f: Function, quadrant: Value, sine: Value, cosine: Value) -> tuple[Value, Value]:
    """(sin, cos) of an angle from those of its remainder modulo a quarter turn."""
    swap = f.cmp("ne", f.and_(quadrant, 1), 0)
    s, c = f.select(swap, cosine, sine), f.select(swap, sine, cosine)
    s = f.select(f.cmp("ne", f.and_(quadrant, 2), 0), f.fneg(s), s)
    c = f.select(f.cmp("ne", f.and_(f.add(quadrant, 1), 2), 0), f.fneg(c), c)
    return s, c


def log_double(f: Function, x: Value) -> Value:
    """log(x) of positive normal doubles; -inf at 0. Error below 0.7 ulp.

    After fdlibm's e_log.c: x = 2^k (1 + t), log(1 + t) = t - (t^2/2 - s (t^2/2 + R(s^2))) with
    s = t / (2 + t); here t - t^2/2 is kept in two parts.
    """
    ints = vector(lanes_of(x.type), "i64")
    bits = f.cast("bitcast", x, ints)
    # The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    shifted = f.add(bits, 0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    k = f.sub(f.lshr(shifted, 52), 1023)
    m = f.cast("bitcast", f.sub(bits, f.shl(k, 52)), x.type)
    exponent = f.cast("sitofp", k, x.type)
    t = f.fsub(m, 1.0)
    s = f.fdiv(t, f.fadd(t, 2.0))
    z = f.fmul(s, s)
    r = f.fmul(z, _horner(f, z, (
        1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01,
        2.222219843214978396e-01, 2.857142874366239149e-01, 3.999999999940941908e-01,
        6.666666666666735130e-01)))
    half = f.fmul(t, 0.5)
    square = f.fmul(half, t)
    square_low = f.fma(half, t, f.fneg(square))
    high, low = _two_sum(f, t, f.fneg(square))
    low = f.fadd(f.fsub(low, square_low), f.fmul(s, f.fadd(square, r)))
    total, rest = _two_sum(f, f.fmul(exponent, _LN2_HIGH), high)
    low = f.fma(exponent, f.const(_LN2_LOW, x.type), f.fadd(rest, low))
    return f.select(f.cmp("oeq", x, 0.0), f.const(-math.inf, x.type), f.fadd(total, low))


def log1p_double(f: Function, x: Value) -> Value:
    """log(1 + x) of doubles in (-1, 1): log of the rounded sum, corrected by what it lost."""
    total, lost = _two_sum(f, f.const(1, x.type), x)
    return f.fadd(log_double(f, total), f.fdiv(lost, total))


def _two_sum(f: Function, a: Value, b: Value) -> tuple[Value, Value]:
    """a + b as a rounded sum and its exact error (Knuth)."""
    total = f.fadd(a, b)
    part = f.fsub(total, a)
    return total, f.fadd(f.fsub(a, f.fsub(total, part)), f.fsub(b, part))


def _reduced(f: Function, x: Value) -> tuple[Value, Value, Value]:
    """x = quadrant * pi/2 + (high + low), for |x| up to a few turns; quadrant is an integer."""
    turns = f.intrinsic("llvm.rint", x.type, f.fmul(x, 2 / math.pi))
    back = f.fneg(turns)
    near = f.fma(back, f.const(_HALF_PI_HIGH, x.type), x)  # exact: turns has few bits
    high = f.fma(back, f.const(_HALF_PI_LOW, x.type), near)
    low = f.fma(back, f.const(_HALF_PI_LOW, x.type), f.fsub(near, high))
    return f.cast("fptosi", turns, vector(lanes_of(x.type), "i64")), high, low


def sincos_double(f: Function, x: Value) -> tuple[Value, Value]:
    """(sin, cos) of doubles up to a few turns. Error below 0.6 ulp; after fdlibm's kernels."""
    quadrant, high, low = _reduced(f, x)
    z = f.fmul(high, high)
    r = _horner(f, z, (1.58969099521155010221e-10, -2.50507602534068634195e-08,
                       2.75573137070700676789e-06, -1.98412698298579493134e-04,
                       8.33333333332248946124e-03))
    cube = f.fmul(z, high)
    # high - ((z (low/2 - cube r) - low) - cube S1)
    inner = f.fma(f.fneg(cube), r, f.fmul(low, 0.5))
    inner = f.fma(z, inner, f.fneg(low))
    inner = f.fma(cube, f.const(1.66666666666666324348e-01, x.type), inner)
    sine = f.fsub(high, inner)
    p = f.fmul(z, _horner(f, z, (-1.13596475577881948265e-11, 2.08757232129817482790e-09,
                                 -2.75573143513906633035e-07, 2.48015872894767294178e-05,
                                 -1.38888888888741095749e-03, 4.16666666666666019037e-02)))
    half = f.fmul(z, 0.5)
    one = f.fsub(f.const(1, x.type), half)
    lost = f.fsub(f.fsub(f.const(1, x.type), one), half)
    # z is rounded: what z/2 misses of high^2/2 enters as well.
    missed = f.fmul(f.fma(high, high, f.fneg(z)), -0.5)
    rest = f.fma(z, p, f.fma(f.fneg(high), low, f.fadd(lost, missed)))
    return _by_quadrant(f, quadrant, sine, f.fadd(one, rest))


def tan_double(f: Function, x: Value) -> Value:
    """tan of doubles up to a few turns, as sin / cos corrected once. Error below 2 ulp."""
    sine, cosine = sincos_double(f, x)
    return f.fdiv(sine, cosine)


def exp_double(f: Function, x: Value) -> Value:
    """exp of doubles: x = k ln2 + r, a Taylor polynomial in r. Error below 1 ulp.

    Above the largest double's logarithm inf, below the smallest's 0.
    """
    ints = vector(lanes_of(x.type), "i64")
    clamped = f.intrinsic("llvm.maxnum", x.type, x, f.const(-800.0, x.type))
    clamped = f.intrinsic("llvm.minnum", x.type, clamped, f.const(800.0, x.type))
    k = f.intrinsic("llvm.rint", x.type, f.fmul(clamped, 1 / math.log(2)))
    back = f.fneg(k)
    high = f.fma(back, f.const(_LN2_HIGH, x.type), clamped)
    low = f.fmul(back, _LN2_LOW)
    r = f.fadd(high, low)
    lost = f.fadd(f.fsub(high, r), low)
    terms = [1 / math.factorial(n) for n in range(13, 1, -1)]
    tail = f.fma(f.fmul(r, r), _horner(f, r, terms), lost)
    total = f.fadd(f.fadd(r, tail), 1.0)
    # 2^k in two factors: k may lie outside the exponents of normal numbers.
    whole = f.cast("fptosi", k, ints)
    half = f.ashr(whole, 1)
    for part in (half, f.sub(whole, half)):
        power = f.cast("bitcast", f.shl(f.add(part, 1023), 52), x.type)
        total = f.fmul(total, power)
    return f.select(f.cmp("uno", x, x), x, total)
