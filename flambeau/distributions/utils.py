"""What several distributions need: broadcasting, probabilities and logits, lazy parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flambeau as torch
from flambeau.nn import functional as F
from flambeau.tensor import Tensor

__all__ = ["broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits",
           "standard_normal", "sum_rightmost", "tril_matrix_to_vec", "vec_to_tril_matrix"]

euler_constant = 0.57721566490153286060


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape.

    Numbers take the dtype of the first tensor, or the default one if there is none.

    Raises:
        ValueError: neither a number nor a tensor.
    """
    if all(type(value) is Tensor for value in values):
        return tuple(torch.broadcast_tensors(*values))
    for value in values:
        if not torch.overrides.is_tensor_like(value) and not isinstance(value, (int, float, bool)):
            raise ValueError("Input arguments must all be instances of Number, torch.Tensor or "
                             f"objects implementing __torch_function__, not {type(value)}")
    if not all(torch.overrides.is_tensor_like(value) for value in values):
        first = next((v for v in values if isinstance(v, Tensor)), None)
        dtype = torch.get_default_dtype() if first is None else first.dtype
        values = tuple(v if torch.overrides.is_tensor_like(v) else torch.tensor(v, dtype=dtype)
                       for v in values)
    return tuple(torch.broadcast_tensors(*values))


def is_number(value: Any) -> bool:
    """A Python number, not a tensor?"""
    return isinstance(value, (int, float, bool))


def standard_normal(shape: Any, dtype: Any, device: Any = None) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, dtype=dtype, device=device)


_standard_normal = standard_normal


def sum_rightmost(value: Any, dims: int) -> Any:
    """The sum over the last `dims` dimensions."""
    if dims == 0:
        return value
    shape = value.shape[:-dims] if dims else value.shape
    return value.reshape(tuple(shape) + (-1,)).sum(-1)


_sum_rightmost = sum_rightmost


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept by one rounding step away from 0 and 1."""
    eps = torch.finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities from log odds (binary), or from unnormalised log probabilities (last dim)."""
    return torch.sigmoid(logits) if is_binary else F.softmax(logits, dim=-1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Log odds (binary) or log probabilities; finite also for 0 and 1."""
    probs = clamp_probs(probs)
    return torch.log(probs) - torch.log1p(-probs) if is_binary else torch.log(probs)


class lazy_property:
    """A property that is computed once, when it is first asked for, and then kept."""

    def __init__(self, wrapped: Callable):
        self.wrapped = wrapped
        self.__doc__ = wrapped.__doc__
        self.__name__ = wrapped.__name__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        with torch.enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The entries of the lower triangle up to a diagonal, row by row: (..., n, n) -> (..., m).

    Raises:
        ValueError: no such diagonal.
    """
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    rows = torch.arange(n)
    mask = rows < (rows + diag + 1).unsqueeze(-1)
    return mat[..., mask]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The inverse of `tril_matrix_to_vec`: (..., m) -> (..., n, n), zeros elsewhere.

    Raises:
        ValueError: no triangle has that many entries.
    """
    size = vec.shape[-1]
    n = (-(1 + 2 * diag) + ((1 + 2 * diag) ** 2 + 8 * size + 4 * abs(diag) * (diag + 1)) ** 0.5) / 2
    if not round(n) - n == 0:
        raise ValueError(f"The size of last dimension is {size} which cannot be expressed as the "
                         "lower triangular part of a square D x D matrix.")
    n = round(n)
    mat = vec.new_zeros(tuple(vec.shape[:-1]) + (n, n))
    rows = torch.arange(n)
    mask = rows < (rows + diag + 1).unsqueeze(-1)
    mat[..., mask] = vec
    return mat
