"""Muon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flambeau.optim import _update
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    number,
    zeros_for,
)
from flambeau.tensor import Tensor

__all__ = ["Muon"]


class Muon(ParameterwiseOptimizer):
    """Momentum whose direction is made orthogonal, for matrices alone. Jordan et al., Muon: an
    optimizer for hidden layers in neural networks, 2024.

    Args:
        params: matrices, (name, matrix) pairs or groups.
        lr: the learning rate.
        weight_decay: how much the parameter itself shrinks.
        momentum: decay of the running mean of gradients.
        nesterov: whether the direction looks ahead.
        ns_coefficients: of the Newton-Schulz iteration's polynomial.
        eps: least norm that is divided by.
        ns_steps: number of iterations.
        adjust_lr_fn: how the rate depends on the shape: "original" (default) or "match_rms_adamw".
    """

    _no_sparse = "Muon does not support sparse gradients"

    def __init__(self, params: Iterable, lr: float = 1e-3, weight_decay: float = 0.1,
                 momentum: float = 0.95, nesterov: bool = True,
                 ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
                 eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not number(lr) >= 0.0:
            raise ValueError(f"Learning rate should be >= 0 but is: {lr}")
        if not momentum >= 0.0:
            raise ValueError(f"momentum should be >= 0 but is: {momentum}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight decay should be >= 0 but is: {weight_decay}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum,
                    "nesterov": nesterov, "ns_coefficients": ns_coefficients, "eps": eps,
                    "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, defaults)
        for group in self.param_groups:
            for param in group["params"]:
                if param.dim() != 2:
                    raise ValueError("Muon only supports 2D parameters whereas we found a "
                                     f"parameter with size: {param.size()}")

    def hyperparameters(self, group: dict[str, Any]) -> dict[str, Any]:
        return {"lr": number(group["lr"]), **{name: group[name] for name in (
            "weight_decay", "momentum", "nesterov", "ns_coefficients", "eps", "ns_steps",
            "adjust_lr_fn")}}

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        if param.is_complex():
            raise RuntimeError("Muon does not support complex parameters")
        state["momentum_buffer"] = zeros_for(param)

    def step_single(self, param: Tensor, grad: Tensor, state: dict, hyper: dict) -> None:
        _update.muon_step_(param, grad, state["momentum_buffer"], **hyper)
