"""Normalization. Gradients are the closed forms over the normalized input, not the derived ones."""

from __future__ import annotations

import math

from flambeau.core import dtypes
from flambeau.core.shapes import normalize_dims
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.activation import FUNCTIONAL, beside, floats_only
from flambeau.ops.primitives import convert
from flambeau.ops.record import Number, Tensor, op
from flambeau.ops.reduce import how_many, size_constant
from flambeau.ops.samples import Arr, sample


def _mean(x: Value, dims, count: int | None = None) -> Value:
    total = p.reduce_sum(x, dims)
    if count is None:
        count = math.prod(x.shape[d] for d in dims)
    return p.div(total, size_constant(count, total))


def _rstd(variance: Value, eps: object) -> Value:
    """1 / sqrt(variance + eps)"""
    root = p.sqrt(p.add(variance, beside(eps, variance)))
    return p.div(e.like(1, root), root)


def _wide(x: Value | None) -> Value | None:
    """16-bit floats as float32."""
    if x is None or not x.dtype.is_reduced:
        return x
    return convert(x, dtypes.float32)


# --------------------------------------------------------------------------- trailing dimensions
def _layer_samples():
    yield sample(Arr((3, 4)), (4,))
    yield sample(Arr((2, 3, 17)), (17,), Arr((17,)), Arr((17,)))
    yield sample(Arr((2, 3, 5)), (3, 5), Arr((3, 5)), Arr((3, 5)), 0.1)
    yield sample(Arr((2, 3, 5)), (5,), Arr((5,)))
    yield sample(Arr((0, 5)), (5,), Arr((5,)), Arr((5,)))


def _trailing(name: str, x: Value, normalized_shape, weight, bias=None) -> tuple[int, ...]:
    """The dimensions that `normalized_shape` stands for, after checking everything."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape:
        raise RuntimeError("Expected normalized_shape to be at least 1-dimensional, i.e., "
                           "containing at least one element, but got normalized_shape = []")
    for what, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != shape:
            raise RuntimeError(f"Expected {what} to be of same shape as normalized_shape, but got "
                               f"{what} of shape {list(value.shape)} and normalized_shape = "
                               f"{list(shape)}")
    if x.shape[-len(shape):] != shape or x.ndim < len(shape):
        wanted = ", ".join(map(str, ("*", *shape)))
        raise RuntimeError(f"Given normalized_shape={list(shape)}, expected input with shape "
                           f"[{wanted}], but got input of size{list(x.shape)}")
    floats_only(name, x)
    return tuple(range(x.ndim - len(shape), x.ndim))


def _standard(x: Value, dims, eps: object) -> tuple[Value, Value]:
    """(x with mean 0 and variance 1 over dims, 1 / standard deviation), both like x."""
    centred = p.sub(x, p.unreduce(_mean(x, dims), x.shape, dims))
    rstd = _rstd(_mean(p.mul(centred, centred), dims), eps)
    rstd = p.unreduce(rstd, x.shape, dims)
    return p.mul(centred, rstd), rstd


def _affine(x: Value, weight: Value | None, bias: Value | None) -> Value:
    if weight is not None:
        x = p.mul(x, p.expand(weight, x.shape))
    return x if bias is None else p.add(x, p.expand(bias, x.shape))


def _one_dtype(input: Value, *rest: object) -> None:
    """Weight and bias have the input's dtype, or are float32 beside 16-bit floats."""
    affine = [arg for arg in rest if isinstance(arg, Value) and not arg.number]
    kinds = {value.dtype for value in affine}
    if kinds <= {input.dtype} or input.dtype.is_reduced and kinds == {dtypes.float32}:
        return
    raise RuntimeError("mixed dtype (CPU): all inputs must share same datatype, but got "
                       f"{', '.join(v.dtype.scalar_name for v in (input, *affine))}: weight and "
                       "bias may only differ as float32 beside a 16-bit input")


@op(method=False, out=False, public=("torch", "nn.functional"), samples=_layer_samples,
    grad="NativeLayerNormBackward0", check=_one_dtype)
def layer_norm(input: Tensor, normalized_shape: tuple, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: Number = 1e-5):
    """(input - mean) / sqrt(variance + eps) * weight + bias, over the last dimensions.

    The variance is the biased one. `normalized_shape` names the sizes of those dimensions; weight
    and bias have that shape.

    >>> torch.layer_norm(torch.tensor([[1., 3.], [0., 8.]]), (2,))
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    dims = _trailing("LayerNormKernelImpl", input, normalized_shape, weight, bias)
    return _affine(_standard(input, dims, eps)[0], weight, bias)


@layer_norm.vjp
def layer_norm_vjp(g, input, normalized_shape, weight, bias, eps):
    """rstd (h - mean(h) - y mean(h y)), h = g weight and y the normalized input."""
    dims = _trailing("layer_norm", input, normalized_shape, None)
    lead = range(input.ndim - len(dims))
    y, rstd = _standard(input, dims, eps)
    h = _affine(g, weight, None)
    mean = p.unreduce(_mean(h, dims), y.shape, dims)
    along = p.unreduce(_mean(p.mul(h, y), dims), y.shape, dims)
    to_input = p.mul(rstd, p.sub(p.sub(h, mean), p.mul(y, along)))
    return [to_input, p.reduce_sum(p.mul(g, y), lead), p.reduce_sum(g, lead)]


def _native_samples():
    yield sample(Arr((2, 3, 17)), (17,), Arr((17,)), Arr((17,)), 1e-5)
    yield sample(Arr((2, 3, 5)), (3, 5), None, None, 0.1)


@op(method=False, out=False, many=True, samples=_native_samples,
    grad="NativeLayerNormBackward0", check=_one_dtype)
def native_layer_norm(input: Tensor, normalized_shape: tuple, weight: Tensor | None,
                      bias: Tensor | None, eps: float):
    """`layer_norm`, and the mean and 1 / standard deviation that it used.

    >>> x = torch.tensor([[1., 3.], [0., 8.]])
    >>> y, mean, rstd = torch.native_layer_norm(x, (2,), None, None, 0.)
    >>> mean
    tensor([[2.],
            [4.]])
    """
    dims = _trailing("LayerNormKernelImpl", input, normalized_shape, weight, bias)
    y, rstd = _standard(input, dims, eps)
    shape = [1 if d in dims else size for d, size in enumerate(input.shape)]
    first = p.slice_(rstd, (0,) * input.ndim, (1,) * input.ndim,
                     [min(wanted, size) for wanted, size in zip(shape, input.shape, strict=True)])
    mean = p.reshape(_mean(input, dims), shape)
    return _affine(y, weight, bias), mean, p.stop_copy(first)


def _rms_samples():
    yield sample(Arr((3, 4)), (4,), eps=1e-5)
    yield sample(Arr((2, 3, 17)), (17,), Arr((17,)))
    yield sample(Arr((2, 3, 5)), (3, 5), Arr((3, 5)), 0.1)


def _rms(x: Value, dims, eps: float | None) -> tuple[Value, Value]:
    """(x over its root mean square, 1 / the latter), both like x."""
    eps = dtypes.finfo(x.dtype).eps if eps is None else eps
    rstd = p.unreduce(_rstd(_mean(p.mul(x, x), dims), eps), x.shape, dims)
    return p.mul(x, rstd), rstd


def _converted(weight: Value | None, input: Value) -> Value | None:
    """The weight in the dtype that is computed with, which is the result's.

    Raises:
        RuntimeError: a complex weight of a real input.
    """
    if weight is None:
        return None
    if weight.dtype.is_complex and not input.dtype.is_complex:
        raise RuntimeError("rms_norm: a real input cannot have a complex weight")
    return convert(weight, input.dtype)


@op(method=False, out=False, public=("torch", "nn.functional"), samples=_rms_samples,
    grad="MulBackward0")
def rms_norm(input: Tensor, normalized_shape: tuple, weight: Tensor | None = None,
             eps: float | None = None):
    """input / sqrt(mean(input^2) + eps) * weight, over the last dimensions (Zhang & Sennrich 2019).

    `eps` defaults to the machine epsilon of the type that is computed with.

    >>> torch.rms_norm(torch.tensor([[3., 4.]]), (2,))
    tensor([[0.8485, 1.1314]])
    """
    dims = _trailing("rms_norm", input, normalized_shape, weight)
    return _affine(_rms(input, dims, eps)[0], _converted(weight, input), None)


@rms_norm.vjp
def rms_norm_vjp(g, input, normalized_shape, weight, eps):
    """rstd (h - y mean(h y)), h = g weight and y the normalized input."""
    dims = _trailing("rms_norm", input, normalized_shape, None)
    y, rstd = _rms(input, dims, eps)
    own, weight = weight, _converted(weight, input)
    h = _affine(g, weight, None)
    if input.dtype.is_complex:  # rstd is holomorphic: gradients have its conjugate
        y, rstd = p.conj(y), p.conj(rstd)
        h = h if weight is None else p.mul(g, p.conj(p.expand(weight, g.shape)))
    along = p.unreduce(_mean(p.mul(h, y), dims), y.shape, dims)
    to_input = p.mul(rstd, p.sub(h, p.mul(y, along)))
    to_weight = p.reduce_sum(p.mul(g, y), range(input.ndim - len(dims)))
    return [to_input, to_weight if own is None else convert(to_weight, own.dtype)]


# --------------------------------------------------------------------------- over the batch
def _one_width(input: Value, *rest: object) -> None:
    """Everything has the input's dtype, 16-bit floats counting as the float32 they widen to."""
    widths = {dtypes.float32 if value.dtype.is_reduced else value.dtype for value in (input, *rest)
              if isinstance(value, Value) and not value.number}
    if len(widths) > 1 and not input.dtype.is_integral:  # which are refused as such
        raise RuntimeError("mixed dtype (CPU): all inputs must share same datatype, but got "
                           f"{', '.join(sorted(dtype.scalar_name for dtype in widths))}")


def _per_channel(value: Value, shape) -> Value:
    """One value per channel (dimension 1), broadcast to `shape`."""
    return p.expand(p.reshape(value, (shape[1],) + (1,) * (len(shape) - 2)), shape)


def _check_channels(x: Value, **values: Value | None) -> tuple[int, ...]:
    """All dimensions but the channels; checks that every value has one element per channel."""
    if x.ndim < 2:
        raise IndexError("Dimension out of range (expected to be in range of [-1, 0], but got 1): "
                         f"the input needs a channel dimension, got {list(x.shape)}")
    for name, value in values.items():
        if value is not None and value.numel != x.shape[1]:
            raise RuntimeError(f"{name} should contain {x.shape[1]} elements not {value.numel}")
    floats_only("batch_norm", x)
    return tuple(d for d in range(x.ndim) if d != 1)


def _scaled(x: Value, weight: Value | None, bias: Value | None) -> Value:
    """x * weight + bias by channel."""
    if weight is not None:
        x = p.mul(x, _per_channel(_wide(weight), x.shape))
    return x if bias is None else p.add(x, _per_channel(_wide(bias), x.shape))


def _batch_samples():
    yield sample(Arr((5, 3)))
    yield sample(Arr((2, 3, 17)), Arr((3,)), Arr((3,)))
    yield sample(Arr((4, 3, 5, 6)), Arr((3,)), Arr((3,)), 0.1)
    yield sample(Arr((2, 3, 4)), Arr((3,)))


@op(name="batch_norm_train", returns=("output", "mean", "var"), opmath=False, method=False,
    out=False, public=(), samples=_batch_samples, grad="NativeBatchNormBackward0",
    check=_one_width)
def batch_norm_train(input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
                     eps: Number = 1e-5):
    """(input - mean) / sqrt(var + eps) * weight + bias per channel, and the batch's mean and var.

    The variance is the biased one; the statistics of 16-bit floats are float32.
    """
    dims = _check_channels(input, weight=weight, bias=bias)
    x = _wide(input)
    mean = _mean(x, dims)
    centred = p.sub(x, _per_channel(mean, x.shape))
    var = _mean(p.mul(centred, centred), dims)
    y = p.mul(centred, _per_channel(_rstd(var, eps), x.shape))
    return convert(_scaled(y, weight, bias), input.dtype), mean, var


@batch_norm_train.vjp
def batch_norm_train_vjp(g, output, input, weight, eps):
    """rstd weight (g - mean(g) - y mean(g y)), y being the normalized input; the statistics' own
    gradients come on top."""
    _, mean, var = output
    x, dims = _wide(input), tuple(d for d in range(input.ndim) if d != 1)
    rstd = _rstd(var, eps)
    centred = p.sub(x, _per_channel(mean, x.shape))
    count = math.prod(x.shape[d] for d in dims)
    to_input = to_weight = to_bias = None
    if g[0] is not None:
        grad = _wide(g[0])
        y = p.mul(centred, _per_channel(rstd, x.shape))
        to_bias, to_weight = p.reduce_sum(grad, dims), p.reduce_sum(p.mul(grad, y), dims)
        share = size_constant(count, to_bias)
        shift = _per_channel(p.div(to_bias, share), x.shape)
        along = _per_channel(p.div(to_weight, share), x.shape)
        scale = rstd if weight is None else p.mul(rstd, _wide(weight))
        to_input = p.mul(_per_channel(scale, x.shape), p.sub(p.sub(grad, shift), p.mul(y, along)))
    if g[1] is not None:
        part = p.div(g[1], size_constant(count, g[1]))
        to_input = _plus(to_input, _per_channel(part, x.shape))
    if g[2] is not None:
        part = p.div(g[2], size_constant(count / 2, g[2]))
        to_input = _plus(to_input, p.mul(centred, _per_channel(part, x.shape)))
    return [to_input, to_weight, to_bias]


def _plus(a: Value | None, b: Value) -> Value:
    return b if a is None else p.add(a, b)


def _eval_samples():
    mean, var = Arr((3,), requires_grad=False), Arr((3,), None, 0.1, 2, requires_grad=False)
    yield sample(Arr((5, 3)), mean, var)
    yield sample(Arr((2, 3, 17)), mean, var, Arr((3,)), Arr((3,)))
    yield sample(Arr((4, 3, 5, 6)), mean, var, Arr((3,)), Arr((3,)), 0.1)


@op(name="batch_norm_eval", opmath=False, method=False, out=False, public=(), check=_one_width,
    samples=_eval_samples, grad="NativeBatchNormBackward0")
def batch_norm_eval(input: Tensor, running_mean: Tensor, running_var: Tensor,
                    weight: Tensor | None = None, bias: Tensor | None = None,
                    eps: Number = 1e-5):
    """(input - running_mean) / sqrt(running_var + eps) * weight + bias per channel."""
    _check_channels(input, running_mean=running_mean, running_var=running_var, weight=weight,
                    bias=bias)
    x = _wide(input)
    centred = p.sub(x, _per_channel(convert(running_mean, x.dtype), x.shape))
    rstd = _rstd(convert(running_var, x.dtype), eps)
    y = p.mul(centred, _per_channel(rstd, x.shape))
    return convert(_scaled(y, weight, bias), input.dtype)


def _running_samples():
    yield sample(Arr((3,)), Arr((3,), None, 0.1, 2), Arr((3,)), Arr((3,), None, 0.1, 2), 10, 0.1)


@op(name="_running_statistics", returns=("running_mean", "running_var"),
    mutates=("running_mean", "running_var"), method=False, out=False,
    public=(), samples=_running_samples, differentiable=False)
def _running_statistics(running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor,
                        count: int, momentum: Number):
    """The running statistics moved by `momentum` towards those of a batch.

    `var` is the biased variance of `count` elements per channel; the running one is unbiased.
    """
    factor = count / max(1, count - 1)
    batch_var = p.mul(var, size_constant(factor, var))
    return (_towards(running_mean, mean, momentum), _towards(running_var, batch_var, momentum))


def _towards(old: Value, new: Value, momentum: Value) -> Value:
    """(1 - momentum) old + momentum new"""
    rate = beside(momentum, old)
    new = p.mul(convert(new, old.dtype), rate)
    return p.add(new, p.mul(old, p.sub(e.like(1, rate), rate)))


# --------------------------------------------------------------------------- groups of channels
def _group_samples():
    yield sample(Arr((2, 6)), 3)
    yield sample(Arr((2, 6, 5)), 3, Arr((6,)), Arr((6,)))
    yield sample(Arr((2, 6, 4, 5)), 2, Arr((6,)), Arr((6,)), 0.1)
    yield sample(Arr((2, 6, 4)), 6, Arr((6,)))


FEW_MEMBERS = 8  # of a group; fewer channels side by side in memory do not fill a register


class _Groups:
    """Statistics over groups of neighbouring channels and all places, per sample."""

    def __init__(self, shape: tuple[int, ...], groups: int):
        self.shape, self.groups = shape, groups
        self.members = shape[1] // max(1, groups)
        self.places = tuple(range(2, len(shape)))
        self.count = self.members * math.prod(shape[2:])

    def mean(self, sums: Value) -> Value:
        """The mean of every group (n, g), from sums over the places (n, c)."""
        members = p.reshape(sums, (self.shape[0], self.groups, self.members))
        total = p.reduce_sum(members, (2,))
        return p.div(total, size_constant(self.count, total))

    def wide(self, values: Value) -> Value:
        """One value per group, like x."""
        each = p.unreduce(values, (*values.shape, self.members), (2,))
        return p.unreduce(p.reshape(each, self.shape[:2]), self.shape, self.places)

    def statistics(self, x: Value, eps: object) -> tuple[Value, Value]:
        """(mean, 1 / standard deviation) of every group (n, g)."""
        if self.members < FEW_MEMBERS:
            mean = self.mean(p.reduce_sum(x, self.places))
            centred = p.sub(x, self.wide(mean))
            square = p.mul(centred, centred)
            return mean, _rstd(self.mean(p.reduce_sum(square, self.places)), eps)
        split = (self.shape[0], self.groups, self.members, *self.shape[2:])
        x, inner = p.reshape(x, split), tuple(range(2, len(split)))
        mean = _mean(x, inner, self.count)
        centred = p.sub(x, p.unreduce(mean, split, inner))
        return mean, _rstd(_mean(p.mul(centred, centred), inner, self.count), eps)

    def standard(self, x: Value, eps: object) -> tuple[Value, Value]:
        """(x with mean 0 and variance 1 in every group, 1 / standard deviation), both like x."""
        mean, rstd = self.statistics(x, eps)
        rstd = self.wide(rstd)
        return p.mul(p.sub(x, self.wide(mean)), rstd), rstd


@op(method=False, out=False, public=("torch", "nn.functional"), samples=_group_samples,
    grad="NativeGroupNormBackward0", check=_one_dtype)
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: Number = 1e-5):
    """(input - mean) / sqrt(variance + eps) * weight + bias, over groups of channels per sample.

    weight and bias have one element per channel (dimension 1).

    >>> torch.group_norm(torch.tensor([[1., 3., 0., 8.]]), 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    _check_groups(input, num_groups, weight, bias)
    y, _ = _Groups(input.shape, num_groups).standard(input, eps)
    return _scaled(y, weight, bias)


def _check_groups(x: Value, groups: int, weight: Value | None, bias: Value | None) -> None:
    if x.ndim < 2:
        raise RuntimeError("Expected at least 2 dimensions for input tensor but received "
                           f"{x.ndim}")
    if groups <= 0 or x.shape[1] % groups:
        raise RuntimeError("Expected number of channels in input to be divisible by num_groups, "
                           f"but got input of shape {list(x.shape)} and num_groups={groups}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != (x.shape[1],):
            raise RuntimeError(f"Expected {name} to be a vector of size equal to the number of "
                               f"channels in input, but got {name} of shape "
                               f"{list(value.shape)} and input of shape {list(x.shape)}")
    floats_only("GroupNormKernelImpl", x)


@group_norm.vjp
def group_norm_vjp(g, input, num_groups, weight, eps):
    """rstd (h - mean(h) - y mean(h y)) per group, h = g weight and y the normalized input. The
    means and the weight's gradient come from the same sums over the places of each channel."""
    groups = _Groups(input.shape, num_groups)
    y, rstd = groups.standard(input, eps)
    sums, along = p.reduce_sum(g, groups.places), p.reduce_sum(p.mul(g, y), groups.places)
    mean_h, mean_hy = (groups.wide(groups.mean(_scaled(each, weight, None)))
                       for each in (sums, along))
    to_input = p.mul(rstd, p.sub(p.sub(_scaled(g, weight, None), mean_h), p.mul(y, mean_hy)))
    return [to_input, p.reduce_sum(along, (0,)), p.reduce_sum(sums, (0,))]


def _instance_samples():
    yield sample(Arr((2, 3, 5)))
    yield sample(Arr((2, 3, 4, 5)), Arr((3,)), Arr((3,)), 0.1)


@op(name="instance_norm_train", returns=("output", "mean", "var"), method=False, out=False,
    public=(), samples=_instance_samples, grad="ViewBackward0", check=_one_dtype)
def instance_norm_train(input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
                        eps: Number = 1e-5):
    """Every channel of every sample normalized over its places; and the statistics' batch means.

    The second and third results (one per channel, the variance biased) feed running statistics.
    """
    _check_channels(input, weight=weight, bias=bias)
    places = tuple(range(2, input.ndim))
    mean = _mean(input, places)
    centred = p.sub(input, p.unreduce(mean, input.shape, places))
    var = _mean(p.mul(centred, centred), places)
    y = p.mul(centred, p.unreduce(_rstd(var, eps), input.shape, places))
    return _scaled(y, weight, bias), _mean(mean, (0,)), _mean(var, (0,))


# --------------------------------------------------------------------------- by a norm
def _normalize_samples():
    yield sample(Arr((3, 4)))
    yield sample(Arr((2, 3, 17)), 2.0, -1)
    yield sample(Arr((3, 4)), 1.0, 0)
    yield sample(Arr((3, 4)), 3.0)
    yield sample(Arr((3, 4)), math.inf)


@op(method=False, public=FUNCTIONAL, samples=_normalize_samples, grad="DivBackward0")
def normalize(input: Tensor, p: float = 2.0, dim: int | tuple = 1, eps: float = 1e-12):
    """input / max(its p-norm along `dim`, eps).

    >>> F.normalize(torch.tensor([[3., 4.], [0., 0.]]), dim=1)
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return _normalized(input, p, dim, eps)


def _normalized(x: Value, degree: float, dim, eps: float) -> Value:
    floats_only("linalg.vector_norm", x)
    dims = normalize_dims(dim, x.ndim)
    size = p.abs_(x)
    if degree == 2:
        square = p.reduce_sum(p.mul(size, size) if x.dtype.is_complex else p.mul(x, x), dims)
        norm = p.sqrt(p.maximum(square, e.like(eps * eps, square)))  # no 0 / 0 in the gradient
    elif degree in (math.inf, 1):
        norm = (p.reduce_sum if degree == 1 else p.reduce_max)(size, dims)
        norm = p.maximum(norm, e.like(eps, norm))
    elif not degree:
        norm = how_many(size, dims)
        norm = p.maximum(norm, e.like(eps, norm))
    else:
        total = p.reduce_sum(p.pow_(size, e.like(degree, size)), dims)
        norm = p.pow_(total, e.like(1 / degree, total))
        norm = p.maximum(norm, e.like(eps, norm))
    return p.div(x, convert(p.unreduce(norm, x.shape, dims), x.dtype))


@op(method=False, out=False, public=FUNCTIONAL, grad="DivBackward0",
    samples=lambda: iter([sample(Arr((2, 5, 4)), 2), sample(Arr((2, 5, 3, 4)), 3, 0.5, 0.5, 2.0)]))
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75,
                        k: float = 1.0):
    """input / (k + alpha * mean of squares over `size` neighbouring channels)^beta.

    >>> F.local_response_norm(torch.tensor([[[1.], [2.], [3.]]]), size=3, alpha=3., beta=1.)
    tensor([[[0.1667],
             [0.1333],
             [0.2143]]])
    """
    if input.ndim < 3:
        raise ValueError("Expected 3D or higher dimensionality input (got "
                         f"{input.ndim} dimensions)")
    if input.numel == 0:
        return p.stop_copy(input)
    last = (0, *range(2, input.ndim), 1)  # channels last: windows run over the last dimension
    squares = p.permute(p.mul(input, input), last)
    channels, front = input.shape[1], size // 2
    starts = (0,) * (input.ndim - 1) + (front,)
    shape = (*squares.shape[:-1], channels + size - 1)
    squares = p.spread(squares, starts, (1,) * input.ndim, shape)
    windows = p.window(squares, (size,), (1,), (1,))
    if input.dtype.is_integral:  # as PyTorch: the mean is rounded down
        total = p.reduce_sum(windows, (input.ndim,))
        mean = e.default_float(p.idiv(total, e.like(size, total)))
        input = e.default_float(input)
    else:
        mean = _mean(windows, (input.ndim,))
    back = (0, input.ndim - 1, *range(1, input.ndim - 1))
    base = p.permute(p.add(p.mul(mean, e.like(alpha, mean)), e.like(k, mean)), back)
    return p.div(input, p.pow_(base, e.like(beta, base)))
