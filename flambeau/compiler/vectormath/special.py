"""Error functions, their inverse, and the logarithm of gamma with its derivative."""

from __future__ import annotations

from flambeau.compiler.emitter import Function, Value, lanes_of, scalar_of, vector
from flambeau.compiler.vectormath.basic import (
    at_most,
    copysign,
    divide_pairs,
    fabs,
    fast_two_sum,
    format_of,
    isnan,
    multiply_pairs,
    piecewise,
    polynomial,
    polynomial_pair,
    rint,
    split,
    sqrt,
    two_product,
    two_sum,
)
from flambeau.compiler.vectormath.exp_log import (
    LN2,
    exp_reduced,
    log_reduced,
    log_sum,
    power_of_two,
    powers_of_two,
)
from flambeau.compiler.vectormath.special_tables import DIGAMMA, LGAMMA
from flambeau.compiler.vectormath.trig import sin_pi_half

__all__ = ["erf", "erfc", "erfinv", "lgamma", "digamma"]

# erf(x) / x - 1 as a polynomial in x**2, |x| <= 0.93: 2**-29.9, 2**-56.2
_ERF = {
    "float": (0.128379166, -0.376126289, 0.112836242, -0.0268555861, 0.00519193802,
              -0.000804368057, 7.9688456e-05),
    "double": (
        0.1283791670955126, -0.3761263890318407, 0.11283791670968946, -0.026866170647470235,
        0.00522397764554827, -0.0008548328012910764, 0.00012055362286721018,
        -1.4926168622988349e-05, 1.6466974304783043e-06, -1.6374301716931143e-07,
        1.4515165682656485e-08, -9.442873157210047e-10),
}
# -log(erfc(t)) / t on 0.92 <= t <= 4 (float), 6 (double): 2**-30.3, 2**-57 of erf
_LOG_ERFC = {
    "float": (1.12865257, 0.635134041, 0.106266551, -0.0237884969, 0.00365531864,
              -0.000326038775, 1.1559765e-05),
    "double": (
        1.128379193052308, 0.6366194595358178, 0.102774378443206, -0.019134753309416906,
        -0.00019346494069673076, 0.001666933081567414, -0.0005479817420397386,
        -2.210857505013842e-05, 0.00010824521820252806, -6.178253759685821e-05,
        2.2145498311444458e-05, -5.668859174395621e-06, 1.0225096758601368e-06,
        -1.0806539663683268e-07, -2.155277269848191e-09, 3.430927075610944e-09,
        -7.37347877069706e-10, 9.220089566268387e-11, -7.308154308830676e-12,
        3.434057061903833e-13, -7.348905279584305e-15),
}
# (1 + 2 t) exp(t**2) erfc(t) as a polynomial in (t - K) / (t + K), K = 2 (float), 4 (double), the
# variable of Shepherd and Laframboise (1981): 2**-27.2, 2**-54.4
_ERFCX = {
    "float": (1.27697837, -0.0927638113, -0.166030198, 0.164050847, -0.0542210862,
              -0.00803010445, 0.00872299075, 0.00125398114, -0.00144772709, -0.000410817971,
              0.000189022772, 9.12830365e-05),
    "double": (
        1.2329951186255526, -0.13962111684056286, 0.015379652102614974, 0.06809705425473286,
        -0.1010390660361524, 0.09373283499696593, -0.06633036581466967, 0.03716751555947372,
        -0.01619773403230432, 0.005031969784733745, -0.0007577734766508404,
        -0.000199255671033194, 0.00015062265951780804, -2.440259597989057e-05,
        -1.1225552473256911e-05, 5.7166346477485565e-06, 3.021012835273332e-07,
        -8.335064916195196e-07, 6.248920630972737e-08, 1.1414254015673767e-07,
        -7.932561474427152e-09, -1.3299926629366341e-08, -1.6742632319784776e-09),
}
# erfinv(x) / x, a function of w = -log(1 - x**2) (Giles 2010): in w - 3.125 for w <= 6.25, in
# sqrt(w) - center beyond, 4 and farther apart: 2**-55.2, 2**-53.5, 2**-53
_ERFINV_NEAR = (
    1.6536545626831027, 0.24015818242558834, -0.0060336708714269485, -0.0007407025341546156,
    0.00018673420802028915, -1.3882523394033597e-05, -1.3654691767952022e-06,
    4.2347881691836257e-07, -2.9070390366633357e-08, -4.1126605042034195e-09,
    1.0512228454378587e-09, -5.414300438125348e-11, -1.297860836429696e-11,
    2.6305190942757565e-12, -8.076729978072256e-14, -4.0018655029811746e-14,
    6.529145721029296e-15, -3.956119868845065e-17, -1.2299523323352354e-16,
    1.5522354509969823e-17, 6.646134046393779e-19, -3.47826183920642e-19,
    1.7759656177688346e-20, 3.2026049118353365e-21, -3.2112950612183116e-22)
_ERFINV_FAR = (
    3.0838856104922208, 1.0052589676941655, 0.005370914553571597, -0.0037512085082350407,
    0.002491442096984881, -0.001688275535123167, 0.0009532893637016731,
    -0.00035503781846788965, 2.4031257258254454e-05, 6.82871538861566e-05,
    -4.731898464269799e-05, 1.2464861076192807e-05, 2.9257285581639994e-06,
    -3.985243079046764e-06, 1.4987180952091373e-06, -2.837907666605003e-08,
    -2.7135358539046497e-07, 1.322726120268011e-07, 7.017453653850655e-10,
    -1.5565463545801965e-08)
_ERFINV_FARTHEST = (
    4.9761913900163, 1.0102562759886626, -0.00021259950370254213, -0.00017993907258047914,
    6.469075785236744e-05, -1.6589895235076764e-05, 3.7475769866926723e-06,
    -7.962389947271978e-07, 1.6935923203637482e-07, -4.155540714924793e-08,
    1.4467162017783101e-08, -6.973869961540793e-09, 3.6674786516473714e-09,
    -1.7680587943504249e-09, 7.13438577369579e-10, -2.4748980197554763e-10,
    7.826743350821248e-11, -8.32677690342528e-12, -1.0199999518672265e-11,
    3.825838340227986e-12)

# The same for floats, in w - center for w <= 4.5, in sqrt(w) - center beyond, where sqrt(w) < 4:
# 2**-29.5, 2**-27.7. The centers are such that the first coefficients need no rounding.
_ERFINV_CENTERS = (2.2500083446502686, 3.000011682510376)
_ERFINV_FLOAT = (
    (1.4395107, 0.24848029, -0.0031554105, -0.0014729656, 2.2104397e-04, 7.6699956e-07,
     -4.223791e-06, 4.1302613e-07, 4.284827e-08, -9.908751e-09, 0.0),
    (2.8329885, 1.0016754, 0.009445337, -0.007640342, 0.005683812, -0.0035799064, 0.0014913018,
     -9.2212074e-05, -3.076789e-04, 1.4076463e-04, -9.335203e-06))


# ---------------------------------------------------------------------- error functions
def _erf_near(f: Function, x: Value) -> Value:
    """erf(x) - x for |x| <= 0.93."""
    return f.fmul(x, polynomial(f, f.fmul(x, x), _ERF[scalar_of(x.type)]))


def erf(f: Function, x: Value) -> Value:
    """2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x: a polynomial near 0, then
    1 - exp(polynomial)."""
    scalar = scalar_of(x.type)
    t = at_most(f, fabs(f, x), 4.0 if scalar == "float" else 6.0)
    exponent = f.fmul(f.fneg(t), polynomial(f, t, _LOG_ERFC[scalar]))
    q, n = exp_reduced(f, exponent, format_of(x).bias)
    power = power_of_two(f, n)
    far = f.fsub(1.0, f.fma(q, power, power))
    near = f.fma(t, polynomial(f, f.fmul(t, t), _ERF[scalar]), t)
    return copysign(f, f.select(f.cmp("ogt", t, 0.92), far, near), x)


def erfc(f: Function, x: Value) -> Value:
    """1 - erf(x), to relative accuracy down to the smallest denormal."""
    double = scalar_of(x.type) == "double"
    center = 4.0 if double else 2.0
    t = at_most(f, fabs(f, x), 27.3 if double else 10.1)  # 0 beyond
    square = f.fmul(t, t)
    square_low = f.fma(t, t, f.fneg(square))
    q, n = exp_reduced(f, f.fneg(square), 2 * format_of(x).bias)
    one = f.const(1.0, x.type)
    e, e_low = fast_two_sum(f, one, f.fsub(q, f.fmul(square_low, f.fadd(q, 1.0))))
    u = f.fdiv(f.fsub(t, center), f.fadd(t, center))
    g, g_low = polynomial_pair(f, u, _ERFCX[scalar_of(x.type)])
    top, top_low = two_product(f, g, e)
    top_low = f.fma(g, e_low, f.fma(g_low, e, top_low))
    first, second = powers_of_two(f, n)
    far = divide_pairs(f, top, top_low, *two_sum(f, f.fadd(t, t), one))
    far = f.fmul(f.fmul(far, first), second)
    far = f.select(f.cmp("olt", x, 0.0), f.fsub(2.0, far), far)
    near = f.fsub(1.0, f.fadd(x, _erf_near(f, x)))
    return f.select(f.cmp("olt", t, 0.46), near, far)


def erfinv(f: Function, x: Value) -> Value:
    """The y with erf(y) = x; infinite at -1 and 1, NaN outside."""
    magnitude = fabs(f, x)
    inside = (_erfinv_float if scalar_of(x.type) == "float" else _erfinv_double)(f, x)
    result = f.select(f.cmp("oeq", magnitude, 1.0), f.fmul(x, float("inf")), inside)
    return f.select(f.cmp("ogt", magnitude, 1.0), float("nan"), result)


def _erfinv_float(f: Function, x: Value) -> Value:
    # w = -log(1 - x**2), 1 - x**2 rounded once, as a pair: what is far takes its root
    high_ln2, low_ln2 = split(LN2, format_of(x), 2)
    e, fraction, tail = log_reduced(f, f.fma(f.fneg(x), x, 1.0))
    rest = f.fneg(f.fadd(fraction, f.fma(e, low_ln2, tail)))
    w = f.fma(e, -high_ln2, rest)
    w_low = f.fadd(f.fma(e, -high_ln2, f.fneg(w)), rest)
    root = sqrt(f, w)
    left = f.fadd(f.fma(f.fneg(root), root, w), w_low)
    root_low = f.fmul(left, f.fma(root, -0.0565, 0.345))  # 1 / (2 root) within 5 %
    near = f.cmp("ole", w, 4.5)
    center = f.select(near, f.const(_ERFINV_CENTERS[0], x.type), _ERFINV_CENTERS[1])
    t = f.fadd(f.fsub(f.select(near, w, root), center), f.select(near, w_low, root_low))
    p, p_low = polynomial_pair(f, t, [f.select(near, f.const(a, x.type), b)
                                      for a, b in zip(*_ERFINV_FLOAT, strict=True)])
    return copysign(f, multiply_pairs(f, x, f.const(0.0, x.type), p, p_low), x)


def _erfinv_double(f: Function, x: Value) -> Value:
    w = f.fneg(log_sum(f, f.fma(f.fneg(x), x, 1.0)))  # 1 - x**2 is rounded once
    near = f.cmp("ole", w, 6.25)
    root = sqrt(f, w)
    root_low = f.fdiv(f.fma(f.fneg(root), root, w), f.fadd(root, root))
    near_p, near_low = polynomial_pair(f, f.fsub(w, 3.125), _ERFINV_NEAR)
    middle = f.cmp("olt", root, 4.0)
    center = f.select(middle, f.const(3.25, x.type), 5.125)
    coefficients = [f.select(middle, f.const(a, x.type), b)
                    for a, b in zip(_ERFINV_FAR, _ERFINV_FARTHEST, strict=True)]
    offset = f.fadd(f.fsub(root, center), root_low)
    far_p, far_low = polynomial_pair(f, offset, coefficients)
    result = multiply_pairs(f, x, f.const(0.0, x.type), f.select(near, near_p, far_p),
                            f.select(near, near_low, far_low))
    return copysign(f, result, x)


# ---------------------------------------------------------------------- gamma
_DIGAMMA_ROOT = (1.4616321449683622, 9.549995429965697e-17)
_HALF_LOG_2PI = 0.9189385332046727
_PI = 3.141592653589793
# Stirling: B(2k) / (2k (2k - 1)) and B(2k) / 2k
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_STIRLING_SLOPE = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


def _in_double(f: Function, x: Value, function) -> Value:
    """function(x), computed in double: the tables are, and cancellation then costs nothing."""
    if format_of(x).scalar == "double":
        return function(f, x)
    wide = f.cast("fpext", x, vector(lanes_of(x.type), "double"))
    return f.cast("fptrunc", function(f, wide), x.type)


def lgamma(f: Function, x: Value) -> Value:
    """log |gamma(x)|; infinite at 0, -1, -2, ...

    Relative accuracy for x > 0, its zeros 1 and 2 included; for x < 0 the error is relative to
    the larger of the two terms of the reflection formula.
    """
    return _in_double(f, x, _lgamma)


def _lgamma(f: Function, x: Value) -> Value:
    a = fabs(f, x)
    positive = _lgamma_positive(f, a)
    fraction = f.fsub(a, rint(f, a))
    sine = _sin_pi(f, fabs(f, fraction))
    reflected = log_sum(f, f.fdiv(_PI, f.fmul(a, sine)))
    reflected = f.fsub(reflected, positive)
    reflected = f.select(f.cmp("oeq", fraction, 0.0), float("inf"), reflected)
    # lgamma(-a) = -log(a) = lgamma(a) to all digits, and a sin(pi a) may underflow
    use = f.and_(f.cmp("olt", x, 0.0), f.cmp("ogt", a, 1e-20))
    result = f.select(use, reflected, positive)
    result = f.select(f.cmp("oeq", a, float("inf")), float("inf"), result)
    return f.select(isnan(f, x), x, result)


def _sin_pi(f: Function, x: Value) -> Value:
    """sin(pi x) for 0 <= x <= 0.5."""
    high = f.cmp("ogt", x, 0.25)
    folded = f.select(high, f.fsub(0.5, x), x)
    sine, cosine = sin_pi_half(f, f.fadd(folded, folded))
    return f.select(high, cosine, sine)


def _lgamma_positive(f: Function, x: Value) -> Value:
    small, large = f.cmp("olt", x, 0.5), f.cmp("oge", x, 16.0)
    log_x = log_sum(f, x)
    y = f.select(small, f.fadd(x, 1.0), x)
    table = piecewise(f, y, "flambeau_lgamma_table", LGAMMA)
    from_one = f.select(small, x, f.fsub(x, 1.0))
    from_two, lost = two_sum(f, f.select(small, f.const(-1.0, x.type), -2.0), x)
    factor, factor_low = two_product(f, from_one, from_two)
    middle = multiply_pairs(f, factor, f.fma(from_one, lost, factor_low), *table)
    middle = f.select(small, f.fsub(middle, log_x), middle)
    inverse = f.fdiv(1.0, x)
    series = f.fmul(inverse, polynomial(f, f.fmul(inverse, inverse), _STIRLING))
    far = f.fma(f.fsub(x, 0.5), f.fsub(log_x, 1.0), f.fadd(series, _HALF_LOG_2PI - 0.5))
    return f.select(large, far, middle)


def digamma(f: Function, x: Value) -> Value:
    """The derivative of lgamma: -inf at 0, +inf at -0, NaN at -1, -2, ...

    Relative accuracy for x > 0; for x < 0 relative to the larger of the reflection's two terms.
    """
    return _in_double(f, x, _digamma)


def _digamma(f: Function, x: Value) -> Value:
    negative = f.cmp("olt", x, 0.0)
    y = f.select(negative, f.fsub(1.0, x), x)
    small, large = f.cmp("olt", y, 0.5), f.cmp("oge", y, 16.0)
    z = f.select(small, f.fadd(y, 1.0), y)
    table = piecewise(f, z, "flambeau_digamma_table", DIGAMMA)
    root, root_low = _DIGAMMA_ROOT
    beyond, lost = two_sum(f, z, f.const(-root, z.type))
    middle = multiply_pairs(f, beyond, f.fsub(lost, root_low), *table)
    inverse = f.fdiv(1.0, y)
    middle = f.select(small, f.fsub(middle, inverse), middle)
    square = f.fmul(inverse, inverse)
    series = f.fmul(square, polynomial(f, square, _STIRLING_SLOPE))
    far = f.fsub(log_sum(f, y), f.fadd(f.fmul(inverse, 0.5), series))
    result = f.select(large, far, middle)
    return f.select(negative, f.fsub(result, _pi_cot(f, x)), result)


def _pi_cot(f: Function, x: Value) -> Value:
    """pi / tan(pi x); NaN for integers."""
    fraction = f.fsub(x, rint(f, x))
    a = fabs(f, fraction)
    high = f.cmp("ogt", a, 0.25)
    folded = f.select(high, f.fsub(0.5, a), a)
    sine, cosine = sin_pi_half(f, f.fadd(folded, folded))
    ratio = f.fdiv(f.select(high, sine, cosine), f.select(high, cosine, sine))
    result = f.fmul(copysign(f, ratio, fraction), _PI)
    return f.select(f.cmp("oeq", fraction, 0.0), float("nan"), result)
