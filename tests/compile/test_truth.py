"""Compiled functions do to gradients, hooks and Python state what eager ones do."""

from __future__ import annotations

import builtins
import io
import os
import random
import time
import warnings

import numpy as np
import pytest

import flambeau as torch
from flambeau import nn
from flambeau.compile import CaptureError
from flambeau.nn import functional as F

EXACT = {"exact": True}


def programs(compiled) -> int:
    return sum(map(len, compiled.programs.values()))


# ---------------------------------------------------------------------- gradients
def test_gradients_begin_anew_or_add_up():
    weight = torch.ones(2, requires_grad=True)

    def step(x):
        (weight * x).sum().backward()

    compiled = torch.compile(step)
    x = torch.tensor([1.0, 2.0])
    for _ in range(2):
        weight.grad = None
        for count in range(1, 5):
            compiled(x)
            assert weight.grad.tolist() == [1.0 * count, 2.0 * count]


def test_gradient_keeps_its_identity_when_it_adds_up():
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.zeros(2)
    held = weight.grad
    compiled = torch.compile(lambda x: (weight * x).sum().backward())
    for count in range(1, 5):
        compiled(torch.ones(2))
        assert weight.grad is held
        assert held.tolist() == [float(count)] * 2


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("place", ["begin", "end"])
def test_zero_grad(set_to_none, place):
    results = []
    for wrap in (lambda f: f, lambda f: torch.compile(f, options=EXACT)):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        @wrap
        def step(x, model=model, optimizer=optimizer):
            if place == "begin":
                optimizer.zero_grad(set_to_none)
            model(x).pow(2).sum().backward()
            optimizer.step()
            if place == "end":
                optimizer.zero_grad(set_to_none)

        found = []
        for round_ in range(6):
            if round_ == 3:
                model(torch.ones(1, 3)).sum().backward()  # a gradient from elsewhere
            if round_ == 5:
                model.zero_grad()
            step(torch.ones(2, 3))
            found.append([None if p.grad is None else p.grad.tolist() for p in model.parameters()])
            found.append([p.tolist() for p in model.parameters()])
        results.append(found)
    assert results[0] == results[1]


def test_hooks_of_parameters_act():
    results = []
    for wrap in (lambda f: f, torch.compile):
        weight = torch.ones(2, requires_grad=True)

        @wrap
        def step(x, weight=weight):
            weight.grad = None
            (weight * x).sum().backward()

        found = []
        step(torch.ones(2)), step(torch.ones(2))
        found.append(weight.grad.tolist())
        handle = weight.register_hook(lambda g: g * 3)
        step(torch.ones(2)), step(torch.ones(2))
        found.append(weight.grad.tolist())
        handle.remove()
        step(torch.ones(2))
        found.append(weight.grad.tolist())
        results.append(found)
    assert results[0] == results[1] == [[1.0, 1.0], [3.0, 3.0], [1.0, 1.0]]


def test_hooks_of_modules_act():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    seen = []
    compiled = torch.compile(model)
    x = torch.ones(1, 2)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(x), compiled(x)
        handle = model[0].register_forward_hook(lambda module, args, out: out + 100)
        assert torch.equal(compiled(x), model(x))
        handle.remove()
        assert torch.equal(compiled(x), model(x))
        handle = model[0].register_forward_hook(lambda module, args, out: seen.append(out))
        for count in range(1, 8):
            compiled(x)
            assert len(seen) == count
        handle.remove()
        handle = nn.modules.module.register_module_forward_hook(
            lambda module, args, out: seen.clear())
        try:
            seen.append(1)
            compiled(x)
            assert not seen
        finally:
            handle.remove()


# ---------------------------------------------------------------------- state
def test_loaded_optimizer_state_is_used():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        loss = model(x).pow(2).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    compiled = torch.compile(step, options=EXACT)
    x = torch.ones(1, 2)
    for _ in range(4):
        compiled(x)
    saved = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.optim.Adam(model.parameters(), lr=0.1).state_dict() | {
        "state": {i: {k: v.clone() for k, v in s.items()}
                  for i, s in optimizer.state_dict()["state"].items()}}
    expected = [step(x).item() for _ in range(3)]
    model.load_state_dict(saved)
    optimizer.load_state_dict(state)
    assert [compiled(x).item() for _ in range(3)] == expected


def test_scheduler_outside_changes_an_input():
    results = []
    for wrap in (lambda f: f, lambda f: torch.compile(f, options=EXACT)):
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD([{"params": [model.weight]},
                                     {"params": [model.bias], "lr": 0.5}], lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(x).pow(2).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        compiled = wrap(step)
        found = []
        for _ in range(8):
            found.append(compiled(torch.ones(1, 2)).item())
            schedule.step()
        results.append(found)
        if compiled is not step:
            assert programs(compiled) == 1
    assert results[0] == results[1]


def test_own_optimizer_that_computes_with_its_options():
    class Decayed(torch.optim.Optimizer):
        def __init__(self, params, lr, decay):
            super().__init__(params, {"lr": lr, "decay": decay})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.mul_(1 - group["lr"] * group["decay"])
                    p.add_(p.grad * group["lr"], alpha=-1.0)

    results = []
    for wrap in (lambda f: f, lambda f: torch.compile(f, options=EXACT)):
        weight = torch.ones(2, requires_grad=True)
        optimizer = Decayed([weight], 0.1, 0.5)

        def step(x, weight=weight, optimizer=optimizer):
            weight.grad = None
            (weight * x).sum().backward()
            optimizer.step()

        compiled = wrap(step)
        for n in range(5):
            optimizer.param_groups[0]["lr"] = 0.1 / (n + 1)
            compiled(torch.ones(2))
        results.append(weight.tolist())
        if compiled is not step:
            assert programs(compiled) == 1
    assert results[0] == results[1]


def test_python_state_that_is_set_is_set_again():
    class Box:
        ready, last = False, 0.0

    box = Box()

    def step(x, scale):
        box.ready = True
        box.last = scale * 2
        return x * scale

    compiled = torch.compile(step)
    for scale in (1.0, 2.0, 3.0, 4.0):
        box.ready = False
        compiled(torch.ones(1), scale)
        assert box.ready is True
        assert type(box.last) is float
        assert box.last == 2 * scale


def test_list_that_the_function_extends():
    log = []

    def step(x):
        log.append("called")
        return x * 2

    compiled = torch.compile(step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for count in range(1, 8):
            compiled(torch.ones(1))
            assert len(log) == count


def test_what_python_takes_from_outside_is_taken_anew(monkeypatch, capsys):
    dice, numbers, generator = random.Random(0), iter(range(100)), np.random.default_rng(0)
    draw = random.random
    stream = io.StringIO()

    def prints(x):
        print("called")
        return x

    def writes(x):
        stream.write("called")
        return x

    taken = [lambda x: x * random.random(), lambda x: x * draw(), lambda x: x * dice.random(),
             lambda x: x * next(numbers), lambda x: x * generator.random(),
             lambda x: x * np.random.rand(), lambda x: x * (time.perf_counter_ns() % 997)]
    for function in taken:
        compiled = torch.compile(function)
        assert len({compiled(torch.ones(1)).item() for _ in range(6)}) > 2
    compiled = torch.compile(prints), torch.compile(writes)
    for count in range(1, 5):
        compiled[0](torch.ones(1)), compiled[1](torch.ones(1))
        assert stream.getvalue() == "called" * count
    assert capsys.readouterr().out == "called\n" * 4
    compiled = torch.compile(lambda x: x * float(os.environ.get("FLAMBEAU_TEST", "1")))
    for value in ("1", "2", "3"):
        monkeypatch.setenv("FLAMBEAU_TEST", value)
        assert compiled(torch.ones(1)).item() == float(value)
    with pytest.raises(CaptureError, match="print"):
        torch.compile(prints, fullgraph=True)(torch.ones(1))
    assert print is builtins.print
    assert random.random is draw


def test_errors_are_the_functions_own():
    def step(x, n):
        if n > 2:
            raise ValueError("too many")
        return x.reshape(n, -1)

    compiled = torch.compile(step)
    assert compiled(torch.ones(4), 2).shape == (2, 2)
    for _ in range(2):
        with pytest.raises(ValueError, match="too many"):
            compiled(torch.ones(4), 3)
        with pytest.raises(RuntimeError):
            compiled(torch.ones(5), 2)
    assert compiled(torch.ones(4), 2).shape == (2, 2)


def test_random_state_agrees():
    def step(x):
        return F.dropout(x, 0.5) + torch.rand(3)

    ends = []
    for run in (step, torch.compile(step)):
        torch.manual_seed(0)
        for _ in range(3):
            run(torch.ones(3))
        ends.append(torch.get_rng_state())
    assert torch.equal(*ends)


def test_programs_are_limited():
    names = {"name": "0"}

    def step(x):
        return x * int(names["name"])

    compiled = torch.compile(step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in range(20):
            names["name"] = str(n)
            assert compiled(torch.ones(1)).item() == n
    assert programs(compiled) <= 8
    assert "more than 8 programs" in compiled.explain()


def test_exceptions_leave_plain_numbers_behind():
    class Box:
        level, found = 1.0, []

    box = Box()

    def step(x):
        box.level = box.level * 2
        box.found.append(box.level)
        if box.level > 7:
            raise ValueError("too high")
        return x * box.level

    compiled = torch.compile(step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(torch.ones(1)), compiled(torch.ones(1))
        with pytest.raises(ValueError, match="too high"):
            compiled(torch.ones(1))
    assert type(box.level) is float
    assert box.found == [2.0, 4.0, 8.0]
    assert all(type(level) is float for level in box.found)


def test_reasons_name_what_has_changed():
    rate = "low"

    def step(x):
        return x * (2 if rate == "low" else 3)

    compiled = torch.compile(step)
    compiled(torch.ones(1))
    rate = "high"
    compiled(torch.ones(1))
    assert "'rate', which was 'low' and is 'high', has changed" in compiled.explain()
