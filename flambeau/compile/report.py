"""What a program consists of, kernel by kernel: the facts that `explain` and `graph_html` show."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from flambeau.compile.interface import Interface, room_of
from flambeau.compile.listing import listed, shape_text
from flambeau.compile.origins import Origin, Origins
from flambeau.compile.timing import Memory, time_steps
from flambeau.compiler.expression import Buffer
from flambeau.compiler.nest import Phase
from flambeau.compiler.pieces.joining import source_of
from flambeau.compiler.program import Plan
from flambeau.compiler.sweeps import Nest, extent_of
from flambeau.ir.graph import Value
from flambeau.tensor.meta import Meta

__all__ = ["Kernel", "Part", "Report", "backward_reports", "replay_report", "segment_report"]

STAGES = ("forward", "backward", "optimizer")

_FAMILIES = {"dot": "product", "conv": "convolution",
             "conv_grad_input": "convolution: gradient of the input",
             "conv_grad_weight": "convolution: gradient of the weight",
             "argsort": "sort", "random": "random numbers", "pool_max": "max pooling",
             "pool_mean": "mean pooling", "pool_max_back": "max pooling: gradient",
             "pool_mean_back": "mean pooling: gradient", "pool_argmax": "max pooling: places",
             "resize_back": "resize: gradient"}


@dataclasses.dataclass
class Kernel:
    """One nest or library call of a program, which may be several native kernels.

    Attributes:
        family: what it is; `title`: the same with its shapes.
        operations: those of the user that it does or takes part in.
        module, stage: where its result belongs to; `lines`: the user's lines.
        read, written: bytes that it takes from memory and stores there, each counted once.
        seconds: what it takes, or None if that was not measured.
        natives: number of native kernels; `listing`: what it computes, as loops.
        takes, makes: memories by name.
    """

    number: int
    family: str
    title: str
    operations: list[str]
    module: str
    stage: str
    lines: list[str]
    read: int
    written: int
    natives: int
    listing: list[str]
    takes: set[tuple[str, int]]
    makes: set[tuple[str, int]]
    first: int
    seconds: float | None = None

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


@dataclasses.dataclass
class Part:
    """Memory that one value takes."""

    nbytes: int
    module: str
    line: str
    what: str


@dataclasses.dataclass
class Report:
    """A program, explained.

    Attributes:
        title: which of the programs it is.
        signature: the layouts of its arguments.
        sizes: bytes of "arguments", "results", "kept for the backward" and "temporaries".
        fullest: number of the kernel during which most of the temporaries are alive.
        parts: those.
        kept: what is kept for a backward.
    """

    title: str
    signature: str
    kernels: list[Kernel]
    sizes: dict[str, int]
    fullest: int
    parts: list[Part]
    kept: list[Part]

    @property
    def seconds(self) -> float | None:
        """The sum over all kernels."""
        times = [k.seconds for k in self.kernels if k.seconds is not None]
        return sum(times) if times else None


class _Reader:
    """Finds out about the steps of one plan."""

    def __init__(self, plan: Plan, origins: Origins | None):
        self.plan = plan = plan.whole()
        self.origins = origins
        self.sources = [source_of(step) for step in plan.steps]
        made = {name for source in self.sources if source is not None
                for name in traffic(source)[1]}
        self.stored = {value for name, value in plan.values.items()
                       if name in made or name[0] == "in"}

    def kernels(self) -> list[Kernel]:
        groups: list[list[int]] = []
        for at, step in enumerate(self.plan.steps):
            before = self.plan.steps[at - 1]
            if at and step.source is not None and (
                    step.source is before.source and step.names is before.names):
                groups[-1].append(at)
            else:
                groups.append([at])
        return [self._kernel(number, group) for number, group in enumerate(groups, 1)]

    def _kernel(self, number: int, group: list[int]) -> Kernel:
        source = self.sources[group[0]]
        if source is None:
            name = self.plan.steps[group[0]].name.rsplit("_", 1)[0]
            return Kernel(number, name, name, [], "", "forward", [], 0, 0, len(group), [], set(),
                          set(), group[0])
        targets = _targets(source)
        origins = [o for target in targets for o in self._origins(target)]
        own = [o for target in targets if (o := self._own(target)) is not None]
        main = max(own or origins, key=lambda o: STAGES.index(o.stage), default=None)
        read, written = traffic(source)
        names = dict.fromkeys(_spoken(o) for o in origins)
        lines = dict.fromkeys(line for o in [*own, *origins] if (line := o.line()))
        family, title = _named(source)
        return Kernel(
            number, family, title, list(names), main.module if main else "",
            main.stage if main else "forward", list(lines), sum(read.values()),
            sum(written.values()), len(group), listed(source), set(read), set(written), group[0])

    def _own(self, target: Buffer) -> Origin | None:
        value = self.plan.values.get((target.kind, target.number))
        return None if value is None else self.origin(value)

    def _origins(self, target: Buffer) -> list[Origin]:
        """Of the operations whose values are computed on the way to a buffer, in their order."""
        value = self.plan.values.get((target.kind, target.number))
        if value is None:
            return []
        seen, stack = {value}, [value]
        while stack:
            for operand in stack.pop().inputs:
                if operand not in seen and operand not in self.stored \
                        and operand.prim.kind != "source":
                    seen.add(operand)
                    stack.append(operand)
        found = [(v.serial, o) for v in seen if (o := self.origin(v)) is not None and (
            v is value or v.prim.kind not in ("source", "movement"))]
        return [o for _, o in sorted(found, key=lambda pair: pair[0])]

    def origin(self, value: Value) -> Origin | None:
        return None if self.origins is None else self.origins.of(value)

    def parts(self) -> tuple[int, list[Part]]:
        """(the step during which most of the arena is used, what it is used for)."""
        ends: dict[int, int] = {}
        for _, _, _, nbytes, first, last in self.plan.places:
            ends[first] = ends.get(first, 0) + nbytes
            ends[last + 1] = ends.get(last + 1, 0) - nbytes
        alive, most, fullest = 0, 0, 0
        for at in sorted(ends):
            alive += ends[at]
            if alive > most:
                most, fullest = alive, at
        found = []
        for kind, number, _, nbytes, first, last in self.plan.places:
            if first <= fullest <= last:
                found.append(self._part(kind, number, nbytes))
        return fullest, sorted(found, key=lambda part: -part.nbytes)

    def _part(self, kind: str, number: int, nbytes: int) -> Part:
        if kind == "work":
            return Part(nbytes, "", "", "workspace of kernels (packed operands)")
        value = self.plan.values.get((kind, number))
        return self.part_of(value, nbytes, () if value is None else value.shape)

    def part_of(self, value: Value | None, nbytes: int, shape: Sequence[int]) -> Part:
        """Who some memory is needed for."""
        origin = None if value is None else self.origin(value)
        if origin is None:
            return Part(nbytes, "", "", "intermediate results")
        return Part(nbytes, origin.module, origin.line(),
                    f"{_spoken(origin)} {shape_text(shape)}")


def _spoken(origin: Origin) -> str:
    name = origin.name.lstrip("_")
    return f"gradient of {name}" if origin.stage == "backward" else name


# ---------------------------------------------------------------------- one step
def _targets(source: Any) -> list[Buffer]:
    if isinstance(source, Nest):
        return list(dict.fromkeys(phase.target for phase in source.phases()))
    made = [source.target, *(r for r in source.results if r is not None)]
    return list(dict.fromkeys([*made, *(phase.target for phase in source.epilogue)]))


def _named(source: Any) -> tuple[str, str]:
    """(family, title) of a step, in words."""
    if isinstance(source, Nest):
        return _named_nest(list(source.phases()))
    kind = source.attrs[0].routine if source.kind == "factor" else source.kind
    family = _FAMILIES.get(kind, kind.replace("_", " "))
    shapes = " x ".join(shape_text(b.shape) for b in source.sources[:2])
    title = f"{family} {shapes} -> {shape_text(source.target.shape)}"
    if source.epilogue:
        title += ", finished in place"
    return family, title


def _named_nest(phases: Sequence[Phase]) -> tuple[str, str]:
    kinds = []
    for phase in phases:
        kind = "elementwise"
        if phase.scans:
            kind = "running " + phase.reduce.removeprefix("scan_")
        elif phase.reduce is not None:
            kind = phase.reduce
        elif phase.mode != "set" or phase.where.dynamic:
            kind = "scatter"
        kinds.append(kind)
    kinds = list(dict.fromkeys(kinds))
    main = max(phases, key=lambda phase: extent_of(phase.loops()))
    target = shape_text(main.target.shape)
    count = f"{extent_of(main.loops())} elements -> " if main.reduce else ""
    more = f" and {len(phases) - 1} more results" if len(phases) > 2 else ""
    return " and ".join(kinds[:3]), f"{', '.join(kinds[:4])} {count}{target}{more}"


def traffic(source: Any) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """Bytes that a step reads and writes, by memory. What it has made itself it need not read."""
    read: dict[tuple[str, int], int] = {}
    written: dict[tuple[str, int], int] = {}

    def note(table: dict, buffer: Buffer, count: int) -> None:
        if buffer.per_thread or buffer.kind not in ("in", "out", "temp"):
            return
        name = buffer.kind, buffer.number
        whole = buffer.dtype.itemsize * extent_of_shape(buffer.shape)
        table[name] = max(table.get(name, 0), min(whole, count * buffer.dtype.itemsize))

    phases: Iterable[Phase] = source.phases() if isinstance(source, Nest) else source.epilogue
    if not isinstance(source, Nest):
        for buffer in source.sources:
            note(read, buffer, extent_of_shape(buffer.shape))
        for buffer in (source.target, *source.results):
            if buffer is not None and not (source.private and buffer is source.target):
                note(written, buffer, extent_of_shape(buffer.shape))
    for phase in phases:
        for load in phase.loads():
            buffer, index = load.data[0], load.data[1]
            if (buffer.kind, buffer.number) not in written:
                note(read, buffer, _reached(phase, index))
        note(written, phase.target, _reached(phase, phase.where))
    return read, written


def _reached(phase: Phase, index: Any) -> int:
    loops = phase.loops()
    if index.dynamic:
        return extent_of(loops)
    return extent_of([loop for loop in loops if index.terms.get(loop.var)])


def extent_of_shape(shape: Sequence[int]) -> int:
    """Number of elements."""
    count = 1
    for size in shape:
        count *= size
    return count


# ---------------------------------------------------------------------- programs
def replay_report(replay: Any, title: str, times: bool) -> Report:
    """Of a captured program."""
    reader = _Reader(replay.plan, replay.origins)
    kernels = reader.kernels()
    inputs = replay.interface.given
    arguments = [m for m, (_, spot, _) in zip(inputs, replay.sources, strict=True)
                 if spot.__class__ is int]
    if times and replay.plan.steps:
        memory = Memory()
        changed = set(replay.updated)
        given: list[int | float] = [
            tensor._ptr if spot is None and i not in changed else
            memory.copy(tensor._ptr, room_of(meta)) if spot is None else memory.invented(meta)
            for i, (tensor, spot, meta) in enumerate(replay.sources)]
        held = [tensor for tensor, spot, _ in replay.sources if spot is None]
        given += [0.5] * replay.count
        given += [memory.block(room_of(m)) for m in replay.interface.results]
        given += [given[i] for i in replay.updated]
        _measure(kernels, reader.plan, replay.program, given, memory)
        del held
    fullest, parts = reader.parts()
    first, kept = replay.first_kept, replay.kept
    sizes = {"arguments and state": sum(room_of(m) for m in inputs),
             "results": sum(m.nbytes for m in replay.metas[:first]),
             "kept for the backward": sum(m.nbytes for m in replay.metas[first:]),
             "temporaries": replay.plan.arena_bytes}
    saved = [reader.part_of(value, meta.nbytes, meta.shape)
             for value, meta in zip(kept, replay.metas[first:], strict=True)]
    return Report(title, ", ".join(map(_layout, arguments)), kernels, sizes,
                  _at(kernels, fullest), parts, sorted(saved, key=lambda part: -part.nbytes))


def backward_reports(replay: Any, title: str, times: bool) -> list[Report]:
    """Of the programs that give the gradients later."""
    backward = replay.backward
    if backward is None:
        return []
    numbers = [float] * len(backward.numbers)
    return [_plain_report(program.plan, program.native, backward.origins, program.interface,
                          numbers, title, times) for program in backward.programs.values()]


def segment_report(program: Any, title: str, times: bool) -> Report:
    """Of a captured part."""
    return _plain_report(program.plan, program.program, program.origins, program.interface,
                         program.number_kinds, title, times)


def _plain_report(plan: Plan, native: Any, origins: Origins | None, interface: Interface,
                  numbers: Sequence[type], title: str, times: bool) -> Report:
    given, made = interface.given, interface.made
    reader = _Reader(plan, origins)
    kernels = reader.kernels()
    if times and plan.steps:
        memory = Memory()
        arguments: list[int | float] = [memory.invented(meta) for meta in given]
        arguments += [1 if kind is int else 0.5 for kind in numbers]
        arguments += [memory.block(room_of(meta)) for meta in made]
        _measure(kernels, reader.plan, native, arguments, memory)
    fullest, parts = reader.parts()
    sizes = {"arguments and state": sum(room_of(m) for m in given),
             "results": sum(m.nbytes for m in made), "temporaries": plan.arena_bytes}
    return Report(title, "", kernels, sizes, _at(kernels, fullest), parts, [])


def _measure(kernels: Sequence[Kernel], plan: Plan, program: Any, arguments: list,
             memory: Memory) -> None:
    """Fill in the times of the kernels."""
    if plan.arena_bytes:
        arguments.append(memory.block(plan.arena_bytes))
    clones = {}
    for step in plan.steps:
        if getattr(step.source, "kind", None) == "random":
            generator = step.source.attrs[4]
            clones[generator.address] = generator.clone_state()
    exchanged = {address: clone.address for address, clone in clones.items()}
    taken = time_steps(program, arguments, exchanged)
    for kernel in kernels:
        kernel.seconds = sum(taken[kernel.first:kernel.first + kernel.natives])


def _at(kernels: Sequence[Kernel], step: int) -> int:
    return next((k.number for k in kernels if k.first <= step < k.first + k.natives), 1)


def _layout(meta: Meta) -> str:
    return f"{meta.dtype.name}{shape_text(meta.shape)}"


