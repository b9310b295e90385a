"""Counts of rare events: Poisson and binomial numbers, each from as many draws as it takes.

The methods, and with them the draws, are those of PyTorch (which has them from NumPy and from
TensorFlow): products of uniforms and sums of geometric steps where few events are expected, and
transformed rejection (Hormann 1993) where there are many.
"""

from __future__ import annotations

from typing import Any

from flambeau.compiler.emitter import Function, Value
from flambeau.compiler.random.engine import uniform_53, while_
from flambeau.compiler.vectormath import FUNCTIONS

__all__ = ["emit_binomial", "emit_poisson"]

MANY = 10.0  # expected events from which numbers are drawn by rejection


def _uniform(f: Function, state: Value) -> Value:
    """The next double in [0, 1)."""
    high = f.cast("zext", f.call("i32", "mt_draw", [state]), "i64")
    low = f.cast("zext", f.call("i32", "mt_draw", [state]), "i64")
    return uniform_53(f, f.or_(f.shl(high, 32), low))


def _math(f: Function, name: str, x: Value) -> Value:
    return FUNCTIONS[name](f, x)


def _floor(f: Function, x: Value) -> Value:
    return f.intrinsic("llvm.floor", "double", x)


def _sqrt(f: Function, x: Value) -> Value:
    return f.intrinsic("llvm.sqrt", "double", x)


class _Repeat:
    """Draw until one is accepted."""

    def __init__(self, f: Function):
        self.f, self.accepted = f, f.var("i1", 0)
        self.result = f.var("double", 0.0)

    def __enter__(self) -> _Repeat:
        self.accepted.set(self.f.const(False, "i1"))
        self._loop = while_(self.f, lambda: self.f.not_(self.accepted.get()))
        self._loop.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._loop.__exit__(*error)

    def accept_if(self, condition: Value, value: Value) -> None:
        """Take `value` as the result and end, if the condition holds."""
        self.result.set(self.f.select(condition, value, self.result.get()))
        self.accepted.set(self.f.or_(self.accepted.get(), condition))


# --------------------------------------------------------------------------- Poisson
def emit_poisson(fill: Any) -> None:
    """out[i]: how many events happen where rate[i] are expected; doubles, NaN for a wrong rate."""
    f, state = fill.f, fill.state
    rates = f.load("ptr", f.args["args"], 3)
    status = f.load("ptr", f.args["args"], 4)
    with f.loop(0, fill.n) as i:
        rate = f.load("double", rates, i)
        found = f.var("double", 0.0)
        found.set(f.const(0.0, "double"))
        with f.when(f.not_(f.cmp("oge", rate, 0.0))):
            f.store(f.const(1, "i64"), status)
        with f.when(f.cmp("oge", rate, MANY)):
            found.set(_poisson_many(f, state, rate))
        few = f.and_(f.cmp("ogt", rate, 0.0), f.cmp("olt", rate, MANY))
        with f.when(few):
            found.set(_poisson_few(f, state, rate))
        f.store(found.get(), fill.out, i)


def _poisson_few(f: Function, state: Value, rate: Value) -> Value:
    """How many uniforms can be multiplied before the product is exp(-rate) or less."""
    limit = _math(f, "exp", f.fneg(rate))
    product, count = f.var("double", 1.0), f.var("double", -1.0)
    product.set(f.const(1.0, "double"))
    count.set(f.const(-1.0, "double"))
    with while_(f, lambda: f.cmp("ogt", product.get(), limit)):
        product.set(f.fmul(product.get(), _uniform(f, state)))
        count.set(f.fadd(count.get(), 1.0))
    return count.get()


def _poisson_many(f: Function, state: Value, rate: Value) -> Value:
    root, log_rate = _sqrt(f, rate), _math(f, "log", rate)
    b = f.fadd(f.fmul(root, 2.53), 0.931)
    a = f.fadd(f.fmul(b, 0.02483), -0.059)
    inverse = f.fadd(f.fdiv(f.const(1.1328, "double"), f.fsub(b, 3.4)), 1.1239)
    bound = f.fsub(f.const(0.9277, "double"), f.fdiv(f.const(3.6224, "double"), f.fsub(b, 2.0)))
    with _Repeat(f) as draw:
        u = f.fsub(_uniform(f, state), 0.5)
        v = _uniform(f, state)
        us = f.fsub(f.const(0.5, "double"), f.intrinsic("llvm.fabs", "double", u))
        slope = f.fadd(f.fdiv(f.fmul(a, 2.0), us), b)
        k = _floor(f, f.fadd(f.fadd(f.fmul(slope, u), rate), 0.43))
        inside = f.and_(f.cmp("oge", us, 0.07), f.cmp("ole", v, bound))
        draw.accept_if(inside, k)
        corner = f.and_(f.cmp("olt", us, 0.013), f.cmp("ogt", v, us))
        hopeless = f.or_(f.cmp("olt", k, 0.0), corner)
        with f.when(f.not_(f.or_(inside, hopeless))):
            spread = f.fadd(f.fdiv(a, f.fmul(us, us)), b)
            left = f.fsub(f.fadd(_math(f, "log", v), _math(f, "log", inverse)),
                          _math(f, "log", spread))
            right = f.fsub(f.fadd(f.fneg(rate), f.fmul(k, log_rate)),
                           _math(f, "lgamma", f.fadd(k, 1.0)))
            draw.accept_if(f.cmp("ole", left, right), k)
    return draw.result.get()


# --------------------------------------------------------------------------- binomial
def emit_binomial(fill: Any) -> None:
    """out[i]: how many of count[i] trials succeed with chance[i] each; doubles. None of a negative
    count or chance, all of them if the chance is above 1, NaN of NaN."""
    f, state = fill.f, fill.state
    given = f.load("ptr", f.args["args"], 3)
    with f.loop(0, fill.n) as i:
        place = f.mul(i, 2)
        count, chance = f.load("double", given, place), f.load("double", given, f.add(place, 1))
        found = f.var("double", 0.0)
        known = f.and_(f.cmp("ord", chance, chance), f.cmp("ord", count, count))
        found.set(f.select(known, f.const(0.0, "double"), f.fadd(count, chance)))
        some = f.and_(f.cmp("ogt", count, 0.0), f.cmp("ogt", chance, 0.0))
        with f.when(f.and_(some, f.cmp("oge", chance, 1.0))):
            found.set(count)
        with f.when(f.and_(some, f.cmp("olt", chance, 1.0))):
            mirrored = f.cmp("ogt", chance, 0.5)
            rare = f.select(mirrored, f.fsub(f.const(1.0, "double"), chance), chance)
            with f.when_else(f.cmp("oge", f.fmul(count, rare), MANY)) as otherwise:
                found.set(_binomial_many(f, state, count, rare))
                otherwise()
                found.set(_binomial_few(f, state, count, rare))
            found.set(f.select(mirrored, f.fsub(count, found.get()), found.get()))
        f.store(found.get(), fill.out, i)


def _binomial_few(f: Function, state: Value, count: Value, chance: Value) -> Value:
    """How many waits for a success fit into `count` trials."""
    log_failure = _math(f, "log1p", f.fneg(chance))
    waited, successes = f.var("double", 0.0), f.var("double", -1.0)
    waited.set(f.const(0.0, "double"))
    successes.set(f.const(-1.0, "double"))
    with while_(f, lambda: f.cmp("ole", waited.get(), count)):
        wait = f.fdiv(_math(f, "log", _uniform(f, state)), log_failure)
        waited.set(f.fadd(waited.get(), f.intrinsic("llvm.ceil", "double", wait)))
        successes.set(f.fadd(successes.get(), 1.0))
    return successes.get()


_STIRLING = (0.0810614667953272, 0.0413406959554092, 0.0276779256849983, 0.02079067210376509,
             0.0166446911898211, 0.0138761288230707, 0.0118967099458917, 0.0104112652619720,
             0.00925546218271273, 0.00833056343336287)


def _stirling_rest(f: Function, k: Value) -> Value:
    """log(k!) less what Stirling's formula gives for it."""
    after = f.fadd(k, 1.0)
    square = f.fmul(after, after)
    series = f.fsub(f.const(1 / 1260, "double"), f.fdiv(f.const(1 / 1680, "double"), square))
    series = f.fsub(f.const(1 / 360, "double"), f.fdiv(series, square))
    result = f.fdiv(f.fsub(f.const(1 / 12, "double"), f.fdiv(series, square)), after)
    for number, known in enumerate(_STIRLING):
        result = f.select(f.cmp("oeq", k, float(number)), f.const(known, "double"), result)
    return result


def _binomial_many(f: Function, state: Value, count: Value, chance: Value) -> Value:
    one = f.const(1.0, "double")
    deviation = _sqrt(f, f.fmul(f.fmul(count, chance), f.fsub(one, chance)))
    b = f.fadd(f.fmul(deviation, 2.53), 1.15)
    a = f.fadd(f.fadd(f.fmul(b, 0.0248), -0.0873), f.fmul(chance, 0.01))
    centre = f.fadd(f.fmul(count, chance), 0.5)
    bound = f.fsub(f.const(0.92, "double"), f.fdiv(f.const(4.2, "double"), b))
    odds = f.fdiv(chance, f.fsub(one, chance))
    alpha = f.fmul(f.fadd(f.fdiv(f.const(5.1, "double"), b), 2.83), deviation)
    m = _floor(f, f.fmul(f.fadd(count, 1.0), chance))
    with _Repeat(f) as draw:
        u = f.fsub(_uniform(f, state), 0.5)
        v = _uniform(f, state)
        us = f.fsub(f.const(0.5, "double"), f.intrinsic("llvm.fabs", "double", u))
        slope = f.fadd(f.fdiv(f.fmul(a, 2.0), us), b)
        k = _floor(f, f.fadd(f.fmul(slope, u), centre))
        inside = f.and_(f.cmp("oge", us, 0.07), f.cmp("ole", v, bound))
        draw.accept_if(inside, k)
        possible = f.and_(f.cmp("oge", k, 0.0), f.cmp("ole", k, count))
        with f.when(f.and_(possible, f.not_(inside))):
            spread = f.fadd(f.fdiv(a, f.fmul(us, us)), b)
            height = _math(f, "log", f.fdiv(f.fmul(v, alpha), spread))
            draw.accept_if(f.cmp("ole", height, _log_share(f, count, odds, m, k)), k)
    return draw.result.get()


def _log_share(f: Function, count: Value, odds: Value, m: Value, k: Value) -> Value:
    """log of the probability of k relative to that of the most likely number m."""
    rest_m, rest_k = f.fsub(f.fadd(count, 1.0), m), f.fsub(f.fadd(count, 1.0), k)
    at_m = f.fdiv(f.fadd(m, 1.0), f.fmul(odds, rest_m))
    at_k = f.fdiv(f.fmul(odds, rest_k), f.fadd(k, 1.0))
    total = f.fmul(f.fadd(m, 0.5), _math(f, "log", at_m))
    total = f.fadd(total, f.fmul(f.fadd(count, 1.0), _math(f, "log", f.fdiv(rest_m, rest_k))))
    total = f.fadd(total, f.fmul(f.fadd(k, 0.5), _math(f, "log", at_k)))
    total = f.fadd(total, _stirling_rest(f, m))
    total = f.fadd(total, _stirling_rest(f, f.fsub(count, m)))
    total = f.fsub(total, _stirling_rest(f, k))
    return f.fsub(total, _stirling_rest(f, f.fsub(count, k)))
