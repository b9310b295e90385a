"""Views: shared memory, strides, offsets, what must copy; shape operations against NumPy. These
tests also run under PyTorch (tests/conformance)."""

from __future__ import annotations

import numpy as np
import pytest


def shares(a, b) -> bool:
    return np.shares_memory(a.detach().numpy(), b.detach().numpy())


@pytest.fixture
def x(torch):
    return torch.arange(24.0).reshape(2, 3, 4)


# (how the view is made, its shape, strides and offset), of a tensor (2, 3, 4)
VIEWS = [
    (lambda x: x.view(4, 6), (4, 6), (6, 1), 0),
    (lambda x: x.view(-1, 8), (3, 8), (8, 1), 0),
    (lambda x: x.view(24), (24,), (1,), 0),
    (lambda x: x.view_as(x.reshape(6, 4)), (6, 4), (4, 1), 0),
    (lambda x: x.reshape(6, 4), (6, 4), (4, 1), 0),
    (lambda x: x.flatten(), (24,), (1,), 0),
    (lambda x: x.flatten(1), (2, 12), (12, 1), 0),
    (lambda x: x.ravel(), (24,), (1,), 0),
    (lambda x: x.unflatten(2, (2, 2)), (2, 3, 2, 2), (12, 4, 2, 1), 0),
    (lambda x: x.permute(2, 0, 1), (4, 2, 3), (1, 12, 4), 0),
    (lambda x: x.transpose(0, -1), (4, 3, 2), (1, 4, 12), 0),
    (lambda x: x.swapaxes(0, 1), (3, 2, 4), (4, 12, 1), 0),
    (lambda x: x.movedim(0, 2), (3, 4, 2), (4, 1, 12), 0),
    (lambda x: x.mT, (2, 4, 3), (12, 1, 4), 0),
    (lambda x: x[0].t(), (4, 3), (1, 4), 0),
    (lambda x: x[1].T, (4, 3), (1, 4), 12),
    (lambda x: x.unsqueeze(1), (2, 1, 3, 4), (12, 12, 4, 1), 0),
    (lambda x: x.unsqueeze(-1), (2, 3, 4, 1), (12, 4, 1, 1), 0),
    (lambda x: x[:1].squeeze(0), (3, 4), (4, 1), 0),
    (lambda x: x.squeeze(), (2, 3, 4), (12, 4, 1), 0),
    (lambda x: x.select(1, 2), (2, 4), (12, 1), 8),
    (lambda x: x.narrow(2, 1, 2), (2, 3, 2), (12, 4, 1), 1),
    (lambda x: x[:, ::2], (2, 2, 4), (12, 8, 1), 0),
    (lambda x: x[1, :, 1:3], (3, 2), (4, 1), 13),
    (lambda x: x[..., -1], (2, 3), (12, 4), 3),
    (lambda x: x.diagonal(dim1=1, dim2=2), (2, 3), (12, 5), 0),
    (lambda x: x.diagonal(1, 0, 1), (4, 2), (1, 16), 4),
    (lambda x: x.unfold(2, 2, 1), (2, 3, 3, 2), (12, 4, 1, 1), 0),
    (lambda x: x[:, :1].expand(2, 5, 4), (2, 5, 4), (12, 0, 1), 0),
    (lambda x: x.expand(3, 2, 3, 4), (3, 2, 3, 4), (0, 12, 4, 1), 0),
    (lambda x: x.expand_as(x), (2, 3, 4), (12, 4, 1), 0),
    (lambda x: x.broadcast_to(5, 2, 3, 4), (5, 2, 3, 4), (0, 12, 4, 1), 0),
    (lambda x: x.as_strided((2, 2), (3, 1), 5), (2, 2), (3, 1), 5),
    (lambda x: x.chunk(2, 2)[1], (2, 3, 2), (12, 4, 1), 2),
    (lambda x: x.split([1, 2], 1)[1], (2, 2, 4), (12, 4, 1), 4),
    (lambda x: x.unbind(1)[2], (2, 4), (12, 1), 8),
    (lambda x: x.tensor_split(3, 2)[1], (2, 3, 1), (12, 4, 1), 2),
    (lambda x: x.detach(), (2, 3, 4), (12, 4, 1), 0),
]


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_views_share_memory(torch, x, number):
    make, shape, strides, offset = VIEWS[number]
    y = make(x)
    assert (tuple(y.shape), y.stride(), y.storage_offset()) == (shape, strides, offset)
    assert shares(x, y)
    before = y.clone()
    x.add_(1)
    assert torch.equal(y, before + 1)


COPIES = [
    lambda x: x.clone(), lambda x: x.permute(2, 0, 1).reshape(24), lambda x: x.repeat(1, 2, 1),
    lambda x: x.permute(1, 0, 2).contiguous(), lambda x: x.flip(0), lambda x: x.roll(1, 0),
    lambda x: x.transpose(0, 1).flatten(), lambda x: x.tile(2), lambda x: x.tril(),
    lambda x: x[[0]], lambda x: x.double(), lambda x: x + 0,
]


@pytest.mark.parametrize("number", range(len(COPIES)))
def test_copies_do_not(x, number):
    y = COPIES[number](x)
    before = y.clone()
    x.add_(1)
    assert not shares(x, y) and (y == before).all()


def test_no_copy_where_none_is_needed(torch, x):
    assert x.contiguous() is x and x.float() is x and x.to("cpu") is x and x.cpu() is x
    assert x.to(torch.float32) is x and x.to(torch.float32, copy=True) is not x
    assert shares(x, x.reshape(2, 12)) and shares(x, x.expand(2, 3, 4))


def test_views_that_are_impossible(torch, x):
    turned = x.permute(2, 0, 1)
    with pytest.raises(RuntimeError, match="view"):
        turned.view(24)
    with pytest.raises(RuntimeError, match=r"shape '\[5, 5\]' is invalid for input of size 24"):
        x.view(5, 5)
    with pytest.raises(RuntimeError, match="only one dimension can be inferred"):
        x.reshape(-1, -1)
    with pytest.raises(RuntimeError, match="must match the existing size"):
        x.expand(2, 5, 4)
    with pytest.raises(RuntimeError):
        x.expand(3, 4)
    with pytest.raises(IndexError, match="Dimension out of range"):
        x.transpose(0, 3)
    with pytest.raises(RuntimeError):
        x.permute(0, 1)
    with pytest.raises(RuntimeError, match=r"start|exceeds"):
        x.narrow(0, 1, 2)
    with pytest.raises(RuntimeError, match=r"2D|2 dim"):
        x.t()
    with pytest.raises(RuntimeError):
        x.split([1, 1], 1)


def test_dtypes_of_the_same_memory(torch):
    x = torch.tensor([1.0, -2.0])
    bits = x.view(torch.int32)
    assert bits.tolist() == [0x3F800000, -0x40000000]
    bits[0] = 0
    assert x.tolist() == [0, -2]
    assert x.view(torch.int16).shape == (4,) and x.view(torch.uint8).shape == (8,)
    assert torch.zeros(3, 4, dtype=torch.int16).view(torch.int64).shape == (3, 1)
    with pytest.raises(RuntimeError):
        torch.zeros(3, dtype=torch.int8).view(torch.int64)


def test_contiguity(torch, x):
    assert x.is_contiguous() and not x.permute(2, 0, 1).is_contiguous()
    assert x[0].is_contiguous() and not x[:, 0].is_contiguous()
    assert not x[:, :1].squeeze(1).is_contiguous()
    assert torch.zeros(0, 3).t().is_contiguous()
    images = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert images.stride() == (60, 1, 15, 3)
    assert images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    assert (images + 1).stride() == images.stride()


def test_shapes_against_numpy(torch, x):
    a = x.numpy()
    pairs = [
        (torch.cat([x, x], 1), np.concatenate([a, a], 1)), (torch.stack([x, x], -1),
                                                            np.stack([a, a], -1)),
        (x.flip(0, 2), np.flip(a, (0, 2))), (torch.roll(x, 2), np.roll(a, 2)),
        (torch.roll(x, (1, -2), (0, 2)), np.roll(a, (1, -2), (0, 2))),
        (x.repeat(2, 1, 3), np.tile(a, (2, 1, 3))), (torch.tile(x, (2, 2)), np.tile(a, (2, 2))),
        (torch.vstack([x[0], x[1]]), np.vstack([a[0], a[1]])),
        (torch.hstack([x[0], x[1]]), np.hstack([a[0], a[1]])),
        (torch.movedim(x, (0, 1), (2, 0)), np.moveaxis(a, (0, 1), (2, 0))),
        (torch.atleast_2d(torch.tensor(3.0)), np.atleast_2d(3.0)),
        (x.diagonal(0, 1, 2), np.diagonal(a, 0, 1, 2)), (torch.squeeze(x[:1], 0), a[:1].squeeze(0)),
    ]
    for found, expected in pairs:
        assert tuple(found.shape) == expected.shape
        np.testing.assert_array_equal(found.numpy(), expected)


def test_pieces(torch, x):
    assert [tuple(p.shape) for p in x.split(2, 2)] == [(2, 3, 2)] * 2
    assert [p.shape[1] for p in torch.split(x, [1, 2], 1)] == [1, 2]
    assert [p.shape[2] for p in x.chunk(3, 2)] == [2, 2]
    assert [p.shape[2] for p in torch.tensor_split(x, 3, 2)] == [2, 1, 1]
    assert [p.shape[2] for p in torch.tensor_split(x, (1, 3), 2)] == [1, 2, 1]
    assert isinstance(x.unbind(), tuple) and len(x.unbind(2)) == 4
    a, b = torch.broadcast_tensors(torch.zeros(3, 1), torch.zeros(2))
    assert a.shape == b.shape == (3, 2)


def test_bases(torch):
    x = torch.zeros(2, 3, 4)
    y = x[0]
    z = y.view(12)
    assert x._base is None and y._base is x and z._base is x
    assert y._is_view() and not x._is_view()
