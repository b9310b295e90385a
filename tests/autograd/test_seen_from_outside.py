"""What users see of the tape: batches of gradients, saved tensors by name, hooks that change them,
forward mode switched off."""

from __future__ import annotations

import pytest

import flambeau as torch
import flambeau.autograd.forward_ad as fwAD

REAL_TENSORS = True


def test_a_batch_of_gradients_equals_single_ones():
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    other = torch.ones(2, requires_grad=True)
    y = x ** 2
    rows = torch.eye(3)
    found, none = torch.autograd.grad(y, (x, other), rows, is_grads_batched=True,
                                      retain_graph=True, allow_unused=True)
    assert none is None
    assert torch.equal(found, torch.diag(2 * x.detach()))
    twice, = torch.autograd.grad(y, x, rows, is_grads_batched=True, create_graph=True)
    assert torch.autograd.grad(twice.sum(), x)[0].tolist() == [2.0, 2.0, 2.0]
    for wrong in (torch.ones(4), torch.ones(2, 4)):
        with pytest.raises(RuntimeError, match="first dimension of each grad_output"):
            torch.autograd.grad(y, x, wrong, is_grads_batched=True)


def test_saved_tensors_by_name():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.pow(2)
    assert y.grad_fn._saved_self is x
    assert y.grad_fn._saved_exponent == 2
    assert "_saved_self" in dir(y.grad_fn)
    e = x.exp()
    assert torch.equal(e.grad_fn._saved_result, e)
    with pytest.raises(AttributeError, match="_saved_other"):
        _ = y.grad_fn._saved_other
    y.grad_fn._raw_saved_self.register_hooks(lambda t: t * 10, lambda t: t)
    y.sum().backward()
    assert x.grad.tolist() == [20.0, 40.0]
    with pytest.raises(RuntimeError, match="a second time"):
        _ = y.grad_fn._saved_self


def test_what_an_unpack_hook_gives_is_read_as_what_was_packed():
    weight = torch.randn(4, 3).t()
    x = torch.randn(3, 4, requires_grad=True)

    def gradient(pack, unpack=None):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack or (lambda t: t)):
            y = x * weight
        return torch.autograd.grad(y.sum(), x)[0]

    assert torch.equal(gradient(lambda t: t.clone(memory_format=torch.contiguous_format)), weight)
    assert torch.equal(gradient(lambda t: t.double()), weight)
    assert torch.equal(gradient(lambda t: t[:1]), weight[:1].expand(3, 4))
    with pytest.raises(RuntimeError, match="an unpack hook of saved tensors"):
        gradient(lambda t: t[None])
    assert torch.equal(torch.autograd.grad((x * weight).sum(), x)[0], weight)


def test_pack_hooks_see_the_arguments_themselves():
    seen = []
    p = torch.nn.Parameter(torch.ones(2))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
        y = p * torch.ones(2)
        z = p.sin()
    (y + z).sum().backward()
    assert any(one is p for one in seen)
    assert torch.allclose(p.grad, 1 + torch.ones(2).cos())


def test_forward_mode_can_be_switched_off():
    with fwAD.dual_level():
        x = fwAD.make_dual(torch.tensor([2.0]), torch.tensor([1.0]))
        with fwAD._set_fwd_grad_enabled(False):
            assert fwAD.unpack_dual(x * 3).tangent is None
            assert fwAD.unpack_dual(x[0]).tangent is None
        assert fwAD.unpack_dual(x * 3).tangent.tolist() == [3.0]
        with pytest.raises(RuntimeError, match="itself has a forward gradient"):
            fwAD.make_dual(torch.tensor([2.0]), x)
        assert "tangent=1.0" in repr(x.sum())


def test_anomaly_mode_is_asked_for_under_both_names():
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        assert torch.is_anomaly_enabled() and not torch.is_anomaly_check_nan_enabled()
    torch.set_anomaly_enabled(True)
    assert torch.is_anomaly_check_nan_enabled()
    torch.set_anomaly_enabled(False)
    assert not torch.is_anomaly_enabled()
