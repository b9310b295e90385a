"""The sorting kernel: for every row the positions of its elements in order, stable, NaN last.

Each element becomes one unsigned word, (order-preserving key) << 32 | position, so that all words
differ and comparing them is all there is to do. Of keys of 64 bits the word holds the 32 that lead
in the row's own range, often all there is; words that agree in those are settled by the rest.
Short rows are sorted by merging runs, long rows by digits of 8 bits, the least significant first;
digits in which all keys agree are skipped. If only a part of a long row's order is wanted, others
are sieved out by the leading bits beforehand; if only the first few are, the row is read once, in
full registers, and only what comes before the last of them so far is looked at.
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
RADIX_FROM = 600  # row length from which digits beat merging
SIEVE_BITS = 12  # leading bits of (key - smallest key) by which candidates are chosen
SIEVE_FROM = 2048  # row length from which that pays if no more than a quarter is wanted
SELECT_FROM, SELECT_MOST, SELECT_PART = 256, 256, 32  # row length, and what is wanted, for "select"
GRAIN = 2000  # elements below which a chunk is not worth another thread
MAX_CHUNKS = 64
DIGITS = 4  # of a word's key
POSITION = (1 << 32) - 1  # the bits of a word that are a position
MERGE = "merge_words"


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
    stride = (2 * n * 8 + 63) & -64
    nchunks = 1 if threads == 1 else max(1, min(rows, rows * n // GRAIN, MAX_CHUNKS))
    method = "radix" if n >= RADIX_FROM else "merge"
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
    if method != "radix" or _key_bytes(dtype) == 8:
        _emit_merging(module)
    f = module.function(name, KERNEL_ARGS)
    _Sort(f, dtype, descending, target.lanes(_key_bytes(dtype))).emit(method)
    return name, module.text()


class _Sort:
    """Emits the body. A word is a key's leading part and, below it, the position."""

    def __init__(self, f: Function, dtype: DType, descending: bool, lanes: int):
        self.f, self.dtype, self.descending, self.lanes = f, dtype, descending, lanes
        self.key = f"i{8 * _key_bytes(dtype)}"
        self.wide = self.key == "i64"
        slots = {name: f.load("ptr" if name in ("x", "out", "work") else "i64",
                              f.gep(f.args["args"], place, "i64"))
                 for place, name in enumerate(SORT_SLOTS)}
        self.x, self.out = slots["x"], slots["out"]
        self.rows, self.n, self.limit = slots["rows"], slots["n"], slots["limit"]
        self.first = slots["first"]
        thread = f.cast("zext", f.args["thread"], "i64")
        self.front = f.gep(slots["work"], f.mul(thread, slots["work_stride"]), "i8")
        self.back = f.gep(self.front, self.n, "i64")

    def emit(self, method: str) -> None:
        f = self.f
        chunk = f.cast("zext", f.args["chunk"], "i64")
        count = f.cast("zext", f.args["nchunks"], "i64")
        self.counts = f.array("i64", 256 * DIGITS)
        self.bins = f.array("i64", 1 << SIEVE_BITS) if method == "sieve" else None
        self.source, self.target = f.var("ptr"), f.var("ptr")
        self.below = f.var("i64", 0)  # how many come before the words that are sorted
        self.lowest, self.dropped = f.var("i64", 0), f.var("i64", 32)  # of keys of 64 bits
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
                self.source.set(self.front)
                self.target.set(self.back)
                if self.wide and method in ("merge", "radix"):
                    self._measure(*self._range(start))
                row_of[method](start)
                skipped = f.sub(self.first, self.below.get())
                with f.loop(0, wanted) as i:
                    word = f.load("i64", self.source.get(), f.add(skipped, i))
                    f.store(f.and_(word, POSITION), self.out, f.add(results, i))

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

    def _swap(self) -> None:
        old = self.source.get()
        self.source.set(self.target.get())
        self.target.set(old)

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

    def _leading(self, key: Value) -> Value:
        """The part of a key that its word holds, as i64."""
        f = self.f
        if not self.wide:
            return f.cast("zext", key, "i64")
        return f.lshr(f.sub(key, self.lowest.get()), self.dropped.get())

    def _word(self, key: Value, i: Value) -> Value:
        return self.f.or_(self.f.shl(self._leading(key), 32), i)

    def _range(self, start: Value) -> tuple[Value, Value]:
        """The smallest and the largest key of the row."""
        f, lanes = self.f, self.lanes
        type_ = vector(lanes, self.key)
        low, high = f.var(type_), f.var(type_)
        low.set(-1)
        high.set(0)
        with f.loop(0, self.n, lanes) as at:
            inside = f.lane_mask(lanes, f.sub(self.n, at))
            raw = f.masked_load(vector(lanes, f"i{8 * self.dtype.itemsize}"), self.x, inside, 0,
                                f.add(start, at))
            key = self._ordered(raw)
            for var, rule, none in ((low, "umin", -1), (high, "umax", 0)):
                var.set(f.intrinsic(f"llvm.{rule}", type_, var.get(), f.select(inside, key, none)))
        return tuple(f.intrinsic_call(self.key, f"llvm.vector.reduce.{rule}.v{lanes}{self.key}",
                                      [var.get()]) for var, rule in ((low, "umin"), (high, "umax")))

    def _measure(self, lowest: Value, highest: Value) -> None:
        """Find out which bits of the row's keys lead."""
        self.lowest.set(lowest)
        self.dropped.set(self._below_leading(lowest, highest, 32))

    def _below_leading(self, lowest: Value, highest: Value, wanted: int) -> Value:
        """How far down the leading `wanted` bits of a key less the lowest one lie."""
        f = self.f
        zeros = f.intrinsic_call(self.key, f"llvm.ctlz.{self.key}",
                                 [f.sub(highest, lowest), f.const(False, "i1")])
        bits = 64 if self.wide else 32
        return f.smax(f.sub(f.const(bits - wanted, self.key), zeros), 0)

    def _settle(self, start: Value, n: Value) -> None:
        """Of the n words in order those that agree in what leads are put in order by the rest of
        their keys."""
        f = self.f
        if not self.wide:
            return
        with f.when(f.cmp("ne", self.dropped.get(), 0)):
            words, other = self.source.get(), self.target.get()
            low, before = f.var("i64"), f.var("i64")
            low.set(0)
            before.set(f.lshr(f.load("i64", words), 32))
            with f.loop(1, f.add(n, 1)) as i:
                last = f.cmp("eq", i, n)
                leading = f.lshr(f.load("i64", words, f.select(last, 0, i)), 32)
                ends = f.or_(last, f.cmp("ne", leading, before.get()))
                with f.when(ends):
                    with f.when(f.cmp("sgt", f.sub(i, low.get()), 1)):
                        self._settle_run(start, words, other, low.get(), i)
                    low.set(i)
                    before.set(leading)

    def _settle_run(self, start: Value, words: Value, other: Value, low: Value, high: Value
                    ) -> None:
        """Words that agree in what leads; where the rest of their keys agrees, too, they stay."""
        f = self.f
        mask = f.sub(f.shl(f.const(1, "i64"), self.dropped.get()), 1)

        def rest(place: Value) -> Value:
            return f.and_(f.sub(self._key(f.add(start, place)), self.lowest.get()), mask)

        word, differing = f.load("i64", words, low), f.var("i64")
        first, leading = rest(f.and_(word, POSITION)), f.and_(word, ~POSITION)
        differing.set(0)
        with f.loop(low, high) as i:
            place = f.and_(f.load("i64", words, i), POSITION)
            key = rest(place)
            differing.set(f.or_(differing.get(), f.xor(key, first)))
            f.store(f.or_(f.shl(key, 32), place), other, i)
        with f.when(f.cmp("ne", differing.get(), 0)):
            found = f.call("ptr", MERGE, [f.gep(other, low, "i64"), f.gep(words, low, "i64"),
                                          f.sub(high, low)])
            with f.loop(low, high) as i:
                place = f.and_(f.load("i64", found, f.sub(i, low)), POSITION)
                f.store(f.or_(place, leading), words, i)

    # ------------------------------------------------------------------ short rows
    def _by_merging(self, start: Value) -> None:
        self._write_words(start)
        self._merge_words(self.n)
        self._settle(start, self.n)

    def _write_words(self, start: Value) -> None:
        f = self.f
        with f.loop(0, self.n) as i:
            f.store(self._word(self._key(f.add(start, i)), i), self.front, i)

    def _merge_words(self, n: Value) -> None:
        """Sort the first n words."""
        f = self.f
        self.source.set(f.call("ptr", MERGE, [self.front, self.back, n]))
        moved = f.cmp("eq", self.source.get(), self.back)
        self.target.set(f.select(moved, self.front, self.back))

    # ------------------------------------------------------------------ long rows
    def _by_digits(self, start: Value) -> None:
        self._write_words(start)
        self._distribute(self.n)
        self._settle(start, self.n)

    def _clear(self, counts: Value, size: int) -> None:
        with self.f.loop(0, size) as i:
            self.f.store(self.f.const(0, "i64"), counts, i)

    def _digit(self, word: Value, digit: int) -> Value:
        return self.f.and_(self.f.lshr(word, 32 + 8 * digit), 255)

    def _distribute(self, n: Value) -> None:
        """Sort the first n words by their digits."""
        f = self.f
        self._clear(self.counts, 256 * DIGITS)
        with f.loop(0, n) as i:
            word = f.load("i64", self.front, i)
            for digit in range(DIGITS):
                at = f.add(self._digit(word, digit), 256 * digit)
                f.store(f.add(f.load("i64", self.counts, at), 1), self.counts, at)
        first = f.load("i64", self.front)
        for digit in range(DIGITS):
            counts = f.gep(self.counts, 256 * digit, "i64")
            same = f.load("i64", counts, self._digit(first, digit))
            with f.when(f.cmp("ne", same, n)):
                self._distribute_by(digit, counts, n, self.source.get(), self.target.get())
                self._swap()

    def _distribute_by(self, digit: int, counts: Value, n: Value, source: Value, target: Value
                       ) -> None:
        f = self.f
        total = f.var("i64")
        total.set(0)
        with f.loop(0, 256) as value:
            here = f.load("i64", counts, value)
            f.store(total.get(), counts, value)
            total.set(f.add(total.get(), here))
        with f.loop(0, n) as i:
            word = f.load("i64", source, i)
            value = self._digit(word, digit)
            place = f.load("i64", counts, value)
            f.store(word, target, place)
            f.store(f.add(place, 1), counts, value)

    # ------------------------------------------------------------------ the first of a long row
    def _by_sieve(self, start: Value) -> None:
        """Keep what lies, by its leading bits, between the first and the last one wanted; sort
        that."""
        f = self.f
        lowest, highest = self._range(start)
        if self.wide:
            self._measure(lowest, highest)
        shift = self._below_leading(lowest, highest, SIEVE_BITS)

        def bin_of(key: Value) -> Value:
            return f.cast("zext", f.lshr(f.sub(key, lowest), shift), "i64")

        self._clear(self.bins, 1 << SIEVE_BITS)
        with f.loop(0, self.n) as i:
            value = bin_of(self._key(f.add(start, i)))
            f.store(f.add(f.load("i64", self.bins, value), 1), self.bins, value)
        start_bin, last, most = self._bins_wanted(shift)
        kept, in_last = f.var("i64"), f.var("i64")
        kept.set(0)
        in_last.set(0)
        with f.loop(0, self.n) as i:
            key = self._key(f.add(start, i))
            value = bin_of(key)
            f.store(self._word(key, i), self.front, kept.get())
            ends = f.and_(f.cmp("eq", value, last), f.cmp("slt", in_last.get(), most))
            inside = f.and_(f.cmp("sge", value, start_bin), f.cmp("slt", value, last))
            in_last.set(f.add(in_last.get(), f.cast("zext", ends, "i64")))
            kept.set(f.add(kept.get(), f.cast("zext", f.or_(inside, ends), "i64")))
        n = kept.get()
        with f.when_else(f.cmp("slt", n, RADIX_FROM)) as otherwise:
            self._merge_words(n)
            otherwise()
            self._distribute(n)
        self._settle(start, n)

    def _bins_wanted(self, shift: Value) -> tuple[Value, Value, Value]:
        """The first and the last bin to keep, and how many of the last: where the keys of a bin are
        all equal the first ones are enough."""
        f = self.f
        total, low, bound, before = (f.var("i64") for _ in range(4))
        for var in (total, low, bound, before, self.below):
            var.set(0)
        with f.loop(0, 1 << SIEVE_BITS) as value:
            early = f.cmp("sle", total.get(), self.first)
            low.set(f.select(early, value, low.get()))
            self.below.set(f.select(early, total.get(), self.below.get()))
            short = f.cmp("slt", total.get(), self.limit)
            bound.set(f.select(short, value, bound.get()))
            before.set(f.select(short, total.get(), before.get()))
            total.set(f.add(total.get(), f.load("i64", self.bins, value)))
        most = f.select(f.cmp("eq", shift, 0), f.sub(self.limit, before.get()), self.n)
        return low.get(), bound.get(), most

    # ------------------------------------------------------------------ the first few of a row
    def _by_selection(self, start: Value) -> None:
        """Read the row once. Words that may be among those wanted gather in a buffer; when it is
        full, all but the best go, and the last of these is what later keys must come before."""
        f, lanes = self.f, self.lanes
        room = f.add(f.mul(self.limit, 2), 2 * lanes)
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
                self._merge_words(count.get())
                self._settle(start, count.get())
                kept = f.smin(count.get(), self.limit)
                with f.loop(0, kept) as i:
                    f.store(f.load("i64", self.source.get(), i), self.front, i)
                last = f.load("i64", self.front, f.sub(kept, 1))
                bound.set(self._key(f.add(start, f.and_(last, POSITION))))
                count.set(kept)
                open_.set(f.cmp("slt", kept, self.limit))
        self.source.set(self.front)

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


# ---------------------------------------------------------------------- merging
def _emit_merging(module: Module) -> None:
    """merge_words(words, room, n): sort n words, which then lie where the result points to, in one
    or the other. Runs by counting, then neighbours are merged until one run is left."""
    f = module.function(MERGE, [("ptr noalias", "words"), ("ptr noalias", "room"), ("i64", "n")],
                        "ptr", part=MERGE)
    n, source, target = f.args["n"], f.var("ptr"), f.var("ptr")
    with f.loop(0, n, RUN) as low:
        high = f.smin(f.add(low, RUN), n)
        with f.loop(low, high) as i:
            _place_in_run(f, i, low, high)
    source.set(f.args["room"])
    target.set(f.args["words"])
    with f.loop(0, 40) as level:
        width = f.shl(f.const(RUN, "i64"), level)
        with f.when(f.cmp("slt", width, n)):
            with f.loop(0, n, f.mul(width, 2)) as low:
                middle = f.smin(f.add(low, width), n)
                high = f.smin(f.add(middle, width), n)
                _merge(f, source.get(), target.get(), low, middle, high)
            old = source.get()
            source.set(target.get())
            target.set(old)
    f.ret_value(source.get())


def _place_in_run(f: Function, i: Value, low: Value, high: Value) -> None:
    word, rank = f.load("i64", f.args["words"], i), f.var("i64")
    rank.set(low)
    with f.loop(low, high) as j:
        smaller = f.cmp("ult", f.load("i64", f.args["words"], j), word)
        rank.set(f.add(rank.get(), f.cast("zext", smaller, "i64")))
    f.store(word, f.args["room"], rank.get())


def _merge(f: Function, source: Value, target: Value, low: Value, middle: Value, high: Value
           ) -> None:
    left, right = f.var("i64"), f.var("i64")
    left.set(low)
    right.set(middle)
    with f.loop(low, high) as k:
        i, j = left.get(), right.get()
        more_left, more_right = f.cmp("slt", i, middle), f.cmp("slt", j, high)
        a = f.load("i64", source, f.select(more_left, i, low))
        b = f.load("i64", source, f.select(more_right, j, low))
        take = f.and_(more_left, f.or_(f.not_(more_right), f.cmp("ult", a, b)))
        f.store(f.select(take, a, b), target, k)
        step = f.cast("zext", take, "i64")
        left.set(f.add(i, step))
        right.set(f.add(j, f.sub(f.const(1, "i64"), step)))
