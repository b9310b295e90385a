"""Schedules that repeat, or that react to a measurement."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from flambeau.optim._schedule import (
    LRScheduler,
    callable_state,
    format_value,
    restore_callable,
    set_value,
)
from flambeau.optim.optimizer import Optimizer

__all__ = ["ReduceLROnPlateau", "CyclicLR", "CosineAnnealingWarmRestarts", "OneCycleLR"]


class ReduceLROnPlateau(LRScheduler):
    """lr * factor when a metric has stopped improving.

    Args:
        optimizer: whose groups are changed.
        mode: "min" if less is better, "max" if more is.
        factor: below 1.
        patience: how many epochs without improvement are borne.
        threshold: what counts as an improvement.
        threshold_mode: "rel" for a share of the best, "abs" for a difference.
        cooldown: how many epochs to wait after a reduction.
        min_lr: the least rate, one or one per group.
        eps: reductions smaller than this are not made.
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1,
                 patience: int = 10, threshold: float = 1e-4, threshold_mode: str = "rel",
                 cooldown: int = 0, min_lr: list[float] | float = 0, eps: float = 1e-8) -> None:
        if factor >= 1.0:
            raise ValueError("Factor should be < 1.0.")
        self.factor = factor
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        groups = len(optimizer.param_groups)
        if isinstance(min_lr, list | tuple):
            if len(min_lr) != groups:
                raise ValueError(f"expected {groups} min_lrs, got {len(min_lr)}")
            self.default_min_lr = None
            self.min_lrs = list(min_lr)
        else:
            self.default_min_lr = min_lr
            self.min_lrs = [min_lr] * groups
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.last_epoch = 0
        self._last_lr = self._lrs()
        self._set_mode(mode, threshold, threshold_mode)
        self._reset()

    def _set_mode(self, mode: str, threshold: float, threshold_mode: str) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown!")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode} is unknown!")
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode

    def _reset(self) -> None:
        """Forget the measurements."""
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        """Take note of a measurement, and reduce the rates if it is time.

        Args:
            metrics: the measurement, anything that float() takes.
            epoch: deprecated: the epoch it belongs to.
        """
        current = float(metrics)
        if epoch is None:
            epoch = self.last_epoch + 1
        else:
            warnings.warn("The epoch parameter in `scheduler.step()` was not necessary and is "
                          "being deprecated where possible.", UserWarning, stacklevel=2)
        self.last_epoch = epoch
        if self.is_better(current, self.best):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce_lr(epoch)
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._lrs()

    def _reduce_lr(self, epoch: int) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise RuntimeError(
                    "The number of param groups in the `optimizer` "
                    f"({len(groups)}) differs from when `ReduceLROnPlateau` was initialized "
                    f"({len(self.min_lrs)}), usually due to a new param group being added to the "
                    "optimizer. Please modify the `min_lrs` field to match the length of the "
                    "`optimizer` param groups.")
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, least in zip(groups, self.min_lrs, strict=True):
            old = float(group["lr"])
            new = max(old * self.factor, least)
            if old - new > self.eps:
                set_value(group, "lr", new)

    @property
    def in_cooldown(self) -> bool:
        """Whether a reduction was made less than `cooldown` epochs ago."""
        return self.cooldown_counter > 0

    def is_better(self, a: float, best: float) -> bool:
        """Whether `a` improves on `best` by more than the threshold."""
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            limit = best * (1.0 + sign * self.threshold)
        else:
            limit = best + sign * self.threshold
        return a > limit if self.mode == "max" else a < limit

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.__dict__.update(state_dict)
        self._set_mode(self.mode, self.threshold, self.threshold_mode)


def _momentum_of(optimizer: Optimizer, name: str) -> bool:
    """Whether the momentum is beta1 (of Adam and its kin) rather than "momentum".

    Raises:
        ValueError: the optimizer has neither.
    """
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option "
                         "enabled")
    return "betas" in optimizer.defaults


def _set_momentum(group: dict[str, Any], use_beta1: bool, value: float) -> None:
    if use_beta1:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


class CyclicLR(LRScheduler):
    """Rates that move up and down between two limits. Smith, 2015.

    Args:
        optimizer: whose groups are changed.
        base_lr: the lower limit, one or one per group.
        max_lr: the upper limit, one or one per group.
        step_size_up: number of steps up.
        step_size_down: number of steps down; the same by default.
        mode: "triangular", "triangular2" (the range halves each cycle) or "exp_range" (it shrinks
            by `gamma` each step).
        gamma: of "exp_range".
        scale_fn: the factor of the range, instead of `mode`.
        scale_mode: whether `scale_fn` takes the number of the "cycle" or of "iterations".
        cycle_momentum: whether the momentum moves the opposite way.
        base_momentum: its lower limit, one or one per group.
        max_momentum: its upper limit, one or one per group.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, base_lr: float | list[float],
                 max_lr: float | list[float], step_size_up: int = 2000,
                 step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
                 scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
                 cycle_momentum: bool = True, base_momentum: float | list[float] = 0.8,
                 max_momentum: float | list[float] = 0.9, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        groups = optimizer.param_groups
        base_lrs = format_value(base_lr, len(groups), "base_lr")
        if last_epoch == -1:
            for lr, group in zip(base_lrs, groups, strict=True):
                set_value(group, "lr", lr)
        self.max_lrs = format_value(max_lr, len(groups), "max_lr")
        up = float(step_size_up)
        down = up if step_size_down is None else float(step_size_down)
        self.total_size = up + down
        self.step_ratio = up / self.total_size
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError("mode is invalid and scale_fn is None")
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else (
            "iterations" if mode == "exp_range" else "cycle")
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._init_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def _init_momentum(self, base: float | list, highest: float | list, last_epoch: int) -> None:
        groups = self.optimizer.param_groups
        self.use_beta1 = _momentum_of(self.optimizer, "CyclicLR")
        self.base_momentums = format_value(base, len(groups), "base_momentum")
        self.max_momentums = format_value(highest, len(groups), "max_momentum")
        if last_epoch == -1:
            for most, least, group in zip(self.max_momentums, self.base_momentums, groups,
                                          strict=True):
                _set_momentum(group, self.use_beta1, most)
                group["max_momentum"] = most
                group["base_momentum"] = least

    def scale_fn(self, x: float) -> float:
        """The factor of the range in cycle (or at step) x."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        if self.mode == "triangular2":
            return 1 / (2.0 ** (x - 1))
        return self.gamma ** x

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        if x <= self.step_ratio:
            height = x / self.step_ratio
        else:
            height = (x - 1) / (self.step_ratio - 1)
        at = cycle if self.scale_mode == "cycle" else self.last_epoch
        lrs = []
        for base, highest in zip(self.base_lrs, self.max_lrs, strict=True):
            lrs.append(base + (highest - base) * height * self.scale_fn(at))
        if self.cycle_momentum:
            for base, highest, group in zip(self.base_momentums, self.max_momentums,
                                            self.optimizer.param_groups, strict=True):
                momentum = highest - (highest - base) * height * self.scale_fn(at)
                _set_momentum(group, self.use_beta1, momentum)
        return lrs

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions."""
        state = super().state_dict()
        state["_scale_fn_custom"] = callable_state(state["_scale_fn_custom"])
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; a function stays the present one."""
        state = dict(state_dict)
        restore_callable(self._scale_fn_custom, state.pop("_scale_fn_custom"))
        self.__dict__.update(state)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosine waves down to `eta_min`, each started anew. Loshchilov and Hutter, SGDR, 2016.

    Args:
        optimizer: whose groups are changed.
        T_0: number of epochs of the first wave.
        T_mult: each wave is this much longer than the one before.
        eta_min: the least rate.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1,
                 eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if T_0 <= 0 or not isinstance(T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        if not isinstance(eta_min, float | int):
            raise ValueError("Expected float or int eta_min, but got "
                             f"{eta_min} of type {type(eta_min)}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        wave = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * wave / 2 for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Set the next rates.

        Args:
            epoch: where to be; fractions are fine, so that it can move within an epoch.
        """
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            self._place(epoch)
        self.last_epoch = math.floor(epoch)
        with self._stepping():
            values = self.get_lr()
        self._set_lrs(values)

    def _place(self, epoch: float) -> None:
        """Find the wave that `epoch` lies in, and where in it."""
        if epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        if epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            index = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            before = self.T_0 * (self.T_mult ** index - 1) / (self.T_mult - 1)
            self.T_cur = epoch - before
            self.T_i = self.T_0 * self.T_mult ** index


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _linear(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


def _positive_int(name: str, value: Any) -> None:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"Expected positive integer {name}, but got {value}")


def _total_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is not None:
        _positive_int("total_steps", total_steps)
        return total_steps
    if epochs is None or steps_per_epoch is None:
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    _positive_int("epochs", epochs)
    _positive_int("steps_per_epoch", steps_per_epoch)
    return epochs * steps_per_epoch


class OneCycleLR(LRScheduler):
    """One rise to `max_lr` and one long fall far below the start. Smith and Topin, 2017.

    Args:
        optimizer: whose groups are changed.
        max_lr: the top, one or one per group.
        total_steps: length of the cycle; or give `epochs` and `steps_per_epoch`.
        epochs: number of epochs.
        steps_per_epoch: steps in each.
        pct_start: the share of the rise.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether the momentum moves the opposite way.
        base_momentum: its lower limit, one or one per group.
        max_momentum: its upper limit, one or one per group.
        div_factor: the start is max_lr / div_factor.
        final_div_factor: the end is start / final_div_factor.
        three_phase: whether the fall first mirrors the rise.
        last_epoch: index of the last step taken.
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | list[float],
                 total_steps: int | None = None, epochs: int | None = None,
                 steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True,
                 base_momentum: float | list[float] = 0.85,
                 max_momentum: float | list[float] = 0.95, div_factor: float = 25.0,
                 final_div_factor: float = 1e4, three_phase: bool = False,
                 last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        if pct_start < 0 or pct_start > 1 or not isinstance(pct_start, float):
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError("anneal_strategy must be one of 'cos' or 'linear', instead got "
                             f"{anneal_strategy}")
        self._anneal_func_type = anneal_strategy
        groups = optimizer.param_groups
        if last_epoch == -1:
            for group, top in zip(groups, format_value(max_lr, len(groups), "max_lr"),
                                  strict=True):
                group["initial_lr"] = top / div_factor
                group["max_lr"] = top
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._init_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)

    def _init_momentum(self, base: float | list, highest: float | list, last_epoch: int) -> None:
        groups = self.optimizer.param_groups
        self.use_beta1 = _momentum_of(self.optimizer, "OneCycleLR")
        if last_epoch != -1:
            return
        for most, least, group in zip(format_value(highest, len(groups), "max_momentum"),
                                      format_value(base, len(groups), "base_momentum"), groups,
                                      strict=True):
            _set_momentum(group, self.use_beta1, most)
            group["max_momentum"] = most
            group["base_momentum"] = least

    def get_lr(self) -> list:
        self._warn_unless_stepping()
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"Tried to step {step} times. The specified number of total steps is "
                             f"{self.total_steps}")
        anneal = _cosine if self._anneal_func_type == "cos" else _linear
        phase, share = self._phase_of(step)
        lrs = []
        for group in self.optimizer.param_groups:
            lrs.append(anneal(group[phase["start_lr"]], group[phase["end_lr"]], share))
            if self.cycle_momentum:
                momentum = anneal(group[phase["start_momentum"]], group[phase["end_momentum"]],
                                  share)
                _set_momentum(group, self.use_beta1, momentum)
        return lrs

    def _phase_of(self, step: int) -> tuple[dict[str, Any], float]:
        """The phase that `step` lies in, and how much of it is done."""
        start = 0.0
        for index, phase in enumerate(self._schedule_phases):
            end = phase["end_step"]
            if step <= end or index == len(self._schedule_phases) - 1:
                return phase, (step - start) / (end - start)
            start = end
        raise AssertionError("a schedule has at least one phase")


def _phases(total: int, pct_start: float, three_phase: bool) -> list[dict[str, Any]]:
    """The phases' ends and the names of the values at their ends."""
    up = functools.partial(dict, start_lr="initial_lr", end_lr="max_lr",
                           start_momentum="max_momentum", end_momentum="base_momentum")
    down = functools.partial(dict, start_lr="max_lr", start_momentum="base_momentum",
                             end_momentum="max_momentum")
    top = float(pct_start * total) - 1
    if not three_phase:
        return [up(end_step=top), down(end_step=total - 1, end_lr="min_lr")]
    return [
        up(end_step=top),
        down(end_step=float(2 * pct_start * total) - 2, end_lr="initial_lr"),
        {"end_step": total - 1, "start_lr": "initial_lr", "end_lr": "min_lr",
         "start_momentum": "max_momentum", "end_momentum": "max_momentum"},
    ]
