"""The incomplete gamma function: `igamma`, `igammac`.

P(a, x) is the part of the integral of t^(a - 1) exp(-t) that lies below x, Q(a, x) the rest. Up to
x = a + 1 by P's series, beyond by Q's continued fraction; for a beyond 2e5, where both take long,
by the first terms of N. M. Temme's uniform expansion (1979). In double precision throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import Arr, sample

UNIFORM = 2e5  # from which a on the uniform expansion serves
STIRLING = 20.0  # from which a on gamma is taken from its asymptotic series
_STIRLING_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)


def _deviation(a: Value, x: Value) -> tuple[Value, Value]:
    """(m, log(1 + m) - m), m = (x - a) / a; a is positive."""
    m = p.div(p.sub(x, a), a)
    return m, p.sub(p.log1p(m), m)


def _density(a: Value, x: Value) -> Value:
    """x^a exp(-x) / gamma(a + 1), for a > 0 and x > 0."""
    one, large = e.like(1, a), p.ge(a, e.like(STIRLING, a))
    few, many = p.where(large, one, a), p.where(large, a, e.like(STIRLING, a))
    near = p.exp(p.sub(p.sub(p.mul(few, p.log(x)), x), p.lgamma(p.add(few, one))))
    _, fall = _deviation(many, x)
    inverse = p.div(one, many)
    square, total = p.mul(inverse, inverse), e.like(0, a)
    for c in reversed(_STIRLING_SERIES):
        total = p.add(p.mul(total, square), e.like(c, a))
    exponent = p.sub(p.mul(many, fall), p.mul(total, inverse))
    far = p.div(p.exp(exponent), p.sqrt(p.mul(many, e.like(2 * math.pi, a))))
    return p.where(large, far, near)


def _uniform(a: Value, x: Value, upper: bool) -> Value:
    """P or Q for large a: half of an error function, and its first correction."""
    m, fall = _deviation(a, x)
    zero, one = e.like(0, a), e.like(1, a)
    eta = p.copysign(p.sqrt(p.maximum(p.mul(fall, e.like(-2, a)), zero)), m)
    small = p.lt(p.abs_(eta), e.like(1e-2, a))
    apart = p.sub(p.div(one, p.where(small, one, m)), p.div(one, p.where(small, one, eta)))
    bent = p.add(e.like(1 / 12, a), p.mul(eta, e.like(-2 / 135, a)))
    close = p.add(e.like(-1 / 3, a), p.mul(eta, bent))
    rest = p.mul(p.exp(p.mul(a, fall)), p.where(small, close, apart))
    rest = p.div(rest, p.sqrt(p.mul(a, e.like(2 * math.pi, a))))
    tail = p.mul(eta, p.sqrt(p.mul(a, e.like(0.5, a))))
    half = p.mul(p.erfc(tail if upper else p.neg(tail)), e.like(0.5, a))
    return p.add(half, rest) if upper else p.sub(half, rest)


def _incomplete(a: Value, x: Value, upper: bool) -> Value:
    """Q if `upper`, else P, of doubles."""
    zero, one, infinity = e.like(0, a), e.like(1, a), e.like(math.inf, a)
    inside = p.logical_and(p.logical_and(p.gt(a, zero), p.lt(a, infinity)),
                           p.logical_and(p.gt(x, zero), p.lt(x, infinity)))
    a_in, x_in = p.where(inside, a, one), p.where(inside, x, one)
    bound, middle = e.like(UNIFORM, a), p.add(a_in, one)
    vast, low = p.ge(a_in, bound), p.lt(x_in, middle)
    # where a sum is not looked at it has arguments with which it ends at once
    by_sum, no_fraction = p.logical_and(low, p.lt(a_in, bound)), p.logical_or(low, vast)
    series = p.gamma_series(a_in, p.where(by_sum, x_in, zero))
    fraction = p.gamma_fraction(p.where(no_fraction, one, a_in), p.where(no_fraction, one, x_in))
    density = _density(a_in, x_in)
    below, above = p.mul(density, series), p.mul(p.mul(density, a_in), fraction)
    own, other = (above, below) if upper else (below, above)
    chosen = p.ge(x_in, middle) if upper else low
    value = p.where(chosen, own, p.sub(one, other))
    far = _uniform(p.where(vast, a_in, bound), p.where(vast, x_in, bound), upper)
    value = p.where(vast, far, value)
    return p.where(inside, value, _at_edges(a, x, upper))


def _at_edges(a: Value, x: Value, upper: bool) -> Value:
    """0 and 1 where a or x is 0 or infinite; NaN where both are, and elsewhere."""
    zero, infinity, nan = e.like(0, a), e.like(math.inf, a), e.like(math.nan, a)
    none, all_ = (e.like(1, a), zero) if upper else (zero, e.like(1, a))
    value = p.where(p.logical_and(p.eq(a, zero), p.gt(x, zero)), all_, nan)
    value = p.where(p.logical_and(p.gt(a, zero), p.eq(x, infinity)), all_, value)
    value = p.where(p.logical_and(p.gt(a, zero), p.eq(x, zero)), none, value)
    value = p.where(p.logical_and(p.eq(a, infinity), p.ge(x, zero)), none, value)
    both = p.logical_and(p.eq(a, x), p.logical_or(p.eq(a, zero), p.eq(a, infinity)))
    return p.where(both, nan, value)


def _doubles(function: Callable, a: Value, x: Value, *more: bool) -> Value:
    a, x = e.broadcast(a, x)
    found = function(convert(a, dtypes.float64), convert(x, dtypes.float64), *more)
    return convert(found, a.dtype)


# --------------------------------------------------------------------------- gradients
def _slope_by_order(a: Value, x: Value) -> Value:
    """dP/da: the series' derivative by a, for a > 0 and x > 0."""
    reach = p.add(p.add(a, e.like(60, a)), p.mul(p.sqrt(a), e.like(12, a)))
    beyond = p.gt(x, reach)  # where Q is 0 to all digits
    near = p.where(beyond, a, x)
    sum_, change = p.gamma_series(a, near), p.gamma_series_slope(a, near)
    level = p.sub(p.log(near), p.digamma(p.add(a, e.like(1, a))))
    slope = p.mul(_density(a, near), p.add(p.mul(sum_, level), change))
    return p.where(beyond, e.like(0, a), slope)


def _slope_by_place(a: Value, x: Value) -> Value:
    """dP/dx."""
    power = p.mul(p.sub(a, e.like(1, a)), p.log(x))
    return p.exp(p.sub(p.sub(power, x), p.lgamma(a)))


def _gradients(g: Value, input: Value, other: Value, sign: float) -> tuple[Value, ...]:
    def along(slope: Callable, x: Value) -> Value:
        g_all, found = e.broadcast(g, _doubles(slope, input, other))
        return e.reduced(p.mul(p.mul(g_all, found), e.like(sign, found)), x)

    return along(_slope_by_order, input), along(_slope_by_place, other)


def _samples():
    yield sample(Arr((3, 4), None, 0.5, 6.0, False), Arr((4,), None, 0.2, 9.0))
    yield sample(Arr((), None, 0.5, 6.0, False), Arr((17,), None, 0.2, 9.0))


_OPTIONS = {"promote": "match", "refuses": "buic", "inplace": True, "samples": _samples}


@op(grad="IgammaBackward0", **_OPTIONS)
def igamma(input: Tensor, other: Tensor):
    """P(input, other): the integral of t^(input - 1) exp(-t) from 0 to other, over gamma(input).

    >>> torch.igamma(torch.tensor([1., 2.]), torch.tensor([1., 1.]))
    tensor([0.6321, 0.2642])
    """
    return _doubles(_incomplete, input, other, False)


@igamma.vjp
def igamma_vjp(g, input, other):
    return _gradients(g, input, other, 1.0)


@op(grad="IgammacBackward0", **_OPTIONS)
def igammac(input: Tensor, other: Tensor):
    """Q(input, other) = 1 - P(input, other): the integral from other on.

    >>> torch.igammac(torch.tensor([1., 2.]), torch.tensor([1., 1.]))
    tensor([0.3679, 0.7358])
    """
    return _doubles(_incomplete, input, other, True)


@igammac.vjp
def igammac_vjp(g, input, other):
    return _gradients(g, input, other, -1.0)
