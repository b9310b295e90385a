"""Saved tensors: version checks and what the error says; pack and unpack hooks; locations."""

from __future__ import annotations

import gc
import weakref

import pytest
from fake_tensor import Tensor, tensor

from flambeau.autograd import saved
from flambeau.autograd.graph import increment_version
from flambeau.autograd.saved import disable_saved_tensors_hooks, save_on_cpu, saved_tensors_hooks
from flambeau.core import errors


def test_changed_input_is_an_error():
    x = tensor([1.0, 2.0, 3.0], requires_grad=True)
    h = x + 1.0
    y = h * h
    h.add_(1.0)
    with pytest.raises(RuntimeError) as error:
        y.sum().backward()
    text = str(error.value)
    assert text.startswith(
        "one of the variables needed for gradient computation has been modified by an inplace "
        "operation: [torch.DoubleTensor [3]], which is output 0 of AddBackward0, is at version 1; "
        "expected version 0 instead.")
    assert "needed by" in text and "changed by" in text


def test_changed_output_is_an_error():
    x = tensor([1.0], requires_grad=True)
    y = x.exp()
    y.detach().add_(1.0)
    with pytest.raises(RuntimeError, match="output 0 of ExpBackward0, is at version 1"):
        y.sum().backward()


def test_version_can_be_raised_by_hand():
    x = tensor([1.0], requires_grad=True)
    y = x * x
    increment_version(x)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        y.sum().backward()


def test_saved_outputs_make_no_cycle():
    gc.disable()
    try:
        x = tensor([1.0], requires_grad=True)
        y = x.exp()
        alive = weakref.ref(y)
        node = weakref.ref(y.grad_fn)
        del y
        assert alive() is None and node() is None
    finally:
        gc.enable()


def test_saved_output_has_its_history_back():
    x = tensor([0.5], requires_grad=True)
    y = x.exp()
    (again,) = saved.unpack(y.grad_fn)
    assert again.grad_fn is y.grad_fn and again.requires_grad
    from flambeau.autograd import api
    (first,) = api.grad(y.sum(), x, create_graph=True)
    (second,) = api.grad(first.sum(), x, create_graph=True)
    assert second.tolist() == y.tolist()


def test_hooks_pack_and_unpack():
    log = []

    def pack(t):
        log.append("pack")
        return t.data.copy()

    def unpack(data):
        log.append("unpack")
        return Tensor(data)

    x, w = tensor([3.0], requires_grad=True), tensor([2.0], requires_grad=True)
    with saved_tensors_hooks(pack, unpack):
        y = (x * w).exp()
    outside = y * x
    assert log == ["pack"] * 3
    x.add_(0.0)  # hooks hold their own data: nothing to check there
    with pytest.raises(RuntimeError, match="inplace"):
        outside.sum().backward()
    log.clear()
    y.sum().backward()
    assert log == ["unpack"] * 3
    assert x.grad.tolist() == (y * 2.0).tolist()


def test_hooks_keep_double_backward_right():
    from flambeau.autograd import api
    x = tensor([3.0], requires_grad=True)
    with saved_tensors_hooks(lambda t: t.data, Tensor):
        y = (x * x * x).sum()
        (first,) = api.grad(y, x, create_graph=True)
        (second,) = api.grad(first.sum(), x)
    assert first.tolist() == [27.0] and second.tolist() == [18.0]


def test_hook_errors():
    x = tensor([1.0], requires_grad=True)
    with saved_tensors_hooks(lambda t: t.add_(1.0), lambda t: t), \
            pytest.raises(RuntimeError, match="modifying its input in place"):
        x * x
    with saved_tensors_hooks(lambda t: t, lambda t: 3):
        y = x * x
    with pytest.raises(TypeError, match="expected to be a Tensor"):
        y.sum().backward()
    with disable_saved_tensors_hooks("not here"), \
            pytest.raises(RuntimeError, match="not here"), save_on_cpu():
        pass


def test_locations():
    here = errors.caller_location()
    line = errors.describe(here)
    assert line.filename == __file__ and line.function == "test_locations"
    assert line.source == "here = errors.caller_location()"
    assert "in test_locations: here = " in str(line)
    assert errors.user_location().source.startswith("assert errors.user_location()")
    stack = errors.stack_location()
    assert "stack = errors.stack_location()" in errors.describe_stack(stack)
    compiled = {}
    exec(compile("def f(get): return get()", "<flambeau kernel>", "exec"), compiled)
    assert errors.describe(compiled["f"](errors.caller_location)).filename == __file__


def test_last_write_is_bounded_and_checked():
    storage = Tensor([1.0])._storage
    assert errors.last_write(storage) is None
    storage.version += 1
    errors.note_write(storage, errors.caller_location())
    assert errors.last_write(storage).function == "test_last_write_is_bounded_and_checked"
    storage.version += 1  # a write that nobody noted
    assert errors.last_write(storage) is None
    others = [Tensor([1.0])._storage for _ in range(10000)]
    for other in others:
        errors.note_write(other, errors.caller_location())
    kept = len(errors._young_writes) + len(errors._old_writes)
    assert kept <= 2 * errors._WRITES_KEPT + 2
    assert errors.last_write(others[-1]) is not None
