"""Images as the convolution kernels read them: a piece with its padding, in the workspace.

Two layouts. Sizes are those of the piece, padding included; `pitch` separates channels or blocks of
them.

    planes       [channel][d0][d1][d2]             a vector holds pixels
    blocked      [block of channels][d0][d1][d2][channel of the block]

Every pixel that a kernel asks for is there, so that tap and channel are an offset and nothing is
tested in the inner loops. A piece is small: it stays in the second-level cache until it has been
read.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.products.packing import Tile, load_lanes, load_scalar, transpose

__all__ = ["PIECE", "Layout", "pack_image", "turn_block", "copy_run", "clear_run"]

_PIXELS = 8  # whose channels are dealt out at a time

PIECE = ("channels", "pitch", "step_c", "step0", "step1", "step2", "size0", "size1", "size2",
         "from0", "from1", "from2", "ext0", "ext1", "ext2")
"""What `pack_image` must know: channels, pitch of the copy, strides and sizes of the source, the
source's coordinates of the copy's first pixel (may be negative), and the copy's sizes."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout of copies.

    Attributes:
        block: channels of a block; 1: planes.
        width: elements from one pixel of a block to the next, whole vectors (1 for planes).
    """

    block: int = 1
    width: int = 1

    @property
    def planes(self) -> bool:
        return self.width == 1


def pack_image(module: Module, name: str, tile: Tile, layout: Layout, channels_last: bool) -> None:
    """Define name(src, dst, *PIECE): copy a piece of an image, zeros where it leaves the image.

    `channels_last` tells that step_c is 1; otherwise runs of pixels are copied (and turned), in
    vectors if step2 is 1. Up to `width` vectors may be written behind the end.
    """
    arguments = [("ptr noalias", "src"), ("ptr noalias", "dst"), *(("i64", n) for n in PIECE)]
    if not layout.planes and not channels_last:
        turn_block(module, name + "_turn", tile, name)
    f = module.function(name, arguments, part=name)
    writer = _Planes if layout.planes else _Pixels if channels_last else _Turned
    writer(f, tile, layout, name + "_turn").emit()


class _Writer:
    """Walks over the lines of a copy; `line` writes one of them."""

    def __init__(self, f: Function, tile: Tile, layout: Layout, turn: str):
        self.f, self.tile, self.layout, self.turn = f, tile, layout, turn
        self.a = f.args

    def emit(self) -> None:
        f, a, step = self.f, self.a, self.layout.block
        with f.loop(0, a["channels"], step) as channel, self.lines() as (source, target, *ends):
            source = f.add(source, f.mul(channel, a["step_c"]))
            target = f.add(target, f.mul(f.udiv(channel, step), a["pitch"]))
            count = f.smin(f.sub(a["channels"], channel), step)
            self.line(f.gep(a["src"], source, self.tile.memory),
                      f.gep(a["dst"], target, self.tile.compute), *ends, count)

    @contextlib.contextmanager
    def lines(self) -> Iterator[tuple[Value, Value, Value, Value]]:
        """Loop over lines: offset of the first pixel that exists, offset in the copy, and which
        pixels of the copy exist."""
        f, a = self.f, self.a
        with f.loop(0, a["ext0"]) as e0, f.loop(0, a["ext1"]) as e1:
            y0, y1 = f.add(a["from0"], e0), f.add(a["from1"], e1)
            inside = f.and_(f.cmp("ult", y0, a["size0"]), f.cmp("ult", y1, a["size1"]))
            start = f.smin(f.smax(f.sub(0, a["from2"]), 0), a["ext2"])
            start = f.select(inside, start, a["ext2"])
            stop = f.smax(f.smin(f.sub(a["size2"], a["from2"]), a["ext2"]), start)
            source = f.add(f.mul(y0, a["step0"]), f.mul(y1, a["step1"]))
            source = f.add(source, f.mul(f.add(a["from2"], start), a["step2"]))
            target = f.mul(f.mul(f.add(f.mul(e0, a["ext1"]), e1), a["ext2"]), self.layout.width)
            yield source, target, start, stop

    def line(self, src: Value, dst: Value, start: Value, stop: Value, count: Value) -> None:
        raise NotImplementedError

    def clear(self, dst: Value, start: Value | int, stop: Value) -> None:
        place = self.f.gep(dst, self.f.mul(start, self.layout.width), self.tile.compute)
        clear_run(self.f, self.tile, place, self.f.mul(self.f.sub(stop, start), self.layout.width))


class _Planes(_Writer):
    """Lines of pixels from lines of pixels."""

    def line(self, src, dst, start, stop, count) -> None:
        f, tile = self.f, self.tile
        self.clear(dst, 0, start)
        copy_run(f, tile, src, f.gep(dst, start, tile.compute), f.sub(stop, start),
                 self.a["step2"])
        self.clear(dst, stop, self.a["ext2"])


class _Pixels(_Writer):
    """Blocks of channels from pixels whose channels are contiguous, some pixels at a time: neither
    reads nor writes jump among many pages."""

    def emit(self) -> None:
        f, a, tile, block = self.f, self.a, self.tile, self.layout.block
        blocks = f.udiv(a["channels"], block)
        rest = f.sub(a["channels"], f.mul(blocks, block))
        with self.lines() as (source, target, start, stop):
            dst = f.gep(a["dst"], target, tile.compute)
            with f.loop(0, f.ceil_div(a["channels"], block)) as number:
                line = f.gep(dst, f.mul(number, a["pitch"]), tile.compute)
                self.clear(line, 0, start)
                self.clear(line, stop, a["ext2"])
            with f.loop(start, stop, _PIXELS) as x0:
                last = f.smin(f.add(x0, _PIXELS), stop)
                with f.loop(0, blocks) as number, f.loop(x0, last) as x:
                    self.block(source, dst, x, start, number, None)
                with f.when(f.cmp("sgt", rest, 0)), f.loop(x0, last) as x:
                    self.block(source, dst, x, start, blocks, rest)

    def block(self, source: Value, dst: Value, x: Value, start: Value, number: Value,
              count: Value | None) -> None:
        """One block of pixel x; `count` channels of it, or all."""
        f, a, tile, block = self.f, self.a, self.tile, self.layout.block
        source = f.add(source, f.mul(f.sub(x, start), a["step2"]))
        src = f.gep(a["src"], f.add(source, f.mul(number, block)), tile.memory)
        place = f.add(f.mul(number, a["pitch"]), f.mul(x, self.layout.width))
        dst = f.gep(dst, place, tile.compute)
        if not tile.masked:
            copy_run(f, tile, src, dst, f.const(block, "i64") if count is None else count)
            return
        for j in range(0, block, tile.lanes):
            mask = None
            if count is not None or j + tile.lanes > block:
                left = block - j if count is None else f.sub(count, j)
                mask = f.lane_mask(tile.lanes, left)
            f.store(load_lanes(f, tile, f.gep(src, j, tile.memory), mask), dst, j)


class _Turned(_Writer):
    """Blocks of channels from lines of pixels, turned in squares."""

    def line(self, src, dst, start, stop, count) -> None:
        f, tile, width, step_c = self.f, self.tile, self.layout.width, self.a["step_c"]
        self.clear(dst, 0, start)
        length = f.sub(stop, start)
        unit = f.cmp("eq", self.a["step2"], 1)
        whole = length if tile.masked else f.and_(length, -tile.lanes)
        whole = f.select(unit, whole, 0)
        with f.loop(0, whole, tile.lanes) as x, f.loop(0, count, tile.lanes) as j:
            place = f.gep(dst, f.add(f.mul(f.add(start, x), width), j), tile.compute)
            source = f.gep(src, f.add(x, f.mul(j, step_c)), tile.memory)
            f.call("void", self.turn, [source, place, step_c, f.sub(count, j), f.sub(length, x),
                                       f.const(width, "i64")])
        with f.loop(whole, length) as x, f.loop(0, count) as j:
            source = f.add(f.mul(x, self.a["step2"]), f.mul(j, step_c))
            value = load_scalar(f, tile, f.gep(src, source, tile.memory))
            place = f.add(f.mul(f.add(start, x), width), j)
            f.store(value, f.gep(dst, place, tile.compute))
        self.clear(dst, stop, self.a["ext2"])


def turn_block(module: Module, name: str, tile: Tile, part: str = "") -> None:
    """Define name(src, dst, stride, count, depth, step), of `part`: turn a square of elements.

    dst[k * step + i] = src[i * stride + k] for i, k < lanes; where i >= count, the last row again;
    where k >= depth (on machines with masks), 0.
    """
    f = module.function(name, [("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "stride"),
                               ("i64", "count"), ("i64", "depth"), ("i64", "step")],
                        part=part or name)
    line, rows = f.args["src"], []
    mask = f.lane_mask(tile.lanes, f.args["depth"]) if tile.masked else None
    for lane in range(tile.lanes):
        rows.append(load_lanes(f, tile, line, mask))
        step = f.select(f.cmp("sgt", f.args["count"], lane + 1), f.args["stride"], 0)
        line = f.gep(line, step, tile.memory)
    for lane, row in enumerate(transpose(f, rows, max(1, 16 // tile.itemsize))):
        f.store(row, f.args["dst"], f.mul(f.args["step"], lane))


# ---------------------------------------------------------------------- runs
def copy_run(f: Function, tile: Tile, src: Value, dst: Value, count: Value,
             step: Value | None = None) -> None:
    """dst[i] = src[i * step]; up to a vector may be written behind the end."""
    if step is not None:
        with f.when_else(f.cmp("eq", step, 1)) as otherwise:
            copy_run(f, tile, src, dst, count)
            otherwise()
            with f.loop(0, count) as i:
                f.store(load_scalar(f, tile, f.gep(src, f.mul(i, step), tile.memory)), dst, i)
        return
    whole = f.and_(count, -tile.lanes) if tile.lanes > 1 else count
    with f.loop(0, whole, tile.lanes) as i:
        f.store(load_lanes(f, tile, f.gep(src, i, tile.memory)), dst, i)
    if tile.masked:
        with f.when(f.cmp("slt", whole, count)):
            mask = f.lane_mask(tile.lanes, f.sub(count, whole))
            value = load_lanes(f, tile, f.gep(src, whole, tile.memory), mask)
            f.store(value, f.gep(dst, whole, tile.compute))
    else:
        with f.loop(whole, count) as i:
            f.store(load_scalar(f, tile, f.gep(src, i, tile.memory)), dst, i)


def clear_run(f: Function, tile: Tile, dst: Value, count: Value) -> None:
    """Zeros to dst[0..count]; up to a vector may be written behind the end."""
    with f.loop(0, count, tile.lanes) as i:
        f.store(f.const(0, tile.vector), dst, i)
