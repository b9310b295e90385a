"""The state of a demo run: what a checkpoint holds, and how it goes to disk and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

from flambeau.cli.digits import Training
from flambeau.cli.errors import UserError

__all__ = ["RunState", "save_state", "load_state"]

FORMAT = "flambeau digits run, 1"


@dataclasses.dataclass
class RunState:
    """Where a run stands. Tensors live in the `Training`; this is the rest.

    Attributes:
        recipe: the fields of `digits.Recipe`; None before the run was set up.
        epoch: finished epochs.
        batch: finished batches of the epoch after those, the sampler's position.
        losses: one training loss a step.
        accuracies: one held-out accuracy an epoch.
        order_state: the shuffling generator's state at the start of the current epoch (uint8).
        random_state: the default generator's state at that moment.
        tensors: the loaded state_dicts, until `restore` has used them.
    """

    recipe: dict[str, Any] | None = None
    epoch: int = 0
    batch: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)
    accuracies: list[float] = dataclasses.field(default_factory=list)
    order_state: Any = None
    random_state: Any = None
    tensors: dict[str, Any] | None = None

    def mark_epoch_start(self, torch: ModuleType, training: Training) -> None:
        """Keep the generators' states from which the coming epoch draws."""
        self.order_state = training.generator.get_state()
        self.random_state = torch.get_rng_state()

    def finish_epoch(self, accuracy: float) -> None:
        """Count the epoch as done."""
        self.epoch += 1
        self.batch = 0
        self.accuracies.append(accuracy)

    def restore(self, torch: ModuleType, training: Training) -> None:
        """Put loaded tensors and generator states into a freshly set-up training, once."""
        if self.tensors is None:
            return
        training.model.load_state_dict(self.tensors["model"])
        training.optimizer.load_state_dict(self.tensors["optimizer"])
        training.scheduler.load_state_dict(self.tensors["scheduler"])
        training.generator.set_state(self.order_state)
        torch.set_rng_state(self.random_state)
        self.tensors = None


def save_state(torch: ModuleType, state: RunState, training: Training, path: Path) -> None:
    """Write the checkpoint; Flambeau's `save` does so whole or not at all.

    Raises:
        UserError: the disk does not take it; an older checkpoint at `path` stays as it was.
    """
    if state.batch == 0:
        state.mark_epoch_start(torch, training)
    content = {
        "format": FORMAT,
        "recipe": state.recipe,
        "epoch": state.epoch,
        "batch": state.batch,
        "losses": state.losses,
        "accuracies": state.accuracies,
        "order_state": state.order_state,
        "random_state": state.random_state,
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict(),
    }
    try:
        torch.save(content, path)
    except OSError as error:
        raise UserError(str(error.strerror or error),
                        "free some space, or another --out DIR") from error


def load_state(torch: ModuleType, path: Path) -> RunState:
    """Read a checkpoint of `save_state`.

    Raises:
        UserError: there is no such file, or it is no checkpoint of this command.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}", "the path that the run printed")
    try:
        content = torch.load(path, weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever the reader finds wrong, the user needs one sentence
        raise UserError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of `flambeau train digits`")
    tensors = {name: content[name] for name in ("model", "optimizer", "scheduler")}
    fields = {field.name: content[field.name] for field in dataclasses.fields(RunState)
              if field.name != "tensors"}
    return RunState(**fields, tensors=tensors)
