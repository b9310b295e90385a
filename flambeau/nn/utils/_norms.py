"""The norm that both forms of weight normalization use."""

from __future__ import annotations

import flambeau
from flambeau.tensor import Tensor

__all__ = ["norm_except"]


def norm_except(weight: Tensor, dim: int) -> Tensor:
    """2-norms over all dimensions but `dim`, which are kept with size 1; of everything if `dim` is
    -1."""
    if dim == -1:
        return flambeau.linalg.vector_norm(weight)
    others = [d for d in range(weight.ndim) if d != dim % weight.ndim]
    return flambeau.linalg.vector_norm(weight, dim=others, keepdim=True) if others else weight.abs()
