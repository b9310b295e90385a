"""The von Mises distribution."""

from __future__ import annotations

import math
from typing import Any

import flambeau as torch
from flambeau.distributions import constraints
from flambeau.distributions.distribution import Distribution
from flambeau.distributions.utils import broadcast_all, lazy_property
from flambeau.tensor import Tensor

__all__ = ["VonMises"]


def _log_i0(x: Tensor) -> Tensor:
    return torch.log(torch.special.i0e(x)) + x


class VonMises(Distribution):
    """Angles of [-pi, pi): density exp(concentration cos(x - loc)) / (2 pi I0(concentration)).

    >>> d = torch.distributions.VonMises(torch.tensor([0.]), torch.tensor([1.]))
    >>> d.log_prob(torch.tensor([0.]))
    tensor([-1.0738])
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real
    has_rsample = False
    _fields = {"loc": 0, "concentration": 0}

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._checked(value)
        log_prob = self.concentration * torch.cos(value - self.loc)
        return log_prob - math.log(2 * math.pi) - _log_i0(self.concentration)

    @lazy_property
    def _proposal_r(self) -> Tensor:
        """The parameter of the wrapped Cauchy envelope (Best and Fisher 1979), in double."""
        kappa = self.concentration.double()
        tau = 1 + (1 + 4 * kappa ** 2).sqrt()
        rho = (tau - (2 * tau).sqrt()) / (2 * kappa)
        small = 1 / kappa + kappa
        return torch.where(kappa < 1e-5, small, (1 + rho ** 2) / (2 * rho))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Rejection from the envelope, in double."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            loc, kappa, r = self.loc.double(), self.concentration.double(), self._proposal_r
            x = torch.empty(shape, dtype=loc.dtype)
            done = torch.zeros(shape, dtype=torch.bool)
            while not done.all():
                u1, u2, u3 = torch.rand((3, *shape), dtype=loc.dtype).unbind()
                z = torch.cos(math.pi * u1)
                f = (1 + r * z) / (r + z)
                c = kappa * (r - f)
                accept = ((c * (2 - c) - u2) > 0) | ((c / u2).log() + 1 - c >= 0)
                if accept.any():
                    x = torch.where(accept, (u3 - 0.5).sign() * f.acos(), x)
                    done = done | accept
            x = (x + math.pi + loc) % (2 * math.pi) - math.pi
            return x.to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        """The mean direction."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:  # type: ignore[override]
        """The circular variance, 1 - I1 / I0."""
        ratio = torch.log(torch.special.i1e(self.concentration)) - torch.log(
            torch.special.i0e(self.concentration))
        return 1 - ratio.exp()
