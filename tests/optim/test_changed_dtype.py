"""Optimizers after the model has changed its dtype: state stays as it was made."""

from __future__ import annotations

import pytest

import flambeau as torch

OPTIM = torch.optim


def after_change(make, dtype):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    optimizer = make(model.parameters())
    for wanted in (torch.float32, dtype):
        model.to(wanted)
        optimizer.zero_grad()
        model(x.to(wanted)).sum().backward()
        optimizer.step()
    return model.weight, optimizer


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [
    lambda p: OPTIM.SGD(p, lr=0.1, momentum=0.9), lambda p: OPTIM.RMSprop(p, lr=0.1, momentum=0.5),
    OPTIM.Adagrad, OPTIM.Adadelta, OPTIM.ASGD, OPTIM.Rprop])
def test_state_keeps_its_dtype(make, dtype):
    unchanged, _ = after_change(make, torch.float32)
    weight, optimizer = after_change(make, dtype)
    assert weight.dtype is dtype
    tolerance = 1e-6 if dtype is torch.float64 else 2e-2
    torch.testing.assert_close(weight.float(), unchanged, rtol=tolerance, atol=tolerance)
    state = optimizer.state[weight]
    assert {t.dtype for t in state.values() if isinstance(t, torch.Tensor)} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [
    OPTIM.Adam, OPTIM.AdamW, OPTIM.Adamax, OPTIM.NAdam, OPTIM.RAdam,
    lambda p: OPTIM.Adam(p, amsgrad=True), lambda p: OPTIM.RMSprop(p, centered=True),
    lambda p: OPTIM.RMSprop(p, centered=True, momentum=0.5)])
def test_averages_that_move_towards_the_gradient_have_its_dtype(make, dtype):
    with pytest.raises(RuntimeError, match="expected dtype float for `end` but got dtype"):
        after_change(make, dtype)
