"""Elementwise arithmetic beyond the operators: extrema that skip NaN, hypotenuse, sums of
exponentials, signs, the parts of floats, common divisors."""

from __future__ import annotations

import math

import numpy as np

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Operand, Tensor, lift, op
from flambeau.ops.samples import Arr, binary, sample, unary


def no_complex(name: str, *values: Value) -> None:
    """Raise NotImplementedError if any value is complex."""
    if any(value.dtype.is_complex for value in values):
        raise NotImplementedError(f"{name} is not implemented for complex tensors; use the real "
                                  "and imaginary parts")


# --------------------------------------------------------------------------- extrema
def _either(a: Value, b: Value, prim) -> Value:
    """The extremum of two; if one is NaN the other."""
    a, b = e.broadcast(a, b)
    return p.where(p.ne(a, a), b, p.where(p.ne(b, b), a, prim(a, b)))


def _first_wins(g: Value, a: Value, b: Value, compare) -> tuple[Value, Value]:
    """The gradient goes to one operand: the first if it wins, ties, or the second is NaN."""
    x, y = e.broadcast(a, b)
    first, zero = p.logical_or(compare(x, y), p.ne(y, y)), e.like(0, g)
    return e.reduced(p.where(first, g, zero), a), e.reduced(p.where(first, zero, g), b)


@op(promote="match", refuses="c", samples=binary(number=None), oracle=np.fmax)
def fmax(input: Tensor, other: Tensor):
    """The larger of two; a number wins over NaN.

    >>> torch.fmax(torch.tensor([1., float("nan"), 3.]), torch.tensor([2., 0., float("nan")]))
    tensor([2., 0., 3.])
    """
    return _either(input, other, p.maximum)


@fmax.vjp
def fmax_vjp(g, input, other):
    return _first_wins(g, input, other, p.ge)


@op(promote="match", refuses="c", samples=binary(number=None), oracle=np.fmin)
def fmin(input: Tensor, other: Tensor):
    """The smaller of two; a number wins over NaN.

    >>> torch.fmin(torch.tensor([1., float("nan"), 3.]), torch.tensor([2., 0., float("nan")]))
    tensor([1., 0., 3.])
    """
    return _either(input, other, p.minimum)


@fmin.vjp
def fmin_vjp(g, input, other):
    return _first_wins(g, input, other, p.le)


# --------------------------------------------------------------------------- sizes, exponentials
@op(promote="match", refuses="buic", inplace=True, samples=binary(0.5, 2.0, number=None),
    oracle=np.hypot)
def hypot(input: Tensor, other: Tensor):
    """sqrt(input**2 + other**2) without overflow on the way.

    >>> torch.hypot(torch.tensor([3., 5.]), torch.tensor([4., 12.]))
    tensor([ 5., 13.])
    """
    a, b = (p.abs_(value) for value in e.broadcast(input, other))
    high, low = p.maximum(a, b), p.minimum(a, b)
    zero, infinite = e.like(0, a), e.like(math.inf, a)
    ratio = p.div(low, p.where(p.eq(high, zero), e.like(1, a), high))
    size = p.mul(high, p.sqrt(p.add(e.like(1, a), p.mul(ratio, ratio))))
    return p.where(p.logical_or(p.eq(a, infinite), p.eq(b, infinite)), infinite, size)


@hypot.vjp
def hypot_vjp(g, output, input, other):
    a, b = e.broadcast(input, other)
    return (e.reduced(p.mul(g, p.div(a, output)), input),
            e.reduced(p.mul(g, p.div(b, output)), other))


def _log_of_sum(a: Value, b: Value, correction) -> Value:
    """max + correction(-|a - b|), and the operands themselves if they are equal infinities."""
    a, b = e.broadcast(a, b)
    gap = p.neg(p.abs_(p.sub(a, b)))
    same = p.logical_and(p.eq(a, b), p.eq(p.abs_(a), e.like(math.inf, a)))
    return p.where(same, a, p.add(p.maximum(a, b), correction(gap)))


def _natural_correction(gap: Value) -> Value:
    return p.log1p(p.exp(gap))


def _binary_correction(gap: Value) -> Value:
    return p.div(p.log1p(p.exp2(gap)), e.like(math.log(2), gap))


@op(promote="match", refuses="bui", samples=binary(number=None), oracle=np.logaddexp)
def logaddexp(input: Tensor, other: Tensor):
    """log(exp(input) + exp(other)) without overflow.

    >>> torch.logaddexp(torch.tensor([0., 1000.]), torch.tensor([0., 1000.]))
    tensor([6.9315e-01, 1.0007e+03])
    """
    if input.dtype.is_complex:
        return _log_of_complex_sum(*e.broadcast(input, other))
    return _log_of_sum(input, other, _natural_correction)


def _log_of_complex_sum(a: Value, b: Value) -> Value:
    """The same for complex numbers: the operand with the larger real part keeps its imaginary
    part, which is not brought into (-pi, pi]."""
    x, y = p.real(a), p.real(b)
    first = p.ge(x, y)
    high, low = p.where(first, a, b), p.where(first, b, a)
    result = p.add(high, p.log1p(p.exp(p.sub(low, high))))
    infinite = p.logical_and(p.eq(x, y), p.eq(p.abs_(x), e.like(math.inf, x)))
    both = p.where(p.lt(x, e.like(0, x)), b, p.log(p.add(p.exp(a), p.exp(b))))
    return p.where(infinite, both, result)


@logaddexp.vjp
def logaddexp_vjp(g, input, other):
    """Each operand's share is its part of the sum."""
    if not g.dtype.is_complex:
        return _shares(g, input, other, p.exp)
    share = p.sigmoid(e.elementwise(p.sub, input, other))
    rest = p.sigmoid(e.elementwise(p.sub, other, input))
    return e.reduced(p.mul(g, p.conj(share)), input), e.reduced(p.mul(g, p.conj(rest)), other)


def _shares(g: Value, a: Value, b: Value, exp) -> tuple[Value, Value]:
    """g / (1 + exp(other - own)): where that overflows its derivative is NaN, as in PyTorch."""
    def share(gap: Value) -> Value:
        return p.div(g, p.add(exp(gap), e.like(1, gap)))

    return (e.reduced(share(e.elementwise(p.sub, b, a)), a),
            e.reduced(share(e.elementwise(p.sub, a, b)), b))


@op(promote="match", refuses="buic", samples=binary(number=None), oracle=np.logaddexp2)
def logaddexp2(input: Tensor, other: Tensor):
    """log2(2**input + 2**other) without overflow.

    >>> torch.logaddexp2(torch.tensor([1., 1000.]), torch.tensor([1., 1000.]))
    tensor([   2., 1001.])
    """
    return _log_of_sum(input, other, _binary_correction)


@logaddexp2.vjp
def logaddexp2_vjp(g, input, other):
    return _shares(g, input, other, p.exp2)


# --------------------------------------------------------------------------- signs and steps
@op(promote="float", refuses="c", inplace=True, samples=binary(), oracle=np.copysign)
def copysign(input: Tensor, other: Operand):
    """The size of input with the sign of other (also of -0.0).

    >>> torch.copysign(torch.tensor([1., -2., 3.]), torch.tensor([-1., 1., -0.0]))
    tensor([-1.,  2., -3.])
    """
    return e.elementwise(p.copysign, input, other)


def _one_dtype(input: Value, values: Value) -> None:
    no_complex("heaviside", input, values)
    if input.dtype is not values.dtype:
        raise RuntimeError("heaviside is not yet implemented for tensors with different dtypes: "
                           f"{input.dtype.name} and {values.dtype.name}")


@op(check=_one_dtype, inplace=True, samples=binary(number=None), oracle=np.heaviside,
    no_derivative=True)
def heaviside(input: Tensor, values: Tensor):
    """0 where input is negative, 1 where it is positive, `values` where it is 0.

    >>> torch.heaviside(torch.tensor([-1.5, 0., 2.]), torch.tensor([0.5]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    x, at_zero = e.broadcast(input, values)
    zero = e.like(0, x)
    step = convert(p.gt(x, zero), x.dtype)
    return p.where(p.eq(x, zero), at_zero, step)


@op(samples=unary(), oracle=np.signbit, differentiable=False)
def signbit(input: Tensor):
    """Is the element negative (or -0.0)?

    >>> torch.signbit(torch.tensor([-1., 0., -0.0, 2.]))
    tensor([ True, False,  True, False])
    """
    no_complex("signbit", input)
    if input.dtype.kind == "f":
        one = e.like(1, input)
        return p.lt(p.copysign(one, input), e.like(0, input))
    return p.lt(input, e.like(0, input))


@op(samples=unary(), oracle=np.isposinf, differentiable=False)
def isposinf(input: Tensor):
    """Is the element +inf?

    >>> torch.isposinf(torch.tensor([-float("inf"), 1., float("inf")]))
    tensor([False, False,  True])
    """
    return _is_infinity("isposinf", input, math.inf)


@op(samples=unary(), oracle=np.isneginf, differentiable=False)
def isneginf(input: Tensor):
    """Is the element -inf?

    >>> torch.isneginf(torch.tensor([-float("inf"), 1., float("inf")]))
    tensor([ True, False, False])
    """
    return _is_infinity("isneginf", input, -math.inf)


def _is_infinity(name: str, x: Value, infinity: float) -> Value:
    if x.dtype.is_complex:
        raise RuntimeError(f"{name} does not support complex inputs.")
    return p.ne(x, x) if x.dtype.is_integral else p.eq(x, e.like(infinity, x))


@op(opmath=False, inplace=True, samples=lambda: iter([
    sample(Arr((3, 4))), sample(Arr((5,)), 1.0, 2.0, -2.0)]), oracle=np.nan_to_num)
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None):
    """NaN and infinities replaced: by 0 and the extreme finite numbers, unless given.

    >>> torch.nan_to_num(torch.tensor([float("nan"), 1., float("inf")]), nan=0.0, posinf=9.0)
    tensor([0., 1., 9.])
    """
    if input.dtype.is_integral:
        return p.stop_copy(input)
    if input.dtype.is_complex:
        return p.complex_(*(nan_to_num.body(part, nan, posinf, neginf)
                            for part in (p.real(input), p.imag(input))))
    limits = dtypes.finfo(input.dtype)
    result = p.where(p.ne(input, input), e.like(0.0 if nan is None else nan, input), input)
    for given, infinity, default in ((posinf, math.inf, limits.max),
                                     (neginf, -math.inf, limits.min)):
        fill = e.like(default if given is None else given, input)
        result = p.where(p.eq(input, e.like(infinity, input)), fill, result)
    return result


# --------------------------------------------------------------------------- angles, powers
@op(promote="float", refuses="c", inplace=True, samples=unary(-180, 180), oracle=np.deg2rad,
    grad="Deg2RadBackward0")
def deg2rad(input: Tensor):
    """Degrees as radians.

    >>> torch.deg2rad(torch.tensor([0., 90., 180.]))
    tensor([0.0000, 1.5708, 3.1416])
    """
    return p.mul(input, e.like(math.pi / 180, input))


@op(promote="float", refuses="c", inplace=True, samples=unary(-3, 3), oracle=np.rad2deg,
    grad="Rad2DegBackward0")
def rad2deg(input: Tensor):
    """Radians as degrees.

    >>> torch.rad2deg(torch.tensor([0., torch.pi / 2, torch.pi]))
    tensor([  0.,  90., 180.])
    """
    return p.mul(input, e.like(180 / math.pi, input))


def _double_samples():
    yield sample(Arr((3, 4), None, 0.5, 2), Arr((4,), None, 0.5, 2))
    yield sample(Arr((5,), "float64", 0.5, 2), 2.5)
    yield sample(2.5, Arr((5,), None, 0.5, 2))


@op(opmath=False, inplace=True, samples=_double_samples, grad="PowBackward1",
    check=e.some_tensor("float_power"),
    oracle=np.float_power)
def float_power(input: Operand, exponent: Operand):
    """input ** exponent in double precision.

    >>> torch.float_power(torch.tensor([1, 2, 3]), 2)
    tensor([1., 4., 9.], dtype=torch.float64)
    """
    double = dtypes.complex128 if input.dtype.is_complex or exponent.dtype.is_complex else (
        dtypes.float64)
    return e.pow(convert(input, double), convert(exponent, double))


def _beside_floats(input: Value, other: Value) -> str | None:
    return None if other.dtype.is_integral else "match"


@op(promote=_beside_floats, inplace=True,
    samples=lambda: iter([sample(Arr((3, 4)), Arr((3, 4), "int32", 0, 4)),
                          sample(Arr((5,)), Arr((5,)))]))
def ldexp(input: Tensor, other: Tensor):
    """input * 2**other.

    >>> torch.ldexp(torch.tensor([1., 3.]), torch.tensor([3, -1]))
    tensor([8.0000, 1.5000])
    """
    if not other.dtype.is_integral:
        return e.mul(input, e.pow(2.0, other))
    x, exponent = e.broadcast(e.default_float(input), convert(other, dtypes.int64))
    return _times_power(x, exponent)


# --------------------------------------------------------------------------- between two
def _lerp_samples():
    yield sample(Arr((3, 4)), Arr((3, 4)), 0.3)
    yield sample(Arr((3, 4)), Arr((4,)), Arr((3, 1)))


def _one_dtype(input: Value, end: Value, weight: Value) -> None:
    for name, value in (("end", end), ("weight", weight)):
        if not value.number and value.dtype is not input.dtype and value.ndim:
            raise RuntimeError(f"expected dtype {input.dtype.name} for `{name}` but got dtype "
                               f"{value.dtype.name}")


@op(promote="match", inplace=True, refuses="bui", samples=_lerp_samples, check=_one_dtype,
    exact_numbers=True)
def lerp(input: Tensor, end: Tensor, weight: Operand):
    """input + weight * (end - input); from the other end if the weight is large, so that a weight
    of 1 gives `end`.

    >>> torch.lerp(torch.tensor([0., 10.]), torch.tensor([1., 20.]), 0.25)
    tensor([ 0.2500, 12.5000])
    """
    x, y, w = e.broadcast(input, end, convert(lift(weight), input.dtype))
    return lerped(x, y, w)


def lerped(x: Value, y: Value, w: Value) -> Value:
    """x + w (y - x), from the nearer end."""
    gap, size = p.sub(y, x), p.abs_(w)
    far = p.sub(y, p.mul(gap, p.sub(e.like(1, w), w)))
    return p.where(p.lt(size, e.like(0.5, size)), p.add(x, p.mul(w, gap)), far)


@lerp.vjp
def lerp_vjp(g, input, end, weight):
    x, y, w = e.broadcast(input, end, convert(lift(weight), input.dtype))
    return (e.reduced(p.mul(g, p.conj(p.sub(e.like(1, w), w))), input),
            e.reduced(p.mul(g, p.conj(w)), end),
            None if weight.number else e.reduced(p.mul(g, p.conj(p.sub(y, x))), weight))


# --------------------------------------------------------------------------- parts of floats
@op(returns=("mantissa", "exponent"), opmath=False, samples=unary(), method=True)
def frexp(input: Tensor):
    """(m, e) with input == m * 2**e and 1/2 <= |m| < 1; e is int32.

    >>> torch.frexp(torch.tensor([0.75, 8., -3.]))
    torch.return_types.frexp(
    mantissa=tensor([ 0.7500,  0.5000, -0.7500]),
    exponent=tensor([0, 4, 2], dtype=torch.int32))
    """
    if input.dtype.kind != "f":
        raise RuntimeError("torch.frexp() only supports floating-point dtypes")
    exponent = p.stop_gradient(p.exponent_of(input))
    return _times_power(input, p.neg(exponent)), exponent


@frexp.vjp
def frexp_vjp(g, output):
    mantissa = g if isinstance(g, Value) else g[0]  # the exponent has none
    return _times_power(mantissa, p.neg(output[1]))


def _times_power(x: Value, exponent: Value) -> Value:
    """x * 2**exponent in two steps, neither of which overflows."""
    half = p.shift_right(exponent, p.filled(1, exponent))
    rest = p.sub(exponent, half)
    return p.mul(p.mul(x, p.exp2(convert(half, x.dtype))), p.exp2(convert(rest, x.dtype)))


@op(promote="match", refuses="buic", opmath=False, inplace=True, samples=binary(number=None),
    oracle=np.nextafter)
def nextafter(input: Tensor, other: Tensor):
    """The next float after input in the direction of other.

    >>> torch.nextafter(torch.tensor([1.]), torch.tensor([2.])) - 1
    tensor([1.1921e-07])
    """
    return e.elementwise(p.nextafter, input, other)


@nextafter.vjp
def nextafter_vjp(g, input, other):
    """A step hardly moves the input, and by how much does not depend on the target."""
    return e.reduced(g, input), p.zero_like(other)


# --------------------------------------------------------------------------- integers
def _integer_pairs():
    yield sample(Arr((17,), "int64", -40, 40), Arr((17,), "int64", -40, 40))
    yield sample(Arr((3, 4), "int32", -40, 40), Arr((4,), "int32", 1, 40))


@op(promote="match", refuses="bfc", inplace=True, samples=_integer_pairs, oracle=np.gcd,
    differentiable=False)
def gcd(input: Tensor, other: Tensor):
    """The greatest common divisor, not negative; gcd(0, 0) is 0.

    >>> torch.gcd(torch.tensor([12, 18, 0]), torch.tensor([8, 27, 0]))
    tensor([4, 9, 0])
    """
    return e.elementwise(p.gcd, input, other)


@op(promote="match", refuses="bfc", inplace=True, samples=_integer_pairs, oracle=np.lcm,
    differentiable=False)
def lcm(input: Tensor, other: Tensor):
    """The least common multiple, not negative.

    >>> torch.lcm(torch.tensor([4, 6]), torch.tensor([6, 9]))
    tensor([12, 18])
    """
    a, b = e.broadcast(input, other)
    divisor = p.gcd(a, b)
    zero = e.like(0, a)
    return p.abs_(p.mul(p.idiv(a, p.where(p.eq(divisor, zero), e.like(1, a), divisor)), b))
