"""Adaptive pooling of images whose rows are contiguous: bins of several sizes, along registers.

The rows of a bin are combined as one row in cache, then each bin's part of it is reduced. Where a
maximum lies is found by comparing the bin with it, a register at a time; its gradient goes there.
The gradient of a mean is made once for rows that the same bins cover, and copied to the others.
Images whose channels are contiguous: see `last.py`.
"""

from __future__ import annotations

from flambeau.compiler.emitter import Function, Value
from flambeau.compiler.frame import chunk_range
from flambeau.compiler.pooling.planes import Pool, PoolSpec

__all__ = ["PlanarBins"]

WIDE = 4  # registers of a row that are combined side by side


class PlanarBins(Pool):
    """Rows are contiguous, windows are bins."""

    def __init__(self, f: Function, spec: PoolSpec, lanes: int):
        super().__init__(f, spec, lanes)
        slot = self.slot
        self.line = self.work  # a row of places
        self.shares = f.gep(self.line, slot["reach"], self.scalar)  # a row of bins
        self.tables = [f.gep(self.shares, slot["reach"], self.scalar)]
        for d in range(2):
            self.tables.append(f.gep(self.tables[d], f.add(slot[f"out{d}"], 1), self.scalar))
        self.first = f.lane_mask(lanes, f.const(1, "i64"))

    def emit(self) -> None:
        f, slot, rule = self.f, self.slot, self.spec.rule
        start, stop = chunk_range(f, slot["tasks"])
        if rule in ("mean", "mean_back"):
            for d, table in enumerate(self.tables):
                self.fill_counts(table, d, rule == "mean_back")
        rows_of = {"mean_back": self._back_of_mean, "max_back": self._back_of_max}.get(
            rule, self._bin_rows)
        self.each_plane(start, stop, rows_of)

    # ------------------------------------------------------------------ registers
    def _bin(self, d: int, number: Value) -> tuple[Value, Value]:
        """(first place, behind the last) of a bin."""
        _, last, start = self.taps(d, number)
        return start, self.f.add(start, last)

    def _each_row(self, d, h, body) -> None:
        with self.across(*d) as at_d, self.f.loop(*h) as at_h:
            body(at_d, at_h)

    def _reduced(self, low: Value, high: Value) -> Value:
        """The line from low to high combined, in the first lane."""
        f, lanes = self.f, self.lanes
        total = f.var(self.vector)
        total.set(self.neutral)

        def add(w: Value, count: int, mask: Value | None) -> None:
            found = f.load(self.vector, self.line, w)
            if mask is not None:
                found = f.select(mask, found, f.const(self.neutral, self.vector))
            total.set(self.combine(total.get(), found))

        self.along(low, high, add)
        result, half = total.get(), lanes // 2
        while half:
            moved = f.shuffle(result, None, [(lane + half) % lanes for lane in range(lanes)])
            result, half = self.combine(result, moved), half // 2
        return result

    # ------------------------------------------------------------------ forward
    def _bin_rows(self, base: dict, part: Value) -> None:
        f, slot = self.f, self.slot
        total = f.mul(slot["out0"], slot["out1"])
        begin = f.udiv(f.mul(total, part), slot["parts"])
        end = f.udiv(f.mul(total, f.add(part, 1)), slot["parts"])
        with f.loop(begin, end) as number:
            at = self.split(number, "out1")
            d, h = self._bin(0, at[0]), self._bin(1, at[1])
            self._combine_rows(base["x"], d, h)
            y = self.row("y", base["y"], *at)
            with f.loop(0, slot["out2"]) as ow:
                w = self._bin(2, ow)
                value, pointer = self._reduced(*w), f.gep(y, ow, self.memory("y"))
                if self.spec.rule == "argmax":
                    f.store(self._find(base["x"], f.extract(value, 0), d, h, w, self._flat),
                            pointer)
                elif self.spec.rule == "max":
                    self.write(value, pointer, self.first)
                else:
                    count = f.splat(self._table_product((*at, ow)), self.lanes)
                    self.write(f.fdiv(value, count), pointer, self.first)

    def _table_product(self, numbers) -> Value:
        f = self.f
        a, b, c = (f.load(self.scalar, table, number)
                   for table, number in zip(self.tables, numbers, strict=True))
        return f.fmul(f.fmul(a, b), c)

    def _combine_rows(self, x: Value, d, h) -> None:
        """The rows d, h of the image as one line."""
        f, lanes = self.f, self.lanes
        totals = [f.var(self.vector) for _ in range(WIDE)]

        def block(w: Value, count: int, mask: Value | None) -> None:
            for total in totals[:count]:
                total.set(self.neutral)

            def add(at_d: Value, at_h: Value) -> None:
                pointer = f.gep(self.row("x", x, at_d, at_h), w, self.memory("x"))
                for i, total in enumerate(totals[:count]):
                    found = self.read("x", f.gep(pointer, i * lanes, self.memory("x")), lanes, mask)
                    total.set(self.combine(total.get(), found))

            self._each_row(d, h, add)
            for i, total in enumerate(totals[:count]):
                f.store(total.get(), self.line, f.add(w, i * lanes))

        self.along(0, self.slot["size2"], block, WIDE)

    # ------------------------------------------------------------------ maxima
    def _flat(self, at_d: Value, at_h: Value) -> Value:
        """The number of a row's first pixel, row-major."""
        f, slot = self.f, self.slot
        row = f.add(f.mul(at_d, slot["size1"]), at_h) if self.spec.deep else at_h
        return f.mul(row, slot["size2"])

    def _find(self, x: Value, top: Value, d, h, w, offset) -> Value:
        """offset(d, h) + w of the first element of a bin that equals `top`, of its last NaN."""
        f, lanes = self.f, self.lanes
        spot = f.var("i64")
        spot.set(-1)
        tops = f.splat(top, lanes)
        bits = f"i{lanes}"

        def search(last: bool) -> None:
            def row(at_d: Value, at_h: Value) -> None:
                line = self.row("x", x, at_d, at_h)

                def look(place: Value, count: int, mask: Value | None) -> None:
                    found = self.read("x", f.gep(line, place, self.memory("x")), lanes, mask)
                    hit = f.cmp("uno", found, found) if last else f.cmp(
                        "oeq" if self.dtype.kind == "f" else "eq", found, tops)
                    hits = f.cast("bitcast", hit if mask is None else f.and_(hit, mask), bits)
                    wanted = f.cmp("ne", hits, 0)
                    if not last:
                        wanted = f.and_(wanted, f.cmp("slt", spot.get(), 0))
                    with f.when(wanted):
                        zeros = f.intrinsic_call(bits, f"llvm.{'ctlz' if last else 'cttz'}.{bits}",
                                                 [hits, f.const(True, "i1")])
                        lane = f.cast("zext", zeros, "i64")
                        lane = f.sub(lanes - 1, lane) if last else lane
                        spot.set(f.add(offset(at_d, at_h), f.add(place, lane)))

                if last:
                    self.along(*w, look)
                else:
                    with f.when(f.cmp("slt", spot.get(), 0)):
                        self.along(*w, look)

            self._each_row(d, h, row)

        if self.dtype.kind != "f":
            search(False)
            return spot.get()
        with f.when_else(f.cmp("uno", top, top)) as otherwise:
            search(True)
            otherwise()
            search(False)
        return spot.get()

    def _back_of_max(self, base: dict, part: Value) -> None:
        f, slot, lanes = self.f, self.slot, self.lanes
        rows = f.mul(slot["size0"], slot["size1"])
        with f.loop(0, rows) as number:
            pointer = self.row("t", base["t"], *self.split(number, "size1"))
            self.clear(pointer, slot["size2"])

        def offset(at_d: Value, at_h: Value) -> Value:
            return f.add(f.mul(at_d, slot["t_0"]), f.mul(at_h, slot["t_1"]))

        with f.loop(0, f.mul(slot["out0"], slot["out1"])) as number:
            at = self.split(number, "out1")
            d, h = self._bin(0, at[0]), self._bin(1, at[1])
            y, v = (self.row(who, base[who], *at) for who in "yv")
            with f.loop(0, slot["out2"]) as ow:
                top = self.read("v", f.gep(v, ow, self.memory("v")), lanes, self.first)
                spot = self._find(base["x"], f.extract(top, 0), d, h, self._bin(2, ow), offset)
                pointer = f.gep(base["t"], f.smax(spot, 0), self.memory("t"))
                g = f.load(self.memory("y"), y, ow)
                f.store(f.fadd(f.load(self.memory("t"), pointer), g), pointer)

    # ------------------------------------------------------------------ the gradient of a mean
    def _back_of_mean(self, base: dict, part: Value) -> None:
        f, slot = self.f, self.slot
        known = [f.var("i64", -1) for _ in range(4)]
        for value in known:
            value.set(-1)
        with f.loop(0, f.mul(slot["size0"], slot["size1"])) as number:
            at = self.split(number, "size1")
            ranges = [f.typed(bound, "i64") for bound in (*self.covering(0, at[0]),
                                                          *self.covering(1, at[1]))]
            same = None
            for value, bound in zip(known, ranges, strict=True):
                equal = f.cmp("eq", value.get(), bound)
                same = equal if same is None else f.and_(same, equal)
            with f.when(f.not_(same)):
                self._spread(base["y"], ranges[:2], ranges[2:])
                for value, bound in zip(known, ranges, strict=True):
                    value.set(bound)
            t = self.row("t", base["t"], *at)
            self.along(0, slot["size2"], lambda w, count, mask: self.write(
                f.load(self.vector, self.line, w), f.gep(t, w, self.memory("t")), mask))

    def _spread(self, y: Value, d, h) -> None:
        """The line of gradients under the rows d, h of bins."""
        f, slot, lanes = self.f, self.slot, self.lanes
        total = f.var(self.vector)

        def give(ow: Value, count: int, mask: Value | None) -> None:
            total.set(0.0)

            def add(od: Value, oh: Value) -> None:
                share = f.fmul(f.load(self.scalar, self.tables[0], od),
                               f.load(self.scalar, self.tables[1], oh))
                pointer = f.gep(self.row("y", y, od, oh), ow, self.memory("y"))
                g = self.read("y", pointer, lanes, mask)
                total.set(f.fadd(total.get(), f.fmul(g, f.splat(share, lanes))))

            self._each_row(d, h, add)
            f.store(total.get(), self.shares, ow)

        self.along(0, slot["out2"], give)
        self.clear(self.line, f.add(slot["size2"], lanes))
        with f.loop(0, slot["out2"]) as ow:
            share = f.splat(f.fmul(f.load(self.scalar, self.shares, ow),
                                   f.load(self.scalar, self.tables[2], ow)), lanes)

            def add(w: Value, count: int, mask: Value | None, share=share) -> None:
                more = share if mask is None else f.select(mask, share, 0.0)
                f.store(f.fadd(f.load(self.vector, self.line, w), more), self.line, w)

            self.along(*self._bin(2, ow), add)
