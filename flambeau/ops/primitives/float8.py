"""The 8-bit floats: their bits as float32, and float32 rounded to them.

Programs hold values of these dtypes as bytes (`compiler/stored_bits.py`); only these primitives
know what the bytes mean. Formats: "OCP 8-bit Floating Point Specification" (2023) for e4m3fn and
e5m2; Noune et al. 2022 for the two `fnuz`, which have neither infinities nor a negative zero; "OCP
Microscaling Formats" (2023) for e8m0fnu, a power of two.
"""

from __future__ import annotations

import dataclasses

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Primitive
from flambeau.ops.primitives.elementwise import _define

__all__ = ["FLOAT8_FROM_BITS", "FLOAT8_TO_BITS"]

NAN32, SMALLEST_NAN32, INF32 = 0x7FC00000, 0x7F800001, 0x7F800000


@dataclasses.dataclass(frozen=True)
class _Format:
    """Attributes:
        mantissa, bias: bits of the fraction; what the exponent is stored with.
        largest: bits of the largest number.
        beyond: bits of what is larger, infinity included.
        nan: bits of what is made of NaN.
        unsigned_zero: minus zero is NaN, the only one.
    """

    mantissa: int
    bias: int
    largest: int
    beyond: int
    nan: int
    unsigned_zero: bool = False

    @property
    def dropped(self) -> int:
        """How many bits of a float32's fraction go."""
        return 23 - self.mantissa


_FORMATS = {
    dtypes.float8_e4m3fn: _Format(3, 7, 0x7E, 0x7E, 0x7F),  # what is too large saturates
    dtypes.float8_e5m2: _Format(2, 15, 0x7B, 0x7C, 0x7F),
    dtypes.float8_e4m3fnuz: _Format(3, 8, 0x7F, 0x80, 0x80, True),
    dtypes.float8_e5m2fnuz: _Format(2, 16, 0x7F, 0x80, 0x80, True),
}


# --------------------------------------------------------------------------- bits to float32
def _decoded(form: _Format):
    def emit(k, dtype: DType, a):
        f = k.f
        bits = f.cast("zext", a, a.type.replace("i8", "i32"))
        magnitude = f.and_(bits, 0x7F)
        word = a.type.replace("i8", "float")
        normal = f.add(f.shl(magnitude, form.dropped), f.const((127 - form.bias) << 23, bits.type))
        small = f.fmul(f.cast("uitofp", magnitude, word), 2.0 ** (1 - form.bias - form.mantissa))
        found = f.select(f.cmp("ult", magnitude, 1 << form.mantissa),
                         f.cast("bitcast", small, bits.type), normal)
        if form.nan == 0x7F:  # from `beyond` on, or at the last code, IEEE's specials
            first = form.largest + 1
            special = f.or_(f.shl(magnitude, form.dropped), INF32)
            nan = f.or_(special, 0x400000)
            special = f.select(f.cmp("ugt", magnitude, 0x7C), nan, special)
            found = f.select(f.cmp("uge", magnitude, first), special, found)
        found = f.or_(found, f.shl(f.and_(bits, 0x80), 24))
        if form.unsigned_zero:
            found = f.select(f.cmp("eq", bits, 0x80), SMALLEST_NAN32, found)
        return f.cast("bitcast", found, word)

    return emit


def _decoded_power(k, dtype: DType, a):
    f = k.f
    bits = f.cast("zext", a, a.type.replace("i8", "i32"))
    found = f.select(f.cmp("eq", bits, 0), 0x400000, f.shl(bits, 23))  # 2**-127 is subnormal
    found = f.select(f.cmp("eq", bits, 0xFF), SMALLEST_NAN32, found)
    return f.cast("bitcast", found, a.type.replace("i8", "float"))


# --------------------------------------------------------------------------- float32 to bits
def _encoded(form: _Format):
    drop = form.dropped
    first_normal = (128 - form.bias) << 23
    align = 2.0 ** (24 - form.bias - form.mantissa)  # its last bit is the smallest subnormal

    def emit(k, dtype: DType, a):
        f = k.f
        word = a.type.replace("float", "i32")
        bits = f.cast("bitcast", a, word)
        size = f.and_(bits, 0x7FFFFFFF)
        odd = f.and_(f.lshr(size, drop), 1)
        bias = ((1 << (drop - 1)) - 1) - ((127 - form.bias) << 23)
        normal = f.lshr(f.add(f.add(size, f.const(bias, word)), odd), drop)
        aligned = f.fadd(f.cast("bitcast", size, a.type), align)  # the adder rounds to even
        base = f.cast("bitcast", f.const(align, a.type), word)
        small = f.sub(f.cast("bitcast", aligned, word), base)
        found = f.select(f.cmp("ult", size, first_normal), small, normal)
        found = f.select(f.cmp("ugt", found, form.largest), form.beyond, found)
        sign = f.and_(f.lshr(bits, 24), 0x80)
        nan = f.cmp("ugt", size, INF32)
        if form.unsigned_zero:
            found = f.select(f.cmp("eq", found, 0), 0, f.or_(found, sign))
            found = f.select(nan, form.nan, found)
        else:
            found = f.or_(f.select(nan, form.nan, found), sign)
        return f.cast("trunc", found, word.replace("i32", "i8"))

    return emit


def _encoded_power(k, dtype: DType, a):
    """The exponent of |a|, one more from half way on; ties go up but for those below 2**-126."""
    f = k.f
    word = a.type.replace("float", "i32")
    size = f.and_(f.cast("bitcast", a, word), 0x7FFFFFFF)
    exponent = f.lshr(size, 23)
    fraction = f.and_(size, 0x7FFFFF)
    up = f.or_(f.cmp("ugt", fraction, 0x400000),
               f.and_(f.cmp("eq", fraction, 0x400000), f.cmp("ne", exponent, 0)))
    found = f.add(exponent, f.cast("zext", up, word))
    found = f.select(f.cmp("uge", size, INF32), 0xFF, found)
    return f.cast("trunc", found, word.replace("i32", "i8"))


def _infer_wide(inputs, attrs):
    return inputs[0].shape, dtypes.float32


def _infer_byte(inputs, attrs):
    return inputs[0].shape, dtypes.uint8


def _conversion(name: str, infer, emit, cost: int) -> Primitive:
    made = _define(name, infer, emit, cost)
    made.differentiable = False
    return made


FLOAT8_FROM_BITS = {
    dtype: _conversion(f"{dtype.name}_from_bits", _infer_wide, _decoded(form), 4)
    for dtype, form in _FORMATS.items()
} | {dtypes.float8_e8m0fnu: _conversion("float8_e8m0fnu_from_bits", _infer_wide, _decoded_power, 2)}
"""For each dtype the primitive bytes -> float32, exact."""

FLOAT8_TO_BITS = {
    dtype: _conversion(f"{dtype.name}_to_bits", _infer_byte, _encoded(form), 6)
    for dtype, form in _FORMATS.items()
} | {dtypes.float8_e8m0fnu: _conversion("float8_e8m0fnu_to_bits", _infer_byte, _encoded_power, 4)}
"""For each dtype the primitive float32 -> bytes, rounded to nearest even."""
