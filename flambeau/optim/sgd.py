"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import Any

import flambeau
from flambeau.optim._rule import Rule, apply_rule
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
        foreach: accepted and ignored, like `fused`: one launch updates all parameters.
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

    def rule(self, group: dict[str, Any]) -> Rule:
        options = {"lr": number(group["lr"]), "weight_decay": number(group["weight_decay"]),
                   "maximize": group["maximize"]}
        if not self._needs_state(group):
            return Rule("sgd_plain_step", (), options)
        options |= {name: group[name] for name in ("momentum", "dampening", "nesterov")}
        return Rule("sgd_step", ("momentum_buffer",), options)

    def _needs_state(self, group: dict[str, Any]) -> bool:
        return group["momentum"] != 0

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        """Nothing: the first step makes the buffer."""

    def step_rows(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor],
                  states: list[dict]) -> None:
        rule = self.rule(group)
        if rule.state:
            fresh = [state.get("momentum_buffer") is None for state in states]
            if any(fresh):
                self._first_rows(rule, params, grads, states, fresh)
                rest = [i for i, first in enumerate(fresh) if not first]
                params, grads, states = ([rows[i] for i in rest] for rows in (
                    params, grads, states))
        if params:
            apply_rule(rule, params, grads, states)

    @staticmethod
    def _first_rows(rule: Rule, params: list[Tensor], grads: list[Tensor], states: list[dict],
                    fresh: list[bool]) -> None:
        """The first steps of some parameters, whose momentum is the gradient."""
        for grad, state, first in zip(grads, states, fresh, strict=True):
            if first:
                state["momentum_buffer"] = flambeau.empty_like(
                    grad, memory_format=flambeau.preserve_format)
        chosen = [list(compress(rows, fresh)) for rows in (params, grads, states)]
        if flambeau.is_grad_enabled():
            for row in zip(*chosen, strict=True):
                _record_first(*row, **rule.options)
            return
        apply_rule(rule._replace(options={**rule.options, "first": True}), *chosen)

    def step_sparse(self, param: Tensor, grad: Tensor, state: dict, group: dict[str, Any]) -> None:
        options = {name: number(group[name]) for name in (
            "lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")}
        sparse_sgd_step_(param, grad, state if self._needs_state(group) else None, **options)


def _record_first(param: Tensor, grad: Tensor, state: dict[str, Any], *, lr: float,
                  momentum: float, dampening: float, weight_decay: float, nesterov: bool,
                  maximize: bool) -> None:
    """The first step for backward: as in PyTorch, the momentum is a constant."""
    grad = -grad if maximize else grad
    grad = grad.add(param, alpha=weight_decay) if weight_decay != 0 else grad
    buffer = state["momentum_buffer"] = grad.detach().clone()
    param.add_(grad.add(buffer, alpha=momentum) if nesterov else buffer, alpha=-lr)
