"""Special functions of one and two arguments: entropies, logits, sinc, gamma's relatives."""

from __future__ import annotations

import math

import numpy as np

from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.arithmetic import no_complex
from flambeau.ops.record import Operand, Tensor, op
from flambeau.ops.samples import Arr, binary, sample, unary


# --------------------------------------------------------------------------- products with logs
def _times_log(x: Value, y: Value, log) -> Value:
    """x * log(y), 0 where x is 0, NaN where y is."""
    x, y = e.broadcast(x, y)
    product = p.where(p.eq(x, e.like(0, x)), e.like(0, x), p.mul(x, log(y)))
    return p.where(p.ne(y, y), y, product)


@op(promote="float", inplace=True, refuses="c", check=e.some_tensor("xlogy"),
    samples=binary(0.5, 2.0))
def xlogy(input: Operand, other: Operand):
    """input * log(other), and 0 where input is 0.

    >>> torch.xlogy(torch.tensor([0., 2.]), torch.tensor([0., 10.]))
    tensor([0.0000, 4.6052])
    """
    return _times_log(input, other, p.log)


@xlogy.vjp
def xlogy_vjp(g, input, other):
    x, y = e.broadcast(input, other)
    zero = e.like(0, x)
    flat = p.logical_and(p.eq(x, zero), p.le(y, zero))
    slope = p.where(flat, zero, _times_log(g, y, p.log))
    return e.reduced(slope, input), e.reduced(p.div(p.mul(g, x), y), other)


@op(name="xlog1py", promote="float", refuses="c", public=("special",), method=False,
    check=e.some_tensor("xlog1py"), samples=binary(0.5, 2.0), grad="SpecialXlog1PyBackward0")
def xlog1py(input: Operand, other: Operand):
    """input * log(1 + other), and 0 where input is 0.

    >>> torch.special.xlog1py(torch.tensor([0., 1.]), torch.tensor([-1., 1.]))
    tensor([0.0000, 0.6931])
    """
    return _times_log(input, other, p.log1p)


@xlog1py.vjp
def xlog1py_vjp(g, input, other):
    x, y = e.broadcast(input, other)
    zero, one = e.like(0, x), e.like(1, x)
    flat = p.logical_and(p.eq(x, zero), p.le(y, p.neg(one)))
    slope = p.where(flat, zero, _times_log(g, y, p.log1p))
    return e.reduced(slope, input), e.reduced(p.div(p.mul(g, x), p.add(y, one)), other)


@op(name="entr", promote="float", refuses="c", public=("special",), method=False,
    samples=unary(0.1, 3), grad="SpecialEntrBackward0")
def entr(input: Tensor):
    """-x log(x): 0 at 0, -inf below.

    >>> torch.special.entr(torch.tensor([0., 0.5, 1.]))
    tensor([0.0000, 0.3466, -0.0000])
    """
    zero = e.like(0, input)
    inside = p.neg(p.mul(input, p.log(input)))
    outside = p.where(p.eq(input, zero), zero, e.like(-math.inf, input))
    return p.where(p.ne(input, input), input, p.where(p.gt(input, zero), inside, outside))


@entr.vjp
def entr_vjp(g, input):
    return p.mul(g, p.neg(p.add(p.log(input), e.like(1, input))))


# --------------------------------------------------------------------------- logit, sinc
@op(promote="float", refuses="c", inplace=True, samples=lambda: iter([
    sample(Arr((3, 4), None, 0.1, 0.9)), sample(Arr((7,), None, -0.5, 1.5), 0.1)]))
def logit(input: Tensor, eps: float | None = None):
    """log(x / (1 - x)), with x first limited to [eps, 1 - eps] if eps is given.

    >>> torch.logit(torch.tensor([0.25, 0.5, 1.]))
    tensor([-1.0986,  0.0000,     inf])
    """
    x = input
    if eps is not None:
        low, high = e.like(eps, x), e.like(1 - eps, x)
        x = p.where(p.lt(x, low), low, p.where(p.gt(x, high), high, x))
    one, zero = e.like(1, x), e.like(0, x)
    rest, beyond = p.sub(one, x), p.sub(p.add(x, x), one)
    # Near 1/2 the logarithm is that of 1 + |2 x - 1| / min(x, 1 - x), whose two parts are exact.
    near = p.lt(p.abs_(beyond), e.like(0.5, x))
    part = p.div(p.where(near, p.abs_(beyond), x), p.where(near, p.minimum(x, rest), rest))
    odds = p.add(part, p.where(near, one, zero))
    lost = p.where(near, p.div(p.sub(part, p.sub(odds, one)), odds), zero)
    result = p.add(p.log(odds), lost)
    return p.where(near, p.copysign(result, beyond), result)


@logit.vjp
def logit_vjp(g, input, eps):
    """g / (x (1 - x)); beyond eps 0, beyond [0, 1] NaN."""
    one, zero = e.like(1, input), e.like(0, input)
    slope = p.div(g, p.mul(input, p.sub(one, input)))
    low = 0.0 if eps is None else eps
    inside = p.logical_and(p.ge(input, e.like(low, input)), p.le(input, e.like(1 - low, input)))
    return p.where(inside, slope, e.like(math.nan, zero) if eps is None else zero)


@op(promote="float", inplace=True, samples=unary(), oracle=np.sinc)
def sinc(input: Tensor):
    """sin(pi x) / (pi x), and 1 at 0.

    >>> torch.sinc(torch.tensor([0., 0.5, 1.5]))
    tensor([ 1.0000,  0.6366, -0.2122])
    """
    if input.dtype.is_complex:
        return _sinc(input, p.sin(p.mul(input, e.like(math.pi, input))))
    return e.in_double(_real_sinc, input)


def _real_sinc(x: Value) -> Value:
    return _sinc(x, _sin_pi(x))


def _sinc(x: Value, wave: Value) -> Value:
    one, at_zero = e.like(1, x), p.eq(x, e.like(0, x))
    angle = p.mul(p.where(at_zero, one, x), e.like(math.pi, x))
    return p.where(at_zero, one, p.div(wave, angle))


def _sin_pi(x: Value) -> Value:
    """sin(pi x). Whole turns are taken off, and the second half of a half turn is folded back,
    before the product: both are exact."""
    half = e.like(0.5, x)
    turns = p.round_(p.mul(x, half))
    rest = p.sub(x, p.add(turns, turns))
    beyond = p.mul(p.sign(rest), p.sub(e.like(1, x), p.abs_(rest)))
    folded = p.where(p.gt(p.abs_(rest), half), beyond, rest)
    return p.sin(p.mul(folded, e.like(math.pi, x)))


# --------------------------------------------------------------------------- normal distribution
@op(name="ndtr", promote="float", refuses="c", public=("special",), method=False,
    samples=unary(-3, 3), grad="MulBackward1")
def ndtr(input: Tensor):
    """The probability that a standard normal number is not above x.

    >>> torch.special.ndtr(torch.tensor([-1.96, 0., 1.96]))
    tensor([0.0250, 0.5000, 0.9750])
    """
    return e.in_double(_ndtr, input)


def _ndtr(x: Value) -> Value:
    return p.mul(p.erfc(p.mul(x, e.like(-math.sqrt(0.5), x))), e.like(0.5, x))


# --------------------------------------------------------------------------- gamma's relatives
def _positive_order(input: Value, order: int) -> None:
    if order < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    no_complex("mvlgamma", input)
    if input.dtype.kind == "b":
        raise RuntimeError("mvlgamma: The input tensor may not be a boolean tensor.")


@op(promote="float", inplace=True, check=_positive_order,
    samples=lambda: iter([sample(Arr((3, 4), None, 3, 6), 3), sample(Arr((5,), None, 1, 4), 1)]))
def mvlgamma(input: Tensor, p: int):
    """The logarithm of the multivariate gamma function of dimension p.

    >>> torch.mvlgamma(torch.tensor([2., 3.]), 2)
    tensor([0.4516, 1.5502])
    """
    return _log_gamma_product(input, p)


LONG = 32  # factors from which on they are an axis of their own, not written out


def _log_gamma_product(x: Value, order: int) -> Value:
    total = e.like(order * (order - 1) / 4 * math.log(math.pi), x)
    if order > LONG:
        shape = (*x.shape, order)
        spread = p.expand(p.reshape(x, (*x.shape, 1)), shape)
        halves = p.mul(p.convert(p.iota(shape, x.ndim), x.dtype), e.like(0.5, spread))
        return p.add(total, p.reduce_sum(p.lgamma(p.sub(spread, halves)), (x.ndim,)))
    for j in range(order):
        total = p.add(total, p.lgamma(p.sub(x, e.like(j / 2, x))))
    return total


BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
SHIFT = 9


def hurwitz(s: Value, x: Value) -> Value:
    """sum of (x + k)**-s over k >= 0, for s > 1 and x > 0: nine terms, and Euler and Maclaurin's
    formula for the rest."""
    total, one = e.like(0, x), e.like(1, x)
    for k in range(SHIFT):
        total = p.add(total, p.pow_(p.add(x, e.like(k, x)), p.neg(s)))
    y = p.add(x, e.like(SHIFT, x))
    power = p.pow_(y, p.neg(s))
    total = p.add(total, p.add(p.div(p.mul(power, y), p.sub(s, one)),
                               p.mul(power, e.like(0.5, x))))
    factor, term = s, p.div(power, y)
    square = p.mul(y, y)
    for k, number in enumerate(BERNOULLI, 1):
        scale = number / math.factorial(2 * k)
        total = p.add(total, p.mul(p.mul(factor, term), e.like(scale, x)))
        factor = p.mul(factor, p.mul(p.add(s, e.like(2 * k - 1, x)), p.add(s, e.like(2 * k, x))))
        term = p.div(term, square)
    return total


@op(name="zeta", promote="float", refuses="c", public=("special",), method=False,
    check=e.some_tensor("zeta"),
    samples=lambda: iter([sample(Arr((3, 4), None, 1.5, 6), Arr((4,), None, 0.5, 6)),
                          sample(2.5, Arr((5,), None, 0.5, 6))]), differentiable=False)
def zeta(input: Operand, other: Operand):
    """Hurwitz's zeta: the sum of (k + other)**-input over k >= 0; inf at input 1 and at poles.

    >>> torch.special.zeta(torch.tensor([2., 4.]), 1.)
    tensor([1.6449, 1.0823])
    """
    s, x = e.broadcast(input, other)
    zero, one = e.like(0, x), e.like(1, x)
    whole = p.eq(p.floor(x), x)
    pole = p.logical_and(p.le(x, zero), whole)
    nothing = p.logical_and(p.lt(x, zero), p.ne(p.floor(s), s))  # a negative to a broken power
    value = p.where(nothing, e.like(math.nan, x), hurwitz(s, x))
    value = p.where(pole, e.like(math.inf, x), value)
    value = p.where(p.lt(s, one), e.like(math.nan, x), value)
    return p.where(p.eq(s, one), e.like(math.inf, x), value)


def _order_first(n: int, input: Value) -> None:
    if not isinstance(n, int):
        raise TypeError("polygamma(): argument 'n' (position 1) must be int, not "
                        f"{type(n).__name__}")
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n, got {n}")


@op(promote="float", refuses="c", method=False, check=_order_first,
    samples=lambda: iter([sample(n, Arr((7,), None, 0.3, 5)) for n in (0, 1, 2, 4)]))
def polygamma(n: int, input: Tensor):
    """The n-th derivative of digamma.

    >>> torch.polygamma(1, torch.tensor([1., 2.]))
    tensor([1.6449, 0.6449])
    """
    return _polygamma(n, input)


def _polygamma(n: int, x: Value) -> Value:
    if n == 0:
        return p.digamma(x)
    if n == 1:
        return p.trigamma(x)
    scale = (-1) ** (n + 1) * float(math.factorial(n))
    return p.mul(hurwitz(e.like(n + 1, x), x), e.like(scale, x))


@polygamma.vjp
def polygamma_vjp(g, n, input):
    return p.mul(g, _polygamma(n + 1, input))
