"""Sums and fractions behind the incomplete gamma function, as loops in the kernel, run until every
lane has converged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.ops.primitives.elementwise import _define
from flambeau.ops.primitives.structure import infer_same

__all__ = ["gamma_fraction", "gamma_series", "gamma_series_slope"]

PRECISION = 2.0 ** -53
LIMIT = 20000.0  # steps; a sum takes a few times the root of its arguments
TINY = 1e-300


def _until_converged(f: Any, type_: str, step: Callable[[Any], Any]) -> None:
    """for n = 1, 2, ...: step(n), which says for each lane whether to go on."""
    n, live = f.var(type_, 1.0), f.var("i1", True)
    head, body, done = (f.label(word) for word in ("terms", "term", "converged"))
    f.branch(head)
    f.at(head)
    f.branch_if(live.get(), body, done)
    f.at(body)
    at = n.get()
    going = f.and_(step(at), f.cmp("olt", at, LIMIT))
    lanes = int(type_[1:].split()[0]) if type_.startswith("<") else 1
    some = going if lanes == 1 else f.cmp("ne", f.cast("bitcast", going, f"i{lanes}"), 0)
    live.set(some)
    n.set(f.fadd(at, f.const(1, type_)))
    f.branch(head)
    f.at(done)


def _terms(f: Any, a: Any, x: Any, slope: bool) -> Any:
    """The sum over n of t(n) = x^n / ((a + 1) ... (a + n)); its derivative by a if `slope`."""
    one, zero = f.const(1, x.type), f.const(0, x.type)
    term, total = f.var(x.type, one), f.var(x.type, one)
    fall, change = f.var(x.type, zero), f.var(x.type, zero)  # of log t(n), and of the sum

    def step(n: Any) -> Any:
        below = f.fadd(a, n)
        grown = f.fmul(term.get(), f.fdiv(x, below))
        term.set(grown)
        sum_ = f.fadd(total.get(), grown)
        total.set(sum_)
        small = grown
        if slope:
            fallen = f.fadd(fall.get(), f.fdiv(one, below))
            fall.set(fallen)
            small = f.fmul(grown, fallen)
            change.set(f.fsub(change.get(), small))
            sum_ = f.fneg(change.get())
        return f.cmp("ogt", small, f.fmul(sum_, f.const(PRECISION, x.type)))

    _until_converged(f, x.type, step)
    return (change if slope else total).get()


def _emit_series(k: Any, dtype: Any, a: Any, x: Any) -> Any:
    return _terms(k.f, a, x, False)


def _emit_slope(k: Any, dtype: Any, a: Any, x: Any) -> Any:
    return _terms(k.f, a, x, True)


def _emit_fraction(k: Any, dtype: Any, a: Any, x: Any) -> Any:
    """By W. J. Lentz's method, as I. J. Thompson and A. R. Barnett (1986) have it."""
    f = k.f
    one = f.const(1, x.type)
    start = f.fadd(f.fsub(x, a), one)
    first = f.fdiv(one, start)
    b, c, d, h = (f.var(x.type, value) for value in (start, 1 / TINY, first, first))

    def step(n: Any) -> Any:
        an = f.fmul(n, f.fsub(a, n))
        b.set(f.fadd(b.get(), f.const(2, x.type)))
        d.set(f.fdiv(one, f.fadd(f.fmul(an, d.get()), b.get())))
        c.set(f.fadd(b.get(), f.fdiv(an, c.get())))
        change = f.fmul(d.get(), c.get())
        h.set(f.fmul(h.get(), change))
        off = f.intrinsic("llvm.fabs", x.type, f.fsub(change, one))
        return f.cmp("ogt", off, f.const(2 * PRECISION, x.type))

    _until_converged(f, x.type, step)
    return h.get()


gamma_series = _define("gamma_series", infer_same, _emit_series, 200)
"""(a, x) -> the sum over n of x^n / ((a + 1) ... (a + n)), for a > -1 and x >= 0."""
gamma_series_slope = _define("gamma_series_slope", infer_same, _emit_slope, 200)
"""(a, x) -> the derivative of that by a."""
gamma_fraction = _define("gamma_fraction", infer_same, _emit_fraction, 200)
"""(a, x) -> 1 / (x + 1 - a - 1 (1 - a) / (x + 3 - a - 2 (2 - a) / ...)), for x > a."""
