"""vmap gives what a loop over the examples gives: views, indexing, writes, nesting, draws."""

from __future__ import annotations

import pytest

import flambeau as torch
import flambeau.nn.functional as F
from flambeau.func import grad, jacrev, jvp, vjp, vmap

W = torch.linspace(-1, 1, 12).reshape(3, 4)


def _written(x):
    y = x * 2
    y[0] = x[1] * x[2]
    y[1:].mul_(x[0])
    y.t().add_(1)
    return y


def _filled(x):
    out = torch.zeros_like(x)
    out[:, 1] = x[:, 0]
    out.view(-1)[3:5] = 7
    out.masked_fill_(x > 0.5, -1)
    return out


def _picked(x):
    place = x.argmax(1)
    return x.gather(1, place[:, None]), x[torch.arange(3), place], W[:, place]


def _scattered(x):
    place = x.argsort(1)
    return torch.zeros_like(x).scatter_(1, place, x), x.new_zeros(4, 4).index_add_(
        0, place[0, :3], x)


def _put(x):
    y = x.clone()
    y[torch.tensor([0, 2]), torch.tensor([1, 1])] = x[0, :2]
    y.index_put_((torch.tensor([1]),), x[:1], accumulate=True)
    return y


FUNCTIONS = {
    "views": lambda x: (x.t(), x.reshape(2, 6), x.flatten(), x[None], x[..., 1], x[1:, ::2],
                        x.unsqueeze(-1).expand(3, 4, 2), x.permute(1, 0), x.unfold(1, 2, 1),
                        x.diagonal(), x.movedim(0, 1), x.T, x.mT, x.squeeze(),
                        x.chunk(2, 1)[1], x.split(2, 1)[0], x.unbind(0)[2], x.narrow(1, 1, 2)),
    "strided": lambda x: torch.as_strided(x.contiguous(), (2, 3), (1, 4), 1),
    "iteration": lambda x: sum(row * n for n, row in enumerate(x)),
    "reductions": lambda x: (x.sum(), x.mean(0), x.amax(1), x.std(), x.norm(), x.prod(1),
                             x.max(0), x.logsumexp(0), x.var(1, keepdim=True), x.any(), x.all(1),
                             x.median(1), x.argmin(), x.cummax(1), x.sort(0), x.topk(2, 1),
                             x.count_nonzero()),
    "products": lambda x: (x @ W.T, W.T @ x, x @ x.T, torch.mv(W, x[0]), torch.dot(x[0], x[1]),
                           torch.outer(x[0], x[1]), torch.einsum("ij,kj->ik", x, W),
                           torch.addmm(x[:, :3], x, W.T), F.linear(x, W), torch.bmm(
                               x[None], W.T[None])),
    "mixed": lambda x: (torch.cat([x, W]), torch.stack([W, x], 1), torch.where(x > 0, x, W),
                        torch.where(W > 0, x, 0.0), x + W[0], W - x, torch.maximum(x, W), x ** 2,
                        2 ** x, x / W.exp(), x.clamp(-0.5, 0.5), F.pad(x, (1, 2)), x.roll(1, 1),
                        x.flip(0), x.repeat(2, 1), x.tril(), x.cumsum(0), x.to(torch.float64),
                        x > 0, (x > 0) & (W > 0), x.long(), torch.lerp(x, W, 0.3)),
    "new": lambda x: (torch.ones_like(x) + x, x.new_full((2,), 3.0) * x[0, 0], torch.full_like(
        x, 2.0), x.new_tensor([1.0, 2.0]) + x[0, 0], torch.arange(4) * x),
    "written": _written, "filled": _filled, "picked": _picked, "scattered": _scattered, "put": _put,
    "images": lambda x: (F.conv1d(x[None], W[:, None, :2].expand(3, 3, 2)),
                         F.max_pool1d(x[None], 2), F.avg_pool1d(x, 2), F.interpolate(
                             x[None, None], scale_factor=2.0, mode="bilinear"),
                         F.conv_transpose1d(x[None], W[:, None, :2]), F.unfold(x[None, None], 2)),
    "network": lambda x: (F.layer_norm(x, (4,)), F.softmax(x, 0), F.gelu(x), F.group_norm(
        x[None], 3), F.cross_entropy(x, torch.tensor([0, 1, 2])), F.one_hot(x.argmax(1), 4),
        F.scaled_dot_product_attention(x[None], x[None], x[None]), F.embedding(
            x.argmax(1), W.T), F.normalize(x, dim=1), F.mse_loss(x, W), F.glu(x, 1)),
    "constant": lambda x: (W * 2, x),
}


def _flat(tree):
    return [leaf for item in tree for leaf in _flat(item)] if isinstance(tree, tuple) else [tree]


def _close(found, wanted):
    found, wanted = _flat(found), _flat(wanted)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape and a.dtype is b.dtype
        assert torch.allclose(a, b, 1e-4, 1e-5, equal_nan=True)


def _loop(function, examples):
    rows = [_flat(function(x)) for x in examples]
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_a_loop(name, dim):
    torch.manual_seed(0)
    examples = [torch.randn(3, 4) for _ in range(5)]
    _close(vmap(FUNCTIONS[name], in_dims=dim)(torch.stack(examples, dim)),
           _loop(FUNCTIONS[name], examples))


@pytest.mark.parametrize("name", ["written", "put", "products", "network", "images"])
def test_gradients_as_a_loop(name):
    def total(x):
        return sum(y.sin().sum() for y in _flat(FUNCTIONS[name](x)) if y.is_floating_point())

    torch.manual_seed(0)
    examples = torch.randn(4, 3, 4)
    wanted = torch.stack([grad(total)(x) for x in examples])
    _close(vmap(grad(total))(examples), wanted)
    _close(grad(lambda xs: vmap(total)(xs).sum())(examples), wanted)
    moved = torch.stack([jvp(total, (x,), (x,))[1] for x in examples])
    _close(vmap(lambda x: jvp(total, (x,), (x,))[1])(examples), moved)
    _close(jvp(vmap(total), (examples,), (examples,))[1], moved)


def test_dims():
    x, y = torch.randn(5, 3), torch.randn(3, 5)
    _close(vmap(torch.mul, (0, 1))(x, y), x * y.T)
    _close(vmap(torch.mul, (0, None), 1)(x, y[:, 0]), (x * y[:, 0]).T)
    _close(vmap(lambda d, n: d["a"] * n + d["b"][0], ({"a": 0, "b": [None]}, None))(
        {"a": x, "b": [y[:, 1]]}, 2), x * 2 + y[:, 1])
    found = vmap(lambda a: {"p": a, "q": (a.sum(), a)}, out_dims={"p": 1, "q": (0, -1)})(x)
    _close((found["p"], *found["q"]), (x.T, x.sum(1), x.T))
    _close(vmap(vmap(torch.mul, (0, None)), (None, 0))(x[0], x[1]), torch.outer(x[1], x[0]))
    assert vmap(lambda a: a)(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
def test_chunks(chunk):
    x = torch.randn(5, 3)
    _close(vmap(lambda a: (a * 2, a.sum()), chunk_size=chunk)(x), (x * 2, x.sum(1)))
    _close(jacrev(lambda a: a.sin() * 2, chunk_size=chunk)(x[0]), torch.diag(x[0].cos() * 2))


def test_an_example_is_what_it_looks_like():
    def seen(x):
        assert x.shape == (3, 4) and x.dim() == 2 and x.size(1) == 4 and len(x) == 3
        assert x.stride() == (4, 1) and x.is_contiguous() and x.numel() == 12
        assert "BatchedTensor(lvl=1, bdim=0" in repr(x) and isinstance(x, torch.Tensor)
        return x

    vmap(seen)(torch.zeros(2, 3, 4))


ERRORS = {
    "item": (lambda x: x.sum().item(), RuntimeError, r"\.item\(\)"),
    "branch": (lambda x: x if x.sum() > 0 else -x, RuntimeError, "data-dependent control flow"),
    "numpy": (lambda x: x.numpy(), RuntimeError, "doesn't have storage"),
    "mask": (lambda x: x[x > 0], RuntimeError, "dynamic shape"),
    "nonzero": (lambda x: x.nonzero(), RuntimeError, "dynamic shape"),
    "captured": (lambda x: W.add_(x), RuntimeError, "not possible because there exists a Tensor"),
    "out": (lambda x: torch.add(x, 1, out=torch.zeros(3, 4)), RuntimeError, "out="),
    "backward": (lambda x: x.sum().backward(), RuntimeError, "inside a functorch transform"),
    "leaf": (lambda x: x.requires_grad_(), RuntimeError, "requires_grad_"),
    "random": (lambda x: torch.rand(3), RuntimeError, "randomness error mode"),
    "result": (lambda x: 3, ValueError, "must only return Tensors"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    function, kind, text = ERRORS[name]
    with pytest.raises(kind, match=text):
        vmap(function)(torch.randn(2, 3, 4))


def test_wrong_arguments():
    x = torch.zeros(2, 3)
    for dims, text in ((2, "expected in_dim to satisfy"), ("a", "expected `in_dims`"),
                       ((0, 0), "not compatible"), ((0.5,), "must be either an integer")):
        with pytest.raises(ValueError, match=text):
            vmap(torch.sin, in_dims=dims)(x)
    with pytest.raises(ValueError, match="same size"):
        vmap(torch.add)(x, x[:1])
    with pytest.raises(ValueError, match="got no inputs"):
        vmap(torch.sin)()
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(torch.sin, randomness="some")
    with pytest.raises(ValueError, match="chunk_size"):
        vmap(torch.sin, chunk_size=0)
    with pytest.raises(IndexError, match="out of range"):
        vmap(torch.sin, out_dims=3)(x)
    with pytest.raises(ValueError, match="can not return a BatchedTensor"):
        vmap(torch.sin, out_dims=None)(x)


def test_escaped_tensors_refuse():
    kept = []
    vmap(lambda x: kept.append(x * 2) or x)(torch.ones(2, 3))
    assert kept[0].shape == (3,)
    for use in (lambda t: t + 1, lambda t: t[0], lambda t: t.sum(), lambda t: t.add_(1)):
        with pytest.raises(RuntimeError, match="escaped"):
            use(kept[0])
    assert torch.ones(3).add(1)[0] == 2


def test_random_numbers():
    x = torch.full((4, 3), 0.5)
    torch.manual_seed(3)
    wanted = torch.rand(4, 3)
    torch.manual_seed(3)
    assert torch.equal(vmap(lambda a: torch.rand(3) + a * 0, randomness="different")(x), wanted)
    torch.manual_seed(3)
    one = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(vmap(lambda a: torch.rand(3) + a * 0, randomness="same")(x),
                       one.expand(4, 3))
    for make in (torch.rand_like, torch.randn_like, torch.bernoulli, F.dropout,
                 lambda a: torch.normal(a, 1.0), lambda a: a.new_empty(3).uniform_(),
                 lambda a: torch.multinomial(a, 2), lambda a: F.gumbel_softmax(a),
                 lambda a: torch.randperm(9), lambda a: torch.randint(0, 99, (5,))):
        rows = vmap(make, randomness="different")(x)
        assert len({tuple(row.tolist()) for row in rows}) > 1
        if make is not torch.bernoulli and "multinomial" not in str(make.__code__.co_names):
            rows = vmap(make, randomness="same")(x)
            assert len({tuple(row.tolist()) for row in rows}) == 1


def test_history_inside_and_outside():
    w = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = torch.linspace(0, 1, 6).reshape(2, 3)
    vmap(lambda a: (a * w).sin())(x).sum().backward()
    assert torch.allclose(w.grad, (x * (x * w).cos()).sum(0))
    inner = vmap(lambda a: grad(lambda v: (v * a).sin().sum())(w))(x)  # of a captured leaf
    assert inner.requires_grad and torch.allclose(inner, x * (x * w).cos())
    with torch.no_grad():
        assert not vmap(lambda a: a * w)(x).requires_grad
    plain = vmap(lambda a: vjp(torch.sin, a)[1](a)[0])(x)
    assert not plain.requires_grad and torch.allclose(plain, x.cos() * x)


def test_an_index_of_each_example():
    x = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(vmap(lambda i: x[i])(torch.tensor([2, 0])), x[torch.tensor([2, 0])])


def test_around_compiled_functions():
    def function(x):
        return x.sin() * x.sum()

    compiled, x = torch.compile(function), torch.randn(4, 3)
    for _ in range(3):
        compiled(x[0])
    _close(vmap(compiled)(x), torch.stack([function(one) for one in x]))
    _close(jacrev(compiled)(x[0]), jacrev(function)(x[0]))
    _close(jvp(compiled, (x[0],), (x[1],))[1], jvp(function, (x[0],), (x[1],))[1])


def test_compiled():
    def rows(x):
        return vmap(grad(lambda a: (a.sin() * W).sum()))(x)

    x = torch.randn(2, 3, 4)
    compiled = torch.compile(rows, fullgraph=True)
    for _ in range(3):
        _close(compiled(x), rows(x))
