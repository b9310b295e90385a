"""ASGD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flambeau
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

__all__ = ["ASGD"]


class ASGD(ParameterwiseOptimizer):
    """SGD with a decreasing rate, and the mean of all parameters seen in the state. Polyak and
    Juditsky, Acceleration of stochastic approximation by averaging, 1992.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate at the start.
        lambd: decay of the parameters.
        alpha: power of the rate's decay.
        t0: step from which on the mean is taken.
        weight_decay: factor of the parameter that is added to its gradient.
        foreach: round as PyTorch does when it updates all parameters together.
        maximize: ascend instead.
        differentiable: record the step for backward.
        capturable: accepted and ignored.
    """

    _no_sparse = "ASGD does not support sparse gradients"
    _later_options = {
        "maximize": False, "foreach": None, "capturable": False, "differentiable": False,
    }

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-2, lambd: float = 1e-4,
                 alpha: float = 0.75, t0: float = 1e6, weight_decay: float = 0,
                 foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        check_lr(lr)
        check_not_negative(weight_decay=weight_decay)
        defaults = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0,
                    "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
                    "differentiable": differentiable, "capturable": capturable}
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any]) -> Rule:
        return Rule("asgd_step", ("ax", "eta", "mu", "step"), {
            "lr": number(group["lr"]), **{name: group[name] for name in (
                "lambd", "alpha", "t0", "weight_decay", "maximize")},
            "foreach": bool(group["foreach"])})

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        state["step"] = new_step(param)
        state["eta"] = flambeau.tensor(float(number(group["lr"])), device=param.device)
        state["mu"] = flambeau.ones((), device=param.device)
        state["ax"] = zeros_for(param)
