"""Depthwise convolution: one input channel per group, so that there is no matrix to multiply.

One plane at a time is copied into the workspace with its padding (for grad_input with zeros
between its pixels), where each tap is a constant offset. Outputs are computed in vectors along the
last dimension, a few rows at a time, tap after tap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flambeau.compiler.conv_packing import CONV_POINTERS, CONV_SLOTS, copy_line
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range
from flambeau.compiler.packing import (
    Tile,
    add,
    fold,
    load_lanes,
    load_scalar,
    multiply_add,
    narrow,
)

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


class _Geometry:
    """Sizes of one problem, computed from the slots wherever a function needs them."""

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
        begin = f.ceil_div(f.smax(f.sub(0, shifts[last]), 0), spreads[last])
        end = f.ceil_div(f.smax(f.sub(self.sizes[last], shifts[last]), 0), spreads[last])
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

    def row_offset(self, row: Value, strides: Sequence[Value], scales: Sequence) -> Value | int:
        """Offset of output row `row` (all but the last dimension, flattened)."""
        f, offset = self.f, 0
        for d in reversed(self.axes[:-1]):
            x = row if d == 0 else f.urem(row, self.ends[d])
            row = row if d == 0 else f.udiv(row, self.ends[d])
            offset = f.add(offset, f.mul(f.mul(x, scales[d]), strides[d]))
        return offset

    def lanes_at(self, pointer: Value) -> Value:
        """One vector of inputs, `moves[-1]` apart, of the padded plane."""
        f, tile, move = self.f, self.tile, self.moves[-1]
        if self.unit:
            return f.load(tile.vector, pointer)
        if tile.masked:
            steps = f.mul(f.iota(tile.lanes, "i32"),
                          f.splat(f.cast("trunc", move, "i32"), tile.lanes))
            pointers = f.emit(vector(tile.lanes, "ptr"),
                              f"getelementptr {tile.compute}, {pointer}, {steps}")
            every = f.const(True, vector(tile.lanes, "i1"))
            return f.gather(tile.vector, pointers, every)
        value = f.const(0, tile.vector)
        for lane in range(tile.lanes):
            item = f.load(tile.compute, pointer, f.mul(move, lane))
            value = f.insert(value, item, lane) if tile.lanes > 1 else item
        return value


# ---------------------------------------------------------------------- functions
def _define_fill_line(module: Module, tile: Tile) -> None:
    """fill_line(src, dst, count, step, spread): dst[i * spread] = src[i * step]."""
    f = module.function("fill_line", [("ptr noalias", "src"), ("ptr noalias", "dst"),
                                      ("i64", "count"), ("i64", "step"), ("i64", "spread")],
                        internal=True)
    a = f.args
    plain = f.and_(f.cmp("eq", a["step"], 1), f.cmp("eq", a["spread"], 1))
    with f.when_else(plain) as otherwise:
        copy_line(f, tile, a["src"], a["dst"], a["count"])
        otherwise()
        with f.loop(0, a["count"]) as i:
            item = load_scalar(f, tile, f.gep(a["src"], f.mul(i, a["step"]), tile.memory))
            f.store(item, a["dst"], f.mul(i, a["spread"]))


def _define_store_lanes(module: Module, tile: Tile) -> None:
    """store_lanes(value, dst, count, step, add): the first `count` lanes."""
    f = module.function("store_lanes", [
        (tile.vector, "value"), ("ptr noalias", "dst"), ("i64", "count"), ("i64", "step"),
        ("i1", "add")], internal=True)
    f.args["value"].type = tile.vector  # the emitter takes the first word of a type
    a = f.args
    lanes = f.array(tile.compute, tile.lanes)
    f.store(a["value"], lanes)
    with f.when_else(f.cmp("eq", a["step"], 1)) as otherwise:
        if tile.masked:
            _store_masked(f, tile)
        else:
            _store_scalars(f, tile, lanes, 1)
        otherwise()
        _store_scalars(f, tile, lanes, a["step"])


def _store_masked(f: Function, tile: Tile) -> None:
    a = f.args
    mask = f.lane_mask(tile.lanes, a["count"])
    old = load_lanes(f, tile, a["dst"], mask)
    total = f.select(f.splat(a["add"], tile.lanes), add(f, tile, a["value"], old), a["value"])
    f.masked_store(narrow(f, total, tile), a["dst"], mask)


def _store_scalars(f: Function, tile: Tile, lanes: Value, step: Value | int) -> None:
    a = f.args
    with f.loop(0, f.smin(a["count"], tile.lanes)) as i:
        value, place = f.load(tile.compute, lanes, i), f.gep(a["dst"], f.mul(i, step), tile.memory)
        total = add(f, tile, value, load_scalar(f, tile, place))
        f.store(narrow(f, f.select(a["add"], total, value), tile), place)


def _define_convolve(module: Module, tile: Tile, kind: str, rank: int, unit: bool,
                     bias: bool) -> None:
    """convolve(args, plane, taps, weights, dst, add, bias): one output plane."""
    f = module.function("convolve", [
        ("ptr noalias", "args"), ("ptr noalias", "plane"), ("ptr noalias", "taps"),
        ("ptr noalias", "weights"), ("ptr noalias", "dst"), ("i1", "add"),
        (tile.compute, "bias")], internal=True)
    a, slot = f.args, Slots(f, CONV_SLOTS(rank), CONV_POINTERS)
    g = _Geometry(f, tile, kind, rank, unit, slot)
    strides = [slot[f"{g.target}_x{d}"] for d in g.axes]
    width, last = g.ends[-1], f.sub(g.rows, 1)
    with f.loop(0, g.rows, _ROWS) as row:
        rows = [f.smin(f.add(row, i), last) for i in range(_ROWS)]
        lines = [f.gep(a["plane"], g.row_offset(r, g.pitches, g.moves), tile.compute)
                 for r in rows]
        places = [f.gep(a["dst"], g.row_offset(r, strides, [1] * rank), tile.memory)
                  for r in rows]
        with f.loop(0, width, tile.lanes) as j:
            sums = [f.var(tile.vector, 0) for _ in rows]
            start = f.mul(j, g.moves[-1])
            with f.loop(0, g.taps_total) as tap:
                entry = f.gep(a["taps"], f.mul(tap, _TAP_WORDS), "i64")
                offset = f.add(f.load("i64", entry), start)
                factor = load_scalar(f, tile, f.gep(a["weights"], f.load("i64", entry, 1),
                                                    tile.memory))
                factor = f.splat(factor, tile.lanes)
                for total, line in zip(sums, lines, strict=True):
                    item = g.lanes_at(f.gep(line, offset, tile.compute))
                    total.set(multiply_add(f, tile, factor, item, total.get()))
            for i, (total, place) in enumerate(zip(sums, places, strict=True)):
                value = total.get()
                if bias:
                    value = add(f, tile, value, f.splat(a["bias"], tile.lanes))
                count = f.select(f.cmp("slt", f.add(row, i), g.rows), f.sub(width, j), 0)
                f.call("void", "store_lanes", [
                    value, f.gep(place, f.mul(j, strides[-1]), tile.memory), count, strides[-1],
                    a["add"]])


def _define_correlate(module: Module, tile: Tile, rank: int, unit: bool) -> None:
    """correlate(args, plane, taps, gradient, weights): weights[tap] += <plane at tap, gradient>.

    The gradient's rows are padded with zeros to whole vectors, and `_ROWS` rows of zeros follow.
    """
    f = module.function("correlate", [
        ("ptr noalias", "args"), ("ptr noalias", "plane"), ("ptr noalias", "taps"),
        ("ptr noalias", "gradient"), ("ptr noalias", "weights")], internal=True)
    a, slot = f.args, Slots(f, CONV_SLOTS(rank), CONV_POINTERS)
    g = _Geometry(f, tile, "grad_weight", rank, unit, slot)
    pitch = f.mul(f.ceil_div(g.ends[-1], tile.lanes), tile.lanes)
    last = f.sub(g.rows, 1)
    with f.loop(0, g.taps_total) as tap:
        entry = f.gep(a["taps"], f.mul(tap, _TAP_WORDS), "i64")
        sums = [f.var(tile.vector, 0) for _ in range(_ROWS)]
        base = f.gep(a["plane"], f.load("i64", entry), tile.compute)
        with f.loop(0, g.rows, _ROWS) as row:
            lines = [f.gep(base, g.row_offset(f.smin(f.add(row, i), last), g.pitches, g.moves),
                           tile.compute) for i in range(_ROWS)]
            gradient = f.gep(a["gradient"], f.mul(row, pitch), tile.compute)
            with f.loop(0, pitch, tile.lanes) as j:
                for i, (total, line) in enumerate(zip(sums, lines, strict=True)):
                    factor = f.load(tile.vector, gradient, f.add(f.mul(pitch, i), j))
                    item = g.lanes_at(f.gep(line, f.mul(j, g.moves[-1]), tile.compute))
                    total.set(multiply_add(f, tile, factor, item, total.get()))
        parts = [total.get() for total in sums]
        while len(parts) > 1:
            parts = [add(f, tile, *parts[i:i + 2]) for i in range(0, len(parts), 2)]
        place = f.gep(a["weights"], f.load("i64", entry, 1), tile.memory)
        total = add(f, tile, fold(f, tile, parts[0]), load_scalar(f, tile, place))
        f.store(narrow(f, total, tile), place)


# ---------------------------------------------------------------------- kernel
def emit_depthwise(module: Module, f: Function, tile: Tile, kind: str, rank: int, unit: bool,
                   bias: bool, work: Value) -> None:
    """Emit a depthwise convolution into the kernel `f`."""
    _define_fill_line(module, tile)
    slot = Slots(f, CONV_SLOTS(rank), CONV_POINTERS)
    g = _Geometry(f, tile, kind, rank, unit, slot)
    g.layout(work)
    if kind == "grad_weight":
        _define_correlate(module, tile, rank, unit)
        _emit_weight_gradients(f, g)
    else:
        _define_store_lanes(module, tile)
        _define_convolve(module, tile, kind, rank, unit, bias)
        _emit_planes(f, g, bias)


def _emit_planes(f: Function, g: _Geometry, bias: bool) -> None:
    slot, tile = g.slot, g.tile
    multiplier = f.udiv(slot["c_out"], slot["groups"])
    channels = slot["c_in"] if g.backward else slot["c_out"]
    first, last = chunk_range(f, f.mul(slot["n"], channels))
    with f.loop(first, last) as task:
        image, channel = f.udiv(task, channels), f.urem(task, channels)
        item = f.const(0, tile.compute)
        if bias:
            place = f.gep(slot["bias"], f.mul(channel, slot["bias_stride"]), tile.memory)
            item = load_scalar(f, tile, place)
        target = f.add(f.mul(image, slot[f"{g.target}_n"]), f.mul(channel, slot[f"{g.target}_c"]))
        target = f.gep(slot[g.target], target, tile.memory)
        with f.loop(0, multiplier if g.backward else 1) as part:
            again = f.cmp("ne", part, 0)
            if g.backward:
                filter_ = source = f.add(f.mul(channel, multiplier), part)
            else:
                filter_, source = channel, f.udiv(channel, multiplier)
            offset = f.add(f.mul(image, slot[f"{g.source}_n"]),
                           f.mul(source, slot[f"{g.source}_c"]))
            g.fill(f.gep(slot[g.source], offset, tile.memory))
            weights = f.gep(slot["weight"], f.mul(filter_, slot["weight_o"]), tile.memory)
            f.call("void", "convolve", [
                f.args["args"], g.plane, g.taps, weights, target, again,
                f.select(again, f.const(0, tile.compute), item)])


def _emit_weight_gradients(f: Function, g: _Geometry) -> None:
    slot, tile = g.slot, g.tile
    multiplier = f.udiv(slot["c_out"], slot["groups"])
    first, last = chunk_range(f, slot["c_out"])
    pitch = f.mul(f.ceil_div(g.ends[-1], tile.lanes), tile.lanes)
    strides = [slot[f"output_x{d}"] for d in g.axes]
    with f.loop(0, f.mul(f.add(g.rows, _ROWS), pitch)) as i:
        f.store(f.const(0, tile.compute), g.gradient, i)
    with f.loop(first, last) as channel:
        weights = f.gep(slot["weight"], f.mul(channel, slot["weight_o"]), tile.memory)
        with f.loop(0, g.taps_total) as tap:
            place = f.load("i64", g.taps, f.add(f.mul(tap, _TAP_WORDS), 1))
            f.store(f.const(0, tile.memory), weights, place)
        with f.loop(0, slot["n"]) as image:
            offset = f.add(f.mul(image, slot["input_n"]),
                           f.mul(f.udiv(channel, multiplier), slot["input_c"]))
            g.fill(f.gep(slot["input"], offset, tile.memory))
            offset = f.add(f.mul(image, slot["output_n"]), f.mul(channel, slot["output_c"]))
            with f.loop(0, g.rows) as row:
                source = f.add(offset, g.row_offset(row, strides, [1] * g.rank))
                f.call("void", "fill_line", [
                    f.gep(slot["output"], source, tile.memory),
                    f.gep(g.gradient, f.mul(row, pitch), tile.compute),
                    g.ends[-1], strides[-1], f.const(1, "i64")])
            f.call("void", "correlate", [f.args["args"], g.plane, g.taps, g.gradient, weights])
