"""Module: registries, traversal, state, hooks, the call - without PyTorch."""

from __future__ import annotations

import copy
import pickle

import pytest


class Registry:
    """Modules made from the given framework."""

    def __init__(self, torch):
        self.torch = torch

    def net(self):
        torch = self.torch

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = torch.nn.Linear(3, 4)
                self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(2)])
                self.scale = torch.nn.Parameter(torch.ones(4))
                self.register_buffer("seen", torch.zeros(2))
                self.register_buffer("cache", torch.zeros(2), persistent=False)

            def forward(self, x):
                x = self.fc(x)
                for block in self.blocks:
                    x = block(x)
                return x * self.scale

        return Net()


@pytest.fixture
def net(torch):
    return Registry(torch).net()


NAMES = ["scale", "fc.weight", "fc.bias", "blocks.0.weight", "blocks.0.bias", "blocks.1.weight",
         "blocks.1.bias"]


def test_registries(torch, net):
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_buffers()] == ["seen", "cache"]
    assert [name for name, _ in net.named_modules()] == [
        "", "fc", "blocks", "blocks.0", "blocks.1"]
    assert list(net.state_dict()) == ["scale", "seen", *NAMES[1:]]
    assert all(isinstance(p, torch.nn.Parameter) for p in net.parameters())
    assert net.get_parameter("blocks.1.bias") is net.blocks[1].bias
    assert net.get_buffer("seen") is net.seen


def test_assignment_moves_between_registries(torch, net):
    net.seen = torch.nn.Parameter(torch.ones(2))
    assert "seen" in net._parameters
    assert "seen" not in net._buffers
    net.fc = None
    assert net.fc is None
    assert [name for name, _ in net.named_children()] == ["blocks"]
    del net.scale
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'scale'"):
        _ = net.scale
    net.plain = 3
    net.plain = torch.nn.Identity()
    assert "plain" in net._modules
    assert "plain" not in net.__dict__


def test_a_subclass_that_forgets_init(torch):
    class Forgets(torch.nn.Module):
        def __init__(self):
            self.fc = torch.nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Forgets()


def test_shared_members_count_once(torch, net):
    net.again = net.fc
    assert len(list(net.parameters())) == len(NAMES)
    assert len(list(net.named_parameters(remove_duplicate=False))) == len(NAMES) + 2


def test_state_dict_shares_memory_and_loads(torch, net):
    saved = net.state_dict()
    with torch.no_grad():
        net.scale.fill_(5)
    assert saved["scale"].tolist() == [5.0] * 4
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    result = other.load_state_dict(saved)
    assert repr(result) == "<All keys matched successfully>"
    assert other.scale.tolist() == [5.0] * 4
    assert other.fc.weight.tolist() == net.fc.weight.tolist()


def test_load_lists_every_problem(torch, net):
    saved = net.state_dict()
    del saved["fc.bias"]
    saved["extra"] = torch.ones(1)
    saved["scale"] = torch.ones(7)
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(saved)
    message = str(caught.value)
    assert 'Missing key(s) in state_dict: "fc.bias"' in message
    assert 'Unexpected key(s) in state_dict: "extra"' in message
    assert "size mismatch for scale: copying a param with shape torch.Size([7])" in message


def test_extra_state(torch):
    class Counts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    module = torch.nn.Sequential(Counts())
    module[0].count = 4
    saved = module.state_dict()
    assert saved["0._extra_state"] == {"count": 4}
    module[0].count = 0
    module.load_state_dict(saved)
    assert module[0].count == 4
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({})


def test_call_forwards_arguments(torch):
    class Adds(torch.nn.Module):
        def forward(self, a, *, b=1):
            return a + b

    assert Adds()(2, b=3) == 5


def test_hooks_run_in_order_and_can_be_removed(torch):
    module, log = torch.nn.Identity(), []
    first = module.register_forward_hook(lambda m, args, out: log.append("first"))
    module.register_forward_hook(lambda m, args, out: log.append("second"), prepend=True)
    with module.register_forward_pre_hook(lambda m, args: log.append("pre")):
        module(1)
    first.remove()
    module(1)
    assert log == ["pre", "second", "first", "second"]


def test_hooks_may_replace(torch):
    module = torch.nn.Identity()
    module.register_forward_pre_hook(lambda m, args: (args[0] + 1,))
    module.register_forward_hook(lambda m, args, out: out * 10)
    assert module(1) == 20


def test_global_registration_hook(torch):
    seen = []
    register = torch.nn.modules.module.register_module_parameter_registration_hook
    with register(lambda m, name, p: seen.append((type(m).__name__, name))):
        torch.nn.Linear(1, 1)
    torch.nn.Linear(1, 1)
    assert seen == [("Linear", "weight"), ("Linear", "bias")]


def test_an_error_names_the_module_path(torch):
    class Fails(torch.nn.Module):
        def forward(self, x):
            raise ValueError("inner")

    inner = torch.nn.Sequential(torch.nn.Identity(), Fails())
    outer = torch.nn.ModuleDict({"encoder": inner})
    outer.forward = lambda x: outer["encoder"](x)
    with pytest.raises(ValueError, match="inner") as caught:
        outer(1)
    assert caught.value.__notes__ == ["in module encoder.1 (Fails) of ModuleDict"]


def test_an_error_outside_the_tree_keeps_its_own_note(torch):
    class Fails(torch.nn.Module):
        def forward(self, x):
            raise ValueError("inner")

    class Hides(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = [Fails()]

        def forward(self, x):
            return self.hidden[0](x)

    with pytest.raises(ValueError, match="inner") as caught:
        Hides()(1)
    assert caught.value.__notes__ == ["in module Fails"]


def test_backward_hooks_of_the_last_operation(torch):
    module, seen = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Sigmoid()), []

    def hook(m, grad_input, grad_output):
        seen.append((m, grad_output[0].tolist()))
        return (torch.zeros_like(grad_input[0]),)

    handle = module.register_backward_hook(hook)
    with pytest.raises(RuntimeError, match="both regular backward hooks and full"):
        module.register_full_backward_hook(print)
    module(torch.ones(1, 2)).sum().backward()
    assert seen == [(module, [[1.0]])]
    assert module[0].weight.grad.tolist() == [[0.0, 0.0]]  # the sigmoid's gradient was replaced
    handle.remove()
    module(torch.ones(1, 2)).sum().backward()
    assert len(seen) == 1


def test_full_backward_hook(torch):
    module, seen = torch.nn.Linear(2, 1), []

    def hook(m, grad_input, grad_output):
        seen.append((grad_input[0].tolist(), grad_output[0].tolist()))
        return (grad_input[0] * 2,)

    module.register_full_backward_hook(hook)
    x = torch.ones(1, 2).requires_grad_()
    module(x).sum().backward()
    weight = module.weight.detach().tolist()
    assert seen == [(weight, [[1.0]])]
    assert x.grad.tolist() == [[2 * w for w in weight[0]]]


def test_conversion(torch, net):
    before = list(net.parameters())
    assert net.to(torch.float64) is net
    assert [a is b for a, b in zip(before, net.parameters(), strict=True)] == [True] * len(NAMES)
    assert net.fc.weight.dtype == net.seen.dtype == torch.float64
    net.float()
    assert net.scale.dtype == torch.float32
    with pytest.raises(TypeError, match="only accepts floating point or complex dtypes"):
        net.to(torch.int64)


def test_modes_and_freezing(torch, net):
    net.eval()
    assert not any(module.training for module in net.modules())
    net.blocks.train()
    assert [module.training for module in net.modules()] == [False, False, True, True, True]
    net.fc.requires_grad_(False)
    assert [p.requires_grad for p in net.parameters()] == [True, False, False, *[True] * 4]
    with pytest.raises(ValueError, match="training mode is expected to be boolean"):
        net.train(1)


def test_zero_grad(torch, net):
    net(torch.ones(1, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert float(net.scale.grad.abs().sum()) == 0
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_deepcopy_and_pickle(torch, net):
    twin = copy.deepcopy(net)
    assert twin.fc.weight is not net.fc.weight
    assert twin.fc.weight.tolist() == net.fc.weight.tolist()
    linear = torch.nn.Linear(2, 1)
    back = pickle.loads(pickle.dumps(linear))
    assert isinstance(back.weight, torch.nn.Parameter)
    assert back.weight.tolist() == linear.weight.tolist()


def test_reprs(torch, net):
    assert repr(net) == """Net(
  (fc): Linear(in_features=3, out_features=4, bias=True)
  (blocks): ModuleList(
    (0-1): 2 x Linear(in_features=4, out_features=4, bias=True)
  )
)"""
    assert repr(torch.nn.Sequential()) == "Sequential()"
    assert repr(torch.nn.Parameter(torch.ones(1))).startswith("Parameter containing:\ntensor(")


def test_parameter_and_buffer(torch):
    data = torch.zeros(2)
    parameter = torch.nn.Parameter(data)
    data.fill_(1)
    assert parameter.tolist() == [1.0, 1.0]
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert isinstance(parameter, torch.nn.Parameter)
    assert not isinstance(data, torch.nn.Parameter)
    assert not isinstance(parameter * 2, torch.nn.Parameter)
    module = torch.nn.Module()
    module.state = torch.nn.Buffer(torch.ones(1))
    module.hidden = torch.nn.Buffer(torch.ones(1), persistent=False)
    assert [name for name, _ in module.named_buffers()] == ["state", "hidden"]
    assert list(module.state_dict()) == ["state"]


def test_containers(torch):
    nn = torch.nn
    layers = nn.Sequential(nn.ReLU(), nn.Tanh())
    layers.append(nn.Identity()).insert(0, nn.Sigmoid())
    assert [type(m).__name__ for m in layers] == ["Sigmoid", "ReLU", "Tanh", "Identity"]
    assert type(layers.pop(1)).__name__ == "ReLU"
    del layers[0]
    assert list(layers._modules) == ["0", "1"]
    assert type(layers[-1]).__name__ == "Identity"
    assert len(layers[:1]) == 1
    assert len(layers + layers) == 4
    assert len(layers * 3) == 6
    modules = nn.ModuleList([nn.ReLU()])
    modules += [nn.Tanh(), nn.Tanh()]
    modules[0] = nn.Sigmoid()
    assert [type(m).__name__ for m in modules[0:2]] == ["Sigmoid", "Tanh"]
    named = nn.ModuleDict({"a": nn.ReLU()})
    named.update({"b": nn.Tanh()})
    assert list(named) == ["a", "b"]
    assert "a" in named
    assert type(named.pop("a")).__name__ == "ReLU"
    values = nn.ParameterList([torch.ones(1), torch.ones(2)])
    assert [len(v) for v in values] == [1, 2]
    assert len(list(values.parameters())) == 2
    table = nn.ParameterDict({"x": torch.ones(3)})
    assert isinstance(table["x"], nn.Parameter)
    assert list(table.state_dict()) == ["x"]
