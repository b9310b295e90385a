"""Convolution of rank 1, 2 or 3 as a matrix product whose patch matrix is never built.

    forward       out[o, (n, p)]  = W[o, (c, t)]     x  patch[(c, t), (n, p)]
    grad_input    gin[c, (n, q)]  = W'[c, (o, t)]    x  patch of gout[(o, t), (n, q)]
    grad_weight   gW'[(t, c), o]  = patch[(t, c), (n, p)]  x  gout'[(n, p), o]

t counts the taps of the kernel, p the output pixels, q the input pixels. The macro-kernel of
`gemm.py` asks for blocks of the patch matrix; the packers below read them out of the image, run by
run along the last spatial dimension. A strided grad_input falls apart into one stride-1 problem
for each residue of the input pixel ("phase"), each with the taps that reach it, so that no
multiplication by an inserted zero is ever done.

Everything but rank and element type is known at run time: sizes, strides of all tensors, stride,
padding, dilation, groups.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence

from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.gemm import (
    MacroKernel, StridedResult, chunk_range, edge_store, load_slots, share, thread_workspace,
    workspace_items)
from flambeau.compiler.packing import Tile, load_lanes, load_scalar, pack_panel, tile_for, widen
from flambeau.compiler.target import Target

__all__ = ["ConvSpec", "ConvPlan", "CONV_SLOTS", "conv_kernel", "conv_plan"]

KINDS = ("forward", "grad_input", "grad_weight")


@dataclasses.dataclass(frozen=True)
class ConvSpec:
    """What is fixed when a convolution kernel is compiled.

    Attributes:
        dtype_llvm: element type, as for `GemmSpec`.
        rank: number of spatial dimensions, 1 to 3.
        kind: "forward", "grad_input" (also the forward of a transposed convolution) or
            "grad_weight".
        unit: the last spatial dimension of the image that is read in patches (input; output for
            grad_input) has stride 1 in memory, and the convolution's stride along it is 1 (any
            for grad_input). Makes packing copy whole vectors instead of gathering.
        bias: the result gets bias[channel] added (not with grad_weight).
    """

    dtype_llvm: str
    rank: int
    kind: str
    unit: bool = False
    bias: bool = False


@dataclasses.dataclass(frozen=True)
class ConvPlan:
    """How a convolution is cut; fields as in `GemmPlan`."""

    tiles_m: int
    tiles_n: int
    nchunks: int
    work_bytes: int
    work_stride: int


_POINTERS = ("input", "weight", "output", "bias", "work")


def CONV_SLOTS(rank: int) -> tuple[str, ...]:
    """Names of a convolution kernel's slots, the same for all kinds.

    `input`, `weight`, `output` are the tensors of the forward convolution or their gradients.
    Strides (`input_n`, `input_c`, `input_x0`, ...) are in elements. `c_in` and `c_out` count all
    groups; `weight_i` is the stride along the c_in / groups channels of one filter.
    """
    axes = range(rank)
    return (*_POINTERS, "work_stride", "n", "c_in", "c_out", "groups", "bias_stride",
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


def _image_context(rank: int) -> Context:
    """Where patches come from. Column (n, q) and tap t read pixel q * move + delta[t]."""
    axes = range(rank)
    return Context(("base", "image", "channel", "taps", "tap_count", *(f"grid{d}" for d in axes),
                    *(f"step{d}" for d in axes), *(f"move{d}" for d in axes),
                    *(f"size{d}" for d in axes), "pixel"), ("base", "taps"))


def _weight_context() -> Context:
    return Context(("base", "row", "channel", "taps", "tap_count", "dense", "flat"),
                   ("base", "taps"))


def _result_context(rank: int) -> Context:
    axes = range(rank)
    return Context(("base", "image", "channel", *(f"grid{d}" for d in axes),
                    *(f"step{d}" for d in axes)), ("base",))


def _tap_size(rank: int) -> int:
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
        self.context = c = _image_context(rank).read(f, record)
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
        entry = f.gep(c["taps"], f.mul(tap, _tap_size(self.rank)), "i64")
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
    first_channel, last_channel = f.udiv(a["k"], some), f.udiv(end, some)
    with column_runs(f, patch.grid, a["start"], count, tile.lanes) as run:
        patch.begin(run)
        dst = f.gep(a["dst"], run.offset, tile.compute)
        for part in range(3):  # the rest of a channel, whole channels, the start of a channel
            c0, c1, t0, t1 = _rectangle(f, part, a["k"], end, some, first_channel, last_channel)
            with f.loop(t0, t1) as tap:
                row = f.sub(f.add(f.mul(c0, some), tap), a["k"])
                patch.copy(tap, c0, f.sub(c1, c0),
                           f.gep(dst, f.mul(row, tile.width), tile.compute),
                           f.mul(some, tile.width))


def _rectangle(f: Function, part: int, start: Value, end: Value, taps: Value, first: Value,
               last: Value) -> tuple:
    """Channels c0..c1 and taps t0..t1 of one part of the range start..end of (channel, tap)."""
    skipped = f.sub(start, f.mul(first, taps))   # taps before the range in its first channel
    kept = f.sub(end, f.mul(last, taps))         # taps of the range in the channel after its last
    single = f.cmp("eq", first, last)
    partial = f.cmp("sgt", skipped, 0)
    if part == 0:
        stop = f.select(single, kept, taps)
        return first, f.add(first, 1), skipped, f.select(partial, stop, skipped)
    if part == 1:
        begin = f.add(first, f.cast("zext", partial, "i64"))
        return begin, last, 0, f.select(f.cmp("slt", begin, last), taps, 0)
    done = f.and_(partial, single)
    return last, f.add(last, 1), 0, f.select(done, 0, kept)


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
    c = _weight_context().read(f, a["record"])
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
                    entry = f.mul(f.add(run.at[0], t), _tap_size(rank))
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
    c = _result_context(rank).read(f, a["record"])
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
                total = f.fadd(old, value) if tile.floating else f.add(old, value)
                f.store(f.select(a["add"], total, value), place)


class ImageResult:
    """C of forward and grad_input: rows are channels, columns are the pixels of all images."""

    def __init__(self, tile: Tile, record: Value, values: dict, pixels: Value, flat: Value):
        self.tile, self.record, self.values = tile, record, values
        self.pixels, self.flat = pixels, flat

    def direct(self, f: Function, j: Value, columns: Value) -> tuple[Value, Value]:
        start = f.urem(j, self.pixels)
        fits = f.cmp("sle", f.add(start, self.tile.width), self.pixels)
        whole = f.cmp("eq", columns, self.tile.width)
        return f.and_(f.and_(fits, whole), self.flat), self.values["channel"]

    def place(self, f: Function, i: Value, j: Value) -> Value:
        image = f.udiv(j, self.pixels)
        offset = f.add(f.mul(image, self.values["image"]), f.mul(i, self.values["channel"]))
        offset = f.add(offset, f.sub(j, f.mul(image, self.pixels)))
        return f.gep(self.values["base"], offset, self.tile.memory)

    def store_edge(self, f: Function, scratch: Value, i: Value, rows: Value, j: Value,
                   columns: Value, add_old: Value) -> None:
        f.call("void", "store_columns", [self.record, scratch, i, rows, j, columns, add_old])


class PackedBy:
    """An operand that a packing function with a record makes."""

    def __init__(self, function: str, record: Value, *extra: Value):
        self.function, self.record, self.extra = function, record, extra

    def pack(self, f: Function, start: Value, count: Value, k: Value, depth: Value,
             dst: Value) -> None:
        f.call("void", self.function, [self.record, start, count, k, depth, dst, *self.extra])


# ---------------------------------------------------------------------- kernels
def conv_kernel(spec: ConvSpec, target: Target) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `CONV_SLOTS(spec.rank)`."""
    if spec.kind not in KINDS:
        raise ValueError(f"convolution kind {spec.kind!r} is none of {KINDS}")
    if not 1 <= spec.rank <= 3:
        raise ValueError(f"a convolution has 1, 2 or 3 spatial dimensions, not {spec.rank}")
    flags = ("_unit" if spec.unit else "") + ("_bias" if spec.bias else "")
    name = f"conv{spec.rank}d_{spec.kind}_{spec.dtype_llvm}{flags}"
    tile = tile_for(spec.dtype_llvm, target)
    module = Module(target.attributes)
    edge_store(module, tile)
    emit = _emit_grad_weight if spec.kind == "grad_weight" else _emit_correlation
    emit(module, name, spec, tile)
    return name, module.text()


def _open(module: Module, name: str, rank: int) -> tuple[Function, dict[str, Value], Value]:
    f = module.function(name, [("ptr", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                               ("i32", "thread")])
    slot = load_slots(f, CONV_SLOTS(rank), _POINTERS)
    return f, slot, thread_workspace(f, slot["work"], slot["work_stride"])


def _emit_correlation(module: Module, name: str, spec: ConvSpec, tile: Tile) -> None:
    """forward and grad_input: a correlation of one image with the weights, for each phase."""
    rank = spec.rank
    pack_weights(module, tile, rank)
    pack_patch_panel(module, tile, rank, spec.unit)
    store_columns(module, tile, rank)
    macro = MacroKernel(module, tile, "rows", "rows" if spec.bias else None)
    f, slot, work = _open(module, name, rank)
    weights, image, result = _weight_context(), _image_context(rank), _result_context(rank)
    records = [context.create(f) for context in (weights, image, result)]
    taps = f.gep(work, macro.items(tile) * tile.itemsize, "i8")
    packed = f.gep(taps, f.mul(_product(f, slot, "kernel", rank), 8 * _tap_size(rank)), "i8")
    grid = f.mul(slot["tiles_m"], slot["tiles_n"])
    first, last = chunk_range(f, f.mul(slot["groups"], grid))
    problem = _Correlation(f, spec, slot, taps)
    with f.loop(first, last) as task, f.loop(0, problem.phases) as phase:
        group, cell = f.udiv(task, grid), f.urem(task, grid)
        problem.enter(group, phase)
        weights.fill(f, records[0], problem.weights)
        image.fill(f, records[1], problem.image)
        result.fill(f, records[2], problem.result)
        rows = share(f, problem.rows, tile.height, f.udiv(cell, slot["tiles_n"]), slot["tiles_m"])
        columns = share(f, f.mul(slot["n"], problem.pixels), tile.width,
                        f.urem(cell, slot["tiles_n"]), slot["tiles_n"])
        c = ImageResult(tile, records[2], problem.result, f.smax(problem.pixels, 1), problem.flat)
        offset = f.mul(f.mul(group, problem.rows), slot["bias_stride"])
        bias = (f.gep(slot["bias"], offset, tile.memory), slot["bias_stride"])
        macro.emit(f, PackedBy("pack_weights", records[0]), PackedBy("pack_patch_panel", records[1]),
                   c, rows, columns, problem.depth, work, packed, bias=bias)


class _Correlation:
    """The run-time values of one forward or grad_input problem: `enter` emits them."""

    def __init__(self, f: Function, spec: ConvSpec, slot: dict[str, Value], taps: Value):
        self.f, self.spec, self.slot, self.taps = f, spec, slot, taps
        self.forward = spec.kind == "forward"
        self.source, self.target = ("input", "output") if self.forward else ("output", "input")
        c_in, c_out = (f.udiv(slot[c], slot["groups"]) for c in ("c_in", "c_out"))
        self.channels, self.rows = (c_in, c_out) if self.forward else (c_out, c_in)
        self.phases = f.const(1, "i64") if self.forward else _product(f, slot, "stride", spec.rank)

    def enter(self, group: Value, phase: Value) -> None:
        f, slot, axes = self.f, self.slot, range(self.spec.rank)
        sizes = [slot[f"{'in' if self.forward else 'out'}{d}"] for d in axes]
        ends = [slot[f"{'out' if self.forward else 'in'}{d}"] for d in axes]
        one = f.const(1, "i64")
        if self.forward:
            shifts = [f.const(0, "i64") for _ in axes]
            moves, spreads = [slot[f"stride{d}"] for d in axes], [one for _ in axes]
        else:
            shifts = []
            for d in reversed(axes):
                shifts.insert(0, f.urem(phase, slot[f"stride{d}"]))
                phase = f.udiv(phase, slot[f"stride{d}"])
            moves, spreads = [one for _ in axes], [slot[f"stride{d}"] for d in axes]
        grid = [f.ceil_div(f.smax(f.sub(end, shift), 0), spread)
                for end, shift, spread in zip(ends, shifts, spreads, strict=True)]
        self.tap_count, first_tap, dense = _tap_table(f, self.spec, slot, self.taps, shifts)
        self.depth = f.mul(self.channels, self.tap_count)
        self._weights(group, first_tap, dense)
        source = [slot[f"{self.source}_x{d}"] for d in axes]
        target = [f.mul(slot[f"{self.target}_x{d}"], spreads[d]) for d in axes]
        self.pixels = grid[0]
        for size in grid[1:]:
            self.pixels = f.mul(self.pixels, size)
        self.flat = _is_flat(f, grid, target)
        copied = self._is_pointwise(grid, sizes, source, moves)
        self.image = {"base": self._base(self.source, group, self.channels),
                      "image": slot[f"{self.source}_n"], "channel": slot[f"{self.source}_c"],
                      "taps": self.taps, "tap_count": self.tap_count,
                      "pixel": f.mul(source[-1], moves[-1])}
        self.result = {"base": self._base(self.target, group, self.rows, shifts),
                       "image": slot[f"{self.target}_n"], "channel": slot[f"{self.target}_c"]}
        for d in axes:
            merged = self.pixels if d == self.spec.rank - 1 else one
            self.image[f"grid{d}"] = f.select(copied, merged, grid[d])
            self.image[f"size{d}"] = f.select(copied, merged, sizes[d])
            self.image[f"step{d}"] = f.mul(source[d], moves[d])
            self.image[f"move{d}"] = moves[d]
            self.result[f"grid{d}"] = f.select(self.flat, merged, grid[d])
            self.result[f"step{d}"] = target[d]

    def _base(self, tensor: str, group: Value, channels: Value, shifts: Sequence = ()) -> Value:
        f, slot = self.f, self.slot
        offset = f.mul(f.mul(group, channels), slot[f"{tensor}_c"])
        for d, shift in enumerate(shifts):
            offset = f.add(offset, f.mul(shift, slot[f"{tensor}_x{d}"]))
        return f.gep(slot[tensor], offset, self.spec.dtype_llvm)

    def _weights(self, group: Value, first_tap: Value, dense: Value) -> None:
        f, slot = self.f, self.slot
        row, channel = slot["weight_o"], slot["weight_i"]
        start = f.mul(f.mul(group, f.udiv(slot["c_out"], slot["groups"])), slot["weight_o"])
        if not self.forward:
            row, channel = channel, row
        flat = f.and_(dense, f.cmp("eq", channel, self.tap_count))
        start = f.add(start, f.select(dense, first_tap, 0))
        self.weights = {"base": f.gep(slot["weight"], start, self.spec.dtype_llvm), "row": row,
                        "channel": channel, "taps": self.taps, "tap_count": self.tap_count,
                        "dense": f.cast("zext", dense, "i64"), "flat": f.cast("zext", flat, "i64")}

    def _is_pointwise(self, grid: list, sizes: list, source: list, moves: list) -> Value:
        """One tap that reads each pixel where it writes: pixels need no coordinates."""
        f = self.f
        same = f.and_(f.cmp("eq", self.tap_count, 1), _is_flat(f, sizes, source))
        for d, (size, steps, move) in enumerate(zip(sizes, grid, moves, strict=True)):
            delta = f.load("i64", self.taps, 2 + d)
            same = f.and_(same, f.and_(f.cmp("eq", size, steps), f.cmp("eq", move, 1)))
            same = f.and_(same, f.cmp("eq", delta, 0))
        return same


def _product(f: Function, slot: dict[str, Value], name: str, rank: int) -> Value:
    total = slot[f"{name}0"]
    for d in range(1, rank):
        total = f.mul(total, slot[f"{name}{d}"])
    return total


def _is_flat(f: Function, sizes: Sequence[Value], strides: Sequence[Value]) -> Value:
    """Whether pixels follow each other in memory."""
    flat, expected = f.const(True, "i1"), f.const(1, "i64")
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        fits = f.or_(f.cmp("eq", stride, expected), f.cmp("eq", size, 1))
        flat, expected = f.and_(flat, fits), f.mul(expected, size)
    return flat


def _tap_table(f: Function, spec: ConvSpec, slot: dict[str, Value], taps: Value,
               shifts: Sequence[Value]) -> tuple[Value, Value, Value]:
    """Write the taps that reach this phase; returns their count, the first one's offset in the
    weights, and whether each follows its predecessor in the weights' memory."""
    count, first, dense = f.var("i64", 0), f.var("i64", 0), f.var("i1", True)
    f.store(f.const(0, "i64"), taps)
    source = "output" if spec.kind == "grad_input" else "input"
    total = _product(f, slot, "kernel", spec.rank)
    with f.loop(0, total) as tap:
        rest, weight, offset = tap, f.const(0, "i64"), f.const(0, "i64")
        reaches, deltas = f.const(True, "i1"), []
        for d in reversed(range(spec.rank)):
            k = f.urem(rest, slot[f"kernel{d}"])
            rest = f.udiv(rest, slot[f"kernel{d}"])
            delta = f.sub(f.mul(k, slot[f"dil{d}"]), slot[f"pad{d}"])
            if spec.kind == "grad_input":
                distance = f.sub(shifts[d], delta)
                delta = f.sdiv(distance, slot[f"stride{d}"])
                hit = f.cmp("eq", f.mul(delta, slot[f"stride{d}"]), distance)
                reaches = f.and_(reaches, hit)
            deltas.insert(0, delta)
            weight = f.add(weight, f.mul(k, slot[f"weight_x{d}"]))
            offset = f.add(offset, f.mul(delta, slot[f"{source}_x{d}"]))
        with f.when(reaches):
            entry = f.gep(taps, f.mul(count.get(), _tap_size(spec.rank)), "i64")
            for index, value in enumerate((offset, weight, *deltas)):
                f.store(value, entry, index)
            first.set(f.select(f.cmp("eq", count.get(), 0), weight, first.get()))
            follows = f.cmp("eq", weight, f.add(first.get(), count.get()))
            dense.set(f.and_(dense.get(), follows))
            count.set(f.add(count.get(), 1))
    return count.get(), first.get(), dense.get()


def _emit_grad_weight(module: Module, name: str, spec: ConvSpec, tile: Tile) -> None:
    """The gradient is summed up as [(tap, channel), out channel] in the workspace, then stored."""
    rank, axes = spec.rank, range(spec.rank)
    pack_patch_rows(module, tile, rank, spec.unit)
    pack_panel(module, "pack_lines", tile, "along", tile.width)
    pack_panel(module, "pack_points", tile, "any", tile.width)
    pack_output_panel(module, tile, rank)
    macro = MacroKernel(module, tile, "rows", None)
    f, slot, work = _open(module, name, rank)
    image, output = _image_context(rank), _result_context(rank)
    records = [context.create(f) for context in (image, output)]
    taps = f.gep(work, macro.items(tile) * tile.itemsize, "i8")
    total_taps = _product(f, slot, "kernel", rank)
    packed = f.gep(taps, f.mul(total_taps, 8 * _tap_size(rank)), "i8")
    channels, filters = (f.udiv(slot[c], slot["groups"]) for c in ("c_in", "c_out"))
    _tap_table(f, spec, slot, taps, [f.const(0, "i64")] * rank)
    pixels = _product(f, slot, "out", rank)
    depth = f.mul(slot["n"], pixels)
    sums = f.gep(packed, _panel_items(f, tile, depth, filters), tile.compute)
    grid = f.mul(slot["tiles_m"], slot["tiles_n"])
    first, last = chunk_range(f, f.mul(slot["groups"], grid))
    with f.loop(first, last) as task:
        group, cell = f.udiv(task, grid), f.urem(task, grid)
        rows = share(f, f.mul(channels, total_taps), tile.height,
                     f.udiv(cell, slot["tiles_n"]), slot["tiles_m"])
        columns = share(f, filters, tile.width, f.urem(cell, slot["tiles_n"]), slot["tiles_n"])
        image.fill(f, records[0], _forward_image(f, spec, slot, group, channels, taps, total_taps))
        steps = [slot[f"output_x{d}"] for d in axes]
        sizes = [slot[f"out{d}"] for d in axes]
        flat = _is_flat(f, sizes, steps)
        merged = [f.const(1, "i64")] * (rank - 1) + [pixels]
        offset = f.mul(f.mul(group, filters), slot["output_c"])
        output.fill(f, records[1], {
            "base": f.gep(slot["output"], offset, tile.memory), "image": slot["output_n"],
            "channel": slot["output_c"],
            **{f"grid{d}": f.select(flat, merged[d], sizes[d]) for d in axes},
            **{f"step{d}": steps[d] for d in axes}})
        width = f.sub(columns[1], columns[0])
        origin = f.sub(0, f.add(f.mul(rows[0], width), columns[0]))
        c = StridedResult(tile, f.gep(sums, origin, tile.memory), width)
        macro.emit(f, PackedBy("pack_patch_rows", records[0], channels),
                   PackedBy("pack_output_panel", records[1]), c, rows, columns, depth, work, packed)
        _store_weight_gradient(f, spec, slot, tile, sums, rows, columns,
                               (f.mul(group, filters), channels, taps))


def _forward_image(f: Function, spec: ConvSpec, slot: dict, group: Value, channels: Value,
                   taps: Value, tap_count: Value) -> dict:
    """The image record of a forward convolution."""
    axes = range(spec.rank)
    offset = f.mul(f.mul(group, channels), slot["input_c"])
    values = {"base": f.gep(slot["input"], offset, spec.dtype_llvm), "image": slot["input_n"],
              "channel": slot["input_c"], "taps": taps, "tap_count": tap_count}
    for d in axes:
        values[f"grid{d}"], values[f"size{d}"] = slot[f"out{d}"], slot[f"in{d}"]
        values[f"move{d}"] = slot[f"stride{d}"]
        values[f"step{d}"] = f.mul(slot[f"input_x{d}"], slot[f"stride{d}"])
    values["pixel"] = values[f"step{spec.rank - 1}"]
    return values


def pack_output_panel(module: Module, tile: Tile, rank: int) -> None:
    """Define pack_output_panel(record, start, count, k, depth, dst): operand B of grad_weight.

    Columns are output channels, k counts the pixels of all images.
    """
    f = module.function("pack_output_panel", _PACK_ARGS, internal=True)
    a = f.args
    c = _result_context(rank).read(f, a["record"])
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


def _store_weight_gradient(f: Function, spec: ConvSpec, slot: dict, tile: Tile, sums: Value,
                           rows: tuple, columns: tuple, where: tuple) -> None:
    first_filter, channels, taps = where
    width = f.sub(columns[1], columns[0])
    with f.loop(rows[0], rows[1]) as row:
        tap, channel = f.udiv(row, channels), f.urem(row, channels)
        offset = f.load("i64", taps, f.add(f.mul(tap, _tap_size(spec.rank)), 1))
        offset = f.add(offset, f.mul(channel, slot["weight_i"]))
        line = f.gep(sums, f.mul(f.sub(row, rows[0]), width), tile.memory)
        with f.loop(columns[0], columns[1]) as j:
            value = f.load(tile.memory, line, f.sub(j, columns[0]))
            place = f.add(offset, f.mul(f.add(first_filter, j), slot["weight_o"]))
            f.store(value, slot["weight"], place)


def _panel_items(f: Function, tile: Tile, depth: Value, columns: Value) -> Value:
    """Packed elements of B: what `gemm.workspace_items` adds for the panels."""
    depth = f.smin(f.mul(f.ceil_div(f.smax(depth, 1), tile.lanes), tile.lanes), tile.depth)
    columns = f.smin(f.mul(f.ceil_div(f.smax(columns, 1), tile.width), tile.width), tile.columns)
    return f.add(f.mul(depth, columns), tile.lanes * tile.width)


# ---------------------------------------------------------------------- planning
_SMALLEST_CHUNK = 5e5


def conv_plan(spec: ConvSpec, target: Target, n: int, c_in: int, c_out: int, groups: int,
              in_spatial: Sequence[int], kernel: Sequence[int], out_spatial: Sequence[int],
              threads: int) -> ConvPlan:
    """Cut a convolution for `threads` threads; sizes as in the slots."""
    tile = tile_for(spec.dtype_llvm, target)
    taps = math.prod(kernel)
    c_in, c_out = c_in // groups, c_out // groups
    pixels = n * math.prod(out_spatial)
    m, columns, depth = {"forward": (c_out, pixels, c_in * taps),
                         "grad_input": (c_in, n * math.prod(in_spatial), c_out * taps),
                         "grad_weight": (c_in * taps, c_out, pixels)}[spec.kind]
    work = 2.0 * groups * c_in * c_out * taps * pixels
    want = int(min(threads * 4 if threads > 1 else 1, max(1, work // _SMALLEST_CHUNK)))
    tiles_m = tiles_n = 1
    if groups < want:
        cells = -(-want // groups)
        panels, strips = -(-columns // tile.width), -(-m // tile.height)
        if spec.kind == "grad_weight":
            tiles_m = max(1, min(cells, strips))
            tiles_n = max(1, min(cells // tiles_m, panels))
        else:
            tiles_n = max(1, min(cells, panels))
            tiles_m = max(1, min(cells // tiles_n, strips))
    nchunks = max(1, min(want, groups * tiles_m * tiles_n))
    items = workspace_items(tile, columns, depth)
    size = items * tile.itemsize + taps * 8 * _tap_size(spec.rank)
    if spec.kind == "grad_weight":
        rows = -(-(-(-m // tile.height)) // tiles_m) * tile.height
        size += rows * c_out * tile.itemsize
    stride = -(-size // 64) * 64 + 64
    return ConvPlan(tiles_m, tiles_n, nchunks, stride * threads, stride)
