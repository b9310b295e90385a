"""Circular functions and their inverses.

Arguments of sin, cos and tan are reduced exactly for every finite number: by Cody and Waite's
method with three constants and fma up to 2**18 (float) or 2**30 (double), beyond it by Payne and
Hanek's in a function of its own, called lane by lane and only when a lane needs it.
"""

from __future__ import annotations

import functools

from flambeau.compiler.emitter import Function, Value, lanes_of, scalar_of
from flambeau.compiler.vectormath.basic import (
    any_lane,
    bits,
    copysign,
    divide_pairs,
    fabs,
    fast_two_sum,
    format_of,
    from_bits,
    int_type,
    polynomial,
    split,
    sqrt,
    two_sum,
)

__all__ = ["sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sin_pi_half"]

_PI_2 = "1.570796326794896619231321691639751442098584699687552910487472296153908203143"
_PI_4 = "0.785398163397448309615660845819875721049292349843776455243736148076954101572"

# (sin(r) / r - 1) / r**2 and (cos(r) - 1 + r**2 / 2) / r**4 as polynomials in r**2, |r| <= 0.815:
# 2**-27.6, 2**-57.2 and 2**-32.7, 2**-63.3
_SIN = {
    "float": (-0.166666523, 0.00833200291, -0.000194932989),
    "double": (-0.16666666666666613, 0.008333333333317587, -0.0001984126982589759,
               2.7557312327000384e-06, -2.505054402835151e-08, 1.588440709583409e-10),
}
_COS = {
    "float": (0.0416666418, -0.00138871185, 2.44098464e-05),
    "double": (0.04166666666666656, -0.001388888888886722, 2.4801587285127978e-05,
               -2.7557313088538977e-07, 2.0875551393026355e-09, -1.13507729497385e-11),
}
# (atan(u) / u - 1) / u**2 as a polynomial in u**2, |u| <= 0.5001: 2**-27.5, 2**-57.8
_ATAN = {
    "float": (-0.33333236, 0.199942857, -0.141756326, 0.101625286, -0.0513599589),
    "double": (
        -0.33333333333332993, 0.19999999999905665, -0.14285714276588413, 0.11111110667622161,
        -0.09090896427546605, 0.07692076543733731, -0.0666383543043142, 0.05858454577232219,
        -0.05122649614457501, 0.04188191021974429, -0.02746031404726118, 0.01013352585124604),
}
# (asin(s) / s - 1) / s**2 as a polynomial in s**2, |s| <= 0.5: 2**-27.6, 2**-55.8
_ASIN = {
    "float": (0.166667536, 0.0749525577, 0.0454753116, 0.0241564121, 0.0422038473),
    "double": (
        0.16666666666665378, 0.07500000000344557, 0.04464285682193411, 0.030381959403625692,
        0.022371751642027097, 0.01735980117776646, 0.013884287574578843, 0.012175399303944548,
        0.006501382365198481, 0.01960056972631061, -0.016336974186978197, 0.031989032403610854),
}


# ---------------------------------------------------------------------- argument reduction
def _reduce(f: Function, x: Value) -> tuple[Value, Value, Value]:
    """(r, r_low, q) with x = q pi/2 + r + r_low, |r| < pi/4 + 0.03, for x >= 0; q modulo 4."""
    fmt = format_of(x)
    limit = 2.0**18 if fmt.scalar == "float" else 2.0**30
    t = f.fma(x, 1.0 / float(_PI_2), fmt.magic)
    n = f.fsub(t, fmt.magic)
    c1, c2, c3 = split(_PI_2, fmt, 3)
    first = f.fma(n, -c1, x)  # exact
    product = f.fmul(n, c2)
    product_low = f.fma(n, c2, f.fneg(product))
    r, low = two_sum(f, first, f.fneg(product))
    low = f.fsub(low, f.fma(n, c3, product_low))
    q = bits(f, t)
    far = f.and_(f.cmp("ogt", x, limit), f.cmp("olt", x, float("inf")))
    r_slot, low_slot, q_slot = f.var(x.type, r), f.var(x.type, low), f.var(q.type, q)
    with f.when(any_lane(f, far)):
        exact = _reduce_far(f, f.select(far, x, 2.0**32))
        r_slot.set(f.select(far, exact[0], r))
        low_slot.set(f.select(far, exact[1], low))
        q_slot.set(f.select(far, exact[2], q))
    return r_slot.get(), low_slot.get(), q_slot.get()


def _reduce_far(f: Function, x: Value) -> tuple[Value, Value, Value]:
    """_reduce by the scalar routine, one lane at a time."""
    _define_far_reduction(f)
    lanes, fmt = lanes_of(x.type), format_of(x)
    arguments = f.array(fmt.scalar, lanes)
    results = [f.array(kind, lanes) for kind in (fmt.scalar, fmt.scalar, fmt.integer)]
    pair = f.array("double", 2)
    f.store(x, arguments)
    with f.loop(0, lanes) as lane:
        one = f.cast("fpext", f.load(fmt.scalar, arguments, lane), "double")
        q = f.call("i64", _FAR, [one, pair])
        high, low = f.load("double", pair), f.load("double", pair, 1)
        if fmt.scalar == "float":
            high, low = _narrow(f, high)
            q = f.cast("trunc", q, "i32")
        for item, place in zip((high, low, q), results, strict=True):
            f.store(item, place, lane)
    return tuple(f.load(kind, place) for kind, place in zip(
        (x.type, x.type, int_type(x)), results, strict=True))


def _narrow(f: Function, wide: Value) -> tuple[Value, Value]:
    high = f.cast("fptrunc", wide, "float")
    rest = f.fsub(wide, f.cast("fpext", high, "double"))
    return high, f.cast("fptrunc", rest, "float")


_FAR = "flambeau_reduce_far"
_LEAD = 64  # zero bits before the binary point of the table of 2/pi


@functools.cache
def _two_over_pi(words: int) -> list[int]:
    """2/pi as 32-bit words, most significant first, after _LEAD bits of integer part."""
    bits_wanted = words * 32 - _LEAD
    guard = bits_wanted + 64

    # Machin: pi = 16 atan(1/5) - 4 atan(1/239), in fixed point
    def atan_inverse(n: int) -> int:
        term = total = (1 << guard) // n
        k, sign = 1, -1
        while term:
            term //= n * n
            k += 2
            total += sign * (term // k)
            sign = -sign
        return total

    pi = 16 * atan_inverse(5) - 4 * atan_inverse(239)
    value = (2 << (guard + bits_wanted)) // pi
    return [value >> (32 * (words - 1 - i)) & 0xFFFFFFFF for i in range(words)]


def _define_far_reduction(f: Function) -> None:
    """Add `i64 flambeau_reduce_far(double x, ptr r)` to the module (Payne and Hanek).

    For finite x >= 2**10, x = m 2**e with a 53-bit integer m. Bits of 2/pi whose product with
    m 2**e is a multiple of 4 do not matter; of the following ones 192 are enough, as no double is
    closer than 2**-61 to a multiple of pi/2. r[0] + r[1] is the reduced argument, the result the
    quadrant.
    """
    module = f.module
    if _FAR in module.texts:
        return
    words = 42
    table = ", ".join(f"i32 {word}" for word in _two_over_pi(words))
    module.texts[_FAR + "_table"] = (
        f"@{_FAR}_table = private unnamed_addr constant [{words} x i32] [{table}]\n")
    g = Function(module, _FAR, [("double", "x"), ("ptr", "r")], "i64", True, "noinline")
    pattern = g.cast("bitcast", g.args["x"], "i64")
    exponent = g.sub(g.lshr(pattern, 52), 1075)
    mantissa = g.or_(g.and_(pattern, (1 << 52) - 1), 1 << 52)
    # the window begins at the bit of weight 2 after multiplication by 2**e
    start = g.add(exponent, _LEAD - 2)
    word, shift = g.lshr(start, 5), g.and_(start, 31)
    pointer = Value(f"@{_FAR}_table", "ptr")
    raw = [g.cast("zext", g.load("i32", pointer, g.add(word, i)), "i64") for i in range(7)]
    window = [g.and_(g.lshr(g.or_(g.shl(raw[i], 32), raw[i + 1]), g.sub(32, shift)), 0xFFFFFFFF)
              for i in range(6)]
    product = _multiply_low(g, mantissa, window)
    # two integer bits, 190 of fraction: round to the nearest integer
    rounded = g.add(product[0], 1 << 29)
    quadrant = g.and_(g.lshr(rounded, 30), 3)
    top = g.sub(g.and_(rounded, (1 << 30) - 1), 1 << 29)
    high = g.fmul(g.cast("sitofp", top, "double"), 2.0**-30)
    low = g.const(0.0, "double")
    for place, limb in enumerate(product[1:], 1):
        part = g.fmul(g.cast("uitofp", limb, "double"), 2.0 ** (-30 - 32 * place))
        high, error = two_sum(g, high, part)
        low = g.fadd(low, error)
    c, c_low = split(_PI_2, format_of(high), 2)
    r = g.fmul(high, c)
    r_low = g.fma(high, c, g.fneg(r))
    r_low = g.fma(high, c_low, g.fma(low, c, r_low))
    total = g.fadd(r, r_low)
    g.store(total, g.args["r"])
    g.store(g.fadd(g.fsub(r, total), r_low), g.args["r"], 1)
    g.ret_value(quadrant)
    module.texts[_FAR] = g.text()


def _multiply_low(g: Function, m: Value, window: list[Value]) -> list[Value]:
    """The low len(window) 32-bit limbs of m * window, most significant first; m below 2**64."""
    count, mask = len(window), 0xFFFFFFFF
    columns: list = [g.const(0, "i64") for _ in range(count)]  # least significant first
    for i, part in enumerate((g.and_(m, mask), g.lshr(m, 32))):
        for j, limb in enumerate(reversed(window)):
            partial = g.mul(part, limb)
            if i + j < count:
                columns[i + j] = g.add(columns[i + j], g.and_(partial, mask))
            if i + j + 1 < count:
                columns[i + j + 1] = g.add(columns[i + j + 1], g.lshr(partial, 32))
    carry = g.const(0, "i64")
    for k in range(count):
        total = g.add(columns[k], carry)
        columns[k], carry = g.and_(total, mask), g.lshr(total, 32)
    return columns[::-1]


# ---------------------------------------------------------------------- sin, cos, tan
def _sin_cos_pairs(f: Function, r: Value, low: Value) -> tuple[Value, Value, Value, Value]:
    """sin and cos of r + low, |r| <= 0.815, each with its rounding error."""
    scalar = scalar_of(r.type)
    z = f.fmul(r, r)
    tail = f.fma(f.fmul(r, z), polynomial(f, z, _SIN[scalar]), low)
    sine, sine_low = fast_two_sum(f, r, tail)
    half = f.fmul(z, 0.5)
    main = f.fsub(1.0, half)
    error = f.fsub(f.fsub(1.0, main), half)
    error = f.fma(f.fneg(r), low, error)
    tail = f.fma(f.fmul(z, z), polynomial(f, z, _COS[scalar]), error)
    cosine, cosine_low = fast_two_sum(f, main, tail)
    return sine, sine_low, cosine, cosine_low


def _sin_cos(f: Function, r: Value, low: Value) -> tuple[Value, Value]:
    sine, _, cosine, _ = _sin_cos_pairs(f, r, low)
    return sine, cosine


def _flip(f: Function, x: Value, sign_word: Value) -> Value:
    """x, its sign flipped where the sign bit of the integer `sign_word` is set."""
    word = f.and_(sign_word, -1 << (format_of(x).width - 1))
    return from_bits(f, f.xor(bits(f, x), word), x.type)


def _odd(f: Function, q: Value) -> Value:
    return f.cmp("ne", f.and_(q, 1), 0)


def sin(f: Function, x: Value) -> Value:
    """The sine of x radians."""
    r, low, q = _reduce(f, fabs(f, x))
    sine, cosine = _sin_cos(f, r, low)
    result = f.select(_odd(f, q), cosine, sine)
    return _flip(f, result, f.xor(f.shl(q, format_of(x).width - 2), bits(f, x)))


def cos(f: Function, x: Value) -> Value:
    """The cosine of x radians."""
    r, low, q = _reduce(f, fabs(f, x))
    sine, cosine = _sin_cos(f, r, low)
    result = f.select(_odd(f, q), sine, cosine)
    return _flip(f, result, f.shl(f.add(q, 1), format_of(x).width - 2))


def tan(f: Function, x: Value) -> Value:
    """The tangent of x radians."""
    r, low, q = _reduce(f, fabs(f, x))
    sine, sine_low, cosine, cosine_low = _sin_cos_pairs(f, r, low)
    odd = _odd(f, q)
    ratio = divide_pairs(f, f.select(odd, cosine, sine), f.select(odd, cosine_low, sine_low),
                         f.select(odd, sine, cosine), f.select(odd, sine_low, cosine_low))
    return _flip(f, ratio, f.xor(f.shl(q, format_of(x).width - 1), bits(f, x)))


def sin_pi_half(f: Function, x: Value) -> tuple[Value, Value]:
    """sin(pi x / 2) and cos(pi x / 2) for |x| <= 0.5."""
    c, c_low = split(_PI_2, format_of(x), 2)
    r = f.fmul(x, c)
    return _sin_cos(f, r, f.fma(x, c_low, f.fma(x, c, f.fneg(r))))


# ---------------------------------------------------------------------- inverses
def _asin_core(f: Function, x: Value) -> tuple[Value, Value, Value]:
    """(big, s, t): |x| > 0.5, and asin(|x|) = s + t or, where big, pi/2 - 2 (s + t)."""
    t = fabs(f, x)
    big = f.cmp("ogt", t, 0.5)
    far = f.fma(t, -0.5, 0.5)
    z = f.select(big, far, f.fmul(t, t))
    s = f.select(big, sqrt(f, far), t)
    return big, s, f.fmul(f.fmul(s, z), polynomial(f, z, _ASIN[scalar_of(x.type)]))


def asin(f: Function, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose sine is x; NaN outside [-1, 1]."""
    high, low = split(_PI_2, format_of(x), 2)
    big, s, tail = _asin_core(f, x)
    main = f.fma(s, -2.0, high)
    error = f.fma(s, -2.0, f.fsub(high, main))
    far = f.fadd(main, f.fma(tail, -2.0, f.fadd(error, low)))
    return copysign(f, f.select(big, far, f.fadd(s, tail)), x)


def acos(f: Function, x: Value) -> Value:
    """The angle in [0, pi] whose cosine is x; NaN outside [-1, 1]."""
    high, low = split(_PI_2, format_of(x), 2)
    big, s, tail = _asin_core(f, x)
    p = f.fadd(s, tail)
    negative = f.cmp("olt", x, 0.0)
    signed = f.select(big, p, copysign(f, p, x))
    away = f.fsub(high, f.fsub(signed, low))  # pi/2 - asin(x) or, where big, pi/2 - p
    double = f.fadd(p, p)
    return f.select(big, f.select(negative, f.fadd(away, away), double), away)


def atan(f: Function, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose tangent is x."""
    t = fabs(f, x)
    middle = f.cmp("ogt", t, 0.5)
    big = f.cmp("ogt", t, 2.414213562373095)
    top = f.select(big, -1.0, f.select(middle, f.fsub(t, 1.0), t))
    bottom = f.select(big, t, f.select(middle, f.fadd(t, 1.0), 1.0))
    quarters = f.select(big, f.const(2.0, x.type), f.select(middle, f.const(1.0, x.type), 0.0))
    return copysign(f, _angle(f, f.fdiv(top, bottom), quarters), x)


def _angle(f: Function, u: Value, quarters: Value, sign: Value | None = None) -> Value:
    """quarters pi/4 + atan(u), |u| <= 0.5; atan(u) takes the bits of `sign`."""
    high, low = split(_PI_4, format_of(u), 2)
    z = f.fmul(u, u)
    p = f.fma(f.fmul(u, z), polynomial(f, z, _ATAN[scalar_of(u.type)]), u)
    if sign is not None:
        p = from_bits(f, f.xor(bits(f, p), sign), p.type)
    return f.fma(quarters, high, f.fma(quarters, low, p))


def atan2(f: Function, y: Value, x: Value) -> Value:
    """The angle of the point (x, y) in [-pi, pi]; zeros and infinities as in C."""
    fmt = format_of(x)
    a, b = fabs(f, x), fabs(f, y)
    steep = f.cmp("ogt", b, a)
    top, bottom = f.select(steep, a, b), f.select(steep, b, a)
    # halves keep top + bottom finite, where denormals cannot matter
    large = f.cmp("ogt", bottom, 2.0 ** (fmt.bias - 1))
    scale = f.select(large, f.const(0.25, x.type), 1.0)
    top, bottom = f.fmul(top, scale), f.fmul(bottom, scale)
    equal = f.cmp("oeq", top, bottom)  # 0/0 and inf/inf, too
    middle = f.and_(f.or_(f.cmp("ogt", top, f.fmul(bottom, 0.5)), equal), f.cmp("ogt", top, 0.0))
    difference = f.select(middle, f.fsub(top, bottom), top)
    difference = f.select(equal, 0.0, difference)
    total = f.select(middle, f.fadd(top, bottom), bottom)
    total = f.select(f.cmp("oeq", bottom, 0.0), 1.0, total)
    u = f.fdiv(difference, total)
    zero, one = f.const(0.0, x.type), f.const(1.0, x.type)
    quarters = f.select(middle, one, zero)
    quarters = f.select(steep, f.fsub(2.0, quarters), quarters)
    sign_bit = -1 << (fmt.width - 1)
    negative = f.cmp("slt", bits(f, x), 0)
    quarters = f.select(negative, f.fsub(4.0, quarters), quarters)
    steep_sign = f.select(steep, f.const(sign_bit, int_type(x)), 0)
    sign = f.xor(steep_sign, f.and_(bits(f, x), sign_bit))
    result = copysign(f, _angle(f, u, quarters, sign), y)
    return f.select(f.cmp("uno", x, y), float("nan"), result)


