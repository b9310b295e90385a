"""Images of bytes resampled: one dimension after another, in whole numbers.

The weights of a dimension are computed in double precision and rounded to multiples of a power of
two, the finest with which the largest weight fits 16 bits; sums of bytes times weights are exact
then, and each dimension ends in bytes. That is how Pillow and PyTorch resize pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert

__all__ = ["joined_taps", "resized_bytes"]

LARGEST_WEIGHT = 1 << 15
FINEST = 22  # binary places that weights may have: 32 bits hold sums of bytes times such weights


def resized_bytes(x: Value, tables: Sequence[tuple[Value, Value] | None], few: bool) -> Value:
    """(n, c, h, w) bytes -> (n, c, *out) bytes, the last dimension first.

    Args:
        tables: for each spatial dimension the places, int64, and the weights, float64, of what each
            place of the result is made of, both (out, taps); None keeps the dimension.
        few: there are no more than four taps, whose weights add up to 1.
    """
    for d in reversed(range(len(tables))):
        if tables[d] is not None:
            x = (_resized_exactly if few else _resized)(p.in_memory(x), 2 + d, *tables[d])
    return convert(x, dtypes.uint8)


def joined_taps(taps: Sequence[tuple[Value, Value]]) -> tuple[Value, Value]:
    """Tables of a few taps, (places (out,), weights (out,)) each. Taps at one place become one:
    weights are rounded after they have been added up."""
    weights = []
    for k, (place, weight) in enumerate(taps):
        zero = p.zero_like(weight)
        total = zero
        for there, share in taps:
            total = p.add(total, p.where(p.eq(there, place), share, zero))
        for before, _ in taps[:k]:
            total = p.where(p.eq(before, place), zero, total)
        weights.append(total)
    columns = [place for place, _ in taps], weights
    places, weights = (p.cat([p.reshape(v, (*v.shape, 1)) for v in column], 1)
                       for column in columns)
    return places, weights


def _resized(x: Value, dim: int, places: Value, weights: Value) -> Value:
    """x resized along one dimension."""
    weights = p.in_memory(weights)
    digits = _digits(weights)
    shape = [*x.shape, places.shape[1]]
    shape[dim] = places.shape[0]
    taps = len(shape) - 1
    coords: list = list(range(x.ndim))
    coords[dim] = _along(p.in_memory(places), shape, (dim, taps))
    found = convert(p.lookup(x, coords, shape), dtypes.int32)
    whole = _along(p.in_memory(_whole(weights, digits)), shape, (dim, taps))
    total = p.reduce_sum(p.mul(found, whole), (taps,))
    half = p.shift_left(e.like(1, digits), p.sub(digits, e.like(1, digits)))
    total = p.add(total, _along(half, total.shape, ()))
    total = p.shift_right(total, _along(digits, total.shape, ()))
    return p.minimum(p.maximum(total, p.zero_like(total)), e.like(255, total))


def _resized_exactly(x: Value, dim: int, places: Value, weights: Value) -> Value:
    """The same by the kernel of floats: of a few taps all sums are whole numbers below 2^24."""
    weights = p.in_memory(weights)
    digits = _digits(weights)
    whole = convert(_whole(weights, digits), dtypes.float32)
    size = list(x.shape[2:])
    size[dim - 2] = places.shape[0]
    taps = [0, 0]
    taps[dim - 2] = places.shape[1]
    how = p.Resized(x.shape[2:], tuple(size), tuple(taps), True)
    tables = [p.in_memory(p.permute(table, (1, 0))) for table in (places, whole)]
    total = p.resize(convert(x, dtypes.float32), how, tables)
    scale = convert(_power_of_two(convert(digits, dtypes.float64)), dtypes.float32)
    scale = _along(p.in_memory(scale), total.shape, ())
    total = p.floor(p.add(p.div(total, scale), e.like(0.5, total)))
    return p.minimum(p.maximum(total, p.zero_like(total)), e.like(255, total))


def _along(table: Value, shape: Sequence[int], dims: Sequence[int]) -> Value:
    """A table over the dimensions `dims` of `shape`, the same along all others."""
    return p.expand(p.reshape(table, [n if d in dims else 1 for d, n in enumerate(shape)]), shape)


def _digits(weights: Value) -> Value:
    """How many binary places the weights of a dimension get, as int32 of shape ()."""
    most = p.reduce_max(weights, (0, 1))
    places = convert(p.iota((FINEST,), 0), dtypes.float64)
    scale = _power_of_two(p.add(places, e.like(1, places)))
    scaled = p.add(p.mul(_along(most, (FINEST,), ()), scale), e.like(0.5, scale))
    fits = p.lt(p.floor(scaled), e.like(LARGEST_WEIGHT, scaled))
    return p.in_memory(convert(p.reduce_sum(convert(fits, dtypes.int64), (0,)), dtypes.int32))


def _power_of_two(exponent: Value) -> Value:
    one = e.like(1, convert(exponent, dtypes.int64))
    return convert(p.shift_left(one, convert(exponent, dtypes.int64)), dtypes.float64)


def _whole(weight: Value, digits: Value) -> Value:
    """The weight in units of the last binary place, halves away from zero."""
    scale = _power_of_two(convert(_along(digits, weight.shape, ()), dtypes.float64))
    half = p.copysign(e.like(0.5, weight), weight)
    return convert(p.trunc(p.add(p.mul(weight, scale), half)), dtypes.int32)
