"""The engine on a fake tensor: order, accumulation, hooks, captures, errors."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from fake_tensor import FakeNode, Tensor, record, tensor

from flambeau.autograd import api, engine, graph, hooks
from flambeau.autograd.anomaly import detect_anomaly, set_detect_anomaly
from flambeau.autograd.grad_mode import is_grad_enabled


def leaf(*values):
    return tensor(values, requires_grad=True)


def unary(name, x, rule, value=None):
    """An operation with a backward given as `rule(grad)`."""
    out = Tensor(x.data.copy() if value is None else value)
    return record(name, out, (x,), lambda grad, saved: (rule(grad),))


def test_values_and_public_face():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = (x * w).exp() + x
    y.sum().backward()
    e = np.exp(x.data * w.data)
    np.testing.assert_allclose(x.grad.data, w.data * e + 1)
    np.testing.assert_allclose(w.grad.data, x.data * e)
    node = y.grad_fn
    assert node.name() == type(node).__name__ == "AddBackward0"
    assert repr(node).startswith("<AddBackward0 object at 0x")
    (exp, number), (acc, _) = node.next_functions
    assert exp.name() == "ExpBackward0" and number == 0
    assert acc.name() == "torch::autograd::AccumulateGrad" and acc.variable is x
    assert (x * 2.0).grad_fn.next_functions[1] == (None, 0)
    node.metadata["note"] = 1
    assert node.metadata == {"note": 1}
    assert node._sequence_nr() > exp._sequence_nr()


def test_node_called_by_hand():
    x = leaf(2.0)
    node = (x * 3.0).grad_fn
    first, second = node(tensor([1.0]))
    assert first.tolist() == [3.0] and second.tolist() == [2.0]


def test_diamond_runs_each_node_once_newest_first():
    order = []

    def noting(name):
        def rule(grad):
            order.append(name)
            return grad
        return rule

    x = leaf(1.0)
    a = unary("A", x, noting("a"))
    b = unary("B", a, noting("b"))
    c = unary("C", a, noting("c"))
    (b + c + a).sum().backward()
    assert order == ["c", "b", "a"]
    assert x.grad.tolist() == [3.0]


def test_many_contributions_do_not_mutate_shared_gradients():
    x, z = leaf(1.0), leaf(1.0)
    seed = tensor([1.0])
    total = x + z
    for _ in range(4):
        total = total + x
    total.backward(seed)
    assert x.grad.tolist() == [5.0] and z.grad.tolist() == [1.0] and seed.tolist() == [1.0]
    x.grad.add_(10.0)
    assert z.grad.tolist() == [1.0] and seed.tolist() == [1.0]


def test_first_gradient_is_taken_and_later_ones_added_in_place():
    x = leaf(1.0, 2.0)
    made = []

    def rule(grad):
        fresh = Tensor(grad.data * 2)
        made.append(id(fresh))
        return fresh

    unary("Double", x, rule).sum().backward()
    assert id(x.grad) == made[0]
    kept = x.grad
    (x * 3.0).sum().backward()
    assert x.grad is kept and kept.tolist() == [5.0, 5.0]


def test_gradient_that_is_seen_elsewhere_is_copied():
    x = leaf(1.0, 2.0)
    seed = tensor([1.0, 1.0])
    (x + 0.0).backward(seed)
    assert x.grad is not seed and x.grad.data is not seed.data
    other = leaf(1.0, 2.0)
    (other.reshape(2, 1)).backward(seed.reshape(2, 1))
    other.grad.add_(1.0)
    assert seed.tolist() == [1.0, 1.0]


def test_expanded_gradient_becomes_dense():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    assert x.grad._meta.strides == (1,)


def test_create_graph_gives_second_derivative():
    x = leaf(3.0)
    y = (x * x * x).sum()
    (first,) = api.grad(y, x, create_graph=True)
    assert first.tolist() == [27.0] and first.requires_grad
    (second,) = api.grad(first.sum(), x)
    assert second.tolist() == [18.0]


def test_backward_with_create_graph_keeps_grad_differentiable():
    x = leaf(3.0)
    (x * x).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    before = x.grad
    (x * x).sum().backward(create_graph=True)
    assert x.grad is not before and x.grad.tolist() == [12.0]


def test_second_backward_needs_retain_graph():
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4.0]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()
    free = (x + x).sum()  # saves nothing: any number of times
    free.backward()
    free.backward()


def test_mode_inside_backward():
    seen = []
    x = leaf(1.0)

    def rule(grad):
        seen.append(is_grad_enabled())
        return grad

    y = unary("Look", x, rule).sum()
    y.backward(retain_graph=True)
    y.backward(create_graph=True)
    assert seen == [False, True] and is_grad_enabled()


def test_roots():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="element 0 of tensors does not require grad and does "
                                           "not have a grad_fn"):
        tensor(1.0).backward()
    with pytest.raises(RuntimeError, match="element 1 of tensors does not require"):
        api.backward([x.sum(), tensor(1.0)])
    with pytest.raises(RuntimeError, match="only for scalar outputs"):
        leaf(1.0, 2.0).backward()
    with pytest.raises(RuntimeError, match="Mismatch in shape: grad_output\\[0\\]"):
        (x * 2.0).backward(tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="either Tensors or None, but got float"):
        api.backward([x * 2.0], [3.0])
    x.backward()  # a leaf is its own root
    assert x.grad.tolist() == [1.0]
    y = x * 2.0
    api.backward([y, y], [tensor([1.0]), tensor([10.0])])
    assert x.grad.tolist() == [23.0]


def test_gradient_shapes_are_checked_and_reduced():
    x = leaf(1.0)
    y = unary("Wide", x, lambda grad: tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(4, 1))
    y.sum().backward()
    assert x.grad.tolist() == [10.0]
    bad = unary("Bad", leaf(1.0, 2.0), lambda grad: tensor([1.0, 2.0, 3.0]))
    with pytest.raises(RuntimeError, match=r"Function Bad returned an invalid gradient at index 0 "
                                           r"- got \[3\] but expected shape compatible with \[2\]"):
        bad.sum().backward()


def test_gradient_dtype_follows_the_input():
    x = Tensor(np.array([1.0], np.float32), requires_grad=True)
    y = unary("Up", x, lambda grad: Tensor(grad.data.astype(np.float64)))
    y.sum().backward()
    assert x.grad.dtype is x.dtype


def test_grad_of_inputs_and_unused():
    x, w, other = leaf(2.0), leaf(3.0), leaf(1.0)
    h = x * w
    y = (h * h).sum()
    gx, gh = api.grad(y, [x, h], retain_graph=True)
    assert gh.tolist() == [12.0] and gx.tolist() == [36.0]
    assert x.grad is None and w.grad is None
    with pytest.raises(RuntimeError, match="at index 1 appears to not have been used"):
        api.grad(y, [x, other], retain_graph=True)
    assert api.grad(y, [other], retain_graph=True, allow_unused=True) == (None,)
    (zero,) = api.grad(y, [other], retain_graph=True, materialize_grads=True)
    assert zero.tolist() == [0.0]
    with pytest.raises(RuntimeError, match="One of the differentiated Tensors does not require"):
        api.grad(y, tensor(1.0), retain_graph=True)
    with pytest.raises(ValueError, match="allow_unused"):
        api.grad(y, x, allow_unused=False, materialize_grads=True)
    with pytest.raises(ValueError, match="needs grad_outputs"):
        api.grad(y, x, is_grads_batched=True)


def test_only_what_leads_to_the_inputs_is_run():
    ran = []

    def noting(name):
        def rule(grad):
            ran.append(name)
            return grad
        return rule

    x, w = leaf(1.0), leaf(1.0)
    a = unary("A", x, noting("a"))
    b = unary("B", w, noting("b"))
    c = unary("C", a + b, noting("c"))
    api.grad(c.sum(), x, retain_graph=True)
    assert ran == ["c", "a"]
    ran.clear()
    api.grad(c.sum(), a, retain_graph=True)
    assert ran == ["c"]
    ran.clear()
    c.sum().backward(inputs=[w])
    assert ran == ["c", "b"] and x.grad is None and w.grad.tolist() == [1.0]


def test_backward_into_an_inner_tensor():
    x = leaf(1.0)
    h = x * 2.0
    (h * 3.0).sum().backward(inputs=[h])
    assert h.grad.tolist() == [3.0] and x.grad is None


def test_should_compute_follows_the_request():
    seen = []
    x, w = leaf(1.0), leaf(2.0)

    class Both(FakeNode):
        __slots__ = ()

        def apply(self, grads):
            seen.append((engine.should_compute(self, 0), engine.should_compute(self, 1)))
            return grads[0], grads[0]

    out = tensor([1.0])
    out._grad_fn, out._rg = Both((graph.edge_of(x), graph.edge_of(w)), (out._meta,)), True
    out.backward()
    api.grad(out, w)
    assert seen == [(True, True), (False, True)]


def test_several_outputs_with_some_unused():
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    first, _, last = x.unbind()
    (first + last * 2.0 + last).sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [3.0, 3.0]]


def test_undefined_gradients_pass_through():
    x = leaf(1.0)
    y = unary("Stop", x * x, lambda grad: None)
    y.sum().backward()
    assert x.grad is None


def test_tensor_hooks_in_order_and_replaced():
    x = leaf(1.0)
    h = x * 2.0
    seen = []
    h.register_hook(lambda grad: seen.append(grad.tolist()))
    h.register_hook(lambda grad: grad * 10.0)
    handle = h.register_hook(lambda grad: grad * 100.0)
    h.retain_grad()
    handle.remove()
    x.register_hook(lambda grad: grad + 1.0)
    y = h * 3.0
    y.sum().backward(retain_graph=True)
    assert seen == [[3.0]] and h.grad.tolist() == [30.0] and x.grad.tolist() == [61.0]
    assert h._retains_grad and not y._retains_grad
    gh, gx = api.grad(y.sum(), [h, x], retain_graph=True)
    assert gh.tolist() == [3.0] and gx.tolist() == [61.0]
    assert api.grad(y.sum(), h, retain_graph=True)[0].tolist() == [30.0]
    h.grad = None
    y.sum().backward(inputs=[h], retain_graph=True)
    api.grad(y.sum(), [h, x], retain_graph=True)
    assert h.grad.tolist() == [60.0]  # as in PyTorch: retained in every pass


def test_hook_results_are_checked():
    x = leaf(1.0)
    handle = x.register_hook(lambda grad: 3)
    with pytest.raises(TypeError, match="expected Variable, but hook returned 'int'"):
        (x * 2.0).sum().backward()
    handle.remove()
    x.register_hook(lambda grad: tensor([1.0, 2.0]))
    with pytest.raises(RuntimeError, match="has changed the size of value"):
        (x * 2.0).sum().backward()
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        tensor(1.0).register_hook(print)


def test_node_hooks():
    x = leaf(1.0)
    y = x * 2.0
    calls = []
    y.grad_fn.register_prehook(lambda grads: (grads[0] * 2.0,))
    handle = y.grad_fn.register_hook(
        lambda inputs, outputs: calls.append((inputs[0].tolist(), outputs[0].tolist())))
    y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] * 5.0, None))
    y.sum().backward(retain_graph=True)
    assert calls == [([4.0], [2.0])] and x.grad.tolist() == [20.0]
    handle.remove()
    y.sum().backward(retain_graph=True)
    assert len(calls) == 1
    y.grad_fn.register_hook(lambda inputs, outputs: (None,))
    with pytest.raises(RuntimeError, match="incorrect number of values"):
        y.sum().backward(retain_graph=True)


def test_accumulator_hooks():
    x = leaf(1.0)
    keep = graph.accumulator_of(x)
    events = []
    keep.register_prehook(lambda grads: events.append("pre"))
    keep.register_hook(lambda inputs, outputs: events.append(("post", x.grad.tolist(), inputs)))
    hooks.register_post_accumulate_hook(x, lambda t: events.append(("done", t is x)))
    x.register_hook(lambda grad: events.append("tensor"))
    (x * 2.0 + x).sum().backward()
    assert events == ["tensor", "pre", ("done", True), ("post", [3.0], ())]
    with pytest.raises(RuntimeError, match="non-leaf"):
        hooks.register_post_accumulate_hook(x * 2.0, print)


def test_post_accumulate_hook_fires_once_and_promptly():
    events = []
    w1, w2 = leaf(1.0), leaf(1.0)
    h = unary("First", w1, lambda grad: (events.append("first"), grad)[1])
    y = h * w2 + w2
    for name, w in (("w1", w1), ("w2", w2)):
        hooks.register_post_accumulate_hook(w, lambda t, name=name: events.append(name))
    y.sum().backward()
    assert events == ["w2", "first", "w1"]


def test_multi_grad_hook():
    a, b, c = leaf(1.0), leaf(2.0), leaf(3.0)
    calls = []
    handle = graph.register_multi_grad_hook([a, b, c], lambda grads: calls.append(
        [None if grad is None else grad.tolist() for grad in grads]))
    (a * b).sum().backward()
    assert calls == [[[2.0], [1.0], None]]
    handle.remove()
    (a * b).sum().backward()
    assert len(calls) == 1
    graph.register_multi_grad_hook([a, b], lambda grad: calls.append(grad.tolist()), mode="any")
    (a * b).sum().backward()
    assert len(calls) == 2


def test_backward_inside_backward():
    x, w = leaf(3.0), leaf(2.0)

    def rule(grad):
        inner = tensor([4.0], requires_grad=True)
        from flambeau.autograd.grad_mode import enable_grad
        with enable_grad():
            (inner * inner * w).sum().backward()
        assert not is_grad_enabled()
        return grad * inner.grad

    unary("Outer", x, rule).sum().backward()
    assert x.grad.tolist() == [16.0] and w.grad.tolist() == [16.0]


def test_final_callbacks():
    x = leaf(1.0)
    events = []
    x.register_hook(lambda grad: engine.queue_callback(lambda: events.append(x.grad.tolist())))
    (x * 2.0).sum().backward()
    assert events == [[2.0]]
    with pytest.raises(RuntimeError, match="only be installed during backward"):
        engine.queue_callback(print)


def test_failed_backward_leaves_no_mode_behind():
    x = leaf(1.0)

    def rule(grad):
        raise ZeroDivisionError("boom")

    with pytest.raises(ZeroDivisionError):
        unary("Fail", x, rule).sum().backward()
    assert is_grad_enabled()
    with pytest.raises(RuntimeError):
        engine.current_pass()


def test_graph_dies_by_reference_counting():
    gc.disable()
    try:
        x = leaf(1.0)
        y = (x * 2.0).exp().sum()
        node = weakref.ref(y.grad_fn)
        inner = weakref.ref(y.grad_fn.next_functions[0][0])
        acc = weakref.ref(graph.accumulator_of(x))
        del y
        assert node() is None and inner() is None and acc() is None
        z = leaf(5.0)
        out = z * 1.0
        alive = weakref.ref(z)
        del z
        assert alive() is not None
        del out
        assert alive() is None
    finally:
        gc.enable()


def test_long_chains_do_not_recurse():
    x = leaf(1.0)
    y = x
    for _ in range(20000):
        y = y + 1.0
    y.sum().backward()
    assert x.grad.tolist() == [1.0]
    del y


def test_threads_have_their_own_passes():
    x = leaf(1.0)
    errors = []

    def work():
        try:
            for _ in range(50):
                api.grad((x * x).sum(), x)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_gradient_edges():
    x = leaf(2.0)
    h = x * 3.0
    y = h * h
    edge = graph.get_gradient_edge(h)
    assert edge.node is h.grad_fn and edge.output_nr == 0
    (gh,) = api.grad(y.sum(), edge, retain_graph=True)
    assert gh.tolist() == [12.0]
    (gx,) = api.grad(graph.get_gradient_edge(y.sum()), x)
    assert gx.tolist() == [36.0]
    with pytest.raises(RuntimeError, match="does not require gradients"):
        graph.get_gradient_edge(tensor(1.0))


def test_anomaly_mode_shows_the_forward_call():
    x = leaf(1.0)
    with pytest.warns(UserWarning, match="Anomaly Detection has been enabled"):
        context = detect_anomaly()
    with context:
        y = unary("Nan", x, lambda grad: grad * float("nan"))  # the line to blame
        with pytest.warns(UserWarning, match="the line to blame"), \
                pytest.raises(RuntimeError, match="Function 'Nan' returned nan values in its 0th"):
            y.sum().backward()
    (x * float("nan")).sum().backward()
    with set_detect_anomaly(True, check_nan=False):
        (x * float("nan")).sum().backward()

        def fail(grad):
            raise ValueError("no")

        y = unary("Fail", x, fail)
        with pytest.warns(UserWarning, match="Error detected in Fail"), pytest.raises(ValueError):
            y.sum().backward()


def test_inner_tensor_is_an_end_for_rules_that_ask():
    x = leaf(1.0)
    h = x * 2.0

    class Asks(FakeNode):
        __slots__ = ()

        def apply(self, grads):
            return (grads[0] if engine.should_compute(self, 0) else None,)

    out = tensor([1.0])
    out._grad_fn, out._rg = Asks((graph.edge_of(h),), (out._meta,)), True
    out.backward(inputs=[h])
    assert h.grad.tolist() == [1.0]
    assert api.grad(out, h)[0].tolist() == [1.0]


def test_retained_gradient_moves_with_the_history():
    x = leaf(1.0)
    h = x * 2.0
    h.retain_grad()
    before = h.grad_fn
    again = h * 5.0  # what an in-place operation leaves: the same tensor, another node
    h._grad_fn = again.grad_fn
    hooks.move_retain_grad(h, before, 0)
    (h * 3.0).sum().backward()
    assert h.grad.tolist() == [3.0] and x.grad.tolist() == [30.0]
