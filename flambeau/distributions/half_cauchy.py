"""The half-Cauchy distribution."""

from __future__ import annotations

import math
from typing import Any

import flambeau as torch
from flambeau.distributions._folded import Folded
from flambeau.distributions.cauchy import Cauchy
from flambeau.tensor import Tensor

__all__ = ["HalfCauchy"]


class HalfCauchy(Folded):
    """|x| of Cauchy numbers x around 0.

    >>> d = torch.distributions.HalfCauchy(torch.tensor([1.]))
    >>> d.cdf(torch.tensor([1.]))
    tensor([0.5000])
    """

    def __init__(self, scale: Any, validate_args: bool | None = None):
        super().__init__(Cauchy(0, scale, validate_args=False), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> HalfCauchy:
        new = self._get_checked_instance(HalfCauchy, _instance)
        return super().expand(batch_shape, _instance=new)

    @property
    def mean(self) -> Tensor:
        return torch.full(self._extended_shape(), math.inf, dtype=self.scale.dtype)

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(torch.as_tensor(value, dtype=self.scale.dtype))
