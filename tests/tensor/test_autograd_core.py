"""Autograd on real tensors: leaves, views, writes in place, versions, higher orders. These tests
also run under PyTorch (tests/conformance)."""

from __future__ import annotations

import warnings

import pytest


# --------------------------------------------------------------------------- leaves
def test_leaves(torch):
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    assert x.is_leaf and x.grad_fn is None and not y.is_leaf and y.requires_grad
    assert y.grad_fn.name() == "MulBackward0" and y.grad_fn.next_functions[0][0] is not None
    assert torch.ones(3).is_leaf and not torch.ones(3).requires_grad
    y.sum().backward()
    assert x.grad.tolist() == [2, 2, 2] and x.grad.grad_fn is None
    y = (x * 3).sum()
    y.backward()
    assert x.grad.tolist() == [5, 5, 5]  # gradients add up
    x.grad.zero_()
    assert x.grad.tolist() == [0, 0, 0]
    x.grad = None
    assert x.grad is None


def test_only_floating_leaves_can_ask_for_gradients(torch):
    with pytest.raises(RuntimeError, match="floating point"):
        torch.ones(2, dtype=torch.int64).requires_grad_()
    y = torch.ones(2, requires_grad=True) * 1
    with pytest.raises(RuntimeError, match="only change requires_grad flags of leaf variables"):
        y.requires_grad = False
    assert not y.detach().requires_grad
    assert not (torch.ones(2, requires_grad=True) > 0).requires_grad


def test_leaf_in_place_is_refused(torch):
    x = torch.ones(3, requires_grad=True)
    text = "a leaf Variable that requires grad is being used in an in-place operation"
    for change in (lambda: x.add_(1), lambda: x.zero_(), lambda: x.__iadd__(1)):
        with pytest.raises(RuntimeError, match=text):
            change()
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
        x[0] = 1
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
        x.view(3).mul_(2)
    with torch.no_grad():
        x.add_(1)
        x[0] = 5
    assert x.tolist() == [5, 2, 2] and x.is_leaf
    x.data.mul_(2)
    assert x.tolist() == [10, 4, 4]


def test_gradient_arguments(torch):
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar "
                                           "outputs"):
        (x * 2).backward()
    (x * 2).backward(torch.tensor([1.0, 10.0, 100.0]))
    assert x.grad.tolist() == [2, 20, 200]
    with pytest.raises(RuntimeError, match=r"shape|Mismatch"):
        (x * 2).backward(torch.ones(2))
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.ones(1).backward()


def test_backward_twice(torch):
    x = torch.ones(2, requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4, 4]
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        y.backward()


def test_assigning_gradients(torch):
    x = torch.ones(2, requires_grad=True)
    x.grad = torch.tensor([1.0, 2.0])
    x.sum().backward()
    assert x.grad.tolist() == [2, 3]
    for wrong, error in ((torch.ones(3), RuntimeError), (torch.ones(2, dtype=torch.float64),
                                                         RuntimeError), ([1.0, 2.0], TypeError)):
        with pytest.raises(error):
            x.grad = wrong


def test_grad_of_a_non_leaf_warns(torch):
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    with pytest.warns(UserWarning, match="not a leaf Tensor"):
        assert y.grad is None
    y.retain_grad()
    y.sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert y.grad.tolist() == [1, 1]


# --------------------------------------------------------------------------- in place
def test_in_place_on_intermediate_results(torch):
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    y.add_(1)
    y *= torch.tensor([3.0, 5.0, 7.0])
    y.sum().backward()
    assert x.grad.tolist() == [6, 10, 14]


def test_in_place_turns_a_plain_tensor_into_a_result(torch):
    x, y = torch.ones(3, requires_grad=True), torch.zeros(3)
    y.add_(x)
    assert y.requires_grad and not y.is_leaf
    y[1] = 7
    y.sum().backward()
    assert x.grad.tolist() == [1, 0, 1]


def test_writing_into_a_view_rewrites_the_base(torch):
    x = torch.ones(2, 3, requires_grad=True)
    y = x * 1
    row = y[0]
    row.mul_(5)
    assert "CopySlices" in y.grad_fn.name() and "grad_fn=<CopySlices>" in repr(y)
    y.sum().backward()
    assert x.grad.tolist() == [[5, 5, 5], [1, 1, 1]]


def test_writing_into_the_base_shows_in_views(torch):
    x = torch.ones(4, requires_grad=True)
    y = x * 1
    view = y[:2]
    y.mul_(3)
    view.sum().backward()
    assert x.grad.tolist() == [3, 3, 0, 0]


def test_views_of_views(torch):
    x = torch.ones(2, 2, 2, requires_grad=True)
    y = x * 1
    y[0][1].mul_(4)
    y.view(8)[7:].zero_()
    y.transpose(0, 2)[0].add_(y.detach()[..., 0].t())
    (y * torch.arange(8.0).reshape(2, 2, 2)).sum().backward()
    assert x.grad.tolist() == [[[0, 1], [8, 12]], [[4, 5], [6, 0]]]


def test_values_written_into_a_slice_get_gradients(torch):
    x, v = torch.zeros(3), torch.tensor([2.0], requires_grad=True)
    x[1:2] = v * v
    assert x.requires_grad
    (x * 3).sum().backward()
    assert v.grad.tolist() == [12]


def test_mutating_a_view_made_without_grad(torch):
    x = torch.ones(2, requires_grad=True)
    y = x * 1
    with torch.no_grad():
        view = y[:1]
    with pytest.raises(RuntimeError, match="no_grad"):
        view.mul_(2)


def test_views_of_several_results(torch):
    x = torch.ones(4, requires_grad=True)
    a, b = (x * 1).split(2)
    (a * 2 + b).sum().backward()
    assert x.grad.tolist() == [2, 2, 1, 1]


# --------------------------------------------------------------------------- versions
def test_saved_inputs_are_checked(torch):
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    z = y * y
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught:
        z.sum().backward()
    assert "version 1; expected version 0" in str(caught.value)


def test_saved_outputs_are_checked(torch):
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_writes_through_views_and_detached_tensors_count(torch):
    for write in (lambda y: y[0].zero_(), lambda y: y.detach().add_(1),
                  lambda y: y.__setitem__(1, 5.0)):
        x = torch.ones(3, requires_grad=True)
        y = x * 1
        z = (y * y).sum()
        write(y)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            z.backward()


def test_what_is_not_saved_may_be_changed(torch):
    x = torch.ones(3, requires_grad=True)
    y = x + 1
    z = y * 2
    y.add_(5)
    z.sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_both_lines_are_named(torch):
    """The error says where the tensor was saved and where it was changed."""
    if torch.__name__ == "torch":
        pytest.skip("PyTorch does not say where")
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    z = y * y  # saved here
    y.add_(1)  # changed here
    with pytest.raises(RuntimeError) as caught:
        z.sum().backward()
    text = str(caught.value)
    assert "z = y * y  # saved here" in text and "y.add_(1)  # changed here" in text
    assert text.count("test_autograd_core.py:") == 2


# --------------------------------------------------------------------------- through operations
def test_broadcasting_sums_gradients(torch):
    a, b = torch.ones(2, 3, requires_grad=True), torch.ones(3, requires_grad=True)
    s = torch.tensor(2.0, requires_grad=True)
    ((a * b) * s).sum().backward()
    assert a.grad.tolist() == [[2, 2, 2]] * 2 and b.grad.tolist() == [4, 4, 4]
    assert s.grad.item() == 6


def test_gradients_have_their_inputs_dtype(torch):
    x = torch.ones(2, dtype=torch.float16, requires_grad=True)
    y = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (x * y).sum().backward()
    assert x.grad.dtype is torch.float16 and y.grad.dtype is torch.float64


def test_shapes_move_gradients(torch):
    x = torch.arange(6.0, requires_grad=True)
    y = x.reshape(2, 3).t().flip(0)[1:].unsqueeze(0).expand(2, 2, 2)
    (y * torch.arange(8.0).reshape(2, 2, 2)).sum().backward()
    assert x.grad.tolist() == [8, 4, 0, 10, 6, 0]


def test_higher_orders(torch):
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y, orders = x ** 5, []
    for _ in range(4):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
        orders.append(y.item())
    assert orders == [80, 160, 240, 240]


def test_one_graph_used_twice(torch):
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    (y.sum() + (y * 3).sum()).backward()
    assert x.grad.tolist() == [8, 16]
    a, b = torch.autograd.grad((x * 2).sum() + (x * 0).sum(), [x, x], allow_unused=True)
    assert a.tolist() == b.tolist() == [2, 2]


def test_grad_of_unused_inputs(torch):
    x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        torch.autograd.grad(x * 2, y)
    assert torch.autograd.grad(x * 2, y, allow_unused=True) == (None,)


def test_modes(torch):
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        y = x * 2
        assert not y.requires_grad
        with torch.enable_grad():
            assert (x * 2).requires_grad
    with torch.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    with torch.inference_mode():
        z = x * 2
    assert z.is_inference() and not z.requires_grad

    @torch.no_grad()
    def function():
        return x * 2

    assert not function().requires_grad and torch.is_grad_enabled()


def test_detach_shares_memory(torch):
    x = torch.ones(2, requires_grad=True)
    y = x.detach()
    y[0] = 5
    assert x.tolist() == [5, 1] and not y.requires_grad
    w = (x * 2).detach_()
    assert w.is_leaf and not w.requires_grad


def test_hooks(torch):
    x = torch.ones(2, requires_grad=True)
    seen = []
    handle = x.register_hook(lambda grad: seen.append(grad.tolist()) or grad * 2)
    (x * 3).sum().backward()
    handle.remove()
    (x * 3).sum().backward()
    assert seen == [[3, 3]] and x.grad.tolist() == [9, 9]
