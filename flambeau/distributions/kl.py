"""Kullback-Leibler divergences: how much one distribution differs from another, in nats.

KL(p | q) = -H(p) - E_p[log q]. For pairs of different families the second part follows from a few
expectations under p (of x, x^2, log x ...), which `expectations.py` knows for each p.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import flambeau as torch
from flambeau.distributions.bernoulli import Bernoulli
from flambeau.distributions.beta import Beta
from flambeau.distributions.binomial import Binomial
from flambeau.distributions.categorical import Categorical
from flambeau.distributions.cauchy import Cauchy
from flambeau.distributions.continuous_bernoulli import ContinuousBernoulli
from flambeau.distributions.dirichlet import Dirichlet
from flambeau.distributions.distribution import Distribution
from flambeau.distributions.exp_family import ExponentialFamily
from flambeau.distributions.expectations import LOG_DENSITIES, MOMENTS
from flambeau.distributions.exponential import Exponential
from flambeau.distributions.gamma import Gamma
from flambeau.distributions.geometric import Geometric
from flambeau.distributions.gumbel import Gumbel
from flambeau.distributions.half_normal import HalfNormal
from flambeau.distributions.independent import Independent
from flambeau.distributions.laplace import Laplace
from flambeau.distributions.lowrank_multivariate_normal import (
    LowRankMultivariateNormal,
    lowrank_logdet,
    lowrank_mahalanobis,
)
from flambeau.distributions.multivariate_normal import (
    MultivariateNormal,
    batch_mahalanobis,
    half_log_det,
)
from flambeau.distributions.normal import Normal
from flambeau.distributions.one_hot_categorical import OneHotCategorical
from flambeau.distributions.pareto import Pareto
from flambeau.distributions.poisson import Poisson
from flambeau.distributions.transformed_distribution import TransformedDistribution
from flambeau.distributions.uniform import Uniform
from flambeau.distributions.utils import euler_constant, sum_rightmost
from flambeau.nn import functional as F
from flambeau.tensor import Tensor

__all__ = ["kl_divergence", "register_kl"]

_KL_REGISTRY: dict[tuple[type, type], Callable] = {}


def register_kl(type_p: type, type_q: type) -> Callable:
    """Decorator: use a function of (p, q) for distributions of these classes and their subclasses.

    Raises:
        TypeError: not classes of distributions.

    >>> class Point(torch.distributions.Normal):
    ...     pass
    >>> @torch.distributions.register_kl(Point, Point)
    ... def no_difference(p, q):
    ...     return torch.tensor(0.)
    >>> torch.distributions.kl_divergence(Point(0., 1.), Point(1., 1.))
    tensor(0.)
    """
    for name, cls in (("type_p", type_p), ("type_q", type_q)):
        if not isinstance(cls, type) or not issubclass(cls, Distribution):
            raise TypeError(f"Expected {name} to be a Distribution subclass but got {cls}")

    def decorated(function: Callable) -> Callable:
        _KL_REGISTRY[type_p, type_q] = function
        _dispatch_kl.cache_clear()
        return function

    return decorated


@functools.cache
def _dispatch_kl(type_p: type, type_q: type) -> Callable | None:
    """The most specific function for two classes."""
    places = [(type_p.__mro__.index(p), type_q.__mro__.index(q), (p, q))
              for p, q in _KL_REGISTRY if issubclass(type_p, p) and issubclass(type_q, q)]
    if not places:
        return None
    left = min(places)
    right = min(places, key=lambda entry: (entry[1], entry[0]))
    if _KL_REGISTRY[left[2]] is not _KL_REGISTRY[right[2]]:
        warnings.warn(f"Ambiguous kl_divergence({type_p.__name__}, {type_q.__name__}). Please "
                      f"register_kl({left[2][0].__name__}, {right[2][1].__name__})",
                      RuntimeWarning, stacklevel=3)
    return _KL_REGISTRY[left[2]]


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p | q) for each element of the batches, which are broadcast.

    Raises:
        NotImplementedError: nothing is registered for these classes.

    >>> D = torch.distributions
    >>> torch.distributions.kl_divergence(D.Normal(0., 1.), D.Normal(1., 1.))
    tensor(0.5000)
    """
    function = _dispatch_kl(type(p), type(q))
    if function is None:
        raise NotImplementedError(f"No KL(p || q) is implemented for p type "
                                  f"{p.__class__.__name__} and q type {q.__class__.__name__}")
    return function(p, q)


def _infinite_like(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.inf)



# -- within a family ------------------------------------------------------------------------------
@register_kl(Bernoulli, Bernoulli)
def _kl_bernoulli_bernoulli(p: Any, q: Any) -> Tensor:
    one = p.probs * (F.softplus(-q.logits) - F.softplus(-p.logits))
    one = torch.where(q.probs == 0, torch.inf, one)
    one = torch.where(p.probs == 0, 0.0, one)
    other = (1 - p.probs) * (F.softplus(q.logits) - F.softplus(p.logits))
    other = torch.where(q.probs == 1, torch.inf, other)
    return one + torch.where(p.probs == 1, 0.0, other)


@register_kl(Beta, Beta)
def _kl_beta_beta(p: Any, q: Any) -> Tensor:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    norms = (c.lgamma() + d.lgamma() + (a + b).lgamma()) - (
        (c + d).lgamma() + a.lgamma() + b.lgamma())
    return (norms + (a - c) * torch.digamma(a) + (b - d) * torch.digamma(b)
            + (c + d - a - b) * torch.digamma(a + b))


@register_kl(Binomial, Binomial)
def _kl_binomial_binomial(p: Any, q: Any) -> Tensor:
    if (p.total_count < q.total_count).any():
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not "
                                  "implemented")
    kl = p.total_count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p()
                          - (-q.probs).log1p())
    return torch.where(p.total_count > q.total_count, torch.inf, kl)


@register_kl(Categorical, Categorical)
def _kl_categorical_categorical(p: Any, q: Any) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = torch.where(q.probs == 0, torch.inf, terms)
    return torch.where(p.probs == 0, 0.0, terms).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _kl_onehotcategorical_onehotcategorical(p: Any, q: Any) -> Tensor:
    return _kl_categorical_categorical(p._categorical, q._categorical)


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _kl_continuous_bernoulli_continuous_bernoulli(p: Any, q: Any) -> Tensor:
    return (p.mean * (p.logits - q.logits) + p._cont_bern_log_norm() + torch.log1p(-p.probs)
            - q._cont_bern_log_norm() - torch.log1p(-q.probs))


@register_kl(Dirichlet, Dirichlet)
def _kl_dirichlet_dirichlet(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    norms = total.lgamma() - b.sum(-1).lgamma() - (a.lgamma() - b.lgamma()).sum(-1)
    return norms + ((a - b) * (a.digamma() - total.digamma().unsqueeze(-1))).sum(-1)


@register_kl(Exponential, Exponential)
def _kl_exponential_exponential(p: Any, q: Any) -> Tensor:
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1


@register_kl(ExponentialFamily, ExponentialFamily)
def _kl_expfamily_expfamily(p: Any, q: Any) -> Tensor:
    """F(q) - F(p) - <q - p, grad F(p)> in natural parameters."""
    if type(p) is not type(q):
        raise NotImplementedError("The cross KL-divergence between different exponential families "
                                  "cannot be computed using Bregman divergences")
    with torch.enable_grad():
        params = [theta.detach().requires_grad_() for theta in p._natural_params]
        normalizer = p._log_normalizer(*params)
        slopes = torch.autograd.grad(normalizer.sum(), params, create_graph=True)
    result = q._log_normalizer(*q._natural_params) - normalizer
    for ours, theirs, slope in zip(params, q._natural_params, slopes, strict=True):
        result = result - sum_rightmost((theirs - ours) * slope, len(q.event_shape))
    return result


@register_kl(Gamma, Gamma)
def _kl_gamma_gamma(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    return (b * (p.rate / q.rate).log() + torch.lgamma(b) - torch.lgamma(a)
            + (a - b) * torch.digamma(a) + (q.rate - p.rate) * (a / p.rate))


@register_kl(Gumbel, Gumbel)
def _kl_gumbel_gumbel(p: Any, q: Any) -> Tensor:
    scale, shift = p.scale / q.scale, p.loc / q.scale
    offset = q.loc / q.scale - shift
    return (-scale.log() - offset + scale * euler_constant
            + torch.exp(offset + (1 + scale).lgamma()) - (1 + euler_constant))


@register_kl(Geometric, Geometric)
def _kl_geometric_geometric(p: Any, q: Any) -> Tensor:
    return -p.entropy() - torch.log1p(-q.probs) / p.probs - q.logits


@register_kl(HalfNormal, HalfNormal)
def _kl_halfnormal_halfnormal(p: Any, q: Any) -> Tensor:
    return _kl_normal_normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _kl_laplace_laplace(p: Any, q: Any) -> Tensor:
    ratio = p.scale / q.scale
    distance = (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * torch.exp(-distance / p.scale) - 1


@register_kl(Normal, Normal)
def _kl_normal_normal(p: Any, q: Any) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(Pareto, Pareto)
def _kl_pareto_pareto(p: Any, q: Any) -> Tensor:
    scale, alpha = p.scale / q.scale, q.alpha / p.alpha
    kl = q.alpha * scale.log() - alpha.log() + alpha - 1
    return torch.where(p.scale < q.scale, torch.inf, kl)


@register_kl(Poisson, Poisson)
def _kl_poisson_poisson(p: Any, q: Any) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Uniform, Uniform)
def _kl_uniform_uniform(p: Any, q: Any) -> Tensor:
    kl = ((q.high - q.low) / (p.high - p.low)).log()
    return torch.where((q.low > p.low) | (q.high < p.high), torch.inf, kl)


@register_kl(Cauchy, Cauchy)
def _kl_cauchy_cauchy(p: Any, q: Any) -> Tensor:
    """Chyzak and Nielsen 2019."""
    together = ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log()
    return together - (4 * p.scale * q.scale).log()


@register_kl(Independent, Independent)
def _kl_independent_independent(p: Any, q: Any) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("KL between Independents of different depth: "
                                  f"{p.reinterpreted_batch_ndims} and "
                                  f"{q.reinterpreted_batch_ndims} dimensions")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _kl_transformed_transformed(p: Any, q: Any) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("KL between TransformedDistributions needs equal transforms and "
                                  "event shapes")
    return kl_divergence(p.base_dist, q.base_dist)


# -- multivariate normal --------------------------------------------------------------------------
def _trace_of_ratio(factor: Tensor, other: Tensor) -> Tensor:
    """trace(X^T (L L^T)^-1 X) for L = `factor` and X = `other`, batches broadcast."""
    solved = torch.linalg.solve_triangular(factor, other, upper=False)
    return solved.pow(2).sum((-2, -1))


@register_kl(MultivariateNormal, MultivariateNormal)
def _kl_multivariatenormal_multivariatenormal(p: Any, q: Any) -> Tensor:
    _same_event(p, q)
    ours, theirs = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    trace = _trace_of_ratio(theirs, ours)
    distance = batch_mahalanobis(theirs, q.loc - p.loc)
    return half_log_det(theirs) - half_log_det(ours) + 0.5 * (trace + distance
                                                              - p.event_shape[0])


def _same_event(p: Any, q: Any) -> None:
    if p.event_shape != q.event_shape:
        raise ValueError("KL-divergence between two Multivariate Normals with different event "
                         f"shapes cannot be computed: {p.event_shape} and {q.event_shape}")


def _low_rank_to(q: Any, covariance_factors: list[Tensor], diagonal: Tensor | None) -> Tensor:
    """trace(Sigma_q^-1 Sigma_p) for low rank q and Sigma_p, the sum of F F^T over the factors and
    of the diagonal."""
    w, d = q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag
    scaled = w.mT / d.unsqueeze(-2)
    solved = torch.linalg.solve_triangular(q._capacitance_tril, scaled, upper=False)
    total: Any = 0.0
    for factor in covariance_factors:
        total = total + (factor.pow(2) / d.unsqueeze(-1)).sum((-2, -1))
        total = total - torch.matmul(solved, factor).pow(2).sum((-2, -1))
    if diagonal is not None:
        total = total + (diagonal / d).sum(-1)
        total = total - (solved.pow(2) * diagonal.unsqueeze(-2)).sum((-2, -1))
    return total


def _kl_to_low_rank(p: Any, q: Any, log_det: Tensor, factors: list[Tensor],
                    diagonal: Tensor | None) -> Tensor:
    _same_event(p, q)
    other = lowrank_logdet(q._unbroadcasted_cov_diag, q._capacitance_tril)
    distance = lowrank_mahalanobis(q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag,
                                   q.loc - p.loc, q._capacitance_tril)
    trace = _low_rank_to(q, factors, diagonal)
    return 0.5 * (other - log_det + trace + distance - p.event_shape[0])


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
def _kl_lowrank_lowrank(p: Any, q: Any) -> Tensor:
    log_det = lowrank_logdet(p._unbroadcasted_cov_diag, p._capacitance_tril)
    return _kl_to_low_rank(p, q, log_det, [p._unbroadcasted_cov_factor],
                           p._unbroadcasted_cov_diag)


@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _kl_multivariatenormal_lowrank(p: Any, q: Any) -> Tensor:
    factor = p._unbroadcasted_scale_tril
    return _kl_to_low_rank(p, q, 2 * half_log_det(factor), [factor], None)


@register_kl(LowRankMultivariateNormal, MultivariateNormal)
def _kl_lowrank_multivariatenormal(p: Any, q: Any) -> Tensor:
    _same_event(p, q)
    factor = q._unbroadcasted_scale_tril
    log_det = lowrank_logdet(p._unbroadcasted_cov_diag, p._capacitance_tril)
    trace = _trace_of_ratio(factor, p._unbroadcasted_cov_factor) + _trace_of_ratio(
        factor, torch.diag_embed(p._unbroadcasted_cov_diag.sqrt()))
    distance = batch_mahalanobis(factor, q.loc - p.loc)
    return 0.5 * (2 * half_log_det(factor) - log_det + trace + distance - p.event_shape[0])


# -- between families -----------------------------------------------------------------------------
def _known(table: dict, distribution: Any) -> Any:
    """The entry for the class of a distribution, or for its nearest base."""
    return next(table[cls] for cls in type(distribution).__mro__ if cls in table)


def _from_expectations(p: Any, q: Any) -> Tensor:
    """-H(p) - E_p[log q], infinite where p reaches beyond the support of q."""
    expected, beyond = _known(LOG_DENSITIES, q)(q, _known(MOMENTS, p)(p))
    kl = -p.entropy() - expected
    return kl if beyond is None else torch.where(beyond, torch.inf, kl)


for _p, _qs in ((Beta, (ContinuousBernoulli, Exponential, Gamma, Normal, Uniform)),
                (ContinuousBernoulli, (Exponential, Normal, Uniform)),
                (Exponential, (Gamma, Gumbel, Normal)), (Gamma, (Exponential, Gumbel, Normal)),
                (Gumbel, (Normal,)), (Laplace, (Normal,)), (Normal, (Gumbel, Laplace)),
                (Pareto, (Exponential, Gamma, Normal)),
                (Uniform, (Beta, ContinuousBernoulli, Exponential, Gamma, Gumbel, Normal,
                           Pareto))):
    for _q in _qs:
        register_kl(_p, _q)(_from_expectations)


def _infinite(p: Any, q: Any) -> Tensor:
    """p reaches where q cannot be."""
    return _infinite_like(p.mean)


for _p, _qs in ((Beta, (Pareto,)), (ContinuousBernoulli, (Pareto,)),
                (Exponential, (Beta, ContinuousBernoulli, Pareto, Uniform)),
                (Gamma, (Beta, ContinuousBernoulli, Pareto, Uniform)),
                (Gumbel, (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform)),
                (Laplace, (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform)),
                (Normal, (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform)),
                (Pareto, (Beta, ContinuousBernoulli, Uniform)),
                (Poisson, (Bernoulli, Binomial))):
    for _q in _qs:
        register_kl(_p, _q)(_infinite)


@register_kl(Bernoulli, Poisson)
def _kl_bernoulli_poisson(p: Any, q: Any) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)
