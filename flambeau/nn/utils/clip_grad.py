"""Limiting gradients by their norm or by value."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import flambeau
from flambeau.tensor import Tensor
from flambeau.tensor.lists import INPLACE, over_lists

__all__ = ["get_total_norm", "clip_grads_with_norm_", "clip_grad_norm_", "clip_grad_norm",
           "clip_grad_value_"]


def _as_list(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def get_total_norm(tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0,
                   error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """The norm of all tensors together, as if they were one vector.

    Args:
        tensors: one tensor or several.
        norm_type: which norm; `inf` for the greatest magnitude.
        error_if_nonfinite: whether a norm that is no finite number is an error.
        foreach: accepted and ignored.

    Raises:
        RuntimeError: the norm is not finite and `error_if_nonfinite` is set.
    """
    tensors = _as_list(tensors)
    norm_type = float(norm_type)
    if not tensors:
        return flambeau.tensor(0.0)
    with flambeau.no_grad():
        device = tensors[0].device
        norms = flambeau._foreach_norm(tensors, norm_type)
        total = flambeau.linalg.vector_norm(
            flambeau.stack([norm.to(device) for norm in norms]), norm_type)
        if error_if_nonfinite and not bool(flambeau.isfinite(total)):
            raise RuntimeError(
                f"The total norm of order {norm_type} for gradients from `parameters` is "
                "non-finite, so it cannot be clipped. To disable this error and scale the "
                "gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
            )
    return total


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float,
                          total_norm: Tensor, foreach: bool | None = None) -> None:
    """Scale the gradients by max_norm / total_norm, if that is less than 1.

    The factor is applied even when it is 1: so nothing waits for its value.
    """
    gradients = [p.grad for p in _as_list(parameters) if p.grad is not None]
    if not gradients:
        return
    with flambeau.no_grad():
        factor = flambeau.clamp(float(max_norm) / (total_norm + 1e-6), max=1.0)
        over_lists("mul", INPLACE)(gradients, factor)


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float,
                    norm_type: float = 2.0, error_if_nonfinite: bool = False,
                    foreach: bool | None = None) -> Tensor:
    """Scale the gradients of `parameters` so that their common norm is at most `max_norm`.

    Args:
        parameters: one tensor or several; those without a gradient are skipped.
        max_norm: the limit.
        norm_type: which norm; `inf` for the greatest magnitude.
        error_if_nonfinite: whether a norm that is no finite number is an error.
        foreach: accepted and ignored.

    Returns:
        The norm before clipping.
    """
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    else:
        generator = not isinstance(parameters, list | tuple)
        parameters = list(parameters)
        if generator and not parameters:
            warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.",
                          stacklevel=2)
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = get_total_norm(gradients, norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


def clip_grad_norm(parameters: Tensor | Iterable[Tensor], max_norm: float,
                   norm_type: float = 2.0, error_if_nonfinite: bool = False,
                   foreach: bool | None = None) -> Tensor:
    """Deprecated name of `clip_grad_norm_`."""
    warnings.warn("`torch.nn.utils.clip_grad_norm` is now deprecated in favor of "
                  "`torch.nn.utils.clip_grad_norm_`.", FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float,
                     foreach: bool | None = None) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value]."""
    clip_value = float(clip_value)
    gradients = [p.grad for p in _as_list(parameters) if p.grad is not None]
    if gradients:
        with flambeau.no_grad():
            over_lists("clamp", INPLACE)(gradients, -clip_value, clip_value)
