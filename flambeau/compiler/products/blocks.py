"""Blocks of a matrix product: register tiles, and the loops around them.

A *strip* is as many rows of A as a register tile is high, a *panel* as many columns of B as it is
wide, both packed: a strip as rows with a fixed pitch or as columns, a panel as rows of its width.
What does not fill a panel is worked off in tiles of one vector, whose last one is masked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.products.packing import (
    Tile,
    add,
    load_lanes,
    load_scalar,
    multiply_add,
    narrow,
)

__all__ = ["MacroKernel", "StridedOperand", "StridedResult", "Walk", "block_step",
           "micro_kernel", "prefetch", "workspace_items"]

_AHEAD = 16  # rows of B between what is multiplied and what is fetched into the nearest cache
ZERO, ONE = Value("0", "i64"), Value("1", "i64")


# ---------------------------------------------------------------------- register tiles
_TILE_ARGS = (("ptr", "a"), ("ptr", "b"), ("ptr", "c"), ("i64", "depth"), ("i64", "step"),
              ("i64", "ldc"), ("i1", "add"), ("i64", "rows"), ("ptr", "soon"), ("ptr", "beside"))
_WALK_ARGS = (("ptr", "far"), ("i64", "far_mask"), ("i64", "far_row"), ("i64", "far_step"))


def micro_kernel(module: Module, tile: Tile, rows: int, layout: str, masked: bool = False,
                 walks: bool = False, part: str = "tiles") -> str:
    """Define a register tile: C[rows, width] = A B (+ C if `add`); returns its name.

    Args of the function: a packed; b, whose rows lie `step` apart; c; depth; step and ldc (in
    elements); add; how many `rows` there are (what the others give goes nowhere); two addresses
    that are fetched into the cache, with those `step` further for each step of the sum; if `walks`,
    the parts of a `Walk`; if `masked`, how many `columns` of the last vector there are.
    """
    name = f"tile_{rows}x{tile.vectors}"
    args = [(f"{type_} noalias" if name in "abc" else type_, name)
            for type_, name in _tile_args(masked, walks)]
    f = module.function(name, args, part=part)
    lines = _lines(f, tile, rows)
    sums = [[f.var(tile.vector, 0) for _ in range(tile.vectors)] for _ in range(rows)]
    _multiply(f, tile, sums, layout)
    if masked and not tile.masked:
        whole = f.cmp("eq", f.args["columns"], tile.width)
        with f.when_else(whole) as otherwise:
            _store(f, tile, sums, lines, None)
            otherwise()
            _store_scalars(f, tile, sums, lines)
    else:
        extra = (tile.vectors - 1) * tile.lanes
        mask = f.lane_mask(tile.lanes, f.sub(f.args["columns"], extra)) if masked else None
        _store(f, tile, sums, lines, mask)
    return name


def _tile_args(masked: bool, walks: bool) -> list[tuple[str, str]]:
    return [*_TILE_ARGS, *_WALK_ARGS * walks, *[("i64", "columns")] * masked]


def _lines(f: Function, tile: Tile, rows: int) -> list[Value]:
    """Where the rows of the tile go; those that do not exist share one that nobody reads."""
    nowhere = f.array(tile.memory, tile.width, align=16)
    c, ldc = f.args["c"], f.args["ldc"]
    lines = [c]
    for i in range(1, rows):
        line = f.gep(c, f.mul(ldc, i), tile.memory)
        lines.append(f.select(f.cmp("sgt", f.args["rows"], i), line, nowhere))
    for line in lines:  # fetched for writing while the sum is taken
        for j in range(tile.vectors):
            prefetch(f, f.gep(line, j * tile.lanes, tile.memory), write=True)
    return lines


def prefetch(f: Function, pointer: Value, write: bool = False, near: bool = True) -> None:
    """Ask for a line of memory, into the nearest cache or the second one."""
    flags = [f.const(n, "i32") for n in (int(write), 3 if near else 2, 1)]
    f.call("void", "llvm.prefetch.p0", [pointer, *flags])


def _multiply(f: Function, tile: Tile, sums: list, layout: str) -> None:
    a, b, step = f.args["a"], f.args["b"], f.args["step"]
    row_step, k_step = (tile.pitch, 1) if layout == "rows" else (1, tile.panel_height)
    with f.loop(0, f.args["depth"]) as k:
        offset = f.mul(k, step)
        if tile.vectors <= 2:  # wider tiles wait for memory anyway, and for fewer lines at a time
            for place in ("soon", "beside")[:tile.vectors]:
                prefetch(f, f.gep(f.args[place], offset, tile.compute))
        if "far" in f.args:
            _fetch_ahead(f, tile, k)
        b_row = f.gep(b, offset, tile.compute)
        columns = [f.load(tile.vector, b_row, j * tile.lanes) for j in range(tile.vectors)]
        a_column = f.gep(a, f.mul(k, k_step), tile.compute)
        for i, row in enumerate(sums):
            factor = f.splat(f.load(tile.compute, a_column, i * row_step), tile.lanes)
            for total, column in zip(row, columns, strict=True):
                total.set(multiply_add(f, tile, factor, column, total.get()))


def _fetch_ahead(f: Function, tile: Tile, k: Value) -> None:
    """Fetch what the walk meets at step k of the sum."""
    arg = f.args
    row = f.and_(k, arg["far_mask"])
    offset = f.add(f.mul(row, arg["far_row"]), f.mul(f.sub(k, row), arg["far_step"]))
    place = f.gep(arg["far"], offset, tile.memory)
    for j in range(tile.vectors):
        prefetch(f, f.gep(place, j * tile.lanes, tile.memory), near=False)


def _store(f: Function, tile: Tile, sums: list, lines: list, mask: Value | None) -> None:
    """Store the tile; only the lanes of `mask` of each row's last vector."""
    masks = [None] * (tile.vectors - 1) + [mask]
    with f.when(f.args["add"]):
        for line, row in zip(lines, sums, strict=True):
            for j, (total, lanes) in enumerate(zip(row, masks, strict=True)):
                old = load_lanes(f, tile, f.gep(line, j * tile.lanes, tile.memory), lanes)
                total.set(add(f, tile, total.get(), old))
    for line, row in zip(lines, sums, strict=True):
        for j, (total, lanes) in enumerate(zip(row, masks, strict=True)):
            value = narrow(f, total.get(), tile)
            if lanes is None:
                f.store(value, line, j * tile.lanes)
            else:
                f.masked_store(value, line, lanes, j * tile.lanes)


def _store_scalars(f: Function, tile: Tile, sums: list, lines: list) -> None:
    """Store the first `columns` of each row one by one, for machines without masks."""
    buffer = f.array(tile.compute, tile.width, align=16)
    for line, row in zip(lines, sums, strict=True):
        for j, total in enumerate(row):
            f.store(total.get(), buffer, j * tile.lanes)
        with f.loop(0, f.args["columns"]) as j:
            place, value = f.gep(line, j, tile.memory), f.load(tile.compute, f.gep(
                buffer, j, tile.compute))
            total = add(f, tile, value, load_scalar(f, tile, place))
            f.store(narrow(f, f.select(f.args["add"], total, value), tile), place)


# ---------------------------------------------------------------------- operands and result
@dataclasses.dataclass(frozen=True)
class Walk:
    """Memory that a register tile fetches into the second-level cache while it multiplies.

    At step k of the sum: as many elements as the tile is wide, from start + (k & mask) * row
    + (k & ~mask) * step on.
    """

    start: Value
    mask: Value | int = 0
    row: Value | int = 0
    step: Value | int = 0

    def choose(self, f: Function, condition: Value, other: Walk) -> Walk:
        """This walk where the condition holds, else the other one."""
        parts = ((getattr(self, x.name), getattr(other, x.name)) for x in dataclasses.fields(self))
        return Walk(*(f.select(condition, f.typed(a, "i64"), f.typed(b, "i64")) for a, b in parts))

    def args(self, f: Function) -> list[Value]:
        return [self.start, *(f.typed(n, "i64") for n in (self.mask, self.row, self.step))]


class StridedOperand:
    """A matrix in memory: element (i, k) at base[i * stride + k * step].

    `i` counts along the edge of C (rows of A, columns of B), `k` along the sum; `order` says what
    is contiguous: "along" the sum, "across" it, or "any".
    """

    def __init__(self, tile: Tile, packer: str, base: Value, stride: Value, step: Value,
                 order: str):
        self.tile, self.packer, self.order = tile, packer, order
        self.base = base
        self.stride = ONE if order == "across" else stride
        self.step = ONE if order == "along" else step

    def place(self, f: Function, i: Value, k: Value) -> Value:
        return f.gep(self.base, f.add(f.mul(i, self.stride), f.mul(k, self.step)),
                     self.tile.memory)

    def pack(self, f: Function, start: Value, count: Value, k: Value, depth: Value,
             dst: Value) -> None:
        """Pack rows start..start+count, k..k+depth to `dst`."""
        f.call("void", self.packer, [self.place(f, start, k), dst, depth, count, self.stride,
                                     self.step])

    def walk(self, f: Function, start: Value, count: int, k: Value) -> Walk:
        """Over `count` rows from `start` on, as far along the sum as a tile takes steps."""
        place = self.place(f, start, k)
        if self.order == "along":
            rows = 1 << (count - 1).bit_length()
            return Walk(place, rows - 1, self.stride, max(1, self.tile.width // rows))
        return Walk(place, 0, 0, self.step if self.order == "across" else 0)


class StridedResult:
    """C in memory with unit column stride: tiles are written in place."""

    def __init__(self, tile: Tile, base: Value, stride: Value):
        self.tile, self.base, self.stride = tile, base, stride

    def place(self, f: Function, i: Value, j: Value) -> Value:
        return f.gep(self.base, f.add(f.mul(i, self.stride), j), self.tile.memory)


# ---------------------------------------------------------------------- loops
class MacroKernel:
    """Emits the blocked loops into a kernel function.

    Args:
        module: where the register tiles are defined.
        tile: register tile and cache blocks.
        layout: layout of packed A, "rows" or "panels".
        packs: B is packed (`emit`), or read where it lies (`emit_direct`).
    """

    def __init__(self, module: Module, tile: Tile, layout: str, packs: bool):
        self.tile = tile
        heights = (tile.rows[0], tile.rows[-1]) if len(tile.rows) > 1 and packs else tile.rows
        self.wide = _chooser(module, tile, layout, "wide_tile", tile.rows, False, packs)
        self.slim = _chooser(module, tile.slim(), layout, "slim_tile", heights, True, False)

    @staticmethod
    def strip_items(tile: Tile) -> int:
        """Packed elements of a strip of A, a multiple of 64."""
        strip = max(tile.height * tile.pitch, tile.depth * tile.panel_height) + tile.lanes
        return -(-strip // 64) * 64

    # ------------------------------------------------------------------ packed
    def emit(self, f: Function, a: StridedOperand, b: StridedOperand, c: StridedResult, rows: tuple,
             columns: tuple, depth: Value, work: Value, packed_b: Value,
             finish: Callable | None = None) -> None:
        """C[rows, columns] = A B; half-open ranges.

        `work` has room for `strip_items` packed elements, `packed_b` for the panels of one block.
        `finish` emits what follows a finished strip: it gets `c` and (first, count) of rows and
        columns.
        """
        tile = self.tile
        k_step = block_step(f, depth, tile.depth, tile.lanes)
        most = f.mul(f.udiv(f.udiv(tile.block, k_step), tile.width), tile.width)
        j_step = block_step(f, f.sub(columns[1], columns[0]), most, tile.width)
        # a row more than a panel holds: panels must not begin in the same set of the cache
        pitch = f.mul(f.add(k_step, 1), tile.width)
        with f.loop(columns[0], columns[1], j_step) as j0, \
                f.loop(0, f.smax(depth, 1), k_step) as k0:
            width = f.smin(f.sub(columns[1], j0), j_step)
            k_count = f.smin(f.sub(depth, k0), k_step)
            k1 = f.add(k0, k_step)
            more = f.cmp("slt", k1, depth)
            following = b.walk(f, f.select(more, j0, f.add(j0, j_step)), tile.width,
                               f.select(more, k1, 0))
            with f.loop(rows[0], rows[1], tile.height) as i:
                count = f.smin(f.sub(rows[1], i), tile.height)
                a.pack(f, i, count, k0, k_count, work)
                below = f.add(i, tile.height)
                last = f.cmp("sge", below, rows[1])
                walk = following.choose(f, last, a.walk(f, below, tile.height, k0))
                self._strip(f, b, c, (i, count), (j0, width), (k0, k_count),
                            (work, packed_b, pitch), f.cmp("eq", i, rows[0]), walk)
                if finish is not None:
                    with f.when(f.not_(more)):
                        finish(c, (i, count), (j0, width))

    def _strip(self, f: Function, b: StridedOperand, c: StridedResult, rows: tuple, columns: tuple,
               part: tuple, sides: tuple, first: Value, walk: Walk) -> None:
        """All tiles of a strip. The first strip packs each panel of B just before it is multiplied,
        and fetches the next one meanwhile; the others fetch what comes after this strip."""
        tile = self.tile
        (i, count), (j0, width), (k0, k_count) = rows, columns, part
        packed_a, packed_b, pitch = sides
        step = f.const(tile.width, "i64")
        idle = Walk(packed_a)

        def tile_at(name: str, j: Value, panel: Value, *more: Value) -> None:
            soon = f.gep(panel, _AHEAD * tile.width, tile.compute)
            f.call("void", name, [
                packed_a, panel, c.place(f, i, f.add(j0, j)), k_count, step, c.stride,
                f.cmp("sgt", k0, 0), count, soon, f.gep(soon, tile.lanes, tile.compute), *more])

        with f.loop(0, width, tile.width) as j:
            panel = f.gep(packed_b, f.mul(f.udiv(j, tile.width), pitch), tile.compute)
            with f.when(first):
                b.pack(f, f.add(j0, j), f.sub(width, j), k0, k_count, panel)
            end = f.add(j, tile.width)
            with f.when_else(f.cmp("sle", end, width)) as otherwise:
                beside = b.walk(f, f.add(j0, end), tile.width, k0)
                alone = walk.choose(f, f.cmp("eq", j, 0), idle)
                beside = beside.choose(f, f.and_(first, f.cmp("slt", end, width)), alone)
                tile_at(self.wide, j, panel, *beside.args(f))
                otherwise()
                with f.loop(j, width, tile.lanes) as at:
                    tile_at(self.slim, at, f.gep(panel, f.sub(at, j), tile.compute),
                            f.smin(f.sub(width, at), tile.lanes))

    # ------------------------------------------------------------------ direct
    def emit_direct(self, f: Function, a: StridedOperand, b: StridedOperand, c: StridedResult,
                    rows: tuple, columns: tuple, depth: Value, work: Value, packed_b: Value,
                    finish: Callable | None = None) -> None:
        """As `emit`, for few rows: B, whose rows lie in memory as they are, is not packed.

        `work` has room for all strips, `packed_b` for the last columns. `finish` gets all rows
        and some columns.
        """
        tile = self.tile
        k_step = block_step(f, depth, tile.depth, tile.lanes)
        count = f.sub(rows[1], rows[0])
        height = self._height(f, count)
        with f.loop(0, f.smax(depth, 1), k_step) as k0:
            k_count = f.smin(f.sub(depth, k0), k_step)
            with f.loop(0, count, height) as i:
                here = f.smin(f.sub(count, i), height)
                strip = f.mul(f.udiv(i, height), self.strip_items(tile))
                a.pack(f, f.add(rows[0], i), here, k0, k_count, f.gep(work, strip, tile.compute))
            sides = (work, height, k_count, f.cmp("sgt", k0, 0))
            with f.loop(columns[0], columns[1], _DIRECT_COLUMNS) as j0:
                end = f.smin(f.add(j0, _DIRECT_COLUMNS), columns[1])
                self._direct_columns(f, b, c, rows, (j0, end), k0, sides, packed_b)
                if finish is not None:
                    with f.when(f.cmp("sge", f.add(k0, k_count), depth)):
                        finish(c, (rows[0], count), (j0, f.sub(end, j0)))

    @staticmethod
    def heights(tile: Tile) -> list[int]:
        """Heights that strips of `emit_direct` may have: those that keep the machine busy."""
        return [h for h in tile.rows if h == tile.height or h * tile.vectors >= _BUSY]

    def _height(self, f: Function, count: Value) -> Value:
        """Of the strips: that which leaves the fewest rows of register tiles empty."""
        best = found = None
        for height in self.heights(self.tile):
            whole = f.mul(f.udiv(count, height), height)
            rest, cost = f.sub(count, whole), whole
            for above, lower in zip(self.tile.rows, (*self.tile.rows[1:], 0), strict=True):
                fits = f.and_(f.cmp("sgt", rest, lower), f.cmp("sle", rest, above))
                cost = f.select(fits, f.add(whole, above), cost)
            better = None if best is None else f.cmp("slt", cost, best)
            found = f.const(height, "i64") if best is None else \
                f.select(better, f.const(height, "i64"), found)
            best = cost if best is None else f.smin(cost, best)
        return found

    def _direct_columns(self, f: Function, b: StridedOperand, c: StridedResult, rows: tuple,
                        columns: tuple, k0: Value, sides: tuple, packed_b: Value) -> None:
        """All tiles of some columns: whole ones, those of one vector, and the rest packed."""
        tile, lanes = self.tile, self.tile.lanes
        start, end = columns
        whole = f.add(start, f.mul(f.udiv(f.sub(end, start), tile.width), tile.width))
        parts = f.add(whole, f.mul(f.udiv(f.sub(end, whole), lanes), lanes))
        with f.loop(start, whole, tile.width) as j:
            self._column(f, c, rows, j, b.place(f, j, k0), b.step, sides, None)
        with f.loop(whole, parts, lanes) as j:
            self._column(f, c, rows, j, b.place(f, j, k0), b.step, sides, f.const(lanes, "i64"))
        with f.when(f.cmp("slt", parts, end)):
            rest = f.sub(end, parts)
            b.pack(f, parts, rest, k0, sides[2], packed_b)
            self._column(f, c, rows, parts, packed_b, f.const(lanes, "i64"), sides, rest)

    def _column(self, f: Function, c: StridedResult, rows: tuple, j: Value, panel: Value,
                step: Value, sides: tuple, columns: Value | None) -> None:
        """The tiles of all strips at column j: whole ones, or `columns` of a vector.

        The first strip asks for rows of B ahead; with a second one, both ask for the next panel.
        """
        tile = self.tile
        work, height, k_count, add_old = sides
        ahead = f.gep(panel, f.mul(step, _AHEAD), tile.compute)
        beside = f.gep(ahead, tile.lanes, tile.compute)
        following = f.gep(panel, tile.width, tile.compute)
        several = f.cmp("sgt", f.sub(rows[1], rows[0]), height)
        with f.loop(rows[0], rows[1], height) as i:
            index = f.udiv(f.sub(i, rows[0]), height)
            packed_a = f.gep(work, f.mul(index, self.strip_items(tile)), tile.compute)
            line = f.gep(following, f.mul(f.smin(index, 1), tile.lanes), tile.compute)
            args = [packed_a, panel, c.place(f, i, j), k_count, step, c.stride, add_old,
                    f.smin(f.sub(rows[1], i), height), ahead, f.select(several, line, beside)]
            if columns is None:
                f.call("void", self.wide, args)
            else:
                f.call("void", self.slim, [*args, columns])


_DIRECT_COLUMNS = 512  # after which an epilogue runs
_BUSY = 16  # multiply-adds that must be under way to keep the machine busy


def _chooser(module: Module, tile: Tile, layout: str, name: str, heights: tuple[int, ...],
             masked: bool, walks: bool) -> str:
    """Define a function that calls the lowest register tile that holds `rows` rows."""
    tiles = [(rows, micro_kernel(module, tile, rows, layout, masked, walks, name))
             for rows in heights]
    if len(tiles) == 1:
        return tiles[0][1]
    f = module.function(name, _tile_args(masked, walks), part=name)

    def choose(tiles: list) -> None:
        if len(tiles) == 1:
            f.call("void", tiles[0][1], list(f.args.values()))
            return
        with f.when_else(f.cmp("sgt", f.args["rows"], tiles[1][0])) as otherwise:
            f.call("void", tiles[0][1], list(f.args.values()))
            otherwise()
            choose(tiles[1:])

    choose(tiles)
    return name


def block_step(f: Function, total: Value, largest: Value | int, multiple: int) -> Value:
    """Cut `total` into equal blocks of at most `largest`, a multiple of `multiple`; never 0."""
    total = f.smax(total, 1)
    blocks = f.ceil_div(total, largest)
    return f.mul(f.ceil_div(f.ceil_div(total, blocks), multiple), multiple)


def workspace_items(tile: Tile, columns: int, depth: int) -> int:
    """Packed elements that one thread needs for a product with `columns` columns.

    A panel may be packed up to a vector deeper than its block, and is followed by an empty row.
    """
    blocks = -(-max(depth, 1) // tile.depth)
    k_step = -(-max(depth, 1) // (blocks * tile.lanes)) * tile.lanes
    most = tile.block // k_step // tile.width * tile.width
    columns = min(most, -(-max(columns, 1) // tile.width) * tile.width)
    return MacroKernel.strip_items(tile) + (k_step + 1) * columns + tile.lanes * tile.width
