"""Matrix products of narrow elements: bfloat16 and float16 with float32 sums, bytes with int32
sums.

    for each block of columns of C
      for each block of the sum           pack that part of B into panels
        for each strip of rows
          for each 256 units of the sum   a part of the strip of A
            for each panel                pack a share of the part of A that comes next
                                          micro-kernel: sums (+)= A strip x B panel
            for every second one          finish: that rectangle of C, once it is complete

Tiles multiply while the vector units pack: a call of a micro-kernel leaves them idle for hundreds
of cycles, and what it waits for does not depend on them.
Sums are kept in the workspace until they are complete: nothing is rounded on the way, and one place
sees finished rectangles, which are small enough for the first-level cache. A unit of the sum is 32
bits (`low_packing.py`). Every sum is taken in the same order however the work is cut: equal bits on
any number of threads.

Where B lies along the sum (the weight of a linear layer) and C has few rows, the product is taken
the other way round, C^T = B^T A^T (`GemmLowSpec.swapped`): B^T needs no transposing to be packed,
and strips of C^T are transposed when they are finished.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from flambeau.compiler import amx
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.epilogue import Epilogue, call_finish
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.products import split
from flambeau.compiler.products.blocks import ZERO, prefetch
from flambeau.compiler.products.gemm import GemmSpec, gemm_spec
from flambeau.compiler.products.low_packing import (
    SIZES,
    Engine,
    Operand,
    bit_mask,
    engine_for,
    has_split,
    pack_panels,
    pack_rows,
)
from flambeau.compiler.products.packing import transpose
from flambeau.compiler.target import Target

__all__ = ["GEMM_LOW_SLOTS", "GemmLowPlan", "GemmLowSpec", "gemm_low_kernel", "gemm_low_plan",
           "is_swapped", "order", "short_spec", "split_spec"]

GEMM_LOW_SLOTS = ("a", "b", "c", "work", "work_stride", "batch", "m", "n", "k",
                  "a_batch", "a_row", "a_col", "b_batch", "b_row", "b_col", "c_batch", "c_row",
                  "tiles_m", "tiles_n", "block_m", "block_n", "block_k",
                  "pitch", "strip_step", "sums_size")
_POINTERS = ("a", "b", "c", "work")
_DRIVE = "drive"  # the loops around the parts of a kernel, a part themselves


@dataclasses.dataclass(frozen=True)
class GemmLowSpec:
    """What is fixed when a kernel of C = A B is compiled.

    Attributes:
        memory: "bfloat", "half", "i8", or "float", whose elements are multiplied in bfloat16 parts.
        a, b: how each operand lies in memory: contiguous "along" the sum, "across" it, or "any".
        unsigned: which of the operands hold unsigned bytes: "", "a" or "b".
        swapped: the kernel's C is the transpose of what is stored: a, b, m and n are those of the
            transposed product, only `c_row` is the distance of rows in memory.
        stored: whether the sums are stored (else only an epilogue reads them).
    """

    memory: str
    a: str = "along"
    b: str = "across"
    unsigned: str = ""
    swapped: bool = False
    stored: bool = True

    def transposed(self) -> GemmLowSpec:
        """Of C^T = B^T A^T, stored as C."""
        sides = {"": "", "a": "b", "b": "a"}
        return dataclasses.replace(self, a=self.b, b=self.a, unsigned=sides[self.unsigned],
                                   swapped=not self.swapped)


@dataclasses.dataclass(frozen=True)
class GemmLowPlan:
    """How one product is cut: the slots of the same names, chunks, and workspace in bytes, for all
    threads and (`work_stride`) for one; aligned to 64."""

    tiles_m: int
    tiles_n: int
    block_m: int
    block_n: int
    block_k: int
    pitch: int
    strip_step: int
    sums_size: int
    nchunks: int
    work_bytes: int
    work_stride: int


# ---------------------------------------------------------------------- micro-kernels
def _vector_kernel(module: Module, engine: Engine, rows: int) -> str:
    """Define a register tile; arguments as those of `amx.tile_kernel`."""
    name = f"tile_{rows}"
    f = module.function(name, list(amx.TILE_ARGS), part="tiles")
    sums = vector(engine.lanes, engine.sums)
    starts = range(0, engine.width, engine.lanes)
    totals = [[f.var(sums, 0) for _ in starts] for _ in range(rows)]
    lines = [f.gep(f.args["c"], f.mul(f.args["ldc"], i), "i32") for i in range(rows)]
    olds = [f.gep(f.args["old"], f.mul(f.args["ld_old"], i), "i32") for i in range(rows)]
    with f.when(f.args["add"]):
        for line, row in zip(olds, totals, strict=True):
            for start, total in zip(starts, row, strict=True):
                total.set(f.load(sums, line, start))
    with f.loop(0, f.args["depth"]) as q:
        b = f.gep(f.args["b"], f.mul(q, engine.width), "i32")
        columns = [f.load(engine.units, b, start) for start in starts]
        a = f.gep(f.args["a"], q, "i32")
        for i, row in enumerate(totals):
            factor = f.splat(f.load("i32", a, i * engine.pitch), engine.lanes)
            for total, column in zip(row, columns, strict=True):
                total.set(_multiply_add(f, engine, factor, column, total.get()))
    for line, row in zip(lines, totals, strict=True):
        for start, total in zip(starts, row, strict=True):
            f.store(total.get(), line, start)
    return name


def _multiply_add(f: Function, engine: Engine, a: Value, b: Value, total: Value) -> Value:
    """total + a b, unit by unit."""
    bits = 32 * engine.lanes
    if engine.kind == "bf16":
        type_ = vector(2 * engine.lanes, "bfloat")
        a, b = f.cast("bitcast", a, type_), f.cast("bitcast", b, type_)
        return f.intrinsic_call(total.type, f"llvm.x86.avx512bf16.dpbf16ps.{bits}", [total, a, b])
    if engine.kind == "i16":
        type_ = vector(2 * engine.lanes, "i16")
        name = {512: "avx512.pmaddw.d.512", 256: "avx2.pmadd.wd", 128: "sse2.pmadd.wd"}[bits]
        a, b = f.cast("bitcast", a, type_), f.cast("bitcast", b, type_)
        return f.add(total, f.intrinsic_call(engine.units, f"llvm.x86.{name}", [a, b]))
    if engine.sums == "i32":
        return f.add(total, f.mul(a, b))
    a, b = f.cast("bitcast", a, total.type), f.cast("bitcast", b, total.type)
    return f.fma(a, b, total)


class _Tiles:
    """The micro-kernels of one engine, and the choice among them."""

    def __init__(self, module: Module, engine: Engine, instruction: str):
        self.engine = engine
        layers = (engine.strip * engine.pitch, engine.depth * engine.width)
        layers = layers if engine.parts > 1 else None
        if engine.kind == "amx":
            self.heights = [(rows, [(columns, amx.tile_kernel(
                module, instruction, (rows // amx.SIDE, columns // amx.SIDE), engine.pitch,
                engine.width, layers))
                for columns in (engine.width, amx.SIDE)]) for rows in engine.rows]
        else:
            self.heights = [(rows, [(engine.width, _vector_kernel(module, engine, rows))])
                            for rows in engine.rows]

    def names(self) -> list[str]:
        return [kernel for _, kernels in self.heights for _, kernel in kernels]

    def choose(self, f: Function, rows: Value, columns: Value, emit: Callable) -> None:
        """Call `emit` with the smallest tile that holds rows x columns."""
        self._choose(f, self.heights, rows, lambda kernels: self._choose(
            f, kernels, columns, emit))

    def _choose(self, f: Function, options: list, size: Value, emit) -> None:
        if len(options) == 1:
            emit(options[0][1])
            return
        with f.when_else(f.cmp("sgt", size, options[1][0])) as otherwise:
            emit(options[0][1])
            otherwise()
            self._choose(f, options[1:], size, emit)


# ---------------------------------------------------------------------- finished rectangles
def _define_store(module: Module, engine: Engine) -> None:
    """Define store(sums, pitch, c, stride, rows, columns): a rectangle of sums to memory."""
    f = module.function("store", [("ptr noalias", "sums"), ("i64", "pitch"), ("ptr noalias", "c"),
                                  ("i64", "stride"), ("i64", "rows"), ("i64", "columns")],
                        part="store")
    a, lanes = f.args, engine.lanes
    whole = f.and_(a["columns"], -lanes)
    rest = f.sub(a["columns"], whole)
    with f.loop(0, a["rows"]) as i:
        source = f.gep(a["sums"], f.mul(i, a["pitch"]), "i32")
        place = f.gep(a["c"], f.mul(i, a["stride"]), "i32")
        with f.loop(0, whole, lanes) as j:
            f.store(f.load(engine.units, f.gep(source, j, "i32")), f.gep(place, j, "i32"))
        if engine.masked:
            with f.when(f.cmp("sgt", rest, 0)):
                f.masked_store(f.load(engine.units, f.gep(source, whole, "i32")),
                               f.gep(place, whole, "i32"), bit_mask(f, lanes, rest))
        else:
            with f.loop(whole, a["columns"]) as j:
                f.store(f.load("i32", source, j), place, j)


def _define_turn(module: Module, engine: Engine) -> None:
    """Define turn(sums, pitch, turned, columns): a strip of C^T, transposed: `columns` rows of
    `Engine.strip` units."""
    f = module.function("turn_block", [("ptr noalias", "src"), ("ptr noalias", "dst"),
                                       ("i64", "pitch")], part="turn")
    rows = [f.load(engine.units, f.gep(f.args["src"], f.mul(f.args["pitch"], i), "i32"))
            for i in range(engine.lanes)]
    for i, row in enumerate(transpose(f, rows, 4)):
        f.store(row, f.args["dst"], i * engine.strip)
    f = module.function("turn", [("ptr noalias", "sums"), ("i64", "pitch"),
                                 ("ptr noalias", "turned"), ("i64", "columns")], part="turn")
    a = f.args
    with f.loop(0, a["columns"], engine.lanes) as j, f.loop(0, engine.strip, engine.lanes) as i:
        src = f.gep(a["sums"], f.add(f.mul(i, a["pitch"]), j), "i32")
        dst = f.gep(a["turned"], f.add(f.mul(j, engine.strip), i), "i32")
        f.call("void", "turn_block", [src, dst, a["pitch"]])


# ---------------------------------------------------------------------- what comes next
_LINE = 64  # bytes


@dataclasses.dataclass(frozen=True)
class _Ahead:
    """Fetches the next part of a strip of A from memory while this one is multiplied: some cache
    lines with every panel."""

    lines: int  # of memory that a part consists of
    each: int  # of them, that follow one another
    size: int  # bytes of an element

    @classmethod
    def of(cls, engine: Engine, order: str) -> _Ahead:
        size, length = SIZES[engine.memory], engine.depth * engine.group
        rows, run = (engine.height, length) if order == "along" else (length, engine.height)
        each = -(-run * size // _LINE)
        return cls(rows * each, each, size)

    def define(self, module: Module) -> None:
        """Define ahead(src, stride, first, last): lines `first` to `last`, `stride` in elements."""
        f = module.function("ahead", [("ptr", "src"), ("i64", "stride"), ("i64", "first"),
                                      ("i64", "last")], part=_DRIVE)
        stride = f.mul(f.args["stride"], self.size)
        with f.loop(f.args["first"], f.args["last"]) as line:
            place = f.add(f.mul(f.udiv(line, self.each), stride),
                          f.mul(f.urem(line, self.each), _LINE))
            prefetch(f, f.gep(f.args["src"], place, "i8"), near=False)


def _define_claim(module: Module, width: int) -> None:
    """Define claim(c, stride, rows): ask for the lines of `width` elements of some rows of C, to
    write to them soon."""
    f = module.function("claim", [("ptr", "c"), ("i64", "stride"), ("i64", "rows")], part=_DRIVE)
    with f.loop(0, f.args["rows"]) as i:
        row = f.gep(f.args["c"], f.mul(i, f.args["stride"]), "i32")
        for at in range(0, 4 * width, _LINE):
            prefetch(f, f.gep(row, at, "i8"), write=True, near=False)


# ---------------------------------------------------------------------- the kernel
@functools.lru_cache(maxsize=256)
def gemm_low_kernel(spec: GemmLowSpec, target: Target, epilogue: Epilogue | None = None
                    ) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `GEMM_LOW_SLOTS`, then the epilogue's."""
    return _Kernel(spec, target, epilogue).emit()


class _Kernel:
    """Emits the blocked loops around the micro-kernels.

    The loops are a function that many kernels share: what differs from one to the other (how
    operands are packed, what follows) it calls by address.
    """

    def __init__(self, spec: GemmLowSpec, target: Target, epilogue: Epilogue | None):
        self.spec, self.epilogue = spec, epilogue
        self.engine = engine = engine_for(spec.memory, target)
        self.module = Module(target.attributes)
        letters = "".join("u" if side in spec.unsigned else "s" for side in "ab")
        instruction = "tdpbf16ps" if engine.sums == "float" else f"tdpb{letters}d"
        if engine.parts > 1:
            split.pack_rows(self.module, "pack_a", engine, spec.a)
            split.pack_panels(self.module, "pack_b", engine, spec.b)
            split.define_repair(self.module, engine, _group(engine))
        else:
            pack_rows(self.module, "pack_a", Operand(engine, "a" in spec.unsigned), spec.a)
            pack_panels(self.module, "pack_b", Operand(engine, "b" in spec.unsigned), spec.b)
        self.tiles = _Tiles(self.module, engine, instruction)
        self.ahead = None
        if engine.kind == "amx" and spec.a != "any":
            self.ahead = _Ahead.of(engine, spec.a)
            self.ahead.define(self.module)
        if spec.stored:
            _define_store(self.module, engine)
        self.claims = spec.stored and engine.parts > 1
        if self.claims:
            _define_claim(self.module, engine.height if spec.swapped else engine.width)
        if spec.swapped:
            _define_turn(self.module, engine)
        if epilogue:
            epilogue.define(self.module)
        self.name = "_".join(filter(None, (
            "gemm", spec.memory, spec.a, spec.b, "swapped" if spec.swapped else "",
            f"unsigned_{spec.unsigned}" if spec.unsigned else "",
            epilogue.name if epilogue else "")))
        self.routines = ["pack_a", "pack_b", *self.tiles.names()]
        self.routines += ["repair"] * (engine.parts > 1) + ["turn"] * spec.swapped
        self.routines += ["store"] * spec.stored
        self.f = kernel_function(self.module, _DRIVE, (*self.routines, "finish"), _DRIVE)
        self.slot = Slots(self.f, GEMM_LOW_SLOTS, _POINTERS)

    def emit(self) -> tuple[str, str]:
        f, slot, engine = self.f, self.slot, self.engine
        self.packed_a = thread_workspace(f, slot["work"], slot["work_stride"])
        self.side = f.var("i64", 0)  # which of the two halves of packed_a is multiplied
        self.turned = f.gep(self.packed_a, 2 * _part_of_a(engine), "i32")
        self.finished = f.gep(self.turned, _group(engine) * engine.strip, "i32")
        self.sums = f.gep(self.finished, _pitch(engine) * engine.strip, "i32")
        self.packed_b = f.gep(self.sums, slot["sums_size"], "i32")
        grid = f.mul(slot["tiles_m"], slot["tiles_n"])
        first, last = chunk_range(f, f.mul(slot["batch"], grid))
        if engine.kind == "amx":
            amx.configure(f)
        with f.loop(first, last) as task:
            batch, cell = f.udiv(task, grid), f.urem(task, grid)
            row, column = f.udiv(cell, slot["tiles_n"]), f.urem(cell, slot["tiles_n"])
            rows = share(f, slot["m"], engine.height, row, slot["tiles_m"])
            columns = share(f, slot["n"], engine.width, column, slot["tiles_n"])
            with f.loop(*columns, slot["block_n"]) as j:
                width = f.smin(f.sub(columns[1], j), slot["block_n"])
                with f.loop(*rows, slot["block_m"]) as i:
                    height = f.smin(f.sub(rows[1], i), slot["block_m"])
                    self._block(batch, (i, height), (j, width))
        if engine.kind == "amx":
            amx.release(f)
        kernel = kernel_function(self.module, self.name)
        finish = self.epilogue.address() if self.epilogue else kernel.const(0, "ptr")
        kernel.call("void", _DRIVE, [*kernel.args.values(), *(
            Value(f"@{name}", "ptr") for name in self.routines), finish])
        return self.name, self.module.text()

    def _call(self, routine: str, args: list[Value]) -> None:
        self.f.call_pointer("void", self.f.args[routine], args)

    def _address(self, name: str, batch: Value, i: Value, j: Value) -> Value:
        """Element (i, j) of operand `name`."""
        f, slot = self.f, self.slot
        offset = f.add(f.mul(i, slot[f"{name}_row"]), f.mul(j, slot[f"{name}_col"]))
        return f.gep(slot[name], f.add(f.mul(batch, slot[f"{name}_batch"]), offset),
                     self.engine.memory)

    def _block(self, batch: Value, rows: tuple, columns: tuple) -> None:
        """Rows x columns, (first, count) each, in blocks of the sum."""
        f, slot, engine = self.f, self.slot, self.engine
        (i0, height), (j0, width) = rows, columns
        depth = engine.depth * engine.group
        with f.loop(0, f.smax(slot["k"], 1), slot["block_k"]) as k0:
            end = f.smin(f.add(k0, slot["block_k"]), slot["k"])
            with f.loop(k0, end, depth) as k:
                src = self._address("b", batch, k, j0)
                dst = f.gep(self.packed_b, self._part(f.sub(k, k0)), "i32")
                self._call("pack_b", [src, dst, f.smin(f.sub(end, k), depth), width,
                                      slot["b_col"], slot["b_row"]])
            below = f.add(i0, height)
            self._pack_a(batch, (i0, k0), below, end, self.side.get())
            with f.loop(0, height, engine.height) as i:
                count = f.smin(f.sub(height, i), engine.height)
                strip = f.mul(f.udiv(i, engine.height), slot["strip_step"])
                self._strip(batch, (f.add(i0, i), count, below), columns, (k0, end),
                            f.gep(self.sums, strip, "i32"))

    def _part(self, k: Value) -> Value:
        """Where the panels of the sum from `k` on begin."""
        f = self.f
        units = f.udiv(k, self.engine.group)
        return f.mul(f.mul(units, self.engine.parts), self.slot["block_n"])

    def _half(self, side: Value) -> Value:
        """One of the two places of packed parts of A."""
        return self.f.gep(self.packed_a, self.f.mul(side, _part_of_a(self.engine)), "i32")

    def _pack_a(self, batch: Value, at: tuple, below: Value, end: Value, side: Value,
                share: Callable = lambda items: (0, items)) -> None:
        """Pack the part of A at (row, k); there are none from row `below` and element `end` on.

        `share` tells which of so many items, rows or blocks along the sum, are packed.
        """
        f, slot, engine = self.f, self.slot, self.engine
        count = f.smax(f.smin(f.sub(below, at[0]), engine.height), 0)
        elements = f.smin(f.sub(end, at[1]), engine.depth * engine.group)
        src, dst = self._address("a", batch, *at), self._half(side)
        if self.spec.a == "across":
            block = engine.lanes * engine.group
            first, last = share(f.ceil_div(elements, block))
            k = f.mul(first, block)
            src = f.gep(src, f.mul(k, slot["a_col"]), engine.memory)
            dst = f.gep(dst, f.mul(first, engine.lanes), "i32")
            elements = f.sub(f.smin(f.mul(last, block), elements), k)
        else:
            first, last = share(count)
            src = f.gep(src, f.mul(first, slot["a_row"]), engine.memory)
            dst = f.gep(dst, f.mul(first, engine.pitch), "i32")
            count = f.sub(last, first)
        self._call("pack_a", [src, dst, elements, count, slot["a_row"], slot["a_col"]])

    def _after(self, at: tuple, part: tuple) -> tuple[Value, Value]:
        """Where the part of A that follows the one at (row, k) begins."""
        f, engine = self.f, self.engine
        i, k = at
        on = f.add(k, engine.depth * engine.group)
        more = f.cmp("slt", on, part[1])
        return f.select(more, i, f.add(i, engine.height)), f.select(more, on, part[0])

    def _strip(self, batch: Value, rows: tuple, columns: tuple, part: tuple, sums: Value) -> None:
        """The sums of one strip, (row, count, end of all rows), over a part of the sum, (start,
        end). The first part of A is packed already."""
        f, slot, engine = self.f, self.slot, self.engine
        (i, count, below), (j0, width), (start, end) = rows, columns, part
        rows, depth = (i, count), engine.depth * engine.group
        with f.loop(start, f.smax(end, 1), depth) as k:
            elements = f.smin(f.sub(end, k), depth)
            units = f.ceil_div(elements, engine.group)
            panels = f.gep(self.packed_b, self._part(f.sub(k, start)), "i32")
            last = f.cmp("sge", f.add(k, elements), slot["k"])
            side = self.side.get()
            packed_a, other = self._half(side), f.sub(1, side)
            following = self._after((i, k), part)
            ahead = self._address("a", batch, *self._after(following, part))
            with f.loop(0, width, engine.width) as j:
                past = f.smin(f.add(j, engine.width), width)

                def share(items: Value, j: Value = j, past: Value = past) -> list[Value]:
                    return [f.udiv(f.mul(at, items), width) for at in (j, past)]

                self._fetch(ahead, share)
                self._pack_a(batch, following, below, end, other, share)
                if self.claims:
                    with f.when(last):
                        self._claim(batch, rows, (f.add(j0, j), f.sub(width, j)))
                panel = f.gep(panels, f.mul(j, engine.parts * engine.depth), "i32")
                first = f.and_(j, -_group(engine))
                old, pitch = f.gep(sums, j, "i32"), slot["pitch"]
                new = f.select(last, f.gep(self.finished, f.sub(j, first), "i32"), old)
                new_pitch = f.select(last, f.const(_pitch(engine), "i64"), pitch)
                tile = [packed_a, panel, old, new, units, pitch, new_pitch, f.cmp("sgt", k, 0)]
                self.tiles.choose(f, count, f.sub(width, j), functools.partial(
                    self._call, args=tile))
                full = f.cmp("eq", f.sub(past, first), _group(engine))
                whole = f.or_(f.cmp("eq", past, width), full)
                with f.when(f.and_(last, whole)):
                    self._finish(batch, rows, (f.add(j0, first), f.sub(past, first)))
            self.side.set(other)

    def _fetch(self, part: Value, share: Callable) -> None:
        """Ask for a panel's share of a part of A, the one that will be packed after the next."""
        if self.ahead is None:
            return
        stride = self.slot["a_row" if self.spec.a == "along" else "a_col"]
        self.f.call("void", "ahead", [part, stride, *share(self.ahead.lines)])

    def _claim(self, batch: Value, rows: tuple, columns: tuple) -> None:
        """Of C, what the tile at (rows, columns) will be stored to."""
        f, slot = self.f, self.slot
        (i, count), j = rows, columns[0]
        if self.spec.swapped:
            i, count, j = columns[0], f.smin(columns[1], self.engine.width), rows[0]
        f.call("void", "claim", [self._result(batch, i, j), slot["c_row"], count])

    def _result(self, batch: Value, i: Value, j: Value) -> Value:
        """Element (i, j) of C as it is stored."""
        f, slot = self.f, self.slot
        offset = f.add(f.mul(batch, slot["c_batch"]), f.mul(i, slot["c_row"]))
        return f.gep(slot["c"], f.add(offset, j), "i32")

    def _finish(self, batch: Value, rows: tuple, columns: tuple) -> None:
        """The one place where a rectangle of C, rows x columns, is complete."""
        f, slot, sums = self.f, self.slot, self.finished
        pitch = f.const(_pitch(self.engine), "i64")
        if self.engine.parts > 1:
            self._call("repair", [
                sums, pitch, rows[1], columns[1], slot["k"],
                self._address("a", batch, rows[0], ZERO), slot["a_row"], slot["a_col"],
                self._address("b", batch, ZERO, columns[0]), slot["b_row"], slot["b_col"]])
        if self.spec.swapped:
            self._call("turn", [sums, pitch, self.turned, columns[1]])
            rows, columns = columns, rows
            sums, pitch = self.turned, f.const(self.engine.strip, "i64")
        if self.spec.stored:
            place = self._result(batch, rows[0], columns[0])
            self._call("store", [sums, pitch, place, slot["c_row"], rows[1], columns[1]])
        finish = f.args["finish"]
        with f.when(f.cmp("ne", finish, f.const(0, "ptr"))):
            call_finish(f, finish, len(GEMM_LOW_SLOTS), sums, pitch, batch, rows, columns)


def _part_of_a(engine: Engine) -> int:
    """Units of a packed part of A."""
    return engine.parts * engine.strip * engine.pitch


def _group(engine: Engine) -> int:
    """Columns of C that are finished together: as many as loops over a row take at a time, few
    enough for their sums to stay in the first-level cache; float32 products of parts, which take
    longer, rather spare their epilogue short loops."""
    return (2 if engine.parts == 1 else 16) * engine.width


def _pitch(engine: Engine) -> int:
    """Units between the rows of a finished rectangle."""
    return _group(engine) + 16


# ---------------------------------------------------------------------- planning
_CACHED = 1 << 20, 3 << 18  # bytes of packed B in the second-level cache: of one part, of several
_WIDEST = 512  # columns of a block of C
_TALLEST = 256, 512  # rows of a block of C whose sum is cut
_LONGEST = 1024, 128  # units of the sum that are packed of B at once: of one part, of several
_WORTH = 2e4  # cycles of work below which a second thread costs more than it gives

# Cycles to pack a block of 16 lines x 16 units: copied, interleaved, transposed, both.
# First for elements of one part, then for those of several.
_ROWS_COST = ({"along": 25.0, "across": 110.0, "any": 2000.0}, {"along": 200.0, "across": 450.0})
_PANELS_COST = ({"along": 75.0, "across": 40.0, "any": 2000.0}, {"along": 450.0, "across": 400.0})
_TURN_COST = 75.0
_START = 1500.0  # for a kernel that takes elements apart
_MULTIPLY_ADDS = 25.0  # of float32 vectors, a cycle


def order(length: int, step: int, lines: int, stride: int) -> str:
    """How a matrix lies in memory, for `GemmLowSpec`: `length` elements of the sum `step` apart,
    `lines` of them `stride` apart."""
    if step == 1 or length <= 1:
        return "along"
    return "across" if stride == 1 or lines <= 1 else "any"


def short_spec(memory: str, a: str, b: str, m: int, n: int, k: int, target: Target
               ) -> GemmSpec | None:
    """The kernel for a product of 16-bit floats that is too short on one side for packing to pay,
    where elements are widened anyway; None for others. `a` and `b` as those of `GemmSpec`."""
    if memory not in ("half", "bfloat") or engine_for(memory, target).kind != "widen":
        return None
    spec = gemm_spec(memory, a, b, m, n, k, target)
    return spec if spec.method in ("dots_a", "dots_b") else None


def is_swapped(spec: GemmLowSpec, target: Target, m: int, n: int, k: int) -> bool:
    """Whether `spec.transposed()` is the faster way to A (m, k) B (k, n)."""
    engine = engine_for(spec.memory, target)
    return _cost(engine, spec.transposed(), n, m, k) < _cost(engine, spec, m, n, k)


def split_spec(a: str, b: str, m: int, n: int, k: int, target: Target, more: float = 0.0
               ) -> GemmLowSpec | None:
    """The kernel for a float32 product that is faster in bfloat16 parts; None for others.

    `a` and `b` as those of `GemmLowSpec`; `more`: cycles that only this way costs.
    """
    if not has_split(target) or "any" in (a, b):
        return None
    engine, spec = engine_for("float", target), GemmLowSpec("float", a, b)
    cost = min(_cost(engine, spec, m, n, k), _cost(engine, spec.transposed(), n, m, k))
    return spec if cost + _START + more < m * n * k / _MULTIPLY_ADDS else None


def _cost(engine: Engine, spec: GemmLowSpec, m: int, n: int, k: int) -> float:
    """Cycles that one core takes for a product."""
    units = -(-k // (16 * engine.group))
    turn = _TURN_COST * (m / 16) * (n / 16) if spec.swapped else 0.0
    return (_padded(engine, m, n) + sum(_packing(engine, spec, m, n))) * units + turn


def _packing(engine: Engine, spec: GemmLowSpec, m: int, n: int) -> tuple[float, float]:
    """Cycles to pack 16 units of all of A and of all of B."""
    rows, panels = (cost[engine.parts > 1] for cost in (_ROWS_COST, _PANELS_COST))
    return m / 16 * rows[spec.a], n / 16 * panels[spec.b]


def _padded(engine: Engine, m: int, n: int) -> float:
    """Cycles for one block of units and each tile, with what is multiplied for nothing."""
    height = min((h for h in engine.rows if h >= m), default=engine.height)
    side = min(engine.width, 16 if engine.kind == "amx" else engine.width)
    cells = -(-m // height) * height * -(-n // side) * side / 256
    if engine.kind != "amx":
        return cells * 128.0
    return cells * (16.0 if engine.parts == 1 else 130.0)


def gemm_low_plan(spec: GemmLowSpec, target: Target, batch: int, m: int, n: int, k: int,
                  threads: int) -> GemmLowPlan:
    """Cut a product (of the transposes, if `spec.swapped`) for `threads` threads."""
    engine = engine_for(spec.memory, target)
    tiles_m, tiles_n = _grid(engine, spec, batch, m, n, k, threads)
    units = -(-max(k, 1) // engine.group)
    several = engine.parts > 1
    columns = -(-max(n, 1) // (engine.width * tiles_n)) * engine.width
    fits = _CACHED[several] // (4 * engine.parts * min(columns, _WIDEST))
    longest = max(_LONGEST[several], fits // engine.depth * engine.depth)
    block_k = min(units, longest)
    widest = max(engine.width, min(_WIDEST, _CACHED[several] // (4 * engine.parts * block_k))
                 // engine.width * engine.width)
    blocks = -(-columns // widest)
    block_n = -(-columns // (blocks * engine.width)) * engine.width
    strips = -(-max(m, 1) // engine.height)
    whole = units <= longest
    pitch = block_n + 16  # no power of two
    tallest = strips if whole else min(strips, -(-_TALLEST[several] // engine.height))
    block_m = engine.height * tallest
    step = 0 if whole else engine.height * pitch
    sums = 0
    if units > engine.depth:
        sums = (block_m // engine.height - 1) * step + engine.strip * pitch
    packed = -(-block_k // engine.depth) * engine.depth * block_n * engine.parts
    words = 2 * _part_of_a(engine) + engine.strip * (_group(engine) + _pitch(engine)) \
        + sums + packed + engine.lanes
    stride = -(-4 * words // 64) * 64
    chunks = max(1, min(batch * tiles_m * tiles_n, 4 * threads))
    return GemmLowPlan(tiles_m, tiles_n, block_m, block_n, block_k * engine.group, pitch, step,
                       sums, chunks, stride * threads, stride)


def _grid(engine: Engine, spec: GemmLowSpec, batch: int, m: int, n: int, k: int,
          threads: int) -> tuple[int, int]:
    """(tiles_m, tiles_n): the cut that packs least."""
    units = -(-max(k, 1) // engine.group) / 16
    rows, panels = (cost * units for cost in _packing(engine, spec, m, n))
    work = (_padded(engine, m, n) * units + rows + panels) * max(batch, 1)
    want = max(1, min(threads, int(work // _WORTH)))
    cells = -(-want // max(batch, 1))
    strips, widths = -(-max(m, 1) // engine.height), -(-max(n, 1) // engine.width)
    best = None
    for tiles_n in range(1, cells + 1):
        tiles_m = -(-cells // tiles_n)
        if tiles_n > widths or tiles_m > strips:
            continue
        cost = rows * tiles_n + panels * tiles_m
        if best is None or cost < best[0]:
            best = cost, tiles_m, tiles_n
    if best is not None:
        return best[1:]
    return (1, min(widths, cells)) if widths > strips else (min(strips, cells), 1)
