"""LRScheduler: what all learning rate schedules share."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from flambeau.optim.optimizer import Optimizer
from flambeau.tensor import Tensor
from flambeau.tensor.dispatch import host_action

__all__ = ["LRScheduler", "copy_value", "scaled", "format_value", "callable_state",
           "restore_callable"]


def copy_value(value: Any) -> Any:
    """A tensor's copy, so that a later in-place change does not reach it; numbers as they are."""
    return value.clone() if isinstance(value, Tensor) else value


def format_value(value: Any, groups: int, name: str) -> list:
    """One value per parameter group.

    Raises:
        ValueError: a list of the wrong length.
    """
    if isinstance(value, list | tuple):
        if len(value) != groups:
            raise ValueError(f"{name} must have the same length as optimizer.param_groups. {name} "
                             f"has {len(value)} values, param_groups has {groups}.")
        return list(value)
    return [value] * groups


def callable_state(function: Any) -> dict | None:
    """What to save of a callable: an object's attributes; functions cannot be saved."""
    if function is None or isinstance(function, type(lambda: None)):
        return None
    return dict(function.__dict__)


def restore_callable(function: Any, state: dict | None) -> None:
    """Undo `callable_state`."""
    if state is not None:
        function.__dict__.update(state)


class LRScheduler:
    """Base class of schedules: each `step()` sets the learning rate of every parameter group.

    A subclass defines `get_lr`, which gives the new rates from the present ones (so that schedules
    can be chained), and may define `_get_closed_form_lr`, which gives them from the epoch alone.

    Args:
        optimizer: whose groups are changed.
        last_epoch: index of the last step taken; -1 starts anew and notes the present rates as
            "initial_lr".

    Raises:
        TypeError: `optimizer` is no Optimizer.
        KeyError: resuming without "initial_lr" in the groups.
    """

    _get_lr_called_within_step = False
    _is_initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        if last_epoch == -1:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", copy_value(group["lr"]))
        else:
            for index, group in enumerate(optimizer.param_groups):
                if "initial_lr" not in group:
                    raise KeyError(
                        f"param 'initial_lr' is not specified in param_groups[{index}] when "
                        "resuming scheduler with last_epoch >= 0. Load the optimizer's state_dict "
                        "before making the scheduler, or start anew with last_epoch=-1"
                    )
        self.base_lrs = [copy_value(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list:
        """The rates that the last step set."""
        return self._last_lr

    def get_lr(self) -> list:
        """The next rates, one per group; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr()")

    def step(self, epoch: int | None = None) -> None:
        """Set the next rates. Call it after `optimizer.step()`.

        Args:
            epoch: deprecated: the epoch to jump to.
        """
        host_action("stepping a learning rate scheduler")
        if self._step_count == 1 and not getattr(self.optimizer, "_opt_called", False):
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`: call them in "
                "the opposite order, or the first value of the schedule is skipped. See "
                "https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate",
                UserWarning, stacklevel=2)
        self._step_count += 1
        if epoch is not None:
            warnings.warn(
                "The epoch parameter in `scheduler.step()` was not necessary and is being "
                "deprecated where possible. Please use `scheduler.step()` to step the scheduler.",
                UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        with self._stepping():
            if epoch is None:
                self.last_epoch += 1
                values = self.get_lr()
            else:
                self.last_epoch = epoch
                closed_form: Callable | None = getattr(self, "_get_closed_form_lr", None)
                values = self.get_lr() if closed_form is None else closed_form()
        self._set_lrs(values)

    @contextlib.contextmanager
    def _stepping(self) -> Iterator[None]:
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def _set_lrs(self, values: list) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=False):
            set_value(group, "lr", value)
        self._last_lr = [copy_value(group["lr"]) for group in self.optimizer.param_groups]

    def _lrs(self) -> list:
        """The present rates."""
        return [copy_value(group["lr"]) for group in self.optimizer.param_groups]

    def _warn_unless_stepping(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn("To get the last learning rate computed by the scheduler, please use "
                          "`get_last_lr()`.", UserWarning, stacklevel=3)


def set_value(group: dict[str, Any], key: str, value: Any) -> None:
    """Set an option of a group; a tensor keeps its identity and takes the value."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value.item() if isinstance(value, Tensor) else value)
    else:
        group[key] = value


def scaled(values: list, factor: float) -> list:
    """Every value times `factor`."""
    return [value * factor for value in values]
