"""Averages of a model's parameters over training: stochastic weight averaging, moving averages."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flambeau
from flambeau.nn.modules.batchnorm import _BatchNorm
from flambeau.nn.modules.module import Module
from flambeau.optim._schedule import LRScheduler
from flambeau.optim.optimizer import Optimizer
from flambeau.tensor import Tensor
from flambeau.tensor.lists import MUTATE, over_lists

__all__ = ["AveragedModel", "SWALR", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
           "get_swa_multi_avg_fn", "update_bn"]


def get_swa_avg_fn() -> Callable:
    """The plain mean: average + (parameter - average) / (count + 1)."""

    @flambeau.no_grad()
    def swa_update(average: Tensor, parameter: Tensor, count: Any) -> Tensor:
        return average + (parameter - average) / (count + 1)

    return swa_update


def get_ema_avg_fn(decay: float = 0.999) -> Callable:
    """The moving average: decay * average + (1 - decay) * parameter."""
    _check_decay(decay)

    @flambeau.no_grad()
    def ema_update(average: Tensor, parameter: Tensor, count: Any) -> Tensor:
        return decay * average + (1 - decay) * parameter

    return ema_update


def get_swa_multi_avg_fn() -> Callable:
    """`get_swa_avg_fn` for lists of tensors, in place."""

    @flambeau.no_grad()
    def swa_update(averages: Sequence[Tensor], parameters: Sequence[Tensor], count: Any) -> None:
        if not isinstance(count, Tensor):
            count = flambeau.tensor(count)
        if not (averages[0].is_floating_point() or averages[0].is_complex()):
            for average, parameter in zip(averages, parameters, strict=True):
                average.copy_(average + (parameter - average) / (count + 1))
            return
        over_lists("mean_step", MUTATE)(list(averages), list(parameters), count)

    return swa_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable:
    """`get_ema_avg_fn` for lists of tensors, in place."""
    _check_decay(decay)

    @flambeau.no_grad()
    def ema_update(averages: Sequence[Tensor], parameters: Sequence[Tensor], _: Any) -> None:
        if averages[0].is_floating_point() or averages[0].is_complex():
            flambeau._foreach_lerp_(averages, parameters, 1 - decay)
            return
        for average, parameter in zip(averages, parameters, strict=True):
            average.copy_(average * decay + parameter * (1 - decay))

    return ema_update


def _check_decay(decay: float) -> None:
    if decay < 0.0 or decay > 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] "
                         "range.")


def _floating(pairs: Sequence[tuple[Tensor, Tensor]], floating: bool) -> list[list[Tensor]]:
    """[averages, new values] of the pairs that are floating, or of the others."""
    chosen = [pair for pair in pairs
              if (pair[0].is_floating_point() or pair[0].is_complex()) is floating]
    return [list(column) for column in zip(*chosen, strict=True)] if chosen else []


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's.

    Args:
        model: the model; it is copied.
        device: where the copy lives.
        avg_fn: (average, parameter, number averaged) -> the new average; the mean by default.
        multi_avg_fn: the same for lists of tensors, in place.
        use_buffers: whether buffers are averaged too, rather than copied.

    Attributes:
        module: the copy.
        n_averaged: how often the average was updated.
    """

    def __init__(self, model: Module, device: Any = None, avg_fn: Callable | None = None,
                 multi_avg_fn: Callable | None = None, use_buffers: bool = False) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", flambeau.tensor(0, dtype=flambeau.int64))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The copy's result."""
        return self.module(*args, **kwargs)

    def _averaged(self, model: Module) -> Iterable[Tensor]:
        buffers = model.buffers() if self.use_buffers else ()
        return itertools.chain(model.parameters(), buffers)

    @flambeau.no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the model's present parameters into the average."""
        averages = [x.detach() for x in self._averaged(self.module)]
        news = [x.detach().to(a.device) for x, a in
                zip(self._averaged(model), averages, strict=True)]
        count = int(self.n_averaged)
        if count == 0:
            if averages:
                flambeau._foreach_copy_(averages, news)
        elif self.avg_fn is None:
            update = self.multi_avg_fn or get_swa_multi_avg_fn()
            for floating in (True, False):
                if lists := _floating(list(zip(averages, news, strict=True)), floating):
                    update(*lists, self.n_averaged)
        else:
            for average, new in zip(averages, news, strict=True):
                average.copy_(self.avg_fn(average, new, self.n_averaged))
        if not self.use_buffers:
            olds = [average.detach() for average in self.module.buffers()]
            if olds:
                flambeau._foreach_copy_(olds, [new.detach() for new in model.buffers()])
        self.n_averaged.add_(1)


@flambeau.no_grad()
def update_bn(loader: Iterable, model: Module, device: Any = None) -> None:
    """Take the running statistics of all batch norms anew, from one pass over `loader`."""
    norms = {module: module.momentum for module in model.modules()
             if isinstance(module, _BatchNorm)}
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    training = model.training
    model.train()
    for batch in loader:
        input = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(input if device is None else input.to(device))
    for norm, momentum in norms.items():
        norm.momentum = momentum
    model.train(training)


class SWALR(LRScheduler):
    """From the present learning rates to constant ones, within some epochs.

    Args:
        optimizer: whose rates are set.
        swa_lr: the rate at the end, or one per group.
        anneal_epochs: how many epochs it takes.
        anneal_strategy: "cos" or "linear".
        last_epoch: index of the last epoch.
    """

    def __init__(self, optimizer: Optimizer, swa_lr: float | Sequence[float],
                 anneal_epochs: int = 10, anneal_strategy: str = "cos",
                 last_epoch: int = -1) -> None:
        groups = optimizer.param_groups
        rates = list(swa_lr) if isinstance(swa_lr, (list, tuple)) else [swa_lr] * len(groups)
        if len(rates) != len(groups):
            raise ValueError("swa_lr must have the same length as optimizer.param_groups: swa_lr "
                             f"has {len(rates)}, optimizer.param_groups has {len(groups)}")
        for rate, group in zip(rates, groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError("anneal_strategy must by one of 'cos' or 'linear', instead got "
                             f"{anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError("anneal_epochs must be equal or greater than 0, got "
                             f"{anneal_epochs}")
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, epoch: float) -> float:
        """How much of the way is done."""
        t = max(0.0, min(1.0, epoch / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list:
        """The rates of the next epoch."""
        epoch = self._step_count - 1
        if self.anneal_epochs == 0:
            epoch = max(1, epoch)
        before, now = self._share(epoch - 1), self._share(epoch)
        rates = []
        for group in self.optimizer.param_groups:
            end, rate = group["swa_lr"], group["lr"]
            start = end if before == 1 else (rate - before * end) / (1 - before)
            rates.append(end * now + start * (1 - now))
        return rates
