"""Sizes that vary: one program serves them all, and what the program depends on is checked."""

from __future__ import annotations

import math

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.compile import differentiable
from flambeau.compile.dynamic import mark_dynamic, mark_static

F = nn.functional


def captures(function) -> list[str]:
    return [line for line in function.explain().splitlines() if "captured (" in line]


def kept(function) -> int:
    return sum("not kept" not in line for line in captures(function))


def agree(function, cases, most: int = 2, close: float = 1e-5) -> None:
    """`function` and its compiled form give equal results, from at most so many captures."""
    compiled = torch.compile(function, fullgraph=True)
    with torch.no_grad():
        for args in cases:
            got, wanted = compiled(*args), function(*args)
            for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, wanted)),
                            strict=True):
                if isinstance(b, torch.Tensor):
                    assert type(a._ptr) is int
                    assert all(type(n) is int for n in (*a.shape, *a.stride()))
                    torch.testing.assert_close(a, b, rtol=close, atol=close)
                else:
                    assert a == b
                    assert type(a) is type(b)
    assert kept(compiled) <= most, compiled.explain()


def rows(*sizes, width: int = 6):
    return [(torch.randn(n, width),) for n in sizes]


# ---------------------------------------------------------------------- steps of training
def trained(make, batches, most: int = 2) -> None:
    """Steps of two equal models, one compiled: equal losses, and as many programs as said."""
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = make()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
            loss.backward()
            optimizer.step()
            return loss

        run = torch.compile(step) if compiled else step
        losses.append([float(run(x, y)) for x, y in batches])
        if compiled:
            assert kept(run) <= most, run.explain()
    for a, b in zip(*losses, strict=True):
        assert math.isclose(a, b, rel_tol=1e-4), losses


def in_rows():
    return nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4)), (8,)


def in_planes():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)), (3, 8, 8)


@pytest.mark.parametrize("make", [in_rows, in_planes])
def test_gradients_computed_later_serve_all_sizes(make, monkeypatch):
    model, shape = make()
    compiled = torch.compile(model)
    planned = []
    plan_cache = differentiable.plan_cache
    plan = plan_cache.planned
    monkeypatch.setattr(plan_cache, "planned", lambda *args: planned.append(1) or plan(*args))
    for n in (6, 7, 9, 16, 5, 31):
        x, y = torch.randn(n, *shape), torch.randint(0, 4, (n,))
        wanted = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        model.zero_grad()
        F.cross_entropy(compiled(x), y).backward()
        for p, gradient in zip(model.parameters(), wanted, strict=True):
            torch.testing.assert_close(p.grad, gradient, rtol=1e-5, atol=1e-6)
        if n == 9:
            planned.clear()
    assert kept(compiled) == 2, compiled.explain()
    assert not planned


@pytest.mark.parametrize("gradient", [
    torch.ones_like, lambda y: torch.randn(y.shape[1], y.shape[0]).t(),
    lambda y: torch.ones(()).expand_as(y), lambda y: torch.randn(y.shape[0], 8)[:, ::2]])
def test_gradients_of_any_layout_serve_all_sizes(gradient):
    layer = nn.Linear(8, 4)
    compiled = torch.compile(layer)
    for n in (6, 7, 9, 16, 5):
        x = torch.randn(n, 8)
        given = gradient(layer(x).detach())
        wanted = torch.autograd.grad(layer(x), list(layer.parameters()), given)
        got = torch.autograd.grad(compiled(x), list(layer.parameters()), given)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        x = F.adaptive_avg_pool2d(F.relu(self.second(x)), 1)
        return self.last(x.view(x.size(0), -1))


class Block(nn.Module):
    def __init__(self, width: int = 16, heads: int = 2, fused: bool = True):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.qkv(self.norm(x)).split(width, dim=2)
        q, k, v = (t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
                   for t in parts)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(k.size(-1)))
            mask = torch.tril(torch.ones(length, length)).view(1, 1, length, length)
            y = F.softmax(scores.masked_fill(mask == 0, float("-inf")), dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).contiguous().view(batch, length, width))
        return x + self.down(F.gelu(self.up(self.after(x))))


class Transformer(nn.Module):
    def __init__(self, fused: bool = True):
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(64, 16)
        self.block, self.last = Block(fused=fused), nn.Linear(16, 20)

    def forward(self, words):
        _, length = words.size()
        x = self.words(words) + self.places(torch.arange(0, length, dtype=torch.long))
        return self.last(self.block(x))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(20, 8), nn.Linear(12, 5)
        self.layer = nn.LSTM(8, 12, batch_first=True)

    def forward(self, words):
        y, _ = self.layer(self.words(words))
        return self.last(y[:, -1])


def test_last_small_batch():
    def perceptron():
        return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 5))

    def batches(*shape):
        return [(torch.randn(n, *shape), torch.randint(0, 5, (n,)))
                for n in (8, 8, 8, 3, 8, 8, 3, 5)]

    trained(perceptron, batches(6))
    trained(Small, batches(3, 8, 8))


@pytest.mark.parametrize("fused", [True, False])
def test_lengths_transformer(fused):
    lengths = [9, 9, *range(4, 24)]
    batches = [(torch.randint(0, 20, (2, n)), torch.randint(0, 20, (2, n))) for n in lengths]
    trained(lambda: Transformer(fused), batches)


def test_lengths_recurrent():
    trained(Recurrent, [(torch.randint(0, 20, (4, n)), torch.randint(0, 5, (4,)))
                        for n in (9, 9, *range(3, 23))])


# ---------------------------------------------------------------------- sizes in Python
@pytest.mark.parametrize("function", [
    lambda x: x.view(x.size(0), -1) * 2,
    lambda x: x[:, : x.shape[1] // 2].sum(1),
    lambda x: x[: x.shape[0] // 2] + 1,
    lambda x: x[-1] + x[x.size(0) - 2],
    lambda x: x / math.sqrt(x.size(-1)),
    lambda x: x.sum() / x.shape[0],
    lambda x: x.reshape(-1) * (1.0 / x.numel()),
    lambda x: torch.arange(x.size(0)) * 2 + torch.arange(0, 2 * x.size(0), 2),
    lambda x: torch.zeros(x.size(0), 3) + torch.ones(x.size(0), 1) * x.mean(),
    lambda x: torch.cat([x, x[:1], torch.full((x.shape[0], 6), 2.0)]),
    lambda x: x.unsqueeze(0).expand(3, *x.shape).reshape(3 * x.size(0), -1),
    lambda x: (x.transpose(0, 1).contiguous(), x.t().reshape(-1)),
    lambda x: x.softmax(0) @ x.t(),
    lambda x: x.mean(0) + x.var(0) + x.max(0).values,
    lambda x: F.pad(x, (1, 1, 2, 0)).cumsum(0),
    lambda x: x.flip(0).sort(0).values,
    lambda x: (x, x.size(0), x.shape[0] * 2 + 1),
    lambda x: torch.stack(list(x.split(2, dim=1))).flatten(1),
], ids=range(18))
def test_python_arithmetic(function):
    agree(function, rows(7, 5, 12, 9, 5, 20))


KINDS = {
    "resize": lambda x: F.interpolate(x[None, None], scale_factor=2.0, mode="bilinear"),
    "chunks": lambda x: torch.cat([part * 2 for part in x.chunk(2)]),
    "linspace": lambda x: torch.linspace(0, 1, x.shape[0])[:, None] * x,
    "rolled": lambda x: torch.roll(x, 2, 0) + torch.flip(x, (0,)),
    "repeated": lambda x: x.repeat(2, 3) + x.tile(2, 3),
    "unfolded": lambda x: x.unfold(0, 3, 1).sum(-1),
    "identity": lambda x: torch.eye(x.shape[0]) @ x + torch.triu(x, 1),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    "normalised": lambda x: F.layer_norm(x, x.shape[1:]) + F.group_norm(x.t()[None], 2)[0].t(),
    "low": lambda x: (x.bfloat16() @ x.bfloat16().t()).float(),
    "complex": lambda x: torch.view_as_complex(x.reshape(-1, 2)).abs().sum(),
    "chosen": lambda x: torch.where(x > 0, x, x.mean()).topk(2, dim=0).values,
    "scattered": lambda x: torch.zeros(3, 6).index_add(0, torch.arange(x.shape[0]) % 3, x),
    "equation": lambda x: torch.einsum("ij,kj->ik", x, x * 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_operations(kind):
    agree(KINDS[kind], rows(8, 5, 6, 12, 20, 33, 64, 3, 100), most=4, close=1e-4)


def test_branches_are_guarded():
    def branching(x):
        return x * 2 if x.shape[0] > 8 else x + 1

    compiled = torch.compile(branching)
    for n in (4, 5, 6, 7, 8, 9, 30, 5):
        x = torch.randn(n, 3)
        torch.testing.assert_close(compiled(x), branching(x))
    assert kept(compiled) == 3  # one for size 4, one up to 8, one above


def test_specialised_by_range():
    def looping(x):
        total = x[0]
        for i in range(1, x.size(0)):
            total = total * 0.5 + x[i]
        return total

    agree(looping, rows(4, 3, 5, 3), most=3)


def test_zero_and_one():
    def function(x, y):
        return (x + y).sum(0)

    cases = [(torch.randn(n, 4), torch.randn(m, 4))
             for n, m in ((5, 5), (7, 7), (1, 7), (0, 0), (9, 9), (1, 1), (3, 1), (6, 1))]
    agree(function, cases, most=8)


def test_broadcasting():
    def function(x, y):
        return x * y[:, None] + x.mean(0)

    agree(function, [(torch.randn(n, 3), torch.randn(n)) for n in (4, 6, 3, 8)], most=2)


def test_equal_sizes_share_a_symbol_and_part_again():
    def function(x, y):
        return x.sum(1) + y.sum(0) if x.shape[0] == y.shape[1] else x.sum() + y.sum()

    agree(function, [(torch.randn(n, 3), torch.randn(3, m))
                     for n, m in ((4, 4), (5, 5), (6, 6), (4, 7), (5, 6), (8, 8))], most=4)


def test_growing_cache():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x, keys, values):
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            keys, values = torch.cat([keys, k], 1), torch.cat([values, v], 1)
            weights = (q @ keys.transpose(1, 2) / math.sqrt(keys.size(-1))).softmax(-1)
            return weights @ values, keys, values

    torch.manual_seed(0)
    model = Attention()
    compiled = torch.compile(model)
    with torch.no_grad():
        cache = eager = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
        for _ in range(20):
            x = torch.randn(2, 1, 8)
            y, *cache = compiled(x, *cache)
            z, *eager = model(x, *eager)
            torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
    assert cache[0].shape == (2, 23, 8)
    assert kept(compiled) == 2, compiled.explain()


def test_writes_through_views():
    def function(x):
        y = x.clone()
        y[1:] += x[:-1]
        y[:, 0] = 3
        y[y.size(0) // 2] *= 2
        return y

    agree(function, rows(7, 5, 12, 9))


def test_inputs_are_written():
    def function(x):
        x[: x.shape[0] // 2].mul_(2)
        return x.sum()

    compiled = torch.compile(function)
    for n in (6, 4, 9, 12):
        x = torch.arange(n * 2.0).view(n, 2)
        other = x.clone()
        torch.testing.assert_close(compiled(x), function(other))
        torch.testing.assert_close(x, other)
    assert kept(compiled) == 2


def test_gradient_afterwards():
    torch.manual_seed(0)
    model = Block()
    compiled = torch.compile(model)
    for n in (5, 5, 7, 4, 9):
        x = torch.randn(2, n, 16, requires_grad=True)
        grads = []
        for run in (model, compiled):
            model.zero_grad()
            x.grad = None
            run(x).square().sum().backward()
            grads.append([x.grad, *(p.grad for p in model.parameters())])
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert kept(compiled) == 2, compiled.explain()


def test_random_sizes():
    def function(x):
        return F.dropout(x, 0.5, True) + torch.rand(x.shape[0], 1)

    compiled = torch.compile(function)
    for n in (6, 4, 9, 12):
        x = torch.randn(n, 5)
        torch.manual_seed(n)
        got = compiled(x)
        torch.manual_seed(n)
        torch.testing.assert_close(got, function(x))
    assert kept(compiled) == 2


def test_exact_programs_round_as_those_of_one_size():
    def function(x):
        return (F.layer_norm(x, (64,)).exp().sum(0) / x.shape[0]).tanh() @ x.mean(0)

    single, varying = (torch.compile(function, options={"exact": True}, dynamic=dynamic)
                       for dynamic in (False, None))
    for n in (40, 33, 700, 50, 36, 35, 1400, 37):
        x = torch.randn(n, 64)
        single(x), varying(x)  # the first call with a size may run eagerly
        assert torch.equal(single(x), varying(x)), n
    assert kept(varying) == 2


def test_many_sizes_are_let_go():
    compiled = torch.compile(lambda x: x.sum(0) * 2)
    for n in range(2, 300):
        compiled(torch.randn(n, 3))
    assert sum(map(len, compiled.programs.values())) <= 258
    assert kept(compiled) == 2


# ---------------------------------------------------------------------- what users may say
def test_marks():
    compiled = torch.compile(lambda x: x * 2)
    x = torch.randn(5, 3)
    mark_dynamic(x, 0)
    for each in (x, torch.randn(7, 3), torch.randn(9, 3)):
        compiled(each)
    assert kept(compiled) == 1
    compiled = torch.compile(lambda x: x * 2)
    for n in (5, 7, 9):
        x = torch.randn(n, 3)
        mark_static(x, 0)
        compiled(x)
    assert kept(compiled) == 3
    with pytest.raises(IndexError, match="dimension 2"):
        mark_dynamic(x, 2)


def test_dynamic_argument():
    always = torch.compile(lambda x: x * 2, dynamic=True)
    never = torch.compile(lambda x: x * 2, dynamic=False)
    for n in (5, 7, 9):
        always(torch.randn(n, n + 1))
        never(torch.randn(n, 3))
    assert (kept(always), kept(never)) == (1, 3)


def test_limit_is_told():
    def stubborn(x):
        return x * int(x.shape[0])

    compiled = torch.compile(stubborn)
    for n in range(2, 16):
        x = torch.randn(n, 2)
        torch.testing.assert_close(compiled(x), stubborn(x))
    told = compiled.explain()
    assert "size(0, 0) == " in told
    assert "test_dynamic.py" in told


def test_arguments_keep_their_layouts():
    seen = []

    def function(x):
        seen.append(x[1:])
        return x + 1

    compiled = torch.compile(function)
    for n in (3, 4, 5):
        x = torch.randn(n, 2)
        y = compiled(x)
        assert type(x.shape[0]) is type(y.shape[0]) is int
    assert {type(n) for x in seen for n in (*x.shape, x._ptr)} == {int}


def test_error_in_the_function():
    def function(x):
        if x.shape[0] == 4:
            raise ValueError("four")
        return x * 2

    compiled = torch.compile(function)
    compiled(torch.randn(3, 2))
    x = torch.randn(4, 2)
    with pytest.raises(ValueError, match="four"):
        compiled(x)
    assert type(x.shape[0]) is int
    assert compiled(torch.randn(5, 2)).shape == (5, 2)
