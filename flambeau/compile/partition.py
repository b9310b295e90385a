"""The cut between forward and backward: what the one keeps for the other.

A backward reads values that its forward has computed. Each of them is either kept, which costs its
bytes until the backward has run, or computed again from others that are kept. The cheapest choice
is a minimum cut of the graph between what the forward must compute and what the backward reads,
where cutting a value costs its bytes; it is found as a maximum flow. Only elementwise work and
movements may be done twice: not products, reductions, lookups, and never random draws.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from flambeau.core.symbolic import hint, key_of
from flambeau.ir.graph import CONSTANT, INPUT, NUMBER, Value, constant, sort
from flambeau.ops.primitives.elementwise import neg
from flambeau.ops.primitives.structure import expand

__all__ = ["dependents", "numbered", "shared", "to_save", "without", "zeros"]

REPEATABLE = ("elementwise", "movement")
OVERHEAD = 256  # bytes that keeping one more tensor is worth
ENDLESS = 1 << 62


def shared(gradients: Sequence[Value], forward: Sequence[Value]) -> list[Value]:
    """`gradients`, with what `forward` computes too taken from there.

    The rule of an operation often begins with what the operation has computed itself: statistics
    of a normalisation, the branch of a `where`.
    """
    known: dict[tuple, Value] = {}
    done: dict[Value, Value] = {}
    for value in sort(forward):
        done[value] = value if not _repeats(value) else known.setdefault(_key(value, done), value)
    for value in sort(gradients):
        if value in done:
            continue
        if not _repeats(value):
            done[value] = value
            continue
        key = _key(value, done)
        if key not in known or known[key].serial > value.serial:  # operands are older, always
            inputs = [done[v] for v in value.inputs]
            same = all(a is b for a, b in zip(inputs, value.inputs, strict=True))
            known[key] = value if same else _like(value, inputs)
        done[value] = known[key]
    return [done[v] for v in gradients]


def _repeats(value: Value) -> bool:
    """Is a second value with the same inputs and attributes the same?"""
    return value.prim not in (INPUT, NUMBER) and value.prim.kind != "random"


def _key(value: Value, done: dict[Value, Value]) -> tuple:
    constants = key_of(value.attrs)
    if value.prim is CONSTANT:
        constants = repr(constants)  # tells -0.0 from 0.0, and 1 from 1.0
    return (value.prim, constants, value.dtype, key_of(value.shape), value.number,
            *[done[v] for v in value.inputs])


def dependents(outputs: Sequence[Value], given: Collection[Value]) -> set[Value]:
    """The values, of those that `outputs` need, that are computed from `given`."""
    found = set(given)
    for value in sort(outputs):
        if any(v in found for v in value.inputs):
            found.add(value)
    return found


def to_save(gradients: Sequence[Value], given: Collection[Value], free: Collection[Value],
            exact: bool = False) -> list[Value]:
    """The values that a forward hands to its backward.

    Args:
        gradients: what the backward computes.
        given: the gradients of the results, which only the backward knows.
        free: values that live until the backward anyway.
        exact: hand over results of whole operations only, as eager runs do: what an operation of
            the backward computes from them is computed beside it, and rounds alike.
    """
    late = dependents(gradients, given)
    read = {v for value in late for v in value.inputs if v not in late}
    read |= {v for v in gradients if v not in late}
    if exact:
        return _results_read(read)
    region = _Region(read)
    chosen: list[Value] = []
    for values in region.components():
        chosen += _cheapest(values, region, free)
    return sorted(chosen, key=_serial)


def _results_read(read: set[Value]) -> list[Value]:
    """The stored results of operations (and inputs) that `read` are computed from."""
    found: list[Value] = []
    seen, stack = set(read), list(read)
    while stack:
        value = stack.pop()
        if value.prim.name == "boundary" or value.prim is INPUT or value.prim.kind == "random":
            found.append(value)
            continue
        fresh = set(value.inputs).difference(seen)
        seen.update(fresh)
        stack += fresh
    return sorted(found, key=_serial)


def _serial(value: Value) -> int:
    return value.serial


def _repeatable(value: Value) -> bool:
    return value.prim.kind in REPEATABLE


class _Region:
    """What a backward reads, and all that this could be computed from again.

    Attributes:
        read: the values that the backward reads.
        values: those, and the operands of what may be repeated.
    """

    def __init__(self, read: set[Value]):
        self.read = read
        self.at_hand: set[Value] = set()  # made of constants and numbers alone
        self.values: list[Value] = []
        for value in sort(read):
            if value.prim is INPUT:
                continue
            if value.prim.kind == "source" or _repeatable(value) and value.inputs and all(
                    v in self.at_hand for v in value.inputs):
                self.at_hand.add(value)
        stack = [v for v in read if v not in self.at_hand]
        seen = set(stack)
        while stack:
            value = stack.pop()
            self.values.append(value)
            for operand in self.operands(value):
                if operand not in seen:
                    seen.add(operand)
                    stack.append(operand)

    def operands(self, value: Value) -> list[Value]:
        """What must be there to compute `value` again; nothing for what cannot be."""
        if not _repeatable(value):
            return []
        return [v for v in value.inputs if v not in self.at_hand]

    def components(self) -> Iterator[list[Value]]:
        """Parts that have nothing to do with each other."""
        leader = {v: v for v in self.values}

        def find(value: Value) -> Value:
            while leader[value] is not value:
                leader[value] = value = leader[leader[value]]
            return value

        for value in self.values:
            for operand in self.operands(value):
                leader[find(operand)] = find(value)
        parts: dict[Value, list[Value]] = {}
        for value in self.values:
            parts.setdefault(find(value), []).append(value)
        yield from parts.values()


def _cheapest(values: list[Value], region: _Region, free: Collection[Value]) -> list[Value]:
    """The minimum cut of one part; of equal ones that which repeats least."""
    if len(values) == 1:
        return values
    number = {v: i for i, v in enumerate(values)}
    source, sink = 2 * len(values), 2 * len(values) + 1
    flow = _Flow(sink + 1)
    for value, i in number.items():  # node 2i: value wanted; 2i + 1: value there
        cost = 0 if value in free else hint(value.numel) * value.dtype.itemsize + OVERHEAD
        flow.edge(2 * i, 2 * i + 1, cost)
        if not _repeatable(value):
            flow.edge(source, 2 * i, ENDLESS)
        for operand in region.operands(value):
            flow.edge(2 * number[operand] + 1, 2 * i, ENDLESS)
        if value in region.read:
            flow.edge(2 * i + 1, sink, ENDLESS)
    flow.fill(source, sink)
    behind = flow.leading_to(sink)
    return [v for v, i in number.items() if 2 * i + 1 in behind and 2 * i not in behind]


class _Flow:
    """A network of capacities; `fill` makes them what a maximum flow leaves over (Dinic 1970)."""

    def __init__(self, nodes: int):
        self.edges: list[list[int]] = [[] for _ in range(nodes)]
        self.ends: list[int] = []
        self.room: list[int] = []  # the reverse of edge e is e ^ 1

    def edge(self, start: int, end: int, room: int) -> None:
        self.edges[start].append(len(self.ends))
        self.edges[end].append(len(self.ends) + 1)
        self.ends += (end, start)
        self.room += (room, 0)

    def fill(self, source: int, sink: int) -> None:
        while True:
            level = self._levels(source, sink)
            if level[sink] < 0:
                return
            left = [len(edges) for edges in self.edges]
            while self._push(source, sink, level, left):
                pass

    def _levels(self, source: int, sink: int) -> list[int]:
        """Distance from the source of every node, -1 where there is no way."""
        level = [-1] * len(self.edges)
        level[source] = 0
        queue = deque([source])
        while queue and level[sink] < 0:
            node = queue.popleft()
            for edge in self.edges[node]:
                end = self.ends[edge]
                if self.room[edge] and level[end] < 0:
                    level[end] = level[node] + 1
                    queue.append(end)
        return level

    def _push(self, source: int, sink: int, level: list[int], left: list[int]) -> bool:
        """Send what one shortest way admits; False if there is none left."""
        path: list[int] = []
        node = source
        while node != sink:
            while left[node]:
                edge = self.edges[node][left[node] - 1]
                if self.room[edge] and level[self.ends[edge]] == level[node] + 1:
                    path.append(edge)
                    node = self.ends[edge]
                    break
                left[node] -= 1
            else:
                if not path:
                    return False
                edge = path.pop()
                node = self.ends[edge ^ 1]
                left[node] -= 1
        amount = min(self.room[edge] for edge in path)
        for edge in path:
            self.room[edge] -= amount
            self.room[edge ^ 1] += amount
        return True

    def leading_to(self, sink: int) -> set[int]:
        """The nodes from which more could flow to the sink."""
        found = {sink}
        stack = [sink]
        while stack:
            for edge in self.edges[stack.pop()]:
                start = self.ends[edge]
                if self.room[edge ^ 1] and start not in found:
                    found.add(start)
                    stack.append(start)
        return found


# ---------------------------------------------------------------------- absent gradients
_ZERO_OF_ANY = ("mul", "neg", "cast", "copy", "dot", "conv", "conv_grad_input",
                "conv_grad_weight", "reduce_sum", "real", "imag", "stop_gradient", "boundary",
                "in_memory")


def without(outputs: Sequence[Value], missing: Collection[Value]) -> list[Value | None]:
    """`outputs` where the inputs `missing` contribute nothing; None for what is nothing then.

    A gradient that is absent is more than one of zeros: zero times infinity is not a number.
    """
    done: dict[Value, Value | None] = dict.fromkeys(missing)
    for value in sort(outputs, stop=missing):
        inputs = [done[v] for v in value.inputs]
        name = value.prim.name
        if None not in inputs:
            same = all(a is b for a, b in zip(inputs, value.inputs, strict=True))
            done[value] = value if same else _like(value, inputs)
        elif name in ("add", "sub"):
            first, second = inputs
            done[value] = first if second is None else (
                numbered(neg(second), value) if name == "sub" else second)
        elif (name in _ZERO_OF_ANY or value.prim.kind in ("movement", "spread", "fold")
              or name == "div" and inputs[0] is None):
            done[value] = None
        else:
            done[value] = _like(value, [zeros(v) if new is None else new for v, new in
                                        zip(value.inputs, inputs, strict=True)])
    return [done[v] for v in outputs]


def _like(value: Value, inputs: Sequence[Value]) -> Value:
    made = Value(value.prim, tuple(inputs), value.attrs, value.shape, value.dtype, value.number)
    return numbered(made, value)


def numbered(made: Value, old: Value) -> Value:
    """`made` in the place of `old`: programs are compiled in the order they were written down."""
    made.serial = old.serial
    return made


def zeros(like: Value) -> Value:
    """Zeros with the shape and dtype of `like`."""
    zero = numbered(constant(0, like.dtype, number=False), like)
    zero.serial -= 0.5  # before what is made of it
    return numbered(expand(zero, like.shape), like)
