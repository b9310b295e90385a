"""Learning rate schedules against their formulas."""

from __future__ import annotations

import copy
import math

import pytest


@pytest.fixture
def optimizer(torch):
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)


def rates(optimizer, scheduler, steps, *args):
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*args)
    return seen


def test_step(torch, optimizer):
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    assert rates(optimizer, scheduler, 6) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert scheduler.get_last_lr() == [0.125]


def test_multistep(torch, optimizer):
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3, 3], gamma=0.5)
    assert rates(optimizer, scheduler, 5) == [1.0, 0.5, 0.5, 0.125, 0.125]


def test_cosine(torch, optimizer):
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=0.1)
    expected = [0.1 + 0.45 * (1 + math.cos(math.pi * t / 10)) for t in range(25)]
    assert rates(optimizer, scheduler, 25) == pytest.approx(expected)


def test_warm_restarts(torch, optimizer):
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2, T_mult=2)
    waves = [(0, 2), (1, 2), (0, 4), (1, 4), (2, 4), (3, 4), (0, 8)]
    expected = [(1 + math.cos(math.pi * t / length)) / 2 for t, length in waves]
    assert rates(optimizer, scheduler, 7) == pytest.approx(expected)


def test_linear_constant_exponential_polynomial(torch, optimizer):
    lr_scheduler = torch.optim.lr_scheduler

    def expected_of(make, expected):
        for group in optimizer.param_groups:
            group.pop("initial_lr", None)
            group["lr"] = 1.0
        assert rates(optimizer, make(optimizer), len(expected)) == pytest.approx(expected)

    expected_of(lambda o: lr_scheduler.LinearLR(o, 0.5, 1.0, 2), [0.5, 0.75, 1.0, 1.0])
    expected_of(lambda o: lr_scheduler.ConstantLR(o, 0.5, 2), [0.5, 0.5, 1.0, 1.0])
    expected_of(lambda o: lr_scheduler.ExponentialLR(o, 0.5), [1.0, 0.5, 0.25])
    expected_of(lambda o: lr_scheduler.PolynomialLR(o, 2), [1.0, 0.5, 0.0, 0.0])
    expected_of(lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)), [1.0, 0.5, 1 / 3])
    expected_of(lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.5), [1.0, 0.5, 0.25])


def test_sequential_and_chained(torch, optimizer):
    lr_scheduler = torch.optim.lr_scheduler
    parts = [lr_scheduler.ConstantLR(optimizer, 0.5, 2), lr_scheduler.ExponentialLR(optimizer, 0.5)]
    scheduler = lr_scheduler.SequentialLR(optimizer, parts, [2])
    assert rates(optimizer, scheduler, 4) == [0.5, 0.5, 1.0, 0.5]


def test_one_cycle(torch, optimizer):
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, total_steps=10)
    seen = rates(optimizer, scheduler, 9)
    assert seen[0] == pytest.approx(2.0 / 25)
    assert max(seen) == pytest.approx(2.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 / 25 / 1e4)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.95)


def test_plateau(torch, optimizer):
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
    for metric, expected in ((1.0, 1.0), (1.1, 1.0), (1.2, 0.5), (0.5, 0.5), (torch.tensor(2.0),
                                                                              0.5)):
        scheduler.step(metric)
        assert optimizer.param_groups[0]["lr"] == expected


@pytest.mark.parametrize("make", [
    lambda s, o: s.CosineAnnealingLR(o, 5), lambda s, o: s.StepLR(o, 3),
    lambda s, o: s.OneCycleLR(o, 0.5, total_steps=20)], ids=["cosine", "step", "one cycle"])
def test_resuming_is_exact(torch, make):
    def fresh():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
        return optimizer, make(torch.optim.lr_scheduler, optimizer)

    optimizer, scheduler = fresh()
    rates(optimizer, scheduler, 7)
    saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    again, schedule_again = fresh()
    again.load_state_dict(saved[0])
    schedule_again.load_state_dict(saved[1])
    assert rates(again, schedule_again, 7) == rates(optimizer, scheduler, 7)


def test_calls_in_the_wrong_order_warn(torch, optimizer):
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()
