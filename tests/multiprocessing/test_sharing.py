"""Tensors between processes: both sides see the same memory, and nothing is left behind."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

import flambeau as torch
import flambeau.multiprocessing as mp

pytestmark = pytest.mark.skipif(os.name == "nt", reason="memory is not shared on Windows")


def add_one(inbox, outbox, done):
    while (x := inbox.get()) is not None:
        x.add_(1)
        outbox.put((x.sum().item(), type(x).__name__, x.requires_grad))
        outbox.put(x.detach() * 2)
    done.wait(60)


def fill(index, x):
    x[index] = index + 1


def fail(index):
    if index == 1:
        raise ValueError("what went wrong")
    time.sleep(60)


def leave(index):
    os._exit(3)


@pytest.fixture(params=["file_descriptor", "file_system"])
def strategy(request):
    before = mp.get_sharing_strategy()
    mp.set_sharing_strategy(request.param)
    yield request.param
    mp.set_sharing_strategy(before)


def test_both_processes_see_the_same_elements(strategy):
    context = mp.get_context("spawn")
    inbox, outbox, done = context.Queue(), context.Queue(), context.Event()
    process = context.Process(target=add_one, args=(inbox, outbox, done))
    process.start()
    x = torch.zeros(3, 4)
    view = x[1]
    inbox.put(x)
    assert outbox.get(timeout=60) == (12.0, "Tensor", False)
    assert outbox.get(timeout=60).sum() == 24 and x.sum() == 12 and view.sum() == 4
    inbox.put(view)
    assert outbox.get(timeout=60)[0] == 8.0
    assert outbox.get(timeout=60).tolist() == [4.0] * 4 and x.sum() == 16
    inbox.put(torch.zeros(0))
    assert outbox.get(timeout=60)[0] == 0.0 and outbox.get(timeout=60).shape == (0,)
    inbox.put(None)
    done.set()
    process.join(60)
    assert process.exitcode == 0
    if strategy == "file_system":
        del x, view
        gc.collect()
        assert not list(Path("/dev/shm").glob(f"flambeau_{os.getpid()}_*"))


def test_what_pickles_hold():
    parameter = torch.nn.Parameter(torch.arange(3.0))
    data = ForkingPickler.dumps({"p": parameter, "s": torch.eye(2).to_sparse(),
                                 "u": parameter.untyped_storage()})
    assert parameter.is_shared() and len(bytes(data)) < 2000
    with pytest.raises(RuntimeError, match="non-leaf"):
        ForkingPickler.dumps(parameter * 2)
    plain = io.BytesIO()
    multiprocessing.reduction.ForkingPickler(plain)  # Python's own module keeps working
    assert mp.get_all_sharing_strategies() == {"file_descriptor", "file_system"}
    with pytest.raises(AssertionError):
        mp.set_sharing_strategy("pigeon")


def test_spawn_and_its_failures():
    x = torch.zeros(2).share_memory_()
    mp.spawn(fill, (x,), nprocs=2)
    assert x.tolist() == [1, 2]
    with pytest.raises(mp.ProcessRaisedException, match="what went wrong") as raised:
        mp.spawn(fail, nprocs=2)
    assert raised.value.error_index == 1
    with pytest.raises(mp.ProcessExitedException, match="exit code 3"):
        mp.spawn(leave, nprocs=1)
