"""Adam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flambeau.optim._rule import Rule
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    check_betas,
    check_fused,
    check_lr,
    new_step,
    number,
    zeros_for,
)
from flambeau.tensor import Tensor

__all__ = ["Adam"]


class Adam(ParameterwiseOptimizer):
    """Adam: steps scaled by running means of the gradient and its square. Kingma and Ba, 2014.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        betas: decay of the two running means.
        eps: added to the denominator.
        weight_decay: factor of the parameter that is added to its gradient.
        amsgrad: divide by the greatest mean square so far. Reddi et al., 2018.
        foreach: accepted and ignored, like `capturable` and `fused`: one launch updates all
            parameters in any case.
        maximize: ascend instead.
        capturable: see `foreach`.
        differentiable: record the step for backward.
        fused: see `foreach`.
        decoupled_weight_decay: shrink the parameter itself instead (AdamW).
    """

    _no_sparse = "Adam does not support sparse gradients, please consider SparseAdam instead"
    _later_options = {
        "amsgrad": False, "maximize": False, "foreach": None, "capturable": False,
        "differentiable": False, "decoupled_weight_decay": False, "fused": None,
    }

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-3,
                 betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False, differentiable: bool = False,
                 fused: bool | None = None, decoupled_weight_decay: bool = False) -> None:
        check_lr(lr)
        if isinstance(lr, Tensor) and foreach and not capturable:
            raise ValueError("lr as a Tensor is not supported for capturable=False and "
                             "foreach=True")
        if not eps >= 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        check_betas(betas)
        if not weight_decay >= 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        _check_tensor_betas(betas, capturable, foreach)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)
        check_fused(fused, foreach, differentiable)

    def rule(self, group: dict[str, Any]) -> Rule:
        beta1, beta2 = group["betas"]
        largest = ("max_exp_avg_sq",) if group["amsgrad"] else ()
        return Rule("amsgrad_step" if largest else "adam_step",
                    ("exp_avg", "exp_avg_sq", *largest, "step"), {
            "lr": number(group["lr"]), "beta1": number(beta1), "beta2": number(beta2),
            "eps": group["eps"], "weight_decay": group["weight_decay"],
            "decoupled": group["decoupled_weight_decay"], "maximize": group["maximize"],
        })

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        state["step"] = new_step(param)
        state["exp_avg"] = zeros_for(param)
        state["exp_avg_sq"] = zeros_for(param)
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_for(param)


def _check_tensor_betas(betas: tuple, capturable: bool, foreach: bool | None) -> None:
    if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
        raise ValueError("betas must be either both floats or both Tensors")
    for index, beta in enumerate(betas):
        if not isinstance(beta, Tensor):
            continue
        if foreach and not capturable:
            raise ValueError(f"betas[{index}] as a Tensor is not supported for capturable=False "
                             "and foreach=True")
        if beta.numel() != 1:
            raise ValueError(f"Tensor betas[{index}] must be 1-element")
