"""Tensors from nothing: ranges and patterns. (Constants are `fill`; random ones are streams.)"""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ops import primitives as p
from flambeau.ops.elementwise import elementwise
from flambeau.ops.primitives import convert
from flambeau.ops.record import Number, op
from flambeau.ops.samples import sample


def _hidden(samples):
    return op(opmath=False, method=False, public=(), out=False, differentiable=False,
              samples=samples)


def _wide(dtype):
    """Where a sequence is computed before it is rounded to its dtype."""
    return dtypes.int64 if dtype.is_integral else dtypes.float64


@_hidden(lambda: iter([sample(0.0, 0.5, 7, dtypes.float32), sample(3, 2, 5, dtypes.int64)]))
def _arange(start: Number, step: Number, count: int, dtype: object):
    """start + i * step for i < count."""
    wide = _wide(dtype)
    i = convert(p.iota((count,), 0), wide)
    scaled = elementwise(p.mul, i, convert(_number(step), wide))
    return convert(elementwise(p.add, scaled, convert(_number(start), wide)), dtype)


def _number(value):
    from flambeau.ops.record import lift

    return lift(value)


@_hidden(lambda: iter([sample(0.0, 1.0, 5, dtypes.float32), sample(0.0, 1.0, 1, dtypes.float64)]))
def _linspace(start: Number, end: Number, steps: int, dtype: object):
    """`steps` evenly spaced numbers from start to end, both included; symmetric in rounding."""
    kind = dtype if dtype.kind == "f" and not dtype.is_reduced else dtypes.float32
    first, last = convert(_number(start), kind), convert(_number(end), kind)
    shape = (steps,)
    if steps == 1:
        return convert(p.expand(first, shape), dtype)
    gap = p.sub(last, first)
    step = p.expand(p.div(gap, p.filled(steps - 1, gap)), shape)
    i = p.iota(shape, 0)
    up = p.add(p.expand(first, shape), p.mul(step, convert(i, kind)))
    back = p.sub(p.filled(steps - 1, i), i)
    down = p.sub(p.expand(last, shape), p.mul(step, convert(back, kind)))
    return convert(p.where(p.lt(i, p.filled(steps // 2, i)), up, down), dtype)


@_hidden(lambda: iter([sample(3, 4, dtypes.float32)]))
def _eye(rows: int, columns: int, dtype: object):
    """Ones on the diagonal."""
    shape = (rows, columns)
    return convert(p.eq(p.iota(shape, 0), p.iota(shape, 1)), dtype)
