"""Distributions with parameters, for tests: `made(torch, generator)` makes one of each class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["DISTRIBUTIONS", "TRANSFORMS", "made", "places"]

BATCH = (4, 3)


class Draw:
    """Parameters as tensors of a framework, the same for equal seeds."""

    def __init__(self, torch: Any, seed: int = 0, dtype: str = "float64"):
        self.torch, self.random = torch, np.random.default_rng(seed)
        self.dtype = getattr(torch, dtype)

    def tensor(self, array: Any) -> Any:
        return self.torch.tensor(np.asarray(array).tolist(), dtype=self.dtype)

    def real(self, *tail: int) -> Any:
        return self.tensor(self.random.normal(size=BATCH + tail))

    def positive(self, low: float = 0.3, high: float = 4.0, *tail: int) -> Any:
        return self.tensor(self.random.uniform(low, high, BATCH + tail))

    def share(self, *tail: int) -> Any:
        return self.tensor(self.random.uniform(0.05, 0.95, BATCH + tail))

    def count(self, low: int, high: int) -> Any:
        return self.tensor(self.random.integers(low, high, BATCH))

    def simplex(self, k: int) -> Any:
        return self.tensor(self.random.dirichlet(np.ones(k), BATCH))

    def covariance(self, n: int) -> Any:
        root = self.random.normal(size=(*BATCH, n, n))
        return self.tensor(root @ np.swapaxes(root, -1, -2) + np.eye(n))

    def tril(self, n: int) -> Any:
        root = np.tril(self.random.normal(size=(*BATCH, n, n)), -1)
        return self.tensor(root + np.eye(n) * self.random.uniform(0.5, 2, (*BATCH, 1, n)))


def _mixture(d: Any, g: Draw) -> Any:
    return d.MixtureSameFamily(d.Categorical(g.simplex(3)),
                               d.Normal(g.real(3), g.positive(0.3, 4.0, 3)))


def _mixture_of_vectors(d: Any, g: Draw) -> Any:
    inner = d.Independent(d.Normal(g.real(3, 2), g.positive(0.3, 4.0, 3, 2)), 1)
    return d.MixtureSameFamily(d.Categorical(g.simplex(3)), inner)


def _transformed(d: Any, g: Draw) -> Any:
    return d.TransformedDistribution(d.Normal(g.real(), g.positive()), [
        d.AffineTransform(g.real(), g.positive()), d.SigmoidTransform()])


def _uniform(d: Any, g: Draw) -> Any:
    low = g.real()
    return d.Uniform(low, low + g.positive())


DISTRIBUTIONS: dict[str, Callable[[Any, Draw], Any]] = {
    "Bernoulli": lambda d, g: d.Bernoulli(g.share()),
    "Bernoulli logits": lambda d, g: d.Bernoulli(logits=g.real()),
    "Beta": lambda d, g: d.Beta(g.positive(), g.positive()),
    "Binomial": lambda d, g: d.Binomial(7, g.share()),
    "Binomial logits": lambda d, g: d.Binomial(g.count(1, 30), logits=g.real()),
    "Categorical": lambda d, g: d.Categorical(g.simplex(5)),
    "Categorical logits": lambda d, g: d.Categorical(logits=g.real(5)),
    "Cauchy": lambda d, g: d.Cauchy(g.real(), g.positive()),
    "Chi2": lambda d, g: d.Chi2(g.positive()),
    "ContinuousBernoulli": lambda d, g: d.ContinuousBernoulli(g.share()),
    "ContinuousBernoulli logits": lambda d, g: d.ContinuousBernoulli(logits=0.01 * g.real()),
    "Dirichlet": lambda d, g: d.Dirichlet(g.positive(0.3, 4.0, 5)),
    "Exponential": lambda d, g: d.Exponential(g.positive()),
    "FisherSnedecor": lambda d, g: d.FisherSnedecor(g.positive(1, 9), g.positive(1, 9)),
    "Gamma": lambda d, g: d.Gamma(g.positive(), g.positive()),
    "GeneralizedPareto": lambda d, g: d.GeneralizedPareto(g.real(), g.positive(), 0.3 * g.real()),
    "Geometric": lambda d, g: d.Geometric(g.share()),
    "Geometric logits": lambda d, g: d.Geometric(logits=g.real()),
    "Gumbel": lambda d, g: d.Gumbel(g.real(), g.positive()),
    "HalfCauchy": lambda d, g: d.HalfCauchy(g.positive()),
    "HalfNormal": lambda d, g: d.HalfNormal(g.positive()),
    "Independent": lambda d, g: d.Independent(d.Normal(g.real(), g.positive()), 1),
    "InverseGamma": lambda d, g: d.InverseGamma(g.positive(), g.positive()),
    "Kumaraswamy": lambda d, g: d.Kumaraswamy(g.positive(), g.positive()),
    "LKJCholesky": lambda d, g: d.LKJCholesky(3, g.positive()),
    "Laplace": lambda d, g: d.Laplace(g.real(), g.positive()),
    "LogNormal": lambda d, g: d.LogNormal(g.real(), g.positive(0.2, 1.5)),
    "LogisticNormal": lambda d, g: d.LogisticNormal(g.real(2), g.positive(0.3, 2.0, 2)),
    "LowRankMultivariateNormal": lambda d, g: d.LowRankMultivariateNormal(
        g.real(4), g.real(4, 2), g.positive(0.3, 2.0, 4)),
    "MixtureSameFamily": _mixture,
    "MixtureSameFamily vectors": _mixture_of_vectors,
    "Multinomial": lambda d, g: d.Multinomial(6, g.simplex(4)),
    "MultivariateNormal": lambda d, g: d.MultivariateNormal(g.real(3), g.covariance(3)),
    "MultivariateNormal tril": lambda d, g: d.MultivariateNormal(g.real(3), scale_tril=g.tril(3)),
    "MultivariateNormal precision": lambda d, g: d.MultivariateNormal(
        g.real(3), precision_matrix=g.covariance(3)),
    "NegativeBinomial": lambda d, g: d.NegativeBinomial(g.count(1, 9), g.share()),
    "Normal": lambda d, g: d.Normal(g.real(), g.positive()),
    "OneHotCategorical": lambda d, g: d.OneHotCategorical(g.simplex(4)),
    "OneHotCategoricalStraightThrough": lambda d, g: d.OneHotCategoricalStraightThrough(
        logits=g.real(4)),
    "Pareto": lambda d, g: d.Pareto(g.positive(), g.positive()),
    "Poisson": lambda d, g: d.Poisson(g.positive(0.1, 30)),
    "RelaxedBernoulli": lambda d, g: d.RelaxedBernoulli(g.tensor(0.7), g.share()),
    "RelaxedOneHotCategorical": lambda d, g: d.RelaxedOneHotCategorical(
        g.tensor(0.7), logits=g.real(4)),
    "StudentT": lambda d, g: d.StudentT(g.positive(2.5, 9), g.real(), g.positive()),
    "TransformedDistribution": _transformed,
    "Uniform": _uniform,
    "VonMises": lambda d, g: d.VonMises(g.real(), g.positive()),
    "Weibull": lambda d, g: d.Weibull(g.positive(), g.positive()),
    "Wishart": lambda d, g: d.Wishart(g.positive(5, 9), g.covariance(3)),
}


TRANSFORMS: dict[str, tuple[Callable[[Any, Draw], Any], tuple[int, ...]]] = {
    "Exp": (lambda d, g: d.ExpTransform(), ()),
    "Power": (lambda d, g: d.ComposeTransform([d.ExpTransform(), d.PowerTransform(g.positive())]),
              ()),
    "Sigmoid": (lambda d, g: d.SigmoidTransform(), ()),
    "Softplus": (lambda d, g: d.SoftplusTransform(), ()),
    "Tanh": (lambda d, g: d.TanhTransform(), ()),
    "Affine": (lambda d, g: d.AffineTransform(g.real(), g.positive()), ()),
    "Affine event": (lambda d, g: d.AffineTransform(1.5, -2.0, event_dim=1), ()),
    "CorrCholesky": (lambda d, g: d.CorrCholeskyTransform(), (6,)),
    "StickBreaking": (lambda d, g: d.StickBreakingTransform(), (4,)),
    "Independent": (lambda d, g: d.IndependentTransform(d.ExpTransform(), 1), (5,)),
    "Reshape": (lambda d, g: d.ReshapeTransform((6,), (2, 3)), (6,)),
    "Cat": (lambda d, g: d.CatTransform([d.ExpTransform(), d.TanhTransform()], dim=-1,
                                        lengths=[2, 3]), (5,)),
    "Stack": (lambda d, g: d.StackTransform([d.ExpTransform(), d.SigmoidTransform()], dim=-1),
              (2,)),
    "CumulativeDistribution": (lambda d, g: d.CumulativeDistributionTransform(
        d.Normal(g.tensor(0.3), g.tensor(1.7))), ()),
    "Compose": (lambda d, g: d.ComposeTransform([
        d.AffineTransform(g.real(), g.positive()), d.TanhTransform(),
        d.AffineTransform(0.5, 0.4)]), ()),
}


def made(torch: Any, name: str, seed: int = 0, dtype: str = "float64") -> Any:
    """The distribution called `name`."""
    return DISTRIBUTIONS[name](torch.distributions, Draw(torch, seed, dtype))


def places(torch: Any, distribution: Any) -> Any:
    """Events of a distribution, equal in both frameworks: its own samples."""
    torch.manual_seed(7)
    return distribution.sample((5,))
