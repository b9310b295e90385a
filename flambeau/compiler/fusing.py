"""Fusing elementwise phases into the product whose result they read.

`fuse` looks for library steps (matrix products) whose result is read, element by element, by
elementwise phases: a bias, an activation, a residual, a rounding to 16 bits. Such a phase moves
into the step as its *epilogue*: the kernel runs it on each rectangle of the result that it has
finished, while the rectangle is in cache (see `epilogue.py`). If nothing else reads the plain
result, it gets no memory of its own where it can live in that of the last phase.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from flambeau.compiler.convolution.matrix import image_matrix
from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.nest import Loop, Phase, walk
from flambeau.compiler.schedule import LibraryStep

__all__ = ["ACCUMULATOR", "FUSING", "fuse", "refine"]

ACCUMULATOR = "acc"
"""The kind of buffer that an epilogue reads the product's elements from: the current rectangle."""

Memory = Callable[[Buffer], tuple[str, int]]


def _dot_sizes(step: LibraryStep) -> tuple[int, int, int]:
    shape = step.target.shape
    rows, columns = shape[-2], shape[-1]
    count = 1
    for size in shape[:-2]:
        count *= size
    return count, rows, columns


def _conv_sizes(step: LibraryStep) -> tuple[int, int, int] | None:
    return image_matrix(step.target.shape, step.target.strides)


def _gradient_sizes(step: LibraryStep) -> tuple[int, int, int] | None:
    stride = step.attrs[0]
    return _conv_sizes(step) if max(stride) == 1 else None


FUSING: dict[str, Callable[[LibraryStep], tuple[int, int, int] | None]] = {
    "dot": _dot_sizes, "conv": _conv_sizes, "conv_grad_input": _gradient_sizes}
"""Kinds of steps that can run an epilogue; (batch, rows, columns) of the result in memory order, or
None where this step cannot."""


AHEAD = 64  # steps among which more phases are looked for that read what has been taken in


def fuse(steps: Sequence[Phase | LibraryStep], memory: Memory, var: Callable[[], int]
         ) -> list[Phase | LibraryStep]:
    """Move elementwise phases into the products that they follow.

    Args:
        steps: in order.
        memory: what names the memory of a buffer; overwritten inputs go by one name.
        var: gives fresh loop variables.
    """
    line = _Line(steps, memory)
    position = 0
    while position < len(line.steps):
        step = line.steps[position]
        sizes = FUSING[step.kind](step) if isinstance(step, LibraryStep) \
            and step.kind in FUSING and not step.epilogue else None
        if sizes is None or sizes[2] < 2:
            position += 1
            continue
        moved = _Candidate(line, position, sizes, memory, var).run()
        position += not moved  # a step that was moved down leaves another one in its place
    return line.steps


class _Line:
    """The steps in order, and for each buffer who reads and who writes it: so nobody has to look
    through all steps for those that matter."""

    def __init__(self, steps: Sequence[Phase | LibraryStep], memory: Memory):
        self.memory = memory
        self.steps = list(steps)
        self._order = [id(step) for step in steps]
        self._known: dict[int, tuple[object, set, set]] = {}
        self._readers: dict[object, dict[int, None]] = defaultdict(dict)
        self._writers: dict[object, dict[int, None]] = defaultdict(dict)
        for step in steps:
            self._enter(step)

    def _enter(self, step: Phase | LibraryStep) -> None:
        reads, writes = _reads(step, self.memory), _writes(step, self.memory)
        self._known[id(step)] = step, reads, writes
        for name in reads:
            self._readers[name][id(step)] = None
        for name in writes:
            self._writers[name][id(step)] = None

    def reads(self, step: Phase | LibraryStep) -> set:
        return self._known[id(step)][1]

    def writes(self, step: Phase | LibraryStep) -> set:
        return self._known[id(step)][2]

    def _places(self, table: dict, names: Iterable, start: int, stop: int) -> Iterator[int]:
        for name in names:
            for number in table.get(name, ()):
                with contextlib.suppress(ValueError):  # not among these
                    yield self._order.index(number, start, stop)

    def next_reader(self, names: Iterable, start: int) -> int | None:
        """The place of the first step from `start` on that reads one of `names`."""
        return min(self._places(self._readers, names, start, len(self.steps)), default=None)

    def writes_between(self, names: Iterable, start: int, stop: int) -> bool:
        """Does a step from `start` on, before `stop`, write one of `names`?"""
        return any(True for _ in self._places(self._writers, names, start, stop))

    def remove(self, place: int) -> None:
        """Take a step out."""
        step, number = self.steps.pop(place), self._order.pop(place)
        for name in self.reads(step):
            del self._readers[name][number]
        for name in self.writes(step):
            del self._writers[name][number]

    def insert(self, place: int, step: Phase | LibraryStep) -> None:
        """Put a new step before the one at `place`."""
        self.steps.insert(place, step)
        self._order.insert(place, id(step))
        self._enter(step)

    def highest(self, step: LibraryStep, top: int, place: int) -> int:
        """How far up, but not above `top`, a step may go that stands at `place`."""
        reads, writes = _reads(step, self.memory), _writes(step, self.memory)
        obstacles = [*self._places(self._writers, reads | writes, top, place),
                     *self._places(self._readers, writes, top, place)]
        return max(obstacles, default=top - 1) + 1


class _Candidate:
    """One product that looks for phases to take in."""

    def __init__(self, line: _Line, position: int, sizes: tuple[int, int, int], memory: Memory,
                 var: Callable[[], int]):
        self.line, self.position, self.sizes = line, position, sizes
        self.step: LibraryStep = line.steps[position]
        self.memory, self.var = memory, var
        self.own = self.memory(self.step.target)
        self.sources = {self.memory(b) for b in self.step.sources}
        self.taken: list[Phase] = []

    def run(self) -> bool:
        """Whether the step moved down, past others, in the list."""
        line = self.line
        place = line.next_reader((self.own,), self.position + 1)
        if place is None or not isinstance(line.steps[place], Phase):
            return False
        # nothing on the way writes what the product reads, or its result
        if line.writes_between(self.sources | {self.own}, self.position + 1, place):
            return False
        first = self._accepts(line.steps[place])
        if first is None:
            return False
        self.taken.append(first)
        self._take_more(place + 1)
        needed = line.next_reader((self.own,), place + 1) is not None
        step = dataclasses.replace(self.step, epilogue=tuple(self.taken))
        step = step if needed else self._without_own_memory(step)
        line.remove(place)
        line.remove(self.position)
        # as high as it may be, but not above where the product was: what it reads can go the sooner
        highest = line.highest(step, self.position, place - 1)
        line.insert(highest, step)
        return highest > self.position

    def _take_more(self, start: int) -> None:
        """Later phases that read the product or what has been taken in, if they may move up."""
        line = self.line
        mine = {self.own} | {self.memory(p.target) for p in self.taken}
        passed_reads: set = set()
        passed_writes: set = set()
        at = start
        last = -1  # from here on nobody reads what has been taken in
        while at < min(len(line.steps), start + AHEAD):
            if at > last:
                following = line.next_reader(mine, at)
                if following is None:
                    return
                last = following
            step = line.steps[at]
            reads, writes = line.reads(step), line.writes(step)
            found = None
            if isinstance(step, Phase) and reads & mine and not (
                    reads & passed_writes or writes & (passed_reads | passed_writes)):
                found = self._accepts(step)
            if found is not None:
                self.taken.append(found)
                mine.add(self.memory(found.target))
                line.remove(at)
                last = -1
                continue
            passed_reads |= reads
            passed_writes |= writes
            at += 1

    def _accepts(self, phase: Phase) -> Phase | None:
        """`phase` over (batch, rows, columns) if it can run rectangle by rectangle."""
        target = self.memory(phase.target)
        if target in self.sources or target == self.own:
            return None
        found = refine(phase, self.sizes, self._reads_product, self.var)
        if found is None:
            return None
        written = {self.memory(p.target): p for p in self.taken}
        if target in written:
            return None
        for expr in walk(found.roots()):
            if expr.kind != "load":
                continue
            buffer, index, _ = expr.data
            writer = written.get(self.memory(buffer))
            if writer is not None and not self._same_place(writer, found, index):
                return None
        for earlier in self.taken:  # what it overwrites may only have been read at the same place
            for expr in walk(earlier.roots()):
                if expr.kind == "load" and self.memory(expr.data[0]) == target \
                        and not self._same_place(found, earlier, expr.data[1]):
                    return None
        for expr in walk(found.roots()):
            if expr.kind == "load" and self.memory(expr.data[0]) == target \
                    and expr.data[1] != found.where:
                return None
        return found

    def _reads_product(self, buffer: Buffer) -> bool:
        return self.memory(buffer) == self.own

    @staticmethod
    def _same_place(writer: Phase, reader: Phase, index: Index) -> bool:
        """Does `reader` read at `index` what `writer` writes for the same element?"""
        if index.dynamic or index.const != writer.where.const:
            return False
        pairs = zip([*writer.outer, writer.lane], [*reader.outer, reader.lane], strict=True)
        return all(writer.where.terms.get(a.var, 0) == index.terms.get(b.var, 0)
                   for a, b in pairs if a.extent > 1)

    def _without_own_memory(self, step: LibraryStep) -> LibraryStep:
        """A step whose plain result nobody else reads: let the sums live where the last phase that
        reads them stores, if the layouts agree."""
        if step.target.kind != "temp":
            return step
        last = [p for p in self.taken if any(_is_accumulator(e) for e in walk(p.roots()))][-1]
        others = {self.memory(p.target) for p in self.taken if p is not last} | self.sources | {
            self.memory(e.data[0]) for p in self.taken for e in walk(p.roots())
            if e.kind == "load" and not _is_accumulator(e)}
        _, rows, columns = self.sizes
        dense = all(last.where.terms.get(loop.var, 0) == stride for loop, stride in zip(
            [*last.outer, last.lane], (rows * columns, columns, 1), strict=True)
            if loop.extent > 1)
        target = step.target
        if dense and last.target.dtype is target.dtype \
                and self.memory(last.target) not in others:
            target = Buffer(last.target.kind, last.target.number, target.dtype, target.shape,
                            target.strides, last.where.const)
        return dataclasses.replace(step, target=target, private=True)


def _is_accumulator(expr: Expr) -> bool:
    return expr.kind == "load" and expr.data[0].kind == ACCUMULATOR


def _reads(step: Phase | LibraryStep, memory: Memory) -> set:
    if isinstance(step, LibraryStep):
        found = {memory(buffer) for buffer in step.sources}
        for phase in step.epilogue:
            found |= _reads(phase, memory)
        return found
    found = {memory(expr.data[0]) for expr in walk(step.roots()) if expr.kind == "load"}
    if step.mode != "set":
        found.add(memory(step.target))
    return found


def _writes(step: Phase | LibraryStep, memory: Memory) -> set:
    if isinstance(step, LibraryStep):
        results = {memory(buffer) for buffer in step.results if buffer is not None}
        return results | {memory(step.target)} | {memory(p.target) for p in step.epilogue}
    return {memory(step.target)}


# ---------------------------------------------------------------------- the domain of a product
def refine(phase: Phase, sizes: tuple[int, int, int], reads: Callable[[Buffer], bool],
           var: Callable[[], int]) -> Phase | None:
    """An elementwise `phase` as loops (batch, rows | columns in lanes) over the elements of a
    product, reading the product from `ACCUMULATOR`; or None if it does not walk them like that.

    Args:
        sizes: (batch, rows, columns), dense in memory.
        reads: whether a buffer is the product.
    """
    if phase.reduce is not None or phase.mode != "set" or phase.where.dynamic:
        return None
    exprs = walk(phase.roots())
    if any(expr.kind == "wrap" for expr in exprs):
        return None
    mine = {expr.data[1] for expr in exprs if expr.kind == "load" and reads(expr.data[0])}
    if len(mine) != 1 or any(expr.data[2] for expr in exprs
                             if expr.kind == "load" and reads(expr.data[0])):
        return None
    index = mine.pop()
    if index.dynamic:
        return None
    loops = [*phase.outer, *phase.inner, *([phase.lane] if phase.lane else [])]
    pieces = _pieces(loops, index, sizes, var)
    if pieces is None:
        return None
    dims, parts = pieces
    indices = {i for expr in exprs for i in expr.indices()} | {phase.where}
    moved = {i: _move(i, dims, parts) for i in indices}
    if any(new is None for new in moved.values()):
        return None
    rebuild = _Rebuild(moved, reads)
    where = Index(moved[phase.where].terms, phase.where.const)
    outer, lane = list(dims[:2]), dims[2]
    return Phase(outer, [], lane, rebuild(phase.value), phase.target, where)


def _pieces(loops: Sequence[Loop], index: Index, sizes: tuple[int, int, int],
            var: Callable[[], int]):
    """(the three new loops, [(old loop, [(place of new loop, stride in old, extent)])])."""
    if index.const or index.dynamic:
        return None
    _, rows, columns = sizes
    marks = (columns, rows * columns, sizes[0] * rows * columns)
    reached, parts = 1, []
    for loop in sorted((loop for loop in loops if loop.extent != 1),
                       key=lambda loop: index.terms.get(loop.var, 0)):
        if loop.clip is not None or index.terms.get(loop.var, 0) != reached:
            return None
        cuts, step, left = [], 1, loop.extent
        while left > 1:
            mark = next((m for m in marks if m > reached), 0)
            if mark == 0 or mark % reached:
                return None
            count = min(left, mark // reached)
            if left % count:
                return None
            cuts.append((2 - marks.index(mark), step, count))
            reached, step, left = reached * count, step * count, left // count
        parts.append((loop, cuts))
    if reached != marks[2]:
        return None
    return tuple(Loop(var(), size) for size in sizes), parts


def _move(index: Index, dims: Sequence[Loop], parts) -> Index | None:
    """`index` over the new loops; None if it does not move evenly along one of them."""
    terms: dict[int, int] = {}
    reach = dict.fromkeys(range(3), 1)  # elements of each new loop that are covered so far
    for loop, cuts in parts:
        factor = index.terms.get(loop.var, 0)
        for place, step, count in cuts:
            unit, rest = divmod(factor * step, reach[place])
            if rest or terms.setdefault(dims[place].var, unit) != unit:
                return None
            reach[place] *= count
    return Index(terms, index.const, index.dynamic)


class _Rebuild:
    """Expressions over other loops."""

    def __init__(self, moved: Mapping[Index, Index], reads: Callable[[Buffer], bool]):
        self.moved, self.reads = moved, reads
        self.made: dict[Expr, Expr] = {}

    def __call__(self, root: Expr) -> Expr:
        for expr in walk([root]):
            if expr not in self.made:
                self.made[expr] = self._one(expr)
        return self.made[root]

    def _index(self, index: Index) -> Index:
        moved = self.moved[index]
        dynamic = tuple((self.made[expr], stride) for expr, stride in index.dynamic)
        return Index(moved.terms, moved.const, dynamic)

    def _one(self, expr: Expr) -> Expr:
        args = tuple(self.made[arg] for arg in expr.args)
        data = expr.data
        if expr.kind == "load":
            buffer, index, conditions = data
            if self.reads(buffer):
                buffer = dataclasses.replace(buffer, kind=ACCUMULATOR, number=0)
            data = buffer, self._index(index), tuple(self.made[c] for c in conditions)
        elif expr.kind == "index":
            data = self._index(data)
        elif expr.kind in ("inside", "divides", "quotient"):
            data = self._index(data[0]), data[1]
        return Expr(expr.kind, expr.dtype, args, data)
