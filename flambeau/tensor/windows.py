"""Windows of a given length: the functions of PyTorch's main namespace."""

from __future__ import annotations

import math
from typing import Any

from flambeau.core.arguments import kind_of
from flambeau.ops.record import dtypes_default
from flambeau.tensor.creation import checked, ones
from flambeau.tensor.functions import ops

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window",
           "made"]


def made(start: float, step: float, count: int, shape: str, dtype: Any,
         coefficients: tuple = (), beta: float = 0.0) -> Any:
    """The op `_window`."""
    return ops._window(float(start), float(step), count, shape,
                       tuple(map(float, coefficients)), float(beta), dtype)


def _classic(name: str, length: int, periodic: bool, shape: str, span: tuple[float, float],
             options: dict, coefficients: tuple = (), beta: float = 0.0) -> Any:
    """A window whose last point (one more, if periodic) lies at the end of `span`."""
    if isinstance(length, bool) or not hasattr(length, "__index__"):
        raise TypeError(f"{name}(): argument 'window_length' (position 1) must be int, not "
                        f"{kind_of(length)}")
    requires_grad = options.pop("requires_grad", False)
    options.pop("pin_memory", None)
    dtype = checked(options.pop("dtype", None), options.pop("device", None),
                    options.pop("layout", None)) or dtypes_default()
    if options:
        raise TypeError(f"{name}() got an unexpected keyword argument {next(iter(options))!r}")
    if dtype.kind not in "fc":
        raise RuntimeError(f"{name} expects floating point dtypes, got: {dtype!r}")
    if length < 0:
        raise RuntimeError(f"{name} requires non-negative window_length, got "
                           f"window_length={length}")
    if length <= 1:
        return ones(length, dtype=dtype, requires_grad=requires_grad)
    start, end = span
    step = (end - start) / (length if periodic else length - 1)
    found = made(start, step, length, shape, dtype, coefficients, beta)
    return found.requires_grad_() if requires_grad else found


def hann_window(window_length: int, periodic: bool = True, **options: Any) -> Any:
    """0.5 - 0.5 cos(2 pi i / n): n is the length if periodic, else one less."""
    return _classic("hann_window", window_length, periodic, "cosines", (0, 2 * math.pi), options,
                    (0.5, 0.5))


def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54,
                   beta: float = 0.46, **options: Any) -> Any:
    """alpha - beta cos(2 pi i / n): n is the length if periodic, else one less."""
    return _classic("hamming_window", window_length, periodic, "cosines", (0, 2 * math.pi), options,
                    (alpha, beta))


def blackman_window(window_length: int, periodic: bool = True, **options: Any) -> Any:
    """0.42 - 0.5 cos x + 0.08 cos 2x, x = 2 pi i / n: n is the length if periodic, else one
    less."""
    return _classic("blackman_window", window_length, periodic, "cosines", (0, 2 * math.pi),
                    options, (0.42, 0.5, 0.08))


def bartlett_window(window_length: int, periodic: bool = True, **options: Any) -> Any:
    """1 - |2 i / n - 1|: n is the length if periodic, else one less."""
    return _classic("bartlett_window", window_length, periodic, "triangle", (-1, 1), options)


def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, **options: Any
                  ) -> Any:
    """I0(beta sqrt(1 - (2 i / n - 1)^2)) / I0(beta): n is the length if periodic, else one less
    (J. F. Kaiser)."""
    return _classic("kaiser_window", window_length, periodic, "kaiser", (-beta, beta), options, (),
                    beta)
