"""Plans of whole programs on disk, beside the kernels that they call.

Planning a training step takes some tenths of a second in every process, though it always gives the
same result. So a plan is stored under a hash of all that it follows from: the graph, the layouts of
its arguments, the machine, the number of threads, and the code that plans. What is stored says
which kernels run with which arguments, as plain data; what explains a program (its graph, what a
step stands for) is not, and whoever asks for it has the program planned again.

Nothing is stored of programs that contain something which another process could not find again: an
address in this process, an attribute that is not plain data. Random generators are named by the
order in which the graph mentions them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import marshal
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flambeau.compiler import llvm, program
from flambeau.compiler.expression import Buffer
from flambeau.compiler.horizontal import Batch
from flambeau.compiler.nest import Address, Float, Number, Pointer
from flambeau.compiler.program import Plan
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target
from flambeau.core import config
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Graph, Primitive, Value, sort
from flambeau.runtime import loader, object_cache
from flambeau.runtime.object_cache import PLAN

__all__ = ["keep", "planned", "usable"]

FORMAT = 1
PLANNERS = ("core", "ir", "ops", "compiler")  # the rooms whose code plans depend on
_PLAIN = {bool, int, float, complex, str, type(None)}  # what marshal tells apart


class _NotPlain(Exception):
    """Something that another process could not find again."""


def planned(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer],
            target: Target, threads: int, aliases: Mapping[int, int] | None = None,
            effects: Sequence[Value] = ()) -> Plan:
    """As `compiler.program.plan`, from the cache if it is there; `keep` puts it there."""
    def anew() -> Plan:
        return program.plan(graph, inputs, outputs, target, threads, aliases, effects)

    key = _key(graph, inputs, outputs, target, threads, aliases, effects)
    if key is None:
        return anew()
    found = _restored(key)
    if found is None:
        found = anew()
        found.key = key
    else:
        found.again = anew
    return found


def usable() -> bool:
    """Are plans kept?"""
    return bool(config.settings().plans and object_cache.default_cache().folder and _code())


# ---------------------------------------------------------------------- what a plan follows from
def _key(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer], target: Target,
         threads: int, aliases: Mapping[int, int] | None, effects: Sequence[Value]
         ) -> tuple[str, list] | None:
    """(what the plan is stored under, the random generators in the order in which the graph
    mentions them); None if it cannot be stored."""
    if not usable():
        return None
    spelling = _Spelling()
    try:
        written = (FORMAT, _code(), llvm.version(), llvm.PIPELINE_VERSION, repr(target), threads,
                   spelling.graph(graph, effects), spelling.plain(tuple(inputs)),
                   spelling.plain(tuple(outputs)), tuple(sorted((aliases or {}).items())))
    except _NotPlain:
        return None
    # version 2 writes equal values alike, whatever refers to them
    return hashlib.sha256(marshal.dumps(written, 2)).hexdigest(), spelling.generators


@functools.cache
def _code() -> str:
    """What tells one state of the planning code from another: the files' sizes and times. Empty
    where the package is not made of files."""
    root = pathlib.Path(__file__).parent.parent
    found = []
    for room in PLANNERS:
        for path in sorted((root / room).rglob("*.py")):
            state = path.stat()
            found.append(f"{path.relative_to(root)} {state.st_size} {state.st_mtime_ns}")
    return "\n".join(found)


class _Spelling:
    """Graphs, layouts and attributes as plain data.

    Attributes:
        generators: the random generators met so far.
    """

    def __init__(self) -> None:
        self.generators: list = []

    def graph(self, graph: Graph, effects: Sequence[Value]) -> tuple:
        """A graph, its values numbered in order."""
        at = {value: number for number, value in enumerate(graph.inputs)}
        lines = [(value.dtype.name, value.shape, value.number) for value in graph.inputs]
        for value in sort([*graph.outputs, *effects], graph.inputs):
            at[value] = len(at)
            lines.append((value.prim.name, tuple([at[each] for each in value.inputs]),
                          self.plain(value.attrs), value.shape, value.dtype.name, value.number))
        return (tuple(lines), tuple([at[value] for value in graph.outputs]),
                tuple([at[value] for value in effects]))

    def plain(self, item: Any) -> Any:
        """Attributes of values as plain data; what is no tuple begins with bytes, which none of
        them are.

        Raises:
            _NotPlain: they are something else.
        """
        kind = type(item)
        if kind in _PLAIN:
            return item
        if kind is tuple:
            return item if _PLAIN.issuperset(map(type, item)) else tuple(map(self.plain, item))
        if kind is DType or kind is Primitive:
            return kind.__name__.encode(), item.name
        if kind is list:
            return b"list", *map(self.plain, item)
        if dataclasses.is_dataclass(item) and kind is not type:
            return f"{kind.__module__}.{kind.__qualname__}".encode(), *[
                self.plain(getattr(item, field.name)) for field in dataclasses.fields(item)]
        if hasattr(item, "clone_state") and hasattr(item, "address"):
            return b"generator", self._generator(item)
        raise _NotPlain(kind.__name__)

    def _generator(self, generator: Any) -> int:
        for number, known in enumerate(self.generators):
            if known is generator:
                return number
        self.generators.append(generator)
        return len(self.generators) - 1


# ---------------------------------------------------------------------- plan -> bytes
def keep(plan: Plan) -> None:
    """Store a plan whose kernels are loaded, if `planned` says that it may be."""
    key, plan.key = plan.key, None
    if key is None:
        return
    digest, generators = key
    number = {module: at for at, module in enumerate(dict.fromkeys(s.module for s in plan.steps))}
    try:
        steps = [(step.name, number[step.module], step.nchunks, step.after,
                  [_written(slot, generators) for slot in step.slots]) for step in plan.steps]
    except _NotPlain:
        return
    modules = [(m.digest, m.key, dict(m.unique), m.parts) for m in loader.stored(number)]
    batches = [(b.first, b.last, b.order, b.parts) for b in plan.batches]
    data = marshal.dumps((list(number), modules, steps, plan.arena_bytes, plan.checked, plan.work,
                          batches))
    object_cache.default_cache().put(digest, data, PLAN)


def _written(slot: Any, generators: Sequence) -> Any:
    kind = type(slot)
    if kind is int:
        return slot
    if kind is Pointer:
        return "pointer", slot.kind, slot.number, slot.offset
    if kind is Float:
        return "float", slot.value
    if kind is Number:
        return "number", slot.number
    if kind is Address:
        for number, generator in enumerate(generators):
            if generator is slot.of:
                return "generator", number
    raise _NotPlain(kind.__name__)


def _restored(key: tuple[str, list]) -> Plan | None:
    """A stored plan, its kernels loaded."""
    digest, generators = key
    cache = object_cache.default_cache()
    data = cache.get(digest, PLAN)
    if data is None:
        return None
    names, modules, steps, arena_bytes, checked, work, batches = marshal.loads(data)
    if not loader.load_stored([loader.Stored(*module) for module in modules]):
        cache.discard(digest, PLAN)  # a kernel has gone: the plan would not be complete
        return None
    made = [Step(name, _gone, [_read(slot, generators) for slot in slots], nchunks, after,
                 loader.address_in(names[module], name), module=names[module])
            for name, module, nchunks, after, slots in steps]
    return Plan(made, arena_bytes, checked, work, batches=[Batch(*batch) for batch in batches])


def _gone() -> str:
    raise AssertionError("the kernels of a stored plan are loaded without their texts")


def _read(slot: Any, generators: Sequence) -> Any:
    if slot.__class__ is int:
        return slot
    kind, *rest = slot
    if kind == "generator":
        generator = generators[rest[0]]
        return Address(generator.address, generator)
    return {"pointer": Pointer, "float": Float, "number": Number}[kind](*rest)
