"""Functions that look at values in the middle: captured parts between the looks.

Such a function runs in Python at every call, so that branches, prints, exceptions and whatever else
Python does are right by construction. Only its operations are put off (`deferral.py`) until
somebody looks at memory; then those since the last look, a *segment*, run: one by one at first, and
as one program (`segment_programs.py`) from the second time that the same sequence is met.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import chain
from typing import Any

from flambeau.compile.deferral import Deferral
from flambeau.compile.segment_programs import Segment
from flambeau.core.errors import user_location
from flambeau.runtime import launch as launching
from flambeau.tensor import launches

__all__ = ["Segments"]

PATIENCE = 8  # calls, mostly of sequences never met before, until nothing is put off any more
MOST_SEGMENTS = 256
FEW = 2  # launches that are not worth a program


class Segments:
    """The segments of one function.

    Attributes:
        cuts: (line, why) -> how many different segments ended there.
        unsteady: the sequences are new again and again: nothing is put off any more.
    """

    def __init__(self, exact: bool):
        self.exact = exact
        self.table: dict[tuple, Segment] = {}
        self.cuts: dict[tuple[str, str], int] = {}
        self.patience = PATIENCE
        self.unsteady = False
        self.operations = self.missed = 0
        self.deferral: Deferral | None = None

    def run(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Call the function, its operations in segments where that is possible."""
        deferral = self.deferral
        if deferral is None or deferral.thread != threading.get_ident():
            deferral = self.deferral = Deferral(self._finish)
        if self.unsteady or not deferral.open():
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        finally:
            deferral.close()
            self._judge()

    def forget(self) -> None:
        """Drop the programs."""
        self.table.clear()

    def _judge(self) -> None:
        """Does putting off pay?"""
        mostly_new = 2 * self.missed > self.operations
        self.patience = self.patience - 1 if mostly_new else PATIENCE
        self.unsteady = self.patience <= 0
        self.operations = self.missed = 0

    # ------------------------------------------------------------------ a segment's end
    def _finish(self, log: list[tuple], dead: list, why: str) -> None:
        """Run what was put off: as a program if the sequence is known, else one by one."""
        if len(log) < FEW:
            self._one_by_one(log)
            return
        words = list(chain.from_iterable(log))
        different = dict.fromkeys(words)
        numbered = dict(zip(different, range(len(different)), strict=True))
        pattern = tuple(map(numbered.__getitem__, words))
        gone = {storage.ptr for storage in dead if storage.owner is None}
        key = (tuple([call[0] for call in log]), pattern,
               tuple(map(gone.__contains__, different)))
        segment = self.table.get(key)
        if segment is None:
            segment = self._met(key, why)
        segment.seen += 1
        self.operations += len(log)
        if segment.seen == 1:
            self.missed += len(log)
        if segment.seen == 1 or segment.failure is not None:
            self._one_by_one(log)
            return
        try:
            program = segment.program(words)
        except NotImplementedError as error:
            segment.failure = str(error)
            self._one_by_one(log)
            return
        except BaseException:  # whatever it is: what the function has asked for is done
            self._one_by_one(log)
            raise
        program.run(launching.launcher(), words)

    def _one_by_one(self, log: list[tuple]) -> None:
        native = launching.launcher()
        for call in log:
            native(*call)

    def _met(self, key: tuple, why: str) -> Segment:
        """A sequence met for the first time."""
        if len(self.table) >= MOST_SEGMENTS:
            self.table.clear()
        addresses, pattern, gone = key
        found = [launches.by_address.get(address) for address in addresses]
        segment = self.table[key] = Segment(found, pattern, gone, self.exact)
        where = (str(user_location()), why)
        self.cuts[where] = self.cuts.get(where, 0) + 1
        return segment

    def explain(self) -> list[str]:
        """Where the function is cut, and the parts between."""
        lines = ["  runs in Python; its operations run in parts that end at:"]
        lines += [f"    {where}: {why}" for where, why in self.cuts]
        for segment in self.table.values():
            if segment.failure is not None:
                lines.append(f"  part: {segment.size} operations, one by one: {segment.failure}")
            lines += [program.explain() for program in segment.programs.values()]
        if self.unsteady:
            lines.append("  The sequence of its operations was new at almost every call (shapes "
                         "that grow, for example), so they run one by one, as without "
                         "torch.compile.")
        return lines
