"""The LKJ distribution of correlation matrices."""

from __future__ import annotations

import math
from typing import Any

import flambeau as torch
from flambeau.distributions import constraints
from flambeau.distributions.beta import Beta
from flambeau.distributions.distribution import Distribution
from flambeau.distributions.utils import broadcast_all
from flambeau.tensor import Tensor

__all__ = ["LKJCholesky"]


class LKJCholesky(Distribution):
    """Cholesky factors L of correlation matrices, of density proportional to
    det(L L^T)^(concentration - 1) in the matrices (Lewandowski, Kurowicka and Joe 2009).

    Args:
        dim: rows of the matrices, at least 2.

    Raises:
        ValueError: `dim` is below 2.

    >>> L = torch.distributions.LKJCholesky(3, 0.5).sample()
    >>> L.shape, torch.allclose((L @ L.T).diagonal(), torch.ones(3))
    (torch.Size([3, 3]), True)
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None):
        if dim < 2:
            raise ValueError("Expected dim to be an integer greater than or equal to 2. Found "
                             f"dim={dim}.")
        self.dim = dim
        self.concentration, = broadcast_all(concentration)
        first = self.concentration + 0.5 * (dim - 2)
        offset = torch.arange(dim - 1, dtype=self.concentration.dtype)
        offset = torch.cat([offset.new_zeros((1,)), offset])
        self._beta = Beta(offset + 0.5, first.unsqueeze(-1) - 0.5 * offset)
        super().__init__(self.concentration.size(), torch.Size((dim, dim)),
                         validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LKJCholesky:
        new = self._get_checked_instance(LKJCholesky, _instance)
        batch_shape = torch.Size(batch_shape)
        new.dim = self.dim
        new.concentration = self.concentration.expand(batch_shape)
        new._beta = self._beta.expand((*batch_shape, self.dim))
        super(LKJCholesky, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The onion method: rows are points of spheres, at radii whose squares are beta numbers."""
        with torch.no_grad():
            radius = self._beta.sample(sample_shape).unsqueeze(-1)
            shape = self._extended_shape(sample_shape)
            normal = torch.randn(shape, dtype=radius.dtype, device=radius.device).tril(-1)
            direction = normal / normal.norm(dim=-1, keepdim=True)
            direction[..., 0, :].fill_(0.0)  # the first row has no direction
            rows = torch.sqrt(radius) * direction
            tiny = torch.finfo(rows.dtype).tiny
            diagonal = torch.clamp(1 - torch.sum(rows ** 2, dim=-1), min=tiny).sqrt()
            return rows + torch.diag_embed(diagonal)

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._checked(value)
        diagonal = value.diagonal(dim1=-1, dim2=-2)[..., 1:]
        order = torch.arange(2, self.dim + 1)
        order = 2 * (self.concentration - 1).unsqueeze(-1) + self.dim - order
        density = torch.sum(order * diagonal.log(), dim=-1)
        rest = self.dim - 1
        alpha = self.concentration + 0.5 * rest
        denominator = torch.lgamma(alpha) * rest
        numerator = torch.mvlgamma(alpha - 0.5, rest)
        pi = 0.5 * rest * math.log(math.pi)
        return density - (pi + numerator - denominator)
