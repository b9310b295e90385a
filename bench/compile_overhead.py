"""What Python costs around a compiled training step: guards, arguments, results.

The step of a small MLP is so short that all else shows. Printed per optimizer: the whole call, the
native program by itself, and the difference, which is Python's; beside it the number of places and
tensors that the guards look at.

    python bench/compile_overhead.py [--calls 3000]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F
from flambeau.tensor import launches


def fastest(function, calls: int, rounds: int = 7) -> float:
    """Microseconds per call, in the best of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, (time.perf_counter() - start) / calls)
    return best * 1e6


def compiled_step(optimizer: str, **options):
    """(step, x, y): one training step of an MLP with three layers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    chosen = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01, **options)

    @torch.compile
    def step(x, y):
        chosen.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        chosen.step()
        return loss.detach()

    return step, torch.randn(4, 8), torch.randint(0, 4, (4,))


def native_only(step, x, y):
    """The program of a step as a function of nothing: one launch with the same arguments."""
    given = []
    at_once = launches.late.at_once

    def note(*argv):
        given[:] = argv
        return at_once(*argv)

    launches.late.at_once = note
    step(x, y)
    launches.late.at_once = at_once
    return lambda: at_once(*given)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=3000)
    calls = parser.parse_args().calls
    torch.set_num_threads(1)
    print(f"{'optimizer':24}{'call us':>9}{'native us':>11}{'Python us':>11}{'guards us':>11}"
          f"{'places':>8}")
    for name, options in (("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {})):
        step, x, y = compiled_step(name, **options)
        for _ in range(5):
            step(x, y)
        program = next(program for programs in step.programs.values() for program in programs)
        owners = [id(x._storage), id(y._storage)]
        whole = fastest(lambda: step(x, y), calls)  # noqa: B023
        native = fastest(native_only(step, x, y), calls)
        guards = fastest(lambda: program.guard.holds([x, y], [], owners), calls)  # noqa: B023
        title = f"{name} {options or ''}"
        print(f"{title:24}{whole:9.1f}{native:11.1f}{whole - native:11.1f}{guards:11.1f}"
              f"{len(program.guard.checked):8}")


if __name__ == "__main__":
    main()
