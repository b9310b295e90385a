"""Operations on random masks; the streams themselves are primitives."""

from __future__ import annotations

from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Number, Tensor, lift, op
from flambeau.ops.samples import Arr, sample


@op(method=False, public=(), out=False, grad="MulBackward0", refuses="bui",
    samples=lambda: iter([sample(Arr((3, 4)), Arr((3, 4), "float32", 0, 1), 0.5)]))
def _dropout(input: Tensor, mask: Index, keep: Number):
    """input * (mask / keep)."""
    mask = convert(mask, input.dtype)
    scale = p.div(mask, p.expand(convert(lift(keep), mask.dtype), mask.shape))
    return p.mul(input, scale)
