"""Selective checkpointing: which results are kept, and that the gradients stay the same."""

from __future__ import annotations

import functools
from typing import Any

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.utils.checkpoint import (
    SAC_IGNORED_OPS,
    CheckpointPolicy,
    GraphExecGroup,
    checkpoint,
    create_selective_checkpoint_contexts,
)

aten = torch.ops.aten


def selective(function: Any, policy: Any, *args: Any, **options: Any) -> Any:
    context = functools.partial(create_selective_checkpoint_contexts, policy, **options)
    return checkpoint(function, *args, use_reentrant=False, context_fn=context)


def recompute(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.PREFER_RECOMPUTE


def keep(context: Any, op: Any, *args: Any, **kwargs: Any) -> bool:
    return True


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4), nn.Dropout(0.3),
                         nn.Linear(4, 2), nn.GELU(), nn.Softmax(-1))


@pytest.mark.parametrize("policy", [
    recompute, keep, [], [aten.addmm.default], [aten.addmm, aten.relu.default, aten.gelu.default]])
def test_gradients_are_the_same(model: nn.Module, policy: Any):
    x = torch.randn(3, 4, requires_grad=True)

    def gradients(run: Any) -> list:
        torch.manual_seed(3)
        loss = (run(x) * torch.arange(6.0).view(3, 2)).sum()
        return torch.autograd.grad(loss, [x, *model.parameters()])

    for one, other in zip(gradients(model), gradients(
            functools.partial(selective, model, policy)), strict=True):
        assert torch.equal(one, other)


def test_what_a_policy_is_told(model: nn.Module):
    told: list = []

    def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        assert not context.is_recompute and isinstance(context.op_output, torch.Tensor)
        told.append((str(op), [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)][:3]))
        return CheckpointPolicy.MUST_RECOMPUTE

    selective(model, policy, torch.randn(3, 4, requires_grad=True)).sum().backward()
    assert told == [
        ("aten.addmm.default", [(4,), (3, 4), (4, 4)]), ("aten.relu.default", [(3, 4)]),
        ("aten.native_layer_norm.default", [(3, 4), (4,), (4,)]),
        ("aten.native_dropout.default", [(3, 4), (3, 4)]),
        ("aten.addmm.default", [(2,), (3, 4), (4, 2)]), ("aten.gelu.default", [(3, 2)]),
        ("aten._softmax.default", [(3, 2)])]


def test_names():
    def named(function: Any, *args: Any) -> list[str]:
        found: list = []

        def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
            found.append(op)
            return CheckpointPolicy.PREFER_RECOMPUTE

        selective(function, policy, *args)
        return list(map(str, found))

    x = torch.randn(2, 5, 4, requires_grad=True)
    weight = torch.randn(6, 4)
    assert named(lambda t: nn.functional.linear(t, weight), x) == ["aten.mm.default"]
    assert named(lambda t: t @ weight.t(), x) == ["aten.mm.default"]
    assert named(lambda t: t @ t.mT, x) == ["aten.bmm.default"]
    assert named(lambda t: (t + t) * 2, x) == ["aten.add.Tensor", "aten.mul.Scalar"]
    assert named(lambda t: t.sum(1).sum(), x) == ["aten.sum.dim_IntList", "aten.sum.default"]
    assert named(lambda t: nn.functional.conv1d(t, torch.ones(3, 5, 2)), x) == [
        "aten.convolution.default"]
    attention = functools.partial(nn.functional.scaled_dot_product_attention, is_causal=True)
    assert named(lambda t: attention(t, t, t), x) == [
        "aten._scaled_dot_product_flash_attention_for_cpu.default"]
    kinds = {aten._scaled_dot_product_flash_attention_for_cpu.default}
    assert aten._scaled_dot_product_efficient_attention.default in kinds
    assert aten.mm.default == aten.mm.default != aten.bmm.default
    assert aten.add.Tensor.name() == "aten::add.Tensor" and aten.mm.default.name() == "aten::mm"
    assert repr(aten.mm.default) == "<OpOverload(op='aten.mm', overload='default')>"
    assert torch.equal(aten.mm.default(torch.eye(2), torch.ones(2, 2)), torch.ones(2, 2))
    assert aten.detach.default in SAC_IGNORED_OPS
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        aten.nope  # noqa: B018


def test_kept_results_are_not_computed_again():
    calls: list = []

    @torch.library.custom_op("selective_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return x * 2

    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 2

    twice.register_autograd(backward)
    x = torch.rand(3, requires_grad=True)

    def function(x: Any) -> Any:
        return twice(x.exp()).sin()

    expected, = torch.autograd.grad(function(x).sum(), x)
    for policy, count in (([], 2), ([torch.ops.selective_tests.twice.default], 1)):
        calls.clear()
        found, = torch.autograd.grad(selective(function, policy, x).sum(), x)
        assert len(calls) == count
        assert torch.equal(found, expected)


def test_kept_results_serve_once():
    x = torch.rand(3, 3, requires_grad=True)
    loss = selective(lambda t: (t @ t).sin().cos(), [aten.mm.default], x).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="Trying to backward an extra time"):
        loss.backward()


def test_writing_to_a_kept_result():
    def function(x: Any) -> Any:
        product = x @ x
        sine = product.sin()
        product.add_(1)
        return sine * product

    x = torch.rand(3, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="has been mutated"):
        selective(function, [aten.mm.default], x).sum().backward()
    selective(function, [aten.mm.default], x, allow_cache_entry_mutation=True).sum().backward()


def test_bad_policies():
    x = torch.rand(3, requires_grad=True)
    with pytest.raises(ValueError, match="Expected op in `op_list` to be an OpOverload"):
        create_selective_checkpoint_contexts([torch.mm])
    with pytest.raises(TypeError, match="must be either a function or a list of ops"):
        create_selective_checkpoint_contexts(3)
    with pytest.raises(TypeError, match="must return a CheckpointPolicy"):
        selective(torch.sin, lambda *args, **kwargs: "save", x)


def test_around_it():
    x = torch.rand(3, 3, requires_grad=True)
    with torch.autocast("cpu"):
        assert selective(lambda t: (t @ t).sin(), keep, x).dtype is torch.bfloat16
    compiled = torch.compile(lambda t: selective(lambda u: (u @ u).sin(), [aten.mm.default], t))
    expected, = torch.autograd.grad((x @ x).sin().sum(), x)
    for _ in range(3):
        assert torch.allclose(torch.autograd.grad(compiled(x).sum(), x)[0], expected)
    stand_in = torch.empty(3, 3, device="meta", requires_grad=True)
    selective(lambda t: (t @ t).sin(), keep, stand_in).sum().backward()
    assert stand_in.grad.is_meta


def test_groups_of_backwards():
    runs: list = []

    def function(x: Any) -> tuple:
        runs.append(None)
        return x.sin().sin(), x.cos().cos()

    x = torch.rand(3, requires_grad=True)
    with GraphExecGroup():
        one, other = checkpoint(function, x, use_reentrant=False)
        one.sum().backward()
        other.sum().backward()
        assert len(runs) == 2
        with pytest.raises(RuntimeError, match="nested"), GraphExecGroup():
            pass
