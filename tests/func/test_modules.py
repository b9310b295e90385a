"""Modules as functions: functional_call, gradients per example, ensembles, batch norm."""

from __future__ import annotations

import warnings

import pytest

import flambeau as torch
import flambeau.nn as nn
import flambeau.nn.functional as F
from flambeau.func import (
    functional_call,
    functionalize,
    grad,
    replace_all_batch_norm_modules_,
    stack_module_state,
    vmap,
)
from flambeau.nn.utils import stateless


def _parameters(module):
    return {name: p.detach() for name, p in module.named_parameters()}


NETS = {
    "linear": lambda: (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)),
                       torch.randn(6, 4)),
    "conv": lambda: (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4),
                                   nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                   nn.Linear(16, 3)).eval(), torch.randn(5, 2, 8, 8)),
    "grouped": lambda: (nn.Sequential(nn.Conv1d(4, 4, 3, groups=2), nn.GELU(), nn.Flatten(),
                                      nn.Linear(16, 3)), torch.randn(4, 4, 6)),
    "transposed": lambda: (nn.Sequential(nn.ConvTranspose1d(2, 3, 3, stride=2), nn.Flatten(),
                                         nn.Linear(27, 3)), torch.randn(4, 2, 4)),
    "embedding": lambda: (nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3)),
                          torch.randint(0, 7, (5, 3))),
    "attention": lambda: (nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, 0.0,
                                                                   batch_first=True),
                                        nn.Flatten(), nn.Linear(24, 3)), torch.randn(3, 3, 8)),
}


@pytest.mark.parametrize("name", NETS)
def test_gradients_per_example(name):
    torch.manual_seed(0)
    net, x = NETS[name]()
    y = torch.arange(len(x)) % 3

    def loss(parameters, one, label):
        return F.cross_entropy(functional_call(net, parameters, (one[None],)), label[None])

    parameters = _parameters(net)
    found = vmap(grad(loss), (None, 0, 0))(parameters, x, y)
    for place in range(len(x)):
        net.zero_grad()
        F.cross_entropy(net(x[place:place + 1]), y[place:place + 1]).backward()
        for key, p in net.named_parameters():
            assert torch.allclose(found[key][place], p.grad, 1e-3, 1e-5), (name, key)


@pytest.mark.parametrize("name", ["linear", "conv", "grouped", "transposed"])
def test_ensembles(name):
    nets = [NETS[name]()[0] for _ in range(3)]
    x = NETS[name]()[1]
    parameters, buffers = stack_module_state(nets)
    assert all(p.is_leaf and p.requires_grad for p in parameters.values())

    def call(p, b, one):
        return functional_call(nets[0], (p, b), (one,))

    found = vmap(call, (0, 0, None))(parameters, buffers, x)
    assert torch.allclose(found, torch.stack([net(x) for net in nets]), 1e-4, 1e-5)
    found.sum().backward()
    nets[1](x).sum().backward()
    for key, p in nets[1].named_parameters():
        assert torch.allclose(parameters[key].grad[1], p.grad, 1e-3, 1e-4), key
    with pytest.raises(RuntimeError, match="at least one"):
        stack_module_state([])
    with pytest.raises(RuntimeError, match="same class"):
        stack_module_state([nets[0], nn.Linear(1, 1)] if nets[0].training else [
            nets[0], nn.Linear(1, 1).eval()])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2, bias=False)
        self.b = nn.Linear(2, 2, bias=False)
        self.b.weight = self.a.weight
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x, scale=1):
        self.seen.add_(1)
        return (self.a(x) + self.b(x)) * scale


def test_functional_call():
    net, x, ones = Tied(), torch.ones(3, 2), torch.ones(2, 2)
    own = net.a.weight
    assert torch.equal(functional_call(net, {"a.weight": ones}, x), torch.full((3, 2), 4.0))
    assert functional_call(net, {"a.weight": ones}, (x,), {"scale": 2})[0, 0] == 8
    assert net.a.weight is own and net.seen[0] == 2
    given = {"a.weight": ones, "seen": torch.zeros(2)}
    functional_call(net, given, x)
    assert given["seen"][0] == 1 and net.seen[0] == 2
    with pytest.raises(ValueError, match="tied"):
        functional_call(net, {"a.weight": ones, "b.weight": ones * 2}, x)
    with pytest.raises(RuntimeError, match=r"Missing key.*'seen'"):
        functional_call(net, {"a.weight": ones}, x, strict=True)
    with pytest.raises(ValueError, match="multiple dictionaries"):
        functional_call(net, ({"seen": x}, {"seen": x}), x)
    with pytest.raises(ValueError, match="to be a dict"):
        functional_call(net, 3, x)
    with pytest.raises(AttributeError, match="no attribute"):
        functional_call(net, {"c.weight": ones}, x)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        stateless.functional_call(net, {"a.weight": ones}, x)
    assert any("deprecated" in str(w.message) for w in seen)
    with pytest.raises(TypeError, match="forward"):
        functional_call(net, {"a.weight": ones}, (x,), {"wrong": 1})
    assert net.a.weight is own


def test_batch_norm_and_dropout():
    norm, x = nn.BatchNorm1d(3), torch.randn(4, 5, 3)
    with pytest.raises(RuntimeError, match="vmap"):
        vmap(norm)(x)
    assert replace_all_batch_norm_modules_(norm) is norm and norm.running_mean is None
    assert torch.allclose(vmap(norm)(x), torch.stack([norm(one) for one in x]), 1e-4, 1e-5)
    drop = nn.Dropout(0.5)
    rows = vmap(drop, randomness="different")(torch.ones(8, 40))
    assert len({tuple(row.tolist()) for row in rows}) == 8
    rows = vmap(drop, randomness="same")(torch.ones(8, 40))
    assert len({tuple(row.tolist()) for row in rows}) == 1


def test_functionalize():
    def written(x):
        y = x.clone()
        y[0] = 3
        return y.mul_(2)

    x = torch.ones(2)
    assert torch.equal(functionalize(written)(x), written(x))
    with pytest.raises(RuntimeError, match="remove"):
        functionalize(written, remove="all")
