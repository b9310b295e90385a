"""Compiled functions whose gradient is computed later: torch.compile(model); loss.backward()."""

from __future__ import annotations

import gc
import itertools
import warnings
import weakref

import numpy as np
import pytest
from op_cases import RECORDS, cases, function_of, leaves, private, tensors, to_array

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F


@pytest.fixture(autouse=True)
def no_fallback():
    """Nothing here may run eagerly unless it says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def compiled_of(function, exact=False):
    return torch.compile(function, options={"exact": exact}, fullgraph=True)


# ---------------------------------------------------------------------- models
class Block(nn.Module):
    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, c // self.heads).transpose(1, 2)
                   for part in self.qkv(self.first(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(b, t, c)))
        return x + self.drop(self.mlp(self.second(x)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        states, (h, _) = self.lstm(x)
        return self.head(states[:, -1] + h[0])


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 16),
                         nn.ReLU(), nn.Linear(16, 3))


def convolutional():
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
                         nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def tokens():
    return nn.Sequential(nn.Embedding(11, 8), Block(), Block(), nn.LayerNorm(8), nn.Linear(8, 3))


MODELS = {"mlp": (mlp, (8, 6)), "convolutional": (convolutional, (4, 2, 8, 8)),
          "block": (Block, (2, 5, 8)), "lstm": (Recurrent, (3, 4, 5)), "tokens": (tokens, None)}


def data_for(shape, steps):
    torch.manual_seed(1)
    if shape is None:
        return [torch.randint(0, 11, (2, 5)) for _ in range(steps)]
    return [torch.randn(shape) for _ in range(steps)]


def trajectory(name, wrap, steps, optimizer="SGD", lr=0.05):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = make()
    run = wrap(model)
    chosen = getattr(torch.optim, optimizer)(model.parameters(), lr=lr)
    data = data_for(shape, steps)
    torch.manual_seed(2)
    losses = []
    for x in data:
        chosen.zero_grad()
        loss = run(x).pow(2).mean()
        loss.backward()
        chosen.step()
        losses.append(loss.item())
    state = [t.detach().tolist() for t in model.state_dict().values()]
    return losses, state, torch.get_rng_state().tolist()


@pytest.mark.parametrize("name", MODELS)
def test_exact_training_equals_eager_bit_for_bit(name):
    expected = trajectory(name, lambda model: model, 5)
    assert trajectory(name, lambda model: compiled_of(model, exact=True), 5) == expected


@pytest.mark.parametrize("name", MODELS)
def test_fifty_steps_follow_eager(name):
    losses, _, stream = trajectory(name, lambda model: model, 50)
    found, _, found_stream = trajectory(name, compiled_of, 50)
    assert found == pytest.approx(losses, rel=1e-4)
    assert found_stream == stream


def test_one_program_serves_all_steps():
    torch.manual_seed(0)
    model = mlp()
    run = torch.compile(model)
    for x in data_for((8, 6), 4):
        model.zero_grad()
        run(x).sum().backward()
    text = run.explain()
    assert text.count("operations in") == 1
    assert "backward: keeps" in text


# ---------------------------------------------------------------------- functions
def check(function, *args, exact=True, calls=3, twice=False):
    """Gradients of all arguments, compiled and eager, `calls` times."""
    run = compiled_of(function, exact)
    for _ in range(calls):
        grads = []
        for call in (function, run):
            given = [a.clone().detach().requires_grad_(a.requires_grad) for a in args]
            outs = call(*given)
            outs = outs if isinstance(outs, (tuple, list)) else (outs,)
            total = sum(o.sum() * (i + 1) for i, o in enumerate(outs) if o.requires_grad)
            total.backward(retain_graph=twice)
            if twice:
                total.backward()
            grads.append([[o.tolist() for o in outs], [a.tolist() for a in given],
                          [None if a.grad is None else a.grad.tolist() for a in given],
                          [o.requires_grad for o in outs], [o.is_leaf for o in outs]])
        assert grads[0] == grads[1]


def wanted(*shape):
    return torch.randn(*shape).requires_grad_()


def test_several_outputs_and_one_without_gradient():
    check(lambda x, y: (x * y, (x > 0), y.exp().detach(), (x + y).sum()), wanted(3), wanted(3))


def test_argument_that_wants_no_gradient():
    check(lambda x, y: (x * y).tanh(), wanted(4), torch.randn(4))


def test_output_that_is_an_input_or_a_view_of_one():
    check(lambda x, y: (x, x[1:], x.t() if x.dim() > 1 else x.view(-1), x * y), wanted(4),
          wanted(4))


def test_retained_graph_runs_twice():
    check(lambda x: (x.sin() * x).sum(), wanted(5), twice=True)


def test_in_place_operations_inside():
    def function(x):
        y = x * 2
        y[1:3] = y[0] + y[3]
        y.mul_(x)
        return y

    check(function, wanted(5))


def test_outputs_that_are_the_same_tensor():
    run = compiled_of(lambda x: [(y := x * 3), y])
    for _ in range(3):
        x = wanted(2)
        a, b = run(x)
        assert a is b
        (a + b).sum().backward()
        assert x.grad.tolist() == [6.0, 6.0]


def test_missing_gradients_stay_missing():
    weight, bias = wanted(3), wanted(3)

    def function(x):
        return (x * weight).sum(), (x + bias).sum()

    run = compiled_of(function)
    for _ in range(3):
        weight.grad = bias.grad = None
        first, _ = run(torch.ones(3))
        first.backward()
        assert weight.grad.tolist() == [1.0] * 3
        assert bias.grad is None
        _, second = run(torch.ones(3))
        second.backward()
        assert bias.grad.tolist() == [1.0] * 3


def test_absent_gradient_is_more_than_zeros():
    run = compiled_of(lambda x: (x * 2, x.log()))
    for _ in range(2):
        x = torch.zeros(2).requires_grad_()
        run(x)[0].sum().backward()
        assert x.grad.tolist() == [2.0, 2.0]  # 0 * inf would be nan


def test_gradients_of_chosen_inputs():
    weight = wanted(3)
    run = compiled_of(lambda x: x * weight)
    for _ in range(3):
        x = wanted(3)
        found, = torch.autograd.grad(run(x).sum(), [x])
        assert torch.equal(found, weight.detach())
        assert weight.grad is None
        run(x).sum().backward(inputs=[weight])
        assert torch.equal(weight.grad, x.detach())
        weight.grad = None


def test_block_in_the_middle_of_an_eager_model():
    torch.manual_seed(0)
    before, block, after = nn.Linear(4, 8), Block(), nn.Linear(8, 1)
    run = compiled_of(block.eval(), exact=True)
    parameters = [*before.parameters(), *block.parameters(), *after.parameters()]
    for _ in range(3):
        x = torch.randn(2, 5, 4)
        grads = []
        for middle in (block, run):
            hidden = before(x)
            hidden.retain_grad()
            after(middle(hidden)).sum().backward()
            grads.append([p.grad.tolist() for p in parameters] + [hidden.grad.tolist()])
            for p in parameters:
                p.grad = None
        assert grads[0] == grads[1]


def test_accumulation_over_micro_batches():
    grads = []
    for wrap in (lambda model: model, lambda model: compiled_of(model, exact=True)):
        torch.manual_seed(0)
        model = mlp().eval()
        run = wrap(model)
        for x in data_for((8, 6), 4):
            (run(x).sum() / 4).backward()
        grads.append([p.grad.tolist() for p in model.parameters()])
    assert grads[0] == grads[1]


def test_two_calls_before_their_backward():
    results = []
    for wrap in (lambda model: model, lambda model: compiled_of(model, exact=True)):
        torch.manual_seed(0)
        model = mlp()
        run = wrap(model)
        torch.manual_seed(3)
        for a, b in zip(data_for((8, 6), 3), data_for((4, 6), 3), strict=True):
            real, fake = run(a), run(b)
            (real.mean() - fake.mean()).backward()
        results.append([p.grad.tolist() for p in model.parameters()])
    assert results[0] == results[1]


def test_parameters_change_between_forward_and_backward_where_eager_allows_it():
    """A bias is not saved: changing it before the backward is no error, and changes nothing."""
    results = []
    for wrap in (lambda model: model, compiled_of):
        torch.manual_seed(0)
        layer = nn.Linear(3, 3)
        run = wrap(nn.Sequential(layer, nn.GELU()))
        for _ in range(3):
            x = torch.ones(2, 3).requires_grad_()
            loss = run(x).sum()
            with torch.no_grad():
                layer.bias.add_(10)
            loss.backward()
            results.append(x.grad)
    for a, b in zip(results[:3], results[3:], strict=True):
        assert torch.allclose(a, b)


def test_result_that_eager_does_not_save_may_be_written_to():
    layer = nn.Linear(3, 3)
    run = compiled_of(lambda x: layer(x))
    for _ in range(3):
        layer.zero_grad()
        run(torch.ones(2, 3)).relu_().sum().backward()
        assert layer.weight.grad is not None


def test_saved_tensors_are_checked_and_the_lines_named():
    weight = wanted(3)
    run = compiled_of(lambda x: x * weight)
    run(torch.ones(3))
    result = run(wanted(3)).sum()
    result = run(wanted(3)).sum()
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match=r"inplace operation(.|\n)*needed by .*test_diff"
                                           r"(.|\n)*changed by .*test_diff"):
        result.backward()


def test_second_backward_is_refused():
    run = compiled_of(lambda x: (x * x).sum())
    run(wanted(3))
    result = run(wanted(3))
    result.backward()
    with pytest.raises(RuntimeError, match="second time"):
        result.backward()


def test_double_backward_is_refused_in_plain_words():
    run = compiled_of(lambda x: (x ** 3).sum())
    run(wanted(3))
    x = wanted(3)
    with pytest.raises(RuntimeError, match="inside of the compiled function"):
        torch.autograd.grad(run(x), x, create_graph=True)


def test_gradient_penalty_inside_is_differentiated_later():
    def penalty(x):
        slope, = torch.autograd.grad(x.sin().sum(), x, create_graph=True)
        return (slope ** 2).sum()

    check(penalty, wanted(4), exact=False)


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.scale * grad, None


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(ctx, grad):
        x, = ctx.saved_tensors
        return grad * 3 * x ** 2


def test_custom_functions_keep_their_own_gradients():
    check(lambda x: Cube.apply(x) * 2, wanted(3))
    check(lambda x: Reversal.apply(x, 0.5), wanted(3))
    check(lambda x: Reversal.apply(x * 2, 0.5).tanh(), wanted(3))


def test_hooks_on_results_and_leaves():
    weight = wanted(2)
    seen = []
    weight.register_hook(lambda g: g * 10)
    run = compiled_of(lambda x: x * weight)
    for _ in range(3):
        weight.grad = None
        out = run(torch.ones(2))
        out.register_hook(lambda g: seen.append(g.tolist()))
        out.sum().backward()
        assert weight.grad.tolist() == [10.0, 10.0]
    assert seen == [[1.0, 1.0]] * 3


def test_hook_inside_runs_eagerly_and_acts_once():
    seen = []

    def function(x):
        y = x * 2
        y.register_hook(lambda g: seen.append(1))
        return y.sum()

    run = torch.compile(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            run(wanted(2)).backward()
    assert len(seen) == 3


def test_capture_leaves_no_trace():
    """The pass that is only looked at moves no gradient, version or random stream."""
    model = mlp()
    torch.manual_seed(5)
    model(torch.ones(2, 6))
    stream = torch.get_rng_state().tolist()
    versions = [p._version for p in model.parameters()]
    torch.manual_seed(5)
    run = compiled_of(model)
    out = run(torch.ones(2, 6))
    assert torch.get_rng_state().tolist() == stream
    assert [p._version for p in model.parameters()] == versions
    assert all(p.grad is None for p in model.parameters())
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_modes_and_flags_choose_programs():
    torch.manual_seed(0)
    model = convolutional()
    run = compiled_of(model)
    x = torch.randn(4, 2, 8, 8)
    for _ in range(2):
        run(x).sum().backward()
        with torch.no_grad():
            assert not run(x).requires_grad
        model.eval()
        assert torch.allclose(run(x), model(x), atol=1e-5)
        model.train()
    model[0].weight.requires_grad_(False)
    model.zero_grad()
    run(x).sum().backward()
    run(x).sum().backward()
    assert model[0].weight.grad is None
    assert model[4].weight.grad is not None


def test_running_statistics_and_counters():
    states = []
    for wrap in (lambda model: model, lambda model: compiled_of(model, exact=True)):
        torch.manual_seed(0)
        model = convolutional()
        run = wrap(model)
        for x in data_for((4, 2, 8, 8), 4):
            run(x).sum().backward()
        states.append([b.tolist() for b in model.buffers()])
    assert states[0] == states[1]


def test_saved_tensors_hooks_see_what_is_kept():
    run = compiled_of(lambda x: (x.sin() * x).sum())
    run(wanted(3)).backward()
    x = wanted(3)
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(
            lambda t: packed.append(1) or t.clone(), lambda t: t):
        loss = run(x)
    loss.backward()
    assert packed
    assert torch.allclose(x.grad, x.cos() * x + x.sin())


def test_anomaly_mode():
    run = compiled_of(lambda x: x.sqrt().sum())
    run(wanted(1).abs()).backward()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            loss = run(torch.zeros(1).requires_grad_() * 0)
            with pytest.raises(RuntimeError, match="nan"):
                loss.backward()


def test_gradients_of_any_layout():
    run = compiled_of(lambda x: x * x)
    for weight in (torch.ones(2, 3), torch.ones(3, 2).t(), torch.ones(1).expand(2, 3)) * 2:
        x = wanted(2, 3)
        run(x).backward(weight)
        assert torch.equal(x.grad, 2 * x.detach())


def test_16_bit_and_complex_values():
    check(lambda x: (x.bfloat16() * 3).exp(), wanted(4))
    check(lambda x: torch.complex(x, x * 2).exp().abs(), wanted(4))


def test_sizes_that_vary():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
    run = compiled_of(model)
    for size in (4, 5, 6, 9, 4, 7):
        x = torch.randn(size, 6)
        grads = []
        for call in (model, run):
            model.zero_grad()
            call(x).pow(2).sum().backward()
            grads.append([p.grad.clone() for p in model.parameters()])
        for a, b in zip(*grads, strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert run.explain().count("operations in") == 2


def test_nothing_of_the_first_run_is_kept_alive():
    layer = nn.Linear(64, 64)
    run = compiled_of(lambda x: layer(x).tanh().sum())
    for size in (10, 11, 12):  # the second is captured for all sizes
        out = run(torch.randn(size, 64))
        gone = weakref.ref(out.grad_fn)
        del out
        gc.collect()
        assert gone() is None


def test_learning_rate_style_numbers_belong_to_their_call():
    run = compiled_of(lambda x, scale: (x * scale).sum())
    for scale in (1.0, 2.0, 3.0, 4.0):
        x = wanted(2)
        loss = run(x, scale)
        loss.backward()
        assert x.grad.tolist() == [scale, scale]
    x, y = wanted(2), wanted(2)
    first, second = run(x, 5.0), run(y, 6.0)
    second.backward()
    first.backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([5.0, 5.0], [6.0, 6.0])


def test_backward_inside_of_another_compiled_function():
    weight = wanted(3)
    run = compiled_of(lambda x: (x * weight).sin())

    def finish(out):
        out.sum().backward()
        return weight.grad * 2

    finish_compiled = torch.compile(finish)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            x = torch.randn(3)
            weight.grad = None
            doubled = finish_compiled(run(x))
            expected = (x * weight).cos().detach() * x
            assert torch.allclose(weight.grad, expected)
            assert torch.allclose(doubled, 2 * expected)


def test_arguments_that_share_memory_are_told_apart():
    run = compiled_of(lambda x, y: x * y)
    for _ in range(2):
        x = wanted(3)
        run(x, x).sum().backward()
        assert torch.equal(x.grad, 2 * x.detach())
        y = x.detach().requires_grad_()
        x.grad = None
        run(x, y).sum().backward()
        assert torch.equal(x.grad, x.detach())
        assert torch.equal(y.grad, x.detach())


class Forgetful(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.kept = x * 1
        return x * x

    @staticmethod
    def backward(ctx, grad):
        kept, ctx.kept = ctx.kept, None
        return 2 * grad * kept


def test_custom_backward_that_clears_its_context():
    check(lambda x: Forgetful.apply(x), wanted(3))


def test_activations_that_the_user_keeps_are_state():
    stash = []
    layer = nn.Linear(3, 3)

    def function(x):
        hidden = layer(x).tanh()
        stash.append(hidden)
        return (hidden * hidden).sum()

    run = torch.compile(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(6):
            run(torch.randn(2, 3)).backward()
    assert len(stash) == 6
    assert len({t.data_ptr() for t in stash}) == 6


def test_backward_hooks_of_modules_act_once():
    model, seen = mlp(), []
    model[0].register_full_backward_hook(lambda module, given, wanted: seen.append(1))
    run = torch.compile(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for x in data_for((8, 6), 5):
            run(x.requires_grad_()).sum().backward()
    assert len(seen) == 5


def test_leaf_of_the_function_that_is_returned():
    def function(x):
        y = x.detach().requires_grad_()
        return y, (y * y).sum()

    run = torch.compile(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            y, loss = run(torch.ones(2) * 3)
            loss.backward()
            assert y.grad.tolist() == [6.0, 6.0]


def test_adversarial_training_equals_eager():
    def train(wrap):
        torch.manual_seed(0)
        generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        make, judge = wrap(generator), wrap(critic)
        first = torch.optim.Adam(generator.parameters(), 1e-2)
        second = torch.optim.Adam(critic.parameters(), 1e-2)
        losses = []
        for _ in range(6):
            fake = make(torch.randn(8, 4))
            second.zero_grad()
            loss = (judge(torch.randn(8, 2)) - 1).pow(2).mean() + judge(fake.detach()).pow(2).mean()
            loss.backward()
            second.step()
            first.zero_grad()
            other = (judge(fake) - 1).pow(2).mean()
            other.backward()
            first.step()
            losses += [loss.item(), other.item()]
        return losses

    assert train(lambda model: compiled_of(model, exact=True)) == train(lambda model: model)


def test_autocast_region():
    model = mlp().eval()
    run = compiled_of(model, exact=True)
    x = torch.randn(4, 6)
    grads = []
    for call in (model, run, run, run):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = call(x)
        out.float().sum().backward()
        grads.append([p.grad.tolist() for p in model.parameters()])
    assert grads[0] == grads[1] == grads[2] == grads[3]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in sorted(RECORDS)
                                  if RECORDS[name].differentiable and not private(RECORDS[name])])
def test_every_operation(name):
    """Bit for bit, with the gradient computed later."""
    function = function_of(RECORDS[name])
    for case in itertools.islice(cases(RECORDS[name]), 2):
        def gradients(call, case=case):
            args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
            given = [t for t in leaves([*args, *kwargs.values()]) if isinstance(t, torch.Tensor)]
            given = list(itertools.compress(given, case.floating))
            for tensor in given:
                tensor.requires_grad_()
            torch.manual_seed(3)
            outs = [t for t in leaves(call(args, kwargs)) if isinstance(t, torch.Tensor)]
            roots = [t for t in outs if t.requires_grad]
            if roots:
                sum(((t * t) if not t.is_complex() else t.abs()).sum() for t in roots).backward()
            return [None if t is None else to_array(torch, t.detach())
                    for t in (*outs, *(t.grad for t in given))]

        def call(args, kwargs):
            return function(*args, **kwargs)

        try:
            expected = gradients(call)
        except (RuntimeError, NotImplementedError):  # not of these arguments
            continue
        compiled = torch.compile(call, options={"exact": True})
        for _ in range(3):
            for a, b in zip(gradients(compiled), expected, strict=True):
                assert (a is None) == (b is None), case.label
                assert a is None or np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"), case.label
