"""Where a long program is cut into pieces.

What counts are the values that have buffers: in the order in which they are written down they form
a line. Where it repeats (the layers of a network, on the way there and on the way back), it is cut
once a period, before a product, whose operands are in memory anyway. What remains between is a
piece as well. An input is overwritten in the piece after which nobody reads it any more, at best
that of its gradient: the update then still joins the product.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Collection, Hashable, Mapping, Sequence

from flambeau.compiler.forms import Forms
from flambeau.compiler.pieces.repeats import Stretch, repeats
from flambeau.compiler.shared_values import LOOPS, has_buffer
from flambeau.ir.graph import Graph, Value, serial_of

__all__ = ["Piece", "division"]

LONG = 96  # stored values from which a program is worth being cut
SHORTEST = 10  # stored values of a piece: shorter ones would lose too much at their ends


@dataclasses.dataclass
class Piece:
    """A part of a program.

    Attributes:
        stored: the values that are computed in it and have buffers, in order.
        needs: what it reads that others make, or that the program is given, in order.
        updates: numbers of the graph's outputs that overwrite inputs in it.
        extra: numbers of outputs that are copies of what is known already.
    """

    stored: list[Value] = dataclasses.field(default_factory=list)
    needs: list[Value] = dataclasses.field(default_factory=list)
    updates: list[int] = dataclasses.field(default_factory=list)
    extra: list[int] = dataclasses.field(default_factory=list)


def division(graph: Graph, order: Sequence[Value], shared: Collection[Value],
             aliases: Mapping[int, int], effects: Collection[Value], forms: Forms
             ) -> list[Piece] | None:
    """The pieces of a program, in order; None if it is better left whole.

    Args:
        graph: the program; `order`: its values.
        shared: the inlined values that are stored.
        aliases: which output overwrites which input.
        effects: what must be computed though nobody reads it.
        forms: how values are written down.
    """
    if sum(map(has_buffer, order)) < LONG:
        return None
    return _Division(graph, order, shared, aliases, effects, forms).made()


class _Division:
    """
    Attributes:
        line: the values with buffers, in order.
        sources: what in memory a value is computed from by those that read it: itself, if it lies
            there; needs: what one of the line is computed from.
        shape: of each value a number that is equal where the computation from there on is alike.
        place: of each value of the line the number of its piece.
    """

    def __init__(self, graph: Graph, order: Sequence[Value], shared: Collection[Value],
                 aliases: Mapping[int, int], effects: Collection[Value], forms: Forms):
        self.graph, self.aliases, self.forms = graph, aliases, forms
        self.given = set(graph.inputs)
        late = {graph.outputs[number] for number in aliases}
        early = {value for number, value in enumerate(graph.outputs) if number not in aliases}
        self.scatters = {value for value in late if value.prim.kind == "scatter"}
        wanted = early | set(effects) | (late & set(shared))
        self.line = [value for value in order if value not in self.given and (
            has_buffer(value) and value not in self.scatters or value in shared or value in wanted)]
        self.order = order
        self.effects = set(effects)
        self.sources: dict[Value, frozenset[Value]] = {}
        self.needs: dict[Value, frozenset[Value]] = {}
        self.shape: dict[Value, int] = {}
        self.place: dict[Value, int] = {}
        self._known: dict[Hashable, int] = {}

    def made(self) -> list[Piece] | None:
        if any(operand in self.scatters for value in self.order for operand in value.inputs):
            return None  # what is written into an input's memory at the end is read before
        self._look_through()
        stretches = repeats([self.shape[value] for value in self.line], SHORTEST)
        cuts = [cut for stretch in stretches for cut in self._cuts(stretch)]
        if not cuts:
            return None
        self.place = {value: bisect.bisect(cuts, at) for at, value in enumerate(self.line)}
        self._move_up_last()
        self._keep_together()
        pieces = [Piece() for _ in range(len(cuts) + 1)]
        for value in self.line:
            pieces[self.place[value]].stored.append(value)
        self._place_outputs(pieces)
        for piece in pieces:
            piece.needs = self._needs_of(piece)
        return [piece for piece in pieces if piece.stored or piece.updates or piece.extra]

    def _needs_of(self, piece: Piece) -> list[Value]:
        outputs, inputs = self.graph.outputs, self.graph.inputs
        needs = {inputs[self.aliases[number]] for number in piece.updates}
        needs.update(*[self.needs[value] for value in piece.stored])
        needs.update(*(self.sources[outputs[number]] for number in piece.updates + piece.extra))
        return sorted(needs.difference(piece.stored), key=serial_of)

    # ------------------------------------------------------------------ what is computed from what
    def _look_through(self) -> None:
        stored, known, nothing = set(self.line), self._known, frozenset()
        seen: dict[Value, int] = {}  # how each value looks to those that read it
        for value in self.given:
            self.sources[value] = frozenset((value,))
            seen[value] = known.setdefault(("given", value.dtype, value.shape), len(known))
        for value in self.order:
            if value in self.given:
                continue
            inputs = value.inputs
            form = (self.forms.of(value), *[seen[operand] for operand in inputs])
            self.shape[value] = seen[value] = known.setdefault(form, len(known))
            read = self.sources[inputs[0]] if len(inputs) == 1 else nothing.union(
                *[self.sources[operand] for operand in inputs])
            if value in stored:
                self.needs[value], read = read, frozenset((value,))
                seen[value] = known.setdefault(("stored", value.dtype, value.shape), len(known))
            self.sources[value] = read

    # ------------------------------------------------------------------ where to cut
    def _cuts(self, stretch: Stretch) -> list[int]:
        """Where a stretch is cut: in each period before the product across which loops read least.
        """
        places = [at for at in range(stretch.start, stretch.start + stretch.period)
                  if self.line[at].prim.kind not in LOOPS]
        if not places:
            return []
        best = min(places, key=lambda at: (self._crossings(at + stretch.period, stretch.period),
                                           at))
        cuts = range(best, stretch.stop + 1, stretch.period)
        return [cut for cut in cuts if cut < len(self.line)
                and self.line[cut].prim.kind not in LOOPS]

    def _crossings(self, at: int, period: int) -> int:
        """How many values that are stored before `at` loops read right after it."""
        before = set(self.line[max(0, at - period):at])
        return len({source for value in self.line[at:at + period] if value.prim.kind in LOOPS
                    for source in self.needs[value] if source in before})

    # ------------------------------------------------------------------ what moves
    def _move_up_last(self) -> None:
        """What loops compute after the last product follows what it is computed from, at once."""
        last = max((at for at, value in enumerate(self.line) if value.prim.kind not in LOOPS
                    or value in self.effects), default=-1)
        for value in self.line[last + 1:]:
            before = [self.place[s] for s in self.needs[value] if s in self.place]
            if before:
                self.place[value] = max(before)

    def _keep_together(self) -> None:
        """Results of the same kernel are computed where the first of them is."""
        first: dict[Hashable, int] = {}
        for value in self.line:
            if value.prim.kind not in LOOPS:
                key = value.prim, value.inputs
                self.place[value] = first.setdefault(key, self.place[value])

    def _place_outputs(self, pieces: list[Piece]) -> None:
        """Put each update where it may be made, and copies of what is known at the end."""
        end = len(pieces) - 1
        readers: dict[Value, int] = {}  # the last piece that reads an input
        for value in self.line:
            for source in self.needs[value]:
                if source in self.given:
                    readers[source] = max(readers.get(source, 0), self.place[value])
        seen: set[Value] = set()
        for number, value in enumerate(self.graph.outputs):
            if number not in self.aliases:
                if value in seen or value not in self.place:
                    pieces[end].extra.append(number)
                    readers |= dict.fromkeys(self.sources[value] & self.given, end)
                seen.add(value)
        for number, at in self._settled(readers).items():
            pieces[at].updates.append(number)

    def _settled(self, readers: dict[Value, int]) -> dict[int, int]:
        """The piece of each update: not before one that still reads the input."""
        needs = {number: self.sources[self.graph.outputs[number]] for number in self.aliases}
        where = {number: max((self.place.get(source, 0) for source in sources), default=0)
                 for number, sources in needs.items()}
        moved = True
        while moved:
            moved = False
            for number, sources in needs.items():
                for source in sources:
                    if source in self.given and readers.get(source, -1) < where[number]:
                        readers[source] = where[number]
            for number, source in self.aliases.items():
                last = readers.get(self.graph.inputs[source], 0)
                if where[number] < last:
                    where[number], moved = last, True
        return where
