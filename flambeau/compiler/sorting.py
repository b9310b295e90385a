"""The sorting kernel: for every row the permutation that sorts it, stable, NaN last.

Each element becomes one unsigned word, (order-preserving key) << bits | position, so that all words
differ and comparing them is all there is to do. Short rows are sorted by merging runs, long rows by
digits of 8 bits, the least significant first; digits in which all keys agree are skipped.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.dtypes import DType

__all__ = ["SORT_SLOTS", "SortPlan", "sort_kernel", "sort_plan"]

SORT_SLOTS = ("x", "out", "work", "work_stride", "rows", "n", "passes")
RUN = 16  # elements that are sorted by counting who is smaller
RADIX_FROM = {4: 600, 8: 1500}  # row length, by bytes of the key, from which digits beat merging
GRAIN = 2000  # elements below which a chunk is not worth another thread
MAX_CHUNKS = 64


@dataclasses.dataclass(frozen=True)
class SortPlan:
    """How a sort is cut up.

    Attributes:
        radix: by digits instead of by merging.
        passes: how often runs are merged.
        work_stride, work_bytes: scratch memory of a thread, and of all.
    """

    radix: bool
    passes: int
    work_stride: int
    work_bytes: int
    nchunks: int


def _key_bytes(dtype: DType) -> int:
    return 8 if dtype.itemsize == 8 else 4


def sort_plan(dtype: DType, rows: int, n: int, threads: int) -> SortPlan:
    """The plan for `rows` rows of `n` elements."""
    stride = (2 * n * 2 * _key_bytes(dtype) + 63) & -64
    passes = max(0, (-(-n // RUN) - 1).bit_length())
    nchunks = 1 if threads == 1 else max(1, min(rows, rows * n // GRAIN, MAX_CHUNKS))
    return SortPlan(n >= RADIX_FROM[_key_bytes(dtype)], passes, stride, stride * threads, nchunks)


def sort_kernel(dtype: DType, descending: bool, radix: bool, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel: out[row, k] = position of the k-th element of row in order."""
    name = f"sort_{dtype.name}_{'down' if descending else 'up'}_{'radix' if radix else 'merge'}"
    module = Module(target.attributes)
    f = module.function(name, KERNEL_ARGS)
    _Sort(f, dtype, descending).emit(radix)
    return name, module.text()


class _Sort:
    """Emits the body. Words have twice the bits of a key; the position is in the lower half."""

    def __init__(self, f: Function, dtype: DType, descending: bool):
        self.f, self.dtype, self.descending = f, dtype, descending
        self.bits = 8 * _key_bytes(dtype)
        self.key, self.word = f"i{self.bits}", f"i{2 * self.bits}"
        slots = {name: f.load("ptr" if name in ("x", "out", "work") else "i64",
                              f.gep(f.args["args"], place, "i64"))
                 for place, name in enumerate(SORT_SLOTS)}
        self.x, self.out = slots["x"], slots["out"]
        self.rows, self.n, self.passes = slots["rows"], slots["n"], slots["passes"]
        thread = f.cast("zext", f.args["thread"], "i64")
        self.front = f.gep(slots["work"], f.mul(thread, slots["work_stride"]), "i8")
        self.back = f.gep(self.front, self.n, self.word)

    def emit(self, radix: bool) -> None:
        f = self.f
        chunk = f.cast("zext", f.args["chunk"], "i64")
        count = f.cast("zext", f.args["nchunks"], "i64")
        if radix:
            self.counts = f.array("i64", 256 * (self.bits // 8))
        source, target = f.var("ptr", self.front), f.var("ptr", self.back)
        with f.loop(f.udiv(f.mul(self.rows, chunk), count),
                    f.udiv(f.mul(self.rows, f.add(chunk, 1)), count)) as row:
            start = f.mul(row, self.n)
            source.set(self.front)
            target.set(self.back)
            if radix:
                self._by_digits(start, source, target)
            else:
                self._by_merging(start, source, target)
            done = source.get()
            with f.loop(0, self.n) as i:
                word = f.load(self.word, done, i)
                place = f.cast("trunc", f.and_(word, (1 << self.bits) - 1), "i64")
                f.store(place, self.out, f.add(start, i))

    def _swap(self, source, target) -> None:
        old = source.get()
        source.set(target.get())
        target.set(old)

    # ------------------------------------------------------------------ keys
    def _key(self, place: Value) -> Value:
        """The element at `place` as an unsigned number in the wanted order."""
        f, dtype = self.f, self.dtype
        raw = f.load(f"i{8 * dtype.itemsize}", self.x, place)
        if dtype.kind == "f":
            raw = self._float_key(raw)
        elif dtype.kind == "i":
            raw = f.xor(raw, -(1 << (8 * dtype.itemsize - 1)))
        if self.descending:
            raw = f.not_(raw)
        return f.cast("zext", raw, self.key)

    def _float_key(self, bits: Value) -> Value:
        f, dtype = self.f, self.dtype
        width = 8 * dtype.itemsize
        mantissa = {dtypes.float16: 10, dtypes.bfloat16: 7, dtypes.float32: 23,
                    dtypes.float64: 52}[dtype]
        infinity = ((1 << (width - 1)) - 1) >> mantissa << mantissa
        size = f.and_(bits, (1 << (width - 1)) - 1)
        bits = f.select(f.cmp("eq", size, 0), 0, bits)  # -0 equals 0
        flip = f.or_(f.ashr(bits, width - 1), -(1 << (width - 1)))  # all bits of negative numbers
        return f.select(f.cmp("ugt", size, infinity), -1, f.xor(bits, flip))

    def _word(self, key: Value, i: Value) -> Value:
        f = self.f
        place = f.cast("zext", i, self.word)
        return f.or_(f.shl(f.cast("zext", key, self.word), self.bits), place)

    # ------------------------------------------------------------------ short rows
    def _by_merging(self, start: Value, source, target) -> None:
        f, n = self.f, self.n
        with f.loop(0, n) as i:
            f.store(self._word(self._key(f.add(start, i)), i), self.front, i)
        with f.loop(0, n, RUN) as low:
            high = f.smin(f.add(low, RUN), n)
            with f.loop(low, high) as i:
                self._place_in_run(i, low, high)
        self._swap(source, target)
        with f.loop(0, self.passes) as level:
            width = f.shl(f.const(RUN, "i64"), level)
            with f.loop(0, n, f.mul(width, 2)) as low:
                middle = f.smin(f.add(low, width), n)
                high = f.smin(f.add(middle, width), n)
                self._merge(source.get(), target.get(), low, middle, high)
            self._swap(source, target)

    def _place_in_run(self, i: Value, low: Value, high: Value) -> None:
        f = self.f
        word, rank = f.load(self.word, self.front, i), f.var("i64", 0)
        rank.set(low)
        with f.loop(low, high) as j:
            smaller = f.cmp("ult", f.load(self.word, self.front, j), word)
            rank.set(f.add(rank.get(), f.cast("zext", smaller, "i64")))
        f.store(word, self.back, rank.get())

    def _merge(self, source: Value, target: Value, low: Value, middle: Value, high: Value) -> None:
        f = self.f
        left, right = f.var("i64", 0), f.var("i64", 0)
        left.set(low)
        right.set(middle)
        with f.loop(low, high) as k:
            i, j = left.get(), right.get()
            more_left, more_right = f.cmp("slt", i, middle), f.cmp("slt", j, high)
            a = f.load(self.word, source, f.select(more_left, i, low))
            b = f.load(self.word, source, f.select(more_right, j, low))
            take = f.and_(more_left, f.or_(f.not_(more_right), f.cmp("ult", a, b)))
            f.store(f.select(take, a, b), target, k)
            step = f.cast("zext", take, "i64")
            left.set(f.add(i, step))
            right.set(f.add(j, f.sub(f.const(1, "i64"), step)))

    # ------------------------------------------------------------------ long rows
    def _by_digits(self, start: Value, source, target) -> None:
        f, n, digits = self.f, self.n, self.bits // 8
        with f.loop(0, 256 * digits) as i:
            f.store(f.const(0, "i64"), self.counts, i)
        with f.loop(0, n) as i:
            key = self._key(f.add(start, i))
            f.store(self._word(key, i), self.front, i)
            for digit in range(digits):
                at = f.add(self._digit(key, 8 * digit), 256 * digit)
                f.store(f.add(f.load("i64", self.counts, at), 1), self.counts, at)
        first = self._key(start)
        for digit in range(digits):
            counts = f.gep(self.counts, 256 * digit, "i64")
            same = f.load("i64", counts, self._digit(first, 8 * digit))
            with f.when(f.cmp("ne", same, n)):
                self._distribute(digit, counts, source.get(), target.get())
                self._swap(source, target)

    def _digit(self, key: Value, shift: int) -> Value:
        f = self.f
        low = f.and_(f.lshr(key, shift), 255)
        return f.cast("zext", low, "i64")

    def _distribute(self, digit: int, counts: Value, source: Value, target: Value) -> None:
        f = self.f
        total = f.var("i64", 0)
        total.set(0)
        with f.loop(0, 256) as value:
            here = f.load("i64", counts, value)
            f.store(total.get(), counts, value)
            total.set(f.add(total.get(), here))
        with f.loop(0, self.n) as i:
            word = f.load(self.word, source, i)
            low = f.and_(f.lshr(word, self.bits + 8 * digit), 255)
            low = f.cast("trunc", low, "i64")
            place = f.load("i64", counts, low)
            f.store(word, target, place)
            f.store(f.add(place, 1), counts, low)
