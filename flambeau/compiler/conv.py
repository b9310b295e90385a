"""Convolution of rank 1, 2 or 3 as a matrix product whose patch matrix is never built.

    forward       out[o, (n, p)]  = W[o, (c, t)]     x  patch[(c, t), (n, p)]
    grad_input    gin[c, (n, q)]  = W'[c, (o, t)]    x  patch of gout[(o, t), (n, q)]
    grad_weight   gW'[(t, c), o]  = patch[(t, c), (n, p)]  x  gout'[(n, p), o]

t counts the taps of the kernel, p the output pixels, q the input pixels. The macro-kernel of
`gemm.py` asks for blocks of the patch matrix; `conv_packing.py` reads them out of the image. A
strided grad_input falls apart into one stride-1 problem for each residue of the input pixel
("phase"), each with the taps that reach it, so that no multiplication by an inserted zero is ever
done.

Everything but rank and element type is known at run time: sizes, strides of all tensors, stride,
padding, dilation, groups.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from flambeau.compiler.conv_depthwise import depthwise_bytes, emit_depthwise
from flambeau.compiler.conv_macro import MacroKernel, StridedResult, edge_store, workspace_items
from flambeau.compiler.conv_packing import (
    CONV_POINTERS,
    CONV_SLOTS,
    image_context,
    pack_output_panel,
    pack_patch_panel,
    pack_patch_rows,
    pack_weights,
    result_context,
    store_columns,
    store_weight_gradient,
    tap_size,
    weight_context,
)
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.packing import Tile, pack_panel, tile_for
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
    depthwise: bool = False


@dataclasses.dataclass(frozen=True)
class ConvPlan:
    """How a convolution is cut; fields as in `GemmPlan`."""

    tiles_m: int
    tiles_n: int
    nchunks: int
    work_bytes: int
    work_stride: int


# ---------------------------------------------------------------------- operand and result
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
    """An operand that a packing function with a record makes, panel by panel."""

    whole_blocks = False

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
    flags = (("_unit", spec.unit), ("_bias", spec.bias), ("_depthwise", spec.depthwise))
    flags = "".join(word for word, on in flags if on)
    name = f"conv{spec.rank}d_{spec.kind}_{spec.dtype_llvm}{flags}"
    tile = tile_for(spec.dtype_llvm, target)
    module = Module(target.attributes)
    if spec.depthwise:
        f, _, work = _open(module, name, spec.rank)
        emit_depthwise(module, f, tile, spec.kind, spec.rank, spec.unit, spec.bias, work)
        return name, module.text()
    edge_store(module, tile)
    emit = _emit_grad_weight if spec.kind == "grad_weight" else _emit_correlation
    emit(module, name, spec, tile)
    return name, module.text()


def _open(module: Module, name: str, rank: int) -> tuple[Function, Slots, Value]:
    f = kernel_function(module, name)
    slot = Slots(f, CONV_SLOTS(rank), CONV_POINTERS)
    return f, slot, thread_workspace(f, slot["work"], slot["work_stride"])


def _emit_correlation(module: Module, name: str, spec: ConvSpec, tile: Tile) -> None:
    """forward and grad_input: a correlation of one image with the weights, for each phase."""
    rank = spec.rank
    pack_weights(module, tile, rank)
    pack_patch_panel(module, tile, rank, spec.unit)
    store_columns(module, tile, rank)
    macro = MacroKernel(module, tile, "rows", "rows" if spec.bias else None)
    f, slot, work = _open(module, name, rank)
    weights, image, result = weight_context(), image_context(rank), result_context(rank)
    records = [context.create(f) for context in (weights, image, result)]
    taps = f.gep(work, macro.items(tile) * tile.itemsize, "i8")
    packed = f.gep(taps, f.mul(_product(f, slot, "kernel", rank), 8 * tap_size(rank)), "i8")
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
        weights_operand = PackedBy("pack_weights", records[0])
        macro.emit(f, weights_operand, PackedBy("pack_patch_panel", records[1]), c, rows, columns,
                   problem.depth, work, packed, bias=bias)


class _Correlation:
    """The run-time values of one forward or grad_input problem: `enter` emits them."""

    def __init__(self, f: Function, spec: ConvSpec, slot: Slots, taps: Value):
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
                      "pixel": f.select(copied, 1, f.mul(source[-1], moves[-1]))}
        self.result = {"base": self._base(self.target, group, self.rows, shifts),
                       "image": slot[f"{self.target}_n"], "channel": slot[f"{self.target}_c"]}
        for d in axes:
            merged = self.pixels if d == self.spec.rank - 1 else one
            self.image[f"grid{d}"] = f.select(copied, merged, grid[d])
            self.image[f"size{d}"] = f.select(copied, merged, sizes[d])
            self.image[f"step{d}"] = f.select(copied, 1, f.mul(source[d], moves[d]))
            self.image[f"move{d}"] = moves[d]
            self.result[f"grid{d}"] = f.select(self.flat, merged, grid[d])
            self.result[f"step{d}"] = f.select(self.flat, 1, target[d])

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


def _product(f: Function, slot: Slots, name: str, rank: int) -> Value:
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


def _tap_table(f: Function, spec: ConvSpec, slot: Slots, taps: Value,
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
            entry = f.gep(taps, f.mul(count.get(), tap_size(spec.rank)), "i64")
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
    store_weight_gradient(module, tile, rank)
    macro = MacroKernel(module, tile, "rows", None)
    f, slot, work = _open(module, name, rank)
    image, output = image_context(rank), result_context(rank)
    records = [context.create(f) for context in (image, output)]
    taps = f.gep(work, macro.items(tile) * tile.itemsize, "i8")
    total_taps = _product(f, slot, "kernel", rank)
    packed = f.gep(taps, f.mul(total_taps, 8 * tap_size(rank)), "i8")
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
            **{f"step{d}": f.select(flat, 1, steps[d]) for d in axes}})
        width = f.sub(columns[1], columns[0])
        origin = f.sub(0, f.add(f.mul(rows[0], width), columns[0]))
        c = StridedResult(tile, f.gep(sums, origin, tile.memory), width)
        macro.emit(f, PackedBy("pack_patch_rows", records[0], channels),
                   PackedBy("pack_output_panel", records[1]), c, rows, columns, depth, work, packed)
        target = f.gep(slot["weight"], f.mul(f.add(f.mul(group, filters), columns[0]),
                                             slot["weight_o"]), tile.memory)
        f.call("void", "store_weight_gradient", [
            sums, target, *rows, channels, width, taps, slot["weight_o"], slot["weight_i"]])


def _forward_image(f: Function, spec: ConvSpec, slot: Slots, group: Value, channels: Value,
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


def _panel_items(f: Function, tile: Tile, depth: Value, columns: Value) -> Value:
    """Packed elements of B: what `gemm.workspace_items` adds for the panels."""
    depth = f.smin(f.mul(f.ceil_div(f.smax(depth, 1), tile.lanes), tile.lanes), tile.depth)
    columns = f.smin(f.mul(f.ceil_div(f.smax(columns, 1), tile.width), tile.width), tile.columns)
    return f.add(f.mul(depth, columns), tile.lanes * tile.width)


# ---------------------------------------------------------------------- planning
_SMALLEST_CHUNK = 5e5


def conv_plan(spec: ConvSpec, target: Target, n: int, c_in: int, c_out: int, groups: int,
              in_spatial: Sequence[int], kernel: Sequence[int], out_spatial: Sequence[int],
              threads: int, stride: Sequence[int] = (1, 1, 1),
              dilation: Sequence[int] = (1, 1, 1)) -> ConvPlan:
    """Cut a convolution for `threads` threads; sizes as in the slots.

    Stride and dilation matter to a depthwise convolution only.
    """
    tile = tile_for(spec.dtype_llvm, target)
    if spec.depthwise:
        return _depthwise_plan(spec, tile, n, c_in, c_out, (
            in_spatial, out_spatial, kernel, stride[:spec.rank], dilation[:spec.rank]), threads)
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
    size = items * tile.itemsize + taps * 8 * tap_size(spec.rank)
    if spec.kind == "grad_weight":
        strips = -(-m // tile.height)
        rows = -(-strips // tiles_m) * tile.height
        size += rows * c_out * tile.itemsize
    stride = -(-size // 64) * 64 + 64
    return ConvPlan(tiles_m, tiles_n, nchunks, stride * threads, stride)


def _depthwise_plan(spec: ConvSpec, tile: Tile, n: int, c_in: int, c_out: int, sizes: tuple,
                    threads: int) -> ConvPlan:
    tasks = {"forward": n * c_out, "grad_input": n * c_in, "grad_weight": c_out}[spec.kind]
    work = 2.0 * n * c_out * math.prod(sizes[1]) * math.prod(sizes[2])
    want = int(min(threads * 4 if threads > 1 else 1, max(1, 4 * work // _SMALLEST_CHUNK)))
    stride = -(-depthwise_bytes(tile, spec.kind, *sizes) // 64) * 64
    return ConvPlan(1, 1, max(1, min(want, tasks)), stride * threads, stride)
