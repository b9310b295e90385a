"""Elementwise primitives that work on the bits of floats, and the greatest common divisor."""

from __future__ import annotations

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ops.primitives.elementwise import _define
from flambeau.ops.primitives.structure import infer_same

__all__ = ["nextafter", "exponent_of", "gcd"]


def _as_bits(k, x):
    """The bits of a float register, as integers of its width."""
    word = x.type
    for name, bits in (("double", "i64"), ("float", "i32"), ("half", "i16")):
        word = word.replace(name, bits)
    return k.f.cast("bitcast", x, word)


def _emit_nextafter(k, dtype: DType, a, b):
    """One step in the order of the bits: bfloat16 lies in the upper half of a float's."""
    f = k.f
    if dtype is dtypes.float16:
        a, b = (f.cast("fptrunc", x, x.type.replace("float", "half")) for x in (a, b))
        return f.cast("fpext", _step_towards(k, dtype, a, b), a.type.replace("half", "float"))
    return _step_towards(k, dtype, a, b)


def _step_towards(k, dtype: DType, a, b):
    f = k.f
    bits = _as_bits(k, a)
    unit = f.const(0x10000 if dtype is dtypes.bfloat16 else 1, bits.type)
    away = f.cmp("eq", f.cmp("olt", a, b), f.cmp("ogt", a, 0.0))
    moved = f.cast("bitcast", f.select(away, f.add(bits, unit), f.sub(bits, unit)), a.type)
    tiny = f.intrinsic("llvm.copysign", a.type, f.cast("bitcast", unit, a.type), b)
    moved = f.select(f.cmp("oeq", a, 0.0), tiny, moved)
    moved = f.select(f.cmp("oeq", a, b), b, moved)
    return f.select(f.cmp("uno", a, b), f.fadd(a, b), moved)


nextafter = _define("nextafter", infer_same, _emit_nextafter, 4)
nextafter.differentiable = False


def _infer_exponent(inputs, attrs):
    return inputs[0].shape, dtypes.int32


def _emit_exponent(k, dtype: DType, a):
    """The e of a = m * 2**e with 1/2 <= |m| < 1; 0 for zeros, infinities and NaN."""
    f = k.f
    wide = "double" in a.type
    mantissa, mask, bias, lift = (52, 0x7FF, 1022, 54) if wide else (23, 0xFF, 126, 25)
    size = f.intrinsic("llvm.fabs", a.type, a)
    small = f.cmp("olt", size, 2.0 ** (1 - bias))
    bits = _as_bits(k, f.select(small, f.fmul(size, 2.0 ** lift), size))
    field = f.and_(f.lshr(bits, mantissa), mask)
    exponent = f.sub(field, f.select(small, f.const(bias + lift, bits.type),
                                     f.const(bias, bits.type)))
    plain = f.and_(f.cmp("olt", size, float("inf")), f.cmp("ogt", size, 0.0))
    exponent = f.select(plain, exponent, 0)
    return f.cast("trunc", exponent, bits.type.replace("i64", "i32"))


exponent_of = _define("exponent_of", _infer_exponent, _emit_exponent, 4)
exponent_of.differentiable = False


def _emit_gcd(k, dtype: DType, a, b):
    """Euclid's algorithm on all lanes, until every one has reached 0."""
    f = k.f
    if dtype.kind == "i":
        a, b = (f.select(f.cmp("slt", x, 0), f.sub(f.const(0, x.type), x), x) for x in (a, b))
    count = int(a.type[1:].split()[0]) if a.type.startswith("<") else 1
    large, small = f.var(a.type, a), f.var(b.type, b)
    head, body, done = (f.label(word) for word in ("gcd", "step", "found"))
    f.branch(head)
    f.at(head)
    live = f.cmp("ne", small.get(), 0)
    some = live if count == 1 else f.cmp("ne", f.cast("bitcast", live, f"i{count}"), 0)
    f.branch_if(some, body, done)
    f.at(body)
    x, y = large.get(), small.get()
    running = f.cmp("ne", y, 0)
    rest = f.op("urem", x, f.select(running, y, 1))
    large.set(f.select(running, y, x))
    small.set(f.select(running, rest, 0))
    f.branch(head)
    f.at(done)
    return large.get()


gcd = _define("gcd", infer_same, _emit_gcd, 60)
gcd.differentiable = False
