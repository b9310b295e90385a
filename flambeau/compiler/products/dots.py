"""Products as dot products: both operands lie along the sum, one of them is short.

Tiles of C take some rows of A and some columns of B, a vector along the sum at a time; the lanes of
all sums of a tile are then added together. The long operand is read once, from where it lies. The
short one is packed unless it lies along the sum, too.

Each element of C is the sum over blocks of K of a vector's lanes, folded half onto half: its bits
do not depend on the tile that it falls into.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.emitter import Function, Module, Value, lanes_of
from flambeau.compiler.products.blocks import block_step, prefetch
from flambeau.compiler.products.packing import (
    Tile,
    add,
    load_lanes,
    load_scalar,
    multiply_add,
    narrow,
)
from flambeau.compiler.target import Target

__all__ = ["Dots", "dots_items"]

_DEPTH = 1024  # largest block of K: a few lines of it stay in the first-level cache
_BLOCK = 256  # rows or columns of the long operand after which C is finished


def dots_items(tile: Tile, short: int, k: int) -> int:
    """Packed elements of the short operand, which has `short` lines."""
    return short * _line(tile, k)


def _line(tile: Tile, k):
    """Elements between packed lines."""
    return -(-max(k, 1) // tile.lanes) * tile.lanes + tile.lanes


class Dots:
    """Emits a product into a kernel function.

    Args:
        module: where the tiles are defined.
        tile: type and vectors of the elements.
        target: the machine, for its number of registers.
        short: which operand has few lines: "a" or "b".
        packed: the short operand does not lie along the sum.
    """

    def __init__(self, module: Module, tile: Tile, target: Target, short: str, packed: bool):
        self.tile, self.short, self.packed = tile, short, packed
        wide = 4 if target.registers >= 32 else 2
        shapes = [(4, wide), (2, 4), (1, 8)] if short == "a" else [(4, wide), (4, 1)]
        self.tiles = [(rows, columns, _define(module, tile, rows, columns, short))
                      for rows, columns in shapes]
        if packed:
            _define_pack(module, tile)

    def emit(self, f: Function, a: tuple, b: tuple, c: tuple, sizes: tuple, work: Value,
             finish: Callable | None = None) -> None:
        """C = A B for (m, n, k) = `sizes`.

        a, b: (pointer, distance of rows of A or columns of B, distance along the sum). c: (pointer,
        row stride). `finish` emits what follows a finished rectangle; it gets (first, count) of
        its rows and of its columns.
        """
        m, n, k = sizes
        if self.packed:
            count, source = (m, a) if self.short == "a" else (n, b)
            pitch = f.add(f.and_(f.add(f.smax(k, 1), self.tile.lanes - 1), -self.tile.lanes),
                          self.tile.lanes)
            f.call("void", "pack_lines", [source[0], work, count, k, source[1], source[2], pitch])
            if self.short == "a":
                a = (work, pitch)
            else:
                b = (work, pitch)
        zero = f.const(0, "i64")
        k_step = block_step(f, k, _DEPTH, self.tile.lanes)
        long = n if self.short == "a" else m
        with f.loop(0, long, _BLOCK) as start:
            count = f.smin(f.sub(long, start), _BLOCK)
            rows, columns = ((zero, m), (start, count)) if self.short == "a" else \
                ((start, count), (zero, n))
            with f.loop(0, f.smax(k, 1), k_step) as k0:
                depth = f.smin(f.sub(k, k0), k_step)
                left, right = ((f.gep(x[0], k0, self.tile.memory), x[1]) for x in (a, b))
                self._block(f, left, right, c, rows, columns, depth, f.cmp("sgt", k0, 0))
            if finish is not None:
                finish(rows, columns)

    def _block(self, f: Function, a: tuple, b: tuple, c: tuple, rows: tuple, columns: tuple,
               depth: Value, add_old: Value) -> None:
        """A block of C: the long operand in the outer loop."""
        (first, count), (start, width) = rows, columns

        def tile_at(i: Value, j: Value, name: str) -> None:
            place = f.gep(c[0], f.add(f.mul(f.add(first, i), c[1]), f.add(start, j)),
                          self.tile.stored().memory)
            f.call("void", name, [
                f.gep(a[0], f.mul(f.add(first, i), a[1]), self.tile.memory),
                f.gep(b[0], f.mul(f.add(start, j), b[1]), self.tile.memory), place, depth, a[1],
                b[1], c[1], f.sub(count, i), f.sub(width, j), add_old])

        def loops(tiles: list) -> None:
            rows_here, columns_here, name = tiles[0]
            if self.short == "a":
                with f.loop(0, width, columns_here) as j, f.loop(0, count, rows_here) as i:
                    tile_at(i, j, name)
            else:
                with f.loop(0, count, rows_here) as i, f.loop(0, width, columns_here) as j:
                    tile_at(i, j, name)

        short = count if self.short == "a" else width
        last = 0 if self.short == "a" else 1

        def choose(tiles: list) -> None:
            if len(tiles) == 1:
                loops(tiles)
                return
            with f.when_else(f.cmp("sgt", short, tiles[1][last])) as otherwise:
                loops(tiles)
                otherwise()
                choose(tiles[1:])

        choose(self.tiles)


def _define_pack(module: Module, tile: Tile) -> None:
    """Define pack_lines(src, dst, lines, depth, line, step, pitch):
    dst[i * pitch + k] = src[i * line + k * step]."""
    f = module.function("pack_lines", [
        ("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "lines"), ("i64", "depth"),
        ("i64", "line"), ("i64", "step"), ("i64", "pitch")], internal=True)
    a = f.args
    with f.loop(0, a["lines"]) as i:
        src = f.gep(a["src"], f.mul(i, a["line"]), tile.memory)
        dst = f.gep(a["dst"], f.mul(i, a["pitch"]), tile.memory)
        with f.loop(0, a["depth"]) as k:
            f.store(f.load(tile.memory, f.gep(src, f.mul(k, a["step"]), tile.memory)), dst, k)


def _define(module: Module, tile: Tile, rows: int, columns: int, short: str) -> str:
    """Define a tile(a, b, c, depth, row, column, ldc, rows, columns, add): C (+)= A B for at most
    that many rows and columns, whose lines lie `row` and `column` elements apart."""
    name = f"dots_{rows}x{columns}"
    f = module.function(name, [
        ("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr noalias", "c"), ("i64", "depth"),
        ("i64", "row"), ("i64", "column"), ("i64", "ldc"), ("i64", "rows"), ("i64", "columns"),
        ("i1", "add")], internal=True)
    # lines that do not exist repeat the last one
    a_lines = _lines(f, tile, f.args["a"], f.args["row"], f.args["rows"], rows)
    b_lines = _lines(f, tile, f.args["b"], f.args["column"], f.args["columns"], columns)
    sums = [[f.var(tile.vector, 0) for _ in b_lines] for _ in a_lines]
    long_lines, stride, count = (b_lines, "column", columns) if short == "a" else \
        (a_lines, "row", rows)
    depth = f.args["depth"]
    whole = f.and_(depth, -tile.lanes) if tile.lanes > 1 else depth
    next_lines = [f.gep(line, f.mul(f.args[stride], count), tile.memory)  # of the long operand
                  for line in long_lines]
    with f.loop(0, whole, tile.lanes) as k:
        for line in next_lines:
            prefetch(f, f.gep(line, k, tile.memory))
        _step(f, tile, sums, a_lines, b_lines, k, None)
    if tile.masked:
        with f.when(f.cmp("slt", whole, depth)):
            mask = f.lane_mask(tile.lanes, f.sub(depth, whole))
            _step(f, tile, sums, a_lines, b_lines, whole, mask)
    folded = fold_all(f, tile, [total.get() for row in sums for total in row])
    if tile.masked and lanes_of(folded[0].type) % columns == 0 and columns > 1:
        full = f.and_(f.cmp("sge", f.args["rows"], rows), f.cmp("sge", f.args["columns"], columns))
        with f.when_else(full) as otherwise:
            _store_rows(f, tile, folded, rows, columns)
            otherwise()
            _store_each(f, tile, folded, rows, columns, whole)
    else:
        _store_each(f, tile, folded, rows, columns, whole)
    return name


def _lines(f: Function, tile: Tile, base: Value, stride: Value, count: Value,
           most: int) -> list[Value]:
    last = f.sub(count, 1)
    return [base] + [f.gep(base, f.mul(f.smin(last, q), stride), tile.memory)
                     for q in range(1, most)]


def _step(f: Function, tile: Tile, sums: list, a_lines: list, b_lines: list, k: Value,
          mask: Value | None) -> None:
    items = [load_lanes(f, tile, f.gep(line, k, tile.memory), mask) for line in b_lines]
    for line, row in zip(a_lines, sums, strict=True):
        factor = load_lanes(f, tile, f.gep(line, k, tile.memory), mask)
        for total, item in zip(row, items, strict=True):
            total.set(multiply_add(f, tile, factor, item, total.get()))


def fold_all(f: Function, tile: Tile, values: list[Value]) -> list[Value]:
    """The sums of the lanes of each vector, in order, in as few vectors as hold them.

    Halves are added onto each other as in `packing.fold`, for many vectors at once. The number of
    values is a power of two.
    """
    unit = tile.lanes  # lanes that still belong to one sum
    while unit > 1:
        half, lanes = unit // 2, lanes_of(values[0].type)
        starts = range(0, lanes, unit)
        low = [start + q for start in starts for q in range(half)]
        high = [lane + half for lane in low]
        if len(values) > 1:
            low += [lane + lanes for lane in low]
            high += [lane + lanes for lane in high]
            pairs = zip(values[::2], values[1::2], strict=True)
        else:
            pairs = [(values[0], None)]
        values = [add(f, tile, f.shuffle(x, y, low), f.shuffle(x, y, high)) for x, y in pairs]
        unit = half
    return values


def _store_rows(f: Function, tile: Tile, folded: list, rows: int, columns: int) -> None:
    """A whole tile: some lanes of the sums are a row."""
    lanes = lanes_of(folded[0].type)
    a, few = f.args, tile.stored().with_lanes(columns)
    pieces = []
    for i in range(rows):
        vector, lane = divmod(i * columns, lanes)
        row = f.shuffle(folded[vector], None, range(lane, lane + columns))
        pieces.append((f.gep(a["c"], f.mul(a["ldc"], i), few.memory), row))
    with f.when_else(a["add"]) as otherwise:
        for place, row in pieces:
            total = add(f, few, row, load_lanes(f, few, place))
            f.store(narrow(f, total, few), place)
        otherwise()
        for place, row in pieces:
            f.store(narrow(f, row, few), place)


def _store_each(f: Function, tile: Tile, folded: list, rows: int, columns: int,
                whole: Value) -> None:
    """One by one what there is of a tile; adds the end of the sum where there are no masks."""
    a, one, result = f.args, tile.with_lanes(1), tile.stored().with_lanes(1)
    buffer = f.array(tile.compute, rows * columns, align=16)
    for index, value in enumerate(folded):
        f.store(value, buffer, index * lanes_of(value.type))
    with f.loop(0, f.smin(a["rows"], rows)) as i, f.loop(0, f.smin(a["columns"], columns)) as j:
        total = f.var(tile.compute, f.load(tile.compute, f.gep(
            buffer, f.add(f.mul(i, columns), j), tile.compute)))
        if not tile.masked:
            row = f.gep(a["a"], f.mul(i, a["row"]), tile.memory)
            column = f.gep(a["b"], f.mul(j, a["column"]), tile.memory)
            with f.loop(whole, a["depth"]) as k:
                left, right = (load_scalar(f, tile, f.gep(x, k, tile.memory))
                               for x in (row, column))
                total.set(multiply_add(f, one, left, right, total.get()))
        place = f.gep(a["c"], f.add(f.mul(i, a["ldc"]), j), result.memory)
        value = add(f, one, total.get(), load_scalar(f, result, place))
        value = f.select(a["add"], value, total.get())
        f.store(narrow(f, value, result), place)
