"""Sums over segments: rows of a table, chosen by number, weighted, added up by consecutive runs.

One primitive is the product of a compressed sparse matrix with a dense one, the sum of equal
entries once they are sorted, and the bags of an embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flambeau.core import dtypes
from flambeau.ir.graph import Value, constant
from flambeau.ops.primitives.elementwise import cast, mul
from flambeau.ops.primitives.joint import joint
from flambeau.ops.primitives.scan import cumsum
from flambeau.ops.primitives.structure import expand, lookup, reshape, scatter, slice_dim

__all__ = ["SEGMENT_SUM", "Segments", "segment_rows", "segment_sum", "segment_sum_composite"]


@dataclasses.dataclass(frozen=True)
class Segments:
    """What a sum over segments is besides its operands.

    Attributes:
        weighted: whether entries have weights.
        checked: whether an index may be out of range, which is an error then.
    """

    weighted: bool
    checked: bool = False


def segment_rows(offsets: Value, entries: int) -> Value:
    """The segment that each entry belongs to: segment s holds offsets[s] to offsets[s + 1]."""
    inner = slice_dim(offsets, 0, 1, 1, max(offsets.shape[0] - 2, 0))
    zero = expand(constant(0, dtypes.int64, number=False), (entries + 1,))
    one = expand(constant(1, dtypes.int64, number=False), inner.shape)
    marks = scatter(zero, [inner], one, "add")
    return slice_dim(cumsum(marks, 0), 0, 0, 1, entries)


def segment_sum_composite(inputs: Sequence[Value], attrs: tuple) -> tuple[Value]:
    """The definition: look the rows up, weight them, add them where they belong."""
    offsets, index, x, *weights = inputs
    rows, (entries,), width = offsets.shape[0] - 1, index.shape, x.shape[1]
    place = (entries, width)

    def wide(v: Value) -> Value:
        return expand(reshape(v, (entries, 1)), place)

    source = lookup(x, [wide(index), 1], place)
    if attrs[0].weighted:
        source = mul(source, wide(weights[0]))
    nothing = cast(constant(0, dtypes.int64, number=False), attrs=(x.dtype,))
    row = wide(segment_rows(offsets, entries))
    return (scatter(expand(nothing, (rows, width)), [row, 1], source, "add"),)


def _infer(inputs, attrs):
    return (inputs[0].shape[0] - 1, inputs[2].shape[1]), inputs[2].dtype


SEGMENT_SUM = joint("segment_sum", 1, _infer, segment_sum_composite)


def segment_sum(offsets: Value, index: Value, x: Value, weights: Value | None = None,
                checked: bool = False) -> Value:
    """out[s] = sum of weights[k] * x[index[k]] over offsets[s] <= k < offsets[s + 1], in order.

    Args:
        offsets: (segments + 1,) int64, not falling, from 0 to the number of entries.
        index: (entries,) int64, in [0, size), which is only looked at if `checked`.
        x: (size, width).
        weights: (entries,), of the dtype of x.
    """
    form = Segments(weights is not None, checked)
    operands = (offsets, index, x) if weights is None else (offsets, index, x, weights)
    if x.dtype not in (dtypes.float32, dtypes.float64):
        return segment_sum_composite(operands, (form,))[0]
    return SEGMENT_SUM(*operands, attrs=(form, 0))
