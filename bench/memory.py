"""Peak memory and time of training steps, ours and PyTorch's, each in a process of its own.

    memory.py [--models resnet18,lstm] [--steps 4]

What is reported: the growth of the process from after the import to the peak of its resident memory
while it trains (weights, gradients, optimizer, activations, workspaces, generated code), the median
time of a step after the first two, the time of the first step, and the last loss.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from models import MODELS

MODES = ("torch", "flambeau", "flambeau compiled")


def resident(word: str) -> int:
    """Bytes of resident memory: "VmRSS" now, "VmHWM" at the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(word):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"this system does not tell {word}")


def child(mode: str, name: str, steps: int, threads: int) -> None:
    """Train in this process; print the figures as JSON."""
    import importlib

    T = importlib.import_module(mode.split()[0])
    T.set_num_threads(threads)
    T.manual_seed(0)
    T.nn.Linear(2, 2)(T.ones(2)).sum().backward()  # what both load late counts as import
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = resident("VmRSS")
    step = MODELS[name](T)
    if "compiled" in mode:
        step = T.compile(step)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = step().item()
        times.append(time.perf_counter() - start)
    print(json.dumps({"peak": resident("VmHWM") - before, "first": times[0], "loss": loss,
                      "step": statistics.median(times[2:])}))


def main() -> int:
    """Measure every model in every mode and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.steps, options.threads)
        return 0
    print(f"{'':32}{'peak MiB':>10}{'ratio':>8}{'step ms':>10}{'ratio':>8}{'first s':>9}"
          f"{'loss':>9}")
    for name in options.models.split(","):
        base: dict = {}
        for mode in MODES:
            command = [sys.executable, __file__, "--child", mode, name, "--steps",
                       str(options.steps), "--threads", str(options.threads)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                print(f"{name + ', ' + mode:32}failed: {result.stderr.strip().splitlines()[-1:]}")
                continue
            found = json.loads(result.stdout.splitlines()[-1])
            base = base or found
            print(f"{name + ', ' + mode:32}{found['peak'] / 2**20:10.0f}"
                  f"{found['peak'] / base['peak']:8.2f}{found['step'] * 1e3:10.1f}"
                  f"{found['step'] / base['step']:8.2f}{found['first']:9.2f}{found['loss']:9.4f}",
                  flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
