"""Batches in pieces; what a module's constructor says of tensors; places that do not exist."""

from __future__ import annotations

import collections

import pytest

import flambeau as torch
from flambeau.nn.parallel import gather, parallel_apply, scatter

Pair = collections.namedtuple("Pair", "x y")


def test_scatter_and_gather():
    x = torch.arange(5)
    parts = scatter({"x": x, "rest": [x, "same"], "pair": Pair(x, None)}, ["cpu", "cpu"])
    assert [part["x"].tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert parts[1]["rest"][0].tolist() == [3, 4] and parts[1]["rest"][1] == "same"
    assert isinstance(parts[0]["pair"], Pair) and parts[0]["pair"].y is None
    assert gather([part["x"] for part in parts], "cpu").tolist() == x.tolist()
    joined = gather([part["pair"] for part in parts], -1)
    assert joined.x.tolist() == x.tolist() and joined.y is None
    assert gather([torch.tensor(1.0), torch.tensor(2.0)], "cpu").tolist() == [1.0, 2.0]
    assert gather([{"a": x}, {"a": x}], "cpu")["a"].shape == (10,)
    assert len(scatter(torch.ones(1), ["cpu"] * 3)) == 1  # too small for three
    with pytest.raises(ValueError, match="same keys"):
        gather([{"a": x}, {"b": x}], "cpu")
    with pytest.raises(RuntimeError):
        scatter(x, [0, 1])


def test_gradients_pass_through():
    x = torch.ones(4, 2, requires_grad=True)
    gather([2 * part for part in scatter(x, ["cpu", "cpu"])], "cpu").sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0]] * 4


def test_parallel_apply():
    models = [torch.nn.Linear(2, 1), torch.nn.Bilinear(2, 2, 1)]
    x = torch.ones(1, 2)
    first, second = parallel_apply(models, [x, (x, x)], devices=["cpu", None])
    assert torch.equal(first, models[0](x)) and torch.equal(second, models[1](x, x))
    (named,) = parallel_apply([torch.nn.functional.softmax], [x], [{"dim": 1}])
    assert named.tolist() == [[0.5, 0.5]]
    with pytest.raises(AssertionError, match="2 modules, but 1 inputs"):
        parallel_apply(models, [x])


def test_factory_kwargs():
    read = torch.nn.factory_kwargs
    assert read(None) == {} and read({"dtype": torch.float16}) == {"dtype": torch.float16}
    nested = {"factory_kwargs": {"dtype": torch.float16}, "device": "cpu"}
    assert read(nested) == {"dtype": torch.float16, "device": "cpu"}
    for wrong in ({"color": 1}, {"factory_kwargs": {"color": 1}},
                  {"factory_kwargs": {"dtype": 1}, "dtype": 2}):
        with pytest.raises(TypeError):
            read(wrong)


@pytest.mark.parametrize("kind", ["ipu", "mtia", "xpu"])
def test_places_that_do_not_exist(kind):
    for call in (lambda: getattr(torch.nn.Linear(1, 1), kind)(),
                 lambda: getattr(torch.nn.Linear(1, 1), kind)(0)):
        with pytest.raises(RuntimeError, match="CPU"):
            call()


def test_what_the_cpu_can_do():
    known = torch.cpu.get_capabilities()
    assert known["num_logical_cores"] >= 1 and known["architecture"] and known["cpu_name"]
    with pytest.raises(TypeError):
        known["avx2"] = False  # a read-only mapping
    with torch.cpu.stream(torch.cpu.current_stream()) as entered:
        assert entered.stream is torch.cpu.current_stream()


def test_marked_hooks_stay_as_they_are():
    @torch.utils.hooks.unserializable_hook
    def hook(grad):
        return grad

    assert hook.__torch_unserializable__ and hook(3) == 3
    table = collections.OrderedDict()
    flags = collections.OrderedDict()
    handle = torch.utils.hooks.RemovableHandle(table, extra_dict=flags)
    table[handle.id] = flags[handle.id] = hook
    handle.remove()
    assert handle.id not in table and handle.id not in flags
