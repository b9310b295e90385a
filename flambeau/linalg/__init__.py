"""Linear algebra: `torch.linalg`. Names are ops of the op table; of the decompositions only QR is
here, by the LAPACK that NumPy brings along."""

from __future__ import annotations

from typing import Any

import numpy as np

from flambeau.autograd.grad_mode import is_recording
from flambeau.core.dtypes import complex64, complex128, float32, float64
from flambeau.tensor import public
from flambeau.tensor.functions import ops
from flambeau.tensor.interop import array_of, from_numpy
from flambeau.tensor.norms import linalg_norm as norm
from flambeau.tensor.norms import matrix_norm, vector_norm
from flambeau.tensor.results import result_class

__all__ = ["norm", "vector_norm", "matrix_norm", "cross", "diagonal", "matmul",
           "qr"]


def cross(input: Any, other: Any, *, dim: int = -1, out: Any = None) -> Any:
    """The cross product of vectors of three elements along dim."""
    return ops.cross(input, other, dim, out=out)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """The diagonals of matrices, which lie in dimensions dim1 and dim2."""
    return ops.diagonal(A, offset, dim1, dim2)


def qr(A: Any, mode: str = "reduced", *, out: Any = None) -> Any:
    """A = QR: Q with orthonormal columns, R upper triangular; (..., m, n) matrices.

    Args:
        mode: "reduced", "complete", or "r" (Q is empty).

    Raises:
        NotImplementedError: `A` requires grad: the decomposition is not differentiable yet.
    """
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced' "
                           "(default), 'r', or 'complete'")
    if A.ndim < 2:
        raise RuntimeError(f"linalg.qr: The input tensor A must have at least 2 dimensions, got "
                           f"{A.ndim}.")
    if A.dtype not in (float32, float64, complex64, complex128):
        raise RuntimeError("linalg.qr: Expected a floating point or complex tensor as input, of "
                           f"32 or 64 bits. Got {A.dtype!r}")
    if A.requires_grad and is_recording():
        raise NotImplementedError("linalg.qr is not differentiable yet; call it under "
                                  "torch.no_grad()")
    if mode == "r":
        q, r = np.empty(0, A.dtype.numpy), np.linalg.qr(array_of(A), "r")
    else:
        q, r = np.linalg.qr(array_of(A), mode)
    results = tuple(from_numpy(np.ascontiguousarray(part)) for part in (q, r))
    if out is not None:
        for target, part in zip(out, results, strict=True):
            target.resize_(part.shape).copy_(part)
        return out
    return result_class("linalg_qr", ("Q", "R"))(results)


def __getattr__(name: str) -> Any:
    if name == "matmul":
        return ops.matmul
    found = public.lookup("linalg", name)
    if found is None:
        raise AttributeError(f"module 'flambeau.linalg' has no attribute {name!r}: not implemented "
                             "yet, or no such name in PyTorch")
    return found
