"""Exponential families: densities of the form exp(<t(x), theta> - F(theta) + k(x))."""

from __future__ import annotations

from typing import Any

import flambeau as torch
from flambeau.distributions.distribution import Distribution
from flambeau.tensor import Tensor

__all__ = ["ExponentialFamily"]


class ExponentialFamily(Distribution):
    """A distribution that knows its natural parameters theta and log normaliser F.

    The entropy follows from them by differentiation: F - <theta, grad F> - E[k] (Nielsen and Nock
    2010).

    >>> issubclass(torch.distributions.Normal, torch.distributions.ExponentialFamily)
    True
    """

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__} does not define its natural parameters")

    def _log_normalizer(self, *natural_params: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define its log normalizer")

    @property
    def _mean_carrier_measure(self) -> float:
        """E[k(x)]."""
        raise NotImplementedError(f"{type(self).__name__} does not define E[k(x)]")

    def entropy(self) -> Tensor:
        """The entropy, from the log normaliser and its gradient."""
        result = -self._mean_carrier_measure
        with torch.enable_grad():
            params = [p.detach().requires_grad_() for p in self._natural_params]
            normalizer = self._log_normalizer(*params)
            slopes = torch.autograd.grad(normalizer.sum(), params, create_graph=True)
        result = result + normalizer
        for theta, slope in zip(params, slopes, strict=True):
            part = theta * slope
            result = result - part.reshape(tuple(self._batch_shape) + (-1,)).sum(-1)
        return result
