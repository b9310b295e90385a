"""Cutting convolutions of bfloat16 images: copies, pieces, tasks, slots."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.geometry import (
    AXES,
    Convolution,
    Correlation,
    Operand,
    correlation,
    merged,
    three,
)
from flambeau.compiler.convolution.low import BLOCK, Shape, dot_engine, shape_for
from flambeau.compiler.convolution.low_direct import (
    LOW_DIRECT_SLOTS,
    LowDirectSpec,
    low_direct_kernel,
)
from flambeau.compiler.nest import Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["Copy", "blocks_of", "is_patches", "low_direct_steps"]

_PIECE = 512 << 10  # bytes of an image's copy, which shares the second-level cache with weights
_SMALLEST_TASK = 2e7  # operations below which a task of its own costs more than it gives
_FILL, _PACK = 0.15, 0.3  # cycles to copy an element of the image, to pack one of the weights
_GATHER = 0.45  # cycles to copy one into a patch


def blocks_of(channels: int) -> int:
    """Blocks of the sum that hold so many channels."""
    return -(-max(channels, 1) // BLOCK)


def is_patches(c: Convolution) -> bool:
    """Are there so few channels that most of a block would be zeros, and may a pixel's taps be
    gathered in runs?"""
    channels = c.w.shape[1]
    if c.kind == "grad_input" or channels >= BLOCK or c.taps == 1:
        return False
    steps, step = three(c.w.strides[2:], 0), channels
    for size, stride in zip(reversed(three(c.w.shape[2:], 1)), reversed(steps), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return (three(c.dilation, 1)[2] == 1 and (channels == 1 or c.w.strides[1] == 1)
            and c.x.steps[2] == channels and _patches_pay(c))


def _patches_pay(c: Convolution) -> bool:
    """Does a pixel cost less as a patch, whose taps share blocks, than with blocks for each tap?"""
    columns, channels = -(-c.w.shape[0] // 16), c.w.shape[1]
    blocks = blocks_of(c.taps * channels)
    return blocks * columns + _GATHER * c.taps * channels < c.taps * columns + _FILL * BLOCK


class Copy:
    """The copy of pieces of one image: `lengths` positions of the result's grid, with what the taps
    reach around them.

    Args:
        whole: which axes a piece covers from end to end: what pads a line at its end pads the next
            one at its start.
    """

    def __init__(self, problem: Correlation, taps: Sequence[tuple[int, int, int]],
                 lengths: Sequence[int], whole: Sequence[bool], channels: int, images: int,
                 patches: bool = False):
        p = problem
        self.problem, self.images = p, images
        far = [tuple(t[d] - p.low[d] for d in AXES) for t in taps]
        self.reach = tuple(max((t[d] // p.move[d] for t in far), default=0) for d in AXES)
        self.residues = sorted({tuple(t[d] % p.move[d] for d in AXES) for t in far}) or [(0, 0, 0)]
        self.line = tuple(max(1, lengths[d]) + self.reach[d] - (
            self._shared(d, max(1, lengths[d])) if whole[d] else 0) for d in AXES)
        blocks = blocks_of(channels)
        spread = blocks % 4 == 0 and not patches  # pixels over cache sets
        self.pitch = BLOCK * (blocks + spread)
        last = (self.reach[0] * self.line[1] + self.reach[1]) * self.line[2] + self.reach[2]
        self.slack = last + BLOCK
        self.pixels = images * math.prod(self.line)
        self.plane_step = (self.pixels + self.slack) * self.pitch
        self.bytes = 2 * len(self.residues) * self.plane_step
        places = [tuple(t[d] // p.move[d] for d in AXES) for t in far]
        planes = [self.residues.index(tuple(t[d] % p.move[d] for d in AXES)) for t in far]
        self.distances = [(plane, (at[0] * self.line[1] + at[1]) * self.line[2] + at[2])
                          for plane, at in zip(planes, places, strict=True)]

    def lie_as(self, other: Copy) -> None:
        """Positions as those of `other`; what lies between this image's own are zeros."""
        self.line, self.pixels, self.slack = other.line, other.pixels, BLOCK
        self.plane_step = (self.pixels + self.slack) * self.pitch
        self.bytes = 2 * self.plane_step

    def _shared(self, d: int, length: int) -> int:
        """Positions at the end of a line that are zeros, as many as at the start of the next."""
        p, found = self.problem, self.reach[d]
        size = p.source.spatial[d]
        for residue in {r[d] for r in self.residues}:
            head = max(0, -(-(-p.low[d] - residue) // p.move[d]))
            inside = max(0, -(-(size - p.low[d] - residue) // p.move[d]))
            found = min(found, head, max(0, length + self.reach[d] - inside))
        return found

    def slots(self, prefix: str, image: Operand, channels: int) -> dict:
        p = self.problem
        values = {"data": image.slot, "n": image.strides[0], "channels": channels,
                  "pitch": self.pitch, "planes": len(self.residues),
                  "plane_step": self.plane_step, "slack": self.slack}
        for d in AXES:
            values |= {f"x{d}": image.steps[d], f"size{d}": image.spatial[d],
                       f"move{d}": p.move[d], f"low{d}": p.low[d], f"line{d}": self.line[d]}
        return {prefix + name: value for name, value in values.items()}


def patch_slots(c: Convolution, prefix: str) -> dict:
    """The slots `PATCH` of an image."""
    kernel, dilation = three(c.w.shape[2:], 1), three(c.dilation, 1)
    return {f"{prefix}kernel{d}": kernel[d] for d in AXES} | {
        f"{prefix}dilation{d}": dilation[d] for d in (0, 1)}


def low_direct_steps(c: Convolution, target: Target, threads: int, finish: Finish | None,
                     stored: bool) -> list[Step]:
    """The step of a forward convolution or of a gradient with respect to the input, whose images
    and weights are bfloat16 and whose result is float32; channels are innermost in all images."""
    c = merged(c)
    plan = _DirectPlan(c, target, threads)
    problem = plan.problem
    order = "along" if problem.channel_step == 1 or plan.depth == 1 else "across"
    spec = LowDirectSpec(plan.shape, order, plan.patches, stored, c.bias is not None)
    name, text = low_direct_kernel(spec, target, finish)
    slots = plan.slots(stored, finish.slots if finish else [])
    return [Step(name, lambda: text, slots, plan.chunks)]


class _DirectPlan:
    """Sizes, workspace and slots of one problem."""

    def __init__(self, c: Convolution, target: Target, threads: int):
        self.c, self.threads, self.problem = c, threads, correlation(c)
        self.patches = is_patches(c)
        p = self.problem
        self.taps = [(0, (0, 0, 0))] if self.patches else [
            tap for phase in p.phases for tap in phase.taps]
        if self.patches:
            self.problem = p = dataclasses.replace(p, channel_step=1)
        self.depth = p.channels * (c.taps if self.patches else 1)
        self.shape: Shape = shape_for(dot_engine(target), p.lanes)
        self.panels = -(-p.lanes // self.shape.width)
        self.n = p.source.shape[0]
        self.tap_units = 16 * blocks_of(self.depth) * self.shape.width
        self.panel_units = max(1, len(self.taps)) * self.tap_units
        self._cut()
        self._lay_out()

    def _copy(self, images: int, length0: int, length2: int) -> Copy:
        grid = self.problem.grid
        whole = [length0 >= grid[0], True, length2 >= grid[2]]
        problem, taps = self.problem, [tap[1] for tap in self.taps]
        if self.patches:
            problem, taps = dataclasses.replace(problem, low=(0, 0, 0)), [(0, 0, 0)]
        return Copy(problem, taps, (length0, grid[1], length2), whole, self.depth, images,
                    self.patches)

    def _cut(self) -> None:
        grid, c = self.problem.grid, self.c
        want = 2 * self.threads if self.threads > 1 else 1
        want = max(1, min(want, int(c.flops // _SMALLEST_TASK)))
        image = self.n * math.prod(grid) * self.depth * _FILL
        weights = self.panels * self.panel_units * 2 * _PACK
        cost: tuple = (math.inf, 1)
        for columns in range(1, min(want, self.panels) + 1):
            uneven = -(-self.panels // columns) * columns / self.panels
            extra = (image * columns + weights * -(-want // columns)) * uneven
            cost = min(cost, (extra, columns))
        self.tasks_n = cost[1]
        self.tasks_p = -(-want // self.tasks_n)
        length0, length2, images = max(1, grid[0]), max(1, grid[2]), max(1, self.n)
        each = max(1, min(images, -(-images // self.tasks_p)))
        while each > 1 and self._copy(each, length0, length2).bytes > _PIECE:
            each = -(-each // 2)
        images = each
        blocks = -(-self.n // images)
        while length0 > 4 and (self._copy(images, length0, length2).bytes > _PIECE
                               or blocks * -(-grid[0] // length0) < self.tasks_p):
            length0 = -(-length0 // 2)
        if length0 <= 4:
            while length2 > 64 and (
                    self._copy(images, length0, length2).bytes > _PIECE
                    or blocks * -(-grid[0] // length0) * -(-grid[2] // length2) < self.tasks_p):
                length2 = -(-length2 // 64) * 32
        self.images, self.length0, self.length2 = images, length0, length2
        self.blocks = (blocks, -(-grid[0] // length0), -(-grid[2] // length2))
        self.tasks_p = max(1, min(self.tasks_p, math.prod(self.blocks)))
        self.chunks = self.tasks_p * self.tasks_n
        self.copy = self._copy(images, length0, length2)

    def _lay_out(self) -> None:
        """A thread's workspace: sums of a tile, packed weights, the copy."""
        sums = 4 * (self.shape.height + 2) * self.shape.pitch
        panels = -(-self.panels // self.tasks_n)
        self.packed_at = _round(sums)
        self.copy_at = self.packed_at + _round(4 * panels * self.panel_units)
        self.stride = self.copy_at + _round(self.copy.bytes + 4096) + 64

    def slots(self, stored: bool, more: list) -> list:
        c, p, copy = self.c, self.problem, self.copy
        low = copy.slots("s_", p.source, p.channels)
        low |= patch_slots(c, "s_")
        for d in AXES:
            low[f"s_low{d}"] = p.low[d]
        start = len(LOW_DIRECT_SLOTS) + len(more)
        taps = len(self.taps)
        phases_at = start
        weights_at = phases_at + 6 * len(p.phases)
        values = low | {
            "weights": c.w.slot, "result": p.result.slot if stored else 0,
            "bias": c.bias.slot if c.bias else 0, "work": Pointer(
                "work", self.stride * self.threads), "work_stride": self.stride,
            "n": self.n, "images": self.images, "blocks_n": self.blocks[0],
            "blocks0": self.blocks[1], "blocks2": self.blocks[2], "length0": self.length0,
            "length2": self.length2, "tasks_p": self.tasks_p, "tasks_n": self.tasks_n,
            "panels": self.panels, "lanes": p.lanes, "depth": self.depth,
            "blocks": blocks_of(self.depth), "lane_step": p.lane_step,
            "channel_step": p.channel_step if self.depth > 1 else 1,
            "bias_step": c.bias.strides[0] if c.bias else 0, "tap_units": self.tap_units,
            "panel_units": self.panel_units, "packed_at": self.packed_at,
            "copy_at": self.copy_at, "result_n": p.result.strides[0], "phases": len(p.phases),
            "phases_at": phases_at, "weights_at": weights_at, "offsets_at": weights_at + taps,
            "residues_at": weights_at + 2 * taps}
        for d in AXES:
            values |= {f"result_x{d}": p.result.steps[d] * p.spread[d],
                       f"size{d}": p.result.spatial[d]}
        return [values[name] for name in LOW_DIRECT_SLOTS] + more + self._tables()

    def _tables(self) -> list[int]:
        p, copy, table, first = self.problem, self.copy, [], 0
        for phase in p.phases:
            offset = sum(at * step for at, step in zip(phase.first, p.result.steps, strict=True))
            count = 1 if self.patches else len(phase.taps)
            table += [offset, *phase.grid, first, count]
            first += count
        table += [weight for weight, _ in self.taps]
        table += [plane * copy.plane_step + pixels * copy.pitch
                  for plane, pixels in copy.distances]
        return table + [residue for three_ in copy.residues for residue in three_]


def _round(size: int) -> int:
    return -(-size // 64) * 64
