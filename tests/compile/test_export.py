"""torch.export: a module's forward as a program with its state as inputs."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.compile import CaptureError
from flambeau.export import Dim, dims


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x, *, scale=None):
        y = torch.relu(self.norm(self.layer(x)))
        return {"y": y if scale is None else y * scale}


def test_program_gives_what_the_module_gives():
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(4, 3)
    program = torch.export.export(model, (x,), {"scale": torch.ones(2)})
    module = program.module()
    for _ in range(3):
        given = torch.randn(4, 3)
        found = module(given, scale=torch.full((2,), 3.0))["y"]
        assert torch.allclose(found, model(given, scale=torch.full((2,), 3.0))["y"])
    with pytest.raises(RuntimeError, match=r"exported_program\.module\(\)"):
        program(x)
    assert list(module.state_dict()) == list(model.state_dict()) == list(program.state_dict)
    assert [n for n, _ in program.named_parameters()] == [n for n, _ in model.named_parameters()]


def test_signature_and_text():
    program = torch.export.export(Net(), (torch.randn(4, 3),))
    signature = program.graph_signature
    assert set(signature.parameters) == {"layer.weight", "layer.bias", "norm.weight", "norm.bias"}
    assert set(signature.buffers_to_mutate) == {
        "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert signature.user_inputs == [0]
    assert signature.user_outputs == 1
    text = str(program)
    assert "parameter layer.weight" in text
    assert "input 0" in text
    assert "kernels" in program.explain()


def test_running_statistics_are_updated():
    torch.manual_seed(0)
    model = Net()
    program = torch.export.export(model, (torch.randn(4, 3),))
    before = int(model.norm.num_batches_tracked)
    program.module()(torch.randn(4, 3))
    assert int(model.norm.num_batches_tracked) == before + 1


def test_program_can_be_trained():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    module = torch.export.export(model, (torch.randn(4, 3),)).module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x, losses = torch.ones(4, 3), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = module(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_sizes_are_checked_and_may_vary():
    model = nn.Linear(3, 2)
    fixed = torch.export.export(model, (torch.ones(4, 3),)).module()
    with pytest.raises(RuntimeError, match=r"args\[0\]\.shape\[0\] to be equal to 4, but got 5"):
        fixed(torch.ones(5, 3))
    with pytest.raises(RuntimeError, match="float64"):
        fixed(torch.ones(4, 3, dtype=torch.float64))
    for shapes in ({"input": {0: Dim("batch", min=2, max=9)}}, ({0: Dim("batch", min=2, max=9)},),
                   [(Dim("batch", min=2, max=9), None)]):
        program = torch.export.export(model, (torch.ones(4, 3),), dynamic_shapes=shapes)
        module = program.module()
        for size in (4, 7, 2, 9):
            x = torch.randn(size, 3)
            assert torch.allclose(module(x), model(x))
        with pytest.raises(RuntimeError, match="in the range"):
            module(torch.ones(10, 3))
        with pytest.raises(RuntimeError, match=r"shape\[1\]"):
            module(torch.ones(4, 2))
        assert program.range_constraints == {"batch": (2, 9)}
    auto = torch.export.export(model, (torch.ones(4, 3),),
                               dynamic_shapes={"input": {0: Dim.AUTO, 1: Dim.STATIC}}).module()
    assert auto(torch.ones(6, 3)).shape == (6, 2)


def test_equal_names_mean_equal_sizes():
    class Add(nn.Module):
        def forward(self, a, b):
            return a.sum(1) + b.sum(1)

    rows, columns = dims("rows", "columns")
    module = torch.export.export(Add(), (torch.ones(3, 2), torch.ones(3, 4)), dynamic_shapes={
        "a": {0: rows}, "b": {0: rows, 1: columns}}).module()
    assert module(torch.ones(5, 2), torch.ones(5, 6)).tolist() == [8.0] * 5
    with pytest.raises(RuntimeError, match=r"equal to args\[0\]\.shape\[0\], which is 5"):
        module(torch.ones(5, 2), torch.ones(4, 6))


def test_what_is_refused():
    class Reads(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum().item() > 0 else x

    class Asks(nn.Module):
        def forward(self, x):
            return x * 2 if torch.compiler.is_exporting() else x

    x = torch.ones(2)
    with pytest.raises(CaptureError, match="reading"):
        torch.export.export(Reads(), (x,))
    assert torch.export.export(Asks(), (x,)).module()(x).tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"instance of `torch\.nn\.Module`"):
        torch.export.export(lambda x: x, (x,))
    with pytest.raises(ValueError, match="tuple of example"):
        torch.export.export(Asks(), x)
    with pytest.raises(ValueError, match="no argument"):
        torch.export.export(Asks(), (x,), dynamic_shapes={"y": {0: Dim("n")}})
    with pytest.raises(ValueError, match="must map dimensions"):
        torch.export.export(Asks(), (x,), dynamic_shapes={"x": {3: Dim("n")}})
    with pytest.raises(NotImplementedError, match="train"):
        torch.export.export(Asks(), (x,)).module().eval()
    for missing in (lambda: torch.export.export(Asks(), (x,)).graph_module,
                    lambda: torch.export.save(None, "f"), lambda: torch.export.load("f")):
        with pytest.raises(NotImplementedError):
            missing()
