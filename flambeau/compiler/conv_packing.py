"""Packing for convolutions: blocks of the patch matrix, of weights, and of images of results.

Columns of the patch matrix are the pixels of all images, flattened; they are handled in runs along
the last spatial dimension. Packing functions get what they need to know of the tensors in a record
of run-time values (`Context`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.packing import Tile, add, load_lanes, load_scalar, widen

__all__ = ["CONV_POINTERS", "CONV_SLOTS", "Context", "image_context", "weight_context",
           "result_context", "tap_size", "pack_patch_panel", "pack_patch_rows", "pack_weights",
           "pack_output_panel", "store_columns", "store_weight_gradient", "copy_line",
           "column_runs"]


CONV_POINTERS = ("input", "weight", "output", "bias", "work")


def CONV_SLOTS(rank: int) -> tuple[str, ...]:
    """Names of a convolution kernel's slots, the same for all kinds.

    `input`, `weight`, `output` are the tensors of the forward convolution or their gradients.
    Strides (`input_n`, `input_c`, `input_x0`, ...) are in elements. `c_in` and `c_out` count all
    groups; `weight_i` is the stride along the c_in / groups channels of one filter.
    """
    axes = range(rank)
    return (*CONV_POINTERS, "work_stride", "n", "c_in", "c_out", "groups", "bias_stride",
            "tiles_m", "tiles_n",
            "input_n", "input_c", *(f"input_x{d}" for d in axes),
            "weight_o", "weight_i", *(f"weight_x{d}" for d in axes),
            "output_n", "output_c", *(f"output_x{d}" for d in axes),
            *(f"in{d}" for d in axes), *(f"kernel{d}" for d in axes), *(f"out{d}" for d in axes),
            *(f"stride{d}" for d in axes), *(f"pad{d}" for d in axes), *(f"dil{d}" for d in axes))


# ---------------------------------------------------------------------- contexts
class Context:
    """A record of run-time values that a kernel passes to its packing functions by address."""

    def __init__(self, names: Sequence[str], pointers: Sequence[str] = ()):
        self.names, self.pointers = tuple(names), frozenset(pointers)

    def create(self, f: Function) -> Value:
        return f.array("i64", len(self.names))

    def fill(self, f: Function, record: Value, values: dict) -> None:
        for index, name in enumerate(self.names):
            type_ = "ptr" if name in self.pointers else "i64"
            f.store(f.typed(values[name], type_), record, index)

    def read(self, f: Function, record: Value) -> dict[str, Value]:
        return {name: f.load("ptr" if name in self.pointers else "i64", record, index)
                for index, name in enumerate(self.names)}


def image_context(rank: int) -> Context:
    """Where patches come from. Column (n, q) and tap t read pixel q * move + delta[t]."""
    axes = range(rank)
    return Context(("base", "image", "channel", "taps", "tap_count", *(f"grid{d}" for d in axes),
                    *(f"step{d}" for d in axes), *(f"move{d}" for d in axes),
                    *(f"size{d}" for d in axes), "pixel"), ("base", "taps"))


def weight_context() -> Context:
    """The weights of one group as a matrix of (channel, tap) rows."""
    return Context(("base", "row", "channel", "taps", "tap_count", "dense", "flat"),
                   ("base", "taps"))


def result_context(rank: int) -> Context:
    """An image whose pixels are the columns of a matrix."""
    axes = range(rank)
    return Context(("base", "image", "channel", *(f"grid{d}" for d in axes),
                    *(f"step{d}" for d in axes)), ("base",))


def tap_size(rank: int) -> int:
    """i64 words of an entry of the tap table: source offset, weight offset, deltas."""
    return 2 + rank


# ---------------------------------------------------------------------- runs of columns
@dataclasses.dataclass(frozen=True)
class Run:
    """Columns that follow each other along the last dimension of the grid."""

    image: Value
    at: tuple[Value, ...]
    offset: Value
    length: Value


@contextlib.contextmanager
def column_runs(f: Function, grid: Sequence[Value], start: Value, count: Value,
                limit: int | None = None) -> Iterator[Run]:
    """Loop over columns start..start+count of the flattened (image, *grid), one run at a time."""
    sizes = [f.smax(size, 1) for size in grid]
    rest, places = start, []
    for size in reversed(sizes):
        places.insert(0, f.var("i64", f.urem(rest, size)))
        rest = f.udiv(rest, size)
    image, offset = f.var("i64", rest), f.var("i64", 0)
    head, body, done = f.label("runs"), f.label("run"), f.label("done")
    f.branch(head)
    f.at(head)
    f.branch_if(f.cmp("slt", offset.get(), count), body, done)
    f.at(body)
    length = f.smin(f.sub(sizes[-1], places[-1].get()), f.sub(count, offset.get()))
    if limit is not None:
        length = f.smin(length, limit)
    yield Run(image.get(), tuple(place.get() for place in places), offset.get(), length)
    offset.set(f.add(offset.get(), length))
    places[-1].set(f.add(places[-1].get(), length))
    for axis in reversed(range(len(sizes))):
        following = image if axis == 0 else places[axis - 1]
        wraps = f.cmp("sge", places[axis].get(), sizes[axis])
        following.set(f.add(following.get(), f.cast("zext", wraps, "i64")))
        places[axis].set(f.select(wraps, 0, places[axis].get()))
    f.branch(head)
    f.at(done)


# ---------------------------------------------------------------------- patches
class PatchReader:
    """Emits reads of the patch matrix inside of a packing function."""

    def __init__(self, f: Function, tile: Tile, rank: int, unit: bool, record: Value):
        self.f, self.tile, self.rank, self.unit = f, tile, rank, unit
        self.context = c = image_context(rank).read(f, record)
        axes = range(rank)
        self.grid = [c[f"grid{d}"] for d in axes]
        self.zero = f.array(tile.memory, 1)
        f.store(f.const(0, tile.memory), self.zero)
        if tile.masked:
            self.lane = f.iota(tile.lanes, "i32")
        if tile.masked and not unit:
            pixel = f.cast("trunc", c["pixel"], "i32")
            self.offsets = f.mul(self.lane, f.splat(pixel, tile.lanes))
            move = f.cast("trunc", c[f"move{rank - 1}"], "i32")
            self.moves = f.mul(self.lane, f.splat(move, tile.lanes))

    def begin(self, run: Run) -> None:
        """Prepare for the taps of one run (at most a vector of columns)."""
        f, c, axes = self.f, self.context, range(self.rank)
        self.run = run
        self.origin = [f.mul(run.at[d], c[f"move{d}"]) for d in axes]
        offset = f.mul(run.image, c["image"])
        for d in axes:
            offset = f.add(offset, f.mul(run.at[d], c[f"step{d}"]))
        self.base = f.gep(c["base"], offset, self.tile.memory)
        if self.tile.masked:
            self.inside_run = self._below(0, run.length)

    def copy(self, tap: Value, channel: Value, channels: Value, dst: Value,
             dst_step: Value | int) -> None:
        """Channels channel..channel+channels of one tap, each to the next `dst_step`."""
        f, c, last = self.f, self.context, self.rank - 1
        entry = f.gep(c["taps"], f.mul(tap, tap_size(self.rank)), "i64")
        places = [f.add(self.origin[d], f.load("i64", entry, 2 + d)) for d in range(self.rank)]
        inside = f.const(True, "i1")
        for d in range(last):
            inside = f.and_(inside, f.cmp("ult", places[d], c[f"size{d}"]))
        src = f.gep(self.base, f.add(f.load("i64", entry), f.mul(channel, c["channel"])),
                    self.tile.memory)
        copy = self._copy_masked if self.tile.masked else self._copy_scalars
        copy(src, places[last], inside, channels, dst, dst_step)

    def _below(self, start, stop: Value) -> Value:
        """Mask of the lanes start <= lane < stop."""
        f, lanes = self.f, self.tile.lanes
        start = f.typed(start, "i64")
        count = f.cast("trunc", f.smax(f.sub(stop, start), 0), "i32")
        shifted = f.sub(self.lane, f.splat(f.cast("trunc", start, "i32"), lanes))
        return f.cmp("ult", shifted, f.splat(count, lanes))

    def _copy_masked(self, src: Value, place: Value, inside: Value, channels: Value, dst: Value,
                     dst_step) -> None:
        f, c, tile = self.f, self.context, self.tile
        size = f.select(inside, c[f"size{self.rank - 1}"], 0)
        if self.unit:
            start = f.smax(f.sub(0, place), 0)
            stop = f.smin(self.run.length, f.sub(size, place))
            mask = self._below(start, f.select(inside, stop, 0))
        else:
            places = f.add(self.moves, f.splat(f.cast("trunc", place, "i32"), tile.lanes))
            limit = f.splat(f.cast("trunc", size, "i32"), tile.lanes)
            mask = f.and_(f.cmp("ult", places, limit), self.inside_run)
        with f.loop(0, channels) as k:
            pointer = f.gep(src, f.mul(k, c["channel"]), tile.memory)
            if self.unit:
                value = load_lanes(f, tile, pointer, mask)
            else:
                value = gather_lanes(f, tile, pointer, self.offsets, mask)
            f.masked_store(value, f.gep(dst, f.mul(k, dst_step), tile.compute), self.inside_run)

    def _copy_scalars(self, src: Value, place: Value, inside: Value, channels: Value, dst: Value,
                      dst_step) -> None:
        f, c, tile, run = self.f, self.context, self.tile, self.run
        size = c[f"size{self.rank - 1}"]
        if not self.unit:
            self._copy_one_by_one(src, place, inside, channels, dst, dst_step)
            return
        whole = f.and_(f.cmp("sge", place, 0),
                       f.cmp("sle", f.add(place, tile.lanes), size))
        whole = f.and_(f.and_(whole, inside), f.cmp("eq", run.length, tile.lanes))
        with f.when_else(whole) as otherwise:
            with f.loop(0, channels) as k:
                value = load_lanes(f, tile, f.gep(src, f.mul(k, c["channel"]), tile.memory))
                f.store(value, f.gep(dst, f.mul(k, dst_step), tile.compute))
            otherwise()
            self._copy_one_by_one(src, place, inside, channels, dst, dst_step)

    def _copy_one_by_one(self, src: Value, place: Value, inside: Value, channels: Value,
                         dst: Value, dst_step) -> None:
        f, c, tile = self.f, self.context, self.tile
        move, size = c[f"move{self.rank - 1}"], c[f"size{self.rank - 1}"]
        with f.loop(0, self.run.length) as lane:
            hit = f.and_(inside, f.cmp("ult", f.add(place, f.mul(lane, move)), size))
            first = f.gep(src, f.mul(lane, c["pixel"]), tile.memory)
            first = f.select(hit, first, self.zero)
            step = f.select(hit, c["channel"], 0)
            with f.loop(0, channels) as k:
                value = load_scalar(f, tile, f.gep(first, f.mul(k, step), tile.memory))
                f.store(value, f.gep(dst, f.add(f.mul(k, dst_step), lane), tile.compute))


def gather_lanes(f: Function, tile: Tile, pointer: Value, offsets: Value, mask: Value) -> Value:
    """One vector whose lanes lie `offsets` elements from `pointer`."""
    pointers = f.emit(vector(tile.lanes, "ptr"),
                      f"getelementptr {tile.memory}, {pointer}, {offsets}")
    return widen(f, f.gather(tile.memory_vector, pointers, mask), tile)


_PACK_ARGS = (("ptr noalias", "record"), ("i64", "start"), ("i64", "count"), ("i64", "k"),
              ("i64", "depth"), ("ptr noalias", "dst"))


def pack_patch_panel(module: Module, tile: Tile, rank: int, unit: bool) -> None:
    """Define pack_patch_panel(record, start, count, k, depth, dst): operand B of forward.

    Columns start..start+count of the patch matrix, its rows (channel, tap) k..k+depth.
    """
    f = module.function("pack_patch_panel", _PACK_ARGS, internal=True)
    a = f.args
    patch = PatchReader(f, tile, rank, unit, a["record"])
    taps = patch.context["tap_count"]
    some = f.smax(taps, 1)
    count = f.smin(a["count"], tile.width)
    end = f.add(a["k"], a["depth"])
    with column_runs(f, patch.grid, a["start"], count, tile.lanes) as run:
        patch.begin(run)
        dst = f.gep(a["dst"], run.offset, tile.compute)
        with f.loop(0, 3) as part:  # the rest of a channel, whole channels, some of a channel
            c0, c1, t0, t1 = _rectangle(f, part, a["k"], end, some)
            with f.loop(t0, t1) as tap:
                row = f.sub(f.add(f.mul(c0, some), tap), a["k"])
                patch.copy(tap, c0, f.sub(c1, c0),
                           f.gep(dst, f.mul(row, tile.width), tile.compute),
                           f.mul(some, tile.width))


def _rectangle(f: Function, part: Value, start: Value, end: Value, taps: Value) -> tuple:
    """Channels c0..c1 and taps t0..t1 of one part of the range start..end of (channel, tap)."""
    first, last = f.udiv(start, taps), f.udiv(end, taps)  # channels that the range begins, ends in
    skipped, kept = f.sub(start, f.mul(first, taps)), f.sub(end, f.mul(last, taps))
    partial, single = f.cmp("ne", skipped, 0), f.cmp("eq", first, last)
    inner = f.add(first, f.cast("zext", partial, "i64"))
    head, middle = f.cmp("eq", part, 0), f.cmp("eq", part, 1)
    c0 = f.select(head, first, f.select(middle, inner, last))
    c1 = f.select(middle, last, f.add(c0, 1))
    t0 = f.select(head, skipped, 0)
    head_end = f.select(partial, f.select(single, kept, taps), 0)
    middle_end = f.select(f.cmp("slt", inner, last), taps, 0)
    tail_end = f.select(f.and_(partial, single), 0, kept)
    return c0, c1, t0, f.select(head, head_end, f.select(middle, middle_end, tail_end))


def pack_patch_rows(module: Module, tile: Tile, rank: int, unit: bool) -> None:
    """Define pack_patch_rows(record, start, count, k, depth, dst, channels): operand A of
    grad_weight.

    Rows (tap, channel) start..start+count of the patch matrix, its columns k..k+depth.
    """
    f = module.function("pack_patch_rows", (*_PACK_ARGS, ("i64", "channels")), internal=True)
    a = f.args
    patch = PatchReader(f, tile, rank, unit, a["record"])
    with column_runs(f, patch.grid, a["k"], a["depth"], tile.lanes) as run:
        patch.begin(run)
        dst = f.gep(a["dst"], run.offset, tile.compute)
        with column_runs(f, [a["channels"]], a["start"], a["count"]) as rows:
            patch.copy(rows.image, rows.at[0], rows.length,
                       f.gep(dst, f.mul(rows.offset, tile.pitch), tile.compute), tile.pitch)


# ---------------------------------------------------------------------- weights
def pack_weights(module: Module, tile: Tile, rank: int) -> None:
    """Define pack_weights(record, start, count, k, depth, dst): operand A of forward, grad_input.

    A row's (channel, tap) elements are copied in vectors where taps follow each other in memory
    ("dense"), over channels where those do, too ("flat").
    """
    f = module.function("pack_weights", _PACK_ARGS, internal=True)
    a = f.args
    c = weight_context().read(f, a["record"])
    dense = f.cmp("ne", c["dense"], 0)
    period = f.select(f.cmp("ne", c["flat"], 0), 1 << 62, c["tap_count"])
    with f.loop(0, a["count"]) as i:
        row = f.gep(c["base"], f.mul(f.add(a["start"], i), c["row"]), tile.memory)
        target = f.gep(a["dst"], f.mul(i, tile.pitch), tile.compute)
        with column_runs(f, [period], a["k"], a["depth"]) as run:
            src = f.gep(row, f.mul(run.image, c["channel"]), tile.memory)
            dst = f.gep(target, run.offset, tile.compute)
            with f.when_else(dense) as otherwise:
                copy_line(f, tile, f.gep(src, run.at[0], tile.memory), dst, run.length)
                otherwise()
                with f.loop(0, run.length) as t:
                    entry = f.mul(f.add(run.at[0], t), tap_size(rank))
                    offset = f.load("i64", c["taps"], f.add(entry, 1))
                    f.store(load_scalar(f, tile, f.gep(src, offset, tile.memory)), dst, t)


def copy_line(f: Function, tile: Tile, src: Value, dst: Value, count: Value) -> None:
    """dst[i] = src[i]; up to a vector may be written behind the end."""
    if tile.masked:
        with f.loop(0, count, tile.lanes) as i:
            mask = f.lane_mask(tile.lanes, f.sub(count, i))
            f.store(load_lanes(f, tile, f.gep(src, i, tile.memory), mask), dst, i)
    else:
        with f.loop(0, count) as i:
            f.store(load_scalar(f, tile, f.gep(src, i, tile.memory)), dst, i)


# ---------------------------------------------------------------------- result
def store_columns(module: Module, tile: Tile, rank: int) -> None:
    """Define store_columns(record, tile, i, rows, j, columns, add): a tile to an image, by runs."""
    f = module.function("store_columns", [
        ("ptr noalias", "record"), ("ptr noalias", "tile"), ("i64", "i"), ("i64", "rows"),
        ("i64", "j"), ("i64", "columns"), ("i1", "add")], internal=True)
    a = f.args
    c = result_context(rank).read(f, a["record"])
    pixel = c[f"step{rank - 1}"]
    contiguous = f.cmp("eq", pixel, 1)
    with column_runs(f, [c[f"grid{d}"] for d in range(rank)], a["j"], a["columns"]) as run:
        offset = f.add(f.mul(run.image, c["image"]), f.mul(a["i"], c["channel"]))
        for d in range(rank):
            offset = f.add(offset, f.mul(run.at[d], c[f"step{d}"]))
        src = f.gep(a["tile"], run.offset, tile.memory)
        dst = f.gep(c["base"], offset, tile.memory)
        with f.when_else(contiguous) as otherwise:
            f.call("void", "edge_store", [src, dst, c["channel"], a["rows"], run.length, a["add"]])
            otherwise()
            with f.loop(0, a["rows"]) as i, f.loop(0, run.length) as j:
                value = f.load(tile.memory, src, f.add(f.mul(i, tile.width), j))
                place = f.gep(dst, f.add(f.mul(i, c["channel"]), f.mul(j, pixel)), tile.memory)
                old = f.load(tile.memory, place)
                total = add(f, tile, value, old)
                f.store(f.select(a["add"], total, value), place)


def pack_output_panel(module: Module, tile: Tile, rank: int) -> None:
    """Define pack_output_panel(record, start, count, k, depth, dst): operand B of grad_weight.

    Columns are output channels, k counts the pixels of all images.
    """
    f = module.function("pack_output_panel", _PACK_ARGS, internal=True)
    a = f.args
    c = result_context(rank).read(f, a["record"])
    pixel = c[f"step{rank - 1}"]
    base = f.gep(c["base"], f.mul(a["start"], c["channel"]), tile.memory)
    with column_runs(f, [c[f"grid{d}"] for d in range(rank)], a["k"], a["depth"]) as run:
        offset = f.mul(run.image, c["image"])
        for d in range(rank):
            offset = f.add(offset, f.mul(run.at[d], c[f"step{d}"]))
        args = [f.gep(base, offset, tile.memory),
                f.gep(a["dst"], f.mul(run.offset, tile.width), tile.compute), run.length,
                a["count"], c["channel"], pixel]
        with f.when_else(f.cmp("eq", pixel, 1)) as otherwise:
            f.call("void", "pack_lines", args)
            otherwise()
            f.call("void", "pack_points", args)


def store_weight_gradient(module: Module, tile: Tile, rank: int) -> None:
    """Define store_weight_gradient(sums, weight, first, last, channels, filters, taps,
    filter_step, channel_step): rows first..last of (tap, channel), to the weights' layout.

    A few filters at a time, channel by channel, so that each line of memory is written once.
    """
    f = module.function("store_weight_gradient", [
        ("ptr noalias", "sums"), ("ptr noalias", "weight"), ("i64", "first"), ("i64", "last"),
        ("i64", "channels"), ("i64", "filters"), ("ptr noalias", "taps"), ("i64", "filter_step"),
        ("i64", "channel_step")], internal=True)
    a = f.args
    channels, filters = a["channels"], a["filters"]
    first_tap, end_tap = f.udiv(a["first"], channels), f.ceil_div(a["last"], channels)
    with f.loop(0, filters, 16) as block, f.loop(0, channels) as channel:
        end = f.smin(f.add(block, 16), filters)
        with f.loop(first_tap, end_tap) as tap:
            row = f.add(f.mul(tap, channels), channel)
            mine = f.and_(f.cmp("sge", row, a["first"]), f.cmp("slt", row, a["last"]))
            line = f.gep(a["sums"], f.mul(f.sub(row, a["first"]), filters), tile.memory)
            offset = f.load("i64", a["taps"], f.add(f.mul(tap, tap_size(rank)), 1))
            offset = f.add(offset, f.mul(channel, a["channel_step"]))
            place = f.gep(a["weight"], offset, tile.memory)
            with f.loop(block, f.select(mine, end, block)) as j:
                value = f.load(tile.memory, line, j)
                f.store(value, place, f.mul(j, a["filter_step"]))
