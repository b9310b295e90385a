"""Adadelta."""

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

__all__ = ["Adadelta"]


class Adadelta(ParameterwiseOptimizer):
    """Steps that set their own rate: the ratio of two running mean squares. Zeiler, 2012.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: a factor of the step.
        rho: decay of the mean squares.
        eps: added under the roots.
        weight_decay: factor of the parameter that is added to its gradient.
        foreach: accepted and ignored, like `capturable`.
        capturable: see `foreach`.
        maximize: ascend instead.
        differentiable: record the step for backward.
    """

    _no_sparse = "Adadelta does not support sparse gradients"
    _later_options = {
        "foreach": None, "maximize": False, "differentiable": False, "capturable": False,
    }

    def __init__(self, params: Iterable, lr: float | Tensor = 1.0, rho: float = 0.9,
                 eps: float = 1e-6, weight_decay: float = 0, foreach: bool | None = None, *,
                 capturable: bool = False, maximize: bool = False,
                 differentiable: bool = False) -> None:
        check_lr(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_not_negative(epsilon=eps, weight_decay=weight_decay)
        defaults = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any]) -> Rule:
        return Rule("adadelta_step", ("square_avg", "acc_delta", "step"), {
            "lr": number(group["lr"]), "rho": group["rho"], "eps": group["eps"],
            "weight_decay": group["weight_decay"], "maximize": group["maximize"],
        })

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        state["step"] = new_step(param)
        state["square_avg"] = zeros_for(param)
        state["acc_delta"] = zeros_for(param)
