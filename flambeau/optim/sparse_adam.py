"""Adam for sparse gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flambeau.optim._sparse_update import sparse_adam_step_
from flambeau.optim.optimizer import ParameterwiseOptimizer, number, zeros_for
from flambeau.tensor import Tensor

__all__ = ["SparseAdam"]


def _is_sparse(param: Tensor) -> bool:
    return not param._meta.strided


class SparseAdam(ParameterwiseOptimizer):
    """Adam that updates only the rows, and their moments, for which a sparse gradient has entries.

    Args:
        params: dense tensors, (name, tensor) pairs or groups; their gradients must be sparse.
        lr: the learning rate.
        betas: factors of the running means of the gradient and of its square.
        eps: added to the denominator.
        maximize: ascend instead.
    """

    _later_options = {"maximize": False}

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 maximize: bool = False) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr > 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not eps > 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        for index, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        self._refuse("Sparse", "requires dense parameter tensors", _is_sparse)
        self._refuse("Complex", "does not support complex parameters", Tensor.is_complex)

    def _refuse(self, kind: str, why: str, unfit: Callable[[Tensor], bool]) -> None:
        found = [[place, i] for place, group in enumerate(self.param_groups)
                 for i, param in enumerate(group["params"]) if unfit(param)]
        if found:
            raise ValueError(f"{kind} params at indices {found}: SparseAdam {why}")

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {"lr": number(group["lr"]), "beta1": beta1, "beta2": beta2, "eps": group["eps"],
                "maximize": group["maximize"]}

    def step_sparse(self, param: Tensor, grad: Tensor, state: dict, group: dict[str, Any]) -> None:
        sparse_adam_step_(param, grad, state, **self._options(group))

    def step_rows(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor],
                  states: list[dict]) -> None:
        raise RuntimeError("SparseAdam does not support dense gradients, please consider Adam "
                           "instead")

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        state["step"] = 0
        state["exp_avg"] = zeros_for(param)
        state["exp_avg_sq"] = zeros_for(param)
