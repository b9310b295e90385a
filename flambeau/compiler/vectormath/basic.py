"""What the other files share: number formats, bit tricks, error-free sums, rounding, fmod.

Every function takes the Function under construction and emits straight code into it, for float and
double, scalar or vector. Products feed sums through `llvm.fma`: the accuracy stated in the other
files needs a target whose fma is an instruction (x86-64-v3, AArch64, RISC-V V, NVPTX).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from fractions import Fraction

from flambeau.compiler.emitter import Function, Value, lanes_of, scalar_of, vector

__all__ = ["Format", "format_of", "int_type", "bits", "from_bits", "fabs", "sqrt", "copysign",
           "floor", "ceil", "trunc", "rint", "polynomial", "at_most", "at_least", "two_sum",
           "fast_two_sum", "two_product", "divide_by_sum", "divide_pairs", "multiply_pairs",
           "polynomial_pair", "scale_down", "piecewise", "fmod", "remainder", "split", "isnan",
           "any_lane"]


@dataclasses.dataclass(frozen=True)
class Format:
    """A binary floating format.

    Attributes:
        integer: LLVM integer type of the same width.
        mantissa: number of stored mantissa bits.
        bias: exponent bias.
    """

    scalar: str
    integer: str
    mantissa: int
    bias: int

    @property
    def magic(self) -> float:
        """1.5 * 2**mantissa: adding it to a small number leaves rint(number) in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def smallest(self) -> float:
        """The smallest normal number."""
        return 2.0 ** (1 - self.bias)

    @property
    def width(self) -> int:
        return 32 if self.scalar == "float" else 64

    def pattern(self, value: float) -> int:
        """The bits of `value` as an unsigned integer."""
        code, word = ("<f", "<I") if self.scalar == "float" else ("<d", "<Q")
        return struct.unpack(word, struct.pack(code, value))[0]


_FORMATS = {"float": Format("float", "i32", 23, 127), "double": Format("double", "i64", 52, 1023)}


def format_of(x: Value) -> Format:
    """The format of x's elements; NotImplementedError for other types than float and double."""
    try:
        return _FORMATS[scalar_of(x.type)]
    except KeyError:
        raise NotImplementedError(
            f"vector mathematics computes in float and double, not in {x.type}: extend the "
            "argument to float and round the result") from None


def split(value: str, fmt: Format, parts: int) -> tuple[float, ...]:
    """`value`, in decimal or as a fraction ("1/3"), as a sum of `parts` constants of `fmt`."""
    rest, out = Fraction(value), []
    for _ in range(parts):
        part = float(rest)
        if fmt.scalar == "float":
            part = struct.unpack("<f", struct.pack("<f", part))[0]
        out.append(part)
        rest -= Fraction(part)
    return tuple(out)


# ---------------------------------------------------------------------- bits and signs
def int_type(x: Value) -> str:
    """The integer type of x's shape and width."""
    return vector(lanes_of(x.type), format_of(x).integer)


def bits(f: Function, x: Value) -> Value:
    """x's bit pattern as an integer."""
    return f.cast("bitcast", x, int_type(x))


def from_bits(f: Function, i: Value, type_: str) -> Value:
    """The float of type `type_` with the bit pattern i."""
    return f.cast("bitcast", i, type_)


def fabs(f: Function, x: Value) -> Value:
    """|x|, by clearing the sign bit."""
    return f.intrinsic("llvm.fabs", x.type, x)


def sqrt(f: Function, x: Value) -> Value:
    """The square root, correctly rounded; NaN below 0."""
    return f.intrinsic("llvm.sqrt", x.type, x)


def copysign(f: Function, magnitude: Value, sign: Value) -> Value:
    """|magnitude| with the sign bit of `sign`."""
    return f.intrinsic("llvm.copysign", sign.type, magnitude, sign)


def floor(f: Function, x: Value) -> Value:
    """The largest integer that is at most x."""
    return f.intrinsic("llvm.floor", x.type, x)


def ceil(f: Function, x: Value) -> Value:
    """The smallest integer that is at least x."""
    return f.intrinsic("llvm.ceil", x.type, x)


def trunc(f: Function, x: Value) -> Value:
    """x without its fraction."""
    return f.intrinsic("llvm.trunc", x.type, x)


def rint(f: Function, x: Value) -> Value:
    """To the nearest integer, halves to even."""
    return f.intrinsic("llvm.rint", x.type, x)


def isnan(f: Function, x: Value) -> Value:
    """Whether x is NaN, by lane."""
    return f.cmp("uno", x, x)


def at_most(f: Function, x: Value, limit: float) -> Value:
    """min(x, limit); NaN stays NaN."""
    return f.select(f.cmp("ogt", x, limit), limit, x)


def at_least(f: Function, x: Value, limit: float) -> Value:
    """max(x, limit); NaN stays NaN."""
    return f.select(f.cmp("olt", x, limit), limit, x)


# ---------------------------------------------------------------------- sums and products
def polynomial(f: Function, x: Value, coefficients: Sequence[float]) -> Value:
    """sum c[i] x**i. Short ones by Horner's rule (fewest operations), long ones as even and odd
    halves (half the latency)."""
    if len(coefficients) <= 10:
        return _horner(f, x, coefficients)
    square = f.fmul(x, x)
    even = _horner(f, square, coefficients[::2])
    return f.fma(_horner(f, square, coefficients[1::2]), x, even)


def _horner(f: Function, x: Value, coefficients: Sequence) -> Value:
    result = f.typed(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        result = f.fma(result, x, c)
    return result


def polynomial_pair(f: Function, x: Value, coefficients: Sequence[float]) -> tuple[Value, Value]:
    """`polynomial` before its last rounding, as (rounded sum, rest); |c[0]| outweighs the
    others."""
    return _last_step(f, x, coefficients[0], polynomial(f, x, coefficients[1:]))


def _last_step(f: Function, x: Value, first: Value | float, others: Value
               ) -> tuple[Value, Value]:
    """first + x * others as a pair."""
    high = f.fma(x, others, first)
    return high, f.fma(x, others, f.fsub(first, high))


def two_sum(f: Function, a: Value, b: Value) -> tuple[Value, Value]:
    """a + b exactly, as (rounded sum, rounding error) (Knuth)."""
    total = f.fadd(a, b)
    b_part = f.fsub(total, a)
    a_part = f.fsub(total, b_part)
    return total, f.fadd(f.fsub(a, a_part), f.fsub(b, b_part))


def fast_two_sum(f: Function, a, b) -> tuple[Value, Value]:
    """two_sum where |a| >= |b| (Dekker)."""
    total = f.fadd(a, b)
    return total, f.fsub(b, f.fsub(total, a))


def two_product(f: Function, a: Value, b) -> tuple[Value, Value]:
    """a * b exactly, as (rounded product, rounding error)."""
    product = f.fmul(a, b)
    return product, f.fma(a, b, f.fneg(product))


def multiply_pairs(f: Function, a: Value, a_low: Value, b: Value, b_low: Value) -> Value:
    """(a + a_low) * (b + b_low), rounded as if neither sum were, for small low parts."""
    product, error = two_product(f, a, b)
    return f.fadd(product, f.fma(a, b_low, f.fma(a_low, b, error)))


def divide_pairs(f: Function, a: Value, a_low, b: Value, b_low: Value) -> Value:
    """(a + a_low) / (b + b_low), rounded as if neither sum were, for small low parts."""
    inverse = f.fdiv(1.0, b)
    quotient = f.fmul(a, inverse)
    left = f.fma(quotient, b_low, f.fma(quotient, b, f.fneg(a)))
    if a_low is not None:
        left = f.fsub(left, a_low)
    return f.fma(f.fneg(left), inverse, quotient)


def divide_by_sum(f: Function, a: Value, b: Value, c) -> Value:
    """a / (b + c), rounded as if the sum were not; |b| >= |c| or b a multiple of ulp(c)."""
    return divide_pairs(f, a, None, *fast_two_sum(f, b, c))


def scale_down(f: Function, x: Value, exponent: Value) -> Value:
    """x * 2**-exponent for an integer vector `exponent` whose result needs no denormals; 0 once
    2**-exponent is no normal number."""
    fmt = format_of(x)
    field = f.smax(f.sub(f.const(fmt.bias, exponent.type), exponent), 0)
    power = f.shl(field, fmt.mantissa)
    return f.fmul(x, from_bits(f, power, x.type))


def piecewise(f: Function, x: Value, name: str, table: Sequence[Sequence[float]]
              ) -> tuple[Value, Value]:
    """A table of polynomials over x in [0.5, 16), eight pieces per octave, before the last
    rounding: (rounded value, rest). Double only.

    Row 8 * e + k belongs to [2**(e-1) (1 + k/8), 2**(e-1) (1 + (k+1)/8)) and is a polynomial in
    the distance from the middle of that piece. Outside, the result is unspecified but finite.
    """
    degree = len(table[0])
    literals = ", ".join(f"double 0x{_FORMATS['double'].pattern(c):016X}"
                         for row in table for c in row)
    f.module.texts.setdefault(name, f"@{name} = private unnamed_addr constant "
                              f"[{degree * len(table)} x double] [{literals}], align 64")
    pattern = bits(f, x)
    row = f.sub(f.lshr(pattern, 49), (1022 << 3))
    row = f.smin(f.smax(row, 0), len(table) - 1)
    # the middle: the same leading bits, then a one and zeros
    middle = f.or_(f.and_(pattern, -1 << 49), 1 << 48)
    offset = f.fsub(x, from_bits(f, middle, x.type))
    base = f.mul(row, degree)
    pointer = Value(f"@{name}", "ptr")
    lanes = lanes_of(x.type)

    def coefficient(k: int) -> Value:
        address = f.gep(pointer, f.add(base, k), "double")
        if lanes == 1:
            return f.load("double", address)
        mask = f.const(1, vector(lanes, "i1"))
        return f.gather(x.type, address, mask)

    first, *others = (coefficient(k) for k in range(degree))
    return _last_step(f, offset, first, _horner(f, offset, others))


# ---------------------------------------------------------------------- fmod
def fmod(f: Function, x: Value, y: Value) -> Value:
    """C's fmod: x - trunc(x / y) * y without any rounding error; the sign is x's.

    One round divides away as many quotient bits as the mantissa holds: arguments within
    2**mantissa of each other take one round, the farthest 12 (float) or 41 (double).
    """
    fmt = format_of(x)
    a, b = fabs(f, x), fabs(f, y)
    infinite = f.const(float("inf"), x.type)
    valid = f.and_(f.cmp("olt", a, infinite), f.cmp("ogt", b, 0.0))
    rest = f.var(x.type, f.select(valid, a, 0.0))
    b_safe = f.select(valid, b, 1.0)
    b_exponent = _exponent(f, b_safe)
    head, body, done = f.label("fmod"), f.label("fmod"), f.label("fmod")
    f.branch(head)
    f.at(head)
    f.branch_if(any_lane(f, f.cmp("oge", rest.get(), b_safe)), body, done)
    f.at(body)
    r = rest.get()
    gap = f.sub(f.sub(_exponent(f, r), b_exponent), fmt.mantissa)
    shift = f.smax(gap, 0)
    divisor = _times_power(f, b_safe, shift)
    quotient = trunc(f, f.fdiv(r, divisor))
    # Where b lies below r's reach (b infinite or r small) the quotient is 0 and r stays.
    left = f.fma(f.fneg(quotient), divisor, r)
    # The rounded quotient may be one too large; both results are exact.
    left = f.select(f.cmp("olt", left, 0.0), f.fadd(left, divisor), left)
    rest.set(f.select(f.cmp("oge", r, b_safe), left, r))
    f.branch(head)
    f.at(done)
    result = copysign(f, rest.get(), x)
    bad = f.or_(f.cmp("uno", x, y), f.not_(valid))
    return f.select(bad, float("nan"), result)


def remainder(f: Function, x: Value, y: Value) -> Value:
    """Python's x % y: fmod moved into the sign of y."""
    r = fmod(f, x, y)
    opposite = f.cmp("slt", f.xor(bits(f, r), bits(f, y)), 0)
    move = f.and_(opposite, f.cmp("une", r, 0.0))
    return f.select(move, f.fadd(r, y), r)


def _exponent(f: Function, x: Value) -> Value:
    """The biased exponent of x > 0, continued below 1 for denormals."""
    fmt = format_of(x)
    tiny = f.cmp("olt", x, fmt.smallest)
    scaled = f.select(tiny, f.fmul(x, 2.0**fmt.mantissa), x)
    exponent = f.lshr(bits(f, scaled), fmt.mantissa)
    return f.sub(exponent, f.select(tiny, f.const(fmt.mantissa, exponent.type), 0))


def _times_power(f: Function, x: Value, shift: Value) -> Value:
    """x * 2**shift, shift >= 0, in three steps: one power of two may not be representable."""
    fmt = format_of(x)
    third = f.udiv(shift, 3)
    rest = f.sub(shift, f.add(third, third))
    for part in (third, third, rest):
        power = f.shl(f.add(part, fmt.bias), fmt.mantissa)
        x = f.fmul(x, from_bits(f, power, x.type))
    return x


def any_lane(f: Function, mask: Value) -> Value:
    """Whether any lane of an i1 vector is set."""
    lanes = lanes_of(mask.type)
    if lanes == 1:
        return mask
    return f.intrinsic_call("i1", f"llvm.vector.reduce.or.v{lanes}i1", [mask])
