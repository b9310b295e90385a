"""A sequence of launches as one program.

A `Segment` is what equal sequences have in common: which launches, which of their arguments are the
same address, and whose memory has died before anybody looked. Addresses differ from call to call;
how regions of memory overlap must not, where one of them is written: a `SegmentProgram` belongs to
one such arrangement. It is built by replaying the launches on values (`capture.py`).
"""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from flambeau.compile.capture import Capture
from flambeau.compile.interface import Interface, room_of
from flambeau.compile.origins import Origins
from flambeau.compiler.target import host
from flambeau.core.shapes import required_span
from flambeau.ir.graph import Graph, Value, number_input
from flambeau.ops.primitives.elementwise import boundary, convert
from flambeau.runtime import launch_log, memory, pool
from flambeau.runtime.executable import build_program
from flambeau.runtime.plan_cache import planned
from flambeau.tensor import interop
from flambeau.tensor.launches import Launch
from flambeau.tensor.meta import Meta, contiguous_meta

__all__ = ["Likeness", "Segment", "SegmentProgram"]


class Access(NamedTuple):
    """One argument of a launch that is memory: which word of the sequence, which of the different
    words, and its layout there."""

    position: int
    word: int
    meta: Meta


class Event(NamedTuple):
    """A launch, which begins at the word `head`; `args` has an Access for a tensor, (position,
    type) for a number."""

    launch: Launch
    head: int
    args: list
    outs: list[Access]


class Segment:
    """Equal sequences of launches.

    Attributes:
        events: what they consist of.
        seen: how often it was met.
        failure: why it cannot be a program, or None.
        known: the program by the addresses that it was found fit for.
        followers: what the segments that have followed it looked like, the latest first.
    """

    def __init__(self, launches: Sequence[Launch], pattern: Sequence[int], dead: Sequence[bool],
                 exact: bool):
        self.exact = exact
        self.seen = 0
        self.failure: str | None = None
        self.dead = dead
        self.pattern = pattern
        self.size = len(launches)
        self.events = _events(launches, pattern)
        self.followers: list[Likeness] = []
        self.programs: dict[tuple, SegmentProgram] = {}
        self.known: dict[tuple, SegmentProgram] = {}
        accesses = [a for e in self.events for a in (*e.args, *e.outs) if a.__class__ is Access]
        self.words = sorted({a.word for a in accesses})
        first = {a.word: a.position for a in reversed(accesses)}
        self.first = [first[word] for word in self.words]
        self.pointers = _getter(self.first)
        self.pointers_in = _getter([launch_log.FIRST + position for position in self.first])
        self.extents = dict.fromkeys(self.words, 0)
        for a in accesses:
            self.extents[a.word] = max(self.extents[a.word], room_of(a.meta))
        self.written = {a.word for e in self.events for a in e.outs}

    def program(self, words: Sequence) -> SegmentProgram:
        """The program for these arguments, compiled if there is none yet.

        Raises:
            NotImplementedError: it cannot be one program.
        """
        pointers = self.pointers(words)
        found = self.known.get(pointers)
        if found is None:
            if len(self.known) >= 64:
                self.known.clear()
            clusters = self._clusters(pointers)
            arrangement = tuple(c for c in clusters if len(c) > 1)
            found = self.programs.get(arrangement)
            if found is None:
                found = self.programs[arrangement] = SegmentProgram(self, clusters, words)
            self.known[pointers] = found
        return found

    def rules(self, words: Sequence[int]) -> list[int]:
        """(rule, value) for each word of a log."""
        rules: list[int] = []
        first: dict[int, int] = {}
        numbers = {a[0] for e in self.events for a in e.args if a.__class__ is tuple}
        heads = {e.head: e.launch.address for e in self.events}
        memory_at = set(self.first)
        for position, number in enumerate(self.pattern):
            if position in heads:
                rules += (launch_log.EXACT, heads[position])
            elif position in numbers:
                rules += (launch_log.ANY, 0)
            elif position in memory_at:
                rules += (launch_log.HERE, words[position])
            elif number in first:
                rules += (launch_log.SAME, first[number])
            else:  # scratch memory
                rules += (launch_log.ANY, 0)
            first.setdefault(number, position)
        return rules

    def _clusters(self, pointers: Sequence[int]) -> list[tuple]:
        """Words whose memory overlaps, with a write among them: ((word, offset), ...), the offsets
        in bytes from the first of them."""
        spans = sorted([(p, p + self.extents[w], w)
                        for p, w in zip(pointers, self.words, strict=True)])
        clusters: list[tuple] = []
        group: list = []
        end = -1
        for start, stop, word in spans:
            if start >= end and group:
                clusters += self._parted(group)
                group = []
            group.append((word, start))
            end = max(end, stop)
        return clusters + self._parted(group)

    def _parted(self, group: list) -> list[tuple]:
        if len(group) > 1 and any(word in self.written for word, _ in group):
            low = group[0][1]
            return [tuple([(word, start - low) for word, start in group])]
        return [((word, 0),) for word, _ in group]


def _events(launches: Sequence[Launch | None], pattern: Sequence[int]) -> list[Event]:
    """Divide the words of a sequence among its launches."""
    events, at = [], 0
    for launch in launches:
        head = at
        at += 1  # the program's address
        args: list = []
        for meta in launch.metas:
            args.append((at, meta) if isinstance(meta, type) else Access(at, pattern[at], meta))
            at += 1
        outs = []
        for meta in launch.metas_out:
            outs.append(Access(at, pattern[at], meta))
            at += 1
        at += launch.arena is not None
        events.append(Event(launch, head, args, outs))
    return events


def _getter(positions: Sequence[int]) -> Callable[[Sequence], tuple]:
    """A function that takes these items of a sequence, as a tuple."""
    if len(positions) > 1:
        return itemgetter(*positions)

    def take(words: Sequence) -> tuple:
        return tuple([words[i] for i in positions])

    return take


class _Number:
    """A number among the arguments of a launch."""

    def __init__(self, position: int, kind: type):
        self.position, self.kind = position, kind


class _Replayed(Capture):
    """The launches of a segment, on values. Tensors are made up for the regions that they touch:
    one storage for each cluster."""

    def __init__(self, segment: Segment, clusters: Sequence[tuple], words: Sequence):
        super().__init__({}, segment.exact)
        self.origins = Origins(located=False)
        self.segment = segment
        self.at: dict[int, int] = {}  # word -> address
        self.cluster_of: dict[int, int] = {}
        self.bounds: list[tuple[int, int]] = []
        self.tensors: dict[tuple, Any] = {}
        self.storages: dict[Any, Any] = {}
        self.places: dict[int, int] = {}  # id of a tensor -> a position of its address
        self.new: set[int] = set()  # clusters whose first access overwrites them
        for word, pointer in zip(segment.words, segment.pointers(words), strict=True):
            self.at[word] = pointer
        self.clusters = clusters
        for number, cluster in enumerate(clusters):
            low = self.at[cluster[0][0]]
            self.bounds.append((low, max(self.at[w] + segment.extents[w] for w, _ in cluster)))
            for word, _ in cluster:
                self.cluster_of[word] = number
        self.metas: dict[int, list[Access]] = {}
        for event in segment.events:
            for access in (*event.args, *event.outs):
                if access.__class__ is Access:
                    self.metas.setdefault(self.cluster_of[access.word], []).append(access)

    def tensor(self, access: Access) -> Any:
        """The made-up tensor of a region."""
        key = access.word, access.meta
        found = self.tensors.get(key)
        if found is None:
            number = self.cluster_of[access.word]
            written = any(word in self.segment.written for word, _ in self.clusters[number])
            shared = number if written else key
            storage = self.storages.get(shared)
            if storage is None:
                low, high = self.bounds[number]
                storage = self.storages[shared] = memory.foreign(low, high - low, self.segment)
            found = self.tensors[key] = interop.new_view(storage, self.at[access.word], access.meta)
            self.places[id(found)] = access.position
            if written and number not in self.new and id(storage) not in self.roots:
                self.roots[id(storage)] = self._root(number, storage, found)
        return found

    def _root(self, number: int, storage: Any, tensor: Any) -> Any:
        """What memory that is older than the segment, and is written by it, is known by."""
        accesses = self.metas[number]
        if len({(a.word, a.meta) for a in accesses}) == 1:
            return tensor
        low, high = self.bounds[number]
        for a in accesses:  # a natural layout of all of it, if there is one
            if self.at[a.word] == low and a.meta.contiguous and a.meta.nbytes == high - low:
                root = interop.new_view(storage, low, a.meta)
                self.places[id(root)] = a.position
                return root
        dtypes = {a.meta.dtype for a in accesses}
        if len(dtypes) > 1 or (high - low) % tensor._meta.dtype.itemsize:
            raise NotImplementedError("memory that is used through tensors of different dtypes")
        dtype, = dtypes
        root = interop.new_view(storage, low, contiguous_meta(
            dtype, ((high - low) // dtype.itemsize,)))
        first = self.clusters[number][0][0]
        self.places[id(root)] = next(a.position for a in accesses if a.word == first)
        return root

    def replay(self, event: Event) -> None:
        """Follow one launch."""
        given = [self._number(_Number(*a)) if a.__class__ is tuple else self.value_of(
            self.tensor(a)) for a in event.args]
        values = event.launch.call.build(given)
        if self.exact:
            values = [boundary(v) for v in values]
        self.operations += 1
        read = {self.cluster_of[a.word] for a in event.args if a.__class__ is Access}
        for out, value in zip(event.outs, values, strict=True):
            number = self.cluster_of[out.word]
            value = convert(value, out.meta.dtype)
            if number not in read and self._is_first(number, out):
                self.new.add(number)
                tensor = self.tensor(out)
                self.created(tensor)
                self.memories[id(tensor._storage)].value = value
            else:
                self.assign(self.tensor(out), value)

    def _is_first(self, number: int, out: Access) -> bool:
        """Is this write the first that is known of the memory, and overwrites all of it?"""
        low, high = self.bounds[number]
        return (self.metas[number][0] is out and self.at[out.word] == low
                and out.meta.nbytes == high - low
                and required_span(out.meta.shape, out.meta.strides) == out.meta.numel)

    def _number(self, number: Any) -> Value:
        placeholder = number_input(number.kind)
        self.numbers.append((placeholder, number, None))
        return placeholder

    def is_dead(self, number: int) -> bool:
        """Has the memory died, unread?"""
        return any(self.segment.dead[word] for word, _ in self.clusters[number])


class Likeness:
    """What a log of a segment looked like once: a table for `launch_log`, and the program for just
    these addresses, or None."""

    def __init__(self, segment: Segment, words: Sequence[int], dead: Sequence,
                 program: SegmentProgram | None):
        self.segment, self.program = segment, program
        places = {word: i for i, word in reversed(list(enumerate(words)))}
        deaths = [-1 if s.owner is not None else places.get(s.ptr, -1) for s in dead]
        self.table = array.array("q", [len(words), len(dead), *segment.rules(words), *deaths])
        self.address = self.table.buffer_info()[0]


class SegmentProgram:
    """A segment compiled for one arrangement of its memory: one native call."""

    def __init__(self, segment: Segment, clusters: Sequence[tuple], words: Sequence):
        replayed = _Replayed(segment, clusters, words)
        for event in segment.events:
            replayed.replay(event)
        alive = {id(replayed.storages[number]): number for number in range(len(clusters))
                 if number in replayed.storages and not replayed.is_dead(number)}
        kept = [m for key, m in replayed.memories.items() if key in alive]
        results = [m for m in kept if m.initial is None]
        updates = [m for m in kept if m.initial is not None and m.value is not m.initial]
        values = [m.value for m in (*results, *updates)]
        used = set(Graph([], values).order())
        inputs = [(v, t) for v, t in replayed.inputs
                  if v in used or any(m.initial is v for m in updates)]
        numbers = [(v, n) for v, n, _ in replayed.numbers if v in used]
        graph = Graph([v for v, _ in inputs] + [v for v, _ in numbers], values)
        place = {v: i for i, (v, _) in enumerate(inputs)}
        updated = [place[m.initial] for m in updates]
        targets = [m.tensor for m in results] + [inputs[i][1] for i in updated]
        self.interface = face = Interface([t._meta for _, t in inputs],
                                          [m.tensor._meta for m in results], len(numbers), updated)
        self.operations = replayed.operations
        self.plan = planned(graph, face.inputs, face.outputs, host(), pool.get_num_threads(),
                         face.aliases)
        kinds = [None] * len(inputs) + [n.kind for _, n in numbers]
        self.program = build_program(self.plan, kinds, len(targets))
        self.address = self.program.address
        positions = [replayed.places[id(t)] for _, t in inputs]
        positions += [n.position for _, n in numbers]
        positions += [replayed.places[id(t)] for t in targets]
        self.indices = array.array("q", positions)
        self.indices_at = self.indices.buffer_info()[0]
        self.counts = len(inputs), len(numbers), len(results), len(updates)
        self.origins, self.number_kinds = replayed.origins, [n.kind for _, n in numbers]
        nbytes = self.plan.arena_bytes
        self.arena = memory.size_class(nbytes) if nbytes else None

    def run(self, launch_from: Callable, words_at: int) -> None:
        """One native call, with the words of a log at this address."""
        if self.arena is None:
            launch_from(self.address, words_at, self.indices_at, 0)
            return
        arena = self.arena.new(self.plan.arena_bytes)
        launch_from(self.address, words_at, self.indices_at, arena.ptr)

    def explain(self) -> str:
        """What the program consists of."""
        tensors, numbers, results, updates = self.counts
        return (f"  part: {self.operations} operations in {len(self.plan.steps)} kernels; "
                f"{tensors} tensors and {numbers} numbers in, {results} results, {updates} "
                f"tensors updated in place, {self.plan.arena_bytes / 1e6:.1f} MB of temporaries")
