"""Linear algebra: `torch.linalg`. Names are ops of the op table; decompositions are not here."""

from __future__ import annotations

from typing import Any

from flambeau.tensor import public
from flambeau.tensor.functions import ops
from flambeau.tensor.norms import linalg_norm as norm
from flambeau.tensor.norms import matrix_norm, vector_norm

__all__ = ["norm", "vector_norm", "matrix_norm", "cross", "diagonal", "matmul"]


def cross(input: Any, other: Any, *, dim: int = -1, out: Any = None) -> Any:
    """The cross product of vectors of three elements along dim."""
    return ops.cross(input, other, dim, out=out)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """The diagonals of matrices, which lie in dimensions dim1 and dim2."""
    return ops.diagonal(A, offset, dim1, dim2)


def __getattr__(name: str) -> Any:
    if name == "matmul":
        return ops.matmul
    found = public.lookup("linalg", name)
    if found is None:
        raise AttributeError(f"module 'flambeau.linalg' has no attribute {name!r}: not implemented "
                             "yet, or no such name in PyTorch")
    return found
