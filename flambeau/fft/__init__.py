"""`torch.fft`: discrete Fourier transforms, ops of the op table, and the frequencies they give."""

from __future__ import annotations

import math
from typing import Any

from flambeau.ops.record import dtypes_default
from flambeau.tensor import public
from flambeau.tensor.creation import arange, checked
from flambeau.tensor.functions import ops

__all__ = sorted({"fftfreq", "rfftfreq", *public.names("fft")})


def _frequencies(name: str, n: int, d: float, first: int, end: int, out: Any, dtype: Any,
                 layout: Any, device: Any, requires_grad: bool) -> Any:
    """The numbers 0 to end - 1, then first to -1, over n d."""
    if n < 0:
        raise RuntimeError(f"{name}(): n must not be negative, got {n}")
    dtype = checked(dtype, device, layout)
    if dtype is not None and dtype.is_integral:
        raise RuntimeError(f"{name} requires a floating point or complex dtype, got {dtype!r}")
    dtype = dtype or (dtypes_default() if out is None else out.dtype)
    places = arange(n if first else end, dtype=dtype, device=device)
    if first:
        places = ops.where(places < end, places, places - n)
    made = places * (1.0 / (n * d) if n and d else math.inf)
    if out is not None:
        return out.resize_(made.shape).copy_(made)
    return made.requires_grad_() if requires_grad else made


def fftfreq(n: int, d: float = 1.0, *, out: Any = None, dtype: Any = None, layout: Any = None,
            device: Any = None, requires_grad: bool = False) -> Any:
    """The frequencies, in cycles per unit of d, that the n results of `fft` belong to, when samples
    lie d apart: 0, 1 / (n d), ..., then the negative ones from the lowest on.

    >>> torch.fft.fftfreq(4, d=0.5)
    tensor([ 0.0000,  0.5000, -1.0000, -0.5000])
    """
    return _frequencies("fftfreq", n, d, -(n // 2), (n + 1) // 2, out, dtype, layout, device,
                        requires_grad)


def rfftfreq(n: int, d: float = 1.0, *, out: Any = None, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Any:
    """The frequencies, in cycles per unit of d, that the results of `rfft` belong to, when samples
    lie d apart: 0, 1 / (n d), ..., half of 1 / d.

    >>> torch.fft.rfftfreq(4, d=0.5)
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _frequencies("rfftfreq", n, d, 0, n // 2 + 1, out, dtype, layout, device, requires_grad)


def __getattr__(name: str) -> Any:
    found = public.lookup("fft", name)
    if found is None:
        raise AttributeError(f"module 'flambeau.fft' has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    return list(__all__)
