"""Adafactor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flambeau
from flambeau.optim._rule import Rule, apply_rule
from flambeau.optim.optimizer import (
    ParameterwiseOptimizer,
    check_not_negative,
    new_step,
    number,
)
from flambeau.tensor import Tensor

__all__ = ["Adafactor"]


class Adafactor(ParameterwiseOptimizer):
    """Adam's scaling with the mean squares of a matrix kept by row and column. Shazeer and Stern,
    Adafactor: adaptive learning rates with sublinear memory cost, 2018.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the greatest relative step.
        beta2_decay: power of the step's number by which the mean squares' decay falls.
        eps: least value of mean squares (machine epsilon by default), and of a parameter's size.
        d: the greatest root mean square of an update.
        weight_decay: how much the parameter itself shrinks.
        foreach: accepted and ignored.
        maximize: ascend instead.
    """

    _no_sparse = "Adafactor does not support sparse gradients"
    _later_options = {"foreach": None}

    def __init__(self, params: Iterable, lr: float | Tensor = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0,
                 weight_decay: float = 0.0, *, foreach: bool | None = None,
                 maximize: bool = False) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not number(lr) >= 0.0:
            raise ValueError(f"Learning rate should be >= 0 but is: {lr}")
        if not beta2_decay <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and not eps[0] >= 0.0:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if not eps[1] >= 0.0:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        check_not_negative(weight_decay=weight_decay)
        defaults = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
                    "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize}
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any], matrix: bool = False,
             dtype: flambeau.dtype | None = None) -> Rule:
        least, eps = group["eps"]
        options = {"lr": number(group["lr"]), "eps": eps, **{name: group[name] for name in (
            "beta2_decay", "d", "weight_decay", "maximize")}}
        options["least"] = flambeau.finfo(dtype).eps if least is None else least
        if matrix:
            return Rule("adafactor_matrix_step", ("row_var", "col_var", "step"), options)
        return Rule("adafactor_step", ("variance", "step"), options)

    def step_rows(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor],
                  states: list[dict]) -> None:
        kinds: dict[tuple, list[tuple]] = {}
        for row in zip(params, grads, states, strict=True):
            kinds.setdefault(("row_var" in row[2], row[0].dtype), []).append(row)
        for kind, rows in kinds.items():
            apply_rule(self.rule(group, *kind), *map(list, zip(*rows, strict=True)))

    def init_single(self, param: Tensor, state: dict, group: dict[str, Any]) -> None:
        if param.is_complex():
            raise RuntimeError("Adafactor does not support complex parameters")
        state["step"] = new_step(param)
        shape, like = list(param.shape), {"dtype": param.dtype, "device": param.device}
        if param.dim() > 1:
            state["row_var"] = flambeau.zeros([*shape[:-1], 1], **like)
            state["col_var"] = flambeau.zeros([*shape[:-2], 1, shape[-1]], **like)
        else:
            state["variance"] = flambeau.zeros(shape, **like)
