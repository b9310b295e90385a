"""Putting launches off: what dispatch launches is written down, and run when somebody looks.

While a `Deferral` is open, `late.launch` writes calls into a log (runtime/launch_log.py) instead of
making them. Everything else of an operation happens as ever: results are allocated (their memory
undefined for now), the tape records, versions count. Whoever touches memory otherwise than by
launches calls `settle` first. Memory that dies meanwhile is held back, since launches that were
written down still need it; so nothing that is put off can meet reused memory, and the calls may run
at any later time, in their order.
"""

from __future__ import annotations

import array
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from flambeau.runtime import launch as launching
from flambeau.runtime import launch_log, memory, native
from flambeau.runtime.launch_log import FIRST
from flambeau.tensor import launches
from flambeau.tensor.launches import late

__all__ = ["Deferral", "deferring", "possible"]

MOST = 2000  # launches that are put off before they are run
MOST_BYTES = 256 << 20  # of memory taken meanwhile: what is held back is not reused
WORDS = 1 << 15  # of a log

_turn = threading.Lock()  # the doors are the process's: one deferral at a time


def possible() -> bool:
    """Can operations be put off here? Not where memory is managed in Python."""
    return native.allowed()


def deferring() -> bool:
    """Are the operations of this thread put off at the moment?"""
    return late.deferred is not None and late.deferred.thread == threading.get_ident()


class Deferral:
    """Launches of one thread, put off.

    Attributes:
        log: where they are written; `spare` logs take its place while it is run.
        dead: storages that have died since the last settling, still alive.
    """

    def __init__(self, finish: Callable[[array.array, list, str], None]):
        """`finish(log, dead, why)` runs the calls in `log`."""
        self.finish = finish
        self.thread = threading.get_ident()
        self.lock = threading.RLock()
        self.spare: list[array.array] = []
        self.dead: list = []
        self.kept: list = []
        self.shared: list = []
        self.native = launching.launcher()
        self.code = launch_log.code()
        self.elsewhere = self._elsewhere  # its address is in the logs
        self.log = self._new_log()

    def open(self) -> bool:
        """Begin; False if somebody else's launches are put off already."""
        if not _turn.acquire(blocking=False):
            return False
        memory.hold_back(self.dead)
        self._write_to(self.log)
        late.deferred = self
        late.at_once = self.native
        late.checked, late.launch = self._checked, self.code.record
        return True

    def close(self) -> None:
        """Run what is left, and put nothing off any more."""
        try:
            self.settle("the end of the function")
        finally:
            late.deferred = None
            late.launch = late.checked = late.at_once = self.native
            memory.hold_back(None)
            self.dead.clear()
            self.shared.clear()
            self.code.begin(0)
            _turn.release()

    def _new_log(self) -> array.array:
        log = launch_log.new_log(WORDS)
        log[launch_log.THREAD] = self.thread
        log[launch_log.ELSEWHERE] = id(self.elsewhere)
        log[launch_log.IN_USE] = memory.in_use_address()
        log[launch_log.MOST_CALLS] = MOST
        return log

    def _write_to(self, log: array.array) -> None:
        log[launch_log.USED], log[launch_log.CALLS] = FIRST, 0
        log[launch_log.MOST_IN_USE] = memory.in_use() + MOST_BYTES
        self.log = log
        self.code.begin(log.buffer_info()[0])

    # ------------------------------------------------------------------ the doors
    def _elsewhere(self, *call: Any) -> None:
        """A call that the log does not take."""
        if threading.get_ident() != self.thread:
            self.settle("another thread")
            self.native(*call)
            return
        self.settle("enough operations")
        if len(call) + FIRST > WORDS:
            self.native(*call)
        else:
            self.code.record(*call)

    def _checked(self, *call: Any) -> tuple[int, int] | None:
        """An operation that may fail is run when it is called: the error is the user's line's."""
        self.settle("an operation that checks its arguments' values")
        return self.native(*call)

    def _watchful(self, *call: Any) -> None:
        """While somebody else sees memory, nothing is put off."""
        if any(reference() is not None for reference in self.shared):
            self.native(*call)
            return
        self.shared.clear()
        late.launch = self.code.record
        self.code.record(*call)

    # ------------------------------------------------------------------ what others report
    def keep(self, launch: Any) -> None:
        """A launch made now, which may die before it is run."""
        self.kept.append(launch)

    def share(self, array: np.ndarray | None) -> None:
        """Memory goes to somebody who may look at it, or write to it, at any time: as long as
        `array` lives, or for the rest of the function."""
        if threading.get_ident() != self.thread:
            return
        self.settle("memory shared with others")
        while isinstance(array, np.ndarray) and array.base is not None:
            array = array.base
        try:
            self.shared.append(weakref.ref(array))
        except TypeError:
            self.shared.append(_forever)
        late.launch = self._watchful

    def before_fill(self, tensor: Any, given: bool) -> None:
        """A random stream is about to fill `tensor`, after reading another if `given`. Memory that
        no launch knows yet may be filled before those that are put off."""
        storage, log = tensor._storage, self.log
        if given or storage.version or storage.ptr != tensor._ptr or (
                storage.ptr in log[FIRST:log[launch_log.USED]]):
            self.settle("random numbers into a tensor that is in use")

    def settle(self, why: str) -> None:
        """Run what has been put off."""
        if not self.dead and not self.log[launch_log.CALLS]:
            return
        with self.lock:
            dead, self.dead = self.dead, []
            memory.hold_back(self.dead)
            log = self.log
            self._write_to(self.spare.pop() if self.spare else self._new_log())
            try:
                if log[launch_log.CALLS]:
                    self.finish(log, dead, why)
            finally:
                memory.let_go(dead)
                self.spare.append(log)
                if not self.log[launch_log.CALLS]:
                    self.kept.clear()
                self.log[launch_log.MOST_IN_USE] = memory.in_use() + MOST_BYTES


def _forever() -> bool:
    return True


def _before_fork() -> None:
    launches.settle("a fork")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
