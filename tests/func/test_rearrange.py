"""`torch.func.rearrange`: einops' notation."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.func import rearrange

X = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize(("pattern", "sizes", "expected"), [
    ("a b c -> c a b", {}, X.transpose(2, 0, 1)),
    ("a b c -> a (b c)", {}, X.reshape(2, 12)),
    ("a b c -> (a b) c", {}, X.reshape(6, 4)),
    ("a b c -> (b a) c", {}, X.transpose(1, 0, 2).reshape(6, 4)),
    ("a b (h w) -> a h b w", {"h": 2}, X.reshape(2, 3, 2, 2).transpose(0, 2, 1, 3)),
    ("a b (h w) -> a h b w", {"w": 4}, X.reshape(2, 3, 1, 4).transpose(0, 2, 1, 3)),
    ("a b c -> a 1 b () c", {}, X[:, None, :, None]),
    ("a ... -> ... a", {}, X.transpose(1, 2, 0)),
    ("a ... -> (...) a", {}, X.reshape(2, 12).T),
    ("... c -> c ...", {}, X.transpose(2, 0, 1)),
    ("a b c ... -> a b ... c", {}, X),
])
def test_patterns(pattern, sizes, expected):
    found = rearrange(torch.tensor(X), pattern, **sizes)
    assert found.numpy().shape == expected.shape and (found.numpy() == expected).all()


def test_lists_are_stacked():
    x = torch.tensor(X)
    assert torch.equal(rearrange([x, x + 1], "n a b c -> a n b c"),
                       torch.stack([x, x + 1], dim=1))


def test_singletons_on_the_left():
    x = torch.zeros(2, 1, 3)
    assert rearrange(x, "a 1 b -> b a").shape == (3, 2)
    assert rearrange(x, "a () b -> b a").shape == (3, 2)
    with pytest.raises(ValueError, match="dimension of size 3"):
        rearrange(x, "a b 1 -> a b")


def test_transforms_and_gradients():
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    rearrange(x, "a b c -> c (b a)").square().sum().backward()
    assert torch.equal(x.grad, 2 * x)
    assert torch.equal(torch.vmap(lambda t: rearrange(t, "b c -> c b"))(x), x.transpose(1, 2))


@pytest.mark.parametrize(("pattern", "sizes", "message"), [
    ("a b c", {}, "needs one '->'"), ("a b c -> a -> b", {}, "needs one '->'"),
    ("a b c -> a b", {}, r"\['c'\] stand on one side"), ("a a c -> a c", {}, "stands twice"),
    ("(a b c -> a b c", {}, "not closed"), ("a (b (c)) -> a b c", {}, "do not pair up"),
    ("a b c) -> a b c", {}, "do not pair up"), ("a b 2 -> a b 2", {}, "only 1"),
    ("a b -> b a", {}, "names 2 dimensions, the tensor has 3"),
    ("a b c d -> d a b c", {}, "names 4 dimensions"),
    ("a b (h w) -> a b h w", {}, "do not follow"),
    ("a b (h w) -> a b h w", {"h": 3}, "dimension of size 4"),
    ("a b c -> a c b", {"q": 3}, "do not stand in"), ("a b c -> a c b", {"b": 5}, "size 3"),
    ("a _b c -> a c _b", {}, "is not a name"), ("a b. c -> a c b", {}, "neither a name"),
    ("(a ...) c -> a ... c", {}, "on the left"),
])
def test_errors(pattern, sizes, message):
    with pytest.raises(ValueError, match=message):
        rearrange(torch.tensor(X), pattern, **sizes)


def test_only_tensors():
    with pytest.raises(TypeError, match="takes a tensor"):
        rearrange(3, "a -> a")
