"""autograd.Function on a fake tensor."""

from __future__ import annotations

import gc
import weakref

import pytest
from fake_tensor import Tensor, tensor

from flambeau.autograd import api
from flambeau.autograd.function import Function, once_differentiable
from flambeau.autograd.grad_mode import is_grad_enabled, no_grad
from flambeau.autograd.variable import Variable


class Square(Function):
    @staticmethod
    def forward(ctx, x, scale=1.0):
        assert not is_grad_enabled()
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x * x * scale

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x * (2.0 * ctx.scale), None


class NewSquare(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, scale=1.0):
        return x * x * scale

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.scale = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx, grad):
        x, _output = ctx.saved_tensors
        return grad * x * (2.0 * ctx.scale), None


def leaf(*values):
    return tensor(values, requires_grad=True)


@pytest.mark.parametrize("op", [Square, NewSquare])
def test_first_and_second_derivatives(op):
    x = leaf(3.0)
    y = op.apply(x, 2.0)
    assert type(y.grad_fn).__name__ == op.__name__ + "Backward"
    assert y.grad_fn.needs_input_grad == (True, False) and y.grad_fn.scale == 2.0
    (first,) = api.grad(y.sum(), x, create_graph=True)
    (second,) = api.grad(first.sum(), x)
    assert first.tolist() == [12.0] and second.tolist() == [4.0]


def test_new_style_binds_defaults():
    x = leaf(3.0)
    NewSquare.apply(x).sum().backward()
    assert x.grad.tolist() == [6.0]


def test_not_recorded():
    with no_grad():
        assert not Square.apply(leaf(1.0), 1.0).requires_grad
    assert not Square.apply(tensor([1.0]), 1.0).requires_grad
    with pytest.raises(TypeError, match="keyword"):
        Square.apply(leaf(1.0), scale=1.0)


def make(forward, backward=lambda ctx, *grads: grads):
    return type("Made", (Function,), {"forward": staticmethod(forward),
                                      "backward": staticmethod(backward)})


@pytest.mark.parametrize("result, kind, text", [
    (lambda g: g, RuntimeError, "function MadeBackward returned an incorrect number of gradients "
                                r"\(expected 2, got 1\)"),
    (lambda g: (g, None, g), RuntimeError, r"\(expected 2, got 3\)"),
    (lambda g: (g, g), RuntimeError, "gradient different than None at position 2, but the "
                                     "corresponding forward input was not a Variable"),
    (lambda g: ([1.0], None), TypeError, r"expected Variable or None \(got list\)"),
    (lambda g: (tensor([[1.0, 2.0, 3.0]]), None), RuntimeError,
     r"Function MadeBackward returned an invalid gradient at index 0 - got \[1, 3\]"),
])
def test_wrong_gradients(result, kind, text):
    op = make(lambda ctx, x, n: x + 0.0, lambda ctx, g: result(g))
    with pytest.raises(kind, match=text):
        op.apply(leaf(1.0, 2.0), 3).sum().backward()


def test_trailing_none_is_allowed():
    x = leaf(1.0)
    make(lambda ctx, x, n: x + 0.0, lambda ctx, g: (g, None, None)).apply(x, 3).sum().backward()
    assert x.grad.tolist() == [1.0]


def test_materialized_and_missing_gradients():
    seen = []

    def forward(ctx, x, materialize):
        ctx.set_materialize_grads(materialize)
        return x + 1.0, x + 2.0

    def backward(ctx, a, b):
        seen.append(None if b is None else b.tolist())
        return a, None

    op = make(forward, backward)
    for materialize in (True, False):
        first, _ = op.apply(leaf(1.0), materialize)
        first.sum().backward()
    assert seen == [[0.0], None]


def test_backward_runs_even_without_any_gradient():
    calls = []
    stop = make(lambda ctx, x: x + 0.0, lambda ctx, g: None)
    count = make(lambda ctx, x: x + 0.0, lambda ctx, g: calls.append(g.tolist()))
    stop.apply(count.apply(leaf(1.0))).sum().backward()
    assert calls == [[0.0]]


def test_several_outputs_and_other_values():
    op = make(lambda ctx, x: (x * 2.0, "text", x * 3.0), lambda ctx, a, _, b: a * 2.0 + b * 3.0)
    x = leaf(1.0)
    a, text, b = op.apply(x)
    assert text == "text" and (a.grad_fn, b._output_nr) == (b.grad_fn, 2)
    (a + b).sum().backward()
    assert x.grad.tolist() == [5.0]


def test_input_returned_as_output_is_an_alias():
    op = make(lambda ctx, x: x, lambda ctx, g: g * 7.0)
    x = leaf(1.0)
    y = op.apply(x)
    assert y is not x and y._storage is x._storage and x.is_leaf and not y.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [7.0]
    plain = tensor([1.0])
    assert not op.apply(plain).requires_grad


def test_mark_dirty():
    def forward(ctx, x):
        x.add_(1.0)
        ctx.mark_dirty(x)
        return x

    op = make(forward)
    x = leaf(1.0)
    h = x * 2.0
    y = op.apply(h)
    assert y is h and y.grad_fn.name() == "MadeBackward" and y.tolist() == [3.0]
    y.sum().backward()
    assert x.grad.tolist() == [2.0]
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        op.apply(leaf(1.0))

    def forgets(ctx, x):
        ctx.mark_dirty(x)
        return x + 0.0

    with pytest.raises(RuntimeError, match="marked as dirty during the forward method were not"):
        make(forgets).apply(leaf(1.0) * 1.0)


def test_mark_non_differentiable():
    def forward(ctx, x):
        mask = x * 0.0
        ctx.mark_non_differentiable(mask)
        return x * 2.0, mask

    y, mask = make(forward, lambda ctx, g, gm: g * 2.0).apply(leaf(1.0))
    assert y.requires_grad and not mask.requires_grad


def test_saved_output_makes_no_cycle_and_is_checked():
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y, None)
        return y

    def backward(ctx, g):
        y, nothing = ctx.saved_tensors
        assert nothing is None
        return g * y

    op = make(forward, backward)
    gc.disable()
    try:
        y = op.apply(leaf(0.0))
        alive = weakref.ref(y.grad_fn)
        del y
        assert alive() is None
    finally:
        gc.enable()
    x = leaf(0.5)
    y = op.apply(x)
    (first,) = api.grad(y.sum(), x, create_graph=True)
    (second,) = api.grad(first.sum(), x)
    assert second.tolist() == y.tolist()
    y = op.apply(x)
    y.detach().add_(1.0)
    with pytest.raises(RuntimeError, match="output 0 of MadeBackward, is at version 1"):
        y.sum().backward()
    with pytest.raises(TypeError, match="save_for_backward can only save variables, but argument "
                                        "0 is of type int"):
        make(lambda ctx, x: (ctx.save_for_backward(3), x + 0.0)[1]).apply(x)


def test_freed_only_where_looked_at():
    x = leaf(1.0)
    y = Square.apply(x, 1.0).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    lazy = make(Square.forward, lambda ctx, g: (g, None))
    y = lazy.apply(x, 1.0)
    y.sum().backward()
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        _ = y.grad_fn.saved_tensors


def test_once_differentiable():
    @once_differentiable
    def backward(ctx, g):
        assert not is_grad_enabled()
        return g * 2.0

    x = leaf(1.0)
    y = make(lambda ctx, x: x * 2.0, backward).apply(x)
    (first,) = api.grad((y * y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        api.grad(first.sum(), x)
    make(lambda ctx, x: x * 2.0, backward).apply(x).sum().backward()
    assert x.grad.tolist() == [2.0]


def test_needs_input_grad_follows_the_request():
    seen = []
    op = make(lambda ctx, a, b: a + b,
              lambda ctx, g: (seen.append(ctx.needs_input_grad), (g, g))[1])
    a, b = leaf(1.0), leaf(2.0)
    y = op.apply(a, b)
    api.grad(y.sum(), b, retain_graph=True)
    y.sum().backward()
    assert seen == [(False, True), (True, True)]


def test_vjp_stands_for_backward():
    op = type("Made", (Function,), {"forward": staticmethod(lambda ctx, x: x * 2.0),
                                    "vjp": staticmethod(lambda ctx, g: g * 2.0)})
    x = leaf(1.0)
    op.apply(x).sum().backward()
    assert x.grad.tolist() == [2.0]
    both = type("Made", (op,), {"backward": staticmethod(lambda ctx, g: g)})
    with pytest.raises(RuntimeError, match="Implementing both"):
        both.apply(x).sum().backward()


def test_what_is_missing_says_so():
    bare = type("Bare", (Function,), {})
    with pytest.raises(NotImplementedError, match="forward function"):
        bare.apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match="jvp"):
        bare.jvp(None)
    with pytest.raises(NotImplementedError, match="vmap"):
        bare.vmap(None, None)
    with pytest.raises(NotImplementedError, match="backward or vjp"):
        type("Half", (Function,), {"forward": staticmethod(lambda ctx, x: x * 2.0)}) \
            .apply(leaf(1.0)).sum().backward()
    with pytest.warns(DeprecationWarning, match="should not be instantiated"), \
            pytest.raises(RuntimeError, match="Legacy autograd function"):
        Square()(1)


def test_nested_and_user_attributes_do_not_collide():
    def forward(ctx, x):
        ctx.saved, ctx.order, ctx.outputs, ctx.hooks, ctx.where = 1, 2, 3, 4, 5
        return Square.apply(x, 1.0)

    def backward(ctx, g):
        assert (ctx.saved, ctx.order, ctx.outputs, ctx.hooks, ctx.where) == (1, 2, 3, 4, 5)
        return g * 2.0

    x = leaf(1.0)
    make(forward, backward).apply(x).sum().backward()
    assert x.grad.tolist() == [2.0]


def test_variable():
    t = Variable(tensor([1.0]), requires_grad=True)
    assert isinstance(t, Tensor) and isinstance(t, Variable) and t.requires_grad and t.is_leaf
    assert not isinstance(3, Variable)
