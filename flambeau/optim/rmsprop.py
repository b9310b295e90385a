"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flambeau.optim._rule import Rule
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    check_lr,
    check_not_negative,
    new_step,
    number,
    zeros_for,
)
from flambeau.tensor import Tensor

__all__ = ["RMSprop"]


class RMSprop(ParameterwiseOptimizer):
    """Steps divided by the root of the gradient's running mean square. Hinton, 2012.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        alpha: decay of the mean square.
        eps: added to the denominator.
        weight_decay: factor of the parameter that is added to its gradient.
        momentum: how much of the last direction is kept.
        centered: divide by the deviation instead of the root mean square. Graves, 2013.
        capturable: accepted and ignored, like `foreach`.
        foreach: see `capturable`.
        maximize: ascend instead.
        differentiable: record the step for backward.
    """

    _no_sparse = "RMSprop does not support sparse gradients"
    _later_options = {
        "momentum": 0, "centered": False, "foreach": None, "maximize": False,
        "differentiable": False, "capturable": False,
    }

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-2, alpha: float = 0.99,
                 eps: float = 1e-8, weight_decay: float = 0, momentum: float = 0,
                 centered: bool = False, capturable: bool = False, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False) -> None:
        check_lr(lr)
        check_not_negative(epsilon=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any]) -> Rule:
        name, state = "rmsprop", ("square_avg",)
        options = {"lr": number(group["lr"]), "alpha": group["alpha"], "eps": group["eps"],
                   "weight_decay": group["weight_decay"], "maximize": group["maximize"]}
        if group["centered"]:
            name, state = name + "_centered", (*state, "grad_avg")
        if group["momentum"] > 0:
            name, state = name + "_momentum", (*state, "momentum_buffer")
            options["momentum"] = group["momentum"]
        return Rule(name + "_step", (*state, "step"), options)

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        state["step"] = new_step(param)
        state["square_avg"] = zeros_for(param)
        if group["momentum"] > 0:
            state["momentum_buffer"] = zeros_for(param)
        if group["centered"]:
            state["grad_avg"] = zeros_for(param)
