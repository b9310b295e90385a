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
import ctypes
import operator
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from flambeau.runtime import launch as launching
from flambeau.runtime import launch_log, memory, native
from flambeau.runtime.launch_log import CALLS, FIRST
from flambeau.tensor import launches
from flambeau.tensor.launches import late

__all__ = ["Deferral", "Limits", "Log", "deferring", "possible"]



class Limits(NamedTuple):
    """When what has been put off is run at the latest.

    Attributes:
        words: of a log; `calls`: launches in it.
        nbytes: memory taken meanwhile: what is held back is not reused.
    """

    words: int
    calls: int
    nbytes: int


LIMITS = Limits(1 << 15, 2000, 64 << 20)

_address = operator.attrgetter("ptr")
_turn = threading.Lock()  # the doors are the process's: one deferral at a time


def possible() -> bool:
    """Can operations be put off here? Not where memory is managed in Python."""
    return native.allowed()


def deferring() -> bool:
    """Are the operations of this thread put off at the moment?"""
    deferral = late.deferred
    return deferral is not None and deferral.thread == threading.get_ident()


class Log(NamedTuple):
    """Where launches are written down (runtime/launch_log.py), and its address."""

    words: array.array
    address: int


# they live for ever: a thread may be about to write to one
_spare: defaultdict[Limits, list[Log]] = defaultdict(list)


def _new_log(limits: Limits) -> Log:
    words = launch_log.new_log(limits.words)
    words[launch_log.ELSEWHERE] = id(_elsewhere)
    words[launch_log.IN_USE] = memory.in_use_address()
    words[launch_log.MOST_CALLS], words[launch_log.ALLOWANCE] = limits.calls, limits.nbytes
    return Log(words, words.buffer_info()[0])


def _elsewhere(*call: Any) -> None:
    """A call that a log does not take: it is full, or another thread makes the call."""
    launches.settle("enough operations")
    if deferring() and len(call) + FIRST < LIMITS.words:
        late.deferred.record(*call)
    else:
        late.at_once(*call)


class Deferral:
    """Launches of one thread, put off.

    Attributes:
        log: where they are written; another takes its place while it is run.
        dead: storages that have died since the last settling, still alive.
        late_kernels: programs that are made meanwhile get their kernels when they are run.
    """

    late_kernels = False

    def __init__(self, finish: Callable[[Log, list, str], None], limits: Limits = LIMITS):
        """`finish(log, dead, why)` runs the calls in `log`."""
        self.finish, self.limits = finish, limits
        self.thread = threading.get_ident()
        self.lock = threading.RLock()
        self.dead: list = []
        self.kept: list = []
        self.shared: list = []
        self.busy = False
        self.native = launching.launcher()
        code = launch_log.code()
        self.record, self.begin = code.record, code.begin
        self.hold_back, self.let_go = memory.held_back()
        self.in_use = ctypes.c_int64.from_address(memory.in_use_address())

    def open(self) -> bool:
        """Begin; False if somebody else's launches are put off already."""
        if not _turn.acquire(blocking=False):
            return False
        self.hold_back(self.dead)
        self.log = self._empty_log()
        self.begin(self.log.address)
        late.deferred = self
        late.at_once = self.native
        late.checked, late.launch = self._checked, self.record
        return True

    def close(self) -> None:
        """Run what is left, and put nothing off any more."""
        with self.lock:
            try:
                self.settle("the end of the function")
            finally:
                late.deferred = None
                late.launch = late.checked = late.at_once = self.native
                self.hold_back(None)
                _spare[self.limits].append(self.log)
                self.dead.clear()
                self.shared.clear()
                _turn.release()

    def drop(self) -> None:
        """Forget what has been put off: something else has done, or will do, the same."""
        finish, self.finish = self.finish, _dropped
        try:
            self.settle()
        finally:
            self.finish = finish

    def _empty_log(self) -> Log:
        spare = _spare[self.limits]
        log = spare.pop() if spare else _new_log(self.limits)
        log.words[launch_log.THREAD] = self.thread
        return log

    # ------------------------------------------------------------------ the doors
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

    def before_fill(self, tensor: Any, given: bool, generator: Any) -> None:
        """A random stream is about to fill `tensor`, after reading another if `given`. Memory that
        no launch knows yet may be filled before those that are put off."""
        storage, words = tensor._storage, self.log.words
        if given or storage.version or storage.ptr != tensor._ptr or (
                storage.ptr in words[FIRST:words[launch_log.USED]]):
            self.settle("random numbers into a tensor that is in use")

    def settle(self, why: str = "") -> None:
        """Run what has been put off."""
        if not self.dead and not self.log.words[CALLS] and not self.busy:
            return
        with self.lock:
            if late.deferred is not self:  # closed, while this thread was waiting
                return
            self.busy = True  # before the log changes: other threads wait for what is run here
            dead, log = self.dead, self.log
            self.dead = []
            self.hold_back(self.dead)
            self.log = self._empty_log()
            self.begin(self.log.address)
            try:
                if log.words[CALLS]:
                    self.finish(log, dead, why)
            finally:
                dead.sort(key=_address)  # the next call finds the same memory in the same order
                self.let_go(dead)
                self.log.words[launch_log.MOST_IN_USE] = self.in_use.value + self.limits.nbytes
                _spare[self.limits].append(log)
                self.busy = False
                if self.kept and not self.log.words[CALLS]:
                    self.kept.clear()


def _forever() -> bool:
    return True


def _dropped(log: Log, dead: list, why: str) -> None:
    """Nothing of it is run."""


def _before_fork() -> None:
    launches.settle("a fork")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
