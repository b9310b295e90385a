"""Images read at places that data tells: sums of a few elements each."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.core import dtypes
from flambeau.ir.graph import Value, constant
from flambeau.ops.primitives.elementwise import ge, in_memory, mul, where, zero_like
from flambeau.ops.primitives.joint import joint
from flambeau.ops.primitives.structure import (
    expand,
    lookup,
    permute,
    reduce_sum,
    reshape,
)

__all__ = ["SAMPLED", "sampled"]

CHANNELS = 8  # from which on the definition works place by place, with the channels side by side


def _composite(inputs: Sequence[Value], attrs: tuple) -> tuple[Value]:
    """The definition: look the elements up, weight them, add them up."""
    x, places, weights = inputs
    (n, taps, out), channels = places.shape, x.shape[1]
    none = expand(constant(0, dtypes.int64, number=False), places.shape)
    there = ge(places, none)
    safe = where(there, places, none)
    last = channels >= CHANNELS
    shape = (n, taps, out, channels) if last else (n, taps, channels, out)

    def wide(v: Value) -> Value:
        return expand(reshape(v, (n, taps, out, 1) if last else (n, taps, 1, out)), shape)

    image = in_memory(permute(x, (0, 2, 1))) if last else x
    found = lookup(image, [0, wide(safe), 3] if last else [0, 2, wide(safe)], shape)
    found = where(wide(there), found, zero_like(found))
    total = reduce_sum(mul(found, wide(weights)), (1,))
    return (permute(in_memory(total), (0, 2, 1)) if last else total,)


def _infer(inputs, attrs):
    x, places = inputs[:2]
    return (*x.shape[:2], places.shape[2]), x.dtype


SAMPLED = joint("sampled", 1, _infer, _composite, any_order=True)


def sampled(x: Value, places: Value, weights: Value) -> Value:
    """y[n, c, o] = sum over taps t of w[n, t, o] x[n, c, i[n, t, o]], where the place is not
    negative.

    Args:
        x: (n, c, size).
        places: (n, taps, out) int64, below size.
        weights: (n, taps, out), of the dtype of x.
    """
    if x.dtype not in (dtypes.float32, dtypes.float64) or not x.numel or not places.numel:
        return _composite((x, places, weights), ())[0]
    return SAMPLED(x, places, weights, attrs=(0,))
