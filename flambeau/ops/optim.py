"""Updates of the optimizers: the maths of one step for one parameter, as one program.

The order of operations is that of PyTorch's single-tensor implementations, so that the numbers are
the same. Each op returns the new state first and the new parameter last; its in-place form
(`adam_step_`) overwrites what `mutates` names.
"""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Number, Tensor, lift, op
from flambeau.ops.samples import Arr, sample


def _double(value) -> Value:
    return convert(lift(value), dtypes.float64)


def _is(value, number: float) -> bool:
    """Is a hyperparameter fixed at this number (its default), so that terms can be left out?"""
    value = lift(value)
    return value.prim.name == "constant" and value.attrs[0] == number


def _times(x: Value, factor: Value) -> Value:
    """x * factor, the scalar rounded to the dtype of x first."""
    return p.mul(x, p.expand(convert(factor, x.dtype), x.shape))


def _one_minus(value) -> Value:
    x = _double(value)
    return p.sub(p.filled(1, x), x)


def _power(base, count: Value) -> Value:
    """1 - base ** count in double precision."""
    raised = p.pow_(_double(base), count)
    return p.sub(p.filled(1, raised), raised)


def _counted(step: Value) -> tuple[Value, Value]:
    """(step + 1 as stored, the same in double precision)."""
    following = p.add(step, p.filled(1, step))
    return following, convert(following, dtypes.float64)


def _decayed(param: Value, grad: Value, weight_decay, maximize: bool) -> Value:
    grad = p.neg(grad) if maximize else grad
    if _is(weight_decay, 0):
        return grad
    return p.add(grad, _times(param, _double(weight_decay)))


def _lerp(x: Value, y: Value, weight: Value) -> Value:
    """x + w (y - x), from the nearer end."""
    w = p.expand(convert(weight, x.dtype), x.shape)
    gap = p.sub(y, x)
    near = p.add(x, p.mul(w, gap))
    far = p.sub(y, p.mul(gap, p.sub(p.filled(1, w), w)))
    return p.where(p.lt(p.abs_(w), p.filled(0.5, w)), near, far)


def _running_square(average: Value, grad: Value, decay) -> Value:
    """decay * average + (1 - decay) * grad^2."""
    scaled = _times(average, _double(decay))
    return p.add(scaled, p.mul(_times(grad, _one_minus(decay)), grad))


def _step_samples(tensors: int, counted: bool, **options):
    def samples():
        arrs = [Arr((7,), None, -1, 1), Arr((7,), None, -1, 1)]
        arrs += [Arr((7,), None, 0.1, 1) for _ in range(tensors)]
        yield sample(*arrs, *([Arr((), "float32", 3, 4)] if counted else []), **options)

    return samples


def _update_op(returns: tuple, tensors: int, counted: bool = True, **options):
    return op(returns=returns, mutates=returns, method=False, public=(), out=False, refuses="bui",
              differentiable=False, samples=_step_samples(tensors, counted, **options))


@_update_op(("momentum_buffer", "param"), 1, False, lr=0.1, momentum=0.9)
def sgd_step(param: Tensor, grad: Tensor, momentum_buffer: Tensor, *, lr: Number,
             momentum: Number, dampening: Number = 0, weight_decay: Number = 0,
             nesterov: bool = False, maximize: bool = False, first: bool = False):
    """g += decay * p; buffer = momentum * buffer + (1 - dampening) * g; p -= lr * buffer."""
    grad = _decayed(param, grad, weight_decay, maximize)
    if first:
        buffer = grad
    else:
        kept = _times(momentum_buffer, _double(momentum))
        fresh = grad if _is(dampening, 0) else _times(grad, _one_minus(dampening))
        buffer = p.add(kept, fresh)
    direction = p.add(grad, _times(buffer, _double(momentum))) if nesterov else buffer
    return buffer, p.sub(param, _times(direction, _double(lr)))


@_update_op(("param",), 0, False, lr=0.1)
def sgd_plain_step(param: Tensor, grad: Tensor, *, lr: Number, weight_decay: Number = 0,
                   maximize: bool = False):
    """g += decay * p; p -= lr * g."""
    grad = _decayed(param, grad, weight_decay, maximize)
    return (p.sub(param, _times(grad, _double(lr))),)


def _adam(param, grad, exp_avg, exp_avg_sq, largest, step, lr, beta1, beta2, eps, weight_decay,
          decoupled, maximize):
    following, count = _counted(step)
    if decoupled:
        grad = p.neg(grad) if maximize else grad
        if not _is(weight_decay, 0):
            shrink = p.mul(_double(lr), _double(weight_decay))
            param = _times(param, _one_minus_value(shrink))
    else:
        grad = _decayed(param, grad, weight_decay, maximize)
    mean = _lerp(exp_avg, grad, _one_minus(beta1))
    square = _running_square(exp_avg_sq, grad, beta2)
    second = square
    if largest is not None:
        second = largest = p.maximum(largest, square)
    root2 = p.sqrt(_power(beta2, count))
    size = p.div(p.sqrt(second), p.expand(convert(root2, second.dtype), second.shape))
    denominator = p.add(size, p.expand(convert(_double(eps), size.dtype), size.shape))
    rate = p.neg(p.div(_double(lr), _power(beta1, count)))
    new = p.add(param, p.div(_times(mean, rate), denominator))
    return following, mean, square, largest, new


def _one_minus_value(x: Value) -> Value:
    return p.sub(p.filled(1, x), x)


_ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


@_update_op(("step", "exp_avg", "exp_avg_sq", "param"), 2, **_ADAM)
def adam_step(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, step: Tensor, *,
              lr: Number, beta1: Number, beta2: Number, eps: Number, weight_decay: Number = 0,
              decoupled: bool = False, maximize: bool = False):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= lr / c1 * m / (sqrt(v / c2) + eps), with
    c = 1 - b^t. `decoupled` shrinks p by lr * decay instead of adding decay * p to g (AdamW)."""
    following, mean, square, _, new = _adam(
        param, grad, exp_avg, exp_avg_sq, None, step, lr, beta1, beta2, eps, weight_decay,
        decoupled, maximize)
    return following, mean, square, new


@_update_op(("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "param"), 3, **_ADAM)
def amsgrad_step(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor,
                 max_exp_avg_sq: Tensor, step: Tensor, *, lr: Number, beta1: Number, beta2: Number,
                 eps: Number, weight_decay: Number = 0, decoupled: bool = False,
                 maximize: bool = False):
    """Adam with the greatest v so far in the root (AMSGrad)."""
    return _adam(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, step, lr, beta1, beta2, eps,
                 weight_decay, decoupled, maximize)


def _rmsprop(param, grad, square_avg, grad_avg, step, alpha, eps, weight_decay, maximize):
    """(step, mean square, mean, g, root) of RMSprop."""
    following, _ = _counted(step)
    grad = _decayed(param, grad, weight_decay, maximize)
    square = _running_square(square_avg, grad, alpha)
    mean, inside = None, square
    if grad_avg is not None:
        mean = _lerp(grad_avg, grad, _one_minus(alpha))
        inside = p.sub(square, p.mul(mean, mean))
    root = p.sqrt(inside)
    root = p.add(root, p.expand(convert(_double(eps), root.dtype), root.shape))
    return following, square, mean, grad, root


_RMSPROP = {"lr": 0.1, "alpha": 0.9, "eps": 1e-8}


@_update_op(("step", "square_avg", "param"), 1, **_RMSPROP)
def rmsprop_step(param: Tensor, grad: Tensor, square_avg: Tensor, step: Tensor, *, lr: Number,
                 alpha: Number, eps: Number, weight_decay: Number = 0, maximize: bool = False):
    """v = a v + (1 - a) g^2; p -= lr * g / (sqrt(v) + eps)."""
    following, square, _, grad, root = _rmsprop(param, grad, square_avg, None, step, alpha, eps,
                                                weight_decay, maximize)
    moved = p.div(_times(grad, p.neg(_double(lr))), root)
    return following, square, p.add(param, moved)


@_update_op(("step", "square_avg", "momentum_buffer", "param"), 2, momentum=0.9, **_RMSPROP)
def rmsprop_momentum_step(param: Tensor, grad: Tensor, square_avg: Tensor,
                          momentum_buffer: Tensor, step: Tensor, *, lr: Number, alpha: Number,
                          eps: Number, momentum: Number, weight_decay: Number = 0,
                          maximize: bool = False):
    """RMSprop whose quotients are summed up with momentum."""
    following, square, _, grad, root = _rmsprop(param, grad, square_avg, None, step, alpha, eps,
                                                weight_decay, maximize)
    buffer = p.add(_times(momentum_buffer, _double(momentum)), p.div(grad, root))
    return following, square, buffer, p.add(param, _times(buffer, p.neg(_double(lr))))


@_update_op(("step", "state_sum", "param"), 1, lr=0.1, eps=1e-8)
def adagrad_step(param: Tensor, grad: Tensor, state_sum: Tensor, step: Tensor, *, lr: Number,
                 lr_decay: Number = 0, eps: Number, weight_decay: Number = 0,
                 maximize: bool = False):
    """s += g^2; p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)."""
    following, count = _counted(step)
    grad = _decayed(param, grad, weight_decay, maximize)
    rate = _double(lr)
    if not _is(lr_decay, 0):
        before = p.sub(count, p.filled(1, count))
        rate = p.div(rate, p.add(p.filled(1, count), p.mul(before, _double(lr_decay))))
    total = p.add(state_sum, p.mul(grad, grad))
    root = p.sqrt(total)
    root = p.add(root, p.expand(convert(_double(eps), root.dtype), root.shape))
    return following, total, p.add(param, p.div(_times(grad, p.neg(rate)), root))
