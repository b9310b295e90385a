"""Optimizers against their published rules, written out in NumPy with float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest

STEPS = 6


def gradients():
    rng = np.random.default_rng(1)
    return [rng.standard_normal(4) for _ in range(STEPS)]


def run(torch, make, start):
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = make([parameter])
    for gradient in gradients():
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


START = np.array([1.0, -2.0, 0.5, 3.0])


def check(torch, make, expected):
    np.testing.assert_allclose(run(torch, make, START), expected, rtol=1e-12)


def test_sgd(torch):
    p, buffer = START.copy(), None
    for g in gradients():
        g = g + 0.01 * p
        buffer = g if buffer is None else 0.9 * buffer + 0.8 * g
        p = p - 0.1 * buffer
    check(torch, lambda ps: torch.optim.SGD(ps, 0.1, momentum=0.9, dampening=0.2,
                                            weight_decay=0.01), p)


def test_nesterov(torch):
    p, buffer = START.copy(), None
    for g in gradients():
        buffer = g if buffer is None else 0.9 * buffer + g
        p = p - 0.1 * (g + 0.9 * buffer)
    check(torch, lambda ps: torch.optim.SGD(ps, 0.1, momentum=0.9, nesterov=True), p)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "amsgrad"])
def test_adam(torch, kind):
    p, m, v, top = START.copy(), 0.0, 0.0, np.zeros(4)
    for t, g in enumerate(gradients(), 1):
        if kind == "AdamW":
            p = p * (1 - 0.05 * 0.1)
        else:
            g = g + 0.1 * p
        m = 0.9 * m + 0.1 * g
        v = 0.99 * v + 0.01 * g * g
        top = np.maximum(top, v)
        root = np.sqrt((top if kind == "amsgrad" else v) / (1 - 0.99 ** t))
        p = p - 0.05 * (m / (1 - 0.9 ** t)) / (root + 1e-8)
    cls = torch.optim.AdamW if kind == "AdamW" else torch.optim.Adam
    check(torch, lambda ps: cls(ps, 0.05, betas=(0.9, 0.99), weight_decay=0.1,
                                amsgrad=kind == "amsgrad"), p)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0, 0.7])
def test_rmsprop(torch, centered, momentum):
    p, v, mean, buffer = START.copy(), 0.0, 0.0, 0.0
    for g in gradients():
        v = 0.9 * v + 0.1 * g * g
        mean = 0.9 * mean + 0.1 * g
        root = np.sqrt(v - mean * mean if centered else v) + 1e-8
        buffer = momentum * buffer + g / root
        p = p - 0.05 * buffer
    check(torch, lambda ps: torch.optim.RMSprop(ps, 0.05, alpha=0.9, centered=centered,
                                                momentum=momentum), p)


def test_adagrad(torch):
    p, total = START.copy(), np.full(4, 0.5)
    for t, g in enumerate(gradients()):
        total = total + g * g
        p = p - 0.1 / (1 + t * 0.2) * g / (np.sqrt(total) + 1e-10)
    check(torch, lambda ps: torch.optim.Adagrad(ps, 0.1, lr_decay=0.2,
                                                initial_accumulator_value=0.5), p)


def test_maximize_is_the_mirror(torch):
    down = run(torch, lambda ps: torch.optim.Adam(ps, 0.1), np.zeros(4))
    up = run(torch, lambda ps: torch.optim.Adam(ps, 0.1, maximize=True), np.zeros(4))
    np.testing.assert_array_equal(down, -up)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta",
                                  "Adamax", "NAdam", "RAdam"])
def test_resuming_is_exact(torch, name):
    options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}

    def make(parameters):
        return getattr(torch.optim, name)(parameters, lr=0.1, **options)

    # float32: like PyTorch's, NAdam's float32 product becomes float64 on loading otherwise.
    start = START.astype(np.float32)
    whole = torch.nn.Parameter(torch.tensor(start))
    optimizer = make([whole])
    for step, gradient in enumerate(gradients()):
        if step == 3:
            saved = copy.deepcopy(optimizer.state_dict())
            resumed = torch.nn.Parameter(whole.detach().clone())
            again = make([resumed])
            again.load_state_dict(saved)
        gradient = gradient.astype(np.float32)
        whole.grad = torch.tensor(gradient)
        optimizer.step()
        if step >= 3:
            resumed.grad = torch.tensor(gradient)
            again.step()
    assert resumed.tolist() == whole.tolist()


def test_state_dict_format(torch):
    parameters = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(1))]
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    parameters[1].grad = torch.ones(1)
    optimizer.step()
    state = optimizer.state_dict()
    assert list(state) == ["state", "param_groups"]
    assert list(state["state"]) == [1]
    assert list(state["state"][1]) == ["step", "exp_avg", "exp_avg_sq"]
    step = state["state"][1]["step"]
    assert step.dtype == torch.float32
    assert step.dim() == 0
    assert step.item() == 1.0
    assert state["param_groups"][0]["params"] == [0, 1]
    assert state["param_groups"][0]["betas"] == (0.9, 0.999)


def test_plain_sgd_has_no_state(torch):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], 0.5)
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert parameter.tolist() == [0.5]
    assert optimizer.state_dict()["state"] == {}


def test_groups(torch):
    a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 1.0}], lr=0.1)
    a.grad = b.grad = torch.ones(1)
    optimizer.step()
    assert a.item() == pytest.approx(0.9)
    assert b.item() == 0.0
    with pytest.raises(ValueError, match="appear in more than one parameter group"):
        optimizer.add_param_group({"params": [a]})


def test_the_step_is_not_recorded(torch):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    (parameter ** 2).sum().backward()
    optimizer.step()
    assert parameter.is_leaf
    assert parameter.requires_grad
    assert not optimizer.state[parameter]["momentum_buffer"].requires_grad


def test_closure_runs_with_gradients(torch):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], 0.25)

    def closure():
        optimizer.zero_grad()
        loss = (parameter ** 2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 1.0
    assert parameter.item() == 0.5


def test_step_hooks(torch):
    parameter, log = torch.nn.Parameter(torch.ones(1)), []
    optimizer = torch.optim.SGD([parameter], 0.1)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: log.append("pre"))
    handle = optimizer.register_step_post_hook(lambda o, args, kwargs: log.append("post"))
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert log == ["pre", "post", "pre"]


def test_a_custom_optimizer(torch):
    class Signs(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.add_(parameter.grad.sign(), alpha=-group["lr"])

    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = Signs([parameter], 0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    parameter.grad = torch.tensor([-3.0, 2.0])
    optimizer.step()
    scheduler.step()
    assert parameter.tolist() == [1.5, 0.5]


def test_repr(torch):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    assert repr(optimizer).startswith("SGD (\nParameter Group 0\n    dampening: 0\n")


@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_parameters_and_state_can_be_swapped_for_a_while(torch, name):
    make = getattr(torch.optim, name)
    model = torch.nn.Linear(2, 1)
    optimizer = make(model.parameters(), lr=0.1)
    params = {name: torch.nn.Parameter(p.detach().clone()) for name, p in model.named_parameters()}
    swap = torch.optim.swap_in_optimizer_params_and_state
    with pytest.raises(RuntimeError, match="initialized"), swap(optimizer, params, {
            "state": {}, "param_groups": []}):
        pass

    def step(weights):
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    step(model.parameters())
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 5.0
    weight = model.weight.detach().clone()
    with swap(optimizer, params, state):
        assert optimizer.param_groups[0]["params"][0] is params["weight"]
        step(params.values())
        optimizer.param_groups[0]["lr"] = 7.0
    assert torch.equal(model.weight, weight) and not torch.equal(params["weight"], weight)
    assert optimizer.param_groups[0]["lr"] == 0.1 and state["param_groups"][0]["lr"] == 5.0
    assert state["state"][0]["step"] == 2 and optimizer.state[model.weight]["step"] == 1
    with pytest.raises(RuntimeError, match="ordering"), swap(optimizer, {"a": weight}, state):
        pass
    with pytest.raises(RuntimeError, match="groups"), swap(optimizer, params, {
            "state": {}, "param_groups": []}):
        pass
