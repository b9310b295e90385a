"""What functions of linear algebra ask of their arguments, and results into `out=`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import LEVELS, is_recording, mode
from flambeau.core.arguments import need_tensor
from flambeau.core.shapes import broadcast_shapes
from flambeau.tensor import dispatch
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.results import result_class

__all__ = ["adjoint", "batch_of", "differentiated", "is_vector", "named", "need_fit",
           "need_floats", "need_matrices", "need_pivot", "need_same_dtype", "need_square",
           "written"]


def need_floats(name: str, x: Any, what: str = "A") -> None:
    """Raise unless x is a tensor of floats or complex numbers of 32 bits or more.

    Raises:
        TypeError: no tensor.
        NotImplementedError: another dtype. (PyTorch's functions raise this, or its base
            RuntimeError.)
    """
    need_tensor(name, what, x)
    dtype = x.dtype
    if dtype.is_integral:
        raise NotImplementedError(f"{name}: Expected a floating point or complex tensor as input. "
                                  f"Got {dtype.scalar_name}")
    if dtype.is_reduced or dtype.itemsize < 4:
        raise NotImplementedError(f"{name}: Low precision dtypes not supported. Got "
                                  f"{dtype.scalar_name}: convert with .to(torch.float32) first")


def need_matrices(name: str, x: Any, what: str = "A") -> None:
    """Raise unless x is a floating tensor of matrices."""
    need_floats(name, x, what)
    if x.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor {what} must have at least 2 dimensions.")


def need_square(name: str, x: Any, what: str = "A") -> None:
    """Raise unless x is a floating tensor of square matrices."""
    need_matrices(name, x, what)
    rows, columns = x.shape[-2:]
    if rows != columns:
        raise RuntimeError(f"{name}: {what} must be batches of square matrices, but they are "
                           f"{rows} by {columns} matrices")


def need_same_dtype(name: str, a: Any, b: Any, names: tuple[str, str] = ("A", "B")) -> None:
    """Raise unless both tensors have the same dtype."""
    need_tensor(name, names[1], b)
    if a.dtype is not b.dtype:
        first, second = names
        raise RuntimeError(f"{name}: Expected {first} and {second} to have the same dtype, but "
                           f"found {first} of type {a.dtype.scalar_name} and {second} of type "
                           f"{b.dtype.scalar_name} instead")


def batch_of(*xs: Any) -> tuple[int, ...]:
    """The batch dimensions that matrices broadcast to."""
    return broadcast_shapes(*(tuple(x.shape[:-2]) for x in xs))


def is_vector(a: Any, b: Any) -> bool:
    """Is b, beside matrices a, one vector or a batch of them (rather than of matrices)?"""
    return b.ndim == 1 or a.ndim - 1 == b.ndim and tuple(b.shape) == tuple(a.shape[:-1])


def adjoint(x: Any) -> Any:
    """The conjugate transpose."""
    turned = x.transpose(-2, -1)
    return turned.conj() if x.dtype.is_complex else turned


def differentiated(*xs: Any) -> bool:
    """May somebody ask for a gradient with respect to one of these, or for tangents?"""
    return bool(mode() & LEVELS) or is_recording() and any(
        isinstance(x, TensorBase) and x.requires_grad for x in xs)


def named(name: str, fields: tuple[str, ...], values: Sequence[Any], out: Any = None) -> Any:
    """Results with names, written to the tensors `out` if they are given."""
    if out is not None:
        if len(out) != len(values):
            raise TypeError(f"{name}(): 'out' must hold {len(values)} tensors, got {len(out)}")
        values = [written(name, value, place) for value, place in zip(values, out, strict=True)]
    return result_class(name, fields)(values)


def written(name: str, value: Any, out: Any) -> Any:
    """`value`, or `out` with it, resized if need be."""
    if out is None:
        return value
    need_tensor(name, "out", out)
    if is_recording() and (value.requires_grad or out.requires_grad):
        raise RuntimeError(f"{name}(): functions with out=... arguments don't support automatic "
                           "differentiation, but one of the arguments requires grad.")
    dispatch.check_castable(value.dtype, out.dtype)
    if tuple(out.shape) != tuple(value.shape):
        out.resize_(value.shape)
    return out.copy_(value)


def need_fit(name: str, A: Any, b: Any, left: bool) -> None:
    """Raise unless A X = b (X A = b if not `left`) is a system of equations."""
    if b.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor B must have at least 2 dimensions.")
    if A.shape[-2] != b.shape[-2 if left else -1]:
        equation = "AX = B" if left else "XA = B"
        raise RuntimeError(f"{name}: Incompatible shapes of A and B for the equation {equation} "
                           f"({A.shape[-2]}x{A.shape[-1]} and {b.shape[-2]}x{b.shape[-1]})")


def need_pivot(name: str, pivot: bool) -> None:
    """Raise if LU without pivoting is asked for."""
    if not pivot:
        raise RuntimeError(f"{name}: LU without pivoting is not implemented on the CPU")
