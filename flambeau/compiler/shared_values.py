"""Which inlined values of a graph are stored after all.

Scheduling computes elementwise values wherever they are read. That is right as long as it is
cheaper than to store them once: they must be cheap to compute, their operands few, and whoever
needs them in memory anyway (a product) should leave them to the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from flambeau.compiler.narrow import narrow_images, narrow_operands
from flambeau.compiler.ranges import is_index_arithmetic
from flambeau.core.symbolic import choice
from flambeau.ir.graph import Value, serial_of

__all__ = ["LARGE", "LOOPS", "has_buffer", "shared_values"]

RECOMPUTE_LIMIT = 30  # cycles per element above which a value with several readers is stored
REPEAT_LIMIT = 8  # the same of what would be computed anew in every row
LARGE = 4096  # elements below which no pass over them is worth a kernel
MOST_KERNELS = 4  # that are told apart of those that read a value
LARGEST = 128  # values (at different indices) that one expression may be made of

MOVED = ("movement", "spread")
INLINED = frozenset({"elementwise", *MOVED, "source"})
LOOPS = INLINED | {"reduce", "scan", "cat", "scatter", "lookup", "fold"}  # may share a kernel


def has_buffer(value: Value) -> bool:
    """Is this a value that has a buffer of its own in any case?"""
    if value.prim.name == "in_memory":
        return not has_buffer(value.inputs[0])
    if value.prim.kind == "lookup":
        return not is_index_arithmetic(value)
    return value.prim.kind not in INLINED or value.prim.name == "boundary"


def shared_values(order: Sequence[Value], outputs: Sequence[Value],
                  channels_last: Collection[Value]) -> tuple[set[Value], dict[Value, set[int]]]:
    """(inlined values to be stored, for each value the numbers of the stored ones made from it).

    Args:
        order: all values of the graph, operands first.
        outputs: its results.
        channels_last: images that lie in memory pixel by pixel.
    """
    return _Choice(order, outputs, channels_last).made()


class _Choice:
    """
    Attributes:
        inlined: what is computed where it is read, unless it is chosen.
        stored: what has been chosen so far.
        readers: for each value, the stored values that are computed from it.
    """

    def __init__(self, order: Sequence[Value], outputs: Sequence[Value],
                 channels_last: Collection[Value]):
        self.order = order
        self.outputs = outputs
        self.last = {value.shape for value in channels_last}
        self.inlined = {value for value in order if value.inputs and not has_buffer(value)}
        self.stored: set[Value] = set()
        self.readers: dict[Value, set[int]] = {}

    def made(self) -> tuple[set[Value], dict[Value, set[int]]]:
        stage = _stages(self.order)
        self.stored = self._wide_among(self.inlined, self.order, stage)
        if self.stored:  # who reads by way of what is stored does not count any more
            self.stored = self._wide_among(self.stored, self._around(self.stored), stage)
        self._cut_large()
        self._find_dear(self._costs())
        return self.stored, self.readers

    def _around(self, chosen: Collection[Value]) -> list[Value]:
        """What is computed from the chosen values, and they from, as far as the next stored ones;
        in order."""
        found, pending = set(chosen), list(chosen)
        while pending:  # upwards
            for operand in pending.pop().inputs:
                if operand not in found:
                    found.add(operand)
                    if operand in self.inlined:
                        pending.append(operand)
        seen = set(chosen)  # by those that come after
        for value in self.order:
            if not seen.isdisjoint(value.inputs):
                found.add(value)
                if value in self.inlined:
                    seen.add(value)
        return [value for value in self.order if value in found]

    def _kernels(self, order: Sequence[Value], stage: Mapping[Value, int]
                 ) -> dict[Value, frozenset[int]]:
        """For each inlined value, of what is computed from it without going through memory, in
        which stages it is computed; no more than `MOST_KERNELS`."""
        found: dict[Value, frozenset[int]] = {output: frozenset((-1,)) for output in self.outputs}
        alone: dict[int, frozenset[int]] = {}
        nothing: frozenset[int] = frozenset()
        for value in reversed(order):
            if value in self.inlined and value not in self.stored:
                own = found.get(value, nothing)
            else:
                own = alone.setdefault(stage[value], frozenset((stage[value],)))
            for operand in value.inputs:
                if operand in self.inlined:
                    known = found.get(operand)
                    if known is None:
                        found[operand] = own
                    elif known is not own and len(known) < MOST_KERNELS and not own <= known:
                        found[operand] = own | known
        return found

    def _wide_among(self, candidates: Collection[Value], order: Sequence[Value],
                    stage: Mapping[Value, int]) -> set[Value]:
        """The candidates that take more memory traffic to compute again than to store: a residual
        stream would else be summed up from its beginning in every layer."""
        kernels = self._kernels(order, stage)
        wide: set[Value] = set()
        base: dict[Value, Value] = {}  # of values that are moved
        sources: dict[Value, set[Value]] = {}  # what is read from memory to compute a value
        for value in order:
            kind = value.prim.kind
            if value in self.inlined and kind in MOVED:
                base[value] = base.get(value.inputs[0], value.inputs[0])
            if value not in self.inlined or kind != "elementwise":
                continue
            inside: set[Value] = set()
            for operand in value.inputs:
                operand = base.get(operand, operand)
                if operand in sources:
                    inside |= sources[operand]
                else:
                    inside.add(operand)
            readers = len(kernels.get(value, ()))
            if len(inside) > 1 < readers and value in candidates and _wide(value, inside, readers):
                wide.add(value)
            else:
                sources[value] = inside
        return wide

    def _cut_large(self) -> None:
        """Cut expressions lest they outgrow registers and recursion, or double with every value
        that is read in two places. Small graphs cannot get there."""
        if len(self.order) <= LARGEST // 5:
            return
        most: dict[Value, int] = {}  # how many parts an expression has at most
        for value in self.order:
            if self._is_inner(value):
                count = 1 + sum([most.get(operand, 1) for operand in value.inputs])
                if count > LARGEST:
                    count = len(self._parts(value))
                    if count > LARGEST:
                        self.stored.add(value)
                        continue
                most[value] = count

    def _is_inner(self, value: Value) -> bool:
        """Is it computed within the expressions of those that read it?"""
        return value in self.inlined and value not in self.stored and (
            value.prim.kind == "elementwise" or value.prim.kind in MOVED)

    def _parts(self, root: Value) -> set[tuple[Value, int]]:
        """What the expression of a value is made of: (value, which way its index has come)."""
        region, pending = {root}, [root]
        while pending:
            for operand in pending.pop().inputs:
                if operand not in region and self._is_inner(operand):
                    region.add(operand)
                    pending.append(operand)
        parts: dict[Value, set[tuple[Value, int]]] = {}
        for value in sorted(region, key=serial_of):
            own, below = {(value, 0)}, [parts.get(o, {(o, 0)}) for o in value.inputs]
            if value.prim.kind == "elementwise":
                own.update(*below)
            else:
                step = value.prim.name, value.attrs
                own |= {(part, hash((way, step))) for part, way in below[0]}
            parts[value] = own
        return parts[root]

    def _costs(self) -> dict[Value, int]:
        """Cycles that an element of each value takes to compute from what is stored."""
        cost: dict[Value, int] = {}
        for value in self.order:
            kind = value.prim.kind
            if kind == "elementwise":
                cost[value] = value.prim.cost + sum([
                    cost.get(v, 0) for v in value.inputs if v not in self.stored])
            elif kind in MOVED:
                cost[value] = cost.get(value.inputs[0], 0)
                if value.prim.name == "expand" and cost[value] >= REPEAT_LIMIT:
                    repeated = _repeated_along_lanes(value, self.last)
                    if repeated is not None and cost.get(repeated, 0) >= REPEAT_LIMIT:
                        self.stored.add(repeated)
                        cost[value] = 0
        return cost

    def _find_dear(self, cost: dict[Value, int]) -> None:
        """What several buffers are computed from and is dear to compute, or stored anyway for one
        of its readers: the others, which may come first, are to find it."""
        readers, operands = self.readers, self._operands()
        for output in self.outputs:
            readers.setdefault(output, set()).add(-1 - output.serial)
        for value in reversed(self.order):
            own = readers.get(value, ())
            stored = value not in self.inlined
            if not stored and len(own) > 1 and (cost.get(value, 0) > RECOMPUTE_LIMIT
                                                or value in operands):
                self.stored.add(value)
            if stored or value in self.stored:
                own = (value.serial,)
            for operand in value.inputs:
                known = readers.get(operand)
                if known is None:
                    readers[operand] = set(own)
                else:
                    known.update(own)

    def _operands(self) -> set[Value]:
        """Elementwise values that products and convolutions need in memory."""
        found = set()
        for value in self.order:
            kind = value.prim.kind
            if kind == "dot" and not narrow_operands(value) or (
                    kind == "conv" and not narrow_images(value)):
                for operand in value.inputs:
                    while operand.prim.kind == "movement":
                        operand = operand.inputs[0]
                    if operand.prim.kind == "elementwise":
                        found.add(operand)
        return found


def _stages(order: Sequence[Value]) -> dict[Value, int]:
    """How many kernels of products and the like each value comes after: what loops compute between
    two of them is likely to run as one kernel, which reads an operand once."""
    stage: dict[Value, int] = {}
    for value in order:
        last = 0
        for operand in value.inputs:
            if stage[operand] > last:
                last = stage[operand]
        stage[value] = last + (value.prim.kind not in LOOPS)
    return stage


@choice
def _wide(value: Value, read: Collection[Value], kernels: int) -> bool:
    """Do this many kernels read less if `value` is stored than if each computes it from `read`?"""
    if not value.numel:
        return False
    traffic = sum(min(1.0, source.numel / value.numel) for source in read)
    return kernels * traffic >= traffic + 1 + kernels


@choice
def _repeated_along_lanes(value: Value, channels_last: set[tuple[int, ...]]) -> Value | None:
    """What an expansion repeats along outer dimensions many times over, its elements being
    neighbours in each: lanes would compute it again in every row. `channels_last`: shapes of such
    images."""
    if value.numel < LARGE:
        return None
    (base,) = value.inputs
    inner = base.shape[-1] if base.shape else 1
    if value.shape in channels_last and base.ndim >= 3:
        inner = max(inner, base.shape[-3])
    while base.prim.name in ("reshape", "permute", "expand"):
        (base,) = base.inputs
    few = base.numel > 1 and 16 * base.numel <= value.numel
    return base if few and inner > 1 and base.prim.kind == "elementwise" else None
