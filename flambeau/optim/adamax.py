"""Adamax."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flambeau.optim._rule import Rule
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    check_betas,
    check_lr,
    check_not_negative,
    new_step,
    number,
    zeros_for,
)
from flambeau.tensor import Tensor

__all__ = ["Adamax"]


class Adamax(ParameterwiseOptimizer):
    """Adam with the greatest gradient in place of the mean square. Kingma and Ba, 2014.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        betas: decay of the running mean and of the greatest gradient.
        eps: added to the gradient's magnitude.
        weight_decay: factor of the parameter that is added to its gradient.
        foreach: accepted and ignored, like `capturable`.
        maximize: ascend instead.
        differentiable: record the step for backward.
        capturable: see `foreach`.
    """

    _no_sparse = "Adamax does not support sparse gradients"
    _later_options = {
        "foreach": None, "maximize": False, "differentiable": False, "capturable": False,
    }

    def __init__(self, params: Iterable, lr: float | Tensor = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        check_lr(lr)
        check_not_negative(epsilon=eps)
        check_betas(betas)
        check_not_negative(weight_decay=weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any]) -> Rule:
        beta1, beta2 = group["betas"]
        return Rule("adamax_step", ("exp_avg", "exp_inf", "step"), {
            "lr": number(group["lr"]), "beta1": beta1, "beta2": beta2, "eps": group["eps"],
            "weight_decay": group["weight_decay"], "maximize": group["maximize"],
        })

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        state["step"] = new_step(param)
        state["exp_avg"] = zeros_for(param)
        state["exp_inf"] = zeros_for(param)
