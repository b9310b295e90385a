"""Depthwise convolutions, and grouped ones with few channels in each group.

There is nothing to block for: each input element meets few weights. So kernels read the image where
it lies, keep a tile of results in registers, and the taps are unrolled (`window.py`). Two ways
to fill vectors, by how the images lie in memory:

    channels   channels_last: lanes are neighbouring channels (`channel_lanes.py`)
    columns    row-major: lanes are neighbouring pixels of a row (`column_lanes.py`)

The gradient of the input is the forward kernel with other reads. The gradient of the weight keeps
its sums in registers and adds them up in an order that depends on the sizes alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from flambeau.compiler.convolution import channel_lanes, column_lanes
from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.geometry import Convolution, Operand
from flambeau.compiler.convolution.window import (
    GROUPED_SLOTS,
    Axis,
    Frame,
    GroupedSpec,
    grouped_tile,
    kernel_name,
    tile_height,
)
from flambeau.compiler.emitter import Module
from flambeau.compiler.nest import Pointer
from flambeau.compiler.products.packing import Tile, tile_for
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["grouped_kernel", "grouped_steps"]


@functools.lru_cache(maxsize=64)
def grouped_kernel(spec: GroupedSpec, target: Target, finish: Finish | None = None
                   ) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `GROUPED_SLOTS`, then `finish`'s."""
    tile = tile_for(spec.dtype_llvm, target)
    module = Module(target.attributes)
    rows, columns = grouped_tile(spec, target)
    frame = Frame(module, tile, spec, rows, columns, target, finish)
    if finish:
        finish.epilogue.define(module)
    family = channel_lanes if spec.lanes == "channels" else column_lanes
    if spec.weights:
        family.emit_weights(frame)
    else:
        family.emit(frame)
    return kernel_name(spec, finish), module.text()


# ---------------------------------------------------------------------- planning
_LARGEST_GROUP = 8  # channels of a group
_LARGEST_KERNEL = 7
_LARGEST_TILE = 700  # multiply-adds that are written out for one tile
_SMALLEST_CHUNK = 1e5  # multiply-adds below which a second thread costs more than it gives
_LARGEST_WORKSPACE = 1 << 22  # bytes a thread


def grouped_steps(c: Convolution, dtype_llvm: str, target: Target, threads: int,
                  finish: Finish | None = None) -> list[Step] | None:
    """The steps of a convolution or gradient; None where these kernels do not apply."""
    if len(c.stride) > 2 or dtype_llvm not in ("float", "double") or c.groups == 1:
        return None
    if max(c.w.shape[2:]) > _LARGEST_KERNEL:
        return None
    backward = c.kind == "grad_input"
    source, result = (c.y, c.x) if backward else (c.x, c.y)
    axes = [Axis(k, s, d, backward, p % s if backward else 0) for k, s, d, p in zip(
        c.w.shape[2:], c.stride, c.dilation, c.padding, strict=True)]
    if len(axes) == 1:
        axes.insert(0, Axis(1, 1, 1, backward))
    per_group = c.w.shape[1], c.w.shape[0] // c.groups
    inner, outer = per_group[::-1] if backward else per_group
    tile = tile_for(dtype_llvm, target)
    lanes = _lanes(source, result, tile, axes, inner, outer)
    if lanes is None or finish and finish.by_pixel != (lanes == "channels"):
        return None
    spec = GroupedSpec(dtype_llvm, lanes, c.kind == "grad_weight", *axes, inner, outer,
                       c.bias is not None, lanes == "channels" and result.shape[1] < tile.lanes)
    if lanes == "columns":
        height = tile_height(math.prod(result.shape[2:-1]), axes[0])
        spec = dataclasses.replace(spec, height=height)
    positions = grouped_tile(spec, target)
    values = _numbers(spec, c, source, result, positions)
    nchunks, size = _cut(spec, tile, values, threads, *positions)
    if size > _LARGEST_WORKSPACE:
        return None
    values |= {"source": source.slot, "result": result.slot, "weight": c.w.slot,
               "bias": c.bias.slot if c.bias else 0,
               "bias_stride": c.bias.strides[0] if c.bias else 0,
               "work": Pointer("work", size * threads), "work_stride": size}
    text = functools.partial(_text, spec, target, finish)
    slots = [values[name] for name in GROUPED_SLOTS] + (finish.slots if finish else [])
    return [Step(kernel_name(spec, finish), text, slots, nchunks)]


def _text(spec: GroupedSpec, target: Target, finish: Finish | None) -> str:
    return grouped_kernel(spec, target, finish)[1]


def _lanes(source: Operand, result: Operand, tile: Tile, axes: list[Axis], inner: int, outer: int
           ) -> str | None:
    """What vectors hold: "channels", "columns", or None."""
    taps = axes[0].kernel * axes[1].kernel
    if max(inner, outer) > _LARGEST_GROUP:  # products as large as these are better blocked
        return None
    if max(axis.stride for axis in axes) > 3 or taps * inner > _LARGEST_TILE // 2:
        return None
    if _neighbours(source, 1) and _neighbours(result, 1):
        fits = channel_lanes.supported(tile.lanes, tile.lanes >= 8 and tile.masked, inner,
                                            outer, result.shape[1])
        return "channels" if fits else None
    fits = column_lanes.supported(tile.masked, axes[1].stride)
    return "columns" if fits and _neighbours(source, -1) and _neighbours(result, -1) else None


def _neighbours(tensor: Operand, axis: int) -> bool:
    """Do neighbours along `axis` lie next to each other? Those of a size of 1 have none."""
    return tensor.strides[axis] == 1 or tensor.shape[axis] == 1


def _numbers(spec: GroupedSpec, c: Convolution, source: Operand, result: Operand,
             positions: tuple[int, int]) -> dict:
    """The slots that follow from sizes and strides."""
    w, padding = c.w, c.padding
    backward = spec.rows.backward
    per_group = w.shape[0] // c.groups
    row, channel = w.strides[:2]
    values = {
        "n": source.shape[0], "channels": result.shape[1], "source_channels": source.shape[1],
        "weight_group": per_group * row, "weight_result": channel if backward else row,
        "weight_source": row if backward else channel}
    for name, tensor in (("source", source), ("result", result)):
        steps = tensor.strides if len(tensor.strides) == 4 else (
            *tensor.strides[:2], 0, tensor.strides[2])
        values |= {f"{name}_{axis}": step for axis, step in zip("ncyx", steps, strict=True)}
    flat = len(padding) == 1
    for name, sizes, fill in (("in", source.shape[2:], 1), ("out", result.shape[2:], 1),
                              ("weight", w.strides[2:], 0), ("pad", padding, 0)):
        sizes = (fill, *sizes) if flat else sizes
        values |= {f"{name}_{axis}": size for axis, size in zip("yx", sizes, strict=True)}
    for axis, window, count in zip("yx", (spec.rows, spec.columns), positions, strict=True):
        low = window.pattern(count).low
        values[f"base_{axis}"] = window.base(values.pop(f"pad_{axis}"), low)
    return values


def _cut(spec: GroupedSpec, tile: Tile, values: dict, threads: int, rows: int, columns: int
         ) -> tuple[int, int]:
    """Share the work out: (chunks, bytes of workspace a thread), as the kernels lay it out."""
    taps = spec.rows.kernel * spec.columns.kernel
    pixels = values["n"] * values["out_y"] * values["out_x"]
    work = pixels * values["channels"] * taps * spec.inner
    want = max(1, min(4 * threads if threads > 1 else 1, int(work // _SMALLEST_CHUNK)))
    lanes, channels = tile.lanes, values["channels"]
    blocks = max(1, channels // lanes)  # the last one takes what is left
    segments = bands = 1
    if spec.lanes == "columns":
        count = column_lanes.outputs(spec.outer, spec.weights)
        tasks = channels // count * (spec.inner if spec.weights else values["n"])
        items = _row_items(values, lanes) + 4 * lanes
        items += count * (taps * lanes if spec.weights else taps * spec.inner + 1)
    else:
        if spec.weights:
            segments = min(blocks, threads)  # fewer, wider: lines of memory stay whole
        else:
            bands = max(1, min(-(-want // values["n"]), -(-values["out_y"] // (4 * rows))))
            segments = max(1, min(blocks, -(-want // (values["n"] * bands))))
        per_segment = -(-blocks // segments)
        segments = -(-blocks // per_segment)
        tasks = segments * (1 if spec.weights else values["n"] * bands)
        items = 2 * channel_lanes.pixel_items(values, lanes)
        items += (per_segment + 1) * lanes * (taps * spec.inner + 1) * (2 if spec.weights else 1)
        values["segment"] = per_segment * lanes
    band = -(-values["out_y"] // bands)
    band = -(-band // rows) * rows
    values |= {"bands": -(-values["out_y"] // band), "band": band, "segments": segments}
    values.setdefault("segment", 0)
    return max(1, min(want, tasks)), -(-items * tile.itemsize // 64) * 64 + 64


def _row_items(values: dict, lanes: int) -> int:
    """Elements of a row of zeros."""
    return -(-(max(values["in_x"], values["out_x"]) + lanes) // lanes) * lanes
