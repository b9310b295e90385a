"""Gradients with respect to the weights of convolutions of bfloat16 images.

    sums[tap][channel, lane] = sum over pixels of image[pixel + distance[tap], channel]
                                                  * gradient[pixel, lane]

The sum runs over pixels, so that both images are laid out by pixels: the padded copy of a piece of
the image is turned, each channel's pixels in a row, and the gradient's pixels are paired. A tap is
a distance in the rows (`low.py`). A second kernel adds the partial sums of the pieces, which are
dealt out by sizes alone, and puts them where the weights' gradient lies.
"""

from __future__ import annotations

import dataclasses
import functools

from flambeau.compiler import amx
from flambeau.compiler.convolution.low import (
    COLD,
    Shape,
    define_fill,
    define_patches,
    define_tile,
    dot_engine,
    image_slots,
)
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.products.low_packing import Engine, bit_mask
from flambeau.compiler.products.packing import transpose
from flambeau.compiler.target import Target

__all__ = ["LOW_COLLECT_SLOTS", "LOW_GRADIENT_SLOTS", "LowGradientSpec", "TILE",
           "low_collect_kernel", "low_gradient_kernel"]

TILE = 32
"""Channels and lanes of a block of sums."""
LOW_GRADIENT_SLOTS = (
    *image_slots("s_", True), *image_slots("g_"), "sums", "work", "work_stride", "n", "images",
    "blocks_n", "blocks0", "blocks2", "length0", "length2", "parts", "ranges_c", "ranges_l",
    "blocks_c", "blocks_l", "taps", "pixels", "row", "rows_at", "pairs_at", "copy_at", "plane_row",
    "offsets_at", "residues_at")
_POINTERS = ("s_data", "g_data", "sums", "work")
LOW_COLLECT_SLOTS = ("sums", "weight", "parts", "part_step", "blocks_c", "blocks_l", "taps",
                     "channels", "lanes", "channel_step", "lane_step")
_COLLECT_POINTERS = LOW_COLLECT_SLOTS[:2]


@dataclasses.dataclass(frozen=True)
class LowGradientSpec:
    """What is fixed when the kernel is compiled: whether the image is laid out as patches."""

    patches: bool


@functools.lru_cache(maxsize=64)
def low_gradient_kernel(spec: LowGradientSpec, target: Target) -> tuple[str, str]:
    """(name, LLVM IR); slots are `LOW_GRADIENT_SLOTS`, then the taps' distances and the planes."""
    engine, module = dot_engine(target), Module(target.attributes)
    height = 32 if engine.kind == "amx" else 8
    shape = Shape(height, TILE, TILE)
    define_tile(module, engine, shape)
    (define_patches if spec.patches else define_fill)(module, "fill", LOW_GRADIENT_SLOTS, "s_")
    define_fill(module, "fill_gradient", LOW_GRADIENT_SLOTS, "g_", None)
    _define_turn(module, engine)
    _define_pair(module, engine)
    _define_multiply(module, shape)
    name = "conv_low_gradient" + ("_patches" if spec.patches else "")
    f = kernel_function(module, name)
    slot = Slots(f, LOW_GRADIENT_SLOTS, _POINTERS)
    work = thread_workspace(f, slot["work"], slot["work_stride"])
    ranges = f.mul(slot["ranges_c"], slot["ranges_l"])
    first, last = chunk_range(f, f.mul(slot["parts"], ranges))
    if engine.kind == "amx":
        amx.configure(f)
    pieces = f.mul(f.mul(slot["blocks_n"], slot["blocks0"]), slot["blocks2"])
    with f.loop(first, last) as task:
        part, cell = f.udiv(task, ranges), f.urem(task, ranges)
        cut_c, cut_l = f.udiv(cell, slot["ranges_l"]), f.urem(cell, slot["ranges_l"])
        channels = share(f, slot["blocks_c"], 1, cut_c, slot["ranges_c"])
        lanes = share(f, slot["blocks_l"], 1, cut_l, slot["ranges_l"])
        mine = share(f, pieces, 1, part, slot["parts"])
        with f.loop(*mine) as piece:
            _emit_piece(f, slot, piece, mine[0], part, (channels, lanes), work)
    if engine.kind == "amx":
        amx.release(f)
    return name, module.text()


def _emit_piece(f: Function, slot: Slots, piece: Value, first: Value, part: Value, cell: tuple,
                work: Value) -> None:
    rows, pairs = f.gep(work, slot["rows_at"], "i8"), f.gep(work, slot["pairs_at"], "i8")
    copy = f.gep(work, slot["copy_at"], "i8")
    rest, block2 = f.udiv(piece, slot["blocks2"]), f.urem(piece, slot["blocks2"])
    block_n, block0 = f.udiv(rest, slot["blocks0"]), f.urem(rest, slot["blocks0"])
    image0 = f.mul(block_n, slot["images"])
    images = f.smin(f.sub(slot["n"], image0), slot["images"])
    start0, start2 = f.mul(block0, slot["length0"]), f.mul(block2, slot["length2"])
    f.call("void", "fill", [f.args["args"], copy, image0, images, start0, start2, slot["s_size0"],
                            slot["s_size2"]])
    channels, lanes = cell
    f.call("void", "turn", [f.args["args"], copy, rows, *channels])
    stop0 = f.smin(f.add(start0, slot["length0"]), slot["g_size0"])
    stop2 = f.smin(f.add(start2, slot["length2"]), slot["g_size2"])
    f.call("void", "fill_gradient", [f.args["args"], copy, image0, images, start0, start2, stop0,
                                     stop2])
    lines = f.mul(f.mul(images, slot["g_line0"]), slot["g_line1"])
    used = f.ceil_div(f.mul(lines, slot["g_line2"]), 32)
    f.call("void", "pair", [f.args["args"], copy, pairs, *lanes, used])
    with f.loop(*lanes) as lane:
        f.call("void", "multiply", [f.args["args"], rows, pairs, part, lane, lanes[0], *channels,
                                    used, f.cmp("ne", piece, first)])


def _define_turn(module: Module, engine: Engine) -> None:
    """Define turn(args, copy, rows, first, last): the copy's blocks of channels, each channel's
    pixels in a row, plane by plane."""
    square = module.function("turn_block", [("ptr noalias", "src"), ("ptr noalias", "dst"),
                                            ("i64", "pitch"), ("i64", "row")], internal=True)
    a, lanes = square.args, engine.lanes
    units = []
    for q in range(lanes):
        low, high = (square.load(vector(lanes, "i16"), square.gep(
            a["src"], square.mul(a["pitch"], 2 * q + k), "i16")) for k in (0, 1))
        mixed = square.shuffle(low, high, [lane + side for lane in range(lanes)
                                           for side in (0, lanes)])
        units.append(square.cast("bitcast", mixed, engine.units))
    for lane, line in enumerate(transpose(square, units, 4)):
        square.store(line, square.gep(a["dst"], square.mul(a["row"], lane), "i16"))
    f = module.function("turn", [("ptr", "args"), ("ptr noalias", "copy"), ("ptr noalias", "rows"),
                                 ("i64", "first"), ("i64", "last")], internal=True, attributes=COLD)
    a, slot = f.args, Slots(f, LOW_GRADIENT_SLOTS, _POINTERS)
    first, last = (f.mul(a[word], TILE) for word in ("first", "last"))
    with f.loop(0, slot["s_planes"]) as plane:
        copy = f.gep(a["copy"], f.mul(plane, slot["s_plane_step"]), "i16")
        start = f.mul(plane, slot["plane_row"])
        with f.loop(0, slot["plane_row"], 2 * engine.lanes) as pixel, \
                f.loop(first, last, engine.lanes) as channel:
            src = f.add(f.mul(pixel, slot["s_pitch"]), channel)
            dst = f.add(f.mul(f.sub(channel, first), slot["row"]), f.add(start, pixel))
            f.call("void", "turn_block", [f.gep(copy, src, "i16"), f.gep(a["rows"], dst, "i16"),
                                          slot["s_pitch"], slot["row"]])


def _define_pair(module: Module, engine: Engine) -> None:
    """Define pair(args, copy, pairs, first, last, blocks): the gradient's blocks of lanes, two
    pixels side by side, in blocks of 32 pixels."""
    f = module.function("pair", [("ptr", "args"), ("ptr noalias", "copy"), ("ptr noalias", "pairs"),
                                 ("i64", "first"), ("i64", "last"), ("i64", "blocks")],
                        internal=True)
    a, slot, lanes = f.args, Slots(f, LOW_GRADIENT_SLOTS, _POINTERS), engine.lanes
    units = f.mul(a["blocks"], 16)
    whole, pitch = f.mul(slot["pixels"], TILE // 2), slot["g_pitch"]
    with f.loop(0, units) as q, f.loop(a["first"], a["last"]) as lane:
        src = f.gep(a["copy"], f.add(f.mul(f.mul(q, 2), pitch), f.mul(lane, TILE)), "i16")
        dst = f.gep(a["pairs"], f.add(f.mul(f.sub(lane, a["first"]), whole), f.mul(q, TILE)), "i32")
        for at in range(0, TILE, lanes):
            low = f.load(vector(lanes, "i16"), src, at)
            high = f.load(vector(lanes, "i16"), f.gep(src, pitch, "i16"), at)
            mixed = f.shuffle(low, high, [i + side for i in range(lanes) for side in (0, lanes)])
            f.store(f.cast("bitcast", mixed, engine.units), dst, at)


def _define_multiply(module: Module, shape: Shape) -> None:
    """Define multiply(args, rows, pairs, part, lane, first_lane, first, last, blocks, add): one
    block of lanes with all blocks of channels and all taps."""
    f = module.function("multiply", [
        ("ptr noalias", "args"), ("ptr noalias", "rows"), ("ptr noalias", "pairs"), ("i64", "part"),
        ("i64", "lane"), ("i64", "first_lane"), ("i64", "first"), ("i64", "last"),
        ("i64", "blocks"), ("i1", "add")], internal=True, attributes=COLD)
    a, slot = f.args, Slots(f, LOW_GRADIENT_SLOTS, _POINTERS)
    taps, row = slot["taps"], slot["row"]
    panel = f.mul(f.sub(a["lane"], a["first_lane"]), f.mul(slot["pixels"], TILE // 2))
    b = f.gep(a["pairs"], panel, "i32")
    table = f.gep(a["args"], slot["offsets_at"], "i64")
    base = f.add(f.mul(a["part"], slot["blocks_l"]), a["lane"])
    with f.loop(a["first"], a["last"]) as channel, f.loop(0, taps) as tap, \
            f.loop(0, TILE, shape.height) as i:
        cell = f.add(f.mul(f.add(f.mul(base, slot["blocks_c"]), channel), taps), tap)
        c = f.gep(slot["sums"], f.add(f.mul(cell, TILE * TILE), f.mul(i, TILE)), "float")
        line = f.add(f.mul(f.sub(channel, a["first"]), TILE), i)
        f.call("void", "tile", [f.gep(a["rows"], f.mul(line, row), "i16"), b, c,
                                f.gep(table, tap, "i64"), f.const(1, "i64"), a["blocks"], row,
                                a["add"]])


@functools.lru_cache(maxsize=64)
def low_collect_kernel(dense: bool, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that adds partial sums, a block a task; slots are
    `LOW_COLLECT_SLOTS`, then each tap's place in the weights. `dense`: channels lie there one after
    another."""
    engine, module = dot_engine(target), Module(target.attributes)
    name, lanes = "conv_low_collect" + "_dense" * dense, engine.lanes
    _define_square(module, engine, dense)
    f = kernel_function(module, name)
    slot = Slots(f, LOW_COLLECT_SLOTS, _COLLECT_POINTERS)
    cells = f.mul(slot["blocks_l"], slot["blocks_c"])
    table = f.gep(f.args["args"], len(LOW_COLLECT_SLOTS), "i64")
    with f.loop(*chunk_range(f, cells)) as cell, f.loop(0, slot["taps"]) as tap:
        lane = f.mul(f.udiv(cell, slot["blocks_c"]), TILE)
        channel = f.mul(f.urem(cell, slot["blocks_c"]), TILE)
        source = f.mul(f.add(f.mul(cell, slot["taps"]), tap), TILE * TILE)
        offset = f.load("i64", table, tap)
        for c0 in range(0, TILE, lanes):
            for l0 in range(0, TILE, lanes):
                c, at = f.add(channel, c0), f.add(lane, l0)
                place = f.add(f.mul(c, slot["channel_step"]), f.mul(at, slot["lane_step"]))
                f.call("void", "square", [
                    f.gep(slot["sums"], f.add(source, c0 * TILE + l0), "float"),
                    f.gep(slot["weight"], f.add(place, offset), "float"),
                    slot["parts"], slot["part_step"], f.sub(slot["channels"], c),
                    f.sub(slot["lanes"], at), slot["channel_step"], slot["lane_step"]])
    return name, module.text()


def _define_square(module: Module, engine: Engine, dense: bool) -> None:
    """Define square(sums, dst, parts, part_step, channels, lanes, channel_step, lane_step)."""
    f = module.function("square", [
        ("ptr noalias", "sums"), ("ptr noalias", "dst"), ("i64", "parts"), ("i64", "part_step"),
        ("i64", "channels"), ("i64", "lanes"), ("i64", "channel_step"), ("i64", "lane_step")],
        internal=True)
    a, lanes = f.args, engine.lanes
    type_ = vector(lanes, "float")
    totals = [f.var(type_, 0) for _ in range(lanes)]
    with f.loop(0, a["parts"]) as part:
        source = f.gep(a["sums"], f.mul(part, a["part_step"]), "float")
        for i, total in enumerate(totals):
            total.set(f.fadd(total.get(), f.load(type_, source, i * TILE)))
    square = f.array("float", lanes * lanes)
    for lane, line in enumerate(transpose(f, [total.get() for total in totals], 4)):
        f.store(line, square, lane * lanes)
    mask = bit_mask(f, lanes, f.smax(a["channels"], 0))
    places = f.mul(f.iota(lanes), f.splat(a["channel_step"], lanes))
    with f.loop(0, f.smin(a["lanes"], lanes)) as lane:
        line = f.load(type_, f.gep(square, f.mul(lane, lanes), "float"))
        to = f.gep(a["dst"], f.mul(lane, a["lane_step"]), "float")
        if dense:
            f.masked_store(line, to, mask)
        else:
            f.scatter(line, f.gep(to, places, "float"), mask)
