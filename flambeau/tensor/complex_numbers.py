"""Complex numbers as users see them: `real` and `imag` are views where there is something to view.

PyTorch conjugates lazily, by a bit on a view; here `conj` computes a copy, so that no other
operation has to know of it. What is written to the result does not reach the original.
"""

from __future__ import annotations

from typing import Any

from flambeau.core.arguments import need_tensor
from flambeau.tensor.functions import ops

__all__ = ["real", "imag", "complex_", "conj", "conj_physical", "resolve_conj",
           "resolve_neg", "is_conj", "is_neg", "adjoint"]


def real(input: Any) -> Any:
    """The real parts, on the same memory; a real tensor is its own.

    >>> torch.real(torch.tensor([1 + 2j, 3 - 1j]))
    tensor([1., 3.])
    """
    need_tensor("real", "input", input)
    return ops._real_part(input) if input.dtype.is_complex else input


def imag(input: Any) -> Any:
    """The imaginary parts of a complex tensor, on the same memory.

    Raises:
        RuntimeError: the tensor is not complex.

    >>> torch.imag(torch.tensor([1 + 2j, 3 - 1j]))
    tensor([ 2., -1.])
    """
    return ops._imag_part(input)


def complex_(real: Any, imag: Any, *, out: Any = None) -> Any:
    """The complex tensor real + i * imag of two float tensors of one dtype.

    >>> torch.complex(torch.tensor([1., 2.]), torch.tensor([3., 4.]))
    tensor([1.+3.j, 2.+4.j])
    """
    made = ops._complex(real, imag)
    if out is not None and out.dtype is not made.dtype:
        raise RuntimeError(f"Expected object of scalar type {made.dtype.scalar_name} but got "
                           f"scalar type {out.dtype.scalar_name} for argument 'out'")
    return made if out is None else out.resize_(made.shape).copy_(made)


def conj(input: Any) -> Any:
    """The complex conjugate, as a copy; a real tensor is its own.

    >>> torch.conj(torch.tensor([1 + 2j, 3 - 1j]))
    tensor([1.-2.j, 3.+1.j])
    """
    need_tensor("conj", "input", input)
    return ops.conj_physical(input) if input.dtype.is_complex else input


def conj_physical(input: Any, *, out: Any = None) -> Any:
    """The complex conjugate, as a copy; a real tensor is its own.

    >>> torch.conj_physical(torch.tensor([1 + 2j, 3 - 1j]))
    tensor([1.-2.j, 3.+1.j])
    """
    need_tensor("conj_physical", "input", input)
    if out is None and not input.dtype.is_complex:
        return input
    return ops.conj_physical(input) if out is None else ops.conj_physical(input, out=out)


def resolve_conj(input: Any) -> Any:
    """The tensor itself: conjugates are never left to be done later.

    >>> torch.resolve_conj(torch.tensor([1 + 2j]).conj())
    tensor([1.-2.j])
    """
    return input


def resolve_neg(input: Any) -> Any:
    """The tensor itself: negations are never left to be done later.

    >>> torch.resolve_neg(torch.tensor([1., 2.]))
    tensor([1., 2.])
    """
    return input


def is_conj(input: Any) -> bool:
    """Is a conjugation left to be done? Never here.

    >>> torch.is_conj(torch.ones(2))
    False
    """
    return False


is_neg = is_conj


def adjoint(input: Any) -> Any:
    """The conjugate transpose of matrices (the last two dimensions).

    >>> torch.adjoint(torch.tensor([[1 + 1j, 2j], [3 + 0j, 4 + 0j]]))
    tensor([[1.-1.j, 3.-0.j],
            [0.-2.j, 4.-0.j]])
    """
    need_tensor("adjoint", "input", input)
    return input.mH


def _set_real(self: Any, value: Any) -> None:
    real(self).copy_(_tensor(value, self))


def _set_imag(self: Any, value: Any) -> None:
    imag(self).copy_(_tensor(value, self))


def _tensor(value: Any, like: Any) -> Any:
    from flambeau.tensor.meta import TensorBase

    if isinstance(value, TensorBase):
        return value
    from flambeau.tensor.creation import as_tensor

    return as_tensor(value, dtype=like.dtype.to_real(), device=like.device)


def attach(cls: type) -> None:
    """Give the tensor class its methods and attributes for complex numbers."""
    cls.real = property(real, _set_real, doc=real.__doc__)
    cls.imag = property(imag, _set_imag, doc=imag.__doc__)
    for function in (conj, conj_physical, resolve_conj, resolve_neg, adjoint):
        setattr(cls, function.__name__, function)
