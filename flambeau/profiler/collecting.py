"""Collecting: each native launch is timed, and so are the ranges that Python code names.

While a collector is open, the doors through which launches go are replaced by ones that look at the
clock before and after. What a launch is comes from the table of launches, by the address of its
program. Closed, nothing is left behind: an unprofiled launch costs what it always did.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flambeau.core.errors import Location, caller_location
from flambeau.runtime import memory
from flambeau.runtime.launch import launcher
from flambeau.tensor import launches
from flambeau.tensor.launches import late

__all__ = ["Collector", "Raw", "opened"]


class Raw(NamedTuple):
    """Something that took time.

    Attributes:
        start, end: nanoseconds of `time.perf_counter_ns`.
        thread: identity of the thread.
        kind: "cpu_op" for launches, "user_annotation" for named ranges.
        detail: of a launch its record (or None: a compiled program), of a range its arguments.
        where: the user's line, if it was asked for.
        nbytes: bytes taken (freed: below 0) since the thread's last event ended.
        given: of a launch what its program was called with, if that was asked for.
    """

    name: str
    start: int
    end: int
    thread: int
    kind: str
    detail: Any
    where: Location | None
    nbytes: int
    given: tuple


_open: list[Collector] = []


def opened() -> Sequence[Collector]:
    """The collectors that ranges go to."""
    return tuple(_open)


class Collector:
    """What happens between `start` and `stop`.

    Args:
        with_stack: note the user's line of each launch.
        with_memory: note the memory that is taken and freed.
        with_arguments: note what each launch is given.
    """

    def __init__(self, with_stack: bool = False, with_memory: bool = False,
                 with_arguments: bool = False) -> None:
        self.with_stack, self.with_memory = with_stack, with_memory
        self.with_arguments = with_arguments
        self.raw: list[Raw] = []
        self.paused = False
        self.in_use: dict[int, int] = {}
        self.held: list[tuple[int, int]] = []  # (nanoseconds, bytes in use), if asked for
        self.began = self.ended = 0

    def start(self) -> None:
        """Begin. Collectors close in the reverse order in which they are opened."""
        if late.launch is launches.run_native:  # before the first launch of the process
            late.launch = late.checked = late.at_once = launcher()
        self.doors = late.launch, late.checked, late.at_once
        late.launch, late.checked, late.at_once = (self._timed(door) for door in self.doors)
        _open.append(self)
        self.began = time.perf_counter_ns()
        if self.with_memory:
            self.held.append((self.began, memory._ledger[memory.IN_USE]))

    def stop(self) -> None:
        """End."""
        self.ended = time.perf_counter_ns()
        late.launch, late.checked, late.at_once = self.doors
        _open.remove(self)

    def _timed(self, door: Callable) -> Callable:
        clock, thread_of = time.perf_counter_ns, threading.get_ident

        def launch(address: int, *args: Any) -> Any:
            if self.paused:
                return door(address, *args)
            start = clock()
            result = door(address, *args)
            self.note(None, start, clock(), thread_of(), "cpu_op", address, args)
            return result

        return launch

    def note(self, name: str | None, start: int, end: int, thread: int, kind: str, detail: Any,
             given: tuple = ()) -> None:
        """Something ended."""
        if kind == "cpu_op":
            detail = launches.by_address.get(detail)
            name = "compiled program" if detail is None else detail.call.name
        nbytes = 0
        if self.with_memory and kind == "cpu_op":
            now = memory._ledger[memory.IN_USE]
            nbytes = now - self.in_use.get(thread, now)
            self.in_use[thread] = now
            self.held.append((end, now))
        where = caller_location(3) if self.with_stack and kind == "cpu_op" else None
        self.raw.append(Raw(name or "", start, end, thread, kind, detail, where, nbytes,
                            given if self.with_arguments else ()))
