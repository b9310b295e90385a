"""Expectations of simple functions of x under a distribution, and expected log densities from them.

The parts of Kullback-Leibler divergences between families: MOMENTS[type(p)](p) knows E_p[x] and its
like, LOG_DENSITIES[type(q)](q, moments) makes E_p[log q] of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flambeau as torch
from flambeau.distributions.beta import Beta
from flambeau.distributions.continuous_bernoulli import ContinuousBernoulli
from flambeau.distributions.exponential import Exponential
from flambeau.distributions.gamma import Gamma
from flambeau.distributions.gumbel import Gumbel
from flambeau.distributions.laplace import Laplace
from flambeau.distributions.normal import Normal
from flambeau.distributions.pareto import Pareto
from flambeau.distributions.uniform import Uniform
from flambeau.distributions.utils import euler_constant
from flambeau.tensor import Tensor

__all__ = ["LOG_DENSITIES", "MOMENTS"]


class Moments:
    """Expectations under p; those that no divergence needs are missing.

    Attributes:
        low, high: the bounds of the support, numbers or tensors.
    """

    low: Any = -math.inf
    high: Any = math.inf

    def __init__(self, p: Any):
        self.p = p

    @property
    def mean(self) -> Tensor:
        return self.p.mean

    @property
    def variance(self) -> Tensor:
        return self.p.variance

    @property
    def log(self) -> Tensor:
        """E[log x]."""
        raise NotImplementedError(f"E[log x] under {type(self.p).__name__}")

    @property
    def log_rest(self) -> Tensor:
        """E[log(1 - x)]."""
        raise NotImplementedError(f"E[log(1 - x)] under {type(self.p).__name__}")

    def decay(self, scale: Tensor) -> Tensor:
        """E[exp(-x / scale)]."""
        raise NotImplementedError(f"E[exp(-x)] under {type(self.p).__name__}")

    def distance(self, loc: Tensor) -> Tensor:
        """E|x - loc|."""
        raise NotImplementedError(f"E|x| under {type(self.p).__name__}")


class _OfBeta(Moments):
    low, high = 0.0, 1.0

    @property
    def log(self) -> Tensor:
        a, b = self.p.concentration1, self.p.concentration0
        return a.digamma() - (a + b).digamma()


class _OfContinuousBernoulli(Moments):
    low, high = 0.0, 1.0


class _OfExponential(Moments):
    low = 0.0

    @property
    def log(self) -> Tensor:
        return -euler_constant - self.p.rate.log()

    def decay(self, scale: Tensor) -> Tensor:
        rate = self.p.rate * scale
        return rate / (rate + 1)


class _OfGamma(Moments):
    low = 0.0

    @property
    def log(self) -> Tensor:
        return self.p.concentration.digamma() - self.p.rate.log()

    def decay(self, scale: Tensor) -> Tensor:
        return (1 + (self.p.rate * scale).reciprocal()).pow(-self.p.concentration)


class _OfNormal(Moments):
    def decay(self, scale: Tensor) -> Tensor:
        return torch.exp(-self.p.loc / scale + 0.5 * (self.p.scale / scale).pow(2))

    def distance(self, loc: Tensor) -> Tensor:
        gap, s = self.p.loc - loc, self.p.scale
        return (s * math.sqrt(2 / math.pi) * torch.exp(-0.5 * (gap / s).pow(2))
                + gap * torch.erf(math.sqrt(0.5) * gap / s))


class _OfPareto(Moments):
    @property
    def low(self) -> Tensor:  # type: ignore[override]
        return self.p.scale

    @property
    def log(self) -> Tensor:
        return self.p.scale.log() + self.p.alpha.reciprocal()


class _OfUniform(Moments):
    @property
    def low(self) -> Tensor:  # type: ignore[override]
        return self.p.low

    @property
    def high(self) -> Tensor:  # type: ignore[override]
        return self.p.high

    @staticmethod
    def _mean_log(a: Tensor, b: Tensor) -> Tensor:
        """The mean of log x over [a, b]."""
        return (torch.xlogy(b, b) - torch.xlogy(a, a)) / (b - a) - 1

    @property
    def log(self) -> Tensor:
        return self._mean_log(self.p.low, self.p.high)

    @property
    def log_rest(self) -> Tensor:
        return self._mean_log(1 - self.p.high, 1 - self.p.low)

    def decay(self, scale: Tensor) -> Tensor:
        span = self.p.high - self.p.low
        return scale * (torch.exp(-self.p.low / scale) - torch.exp(-self.p.high / scale)) / span


MOMENTS: dict[type, Callable[[Any], Moments]] = {
    Beta: _OfBeta, ContinuousBernoulli: _OfContinuousBernoulli, Exponential: _OfExponential,
    Gamma: _OfGamma, Gumbel: Moments, Laplace: Moments, Normal: _OfNormal, Pareto: _OfPareto,
    Uniform: _OfUniform}


# -- expected log densities -----------------------------------------------------------------------
def _beyond(m: Moments, low: Any, high: Any = math.inf) -> Tensor | None:
    """Where x reaches below `low` or above `high`; None if it cannot."""
    found = None
    if isinstance(m.low, Tensor) or isinstance(low, Tensor) or m.low < low:
        found = torch.as_tensor(m.low < low)
    if isinstance(m.high, Tensor) or isinstance(high, Tensor) or m.high > high:
        above = torch.as_tensor(m.high > high)
        found = above if found is None else found | above
    return found


def _exponential(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    return q.rate.log() - q.rate * m.mean, _beyond(m, 0.0)


def _gamma(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    expected = (q.concentration * q.rate.log() - q.concentration.lgamma()
                + (q.concentration - 1) * m.log - q.rate * m.mean)
    return expected, _beyond(m, 0.0)


def _normal(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    spread = m.variance + (m.mean - q.loc).pow(2)
    return -0.5 * (math.log(2 * math.pi) + spread / q.scale.pow(2)) - q.scale.log(), None


def _beta(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    a, b = q.concentration1, q.concentration0
    norm = a.lgamma() + b.lgamma() - (a + b).lgamma()
    return (a - 1) * m.log + (b - 1) * m.log_rest - norm, _beyond(m, 0.0, 1.0)


def _continuous_bernoulli(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    expected = m.mean * q.logits + torch.log1p(-q.probs) + q._cont_bern_log_norm()
    return expected, _beyond(m, 0.0, 1.0)


def _gumbel(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    linear = -(m.mean - q.loc) / q.scale - q.scale.log()
    return linear - torch.exp(q.loc / q.scale) * m.decay(q.scale), None


def _uniform(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    return -(q.high - q.low).log(), _beyond(m, q.low, q.high)


def _pareto(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    expected = q.alpha.log() + q.alpha * q.scale.log() - (q.alpha + 1) * m.log
    return expected, _beyond(m, q.scale)


def _laplace(q: Any, m: Moments) -> tuple[Tensor, Tensor | None]:
    return -(2 * q.scale).log() - m.distance(q.loc) / q.scale, None


LOG_DENSITIES: dict[type, Callable[[Any, Moments], tuple[Tensor, Tensor | None]]] = {
    Exponential: _exponential, Gamma: _gamma, Normal: _normal, Beta: _beta,
    ContinuousBernoulli: _continuous_bernoulli, Gumbel: _gumbel, Uniform: _uniform,
    Pareto: _pareto, Laplace: _laplace}
