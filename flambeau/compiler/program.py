"""Schedules -> programs: which kernels run with which arguments, and one arena for temporaries.

The passes, in order: take complex numbers apart, replace dtypes without arithmetic, simplify, cut
the program into pieces if parts of it are alike; then for each piece schedule, fuse epilogues into
products, cut long sums (into blocks that can run in parallel and round alike on any number of
threads), gather phases in nests and sweeps, shrink temporaries, find results that take over memory,
find steps that may run at the same time, cut long loops, canonicalise; place everything in one
block.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flambeau.compiler import libraries
from flambeau.compiler.codegen import emit_nest, nest_name
from flambeau.compiler.cutting import STRIP, Temporaries, cut
from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.forms import Forms
from flambeau.compiler.fusing import fuse
from flambeau.compiler.horizontal import Batch, batches, independent
from flambeau.compiler.nest import (
    Loop,
    Phase,
    Pointer,
    canonical,
    normalise,
    split,
    tidy,
    vector_lanes,
    walk,
)
from flambeau.compiler.pieces.division import division
from flambeau.compiler.pieces.joining import PiecePlan, joined
from flambeau.compiler.reuse import shared_memory
from flambeau.compiler.schedule import Schedule, choices_of, schedule
from flambeau.compiler.sharing import share
from flambeau.compiler.simplify import simplify
from flambeau.compiler.split_complex import has_complex, split_complex
from flambeau.compiler.step import Step
from flambeau.compiler.stored_bits import as_stored, has_stored
from flambeau.compiler.sweeps import FEW, NARROW, Nest, Nests, extent_of
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.core.shapes import contiguous_strides
from flambeau.core.symbolic import choice, environment, evaluated, fixed, pinned
from flambeau.ir.graph import Graph, Value

__all__ = ["Plan", "Planner", "Step", "assembled", "buffer_for", "buffers_for", "plan"]

BLOCK_LONG_SCAN = 16384  # elements of a block of a long row that is scanned
BLOCK_REDUCE = 4096  # elements of a block of a long reduction
FEW_ROWS, MANY_ROWS, MOST_ROWS = 32, 512, 64  # rows that are added one by one: see _cut_of_columns
GRAIN = 32768  # work (elements times operations) below which a chunk is not worth another thread
LARGE_GRAIN = 16 * GRAIN  # work that evens out what waking a thread costs
CHUNKS_EACH, MAX_CHUNKS = 4, 64


@dataclasses.dataclass
class Plan:
    """A compiled graph without addresses.

    Attributes:
        steps: kernel calls in order. Their pointers name "in"/"out" arguments by number, "status",
            or "arena" with a byte offset.
        arena_bytes: scratch memory that the caller provides for the duration of a run.
        checked: whether a kernel may report an error.
        work: rough amount of work, to decide whether to let other Python threads run meanwhile.
        values: what each argument or temporary holds, by (kind, number): for those who explain.
        places: the arena's parts, (kind, number, offset, bytes, first step, last step).
        batches: which steps run as one job, in order.
        key: what it may be stored under (`runtime/plan_cache.py`).
        again: plans it once more, if it comes from there: see `whole`.
    """

    steps: list[Step]
    arena_bytes: int
    checked: bool
    work: int
    values: dict[tuple[str, int], Value] = dataclasses.field(default_factory=dict)
    places: list[tuple[str, int, int, int, int, int]] = dataclasses.field(default_factory=list)
    batches: list[Batch] = dataclasses.field(default_factory=list)
    key: Any = None
    again: Callable[[], Plan] | None = None

    def whole(self) -> Plan:
        """With what only those who explain need: values, places, what steps stand for."""
        return self if self.again is None else self.again()


def plan(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer], target: Target,
         threads: int, aliases: Mapping[int, int] | None = None,
         effects: Sequence[Value] = (), together: bool = True) -> Plan:
    """Compile `graph` for these argument layouts; `aliases` and `effects`: see `schedule`.

    `together`: steps that do not depend on one another may run at the same time. Arguments that are
    written must then overlap no others, but for what `aliases` says."""
    if has_complex(graph):
        graph, inputs, outputs, aliases, effects = split_complex(graph, inputs, outputs,
                                                                 aliases or {}, effects)
    if has_stored(graph):
        graph, inputs, outputs, effects = as_stored(graph, inputs, outputs, effects)
    forms = Forms()
    graph, effects = simplify(graph, effects, forms)
    aliases = aliases or {}
    choices = choices_of(graph, inputs, effects, target)

    def piece(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer],
              aliases: Mapping[int, int], effects: Sequence[Value]) -> PiecePlan:
        scheduled = schedule(graph, inputs, outputs, aliases, effects, target, choices)
        return Planner(scheduled, target, threads, aliases).run(together)

    pieces = division(graph, choices.order, choices.shared, aliases, effects, forms)
    if pieces is None:
        made = piece(graph, inputs, outputs, aliases, effects)
    else:
        made = joined(graph, inputs, outputs, aliases, effects, choices, pieces, piece, forms)
    return assembled(made.steps, made.temps, made.shared, made.values, threads)


class Planner:
    """The passes after scheduling."""

    def __init__(self, scheduled: Schedule, target: Target, threads: int,
                 aliases: Mapping[int, int]):
        self.scheduled = scheduled
        self.overwrites = {("out", output): ("in", source) for output, source in aliases.items()}
        self.target = target
        self.threads = threads
        self.temps = list(scheduled.temps)
        self.next_var = 1 << 30
        self.nests = Nests(self._memory, self._lanes)

    def run(self, together: bool) -> PiecePlan:
        planned, shared = self.settled()
        groups = self.independent(planned, shared) if together else [0] * len(planned)
        steps: list[tuple[Step, int]] = []
        for step, group in zip(planned, groups, strict=True):
            made = [self.nest(step)] if isinstance(step, Nest) else libraries.steps(
                step, self.target, self.threads)
            for each, _ in made:
                each.source, each.group = step, group if len(made) == 1 else 0
            steps += made
        return PiecePlan(steps, self.temps, shared, self.scheduled.values)

    def independent(self, planned: Sequence, shared: Mapping[int, int]) -> list[int]:
        """For each nest or library step the number of its set of independent ones."""
        def memory(buffer: Buffer) -> tuple[str, int]:
            kind, number = self._memory(buffer)
            return kind, root_of(number, shared) if kind == "temp" else number

        return independent(planned, memory)

    def settled(self) -> tuple[list, Mapping[int, int]]:
        """(nests and library steps, which temporary takes over whose memory)."""
        for step in fuse(self.scheduled.steps, self._memory, self._var):
            if isinstance(step, Phase):
                self._add(step)
            else:
                self.nests.steps.append(step)
        for at, step in enumerate(self.nests.steps):
            if isinstance(step, Nest):
                self.nests.steps[at] = share(step, self.temps, self._memory)
        planned = Temporaries(self.nests.steps, self.temps, self.threads).settle()
        return planned, shared_memory(planned, self.temps)

    def _lanes(self, phase: Phase) -> int:
        return vector_lanes(phase, self.target)

    def _memory(self, buffer: Buffer) -> tuple[str, int]:
        """What names the memory of a buffer: an input that is overwritten goes by its own name."""
        name = buffer.kind, buffer.number
        return self.overwrites.get(name, name)

    def _var(self) -> int:
        self.next_var += 1
        return self.next_var

    # ------------------------------------------------------------------ nests
    def nest(self, nest: Nest) -> tuple[Step, int]:
        """The kernel call of a nest, and its amount of work."""
        nest = cut(nest, self._var)
        lanes = [_sweep_lanes(sweep) for sweep in nest.sweeps]
        carried = nest.rows[-1] if nest.block else None
        key, slots = canonical(nest.sweeps, lanes, carried, whole=True)
        if environment:
            key = pinned(key)
        work = sum(extent_of(sweep[0].loops()) * len(walk([r for p in sweep for r in p.roots()]))
                   for sweep in nest.sweeps)
        iterations = extent_of(nest.rows[:-1] if nest.block else nest.rows)
        sequential = any(p.mode not in ("set",) and not p.outer for p in nest.phases())
        nchunks = 1 if sequential else evaluated(_chunks, self.threads, work, iterations)
        return Step(nest_name(key), lambda: emit_nest(key, self.target), slots, nchunks), work

    def _chunks(self, work: int, iterations: int) -> int:
        """Into how many chunks a kernel goes: a few for each thread, more where each of them would
        still take long."""
        if self.threads == 1:
            return 1
        wanted = max(CHUNKS_EACH * self.threads, work // LARGE_GRAIN)
        return max(1, min(iterations, work // GRAIN, wanted, MAX_CHUNKS))

    # ------------------------------------------------------------------ cutting long sums
    def _add(self, phase: Phase) -> None:
        """Add a phase to the nests. A long sum with few results goes in two: blocks into partial
        results, then those. So there is one tree for any number of threads."""
        if phase.reduce in ("scan_sum", "scan_prod") and phase.lane_reduced \
                and phase.lane.extent > 2 * BLOCK_LONG_SCAN and extent_of(phase.outer) < FEW:
            self._add_long_scan(phase)
            return
        found = self._cut_of(phase)
        if found is None:
            self.nests.add(phase)
            return
        loop, block = found
        whole, phase = phase, tidy(phase)
        first, blocks, rest = split(phase, loop, block, self._var())
        kept = phase.outer + ([] if phase.lane_reduced else [phase.lane])
        sizes = [each.extent for each in kept]
        strides = dict(zip((each.var for each in kept), contiguous_strides(sizes), strict=True))
        width = extent_of(kept)
        partial = Buffer("temp", len(self.temps), phase.value.dtype, (blocks.extent, width),
                         (width, 1))
        self.temps.append(partial)
        again = Loop(self._var(), blocks.extent)
        load = Expr("load", partial.dtype, (), (partial, Index(strides | {again.var: width}), ()))
        second = normalise(kept, [again], Phase([], [], None, load, phase.target, phase.where,
                                                reduce=phase.reduce))
        if not (_sums_columns(phase) and not phase.outer and len(phase.inner) == 1
                and self._carried(whole, partial, blocks, block)):
            where = Index(strides | {blocks.var: width})
            self._add_first(first, loop, rest, blocks, partial, where)
        self._add(second)

    def _carried(self, phase: Phase, partial: Buffer, blocks: Loop, block: int) -> bool:
        phase.lanes = self._lanes(phase)
        return self.nests.carry(phase, partial, blocks, block)

    def _add_first(self, first: Phase, loop: Loop, rest: Loop, blocks: Loop, partial: Buffer,
                   where: Index) -> None:
        reduced = [rest if each is loop else each for each in first.inner]
        if first.lane_reduced:
            reduced.append(rest if first.lane is loop else first.lane)
        kept = first.outer + ([] if first.lane_reduced else [first.lane])
        made = normalise([blocks, *kept], reduced, dataclasses.replace(
            first, target=partial, where=where, pinned=first.lane.var))
        self.nests.add(made)

    def _add_long_scan(self, phase: Phase) -> None:
        """Reduce the blocks of a long row, scan what comes out, then each block from there."""
        phase = tidy(phase)
        var, again = self._var(), self._var()
        rule, dtype = phase.reduce.removeprefix("scan_"), phase.value.dtype
        last, blocks, rest = split(phase, phase.lane, BLOCK_LONG_SCAN, var)
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
        value = last.value if wide is dtype else Expr("cast", wide, (last.value,))
        behind = Index(rows | {again: 1}, 1)
        self.nests.add(normalise(phase.outer, [], Phase(
            [], [], None, identity, partial, Index(rows))))
        self.nests.add(normalise([*phase.outer, blocks], [rest], Phase(
            [], [], None, value, partial, Index(rows | {var: 1}, 1), reduce=rule,
            pinned=rest.var)))
        self.nests.add(Phase(list(phase.outer), [Loop(again, blocks.extent)], None, load(behind),
                             partial, behind, reduce=phase.reduce))
        self.nests.add(dataclasses.replace(
            last, outer=[*phase.outer, blocks], lane=rest,
            carry=load(Index(rows | {var: 1}))))

    @choice
    def _cut_of(self, phase: Phase) -> tuple[Loop, int] | None:
        """(the loop to cut, into blocks of how many), or None."""
        if phase.reduce is None or phase.scans or phase.position is not None \
                or phase.lane is None or phase.where.dynamic or phase.mode != "set":
            return None
        if _sums_columns(phase):
            return _cut_of_columns(phase)
        if extent_of(phase.outer) >= FEW:
            return None
        reduced = [*phase.inner, phase.lane]
        count = extent_of(reduced)
        if count <= 2 * BLOCK_REDUCE:
            return None
        longest = max(reduced, key=lambda loop: loop.extent)
        block = max(1, BLOCK_REDUCE * longest.extent // count)
        if longest is phase.lane:
            block = max(block, 256)
        return None if longest.extent <= block else (longest, fixed(block))


def _chunks(threads: int, work: int, iterations: int) -> int:
    """Into how many chunks a kernel goes: a few for each thread, more where each of them would
    still take long."""
    if threads == 1:
        return 1
    wanted = max(CHUNKS_EACH * threads, work // LARGE_GRAIN)
    return max(1, min(iterations, work // GRAIN, wanted, MAX_CHUNKS))


def _sums_columns(phase: Phase) -> bool:
    """Do lanes run along results, rows being added to rows?"""
    return phase.reduce is not None and phase.lane is not None and not phase.lane_reduced \
        and phase.position is None and not phase.scans


def _cut_of_columns(phase: Phase) -> tuple[Loop, int] | None:
    if not phase.inner:
        return None
    rows = phase.inner[0]
    count, width = extent_of(phase.inner), phase.lane.extent
    strips = extent_of(phase.outer) * max(1, width // STRIP)
    if count <= FEW_ROWS or count * width <= 2 * BLOCK_REDUCE or (
            strips >= FEW and count <= MANY_ROWS):
        return None
    # a block of few columns is not worth its start; their sums are kept in registers
    most = BLOCK_REDUCE // width if width <= NARROW else MOST_ROWS
    wanted = min(most, max(8, count // 128 * 8))
    block = max(1, wanted * rows.extent // count)
    return None if rows.extent <= block else (rows, fixed(block))


def _sweep_lanes(sweep: Sequence[Phase]) -> int:
    """A reduction keeps its own lanes, whatever runs beside it: they are part of its tree."""
    sums = [phase.lanes for phase in sweep if phase.reduce is not None]
    return max(1, min(sums or [phase.lanes for phase in sweep]))


# ---------------------------------------------------------------------- memory
def assembled(steps: Sequence[tuple[Step, int]], temps: Sequence[Buffer],
              shared: Mapping[int, int], values: dict[tuple[str, int], Value],
              threads: int) -> Plan:
    """The plan of these kernel calls, each with its amount of work."""
    joined = batches(steps, threads, GRAIN)
    for step, work in steps:
        step.work = work
    arena = _Arena(temps, [step for step, _ in steps], shared, joined)
    checked = any(isinstance(slot, Pointer) and slot.kind == "status"
                  for step, _ in steps for slot in step.slots)
    return Plan([step for step, _ in steps], arena.size, checked,
                sum(work for _, work in steps), values, arena.places, joined)


def root_of(number: int, shared: Mapping[int, int]) -> int:
    """The temporary whose memory a temporary has in the end."""
    while number in shared:
        number = shared[number]
    return number


class _Arena:
    """Places temporaries and workspaces in one block; what lives at different times may share, and
    what `shared` says takes over the memory of another temporary. The steps of a batch run at one
    time."""

    def __init__(self, temps: Sequence[Buffer], steps: Sequence[Step], shared: Mapping[int, int],
                 joined: Sequence[Batch]):
        self.size = 0
        self.shared = shared
        spans = [(position, position) for position in range(len(steps))]
        for batch in joined:
            whole = batch.first, batch.last
            spans[batch.first:batch.last + 1] = [whole] * (batch.last + 1 - batch.first)
        lives: dict[tuple[str, int], list[int]] = {}
        for position, step in enumerate(steps):
            begin, end = spans[position]
            for slot in step.slots:
                if isinstance(slot, Pointer) and slot.kind in ("temp", "work"):
                    name = self._name(slot, position - step.after)
                    lives.setdefault(name, [begin, end])[1] = end
        placed: list[tuple[int, int, int, int]] = []  # start, end, first, last
        offsets: dict[tuple[str, int], int] = {}
        self.places: list[tuple[str, int, int, int, int, int]] = []
        sizes = {name: self._bytes(name, temps, steps) for name in lives}
        for number in shared:
            root = "temp", root_of(number, shared)
            sizes[root] = max(sizes[root], self._bytes(("temp", number), temps, steps))
        for name in sorted(lives, key=lambda name: -sizes[name]):
            first, last = lives[name]
            start, end = 0, sizes[name]
            for low, high, begin, over in placed:
                if low >= end:
                    break
                if start < high and begin <= last and first <= over:
                    start, end = high, high + sizes[name]
            bisect.insort(placed, (start, end, first, last))
            offsets[name] = start
            self.places.append((*name, start, sizes[name], first, last))
            self.size = max(self.size, start + sizes[name])
        for position, step in enumerate(steps):
            for at, slot in enumerate(step.slots):
                if isinstance(slot, Pointer) and slot.kind in ("temp", "work"):
                    name = self._name(slot, position - step.after)
                    step.slots[at] = Pointer("arena", 0, offsets[name] + slot.offset)

    def _name(self, slot: Pointer, position: int) -> tuple[str, int]:
        number = root_of(slot.number, self.shared) if slot.kind == "temp" else position
        return slot.kind, number

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


def buffers_for(kind: str, layouts: Iterable) -> list[Buffer | None]:
    """The arguments of a kind ("in" or "out"), numbered in order, of these layouts (dtype, shape,
    strides); None in place of a number, whose layout is its type."""
    return [None if isinstance(m, type) else buffer_for(kind, number, m.dtype, m.shape, m.strides)
            for number, m in enumerate(layouts)]
