"""Elementwise primitives.

`emit(k, dtype, *registers)` writes one operation on a register of lanes: `k.f` is the emitter,
`k.math(name, ...)` the vector mathematics. Registers hold bool as i1, the 16-bit floats as float,
everything else as itself; complex numbers are split into parts before emission.
"""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Primitive, Value, constant
from flambeau.ops.primitives.structure import expand, infer_same

ELEMENTWISE: dict[str, Primitive] = {}


def _infer_bool(inputs, attrs):
    return inputs[0].shape, dtypes.bool_


def _infer_real(inputs, attrs):
    return inputs[0].shape, inputs[0].dtype.to_real()


def _infer_cast(inputs, attrs):
    for dtype in (attrs[0], inputs[0].dtype):
        if dtype.kind in "Vq":
            advice = ("its elements are only bits, which .view(dtype) reinterprets"
                      if dtype.kind == "V" else "torch.quantize_per_tensor makes such tensors, "
                      ".dequantize() leads back")
            raise NotImplementedError(f"\"copy_\" not implemented for '{dtype.scalar_name}': "
                                      f"{advice}")
    return inputs[0].shape, attrs[0]


def _infer_where(inputs, attrs):
    return inputs[1].shape, inputs[1].dtype


def _define(name: str, infer, emit, cost: int = 1) -> Primitive:
    made = Primitive(name, "elementwise", infer, emit, cost)
    ELEMENTWISE[name] = made
    return made


def filled(value: float, like: Value) -> Value:
    """The constant `value` with the shape and dtype of `like`."""
    return expand(constant(value, like.dtype, number=False), like.shape)


# --------------------------------------------------------------------------- emission helpers
def _emitter(float_op: str, int_op: str | None, bool_op: str | None = None):
    """Emission by kind of dtype; an absent kind cannot occur (ops refuse it)."""

    def emit(k, dtype: DType, a, b):
        word = {"f": float_op, "b": bool_op}.get(dtype.kind, int_op)
        return k.f.op(word, a, b)

    return emit


def _math_emitter(name: str):
    def emit(k, dtype: DType, *args):
        return k.math(name, *args)

    return emit


def _math(name: str, cost: int = 12) -> Primitive:
    return _define(name, infer_same, _math_emitter(name), cost)


def _intrinsic(name: str, intrinsic: str) -> Primitive:
    def emit(k, dtype: DType, a):
        return a if dtype.is_integral else k.f.intrinsic(intrinsic, a.type, a)

    return _define(name, infer_same, emit)


def _compare(name: str, float_word: str, signed_word: str, unsigned_word: str) -> Primitive:
    def emit(k, dtype: DType, a, b):
        word = {"f": float_word, "i": signed_word}.get(dtype.kind, unsigned_word)
        return k.f.cmp(word, a, b)

    made = _define(name, _infer_bool, emit)
    made.differentiable = False
    return made


def zero_like(x: Value) -> Value:
    """Zeros of the shape and dtype of `x`."""
    return filled(0, x)


# --------------------------------------------------------------------------- arithmetic
add = _define("add", infer_same, _emitter("fadd", "add", "or"))
sub = _define("sub", infer_same, _emitter("fsub", "sub", "xor"))
mul = _define("mul", infer_same, _emitter("fmul", "mul", "and"))
div = _define("div", infer_same, _emitter("fdiv", None), 4)


@add.vjp
def add_vjp(node, g):
    return g, g


@sub.vjp
def sub_vjp(node, g):
    return g, neg(g)


@mul.vjp
def mul_vjp(node, g):
    a, b = node.inputs
    return mul(g, conj(b)), mul(g, conj(a))


@div.vjp
def div_vjp(node, g):
    a, b = node.inputs
    return div(g, conj(b)), neg(mul(g, conj(div(div(a, b), b))))


def _emit_neg(k, dtype, a):
    return k.f.fneg(a) if dtype.kind == "f" else k.f.sub(k.f.const(0, a.type), a)


def _emit_abs(k, dtype, a):
    if dtype.kind == "f":
        return k.f.intrinsic("llvm.fabs", a.type, a)
    if dtype.kind != "i":
        return a
    return k.f.select(k.f.cmp("slt", a, 0), k.f.sub(k.f.const(0, a.type), a), a)


def _emit_sign(k, dtype, a):
    zero, one = k.f.const(0, a.type), k.f.const(1, a.type)
    if dtype.kind == "b":
        return a
    if dtype.kind == "u":
        return k.f.select(k.f.cmp("eq", a, zero), zero, one)
    greater, less = ("ogt", "olt") if dtype.kind == "f" else ("sgt", "slt")
    negative = k.f.select(k.f.cmp(less, a, zero), k.f.const(-1, a.type), zero)
    return k.f.select(k.f.cmp(greater, a, zero), one, negative)


neg = _define("neg", infer_same, _emit_neg)
abs_ = _define("abs", _infer_real, _emit_abs)
sign = _define("sign", infer_same, _emit_sign)
floor = _intrinsic("floor", "llvm.floor")
ceil = _intrinsic("ceil", "llvm.ceil")
trunc = _intrinsic("trunc", "llvm.trunc")
round_ = _intrinsic("round", "llvm.rint")
sqrt = _define("sqrt", infer_same, _intrinsic("sqrt", "llvm.sqrt").emit, 8)


@neg.vjp
def neg_vjp(node, g):
    return (neg(g),)


@abs_.vjp
def abs_vjp(node, g):
    (x,) = node.inputs
    if x.dtype.is_complex:
        scale = where(ne(node, zero_like(node)), div(g, node), zero_like(node))
        return (mul(cast(scale, attrs=(x.dtype,)), x),)
    return (mul(g, sign(x)),)


@sqrt.vjp
def sqrt_vjp(node, g):
    return (div(g, mul(filled(2, node), conj(node))),)


def _emit_copysign(k, dtype, a, b):
    return k.f.intrinsic("llvm.copysign", a.type, a, b)


copysign = _define("copysign", infer_same, _emit_copysign)


@copysign.vjp
def copysign_vjp(node, g):
    a, b = node.inputs
    same = eq(copysign(filled(1, a), a), copysign(filled(1, b), b))
    return where(eq(a, zero_like(a)), zero_like(g), where(same, g, neg(g))), zero_like(b)


def _zero_gradient(node, g):
    return tuple(zero_like(x) for x in node.inputs)


for _step in (floor, ceil, trunc, round_):
    _step.vjp(_zero_gradient)


@sign.vjp
def sign_vjp(node, g):
    """Of a complex x: only what turns x/|x| counts, what stretches x does not."""
    (x,) = node.inputs
    if not x.dtype.is_complex:
        return (zero_like(x),)
    along = mul(node, cast(real(mul(conj(node), g)), attrs=(x.dtype,)))
    size = cast(abs_(x), attrs=(x.dtype,))
    return (where(eq(x, zero_like(x)), zero_like(x), div(sub(g, along), size)),)

# --------------------------------------------------------------------------- transcendental
exp, exp2, expm1 = _math("exp"), _math("exp2"), _math("expm1", 16)
log, log2, log10, log1p = _math("log"), _math("log2"), _math("log10"), _math("log1p", 16)
sin, cos, tan = _math("sin", 16), _math("cos", 16), _math("tan", 20)
asin, acos, atan = _math("asin", 16), _math("acos", 16), _math("atan", 16)
sinh, cosh, tanh = _math("sinh", 16), _math("cosh", 16), _math("tanh", 14)
asinh, acosh, atanh = _math("asinh", 20), _math("acosh", 20), _math("atanh", 20)
erf, erfc, erfinv = _math("erf", 14), _math("erfc", 20), _math("erfinv", 20)
sigmoid, silu, softplus = _math("sigmoid", 14), _math("silu", 14), _math("softplus", 20)
mish = _math("mish", 20)
lgamma, digamma = _math("lgamma", 40), _math("digamma", 40)
pow_, atan2, fmod = _math("pow", 30), _math("atan2", 24), _math("fmod", 20)

PI, LN2, LN10 = 3.141592653589793, 0.6931471805599453, 2.302585092994046
TWO_OVER_SQRT_PI, SQRT_PI_OVER_2 = 1.1283791670955126, 0.886226925452758


@exp.vjp
def exp_vjp(node, g):
    return (mul(g, conj(node)),)


@exp2.vjp
def exp2_vjp(node, g):
    return (mul(g, conj(mul(node, filled(LN2, node)))),)


@expm1.vjp
def expm1_vjp(node, g):
    return (mul(g, conj(add(node, filled(1, node)))),)


@log.vjp
def log_vjp(node, g):
    return (div(g, conj(node.inputs[0])),)


@log2.vjp
def log2_vjp(node, g):
    return (div(g, conj(mul(node.inputs[0], filled(LN2, node)))),)


@log10.vjp
def log10_vjp(node, g):
    return (div(g, conj(mul(node.inputs[0], filled(LN10, node)))),)


@log1p.vjp
def log1p_vjp(node, g):
    return (div(g, conj(add(node.inputs[0], filled(1, node)))),)


@sin.vjp
def sin_vjp(node, g):
    return (mul(g, conj(cos(node.inputs[0]))),)


@cos.vjp
def cos_vjp(node, g):
    return (neg(mul(g, conj(sin(node.inputs[0])))),)


@tan.vjp
def tan_vjp(node, g):
    return (mul(g, conj(add(filled(1, node), mul(node, node)))),)


def _one_minus_square(x):
    return sub(filled(1, x), mul(x, x))


@asin.vjp
def asin_vjp(node, g):
    return (div(g, conj(sqrt(_one_minus_square(node.inputs[0])))),)


@acos.vjp
def acos_vjp(node, g):
    return (neg(div(g, conj(sqrt(_one_minus_square(node.inputs[0]))))),)


@atan.vjp
def atan_vjp(node, g):
    (x,) = node.inputs
    return (div(g, conj(add(filled(1, x), mul(x, x)))),)


@sinh.vjp
def sinh_vjp(node, g):
    return (mul(g, conj(cosh(node.inputs[0]))),)


@cosh.vjp
def cosh_vjp(node, g):
    return (mul(g, conj(sinh(node.inputs[0]))),)


@tanh.vjp
def tanh_vjp(node, g):
    return (mul(g, conj(_one_minus_square(node))),)


@asinh.vjp
def asinh_vjp(node, g):
    (x,) = node.inputs
    return (div(g, conj(sqrt(add(mul(x, x), filled(1, x))))),)


@acosh.vjp
def acosh_vjp(node, g):
    (x,) = node.inputs
    one = filled(1, x)
    if x.dtype.is_complex:  # sqrt(x*x - 1) would lie on the wrong side of the cut for re x < 0
        return (div(g, conj(mul(sqrt(sub(x, one)), sqrt(add(x, one))))),)
    return (div(g, sqrt(sub(mul(x, x), one))),)


@atanh.vjp
def atanh_vjp(node, g):
    return (div(g, conj(_one_minus_square(node.inputs[0]))),)


@erf.vjp
def erf_vjp(node, g):
    (x,) = node.inputs
    return (mul(g, mul(filled(TWO_OVER_SQRT_PI, x), exp(neg(mul(x, x))))),)


@erfc.vjp
def erfc_vjp(node, g):
    (x,) = node.inputs
    return (neg(mul(g, mul(filled(TWO_OVER_SQRT_PI, x), exp(neg(mul(x, x)))))),)


@erfinv.vjp
def erfinv_vjp(node, g):
    return (mul(g, mul(filled(SQRT_PI_OVER_2, node), exp(mul(node, node)))),)


@sigmoid.vjp
def sigmoid_vjp(node, g):
    return (mul(g, conj(mul(sub(filled(1, node), node), node))),)


@silu.vjp
def silu_vjp(node, g):
    (x,) = node.inputs
    gate = sigmoid(x)
    return (mul(g, add(gate, mul(mul(x, gate), sub(filled(1, x), gate)))),)


@softplus.vjp
def softplus_vjp(node, g):
    return (mul(g, sigmoid(node.inputs[0])),)


@lgamma.vjp
def lgamma_vjp(node, g):
    return (mul(g, digamma(node.inputs[0])),)


@digamma.vjp
def digamma_vjp(node, g):
    return (mul(g, trigamma(node.inputs[0])),)


def trigamma(x: Value) -> Value:
    """The second derivative of lgamma: recurrence up to x + 10, there the asymptotic series
    (Abramowitz & Stegun 6.4.12, 6.4.6), and reflection below 1/2 (6.4.7)."""
    half, one = filled(0.5, x), filled(1, x)
    low = lt(x, half)
    y = where(low, sub(one, x), x)
    total = zero_like(x)
    for k in range(10):
        inverse = div(one, add(y, filled(k, x)))
        total = add(total, mul(inverse, inverse))
    inverse = div(one, add(y, filled(10, x)))
    square = mul(inverse, inverse)
    series = zero_like(x)
    for bernoulli in (-691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6):
        series = mul(square, add(series, filled(bernoulli, x)))
    series = mul(inverse, add(add(one, mul(half, inverse)), series))
    value = add(total, series)
    inside = where(low, x, filled(0.25, x))  # keeps the unused side finite
    ratio = div(filled(PI, x), sin(mul(filled(PI, x), inside)))
    return where(low, sub(mul(ratio, ratio), value), value)


@pow_.vjp
def pow_vjp(node, g):
    x, y = node.inputs
    zero, one = zero_like(x), filled(1, x)
    gx = where(eq(y, zero), zero, mul(g, conj(mul(y, pow_(x, sub(y, one))))))
    log_x = log(where(eq(x, zero), one, x))
    size = real(y) if y.dtype.is_complex else y
    flat = logical_and(eq(x, zero), ge(size, zero_like(size)))  # x**y does not move with y at x = 0
    at_zero = log(x)
    gy = where(flat, zero, mul(g, conj(mul(node, where(eq(x, zero), at_zero, log_x)))))
    return gx, gy


@atan2.vjp
def atan2_vjp(node, g):
    y, x = node.inputs
    norm = add(mul(x, x), mul(y, y))
    scale = where(eq(norm, zero_like(norm)), zero_like(norm), div(g, norm))
    return mul(scale, x), neg(mul(scale, y))


@fmod.vjp
def fmod_vjp(node, g):
    a, b = node.inputs
    return g, neg(mul(g, trunc(div(a, b))))


# --------------------------------------------------------------------------- integer division
def _emit_trunc_div(k, dtype, a, b):
    b = k.nonzero_divisor(a, b, dtype)
    return k.f.op("sdiv" if dtype.kind == "i" else "udiv", a, b)


def _emit_int_remainder(k, dtype, a, b):
    """The remainder with the sign of the dividend."""
    b = k.nonzero_divisor(a, b, dtype, remainder=True)
    return k.f.op("srem" if dtype.kind == "i" else "urem", a, b)


idiv = _define("idiv", infer_same, _emit_trunc_div, 20)
irem = _define("irem", infer_same, _emit_int_remainder, 20)
idiv.differentiable = irem.differentiable = False


# --------------------------------------------------------------------------- extrema
def _emit_extremum(float_name: str, signed_name: str, unsigned_name: str, bool_word: str):
    def emit(k, dtype, a, b):
        if dtype.kind == "b":
            return k.f.op(bool_word, a, b)
        name = {"f": float_name, "i": signed_name}.get(dtype.kind, unsigned_name)
        return k.f.intrinsic(name, a.type, a, b)

    return emit


maximum = _define("maximum", infer_same,
                  _emit_extremum("llvm.maximum", "llvm.smax", "llvm.umax", "or"))
minimum = _define("minimum", infer_same,
                  _emit_extremum("llvm.minimum", "llvm.smin", "llvm.umin", "and"))


@maximum.vjp
def maximum_vjp(node, g):
    return _extremum_gradients(node, g, gt)


@minimum.vjp
def minimum_vjp(node, g):
    return _extremum_gradients(node, g, lt)


def _extremum_gradients(node, g, wins):
    """The winner takes the gradient; equal operands share it."""
    a, b = node.inputs
    zero, half = zero_like(g), mul(g, filled(0.5, g))
    shared = where(eq(a, b), half, zero)
    return where(wins(a, b), g, shared), where(wins(b, a), g, shared)


# --------------------------------------------------------------------------- comparison, logic
eq = _compare("eq", "oeq", "eq", "eq")
ne = _compare("ne", "une", "ne", "ne")
lt = _compare("lt", "olt", "slt", "ult")
le = _compare("le", "ole", "sle", "ule")
gt = _compare("gt", "ogt", "sgt", "ugt")
ge = _compare("ge", "oge", "sge", "uge")


def _bitwise(name: str, word: str) -> Primitive:
    def emit(k, dtype, a, b):
        return k.f.op(word, a, b)

    made = _define(name, infer_same, emit)
    made.differentiable = False
    return made


logical_and = bitwise_and = _bitwise("and", "and")
logical_or = bitwise_or = _bitwise("or", "or")
logical_xor = bitwise_xor = _bitwise("xor", "xor")


def _emit_not(k, dtype, a):
    return k.f.not_(a)


def _emit_shift(left: bool):
    def emit(k, dtype, a, b):
        """Shifts by the width or more give 0, or -1 for negative numbers shifted right."""
        width = dtype.itemsize * 8
        inside = k.f.cmp("ult", b, width)
        amount = k.f.select(inside, b, 0)
        if left:
            return k.f.select(inside, k.f.shl(a, amount), 0)
        if dtype.kind == "u":
            return k.f.select(inside, k.f.lshr(a, amount), 0)
        return k.f.ashr(a, k.f.select(inside, b, width - 1))

    return emit


bitwise_not = _define("not", infer_same, _emit_not)
shift_left = _define("shl", infer_same, _emit_shift(True))
shift_right = _define("shr", infer_same, _emit_shift(False))
bitwise_not.differentiable = shift_left.differentiable = shift_right.differentiable = False


# --------------------------------------------------------------------------- selection, conversion
def _emit_where(k, dtype, condition, a, b):
    return k.f.select(condition, a, b)


def _emit_cast(k, dtype, a):  # the code generator knows both dtypes and converts itself
    raise AssertionError("cast is emitted by the code generator")


where = _define("where", _infer_where, _emit_where)
cast = _define("cast", _infer_cast, _emit_cast)


@where.vjp
def where_vjp(node, g):
    condition, zero = node.inputs[0], zero_like(g)
    return None, where(condition, g, zero), where(condition, zero, g)


@cast.vjp
def cast_vjp(node, g):
    (x,) = node.inputs
    if x.dtype.is_integral:
        return (None,)
    return (cast(g, attrs=(x.dtype,)),)


def convert(x: Value, dtype: DType) -> Value:
    """`x` as `dtype`; `x` itself if it is that already. The result is not a number any more."""
    if x.dtype is dtype:
        if not x.number:
            return x
        if x.prim.name == "constant":
            return constant(x.attrs[0], dtype, number=False)
    made = cast(x, attrs=(dtype,))
    made.number = False
    return made


def _emit_stop(k, dtype, a):
    return a


stop_gradient = _define("stop_gradient", infer_same, _emit_stop, 0)


@stop_gradient.vjp
def stop_gradient_vjp(node, g):
    return (None,)


stop_copy = _define("copy", infer_same, _emit_stop, 0)


boundary = _define("boundary", infer_same, _emit_stop, 0)
"""The input itself, but always stored: keeps a compiled program from fusing across operations."""


in_memory = _define("in_memory", infer_same, _emit_stop, 0)
"""The input itself, stored row-major, as its gradient is: for what other loops read in that order
and many times. Unlike a boundary it hides nothing from the passes of a compiled program."""


@in_memory.vjp
def in_memory_vjp(node, g):
    return (in_memory(g),)


@stop_copy.vjp
@boundary.vjp
def copy_vjp(node, g):
    return (g,)


# --------------------------------------------------------------------------- complex numbers
def _infer_complex(inputs, attrs):
    return inputs[0].shape, inputs[0].dtype.to_complex()


def _infer_pairs(inputs, attrs):
    return inputs[0].shape + (2,), inputs[0].dtype.to_real()


def _infer_joined(inputs, attrs):
    return inputs[0].shape[:-1], inputs[0].dtype.to_complex()


def _emit_split(k, dtype, *args):
    raise AssertionError("complex values are split before emission")


def _layout_part(which: int):
    """The memory of complex numbers as that of their parts: strides count reals."""

    def layout(shape, strides, offset, attrs, out_shape):
        return tuple(2 * step for step in strides), 2 * offset + which

    return layout


def _layout_pairs(shape, strides, offset, attrs, out_shape):
    return (*(2 * step for step in strides), 1), 2 * offset


def _layout_joined(shape, strides, offset, attrs, out_shape):
    if strides[-1] != 1 or offset % 2 or any(step % 2 for step in strides[:-1]):
        return None
    return tuple(step // 2 for step in strides[:-1]), offset // 2


real = _define("real", _infer_real, _emit_split, 0)
imag = _define("imag", _infer_real, _emit_split, 0)
complex_ = _define("complex", _infer_complex, _emit_split, 0)
real.layout, imag.layout = _layout_part(0), _layout_part(1)
view_as_real = Primitive("view_as_real", "movement", _infer_pairs, layout=_layout_pairs)
view_as_complex = Primitive("view_as_complex", "movement", _infer_joined, layout=_layout_joined)


def conj(x: Value) -> Value:
    """The complex conjugate; real values are their own."""
    return complex_(real(x), neg(imag(x))) if x.dtype.is_complex else x


@real.vjp
def real_vjp(node, g):
    return (complex_(g, zero_like(g)),)


@imag.vjp
def imag_vjp(node, g):
    return (complex_(zero_like(g), g),)


@complex_.vjp
def complex_vjp(node, g):
    return real(g), imag(g)


@view_as_real.vjp
def view_as_real_vjp(node, g):
    return (view_as_complex(g),)


@view_as_complex.vjp
def view_as_complex_vjp(node, g):
    return (view_as_real(g),)
