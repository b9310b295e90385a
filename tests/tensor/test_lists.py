"""Operations over lists: one launch, with the results and the rules of a loop."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.runtime import native
from flambeau.tensor import lists
from flambeau.tensor.lists import INPLACE, MUTATE, NEW, over_lists

SHAPES = ((3, 4), (7,), (), (0, 3), (5000,), (2, 3, 5))
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01}


def tensors(low: float = -2, high: float = 2) -> list:
    return [torch.empty(shape).uniform_(low, high) for shape in SHAPES]


def adam_columns() -> list:
    torch.manual_seed(0)
    return [tensors(), tensors(), tensors(0, 1), tensors(0, 1),
            [torch.tensor(float(i)) for i, _ in enumerate(SHAPES)]]


@pytest.fixture
def launched(monkeypatch) -> list:
    """Collects the rows of every list operation that goes out as one launch."""
    seen: list = []
    run = lists.Merged.run

    def noted(self, args):
        made = run(self, args)
        seen.append(made is not None)
        return made

    monkeypatch.setattr(lists.Merged, "run", noted)
    return seen


def test_equals_the_loop_bit_for_bit(launched):
    step = over_lists("adam_step", MUTATE)
    together, apart = adam_columns(), adam_columns()
    options = [ADAM[name] for name in ADAM]
    for _ in range(3):
        step(*together, **ADAM)
        step.each((*apart, *options, False, False))
    for a, b in zip(together, apart, strict=True):
        assert all(map(torch.equal, a, b))
    versions = [[t._version for t in column] for column in together]
    assert versions == [[t._version for t in column] for column in apart]
    assert launched == [True] * 3 or not native.allowed()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(threads: int):
    before = torch.get_num_threads()
    results = []
    for count in (1, threads):
        torch.set_num_threads(count)
        columns = adam_columns()
        over_lists("adam_step", MUTATE)(*columns, **ADAM)
        results.append(columns)
    torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert all(map(torch.equal, a, b))


def test_new_results_numbers_and_shared_operands(launched):
    a, b = tensors(), tensors()
    for other in (2.5, b, [0.5, 2, 1, 3.0, -1, 0], torch.tensor(2.0)):
        made = over_lists("mul", NEW)(a, other)
        each = other if isinstance(other, list) else [other] * len(a)
        assert all(torch.equal(x, y * z) for x, y, z in zip(made, a, each, strict=True))
    assert all(launched)


def test_the_same_operand_twice_is_fine_but_not_the_same_target(launched):
    a, b = tensors(), tensors()
    wanted = [x.addcmul(y, y, value=0.5) for x, y in zip(a, b, strict=True)]
    over_lists("addcmul", INPLACE)(a, b, b, 0.5)
    assert all(map(torch.equal, a, wanted)) and all(launched)
    launched.clear()
    x = torch.ones(4)
    over_lists("mul", INPLACE)([x, x], 2.0)
    assert x.tolist() == [4.0] * 4 and not any(launched)
    halves = list(torch.ones(6).split(3))
    over_lists("mul", INPLACE)(halves, [2.0, 3.0])
    assert halves[0].tolist() == [2.0] * 3 and halves[1].tolist() == [3.0] * 3


def test_other_layouts_and_foreign_memory():
    step = over_lists("mul", INPLACE)
    step([torch.ones(3, 4), torch.ones(5)], 2.0)
    turned, foreign = torch.ones(4, 3).t(), np.ones(5, np.float32)
    step([turned, torch.from_numpy(foreign)], 2.0)
    assert turned.sum().item() == 24.0 and foreign.tolist() == [2.0] * 5


def test_gradients_are_recorded():
    a = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    made = torch._foreach_mul(a, 3.0)
    (made[0].sum() + made[1].sum()).backward()
    assert a[0].grad.tolist() == [3.0] * 2 and a[1].grad.tolist() == [3.0] * 3
    with pytest.raises(RuntimeError, match="leaf Variable"):
        torch._foreach_mul_(a, 3.0)


def test_a_write_is_known_by_its_line():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        loss = model(torch.ones(2, 3)).sum()
        loss.backward(retain_graph=True)
        optimizer.step()  # changes what the backward below needs
    with pytest.raises(RuntimeError, match="changes what the backward below needs"):
        loss.backward()


@pytest.mark.parametrize(("args", "error", "message"), [
    (([], 1), RuntimeError, "at least one tensor"),
    (([torch.ones(2)], [1, 2]), RuntimeError, "same number of elements"),
    (([torch.ones(2)], [torch.ones(2)] * 2), RuntimeError, "same number of tensors, got 1 and 2"),
    (([torch.ones(2)], [torch.ones(3)]), RuntimeError, "must match the size"),
    (([torch.ones(2)], torch.ones(2)), RuntimeError, "0 dim"),
    ((torch.ones(2), 1), TypeError, "list"),
    (([1], 1), TypeError, "element 0"),
    (([torch.ones(2)], "x"), TypeError, "number"),
])
def test_wrong_arguments(args: tuple, error: type, message: str):
    with pytest.raises(error, match=message):
        torch._foreach_add(*args)


def test_names():
    for name in ("exp_", "sqrt", "addcdiv_", "lerp", "norm", "zero_", "copy_", "max", "mm"):
        assert getattr(torch, f"_foreach_{name}").__name__ == f"_foreach_{name}"
    with pytest.raises(AttributeError):
        torch._foreach_nothing  # noqa: B018
    values = [torch.tensor([1.0, 4.0]), torch.tensor([9.0])]
    assert [t.tolist() for t in torch._foreach_sqrt(values)] == [[1.0, 2.0], [3.0]]
    assert torch._foreach_zero_(values) is values and values[0].tolist() == [0.0, 0.0]
