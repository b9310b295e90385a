"""DataParallel without GPUs, and the loss that has a linear layer."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau import nn


def test_data_parallel_calls_the_module():
    layer = nn.Linear(3, 2)
    model = nn.DataParallel(layer)
    x = torch.randn(4, 3)
    assert torch.equal(model(x), layer(x))
    assert torch.equal(nn.parallel.data_parallel(layer, x), layer(x))
    assert set(model.state_dict()) == {"module.weight", "module.bias"}
    assert model.device_ids == []
    with pytest.raises(RuntimeError, match="CUDA"):
        nn.DataParallel(layer, device_ids=[0])


@pytest.mark.parametrize("out_features", [(), (5,)])
def test_linear_cross_entropy_has_its_layer(out_features):
    loss = nn.LinearCrossEntropyLoss(6, 4, out_features=out_features, bias=True,
                                     label_smoothing=0.1)
    x = torch.randn(3, 6)
    target = torch.randint(0, 4, (3, *out_features))
    logits = loss.linear(x).reshape(3, 4, *out_features)
    wanted = nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(loss(x, target), wanted)
    assert "num_classes=4" in repr(loss)
