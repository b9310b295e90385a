"""Products with few rows: each element of B is used too seldom to be worth packing.

    B contiguous along n   tiles of C as wide as the registers hold, B streamed row by row
    B contiguous along k   dot products, several columns at a time

A, which is small, is packed so that one pointer reads it.
"""

from __future__ import annotations

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.packing import Tile, add, fold, load_lanes, load_scalar, multiply_add, narrow

__all__ = ["SMALL_M", "HEIGHTS", "emit_small", "small_items"]

SMALL_M = 8
HEIGHTS = (8, 4, 1)  # rows of the register tiles


def small_items(tile: Tile, k: int) -> int:
    """Packed elements of A for one thread."""
    return HEIGHTS[0] * (-(-max(k, 1) // tile.lanes) * tile.lanes) + tile.lanes


def emit_small(module: Module, f: Function, tile: Tile, order: str, a: tuple, b: tuple, c: tuple,
               sizes: tuple, work: Value, accumulate: bool, bias: tuple | None) -> None:
    """C = A B for (m, n, k) = `sizes`.

    a, b, c: (pointer, row stride, column stride); C's column stride is 1. `order` of B is "row" or
    "col". `bias` is (pointer, stride) of a vector that is added to each row.
    """
    m, n, k = sizes
    unit = 1 if order == "row" else tile.lanes
    kernels = {rows: (_stream if order == "row" else _dots)(module, tile, rows, accumulate)
               for rows in HEIGHTS}
    _pack(module, tile, unit)
    b_stride = b[1] if order == "row" else b[2]
    with f.loop(0, m, HEIGHTS[0]) as i:
        rows = f.smin(f.sub(m, i), HEIGHTS[0])
        source = f.gep(a[0], f.mul(i, a[1]), tile.memory)
        place = f.gep(c[0], f.mul(i, c[1]), tile.memory)
        pack_args = [source, work, a[1], a[2], rows, k]
        args = [work, b[0], place, k, b_stride, c[1], rows, n]
        height = f.select(f.cmp("sgt", rows, HEIGHTS[1]), HEIGHTS[0],
                          f.select(f.cmp("sgt", rows, HEIGHTS[2]), HEIGHTS[1], HEIGHTS[2]))
        f.call("void", "pack_few", [*pack_args, height])
        for chosen, kernel in kernels.items():
            with f.when(f.cmp("eq", height, chosen)):
                f.call("void", kernel, args)
        if bias is not None:
            f.call("void", _add_bias(module, tile), [place, c[1], rows, n, *bias])


def _pack(module: Module, tile: Tile, unit: int) -> None:
    """Define pack_few(src, dst, row, column, count, depth, rows), which packs A: element (i, k) to
    ((k / unit) * rows + i) * unit + k % unit.

    Rows from `count` to `rows` repeat the last one; k is filled with zeros to a multiple of `unit`.
    """
    f = module.function("pack_few", [
        ("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "row"), ("i64", "column"),
        ("i64", "count"), ("i64", "depth"), ("i64", "rows")], internal=True)
    a = f.args
    last = f.sub(a["count"], 1)
    with f.loop(0, a["rows"]) as i:
        line = f.gep(a["src"], f.mul(f.smin(i, last), a["row"]), tile.memory)
        target = f.gep(a["dst"], f.mul(i, unit), tile.compute)
        with f.loop(0, a["depth"], unit) as k:
            dst = f.gep(target, f.mul(k, a["rows"]), tile.compute)
            with f.loop(0, unit) as q:
                at = f.add(k, q)
                source = f.gep(line, f.mul(f.smin(at, f.sub(a["depth"], 1)), a["column"]),
                               tile.memory)
                item = f.select(f.cmp("slt", at, a["depth"]), load_scalar(f, tile, source), 0)
                f.store(item, dst, q)


_KERNEL_ARGS = (("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr noalias", "c"), ("i64", "depth"),
                ("i64", "stride"), ("i64", "ldc"), ("i64", "rows"), ("i64", "columns"))


def _stream(module: Module, tile: Tile, rows: int, accumulate: bool) -> str:
    """Define a kernel for B contiguous along n: `stride` lies between its rows.

    Some rows of B at a time, from end to end, into C: memory is read in long runs.
    """
    name = f"stream_{rows}"
    f = module.function(name, _KERNEL_ARGS, internal=True)
    a, vectors = f.args, {8: 2, 4: 4, 1: 6}[rows]
    if not accumulate:
        with f.loop(0, a["rows"]) as i, f.loop(0, a["columns"]) as j:
            place = f.gep(a["c"], f.add(f.mul(i, a["ldc"]), j), tile.memory)
            f.store(f.const(0, tile.memory), place)
    wide = tile.lanes * vectors
    whole = f.mul(f.sdiv(a["columns"], wide), wide)
    with f.loop(0, a["depth"], _LINES) as k:
        count = f.smin(f.sub(a["depth"], k), _LINES)
        with f.loop(0, whole, wide) as j:
            _stream_tile(f, tile, (rows, vectors), (k, count), j, None)
        if tile.masked:
            with f.loop(whole, a["columns"], tile.lanes) as j:
                mask = f.lane_mask(tile.lanes, f.sub(a["columns"], j))
                _stream_tile(f, tile, (rows, 1), (k, count), j, mask)
        else:
            with f.loop(whole, a["columns"]) as j:
                _stream_tile(f, tile.scalar(), (rows, 1), (k, count), j, None)
    return name


_LINES = 8  # of B that are read side by side


def _stream_tile(f: Function, tile: Tile, shape: tuple[int, int], lines: tuple[Value, Value],
                 j: Value, mask: Value | None) -> None:
    """C[rows, vectors at j] += A[rows, k..k+count] B[k..k+count, vectors at j]."""
    a, (rows, vectors), (k, count) = f.args, shape, lines
    last = f.sub(a["rows"], 1)
    places = []
    for i in range(rows):
        line = f.gep(a["c"], f.add(f.mul(f.smin(i, last), a["ldc"]), j), tile.memory)
        places.append([f.gep(line, v * tile.lanes, tile.memory) for v in range(vectors)])
    sums = [[f.var(tile.vector, load_lanes(f, tile, place, mask)) for place in row]
            for row in places]
    b = f.gep(a["b"], f.add(f.mul(k, a["stride"]), j), tile.memory)
    factors = f.gep(a["a"], f.mul(k, rows), tile.compute)
    with f.loop(0, count) as q:
        line = f.gep(b, f.mul(q, a["stride"]), tile.memory)
        items = [load_lanes(f, tile, f.gep(line, v * tile.lanes, tile.memory), mask)
                 for v in range(vectors)]
        column = f.gep(factors, f.mul(q, rows), tile.compute)
        for i, row in enumerate(sums):
            factor = f.splat(f.load(tile.compute, column, i), tile.lanes)
            for total, item in zip(row, items, strict=True):
                total.set(multiply_add(f, tile, factor, item, total.get()))
    # rows that do not exist repeat the last one: they store the same values again
    for row, line in zip(sums, places, strict=True):
        for total, place in zip(row, line, strict=True):
            if mask is None:
                f.store(narrow(f, total.get(), tile), place)
            else:
                f.masked_store(narrow(f, total.get(), tile), place, mask)


def _dots(module: Module, tile: Tile, rows: int, accumulate: bool) -> str:
    """Define a kernel for B contiguous along k: `stride` lies between its columns."""
    name = f"dots_{rows}"
    f = module.function(name, _KERNEL_ARGS, internal=True)
    a, count = f.args, {8: 2, 4: 4, 1: 8}[rows]
    last = f.sub(a["columns"], 1)
    whole = f.mul(f.sdiv(a["depth"], tile.lanes), tile.lanes)
    with f.loop(0, a["columns"], count) as j:
        lines = [f.gep(a["b"], f.mul(f.smin(f.add(j, q), last), a["stride"]), tile.memory)
                 for q in range(count)]
        sums = [[f.var(tile.vector, 0) for _ in range(count)] for _ in range(rows)]
        with f.loop(0, whole, tile.lanes) as k:
            _dot_step(f, tile, sums, lines, k, None)
        if tile.masked:
            with f.when(f.cmp("slt", whole, a["depth"])):
                _dot_step(f, tile, sums, lines, whole,
                          f.lane_mask(tile.lanes, f.sub(a["depth"], whole)))
        for i, row in enumerate(sums):
            for q, total in enumerate(row):
                value = fold(f, tile, total.get())
                if not tile.masked:
                    value = _scalar_tail(f, tile, value, (i, rows), lines[q], whole)
                inside = f.and_(f.cmp("slt", i, a["rows"]),
                                f.cmp("slt", f.add(j, q), a["columns"]))
                with f.when(inside):
                    place = f.gep(a["c"], f.add(f.mul(a["ldc"], i), f.add(j, q)), tile.memory)
                    if accumulate:
                        value = add(f, tile, value, load_scalar(f, tile, place))
                    f.store(narrow(f, value, tile), place)
    return name


def _dot_step(f: Function, tile: Tile, sums: list, lines: list, k: Value,
              mask: Value | None) -> None:
    items = [load_lanes(f, tile, f.gep(line, k, tile.memory), mask) for line in lines]
    base = f.gep(f.args["a"], f.mul(k, len(sums)), tile.compute)
    for i, row in enumerate(sums):
        factor = f.load(tile.vector, base, i * tile.lanes)
        for total, item in zip(row, items, strict=True):
            total.set(multiply_add(f, tile, factor, item, total.get()))


def _scalar_tail(f: Function, tile: Tile, value: Value, row: tuple[int, int], line: Value,
                 whole: Value) -> Value:
    """value + the products that fill no vector."""
    i, rows = row
    total = f.var(tile.compute, value)
    base = f.gep(f.args["a"], f.add(f.mul(whole, rows), i * tile.lanes), tile.compute)
    with f.loop(whole, f.args["depth"]) as k:
        factor = f.load(tile.compute, base, f.sub(k, whole))
        item = load_scalar(f, tile, f.gep(line, k, tile.memory))
        total.set(multiply_add(f, tile.scalar(), factor, item, total.get()))
    return total.get()


def _add_bias(module: Module, tile: Tile) -> str:
    """Define add_bias(c, ldc, rows, columns, bias, stride)."""
    f = module.function("add_bias", [("ptr noalias", "c"), ("i64", "ldc"), ("i64", "rows"),
                                     ("i64", "columns"), ("ptr noalias", "bias"),
                                     ("i64", "stride")], internal=True)
    a = f.args
    with f.loop(0, a["columns"]) as j:
        item = load_scalar(f, tile, f.gep(a["bias"], f.mul(j, a["stride"]), tile.memory))
        with f.loop(0, a["rows"]) as i:
            place = f.gep(a["c"], f.add(f.mul(i, a["ldc"]), j), tile.memory)
            f.store(narrow(f, add(f, tile, load_scalar(f, tile, place), item), tile), place)
    return "add_bias"
