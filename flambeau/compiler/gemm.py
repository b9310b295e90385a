"""Matrix products: one blocked macro-kernel around small register-tile kernels (after BLIS).

    for each block of columns of C        (fits the second-level cache when packed)
      for each block of K                 pack that block of B into panels
        for each strip of rows            pack that strip of A
          for each panel                  micro-kernel: C tile (+)= A strip x B panel

Kernels are generic in M, N, K and all strides. Each element of C is the sum over K in a fixed order
(blocks of `Tile.depth`, ascending inside a block), whatever the chunks: equal bits on any number of
threads. Van Zee and van de Geijn, BLIS, ACM TOMS 41(3), 2015.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.epilogue import Epilogue
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.gemm_small import SMALL_M, emit_small, small_items
from flambeau.compiler.packing import (
    Tile,
    add,
    load_lanes,
    load_scalar,
    multiply_add,
    narrow,
    pack_block,
    pack_panel,
    pack_rows,
    tile_for,
)
from flambeau.compiler.target import Target

__all__ = ["GemmSpec", "GemmPlan", "GEMM_SLOTS", "gemm_kernel", "gemm_plan", "is_small_m",
           "MacroKernel", "StridedResult", "edge_store", "workspace_items"]

GEMM_SLOTS = ("a", "b", "c", "bias", "work", "work_stride", "batch", "m", "n", "k",
              "a_batch", "a_row", "a_col", "b_batch", "b_row", "b_col", "c_batch", "c_row",
              "bias_stride", "tiles_m", "tiles_n")
_POINTERS = ("a", "b", "c", "bias", "work")


@dataclasses.dataclass(frozen=True)
class GemmSpec:
    """What is fixed when a kernel of C = A B is compiled.

    Attributes:
        dtype_llvm: "float", "double", "i8", "i16", "i32" or "i64" (integers wrap).
        a, b: what is contiguous in each operand: "row" (column stride 1), "col" (row stride 1)
            or "any".
        small_m: made for few rows; right for any number, faster up to `SMALL_M` of them.
        accumulate: C += A B.
        bias: C gets bias[n] added to each row.
    """

    dtype_llvm: str
    a: str = "row"
    b: str = "row"
    small_m: bool = False
    accumulate: bool = False
    bias: bool = False


@dataclasses.dataclass(frozen=True)
class GemmPlan:
    """How one product is cut: slots `tiles_m`, `tiles_n`, chunks, and workspace in bytes.

    `work_bytes` is for all threads, `work_stride` (slot of the same name, in bytes) for one. The
    workspace must be aligned to 64 bytes.
    """

    tiles_m: int
    tiles_n: int
    nchunks: int
    work_bytes: int
    work_stride: int


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


# ---------------------------------------------------------------------- operands and result
class StridedOperand:
    """A matrix in memory: element (i, k) at base[i * stride + k * step].

    `i` counts along the edge of C (rows of A, columns of B), `k` along the sum.
    """

    def __init__(self, tile: Tile, packer: str, base: Value, stride: Value, step: Value,
                 order: str, whole_blocks: bool = False):
        self.tile, self.packer, self.whole_blocks = tile, packer, whole_blocks
        self.base = base
        self.stride = f_one if order == "across" else stride
        self.step = f_one if order == "along" else step

    def pack(self, f: Function, start: Value, count: Value, k: Value, depth: Value,
             dst: Value, *panel: Value) -> None:
        """Pack rows start..start+count, k..k+depth to `dst`: one panel, or with `whole_blocks`
        all of them, `panel` steps of k apart."""
        offset = f.add(f.mul(start, self.stride), f.mul(k, self.step))
        f.call("void", self.packer, [f.gep(self.base, offset, self.tile.memory), dst, depth, count,
                                     self.stride, self.step, *panel])


f_zero, f_one = Value("0", "i64"), Value("1", "i64")


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


# ---------------------------------------------------------------------- kernels
def gemm_kernel(spec: GemmSpec, target: Target, epilogue: Epilogue | None = None
                ) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `GEMM_SLOTS`.

    Chunks share out batch x tiles_m x tiles_n tiles; tile edges are multiples of the register
    tile, so a result does not depend on them.
    """
    if spec.small_m and spec.b != "any":
        return _small_kernel(spec, target, epilogue)
    name = _name(spec, epilogue)
    tile = _tile_of(spec, target)
    module = Module(target.attributes)
    layout = "panels" if spec.a == "col" else "rows"
    if spec.a == "col":
        pack_panel(module, "pack_a", tile, "across", tile.panel_height)
    else:
        pack_rows(module, "pack_a", tile, spec.a)
    b_order = {"row": "across", "col": "along", "any": "any"}[spec.b]
    if b_order == "across":
        pack_block(module, "pack_b", tile, tile.width)
    else:
        pack_panel(module, "pack_b", tile, b_order, tile.width)
    edge_store(module, tile)
    macro = MacroKernel(module, tile, layout, "columns" if spec.bias else None)
    if epilogue:
        epilogue.define(module)

    f = kernel_function(module, name)
    slot = Slots(f, GEMM_SLOTS, _POINTERS)
    work = thread_workspace(f, slot["work"], slot["work_stride"])
    packed_b = f.gep(work, macro.items(tile), tile.compute)
    grid = f.mul(slot["tiles_m"], slot["tiles_n"])
    first, last = chunk_range(f, f.mul(slot["batch"], grid))
    a_order = {"row": "along", "col": "across", "any": "any"}[spec.a]
    with f.loop(first, last) as task:
        batch, cell = f.udiv(task, grid), f.urem(task, grid)
        row, column = f.udiv(cell, slot["tiles_n"]), f.urem(cell, slot["tiles_n"])
        a_base = f.gep(slot["a"], f.mul(batch, slot["a_batch"]), tile.memory)
        b_base = f.gep(slot["b"], f.mul(batch, slot["b_batch"]), tile.memory)
        c_base = f.gep(slot["c"], f.mul(batch, slot["c_batch"]), tile.memory)
        a = StridedOperand(tile, "pack_a", a_base, slot["a_row"], slot["a_col"], a_order)
        b = StridedOperand(tile, "pack_b", b_base, slot["b_col"], slot["b_row"], b_order,
                           b_order == "across")
        c = StridedResult(tile, c_base, slot["c_row"])
        macro.emit(f, a, b, c, share(f, slot["m"], tile.height, row, slot["tiles_m"]),
                   share(f, slot["n"], tile.width, column, slot["tiles_n"]), slot["k"], work,
                   packed_b, spec.accumulate, (slot["bias"], slot["bias_stride"]),
                   _finisher(epilogue, f, batch))
    return name, module.text()


def _finisher(epilogue: Epilogue | None, f: Function, batch: Value):
    """What the macro-kernel calls with (c, rows, columns) of each finished strip, or None."""
    if epilogue is None:
        return None

    def finish(c: StridedResult, rows: tuple, columns: tuple) -> None:
        epilogue.call(f, len(GEMM_SLOTS), c.place(f, rows[0], columns[0]), c.stride, batch, rows,
                      columns)

    return finish


def _small_kernel(spec: GemmSpec, target: Target, epilogue: Epilogue | None) -> tuple[str, str]:
    """A kernel for few rows, which chunks share out by columns."""
    name, tile = _name(spec, epilogue), tile_for(spec.dtype_llvm, target)
    module = Module(target.attributes)
    if epilogue:
        epilogue.define(module)
    f = kernel_function(module, name)
    slot = Slots(f, GEMM_SLOTS, _POINTERS)
    work = thread_workspace(f, slot["work"], slot["work_stride"])
    first, last = chunk_range(f, f.mul(slot["batch"], slot["tiles_n"]))
    with f.loop(first, last) as task:
        batch, column = f.udiv(task, slot["tiles_n"]), f.urem(task, slot["tiles_n"])
        j, end = share(f, slot["n"], tile.width, column, slot["tiles_n"])
        offset = f.mul(batch, slot["a_batch"])
        a = (f.gep(slot["a"], offset, tile.memory), slot["a_row"], slot["a_col"])
        offset = f.add(f.mul(batch, slot["b_batch"]), f.mul(j, slot["b_col"]))
        b = (f.gep(slot["b"], offset, tile.memory), slot["b_row"], slot["b_col"])
        offset = f.add(f.mul(batch, slot["c_batch"]), j)
        c = (f.gep(slot["c"], offset, tile.memory), slot["c_row"], 1)
        start = f.gep(slot["bias"], f.mul(j, slot["bias_stride"]), tile.memory)
        emit_small(module, f, tile, spec.b, a, b, c, (slot["m"], f.sub(end, j), slot["k"]), work,
                   spec.accumulate, (start, slot["bias_stride"]) if spec.bias else None)
        if epilogue:
            epilogue.call(f, len(GEMM_SLOTS), c[0], slot["c_row"], batch, (f_zero, slot["m"]),
                          (j, f.sub(end, j)))
    return name, module.text()


def _name(spec: GemmSpec, epilogue: Epilogue | None) -> str:
    flags = (("_small", spec.small_m), ("_accumulate", spec.accumulate), ("_bias", spec.bias))
    suffix = "".join(word for word, on in flags if on)
    if epilogue:
        suffix += f"_{epilogue.name}"
    return f"gemm_{spec.dtype_llvm}_{spec.a}_{spec.b}{suffix}"


def _tile_of(spec: GemmSpec, target: Target) -> Tile:
    tile = tile_for(spec.dtype_llvm, target)
    if spec.small_m:
        tile = dataclasses.replace(tile, rows=tile.rows[-1:])
    return tile


# ---------------------------------------------------------------------- planning
def is_small_m(m: int) -> bool:
    """Whether `GemmSpec.small_m` is the faster choice for `m` rows."""
    return m <= SMALL_M


_SMALLEST_CHUNK = 5e5  # operations (2 M N K) below which a second thread costs more than it gives


def gemm_plan(spec: GemmSpec, target: Target, batch: int, m: int, n: int, k: int,
              threads: int) -> GemmPlan:
    """Cut a product for `threads` threads."""
    tile = _tile_of(spec, target)
    items = workspace_items(tile, n, k)
    if spec.small_m and spec.b != "any":
        items = small_items(tile, k)
    stride = -(-items * tile.itemsize // 64) * 64
    work = 2.0 * batch * m * n * max(k, 1)
    want = int(min(threads * 4 if threads > 1 else 1, max(1, work // _SMALLEST_CHUNK)))
    if want <= 1 or batch >= want:
        return GemmPlan(1, 1, min(batch, want) or 1, stride * threads, stride)
    cells = -(-want // max(batch, 1))
    tiles_n = max(1, min(cells, -(-n // tile.width) // 2))
    tiles_m = max(1, min(-(-cells // tiles_n), -(-m // tile.height)))
    if spec.small_m and spec.b != "any":
        tiles_m, tiles_n = 1, max(1, min(cells, -(-n // tile.width)))
    return GemmPlan(tiles_m, tiles_n, batch * tiles_m * tiles_n, stride * threads, stride)


def workspace_items(tile: Tile, columns: int, depth: int) -> int:
    """Packed elements that one thread needs for a product with `columns` columns.

    A panel may be packed up to a vector deeper than its block.
    """
    depth = min(tile.depth, -(-max(depth, 1) // tile.lanes) * tile.lanes)
    columns = min(tile.columns, -(-max(columns, 1) // tile.width) * tile.width)
    return MacroKernel.items(tile) + depth * columns + tile.lanes * tile.width


def _bias_items(tile: Tile) -> int:
    return -(-(tile.columns + tile.width) // 64) * 64
