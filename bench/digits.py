"""Time of one digits training step: ours eager and compiled, torch eager, and the first calls.

    python bench/digits.py [--rounds 9] [--threads N]

Needs scikit-learn; torch is left out when it is not installed. Blocks of steps alternate between
the frameworks.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
import time
from types import ModuleType
from typing import Any

import flambeau
from flambeau.cli import digits
from flambeau.cli.bench import interleave


class Stepper:
    """A training run, stepped by calls without arguments; notes how long the first one took."""

    def __init__(self, torch: ModuleType, compiled: bool = False):
        training = digits.set_up(torch, digits.Recipe())
        step = digits.make_train_step(torch, training)
        self.step: Any = torch.compile(step) if compiled else step
        self.batches = itertools.cycle(list(training.loader))
        started = time.perf_counter()
        self()
        self.first_seconds = time.perf_counter() - started

    def __call__(self) -> float:
        """One step; reading the loss waits for its end."""
        return self.step(*next(self.batches)).item()


def main() -> int:
    """Print first-call and warm step times, and the ratios to torch where it is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    steppers = {"flambeau eager": (flambeau, False), "flambeau compiled": (flambeau, True)}
    if importlib.util.find_spec("torch"):
        import torch

        steppers["torch eager"] = (torch, False)
    made = {}
    for name, (framework, compiled) in steppers.items():
        if options.threads:
            framework.set_num_threads(options.threads)
        made[name] = Stepper(framework, compiled)
    seconds = dict(zip(made, interleave(list(made.values()), options.rounds), strict=True))
    reference = seconds.get("torch eager")
    for name, stepper in made.items():
        ratio = f"{seconds[name] / reference:8.2f}x torch" if reference else ""
        print(f"{name:20} step {seconds[name] * 1e3:8.3f} ms  "
              f"first call {stepper.first_seconds:6.2f} s{ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
