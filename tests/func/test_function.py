"""autograd.Function under transforms: jvp, vmap, generate_vmap_rule; gradcheck of all modes."""

from __future__ import annotations

import pytest

import flambeau as torch
import flambeau.autograd.forward_ad as fwd
from flambeau.autograd import Function, gradcheck
from flambeau.func import grad, hessian, jacfwd, jacrev, jvp, vmap

X = torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])
W = torch.tensor([3.0, 2.0, 1.0])


class Cube(Function):
    """x ** 3 and its derivative, which the backward uses."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x ** 3, 3 * x ** 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output[1])
        ctx.save_for_forward(inputs[0], output[1])

    @staticmethod
    def backward(ctx, g, slope_g):
        x, slope = ctx.saved_tensors
        return g * slope + slope_g * 6 * x

    @staticmethod
    def jvp(ctx, t):
        x, slope = ctx.saved_tensors
        return t * slope, 6 * x * t


class Product(Function):
    """x * y * k, with a rule of its own for batches."""

    seen: list = []

    @staticmethod
    def forward(x, y, k):
        return x * y * k

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.k = inputs[2]

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * y * ctx.k, g * x * ctx.k, None

    @staticmethod
    def jvp(ctx, tx, ty, _):
        x, y = ctx.saved_tensors
        return (tx * y + x * ty) * ctx.k

    @staticmethod
    def vmap(info, in_dims, x, y, k):
        Product.seen.append((info.batch_size, info.randomness, in_dims))
        x = x if in_dims[0] is None else x.movedim(in_dims[0], 0)
        y = y if in_dims[1] is None else y.movedim(in_dims[1], 0)
        return Product.apply(x, y, k), 0


class Plain(Function):
    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g * 2


class Old(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def _close(a, b):
    assert torch.allclose(a, b, 1e-5, 1e-6), (a, b)


def test_generated_rule():
    value, slope = vmap(Cube.apply)(X)
    _close(value, X ** 3)
    _close(slope, 3 * X ** 2)
    _close(vmap(grad(lambda x: Cube.apply(x)[0].sum()))(X), 3 * X ** 2)
    _close(grad(lambda x: vmap(Cube.apply)(x)[0].sum())(X), 3 * X ** 2)
    _close(vmap(lambda x: jvp(Cube.apply, (x,), (x,))[1][1])(X), 6 * X * X)
    _close(jvp(vmap(Cube.apply), (X,), (X,))[1][0], 3 * X ** 3)
    _close(vmap(vmap(Cube.apply))(X)[0], X ** 3)
    for transform in (jacrev, jacfwd):
        _close(transform(lambda x: Cube.apply(x)[0])(W), torch.diag(3 * W ** 2))
    _close(hessian(lambda x: Cube.apply(x)[0].sum())(W), torch.diag(6 * W))


def test_own_rule():
    Product.seen.clear()
    _close(vmap(Product.apply, (0, None, None))(X, W, 2.0), X * W * 2)
    _close(vmap(Product.apply, (1, None, None))(X, W[:2], 2.0), X.T * W[:2] * 2)
    assert Product.seen == [(2, "error", (0, None, None)), (3, "error", (1, None, None))]
    gx, gw = vmap(grad(lambda x, w: Product.apply(x, w, 2.0).sum(), (0, 1)), (0, None))(X, W)
    _close(gx, (W * 2).expand(2, 3))
    _close(gw, X * 2)
    _close(grad(lambda w: vmap(Product.apply, (0, None, None))(X, w, 2.0).sum())(W),
           X.sum(0) * 2)
    _close(jvp(lambda x, w: Product.apply(x, w, 2.0), (X, W), (X, W))[1], X * W * 4)


def test_dual_tensors():
    with fwd.dual_level():
        found = fwd.unpack_dual(Product.apply(fwd.make_dual(X, X), W, 2.0))
        _close(found.tangent, X * W * 2)
        with pytest.raises(NotImplementedError, match="jvp function"):
            Plain.apply(fwd.make_dual(X, X))


def test_without_rules():
    with pytest.raises(RuntimeError, match="does not have vmap support"):
        vmap(Plain.apply)(X)
    with pytest.raises(RuntimeError, match="setup_context"):
        vmap(Old.apply)(X)
    _close(grad(lambda x: Plain.apply(x).sum())(X), torch.full((2, 3), 2.0))


def test_gradcheck_of_all_modes():
    x = X.double().requires_grad_()
    every = {"check_forward_ad": True, "check_batched_grad": True,
             "check_batched_forward_grad": True}
    assert gradcheck(lambda a: (a.sin() * W, a.softmax(1)), (x,), **every)
    assert gradcheck(lambda a: Cube.apply(a)[0], (x,), **every)
    z = torch.tensor([0.3 + 0.2j, -0.1 + 1j], dtype=torch.complex128, requires_grad=True)
    assert gradcheck(lambda a: (a * a.conj()).abs() + a.real.sin(), (z,), **every)
    with pytest.raises(RuntimeError, match="In forward mode"):
        gradcheck(Wrong.apply, (x,), check_forward_ad=True)


class Wrong(Plain):
    @staticmethod
    def jvp(ctx, t):
        return t * 3
