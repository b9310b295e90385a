"""Winograd convolutions: which problems, how they are cut, and their three steps."""

from __future__ import annotations

import dataclasses

from flambeau.compiler.convolution.direct import PREPARE_SLOTS, PrepareSpec, prepare_kernel
from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.geometry import Convolution, Correlation, correlation
from flambeau.compiler.convolution.plan import odd_pitch, register_tile, weight_order
from flambeau.compiler.convolution.winograd import (
    EDGE,
    FACTORS,
    OUT,
    SPREAD_SLOTS,
    TAPS,
    WINOGRAD_SLOTS,
    WinogradSpec,
    spread_kernel,
    winograd_kernel,
)
from flambeau.compiler.nest import Pointer
from flambeau.compiler.products.low_packing import has_split
from flambeau.compiler.products.packing import Tile, tile_for
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["winograd_steps"]

_TASKS = 4  # pieces wanted for each thread
_CHUNK = 1 << 10  # pairs of channels of a chunk of weights; small, so that all threads wake early
_FEWEST_CHANNELS = 32
_MANY_WEIGHTS, _MOST_WEIGHTS = 1 << 17, 1 << 18  # pairs of channels; transformed, 19 and 38 MB
_PIXELS_PER_TILE, _FEW_AS_TILES, _FAR_AS_TILES, _MANY_AS_TILES = 4.5, 25, 30, 64
_LEAST_WORK = 1 << 20  # pixels times pairs of channels, that are worth three kernels
_FEWEST_TILES, _FEWEST_TILES_FAR = 28, 84
"""Of a piece, lest the weights be read for too little: in the second-level cache, behind it."""


def winograd_steps(c: Convolution, dtype_llvm: str, target: Target, threads: int,
                   finish: Finish | None = None) -> list[Step] | None:
    """The steps of a forward convolution or of a gradient with respect to the input; None where
    direct convolution is faster, or needed."""
    if not _is_suitable(c, dtype_llvm):
        return None
    tile = tile_for(dtype_llvm, target)
    problem = correlation(c)
    if not tile.masked or not _pays(problem, target):
        return None
    return _Plan(c, problem, tile, target, threads).steps(finish)


def _is_suitable(c: Convolution, dtype_llvm: str) -> bool:
    return (dtype_llvm == "float" and c.kind != "grad_weight" and c.groups == 1
            and c.w.shape[2:] == (TAPS, TAPS) and tuple(c.stride) == tuple(c.dilation) == (1, 1))


def _pays(problem: Correlation, target: Target) -> bool:
    """Is it faster than the other kernels?

    Measured: a tile takes as long as 5 pixels do directly; to transform the weights, as 25 tiles,
    or as many more if they are far away; 30 from the second-level cache's size on where patches
    are multiplied faster (`unfolded_steps`).
    """
    images, high, wide = problem.source.shape[0], problem.grid[0], problem.grid[2]
    tiles, pixels = images * _tiles(high) * _tiles(wide), images * high * wide
    pairs = problem.channels * problem.lanes
    weights = _FEW_AS_TILES if pairs <= _MANY_WEIGHTS else _MANY_AS_TILES
    if has_split(target) and problem.result.channels_last and _leave_cache(pairs, target):
        weights = max(weights, _FAR_AS_TILES)
    return (min(problem.channels, problem.lanes) >= _FEWEST_CHANNELS and pairs <= _MOST_WEIGHTS
            and pixels * pairs >= _LEAST_WORK and pixels > _PIXELS_PER_TILE * (tiles + weights))


def _leave_cache(pairs: int, target: Target) -> bool:
    """Are the transformed float32 weights of so many pairs of channels too large for it?"""
    return 4 * FACTORS * pairs > 2 * target.cache


def _tiles(pixels: int) -> int:
    return -(-pixels // OUT)


def _evenly(total: int, most: int) -> int:
    """The size of equal parts of `total` that are no larger than `most`."""
    return -(-total // -(-total // most))


class _Plan:
    """Sizes, workspace and slots of one problem."""

    def __init__(self, c: Convolution, problem: Correlation, tile: Tile, target: Target,
                 threads: int):
        self.c, self.problem, self.target, self.threads = c, problem, target, threads
        self.n, self.channels, self.lanes = (
            problem.source.shape[0], problem.channels, problem.lanes)
        self.tiles = [_tiles(problem.grid[d]) for d in (0, 2)]
        self._cut(tile)
        _, self.rows, vectors = register_tile(
            tile, target, self.lanes, 1, self.images * self.piece[0] * self.piece[1])
        self.tile = dataclasses.replace(tile, vectors=vectors)
        self.panels = -(-self.lanes // self.tile.width)
        self._deal()
        self._lay_out()

    def _cut(self, tile: Tile) -> None:
        """Pieces: as many tiles as leave half of the cache to the weights and the sums."""
        high, wide = self.tiles
        most = tile.block // (FACTORS * self.channels)
        shared = -(-self.n * high * wide // (_TASKS * self.threads))
        far = _leave_cache(self.channels * self.lanes, self.target)
        most = max(_FEWEST_TILES_FAR if far else _FEWEST_TILES,
                   min(most, shared if self.threads > 1 else most))
        across = _evenly(wide, most)
        down = _evenly(high, max(1, most // across))
        self.images = 1
        if (across, down) == (wide, high):
            self.images = _evenly(self.n, max(1, most // (across * down)))
        self.piece = down, across
        self.blocks = -(-self.n // self.images), -(-high // down), -(-wide // across)

    def _deal(self) -> None:
        """Tasks: a few pieces that do not suit the number of threads are split by panels, each
        thread's in one chunk, so that hardly a piece is transformed twice."""
        pieces, threads = self.blocks[0] * self.blocks[1] * self.blocks[2], self.threads
        many = pieces >= _TASKS * threads or pieces % threads == 0
        self.splits = 1 if many else min(self.panels, threads)
        self.chunks = min(pieces * self.splits, 2 * _TASKS * threads if many else threads)

    def _lay_out(self) -> None:
        """The workspace: table of offsets, bias, weights as packed and transformed; then for each
        thread the copy of an image, transformed tiles and sums."""
        tile, size = self.tile, self.tile.itemsize
        blocks = -(-self.channels // tile.lanes)
        count = self.images * self.piece[0] * self.piece[1]
        count = -(-count // self.rows) * self.rows
        self.ext = [OUT * tiles + EDGE - OUT for tiles in self.piece]
        self.copy_pitch = odd_pitch(self.ext[0] * self.ext[1] * tile.lanes)
        self.turned_block = count * tile.lanes
        self.turned_pitch = odd_pitch(blocks * self.turned_block)
        self.sums_pitch = odd_pitch(count * tile.width)
        self.pitch = odd_pitch(self.channels * tile.width)
        self.strip = self.pitch * FACTORS
        self.turned_at = odd_pitch(blocks * self.copy_pitch + 2 * tile.lanes * tile.lanes)
        self.sums_at = self.turned_at + FACTORS * self.turned_pitch
        depth, width = self.channels * TAPS * TAPS, self.panels * tile.width
        sizes = (8 * depth, width * size, width * depth * size, self.panels * self.strip * size)
        self.at = [0]
        for part in sizes:
            self.at.append(self.at[-1] + -(-part // 64) * 64)
        stride = (self.sums_at + FACTORS * self.sums_pitch) * size
        self.work_stride = -(-stride // 4096) * 4096 + 64
        self.bytes = self.at[-1] + self.work_stride * self.threads

    def _work(self, part: int) -> Pointer:
        return Pointer("work", self.bytes, self.at[part])

    # ------------------------------------------------------------------ steps
    def steps(self, finish: Finish | None) -> list[Step]:
        c, p, vectors = self.c, self.problem, self.tile.vectors
        bias, elements = c.bias is not None, self.panels * self.tile.width * self.channels
        many = 4 * self.threads if self.threads > 1 else 1
        order = weight_order(c, p, self.tile)
        prepare, prepare_text = prepare_kernel(
            PrepareSpec("float", order, vectors, 1, bias), self.target)
        pieces = self.panels * (1 if order in ("all", "taps") else TAPS * TAPS)
        spread, spread_text = spread_kernel(vectors, self.target)
        spec = WinogradSpec(self.rows, vectors, p.source.channels_last, p.result.channels_last,
                            bias)
        main, main_text = winograd_kernel(spec, self.target, finish)
        return [
            Step(prepare, lambda: prepare_text, self._prepare_slots(),
                 max(1, min(pieces, elements // _CHUNK, many))),
            Step(spread, lambda: spread_text, self._spread_slots(),
                 max(1, min(elements // _CHUNK, many)), after=1),
            Step(main, lambda: main_text, self._main_slots() + (finish.slots if finish else []),
                 self.chunks, after=2)]

    def _prepare_slots(self) -> list:
        p, c = self.problem, self.c
        values = {
            "weights": c.w.slot, "panels": self._work(2), "offsets": self._work(0),
            "bias": c.bias.slot if c.bias else 0, "packed_bias": self._work(1),
            "groups": 1, "panel_count": self.panels, "lanes": self.lanes,
            "channels": self.channels, "taps": TAPS * TAPS, "pitch": 0,
            "lane_step": p.lane_step, "channel_step": p.channel_step, "group_step": 0,
            "bias_step": c.bias.strides[0] if c.bias else 0}
        row, column = c.w.strides[2:]
        table = []
        for number in range(TAPS * TAPS):
            weight = number // TAPS * row + number % TAPS * column
            table += [weight, 0, number, TAPS * TAPS]
        return [values[name] for name in PREPARE_SLOTS] + table

    def _spread_slots(self) -> list:
        turned = self.c.kind == "grad_input"
        values = {"packed": self._work(2), "panels": self._work(3), "panel_count": self.panels,
                  "channels": self.channels, "first": TAPS * TAPS - 1 if turned else 0,
                  "step": -1 if turned else 1, "pitch": self.pitch, "strip": self.strip}
        return [values[name] for name in SPREAD_SLOTS]

    def _main_slots(self) -> list:
        p = self.problem
        values = {
            "source": p.source.slot, "result": p.result.slot, "panels": self._work(3),
            "bias": self._work(1), "work": self._work(4), "work_stride": self.work_stride,
            "n": self.n, "images": self.images, "blocks_n": self.blocks[0],
            "blocks0": self.blocks[1], "blocks2": self.blocks[2], "tiles0": self.piece[0],
            "tiles2": self.piece[1], "splits": self.splits, "panel_count": self.panels,
            "lanes": self.lanes, "channels": self.channels, "pitch": self.pitch,
            "strip": self.strip, "copy_pitch": self.copy_pitch, "turned_at": self.turned_at,
            "turned_pitch": self.turned_pitch, "turned_block": self.turned_block,
            "sums_at": self.sums_at, "sums_pitch": self.sums_pitch}
        for word, image in (("source", p.source), ("result", p.result)):
            values |= {f"{word}_n": image.strides[0], f"{word}_c": image.strides[1]}
            values |= {f"{word}_x{d}": image.steps[d] for d in (0, 2)}
        for d, ext in zip((0, 2), self.ext, strict=True):
            values |= {f"size{d}": p.source.spatial[d], f"grid{d}": p.grid[d],
                       f"low{d}": p.low[d], f"ext{d}": ext}
        return [values[name] for name in WINOGRAD_SLOTS]
