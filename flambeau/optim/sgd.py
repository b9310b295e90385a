"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flambeau
from flambeau.optim import _update
from flambeau.optim._sparse_update import sparse_sgd_step_
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    check_fused,
    check_lr,
    check_not_negative,
    number,
)
from flambeau.tensor import Tensor

__all__ = ["SGD"]


class SGD(ParameterwiseOptimizer):
    """Gradient descent, with momentum or Nesterov momentum. Sutskever et al., 2013.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        momentum: how much of the last direction is kept.
        dampening: how much of the gradient is left out of the momentum.
        weight_decay: factor of the parameter that is added to its gradient.
        nesterov: whether to look ahead along the momentum.
        maximize: ascend instead.
        foreach: accepted and ignored, like `fused`: the update is always one kernel per parameter.
        differentiable: record the step for backward.
        fused: see `foreach`.
    """

    _later_options = {
        "nesterov": False, "maximize": False, "foreach": None, "differentiable": False,
        "fused": None,
    }

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-3, momentum: float = 0,
                 dampening: float = 0, weight_decay: float | Tensor = 0, nesterov: bool = False,
                 *, maximize: bool = False, foreach: bool | None = None,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        check_lr(lr)
        check_not_negative(momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
            "differentiable": differentiable, "fused": fused,
        }
        super().__init__(params, defaults)
        check_fused(fused, foreach, differentiable)

    def hyperparameters(self, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "lr": number(group["lr"]), "momentum": group["momentum"],
            "dampening": group["dampening"], "weight_decay": number(group["weight_decay"]),
            "nesterov": group["nesterov"], "maximize": group["maximize"],
        }

    def _needs_state(self, group: dict[str, Any]) -> bool:
        return group["momentum"] != 0

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        """Nothing: the first step makes the buffer."""

    def step_single(self, param: Tensor, grad: Tensor, state: dict | None, hyper: dict) -> None:
        if not grad._meta.strided:
            sparse_sgd_step_(param, grad, state, **hyper)
            return
        buffer, first = None, False
        if state is not None:
            buffer = state.get("momentum_buffer")
            first = buffer is None
            if first:
                buffer = flambeau.empty_like(grad, memory_format=flambeau.preserve_format)
                state["momentum_buffer"] = buffer
        _update.sgd_step_(param, grad, buffer, first=first, **hyper)
