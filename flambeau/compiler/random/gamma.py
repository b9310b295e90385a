"""Gamma numbers, from as many draws as it takes, equal to PyTorch's.

The method is Marsaglia and Tsang's (2000): the cube of a shifted normal number, accepted or not;
a shape below 1 is raised by 1 and the result scaled by a power of another uniform number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flambeau.compiler.emitter import Function, Value
from flambeau.compiler.random import math as maths
from flambeau.compiler.random.engine import (
    HAS_NORMAL_OFFSET,
    NORMAL_OFFSET,
    uniform_53,
    while_,
)

__all__ = ["emit_gamma"]

_SQUEEZE = float(np.float32(0.0331))
_THIRD = float(np.float32(1) / np.float32(3))


def _define_draws(f: Function) -> None:
    """@uniform(ptr state) and @normal(ptr state): the next double in [0, 1), the next normal one
    (of a pair; the other one waits in the state)."""
    u = f.module.function("uniform", [("ptr", "state")], ret="double", internal=True)
    high = u.cast("zext", u.call("i32", "mt_draw", [u.args["state"]]), "i64")
    low = u.cast("zext", u.call("i32", "mt_draw", [u.args["state"]]), "i64")
    u.ret_value(uniform_53(u, u.or_(u.shl(high, 32), low)))

    g = f.module.function("normal", [("ptr", "state")], ret="double", internal=True,
                          attributes="noinline")
    state = g.args["state"]
    flag, waiting = HAS_NORMAL_OFFSET // 4, NORMAL_OFFSET // 8
    result = g.var("double", 0.0)
    with g.when_else(g.cmp("ne", g.load("i32", state, flag), 0)) as otherwise:
        result.set(g.load("double", state, waiting))
        g.store(g.const(0, "i32"), state, flag)
        g.store(g.const(0, "double"), state, waiting)
        otherwise()
        angle, radius = g.call("double", "uniform", [state]), g.call("double", "uniform", [state])
        root = g.intrinsic("llvm.sqrt", "double",
                           g.fmul(maths.fdlibm_log1p(g, g.fneg(radius)), -2.0))
        sine, cosine = maths.sincos_double(g, g.fmul(angle, 2 * math.pi))
        result.set(g.fmul(root, cosine))
        g.store(g.fmul(root, sine), state, waiting)
        g.store(g.const(1, "i32"), state, flag)
    g.ret_value(result.get())


def emit_gamma(fill: Any) -> None:
    """out[i]: a gamma number of shape alpha[i] and rate 1, at least the smallest normal number; NaN
    of a shape that is negative or NaN. What PyTorch computes in the dtype of the shapes is
    computed in it, the rest in double."""
    f, state, scalar = fill.f, fill.state, fill.dtype.llvm
    _define_draws(f)
    shapes = f.load("ptr", f.args["args"], 3)
    tiny = float(np.finfo(fill.dtype.numpy).tiny)
    with f.loop(0, fill.n) as i:
        shape = f.load(scalar, shapes, i)
        found = f.var("double", 0.0)
        found.set(f.select(f.cmp("oeq", shape, 0.0), f.const(tiny, "double"),
                           f.const(math.nan, "double")))
        with f.when(f.and_(f.cmp("ogt", shape, 0.0), f.cmp("olt", shape, math.inf))):
            found.set(_accepted(f, state, shape))
        result = f.cast("fptrunc", found.get(), scalar) if scalar == "float" else found.get()
        small = f.cmp("olt", result, tiny)
        f.store(f.select(small, f.const(tiny, scalar), result), fill.out, i)


def _wide(f: Function, x: Value) -> Value:
    return f.cast("fpext", x, "double") if x.type == "float" else x


def _accepted(f: Function, state: Value, shape: Value) -> Value:
    """A gamma number of a positive shape, as a double."""
    scale, raised = f.var("double", 1.0), f.var(shape.type)
    scale.set(f.const(1.0, "double"))
    raised.set(shape)
    with f.when(f.cmp("olt", shape, 1.0)):
        u = f.fsub(f.const(1.0, "double"), f.call("double", "uniform", [state]))
        inverse = _wide(f, f.fdiv(f.const(1.0, shape.type), shape))
        scale.set(maths.pow_double(f, u, inverse))
        raised.set(f.fadd(shape, 1.0))
    d = _wide(f, f.fsub(raised.get(), f.const(_THIRD, shape.type)))
    c = f.fdiv(f.const(1.0, "double"), f.intrinsic("llvm.sqrt", "double", f.fmul(d, 9.0)))
    x, y, going = f.var("double", 0.0), f.var("double", 0.0), f.var("i1", 1)
    cube = f.var("double", 0.0)
    going.set(f.const(True, "i1"))
    with while_(f, going.get):
        y.set(f.const(-1.0, "double"))
        with while_(f, lambda: f.cmp("ole", y.get(), 0.0)):
            x.set(f.call("double", "normal", [state]))
            y.set(f.fadd(f.fmul(c, x.get()), 1.0))
        square = f.fmul(x.get(), x.get())
        cube.set(f.fmul(f.fmul(y.get(), y.get()), y.get()))
        u = f.fsub(f.const(1.0, "double"), f.call("double", "uniform", [state]))
        inside = f.fsub(f.const(1.0, "double"), f.fmul(f.fmul(square, _SQUEEZE), square))
        going.set(f.not_(f.cmp("olt", u, inside)))
        with f.when(going.get()):
            bend = f.fadd(f.fsub(f.const(1.0, "double"), cube.get()),
                          maths.log_double(f, cube.get()))
            bound = f.fadd(f.fmul(square, 0.5), f.fmul(d, bend))
            going.set(f.not_(f.cmp("olt", maths.log_double(f, u), bound)))
    return f.fmul(f.fmul(scale.get(), d), cube.get())
