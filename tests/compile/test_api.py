"""torch.compile's arguments and forms, torch.compiler, and modules that are compiled."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.compile import CaptureError


def double(x):
    return x * 2


@torch.compile
def tripled(x):
    """Three times."""
    return x * 3


X = torch.arange(3.0)


# ---------------------------------------------------------------------- forms
@pytest.mark.parametrize("arguments", [
    {}, {"mode": "default"}, {"mode": "reduce-overhead"}, {"mode": "max-autotune"},
    {"mode": "max-autotune-no-cudagraphs"}, {"mode": "strict"}, {"backend": "inductor"},
    {"backend": "eager"}, {"backend": "aot_eager"}, {"options": {"exact": True}},
    {"options": {"triton.cudagraphs": True}}, {"dynamic": True}, {"dynamic": False},
    {"fullgraph": True}, {"disable": True}], ids=str)
def test_call_and_decorator_with_every_argument(arguments):
    called = torch.compile(double, **arguments)
    decorated = torch.compile(**arguments)(double)
    module = torch.compile(nn.Linear(3, 2), **arguments)
    for _ in range(3):
        assert torch.equal(called(X), X * 2)
        assert torch.equal(decorated(X), X * 2)
        assert module(X).shape == (2,)


@pytest.mark.parametrize(("arguments", "error", "text"), [
    ({"mode": "fastest"}, RuntimeError, "Unrecognized mode=fastest"),
    ({"mode": "default", "options": {"exact": True}}, RuntimeError, "Either mode or options"),
    ({"options": {"wings": 2}}, RuntimeError, "Unexpected optimization option wings"),
    ({"backend": "steam"}, RuntimeError, "Invalid backend: 'steam'"),
    ({"backend": "openxla"}, RuntimeError, "another compiler"),
    ({"backend": 3}, TypeError, "backend must be"),
    ({"backend": lambda graph, inputs: graph}, NotImplementedError, "torch.fx"),
])
def test_unknown_arguments_are_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        torch.compile(double, **arguments)


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="not int"):
        torch.compile(3)
    with pytest.raises(TypeError, match="the class Linear"):
        torch.compile(nn.Linear)


def test_disable_returns_the_function_itself():
    assert torch.compile(double, disable=True) is double


def test_name_and_docstring_are_kept():
    assert tripled.__name__ == "tripled"
    assert tripled.__doc__ == "Three times."


class Holder:
    factor = 4.0

    @torch.compile
    def scale(self, x):
        return x * self.factor

    @staticmethod
    @torch.compile
    def shift(x):
        return x + 1

    @classmethod
    def of_class(cls, x):
        return x * cls.factor

    def plain(self, x):
        return x * self.factor


def test_methods_of_every_kind():
    a, b = Holder(), Holder()
    b.factor = 5.0
    bound, of_class = torch.compile(b.plain), torch.compile(Holder.of_class)
    partial = torch.compile(functools.partial(Holder.plain, b))
    for _ in range(3):
        assert torch.equal(a.scale(X), X * 4)
        assert torch.equal(b.scale(X), X * 5)
        assert torch.equal(Holder.shift(X), X + 1)
        assert torch.equal(bound(X), X * 5)
        assert torch.equal(of_class(X), X * 4)
        assert torch.equal(partial(X), X * 5)


def test_compiled_forward_and_parts_of_a_module():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    expected = model(X)
    model.forward = torch.compile(model.forward)
    for _ in range(3):
        assert torch.allclose(model(X), expected)
    del model.forward
    model[0] = torch.compile(model[0])
    whole = torch.compile(model)
    for _ in range(3):
        assert torch.allclose(model(X), expected)
        assert torch.allclose(whole(X), expected)


def test_module_compile_in_place():
    model = nn.Linear(3, 2)
    expected = model(X)
    keys = list(model.state_dict())
    model.compile(mode="strict")
    for _ in range(3):
        assert torch.equal(model(X), expected)
    assert list(model.state_dict()) == keys
    assert torch.equal(copy.deepcopy(model)(X), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), expected)


# ---------------------------------------------------------------------- modules
def test_compiled_module_is_the_module():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.tag = "net"

        def forward(self, x):
            return self.layer(x)

        def describe(self):
            return f"{self.tag} with {len(list(self.parameters()))} parameters"

    model = Net()
    compiled = torch.compile(model)
    assert isinstance(compiled, nn.Module)
    assert compiled._orig_mod is model
    assert compiled.layer is model.layer
    assert compiled.describe() == "net with 2 parameters"
    compiled.tag = "other"
    assert model.tag == "other"
    compiled.layer = nn.Linear(3, 4)
    assert model.layer.out_features == 4
    compiled.eval()
    assert not model.training
    assert not model.layer.training
    assert not compiled.training
    model.train()
    assert compiled.training
    assert [id(p) for p in compiled.parameters()] == [id(p) for p in model.parameters()]
    assert compiled.to(torch.float64) is compiled
    assert model.layer.weight.dtype is torch.float64
    assert bool(torch.compile(nn.Sequential()))
    assert len(torch.compile(nn.Sequential(model, model))) == 2


def test_state_dict_copies_and_pickles_of_a_compiled_module():
    model = nn.Linear(3, 2)
    compiled = torch.compile(model)
    compiled(X)
    assert list(compiled.state_dict()) == ["_orig_mod.weight", "_orig_mod.bias"]
    compiled.load_state_dict({k: v + 1 for k, v in compiled.state_dict().items()})
    other = copy.deepcopy(compiled)
    assert other._orig_mod is not model
    assert torch.equal(other(X), compiled(X))
    with torch.no_grad():
        other._orig_mod.weight.zero_()
    assert torch.equal(other(X), other._orig_mod.bias)
    assert not torch.equal(other(X), compiled(X))
    assert torch.equal(pickle.loads(pickle.dumps(compiled))(X), model(X))


def test_copies_and_pickles_of_compiled_functions():
    assert pickle.loads(pickle.dumps(tripled)) is tripled
    compiled = torch.compile(double)
    assert torch.equal(copy.deepcopy(compiled)(X), X * 2)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(compiled)


# ---------------------------------------------------------------------- torch.compiler
def test_reset_forgets_programs():
    compiled = torch.compile(double)
    compiled(X)
    assert compiled.programs
    torch.compiler.reset()
    assert not compiled.programs
    assert torch.equal(compiled(X), X * 2)


def test_names_of_the_folder_are_still_the_compilers():
    from flambeau.compiler import reset
    from flambeau.compiler.target import host

    assert reset is torch.compiler.reset
    assert callable(host)
    assert not hasattr(torch.compiler, "no_such_name")
    with pytest.raises(NotImplementedError, match="from_numpy"):
        torch.compiler.wrap_numpy  # noqa: B018


def test_is_compiling():
    seen = []

    def step(x):
        seen.append(torch.compiler.is_compiling())
        return x + 1

    step(X)
    assert seen == [False]
    compiled = torch.compile(step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(X)
    assert seen[1] is True
    assert not torch.compiler.is_compiling()
    assert not torch.compiler.is_exporting()


def test_disabled_functions_run_as_python():
    calls = []

    @torch.compiler.disable
    def noted(x):
        calls.append(x.shape)
        return x + 1

    def step(x):
        return noted(x * 2) * 3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(step)
        for count in range(1, 5):
            assert torch.equal(compiled(X), (X * 2 + 1) * 3)
            assert len(calls) == count
    with pytest.raises(CaptureError, match=r"torch\.compiler\.disable"):
        torch.compile(step, fullgraph=True)(X)
    compiled = torch.compile(double)
    with torch.compiler.disable():
        compiled(X)
    assert not compiled.programs
    assert torch.compiler.disable(compiled)(X).tolist() == (X * 2).tolist()
    assert torch.compiler.disable(reason="slow")(double)(X).tolist() == (X * 2).tolist()
    assert torch.compiler.disable(nn.Linear(3, 2))(X).shape == (2,)


def test_stances():
    compiled = torch.compile(double)
    with torch.compiler.set_stance("force_eager"):
        compiled(X)
        assert not compiled.programs
    with torch.compiler.set_stance("eager_then_compile"):
        compiled(X)
        assert not compiled.programs
        compiled(X)
        assert compiled.programs
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(X)
        with pytest.raises(RuntimeError, match="fail_on_recompile"):
            compiled(torch.ones(2, 2, dtype=torch.float64))
    with torch.compiler.set_stance("eager_on_recompile"):
        assert compiled(torch.ones(2, 2, dtype=torch.float64)).dtype is torch.float64
    assert len(compiled.programs) == 1
    torch.compiler.set_stance("force_eager")
    torch.compiler.set_stance("default")
    assert torch.equal(compiled(X), X * 2)

    @torch.compiler.set_stance("force_eager")
    def outer(x):
        return torch.compile(double)(x)

    assert torch.equal(outer(X), X * 2)
    with pytest.raises(RuntimeError, match=r"invalid torch\.compile stance"):
        torch.compiler.set_stance("upright")


def test_marks_that_change_nothing():
    assert torch.compiler.allow_in_graph(double) is double
    assert torch.compiler.allow_in_graph([double]) == [double]
    assert torch.compiler.cudagraph_mark_step_begin() is None
    assert torch.compiler.list_backends() == ["flambeau", "inductor"]
    assert "eager" in torch.compiler.list_backends(None)
    assert torch.compiler.nested_compile_region(double) is double
    assert torch.compiler.substitute_in_graph(len)(double) is double


def test_assumed_constant_is_not_looked_at_again():
    box = {"factor": 2.0}

    @torch.compiler.assume_constant_result
    def factor():
        return box["factor"]

    compiled = torch.compile(lambda x: x * factor())
    assert compiled(X)[1].item() == 2
    box["factor"] = 3.0
    assert compiled(X)[1].item() == 2


def test_compiled_functions_inside_of_compiled_ones():
    inner = torch.compile(double)
    compiled = torch.compile(lambda x: inner(x) + 1)
    inner(X)
    for _ in range(3):
        assert torch.equal(compiled(X), X * 2 + 1)
    assert len(inner.programs) == 1
