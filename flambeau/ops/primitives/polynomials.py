"""Orthogonal polynomials p_n(x) by their three-term recurrences; n may differ from element to
element, so the recurrence is a loop in the kernel, run until every lane has its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.ops.primitives.elementwise import _define
from flambeau.ops.primitives.structure import infer_same

__all__ = ["POLYNOMIALS"]


def _chebyshev(f: Any, x: Any, k: Any, q: Any, p: Any) -> Any:
    """2 x q - p."""
    return f.fsub(f.fmul(f.fadd(x, x), q), p)


def _hermite_h(f: Any, x: Any, k: Any, q: Any, p: Any) -> Any:
    """2 x q - 2 k p."""
    return f.fsub(f.fmul(f.fadd(x, x), q), f.fmul(f.fadd(k, k), p))


def _hermite_he(f: Any, x: Any, k: Any, q: Any, p: Any) -> Any:
    """x q - k p."""
    return f.fsub(f.fmul(x, q), f.fmul(k, p))


def _laguerre(f: Any, x: Any, k: Any, q: Any, p: Any) -> Any:
    """((2 k + 1 - x) q - k p) / (k + 1)."""
    scale = f.fsub(f.fadd(f.fadd(k, k), f.const(1, k.type)), x)
    return f.fdiv(f.fsub(f.fmul(scale, q), f.fmul(k, p)), f.fadd(k, f.const(1, k.type)))


def _legendre(f: Any, x: Any, k: Any, q: Any, p: Any) -> Any:
    """((2 k + 1) x q - k p) / (k + 1)."""
    scale = f.fmul(f.fadd(f.fadd(k, k), f.const(1, k.type)), x)
    return f.fdiv(f.fsub(f.fmul(scale, q), f.fmul(k, p)), f.fadd(k, f.const(1, k.type)))


# name -> (the recurrence, p_1 = a x + b)
RULES: dict[str, tuple[Callable, float, float]] = {
    "chebyshev_polynomial_t": (_chebyshev, 1, 0),
    "chebyshev_polynomial_u": (_chebyshev, 2, 0),
    "chebyshev_polynomial_v": (_chebyshev, 2, -1),
    "chebyshev_polynomial_w": (_chebyshev, 2, 1),
    "hermite_polynomial_h": (_hermite_h, 2, 0),
    "hermite_polynomial_he": (_hermite_he, 1, 0),
    "laguerre_polynomial_l": (_laguerre, -1, 1),
    "legendre_polynomial_p": (_legendre, 1, 0),
}


def _emitter(rule: Callable, a: float, b: float) -> Callable:
    def emit(k: Any, dtype: Any, x: Any, n: Any) -> Any:
        f = k.f
        one = f.const(1, x.type)
        n = f.intrinsic("llvm.trunc", n.type, n)
        first = f.fadd(f.fmul(x, f.const(a, x.type)), f.const(b, x.type))
        before, now, degree = f.var(x.type, one), f.var(x.type, first), f.var(x.type, one)
        head, body, done = (f.label(word) for word in ("degree", "step", "reached"))
        f.branch(head)
        f.at(head)
        live = f.cmp("olt", degree.get(), n)
        lanes = int(x.type[1:].split()[0]) if x.type.startswith("<") else 1
        some = live if lanes == 1 else f.cmp("ne", f.cast("bitcast", live, f"i{lanes}"), 0)
        f.branch_if(some, body, done)
        f.at(body)
        q, p, at = now.get(), before.get(), degree.get()
        running = f.cmp("olt", at, n)
        now.set(f.select(running, rule(f, x, at, q, p), q))
        before.set(f.select(running, q, p))
        degree.set(f.fadd(at, one))
        f.branch(head)
        f.at(done)
        result = f.select(f.cmp("oge", n, one), now.get(), one)
        return f.select(f.cmp("olt", n, 0.0), 0.0, result)

    return emit


POLYNOMIALS = {}
"""The primitives by name: (x, n) -> p_n(x), 0 for negative n."""

for _name, _rule in RULES.items():
    POLYNOMIALS[_name] = _define(_name, infer_same, _emitter(*_rule), 60)
    POLYNOMIALS[_name].differentiable = False
