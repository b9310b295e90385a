"""In-place reuse: a result takes the memory of an operand that nobody reads afterwards.

It may where every element of the operand is read before the same place is written: by the phase
that writes it, at that very element, or by earlier sweeps of the nest, within the same row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flambeau.compiler.cutting import buffers_read
from flambeau.compiler.expression import Buffer, Index
from flambeau.compiler.nest import Loop, Phase
from flambeau.compiler.sweeps import Nest

__all__ = ["shared_memory"]


def shared_memory(steps: Sequence, temps: Sequence[Buffer]) -> dict[int, int]:
    """Numbers of temporaries -> that of the temporary whose memory each takes over."""
    last: dict[int, int] = {}
    writers: dict[int, int] = {}
    for at, step in enumerate(steps):
        for buffer in buffers_read(step):
            if buffer.kind == "temp":
                last[buffer.number] = at
        for target in _targets(step):
            if target.kind == "temp":
                writers[target.number] = writers.get(target.number, 0) + 1
    found: dict[int, int] = {}
    for at, step in enumerate(steps):
        if isinstance(step, Nest):
            taken: set[int] = set()
            for place, phase in _writers_in(step):
                number = phase.target.number
                if writers[number] > 1:
                    continue
                for other in _dying(step, phase, at, last, taken):
                    if temps[other].dtype.itemsize == phase.target.dtype.itemsize \
                            and _read_in_time(step, place, phase, other):
                        found[number] = other
                        taken.add(other)
                        break
    return found


def _targets(step: object) -> Iterator[Buffer]:
    if isinstance(step, Nest):
        yield from (phase.target for phase in step.phases())
        return
    yield step.target
    yield from (result for result in step.results if result is not None)
    yield from (phase.target for phase in step.epilogue)


def _writers_in(nest: Nest) -> Iterator[tuple[int, Phase]]:
    """(number of the sweep, phase) for phases that plainly store a temporary."""
    for place, sweep in enumerate(nest.sweeps):
        for phase in sweep:
            if phase.target.kind == "temp" and not phase.target.per_thread and (
                    phase.mode == "set" and phase.reduce is None and phase.tile is None
                    and not phase.where.dynamic):
                yield place, phase


def _dying(nest: Nest, writer: Phase, at: int, last: dict[int, int],
           taken: set[int]) -> list[int]:
    """Temporaries that the nest is the last to read, those that the writer itself reads first."""
    def numbers(phases) -> list[int]:
        return [load.data[0].number for phase in phases for load in phase.loads()
                if load.data[0].kind == "temp" and not load.data[0].per_thread]

    candidates = dict.fromkeys([*numbers([writer]), *numbers(nest.phases())])
    return [n for n in candidates if last[n] == at and n not in taken
            and n != writer.target.number
            and not any(p.target.kind == "temp" and p.target.number == n for p in nest.phases())]


def _read_in_time(nest: Nest, place: int, writer: Phase, number: int) -> bool:
    """Does the nest read each element of the temporary before `writer` stores to its place?

    In one sweep, phases that load the same element share one load, which comes first.
    """
    for current, sweep in enumerate(nest.sweeps):
        for phase in sweep:
            indices = [load.data[1] for load in phase.loads()
                       if load.data[0].kind == "temp" and load.data[0].number == number]
            if not indices:
                continue
            if current > place:
                return False
            for index in indices:
                same = index == writer.where and phase.loops() == writer.loops()
                if current == place and (not same or phase.reduce is not None):
                    return False
                if not same and not _within_row(nest.rows, index, phase, writer):
                    return False
    return True


def _within_row(rows: Sequence[Loop], index: Index, reader: Phase, writer: Phase) -> bool:
    """Does the reader, in each iteration of the rows, read only what the writer stores in it?"""
    if not rows or index.const != writer.where.const:
        return False
    strides = []
    for row in rows:
        stride = index.terms.get(row.var, 0)
        if stride <= 0 or stride != writer.where.terms.get(row.var):
            return False
        strides.append((stride, row.extent))
    reach = max(_reach(index, reader, rows), _reach(writer.where, writer, rows))
    for stride, extent in sorted(strides):
        if reach > stride:
            return False
        reach = stride * extent
    return True


def _reach(index: Index, phase: Phase, rows: Sequence[Loop]) -> float:
    """Elements from the first to one past the last that a phase touches in one row."""
    outside = {row.var for row in rows}
    last = 0
    for loop in phase.loops():
        factor = index.terms.get(loop.var, 0)
        if loop.var not in outside:
            if factor < 0:
                return float("inf")
            last += factor * (loop.extent - 1)
    for expr, factor in index.dynamic:
        if expr.kind != "wrap" or factor < 0:  # a user's index lies between 0 and its size
            return float("inf")
        last += factor * (expr.data - 1)
    return last + 1
