"""`explain`, `graph_html` and `torch.compiler.plan`: what is said is what is."""

from __future__ import annotations

import gc
import json
import re

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.last = nn.Linear(32, 5)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


def training_step(net, compiled=True):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return torch.compile(step) if compiled else step


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net = Net()
    step = training_step(net)
    x, y = torch.randn(8, 16), torch.randint(0, 5, (8,))
    for _ in range(4):
        step(x, y)
    return net, step, x, y


def test_kernels_have_operations_modules_and_lines(trained):
    text = trained[1].explain(times=False)
    assert "for float32[8, 16], int64[8]" in text
    assert "product [8, 16] x [16, 32] -> [8, 32]" in text
    assert re.search(r"linear, relu +\(Net, test_explain.py:\d+: return self.last", text)
    assert re.search(r"gradient of linear +\(Net.first, test_explain", text)
    assert re.search(r"\(SGD.step, test_explain.py:\d+: optimizer.step", text)
    assert "memory: arguments and state" in text and "most are needed at kernel" in text


def test_times_and_shares(trained):
    text = trained[1].explain()
    assert re.search(r"us in kernels: forward \d+ %, backward \d+ %, optimizer \d+ %", text)
    shares = [int(n) for n in re.findall(r"us +(\d+) %", text)]
    assert 90 <= sum(shares) <= 110


def test_timing_changes_nothing():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 5))
    step = training_step(net)
    x, y = torch.randn(3, 4), torch.randint(0, 5, (3,))
    for _ in range(4):
        step(x, y)
    before = [t.clone() for t in (*net.parameters(), *[p.grad for p in net.parameters()])]
    versions = [p._version for p in net.parameters()]
    state, peak = torch.get_rng_state(), torch.cpu.max_memory_allocated()
    assert "random numbers" in step.explain()
    assert torch.cpu.max_memory_allocated() == peak
    assert torch.equal(torch.get_rng_state(), state)
    assert versions == [p._version for p in net.parameters()]
    after = [*net.parameters(), *[p.grad for p in net.parameters()]]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_recompile_says_why():
    scale = [2.0]
    compiled = torch.compile(lambda x: x * scale[0])
    compiled(torch.ones(3))
    scale[0] = 3.0
    compiled(torch.ones(3))
    assert "which was 2.0 and is 3.0, has changed" in compiled.explain(times=False)


def test_module_with_a_later_backward():
    net = Net()
    compiled = torch.compile(net)
    for _ in range(3):
        compiled(torch.randn(8, 16)).sum().backward()
    text = compiled.explain()
    assert "kept for the backward" in text and "its backward (program 1 of 1)" in text
    assert re.search(r"relu \[8, 32\]  \(Net, test_explain", text)


def test_parts_around_python():
    def looks(x):
        y = torch.sin(x) * 2
        if y.sum() > 1e9:
            y = y + 1
        return torch.cos(y) + 1

    compiled = torch.compile(looks)
    for _ in range(4):
        compiled(torch.ones(100))
    text = compiled.explain()
    assert "runs in Python" in text and "test_explain.py" in text and "part 1 of" in text


def test_varying_sizes_are_explained():
    compiled = torch.compile(lambda x: torch.relu(x) * 2)
    for n in (8, 9, 10, 11):
        compiled(torch.randn(n, 4))
    assert "for varying sizes" in compiled.explain()
    assert "program 1 of" in compiled.graph_html()


def test_the_page_is_self_contained(trained, tmp_path):
    path = tmp_path / "step.html"
    html = trained[1].graph_html(path)
    assert path.read_text("utf-8") == html
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<link|src=", html)
    data = json.loads(re.search(r"const DATA = (.*);\n", html)[1])
    kernels = data["programs"][0]["kernels"]
    assert kernels[0]["ops"] == ["linear", "relu"] and kernels[0]["us"] > 0
    assert kernels[1]["from"] == [0]
    assert kernels[0]["listing"][0].startswith("temp")
    assert {k["stage"] for k in kernels} == {"forward", "backward", "optimizer"}


def test_a_page_of_nothing():
    assert "/*DATA*/" not in torch.compile(lambda x: x + 1).graph_html()


# ---------------------------------------------------------------------- plan
class Block(nn.Module):
    def __init__(self, width=64, heads=4):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        b, t, width = x.shape
        qkv = self.qkv(self.norms[0](x)).view(b, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(a.transpose(1, 2).reshape(b, t, width)))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


def mlp():
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(),
                         nn.Linear(64, 10)), torch.randn(128, 64)


def conv():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10)), torch.randn(16, 3, 24, 24)


def transformer():
    return Block(), torch.randn(4, 32, 64)


def squares(y):
    return (y * y).mean()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", ["inference", "training"])
@pytest.mark.parametrize("make", [mlp, conv, transformer])
def test_plan_tells_the_peak(make, kind, compiled):
    gc.collect()
    base = torch.cpu.memory_allocated()
    torch.manual_seed(0)
    model, x = make()
    training = kind == "training"
    optimizer = torch.optim.AdamW(model.parameters()) if training else None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, versions = torch.get_rng_state(), [p._version for p in model.parameters()]
    planned = torch.compiler.plan(model, x, optimizer, squares if training else None,
                                  compiled=compiled)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert versions == [p._version for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert optimizer is None or not optimizer.state
    del before

    def step():
        if not training:
            with torch.no_grad():
                return model(x)
        optimizer.zero_grad()
        loss = squares(model(x))
        loss.backward()
        optimizer.step()
        return loss

    run = torch.compile(step) if compiled else step
    for _ in range(4):
        run()
    gc.collect()
    torch.cpu.reset_peak_memory_stats()
    run()
    measured = torch.cpu.max_memory_allocated() - base
    assert abs(planned.peak - measured) <= 0.1 * measured, (planned.peak, measured)
    parts = (planned.parameters, planned.inputs, planned.gradients, planned.optimizer_state,
             planned.activations, planned.temporaries)
    assert min(parts) >= 0 and abs(sum(parts) - planned.peak) <= 0.02 * planned.peak
    assert (planned.optimizer_state > 0) is training
    assert "holds" in str(planned) and "parameters and buffers" in str(planned)


def test_plan_touches_no_memory():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    x = torch.empty(1 << 28)  # 1 GB that nobody has written to
    torch.compiler.plan(lambda t: t * 2 + 1, x[:100])
    before = resident()
    planned = torch.compiler.plan(lambda t: (t * 2 + 1).sum(), x)
    assert planned.peak >= 3 * x.nbytes and resident() - before < 100 << 20


def test_plan_with_optimizer_state_and_gradients():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(8, 16)).sum().backward()
    optimizer.step()
    grads = [p.grad for p in net.parameters()]
    planned = torch.compiler.plan(net, torch.randn(8, 16), optimizer)
    assert planned.optimizer_state >= sum(p.nbytes for p in net.parameters())
    assert all(p.grad is g for p, g in zip(net.parameters(), grads, strict=True))


def test_plan_of_a_compiled_module():
    net = Net()
    planned = torch.compiler.plan(torch.compile(net), torch.randn(8, 16), None, squares)
    assert planned.peak > 0 and planned.saved > 0


def test_plan_refuses_to_read():
    with pytest.raises(NotImplementedError, match=r"test_explain\.py"):
        torch.compiler.plan(Net(), torch.randn(8, 16), None, lambda y: y.sum() * y.sum().item())
    with pytest.raises(NotImplementedError, match="cannot be captured"):
        torch.compiler.plan(Net(), torch.randn(8, 16), None, lambda y: y.sum() * y.sum().item(),
                            compiled=True)
    with pytest.raises(TypeError, match="pass the module"):
        torch.compiler.plan(lambda x: x, torch.ones(2), None, squares)
    assert float(torch.ones(3).sum()) == 3  # kernels run again


@pytest.mark.parametrize("size", [6, 8])
def test_plan_leaves_other_threads_alone(size):
    import threading

    results = []

    def work():
        results.extend(float(torch.ones(n).sum()) == n for n in range(1, 40))

    thread = threading.Thread(target=work)
    thread.start()
    torch.compiler.plan(Net(), torch.randn(size, 16), None, squares)
    thread.join()
    assert all(results) and len(results) == 39


def test_no_line_of_ours_is_taken_for_the_users():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    compiled = torch.compile(model)
    for _ in range(2):
        compiled(torch.randn(2, 4)).sum().backward()
    told = str(compiled.explain())
    assert "Sequential.0" in told
    assert ".py:" not in told.split("captured", 1)[1]
