"""Bessel functions, the scaled complementary error function, tails of the normal distribution."""

from __future__ import annotations

import math

import numpy as np

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import bessel_tables as table
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import unary


def _series(coefficients: tuple, t: Value) -> Value:
    """A sum of Chebyshev polynomials, by Clenshaw's recurrence."""
    later, last = e.like(0, t), e.like(0, t)
    twice = p.add(t, t)
    for c in reversed(coefficients[1:]):
        later, last = p.add(p.sub(p.mul(twice, later), last), e.like(c, t)), later
    return p.add(p.sub(p.mul(t, later), last), e.like(coefficients[0], t))


def _power_series(coefficients: tuple, x: Value) -> Value:
    """The sum of c[i] x**i, by Horner's rule."""
    total = e.like(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        total = p.add(p.mul(total, x), e.like(c, x))
    return total


def _affine(x: Value, scale: float, shift: float) -> Value:
    return p.add(p.mul(x, e.like(scale, x)), e.like(shift, x))


def _split(x: Value, at: float, low, high) -> Value:
    """low(x) up to `at`, high(x) from there on; neither sees values of the other side."""
    edge = e.like(at, x)
    below = p.le(x, edge)
    near, far = p.where(below, x, edge), p.where(below, edge, x)
    return p.where(below, low(near), high(far))


def _over_root(x: Value, numerator: Value) -> Value:
    return p.div(numerator, p.sqrt(x))


# --------------------------------------------------------------------------- first kind, modified
def _scaled_i0(size: Value) -> Value:
    """exp(-x) I0(x) for x >= 0."""
    def low(x: Value) -> Value:
        return _series(table.I0_SMALL, _affine(x, 0.25, -1))

    def high(x: Value) -> Value:
        t = _affine(p.div(e.like(16, x), x), 1, -1)
        return _over_root(x, _series(table.I0_LARGE, t))

    return _split(size, 8, low, high)


def _scaled_i1(size: Value) -> Value:
    """exp(-x) I1(x) for x >= 0."""
    def low(x: Value) -> Value:
        return p.mul(x, _series(table.I1_SMALL, _affine(x, 0.25, -1)))

    def high(x: Value) -> Value:
        t = _affine(p.div(e.like(16, x), x), 1, -1)
        return _over_root(x, _series(table.I1_LARGE, t))

    return _split(size, 8, low, high)


def _i0(x: Value) -> Value:
    size = p.abs_(x)
    return p.mul(p.exp(size), _scaled_i0(size))


def _i1(x: Value) -> Value:
    size = p.abs_(x)
    return p.copysign(p.mul(p.exp(size), _scaled_i1(size)), x)


def _i1_over_x(x: Value) -> Value:
    """I1(x) / x, and 1/2 at 0."""
    flat = p.eq(x, e.like(0, x))
    safe = p.where(flat, e.like(1, x), x)
    return p.where(flat, e.like(0.5, x), p.div(_i1(safe), safe))


def _special(name: str, low: float, high: float, doc: str, body, oracle=None, wide: bool = True,
             **options):
    """A function of one tensor in `torch.special`; `wide`: singles are computed in double."""
    def function(input: Tensor):
        return e.in_double(body, input) if wide else body(input)

    function.__name__, function.__doc__ = name, doc
    function.__annotations__ = {"input": "Tensor"}
    options = {"public": ("special",), "method": False} | options
    return op(promote="float", refuses="c", samples=unary(low, high), oracle=oracle,
              **options)(function)


i0 = _special("i0", -9, 9, "The modified Bessel function of the first kind, order 0.", _i0, np.i0,
              public=("torch", "special"), method=True, inplace=True)


@i0.vjp
def i0_vjp(g, input):
    return p.mul(g, _i1(input))


def _single_scaled(x: Value, near: tuple, far: tuple) -> Value:
    """exp(-x) I(x) / x**order of single precision, x >= 0: within 4 units of the last place."""
    def low(x: Value) -> Value:
        return p.mul(_power_series(near, p.mul(x, x)), p.exp(p.neg(x)))

    def high(x: Value) -> Value:
        inverse = p.div(e.like(1, x), x)
        return p.mul(_power_series(far, inverse), p.sqrt(inverse))

    return _split(x, 5, low, high)


def _i0e(x: Value) -> Value:
    size = p.abs_(x)
    if x.dtype is dtypes.float32:
        return _single_scaled(size, table.I0_NEAR, table.I0_FAR)
    return _scaled_i0(size)


def _i1e(x: Value) -> Value:
    size = p.abs_(x)
    if x.dtype is dtypes.float32:
        even = _single_scaled(size, table.I1_NEAR, table.I1_FAR)
        return p.mul(even, p.where(p.le(size, e.like(5, x)), x, p.sign(x)))
    return p.copysign(_scaled_i1(size), x)


i0e = _special("i0e", -9, 9, "exp(-|x|) times the modified Bessel function of order 0.", _i0e,
               wide=False, grad="SpecialI0EBackward0")
i1 = _special("i1", -9, 9, "The modified Bessel function of the first kind, order 1.", _i1,
              grad="SpecialI1Backward0")
i1e = _special("i1e", -9, 9, "exp(-|x|) times the modified Bessel function of order 1.", _i1e,
               wide=False, grad="SpecialI1EBackward0")


@i0e.vjp
def i0e_vjp(g, input, output):
    return p.mul(g, p.sub(_i1e(input), p.mul(p.sign(input), output)))


@i1.vjp
def i1_vjp(g, input):
    return p.mul(g, p.sub(_i0(input), _i1_over_x(input)))


@i1e.vjp
def i1e_vjp(g, input, output):
    ratio = p.mul(_i1_over_x(input), p.exp(p.neg(p.abs_(input))))
    slope = p.sub(p.sub(_i0e(input), ratio), p.mul(p.sign(input), output))
    return p.mul(g, slope)


_special("modified_bessel_i0", -9, 9, "The modified Bessel function of the first kind, order "
                                      "0.", _i0,
         differentiable=False)
_special("modified_bessel_i1", -9, 9, "The modified Bessel function of the first kind, order "
                                      "1.", _i1,
         differentiable=False)


# --------------------------------------------------------------------------- second kind, modified
def _second_kind(x: Value, value: Value, at_zero: float) -> Value:
    """`value` on the positive side; the pole at 0, and NaN below."""
    zero = e.like(0, x)
    outside = p.where(p.eq(x, zero), e.like(at_zero, x), e.like(math.nan, x))
    return p.where(p.gt(x, zero), value, outside)


def _positive(x: Value) -> Value:
    return p.where(p.gt(x, e.like(0, x)), x, e.like(1, x))


def _log_half(x: Value) -> Value:
    return p.log(p.mul(x, e.like(0.5, x)))


def _k(order: int, scaled: bool):
    small = table.K1_SMALL if order else table.K0_SMALL
    large = table.K1_LARGE if order else table.K0_LARGE

    def low(x: Value) -> Value:
        series = _series(small, _affine(p.mul(x, x), 0.5, -1))
        if order:
            value = p.add(p.mul(_log_half(x), _i1(x)), p.div(series, x))
        else:
            value = p.sub(series, p.mul(_log_half(x), _i0(x)))
        return p.mul(value, p.exp(x)) if scaled else value

    def high(x: Value) -> Value:
        t = _affine(p.div(e.like(4, x), x), 1, -1)
        value = _over_root(x, _series(large, t))
        return value if scaled else p.mul(value, p.exp(p.neg(x)))

    def body(x: Value) -> Value:
        return _second_kind(x, _split(_positive(x), 2, low, high), math.inf)

    return body


for _order in (0, 1):
    _words = f"modified Bessel function of the second kind, order {_order}"
    _special(f"modified_bessel_k{_order}", 0.1, 9, f"The {_words}.", _k(_order, False),
             differentiable=False)
    _special(f"scaled_modified_bessel_k{_order}", 0.1, 9, f"exp(x) times the {_words}.",
             _k(_order, True), differentiable=False)


# --------------------------------------------------------------------------- first and second kind
def _hankel(order: int, second: bool):
    """For x >= 8: (P cos w - Q sin w) / sqrt(pi x / 2), or (P sin w + Q cos w) / sqrt(pi x / 2).

    Here w = x - (2 n + 1) pi / 4 for order n.
    """
    modulus, phase = (table.P1, table.Q1) if order else (table.P0, table.Q0)

    def high(x: Value) -> Value:
        t = _affine(p.div(e.like(128, x), p.mul(x, x)), 1, -1)
        a, b = _series(modulus, t), p.div(_series(phase, t), x)
        cos, sin = p.cos(x), p.sin(x)
        total, gap = p.add(sin, cos), p.sub(sin, cos)
        along, across = (gap, p.neg(total)) if order else (total, gap)  # sqrt(2) (cos w, sin w)
        waves = p.add(p.mul(a, across), p.mul(b, along)) if second else p.sub(
            p.mul(a, along), p.mul(b, across))
        return p.div(waves, p.sqrt(p.mul(x, e.like(math.pi, x))))

    return high


def _square_place(x: Value) -> Value:
    return _affine(p.mul(x, x), 1 / 32, -1)


def _j0_low(x: Value) -> Value:
    return _series(table.J0_SMALL, _square_place(x))


def _j1_low(x: Value) -> Value:
    return p.mul(x, _series(table.J1_SMALL, _square_place(x)))


def _y0_low(x: Value) -> Value:
    wave = p.mul(p.mul(p.log(x), _j0_low(x)), e.like(2 / math.pi, x))
    return p.add(_series(table.Y0_SMALL, _square_place(x)), wave)


def _y1_low(x: Value) -> Value:
    wave = p.sub(p.mul(p.log(x), _j1_low(x)), p.div(e.like(1, x), x))
    return p.add(p.mul(x, _series(table.Y1_SMALL, _square_place(x))),
                 p.mul(wave, e.like(2 / math.pi, x)))


def _bessel_j0(x: Value) -> Value:
    return _split(p.abs_(x), 8, _j0_low, _hankel(0, False))


def _bessel_j1(x: Value) -> Value:
    value = _split(p.abs_(x), 8, _j1_low, _hankel(1, False))
    return p.where(p.lt(x, e.like(0, x)), p.neg(value), value)


def _bessel_y0(x: Value) -> Value:
    return _second_kind(x, _split(_positive(x), 8, _y0_low, _hankel(0, True)), -math.inf)


def _bessel_y1(x: Value) -> Value:
    return _second_kind(x, _split(_positive(x), 8, _y1_low, _hankel(1, True)), -math.inf)


_special("bessel_j0", -12, 12, "The Bessel function of the first kind, order 0.", _bessel_j0,
         differentiable=False)
_special("bessel_j1", -12, 12, "The Bessel function of the first kind, order 1.", _bessel_j1,
         differentiable=False)
_special("bessel_y0", 0.1, 12, "The Bessel function of the second kind, order 0.", _bessel_y0,
         differentiable=False)
_special("bessel_y1", 0.1, 12, "The Bessel function of the second kind, order 1.", _bessel_y1,
         differentiable=False)


def _spherical_j0(x: Value) -> Value:
    flat = p.eq(x, e.like(0, x))
    infinite = p.eq(p.abs_(x), e.like(math.inf, x))
    safe = p.where(p.logical_or(flat, infinite), e.like(1, x), x)
    value = p.where(infinite, e.like(0, x), p.div(p.sin(safe), safe))
    return p.where(flat, e.like(1, x), value)


_special("spherical_bessel_j0", -9, 9, "sin(x) / x, and 1 at 0.", _spherical_j0,
         differentiable=False)


# --------------------------------------------------------------------------- Airy's function
AIRY_EDGE = 2.5
AIRY_RISE = 2 / 3 * AIRY_EDGE ** 1.5


def _airy_rise(size: Value) -> Value:
    """z = 2/3 x^(3/2)."""
    return p.mul(p.mul(size, p.sqrt(size)), e.like(2 / 3, size))


def _airy_large(x: Value) -> Value:
    z = _airy_rise(x)
    t = _affine(p.div(e.like(2 * AIRY_RISE, z), z), 1, -1)
    scaled = p.mul(p.exp(p.neg(z)), _series(table.AIRY_LARGE, t))
    return p.div(scaled, p.mul(e.like(2 * math.sqrt(math.pi), x), p.sqrt(p.sqrt(x))))


def _airy_waves(x: Value) -> Value:
    """Ai(-x)."""
    z = _airy_rise(x)
    ratio = p.div(e.like(AIRY_RISE, z), z)
    t = _affine(p.mul(ratio, ratio), 2, -1)
    phase = p.sub(z, e.like(math.pi / 4, z))
    total = p.add(p.mul(p.cos(phase), _series(table.AIRY_P, t)),
                  p.div(p.mul(p.sin(phase), _series(table.AIRY_Q, t)), z))
    return p.div(total, p.mul(e.like(math.sqrt(math.pi), x), p.sqrt(p.sqrt(x))))


def _airy_ai(x: Value) -> Value:
    def middle(x: Value) -> Value:
        return _series(table.AIRY_MIDDLE, p.mul(x, e.like(1 / AIRY_EDGE, x)))

    def right(x: Value) -> Value:
        return _split(x, AIRY_EDGE, middle, _airy_large)

    def left(x: Value) -> Value:
        return _airy_waves(p.neg(x))

    infinite = p.eq(p.abs_(x), e.like(math.inf, x))
    return p.where(infinite, e.like(math.nan, x), _split(x, -AIRY_EDGE, left, right))


_special("airy_ai", -9, 6, "Airy's function Ai.", _airy_ai, differentiable=False)


# --------------------------------------------------------------------------- error functions
def _erfcx(x: Value) -> Value:
    """exp(x^2) erfc(x); below 0 by reflection."""
    size = p.abs_(x)
    t = _affine(p.div(e.like(8, x), p.add(size, e.like(4, x))), 1, -1)
    value = p.div(_series(table.ERFCX, t), p.add(size, e.like(1, x)))
    negative = p.lt(x, e.like(0, x))
    square = p.exp(p.where(negative, p.mul(x, x), e.like(0, x)))
    return p.where(negative, p.sub(p.add(square, square), value), value)


erfcx = _special("erfcx", -2, 6, "exp(x^2) erfc(x), which does not underflow.", _erfcx,
                 grad="SpecialErfcxBackward0")


@erfcx.vjp
def erfcx_vjp(g, input, output):
    slope = p.sub(p.mul(p.add(input, input), output), e.like(2 / math.sqrt(math.pi), input))
    return p.mul(g, slope)


def _log_ndtr(x: Value) -> Value:
    scaled = p.mul(x, e.like(-math.sqrt(0.5), x))
    low = p.lt(x, e.like(-1, x))
    tail = p.where(low, scaled, e.like(1, x))
    below = p.sub(p.log(p.mul(_erfcx(tail), e.like(0.5, x))), p.mul(tail, tail))
    above = p.log1p(p.mul(p.erfc(p.neg(p.where(low, e.like(0, x), scaled))), e.like(-0.5, x)))
    return p.where(low, below, above)


log_ndtr = _special("log_ndtr", -5, 3, "The logarithm of ndtr, accurate far below 0.", _log_ndtr,
                    grad="SpecialLogNdtrBackward0")


@log_ndtr.vjp
def log_ndtr_vjp(g, input):
    """The density over the probability: sqrt(2 / pi) / erfcx(-x / sqrt(2))."""
    tail = _erfcx(p.mul(input, e.like(-math.sqrt(0.5), input)))
    return p.mul(g, p.div(e.like(math.sqrt(2 / math.pi), input), tail))


# A rational first guess (P. J. Acklam, 2003, relative error 1.2e-9): centre and tail
_CENTRE = ((-3.969683028665376e+01, 2.209460984245205e+02, -2.759285104469687e+02,
            1.383577518672690e+02, -3.066479806614716e+01, 2.506628277459239e+00),
           (-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
            6.680131188771972e+01, -1.328068155288572e+01, 1.0))
_TAIL = ((-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
          -2.549732539343734e+00, 4.374664141464968e+00, 2.938163982698783e+00),
         (7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
          3.754408661907416e+00, 1.0))
_EDGE = 0.02425


def _rational(coefficients: tuple, x: Value) -> Value:
    values = []
    for series in coefficients:
        total = e.like(series[0], x)
        for c in series[1:]:
            total = p.add(p.mul(total, x), e.like(c, x))
        values.append(total)
    return p.div(*values)


def _ndtri(x: Value) -> Value:
    """A rational guess for the lower half, made exact by one step of Halley's method."""
    one, half = e.like(1, x), e.like(0.5, x)
    upper = p.gt(x, half)
    q = p.where(upper, p.sub(one, x), x)
    inside = p.logical_and(p.gt(q, e.like(0, x)), p.le(q, half))
    q = p.where(inside, q, half)
    edge = e.like(_EDGE, x)
    middle = p.sub(p.maximum(q, edge), half)
    centre = p.mul(middle, _rational(_CENTRE, p.mul(middle, middle)))
    depth = p.sqrt(p.mul(p.log(p.minimum(q, edge)), e.like(-2, x)))
    guess = p.where(p.lt(q, edge), _rational(_TAIL, depth), centre)
    # error of the guess in probability, over the density: with erfcx neither underflows
    scaled = p.mul(guess, e.like(-math.sqrt(0.5), x))
    root = e.like(math.sqrt(2 * math.pi), x)
    miss = p.mul(p.sub(p.mul(_erfcx(scaled), half),
                       p.mul(q, p.exp(p.mul(scaled, scaled)))), root)
    guess = p.sub(guess, p.div(miss, p.add(one, p.mul(p.mul(guess, miss), half))))
    value = p.where(upper, p.neg(guess), guess)
    ends = p.where(p.eq(x, e.like(0, x)), e.like(-math.inf, x),
                   p.where(p.eq(x, one), e.like(math.inf, x), e.like(math.nan, x)))
    return p.where(inside, value, ends)


def _single_ndtri(x: Value) -> Value:
    """ndtri of single precision: (2 x - 1) times a function of w = -log(4 x (1 - x)), which is a
    polynomial in w near 0 and in sqrt(w) beyond (Giles 2010): within 3 units of the last place."""
    one, four = e.like(1, x), e.like(4, x)
    w = p.neg(p.log(p.mul(p.mul(x, four), p.sub(one, x))))
    root = p.sqrt(p.maximum(w, one))
    far, farther = p.ge(w, e.like(4.5, x)), p.ge(root, four)
    t = p.sub(p.where(far, root, w), _piece(far, farther, table.NDTRI_CENTRES, x))
    pieces = table.NDTRI_NEAR, table.NDTRI_FAR, table.NDTRI_FARTHER
    total = e.like(0, x)
    for values in zip(*map(reversed, pieces), strict=True):
        total = p.add(p.mul(total, t), _piece(far, farther, values, x))
    value = p.mul(p.sub(p.add(x, x), one), total)
    ends = p.where(p.eq(x, e.like(0, x)), e.like(-math.inf, x),
                   p.where(p.eq(x, one), e.like(math.inf, x), e.like(math.nan, x)))
    return p.where(p.logical_and(p.gt(x, e.like(0, x)), p.lt(x, one)), value, ends)


def _piece(far: Value, farther: Value, values: tuple, x: Value) -> Value:
    """The constant of the piece that each element is in."""
    near, middle, last = (e.like(value, x) for value in values)
    return p.where(far, p.where(farther, last, middle), near)


def _any_ndtri(x: Value) -> Value:
    return _single_ndtri(x) if x.dtype is dtypes.float32 else _ndtri(x)


ndtri = _special("ndtri", 0.01, 0.99, "The number below which a standard normal number lies with "
                 "probability x.", _any_ndtri, wide=False, grad="SpecialNdtriBackward0")


@ndtri.vjp
def ndtri_vjp(g, output):
    density = p.exp(p.mul(p.mul(output, output), e.like(0.5, output)))
    return p.mul(g, p.mul(density, e.like(math.sqrt(2 * math.pi), output)))
