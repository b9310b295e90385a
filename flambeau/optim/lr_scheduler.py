"""Learning rate schedules."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flambeau.optim._cycles import (
    CosineAnnealingWarmRestarts,
    CyclicLR,
    OneCycleLR,
    ReduceLROnPlateau,
)
from flambeau.optim._schedule import (
    LRScheduler,
    callable_state,
    restore_callable,
    scaled,
)
from flambeau.optim.optimizer import Optimizer
from flambeau.tensor.dispatch import host_action

__all__ = [
    "LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR",
    "ExponentialLR", "SequentialLR", "CosineAnnealingLR", "ChainedScheduler", "ReduceLROnPlateau",
    "CyclicLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "PolynomialLR", "LRScheduler",
]

# The name that older code derives from.
_LRScheduler = LRScheduler


class _LambdaBase(LRScheduler):
    """Schedules by a function of the epoch, one for all groups or one for each."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | list,
                 last_epoch: int = -1) -> None:
        groups = len(optimizer.param_groups)
        if not isinstance(lr_lambda, list | tuple):
            self.lr_lambdas = [lr_lambda] * groups
        else:
            if len(lr_lambda) != groups:
                raise ValueError(f"Expected {groups} lr_lambdas, but got {len(lr_lambda)}")
            self.lr_lambdas = list(lr_lambda)
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions; of callable objects the attributes."""
        state = {key: value for key, value in self.__dict__.items()
                 if key not in ("optimizer", "lr_lambdas")}
        state["lr_lambdas"] = [callable_state(function) for function in self.lr_lambdas]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; functions stay the present ones."""
        state = dict(state_dict)
        for function, saved in zip(self.lr_lambdas, state.pop("lr_lambdas"), strict=True):
            restore_callable(function, saved)
        self.__dict__.update(state)


class LambdaLR(_LambdaBase):
    """initial lr * lr_lambda(epoch).

    Args:
        optimizer: whose groups are changed.
        lr_lambda: the function, or one per group.
        last_epoch: index of the last step taken.
    """

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        return [base * function(self.last_epoch)
                for function, base in zip(self.lr_lambdas, self.base_lrs, strict=True)]


class MultiplicativeLR(_LambdaBase):
    """lr * lr_lambda(epoch) at every step.

    Args:
        optimizer: whose groups are changed.
        lr_lambda: the function, or one per group.
        last_epoch: index of the last step taken.
    """

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        if self._is_initial:
            return self._lrs()
        return [lr * function(self.last_epoch)
                for function, lr in zip(self.lr_lambdas, self._lrs(), strict=True)]


class StepLR(LRScheduler):
    """lr * gamma every `step_size` epochs.

    Args:
        optimizer: whose groups are changed.
        step_size: number of epochs.
        gamma: the factor.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        if self.last_epoch == 0 or self.last_epoch % self.step_size != 0:
            return self._lrs()
        return scaled(self._lrs(), self.gamma)

    def _get_closed_form_lr(self) -> list:
        return scaled(self.base_lrs, self.gamma ** (self.last_epoch // self.step_size))


class MultiStepLR(LRScheduler):
    """lr * gamma at every milestone.

    Args:
        optimizer: whose groups are changed.
        milestones: epochs; one that occurs twice counts twice.
        gamma: the factor.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        if self.last_epoch not in self.milestones:
            return self._lrs()
        return scaled(self._lrs(), self.gamma ** self.milestones[self.last_epoch])

    def _get_closed_form_lr(self) -> list:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return scaled(self.base_lrs, self.gamma ** passed)


class ConstantLR(LRScheduler):
    """initial lr * factor for `total_iters` epochs, then the initial lr.

    Args:
        optimizer: whose groups are changed.
        factor: from 0 to 1.
        total_iters: number of epochs.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5,
                 last_epoch: int = -1) -> None:
        if factor > 1.0 or factor < 0:
            raise ValueError("Constant multiplicative factor expected to be between 0 and 1.")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        if self.last_epoch == 0:
            return scaled(self._lrs(), self.factor)
        if self.last_epoch != self.total_iters:
            return self._lrs()
        return scaled(self._lrs(), 1.0 / self.factor)

    def _get_closed_form_lr(self) -> list:
        after = self.last_epoch >= self.total_iters
        return scaled(self.base_lrs, self.factor + after * (1 - self.factor))


class LinearLR(LRScheduler):
    """initial lr * a factor that moves evenly from `start_factor` to `end_factor`.

    Args:
        optimizer: whose groups are changed.
        start_factor: above 0, at most 1.
        end_factor: from 0 to 1.
        total_iters: after how many epochs the end is reached.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1.0 / 3,
                 end_factor: float = 1.0, total_iters: int = 5, last_epoch: int = -1) -> None:
        if start_factor > 1.0 or start_factor <= 0:
            raise ValueError("Starting multiplicative factor expected to be greater than 0 and "
                             "less or equal to 1.")
        if end_factor > 1.0 or end_factor < 0:
            raise ValueError("Ending multiplicative factor expected to be between 0 and 1.")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        if self.last_epoch == 0:
            return scaled(self._lrs(), self.start_factor)
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._lrs()
        rise = self.end_factor - self.start_factor
        return scaled(self._lrs(), 1.0 + rise / (self.total_iters * self.start_factor
                                                 + (self.last_epoch - 1) * rise))

    def _get_closed_form_lr(self) -> list:
        rise = self.end_factor - self.start_factor
        done = min(self.total_iters, self.last_epoch)
        return scaled(self.base_lrs, self.start_factor + rise * done / self.total_iters)


class ExponentialLR(LRScheduler):
    """lr * gamma at every step.

    Args:
        optimizer: whose groups are changed.
        gamma: the factor.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        if self._is_initial:
            return self._lrs()
        return scaled(self._lrs(), self.gamma)

    def _get_closed_form_lr(self) -> list:
        return scaled(self.base_lrs, self.gamma ** self.last_epoch)


class PolynomialLR(LRScheduler):
    """initial lr * (1 - epoch / total_iters)^power, 0 after that.

    Args:
        optimizer: whose groups are changed.
        total_iters: number of epochs.
        power: the exponent.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0,
                 last_epoch: int = -1) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._lrs()
        now = 1.0 - self.last_epoch / self.total_iters
        before = 1.0 - (self.last_epoch - 1) / self.total_iters
        return scaled(self._lrs(), (now / before) ** self.power)

    def _get_closed_form_lr(self) -> list:
        done = min(self.total_iters, self.last_epoch)
        return scaled(self.base_lrs, (1.0 - done / self.total_iters) ** self.power)


class CosineAnnealingLR(LRScheduler):
    """From the initial lr down to `eta_min` along half a cosine wave, and up again.

    Loshchilov and Hutter, SGDR, 2016 (without the restarts).

    Args:
        optimizer: whose groups are changed.
        T_max: number of epochs of half a wave.
        eta_min: the least rate.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        epoch, low = self.last_epoch, self.eta_min
        if self._is_initial:
            return self._lrs()
        if self._step_count == 1 and epoch > 0:
            return self._get_closed_form_lr()
        if (epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            # At the bottom of the wave the quotient below would divide by zero.
            return [lr + (base - low) * (1 - math.cos(math.pi / self.T_max)) / 2
                    for base, lr in zip(self.base_lrs, self._lrs(), strict=True)]
        return [(1 + math.cos(math.pi * epoch / self.T_max))
                / (1 + math.cos(math.pi * (epoch - 1) / self.T_max)) * (lr - low) + low
                for lr in self._lrs()]

    def _get_closed_form_lr(self) -> list:
        wave = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * wave / 2 for base in self.base_lrs]


def _check_same_optimizer(owner: str, schedulers: Sequence[Any], optimizer: Any) -> None:
    for index, scheduler in enumerate(schedulers):
        if not hasattr(scheduler, "optimizer"):
            raise TypeError(f"{owner} at index {index} should have `optimizer` as its attribute.")
        if optimizer is not scheduler.optimizer:
            raise ValueError(
                f"{owner} expects all schedulers to belong to the same optimizer, but got "
                f"scheduler {type(scheduler).__name__} at index {index} has "
                f"{scheduler.optimizer}, which is different from {type(optimizer).__name__}.")


class _Composed(LRScheduler):
    """A schedule made of schedules."""

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of the schedules their own state."""
        state = {key: value for key, value in self.__dict__.items()
                 if key not in ("optimizer", "_schedulers")}
        state["_schedulers"] = [scheduler.state_dict() for scheduler in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        state = dict(state_dict)
        for scheduler, saved in zip(self._schedulers, state.pop("_schedulers"), strict=True):
            scheduler.load_state_dict(saved)
        self.__dict__.update(state)


class SequentialLR(_Composed):
    """Schedules one after another.

    Args:
        optimizer: whose groups are changed.
        schedulers: the schedules, made for the same optimizer.
        milestones: epochs at which the next one starts.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler],
                 milestones: list[int], last_epoch: int = -1) -> None:
        if not schedulers:
            raise ValueError("SequentialLR expects at least one scheduler, but got no scheduler.")
        for index, scheduler in enumerate(schedulers):
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    "SequentialLR does not support `ReduceLROnPlateau` scheduler as it requires "
                    "additional kwargs to be specified when calling `step`, but got one at index "
                    f"{index} in the given schedulers sequence.")
        _check_same_optimizer("SequentialLR", schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than "
                f"the number of milestone points, but got number of schedulers {len(schedulers)} "
                f"and the number of milestones to be equal to {len(milestones)}")
        self._schedulers = schedulers
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        self.optimizer = optimizer
        # Each schedule took its first step when it was made: undo that, then start the first.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in schedulers:
            scheduler.last_epoch -= 1
        schedulers[0]._initial_step()
        self._last_lr = schedulers[0].get_last_lr()

    def step(self) -> None:
        """Step the schedule whose turn it is."""
        host_action("stepping a learning rate scheduler")
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[index]
        if index > 0 and self._milestones[index - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Composed):
    """Schedules all at once: each step takes a step of every one, in order.

    Args:
        schedulers: the schedules, made for the same optimizer.
        optimizer: that optimizer; taken from the first schedule if None.
    """

    def __init__(self, schedulers: Sequence[LRScheduler],
                 optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ValueError("ChainedScheduler expects at least one scheduler to be chained, but "
                             "got no scheduler.")
        optimizer = optimizer or schedulers[0].optimizer
        _check_same_optimizer("ChainedScheduler", schedulers, optimizer)
        self._schedulers = schedulers
        self.optimizer = optimizer
        self._last_lr = self._lrs()

    def step(self) -> None:
        """Step every schedule."""
        host_action("stepping a learning rate scheduler")
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._lrs()
