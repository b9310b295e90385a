"""Every optimizer updates all of its parameters in one launch, with the bits of single updates."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau.runtime import native
from flambeau.tensor import lists

SHAPES = ((8, 5), (8,), (3, 4, 2), (), (4000,))
OPTIONS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True}, "Adam": {"weight_decay": 0.1},
    "AdamW": {"amsgrad": True}, "RMSprop": {"centered": True, "momentum": 0.9}, "Adagrad": {},
    "Adadelta": {}, "Adamax": {}, "NAdam": {}, "RAdam": {}, "ASGD": {}, "Rprop": {},
    "Adafactor": {},
}


def trained(name: str, steps: int = 4) -> list:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = getattr(torch.optim, name)(params, **OPTIONS[name])
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return [param.detach() for param in params] + states


@pytest.mark.parametrize("name", OPTIONS)
def test_one_launch_with_the_same_bits(name: str, monkeypatch):
    launches: list[bool] = []
    run = lists.Merged.run

    def noted(self, args):
        made = run(self, args)
        launches.append(made is not None)
        return made

    monkeypatch.setattr(lists.Merged, "run", noted)
    together = trained(name)
    kinds = 2 if name == "Adafactor" else 1  # matrices and others
    assert launches == [True] * 4 * kinds or not native.allowed()

    def one_by_one(self, *args, **options):
        args += tuple(options.get(key, default) for key, default in self.defaults[len(args):])
        return self.each(args)

    monkeypatch.setattr(lists.ListOp, "__call__", one_by_one)
    assert all(map(torch.equal, together, trained(name)))


@pytest.mark.parametrize("name", ["SGD", "NAdam", "RAdam", "ASGD", "Adafactor"])
def test_compiled_steps_are_one_program(name: str):
    def run(compiled: bool) -> list:
        torch.manual_seed(0)
        model = torch.nn.Linear(6, 5)
        optimizer = getattr(torch.optim, name)(model.parameters(), **OPTIONS[name])

        def step(x):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        step = torch.compile(step, mode="strict", fullgraph=True) if compiled else step
        x = torch.randn(7, 6)
        return [step(x).item() for _ in range(5)]

    assert run(True) == pytest.approx(run(False), rel=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "NAdam", "RAdam", "ASGD"])
def test_a_step_can_be_differentiated(name: str):
    def result(x):
        param = x.clone()
        optimizer = getattr(torch.optim, name)([param], lr=0.1, differentiable=True)
        for factor in (0.5, 1.5):
            param.grad = x * factor + 0.1
            optimizer.step()
        return param.square().sum()

    origin = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(result, (origin,), eps=1e-5, atol=1e-5)
