"""The examples under both frameworks: equal losses from the same seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from programs import ROOT

STEPS = 100
TOLERANCE = 1e-3  # relative, float32


def losses(name, picture, *options):
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py", "--steps", str(STEPS), "--picture", str(picture),
         *options], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [float(line.split()[-1]) for line in done.stdout.splitlines()
            if line.startswith("step")]


DOUBLE = ("resnet_images",)  # in float32 rounding errors grow by 10 a few steps, in PyTorch as here


@pytest.mark.parametrize("name", [
    "char_gpt", "lstm_language_model", "vae", "dcgan", "gcn", "bert_masked_lm", "resnet_images"])
def test_losses_equal(name, tmp_path):
    double = ("--double",) if name in DOUBLE else ()
    expected = losses(name, tmp_path / "t.png", "--framework", "torch", *double)
    assert len(expected) == STEPS
    for options in ((), ("--compile",)):
        found = losses(name, tmp_path / "f.png", *options, *double)
        assert found == pytest.approx(expected, rel=TOLERANCE), options
