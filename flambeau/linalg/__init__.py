"""Linear algebra: `torch.linalg`. Names are ops of the op table; decompositions are not here."""

from __future__ import annotations

from typing import Any

from flambeau.tensor import public
from flambeau.tensor.functions import ops

__all__ = ["norm", "vector_norm", "matmul"]


def norm(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, out: Any = None,
         dtype: Any = None) -> Any:
    """The vector norm of order `ord` (2 by default) over dim; matrix norms other than the Frobenius
    norm are not implemented."""
    if ord in ("nuc",) or (ord is not None and not isinstance(ord, str) and (
            (dim is None and A.ndim == 2) or (isinstance(dim, (tuple, list)) and len(dim) == 2))):
        raise NotImplementedError(f"linalg.norm: the matrix norm ord={ord!r} is not implemented; "
                                  "use linalg.vector_norm, or ord=None for the Frobenius norm")
    order = 2.0 if ord in (None, "fro") else float(ord)
    dim = tuple(dim) if isinstance(dim, list) else dim
    return ops.vector_norm(A, order, dim, keepdim, dtype=dtype)


def __getattr__(name: str) -> Any:
    if name == "matmul":
        return ops.matmul
    found = public.lookup("linalg", name)
    if found is None:
        raise AttributeError(f"module 'flambeau.linalg' has no attribute {name!r}: not implemented "
                             "yet, or no such name in PyTorch")
    return found
