"""Putting launches off: what dispatch launches is written down, and run when somebody looks.

While a `Deferral` is open, `late.launch` writes calls down instead of making them: a tuple of the
program's address and its arguments. Everything else of an operation happens as ever: results are
allocated (their memory undefined for now), the tape records, versions count. Whoever touches memory
otherwise than by launches calls `settle` first. Memory that dies meanwhile is held back, since
launches that were written down still need it; so nothing that is put off can meet reused memory,
and the calls may run at any later time, in their order.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from flambeau.runtime import launch as launching
from flambeau.runtime import memory
from flambeau.tensor import launches
from flambeau.tensor.launches import late

__all__ = ["Deferral", "deferring"]

MOST = 2000  # launches that are put off before they are run
MOST_BYTES = 256 << 20  # of memory taken meanwhile: what is held back is not reused
_LOOK = 15  # how often (a mask) that is looked at

_turn = threading.Lock()  # the doors are the process's: one deferral at a time


def deferring() -> bool:
    """Are the operations of this thread put off at the moment?"""
    return late.deferred is not None and late.deferred.thread == threading.get_ident()


class Deferral:
    """Launches of one thread, put off.

    Attributes:
        log: (address of the program, *its arguments) for each.
        dead: storages that have died since the last settling, still alive.
    """

    def __init__(self, finish: Callable[[list, list, str], None]):
        """`finish(log, dead, why)` runs the calls in `log`."""
        self.finish = finish
        self.thread = threading.get_ident()
        self.lock = threading.RLock()
        self.log: list[tuple] = []
        self.dead: list = []
        self.kept: list = []
        self.shared: list = []
        self.native = launching.launcher()
        self.record = self._recorder()

    def open(self) -> bool:
        """Begin; False if that is not possible now."""
        if not _turn.acquire(blocking=False):
            return False
        if not memory.hold_back(self.dead):
            _turn.release()
            return False
        self.limit = memory.memory_stats()["in_use"] + MOST_BYTES
        late.deferred = self
        late.at_once = self.native
        late.checked, late.launch = self._checked, self.record
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
            _turn.release()

    # ------------------------------------------------------------------ the doors
    def _recorder(self) -> Callable:
        log, append, owner, thread = self.log, self.log.append, self.thread, threading.get_ident

        def record(*call: Any) -> None:
            if thread() != owner:
                self.settle("another thread")
                self.native(*call)
                return
            append(call)
            count = len(log)
            if not count & _LOOK and (count >= MOST or memory.in_use() > self.limit):
                self.settle("enough operations")

        return record

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
        late.launch = self.record
        self.record(*call)

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
        storage = tensor._storage
        if given or storage.version or storage.ptr != tensor._ptr or any(
                storage.ptr in call for call in self.log):
            self.settle("random numbers into a tensor that is in use")

    def settle(self, why: str) -> None:
        """Run what has been put off."""
        if not self.log and not self.dead:
            return
        with self.lock:
            dead, self.dead = self.dead, []
            memory.hold_back(self.dead)
            log = self.log[:]
            del self.log[:len(log)]
            try:
                if log:
                    self.finish(log, dead, why)
            finally:
                memory.let_go(dead)
                if not self.log:
                    self.kept.clear()
                self.limit = memory.in_use() + MOST_BYTES


def _forever() -> bool:
    return True


def _before_fork() -> None:
    launches.settle("a fork")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
