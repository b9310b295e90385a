"""Jacobians, Hessians and products against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from fake_tensor import Tensor, tensor

from flambeau.autograd import functional as F
from flambeau.autograd import grad

A = np.array([0.5, -1.0, 2.0])
B = np.array([1.5, 0.25, -0.5])


def product(a, b):
    return a * a * b


def cubes(a):
    return (a * a * a).sum()


def close(mine, formula):
    assert not mine.requires_grad
    np.testing.assert_allclose(mine.data, formula, rtol=1e-12, atol=1e-12)


def test_vjp_and_jvp():
    v = np.array([1.0, 2.0, 3.0])
    out, product_with_v = F.vjp(lambda a: a * a, tensor(A), tensor(v))
    close(out, A * A)
    close(product_with_v, 2 * A * v)
    out, tangent = F.jvp(product, (tensor(A), tensor(B)), (tensor(v), tensor(v)))
    close(out, A * A * B)
    close(tangent, 2 * A * B * v + A * A * v)
    out, both = F.vjp(product, (tensor(A), tensor(B)), tensor(v))
    close(both[0], 2 * A * B * v)
    close(both[1], A * A * v)
    close(F.vjp(cubes, tensor(A))[1], 3 * A ** 2)


def test_jacobian():
    close(F.jacobian(lambda a: a * a, tensor(A)), np.diag(2 * A))
    first, second = F.jacobian(product, (tensor(A), tensor(B)))
    close(first, np.diag(2 * A * B))
    close(second, np.diag(A * A))
    (one, two) = F.jacobian(lambda a: (a * a, a.sum()), tensor(A))
    close(one, np.diag(2 * A))
    close(two, np.ones(3))
    assert F.jacobian(lambda a: a.reshape(3, 1), tensor(A)).shape == (3, 1, 3)
    close(F.jacobian(lambda a, b: a * 1.0, (tensor(A), tensor(B)))[1], np.zeros((3, 3)))


def test_hessian_and_products():
    v = np.array([1.0, 2.0, 3.0])
    close(F.hessian(cubes, tensor(A)), np.diag(6 * A))
    out, result = F.vhp(cubes, tensor(A), tensor(v))
    close(out, (A ** 3).sum())
    close(result, 6 * A * v)
    close(F.hvp(cubes, tensor(A), tensor(v))[1], 6 * A * v)
    blocks = F.hessian(lambda a, b: (a * a * b).sum(), (tensor(A), tensor(B)))
    close(blocks[0][0], np.diag(2 * B))
    close(blocks[0][1], np.diag(2 * A))
    close(blocks[1][0], np.diag(2 * A))
    close(blocks[1][1], np.zeros((3, 3)))


def test_results_can_be_differentiated():
    a = Tensor(A.copy(), requires_grad=True)
    jacobian = F.jacobian(lambda t: t * t * t, a, create_graph=True)
    (second,) = grad(jacobian.sum(), a)
    np.testing.assert_allclose(second.data, 6 * A)
    _, result = F.hvp(cubes, a, tensor(B), create_graph=True)
    (third,) = grad(result.sum(), a)
    np.testing.assert_allclose(third.data, 6 * B)


def test_errors():
    with pytest.raises(TypeError, match="inputs given to vjp must be either a Tensor"):
        F.vjp(cubes, 3.0)
    with pytest.raises(RuntimeError, match="can only be None if"):
        F.vjp(lambda a: a * a, tensor(A))
    with pytest.raises(RuntimeError, match="invalid size"):
        F.vjp(lambda a: a * a, tensor(A), tensor([1.0]))
    with pytest.raises(RuntimeError, match="single element"):
        F.hessian(lambda a: a * a, tensor(A))
    with pytest.raises(RuntimeError, match="independent of input 1"):
        F.jacobian(lambda a, b: a * 1.0, (tensor(A), tensor(B)), strict=True)
    with pytest.raises(RuntimeError, match="does not require gradients"):
        F.jacobian(lambda a: a.detach(), tensor(A), strict=True)
    with pytest.raises(NotImplementedError, match="vectorize=True"):
        F.jacobian(cubes, tensor(A), strategy="forward-mode")
