"""Pooling kernels: maxima and means of sliding windows, where maxima lie, and the gradients.

One generator for images whose rows are contiguous ("planar"), one (`last.py`) for images
whose channels are. Here every input row is first laid out in cache so that no window reaches over
an edge and each tap of a row of windows is one run of memory: with its padding filled in, and for a
stride s as s rows that hold every s-th element.

    forward   rows of a window are combined as they are laid out, then the taps along the row
    argmax    tap by tap, in order
    max_back  the same, then every window adds its gradient where its maximum lies
    mean_back the windows that cover a row are added up, then their taps along the row

Gradients belong to one plane each, in a fixed order: equal bits on any number of threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from flambeau.compiler.emitter import Function, Value, vector
from flambeau.compiler.frame import chunk_range, thread_workspace
from flambeau.compiler.lanes import Lanes, memory_type, register_type
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.dtypes import DType, by_name

__all__ = ["ARRAYS", "POOL_SLOTS", "PoolPlan", "PlanarPool", "Pool", "PoolSpec",
           "lanes_of_spec", "pool_plan"]

_AXES = ("0", "1", "2")
ARRAYS = ("x", "y", "t", "v")
POOL_POINTERS = (*ARRAYS, "work")
POOL_SLOTS = (
    *POOL_POINTERS, "work_stride", "tasks", "parts", "channels", "block",
    *(f"{word}{d}" for word in ("size", "out", "kernel", "stride", "pad", "dil") for d in _AXES),
    *(f"{who}_{axis}" for who in ARRAYS for axis in ("n", "c", *_AXES)),
    "beyond", "divisor", "reach")
"""x: like the input; y: like the result; t: the gradient of the input; v: the result, where y is
its gradient. `beyond`: whether padding counts; `divisor`: what replaces the count, or 0; `reach`:
places of a laid out row."""

UNROLL_TAPS = 12  # longest window row whose taps are written out
SPLIT_STRIDES = 4  # largest stride for which rows are laid out as that many
CHUNKS = 64


@dataclasses.dataclass(frozen=True)
class PoolSpec:
    """What the text of a pooling kernel depends on.

    Attributes:
        rule: "max", "mean", "argmax", "max_back" or "mean_back".
        x, y: names of the dtypes of the input and of the result (or its gradient).
        last: channels are contiguous, not rows.
        deep: there are three dimensions.
        taps, stride, dilation: along a row; taps is 0 if there are many. If `last`: registers of
            channels that are worked on side by side, 1, 1.
        bins: the windows are those of adaptive pooling; taps is 0 and the rest 1.
    """

    rule: str
    x: str
    y: str
    last: bool
    deep: bool
    taps: int
    stride: int
    dilation: int
    bins: bool = False


@dataclasses.dataclass(frozen=True)
class PoolPlan:
    """How the work is cut: slots of the same names, chunks and workspace."""

    tasks: int
    parts: int
    block: int
    reach: int
    nchunks: int
    work_bytes: int
    work_stride: int


def compute_dtype(dtype: DType) -> DType:
    return dtypes.float32 if dtype.is_reduced else dtype


def lanes_of_spec(spec: PoolSpec, target: Target) -> int:
    """Lanes of the kernel's registers."""
    sizes = [compute_dtype(by_name(name)).itemsize for name in (spec.x, spec.y)]
    return target.lanes(max(4, sizes[0] if spec.rule == "argmax" else max(sizes)))


def pool_plan(spec: PoolSpec, target: Target, batch: int, channels: int, windows, threads: int
              ) -> PoolPlan:
    """The plan for `batch` x `channels` planes; `windows`: sizes padded to three dimensions."""
    lanes = lanes_of_spec(spec, target)
    rows = windows.out[0] * windows.out[1]
    step = spec.stride if spec.stride <= SPLIT_STRIDES else 1
    room = max(windows.padding[2] + windows.size[2],
               (windows.out[2] + lanes) * windows.stride[2]
               + windows.kernel[2] * windows.dilation[2])
    reach = -(-(room + (step + 2) * lanes) // step) + lanes
    reach = -(-reach // lanes) * lanes
    if spec.last:
        block, tasks, parts = _cut_last(spec, lanes, batch, channels, windows, threads)
    else:
        block, tasks = lanes, batch * channels
        parts = 1
        if spec.rule in ("max", "mean", "argmax") and tasks < 4 * threads:
            parts = max(1, min(rows, 4 * threads // max(1, tasks)))
        tasks *= parts
    lines = windows.kernel[0] * windows.kernel[1]
    buffers = {"argmax": lines * step, "mean_back": 2 * step + 2,
               "max_back": lines * step + 2 * rows + step + 1}.get(spec.rule, step)
    if spec.bins:
        buffers = 2
    reach_more = reach + windows.kernel[2] + lanes if spec.rule == "max_back" else reach
    tables = sum(windows.out) + windows.out[2] + 8 * lanes
    stride = (8 * (buffers * reach_more + 2 * tables + 4 * lines) + 127) & -64
    work = batch * channels * rows * windows.out[2] * windows.kernel[1] * windows.kernel[2]
    nchunks = 1 if threads == 1 else max(1, min(tasks, work // 16384, CHUNKS))
    return PoolPlan(tasks, parts, block, reach, nchunks, stride * threads, stride)


def _cut_last(spec: PoolSpec, lanes: int, batch: int, channels: int, windows, threads: int
              ) -> tuple[int, int, int]:
    """(channels of a block, tasks, parts)."""
    if spec.rule == "max_back":
        block = 8 * lanes
        while block > lanes and batch * -(-channels // block) < 4 * threads:
            block //= 2
        parts = -(-channels // block)
        return block, batch * parts, parts
    planes = windows.size if spec.rule == "mean_back" else windows.out
    parts = min(planes[0] * planes[1], max(1, -(-4 * threads // max(1, batch))))
    return channels, batch * parts, parts


class Pool:
    """What both layouts share: slots, ranges of taps, counts, comparisons."""

    def __init__(self, f: Function, spec: PoolSpec, lanes: int):
        self.f, self.spec, self.lanes, self.k = f, spec, lanes, Lanes(f)
        self.slot = {name: f.load("ptr" if name in POOL_POINTERS else "i64",
                                  f.args["args"], place)
                     for place, name in enumerate(POOL_SLOTS)}
        self.x, self.y = by_name(spec.x), by_name(spec.y)
        self.dtype = compute_dtype(self.x)  # what is compared or added up
        self.real = compute_dtype(self.y)
        if spec.rule == "mean_back":
            self.dtype = self.real
        self.scalar = register_type(self.dtype)
        self.vector = vector(lanes, self.scalar)
        self.work = thread_workspace(f, self.slot["work"], self.slot["work_stride"])

    # ------------------------------------------------------------------ memory
    def row(self, who: str, base: Value, *at: Value) -> Value:
        """The address of the row (d, h) of a plane."""
        f = self.f
        offset = f.mul(at[1], self.slot[f"{who}_1"])
        if self.spec.deep:
            offset = f.add(f.mul(at[0], self.slot[f"{who}_0"]), offset)
        return f.gep(base, offset, self.memory(who))

    def memory(self, who: str) -> str:
        if self.spec.rule == "argmax" and who == "y":
            return "i64"
        return memory_type(self.x if who in "xv" else self.y)

    def read(self, who: str, pointer: Value, lanes: int, mask: Value | None = None,
             outside=0) -> Value:
        """A register from memory; `outside` where the mask is off."""
        f, dtype = self.f, self.x if who in "xv" else self.y
        type_ = vector(lanes, memory_type(dtype))
        if mask is None:
            return self.k.widen(f.load(type_, pointer), dtype)
        found = self.k.widen(f.masked_load(type_, pointer, mask), dtype)
        return found if outside == 0 else f.select(mask, found, outside)

    def write(self, value: Value, pointer: Value, mask: Value | None) -> None:
        """A register to the result, in its dtype."""
        f = self.f
        if self.spec.rule == "argmax":
            raw = f.cast("sext", value, vector(self.lanes, "i64"))
        else:
            raw = self.k.narrow(value, self.y)
        if mask is None:
            f.store(raw, pointer)
        else:
            f.masked_store(raw, pointer, mask)

    def clear(self, pointer: Value, count: Value, value=0) -> None:
        """Fill `count` elements of the compute type."""
        f, step = self.f, self.lanes
        full = f.mul(f.udiv(count, step), step)
        with f.loop(0, full, step) as i:
            f.store(f.const(value, self.vector), pointer, i)
        with f.loop(full, count) as i:
            f.store(f.const(value, self.scalar), pointer, i)

    # ------------------------------------------------------------------ loops
    def each_plane(self, start: Value, stop: Value, rows_of: Callable) -> None:
        """rows_of(base, part) for tasks start to stop: the addresses of a plane, by array, and
        which part of its rows is wanted."""
        f, slot = self.f, self.slot
        with f.loop(start, stop) as task:
            plane, part = f.udiv(task, slot["parts"]), f.urem(task, slot["parts"])
            n, c = f.udiv(plane, slot["channels"]), f.urem(plane, slot["channels"])
            base = {who: f.gep(slot[who], f.add(f.mul(n, slot[f"{who}_n"]),
                                                f.mul(c, slot[f"{who}_c"])), self.memory(who))
                    for who in ARRAYS}
            rows_of(base, part)

    def along(self, low: Value | int, high: Value, body: Callable, wide: int = 1) -> None:
        """body(place, registers, mask) over the contiguous places low to high: `wide` registers at
        a time, then one, then what is left of one."""
        f, lanes = self.f, self.lanes
        at = low
        for count in (wide, 1) if wide > 1 else (1,):
            span = count * lanes
            end = f.add(at, f.mul(f.udiv(f.sub(high, at), span), span))
            with f.loop(at, end, span) as place:
                body(place, count, None)
            at = end
        with f.when(f.cmp("slt", at, high)):
            body(at, 1, f.lane_mask(lanes, f.sub(high, at)))

    # ------------------------------------------------------------------ windows
    def taps(self, d: int, window: Value) -> tuple[Value, Value, Value]:
        """(first tap, tap behind the last, place of tap 0) of a window that lie in the input."""
        f, slot = self.f, self.slot
        if d == 0 and not self.spec.deep:
            return 0, 1, 0
        if self.spec.bins:
            start = f.udiv(f.mul(window, slot[f"size{d}"]), slot[f"out{d}"])
            end = f.ceil_div(f.mul(f.add(window, 1), slot[f"size{d}"]), slot[f"out{d}"])
            return 0, f.sub(end, start), start
        start = f.sub(f.mul(window, slot[f"stride{d}"]), slot[f"pad{d}"])
        dil = slot[f"dil{d}"]
        first = f.ceil_div(f.smax(f.sub(0, start), 0), dil)
        last = f.ceil_div(f.smax(f.sub(slot[f"size{d}"], start), 0), dil)
        return first, f.smin(last, slot[f"kernel{d}"]), start

    def covering(self, d: int, place: Value) -> tuple[Value, Value]:
        """(first, behind the last) of the windows that cover a place; dilation 1."""
        f, slot = self.f, self.slot
        if d == 0 and not self.spec.deep:
            return 0, 1
        if self.spec.bins:
            return (f.udiv(f.mul(place, slot[f"out{d}"]), slot[f"size{d}"]),
                    f.ceil_div(f.mul(f.add(place, 1), slot[f"out{d}"]), slot[f"size{d}"]))
        high = f.add(place, slot[f"pad{d}"])
        low = f.smax(f.sub(high, f.sub(slot[f"kernel{d}"], 1)), 0)
        first = f.ceil_div(low, slot[f"stride{d}"])
        last = f.add(f.udiv(high, slot[f"stride{d}"]), 1)
        return first, f.smin(last, slot[f"out{d}"])

    def count(self, d: int, window: Value) -> Value:
        """How many places along dimension d a mean is over, as a float."""
        f, slot = self.f, self.slot
        if self.spec.bins:
            found = f.const(1, "i64") if d == 0 and not self.spec.deep else self.taps(d, window)[1]
            return f.cast("sitofp", found, register_type(self.real))
        start = f.sub(f.mul(window, slot[f"stride{d}"]), slot[f"pad{d}"])
        beyond = f.mul(slot["beyond"], slot[f"pad{d}"])
        high = f.smin(f.add(start, slot[f"kernel{d}"]), f.add(slot[f"size{d}"], beyond))
        found = f.sub(high, f.smax(start, f.sub(0, beyond)))
        given = slot["divisor"] if d == 2 else f.const(1, "i64")
        found = f.select(f.cmp("ne", slot["divisor"], 0), given, found)
        return f.cast("sitofp", found, register_type(self.real))

    def fill_counts(self, table: Value, d: int, inverse: bool) -> None:
        f = self.f
        with f.loop(0, self.slot[f"out{d}"]) as window:
            count = self.count(d, window)
            f.store(f.fdiv(1.0, count) if inverse else count, table, window)

    # ------------------------------------------------------------------ maxima
    @property
    def lowest(self):
        return self.k.identity("max", self.dtype)

    def larger(self, best: Value, x: Value) -> Value:
        """Does x, the next element, take over? NaN does."""
        f = self.f
        if self.dtype.kind != "f":
            return f.cmp("sgt" if self.dtype.kind == "i" else "ugt", x, best)
        return f.or_(f.cmp("ogt", x, best), f.cmp("uno", x, x))

    def maximum(self, best: Value, x: Value) -> Value:
        f = self.f
        if self.dtype.kind != "f":
            return self.k.combine("max", self.dtype, best, x)
        high = f.select(f.cmp("ogt", x, best), x, best)
        return f.select(f.cmp("uno", x, x), x, high)

    def findable(self, top: Value) -> Value:
        """A maximum that an element of its window is unordered with or equal to just if it is it:
        NaN, which nothing equals, is replaced by what its window is not likely to hold."""
        f = self.f
        return f.select(f.cmp("uno", top, top), float("inf"), top)

    def combine(self, total: Value, x: Value) -> Value:
        return self.f.fadd(total, x) if self.spec.rule == "mean" else self.maximum(total, x)

    @property
    def neutral(self):
        return self.lowest if self.spec.rule in ("max", "argmax") else 0

    # ------------------------------------------------------------------ gradients
    def split(self, number: Value, height: str) -> tuple:
        """(d, h) of a row by its number."""
        if not self.spec.deep:
            return 0, number
        return (self.f.udiv(number, self.slot[height]), self.f.urem(number, self.slot[height]))

    @contextlib.contextmanager
    def across(self, low, high):
        """A loop that is known to be one step if there are two dimensions."""
        if self.spec.deep:
            with self.f.loop(low, high) as i:
                yield i
        else:
            yield self.f.const(0, "i64")

    def clear_to(self, plane: Value, done, needed: Value, clear_row) -> None:
        """Clear the rows of a gradient up to row number `needed`, to which nothing was added."""
        f = self.f
        with f.loop(done.get(), needed) as number:
            clear_row(self.row("t", plane, *self.split(number, "size1")))
        done.set(f.smax(done.get(), needed))

    def rows_needed(self, ends: Sequence[Value]) -> Value:
        """The number of rows up to the place (d, h) behind the last that a window covers."""
        f, slot = self.f, self.slot
        d, h = (f.smin(end, slot[f"size{axis}"]) for axis, end in enumerate(ends))
        if not self.spec.deep:
            return f.smax(h, 0)
        return f.smax(f.add(f.mul(f.sub(d, 1), slot["size1"]), h), 0)

    def window_end(self, d: int, start: Value) -> Value:
        f, slot = self.f, self.slot
        return f.add(f.add(start, f.mul(f.sub(slot[f"kernel{d}"], 1), slot[f"dil{d}"])), 1)


class PlanarPool(Pool):
    """Rows are contiguous."""

    def __init__(self, f: Function, spec: PoolSpec, lanes: int):
        super().__init__(f, spec, lanes)
        self.step = spec.stride if spec.stride <= SPLIT_STRIDES else 1
        self.even = spec.stride <= SPLIT_STRIDES  # taps of a row of windows are runs of memory
        reach = self.slot["reach"]
        self.reach = reach
        rule, slot = spec.rule, self.slot
        several = rule in ("argmax", "max_back")
        self.lines = f.mul(slot["kernel0"], slot["kernel1"]) if several else f.const(1, "i64")
        self.line_size = f.mul(reach, self.step)
        place = f.gep(self.work, f.mul(self.lines, self.line_size), self.scalar)
        if rule == "mean_back":  # rows of windows before, their places along the row behind
            self.places = place
            place = f.gep(place, f.mul(reach, self.step + 1), self.scalar)
        self.table = place
        place = f.gep(place, f.add(slot["out2"], 2 * lanes), "i64")
        self.table0 = place
        self.table1 = f.gep(place, slot["out0"], "i64")
        self.origins = f.gep(self.table1, slot["out1"], "i64")
        self.gathers = rule == "max_back" and self.even and spec.taps > 0
        if rule in ("max_back", "mean_back"):
            self.before = lanes * (-(-spec.taps // lanes) or 1) if spec.taps else f.mul(
                f.ceil_div(slot["kernel2"], lanes), lanes)
        if self.gathers:
            self.pitch = f.add(reach, self.before)
            rows = f.mul(slot["out0"], slot["out1"])
            self.covers = f.gep(self.origins, f.mul(slot["kernel0"], slot["kernel1"]), "i64")
            self.places = f.gep(self.covers, f.mul(
                f.mul(slot["kernel0"], slot["kernel1"]), 2), "i64")
            place = f.gep(self.places, f.mul(reach, self.step + 1), self.scalar)
            self.spots = f.gep(place, 0, "i64")
            self.grads = f.gep(self.spots, f.mul(rows, self.pitch), "i32")

    def emit(self) -> None:
        f, slot, spec = self.f, self.slot, self.spec
        start, stop = chunk_range(f, slot["tasks"])
        self._prepare()
        rows_of = {"mean_back": self._gradient_rows, "max_back": self._given_rows}.get(
            spec.rule, self._window_rows)
        if spec.rule == "max_back" and not self.gathers:
            rows_of = self._window_rows
        self.each_plane(start, stop, rows_of)

    def _prepare(self) -> None:
        """Fill the padding of the laid out rows, and the tables of counts."""
        f, slot, rule = self.f, self.slot, self.spec.rule
        outside = 0 if rule in ("mean", "mean_back") else self.lowest
        self.clear(self.work, f.mul(self.lines, self.line_size), outside)
        if self.gathers:
            with f.loop(0, f.mul(f.mul(slot["out0"], slot["out1"]), self.pitch)) as i:
                f.store(f.const(-1, "i32"), self.spots, i)
                f.store(f.const(0.0, register_type(self.real)), self.grads, i)
        if rule in ("mean", "mean_back"):
            # behind the end as well: what no result needs must not be slow to divide by
            self.clear(self.table, f.add(slot["out2"], self.lanes), 1)
            for d, table in ((0, self.table0), (1, self.table1), (2, self.table)):
                self.fill_counts(table, d, rule == "mean_back")
        elif rule != "max":
            with f.loop(0, slot["out2"]) as window:  # where each window's first tap lies
                first, _, _ = self.taps(2, window)
                f.store(f.cast("trunc", f.mul(first, slot["dil2"]), "i32"), self.table, window)
        span = f.mul(f.const(self.lanes, "i64"), self.step)
        self.full = f.mul(f.udiv(slot["size2"], span), span)
        self.tail = f.lane_mask(self.lanes * self.step, f.sub(slot["size2"], self.full))
        self.full_out = f.mul(f.udiv(slot["out2"], self.lanes), self.lanes)
        self.tail_out = f.lane_mask(self.lanes, f.sub(slot["out2"], self.full_out))

    def _line_places(self, line: Value) -> list[Value]:
        """Where in a laid out row the elements 0, 1, ... of the input lie, up to the stride."""
        f, result = self.f, []
        for j in range(self.step):
            at = f.add(self.slot["pad2"], j)
            which, place = f.urem(at, self.step), f.udiv(at, self.step)
            result.append(f.gep(line, f.add(f.mul(which, self.reach), place), self.scalar))
        return result

    def _lay_out(self, line: Value, make) -> None:
        """Write a row: make(offset, mask) gives `step` registers' worth of it as one vector."""
        f, places, span = self.f, self._line_places(line), self.lanes * self.step

        def write(w: Value, mask: Value | None) -> None:
            whole, at = make(w, mask), f.udiv(w, self.step)
            for j, place in enumerate(places):
                one = whole if self.step == 1 else f.shuffle(whole, None,
                                                             range(j, span, self.step))
                f.store(one, place, at)

        with f.loop(0, self.full, span) as w:
            write(w, None)
        with f.when(f.cmp("slt", self.full, self.slot["size2"])):
            write(self.full, self.tail)

    def _tap(self, line: Value, ow: Value, tap) -> Value:
        """What tap number `tap` of the windows from `ow` on sees."""
        f = self.f
        if not self.even:
            at = f.add(f.mul(ow, self.slot["stride2"]), f.mul(tap, self.slot["dil2"]))
            steps = f.mul(f.iota(self.lanes), f.splat(self.slot["stride2"], self.lanes))
            return f.gather(self.vector, f.gep(f.gep(line, at, self.scalar), steps, self.scalar),
                            f.const(True, vector(self.lanes, "i1")))
        far = f.mul(tap, self.spec.dilation)
        which, shift = f.urem(far, self.step), f.udiv(far, self.step)
        offset = f.add(f.add(f.mul(which, self.reach), shift), ow)
        return f.load(self.vector, line, offset)

    def _each_tap(self, body, first: int = 0, step: int = 1) -> None:
        """body(tap) for the taps of a row, written out if they are few."""
        if self.spec.taps:
            for tap in range(first, self.spec.taps, step):
                body(tap)
        else:
            with self.f.loop(first, self.slot["kernel2"], step) as tap:
                body(tap)

    def _each_out(self, body) -> None:
        """body(ow, mask) over a row of results."""
        f = self.f
        with f.loop(0, self.full_out, self.lanes) as ow:
            body(ow, None)
        with f.when(f.cmp("slt", self.full_out, self.slot["out2"])):
            body(self.full_out, self.tail_out)

    # ------------------------------------------------------------------ rows of windows
    def _window_rows(self, base: dict, part: Value) -> None:
        f, slot, rule = self.f, self.slot, self.spec.rule
        total = f.mul(slot["out0"], slot["out1"])
        begin = f.udiv(f.mul(total, part), slot["parts"])
        end = f.udiv(f.mul(total, f.add(part, 1)), slot["parts"])
        done = f.var("i64", 0)
        with f.loop(begin, end) as number:
            od, oh = self.split(number, "out1")
            d, h = self.taps(0, od), self.taps(1, oh)
            y = self.row("y", base["y"], od, oh)
            if rule in ("max", "mean"):
                self._forward(base["x"], y, od, oh, d, h)
            elif rule == "argmax":
                self._argmax(base, y, d, h)
            else:
                ends = self.window_end(0, d[2]), self.window_end(1, h[2])
                self.clear_to(base["t"], done, self.rows_needed(ends), self._clear_row)
                self._argmax(base, y, d, h)
        if rule == "max_back":
            self.clear_to(base["t"], done, f.mul(slot["size0"], slot["size1"]), self._clear_row)

    def _clear_row(self, pointer: Value) -> None:
        self.clear(pointer, self.slot["size2"])

    def _each_row(self, d, h, body) -> None:
        """body(kd, kh, d, h) for the taps (ranges as of `taps`) over the rows of a window."""
        f, slot = self.f, self.slot
        with self.across(d[0], d[1]) as kd, f.loop(h[0], h[1]) as kh:
            body(kd, kh, f.add(d[2], f.mul(kd, slot["dil0"])),
                 f.add(h[2], f.mul(kh, slot["dil1"])))

    def _forward(self, x: Value, y: Value, od: Value, oh: Value, d, h) -> None:
        f, lanes = self.f, self.lanes
        wide = vector(lanes * self.step, self.scalar)
        total, result = f.var(wide), f.var(self.vector)

        def rows(w: Value, mask: Value | None) -> Value:
            total.set(self.neutral)

            def add(kd, kh, at_d, at_h) -> None:
                pointer = f.gep(self.row("x", x, at_d, at_h), w, self.memory("x"))
                found = self.read("x", pointer, lanes * self.step, mask, self.neutral)
                total.set(self.combine(total.get(), found))

            self._each_row(d, h, add)
            return total.get()

        self._lay_out(self.work, rows)
        count = None
        if self.spec.rule == "mean":
            count = f.splat(f.fmul(f.load(self.scalar, self.table0, od),
                                   f.load(self.scalar, self.table1, oh)), lanes)

        def out(ow: Value, mask: Value | None) -> None:
            result.set(self._tap(self.work, ow, 0))
            self._each_tap(lambda tap: result.set(
                self.combine(result.get(), self._tap(self.work, ow, tap))), 1)
            value = result.get()
            if count is not None:
                value = f.fdiv(value, f.fmul(count, f.load(self.vector, self.table, ow)))
            self.write(value, f.gep(y, ow, self.memory("y")), mask)

        self._each_out(out)

    def _lay_out_rows(self, x: Value, d, h, across) -> Value:
        """Lay out the rows of a window (ranges of taps as of `taps`): how many. Beside each its
        offset by the strides `across`, or the number of its first tap."""
        f, slot = self.f, self.slot
        used = f.var("i64", 0)
        used.set(0)

        def lay_out(kd, kh, at_d, at_h) -> None:
            line = f.gep(self.work, f.mul(used.get(), self.line_size), self.scalar)
            pointer = self.row("x", x, at_d, at_h)
            self._lay_out(line, lambda w, mask: self.read(
                "x", f.gep(pointer, w, self.memory("x")), self.lanes * self.step, mask,
                self.lowest))
            if across is None:
                tap = f.add(f.mul(kd, slot["kernel1"]), kh) if self.spec.deep else kh
                origin = f.mul(tap, slot["kernel2"])
            else:
                origin = f.add(f.mul(at_d, across[0]), f.mul(at_h, across[1]))
            f.store(f.cast("trunc", origin, "i32"), self.origins, used.get())
            used.set(f.add(used.get(), 1))

        self._each_row(d, h, lay_out)
        return used.get()

    def _argmax(self, base: dict, y: Value, d, h) -> None:
        f, slot, lanes = self.f, self.slot, self.lanes
        back = self.spec.rule == "max_back"
        places = vector(lanes, "i32")
        best, spot = f.var(self.vector), f.var(places)
        across = [slot["t_0"], slot["t_1"]] if back else [
            f.mul(slot["size1"], slot["size2"]), slot["size2"]]

        used = self._lay_out_rows(base["x"], d, h, across)
        steps = f.mul(f.iota(lanes, "i32"), f.splat(f.cast("trunc", slot["stride2"], "i32"), lanes))

        def find(ow: Value, mask: Value | None) -> Value:
            """Offsets of the maxima of the windows from `ow` on in their plane."""
            best.set(self.lowest)
            first = f.splat(f.load("i32", self.origins), lanes)
            spot.set(f.add(first, f.load(places, self.table, ow)))
            with f.loop(0, used) as number:
                line = f.gep(self.work, f.mul(number, self.line_size), self.scalar)
                origin = f.load("i32", self.origins, number)

                def look(tap) -> None:
                    found = self._tap(line, ow, tap)
                    better = self.larger(best.get(), found)
                    far = f.mul(tap, self.spec.dilation or slot["dil2"])
                    far = far if isinstance(far, int) else f.cast("trunc", far, "i32")
                    here = f.splat(f.add(origin, far), lanes)
                    best.set(f.select(better, found, best.get()))
                    spot.set(f.select(better, here, spot.get()))

                self._each_tap(look)
            start = f.sub(f.mul(ow, slot["stride2"]), slot["pad2"])
            return f.add(spot.get(), f.add(f.splat(f.cast("trunc", start, "i32"), lanes), steps))

        if not back:
            self._each_out(lambda ow, mask: self.write(
                find(ow, mask), f.gep(y, ow, "i64"), mask))
            return
        buffer = f.array("i32", 16 * lanes)
        group = 16 * lanes
        with f.loop(0, slot["out2"], group) as low:
            high = f.smin(f.add(low, group), slot["out2"])
            with f.loop(low, high, lanes) as ow:
                f.store(find(ow, None), buffer, f.sub(ow, low))
            with f.loop(low, high) as ow:
                place = f.cast("sext", f.load("i32", buffer, f.sub(ow, low)), "i64")
                pointer = f.gep(base["t"], place, self.memory("t"))
                g = f.load(self.memory("y"), y, ow)
                f.store(f.fadd(f.load(self.memory("t"), pointer), g), pointer)

    # ------------------------------------------------------------------ the gradient of a maximum
    def _given_rows(self, base: dict, part: Value) -> None:
        """First the tap that each window's maximum is at, then what each place takes from the
        windows over it."""
        f, slot = self.f, self.slot
        with f.loop(0, f.mul(slot["out0"], slot["out1"])) as number:
            self._find_taps(base, number)
        with f.loop(0, f.mul(slot["size0"], slot["size1"])) as number:
            at = self.split(number, "size1")
            count = self._covers(at)
            self._gradient_row(self.row("t", base["t"], *at),
                               lambda q, count=count: self._taken(q, count))

    def _find_taps(self, base: dict, number: Value) -> None:
        f, lanes, taps = self.f, self.lanes, self.spec.taps
        at = self.split(number, "out1")
        used = self._lay_out_rows(base["x"], self.taps(0, at[0]), self.taps(1, at[1]), None)
        y, v = (self.row(who, base[who], *at) for who in "yv")
        line = f.add(f.mul(number, self.pitch), self.before)
        spots, grads = f.gep(self.spots, line, "i32"), f.gep(self.grads, line, self.scalar)
        spot = f.var(vector(lanes, "i32"))

        def find(ow: Value, mask: Value | None) -> None:
            top = self.findable(self.read("v", f.gep(v, ow, self.memory("v")), lanes, mask))
            f.store(self.read("y", f.gep(y, ow, self.memory("y")), lanes, mask), grads, ow)
            spot.set(-1)
            with f.loop(0, used) as back:  # the first element that equals the maximum comes last
                row = f.sub(f.sub(used, 1), back)
                rows = f.gep(self.work, f.mul(row, self.line_size), self.scalar)
                origin = f.splat(f.load("i32", self.origins, row), lanes)
                for tap in reversed(range(taps)):
                    hit = f.cmp("ueq", self._tap(rows, ow, tap), top)
                    spot.set(f.select(hit, f.op("add", origin, tap), spot.get()))
            result = spot.get() if mask is None else f.select(mask, spot.get(), -1)
            f.store(result, spots, ow)

        self._each_out(find)

    def _covers(self, at: tuple) -> Value:
        """List the rows of windows over a row of places, each with its first tap there: how many.
        """
        f, slot = self.f, self.slot
        count = f.var("i64", 0)
        count.set(0)

        def over(d: int, tap: Value) -> tuple[Value, Value]:
            """(the window whose tap lies at the place, whether there is one)"""
            start = f.sub(f.add(at[d], slot[f"pad{d}"]), f.mul(tap, slot[f"dil{d}"]))
            safe = f.smax(start, 0)
            window = f.udiv(safe, slot[f"stride{d}"])
            fits = f.and_(f.cmp("eq", f.mul(window, slot[f"stride{d}"]), start),
                          f.cmp("slt", window, slot[f"out{d}"]))
            return window, fits

        with self.across(0, slot["kernel0"]) as kd, f.loop(0, slot["kernel1"]) as kh:
            window, fits = over(1, kh)
            tap = kh
            if self.spec.deep:
                deep, also = over(0, kd)
                fits = f.and_(fits, also)
                window = f.add(f.mul(deep, slot["out1"]), window)
                tap = f.add(f.mul(kd, slot["kernel1"]), kh)
            with f.when(fits):
                entry = f.mul(count.get(), 2)
                f.store(f.add(f.mul(window, self.pitch), self.before), self.covers, entry)
                f.store(f.mul(tap, slot["kernel2"]), self.covers, f.add(entry, 1))
                count.set(f.add(count.get(), 1))
        return count.get()

    def _taken(self, q: Value, count: Value) -> list[Value]:
        """What the places q * stride + r take from the listed rows of windows, for every r."""
        f, lanes = self.f, self.lanes
        totals = [f.var(self.vector) for _ in range(self.step)]
        for total in totals:
            total.set(0.0)
        with f.loop(0, count) as i:
            entry = f.mul(i, 2)
            line = f.add(f.load("i64", self.covers, entry), q)
            first = f.splat(f.cast("trunc", f.load("i64", self.covers, f.add(entry, 1)), "i32"),
                            lanes)
            for tap in range(self.spec.taps):
                far = tap * self.spec.dilation
                window, total = f.sub(line, far // self.step), totals[far % self.step]
                hit = f.cmp("eq", f.load(first.type, self.spots, window),
                            f.op("add", first, tap))
                g = f.load(self.vector, self.grads, window)
                total.set(f.select(hit, f.fadd(total.get(), g), total.get()))
        return [total.get() for total in totals]

    # ------------------------------------------------------------------ the gradient of a mean
    def _gradient_rows(self, base: dict, part: Value) -> None:
        f, slot = self.f, self.slot
        self.shares = f.gep(self.work, self.before, self.scalar)
        with f.loop(0, f.mul(slot["size0"], slot["size1"])) as number:
            at = self.split(number, "size1")
            d, h = self.covering(0, at[0]), self.covering(1, at[1])
            self._shares(base["y"], d, h)
            self._gradient_row(self.row("t", base["t"], *at), self._shared_taps)

    def _shares(self, y: Value, d, h) -> None:
        """For every window along the row: what it gives to each of its places there."""
        f, lanes = self.f, self.lanes
        total = f.var(self.vector)

        def out(ow: Value, mask: Value | None) -> None:
            total.set(0.0)
            with self.across(d[0], d[1]) as od, f.loop(h[0], h[1]) as oh:
                share = f.fmul(f.load(self.scalar, self.table0, od),
                               f.load(self.scalar, self.table1, oh))
                pointer = f.gep(self.row("y", y, od, oh), ow, self.memory("y"))
                g = self.read("y", pointer, lanes, mask)
                total.set(f.fadd(total.get(), f.fmul(g, f.splat(share, lanes))))
            share = f.fmul(total.get(), f.load(self.vector, self.table, ow))
            if mask is not None:
                share = f.select(mask, share, 0.0)
            f.store(share, self.shares, ow)

        self._each_out(out)

    def _shared_taps(self, q: Value) -> list[Value]:
        """What the places q * stride + r take from the windows over them, for every r."""
        f, totals = self.f, [self.f.var(self.vector) for _ in range(self.step)]
        for r, total in enumerate(totals):
            total.set(0.0)
            self._each_tap(lambda tap, total=total: total.set(f.fadd(total.get(), f.load(
                self.vector, self.shares, f.sub(q, f.udiv(tap, self.step))))), r, self.step)
        return [total.get() for total in totals]

    def _gradient_row(self, t: Value, places_of) -> None:
        """One row of the gradient. places_of(q) gives the places q * stride + r for every r,
        counted from the start of the padding; they are woven together, then copied."""
        f, slot, lanes = self.f, self.slot, self.lanes
        full = f.mul(f.udiv(slot["size2"], lanes), lanes)
        rest = f.cmp("slt", full, slot["size2"])
        mask = f.lane_mask(lanes, f.sub(slot["size2"], full))
        if self.even and self.step == 1:
            def found(w: Value) -> Value:
                return places_of(f.add(w, slot["pad2"]))[0]
        else:
            self._weave_row(places_of)
            source = f.gep(self.places, slot["pad2"], self.scalar)

            def found(w: Value) -> Value:
                return f.load(self.vector, source, w)
        with f.loop(0, full, lanes) as w:
            self.write(found(w), f.gep(t, w, self.memory("t")), None)
        with f.when(rest):
            self.write(found(full), f.gep(t, full, self.memory("t")), mask)

    def _weave_row(self, places_of) -> None:
        f, slot = self.f, self.slot
        length = f.add(slot["pad2"], slot["size2"])
        if self.even:
            with f.loop(0, f.ceil_div(length, self.step), self.lanes) as q:
                self._weave(places_of(q), f.mul(q, self.step))
            return
        self.clear(self.places, f.add(length, slot["kernel2"]))
        with f.loop(0, slot["out2"]) as ow, f.loop(0, slot["kernel2"]) as tap:
            at = f.add(f.mul(ow, slot["stride2"]), tap)
            with f.when(f.cmp("slt", at, length)):
                found = f.fadd(f.load(self.scalar, self.places, at),
                               f.load(self.scalar, self.shares, ow))
                f.store(found, self.places, at)

    def _weave(self, parts: list[Value], at: Value) -> None:
        """Store the elements of `parts` in turn."""
        f, lanes, count = self.f, self.lanes, len(parts)
        whole = parts[0]
        if count > 1:
            pairs = [parts[i:i + 2] for i in range(0, count, 2)]
            joined = [f.shuffle(p[0], p[1] if len(p) == 2 else None, range(2 * lanes))
                      for p in pairs]
            whole = joined[0] if len(joined) == 1 else f.shuffle(*joined, range(4 * lanes))
            order = [part * lanes + lane for lane in range(lanes) for part in range(count)]
            whole = f.shuffle(whole, None, order)
        f.store(whole, self.places, at)
