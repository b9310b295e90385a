"""Normalization within a sample: over trailing dimensions, channel groups or near channels."""

from __future__ import annotations

import numbers
from typing import Any

import flambeau
from flambeau.nn import functional as F
from flambeau.nn import init
from flambeau.nn.modules.module import Module
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

__all__ = ["LocalResponseNorm", "LayerNorm", "GroupNorm", "RMSNorm"]


def _parameter(shape: tuple, wanted: bool, device: Any, dtype: Any) -> Parameter | None:
    return Parameter(flambeau.empty(shape, device=device, dtype=dtype)) if wanted else None


class LocalResponseNorm(Module):
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta.

    Krizhevsky et al., ImageNet classification with deep convolutional neural networks, 2012.

    Args:
        size: number of channels.
        alpha: factor of the mean.
        beta: exponent.
        k: constant.
    """

    __constants__ = ["size", "alpha", "beta", "k"]

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class LayerNorm(Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions.

    Ba et al., Layer normalization, 2016.

    Args:
        normalized_shape: sizes of the last dimensions; one number for the last alone.
        eps: added to the (biased) variance.
        elementwise_affine: whether there are learnt weight and bias.
        bias: whether there is a bias (only with `elementwise_affine`).
        device: where the parameters live.
        dtype: of the parameters.

    Attributes:
        weight: `normalized_shape`, ones at first; or None.
        bias: `normalized_shape`, zeros at first; or None.
    """

    __constants__ = ["normalized_shape", "eps", "elementwise_affine"]

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        if isinstance(normalized_shape, numbers.Integral):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        shape = self.normalized_shape
        self.register_parameter("weight", _parameter(shape, elementwise_affine, device, dtype))
        self.register_parameter("bias", _parameter(shape, elementwise_affine and bias, device,
                                                   dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}")


class GroupNorm(Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias over groups of channels.

    Wu and He, Group normalization, 2018.

    Args:
        num_groups: into how many groups the channels are split.
        num_channels: C of the input (N, C, *).
        eps: added to the (biased) variance.
        affine: whether there are learnt weight and bias.
        device: where the parameters live.
        dtype: of the parameters.
        bias: whether there is a bias (only with `affine`).

    Attributes:
        weight: (C,), ones at first; or None.
        bias: (C,), zeros at first; or None.
    """

    __constants__ = ["num_groups", "num_channels", "eps", "affine"]

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
                 device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups "
                             f"({num_groups})")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.register_parameter("weight", _parameter((num_channels,), affine, device, dtype))
        self.register_parameter("bias", _parameter((num_channels,), affine and bias, device,
                                                   dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions.

    Zhang and Sennrich, Root mean square layer normalization, 2019.

    Args:
        normalized_shape: sizes of the last dimensions; one number for the last alone.
        eps: added to the mean square; the dtype's epsilon by default.
        elementwise_affine: whether there is a learnt weight.
        device: where the parameter lives.
        dtype: of the parameter.

    Attributes:
        weight: `normalized_shape`, ones at first; or None.
    """

    __constants__ = ["normalized_shape", "eps", "elementwise_affine"]

    def __init__(self, normalized_shape: Any, eps: float | None = None,
                 elementwise_affine: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        if isinstance(normalized_shape, numbers.Integral):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", _parameter(self.normalized_shape, elementwise_affine,
                                                     device, dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}")
