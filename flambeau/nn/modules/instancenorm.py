"""Normalization of each sample's channels on their own."""

from __future__ import annotations

import warnings
from typing import Any

from flambeau.nn import functional as F
from flambeau.nn.modules.batchnorm import _NormBase
from flambeau.tensor import Tensor

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]


class _InstanceNorm(_NormBase):
    """(x - mean) / sqrt(variance + eps), per sample and channel over the spatial dimensions.

    Ulyanov et al., Instance normalization, 2016. Arguments as of BatchNorm, but neither affine nor
    tracking by default.
    """

    _dims: int

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1,
                 affine: bool = False, track_running_stats: bool = False, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias=bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (self._dims + 1, self._dims + 2):
            raise ValueError(f"expected {self._dims + 1}D or {self._dims + 2}D input (got "
                             f"{input.dim()}D input)")

    def _check_channels(self, input: Tensor) -> None:
        axis = input.dim() - self._dims - 1
        if input.size(axis) == self.num_features:
            return
        if self.affine:
            raise ValueError(f"expected input's size at dim={axis} to match num_features "
                             f"({self.num_features}), but got: {input.size(axis)}.")
        warnings.warn(f"input's size at dim={axis} does not match num_features. You can silence "
                      "this warning by not passing in num_features, which is not used because "
                      "affine=False", stacklevel=5)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        self._check_channels(input)
        batched = input.dim() == self._dims + 2
        x = input if batched else input.unsqueeze(0)
        x = F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                            self.training or not self.track_running_stats,
                            self.momentum if self.momentum is not None else 0.0, self.eps)
        return x if batched else x.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Instance norm of (N, C, L) or (C, L); arguments as of `BatchNorm1d`."""

    _dims = 1


class InstanceNorm2d(_InstanceNorm):
    """Instance norm of (N, C, H, W) or (C, H, W); arguments as of `BatchNorm2d`."""

    _dims = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance norm of (N, C, D, H, W) or (C, D, H, W); arguments as of `BatchNorm3d`."""

    _dims = 3
