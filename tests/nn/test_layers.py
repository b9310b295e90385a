"""Layers against what their definitions say, in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest


def array(tensor):
    return tensor.detach().numpy()


def close(actual, expected):
    np.testing.assert_allclose(array(actual), expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def x(torch):
    rng = np.random.default_rng(0)
    return torch.tensor(rng.standard_normal((4, 3)).astype(np.float32))


def test_linear(torch, x):
    layer = torch.nn.Linear(3, 2)
    close(layer(x), array(x) @ array(layer.weight).T + array(layer.bias))
    assert list(layer(x[0]).shape) == [2]
    assert torch.nn.Linear(3, 2, bias=False).bias is None


def test_linear_bounds(torch):
    layer = torch.nn.Linear(100, 50)
    assert layer.weight.abs().max().item() <= 0.1
    assert layer.bias.abs().max().item() <= 0.1


def test_a_wrong_shape_names_the_module(torch):
    layers = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(3, 2))
    with pytest.raises(RuntimeError) as caught:
        layers(torch.ones(2, 5))
    assert "in module 1 (Linear) of Sequential" in caught.value.__notes__


def test_batchnorm_trains_and_evaluates(torch, x):
    layer = torch.nn.BatchNorm1d(3, momentum=0.5)
    values = array(x)
    mean, var = values.mean(0), values.var(0)
    close(layer(x), (values - mean) / np.sqrt(var + 1e-5))
    close(layer.running_mean, 0.5 * mean)
    close(layer.running_var, 0.5 + 0.5 * values.var(0, ddof=1))
    assert int(layer.num_batches_tracked) == 1
    layer.eval()
    running = array(layer.running_mean), array(layer.running_var)
    close(layer(x), (values - running[0]) / np.sqrt(running[1] + 1e-5))
    assert int(layer.num_batches_tracked) == 1


def test_batchnorm_of_one_value(torch):
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        torch.nn.BatchNorm1d(3)(torch.ones(1, 3))


def test_layernorm(torch, x):
    values = array(x)
    mean, var = values.mean(1, keepdims=True), values.var(1, keepdims=True)
    close(torch.nn.LayerNorm(3)(x), (values - mean) / np.sqrt(var + 1e-5))


def test_embedding(torch):
    layer = torch.nn.Embedding(5, 3, padding_idx=1)
    table = array(layer.weight)
    assert not table[1].any()
    indices = torch.tensor([[0, 1], [4, 4]])
    close(layer(indices), table[[[0, 1], [4, 4]]])
    layer(indices).sum().backward()
    assert array(layer.weight.grad)[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0, 2.0]


def test_dropout(torch):
    layer = torch.nn.Dropout(0.25)
    x = torch.ones(1000)
    out = array(layer(x))
    assert set(np.unique(out)) == {0.0, np.float32(4 / 3)}
    assert 150 < (out == 0).sum() < 350
    assert layer.eval()(x).tolist() == x.tolist()


def test_conv_same_padding(torch):
    layer = torch.nn.Conv1d(1, 1, 3, padding="same", bias=False)
    with torch.no_grad():
        layer.weight.fill_(1)
    assert layer(torch.ones(1, 1, 4)).tolist() == [[[2.0, 3.0, 3.0, 2.0]]]


def test_pooling(torch):
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.nn.MaxPool2d(2)(x).tolist() == [[[[5.0, 7.0], [13.0, 15.0]]]]
    assert torch.nn.AvgPool2d(2)(x).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert torch.nn.AdaptiveAvgPool2d(1)(x).tolist() == [[[[7.5]]]]


def test_activations(torch):
    x = torch.tensor([-2.0, -0.5, 0.0, 1.5])
    v = np.array([-2.0, -0.5, 0.0, 1.5])
    nn = torch.nn
    close(nn.ReLU()(x), np.maximum(v, 0))
    close(nn.LeakyReLU(0.1)(x), np.where(v > 0, v, 0.1 * v))
    close(nn.ELU()(x), np.where(v > 0, v, np.expm1(v)))
    close(nn.Sigmoid()(x), 1 / (1 + np.exp(-v)))
    close(nn.Tanh()(x), np.tanh(v))
    close(nn.SiLU()(x), v / (1 + np.exp(-v)))
    close(nn.GELU()(x), [a * 0.5 * (1 + math.erf(a / math.sqrt(2))) for a in v])
    close(nn.Softmax(0)(x), np.exp(v) / np.exp(v).sum())
    close(nn.LogSoftmax(0)(x), v - np.log(np.exp(v).sum()))
    y = x.clone()
    assert nn.ReLU(inplace=True)(y) is y
    close(y, np.maximum(v, 0))


def test_losses(torch, x):
    nn, values = torch.nn, array(x)
    target = torch.tensor([0, 2, 1, 1])
    log_p = values - np.log(np.exp(values).sum(1, keepdims=True))
    picked = -log_p[np.arange(4), [0, 2, 1, 1]]
    close(nn.CrossEntropyLoss()(x, target), picked.mean())
    close(nn.CrossEntropyLoss(reduction="none")(x, target), picked)
    close(nn.NLLLoss(reduction="sum")(torch.tensor(log_p), target), picked.sum())
    close(nn.CrossEntropyLoss(ignore_index=1)(x, target), picked[:2].mean())
    close(nn.MSELoss()(x, torch.zeros(4, 3)), (values ** 2).mean())
    close(nn.L1Loss()(x, torch.zeros(4, 3)), np.abs(values).mean())
    close(nn.BCEWithLogitsLoss()(x, torch.ones(4, 3)), np.log1p(np.exp(-values)).mean())


def test_mse_warns_of_broadcasting(torch):
    with pytest.warns(UserWarning, match="different to the input size"):
        torch.nn.functional.mse_loss(torch.ones(2, 1), torch.ones(2))


def test_legacy_reduction(torch):
    with pytest.warns(UserWarning, match="please use reduction='sum' instead"):
        assert torch.nn.MSELoss(size_average=False).reduction == "sum"


def test_functional_names(torch):
    functional = torch.nn.functional
    assert functional.relu(torch.tensor([-1.0])).tolist() == [0.0]
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = functional.nope
    assert all(hasattr(functional, name) for name in functional.__all__)


def test_negative_variances_are_refused(torch):
    x = torch.ones(2, 3, requires_grad=True)
    for var in (-torch.ones(2, 3), torch.tensor([[1.0], [-0.5]]), -1.0):
        for _ in range(2):
            with pytest.raises(ValueError, match="var has negative entry/entries"):
                torch.nn.functional.gaussian_nll_loss(x, x, var)
    unknown = torch.full((2, 3), float("nan"))
    assert torch.nn.functional.gaussian_nll_loss(x, x, unknown).isnan()
    nothing = torch.zeros(2, 3, requires_grad=True)
    torch.nn.functional.gaussian_nll_loss(x, x, nothing).backward()
    assert nothing.grad.isfinite().all()


@pytest.mark.parametrize("option", ["sparse", "scale_grad_by_freq"])
def test_bags_of_maxima_have_no_such_option(torch, option):
    with pytest.raises(ValueError, match="max mode does not support"):
        torch.nn.functional.embedding_bag(torch.tensor([[1, 2]]), torch.ones(4, 2), mode="max",
                                          **{option: True})
