"""Activation checkpointing: the same gradients, less that is kept, the function run again."""

from __future__ import annotations

import gc
import warnings

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.runtime import memory
from flambeau.utils.checkpoint import (
    CheckpointError,
    checkpoint,
    checkpoint_sequential,
    set_checkpoint_debug_enabled,
    set_checkpoint_early_stop,
)

FORMS = pytest.mark.parametrize("reentrant", [False, True])


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)
        self.drop = nn.Dropout(0.3)
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        return self.drop(self.second(torch.relu(self.first(x))))


def gradients(block, x, call):
    torch.manual_seed(5)
    x = x.detach().requires_grad_()
    block.zero_grad()
    out = call(x)
    drawn = torch.rand(3)
    (out * torch.arange(8.0)).sum().backward()
    return [out.detach(), drawn, x.grad] + [p.grad.clone() for p in block.parameters()]


@FORMS
def test_gradients_and_random_numbers_are_the_same(reentrant):
    block, x = Block(), torch.randn(4, 8)
    wanted = gradients(block, x, block)
    block.runs = 0
    got = gradients(block, x, lambda x: checkpoint(block, x, use_reentrant=reentrant))
    assert block.runs == 2
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)
    after = torch.rand(2)
    gradients(block, x, block)
    assert torch.equal(torch.rand(2), after)  # the second run has not moved the stream


@FORMS
def test_nested(reentrant):
    inner, outer, x = Block(), Block(), torch.randn(4, 8)

    def both(x):
        return outer(checkpoint(inner, x, use_reentrant=reentrant))

    wanted = gradients(inner, x, lambda x: outer(inner(x)))
    got = gradients(inner, x, lambda x: checkpoint(both, x, use_reentrant=reentrant))
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


@FORMS
def test_autocast_of_the_first_run_holds_in_the_second(reentrant):
    block, x = Block(), torch.randn(4, 8)

    def cast(call):
        def run(x):
            with torch.autocast("cpu"):
                return call(x)
        return run

    wanted = gradients(block, x, cast(block))
    got = gradients(block, x, cast(lambda x: checkpoint(block, x, use_reentrant=reentrant)))
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


def test_what_the_function_saves_is_let_go():
    def function(x):
        return x.exp().sin()

    def held(call):
        gc.collect()
        before = memory.memory_stats()["in_use"]
        out = call()
        gc.collect()
        return out, memory.memory_stats()["in_use"] - before

    x = torch.randn(1 << 16, requires_grad=True)
    out, nbytes = held(lambda: checkpoint(function, x, use_reentrant=False))
    assert nbytes < 2 * x.nbytes  # the result
    assert held(lambda: function(x))[1] >= 2 * x.nbytes  # and what exp gave
    out.sum().backward()
    assert torch.equal(x.grad, x.detach().exp().cos() * x.detach().exp())


def test_the_second_run_stops_early_unless_told_otherwise():
    seen = []

    def function(x):
        y = x.sin().cos()
        seen.append("end")
        return y

    x = torch.randn(3, requires_grad=True)
    checkpoint(function, x, use_reentrant=False).sum().backward()
    assert len(seen) == 1
    with set_checkpoint_early_stop(False):
        checkpoint(function, x, use_reentrant=False).sum().backward()
    assert len(seen) == 3


def test_a_graph_that_is_kept_runs_again():
    x = torch.randn(3, requires_grad=True)
    out = checkpoint(lambda x: x.sin().cos().sum(), x, use_reentrant=False)
    out.backward(retain_graph=True)
    first = x.grad.clone()
    out.backward()
    assert torch.equal(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()


def test_higher_order():
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    out = checkpoint(lambda x: x.sin().exp().sum(), x, use_reentrant=False)
    grad, = torch.autograd.grad(out, x, create_graph=True)
    second, = torch.autograd.grad(grad.sum(), x)
    plain, = torch.autograd.grad(x.sin().exp().sum(), x, create_graph=True)
    wanted, = torch.autograd.grad(plain.sum(), x)
    torch.testing.assert_close(second, wanted)


def test_keywords_and_several_results():
    def function(x, *, scale, extra=None):
        return {"a": x * scale, "b": (x.sin(), "text")}

    x = torch.randn(3, requires_grad=True)
    out = checkpoint(function, x, use_reentrant=False, scale=3.0)
    (out["a"] + out["b"][0]).sum().backward()
    torch.testing.assert_close(x.grad, 3 + x.detach().cos())
    assert out["b"][1] == "text"
    with pytest.raises(ValueError, match="scale"):
        checkpoint(function, x, use_reentrant=True, scale=3.0)


def test_a_function_that_changes_is_noticed():
    runs = []

    def other_shape(x):
        runs.append(1)
        return (x if len(runs) == 1 else x[:2]).sin().sum()

    def fewer(x):
        runs.append(1)
        return (x.sin().cos() if len(runs) == 1 else x.sin()).sum()

    x = torch.randn(3, requires_grad=True)
    for function, said in ((other_shape, "different metadata"), (fewer, "different number")):
        runs.clear()
        out = checkpoint(function, x, use_reentrant=False)
        with pytest.raises(CheckpointError, match=said):
            out.backward()
        runs.clear()
        with set_checkpoint_debug_enabled(True):
            out = checkpoint(function, x, use_reentrant=False)
            with pytest.raises(CheckpointError, match=r"test_checkpoint\.py:\d+"):
                out.backward()


def test_reentrance_needs_inputs_with_gradients_and_a_whole_backward():
    x = torch.randn(3, requires_grad=True)
    with pytest.warns(UserWarning, match="None of the inputs"):
        checkpoint(torch.sin, x.detach(), use_reentrant=True)
    with pytest.warns(UserWarning, match="use_reentrant"):
        checkpoint(torch.sin, x)
    out = checkpoint(lambda x: x.sin().sum(), x, use_reentrant=True)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        torch.autograd.grad(out, x)
    with pytest.raises(ValueError, match="context_fn"):
        checkpoint(torch.sin, x, use_reentrant=True, debug=True)
    with pytest.raises(ValueError, match="determinism_check"):
        checkpoint(torch.sin, x, use_reentrant=False, determinism_check="all")


def test_contexts_of_both_runs():
    seen = []

    class Note:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(self.name)

        def __exit__(self, *error):
            seen.append("end of " + self.name)

    x = torch.randn(3, requires_grad=True)
    out = checkpoint(torch.sin, x, use_reentrant=False,
                     context_fn=lambda: (Note("first"), Note("second")))
    assert seen == ["first", "end of first"]
    out.sum().backward()
    assert seen[2:] == ["second", "end of second"]


@FORMS
@pytest.mark.parametrize("segments", [1, 2, 3, 4])
def test_sequential(segments, reentrant):
    model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(4)])
    x = torch.randn(2, 6, requires_grad=True)
    wanted = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    model.zero_grad()
    checkpoint_sequential(model, segments, x, use_reentrant=reentrant).square().sum().backward()
    for p, grad in zip(model.parameters(), wanted, strict=True):
        assert torch.equal(p.grad, grad)


def test_sequential_of_too_many_segments():
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="segments"):
        checkpoint_sequential(model, 2, torch.ones(1, 3), use_reentrant=False)


def test_without_recording_it_just_runs():
    block = Block().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        x = torch.randn(2, 8)
        assert torch.equal(checkpoint(block, x, use_reentrant=False), block(x))


def test_inside_of_a_compiled_step():
    losses = []
    for wrap in (lambda f: f, torch.compile):
        torch.manual_seed(0)
        block = Block()
        block.drop.p = 0.0
        optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
        x = torch.randn(4, 8)

        def step(block=block, optimizer=optimizer, x=x):
            optimizer.zero_grad()
            loss = checkpoint(block, x, use_reentrant=False).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        losses.append([float(run()) for _ in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
