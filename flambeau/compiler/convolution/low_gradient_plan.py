"""Cutting gradients with respect to the weights of convolutions of bfloat16 images."""

from __future__ import annotations

import dataclasses
import math

from flambeau.compiler.convolution.geometry import AXES, Convolution, correlation, merged
from flambeau.compiler.convolution.low import BLOCK
from flambeau.compiler.convolution.low_gradient import (
    LOW_COLLECT_SLOTS,
    LOW_GRADIENT_SLOTS,
    TILE,
    LowGradientSpec,
    low_collect_kernel,
    low_gradient_kernel,
)
from flambeau.compiler.convolution.low_plan import Copy, is_patches, patch_slots
from flambeau.compiler.nest import Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["low_gradient_steps"]

_PIXELS = 1024  # of a piece: with a block of channels and one of lanes they stay in the caches
_SMALLEST_TASK = 2e7  # operations
_FEW_SUMS = 1 << 18  # of which several parts may be kept


def low_gradient_steps(c: Convolution, target: Target, threads: int) -> list[Step]:
    """The two steps of a gradient with respect to the weights, float32; both images are bfloat16,
    channels innermost."""
    c = merged(c)
    plan = _GradientPlan(c, threads)
    name, text = low_gradient_kernel(LowGradientSpec(plan.patches), target)
    collect, collect_text = low_collect_kernel(plan.channel_step == 1, target)
    return [Step(name, lambda: text, plan.gradient_slots(), plan.chunks),
            Step(collect, lambda: collect_text, plan.collect_slots(), plan.collect_chunks,
                 after=1)]


class _GradientPlan:
    """Sizes, workspace and slots of one problem."""

    def __init__(self, c: Convolution, threads: int):
        self.c, self.threads = c, threads
        self.problem = p = correlation(dataclasses.replace(c, kind="forward"))
        self.patches = is_patches(c)
        phase_taps = p.phases[0].taps if p.phases else ()
        self.taps = [(0, (0, 0, 0))] if self.patches else list(phase_taps)
        self.channels = p.channels * (c.taps if self.patches else 1)
        self.channel_step = 1 if self.patches or self.channels == 1 else p.channel_step
        self.lanes, self.n, self.grid = p.lanes, c.y.shape[0], c.y.spatial
        self.blocks_c, self.blocks_l = -(-self.channels // TILE), -(-self.lanes // TILE)
        self._cut()
        self._lay_out()

    def _copies(self, images: int, length0: int, length2: int) -> tuple[Copy, Copy]:
        lengths = (length0, self.grid[1], length2)
        whole = [length0 >= self.grid[0], True, length2 >= self.grid[2]]
        problem, taps = self.problem, [tap[1] for tap in self.taps]
        if self.patches:
            problem, taps = dataclasses.replace(problem, low=(0, 0, 0)), [(0, 0, 0)]
        image = Copy(problem, taps, lengths, whole, self.channels, images, self.patches)
        plain = dataclasses.replace(problem, source=self.c.y, low=(0, 0, 0), move=(1, 1, 1))
        gradient = Copy(plain, [(0, 0, 0)], lengths, whole, self.lanes, images)
        gradient.lie_as(image)
        return image, gradient

    def _cut(self) -> None:
        grid0, grid1, grid2 = (max(1, size) for size in self.grid)
        plane = grid0 * grid1 * grid2
        images, length0, length2 = 1, grid0, grid2
        if plane <= _PIXELS:
            images = max(1, min(self.n, _PIXELS // plane))
        elif grid1 * grid2 <= _PIXELS:
            length0 = _even(grid0, max(1, _PIXELS // (grid1 * grid2)))
        else:
            length0, length2 = 1, _even(grid2, max(64, _PIXELS // grid1))
        self.images, self.length0, self.length2 = images, length0, length2
        self.blocks = (-(-self.n // images), -(-self.grid[0] // length0),
                       -(-self.grid[2] // length2))
        pieces = math.prod(self.blocks)
        sums = self.blocks_c * self.blocks_l * TILE * TILE * max(1, len(self.taps))
        few = sums <= _FEW_SUMS and self.c.flops >= 8 * _SMALLEST_TASK
        self.parts = max(1, min(pieces, 4 if few else 1))
        want = 2 * self.threads if self.threads > 1 else 1
        want = -(-max(1, min(want, int(self.c.flops // _SMALLEST_TASK))) // self.parts)
        best: tuple = (math.inf, 1, 1)
        for ranges_c in range(1, min(want, self.blocks_c) + 1):
            ranges_l = min(self.blocks_l, -(-want // ranges_c))
            uneven = (-(-self.blocks_c // ranges_c) * ranges_c / self.blocks_c
                      * -(-self.blocks_l // ranges_l) * ranges_l / self.blocks_l)
            short = max(1.0, want / (ranges_c * ranges_l))
            work = 2.0 * self.blocks_c * ranges_l + self.blocks_l * ranges_c
            cost = (work + 9 * self.blocks_c * self.blocks_l) * uneven * short
            best = min(best, (cost, ranges_c, ranges_l))
        self.ranges_c, self.ranges_l = best[1:]
        self.chunks = self.parts * self.ranges_c * self.ranges_l if self.threads > 1 else 1
        self.image, self.gradient = self._copies(images, length0, length2)

    def _lay_out(self) -> None:
        """The workspace: all sums; for each thread the image's rows, the gradient's pairs, and a
        copy of either."""
        image, taps = self.image, max(1, len(self.taps))
        self.part_step = self.blocks_c * self.blocks_l * taps * TILE * TILE
        self.sums_bytes = 4 * self.part_step * self.parts
        self.pixels = -(-image.pixels // BLOCK) * BLOCK
        self.plane_row = -(-(image.pixels + image.slack) // BLOCK) * BLOCK
        planes = len(image.residues)
        self.row = planes * self.plane_row
        self.row += BLOCK * (2 if self.row // BLOCK % 2 else 1)  # an odd number of cache lines
        channels = TILE * -(-self.blocks_c // self.ranges_c)
        lanes = TILE * -(-self.blocks_l // self.ranges_l)
        self.rows_at = 0
        self.pairs_at = _round(2 * self.row * channels + 4096)
        self.copy_at = self.pairs_at + _round(2 * self.pixels * lanes + 4096)
        copy = max(image.bytes + 2 * BLOCK * image.pitch * planes,
                   self.gradient.bytes + 2 * BLOCK * self.gradient.pitch)
        self.stride = self.copy_at + _round(copy + 4096) + 64
        self.bytes = self.sums_bytes + self.stride * self.threads
        self.collect_chunks = 1
        if self.threads > 1:
            self.collect_chunks = max(1, min(self.blocks_c * self.blocks_l, 4 * self.threads,
                                             self.part_step * self.parts // 16384))

    def gradient_slots(self) -> list:
        c, p, taps = self.c, self.problem, len(self.taps)
        values = self.image.slots("s_", c.x, p.channels) | patch_slots(c, "s_")
        values |= {f"s_low{d}": p.low[d] for d in AXES}
        values |= self.gradient.slots("g_", c.y, self.lanes)
        values |= {
            "sums": Pointer("work", self.bytes), "work": Pointer("work", self.bytes,
                                                                 self.sums_bytes),
            "work_stride": self.stride, "n": self.n, "images": self.images,
            "blocks_n": self.blocks[0], "blocks0": self.blocks[1], "blocks2": self.blocks[2],
            "length0": self.length0, "length2": self.length2, "parts": self.parts,
            "ranges_c": self.ranges_c, "ranges_l": self.ranges_l, "blocks_c": self.blocks_c,
            "blocks_l": self.blocks_l, "taps": taps, "pixels": self.pixels, "row": self.row,
            "rows_at": self.rows_at, "pairs_at": self.pairs_at, "copy_at": self.copy_at,
            "plane_row": self.plane_row, "offsets_at": len(LOW_GRADIENT_SLOTS),
            "residues_at": len(LOW_GRADIENT_SLOTS) + taps}
        return [values[name] for name in LOW_GRADIENT_SLOTS] + [
            plane * self.plane_row + pixels for plane, pixels in self.image.distances] + [
            residue for three_ in self.image.residues for residue in three_]

    def collect_slots(self) -> list:
        p = self.problem
        values = {
            "sums": Pointer("work", self.bytes), "weight": self.c.w.slot, "parts": self.parts,
            "part_step": self.part_step, "blocks_c": self.blocks_c, "blocks_l": self.blocks_l,
            "taps": len(self.taps), "channels": self.channels, "lanes": self.lanes,
            "channel_step": self.channel_step, "lane_step": p.lane_step}
        return [values[name] for name in LOW_COLLECT_SLOTS] + [at for at, _ in self.taps]


def _even(total: int, most: int) -> int:
    """The length of equal parts of `total`, each at most `most`."""
    return -(-total // -(-total // most))


def _round(size: int) -> int:
    return -(-size // 64) * 64
