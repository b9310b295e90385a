"""Direct convolution: a register tile of pixels times a panel of channels, all of K in registers.

    result[pixel, m] = sum over k of image[pixel * step + offset[k]] * panel[k, m]

k runs over (channel, tap); the table `offset` makes it an address in the padded copy of a piece of
the image (`image.py`), so that no other loop is needed. m are the channels of the result, in
vector lanes. A forward convolution is one such correlation. A gradient
with respect to the input is one for each residue of the pixel modulo the stride ("phase"), each
with the taps that reach it, so that no inserted zero is ever multiplied.

Two kernels. The first packs the weights, once a call, and writes the table. The second takes pieces
of the image, one a task, and for each panel of weights walks over the piece's pixels.
"""

from __future__ import annotations

import dataclasses
import functools

from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.image import PIECE, Layout, pack_image, turn_block
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.products.packing import (
    Tile,
    load_lanes,
    load_scalar,
    multiply_add,
    narrow,
    tile_for,
    transpose,
)
from flambeau.compiler.target import Target

__all__ = ["DIRECT_SLOTS", "MOST_TAPS", "PHASE", "PREPARE_SLOTS", "TAP", "DirectSpec",
           "PrepareSpec", "direct_kernel", "image_layout", "prepare_kernel", "store_pixels",
           "store_planes"]

AXES = range(3)

PREPARE_SLOTS = ("weights", "panels", "offsets", "bias", "packed_bias",
                 "groups", "panel_count", "lanes", "channels", "taps", "pitch", "lane_step",
                 "channel_step", "group_step", "bias_step")
TAP = ("weight", "image", "first", "step")
"""After `PREPARE_SLOTS`, for each tap: its offset in the weights and in the image's copy; its
channel c is number first + c * step of K."""

DIRECT_SLOTS = ("source", "result", "panels", "offsets", "bias", "work", "work_stride",
                "n", "groups", "images", "blocks_n", "blocks0", "blocks2", "length0", "length2",
                "splits", "panel_count", "lanes", "channels", "depth", "phases", "pitch",
                "image_pitch",
                "source_n", "source_c", *(f"source_x{d}" for d in AXES),
                *(f"size{d}" for d in AXES),
                "result_n", "result_c", *(f"result_x{d}" for d in AXES),
                *(f"step{d}" for d in AXES), *(f"low{d}" for d in AXES),
                *(f"ext{d}" for d in AXES))
PHASE = ("offset", "grid0", "grid1", "grid2", "first", "count")
"""After `DIRECT_SLOTS`, for each phase: offset in the result, pixels, and its part of K."""

AHEAD = 16  # steps of K by which weights are fetched before they are needed
MOST_TAPS = 64
"""The largest kernel that order "taps" can pack."""

_PREPARE_POINTERS = PREPARE_SLOTS[:5]
_DIRECT_POINTERS = DIRECT_SLOTS[:6]


@dataclasses.dataclass(frozen=True)
class PrepareSpec:
    """What is fixed when the kernel that packs weights is compiled.

    Attributes:
        order: what is contiguous in the weights: "all" (channels and taps follow each other for
            each lane), "taps", "along" (channels), "across" (lanes) or "any".
        vectors: width of a panel.
        block: channels of a block of the image's copy.
        bias: there is one.
    """

    dtype_llvm: str
    order: str
    vectors: int
    block: int
    bias: bool = False


@dataclasses.dataclass(frozen=True)
class DirectSpec:
    """What is fixed when the kernel that convolves is compiled.

    Attributes:
        rows: pixels of a line in the register tile; `lines` such lines; `vectors` its width.
        step: pixels of the image's copy from one pixel of the tile to the next.
        source_last, result_last: channels are contiguous in the source, in the result.
        bias: sums start from it.
    """

    dtype_llvm: str
    rows: int
    lines: int
    vectors: int
    step: int
    source_last: bool
    result_last: bool
    bias: bool = False


def image_layout(tile: Tile, channels_last: bool) -> Layout:
    """The layout of the image's copy."""
    return Layout(tile.lanes, tile.lanes) if channels_last else Layout()


# ---------------------------------------------------------------------- weights
@functools.lru_cache(maxsize=64)
def prepare_kernel(spec: PrepareSpec, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that packs weights; slots `PREPARE_SLOTS`, then the taps."""
    tile = dataclasses.replace(tile_for(spec.dtype_llvm, target), vectors=spec.vectors)
    name = (f"conv_prepare_{spec.dtype_llvm}_{spec.order}_{spec.vectors}_{spec.block}"
            + "_bias" * spec.bias)
    module = Module(target.attributes)
    if spec.order == "taps":
        _pack_taps(module, tile)
    else:
        (_pack_along if spec.order in ("all", "along") else _pack_across)(module, tile, spec.order)
    _write_offsets(module, spec)
    f = kernel_function(module, name)
    slot = Slots(f, PREPARE_SLOTS, _PREPARE_POINTERS)
    whole = spec.order in ("all", "taps")
    pieces = f.const(1, "i64") if whole else slot["taps"]
    depth = f.mul(slot["channels"], slot["taps"])
    first, last = chunk_range(f, f.mul(f.mul(slot["groups"], slot["panel_count"]), pieces))
    with f.loop(first, last) as task:
        piece, strip = f.urem(task, pieces), f.udiv(task, pieces)
        group, panel = f.udiv(strip, slot["panel_count"]), f.urem(strip, slot["panel_count"])
        lane = f.mul(panel, tile.width)
        entry = f.gep(f.args["args"], f.add(f.mul(piece, len(TAP)), len(PREPARE_SLOTS)), "i64")
        start = f.add(f.mul(group, slot["group_step"]), f.mul(lane, slot["lane_step"]))
        row, step = f.mul(strip, depth), f.const(tile.width, "i64")
        if not whole:
            start = f.add(start, f.load("i64", entry))
            row = f.add(row, f.load("i64", entry, 2))
            step = f.mul(step, f.load("i64", entry, 3))
        place = (f.gep(slot["weights"], start, tile.memory),
                 f.gep(slot["panels"], f.mul(row, tile.width), tile.compute))
        count = f.sub(slot["lanes"], lane)
        if spec.order == "taps":
            f.call("void", "pack_taps", [f.args["args"], *place, count])
        else:
            f.call("void", "pack_weights", [
                *place, depth if whole else slot["channels"], count, slot["lane_step"],
                slot["channel_step"], step])
        with f.when(f.cmp("eq", strip, 0)):
            f.call("void", "write_offsets", [
                f.args["args"], piece, slot["taps"] if whole else f.add(piece, 1)])
        if spec.bias:
            with f.when(f.cmp("eq", piece, 0)):
                _pack_bias(f, tile, slot, group, lane, strip)
    return name, module.text()


def _pack_taps(module: Module, tile: Tile) -> None:
    """Define pack_taps(args, src, dst, count): a panel of weights whose taps follow each other."""
    turn_block(module, "turn", tile)
    f = module.function("pack_taps", [("ptr", "args"), ("ptr noalias", "src"),
                                      ("ptr noalias", "dst"), ("i64", "count")], internal=True)
    slot = Slots(f, PREPARE_SLOTS, _PREPARE_POINTERS)
    taps, stride, channel_step = slot["taps"], slot["lane_step"], slot["channel_step"]
    count = f.smin(f.args["count"], tile.width)
    table = f.gep(f.args["args"], len(PREPARE_SLOTS), "i64")
    turned = f.array(tile.compute, (MOST_TAPS + tile.lanes) * tile.lanes)
    with f.loop(0, slot["channels"]) as c, f.loop(0, count, tile.lanes) as j:
        src = f.gep(f.args["src"], f.add(f.mul(c, channel_step), f.mul(j, stride)), tile.memory)
        with f.loop(0, taps, tile.lanes) as t:
            f.call("void", "turn", [
                f.gep(src, t, tile.memory), f.gep(turned, f.mul(t, tile.lanes), tile.compute),
                stride, f.sub(count, j), f.sub(taps, t), f.const(tile.lanes, "i64")])
        dst = f.gep(f.args["dst"], j, tile.compute)
        with f.loop(0, taps) as tap:
            entry = f.gep(table, f.mul(tap, len(TAP)), "i64")
            weight, first, step = (f.load("i64", entry, number) for number in (0, 2, 3))
            value = f.load(tile.vector, turned, f.mul(weight, tile.lanes))
            f.store(value, dst, f.mul(f.add(first, f.mul(c, step)), tile.width))


_PACK_ARGS = (("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "depth"), ("i64", "count"),
              ("i64", "stride"), ("i64", "step"), ("i64", "row"))


def _pack_along(module: Module, tile: Tile, order: str) -> None:
    """Define pack_weights(src, dst, depth, count, stride, step, row): part of a panel,
    dst[k * row + i] = src[i * stride + k * step], where step is 1.

    Nothing is written behind row `depth`: another thread may have been there.
    """
    turn_block(module, "turn", tile)
    f = module.function("pack_weights", _PACK_ARGS, internal=True)
    a = f.args
    count = f.smin(a["count"], tile.width)
    whole = f.and_(a["depth"], -tile.lanes) if tile.lanes > 1 else a["depth"]
    rest, width = f.array(tile.compute, tile.lanes * tile.lanes), f.const(tile.lanes, "i64")
    with f.loop(0, count, tile.lanes) as j:
        src = f.gep(a["src"], f.mul(j, a["stride"]), tile.memory)
        dst = f.gep(a["dst"], j, tile.compute)
        with f.loop(0, whole, tile.lanes) as k:
            f.call("void", "turn", [
                f.gep(src, k, tile.memory), f.gep(dst, f.mul(k, a["row"]), tile.compute),
                a["stride"], f.sub(count, j), f.sub(a["depth"], k), a["row"]])
        if tile.masked:
            with f.when(f.cmp("slt", whole, a["depth"])):
                f.call("void", "turn", [f.gep(src, whole, tile.memory), rest, a["stride"],
                                        f.sub(count, j), f.sub(a["depth"], whole), width])
                with f.loop(whole, a["depth"]) as k:
                    line = f.gep(rest, f.mul(f.sub(k, whole), tile.lanes), tile.compute)
                    f.store(f.load(tile.vector, line), dst, f.mul(k, a["row"]))
        else:
            lanes = f.smin(f.sub(count, j), tile.lanes)
            with f.loop(whole, a["depth"]) as k, f.loop(0, lanes) as i:
                source = f.add(f.mul(i, a["stride"]), k)
                value = load_scalar(f, tile, f.gep(src, source, tile.memory))
                f.store(value, dst, f.add(f.mul(k, a["row"]), i))


def _pack_across(module: Module, tile: Tile, order: str) -> None:
    """Define pack_weights where stride is 1 ("across"), or anything."""
    f = module.function("pack_weights", _PACK_ARGS, internal=True)
    a = f.args
    count = f.smin(a["count"], tile.width)
    with f.loop(0, a["depth"]) as k:
        src = f.gep(a["src"], f.mul(k, a["step"]), tile.memory)
        dst = f.gep(a["dst"], f.mul(k, a["row"]), tile.compute)
        if order == "across" and tile.masked:
            for j in range(0, tile.width, tile.lanes):
                mask = f.lane_mask(tile.lanes, f.sub(count, j))
                f.store(load_lanes(f, tile, f.gep(src, j, tile.memory), mask), dst, j)
        else:
            with f.loop(0, count) as i:
                value = load_scalar(f, tile, f.gep(src, f.mul(i, a["stride"]), tile.memory))
                f.store(value, dst, i)


def _write_offsets(module: Module, spec: PrepareSpec) -> None:
    """Define write_offsets(args, first, last): where the image's copy is read for each k of some
    taps, in elements."""
    f = module.function("write_offsets", [("ptr", "args"), ("i64", "first"), ("i64", "last")],
                        internal=True)
    slot = Slots(f, PREPARE_SLOTS, _PREPARE_POINTERS)
    pitch, base = slot["pitch"], slot["offsets"]
    table = f.gep(f.args["args"], len(PREPARE_SLOTS), "i64")
    with f.loop(f.args["first"], f.args["last"]) as tap:
        entry = f.gep(table, f.mul(tap, len(TAP)), "i64")
        image, first, step = (f.load("i64", entry, number) for number in (1, 2, 3))
        with f.loop(0, slot["channels"]) as c:
            place = f.mul(c, pitch)
            if spec.block > 1:
                place = f.add(f.mul(f.udiv(c, spec.block), pitch), f.urem(c, spec.block))
            f.store(f.add(place, image), base, f.add(first, f.mul(c, step)))


def _pack_bias(f: Function, tile: Tile, slot: Slots, group: Value, lane: Value, strip: Value
               ) -> None:
    count = f.smin(f.sub(slot["lanes"], lane), tile.width)
    start = f.add(f.mul(group, slot["lanes"]), lane)
    target = f.gep(slot["packed_bias"], f.mul(strip, tile.width), tile.compute)
    with f.loop(0, count) as i:
        place = f.mul(f.add(start, i), slot["bias_step"])
        f.store(load_scalar(f, tile, f.gep(slot["bias"], place, tile.memory)), target, i)


# ---------------------------------------------------------------------- convolving
@functools.lru_cache(maxsize=64)
def direct_kernel(spec: DirectSpec, target: Target, finish: Finish | None = None
                  ) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that convolves; slots `DIRECT_SLOTS`, then the phases. With
    `finish` there is one phase, and the epilogue's slots follow."""
    tile = dataclasses.replace(tile_for(spec.dtype_llvm, target), vectors=spec.vectors)
    flags = "".join(word for word, on in (("_from_last", spec.source_last),
                                          ("_to_last", spec.result_last),
                                          ("_bias", spec.bias)) if on)
    name = (f"conv_direct_{spec.dtype_llvm}_{spec.lines}x{spec.rows}x{spec.vectors}"
            f"_step{spec.step}{flags}")
    if finish:
        name += f"_{finish.epilogue.name}"
    module = Module(target.attributes)
    layout = image_layout(tile, spec.source_last)
    pack_image(module, "pack_image", tile, layout, spec.source_last)
    _micro_kernel(module, tile, spec, layout)
    if spec.result_last:
        store_pixels(module, tile)
    else:
        store_planes(module, tile, spec.rows)
    if finish:
        finish.epilogue.define(module)
    _sweep(module, tile, spec, layout, finish)

    f = kernel_function(module, name)
    slot = Slots(f, DIRECT_SLOTS, _DIRECT_POINTERS)
    image = thread_workspace(f, slot["work"], slot["work_stride"])
    pieces = f.mul(f.mul(f.mul(slot["groups"], slot["blocks_n"]), slot["blocks0"]), slot["blocks2"])
    first, last = chunk_range(f, f.mul(pieces, slot["splits"]))
    packed = f.var("i64", -1)
    with f.loop(first, last) as task:
        piece, part = f.udiv(task, slot["splits"]), f.urem(task, slot["splits"])
        group, image0, images, start = _place_of(f, slot, piece)
        panels = share(f, slot["panel_count"], 1, part, slot["splits"])
        with f.when(f.cmp("ne", piece, packed.get())):
            packed.set(piece)
            _fill_piece(f, tile, slot, group, image0, images, start, image)
        with f.loop(0, slot["phases"]) as phase, f.loop(*panels) as panel:
            f.call("void", "sweep", [f.args["args"], image, group, image0, images, start[0],
                                     start[2], phase, panel])
    return name, module.text()


def _place_of(f: Function, slot: Slots, piece: Value) -> tuple[Value, Value, Value, tuple]:
    """Group, first image, number of images and first pixel of a piece."""
    at2, rest = f.urem(piece, slot["blocks2"]), f.udiv(piece, slot["blocks2"])
    at0, rest = f.urem(rest, slot["blocks0"]), f.udiv(rest, slot["blocks0"])
    image0 = f.mul(f.urem(rest, slot["blocks_n"]), slot["images"])
    images = f.smin(f.sub(slot["n"], image0), slot["images"])
    start = f.mul(at0, slot["length0"]), f.const(0, "i64"), f.mul(at2, slot["length2"])
    return f.udiv(rest, slot["blocks_n"]), image0, images, start


def _fill_piece(f: Function, tile: Tile, slot: Slots, group: Value, image0: Value, images: Value,
                start: tuple, image: Value) -> None:
    with f.loop(0, images) as i:
        offset = f.add(f.mul(f.add(image0, i), slot["source_n"]),
                       f.mul(f.mul(group, slot["channels"]), slot["source_c"]))
        known = {f"from{d}": f.add(f.mul(start[d], slot[f"step{d}"]), slot[f"low{d}"])
                 for d in AXES}
        known |= {"step_c": slot["source_c"]}
        known |= {f"step{d}": slot[f"source_x{d}"] for d in AXES}
        values = [known[word] if word in known else slot[word] for word in PIECE]
        f.call("void", "pack_image", [
            f.gep(slot["source"], offset, tile.memory),
            f.gep(image, f.mul(i, slot["image_pitch"]), tile.compute), *values])


def _micro_kernel(module: Module, tile: Tile, spec: DirectSpec, layout: Layout) -> None:
    """Define tile(image.., offsets, panel, depth, result.., step, bias): one register tile.

    `lines` images and results: the pixels of each are `spec.step` pixels (result: `step` elements)
    apart. Sums start from `bias`. The result's lines are fetched while the sum runs.
    """
    lines = range(spec.lines)
    f = module.function("tile", [
        *(("ptr noalias", f"image{g}") for g in lines), ("ptr noalias", "offsets"),
        ("ptr noalias", "panel"), ("i64", "depth"), *(("ptr", f"result{g}") for g in lines),
        ("i64", "step"), ("ptr noalias", "bias")], internal=True)
    a, row_step = f.args, spec.step * layout.width
    starts = range(0, tile.width, tile.lanes)
    initial = [f.load(tile.vector, a["bias"], j) if spec.bias else 0 for j in starts]
    sums = [[[f.var(tile.vector, value) for value in initial] for _ in range(spec.rows)]
            for _ in lines]
    if spec.result_last:
        for g in lines:
            for i in range(spec.rows):
                line = f.gep(a[f"result{g}"], f.mul(a["step"], i), tile.memory)
                for j in starts:
                    prefetch(f, f.gep(line, j, tile.memory), write=True)
    with f.loop(0, a["depth"]) as k:
        offset = f.load("i64", a["offsets"], k)
        line = f.gep(a["panel"], f.mul(k, tile.width), tile.compute)
        for j in starts:
            prefetch(f, f.gep(line, AHEAD * tile.width + j, tile.compute))
        columns = [f.load(tile.vector, line, j) for j in starts]
        for g in lines:
            pixels = f.gep(a[f"image{g}"], offset, tile.compute)
            for i in range(spec.rows):
                factor = f.splat(f.load(tile.compute, pixels, i * row_step), tile.lanes)
                for total, column in zip(sums[g][i], columns, strict=True):
                    total.set(multiply_add(f, tile, factor, column, total.get()))
    for g in lines:
        for i in range(spec.rows):
            line = f.gep(a[f"result{g}"], f.mul(a["step"], i), tile.memory)
            for j, total in zip(starts, sums[g][i], strict=True):
                f.store(narrow(f, total.get(), tile), line, j)


def prefetch(f: Function, pointer: Value, write: bool = False) -> None:
    """Fetch the cache line of `pointer` into the nearest cache."""
    f.module.declare("void", "llvm.prefetch.p0", ["ptr", "i32", "i32", "i32"])
    f.line(f"call void @llvm.prefetch.p0({pointer}, i32 {int(write)}, i32 3, i32 1)")


def _sweep(module: Module, tile: Tile, spec: DirectSpec, layout: Layout,
           finish: Finish | None) -> None:
    """Define sweep(args, image, group, image0, images, start0, start2, phase, panel): all pixels
    of a piece with one panel of weights."""
    f = module.function("sweep", [
        ("ptr", "args"), ("ptr", "image"),
        *(("i64", n) for n in ("group", "image0", "images", "start0", "start2", "phase", "panel"))],
        internal=True)
    a = f.args
    slot = Slots(f, DIRECT_SLOTS, _DIRECT_POINTERS)
    entry = f.gep(a["args"], f.add(f.mul(a["phase"], len(PHASE)), len(DIRECT_SLOTS)), "i64")
    phase = {word: f.load("i64", entry, number) for number, word in enumerate(PHASE)}
    strip = f.add(f.mul(a["group"], slot["panel_count"]), a["panel"])
    lane = f.mul(a["panel"], tile.width)
    start = f.mul(f.add(f.mul(strip, slot["depth"]), phase["first"]), tile.width)
    weights = (f.gep(slot["offsets"], phase["first"], "i64"),
               f.gep(slot["panels"], start, tile.compute), phase["count"])
    bias = f.gep(slot["bias"], f.mul(strip, tile.width), tile.compute)
    columns = f.smin(f.sub(slot["lanes"], lane), tile.width)
    channel = f.add(f.mul(a["group"], slot["lanes"]), lane)
    origin = f.add(phase["offset"], f.mul(channel, slot["result_c"]))
    for word, axis in (("image0", "n"), ("start0", "x0"), ("start2", "x2")):
        origin = f.add(origin, f.mul(a[word], slot[f"result_{axis}"]))
    result = f.gep(slot["result"], origin, tile.memory)
    height = f.smax(f.smin(slot["length0"], f.sub(phase["grid0"], a["start0"])), 0)
    width = f.smin(slot["length2"], f.sub(phase["grid2"], a["start2"]))
    total = f.mul(f.mul(a["images"], height), phase["grid1"])
    step, channel_step = slot["result_x2"], slot["result_c"]
    rows = {"n": slot["result_n"], "x0": slot["result_x0"], "x1": slot["result_x1"],
            "image": slot["image_pitch"],
            "line0": f.mul(f.mul(slot["step0"], slot["ext1"]), f.mul(slot["ext2"], layout.width)),
            "line1": f.mul(slot["step1"], f.mul(slot["ext2"], layout.width))}
    scratch = f.array(tile.memory, spec.lines * spec.rows * tile.width)
    with f.loop(0, total, spec.lines) as row:
        lines = [_line(f, tile, f.smin(f.add(row, g), f.sub(total, 1)), phase["grid1"], height,
                       rows, a["image"], result) for g in range(spec.lines)]
        full = f.and_(f.cmp("sle", f.add(row, spec.lines), total),
                      f.cmp("eq", columns, tile.width))
        with f.loop(0, width, spec.rows) as x:
            count = f.smin(f.sub(width, x), spec.rows)
            images = [f.gep(image, f.mul(x, spec.step * layout.width), tile.compute)
                      for image, _ in lines]
            results = [f.gep(place, f.mul(x, step), tile.memory) for _, place in lines]
            direct = f.and_(full, f.cmp("eq", count, spec.rows)) if spec.result_last \
                else f.cmp("slt", count, 0)
            corners = [f.gep(scratch, g * spec.rows * tile.width, tile.memory)
                       for g in range(spec.lines)]
            spots = [f.select(direct, place, corner)
                     for place, corner in zip(results, corners, strict=True)]
            if not spec.result_last:
                with f.loop(0, columns) as j:
                    for place in results:
                        line = f.gep(place, f.mul(j, channel_step), tile.memory)
                        prefetch(f, line, write=True)
            f.call("void", "tile", [*images, *weights, *spots,
                                    f.select(direct, step, tile.width), bias])
            with f.when(f.not_(direct)):
                for g, place in enumerate(results):
                    with f.when(f.cmp("slt", f.add(row, g), total)):
                        f.call("void", "store", [corners[g], place, step, channel_step, count,
                                                 columns])
    if finish:
        _finish(f, tile, slot, finish, phase, result, (height, width), (channel, columns))


def _finish(f: Function, tile: Tile, slot: Slots, finish: Finish, phase: dict, result: Value,
            sizes: tuple, channels: tuple) -> None:
    """The epilogue of what `sweep` has stored: whole lines are one run of pixels."""
    height, width = sizes
    lines, line = f.mul(height, phase["grid1"]), phase["grid2"]
    whole = f.cmp("eq", width, line)
    count = f.select(whole, f.mul(lines, line), width)
    first = f.add(f.mul(f.mul(f.args["start0"], phase["grid1"]), line), f.args["start2"])
    area = f.mul(f.mul(phase["grid0"], phase["grid1"]), line)
    pitch = f.mul(slot["groups"], slot["lanes"]) if finish.by_pixel else slot["result_c"]
    with f.loop(0, f.args["images"]) as i, f.loop(0, f.select(whole, 1, lines)) as number:
        ahead = f.mul(number, line)
        step = f.mul(ahead, pitch) if finish.by_pixel else ahead
        place = f.gep(result, f.add(f.mul(i, slot["result_n"]), step), tile.memory)
        finish.call(f, len(DIRECT_SLOTS) + len(PHASE), place, pitch,
                    f.add(f.args["image0"], i), area, (f.add(first, ahead), count), channels)


def _line(f: Function, tile: Tile, row: Value, grid1: Value, height: Value, steps: dict,
          image: Value, result: Value) -> tuple[Value, Value]:
    """Where line `row` of a piece begins, in the image's copy and in the result."""
    at1, rest = f.urem(row, grid1), f.udiv(row, grid1)
    at0, number = f.urem(rest, height), f.udiv(rest, height)
    source = f.add(f.mul(number, steps["image"]),
                   f.add(f.mul(at0, steps["line0"]), f.mul(at1, steps["line1"])))
    target = f.add(f.mul(number, steps["n"]), f.add(f.mul(at0, steps["x0"]),
                                                    f.mul(at1, steps["x1"])))
    return f.gep(image, source, tile.compute), f.gep(result, target, tile.memory)


_STORE_ARGS = (("ptr noalias", "tile"), ("ptr noalias", "result"), ("i64", "step"),
               ("i64", "channel_step"), ("i64", "count"), ("i64", "columns"))


def store_pixels(module: Module, tile: Tile) -> None:
    """Define store(tile, result, step, channel_step, count, columns): the part of a line of a tile
    that lies in the result, whose channels are contiguous."""
    f = module.function("store", _STORE_ARGS, internal=True)
    a = f.args
    with f.loop(0, a["count"]) as i:
        line = f.gep(a["tile"], f.mul(i, tile.width), tile.memory)
        place = f.gep(a["result"], f.mul(i, a["step"]), tile.memory)
        if tile.masked:
            for j in range(0, tile.width, tile.lanes):
                value = f.load(tile.memory_vector, line, j)
                f.masked_store(value, place, f.lane_mask(tile.lanes, f.sub(a["columns"], j)), j)
        else:
            with f.loop(0, a["columns"]) as j:
                f.store(f.load(tile.memory, line, j), place, j)


def store_planes(module: Module, tile: Tile, rows: int) -> None:
    """Define `store` for a result whose pixels (at most `rows` of them) are contiguous, or which is
    strided anyhow."""
    vectors = tile.masked and rows <= tile.lanes and tile.memory == tile.compute
    if vectors:
        _store_turned(module, tile, rows)
    f = module.function("store", _STORE_ARGS, internal=True)
    a = f.args
    unit = f.cmp("eq", a["step"], 1) if vectors else f.cmp("slt", a["count"], 0)
    with f.when_else(unit) as otherwise:
        if vectors:
            with f.loop(0, a["columns"], tile.lanes) as j:
                f.call("void", "store_turned", [
                    f.gep(a["tile"], j, tile.memory),
                    f.gep(a["result"], f.mul(j, a["channel_step"]), tile.memory),
                    a["channel_step"], a["count"], f.sub(a["columns"], j)])
        otherwise()
        with f.loop(0, a["columns"]) as j:
            place = f.gep(a["result"], f.mul(j, a["channel_step"]), tile.memory)
            line = f.gep(a["tile"], j, tile.memory)
            with f.loop(0, a["count"]) as i:
                value = f.load(tile.memory, line, f.mul(i, tile.width))
                f.store(value, place, f.mul(i, a["step"]))


def _store_turned(module: Module, tile: Tile, height: int) -> None:
    """Define store_turned(tile, result, channel_step, count, columns): one vector's width of a
    tile, turned so that channels become lines."""
    f = module.function("store_turned", [
        ("ptr noalias", "tile"), ("ptr noalias", "result"), ("i64", "channel_step"),
        ("i64", "count"), ("i64", "columns")], part="store_turned")
    a = f.args
    rows = [f.load(tile.vector, a["tile"], i * tile.width) for i in range(height)]
    rows += rows[:1] * (tile.lanes - height)
    mask, nothing = f.lane_mask(tile.lanes, a["count"]), f.const(0, f"<{tile.lanes} x i1>")
    place = a["result"]
    for lane, line in enumerate(transpose(f, rows, max(1, 16 // tile.itemsize))):
        here = f.cmp("sgt", a["columns"], lane)
        f.masked_store(line, place, f.select(here, mask, nothing))
        following = f.cmp("sgt", a["columns"], lane + 1)
        place = f.gep(place, f.select(following, a["channel_step"], 0), tile.memory)
