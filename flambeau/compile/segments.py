"""Functions that look at values in the middle: captured parts between the looks.

Such a function runs in Python at every call, so that branches, prints, exceptions and whatever else
Python does are right by construction. Only its operations are put off (`deferral.py`) until
somebody looks at memory; then those since the last look, a *segment*, run: one by one at first, and
as one program (`segment_programs.py`) from the second time that the same sequence is met.
"""

from __future__ import annotations

import array
import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.compile.deferral import Deferral, Log, possible
from flambeau.compile.segment_programs import Likeness, Segment, SegmentProgram
from flambeau.core.errors import user_location
from flambeau.runtime import launch_log
from flambeau.runtime.launch_log import CALLS, DIFFERENT, FIRST, MATCH, USED
from flambeau.tensor import launches
from flambeau.tensor.launches import Launch

__all__ = ["Segments"]

PATIENCE = 8  # calls, mostly of sequences never met before, until nothing is put off any more
MOST_SEGMENTS = 256
FOLLOWERS = 6  # looks of segments that a log is compared with before it is looked up


class Segments:
    """The segments of one function.

    Attributes:
        table: the segments, by what identifies them.
        cuts: (line, why) -> how many different segments ended there.
        unsteady: the sequences are new again and again: nothing is put off any more.
    """

    def __init__(self, exact: bool):
        self.exact = exact
        self.table: dict[tuple, Segment] = {}
        self.start = Segment((), (), (), exact)  # what the first segment of a call follows
        self.last = self.start
        self.cuts: dict[tuple[str, str], int] = {}
        self.patience = PATIENCE
        self.unsteady = False
        self.operations = self.missed = 0
        self.deferral: Deferral | None = None

    def run(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Call the function, its operations in segments where that is possible."""
        if self.unsteady or not possible():
            return function(*args, **kwargs)
        deferral = self.deferral
        if deferral is None or deferral.thread != threading.get_ident():
            deferral = self.deferral = Deferral(self._finish)
            code = launch_log.code()
            self.matches, self.launch_from = code.matches, code.launch_from
        if not deferral.open():
            return function(*args, **kwargs)
        self.last = self.start
        try:
            return function(*args, **kwargs)
        finally:
            deferral.close()
            self._judge()

    def forget(self) -> None:
        """Drop the programs."""
        self.table.clear()
        self.last = self.start = Segment((), (), (), self.exact)

    def _judge(self) -> None:
        """Does putting off pay?"""
        if self.operations:
            mostly_new = 2 * self.missed > self.operations
            self.patience = self.patience - 1 if mostly_new else PATIENCE
            self.unsteady = self.patience <= 0
            self.operations = self.missed = 0

    # ------------------------------------------------------------------ a segment's end
    def _finish(self, log: Log, dead: list, why: str) -> None:
        """Run what was put off: as a program if the sequence is known, else one by one."""
        words, address = log
        count = words[CALLS]
        self.operations += count
        segment = program = None
        for likeness in self.last.followers:
            verdict = self.matches(likeness.address, address, dead)
            if verdict != DIFFERENT:
                segment = likeness.segment
                program = likeness.program if verdict == MATCH else segment.known.get(
                    segment.pointers_in(words))
                break
        if program is None and count > 1 and (segment is None or segment.failure is None):
            try:
                segment, program = self._look_up(words, dead, why)
            except BaseException:  # whatever it is: what the function has asked for is done
                self._one_by_one(log)
                raise
        if program is None:
            self._one_by_one(log)
        else:
            program.run(self.launch_from, address + 8 * FIRST)
        self.last = segment or self.start

    def _one_by_one(self, log: Log) -> None:
        words, address = log
        at = FIRST
        while at < words[USED]:
            program = words[at]
            arguments = ctypes.c_int64.from_address(program + 8).value  # of its header
            self.launch_from(program, address + 8 * (at + 1), 0, 0)
            at += 1 + arguments

    def _look_up(self, log: array.array, dead: list, why: str
                 ) -> tuple[Segment | None, SegmentProgram | None]:
        """(the segment of a log, the program that runs it or None)."""
        words = log[FIRST:log[USED]].tolist()
        segment = self._segment(words, dead, why)
        if segment is None or not segment.seen:
            self.missed += log[CALLS]
        if segment is None:
            return None, None
        segment.seen += 1
        if segment.seen == 1:
            return segment, None
        program = None
        if segment.failure is None:
            try:
                program = segment.program(words)
            except NotImplementedError as error:
                segment.failure = str(error)
        self.last.followers.insert(0, Likeness(segment, words, dead, program))
        del self.last.followers[FOLLOWERS:]
        return segment, program

    def _segment(self, words: Sequence[int], dead: list, why: str) -> Segment | None:
        """The segment that such a log is one of."""
        found, places = _launches(words)
        if found is None:
            return None
        masked: list = list(words)
        for place in places:
            masked[place] = None  # numbers are inputs, whatever they are
        different = dict.fromkeys(masked)
        numbered = dict(zip(different, range(len(different)), strict=True))
        pattern = tuple(map(numbered.__getitem__, masked))
        gone = {storage.ptr for storage in dead if storage.owner is None}
        key = (tuple([launch.address for launch in found]), pattern,
               tuple(map(gone.__contains__, different)))
        segment = self.table.get(key)
        if segment is None:
            if len(self.table) >= MOST_SEGMENTS:
                self.forget()
            segment = self.table[key] = Segment(found, pattern, key[2], self.exact)
            where = (str(user_location()), why)
            self.cuts[where] = self.cuts.get(where, 0) + 1
        return segment

    def explain(self) -> list[str]:
        """Where the function is cut, and the parts between."""
        lines = ["  runs in Python; its operations run in parts that end at:"]
        lines += [f"    {where} ({why})" for where, why in self.cuts]
        for segment in self.table.values():
            if segment.failure is not None:
                lines.append(f"  part: {segment.size} operations, one by one: {segment.failure}")
            lines += [program.explain() for program in segment.programs.values()]
        if self.unsteady:
            lines.append("  The sequence of its operations was new at almost every call (shapes "
                         "that grow, for example), so they run one by one, as without "
                         "torch.compile.")
        return lines


def _launches(words: Sequence[int]) -> tuple[list[Launch] | None, list[int]]:
    """The launches of a log and where their numbers are; None if one of them is unknown."""
    found, places, at = [], [], 0
    while at < len(words):
        launch = launches.by_address.get(words[at])
        if launch is None:
            return None, []
        at += 1
        places += [at + i for i, meta in enumerate(launch.metas) if isinstance(meta, type)]
        at += len(launch.metas) + len(launch.metas_out) + (launch.arena is not None)
        found.append(launch)
    return found, places
