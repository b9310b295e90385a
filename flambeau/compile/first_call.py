"""The first call of a compiled function, computed by the program that it becomes.

A capture runs the function. What it launches meanwhile is put off (`deferral.py`), and the kernels
of single operations are not even made. If the run becomes a program, that program computes what the
run has left undefined, in the memory that the run has taken for it. If anything stands against it
(somebody looks at a value, the run cannot be captured), the launches are made as they were written
down. In either case the function's Python has run once, and nothing is computed twice but:

- random numbers, which are drawn at once: the streams are put back for the program to draw again;
- operations that check their arguments' values. They are run when they are called, so that errors
  come from the user's line; what they check must be known then, what they compute need not.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import itertools
import operator
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from flambeau.compile.capture import Capture
from flambeau.compile.deferral import Deferral, Limits, Log, possible
from flambeau.compile.differentiable import consumed
from flambeau.compile.interface import room_of
from flambeau.compile.recording import Recording
from flambeau.compile.replay import Replay, raise_compiled
from flambeau.compiler.random.engine import STATE_BYTES
from flambeau.core.shapes import dense_order
from flambeau.runtime import executable, launch_log, memory, plan_cache
from flambeau.runtime.launch import launcher
from flambeau.runtime.launch_log import CALLS as COUNT
from flambeau.runtime.launch_log import FIRST, USED
from flambeau.tensor import launches
from flambeau.tensor.launches import Launch, late

__all__ = ["FirstCall"]

WORDS, CALLS = 1 << 18, 1 << 15
# what a program that is only run once costs (an operation planned), and what it saves (a kernel
# compiled, a megabyte that is touched for the first time), in ms
PLANNED, COMPILED, TOUCHED = 2, 25, 0.4
LARGE = 1 << 16  # bytes of a storage from which on its memory goes back before it is free
MUCH = 1 << 26  # bytes of blocks that were never touched, from which on they go back at once

_address = operator.attrgetter("ptr")


@functools.cache
def _limits() -> Limits:
    """What is held back was never touched: it takes addresses, but no memory."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = 1 << 32
    return Limits(WORDS, CALLS, machine // 2)


class _Span(NamedTuple):
    """A part of memory."""

    start: int
    stop: int

    def meets(self, other: _Span) -> bool:
        return self.start < other.stop and other.start < self.stop


class _Entry(NamedTuple):
    """A call in a log: where it stands, and what it reads and writes."""

    at: int
    launch: Launch
    reads: list[tuple[_Span, str]]  # with the kind of the dtype
    writes: list[_Span]
    arena: int | None  # where its temporaries are


def _entry(launch: Launch, at: int, words: Sequence[int]) -> _Entry:
    """The call of `launch` with these arguments."""
    spans = []
    for meta, word in zip((*launch.metas, *launch.metas_out), words, strict=False):
        if not isinstance(meta, type):
            address = word % (1 << 64)
            spans.append((_Span(address, address + room_of(meta)), meta.dtype.kind))
    count = len(spans) - len(launch.metas_out)
    arena = None if launch.arena is None else words[len(launch.metas) + len(launch.metas_out)]
    return _Entry(at, launch, spans[:count], [span for span, _ in spans[count:]], arena)


def _lives(entries: Sequence[_Entry], storages: Sequence) -> dict[int, tuple[Any, int, int]]:
    """The storages that calls use, by their addresses: each with the numbers of the first and the
    last of these calls."""
    storages = sorted(storages, key=_address)
    starts = [storage.ptr for storage in storages]
    lives: dict[int, tuple[Any, int, int]] = {}
    for number, entry in enumerate(entries):
        used = [span.start for span in (*(span for span, _ in entry.reads), *entry.writes)]
        for start in used if entry.arena is None else (*used, entry.arena):
            at = bisect.bisect_right(starts, start) - 1
            if at >= 0 and start < starts[at] + storages[at].nbytes:
                _, first, _ = lives.get(starts[at], (None, number, number))
                lives[starts[at]] = storages[at], first, number
    return lives


def _most(lives: Iterable[tuple[Any, int, int]], count: int) -> int:
    """The most bytes of these storages that `count` calls touch at a time."""
    changes = [0] * (count + 1)
    for storage, first, last in lives:
        size = memory.class_bytes(storage.nbytes)
        changes[first] += size
        changes[last + 1] -= size
    return max(itertools.accumulate(changes))


def _factors(launch: Launch) -> bool:
    """Does a call check whether matrices can be factored? That depends on their elements, where
    other checks look at integers."""
    return any(value.prim.kind == "factor" for value in launch.call.graph.order())


class FirstCall(Deferral):
    """The launches of one captured run, put off.

    Attributes:
        capture: what watches the run.
        untouched: nothing has been run so far.
        generators: those drawn from, with the state before.
    """

    late_kernels = True

    def __init__(self, capture: Capture):
        super().__init__(self._run_now, _limits())
        self.capture = capture
        self.untouched = True
        self.generators: dict[int, tuple[Any, bytes]] = {}
        self.early: set[int] = set()  # places of calls whose results are known already
        self.base = self.in_use.value
        self.peak = memory.memory_stats()["peak"]

    @classmethod
    def begin(cls, capture: Capture) -> FirstCall | None:
        """Put off what is launched from now on, if that is possible here."""
        if not possible():
            return None
        if late.launch is launches.run_native:
            late.launch = late.checked = late.at_once = launcher()
        doors = {id(door) for door in (late.launch, late.checked, late.at_once, launcher())}
        if late.deferred is not None or len(doors) > 1:  # somebody stands there already
            return None
        made = cls(capture)
        return made if made.open() else None

    def close(self) -> None:
        """The end. What the run has left behind does not suit what comes after it."""
        super().close()
        if memory.memory_stats()["cached"] > MUCH:
            memory.empty_all()

    def mark(self) -> tuple[Log, int, int]:
        """How far the log has come."""
        return self.log, self.log.words[USED], self.log.words[COUNT]

    def forget_since(self, mark: tuple[Log, int, int]) -> None:
        """Leave out what was put off since `mark`, which nobody has asked for."""
        log, used, calls = mark
        if self.untouched and log is self.log:
            log.words[USED], log.words[COUNT] = used, calls

    # ------------------------------------------------------------------ running after all
    def _run_now(self, log: Log, dead: list, why: str) -> None:
        """Make the calls in the log, and all later ones at once."""
        self.untouched = self.late_kernels = False
        self.hold_back(None)
        self.record = late.launch = late.checked = self.native
        entries = list(self._entries(log))
        executable.make_ready([entry.launch.program for entry in entries])
        launch_from = launch_log.code().launch_from
        large = [s for s in dead if s.nbytes >= LARGE and s.owner is None]
        lives = _lives(entries, large)
        ends: dict[int, list] = {}
        for storage, _, last in lives.values():
            ends.setdefault(last, []).append(storage)
        for number, entry in enumerate(entries):
            launch_from(entry.launch.address, log.address + 8 * (entry.at + 1), 0, 0)
            for storage in ends.get(number, ()):
                memory.untouch(storage)
        other = self.in_use.value - sum(memory.class_bytes(s.nbytes) for s in large)
        memory.set_peak(max(self.peak, other + _most(lives.values(), len(entries))))

    def _entries(self, log: Log) -> Iterator[_Entry]:
        words = log.words[:log.words[USED]].tolist()
        at = FIRST
        while at < len(words):
            launch = launches.by_address[words[at]]
            count = len(launch.metas) + len(launch.metas_out) + (launch.arena is not None)
            yield _entry(launch, at, words[at + 1:at + 1 + count])
            at += 1 + count

    # ------------------------------------------------------------------ the doors
    def share(self, array: Any) -> None:
        """Memory goes to somebody who may look at it."""
        if self.untouched and threading.get_ident() == self.thread:
            self.settle("memory shared with others")

    def before_fill(self, tensor: Any, given: bool, generator: Any) -> None:
        """A random stream is about to fill `tensor`."""
        if not self.untouched:
            return
        super().before_fill(tensor, given, generator)
        if id(generator) not in self.generators:
            with generator.lock:
                self.generators[id(generator)] = generator, ctypes.string_at(
                    generator.address, STATE_BYTES)

    def _checked(self, *call: Any) -> tuple[int, int] | None:
        """Check now, on what may be undefined but for what is checked, and compute later."""
        launch = launches.by_address.get(call[0])
        entry = None if launch is None else _entry(launch, self.log.words[USED], call[1:])
        if entry is None or _factors(launch) or not self._known(entry):
            return super()._checked(*call)
        fresh = self._fresh(entry)
        aside = () if fresh else tuple(memory.allocate(w.stop - w.start) for w in entry.writes)
        first = 1 + len(launch.metas)
        targets = call[first:first + len(entry.writes)] if fresh else [s.ptr for s in aside]
        if self.native(*call[:first], *targets, *call[first + len(targets):]) is not None:
            self.settle("an operation that has failed")
            return self.native(*call)
        if fresh and all(kind not in "fc" for _, kind in entry.reads):
            self.early.add(entry.at)  # all that it reads was known
        self.record(*call)
        return None

    def _fresh(self, entry: _Entry) -> bool:
        """Does a call write only to memory that neither it nor the program reads? Then it may be
        made twice. An update of what exists may not: the check of it writes elsewhere."""
        read = [span for span, _ in entry.reads]
        read += [_Span(m.region[0], m.region[0] + room_of(m.meta))
                 for m in self.capture.memories.values() if m.initial is not None]
        return not any(written.meets(span) for written in entry.writes for span in read)

    def _known(self, entry: _Entry) -> bool:
        """Are the integers that a call reads what they should be? They are computed now if they
        follow from others that are."""
        entries = list(self._entries(self.log))
        made = {m.address for m in self.capture.memories.values() if m.initial is None}
        return all(self._computed(span, entries, made) for span, kind in entry.reads
                   if kind not in "fc")

    def _computed(self, span: _Span, entries: list[_Entry], made: set[int]) -> bool:
        """Does memory hold what it will hold after `entries`?"""
        writers = [n for n, entry in enumerate(entries)
                   if any(span.meets(written) for written in entry.writes)]
        if not writers:
            return True
        number, entry = writers[0], entries[writers[0]]
        if entry.at in self.early:
            return len(writers) == 1
        before = entries[:number]
        if len(writers) > 1 or entry.launch.checked or not all(
                written.start in made and not any(
                    written.meets(other) for each in (*before, entry)
                    for other in (*(s for s, _ in each.reads), *each.writes[each is entry:]))
                for written in entry.writes) or not all(
                kind not in "fc" and self._computed(read, before, made)
                for read, kind in entry.reads):
            return False
        executable.ready(entry.launch.program)
        launch_log.code().launch_from(entry.launch.address, self.log.address + 8 * (entry.at + 1),
                                      0, 0)
        self.early.add(entry.at)
        return True

    # ------------------------------------------------------------------ the program instead
    def worthwhile(self) -> bool:
        """Does a program for this run alone cost less than its operations one by one? Where plans
        are kept, it does in the next process at the latest."""
        if not self.untouched or plan_cache.usable():
            return self.untouched
        programs = {id(e.launch.program): e.launch.program for e in self._entries(self.log)}
        touched = (self.in_use.value - self.base) / 1e6
        return PLANNED * self.capture.operations < TOUCHED * touched + COMPILED * (
            executable.missing(programs.values()))

    def fits(self, recording: Recording) -> bool:
        """Is everything that the run has left undefined in what the program computes?"""
        capture = self.capture
        if not self.untouched or self.generators.keys() != capture.randoms.keys():
            return False
        if recording.joint is not None and any(
                kind == "part" and what[3] for kind, what in recording.returned):
            return False  # the tape of views of results leads through what the run has recorded
        memories = {m.initial: m for m in capture.memories.values() if m.initial is not None}
        for value, tensor, _ in recording.inputs:
            known = memories.get(value)
            if known is not None and known.region != (tensor._ptr, tensor._meta):
                return False
        owners = [capture._owner(tensor) for tensor in recording.results]
        if len({id(owner) for owner in owners}) < len(owners):
            return False
        return all(self._whole(tensor) for tensor in recording.results)

    def _whole(self, tensor: Any) -> bool:
        """Is a result all that there is of its memory, which the run has made?"""
        known, meta = self.capture.memory_of(tensor), tensor._meta
        return (known.initial is None and tensor._ptr == known.region[0]
                and dense_order(meta.shape, meta.strides) is not None
                and meta.nbytes == known.meta.nbytes)

    def compute(self, recording: Recording, replay: Replay, leaves: list) -> None:
        """Let the program of `recording` compute what was put off."""
        results, inputs = recording.results, [tensor for _, tensor, _ in recording.inputs]
        numbers = [self.capture.given_numbers[value] for value, _ in recording.numbers]
        waiting = self.in_use.value
        self.drop()
        if waiting - self.in_use.value > MUCH:
            memory.empty_all()
        kept = [launches.fresh(*pool) for pool in replay.pools[len(results):]]
        argv = [t._ptr for t in inputs] + numbers
        argv += [t._ptr for t in (*results, *kept)]
        argv += [inputs[i]._ptr for i in replay.updated]
        if replay.arena is not None:
            arena = replay.arena.new(replay.plan.arena_bytes)
            argv.append(arena.ptr)
        memory.set_peak(max(self.peak, self.in_use.value))
        for generator, state in self.generators.values():
            with generator.lock:
                ctypes.memmove(generator.address, state, STATE_BYTES)
        failure = replay._launch(argv)
        if failure is not None:
            raise_compiled(failure)
        if replay.backward is not None:
            replay.backward.attach(results, kept, inputs, numbers, leaves)


def detached(tensors: Sequence) -> bool:
    """Has none of these tensors a history that could still be run backwards?"""
    return all(t._grad_fn is None and t._base is None or t._grad_fn is not None
               and consumed(t._grad_fn) for t in tensors)
