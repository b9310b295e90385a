"""Conversions to and from half and bfloat for processors that lack them.

Where there is no such instruction, LLVM calls functions of a compiler's run-time library (the
`__truncsfbf2` family of compiler-rt and libgcc), which a Python process does not have. These are
the same functions in LLVM IR: rounding to nearest even, NaN stays NaN, subnormals included.
"""

from __future__ import annotations

__all__ = ["NAMES", "soft_float_ir"]

NAMES = ("__truncsfbf2", "__truncdfbf2", "__truncsfhf2", "__truncdfhf2", "__extendhfsf2")

_FUNCTIONS = """
declare float @llvm.fabs.f32(float)
declare double @llvm.fabs.f64(double)

; Round to odd: float has enough bits more than half and bfloat that rounding once more is exact
; (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
define internal i32 @to_odd(double %x) nounwind {
  %f = fptrunc double %x to float
  %back = fpext float %f to double
  %bits = bitcast float %f to i32
  %inexact = fcmp one double %back, %x
  %mine = call double @llvm.fabs.f64(double %back)
  %true = call double @llvm.fabs.f64(double %x)
  %above = fcmp ogt double %mine, %true
  %step = zext i1 %above to i32
  %toward = sub i32 %bits, %step
  %odd = or i32 %toward, 1
  %r = select i1 %inexact, i32 %odd, i32 %bits
  ret i32 %r
}

define internal i16 @bfloat_bits(i32 %bits) nounwind {
  %high = lshr i32 %bits, 16
  %last = and i32 %high, 1
  %bias = add i32 %last, 32767
  %sum = add i32 %bits, %bias
  %rounded = lshr i32 %sum, 16
  %quiet = or i32 %high, 64
  %magnitude = and i32 %bits, 2147483647
  %nan = icmp ugt i32 %magnitude, 2139095040
  %r = select i1 %nan, i32 %quiet, i32 %rounded
  %r16 = trunc i32 %r to i16
  ret i16 %r16
}

define internal i16 @half_bits(i32 %bits) nounwind {
  %m = and i32 %bits, 2147483647
  %sign = lshr i32 %bits, 16
  %sign1 = and i32 %sign, 32768
  ; a normal half: rebias the exponent by -112, round the 13 bits that go
  %shifted = lshr i32 %m, 13
  %odd = and i32 %shifted, 1
  %rebiased = sub i32 %m, 939520001
  %rounded = add i32 %rebiased, %odd
  %normal = lshr i32 %rounded, 13
  ; a subnormal half: adding 0.5 lets the float adder round at bit 2**-24
  %small = bitcast i32 %m to float
  %aligned = fadd float %small, 5.000000e-01
  %aligned1 = bitcast float %aligned to i32
  %subnormal = sub i32 %aligned1, 1056964608
  %tiny = icmp ult i32 %m, 947912704
  %finite = select i1 %tiny, i32 %subnormal, i32 %normal
  %nan = icmp ugt i32 %m, 2139095040
  %special = select i1 %nan, i32 32256, i32 31744
  %large = icmp uge i32 %m, 1199570944
  %r = select i1 %large, i32 %special, i32 %finite
  %signed = or i32 %r, %sign1
  %r16 = trunc i32 %signed to i16
  ret i16 %r16
}

define bfloat @__truncsfbf2(float %x) nounwind {
  %bits = bitcast float %x to i32
  %r = call i16 @bfloat_bits(i32 %bits)
  %b = bitcast i16 %r to bfloat
  ret bfloat %b
}

define bfloat @__truncdfbf2(double %x) nounwind {
  %bits = call i32 @to_odd(double %x)
  %r = call i16 @bfloat_bits(i32 %bits)
  %b = bitcast i16 %r to bfloat
  ret bfloat %b
}

define half @__truncsfhf2(float %x) nounwind {
  %bits = bitcast float %x to i32
  %r = call i16 @half_bits(i32 %bits)
  %h = bitcast i16 %r to half
  ret half %h
}

define half @__truncdfhf2(double %x) nounwind {
  %bits = call i32 @to_odd(double %x)
  %r = call i16 @half_bits(i32 %bits)
  %h = bitcast i16 %r to half
  ret half %h
}

define float @__extendhfsf2(half %x) nounwind {
  %bits = bitcast half %x to i16
  %wide = zext i16 %bits to i32
  %m = and i32 %wide, 32767
  %shifted = shl i32 %m, 13
  %f = bitcast i32 %shifted to float
  %scaled = fmul float %f, 0x46F0000000000000
  %finite = bitcast float %scaled to i32
  %special = or i32 %shifted, 2139095040
  %large = icmp uge i32 %m, 31744
  %r = select i1 %large, i32 %special, i32 %finite
  %sign = and i32 %wide, 32768
  %sign1 = shl i32 %sign, 16
  %signed = or i32 %r, %sign1
  %v = bitcast i32 %signed to float
  ret float %v
}
"""


def soft_float_ir() -> str:
    """A module that defines NAMES."""
    return _FUNCTIONS
