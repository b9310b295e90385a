"""The digits training step by step, in Flambeau or in PyTorch: the same code, the same losses.

    python examples/digits.py                                   # import flambeau as torch
    python examples/digits.py --framework torch                 # import torch
    python examples/digits.py --compile                         # the step as one compiled program
    python examples/digits.py --epochs 12 --quiet               # the whole run, one line an epoch

Prints one loss a step with nine digits, then the held-out accuracy of each epoch.
"""

from __future__ import annotations

import argparse
import importlib
import itertools

from flambeau.cli import digits


def main() -> None:
    """Train as `flambeau train digits` does, for `--steps` steps or `--epochs` epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", default="flambeau", help="flambeau (default) or torch")
    parser.add_argument("--compile", action="store_true", help="run torch.compile(train_step)")
    parser.add_argument("--epochs", type=int, default=digits.Recipe().epochs)
    parser.add_argument("--steps", type=int, default=None, help="stop after this many steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="print no losses, only accuracies")
    options = parser.parse_args()

    torch = importlib.import_module(options.framework)
    training = digits.set_up(torch, digits.Recipe(seed=options.seed))
    train_step = digits.make_train_step(torch, training)
    if options.compile:
        train_step = torch.compile(train_step)

    step = itertools.count(1)
    for epoch in range(1, options.epochs + 1):
        for x, y in digits.batches(training):
            number, loss = next(step), train_step(x, y).item()
            if not options.quiet:
                print(f"step {number} loss {loss:.9g}", flush=True)
            if number == options.steps:
                return
        training.scheduler.step()
        print(f"epoch {epoch} held-out accuracy {digits.accuracy(torch, training):.4f}", flush=True)


if __name__ == "__main__":
    main()
