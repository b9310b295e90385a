"""Elementwise arithmetic, mathematics, extrema, selection, conversion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.core.shapes import broadcast_shapes, check_expand
from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import (
    Index,
    Number,
    Operand,
    Tensor,
    dtypes_default,
    lift,
    op,
)
from flambeau.ops.samples import Arr, binary, sample, unary


def broadcast(*values: Value) -> list[Value]:
    """Values expanded to their common shape."""
    shape = broadcast_shapes(*(value.shape for value in values))
    return [p.expand(value, shape) for value in values]


def elementwise(prim, *values: Value) -> Value:
    """Apply an elementwise primitive after broadcasting."""
    return prim(*broadcast(*values))


def like(value: float, x: Value) -> Value:
    """A constant with the dtype of `x`, for use beside it."""
    return p.filled(value, x)


def in_double(function, x: Value) -> Value:
    """function(x), computed in double if `x` is single: where series and differences lose digits,
    a single result is then right to the last one."""
    if x.dtype is not dtypes.float32:
        return function(x)
    return convert(function(convert(x, dtypes.float64)), x.dtype)


def some_tensor(name: str):
    """A check that refuses two numbers."""

    def check(a: Value, b: Value) -> None:
        if lift(a).number and lift(b).number:
            raise TypeError(f"{name}() needs a Tensor: both its operands are numbers")

    return check


def _by_other(name: str, number: int = 0, tensor: int = 1):
    """How the node is called if the other operand is a number, or a tensor."""

    def grad(call) -> str:
        tensors = len(call.avals) > 1 and not isinstance(call.avals[1], type)
        return f"{name}{tensor if tensors else number}"

    return grad


# --------------------------------------------------------------------------- arithmetic
def scaled(x: Value, factor: Value) -> Value:
    """factor * x, or `x` itself if the factor is the number 1."""
    factor = lift(factor)
    if factor.prim.name == "constant" and factor.attrs[0] == 1:
        return x
    return elementwise(p.mul, x, convert(factor, x.dtype))


def _check_alpha(a: Value, b: Value, alpha: Value) -> None:
    """A fraction times integers would be cut off."""
    integral = a.dtype.is_integral and b.dtype.is_integral
    if integral and alpha is not None and alpha.dtype.kind in "fc":
        raise RuntimeError("For integral input tensors, argument alpha must not be a floating "
                           "point number.")


@op(promote="match", inplace=True, grad="AddBackward0", samples=binary(), oracle=np.add,
    check=_check_alpha)
def add(input: Operand, other: Operand, *, alpha: Number = 1):
    """input + alpha * other, with broadcasting and type promotion.

    >>> torch.add(torch.tensor([1, 2]), torch.tensor([10, 20]))
    tensor([11, 22])
    >>> torch.add(torch.tensor([1., 2.]), 1, alpha=10)
    tensor([11., 12.])
    """
    return elementwise(p.add, input, scaled(other, alpha))


def _no_bool_difference(a: Value, b: Value, alpha: Value) -> None:
    if a.dtype.kind == b.dtype.kind == "b":
        raise RuntimeError("Subtraction, the `-` operator, with two bool tensors is not supported. "
                           "Use the `^` or `logical_xor()` operator instead.")
    if "b" in (a.dtype.kind, b.dtype.kind):
        raise RuntimeError("Subtraction, the `-` operator, with a bool tensor is not supported. If "
                           "you are trying to invert a mask, use the `~` or `logical_not()` "
                           "operator instead.")
    _check_alpha(a, b, alpha)


@op(promote="match", inplace=True, grad="SubBackward0", samples=binary(), oracle=np.subtract,
    aliases=("subtract",), check=_no_bool_difference)
def sub(input: Operand, other: Operand, *, alpha: Number = 1):
    """input - alpha * other.

    >>> torch.sub(torch.tensor([5, 7]), torch.tensor([1, 2]))
    tensor([4, 5])
    >>> torch.sub(torch.tensor([5., 7.]), 1, alpha=2)
    tensor([3., 5.])
    """
    return elementwise(p.sub, input, scaled(other, alpha))


@op(promote="match", grad=_by_other("RsubBackward", 1, 0), samples=binary(), method=False,
    check=_no_bool_difference)
def rsub(input: Tensor, other: Operand, *, alpha: Number = 1):
    """other - alpha * input.

    >>> torch.rsub(torch.tensor([1., 2.]), 10)
    tensor([9., 8.])
    """
    return elementwise(p.sub, other, scaled(input, alpha))


@op(promote="match", inplace=True, grad="MulBackward0", samples=binary(),
    oracle=np.multiply, aliases=("multiply",), exact_numbers=True, float8=True)
def mul(input: Operand, other: Operand):
    """input * other.

    >>> torch.mul(torch.tensor([[1.], [2.]]), torch.tensor([10., 20., 30.]))
    tensor([[10., 20., 30.],
            [20., 40., 60.]])
    """
    return elementwise(p.mul, input, other)


def _division(input: Value, other: Value, rounding_mode: str | None) -> str:
    return "float" if rounding_mode is None else "match"


@op(promote=_division, inplace=True, grad="DivBackward0", samples=binary(0.5, 2.0),
    aliases=("divide",), exact_numbers=True)
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None):
    """input / other; `rounding_mode` None (true division), "trunc" or "floor".

    >>> torch.div(torch.tensor([7., -7.]), 2)
    tensor([ 3.5000, -3.5000])
    >>> torch.div(torch.tensor([7, -7]), 2, rounding_mode="floor")
    tensor([ 3, -4])
    """
    if rounding_mode is None:
        return true_divide(input, other)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode != "trunc":
        raise RuntimeError("div expected rounding_mode to be one of None, 'trunc', or 'floor' but "
                           f"found '{rounding_mode}'")
    return _divide_truncating(input, other)


@op(promote="float", inplace=True, grad="DivBackward0", samples=binary(0.5, 2.0),
    oracle=np.true_divide, exact_numbers=True)
def true_divide(input: Operand, other: Operand):
    """input / other in floating point, also for integers.

    >>> torch.true_divide(torch.tensor([1, 3]), 2)
    tensor([0.5000, 1.5000])
    """
    return elementwise(p.div, input, other)


@op(promote="match", method=False, public=(), out=False, samples=binary(0.5, 2.0))
def _divide_truncating(input: Operand, other: Operand):
    """input / other rounded towards zero."""
    a, b = broadcast(input, other)
    return p.trunc(p.div(a, b)) if a.dtype.kind == "f" else p.idiv(a, b)


@op(promote="match", inplace=True, refuses="b", samples=binary(0.5, 2.0, number=None),
    no_derivative=True, exact_numbers=True)
def floor_divide(input: Operand, other: Operand):
    """input / other rounded down.

    >>> torch.floor_divide(torch.tensor([7, -7]), 2)
    tensor([ 3, -4])
    """
    a, b = broadcast(input, other)
    if a.dtype.kind in "ub":
        return p.idiv(a, b)
    if a.dtype.kind == "i":
        quotient, rest = p.idiv(a, b), p.irem(a, b)
        down = p.logical_and(p.ne(rest, like(0, rest)), _signs_differ(rest, b))
        return p.where(down, p.sub(quotient, like(1, a)), quotient)
    rest = p.fmod(a, b)
    quotient = p.div(p.sub(a, rest), b)
    down = p.logical_and(p.ne(rest, like(0, rest)), _signs_differ(rest, b))
    quotient = p.where(down, p.sub(quotient, like(1, a)), quotient)
    whole = p.floor(quotient)
    whole = p.where(p.gt(p.sub(quotient, whole), like(0.5, a)), p.add(whole, like(1, a)), whole)
    return p.where(p.eq(b, like(0, b)), p.div(a, b), whole)


def _signs_differ(a: Value, b: Value) -> Value:
    return p.ne(p.lt(a, like(0, a)), p.lt(b, like(0, b)))


@op(promote="match", inplace=True, refuses="b", samples=binary(0.5, 2.0), oracle=np.remainder,
    grad=_by_other("RemainderBackward"))
def remainder(input: Operand, other: Operand):
    """input - other * floor(input / other): the remainder with the divisor's sign.

    >>> torch.remainder(torch.tensor([7, -7]), 3)
    tensor([1, 2])
    """
    a, b = broadcast(input, other)
    if a.dtype.kind in "ub":
        return p.irem(a, b)
    rest = p.irem(a, b) if a.dtype.kind == "i" else p.fmod(a, b)
    wrong = p.logical_and(p.ne(rest, like(0, rest)), _signs_differ(rest, b))
    return p.where(wrong, p.add(rest, b), rest)


@remainder.vjp
def remainder_vjp(g, input, other):
    quotient = p.floor(elementwise(p.div, input, other))
    return reduced(g, input), reduced(p.neg(p.mul(g, quotient)), other)


def reduced(g: Value, operand: Value) -> Value:
    """A gradient summed back to the shape of a broadcast operand."""
    return p.sum_to_shape(g, operand.shape)


@op(promote="match", inplace=True, refuses="b", samples=binary(0.5, 2.0), oracle=np.fmod,
    grad=_by_other("FmodBackward"))
def fmod(input: Tensor, other: Operand):
    """The remainder of input / other with the dividend's sign, as C's fmod.

    >>> torch.fmod(torch.tensor([7, -7]), 3)
    tensor([ 1, -1])
    """
    a, b = broadcast(input, other)
    return p.fmod(a, b) if a.dtype.kind == "f" else p.irem(a, b)


SMALL_POWERS = (0.5, 2, 3, -0.5, -1)  # as PyTorch: roots, products and inverses


def _some_power(a: Value, b: Value) -> None:
    if lift(a).number and lift(b).number:
        raise TypeError("pow() needs a Tensor: both base and exponent are numbers")


def _negative_power(index: int, call, args) -> Exception:
    return RuntimeError("Integers to negative integer powers are not allowed. Convert the base "
                        "with .to(torch.float32) first")


@op(promote="match", inplace=True, refuses="b", grad=_by_other("PowBackward"),
    samples=binary(0.5, 2.0, number=3), oracle=np.power, index_error=_negative_power,
    check=_some_power, fixed={"exponent": SMALL_POWERS})
def pow(input: Operand, exponent: Operand):
    """input ** exponent.

    >>> torch.pow(torch.tensor([1., 2., 3.]), 2)
    tensor([1., 4., 9.])
    >>> torch.pow(2, torch.tensor([1, 2, 10]))
    tensor([   2,    4, 1024])
    """
    number = exponent if isinstance(exponent, Value) else lift(exponent)
    while number.prim.name == "cast":
        (number,) = number.inputs
    fixed = number.attrs[0] if number.prim.name == "constant" else None
    if input.dtype.kind in "iub":
        if fixed in (2, 3) and input.dtype.kind != "b":
            return _small_power(input, fixed)
        if input.dtype.kind != "b" and fixed is not None and fixed < 0:
            raise _negative_power(0, None, None)
        if input.dtype.kind == "i" and exponent.inputs and exponent.inputs[0].number:
            exponent = _not_negative(exponent, input)
        return _integer_power(*broadcast(input, exponent))
    if fixed in SMALL_POWERS:
        return _small_power(input, fixed)
    return elementwise(p.pow_, input, exponent)


def _small_power(x: Value, exponent: float) -> Value:
    if exponent < 0:
        return p.div(like(1, x), _small_power(x, -exponent))
    if exponent == 0.5:
        return p.sqrt(x)
    result = x
    for _ in range(int(exponent) - 1):
        result = p.mul(result, x)
    return result


def _not_negative(exponent: Value, base: Value) -> Value:
    """The exponent; negative ones are refused."""
    negative = p.lt(exponent, p.zero_like(exponent))
    return p.add(p.expand(exponent, base.shape), refusing(negative, 0, base.dtype, base.shape))


def refusing(wrong: Value, number: float, dtype: DType, shape: Sequence[int]) -> Value:
    """`number` for each element; where `wrong`, an index is out of range: position 1 of a table of
    one entry. The kernel's own status reports it, and the op's `index_error` says what it means."""
    table = convert(p.iota((1,), 0), dtype)
    if number:
        table = p.add(table, like(number, table))
    return p.lookup(table, [p.expand(convert(wrong, dtypes.int64), shape)], shape)


def _integer_power(base: Value, exponent: Value) -> Value:
    """By squaring; a negative exponent gives 0 but for bases 1 and -1."""
    if base.dtype.kind == "b":
        return p.where(exponent, base, like(True, base))
    result, square, rest = like(1, base), base, exponent
    one, zero = like(1, base), like(0, base)
    for _ in range(min(base.dtype.itemsize * 8, 6 if base.dtype.itemsize == 8 else 5)):
        odd = p.ne(p.bitwise_and(rest, one), zero)
        result = p.where(odd, p.mul(result, square), result)
        square, rest = p.mul(square, square), p.shift_right(rest, one)
    if base.dtype.kind == "u":
        return result
    even = p.eq(p.bitwise_and(exponent, one), zero)
    inverse = p.where(p.eq(base, one), one, p.where(
        p.eq(base, p.neg(one)), p.where(even, one, p.neg(one)), zero))
    return p.where(p.lt(exponent, zero), inverse, result)


@op(inplace=True, samples=unary(), oracle=np.negative, aliases=("negative",))
def neg(input: Tensor):
    """The negative of each element.

    >>> torch.neg(torch.tensor([1, -2]))
    tensor([-1,  2])
    """
    if input.dtype.kind == "b":
        raise RuntimeError("Negation, the `-` operator, on a bool tensor is not supported. If you "
                           "are trying to invert a mask, use the `~` or `logical_not()` operator "
                           "instead.")
    return p.neg(input)


@op(inplace=True, refuses="b", samples=unary(), oracle=np.abs, aliases=("absolute",))
def abs(input: Tensor):
    """The absolute value.

    >>> torch.abs(torch.tensor([-1., 2., -3.]))
    tensor([1., 2., 3.])
    >>> torch.abs(torch.tensor([3 + 4j]))
    tensor([5.])
    """
    return p.abs_(input)


@op(inplace=True, samples=unary(), oracle=np.sign)
def sign(input: Tensor):
    """-1, 0 or 1.

    >>> torch.sign(torch.tensor([-2., 0., 3.]))
    tensor([-1.,  0.,  1.])
    """
    if input.dtype.is_complex:
        raise NotImplementedError("Unlike NumPy, torch.sign is not intended to support complex "
                                  "numbers. Please use torch.sgn instead.")
    return p.sign(input)


@op(promote="float", inplace=True, samples=unary(0.5, 2.0), oracle=np.reciprocal)
def reciprocal(input: Tensor):
    """1 / input.

    >>> torch.reciprocal(torch.tensor([1., 4., 0.]))
    tensor([1.0000, 0.2500,    inf])
    """
    return p.div(like(1, input), input)


@reciprocal.vjp
def reciprocal_vjp(g, output):
    return p.neg(p.mul(g, p.conj(p.mul(output, output))))


@op(inplace=True, samples=unary(), oracle=np.square, grad="PowBackward0")
def square(input: Tensor):
    """input * input.

    >>> torch.square(torch.tensor([-3., 2.]))
    tensor([9., 4.])
    """
    if input.dtype.kind == "b":
        input = convert(input, dtypes.int64)
    return p.mul(input, input)


# --------------------------------------------------------------------------- maths
def _maths(name: str, prim, low: float, high: float, oracle, doc: str, **options):
    """A floating function of one tensor; integers become the default floating dtype."""

    def body(input: Tensor):
        return prim(input)

    body.__name__, body.__doc__ = name, doc
    body.__annotations__ = {"input": "Tensor"}
    return op(promote="float", inplace=True, samples=unary(low, high), oracle=oracle,
              **options)(body)


exp = _maths("exp", p.exp, -3, 3, np.exp, "e to the power of each element.")
exp2 = _maths("exp2", p.exp2, -3, 3, np.exp2, "2 to the power of each element.")
expm1 = _maths("expm1", p.expm1, -3, 3, np.expm1, "exp(input) - 1, accurate near 0.")
log = _maths("log", p.log, 0.1, 5, np.log, "The natural logarithm.")
log2 = _maths("log2", p.log2, 0.1, 5, np.log2, "The logarithm to base 2.")
log10 = _maths("log10", p.log10, 0.1, 5, np.log10, "The logarithm to base 10.")
log1p = _maths("log1p", p.log1p, -0.9, 5, np.log1p, "log(1 + input), accurate near 0.",
               grad="Log1PBackward0")
sqrt = _maths("sqrt", p.sqrt, 0.1, 5, np.sqrt, "The square root.")
sin = _maths("sin", p.sin, -6, 6, np.sin, "The sine, of radians.")
cos = _maths("cos", p.cos, -6, 6, np.cos, "The cosine, of radians.")
tan = _maths("tan", p.tan, -1.4, 1.4, np.tan, "The tangent, of radians.")
asin = _maths("asin", p.asin, -0.9, 0.9, np.arcsin, "The inverse sine.", aliases=("arcsin",))
acos = _maths("acos", p.acos, -0.9, 0.9, np.arccos, "The inverse cosine.", aliases=("arccos",))
atan = _maths("atan", p.atan, -3, 3, np.arctan, "The inverse tangent.", aliases=("arctan",))
sinh = _maths("sinh", p.sinh, -3, 3, np.sinh, "The hyperbolic sine.")
cosh = _maths("cosh", p.cosh, -3, 3, np.cosh, "The hyperbolic cosine.")
tanh = _maths("tanh", p.tanh, -3, 3, np.tanh, "The hyperbolic tangent.")
asinh = _maths("asinh", p.asinh, -3, 3, np.arcsinh, "The inverse hyperbolic sine.",
               aliases=("arcsinh",))
acosh = _maths("acosh", p.acosh, 1.1, 5, np.arccosh, "The inverse hyperbolic cosine.",
               aliases=("arccosh",))
atanh = _maths("atanh", p.atanh, -0.9, 0.9, np.arctanh, "The inverse hyperbolic tangent.",
               aliases=("arctanh",))
erf = _maths("erf", p.erf, -3, 3, None, "The error function.")
erfc = _maths("erfc", p.erfc, -3, 3, None, "1 - erf(input), accurate for large inputs.")
erfinv = _maths("erfinv", p.erfinv, -0.9, 0.9, None, "The inverse error function.")
lgamma = _maths("lgamma", p.lgamma, 0.3, 5, None, "The logarithm of |gamma(input)|.")
digamma = _maths("digamma", p.digamma, 0.3, 5, None, "The derivative of lgamma.")
sigmoid = _maths("sigmoid", p.sigmoid, -4, 4, None, "1 / (1 + exp(-input)).")


@op(promote="float", inplace=True, samples=unary(0.1, 5))
def rsqrt(input: Tensor):
    """1 / sqrt(input).

    >>> torch.rsqrt(torch.tensor([1., 4., 0.]))
    tensor([1.0000, 0.5000,    inf])
    """
    return p.div(like(1, input), p.sqrt(input))


@rsqrt.vjp
def rsqrt_vjp(g, output):
    cube = p.mul(p.mul(output, output), output)
    return p.mul(g, p.conj(p.mul(like(-0.5, cube), cube)))


@op(promote="float", inplace=True, samples=binary(0.5, 2.0, number=None), oracle=np.arctan2,
    aliases=("arctan2",))
def atan2(input: Tensor, other: Tensor):
    """The angle of the point (other, input), in radians.

    >>> torch.atan2(torch.tensor([1., -1.]), torch.tensor([-1., -1.]))
    tensor([ 2.3562, -2.3562])
    """
    return elementwise(p.atan2, input, other)


# --------------------------------------------------------------------------- extrema, clamping
@op(promote="match", samples=binary(number=None), oracle=np.maximum)
def maximum(input: Tensor, other: Tensor):
    """The larger of two; NaN wins.

    >>> torch.maximum(torch.tensor([1., 5., float("nan")]), torch.tensor([3., 2., 0.]))
    tensor([3., 5., nan])
    """
    return elementwise(p.maximum, input, other)


@op(promote="match", samples=binary(number=None), oracle=np.minimum)
def minimum(input: Tensor, other: Tensor):
    """The smaller of two; NaN wins.

    >>> torch.minimum(torch.tensor([1., 5., float("nan")]), torch.tensor([3., 2., 0.]))
    tensor([1., 2., nan])
    """
    return elementwise(p.minimum, input, other)


def _clamp_node(call) -> str:
    tensors = [a for a in call.avals[1:] if not isinstance(a, type)]
    return "ClampBackward0" if tensors else "ClampBackward1"


def _clamp_samples():
    yield sample(Arr((3, 4)), -0.5, 0.5)
    yield sample(Arr((17,)), min=-0.5)
    yield sample(Arr((0, 2)), max=0.5)
    yield sample(Arr((3, 4)), Arr((4,), None, -1, 0), Arr((3, 1), None, 0, 1))


@op(promote="match", inplace=True, refuses="b", samples=_clamp_samples, aliases=("clip",),
    grad=_clamp_node)
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None):
    """input limited to [min, max]; where min > max the result is max.

    >>> torch.clamp(torch.tensor([-1., 0.5, 3.]), min=0, max=1)
    tensor([0.0000, 0.5000, 1.0000])
    """
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    result = input
    if min is not None:
        result = elementwise(p.maximum, result, convert(lift(min), result.dtype))
    if max is not None:
        result = elementwise(p.minimum, result, convert(lift(max), result.dtype))
    return result


@clamp.vjp
def clamp_vjp(g, input, min, max):
    """The bounds themselves belong to the input."""
    shape, inside, low = g.shape, None, None
    x = p.expand(input, shape)
    if min is not None:
        low = p.expand(convert(lift(min), x.dtype), shape)
        inside = p.ge(x, low)
    if max is not None:
        high = p.expand(convert(lift(max), x.dtype), shape)
        below = p.le(x, high)
        inside = below if inside is None else p.logical_and(inside, below)
    zero = like(0, g)
    grads = [reduced(p.where(inside, g, zero), input)]
    if min is not None:
        active = p.lt(x, low)
        if max is not None:
            active = p.logical_and(active, p.lt(low, high))
        grads.append(reduced(p.where(active, g, zero), lift(min)))
    else:
        grads.append(None)
    if max is not None:
        active = p.gt(x, high)
        if min is not None:
            active = p.logical_or(active, p.gt(low, high))
        grads.append(reduced(p.where(active, g, zero), lift(max)))
    else:
        grads.append(None)
    return grads


@op(promote="match", inplace=True, refuses="c",
    samples=lambda: iter([sample(Arr((3, 4)), 0.5), sample(Arr((3, 4)), Arr((4,)))]))
def clamp_min(input: Tensor, min: Operand):
    """max(input, min).

    >>> torch.clamp_min(torch.tensor([-1., 0.5, 3.]), 0)
    tensor([0.0000, 0.5000, 3.0000])
    """
    return elementwise(p.maximum, input, convert(lift(min), input.dtype))


@clamp_min.vjp
def clamp_min_vjp(g, input, min):
    return _one_sided(g, input, lift(min), p.ge)


@op(promote="match", inplace=True, refuses="c",
    samples=lambda: iter([sample(Arr((3, 4)), 0.5), sample(Arr((3, 4)), Arr((4,)))]))
def clamp_max(input: Tensor, max: Operand):
    """min(input, max).

    >>> torch.clamp_max(torch.tensor([-1., 0.5, 3.]), 1)
    tensor([-1.0000,  0.5000,  1.0000])
    """
    return elementwise(p.minimum, input, convert(lift(max), input.dtype))


@clamp_max.vjp
def clamp_max_vjp(g, input, max):
    return _one_sided(g, input, lift(max), p.le)


def _one_sided(g: Value, input: Value, bound: Value, inside) -> tuple[Value, Value]:
    """The gradient belongs to the input where it lies inside or on the bound."""
    kept = inside(*broadcast(input, convert(bound, input.dtype)))
    zero = like(0, g)
    return reduced(p.where(kept, g, zero), input), reduced(p.where(kept, zero, g), bound)


# --------------------------------------------------------------------------- selection
def truth(x: Value) -> Value:
    """Is the element not zero?"""
    return convert(x, dtypes.bool_)


def _where_samples():
    yield sample(Arr((3, 4), "bool", 0, 2), Arr((3, 4)), Arr((4,)))
    yield sample(Arr((3, 1), "bool", 0, 2), Arr((3, 4)), 0.5)
    yield sample(Arr((), "bool", 0, 2), Arr(()), Arr(()))


@op(promote="match", samples=_where_samples, opmath=False, method=False)
def where(condition: Index, input: Operand, other: Operand):
    """input where condition, other elsewhere."""
    if condition.dtype not in (dtypes.bool_, dtypes.uint8):
        raise RuntimeError("where expected condition to be a boolean tensor, but got a tensor with "
                           f"dtype {condition.dtype!r}")
    condition, a, b = broadcast(truth(condition), input, other)
    return p.where(condition, a, b)


def _masked_samples():
    yield sample(Arr((3, 4)), Arr((3, 4), "bool", 0, 2), 0.5)
    yield sample(Arr((2, 3, 5)), Arr((3, 1), "bool", 0, 2), 2)


LARGEST_HALF = 65504.0
"""The largest finite number of float16."""


def fitted(value: Value, dtype: DType) -> Value:
    """A value in the dtype of a tensor that it is written to. A number beyond what integers of that
    dtype or float16 hold is refused: the op says `index_error=not_fitting`."""
    if value.number and dtype is dtypes.float16 and value.dtype.kind in "if":
        wide = convert(value, dtypes.float32)
        size = p.abs_(wide)
        beyond = p.logical_and(p.gt(size, like(LARGEST_HALF, size)),
                               p.lt(size, like(math.inf, size)))
        return convert(p.add(wide, refusing(beyond, 0, wide.dtype, ())), dtype)
    if not value.number or dtype.kind not in "iu" or value.dtype.kind not in "if":
        return convert(value, dtype)
    largest = 2 ** (8 * dtype.itemsize - (dtype.kind == "i")) - 1
    if value.dtype.kind == "i" and dtype.itemsize == 8:
        return convert(value, dtype)
    least = -largest - (dtype.kind == "i")  # what has no sign may wrap around
    inside = p.logical_and(p.le(value, like(largest, value)), p.ge(value, like(least, value)))
    return p.add(convert(value, dtype), refusing(p.bitwise_not(inside), 0, dtype, ()))


def not_fitting(index: int, call: object, args: Sequence) -> Exception:
    """The error of a number that `fitted` refuses."""
    dtype = next(a[1] for a in call.avals if not isinstance(a, type))
    return RuntimeError(f"value cannot be converted to type {dtype.name}_t without overflow")


@op(inplace=True, samples=_masked_samples, opmath=False, index_error=not_fitting)
def masked_fill(input: Tensor, mask: Index, value: Operand):
    """input with `value` where mask is True.

    >>> torch.masked_fill(torch.tensor([1., 2., 3.]), torch.tensor([False, True, False]), -1)
    tensor([ 1., -1.,  3.])
    """
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError("masked_fill_ only supports boolean masks, but got mask with dtype "
                           f"{mask.dtype!r}")
    value = lift(value)
    if value.ndim:
        raise RuntimeError("masked_fill_ only supports a 0-dimensional value tensor, but got "
                           f"tensor with {value.ndim} dimension(s).")
    no_part_lost(value, input)
    mask, x, fill = broadcast(mask, input, fitted(value, input.dtype))
    return p.where(mask, fill, x)


def no_part_lost(value: Value, input: Value) -> None:
    """Raise if a complex value would be stored in a real tensor."""
    if value.dtype.is_complex and not input.dtype.is_complex:
        raise RuntimeError(f"value cannot be converted to type {input.dtype.scalar_name.lower()} "
                           "without overflow: it is complex, the tensor is not")


def _addc_samples():
    yield sample(Arr((3, 4)), Arr((3, 4), None, 0.5, 2), Arr((4,), None, 0.5, 2))
    yield sample(Arr((5,)), Arr((5,), None, 0.5, 2), Arr((5,), None, 0.5, 2), value=0.5)


@op(promote="match", inplace=True, refuses="b", samples=_addc_samples)
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1):
    """input + value * tensor1 * tensor2.

    >>> torch.addcmul(torch.ones(2), torch.tensor([1., 2.]), torch.tensor([3., 4.]), value=10)
    tensor([31., 81.])
    """
    product = scaled(elementwise(p.mul, tensor1, tensor2), value)
    return elementwise(p.add, input, product)


def _no_integer_division(input: Value, tensor1: Value, tensor2: Value, *rest: object) -> None:
    if tensor1.dtype.is_integral and tensor2.dtype.is_integral:
        raise RuntimeError("Integer division with addcdiv is no longer supported, and in a future "
                           "release addcdiv will perform a true division of tensor1 and tensor2. "
                           "Convert the tensors with .to(torch.float32), or use div and add.")


@op(promote="match", inplace=True, samples=_addc_samples, check=_no_integer_division)
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1):
    """input + value * tensor1 / tensor2.

    >>> torch.addcdiv(torch.zeros(2), torch.tensor([1., 6.]), torch.tensor([2., 3.]), value=10)
    tensor([ 5., 20.])
    """
    return elementwise(p.add, input, scaled(elementwise(p.div, tensor1, tensor2), value))


# --------------------------------------------------------------------------- copies, conversion
@op(samples=unary(), opmath=False)
def clone(input: Tensor):
    """A copy with its own memory."""
    return p.stop_copy(input)


@op(opmath=False, method=False, public=(), out=False, grad="ToCopyBackward0",
    samples=lambda: iter([sample(Arr((3, 4)), dtypes.float64)]))
def _to_dtype(input: Tensor, dtype: object):
    """The input converted to `dtype`, as a copy."""
    return convert(input, dtype) if input.dtype is not dtype else p.stop_copy(input)


@op(opmath=False, method=False, public=(), out=False, inplace=True, grad="CopyBackwards",
    samples=lambda: iter([sample(Arr((3, 4)), Arr((4,)))]))
def copy(input: Tensor, src: Tensor, non_blocking: bool = False):
    """src broadcast to the shape of input and converted to its dtype."""
    if broadcast_shapes(input.shape, src.shape) != tuple(input.shape):
        check_expand(src.shape, input.shape)
    return p.expand(convert(src, input.dtype), input.shape)


@op(opmath=False, method=False, out=False, inplace=True, index_error=not_fitting,
    samples=lambda: iter([sample(Arr((3, 4)), 2.0)]))
def fill(input: Tensor, value: Operand):
    """A tensor like input in which every element is value.

    >>> torch.fill(torch.zeros(2), 7)
    tensor([7., 7.])
    """
    value = lift(value)
    if value.ndim:
        raise RuntimeError("fill_ only supports 0-dimension value tensor but got tensor with "
                           f"{value.ndim} dimensions.")
    no_part_lost(value, input)
    return p.expand(fitted(value, input.dtype), input.shape)


@op(opmath=False, method=False, public=(), out=False, inplace=True, samples=unary())
def zero(input: Tensor):
    """A tensor like input in which every element is 0."""
    return like(0, input)


def default_float(x: Value) -> Value:
    """Integers as the default floating dtype."""
    return convert(x, dtypes_default()) if x.dtype.is_integral else x
