"""How a gradient becomes, or is added to, a leaf's `.grad`."""

from __future__ import annotations

from sys import getrefcount
from typing import Any

from flambeau.autograd.grad_mode import GRAD_LAYOUT, RECORD, mode
from flambeau.autograd.registry import tensors

__all__ = ["accumulate"]


def _probe_argument(value: object) -> int:
    return getrefcount(value)


class _Slot:
    __slots__ = ("_storage",)


def _probe_attribute() -> int:
    slot = _Slot()
    slot._storage = object()
    return getrefcount(slot._storage)


# What getrefcount says of something nobody else holds; measured, as it differs between Pythons.
_ALONE = _probe_argument([object()].pop())
_STORAGE_ALONE = _probe_attribute()


def accumulate(variable: Any, grad: Any, fresh: bool = False) -> None:
    """Add `grad` to `variable.grad`.

    The first gradient is taken as it is if nobody else can see it (no other reference to it or to
    its memory, `fresh` says so too) and its strides are the variable's; else it is copied. Later
    ones are added in place, so that `variable.grad` stays the same object, unless recording is on.
    """
    if not variable._rg:  # it has stopped to since it was recorded
        return
    wanted = variable._grad_dtype
    if wanted and grad.dtype is not wanted:
        grad, fresh = grad.to(wanted), True
    held = variable._grad
    if held is not None:
        if not held._meta.strided and grad._meta.strided:
            variable._grad = grad + held  # a sparse gradient becomes dense with the first dense one
        elif mode() & RECORD:
            variable._grad = held + grad
        else:
            held.add_(grad)
        return
    if (
        (fresh or getrefcount(grad) == _ALONE)
        and getrefcount(grad._storage) == _STORAGE_ALONE
        and not mode() & RECORD
        and (grad._meta is variable._meta or _same_layout(grad, variable)
             or not GRAD_LAYOUT.enforced)
    ):
        if grad._rg:
            grad = grad.detach()
        variable._grad = grad
    else:
        variable._grad = _copy_for(variable, grad)


def _same_layout(grad: Any, variable: Any) -> bool:
    """True if `grad` has the strides that the gradient of `variable` must have."""
    if not grad._meta.strided or not variable._meta.strided:
        return True
    if not _is_dense(variable):
        return grad.is_contiguous()
    return grad._meta.strides == variable._meta.strides


def _is_dense(tensor: Any) -> bool:
    """True if the elements fill one block of memory without overlap, in any order of dimensions."""
    expected = 1
    layout = tensor._meta
    for stride, size in sorted(zip(layout.strides, layout.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _copy_for(variable: Any, grad: Any) -> Any:
    """A copy of `grad` laid out as `variable` is; recorded if recording is on."""
    if not grad._meta.strided or grad.is_contiguous() and _same_layout(grad, variable):
        return grad.clone()
    make = tensors.make
    if variable.is_contiguous() or not _is_dense(variable):
        copy = make.zeros(grad.shape, dtype=grad.dtype, device=grad.device)
    else:
        copy = make.empty_strided(tuple(grad.shape), variable._meta.strides, dtype=grad.dtype,
                                  device=grad.device)
    copy.copy_(grad)
    return copy
