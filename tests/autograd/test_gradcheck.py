"""gradcheck and gradgradcheck find what is wrong, and only that."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fake_tensor import Tensor, record, tensor

from flambeau.autograd import gradcheck, gradgradcheck
from flambeau.autograd.function import Function
from flambeau.autograd.gradcheck import GradcheckError


def leaf(shape=(3,), kind=np.float64):
    values = np.random.default_rng(1).normal(size=shape)
    if kind is np.complex128:
        values = values + 1j * np.random.default_rng(2).normal(size=shape)
    return Tensor(values.astype(kind), requires_grad=True)


def scaled(factor):
    """x * x with a backward that is `factor` of the right one."""
    def square(x):
        return record("SquareBackward0", Tensor(x.data * x.data), (x,),
                      lambda g, s: (g * s[0] * (2.0 * factor),), keep=(x,))
    return square


def test_right_derivatives_pass():
    x, y = leaf(), leaf((3,))
    assert gradcheck(lambda a, b: (a * b).exp() + a, (x, y))
    assert gradgradcheck(lambda a, b: (a * b).exp() + a, (x, y))
    assert gradcheck(lambda a, b: [a * b, a + b], [x, y])
    assert gradgradcheck(lambda a, b: (a * b, a + b), [x, y])
    assert gradgradcheck(lambda a: a * a * a, x, gen_non_contig_grad_outputs=True)
    assert gradcheck(lambda a: a.reshape(2, 3).unbind(), leaf((6,)))
    assert gradcheck(lambda a: a.sum(), leaf(()))
    assert gradcheck(lambda a: a * 2.0, leaf((0, 2)))


def test_inputs_are_left_as_they_were():
    x = leaf()
    before = x.data.copy()
    gradcheck(lambda a: a * a, x)
    assert (x.data == before).all() and x.grad is None


def test_wrong_derivative_shows_both_jacobians():
    with pytest.raises(GradcheckError) as error:
        gradcheck(scaled(0.5), leaf())
    text = str(error.value)
    assert text.startswith("Jacobian mismatch for output 0 with respect to input 0,\nnumerical:[[")
    assert "analytical:[[" in text and "largest difference" in text
    assert gradcheck(scaled(0.5), leaf(), raise_exception=False) is False
    assert gradcheck(scaled(1.0), leaf())
    assert isinstance(error.value, RuntimeError)


def test_tolerances():
    assert gradcheck(scaled(1.0005), leaf(), raise_exception=False)
    assert not gradcheck(scaled(1.0005), leaf(), rtol=1e-5, raise_exception=False)
    assert gradcheck(scaled(1.5), leaf(), atol=10.0)


def test_wrong_second_derivative_is_found():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x.detach() * 2.0  # cut: no derivative with respect to x

    assert gradcheck(Wrong.apply, leaf())
    with pytest.raises(GradcheckError):
        gradgradcheck(Wrong.apply, leaf())


def test_complex():
    z = leaf(kind=np.complex128)
    assert gradcheck(lambda a: a * a, z)
    assert gradcheck(lambda a: (a * a.conj()).real, z)
    assert gradcheck(lambda a: a.exp() * a.conj(), z)
    assert gradgradcheck(lambda a: a * a * a, z)

    def no_conjugate(a):
        return record("Bad", Tensor(a.data * a.data), (a,), lambda g, s: (g * s[0] * 2.0,),
                      keep=(a,))

    with pytest.raises(GradcheckError, match="a complex element takes two rows"):
        gradcheck(no_conjugate, z)


def test_nondeterminism():
    noise = itertools.count(1)

    def noisy(x):
        return record("Noisy", Tensor(x.data * 2), (x,),
                      lambda g, s: (g * (2.0 + 1e-9 * next(noise)),))

    with pytest.raises(GradcheckError, match="Backward is not reentrant"):
        gradcheck(noisy, leaf())
    assert gradcheck(noisy, leaf(), nondet_tol=1e-6)


def test_undefined_gradients():
    class Strict(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 1.0, x * 2.0

        @staticmethod
        def backward(ctx, a, b):
            return a + b * 2.0

    with pytest.raises(TypeError):
        gradcheck(Strict.apply, leaf())

    class Loose(Strict):
        @staticmethod
        def backward(ctx, a, b):
            return a if b is None else b * 2.0 if a is None else a + b * 2.0

    assert gradcheck(Loose.apply, leaf())

    class Invents(Strict):
        @staticmethod
        def backward(ctx, a, b):
            return tensor([1.0, 1.0, 1.0]) if a is None and b is None else Loose.backward(ctx, a, b)

    with pytest.raises(GradcheckError, match="undefined or zero"):
        gradcheck(Invents.apply, leaf())
    assert gradcheck(Invents.apply, leaf(), check_undefined_grad=False)


def test_outputs_without_gradient():
    assert gradcheck(lambda a: Tensor(np.ones(2)), leaf())
    with pytest.raises(GradcheckError, match="expected to be zero"):
        gradcheck(lambda a: a.detach() * 2.0, leaf())


def test_inputs_are_checked():
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradcheck(lambda a: a, tensor([1.0]))
    with pytest.warns(UserWarning, match="not a double precision"):
        gradcheck(lambda a: a * 1.0, leaf(kind=np.float32), atol=1.0, raise_exception=False)
    wide = Tensor(np.broadcast_to(1.0, (3,)), requires_grad=True)
    with pytest.raises(RuntimeError, match="stride 0"):
        gradcheck(lambda a: a * 1.0, wide)
    with pytest.raises(AssertionError, match="at least one"):
        gradcheck(lambda a: a, leaf(), check_backward_ad=False)
