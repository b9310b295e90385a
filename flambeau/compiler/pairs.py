"""Distances of all pairs of rows, x (n, m) -> (n (n - 1) / 2,): the Euclidean one, the sum and the
maximum of differences.

A task is a block of second rows, which it lays out column by column: lanes are second rows then. It
walks the first rows before them, some at a time, and holds their sums in registers. A sum is a
chain over runs of 128 columns and a chain of these, whatever the block.
"""

from __future__ import annotations

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range, thread_workspace
from flambeau.compiler.nest import Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["pairs_step"]

POINTERS = ("x", "y", "work")
SLOTS = (*POINTERS, "work_stride", "tasks", "rows", "columns", "x_row", "x_column")
FIRST, REGISTERS = 4, 2  # first rows, and registers of second rows, whose sums are held
RUN = 128  # columns


def pairs_step(library, target: Target, threads: int) -> tuple[Step, int]:
    """(Step, work) of a LibraryStep "pair_distances"."""
    (x,), y, degree = library.sources, library.target, library.attrs[0]
    (rows, columns), size = x.shape, x.dtype.itemsize
    lanes = target.lanes(size)
    block = lanes * REGISTERS
    stride = (columns * block * size + 127) & -64
    values = {name: Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)
              for name, buffer in (("x", x), ("y", y))}
    values |= {"work": Pointer("work", stride * threads), "work_stride": stride,
               "tasks": -(-rows // block), "rows": rows, "columns": columns,
               "x_row": x.strides[0], "x_column": x.strides[1]}
    word = {1: "sum", 2: "euclid"}.get(degree, "most")
    name = f"pairs_{word}_{x.dtype.llvm}"

    def text() -> str:
        module = Module(target.attributes)
        f = module.function(name, KERNEL_ARGS)
        _Kernel(f, x.dtype.llvm, lanes, word).emit()
        return module.text()

    work = rows * rows * columns // 8
    nchunks = 1 if threads == 1 or work < 1 << 12 else min(values["tasks"], 256)
    return Step(name, text, [values[slot] for slot in SLOTS], nchunks), work


class _Kernel:
    def __init__(self, f: Function, scalar: str, lanes: int, word: str):
        self.f, self.scalar, self.lanes, self.word = f, scalar, lanes, word
        self.slot, self.vector = Slots(f, SLOTS, POINTERS), vector(lanes, scalar)
        self.block = lanes * REGISTERS

    def emit(self) -> None:
        f, slot = self.f, self.slot
        self.packed = thread_workspace(f, slot["work"], slot["work_stride"])
        with f.loop(*chunk_range(f, slot["tasks"])) as task:
            start = f.mul(task, self.block)
            stop = f.smin(f.add(start, self.block), slot["rows"])
            self._pack(start, stop)
            with f.loop(0, f.sub(stop, 1), FIRST) as i:
                self._tile(i, start)

    def _pack(self, start: Value, stop: Value) -> None:
        """The second rows from `start` on, column by column; the last one again beyond `stop`."""
        f, slot = self.f, self.slot
        with f.loop(0, slot["columns"], RUN) as low, f.loop(0, self.block) as j:
            row = f.mul(f.smin(f.add(start, j), f.sub(stop, 1)), slot["x_row"])
            with f.loop(low, f.smin(f.add(low, RUN), slot["columns"])) as k:
                x = f.load(self.scalar, slot["x"], f.add(row, f.mul(k, slot["x_column"])))
                f.store(x, self.packed, f.add(f.mul(k, self.block), j))

    def _added(self, total: Value, gap: Value) -> Value:
        """What a difference adds to a sum."""
        f = self.f
        if self.word == "euclid":
            return f.fma(gap, gap, total)
        size = f.intrinsic("llvm.fabs", self.vector, gap)
        return f.fadd(total, size) if self.word == "sum" else self._larger(total, size)

    def _larger(self, a: Value, b: Value) -> Value:
        """The maximum; NaN if either is."""
        f = self.f
        return f.select(f.or_(f.cmp("ogt", b, a), f.cmp("uno", b, b)), b, a)

    def _tile(self, i: Value, start: Value) -> None:
        """The distances of rows i, i + 1, ... from a block."""
        f, slot = self.f, self.slot
        places = [f.smin(f.add(i, r), f.sub(slot["rows"], 1)) for r in range(FIRST)]
        firsts = [f.gep(slot["x"], f.mul(place, slot["x_row"]), self.scalar) for place in places]
        totals, parts = ([[f.var(self.vector, 0.0) for _ in range(REGISTERS)] for _ in firsts]
                         for _ in range(2))
        with f.loop(0, slot["columns"], RUN) as low:
            for part in (part for row in parts for part in row):
                part.set(0.0)
            with f.loop(low, f.smin(f.add(low, RUN), slot["columns"])) as k:
                at = f.mul(k, self.block)
                others = [f.load(self.vector, self.packed, f.add(at, r * self.lanes))
                          for r in range(REGISTERS)]
                for first, row in zip(firsts, parts, strict=True):
                    x = f.splat(f.load(self.scalar, first, f.mul(k, slot["x_column"])), self.lanes)
                    for other, part in zip(others, row, strict=True):
                        part.set(self._added(part.get(), f.fsub(x, other)))
            for sums, row in zip(totals, parts, strict=True):
                for total, part in zip(sums, row, strict=True):
                    both = self._larger if self.word == "most" else f.fadd
                    total.set(both(total.get(), part.get()))
        for r, sums in enumerate(totals):
            self._store(f.add(i, r), start, [total.get() for total in sums])

    def _store(self, i: Value, start: Value, sums: list[Value]) -> None:
        """Row i of the result, from second row `start` on: what is a pair i < j < rows."""
        f, rows, lanes = self.f, self.slot["rows"], self.lanes
        # pairs before those of row i, less what its own begin with
        before = f.sub(f.sdiv(f.mul(i, f.sub(f.sub(f.mul(rows, 2), 1), i)), 2), f.add(i, 1))
        with f.when(f.cmp("slt", i, f.sub(rows, 1))):
            for r, total in enumerate(sums):
                j = f.add(start, r * lanes)
                if self.word == "euclid":
                    total = f.intrinsic("llvm.sqrt", self.vector, total)
                place = f.add(f.splat(f.typed(j, "i64"), lanes), f.iota(lanes))
                pair = f.and_(f.cmp("sgt", place, f.splat(i, lanes)),
                              f.cmp("slt", place, f.splat(rows, lanes)))
                f.masked_store(total, self.slot["y"], pair, f.add(before, j))
