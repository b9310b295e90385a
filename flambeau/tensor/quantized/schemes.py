"""How integers stand for numbers: number = (integer - zero point) * scale."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.core.qschemes import QScheme

__all__ = ["PACKED", "Quantizer", "limits", "range_parameters"]


_LIMITS = {dtypes.qint8: (-128, 127), dtypes.quint8: (0, 255), dtypes.qint32: (-2**31, 2**31 - 1),
           dtypes.quint4x2: (0, 15), dtypes.quint2x4: (0, 3)}

PACKED = {dtypes.quint4x2: 2, dtypes.quint2x4: 4}
"""Dtypes of which a byte holds several levels, the first in its lowest bits."""


def limits(dtype: DType) -> tuple[int, int]:
    """The lowest and the highest level of a quantized dtype."""
    return _LIMITS[dtype]


@dataclasses.dataclass(frozen=True, eq=False)
class Quantizer:
    """What the integers of a tensor mean.

    Attributes:
        dtype: the quantized dtype.
        scheme: how the integers stand for numbers.
        scale, zero_point: numbers, or tensors of one element a channel.
        axis: the dimension of channels; None for one scale of all.
    """

    dtype: DType
    scheme: QScheme
    scale: Any
    zero_point: Any
    axis: int | None = None

    @property
    def per_channel(self) -> bool:
        return self.axis is not None

    def beside(self, rank: int) -> tuple[Any, Any]:
        """(scale, zero point) as they broadcast to tensors of this rank."""
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)

    def same(self, other: Quantizer) -> bool:
        """Do equal integers stand for equal numbers?"""
        if (self.dtype, self.scheme, self.axis) != (other.dtype, other.scheme, other.axis):
            return False
        if self.axis is None:
            return self.scale == other.scale and self.zero_point == other.zero_point
        return self.scale.tolist() == other.scale.tolist() and (
            self.zero_point.tolist() == other.zero_point.tolist())


# ---------------------------------------------------------------------- from the range of numbers
_SMALLEST_SCALE = 6.0999998822808266e-05  # the float32 nearest to 6.1e-5


def range_parameters(low: float, high: float, lowest: int, highest: int) -> tuple[float, int]:
    """(scale, zero point) by which `lowest` .. `highest` cover low .. high and 0, which gets a
    level of its own."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (highest - lowest)
    if scale == 0.0 or math.isinf(1.0 / scale):
        scale = 0.1
    if scale < _SMALLEST_SCALE:
        grown, scale = _SMALLEST_SCALE / scale, _SMALLEST_SCALE
        low, high = low * grown, high * grown
    from_low, from_high = lowest - low / scale, highest - high / scale
    # rounding errs less for the end whose terms are smaller
    nearer_low = abs(lowest) + abs(low / scale) < abs(highest) + abs(high / scale)
    zero = from_low if nearer_low else from_high
    return scale, min(max(round(zero), lowest), highest)
