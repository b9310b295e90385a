"""The first call of a compiled function: its program computes what the run has put off, and where
that cannot be, everything is as if nothing had been put off."""

from __future__ import annotations

import copy
import importlib
import threading

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F
from flambeau.runtime import executable, memory
from flambeau.tensor.launches import late

first_call = importlib.import_module("flambeau.compile.first_call")
FirstCall = first_call.FirstCall


@pytest.fixture
def judged(monkeypatch):
    """What became of first calls, in order: "program" or "one by one"."""
    seen = []
    compute, run_now = FirstCall.compute, FirstCall._run_now

    def computed(self, *args):
        seen.append("program")
        return compute(self, *args)

    def ran(self, *args):
        seen.append("one by one")
        return run_now(self, *args)

    monkeypatch.setattr(FirstCall, "compute", computed)
    monkeypatch.setattr(FirstCall, "_run_now", ran)
    yield seen
    assert late.deferred is None


@pytest.fixture
def done(judged, monkeypatch):
    """The same, whatever a program for one run alone costs."""
    monkeypatch.setattr(FirstCall, "worthwhile", lambda self: self.untouched)
    return judged


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.dtype, value.detach().tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def both(make, inputs, calls=3):
    """What `make()`'s function does eagerly and compiled must be equal, bit for bit, as must what
    its arguments hold afterwards and where the random stream stands."""
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        function = make()
        run = torch.compile(function, options={"exact": True}) if compiled else function
        seen = []
        for call in range(calls):
            given = inputs(call)
            seen.append((plain(run(*given)), plain(given), torch.get_rng_state().tolist()))
        found.append(seen)
    assert found[0] == found[1]
    return run


def rows(call):
    return (torch.arange(12.0).reshape(3, 4) + call,)


def test_forward(done):
    both(lambda: lambda x: (torch.softmax(x * 2, -1), x.sum(0)), rows)
    assert done == ["program"]


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.norm, self.out = nn.BatchNorm1d(8), nn.Linear(8, 11)

    def forward(self, x):
        at = torch.arange(x.shape[1])
        y = F.dropout(self.words(x) + self.places(at), 0.3)
        return self.out(self.norm(y.flatten(0, 1)))


def training(optimizer, **options):
    def make():
        net = Text()
        chosen = getattr(torch.optim, optimizer)(net.parameters(), lr=0.05, **options)

        def step(x):
            chosen.zero_grad()
            loss = F.cross_entropy(net(x[:, :-1]), x[:, 1:].flatten())
            loss.backward()
            chosen.step()
            return loss

        def left():
            state = [v for p in net.parameters() for v in chosen.state[p].values()
                     if isinstance(v, torch.Tensor)]
            return plain([*net.state_dict().values(), *[p.grad for p in net.parameters()], *state])

        make.left.append(left)
        return step

    make.left = []

    return make


def sentences(call):
    return (torch.arange(12).reshape(3, 4).mul(call + 3).remainder(11),)


@pytest.mark.parametrize("optimizer, options", [
    ("AdamW", {}), ("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adam", {"amsgrad": True})])
def test_training_steps(done, optimizer, options):
    make = training(optimizer, **options)
    both(make, sentences, 4)
    assert done[0] == "program"
    eager, compiled = (left() for left in make.left)
    assert eager == compiled


def test_memory_of_a_call_that_is_run_one_by_one(done, monkeypatch):
    """What died during the run, workspaces included, takes no memory after its last use."""
    dead, untouched = [], []
    ran = FirstCall._run_now

    def run_now(self, log, died, why):
        dead.extend(s.ptr for s in died if s.nbytes >= first_call.LARGE)
        return ran(self, log, died, why)

    def untouch(storage):
        untouched.append(storage.ptr)
        release(storage)

    release = memory.untouch
    monkeypatch.setattr(FirstCall, "fits", lambda self, recording: False)
    monkeypatch.setattr(FirstCall, "_run_now", run_now)
    monkeypatch.setattr(memory, "untouch", untouch)

    def step(images):
        for _ in range(6):
            images = torch.relu(F.conv2d(images, weight, padding=1)) + images.mean(1, True)
        images.square().mean().backward()
        return images.sum()

    found, peaks = [], []
    for run in (step, torch.compile(step, options={"exact": True})):
        torch.manual_seed(0)
        weight = torch.randn(8, 8, 3, 3).requires_grad_()
        images = torch.randn(4, 8, 48, 48)
        base = memory.memory_stats()["in_use"]
        memory.reset_peak()
        found.append((run(images).item(), weight.grad.tolist()))
        peaks.append(memory.memory_stats()["peak"] - base)
    assert found[0] == found[1]
    assert "program" not in done
    assert dead
    assert sorted(untouched) == sorted(dead)
    assert peaks[1] <= 1.5 * peaks[0]


def test_gradients_later(done):
    def make():
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        make.net = net
        return net

    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = make()
        run = torch.compile(net, options={"exact": True}) if compiled else net
        for call in range(2):
            x = rows(call)[0].requires_grad_()
            run(x).square().sum().backward()
            found.append(plain([x.grad, *[p.grad for p in net.parameters()]]))
    assert found[:2] == found[2:]
    assert done == ["program"]


def test_looks_in_the_middle(done):
    calls = []

    def make():
        total = torch.zeros(())

        def look(x):
            calls.append(1)
            total.add_(x.sum())
            y = x * 2 if total > 50 else x - 1
            return y.exp(), total

        return look

    both(make, rows, 4)
    assert done[0] == "one by one" and len(calls) == 8


def test_exceptions(done):
    def make():
        count = torch.zeros(3)

        def fails(x):
            count.add_(1)
            try:
                y = F.embedding(torch.tensor([0, 7]), x)
            except IndexError as error:
                return str(error).splitlines()[0], count
            return y

        return fails

    both(make, rows)
    assert done[0] == "one by one"

    def stops(x):
        x.add_(1)
        raise ValueError("enough")

    x = torch.zeros(2)
    with pytest.raises(ValueError, match="enough"):
        torch.compile(stops)(x)
    assert x.tolist() == [1, 1]


def test_indices_that_must_be_computed_first(done):
    table = torch.arange(20.0).reshape(10, 2)
    both(lambda: lambda i: table[(i + 1).remainder(10)].sin(), lambda call: (
        torch.tensor([1, 8, 9]) + call,))
    assert done == ["program"]
    done.clear()
    both(lambda: lambda x: table[(x * 3).sum(1).argmax(0, keepdim=True)] + 1, rows)
    assert "one by one" in done


def test_index_into_what_exists(done):
    def make():
        store = torch.zeros(5)

        def put(x):
            store[torch.tensor([0, 2])] += x.sum(1)[:2]
            store.index_add_(0, torch.tensor([1, 1, 3]), x.sum(1))
            return store * 2

        return put

    both(make, rows)


@pytest.mark.parametrize("update", [
    lambda x, at, more: x.put_(at, more, accumulate=True),
    lambda x, at, more: x.index_add_(0, at, more),
    lambda x, at, more: x.index_put_((at,), more, accumulate=True),
    lambda x, at, more: x.scatter_reduce_(0, at, more, "sum"),
    lambda x, at, more: torch.gather(x * 2, 0, at, out=x[1:3])])
def test_updates_whose_indices_are_checked_are_made_once(done, update):
    def make():
        def write(x):
            y = x * 3
            update(x, torch.tensor([0, 2]), torch.ones(2))
            return y, x - 1

        return write

    both(make, lambda call: (torch.arange(5.0) + call,))


def test_writes_to_arguments(done):
    def make():
        def write(x, y):
            x.mul_(3)
            y[1:].copy_(x.sum(0)[1:])
            x[0] = 5
            return x[1], y

        return write

    both(make, lambda call: (*rows(call), torch.ones(4)))
    assert done == ["program"]


def test_random_fills(done):
    def make():
        def draw(x):
            x.normal_()
            return torch.rand(4) + x, torch.randperm(6), F.dropout(x, 0.5)

        return draw

    both(make, rows)


@pytest.mark.parametrize("give", [
    lambda y: y[0], lambda y: (y, y.t()), lambda y: (y, y), lambda y: y.reshape(-1),
    lambda y: (y[0], y[1]), lambda y: y.t(), lambda y: {"a": y, "b": [y.sum(), 3]},
    lambda y: y[:, ::2], lambda y: (y.detach(), y)])
def test_results_of_all_shapes(done, give):
    both(lambda: lambda x: give(x.exp() + 1), rows)
    net = nn.Linear(4, 4)
    both(lambda: lambda x: give(net(x)), rows)


def test_what_lives_on(done):
    def make():
        kept = []

        def keep(x):
            y = x * 2
            z = y + 1
            kept.append(y.t())
            return z, list(kept)

        return keep

    both(make, rows, 5)


def test_numbers_are_those_of_the_run(done):
    def make():
        weight = nn.Parameter(torch.ones(4))
        sgd = torch.optim.SGD([weight], lr=1.0)
        group = sgd.param_groups[0]

        def step(x):
            sgd.zero_grad()
            (weight * x).sum().backward()
            sgd.step()
            group["lr"] *= 0.5
            return weight.detach() * 1

        return step

    both(make, rows, 5)
    assert done[0] == "program"


def test_arrays_see_values(done):
    both(lambda: lambda x: (x + 1).numpy().sum().item(), rows)
    assert done[0] == "one by one"


def test_operations_stay_usable(done):
    """What was traced but never compiled is, when it is first run without torch.compile."""
    def odd(x):
        return torch.atan2(x.cosh(), x + 17).logsumexp(0)

    x = torch.randn(7, 3)
    first = torch.compile(odd, options={"exact": True})(x)
    assert done == ["program"]
    assert torch.equal(odd(x), first)
    assert torch.equal(odd(x), first)
    taken = torch.compile(lambda t, i: t.take(i) * 2)
    assert taken(x, torch.tensor([2, 20])).tolist() == (x.flatten()[[2, 20]] * 2).tolist()
    with pytest.raises(IndexError):
        x.take(torch.tensor([2, 21]))


def test_late_programs_of_other_threads(done):
    """Another thread's operations, in the middle of a first call, are its own."""
    found = []

    def other():
        y = torch.arange(5.0)
        found.append((y.erfc() * 3).sum().item())

    def function(x):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return x.sin() + 1

    x = torch.ones(3)
    assert torch.equal(torch.compile(function)(x), x.sin() + 1)
    assert found == [(torch.arange(5.0).erfc() * 3).sum().item()]


def test_many_programs_get_ready_together():
    net = nn.Sequential(nn.Linear(3, 5), nn.ELU(), nn.Linear(5, 2))
    x = torch.randn(4, 3)
    wanted = copy.deepcopy(net)(x)
    assert torch.allclose(torch.compile(net)(x), wanted)
    assert not set(executable._waiting) & set(executable._real)


def test_results_without_a_gradient(done):
    """Of three results one is differentiated: what the others would give is no gradient at all."""
    net = nn.LSTM(4, 6, batch_first=True)
    x = torch.randn(2, 5, 4)
    run = torch.compile(net)
    for _ in range(3):
        net.zero_grad()
        run(x)[0].sum().backward()
        found = net.weight_ih_l0.grad.clone()
        net.zero_grad()
        net(x)[0].sum().backward()
        assert torch.allclose(found, net.weight_ih_l0.grad, atol=1e-5)


@pytest.mark.parametrize("missing, expected", [(0, "one by one"), (1000, "program")])
def test_where_plans_are_not_kept_a_run_that_leaves_state_is_weighed(
        judged, fresh_plans, monkeypatch, missing, expected):
    """A program for one run alone pays where it saves the compilation of many kernels."""
    monkeypatch.setattr(executable, "missing", lambda programs: missing)

    def make():
        layer = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = layer(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        return step

    both(make, lambda call: (torch.arange(12.0).reshape(4, 3) + call,))
    assert judged[0] == expected
