"""nn.init and nn.utils."""

from __future__ import annotations

import math

import numpy as np
import pytest


def test_one_seed_one_draw(torch):
    torch.manual_seed(1)
    first = torch.nn.Linear(5, 4).weight.tolist()
    torch.manual_seed(1)
    assert torch.nn.Linear(5, 4).weight.tolist() == first


def test_linear_draws_weight_then_bias(torch):
    torch.manual_seed(1)
    layer = torch.nn.Linear(6, 4)
    torch.manual_seed(1)
    bound = math.sqrt(3.0) * (math.sqrt(2.0 / 6) / math.sqrt(6))
    weight = torch.empty(4, 6).uniform_(-bound, bound)
    bias = torch.empty(4).uniform_(-1 / math.sqrt(6), 1 / math.sqrt(6))
    assert layer.weight.tolist() == weight.tolist()
    assert layer.bias.tolist() == bias.tolist()


def test_constants(torch):
    init = torch.nn.init
    assert init.constant_(torch.empty(2), 0.5).tolist() == [0.5, 0.5]
    assert init.ones_(torch.empty(2)).tolist() == [1.0, 1.0]
    assert init.zeros_(torch.empty(2)).tolist() == [0.0, 0.0]
    assert init.eye_(torch.empty(2, 3)).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    dirac = init.dirac_(torch.empty(2, 2, 3)).numpy()
    assert dirac.sum() == 2
    assert dirac[0, 0, 1] == dirac[1, 1, 1] == 1


def test_spread(torch):
    init, shape = torch.nn.init, (200, 300)
    std = float(init.xavier_normal_(torch.empty(shape)).std())
    assert std == pytest.approx(math.sqrt(2 / 500), rel=0.05)
    bound = math.sqrt(6 / 300)
    values = init.kaiming_uniform_(torch.empty(shape))
    assert float(values.abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(values.abs().max()) <= bound
    values = init.trunc_normal_(torch.empty(shape), std=2.0).numpy()
    assert np.abs(values).max() <= 2.0
    values = init.sparse_(torch.empty(50, 20), 0.3).numpy()
    assert ((values == 0).sum(0) == 15).all()


def test_initialization_is_not_recorded(torch):
    weight = torch.nn.Parameter(torch.empty(3, 3))
    torch.nn.init.xavier_uniform_(weight)
    assert weight.is_leaf
    assert weight.requires_grad


def parameters(torch):
    values = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1)),
              torch.nn.Parameter(torch.zeros(3))]
    values[0].grad = torch.tensor([3.0, 0.0])
    values[1].grad = torch.tensor([-4.0])
    return values


def test_clip_by_norm(torch):
    values = parameters(torch)
    total = torch.nn.utils.clip_grad_norm_(values, 1.0)
    assert float(total) == pytest.approx(5.0)
    assert values[0].grad.tolist() == pytest.approx([0.6, 0.0], rel=1e-5)
    assert values[2].grad is None
    assert float(torch.nn.utils.clip_grad_norm_(values, 9.0)) == pytest.approx(1.0, rel=1e-5)
    assert values[1].grad.tolist() == pytest.approx([-0.8], rel=1e-5)


def test_clip_refuses_nonfinite(torch):
    values = parameters(torch)
    values[0].grad.fill_(float("inf"))
    with pytest.raises(RuntimeError, match="non-finite"):
        torch.nn.utils.clip_grad_norm_(values, 1.0, error_if_nonfinite=True)


def test_clip_by_value(torch):
    values = parameters(torch)
    torch.nn.utils.clip_grad_value_(values, 2.5)
    assert values[0].grad.tolist() == [2.5, 0.0]
    assert values[1].grad.tolist() == [-2.5]


def test_vector_of_parameters(torch):
    values = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.zeros(3))]
    vector = torch.nn.utils.parameters_to_vector(values)
    assert vector.tolist() == [1.0] * 4 + [0.0] * 3
    torch.nn.utils.vector_to_parameters(vector + 1, values)
    assert values[0].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert values[1].tolist() == [1.0, 1.0, 1.0]
