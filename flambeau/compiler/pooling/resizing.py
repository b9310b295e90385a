"""Resizing kernels: an image as weighted sums of its rows and columns, and the gradient.

Rows of "planar" images are resized along the row when they are first needed, into a ring of as many
rows as a result row is made of, and added up from there. Where channels are contiguous ("last"),
lanes are channels and a pixel is the weighted sum of pixels.

The gradient turns the tables round: for every place of the input the places of the result that it
is part of, in order. Nothing is added to memory twice, and no two tasks meet.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import chunk_range, thread_workspace
from flambeau.compiler.lanes import Lanes, memory_type, register_type
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.dtypes import by_name
from flambeau.ops.primitives.resampling import Resized

__all__ = ["FEW", "MANY", "RESIZE_SLOTS", "ResizePlan", "ResizeSpec", "resize_kernel",
           "resize_plan", "ring"]

_POINTERS = ("x", "y", "i0", "w0", "i1", "w1", "work")
RESIZE_SLOTS = (*_POINTERS, "work_stride", "tasks", "parts", "channels", "size0", "size1", "out0",
                "out1", *(f"{who}_{axis}" for who in "xy" for axis in "nchw"), "most0", "most1",
                "taps0", "taps1", "ring")
CHUNKS = 64
FEW = 4  # taps up to which their sums are written out
MANY = FEW + 1  # more of them are a loop


@dataclasses.dataclass(frozen=True)
class ResizeSpec:
    """What the text of a kernel depends on: direction, dtypes of source and result, layout, taps
    by dimension (`MANY` for any number of them), weights."""

    back: bool
    x: str
    y: str
    last: bool
    taps: tuple[int, int]
    weighted: bool


@dataclasses.dataclass(frozen=True)
class ResizePlan:
    """How the work is cut; `most`: bounds of how many places of the result one place of the input
    is part of, by dimension."""

    tasks: int
    parts: int
    most: tuple[int, int]
    nchunks: int
    work_bytes: int
    work_stride: int


def _lanes(spec: ResizeSpec, target: Target) -> int:
    sizes = [by_name(name).itemsize for name in (spec.x, spec.y)]
    return target.lanes(min(8, max(4, *sizes)))


def resize_plan(spec: ResizeSpec, target: Target, how: Resized, batch: int, channels: int,
                threads: int) -> ResizePlan:
    """The plan for (batch, channels) images."""
    lanes = _lanes(spec, target)
    most = tuple(known or max(1, taps) * (4 * -(-out // size) + 8 if size > 1 else out)
                 for known, taps, size, out in zip(how.most, how.taps, how.size, how.out,
                                                   strict=True))
    if spec.back:
        items = sum((size + 2 * lanes) * (count + 1) for size, count in zip(
            how.size, most, strict=True)) * 2 + how.out[1] + 4 * lanes
    else:
        rows = ring(how)
        items = (3 * max(1, how.taps[1]) + rows + 1) * (how.out[1] + 2 * lanes) + rows
    stride = (8 * items + 127) & -64
    planes, rows = batch * channels, how.size[0] if spec.back else how.out[0]
    if spec.last:
        planes = batch
    parts = 1
    if planes < 4 * threads:
        parts = max(1, min(rows, -(-4 * threads // max(1, planes))))
    work = batch * channels * how.out[0] * how.out[1]
    nchunks = 1 if threads == 1 else max(1, min(planes * parts, work // 16384, CHUNKS))
    return ResizePlan(planes * parts, parts, most, nchunks, stride * threads, stride)


def ring(how: Resized | ResizeSpec) -> int:
    """Rows that are kept: a power of two, no fewer than a result row is made of."""
    count = 1
    while count < how.taps[0]:
        count *= 2
    return count


def resize_kernel(spec: ResizeSpec, target: Target) -> tuple[str, str]:
    """(name, LLVM IR)."""
    words = (spec.x, spec.y, "last" if spec.last else "planar",
             *("many" if taps == MANY else taps for taps in spec.taps))
    name = f"resize{'_back' if spec.back else ''}_{'_'.join(map(str, words))}_{int(spec.weighted)}"
    module = Module(target.attributes)
    f = module.function(name, [("ptr noalias", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                               ("i32", "thread")])
    (_Back if spec.back else _Forward)(f, spec, _lanes(spec, target)).emit()
    return name, module.text()


class _Resize:
    """What both directions share."""

    def __init__(self, f: Function, spec: ResizeSpec, lanes: int):
        self.f, self.spec, self.lanes, self.k = f, spec, lanes, Lanes(f)
        self.slot = {name: f.load("ptr" if name in _POINTERS else "i64", f.args["args"], place)
                     for place, name in enumerate(RESIZE_SLOTS)}
        self.dtypes = {"x": by_name(spec.x), "y": by_name(spec.y)}
        wide = dtypes.float32 if self.dtypes["x"].is_reduced else self.dtypes["x"]
        self.scalar = register_type(wide) if wide.kind == "f" else memory_type(wide)
        self.vector = vector(lanes, self.scalar)
        self.work = thread_workspace(f, self.slot["work"], self.slot["work_stride"])

    def memory(self, who: str) -> str:
        return memory_type(self.dtypes[who])

    def read(self, who: str, pointer: Value, mask: Value | None = None, lanes: int | None = None
             ) -> Value:
        f, dtype = self.f, self.dtypes[who]
        type_ = vector(self.lanes if lanes is None else lanes, self.memory(who))
        raw = f.load(type_, pointer) if mask is None else f.masked_load(type_, pointer, mask)
        return self.k.widen(raw, dtype) if dtype.kind == "f" else raw

    def write(self, value: Value, pointer: Value, mask: Value | None) -> None:
        f, dtype = self.f, self.dtypes["y"]
        raw = self.k.narrow(value, dtype) if dtype.kind == "f" else value
        if mask is None:
            f.store(raw, pointer)
        else:
            f.masked_store(raw, pointer, mask)

    def address(self, who: str, base: Value, *steps: tuple[Value, str]) -> Value:
        """base plus index times stride for each (index, axis)."""
        f, offset = self.f, 0
        for index, axis in steps:
            offset = f.add(offset, f.mul(index, self.slot[f"{who}_{axis}"]))
        return f.gep(base, offset, self.memory(who))

    def weight(self, table: str, tap: int, place: Value) -> Value | None:
        if not self.spec.weighted:
            return None
        at = f_row(self.f, tap, self.slot["out0" if table == "w0" else "out1"])
        return self.f.load(self.scalar, self.slot[table], self.f.add(at, place))

    def place(self, table: str, tap: int, place: Value) -> Value:
        at = f_row(self.f, tap, self.slot["out0" if table == "i0" else "out1"])
        return self.f.load("i64", self.slot[table], self.f.add(at, place))

    def each_tap(self, d: int, body) -> None:
        """body(tap) for the taps of dimension d: written out, or as a loop."""
        taps = self.spec.taps[d]
        if taps == MANY:
            with self.f.loop(0, self.slot[f"taps{d}"]) as tap:
                body(tap)
            return
        for tap in range(taps):
            body(tap)

    def each_place(self, d: int, at: Value, body) -> None:
        """body(place, weight) for what place `at` of the result is made of."""
        if not self.spec.taps[d]:
            body(at, None)
            return

        def one(tap: Value | int) -> None:
            place = self.place(f"i{d}", tap, at)
            if self.spec.taps[d] != MANY:
                body(place, self.weight(f"w{d}", tap, at))
                return
            with self.f.when(self.f.cmp("sge", place, 0)):
                body(place, self.weight(f"w{d}", tap, at))

        self.each_tap(d, one)

    def add_up(self, total: Value | None, x: Value, weight: Value | None) -> Value:
        """total + x * weight; a weight may be one for all lanes, None is 1."""
        f = self.f
        if weight is not None:
            weight = self.k.splat(weight, self.lanes)
            return f.fmul(x, weight) if total is None else f.fma(x, weight, total)
        return x if total is None else f.fadd(total, x)

    def spans(self, count: Value, body) -> None:
        """body(start, mask) over `count` lanes."""
        f, lanes = self.f, self.lanes
        full = f.mul(f.udiv(count, lanes), lanes)
        with f.loop(0, full, lanes) as i:
            body(i, None)
        with f.when(f.cmp("slt", full, count)):
            body(full, f.lane_mask(lanes, f.sub(count, full)))

    def emit(self) -> None:
        f, slot, last = self.f, self.slot, self.spec.last
        self.prepare()
        start, stop = chunk_range(f, slot["tasks"])
        rows = slot["size0" if self.spec.back else "out0"]
        with f.loop(start, stop) as task:
            plane, part = f.udiv(task, slot["parts"]), f.urem(task, slot["parts"])
            n = plane if last else f.udiv(plane, slot["channels"])
            c = 0 if last else f.urem(plane, slot["channels"])
            base = {who: self.address(who, slot[who], (n, "n"), (c, "c")) for who in "xy"}
            low = f.udiv(f.mul(rows, part), slot["parts"])
            high = f.udiv(f.mul(rows, f.add(part, 1)), slot["parts"])
            self.rows(base, low, high)


def f_row(f: Function, number: int, size: Value):
    """The start of row `number` of a table."""
    return f.mul(number, size) if number else 0


class _Forward(_Resize):
    def prepare(self) -> None:
        """Copy the tables of the columns: places as 32-bit numbers, ends padded."""
        f, slot, wide = self.f, self.slot, self.spec.taps[1]
        if self.spec.last or not wide:
            self.pitch = slot["out1"]
            return
        wide = slot["taps1"] if wide == MANY else wide
        self.pitch = f.add(slot["out1"], 2 * self.lanes)
        self.columns = self.work
        self.shares = f.gep(self.columns, f.mul(self.pitch, wide), "i64")
        self.ring = f.gep(self.shares, f.mul(self.pitch, wide), "i64")
        if self.spec.taps[0] == MANY:
            self.mask = f.sub(slot["ring"], 1)
            self.kept = f.gep(self.ring, f.mul(self.pitch, slot["ring"]), "i64")
        else:
            self.mask = ring(self.spec) - 1
            self.kept = f.array("i64", ring(self.spec))
        with f.loop(0, f.mul(self.pitch, wide)) as i:
            f.store(f.const(0, "i32"), self.columns, i)
            f.store(f.const(0, self.scalar), self.shares, i)

        def copy(tap: Value | int) -> None:
            with f.loop(0, slot["out1"]) as o:
                at = f.add(f_row(f, tap, self.pitch), o)
                f.store(f.cast("trunc", self.place("i1", tap, o), "i32"), self.columns, at)
                if self.spec.weighted:
                    f.store(self.weight("w1", tap, o), self.shares, at)

        self.each_tap(1, copy)

    def rows(self, base: dict, low: Value, high: Value) -> None:
        f, (tall, wide) = self.f, self.spec.taps
        if wide and not self.spec.last:
            if tall == MANY:
                with f.loop(0, self.slot["ring"]) as place:
                    f.store(f.const(-1, "i64"), self.kept, place)
            else:
                for place in range(ring(self.spec)):
                    f.store(f.const(-1, "i64"), self.kept, place)
        with f.loop(low, high) as row:
            if tall == MANY or self.spec.last and wide == MANY:
                y = self.address("y", base["y"], (row, "h"))
                (self._many_pixels if self.spec.last else self._many_rows)(base["x"], row, y)
            else:
                self._row(base, row)

    def _row(self, base: dict, row: Value) -> None:
        """A row of the result that few rows are part of."""
        tall = self.spec.taps[0]
        places = [self.place("i0", tap, row) for tap in range(tall)] or [row]
        weights = [self.weight("w0", tap, row) for tap in range(tall)] or [None]
        y = self.address("y", base["y"], (row, "h"))
        if self.spec.last:
            sources = [self.address("x", base["x"], (place, "h")) for place in places]
            self._pixels(sources, weights, y)
        else:
            self._planar_row(base["x"], places, weights, y)

    def _planar_row(self, x: Value, places: list, weights: list, y: Value) -> None:
        f, (tall, wide) = self.f, self.spec.taps
        if not tall and wide:
            self._stretched(self.address("x", x, (places[0], "h")), y)
            return
        if wide:
            sources = [self._resized(x, place) for place in places]
        else:
            sources = [self.address("x", x, (place, "h")) for place in places]

        def span(o: Value, mask: Value | None) -> None:
            total = None
            for source, weight in zip(sources, weights, strict=True):
                if wide:
                    found = f.load(self.vector, source, o)
                else:
                    found = self.read("x", f.gep(source, o, self.memory("x")), mask)
                total = self.add_up(total, found, weight)
            self.write(total, f.gep(y, o, self.memory("y")), mask)

        self.spans(self.slot["out1"], span)

    def _resized(self, x: Value, place: Value) -> Value:
        """The address of row `place` of the input, resized along the row."""
        f = self.f
        where = f.and_(place, self.mask)
        row = f.gep(self.ring, f.mul(where, self.pitch), self.scalar)
        with f.when(f.cmp("ne", f.load("i64", self.kept, where), place)):
            f.store(place, self.kept, where)
            source = self.address("x", x, (place, "h"))
            with f.loop(0, self.slot["out1"], self.lanes) as o:
                many = self.spec.taps[1] == MANY
                total = (self._many_columns if many else self._few_columns)(source, o)
                f.store(total, row, o)
        return row

    def _stretched(self, source: Value, y: Value) -> None:
        """A row of the result made of one row, which nobody else needs."""
        many = self.spec.taps[1] == MANY
        columns = self._many_columns if many else self._few_columns
        self.spans(self.slot["out1"], lambda o, mask: self.write(
            columns(source, o), self.f.gep(y, o, self.memory("y")), mask))

    def _few_columns(self, source: Value, o: Value) -> Value:
        """Lanes of a row of the input, resized along the row, from place o on."""
        f, total = self.f, None
        for tap in range(self.spec.taps[1]):
            at = f.add(f_row(f, tap, self.pitch), o)
            columns = f.load(vector(self.lanes, "i32"), self.columns, at)
            weight = f.load(self.vector, self.shares, at) if self.spec.weighted else None
            total = self.add_up(total, self._picked(source, columns), weight)
        return total

    def _many_columns(self, source: Value, o: Value) -> Value:
        """`_few_columns` of any number of taps."""
        f, total = self.f, self.f.var(self.vector)
        total.set(0.0)
        with f.loop(0, self.slot["taps1"]) as tap:
            at = f.add(f.mul(tap, self.pitch), o)
            columns = f.load(vector(self.lanes, "i32"), self.columns, at)
            found = self._picked(source, columns, f.cmp("sge", columns, 0))
            total.set(f.fma(found, f.load(self.vector, self.shares, at), total.get()))
        return total.get()

    def _many_rows(self, x: Value, row: Value, y: Value) -> None:
        """A row of the result that many rows are part of."""
        f, wide = self.f, self.spec.taps[1]
        if wide:
            self.each_place(0, row, lambda place, _: self._resized(x, place))
        total = f.var(self.vector)

        def span(o: Value, mask: Value | None) -> None:
            total.set(0.0)

            def add(place: Value, weight: Value) -> None:
                if wide:
                    line = f.mul(f.and_(place, self.mask), self.pitch)
                    found = f.load(self.vector, self.ring, f.add(line, o))
                else:
                    source = self.address("x", x, (place, "h"))
                    found = self.read("x", f.gep(source, o, self.memory("x")), mask)
                total.set(self.add_up(total.get(), found, weight))

            self.each_place(0, row, add)
            self.write(total.get(), f.gep(y, o, self.memory("y")), mask)

        self.spans(self.slot["out1"], span)

    def _many_pixels(self, x: Value, row: Value, y: Value) -> None:
        """A row of pixels that many pixels are part of."""
        f, slot, total = self.f, self.slot, self.f.var(self.vector)
        with f.loop(0, slot["out1"]) as o:
            target = self.address("y", y, (o, "w"))

            def span(c: Value, mask: Value | None, o=o, target=target) -> None:
                total.set(0.0)

                def add_row(place: Value, weight: Value | None) -> None:
                    source = f.gep(self.address("x", x, (place, "h")), c, self.memory("x"))

                    def add(column: Value, share: Value | None) -> None:
                        found = self.read("x", self.address("x", source, (column, "w")), mask)
                        total.set(self.add_up(total.get(), found, self._both(weight, share)))

                    self.each_place(1, o, add)

                self.each_place(0, row, add_row)
                self.write(total.get(), f.gep(target, c, self.memory("y")), mask)

            self.spans(slot["channels"], span)

    def _picked(self, source: Value, columns: Value, mask: Value | None = None) -> Value:
        f, dtype = self.f, self.dtypes["x"]
        wide = f.cast("sext", columns, vector(self.lanes, "i64"))
        raw = f.gather(vector(self.lanes, self.memory("x")),
                       f.gep(source, wide, self.memory("x")),
                       f.const(True, vector(self.lanes, "i1")) if mask is None else mask)
        return self.k.widen(raw, dtype) if dtype.kind == "f" else raw

    def _pixels(self, rows: list, weights: list, y: Value) -> None:
        f, slot, wide = self.f, self.slot, self.spec.taps[1]
        with f.loop(0, slot["out1"]) as o:
            columns = [self.place("i1", tap, o) for tap in range(wide)] or [o]
            shares = [self.weight("w1", tap, o) for tap in range(wide)] or [None]
            pixels = [(self.address("x", row, (column, "w")), self._both(above, share))
                      for row, above in zip(rows, weights, strict=True)
                      for column, share in zip(columns, shares, strict=True)]
            target = self.address("y", y, (o, "w"))

            def span(c: Value, mask: Value | None, pixels=pixels, target=target) -> None:
                total = None
                for pixel, weight in pixels:
                    found = self.read("x", f.gep(pixel, c, self.memory("x")), mask)
                    total = self.add_up(total, found, weight)
                self.write(total, f.gep(target, c, self.memory("y")), mask)

            self.spans(slot["channels"], span)

    def _both(self, a: Value | None, b: Value | None) -> Value | None:
        if a is None or b is None:
            return a if b is None else b
        return self.f.fmul(a, b)


class _Back(_Resize):
    """The tables turned round: entry m of place i lies at [m, i]; `count` says how many count."""

    def prepare(self) -> None:
        f, slot = self.f, self.slot
        at = self.work
        self.tables: list = []
        for d in range(2):
            if not self.spec.taps[d]:
                self.tables.append(None)
                continue
            pitch = f.add(slot[f"size{d}"], 2 * self.lanes)
            count = at
            places = f.gep(count, pitch, "i64")
            weights = f.gep(places, f.mul(pitch, slot[f"most{d}"]), "i64")
            at = f.gep(weights, f.mul(pitch, slot[f"most{d}"]), "i64")
            most = self._turn_round(d, pitch, count, places, weights)
            self.tables.append((pitch, count, places, weights, most))
        self.line = at

    def _turn_round(self, d: int, pitch: Value, count: Value, places: Value, weights: Value
                    ) -> Value:
        """Fill the tables of dimension d; gives the largest count."""
        f, slot, most = self.f, self.slot, self.f.var("i64", 0)
        with f.loop(0, pitch) as i:
            f.store(f.const(0, "i64"), count, i)
        with f.loop(0, f.mul(pitch, slot[f"most{d}"])) as i:
            f.store(f.const(0, "i64"), places, i)
            f.store(f.const(0, self.scalar), weights, i)

        def enter(tap: Value | int, o: Value, place: Value) -> None:
            number = f.load("i64", count, place)
            f.store(f.add(number, 1), count, place)
            most.set(f.smax(most.get(), f.add(number, 1)))
            at = f.add(f.mul(number, pitch), place)
            f.store(o, places, at)
            weight = self.weight(f"w{d}", tap, o)
            f.store(f.const(1.0, self.scalar) if weight is None else weight, weights, at)

        def turn(tap: Value | int) -> None:
            with f.loop(0, slot[f"out{d}"]) as o:
                place = self.place(f"i{d}", tap, o)
                if self.spec.taps[d] == MANY:
                    with f.when(f.cmp("sge", place, 0)):
                        room = f.cmp("slt", f.load("i64", count, place), slot[f"most{d}"])
                        with f.when(room):
                            enter(tap, o, place)
                else:
                    enter(tap, o, place)

        self.each_tap(d, turn)
        return most.get()

    def rows(self, base: dict, low: Value, high: Value) -> None:
        f = self.f
        with f.loop(low, high) as row:
            t = self.address("y", base["y"], (row, "h"))
            if self.spec.last:
                with f.loop(0, self.slot["size1"]) as column:
                    self._pixel(base["x"], row, column, self.address("y", t, (column, "w")))
            elif self.tables[1] is None:
                self._line(base["x"], row, lambda o, total, mask, t=t: self.write(
                    total, f.gep(t, o, self.memory("y")), mask))
            else:
                self._line(base["x"], row,
                           lambda o, total, mask: f.store(total, self.line, o))
                self.spans(self.slot["size1"], lambda j, mask, t=t: self.write(
                    self._column(j), f.gep(t, j, self.memory("y")), mask))

    def _each(self, d: int, place: Value, body) -> None:
        """body(place of the result, weight) for what the place of the input is part of."""
        f, table = self.f, self.tables[d]
        if table is None:
            body(place, f.const(1.0, self.scalar))
            return
        pitch, count, places, weights, _ = table
        with f.loop(0, f.load("i64", count, place)) as m:
            at = f.add(f.mul(m, pitch), place)
            body(f.load("i64", places, at), f.load(self.scalar, weights, at))

    def _line(self, x: Value, row: Value, put) -> None:
        """One row of the result's gradient: what row `row` of the input is part of."""
        total = self.f.var(self.vector)

        def span(o: Value, mask: Value | None) -> None:
            total.set(0.0)

            def add(place: Value, weight: Value) -> None:
                source = self.f.gep(self.address("x", x, (place, "h")), o, self.memory("x"))
                total.set(self.add_up(total.get(), self.read("x", source, mask), weight))

            self._each(0, row, add)
            put(o, total.get(), mask)

        self.spans(self.slot["out1"], span)

    def _column(self, j: Value) -> Value:
        """Lanes of the gradient from column j on."""
        f, total = self.f, self.f.var(self.vector)
        pitch, count, places, weights, most = self.tables[1]
        total.set(0.0)
        counts = f.load(vector(self.lanes, "i64"), count, j)
        with f.loop(0, most) as m:
            at = f.add(f.mul(m, pitch), j)
            where = f.load(vector(self.lanes, "i64"), places, at)
            found = f.gather(self.vector, f.gep(self.line, where, self.scalar),
                             f.cmp("sgt", counts, f.splat(m, self.lanes)))
            total.set(f.fma(found, f.load(self.vector, weights, at), total.get()))
        return total.get()

    def _pixel(self, x: Value, row: Value, column: Value, t: Value) -> None:
        total = self.f.var(self.vector)

        def span(c: Value, mask: Value | None) -> None:
            total.set(0.0)

            def add_row(place: Value, weight: Value) -> None:
                source = self.f.gep(self.address("x", x, (place, "h")), c, self.memory("x"))

                def add(o: Value, share: Value) -> None:
                    found = self.read("x", self.address("x", source, (o, "w")), mask)
                    total.set(self.add_up(total.get(), found, self.f.fmul(weight, share)))

                self._each(1, column, add)

            self._each(0, row, add_row)
            self.write(total.get(), self.f.gep(t, c, self.memory("y")), mask)

        self.spans(self.slot["channels"], span)
