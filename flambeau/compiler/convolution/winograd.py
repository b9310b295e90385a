"""Winograd's algorithm for kernels of 3 x 3: 4 x 4 results from 6 x 6 pixels, by 36 products.

    result = Aᵀ [sum over channels of (G w Gᵀ) * (Bᵀ x B)] A                     (* by element)

Lavin and Gray (2016), with the points 0, ±3/4, ±3/2 and infinity in place of 0, ±1, ±2 and
infinity: they halve the error (Barabasz et al. 2020 compare points), and the constants of A and B
are exact in float32. The sum over channels is a product of matrices for each of the 36 elements.
Each output takes 2.25 multiplications for each pair of channels in place of 9.

Two kernels. The first transforms the weights, which `direct.prepare_kernel` has packed. The second
takes pieces of the image, one a task: a padded copy, the tiles' transforms, and for each panel of
weights the 36 products, the inverse transform and the epilogue, all of it in the second-level
cache.
"""

from __future__ import annotations

import dataclasses
import functools

from flambeau.compiler.convolution.direct import store_pixels, store_planes
from flambeau.compiler.convolution.finish import Finish
from flambeau.compiler.convolution.image import PIECE, Layout, pack_image
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.products.blocks import prefetch
from flambeau.compiler.products.packing import Tile, multiply_add, tile_for
from flambeau.compiler.target import Target

__all__ = ["EDGE", "FACTORS", "OUT", "SPREAD_SLOTS", "WINOGRAD_SLOTS", "WinogradSpec",
           "spread_kernel", "winograd_kernel"]

OUT, TAPS, EDGE = 4, 3, 6
FACTORS = EDGE * EDGE
"""Results of a tile along an axis, taps, pixels; and products of a tile."""

SPREAD_SLOTS = ("packed", "panels", "panel_count", "channels", "first", "step", "pitch", "strip")
"""Weights as packed, and transformed; the tap that window position 0 meets, and the way to the next
(-1: the kernel is turned round); from a factor to the next, from a panel to the next."""

WINOGRAD_SLOTS = ("source", "result", "panels", "bias", "work", "work_stride",
                  "n", "images", "blocks_n", "blocks0", "blocks2", "tiles0", "tiles2", "splits",
                  "panel_count", "lanes", "channels", "pitch", "strip",
                  "copy_pitch", "turned_at", "turned_pitch", "turned_block", "sums_at",
                  "sums_pitch", "source_n", "source_c", "source_x0", "source_x2", "size0", "size2",
                  "result_n", "result_c", "result_x0", "result_x2", "grid0", "grid2", "low0",
                  "low2", "ext0", "ext2")

_SPREAD_POINTERS, _POINTERS = SPREAD_SLOTS[:2], WINOGRAD_SLOTS[:5]
_A, _B = 0.75, 1.5  # the points are 0, ±_A, ±_B and infinity
_AHEAD = 16  # steps of the sum by which weights are fetched before they are needed


@dataclasses.dataclass(frozen=True)
class WinogradSpec:
    """What is fixed when the main kernel is compiled.

    Attributes:
        rows, vectors: tiles and width of the register tile.
        source_last, result_last: channels are contiguous in the source, in the result.
        bias: it is added.
    """

    rows: int
    vectors: int
    source_last: bool
    result_last: bool
    bias: bool = False


# ---------------------------------------------------------------------- transforms of six
class _Algebra:
    """The three transforms along one axis, on vectors."""

    def __init__(self, f: Function, tile: Tile):
        self.f, self.tile = f, tile

    def _times(self, factor: float, x: Value, y: Value) -> Value:
        """factor * x + y."""
        return multiply_add(self.f, self.tile, self.f.const(factor, x.type), x, y)

    def pixels(self, d: list[Value]) -> list[Value]:
        """Bᵀ d: from 6 pixels to 6 factors."""
        aa, bb = _A * _A, _B * _B
        low, high = (self._times(aa * bb, d[k], self._times(-aa - bb, d[k + 2], d[k + 4]))
                     for k in (0, 1))
        middle = []
        for point, other in ((_A, bb), (_B, aa)):
            even, odd = (self._times(-other, d[k], d[k + 2]) for k in (2, 1))
            middle += [self._times(sign * point, odd, even) for sign in (1, -1)]
        return [low, *middle, high]

    def weights(self, g: list[Value]) -> list[Value]:
        """G g: from 3 weights to 6 factors."""
        f, aa, bb = self.f, _A * _A, _B * _B
        found = [f.fmul(g[0], f.const(1 / (aa * bb), g[0].type))]
        for point, other in ((_A, bb), (_B, aa)):
            square = point * point
            scale = 1 / (2 * square * (square - other))
            total = self._times(square, g[2], g[0])
            for sign in (1, -1):
                every = self._times(sign * point, g[1], total)
                found.append(f.fmul(every, f.const(scale, every.type)))
        return [*found, g[2]]

    def results(self, m: list[Value]) -> list[Value]:
        """Aᵀ m: from 6 factors to 4 results."""
        f = self.f
        sums = [f.fadd(m[1], m[2]), f.fadd(m[3], m[4])]
        gaps = [f.fsub(m[1], m[2]), f.fsub(m[3], m[4])]
        made = [f.fadd(f.fadd(m[0], sums[0]), sums[1])]
        for power, (a, b) in ((1, gaps), (2, sums)):
            scaled = f.fmul(a, f.const(_A ** power, a.type))
            made.append(self._times(_B ** power, b, scaled))
        made.append(self._times(_B ** 3, gaps[1], self._times(_A ** 3, gaps[0], m[5])))
        return made


def _both(f: Function, tile: Tile, rule, shape: tuple[int, int], load, store) -> None:
    """A transform along both axes: columns, then lines. In loops, whose values LLVM has to keep
    apart for much less time than those of a whole tile.

    Args:
        rule: the transform of one column or line; `shape`: its (inputs, results).
        load, store: (f, line, column), (f, line, column, value); the one looped over is a Value.
    """
    inputs, results = shape
    scratch = f.array(tile.vector, results * inputs)
    with f.loop(0, inputs) as x:
        made = rule([load(y, x) for y in range(inputs)])
        place = f.gep(scratch, f.mul(x, tile.lanes), tile.compute)
        for y, value in enumerate(made):
            f.store(value, place, y * inputs * tile.lanes, align=tile.lanes * tile.itemsize)
    with f.loop(0, results) as y:
        line = f.gep(scratch, f.mul(y, inputs * tile.lanes), tile.compute)
        for x, value in enumerate(rule([f.load(tile.vector, line, x * tile.lanes)
                                        for x in range(inputs)])):
            store(y, x, value)


# ---------------------------------------------------------------------- weights
@functools.lru_cache(maxsize=64)
def spread_kernel(vectors: int, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that transforms packed weights; slots `SPREAD_SLOTS`.

    packed[panel][channel][tap][lane] becomes panels[panel][factor][channel][lane].
    """
    tile = dataclasses.replace(tile_for("float", target), vectors=vectors)
    name, module = f"winograd_spread_{vectors}", Module(target.attributes)
    _spread(module, tile)
    f = kernel_function(module, name)
    slot = Slots(f, SPREAD_SLOTS, _SPREAD_POINTERS)
    first, last = chunk_range(f, f.mul(slot["panel_count"], slot["channels"]))
    with f.loop(first, last) as task:
        panel, channel = f.udiv(task, slot["channels"]), f.urem(task, slot["channels"])
        source = f.add(f.mul(task, TAPS * TAPS), slot["first"])
        target_ = f.add(f.mul(panel, slot["strip"]), f.mul(channel, tile.width))
        f.call("void", "spread", [
            f.gep(slot["packed"], f.mul(source, tile.width), tile.compute),
            f.gep(slot["panels"], target_, tile.compute), slot["step"], slot["pitch"]])
    return name, module.text()


def _spread(module: Module, tile: Tile) -> None:
    """Define spread(src, dst, step, pitch): the weights of a channel and a panel."""
    f = module.function("spread", [("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "step"),
                                   ("i64", "pitch")], internal=True)
    step = f.mul(f.args["step"], tile.width)
    with f.loop(0, tile.width, tile.lanes) as j:
        src, dst = (f.gep(f.args[word], j, tile.compute) for word in ("src", "dst"))

        def load(y: int, x: Value) -> Value:
            return f.load(tile.vector, src, f.mul(step, f.add(x, y * TAPS)))

        _both(f, tile, _Algebra(f, tile).weights, (TAPS, EDGE), load,
              _factor_store(f, tile, dst, f.args["pitch"]))


def _factor_store(f: Function, tile: Tile, place: Value, pitch: Value):
    """The rule that stores a factor; they lie `pitch` apart."""
    def store(y: Value, x: int, value: Value) -> None:
        f.store(value, f.gep(place, f.mul(f.add(f.mul(y, EDGE), x), pitch), tile.compute))

    return store


# ---------------------------------------------------------------------- the convolution
@functools.lru_cache(maxsize=64)
def winograd_kernel(spec: WinogradSpec, target: Target, finish: Finish | None = None
                    ) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that convolves; slots `WINOGRAD_SLOTS`, then the epilogue's."""
    tile = dataclasses.replace(tile_for("float", target), vectors=spec.vectors)
    flags = "".join(word for word, on in (("_from_last", spec.source_last),
                                          ("_to_last", spec.result_last),
                                          ("_bias", spec.bias)) if on)
    name = f"winograd_{spec.rows}x{spec.vectors}{flags}"
    if finish:
        name += f"_{finish.epilogue.name}"
    module = Module(target.attributes)
    pack_image(module, "pack_image", tile, Layout(tile.lanes, tile.lanes), spec.source_last)
    _turn_tiles(module, tile)
    _register_tile(module, tile, spec.rows)
    _inverse(module, tile, spec.bias)
    if spec.result_last:
        store_pixels(module, tile)
    else:
        store_planes(module, tile, _group(tile, spec) * OUT)
    if finish:
        finish.epilogue.define(module)
    _results(module, tile, spec)
    _sweep(module, tile, spec, finish)

    f = kernel_function(module, name)
    slot = Slots(f, WINOGRAD_SLOTS, _POINTERS)
    work = thread_workspace(f, slot["work"], slot["work_stride"])
    pieces = f.mul(f.mul(slot["blocks_n"], slot["blocks0"]), slot["blocks2"])
    first, last = chunk_range(f, f.mul(pieces, slot["splits"]))
    packed = f.var("i64", -1)
    with f.loop(first, last) as task:
        piece, part = f.udiv(task, slot["splits"]), f.urem(task, slot["splits"])
        at2, rest = f.urem(piece, slot["blocks2"]), f.udiv(piece, slot["blocks2"])
        at0, at_n = f.urem(rest, slot["blocks0"]), f.udiv(rest, slot["blocks0"])
        start = [f.mul(at_n, slot["images"]),
                 f.mul(f.mul(at0, slot["tiles0"]), OUT), f.mul(f.mul(at2, slot["tiles2"]), OUT)]
        images = f.smin(f.sub(slot["n"], start[0]), slot["images"])
        with f.when(f.cmp("ne", piece, packed.get())):
            packed.set(piece)
            _fill(f, tile, slot, work, start, images)
        panels = share(f, slot["panel_count"], 1, part, slot["splits"])
        with f.loop(*panels) as panel:
            f.call("void", "sweep", [f.args["args"], work, *start, images, panel])
    return name, module.text()


def _group(tile: Tile, spec: WinogradSpec) -> int:
    """Tiles of a line whose results are stored together."""
    return 1 if spec.result_last else max(1, tile.lanes // OUT)


def _fill(f: Function, tile: Tile, slot: Slots, work: Value, start: list, images: Value) -> None:
    """Copy and transform a piece, image by image."""
    turned = f.gep(work, slot["turned_at"], tile.compute)
    tiles = f.mul(slot["tiles0"], slot["tiles2"])
    with f.loop(0, images) as i:
        known = {"from0": f.add(start[1], slot["low0"]), "from1": f.const(0, "i64"),
                 "from2": f.add(start[2], slot["low2"]), "pitch": slot["copy_pitch"],
                 "step_c": slot["source_c"], "step0": slot["source_x0"],
                 "step1": f.const(0, "i64"), "step2": slot["source_x2"],
                 "size1": f.const(1, "i64"), "ext1": f.const(1, "i64")}
        offset = f.mul(f.add(start[0], i), slot["source_n"])
        f.call("void", "pack_image", [
            f.gep(slot["source"], offset, tile.memory), work,
            *(known[word] if word in known else slot[word] for word in PIECE)])
        with f.loop(0, f.ceil_div(slot["channels"], tile.lanes)) as block, \
                f.loop(0, slot["tiles0"]) as row:
            line = f.mul(f.mul(f.mul(row, OUT), slot["ext2"]), tile.lanes)
            first = f.add(f.mul(i, tiles), f.mul(row, slot["tiles2"]))
            place = f.add(f.mul(block, slot["turned_block"]), f.mul(first, tile.lanes))
            f.call("void", "turn_tiles", [
                f.gep(work, f.add(f.mul(block, slot["copy_pitch"]), line), tile.compute),
                f.gep(turned, place, tile.compute), f.mul(slot["ext2"], tile.lanes),
                slot["turned_pitch"], slot["tiles2"]])


def _turn_tiles(module: Module, tile: Tile) -> None:
    """Define turn_tiles(src, dst, row, pitch, count): a line of tiles, one block of channels;
    lines of the copy are `row` apart, factors `pitch`."""
    f = module.function("turn_tiles", [("ptr noalias", "src"), ("ptr noalias", "dst"),
                                       ("i64", "row"), ("i64", "pitch"), ("i64", "count")],
                        part="turn_tiles")
    with f.loop(0, f.args["count"]) as number:
        src = f.gep(f.args["src"], f.mul(number, OUT * tile.lanes), tile.compute)
        dst = f.gep(f.args["dst"], f.mul(number, tile.lanes), tile.compute)

        def load(y: int, x: Value, src: Value = src) -> Value:
            return f.load(tile.vector, src, f.add(f.mul(f.args["row"], y), f.mul(x, tile.lanes)))

        _both(f, tile, _Algebra(f, tile).pixels, (EDGE, EDGE), load,
              _factor_store(f, tile, dst, f.args["pitch"]))


def _register_tile(module: Module, tile: Tile, rows: int) -> None:
    """Define tile(a, b, c, depth, block): c[rows, width] = a b for one factor.

    Element k of row i of `a` lies in block k // lanes of channels, `block` elements from the one
    before it, at i * lanes + k % lanes.
    """
    f = module.function("tile", [("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr noalias", "c"),
                                 ("i64", "depth"), ("i64", "block")], part="tile")
    starts = range(0, tile.width, tile.lanes)
    sums = [[f.var(tile.vector, 0) for _ in starts] for _ in range(rows)]
    with f.loop(0, f.args["depth"]) as k:
        line = f.gep(f.args["b"], f.mul(k, tile.width), tile.compute)
        for j in starts:
            prefetch(f, f.gep(line, _AHEAD * tile.width + j, tile.compute))
        columns = [f.load(tile.vector, line, j) for j in starts]
        place = f.add(f.mul(f.udiv(k, tile.lanes), f.args["block"]), f.urem(k, tile.lanes))
        pixels = f.gep(f.args["a"], place, tile.compute)
        for i, row in enumerate(sums):
            factor = f.splat(f.load(tile.compute, pixels, i * tile.lanes), tile.lanes)
            for total, column in zip(row, columns, strict=True):
                total.set(multiply_add(f, tile, factor, column, total.get()))
    for i, row in enumerate(sums):
        for j, total in zip(starts, row, strict=True):
            f.store(total.get(), f.args["c"], i * tile.width + j)


def _inverse(module: Module, tile: Tile, bias: bool) -> None:
    """Define inverse(sums, pitch, dst, row, pixel, bias): the results of a tile, a panel wide;
    lines of the result are `row` elements apart, pixels `pixel`."""
    f = module.function("inverse", [("ptr noalias", "sums"), ("i64", "pitch"),
                                    ("ptr noalias", "dst"), ("i64", "row"), ("i64", "pixel"),
                                    ("ptr noalias", "bias")], part="inverse")
    a = f.args
    with f.loop(0, tile.width, tile.lanes) as j:
        sums, dst = (f.gep(a[word], j, tile.compute) for word in ("sums", "dst"))
        more = f.load(tile.vector, a["bias"], j) if bias else None

        def load(y: int, x: Value, sums: Value = sums) -> Value:
            factor = f.add(x, y * EDGE)
            return f.load(tile.vector, sums, f.mul(factor, a["pitch"]))

        def store(y: Value, x: int, value: Value, dst: Value = dst, more=more) -> None:
            place = f.add(f.mul(y, a["row"]), f.mul(a["pixel"], x))
            f.store(value if more is None else f.fadd(value, more), dst, place)

        _both(f, tile, _Algebra(f, tile).results, (EDGE, OUT), load, store)


def _results(module: Module, tile: Tile, spec: WinogradSpec) -> None:
    """Define results(args, sums, result, height, width, tiles, columns, bias): a line of tiles;
    `height` and `width`: how much of their results exists."""
    f = module.function("results", [
        ("ptr", "args"), ("ptr", "sums"), ("ptr", "result"),
        *(("i64", n) for n in ("height", "width", "tiles", "columns")), ("ptr", "bias")],
        internal=True)
    a, slot = f.args, Slots(f, WINOGRAD_SLOTS, _POINTERS)
    group = _group(tile, spec)
    line, pitch = group * OUT * tile.width, slot["sums_pitch"]
    line_step, step, channel_step = slot["result_x0"], slot["result_x2"], slot["result_c"]
    scratch = f.array(tile.compute, OUT * line)
    height = f.smin(a["height"], OUT)
    whole = f.and_(f.cmp("sge", a["columns"], tile.width), f.cmp("sge", a["height"], OUT))
    with f.loop(0, a["tiles"], group) as first:
        x = f.mul(first, OUT)
        count = f.smin(f.sub(a["width"], x), group * OUT)
        place = f.gep(a["result"], f.mul(x, step), tile.memory)
        direct = f.and_(whole, f.cmp("eq", count, OUT)) if spec.result_last \
            else f.cmp("slt", count, 0)
        with f.loop(0, f.smin(f.sub(a["tiles"], first), group)) as number:
            f.call("void", "inverse", [
                f.gep(a["sums"], f.mul(f.add(first, number), tile.width), tile.compute), pitch,
                f.select(direct, place,
                         f.gep(scratch, f.mul(number, OUT * tile.width), tile.compute)),
                f.select(direct, line_step, line), f.select(direct, step, tile.width), a["bias"]])
        with f.when(f.not_(direct)), f.loop(0, height) as y:
            f.call("void", "store", [
                f.gep(scratch, f.mul(y, line), tile.compute),
                f.gep(place, f.mul(y, line_step), tile.memory), step, channel_step, count,
                a["columns"]])


def _sweep(module: Module, tile: Tile, spec: WinogradSpec, finish: Finish | None) -> None:
    """Define sweep(args, work, image0, start0, start2, images, panel): all tiles of a piece with
    one panel of weights."""
    words = ("image0", "start0", "start2", "images", "panel")
    f = module.function("sweep", [("ptr", "args"), ("ptr", "work"), *(("i64", n) for n in words)],
                        internal=True)
    a, slot = f.args, Slots(f, WINOGRAD_SLOTS, _POINTERS)
    turned, sums = (f.gep(a["work"], slot[word], tile.compute) for word in ("turned_at", "sums_at"))
    weights = f.gep(slot["panels"], f.mul(a["panel"], slot["strip"]), tile.compute)
    tiles = f.mul(slot["tiles0"], slot["tiles2"])
    with f.loop(0, FACTORS) as factor, f.loop(0, f.mul(tiles, a["images"]), spec.rows) as row:
        source = f.add(f.mul(factor, slot["turned_pitch"]), f.mul(row, tile.lanes))
        target = f.add(f.mul(factor, slot["sums_pitch"]), f.mul(row, tile.width))
        f.call("void", "tile", [
            f.gep(turned, source, tile.compute),
            f.gep(weights, f.mul(factor, slot["pitch"]), tile.compute),
            f.gep(sums, target, tile.compute), slot["channels"], slot["turned_block"]])
    lane = f.mul(a["panel"], tile.width)
    columns = f.smin(f.sub(slot["lanes"], lane), tile.width)
    height = f.smin(f.sub(slot["grid0"], a["start0"]), f.mul(slot["tiles0"], OUT))
    width = f.smin(f.sub(slot["grid2"], a["start2"]), f.mul(slot["tiles2"], OUT))
    origin = f.mul(lane, slot["result_c"])
    for word, axis in (("image0", "n"), ("start0", "x0"), ("start2", "x2")):
        origin = f.add(origin, f.mul(a[word], slot[f"result_{axis}"]))
    result = f.gep(slot["result"], origin, tile.memory)
    bias = f.gep(slot["bias"], lane, tile.compute)
    with f.loop(0, a["images"]) as i, f.loop(0, f.ceil_div(height, OUT)) as row:
        y = f.mul(row, OUT)
        first = f.add(f.mul(i, tiles), f.mul(row, slot["tiles2"]))
        place = f.add(f.mul(i, slot["result_n"]), f.mul(y, slot["result_x0"]))
        f.call("void", "results", [
            a["args"], f.gep(sums, f.mul(first, tile.width), tile.compute),
            f.gep(result, place, tile.memory), f.sub(height, y), width, f.ceil_div(width, OUT),
            columns, bias])
    if finish:
        _finish(f, tile, slot, finish, result, (height, width), (lane, columns))


def _finish(f: Function, tile: Tile, slot: Slots, finish: Finish, result: Value, sizes: tuple,
            channels: tuple) -> None:
    """The epilogue of what `sweep` has stored: whole lines are one run of pixels."""
    height, width = sizes
    whole = f.cmp("eq", width, slot["grid2"])
    count = f.select(whole, f.mul(height, width), width)
    first = f.add(f.mul(f.args["start0"], slot["grid2"]), f.args["start2"])
    area = f.mul(slot["grid0"], slot["grid2"])
    pitch = slot["lanes"] if finish.by_pixel else slot["result_c"]
    with f.loop(0, f.args["images"]) as i, f.loop(0, f.select(whole, 1, height)) as number:
        ahead = f.mul(number, slot["grid2"])
        step = f.mul(ahead, pitch) if finish.by_pixel else ahead
        place = f.gep(result, f.add(f.mul(i, slot["result_n"]), step), tile.memory)
        finish.call(f, len(WINOGRAD_SLOTS), place, pitch, f.add(f.args["image0"], i), area,
                    (f.add(first, ahead), count), channels)
