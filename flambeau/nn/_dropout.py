"""Dropout in its forms: whole channels, and to the saturation of SELU."""

from __future__ import annotations

import math
import warnings

import flambeau
from flambeau.core.arguments import need_tensor
from flambeau.tensor import Tensor
from flambeau.tensor.random import room

__all__ = ["alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

_SELU_SATURATION = 1.7580993408473766  # -(scale * alpha) of SELU, with the sign turned


def _drop(input: Tensor, p: float, training: bool, inplace: bool, *, features: bool,
          alpha: bool) -> Tensor:
    """Dropout of whole channels (`features`), or to SELU's saturation (`alpha`), or both."""
    if p < 0.0 or p > 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or input.numel() == 0:
        return input
    if p == 1:
        return input.mul_(0.0) if inplace else input * 0.0
    if input.is_nested and not features:
        from flambeau.tensor.nested.tensor import on_numbers

        return on_numbers(_drop, input, p, training, inplace, features=False, alpha=alpha)
    if features and input.dim() < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    if features:
        noise = input.new_empty((*input.shape[:2], *[1] * (input.dim() - 2)))
    else:
        noise = flambeau.empty_like(input.detach())  # drawn in the order of memory
    noise = room(noise).bernoulli_(1 - p)
    if not alpha:
        noise.div_(1 - p)
        return input.mul_(noise) if inplace else input * noise
    scale = 1.0 / math.sqrt((_SELU_SATURATION ** 2 * p + 1) * (1 - p))
    shift = noise.add(-1).mul_(_SELU_SATURATION * scale).add_(_SELU_SATURATION * scale * p)
    noise.mul_(scale)
    return input.mul_(noise).add_(shift) if inplace else input * noise + shift


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                  inplace: bool = False) -> Tensor:
    """Sets elements to SELU's negative saturation, keeping mean and variance, if training."""
    return _drop(input, p, training, inplace, features=False, alpha=True)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                          inplace: bool = False) -> Tensor:
    """alpha_dropout of whole channels."""
    return _drop(input, p, training, inplace, features=True, alpha=True)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, L) or (C, L).

    >>> F.dropout1d(torch.ones(1, 2, 3), training=False)
    tensor([[[1., 1., 1.],
             [1., 1., 1.]]])
    """
    if input.dim() not in (2, 3):
        raise RuntimeError(f"dropout1d: Expected 2D or 3D input, but received a {input.dim()}D "
                           "input. Note that dropout1d exists to provide channel-wise dropout on "
                           "inputs with 1 spatial dimension, a channel dimension, and an optional "
                           "batch dimension (i.e. 2D or 3D inputs).")
    batched = input.dim() == 3
    if not batched:
        input = input.unsqueeze_(0) if inplace else input.unsqueeze(0)
    result = _drop(input, p, training, inplace, features=True, alpha=False)
    if not batched:
        result = result.squeeze_(0) if inplace else result.squeeze(0)
    return result


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, H, W).

    >>> F.dropout2d(torch.ones(1, 2, 1, 2), training=False)
    tensor([[[[1., 1.]],
    <BLANKLINE>
             [[1., 1.]]]])
    """
    need_tensor("dropout2d", "input", input)
    if input.dim() not in (3, 4):
        warnings.warn(f"dropout2d: Received a {input.dim()}-D input to dropout2d, which is "
                      "deprecated and will result in an error in a future release. To retain the "
                      "behavior and silence this warning, please use dropout instead. Note that "
                      "dropout2d exists to provide channel-wise dropout on inputs with 2 spatial "
                      "dimensions, a channel dimension, and an optional batch dimension (i.e. 3D "
                      "or 4D inputs).", stacklevel=2)
    elif input.dim() == 3:
        warnings.warn("dropout2d: Received a 3D input to dropout2d and assuming that channel-wise "
                      "1D dropout behavior is desired - input is interpreted as shape (N, C, L), "
                      "where C is the channel dim. This behavior will change in a future release "
                      "to interpret the input as one without a batch dimension, i.e. shape "
                      "(C, H, W). To maintain the 1D channel-wise dropout behavior, please switch "
                      "to using dropout1d instead.", stacklevel=2)
    return _drop(input, p, training, inplace, features=True, alpha=False)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, D, H, W) or (C, D, H, W).

    >>> F.dropout3d(torch.ones(1, 2, 1, 1, 2), training=False)
    tensor([[[[[1., 1.]]],
    <BLANKLINE>
    <BLANKLINE>
             [[[1., 1.]]]]])
    """
    need_tensor("dropout3d", "input", input)
    batched = input.dim() == 5
    if input.dim() not in (4, 5):
        warnings.warn(f"dropout3d: Received a {input.dim()}-D input to dropout3d, which is "
                      "deprecated and will result in an error in a future release; please use "
                      "dropout instead.", stacklevel=2)
    if not batched:
        input = input.unsqueeze_(0) if inplace else input.unsqueeze(0)
    result = _drop(input, p, training, inplace, features=True, alpha=False)
    if not batched:
        result = result.squeeze_(0) if inplace else result.squeeze(0)
    return result
