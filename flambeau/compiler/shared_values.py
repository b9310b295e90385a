"""Which inlined values of a graph are stored after all.

Scheduling computes elementwise values wherever they are read. That is right as long as it is
cheaper than to store them once: they must be cheap to compute, their operands few, and whoever
needs them in memory anyway (a product) should leave them to the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from flambeau.compiler.narrow import narrow_images, narrow_operands
from flambeau.core.symbolic import choice
from flambeau.ir.graph import Value

__all__ = ["LARGE", "LOOPS", "has_buffer", "shared_values"]

RECOMPUTE_LIMIT = 30  # cycles per element above which a value with several readers is stored
REPEAT_LIMIT = 8  # the same of what would be computed anew in every row
LARGE = 4096  # elements below which no pass over them is worth a kernel
MOST_KERNELS = 4  # that are told apart of those that read a value
LARGEST = 128  # values (at different indices) that one expression may be made of

INLINED = frozenset({"elementwise", "movement", "spread", "source"})
LOOPS = INLINED | {"reduce", "scan", "cat", "scatter", "lookup", "fold"}  # may share a kernel


def has_buffer(value: Value) -> bool:
    """Is this a value that has a buffer of its own in any case?"""
    if value.prim.name == "in_memory":
        return not has_buffer(value.inputs[0])
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
        stored: what has been chosen so far.
        readers: for each value, the stored values that are computed from it.
    """

    def __init__(self, order: Sequence[Value], outputs: Sequence[Value],
                 channels_last: Collection[Value]):
        self.order = order
        self.outputs = outputs
        self.last = {value.shape for value in channels_last}
        self.stored: set[Value] = set()
        self.readers: dict[Value, set[int]] = {}

    def made(self) -> tuple[set[Value], dict[Value, set[int]]]:
        stage = _stages(self.order)
        self._find_wide(self._kernels(stage))
        if self.stored:  # who reads by way of what is stored does not count any more
            self._find_wide(self._kernels(stage))
        self._cut_large()
        self._find_dear(self._costs())
        return self.stored, self.readers

    def _kernels(self, stage: Mapping[Value, int]) -> dict[Value, frozenset[int]]:
        """For each value, of what is computed from it without going through memory, in which stages
        it is computed; no more than `MOST_KERNELS`."""
        found: dict[Value, frozenset[int]] = {output: frozenset((-1,)) for output in self.outputs}
        nothing: frozenset[int] = frozenset()
        for value in reversed(self.order):
            stored = has_buffer(value) or value in self.stored
            own = frozenset((stage[value],)) if stored else found.get(value, nothing)
            for operand in value.inputs:
                known = found.get(operand, nothing)
                if len(known) < MOST_KERNELS and not own <= known:
                    found[operand] = own | known
        return found

    def _find_wide(self, kernels: dict[Value, frozenset[int]]) -> None:
        """What takes more memory traffic to compute again than to store: a residual stream would
        else be summed up from its beginning in every layer."""
        candidates, self.stored = self.stored or None, set()
        sources: dict[Value, frozenset[Value]] = {}  # what is read from memory to compute a value
        nothing: frozenset[Value] = frozenset()
        for value in self.order:
            kind = value.prim.kind
            if kind in ("movement", "spread"):
                sources[value] = sources[value.inputs[0]]
                continue
            read = frozenset((value,))
            if kind == "elementwise" and not has_buffer(value):
                inside = nothing.union(*(sources[operand] for operand in value.inputs))
                readers = len(kernels.get(value, ()))
                if len(inside) > 1 < readers and (candidates is None or value in candidates) \
                        and _wide(value, inside, readers):
                    self.stored.add(value)
                else:
                    read = inside
            sources[value] = read

    def _cut_large(self) -> None:
        """Cut expressions lest they outgrow registers and recursion, or double with every value
        that is read in two places. Small graphs cannot get there."""
        if len(self.order) <= LARGEST // 5:
            return
        parts: dict[Value, set[tuple[Value, int]]] = {}  # (value, which way its index has come)
        for value in self.order:
            own: set[tuple[Value, int]] = {(value, 0)}
            if value in self.stored or has_buffer(value):
                pass
            elif value.prim.kind == "elementwise":
                own.update(*(parts[operand] for operand in value.inputs))
            elif value.prim.kind in ("movement", "spread"):
                step = value.prim.name, value.attrs
                own |= {(part, hash((way, step))) for part, way in parts[value.inputs[0]]}
            if len(own) > LARGEST:
                self.stored.add(value)
                own = {(value, 0)}
            parts[value] = own

    def _costs(self) -> dict[Value, int]:
        """Cycles that an element of each value takes to compute from what is stored."""
        cost: dict[Value, int] = {}
        for value in self.order:
            if value.prim.kind == "elementwise":
                cost[value] = value.prim.cost + sum(
                    0 if v in self.stored else cost.get(v, 0) for v in value.inputs)
            elif value.prim.kind in ("movement", "spread"):
                cost[value] = cost.get(value.inputs[0], 0)
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
            own = readers.get(value, set())
            stored = has_buffer(value)
            if not stored and len(own) > 1 and (cost.get(value, 0) > RECOMPUTE_LIMIT
                                                or value in operands):
                self.stored.add(value)
            stored = stored or value in self.stored
            for operand in value.inputs:
                readers.setdefault(operand, set()).update({value.serial} if stored else own)

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
        stage[value] = (value.prim.kind not in LOOPS) + max(
            (stage[operand] for operand in value.inputs), default=0)
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
    """What `value` repeats along outer dimensions many times over, its elements being neighbours
    in each: lanes would compute it again in every row. `channels_last`: shapes of such images."""
    if value.prim.name != "expand" or value.numel < LARGE:
        return None
    (base,) = value.inputs
    inner = base.shape[-1] if base.shape else 1
    if value.shape in channels_last and base.ndim >= 3:
        inner = max(inner, base.shape[-3])
    while base.prim.name in ("reshape", "permute", "expand"):
        (base,) = base.inputs
    few = base.numel > 1 and 16 * base.numel <= value.numel
    return base if few and inner > 1 and base.prim.kind == "elementwise" else None
