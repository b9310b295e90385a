"""Convolutions of few pixels with many weights, as a product of the weights with a patch matrix.

    result[o, pixel] = sum over k of weight[o, k] * patches[k, pixel],    k = (channel, tap)

Packing the weights would cost as much as multiplying with them. Here they are read where they lie,
once; the small patch matrix is written out, its rows in the order that k has in the weights'
memory. Three kernels: patches, product, and for results with channels innermost a third that turns
them.
"""

from __future__ import annotations

import functools
import math

from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.geometry import AXES, Convolution, Correlation, correlation
from flambeau.compiler.convolution.image import turn_block
from flambeau.compiler.convolution.matrix import is_by_pixel
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range, kernel_function
from flambeau.compiler.nest import Pointer
from flambeau.compiler.products.gemm import GEMM_SLOTS, gemm_kernel, gemm_plan, gemm_spec
from flambeau.compiler.products.packing import Tile, tile_for
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target
from flambeau.core.shapes import contiguous_strides, dense_order

__all__ = ["PATCH_SLOTS", "patch_kernel", "patch_slots", "patch_steps"]

PATCH_SLOTS = ("source", "patches", "n", "channels", "depth", "taps", "pitch", "channel_step",
               "source_n", "source_c", *(f"source_x{d}" for d in AXES),
               *(f"size{d}" for d in AXES), *(f"out{d}" for d in AXES),
               *(f"move{d}" for d in AXES))
"""Then, for each tap, its offset in the weights and its distance in the image along each axis."""
TURN_SLOTS = ("planes", "result", "n", "channels", "pixels", "result_n", "pitch")

_FEWEST_WEIGHTS = 1 << 16  # below, packing them costs nothing
_MOST_PATCHES = 1 << 20  # elements of the patch matrix, lest it leave the second-level cache


def patch_steps(c: Convolution, dtype_llvm: str, target: Target, threads: int,
                finish: Finish | None = None) -> list[Step] | None:
    """The steps of a forward convolution; None where it is none of these."""
    tile = tile_for(dtype_llvm, target)
    if c.kind != "forward" or c.groups > 1 or c.bias is not None or not tile.masked \
            or not tile.floating:
        return None
    pixels, depth = math.prod(c.y.shape[2:]), math.prod(c.w.shape[1:])
    lanes, batch = c.w.shape[0], c.y.shape[0]
    if batch * pixels > lanes or lanes * depth < _FEWEST_WEIGHTS \
            or batch * pixels * depth > _MOST_PATCHES \
            or dense_order(c.w.shape[1:], c.w.strides[1:]) is None:
        return None
    by_pixel = is_by_pixel(c.y.shape, c.y.strides)
    if not by_pixel and c.y.strides[1:] != contiguous_strides(c.y.shape)[1:]:
        return None
    return _Patches(c, tile, target, threads, by_pixel).steps(finish)


class _Patches:
    """Sizes and workspace of one problem: patches, then planes to be turned, then the product's."""

    def __init__(self, c: Convolution, tile: Tile, target: Target, threads: int, by_pixel: bool):
        self.c, self.tile, self.target, self.threads = c, tile, target, threads
        self.by_pixel, self.problem = by_pixel, correlation(c)
        self.n, self.pixels = c.y.shape[0], math.prod(c.y.shape[2:])
        self.lanes, self.depth = c.w.shape[0], math.prod(c.w.shape[1:])
        self.pitch = -(-self.pixels // 16) * 16 + 16  # a vector may be written behind the end
        self.spec = gemm_spec(tile.memory, "row", "row", self.lanes, self.pixels, self.depth,
                              target)
        self.cut = gemm_plan(self.spec, target, self.n, self.lanes, self.pixels, self.depth,
                             threads)
        planes = self.n * self.lanes * self.pixels if by_pixel else 0
        sizes = [self.n * self.depth * self.pitch * tile.itemsize, planes * tile.itemsize]
        self.at = [0]
        for size in sizes:
            self.at.append(self.at[-1] + -(-size // 64) * 64)
        self.bytes = self.at[-1] + self.cut.work_bytes

    def _work(self, part: int) -> Pointer:
        return Pointer("work", self.bytes, self.at[part])

    def _chunks(self, tasks: int, elements: int) -> int:
        most = 4 * self.threads if self.threads > 1 else 1
        return max(1, min(most, tasks, elements // 16384))

    def steps(self, finish: Finish | None) -> list[Step]:
        c, fused = self.c, finish if not self.by_pixel else None
        name, text = patch_kernel(self.tile, self.target)
        chunks = self._chunks(self.n * c.w.shape[1], self.n * self.depth * self.pixels)
        slots = patch_slots(self.problem, self._work(0), self.depth, self.pitch)
        found = [Step(name, lambda: text, slots, chunks)]
        values = {
            "a": c.w.slot, "a_batch": 0, "a_row": c.w.strides[0], "a_col": 1,
            "b": self._work(0), "b_batch": self.depth * self.pitch, "b_row": self.pitch,
            "b_col": 1, "c": self._work(1) if self.by_pixel else c.y.slot,
            "c_batch": self.lanes * self.pixels if self.by_pixel else c.y.strides[0],
            "c_row": self.pixels, "work": self._work(2), "work_stride": self.cut.work_stride,
            "batch": self.n, "m": self.lanes, "n": self.pixels, "k": self.depth,
            "tiles_m": self.cut.tiles_m, "tiles_n": self.cut.tiles_n}
        main, main_text = gemm_kernel(self.spec, self.target, fused.epilogue if fused else None)
        slots = [values[slot] for slot in GEMM_SLOTS] + (fused.slots if fused else [])
        found.append(Step(main, lambda: main_text, slots, self.cut.nchunks, after=1))
        if self.by_pixel:
            found.append(self._turn(finish))
        return found

    def _turn(self, finish: Finish | None) -> Step:
        name, text = _turn_kernel(self.tile, self.target, finish)
        values = {"planes": self._work(1), "result": self.c.y.slot, "n": self.n,
                  "channels": self.lanes, "pixels": self.pixels,
                  "result_n": self.pixels * self.lanes, "pitch": self.lanes}
        slots = [values[slot] for slot in TURN_SLOTS] + (finish.slots if finish else [])
        tasks = self.n * -(-self.lanes // self.tile.lanes)
        chunks = self._chunks(tasks, self.n * self.lanes * self.pixels)
        return Step(name, lambda: text, slots, chunks, after=2)


# ---------------------------------------------------------------------- patches
def patch_slots(p: Correlation, patches: Pointer, depth: int, pitch: int) -> list:
    """The slots of a kernel that writes `patches`, whose lines lie `pitch` elements apart."""
    values = {"source": p.source.slot, "patches": patches, "n": p.source.shape[0],
              "channels": p.channels, "depth": depth, "taps": len(p.phases[0].taps),
              "pitch": pitch, "channel_step": p.channel_step,
              "source_n": p.source.strides[0], "source_c": p.source.strides[1]}
    for d in AXES:
        values |= {f"source_x{d}": p.source.steps[d], f"size{d}": p.source.spatial[d],
                   f"out{d}": p.grid[d], f"move{d}": p.move[d]}
    table = [number for weight, distance in p.phases[0].taps for number in (weight, *distance)]
    return [values[name] for name in PATCH_SLOTS] + table


@functools.lru_cache(maxsize=64)
def patch_kernel(tile: Tile, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that writes the patch matrix, a channel a task."""
    name, module = f"conv_patches_{tile.memory}", Module(target.attributes)
    _define_channel(module, tile)
    f = kernel_function(module, name)
    slot = Slots(f, PATCH_SLOTS, PATCH_SLOTS[:2])
    first, last = chunk_range(f, f.mul(slot["n"], slot["channels"]))
    with f.loop(first, last) as task:
        image, channel = f.udiv(task, slot["channels"]), f.urem(task, slot["channels"])
        offset = f.add(f.mul(image, slot["source_n"]), f.mul(channel, slot["source_c"]))
        row = f.add(f.mul(image, slot["depth"]), f.mul(channel, slot["channel_step"]))
        f.call("void", "channel", [
            f.args["args"], f.gep(slot["source"], offset, tile.memory),
            f.gep(slot["patches"], f.mul(row, slot["pitch"]), tile.memory)])
    return name, module.text()


def _define_channel(module: Module, tile: Tile) -> None:
    """Define channel(args, src, dst): the rows of one channel, tap by tap."""
    f = module.function("channel", [("ptr noalias", "args"), ("ptr noalias", "src"),
                                    ("ptr noalias", "dst")], internal=True)
    a, slots = f.args, Slots(f, PATCH_SLOTS, PATCH_SLOTS[:2])
    slot = {name: slots[name] for name in PATCH_SLOTS}
    step = f.mul(slot["source_x2"], slot["move2"])
    dense = f.cmp("eq", step, 1)
    with f.loop(0, slot["taps"]) as tap:
        entry = f.gep(a["args"], f.add(f.mul(tap, 4), len(PATCH_SLOTS)), "i64")
        weight, *distance = (f.load("i64", entry, number) for number in range(4))
        row = f.gep(a["dst"], f.mul(weight, slot["pitch"]), tile.memory)
        with f.loop(0, slot["out0"]) as y0, f.loop(0, slot["out1"]) as y1:
            at = [f.add(f.mul(y, slot[f"move{d}"]), distance[d]) for d, y in enumerate((y0, y1))]
            inside = f.and_(*(f.cmp("ult", at[d], slot[f"size{d}"]) for d in (0, 1)))
            source = f.add(f.mul(at[0], slot["source_x0"]), f.mul(at[1], slot["source_x1"]))
            target = f.mul(f.add(f.mul(y0, slot["out1"]), y1), slot["out2"])
            limit = f.select(inside, slot["size2"], 0)
            with f.loop(0, slot["out2"], tile.lanes) as x:
                start = f.add(f.mul(x, slot["move2"]), distance[2])
                src = f.gep(a["src"], f.add(source, f.mul(start, slot["source_x2"])), tile.memory)
                mask = _inside(f, tile, start, slot["move2"], limit)
                dst = f.gep(row, f.add(target, x), tile.memory)
                _copy_line(f, tile, src, dst, (dense, step), mask)


def _inside(f: Function, tile: Tile, start: Value, step: Value, limit: Value) -> Value:
    """The lanes with 0 <= start + lane * step < limit."""
    lanes = f.mul(f.iota(tile.lanes), f.splat(step, tile.lanes))
    places = f.add(f.splat(start, tile.lanes), lanes)
    return f.cmp("ult", places, f.splat(limit, tile.lanes))


def _copy_line(f: Function, tile: Tile, src: Value, dst: Value, step: tuple, mask: Value) -> None:
    """A vector of pixels that lie `step` apart, zeros where `mask` is not set."""
    dense, distance = step
    with f.when_else(dense) as otherwise:
        f.store(f.masked_load(tile.memory_vector, src, mask), dst)
        otherwise()
        offsets = f.mul(f.iota(tile.lanes), f.splat(distance, tile.lanes))
        f.store(f.gather(vector(tile.lanes, tile.memory), f.gep(src, offsets, tile.memory), mask),
                dst)


# ---------------------------------------------------------------------- turning
@functools.lru_cache(maxsize=64)
def _turn_kernel(tile: Tile, target: Target, finish: Finish | None) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that makes channels innermost, a vector of them a task."""
    name = f"conv_turn_{tile.memory}" + (f"_{finish.epilogue.name}" if finish else "")
    module = Module(target.attributes)
    turn_block(module, "turn", tile)
    if finish:
        finish.epilogue.define(module)
    _define_pixels(module, tile)
    f = kernel_function(module, name)
    slot = Slots(f, TURN_SLOTS, TURN_SLOTS[:2])
    blocks = f.ceil_div(slot["channels"], tile.lanes)
    first, last = chunk_range(f, f.mul(slot["n"], blocks))
    with f.loop(first, last) as task:
        image, lane = f.udiv(task, blocks), f.mul(f.urem(task, blocks), tile.lanes)
        count = f.smin(f.sub(slot["channels"], lane), tile.lanes)
        row = f.add(f.mul(image, slot["channels"]), lane)
        result = f.gep(slot["result"], f.add(f.mul(image, slot["result_n"]), lane), tile.memory)
        f.call("void", "pixels", [
            f.gep(slot["planes"], f.mul(row, slot["pixels"]), tile.memory), result,
            slot["pixels"], slot["pitch"], count])
        if finish:
            finish.call(f, len(TURN_SLOTS), result, slot["pitch"], image, slot["pixels"],
                        (0, slot["pixels"]), (lane, count))
    return name, module.text()


def _define_pixels(module: Module, tile: Tile) -> None:
    """Define pixels(planes, result, pixels, pitch, count): `count` planes as pixels."""
    f = module.function("pixels", [("ptr noalias", "planes"), ("ptr noalias", "result"),
                                   ("i64", "pixels"), ("i64", "pitch"), ("i64", "count")],
                        internal=True)
    a, square = f.args, f.array(tile.memory, tile.lanes * tile.lanes)
    mask = f.lane_mask(tile.lanes, a["count"])
    with f.loop(0, a["pixels"], tile.lanes) as first:
        left = f.sub(a["pixels"], first)
        f.call("void", "turn", [f.gep(a["planes"], first, tile.memory), square, a["pixels"],
                                a["count"], left, f.const(tile.lanes, "i64")])
        with f.loop(0, f.smin(left, tile.lanes)) as i:
            place = f.gep(a["result"], f.mul(f.add(first, i), a["pitch"]), tile.memory)
            value = f.load(tile.memory_vector, square, f.mul(i, tile.lanes))
            f.masked_store(value, place, mask)
