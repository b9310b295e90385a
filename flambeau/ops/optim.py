"""Updates of the optimizers: the maths of one step for one parameter, as one program.

The order of operations is that of PyTorch's single-tensor implementations, so that the numbers are
the same; numbers of the step (rates, corrections) are computed in double precision. Each op
returns the new state first and the new parameter last; its in-place form (`adam_step_`) overwrites
what `mutates` names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

from flambeau.core import dtypes
from flambeau.core.dtypes import promote_types
from flambeau.ir.graph import Value
from flambeau.ops import primitives as p
from flambeau.ops.arithmetic import lerped
from flambeau.ops.matmul import c_name
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Number, Tensor, lift, op
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
    return lerped(x, y, p.expand(convert(weight, x.dtype), x.shape))


def _running_square(average: Value, grad: Value, decay) -> Value:
    """decay * average + (1 - decay) * grad^2."""
    scaled = _times(average, _double(decay))
    return p.add(scaled, p.mul(_times(grad, _one_minus(decay)), grad))


def _step_samples(tensors: int, counters: int, **options):
    def samples():
        arrs = [Arr((7,), None, -1, 1), Arr((7,), None, -1, 1)]
        arrs += [Arr((7,), None, 0.1, 1) for _ in range(tensors)]
        arrs += [Arr((), None, 0.1, 0.5, False) for _ in range(counters - 1)]
        yield sample(*arrs, *([Arr((), None, 3, 4, False)] if counters else []), **options)

    return samples


def _update_op(returns: tuple, tensors: int, counters: int = 1, average: str | None = None,
               **options):
    """An op of a parameter, its gradient, `tensors` like them and `counters` without dimensions.

    `average` is the state that moves towards the gradient, which must then have its dtype.
    """
    def decorate(function: Callable) -> Callable:
        names = list(inspect.signature(function).parameters)
        check = None if average is None else _same_as_gradient(names.index(average))
        return op(returns=returns, mutates=returns, method=False, public=(), out=False,
                  refuses="bui", check=check, samples=_step_samples(tensors, counters, **options))(
                      _in_one_dtype(function, returns, names[:2 + tensors]))

    return decorate


def _same_as_gradient(position: int) -> Callable:
    def check(*args) -> None:
        average, grad = args[position], args[1]
        if average.dtype is not grad.dtype:  # the model has changed its dtype, but not the state
            raise RuntimeError(f"expected dtype {c_name(average)} for `end` but got dtype "
                               f"{c_name(grad)}: make a new optimizer after changing a model's "
                               "dtype")

    return check


def _in_one_dtype(function: Callable, returns: Sequence[str], names: Sequence[str]) -> Callable:
    """`function`, whose arguments `names` it computes in their common dtype: state stays as it was
    made when the model's dtype changes."""
    @functools.wraps(function)
    def body(*args, **numbers):
        own = dict(zip(names, (value.dtype for value in args), strict=False))
        if len(set(own.values())) == 1:
            return function(*args, **numbers)
        common = functools.reduce(promote_types, own.values())
        given = [convert(value, common) for value in args[:len(names)]]
        results = function(*given, *args[len(names):], **numbers)
        return tuple([convert(value, own[name]) if name in own else value
                      for name, value in zip(returns, results, strict=True)])

    return body


@_update_op(("momentum_buffer", "param"), 1, 0, lr=0.1, momentum=0.9)
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


@_update_op(("param",), 0, 0, lr=0.1)
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


@_update_op(("step", "exp_avg", "exp_avg_sq", "param"), 2, average="exp_avg", **_ADAM)
def adam_step(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, step: Tensor, *,
              lr: Number, beta1: Number, beta2: Number, eps: Number, weight_decay: Number = 0,
              decoupled: bool = False, maximize: bool = False):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= lr / c1 * m / (sqrt(v / c2) + eps), with
    c = 1 - b^t. `decoupled` shrinks p by lr * decay instead of adding decay * p to g (AdamW)."""
    following, mean, square, _, new = _adam(
        param, grad, exp_avg, exp_avg_sq, None, step, lr, beta1, beta2, eps, weight_decay,
        decoupled, maximize)
    return following, mean, square, new


@_update_op(("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "param"), 3, average="exp_avg",
            **_ADAM)
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


# --------------------------------------------------------------------------- centered, Adadelta
def _plus(x: Value, number) -> Value:
    """x + number, which is rounded to the dtype of x first."""
    return p.add(x, p.expand(convert(_double(number), x.dtype), x.shape))


def _moved(param: Value, rate: Value, x: Value, y: Value) -> Value:
    """param + rate * x / y."""
    return p.add(param, p.div(_times(x, rate), y))


def _minus_rate(lr) -> Value:
    return p.neg(_double(lr))


@_update_op(("step", "square_avg", "grad_avg", "param"), 2, average="grad_avg", **_RMSPROP)
def rmsprop_centered_step(param: Tensor, grad: Tensor, square_avg: Tensor, grad_avg: Tensor,
                          step: Tensor, *, lr: Number, alpha: Number, eps: Number,
                          weight_decay: Number = 0, maximize: bool = False):
    """RMSprop whose root is of v - m^2, with the running mean m of g."""
    following, square, mean, grad, root = _rmsprop(param, grad, square_avg, grad_avg, step, alpha,
                                                   eps, weight_decay, maximize)
    return following, square, mean, _moved(param, _minus_rate(lr), grad, root)


@_update_op(("step", "square_avg", "grad_avg", "momentum_buffer", "param"), 3, average="grad_avg",
            momentum=0.9, **_RMSPROP)
def rmsprop_centered_momentum_step(param: Tensor, grad: Tensor, square_avg: Tensor,
                                   grad_avg: Tensor, momentum_buffer: Tensor, step: Tensor, *,
                                   lr: Number, alpha: Number, eps: Number, momentum: Number,
                                   weight_decay: Number = 0, maximize: bool = False):
    """Centered RMSprop whose quotients are summed up with momentum."""
    following, square, mean, grad, root = _rmsprop(param, grad, square_avg, grad_avg, step, alpha,
                                                   eps, weight_decay, maximize)
    buffer = p.add(_times(momentum_buffer, _double(momentum)), p.div(grad, root))
    return following, square, mean, buffer, p.add(param, _times(buffer, _minus_rate(lr)))


@_update_op(("step", "square_avg", "acc_delta", "param"), 2, lr=1.0, rho=0.9, eps=1e-6)
def adadelta_step(param: Tensor, grad: Tensor, square_avg: Tensor, acc_delta: Tensor, step: Tensor,
                  *, lr: Number, rho: Number, eps: Number, weight_decay: Number = 0,
                  maximize: bool = False):
    """v = rho v + (1 - rho) g^2; d = g sqrt(u + eps) / sqrt(v + eps); p -= lr d; u is the running
    mean square of d, as v is that of g."""
    following, _ = _counted(step)
    grad = _decayed(param, grad, weight_decay, maximize)
    square = _running_square(square_avg, grad, rho)
    root = p.sqrt(_plus(square, eps))
    delta = p.mul(p.div(p.sqrt(_plus(acc_delta, eps)), root), grad)
    return (following, square, _running_square(acc_delta, delta, rho),
            p.add(param, _times(delta, _minus_rate(lr))))


# --------------------------------------------------------------------------- relatives of Adam
@_update_op(("step", "exp_avg", "exp_inf", "param"), 2, average="exp_avg", **_ADAM)
def adamax_step(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_inf: Tensor, step: Tensor, *,
                lr: Number, beta1: Number, beta2: Number, eps: Number, weight_decay: Number = 0,
                maximize: bool = False):
    """m = lerp(m, g, 1 - b1); u = max(b2 u, |g| + eps); p -= lr / (1 - b1^t) * m / u."""
    following, count = _counted(step)
    grad = _decayed(param, grad, weight_decay, maximize)
    mean = _lerp(exp_avg, grad, _one_minus(beta1))
    largest = p.maximum(_times(exp_inf, _double(beta2)), _plus(p.abs_(grad), eps))
    rate = p.neg(p.div(_double(lr), _power(beta1, count)))
    return following, mean, largest, _moved(param, rate, mean, largest)


def _shrunk(param: Value, grad: Value, lr, weight_decay, decoupled: bool,
            maximize: bool) -> tuple[Value, Value]:
    """(parameter, gradient) with the decay in one of them."""
    if not decoupled:
        return param, _decayed(param, grad, weight_decay, maximize)
    if not _is(weight_decay, 0):
        shrink = p.mul(_double(lr), _double(weight_decay))
        param = _times(param, _one_minus_value(shrink))
    return param, p.neg(grad) if maximize else grad


def _nesterov(beta1, momentum_decay, count: Value) -> Value:
    """NAdam's momentum at a step: b1 (1 - 0.96^(t decay) / 2)."""
    raised = p.pow_(p.filled(0.96, count), p.mul(count, _double(momentum_decay)))
    return p.mul(_double(beta1), _one_minus_value(p.mul(p.filled(0.5, raised), raised)))


@_update_op(("step", "mu_product", "exp_avg", "exp_avg_sq", "param"), 2, 2, average="exp_avg",
            **_ADAM, momentum_decay=4e-3)
def nadam_step(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor,
               mu_product: Tensor, step: Tensor, *, lr: Number, beta1: Number, beta2: Number,
               eps: Number, weight_decay: Number = 0, momentum_decay: Number,
               decoupled: bool = False, maximize: bool = False):
    """Adam with Nesterov momentum whose coefficient grows to b1; `mu_product` is their product."""
    following, count = _counted(step)
    param, grad = _shrunk(param, grad, lr, weight_decay, decoupled, maximize)
    mu = _nesterov(beta1, momentum_decay, count)
    mu_next = _nesterov(beta1, momentum_decay, p.add(count, p.filled(1, count)))
    product = _times(mu_product, mu)
    mean = _lerp(exp_avg, grad, _one_minus(beta1))
    square = _running_square(exp_avg_sq, grad, beta2)
    correction = p.expand(convert(_power(beta2, count), square.dtype), square.shape)
    root = _plus(p.sqrt(p.div(square, correction)), eps)
    so_far = convert(product, dtypes.float64)
    now = p.div(p.mul(_minus_rate(lr), _one_minus_value(mu)), _one_minus_value(so_far))
    ahead = p.div(p.mul(_minus_rate(lr), mu_next), _one_minus_value(p.mul(so_far, mu_next)))
    moved = _moved(_moved(param, now, grad, root), ahead, mean, root)
    return following, product, mean, square, moved


@_update_op(("step", "exp_avg", "exp_avg_sq", "param"), 2, average="exp_avg", **_ADAM)
def radam_step(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, step: Tensor, *,
               lr: Number, beta1: Number, beta2: Number, eps: Number, weight_decay: Number = 0,
               decoupled: bool = False, maximize: bool = False):
    """Adam whose adaptive part is switched on, and rectified, when its variance is tractable."""
    following, count = _counted(step)
    param, grad = _shrunk(param, grad, lr, weight_decay, decoupled, maximize)
    mean = _lerp(exp_avg, grad, _one_minus(beta1))
    square = _running_square(exp_avg_sq, grad, beta2)
    correction1, correction2 = _power(beta1, count), _power(beta2, count)
    tractable, factor = _rectified(beta2, count, correction2)
    corrected = p.div(mean, p.expand(convert(correction1, mean.dtype), mean.shape))
    plain = _times(corrected, _double(lr))
    root = _plus(p.sqrt(square), eps)
    scale = p.expand(convert(p.sqrt(correction2), root.dtype), root.shape)
    adaptive = _times(p.mul(plain, p.div(scale, root)), factor)
    change = p.where(p.expand(tractable, plain.shape), adaptive, plain)
    return following, mean, square, p.sub(param, change)


def _rectified(beta2, count: Value, correction2: Value) -> tuple[Value, Value]:
    """(is the variance tractable?, the factor if it is)"""
    def less(x: Value, number: float) -> Value:
        return p.sub(x, p.filled(number, x))

    raised = p.pow_(_double(beta2), count)
    limit = less(p.div(p.filled(2, count), _one_minus(beta2)), 1)
    twice = p.mul(p.filled(2, count), p.mul(count, raised))
    length = p.sub(limit, p.div(twice, correction2))
    top = p.mul(p.mul(less(length, 4), less(length, 2)), limit)
    bottom = p.mul(p.mul(less(limit, 4), less(limit, 2)), length)
    tractable = p.gt(length, p.filled(5, length))
    share = p.where(tractable, p.div(top, bottom), p.filled(1, length))
    return tractable, p.sqrt(share)


# --------------------------------------------------------------------------- without moments
@_update_op(("step", "eta", "mu", "ax", "param"), 1, 3, lr=0.1, lambd=1e-4, alpha=0.75, t0=1e6)
def asgd_step(param: Tensor, grad: Tensor, ax: Tensor, eta: Tensor, mu: Tensor, step: Tensor, *,
              lr: Number, lambd: Number, alpha: Number, t0: Number, weight_decay: Number = 0,
              maximize: bool = False, foreach: bool = False):
    """p = (1 - lambd eta) p - eta g; ax moves by mu towards p; then eta and mu of the next step.

    `foreach`: p - eta (g + lambd p), with eta in the precision of the step: what PyTorch rounds in
    its form for many parameters.
    """
    following, count = _counted(step)
    grad = _decayed(param, grad, weight_decay, maximize)
    rate, share = convert(eta, dtypes.float64), convert(mu, dtypes.float64)
    if foreach:
        new = p.sub(param, _times(p.add(grad, _times(param, _double(lambd))), rate))
        average = p.add(ax, _times(p.sub(new, ax), share))
        eta_next = _rate_in_steps(following, lr, lambd, alpha)
    else:
        kept = _times(param, _one_minus_value(p.mul(_double(lambd), rate)))
        new = p.add(kept, _times(grad, p.neg(rate)))
        whole = p.expand(p.eq(share, p.filled(1, share)), new.shape)
        average = p.where(whole, new, p.add(ax, _times(p.sub(new, ax), share)))
        slower = p.add(p.mul(p.mul(_double(lambd), _double(lr)), count), p.filled(1, count))
        eta_next = p.div(_double(lr), p.pow_(slower, _double(alpha)))
    late = p.maximum(p.sub(count, _double(t0)), p.filled(1, count))
    mu_next = p.div(p.filled(1, late), late)
    return following, convert(eta_next, eta.dtype), convert(mu_next, mu.dtype), average, new


def _rate_in_steps(step: Value, lr, lambd, alpha) -> Value:
    """lr / (1 + lambd lr step) ** alpha, every operation rounded to the dtype of the step."""
    slower = p.add(_times(step, p.mul(_double(lambd), _double(lr))), p.filled(1, step))
    raised = convert(p.pow_(convert(slower, dtypes.float64), _double(alpha)), step.dtype)
    return _times(p.div(p.filled(1, raised), raised), _double(lr))


@_update_op(("step", "prev", "step_size", "param"), 2, down=0.5, up=1.2, least=1e-6, most=50.0)
def rprop_step(param: Tensor, grad: Tensor, prev: Tensor, step_size: Tensor, step: Tensor, *,
               down: Number, up: Number, least: Number, most: Number, maximize: bool = False):
    """The step grows by `up` where the gradient keeps its sign; where the sign turns it shrinks by
    `down` and the parameter stays."""
    def spread(number) -> Value:
        return p.expand(convert(_double(number), step_size.dtype), step_size.shape)

    following, _ = _counted(step)
    grad = p.neg(grad) if maximize else grad
    agreement = p.mul(grad, prev)
    zero = p.filled(0, agreement)
    turned = p.lt(agreement, zero)
    factor = p.where(p.gt(agreement, zero), spread(up), p.filled(1, step_size))
    size = p.mul(step_size, p.where(turned, spread(down), factor))
    size = p.minimum(p.maximum(size, spread(least)), spread(most))
    grad = p.where(turned, p.filled(0, grad), grad)
    return following, grad, size, p.sub(param, p.mul(p.sign(grad), size))


# --------------------------------------------------------------------------- averages
def _average_samples():
    yield sample(Arr((7,)), Arr((7,)), Arr((), None, 3, 4, False))


@op(returns=("average",), mutates=("average",), method=False, public=(), out=False, refuses="bui",
    samples=_average_samples)
def mean_step(average: Tensor, value: Tensor, count: Index):
    """average + (value - average) / (count + 1)."""
    parts = p.add(count, p.filled(1, count))
    parts = p.expand(convert(parts, average.dtype), average.shape)
    return (p.add(average, p.div(p.sub(value, average), parts)),)


# --------------------------------------------------------------------------- Adafactor
_ADAFACTOR = {"lr": 0.1, "beta2_decay": -0.8, "least": 1e-7, "eps": 1e-3, "d": 1.0}


def _root_mean_square(x: Value) -> Value:
    """sqrt(sum(x^2) / n), rounded as the norm is, in double precision."""
    total = p.sqrt(p.reduce_sum(p.mul(x, x), tuple(range(x.ndim))))
    return p.div(convert(total, dtypes.float64), p.filled(x.numel**0.5, _double(0)))


def _mean_square(x: Value, dim: int) -> Value:
    """The mean of x^2 along a dimension, which is kept, by way of the norm."""
    norm = p.sqrt(p.reduce_sum(p.mul(x, x), (dim,)))
    shape = tuple([1 if d == dim else size for d, size in enumerate(x.shape)])
    norm = p.reshape(norm, shape)
    return p.div(p.mul(norm, norm), p.filled(x.shape[dim], norm))


def _adafactor(param: Value, grad: Value, count: Value, estimate: Value, lr, least, eps, d,
               weight_decay) -> Value:
    """The new parameter, given the estimated mean squares of the gradient."""
    rate = p.minimum(_double(lr), p.div(p.filled(1, count), p.sqrt(count)))
    size = p.mul(p.maximum(_double(eps), _root_mean_square(param)), rate)
    if not _is(weight_decay, 0):
        shrink = p.mul(_double(lr), _double(weight_decay))
        param = _times(param, _one_minus_value(shrink))
    floor = p.mul(_double(least), _double(least))
    estimate = p.maximum(estimate, p.expand(convert(floor, estimate.dtype), estimate.shape))
    update = p.mul(p.div(p.filled(1, estimate), p.sqrt(estimate)), grad)
    excess = p.div(_root_mean_square(update), _double(d))
    limit = p.maximum(p.filled(1, excess), excess)
    return p.add(param, _times(update, p.neg(p.div(size, limit))))


@_update_op(("step", "variance", "param"), 1, **_ADAFACTOR)
def adafactor_step(param: Tensor, grad: Tensor, variance: Tensor, step: Tensor, *, lr: Number,
                   beta2_decay: Number, least: Number, eps: Number, d: Number,
                   weight_decay: Number = 0, maximize: bool = False):
    """The update g / sqrt(v) is limited to a root mean square of d, and scaled by the parameter's;
    v is the mean square of g."""
    following, count = _counted(step)
    grad = p.neg(grad) if maximize else grad
    share = p.pow_(count, _double(beta2_decay))
    variance = _lerp(variance, p.mul(grad, grad), share)
    return following, variance, _adafactor(param, grad, count, variance, lr, least, eps, d,
                                           weight_decay)


def _matrix_samples():
    options = {**_ADAFACTOR, "weight_decay": 0.1}
    yield sample(Arr((5, 7), None, -1, 1), Arr((5, 7), None, -1, 1), Arr((5, 1), None, 0.1, 1),
                 Arr((1, 7), None, 0.1, 1), Arr((), None, 3, 4, False), **options)


@op(returns=("step", "row_var", "col_var", "param"),
    mutates=("step", "row_var", "col_var", "param"), method=False, public=(), out=False,
    refuses="bui", samples=_matrix_samples)
def adafactor_matrix_step(param: Tensor, grad: Tensor, row_var: Tensor, col_var: Tensor,
                          step: Tensor, *, lr: Number, beta2_decay: Number, least: Number,
                          eps: Number, d: Number, weight_decay: Number = 0,
                          maximize: bool = False):
    """Adafactor for matrices: the means of rows and columns stand for v, which is their product
    over the mean of all."""
    following, count = _counted(step)
    grad = p.neg(grad) if maximize else grad
    share = p.pow_(count, _double(beta2_decay))
    rows = _lerp(row_var, _mean_square(grad, grad.ndim - 1), share)
    columns = _lerp(col_var, _mean_square(grad, grad.ndim - 2), share)
    outer = p.mul(p.expand(rows, grad.shape), p.expand(columns, grad.shape))
    mean = p.reduce_sum(rows, (rows.ndim - 2,))
    mean = p.div(mean, p.filled(rows.shape[-2], mean))
    mean = p.maximum(mean, p.expand(convert(_double(least), mean.dtype), mean.shape))
    mean = p.reshape(mean, (*rows.shape[:-2], 1, 1))
    estimate = p.div(outer, p.expand(mean, outer.shape))
    return following, rows, columns, _adafactor(param, grad, count, estimate, lr, least, eps, d,
                                                weight_decay)
