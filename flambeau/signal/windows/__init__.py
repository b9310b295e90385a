"""`torch.signal.windows`: window functions of M points, symmetric, or periodic with sym=False."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from flambeau.core.device import place
from flambeau.core.dtypes import float32, float64
from flambeau.ops.record import dtypes_default
from flambeau.tensor.creation import checked, empty, ones
from flambeau.tensor.formats import strided
from flambeau.tensor.windows import made

__all__ = ["bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine",
           "general_hamming", "hamming", "hann", "kaiser", "nuttall"]


def _checked(name: str, M: int, dtype: Any, layout: Any, device: Any) -> Any:
    """The dtype."""
    dtype = checked(dtype, device) or dtypes_default()
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    if layout is not None and layout is not strided:
        raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
    if dtype not in (float32, float64):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {dtype!r}")
    return dtype


def _window(M: int, start: float, step: float, shape: str, dtype: Any, device: Any,
            requires_grad: bool, coefficients: tuple = (), beta: float = 0.0) -> Any:
    if M == 0:
        return empty(0, dtype=dtype, device=device, requires_grad=requires_grad)
    found = made(start, step, M, shape, dtype, coefficients, beta, place(device))
    return found.requires_grad_() if requires_grad else found


def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True,
                dtype: Any = None, layout: Any = strided, device: Any = None,
                requires_grad: bool = False) -> Any:
    """exp(-|i - center| / tau); the center is that of the window unless given.

    >>> torch.signal.windows.exponential(5, tau=2.0)
    tensor([0.3679, 0.6065, 1.0000, 0.6065, 0.3679])
    """
    dtype = _checked("exponential", M, dtype, layout, device)
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    if center is None:
        center = (M if not sym and M > 1 else M - 1) / 2.0
    return _window(M, -center / tau, 1 / tau, "exponential", dtype, device, requires_grad)


def cosine(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = strided,
           device: Any = None, requires_grad: bool = False) -> Any:
    """sin(pi (i + 0.5) / M), half a wave.

    >>> torch.signal.windows.cosine(4)
    tensor([0.3827, 0.9239, 0.9239, 0.3827])
    """
    dtype = _checked("cosine", M, dtype, layout, device)
    step = math.pi / (M + 1 if not sym and M > 1 else max(M, 1))
    return _window(M, 0.5 * step, step, "sine", dtype, device, requires_grad)


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None,
             layout: Any = strided, device: Any = None, requires_grad: bool = False) -> Any:
    """exp(-x^2 / (2 std^2)), x the distance from the center.

    >>> torch.signal.windows.gaussian(5, std=1.0)
    tensor([0.1353, 0.6065, 1.0000, 0.6065, 0.1353])
    """
    dtype = _checked("gaussian", M, dtype, layout, device)
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    step = 1 / (std * math.sqrt(2))
    start = -(M if not sym and M > 1 else M - 1) / 2.0
    return _window(M, start * step, step, "gaussian", dtype, device, requires_grad)


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None,
           layout: Any = strided, device: Any = None, requires_grad: bool = False) -> Any:
    """I0(beta sqrt(1 - x^2)) / I0(beta), x from -1 to 1 (J. F. Kaiser).

    >>> torch.signal.windows.kaiser(5, beta=6.0)
    tensor([0.0149, 0.4830, 1.0000, 0.4830, 0.0149])
    """
    dtype = _checked("kaiser", M, dtype, layout, device)
    beta = float(beta)
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")
    if M == 1:
        return ones(1, dtype=dtype, device=device, requires_grad=requires_grad)
    step = 2.0 * beta / max(1, M - 1 if sym else M)
    return _window(M, -beta, step, "kaiser", dtype, device, requires_grad, (), beta)


def hamming(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = strided,
            device: Any = None, requires_grad: bool = False) -> Any:
    """0.54 - 0.46 cos(2 pi i / n), n = M - 1, or M if not sym.

    >>> torch.signal.windows.hamming(5)
    tensor([0.0800, 0.5400, 1.0000, 0.5400, 0.0800])
    """
    return general_hamming(M, sym=sym, dtype=dtype, layout=layout, device=device,
                           requires_grad=requires_grad)


def hann(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = strided,
         device: Any = None, requires_grad: bool = False) -> Any:
    """0.5 - 0.5 cos(2 pi i / n), n = M - 1, or M if not sym.

    >>> torch.signal.windows.hann(5)
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    return general_hamming(M, alpha=0.5, sym=sym, dtype=dtype, layout=layout, device=device,
                           requires_grad=requires_grad)


def blackman(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = strided,
             device: Any = None, requires_grad: bool = False) -> Any:
    """0.42 - 0.5 cos x + 0.08 cos 2x, x = 2 pi i / n, n = M - 1, or M if not sym.

    >>> torch.signal.windows.blackman(5)[1:4]
    tensor([0.3400, 1.0000, 0.3400])
    """
    return general_cosine(M, a=[0.42, 0.5, 0.08], sym=sym, dtype=dtype, layout=layout,
                          device=device, requires_grad=requires_grad)


def bartlett(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = strided,
             device: Any = None, requires_grad: bool = False) -> Any:
    """1 - |2 i / n - 1|, n = M - 1, or M if not sym.

    >>> torch.signal.windows.bartlett(5)
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    dtype = _checked("bartlett", M, dtype, layout, device)
    if M == 1:
        return ones(1, dtype=dtype, device=device, requires_grad=requires_grad)
    return _window(M, -1.0, 2 / max(1, M - 1 if sym else M), "triangle", dtype, device,
                   requires_grad)


def general_cosine(M: int, *, a: Iterable[float], sym: bool = True, dtype: Any = None,
                   layout: Any = strided, device: Any = None, requires_grad: bool = False) -> Any:
    """The sum over j of (-1)^j a[j] cos(2 pi i j / n), n = M - 1, or M if not sym.

    >>> torch.signal.windows.general_cosine(5, a=[0.5, 0.5])
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    dtype = _checked("general_cosine", M, dtype, layout, device)
    if M == 1:
        return ones(1, dtype=dtype, device=device, requires_grad=requires_grad)
    if not isinstance(a, Iterable):
        raise TypeError("Coefficients must be a list/tuple")
    coefficients = tuple(a)
    if not coefficients:
        raise ValueError("Coefficients cannot be empty")
    return _window(M, 0.0, 2 * math.pi / max(1, M - 1 if sym else M), "cosines", dtype, device,
                   requires_grad, coefficients)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None,
                    layout: Any = strided, device: Any = None, requires_grad: bool = False) -> Any:
    """alpha - (1 - alpha) cos(2 pi i / n), n = M - 1, or M if not sym.

    >>> torch.signal.windows.general_hamming(5, alpha=0.54)
    tensor([0.0800, 0.5400, 1.0000, 0.5400, 0.0800])
    """
    return general_cosine(M, a=[alpha, 1.0 - alpha], sym=sym, dtype=dtype, layout=layout,
                          device=device, requires_grad=requires_grad)


def nuttall(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = strided,
            device: Any = None, requires_grad: bool = False) -> Any:
    """Nuttall's minimum four-term Blackman-Harris window (A. H. Nuttall, 1981).

    >>> torch.signal.windows.nuttall(5)
    tensor([3.6280e-04, 2.2698e-01, 1.0000e+00, 2.2698e-01, 3.6280e-04])
    """
    return general_cosine(M, a=[0.3635819, 0.4891775, 0.1365995, 0.0106411], sym=sym, dtype=dtype,
                          layout=layout, device=device, requires_grad=requires_grad)
