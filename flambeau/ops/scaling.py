"""Loss scaling: taking the scale out of gradients, and watching for values that 16 bits lost."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Tensor, op
from flambeau.ops.reduce import amax
from flambeau.ops.samples import Arr, sample

__all__: list[str] = []


def _samples():
    for dtype in ("float32", "float16"):
        yield sample(Arr((3, 5), dtype), Arr((), "float32", 0, 0), Arr((), "float32", 0.5, 2))


@op(returns=("grad", "found_inf"), mutates=("grad", "found_inf"), method=False, public=(),
    out=False, refuses="bui", opmath=False, differentiable=False, samples=_samples)
def unscale_step(grad: Tensor, found_inf: Tensor, inverse_scale: Tensor, anew: bool = False):
    """grad * inverse_scale, and 1 in `found_inf` if an element of grad is not finite. `anew`: else
    0, whatever is there."""
    wide = convert(grad, dtypes.float32) if grad.dtype.itemsize < 4 else grad
    scaled = p.mul(wide, p.expand(convert(inverse_scale, wide.dtype), wide.shape))
    lost = p.sub(wide, wide)  # 0, or NaN where wide is infinite or NaN
    lost = convert(p.ne(lost, lost), dtypes.float32)
    found = p.filled(0, found_inf) if anew else found_inf
    if grad.numel:
        lost = p.reshape(amax(lost), found_inf.shape)
        found = lost if anew else p.maximum(found_inf, lost)
    return convert(scaled, grad.dtype), found
