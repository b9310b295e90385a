"""Vandermonde's matrices: powers of numbers, one row a number."""

from __future__ import annotations

from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import need_tensor
from flambeau.tensor import creation
from flambeau.tensor.functions import ops

__all__ = ["linalg_vander", "vander"]


def linalg_vander(x: Any, *, N: int | None = None) -> Any:
    """Powers 0, 1, ..., N - 1 of the elements of x (..., n) -> (..., n, N); N is n by default.

    >>> torch.linalg.vander(torch.tensor([1, 2, 3]))
    tensor([[1, 1, 1],
            [1, 2, 4],
            [1, 3, 9]])
    """
    need_tensor("linalg.vander", "x", x)
    if x.dtype.kind == "b":
        raise RuntimeError("linalg.vander: Expected a numeric tensor, got Bool")
    if x.ndim < 1:
        raise RuntimeError("linalg.vander: Expected x to have at least 1 dimension.")
    count = x.shape[-1] if N is None else N
    if count <= 1 and N is not None:
        raise RuntimeError("N must be greater than 1.")
    ones = creation.ones((*x.shape, 1), dtype=x.dtype, device=x.device)
    factors = x.unsqueeze(-1).expand(*x.shape, max(count - 1, 0))
    return ops.cat([ones, factors.cumprod(-1)], -1)


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """Powers of the elements of a vector (n) -> (n, N), the highest first unless `increasing`; N is
    n by default.

    >>> torch.vander(torch.tensor([1, 2, 3]))
    tensor([[1, 1, 1],
            [4, 2, 1],
            [9, 3, 1]])
    """
    need_tensor("vander", "x", x)
    if x.ndim != 1:
        raise RuntimeError("x must be a one-dimensional tensor.")
    count = x.shape[0] if N is None else N
    if count < 0:
        raise RuntimeError("N must be non-negative")
    dtype = dtypes.int64 if x.dtype.is_integral else x.dtype
    result = creation.empty(x.shape[0], count, dtype=dtype, device=x.device)
    if count:
        powers = creation.ones(x.shape[0], 1, dtype=dtype, device=x.device)
        if count > 1:
            factors = x.to(dtype).unsqueeze(-1).expand(x.shape[0], count - 1)
            powers = ops.cat([powers, factors.cumprod(-1)], -1)
        result = powers if increasing else powers.flip(-1)
    return result
