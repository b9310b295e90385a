"""Exponentials, logarithms, powers and the logistic function.

Coefficients are minimax (Remez), fitted for this project with 50 digits and rounded one after the
other; the figure beside each set is its largest error relative to the function.
"""

from __future__ import annotations

from flambeau.compiler.emitter import Function, Value, lanes_of, scalar_of, vector
from flambeau.compiler.vectormath.basic import (
    Format,
    at_least,
    at_most,
    bits,
    copysign,
    divide_by_sum,
    divide_pairs,
    fabs,
    fast_two_sum,
    format_of,
    from_bits,
    isnan,
    polynomial,
    scale_down,
    split,
    trunc,
    two_product,
    two_sum,
)

__all__ = ["exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "mish", "pow",
           "sigmoid", "silu", "softplus"]

LN2 = "0.693147180559945309417232121458176568075500134360255254120680009493393621969"
_LOG2E = "1.44269504088896340735992468100189213742664595415298593413544940693110921918"
_LOG10E = "0.434294481903251827651128918916605082294397005803666566114453783165864649209"
_LOG10_2 = "0.301029995663981195213738894724493026768189881462108541310427461127108189274"

# (exp(r) - 1 - r) / r**2 on |r| <= 0.3475: 2**-26.1, 2**-55.6 (relative to r)
_EXP = {
    "float": (0.5, 0.166665405, 0.0416664779, 0.00836687069, 0.0013933744),
    "double": (
        0.5000000000000006, 0.16666666666666677, 0.04166666666657285, 0.008333333333321381,
        0.0013888888932764433, 0.00019841269886838284, 2.4801503875901278e-05,
        2.7557243421777267e-06, 2.762658504087626e-07, 2.510933371132835e-08),
}
# (2**r - 1) / r on |r| <= 0.501: 2**-28.2, 2**-57.6
_EXP2 = {
    "float": (0.693147182, 0.240226507, 0.055503577, 0.00961807743, 0.00133918587, 0.000154563939),
    "double": (
        0.6931471805599453, 0.24022650695910136, 0.055504108664822936, 0.009618129107592271,
        0.001333355814616464, 0.0001540353045938746, 1.525273403639032e-05,
        1.3215434169752972e-06, 1.0177985886759682e-07, 7.073971429817702e-09,
        4.465491083610809e-10),
}
# (log(1 + f) - f + f**2 / 2) / f**3 on sqrt(1/2) - 1 <= f <= sqrt(2) - 1: 2**-27.1
_LOG_FLOAT = (0.333333313, -0.250008613, 0.200010687, -0.166218236, 0.142057076, -0.13179712,
              0.127393201, -0.0755303353)
# (log((1 + s) / (1 - s)) / s - 2) / s**2 as a polynomial in s**2, |s| <= 0.1718: 2**-59.4
_LOG_DOUBLE = (
    0.6666666666666736, 0.3999999999940066, 0.2857142874580951, 0.22222198195843684,
    0.18183585158520785, 0.1531348859396097, 0.14801845908398753)
# (atanh(s) / s - 1) / s**2 as a polynomial in s**2, s <= 1/3: 2**-25.9, 2**-58.7 of atanh
_ATANH = {
    "float": (0.333333202, 0.200037803, 0.141183099, 0.13425749),
    "double": (
        0.3333333333333333, 0.19999999999999762, 0.1428571428580005, 0.11111111099118386,
        0.09090909948981357, 0.07692271982430275, 0.06667589315724629, 0.05867139530651599,
        0.05422589197440007, 0.03746071897775383, 0.07815288900461426),
}


# ---------------------------------------------------------------------- exponentials
def exp_reduced(f: Function, x: Value, bias: int) -> tuple[Value, Value]:
    """(expm1(r), t) with x = n ln 2 + r, |r| <= 0.347; the low bits of t hold n + bias."""
    r, tail, t = _exp_terms(f, x, bias)
    return f.fma(f.fmul(r, r), tail, r), t


def _exp_terms(f: Function, x: Value, bias: int) -> tuple[Value, Value, Value]:
    """exp_reduced with expm1(r) as r + r**2 tail: (r, tail, t)."""
    fmt = format_of(x)
    magic = fmt.magic + bias
    t = f.fma(x, float(_LOG2E), magic)
    n = f.fsub(t, magic)
    high, low = split(LN2, fmt, 2)
    r = f.fma(n, -low, f.fma(n, -high, x))
    return r, polynomial(f, r, _EXP[fmt.scalar]), t


def power_of_two(f: Function, t: Value) -> Value:
    """2**n, a normal number, for n + bias in the low bits of t."""
    return from_bits(f, f.shl(bits(f, t), format_of(t).mantissa), t.type)


def powers_of_two(f: Function, t: Value) -> tuple[Value, Value]:
    """Two normal numbers whose product is 2**n, for n + 2 bias in the low bits of t.

    x * first * second then reaches down into the denormals and up to infinity.
    """
    mantissa = format_of(t).mantissa
    pattern = bits(f, t)
    first = f.shl(f.lshr(pattern, 1), mantissa)
    second = f.sub(f.shl(pattern, mantissa), first)
    return from_bits(f, first, t.type), from_bits(f, second, t.type)


def exp_in_range(f: Function, x: Value) -> Value:
    """e**x for arguments whose n fits (see _exp_range), results down to the last denormal."""
    q, t = exp_reduced(f, x, 2 * format_of(x).bias)
    first, second = powers_of_two(f, t)
    return f.fmul(f.fma(q, first, first), second)


def _exp_range(fmt: Format) -> tuple[float, float]:
    """Below the first exp is 0, above the second infinite."""
    return (-104.0, 89.0) if fmt.scalar == "float" else (-746.0, 710.0)


def exp(f: Function, x: Value) -> Value:
    """e**x."""
    low, high = _exp_range(format_of(x))
    return exp_in_range(f, at_least(f, at_most(f, x, high), low))


def exp2(f: Function, x: Value) -> Value:
    """2**x."""
    fmt = format_of(x)
    low, high = (-151.0, 128.0) if fmt.scalar == "float" else (-1076.0, 1024.0)
    return _exp2(f, at_least(f, at_most(f, x, high), low), None, _EXP2[fmt.scalar])


def _exp2(f: Function, x: Value, low: Value | None, coefficients) -> Value:
    """2**(x + low) for x in range and a small `low`."""
    fmt = format_of(x)
    magic = fmt.magic + 2 * fmt.bias
    t = f.fadd(x, magic)
    r = f.fsub(x, f.fsub(t, magic))
    if low is not None:
        r = f.fadd(r, low)
    q = f.fmul(r, polynomial(f, r, coefficients))
    first, second = powers_of_two(f, t)
    return f.fmul(f.fma(q, first, first), second)


def expm1(f: Function, x: Value) -> Value:
    """e**x - 1, to full relative accuracy near 0."""
    fmt = format_of(x)
    low = -30.0 if fmt.scalar == "float" else -50.0
    x_in = at_least(f, at_most(f, x, _exp_range(fmt)[1]), low)
    # 2 (2**(n-1) (q + 1) - 1/2): 2**n itself may overflow. For n = 0 that is q.
    r, tail, t = _exp_terms(f, x_in, fmt.bias - 1)
    q, q_low = fast_two_sum(f, r, f.fmul(f.fmul(r, r), tail))
    power = power_of_two(f, t)
    total, error = fast_two_sum(f, f.fsub(power, 0.5), f.fmul(power, q))
    result = f.fadd(total, f.fma(power, q_low, error))
    result = f.select(f.cmp("oeq", power, 0.5), q, f.fadd(result, result))
    return copysign(f, result, x)


def sigmoid(f: Function, x: Value) -> Value:
    """1 / (1 + e**-x), to full relative accuracy in both tails."""
    low, _ = _exp_range(format_of(x))
    e = exp_in_range(f, at_least(f, f.fneg(fabs(f, x)), low))
    top = f.select(f.cmp("olt", x, 0.0), e, 1.0)
    return divide_by_sum(f, top, f.const(1.0, x.type), e)


def _gated(f: Function, x: Value) -> tuple[Value, Value, Value, Value]:
    """(x kept finite, q, first, second) with e**-|x| = (1 + q) first second.

    For x times a gate that falls as e**x does: x meets the first power of two before the second,
    which leads among the denormals.
    """
    low = -110.0 if format_of(x).scalar == "float" else -755.0  # -0 below
    q, t = exp_reduced(f, at_least(f, f.fneg(fabs(f, x)), low), 2 * format_of(x).bias)
    return at_least(f, x, low), q, *powers_of_two(f, t)


def _at_infinity(f: Function, result: Value, x: Value) -> Value:
    """`result`, but inf at inf and NaN at -inf, where x / (1 + e**-x) is a quotient of two."""
    infinite = f.const(float("inf"), x.type)
    return f.select(f.cmp("oeq", fabs(f, x), infinite), f.fadd(x, infinite), result)


def silu(f: Function, x: Value) -> Value:
    """x / (1 + e**-x)."""
    inside, q, first, second = _gated(f, x)
    e = f.fmul(f.fma(q, first, first), second)
    part = f.fmul(inside, first)
    top = f.select(f.cmp("olt", x, 0.0), f.fmul(f.fma(part, q, part), second), x)
    return _at_infinity(f, divide_by_sum(f, top, f.const(1.0, x.type), e), x)


def mish(f: Function, x: Value) -> Value:
    """x tanh(log(1 + e**x)) = x n / (n + 2) with n = e**x (e**x + 2); above 0 all that times
    e**(-2 x)."""
    inside, q, first, second = _gated(f, x)
    one, two = f.const(1.0, x.type), f.const(2.0, x.type)
    power, lost = fast_two_sum(f, first, f.fmul(q, first))
    e = f.fmul(power, second)
    negative, twice = f.cmp("olt", x, 0.0), f.fadd(e, e)
    n = f.select(negative, f.fma(power, e, f.fadd(power, power)), f.fadd(twice, 1.0))
    lost = f.select(negative, f.fadd(lost, lost), 0.0)
    scale = f.select(negative, second, one)
    large, small = f.select(negative, two, n), f.select(negative, f.fmul(n, scale),
                                                        f.fmul(twice, e))
    top, top_low = two_product(f, inside, n)
    quotient = divide_pairs(f, top, f.fma(inside, lost, top_low), *fast_two_sum(f, large, small))
    return _at_infinity(f, f.fmul(quotient, scale), x)


def softplus(f: Function, x: Value) -> Value:
    """log(1 + e**x), to full relative accuracy far below 0: max(x, 0) + log(1 + e), e = e**-|x|.

    log(1 + e) = 2 atanh(s) with s = e / (e + 2).
    """
    fmt = format_of(x)
    low, _ = _exp_range(fmt)
    e = exp_in_range(f, at_least(f, f.fneg(fabs(f, x)), low))
    s = divide_by_sum(f, f.fadd(e, e), f.const(2.0, x.type), e)  # twice s
    z = f.fmul(f.fmul(s, s), 0.25)
    tail = f.fmul(f.fmul(s, z), polynomial(f, z, _ATANH[fmt.scalar]))
    total, rest = two_sum(f, at_least(f, x, 0.0), s)
    result = f.fadd(total, f.fadd(rest, tail))
    return f.select(f.cmp("oeq", x, float("inf")), x, result)  # inf - inf is in the rest


# ---------------------------------------------------------------------- logarithms
def log_reduced(f: Function, x: Value, low: Value | None = None) -> tuple[Value, Value, Value]:
    """(e, f, w) with log(x + low) = e ln 2 + f + w, |f| <= 0.42 and w = log(1 + f) - f.

    `low` (smaller than an ulp of x) is for x >= 2**-24; without it x may be denormal. For x <= 0,
    infinite or NaN the parts are meaningless: see `log_special`.
    """
    fmt = format_of(x)
    bias: Value | float = fmt.magic
    if low is None:
        tiny = f.cmp("olt", x, fmt.smallest)
        x = f.select(tiny, f.fmul(x, 2.0**fmt.mantissa), x)
        bias = f.select(tiny, f.const(fmt.magic + fmt.mantissa, x.type), fmt.magic)
    pattern = bits(f, x)
    offset = f.sub(pattern, fmt.pattern(0.5**0.5))
    exponent = f.ashr(offset, fmt.mantissa)
    mantissa = f.sub(pattern, f.shl(exponent, fmt.mantissa))
    fraction = f.fsub(from_bits(f, mantissa, x.type), 1.0)
    # A conversion of i64 is no single instruction before AVX-512: add into a float's low bits.
    e = from_bits(f, f.add(exponent, fmt.pattern(fmt.magic)), x.type)
    e = f.fsub(e, bias)
    if low is not None:
        fraction = f.fadd(fraction, scale_down(f, low, exponent))
    return e, fraction, _log_tail(f, fraction)


def _log_tail(f: Function, x: Value) -> Value:
    """log(1 + x) - x for |x| <= 0.42."""
    square = f.fmul(x, x)
    if scalar_of(x.type) == "float":
        cubic = f.fmul(f.fmul(x, square), polynomial(f, x, _LOG_FLOAT))
        return f.fma(square, -0.5, cubic)
    s = f.fdiv(x, f.fadd(x, 2.0))
    z = f.fmul(s, s)
    half = f.fmul(square, 0.5)
    rest = f.fma(z, polynomial(f, z, _LOG_DOUBLE), half)
    return f.fma(s, rest, f.fneg(half))


def log_special(f: Function, result: Value, x: Value) -> Value:
    """`result`, or log(x) where x is not a positive finite number."""
    result = f.select(f.cmp("olt", x, float("inf")), result, x)  # +inf and NaN
    result = f.select(f.cmp("olt", x, 0.0), float("nan"), result)
    return f.select(f.cmp("oeq", x, 0.0), float("-inf"), result)


def log_sum(f: Function, x: Value, low: Value | None = None, doublings: float | Value = 0.0,
            special: bool = True) -> Value:
    """log((x + low) * 2**doublings)."""
    high_ln2, low_ln2 = split(LN2, format_of(x), 2)
    e, fraction, w = log_reduced(f, x, low)
    if isinstance(doublings, Value) or doublings:
        e = f.fadd(e, doublings)
    result = f.fma(e, high_ln2, f.fadd(fraction, f.fma(e, low_ln2, w)))
    return log_special(f, result, x) if special else result


def log(f: Function, x: Value) -> Value:
    """The natural logarithm."""
    return log_sum(f, x)


def log2(f: Function, x: Value) -> Value:
    """The logarithm to base 2; exact for powers of two."""
    high, low = split(_LOG2E, format_of(x), 2)
    e, fraction, w = log_reduced(f, x)
    tail = f.fma(fraction, low, f.fmul(w, high))
    return log_special(f, f.fadd(e, f.fma(fraction, high, tail)), x)


def log10(f: Function, x: Value) -> Value:
    """The logarithm to base 10."""
    fmt = format_of(x)
    high, low = split(_LOG10E, fmt, 2)
    high2, low2 = split(_LOG10_2, fmt, 2)
    e, fraction, w = log_reduced(f, x)
    tail = f.fma(fraction, low, f.fma(e, low2, f.fmul(w, high)))
    return log_special(f, f.fma(e, high2, f.fma(fraction, high, tail)), x)


def log1p(f: Function, x: Value) -> Value:
    """log(1 + x), to full relative accuracy near 0."""
    total, error = two_sum(f, x, f.const(1.0, x.type))
    return copysign(f, log_sum(f, total, error), x)


# ---------------------------------------------------------------------- powers
# log2(1 + f) / f on sqrt(1/2) - 1 <= f <= sqrt(2) - 1: 2**-34.9, for a float power computed in
# double; no quotient, which would cost as much as the rest
_LOG2_SHORT = (
    1.4426950408708794, -0.7213475209631551, 0.4808983601762459, -0.3606736553159396,
    0.28853739437873954, -0.24045433696411997, 0.20617283226751987, -0.1802710257711494,
    0.15878356832510718, -0.14349039375280995, 0.14495052999815844, -0.1414478821058739,
    0.07553790398013412)
# As _EXP2, short: 2**-34.2
_EXP2_SHORT = (
    0.693147180541087, 0.24022651088836228, 0.055504109531552555, 0.009618035210250482,
    0.0013333442157586614, 0.00015467621037559297, 1.531186846390172e-05)
# (atanh(s) / s - 1 - s**2 / 3) / s**4 as a polynomial in s**2, |s| <= 0.1718: 2**-76.9
_ATANH_TAIL = (
    0.2, 0.14285714285713444, 0.1111111111135807, 0.09090909053079163, 0.07692311082507315,
    0.06666480732948436, 0.058886018475401876, 0.051401574323176824, 0.06008659237450783)


def pow(f: Function, x: Value, y: Value) -> Value:
    """x**y with C's rules: x**0 = 1**y = 1, a negative x only with an integer y."""
    magnitude = fabs(f, x)
    if scalar_of(x.type) == "float":
        wide = vector(lanes_of(x.type), "double")
        result = _pow_float(f, f.cast("fpext", magnitude, wide), f.cast("fpext", y, wide))
        result = f.cast("fptrunc", result, x.type)
    else:
        result = _pow_double(f, magnitude, y)
    return _pow_special(f, result, x, y, magnitude)


def _pow_float(f: Function, x: Value, y: Value) -> Value:
    """x**y of floats that were extended to double: about 2**-36, rounded once by the caller."""
    e, fraction = _log_split(f, x)
    log2_x = f.fma(fraction, polynomial(f, fraction, _LOG2_SHORT), e)
    log2_x = f.select(f.cmp("oeq", x, 0.0), float("-inf"), log2_x)
    log2_x = f.select(f.cmp("olt", x, float("inf")), log2_x, x)
    product = at_least(f, at_most(f, f.fmul(y, log2_x), 1000.0), -1000.0)
    magic = format_of(x).magic + format_of(x).bias
    t = f.fadd(product, magic)
    r = f.fsub(product, f.fsub(t, magic))
    return f.fmul(f.fma(r, polynomial(f, r, _EXP2_SHORT), 1.0), power_of_two(f, t))


def _log_split(f: Function, x: Value) -> tuple[Value, Value]:
    """(e, m - 1) with x = m 2**e for a normal x > 0 and m in [sqrt(1/2), sqrt(2))."""
    fmt = format_of(x)
    pattern = bits(f, x)
    exponent = f.ashr(f.sub(pattern, fmt.pattern(0.5**0.5)), fmt.mantissa)
    mantissa = f.sub(pattern, f.shl(exponent, fmt.mantissa))
    e = f.fsub(from_bits(f, f.add(exponent, fmt.pattern(fmt.magic)), x.type), fmt.magic)
    return e, f.fsub(from_bits(f, mantissa, x.type), 1.0)


def _log2_pair(f: Function, x: Value) -> tuple[Value, Value]:
    """log2(x) of a positive finite double as a sum of two, relative error below 2**-64.

    log(m) = 2 atanh(s), s = (m - 1) / (m + 1), with s, s**2 and the first two terms in pairs.
    """
    fmt = format_of(x)
    tiny = f.cmp("olt", x, fmt.smallest)
    e, fraction = _log_split(f, f.select(tiny, f.fmul(x, 2.0**fmt.mantissa), x))
    e = f.fsub(e, f.select(tiny, f.const(float(fmt.mantissa), x.type), 0.0))
    bottom, bottom_low = fast_two_sum(f, f.const(2.0, x.type), fraction)
    s = f.fdiv(fraction, bottom)
    left = f.fma(f.fneg(s), bottom, fraction)
    s_low = f.fdiv(f.fma(f.fneg(s), bottom_low, left), bottom)
    z, z_low = two_product(f, s, s)
    z_low = f.fma(f.fadd(s, s), s_low, z_low)
    third, third_low = split("1/3", fmt, 2)
    tail = f.fmul(z, polynomial(f, z, _ATANH_TAIL))
    u, u_low = fast_two_sum(f, f.const(third, x.type), tail)
    u_low = f.fadd(u_low, third_low)
    # v = z u, then s (1 + v)
    v, v_low = two_product(f, z, u)
    v_low = f.fma(z, u_low, f.fma(z_low, u, v_low))
    a, a_low = two_product(f, s, v)
    a_low = f.fma(s, v_low, f.fma(s_low, v, a_low))
    h, h_low = fast_two_sum(f, s, a)
    h_low = f.fadd(h_low, f.fadd(a_low, s_low))
    # times 2 log2(e), plus e
    k, k_low = (2.0 * part for part in split(_LOG2E, fmt, 2))
    high, low = two_product(f, h, k)
    low = f.fma(h, k_low, f.fma(h_low, k, low))
    total, error = two_sum(f, e, high)
    return fast_two_sum(f, total, f.fadd(error, low))


def _pow_double(f: Function, x: Value, y: Value) -> Value:
    high, low = _log2_pair(f, x)
    log2_x = f.select(f.cmp("oeq", x, 0.0), float("-inf"), high)
    log2_x = f.select(f.cmp("olt", x, float("inf")), log2_x, x)
    product = f.fmul(y, log2_x)
    product_low = f.fma(y, low, f.fma(y, log2_x, f.fneg(product)))
    inside = f.cmp("olt", fabs(f, product), 1100.0)
    product_low = f.select(inside, product_low, 0.0)
    product = at_least(f, at_most(f, product, 1100.0), -1100.0)
    return _exp2(f, product, product_low, _EXP2["double"])


def _pow_special(f: Function, result: Value, x: Value, y: Value, magnitude: Value) -> Value:
    half = f.fmul(y, 0.5)
    whole = f.cmp("oeq", trunc(f, y), y)
    odd = f.and_(whole, f.cmp("une", trunc(f, half), half))
    # 1**inf is 1, not exp(0 * inf)
    one = f.and_(f.cmp("oeq", magnitude, 1.0), f.cmp("ord", y, y))
    result = f.select(one, 1.0, result)
    finite_negative = f.and_(f.cmp("olt", x, 0.0), f.cmp("ogt", x, float("-inf")))
    not_real = f.and_(finite_negative, f.not_(f.or_(whole, isnan(f, y))))
    result = f.select(not_real, float("nan"), result)
    result = f.select(odd, copysign(f, result, x), result)
    trivial = f.or_(f.cmp("oeq", y, 0.0), f.cmp("oeq", x, 1.0))
    return f.select(trivial, 1.0, result)
