"""Windows of a given length: the functions of PyTorch's main namespace."""

from __future__ import annotations

import math
from typing import Any

from flambeau.core.arguments import kind_of
from flambeau.core.device import CPU, Device, place
from flambeau.ops.record import dtypes_default
from flambeau.tensor.creation import checked, ones
from flambeau.tensor.devices import made_on

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window",
           "made"]


def made(start: float, step: float, count: int, shape: str, dtype: Any,
         coefficients: tuple = (), beta: float = 0.0, device: Device = CPU) -> Any:
    """The op `_window`."""
    return made_on(device, "_window", float(start), float(step), count, shape,
                   tuple(map(float, coefficients)), float(beta), dtype)


def _options(dtype: Any, layout: Any, device: Any, requires_grad: bool) -> dict[str, Any]:
    return {"dtype": dtype, "layout": layout, "device": device, "requires_grad": requires_grad}


def _classic(name: str, length: int, periodic: bool, shape: str, span: tuple[float, float],
             options: dict, coefficients: tuple = (), beta: float = 0.0) -> Any:
    """A window whose last point (one more, if periodic) lies at the end of `span`."""
    if isinstance(length, bool) or not hasattr(length, "__index__"):
        raise TypeError(f"{name}(): argument 'window_length' (position 1) must be int, not "
                        f"{kind_of(length)}")
    requires_grad = options["requires_grad"]
    device = options["device"]
    dtype = checked(options["dtype"], device, options["layout"]) or dtypes_default()
    if dtype.kind not in "fc":
        raise RuntimeError(f"{name} expects floating point dtypes, got: {dtype!r}")
    if length < 0:
        raise RuntimeError(f"{name} requires non-negative window_length, got "
                           f"window_length={length}")
    if length <= 1:
        return ones(length, dtype=dtype, device=device, requires_grad=requires_grad)
    start, end = span
    step = (end - start) / (length if periodic else length - 1)
    found = made(start, step, length, shape, dtype, coefficients, beta, place(device))
    return found.requires_grad_() if requires_grad else found


def hann_window(window_length: int, periodic: bool = True, *, dtype: Any = None, layout: Any = None,
                device: Any = None, pin_memory: bool = False, requires_grad: bool = False) -> Any:
    """0.5 - 0.5 cos(2 pi i / n): n is the length if periodic, else one less.

    >>> torch.hann_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    return _classic("hann_window", window_length, periodic, "cosines", (0, 2 * math.pi),
                    _options(dtype, layout, device, requires_grad),
                    (0.5, 0.5))


def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54,
                   beta: float = 0.46, *, dtype: Any = None, layout: Any = None, device: Any = None,
                   pin_memory: bool = False, requires_grad: bool = False) -> Any:
    """alpha - beta cos(2 pi i / n): n is the length if periodic, else one less.

    >>> torch.hamming_window(4)
    tensor([0.0800, 0.5400, 1.0000, 0.5400])
    """
    return _classic("hamming_window", window_length, periodic, "cosines", (0, 2 * math.pi),
                    _options(dtype, layout, device, requires_grad),
                    (alpha, beta))


def blackman_window(window_length: int, periodic: bool = True, *, dtype: Any = None,
                    layout: Any = None, device: Any = None, pin_memory: bool = False,
                    requires_grad: bool = False) -> Any:
    """0.42 - 0.5 cos x + 0.08 cos 2x, x = 2 pi i / n: n is the length if periodic, else one
    less.

    >>> torch.blackman_window(4)[1:]
    tensor([0.3400, 1.0000, 0.3400])
    """
    return _classic("blackman_window", window_length, periodic, "cosines", (0, 2 * math.pi),
                    _options(dtype, layout, device, requires_grad), (0.42, 0.5, 0.08))


def bartlett_window(window_length: int, periodic: bool = True, *, dtype: Any = None,
                    layout: Any = None, device: Any = None, pin_memory: bool = False,
                    requires_grad: bool = False) -> Any:
    """1 - |2 i / n - 1|: n is the length if periodic, else one less.

    >>> torch.bartlett_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    return _classic("bartlett_window", window_length, periodic, "triangle", (-1, 1),
                    _options(dtype, layout, device, requires_grad))


def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, *,
                  dtype: Any = None, layout: Any = None, device: Any = None,
                  pin_memory: bool = False, requires_grad: bool = False) -> Any:
    """I0(beta sqrt(1 - (2 i / n - 1)^2)) / I0(beta): n is the length if periodic, else one less
    (J. F. Kaiser).

    >>> torch.kaiser_window(4, periodic=True, beta=6.0)
    tensor([0.0149, 0.4830, 1.0000, 0.4830])
    """
    return _classic("kaiser_window", window_length, periodic, "kaiser", (-beta, beta),
                    _options(dtype, layout, device, requires_grad), (),
                    beta)
