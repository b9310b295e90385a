"""Classes that are no tensors beside operators and indexing; what modes see; trees with paths."""

from __future__ import annotations

import collections

import pytest

import flambeau as torch
from flambeau.overrides import TorchFunctionMode, resolve_name
from flambeau.utils import _pytree as pytree

MADE_EARLY = {torch.zeros, torch.Tensor.view, torch.tensor}
"""Looked up before any mode is entered, as modules of users do."""


class Duck:
    """Is asked, and tells about what."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func.__name__, len(args), sorted(kwargs or {})


@pytest.mark.parametrize(("call", "name"), [
    (lambda t, d: t + d, "add"), (lambda t, d: d + t, "add"), (lambda t, d: t @ d, "matmul"),
    (lambda t, d: t == d, "eq"), (lambda t, d: t / d, "div"), (lambda t, d: d / t, "div"),
    (lambda t, d: t[d], "__getitem__"), (lambda t, d: t.copy_(d), "copy_"),
    (lambda t, d: torch.linalg.norm(d), "linalg_norm"),
    (lambda t, d: torch.nn.init.uniform_(d), "uniform_")])
def test_ducks_are_asked(call, name):
    assert call(torch.ones(2), Duck())[0] == name


def test_tensors_are_handed_on_by_place():
    assert torch.nn.functional.linear(Duck(), Duck(), Duck()) == ("linear", 3, [])
    assert torch.sum(Duck(), dim=0) == ("sum", 1, ["dim"])
    t = torch.ones(2)
    t[0] = 3
    assert t.tolist() == [3.0, 1.0]
    with pytest.raises(TypeError):
        _ = t + object()


def test_modes_see_methods_and_factories_as_the_same_functions():
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.ones(2, 2)
    with Watch():
        x.view(4)
        torch.zeros(2)
        torch.tensor([1.0])
        x[0] = 1
    assert set(seen) >= MADE_EARLY
    assert "torch.Tensor.__setitem__" in map(resolve_name, seen)
    assert {torch.zeros, torch.Tensor.view, torch.tensor} == MADE_EARLY
    assert x.view(-1).shape == (4,)


def test_paths_through_trees():
    point = collections.namedtuple("point", "x y")
    tree = {"a": [1, point(2, 3)]}
    found, spec = pytree.tree_flatten_with_path(tree)
    assert [pytree.keystr(path) for path, _ in found] == ["['a'][0]", "['a'][1].x", "['a'][1].y"]
    assert all(pytree.key_get(tree, path) == leaf for path, leaf in found)
    assert (spec.num_leaves, spec.num_nodes) == (3, 6)
    doubled = pytree.tree_map_with_path(lambda path, leaf: leaf * len(path), tree)
    assert doubled == {"a": [2, point(6, 9)]}
    plain = pytree.tree_structure([1, {"a": (2, 3)}])
    assert pytree.treespec_loads(pytree.treespec_dumps(plain)) == plain


def test_dispatch_modes_are_asked_about_what_is_run():
    from flambeau.utils._python_dispatch import TorchDispatchMode

    aten, seen = torch.ops.aten, []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            found = func(*args, **(kwargs or {}))
            return found * 10 if func is aten.exp.default else found

    x = torch.zeros(2, 2, requires_grad=True)
    with Count(), Count():
        y = torch.mm(x, x) + 1
        z = x.exp()
    assert seen.count("aten.mm.default") == seen.count("aten.add.Scalar") == 2
    assert z[0, 0].item() == 100
    (y.sum() + z.sum()).backward()
    assert x.grad is not None
    assert torch.equal((x + 1).detach(), torch.ones(2, 2))  # nobody is asked any more


def test_rules_of_modes_for_an_operator():
    from flambeau.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    @torch.library.custom_op("rules::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @twice.register_torch_dispatch(Mode)
    def rule(mode, func, types, args, kwargs):
        return func(*args) * 10

    assert twice(torch.ones(1)).item() == 2
    with Mode():
        assert twice(torch.ones(1)).item() == 20
    torch.library.operators.remove("rules::twice")


def test_tensors_below_autograd_are_refused_in_words():
    class Below(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            return func(*args)

    class Plain(torch.Tensor):
        pass

    for make in (lambda: torch.Tensor._make_wrapper_subclass(Below, (2,)),
                 lambda: torch.Tensor._make_subclass(Below, torch.ones(2))):
        with pytest.raises(NotImplementedError, match="__torch_function__"):
            make()
    with pytest.raises(RuntimeError, match="does not define __torch_dispatch__"):
        torch.Tensor._make_wrapper_subclass(Plain, (2,))
    with pytest.raises(TypeError):
        torch.Tensor._make_subclass(int, torch.ones(2))
