"""Contractions on the GEMM micro-kernel, and the random streams."""

from __future__ import annotations

from flambeau.ir.graph import Primitive, Value
from flambeau.ops.primitives.elementwise import conj
from flambeau.ops.primitives.structure import PERMUTE, permute, reduce_sum, slice_


def _infer_dot(inputs, attrs):
    a, b = inputs
    return a.shape[:-1] + b.shape[-1:], a.dtype


DOT = Primitive("dot", "dot", _infer_dot)


def dot(a: Value, b: Value) -> Value:
    """Batched matrix product (..., m, k) x (..., k, n) -> (..., m, n); batch shapes are equal."""
    return DOT(a, b)


def transpose(x: Value) -> Value:
    """Swap the last two dimensions."""
    order = list(range(x.ndim))
    order[-2:] = order[-1], order[-2]
    return permute(x, order)


@DOT.vjp
def dot_vjp(node, g):
    from flambeau.ops.primitives.elementwise import conj

    a, b = node.inputs
    turned = transpose(g)
    if _is_transposed(a):  # the gradient of what was transposed, in its own layout
        to_a = transpose(dot(conj(b), turned))
    else:
        to_a = dot(g, transpose(conj(b)))
    if _is_transposed(b):
        return to_a, transpose(dot(turned, conj(a)))
    return to_a, dot(transpose(conj(a)), g)


def _is_transposed(x: Value) -> bool:
    order = list(range(x.ndim))
    order[-2:] = order[-1], order[-2]
    return x.prim is PERMUTE and x.attrs[0] == tuple(order)


def _infer_conv(inputs, attrs):
    x, w = inputs[:2]
    stride, padding, dilation, _ = attrs
    spatial = tuple(
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation,
                                    strict=True))
    return (x.shape[0], w.shape[0]) + spatial, x.dtype


def _infer_given_shape(inputs, attrs):
    return attrs[4], inputs[0].dtype


CONV = Primitive("conv", "conv", _infer_conv)
CONV_GRAD_INPUT = Primitive("conv_grad_input", "conv", _infer_given_shape)
CONV_GRAD_WEIGHT = Primitive("conv_grad_weight", "conv", _infer_given_shape)


def conv(x: Value, w: Value, stride, padding, dilation, groups: int,
         bias: Value | None = None) -> Value:
    """Cross-correlation: x (n, c_in, *spatial), w (c_out, c_in / groups, *kernel), bias (c_out)."""
    inputs = (x, w) if bias is None else (x, w, bias)
    return CONV(*inputs, attrs=(tuple(stride), tuple(padding), tuple(dilation), groups))


def conv_grad_input(g: Value, w: Value, geometry, shape) -> Value:
    """The gradient of `conv` with respect to x of shape `shape`; also transposed convolution."""
    return CONV_GRAD_INPUT(g, w, attrs=(*geometry, tuple(shape)))


def conv_grad_weight(g: Value, x: Value, geometry, shape) -> Value:
    """The gradient of `conv` with respect to w, whose shape is `shape`."""
    return CONV_GRAD_WEIGHT(g, x, attrs=(*geometry, tuple(shape)))


# The three are the partial derivatives of one trilinear form <g, conv(x, w)>, so they close over
# one another under differentiation.
@CONV.vjp
def conv_vjp(node, g):
    x, w, *bias = node.inputs
    to_bias = (reduce_sum(g, [d for d in range(g.ndim) if d != 1]),) if bias else ()
    return (conv_grad_input(g, conj(w), node.attrs, x.shape),
            conv_grad_weight(g, conj(x), node.attrs, w.shape), *to_bias)


@CONV_GRAD_INPUT.vjp
def conv_grad_input_vjp(node, h):
    g, w = node.inputs
    geometry = node.attrs[:4]
    return (_cropped(conv(h, conj(w), *geometry), g.shape),
            conv_grad_weight(conj(g), h, geometry, w.shape))


def _cropped(y: Value, shape) -> Value:
    """Without the places that a transposed convolution's output padding made."""
    return slice_(y, (0,) * y.ndim, (1,) * y.ndim, shape)


@CONV_GRAD_WEIGHT.vjp
def conv_grad_weight_vjp(node, h):
    g, x = node.inputs
    geometry = node.attrs[:4]
    return (_cropped(conv(conj(x), h, *geometry), g.shape),
            conv_grad_input(conj(g), h, geometry, x.shape))


# --------------------------------------------------------------------------- random streams
def _infer_random(inputs, attrs):
    return attrs[1], attrs[2]


RANDOM = Primitive("random", "random", _infer_random)
RANDOM.differentiable = False


def random_fill(kind: str, shape, dtype, params: tuple, generator, after: Value | None) -> Value:
    """The next numbers of a generator's stream. `after` is the fill that must come before."""
    inputs = () if after is None else (after,)
    return RANDOM(*inputs, attrs=(kind, tuple(shape), dtype, tuple(params), generator))


@RANDOM.vjp
def random_vjp(node, g):
    return (None,) * len(node.inputs)
