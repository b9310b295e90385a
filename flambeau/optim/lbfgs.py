"""L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import flambeau
from flambeau.optim._line_search import strong_wolfe
from flambeau.optim.optimizer import Optimizer, check_lr, number
from flambeau.tensor import Tensor

__all__ = ["LBFGS"]

LEAST_CURVATURE = 1e-10


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last changes of gradient. Liu and Nocedal, On the limited memory
    BFGS method for large scale optimization, 1989.

    There is one parameter group; `step` needs a closure that evaluates the model anew.

    Args:
        params: tensors, or (name, tensor) pairs.
        lr: the learning rate.
        max_iter: iterations per step.
        max_eval: evaluations per step; max_iter * 1.25 by default.
        tolerance_grad: stop where no gradient is larger.
        tolerance_change: stop where loss or parameters change by less.
        history_size: how many changes are remembered.
        line_search_fn: None or "strong_wolfe".
    """

    def __init__(self, params: Iterable, lr: float | Tensor = 1, max_iter: int = 20,
                 max_eval: int | None = None, tolerance_grad: float = 1e-7,
                 tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None) -> None:
        check_lr(lr)
        defaults = {"lr": lr, "max_iter": max_iter,
                    "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                    "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
                    "history_size": history_size, "line_search_fn": line_search_fn}
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params = self.param_groups[0]["params"]

    # -- all parameters as one vector ----------------------------------------------------------
    def _flat_grad(self) -> Tensor:
        parts = []
        for param in self._params:
            part = flambeau.zeros_like(param.detach()) if param.grad is None else param.grad
            part = flambeau.view_as_real(part) if part.is_complex() else part
            parts.append(part.reshape(-1))
        return flambeau.cat(parts)

    def _move(self, step: float, direction: Tensor) -> None:
        """Add step * direction."""
        start = 0
        for param in self._params:
            real = flambeau.view_as_real(param.detach()) if param.is_complex() else param.detach()
            size = real.numel()
            real.add_(direction[start:start + size].view_as(real), alpha=step)
            start += size

    def _evaluated(self, closure: Callable, origin: list[Tensor], direction: Tensor) -> Callable:
        """step -> (loss, gradient); the parameters stay as they are."""

        def evaluate(step: float) -> tuple[float, Tensor]:
            self._move(step, direction)
            loss = float(closure())
            grad = self._flat_grad()
            for param, value in zip(self._params, origin, strict=True):
                param.detach().copy_(value)
            return loss, grad

        return evaluate

    # -- directions ----------------------------------------------------------------------------
    @staticmethod
    def _direction(memory: dict[str, Any], grad: Tensor, size: int) -> Tensor:
        """The next direction; `memory` takes in the last change."""
        if memory["n_iter"] == 1:
            memory.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return grad.neg()
        change = grad.sub(memory["prev_flat_grad"])
        taken = memory["d"].mul(memory["t"])
        curvature = change.dot(taken)
        if curvature.item() > LEAST_CURVATURE:
            for name, value in (("old_dirs", change), ("old_stps", taken),
                                ("ro", 1.0 / curvature)):
                if len(memory[name]) == size:
                    memory[name].pop(0)
                memory[name].append(value)
            memory["H_diag"] = curvature / change.dot(change)
        changes, steps, weights = memory["old_dirs"], memory["old_stps"], memory["ro"]
        q, shares = grad.neg(), [0.0] * len(changes)
        for i in reversed(range(len(changes))):
            shares[i] = (steps[i].dot(q) * weights[i]).item()
            q.add_(changes[i], alpha=-shares[i])
        r = flambeau.mul(q, memory["H_diag"])
        for i in range(len(changes)):
            back = (changes[i].dot(r) * weights[i]).item()
            r.add_(steps[i], alpha=shares[i] - back)
        return r

    @flambeau.no_grad()
    def step(self, closure: Callable) -> Any:
        """Up to `max_iter` iterations; returns the loss at their start."""
        closure = flambeau.enable_grad()(closure)
        group = self.param_groups[0]
        memory = self.state[self._params[0]]
        memory.setdefault("func_evals", 0)
        memory.setdefault("n_iter", 0)
        first = closure()
        loss, evaluations = float(first), 1
        memory["func_evals"] += 1
        grad = self._flat_grad()
        if grad.abs().max().item() <= group["tolerance_grad"]:
            return first
        for iteration in range(1, group["max_iter"] + 1):
            memory["n_iter"] += 1
            memory["d"] = direction = self._direction(memory, grad, group["history_size"])
            memory["prev_flat_grad"] = grad.clone()
            before = loss
            lr = number(group["lr"])
            step = lr
            if memory["n_iter"] == 1:
                step = min(1.0, 1.0 / grad.abs().sum().item()) * lr
            slope = grad.dot(direction).item()
            memory["t"], memory["prev_loss"] = step, before
            if slope > -group["tolerance_change"]:
                break
            last = iteration == group["max_iter"]
            loss, grad, step, used = self._advance(closure, group, step, direction, loss, grad,
                                                   slope, last)
            memory["t"] = step
            evaluations += used
            memory["func_evals"] += used
            if last or evaluations >= group["max_eval"] or (
                    grad.abs().max().item() <= group["tolerance_grad"]
                    or direction.mul(step).abs().max().item() <= group["tolerance_change"]
                    or abs(loss - before) < group["tolerance_change"]):
                break
        return first

    def _advance(self, closure: Callable, group: dict, step: float, direction: Tensor,
                 loss: float, grad: Tensor, slope: float,
                 last: bool) -> tuple[float, Tensor, float, int]:
        """Move; (loss, gradient, step taken, evaluations)."""
        if group["line_search_fn"] is None:
            self._move(step, direction)
            if last:  # nobody needs the loss there
                return loss, grad, step, 0
            with flambeau.enable_grad():
                loss = float(closure())
            return loss, self._flat_grad(), step, 1
        if group["line_search_fn"] != "strong_wolfe":
            raise RuntimeError("only 'strong_wolfe' is supported")
        origin = [param.detach().clone() for param in self._params]
        evaluate = self._evaluated(closure, origin, direction)
        loss, grad, step, used = strong_wolfe(evaluate, step, direction, loss, grad, slope)
        self._move(step, direction)
        return loss, grad, step, used
