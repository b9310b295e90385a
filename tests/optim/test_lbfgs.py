"""Optimizers that are not one formula: L-BFGS, Rprop, averages of models."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.optim import swa_utils


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_finds_the_minimum(search):
    matrix = torch.tensor(np.diag([1.0, 3.0, 10.0, 30.0]))
    goal, x = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    x.requires_grad_()
    optimizer = torch.optim.LBFGS([x], lr=1.0, line_search_fn=search)

    def closure():
        optimizer.zero_grad()
        gap = x - goal
        loss = (gap @ matrix @ gap) / 2
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    np.testing.assert_allclose(x.detach().numpy(), 1.0, atol=1e-4)


def test_lbfgs_takes_one_group():
    x, y = torch.zeros(2).requires_grad_(), torch.zeros(2).requires_grad_()
    with pytest.raises(ValueError, match="parameter groups"):
        torch.optim.LBFGS([{"params": [x]}, {"params": [y]}])


def test_rprop_steps_grow_while_the_sign_stays():
    x = torch.tensor([10.0]).requires_grad_()
    optimizer, places = torch.optim.Rprop([x], lr=0.1), []
    for _ in range(4):
        optimizer.zero_grad()
        (x * x).sum().backward()
        optimizer.step()
        places.append(x.item())
    np.testing.assert_allclose(np.diff(places), [-0.12, -0.144, -0.1728], rtol=1e-4)


def test_averaged_model_is_the_mean():
    net = torch.nn.Linear(2, 1)
    mean = swa_utils.AveragedModel(net)
    seen = []
    for value in (1.0, 2.0, 6.0):
        net.weight.data.fill_(value)
        mean.update_parameters(net)
        seen.append(value)
    np.testing.assert_allclose(mean.module.weight.detach().numpy(), np.mean(seen), rtol=1e-6)
