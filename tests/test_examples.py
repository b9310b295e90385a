"""The examples run and draw their pictures; `make conformance` compares their losses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from programs import ROOT

EXAMPLES = ("char_gpt", "lstm_language_model", "vae", "dcgan", "gcn", "bert_masked_lm",
            "resnet_images")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains_and_draws(name, tmp_path):
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--steps", "2", "--picture",
         str(picture)], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    losses = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(losses) == 2
    assert picture.read_bytes().startswith(b"\x89PNG")
