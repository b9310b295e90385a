"""Quantized tensors: levels, numbers and what both keep to."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest

import flambeau as torch
from flambeau.ops.record import REGISTRY
from flambeau.tensor.quantized.rules import QuantizedTensor

LIMITS = {torch.quint8: (0, 255), torch.qint8: (-128, 127), torch.qint32: (-2**31, 2**31 - 1),
          torch.quint4x2: (0, 15), torch.quint2x4: (0, 3)}
X = np.array([[-1.0, 0.2, 0.55], [1.3, 2.0, 100.0]], "float32")


def quantized(x=X, scale=0.1, zero_point=2, dtype=torch.quint8):
    return torch.quantize_per_tensor(torch.from_numpy(np.asarray(x)), scale, zero_point, dtype)


def by_channel(axis=0):
    scales = torch.tensor([0.1, 0.2, 0.4][:X.shape[axis]])
    return torch.quantize_per_channel(torch.from_numpy(X), scales,
                                      torch.tensor([1, 5, 0][:X.shape[axis]]), axis, torch.qint8)


@pytest.mark.parametrize("dtype", LIMITS, ids=repr)
def test_levels_and_numbers(dtype):
    x = np.random.default_rng(0).normal(0, 3, (7, 9)).astype("float32")
    q = quantized(x, dtype=dtype)
    low, high = LIMITS[dtype]
    inverse = np.float32(1) / np.float32(0.1)
    wanted = np.clip(np.rint((x * inverse).astype("float64") + 2), low, high)
    numbers = ((wanted - 2).astype("float32") * np.float32(0.1)).astype("float32")
    np.testing.assert_array_equal(q.dequantize().numpy(), numbers)
    if dtype.itemsize * 8 >= 8 and "x" not in dtype.name:
        np.testing.assert_array_equal(q.int_repr().numpy(), wanted)
        assert q.int_repr().dtype is dtype.carrier
    assert (q.q_scale(), q.q_zero_point(), q.qscheme()) == (0.1, 2, torch.per_tensor_affine)
    assert (q.dtype, q.is_quantized, q.shape) == (dtype, True, (7, 9))


def test_ties_and_specials():
    numbers = np.array([0.05, 0.15, 0.25, -0.05, np.nan, np.inf, -np.inf, 1e10], "float32")
    assert quantized(numbers, zero_point=3).int_repr().tolist() == [4, 4, 6, 2, 255, 255, 0, 255]
    assert quantized(numbers, zero_point=2).int_repr().tolist()[:4] == [2, 4, 4, 2]
    wide = quantized(numbers[4:], 1.0, 0, torch.qint32).int_repr().tolist()
    assert wide == [-2**31, 2**31 - 1, -2**31, 2**31 - 1]


def test_packed_levels():
    q = quantized(np.arange(9, dtype="float32").reshape(3, 3), 1.0, 0, torch.quint4x2)
    assert q.int_repr().tolist() == [0x10, 0x32, 0x54, 0x76, 0x08]
    q = quantized(np.array([0, 1, 2, 3, 3], "float32"), 1.0, 0, torch.quint2x4)
    assert q.int_repr().tolist() == [0b11100100, 3]


@pytest.mark.parametrize("axis", [0, 1])
def test_channels(axis):
    q = by_channel(axis)
    scales = q.q_per_channel_scales().numpy()
    zero_points = q.q_per_channel_zero_points().numpy()
    shape = [-1 if d == axis else 1 for d in range(2)]
    single = scales.astype("float32").reshape(shape)
    levels = np.clip(np.rint(X * (np.float32(1) / single) + zero_points.reshape(shape)), -128, 127)
    np.testing.assert_array_equal(q.int_repr().numpy(), levels)
    np.testing.assert_array_equal(q.dequantize().numpy(),
                                  ((levels - zero_points.reshape(shape)) * single).astype("f4"))
    assert (q.q_per_channel_axis(), q.qscheme()) == (axis, torch.per_channel_affine)
    moved = q.t()
    assert moved.q_per_channel_axis() == 1 - axis
    assert torch.equal(moved.dequantize(), q.dequantize().t())
    one = q.select(axis, 1)
    assert one.qscheme() is torch.per_tensor_affine
    assert torch.equal(one.dequantize(), q.dequantize().select(axis, 1))
    part = q.narrow(1, 0, 2)
    assert torch.equal(part.dequantize(), q.dequantize().narrow(1, 0, 2))


def test_views_share_memory():
    q = quantized()
    row = q[0]
    row[1] = 1.0
    assert q.dequantize()[0, 1].item() == 1.0
    q.view(-1)[0:2].fill_(0.3)
    assert [round(v, 6) for v in q[0].tolist()][:2] == [0.3, 0.3]
    assert q.t().data_ptr() == q.data_ptr()
    assert (q.stride(), q.is_contiguous(), q.t().is_contiguous()) == ((3, 1), True, False)


MOVES = {
    "permute": lambda x: x.permute(1, 0), "reshape": lambda x: x.reshape(3, 2),
    "transposed": lambda x: x.t().reshape(-1), "index": lambda x: x[torch.tensor([1, 0])],
    "mask": lambda x: x[torch.tensor([True, False])], "flip": lambda x: x.flip(1),
    "cat": lambda x: torch.cat([x, x], 1), "stack": lambda x: torch.stack([x, x]),
    "repeat": lambda x: x.repeat(2, 1), "flatten": lambda x: torch.flatten(x),
    "unsqueeze": lambda x: x.unsqueeze(1), "expand": lambda x: x[None].expand(2, 2, 3),
    "contiguous": lambda x: x.t().contiguous(), "max": lambda x: x.max(),
    "amin": lambda x: x.amin(), "sort": lambda x: x.sort(1)[0], "topk": lambda x: x.topk(2, 1)[0],
    "relu": torch.relu,
    "pool": lambda x: torch.nn.functional.max_pool2d(x[None, None], 2, 1),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0])),
    "split": lambda x: x.split(2, 1)[1], "unbind": lambda x: x.unbind(1)[1],
}


@pytest.mark.parametrize("name", MOVES)
def test_as_for_numbers(name):
    """What moves or orders elements does the same to numbers."""
    q = quantized(zero_point=12)
    got = MOVES[name](q)
    assert got.is_quantized
    assert got.q_scale() == q.q_scale()
    assert torch.equal(got.dequantize(), MOVES[name](q.dequantize()))


def test_numbers_between():
    q = quantized(zero_point=12)
    assert torch.equal(q == q, torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(q < 1.0, q.dequantize() < 1.0)
    assert abs(q.mean().item() - q.dequantize().mean().item()) <= 0.05
    sigmoid = torch.sigmoid(q)
    assert (sigmoid.q_scale(), sigmoid.q_zero_point()) == (1 / 256, 0)
    tanh = torch.tanh(q)
    assert (tanh.q_scale(), tanh.q_zero_point()) == (1 / 128, 128)
    assert torch.allclose(tanh.dequantize(), q.dequantize().tanh(), atol=1 / 128)
    assert torch.clamp(q, 0.0, 1.0).dequantize().max().item() == 1.0


def test_writing():
    q = quantized()
    q.copy_(torch.ones(2, 3))
    assert set(q.dequantize().flatten().tolist()) == {1.0}
    q[:, 1] = quantized(np.float32([2.0, 2.0]), 0.5, 0)
    assert q.dequantize()[:, 1].tolist() == [2.0, 2.0]
    floats = torch.zeros(2, 3)
    floats.copy_(q)
    assert torch.equal(floats, q.dequantize())
    q.masked_fill_(torch.tensor([True, False, False]), 3.0)
    assert q.dequantize()[:, 0].tolist() == [3.0, 3.0]


def test_dynamic():
    x = torch.tensor([-1.0, 0.0, 100.0])
    q = torch.quantize_per_tensor_dynamic(x, torch.quint8, False)
    assert (q.q_scale(), q.q_zero_point()) == (101 / 255, 3)
    q = torch.quantize_per_tensor_dynamic(x, torch.qint8, True)
    assert (q.q_scale(), q.q_zero_point()) == (101 / 127, -63)
    assert torch.quantize_per_tensor_dynamic(x * 0, torch.qint8, False).q_zero_point() == 127
    small = torch.quantize_per_tensor_dynamic(x * 1e-9, torch.quint8, False)
    assert small.q_scale() == np.float32(6.1e-5)


def test_layers():
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    q = torch.quantize_per_tensor(x, 0.5, 3, torch.quint8)
    pooled = torch.quantized_max_pool2d(q, 2)
    assert torch.equal(pooled.dequantize(), torch.nn.functional.max_pool2d(x, 2))
    weight, bias, mean, var = (torch.tensor(v) for v in ([1.0, 2.0], [0.5, 0.0], [3.0, 20.0],
                                                         [4.0, 16.0]))
    got = torch.quantized_batch_norm(q, weight, bias, mean, var, 1e-5, 0.05, 100)
    wanted = torch.nn.functional.batch_norm(x, mean, var, weight, bias, eps=1e-5)
    assert got.q_scale() == 0.05
    assert (got.dequantize() - wanted).abs().max().item() < 0.026


def test_printing():
    assert repr(quantized()[0]) == (
        "tensor([-0.2000,  0.2000,  0.6000], size=(3,), dtype=torch.quint8,\n"
        "       quantization_scheme=torch.per_tensor_affine, scale=0.1, zero_point=2)")
    assert "scale=tensor([0.1000, 0.2000], dtype=torch.float64)" in repr(by_channel())


@pytest.mark.parametrize("dtype", LIMITS, ids=repr)
def test_saved_copied_pickled(dtype):
    q = quantized(dtype=dtype)
    saved = io.BytesIO()
    torch.save({"q": q, "part": q[:, 1:], "by": by_channel(1), "scheme": q.qscheme()}, saved)
    saved.seek(0)
    loaded = torch.load(saved)
    assert repr(loaded["q"]) == repr(q)
    assert repr(loaded["part"]) == repr(q[:, 1:])
    assert repr(loaded["by"]) == repr(by_channel(1))
    assert loaded["scheme"] is torch.per_tensor_affine
    for made in (copy.deepcopy(q), pickle.loads(pickle.dumps(q)), q.clone()):
        assert repr(made) == repr(q)
        assert made.data_ptr() != q.data_ptr()


def test_refusals():
    q, x = quantized(), torch.from_numpy(X)
    for call in (lambda: q + q, lambda: q.exp(), lambda: q.sum(), lambda: q @ q.t()):
        with pytest.raises(NotImplementedError, match=r"QuantizedCPU.*dequantize"):
            call()
    with pytest.raises(RuntimeError, match="Float Tensor, got Double"):
        torch.quantize_per_tensor(x.double(), 0.1, 0, torch.quint8)
    with pytest.raises(RuntimeError, match="zero_point 300 is above upper bound"):
        torch.quantize_per_tensor(x, 0.1, 300, torch.quint8)
    with pytest.raises(RuntimeError, match="Channel axis out of range"):
        torch.quantize_per_channel(x, torch.ones(3), torch.zeros(3), 2, torch.quint8)
    with pytest.raises(NotImplementedError, match="q_scale"):
        x.q_scale()
    with pytest.raises(RuntimeError, match="per tensor"):
        by_channel().q_scale()
    with pytest.raises(TypeError, match="int_repr"):
        q.numpy()
    with pytest.raises(RuntimeError, match="dequantize"):
        q.to(torch.float32)


def test_rules_name_operations():
    assert set(QuantizedTensor.rules) <= set(REGISTRY)


def test_moving_average_observer():
    on, low, high = torch.ones(1), torch.tensor([float("inf")]), torch.tensor([-float("inf")])
    scale, zero_point = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    x = torch.tensor([-1.0, 0.26, 3.0], requires_grad=True)
    y = torch.fused_moving_avg_obs_fake_quant(x, on, on, low, high, scale, zero_point, 0.5, 0, 255,
                                              0)
    assert (low.item(), high.item()) == (-1.0, 3.0)
    assert scale.item() == np.float32(4 / 255)
    torch.fused_moving_avg_obs_fake_quant(x * 3, on, on, low, high, scale, zero_point, 0.5, 0, 255,
                                          0)
    assert (low.item(), high.item()) == (-2.0, 6.0)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [1.0, 1.0, 1.0]
