"""`flambeau train digits`: accuracy, files, exact resumption, and what mistakes and mishaps get."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from programs import ROOT

from flambeau.cli import digits
from flambeau.cli.checkpoint import RunState, load_state
from flambeau.cli.errors import INTERRUPTED, UserError
from flambeau.cli.main import main
from flambeau.cli.train import Run, Stop

pytest.importorskip("sklearn")

SMALL = digits.Recipe(epochs=2, batch_size=128)


def bits(torch: ModuleType, run: Run) -> list[bytes]:
    """Everything that a run may change, as bytes."""
    tensors = list(run.training.model.state_dict().values())
    for state in run.training.optimizer.state_dict()["state"].values():
        tensors += [state[name] for name in sorted(state)]
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


def stopped(run: Run, batches: int) -> Stop:
    """A stop that is asked for after so many batches."""
    stop = Stop()
    step, done = run.step, []

    def counting_step(x, y):
        done.append(None)
        stop.asked = len(done) == batches
        return step(x, y)

    run.step = counting_step
    return stop


def test_reaches_the_accuracy_and_writes_its_files(tmp_path, capsys):
    assert main(["train", "digits", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    accuracy = float(said.split("held-out accuracy ")[-1].split("%")[0])
    assert accuracy >= 98.5
    assert (tmp_path / "checkpoint.pt").stat().st_size > 600_000
    pytest.importorskip("matplotlib")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("batches", [4, 11])
def test_resumes_to_the_same_bits(torch, tmp_path, compiled, batches):
    whole = Run(torch, SMALL, RunState(), tmp_path, compiled)
    assert whole.train() == 0

    first = Run(torch, SMALL, RunState(), tmp_path, compiled)
    assert not first.train_epoch(stopped(first, batches))
    assert first.leave() == INTERRUPTED

    state = load_state(torch, first.checkpoint)
    assert (state.epoch, state.batch) == divmod(batches, 11)
    second = Run(torch, SMALL, state, tmp_path, compiled)
    assert second.train() == 0
    assert second.state.losses == whole.state.losses
    assert second.state.accuracies == whole.state.accuracies
    assert bits(torch, second) == bits(torch, whole)


def test_compiled_step_trains_like_the_eager_one(torch, tmp_path):
    runs = [Run(torch, SMALL, RunState(), tmp_path, compiled) for compiled in (False, True)]
    for run in runs:
        assert run.train() == 0
    eager, compiled = (run.state.losses for run in runs)
    assert compiled == pytest.approx(eager, rel=1e-4)


def test_full_disk_keeps_the_older_checkpoint(torch, tmp_path, monkeypatch):
    run = Run(torch, SMALL, RunState(), tmp_path)
    assert run.train_epoch(Stop())
    before = run.checkpoint.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*old file is unchanged"):
        run.train_epoch(Stop())
    assert run.checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_saves_and_says_how_to_go_on(torch, tmp_path):
    command = [sys.executable, "-m", "flambeau", "train", "digits", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=120)
        assert first.startswith("epoch   1/12"), errors
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == INTERRUPTED, errors
    assert f"go on with: flambeau train digits --resume {tmp_path}" in said
    assert "Traceback" not in errors
    state = load_state(torch, tmp_path / "checkpoint.pt")
    assert state.epoch >= 1
    assert len(state.losses) == 22 * state.epoch + state.batch


def make_garbage(folder: Path) -> Path:
    path = folder / "garbage.pt"
    path.write_bytes(b"not a checkpoint at all")
    return path


@pytest.mark.parametrize(("options", "message"), [
    (["--resume", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
    (["--resume", "{garbage}"], "is not a readable checkpoint"),
    (["--out", "{garbage}/below"], "cannot make the output folder"),
])
def test_mistakes_get_one_sentence(tmp_path, capsys, options, message):
    garbage = make_garbage(tmp_path)
    options = [option.format(garbage=garbage) for option in options]
    assert main(["train", "digits", "--out", str(tmp_path / "out"), *options]) == 1
    said = capsys.readouterr().err
    assert said.startswith("flambeau: error: ") and message in said
    assert "Traceback" not in said


def test_resume_refuses_another_recipe(torch, tmp_path, capsys):
    run = Run(torch, SMALL, RunState(), tmp_path)
    assert run.train_epoch(Stop())
    resume = ["train", "digits", "--out", str(tmp_path), "--resume", str(run.checkpoint)]
    assert main([*resume, "--batch-size", "32"]) == 1
    assert "was made with --batch-size 128, not 32" in capsys.readouterr().err
    assert run.train() == 0
    assert main(resume) == 1
    assert "is finished" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--lr", "nan"], ["--batch-size", "many"],
                                    ["--nonsense"]])
def test_mistyped_options(capsys, option):
    with pytest.raises(SystemExit) as error:
        main(["train", "digits", *option])
    assert error.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_split_is_fixed_and_disjoint(torch):
    split = digits.load_split(torch)
    assert tuple(split.train_x.shape) == (1408, 1, 8, 8) and len(split.test_y) == 389
    seen = {row.tobytes() for row in split.train_x.numpy()}
    assert sum(row.tobytes() in seen for row in split.test_x.numpy()) == 0
    again = digits.load_split(torch)
    assert torch.equal(split.train_x, again.train_x) and torch.equal(split.test_y, again.test_y)
    other = digits.load_split(torch, seed=1)
    assert not torch.equal(split.train_y, other.train_y)
