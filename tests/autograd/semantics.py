"""What PyTorch's autograd does, as functions of `torch`: they hold for PyTorch and for Flambeau.

`test_semantics.py` runs them here; `tests/conformance/test_autograd.py` under PyTorch itself.
"""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest


def leaf(torch, *values):
    return torch.tensor(values or (1.0, 2.0, 3.0), dtype=torch.float64, requires_grad=True)


def check_grad_identity_and_accumulation(torch):
    x = leaf(torch)
    (x * x).sum().backward()
    first = x.grad
    (x * 2).sum().backward()
    assert x.grad is first and first.tolist() == [4.0, 6.0, 8.0]
    assert not first.requires_grad and first.grad_fn is None
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad is not first


def check_grad_does_not_alias_the_given_gradient(torch):
    x, seed = leaf(torch), torch.ones(3, dtype=torch.float64)
    (x + 0).backward(seed)
    x.grad.mul_(5)
    assert seed.tolist() == [1.0, 1.0, 1.0]


def check_shared_gradient_is_not_shared_by_leaves(torch):
    x, y = leaf(torch), leaf(torch)
    (x + y).sum().backward()
    x.grad.mul_(5)
    assert y.grad.tolist() == [1.0, 1.0, 1.0] and x.grad.tolist() == [5.0, 5.0, 5.0]


def check_layout_of_grad(torch):
    x = torch.zeros(2, 3, requires_grad=True)
    x.sum().backward()
    assert x.grad.stride() == (3, 1)
    t = torch.zeros(3, 2).t().requires_grad_()
    (t * torch.ones(2, 3)).sum().backward()
    assert t.grad.stride() == t.stride() == (1, 2)
    x.grad = None
    (x.t() * torch.ones(3, 2)).sum().backward()
    assert x.grad.stride() == (3, 1)


def check_double_backward(torch):
    x = leaf(torch, 2.0)
    y = (x ** 3).sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    assert (first.item(), second.item(), third.item()) == (12.0, 12.0, 6.0)
    x.grad = None
    y = (x ** 3).sum()
    y.backward(create_graph=True)
    assert x.grad.requires_grad
    x.grad = None  # breaks the cycle


def check_freed_graph(torch):
    x = leaf(torch)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()
    z = (x + x).sum()
    z.backward()
    z.backward()


def check_errors_of_roots(torch):
    x = leaf(torch)
    cases = [
        (lambda: torch.ones(()).backward(),
         "element 0 of tensors does not require grad and does not have a grad_fn"),
        (lambda: x.backward(), "grad can be implicitly created only for scalar outputs"),
        (lambda: (x * 2).backward(torch.ones(2)), "Mismatch in shape: grad_output"),
        (lambda: torch.autograd.grad(x.sum(), torch.ones(())),
         "One of the differentiated Tensors does not require grad"),
        (lambda: torch.autograd.grad(x.sum(), leaf(torch)),
         "appears to not have been used in the graph"),
        (lambda: torch.autograd.backward(x.sum(), inputs=[]), "cannot be empty"),
    ]
    for call, text in cases:
        with pytest.raises(RuntimeError, match=text):
            call()
    assert torch.autograd.grad(x.sum(), leaf(torch), allow_unused=True) == (None,)
    (zero,) = torch.autograd.grad(x.sum(), leaf(torch), materialize_grads=True)
    assert zero.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="allow_unused"):
        torch.autograd.grad(x.sum(), x, allow_unused=False, materialize_grads=True)


def check_inputs_argument(torch):
    x, w = leaf(torch), leaf(torch)
    h = x * w
    (h * 3).sum().backward(inputs=[w, h])
    assert x.grad is None and h.grad.tolist() == [3.0] * 3
    assert w.grad.tolist() == [3.0, 6.0, 9.0]


def check_captures_and_hooks(torch):
    x = leaf(torch, 1.0)
    y = x * 2
    y.register_hook(lambda g: g * 10)
    y.retain_grad()
    z = (y * 3).sum()
    gy, gx = torch.autograd.grad(z, [y, x], retain_graph=True)
    assert (gy.item(), gx.item(), y.grad.item()) == (3.0, 60.0, 30.0)
    (gy,) = torch.autograd.grad(z, [y], retain_graph=True)
    assert gy.item() == 30.0  # the hooks come first where the node itself is not run
    assert y.grad.item() == 60.0
    assert y.retains_grad and not x.retains_grad


def check_hook_order(torch):
    events = []

    def note(name):
        def hook(*args):
            events.append(name)
        return hook

    x = leaf(torch, 1.0)
    h = x * 2
    h.register_hook(note("tensor 1"))
    h.grad_fn.register_prehook(note("pre"))
    h.grad_fn.register_hook(note("post"))
    h.register_hook(note("tensor 2"))
    x.register_hook(note("leaf"))
    x.register_post_accumulate_grad_hook(note("accumulated"))
    handle = x.register_hook(note("removed"))
    handle.remove()
    (h * 3).sum().backward()
    assert events == ["tensor 1", "tensor 2", "pre", "post", "leaf", "accumulated"]


def check_hooks_see_the_total_once(torch):
    x = leaf(torch, 1.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.item()))
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 2 + x * 3 + x.exp() * 0).sum().backward()
    assert seen == [5.0, 5.0]


def check_optimizer_in_backward(torch):
    x = leaf(torch, 1.0)

    def step(param):
        with torch.no_grad():
            param.sub_(param.grad)
        param.grad = None

    x.register_post_accumulate_grad_hook(step)
    (x * 0.25).sum().backward()
    assert x.grad is None and x.item() == 0.75


def check_multi_grad_hook(torch):
    a, b, c = (leaf(torch, 1.0) for _ in range(3))
    calls = []
    torch.autograd.graph.register_multi_grad_hook(
        [a, b, c], lambda grads: calls.append([g is None for g in grads]))
    (a * b).sum().backward()
    assert calls == [[False, False, True]]


def check_in_place_errors(torch):
    x = leaf(torch)
    u = x.exp()
    with torch.no_grad():
        u += 1
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation: \[torch.DoubleTensor"
                                           r" \[3\]\].*is at version 1; expected version 0"):
        u.sum().backward()
    v = x.clone()
    y = v * v
    v.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    w = x.clone()
    y = w + w  # saves nothing
    w.add_(1)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="leaf"):
        x.add_(1)


def check_in_place_history(torch):
    x = leaf(torch)
    y = x.clone()
    view = y[1:]
    view.mul_(10)
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 10.0, 10.0]
    assert y._version == view._version == 1


def check_no_grad_and_inference(torch):
    x = leaf(torch)
    with torch.no_grad():
        y = x * 2
        assert not y.requires_grad and y.grad_fn is None and y.is_leaf
        with torch.enable_grad():
            assert (x * 2).requires_grad
    with torch.inference_mode():
        z = x * 2
        assert z.is_inference() and not z.requires_grad
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
    with torch.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert torch.is_grad_enabled()
    assert x.detach().requires_grad is False and x.detach()._version == x._version


def check_names_and_graph(torch):
    x = leaf(torch)
    y = (x * 2).sum()
    assert type(y.grad_fn).__name__ == y.grad_fn.name() == "SumBackward0"
    assert repr(y.grad_fn).startswith("<SumBackward0 object at 0x")
    ((mul, nr),) = y.grad_fn.next_functions
    assert mul.name() == "MulBackward0" and nr == 0
    (acc, _), nothing = mul.next_functions
    assert acc.name() == "torch::autograd::AccumulateGrad"
    assert type(acc).__name__ == "AccumulateGrad" and acc.variable is x and nothing == (None, 0)
    assert y.grad_fn.metadata == {}
    assert mul._sequence_nr() < y.grad_fn._sequence_nr()


def check_memory_is_freed_at_once(torch):
    gc.collect()
    gc.disable()
    try:
        x = leaf(torch)
        y = x.exp().sin().sum()
        h = x.exp()
        inner, alive = weakref.ref(h), weakref.ref(x)
        z = (h * h).sum()
        del h
        z.backward()
        y.backward()
        del y, z
        assert inner() is None
        del x
        assert alive() is None
    finally:
        gc.enable()


def square(torch, **options):
    """x * x as a Function; `options` are flags that the tests turn."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, n):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x * g, None

    return Square


def check_function(torch):
    op, x = square(torch), leaf(torch, 3.0)
    y = op.apply(x, 3)
    assert type(y.grad_fn).__name__ == y.grad_fn.name() == "SquareBackward"
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert (first.item(), second.item()) == (6.0, 2.0)
    with torch.no_grad():
        assert not op.apply(x, 3).requires_grad
    y = op.apply(x, 3)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    assert torch.autograd.gradcheck(lambda t: op.apply(t, 1), (leaf(torch),))
    assert torch.autograd.gradgradcheck(lambda t: op.apply(t, 1), (leaf(torch),))


def check_function_errors(torch):
    x = leaf(torch, 3.0, 4.0)
    cases = [
        (lambda ctx, g: g, "returned an incorrect number of gradients .expected 2, got 1"),
        (lambda ctx, g: (g, g), "gradient different than None at position 2"),
        (lambda ctx, g: (g, None, g), "incorrect number of gradients"),
        (lambda ctx, g: (torch.ones(5, 4), None),
         r"invalid gradient at index 0 - got \[5, 4\] but expected shape compatible with \[2\]"),
    ]
    for backward, text in cases:
        op = square(torch)
        op.backward = staticmethod(backward)
        with pytest.raises(RuntimeError, match=text):
            op.apply(x, 3).sum().backward()
    op = square(torch)
    op.backward = staticmethod(lambda ctx, g: (g, None, None, None))
    op.apply(x, 3).sum().backward()
    with pytest.raises(TypeError, match="can only save variables"):
        class Bad(op):
            @staticmethod
            def forward(ctx, x, n):
                ctx.save_for_backward(n)
                return x * 2
        Bad.apply(x, 3)


def check_function_new_style(torch):
    class Mul(torch.autograd.Function):
        @staticmethod
        def forward(a, b, scale=2.0):
            return a * b * scale, a + b

        @staticmethod
        def setup_context(ctx, inputs, output):
            a, b, ctx.scale = inputs
            ctx.save_for_backward(a, b)
            ctx.mark_non_differentiable(output[1])

        @staticmethod
        def backward(ctx, g, unused):
            a, b = ctx.saved_tensors
            assert unused.abs().sum() == 0
            return (g * b * ctx.scale if ctx.needs_input_grad[0] else None,
                    g * a * ctx.scale if ctx.needs_input_grad[1] else None, None)

    a, b = leaf(torch, 2.0), leaf(torch, 3.0)
    y, flag = Mul.apply(a, b)
    assert not flag.requires_grad
    y.sum().backward()
    assert (a.grad.item(), b.grad.item()) == (6.0, 4.0)
    y, _ = Mul.apply(a, b.detach())
    y.sum().backward()
    assert a.grad.item() == 12.0


def check_function_aliases(torch):
    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 7

    class AddOne(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.add_(1)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = leaf(torch, 1.0)
    y = Same.apply(x)
    assert y is not x and y.data_ptr() == x.data_ptr() and x.is_leaf and not y.is_leaf
    h = x * 3
    out = AddOne.apply(h)
    assert out is h and h.grad_fn.name() == "AddOneBackward" and h._version == 2
    (y + h).sum().backward()
    assert x.grad.item() == 7 + 6
    with pytest.raises(RuntimeError, match="leaf"):
        AddOne.apply(x)


def check_once_differentiable(torch):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g * 2

    x = leaf(torch, 1.0)
    y = Once.apply(x)
    (first,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def check_reentrant_backward(torch):
    class Checkpoint(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.exp().sin()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            again = x.detach().requires_grad_()
            with torch.enable_grad():
                y = again.exp().sin()
            torch.autograd.backward(y, g)
            return again.grad

    x, z = leaf(torch), leaf(torch)
    Checkpoint.apply(Checkpoint.apply(x)).sum().backward()
    z.exp().sin().exp().sin().sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy())


def check_saved_tensors_hooks(torch):
    packed = []

    def pack(t):
        packed.append(tuple(t.shape))
        return t.numpy().copy()

    x, w = leaf(torch), leaf(torch)
    with torch.autograd.graph.saved_tensors_hooks(pack, torch.from_numpy):
        y = (x * w).exp()
    assert packed == [(3,)] * 3
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), (w * y).detach().numpy())
    with torch.autograd.graph.save_on_cpu():
        (x * w).sum().backward()


def check_anomaly(torch):
    x = leaf(torch, -1.0)
    with pytest.warns(UserWarning, match="Anomaly Detection has been enabled"):
        context = torch.autograd.detect_anomaly()
    with context:
        y = (x.sqrt() * 0).sum()
        with pytest.warns(UserWarning, match=r"x.sqrt\(\)"), \
                pytest.raises(RuntimeError, match="returned nan values in its 0th output"):
            y.backward()


def check_gradcheck(torch):
    x = leaf(torch)
    gradcheck = torch.autograd.gradcheck
    assert gradcheck(torch.sin, (x,)) and torch.autograd.gradgradcheck(torch.sin, (x,))
    z = torch.tensor([1 + 2j, 0.5 - 1j], dtype=torch.complex128, requires_grad=True)
    assert gradcheck(lambda t: (t * t.conj()).real, (z,))
    assert gradcheck(lambda t: t * t, (z,))
    op = square(torch)
    op.backward = staticmethod(lambda ctx, g: (g * ctx.saved_tensors[0], None))
    with pytest.raises(RuntimeError, match="Jacobian mismatch for output 0 with respect to input "
                                           "0"):
        gradcheck(lambda t: op.apply(t, 1), (x,))
    assert gradcheck(lambda t: op.apply(t, 1), (x,), raise_exception=False) is False
    from torch.autograd.gradcheck import GradcheckError
    assert issubclass(GradcheckError, RuntimeError)


def check_functional(torch):
    f = torch.autograd.functional
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    v = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    assert f.jacobian(lambda t: t ** 2, x).tolist() == np.diag([2.0, 4.0, 6.0]).tolist()
    assert f.hessian(lambda t: (t ** 3).sum(), x).tolist() == np.diag([6.0, 12.0, 18.0]).tolist()
    assert f.vjp(lambda t: t ** 2, x, v)[1].tolist() == [1.0, 4.0, 12.0]
    assert f.jvp(lambda t: t ** 2, x, v)[1].tolist() == [1.0, 4.0, 12.0]
    assert f.hvp(lambda t: (t ** 3).sum(), x, v)[1].tolist() == [3.0, 12.0, 36.0]
    assert f.vhp(lambda t: (t ** 3).sum(), x, v)[1].tolist() == [3.0, 12.0, 36.0]
    rows = f.jacobian(lambda a, b: (a * b, a.sum()), (x, v))
    assert [[tuple(block.shape) for block in row] for row in rows] == [[(3, 3), (3, 3)],
                                                                      [(3,), (3,)]]


def check_gradient_edge(torch):
    x = leaf(torch, 2.0)
    h = x * 3
    edge = torch.autograd.graph.get_gradient_edge(h)
    assert edge.node is h.grad_fn and edge.output_nr == 0
    (gh,) = torch.autograd.grad((h * h).sum(), edge)
    assert gh.item() == 12.0


def check_variable(torch):
    x = torch.ones(2)
    v = torch.autograd.Variable(x, requires_grad=True)
    assert isinstance(x, torch.autograd.Variable) and v.requires_grad and v.is_leaf
    assert v.data_ptr() == x.data_ptr()


def check_set_data_and_requires_grad(torch):
    x = leaf(torch)
    y = x * 2
    with pytest.raises(RuntimeError, match="leaf"):
        y.requires_grad_(False)
    with pytest.raises(RuntimeError, match="floating point"):
        torch.ones(2, dtype=torch.int64).requires_grad_()
    assert x.requires_grad_(False).requires_grad is False
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        x.register_hook(print)
    with pytest.raises(RuntimeError, match="non-leaf"):
        y.register_post_accumulate_grad_hook(print)


CHECKS = [function for name, function in sorted(globals().items()) if name.startswith("check_")]
