"""Cutting a direct convolution: register tile, pieces of the image, tasks; and its two steps."""

from __future__ import annotations

import dataclasses
import math

from flambeau.compiler.convolution.direct import (
    DIRECT_SLOTS,
    MOST_TAPS,
    PREPARE_SLOTS,
    DirectSpec,
    PrepareSpec,
    direct_kernel,
    image_layout,
    prepare_kernel,
)
from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.geometry import Convolution, Correlation, correlation, merged
from flambeau.compiler.nest import Pointer
from flambeau.compiler.products.packing import Tile, tile_for
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["direct_steps", "odd_pitch", "register_tile", "weight_order"]

AXES = range(3)
_PIECE = 256 << 10  # bytes of an image's copy that share the second-level cache with weights
_SMALLEST_TASK = 1e6  # operations below which a task of its own costs more than it gives
_TASKS = 6  # wanted for each thread, so that one that is held up does not hold up the others


def direct_steps(c: Convolution, dtype_llvm: str, target: Target, threads: int,
                 finish: Finish | None = None) -> list[Step]:
    """The steps of a forward convolution or of a gradient with respect to the input; with `finish`
    one whose stride is 1."""
    c = merged(c)
    problem = correlation(c)
    tile = tile_for(dtype_llvm, target)
    lines, rows, vectors = register_tile(
        tile, target, problem.lanes, problem.source.shape[0] * problem.grid[0] * problem.grid[1],
        problem.grid[2])
    plan = _Plan(c, problem, dataclasses.replace(tile, vectors=vectors), lines, rows, threads)
    bias = c.bias is not None
    order = weight_order(c, problem, tile)
    prepare = PrepareSpec(dtype_llvm, order, vectors, plan.layout.block, bias)
    name, text = prepare_kernel(prepare, target)
    steps = [Step(name, lambda: text, plan.prepare_slots(), plan.prepare_chunks(order))]
    spec = DirectSpec(dtype_llvm, rows, lines, vectors, problem.move[2],
                      problem.source.channels_last, problem.result.channels_last, bias)
    main_name, main_text = direct_kernel(spec, target, finish)
    slots = plan.direct_slots() + (finish.slots if finish else [])
    steps.append(Step(main_name, lambda: main_text, slots, plan.chunks, after=1))
    return steps


def register_tile(tile: Tile, target: Target, lanes: int, lines: int, width: int
                  ) -> tuple[int, int, int]:
    """(lines, pixels of each, vectors) of the register tile for `lines` lines of `width` pixels and
    `lanes` channels of the result: the least time by a rough count of what a step of K takes."""
    registers = 32 if target.registers >= 32 else 16
    needed = -(-lanes // tile.lanes)
    best: tuple = (math.inf, (1, 1, 1))
    for vectors in range(1, min(3, needed) + 1):
        panels = -(-needed // vectors)
        most = min((registers - 1) // vectors - 1, 14)
        for group in range(1, min(4, max(1, lines)) + 1):
            if group > most:
                break
            tiles = -(-width // (most // group))
            rows = -(-width // tiles)
            height = group * rows
            cycles = max(height * vectors / 2, (height + vectors + 1) / 2, 2.0 * vectors, 4) + 0.5
            total = cycles * panels * tiles * -(-lines // group)
            best = min(best, (total, (group, rows, vectors)))
    return best[1]


def odd_pitch(items: int) -> int:
    """At least `items`: an odd number of cache lines, so that planes do not share cache sets."""
    return (-(-items // 16) | 1) * 16


def weight_order(c: Convolution, problem: Correlation, tile: Tile) -> str:
    """What `PrepareSpec.order` suits the weights best."""
    dense, step = True, 1
    for size, stride in zip(reversed(c.w.shape[2:]), reversed(c.w.strides[2:]), strict=True):
        dense = dense and (stride == step or size == 1)
        step *= size
    if dense and c.kind == "forward" and (problem.channel_step == step or problem.channels == 1):
        return "all"
    if problem.lane_step == 1:
        return "across"
    if dense and tile.masked and 1 < step <= MOST_TAPS:
        return "taps"
    return "along" if problem.channel_step == 1 else "any"


class _Plan:
    """Sizes, workspace and slots of one problem."""

    def __init__(self, c: Convolution, problem: Correlation, tile: Tile, lines: int, rows: int,
                 threads: int):
        self.c, self.problem, self.tile = c, problem, tile
        self.lines, self.rows, self.threads = lines, rows, threads
        self.layout = image_layout(tile, problem.source.channels_last)
        self.panels = -(-problem.lanes // tile.width)
        self.n = problem.source.shape[0]
        self.taps = [tap for phase in problem.phases for tap in phase.taps]
        self.depth = len(self.taps) * problem.channels
        self._cut()
        self._lay_out()

    # ------------------------------------------------------------------ cutting
    def _ext(self, length0: int, length2: int) -> tuple[int, ...]:
        p = self.problem
        lengths = (length0, p.grid[1], length2)
        return tuple(max(0, n - 1) * move + span + 1
                     for n, move, span in zip(lengths, p.move, p.span, strict=True))

    def _image_items(self, length0: int, length2: int) -> int:
        pitch = odd_pitch(math.prod(self._ext(length0, length2)) * self.layout.width)
        return -(-self.problem.channels // self.layout.block) * pitch

    def _cut(self) -> None:
        grid0, _, grid2 = self.problem.grid
        limit = _PIECE // self.tile.itemsize
        length0, length2, images = max(1, grid0), max(1, grid2), 1
        want = max(1, min(_TASKS * self.threads if self.threads > 1 else 1,
                          int(self.c.flops // _SMALLEST_TASK)))
        while length0 > self.lines and self._image_items(length0, length2) > limit:
            length0 = max(self.lines, -(-length0 // 2))
        while length2 > 8 * self.rows and self._image_items(length0, length2) > limit:
            length2 = -(-length2 // (2 * self.rows)) * self.rows
        weights = self.depth * self.panels * self.tile.width * self.tile.itemsize
        self.splits = 1
        if weights > 4 * _PIECE:  # each thread keeps to its own panels
            self.splits = min(self.panels, want)
        while length0 == max(1, grid0) and images < self.n and (
                2 * images * self._image_items(length0, length2) <= limit
                and -(-self.n // (2 * images)) * self.splits * self.c.groups >= want):
            images *= 2
        self.images, self.length0, self.length2 = images, length0, length2
        while length0 > 2 * self.lines and self.pieces() * self.splits < want:
            length0 = max(self.lines, -(-length0 // 2))
            self.length0 = -(-length0 // self.lines) * self.lines
        if self.pieces() * self.splits < want:
            self.splits = min(self.panels, -(-want // max(1, self.pieces())))
        self.chunks = max(1, min(want, self.pieces() * self.splits))

    def pieces(self) -> int:
        grid0, _, grid2 = self.problem.grid
        self.blocks = (-(-self.n // self.images), -(-grid0 // self.length0),
                       -(-grid2 // self.length2))
        return self.c.groups * math.prod(self.blocks)

    # ------------------------------------------------------------------ memory
    def _lay_out(self) -> None:
        """The workspace: table of offsets, bias, weights, then a piece of the image a thread."""
        tile, count = self.tile, self.c.groups * self.panels * self.tile.width
        self.ext = self._ext(self.length0, self.length2)
        self.pitch = odd_pitch(math.prod(self.ext) * self.layout.width)
        self.image_pitch = -(-self.problem.channels // self.layout.block) * self.pitch
        slack = (self.rows * self.problem.move[2] + tile.lanes) * self.layout.width + tile.lanes
        sizes = (8 * self.depth, count * tile.itemsize, count * self.depth * tile.itemsize)
        self.at = [0]
        for size in sizes:
            self.at.append(self.at[-1] + (-(-size // 64) * 64))
        stride = (self.images * self.image_pitch + slack) * tile.itemsize
        self.work_stride = -(-stride // 4096) * 4096 + 64
        self.bytes = self.at[-1] + self.work_stride * self.threads

    def _work(self, part: int) -> Pointer:
        return Pointer("work", self.bytes, self.at[part])

    # ------------------------------------------------------------------ slots
    def prepare_chunks(self, order: str) -> int:
        pieces = self.c.groups * self.panels * (
            1 if order in ("all", "taps") else max(1, len(self.taps)))
        size = self.depth * self.panels * self.tile.width * self.c.groups
        return max(1, min(pieces, size // 16384, 4 * self.threads if self.threads > 1 else 1))

    def prepare_slots(self) -> list:
        p, c = self.problem, self.c
        values = {
            "weights": c.w.slot, "panels": self._work(2), "offsets": self._work(0),
            "bias": c.bias.slot if c.bias else 0, "packed_bias": self._work(1),
            "groups": c.groups, "panel_count": self.panels, "lanes": p.lanes,
            "channels": p.channels, "taps": len(self.taps), "pitch": self.pitch,
            "lane_step": p.lane_step, "channel_step": p.channel_step, "group_step": p.group_step,
            "bias_step": c.bias.strides[0] if c.bias else 0}
        table, start = [], 0
        for phase in p.phases:
            for number, (weight, distance) in enumerate(phase.taps):
                place = 0
                for d in AXES:
                    place = place * self.ext[d] + distance[d] - p.low[d]
                table += [weight, place * self.layout.width, start + number, len(phase.taps)]
            start += len(phase.taps) * p.channels
        return [values[name] for name in PREPARE_SLOTS] + table

    def direct_slots(self) -> list:
        p = self.problem
        values = {
            "source": p.source.slot, "result": p.result.slot, "panels": self._work(2),
            "offsets": self._work(0), "bias": self._work(1), "work": self._work(3),
            "work_stride": self.work_stride, "n": self.n, "groups": self.c.groups,
            "images": self.images, "blocks_n": self.blocks[0], "blocks0": self.blocks[1],
            "blocks2": self.blocks[2], "length0": self.length0, "length2": self.length2,
            "splits": self.splits, "panel_count": self.panels, "lanes": p.lanes,
            "channels": p.channels, "depth": self.depth, "phases": len(p.phases),
            "pitch": self.pitch, "image_pitch": self.image_pitch,
            "source_n": p.source.strides[0], "source_c": p.source.strides[1],
            "result_n": p.result.strides[0], "result_c": p.result.strides[1]}
        for d in AXES:
            values |= {f"source_x{d}": p.source.steps[d], f"size{d}": p.source.spatial[d],
                       f"result_x{d}": p.result.steps[d] * p.spread[d], f"step{d}": p.move[d],
                       f"low{d}": p.low[d], f"ext{d}": self.ext[d]}
        table, first = [], 0
        for phase in p.phases:
            count = len(phase.taps) * p.channels
            offset = sum(at * step for at, step in zip(phase.first, p.result.steps, strict=True))
            table += [offset, *phase.grid, first, count]
            first += count
        return [values[name] for name in DIRECT_SLOTS] + table
