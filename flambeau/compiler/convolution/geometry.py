"""The numbers of a convolution: what the kernels' slots hold, and how the work is cut.

Everything is brought to three spatial dimensions: a line is (1, 1, w), a plane (h, 1, w).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

__all__ = ["AXES", "Convolution", "Correlation", "Operand", "Phase", "correlation", "merged",
           "three"]

AXES = range(3)


@dataclasses.dataclass(frozen=True)
class Operand:
    """A tensor as a kernel's argument: the content of its slot, sizes, strides in elements."""

    slot: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def spatial(self) -> tuple[int, ...]:
        return three(self.shape[2:], 1)

    @property
    def steps(self) -> tuple[int, ...]:
        """Strides of the spatial dimensions. Those of a single pixel mean nothing: as if dense."""
        steps = three(self.strides[2:], 0)
        return tuple(1 if size == 1 else step
                     for size, step in zip(self.spatial, steps, strict=True))

    @property
    def line_step(self) -> int:
        """Distance of the last two pixels that are not the same; of images of one pixel."""
        if math.prod(self.spatial) == 1:
            return self.strides[0]
        return next((step for size, step in zip(reversed(self.spatial), reversed(self.steps),
                                                strict=True) if size > 1), 1)

    @property
    def channels_last(self) -> bool:
        """Do the channels of a pixel follow each other in memory?"""
        return self.strides[1] == 1 and self.shape[1] > 1 and not (
            self.steps[2] == 1 and self.spatial[2] > 1)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution or gradient: input, weight, output and the geometry, as in PyTorch."""

    kind: str
    x: Operand
    w: Operand
    y: Operand
    bias: Operand | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def taps(self) -> int:
        return math.prod(self.w.shape[2:])

    @property
    def flops(self) -> float:
        return 2.0 * math.prod(self.w.shape) * self.y.shape[0] * math.prod(self.y.shape[2:])


def three(values: Sequence[int], fill: int) -> tuple[int, int, int]:
    """Three spatial dimensions from one, two or three."""
    values = tuple(values)
    if len(values) == 3:
        return values
    return (fill, fill, *values) if len(values) == 1 else (values[0], fill, values[1])


def merged(c: Convolution) -> Convolution:
    """The same problem with fewer dimensions: where each pixel meets itself only, neighbourhood
    means nothing, and pixels that follow each other in memory are one line."""
    pointwise = (c.taps == 1 and max(c.stride) == 1 and max(c.padding) == 0)
    if not pointwise or not all(_is_line(t) for t in (c.x, c.y)):
        return c
    images = all(t.shape[0] == 1 or t.strides[0] == t.line_step * math.prod(t.spatial)
                 for t in (c.x, c.y))
    x, y = (_as_line(t, images) for t in (c.x, c.y))
    w = dataclasses.replace(c.w, shape=(*c.w.shape[:2], 1), strides=(*c.w.strides[:2], 1))
    return dataclasses.replace(c, x=x, w=w, y=y, stride=(1,), padding=(0,), dilation=(1,))


def _is_line(t: Operand) -> bool:
    """Is the distance from pixel to pixel always the same?"""
    step = t.line_step
    for size, stride in zip(reversed(t.spatial), reversed(t.steps), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _as_line(t: Operand, images: bool) -> Operand:
    n, channels, pixels = t.shape[0], t.shape[1], math.prod(t.spatial)
    step = t.line_step
    if images:
        return Operand(t.slot, (1, channels, n * pixels), (0, t.strides[1], step))
    return Operand(t.slot, (n, channels, pixels), (*t.strides[:2], step))


@dataclasses.dataclass(frozen=True)
class Phase:
    """The pixels of the result with one residue: first pixel, number, taps as (weight offset,
    distance in the source for each axis)."""

    first: tuple[int, ...]
    grid: tuple[int, ...]
    taps: tuple[tuple[int, tuple[int, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Correlation:
    """result[q * spread + first] = sum over taps of source[q * move + distance] * weight.

    Attributes:
        source, result: the images; `move` and `spread` for each axis.
        low, span: smallest distance of a tap, largest minus smallest.
        channels, lanes: channels of source and result in one group.
        channel_step, lane_step, group_step: strides of the weights along them.
    """

    source: Operand
    result: Operand
    move: tuple[int, ...]
    spread: tuple[int, ...]
    low: tuple[int, ...]
    span: tuple[int, ...]
    phases: tuple[Phase, ...]
    channels: int
    lanes: int
    channel_step: int
    lane_step: int
    group_step: int

    @property
    def grid(self) -> tuple[int, ...]:
        """The largest number of pixels of a phase along each axis."""
        return tuple(max((p.grid[d] for p in self.phases), default=0) for d in AXES)


def correlation(c: Convolution) -> Correlation:
    """A forward convolution or a gradient with respect to the input."""
    forward = c.kind == "forward"
    stride, padding, dilation = (three(c.stride, 1), three(c.padding, 0), three(c.dilation, 1))
    kernel, steps = three(c.w.shape[2:], 1), three(c.w.strides[2:], 0)
    one = (1, 1, 1)
    source, result = (c.x, c.y) if forward else (c.y, c.x)
    phases = _phases(result.spatial, one if forward else stride, kernel, steps,
                     [p if forward else -p for p in padding],
                     dilation if forward else [-d for d in dilation], forward)
    distances = [t[1] for phase in phases for t in phase.taps] or [(0, 0, 0)]
    low = tuple(min(t[d] for t in distances) for d in AXES)
    span = tuple(max(t[d] for t in distances) - low[d] for d in AXES)
    per_in, per_out = c.w.shape[1], c.w.shape[0] // c.groups
    outer, inner = c.w.strides[:2]
    return Correlation(
        source, result, stride if forward else one, one if forward else stride, low, span, phases,
        *((per_in, per_out, inner, outer) if forward else (per_out, per_in, outer, inner)),
        outer * per_out)


def _phases(sizes: Sequence[int], spread: Sequence[int], kernel: Sequence[int],
            steps: Sequence[int], padding: Sequence[int], dilation: Sequence[int], forward: bool
            ) -> tuple[Phase, ...]:
    found = []
    for first in itertools.product(*(range(s) for s in spread)):
        grid = tuple(max(0, -(-(size - f) // s))
                     for size, f, s in zip(sizes, first, spread, strict=True))
        if not all(grid):
            continue
        axes = []  # for each axis: (tap, distance)
        for d in AXES:
            reach = [(k, first[d] + k * dilation[d] - padding[d]) for k in range(kernel[d])]
            axes.append([(k, at // spread[d]) for k, at in reach if at % spread[d] == 0])
        taps = tuple((sum(k * step for (k, _), step in zip(tap, steps, strict=True)),
                      tuple(at for _, at in tap)) for tap in itertools.product(*axes))
        found.append(Phase(first, grid, taps))
    return tuple(found)
