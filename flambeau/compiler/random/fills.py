"""Kernels that fill memory with random numbers, equal draw for draw to PyTorch's on the CPU.

A stream is sequential, so every kernel here runs as one chunk. It reads and advances the MT19937
state whose address is its first slot and writes n contiguous elements:

    kind                slots after (state, out, n)     dtypes
    uniform             from, to                        floating
    normal              mean, std                       floating; n >= 16
    normal_scalar       mean, std                       floating; n < 16, or `out` was strided
    log_normal          mean, std                       floating
    exponential         lambda                          floating
    cauchy              median, sigma                   floating
    geometric           p                               all but bool
    bernoulli           p                               all
    bernoulli_float32   p (pointer to n probabilities), status    all
    bernoulli_float64   p (pointer to n probabilities), status    all
    random32            range, base                     all; range <= 2^31
    random64            range, base                     all; range is unsigned
    random64_full                                       all
    randperm                                            all but bool
    randperm64                                          all but bool
    poisson             rate (pointer to n expectations), status  float64
    binomial            trials (pointer to n pairs of count and probability)  float64
    gamma               shape (pointer to n shapes of the dtype)  float32, float64
    multinomial_float32 p, categories, scratch          int64; p and scratch are pointers to
    multinomial_float64                                 `categories` numbers

Reals are the bits of a double, range and base are integers: `plan_random` computes them. `status`
is the address of two integers, (code, value): code becomes 1 if a probability lies outside of
[0, 1] or an expectation below 0. Which
words of the stream make up which number, and which values are rounded where, was found by
experiment and is held by tests/compiler/test_random.py.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from flambeau.compiler.emitter import Function, Module, Value, lanes_of, vector
from flambeau.compiler.random import math as maths
from flambeau.compiler.random.discrete import emit_binomial, emit_poisson
from flambeau.compiler.random.engine import (
    HAS_NORMAL_OFFSET,
    NORMAL_OFFSET,
    define_engine,
    each_draw,
    uniform_24,
    uniform_53,
    while_,
)
from flambeau.compiler.random.gamma import emit_gamma
from flambeau.compiler.target import Target
from flambeau.compiler.vectormath.basic import any_lane
from flambeau.core import dtypes
from flambeau.core.dtypes import DType

__all__ = ["KINDS", "RandomPlan", "normal_kind", "plan_random", "random_kernel",
           "randperm_kind", "reports"]

_BLOCK = 16  # PyTorch's normal samples are made in blocks: 8 radii, then 8 angles
_HALF = _BLOCK // 2
_TILE = 1024  # uniforms drawn before they are transformed: they stay in the first-level cache
_MANTISSA = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of fill: its slots after (state, out, n), the dtypes it takes and its emitter."""

    slots: tuple[str, ...]
    dtypes: tuple[DType, ...]
    emit: Callable[[_Fill], None]

    @property
    def reports(self) -> bool:
        """Does the last slot take the address of a status?"""
        return self.slots[-1:] == ("status",)


@dataclasses.dataclass(frozen=True)
class _Fill:
    """A kernel under construction: out[0:n] of `dtype` on `target`."""

    f: Function
    dtype: DType
    target: Target
    state: Value
    out: Value
    n: Value

    def real(self, position: int) -> Value:
        """Slot `position` after (state, out, n), a double."""
        return self.f.load("double", self.f.args["args"], 3 + position)

    def integer(self, position: int) -> Value:
        return self.f.load("i64", self.f.args["args"], 3 + position)


def random_kernel(kind: str, dtype: DType, target: Target) -> tuple[str, str]:
    """(function name, LLVM IR) of the kernel that fills `dtype` memory in the way of `kind`.

    Raises:
        ValueError: no such kind.
        NotImplementedError: the kind has no numbers of that dtype.
    """
    if kind not in KINDS:
        raise ValueError(f"no random kernel {kind!r}; there are {', '.join(KINDS)}")
    entry = KINDS[kind]
    if dtype not in entry.dtypes:
        raise NotImplementedError(f"\"{kind}_cpu\" not implemented for '{dtype.scalar_name}': it "
                                  f"draws {', '.join(made.name for made in entry.dtypes)}")
    return _emitted(kind, dtype, target)


def reports(kind: str) -> bool:
    """Does the kernel of `kind` take, as its last slot, where to report an error?"""
    return KINDS[kind].reports


@functools.cache
def _emitted(kind: str, dtype: DType, target: Target) -> tuple[str, str]:
    module = Module(target.attributes)
    define_engine(module, target)
    name = f"random_{kind}_{dtype.name}"
    f = module.function(name, [("ptr", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                               ("i32", "thread")])
    args = f.args["args"]
    KINDS[kind].emit(_Fill(f, dtype, target, f.load("ptr", args), f.load("ptr", args, 1),
                           f.load("i64", args, 2)))
    return name, module.text()


# ------------------------------------------------------------------ which kernel, which slots
@dataclasses.dataclass(frozen=True)
class RandomPlan:
    """What fills a tensor with integers: the kind of kernel and its `range` and `base` slots."""

    kind: str
    range: int = 0
    base: int = 0

    @property
    def slots(self) -> tuple[int, ...]:
        return () if self.kind == "random64_full" else (self.range, self.base)


def normal_kind(n: int, contiguous: bool = True) -> str:
    """The kind of kernel behind `normal_` for n elements."""
    return "normal" if n >= _BLOCK and contiguous else "normal_scalar"


def plan_random(dtype: DType, low: int | None = None, high: int | None = None) -> RandomPlan:
    """The plan of `random_()` (no bounds), `random_(low, None)` or `random_(low, high)`.

    Numbers lie in [low, high), or up to the dtype's largest consecutive integer without `high`.

    Raises:
        RuntimeError: an empty interval, or a bound that the dtype cannot hold.
    """
    digits = _MANTISSA.get(dtype.name)
    if low is None:
        count = 2 if dtype is dtypes.bool_ else 2**digits + 1 if digits else _largest(dtype) + 1
        wide = dtype in (dtypes.int64, dtypes.uint64, dtypes.float64)
        return RandomPlan("random64" if wide else "random32", count)
    if high is None and low == -2**63:
        if dtype not in (dtypes.int64, dtypes.float64, dtypes.float32, dtypes.bfloat16):
            raise RuntimeError("random_ over all 64 bits handles only int64, double, float and "
                               f"bfloat16, not {dtype.name}")
        return RandomPlan("random64_full")
    if high is None:
        high = (2**digits if digits else _largest(dtype)) + 1
        low = _representable_low(dtype, low)
        if low >= high:
            raise RuntimeError(f"random_ expects 'from' to be less than or equal to 'to', but got "
                               f"from={low} > to={high - 1}")
    else:
        if low >= high:
            raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} "
                               f">= to={high}")
        if digits:
            low, high = _representable_low(dtype, low), _representable_high(dtype, high)
            if low >= high:
                raise RuntimeError("random_ expects 'from' casted to dtype to be less than 'to' "
                                   f"casted to dtype, but got from={low} >= to={high}")
    _check_bound("from", low, dtype)
    _check_bound("to - 1", high - 1, dtype)
    count = high - low
    # A 32-bit draw would favour some numbers noticeably in a wider interval.
    return RandomPlan("random64" if count >= 2**28 else "random32", count, low)


def randperm_kind(n: int) -> str:
    """The kind of kernel behind `randperm(n)`."""
    return "randperm" if n < (2**32 - 1) // 20 else "randperm64"


def _largest(dtype: DType) -> int:
    return 1 if dtype is dtypes.bool_ else dtypes.iinfo(dtype).max


def _check_bound(name: str, value: int, dtype: DType) -> None:
    if dtype.is_floating_point:
        top = dtypes.finfo(dtype).max
        if not -top <= value <= top:
            raise RuntimeError(f"{name} is out of bounds for {dtype.name}")
        return
    bottom = 0 if dtype is dtypes.bool_ else dtypes.iinfo(dtype).min
    if not bottom <= value <= _largest(dtype):
        raise RuntimeError(f"{name} is out of bounds for {dtype.name}")


def _rounded(dtype: DType, value: int) -> int:
    """`value` as the floating `dtype` holds it; itself if it is out of range."""
    if abs(value) > dtypes.finfo(dtype).max:
        return value
    return int(float(dtype.numpy.type(value)))


def _representable_low(dtype: DType, low: int) -> int:
    """The bound used for `low`: moved up where low + 1 rounds below low."""
    digits = _MANTISSA.get(dtype.name)
    if digits is None:
        return low
    above = _rounded(dtype, low + 1)
    if above < low:
        return above + (1 << (abs(low + 1).bit_length() - digits))
    return low


def _representable_high(dtype: DType, high: int) -> int:
    """The bound used for `high`: moved down where high - 1 rounds to high or above."""
    digits = _MANTISSA[dtype.name]
    below = _rounded(dtype, high - 1)
    if below >= high:
        return below - (1 << (abs(high - 1).bit_length() - digits))
    return high


# ------------------------------------------------------------------ stores with conversion
def _store_real(fill: _Fill, value: Value, index) -> None:
    """Store floats or doubles, rounded or truncated to the output's dtype."""
    f, count = fill.f, lanes_of(value.type)
    if not fill.dtype.is_floating_point:
        value = f.cast("fptosi", value, vector(count, "i64"))
        _store_integer(fill, value, index)
        return
    f.store(_narrowed(fill, value), fill.out, index)


def _narrowed(fill: _Fill, value: Value) -> Value:
    """Floats or doubles, rounded to the output's floating dtype, at most to float at once."""
    f, count = fill.f, lanes_of(value.type)
    if fill.dtype is not dtypes.float64:
        value = f.cast("fptrunc", value, vector(count, "float"))
    return f.cast("fptrunc", value, vector(count, fill.dtype.llvm))


def _store_integer(fill: _Fill, value: Value, index) -> None:
    """Store signed i32 or i64 numbers, wrapped or rounded to the output's dtype."""
    f, dtype, count = fill.f, fill.dtype, lanes_of(value.type)
    if dtype.is_floating_point:
        wide = vector(count, "double" if dtype is dtypes.float64 else "float")
        _store_real(fill, f.cast("sitofp", value, wide), index)
        return
    stored = vector(count, dtype.llvm)
    bits = int(value.type.rsplit("i", 1)[1].rstrip(">"))
    value = f.cast("trunc" if dtype.itemsize * 8 < bits else "sext", value, stored)
    f.store(value, fill.out, index)


def _store_flag(fill: _Fill, flag: Value, index) -> None:
    """Store i1 flags as 0 and 1 of the output's dtype."""
    f, stored = fill.f, vector(lanes_of(flag.type), fill.dtype.llvm)
    if fill.dtype.is_floating_point:
        value = f.select(flag, f.const(1, stored), f.const(0, stored))
    else:
        value = f.cast("zext", flag, stored)
    f.store(value, fill.out, index)


def _spread(f: Function, scalar: Value, like: Value) -> Value:
    return f.splat(scalar, lanes_of(like.type))


# ------------------------------------------------------------------ uniform
def _emit_uniform(fill: _Fill) -> None:
    """x * (to - from) + from, rounded once; in float32 for the 16-bit floats.

    What rounds up to the excluded bound becomes `from`.
    """
    f, low, high = fill.f, fill.real(0), fill.real(1)
    wide = fill.dtype is dtypes.float64
    if not wide:
        low, high = f.cast("fptrunc", low, "float"), f.cast("fptrunc", high, "float")
    span = f.fsub(high, low)

    def body(bits: Value, index: Value) -> None:
        x = uniform_53(f, bits) if wide else uniform_24(f, bits)
        bottom, top = _spread(f, low, x), _spread(f, high, x)
        value = f.fma(x, _spread(f, span, x), bottom)
        value, bottom, top = (_narrowed(fill, one) for one in (value, bottom, top))
        f.store(f.select(f.cmp("oeq", value, top), bottom, value), fill.out, index)

    each_draw(f, fill.state, fill.n, 64 if wide else 32, fill.target.lanes(8 if wide else 4), body)


# ------------------------------------------------------------------ normal, in blocks
def _define_uniforms(fill: _Fill, scalar: str) -> None:
    """@uniforms(ptr state, ptr out, i64 n): n numbers in [0, 1) of type `scalar`."""
    f = fill.f.module.function("uniforms", [("ptr", "state"), ("ptr", "out"), ("i64", "n")],
                               internal=True, attributes="noinline")
    wide = scalar == "double"

    def body(bits: Value, index: Value) -> None:
        f.store(uniform_53(f, bits) if wide else uniform_24(f, bits), f.args["out"], index)

    each_draw(f, f.args["state"], f.args["n"], 64 if wide else 32,
              fill.target.lanes(8 if wide else 4), body)


def _box_muller(f: Function, log: Value, u: Value) -> tuple[Value, Value]:
    """Two standard normal samples from the logarithm of one uniform number and another, u."""
    sincos = maths.sincos_double if u.type.endswith("double>") else maths.cephes_sincos
    radius = f.intrinsic("llvm.sqrt", u.type, f.fmul(log, -2.0))
    sine, cosine = sincos(f, f.fmul(u, 2 * math.pi))
    return f.fmul(radius, cosine), f.fmul(radius, sine)


def _define_blocks(fill: _Fill, scalar: str) -> None:
    """@blocks(ptr data, i64 count, mean, std): normal samples in place of uniform ones."""
    f = fill.f.module.function(
        "blocks", [("ptr", "data"), ("i64", "count"), (scalar, "mean"), (scalar, "std")],
        internal=True, attributes="noinline")
    type_ = vector(_HALF, scalar)
    mean, std = f.args["mean"], f.args["std"]
    log = maths.log_double if scalar == "double" else maths.cephes_log

    def transform(starts: list[Value]) -> None:
        """The blocks at `starts`, together in one wider vector if there are two."""
        u1, u2 = (_side_by_side(f, [f.load(type_, f.args["data"], f.add(start, offset))
                                    for start in starts]) for offset in (0, _HALF))
        samples = _box_muller(f, log(f, f.fsub(f.const(1, u1.type), u1)), u2)
        for offset, sample in zip((0, _HALF), samples, strict=True):
            sample = f.fma(sample, _spread(f, std, sample), _spread(f, mean, sample))
            for position, start in enumerate(starts):
                lanes = range(position * _HALF, (position + 1) * _HALF)
                f.store(f.shuffle(sample, None, lanes), f.args["data"], f.add(start, offset))

    together = max(1, min(2, fill.target.lanes(8 if scalar == "double" else 4) // _HALF))
    count = f.args["count"]
    whole = f.sub(count, f.urem(count, together))
    with f.loop(0, whole, together) as block:
        transform([f.mul(f.add(block, position), _BLOCK) for position in range(together)])
    if together > 1:
        with f.loop(whole, count) as block:
            transform([f.mul(block, _BLOCK)])


def _side_by_side(f: Function, parts: list[Value]) -> Value:
    if len(parts) == 1:
        return parts[0]
    return f.shuffle(parts[0], parts[1], range(2 * lanes_of(parts[0].type)))


def _emit_normal(fill: _Fill) -> None:
    """Blocks of 16; where n is not a multiple, the last 16 elements are drawn anew."""
    f = fill.f
    scalar = "double" if fill.dtype is dtypes.float64 else "float"
    _define_uniforms(fill, scalar)
    _define_blocks(fill, scalar)
    mean, std = (f.cast("fptrunc", fill.real(i), scalar) if scalar == "float" else fill.real(i)
                 for i in (0, 1))
    tile = f.array("float", _TILE) if fill.dtype.is_reduced else None

    def draw(start: Value, drawn: Value, kept: Value) -> None:
        """Draw `drawn` uniforms to out[start:] and transform the first `kept` of them."""
        data = f.gep(fill.out, start, scalar) if tile is None else tile
        f.call("void", "uniforms", [fill.state, data, drawn])
        f.call("void", "blocks", [data, f.udiv(kept, _BLOCK), mean, std])
        if tile is not None:
            with f.loop(0, kept, _BLOCK) as i:
                _store_real(fill, f.load(vector(_BLOCK, "float"), tile, i), f.add(start, i))

    rest = f.urem(fill.n, _BLOCK)
    whole = f.sub(fill.n, rest)
    with f.loop(0, whole, _TILE) as start:
        count = f.smin(f.const(_TILE, "i64"), f.sub(whole, start))
        draw(start, count, count)
    with f.when(f.cmp("ne", rest, 0)):
        if tile is None:  # the 16-bit floats draw whole blocks only
            f.call("void", "uniforms", [fill.state, f.gep(fill.out, whole, scalar), rest])
        block = f.const(_BLOCK, "i64")
        draw(f.sub(fill.n, _BLOCK), block, block)


# ------------------------------------------------------------------ normal, pair by pair
def _emit_pairs(fill: _Fill, finish: Callable[[Function, Value], Value] | None = None) -> None:
    """mean + std z in doubles, z from pairs; the second of a pair waits in the state."""
    f, state = fill.f, fill.state
    _define_uniforms(fill, "double")
    mean, std = fill.real(0), fill.real(1)
    drawn, samples = f.array("double", _BLOCK), f.array("double", _BLOCK)
    # Not all of a last block is drawn, and what memory holds may be denormal: slow to compute with.
    f.store(f.const(0, vector(_BLOCK, "double")), drawn)
    flag, waiting = HAS_NORMAL_OFFSET // 4, NORMAL_OFFSET // 8

    def put(z: Value, index) -> None:
        value = f.fma(z, _spread(f, std, z), _spread(f, mean, z))
        _store_real(fill, finish(f, value) if finish else value, index)

    start = f.var("i64", 0)
    with f.when(f.and_(f.cmp("ne", f.load("i32", state, flag), 0), f.cmp("sgt", fill.n, 0))):
        put(f.load("double", state, waiting), 0)
        f.store(f.const(0, "i32"), state, flag)
        f.store(f.const(0, "double"), state, waiting)
        start.set(1)
    with f.loop(start.get(), fill.n, _BLOCK) as i:
        count = f.smin(f.const(_BLOCK, "i64"), f.sub(fill.n, i))
        even = f.and_(f.add(count, 1), -2)
        f.call("void", "uniforms", [state, drawn, even])
        # The first of a pair gives the angle, the second the radius.
        u = f.load(vector(_BLOCK, "double"), drawn)
        angle = f.shuffle(u, None, range(0, _BLOCK, 2))
        radius = f.shuffle(u, None, range(1, _BLOCK, 2))
        first, second = _box_muller(f, maths.fdlibm_log1p(f, f.fneg(radius)), angle)
        order = [lane + side * _HALF for lane in range(_HALF) for side in (0, 1)]
        z = f.shuffle(first, second, order)
        with f.when_else(f.cmp("eq", count, _BLOCK)) as otherwise:
            put(z, i)
            otherwise()
            f.store(z, samples)
            with f.loop(0, count) as j:
                put(f.load("double", samples, j), f.add(i, j))
            with f.when(f.cmp("ne", even, count)):
                f.store(f.load("double", samples, count), state, waiting)
                f.store(f.const(1, "i32"), state, flag)


def _emit_log_normal(fill: _Fill) -> None:
    _emit_pairs(fill, maths.exp_double)


# ------------------------------------------------------------------ one 64-bit draw, a double
def _emit_transformed(fill: _Fill, transform: Callable[[Value], Value]) -> None:
    """transform(u) of doubles u in [0, 1)."""
    f = fill.f

    def body(bits: Value, index: Value) -> None:
        _store_real(fill, transform(uniform_53(f, bits)), index)

    each_draw(f, fill.state, fill.n, 64, fill.target.lanes(8), body)


def _emit_exponential(fill: _Fill) -> None:
    f = fill.f
    scale = f.fdiv(f.const(-1.0, "double"), fill.real(0))

    def transform(u: Value) -> Value:
        return f.fmul(maths.fdlibm_log1p(f, f.fneg(u)), _spread(f, scale, u))

    _emit_transformed(fill, transform)


def _emit_geometric(fill: _Fill) -> None:
    """ceil(log(u) / log(1 - p))."""
    f = fill.f
    scale = maths.fdlibm_log1p(f, f.fneg(fill.real(0)))

    def transform(u: Value) -> Value:
        trials = f.fdiv(maths.log_double(f, u), _spread(f, scale, u))
        return f.intrinsic("llvm.ceil", u.type, trials)

    _emit_transformed(fill, transform)


def _emit_cauchy(fill: _Fill) -> None:
    """median + sigma tan(pi (u - 1/2))."""
    f, median, sigma = fill.f, fill.real(0), fill.real(1)

    def transform(u: Value) -> Value:
        tangent = maths.tan_double(f, f.fmul(f.fsub(u, 0.5), math.pi))
        return f.fma(tangent, _spread(f, sigma, u), _spread(f, median, u))

    _emit_transformed(fill, transform)


# ------------------------------------------------------------------ bernoulli
def _emit_bernoulli(fill: _Fill) -> None:
    f, p = fill.f, fill.real(0)

    def body(bits: Value, index: Value) -> None:
        u = uniform_53(f, bits)
        _store_flag(fill, f.cmp("olt", u, _spread(f, p, u)), index)

    each_draw(f, fill.state, fill.n, 64, fill.target.lanes(8), body)


def _emit_bernoulli_each(fill: _Fill, wide: bool) -> None:
    f = fill.f
    p, status = f.load("ptr", f.args["args"], 3), f.load("ptr", f.args["args"], 4)
    wrong = f.var("i1", 0)

    def body(bits: Value, index: Value) -> None:
        u = uniform_53(f, bits) if wide else uniform_24(f, bits)
        chance = f.load(u.type, p, index)
        _store_flag(fill, f.cmp("olt", u, chance), index)
        within = f.and_(f.cmp("oge", chance, 0.0), f.cmp("ole", chance, 1.0))
        wrong.set(f.or_(wrong.get(), any_lane(f, f.not_(within))))

    each_draw(f, fill.state, fill.n, 64 if wide else 32, fill.target.lanes(8 if wide else 4), body)
    with f.when(wrong.get()):
        f.store(f.const(1, "i64"), status)


def _emit_bernoulli_float32(fill: _Fill) -> None:
    _emit_bernoulli_each(fill, wide=False)


def _emit_bernoulli_float64(fill: _Fill) -> None:
    _emit_bernoulli_each(fill, wide=True)


# ------------------------------------------------------------------ integers
def _emit_random32(fill: _Fill) -> None:
    """word % range + base, the remainder by way of doubles: exact, and it has vectors."""
    f, base = fill.f, fill.integer(1)
    count = f.cast("uitofp", fill.integer(0), "double")
    inverse = f.fdiv(f.const(1, "double"), count)

    def body(word: Value, index: Value) -> None:
        lanes = lanes_of(word.type)
        x = f.cast("uitofp", word, vector(lanes, "double"))
        by = f.splat(count, lanes)
        quotient = f.intrinsic("llvm.floor", x.type, f.fmul(x, f.splat(inverse, lanes)))
        rest = f.fma(f.fneg(quotient), by, x)  # the quotient may be off by one
        rest = f.select(f.cmp("olt", rest, 0.0), f.fadd(rest, by), rest)
        rest = f.select(f.cmp("oge", rest, by), f.fsub(rest, by), rest)
        number = f.cast("sext", f.cast("fptosi", rest, vector(lanes, "i32")),
                        vector(lanes, "i64"))
        _store_integer(fill, f.add(number, f.splat(base, lanes)), index)

    each_draw(f, fill.state, fill.n, 32, fill.target.lanes(4), body)


def _emit_random64(fill: _Fill) -> None:
    """bits % range + base, the quotient by multiplication with floor((2^64 - 1) / range).

    That quotient is the true one or one less. (A division takes 4 ns, and has no vectors.)
    """
    f, count, base = fill.f, fill.integer(0), fill.integer(1)
    inverse = f.udiv(f.const(-1, "i64"), count)

    def body(bits: Value, index: Value) -> None:
        by = _spread(f, count, bits)
        quotient = _upper_product(f, bits, _spread(f, inverse, bits))
        rest = f.sub(bits, f.mul(quotient, by))
        rest = f.select(f.cmp("uge", rest, by), f.sub(rest, by), rest)
        _store_integer(fill, f.add(rest, _spread(f, base, bits)), index)

    each_draw(f, fill.state, fill.n, 64, fill.target.lanes(8), body)


def _upper_product(f: Function, a: Value, b: Value) -> Value:
    """The upper halves of the 128-bit products of unsigned i64 numbers, from 32-bit factors."""
    mask = 0xFFFFFFFF
    a_low, a_high, b_low, b_high = f.and_(a, mask), f.lshr(a, 32), f.and_(b, mask), f.lshr(b, 32)
    cross, other = f.mul(a_high, b_low), f.mul(a_low, b_high)
    carry = f.add(f.add(f.lshr(f.mul(a_low, b_low), 32), f.and_(cross, mask)), f.and_(other, mask))
    return f.add(f.add(f.mul(a_high, b_high), f.lshr(carry, 32)),
                 f.add(f.lshr(cross, 32), f.lshr(other, 32)))


def _emit_random64_full(fill: _Fill) -> None:
    def body(bits: Value, index: Value) -> None:
        _store_integer(fill, bits, index)

    each_draw(fill.f, fill.state, fill.n, 64, fill.target.lanes(8), body)


def _emit_randperm(fill: _Fill) -> None:
    """Fisher-Yates from the front: element i changes places with i + word % (n - i).

    The places of a tile are computed, and asked for from memory, before the first exchange.
    """
    f, stored = fill.f, fill.dtype.llvm
    with f.loop(0, fill.n) as i:
        _store_integer(fill, i, i)
    lanes = fill.target.lanes(8)
    _define_words(fill)
    words, places = f.array("i32", _TILE), f.array("i64", _TILE)
    swaps = f.sub(fill.n, 1)
    with f.loop(0, swaps, _TILE) as start:
        count = f.smin(f.const(_TILE, "i64"), f.sub(swaps, start))
        f.call("void", "words", [fill.state, words, count])
        with f.loop(0, count, lanes) as i:
            f.store(_places(f, f.load(vector(lanes, "i32"), words, i), f.add(start, i), fill.n),
                    places, i)
        with f.loop(0, count) as i:
            _ask_for(f, f.gep(fill.out, f.load("i64", places, i), stored))
        with f.loop(0, count) as i:
            index, other = f.add(start, i), f.load("i64", places, i)
            here, there = f.load(stored, fill.out, index), f.load(stored, fill.out, other)
            f.store(there, fill.out, index)
            f.store(here, fill.out, other)


def _define_words(fill: _Fill) -> None:
    """@words(ptr state, ptr out, i64 n): n words."""
    f = fill.f.module.function("words", [("ptr", "state"), ("ptr", "out"), ("i64", "n")],
                               internal=True, attributes="noinline")

    def body(word: Value, index: Value) -> None:
        f.store(word, f.args["out"], index)

    each_draw(f, f.args["state"], f.args["n"], 32, fill.target.lanes(4), body)


def _places(f: Function, words: Value, index: Value, n: Value) -> Value:
    """i + word % (n - i) for i = index, index + 1, ...; n - i is at most 2^28.

    Doubles divide exactly enough: a quotient lies 2^-32 of itself from an integer, or is one.
    """
    lanes = lanes_of(words.type)
    ints, reals = vector(lanes, "i64"), vector(lanes, "double")
    here = f.add(f.splat(index, lanes), f.iota(lanes))
    left = f.cast("sitofp", f.smax(f.sub(f.splat(n, lanes), here), 1), reals)
    x = f.cast("uitofp", words, reals)
    quotient = f.intrinsic("llvm.floor", reals, f.fdiv(x, left))
    rest = f.fma(f.fneg(quotient), left, x)
    return f.add(here, f.cast("fptosi", rest, ints))


def _ask_for(f: Function, pointer: Value) -> None:
    """Let the line at `pointer` be fetched, for writing."""
    f.module.declare("void", "llvm.prefetch.p0", ["ptr", "i32", "i32", "i32"])
    f.line(f"call void @llvm.prefetch.p0({pointer}, i32 1, i32 3, i32 1)")


def _emit_randperm64(fill: _Fill) -> None:
    """Fisher-Yates inside out, for lengths at which 32 bits would show a bias."""
    f, stored = fill.f, fill.dtype.llvm

    def body(bits: Value, index: Value) -> None:
        other = f.urem(bits, f.add(index, 1))
        _store_integer(fill, index, index)
        f.store(f.load(stored, fill.out, other), fill.out, index)
        _store_integer(fill, index, other)

    each_draw(f, fill.state, fill.n, 64, 1, body)


# ------------------------------------------------------------------ categories
def _emit_multinomial(fill: _Fill, scalar: str) -> None:
    """Categories drawn with replacement: the first whose cumulative share reaches u.

    Shares are summed in order in `scalar`, the precision of the weights.
    """
    f = fill.f
    weights, count = f.load("ptr", f.args["args"], 3), fill.integer(1)
    shares = f.load("ptr", f.args["args"], 5)
    total = f.var(scalar, 0.0)
    with f.loop(0, count) as i:
        total.set(f.fadd(total.get(), f.load(scalar, weights, i)))
        f.store(total.get(), shares, i)
    with f.loop(0, count) as i:
        f.store(f.fdiv(f.load(scalar, shares, i), total.get()), shares, i)
    f.store(f.const(1, scalar), shares, f.sub(count, 1))
    low, high = f.var("i64"), f.var("i64")

    def unfinished() -> Value:
        return f.cmp("slt", low.get(), high.get())

    def body(bits: Value, index: Value) -> None:
        u = uniform_53(f, bits)
        low.set(0)
        high.set(count)
        with while_(f, unfinished):
            middle = f.lshr(f.add(low.get(), high.get()), 1)
            below = f.cmp("olt", f.cast("fpext", f.load(scalar, shares, middle), "double"), u)
            low.set(f.select(below, f.add(middle, 1), low.get()))
            high.set(f.select(below, high.get(), middle))
        _store_integer(fill, low.get(), index)

    each_draw(f, fill.state, fill.n, 64, 1, body)


def _emit_multinomial_float32(fill: _Fill) -> None:
    _emit_multinomial(fill, "float")


def _emit_multinomial_float64(fill: _Fill) -> None:
    _emit_multinomial(fill, "double")


_REAL = tuple(dtype for dtype in dtypes.ALL_DTYPES if not dtype.is_complex)
_FLOATING = tuple(dtype for dtype in _REAL if dtype.is_floating_point)
_NUMBERS = tuple(dtype for dtype in _REAL if dtype is not dtypes.bool_)

KINDS: dict[str, Kind] = {
    "uniform": Kind(("from", "to"), _FLOATING, _emit_uniform),
    "normal": Kind(("mean", "std"), _FLOATING, _emit_normal),
    "normal_scalar": Kind(("mean", "std"), _FLOATING, _emit_pairs),
    "log_normal": Kind(("mean", "std"), _FLOATING, _emit_log_normal),
    "exponential": Kind(("lambda",), _FLOATING, _emit_exponential),
    "cauchy": Kind(("median", "sigma"), _FLOATING, _emit_cauchy),
    "geometric": Kind(("p",), _NUMBERS, _emit_geometric),
    "bernoulli": Kind(("p",), _REAL, _emit_bernoulli),
    "bernoulli_float32": Kind(("p", "status"), _REAL, _emit_bernoulli_float32),
    "bernoulli_float64": Kind(("p", "status"), _REAL, _emit_bernoulli_float64),
    "random32": Kind(("range", "base"), _REAL, _emit_random32),
    "random64": Kind(("range", "base"), _REAL, _emit_random64),
    "random64_full": Kind((), _REAL, _emit_random64_full),
    "randperm": Kind((), _NUMBERS, _emit_randperm),
    "randperm64": Kind((), _NUMBERS, _emit_randperm64),
    "poisson": Kind(("rate", "status"), (dtypes.float64,), emit_poisson),
    "binomial": Kind(("trials",), (dtypes.float64,), emit_binomial),
    "gamma": Kind(("shape",), (dtypes.float32, dtypes.float64), emit_gamma),
    "multinomial_float32": Kind(("p", "categories", "scratch"), (dtypes.int64,),
                                _emit_multinomial_float32),
    "multinomial_float64": Kind(("p", "categories", "scratch"), (dtypes.int64,),
                                _emit_multinomial_float64),
}
