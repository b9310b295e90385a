"""Sums of margins over the pairs of a row's targets and its other classes, and their derivative.

Only a row's targets are gone through, and only against what is none of them: the other classes are
packed side by side first, padded with -inf, so that their number needs no masks. Every pair costs
three vector instructions; four registers are summed side by side. Rows are independent.
"""

from __future__ import annotations

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range, thread_workspace
from flambeau.compiler.nest import Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["label_margins_step"]

POINTERS = ("x", "target", "count", "picked", "sums", "slopes", "work")
SLOTS = (*POINTERS, "work_stride", "rows", "classes", "x_row", "target_row", "count_step",
         "picked_row")
BLOCK = 4  # registers of other classes that are compared side by side
GRAIN = 1 << 12  # pairs a chunk is worth, if a row has eight targets
MAX_CHUNKS = 64


def label_margins_step(library, target: Target, threads: int) -> tuple[Step, int]:
    """(Step, work) of a LibraryStep "label_margins"."""
    def pointer(buffer):
        return 0 if buffer is None else Pointer(buffer.kind, buffer.number,
                                                buffer.offset * buffer.dtype.itemsize)

    x, labels, count, picked = library.sources
    sums, slopes = library.results
    (rows, classes), size = x.shape, x.dtype.itemsize
    lanes = target.lanes(size)
    room = classes + 2 * BLOCK * lanes  # numbers, counts, places and marks of the other classes
    stride = (room * (2 * size + 8 + 1) + 255) & -64
    values = {"x": pointer(x), "target": pointer(labels), "count": pointer(count),
              "picked": pointer(picked), "sums": pointer(sums), "slopes": pointer(slopes),
              "work": Pointer("work", stride * threads), "work_stride": stride, "rows": rows,
              "classes": classes, "x_row": x.strides[0], "target_row": labels.strides[0],
              "count_step": count.strides[0], "picked_row": picked.strides[0]}
    wanted = sums is not None, slopes is not None
    name = f"label_margins_{x.dtype.llvm}{'_sums' * wanted[0]}{'_slopes' * wanted[1]}"

    def text() -> str:
        module = Module(target.attributes)
        f = module.function(name, KERNEL_ARGS)
        _Kernel(f, x.dtype.llvm, lanes, *wanted).emit()
        return module.text()

    work = rows * classes * 8
    nchunks = 1 if threads == 1 else max(1, min(rows, work // GRAIN, MAX_CHUNKS))
    return Step(name, text, [values[slot] for slot in SLOTS], nchunks), work


class _Kernel:
    def __init__(self, f: Function, scalar: str, lanes: int, sums: bool, slopes: bool):
        self.f, self.scalar, self.lanes, self.sums, self.slopes = f, scalar, lanes, sums, slopes
        self.slot, self.vector = Slots(f, SLOTS, POINTERS), vector(lanes, scalar)
        self.span = BLOCK * lanes

    def emit(self) -> None:
        f, slot = self.f, self.slot
        work = thread_workspace(f, slot["work"], slot["work_stride"])
        room = f.add(slot["classes"], 2 * self.span)
        self.others = work
        self.counts = f.gep(self.others, room, self.scalar)
        self.places = f.gep(self.counts, room, self.scalar)
        self.marks = f.gep(self.places, room, "i64")
        with f.loop(*chunk_range(f, slot["rows"])) as row:
            self._row(row)

    def _row(self, row: Value) -> None:
        f, slot = self.f, self.slot
        x = f.gep(slot["x"], f.mul(row, slot["x_row"]), self.scalar)
        target = f.gep(slot["target"], f.mul(row, slot["target_row"]), "i64")
        picked = f.gep(slot["picked"], f.mul(row, slot["picked_row"]), self.scalar)
        count = f.load("i64", slot["count"], f.mul(row, slot["count_step"]))
        count = f.smin(count, slot["classes"])
        used = self._pack(x, target, count)
        out = f.gep(slot["slopes"], f.mul(row, slot["classes"]), self.scalar)
        if self.slopes:
            self._give_others(picked, count, used, out)
        total = self._over_targets(target, picked, count, used, out)
        if self.sums:
            f.store(total, slot["sums"], row)

    def _label(self, target: Value, k: Value) -> Value:
        """Target k: memory that a failed check does not keep from being read."""
        f = self.f
        return f.intrinsic("llvm.umin", "i64", f.load("i64", target, k),
                           f.sub(self.slot["classes"], 1))

    def _pack(self, x: Value, target: Value, count: Value) -> Value:
        """Lay the other classes out side by side: how many registers' worth, in numbers."""
        f, slot, lanes = self.f, self.slot, self.lanes
        with f.loop(0, slot["classes"], lanes) as i:
            f.store(f.const(1, vector(lanes, "i8")), self.marks, i)
        with f.loop(0, count) as k:
            f.store(f.const(0, "i8"), self.marks, self._label(target, k))
        used = f.var("i64")
        used.set(0)
        with f.loop(0, slot["classes"]) as i:
            f.store(f.load(self.scalar, x, i), self.others, used.get())
            f.store(i, self.places, used.get())
            used.set(f.add(used.get(), f.cast("zext", f.load("i8", self.marks, i), "i64")))
        self.found = used.get()
        with f.loop(0, self.span, lanes) as i:
            f.store(f.const(float("-inf"), self.vector), self.others, f.add(self.found, i))
        return f.mul(f.ceil_div(self.found, self.span), self.span)

    def _gap(self, base: Value, place: Value) -> tuple[Value, Value]:
        """(1 - x[t] + x[i], whether it counts) for a register of other classes."""
        gap = self.f.fadd(base, self.f.load(self.vector, self.others, place))
        return gap, self.f.cmp("ogt", gap, 0.0)

    def _base(self, picked: Value, k: Value) -> Value:
        return self.f.splat(self.f.fsub(1.0, self.f.load(self.scalar, picked, k)), self.lanes)

    def _folded(self, parts: list[Value]) -> Value:
        f, lanes = self.f, self.lanes
        while len(parts) > 1:
            parts = [f.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        result, half = parts[0], lanes // 2
        while half:
            moved = f.shuffle(result, None, [(lane + half) % lanes for lane in range(lanes)])
            result, half = f.fadd(result, moved), half // 2
        return f.extract(result, 0)

    def _over_targets(self, target: Value, picked: Value, count: Value, used: Value,
                      out: Value) -> Value | None:
        """Add the gaps up; take from every target how many classes count against it."""
        f, one = self.f, self.f.const(1.0, self.vector)
        totals = [f.var(self.vector) for _ in range(BLOCK)]
        hits = [f.var(self.vector) for _ in range(BLOCK)]
        for total in totals:
            total.set(0.0)
        with f.loop(0, count) as k:
            base = self._base(picked, k)
            for hit in hits:
                hit.set(0.0)
            with f.loop(0, used, self.span) as i:
                for part in range(BLOCK):
                    gap, counts = self._gap(base, f.add(i, part * self.lanes))
                    if self.sums:
                        totals[part].set(f.fadd(totals[part].get(), f.select(counts, gap, 0.0)))
                    if self.slopes:
                        hits[part].set(f.fadd(hits[part].get(), f.select(counts, one, 0.0)))
            if self.slopes:
                label = self._label(target, k)
                less = f.fsub(f.load(self.scalar, out, label),
                              self._folded([hit.get() for hit in hits]))
                f.store(less, out, label)
        return self._folded([total.get() for total in totals]) if self.sums else None

    def _give_others(self, picked: Value, count: Value, used: Value, out: Value) -> None:
        """How many targets each other class counts against; 0 for the targets."""
        f, slot, one = self.f, self.slot, self.f.const(1.0, self.vector)
        hits = [f.var(self.vector) for _ in range(BLOCK)]
        with f.loop(0, used, self.span) as i:
            for hit in hits:
                hit.set(0.0)
            with f.loop(0, count) as k:
                base = self._base(picked, k)
                for part, hit in enumerate(hits):
                    _, counts = self._gap(base, f.add(i, part * self.lanes))
                    hit.set(f.fadd(hit.get(), f.select(counts, one, 0.0)))
            for part, hit in enumerate(hits):
                f.store(hit.get(), self.counts, f.add(i, part * self.lanes))
        with f.loop(0, slot["classes"]) as i:
            f.store(f.const(0.0, self.scalar), out, i)
        with f.loop(0, self.found) as i:
            f.store(f.load(self.scalar, self.counts, i), out, f.load("i64", self.places, i))
