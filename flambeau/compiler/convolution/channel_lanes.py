"""Grouped convolutions of channels_last images: lanes are neighbouring channels.

A tile is a few rows and columns of results, one vector of channels deep. Each source pixel that it
needs is loaded once and multiplied with all taps that meet it; with several channels a group, each
of them is first spread over the lanes of its group. Vectors follow each other along the channels,
then tiles along the row, so that memory is read in long lines.

Pixels outside of the image: columns are masked off (or read from zeros), rows are read from zeros.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flambeau.compiler.convolution.window import GROUPED_SLOTS, Frame
from flambeau.compiler.emitter import Function, Value, vector
from flambeau.compiler.frame import chunk_range
from flambeau.compiler.products.packing import add, load_scalar, multiply_add

__all__ = ["emit", "emit_weights", "pixel_items", "supported"]


def supported(lanes: int, masked: bool, inner: int, outer: int, channels: int) -> bool:
    """Whether groups fit in vectors of `lanes`: they do not straddle, and the sources of a vector
    of results fill two vectors at most; without masks, whole ones."""
    if lanes % outer or max(inner, outer) > lanes or inner > 2 * outer:
        return False
    return masked or channels >= lanes and inner >= outer


def pixel_items(values: dict, lanes: int) -> int:
    """Elements of the room for one pixel."""
    count = max(values["channels"], values["source_channels"])
    return -(-count // 16) * 16 + 2 * max(lanes, 16)


class _Tiles:
    """The tiles of one row: addresses, loads and stores inside of a function.

    A tile is visited vector by vector along the channels. The last vector ends with the last
    channel: what it has in common with the one before is computed twice, to the same bits. Masks,
    which cost as much as a multiplication, are for images of fewer channels than lanes, and for
    groups that have more results than sources.
    """

    def __init__(self, f: Function, frame: Frame, slot: dict, x: Value):
        self.f, self.frame, self.tile, self.spec = f, frame, frame.tile, frame.spec
        self.lanes, a = self.tile.lanes, f.args
        start = f.add(frame.scaled(f, frame.spec.columns, x), slot["base_x"])
        offsets = [f.mul(f.add(start, c), slot["source_x"]) for c in range(frame.x.extent)]
        valid = [f.cmp("ult", f.add(start, c), slot["in_x"]) for c in range(frame.x.extent)]
        self.pixels = []
        for r in range(frame.y.extent):
            row = f.load("ptr", a["rows"], r)
            some = f.cmp("ne", row, f.const(0, "ptr"))
            self.pixels.append([
                f.select(f.and_(some, ok), f.gep(row, offset, self.tile.memory), a["zeros"])
                for ok, offset in zip(valid, offsets, strict=True)])
        self.outs = [[self._out(slot, i, f.add(x, q)) for q in range(frame.columns)]
                     for i in range(frame.rows)]
        if self.spec.narrow:
            self.mask = self._first(a["count"])
        self.masks = [None] * -(-self.span // self.lanes)
        if self.spec.narrow or self.span < self.lanes:
            count = f.udiv(f.mul(f.smin(a["count"], self.lanes), self.spec.inner),
                           self.spec.outer)
            self.masks = [self._first(f.smax(f.sub(count, part * self.lanes), 0))
                          for part in range(len(self.masks))]

    def _out(self, slot: dict, i: int, x: Value) -> Value:
        """The result's pixel (i, x) of the tile; a dummy where there is none."""
        f = self.f
        row = f.load("ptr", f.args["outs"], i)
        inside = f.and_(f.cmp("ne", row, f.const(0, "ptr")), f.cmp("slt", x, slot["out_x"]))
        here = f.gep(row, f.mul(x, slot["result_x"]), self.tile.memory)
        return f.select(inside, here, f.args["dummy"])

    def _first(self, count: Value) -> Value:
        """Mask of the first `count` lanes."""
        f = self.f
        count = f.cast("trunc", f.smin(count, self.lanes), "i32")
        ones = f.sub(f.shl(f.const(1, "i32"), count), 1)
        bits = f.cast("trunc", ones, f"i{self.lanes}")
        return f.cast("bitcast", bits, vector(self.lanes, "i1"))

    @contextlib.contextmanager
    def vectors(self, count: Value) -> Iterator[Value]:
        """Loop over vectors of the first `count` channels of the result: their number from 0."""
        f = self.f
        with f.loop(0, f.ceil_div(count, self.lanes)) as number:
            self.channel = vector_start(f, self.lanes, number, count)
            yield number

    @property
    def span(self) -> int:
        """Source channels that one vector of results reads."""
        return self.lanes // self.spec.outer * self.spec.inner

    def pixel(self, r: int, c: int, j: int) -> Value:
        """Channel j of each group of one source pixel, in the lanes of the group's results."""
        f, spec = self.f, self.spec
        source = f.udiv(f.mul(self.channel, spec.inner), spec.outer)
        pointer = f.gep(self.pixels[r][c], source, self.tile.memory)
        found = [self._load(f.gep(pointer, part * self.lanes, self.tile.memory), mask)
                 for part, mask in enumerate(self.masks)]
        if spec.inner == 1 and spec.outer == 1:
            return found[0]
        picks = [lane // spec.outer * spec.inner + j for lane in range(self.lanes)]
        return f.shuffle(found[0], found[1] if len(found) > 1 else None, picks)

    def _load(self, pointer: Value, mask: Value | None) -> Value:
        if mask is None:
            return self.f.load(self.tile.vector, pointer)
        return self.f.masked_load(self.tile.vector, pointer, mask)

    def result(self, i: int, q: int) -> Value:
        """A vector of the result's pixel."""
        pointer = self.f.gep(self.outs[i][q], self.channel, self.tile.memory)
        return self._load(pointer, self.mask if self.spec.narrow else None)

    def store(self, value: Value, i: int, q: int) -> None:
        pointer = self.f.gep(self.outs[i][q], self.channel, self.tile.memory)
        if self.spec.narrow:
            self.f.masked_store(value, pointer, self.mask)
        else:
            self.f.store(value, pointer)


def vector_start(f: Function, lanes: int, number: Value, count: Value) -> Value:
    """First channel of vector `number` of `count` channels: the last vector ends with them."""
    return f.smax(f.smin(f.mul(number, lanes), f.sub(count, lanes)), 0)


def _segment(f: Function, slot, segment: Value) -> tuple[Value, Value]:
    """(first, number of) channels of a segment; the last one takes what is left."""
    channel = f.mul(segment, slot["segment"])
    last = f.cmp("eq", f.add(segment, 1), slot["segments"])
    return channel, f.select(last, f.sub(slot["channels"], channel), slot["segment"])


def _rows_outside(f: Function, frame: Frame, slot, base: Value, y: Value, rows: Value) -> None:
    """Write the addresses of the source rows that the tile at row y reads; null: outside."""
    start = f.add(frame.scaled(f, frame.spec.rows, y), slot["base_y"])
    for r in range(frame.y.extent):
        place = f.add(start, r)
        here = f.gep(base, f.mul(place, slot["source_y"]), frame.tile.memory)
        inside = f.cmp("ult", place, slot["in_y"])
        f.store(f.select(inside, here, f.const(0, "ptr")), f.gep(rows, r, "ptr"))


def _result_rows(f: Function, frame: Frame, slot, base: Value, y: Value, bottom: Value,
                 rows: Value) -> None:
    """Write the addresses of the tile's rows in the result; null: outside."""
    for i in range(frame.rows):
        here = f.gep(base, f.mul(f.add(y, i), slot["result_y"]), frame.tile.memory)
        inside = f.cmp("slt", f.add(y, i), bottom)
        f.store(f.select(inside, here, f.const(0, "ptr")), f.gep(rows, i, "ptr"))


# ---------------------------------------------------------------------- forward
def emit(frame: Frame) -> None:
    """The kernel that writes `result`."""
    _define_pack_weights(frame)
    _define_results(frame)
    f, slot, work = frame.kernel()
    tile, spec = frame.tile, frame.spec
    zeros, dummy, packed = _workspace(f, frame, slot, work)
    images = f.mul(slot["n"], slot["bands"])
    current = f.var("i64", -1)
    rows, outs = f.array("ptr", frame.y.extent), f.array("ptr", frame.rows)
    first, last = chunk_range(f, f.mul(slot["segments"], images))
    with f.loop(first, last) as task:
        segment, rest = f.udiv(task, images), f.urem(task, images)
        image, band = f.udiv(rest, slot["bands"]), f.urem(rest, slot["bands"])
        channel, count = _segment(f, slot, segment)
        source = f.mul(f.udiv(channel, spec.outer), spec.inner)
        with f.when(f.cmp("ne", segment, current.get())):
            current.set(segment)
            f.call("void", "pack_weights", [f.args["args"], packed, channel, count])
        top = f.mul(band, slot["band"])
        bottom = f.smin(f.add(top, slot["band"]), slot["out_y"])
        base = f.gep(slot["source"], f.add(f.mul(image, slot["source_n"]), source), tile.memory)
        result = f.gep(slot["result"], f.add(f.mul(image, slot["result_n"]), channel), tile.memory)
        with f.loop(top, bottom, frame.rows) as y:
            _rows_outside(f, frame, slot, base, y, rows)
            _result_rows(f, frame, slot, result, y, bottom, outs)
            f.call("void", "results", [f.args["args"], rows, outs, packed, zeros, dummy, count])
            if frame.finish:
                _finish(f, frame, slot, image, result, (y, bottom), (channel, count))


def _finish(f: Function, frame: Frame, slot, image: Value, result: Value, rows: tuple,
            channels: tuple) -> None:
    """The epilogue of a row of tiles: whole lines, or what is left of the band."""
    y, bottom = rows
    width = slot["out_x"]
    place = f.gep(result, f.mul(y, slot["result_y"]), frame.tile.memory)
    count = f.mul(f.smin(f.sub(bottom, y), frame.rows), width)
    frame.finish.call(f, len(GROUPED_SLOTS), place, slot["channels"], image,
                      f.mul(slot["out_y"], width), (f.mul(y, width), count), channels)


def _workspace(f: Function, frame: Frame, slot, work: Value) -> tuple[Value, Value, Value]:
    """(a pixel of zeros, room for one of the result, the rest)."""
    tile = frame.tile
    room = f.mul(f.ceil_div(f.smax(slot["channels"], slot["source_channels"]), 16), 16)
    room = f.add(room, 2 * max(tile.lanes, 16))
    with f.loop(0, room, tile.lanes) as i:
        f.store(f.const(0, tile.vector), work, i)
    dummy = f.gep(work, room, tile.memory)
    return work, dummy, f.gep(dummy, room, tile.memory)


def _define_pack_weights(frame: Frame) -> None:
    """Define pack_weights(args, packed, channel, count): for each vector of channels the weights
    [j][tap][lane], where j counts the channels of a group; then the bias."""
    f, slot = frame.helper("pack_weights", [("ptr noalias", "packed"), ("i64", "channel"),
                                            ("i64", "count")])
    a, tile, spec = f.args, frame.tile, frame.spec
    size = frame.taps * spec.inner + spec.bias
    with f.loop(0, f.ceil_div(a["count"], tile.lanes)) as number, \
            f.loop(0, f.smin(a["count"], tile.lanes)) as lane:
        channel = f.add(a["channel"], vector_start(f, tile.lanes, number, a["count"]))
        channel = f.add(channel, lane)
        start = f.add(f.mul(f.udiv(channel, spec.outer), slot["weight_group"]),
                      f.mul(f.urem(channel, spec.outer), slot["weight_result"]))
        target = f.gep(a["packed"], f.add(f.mul(number, size * tile.lanes), lane), tile.memory)
        with f.loop(0, spec.inner) as j, f.loop(0, spec.rows.kernel) as ky, \
                f.loop(0, spec.columns.kernel) as kx:
            offset = f.add(f.add(start, f.mul(j, slot["weight_source"])),
                           f.add(f.mul(ky, slot["weight_y"]), f.mul(kx, slot["weight_x"])))
            tap = f.add(f.mul(j, frame.taps), f.add(f.mul(ky, spec.columns.kernel), kx))
            f.store(load_scalar(f, tile, f.gep(slot["weight"], offset, tile.memory)),
                    f.gep(target, f.mul(tap, tile.lanes), tile.memory))
        if spec.bias:
            item = f.load(tile.memory, slot["bias"], f.mul(channel, slot["bias_stride"]))
            f.store(item, target, frame.taps * spec.inner * tile.lanes)


_TILE_ARGS = [("ptr noalias", "rows"), ("ptr noalias", "outs"), ("ptr noalias", "packed"),
              ("ptr noalias", "zeros"), ("ptr noalias", "dummy"), ("i64", "count")]


def _define_results(frame: Frame) -> None:
    """Define results(args, rows, outs, packed, zeros, dummy, count): a row of tiles.

    `rows` and `outs` hold the addresses of the source's and the result's rows, null where there is
    none, at the first of `count` channels.
    """
    f, slot = frame.helper("results", _TILE_ARGS)
    size = (frame.taps * frame.spec.inner + frame.spec.bias) * frame.tile.lanes
    with f.loop(0, slot["out_x"], frame.columns) as x:
        tiles = _Tiles(f, frame, slot, x)
        with tiles.vectors(f.args["count"]) as number:
            weights = f.gep(f.args["packed"], f.mul(number, size), frame.tile.memory)
            sums = _tile_sums(f, frame, tiles, weights)
            for i, line in enumerate(sums):
                for q, total in enumerate(line):
                    tiles.store(total.get(), i, q)


def _tile_sums(f: Function, frame: Frame, tiles: _Tiles, weights: Value) -> list:
    """The finished sums of one tile, [row][column]: each pixel meets all of its taps at once."""
    tile, spec = frame.tile, frame.spec
    start = f.const(0, tile.vector)
    if spec.bias:
        start = f.load(tile.vector, weights, frame.taps * spec.inner * tile.lanes)
    sums = [[f.var(tile.vector, start) for _ in range(frame.columns)] for _ in range(frame.rows)]
    for j in range(spec.inner):
        factors = [f.load(tile.vector, weights, (j * frame.taps + tap) * tile.lanes)
                   for tap in range(frame.taps)]
        for r in range(frame.y.extent):
            for c in range(frame.x.extent):
                meets = [(i, q, ky, kx) for i, ky in frame.y.at(r) for q, kx in frame.x.at(c)]
                if not meets:
                    continue
                item = tiles.pixel(r, c, j)
                for i, q, ky, kx in meets:
                    factor = factors[ky * spec.columns.kernel + kx]
                    sums[i][q].set(multiply_add(f, tile, item, factor, sums[i][q].get()))
            frame.settle(f, [total for line in sums for total in line])
    return sums


# ---------------------------------------------------------------------- gradient of the weight
def emit_weights(frame: Frame) -> None:
    """The kernel that writes the weight's gradient: each task owns a segment of channels.

    Sums over a tile go to the sums of the image, those to the total: three levels, one order.
    """
    _define_products(frame)
    _define_store_weights(frame)
    f, slot, work = frame.kernel()
    tile, spec = frame.tile, frame.spec
    zeros, _, sums = _workspace(f, frame, slot, work)
    rows, outs = f.array("ptr", frame.y.extent), f.array("ptr", frame.rows)
    first, last = chunk_range(f, slot["segments"])
    with f.loop(first, last) as segment:
        channel, count = _segment(f, slot, segment)
        source = f.mul(f.udiv(channel, spec.outer), spec.inner)
        size = f.mul(f.ceil_div(count, tile.lanes), frame.taps * spec.inner * tile.lanes)
        totals = f.gep(sums, size, tile.memory)
        with f.loop(0, f.mul(size, 2), tile.lanes) as i:
            f.store(f.const(0, tile.vector), sums, i)
        with f.loop(0, slot["n"]) as image:
            base = f.gep(slot["source"], f.add(f.mul(image, slot["source_n"]), source),
                         tile.memory)
            result = f.gep(slot["result"], f.add(f.mul(image, slot["result_n"]), channel),
                           tile.memory)
            with f.loop(0, slot["out_y"], frame.rows) as y:
                _rows_outside(f, frame, slot, base, y, rows)
                _result_rows(f, frame, slot, result, y, slot["out_y"], outs)
                f.call("void", "products", [f.args["args"], rows, outs, sums, zeros, zeros, count])
            with f.loop(0, size, tile.lanes) as i:
                part, total = f.load(tile.vector, sums, i), f.load(tile.vector, totals, i)
                f.store(add(f, tile, total, part), totals, i)
                f.store(f.const(0, tile.vector), sums, i)
        f.call("void", "store_weights", [f.args["args"], totals, channel, count])


def _define_products(frame: Frame) -> None:
    """Define products(args, rows, outs, packed, zeros, dummy, count): a row of tiles.

    For each vector of channels, packed[j][tap][lane] += source at the tap x gradient of the result.
    """
    f, slot = frame.helper("products", _TILE_ARGS)
    with f.loop(0, slot["out_x"], frame.columns) as x:
        tiles = _Tiles(f, frame, slot, x)
        with tiles.vectors(f.args["count"]) as number:
            given = [[tiles.result(i, q) for q in range(frame.columns)]
                     for i in range(frame.rows)]
            size = frame.taps * frame.spec.inner * frame.tile.lanes
            target = f.gep(f.args["packed"], f.mul(number, size), frame.tile.memory)
            for j in range(frame.spec.inner):
                for kernel_rows in _passes(frame):
                    _tile_products(f, frame, tiles, given, target, j, kernel_rows)


def _passes(frame: Frame) -> list[range]:
    """The kernel's rows, in groups whose sums fit in registers beside the tile."""
    free = 28 - frame.rows * frame.columns
    step = max(1, free // frame.spec.columns.kernel)
    kernel = frame.spec.rows.kernel
    return [range(start, min(start + step, kernel)) for start in range(0, kernel, step)]


def _tile_products(f: Function, frame: Frame, tiles: _Tiles, given: list, target: Value, j: int,
                   kernel_rows: range) -> None:
    tile, width = frame.tile, frame.spec.columns.kernel
    sums = {(ky, kx): f.var(tile.vector, 0) for ky in kernel_rows for kx in range(width)}
    for r in range(frame.y.extent):
        for c in range(frame.x.extent):
            meets = [(i, q, ky, kx) for i, ky in frame.y.at(r) if ky in kernel_rows
                     for q, kx in frame.x.at(c)]
            if not meets:
                continue
            item = tiles.pixel(r, c, j)
            for i, q, ky, kx in meets:
                total = sums[ky, kx]
                total.set(multiply_add(f, tile, item, given[i][q], total.get()))
        frame.settle(f, list(sums.values()))
    for (ky, kx), total in sums.items():
        place = (j * frame.taps + ky * width + kx) * tile.lanes
        old = f.load(tile.vector, target, place)
        f.store(add(f, tile, old, total.get()), target, place)


def _define_store_weights(frame: Frame) -> None:
    """Define store_weights(args, totals, channel, count): to the weight's own layout."""
    f, slot = frame.helper("store_weights", [("ptr noalias", "totals"), ("i64", "channel"),
                                             ("i64", "count")])
    a, tile, spec = f.args, frame.tile, frame.spec
    with f.loop(0, f.ceil_div(a["count"], tile.lanes)) as number, \
            f.loop(0, f.smin(a["count"], tile.lanes)) as lane:
        channel = f.add(a["channel"], vector_start(f, tile.lanes, number, a["count"]))
        channel = f.add(channel, lane)
        start = f.add(f.mul(f.udiv(channel, spec.outer), slot["weight_group"]),
                      f.mul(f.urem(channel, spec.outer), slot["weight_result"]))
        size = frame.taps * spec.inner * tile.lanes
        source = f.gep(a["totals"], f.add(f.mul(number, size), lane), tile.memory)
        with f.loop(0, spec.inner) as j, f.loop(0, spec.rows.kernel) as ky, \
                f.loop(0, spec.columns.kernel) as kx:
            offset = f.add(f.add(start, f.mul(j, slot["weight_source"])),
                           f.add(f.mul(ky, slot["weight_y"]), f.mul(kx, slot["weight_x"])))
            tap = f.add(f.mul(j, frame.taps), f.add(f.mul(ky, spec.columns.kernel), kx))
            f.store(f.load(tile.memory, source, f.mul(tap, tile.lanes)),
                    f.gep(slot["weight"], offset, tile.memory))
