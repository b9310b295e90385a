"""Fourier transforms along one dimension: of complex numbers, of reals, and back to reals.

All are linear; the gradient of each is its adjoint, another one of them.
"""

from __future__ import annotations

import dataclasses

from flambeau.core import dtypes
from flambeau.core.symbolic import pinned
from flambeau.ir.graph import Primitive, Value, constant
from flambeau.ops.primitives.elementwise import convert, lt, mul, where
from flambeau.ops.primitives.elementwise import logical_and as both
from flambeau.ops.primitives.structure import expand, iota

__all__ = ["FOURIER", "FOURIER_PARTS", "Fourier", "fourier", "fourier_from_reals",
           "fourier_to_reals"]


@dataclasses.dataclass(frozen=True)
class Fourier:
    """A transform along dimension `dim`, of length n, times `scale`.

    Attributes:
        n: a plan is made for it: programs for sizes that vary have it as a condition.
        kind: "c2c" (of reals, too); "r2c" (reals, to the first n // 2 + 1 results); "c2r" (the
            first n // 2 + 1 of a Hermitian sequence, to n reals; imaginary parts that are 0 in one
            are not looked at).
        backward: the sign of the exponent is positive.
    """

    kind: str
    dim: int
    n: int
    backward: bool
    scale: float


def _shape(inputs, how: Fourier) -> tuple[int, ...]:
    shape = list(inputs[0].shape)
    shape[how.dim] = how.n // 2 + 1 if how.kind == "r2c" else how.n
    return tuple(shape)


def _infer_fourier(inputs, attrs):
    (how,), dtype = attrs, inputs[0].dtype
    return _shape(inputs, how), dtype.to_real() if how.kind == "c2r" else dtype.to_complex()


def _infer_parts(inputs, attrs):
    return _shape(inputs, attrs[0]), inputs[0].dtype


FOURIER = Primitive("fourier", "fourier", _infer_fourier)
FOURIER_PARTS = Primitive("fourier", "fourier", _infer_parts)
"""The same over real and imaginary parts: attributes (how, which part of the result)."""
FOURIER_PARTS.results = 2


def fourier(x: Value, dim: int, backward: bool = False, scale: float = 1.0) -> Value:
    """y[k] = scale * sum over j of x[j] exp(-+ 2 pi i j k / n)."""
    return FOURIER(x, attrs=(Fourier("c2c", dim, pinned(x.shape[dim]), backward, scale),))


def fourier_from_reals(x: Value, dim: int, backward: bool = False, scale: float = 1.0) -> Value:
    """The first half of the transform of reals, n // 2 + 1 numbers."""
    return FOURIER(x, attrs=(Fourier("r2c", dim, pinned(x.shape[dim]), backward, scale),))


def fourier_to_reals(x: Value, dim: int, n: int, backward: bool = True, scale: float = 1.0
                     ) -> Value:
    """The transform, of length n, of the Hermitian sequence that begins with the n // 2 + 1 numbers
    x."""
    return FOURIER(x, attrs=(Fourier("c2r", dim, pinned(n), backward, scale),))


def _inner(x: Value, how: Fourier, factor: float) -> Value:
    """`x` (the first half of a Hermitian sequence) times `factor` where the other half has a mirror
    image."""
    zero, last = (constant(size, dtypes.int64, number=False) for size in (0, (how.n + 1) // 2))
    place = iota(x.shape, how.dim)
    inside = both(lt(expand(zero, x.shape), place), lt(place, expand(last, x.shape)))
    real = x.dtype.to_real()
    weights = where(inside, expand(constant(factor, real, number=False), x.shape),
                    expand(constant(1.0, real, number=False), x.shape))
    return mul(x, convert(weights, x.dtype))


@FOURIER.vjp
def fourier_vjp(node, g):
    (how,) = node.attrs
    if how.kind == "c2c":
        return (fourier(g, how.dim, not how.backward, how.scale),)
    if how.kind == "r2c":
        g = _inner(g, how, 0.5)
        return (fourier_to_reals(g, how.dim, how.n, not how.backward, how.scale),)
    back = fourier_from_reals(g, how.dim, not how.backward, how.scale)
    return (_inner(back, how, 2.0),)
