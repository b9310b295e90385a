"""Tensors from nothing: ranges and patterns. (Constants are `fill`; random ones are streams.)"""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
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


def before_row(row: Value, odd: Value) -> Value:
    """How many elements earlier rows have, if rows have w, w + 1, ... of them; `odd`: 2 w - 1."""
    return p.shift_right(p.mul(row, p.add(odd, row)), e.like(1, row))


def growing_row(k: Value, odd: Value) -> Value:
    """The row in which element number k lies, with rows as of `before_row`: a root, rounded in
    float64, and put right by one comparison each way."""
    one = e.like(1, k)
    wide, b = convert(k, dtypes.float64), convert(odd, dtypes.float64)
    root = p.sqrt(p.add(p.mul(b, b), p.mul(wide, e.like(8, wide))))
    row = convert(p.mul(p.sub(root, b), e.like(0.5, wide)), k.dtype)
    row = p.where(p.gt(before_row(row, odd), k), p.sub(row, one), row)
    return p.where(p.le(before_row(p.add(row, one), odd), k), p.add(row, one), row)


@_hidden(lambda: iter([sample(9, 2, 2, 4, 0, 0, False, dtypes.int64),
                       sample(7, 1, 3, 3, 4, 2, True, dtypes.int32)]))
def _trapezoid(count: int, width: Number, rising: Number, full: Number, row: Number,
               column: Number, back: bool, dtype: object):
    """Rows and columns, (2, count), of the elements of a trapezoid whose rows have `width`,
    `width` + 1, ... of them, and `full` from the row `rising` on; it begins at (row, column), or
    ends there if it is walked `back`."""
    shape = (2, count)
    k = p.iota(shape, 1)
    if back:
        k = p.sub(p.filled(count - 1, k), k)
    width, rising, full, row, column = (
        p.expand(convert(_number(n), k.dtype), shape) for n in (width, rising, full, row, column))
    odd = p.sub(p.add(width, width), e.like(1, k))
    line = growing_row(k, odd)

    rest = p.sub(k, before_row(rising, odd))
    quotient = p.floor(p.div(convert(rest, dtypes.float64), convert(full, dtypes.float64)))
    level = convert(quotient, k.dtype)
    grows = p.lt(rest, p.zero_like(rest))
    lines = p.where(grows, line, p.add(rising, level))
    places = p.where(grows, p.sub(k, before_row(line, odd)), p.sub(rest, p.mul(level, full)))
    step = p.sub if back else p.add
    chosen = p.where(p.eq(p.iota(shape, 0), p.zero_like(k)), step(row, lines),
                     step(column, places))
    return convert(chosen, dtype)
