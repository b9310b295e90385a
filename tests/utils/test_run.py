"""Whole runs: one that is killed at any moment and goes on ends as one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import flambeau as torch
from flambeau import nn
from flambeau.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

SCRIPT = r"""
import os, random, signal, sys
import numpy as np
import flambeau as torch
from flambeau import nn
from flambeau.utils.data import DataLoader, TensorDataset

path, die_at = sys.argv[1], int(sys.argv[2])
torch.manual_seed(3); random.seed(4); np.random.seed(5)
model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.2), nn.BatchNorm1d(16), nn.Linear(16, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
scaler = torch.amp.GradScaler("cpu", growth_interval=6)
average = torch.optim.swa_utils.AveragedModel(
    model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True)
data = TensorDataset(torch.randn(40, 6), torch.randint(0, 2, (40,)))
generator = torch.Generator().manual_seed(9)
loader = DataLoader(data, 8, shuffle=True, generator=generator if len(sys.argv) > 3 else None)
parts = dict(model=model, optimizer=optimizer, scheduler=scheduler, scaler=scaler, loader=loader,
             average=average, generator=generator)
run = torch.resume(path, **parts) or {"epoch": 0, "step": 0, "losses": []}
while run["epoch"] < 4:
    for x, y in loader:
        x = x + random.random() + float(np.random.rand())
        optimizer.zero_grad()
        with torch.autocast("cpu", enabled=run["epoch"] % 2 == 1):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if run["step"] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        scaler.step(optimizer); scaler.update(); scheduler.step()
        average.update_parameters(model)
        run["step"] += 1
        run["losses"].append(loss.item())
        torch.checkpoint(path, run, **parts)
    run["epoch"] += 1
    torch.checkpoint(path, run, **parts)
print(run["step"])
"""


def start(path, die_at=-1, *more):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(die_at), *more],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.strip() == "20"


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("own", [[], ["own generator"]])
def test_a_killed_run_ends_as_one_that_was_not(tmp_path, own):
    finished(start(tmp_path / "whole.pt", -1, *own))
    for die_at in (0, 3, 4, 10, 19):
        process = start(tmp_path / "killed.pt", die_at, *own)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
    finished(start(tmp_path / "killed.pt", -1, *own))
    same(torch.load(tmp_path / "killed.pt"), torch.load(tmp_path / "whole.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("own", [[], ["own generator"]])
def test_killed_at_random_moments(tmp_path, own):
    began = time.perf_counter()
    finished(start(tmp_path / "whole.pt", -1, *own))
    usual = time.perf_counter() - began
    kills = runs = 0
    while kills < 25:
        process = start(tmp_path / f"killed{runs}.pt", -1, *own)
        timer = threading.Timer(random.uniform(0.2, 1) * usual, process.kill)
        timer.start()
        process.communicate()
        timer.cancel()
        if process.returncode == 0:
            same(torch.load(tmp_path / f"killed{runs}.pt"), torch.load(tmp_path / "whole.pt"))
            runs += 1
        else:
            kills += 1


def parts():
    model = nn.Linear(3, 2)
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}


def test_the_first_time_there_is_nothing(tmp_path):
    assert torch.resume(tmp_path / "none.pt", **parts()) is None


def test_values_come_back(tmp_path):
    values = {"step": 3, "losses": [1.5, 2.0], "name": "run", "best": torch.arange(3)}
    torch.checkpoint(tmp_path / "run.pt", values, **parts())
    same(torch.resume(tmp_path / "run.pt", **parts()), values)


def test_random_streams_go_on(tmp_path):
    mine = torch.Generator().manual_seed(1)
    torch.rand(3), random.random(), np.random.rand(), torch.rand(2, generator=mine)
    torch.checkpoint(tmp_path / "run.pt", generator=mine)
    wanted = torch.rand(3), random.random(), np.random.randn(), torch.rand(2, generator=mine)
    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    other = torch.Generator()
    torch.resume(tmp_path / "run.pt", generator=other)
    got = torch.rand(3), random.random(), np.random.randn(), torch.rand(2, generator=other)
    same(got, wanted)


def test_other_parts_are_refused_and_nothing_is_restored(tmp_path):
    torch.checkpoint(tmp_path / "run.pt", **parts())
    fresh = parts()
    before = fresh["model"].weight.detach().clone()
    with pytest.raises(KeyError, match="scheduler"):
        torch.resume(tmp_path / "run.pt", **fresh, scheduler=None)
    with pytest.raises(KeyError, match="optimizer"):
        torch.resume(tmp_path / "run.pt", model=fresh["model"])
    assert torch.equal(fresh["model"].weight, before)


def test_what_has_no_state_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="state_dict"):
        torch.checkpoint(tmp_path / "run.pt", step=3)
    assert not list(tmp_path.iterdir())


def test_a_file_of_something_else(tmp_path):
    torch.save({"a": 1}, tmp_path / "other.pt")
    with pytest.raises(torch.serialization.CheckpointError, match=r"torch\.load"):
        torch.resume(tmp_path / "other.pt")


# ---------------------------------------------------------------------- the place in a pass
class Count(IterableDataset):
    def __iter__(self):
        yield from map(torch.tensor, range(20))


DATA = TensorDataset(torch.arange(20))
LOADERS = {
    "shuffled": lambda: DataLoader(DATA, 3, shuffle=True),
    "in order": lambda: DataLoader(DATA, 3),
    "own generator": lambda: DataLoader(DATA, 3, shuffle=True,
                                        generator=torch.Generator().manual_seed(5)),
    "own sampler": lambda: DataLoader(DATA, 3, sampler=RandomSampler(
        DATA, replacement=True, generator=torch.Generator().manual_seed(5))),
    "single": lambda: DataLoader(DATA, None, shuffle=True),
    "iterable": lambda: DataLoader(Count(), 3),
    "iterable, single": lambda: DataLoader(Count(), None),
}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("taken", [0, 1, 4, 7])
def test_a_pass_goes_on_behind_the_batches_that_were_taken(make, taken):
    torch.manual_seed(2)
    loader = make()
    batches = iter(loader)
    for _ in range(min(taken, 7)):
        next(batches)
        torch.rand(5)  # others draw meanwhile
    state, stream = loader.state_dict(), torch.get_rng_state()
    wanted = list(batches) + list(loader) + [torch.rand(2)]
    torch.manual_seed(11)
    other = make()
    other.load_state_dict(state)
    torch.set_rng_state(stream)
    same(list(other) + list(other) + [torch.rand(2)], wanted)


def test_between_passes_there_is_no_place():
    loader = DataLoader(DATA, 3)
    assert loader.state_dict() == {}
    list(loader)
    assert loader.state_dict() == {}
    with pytest.raises(KeyError, match="colour"):
        loader.load_state_dict({"colour": 1})
