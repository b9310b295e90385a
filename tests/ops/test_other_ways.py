"""Operations that are computed in another way for some arguments: the ways agree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

import flambeau as torch

F = torch.nn.functional


def ulps(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest error in units of the last place of float32."""
    size = np.abs(expected).astype(np.float32)
    return float((np.abs(got - expected) / np.spacing(np.maximum(size, np.float32(1e-38)))).max())


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_of_many_channels_is_that_of_few(mode, padding):
    torch.manual_seed(0)
    x = torch.randn(2, 9, 5, 6, dtype=torch.float64)
    grid = torch.rand(2, 4, 7, 2, dtype=torch.float64) * 2.6 - 1.3
    options = {"mode": mode, "padding_mode": padding, "align_corners": False}

    def sampled(part):
        part, places = part.clone().requires_grad_(), grid.clone().requires_grad_()
        result = F.grid_sample(part, places, **options)
        return result, *torch.autograd.grad((result * result).sum(), (part, places))

    whole, slope, turn = sampled(x)
    parts = [sampled(x[:, c:c + 3]) for c in (0, 3, 6)]
    assert torch.allclose(whole, torch.cat([part[0] for part in parts], 1))
    assert torch.allclose(slope, torch.cat([part[1] for part in parts], 1))
    assert torch.allclose(turn, sum(part[2] for part in parts))
    assert mode != "nearest" or not turn.any()


@pytest.mark.parametrize("name, limit", [("i0e", 4), ("i1e", 4), ("ndtri", 3), ("erfinv", 2)])
def test_singles_are_near_doubles(name, limit):
    x = np.concatenate([np.linspace(-30, 30, 20001), np.logspace(-20, 20, 2001)])
    if name in ("ndtri", "erfinv"):
        x = np.concatenate([np.linspace(0.001, 0.999, 20001), np.logspace(-37, -3, 2001)])
    x = x.astype(np.float32)
    got = getattr(torch.special, name)(torch.from_numpy(x)).numpy()
    assert ulps(got, getattr(special, name)(x.astype(np.float64))) < limit


@pytest.mark.parametrize("name", ["i1", "erfcx", "log_ndtr", "bessel_j0"])
def test_long_chains_follow_the_order_of_memory(name):
    x = torch.rand(70, 90) * 4
    function = getattr(torch.special, name)
    assert torch.equal(function(x.t()), function(x).t())
    assert function(x.t()).stride() == (1, 90)


def test_gradient_of_prod_with_zeros():
    x = torch.tensor([[2.0, 3.0, 0.0], [0.0, 4.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(x.prod(1).sum(), x, create_graph=True)
    assert slope.tolist() == [[0, 0, 6], [0, 0, 0]]
    (second,) = torch.autograd.grad(slope[1, 0], x)
    assert second.tolist() == [[0, 0, 0], [0, 0, 4]]


def test_vmap_of_calls_like_earlier_ones():
    x = torch.arange(12.0).reshape(4, 3)
    for scale in (2.0, 3.0, -1.5, 2):
        assert torch.equal(torch.vmap(lambda row, s=scale: row * s + 1)(x), x * scale + 1)
    for dim in (0, -1):
        assert torch.equal(torch.vmap(lambda row, d=dim: row.sum(d))(x), x.sum(1))
    weight = torch.ones(3, requires_grad=True)
    for _ in range(2):
        out = torch.vmap(lambda row: (row * weight).exp())(x * 0.1)
        (grad,) = torch.autograd.grad(out.sum(), weight)
        assert torch.allclose(grad, (x * 0.1 * (x * 0.1).exp()).sum(0))
    with pytest.raises(RuntimeError, match="must match"):
        torch.vmap(lambda row: row + torch.ones(2))(x)


@pytest.mark.parametrize("order", [2, 1.5, 0.5])
def test_curvature_of_norms_at_the_origin(order):
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.linalg.vector_norm(x, order), x, create_graph=True)
    assert slope.tolist() == [0, 0, 0]
    (curve,) = torch.autograd.grad(slope.sum(), x)
    assert curve.isnan().all()


def test_mvlgamma_of_many_factors():
    x = torch.linspace(30, 60, 4, dtype=torch.float64)
    for order in (3, 40):
        wanted = [special.multigammaln(value, order) for value in x.tolist()]
        assert torch.mvlgamma(x, order).tolist() == pytest.approx(wanted, rel=1e-13)
    assert torch.autograd.gradcheck(lambda v: torch.mvlgamma(v, 40), x.requires_grad_())
