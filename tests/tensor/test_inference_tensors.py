"""Tensors made in inference mode: which they are, and what may be done with them elsewhere."""

from __future__ import annotations

import threading

import pytest

import flambeau as torch

WRITES = {
    "add_": lambda x: x.add_(1),
    "setitem": lambda x: x.__setitem__(0, 3),
    "view": lambda x: x[1:].mul_(2),
    "zero_": lambda x: x.zero_(),
    "copy_": lambda x: x.copy_(torch.zeros(3)),
    "uniform_": lambda x: x.uniform_(),
    "out": lambda x: torch.add(torch.ones(3), 1, out=x),
    "foreach": lambda x: torch._foreach_add_([x, torch.ones(3)], 1),
    "clip": lambda x: torch.nn.utils.clip_grad_norm_([_with_grad(x)], 0.1),
}


def _with_grad(value):
    owner = torch.ones(3, requires_grad=True)
    owner.grad = value
    return owner


def _made_in_inference():
    with torch.inference_mode():
        return torch.ones(3)


@pytest.mark.parametrize("name", WRITES)
def test_an_inference_tensor_is_written_to_inside_only(name):
    x = _made_in_inference()
    for _ in range(3):  # the first call, and warm ones
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside"):
            WRITES[name](x)
        assert x.tolist() == [1, 1, 1]
    with torch.inference_mode():
        WRITES[name](x)
        with torch.inference_mode(False), pytest.raises(RuntimeError, match="Inplace update"):
            WRITES[name](x)
    ordinary = torch.ones(3)
    WRITES[name](ordinary)
    assert not ordinary.is_inference()


def test_which_tensors_are_inference_tensors():
    a, p = torch.ones(3), torch.ones(3, requires_grad=True)
    layer = torch.nn.LSTM(3, 4)
    with torch.inference_mode():
        made = [torch.ones(2), a * 2, p * 2, a.clone(), torch.tensor([1.0]), torch.empty(0),
                a.to(torch.float64), torch.randn(3), *a.sort(), torch.from_numpy(a.numpy().copy()),
                torch.stack([a, a]).view(6)[1:], torch.zeros(2), torch.full((2,), 3.0),
                layer(torch.ones(2, 1, 3))[0], torch.nn.Linear(2, 2).weight, torch.arange(3),
                torch.rand(2, requires_grad=True), torch.ones(2, device="meta")]
        shared = [a.view(3, 1), a.detach(), a.to(torch.float32), a[1:], *a.unbind(), a.data]
        with torch.inference_mode(False):
            shared.append(torch.ones(2) * 2)
    assert all(t.is_inference() for t in made)
    assert not any(t.is_inference() for t in shared)
    x = made[0]
    assert all(t.is_inference() for t in (x[1:], x.detach(), x.data, x.view(2, 1)))
    assert not any(t.is_inference() for t in (x + 1, x.clone(), torch.ones(2)))


def test_inference_tensors_in_recorded_computations():
    x, p = _made_in_inference(), torch.ones(3, requires_grad=True)
    (x + p).sum().backward()  # nothing is kept
    assert p.grad.tolist() == [1, 1, 1]
    for function in (torch.mul, torch.dot, torch.maximum):
        for _ in range(3):
            with pytest.raises(RuntimeError, match="cannot be saved for backward"):
                function(x, p)
    with pytest.raises(RuntimeError, match="do not track version counter"):
        _ = x._version
    for ask in (x.requires_grad_, lambda: torch.nn.Parameter(x)):
        with pytest.raises(RuntimeError, match="requires_grad=True on inference tensor"):
            ask()
    assert torch.nn.Parameter(x, requires_grad=False).is_inference()
    (x.clone() * p).sum().backward()


def test_other_threads_are_not_in_inference_mode():
    inside, done = threading.Event(), threading.Event()

    def infer():
        with torch.inference_mode():
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=infer)
    thread.start()
    inside.wait(10)
    here = torch.ones(3) * 2
    done.set()
    thread.join()
    assert not here.is_inference()
    here.add_(1)


def test_optimizers_and_programs_in_inference_mode():
    step = torch.compile(lambda x: (x * 2 + 1).relu())
    for inference in (False, True, False, True):
        with torch.inference_mode(inference):
            assert step(torch.ones(4)).is_inference() is inference
    with torch.inference_mode():
        weight = torch.nn.Parameter(torch.ones(3))
        weight.grad = torch.ones(3)
        optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
        optimizer.step()
        optimizer.step()
    assert torch.allclose(weight, torch.full((3,), 1 - 0.5 - 0.95))
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        optimizer.step()
