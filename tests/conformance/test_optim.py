"""optim: the same steps under Flambeau and PyTorch - parameters, state dicts, schedules, errors."""

from __future__ import annotations

import copy
import inspect
import warnings

import numpy as np
import pytest
import torch as pytorch

import flambeau

BOTH = (flambeau, pytorch)

OPTIMIZERS = """
SGD(ps, 0.1)
SGD(ps, 0.1, momentum=0.9)
SGD(ps, 0.1, momentum=0.9, dampening=0.1, weight_decay=0.01)
SGD(ps, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
SGD(ps, 0.1, maximize=True)
SGD(ps, torch.tensor(0.1), foreach=False)
Adam(ps)
Adam(ps, 0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
Adam(ps, 0.02, amsgrad=True, maximize=True)
Adam(ps, 0.02, decoupled_weight_decay=True, weight_decay=0.1)
Adam(ps, torch.tensor(0.02))
AdamW(ps)
AdamW(ps, 0.05, amsgrad=True, weight_decay=0.2)
AdamW(ps, 0.05, maximize=True, foreach=False)
RMSprop(ps)
RMSprop(ps, 0.02, alpha=0.9, eps=1e-5, weight_decay=0.1)
RMSprop(ps, 0.02, momentum=0.8)
RMSprop(ps, 0.02, centered=True)
RMSprop(ps, 0.02, centered=True, momentum=0.8, maximize=True)
Adagrad(ps)
Adagrad(ps, 0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5)
Adadelta(ps)
Adadelta(ps, 0.5, rho=0.8, weight_decay=0.1, maximize=True)
Adamax(ps)
Adamax(ps, 0.02, betas=(0.7, 0.9), weight_decay=0.1)
NAdam(ps)
NAdam(ps, 0.02, weight_decay=0.1, momentum_decay=0.01, decoupled_weight_decay=True)
RAdam(ps, 0.02)
RAdam(ps, 0.02, betas=(0.7, 0.8), weight_decay=0.1)
""".strip().splitlines()


def array(tensor):
    return tensor.detach().to("cpu").numpy()


def plain(value):
    """Tensors as arrays, inside any nesting."""
    if isinstance(value, BOTH_TENSORS):
        return array(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value


BOTH_TENSORS = (flambeau.Tensor, pytorch.Tensor)


def assert_close(ours, theirs, tolerance):
    """Equal structure; arrays within `tolerance` relative to their greatest element."""
    assert type(ours) is type(theirs), (ours, theirs)
    if isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        scale = float(np.abs(theirs).max()) if theirs.size else 0.0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_close(ours[key], theirs[key], tolerance)
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, tolerance)
    else:
        assert ours == theirs


def parameters(torch, dtype="float32"):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape) for shape in ((4, 3), (5,), (), (2, 1, 3))]
    if "complex" in dtype:
        values = [value + 1j * rng.standard_normal(value.shape) for value in values]
    return [torch.nn.Parameter(torch.tensor(np.asarray(value, dtype))) for value in values]


def set_gradients(torch, params, step):
    rng = np.random.default_rng(100 + step)
    for index, param in enumerate(params):
        value = rng.standard_normal(tuple(param.shape))
        if param.is_complex():
            value = value + 1j * rng.standard_normal(tuple(param.shape))
        value = np.asarray(value, array(param).dtype)
        param.grad = None if (index, step) == (1, 1) else torch.tensor(value)


def make(torch, text, params):
    names = {name: getattr(torch.optim, name, None) for name in (
        "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam")}
    return eval(text, {"ps": params, "torch": torch, **names})


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("text", OPTIMIZERS)
def test_steps(text, dtype):
    """Five steps, a round trip of the state dict, two more steps."""
    def program(torch):
        params = parameters(torch, dtype)
        optimizer = make(torch, text, params)
        record = []
        for step in range(5):
            set_gradients(torch, params, step)
            optimizer.step()
            record.append([array(param).copy() for param in params])
        record.append(plain(copy.deepcopy(optimizer.state_dict())))
        again = make(torch, text, params)
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for step in range(5, 7):
            set_gradients(torch, params, step)
            again.step()
        record.append([array(param).copy() for param in params])
        record.append(plain(again.state_dict()))
        return record

    if "tensor" in text and dtype != "float32":
        pytest.skip("one dtype is enough for a rate that is a tensor")
    tolerance = 1e-6 if dtype in ("float32", "complex64") else 1e-13
    assert_close(program(flambeau), program(pytorch), tolerance)


@pytest.mark.parametrize("text", OPTIMIZERS)
def test_repr_and_defaults(text):
    def program(torch):
        optimizer = make(torch, text, parameters(torch))
        return repr(optimizer), plain(optimizer.defaults), plain(optimizer.state_dict())
    assert_close(program(flambeau), program(pytorch), 0.0)


@pytest.mark.parametrize("name", flambeau.optim.__all__)
def test_signature(name):
    def program(torch):
        cls = getattr(torch.optim, name)
        if not inspect.isclass(cls):
            return None
        values = inspect.signature(cls.__init__).parameters.values()
        return [(p.name, str(p.kind), str(p.default)) for p in values]
    assert program(flambeau) == program(pytorch)


ERRORS = """
SGD([], 0.1)
SGD(ps[0], 0.1)
SGD([3], 0.1)
SGD([ps[0] * 2], 0.1)
SGD([{'params': ps}, {'params': ps}], 0.1)
SGD([{'params': set(ps)}], 0.1)
SGD([3, {}], 0.1)
SGD({'a': ps[0]}, 0.1)
SGD([('a', ps[0]), ps[1]], 0.1)
SGD([{'paramz': ps}])
SGD([{'params': [('a', ps[0])]}, {'params': [ps[1]]}])
SGD(ps, -0.1)
SGD(ps, 0.1, momentum=-1)
SGD(ps, 0.1, weight_decay=-1)
SGD(ps, 0.1, nesterov=True)
SGD(ps, torch.tensor([0.1, 0.2]))
SGD(ps, fused=True, foreach=True)
SGD(ps, fused=True, differentiable=True)
Adam(ps, -0.1)
Adam(ps, betas=(1.0, 0.9))
Adam(ps, betas=(0.9, -1))
Adam(ps, eps=-1)
Adam(ps, weight_decay=-1)
Adam(ps, betas=(torch.tensor(0.9), 0.9))
Adam(ps, torch.tensor(0.1), foreach=True)
Adam(ps, betas=(torch.tensor(0.9), torch.tensor(0.9)), foreach=True)
Adam(ps, fused=True, foreach=True)
AdamW(ps, eps=-1)
RMSprop(ps, lr=-1)
RMSprop(ps, eps=-1)
RMSprop(ps, alpha=-1)
RMSprop(ps, momentum=-1)
RMSprop(ps, weight_decay=-1)
Adagrad(ps, lr=-1)
Adagrad(ps, lr_decay=-1)
Adagrad(ps, initial_accumulator_value=-1)
Adagrad(ps, eps=-1)
Adadelta(ps, rho=2)
Adamax(ps, betas=(0.0, 1.0))
NAdam(ps, momentum_decay=-1)
RAdam(ps, lr=-1)
SGD(ps).load_state_dict(SGD(ps[:2]).state_dict())
SGD(ps).load_state_dict({'state': {}, 'param_groups': []})
SGD(ps).add_param_group(3)
Optimizer(ps, {}).step()
StepLR(3, 3)
StepLR(SGD(ps), 3, last_epoch=2)
ConstantLR(SGD(ps), factor=2)
LinearLR(SGD(ps), start_factor=0)
LinearLR(SGD(ps), end_factor=2)
LambdaLR(SGD(ps), [1, 2])
SequentialLR(SGD(ps), [], [])
SequentialLR(SGD(ps), [ConstantLR(SGD(ps))], [])
ChainedScheduler([])
ReduceLROnPlateau(SGD(ps), factor=1.0)
ReduceLROnPlateau(SGD(ps), mode='q')
ReduceLROnPlateau(SGD(ps), threshold_mode='q')
ReduceLROnPlateau(SGD(ps), min_lr=[1, 2])
ReduceLROnPlateau(3)
CyclicLR(SGD(ps, momentum=0.9), 0.1, 0.2, mode='q')
CyclicLR(SGD(ps), [0.1, 0.2], 0.2)
CosineAnnealingWarmRestarts(SGD(ps), 0)
CosineAnnealingWarmRestarts(SGD(ps), 1, 0)
CosineAnnealingWarmRestarts(SGD(ps), 3).step(-1)
OneCycleLR(SGD(ps), 0.1)
OneCycleLR(SGD(ps), 0.1, total_steps=-1)
OneCycleLR(SGD(ps), 0.1, epochs=1)
OneCycleLR(SGD(ps), 0.1, epochs=-1, steps_per_epoch=3)
OneCycleLR(SGD(ps), 0.1, 10, pct_start=2)
OneCycleLR(SGD(ps), 0.1, 10, anneal_strategy='q')
CyclicLR(Adagrad(ps), 0.1, 0.2)
""".strip().splitlines()


@pytest.mark.parametrize("text", ERRORS)
def test_error(text):
    def program(torch):
        names = {name: getattr(torch.optim, name) for name in dir(torch.optim)}
        names |= {name: getattr(torch.optim.lr_scheduler, name)
                  for name in torch.optim.lr_scheduler.__all__}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                eval(text, {**names, "ps": parameters(torch), "torch": torch})
        except Exception as error:
            return type(error).__name__, str(error)[:60]
        return None
    ours, theirs = program(flambeau), program(pytorch)
    if "Optimizer(ps" in text:  # PyTorch's has no text at all
        ours, theirs = ours[0], theirs[0]
    assert ours == theirs


SCHEDULES = """
LambdaLR(o, lambda e: 1 / (1 + e))
LambdaLR(o, [lambda e: 0.9 ** e, lambda e: 1.0])
MultiplicativeLR(o, lambda e: 0.9)
StepLR(o, 4)
StepLR(o, step_size=3, gamma=0.5)
MultiStepLR(o, [2, 5, 5, 11], gamma=0.3)
ConstantLR(o)
ConstantLR(o, factor=0.25, total_iters=6)
LinearLR(o)
LinearLR(o, start_factor=0.1, end_factor=0.8, total_iters=9)
ExponentialLR(o, 0.93)
PolynomialLR(o)
PolynomialLR(o, total_iters=8, power=2.0)
CosineAnnealingLR(o, 7)
CosineAnnealingLR(o, T_max=12, eta_min=0.005)
CosineAnnealingWarmRestarts(o, 4)
CosineAnnealingWarmRestarts(o, 3, T_mult=2, eta_min=0.001)
CyclicLR(o, 0.001, 0.1, step_size_up=3, mode='triangular')
CyclicLR(o, 0.001, [0.1, 0.2], step_size_up=3, mode='triangular2')
CyclicLR(o, 0.001, 0.1, step_size_up=3, mode='exp_range', gamma=0.97)
CyclicLR(o, 0.01, 0.2, step_size_up=2, step_size_down=5, cycle_momentum=False)
CyclicLR(o, 0.01, 0.2, step_size_up=4, scale_fn=lambda x: 0.9 ** x, scale_mode='cycle')
OneCycleLR(o, 0.5, total_steps=24)
OneCycleLR(o, [0.5, 0.3], epochs=6, steps_per_epoch=4, pct_start=0.4, anneal_strategy='linear')
OneCycleLR(o, 0.5, total_steps=30, three_phase=True, div_factor=10.0, final_div_factor=100.0)
ReduceLROnPlateau(o, patience=2, factor=0.5)
ReduceLROnPlateau(o, 'max', patience=1, cooldown=2, min_lr=0.01)
ReduceLROnPlateau(o, patience=1, threshold=0.2, threshold_mode='abs', min_lr=[0.001, 0.01])
SequentialLR(o, [ConstantLR(o, 0.1, 4), ExponentialLR(o, 0.9)], [5])
SequentialLR(o, [LinearLR(o, 0.1), CosineAnnealingLR(o, 9), StepLR(o, 2)], milestones=[4, 11])
ChainedScheduler([ConstantLR(o, 0.1, 4), ExponentialLR(o, 0.9)])
""".strip().splitlines()

METRICS = [1.0, 0.9, 0.95, 0.96, 0.97, 0.5, 0.6, 0.7, 0.8, 0.9, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5,
           0.39, 0.4, 0.41]


def optimizer_for(torch, kind):
    ps = parameters(torch)
    groups = [{"params": ps[:2]}, {"params": ps[2:], "lr": 0.02}]
    if kind == "adam":
        return torch.optim.Adam(groups, lr=0.1)
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def schedule(torch, text, optimizer):
    names = {name: getattr(torch.optim.lr_scheduler, name)
             for name in torch.optim.lr_scheduler.__all__}
    return eval(text, {"o": optimizer, **names})


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("text", SCHEDULES)
@pytest.mark.filterwarnings("ignore")
def test_schedule(text, kind):
    """Twenty steps to the last bit, with a round trip of both state dicts in the middle."""
    def program(torch):
        optimizer = optimizer_for(torch, kind)
        scheduler = schedule(torch, text, optimizer)
        record = []
        for step, metric in enumerate(METRICS):
            if step == 9:
                saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
                optimizer = optimizer_for(torch, kind)
                scheduler = schedule(torch, text, optimizer)
                optimizer.load_state_dict(saved[0])
                record.append(sorted(saved[1]))
                scheduler.load_state_dict(saved[1])
            optimizer.step()
            scheduler.step(*([metric] if "Plateau" in text else []))
            record.append([(group["lr"], group.get("momentum"), group.get("betas"))
                           for group in optimizer.param_groups])
            record.append(scheduler.get_last_lr())
        return record
    ours, theirs = program(flambeau), program(pytorch)
    assert ours == theirs


@pytest.mark.parametrize("text", [t for t in SCHEDULES if t.startswith((
    "Step", "Multi", "Const", "Linear", "Expo", "Poly", "Cosine"))])
@pytest.mark.filterwarnings("ignore")
def test_schedule_closed_form_and_resuming(text):
    def program(torch):
        optimizer = optimizer_for(torch, "sgd")
        scheduler = schedule(torch, text, optimizer)
        record = []
        for epoch in (3, 7, 2):
            scheduler.step(epoch)
            record.append(scheduler.get_last_lr())
        resumed = schedule(torch, text[:-1] + ", last_epoch=5)", optimizer)
        record.append(resumed.get_last_lr())
        resumed.step()
        record.append(resumed.get_last_lr())
        return record
    assert program(flambeau) == program(pytorch)


def test_rate_that_is_a_tensor():
    def program(torch):
        rate = torch.tensor(0.1)
        optimizer = torch.optim.SGD(parameters(torch), lr=rate)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] is rate
        return float(rate), [float(v) for v in scheduler.get_last_lr()]
    assert program(flambeau) == program(pytorch)


def test_hooks_closure_and_zero_grad():
    def program(torch):
        log = []
        params = parameters(torch)
        optimizer = torch.optim.SGD(params, 0.1)
        optimizer.register_step_pre_hook(lambda o, args, kwargs: log.append(("pre", len(args))))
        optimizer.register_step_post_hook(lambda o, args, kwargs: log.append("post"))
        optimizer.register_state_dict_pre_hook(lambda o: log.append("saving"))
        optimizer.register_load_state_dict_post_hook(lambda o: log.append("loaded"))

        def closure():
            optimizer.zero_grad()
            loss = sum((param ** 2).sum() for param in params)
            loss.backward()
            return loss

        log += [round(optimizer.step(closure).item(), 4) for _ in range(3)]
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.zero_grad(set_to_none=False)
        log.append([float(param.grad.abs().sum()) for param in params])
        optimizer.zero_grad()
        log.append([param.grad for param in params])
        return log
    assert program(flambeau) == program(pytorch)


def test_named_parameters():
    def program(torch):
        linear = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(linear.named_parameters(), 0.1)
        return repr(optimizer), optimizer.state_dict()
    assert program(flambeau) == program(pytorch)
