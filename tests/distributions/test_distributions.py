"""torch.distributions without PyTorch: samples against densities, densities against SciPy, and what
users do with them."""

from __future__ import annotations

import copy
import importlib.util
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.stats as st

_SPEC = importlib.util.spec_from_file_location("distribution_cases",
                                               Path(__file__).with_name("cases.py"))
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)

CONTINUOUS = {
    "Beta": lambda d: st.beta(d.concentration1, d.concentration0),
    "Cauchy": lambda d: st.cauchy(d.loc, d.scale),
    "Chi2": lambda d: st.chi2(d.df),
    "Exponential": lambda d: st.expon(scale=1 / d.rate),
    "FisherSnedecor": lambda d: st.f(d.df1, d.df2),
    "Gamma": lambda d: st.gamma(d.concentration, scale=1 / d.rate),
    "GeneralizedPareto": lambda d: st.genpareto(d.concentration, d.loc, d.scale),
    "Gumbel": lambda d: st.gumbel_r(d.loc, d.scale),
    "HalfCauchy": lambda d: st.halfcauchy(scale=d.scale),
    "HalfNormal": lambda d: st.halfnorm(scale=d.scale),
    "InverseGamma": lambda d: st.invgamma(d.concentration, scale=d.rate),
    "Laplace": lambda d: st.laplace(d.loc, d.scale),
    "LogNormal": lambda d: st.lognorm(d.scale, scale=np.exp(d.loc)),
    "Normal": lambda d: st.norm(d.loc, d.scale),
    "Pareto": lambda d: st.pareto(d.alpha, scale=d.scale),
    "StudentT": lambda d: st.t(d.df, d.loc, d.scale),
    "Uniform": lambda d: st.uniform(d.low, d.high - d.low),
    "VonMises": lambda d: st.vonmises(d.concentration, d.loc),
    "Weibull": lambda d: st.weibull_min(d.concentration, scale=d.scale),
}
DISCRETE = {
    "Bernoulli": lambda d: st.bernoulli(d.probs),
    "Binomial": lambda d: st.binom(d.total_count, d.probs),
    "Geometric": lambda d: st.geom(d.probs, loc=-1),
    "NegativeBinomial": lambda d: st.nbinom(d.total_count, 1 - d.probs),
    "Poisson": lambda d: st.poisson(d.rate),
}


class Numbers:
    """The parameters of a distribution as arrays."""

    def __init__(self, distribution):
        self._distribution = distribution

    def __getattr__(self, name):
        return getattr(self._distribution, name).numpy()


def test_densities_are_scipys(torch):
    for table, name_of in ((CONTINUOUS, "logpdf"), (DISCRETE, "logpmf")):
        for name, oracle in table.items():
            ours = cases.made(torch, name)
            value = cases.places(torch, ours)
            expected = getattr(oracle(Numbers(ours)), name_of)(value.numpy())
            np.testing.assert_allclose(ours.log_prob(value).numpy(), expected, 1e-6, 1e-6,
                                       err_msg=name)


def test_cumulative_probabilities_are_scipys(torch):
    for name, oracle in CONTINUOUS.items():
        ours = cases.made(torch, name)
        value = cases.places(torch, ours)
        try:
            probability = ours.cdf(value)
        except NotImplementedError:
            continue
        np.testing.assert_allclose(probability.numpy(), oracle(Numbers(ours)).cdf(value.numpy()),
                                   1e-5, 1e-6, err_msg=name)
        try:
            back = ours.icdf(probability)
        except NotImplementedError:
            continue
        np.testing.assert_allclose(back.numpy(), value.numpy(), 1e-4, 1e-5, err_msg=name)


@pytest.mark.parametrize("name", list(cases.DISTRIBUTIONS))
def test_samples_have_the_moments(torch, name):
    ours = cases.made(torch, name, seed=2)
    sample = ours.sample((2000,))
    assert sample.shape == torch.Size((2000,)) + ours.batch_shape + ours.event_shape
    assert bool(ours.support.check(sample).all())
    try:
        mean, variance = ours.mean, ours.variance
    except NotImplementedError:
        return
    usable = torch.isfinite(mean) & torch.isfinite(variance) & (name != "VonMises")
    error = (sample.double().mean(0) - mean).abs() / (variance / 2000).sqrt().clamp(min=1e-9)
    assert bool((torch.where(usable, error, 0.0) < 6).all())


def test_gradients_of_samples_are_those_of_the_mean(torch):
    for name, make in {
            "gamma": lambda a: torch.distributions.Gamma(a, 1.0),
            "beta": lambda a: torch.distributions.Beta(a, 2.0),
            "student": lambda a: torch.distributions.InverseGamma(a + 2, 1.0)}.items():
        a = torch.tensor([0.4, 1.5, 9.0], dtype=torch.float64, requires_grad=True)
        distribution = make(a)
        exact, = torch.autograd.grad(distribution.mean.sum(), a)
        drawn, = torch.autograd.grad(make(a).rsample((20000,)).mean(0).sum(), a)
        assert torch.allclose(drawn, exact, rtol=0.15, atol=0.02), name


def test_gradients_of_wishart_samples(torch):
    df = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    scale = torch.eye(2, dtype=torch.float64, requires_grad=True)
    sample = torch.distributions.Wishart(df, scale).rsample((4000,)).mean(0)
    slope, = torch.autograd.grad(sample.trace(), df)
    assert abs(slope.item() - 2) < 0.2  # the mean is df times the scale


def test_derivatives_of_draws(torch):
    """Against differences of SciPy's cumulative probabilities."""
    from scipy import special

    a, step = np.array([0.05, 0.7, 2.0, 8.0, 60.0]), 1e-5
    for share in (0.05, 0.4, 0.9):
        x = special.gammaincinv(a, share)
        slope = (special.gammaincinv(a * (1 + step), share)
                 - special.gammaincinv(a * (1 - step), share)) / (2 * a * step)
        ours = torch._standard_gamma_grad(torch.tensor(a), torch.tensor(x)).numpy()
        np.testing.assert_allclose(ours, slope, 1e-5)
        y = special.betaincinv(a, 1.7, share)
        slope = (special.betaincinv(a * (1 + step), 1.7, share)
                 - special.betaincinv(a * (1 - step), 1.7, share)) / (2 * a * step)
        ours = torch._dirichlet_grad(*map(torch.tensor, (y, a, a + 1.7))).numpy() * (1 - y)
        np.testing.assert_allclose(ours, slope, 1e-4)


def test_divergences_are_expectations(torch):
    kinds = torch.distributions.kl._KL_REGISTRY
    d = torch.distributions
    pairs = [(d.Beta, d.Gamma), (d.Exponential, d.Gumbel), (d.Normal, d.Laplace),
             (d.Uniform, d.Normal), (d.Gamma, d.Gamma), (d.Gumbel, d.Gumbel)]
    for p_class, q_class in pairs:
        assert (p_class, q_class) in kinds
        p, q = (cases.made(torch, cls.__name__, seed) for seed, cls in ((0, p_class),
                                                                        (1, q_class)))
        x = p.sample((20000,))
        difference = p.log_prob(x) - q.log_prob(x)
        error = (difference.mean(0) - d.kl_divergence(p, q)).abs()
        assert bool((error < 6 * difference.std(0) / math.sqrt(20000)).all()), (p_class, q_class)


def test_register_kl(torch):
    d = torch.distributions

    class Mine(d.Normal):
        pass

    assert d.kl_divergence(Mine(0.0, 1.0), d.Normal(0.0, 1.0)).item() == 0

    @d.register_kl(Mine, Mine)
    def both(p, q):
        return torch.tensor(5.0)

    assert d.kl_divergence(Mine(0.0, 1.0), Mine(0.0, 1.0)).item() == 5
    del d.kl._KL_REGISTRY[Mine, Mine]
    d.kl._dispatch_kl.cache_clear()
    with pytest.raises(NotImplementedError, match="No KL"):
        d.kl_divergence(d.Cauchy(0.0, 1.0), d.Poisson(1.0))


def test_validation(torch):
    d = torch.distributions
    with pytest.raises(ValueError, match=r"Expected parameter scale .* of distribution Normal"):
        d.Normal(torch.tensor(0.0), torch.tensor(-1.0))
    assert d.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    with pytest.raises(ValueError, match="within the support"):
        d.Exponential(1.0).log_prob(torch.tensor(-1.0))
    d.Distribution.set_default_validate_args(False)
    try:
        assert d.Exponential(1.0).log_prob(torch.tensor(-1.0)).item() == 1
    finally:
        d.Distribution.set_default_validate_args(True)


@pytest.mark.parametrize("name", list(cases.TRANSFORMS))
def test_transforms_are_inverted(torch, name):
    make, tail = cases.TRANSFORMS[name]
    draw = cases.Draw(torch, 3)
    transform, x = make(torch.distributions, draw), draw.real(*tail)
    y = transform(x)
    assert torch.allclose(transform.inv(y), x)
    assert y.shape == transform.forward_shape(x.shape)
    assert transform.inverse_shape(y.shape) == x.shape
    assert transform.inv.inv is transform
    cached = transform.with_cache(1)
    z = cached(x)
    if not name.startswith(("Compose", "Power")):  # those cache part by part
        assert cached.inv(z) is x
    if transform.domain.event_dim == transform.codomain.event_dim == 0:
        x.requires_grad_()
        slope, = torch.autograd.grad(transform(x).sum(), x)
        jacobian = transform.log_abs_det_jacobian(x, transform(x))
        assert torch.allclose(jacobian, slope.abs().log().expand(jacobian.shape))


def test_regions_and_transforms(torch):
    d, c = torch.distributions, torch.distributions.constraints
    for region, size in ((c.real, 4), (c.positive, 4), (c.greater_than(2.0), 4),
                         (c.less_than(-1.0), 4), (c.interval(-2.0, 5.0), 4), (c.unit_interval, 4),
                         (c.simplex, 4), (c.independent(c.positive, 1), 4),
                         (c.corr_cholesky, 6)):
        for registry in (d.biject_to, d.transform_to):
            y = registry(region)(torch.randn(3, size))
            assert bool(region.check(y).all()), region
    for region in (c.lower_cholesky, c.positive_definite):
        assert bool(region.check(d.transform_to(region)(torch.randn(3, 4, 4))).all())
    with pytest.raises(NotImplementedError, match="Cannot transform _Boolean constraints"):
        d.biject_to(c.boolean)


def test_copies_and_pickles(torch):
    for name in ("Normal", "Categorical", "MultivariateNormal", "Gumbel", "StudentT"):
        ours = cases.made(torch, name)
        value = cases.places(torch, ours)
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert torch.equal(other.log_prob(value), ours.log_prob(value))


def test_compiled_step(torch):
    d = torch.distributions

    def loss(mean, log_scale):
        q = d.Normal(mean, log_scale.exp(), validate_args=False)
        p = d.Normal(torch.zeros_like(mean), torch.ones_like(mean), validate_args=False)
        return q.rsample().pow(2).sum() + d.kl_divergence(q, p).sum()

    mean, log_scale = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    compiled = torch.compile(loss, fullgraph=True)
    for _ in range(2):
        torch.manual_seed(1)
        expected = torch.autograd.grad(loss(mean, log_scale), (mean, log_scale))
        torch.manual_seed(1)
        grads = torch.autograd.grad(compiled(mean, log_scale), (mean, log_scale))
        assert all(torch.allclose(a, b) for a, b in zip(grads, expected, strict=True))


def test_triangles(torch):
    utils = torch.distributions.utils
    for diag in (-1, 0, 1):
        matrix = torch.randn(2, 4, 4).tril(diag)
        vector = utils.tril_matrix_to_vec(matrix, diag)
        assert torch.equal(utils.vec_to_tril_matrix(vector, diag), matrix)
    with pytest.raises(ValueError, match="D x D"):
        utils.vec_to_tril_matrix(torch.ones(4))
