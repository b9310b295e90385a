"""The last passes over nests: temporaries without memory of their own, and loops cut in blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.loops.tiles import TILE_ROWS
from flambeau.compiler.nest import Loop, Phase, merges, rewrite, split, tile_loop, walk
from flambeau.compiler.sweeps import FEW, Nest, extent_of
from flambeau.core.symbolic import choice

__all__ = ["STRIP", "Temporaries", "cut", "buffers_read"]

BLOCK_MAP = 8192  # elements of a block of a long elementwise loop
BLOCK_SCAN = 1024  # rows that are scanned side by side by one thread
SCATTERED = 64  # columns of a scatter that one thread takes at least
STRIP = 2048  # columns whose sums are kept in the nearest cache
LARGEST_ROW = 1 << 20  # bytes of a row of a temporary that each thread has its own copy of


class Temporaries:
    """Takes away temporaries that nobody reads, and shrinks to one row a thread those that live
    within a nest."""

    def __init__(self, steps: Sequence, temps: list[Buffer], threads: int):
        self.steps, self.temps, self.threads = list(steps), temps, threads
        self.readers: dict[int, set[int]] = {}  # number of a temporary -> positions of steps
        for at, step in enumerate(self.steps):
            for buffer in buffers_read(step):
                if buffer.kind == "temp":
                    self.readers.setdefault(buffer.number, set()).add(at)

    def settle(self) -> list:
        """The steps after that."""
        for at, step in enumerate(self.steps):
            if isinstance(step, Nest):
                self.steps[at] = self._shrunk(self._without_unread(step), at)
        return self.steps

    def _without_unread(self, nest: Nest) -> Nest:
        sweeps = [[p for p in sweep if p.target.kind != "temp" or p.target.number in self.readers
                   or p.mode != "set" or p.where.dynamic] for sweep in nest.sweeps]
        sweeps = [sweep for sweep in sweeps if sweep]
        return dataclasses.replace(nest, sweeps=sweeps) if sweeps else nest

    def _shrunk(self, nest: Nest, at: int) -> Nest:
        if not nest.rows or len(nest.sweeps) < 2:
            return nest
        local: dict[int, Buffer] = {}
        for phase in nest.phases():
            buffer = phase.target
            if buffer.kind == "temp" and phase.mode == "set" and not phase.scans \
                    and self.readers.get(buffer.number) == {at}:
                size = _row_bytes(nest, buffer)
                if size:
                    local[buffer.number] = dataclasses.replace(buffer, per_thread=size)
                    self.temps[buffer.number] = dataclasses.replace(
                        buffer, shape=(self.threads * size // buffer.dtype.itemsize,), strides=(1,))
        if not local:
            return nest
        return dataclasses.replace(nest, sweeps=[
            [_localised(phase, nest.rows, local) for phase in sweep] for sweep in nest.sweeps])


def _row_bytes(nest: Nest, buffer: Buffer) -> int:
    """Bytes that one row of the nest takes in `buffer`, in whole cache lines; 0 if rows do not lie
    together, or are no more than a number."""
    reach, count = 0, 0
    for phase in nest.phases():
        indices = [load.data[1] for load in phase.loads() if _is(load.data[0], buffer)]
        if _is(phase.target, buffer):
            indices.append(phase.where)
            count = extent_of(phase.loops()[len(phase.outer):])
        for index in indices:
            if index.const or index.dynamic or any(
                    not index.terms.get(row.var) for row in nest.rows):
                return 0
            last = 0
            for loop in phase.loops()[len(phase.outer):]:
                last += index.terms.get(loop.var, 0) * (loop.extent - 1)
            reach = max(reach, last + 1)
    size = reach * buffer.dtype.itemsize
    if count < 8 or reach > 2 * count or size > LARGEST_ROW:
        return 0
    return size + 63 & -64


def _is(a: Buffer, b: Buffer) -> bool:
    return a.kind == b.kind and a.number == b.number


def _localised(phase: Phase, rows: Sequence[Loop], local: dict[int, Buffer]) -> Phase:
    names = {row.var for row in rows}

    def below(index: Index) -> Index:
        return Index({var: f for var, f in index.terms.items() if var not in names}, index.const)

    def own(buffer: Buffer) -> Buffer | None:
        found = local.get(buffer.number) if buffer.kind == "temp" else None
        return None if found is None else dataclasses.replace(buffer, per_thread=found.per_thread)

    def replace(load: Expr) -> Expr:
        buffer, index, conditions = load.data
        found = own(buffer)
        if found is None:
            return load
        return Expr("load", load.dtype, (), (found, below(index), conditions))

    made = rewrite(phase, lambda index: index, replace)
    found = own(phase.target)
    if found is not None:
        made.target, made.where = found, below(phase.where)
    return made


def buffers_read(step) -> list[Buffer]:
    """The buffers that a step reads, some of them several times."""
    if isinstance(step, Nest):
        found = [load.data[0] for phase in step.phases() for load in phase.loads()]
        return found + [p.target for p in step.phases() if p.mode != "set"
                        and not p.mode.startswith("carry_")]
    return [*step.sources, *(load.data[0] for phase in step.epilogue for load in phase.loads())]


# ---------------------------------------------------------------------- loops
def cut(nest: Nest, fresh: Callable[[], int]) -> Nest:
    """`nest` with its rows merged where all phases can, and long loops cut into blocks, for threads
    and for the cache."""
    nest = _with_merged_rows(nest)
    if nest.block:
        return _in_blocks(nest)
    if len(nest.sweeps) > 1:
        return nest
    if len(nest.sweeps[0]) == 1:
        nest = _tiled(nest, fresh)
    phase = nest.sweeps[0][0]
    lane = phase.lane
    if lane is None or lane.clip is not None or phase.scans and phase.lane_reduced:
        return nest
    if any(p.reduce is not None and not p.scans and (p.lane_reduced or p.position is not None)
           for p in nest.sweeps[0]):
        return nest
    columns = phase.reduce is not None and not phase.scans
    block = BLOCK_SCAN if phase.scans else STRIP if columns else BLOCK_MAP
    if phase.inner and (phase.mode != "set" or phase.where.dynamic):
        # what is scattered in order: columns are independent
        block = SCATTERED * -(-lane.extent // (SCATTERED * FEW))
    if not _worth_cutting(nest, lane, block, columns):
        return nest
    var = fresh()
    made = []
    for phase in nest.sweeps[0]:
        phase, blocks, rest = split(phase, lane, block, var)
        phase.lane, phase.outer = rest, [*phase.outer, blocks]
        made.append(phase)
    return dataclasses.replace(nest, rows=[*nest.rows, blocks], sweeps=[made])


@choice
def _worth_cutting(nest: Nest, lane: Loop, block: int, columns: bool) -> bool:
    return lane.extent > 2 * block and (columns or extent_of(nest.rows) < FEW)


def _tiled(nest: Nest, fresh: Callable[[], int]) -> Nest:
    """A map whose loads are contiguous across its lanes takes several rows at a time."""
    phase = nest.sweeps[0][0]
    tile = tile_loop(phase, phase.lanes)
    if tile is None:
        return nest
    phase, blocks, rest = split(phase, tile, TILE_ROWS, fresh())
    rows = [blocks if loop.var == tile.var else loop for loop in phase.outer]
    phase.outer, phase.inner, phase.tile = rows, [rest], rest
    return dataclasses.replace(nest, rows=rows, sweeps=[[phase]])


def _with_merged_rows(nest: Nest) -> Nest:
    """Neighbouring rows become one loop where every phase walks them as one."""
    if len(nest.rows) < 2 or nest.closed:
        return nest
    indices = {index for phase in nest.phases() for expr in walk(phase.roots())
               for index in expr.indices()}
    indices |= {phase.where for phase in nest.phases() if not phase.mode.startswith("carry_")}
    rows: list[Loop] = []
    gone: set[int] = set()
    for row in reversed(nest.rows):
        if rows and merges(row, rows[-1], indices):
            gone.add(row.var)
            rows[-1] = Loop(rows[-1].var, rows[-1].extent * row.extent)
        else:
            rows.append(row)
    if not gone:
        return nest

    def move(index: Index) -> Index:
        return Index({v: f for v, f in index.terms.items() if v not in gone}, index.const)

    rows.reverse()
    sweeps = [[_with_rows(rewrite(phase, move), rows) for phase in sweep]
              for sweep in nest.sweeps]
    return dataclasses.replace(nest, rows=rows, sweeps=sweeps)


def _with_rows(phase: Phase, rows: list[Loop]) -> Phase:
    phase.outer = rows
    return phase


def _in_blocks(nest: Nest) -> Nest:
    """Rows that are summed up: blocks of them in parallel, the rows of a block in order."""
    (row,), blocks = nest.rows, nest.blocks
    made = []
    for sweep in nest.sweeps:
        parts = []
        for phase in sweep:
            kept = phase.where
            phase, _, rest = split(phase, row, nest.block, blocks.var)
            if phase.mode.startswith("carry_"):
                phase.where = kept
            phase.outer = [blocks, rest]
            parts.append(phase)
        made.append(parts)
    return dataclasses.replace(nest, rows=[blocks, rest], sweeps=made)
