"""The Wishart distribution."""

from __future__ import annotations

import math
import warnings
from typing import Any

import flambeau as torch
from flambeau.distributions import constraints
from flambeau.distributions.chi2 import Chi2
from flambeau.distributions.exp_family import ExponentialFamily
from flambeau.distributions.multivariate_normal import half_log_det, precision_to_scale_tril
from flambeau.distributions.utils import is_number, lazy_property
from flambeau.tensor import Tensor

__all__ = ["Wishart"]


def _mvdigamma(x: Tensor, p: int) -> Tensor:
    """The derivative of the multivariate log gamma function."""
    steps = torch.arange(p, dtype=x.dtype) / 2
    return torch.digamma(x.unsqueeze(-1) - steps.expand((*x.shape, -1))).sum(-1)


class Wishart(ExponentialFamily):
    """Covariance matrices: X^T X of `df` normal vectors X with covariance S.

    Args:
        df: degrees of freedom, above n - 1. covariance_matrix, precision_matrix or scale_tril: of
            S, one of them.

    Raises:
        ValueError: not exactly one of the three, too few dimensions or degrees of freedom.

    >>> d = torch.distributions.Wishart(torch.tensor([3.]), torch.eye(2))
    >>> d.mean
    tensor([[[3., 0.],
             [0., 3.]]])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # known when the size is
    support = constraints.positive_definite
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(self, df: Any, covariance_matrix: Tensor | None = None,
                 precision_matrix: Tensor | None = None, scale_tril: Tensor | None = None,
                 validate_args: bool | None = None):
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix,
                 "scale_tril": scale_tril}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) != 1:
            raise ValueError("Exactly one of covariance_matrix or precision_matrix or scale_tril "
                             "may be specified.")
        (name, matrix), = given.items()
        if matrix.dim() < 2:
            raise ValueError("scale_tril must be at least two-dimensional, with optional leading "
                             "batch dimensions")
        count = torch.tensor(df, dtype=matrix.dtype) if is_number(df) else df
        batch = torch.broadcast_shapes(tuple(matrix.shape[:-2]), tuple(count.shape))
        size = tuple(matrix.shape[-2:])
        self.df = count.expand(batch)
        self.arg_constraints = {
            "covariance_matrix": constraints.positive_definite,
            "precision_matrix": constraints.positive_definite,
            "scale_tril": constraints.lower_cholesky,
            "df": constraints.greater_than(size[-1] - 1)}
        if self.df.le(size[-1] - 1).any():
            raise ValueError(f"Value of df={df} expected to be greater than ndim - 1 = "
                             f"{size[-1] - 1}.")
        setattr(self, name, matrix.expand((*batch, -1, -1)))
        super().__init__(batch, size, validate_args=validate_args)
        if self.df.lt(size[-1]).any():
            warnings.warn("Low df values detected. Singular samples are highly likely to occur for "
                          "ndim - 1 < df < ndim.", stacklevel=2)
        self._unbroadcasted_scale_tril = matrix if name == "scale_tril" else (
            torch.linalg.cholesky(matrix) if name == "covariance_matrix"
            else precision_to_scale_tril(matrix))
        self._dist_chi2 = self._diagonal_chi2(batch)

    def _diagonal_chi2(self, batch: Any) -> Chi2:
        """The squares on the diagonal of Bartlett's factor have df, df - 1, ... freedoms."""
        fewer = torch.arange(self.event_shape[-1] if "_event_shape" in self.__dict__ else 0,
                             dtype=self.df.dtype).expand((*batch, -1))
        return Chi2(df=self.df.unsqueeze(-1) - fewer)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Wishart:
        new = self._get_checked_instance(Wishart, _instance)
        batch_shape = torch.Size(batch_shape)
        event = tuple(self.event_shape)
        new.arg_constraints = self.arg_constraints
        new.df = self.df.expand(batch_shape)
        new._unbroadcasted_scale_tril = self._unbroadcasted_scale_tril.expand(
            (*batch_shape, *event))
        for name in ("covariance_matrix", "scale_tril", "precision_matrix"):
            if name in self.__dict__:
                setattr(new, name, self.__dict__[name].expand((*batch_shape, *event)))
        super(Wishart, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._dist_chi2 = new._diagonal_chi2(batch_shape)
        new._validate_args = self._validate_args
        return new

    def _broadcast(self, matrix: Tensor) -> Tensor:
        return matrix.expand((*self._batch_shape, *self._event_shape))

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The Cholesky factor of S."""
        return self._broadcast(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """S."""
        factor = self._unbroadcasted_scale_tril
        return self._broadcast(factor @ factor.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of S."""
        identity = torch.eye(self._event_shape[-1], dtype=self._unbroadcasted_scale_tril.dtype)
        return self._broadcast(torch.cholesky_solve(identity, self._unbroadcasted_scale_tril))

    @property
    def mean(self) -> Tensor:
        return self.df.view((*self._batch_shape, 1, 1)) * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        factor = self.df - self.covariance_matrix.shape[-1] - 1
        factor = torch.where(factor <= 0, torch.nan, factor)
        return factor.view((*self._batch_shape, 1, 1)) * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        s = self.covariance_matrix
        diagonal = s.diagonal(dim1=-2, dim2=-1)
        outer = diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)
        return self.df.view((*self._batch_shape, 1, 1)) * (s.pow(2) + outer)

    def _bartlett_sampling(self, sample_shape: Any = ()) -> Tensor:
        """L A A^T L^T with chi numbers on the diagonal of A and normal ones below."""
        p = self._event_shape[-1]
        noise = self._dist_chi2.rsample(sample_shape).sqrt().diag_embed(dim1=-2, dim2=-1)
        rows, columns = torch.tril_indices(p, p, offset=-1, device=noise.device)
        noise[..., rows, columns] = torch.randn(
            (*sample_shape, *self._batch_shape, p * (p - 1) // 2), dtype=noise.dtype,
            device=noise.device)
        factor = self._unbroadcasted_scale_tril @ noise
        return factor @ factor.mT

    def rsample(self, sample_shape: Any = (), max_try_correction: int | None = None
                ) -> Tensor:
        """Samples.

        PyTorch draws those once more that are positive definite, and then others that are not, at
        most `max_try_correction` (10) times; the stream is to be the same.
        """
        sample = self._bartlett_sampling(torch.Size(sample_shape))
        again = self._any_of_batch(self.support.check(sample))
        for _ in range(10 if max_try_correction is None else max_try_correction):
            if not again.any():
                break
            fresh = self._bartlett_sampling(again[again].shape)
            sample[again] = fresh
            still = again.clone()  # the gradient needs the mask as it was
            still[again] = self._any_of_batch(~self.support.check(fresh))
            again = still
        if again.any():
            warnings.warn("Singular sample detected.", stacklevel=2)
        return sample

    def _any_of_batch(self, flags: Tensor) -> Tensor:
        dims = len(self._batch_shape)
        return flags.amax(tuple(range(-dims, 0))) if dims else flags

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._checked(value)
        nu, p = self.df, self._event_shape[-1]
        log_det = torch.linalg.slogdet(value).logabsdet
        trace = torch.cholesky_solve(value, self._unbroadcasted_scale_tril).diagonal(
            dim1=-2, dim2=-1).sum(dim=-1)
        norm = (nu * p / 2 * math.log(2) + nu * half_log_det(self._unbroadcasted_scale_tril)
                + torch.mvlgamma(nu / 2, p=p))
        return (nu - p - 1) / 2 * log_det - trace / 2 - norm

    def entropy(self) -> Tensor:
        nu, p = self.df, self._event_shape[-1]
        half = half_log_det(self._unbroadcasted_scale_tril)
        return ((p + 1) * (half + p / 2 * math.log(2)) + torch.mvlgamma(nu / 2, p=p)
                - (nu - p - 1) / 2 * _mvdigamma(nu / 2, p=p) + nu * p / 2)

    @property
    def _natural_params(self) -> tuple[Tensor, Tensor]:
        p = self._event_shape[-1]
        return -self.precision_matrix / 2, (self.df - p - 1) / 2

    def _log_normalizer(self, x: Tensor, y: Tensor) -> Tensor:
        p = self._event_shape[-1]
        log_det = -torch.linalg.slogdet(-2 * x).logabsdet
        return (y + (p + 1) / 2) * (log_det + math.log(2) * p) + torch.mvlgamma(
            y + (p + 1) / 2, p=p)
