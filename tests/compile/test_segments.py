"""Functions that look at values in the middle: compiled in parts, they do what eager ones do."""

from __future__ import annotations

import copy
import io
import pickle
import threading
import warnings

import numpy as np
import pytest

import flambeau as torch
from flambeau import nn
from flambeau.compile import CaptureError
from flambeau.compile.deferral import deferring
from flambeau.nn import functional as F
from flambeau.tensor.launches import late

CALLS = 6


def plain(value):
    """What two results are compared by: lists with dtypes and strides."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.stride(), value.requires_grad, value.detach().tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def both(make, inputs=lambda call: (), calls=CALLS):
    """What `make()`'s function does eagerly and compiled, in parts: both must be equal. Returns the
    compiled function."""
    done = []
    for compiled in (False, True):
        torch.manual_seed(0)
        function = make()
        run = torch.compile(function, options={"exact": True}) if compiled else function
        seen = []
        for call in range(calls):
            given = inputs(call)
            seen.append((plain(run(*given)), plain(given), torch.get_rng_state().tolist()[:8]))
        done.append(seen)
    assert done[0] == done[1]
    assert run.segments.cuts  # it ran in parts
    assert late.deferred is None
    return run


def programs(compiled):
    return [p for s in compiled.segments.table.values() for p in s.programs.values()]


def vectors(call):
    return (torch.arange(6.0).reshape(2, 3) + call,)


# ---------------------------------------------------------------------- looking at values
LOOKS = {
    "item": lambda t: t.sum().item(),
    "bool": lambda t: bool(t.sum() > 20),
    "float": lambda t: float(t.mean()),
    "int": lambda t: int(t.max()),
    "repr": repr,
    "format": lambda t: f"{t.sum():.3f}",
    "tolist": lambda t: t.tolist(),
    "numpy": lambda t: t.numpy().tolist(),
    "asarray": lambda t: np.asarray(t).sum(),
    "dlpack": lambda t: np.from_dlpack(t).tolist(),
    "len of nonzero": lambda t: len(t.nonzero()),
    "unique": lambda t: torch.unique(t).tolist(),
    "mask": lambda t: t[t > 4].tolist(),
    "contains": lambda t: 5.0 in t,
    "equal": lambda t: torch.equal(t, t + 0),
    "pickle": lambda t: pickle.loads(pickle.dumps(t)).tolist(),
    "deepcopy": lambda t: copy.deepcopy(t).tolist(),
    "iterate": lambda t: [float(x) for x in t[0]],
    "index": lambda t: [1, 2, 3][torch.argmin(t)],
    "new tensor of it": lambda t: torch.tensor(t.tolist()).sum().item(),
    "tensor of tensors": lambda t: torch.tensor([t[0, 0], t[1, 1]]).tolist(),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_way_to_look_at_a_value(look):
    def make():
        def function(x):
            a = (x * 2 + 1).relu()
            b = a - x
            seen = look(b)
            c = b * 3 + a.sum()
            return seen, c, look(c)

        return function

    both(make, vectors)


def test_saving_sees_what_was_computed():
    def make():
        def function(x):
            y = x * 2 + 1
            buffer = io.BytesIO()
            torch.save({"y": y}, buffer)
            buffer.seek(0)
            return torch.load(buffer)["y"] + 1

        return function

    run = torch.compile(make())
    with torch.no_grad():
        for call in range(4):
            x, = vectors(call)
            assert torch.equal(run(x), x * 2 + 2)


def test_prints_come_in_order(capsys):
    def function(x):
        print("start")
        y = x + 1
        print(y)
        z = y * y - x
        print(z.sum().item())
        return z

    outputs = []
    for run in (function, torch.compile(function, options={"exact": True})):
        for call in range(4):
            run(*vectors(call))
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


# ---------------------------------------------------------------------- control flow
def test_branches_by_value():
    def make():
        def function(x):
            y = x * 0.5 - 1
            if y.sum() > 3:
                y = y.exp() + x
            elif y.min().item() < -0.5:
                y = y.abs().sqrt()
            return y * 2

        return function

    compiled = both(make, lambda call: (torch.ones(4) * (call % 4),), calls=20)
    assert len(programs(compiled)) >= 2


def test_loops_by_value():
    def make():
        def function(x):
            steps = 0
            while x.norm().item() > 1:
                x = x / 2 + 0.01
                x = x - x.mean() * 0.1
                steps += 1
            return x, steps

        return function

    both(make, lambda call: (torch.ones(5) * 2.0 ** (call % 3),), calls=12)


def test_recurrent_loop_that_stops_early():
    def make():
        cell = nn.GRUCell(4, 8)

        def function(xs):
            h = torch.zeros(2, 8)
            with torch.no_grad():
                for x in xs:
                    h = cell(x, h)
                    if h.abs().max().item() > 0.6:
                        break
            return h

        return function

    both(make, lambda call: (torch.linspace(-1, 1, 48).reshape(6, 2, 4) * (1 + call % 3),))


# ---------------------------------------------------------------------- training
def trainer(optimizer="Adam", look="after", dropout=0.3, **options):
    """A training step that looks at its loss, as a factory for `both`."""
    def make():
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 3))
        chosen = getattr(torch.optim, optimizer)(model.parameters(), **({"lr": 0.05} | options))
        schedule = torch.optim.lr_scheduler.StepLR(chosen, 2, 0.5)
        history = []

        def step(x, y):
            chosen.zero_grad()
            loss = F.cross_entropy(model(x), y)
            if look == "before" and loss.item() > 1.2:
                loss = loss * 0.5
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            chosen.step()
            schedule.step()
            history.append(loss.item())
            return ([p.detach() for p in model.parameters()], [p.grad for p in model.parameters()],
                    norm, list(history), schedule.get_last_lr())

        return step

    return make


def batch(call):
    generator = torch.Generator().manual_seed(call)
    return (torch.randn(8, 6, generator=generator),
            torch.randint(0, 3, (8,), generator=generator))


OPTIMIZERS = [("SGD", {}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("Adam", {}),
              ("AdamW", {"amsgrad": True}), ("RMSprop", {"lr": 0.01, "momentum": 0.9})]


@pytest.mark.parametrize("look", ["before", "after"])
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
def test_training_steps(name, options, look):
    compiled = both(trainer(name, look, **options), batch, calls=9)
    assert sum(p.operations for p in programs(compiled)) > 10


def test_occasional_look():
    def make():
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        seen, count = [], [0]

        def step(x):
            loss = (model(x) - x).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if count[0] % 3 == 0:
                seen.append(loss.item())
            count[0] += 1
            return list(seen), model.weight.detach()

        return step

    both(make, lambda call: (torch.eye(4) + call,), calls=12)


def test_graph_that_outlives_the_call():
    def make():
        model = nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2))

        def function(x):
            y = model(x)
            y.sum().item()
            return y

        def outer(x):
            model.zero_grad()
            outer.compiled(x).pow(2).sum().backward()
            return [p.grad for p in model.parameters()]

        outer.compiled = function
        return outer

    def gradients(compiled):
        torch.manual_seed(0)
        outer = make()
        if compiled:
            outer.compiled = torch.compile(outer.compiled, options={"exact": True})
        return [plain(outer(torch.ones(4, 3) * k)) for k in range(5)]

    assert gradients(True) == gradients(False)


def test_batch_norm_and_hooks():
    def make():
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        seen = []
        model[1].register_forward_hook(lambda m, a, out: seen.append(out.mean().item()))
        model[0].weight.register_hook(lambda g: g * 2)

        def step(x):
            optimizer.zero_grad()
            loss = model(x).mean()
            loss.backward()
            optimizer.step()
            return (list(seen), model[0].weight.grad, model[1].running_mean.clone(),
                    model[1].num_batches_tracked.clone())

        return step

    both(make, lambda call: (torch.linspace(0, 1 + call, 128).reshape(2, 1, 8, 8),))


# ---------------------------------------------------------------------- memory
def test_mutation_of_arguments_and_views():
    def make():
        def function(x):
            y = x[1:3]
            y.mul_(2)
            x.add_(1)
            first = y.sum().item()
            x[0] = y[1]
            y.zero_()
            return first, x * 1, x.sum().item(), y

        return function

    both(make, lambda call: (torch.arange(8.0).reshape(4, 2) + call,))


def test_overlapping_arguments():
    results = []
    for compiled in (False, True):
        base = torch.ones(10)

        def function(a, b):
            a.add_(1)
            b.mul_(a.mean())
            b.sum().item()
            a.sub_(1)
            b.add_(a.mean())
            return a * 2

        run = torch.compile(function, options={"exact": True}) if compiled else function
        seen = []
        for call in range(10):
            place = (6, 4, 5)[call % 3]
            base.fill_(1.0 + call)
            seen.append((plain(run(base[:6], base[place:])), base.tolist()))
        results.append(seen)
    assert results[0] == results[1]


def test_results_that_share_memory():
    def make():
        def function(x):
            y = x * 2
            y.sum().item()
            z = y + 1
            rows = z[0]
            z[1, 1] = 9
            return z, rows, z.t(), rows.sum().item()

        return function

    compiled = both(make, vectors)
    x, = vectors(0)
    z, rows, turned, _ = compiled(x)
    z[0, 0] = 77
    assert rows[0].item() == 77
    assert turned[0, 0].item() == 77


def test_temporaries_that_die_are_not_stored():
    def function(x):
        for _ in range(10):
            x = (x * 1.5).tanh()
        return x.sum().item()

    compiled = torch.compile(function)
    for _ in range(4):
        compiled(torch.ones(1000))
    part, = programs(compiled)
    assert part.operations == 21
    assert part.counts[2] == 2  # the last x and its sum are all that is stored


def test_what_outlives_a_part_is_stored():
    def make():
        kept = []

        def function(x):
            y = x * 2
            kept.append(y + 1)
            z = y.exp()
            z.sum().item()
            return z + y, [k.sum().item() for k in kept]

        return function

    both(make, vectors)


def test_memory_that_dies_is_not_reused_too_early():
    def make():
        def function(x):
            total = 0.0
            for i in range(20):
                a = x + i
                b = a * 2
                del a
                c = torch.tensor([1.0, float(i), 3.0])
                x = b - c
                del b
                if i % 7 == 6:
                    total += x.sum().item()
            return x, total

        return function

    both(make, lambda call: (torch.ones(3) * call,))


def test_version_counters_and_their_errors():
    def function(x):
        w = torch.ones(3, requires_grad=True)
        y = (w * x).exp()
        y.sum().item()
        y.add_(1)
        y.sum().backward()
        return w.grad

    compiled = torch.compile(function)
    for run in (function, compiled, compiled, compiled):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            run(torch.ones(3))
    assert late.deferred is None


def test_arrays_that_share_memory_are_current():
    def make():
        def function(x):
            y = x * 2
            array = y.numpy()
            y.add_(1)
            first = array.tolist()
            array[0, 0] = 50
            z = y * 2
            array[0, 1] = 60
            w = y + z
            del array
            v = w * 2
            return first, y, z, w, v, v.sum().item()

        return function

    both(make, vectors)


def test_tensors_made_from_arrays_inside():
    def make():
        def function(x):
            x = x + 1
            x.sum().item()
            array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
            t = torch.from_numpy(array)
            y = x + t
            array[0, 0] = 100
            z = y * t
            del array, t
            return z, (z + torch.from_numpy(np.ones(3, np.float32))).sum().item()

        return function

    both(make, vectors)


def test_data_pointer_and_data():
    def make():
        def function(x):
            y = x * 2
            y.data.add_(1)
            y.data = y + 3
            aligned = y.data_ptr() % 4
            z = y - 1
            z.data.mul_(2)
            return z, z.sum().item(), aligned

        return function

    both(make, vectors)


def test_resize_and_out():
    def make():
        def function(x):
            y = torch.empty(0)
            torch.add(x, 1, out=y)
            y.sum().item()
            torch.mul(y, 2, out=y)
            y.resize_(3, 4)
            return y[:2, :1] * 1, y.flatten()[:6].tolist()

        return function

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both(make, vectors)


# ---------------------------------------------------------------------- random numbers
def test_random_streams():
    def make():
        def function(x):
            a = x + torch.rand(2, 3)
            b = F.dropout(a, 0.5)
            b.sum().item()
            c = torch.empty(2, 3).normal_()
            d = b * c
            d.uniform_()
            e = torch.bernoulli(d.clamp(0, 1)) + torch.randperm(3)
            f = torch.multinomial(d.sum(0), 2)
            return b, c, d, e, f, e.sum().item()

        return function

    both(make, vectors)


# ---------------------------------------------------------------------- errors
def test_exceptions_in_the_middle():
    results = []
    for compiled in (False, True):
        state = torch.zeros(3)

        def function(x, fail):
            state.add_(x)  # noqa: B023
            y = state * 2  # noqa: B023
            if y.sum().item() > 1e9:
                return None
            state.mul_(2)  # noqa: B023
            if fail:
                raise ValueError("mine")
            return y

        run = torch.compile(function, options={"exact": True}) if compiled else function
        seen = []
        for call in range(8):
            try:
                seen.append(plain(run(torch.ones(3) * call, call % 3 == 2)))
            except ValueError as error:
                seen.append(str(error))
            seen.append(state.tolist())
            assert not deferring()
        results.append(seen)
    assert results[0] == results[1]


def test_exceptions_that_are_caught_inside():
    def make():
        def function(x):
            y = x * 2
            try:
                y @ x
            except RuntimeError as error:
                text = str(error)[:20]
            y = y + 1
            return y, y.sum().item(), text

        return function

    both(make, vectors)


def test_index_errors_name_the_line_and_come_in_time():
    table = torch.arange(12.0).reshape(4, 3)
    done = torch.zeros(1)

    def function(index, x):
        y = x * 2
        y.sum().item()
        done.add_(1)
        rows = table[index]  # the line
        done.add_(1)
        return rows + y

    compiled = torch.compile(function)
    good, bad = torch.tensor([1, 3]), torch.tensor([1, 7])
    for run in (function, compiled):
        done.zero_()
        for _ in range(3):
            run(good, torch.ones(3))
        assert done.item() == 6
        with pytest.raises(IndexError, match="index 7 is out of bounds") as caught:
            run(bad, torch.ones(3))
        assert "# the line" in "".join(caught.value.__notes__)
        assert done.item() == 7


# ---------------------------------------------------------------------- composition
def test_nested_compiled_functions():
    def make():
        inner = torch.compile(lambda x: (x * 2 + 1).relu() * x)
        looking = torch.compile(lambda x: x + 1 if x.sum().item() > 0 else x - 1)

        def function(x):
            y = inner(x) + 1
            z = looking(y)
            return z * 2, z.sum().item(), inner(z)

        return function

    both(make, vectors)


def test_threads_started_inside():
    def make():
        def function(x):
            y = x * 2
            found = []

            def work():
                found.append((y + 1).sum().item())  # what was put off is done when others look
                y.add_(1)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            z = y * 3
            return z, found, z.sum().item()

        return function

    both(make, vectors)


def test_two_threads_call_compiled_functions():
    def function(x):
        for _ in range(5):
            x = x * 0.5 + 1
            x.sum().item()
            x = x.exp().log()
        return x

    compiled = torch.compile(function, options={"exact": True})
    expected = [function(torch.ones(50) * k) for k in range(4)]
    compiled(torch.ones(50))
    wrong = []

    def work(k):
        found = [compiled(torch.ones(50) * k) for _ in range(30)]
        wrong.extend(k for x in found if not torch.equal(x, expected[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert late.deferred is None


def test_generators_and_recursion():
    def make():
        def depth(x):
            if x.sum().item() > 40:
                return x
            return depth(x * 2 + 1)

        def function(x):
            return depth(x), [y.sum().item() for y in (x + k for k in range(3))]

        return function

    both(make, lambda call: (torch.ones(3) * (call + 1),))


# ---------------------------------------------------------------------- the public side
def test_no_warning_and_an_explanation():
    def step(x):
        y = x * 2 + 1
        if y.sum().item() > 3:
            y = y - 1
            y = y * y
        return y

    compiled = torch.compile(step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            compiled(torch.ones(3))
    text = compiled.explain()
    assert "in parts" in text
    assert "test_segments.py:" in text
    assert "if y.sum().item() > 3:" in text
    assert "3 operations in" in text


def test_full_graph_is_refused_with_line_value_and_rewrite():
    def step(x):
        y = (x * 2).sum()
        return x if y.item() > 1 else -x

    with pytest.raises(CaptureError) as caught:
        torch.compile(step, fullgraph=True)(torch.ones(3))
    text = str(caught.value)
    assert "test_segments.py:" in text
    assert "y.item() > 1" in text
    assert "shape [] and dtype torch.float32" in text
    assert "torch.where" in text


def test_sequences_that_never_repeat_run_eagerly():
    size = [2]

    def function(x):
        size[0] += 1
        y = torch.ones(size[0]) * 2 + 1
        return y.sum().item() + x.sum().item()

    compiled = torch.compile(function)
    for _ in range(20):
        assert compiled(torch.ones(2)) == 3.0 * size[0] + 2
    assert compiled.segments.unsteady
    assert not programs(compiled)
    assert "new at almost every call" in compiled.explain()


def test_numbers_are_inputs():
    def function(x, factor):
        y = x * factor + factor
        return y.sum().item() * 2

    compiled = torch.compile(function)
    x = torch.ones(4)
    for k in (1.0, 2.5, -0.0, 0.0, 1.0, float("inf"), 3.25, 1e30):
        assert compiled(x, k) == function(x, k)
    assert len(programs(compiled)) <= 1
    assert str(compiled(x, float("nan"))) == "nan"


def test_changing_threads_between_calls():
    def function(x):
        y = (x @ x).relu()
        return y.sum().item(), y + 1

    compiled = torch.compile(function, options={"exact": True})
    x = torch.randn(40, 40)
    count = torch.get_num_threads()
    try:
        for threads in (1, 1, 1, 2, 2, 2):
            torch.set_num_threads(threads)
            assert plain(compiled(x)) == plain(function(x))
    finally:
        torch.set_num_threads(count)
