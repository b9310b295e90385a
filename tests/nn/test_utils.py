"""nn.utils: normalization by hooks, pruning, folding of batch normalization, other helpers."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.nn import utils
from flambeau.nn.utils import prune


def weight_norm(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return utils.weight_norm(*args, **kwargs)


# ---------------------------------------------------------------------- normalization by hooks
def test_weight_norm_is_computed_before_each_forward():
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    with pytest.warns(FutureWarning, match="parametrizations"):
        utils.weight_norm(layer)
    assert {n for n, _ in layer.named_parameters()} == {"bias", "weight_g", "weight_v"}
    layer(torch.ones(1, 4)).sum().backward()
    assert layer.weight_g.grad is not None
    with torch.no_grad():
        layer.weight_g.mul_(2)
    layer(torch.ones(1, 4))
    torch.testing.assert_close(layer.weight, 2 * before)
    with pytest.raises(RuntimeError, match="two weight_norm hooks"):
        weight_norm(layer)
    utils.remove_weight_norm(layer)
    assert isinstance(layer.weight, nn.Parameter)
    torch.testing.assert_close(layer.weight.detach(), 2 * before)
    with pytest.raises(ValueError, match="not found"):
        utils.remove_weight_norm(layer)


def test_spectral_norm_by_hook_and_its_state():
    layer = utils.spectral_norm(nn.Linear(6, 4), n_power_iterations=10)
    assert set(layer.state_dict()) == {"bias", "weight_orig", "weight_u", "weight_v"}
    for _ in range(5):
        layer(torch.ones(1, 6))
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=1e-3)
    twin = utils.spectral_norm(nn.Linear(6, 4))
    twin.load_state_dict(layer.state_dict())
    twin.eval()
    layer.eval()
    x = torch.randn(2, 6)
    torch.testing.assert_close(twin(x), layer(x))
    utils.remove_spectral_norm(layer)
    assert isinstance(layer.weight, nn.Parameter)
    assert not layer._forward_pre_hooks
    assert not layer._load_state_dict_pre_hooks


def test_spectral_norm_completes_older_states():
    layer = utils.spectral_norm(nn.Linear(6, 4), n_power_iterations=10)
    for _ in range(5):
        layer(torch.ones(1, 6))
    state = dict(layer.state_dict())
    v = state.pop("weight_v")
    state["weight"] = layer.weight.detach()
    fresh = utils.spectral_norm(nn.Linear(6, 4))
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh.weight_v, v, rtol=1e-2, atol=1e-2)


# ---------------------------------------------------------------------- pruning
def test_pruned_entries_stay_zero_while_the_rest_is_trained():
    layer = prune.l1_unstructured(nn.Linear(6, 4), "weight", amount=0.5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    mask = layer.weight_mask.clone()
    assert int(mask.sum()) == 12
    assert prune.is_pruned(layer)
    smallest = layer.weight_orig.detach().abs()[mask == 0].max()
    assert smallest <= layer.weight_orig.detach().abs()[mask == 1].min()
    for _ in range(2):
        optimizer.zero_grad()
        layer(torch.randn(3, 6)).sum().backward()
        optimizer.step()
    layer(torch.randn(1, 6))
    assert torch.equal(layer.weight == 0, mask == 0)
    prune.remove(layer, "weight")
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert torch.equal(layer.weight == 0, mask == 0)
    assert not prune.is_pruned(layer)


def test_pruning_again_prunes_what_is_left():
    layer = nn.Conv2d(3, 4, 2)
    prune.ln_structured(layer, "weight", amount=1, n=2, dim=0)
    prune.random_unstructured(layer, "weight", amount=6)
    assert int((layer.weight_mask == 0).sum()) == 12 + 6
    prune.random_structured(layer, "weight", amount=1, dim=0)
    assert int((layer.weight_mask.sum((1, 2, 3)) == 0).sum()) == 2
    hooks = list(layer._forward_pre_hooks.values())
    assert len(hooks) == 1
    assert len(hooks[0]) == 3


def test_global_pruning_compares_all_parameters():
    small, large = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        small.weight.fill_(0.1)
        large.weight.fill_(1.0)
    prune.global_unstructured([(small, "weight"), (large, "weight")], prune.L1Unstructured,
                              amount=9)
    assert not small.weight.any()
    assert large.weight.all()
    with pytest.raises(TypeError, match="unstructured"):
        prune.global_unstructured([(small, "weight")], prune.LnStructured, amount=1, n=2)


@pytest.mark.parametrize(("amount", "error"), [
    (-1, ValueError), (1.5, ValueError), (1000, ValueError), ("a", TypeError)])
def test_amounts_that_make_no_sense_leave_the_module_as_it_was(amount, error):
    layer = nn.Linear(3, 3)
    weight = layer.weight
    with pytest.raises(error):
        prune.l1_unstructured(layer, "weight", amount=amount)
    assert layer.weight is weight
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert not layer._forward_pre_hooks


def test_channels_need_two_dimensions():
    with pytest.raises(ValueError, match="multidimensional"):
        prune.ln_structured(nn.Linear(3, 3), "bias", amount=1, n=2, dim=0)
    with pytest.raises(IndexError):
        prune.ln_structured(nn.Linear(3, 3), "weight", amount=1, n=2, dim=7)


# ---------------------------------------------------------------------- folding
@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(3, 4, 3)])
def test_folded_convolutions_do_both(conv):
    norm = nn.BatchNorm2d(4)
    norm(torch.randn(8, 4, 5, 5) * 3 + 1)
    conv.eval()
    norm.eval()
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(utils.fuse_conv_bn_eval(conv, norm)(x), norm(conv(x)),
                               rtol=1e-4, atol=1e-5)


def test_folded_transposed_convolutions_and_linear_layers():
    norm = nn.BatchNorm2d(4).eval()
    conv = nn.ConvTranspose2d(3, 4, 3).eval()
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(utils.fuse_conv_bn_eval(conv, norm, transpose=True)(x),
                               norm(conv(x)), rtol=1e-4, atol=1e-5)
    linear, norm = nn.Linear(3, 4).eval(), nn.BatchNorm1d(4).eval()
    torch.testing.assert_close(utils.fuse_linear_bn_eval(linear, norm)(x[:, :, 0, 0]),
                               norm(linear(x[:, :, 0, 0])), rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError, match="eval"):
        utils.fuse_conv_bn_eval(conv.train(), norm)
    with pytest.raises(AssertionError, match="num_features"):
        utils.fuse_linear_bn_eval(linear, nn.BatchNorm1d(3).eval())


def test_weights_in_another_memory_format():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(2, 2, 2))
    x = torch.randn(1, 3, 5, 5)
    before = model[0](x)
    utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model[0](x), before)


def test_normalized_modules_are_pickled_with_their_hooks(tmp_path):
    module = utils.spectral_norm(nn.Linear(4, 3), n_power_iterations=2)
    with torch.no_grad():
        module(torch.ones(2, 4))
    torch.save(module, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    module.register_load_state_dict_pre_hook(_note_loading)
    for found in (loaded, pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        found.eval()
        with torch.no_grad():
            assert torch.equal(found(torch.ones(2, 4)), module.eval()(torch.ones(2, 4)))
        assert found.state_dict()._metadata[""]["spectral_norm"] == {"weight.version": 1}
        _NOTED.clear()
        found.load_state_dict(module.state_dict())
        assert [found] * (found is not loaded) == _NOTED
        utils.remove_spectral_norm(found)
        assert "spectral_norm" not in found.state_dict()._metadata[""]
        assert len(found._load_state_dict_pre_hooks) == len(_NOTED)


_NOTED: list = []


def _note_loading(module, *_):
    _NOTED.append(module)
