"""The maths of one step for a dense parameter with a sparse gradient: only the rows that the
gradient has are touched. The order of operations is PyTorch's."""

from __future__ import annotations

from typing import Any

from flambeau.tensor import Tensor

__all__ = ["sparse_adagrad_step_", "sparse_adam_step_", "sparse_sgd_step_"]


def _with_values(grad: Tensor, values: Tensor) -> Tensor:
    """A tensor with the entries of `grad`, which is coalesced, and other values."""
    from flambeau.tensor.sparse.tensor import assemble

    return assemble(grad._pattern, values)


def sparse_sgd_step_(param: Tensor, grad: Tensor, state: dict | None, *, lr: float,
                     momentum: float, dampening: float, weight_decay: float, nesterov: bool,
                     maximize: bool) -> None:
    """One step of SGD; the momentum buffer is sparse, too."""
    if weight_decay != 0:
        raise RuntimeError("SGD: weight_decay would make a sparse gradient dense; set "
                           "weight_decay=0 for the parameters of embeddings with sparse=True")
    if maximize:
        grad = -grad
    if state is not None:
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = state["momentum_buffer"] = grad.detach().clone()
        else:
            buffer.mul_(momentum).add_(grad, alpha=1 - dampening)
            buffer = state["momentum_buffer"] = buffer.coalesce()  # or it would grow with each step
        grad = grad.add(buffer, alpha=momentum) if nesterov else buffer
    param.add_(grad, alpha=-lr)


def sparse_adagrad_step_(param: Tensor, grad: Tensor, state_sum: Tensor, step: Tensor, *,
                         lr: float, lr_decay: float, eps: float, weight_decay: float,
                         maximize: bool) -> None:
    """One step of Adagrad."""
    if weight_decay != 0:
        raise RuntimeError("weight_decay option is not compatible with sparse gradients")
    step.add_(1)
    rate = lr / (1 + (step.item() - 1) * lr_decay)
    grad = (-grad if maximize else grad).coalesce()
    values = grad._values()
    state_sum.add_(_with_values(grad, values.pow(2)))
    root = state_sum.sparse_mask(grad)._values().sqrt_().add_(eps)
    param.add_(_with_values(grad, values / root), alpha=-rate)


def sparse_adam_step_(param: Tensor, grad: Tensor, state: dict[str, Any], *, lr: float,
                      beta1: float, beta2: float, eps: float, maximize: bool) -> None:
    """One step of Adam in which moments of rows without a gradient stay as they are."""
    state["step"] += 1
    grad = (-grad if maximize else grad).coalesce()
    values = grad._values()
    if values.numel() == 0:
        return
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    old_mean = mean.sparse_mask(grad)._values()
    mean_step = values.sub(old_mean).mul_(1 - beta1)
    mean.add_(_with_values(grad, mean_step))
    old_square = square.sparse_mask(grad)._values()
    square_step = values.pow(2).sub_(old_square).mul_(1 - beta2)
    square.add_(_with_values(grad, square_step))
    direction = mean_step.add_(old_mean)
    root = square_step.add_(old_square).sqrt_().add_(eps)
    count = state["step"]
    rate = lr * (1 - beta2 ** count) ** 0.5 / (1 - beta1 ** count)
    param.add_(_with_values(grad, direction.div_(root).mul_(-rate)))


