"""The half-normal distribution."""

from __future__ import annotations

import math
from typing import Any

from flambeau.distributions._folded import Folded
from flambeau.distributions.normal import Normal
from flambeau.tensor import Tensor

__all__ = ["HalfNormal"]


class HalfNormal(Folded):
    """|x| of normal numbers x of mean 0 and standard deviation `scale`.

    >>> d = torch.distributions.HalfNormal(torch.tensor([1.]))
    >>> d.mean, d.cdf(torch.tensor([1.96]))
    (tensor([0.7979]), tensor([0.9500]))
    """

    def __init__(self, scale: Any, validate_args: bool | None = None):
        super().__init__(Normal(0, scale, validate_args=False), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> HalfNormal:
        new = self._get_checked_instance(HalfNormal, _instance)
        return super().expand(batch_shape, _instance=new)

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        return self.scale.pow(2) * (1 - 2 / math.pi)
