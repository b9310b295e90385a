"""Errors say where: the module's path and the user's own line, without our look-ups in caches."""

from __future__ import annotations

import traceback

import pytest


@pytest.fixture
def net(torch):
    nn = torch.nn

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 3)
            self.fc = nn.Linear(4, 5)

        def forward(self, x):
            return self.fc(self.first(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.ModuleList([nn.Identity(), nn.Sequential(Encoder())])

        def forward(self, x):
            return self.encoder[1](x)

    return Net()


def test_module_path_and_line(torch, net):
    with pytest.raises(RuntimeError, match=r"1x3 and 4x5") as caught:
        net(torch.ones(1, 2))
    line, module = caught.value.__notes__
    assert module == "in module encoder.1.0.fc (Linear) of Net"
    assert "return self.fc(self.first(x))" in line and __file__ in line
    text = "".join(traceback.format_exception(caught.value))
    assert text.rstrip().endswith("in module encoder.1.0.fc (Linear) of Net")


def test_module_path_of_a_later_failure(torch, net):
    """Indices are checked by the kernel, on the warm path too."""
    model = torch.nn.Sequential(torch.nn.Embedding(3, 2))
    model(torch.tensor([1]))
    with pytest.raises(IndexError, match="index out of range in self") as caught:
        model(torch.tensor([7]))
    assert caught.value.__notes__[-1] == "in module 0 (Embedding) of Sequential"


@pytest.mark.parametrize("call", [
    lambda torch: torch.ones(2) + torch.ones(3),
    lambda torch: torch.ones(2, 3).sum(5),
    lambda torch: torch.ones(3)[torch.tensor([5])],
    lambda torch: torch.ones(2, 3).transpose(0, 7),
    lambda torch: torch.ones(2).add_(torch.ones(3)),
    lambda torch: torch.tensor([1]) // 0,
])
def test_the_users_line_and_nothing_else(torch, call):
    for _ in range(2):  # cold and warm
        with pytest.raises((RuntimeError, IndexError)) as caught:
            call(torch)
        assert caught.value.__context__ is None
        (line,) = caught.value.__notes__
        assert line.startswith("in your line") and "lambda torch:" in line


def test_both_lines_of_a_changed_tensor(torch):
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    loss = y.exp().mul(y).sum()
    y.add_(1)
    with pytest.raises(RuntimeError) as caught:
        loss.backward()
    text = str(caught.value)
    assert "loss = y.exp().mul(y).sum()" in text and "y.add_(1)" in text
    assert "at version 1; expected version 0" in text
