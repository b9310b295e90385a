"""Muon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flambeau
from flambeau.optim.optimizer import ParameterwiseOptimizer, number, zeros_for
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

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        if param.is_complex():
            raise RuntimeError("Muon does not support complex parameters")
        state["momentum_buffer"] = zeros_for(param)

    def step_rows(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor],
                  states: list[dict]) -> None:
        options = {"lr": number(group["lr"]), **{name: group[name] for name in (
            "weight_decay", "momentum", "nesterov", "ns_coefficients", "eps", "ns_steps",
            "adjust_lr_fn")}}
        for param, grad, state in zip(params, grads, states, strict=True):
            _step(param, grad, state["momentum_buffer"], **options)


def _step(param: Tensor, grad: Tensor, momentum_buffer: Tensor, *, lr: float, weight_decay: float,
          momentum: float, nesterov: bool, ns_coefficients: tuple, eps: float, ns_steps: int,
          adjust_lr_fn: str | None) -> None:
    """m = lerp(m, g, 1 - momentum); p = (1 - lr wd) p - rate * orthogonal(m)."""
    momentum_buffer.lerp_(grad, 1 - momentum)
    update = grad.lerp(momentum_buffer, momentum) if nesterov else momentum_buffer
    update = _orthogonal(update, ns_coefficients, ns_steps, eps)
    rows, columns = param.shape
    if adjust_lr_fn == "match_rms_adamw":
        rate = lr * 0.2 * max(rows, columns) ** 0.5
    else:
        rate = lr * max(1, rows / columns) ** 0.5
    param.mul_(1 - lr * weight_decay)
    param.add_(update, alpha=-rate)


def _orthogonal(matrix: Tensor, coefficients: tuple, steps: int, eps: float) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1, in bfloat16: iterates
    X = a X + (b G + c G^2) X, where G = X X^T (Newton-Schulz)."""
    a, b, c = coefficients
    x = matrix.to(flambeau.bfloat16)
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = flambeau.addmm(x, flambeau.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
