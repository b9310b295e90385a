"""What may be said about gradients: their dtype, their layout, and writing to what they need."""

from __future__ import annotations

import gc

import pytest

import flambeau as torch
from flambeau.autograd.graph import allow_mutation_on_saved_tensors


class TestGradDtype:
    def test_gradients_are_converted(self):
        x = torch.ones(2, requires_grad=True)
        assert x.grad_dtype is torch.float32
        x.grad_dtype = torch.float64
        for times in (1, 2):
            (3 * x).sum().backward()
            assert x.grad.dtype is torch.float64 and x.grad.tolist() == [3.0 * times] * 2

    def test_none_lets_any_in(self):
        x = torch.ones(2, requires_grad=True)
        x.grad_dtype = None
        x.grad = torch.ones(2, dtype=torch.float16)
        assert x.grad_dtype is None and x.grad.dtype is torch.float16

    def test_what_is_refused(self):
        x = torch.ones(2, requires_grad=True)
        with pytest.raises(RuntimeError, match=r"only be accessed on leaf"):
            (2 * x).grad_dtype  # noqa: B018
        with pytest.raises(RuntimeError, match="only be set on leaf"):
            (2 * x).grad_dtype = torch.float16
        with pytest.raises(RuntimeError, match=r"torch.dtype or None, but got int"):
            x.grad_dtype = 3
        with pytest.raises(RuntimeError, match=r"grad_dtype 'torch\.float32'"):
            x.grad = torch.ones(2, dtype=torch.float64)
        x.grad = torch.ones(2)
        with pytest.raises(RuntimeError, match="already a gradient"):
            x.grad_dtype = torch.float16


class TestLayoutPolicy:
    def gradient(self):
        x = torch.ones(2, 3, requires_grad=True)
        x.t().mul(2.0).backward(torch.ones(3, 2))
        return x.grad

    def test_gradients_follow_the_leaf(self):
        assert self.gradient().stride() == (3, 1)

    def test_it_can_be_lifted(self):
        with torch.autograd.enforce_grad_layout_policy(False):
            assert self.gradient().stride() == (1, 2)
        assert self.gradient().stride() == (3, 1)

    def test_as_a_decorator_and_as_a_call(self):
        relaxed = torch.autograd.enforce_grad_layout_policy(False)(self.gradient)
        assert self.gradient().stride() == (3, 1)
        assert relaxed().stride() == (1, 2) and self.gradient().stride() == (3, 1)
        torch.autograd.enforce_grad_layout_policy(False)
        try:
            assert self.gradient().stride() == (1, 2)
        finally:
            torch.autograd.enforce_grad_layout_policy(True)


class TestMutationOfSaved:
    def test_inputs_and_outputs_may_be_written(self):
        x = torch.full((2,), 2.0, requires_grad=True)
        with allow_mutation_on_saved_tensors() as kept:
            y = x * 1
            z = y.exp().log() * y
            y.zero_()
            assert kept.copies
            z.sum().backward()
        assert x.grad.tolist() == pytest.approx([4.0, 4.0])
        assert not kept.copies

    def test_without_it_that_raises(self):
        y = torch.ones(2, requires_grad=True) * 1
        z = y ** 2
        y.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            z.sum().backward()

    def test_backward_belongs_inside(self):
        with allow_mutation_on_saved_tensors():
            z = torch.ones(2, requires_grad=True) ** 2
        with pytest.raises(AssertionError, match="outside of the"):
            z.sum().backward()

    def test_copies_go_with_the_graph(self):
        with allow_mutation_on_saved_tensors() as kept:
            z = torch.ones(2, requires_grad=True) ** 2
            assert len(kept.copies) == 1
            del z
            gc.collect()
            assert not kept.copies

    def test_second_derivatives(self):
        x = torch.full((), 3.0, requires_grad=True)
        with allow_mutation_on_saved_tensors():
            (slope,) = torch.autograd.grad(x ** 3, x, create_graph=True)
            (curve,) = torch.autograd.grad(slope, x)
        assert (slope.item(), curve.item()) == (27.0, 18.0)


class TestFunction:
    def test_methods_of_ctx_are_shown_on_the_class(self):
        for name in ("save_for_backward", "save_for_forward", "mark_dirty",
                     "mark_non_differentiable", "set_materialize_grads"):
            assert getattr(torch.autograd.Function, name) is getattr(
                torch.autograd.function.FunctionCtx, name)

    def test_boxed_gradients_and_saved_tensors_read_once(self):
        class Both(torch.autograd.Function):
            boxed_grads_call = True
            clear_saved_tensors_on_access = True

            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return 2 * x, 3 * x

            @staticmethod
            def backward(ctx, grads):
                assert isinstance(grads, list) and len(grads) == 2
                (x,) = ctx.saved_tensors
                with pytest.raises(RuntimeError, match="second time"):
                    ctx.saved_tensors  # noqa: B018
                return (2 * grads.pop(0) + 3 * grads.pop(0)) * x

        x = torch.full((2,), 5.0, requires_grad=True)
        a, b = Both.apply(x)
        (a + b).sum().backward()
        assert x.grad.tolist() == [25.0, 25.0]


def test_places_that_no_tensor_lies_in():
    x = torch.ones(2)
    assert not x.is_ipu and not x.is_xla
    assert not hasattr(x, "__cuda_array_interface__")
    with pytest.raises(NotImplementedError, match="nested tensor"):
        x.to_padded_tensor(0.0)
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(1)])
    assert nested.to_padded_tensor(7.0).tolist() == [[1.0, 1.0], [1.0, 7.0]]


def test_capsules_of_dlpack():
    x = torch.arange(3.0)
    shared = torch.from_dlpack(torch.to_dlpack(x))
    shared[0] = 9.0
    assert x.tolist() == [9.0, 1.0, 2.0]
    assert torch.utils.dlpack.from_dlpack is not None
