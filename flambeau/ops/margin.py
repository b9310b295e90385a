"""Margin losses: what counts is by how much the right answer beats the wrong ones."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import FUNCTIONAL, softplus_of
from flambeau.ops.checks import no_bool
from flambeau.ops.distance import distance
from flambeau.ops.index import BEYOND
from flambeau.ops.loss import (
    _as_target,
    _by_reduction,
    _Classes,
    _target_error,
    _times,
    _unreduced,
    check_reduction,
    reduced,
)
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Tensor, op
from flambeau.ops.reduce import size_constant
from flambeau.ops.samples import Arr, sample


def _sign_samples(*shapes, **kwargs):
    """Samples whose last tensor holds targets -1 or 1."""

    def samples():
        for reduction in ("mean", "sum", "none"):
            yield sample(*(Arr(shape) for shape in shapes[:-1]),
                         Arr(shapes[-1], "int64", -1, 2), reduction=reduction, **kwargs)

    return samples


@op(promote="match", method=False, out=False, public=FUNCTIONAL,
    samples=_sign_samples((3, 4), (3, 4)),
    grad=_by_reduction("MeanBackward0", "SumBackward0", "AddBackward0"), check=no_bool)
def hinge_embedding_loss(input: Tensor, target: Tensor, *, margin: float = 1.0,
                         reduction: str = "mean"):
    """input where target is 1, max(0, margin - input) where it is -1."""
    x, t = e.broadcast(input, target)
    zero = p.zero_like(x)
    far = _at_least_zero(p.sub(e.like(margin, x), x))
    loss = p.add(p.where(p.ne(t, e.like(1, t)), far, zero),
                 p.where(p.ne(t, e.like(-1, t)), x, zero))
    return reduced(loss, reduction)


def _at_least_zero(x: Value) -> Value:
    """max(x, 0) whose gradient at 0 is 1, as clamp's."""
    zero = p.zero_like(x)
    return p.where(p.lt(x, zero), zero, x)


@op(promote="match", method=False, out=False, public=FUNCTIONAL,
    samples=_sign_samples((3, 4), (3, 4)), grad="SoftMarginLossBackward0", refuses="bui")
def soft_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean"):
    """log(1 + exp(-target input))."""
    x, t = e.broadcast(input, target)
    return reduced(softplus_of(p.neg(p.mul(t, x))), reduction)


@soft_margin_loss.vjp
def soft_margin_loss_vjp(g, input, target, reduction):
    """-t sigmoid(-t x)."""
    x, t = e.broadcast(input, convert(target, input.dtype))
    part = _unreduced(g, x.shape, reduction)
    likely = p.sigmoid(p.neg(p.mul(t, x)))
    return [e.reduced(p.neg(p.mul(part, p.mul(t, likely))), input),
            e.reduced(p.neg(p.mul(part, p.mul(x, likely))), target)]


@op(promote="float", method=False, out=False, public=FUNCTIONAL,
    samples=_sign_samples((3, 4), (3, 4), (3, 4), margin=0.3),
    grad=_by_reduction("MeanBackward0", "SumBackward0", "ClampMinBackward0"), check=no_bool)
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, *, margin: float = 0.0,
                        reduction: str = "mean"):
    """max(0, margin - target (input1 - input2))."""
    a, b, t = e.broadcast(input1, input2, target)
    gap = p.neg(p.mul(t, p.sub(a, b)))
    return reduced(_at_least_zero(p.add(gap, e.like(margin, gap))), reduction)


def _cosine_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4)), Arr((3,), "int64", -1, 2), margin=0.2,
                     reduction=reduction)
    yield sample(Arr((4,)), Arr((4,)), Arr((), "int64", 1, 2))


@op(method=False, out=False, public=FUNCTIONAL, samples=_cosine_samples,
    promote="float", grad=_by_reduction("MeanBackward0", "SumBackward0", "AddBackward0"))
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Index, *, margin: float = 0.0,
                          reduction: str = "mean"):
    """1 - cos(input1, input2) where target is 1, max(0, cos - margin) where it is -1."""
    if target.ndim not in (0, 1):
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise RuntimeError(f"{target.ndim}D target tensor expects {target.ndim + 1}D input "
                           f"tensors, but found inputs with sizes {list(input1.shape)} and "
                           f"{list(input2.shape)}.")
    a, b = e.broadcast(input1, input2)
    last = (a.ndim - 1,)

    def square(x: Value) -> Value:
        total = p.reduce_sum(p.mul(x, x), last)
        return p.add(total, e.like(1e-12, total))

    cos = p.div(p.reduce_sum(p.mul(a, b), last), p.sqrt(p.mul(square(a), square(b))))
    zero, t = p.zero_like(cos), p.expand(target, cos.shape)
    near = p.where(p.eq(t, e.like(1, t)), p.sub(e.like(1, cos), cos), zero)
    far = _at_least_zero(p.sub(cos, e.like(margin, cos)))
    return reduced(p.add(near, p.where(p.eq(t, e.like(-1, t)), far, zero)), reduction)


def _triplet_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4)), Arr((3, 4)), reduction=reduction)
    yield sample(Arr((3, 4)), Arr((3, 4)), Arr((3, 4)), swap=True, margin=2.0)


@op(promote="match", method=False, out=False, public=FUNCTIONAL, samples=_triplet_samples,
    grad=_by_reduction("MeanBackward0", "SumBackward0", "ClampMinBackward0"), check=no_bool)
def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *, margin: float = 1.0,
                        p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                        reduction: str = "mean"):
    """max(0, |anchor - positive| - |anchor - negative| + margin), in the p-norm.

    `swap` uses the distance positive-negative where it is smaller.
    """
    near, far = distance(anchor, positive, p, eps), distance(anchor, negative, p, eps)
    if swap:
        far = e.minimum(far, distance(positive, negative, p, eps))
    gap = e.add(e.sub(near, far), margin)
    return reduced(_at_least_zero(gap), reduction)


def _multi_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3,), "int64", 0, 4), reduction=reduction)
    yield sample(Arr((3, 4)), Arr((3,), "int64", 0, 4), p=2, margin=0.5,
                 weight=Arr((4,), None, 0.1, 1, requires_grad=False))
    yield sample(Arr((4,)), Arr((), "int64", 0, 4))


@op(method=False, out=False, public=FUNCTIONAL, samples=_multi_samples, refuses="bui",
    index_error=_target_error)
def multi_margin_loss(input: Tensor, target: Index, *, p: int = 1, margin: float = 1.0,
                      weight: Index | None = None, reduction: str = "mean"):
    """The mean over classes of max(0, margin - x[target] + x[i])^p, the target itself left out."""
    return _multi_margin(input, target, p, margin, weight, reduction)


def _multi_margin(input, target, degree, margin, weight, reduction) -> Value:
    check_reduction(reduction)
    if input.ndim == 0:
        input = p.reshape(input, (1,))
    if input.ndim > 2 or input.shape[-1] == 0:
        raise RuntimeError("Expected non-empty vector or matrix with optional 0-dim batch size, "
                           f"but got: {list(input.shape)}")
    rows = input.shape[0] if input.ndim == 2 else 1
    if target.ndim > 1 or target.numel != rows:
        raise RuntimeError("target tensor should be 1-D with size equal to the batch size. "
                           f"Expected target size [{rows}], but got {list(target.shape)}")
    if target.dtype is not dtypes.int64:
        raise RuntimeError(f"expected scalar type Long but found {target.dtype.scalar_name} "
                           "(targets are int64)")
    if weight is not None and weight.shape != (input.shape[-1],):
        raise RuntimeError(f"inconsistent weight size, expected {input.shape[-1]} but got "
                           f"{list(weight.shape)}")
    if weight is not None and weight.dtype.kind != input.dtype.kind:
        raise RuntimeError(f"multi_margin_loss: expected weight of scalar type "
                           f"{input.dtype.scalar_name} but found {weight.dtype.scalar_name}")
    classes = _Classes(input, target, weight, -BEYOND)
    dim = (classes.dim,)
    gap = p.add(p.sub(input, p.unreduce(classes.pick(input), input.shape, dim)),
                e.like(margin, input))
    zero = p.zero_like(gap)
    positive = p.logical_and(p.gt(gap, zero), p.bitwise_not(classes.one_hot(input.shape)))
    gap = p.where(positive, gap, zero)
    terms = p.mul(gap, gap) if degree == 2 else gap
    loss = p.mul(p.reduce_sum(terms, dim), classes.share)
    loss = p.div(loss, size_constant(input.shape[classes.dim], loss))
    return _as_target(reduced(loss, reduction), target, reduction)


def _multilabel_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4), None, 0, 1, requires_grad=False),
                     reduction=reduction)


@op(promote="match", method=False, out=False, public=FUNCTIONAL, samples=_multilabel_samples,
    grad=_by_reduction("MeanBackward0", "SumBackward0", "DivBackward0"), refuses="bui")
def multilabel_soft_margin_loss(input: Tensor, target: Tensor, *, weight: Tensor | None = None,
                                reduction: str = "mean"):
    """binary_cross_entropy_with_logits averaged over the last dimension."""
    x, t = e.broadcast(input, target)
    no = p.sub(e.like(1, t), t)
    loss = p.add(p.mul(t, softplus_of(p.neg(x))), p.mul(no, softplus_of(x)))
    loss = _times(loss, weight)
    mean = p.reduce_sum(loss, (loss.ndim - 1,))
    mean = p.div(mean, size_constant(loss.shape[-1], mean))
    return reduced(mean, reduction)


def _label_samples():
    for reduction in ("mean", "sum", "none"):
        yield sample(Arr((3, 4)), Arr((3, 4), "int64", -1, 4), reduction=reduction)
    yield sample(Arr((4,)), Arr((4,), "int64", -1, 4))


@op(method=False, out=False, public=FUNCTIONAL, samples=_label_samples, refuses="bui",
    index_error=_target_error, grad="MultilabelMarginLossBackward0")
def multilabel_margin_loss(input: Tensor, target: Index, *, reduction: str = "mean"):
    """The mean over classes of max(0, 1 - x[t] + x[i]), for every target t and other class i.

    The targets of a row (n, c) are those before the first negative one.
    """
    if input.ndim > 2 or 0 in input.shape[-1:] or target.dtype is not dtypes.int64:
        raise RuntimeError("Expected non-empty vector or matrix with optional 0-dim batch size, but"
                           f" got: {list(input.shape)}")
    if target.shape != input.shape:
        raise RuntimeError(f"inconsistent target size: {list(target.shape)} for input of size: "
                           f"{list(input.shape)}")
    n, c = (1,) * (2 - input.ndim) + input.shape if input.ndim < 2 else input.shape
    x, t = p.reshape(input, (n, c)), p.reshape(target, (n, c))
    place, none = p.iota((n, c), 1), p.zero_like(t)
    count = p.reduce_min(p.where(p.lt(t, none), place, e.like(c, place)), (1,))
    live = p.lt(place, p.unreduce(count, (n, c), (1,)))
    picked = p.lookup(x, [0, p.where(live, t, none)], (n, c))
    loss = p.label_margins(x, t, count, picked)
    loss = p.reshape(p.div(loss, size_constant(c, loss)), (n,) if input.ndim == 2 else ())
    return reduced(loss, reduction)
