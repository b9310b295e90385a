"""Storages: what they hold, tensors that follow when their memory moves, files as memory."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import flambeau as torch

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


def test_handles_name_the_memory():
    x = torch.arange(6.0).reshape(2, 3)
    u, s = x.untyped_storage(), x.storage()
    assert (u.nbytes(), len(u), u.size(), len(s), s.nbytes()) == (24, 24, 24, 6, 24)
    assert u == x[1].untyped_storage() and u._cdata == x.t().untyped_storage()._cdata
    assert u.data_ptr() == s.data_ptr() == x.data_ptr() and u != torch.ones(2).untyped_storage()
    assert s.tolist() == [0, 1, 2, 3, 4, 5] and s[4] == 4 and s[-1] == 5
    assert s.type() == "torch.FloatStorage" and isinstance(s, torch.FloatStorage)
    assert not isinstance(s, torch.LongStorage) and x.storage_type() is torch.FloatStorage
    assert torch.is_storage(u) and torch.is_storage(s) and not torch.is_storage(x)
    assert isinstance(u, torch.storage.UntypedStorage)
    for wrong in (6, -7):
        with pytest.raises(IndexError):
            s[wrong]


def test_writes_reach_tensors_and_count():
    x = torch.zeros(3, requires_grad=True)
    y = (x * x).sum()
    x.untyped_storage().fill_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    t = torch.zeros(3)
    t.storage()[1] = 5
    t.storage().copy_(torch.FloatStorage([1, 2, 3]))
    assert t.tolist() == [1, 2, 3]
    t.untyped_storage()[0:4] = 0
    assert t.tolist() == [0, 2, 3]


def test_conversions_and_copies():
    s = torch.LongStorage([1, 2, 3])
    assert s.float().tolist() == [1.0, 2.0, 3.0] and s.half().dtype is torch.float16
    assert torch.UntypedStorage([1, 200]).int().tolist() == [1, 200]
    for other in (s.clone(), copy.deepcopy(s), pickle.loads(pickle.dumps(s))):
        other.fill_(0)
        assert s.tolist() == [1, 2, 3]
    assert torch.FloatStorage.from_buffer(b"\0\0\x80?", byte_order="little").tolist() == [1.0]
    assert torch.FloatStorage.from_buffer(b"?\x80\0\0", byte_order="big").tolist() == [1.0]
    assert bool(torch.UntypedStorage(0).tolist() == [])


def test_tensors_are_set_to_storages():
    s = torch.FloatStorage([1, 2, 3, 4, 5, 6])
    assert torch.tensor([]).set_(s).tolist() == [1, 2, 3, 4, 5, 6]
    x = torch.tensor([]).set_(s, 1, (2, 2), (1, 2))
    assert x.tolist() == [[2, 4], [3, 5]] and x.storage_offset() == 1
    x.fill_(0)
    assert s.tolist() == [1, 0, 0, 0, 0, 6]
    assert x.is_set_to(x.view(2, 2).t().t()) and not x.is_set_to(x.t())
    assert torch.ones(2).set_().numel() == 0
    with pytest.raises(RuntimeError, match="needs"):
        torch.tensor([]).set_(s, 0, (7,))
    with pytest.raises(RuntimeError, match="type"):
        torch.tensor([1]).set_(s)


def test_views_follow_when_memory_grows():
    x = torch.arange(4.0)
    view, data = x[1:3], x.data
    x.resize_(100_000)
    x[1] = 9
    assert view.tolist() == [9, 2] and data[1] == 9 and view.untyped_storage() == (
        x.untyped_storage())
    u = x.untyped_storage().resize_(8)
    assert u.nbytes() == 8
    assert x.shape == (100_000,) and x[1] == 9  # too large for it: keeps its memory


def test_memory_of_others_does_not_grow():
    x = torch.from_numpy(np.zeros(3))
    for wrong in (lambda: x.resize_(9), lambda: x.untyped_storage().resize_(99)):
        with pytest.raises(RuntimeError, match="not resizable"):
            wrong()


def test_files_are_memory(tmp_path):
    path = tmp_path / "numbers"
    x = torch.from_file(str(path), shared=True, size=4)
    x.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    del x
    assert np.fromfile(path, np.float32).tolist() == [1, 2, 3, 4]
    private = torch.from_file(str(path), shared=False, size=4)
    private.zero_()
    assert np.fromfile(path, np.float32).tolist() == [1, 2, 3, 4]
    u = torch.UntypedStorage.from_file(str(path), True, 8)
    assert u.filename == str(path) and u.nbytes() == 8
    with pytest.raises(RuntimeError, match="unable to open"):
        torch.from_file(str(tmp_path / "missing"), size=4)
    with pytest.raises(RuntimeError, match="16 bytes"):
        torch.from_file(str(path), size=40)


def test_sharing_moves_views_along():
    x = torch.arange(4.0)
    view, data = x[1:], x.data
    assert not x.is_shared() and x.share_memory_() is x
    assert x.is_shared() and view.is_shared() and data.is_shared()
    x.mul_(2)
    assert view.tolist() == [2, 4, 6] and data.tolist() == [0, 2, 4, 6]
    module = torch.nn.Linear(2, 2).share_memory()
    assert module.weight.is_shared() and module.weight.requires_grad
    assert not x.is_pinned()
    with pytest.raises(RuntimeError, match="accelerator"):
        x.pin_memory()


def test_tensors_of_a_vmap_that_has_ended_are_passed_over():
    held = []
    torch.vmap(lambda row: held.append(row) or row * 2)(torch.ones(2, 3))
    x = torch.arange(4.0)
    x.share_memory_()
    assert x.is_shared() and x.tolist() == [0, 1, 2, 3]
    assert len(held) == 1
