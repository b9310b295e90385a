"""Depthwise convolution: one input channel per group, so that there is no matrix to multiply.

One plane at a time is copied into the workspace with its padding (for grad_input with zeros
between its pixels), where each tap is a constant offset. Outputs are computed in vectors along the
last dimension, a few rows at a time, tap after tap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from flambeau.compiler.conv_packing import copy_line
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range
from flambeau.compiler.packing import Tile, add, load_scalar, multiply_add, narrow

__all__ = ["emit_depthwise", "depthwise_bytes", "plane_sizes"]

_ROWS = 4          # output rows that are computed side by side
_TAP_WORDS = 2     # an entry of the tap table: offset in the plane, offset in the weights


def plane_sizes(kind: str, in_spatial: Sequence[int], out_spatial: Sequence[int],
                kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Sizes of the padded plane."""
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    if kind == "grad_input":
        return [i + r for i, r in zip(in_spatial, reach, strict=True)]
    return [max(o - 1, 0) * s + r + 1
            for o, s, r in zip(out_spatial, stride, reach, strict=True)]


def depthwise_bytes(tile: Tile, kind: str, in_spatial: Sequence[int], out_spatial: Sequence[int],
                    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> int:
    """Bytes of workspace for one thread."""
    sizes = plane_sizes(kind, in_spatial, out_spatial, kernel, stride, dilation)
    items = math.prod(sizes) + tile.lanes * (stride[-1] + 1)
    if kind == "grad_weight":
        rows = math.prod(out_spatial[:-1]) + _ROWS
        items += rows * (-(-out_spatial[-1] // tile.lanes) * tile.lanes) + tile.lanes
    return items * tile.itemsize + math.prod(kernel) * 8 * _TAP_WORDS + 64


@dataclasses.dataclass(frozen=True)
class _Plane:
    """A plane of one image: sizes and strides by dimension, and where its pixels go."""

    sizes: list[Value]
    strides: list[Value]


class _Depthwise:
    """The run-time values that the parts of a kernel share."""

    def __init__(self, f: Function, tile: Tile, kind: str, rank: int, unit: bool, slot: Slots):
        self.f, self.tile, self.kind, self.rank, self.unit = f, tile, kind, rank, unit
        self.slot, self.axes = slot, range(rank)
        self.backward = kind == "grad_input"
        self.source, self.target = ("output", "input") if self.backward else ("input", "output")
        self.ends = [slot[f"{'in' if self.backward else 'out'}{d}"] for d in self.axes]
        self.moves = [f.const(1, "i64") if self.backward else slot[f"stride{d}"]
                      for d in self.axes]
        self.reach = [f.mul(f.sub(slot[f"kernel{d}"], 1), slot[f"dil{d}"]) for d in self.axes]
        self.sizes = [f.add(f.add(f.mul(f.smax(f.sub(end, 1), 0), move), reach), 1)
                      for end, move, reach in zip(self.ends, self.moves, self.reach, strict=True)]
        self.pitches = [f.const(1, "i64")]
        for size in reversed(self.sizes[1:]):
            self.pitches.insert(0, f.mul(self.pitches[0], size))
        self.items = f.mul(self.pitches[0], self.sizes[0])
        self.taps_total = slot["kernel0"]
        for d in self.axes[1:]:
            self.taps_total = f.mul(self.taps_total, slot[f"kernel{d}"])
        self.rows = f.const(1, "i64")
        for end in self.ends[:-1]:
            self.rows = f.mul(self.rows, end)

    def layout(self, work: Value) -> None:
        """Lay out the workspace, write the tap table, clear the plane."""
        f, tile, slot = self.f, self.tile, self.slot
        self.taps = work
        self.plane = f.gep(work, f.mul(self.taps_total, _TAP_WORDS), "i64")
        slack = f.mul(f.add(slot[f"stride{self.rank - 1}"], 1), tile.lanes)
        self.gradient = f.gep(self.plane, f.add(self.items, slack), tile.compute)
        with f.loop(0, f.add(self.items, slack)) as i:
            f.store(f.const(0, tile.compute), self.plane, i)
        with f.loop(0, self.taps_total) as tap:
            rest, offset, weight = tap, f.const(0, "i64"), f.const(0, "i64")
            for d in reversed(self.axes):
                k = f.urem(rest, slot[f"kernel{d}"])
                rest = f.udiv(rest, slot[f"kernel{d}"])
                weight = f.add(weight, f.mul(k, slot[f"weight_x{d}"]))
                if self.backward:
                    k = f.sub(f.sub(slot[f"kernel{d}"], 1), k)
                offset = f.add(offset, f.mul(f.mul(k, slot[f"dil{d}"]), self.pitches[d]))
            entry = f.gep(self.taps, f.mul(tap, _TAP_WORDS), "i64")
            f.store(offset, entry)
            f.store(weight, entry, 1)

    def fill(self, base: Value) -> None:
        """Copy one source plane into the padded plane."""
        f, slot = self.f, self.slot
        side = "out" if self.backward else "in"
        sizes = [slot[f"{side}{d}"] for d in self.axes]
        lines = f.const(1, "i64")
        for size in sizes[:-1]:
            lines = f.mul(lines, size)
        spreads = [slot[f"stride{d}"] if self.backward else f.const(1, "i64") for d in self.axes]
        shifts = [f.sub(self.reach[d], slot[f"pad{d}"]) if self.backward else slot[f"pad{d}"]
                  for d in self.axes]
        last = self.rank - 1
        step = slot[f"{self.source}_x{last}"]
        # pixels of a line that lie inside: begin <= x < end
        begin = f.smax(f.ceil_div_signed(f.sub(0, shifts[last]), spreads[last]), 0)
        end = f.ceil_div_signed(f.sub(self.sizes[last], shifts[last]), spreads[last])
        end = f.smin(end, sizes[last])
        with f.loop(0, lines) as line:
            rest, offset, place = line, f.const(0, "i64"), shifts[last]
            inside = f.const(True, "i1")
            for d in reversed(self.axes[:-1]):
                x = f.urem(rest, sizes[d])
                rest = f.udiv(rest, sizes[d])
                at = f.add(f.mul(x, spreads[d]), shifts[d])
                inside = f.and_(inside, f.cmp("ult", at, self.sizes[d]))
                offset = f.add(offset, f.mul(x, slot[f"{self.source}_x{d}"]))
                place = f.add(place, f.mul(at, self.pitches[d]))
            with f.when(inside):
                f.call("void", "fill_line", [
                    f.gep(base, f.add(offset, f.mul(begin, step)), self.tile.memory),
                    f.gep(self.plane, f.add(place, f.mul(begin, spreads[last])),
                          self.tile.compute),
                    f.sub(end, begin), step, spreads[last]])

    def row_offset(self, row: Value, strides: Sequence[Value], scales: Sequence) -> Value:
        """Offset of output row `row` (all but the last dimension, flattened)."""
        f, offset = self.f, f_zero
        for d in reversed(self.axes[:-1]):
            x = row if d == 0 else f.urem(row, self.ends[d])
            row = row if d == 0 else f.udiv(row, self.ends[d])
            offset = f.add(offset, f.mul(f.mul(x, scales[d]), strides[d]))
        return offset


f_zero = 0
