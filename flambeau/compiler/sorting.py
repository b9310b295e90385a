"""The sorting kernel: for every row the positions of its elements in order, stable, NaN last.

Each element becomes one unsigned word, (order-preserving key) << bits | position, so that all words
differ and comparing them is all there is to do. Short rows are sorted by merging runs, long rows by
digits of 8 bits, the least significant first; digits in which all keys agree are skipped. If only
a part of a long row's order is wanted, others are sieved out by the leading bits beforehand; if
only the first few are, the row is read once, in full registers, and only what comes before the
last of them so far is looked at.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Function, Module, Value, lanes_of, vector
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.dtypes import DType

__all__ = ["SORT_SLOTS", "SortPlan", "sort_kernel", "sort_plan"]

SORT_SLOTS = ("x", "out", "work", "work_stride", "rows", "n", "limit", "first")
RUN = 16  # elements that are sorted by counting who is smaller
RADIX_FROM = {4: 600, 8: 1500}  # row length, by bytes of the key, from which digits beat merging
SIEVE_BITS = 12  # leading bits of (key - smallest key) by which candidates are chosen
SIEVE_FROM = 2048  # row length from which that pays if no more than a quarter is wanted
SELECT_FROM, SELECT_MOST, SELECT_PART = 256, 256, 32  # row length, and what is wanted, for "select"
GRAIN = 2000  # elements below which a chunk is not worth another thread
MAX_CHUNKS = 64


@dataclasses.dataclass(frozen=True)
class SortPlan:
    """How a sort is cut up.

    Attributes:
        method: "merge", "radix", "sieve" or "select".
        work_stride, work_bytes: scratch memory of a thread, and of all.
    """

    method: str
    work_stride: int
    work_bytes: int
    nchunks: int


def _key_bytes(dtype: DType) -> int:
    return 8 if dtype.itemsize == 8 else 4


def sort_plan(dtype: DType, rows: int, n: int, limit: int, threads: int, first: int = 0
              ) -> SortPlan:
    """The plan for `rows` rows of `n` elements of which those from place `first` in order up to
    place `limit` are wanted."""
    stride = (2 * n * 2 * _key_bytes(dtype) + 63) & -64
    nchunks = 1 if threads == 1 else max(1, min(rows, rows * n // GRAIN, MAX_CHUNKS))
    method = "radix" if n >= RADIX_FROM[_key_bytes(dtype)] else "merge"
    if n >= SIEVE_FROM and limit - first <= n // 4:
        method = "sieve"
    if n >= SELECT_FROM and limit <= min(SELECT_MOST, n // SELECT_PART):
        method = "select"
    return SortPlan(method, stride, stride * threads, nchunks)


def sort_kernel(dtype: DType, descending: bool, method: str, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel: out[row, k] = position of the element of row that comes
    at place first + k in order."""
    name = f"sort_{dtype.name}_{'down' if descending else 'up'}_{method}"
    module = Module(target.attributes)
    f = module.function(name, KERNEL_ARGS)
    _Sort(f, dtype, descending, target.lanes(_key_bytes(dtype))).emit(method)
    return name, module.text()


class _Sort:
    """Emits the body. Words have twice the bits of a key; the position is in the lower half."""

    def __init__(self, f: Function, dtype: DType, descending: bool, lanes: int):
        self.f, self.dtype, self.descending, self.lanes = f, dtype, descending, lanes
        self.bits = 8 * _key_bytes(dtype)
        self.key, self.word = f"i{self.bits}", f"i{2 * self.bits}"
        slots = {name: f.load("ptr" if name in ("x", "out", "work") else "i64",
                              f.gep(f.args["args"], place, "i64"))
                 for place, name in enumerate(SORT_SLOTS)}
        self.x, self.out = slots["x"], slots["out"]
        self.rows, self.n, self.limit = slots["rows"], slots["n"], slots["limit"]
        self.first = slots["first"]
        thread = f.cast("zext", f.args["thread"], "i64")
        self.front = f.gep(slots["work"], f.mul(thread, slots["work_stride"]), "i8")
        self.back = f.gep(self.front, self.n, self.word)

    def emit(self, method: str) -> None:
        f = self.f
        chunk = f.cast("zext", f.args["chunk"], "i64")
        count = f.cast("zext", f.args["nchunks"], "i64")
        self.counts = f.array("i64", 256 * (self.bits // 8))
        self.bins = f.array("i64", 1 << SIEVE_BITS) if method == "sieve" else None
        source, target = f.var("ptr"), f.var("ptr")
        self.below = f.var("i64", 0)  # how many come before the words that are sorted
        row_of = {"merge": self._by_merging, "radix": self._by_digits, "sieve": self._by_sieve,
                  "select": self._by_selection}
        with f.loop(f.udiv(f.mul(self.rows, chunk), count),
                    f.udiv(f.mul(self.rows, f.add(chunk, 1)), count)) as row:
            start, wanted = f.mul(row, self.n), f.sub(self.limit, self.first)
            results = f.mul(row, wanted)
            with f.when_else(self._is_in_order(start)) as otherwise:
                with f.loop(0, wanted) as i:
                    f.store(f.add(self.first, i), self.out, f.add(results, i))
                otherwise()
                source.set(self.front)
                target.set(self.back)
                row_of[method](start, source, target)
                skipped = f.sub(self.first, self.below.get())
                with f.loop(0, wanted) as i:
                    word = f.load(self.word, source.get(), f.add(skipped, i))
                    place = f.cast("trunc", f.and_(word, (1 << self.bits) - 1), "i64")
                    f.store(place, self.out, f.add(results, i))

    def _is_in_order(self, start: Value) -> Value:
        """Does no element of a row come after the next one? Looked at up to the first that does:
        sorting such rows again is common, and costs little more than reading them."""
        f, lanes = self.f, self.lanes
        type_ = vector(lanes, f"i{8 * self.dtype.itemsize}")
        last, ordered = f.sub(self.n, 1), f.var("i1")
        ordered.set(f.const(True, "i1"))
        with f.loop(0, last, lanes) as low, f.when(ordered.get()):
            inside, at = f.lane_mask(lanes, f.sub(last, low)), f.add(start, low)
            here, after = (self._ordered(f.masked_load(type_, self.x, inside, 0, place))
                           for place in (at, f.add(at, 1)))
            later = f.and_(inside, f.cmp("ugt", here, after))
            ordered.set(f.cmp("eq", f.cast("bitcast", later, f"i{lanes}"), 0))
        return ordered.get()

    def _swap(self, source, target) -> None:
        old = source.get()
        source.set(target.get())
        target.set(old)

    # ------------------------------------------------------------------ keys
    def _key(self, place: Value) -> Value:
        """The element at `place` as an unsigned number in the wanted order."""
        return self._ordered(self.f.load(f"i{8 * self.dtype.itemsize}", self.x, place))

    def _ordered(self, raw: Value) -> Value:
        """The bits of an element, or of several, as unsigned numbers in the wanted order."""
        f, dtype = self.f, self.dtype
        if dtype.kind == "f":
            raw = self._float_key(raw)
        elif dtype.kind == "i":
            raw = f.xor(raw, -(1 << (8 * dtype.itemsize - 1)))
        if self.descending:
            raw = f.not_(raw)
        return f.cast("zext", raw, vector(lanes_of(raw.type), self.key))

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
        f = self.f
        with f.loop(0, self.n) as i:
            f.store(self._word(self._key(f.add(start, i)), i), self.front, i)
        self._merge_words(self.n, source, target)

    def _merge_words(self, n: Value, source, target) -> None:
        """Sort the first n words: runs by counting, then merge neighbours until one run is left."""
        f = self.f
        with f.loop(0, n, RUN) as low:
            high = f.smin(f.add(low, RUN), n)
            with f.loop(low, high) as i:
                self._place_in_run(i, low, high)
        self._swap(source, target)
        with f.loop(0, 40) as level:
            width = f.shl(f.const(RUN, "i64"), level)
            with f.when(f.cmp("slt", width, n)):
                with f.loop(0, n, f.mul(width, 2)) as low:
                    middle = f.smin(f.add(low, width), n)
                    high = f.smin(f.add(middle, width), n)
                    self._merge(source.get(), target.get(), low, middle, high)
                self._swap(source, target)

    def _place_in_run(self, i: Value, low: Value, high: Value) -> None:
        f = self.f
        word, rank = f.load(self.word, self.front, i), f.var("i64")
        rank.set(low)
        with f.loop(low, high) as j:
            smaller = f.cmp("ult", f.load(self.word, self.front, j), word)
            rank.set(f.add(rank.get(), f.cast("zext", smaller, "i64")))
        f.store(word, self.back, rank.get())

    def _merge(self, source: Value, target: Value, low: Value, middle: Value, high: Value) -> None:
        f = self.f
        left, right = f.var("i64"), f.var("i64")
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
        f = self.f
        self._clear(self.counts, 256 * (self.bits // 8))
        with f.loop(0, self.n) as i:
            key = self._key(f.add(start, i))
            f.store(self._word(key, i), self.front, i)
            self._count(key)
        self._distribute(self.n, source, target)

    def _clear(self, counts: Value, size: int) -> None:
        with self.f.loop(0, size) as i:
            self.f.store(self.f.const(0, "i64"), counts, i)

    def _count(self, key: Value) -> None:
        f = self.f
        for digit in range(self.bits // 8):
            at = f.add(self._bits_of(key, 8 * digit, 8), 256 * digit)
            f.store(f.add(f.load("i64", self.counts, at), 1), self.counts, at)

    def _bits_of(self, key: Value, shift: int, width: int) -> Value:
        """`width` bits of a key or word from bit `shift` on, as i64."""
        f = self.f
        part = f.and_(f.lshr(key, shift), (1 << width) - 1)
        return f.cast("trunc" if key.type == "i128" else "zext", part, "i64")

    def _distribute(self, n: Value, source, target) -> None:
        """Sort the first n words, whose digits have been counted."""
        f = self.f
        first = f.load(self.word, self.front)
        for digit in range(self.bits // 8):
            counts, shift = f.gep(self.counts, 256 * digit, "i64"), self.bits + 8 * digit
            same = f.load("i64", counts, self._bits_of(first, shift, 8))
            with f.when(f.cmp("ne", same, n)):
                self._distribute_by(shift, counts, n, source.get(), target.get())
                self._swap(source, target)

    def _distribute_by(self, shift: int, counts: Value, n: Value, source: Value, target: Value
                       ) -> None:
        f = self.f
        total = f.var("i64")
        total.set(0)
        with f.loop(0, 256) as value:
            here = f.load("i64", counts, value)
            f.store(total.get(), counts, value)
            total.set(f.add(total.get(), here))
        with f.loop(0, n) as i:
            word = f.load(self.word, source, i)
            value = self._bits_of(word, shift, 8)
            place = f.load("i64", counts, value)
            f.store(word, target, place)
            f.store(f.add(place, 1), counts, value)

    # ------------------------------------------------------------------ the first of a long row
    def _by_sieve(self, start: Value, source, target) -> None:
        """Keep what lies, by its leading bits, between the first and the last one wanted; sort
        that."""
        f = self.f
        lowest, shift = self._range(start)

        def bin_of(key: Value) -> Value:
            return f.cast("zext", f.lshr(f.sub(key, lowest), shift), "i64")

        self._clear(self.bins, 1 << SIEVE_BITS)
        with f.loop(0, self.n) as i:
            value = bin_of(self._key(f.add(start, i)))
            f.store(f.add(f.load("i64", self.bins, value), 1), self.bins, value)
        total, low, bound, kept = (f.var("i64") for _ in range(4))
        for var in (total, low, bound, kept):
            var.set(0)
        with f.loop(0, 1 << SIEVE_BITS) as value:
            early = f.cmp("sle", total.get(), self.first)
            low.set(f.select(early, value, low.get()))
            self.below.set(f.select(early, total.get(), self.below.get()))
            bound.set(f.select(f.cmp("slt", total.get(), self.limit), value, bound.get()))
            total.set(f.add(total.get(), f.load("i64", self.bins, value)))
        start_bin, last = low.get(), bound.get()
        with f.loop(0, self.n) as i:
            key = self._key(f.add(start, i))
            value = bin_of(key)
            f.store(self._word(key, i), self.front, kept.get())
            inside = f.and_(f.cmp("sge", value, start_bin), f.cmp("sle", value, last))
            inside = f.cast("zext", inside, "i64")
            kept.set(f.add(kept.get(), inside))
        n = kept.get()
        with f.when_else(f.cmp("slt", n, RADIX_FROM[self.bits // 8])) as otherwise:
            self._merge_words(n, source, target)
            otherwise()
            self._clear(self.counts, 256 * (self.bits // 8))
            with f.loop(0, n) as i:
                word = f.load(self.word, self.front, i)
                self._count(f.cast("trunc", f.lshr(word, self.bits), self.key))
            self._distribute(n, source, target)

    def _range(self, start: Value) -> tuple[Value, Value]:
        """(the smallest key of the row, how far down the leading bits of a key less that lie)."""
        f = self.f
        low, high = f.var(self.key), f.var(self.key)
        low.set(-1)
        high.set(0)
        with f.loop(0, self.n) as i:
            key = self._key(f.add(start, i))
            low.set(f.intrinsic("llvm.umin", self.key, low.get(), key))
            high.set(f.intrinsic("llvm.umax", self.key, high.get(), key))
        lowest = low.get()
        zeros = f.intrinsic_call(self.key, f"llvm.ctlz.{self.key}",
                                 [f.sub(high.get(), lowest), f.const(False, "i1")])
        return lowest, f.smax(f.sub(f.const(self.bits - SIEVE_BITS, self.key), zeros), 0)

    # ------------------------------------------------------------------ the first few of a row
    def _by_selection(self, start: Value, source, target) -> None:
        """Read the row once. Words that may be among those wanted gather in a buffer; when it is
        full, all but the best go, and the last of these is what later keys must come before."""
        f, lanes = self.f, self.lanes
        room = f.add(f.mul(self.limit, 2), 2 * max(lanes, RUN))
        count, bound, open_ = f.var("i64"), f.var(self.key), f.var("i1")
        count.set(f.const(0, "i64"))
        bound.set(f.const(0, self.key))
        open_.set(f.const(True, "i1"))
        ending = f.mul(f.udiv(self.n, lanes), lanes)  # of the last step, full or not
        with f.loop(0, f.add(ending, 1), lanes) as low:
            inside = f.lane_mask(lanes, f.sub(self.n, low))
            found = self._before(f.add(start, low), inside, bound.get(), open_.get())
            with f.when(f.cmp("ne", found, 0)):
                self._gather(found, start, low, count)
            full = f.cmp("sgt", count.get(), f.sub(room, lanes))
            with f.when(f.or_(full, f.cmp("eq", low, ending))):
                source.set(self.front)
                target.set(self.back)
                self._merge_words(count.get(), source, target)
                kept = f.smin(count.get(), self.limit)
                with f.loop(0, kept) as i:
                    f.store(f.load(self.word, source.get(), i), self.front, i)
                last = f.load(self.word, self.front, f.sub(kept, 1))
                bound.set(f.cast("trunc", f.lshr(last, self.bits), self.key))
                count.set(kept)
                open_.set(f.cmp("slt", kept, self.limit))
        source.set(self.front)

    def _before(self, place: Value, inside: Value, bound: Value, all_: Value) -> Value:
        """The lanes, as bits of an i64, of keys that come before `bound`, or of `all_`."""
        f, lanes = self.f, self.lanes
        type_ = vector(lanes, f"i{8 * self.dtype.itemsize}")
        raw = f.masked_load(type_, self.x, inside, 0, place)
        earlier = f.cmp("ult", self._ordered(raw), f.splat(bound, lanes))
        found = f.and_(inside, f.or_(earlier, f.splat(all_, lanes)))
        return f.cast("zext", f.cast("bitcast", found, f"i{lanes}"), "i64")

    def _gather(self, found: Value, start: Value, low: Value, count) -> None:
        """Append the words of the lanes whose bits are set."""
        f = self.f
        rest = f.var("i64")
        rest.set(found)
        with f.loop(0, f.intrinsic("llvm.ctpop", "i64", found)):
            bits = rest.get()
            lane = f.intrinsic_call("i64", "llvm.cttz.i64", [bits, f.const(True, "i1")])
            rest.set(f.and_(bits, f.sub(bits, 1)))
            i = f.add(low, lane)
            f.store(self._word(self._key(f.add(start, i)), i), self.front, count.get())
            count.set(f.add(count.get(), 1))
