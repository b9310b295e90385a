"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flambeau
from flambeau.optim._rule import Rule
from flambeau.optim._sparse_update import sparse_adagrad_step_
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    check_fused,
    check_lr,
    check_not_negative,
    new_step,
    number,
)
from flambeau.tensor import Tensor

__all__ = ["Adagrad"]


class Adagrad(ParameterwiseOptimizer):
    """Steps divided by the root of the sum of all squared gradients. Duchi et al., 2011.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        lr_decay: the rate of step t is lr / (1 + (t - 1) lr_decay).
        weight_decay: factor of the parameter that is added to its gradient.
        initial_accumulator_value: the sum at first.
        eps: added to the denominator.
        foreach: accepted and ignored, like `fused`.
        maximize: ascend instead.
        differentiable: record the step for backward.
        fused: see `foreach`.
    """

    _later_options = {"foreach": None, "maximize": False, "differentiable": False, "fused": None}

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-2, lr_decay: float = 0,
                 weight_decay: float = 0, initial_accumulator_value: float = 0,
                 eps: float = 1e-10, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        check_lr(lr)
        check_not_negative(lr_decay=lr_decay, weight_decay=weight_decay,
                           initial_accumulator_value=initial_accumulator_value, epsilon=eps)
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "fused": fused,
        }
        super().__init__(params, defaults)
        check_fused(fused, foreach, differentiable)
        for group in self.param_groups:
            for param in group["params"]:
                self.init_single(param, self.state[param], group)

    def share_memory(self) -> None:
        """Move the sums to memory that other processes can map."""
        for state in self.state.values():
            state["sum"].share_memory_()

    def rule(self, group: dict[str, Any]) -> Rule:
        return Rule("adagrad_step", ("sum", "step"), {
            "lr": number(group["lr"]), "lr_decay": group["lr_decay"], "eps": group["eps"],
            "weight_decay": group["weight_decay"], "maximize": group["maximize"],
        })

    def step_sparse(self, param: Tensor, grad: Tensor, state: dict, group: dict[str, Any]) -> None:
        sparse_adagrad_step_(param, grad, state["sum"], state["step"], **self.rule(group).options)

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        value = group["initial_accumulator_value"]
        state["step"] = new_step(param)
        state["sum"] = flambeau.full_like(param, complex(value, value) if param.is_complex()
                                          else value, memory_format=flambeau.preserve_format)
