"""Schedules -> programs: which kernels run with which arguments, and one arena for temporaries.

The passes, in order: take complex numbers apart, schedule, fuse epilogues into products, group
(phases over the same rows become one nest), split (long loops are cut into blocks that can run in
parallel and round alike on any number of threads), canonicalise, plan memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from flambeau.compiler import libraries
from flambeau.compiler.codegen import TILE_ROWS, emit_nest, nest_name
from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.fusing import fuse
from flambeau.compiler.nest import (
    Loop,
    Phase,
    Pointer,
    canonical,
    split,
    tile_loop,
    vector_lanes,
    walk,
)
from flambeau.compiler.schedule import Schedule, schedule
from flambeau.compiler.split_complex import has_complex, split_complex
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.core.shapes import contiguous_strides
from flambeau.ir.graph import Graph, Value

__all__ = ["Step", "Plan", "plan"]

BLOCK_MAP = 8192  # elements of a block of a long elementwise loop
BLOCK_SCAN = 1024  # rows that are scanned side by side by one thread
BLOCK_LONG_SCAN = 16384  # elements of a block of a long row that is scanned
STRIP = 64  # columns of a scatter that one thread takes at least
BLOCK_REDUCE = 4096  # elements of a block of a long reduction
FEW = 16  # fewer independent iterations than this are too few to share out
GRAIN = 32768  # work (elements times operations) below which a chunk is not worth another thread
MAX_CHUNKS = 64


@dataclasses.dataclass
class Plan:
    """A compiled graph without addresses.

    Attributes:
        steps: kernel calls in order. Their pointers name "in"/"out" arguments by number, "status",
            or "arena" with a byte offset.
        arena_bytes: scratch memory that the caller provides for the duration of a run.
        checked: whether a kernel may report an error.
        work: rough amount of work, to decide whether to let other Python threads run meanwhile.
    """

    steps: list[Step]
    arena_bytes: int
    checked: bool
    work: int


def plan(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer], target: Target,
         threads: int, aliases: Mapping[int, int] | None = None,
         effects: Sequence[Value] = ()) -> Plan:
    """Compile `graph` for these argument layouts; `aliases` and `effects`: see `schedule`."""
    if has_complex(graph):
        graph, inputs, outputs, aliases, effects = split_complex(graph, inputs, outputs,
                                                                 aliases or {}, effects)
    scheduled = schedule(graph, inputs, outputs, aliases, effects)
    return _Planner(scheduled, target, threads, aliases or {}).run()


def long_elements(phase: Phase) -> int:
    count = 1
    for loop in [*phase.outer, *phase.inner, *([phase.lane] if phase.lane else [])]:
        count *= loop.extent
    return count


class _Planner:
    def __init__(self, scheduled: Schedule, target: Target, threads: int,
                 aliases: Mapping[int, int]):
        self.scheduled = scheduled
        self.overwrites = {("out", output): ("in", source) for output, source in aliases.items()}
        self.target = target
        self.threads = threads
        self.temps = list(scheduled.temps)
        self.splits: dict[int, tuple[int, int]] = {}
        self.next_var = 1 << 30
        self.total_work = 0

    def run(self) -> Plan:
        groups: list = []
        for step in fuse(self.scheduled.steps, self._memory, self._var):
            if not isinstance(step, Phase):
                groups.append(step)
                continue
            self._split_map(step)
            if groups and isinstance(groups[-1], list) and self._joins(groups[-1], step):
                groups[-1].append(step)
            else:
                groups.append([step])
        cut: list = []
        for group in groups:
            alone = isinstance(group, list) and len(group) == 1
            cut += self._split_reduce(group[0]) if alone else [group]
        steps: list[tuple[Step, int]] = []
        for step in cut:
            steps += [self._nest(step)] if isinstance(step, list) else libraries.steps(
                step, self.target, self.threads)
        self.total_work += sum(work for _, work in steps)
        arena = _Arena(self.temps, [step for step, _ in steps])
        checked = any(isinstance(slot, Pointer) and slot.kind == "status"
                      for step, _ in steps for slot in step.slots)
        return Plan([step for step, _ in steps], arena.size, checked, self.total_work)

    # ------------------------------------------------------------------ nests
    def _nest(self, phases: list[Phase]) -> tuple[Step, int]:
        lanes = max(1, min(vector_lanes(phase, self.target) for phase in phases))
        key, slots = canonical(phases, self.splits, lanes)
        work = sum(long_elements(phase) * len(walk(phase.roots())) for phase in phases)
        iterations = _iterations(phases[0])
        sequential = any(phase.mode != "set" and not phase.outer for phase in phases)
        nchunks = 1 if sequential or self.threads == 1 else max(
            1, min(iterations, work // GRAIN, MAX_CHUNKS))
        return Step(nest_name(key), lambda: emit_nest(key, self.target), slots, nchunks), work

    def _var(self) -> int:
        self.next_var += 1
        return self.next_var

    # ------------------------------------------------------------------ grouping
    def _joins(self, group: list[Phase], phase: Phase) -> bool:
        """May `phase` run row by row together with `group`? Then rows stay in the nearest cache."""
        first = group[0]
        if not phase.outer or len(phase.outer) != len(first.outer) or any(
                a.extent != b.extent for a, b in zip(phase.outer, first.outer, strict=True)):
            return False
        if phase.mode != "set" or phase.where.dynamic or any(
                p.mode != "set" or p.where.dynamic for p in group):
            return False
        written = {self._memory(p.target): p for p in group}
        target = self._memory(phase.target)
        if target in written or any(
                self._memory(expr.data[0]) == target and not self._same_row(phase, p, expr.data[1])
                for p in group for expr in _loads(p)):
            return False
        return all(self._same_row(written[self._memory(buffer)], phase, index)
                   for buffer, index in (expr.data[:2] for expr in _loads(phase))
                   if self._memory(buffer) in written)

    def _memory(self, buffer: Buffer) -> tuple[str, int]:
        """What names the memory of a buffer: an input that is overwritten goes by its own name."""
        name = buffer.kind, buffer.number
        return self.overwrites.get(name, name)

    def _factor(self, index: Index, loop: Loop) -> int:
        """How far an index moves with one step of a loop, which may count blocks of another."""
        owner, times = self.splits.get(loop.var, (None, 0))
        return index.terms.get(loop.var, 0) + index.terms.get(owner, 0) * times

    def _same_row(self, writer: Phase, reader: Phase, index: Index) -> bool:
        """Does each outer iteration of `reader` read only what that one of `writer` writes?"""
        if index.dynamic:
            return False
        steps = []
        for a, b in zip(writer.outer, reader.outer, strict=True):
            step = self._factor(writer.where, a)
            if step <= 0 or self._factor(index, b) != step:
                return False
            steps.append(step)
        low = high = index.const - writer.where.const
        for loop in [*reader.inner, *([reader.lane] if reader.lane else [])]:
            reach = index.terms.get(loop.var, 0) * (loop.extent - 1)
            low, high = low + min(reach, 0), high + max(reach, 0)
        return low >= 0 and high < min(steps)

    # ------------------------------------------------------------------ cutting long loops
    def _split_map(self, phase: Phase) -> None:
        """Cut a long loop of independent elements into blocks, for threads and for the cache."""
        lane = phase.lane
        scans = phase.reduce is not None and phase.reduce.startswith("scan_")
        block = BLOCK_SCAN if scans else BLOCK_MAP
        if phase.reduce is not None and (not scans or phase.lane_reduced):
            return
        tile = tile_loop(phase, vector_lanes(phase, self.target))
        if tile is not None:
            var = self._var()
            self.splits[var] = (tile.var, TILE_ROWS)
            blocks, phase.tile = split(tile, TILE_ROWS, var)
            phase.outer = [blocks if loop is tile else loop for loop in phase.outer]
            phase.inner = [phase.tile]
        if phase.inner and lane is not None and (phase.mode != "set" or phase.where.dynamic):
            # what is scattered in order: columns are independent
            block = STRIP * -(-lane.extent // (STRIP * FEW))
        if lane is None or lane.extent <= 2 * block or _iterations(phase) >= FEW:
            return
        var = self._var()
        self.splits[var] = (lane.var, block)
        blocks, phase.lane = split(lane, block, var)
        phase.outer.append(blocks)

    def _split_reduce(self, phase: Phase) -> list[list[Phase]]:
        """Reduce blocks into partial results, then those: one tree for any number of threads."""
        if phase.reduce in ("scan_sum", "scan_prod") and phase.lane_reduced:
            return self._split_scan(phase)
        if phase.reduce is None or phase.reduce.startswith(("arg", "scan_")) or (
                phase.lane is None or _iterations(phase) >= FEW):
            return [[phase]]
        reduced = phase.inner + ([phase.lane] if phase.lane_reduced else [])
        count = 1
        for loop in reduced:
            count *= loop.extent
        if not reduced or count <= 2 * BLOCK_REDUCE:
            return [[phase]]
        longest = max(reduced, key=lambda loop: loop.extent)
        block = max(1, BLOCK_REDUCE * longest.extent // count)
        if longest is phase.lane:
            block = max(block, 256)
        if longest.extent <= block:
            return [[phase]]
        var = self._var()
        self.splits[var] = (longest.var, block)
        blocks, rest = split(longest, block, var)
        kept = phase.outer + ([] if phase.lane_reduced else [phase.lane])
        sizes = [loop.extent for loop in kept]
        strides = dict(zip((loop.var for loop in kept), contiguous_strides(sizes), strict=True))
        width = 1
        for size in sizes:
            width *= size
        partial = Buffer("temp", len(self.temps), phase.value.dtype, (blocks.extent, width),
                         (width, 1))
        self.temps.append(partial)
        first = dataclasses.replace(
            phase, outer=[blocks, *phase.outer], target=partial,
            where=Index(strides | {var: width}),
            inner=[rest if loop is longest else loop for loop in phase.inner],
            lane=rest if longest is phase.lane else phase.lane)
        again = Loop(self._var(), blocks.extent)
        load = Expr("load", partial.dtype, (), (partial, Index(strides | {again.var: width}), ()))
        second = Phase(list(phase.outer), [again], phase.lane, load, phase.target, phase.where,
                       reduce=phase.reduce)
        if phase.lane_reduced:
            second.inner, second.lane, second.lane_reduced = [], again, True
        return [[first], [second]]

    def _split_scan(self, phase: Phase) -> list[list[Phase]]:
        """Reduce the blocks of a long row, scan what comes out, then each block from there."""
        if phase.lane.extent <= 2 * BLOCK_LONG_SCAN or _iterations(phase) >= FEW:
            return [[phase]]
        var, again = self._var(), self._var()
        self.splits[var] = (phase.lane.var, BLOCK_LONG_SCAN)
        blocks, rest = split(phase.lane, BLOCK_LONG_SCAN, var)
        rule, dtype = phase.reduce.removeprefix("scan_"), phase.value.dtype
        wide = dtypes.float64 if dtype is dtypes.float32 else dtype
        sizes = [loop.extent for loop in phase.outer]
        rows = dict(zip((loop.var for loop in phase.outer),
                        contiguous_strides([*sizes, blocks.extent + 1]), strict=False))
        partial = Buffer("temp", len(self.temps), wide, (*sizes, blocks.extent + 1),
                         contiguous_strides([*sizes, blocks.extent + 1]))
        self.temps.append(partial)

        def load(index: Index) -> Expr:
            return Expr("load", wide, (), (partial, index, ()))

        identity = Expr("const", wide, (), 0 if rule == "sum" else 1)
        value = phase.value if wide is dtype else Expr("cast", wide, (phase.value,))
        behind = Index(rows | {again: 1}, 1)
        return [
            [Phase(list(phase.outer), [], None, identity, partial, Index(rows))],
            [Phase([*phase.outer, blocks], [], rest, value, partial, Index(rows | {var: 1}, 1),
                   reduce=rule, lane_reduced=True)],
            [Phase(list(phase.outer), [Loop(again, blocks.extent)], None, load(behind), partial,
                   behind, reduce=phase.reduce)],
            [dataclasses.replace(phase, outer=[*phase.outer, blocks], lane=rest,
                                 carry=load(Index(rows | {var: 1})))]]


def _iterations(phase: Phase) -> int:
    count = 1
    for loop in phase.outer:
        count *= loop.extent
    return count


def _loads(phase: Phase) -> list[Expr]:
    return [expr for expr in walk(phase.roots()) if expr.kind == "load"]


# ---------------------------------------------------------------------- memory
class _Arena:
    """Places temporaries and workspaces in one block; what lives at different times may share."""

    def __init__(self, temps: Sequence[Buffer], steps: Sequence[Step]):
        self.size = 0
        lives: dict[tuple[str, int], list[int]] = {}
        for position, step in enumerate(steps):
            for slot in step.slots:
                if isinstance(slot, Pointer) and slot.kind in ("temp", "work"):
                    name = self._name(slot, position - step.after)
                    lives.setdefault(name, [position, position])[1] = position
        placed: list[tuple[int, int, int, int]] = []  # start, end, first, last
        offsets: dict[tuple[str, int], int] = {}
        sizes = {name: self._bytes(name, temps, steps) for name in lives}
        for name in sorted(lives, key=lambda name: -sizes[name]):
            first, last = lives[name]
            start = 0
            for low, high, begin, end in sorted(placed):
                if begin <= last and first <= end and start < high and low < start + sizes[name]:
                    start = high
            placed.append((start, start + sizes[name], first, last))
            offsets[name] = start
            self.size = max(self.size, start + sizes[name])
        for position, step in enumerate(steps):
            for at, slot in enumerate(step.slots):
                if isinstance(slot, Pointer) and slot.kind in ("temp", "work"):
                    name = self._name(slot, position - step.after)
                    step.slots[at] = Pointer("arena", 0, offsets[name] + slot.offset)

    @staticmethod
    def _name(slot: Pointer, position: int) -> tuple[str, int]:
        return slot.kind, slot.number if slot.kind == "temp" else position

    @staticmethod
    def _bytes(name: tuple[str, int], temps: Sequence[Buffer], steps: Sequence[Step]) -> int:
        kind, number = name
        if kind == "work":
            nbytes = next(slot.number for slot in steps[number].slots
                          if isinstance(slot, Pointer) and slot.kind == "work")
        else:
            nbytes = temps[number].dtype.itemsize
            for size in temps[number].shape:
                nbytes *= size
        return max(64, (nbytes + 63) & -64)  # what is empty has an address too


def buffer_for(kind: str, number: int, dtype: DType, shape: Sequence[int],
               strides: Sequence[int]) -> Buffer:
    """An argument of a program as a buffer."""
    return Buffer(kind, number, dtype, tuple(shape), tuple(strides))
