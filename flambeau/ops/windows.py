"""Window functions: what `torch.hann_window` and `torch.signal.windows` are made of."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import bessel
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Number, lift, op
from flambeau.ops.samples import sample


def _samples():
    f = dtypes.float64
    yield sample(0.0, 0.7, 9, "cosines", (0.5, 0.3, 0.2), 0.0, f)
    yield sample(0.1, 0.2, 7, "sine", (), 0.0, f)
    yield sample(-1.0, 0.25, 9, "triangle", (), 0.0, dtypes.float32)
    yield sample(-1.0, 0.25, 9, "exponential", (), 0.0, f)
    yield sample(-1.0, 0.25, 9, "gaussian", (), 0.0, f)
    yield sample(-3.0, 0.5, 13, "kaiser", (), 3.0, f)


@op(name="_window", opmath=False, method=False, public=(), out=False, differentiable=False,
    samples=_samples)
def _window(start: Number, step: Number, count: int, shape: str, coefficients: tuple, beta: Number,
            dtype: object):
    """A function of x = start + i * step for i < count, computed in double precision.

    Args:
        shape: "cosines" (the sum over j of (-1)^j coefficients[j] cos(j x)), "sine", "triangle"
            (1 - |x|), "exponential" (of -|x|), "gaussian" (exp(-x^2)) or "kaiser"
            (I0(sqrt(beta^2 - x^2)) / I0(beta)).
    """
    def number(value: Value) -> Value:
        return p.expand(convert(lift(value), dtypes.float64), (count,))

    i = convert(p.iota((count,), 0), dtypes.float64)
    x = p.add(number(start), p.mul(i, number(step)))
    return convert(_RULES[shape](x, coefficients, number(beta)), dtype)


def _cosines(x: Value, coefficients: tuple, beta: Value) -> Value:
    total = p.filled(coefficients[0], x)
    for j, each in enumerate(coefficients[1:], 1):
        wave = p.cos(p.mul(x, p.filled(float(j), x)))
        total = p.add(total, p.mul(wave, p.filled(-each if j % 2 else each, x)))
    return total


def _sine(x: Value, coefficients: tuple, beta: Value) -> Value:
    return p.sin(x)


def _triangle(x: Value, coefficients: tuple, beta: Value) -> Value:
    return p.sub(p.filled(1.0, x), p.abs_(x))


def _exponential(x: Value, coefficients: tuple, beta: Value) -> Value:
    return p.exp(p.neg(p.abs_(x)))


def _gaussian(x: Value, coefficients: tuple, beta: Value) -> Value:
    return p.exp(p.neg(p.mul(x, x)))


def _kaiser(x: Value, coefficients: tuple, beta: Value) -> Value:
    inside = p.maximum(p.sub(p.mul(beta, beta), p.mul(x, x)), p.zero_like(x))
    return p.div(bessel.i0(p.sqrt(inside)), bessel.i0(beta))


_RULES = {"cosines": _cosines, "sine": _sine, "triangle": _triangle, "exponential": _exponential,
          "gaussian": _gaussian, "kaiser": _kaiser}
