"""Complex numbers: their parts, views as pairs of reals, modulus and angle, conjugates.

Gradients follow PyTorch's convention: for a real loss L and a complex z = x + iy the gradient is
dL/dx + i dL/dy, the direction of steepest ascent.
"""

from __future__ import annotations

import numpy as np

from flambeau.core import dtypes
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.checks import vectors_alike
from flambeau.ops.record import Tensor, op, view_op
from flambeau.ops.samples import Arr, sample, unary

PI = 3.141592653589793


def _on(*shapes, dtype: str | None = "complex128"):
    return lambda: iter([sample(*(Arr(shape, dtype) for shape in shapes))])


# --------------------------------------------------------------------------- views
@view_op(name="_real_part", samples=_on((3, 4)), public=(), method=False, grad="RealBackward0")
def _real_part(input: Tensor):
    """The real parts, as a view of every other number of the memory."""
    return p.real(input)


@view_op(name="_imag_part", samples=_on((3, 4)), public=(), method=False, grad="ImagBackward0")
def _imag_part(input: Tensor):
    """The imaginary parts, as a view of every other number of the memory."""
    if not input.dtype.is_complex:
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")
    return p.imag(input)


@view_op(samples=_on((3, 4)), method=False)
def view_as_real(input: Tensor):
    """The memory of a complex tensor as reals: (...) -> (..., 2), with the parts last.

    >>> torch.view_as_real(torch.tensor([1 + 2j, 3 + 4j]))
    tensor([[1., 2.],
            [3., 4.]])
    """
    if not input.dtype.is_complex:
        raise RuntimeError("view_as_real is only supported for complex tensors")
    return p.view_as_real(input)


@view_op(samples=_on((3, 4, 2), dtype="float64"), method=False)
def view_as_complex(input: Tensor):
    """The memory of a float tensor (..., 2) as complex numbers (...): undoes view_as_real.

    >>> torch.view_as_complex(torch.tensor([[1., 2.], [3., 4.]]))
    tensor([1.+2.j, 3.+4.j])
    """
    if input.dtype not in (dtypes.float16, dtypes.float32, dtypes.float64):
        raise RuntimeError("view_as_complex is only supported for half, float and double tensors, "
                           f"but got a tensor of scalar type: {input.dtype.scalar_name}")
    if input.ndim == 0:
        raise RuntimeError("Input tensor must have one or more dimensions")
    if input.shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2")
    return p.view_as_complex(input)


@view_op(samples=lambda: iter([sample(Arr((6,), "complex128"), (2, 3), (4, 1), 1)]), public=(),
         method=False, grad="AsStridedBackward0")
def _as_strided_parts(input: Tensor, size: tuple, stride: tuple, storage_offset: int):
    """`as_strided` on the memory of a complex tensor as reals, or of reals as complex numbers."""
    if input.dtype.is_complex:
        return p.as_strided(p.view_as_real(input), size, stride, storage_offset)
    pairs = p.reshape(input, (input.numel // 2, 2))
    return p.as_strided(p.view_as_complex(pairs), size, stride, storage_offset)


# --------------------------------------------------------------------------- parts, conjugates
@op(name="_complex", samples=_on((3, 4), (4,), dtype="float64"), method=False, public=(),
    out=False, grad="ComplexBackward0", opmath=False)
def _complex(real: Tensor, imag: Tensor):
    """real + i * imag."""
    _two_floats(real, imag)
    return p.complex_(*e.broadcast(real, imag))


def _two_floats(a, b) -> None:
    able = (dtypes.float16, dtypes.float32, dtypes.float64)
    if a.dtype not in able or not b.dtype.is_floating_point:
        raise RuntimeError("Expected both inputs to be Half, Float or Double tensors but got "
                           f"{a.dtype.scalar_name} and {b.dtype.scalar_name}")
    if a.dtype is not b.dtype:
        raise RuntimeError(f"Expected object of scalar type {a.dtype.scalar_name} but got scalar "
                           f"type {b.dtype.scalar_name} for second argument")


@op(samples=_on((3, 4), (4,), dtype="float64"), method=False, opmath=False)
def polar(abs: Tensor, angle: Tensor):
    """abs * (cos(angle) + i * sin(angle)).

    >>> torch.polar(torch.tensor([1., 2.]), torch.tensor([0., torch.pi / 2]))
    tensor([ 1.0000e+00+0.j, -8.7423e-08+2.j])
    """
    _two_floats(abs, angle)
    size, turn = e.broadcast(abs, angle)
    return p.complex_(p.mul(size, p.cos(turn)), p.mul(size, p.sin(turn)))


@op(name="conj_physical", samples=_on((3, 4)), inplace=True, oracle=np.conj,
    grad="ConjPhysicalBackward0", opmath=False)
def conj_physical(input: Tensor):
    """The complex conjugate, as a copy."""
    return p.conj(input) if input.dtype.is_complex else p.stop_copy(input)


@op(promote="float", samples=unary(), oracle=np.angle)
def angle(input: Tensor):
    """The angle of the point in the complex plane, in (-pi, pi]; of real numbers 0 or pi.

    >>> torch.angle(torch.tensor([1 + 1j, -1 + 0j, 2j]))
    tensor([0.7854, 3.1416, 1.5708])
    """
    if input.dtype.is_complex:
        return p.atan2(p.imag(input), p.real(input))
    zero = e.like(0, input)
    side = p.where(p.lt(input, zero), e.like(PI, input), zero)
    return p.where(p.ne(input, input), input, side)


@angle.vjp
def angle_vjp(g, input):
    """Perpendicular to the number, and smaller with its size; 0 for real numbers and at 0."""
    if not input.dtype.is_complex:
        return p.zero_like(input)
    re, im = p.real(input), p.imag(input)
    size = p.abs_(input)
    zero = p.eq(size, p.zero_like(size))
    safe = p.where(zero, p.filled(1, size), size)
    scale = p.where(zero, p.zero_like(size), p.div(p.div(g, safe), safe))
    return p.complex_(p.neg(p.mul(scale, im)), p.mul(scale, re))


@op(samples=unary(), inplace=True, opmath=False)
def sgn(input: Tensor):
    """input / |input|, and 0 at 0; for real numbers `sign`.

    >>> torch.sgn(torch.tensor([3 + 4j, 0j]))
    tensor([0.6000+0.8000j, 0.0000+0.0000j])
    """
    return p.sign(input)


@op(samples=_on((3, 4)), differentiable=False, oracle=np.isreal)
def isreal(input: Tensor):
    """Is the imaginary part 0?

    >>> torch.isreal(torch.tensor([1 + 0j, 1j]))
    tensor([ True, False])
    """
    if not input.dtype.is_complex:
        return p.eq(p.zero_like(input), p.zero_like(input))
    part = p.imag(input)
    return p.eq(part, p.zero_like(part))


@op(samples=_on((4,), (4,)), oracle=np.vdot, check=vectors_alike)
def vdot(input: Tensor, other: Tensor):
    """The sum of conj(input) * other over two vectors.

    >>> torch.vdot(torch.tensor([1 + 1j, 2j]), torch.tensor([1 + 0j, 1j]))
    tensor(3.-1.j)
    """
    if input.ndim != 1 or other.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {input.ndim}D and {other.ndim}D tensors")
    if input.shape != other.shape:
        raise RuntimeError(f"inconsistent tensor size, expected tensor [{input.shape[0]}] and src "
                           f"[{other.shape[0]}] to have the same number of elements, but got "
                           f"{input.shape[0]} and {other.shape[0]} elements respectively")
    return p.reduce_sum(p.mul(p.conj(input), other), (0,))
