"""How gamma and Dirichlet numbers follow their parameters.

A number x drawn from a distribution with the cumulative probability F(x; a) moves, when a moves and
its rank stays, by dx/da = -(dF/da) / (dF/dx) (implicit reparametrisation: Figurnov, Mohamed and
Mnih 2018). For both families the quotient is an integral of the density relative to that at x, on
either side of x, of a smooth function of the logarithm (or the logit) of the variable: Gauss's
rule on two panels gives nearly all digits, for all parameters.
"""

from __future__ import annotations

import math

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.samples import Arr, sample

__all__: list[str] = []

_DROP = 36.0  # the logarithm by which the integrand has fallen where the integral is cut off
_NEAR = 12.0  # the end of the first panel, if the second is not empty


def _rule_samples(*places: Arr):
    rule = Arr((3, 40), "float64", 0, 1)
    return lambda: iter([sample(*places, rule)])


def _needs_real(name: str, *values: Value) -> None:
    first = values[0].dtype
    if first.name not in ("float32", "float64"):
        raise NotImplementedError(f'"{name}" not implemented for \'{first.scalar_name}\'; '
                                  "convert with .float()")
    for value in values[1:]:
        if value.dtype is not first:
            raise RuntimeError(f"{name}: expected dtype {first.scalar_name} but found "
                               f"{value.dtype.scalar_name}")


def _c(number: float, like: Value) -> Value:
    return e.like(number, like)


def _spread(x: Value, count: int) -> Value:
    """x repeated along a new last dimension."""
    return p.expand(p.reshape(x, (*x.shape, 1)), (*x.shape, count))


def _positive(x: Value) -> Value:
    """max(x, smallest normal number): what divides, or has a logarithm."""
    return p.maximum(x, _c(2.3e-308, x))


def _quadratic_reach(gap: Value, curve: Value) -> Value:
    """The positive y with gap y + curve y^2 = drop."""
    four = p.mul(_c(4 * _DROP, gap), curve)
    return p.div(_c(2 * _DROP, gap), p.add(gap, p.sqrt(p.add(p.mul(gap, gap), four))))


def _integrated(reach: Value, rule: Value, integrand) -> Value:
    """The integral of integrand(y, spread) from 0 to `reach` (of any sign)."""
    count = rule.shape[1]
    limit = _c(_NEAR, reach)
    near = p.maximum(p.minimum(reach, limit), p.neg(limit))

    def spread(x: Value) -> Value:
        return _spread(x, count)

    def row(number: int) -> Value:
        part = p.slice_(rule, (number, 0), (1, 1), (1, count))
        return p.expand(p.reshape(part, (count,)), (*reach.shape, count))

    nodes, weights, second = row(0), row(1), row(2)
    wide_near, wide_reach = spread(near), spread(reach)
    start = p.mul(second, wide_near)
    rest = p.sub(p.sub(wide_reach, wide_near), wide_near)
    length = p.add(wide_near, p.mul(second, rest))
    values = integrand(p.add(start, p.mul(length, nodes)), spread)
    return p.reduce_sum(p.mul(values, p.mul(weights, length)), (values.ndim - 1,))


# --------------------------------------------------------------------------- gamma
def _gamma_motion(a: Value, x: Value, rule: Value) -> Value:
    """dx/da of gamma numbers x of shape a: the integral over y = log(t / x), to the side on which
    the density falls, of |psi(a) - log(t)| x exp(a y - x (e^y - 1))."""
    x = _positive(x)
    upper, gap = p.ge(x, a), p.abs_(p.sub(x, a))
    reach = p.where(upper, _upper_reach(gap, x), p.neg(_lower_reach(gap, x, a)))
    level = p.sub(p.log(x), p.digamma(a))

    def integrand(y: Value, spread) -> Value:
        fall = p.sub(p.mul(spread(a), y), p.mul(spread(x), p.expm1(y)))
        return p.mul(p.add(spread(level), y), p.exp(fall))

    return p.mul(_integrated(reach, rule, integrand), x)


def _upper_reach(gap: Value, x: Value) -> Value:
    """Where (x - a) y + x (e^y - 1 - y) is surely beyond the drop, for y > 0."""
    ratio = p.div(_c(2 * _DROP, x), x)
    steep = p.log1p(p.add(ratio, p.mul(_c(2, x), p.log1p(ratio))))
    return p.minimum(_quadratic_reach(gap, p.mul(x, _c(0.5, x))), steep)


def _lower_reach(gap: Value, x: Value, a: Value) -> Value:
    """Where a z - x (1 - e^-z) is surely beyond the drop, for z = -y > 0."""
    square = _quadratic_reach(gap, p.div(x, _c(3, x)))  # holds up to z = 1
    drop = _c(_DROP, x)
    far = p.minimum(p.div(p.add(drop, x), a), p.div(drop, _positive(gap)))
    return p.where(p.le(square, _c(1, x)), square, far)


@op(method=False, public=(), out=False, differentiable=False,
    samples=_rule_samples(Arr((3, 4), "float32", 0.5, 4), Arr((3, 4), "float32", 0.5, 4)))
def _gamma_derivative(input: Tensor, output: Tensor, rule: Index):
    """How gamma numbers `output` move with their shapes `input`."""
    _needs_real("_standard_gamma_grad_cpu", input, output)
    a, x = e.broadcast(*(convert(v, dtypes.float64) for v in (input, output)))
    return convert(_gamma_motion(a, x, rule), input.dtype)


# --------------------------------------------------------------------------- beta
def _beta_motion(x: Value, a: Value, total: Value, rule: Value) -> Value:
    """dx/da / (1 - x) of beta numbers x of parameters a and total - a: the integral over the
    difference s of the logits of t and x, to the side on which the density falls, of
    x (log(t) - psi(a) + psi(total)) exp(a s - total log(1 + x (e^s - 1)))."""
    one = _c(1, x)
    rest = p.sub(one, x)
    mean = p.mul(total, x)
    upper, gap = p.ge(mean, a), p.abs_(p.sub(mean, a))
    curve = p.mul(p.mul(mean, rest), _c(1 / (2 * math.e), x))
    square = _quadratic_reach(gap, curve)  # holds up to 1
    ahead = p.where(upper, x, rest)
    slope = _positive(p.where(upper, p.sub(total, a), a))
    drop = _c(_DROP, x)
    far = p.div(p.sub(drop, p.mul(total, p.log(_positive(ahead)))), slope)
    far = p.minimum(far, p.div(drop, _positive(gap)))
    reach = p.where(p.le(square, one), square, far)
    level = p.sub(p.add(p.log(_positive(x)), p.digamma(total)), p.digamma(a))

    def integrand(s: Value, spread) -> Value:
        wide_x, wide_rest = spread(x), spread(rest)
        size = p.abs_(s)
        above = p.add(size, p.log(p.add(wide_x, p.mul(wide_rest, p.exp(p.neg(size))))))
        below = p.log1p(p.mul(wide_x, p.expm1(p.neg(size))))
        log_d = p.where(p.ge(s, p.zero_like(s)), above, below)
        fall = p.sub(p.mul(spread(a), s), p.mul(spread(total), log_d))
        return p.mul(p.add(spread(level), p.sub(s, log_d)), p.exp(fall))

    signed = p.where(upper, reach, p.neg(reach))
    return p.mul(x, _integrated(signed, rule, integrand))


@op(method=False, public=(), out=False, differentiable=False,
    samples=_rule_samples(Arr((3, 4), "float32", 0.2, 0.8), Arr((3, 4), "float32", 0.5, 4),
                          Arr((3, 4), "float32", 5, 8)))
def _beta_derivative(x: Tensor, alpha: Tensor, total: Tensor, rule: Index):
    """How beta numbers `x` of parameters `alpha` and `total - alpha` move with `alpha`, divided by
    1 - x."""
    _needs_real("_dirichlet_grad_cpu", x, alpha, total)
    values = e.broadcast(*(convert(v, dtypes.float64) for v in (x, alpha, total)))
    return convert(_beta_motion(*values, rule), x.dtype)
