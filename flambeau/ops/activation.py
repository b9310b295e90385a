"""Activation functions. All are computed in one kernel; 16-bit floats are computed in float32."""

from __future__ import annotations

from flambeau.core.shapes import normalize_dim, normalize_dims
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.primitives import convert
from flambeau.ops.record import Number, Tensor, lift, op
from flambeau.ops.samples import Arr, sample, unary

FUNCTIONAL = ("nn.functional",)
BOTH = ("torch", "nn.functional")
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017
SQRT_HALF, SQRT_TWO_OVER_PI = 0.7071067811865476, 0.7978845608028654
GELU_CUBIC = 0.044715  # Hendrycks & Gimpel 2016


def beside(number: object, x: Value) -> Value:
    """A number (or 0-d value) with the shape and dtype of `x`."""
    return p.expand(convert(lift(number), x.dtype), x.shape)


def floats_only(kernel: str, x: Value) -> None:
    """Refuse integers as PyTorch does, naming its kernel."""
    if x.dtype.is_integral:
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{x.dtype.scalar_name}': the "
                                  "input must be floating point, convert it with "
                                  ".to(torch.float32)")


def _between(x: Value, low: Value, high: Value) -> Value:
    """low < x < high."""
    return p.logical_and(p.gt(x, low), p.lt(x, high))


def _pass(condition: Value, g: Value) -> Value:
    return p.where(condition, g, p.zero_like(g))


# --------------------------------------------------------------------------- piecewise linear
@op(inplace=True, samples=unary())
def relu(input: Tensor):
    """max(input, 0); NaN stays NaN.

    >>> torch.relu(torch.tensor([-1., 0., 2., float("nan")]))
    tensor([0., 0., 2., nan])
    """
    if input.dtype.kind == "b":
        raise RuntimeError("Boolean inputs not supported for relu")
    return p.maximum(input, p.zero_like(input))


@relu.vjp
def relu_vjp(g, output):
    """g where the output is positive (or NaN)."""
    return p.where(p.le(output, p.zero_like(output)), p.zero_like(g), g)


@op(inplace=True, method=False, out=False, public=FUNCTIONAL, samples=unary(-4, 4))
def hardtanh(input: Tensor, min_val: Number = -1.0, max_val: Number = 1.0):
    """input limited to [min_val, max_val]; no gradient at or beyond the limits."""
    if input.dtype.kind in "bu":
        raise RuntimeError("cannot do hardtanh on an unsigned type with negative limits"
                           if input.dtype.kind == "u" else "Bool inputs not supported for hardtanh")
    return p.minimum(p.maximum(input, beside(min_val, input)), beside(max_val, input))


@hardtanh.vjp
def hardtanh_vjp(g, input, min_val, max_val):
    """g between the limits, and where the input is NaN."""
    outside = p.logical_or(p.le(input, beside(min_val, input)), p.ge(input, beside(max_val, input)))
    return p.where(outside, p.zero_like(g), g)


@op(inplace=True, method=False, out=False, public=FUNCTIONAL, samples=unary(-9, 9),
    grad="HardtanhBackward0")
def relu6(input: Tensor):
    """input limited to [0, 6]."""
    if input.dtype.kind == "u":
        return p.minimum(input, e.like(6, input))
    return hardtanh(input, 0.0, 6.0)


@relu6.vjp
def relu6_vjp(g, input):
    """g between 0 and 6."""
    return hardtanh_vjp(g, input, 0.0, 6.0)


@op(inplace=True, method=False, out=False, public=FUNCTIONAL, samples=unary())
def leaky_relu(input: Tensor, negative_slope: Number = 0.01):
    """input where it is positive, negative_slope * input elsewhere."""
    floats_only("leaky_relu_cpu", input)
    return p.where(p.gt(input, p.zero_like(input)), input,
                   p.mul(input, beside(negative_slope, input)))


def _prelu_samples():
    yield sample(Arr((3, 4)), Arr((4,)))
    yield sample(Arr((2, 3, 5)), Arr((3,)))
    yield sample(Arr((2, 3, 5)), Arr((1,)))
    yield sample(Arr((7,)), Arr(()))


@op(samples=_prelu_samples, out=False, public=BOTH, grad="PreluKernelBackward0")
def prelu(input: Tensor, weight: Tensor):
    """input where it is positive, weight * input elsewhere; one weight, or one per channel.

    >>> torch.prelu(torch.tensor([-2., 3.]), torch.tensor(0.25))
    tensor([-0.5000,  3.0000])
    """
    floats_only("prelu_cpu", input)
    if weight.ndim > 1:
        raise RuntimeError("prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = "
                           f"{weight.ndim}")
    if weight.dtype is not input.dtype:
        raise RuntimeError("prelu: Type promoting not supported. Got "
                           f"{input.dtype!r} and {weight.dtype!r}")
    if weight.numel != 1:
        if input.ndim == 0:
            raise RuntimeError("Not allow zero-dim input tensor.")
        channels = input.shape[1] if input.ndim > 1 else 1
        if weight.numel != channels:
            raise RuntimeError("Mismatch of parameter numbers and input channel size. Found "
                               f"parameter numbers = {weight.numel} and channel size = {channels}.")
    slope = p.reshape(weight, (weight.numel,) + (1,) * max(0, input.ndim - 2)
                      if input.ndim else ())
    slope = p.expand(slope, input.shape)
    zero = p.zero_like(input)
    above = p.gt(input, zero)  # what lies there has no part in the gradient of a weight: 0 inf
    return p.where(above, input, p.mul(slope, p.where(above, zero, input)))


@op(inplace=True, method=False, public=BOTH,
    samples=lambda: iter([sample(Arr((3, 17)), 0.1, 20.0), sample(Arr(()), -1, 0)]))
def threshold(input: Tensor, threshold: Number, value: Number):
    """input where it is above threshold, value elsewhere.

    >>> torch.threshold(torch.tensor([-1., 0.5, 2.]), 1.0, -5.0)
    tensor([-5., -5.,  2.])
    """
    if input.dtype.kind == "b":
        floats_only("threshold_cpu", input)
    return p.where(p.le(input, beside(threshold, input)), beside(value, input), input)


@op(method=False, out=False, public=FUNCTIONAL, inplace=True, samples=unary(-5, 5))
def hardsigmoid(input: Tensor):
    """min(max(input + 3, 0), 6) / 6."""
    floats_only("hardsigmoid_cpu", input)
    zero, three, six = p.zero_like(input), e.like(3, input), e.like(6, input)
    return p.div(p.minimum(p.maximum(p.add(input, three), zero), six), six)


@hardsigmoid.vjp
def hardsigmoid_vjp(g, input):
    """g / 6 between -3 and 3."""
    inside = _between(input, e.like(-3, input), e.like(3, input))
    return _pass(inside, p.mul(g, e.like(1 / 6, g)))


@op(method=False, out=False, public=FUNCTIONAL, inplace=True, samples=unary(-5, 5))
def hardswish(input: Tensor):
    """input * min(max(input + 3, 0), 6) / 6.

    >>> F.hardswish(torch.tensor([-4., -1., 0., 4.]))
    tensor([-0.0000, -0.3333,  0.0000,  4.0000])
    """
    floats_only("hardswish_cpu", input)
    zero, three, six = p.zero_like(input), e.like(3, input), e.like(6, input)
    gate = p.minimum(p.maximum(p.add(input, three), zero), six)
    return p.mul(input, p.div(gate, six))


@hardswish.vjp
def hardswish_vjp(g, input):
    """g (x / 3 + 1 / 2) between -3 and 3, and 0 and g beyond."""
    three = e.like(3, input)
    slope = p.add(p.div(input, three), e.like(0.5, input))
    below, above = p.le(input, p.neg(three)), p.ge(input, three)
    return p.where(below, p.zero_like(g), p.where(above, g, p.mul(g, slope)))


@op(public=BOTH, samples=lambda: iter([sample(Arr((3, 17))), sample(Arr((5,)), 1.0)]))
def hardshrink(input: Tensor, lambd: Number = 0.5):
    """0 where |input| <= lambd, input elsewhere.

    >>> torch.hardshrink(torch.tensor([-1., 0.3, 2.]))
    tensor([-1.,  0.,  2.])
    """
    floats_only("hardshrink_cpu", input)
    return p.where(_within(input, lambd), p.zero_like(input), input)


@op(method=False, public=FUNCTIONAL,
    samples=lambda: iter([sample(Arr((3, 17))), sample(Arr((5,)), 1.0)]))
def softshrink(input: Tensor, lambd: Number = 0.5):
    """input moved towards 0 by lambd; 0 where |input| <= lambd.

    >>> F.softshrink(torch.tensor([-1., 0.3, 2.]))
    tensor([-0.5000,  0.0000,  1.5000])
    """
    floats_only("softshrink_check", input)
    if lambd.prim.name == "constant" and lambd.attrs[0] < 0:
        raise RuntimeError("lambda must be greater or equal to 0, but found to be "
                           f"{lambd.attrs[0]}.")
    amount = beside(lambd, input)
    moved = p.where(p.gt(input, amount), p.sub(input, amount), p.add(input, amount))
    return p.where(_within(input, lambd), p.mul(input, p.zero_like(input)), moved)


@softshrink.vjp
def softshrink_vjp(g, input, lambd):
    """g outside [-lambd, lambd]."""
    return p.where(_within(input, lambd), p.zero_like(g), g)


def _within(x: Value, limit: object) -> Value:
    """-limit <= x <= limit."""
    limit = beside(limit, x)
    return p.logical_and(p.ge(x, p.neg(limit)), p.le(x, limit))


# --------------------------------------------------------------------------- exponential
def _elu(x: Value, alpha: object, scale: object, input_scale: object) -> Value:
    negative = p.mul(p.expm1(p.mul(x, beside(input_scale, x))),
                     p.mul(beside(alpha, x), beside(scale, x)))
    return p.where(p.le(x, p.zero_like(x)), negative, p.mul(x, beside(scale, x)))


def _elu_vjp(g: Value, x: Value, alpha: object, scale: object, input_scale: object) -> Value:
    rate = beside(input_scale, x)
    slope = p.mul(p.mul(rate, p.mul(beside(alpha, x), beside(scale, x))), p.exp(p.mul(x, rate)))
    return p.mul(g, p.where(p.le(x, p.zero_like(x)), slope, beside(scale, x)))


@op(inplace=True, method=False, out=False, public=FUNCTIONAL, samples=unary())
def elu(input: Tensor, alpha: Number = 1.0):
    """input where it is positive, alpha * (exp(input) - 1) elsewhere."""
    floats_only("elu_cpu", input)
    return _elu(input, alpha, 1.0, 1.0)


@elu.vjp
def elu_vjp(g, input, alpha):
    """alpha exp(x) where x <= 0."""
    return _elu_vjp(g, input, alpha, 1.0, 1.0)


@op(inplace=True, method=False, out=False, public=BOTH, samples=unary(), grad="EluBackward0")
def selu(input: Tensor):
    """ELU scaled so that zero mean and unit variance are kept (Klambauer et al. 2017).

    >>> torch.selu(torch.tensor([-1., 0., 1.]))
    tensor([-1.1113,  0.0000,  1.0507])
    """
    floats_only("elu_cpu", input)
    return _elu(input, SELU_ALPHA, SELU_SCALE, 1.0)


@selu.vjp
def selu_vjp(g, input):
    """See _elu_vjp."""
    return _elu_vjp(g, input, SELU_ALPHA, SELU_SCALE, 1.0)


@op(inplace=True, method=False, out=False, public=BOTH,
    samples=lambda: iter([sample(Arr((3, 17))), sample(Arr((5,)), 0.5)]))
def celu(input: Tensor, alpha: Number = 1.0):
    """input where it is positive, alpha * (exp(input / alpha) - 1) elsewhere (Barron 2017).

    >>> torch.celu(torch.tensor([-2., 0., 3.]))
    tensor([-0.8647,  0.0000,  3.0000])
    """
    floats_only("elu_cpu", input)
    if alpha.prim.name == "constant" and alpha.attrs[0] == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _elu(input, alpha, 1.0, _inverse(alpha, input))


@celu.vjp
def celu_vjp(g, input, alpha):
    """exp(x / alpha) where x <= 0."""
    return _elu_vjp(g, input, alpha, 1.0, _inverse(alpha, input))


def _inverse(number: object, x: Value) -> Value:
    number = convert(lift(number), x.dtype)
    return p.div(e.like(1, number), number)


def _gelu_samples():
    yield from unary(-4, 4)()
    yield sample(Arr((3, 17), None, -4, 4), approximate="tanh")


@op(method=False, public=FUNCTIONAL, samples=_gelu_samples)
def gelu(input: Tensor, *, approximate: str = "none"):
    """input * Phi(input), Phi the normal distribution function; or its approximation by tanh.

    >>> F.gelu(torch.tensor([-1., 0., 1.]))
    tensor([-0.1587,  0.0000,  0.8413])
    >>> F.gelu(torch.tensor([-1., 0., 1.]), approximate="tanh")
    tensor([-0.1588,  0.0000,  0.8412])
    """
    floats_only("GeluKernelImpl", input)
    half, one = e.like(0.5, input), e.like(1, input)
    if approximate == "none":
        inner = p.erf(p.mul(input, e.like(SQRT_HALF, input)))
    elif approximate == "tanh":
        cube = p.mul(p.mul(input, input), input)
        inner = p.tanh(p.mul(e.like(SQRT_TWO_OVER_PI, input),
                             p.add(input, p.mul(e.like(GELU_CUBIC, input), cube))))
    else:
        raise RuntimeError("approximate argument must be either none or tanh.")
    return p.mul(p.mul(half, input), p.add(one, inner))


@op(method=False, out=False, public=FUNCTIONAL, inplace=True, samples=unary(-4, 4))
def silu(input: Tensor):
    """input * sigmoid(input)."""
    floats_only("silu_cpu", input)
    if input.dtype.is_complex:
        return p.mul(input, p.sigmoid(input))  # e.g. where exp(-input) overflows
    return p.silu(input)


def softplus_of(x: Value) -> Value:
    """log(1 + exp(x)) without overflow."""
    return p.softplus(x)


@op(method=False, out=False, public=FUNCTIONAL, inplace=True, samples=unary(-4, 4))
def mish(input: Tensor):
    """input * tanh(log(1 + exp(input))) (Misra 2019)."""
    floats_only("mish_cpu", input)
    return p.mish(input)


@mish.vjp
def mish_vjp(g, input):
    """tanh(softplus) + x sigmoid (1 - tanh(softplus)^2), written to be smooth for every order."""
    gate = mish_gate(input)
    rest = p.sub(e.like(1, gate), p.mul(gate, gate))
    return p.mul(g, p.add(gate, p.mul(p.mul(input, p.sigmoid(input)), rest)))


def mish_gate(x: Value) -> Value:
    """tanh(log(1 + exp(x))) as a quotient of polynomials in u = sigmoid(-x), which has no kink:
    with e = exp(softplus) = 1 / u it is (e^2 - 1) / (e^2 + 1)."""
    u = p.sigmoid(p.neg(x))
    square, one = p.mul(u, u), e.like(1, x)
    return p.div(p.mul(p.sigmoid(x), p.add(one, u)), p.add(one, square))


def _softplus_samples():
    yield from unary(-4, 4)()
    yield sample(Arr((17,), None, -4, 4), 2.0, 4.0)


@op(method=False, public=FUNCTIONAL, samples=_softplus_samples)
def softplus(input: Tensor, beta: Number = 1.0, threshold: Number = 20.0):
    """log(1 + exp(beta * input)) / beta, and the input itself where beta * input > threshold.

    >>> F.softplus(torch.tensor([-1., 0., 30.]))
    tensor([ 0.3133,  0.6931, 30.0000])
    """
    floats_only("softplus_cpu", input)
    scaled = p.mul(input, beside(beta, input))
    soft = p.div(softplus_of(scaled), beside(beta, input))
    return p.where(p.gt(scaled, beside(threshold, input)), input, soft)


@softplus.vjp
def softplus_vjp(g, input, beta, threshold):
    """g sigmoid(beta x), and g beyond the threshold."""
    scaled = p.mul(input, beside(beta, input))
    return p.where(p.gt(scaled, beside(threshold, input)), g, p.mul(g, p.sigmoid(scaled)))


@op(method=False, public=FUNCTIONAL, samples=unary(-4, 4), grad="LogSigmoidBackward0")
def logsigmoid(input: Tensor):
    """log(sigmoid(input)) without overflow.

    >>> F.logsigmoid(torch.tensor([-200., 0., 200.]))
    tensor([-200.0000,   -0.6931,    0.0000])
    """
    floats_only("log_sigmoid_cpu", input)
    return p.sub(e.like(0, input), softplus_of(p.neg(input)))  # 0 and not -0 for large inputs


@logsigmoid.vjp
def logsigmoid_vjp(g, input):
    """g sigmoid(-x)."""
    return p.mul(g, p.sigmoid(p.neg(input)))


@op(method=False, out=False, public=FUNCTIONAL, samples=unary(), grad="DivBackward0")
def softsign(input: Tensor):
    """input / (1 + |input|).

    >>> F.softsign(torch.tensor([-1., 0., 3.]))
    tensor([-0.5000,  0.0000,  0.7500])
    """
    x, size = e.default_float(input), p.abs_(e.default_float(input))
    return e.true_divide(x, p.add(e.like(1, size), size))


@op(method=False, out=False, public=FUNCTIONAL, samples=unary(), grad="SubBackward0")
def tanhshrink(input: Tensor):
    """input - tanh(input).

    >>> F.tanhshrink(torch.tensor([-1., 0., 1.]))
    tensor([-0.2384,  0.0000,  0.2384])
    """
    x = e.default_float(input)
    return p.sub(x, p.tanh(x)) if x.dtype.is_complex else _tanhshrink(x)


# (x - tanh(x)) / x**3 as a polynomial in x**2, |x| <= 1: 2**-52
_TANHSHRINK = (
    0.33333333333333326, -0.13333333333330813, 0.05396825396636394, -0.02186948847999737,
    0.00886323465252544, -0.0035921197425441464, 0.0014557829138450453, -0.0005898067307783174,
    0.00023845344045191568, -9.540778823530722e-05, 3.679721325874468e-05, -1.2889423623414145e-05,
    3.6986096809521603e-06, -7.386981472384082e-07, 7.41114097654018e-08)


def _tanhshrink(x: Value) -> Value:
    """x - tanh(x), near 0 by a series: the difference would have no digits left."""
    square = p.mul(x, x)
    series = e.like(_TANHSHRINK[-1], x)
    for c in reversed(_TANHSHRINK[:-1]):
        series = p.add(p.mul(series, square), e.like(c, x))
    near = p.mul(p.mul(x, square), series)
    return p.where(p.lt(p.abs_(x), e.like(1, x)), near, p.sub(x, p.tanh(x)))


@tanhshrink.vjp
def tanhshrink_vjp(g, input):
    """g tanh(x)^2."""
    slope = p.tanh(e.default_float(input))
    return p.mul(g, p.conj(p.mul(slope, slope)))


def _glu_samples():
    yield sample(Arr((3, 4)))
    yield sample(Arr((4, 3, 2)), 0)


@op(method=False, out=False, public=FUNCTIONAL, order="first", samples=_glu_samples)
def glu(input: Tensor, dim: int = -1):
    """a * sigmoid(b), where a and b are the halves of the input along `dim`.

    >>> F.glu(torch.tensor([1., 2., 0., 100.]))
    tensor([0.5000, 2.0000])
    """
    floats_only("glu_cpu", input)
    if input.ndim == 0:
        raise RuntimeError("glu does not support scalars because halving size must be even")
    at = normalize_dim(dim, input.ndim)
    size = input.shape[at]
    if size % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {at} is size {size}")
    a = p.slice_dim(input, at, 0, 1, size // 2)
    b = p.slice_dim(input, at, size // 2, 1, size // 2)
    return p.mul(a, p.sigmoid(b))


# --------------------------------------------------------------------------- softmax
def _softmax_samples():
    yield sample(Arr((3, 4)), 1)
    yield sample(Arr((2, 3, 17)), -2)
    yield sample(Arr((300,), None, -30, 30), 0)
    yield sample(Arr(()), 0)
    yield sample(Arr((0, 3)), 1)
    yield sample(Arr((3, 0)), 1)


def shifted(x: Value, dims) -> Value:
    """x minus its maximum over dims (not differentiated), so that exp never overflows."""
    top = p.stop_gradient(p.reduce_max(x, dims))
    return p.sub(x, p.unreduce(top, x.shape, dims))


@op(samples=_softmax_samples, public=("torch",))
def softmax(input: Tensor, dim: int, dtype: object = None):
    """exp(input) / sum(exp(input)) along `dim`; `dtype` converts the input first.

    >>> torch.softmax(torch.tensor([[1., 2., 3.], [1., 1., 1.]]), dim=1)
    tensor([[0.0900, 0.2447, 0.6652],
            [0.3333, 0.3333, 0.3333]])
    """
    x = input if dtype is None else convert(input, dtype)
    floats_only("softmax_lastdim_kernel_impl", x)
    dims = normalize_dims(dim, x.ndim)
    exps = p.exp(shifted(x, dims))
    total = p.reduce_sum(exps, dims)  # at least 1: its inverse is a normal number
    return p.mul(exps, p.unreduce(p.div(e.like(1, total), total), x.shape, dims))


@softmax.vjp
def softmax_vjp(g, output, dim):
    """y (g - <g, y>)"""
    dims = normalize_dims(dim, g.ndim)
    inner = p.reduce_sum(p.mul(g, output), dims)
    return p.mul(output, p.sub(g, p.unreduce(inner, g.shape, dims)))


@op(samples=_softmax_samples, public=("torch",))
def log_softmax(input: Tensor, dim: int, dtype: object = None):
    """input - log(sum(exp(input))) along `dim`; `dtype` converts the input first.

    >>> torch.log_softmax(torch.tensor([0., 0.]), dim=0)
    tensor([-0.6931, -0.6931])
    """
    x = input if dtype is None else convert(input, dtype)
    floats_only("log_softmax_lastdim_kernel_impl", x)
    return log_probabilities(x, normalize_dims(dim, x.ndim))


def log_probabilities(x: Value, dims) -> Value:
    """log_softmax over dims."""
    x = shifted(x, dims)
    return p.sub(x, p.unreduce(p.log(p.reduce_sum(p.exp(x), dims)), x.shape, dims))


@log_softmax.vjp
def log_softmax_vjp(g, output, dim):
    """g - softmax sum(g)"""
    dims = normalize_dims(dim, g.ndim)
    return p.sub(g, p.mul(p.exp(output), p.unreduce(p.reduce_sum(g, dims), g.shape, dims)))


@op(samples=_softmax_samples, method=False, out=False, public=FUNCTIONAL, grad="SoftmaxBackward0")
def softmin(input: Tensor, dim: int, dtype: object = None):
    """softmax(-input) along `dim`."""
    return softmax(p.neg(input), dim, dtype)


@softmin.vjp
def softmin_vjp(g, output, dim):
    """-y (g - <g, y>)"""
    return p.neg(softmax_vjp(g, output, dim))
