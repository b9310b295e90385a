"""Parametrizations: reading computes, assigning goes back, and what does not fit is refused."""

from __future__ import annotations

import copy
import pickle

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.nn.utils import parametrizations, parametrize


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT

    def right_inverse(self, a):
        return a.triu()


class Plain(nn.Module):
    def forward(self, x):
        return 2 * x


class Rank1(nn.Module):
    def forward(self, u, v):
        return u[:, None] * v

    def right_inverse(self, w):
        return w[:, 0].clone(), w[0].clone()


def test_the_tensor_is_computed_when_it_is_read():
    layer = nn.Linear(3, 3)
    weight = layer.weight
    before = weight.detach().clone()
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert type(layer).__name__ == "ParametrizedLinear"
    assert isinstance(layer, nn.Linear)
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    assert layer.parametrizations.weight.original is weight  # what an optimizer knows
    assert torch.equal(layer.weight, layer.weight.mT)
    assert torch.equal(layer.weight, before.triu() + before.triu(1).mT)
    assert set(layer.state_dict()) == {"bias", "parametrizations.weight.original"}
    layer(torch.ones(2, 3)).sum().backward()
    assert torch.equal(weight.grad.tril(-1), torch.zeros(3, 3))


def test_an_assignment_goes_the_other_way():
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    wanted = torch.arange(9.0).reshape(3, 3)
    layer.weight = wanted + wanted.mT
    assert torch.equal(layer.weight, wanted + wanted.mT)
    with pytest.raises(KeyError):
        layer.weight = nn.Parameter(wanted)
    other = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Plain())
    with pytest.raises(RuntimeError, match="right_inverse"):
        other.weight = wanted


def test_chains_run_in_order_and_back():
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    before = layer.weight.detach()
    parametrize.register_parametrization(layer, "weight", Plain())
    assert torch.equal(layer.weight, 2 * before)
    with pytest.raises(RuntimeError, match="Plain"):
        layer.weight = before


def test_several_originals():
    layer = nn.Linear(4, 3)
    parametrize.register_parametrization(layer, "weight", Rank1())
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {
        "bias": (3,), "parametrizations.weight.original0": (3,),
        "parametrizations.weight.original1": (4,)}
    assert torch.linalg.matrix_norm(layer.weight[1:2] * layer.weight[0, 0]
                                    - layer.weight[1:2, :1] * layer.weight[:1]) < 1e-5
    with pytest.raises(ValueError, match="sequence"):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    value = layer.weight.detach().clone()
    parametrize.remove_parametrizations(layer, "weight")
    assert isinstance(layer.weight, nn.Parameter)
    assert torch.equal(layer.weight, value)


@pytest.mark.parametrize("leave", [True, False])
def test_removing_leaves_an_ordinary_parameter(leave):
    layer = nn.Linear(3, 3)
    original = layer.weight
    raw = original.detach().clone()
    parametrize.register_parametrization(layer, "weight", Plain())
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=leave)
    assert type(layer) is nn.Linear
    assert layer.weight is original
    assert torch.equal(layer.weight, 2 * raw if leave else raw)
    assert not parametrize.is_parametrized(layer)


def test_a_value_is_computed_once_inside_of_cached():
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Plain())
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert layer.weight is not layer.weight


class Halved(nn.Module):
    def forward(self, x):
        return x[:1]


class Doubled(nn.Module):
    def forward(self, x):
        return x.double()


@pytest.mark.parametrize("bad", [Halved, Doubled])
def test_what_does_not_fit_is_refused_and_nothing_changes(bad):
    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="unsafe=True"):
        parametrize.register_parametrization(layer, "weight", bad())
    assert type(layer) is nn.Linear
    assert isinstance(layer.weight, nn.Parameter)
    parametrize.register_parametrization(layer, "weight", bad(), unsafe=True)
    assert layer.weight.shape == (1, 3) or layer.weight.dtype is torch.float64


def test_names_that_do_not_exist():
    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="nothing"):
        parametrize.register_parametrization(layer, "nothing", Plain())
    with pytest.raises(ValueError, match="weight"):
        parametrize.remove_parametrizations(layer, "weight")
    with pytest.raises(ValueError, match="Parametrization"):
        parametrize.ParametrizationList([], layer.weight)


def test_copies_transfers_and_pickles():
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Plain())
    twin = copy.deepcopy(layer)
    assert torch.equal(twin.weight, layer.weight)
    assert twin.parametrizations.weight.original is not layer.parametrizations.weight.original
    with pytest.raises(RuntimeError, match="state_dict"):
        pickle.dumps(layer)
    other = parametrize.transfer_parametrizations_and_params(layer, nn.Linear(3, 3))
    assert other.parametrizations.weight.original is layer.parametrizations.weight.original


def test_training_a_parametrized_layer_compiled():
    losses = []
    for wrap in (lambda f: f, torch.compile):
        torch.manual_seed(0)
        layer = parametrize.register_parametrization(nn.Linear(4, 4), "weight", Symmetric())
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        x = torch.randn(8, 4)

        def step(layer=layer, optimizer=optimizer, x=x):
            optimizer.zero_grad()
            loss = layer(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        losses.append([float(run()) for _ in range(6)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < losses[0][0]


# ---------------------------------------------------------------------- those that come along
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("orthogonal_map", [None, "matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("around", [True, False])
def test_orthogonal_stays_orthogonal_while_it_is_trained(shape, orthogonal_map, around):
    layer = parametrizations.orthogonal(nn.Linear(*shape), orthogonal_map=orthogonal_map,
                                        use_trivialization=around)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    first = layer.weight.detach().clone()
    for _ in range(3):
        layer(torch.randn(8, shape[0])).square().sum().backward()
        optimizer.step()
    w = layer.weight if layer.weight.shape[0] >= layer.weight.shape[1] else layer.weight.mT
    torch.testing.assert_close(w.mT @ w, torch.eye(w.shape[1]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(layer.weight, first)


def test_orthogonal_matrices_can_be_assigned():
    layer = parametrizations.orthogonal(nn.Linear(4, 4, bias=False))
    wanted = torch.linalg.qr(torch.randn(4, 4)).Q
    layer.weight = wanted
    torch.testing.assert_close(layer.weight, wanted)
    fixed = parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley",
                                        use_trivialization=False)
    with pytest.raises(NotImplementedError, match="use_trivialization"):
        fixed.weight = wanted
    with pytest.raises(ValueError, match="orthogonal_map"):
        parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="qr")


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_is_magnitude_times_direction(dim):
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    parametrizations.weight_norm(layer, dim=dim)
    torch.testing.assert_close(layer.weight, before)
    with torch.no_grad():
        layer.parametrizations.weight.original0.fill_(2.0)
    norms = torch.linalg.vector_norm(layer.weight, dim={0: 1, 1: 0, None: (0, 1)}[dim])
    torch.testing.assert_close(norms, torch.full_like(norms, 2.0))


def test_weight_norm_reads_the_names_of_the_hook():
    state = {"bias": torch.zeros(3), "weight_g": torch.ones(3, 1), "weight_v": torch.ones(3, 4)}
    layer = parametrizations.weight_norm(nn.Linear(4, 3))
    layer.load_state_dict(state)
    torch.testing.assert_close(layer.weight, torch.full((3, 4), 0.5))


@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 4), lambda: nn.ConvTranspose2d(3, 4, 2)])
def test_spectral_norm_brings_the_largest_singular_value_to_one(make):
    layer = parametrizations.spectral_norm(make(), n_power_iterations=20)
    layer.train()
    weight = layer.weight.detach()
    matrix = weight.transpose(0, 1).flatten(1) if weight.ndim == 4 else weight
    assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=1e-2)
    with pytest.raises(ValueError, match="positive"):
        parametrizations.spectral_norm(make(), n_power_iterations=0)
