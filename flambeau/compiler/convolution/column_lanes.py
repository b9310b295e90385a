"""Grouped convolutions of row-major images: lanes are neighbouring pixels of a row.

A tile is a few rows of results, one vector wide (a backward stride of 2: two vectors, which are
interleaved when stored), for a few channels of a group. A source row is loaded once for each shift
that its taps need and multiplied with all of them; for a stride of 2 pairs of vectors are parted
into even and odd pixels. What lies outside of a row is masked off, rows outside are zeros.
"""

from __future__ import annotations

from flambeau.compiler.convolution.window import GROUPED_SLOTS, Frame
from flambeau.compiler.emitter import Function, Value, vector
from flambeau.compiler.frame import chunk_range
from flambeau.compiler.products.packing import add, fold, load_scalar, multiply_add

__all__ = ["emit", "emit_weights", "outputs", "supported"]

_LARGEST_STRIDE = 2
_FEW_TAPS = 9  # factors that stay in registers over a row


def supported(masked: bool, stride: int) -> bool:
    """Whether rows can be read by masked vectors and parted by a few shuffles."""
    return masked and stride <= _LARGEST_STRIDE


def outputs(frame_outer: int, weights: bool) -> int:
    """Channels of the result that a tile holds."""
    return next(n for n in ((2, 1) if weights else (4, 2, 1)) if frame_outer % n == 0)


class _Row:
    """Vectors of source rows: where a tile's columns lie, and which lanes are inside."""

    def __init__(self, f: Function, frame: Frame, slot, x: Value):
        self.f, self.frame, self.tile = f, frame, frame.tile
        axis = frame.spec.columns
        self.start = f.add(frame.scaled(f, axis, x), slot["base_x"])
        places = sorted({place for pairs in frame.x.reads for _, place in pairs})
        self.pairs = not axis.backward and axis.stride == 2
        if self.pairs:
            lanes = self.tile.lanes
            firsts = sorted({place - place % 2 for place in places})
            self.loads = [first + part for first in firsts for part in (0, lanes)]
        else:
            self.loads = places
        limit = slot["in_x"]
        self.masks = {load: lane_mask(f, self.tile.lanes, f.add(self.start, load), limit)
                      for load in self.loads}

    def vectors(self, row: Value) -> dict[int, Value]:
        """By place in the pattern: the vector of source pixels that lane 0.. read there."""
        f, tile, lanes = self.f, self.tile, self.tile.lanes
        line = f.gep(row, self.start, tile.memory)
        raw = {load: f.masked_load(tile.vector, f.gep(line, load, tile.memory), mask)
               for load, mask in self.masks.items()}
        if not self.pairs:
            return raw
        found = {}
        for first in self.loads[::2]:
            for odd in (0, 1):
                found[first + odd] = f.shuffle(raw[first], raw[first + lanes],
                                               range(odd, 2 * lanes, 2))
        return found


def lane_mask(f: Function, lanes: int, start: Value, limit: Value) -> Value:
    """The lanes with 0 <= start + lane < limit."""
    if lanes < 8:
        places = f.add(f.iota(lanes, "i32"), f.splat(f.cast("trunc", start, "i32"), lanes))
        return f.cmp("ult", places, f.splat(f.cast("trunc", limit, "i32"), lanes))
    low = f.smin(f.smax(f.sub(0, start), 0), lanes)
    high = f.smin(f.smax(f.sub(limit, start), 0), lanes)
    low, high = (f.shl(f.const(-1, "i32"), f.cast("trunc", x, "i32")) for x in (low, high))
    bits = f.cast("trunc", f.and_(low, f.not_(high)), f"i{lanes}")
    return f.cast("bitcast", bits, vector(lanes, "i1"))


def _row_pointers(f: Function, frame: Frame, slot, base: Value, y: Value, zeros: Value) -> list:
    """(address, whether it is inside) of the source rows of the tile at row y."""
    start = f.add(frame.scaled(f, frame.spec.rows, y), slot["base_y"])
    found = []
    for r in range(frame.y.extent):
        place = f.add(start, r)
        here = f.gep(base, f.mul(place, slot["source_y"]), frame.tile.memory)
        inside = f.cmp("ult", place, slot["in_y"])
        found.append((f.select(inside, here, zeros), inside))
    return found


def _clear(f: Function, frame: Frame, slot, work: Value) -> tuple[Value, Value]:
    """(a row of zeros, what follows it in the workspace)."""
    lanes = frame.tile.lanes
    size = f.mul(f.ceil_div(f.add(f.smax(slot["in_x"], slot["out_x"]), lanes), lanes), lanes)
    with f.loop(0, size, lanes) as i:
        f.store(f.const(0, frame.tile.vector), work, i)
    return work, f.gep(work, size, frame.tile.memory)


# ---------------------------------------------------------------------- forward
def emit(frame: Frame) -> None:
    """The kernel that writes `result`: each task owns planes of one image."""
    count = outputs(frame.spec.outer, False)
    kept = frame.spec.inner == frame.spec.outer == 1 and frame.taps <= _FEW_TAPS
    if not kept:
        _define_pack_factors(frame)
    _define_planes(frame, kept)
    f, slot, work = frame.kernel()
    zeros, rest = _clear(f, frame, slot, work)
    planes = f.udiv(slot["channels"], count)
    first, last = chunk_range(f, f.mul(slot["n"], planes))
    factors = f.gep(rest, 2 * frame.tile.lanes, frame.tile.memory)
    f.call("void", "planes", [f.args["args"], factors, zeros, rest, first, last])


def _define_pack_factors(frame: Frame) -> None:
    """Define pack_factors(args, factors, channel): weights as [j][output][tap], then the bias."""
    f, slot = frame.helper("pack_factors", [("ptr noalias", "factors"), ("i64", "channel")])
    a, tile, spec = f.args, frame.tile, frame.spec
    count = outputs(spec.outer, False)
    with f.loop(0, count) as o:
        channel = f.add(a["channel"], o)
        start = f.add(f.mul(f.udiv(channel, spec.outer), slot["weight_group"]),
                      f.mul(f.urem(channel, spec.outer), slot["weight_result"]))
        with f.loop(0, spec.inner) as j, f.loop(0, spec.rows.kernel) as ky, \
                f.loop(0, spec.columns.kernel) as kx:
            offset = f.add(f.add(start, f.mul(j, slot["weight_source"])),
                           f.add(f.mul(ky, slot["weight_y"]), f.mul(kx, slot["weight_x"])))
            place = f.add(f.mul(f.add(f.mul(j, count), o), frame.taps),
                          f.add(f.mul(ky, spec.columns.kernel), kx))
            f.store(load_scalar(f, tile, f.gep(slot["weight"], offset, tile.memory)),
                    a["factors"], place)
        if spec.bias:
            item = f.load(tile.memory, slot["bias"], f.mul(channel, slot["bias_stride"]))
            f.store(item, a["factors"], f.add(o, frame.taps * spec.inner * count))


def _define_planes(frame: Frame, kept: bool) -> None:
    """Define planes(args, factors, zeros, dummy, first, last): these tasks' planes. `kept`: all
    factors stay in registers."""
    f, slot = frame.helper("planes", [
        ("ptr noalias", "factors"), ("ptr noalias", "zeros"), ("ptr noalias", "dummy"),
        ("i64", "first"), ("i64", "last")])
    a, tile, spec = f.args, frame.tile, frame.spec
    count = outputs(spec.outer, False)
    planes = f.udiv(slot["channels"], count)
    with f.loop(a["first"], a["last"]) as task:
        image = f.udiv(task, planes)
        channel = f.mul(f.sub(task, f.mul(image, planes)), count)
        source = f.mul(f.udiv(channel, spec.outer), spec.inner)
        offset = f.add(f.mul(image, slot["source_n"]), f.mul(source, slot["source_c"]))
        source = f.gep(slot["source"], offset, tile.memory)
        target = f.add(f.mul(image, slot["result_n"]), f.mul(channel, slot["result_c"]))
        target = f.gep(slot["result"], target, tile.memory)
        if kept:
            factors, start = _own_factors(f, frame, slot, channel)
        else:
            f.call("void", "pack_factors", [a["args"], a["factors"], channel])
            factors, start = None, None
        with f.loop(0, slot["out_y"], frame.rows) as y:
            _emit_row(f, frame, slot, source, target, y, factors, start)
        if frame.finish:
            area = f.mul(slot["out_y"], slot["out_x"])
            frame.finish.call(f, len(GROUPED_SLOTS), target, slot["result_c"], image, area,
                              (0, area), (channel, count))


def _emit_row(f: Function, frame: Frame, slot: dict, source: Value, target: Value, y: Value,
              kept: list | None, start: Value | None) -> None:
    """A row of tiles."""
    a, tile, spec = f.args, frame.tile, frame.spec
    count = outputs(spec.outer, False)
    rows = _row_pointers(f, frame, slot, source, y, a["zeros"])
    with f.loop(0, slot["out_x"], tile.lanes * frame.columns) as x:
        row = _Row(f, frame, slot, x)
        sums = _start_sums(f, frame, count, start)
        if kept is not None:
            _multiply_rows(f, frame, row, [here for here, _ in rows], kept, sums)
        else:
            with f.loop(0, spec.inner) as j:
                here = [f.gep(at, f.mul(j, f.select(inside, slot["source_c"], 0)), tile.memory)
                        for at, inside in rows]
                factors = f.gep(a["factors"], f.mul(j, count * frame.taps), tile.memory)
                _multiply_rows(f, frame, row, here, _factors(f, frame, factors, count), sums)
        _store_sums(f, frame, slot, target, sums, y, x)


def _own_factors(f: Function, frame: Frame, slot: dict, channel: Value) -> tuple[list, Value]:
    """([[tap]] in all lanes, the bias) of a plane of a depthwise convolution."""
    tile, spec = frame.tile, frame.spec
    base = f.gep(slot["weight"], f.mul(channel, slot["weight_group"]), tile.memory)
    found = []
    for ky in range(spec.rows.kernel):
        for kx in range(spec.columns.kernel):
            offset = f.add(f.mul(slot["weight_y"], ky), f.mul(slot["weight_x"], kx))
            found.append(f.splat(f.load(tile.memory, base, offset), tile.lanes))
    start = f.const(0, tile.vector)
    if spec.bias:
        place = f.mul(channel, slot["bias_stride"])
        start = f.splat(f.load(tile.memory, slot["bias"], place), tile.lanes)
    return [found], start


def _factors(f: Function, frame: Frame, pointer: Value, count: int = 1) -> list[list[Value]]:
    """[output][tap], each in all lanes."""
    tile = frame.tile
    return [[f.splat(f.load(tile.memory, pointer, o * frame.taps + tap), tile.lanes)
             for tap in range(frame.taps)] for o in range(count)]


def _start_sums(f: Function, frame: Frame, count: int, start: Value | None) -> list:
    """[output][row][position]: the bias or 0."""
    tile, spec, sums = frame.tile, frame.spec, []
    for o in range(count):
        first = start or f.const(0, tile.vector)
        if spec.bias and start is None:
            place = frame.taps * spec.inner * count + o
            first = f.splat(f.load(tile.memory, f.args["factors"], place), tile.lanes)
        sums.append([[f.var(tile.vector, first) for _ in range(frame.columns)]
                     for _ in range(frame.rows)])
    return sums


def _multiply_rows(f: Function, frame: Frame, row: _Row, rows: list[Value], factors: list,
                   sums: list) -> None:
    """Add what one source channel gives."""
    tile, width = frame.tile, frame.spec.columns.kernel
    for r, pointer in enumerate(rows):
        meets = frame.y.at(r)
        if not meets:
            continue
        vectors = row.vectors(pointer)
        for i, ky in meets:
            for position, pairs in enumerate(frame.x.reads):
                for kx, place in pairs:
                    for o, plane in enumerate(sums):
                        total = plane[i][position]
                        factor = factors[o][ky * width + kx]
                        total.set(multiply_add(f, tile, vectors[place], factor, total.get()))
        frame.settle(f, [total for plane in sums for line in plane for total in line])


def _store_sums(f: Function, frame: Frame, slot: dict, target: Value, sums: list, y: Value,
                x: Value) -> None:
    """Store the finished tile: the rows and lanes of it that lie inside."""
    a, tile, lanes = f.args, frame.tile, frame.tile.lanes
    masks = [lane_mask(f, lanes, f.add(x, q * lanes), slot["out_x"])
             for q in range(frame.columns)]
    for o, plane in enumerate(sums):
        base = f.gep(target, f.add(f.mul(slot["result_c"], o), x), tile.memory)
        for i, line in enumerate(plane):
            inside = f.cmp("slt", f.add(y, i), slot["out_y"])
            here = f.gep(base, f.mul(f.add(y, i), slot["result_y"]), tile.memory)
            here = f.select(inside, here, a["dummy"])
            values = [total.get() for total in line]
            if frame.columns == 2:
                order = [lane for pair in zip(range(lanes), range(lanes, 2 * lanes), strict=True)
                         for lane in pair]
                values = [f.shuffle(*values, order[:lanes]), f.shuffle(*values, order[lanes:])]
            for q, (value, mask) in enumerate(zip(values, masks, strict=True)):
                f.masked_store(value, f.gep(here, q * lanes, tile.memory), mask)


# ---------------------------------------------------------------------- gradient of the weight
def emit_weights(frame: Frame) -> None:
    """The kernel that writes the weight's gradient: each task owns some channels of the result and
    one of the source. Sums of an image go to the total, image after image."""
    _define_products(frame)
    f, slot, work = frame.kernel()
    tile, spec = frame.tile, frame.spec
    count = outputs(spec.outer, True)
    zeros, totals = _clear(f, frame, slot, work)
    size = count * frame.taps * tile.lanes
    planes = f.mul(f.udiv(slot["channels"], count), spec.inner)
    first, last = chunk_range(f, planes)
    with f.loop(first, last) as task:
        j, channel = f.urem(task, spec.inner), f.mul(f.udiv(task, spec.inner), count)
        group = f.udiv(channel, spec.outer)
        source = f.add(f.mul(group, spec.inner), j)
        with f.loop(0, size, tile.lanes) as i:
            f.store(f.const(0, tile.vector), totals, i)
        with f.loop(0, slot["n"]) as image:
            offset = f.add(f.mul(image, slot["source_n"]), f.mul(source, slot["source_c"]))
            other = f.add(f.mul(image, slot["result_n"]), f.mul(channel, slot["result_c"]))
            f.call("void", "products", [
                f.args["args"], f.gep(slot["source"], offset, tile.memory),
                f.gep(slot["result"], other, tile.memory), zeros, totals])
        with f.loop(0, count) as o, f.loop(0, spec.rows.kernel) as ky, \
                f.loop(0, spec.columns.kernel) as kx:
            tap = f.add(f.mul(ky, spec.columns.kernel), kx)
            place = f.mul(f.add(f.mul(o, frame.taps), tap), tile.lanes)
            total = fold(f, tile, f.load(tile.vector, totals, place))
            result = f.add(f.urem(channel, spec.outer), o)
            offset = f.add(f.mul(group, slot["weight_group"]),
                           f.mul(result, slot["weight_result"]))
            offset = f.add(f.add(offset, f.mul(j, slot["weight_source"])),
                           f.add(f.mul(ky, slot["weight_y"]), f.mul(kx, slot["weight_x"])))
            f.store(total, slot["weight"], offset)


def _passes(frame: Frame, count: int) -> list[range]:
    """The kernel's rows, in groups whose sums fit in registers beside the tile."""
    free = 27 - frame.rows * count
    step = max(1, free // (frame.spec.columns.kernel * count))
    kernel = frame.spec.rows.kernel
    return [range(start, min(start + step, kernel)) for start in range(0, kernel, step)]


def _define_products(frame: Frame) -> None:
    """Define products(args, source, result, zeros, totals): totals[output][tap][lane] += source at
    the tap x gradient of the result, over one image."""
    f, slot = frame.helper("products", [
        ("ptr noalias", "source"), ("ptr noalias", "result"), ("ptr noalias", "zeros"),
        ("ptr noalias", "totals")])
    tile, spec, width = frame.tile, frame.spec, frame.spec.columns.kernel
    count = outputs(spec.outer, True)
    for kernel_rows in _passes(frame, count):
        sums = {(o, ky, kx): f.var(tile.vector, 0) for o in range(count) for ky in kernel_rows
                for kx in range(width)}
        with f.loop(0, slot["out_y"], frame.rows) as y:
            rows = _row_pointers(f, frame, slot, f.args["source"], y, f.args["zeros"])
            lines = _gradient_rows(f, frame, slot, y, count)
            with f.loop(0, slot["out_x"], tile.lanes) as x:
                _tile_products(f, frame, slot, x, rows, lines, sums, kernel_rows)
        for (o, ky, kx), total in sums.items():
            place = (o * frame.taps + ky * width + kx) * tile.lanes
            old = f.load(tile.vector, f.args["totals"], place)
            f.store(add(f, tile, old, total.get()), f.args["totals"], place)


def _gradient_rows(f: Function, frame: Frame, slot, y: Value, count: int) -> list:
    """[output][row]: addresses of the result's gradient; zeros outside."""
    a, tile, found = f.args, frame.tile, []
    for o in range(count):
        base = f.gep(a["result"], f.mul(slot["result_c"], o), tile.memory)
        found.append([f.select(f.cmp("slt", f.add(y, i), slot["out_y"]),
                               f.gep(base, f.mul(f.add(y, i), slot["result_y"]), tile.memory),
                               a["zeros"]) for i in range(frame.rows)])
    return found


def _tile_products(f: Function, frame: Frame, slot, x: Value, rows: list, lines: list, sums: dict,
                   kernel_rows: range) -> None:
    tile = frame.tile
    row = _Row(f, frame, slot, x)
    mask = lane_mask(f, tile.lanes, x, slot["out_x"])
    given = [[f.masked_load(tile.vector, f.gep(line, x, tile.memory), mask) for line in plane]
             for plane in lines]
    for r, (pointer, _) in enumerate(rows):
        meets = [(i, ky) for i, ky in frame.y.at(r) if ky in kernel_rows]
        if not meets:
            continue
        vectors = row.vectors(pointer)
        for i, ky in meets:
            for kx, place in frame.x.reads[0]:
                for o, plane in enumerate(given):
                    total = sums[o, ky, kx]
                    total.set(multiply_add(f, tile, vectors[place], plane[i], total.get()))
        frame.settle(f, list(sums.values()))
