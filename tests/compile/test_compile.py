"""torch.compile: capture, replay, guards, refusals."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.compile import CaptureError
from flambeau.nn import functional as F


def problem(optimizer: str = "Adam", **options):
    """A small training problem: (model, optimizer, train step)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 3))
    chosen = getattr(torch.optim, optimizer)(model.parameters(), **({"lr": 0.05} | options))

    def train_step(x, y):
        chosen.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        chosen.step()
        return loss.detach()

    return model, chosen, train_step


def batches(count: int = 6, size: int = 8):
    torch.manual_seed(1)
    return [(torch.randn(size, 6), torch.randint(0, 3, (size,))) for _ in range(count)]


def losses(step, data):
    torch.manual_seed(2)
    return [step(x, y).item() for x, y in data]


OPTIMIZERS = [("SGD", {}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("Adam", {}),
              ("AdamW", {}), ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
              ("RMSprop", {"lr": 0.01}), ("RMSprop", {"lr": 0.01, "momentum": 0.9})]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
def test_exact_training_equals_eager_bit_for_bit(name, options):
    model, _, step = problem(name, **options)
    expected = losses(step, batches())
    other, _, step = problem(name, **options)
    compiled = torch.compile(step, options={"exact": True})
    assert losses(compiled, batches()) == expected
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.grad, b.grad)


def test_fused_training_equals_eager_within_rounding():
    _, _, step = problem()
    expected = losses(step, batches(10))
    _, _, step = problem()
    assert losses(torch.compile(step), batches(10)) == pytest.approx(expected, rel=1e-5)


def test_program_is_replayed_and_explained():
    _, _, step = problem()
    compiled = torch.compile(step)
    losses(compiled, batches())
    text = compiled.explain()
    assert "new state behind" in text  # the first step makes Adam's state
    assert text.count("operations in") == 1
    assert "kernels" in text


def test_learning_rate_is_an_input():
    _, optimizer, step = problem("SGD")
    compiled = torch.compile(step, options={"exact": True})
    _, eager_optimizer, eager = problem("SGD")
    data = batches(8)
    found, expected = [], []
    for results, run, chosen in ((expected, eager, eager_optimizer), (found, compiled, optimizer)):
        torch.manual_seed(3)
        for number, (x, y) in enumerate(data):
            chosen.param_groups[0]["lr"] = 0.1 / (1 + number)
            results.append(run(x, y).item())
    assert found == expected
    assert compiled.explain().count("operations in") == 1


def test_training_flag_is_guarded():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    compiled = torch.compile(lambda x: model(x).detach())
    x = torch.ones(3, 4)
    compiled(x), compiled(x)
    model.eval()
    assert torch.equal(compiled(x), model(x))
    assert torch.equal(compiled(x), model(x))


def test_closed_over_and_global_values_are_guarded():
    scale = [2.0]
    factor = 3.0

    def double(x):
        return x * factor * scale[0]

    compiled = torch.compile(double)
    x = torch.arange(3.0)
    assert torch.equal(compiled(x), x * 6)
    factor = 5.0
    assert torch.equal(compiled(x), x * 10)
    assert torch.equal(compiled(x), x * 10)


def test_new_shapes_are_captured_anew():
    compiled = torch.compile(lambda x: (x * 2).sum(0))
    for size in (3, 5, 3):
        x = torch.randn(size, 4)
        assert torch.allclose(compiled(x), (x * 2).sum(0))


def test_in_place_on_arguments_and_views():
    def update(x):
        x[1:3].mul_(10)
        x[0] = x[3]
        return x.sum()

    compiled = torch.compile(update)
    for _ in range(3):
        x, y = torch.arange(5.0), torch.arange(5.0)
        assert compiled(x).item() == update(y).item()
        assert torch.equal(x, y)


def test_swap_reads_before_it_writes():
    def swap(a, b):
        old = a.clone()
        a.copy_(b)
        b.copy_(old)

    compiled = torch.compile(swap)
    for _ in range(3):
        a, b = torch.zeros(4), torch.ones(4)
        compiled(a, b)
        assert a.tolist() == [1.0] * 4
        assert b.tolist() == [0.0] * 4


def test_chain_of_updates():
    def rotate(a, b, c):
        a.add_(b)
        b.mul_(c)
        c.copy_(a.flip(0))

    compiled = torch.compile(rotate)
    for _ in range(3):
        given = [torch.arange(3.0) + k for k in range(3)]
        expected = [t.clone() for t in given]
        rotate(*expected)
        compiled(*given)
        for x, y in zip(given, expected, strict=True):
            assert torch.equal(x, y)


def test_results_in_containers():
    def several(x):
        return {"a": x + 1, "b": (x * 2, [x.sum()])}, 7

    compiled = torch.compile(several)
    x = torch.ones(2)
    for _ in range(3):
        found, number = compiled(x)
        assert number == 7
        assert found["a"].tolist() == [2.0, 2.0]
        assert found["b"][0].tolist() == [2.0, 2.0]
        assert found["b"][1][0].item() == 2.0


def test_module_whose_gradient_is_computed_later():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    compiled = torch.compile(model)
    x = torch.randn(5, 4)
    compiled(x)
    model(x).pow(2).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    compiled(x).pow(2).sum().backward()
    for p, e in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, e, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(compiled(x), model(x))
        assert torch.allclose(compiled(x), model(x))
    assert "operations in" in compiled.explain()
    assert compiled.state_dict().keys() == {f"_orig_mod.{k}" for k in model.state_dict()}


def test_loss_may_be_returned_with_its_consumed_graph():
    _, _, step = problem()

    def train_step(x, y):
        return step(x, y)

    compiled = torch.compile(train_step)
    losses(compiled, batches())
    assert "operations in" in compiled.explain()


@pytest.mark.parametrize("lay", [
    lambda x: x.transpose(0, 1), lambda x: x.permute(2, 0, 1), lambda x: x.transpose(0, 1)[1:],
    lambda x: x[:, ::2], lambda x: x[:, :1].transpose(0, 1)])
@pytest.mark.parametrize("draw", [
    lambda x: nn.functional.dropout(x, 0.3), torch.rand_like, torch.randn_like,
    lambda x: (x * 1).uniform_(), lambda x: (x * 1).bernoulli_(0.3)])
def test_random_numbers_fill_memory_in_the_same_order(lay, draw):
    x = torch.randn(3, 4, 5)
    results = []
    for run in (draw, torch.compile(draw)):
        torch.manual_seed(0)
        results.append([run(lay(x)) for _ in range(3)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_random_numbers_continue_the_stream():
    def noisy(x):
        return x + torch.rand(3)

    compiled = torch.compile(noisy)
    torch.manual_seed(0)
    expected = [noisy(torch.zeros(3)).tolist() for _ in range(4)]
    torch.manual_seed(0)
    assert [compiled(torch.zeros(3)).tolist() for _ in range(4)] == expected


@pytest.mark.parametrize("read", [lambda t: t.item(), bool, float, repr, lambda t: t.tolist()],
                         ids=["item", "bool", "float", "repr", "tolist"])
def test_reading_a_value_is_refused_with_the_line(read):
    def step(x):
        return x * read(x.sum())

    with pytest.raises(CaptureError, match=r"test_compile\.py:\d+, in ") as caught:
        torch.compile(step, fullgraph=True)(torch.ones(1))
    assert "outside of the compiled function" in str(caught.value)


def test_what_cannot_be_captured_whole_runs_in_parts_and_says_so():
    done = []

    def step(x):
        x.add_(1)
        done.append(x.sum().item())
        return x * 2

    compiled = torch.compile(step)
    x = torch.zeros(2)
    assert compiled(x).tolist() == [2.0, 2.0]
    assert compiled(x).tolist() == [4.0, 4.0]
    assert done == [2.0, 4.0]
    assert "runs in parts" in compiled.explain()


def test_scheduler_step_is_refused():
    _, optimizer, _ = problem("SGD")
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)

    def step(x):
        optimizer.step()
        schedule.step()
        return x + 1

    with pytest.raises(CaptureError, match="scheduler"):
        torch.compile(step, fullgraph=True)(torch.ones(1))


def test_index_errors_are_reported():
    table = torch.randn(4, 2)
    compiled = torch.compile(lambda i: table[i])
    assert compiled(torch.tensor([1, 3])).shape == (2, 2)
    with pytest.raises(IndexError):
        compiled(torch.tensor([1, 9]))


def test_exceptions_leave_nothing_behind():
    def fails(x):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        torch.compile(fails)(torch.ones(1))
    assert (torch.ones(2) + 1).tolist() == [2.0, 2.0]
