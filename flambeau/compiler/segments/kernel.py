"""out[s, :] = sum of w[k] * x[index[k], :] over the entries k of segment s.

A row of the result is held in registers, some at a time, while the entries of its segment go by:
every element is one chain of additions in the order of the entries, whatever the width and however
the segments are shared out. A table of one column has four such chains, joined in the end.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range
from flambeau.compiler.lanes import STATUS_INDEX, Lanes
from flambeau.compiler.target import Target

__all__ = ["SEGMENT_SLOTS", "SegmentSpec", "segment_kernel", "segment_chunks"]

SEGMENT_SLOTS = ("offsets", "index", "x", "w", "out", "segments", "entries", "size", "width",
                 "x_row", "w_step", "status")
POINTERS = ("offsets", "index", "x", "w", "out", "status")
BLOCK = 4  # registers of a row that are summed side by side
CHAINS = 4  # of a table of one column
GRAIN = 1 << 14  # multiplications below which a chunk is not worth another thread
MAX_CHUNKS = 64


@dataclasses.dataclass(frozen=True)
class SegmentSpec:
    """What decides about a kernel: "float" or "double", weights or none, one column or more, and
    whether indices out of range are reported."""

    type: str
    weighted: bool
    column: bool
    checked: bool

    @property
    def name(self) -> str:
        return (f"segment_sum_{self.type}{'_weighted' if self.weighted else ''}"
                f"{'_column' if self.column else ''}{'_checked' if self.checked else ''}")


def segment_chunks(segments: int, work: int, threads: int) -> int:
    """How many parts the segments are shared out in."""
    return 1 if threads == 1 else max(1, min(segments, work // GRAIN, MAX_CHUNKS))


def segment_kernel(spec: SegmentSpec, target: Target) -> tuple[str, str]:
    """(name, LLVM IR)."""
    module = Module(target.attributes)
    f = module.function(spec.name, KERNEL_ARGS)
    lanes = target.lanes(4 if spec.type == "float" else 8)
    _Kernel(f, spec, lanes).emit()
    return spec.name, module.text()


class _Kernel:
    def __init__(self, f: Function, spec: SegmentSpec, lanes: int):
        self.f, self.spec, self.lanes = f, spec, lanes
        slots = Slots(f, SEGMENT_SLOTS, POINTERS)
        for name in SEGMENT_SLOTS:
            setattr(self, name, slots[name])

    def emit(self) -> None:
        f = self.f
        with f.loop(*chunk_range(f, self.segments)) as segment:
            start = self._clamped(f.load("i64", self.offsets, segment))
            stop = self._clamped(f.load("i64", self.offsets, f.add(segment, 1)))
            if self.spec.column:
                self._column(segment, start, stop)
            else:
                self._row(f.mul(segment, self.width), start, stop)

    def _clamped(self, offset: Value) -> Value:
        """An offset is memory that others may have written to: it must not lead outside."""
        return self.f.smax(0, self.f.smin(offset, self.entries))

    def _entry(self, k: Value) -> tuple[Value, Value | None]:
        """(where the row of entry k begins, its weight)."""
        f = self.f
        index = f.load("i64", self.index, k)
        if self.spec.checked:
            lanes = Lanes(f)
            lanes.status = self.status
            lanes.fail_unless(f.cmp("ult", index, self.size), STATUS_INDEX, index)
        index = f.intrinsic("llvm.umin", "i64", index, f.sub(self.size, 1))
        weight = None
        if self.spec.weighted:
            weight = f.load(self.spec.type, self.w, f.mul(k, self.w_step))
        return f.mul(index, self.x_row), weight

    # ------------------------------------------------------------------ rows
    def _row(self, out: Value, start: Value, stop: Value) -> None:
        f, lanes = self.f, self.lanes
        block = BLOCK * lanes
        whole = f.mul(f.udiv(self.width, block), block)
        with f.loop(0, whole, block) as column:
            self._part(f.add(out, column), column, start, stop, BLOCK, None)
        with f.loop(whole, self.width, lanes) as column:
            mask = f.lane_mask(lanes, f.sub(self.width, column))
            self._part(f.add(out, column), column, start, stop, 1, mask)

    def _part(self, out: Value, column: Value, start: Value, stop: Value, count: int,
              mask: Value | None) -> None:
        """Some registers of a row of the result."""
        f, type_ = self.f, vector(self.lanes, self.spec.type)
        sums = [f.var(type_, 0.0) for _ in range(count)]
        with f.loop(start, stop) as k:
            row, weight = self._entry(k)
            wide = None if weight is None else f.splat(weight, self.lanes)
            place = f.add(row, column)
            for part, total in enumerate(sums):
                at = f.add(place, part * self.lanes)
                x = f.load(type_, self.x, at) if mask is None else f.masked_load(
                    type_, self.x, mask, 0, at)
                total.set(f.fadd(total.get(), x) if wide is None else
                          f.fma(x, wide, total.get()))
        for part, total in enumerate(sums):
            at = f.add(out, part * self.lanes)
            if mask is None:
                f.store(total.get(), self.out, at)
            else:
                f.masked_store(total.get(), self.out, mask, at)

    # ------------------------------------------------------------------ one column
    def _column(self, segment: Value, start: Value, stop: Value) -> None:
        f = self.f
        sums = [f.var(self.spec.type, 0.0) for _ in range(CHAINS)]
        groups = f.udiv(f.smax(f.sub(stop, start), 0), CHAINS)
        whole = f.add(start, f.mul(groups, CHAINS))
        with f.loop(start, whole, CHAINS) as k:
            for chain, total in enumerate(sums):
                self._add(total, f.add(k, chain))
        with f.loop(whole, stop) as k:
            self._add(sums[0], k)
        a, b, c, d = (total.get() for total in sums)
        f.store(f.fadd(f.fadd(a, b), f.fadd(c, d)), self.out, segment)

    def _add(self, total, k: Value) -> None:
        f = self.f
        row, weight = self._entry(k)
        x = f.load(self.spec.type, self.x, row)
        total.set(f.fadd(total.get(), x) if weight is None else f.fma(x, weight, total.get()))
