"""Complex arithmetic on pairs of real values: what `split_complex` replaces complex primitives by.

A pair is (real part, imaginary part), two Values of one shape and real dtype. Every function takes
and returns pairs; none overflows or loses all digits where the result itself is representable.
Branch cuts, signed zeros and infinite arguments follow C99 annex G (as PyTorch's and NumPy's do).
The inverse functions are W. Kahan's ("Branch cuts for complex elementary functions", 1987).
"""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import primitives as p

__all__ = ["UNARY", "BINARY", "Pair"]

Pair = tuple[Value, Value]
LN2, LN10, PI = 0.6931471805599453, 2.302585092994046, 3.141592653589793


def _fill(value: float, like: Value) -> Value:
    return p.filled(value, like)


def _same(a: Value, value: float) -> Value:
    return p.eq(a, _fill(value, a))


def _is_infinite(a: Value) -> Value:
    return _same(p.abs_(a), float("inf"))


def _wild(a: Value) -> Value:
    """Infinite or NaN."""
    return p.ne(p.sub(a, a), _fill(0, a))


def _endless(a: Pair) -> Value:
    """Is any part infinite? Then so is the number, whatever the other part."""
    return p.logical_or(_is_infinite(a[0]), _is_infinite(a[1]))


# --------------------------------------------------------------------------- arithmetic
def add(a: Pair, b: Pair) -> Pair:
    return p.add(a[0], b[0]), p.add(a[1], b[1])


def sub(a: Pair, b: Pair) -> Pair:
    return p.sub(a[0], b[0]), p.sub(a[1], b[1])


def neg(a: Pair) -> Pair:
    return p.neg(a[0]), p.neg(a[1])


def mul(a: Pair, b: Pair) -> Pair:
    return (p.sub(p.mul(a[0], b[0]), p.mul(a[1], b[1])),
            p.add(p.mul(a[0], b[1]), p.mul(a[1], b[0])))


def div(a: Pair, b: Pair) -> Pair:
    """Smith's division: squares nothing, so that it overflows only if the quotient does."""
    size_re, size_im = p.abs_(b[0]), p.abs_(b[1])
    first = p.ge(size_re, size_im)
    large, small = p.where(first, b[0], b[1]), p.where(first, b[1], b[0])
    ratio = p.div(small, large)
    scale = p.add(large, p.mul(small, ratio))
    x, y = p.where(first, a[0], a[1]), p.where(first, a[1], a[0])
    re = p.div(p.add(x, p.mul(y, ratio)), scale)
    im = p.div(p.sub(y, p.mul(x, ratio)), scale)
    im = p.where(first, im, p.neg(im))
    zero = p.logical_and(_same(size_re, 0), _same(size_im, 0))
    return p.where(zero, p.div(a[0], size_re), re), p.where(zero, p.div(a[1], size_re), im)


def reciprocal(a: Pair) -> Pair:
    return div((_fill(1, a[0]), _fill(0, a[0])), a)


def times(factor: float, a: Pair) -> Pair:
    """A real multiple."""
    return p.mul(a[0], _fill(factor, a[0])), p.mul(a[1], _fill(factor, a[1]))


def times_i(a: Pair) -> Pair:
    return p.neg(a[1]), a[0]


def over_i(a: Pair) -> Pair:
    return a[1], p.neg(a[0])


# --------------------------------------------------------------------------- modulus, roots
def _ordered(a: Pair) -> tuple[Value, Value]:
    """(larger, smaller) of |re| and |im|."""
    re, im = p.abs_(a[0]), p.abs_(a[1])
    return p.maximum(re, im), p.minimum(re, im)


def modulus(a: Pair) -> Value:
    """sqrt(re**2 + im**2): in double precision for floats, scaled by a power of 2 for doubles."""
    dtype = a[0].dtype
    if dtype is dtypes.float64:
        high, _ = _ordered(a)
        down, up = p.gt(high, _fill(2.0 ** 500, high)), p.lt(high, _fill(2.0 ** -500, high))
        one = _fill(1, high)
        scale = p.where(down, _fill(2.0 ** -600, high), p.where(up, _fill(2.0 ** 600, high), one))
        back = p.where(down, _fill(2.0 ** 600, high), p.where(up, _fill(2.0 ** -600, high), one))
        x, y = p.mul(a[0], scale), p.mul(a[1], scale)
        length = p.mul(p.sqrt(p.add(p.mul(x, x), p.mul(y, y))), back)
    else:
        x, y = p.convert(a[0], dtypes.float64), p.convert(a[1], dtypes.float64)
        length = p.convert(p.sqrt(p.add(p.mul(x, x), p.mul(y, y))), dtype)
    return p.where(_endless(a), _fill(float("inf"), length), length)


def sgn(a: Pair) -> Pair:
    """a / |a|; 0 at 0."""
    length = modulus(a)
    zero = _same(length, 0)
    safe = p.where(zero, _fill(1, length), length)
    return p.div(a[0], safe), p.div(a[1], safe)


def sqrt(a: Pair) -> Pair:
    """The root with non-negative real part."""
    high, _ = _ordered(a)
    big, tiny = (2.0 ** 1000, 2.0 ** -900) if a[0].dtype is dtypes.float64 else (2.0 ** 120,
                                                                               2.0 ** -80)
    down, up = p.gt(high, _fill(big, high)), p.lt(high, _fill(tiny, high))
    one = _fill(1, high)
    scale = p.where(down, _fill(2.0 ** -4, high), p.where(up, _fill(2.0 ** 60, high), one))
    back = p.where(down, _fill(4, high), p.where(up, _fill(2.0 ** -30, high), one))
    x, y = p.mul(a[0], scale), p.mul(a[1], scale)
    half = _fill(0.5, x)
    root = p.sqrt(p.mul(p.add(p.abs_(x), modulus((x, y))), half))  # >= sqrt(|a| / 2)
    other = p.div(p.mul(p.abs_(y), half), root)
    right = p.ge(x, _fill(0, x))
    re, im = p.where(right, root, other), p.where(right, other, root)
    zero = _same(root, 0)
    re, im = p.where(zero, root, re), p.where(zero, root, im)
    endless = _is_infinite(y)
    re = p.where(endless, _fill(float("inf"), re), p.mul(re, back))
    im = p.where(endless, _fill(float("inf"), im), p.mul(im, back))
    return re, p.copysign(im, a[1])


# --------------------------------------------------------------------------- exp, log, powers
def exp(a: Pair) -> Pair:
    size, none = p.exp(a[0]), _same(a[0], float("-inf"))
    flat = _same(a[1], 0)
    re, im = p.mul(size, p.cos(a[1])), p.mul(size, p.sin(a[1]))
    re, im = p.where(flat, size, re), p.where(flat, a[1], im)
    vast = p.logical_and(_same(a[0], float("inf")), _wild(a[1]))
    return p.where(p.logical_or(none, vast), size, re), p.where(none, size, im)


def expm1(a: Pair) -> Pair:
    """exp(a) - 1 without cancellation near 0."""
    half = p.sin(p.mul(a[1], _fill(0.5, a[1])))
    bent = p.mul(_fill(2, half), p.mul(half, half))  # 1 - cos
    grown = p.expm1(a[0])
    re = p.sub(p.mul(grown, p.cos(a[1])), bent)
    return p.where(_same(a[1], 0), grown, re), exp(a)[1]


def log_modulus(a: Pair) -> Value:
    """log|a|, accurate also where |a| is near 1."""
    high, low = _ordered(a)
    one, half = _fill(1, high), _fill(0.5, high)
    near = p.logical_and(p.gt(high, half), p.lt(high, _fill(2, high)))
    excess = p.add(p.mul(p.sub(high, one), p.add(high, one)), p.mul(low, low))
    ordinary = p.logical_and(p.gt(high, _fill(0, high)), p.lt(high, _fill(float("inf"), high)))
    ratio = p.where(ordinary, p.div(low, high), _fill(0, high))
    far = p.add(p.log(high), p.mul(half, p.log1p(p.mul(ratio, ratio))))
    close = p.mul(half, p.log1p(p.where(near, excess, _fill(0, high))))
    return p.where(_endless(a), _fill(float("inf"), high), p.where(near, close, far))


def log(a: Pair) -> Pair:
    return log_modulus(a), p.atan2(a[1], a[0])


def log2(a: Pair) -> Pair:
    return times(1 / LN2, log(a))


def log10(a: Pair) -> Pair:
    return times(1 / LN10, log(a))


def log1p(a: Pair) -> Pair:
    """log(1 + a) without cancellation near 0."""
    x, y = a
    moved = p.add(x, _fill(1, x))
    small = p.lt(p.maximum(p.abs_(x), p.abs_(y)), _fill(0.5, x))
    excess = p.add(p.mul(x, p.add(x, _fill(2, x))), p.mul(y, y))
    close = p.mul(_fill(0.5, x), p.log1p(p.where(small, excess, _fill(0, x))))
    return p.where(small, close, log_modulus((moved, y))), p.atan2(y, moved)


def pow_(a: Pair, b: Pair) -> Pair:
    """exp(b log a); 0 ** 0 is 1."""
    result = exp(mul(b, log(a)))
    zero = p.logical_and(_same(a[0], 0), _same(a[1], 0))
    none = p.logical_and(_same(b[0], 0), _same(b[1], 0))
    grows = p.gt(b[0], _fill(0, b[0]))
    nothing, nan = _fill(0, a[0]), _fill(float("nan"), a[0])
    at_zero = p.where(grows, nothing, nan)
    re = p.where(none, _fill(1, a[0]), p.where(zero, at_zero, result[0]))
    im = p.where(none, nothing, p.where(zero, at_zero, result[1]))
    return re, im


def exp2(a: Pair) -> Pair:
    return exp(times(LN2, a))


def sigmoid(a: Pair) -> Pair:
    """By the exponential that does not grow: 1 / (1 + e) with e = exp(-a), or e / (1 + e)."""
    right = p.ge(a[0], _fill(0, a[0]))
    flipped = neg(a)
    small = exp((p.where(right, flipped[0], a[0]), p.where(right, flipped[1], a[1])))
    one, nothing = _fill(1, a[0]), _fill(0, a[0])
    above = p.where(right, one, small[0]), p.where(right, nothing, small[1])
    return div(above, (p.add(small[0], one), small[1]))


# --------------------------------------------------------------------------- trigonometry
def sinh(a: Pair) -> Pair:
    """Where the wave is not defined (im is infinite or NaN), re at 0 and infinity is still."""
    flat = _same(a[1], 0)
    re, im = p.mul(p.sinh(a[0]), p.cos(a[1])), p.mul(p.cosh(a[0]), p.sin(a[1]))
    known = p.logical_or(_same(a[0], 0), _is_infinite(a[0]))
    known = p.logical_and(known, _wild(a[1]))
    return p.where(known, a[0], re), p.where(flat, a[1], im)


def cosh(a: Pair) -> Pair:
    """As `sinh`; im is 0 on both axes."""
    wild = _wild(a[1])
    flat = p.logical_or(_same(a[1], 0), _same(a[0], 0))
    wave = p.where(_same(a[1], 0), a[1], p.sin(a[1]))
    zero = p.mul(p.where(wild, _fill(0, wave), wave), p.copysign(_fill(0, a[0]), a[0]))
    im = p.where(flat, zero, p.mul(p.sinh(a[0]), wave))
    size, vast = p.cosh(a[0]), p.logical_and(wild, _is_infinite(a[0]))
    return p.where(vast, size, p.mul(size, p.cos(a[1]))), im


def sin(a: Pair) -> Pair:
    return over_i(sinh(times_i(a)))


def cos(a: Pair) -> Pair:
    return cosh(times_i(a))


def tanh(a: Pair) -> Pair:
    """Kahan's: with t = tan(im) and s = sinh(re)."""
    far = p.gt(p.abs_(a[0]), _fill(20.0, a[0]))
    x = p.where(far, _fill(0, a[0]), a[0])
    t, s = p.tan(a[1]), p.sinh(x)
    one = _fill(1, x)
    beta, rho = p.add(one, p.mul(t, t)), p.sqrt(p.add(one, p.mul(s, s)))
    below = p.add(one, p.mul(beta, p.mul(s, s)))
    re = p.div(p.mul(beta, p.mul(rho, s)), below)
    # far out, tanh is sign(re) + 4i sin(im) cos(im) exp(-2 |re|)
    decay = p.exp(p.mul(_fill(-2, x), p.abs_(a[0])))
    wave = p.mul(_fill(4, x), p.mul(p.sin(a[1]), p.cos(a[1])))
    ends = p.copysign(one, a[0])
    wild = _wild(a[1])
    still = p.logical_and(wild, _is_infinite(a[0]))  # +-1 whatever im is
    tail = p.where(still, p.copysign(_fill(0, x), a[1]), p.mul(wave, decay))
    ends = p.where(still, ends, p.where(wild, wave, ends))
    return p.where(far, ends, re), p.where(far, tail, p.div(t, below))


def tan(a: Pair) -> Pair:
    return over_i(tanh(times_i(a)))


def _roots_beside_one(a: Pair) -> tuple[Pair, Pair]:
    """(sqrt(1 - a), sqrt(1 + a))."""
    one = _fill(1, a[0])
    return sqrt((p.sub(one, a[0]), p.neg(a[1]))), sqrt((p.add(one, a[0]), a[1]))


def asin(a: Pair) -> Pair:
    minus, plus = _roots_beside_one(a)
    endless = _endless(a)  # the direction is what is left: 0, pi / 4, pi / 2
    cosine = p.where(endless, p.abs_(a[1]), mul(minus, plus)[0])
    im = p.asinh(mul((minus[0], p.neg(minus[1])), plus)[1])
    return p.atan2(a[0], cosine), p.where(endless, _infinite_as(a[1]), im)


def acos(a: Pair) -> Pair:
    minus, plus = _roots_beside_one(a)
    endless = _endless(a)
    re = p.mul(_fill(2, a[0]), p.atan2(minus[0], plus[0]))
    re = p.where(endless, p.atan2(p.abs_(a[1]), a[0]), re)
    im = p.asinh(mul((plus[0], p.neg(plus[1])), minus)[1])
    return (p.where(_same(a[0], 0), _fill(PI / 2, re), re),
            p.where(endless, p.neg(_infinite_as(a[1])), im))


def acosh(a: Pair) -> Pair:
    one = _fill(1, a[0])
    minus, plus = sqrt((p.sub(a[0], one), a[1])), sqrt((p.add(a[0], one), a[1]))
    endless = _endless(a)
    re = p.asinh(mul((minus[0], p.neg(minus[1])), plus)[0])
    im = p.mul(_fill(2, a[0]), p.atan2(minus[1], plus[0]))
    return (p.where(endless, _fill(float("inf"), re), re),
            p.where(endless, p.atan2(a[1], a[0]), im))


def _infinite_as(a: Value) -> Value:
    """Infinity with the sign of `a`."""
    return p.copysign(_fill(float("inf"), a), a)


def asinh(a: Pair) -> Pair:
    return over_i(asin(times_i(a)))


def atanh(a: Pair) -> Pair:
    """log((1 + a) / (1 - a)) / 2, by log1p where the quotient is near 1."""
    x, y = a
    one, half = _fill(1, x), _fill(0.5, x)
    gap, reach, square = p.sub(one, x), p.add(one, x), p.mul(y, y)
    below, above = p.add(p.mul(gap, gap), square), p.add(p.mul(reach, reach), square)
    near = p.mul(_fill(0.25, x), p.log1p(p.div(p.mul(_fill(4, x), x), below)))
    pole = p.mul(half, p.sub(log_modulus((reach, y)), log_modulus((gap, y))))
    re = p.where(p.lt(p.minimum(below, above), _fill(0.01, x)), pole, near)
    size = modulus(a)
    endless, large = _same(size, float("inf")), p.gt(size, _fill(1e9, x))
    tiny = p.div(one, size)
    far = p.where(endless, _fill(0, x), p.mul(p.div(x, size), tiny))
    re = p.where(large, p.copysign(far, x), re)
    # on the cuts beyond 1 and -1 the side is that of the zero's sign; far out squares overflow
    up, right = p.mul(_fill(2, x), y), p.sub(p.mul(gap, reach), square)
    up = p.where(large, p.mul(p.mul(_fill(2, x), p.div(y, size)), tiny), up)
    right = p.where(large, p.sub(p.mul(tiny, tiny), one), right)
    turn = p.where(endless, p.copysign(_fill(PI, y), y), p.atan2(up, right))
    return re, p.mul(half, turn)


def atan(a: Pair) -> Pair:
    return over_i(atanh(times_i(a)))


UNARY = {function.__name__: function for function in (
    neg, sqrt, exp, expm1, exp2, log, log2, log10, log1p, sigmoid, sin, cos, tan, sinh, cosh, tanh,
    asin, acos, atan, asinh, acosh, atanh)} | {"sign": sgn}
BINARY = {"add": add, "sub": sub, "mul": mul, "div": div, "pow": pow_}
