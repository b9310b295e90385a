"""The maths of one step for one parameter, in place: one function per optimizer.

Every function takes the parameter, its gradient and its state tensors, then numbers by keyword.
The order of operations is PyTorch's single-tensor one, so that the numbers are the same.
"""

from __future__ import annotations

import flambeau
from flambeau.tensor import Tensor
from flambeau.tensor.functions import ops

__all__ = ["sgd_step_", "adam_step_", "rmsprop_step_", "adagrad_step_", "adadelta_step_",
           "adamax_step_", "nadam_step_", "radam_step_", "asgd_step_", "rprop_step_",
           "adafactor_step_", "muon_step_"]


def sgd_step_(param: Tensor, grad: Tensor, momentum_buffer: Tensor | None, *, lr: float,
              momentum: float, dampening: float, weight_decay: float, nesterov: bool,
              maximize: bool, first: bool) -> None:
    """One step of SGD: `sgd_step` in the op table, or its form without momentum."""
    if momentum_buffer is None:
        ops.sgd_plain_step_(param, grad, lr=lr, weight_decay=weight_decay, maximize=maximize)
    else:
        ops.sgd_step_(param, grad, momentum_buffer, lr=lr, momentum=momentum,
                      dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
                      maximize=maximize, first=first)


def adam_step_(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor,
               max_exp_avg_sq: Tensor | None, step: Tensor, *, lr: float, beta1: float,
               beta2: float, eps: float, weight_decay: float, decoupled: bool,
               maximize: bool) -> None:
    """One step of Adam or AdamW (`decoupled`), with `max_exp_avg_sq` of AMSGrad."""
    options = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay,
               "decoupled": decoupled, "maximize": maximize}
    if max_exp_avg_sq is None:
        ops.adam_step_(param, grad, exp_avg, exp_avg_sq, step, **options)
    else:
        ops.amsgrad_step_(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, step, **options)


def rmsprop_step_(param: Tensor, grad: Tensor, square_avg: Tensor, grad_avg: Tensor | None,
                  momentum_buffer: Tensor | None, step: Tensor, *, lr: float, alpha: float,
                  eps: float, weight_decay: float, momentum: float, maximize: bool) -> None:
    """One step of RMSprop.

    With `grad_avg` m (the centered form) the root is of v - m^2; with `momentum_buffer` the
    quotients are summed up and the sum is the direction. `step` is counted up.
    """
    options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
               "maximize": maximize}
    if grad_avg is not None:
        _centered_rmsprop(param, grad, square_avg, grad_avg, momentum_buffer, step,
                          momentum=momentum, **options)
    elif momentum_buffer is None:
        ops.rmsprop_step_(param, grad, square_avg, step, **options)
    else:
        ops.rmsprop_momentum_step_(param, grad, square_avg, momentum_buffer, step,
                                   momentum=momentum, **options)


def _centered_rmsprop(param: Tensor, grad: Tensor, square_avg: Tensor, grad_avg: Tensor,
                      momentum_buffer: Tensor | None, step: Tensor, *, lr: float, alpha: float,
                      eps: float, weight_decay: float, momentum: float, maximize: bool) -> None:
    step.add_(1)
    grad = _descent(param, grad, weight_decay, maximize)
    square_avg.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
    grad_avg.lerp_(grad, 1 - alpha)
    root = square_avg.addcmul(grad_avg, grad_avg, value=-1).sqrt_().add_(eps)
    if momentum_buffer is None:
        param.addcdiv_(grad, root, value=-lr)
    else:
        momentum_buffer.mul_(momentum).addcdiv_(grad, root)
        param.add_(momentum_buffer, alpha=-lr)


def _descent(param: Tensor, grad: Tensor, weight_decay: float, maximize: bool) -> Tensor:
    """The gradient to go down: of the decayed parameter, and turned round to maximize."""
    grad = -grad if maximize else grad
    return grad.add(param, alpha=weight_decay) if weight_decay != 0 else grad


def adagrad_step_(param: Tensor, grad: Tensor, state_sum: Tensor, step: Tensor, *, lr: float,
                  lr_decay: float, eps: float, weight_decay: float, maximize: bool) -> None:
    """s += g^2; p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)."""
    ops.adagrad_step_(param, grad, state_sum, step, lr=lr, lr_decay=lr_decay, eps=eps,
                      weight_decay=weight_decay, maximize=maximize)


def adadelta_step_(param: Tensor, grad: Tensor, square_avg: Tensor, acc_delta: Tensor,
                   step: Tensor, *, lr: float, rho: float, eps: float, weight_decay: float,
                   maximize: bool) -> None:
    """v = rho v + (1 - rho) g^2; d = g sqrt(u + eps) / sqrt(v + eps); p -= lr d.

    u is the running mean square of d, as v is that of g.
    """
    step.add_(1)
    grad = _descent(param, grad, weight_decay, maximize)
    square_avg.mul_(rho).addcmul_(grad, grad, value=1 - rho)
    root = square_avg.add(eps).sqrt_()
    delta = acc_delta.add(eps).sqrt_().div_(root).mul_(grad)
    acc_delta.mul_(rho).addcmul_(delta, delta, value=1 - rho)
    param.add_(delta, alpha=-lr)


def adamax_step_(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_inf: Tensor, step: Tensor, *,
                 lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
                 maximize: bool) -> None:
    """m = lerp(m, g, 1 - b1); u = max(b2 u, |g| + eps); p -= lr / (1 - b1^t) * m / u."""
    step.add_(1)
    grad = _descent(param, grad, weight_decay, maximize)
    exp_avg.lerp_(grad, 1 - beta1)
    exp_inf.copy_(flambeau.maximum(exp_inf.mul_(beta2), grad.abs().add_(eps)))
    param.addcdiv_(exp_avg, exp_inf, value=-(lr / (1 - beta1 ** step.item())))


def nadam_step_(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor,
                mu_product: Tensor, step: Tensor, *, lr: float, beta1: float, beta2: float,
                eps: float, weight_decay: float, momentum_decay: float, decoupled: bool,
                maximize: bool) -> None:
    """Adam with Nesterov momentum whose coefficient grows to b1; `mu_product` is their product."""
    step.add_(1)
    count = step.item()
    if decoupled and weight_decay != 0:
        param.mul_(1 - lr * weight_decay)
        weight_decay = 0
    grad = _descent(param, grad, weight_decay, maximize)
    mu = beta1 * (1.0 - 0.5 * (0.96 ** (count * momentum_decay)))
    mu_next = beta1 * (1.0 - 0.5 * (0.96 ** ((count + 1) * momentum_decay)))
    mu_product.mul_(mu)
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    denominator = exp_avg_sq.div(1 - beta2 ** count).sqrt().add_(eps)
    product = mu_product.item()
    param.addcdiv_(grad, denominator, value=-lr * (1.0 - mu) / (1.0 - product))
    param.addcdiv_(exp_avg, denominator, value=-lr * mu_next / (1.0 - product * mu_next))


def radam_step_(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, step: Tensor, *,
                lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
                decoupled: bool, maximize: bool) -> None:
    """Adam whose adaptive part is switched on, and rectified, when its variance is tractable."""
    step.add_(1)
    count = step.item()
    if decoupled and weight_decay != 0:
        param.mul_(1 - lr * weight_decay)
        weight_decay = 0
    grad = _descent(param, grad, weight_decay, maximize)
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    correction2 = 1 - beta2 ** count
    corrected = exp_avg / (1 - beta1 ** count)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * count * (beta2 ** count) / correction2
    if rho > 5.0:
        rectified = ((rho - 4) * (rho - 2) * rho_inf
                     / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
        adaptive = (correction2 ** 0.5) / exp_avg_sq.sqrt().add_(eps)
        param.add_(corrected * lr * adaptive * rectified, alpha=-1.0)
    else:
        param.add_(corrected * lr, alpha=-1.0)


def asgd_step_(param: Tensor, grad: Tensor, ax: Tensor, eta: Tensor, mu: Tensor, step: Tensor, *,
               lr: float, lambd: float, alpha: float, t0: float, weight_decay: float,
               maximize: bool) -> None:
    """p = (1 - lambd eta) p - eta g; ax moves by mu towards p; then eta and mu of the next step."""
    step.add_(1)
    grad = _descent(param, grad, weight_decay, maximize)
    rate, share, count = eta.item(), mu.item(), step.item()
    param.mul_(1 - lambd * rate)
    param.add_(grad, alpha=-rate)
    if share != 1:
        ax.add_(param.sub(ax).mul_(share))
    else:
        ax.copy_(param)
    eta.fill_(lr / ((1 + lambd * lr * count) ** alpha))
    mu.fill_(1 / max(1, count - t0))


def rprop_step_(param: Tensor, grad: Tensor, prev: Tensor, step_size: Tensor, step: Tensor, *,
                down: float, up: float, least: float, most: float, maximize: bool) -> None:
    """The step grows by `up` where the gradient keeps its sign; where the sign turns it shrinks by
    `down` and the parameter stays."""
    step.add_(1)
    if maximize:
        grad = -grad
    agreement = grad.mul(prev)
    turned = agreement < 0
    factor = flambeau.ones_like(step_size).masked_fill_(agreement > 0, up)
    step_size.mul_(factor.masked_fill_(turned, down)).clamp_(least, most)
    grad = grad.masked_fill(turned, 0)
    param.addcmul_(grad.sign(), step_size, value=-1)
    prev.copy_(grad)


def adafactor_step_(param: Tensor, grad: Tensor, row_var: Tensor | None, col_var: Tensor | None,
                    variance: Tensor | None, step: Tensor, *, lr: float, beta2_decay: float,
                    eps: tuple, d: float, weight_decay: float, maximize: bool) -> None:
    """The update g / sqrt(v) is limited to a root mean square of d, and scaled by the parameter's.

    v is the mean square of g; of a matrix its row and column means stand for it, whose product
    (over their mean) is v.
    """
    step.add_(1)
    if maximize:
        grad = -grad
    count = step.item()
    least = flambeau.finfo(param.dtype).eps if eps[0] is None else eps[0]
    share = count ** beta2_decay
    rate = min(lr, 1 / count ** 0.5)
    size = max(eps[1], param.norm(2).item() / param.numel() ** 0.5) * rate
    if weight_decay != 0:
        param.mul_(1 - lr * weight_decay)
    if row_var is not None:
        row_var.lerp_(grad.norm(2, -1, True).square_().div_(grad.size(-1)), share)
        col_var.lerp_(grad.norm(2, -2, True).square_().div_(grad.size(-2)), share)
        estimate = row_var @ col_var
        estimate.div_(row_var.mean(-2, True).clamp_(min=least))
    else:
        variance.lerp_(grad * grad, share)
        estimate = variance.clone()
    update = estimate.clamp_(min=least * least).rsqrt_().mul_(grad)
    limit = max(1.0, update.norm(2).item() / (update.numel() ** 0.5 * d))
    param.add_(update, alpha=-size / limit)


def muon_step_(param: Tensor, grad: Tensor, momentum_buffer: Tensor, *, lr: float,
               weight_decay: float, momentum: float, nesterov: bool, ns_coefficients: tuple,
               eps: float, ns_steps: int, adjust_lr_fn: str | None) -> None:
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
