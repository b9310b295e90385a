"""torch.compile tells the truth: a Python value that can change is guarded or an input."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

import flambeau as torch
from flambeau import nn

EXACT = {"exact": True}
FACTOR = 2.0
TABLE = [1.0, 2.0]
SETTINGS = {"scale": 3.0, "name": "double"}


def same(found, expected) -> bool:
    if isinstance(expected, torch.Tensor):
        return (type(found) is type(expected) and found.dtype is expected.dtype
                and found.stride() == expected.stride() and torch.equal(found, expected)
                and found.requires_grad == expected.requires_grad)
    if isinstance(expected, (list, tuple)):
        return type(found) is type(expected) and len(found) == len(expected) and all(
            map(same, found, expected))
    return type(found) is type(expected) and found == expected


def programs(compiled) -> int:
    return sum(map(len, compiled.programs.values()))


def agree(function, *calls, most: int | None = None, before=None):
    """Call the function and its compiled twin with the same arguments, each call three times."""
    compiled = torch.compile(function, options=EXACT)
    for call in calls:
        for _ in range(3):
            if before is not None:
                before()
            expected = function(*call)
            if before is not None:
                before()
            assert same(compiled(*call), expected), call
    if most is not None:
        assert programs(compiled) <= most, compiled.explain()
    return compiled


# ---------------------------------------------------------------------- variables
def test_closure_variable():
    scale = 2.0

    def step(x):
        return x * scale

    compiled = torch.compile(step)
    for scale in (2.0, 3.0, 3.0, -1.5, 0.0, -0.0, float("inf")):
        x = torch.tensor([1.0, -2.0])
        assert torch.equal(compiled(x), x * scale)
        assert torch.equal(compiled(x).signbit(), (x * scale).signbit())
    assert programs(compiled) == 2  # as a constant, then as an input


def test_type_of_a_closure_variable_counts():
    scale = 2

    def step(x):
        return x * scale

    compiled = torch.compile(step)
    x = torch.arange(3)
    expected = {int: torch.int64, bool: torch.int64, float: torch.float32}
    for scale in (1, 1.0, True, 1, 1.0):
        assert compiled(x).dtype is expected[type(scale)]


def test_nonlocal_counter_is_counted():
    count = 0

    def step(x):
        nonlocal count
        count += 1
        return x * count

    compiled = torch.compile(step)
    x = torch.ones(2)
    assert [compiled(x)[0].item() for _ in range(8)] == [float(n) for n in range(1, 9)]
    assert count == 8


def test_step_counter_attribute():
    class Trainer:
        def __init__(self):
            self.steps = 0
            self.total = torch.zeros(1)

        def step(self, x):
            self.steps += 1
            if self.steps % 3 == 0:
                self.total.add_(x.sum())
            return self.total * 2

    results = []
    for wrap in (torch.compile, lambda f: f):
        trainer = Trainer()
        step = wrap(trainer.step)
        results.append([step(torch.ones(2)).item() for _ in range(12)])
        assert trainer.steps == 12
        if wrap is torch.compile:
            assert programs(step) <= 5
    assert results[0] == results[1]


def test_global_variable(monkeypatch):
    def step(x):
        return x * FACTOR

    compiled = torch.compile(step)
    for value in (2.0, 5.0, 7.0, 2.0):
        monkeypatch.setitem(globals(), "FACTOR", value)
        assert compiled(torch.ones(1)).item() == value


def helper(x):
    return x * FACTOR + TABLE[0]


def test_global_of_a_function_that_is_called(monkeypatch):
    compiled = torch.compile(lambda x: helper(x))
    for value in (2.0, 5.0):
        monkeypatch.setitem(globals(), "FACTOR", value)
        assert compiled(torch.ones(1)).item() == value + 1


def test_replaced_global_function(monkeypatch):
    compiled = torch.compile(lambda x: helper(x))
    x = torch.ones(1)
    assert compiled(x).item() == helper(x).item()
    monkeypatch.setitem(globals(), "helper", lambda x: x - 7)
    assert compiled(x).item() == -6.0


class ReadsGlobal(nn.Module):
    def forward(self, x):
        return [y * FACTOR for y in (x, x + 1)][1]


def test_global_read_by_the_forward_of_a_module(monkeypatch):
    module = ReadsGlobal()
    compiled = torch.compile(module)
    for value in (2.0, 5.0, 6.0):
        monkeypatch.setitem(globals(), "FACTOR", value)
        assert compiled(torch.ones(1)).item() == 2 * value


def test_attribute_of_a_users_module(monkeypatch):
    config = types.ModuleType("my_config")
    config.rate, config.unused = 2.0, 0
    monkeypatch.setitem(globals(), "my_config", config)
    space = globals()

    def step(x):
        return x * my_config.rate  # noqa: F821

    assert space["my_config"] is config
    compiled = torch.compile(step)
    for value in (2.0, 4.0, 6.0):
        config.rate = value
        config.unused += 1
        assert compiled(torch.ones(1)).item() == value


def test_class_attribute():
    class Config:
        rate = 2.0

    compiled = torch.compile(lambda x: x * Config.rate)
    for value in (2.0, 4.0, 6.0):
        Config.rate = value
        assert compiled(torch.ones(1)).item() == value


def test_property_and_slots():
    class Point:
        __slots__ = ("x",)

        @property
        def double(self):
            return 2 * self.x

    point = Point()
    point.x = 1.0
    compiled = torch.compile(lambda t: t * point.double)
    for value in (1.0, 4.0, 6.0, 8.0):
        point.x = value
        assert compiled(torch.ones(1)).item() == 2 * value
    assert programs(compiled) == 2


def test_list_that_grows():
    weights = [1.0]
    compiled = torch.compile(lambda x: sum(x * w for w in weights))
    x = torch.ones(2)
    for _ in range(4):
        assert torch.equal(compiled(x), x * sum(weights))
        assert torch.equal(compiled(x), x * sum(weights))
        weights.append(2.0)


def test_item_of_a_module_level_list_or_dict(monkeypatch):
    monkeypatch.setitem(globals(), "TABLE", list(TABLE))

    def step(x):
        return x * TABLE[1] * SETTINGS["scale"]

    compiled = torch.compile(step)
    for a, b in ((2.0, 3.0), (5.0, 3.0), (5.0, 4.0), (1.0, 1.0)):
        TABLE[1] = a
        monkeypatch.setitem(SETTINGS, "scale", b)
        assert compiled(torch.ones(1)).item() == a * b


def test_string_in_a_dict(monkeypatch):
    def step(x):
        return x * 2 if SETTINGS["name"] == "double" else x * 3

    compiled = torch.compile(step)
    for name, factor in (("double", 2), ("triple", 3), ("double", 2)):
        monkeypatch.setitem(SETTINGS, "name", name)
        assert compiled(torch.ones(1)).item() == factor


def test_long_lists_sets_and_arrays_by_content():
    long, names, array = list(range(2000)), {"a"}, np.ones(3, np.float32)

    def step(x):
        return x * long[1500] + len(names) + torch.tensor(array)

    compiled = torch.compile(step)

    def check():
        assert torch.equal(compiled(torch.ones(3)), step(torch.ones(3)))

    check(), check()
    long[1500] = -4
    check()
    names.add("b")
    check()
    array[1] = 9
    check()
    array[1] = 8
    check()


def test_state_that_the_function_does_not_read_costs_no_recompile():
    class Trainer:
        def __init__(self):
            self.epoch, self.history, self.weight = 0, [], torch.ones(2)

        def step(self, x):
            return x * self.weight

    trainer = Trainer()
    compiled = torch.compile(trainer.step)
    for epoch in range(6):
        trainer.epoch = epoch
        trainer.history.append("line")
        compiled(torch.ones(2))
    assert programs(compiled) == 1


def test_settings():
    compiled = torch.compile(lambda x: x + torch.ones(2) * 2)
    x = torch.ones(2, dtype=torch.float16)
    assert compiled(x).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert compiled(x).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert compiled(x).dtype is torch.float32


def test_grad_mode():
    weight = torch.ones(2, requires_grad=True)

    def step(x):
        return torch.is_grad_enabled(), (x * weight).detach()

    compiled = torch.compile(step)
    for _ in range(2):
        assert compiled(torch.ones(2))[0] is True
        with torch.no_grad():
            assert compiled(torch.ones(2))[0] is False
        with torch.inference_mode():
            assert compiled(torch.ones(2))[0] is False


def test_autocast():
    model = nn.Linear(4, 4)
    compiled = torch.compile(lambda x: model(x))
    x = torch.ones(2, 4)
    with torch.no_grad():
        for _ in range(3):
            assert compiled(x).dtype is torch.float32
            with torch.autocast("cpu"):
                assert compiled(x).dtype is torch.bfloat16
                model.weight.mul_(2)
                assert torch.equal(compiled(x), model(x))
            with torch.autocast("cpu", dtype=torch.float16):
                assert compiled(x).dtype is torch.float16
    assert programs(compiled) == 3


# ---------------------------------------------------------------------- modules
def test_training_flag_of_a_part():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    compiled = torch.compile(model)
    x = torch.ones(3, 4)
    with torch.no_grad():
        compiled(x), compiled(x)
        model[1].eval()
        assert torch.equal(compiled(x), model(x))
        model[1].train()
        torch.manual_seed(1)
        first = model(x)
        torch.manual_seed(1)
        assert torch.equal(compiled(x), first)


def test_own_flag_decides():
    class Block(nn.Module):
        def forward(self, x):
            return x * 2 if self.training else x * 3

    model = Block()
    compiled = torch.compile(model)
    for _ in range(2):
        assert compiled(torch.ones(1)).item() == 2
        model.eval()
        assert compiled(torch.ones(1)).item() == 3
        model.train()


@pytest.mark.parametrize("container", [nn.Sequential, nn.ModuleList])
def test_swapped_module(container):
    torch.manual_seed(0)
    parts = [nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)]
    model = container(*parts) if container is nn.Sequential else container(parts)

    def run(x):
        for part in model:
            x = part(x)
        return x

    compiled = torch.compile(run, options=EXACT)
    x = torch.randn(2, 3)
    with torch.no_grad():
        for change in (None, nn.Tanh(), nn.Linear(3, 3)):
            if change is not None:
                model[1] = change
            assert torch.equal(compiled(x), run(x))
            assert torch.equal(compiled(x), run(x))
        model.append(nn.Sigmoid())
        assert torch.equal(compiled(x), run(x))


def test_replaced_parameter_buffer_and_data():
    model = nn.BatchNorm1d(3).eval()
    compiled = torch.compile(model, options=EXACT)
    x = torch.randn(2, 3)
    with torch.no_grad():
        compiled(x), compiled(x)
        model.weight = nn.Parameter(torch.full((3,), 2.0))
        assert torch.equal(compiled(x), model(x))
        model.running_mean = torch.ones(3)
        assert torch.equal(compiled(x), model(x))
        model.bias.data = torch.full((3,), 5.0)
        assert torch.equal(compiled(x), model(x))
        model.load_state_dict(nn.BatchNorm1d(3).state_dict())
        assert torch.equal(compiled(x), model(x))


def test_attribute_of_a_module():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = 1.0
            self.mode = "mul"

        def forward(self, x):
            return x * self.scale if self.mode == "mul" else x + self.scale

    model = Scaled()
    compiled = torch.compile(model)
    for scale, mode in ((1.0, "mul"), (2.0, "mul"), (3.0, "mul"), (3.0, "add"), (4.0, "add")):
        model.scale, model.mode = scale, mode
        assert compiled(torch.ones(1)).item() == model(torch.ones(1)).item()


def test_hidden_tensor_is_replaced_outside():
    class Cell:
        def __init__(self):
            self.hidden = torch.zeros(2)

        def run(self, x):
            return x + self.hidden

    cell = Cell()
    compiled = torch.compile(cell.run)
    for value in range(4):
        cell.hidden = torch.full((2,), float(value))
        assert torch.equal(compiled(torch.ones(2)), torch.ones(2) + value)


def test_bound_method_of_another_object():
    class Adder:
        def __init__(self, amount):
            self.amount = amount

        def add(self, x):
            return x + self.amount

    adders = {"now": Adder(1.0).add}
    compiled = torch.compile(lambda x: adders["now"](x))
    assert compiled(torch.zeros(1)).item() == 1
    adders["now"] = Adder(5.0).add
    assert compiled(torch.zeros(1)).item() == 5
    adders["now"].__self__.amount = 6.0
    assert compiled(torch.zeros(1)).item() == 6


def test_requires_grad_of_a_parameter_is_toggled():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))

    def step(x):
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss.detach()

    compiled = torch.compile(step)
    x = torch.randn(2, 3)
    for frozen in (False, True, False, True):
        model[0].requires_grad_(not frozen)
        compiled(x), compiled(x)
        assert (model[0].weight.grad is None) is frozen
        assert model[1].weight.grad is not None


def test_requires_grad_of_an_argument_is_toggled():
    def step(x):
        y = (x * x).sum()
        if x.requires_grad:
            x.grad = None
            y.backward()
        return y.detach()

    compiled = torch.compile(step)
    for wanted in (True, False, True, True, False):
        x = torch.arange(3.0).requires_grad_(wanted)
        compiled(x)
        assert (x.grad is None) is not wanted


# ---------------------------------------------------------------------- arguments
def test_float_argument_becomes_an_input():
    compiled = torch.compile(lambda x, a: x * a + (1 - a))
    for value in (0.5, 0.25, 0.125, 3.0, -1.0, 0.0):
        assert compiled(torch.ones(1), value).item() == pytest.approx(1.0)
        assert compiled(torch.zeros(1), a=value).item() == 1 - value
    assert programs(compiled) <= 4
    compiled = torch.compile(lambda x, a: x * a)
    for value in range(10):
        assert compiled(torch.ones(1), float(value) / 8).item() == value / 8
    assert programs(compiled) == 2


def test_float_argument_that_decides():
    def step(x, a):
        return x * a if a > 0.5 else x - a

    compiled = torch.compile(step)
    for value in (0.1, 0.2, 0.7, 0.8, 0.3, 0.9):
        assert compiled(torch.ones(1), value).item() == step(torch.ones(1), value).item()
    assert programs(compiled) <= 3


def test_int_arguments():
    def step(x, n):
        for _ in range(n):
            x = x * 2
        return x[:n] + n

    agree(step, *[(torch.arange(5.0), n) for n in (1, 2, 3, 2, 1)])


def test_kinds_of_equal_numbers_are_told_apart():
    agree(lambda x, n: x * n, *[(torch.arange(3), n) for n in (1, 1.0, True, 0, 0.0, False)])
    agree(lambda x, n: x / n, *[(torch.ones(2), n) for n in (0.0, -0.0, float("inf"), 2.0)])


def test_numpy_argument_by_content():
    def step(x, array):
        return x + torch.from_numpy(array * 2)

    array = np.arange(3.0)
    compiled = torch.compile(step)
    for value in (0.0, 1.0, 2.0):
        array[0] = value
        for _ in range(2):
            assert torch.equal(compiled(torch.ones(3), array), step(torch.ones(3), array))


def test_numpy_scalars():
    agree(lambda x, n: x * n, *[(torch.ones(2), np.float32(n)) for n in (1, 2)],
          (torch.ones(2), np.float64(2)))


def test_containers_defaults_and_keywords():
    def step(batch, *rest, bias=1.0, **names):
        total = batch["x"] * bias + sum(rest)
        for tensor in names.values():
            total = total - tensor
        return {"total": total, "rest": list(rest)}

    compiled = torch.compile(step)
    x = torch.ones(2)
    for args, kwargs in (((x,), {}), ((x, x), {}), ((x,), {"bias": 2.0}), ((x,), {"a": x}),
                         ((x,), {"a": x, "b": x + 1})):
        for _ in range(2):
            found = compiled({"x": x}, *args, **kwargs)
            expected = step({"x": x}, *args, **kwargs)
            assert torch.equal(found["total"], expected["total"])
            assert len(found["rest"]) == len(expected["rest"])


def test_default_arguments_that_change():
    def step(x, scale=2.0, *, bias=0.5):
        return x * scale + bias

    compiled = torch.compile(step)
    assert compiled(torch.ones(1)).item() == 2.5
    step.__defaults__ = (3.0,)
    assert compiled(torch.ones(1)).item() == 3.5
    step.__kwdefaults__["bias"] = 1.0
    assert compiled(torch.ones(1)).item() == 4.0


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    weight: float = 1.0


def test_data_classes_in_and_out():
    def step(batch):
        return Batch(batch.x * batch.weight, batch.weight)

    compiled = torch.compile(step)
    for weight in (1.0, 2.0, 3.0, 4.0):
        found = compiled(Batch(torch.ones(2), weight))
        assert type(found) is Batch
        assert torch.equal(found.x, torch.ones(2) * weight)
        assert type(found.weight) is float
        assert found.weight == weight
    assert programs(compiled) <= 2


def test_object_arguments():
    class Config:
        rate = 1.0

    config = Config()
    compiled = torch.compile(lambda x, config: x * config.rate)
    for value in (1.0, 2.0, 5.0):
        config.rate = value
        assert compiled(torch.ones(1), config).item() == value


def test_dtypes_strides_and_devices_of_arguments():
    def step(x):
        return x * 2 + 1

    base = torch.arange(12.0).reshape(3, 4)
    agree(step, (base,), (base.double(),), (base.long(),), (base.t(),), (base[:, ::2],),
          (base[1:],), (base.bfloat16(),), (base.expand(2, 3, 4),))
    agree(lambda x, device: x.to(device) + 1, (base, "cpu"), (base, torch.device("cpu")))


def test_strides_of_a_closed_over_tensor():
    box = {"t": torch.arange(6.0).reshape(2, 3)}
    compiled = torch.compile(lambda x: x + box["t"])
    x = torch.zeros(2, 3)
    assert torch.equal(compiled(x), box["t"])
    box["t"] = torch.arange(6.0).reshape(3, 2).t()
    assert torch.equal(compiled(x), box["t"])
    box["t"].t_()
    assert torch.equal(compiled(torch.zeros(3, 2)), box["t"])


def test_argument_that_shares_memory_with_a_closed_over_tensor():
    weight = torch.arange(3.0)

    def step(x):
        x.add_(1)
        return x * weight

    compiled = torch.compile(step)
    for given in (lambda: torch.zeros(3), lambda: weight, lambda: torch.zeros(3), lambda: weight,
                  lambda: weight[:], lambda: torch.zeros(3)):
        weight.copy_(torch.arange(3.0))
        expected = step(given())
        weight.copy_(torch.arange(3.0))
        assert torch.equal(compiled(given()), expected)


def test_arguments_that_are_one():
    def step(a, b):
        a.mul_(2)
        return a + b

    compiled = torch.compile(step)
    for _ in range(3):
        x, y = torch.ones(2), torch.ones(2)
        assert compiled(x, y).tolist() == [3.0, 3.0]
        assert compiled(x, x).tolist() == [8.0, 8.0]


def test_result_that_is_an_argument_or_a_view():
    def step(x):
        x.add_(1)
        return x, x[1:], x.detach()

    compiled = torch.compile(step)
    for _ in range(3):
        x = torch.zeros(3)
        same_one, view, alias = compiled(x)
        assert same_one is x
        assert view.data_ptr() == x.data_ptr() + 4
        assert alias.data_ptr() == x.data_ptr()
        assert x.tolist() == [1.0] * 3


class Plain(torch.Tensor):
    pass


def test_subclass_arguments():
    compiled = torch.compile(lambda x: x * 2)
    plain = torch.ones(2)
    special = plain.as_subclass(Plain)
    for _ in range(2):
        assert type(compiled(plain)) is torch.Tensor
        assert type(compiled(special)) is type(special * 2)
