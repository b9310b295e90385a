"""Images of bytes resampled: one dimension after another, in whole numbers.

The weights of a dimension are computed in double precision and rounded to multiples of a power of
two, the finest with which the largest weight fits 16 bits. Sums of bytes times weights are whole
numbers that floats hold, so the kernel that resizes floats computes them exactly, and each
dimension ends in bytes. That is how Pillow and PyTorch resize pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert

__all__ = ["Taps", "joined_taps", "resized_bytes"]

LARGEST_WEIGHT = 1 << 15
FINEST = 22  # binary places that weights may have


class Taps(NamedTuple):
    """What each place of a resized dimension is made of.

    Attributes:
        places, weights: tables (taps, out) for `primitives.resize`, the weights in float64.
        most: as `Resized.most`.
    """

    places: Value
    weights: Value
    most: int = 0


def joined_taps(taps: Sequence[tuple[Value, Value]]) -> Taps:
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
    return Taps(*(p.cat([p.reshape(v, (1, *v.shape)) for v in column], 0) for column in columns))


def resized_bytes(x: Value, tables: Sequence[Taps | None]) -> Value:
    """(n, c, h, w) bytes -> (n, c, *out) bytes, the last dimension first; None keeps one."""
    for d in reversed(range(len(tables))):
        if tables[d] is not None:
            x = _resized(x, d, tables[d])
    return convert(x, dtypes.uint8)


def _resized(x: Value, d: int, taps: Taps) -> Value:
    """x (bytes, or floats with their values) resized along spatial dimension d, as floats.

    Four weights that add up to 1 make sums below 2^24, which float32 holds; more may not.
    """
    dtype = dtypes.float32 if taps.places.shape[0] <= 4 else dtypes.float64
    weights = p.in_memory(taps.weights)
    digits = _digits(weights)
    whole = convert(_whole(weights, digits), dtype)
    size, counts, most = list(x.shape[2:]), [0, 0], [0, 0]
    size[d], counts[d], most[d] = taps.places.shape[1], taps.places.shape[0], taps.most
    how = p.Resized(x.shape[2:], tuple(size), tuple(counts), True, tuple(most))
    total = p.resize(convert(x, dtype), how, [p.in_memory(taps.places), p.in_memory(whole)])
    scale = _spread(p.in_memory(_power_of_two(digits, dtype)), total.shape)
    total = p.floor(p.add(p.div(total, scale), e.like(0.5, total)))
    return p.minimum(p.maximum(total, p.zero_like(total)), e.like(255, total))


def _digits(weights: Value) -> Value:
    """How many binary places the weights of a dimension get, as int64 of shape ()."""
    most = _spread(p.reduce_max(weights, (0, 1)), (FINEST,))
    places = p.iota((FINEST,), 0)
    scale = _power_of_two(p.add(places, e.like(1, places)), dtypes.float64)
    scaled = p.add(p.mul(most, scale), e.like(0.5, scale))
    fits = p.lt(p.floor(scaled), e.like(LARGEST_WEIGHT, scaled))
    return p.in_memory(p.reduce_sum(convert(fits, dtypes.int64), (0,)))


def _whole(weight: Value, digits: Value) -> Value:
    """The weight in units of the last binary place, halves away from zero."""
    scale = _spread(_power_of_two(digits, weight.dtype), weight.shape)
    half = p.copysign(e.like(0.5, weight), weight)
    return p.trunc(p.add(p.mul(weight, scale), half))


def _power_of_two(exponent: Value, dtype: DType) -> Value:
    return convert(p.shift_left(e.like(1, exponent), exponent), dtype)


def _spread(number: Value, shape: Sequence[int]) -> Value:
    """One value everywhere."""
    return p.expand(p.reshape(number, (1,) * len(shape)), tuple(shape))
