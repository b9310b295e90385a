"""Tangents of primitives: how the result moves when the inputs do.

A rule takes a node and the tangents of its inputs, None for those that do not move, and returns the
tangent of the result, or None. Linear primitives are applied to the tangents. Where a primitive has
no rule (or it returns NotImplemented), `ops/tangents.py` derives one from its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flambeau.ir.graph import Value
from flambeau.ops.primitives import contraction as c
from flambeau.ops.primitives import elementwise as e
from flambeau.ops.primitives import fourier, resampling, scan
from flambeau.ops.primitives import pooling as pool
from flambeau.ops.primitives import structure as s

__all__: list[str] = []

Tangents = Sequence[Value | None]


# --------------------------------------------------------------------------- linear in all inputs
def linear(node: Value, tangents: Tangents) -> Value:
    """The primitive applied to the tangents, zeros for None."""
    moved = [e.zero_like(x) if t is None else t
             for x, t in zip(node.inputs, tangents, strict=True)]
    return node.prim(*moved, attrs=node.attrs)


for _prim in (s.EXPAND, s.PERMUTE, s.RESHAPE, s.SLICE, s.DIAGONAL, s.AS_STRIDED, s.WINDOW, s.FOLD,
              s.CAT, s.REDUCE_SUM, scan.CUMSUM, e.neg, e.real, e.imag, e.complex_, e.cast,
              e.stop_copy, e.boundary, e.in_memory, e.view_as_real, e.view_as_complex,
              pool.POOL_MEAN, pool.POOL_MEAN_BACK, fourier.FOURIER):
    _prim.jvp(linear)


@s.SPREAD.jvp
def spread_jvp(node: Value, tangents: Tangents) -> Value:
    """What comes in does not move."""
    return s.spread(tangents[0], *node.attrs[:3])


@e.stop_gradient.jvp
def stop_gradient_jvp(node: Value, tangents: Tangents) -> None:
    """Nothing passes."""
    return


# --------------------------------------------------------------------------- linear in some inputs
def _linear_in(*places: int) -> Callable:
    """The rule of primitives that are linear in the inputs at `places` together, and that the
    others only steer."""

    def jvp(node: Value, tangents: Tangents) -> Value | None:
        if all(tangents[i] is None for i in places):
            return None
        moved = list(node.inputs)
        for i in places:
            moved[i] = e.zero_like(node.inputs[i]) if tangents[i] is None else tangents[i]
        return node.prim(*moved, attrs=node.attrs)

    return jvp


for _prim in (s.LOOKUP, resampling.RESIZE, resampling.RESIZE_BACK, pool.POOL_MAX_BACK):
    _prim.jvp(_linear_in(0))
e.where.jvp(_linear_in(1, 2))


@e.add.jvp
def add_jvp(node: Value, tangents: Tangents) -> Value:
    """The sum of what there is."""
    return total(tangents)


def total(parts: Tangents) -> Value | None:
    """The sum of those parts that are not None."""
    found = None
    for part in parts:
        if part is not None:
            found = part if found is None else e.add(found, part)
    return found


def _multilinear(*places: int) -> Callable:
    """The rule of primitives that are linear in each of the inputs at `places`."""

    def jvp(node: Value, tangents: Tangents) -> Value | None:
        parts = []
        for i in places:
            if tangents[i] is not None:
                moved = list(node.inputs)
                moved[i] = tangents[i]
                parts.append(node.prim(*moved, attrs=node.attrs))
        return total(parts)

    return jvp


for _prim in (e.mul, c.DOT, c.CONV_GRAD_INPUT, c.CONV_GRAD_WEIGHT):
    _prim.jvp(_multilinear(0, 1))


@c.CONV.jvp
def conv_jvp(node: Value, tangents: Tangents) -> Value | None:
    """Bilinear in image and weights; a bias is added."""
    x, w = node.inputs[:2]
    parts = [c.conv(tangents[0], w, *node.attrs) if tangents[0] is not None else None,
             c.conv(x, tangents[1], *node.attrs) if tangents[1] is not None else None]
    if len(tangents) > 2 and tangents[2] is not None:
        kept = [size if d == 1 else 1 for d, size in enumerate(node.shape)]
        parts.append(s.expand(s.reshape(tangents[2], kept), node.shape))
    return total(parts)


@scan.CUMLOGSUMEXP.jvp
def cumlogsumexp_jvp(node: Value, tangents: Tangents) -> Value:
    """sum(t * exp(x - y)) over what comes before, in logarithms, for positive and negative t
    apart."""
    (x,), (dim, reverse), (t,) = node.inputs, node.attrs, tangents

    def half(size: Value) -> Value:
        some = e.gt(size, e.zero_like(size))
        logs = e.where(some, e.log(e.where(some, size, e.filled(1, size))),
                       e.filled(float("-inf"), size))
        flow = scan.cumlogsumexp(e.where(some, e.add(logs, x), logs), dim, reverse)
        return e.exp(e.sub(flow, node))

    return e.sub(half(t), half(e.neg(t)))


# --------------------------------------------------------------------------- choices
def _extremum_jvp(node: Value, tangents: Tangents) -> Value:
    """The mean of the tangents of all elements equal to the extremum."""
    (x,), dims = node.inputs, node.attrs[0]
    hits = e.cast(e.eq(x, s.unreduce(node, x.shape, dims)), attrs=(x.dtype,))
    return e.div(s.reduce_sum(e.mul(hits, tangents[0]), dims), s.reduce_sum(hits, dims))


s.REDUCE_MAX.jvp(_extremum_jvp)
s.REDUCE_MIN.jvp(_extremum_jvp)


@s.SCATTER.jvp
def scatter_jvp(node: Value, tangents: Tangents) -> Value:
    """Sums and replacements are linear; other reductions go by their gradient."""
    base, source, *indices = node.inputs
    pattern, mode = node.attrs
    coords = s.coordinates(pattern, indices)
    moved = [e.zero_like(x) if t is None else t for x, t in
             zip((base, source), tangents, strict=False)]
    if mode in ("add", "set"):
        return s.scatter(moved[0], coords, moved[1], mode)
    return NotImplemented
