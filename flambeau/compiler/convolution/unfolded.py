"""Convolutions of few pixels as a float32 product in bfloat16 parts, of patches and weights.

    channels_last    result[pixel, o] = sum over k of patches[pixel, k] * weight[o, k]
    row-major        result[o, pixel] = sum over k of weight[o, k] * patches[k, pixel], per image

k = (channel, tap) in the order that it has in the weights' memory, so that weights are read along
the sum where they lie. What writing out the patches costs is less than what the faster product
gains (`split_spec`); large images go to kernels that never build that matrix.
"""

from __future__ import annotations

import functools
import math

from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.geometry import AXES, Convolution, correlation
from flambeau.compiler.convolution.matrix import is_by_pixel
from flambeau.compiler.convolution.patches import PATCH_SLOTS, patch_kernel, patch_slots
from flambeau.compiler.emitter import Function, Module
from flambeau.compiler.frame import Slots, chunk_range, kernel_function
from flambeau.compiler.nest import Pointer
from flambeau.compiler.products.low import GEMM_LOW_SLOTS, split_spec
from flambeau.compiler.products.low_step import Matrix, low_step
from flambeau.compiler.products.packing import Tile, tile_for
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target
from flambeau.core.shapes import contiguous_strides, dense_order

__all__ = ["unfolded_steps"]

_MOST_PATCHES = 1 << 20  # elements of the patch matrix, lest it leave the second-level cache
_COST = {True: 0.5, False: 1.5}  # cycles to write an element; in lines of channels?


def unfolded_steps(c: Convolution, dtype_llvm: str, target: Target, threads: int,
                   finish: Finish | None = None) -> list[Step] | None:
    """The steps of a forward convolution; None where others are faster, or needed."""
    if dtype_llvm != "float" or c.kind != "forward" or c.groups > 1 or c.bias is not None \
            or dense_order(c.w.shape[1:], c.w.strides[1:]) is None:
        return None
    images, pixels, depth = c.y.shape[0], math.prod(c.y.shape[2:]), math.prod(c.w.shape[1:])
    lanes, elements = c.w.shape[0], images * pixels * depth
    by_pixel = is_by_pixel(c.y.shape, c.y.strides)
    by_plane = c.y.strides[1:] == contiguous_strides(c.y.shape)[1:]
    if not 0 < elements <= _MOST_PATCHES or not (by_pixel or by_plane) \
            or finish and finish.by_pixel != by_pixel:
        return None
    rows = by_pixel and c.x.strides[1] == c.w.strides[1] == 1  # of the matrix: patches
    if by_pixel and images > 1 and not rows:
        return None
    pitch = -(-(depth if rows else pixels) // 16) * 16 + 16  # a vector may end behind the end
    lines = images * (pixels if rows else depth)
    before, place = 4 * lines * pitch, Pointer("work", 0)
    weights = Matrix(c.w.slot, 0, c.w.strides[0], 1)
    patches = Matrix(place, 0, pitch, 1) if rows else Matrix(place, depth * pitch, 1, pitch)
    order = "along" if rows else "across"
    if by_pixel:
        a, b, m, n, images = patches, weights.turned(), images * pixels, lanes, 1
        spec = split_spec(order, "along", m, n, depth, target, elements * _COST[rows])
        made = Matrix(c.y.slot, 0, lanes, 1)
    else:
        a, b, m, n = weights, patches.turned(), lanes, pixels
        spec = split_spec("along", order, m, n, depth, target, pixels * depth * _COST[rows])
        made = Matrix(c.y.slot, c.y.strides[0], pixels, 1)
    if spec is None:
        return None
    follows = (finish.epilogue, finish.slots) if finish else (None, None)
    product = low_step(spec, target, threads, a, b, made, (images, m, n, depth), *follows, before)
    product.after = 1
    whole = Pointer("work", product.slots[GEMM_LOW_SLOTS.index("work")].number)
    tile = tile_for("float", target)
    name, text = (_row_kernel if rows else patch_kernel)(tile, target)
    most = 4 * threads if threads > 1 else 1
    tasks = lines if rows else images * c.w.shape[1]
    chunks = max(1, min(most, tasks, elements // 16384))
    slots = patch_slots(correlation(c), whole, depth, pitch)
    return [Step(name, lambda: text, slots, chunks), product]


@functools.lru_cache(maxsize=16)
def _row_kernel(tile: Tile, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that writes patches as rows, a pixel a task; channels follow
    each other in images and weights."""
    name, module = f"conv_patch_rows_{tile.memory}", Module(target.attributes)
    _define_row(module, tile)
    f = kernel_function(module, name)
    slot = Slots(f, PATCH_SLOTS, PATCH_SLOTS[:2])
    pixels = f.mul(f.mul(slot["out0"], slot["out1"]), slot["out2"])
    first, last = chunk_range(f, f.mul(slot["n"], pixels))
    with f.loop(first, last) as task:
        source = f.mul(f.udiv(task, pixels), slot["source_n"])
        f.call("void", "row", [
            f.args["args"], f.gep(slot["source"], source, tile.memory),
            f.gep(slot["patches"], f.mul(task, slot["pitch"]), tile.memory),
            f.urem(task, pixels)])
    return name, module.text()


def _define_row(module: Module, tile: Tile) -> None:
    """Define row(args, src, dst, pixel): its patch, tap by tap; zeros beyond the image."""
    f = module.function("row", [("ptr noalias", "args"), ("ptr noalias", "src"),
                                ("ptr noalias", "dst"), ("i64", "pixel")], internal=True)
    a, slots = f.args, Slots(f, PATCH_SLOTS, PATCH_SLOTS[:2])
    slot = {name: slots[name] for name in PATCH_SLOTS}
    y1 = f.udiv(a["pixel"], slot["out2"])
    places = f.udiv(y1, slot["out1"]), f.urem(y1, slot["out1"]), f.urem(a["pixel"], slot["out2"])
    starts = [f.mul(y, slot[f"move{d}"]) for d, y in enumerate(places)]
    with f.loop(0, slot["taps"]) as tap:
        entry = f.gep(a["args"], f.add(f.mul(tap, 4), len(PATCH_SLOTS)), "i64")
        weight, *distance = (f.load("i64", entry, number) for number in range(4))
        at = [f.add(start, distance[d]) for d, start in enumerate(starts)]
        inside = [f.cmp("ult", at[d], slot[f"size{d}"]) for d in AXES]
        inside = f.and_(f.and_(*inside[:2]), inside[2])
        steps = [f.mul(at[d], slot[f"source_x{d}"]) for d in AXES]
        source = f.select(inside, f.add(f.add(*steps[:2]), steps[2]), 0)
        _copy(f, tile, f.gep(a["src"], source, tile.memory), f.gep(a["dst"], weight, tile.memory),
              f.select(inside, slot["channels"], 0), slot["channels"])


def _copy(f: Function, tile: Tile, src, dst, count, total) -> None:
    """`total` elements, of which the first `count` exist and the others are zeros."""
    with f.loop(0, total, tile.lanes) as at:
        value = f.masked_load(tile.memory_vector, f.gep(src, at, tile.memory),
                              f.lane_mask(tile.lanes, f.sub(count, at)))
        f.masked_store(value, f.gep(dst, at, tile.memory),
                       f.lane_mask(tile.lanes, f.sub(total, at)))
