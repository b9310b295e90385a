"""Cutting the gradient with respect to the weights: register tile, pieces, partial sums."""

from __future__ import annotations

import dataclasses
import math

from flambeau.compiler.convolution.geometry import Convolution, correlation, merged
from flambeau.compiler.convolution.gradient import (
    COLLECT_SLOTS,
    GRADIENT_SLOTS,
    CollectSpec,
    GradientSpec,
    collect_kernel,
    gradient_kernel,
)
from flambeau.compiler.convolution.plan import odd_pitch
from flambeau.compiler.nest import Pointer
from flambeau.compiler.products.packing import Tile, tile_for
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["gradient_steps"]

AXES = range(3)
_NEAREST = 30000  # bytes of both images' copies for one register tile: they stay in the L1 cache
_PIECE = 1 << 20  # bytes of both images' copies
_SMALLEST_TASK = 1e6  # operations
_TASKS = 16  # wanted, whatever the number of threads: sums must not depend on it


def gradient_steps(c: Convolution, dtype_llvm: str, target: Target, threads: int) -> list[Step]:
    """The two steps of a gradient with respect to the weights."""
    c = merged(c)
    tile = tile_for(dtype_llvm, target)
    rows, vectors = _register_tile(tile, target, c.w.shape[1], c.w.shape[0] // c.groups)
    plan = _Plan(c, dataclasses.replace(tile, vectors=vectors), rows, threads)
    spec = GradientSpec(dtype_llvm, rows, vectors, c.x.channels_last, c.y.channels_last)
    name, text = gradient_kernel(spec, target)
    collect = CollectSpec(dtype_llvm, rows, vectors, plan.dense)
    collect_name, collect_text = collect_kernel(collect, target)
    return [Step(name, lambda: text, plan.gradient_slots(), plan.chunks),
            Step(collect_name, lambda: collect_text, plan.collect_slots(), plan.collect_chunks,
                 after=1)]


def _register_tile(tile: Tile, target: Target, channels: int, lanes: int) -> tuple[int, int]:
    """(input channels, vectors of output channels) of the register tile."""
    registers = 32 if target.registers >= 32 else 16
    needed = -(-lanes // tile.lanes)
    best: tuple = (math.inf, (1, 1))
    for vectors in range(1, min(4, needed) + 1):
        most = min((registers - 1) // vectors - 1, tile.lanes, 14)
        blocks = -(-channels // most)
        rows = -(-channels // blocks)
        cycles = max(rows * vectors / 2, (rows + vectors + 1) / 2, 2.0 * vectors, 4) + 0.5
        best = min(best, (cycles * blocks * -(-needed // vectors), (rows, vectors)))
    return best[1]


class _Plan:
    """Sizes, workspace and slots of one problem."""

    def __init__(self, c: Convolution, tile: Tile, rows: int, threads: int):
        self.c, self.tile, self.rows, self.threads = c, tile, rows, threads
        self.problem = correlation(dataclasses.replace(c, kind="forward"))
        self.channels, self.lanes = self.problem.channels, self.problem.lanes
        self.panels = -(-self.lanes // tile.width)
        self.channel_blocks = -(-self.channels // rows)
        self.n, self.grid = c.y.shape[0], c.y.spatial
        self.pixels = self.n * math.prod(self.grid)
        self.taps = self.problem.phases[0].taps if self.problem.phases else ()
        order, step = True, 1
        for size, stride in zip(reversed(c.w.shape[2:]), reversed(c.w.strides[2:]), strict=True):
            order = order and (stride == step or size == 1)
            step *= size
        self.dense = order and (self.problem.channel_step == step or self.channels == 1)
        self._cut()
        self._lay_out()

    # ------------------------------------------------------------------ cutting
    def _cut(self) -> None:
        c, groups = self.c, self.c.groups
        want = max(1, min(_TASKS, int(c.flops // _SMALLEST_TASK)))
        cost: tuple = (math.inf, 0, 1, 1)
        for parts in (1, 2, 4, 8, 16):
            ranges = min(self.channel_blocks, -(-want // (parts * groups)))
            short = max(1.0, want / (parts * ranges * groups))
            extra = (38 * parts / max(1, self.pixels)
                     + 13 * ranges / (self.channels * max(1, len(self.taps))))
            cost = min(cost, ((1 + extra) * (1 + 0.5 * (short - 1)), parts, parts, ranges))
        self.parts, self.ranges = cost[2:]
        self._pieces()
        pieces = math.prod(self.blocks)
        self.parts = min(self.parts, pieces)

    def _pieces(self) -> None:
        depth = self.lanes + 1.3 * self.channels / self.ranges
        near = _NEAREST // (self.tile.itemsize * (self.tile.width + 1.4 * self.tile.lanes))
        limit = max(64, min(int(near), int(_PIECE / (self.tile.itemsize * depth)),
                            self.pixels // self.parts))
        grid0, grid1, grid2 = (max(1, size) for size in self.grid)
        self.images, self.length0, self.length2 = 1, grid0, grid2
        plane = grid0 * grid1 * grid2
        if plane <= limit:
            self.images = max(1, min(self.n, limit // plane))
        elif grid1 * grid2 <= limit:
            self.length0 = _even(grid0, max(1, limit // (grid1 * grid2)))
        else:
            self.length0 = 1
            self.length2 = _even(grid2, max(16, limit // grid1))
        self.blocks = (-(-self.n // self.images), -(-self.grid[0] // self.length0),
                       -(-self.grid[2] // self.length2))

    # ------------------------------------------------------------------ memory
    def _lay_out(self) -> None:
        tile, p = self.tile, self.problem
        lengths = (self.length0, self.grid[1], self.length2)
        self.ext = tuple(max(0, n - 1) * move + span + 1
                         for n, move, span in zip(lengths, p.move, p.span, strict=True))
        self.pitch = odd_pitch(math.prod(self.ext) * tile.lanes)
        blocks = -(-self.channel_blocks // self.ranges)
        self.image_pitch = blocks * self.pitch
        slack = tile.lanes * tile.width
        self.image_bytes = _round(tile.itemsize * (self.images * self.image_pitch + slack))
        pixels = self.images * math.prod(lengths) + tile.lanes
        self.panel_bytes = _round(tile.itemsize * pixels * self.panels * tile.width)
        table = _round(8 * self.images * self.length0 * max(1, self.grid[1]))
        self.work_stride = _round(self.image_bytes + self.panel_bytes + table) + 64
        strip = self.rows * tile.width * max(1, len(self.taps))
        sums = self.c.groups * self.panels * self.channel_blocks * strip * max(1, self.parts)
        self.collect_stride = _round(tile.itemsize * (strip + slack)) + 64
        self.sums_bytes = _round(sums * tile.itemsize)
        self.bytes = self.sums_bytes + self.threads * max(self.work_stride, self.collect_stride)
        tasks = self.c.groups * self.parts * self.ranges
        want = max(1, int(self.c.flops // _SMALLEST_TASK))
        self.chunks = max(1, min(tasks, want)) if self.threads > 1 else 1
        strips = self.c.groups * self.panels * self.channel_blocks
        self.collect_chunks = max(1, min(strips, sums // 16384, 4 * self.threads)) \
            if self.threads > 1 else 1

    # ------------------------------------------------------------------ slots
    def gradient_slots(self) -> list:
        c, p = self.c, self.problem
        values = {
            "input": c.x.slot, "gradient": c.y.slot, "sums": Pointer("work", self.bytes),
            "work": Pointer("work", self.bytes, self.sums_bytes), "work_stride": self.work_stride,
            "n": self.n, "groups": c.groups, "parts": self.parts, "ranges": self.ranges,
            "images": self.images, "blocks_n": self.blocks[0], "blocks0": self.blocks[1],
            "blocks2": self.blocks[2], "length0": self.length0, "length2": self.length2,
            "panel_count": self.panels, "lanes": self.lanes, "channels": self.channels,
            "channel_blocks": self.channel_blocks, "taps": len(self.taps), "pitch": self.pitch,
            "image_pitch": self.image_pitch, "image_bytes": self.image_bytes,
            "panel_bytes": self.panel_bytes, "input_n": c.x.strides[0], "input_c": c.x.strides[1],
            "gradient_n": c.y.strides[0], "gradient_c": c.y.strides[1]}
        for d in AXES:
            values |= {f"input_x{d}": c.x.steps[d], f"size{d}": c.x.spatial[d],
                       f"gradient_x{d}": c.y.steps[d], f"grid{d}": self.grid[d],
                       f"step{d}": p.move[d], f"low{d}": p.low[d], f"ext{d}": self.ext[d]}
        table = []
        for _, distance in self.taps:
            place = 0
            for d in AXES:
                place = place * self.ext[d] + distance[d] - p.low[d]
            table.append(place * self.tile.lanes)
        return [values[name] for name in GRADIENT_SLOTS] + table

    def collect_slots(self) -> list:
        c, p, taps = self.c, self.problem, len(self.taps)
        values = {
            "sums": Pointer("work", self.bytes), "weight": c.w.slot,
            "work": Pointer("work", self.bytes, self.sums_bytes),
            "work_stride": self.collect_stride, "groups": c.groups, "parts": self.parts,
            "panel_count": self.panels, "lanes": self.lanes, "channels": self.channels,
            "channel_blocks": self.channel_blocks, "taps": taps, "lane_step": p.lane_step,
            "channel_step": p.channel_step if self.channels > 1 else taps,
            "group_step": p.group_step,
            "row_tap": 1 if self.dense else self.rows, "row_channel": taps if self.dense else 1}
        return [values[name] for name in COLLECT_SLOTS] + [offset for offset, _ in self.taps]


def _even(total: int, most: int) -> int:
    """The length of equal parts of `total`, each at most `most`."""
    return -(-total // -(-total // most))


def _round(size: int) -> int:
    return -(-size // 64) * 64
