"""Registers of lanes: memory formats, conversions and the operations that primitives emit with.

A register holds one value per lane: bool as i1, float16 and bfloat16 widened to float, everything
else as stored. `Lanes` is the `k` that a primitive's `emit` receives.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.compiler import vectormath
from flambeau.compiler.emitter import Function, Module, Value, lanes_of, scalar_of, vector
from flambeau.core import dtypes
from flambeau.core.dtypes import DType

__all__ = ["Lanes", "register_type"]

STATUS_INDEX, STATUS_DIVISION = 1, 2
_LONG = ("pow",)  # an optimizer's step has two for each parameter


def register_type(dtype: DType) -> str:
    """The LLVM type of one lane."""
    if dtype.kind == "b":
        return "i1"
    return "float" if dtype.is_reduced else dtype.llvm


def memory_type(dtype: DType) -> str:
    return "i16" if dtype is dtypes.bfloat16 else dtype.llvm


class Lanes:
    """Code generation on registers inside one function.

    Attributes:
        f: the emitter.
        status: the address that errors are reported to, or None.
        active: the mask of live lanes in a loop's tail, or None if all are.
    """

    def __init__(self, f: Function):
        self.f = f
        self.status: Value | None = None
        self.active: Value | None = None

    def math(self, name: str, *args: Value) -> Value:
        """A function of vectormath. Long code for a number alone, which mostly stands outside of
        loops, is a function of its own that all kernels share."""
        if name in _LONG and lanes_of(args[0].type) == 1:
            return self.f.call(args[0].type, _define(self.f.module, name, args), args)
        return vectormath.FUNCTIONS[name](self.f, *args)

    # ------------------------------------------------------------------ memory format
    def widen(self, raw: Value, dtype: DType) -> Value:
        """Memory format -> register."""
        f, count = self.f, lanes_of(raw.type)
        if dtype.kind == "b":
            return f.cmp("ne", raw, 0)
        if dtype is dtypes.float16:
            return f.cast("fpext", raw, vector(count, "float"))
        if dtype is dtypes.bfloat16:
            bits = f.shl(f.cast("zext", raw, vector(count, "i32")), 16)
            return f.cast("bitcast", bits, vector(count, "float"))
        return raw

    def narrow(self, register: Value, dtype: DType, rounded: bool = False) -> Value:
        """Register -> memory format, rounded to nearest even; `rounded` if it has been before."""
        f, count = self.f, lanes_of(register.type)
        if dtype.kind == "b":
            return f.cast("zext", register, vector(count, "i8"))
        if dtype is dtypes.float16:
            return f.cast("fptrunc", register, vector(count, "half"))
        if dtype is dtypes.bfloat16:
            bits = f.cast("bitcast", register, vector(count, "i32")) if rounded \
                else self._bfloat_bits(register)
            return f.cast("trunc", f.lshr(bits, 16), vector(count, "i16"))
        return register

    def _bfloat_bits(self, register: Value) -> Value:
        """The bits of a float rounded to bfloat16 precision. The processor's own instruction would
        flush denormals."""
        f, count = self.f, lanes_of(register.type)
        bits = f.cast("bitcast", register, vector(count, "i32"))
        odd = f.and_(f.lshr(bits, 16), 1)
        rounded = f.and_(f.add(bits, f.add(odd, f.const(0x7FFF, bits.type))), -65536)
        return f.select(f.cmp("uno", register, register), 0x7FC00000, rounded)

    def round_to(self, register: Value, dtype: DType) -> Value:
        """A float register rounded to the precision of a 16-bit dtype."""
        f, count = self.f, lanes_of(register.type)
        if dtype is dtypes.bfloat16:
            return f.cast("bitcast", self._bfloat_bits(register), vector(count, "float"))
        return f.cast("fpext", f.cast("fptrunc", register, vector(count, "half")), register.type)

    def convert(self, x: Value, source: DType, target: DType) -> Value:
        """Convert a register between dtypes, as C does."""
        f, count = self.f, lanes_of(x.type)
        to = vector(count, register_type(target))
        if source is target:
            return x
        if target.kind == "b":
            return f.cmp("une" if source.kind == "f" else "ne", x, 0)
        if target.kind == "f":
            made = self._to_float(x, source, to)
            return self.round_to(made, target) if target.is_reduced else made
        if source.kind == "f":
            word = "fptoui" if target is dtypes.uint64 else "fptosi"
            needs_64 = target.itemsize == 8 or target is dtypes.uint32
            wide = vector(count, "i64" if needs_64 else "i32")
            return f.cast("trunc", f.cast(word, x, wide), to)
        if target.itemsize < source.itemsize:
            return f.cast("trunc", x, to)
        if target.itemsize == source.itemsize and source.kind != "b":
            return x
        return f.cast("sext" if source.kind == "i" else "zext", x, to)

    def _to_float(self, x: Value, source: DType, to: str) -> Value:
        f = self.f
        if source.kind != "f":
            return f.cast("sitofp" if source.kind == "i" else "uitofp", x, to)
        wide, narrow = scalar_of(to) == "double", scalar_of(x.type) == "double"
        return f.cast("fpext" if wide and not narrow else "fptrunc", x, to)

    def splat(self, x: Value, lanes: int) -> Value:
        return x if lanes_of(x.type) == lanes else self.f.splat(x, lanes)

    # ------------------------------------------------------------------ checks
    def fail_unless(self, fine: Value, code: int, offender: Value) -> None:
        """Report (code, a failing lane of `offender`) if any live lane is not `fine`."""
        f, count = self.f, lanes_of(fine.type)
        bad = f.not_(fine)
        if self.active is not None and lanes_of(self.active.type) == count:
            bad = f.and_(bad, self.active)
        if count == 1:
            failed, culprit = bad, offender
        else:
            failed = f.cmp("ne", f.cast("bitcast", bad, f"i{count}"), 0)
            lowest = f.select(bad, offender, -(2**63))
            culprit = f.intrinsic_call("i64", f"llvm.vector.reduce.smax.v{count}i64", [lowest])
        with f.when(failed):
            f.store(f.const(code, "i64"), self.status)
            f.store(culprit, self.status, 1)

    def nonzero_divisor(self, a: Value, b: Value, dtype: DType, remainder: bool = False) -> Value:
        """`b` made safe for the processor's division: 0 is an error, and MIN / -1 must not trap."""
        f, count = self.f, lanes_of(b.type)
        fine = f.cmp("ne", b, 0)
        self.fail_unless(fine, STATUS_DIVISION, f.const(0, vector(count, "i64")))
        b = f.select(fine, b, 1)
        if dtype.kind == "i":
            lowest = -(2 ** (dtype.itemsize * 8 - 1))
            overflow = f.and_(f.cmp("eq", a, lowest), f.cmp("eq", b, -1))
            b = f.select(overflow, 1, b)  # MIN / -1 wraps to MIN, its remainder is 0
        return b

    def wrap_index(self, index: Value, size: Value) -> Value:
        """A user's index in [-size, size) made non-negative; anything else is reported."""
        f, count = self.f, lanes_of(index.type)
        size = self.splat(size, count)
        moved = f.select(f.cmp("slt", index, 0), f.add(index, size), index)
        fine = f.cmp("ult", moved, size)
        self.fail_unless(fine, STATUS_INDEX, index)
        return f.select(fine, moved, 0)

    # ------------------------------------------------------------------ combining
    def identity(self, rule: str, dtype: DType) -> float | int | bool:
        if rule in ("sum", "prod"):
            return 0 if rule == "sum" else 1
        low = rule in ("max", "argmax")
        if dtype.kind == "f":
            return float("-inf") if low else float("inf")
        if dtype.kind == "b":
            return not low
        info = dtypes.iinfo(dtype)
        return info.min if low else info.max

    def combine(self, rule: str, dtype: DType, a: Value, b: Value) -> Value:
        f = self.f
        if rule in ("sum", "prod"):
            word = {"sum": "add", "prod": "mul"}[rule]
            if dtype.kind == "b":
                return f.op("or" if rule == "sum" else "and", a, b)
            return f.op("f" + word if dtype.kind == "f" else word, a, b)
        top = rule == "max"
        if dtype.kind == "b":
            return f.op("or" if top else "and", a, b)
        if dtype.kind == "f":  # NaN stays; of equal numbers, zeros too, either will do
            best = f.select(f.cmp("ogt" if top else "olt", a, b), a, b)
            return f.select(f.cmp("uno", a, a), a, best)
        return f.intrinsic(f"llvm.{'s' if dtype.kind == 'i' else 'u'}{'max' if top else 'min'}",
                           a.type, a, b)

    def scan_step(self, rule: str, dtype: DType, total: Value, x: Value) -> Value:
        """The next intermediate result of a scan; "logsumexp" is log(exp(total) + exp(x))."""
        if rule != "logsumexp":
            return self.combine(rule, dtype, total, x)
        f = self.f
        high = f.intrinsic("llvm.maximum", x.type, total, x)
        low = f.intrinsic("llvm.minimum", x.type, total, x)
        grown = f.fadd(high, self.math("log1p", self.math("exp", f.fsub(low, high))))
        return f.select(f.cmp("oeq", low, high), self._doubled(high), grown)

    def _doubled(self, x: Value) -> Value:
        """log(2 exp(x)), also of infinities."""
        return self.f.fadd(x, 0.6931471805599453)

    def extends(self, rule: str, dtype: DType, best: Value, x: Value) -> Value:
        """Does `x`, the next element, take over as extremum of a scan? Ties and NaN do; nothing
        else follows a NaN."""
        f, top = self.f, rule == "argmax"
        if dtype.kind != "f":
            return f.cmp(f"{'s' if dtype.kind == 'i' else 'u'}{'ge' if top else 'le'}", x, best)
        wins = f.and_(f.cmp("oge" if top else "ole", x, best), f.cmp("ord", best, best))
        return f.or_(wins, f.cmp("uno", x, x))

    def better(self, rule: str, dtype: DType, a: Value, ai: Value, b: Value, bi: Value) -> Value:
        """argmax/argmin: does (b, at bi) beat (a, at ai)? NaN beats all; ties go to the first."""
        f = self.f
        top = rule == "argmax"
        if dtype.kind == "f":
            wins = f.cmp("ogt" if top else "olt", b, a)
            a_nan, b_nan = f.cmp("uno", a, a), f.cmp("uno", b, b)
            wins = f.or_(f.and_(wins, f.not_(a_nan)), f.and_(b_nan, f.not_(a_nan)))
            same = f.or_(f.cmp("oeq", a, b), f.and_(a_nan, b_nan))
        else:
            sign = "s" if dtype.kind == "i" else "u"
            wins = f.cmp(f"{sign}gt" if top else f"{sign}lt", b, a)
            same = f.cmp("eq", a, b)
        return f.or_(wins, f.and_(same, f.cmp("slt", bi, ai)))


def _define(module: Module, name: str, args: Sequence[Value]) -> str:
    """Define a function of vectormath for numbers like `args`, as a part; returns its name."""
    own = f"{name}_{args[0].type}"
    if not module.defines(own):
        f = module.function(own, [(arg.type, f"x{at}") for at, arg in enumerate(args)],
                            args[0].type, part=own)
        f.ret_value(vectormath.FUNCTIONS[name](f, *f.args.values()))
    return own
