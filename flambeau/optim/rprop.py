"""Rprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flambeau
from flambeau.optim._rule import Rule
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    check_lr,
    new_step,
    number,
    zeros_for,
)
from flambeau.tensor import Tensor

__all__ = ["Rprop"]


class Rprop(ParameterwiseOptimizer):
    """Steps that follow the gradient's sign and grow while it stays. Riedmiller and Braun, 1993.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the size of the first steps.
        etas: factors of a step when the sign changes, and when it stays.
        step_sizes: least and greatest size of a step.
        capturable: accepted and ignored, like `foreach`.
        foreach: see `capturable`.
        maximize: ascend instead.
        differentiable: record the step for backward.
    """

    _no_sparse = "Rprop does not support sparse gradients"
    _later_options = {
        "maximize": False, "foreach": None, "capturable": False, "differentiable": False,
    }

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-2,
                 etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False,
                 foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        check_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {"lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
                    "maximize": maximize, "differentiable": differentiable,
                    "capturable": capturable}
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any]) -> Rule:
        (down, up), (least, most) = group["etas"], group["step_sizes"]
        return Rule("rprop_step", ("prev", "step_size", "step"), {
            "down": down, "up": up, "least": least, "most": most, "maximize": group["maximize"]})

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        state["step"] = new_step(param)
        state["prev"] = zeros_for(param)
        size = float(number(group["lr"]))
        state["step_size"] = flambeau.full_like(
            param.detach(), complex(size, size) if param.is_complex() else size)
