"""Rounding to integers, and what is left."""

from __future__ import annotations

import numpy as np

from flambeau.ops import primitives as p
from flambeau.ops.elementwise import like
from flambeau.ops.record import Tensor, op
from flambeau.ops.samples import unary


@op(inplace=True, refuses="b", samples=unary(), oracle=np.floor)
def floor(input: Tensor):
    """The largest integer not above.

    >>> torch.floor(torch.tensor([-1.5, 0.2, 2.]))
    tensor([-2.,  0.,  2.])
    """
    return p.floor(input)


@op(inplace=True, refuses="b", samples=unary(), oracle=np.ceil)
def ceil(input: Tensor):
    """The smallest integer not below.

    >>> torch.ceil(torch.tensor([-1.5, 0.2, 2.]))
    tensor([-1.,  1.,  2.])
    """
    return p.ceil(input)


@op(inplace=True, refuses="b", samples=unary(), oracle=np.trunc, aliases=("fix",))
def trunc(input: Tensor):
    """The integer part.

    >>> torch.trunc(torch.tensor([-1.7, 0.2, 2.9]))
    tensor([-1.,  0.,  2.])
    """
    return p.trunc(input)


@op(inplace=True, refuses="b", samples=unary(), oracle=np.round)
def round(input: Tensor, *, decimals: int = 0):
    """The nearest integer (halves to even), or the nearest multiple of 10 ** -decimals.

    >>> torch.round(torch.tensor([0.5, 1.5, -2.3]))
    tensor([ 0.,  2., -2.])
    >>> torch.round(torch.tensor([1.234, 56.789]), decimals=1)
    tensor([ 1.2000, 56.8000])
    """
    if decimals == 0:
        return p.round_(input)
    if input.dtype.is_integral:
        raise NotImplementedError(f"\"round_cpu\" not implemented for '{input.dtype.scalar_name}': "
                                  "integers are rounded to decimals=0 only; convert with "
                                  ".to(torch.float32) first")
    scale = like(10.0 ** abs(decimals), input)
    if decimals > 0:
        return p.div(p.round_(p.mul(input, scale)), scale)
    return p.mul(p.round_(p.div(input, scale)), scale)


@op(inplace=True, refuses="bui", samples=unary())
def frac(input: Tensor):
    """The fractional part, with the sign of the input.

    >>> torch.frac(torch.tensor([-1.75, 0.25, 2.5]))
    tensor([-0.7500,  0.2500,  0.5000])
    """
    return p.sub(input, p.stop_gradient(p.trunc(input)))
