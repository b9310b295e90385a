"""`flambeau train digits`: the demo, with progress, accuracy, loss curve and checkpoints.

A run that was interrupted and resumed ends with the same bits as one that was not: the checkpoint
holds the model, the optimizer, the scheduler, both random generators as they were at the start of
the epoch, and the number of batches done since; resuming draws the same order again and skips
those.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from flambeau.cli import digits
from flambeau.cli.checkpoint import RunState, load_state, save_state
from flambeau.cli.errors import INTERRUPTED, UserError
from flambeau.cli.progress import progress

__all__ = ["add_command", "run", "Run", "Stop"]


def add_command(commands: Any) -> None:
    """Register `flambeau train`."""
    parser = commands.add_parser("train", help="train a small model to see that everything works")
    recipes = parser.add_subparsers(dest="recipe", metavar="RECIPE", required=True)
    recipe = recipes.add_parser("digits", help="a convolutional network on handwritten digits")
    defaults = digits.Recipe()
    option = recipe.add_argument
    # Defaults stay None: a resumed run takes them from its checkpoint, a fresh one from Recipe.
    option("--epochs", type=positive_int, help=f"passes over the data (default {defaults.epochs})")
    option("--batch-size", type=positive_int, help=f"images a step (default {defaults.batch_size})")
    option("--lr", type=positive_float, help=f"first learning rate (default {defaults.lr})")
    option("--seed", type=int, help=f"of split, weights and order (default {defaults.seed})")
    option("--compile", action="store_true", help="run the whole step as one compiled program")
    option("--resume", type=Path, metavar="PATH", help="go on from this checkpoint")
    option("--out", type=Path, default=Path("runs/digits"), metavar="DIR",
           help="where checkpoint.pt and loss.png go (default runs/digits)")
    recipe.set_defaults(run=run)


def positive_int(text: str) -> int:
    """An option's value that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def positive_float(text: str) -> float:
    """An option's value that is a finite size."""
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def run(options: argparse.Namespace) -> int:
    """Train as the options say; returns 0, or 130 after Ctrl-C with the state saved."""
    import flambeau

    prepare_folder(options.out)
    state = load_state(flambeau, options.resume) if options.resume else RunState()
    recipe = choose_recipe(options, state)
    if state.epoch >= recipe.epochs:
        raise UserError(f"{options.resume} is finished: all its {state.epoch} epochs are done",
                        "a new run, with more --epochs and without --resume")
    return Run(flambeau, recipe, state, options.out, options.compile).train()


def prepare_folder(folder: Path) -> None:
    """Make the output folder now, so that a mistake shows before the training and not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the output folder {folder}: {error.strerror}",
                        "another --out DIR") from error


def choose_recipe(options: argparse.Namespace, state: RunState) -> digits.Recipe:
    """The defaults overridden by the options, or the checkpoint's, which no option may change."""
    given = {name: getattr(options, name) for name in digits.Recipe._fields
             if getattr(options, name) is not None}
    if state.recipe is None:
        return digits.Recipe(**given)
    kept = digits.Recipe(**state.recipe)
    for name, value in given.items():
        if value != getattr(kept, name):
            flag = "--" + name.replace("_", "-")
            made = f"{options.resume} was made with {flag} {getattr(kept, name)}"
            raise UserError(f"{made}, not {value}",
                            f"leave {flag} away, or start a new run without --resume")
    return kept


class Stop:
    """Turns Ctrl-C into a question asked between steps, so that no update is cut in half.

    The first Ctrl-C sets `asked`; the second one interrupts at once, as usual.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def __enter__(self) -> Stop:
        self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._previous)


class Run:
    """One training run and its files, `checkpoint.pt` and `loss.png` in `folder`.

    Args:
        torch: the framework to train with.
        recipe: what to train.
        state: a fresh `RunState` or a loaded one.
        folder: an existing directory.
        compiled: whether to run the step through `torch.compile`.
    """

    def __init__(self, torch: ModuleType, recipe: digits.Recipe, state: RunState, folder: Path,
                 compiled: bool = False):
        self.torch = torch
        self.recipe = recipe
        self.state = state
        self.checkpoint = folder / "checkpoint.pt"
        self.picture = folder / "loss.png"
        self.training = digits.set_up(torch, recipe)
        state.recipe = recipe._asdict()
        state.restore(torch, self.training)
        step = digits.make_train_step(torch, self.training)
        # exact: a resumed run captures its first steps eagerly, and must still give the same bits
        self.step: Callable[[Any, Any], Any] = (
            torch.compile(step, options={"exact": True}) if compiled else step)

    def train(self) -> int:
        """Run the remaining epochs; returns the exit status."""
        started = time.perf_counter()
        with Stop() as stop:
            while self.state.epoch < self.recipe.epochs:
                if not self.train_epoch(stop):
                    return self.leave()
        seconds = time.perf_counter() - started
        best = self.state.accuracies[-1]
        print(f"held-out accuracy {best:.2%} after {self.state.epoch} epochs, {seconds:.1f} s")
        print(f"checkpoint: {self.checkpoint}")
        print(draw_losses(self.state, self.picture))
        return 0

    def train_epoch(self, stop: Stop) -> bool:
        """Finish the current epoch and save; False if Ctrl-C asked to stop inside it."""
        state, training = self.state, self.training
        if state.batch == 0:
            state.mark_epoch_start(self.torch, training)
        total = len(training.loader)
        bar = progress(f"epoch {state.epoch + 1}/{self.recipe.epochs}", total, done=state.batch)
        try:
            for x, y in digits.batches(training, skip=state.batch):
                loss = self.step(x, y).item()
                state.losses.append(loss)
                state.batch += 1
                bar.set_postfix_str(f"loss {loss:.4f}")
                bar.update()
                if stop.asked and state.batch < total:
                    return False
        finally:
            bar.close()
        training.scheduler.step()
        state.finish_epoch(digits.accuracy(self.torch, training))
        mean = sum(state.losses[-total:]) / total
        print(f"epoch {state.epoch:3d}/{self.recipe.epochs}  train loss {mean:.4f}  "
              f"held-out accuracy {state.accuracies[-1]:.2%}", flush=True)
        save_state(self.torch, state, training, self.checkpoint)
        return not stop.asked

    def leave(self) -> int:
        """Save after Ctrl-C and say how to go on."""
        save_state(self.torch, self.state, self.training, self.checkpoint)
        print(f"\ninterrupted in epoch {self.state.epoch + 1} after {self.state.batch} batches; "
              "everything is saved\n"
              f"  go on with: flambeau train digits --resume {self.checkpoint}")
        return INTERRUPTED


def draw_losses(state: RunState, path: Path) -> str:
    """Draw the loss of each step and the accuracy of each epoch; returns a line saying where."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return "no loss curve: it is drawn by matplotlib, pip install 'flambeau[demo]'"
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses = figure.add_subplot()
    losses.semilogy(range(1, len(state.losses) + 1), state.losses, linewidth=0.8)
    losses.set(xlabel="step", ylabel="training loss (cross entropy)", title="handwritten digits")
    steps = len(state.losses) / len(state.accuracies)
    accuracies = losses.twinx()
    accuracies.plot([steps * (epoch + 1) for epoch in range(len(state.accuracies))],
                    [100 * share for share in state.accuracies], "o-", color="tab:orange")
    accuracies.set_ylabel("held-out accuracy (%)", color="tab:orange")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        return f"no loss curve: {path}: {error.strerror}"
    return f"loss curve: {path}"
