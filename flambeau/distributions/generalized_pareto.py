"""The generalized Pareto distribution."""

from __future__ import annotations

from typing import Any

import flambeau as torch
from flambeau.distributions import constraints
from flambeau.distributions.distribution import Distribution
from flambeau.distributions.utils import broadcast_all, is_number
from flambeau.tensor import Tensor

__all__ = ["GeneralizedPareto"]


class GeneralizedPareto(Distribution):
    """What exceeds a high threshold: P(X > x) = (1 + k z)^(-1 / k) with z = (x - loc) / scale and
    the concentration k; exp(-z) at k = 0.

    >>> d = torch.distributions.GeneralizedPareto(0., 1., 0.25)
    >>> d.mean, d.cdf(torch.tensor(1.))
    (tensor(1.3333), tensor(0.5904))
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive,
                       "concentration": constraints.real}
    has_rsample = True
    _fields = {"loc": 0, "scale": 0, "concentration": 0}

    def __init__(self, loc: Any, scale: Any, concentration: Any,
                 validate_args: bool | None = None):
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        numbers = is_number(loc) and is_number(scale) and is_number(concentration)
        super().__init__(torch.Size() if numbers else self.loc.size(),
                         validate_args=validate_args)

    def _is_exponential(self) -> Tensor:
        """Where k is so near 0 that formulas in 1 / k lose their digits."""
        return torch.isclose(self.concentration, torch.zeros_like(self.concentration))

    def _safe(self) -> Tensor:
        k = self.concentration
        return torch.where(self._is_exponential(), torch.ones_like(k), k)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        lower = self.loc
        upper = torch.where(self.concentration < 0, lower - self.scale / self.concentration,
                            torch.inf)
        return constraints.interval(lower, upper)

    @property
    def mean(self) -> Tensor:
        k = self.concentration
        valid = k < 1
        inner = torch.where(valid, k, 0.5)
        return torch.where(valid, self.loc + self.scale / (1 - inner), torch.inf)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        k = self.concentration
        valid = k < 0.5
        inner = torch.where(valid, k, 0.25)
        return torch.where(valid, self.scale ** 2 / ((1 - inner) ** 2 * (1 - 2 * inner)), torch.nan)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return self.icdf(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device))

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._checked(value)
        z, k, plain = self._z(value), self._safe(), self._is_exponential()
        general = -(1 / k + torch.ones_like(k)) * torch.log1p(k * z)
        log_prob = torch.where(plain, -z, general) - torch.log(self.scale)
        return torch.where(z >= 0, log_prob, -torch.inf)

    def log_survival_function(self, value: Tensor) -> Tensor:
        """log P(X > value)."""
        value = self._checked(value)
        z, k = self._z(value), self._safe()
        return torch.where(self._is_exponential(), -z, -torch.log1p(k * z) / k)

    def log_cdf(self, value: Tensor) -> Tensor:
        """log P(X <= value)."""
        return torch.log1p(-torch.exp(self.log_survival_function(value)))

    def cdf(self, value: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        k, log_rest = self._safe(), torch.log1p(-value)
        general = self.loc + self.scale * torch.expm1(-k * log_rest) / k
        return torch.where(self._is_exponential(), self.loc - self.scale * log_rest, general)

    def entropy(self) -> Tensor:
        return torch.log(self.scale) + self.concentration + 1

    def _z(self, value: Tensor) -> Tensor:
        return (value - self.loc) / self.scale

