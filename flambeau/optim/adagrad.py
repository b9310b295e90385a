"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flambeau
from flambeau.optim import _update
from flambeau.optim._sparse_update import sparse_adagrad_step_
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    as_real,
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

    def hyperparameters(self, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "lr": number(group["lr"]), "lr_decay": group["lr_decay"], "eps": group["eps"],
            "weight_decay": group["weight_decay"], "maximize": group["maximize"],
        }

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        value = group["initial_accumulator_value"]
        state["step"] = new_step()
        state["sum"] = flambeau.full_like(param, complex(value, value) if param.is_complex()
                                          else value, memory_format=flambeau.preserve_format)

    def step_single(self, param: Tensor, grad: Tensor, state: dict, hyper: dict) -> None:
        if not grad._meta.strided:
            sparse_adagrad_step_(param, grad, state["sum"], state["step"], **hyper)
            return
        tensors = (param, grad, state["sum"])
        if param.is_complex():
            tensors = as_real(*tensors)
        _update.adagrad_step_(*tensors, state["step"], **hyper)
