"""Blocks of a matrix product: register tiles, and the loops around them.

A *strip* is as many rows of A as a register tile is high, a *panel* as many columns of B as it is
wide, both packed: a strip as rows with a fixed pitch or as columns, a panel as rows of its width.
What does not fill a panel is worked off in tiles of one vector, whose last one is masked.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.packing import (
    Tile,
    add,
    load_lanes,
    load_scalar,
    multiply_add,
    narrow,
)

__all__ = ["MacroKernel", "StridedOperand", "StridedResult", "block_step", "edge_store",
           "micro_kernel", "workspace_items"]

_AHEAD = 16  # rows of B between what is multiplied and what is fetched into the cache
ZERO, ONE = Value("0", "i64"), Value("1", "i64")


# ---------------------------------------------------------------------- register tiles
def micro_kernel(module: Module, tile: Tile, rows: int, layout: str, bias: str | None = None,
                 masked: bool = False) -> str:
    """Define a register tile: C[rows, width] = A B + bias (+ C if `add`); returns its name.

    Args of the function: a packed; b, whose rows lie `step` apart; c; depth; step and ldc (in
    elements); add; how many `rows` there are (what the others give goes nowhere); bias (of type
    `Tile.compute`: `width` values if `bias` is "columns", `rows` values if "rows"); if `masked`,
    how many `columns` of the last vector there are.
    """
    name = f"tile_{rows}x{tile.vectors}"
    last = [("i64", "columns")] if masked else []
    f = module.function(name, [
        ("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr noalias", "c"), ("i64", "depth"),
        ("i64", "step"), ("i64", "ldc"), ("i1", "add"), ("i64", "rows"), ("ptr noalias", "bias"),
        *last], internal=True)
    lines = _lines(f, tile, rows)
    sums = [[f.var(tile.vector, 0) for _ in range(tile.vectors)] for _ in range(rows)]
    _multiply(f, tile, sums, layout)
    if bias:
        _add_bias(f, tile, sums, bias)
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
            _prefetch(f, f.gep(line, j * tile.lanes, tile.memory), write=True)
    return lines


def _prefetch(f: Function, pointer: Value, write: bool = False) -> None:
    flags = [f.const(n, "i32") for n in (int(write), 3, 1)]
    f.call("void", "llvm.prefetch.p0", [pointer, *flags])


def _multiply(f: Function, tile: Tile, sums: list, layout: str) -> None:
    a, b, step = f.args["a"], f.args["b"], f.args["step"]
    row_step, k_step = (tile.pitch, 1) if layout == "rows" else (1, tile.panel_height)
    ahead = f.mul(step, _AHEAD)
    with f.loop(0, f.args["depth"]) as k:
        b_row = f.gep(b, f.mul(k, step), tile.compute)
        far = f.gep(b_row, ahead, tile.compute)
        for j in range(tile.vectors):
            if j * tile.lanes * tile.itemsize % 64 == 0:
                _prefetch(f, f.gep(far, j * tile.lanes, tile.compute))
        columns = [f.load(tile.vector, b_row, j * tile.lanes) for j in range(tile.vectors)]
        a_column = f.gep(a, f.mul(k, k_step), tile.compute)
        for i, row in enumerate(sums):
            factor = f.splat(f.load(tile.compute, a_column, i * row_step), tile.lanes)
            for total, column in zip(row, columns, strict=True):
                total.set(multiply_add(f, tile, factor, column, total.get()))


def _add_bias(f: Function, tile: Tile, sums: list, bias: str) -> None:
    for i, row in enumerate(sums):
        for j, total in enumerate(row):
            if bias == "columns":
                item = f.load(tile.vector, f.args["bias"], j * tile.lanes)
            else:
                item = f.splat(f.load(tile.compute, f.args["bias"], i), tile.lanes)
            total.set(add(f, tile, total.get(), item))


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


def edge_store(module: Module, tile: Tile) -> None:
    """Define edge_store(tile, c, ldc, rows, columns, add): the part of a tile that lies in C."""
    f = module.function("edge_store", [("ptr noalias", "tile"), ("ptr noalias", "c"),
                                       ("i64", "ldc"), ("i64", "rows"), ("i64", "columns"),
                                       ("i1", "add")], internal=True)
    a = f.args
    step = tile.lanes if tile.masked else 1
    with f.loop(0, a["rows"]) as i, f.loop(0, a["columns"], step) as j:
        source = f.gep(a["tile"], f.add(f.mul(i, tile.width), j), tile.memory)
        place = f.gep(a["c"], f.add(f.mul(i, a["ldc"]), j), tile.memory)
        if tile.masked:
            mask = f.lane_mask(tile.lanes, f.sub(a["columns"], j))
            value = load_lanes(f, tile, source)
            total = add(f, tile, value, load_lanes(f, tile, place, mask))
            value = f.select(f.splat(a["add"], tile.lanes), total, value)
            f.masked_store(narrow(f, value, tile), place, mask)
        else:
            value = load_scalar(f, tile, source)
            total = add(f, tile, value, load_scalar(f, tile, place))
            f.store(narrow(f, f.select(a["add"], total, value), tile), place)


# ---------------------------------------------------------------------- operands and result
class StridedOperand:
    """A matrix in memory: element (i, k) at base[i * stride + k * step].

    `i` counts along the edge of C (rows of A, columns of B), `k` along the sum.
    """

    def __init__(self, tile: Tile, packer: str, base: Value, stride: Value, step: Value,
                 order: str, whole_blocks: bool = False):
        self.tile, self.packer, self.whole_blocks = tile, packer, whole_blocks
        self.base = base
        self.stride = ONE if order == "across" else stride
        self.step = ONE if order == "along" else step

    def place(self, f: Function, i: Value, k: Value) -> Value:
        return f.gep(self.base, f.add(f.mul(i, self.stride), f.mul(k, self.step)),
                     self.tile.memory)

    def pack(self, f: Function, start: Value, count: Value, k: Value, depth: Value,
             dst: Value, *panel: Value) -> None:
        """Pack rows start..start+count, k..k+depth to `dst`: one panel, or with `whole_blocks`
        all of them, `panel` elements apart."""
        f.call("void", self.packer, [self.place(f, start, k), dst, depth, count, self.stride,
                                     self.step, *panel])


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
        bias: None, "columns" or "rows".
        in_place: every tile of C is written where `StridedResult` says. Otherwise the result has
            `direct(f, j, columns)`, which tells whether a tile at column j lies in C as it is, and
            its ldc; and `store_edge`, which stores a tile that does not.
    """

    def __init__(self, module: Module, tile: Tile, layout: str, bias: str | None = None,
                 in_place: bool = False):
        self.tile, self.bias, self.in_place = tile, bias, in_place
        self.wide = _chooser(module, tile, layout, bias, "wide_tile", tile.rows, False)
        self.slim = None
        if in_place:
            slim = tile.slim()
            heights = (tile.rows[0], tile.rows[-1]) if len(tile.rows) > 1 else tile.rows
            self.slim = _chooser(module, slim, layout, bias, "slim_tile", heights, True)

    @staticmethod
    def strip_items(tile: Tile) -> int:
        """Packed elements of a strip of A, a multiple of 64."""
        strip = max(tile.height * tile.pitch, tile.depth * tile.panel_height) + tile.lanes
        return -(-strip // 64) * 64

    @staticmethod
    def items(tile: Tile) -> int:
        """Packed elements of a strip of A and of the bias, a multiple of 64."""
        return MacroKernel.strip_items(tile) + _bias_items(tile)

    def emit(self, f: Function, a, b, c, rows: tuple, columns: tuple, depth: Value, work: Value,
             packed_b: Value, bias: tuple | None = None, finish: Callable | None = None) -> None:
        """C[rows, columns] = A B: operands `a` and `b`, result `c`, half-open ranges.

        `work` has room for `items` packed elements, `packed_b` for the panels of one block.
        `bias` is (pointer, stride) of the vector that is added in the last block of K. `finish`
        emits what follows a finished strip: it gets `c` and (first, count) of rows and columns.
        """
        tile = self.tile
        packed_bias = f.gep(work, self.strip_items(tile), tile.compute)
        scratch = None if self.in_place else f.array(tile.memory, tile.height * tile.width)
        k_step = block_step(f, depth, tile.depth, tile.lanes)
        j_step = block_step(f, f.sub(columns[1], columns[0]), tile.columns, tile.width)
        # a row more than a panel holds: panels must not begin in the same set of the cache
        pitch = f.mul(f.add(k_step, 1), tile.width)
        with f.loop(columns[0], columns[1], j_step) as j0, \
                f.loop(0, f.smax(depth, 1), k_step) as k0:
            width = f.smin(f.sub(columns[1], j0), j_step)
            k_count = f.smin(f.sub(depth, k0), k_step)
            last, add_old = f.cmp("sge", f.add(k0, k_count), depth), f.cmp("sgt", k0, 0)
            self._pack_panels(f, b, (j0, width), (k0, k_count), packed_b, pitch)
            if self.bias == "columns":
                self._pack_bias(f, bias, j0, width, last, packed_bias)
            with f.loop(rows[0], rows[1], tile.height) as i:
                count = f.smin(f.sub(rows[1], i), tile.height)
                a.pack(f, i, count, k0, k_count, work)
                if self.bias == "rows":
                    self._pack_bias(f, bias, i, count, last, packed_bias)
                sides = work, packed_b, pitch, k_count, packed_bias
                if self.in_place:
                    self._strip(f, c, (i, count), (j0, width), sides, add_old)
                else:
                    self._strip_of_parts(f, c, (i, count), (j0, width), sides, add_old, scratch)
                if finish is not None:
                    with f.when(last):
                        finish(c, (i, count), (j0, width))

    def emit_direct(self, f: Function, a, b, c, rows: tuple, columns: tuple, depth: Value,
                    work: Value, packed_b: Value, finish: Callable | None = None) -> None:
        """As `emit`, for few rows: B, whose rows lie in memory as they are, is not packed.

        `work` has room for a strip for each `height` rows, `packed_b` for a panel. `finish` gets
        all rows and some columns.
        """
        tile = self.tile
        lanes, strip = tile.lanes, self.strip_items(tile)
        k_step = block_step(f, depth, tile.depth, lanes)
        count = f.sub(rows[1], rows[0])
        with f.loop(0, f.smax(depth, 1), k_step) as k0:
            k_count = f.smin(f.sub(depth, k0), k_step)
            add_old = f.cmp("sgt", k0, 0)
            with f.loop(0, count, tile.height) as i:
                here = f.smin(f.sub(count, i), tile.height)
                dst = f.gep(work, f.mul(f.udiv(i, tile.height), strip), tile.compute)
                a.pack(f, f.add(rows[0], i), here, k0, k_count, dst)
            with f.loop(columns[0], columns[1], tile.columns) as j0:
                end = f.smin(f.add(j0, tile.columns), columns[1])
                whole = f.add(j0, f.mul(f.udiv(f.sub(end, j0), tile.width), tile.width))

                def column(j, panel, step, columns_here, k_count=k_count, add_old=add_old):
                    self._column(f, c, rows, j, (work, panel, step, k_count), add_old,
                                 columns_here)

                with f.loop(j0, whole, tile.width) as j:
                    column(j, b.place(f, j, k0), b.step, None)
                parts = f.add(whole, f.mul(f.udiv(f.sub(end, whole), lanes), lanes))
                with f.loop(whole, parts, lanes) as j:
                    column(j, b.place(f, j, k0), b.step, f.const(lanes, "i64"))
                with f.when(f.cmp("slt", parts, end)):
                    rest = f.sub(end, parts)
                    b.pack(f, parts, rest, k0, k_count, packed_b)
                    column(parts, packed_b, f.const(lanes, "i64"), rest)
                if finish is not None:
                    with f.when(f.cmp("sge", f.add(k0, k_count), depth)):
                        finish(c, (rows[0], count), (j0, f.sub(end, j0)))

    def _column(self, f: Function, c, rows: tuple, j: Value, sides: tuple, add_old: Value,
                columns: Value | None) -> None:
        """The tiles of all strips at column j: whole ones, or `columns` of a vector."""
        tile = self.tile
        work, panel, step, k_count = sides
        with f.loop(rows[0], rows[1], tile.height) as i:
            index = f.udiv(f.sub(i, rows[0]), tile.height)
            packed_a = f.gep(work, f.mul(index, self.strip_items(tile)), tile.compute)
            here = f.smin(f.sub(rows[1], i), tile.height)
            args = [packed_a, panel, c.place(f, i, j), k_count, step, c.stride, add_old, here,
                    work]
            if columns is None:
                f.call("void", self.wide, args)
            else:
                f.call("void", self.slim, [*args, columns])

    def _pack_panels(self, f: Function, b, columns: tuple, depth: tuple, packed_b: Value,
                     pitch: Value) -> None:
        tile = self.tile
        (j0, width), (k0, k_count) = columns, depth
        if b.whole_blocks:
            b.pack(f, j0, width, k0, k_count, packed_b, pitch)
            return
        with f.loop(0, width, tile.width) as j:
            panel = f.gep(packed_b, f.mul(f.udiv(j, tile.width), pitch), tile.compute)
            b.pack(f, f.add(j0, j), f.sub(width, j), k0, k_count, panel)

    def _pack_bias(self, f: Function, bias: tuple, start: Value, count: Value, last: Value,
                   dst: Value) -> None:
        """The bias in the last block of K, zeros before."""
        tile = self.tile
        pointer, stride = bias
        with f.loop(0, count) as i:
            place = f.gep(pointer, f.mul(f.add(start, i), stride), tile.memory)
            item = load_scalar(f, tile, place)
            f.store(f.select(last, item, f.const(0, tile.compute)), dst, i)

    def _strip(self, f: Function, c, rows: tuple, columns: tuple, sides: tuple,
               add_old: Value) -> None:
        """All tiles of a strip, in place."""
        tile = self.tile
        (i, count), (j0, width) = rows, columns
        packed_a, packed_b, pitch, k_count, bias = sides
        whole = f.mul(f.udiv(width, tile.width), tile.width)

        def args(j: Value) -> list:
            item = f.gep(bias, j, tile.compute) if self.bias == "columns" else bias
            return [c.place(f, i, f.add(j0, j)), k_count, f.const(tile.width, "i64"), c.stride,
                    add_old, count, item]

        with f.loop(0, whole, tile.width) as j:
            panel = f.gep(packed_b, f.mul(f.udiv(j, tile.width), pitch), tile.compute)
            f.call("void", self.wide, [packed_a, panel, *args(j)])
        panel = f.gep(packed_b, f.mul(f.udiv(whole, tile.width), pitch), tile.compute)
        with f.loop(whole, width, tile.lanes) as j:
            part = f.gep(panel, f.sub(j, whole), tile.compute)
            f.call("void", self.slim, [packed_a, part, *args(j),
                                       f.smin(f.sub(width, j), tile.lanes)])

    def _strip_of_parts(self, f: Function, c, rows: tuple, columns: tuple, sides: tuple,
                        add_old: Value, scratch: Value) -> None:
        """All tiles of a strip: in place where they are whole, else through `scratch`."""
        tile = self.tile
        (i, count), (j0, width) = rows, columns
        packed_a, packed_b, pitch, k_count, bias = sides
        with f.loop(0, width, tile.width) as j:
            column, here = f.add(j0, j), f.smin(f.sub(width, j), tile.width)
            panel = f.gep(packed_b, f.mul(f.udiv(j, tile.width), pitch), tile.compute)
            item = f.gep(bias, j, tile.compute) if self.bias == "columns" else bias
            whole, ldc = c.direct(f, column, here)
            place = f.select(whole, c.place(f, i, column), scratch)
            ldc = f.select(whole, ldc, f.const(tile.width, "i64"))
            f.call("void", self.wide, [packed_a, panel, place, k_count,
                                       f.const(tile.width, "i64"), ldc, f.and_(whole, add_old),
                                       count, item])
            with f.when(f.not_(whole)):
                c.store_edge(f, scratch, i, count, column, here, add_old)


def _chooser(module: Module, tile: Tile, layout: str, bias: str | None, name: str,
             heights: tuple[int, ...], masked: bool) -> str:
    """Define a function that calls the lowest register tile that holds `rows` rows."""
    tiles = [(rows, micro_kernel(module, tile, rows, layout, bias, masked)) for rows in heights]
    if len(tiles) == 1:
        return tiles[0][1]
    last = [("i64", "columns")] if masked else []
    f = module.function(name, [
        ("ptr", "a"), ("ptr", "b"), ("ptr", "c"), ("i64", "depth"), ("i64", "step"),
        ("i64", "ldc"), ("i1", "add"), ("i64", "rows"), ("ptr", "bias"), *last], internal=True)

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


def block_step(f: Function, total: Value, largest: int, multiple: int) -> Value:
    """Cut `total` into equal blocks of at most `largest`, a multiple of `multiple`; never 0."""
    total = f.smax(total, 1)
    blocks = f.ceil_div(total, largest)
    return f.mul(f.ceil_div(f.ceil_div(total, blocks), multiple), multiple)


def workspace_items(tile: Tile, columns: int, depth: int) -> int:
    """Packed elements that one thread needs for a product with `columns` columns.

    A panel may be packed up to a vector deeper than its block, and is followed by an empty row.
    """
    depth = min(tile.depth, -(-max(depth, 1) // tile.lanes) * tile.lanes)
    columns = min(tile.columns, -(-max(columns, 1) // tile.width) * tile.width)
    return MacroKernel.items(tile) + (depth + 1) * columns + tile.lanes * tile.width


def _bias_items(tile: Tile) -> int:
    return -(-(tile.columns + tile.width) // 64) * 64
