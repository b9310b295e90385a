"""torch.distributions: facts, densities, samples and gradients beside PyTorch's, in one process."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import flambeau

_PATH = Path(__file__).parents[1] / "distributions" / "cases.py"
_SPEC = importlib.util.spec_from_file_location("distribution_cases", _PATH)
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = list(cases.DISTRIBUTIONS)
TOLERANCE = {"float32": 5e-5, "float64": 1e-11}
IMPLICIT = {"Beta", "Chi2", "Dirichlet", "FisherSnedecor", "Gamma", "InverseGamma", "StudentT",
            "Wishart"}  # PyTorch approximates the gradients of their samples to three digits
COARSE = {"VonMises"}  # and the Bessel functions of these to seven


def both(name, seed=0, dtype="float64"):
    dtype = "float32" if name == "GeneralizedPareto" else dtype  # PyTorch's knows no other
    return cases.made(flambeau, name, seed, dtype), cases.made(torch, name, seed, dtype)


def answer(question):
    """The value of a question, or the class of its error."""
    try:
        return question()
    except Exception as error:
        return type(error).__name__


def close(ours, theirs, rtol=1e-9, atol=1e-9):
    if str(getattr(theirs, "dtype", "")) == "torch.float32":
        rtol, atol = max(rtol, 5e-5), max(atol, 1e-5)
    if isinstance(theirs, (str, bool)) or theirs is None:
        assert ours == theirs
        return
    assert str(ours.dtype) == str(theirs.dtype) and tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol, atol)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_facts(name, seed):
    ours, theirs = both(name, seed)
    assert repr(ours) == repr(theirs)
    for fact in ("batch_shape", "event_shape", "has_rsample", "has_enumerate_support"):
        assert getattr(ours, fact) == getattr(theirs, fact), fact
    for fact in ("mean", "mode", "variance", "stddev"):
        close(answer(lambda f=fact: getattr(ours, f)), answer(lambda f=fact: getattr(theirs, f)),
              1e-6 if name in COARSE else 1e-9)
    for fact in ("entropy", "perplexity", "enumerate_support"):
        close(answer(lambda f=fact: getattr(ours, f)()),
              answer(lambda f=fact: getattr(theirs, f)()))
    assert set(ours.arg_constraints) == set(theirs.arg_constraints)
    for fact in ("is_discrete", "event_dim"):
        assert getattr(ours.support, fact) == getattr(theirs.support, fact)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_samples_are_equal(name, dtype):
    ours, theirs = both(name, dtype=dtype)
    for shape in ((), (7,), (2, 3)):
        flambeau.manual_seed(3)
        torch.manual_seed(3)
        close(ours.sample(shape), theirs.sample(shape), TOLERANCE[dtype], 1e-6)
        if theirs.has_rsample:
            close(ours.rsample(shape), theirs.rsample(shape), TOLERANCE[dtype], 1e-6)
        assert flambeau.rand(1).item() == torch.rand(1).item()


@pytest.mark.parametrize("name", NAMES)
def test_densities(name):
    ours, theirs = both(name)
    value = cases.places(torch, theirs)
    ours_value = flambeau.tensor(value.numpy())
    close(ours.log_prob(ours_value), theirs.log_prob(value), 1e-6 if name in COARSE else 1e-9)
    probability = answer(lambda: theirs.cdf(value))
    close(answer(lambda: ours.cdf(ours_value)), probability, 1e-7, 1e-9)
    if isinstance(probability, torch.Tensor):
        shares = np.random.default_rng(5).uniform(0.01, 0.99, value.shape)
        close(answer(lambda: ours.icdf(flambeau.tensor(shares))),
              answer(lambda: theirs.icdf(torch.tensor(shares))), 1e-6, 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_expanded(name):
    ours, theirs = (d.expand((2, 4, 3)) if len(d.batch_shape) == 2 else d.expand((2, 4))
                    for d in both(name))
    assert ours.batch_shape == theirs.batch_shape and ours.event_shape == theirs.event_shape
    value = cases.places(torch, theirs)
    close(ours.log_prob(flambeau.tensor(value.numpy())), theirs.log_prob(value),
          1e-6 if name in COARSE else 1e-9)
    close(answer(lambda: ours.mean), answer(lambda: theirs.mean))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Wishart"])
def test_gradients_of_samples(name):  # PyTorch cannot differentiate samples of Wishart
    grads = []
    for module in (flambeau, torch):
        given = []

        class Recorded(cases.Draw):
            def tensor(self, array, module=module, given=given):
                made = module.tensor(np.asarray(array).tolist(), dtype=module.float64)
                given.append(made.requires_grad_())
                return made

        distribution = cases.DISTRIBUTIONS[name](module.distributions, Recorded(module))
        if not distribution.has_rsample:
            return
        module.manual_seed(11)
        sample = distribution.rsample((3,))
        if not sample.requires_grad:
            return
        sample.pow(2).sum().backward()
        grads.append([g.grad for g in given])
    for ours, theirs in zip(*grads, strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            loose = name in IMPLICIT
            close(ours, theirs, 5e-3 if loose else 1e-7, 1e-3 if loose else 1e-8)


def test_every_divergence():
    from torch.distributions.kl import _KL_REGISTRY

    registered = {(p.__name__, q.__name__) for p, q in flambeau.distributions.kl._KL_REGISTRY}
    assert registered >= {(p.__name__, q.__name__) for p, q in _KL_REGISTRY}
    for p, q in sorted(registered):
        if p in ("ExponentialFamily", "TransformedDistribution"):
            continue
        for seed in (0, 3):
            ours_p, theirs_p = both(p, seed)
            ours_q, theirs_q = both(q, seed + 1)
            if p == q == "Binomial":
                ours_q, theirs_q = (d.Binomial(7, probs=x) for d, x in (
                    (flambeau.distributions, ours_q.probs), (torch.distributions, theirs_q.probs)))
            if "MultivariateNormal" in p and p != q:
                continue
            kl = flambeau.distributions.kl_divergence(ours_p, ours_q)
            close(kl, torch.distributions.kl_divergence(theirs_p, theirs_q), 1e-7, 1e-9)


def test_divergences_of_low_rank():
    for seed in (0, 1):
        g = [cases.Draw(module, seed) for module in (flambeau, torch)]
        pairs = []
        for draw in g:
            d = draw.torch.distributions
            full = d.MultivariateNormal(draw.real(4), draw.covariance(4))
            low = d.LowRankMultivariateNormal(draw.real(4), draw.real(4, 2),
                                              draw.positive(0.3, 2.0, 4))
            pairs.append((d.kl_divergence(full, low), d.kl_divergence(low, full)))
        for ours, theirs in zip(*pairs, strict=True):
            close(ours, theirs)


@pytest.mark.parametrize("name", list(cases.TRANSFORMS))
def test_transforms(name):
    make, tail = cases.TRANSFORMS[name]
    results = []
    for module in (flambeau, torch):
        draw = cases.Draw(module, 2)
        transform, x = make(module.distributions, draw), draw.real(*tail)
        y = transform(x)
        results.append((repr(transform) if "Tensor" not in name else "", y, transform.inv(y),
                        transform.log_abs_det_jacobian(x, y),
                        transform.inv.log_abs_det_jacobian(y, x),
                        answer(lambda t=transform: t.sign),
                        tuple(transform.forward_shape(x.shape)), transform.bijective,
                        transform.domain.event_dim, transform.codomain.event_dim))
    for ours, theirs in zip(*results, strict=True):
        if isinstance(theirs, torch.Tensor):
            close(ours, theirs)
        else:
            assert ours == theirs


CONSTRAINTS = ("boolean", "one_hot", "nonnegative_integer", "positive_integer", "real",
               "real_vector", "positive", "nonnegative", "unit_interval", "simplex",
               "lower_triangular", "lower_cholesky", "corr_cholesky", "square", "symmetric",
               "positive_semidefinite", "positive_definite")


def chosen(registry, region):
    return repr(registry(region))


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints(name):
    ours = getattr(flambeau.distributions.constraints, name)
    theirs = getattr(torch.distributions.constraints, name)
    assert (ours.is_discrete, ours.event_dim) == (theirs.is_discrete, theirs.event_dim)
    assert repr(ours) == repr(theirs)
    random = np.random.default_rng(1)
    arrays = [random.normal(size=(4, 3, 3)), np.eye(3), np.tril(np.ones((3, 3))),
              np.array([[0.2, 0.3, 0.5]] * 3), random.integers(-1, 3, (3, 3)).astype(float),
              np.eye(3) * -1, np.full((3, 3), np.nan)]
    for array in arrays:
        assert ours.check(flambeau.tensor(array)).tolist() == theirs.check(
            torch.tensor(array)).tolist()
    for registry in ("biject_to", "transform_to"):
        found = [answer(functools.partial(chosen, getattr(d, registry), region)) for d, region in (
            (flambeau.distributions, ours), (torch.distributions, theirs))]
        assert found[0] == found[1]


WRONG = [
    lambda d, t: d.Normal(t.tensor(0.0), t.tensor(-1.0)),
    lambda d, t: d.Normal("a", 1.0),
    lambda d, t: d.Bernoulli(),
    lambda d, t: d.Bernoulli(0.5, 0.5),
    lambda d, t: d.Bernoulli(1.5),
    lambda d, t: d.Categorical(t.tensor(0.5)),
    lambda d, t: d.Uniform(1.0, 0.0),
    lambda d, t: d.Normal(0.0, 1.0).log_prob(1.0),
    lambda d, t: d.Exponential(1.0).log_prob(t.tensor(-1.0)),
    lambda d, t: d.Normal(t.zeros(3), 1.0).log_prob(t.zeros(4)),
    lambda d, t: d.Dirichlet(t.tensor(1.0)),
    lambda d, t: d.MultivariateNormal(t.zeros(2)),
    lambda d, t: d.MultivariateNormal(t.zeros(2), t.eye(2), scale_tril=t.eye(2)),
    lambda d, t: d.MultivariateNormal(t.tensor(0.0), t.eye(2)),
    lambda d, t: d.Wishart(1.0, t.eye(3)),
    lambda d, t: d.LKJCholesky(1),
    lambda d, t: d.Multinomial(t.tensor([2, 3]), t.ones(2, 3)),
    lambda d, t: d.Independent(d.Normal(0.0, 1.0), 1),
    lambda d, t: d.MixtureSameFamily(d.Normal(0.0, 1.0), d.Normal(t.zeros(2), 1.0)),
    lambda d, t: d.TransformedDistribution(d.Normal(0.0, 1.0), 3),
    lambda d, t: d.kl_divergence(d.Normal(0.0, 1.0), d.Poisson(1.0)),
    lambda d, t: d.Poisson(1.0).rsample(),
    lambda d, t: d.Cauchy(0.0, 1.0).expand((2,)).enumerate_support(),
    lambda d, t: d.Geometric(0.0),
    lambda d, t: d.ReshapeTransform((2, 3), (5,)),
    lambda d, t: d.ExpTransform(cache_size=2),
    lambda d, t: d.constraints.dependent.check(t.ones(2)),
    lambda d, t: d.biject_to(d.constraints.boolean),
    lambda d, t: d.Distribution.set_default_validate_args(3),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_errors(number):
    classes = []
    for module in (flambeau, torch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            classes.append(answer(lambda m=module: WRONG[number](m.distributions, m)))
    assert isinstance(classes[1], str) and classes[0] == classes[1]


def test_gradients_of_draws():
    random = np.random.default_rng(0)
    a, b = random.uniform(0.05, 20, 500), random.uniform(0.05, 20, 500)
    x, y = random.gamma(a), np.clip(random.beta(a, b), 1e-6, 1 - 1e-6)
    close(flambeau._standard_gamma_grad(flambeau.tensor(a), flambeau.tensor(x)),
          torch._standard_gamma_grad(torch.tensor(a), torch.tensor(x)), 3e-3, 1e-12)
    close(flambeau._dirichlet_grad(*map(flambeau.tensor, (y, a, a + b))),
          torch._dirichlet_grad(*map(torch.tensor, (y, a, a + b))), 5e-3, 1e-12)
