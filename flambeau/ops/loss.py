"""Losses. Each is one kernel from the logits to the reduced value; gradients are closed forms where
the derived ones would lose accuracy or materialise what need not be stored."""

from __future__ import annotations

import math

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import (
    FUNCTIONAL,
    floats_only,
    log_probabilities,
    shifted,
    softplus_of,
)
from flambeau.ops.checks import no_bool, one_dtype
from flambeau.ops.index import positions
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Operand, Tensor, op
from flambeau.ops.reduce import size_constant
from flambeau.ops.samples import Arr, sample


def check_reduction(reduction: str, allowed: tuple = ("none", "mean", "sum")) -> None:
    """Raise ValueError for an unknown reduction."""
    if reduction not in allowed:
        raise ValueError(f"{reduction} is not a valid value for reduction; use one of "
                         f"{', '.join(map(repr, allowed))}")


def reduced(loss: Value, reduction: str, weight: Value | None = None) -> Value:
    """The loss as asked for: "none", "sum", or "mean" (by the sum of weights, if there are any)."""
    check_reduction(reduction)
    if reduction == "none":
        return loss
    total = p.reduce_sum(loss, range(loss.ndim))
    if reduction == "sum":
        return total
    if loss.dtype.is_integral:
        raise RuntimeError("mean(): could not infer output dtype. Input dtype must be either a "
                           f"floating point or complex dtype. Got: {loss.dtype.scalar_name}")
    if weight is not None:
        return p.div(total, p.reduce_sum(weight, range(weight.ndim)))
    return p.div(total, size_constant(loss.numel, total))


def _unreduced(g: Value, shape, reduction: str) -> Value:
    """The gradient of every term of a reduced loss, before weights."""
    if reduction == "none":
        return g
    if reduction == "mean":
        g = p.div(g, size_constant(math.prod(shape), g))
    return p.expand(g, shape)


def _pair_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4)), reduction=reduction)
    yield sample(Arr((2, 3, 17)), Arr((17,)))
    yield sample(Arr(()), Arr(()))


# --------------------------------------------------------------------------- regression
def _weighted_samples():
    yield from _pair_samples()
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4)), reduction=reduction,
                     weight=Arr((3, 4), None, 0.1, 1, requires_grad=False))


def _weighted(loss: Value, reduction: str, weight: Value | None) -> Value:
    if weight is None:
        return reduced(loss, reduction)
    if weight.shape != loss.shape:
        raise ValueError("Weights and input must have the same size.")
    if weight.dtype.is_complex and not loss.dtype.is_complex:  # promoted beside complex operands
        weight = p.real(weight)
    return reduced(p.mul(loss, weight), reduction, weight)


def _by_reduction(mean: str, total: str, none: str):
    def grad(call) -> str:
        reduction = call._static("reduction")
        return {"mean": mean, "sum": total}.get(reduction, none)

    return grad


def _weighted_grad(name: str, mean: str = "DivBackward0"):
    def grad(call) -> str:
        if len(call.avals) == 2:
            return name
        return _by_reduction(mean, "SumBackward0", "MulBackward0")(call)

    return grad


@op(promote="alike", method=False, out=False, public=FUNCTIONAL, samples=_weighted_samples,
    grad=_weighted_grad("MseLossBackward0"))
def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean",
             weight: Tensor | None = None):
    """(input - target)^2."""
    floats_only("mse_cpu", input)
    gap = e.elementwise(p.sub, input, target)
    return _weighted(p.mul(gap, gap), reduction, weight)


def _l1_grad(call) -> str:
    plain = _by_reduction("MeanBackward0", "SumBackward0", "AbsBackward0")(call)
    return plain if len(call.avals) == 2 else _weighted_grad(plain)(call)


@op(promote="alike", method=False, out=False, public=FUNCTIONAL, samples=_weighted_samples,
    grad=_l1_grad)
def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean",
            weight: Tensor | None = None):
    """|input - target|."""
    return _weighted(p.abs_(e.sub(input, target)), reduction, weight)


def _smooth_samples():
    yield from _pair_samples()
    yield sample(Arr((3, 4)), Arr((3, 4)), beta=0.5)
    yield sample(Arr((3, 4)), Arr((3, 4)), beta=0)


@op(promote="alike", method=False, out=False, public=FUNCTIONAL, samples=_smooth_samples,
    refuses="c", grad=lambda call: l1_loss.grad(call) if call._static("beta") == 0
    else "SmoothL1LossBackward0")
def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0):
    """d^2 / (2 beta) where d = |input - target| < beta, d - beta / 2 elsewhere."""
    floats_only("smooth_l1_cpu", input)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    gap = e.elementwise(p.sub, input, target)
    size = p.abs_(gap)
    if beta == 0:
        return reduced(size, reduction)
    limit, half = e.like(beta, gap), e.like(0.5, gap)
    near = p.div(p.mul(half, p.mul(gap, gap)), limit)
    far = p.sub(size, p.mul(half, limit))
    return reduced(p.where(p.lt(size, limit), near, far), reduction)


def _huber_samples():
    yield from _weighted_samples()
    yield sample(Arr((3, 4)), Arr((3, 4)), delta=0.5)


@op(promote="alike", method=False, out=False, public=FUNCTIONAL, samples=_huber_samples,
    refuses="c", grad=_weighted_grad("HuberLossBackward0", "MeanBackward0"))
def huber_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None):
    """d^2 / 2 where d = |input - target| < delta, delta (d - delta / 2) elsewhere."""
    floats_only("huber_cpu", input)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    gap = e.elementwise(p.sub, input, target)
    size, limit, half = p.abs_(gap), e.like(delta, gap), e.like(0.5, gap)
    near = p.mul(half, p.mul(gap, gap))
    far = p.mul(limit, p.sub(size, p.mul(half, limit)))
    loss = p.where(p.lt(size, limit), near, far)
    if weight is None or reduction == "none":
        return _weighted(loss, reduction, weight)
    total = _weighted(loss, "sum", weight)  # unlike the others, divided by the number of elements
    return p.div(total, size_constant(loss.numel, total)) if reduction == "mean" else total


# --------------------------------------------------------------------------- classes
def _check_classes(name: str, input: Value, target: Value, weight: Value | None) -> int:
    """Check the shapes of logits and class indices; returns the class dimension."""
    if target.dtype not in (dtypes.int64, dtypes.uint8):
        raise RuntimeError("expected target dtype to be Long or Byte, but got "
                           f"{target.dtype.scalar_name}; convert the class indices with .long()")
    if input.ndim == 0 and name == "nll_loss":
        raise ValueError("Expected 1 or more dimensions (got 0)")
    if input.ndim == 0:
        raise IndexError("Dimension out of range (expected to be in range of [-1, 0], but got 1): "
                         "the input has no class dimension")
    dim = 0 if input.ndim == 1 else 1
    if input.ndim == 1:
        if target.numel != 1 or target.ndim > 1:
            raise ValueError("For 1D input, 1D target must have size 1, but got target size: "
                             f"{target.numel}")
    elif input.shape[0] != target.shape[:1][0] if target.ndim else True:
        count = target.shape[0] if target.ndim else 0
        raise ValueError(f"Expected input batch_size ({input.shape[0]}) to match target batch_size "
                         f"({count}).")
    elif target.ndim != input.ndim - 1:
        raise RuntimeError(f"only batches of spatial targets supported ({input.ndim - 1}D tensors) "
                           f"but got targets of dimension: {target.ndim}")
    elif target.shape[1:] != input.shape[2:]:
        raise RuntimeError(f"size mismatch (got input: {list(input.shape)}, target: "
                           f"{list(target.shape)}): the target has one class for each place of the "
                           "input, without the class dimension")
    _check_weight(weight, input, dim)
    return dim


def _target_error(index: int, call, args) -> Exception:
    """A class index that the input does not have."""
    shape = list(call.avals[0][0])
    classes = shape[0] if len(shape) == 1 else shape[1]
    return IndexError(f"Target {index} is out of bounds. The input of shape {shape} has {classes} "
                      f"classes, 0 to {classes - 1}, and ignore_index is "
                      f"{call._static('ignore_index')}")


def _check_weight(weight: Value | None, input: Value, dim: int) -> None:
    classes = input.shape[dim]
    if weight is None:
        return
    if weight.shape != (classes,):
        raise RuntimeError(f"weight tensor should be defined either for all {classes} classes or "
                           f"no classes but got weight tensor of shape: {list(weight.shape)}")
    if weight.dtype is not input.dtype:
        raise RuntimeError(f"expected scalar type {input.dtype.scalar_name} but found "
                           f"{weight.dtype.scalar_name} (dtype of weight)")


class _Classes:
    """Targets ready for use, over the places (all dimensions but the class one).

    Attributes:
        index: the classes, 0 at ignored places.
        valid: which places count.
        share: the weight of each place, 0 where ignored.
    """

    def __init__(self, input: Value, target: Value, weight: Value | None, ignore_index: int):
        self.dim = 0 if input.ndim == 1 else 1
        self.shape = input.shape[:self.dim] + input.shape[self.dim + 1:]
        target = p.reshape(convert(target, dtypes.int64), self.shape)
        zero = p.zero_like(target)
        self.valid = p.ne(target, e.like(ignore_index, target))
        index = p.where(self.valid, target, zero)
        self.index = positions("nll_loss", index)
        one = p.expand(convert(e.lift(1.0), input.dtype), self.shape)
        share = one if weight is None else p.lookup(weight, [self.index], self.shape)
        self.share = p.where(self.valid, share, p.zero_like(share))

    def pick(self, x: Value) -> Value:
        """x at the target class of every place."""
        places = iter(range(len(self.shape)))
        coords = [self.index if d == self.dim else next(places) for d in range(x.ndim)]
        return p.lookup(x, coords, self.shape)

    def one_hot(self, shape) -> Value:
        """Is this class the target?"""
        at = p.iota(shape, self.dim)
        return p.eq(at, p.unreduce(self.index, shape, (self.dim,)))

    def reduced(self, loss: Value, reduction: str) -> Value:
        """`loss` counts with `share` already; the mean is over the shares."""
        check_reduction(reduction)
        if reduction == "none":
            return loss
        total = p.reduce_sum(loss, range(loss.ndim))
        return p.div(total, self.total()) if reduction == "mean" else total

    def total(self) -> Value:
        return p.reduce_sum(self.share, range(len(self.shape)))

    def per_place(self, g: Value, reduction: str) -> Value:
        """The gradient of each place's loss."""
        if reduction == "mean":
            g = p.div(g, self.total())
        return p.expand(g, self.shape) if reduction != "none" else p.reshape(g, self.shape)


def _class_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((5, 4)), Arr((5,), "int64", 0, 4), reduction=reduction)
    weight = Arr((4,), None, 0.1, 1, requires_grad=False)
    yield sample(Arr((5, 4)), Arr((5,), "int64", 0, 4), weight)
    yield sample(Arr((5, 4)), Arr((5,), "int64", 0, 4), weight, ignore_index=2)
    yield sample(Arr((2, 4, 3, 5)), Arr((2, 3, 5), "int64", 0, 4), weight, reduction="none")
    yield sample(Arr((2, 4, 3, 5)), Arr((2, 3, 5), "int64", 0, 4), ignore_index=1)
    yield sample(Arr((2, 4, 3)), Arr((2, 3), "int64", 0, 4))
    yield sample(Arr((4,)), Arr((), "int64", 0, 4))


def _nll_grad(call) -> str:
    rank = len(call.avals[0][0])
    return {1: "NllLossBackward0", 2: "NllLossBackward0", 4: "NllLoss2DBackward0"}.get(
        rank, "ViewBackward0" if call._static("reduction") == "none" else "NllLoss2DBackward0")


@op(method=False, out=False, public=FUNCTIONAL, samples=_class_samples, grad=_nll_grad,
    index_error=_target_error)
def nll_loss(input: Tensor, target: Index, weight: Index | None = None, *,
             ignore_index: int = -100, reduction: str = "mean"):
    """-input[n, target[n]]; classes lie along dimension 1 (0 for 1-D input).

    Targets are class indices; those equal to `ignore_index` do not count, others out of range raise
    IndexError. `weight` gives one factor per class; "mean" divides by the sum of the factors.
    """
    _check_classes("nll_loss", input, target, weight)
    floats_only("nll_loss_out_frame", input)
    classes = _Classes(input, target, weight, ignore_index)
    zero = p.zero_like(classes.share)
    loss = p.where(classes.valid, p.mul(p.neg(classes.pick(input)), classes.share), zero)
    return _as_target(classes.reduced(loss, reduction), target, reduction)


def _as_target(loss: Value, target: Value, reduction: str) -> Value:
    return p.reshape(loss, target.shape) if reduction == "none" else loss


@nll_loss.vjp
def nll_loss_vjp(g, input, target, weight, ignore_index, reduction):
    """-share at the target class, 0 elsewhere."""
    classes = _Classes(input, target, weight, ignore_index)
    part = p.neg(p.mul(classes.per_place(g, reduction), classes.share))
    part = p.where(classes.valid, part, p.zero_like(part))  # g is inf where no place counts
    wide = p.unreduce(part, input.shape, (classes.dim,))
    return p.where(classes.one_hot(input.shape), wide, p.zero_like(wide))


def _cross_samples():
    yield from _class_samples()
    weight = Arr((4,), None, 0.1, 1, requires_grad=False)
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((5, 4)), Arr((5,), "int64", 0, 4), label_smoothing=0.1,
                     reduction=reduction)
        yield sample(Arr((5, 4)), Arr((5,), "int64", 0, 4), weight, label_smoothing=0.1,
                     ignore_index=1, reduction=reduction)
        yield sample(Arr((5, 4)), Arr((5, 4), None, 0, 1), reduction=reduction)
    yield sample(Arr((2, 4, 3)), Arr((2, 4, 3), None, 0, 1), weight, label_smoothing=0.1)
    yield sample(Arr((4,)), Arr((4,), None, 0, 1))


def _cross_grad(call) -> str:
    if call.avals[1][1].kind == "f" and call.avals[0][0] == call.avals[1][0]:
        return "DivBackward1" if call._static("reduction") == "mean" else "NegBackward0"
    return "AddBackward0" if call._static("label_smoothing") else _nll_grad(call)


@op(method=False, out=False, public=FUNCTIONAL, samples=_cross_samples, grad=_cross_grad,
    index_error=_target_error)
def cross_entropy(input: Tensor, target: Tensor, weight: Index | None = None, *,
                  ignore_index: int = -100, reduction: str = "mean",
                  label_smoothing: float = 0.0):
    """-log(softmax(input)[target]); classes lie along dimension 1 (0 for 1-D input).

    `target` holds class indices (see `nll_loss`), or probabilities in the shape of the input.
    `label_smoothing` s mixes it with the uniform distribution: (1 - s) target + s / classes.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError("label_smoothing must be between 0.0 and 1.0. Got: "
                           f"{label_smoothing:g}")
    check_reduction(reduction)
    if input.shape == target.shape and target.dtype.kind == "f":
        return _cross_entropy_soft(input, target, weight, reduction, label_smoothing)
    dim = _check_classes("cross_entropy", input, target, weight)
    floats_only("log_softmax_lastdim_kernel_impl", input)
    classes = _Classes(input, target, weight, ignore_index)
    # log(sum(exp(x))) - x[target], shifted by the maximum: nothing as large as the input is stored
    top = p.stop_gradient(p.reduce_max(input, (dim,)))
    total = p.reduce_sum(p.exp(p.sub(input, p.unreduce(top, input.shape, (dim,)))), (dim,))
    log_total = p.log(total)
    loss = p.mul(p.sub(log_total, p.sub(classes.pick(input), top)), classes.share)
    if label_smoothing:
        loss = p.add(p.mul(loss, e.like(1 - label_smoothing, loss)),
                     _spread_loss(input, top, log_total, weight, dim, label_smoothing))
    loss = p.where(classes.valid, loss, p.zero_like(loss))
    return _as_target(classes.reduced(loss, reduction), target, reduction)


def _spread_loss(x: Value, top: Value, log_total: Value, weight: Value | None, dim: int,
                 smoothing: float) -> Value:
    """s / classes * sum over classes of weight * -log(softmax)."""
    base = p.add(top, log_total)
    terms = p.sub(p.unreduce(base, x.shape, (dim,)), x)
    if weight is not None:
        terms = p.mul(terms, _along(weight, x, dim))
    total = p.reduce_sum(terms, (dim,))
    return p.mul(total, e.like(smoothing / x.shape[dim], total))


def _along(weight: Value, x: Value, dim: int) -> Value:
    """One factor per class, broadcast to x."""
    shape = [1] * x.ndim
    shape[dim] = x.shape[dim]
    return p.expand(p.reshape(weight, shape), x.shape)


def _soft_target(input: Value, target: Value, weight: Value | None, smoothing: float) -> Value:
    dim = 0 if input.ndim == 1 else 1
    if smoothing:
        target = p.add(p.mul(target, e.like(1 - smoothing, target)),
                       e.like(smoothing / max(1, input.shape[dim]), target))
    return target if weight is None else p.mul(target, _along(weight, input, dim))


def _cross_entropy_soft(input, target, weight, reduction, smoothing) -> Value:
    dim = 0 if input.ndim == 1 else 1
    floats_only("log_softmax_lastdim_kernel_impl", input)
    _check_weight(weight, input, dim)
    target = _soft_target(input, convert(target, input.dtype), weight, smoothing)
    loss = p.neg(p.reduce_sum(p.mul(log_probabilities(input, (dim,)), target), (dim,)))
    return reduced(loss, reduction)


@cross_entropy.vjp
def cross_entropy_vjp(g, input, target, weight, ignore_index, reduction, label_smoothing):
    """sum(a) softmax - a at every place, a being the (weighted, smoothed) target distribution."""
    dim = 0 if input.ndim == 1 else 1
    exps = p.exp(shifted(input, (dim,)))
    sums = p.unreduce(p.reduce_sum(exps, (dim,)), input.shape, (dim,))
    likely = p.div(exps, sums)
    if input.shape == target.shape and target.dtype.kind == "f":
        return _soft_vjp(g, input, target, weight, reduction, label_smoothing, likely)
    classes = _Classes(input, target, weight, ignore_index)
    part = classes.per_place(g, reduction)
    share = classes.share
    if label_smoothing:
        share = p.mul(share, e.like(1 - label_smoothing, share))
    aim = p.unreduce(share, input.shape, (dim,))
    aim = p.where(classes.one_hot(input.shape), aim, p.zero_like(aim))
    mass = share
    if label_smoothing:
        rest = e.like(label_smoothing / input.shape[dim], input)
        if weight is not None:
            rest = p.mul(rest, _along(weight, input, dim))
        aim, mass = p.add(aim, rest), p.add(mass, p.reduce_sum(rest, (dim,)))
    part = p.where(classes.valid, part, p.zero_like(part))
    scale, mass = (p.unreduce(v, input.shape, (dim,)) for v in (part, mass))
    return [p.mul(scale, p.sub(p.mul(mass, likely), aim)), None]


def _soft_vjp(g, input, target, weight, reduction, smoothing, likely) -> list:
    dim = 0 if input.ndim == 1 else 1
    places = input.shape[:dim] + input.shape[dim + 1:]
    part = p.unreduce(_unreduced(g, places, reduction), input.shape, (dim,))
    aim = _soft_target(input, convert(target, input.dtype), weight, smoothing)
    mass = p.unreduce(p.reduce_sum(aim, (dim,)), input.shape, (dim,))
    to_target = p.neg(p.mul(part, log_probabilities(input, (dim,))))
    if smoothing:
        to_target = p.mul(to_target, e.like(1 - smoothing, to_target))
    if weight is not None:
        to_target = p.mul(to_target, _along(weight, input, dim))
    return [p.mul(part, p.sub(p.mul(mass, likely), aim)), to_target]


# --------------------------------------------------------------------------- binary
def _binary_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4), None, 0.05, 0.95), Arr((3, 4), None, 0, 1), reduction=reduction)
    yield sample(Arr((3, 4), None, 0.05, 0.95), Arr((3, 4), None, 0, 1),
                 Arr((4,), None, 0.1, 1, requires_grad=False))


def _same_size(input: Value, target: Value, message: str) -> None:
    if input.shape != target.shape:
        raise ValueError(message.format(target=list(target.shape), input=list(input.shape)))


def _not_probabilities(index: int, call, args) -> Exception:
    return RuntimeError("all elements of input should be between 0 and 1: pass probabilities "
                        "(apply torch.sigmoid), or logits to binary_cross_entropy_with_logits")


@op(promote="match", method=False, out=False, public=FUNCTIONAL, samples=_binary_samples,
    index_error=_not_probabilities, check=one_dtype(
        "Found dtype {other} but expected {first}: convert the target with .to(input.dtype)", 0, 1))
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *,
                         reduction: str = "mean"):
    """-(target log(input) + (1 - target) log(1 - input)); the logarithms end at -100.

    Raises:
        RuntimeError: the input holds something else than probabilities.
    """
    _same_size(input, target, "Using a target size ({target}) that is different to the input size "
                              "({input}) is deprecated. Please ensure they have the same size.")
    floats_only("binary_cross_entropy", input)
    one = e.like(1, input)
    inside = p.logical_and(p.ge(input, e.like(0, input)), p.le(input, one))  # NaN is not
    floor = e.refusing(p.bitwise_not(inside), -100, input.dtype, input.shape)
    yes = p.maximum(p.log(input), floor)
    no = p.maximum(p.log1p(p.neg(input)), floor)
    loss = p.neg(p.add(p.mul(target, yes), p.mul(p.sub(one, target), no)))
    return reduced(_times(loss, weight), reduction)


def _times(loss: Value, weight: Value | None) -> Value:
    return loss if weight is None else p.mul(loss, p.expand(weight, loss.shape))


@binary_cross_entropy.vjp
def binary_cross_entropy_vjp(g, input, target, weight, reduction):
    """(x - t) / (x (1 - x)), the denominator at least 1e-12."""
    part = _times(_unreduced(g, input.shape, reduction), weight)
    one, floor = e.like(1, input), e.like(-100, input)
    spread = p.maximum(p.mul(p.sub(one, input), input), e.like(1e-12, input))
    odds = p.sub(p.maximum(p.log1p(p.neg(input)), floor), p.maximum(p.log(input), floor))
    return [p.mul(part, p.div(p.sub(input, target), spread)), p.mul(part, odds), None]


def _logit_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4), None, 0, 1), reduction=reduction)
    fixed = Arr((4,), None, 0.1, 2, requires_grad=False)
    yield sample(Arr((3, 4)), Arr((3, 4), None, 0, 1), fixed, pos_weight=fixed)
    yield sample(Arr((3, 4), None, -40, 40), Arr((3, 4), None, 0, 1))


@op(promote="match", method=False, out=False, public=FUNCTIONAL, samples=_logit_samples)
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     *, reduction: str = "mean",
                                     pos_weight: Tensor | None = None):
    """binary_cross_entropy of sigmoid(input), without overflow; `pos_weight` weighs positives."""
    _same_size(input, target, "Target size ({target}) must be the same as input size ({input})")
    floats_only("binary_cross_entropy_with_logits", input)
    one = e.like(1, input)
    unlikely = softplus_of(p.neg(input))  # -log(sigmoid(input))
    if pos_weight is not None:
        extra = p.sub(p.expand(pos_weight, input.shape), one)
        unlikely = p.mul(unlikely, p.add(p.mul(extra, target), one))
    loss = p.add(p.mul(p.sub(one, target), input), unlikely)
    return reduced(_times(loss, weight), reduction)


@binary_cross_entropy_with_logits.vjp
def binary_cross_entropy_with_logits_vjp(g, input, target, weight, reduction, pos_weight):
    """sigmoid(x) - t without weights."""
    part = _times(_unreduced(g, input.shape, reduction), weight)
    likely, one = p.sigmoid(input), e.like(1, input)
    to_target = p.neg(input)
    if pos_weight is None:
        slope = p.sub(likely, target)
    else:
        heavy = p.expand(pos_weight, input.shape)
        yes = p.mul(heavy, target)
        slope = p.sub(p.mul(p.add(yes, p.sub(one, target)), likely), yes)
        extra = p.mul(p.sub(heavy, one), softplus_of(p.neg(input)))
        to_target = p.add(to_target, extra)
    return [p.mul(part, slope), p.mul(part, to_target), None, None]


# --------------------------------------------------------------------------- divergences
def _x_log_x(x: Value) -> Value:
    """x log(x), and 0 at 0."""
    zero, one = p.zero_like(x), e.like(1, x)
    at_zero = p.eq(x, zero)
    return p.where(at_zero, zero, p.mul(x, p.log(p.where(at_zero, one, x))))


def _kl_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4), None, 0.1, 1), reduction=reduction)
    yield sample(Arr((3, 4)), Arr((3, 4)), log_target=True, reduction="batchmean")


def _kl_grad(call) -> str:
    none = "MulBackward0" if call._static("log_target") else "SubBackward0"
    return _by_reduction("MeanBackward0", "SumBackward0", none)(call) if call._static(
        "reduction") != "batchmean" else "DivBackward0"


@op(promote="match", method=False, out=False, public=FUNCTIONAL, samples=_kl_samples, grad=_kl_grad,
    refuses="bui")
def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False):
    """target (log(target) - input): the divergence of exp(input) from target, term by term.

    "batchmean" divides the sum by the size of dimension 0.
    """
    check_reduction(reduction, ("none", "mean", "sum", "batchmean"))
    x, t = e.broadcast(input, target)
    loss = (p.mul(p.exp(t), p.sub(t, x)) if log_target
            else p.sub(_x_log_x(t), p.mul(t, x)))
    if reduction == "batchmean":
        total = p.reduce_sum(loss, range(loss.ndim))
        return p.div(total, size_constant(input.shape[0], total)) if input.ndim else total
    return reduced(loss, reduction)


def _poisson_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4), None, 0, 5, requires_grad=False),
                     reduction=reduction)
    yield sample(Arr((3, 4), None, 0.1, 3), Arr((3, 4), None, 0, 5, requires_grad=False),
                 log_input=False, full=True)


def _poisson_grad(call) -> str:
    none = "AddBackward0" if call._static("full") else "SubBackward0"
    return _by_reduction("MeanBackward0", "SumBackward0", none)(call)


@op(promote="float", method=False, out=False, public=FUNCTIONAL, samples=_poisson_samples,
    grad=_poisson_grad, check=no_bool)
def poisson_nll_loss(input: Tensor, target: Tensor, *, log_input: bool = True, full: bool = False,
                     eps: float = 1e-8, reduction: str = "mean"):
    """exp(input) - target input, or input - target log(input + eps) without `log_input`.

    `full` adds Stirling's approximation of log(target!) where target > 1.
    """
    x, t = e.broadcast(input, target)
    if log_input:
        loss = p.sub(p.exp(x), p.mul(t, x))
    else:
        loss = p.sub(x, p.mul(t, p.log(p.add(x, e.like(eps, x)))))
    if full:
        one = e.like(1, t)
        large = p.gt(t, one)
        n = p.where(large, t, one)
        stirling = p.add(p.sub(p.mul(n, p.log(n)), n),
                         p.mul(e.like(0.5, n), p.log(p.mul(e.like(2 * math.pi, n), n))))
        loss = p.add(loss, p.where(large, stirling, p.zero_like(stirling)))
    return reduced(loss, reduction)


def _gaussian_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4)), Arr((3, 4), None, 0.1, 2), reduction=reduction)
    yield sample(Arr((3, 4)), Arr((3, 4)), Arr((3, 1), None, 0.1, 2), full=True)
    yield sample(Arr((3, 4)), Arr((3, 4)), Arr((3,), None, 0.1, 2))


def _negative_variance(index: int, call, args) -> Exception:
    return ValueError("var has negative entry/entries")


def _gaussian_grad(call) -> str:
    none = "AddBackward0" if call._static("full") else "MulBackward0"
    return _by_reduction("MeanBackward0", "SumBackward0", none)(call)


@op(promote="match", method=False, out=False, public=FUNCTIONAL, samples=_gaussian_samples,
    grad=_gaussian_grad, refuses="bui", index_error=_negative_variance)
def gaussian_nll_loss(input: Tensor, target: Tensor, var: Operand, full: bool = False,
                      eps: float = 1e-6, reduction: str = "mean"):
    """(log(var) + (input - target)^2 / var) / 2; var counts as at least eps.

    `var` has the input's shape, or 1 in (or lacks) the last dimension. `full` adds log(2 pi) / 2.

    Raises:
        ValueError: a variance is negative, or `var` has another shape.

    >>> F.gaussian_nll_loss(torch.tensor([1.]), torch.tensor([3.]), torch.tensor([4.]))
    tensor(1.1931)
    """
    x, t = e.broadcast(input, target)
    if var.ndim and var.shape == input.shape[:-1] and var.shape != input.shape:
        var = p.reshape(var, (*var.shape, 1))
    elif var.ndim and var.shape != input.shape and (
            var.shape[:-1] != input.shape[:-1] or var.shape[-1] != 1):
        raise ValueError("var is of incorrect size")
    least = e.refusing(p.lt(var, e.like(0, var)), eps, var.dtype, var.shape)
    floor = p.stop_gradient(p.sub(p.maximum(var, least), var))
    var = p.expand(p.add(var, floor), x.shape)  # no gradient is lost at the floor
    gap = p.sub(x, t)
    loss = p.mul(e.like(0.5, x), p.add(p.log(var), p.div(p.mul(gap, gap), var)))
    if full:
        loss = p.add(loss, e.like(0.5 * math.log(2 * math.pi), loss))
    return reduced(loss, reduction)
