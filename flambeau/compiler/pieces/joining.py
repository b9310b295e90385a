"""Planning a program piece by piece, and the pieces' plans in one line.

A piece is a graph of its own: what it needs are inputs, what others need of it are outputs. Pieces
whose graphs are written down alike, over buffers of the same layouts, have the same kernel calls
but for the memory that these name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from flambeau.compiler.expression import Buffer, Expr
from flambeau.compiler.forms import Forms
from flambeau.compiler.nest import Number, Phase, Pointer, rewrite
from flambeau.compiler.pieces.division import Piece
from flambeau.compiler.schedule import Choices
from flambeau.compiler.step import Step
from flambeau.compiler.sweeps import Nest
from flambeau.ir.graph import Graph, Value, sort

__all__ = ["PiecePlan", "joined", "source_of"]

Name = tuple[str, int]


@dataclasses.dataclass
class PiecePlan:
    """Kernel calls with their amounts of work, before memory is placed.

    Attributes:
        steps: in order; their pointers name arguments and temporaries by number.
        temps: the temporaries.
        shared: which of them takes over the memory of which.
        values: what buffers hold.
    """

    steps: list[tuple[Step, int]]
    temps: list[Buffer]
    shared: Mapping[int, int]
    values: dict[Name, Any]


PlanPiece = Callable[..., PiecePlan]


def joined(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer],
           aliases: Mapping[int, int], effects: Sequence[Value], choices: Choices,
           pieces: Sequence[Piece], plan_piece: PlanPiece, forms: Forms) -> PiecePlan:
    """The plan of a program that consists of `pieces`.

    Args:
        graph, inputs, outputs, aliases, effects: as of `schedule`.
        choices: what has been decided for the whole program.
        plan_piece: plans a graph; its arguments are those of `schedule`.
        forms: how values are written down.
    """
    return _Joined(graph, inputs, outputs, aliases, effects, choices, plan_piece, forms).run(pieces)


class _Part:
    """One piece as a graph of its own.

    Attributes:
        graph: the piece; `order`: its values.
        given: the buffers of its inputs in the whole program, or the numbers of number arguments.
        made: those of its outputs.
        aliases: which output overwrites which input.
        effects: what must be computed in any case.
    """

    def __init__(self, graph: Graph, given: list[Buffer | int], made: list[Buffer],
                 aliases: dict[int, int], effects: list[Value]):
        self.graph, self.given, self.made = graph, given, made
        self.aliases, self.effects = aliases, effects
        self.order = sort([*graph.outputs, *effects], graph.inputs)

    def key(self, choices: Choices, forms: Forms) -> Hashable:
        """What the plan depends on."""
        at = {value: number for number, value in enumerate(self.graph.inputs)}
        lines: list[Hashable] = [(value.dtype, None if isinstance(buffer, int) else _layout(buffer))
                                 for value, buffer in zip(at, self.given, strict=True)]
        for value in self.order:
            at[value] = len(at)
            lines.append((forms.of(value), *[at[operand] for operand in value.inputs]))
        chosen = tuple([tuple([at[value] for value in at if value in found])
                        for found in (choices.channels_last, choices.shared)])
        orders = tuple([(at[value], choices.reordered[value]) for value in self.order
                        if value in choices.reordered])
        late = {self.graph.outputs[number] for number in self.aliases}
        serials = {-1 - value.serial for value in late}
        waits = tuple([(at[v], choices.readers.get(v, set()) <= serials) for v in late])
        return (tuple(lines), chosen, orders, tuple([(at[v], _layout(b)) for v, b in
                                     zip(self.graph.outputs, self.made, strict=True)]),
                tuple(self.aliases.items()), tuple([at[v] for v in self.effects]),
                tuple(sorted(waits)))

    def buffers(self) -> tuple[list[Buffer | None], list[Buffer]]:
        """Its arguments, numbered by themselves."""
        return ([None if isinstance(b, int) else dataclasses.replace(b, kind="in", number=n)
                 for n, b in enumerate(self.given)],
                [dataclasses.replace(b, kind="out", number=n) for n, b in enumerate(self.made)])


def _layout(buffer: Buffer) -> Hashable:
    return buffer.dtype, buffer.shape, buffer.strides, buffer.offset


class _Joined:
    def __init__(self, graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer],
                 aliases: Mapping[int, int], effects: Sequence[Value], choices: Choices,
                 plan_piece: PlanPiece, forms: Forms):
        self.graph, self.outputs, self.aliases, self.forms = graph, outputs, aliases, forms
        self.effects, self.choices, self.plan_piece = effects, choices, plan_piece
        self.where: dict[Value, Buffer | int] = {
            value: position if buffer is None else buffer
            for position, (value, buffer) in enumerate(zip(graph.inputs, inputs, strict=True))}
        self.plan = PiecePlan([], [], {}, {})
        self.groups = 0
        self.known: dict[Hashable, tuple[PiecePlan, list[Value]]] = {}

    def run(self, pieces: Sequence[Piece]) -> PiecePlan:
        for part in self._parts(pieces):
            key = part.key(self.choices, self.forms)
            if key not in self.known:
                inputs, outputs = part.buffers()
                self.known[key] = self.plan_piece(
                    part.graph, inputs, outputs, part.aliases, part.effects), part.order
            self._add(part, *self.known[key])
        self.plan.values |= {(buffer.kind, buffer.number): value
                             for value, buffer in self.where.items()
                             if isinstance(buffer, Buffer)}
        self.plan.values |= {(b.kind, b.number): v for v, b in
                             zip(self.graph.outputs, self.outputs, strict=True)}
        return self.plan

    # ------------------------------------------------------------------ pieces -> graphs
    def _parts(self, pieces: Sequence[Piece]) -> list[_Part]:
        abroad = {value for piece in pieces for value in piece.needs}  # what others read
        first = {value: number for number, value in reversed(list(enumerate(self.graph.outputs)))
                 if number not in self.aliases}
        return [self._part(piece, abroad, first) for piece in pieces]

    def _part(self, piece: Piece, abroad: set[Value], first: Mapping[Value, int]) -> _Part:
        values: list[Value] = []
        made: list[Buffer] = []
        for value in piece.stored:
            if value in first or value in abroad:
                if value not in self.where:
                    self.where[value] = self.outputs[first[value]] if value in first \
                        else self._temporary(value)
                values.append(value)
                made.append(self.where[value])
        for number in piece.extra:
            values.append(self.graph.outputs[number])
            made.append(self.outputs[number])
        place = {value: at for at, value in enumerate(piece.needs)}
        aliases: dict[int, int] = {}
        for number in piece.updates:
            aliases[len(values)] = place[self.graph.inputs[self.aliases[number]]]
            values.append(self.graph.outputs[number])
            made.append(self.outputs[number])
        own = set(piece.stored)
        return _Part(Graph(piece.needs, values), [self.where[value] for value in piece.needs], made,
                     aliases, [value for value in self.effects if value in own])

    def _temporary(self, value: Value) -> Buffer:
        self.plan.temps.append(Buffer("temp", len(self.plan.temps), value.dtype, value.shape,
                                      self.choices.strides(value)))
        return self.plan.temps[-1]

    # ------------------------------------------------------------------ plans -> one plan
    def _add(self, part: _Part, plan: PiecePlan, order: Sequence[Value]) -> None:
        """Append `plan`, made for a piece that is written down like `part`, with values `order`."""
        base = len(self.plan.temps)
        self.plan.temps += [dataclasses.replace(b, number=base + b.number) for b in plan.temps]
        self.plan.shared |= {base + number: base + other for number, other in plan.shared.items()}
        names: dict[Name, Name] = {("temp", n): ("temp", base + n) for n in range(len(plan.temps))}
        names |= {("in", n): (b.kind, b.number) for n, b in enumerate(part.given)
                  if isinstance(b, Buffer)}
        names |= {("out", n): (b.kind, b.number) for n, b in enumerate(part.made)}
        alike = dict(zip(order, part.order, strict=True))
        for name, value in plan.values.items():
            if name[0] == "temp" and value in alike:  # not what scheduling itself has made
                self.plan.values[names[name]] = alike[value]
        for step, work in plan.steps:
            slots = [self._renamed(slot, names, part.given) for slot in step.slots]
            group = step.group and step.group + self.groups
            self.plan.steps.append((dataclasses.replace(
                step, slots=slots, group=group, names=names), work))
        self.groups += max((step.group for step, _ in plan.steps), default=0)

    @staticmethod
    def _renamed(slot: Any, names: Mapping[Name, Name], given: Sequence[Buffer | int]) -> Any:
        if isinstance(slot, Pointer) and (slot.kind, slot.number) in names and slot.kind != "work":
            return Pointer(*names[slot.kind, slot.number], slot.offset)
        return Number(given[slot.number]) if isinstance(slot, Number) else slot


# ---------------------------------------------------------------------- for those who explain
def source_of(step: Step) -> Any:
    """The nest or library step that `step` does, with the names of buffers in the program."""
    if step.names is None or step.source is None:
        return step.source
    names, source = step.names, step.source

    def own(buffer: Buffer | None) -> Buffer | None:
        if buffer is None or (buffer.kind, buffer.number) not in names:
            return buffer
        kind, number = names[buffer.kind, buffer.number]
        return dataclasses.replace(buffer, kind=kind, number=number)

    def load(expr: Expr) -> Expr:
        return Expr("load", expr.dtype, (), (own(expr.data[0]), *expr.data[1:]))

    def phase(each: Phase) -> Phase:
        return dataclasses.replace(rewrite(each, lambda index: index, load),
                                   target=own(each.target))

    if isinstance(source, Nest):
        return dataclasses.replace(source, sweeps=[[phase(each) for each in sweep]
                                                   for sweep in source.sweeps])
    return dataclasses.replace(
        source, sources=tuple(map(own, source.sources)), target=own(source.target),
        results=tuple(map(own, source.results)), epilogue=tuple(map(phase, source.epilogue)))
