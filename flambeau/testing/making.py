"""`make_tensor`: random tensors for tests, of any dtype, layout and range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flambeau
from flambeau.core import dtypes
from flambeau.core.dtypes import DType

__all__ = ["make_tensor"]


def make_tensor(*shape: int | Sequence[int], dtype: DType, device: Any, low: float | None = None,
                high: float | None = None, requires_grad: bool = False,
                noncontiguous: bool = False, exclude_zero: bool = False,
                memory_format: Any = None) -> Any:
    """A tensor of numbers drawn evenly from [low, high).

    Args:
        shape: sizes, or one sequence of them.
        low, high: limits. By default [0, 2) for bool, [0, 10) for uint8, [-9, 10) for other
            integers, [-9, 9) for floats and for both parts of complex numbers. They are cut to
            what the dtype can hold.
        noncontiguous: with gaps between the elements (if there are at least two).
        exclude_zero: zeros become the smallest positive number of the dtype.
        memory_format: of the result.

    Raises:
        ValueError: low is not below high, or is NaN; `noncontiguous` and `memory_format` at once;
            bounds for bool that are not 0 and 2; gradients of integers.
        TypeError: no dtype of numbers.

    >>> _ = torch.manual_seed(0)
    >>> torch.testing.make_tensor(2, 3, dtype=torch.int64, device="cpu", low=0, high=5).shape
    torch.Size([2, 3])
    """
    if not isinstance(dtype, DType):
        raise TypeError(f"make_tensor(): dtype must be a torch.dtype, got {dtype!r}")
    if noncontiguous and memory_format is not None:
        raise ValueError("make_tensor(): noncontiguous and memory_format exclude one another, got "
                         f"noncontiguous=True and memory_format={memory_format!r}")
    if requires_grad and dtype.is_integral:
        raise ValueError(f"make_tensor(): gradients need a floating or complex dtype, not {dtype}")
    sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    low, high = _limits(dtype, low, high)
    made = _drawn(sizes, dtype, device, low, high)
    if exclude_zero:
        least = 1 if dtype.is_integral else dtypes.finfo(dtype).tiny
        made[made == 0] = least
    if noncontiguous and made.numel() > 1:
        made = made.repeat_interleave(2, dim=-1)[..., ::2]
    elif memory_format is not None:
        made = made.clone(memory_format=memory_format)
    return made.requires_grad_(requires_grad)


def _limits(dtype: DType, low: float | None, high: float | None) -> tuple[float, float]:
    """The limits that were given or the dtype's own, cut to what it can hold."""
    if dtype is dtypes.bool_:
        usual, least, most = (0, 2), 0, 2
    elif dtype.is_integral:
        facts = dtypes.iinfo(dtype)
        usual = (0, 10) if facts.min == 0 else (-9, 10)
        least, most = facts.min, facts.max + (facts.max < dtypes.iinfo(dtypes.int64).max)
    else:
        facts = dtypes.finfo(dtype)
        usual, least, most = (-9, 9), facts.min, facts.max
    low, high = (own if given is None else given
                 for own, given in zip(usual, (low, high), strict=True))
    if low != low or high != high:
        raise ValueError(f"make_tensor(): low and high must be numbers, got {low} and {high}")
    if dtype is dtypes.bool_ and (low < 0 or high > 2):
        raise ValueError(f"make_tensor(): bounds of bool lie in [0, 2], got {low} and {high}")
    if low >= high:
        raise ValueError(f"make_tensor(): low must be below high, got {low} and {high}")
    low, high = max(low, least), min(high, most)
    if dtype.is_integral:
        low, high = -int(-low // 1), -int(-high // 1)
    if low >= high:
        raise ValueError(f"make_tensor(): there is no {dtype} in these bounds")
    return low, high


def _drawn(sizes: Sequence[int], dtype: DType, device: Any, low: float, high: float) -> Any:
    if dtype is dtypes.bool_:
        return flambeau.randint(low, high, sizes, device=device, dtype=dtypes.bool_)
    if dtype.is_integral:
        return flambeau.randint(low, high, sizes, device=device, dtype=dtype)
    made = flambeau.empty(sizes, device=device, dtype=dtype)
    parts = flambeau.view_as_real(made) if dtype.is_complex else made
    if high - low >= dtypes.finfo(dtype).max:  # the width itself must not overflow
        parts.uniform_(low / 2, high / 2).mul_(2)
    else:
        parts.uniform_(low, high)
    return made
