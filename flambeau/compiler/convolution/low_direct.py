"""Direct convolution of bfloat16 images: forward, and gradients with respect to the input.

    for each piece of the image (few enough for the copy to stay in the second-level cache)
      copy it                                           (`low.define_fill`)
      for each residue of the result and panel of channels
        pack the panel's weights                        once, with the first piece
        for each block of pixels of the copy
          tile: all taps and channels                   (`low.define_tile`)
          finish or store the block, line by line

Threads share out pieces and panels. Every sum is taken in the same order however they are cut.
"""

from __future__ import annotations

import dataclasses
import functools

from flambeau.compiler import amx
from flambeau.compiler.convolution.finish import Finish
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
from flambeau.compiler.products.low_packing import Engine, Operand, bit_mask, pack_panels
from flambeau.compiler.target import Target

__all__ = ["LOW_DIRECT_SLOTS", "PHASE", "LowDirectSpec", "low_direct_kernel"]

AXES = range(3)
LOW_DIRECT_SLOTS = (
    *image_slots("s_", True), "weights", "result", "bias", "work", "work_stride", "n", "images",
    "blocks_n", "blocks0", "blocks2", "length0", "length2", "tasks_p", "tasks_n", "panels", "lanes",
    "depth", "blocks", "lane_step", "channel_step", "bias_step", "tap_units", "panel_units",
    "packed_at", "copy_at", "result_n", *(f"result_x{d}" for d in AXES),
    *(f"size{d}" for d in AXES), "phases", "phases_at", "weights_at", "offsets_at", "residues_at")
PHASE = ("offset", "grid0", "grid1", "grid2", "first", "count")
"""At `phases_at`, for each residue: its place in the result, pixels, and its taps. At `weights_at`
and `offsets_at` where each tap lies in the weights and in the copy."""
_POINTERS = ("s_data", "weights", "result", "bias", "work")


@dataclasses.dataclass(frozen=True)
class LowDirectSpec:
    """What is fixed when the kernel is compiled.

    Attributes:
        shape: the register tile.
        order: what is contiguous in the weights: "along" (channels) or "across" (lanes).
        patches: the image is laid out as patches.
        stored: the float32 sums are stored (else only an epilogue reads them).
        bias: sums start from it.
    """

    shape: Shape
    order: str
    patches: bool
    stored: bool
    bias: bool


@functools.lru_cache(maxsize=64)
def low_direct_kernel(spec: LowDirectSpec, target: Target, finish: Finish | None
                      ) -> tuple[str, str]:
    """(name, LLVM IR); slots are `LOW_DIRECT_SLOTS`, then the epilogue's, then the tables."""
    engine, module = dot_engine(target), Module(target.attributes)
    name = "_".join(filter(None, (
        "conv_low", str(spec.shape.width), spec.order, "patches" if spec.patches else "",
        "" if spec.stored else "private", "bias" if spec.bias else "",
        finish.epilogue.name if finish else "")))
    define_tile(module, engine, spec.shape)
    define = define_patches if spec.patches else define_fill
    define(module, "fill", LOW_DIRECT_SLOTS, "s_")
    # as for tiles on any machine: filled up with zeros to a whole block
    whole = dataclasses.replace(engine, kind="amx", width=spec.shape.width)
    pack_panels(module, "pack", Operand(whole), spec.order)
    if finish:
        finish.epilogue.define(module)
    if spec.stored:
        _define_store(module, engine, spec.shape)
    _define_pack_taps(module, spec)
    _define_finish(module, spec, finish)
    _define_sweep(module, spec)
    f = kernel_function(module, name)
    slot = Slots(f, LOW_DIRECT_SLOTS, _POINTERS)
    work = thread_workspace(f, slot["work"], slot["work_stride"])
    packed, copy = f.gep(work, slot["packed_at"], "i8"), f.gep(work, slot["copy_at"], "i8")
    first, last = chunk_range(f, f.mul(slot["tasks_p"], slot["tasks_n"]))
    if engine.kind == "amx":
        amx.configure(f)
    pieces = f.mul(f.mul(slot["blocks_n"], slot["blocks0"]), slot["blocks2"])
    with f.loop(first, last) as task:
        part, column = f.udiv(task, slot["tasks_n"]), f.urem(task, slot["tasks_n"])
        panels = share(f, slot["panels"], 1, column, slot["tasks_n"])
        mine = share(f, pieces, 1, part, slot["tasks_p"])
        with f.loop(*mine) as piece:
            _emit_piece(f, slot, spec, piece, mine[0], panels, (work, packed, copy))
    if engine.kind == "amx":
        amx.release(f)
    return name, module.text()


def _emit_piece(f: Function, slot: Slots, spec: LowDirectSpec, piece: Value, first: Value,
                panels: tuple, memory: tuple) -> None:
    work, packed, copy = memory
    rest, block2 = f.udiv(piece, slot["blocks2"]), f.urem(piece, slot["blocks2"])
    block_n, block0 = f.udiv(rest, slot["blocks0"]), f.urem(rest, slot["blocks0"])
    image0 = f.mul(block_n, slot["images"])
    images = f.smin(f.sub(slot["n"], image0), slot["images"])
    start0, start2 = f.mul(block0, slot["length0"]), f.mul(block2, slot["length2"])
    f.call("void", "fill", [f.args["args"], copy, image0, images, start0, start2, slot["s_size0"],
                            slot["s_size2"]])
    with f.loop(*panels) as panel:
        place = f.gep(packed, f.mul(f.sub(panel, panels[0]), slot["panel_units"]), "i32")
        with f.when(f.cmp("eq", piece, first)):
            f.call("void", "pack_taps", [f.args["args"], place, panel])
        with f.loop(0, slot["phases"]) as phase:
            f.call("void", "sweep", [f.args["args"], work, place, copy, image0, images, start0,
                                     start2, panel, phase])


def _define_pack_taps(module: Module, spec: LowDirectSpec) -> None:
    """Define pack_taps(args, dst, panel): the weights of one panel, tap by tap."""
    f = module.function("pack_taps", [("ptr", "args"), ("ptr noalias", "dst"), ("i64", "panel")],
                        internal=True, attributes=COLD)
    slot = Slots(f, LOW_DIRECT_SLOTS, _POINTERS)
    lane = f.mul(f.args["panel"], spec.shape.width)
    count = f.smin(f.sub(slot["lanes"], lane), spec.shape.width)
    table = f.gep(f.args["args"], slot["weights_at"], "i64")
    taps = f.udiv(slot["panel_units"], slot["tap_units"])
    with f.loop(0, taps) as tap:
        offset = f.add(f.load("i64", table, tap), f.mul(lane, slot["lane_step"]))
        f.call("void", "pack", [
            f.gep(slot["weights"], offset, "i16"),
            f.gep(f.args["dst"], f.mul(tap, slot["tap_units"]), "i32"), slot["depth"], count,
            slot["lane_step"], slot["channel_step"]])


def _define_sweep(module: Module, spec: LowDirectSpec) -> None:
    """Define sweep(args, sums, packed, copy, image0, images, start0, start2, panel, phase): one
    panel and residue of a piece."""
    f = module.function("sweep", [
        ("ptr noalias", "args"), ("ptr noalias", "sums"), ("ptr noalias", "packed"),
        ("ptr noalias", "copy"), ("i64", "image0"), ("i64", "images"), ("i64", "start0"),
        ("i64", "start2"), ("i64", "panel"), ("i64", "phase")], internal=True, attributes=COLD)
    a, slot = f.args, Slots(f, LOW_DIRECT_SLOTS, _POINTERS)
    entry = f.gep(a["args"], f.add(slot["phases_at"], f.mul(a["phase"], len(PHASE))), "i64")
    _, *grid, first, count = (f.load("i64", entry, number) for number in range(len(PHASE)))
    length0 = f.smin(f.sub(grid[0], a["start0"]), slot["length0"])
    length2 = f.smin(f.sub(grid[2], a["start2"]), slot["length2"])
    line0, line1, line2 = (slot[f"s_line{d}"] for d in AXES)
    end = f.add(f.mul(f.sub(a["images"], 1), line0), f.sub(length0, 1))
    end = f.add(f.mul(end, line1), f.sub(grid[1], 1))
    end = f.add(f.mul(end, line2), length2)
    lane = f.mul(a["panel"], spec.shape.width)
    lanes = f.smin(f.sub(slot["lanes"], lane), spec.shape.width)
    if spec.bias:
        bias = f.array("float", spec.shape.width)
        with f.loop(0, lanes) as i:
            f.store(f.load("float", slot["bias"], f.mul(f.add(lane, i), slot["bias_step"])),
                    bias, i)
    some = f.and_(f.cmp("sgt", length0, 0), f.cmp("sgt", length2, 0))
    packed = f.gep(a["packed"], f.mul(first, slot["tap_units"]), "i32")
    offsets = f.gep(a["args"], f.add(slot["offsets_at"], first), "i64")
    with f.loop(0, f.select(some, end, 0), spec.shape.height) as q:
        if spec.bias:
            with f.loop(0, spec.shape.height) as i, f.loop(0, spec.shape.width, 16) as j:
                place = f.add(f.mul(i, spec.shape.pitch), j)
                f.store(f.load(vector(16, "float"), f.gep(bias, j, "float")),
                        f.gep(a["sums"], place, "float"))
        f.call("void", "tile", [
            f.gep(a["copy"], f.mul(q, slot["s_pitch"]), "i16"), packed, a["sums"], offsets, count,
            slot["blocks"], slot["s_pitch"], f.const(spec.bias, "i1")])
        left = f.smin(f.sub(end, q), spec.shape.height)
        begin, stop = f.udiv(q, line2), f.ceil_div(f.add(q, left), line2)
        with f.loop(begin, stop) as line:
            start = f.mul(line, line2)
            x0 = f.smax(f.sub(q, start), 0)
            x1 = f.smin(f.sub(f.add(q, left), start), length2)
            y1, rest = f.urem(line, line1), f.udiv(line, line1)
            y0, image = f.urem(rest, line0), f.udiv(rest, line0)
            live = f.and_(f.and_(f.cmp("slt", x0, x1), f.cmp("slt", y0, length0)),
                          f.cmp("slt", y1, grid[1]))
            with f.when(live):
                place = f.mul(f.sub(f.add(start, x0), q), spec.shape.pitch)
                f.call("void", "run", [
                    a["args"], f.gep(a["sums"], place, "float"), entry,
                    f.add(a["image0"], image), f.add(a["start0"], y0), y1,
                    f.add(a["start2"], x0), f.sub(x1, x0), lane, lanes])


def _define_finish(module: Module, spec: LowDirectSpec, finish: Finish | None) -> None:
    """Define run(args, sums, phase, image, y0, y1, x, count, lane, lanes): what becomes of some
    pixels of a line."""
    f = module.function("run", [
        ("ptr", "args"), ("ptr noalias", "sums"), ("ptr", "phase"), ("i64", "image"), ("i64", "y0"),
        ("i64", "y1"), ("i64", "x"), ("i64", "count"), ("i64", "lane"), ("i64", "lanes")],
        internal=True, attributes=COLD)
    a, slot = f.args, Slots(f, LOW_DIRECT_SLOTS, _POINTERS)
    if spec.stored:
        offset = f.add(f.load("i64", a["phase"]), f.mul(a["image"], slot["result_n"]))
        for d, word in enumerate(("y0", "y1", "x")):
            offset = f.add(offset, f.mul(a[word], slot[f"result_x{d}"]))
        f.call("void", "store", [
            a["sums"], f.gep(slot["result"], f.add(offset, a["lane"]), "float"),
            slot["result_x2"], a["count"], a["lanes"]])
    if finish:
        row = f.add(f.mul(a["image"], slot["size0"]), a["y0"])
        row = f.add(f.mul(row, slot["size1"]), a["y1"])
        row = f.add(f.mul(row, slot["size2"]), a["x"])
        finish.epilogue.call(f, len(LOW_DIRECT_SLOTS), a["sums"], spec.shape.pitch, 0,
                             (row, a["count"]), (a["lane"], a["lanes"]))


def _define_store(module: Module, engine: Engine, shape: Shape) -> None:
    """Define store(sums, dst, stride, rows, columns)."""
    f = module.function("store", [("ptr noalias", "sums"), ("ptr noalias", "dst"),
                                  ("i64", "stride"), ("i64", "rows"), ("i64", "columns")],
                        internal=True)
    a, lanes = f.args, engine.lanes
    starts = range(0, shape.width, lanes)
    masks = [bit_mask(f, lanes, f.smax(f.sub(a["columns"], at), 0)) for at in starts]
    with f.loop(0, a["rows"]) as i:
        source = f.gep(a["sums"], f.mul(i, shape.pitch), "float")
        place = f.gep(a["dst"], f.mul(i, a["stride"]), "float")
        for at, mask in zip(starts, masks, strict=True):
            f.masked_store(f.load(vector(lanes, "float"), source, at), place, mask, at)
