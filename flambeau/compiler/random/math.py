"""The logarithms, sines and cosines behind random streams.

They are apart from the general vector maths because a stream must reproduce another
implementation's values: float32 normals need the Cephes approximations and log1p that of fdlibm,
operation by operation; everything else in double needs errors near half an ulp.
"""

from __future__ import annotations

import fractions
import math
from collections.abc import Sequence

from flambeau.compiler.emitter import Function, Value, lanes_of, vector

__all__ = ["cephes_log", "cephes_sincos", "exp_double", "fdlibm_log1p", "log_double",
           "pow_double", "sincos_double", "tan_double"]

Parts = tuple[Value, Value]  # a number as an unevaluated sum, the larger part first

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


def _times_reciprocal(f: Function, high: Value, low: Value, divisor: int) -> Parts:
    """(high + low) / divisor in two parts."""
    near = f.const(1 / divisor, high.type)
    missed = float(fractions.Fraction(1, divisor) - fractions.Fraction(1 / divisor))
    quotient = f.fmul(high, near)
    rest = f.fma(high, near, f.fneg(quotient))
    return quotient, f.fma(low, near, f.fma(high, f.const(missed, high.type), rest))


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
    """log(x) of positive normal doubles; -inf at 0. Error below 0.505 ulp.

    x = 2^k (1 + t) and log(1 + t) = 2 atanh(s) with s = t / (2 + t), |s| < 0.172: the Taylor
    series reaches s^25. s is kept in two parts.
    """
    total = f.fadd(*_log_parts(f, x))
    return f.select(f.cmp("oeq", x, 0.0), f.const(-math.inf, x.type), total)


def _log_parts(f: Function, x: Value) -> Parts:
    """log(x) of positive normal doubles in two parts."""
    ints = vector(lanes_of(x.type), "i64")
    bits = f.cast("bitcast", x, ints)
    # The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    shifted = f.add(bits, 0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    k = f.sub(f.lshr(shifted, 52), 1023)
    m = f.cast("bitcast", f.sub(bits, f.shl(k, 52)), x.type)
    exponent = f.cast("sitofp", k, x.type)
    t = f.fsub(m, 1.0)
    divisor = f.fadd(t, 2.0)
    divisor_low = f.fsub(t, f.fsub(divisor, 2.0))
    inverse = f.fdiv(f.const(1, x.type), divisor)
    s = f.fmul(t, inverse)
    back = f.fneg(s)
    s_low = f.fmul(f.fma(back, divisor_low, f.fma(back, divisor, t)), inverse)
    z = f.fmul(s, s)
    z_low = f.fma(f.fadd(s, s), s_low, f.fma(s, s, f.fneg(z)))
    cube = f.fmul(z, s)
    cube_low = f.fma(z, s_low, f.fma(z_low, s, f.fma(z, s, f.fneg(cube))))
    third, third_low = _times_reciprocal(f, f.fadd(cube, cube), f.fadd(cube_low, cube_low), 3)
    r = f.fmul(z, _horner(f, z, [2 / n for n in range(25, 3, -2)]))
    high, rest = _two_sum(f, f.fadd(s, s), third)
    low = f.fadd(rest, f.fma(cube, r, f.fadd(third_low, f.fadd(s_low, s_low))))
    total, rest = _two_sum(f, f.fmul(exponent, _LN2_HIGH), high)
    rest = f.fadd(rest, low)
    return total, f.fma(exponent, f.const(_LN2_LOW, x.type), rest)


def fdlibm_log1p(f: Function, x: Value) -> Value:
    """log(1 + x) of doubles in (-1, 0], rounded where fdlibm's s_log1p.c rounds (below 1 ulp)."""
    ints = vector(lanes_of(x.type), "i64")
    zero, zero_bits = f.const(0, x.type), f.const(0, ints)
    u = f.fadd(x, 1.0)
    near = f.cmp("ogt", x, -0.29289340972900390625)  # nothing to scale: k = 0 and t = x
    bits = f.cast("bitcast", u, ints)
    shifted = f.add(bits, 0x3FF0000000000000 - 0x3FE6A09E00000000)
    k = f.select(near, zero_bits, f.sub(f.lshr(shifted, 52), 1023))
    m = f.cast("bitcast", f.sub(bits, f.shl(k, 52)), x.type)
    t = f.select(near, x, f.fsub(m, 1.0))
    lost = f.select(near, zero, f.fdiv(f.fsub(x, f.fsub(u, 1.0)), u))
    exponent = f.cast("sitofp", k, x.type)
    half = f.fmul(f.fmul(t, 0.5), t)
    s = f.fdiv(t, f.fadd(t, 2.0))
    z = f.fmul(s, s)
    z2 = f.fmul(z, z)
    z4 = f.fmul(z2, z2)

    def pair(even: float, odd: float) -> Value:
        return f.fadd(f.fmul(z, odd), even)

    r = f.fmul(z, 6.666666666666735130e-01)
    r = f.fadd(r, f.fmul(z2, pair(3.999999999940941908e-01, 2.857142874366239149e-01)))
    r = f.fadd(r, f.fmul(z4, pair(2.222219843214978396e-01, 1.818357216161805012e-01)))
    r = f.fadd(r, f.fmul(f.fmul(z4, z2), pair(1.531383769920937332e-01,
                                              1.479819860511658591e-01)))
    low = f.fadd(f.fmul(exponent, _LN2_LOW), lost)
    inner = f.fsub(half, f.fadd(f.fmul(s, f.fadd(half, r)), low))
    return f.fsub(f.fmul(exponent, _LN2_HIGH), f.fsub(inner, t))


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


def _alternating(last: int, first: int) -> list[float]:
    """1/last!, ..., 1/first! in steps of two, signs alternating so that the final one is plus."""
    steps = range(last, first - 1, -2)
    return [(-1) ** ((n - first) // 2) / math.factorial(n) for n in steps]


def _sincos_parts(f: Function, x: Value) -> tuple[Parts, Parts]:
    """sin and cos in two parts each, by Taylor series for |high| <= pi/4."""
    quadrant, high, low = _reduced(f, x)
    z = f.fmul(high, high)
    z_low = f.fma(high, high, f.fneg(z))
    cube = f.fmul(z, high)
    cube_low = f.fma(z_low, high, f.fma(z, high, f.fneg(cube)))
    # sin high = high - cube/6 + fifth/120 - fifth r
    third, third_low = _times_reciprocal(f, cube, cube_low, 6)
    fifth = f.fmul(cube, z)
    fifth_low = f.fma(cube_low, z, f.fma(cube, z_low, f.fma(cube, z, f.fneg(fifth))))
    term, term_low = _times_reciprocal(f, fifth, fifth_low, 120)
    r = f.fmul(z, _horner(f, z, _alternating(17, 7)))
    sine, rest = _two_sum(f, high, f.fneg(third))
    sine, sine_low = _two_sum(f, sine, term)
    sine_low = f.fadd(sine_low, f.fma(f.fneg(fifth), r, term_low))
    sine_low = f.fadd(sine_low, f.fsub(rest, third_low))
    # cos high = 1 - z/2 + z^2/24 - z^2 p
    fourth = f.fmul(z, z)
    fourth_low = f.fma(f.fadd(z, z), z_low, f.fma(z, z, f.fneg(fourth)))
    p = f.fmul(z, _horner(f, z, _alternating(18, 6)))
    half = f.fmul(z, 0.5)
    cosine = f.fsub(f.const(1, x.type), half)
    lost = f.fsub(f.fsub(f.const(1, x.type), cosine), half)
    lost = f.fma(z_low, f.const(-0.5, x.type), lost)
    term, term_low = _times_reciprocal(f, fourth, fourth_low, 24)
    cosine, cosine_low = _two_sum(f, cosine, term)
    lost = f.fadd(lost, f.fma(f.fneg(fourth), p, term_low))
    cosine_low = f.fadd(cosine_low, lost)
    # sin(high + low) = sin high + low cos high, cos(high + low) = cos high - low sin high
    sine_low, cosine_low = f.fma(low, cosine, sine_low), f.fma(f.fneg(low), sine, cosine_low)
    sine, cosine = _by_quadrant(f, quadrant, sine, cosine)
    sine_low, cosine_low = _by_quadrant(f, quadrant, sine_low, cosine_low)
    return (sine, sine_low), (cosine, cosine_low)


def sincos_double(f: Function, x: Value) -> tuple[Value, Value]:
    """(sin, cos) of doubles up to a few turns. Error below 0.505 ulp."""
    sine, cosine = _sincos_parts(f, x)
    return f.fadd(*sine), f.fadd(*cosine)


def tan_double(f: Function, x: Value) -> Value:
    """tan of doubles up to a few turns. Error below 0.51 ulp."""
    sine, cosine = (_two_sum(f, *parts) for parts in _sincos_parts(f, x))
    quotient = f.fdiv(sine[0], cosine[0])
    back = f.fneg(quotient)
    missed = f.fma(back, cosine[1], f.fadd(f.fma(back, cosine[0], sine[0]), sine[1]))
    return f.fadd(quotient, f.fdiv(missed, cosine[0]))


def pow_double(f: Function, x: Value, y: Value) -> Value:
    """x^y of positive doubles, as exp(y log(x)) with a logarithm in two parts. Error below 0.8
    ulp."""
    high, low = _two_sum(f, *_log_parts(f, x))
    power = f.fmul(y, high)
    missed = f.fma(y, low, f.fma(y, high, f.fneg(power)))
    finite = f.cmp("olt", f.intrinsic("llvm.fabs", power.type, power), math.inf)
    return exp_double(f, power, f.select(finite, missed, f.const(0, x.type)))


def exp_double(f: Function, x: Value, missed: Value | None = None) -> Value:
    """exp of doubles (or of x + missed): x = k ln2 + r, a Taylor polynomial in r. Error below 0.7
    ulp.

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
    if missed is not None:
        lost = f.fadd(lost, missed)
    terms = [1 / math.factorial(n) for n in range(13, 1, -1)]
    tail = f.fma(f.fmul(r, r), _horner(f, r, terms), lost)
    total, rest = _two_sum(f, f.const(1, x.type), r)
    total = f.fadd(total, f.fadd(rest, tail))
    # 2^k in two factors: k may lie outside the exponents of normal numbers.
    whole = f.cast("fptosi", k, ints)
    half = f.ashr(whole, 1)
    for part in (half, f.sub(whole, half)):
        power = f.cast("bitcast", f.shl(f.add(part, 1023), 52), x.type)
        total = f.fmul(total, power)
    return f.select(f.cmp("uno", x, x), x, total)
