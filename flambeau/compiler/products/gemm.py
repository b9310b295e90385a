"""Matrix products: which kernel fits a product, the kernel itself, and how threads share it.

    packed   the general one, after BLIS (Van Zee and van de Geijn, ACM TOMS 41(3), 2015):
               for each block of columns of C        (fits the second-level cache when packed)
                 for each block of K                 pack that block of B into panels
                   for each strip of rows            pack that strip of A
                     for each panel                  register tile: C (+)= A strip x B panel
    direct   rows of B are read from where they lie: few rows of A use each element too seldom for
             packing to pay
    few      the same with wider and lower register tiles, for up to four rows
    dots     one operand is short and the other one lies along the sum (`dots.py`)

Kernels are generic in M, N, K and all strides. Each element of C is the sum over K in a fixed order
(blocks of `Tile.depth`, ascending inside a block), whatever the chunks: equal bits on any number of
threads.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.epilogue import Epilogue
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.products.blocks import (
    MacroKernel,
    StridedOperand,
    StridedResult,
    workspace_items,
)
from flambeau.compiler.products.dots import Dots, dots_items
from flambeau.compiler.products.packing import (
    Tile,
    narrow_tile,
    pack_panel,
    pack_rows,
    tile_for,
)
from flambeau.compiler.target import Target

__all__ = ["GemmSpec", "GemmPlan", "GEMM_SLOTS", "gemm_kernel", "gemm_plan", "gemm_spec"]

GEMM_SLOTS = ("a", "b", "c", "work", "work_stride", "batch", "m", "n", "k",
              "a_batch", "a_row", "a_col", "b_batch", "b_row", "b_col", "c_batch", "c_row",
              "tiles_m", "tiles_n")
_POINTERS = ("a", "b", "c", "work")
_FEW = 4  # rows of the method "few"
_DIRECT = 32, 64  # most rows of the method "direct", for any B and for one that stays in cache
_TALL = 14  # rows that leave one register over: a row less sustains 3 % more over large products
_SHORT_A, _SHORT_B = 20, 12  # most lines of the short operand of dot products


@dataclasses.dataclass(frozen=True)
class GemmSpec:
    """What is fixed when a kernel of C = A B is compiled; `gemm_spec` chooses.

    Attributes:
        dtype_llvm: "float", "double", "i8", "i16", "i32" or "i64" (integers wrap); as dot products
            "half" and "bfloat", too, whose C is float.
        a, b: what is contiguous in each operand: "row" (column stride 1), "col" (row stride 1)
            or "any".
        method: "packed", "direct" (b is "row"), "few" (b is "row"), "dots_a" (b is "col"; A is
            short) or "dots_b" (a is "row"; B is short). Each is right for any size; the second
            and third only for elements that are not widened to be multiplied.
    """

    dtype_llvm: str
    a: str = "row"
    b: str = "row"
    method: str = "packed"


def gemm_spec(dtype_llvm: str, a: str, b: str, m: int, n: int, k: int, target: Target) -> GemmSpec:
    """The fastest kernel for an m x n product, sums of k, of operands that lie like this."""
    tile = _tile_of(dtype_llvm, target)
    cached = 8 * n * k * tile.itemsize <= target.cache
    if a == "row" and n <= _SHORT_B and m > n:
        method = "dots_b"
    elif b == "col" and m <= _SHORT_A:
        method = "dots_a"
    elif b == "row" and m <= _DIRECT[cached] and tile.memory == tile.compute:
        method = "few" if m <= _FEW else "direct"
    else:
        method = "packed"
    return GemmSpec(dtype_llvm, a, b, method)


# ---------------------------------------------------------------------- kernels
@functools.lru_cache(maxsize=256)
def gemm_kernel(spec: GemmSpec, target: Target, epilogue: Epilogue | None = None
                ) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `GEMM_SLOTS`.

    Chunks share out batch x tiles_m x tiles_n cells.
    """
    name = f"gemm_{spec.dtype_llvm}_{spec.a}_{spec.b}_{spec.method}"
    if epilogue:
        name += f"_{epilogue.name}"
    tile = _tile_of(spec.dtype_llvm, target, spec.method)
    module = Module(target.attributes)
    emit_cell = (_dots if spec.method.startswith("dots") else _blocks)(module, spec, tile, target)
    if epilogue:
        epilogue.define(module)
    f = kernel_function(module, name)
    slot = Slots(f, GEMM_SLOTS, _POINTERS)
    work = thread_workspace(f, slot["work"], slot["work_stride"])
    grid = f.mul(slot["tiles_m"], slot["tiles_n"])
    first, last = chunk_range(f, f.mul(slot["batch"], grid))
    row_unit, column_unit = _units(tile, spec.method)
    with f.loop(first, last) as task:
        batch, cell = f.udiv(task, grid), f.urem(task, grid)
        row, column = f.udiv(cell, slot["tiles_n"]), f.urem(cell, slot["tiles_n"])
        bases = {x: f.gep(slot[x], f.mul(batch, slot[f"{x}_batch"]), item.memory)
                 for x, item in (("a", tile), ("b", tile), ("c", tile.stored()))}
        c = StridedResult(tile.stored(), bases["c"], slot["c_row"])

        def finish(c: StridedResult, rows: tuple, columns: tuple, batch=batch) -> None:
            epilogue.call(f, len(GEMM_SLOTS), c.place(f, rows[0], columns[0]), c.stride, batch,
                          rows, columns)

        emit_cell(f, slot, bases, c, share(f, slot["m"], row_unit, row, slot["tiles_m"]),
                  share(f, slot["n"], column_unit, column, slot["tiles_n"]), work,
                  finish if epilogue else None)
    return name, module.text()


def _blocks(module: Module, spec: GemmSpec, tile: Tile, target: Target):
    """Define what the methods with register tiles need; returns what emits a cell."""
    if spec.a == "col":
        pack_panel(module, "pack_a", tile, "across", tile.panel_height)
    else:
        pack_rows(module, "pack_a", tile, spec.a)
    direct = spec.method != "packed"
    b_order = {"row": "across", "col": "along", "any": "any"}[spec.b]
    pack_panel(module, "pack_b", tile, b_order, tile.lanes if direct else tile.width)
    macro = MacroKernel(module, tile, "panels" if spec.a == "col" else "rows", not direct)
    a_order = {"row": "along", "col": "across", "any": "any"}[spec.a]

    def emit_cell(f: Function, slot: Slots, bases: dict, c: StridedResult, rows: tuple,
                  columns: tuple, work: Value, finish) -> None:
        a = StridedOperand(tile, "pack_a", bases["a"], slot["a_row"], slot["a_col"], a_order)
        b = StridedOperand(tile, "pack_b", bases["b"], slot["b_col"], slot["b_row"], b_order)
        if direct:
            strips = f.ceil_div(slot["m"], macro.heights(tile)[-1])
            packed_b = f.gep(work, f.mul(strips, macro.strip_items(tile)), tile.compute)
            macro.emit_direct(f, a, b, c, rows, columns, slot["k"], work, packed_b, finish)
        else:
            packed_b = f.gep(work, macro.strip_items(tile), tile.compute)
            macro.emit(f, a, b, c, rows, columns, slot["k"], work, packed_b, finish)

    return emit_cell


def _dots(module: Module, spec: GemmSpec, tile: Tile, target: Target):
    """Define what dot products need; returns what emits a cell."""
    short = spec.method[-1]
    packed = spec.a != "row" if short == "a" else spec.b != "col"
    dots = Dots(module, tile, target, short, packed)

    def emit_cell(f: Function, slot: Slots, bases: dict, c: StridedResult, rows: tuple,
                  columns: tuple, work: Value, finish) -> None:
        a = (f.gep(bases["a"], f.mul(rows[0], slot["a_row"]), tile.memory), slot["a_row"],
             slot["a_col"])
        b = (f.gep(bases["b"], f.mul(columns[0], slot["b_col"]), tile.memory), slot["b_col"],
             slot["b_row"])

        def finish_part(part_rows: tuple, part_columns: tuple) -> None:
            finish(c, (f.add(rows[0], part_rows[0]), part_rows[1]),
                   (f.add(columns[0], part_columns[0]), part_columns[1]))

        dots.emit(f, a, b, (c.place(f, rows[0], columns[0]), c.stride),
                  (f.sub(rows[1], rows[0]), f.sub(columns[1], columns[0]), slot["k"]), work,
                  finish_part if finish else None)

    return emit_cell


def _tile_of(dtype_llvm: str, target: Target, method: str = "packed") -> Tile:
    make = narrow_tile if dtype_llvm in ("half", "bfloat") else tile_for
    tile = make(dtype_llvm, target)
    if method == "few":
        tile = dataclasses.replace(tile, rows=(4, 2, 1) if target.registers >= 32 else (2, 1),
                                   vectors=4)
    elif method == "packed" and tile.rows[0] == _TALL:
        tile = dataclasses.replace(tile, rows=(_TALL - 1, *tile.rows[1:]))
    return tile


def _units(tile: Tile, method: str) -> tuple[int, int]:
    """Cells begin at multiples of these."""
    return tile.rows[-1], tile.width if method == "few" else max(tile.lanes, 4)


# ---------------------------------------------------------------------- planning
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


# What things cost, in cycles of one core; two multiply-adds of vectors a cycle.
_PACK_A, _PACK_B = 0.3, {"row": 0.5, "col": 0.7, "any": 1.5}  # an element
_BYTES = 10.0  # that arrive in one cycle from beyond the second-level cache
_TILE, _CELL, _FORK = 40.0, 400.0, 2500.0
_UNEVEN = {True: 0.02, False: 0.05}  # part of a cell for which threads wait; is B packed?
_CHUNKS = 4  # for each thread, at most


def gemm_plan(spec: GemmSpec, target: Target, batch: int, m: int, n: int, k: int,
              threads: int) -> GemmPlan:
    """Cut a product for `threads` threads."""
    tile = _tile_of(spec.dtype_llvm, target, spec.method)
    stride = _work_bytes(spec, tile, m, n, k)
    best, found = math.inf, (1, 1, 1)
    row_unit, column_unit = _units(tile, spec.method)
    units_m, units_n = max(1, -(-m // row_unit)), max(1, -(-n // column_unit))
    if spec.method in ("few", "direct", "dots_a"):
        units_m = 1
    if spec.method == "dots_b":
        units_n = 1
    for cells in _cell_counts(batch, threads):
        for tiles_m in range(1, min(cells, units_m) + 1):
            tiles_n = min(cells // tiles_m, units_n)
            tasks = batch * tiles_m * tiles_n
            chunks = max(1, min(tasks, threads * _CHUNKS))
            cell = _cell_cost(spec, tile, -(-units_m // tiles_m) * row_unit if tiles_m > 1 else m,
                              -(-units_n // tiles_n) * column_unit if tiles_n > 1 else n, k)
            for count in {1, min(threads, chunks), chunks}:
                chunk = -(-tasks // count) * cell
                cost = -(-count // threads) * chunk
                if count > 1:
                    cost += _FORK + _UNEVEN[spec.method == "packed"] * chunk
                if cost < best:
                    best, found = cost, (tiles_m, tiles_n, count)
    return GemmPlan(*found, stride * threads, stride)


def _cell_counts(batch: int, threads: int) -> list[int]:
    """Into how many cells to try to cut each matrix."""
    if threads == 1 or batch >= threads * _CHUNKS:
        return [1]
    fewer = [2 ** power for power in range(threads.bit_length())]
    return sorted({-(-count // max(batch, 1))
                   for count in fewer + [threads * q for q in range(1, _CHUNKS + 1)]})


def _cell_cost(spec: GemmSpec, tile: Tile, m: int, n: int, k: int) -> float:
    """Cycles for an m x n cell; what matters is how it grows."""
    k = max(k, 1)
    bytes_ = (m * k if spec.method == "dots_b" else n * k) * tile.itemsize
    if spec.method.startswith("dots"):
        sums = -(-m // 4) * 4 * n if m > 2 else m * n
        return _CELL + max(sums * (k / (2 * tile.lanes) + 3), bytes_ / _BYTES)
    strips, rest = divmod(m, tile.height)
    rows = strips * tile.height + min((h for h in tile.rows if h >= rest), default=0) * (rest > 0)
    columns = -(-n // tile.lanes)
    tiles = (strips + (rest > 0)) * -(-columns // tile.vectors) * -(-k // tile.depth)
    cycles = rows * columns * k / 2 + tiles * _TILE + _CELL
    if spec.method == "packed":
        blocks = -(-n * min(k, tile.depth) // tile.block)
        return cycles + n * k * _PACK_B[spec.b] + m * k * _PACK_A * blocks
    return max(cycles, bytes_ / _BYTES) + m * k * _PACK_A


def _work_bytes(spec: GemmSpec, tile: Tile, m: int, n: int, k: int) -> int:
    """Workspace of one thread, a multiple of 64 bytes."""
    if spec.method == "packed":
        items = workspace_items(tile, n, k)
    elif spec.method.startswith("dots"):
        items = dots_items(tile, m if spec.method == "dots_a" else n, k)
    else:
        strips = -(-max(m, 1) // MacroKernel.heights(tile)[-1])
        items = strips * MacroKernel.strip_items(tile) + (tile.depth + tile.lanes) * tile.lanes
    return -(-items * tile.itemsize // 64) * 64
