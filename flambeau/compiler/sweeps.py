"""Which phases run together: nests of phases over the same rows, and sweeps over the same elements.

A *nest* is a list of phases that one kernel runs for each row, so that a row stays in the nearest
cache between them. Its rows are loops that all its phases share. A *sweep* is several phases in one
and the same loop: what one of them computes, the next one has in registers. Phases are conformed to
the rows of a nest (their own loops may have another order, or be merged), never the reductions to
anything but their own loops: the tree of a sum must not depend on its neighbours.

A sum over the rows themselves (of a bias' gradient, say) is *carried*: each block of rows adds its
rows to a row of results, as it does when it runs alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence

from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.nest import (
    Loop,
    Phase,
    merges,
    normalise,
    renamed,
    rewrite,
    tidy,
    tile_loop,
    walk,
)

__all__ = ["FEW", "Nest", "Nests", "extent_of"]

FEW = 16  # fewer independent rows than this are too few to share out
LONG = 16384  # elements of a row above which it is better cut than kept in one thread
LARGEST_SWEEP = 160  # expressions in one loop
NARROW = 16  # columns below which adding rows to a row in memory costs more than reading them again
REACH = 6  # how many nests back a phase may join

Memory = Callable[[Buffer], tuple[str, int]]


def extent_of(loops: Sequence[Loop]) -> int:
    """How many iterations a nest of loops has."""
    count = 1
    for loop in loops:
        count *= loop.extent
    return count


@dataclasses.dataclass
class Nest:
    """Phases that run row by row.

    Attributes:
        rows: the outer loops that all phases share.
        sweeps: lists of phases with the same loops.
        members: the phases as they came, to conform them anew.
        block: rows that are carried by one iteration of `blocks`, or 0.
        closed: nothing may join.
    """

    rows: list[Loop]
    sweeps: list[list[Phase]]
    members: list[Phase]
    block: int = 0
    blocks: Loop | None = None
    closed: bool = False

    def phases(self) -> Iterator[Phase]:
        for sweep in self.sweeps:
            yield from sweep


class Nests:
    """Builds nests from phases in order; what is no phase stays a step of its own."""

    def __init__(self, memory: Memory, lanes: Callable[[Phase], int]):
        self.memory = memory
        self.lanes = lanes
        self.steps: list = []
        self._known: dict[Expr, frozenset[tuple[str, int]]] = {}  # what expressions load from

    def add(self, phase: Phase) -> None:
        """Put `phase` into the nest where it belongs, or into a new one."""
        phase.lanes = self.lanes(phase)
        if _is_plain(phase) and tile_loop(phase, phase.lanes) is None:
            for at in self._open_nests(phase):
                grown = self._grown(self.steps[at], phase)
                if grown is not None:
                    self.steps[at] = grown
                    self._join(at, phase)
                    return
            rows = _natural_rows(phase)
            alone = self._settled(phase, rows)
            if alone is not None:
                self.steps.append(Nest(rows, [[alone]], [phase]))
                return
        self.steps.append(Nest(list(phase.outer), [[tidy(phase)]], [phase], closed=True))

    def carry(self, phase: Phase, partial: Buffer, blocks: Loop, block: int) -> bool:
        """Let an open nest over the rows that `phase` sums up do so: its result for each block of
        rows goes to a row of `partial`. False if there is none."""
        if phase.lane.extent < NARROW:
            return False
        for at in self._open_nests(phase):
            grown = self._carrying(self.steps[at], phase, partial, blocks, block)
            if grown is not None:
                self.steps[at] = grown
                return True
        return False

    def _open_nests(self, phase: Phase) -> Iterator[int]:
        """Positions of nests that `phase` may join, the last one first: it must not pass a step
        that it has to follow."""
        reads, target = self._reads(phase), self.memory(phase.target)
        for at in range(len(self.steps) - 1, max(-1, len(self.steps) - 1 - REACH), -1):
            step = self.steps[at]
            if isinstance(step, Nest):
                yield at
            others = [step] if not isinstance(step, Nest) else list(step.phases())
            if any(self._ordered(other, reads, target) for other in others):
                return

    def _ordered(self, step, reads: Collection, target: tuple) -> bool:
        """Must a phase with these reads and this target come after `step`?"""
        if isinstance(step, Phase):
            made = self.memory(step.target)
            return made in reads or made == target or target in self._reads(step)
        made = {self.memory(result) for result in (step.target, *step.results)
                if result is not None}
        return target in made or not made.isdisjoint(reads) or any(
            self.memory(buffer) == target for buffer in step.sources) or any(
            self._ordered(phase, reads, target) for phase in step.epilogue)

    def _reads(self, phase: Phase) -> frozenset[tuple[str, int]]:
        """The memory that a phase loads from."""
        found = [self._read_by(root) for root in phase.roots()]
        return found[0] if len(found) == 1 else frozenset().union(*found)

    def _read_by(self, root: Expr) -> frozenset[tuple[str, int]]:
        known = self._known.get(root)
        if known is None:
            known = self._known[root] = frozenset([self.memory(load.data[0])
                                                   for load in root.loads()])
        return known

    # ------------------------------------------------------------------ joining
    def _join(self, at: int, phase: Phase) -> None:
        """Put the nest at `at` and the one before it together, now that `phase` reads what the
        latter makes: it may have shown that both walk the same rows."""
        first, second = self.steps[at - 1] if at else None, self.steps[at]
        if not isinstance(first, Nest) or first.closed or first.block or second.block:
            return
        made = {self.memory(other.target) for other in first.phases()}
        if made.isdisjoint(self._reads(phase)) or any(
                self.memory(other.target)[0] == "in" for other in second.members):
            return  # not to be reordered: what is read before it is overwritten
        members = list(second.members)
        grown: Nest | None = first
        for member in self._linked(members, phase):
            grown = self._grown(grown, member)
            if grown is None:
                return
        self.steps[at - 1:at + 1] = [grown]

    def _linked(self, members: list[Phase], link: Phase) -> list[Phase]:
        """`members` in an order that keeps their dependences, `link` as early as these allow."""
        needed, reads = [], self._reads(link)
        for member in reversed(members):
            if member is not link and self.memory(member.target) in reads:
                needed.insert(0, member)
                reads |= self._reads(member)
        first = {id(member) for member in [*needed, link]}
        return [*needed, link, *(m for m in members if id(m) not in first)]

    def _grown(self, nest: Nest, phase: Phase) -> Nest | None:
        """`nest` with `phase` in it; over fewer rows if need be."""
        if nest.closed:
            return None
        if nest.rows:
            made = self._conformed(phase, nest.rows, nest.phases())
            if made is not None and self._fits(nest, made):
                grown = Nest(nest.rows, [list(sweep) for sweep in nest.sweeps],
                             [*nest.members, phase], nest.block, nest.blocks)
                if self._place(grown, made):
                    return grown
        elif not phase.outer:
            grown = Nest([], [list(sweep) for sweep in nest.sweeps], [*nest.members, phase])
            return grown if self._place(grown, tidy(phase)) else None
        rows = _natural_rows(phase)
        if nest.block or not rows or nest.rows and len(rows) >= len(nest.rows):
            return None
        return self._over(rows, [*nest.members, phase], phase)

    def _over(self, rows: list[Loop], members: list[Phase], leader: Phase) -> Nest | None:
        """A nest of `members` over rows that are loops of `leader`."""
        found: dict[int, Phase] = {}
        model = [leader]
        for _ in members:  # some can only be matched by way of others
            for number, member in enumerate(members):
                if number in found:
                    continue
                own = (self._settled(member, rows) if member is leader
                       else self._conformed(member, rows, model))
                if own is not None:
                    found[number] = own
                    model.append(own)
            if len(found) == len(members):
                break
        else:
            return None
        made = Nest(rows, [], list(members))
        for number in range(len(members)):
            if not self._fits(made, found[number]) or not self._place(made, found[number]):
                return None
        return made

    def _settled(self, phase: Phase, rows: Sequence[Loop], more: Sequence[int] = ()
                 ) -> Phase | None:
        """`phase` in normal form below `rows`; None if it needs further outer loops."""
        made = normalise(phase.kept, phase.reduced, dataclasses.replace(phase), rows)
        if len(made.outer) != len(rows):
            return None
        if made.reduce is not None and phase.lane is not None and (
                made.lane is None or made.lane.var != phase.lane.var):
            return None  # a sum keeps its tree
        if made.reduce is None and extent_of(_inside(made)) > 1 and any(
                made.where.terms.get(row.var) == 1 for row in rows):
            return None  # neighbours in memory would be written by different rows
        return tidy(made, more)

    def _conformed(self, phase: Phase, rows: Sequence[Loop], model) -> Phase | None:
        """`phase` with `rows` as its outer loops; `model` are phases that have them."""
        names = self._matched(phase, phase.kept, rows, model)
        return None if names is None else self._settled(_with_names(phase, names), rows)

    def _matched(self, phase: Phase, loops: Sequence[Loop], rows: Sequence[Loop], model
                 ) -> dict[int, int] | None:
        """Which of `loops` walk memory as `rows` do in the phases of `model`: {old: row}."""
        anchors: dict[tuple, set[int]] = defaultdict(set)
        for other in model:
            for memory, index in self._accesses(other):
                for row in rows:
                    if row.var in index.terms:
                        anchors[memory, index.terms[row.var]].add(row.var)
        votes: dict[tuple[int, int], int] = defaultdict(int)
        for memory, index in self._accesses(phase):
            for loop in loops:
                for var in anchors.get((memory, index.terms.get(loop.var, 0)), ()):
                    votes[var, loop.var] += 1
        names: dict[int, int] = {}
        for row in rows:
            fits = [loop for loop in loops if loop.var not in names
                    and loop.extent == row.extent and votes.get((row.var, loop.var))]
            if not fits:
                return None
            names[max(fits, key=lambda loop: votes[row.var, loop.var]).var] = row.var
        return names

    def _accesses(self, phase: Phase) -> Iterator[tuple[tuple, Index]]:
        for load in phase.loads():
            yield self.memory(load.data[0]), load.data[1]
        yield self.memory(phase.target), phase.where

    def _fits(self, nest: Nest, phase: Phase) -> bool:
        """Does every row of `phase` depend on the same row of the nest only?"""
        if nest.block and not _rows_merge(nest.rows, [phase]):
            return False
        target = self.memory(phase.target)
        for other in nest.phases():
            written = self.memory(other.target)
            if written == target:
                return False
            for index in self._indices(phase, written):
                if not _same_row(nest.rows, other, phase, index):
                    return False
            for index in self._indices(other, target):
                if not _same_row(nest.rows, phase, other, index):
                    return False
        return True

    def _indices(self, phase: Phase, memory: tuple[str, int]) -> list[Index]:
        """Where a phase loads from this memory."""
        if memory not in self._reads(phase):
            return []
        return [load.data[1] for load in phase.loads() if self.memory(load.data[0]) == memory]

    # ------------------------------------------------------------------ sweeps
    def _place(self, nest: Nest, phase: Phase) -> bool:
        """Put a conformed phase into the first sweep that can take it, or into a new last one;
        False where this would keep long rows in few hands."""
        reads, target = self._reads(phase), self.memory(phase.target)
        best = None
        for at in range(len(nest.sweeps) - 1, -1, -1):
            fused = self._fused(nest.sweeps[at], phase)
            if fused is not None:
                best = at, fused
            if any(self._ordered(other, reads, target) for other in nest.sweeps[at]):
                break
        if best is not None:
            nest.sweeps[best[0]] = best[1]
            return True
        if nest.sweeps and (not nest.rows or extent_of(nest.rows) < FEW and any(
                extent_of(_inside(other)) > LONG for other in [phase, *nest.phases()])):
            return False
        nest.sweeps.append([phase])
        return True

    def _fused(self, sweep: list[Phase], phase: Phase) -> list[Phase] | None:
        """`sweep` with `phase` in the same loops, if these are the loops of both."""
        kind = _kind(phase)
        kinds = {_kind(other) for other in sweep}
        if None in kinds or kind is None or ("columns" in kinds) != (kind == "columns"):
            return None
        mine, theirs = _inside(phase), _inside(sweep[0])
        if len(mine) != len(theirs) or (phase.lane is None) != (sweep[0].lane is None) or any(
                a.extent != b.extent or a.clip != b.clip
                for a, b in zip(mine, theirs, strict=True)):
            return None
        sums = [other for other in [*sweep, phase] if other.reduce is not None]
        if len({other.lanes for other in sums}) > 1:
            return None
        phase = _with_loops(renamed(phase, {a.var: b.var for a, b in
                                            zip(mine, theirs, strict=True)}), sweep[0])
        found = self._forwarded(sweep, phase)
        if found is None:
            return None
        made = [*sweep, found]
        size = len(walk([root for other in made for root in other.roots()]))
        return made if size <= LARGEST_SWEEP else None

    def _forwarded(self, sweep: list[Phase], phase: Phase) -> Phase | None:
        """`phase` with what the sweep has just computed in place of loads of it."""
        target = self.memory(phase.target)
        written = {self.memory(other.target): other for other in sweep}
        if target in written or any(index != phase.where for other in [*sweep, phase]
                                    for index in self._indices(other, target)):
            return None
        if self._reads(phase).isdisjoint(written):
            return phase
        for load in phase.loads():
            other = written.get(self.memory(load.data[0]))
            if other is not None and (
                    other.reduce is not None or other.mode != "set" or load.data[2]
                    or load.data[1] != other.where or load.dtype is not other.value.dtype):
                return None

        def replace(load: Expr) -> Expr:
            other = written.get(self.memory(load.data[0]))
            return load if other is None else other.value

        return rewrite(phase, _unmoved, replace)

    # ------------------------------------------------------------------ sums over the rows
    def _carrying(self, nest: Nest, phase: Phase, partial: Buffer, blocks: Loop, block: int
                  ) -> Nest | None:
        if nest.closed or any(loop.clip is not None for other in nest.phases()
                              for loop in _inside(other)):
            return None  # rows that are cut once must not be cut again
        if not nest.rows:
            over = self._over(list(phase.reduced), nest.members, phase)
            if over is None:
                return None
            nest = over
        names = self._matched(phase, phase.reduced, nest.rows, nest.phases())
        if names is None or len(names) != len(phase.reduced) or nest.block not in (0, block) \
                or not _rows_merge(nest.rows, nest.phases()):
            return None
        moved = _with_names(phase, names)
        moved.reduced, moved.kept = [], [*nest.rows, *phase.kept]
        moved.reduce, moved.mode = None, f"carry_{phase.reduce}"
        where = nest.blocks or blocks
        strides, width = {}, 1
        for loop in sorted(phase.kept, key=lambda loop: phase.where.terms.get(loop.var, 0)):
            strides[loop.var], width = width, width * loop.extent
        moved.target, moved.where = partial, Index(strides | {where.var: width})
        settled = self._settled(moved, nest.rows, (where.var,))
        if settled is None or not self._fits_carried(nest, settled):
            return None
        grown = Nest(nest.rows, [list(sweep) for sweep in nest.sweeps], list(nest.members),
                     block, where)
        return grown if self._place(grown, settled) else None

    def _fits_carried(self, nest: Nest, phase: Phase) -> bool:
        """Like `_fits`, of a phase whose target nobody reads; `where` knows blocks, not rows."""
        if not _rows_merge(nest.rows, [phase]):
            return False
        loads = phase.loads()
        return all(self.memory(load.data[0]) != self.memory(other.target) or _same_row(
            nest.rows, other, phase, load.data[1]) for other in nest.phases() for load in loads)


# ---------------------------------------------------------------------- facts about phases
def _is_plain(phase: Phase) -> bool:
    """May this phase run beside others? Scatters and scans run alone."""
    return (phase.mode == "set" or phase.mode.startswith("carry_")) and not phase.where.dynamic \
        and not phase.scans


def _kind(phase: Phase) -> str | None:
    """What can be swept together: "elements" (maps, and sums along lanes) or "columns"."""
    if phase.reduce is None:
        return "elements"
    if phase.lane is None or phase.lane_reduced:
        return "elements" if phase.lane or not phase.inner else None
    return "columns" if phase.position is None else None


def _inside(phase: Phase) -> list[Loop]:
    return [*phase.inner, *([phase.lane] if phase.lane else [])]


def _natural_rows(phase: Phase) -> list[Loop]:
    return [part for loop in phase.outer for part in loop.unmerged()]


def _unmoved(index: Index) -> Index:
    return index


def _with_names(phase: Phase, names: dict[int, int]) -> Phase:
    """`phase` with loop variables renamed, in its indices and in its domain."""
    made = renamed(phase, names)

    def loop_of(loop: Loop) -> Loop:
        clip = loop.clip and (names.get(loop.clip[0], loop.clip[0]), loop.clip[1])
        return Loop(names.get(loop.var, loop.var), loop.extent, clip)

    made.kept = [loop_of(loop) for loop in phase.kept]
    made.reduced = [loop_of(loop) for loop in phase.reduced]
    return made


def _with_loops(phase: Phase, model: Phase) -> Phase:
    phase.inner, phase.lane = model.inner, model.lane
    return phase


def _rows_merge(rows: Sequence[Loop], phases) -> bool:
    """Do all phases walk the rows as one loop? (A carried result does not move with rows.)"""
    indices = {index for phase in phases for expr in walk(phase.roots())
               for index in expr.indices()}
    indices |= {phase.where for phase in phases if not phase.mode.startswith("carry_")}
    return all(merges(a, b, indices) for a, b in itertools.pairwise(rows))


def _same_row(rows: Sequence[Loop], writer: Phase, reader: Phase, index: Index) -> bool:
    """Does each row of `reader` read (at `index`) only what that row of `writer` writes?"""
    if index.dynamic or writer.where.dynamic:
        return False
    steps = []
    for row in rows:
        step = writer.where.terms.get(row.var, 0)
        if step <= 0 or index.terms.get(row.var, 0) != step:
            return False
        steps.append(step)
    if index.const == writer.where.const and _walk_of(reader, index) == _walk_of(
            writer, writer.where):
        return True
    low = high = index.const - writer.where.const
    for loop in _inside(reader):
        reach = index.terms.get(loop.var, 0) * (loop.extent - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low >= 0 and high < min(steps)


def _walk_of(phase: Phase, index: Index) -> list[tuple[int, int]] | None:
    """(step, count) of the loops below the rows that an index moves with."""
    return sorted((index.terms[loop.var], loop.extent) for loop in _inside(phase)
                  if loop.var in index.terms)
