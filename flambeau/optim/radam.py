"""RAdam."""

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

__all__ = ["RAdam"]


class RAdam(ParameterwiseOptimizer):
    """Adam that warms up by itself. Liu et al., On the variance of the adaptive learning
    rate, 2019.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        betas: decay of the two running means.
        eps: added to the denominator.
        weight_decay: factor of the parameter that is added to its gradient.
        decoupled_weight_decay: shrink the parameter itself instead (AdamW).
        foreach: accepted and ignored, like `capturable`.
        maximize: ascend instead.
        capturable: see `foreach`.
        differentiable: record the step for backward.
    """

    _no_sparse = "RAdam does not support sparse gradients"
    _later_options = {
        "maximize": False, "foreach": None, "capturable": False, "differentiable": False,
        "decoupled_weight_decay": False,
    }

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        check_lr(lr)
        check_not_negative(epsilon=eps)
        check_betas(betas)
        check_not_negative(weight_decay=weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any]) -> Rule:
        beta1, beta2 = group["betas"]
        return Rule("radam_step", ("exp_avg", "exp_avg_sq", "step"), {
            "lr": number(group["lr"]), "beta1": beta1, "beta2": beta2, "eps": group["eps"],
            "weight_decay": group["weight_decay"], "maximize": group["maximize"],
            "decoupled": group["decoupled_weight_decay"],
        })

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        state["step"] = new_step(param)
        state["exp_avg"] = zeros_for(param)
        state["exp_avg_sq"] = zeros_for(param)
