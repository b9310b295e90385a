"""The gradient of a convolution with respect to its weights, as a sum over pixels.

    sums[tap, c, o] = sum over pixels p of image[p * stride + tap, c] * gradient[p, o]

A register tile holds some input channels c of one tap and a panel of output channels o. Pieces of
both images are copied once (`image.py`), with the padding, channels innermost; every tap reads
the same copy at another offset. Pixels are cut into pieces, and pieces dealt to partial sums, by
the sizes alone, so that the result's bits do not depend on threads. The second kernel adds the
partial sums up and brings them into the weights' layout.
"""

from __future__ import annotations

import dataclasses
import functools

from flambeau.compiler.convolution.direct import store_planes
from flambeau.compiler.convolution.image import PIECE, Layout, pack_image
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.products.packing import Tile, add, multiply_add, narrow, tile_for
from flambeau.compiler.target import Target

__all__ = ["COLLECT_SLOTS", "GRADIENT_SLOTS", "CollectSpec", "GradientSpec", "collect_kernel",
           "gradient_kernel"]

AXES = range(3)

GRADIENT_SLOTS = ("input", "gradient", "sums", "work", "work_stride", "n", "groups", "parts",
                  "ranges", "images", "blocks_n", "blocks0", "blocks2", "length0", "length2",
                  "panel_count", "lanes", "channels", "channel_blocks", "taps", "pitch",
                  "image_pitch", "image_bytes", "panel_bytes",
                  "input_n", "input_c", *(f"input_x{d}" for d in AXES),
                  *(f"size{d}" for d in AXES),
                  "gradient_n", "gradient_c", *(f"gradient_x{d}" for d in AXES),
                  *(f"grid{d}" for d in AXES), *(f"step{d}" for d in AXES),
                  *(f"low{d}" for d in AXES), *(f"ext{d}" for d in AXES))
"""Then for each tap its offset in the input's copy."""

COLLECT_SLOTS = ("sums", "weight", "work", "work_stride", "groups", "parts", "panel_count",
                 "lanes", "channels", "channel_blocks", "taps", "lane_step", "channel_step",
                 "group_step", "row_tap", "row_channel")
"""Then for each tap its offset in the weights. `row_tap`, `row_channel`: order of the rows."""

_GRADIENT_POINTERS = GRADIENT_SLOTS[:4]
_COLLECT_POINTERS = COLLECT_SLOTS[:3]


@dataclasses.dataclass(frozen=True)
class GradientSpec:
    """What is fixed when the kernel that sums is compiled.

    Attributes:
        rows: input channels in the register tile; `vectors` its width.
        input_last, gradient_last: channels are contiguous in the images.
    """

    dtype_llvm: str
    rows: int
    vectors: int
    input_last: bool
    gradient_last: bool


@dataclasses.dataclass(frozen=True)
class CollectSpec:
    """What is fixed when the kernel that stores the weights is compiled.

    Attributes:
        rows, vectors: of the register tile.
        dense: channels and taps of a filter follow each other in memory.
    """

    dtype_llvm: str
    rows: int
    vectors: int
    dense: bool


def _tile(spec, target: Target) -> Tile:
    return dataclasses.replace(tile_for(spec.dtype_llvm, target), vectors=spec.vectors)


# ---------------------------------------------------------------------- summing
@functools.lru_cache(maxsize=64)
def gradient_kernel(spec: GradientSpec, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that sums; slots `GRADIENT_SLOTS`, then the taps."""
    tile = _tile(spec, target)
    name = (f"conv_gradient_{spec.dtype_llvm}_{spec.rows}x{spec.vectors}"
            + "_image_last" * spec.input_last + "_gradient_last" * spec.gradient_last)
    module = Module(target.attributes)
    pack_image(module, "pack_input", tile, Layout(spec.rows, tile.lanes), spec.input_last)
    pack_image(module, "pack_gradient", tile, Layout(tile.width, tile.width), spec.gradient_last)
    _micro_kernel(module, tile, spec)
    _sum_piece(module, tile, spec)

    f = kernel_function(module, name)
    slot = Slots(f, GRADIENT_SLOTS, _GRADIENT_POINTERS)
    work = thread_workspace(f, slot["work"], slot["work_stride"])
    pieces = f.mul(f.mul(slot["blocks_n"], slot["blocks0"]), slot["blocks2"])
    grid = f.mul(slot["parts"], slot["ranges"])
    with f.loop(*chunk_range(f, f.mul(slot["groups"], grid))) as task:
        group, rest = f.udiv(task, grid), f.urem(task, grid)
        part, at = f.udiv(rest, slot["ranges"]), f.urem(rest, slot["ranges"])
        blocks = share(f, slot["channel_blocks"], 1, at, slot["ranges"])
        first, last = share(f, pieces, 1, part, slot["parts"])
        with f.loop(first, last) as piece:
            follows = f.cmp("sgt", piece, first)
            f.call("void", "sum_piece", [f.args["args"], work, group, part, *blocks, piece,
                                         follows])
    return name, module.text()


def _micro_kernel(module: Module, tile: Tile, spec: GradientSpec) -> None:
    """Define tile(image, lines, count, panel, width, step, sums, add): one register tile.

    sums[rows, width of a panel] (+)= the sum over `count` lines of `width` pixels; line j of the
    image begins at lines[j] and its pixels are `step` elements apart, those of the panel follow
    each other.
    """
    f = module.function("tile", [
        ("ptr noalias", "image"), ("ptr noalias", "lines"), ("i64", "count"),
        ("ptr noalias", "panel"), ("i64", "width"), ("i64", "step"), ("ptr noalias", "sums"),
        ("i1", "add")], internal=True)
    a, starts = f.args, range(0, tile.width, tile.lanes)
    sums = [[f.var(tile.vector, 0) for _ in starts] for _ in range(spec.rows)]
    panel = f.var("ptr", a["panel"])
    with f.loop(0, a["count"]) as line:
        image = f.var("ptr", f.gep(a["image"], f.load("i64", a["lines"], line), tile.compute))
        with f.loop(0, a["width"]):
            columns = [f.load(tile.vector, panel.get(), j) for j in starts]
            for i in range(spec.rows):
                factor = f.splat(f.load(tile.compute, image.get(), i), tile.lanes)
                for total, column in zip(sums[i], columns, strict=True):
                    total.set(multiply_add(f, tile, factor, column, total.get()))
            panel.set(f.gep(panel.get(), tile.width, tile.compute))
            image.set(f.gep(image.get(), a["step"], tile.compute))
    with f.when(a["add"]):
        for i in range(spec.rows):
            for j, total in zip(starts, sums[i], strict=True):
                old = f.load(tile.vector, a["sums"], i * tile.width + j)
                total.set(add(f, tile, old, total.get()))
    for i in range(spec.rows):
        for j, total in zip(starts, sums[i], strict=True):
            f.store(total.get(), a["sums"], i * tile.width + j)


def _sum_piece(module: Module, tile: Tile, spec: GradientSpec) -> None:
    """Define sum_piece(args, work, group, part, first, last, piece, add): one piece of the images
    with the blocks first..last of input channels."""
    f = module.function("sum_piece", [
        ("ptr", "args"), ("ptr", "work"), *(("i64", n) for n in (
            "group", "part", "first", "last", "piece")), ("i1", "add")], internal=True)
    a = f.args
    slot = Slots(f, GRADIENT_SLOTS, _GRADIENT_POINTERS)
    rest, blocks2, blocks0 = a["piece"], slot["blocks2"], slot["blocks0"]
    start2 = f.mul(f.urem(rest, blocks2), slot["length2"])
    rest = f.udiv(rest, blocks2)
    start0 = f.mul(f.urem(rest, blocks0), slot["length0"])
    image0 = f.mul(f.udiv(rest, blocks0), slot["images"])
    images = f.smin(f.sub(slot["n"], image0), slot["images"])
    height = f.smin(slot["length0"], f.sub(slot["grid0"], start0))
    width = f.smin(slot["length2"], f.sub(slot["grid2"], start2))
    lines = f.mul(height, slot["grid1"])
    image = a["work"]
    panels = f.gep(image, slot["image_bytes"], "i8")
    table = f.gep(panels, slot["panel_bytes"], "i8")
    with f.loop(0, images) as i:
        number = f.add(image0, i)
        _fill_input(f, tile, spec, slot, i, number, start0, start2, image)
        _fill_gradient(f, tile, slot, i, number, (start0, start2), (height, width), images, panels)
        _fill_table(f, tile, slot, i, height, lines, table)
    count = f.mul(images, lines)
    step = f.mul(slot["step2"], tile.lanes)
    with f.loop(0, slot["panel_count"]) as panel, f.loop(a["first"], a["last"]) as block, \
            f.loop(0, slot["taps"]) as tap:
        # sums[part][group][panel][block][tap]
        place = f.add(f.mul(a["part"], slot["groups"]), a["group"])
        place = f.add(f.mul(place, slot["panel_count"]), panel)
        place = f.add(f.mul(place, slot["channel_blocks"]), block)
        place = f.mul(f.add(f.mul(place, slot["taps"]), tap), spec.rows * tile.width)
        offset = f.add(f.mul(f.sub(block, a["first"]), slot["pitch"]),
                       f.load("i64", f.gep(a["args"], len(GRADIENT_SLOTS), "i64"), tap))
        # between panels lies what packing may write behind the end of one
        pixels = f.mul(panel, f.mul(f.add(f.mul(count, width), tile.lanes), tile.width))
        f.call("void", "tile", [
            f.gep(image, offset, tile.compute), table, count,
            f.gep(panels, pixels, tile.compute), width, step,
            f.gep(slot["sums"], place, tile.compute), a["add"]])


def _fill_input(f: Function, tile: Tile, spec: GradientSpec, slot: Slots, i: Value, number: Value,
                start0: Value, start2: Value, image: Value) -> None:
    a = f.args
    channel = f.mul(a["first"], spec.rows)
    count = f.sub(f.smin(f.mul(a["last"], spec.rows), slot["channels"]), channel)
    channel = f.add(f.mul(a["group"], slot["channels"]), channel)
    offset = f.add(f.mul(number, slot["input_n"]), f.mul(channel, slot["input_c"]))
    starts = (start0, f.const(0, "i64"), start2)
    known = {"channels": count, "step_c": slot["input_c"]}
    known |= {f"from{d}": f.add(f.mul(starts[d], slot[f"step{d}"]), slot[f"low{d}"]) for d in AXES}
    known |= {f"step{d}": slot[f"input_x{d}"] for d in AXES}
    f.call("void", "pack_input", [
        f.gep(slot["input"], offset, tile.memory),
        f.gep(image, f.mul(i, slot["image_pitch"]), tile.compute),
        *(known[word] if word in known else slot[word] for word in PIECE)])


def _fill_gradient(f: Function, tile: Tile, slot: Slots, i: Value, number: Value, starts: tuple,
                   sizes: tuple, images: Value, panels: Value) -> None:
    start = f.mul(f.args["group"], f.mul(slot["lanes"], slot["gradient_c"]))
    start = f.add(start, f.mul(number, slot["gradient_n"]))
    zero, (height, width) = f.const(0, "i64"), sizes
    items = f.mul(f.mul(f.mul(height, slot["grid1"]), width), tile.width)
    pitch = f.add(f.mul(items, images), tile.lanes * tile.width)
    known = {"channels": slot["lanes"], "pitch": pitch,
             "step_c": slot["gradient_c"], "from0": starts[0], "from1": zero, "from2": starts[1],
             "ext0": height, "ext1": slot["grid1"], "ext2": width}
    known |= {f"step{d}": slot[f"gradient_x{d}"] for d in AXES}
    known |= {f"size{d}": slot[f"grid{d}"] for d in AXES}
    f.call("void", "pack_gradient", [
        f.gep(slot["gradient"], start, tile.memory),
        f.gep(panels, f.mul(i, items), tile.compute), *(known[word] for word in PIECE)])


def _fill_table(f: Function, tile: Tile, slot: Slots, i: Value, height: Value, lines: Value,
                table: Value) -> None:
    with f.loop(0, height) as at0, f.loop(0, slot["grid1"]) as at1:
        place = f.add(f.mul(f.mul(at0, slot["step0"]), slot["ext1"]), f.mul(at1, slot["step1"]))
        place = f.mul(f.mul(place, slot["ext2"]), tile.lanes)
        line = f.add(f.mul(i, lines), f.add(f.mul(at0, slot["grid1"]), at1))
        f.store(f.add(f.mul(i, slot["image_pitch"]), place), table, line)


# ---------------------------------------------------------------------- collecting
@functools.lru_cache(maxsize=64)
def collect_kernel(spec: CollectSpec, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that stores the weights; slots `COLLECT_SLOTS`, then taps."""
    tile = _tile(spec, target)
    name = (f"conv_collect_{spec.dtype_llvm}_{spec.rows}x{spec.vectors}" + "_dense" * spec.dense)
    module = Module(target.attributes)
    store_planes(module, tile, tile.lanes)
    _add_parts(module, tile, spec)
    f = kernel_function(module, name)
    slot = Slots(f, COLLECT_SLOTS, _COLLECT_POINTERS)
    rows = thread_workspace(f, slot["work"], slot["work_stride"])
    blocks, panels = slot["channel_blocks"], slot["panel_count"]
    with f.loop(*chunk_range(f, f.mul(slot["groups"], f.mul(panels, blocks)))) as task:
        block, strip = f.urem(task, blocks), f.udiv(task, blocks)
        panel, group = f.urem(strip, panels), f.udiv(strip, panels)
        channel, lane = f.mul(block, spec.rows), f.mul(panel, tile.width)
        count = f.smin(f.sub(slot["channels"], channel), spec.rows)
        f.call("void", "add_parts", [f.args["args"], task, rows])
        start = f.add(f.mul(group, slot["group_step"]), f.mul(lane, slot["lane_step"]))
        start = f.add(start, f.mul(channel, slot["channel_step"]))
        columns = f.smin(f.sub(slot["lanes"], lane), tile.width)
        with f.loop(0, 1 if spec.dense else slot["taps"]) as tap:
            length, step, place = count, slot["channel_step"], start
            if spec.dense:
                length, step = f.mul(count, slot["taps"]), f.const(1, "i64")
            else:
                taps = f.gep(f.args["args"], len(COLLECT_SLOTS), "i64")
                place = f.add(start, f.load("i64", taps, tap))
            with f.loop(0, length, tile.lanes) as k:
                row = f.add(f.mul(tap, slot["row_tap"]), k)
                f.call("void", "store", [
                    f.gep(rows, f.mul(row, tile.width), tile.memory),
                    f.gep(slot["weight"], f.add(place, f.mul(k, step)), tile.memory), step,
                    slot["lane_step"], f.smin(f.sub(length, k), tile.lanes), columns])
    return name, module.text()


def _add_parts(module: Module, tile: Tile, spec: CollectSpec) -> None:
    """Define add_parts(args, strip, rows): the sums of one (panel, block of channels), over the
    parts in their order; the row of (tap, channel) is tap * row_tap + channel * row_channel."""
    f = module.function("add_parts", [("ptr", "args"), ("i64", "strip"), ("ptr noalias", "rows")],
                        internal=True)
    slot = Slots(f, COLLECT_SLOTS, _COLLECT_POINTERS)
    parts, row_tap, row_channel = slot["parts"], slot["row_tap"], slot["row_channel"]
    size = spec.rows * tile.width
    strip_items = f.mul(slot["taps"], size)
    total = f.mul(f.mul(slot["groups"], f.mul(slot["panel_count"], slot["channel_blocks"])),
                  strip_items)
    base = f.gep(slot["sums"], f.mul(f.args["strip"], strip_items), tile.compute)
    with f.loop(0, slot["taps"]) as tap, f.loop(0, spec.rows) as channel:
        line = f.gep(base, f.add(f.mul(tap, size), f.mul(channel, tile.width)), tile.compute)
        row = f.add(f.mul(tap, row_tap), f.mul(channel, row_channel))
        target = f.gep(f.args["rows"], f.mul(row, tile.width), tile.memory)
        starts = range(0, tile.width, tile.lanes)
        sums = [f.var(tile.vector, 0) for _ in starts]
        with f.loop(0, parts) as part:
            here = f.gep(line, f.mul(part, total), tile.compute)
            for j, value in zip(starts, sums, strict=True):
                value.set(add(f, tile, value.get(), f.load(tile.vector, here, j)))
        for j, value in zip(starts, sums, strict=True):
            f.store(narrow(f, value.get(), tile), target, j)
