"""Views of tensors whose channels are innermost in memory are captured, read and written."""

from __future__ import annotations

import flambeau as torch
from flambeau import nn


class Halves(nn.Module):
    """A block that parts its channels, as detectors do."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False)

    def forward(self, x):
        a, b = self.first(x).chunk(2, 1)
        return torch.cat([a, b, torch.relu(self.inner(b)) + b], 1)


def trained(compiled: bool) -> list[float]:
    torch.manual_seed(0)
    net = Halves().to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(2, 3, 10, 10).contiguous(memory_format=torch.channels_last)

    def step(x):
        sgd.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        sgd.step()
        return loss

    run = torch.compile(step, fullgraph=True) if compiled else step
    losses = [run(x).item() for _ in range(6)]
    if compiled:
        assert any("captured" in line and "not kept" not in line for line in run.history)
    return losses


def test_a_whole_step():
    eager, compiled = trained(False), trained(True)
    assert all(abs(a - b) <= 1e-5 * abs(a) for a, b in zip(eager, compiled, strict=True))


def test_parts_are_read_and_written():
    def change(x):
        y = x * 2
        middle = y[:, 1:3, 2:, ::2]
        middle.add_(1)
        y.permute(0, 2, 3, 1)[..., 0] = 5
        return y, middle.sum()

    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(change, fullgraph=True)
    for _ in range(3):
        expected, found = change(x), compiled(x)
        assert torch.equal(expected[0], found[0])
        assert found[0].stride() == expected[0].stride()
        assert torch.allclose(expected[1], found[1])
