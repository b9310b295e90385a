"""The digits training under both frameworks: equal losses step by step, checkpoints that cross."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT

from flambeau.cli import digits
from flambeau.cli.checkpoint import RunState, load_state, save_state

STEPS = 50
TOLERANCE = 1e-4  # relative, float32


def losses(framework: str, *options: str, steps: int = STEPS) -> list[float]:
    """The first losses that `examples/digits.py` prints."""
    command = [sys.executable, "examples/digits.py", "--framework", framework,
               "--steps", str(steps), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                            check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    found = [float(line.split()[-1]) for line in lines if line.startswith("step")]
    assert len(found) == steps
    return found


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return losses("torch")


@pytest.mark.parametrize("options", [(), ("--compile",)], ids=["eager", "compiled"])
def test_losses_equal_pytorchs(expected: list[float], options: tuple[str, ...]) -> None:
    assert losses("flambeau", *options) == pytest.approx(expected, rel=TOLERANCE, abs=0.0)


def test_another_seed(expected: list[float]) -> None:
    theirs = losses("torch", "--seed", "3", steps=10)
    ours = losses("flambeau", "--seed", "3", steps=10)
    assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=0.0)
    assert theirs != expected[:10]


@pytest.mark.parametrize("direction", ["ours to theirs", "theirs to ours"])
def test_checkpoint_crosses(tmp_path: Path, direction: str) -> None:
    import torch

    import flambeau

    writer, reader = (flambeau, torch) if direction == "ours to theirs" else (torch, flambeau)
    recipe = digits.Recipe(epochs=1)
    training = digits.set_up(writer, recipe)
    state = RunState(recipe=recipe._asdict())
    state.mark_epoch_start(writer, training)
    step = digits.make_train_step(writer, training)
    for x, y in itertools.islice(digits.batches(training), 5):
        step(x, y)
        state.batch += 1
    save_state(writer, state, training, tmp_path / "checkpoint.pt")

    loaded = load_state(reader, tmp_path / "checkpoint.pt")
    again = digits.set_up(reader, recipe)
    loaded.restore(reader, again)
    assert loaded.batch == 5
    theirs = again.model.state_dict()
    for name, tensor in training.model.state_dict().items():
        assert theirs[name].tolist() == tensor.tolist(), name
    moments = [made.optimizer.state_dict()["state"][0]["exp_avg"].tolist()
               for made in (training, again)]
    assert moments[0] == moments[1]
    # Both go on drawing the order in which the interrupted epoch began.
    training.generator.set_state(state.order_state)
    orders = [framework.randperm(100, generator=made.generator).tolist()
              for framework, made in ((writer, training), (reader, again))]
    assert orders[0] == orders[1]
