"""The blocked loops of `conv.py`: register tiles, and what does not lie in the result as it is."""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.packing import Tile, add, load_lanes, load_scalar, multiply_add, narrow

__all__ = ["MacroKernel", "StridedResult", "edge_store", "workspace_items"]


# ---------------------------------------------------------------------- micro-kernel
def micro_kernel(module: Module, tile: Tile, rows: int, layout: str, bias: str | None) -> str:
    """Define a register tile: C[rows, width] = A B + bias (+ C if `add`); returns its name.

    Args of the function: a, b packed; c; depth; ldc (elements); add; bias (of type
    `Tile.compute`: `width` values if `bias` is "columns", `rows` values if "rows").
    """
    name = f"tile_{rows}_{layout}"
    f = module.function(name, [("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr noalias", "c"),
                               ("i64", "depth"), ("i64", "ldc"), ("i1", "add"),
                               ("ptr noalias", "bias")], internal=True)
    a, b, c, ldc = f.args["a"], f.args["b"], f.args["c"], f.args["ldc"]
    row_step, k_step = (tile.pitch, 1) if layout == "rows" else (1, tile.panel_height)
    sums = [[f.var(tile.vector, 0) for _ in range(tile.vectors)] for _ in range(rows)]
    with f.loop(0, f.args["depth"]) as k:
        b_row = f.gep(b, f.mul(k, tile.width), tile.compute)
        columns = [f.load(tile.vector, b_row, j * tile.lanes) for j in range(tile.vectors)]
        a_column = f.gep(a, f.mul(k, k_step), tile.compute)
        for i in range(rows):
            factor = f.splat(f.load(tile.compute, a_column, i * row_step), tile.lanes)
            for total, column in zip(sums[i], columns, strict=True):
                total.set(multiply_add(f, tile, factor, column, total.get()))
    if bias:
        for i in range(rows):
            for j, total in enumerate(sums[i]):
                if bias == "columns":
                    item = f.load(tile.vector, f.args["bias"], j * tile.lanes)
                else:
                    item = f.splat(f.load(tile.compute, f.args["bias"], i), tile.lanes)
                total.set(add(f, tile, total.get(), item))
    lines = [f.gep(c, f.mul(ldc, i), tile.memory) for i in range(rows)]
    with f.when(f.args["add"]):
        for line, row in zip(lines, sums, strict=True):
            for j, total in enumerate(row):
                old = load_lanes(f, tile, f.gep(line, j * tile.lanes, tile.memory))
                total.set(add(f, tile, total.get(), old))
    for line, row in zip(lines, sums, strict=True):
        for j, total in enumerate(row):
            f.store(narrow(f, total.get(), tile), line, j * tile.lanes)
    return name


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


class StridedResult:
    """C in memory with unit column stride."""

    def __init__(self, tile: Tile, base: Value, stride: Value):
        self.tile, self.base, self.stride = tile, base, stride

    def place(self, f: Function, i: Value, j: Value) -> Value:
        return f.gep(self.base, f.add(f.mul(i, self.stride), j), self.tile.memory)

    def direct(self, f: Function, j: Value, columns: Value) -> tuple[Value, Value]:
        """Whether a tile of whole width at column j can be written in place, and its ldc."""
        return f.cmp("eq", columns, self.tile.width), self.stride

    def store_edge(self, f: Function, scratch: Value, i: Value, rows: Value, j: Value,
                   columns: Value, add_old: Value) -> None:
        f.call("void", "edge_store", [scratch, self.place(f, i, j), self.stride, rows, columns,
                                      add_old])


# ---------------------------------------------------------------------- macro-kernel
class MacroKernel:
    """Emits the blocked loops into a kernel function.

    Args:
        module: where the micro-kernels are defined.
        tile: register tile and cache blocks.
        layout: layout of packed A, "rows" or "panels".
        bias: None, "columns" or "rows".
    """

    def __init__(self, module: Module, tile: Tile, layout: str, bias: str | None):
        self.tile, self.bias = tile, bias
        self.tiles = [(rows, micro_kernel(module, tile, rows, layout, bias))
                      for rows in tile.rows]

    @staticmethod
    def items(tile: Tile) -> int:
        """Packed elements of a strip of A and of the bias, a multiple of 64."""
        strip = max(tile.height * tile.pitch, tile.depth * tile.panel_height) + tile.lanes
        return -(-strip // 64) * 64 + _bias_items(tile)

    def emit(self, f: Function, a, b, c, rows: tuple, columns: tuple, depth: Value, work: Value,
             packed_b: Value, accumulate: bool = False, bias: tuple | None = None,
             finish: Callable | None = None) -> None:
        """C[rows, columns] = A B: operands `a` and `b`, result `c`, half-open ranges.

        `work` has room for `items` packed elements, `packed_b` for the panels of one block.
        `bias` is (pointer, stride) of the vector that is added in the last block of K. `finish`
        emits what follows a finished strip: it gets `c` and (first, count) of rows and columns.
        """
        tile = self.tile
        packed_a = work
        packed_bias = f.gep(work, self.items(tile) - _bias_items(tile), tile.compute)
        scratch = f.array(tile.memory, tile.height * tile.width)
        k_step = block_step(f, depth, tile.depth, tile.lanes)
        j_step = block_step(f, f.sub(columns[1], columns[0]), tile.columns, tile.width)
        with f.loop(columns[0], columns[1], j_step) as j0, \
                f.loop(0, f.smax(depth, 1), k_step) as k0:
            width = f.smin(f.sub(columns[1], j0), j_step)
            k_count = f.smin(f.sub(depth, k0), k_step)
            last = f.cmp("sge", f.add(k0, k_count), depth)
            add_old = f.cmp("sge", k0, 0) if accumulate else f.cmp("sgt", k0, 0)
            if b.whole_blocks:
                b.pack(f, j0, width, k0, k_count, packed_b, k_step)
            else:
                with f.loop(0, width, tile.width) as j:
                    b.pack(f, f.add(j0, j), f.sub(width, j), k0, k_count,
                           f.gep(packed_b, f.mul(j, k_step), tile.compute))
            if self.bias == "columns":
                self._pack_bias(f, bias, j0, width, last, packed_bias)
            with f.loop(rows[0], rows[1], tile.height) as i:
                count = f.smin(f.sub(rows[1], i), tile.height)
                a.pack(f, i, count, k0, k_count, packed_a)
                if self.bias == "rows":
                    self._pack_bias(f, bias, i, count, last, packed_bias)
                with f.loop(0, width, tile.width) as j:
                    panel = f.gep(packed_b, f.mul(j, k_step), tile.compute)
                    item = f.gep(packed_bias, j, tile.compute) if self.bias == "columns" \
                        else packed_bias
                    columns_here = f.add(j0, j), f.smin(f.sub(width, j), tile.width)
                    self._tile(f, c, (i, count), columns_here,
                               (packed_a, panel, k_count, item), add_old, scratch)
                if finish is not None:
                    with f.when(last):
                        finish(c, (i, count), (j0, width))

    def _pack_bias(self, f: Function, bias: tuple, start: Value, count: Value, last: Value,
                   dst: Value) -> None:
        """The bias in the last block of K, zeros before."""
        tile = self.tile
        pointer, stride = bias
        with f.loop(0, count) as i:
            place = f.gep(pointer, f.mul(f.add(start, i), stride), tile.memory)
            item = load_scalar(f, tile, place)
            f.store(f.select(last, item, f.const(0, tile.compute)), dst, i)

    def _tile(self, f: Function, c, rows: tuple, columns: tuple, packed: tuple, add_old: Value,
              scratch: Value) -> None:
        """One tile of C, in place where it is whole, else through `scratch`."""
        tile = self.tile
        (i, row_count), (j, column_count) = rows, columns
        a, b, depth, bias = packed
        whole, ldc = c.direct(f, j, column_count)
        fits = f.cmp("eq", row_count, self.tiles[-1][0])
        for height, _ in self.tiles[:-1]:
            fits = f.or_(fits, f.cmp("eq", row_count, height))
        whole = f.and_(whole, fits)
        place = f.select(whole, c.place(f, i, j), scratch)
        ldc = f.select(whole, ldc, f.const(tile.width, "i64"))
        args = [a, b, place, depth, ldc, f.and_(whole, add_old), bias]
        self._choose(f, row_count, args, self.tiles)
        with f.when(f.not_(whole)):
            c.store_edge(f, scratch, i, row_count, j, column_count, add_old)

    def _choose(self, f: Function, rows: Value, args: list, tiles: list) -> None:
        """Call the lowest micro-kernel that holds `rows` rows."""
        name = tiles[0][1]
        if len(tiles) == 1:
            f.call("void", name, args)
            return
        with f.when_else(f.cmp("sgt", rows, tiles[1][0])) as otherwise:
            f.call("void", name, args)
            otherwise()
            self._choose(f, rows, args, tiles[1:])


def block_step(f: Function, total: Value, largest: int, multiple: int) -> Value:
    """Cut `total` into equal blocks of at most `largest`, a multiple of `multiple`; never 0."""
    total = f.smax(total, 1)
    blocks = f.ceil_div(total, largest)
    return f.mul(f.ceil_div(f.ceil_div(total, blocks), multiple), multiple)


def workspace_items(tile: Tile, columns: int, depth: int) -> int:
    """Packed elements that one thread needs for a product with `columns` columns.

    A panel may be packed up to a vector deeper than its block.
    """
    depth = min(tile.depth, -(-max(depth, 1) // tile.lanes) * tile.lanes)
    columns = min(tile.columns, -(-max(columns, 1) // tile.width) * tile.width)
    return MacroKernel.items(tile) + depth * columns + tile.lanes * tile.width


def _bias_items(tile: Tile) -> int:
    return -(-(tile.columns + tile.width) // 64) * 64
