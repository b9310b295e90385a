"""grad, vjp, jvp, linearize, Jacobians, forward_ad and the options of autograd.functional."""

from __future__ import annotations

import pytest

import flambeau as torch
import flambeau.autograd.forward_ad as fwd
from flambeau.autograd import functional
from flambeau.func import (
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)

X = torch.tensor([0.3, -0.2, 0.5])
ONE = torch.tensor(1.0)


def _close(a, b):
    assert torch.allclose(a, b, 1e-5, 1e-6), (a, b)


# ---------------------------------------------------------------------- in reverse
def test_grad_of_trees_and_aux():
    found, (value, aux) = grad_and_value(
        lambda d, k: ((d["a"] ** 2).sum() * k + d["b"][0].prod(), {"s": d["a"] * 2}),
        has_aux=True)({"a": X, "b": [X]}, 3.0)
    _close(found["a"], 6 * X)
    _close(found["b"][0], X.prod() / X)
    assert not (value.requires_grad or aux["s"].requires_grad or found["a"].requires_grad)
    both = grad(lambda a, b: (a * b.sin()).sum(), argnums=(1, 0))(X, X)
    _close(both[0], X * X.cos())
    _close(both[1], X.sin())


def test_grad_knows_what_is_outside():
    w = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    found = grad(lambda x: (x * w).sin().sum())(X)
    found.sum().backward()
    _close(w.grad, (X * w).cos() - X * w * (X * w).sin())
    with torch.no_grad():
        assert not grad(lambda x: (x * w).sum())(X).requires_grad
    found = grad(lambda x: x * grad(lambda y: x + y)(x))(ONE * 2)
    _close(found, ONE)  # no confusion of the two
    _close(grad(grad(grad(lambda x: x ** 4)))(ONE * 2), ONE * 48)
    with torch.inference_mode():
        _close(grad(lambda x: (x * x).sum())(X), 2 * X)
    plain = grad(lambda x: (x * x.detach()).sum())(X)
    _close(plain, X)


def test_grad_errors():
    for function, text in ((lambda x: x * 2, "scalar Tensor"), (lambda x: 3.0, "to return a Tens"),
                           (lambda x: (x, x), "to return a Tens")):
        with pytest.raises(RuntimeError, match=text):
            grad(function)(X)
    for argnums, text in ((1, "only 1 positional"), ((0, 0), "unique"), ("a", "must be int")):
        with pytest.raises(RuntimeError, match=text):
            grad(torch.sum, argnums)(X)
    with pytest.raises(ValueError, match="must be Tensor"):
        grad(torch.sum)(3.0)
    with pytest.raises(RuntimeError, match="floating point dtype"):
        grad(torch.sum)(torch.arange(3))
    with pytest.raises(RuntimeError, match="in-place"):
        grad(lambda x: x.add_(1).sum())(X)


def test_vjp_and_linearize():
    (a, _b), pull, aux = vjp(lambda x, y: ((x * y, y.exp()), x), X, X * 2, has_aux=True)
    gx, gy = pull((X, X))
    _close(gx, X * X * 2)
    _close(gy, X * X + X * (X * 2).exp())
    assert not (a.requires_grad or aux.requires_grad)
    with pytest.raises(RuntimeError, match="pytree structure"):
        pull(X)
    _close(grad(lambda v: pull((v, v))[0].sum())(X), X * 2)
    value, push = linearize(lambda x: x.sin() * 2, X)
    _close(value, X.sin() * 2)
    _close(push(X), X.cos() * 2 * X)
    _close(vmap(push)(torch.eye(3)), torch.diag(X.cos() * 2))


# ---------------------------------------------------------------------- forwards
def test_jvp():
    (_p, _q), (tp, tq), aux = jvp(lambda x, y: ((x * y, y[0] * 2), x.sin()), (X, X), (X, ONE + X),
                                has_aux=True)
    _close(tp, X * X + X * (1 + X))
    _close(tq, 2 * (1 + X[0]))
    _close(aux, X.sin())
    _close(jvp(lambda x: torch.ones(2), (X,), (X,))[1], torch.zeros(2))
    found = jvp(lambda x: x * jvp(lambda y: x + y, (x,), (ONE,))[1], (ONE * 2,), (ONE,))[1]
    _close(found, ONE)
    for primals, moves, text in ((X, X, "to be a tuple"), ((X,), (X, X), "same python structure"),
                                 ((X,), (torch.ones(2),), "different size"), ((), (), "at least"),
                                 ((3,), (2,), "only contain Tensors")):
        with pytest.raises(RuntimeError, match=text):
            jvp(torch.sin, primals, moves)


def test_jvp_through_writes_and_views():
    def written(x):
        y = torch.zeros(2, 3)
        row = y[0]
        row.copy_(x)
        y[1] = x * x
        y.mul_(x)
        return y.t()[1:]

    wanted = torch.stack([2 * X * X, 3 * X ** 3]).t()[1:]
    _close(jvp(written, (X,), (X,))[1], wanted)


def test_second_derivatives_agree():
    def function(x):
        return (x.sin() * x.exp().sum()).pow(2).sum() + x.prod()

    first = hessian(function)(X)
    for outer, inner in ((jacrev, jacrev), (jacrev, jacfwd), (jacfwd, jacfwd), (jacfwd, jacrev)):
        _close(outer(inner(function))(X), first)
    rows = torch.stack([X, X * 2])
    _close(vmap(hessian(function))(rows), torch.stack([first, hessian(function)(X * 2)]))
    _close(jvp(grad(function), (X,), (X,))[1], first @ X)
    _close(grad(lambda x: jvp(function, (x,), (X,))[1])(X), first @ X)


def test_jacobians_of_trees():
    def function(a, b):
        return {"p": a * b["c"].sum(), "q": (b["c"] ** 2, a.sum())}

    b = {"c": X * 2}
    for transform in (jacrev, jacfwd):
        found = transform(function, argnums=(0, 1))(X, b)
        _close(found["p"][0], torch.eye(3) * b["c"].sum())
        _close(found["p"][1]["c"], X[:, None].expand(3, 3))
        _close(found["q"][0][1]["c"], torch.diag(4 * X))
        assert found["q"][1][0].shape == (3,)
        value, aux = transform(lambda x: (x * 2, x.sin()), has_aux=True)(X)
        _close(value, torch.eye(3) * 2)
        _close(aux, X.sin())
        with pytest.raises(RuntimeError, match=r"floating-point or complex|only tensors"):
            transform(lambda x: x.long())(X)


# ---------------------------------------------------------------------- forward_ad
def test_dual_tensors():
    with fwd.dual_level():
        x = fwd.make_dual(X, X * 2)
        value, tangent = fwd.unpack_dual(x.sin() * X)
        _close(value, X.sin() * X)
        _close(tangent, X.cos() * X * 2 * X)
        assert fwd.unpack_dual(x.detach()).tangent is None and "tangent=" in repr(x)
        _close(fwd.unpack_dual(x[1:]).tangent, X[1:] * 2)
        held = torch.zeros(3)
        held[1:] = x[:2]
        _close(fwd.unpack_dual(held).tangent, torch.cat([torch.zeros(1), X[:2] * 2]))
        with pytest.raises(RuntimeError, match="already has a forward gradient"):
            fwd.make_dual(x, X)
        with pytest.raises(RuntimeError, match="different size"):
            fwd.make_dual(X, X[:2])
        with pytest.raises(ValueError, match="floating point"):
            fwd.make_dual(torch.arange(3), X)
        with pytest.raises(RuntimeError, match="Nested"):
            fwd.enter_dual_level()
        w = torch.ones(3, requires_grad=True)
        (found,) = torch.autograd.grad(fwd.unpack_dual((w * x).exp().sum()).tangent, w)
        _close(found, (X.exp() * (2 * X + 2 * X * X)))
    assert fwd.unpack_dual(x).tangent is None
    with pytest.raises(RuntimeError, match="no level exists"):
        fwd.make_dual(X, X)


# ---------------------------------------------------------------------- autograd.functional
def test_jacobian_strategies():
    def function(x, y):
        return (x.sin() * y.sum(), y ** 2 * x[0])

    inputs = X, torch.ones(2)
    plain = functional.jacobian(function, inputs)
    for options in ({"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"},
                    {"vectorize": True, "create_graph": True}):
        for row, wanted in zip(functional.jacobian(function, inputs, **options), plain,
                               strict=True):
            for a, b in zip(row, wanted, strict=True):
                _close(a, b)

    def scalar(x):
        return (x ** 3).sum()

    for options in ({}, {"vectorize": True},
                    {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}):
        _close(functional.hessian(scalar, X, **options), torch.diag(6 * X))
    with pytest.raises(RuntimeError, match="not supported together"):
        functional.jacobian(scalar, X, strict=True, vectorize=True)
    with pytest.raises(NotImplementedError, match="vectorize=True"):
        functional.jacobian(scalar, X, strategy="forward-mode")
    with pytest.raises(RuntimeError, match="when create_graph=True"):
        functional.vjp(lambda x: x * 2, X, X, create_graph=True, strict=True)
    with pytest.raises(RuntimeError, match="While computing the hessian"):
        functional.vhp(torch.sum, X, X, strict=True)
