"""What random programs (tests/fuzz_compile.py) have found: compiled functions that were not the
eager ones."""

from __future__ import annotations

import warnings

import pytest
from fuzz_compile import KINDS, WRAPS, check

import flambeau as torch
from flambeau import nn
from flambeau.compile import CaptureError

EXACT = {"exact": True}
WAYS = pytest.mark.parametrize("wrap", [lambda f: f, torch.compile,
                                        lambda f: torch.compile(f, options=EXACT)],
                               ids=["eager", "default", "exact"])


# ---------------------------------------------------------------------- results
@WAYS
def test_results_that_are_views_of_one_another(wrap):
    @wrap
    def function(x):
        y = torch.sin(x)
        left, right = y[:, :2], y.t()
        return left, right, y.detach()

    for _ in range(3):
        left, right, detached = function(torch.zeros(3, 4))
        assert left.stride() == (4, 1) and right.stride() == (1, 4)
        left.add_(1)
        assert detached[0].tolist() == right[:, 0].tolist() == [1, 1, 0, 0]


@WAYS
def test_parts_of_results_have_the_history_of_the_whole(wrap):
    @wrap
    def function(x):
        y = x * 2
        return y[0], y.detach(), y[1:]

    for _ in range(3):
        x = torch.ones(3, requires_grad=True)
        first, detached, rest = function(x)
        assert first.requires_grad and rest.requires_grad and not detached.requires_grad
        (first * 3 + rest.sum()).backward()
        assert x.grad.tolist() == [6, 2, 2]


@WAYS
def test_parts_of_results_of_a_product(wrap):
    def function(x):
        y = x.bfloat16() @ x.bfloat16().mT
        return y, y[:3]

    compiled = wrap(function)
    x = torch.linspace(-1, 2, 20).reshape(5, 4).requires_grad_()
    wanted, = torch.autograd.grad(sum(y.sum() for y in function(x)), x)
    for _ in range(3):
        grad, = torch.autograd.grad(sum(y.sum() for y in compiled(x)), x)
        assert torch.equal(grad, wanted)


@WAYS
def test_result_with_gaps_or_repeated_elements(wrap):
    @wrap
    def function(x):
        return (x + 1)[:, ::2], (x * 2)[:, :1].expand(-1, 3)

    for _ in range(3):
        gaps, repeated = function(torch.arange(8.0).reshape(2, 4))
        assert gaps.stride() == (4, 2) and gaps.tolist() == [[1, 3], [5, 7]]
        assert repeated.stride() == (4, 0) and repeated.tolist() == [[0] * 3, [8] * 3]


@WAYS
def test_results_from_outside_are_the_same_objects(wrap):
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.zeros(2)
    known, table = {"a": 1}, [weight]

    @wrap
    def function(x, items):
        return weight, weight.grad, known, table, items

    for _ in range(3):
        items = [torch.ones(2)]
        found = function(torch.ones(2), items)
        assert found[0] is weight and found[1] is weight.grad
        assert found[2] is known and found[3] is table and found[4] is items
    known = {"a": 2}
    assert function(torch.ones(2), [])[2] is known


@WAYS
def test_loss_after_its_backward_is_no_leaf(wrap):
    weight = torch.ones(2, requires_grad=True)

    @wrap
    def step(x):
        weight.grad = None
        loss = (weight * x).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        loss = step(torch.ones(2))
        assert loss.requires_grad and not loss.is_leaf
        with pytest.raises(RuntimeError, match="second time"):
            (loss * 2).backward()


# ---------------------------------------------------------------------- arguments
@WAYS
def test_what_is_done_to_containers_is_done_to_the_callers(wrap):
    @wrap
    def function(items, table, k):
        items.append(items[0] * k)
        table["new"] = table.pop("old")
        items[0] = items[1]
        return k

    for count in range(5):
        items, table = [torch.ones(1)], {"old": torch.ones(1), "k": count / 4}
        function(items, table, 2.5 + count)
        assert [t.item() for t in items] == [2.5 + count] * 2
        assert list(table) == ["k", "new"] and type(table["k"]) is float


@WAYS
def test_changes_of_arguments_themselves(wrap):
    @wrap
    def function(x, y):
        x.t_()
        y.register_hook(lambda grad: grad * 2)
        return x * 1

    for _ in range(3):
        x, y = torch.arange(6.0).reshape(2, 3), torch.ones(2, requires_grad=True)
        assert function(x, y).shape == x.shape == (3, 2)
        y.sum().backward()
        assert y.grad.tolist() == [2, 2]


@WAYS
def test_hooks_on_arguments_that_were_computed(wrap):
    function = wrap(lambda x: (x.register_hook(lambda grad: grad * 2), x)[1])
    for _ in range(3):
        leaf = torch.ones(2, requires_grad=True)
        function(leaf.clone()).sum().backward()
        assert leaf.grad.tolist() == [2, 2]


@WAYS
def test_backward_through_what_was_recorded_before(wrap):
    @wrap
    def function(x, leaf):
        (x * x).sum().backward()

    leaf = torch.ones(2, requires_grad=True)
    leaf.grad = torch.zeros(2)
    for number in (1, 1, 1, 5, 7):
        leaf.grad.zero_()
        function(leaf * number, leaf)
        assert leaf.grad.tolist() == [2.0 * number**2] * 2


# ---------------------------------------------------------------------- state
@WAYS
def test_data_that_is_assigned(wrap):
    held = torch.ones(2)

    @wrap
    def function(x):
        held.data = torch.zeros(2)
        return torch.tensor([4.0]) * x

    for _ in range(3):
        held.add_(1)
        assert function(torch.ones(1)).tolist() == [4] and held.tolist() == [0, 0]


@WAYS
def test_gradients_that_python_looks_at(wrap):
    weight = torch.ones(2, requires_grad=True)

    @wrap
    def function(x):
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        return x + (0 if weight.grad is None else 1)

    for grad in (None, None, [3.0, 4.0], [6.0, 8.0], None):
        weight.grad = None if grad is None else torch.tensor(grad)
        assert function(torch.zeros(1)).item() == (grad is not None)
        if grad is not None:
            torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


@WAYS
def test_streams_that_are_seeded_inside(wrap):
    @wrap
    def function(x):
        torch.manual_seed(3)
        return x + torch.rand(2)

    found = []
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        found.append((function(torch.zeros(2)).tolist(), torch.rand(1).item()))
    assert found[0] == found[1] == found[2]


@WAYS
def test_warnings_that_are_shown_are_shown_again(wrap):
    @wrap
    def function(x):
        warnings.warn("odd", stacklevel=1)
        return x + 1

    for _ in range(6):
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            function(torch.ones(1))
        assert [str(each.message) for each in shown] == ["odd"]


def test_warnings_that_are_shown_once_cost_one_capture():
    def function(x):
        warnings.warn("odd", stacklevel=1)
        return x + 1

    compiled = torch.compile(function)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("default")
        for _ in range(3):
            compiled(torch.ones(1))
    assert len(compiled.programs) == 1 and not compiled.eager


def test_numbers_that_are_followed_are_left_nowhere():
    class Holder:
        rate, log, pair, inner = 0.5, None, None, None

    holder = Holder()

    @torch.compile
    def function(x):
        holder.log, holder.pair = [holder.rate, {"a": holder.rate}], (holder.rate, [holder.rate])
        holder.inner = Holder()
        holder.inner.rate = holder.rate
        if holder.rate == 0.75:
            raise ValueError
        return x * holder.rate

    for step in range(5):
        holder.rate = 0.5 + step / 8
        try:
            function(torch.ones(1))
        except ValueError:
            assert step == 2
        for number in (holder.log[0], holder.log[1]["a"], holder.pair[0], holder.pair[1][0],
                       holder.inner.rate):
            assert type(number) is float


def test_graph_of_a_gradient_outlives_a_run_with_symbols():
    compiled = torch.compile(lambda x: x.square().sum().backward(create_graph=True), dynamic=True)
    x = torch.ones(3, 4, requires_grad=True)
    for count in range(1, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled(x)
        assert x.grad[0, 0].item() == 2 * count


# ---------------------------------------------------------------------- programs
@WAYS
def test_views_of_values_that_are_stored_as_one_number(wrap):
    function = wrap(lambda: torch.full((2, 3), 2.0).unsqueeze(-2))
    assert function().tolist() == function().tolist() == [[[2.0] * 3]] * 2


@WAYS
def test_parts_of_a_gradient_that_is_expanded(wrap):
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    function = wrap(lambda x: torch.hstack([x, x**2, x]))
    for _ in range(3):
        x.grad = None
        function(x).sum().backward()
        assert x.grad.tolist() == [[2, 4, 6], [8, 10, 12]]


@WAYS
def test_strided_complex_arguments(wrap):
    @wrap
    def function(x):
        x[1:].data.mul_(2)
        return x.t() * 1

    for _ in range(3):
        x = torch.arange(6.0).reshape(2, 3).to(torch.complex64)[:, ::2]
        assert function(x).tolist() == [[0, 6], [2, 10]]


@WAYS
def test_constants_that_forward_and_backward_share(wrap):
    @wrap
    def function(x, y):
        y.zero_()
        z = x.abs()
        z.scatter_(0, torch.zeros(z.shape, dtype=torch.int64), z.clone())
        return z

    x, y = torch.ones(2, 3, requires_grad=True), torch.ones(1, 3).t().contiguous().t()
    extra = torch.ones((), requires_grad=True)
    for count in range(1, 4):
        function(x, y).sum().backward()
        (extra * 2).backward()
        assert x.grad.tolist() == [[count] * 3, [2 * count] * 3]
        assert extra.grad.item() == 2 * count


def test_state_of_another_dtype_is_an_error():
    weight = torch.ones(3, requires_grad=True)
    adam = torch.optim.Adam([weight])
    weight.grad = torch.ones(3)
    adam.step()
    weight.data, weight.grad = weight.data.double(), None
    weight.grad = torch.ones(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="expected dtype"):
        adam.step()


def test_gradients_follow_data_of_another_dtype():
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    kept = layer(torch.ones(1, 2))
    layer.double()
    grad, = torch.autograd.grad(layer(torch.ones(1, 2).double()).sum(), [layer.weight])
    assert grad.dtype is torch.float64 and kept.dtype is torch.float32


def test_refusals_name_file_and_line():
    leaf = torch.ones(2, requires_grad=True)

    def seeded(x):
        torch.manual_seed(3)
        return x

    def hooked(x):
        x.register_hook(lambda grad: grad)
        return x * 2

    def before(x):
        x.sum().backward()

    for function, argument in ((seeded, leaf), (hooked, leaf), (before, leaf * 2)):
        with pytest.raises(CaptureError, match=r"test_fuzzed\.py"):
            torch.compile(function, fullgraph=True)(argument)


@pytest.mark.parametrize("options", [None, EXACT])
def test_backwards_that_come_after_calls_with_other_sizes(options):
    def function(x):
        return x.roll(1, 0) * x

    compiled = torch.compile(function, dynamic=True, options=options)
    images = [torch.arange(n * 4.0).reshape(n, 4).requires_grad_() for n in (7, 5, 9)]
    results = [compiled(x) for x in images]
    for result in results:
        result.sum().backward()
    for x in images:
        wanted, = torch.autograd.grad(function(x).sum(), x)
        assert torch.equal(x.grad, wanted) and type(x.grad.shape[0]) is int


def test_sizes_are_left_nowhere_as_symbols():
    kept = []

    def function(x):
        kept.append(x.shape[0])
        if x.shape[0] == 5:
            raise ValueError
        return x * 2

    compiled = torch.compile(function, dynamic=True)
    for n in (3, 4, 5, 6):
        try:
            compiled(torch.ones(n))
        except ValueError:
            assert n == 5
    assert kept == [3, 4, 5, 6] and all(type(n) is int for n in kept)


def test_looking_at_state_does_not_make_it():
    weight = torch.ones(2, requires_grad=True)
    adam = torch.optim.Adam([weight])

    @torch.compile
    def step(x):
        weight.grad = None
        (weight * x).sum().backward()
        adam.step()

    for _ in range(3):
        step(torch.ones(2))
    adam.state.clear()
    step.explain(times=False)
    adam.state.clear()
    torch.compile(lambda x: x * len(adam.state))(torch.ones(2))
    assert not adam.state


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.calls, self.log = nn.Linear(3, 3), nn.BatchNorm1d(3), 0, []

    def forward(self, x):
        self.calls += 1
        self.log.append(self.calls)
        return self.norm(self.layer(x))


@WAYS
def test_checkpoints_run_the_function_again_in_the_backward_only(wrap):
    torch.manual_seed(0)
    model = Counting()
    checkpoint = torch.utils.checkpoint.checkpoint
    function = wrap(lambda x: checkpoint(model, x, use_reentrant=False).sum())
    for count in range(1, 5):
        result = function(torch.ones(2, 3) * count)
        assert model.calls == len(model.log) == 2 * count - 1
        assert model.norm.num_batches_tracked.item() == 2 * count - 1
        result.backward()
        assert model.calls == len(model.log) == 2 * count


@WAYS
def test_errors_of_kernels_are_the_operations_own(wrap):
    table = torch.ones(5, 2)
    function = wrap(lambda index: nn.functional.embedding(index, table) * 2)
    for index in (1, 2, 9, 3):
        if index == 9:
            with pytest.raises(IndexError, match="embedding got index 9"):
                function(torch.tensor([index]))
        else:
            assert function(torch.tensor([index])).tolist() == [[2, 2]]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("values", 80), ("training", 12), ("sizes", 10)])
def test_random_programs(kind, count):
    for seed in range(count):
        program = KINDS[kind](seed).program()
        found = check(program, seed, WRAPS if kind == "sizes" else ("exact", "default"))
        assert not found, "\n".join([f"{kind} {seed}", program.whole(), *found])
