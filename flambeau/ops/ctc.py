"""One time step of connectionist temporal classification (Graves et al. 2006)."""

from __future__ import annotations

from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import floats_only
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.samples import Arr, sample

NEVER = -1e30  # log probability of what cannot be: finite, so that no gradient is inf - inf


def _shifted(x: Value, amount: int) -> Value:
    """x moved right by `amount` places, NEVER in front."""
    return p.spread(x, (0, amount), (1, 1), x.shape, NEVER)


@op(name="_ctc_step", method=False, out=False, public=(), grad="CtcLossBackward0",
    samples=lambda: iter([sample(Arr((2, 5)), Arr((2, 5)), Arr((2, 5), "bool"),
                                 Arr((2,), "bool"))]))
def _ctc_step(alpha: Tensor, step: Tensor, skips: Index, active: Index):
    """log probabilities of having reached each place of the extended labels, one step later.

    From alpha (n, places): stay, come from the place before, or (where `skips`) from the one before
    that; times the probability `step` of the label. Rows that are not `active` stay as they are.
    """
    floats_only("ctc_loss", alpha)
    before, two = _shifted(alpha, 1), _shifted(alpha, 2)
    two = p.where(skips, two, e.like(NEVER, two))
    top = p.stop_gradient(p.maximum(p.maximum(alpha, before), two))
    total = p.exp(p.sub(alpha, top))
    for other in (before, two):
        total = p.add(total, p.exp(p.sub(other, top)))
    new = p.add(p.add(p.log(total), top), step)
    new = p.maximum(new, e.like(NEVER, new))
    return p.where(p.unreduce(active, new.shape, (1,)), new, alpha)
