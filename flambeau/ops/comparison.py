"""Comparison, logic, bits: the operations whose results are bool, and those on bits."""

from __future__ import annotations

import numpy as np

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.checks import one_dtype
from flambeau.ops.elementwise import abs, add, elementwise, like, mul, some_tensor, sub, truth
from flambeau.ops.primitives import convert
from flambeau.ops.record import Operand, Tensor, op
from flambeau.ops.samples import Arr, binary, sample, unary


# --------------------------------------------------------------------------- comparison
def _comparison(name: str, prim, oracle, doc: str, aliases=()):
    def body(input: Tensor, other: Operand):
        return elementwise(prim, input, other)

    body.__name__, body.__doc__ = name, doc
    body.__annotations__ = {"input": "Tensor", "other": "Operand"}
    return op(promote="match", inplace=True, samples=binary(), oracle=oracle, aliases=aliases,
              differentiable=False)(body)


eq = _comparison("eq", p.eq, np.equal, "input == other, elementwise.")
ne = _comparison("ne", p.ne, np.not_equal, "input != other.", ("not_equal",))
lt = _comparison("lt", p.lt, np.less, "input < other.", ("less",))
le = _comparison("le", p.le, np.less_equal, "input <= other.", ("less_equal",))
gt = _comparison("gt", p.gt, np.greater, "input > other.", ("greater",))
ge = _comparison("ge", p.ge, np.greater_equal, "input >= other.", ("greater_equal",))


@op(samples=unary(), differentiable=False, oracle=np.isnan)
def isnan(input: Tensor):
    """Is the element NaN?

    >>> torch.isnan(torch.tensor([1., float("inf"), float("nan")]))
    tensor([False, False,  True])
    """
    if input.dtype.is_complex:
        return p.logical_or(isnan(p.real(input)), isnan(p.imag(input)))
    return p.ne(input, input)


@op(samples=unary(), differentiable=False, oracle=np.isinf)
def isinf(input: Tensor):
    """Is the element infinite?

    >>> torch.isinf(torch.tensor([1., float("inf"), float("nan")]))
    tensor([False,  True, False])
    """
    if input.dtype.is_complex:
        return p.logical_or(isinf(p.real(input)), isinf(p.imag(input)))
    if input.dtype.is_integral:
        return p.ne(input, input)
    return p.eq(p.abs_(input), like(float("inf"), input))


@op(samples=unary(), differentiable=False, oracle=np.isfinite)
def isfinite(input: Tensor):
    """Is the element neither infinite nor NaN?

    >>> torch.isfinite(torch.tensor([1., float("inf"), float("nan")]))
    tensor([ True, False, False])
    """
    if input.dtype.is_complex:
        return p.logical_and(isfinite(p.real(input)), isfinite(p.imag(input)))
    if input.dtype.is_integral:
        return p.eq(input, input)
    return p.lt(p.abs_(input), like(float("inf"), input))


@op(promote=None, samples=binary(number=None), differentiable=False, oracle=np.isclose,
    check=one_dtype("{other} did not match {first}", 1, 0))
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
            equal_nan: bool = False):
    """|input - other| <= atol + rtol * |other|.

    >>> torch.isclose(torch.tensor([1., 1.]), torch.tensor([1. + 1e-7, 1.1]))
    tensor([ True, False])
    """
    if input.dtype is not other.dtype:
        raise RuntimeError(f"{input.dtype.scalar_name} did not match {other.dtype.scalar_name}")
    for name, bound in (("rtol", rtol), ("atol", atol)):
        if bound < 0:
            raise RuntimeError(f"{name} must be greater than or equal to zero, but got {bound}")
    same = eq(input, other)
    if equal_nan:
        same = p.logical_or(same, elementwise(p.logical_and, isnan(input), isnan(other)))
    if input.dtype.is_integral:
        input, other = convert(input, dtypes.float64), convert(other, dtypes.float64)
    gap = abs(sub(input, other))
    magnitude = abs(other)
    allowed = add(mul(magnitude, rtol), atol)
    near = elementwise(p.logical_and, isfinite(gap), le(gap, allowed))
    return elementwise(p.logical_or, same, near)


# --------------------------------------------------------------------------- logic, bits
def _logical(name: str, prim, oracle, doc: str):
    def body(input: Tensor, other: Tensor):
        return elementwise(prim, truth(input), truth(other))

    body.__name__, body.__doc__ = name, doc
    body.__annotations__ = {"input": "Tensor", "other": "Tensor"}
    return op(inplace=True, samples=binary(number=None), oracle=oracle,
              differentiable=False)(body)


logical_and = _logical("logical_and", p.logical_and, np.logical_and, "Both are non-zero.")
logical_or = _logical("logical_or", p.logical_or, np.logical_or, "At least one is non-zero.")
logical_xor = _logical("logical_xor", p.logical_xor, np.logical_xor, "Exactly one is non-zero.")


@op(inplace=True, samples=unary(), oracle=np.logical_not, differentiable=False)
def logical_not(input: Tensor):
    """The element is zero.

    >>> torch.logical_not(torch.tensor([True, False]))
    tensor([False,  True])
    >>> torch.logical_not(torch.tensor([0, 3]))
    tensor([ True, False])
    """
    return p.bitwise_not(truth(input))


def _integers_only(name: str, x: Value) -> None:
    if not x.dtype.is_integral:
        name = name.removeprefix("bitwise_left_").removeprefix("bitwise_right_")
        raise NotImplementedError(f'"{name}_cpu" not implemented for \'{x.dtype.scalar_name}\': '
                                  "bitwise operations take integer or bool tensors")


def _bitwise(name: str, prim, doc: str, shift: bool = False):
    def body(input: Operand, other: Operand):
        _integers_only(name, input)
        return elementwise(prim, input, other)

    body.__name__, body.__doc__ = name, doc
    body.__annotations__ = {"input": "Operand", "other": "Operand"}
    return op(promote="match", inplace=True, differentiable=False, samples=_bit_samples,
              check=some_tensor(name))(body)


def _bit_samples():
    yield sample(Arr((5,), "int64", 0, 9), Arr((5,), "int64", 0, 9))
    yield sample(Arr((3, 4), "int32", 0, 9), 3)


bitwise_and = _bitwise("bitwise_and", p.bitwise_and, "input & other, bit by bit.")
bitwise_or = _bitwise("bitwise_or", p.bitwise_or, "input | other, bit by bit.")
bitwise_xor = _bitwise("bitwise_xor", p.bitwise_xor, "input ^ other, bit by bit.")
bitwise_left_shift = _bitwise("bitwise_left_shift", p.shift_left, "input << other.")
bitwise_right_shift = _bitwise("bitwise_right_shift", p.shift_right, "input >> other.")


@op(inplace=True, differentiable=False,
    samples=lambda: iter([sample(Arr((5,), "int64", 0, 9)), sample(Arr((5,), "bool", 0, 2))]))
def bitwise_not(input: Tensor):
    """~input; for bool the logical negation.

    >>> torch.bitwise_not(torch.tensor([0, 5]))
    tensor([-1, -6])
    >>> torch.bitwise_not(torch.tensor([True, False]))
    tensor([False,  True])
    """
    _integers_only("bitwise_not", input)
    return p.bitwise_not(input)
