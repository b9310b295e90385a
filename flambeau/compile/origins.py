"""Where the operations of a capture come from: the user's line, the module, the pass.

A capture notes one entry for each operation. Values are numbered as they are written down, so the
entry of a value is found by its number: nothing hangs on the values themselves.
"""

from __future__ import annotations

import bisect
import functools
import os
import sys
from types import CodeType, FrameType
from typing import Any, NamedTuple

from flambeau.core.errors import Location, describe, is_internal
from flambeau.ir.graph import Value, mark

__all__ = ["BEGINS", "Origin", "Origins", "WALKS", "passes"]

LONGEST = 70  # characters of a line that are shown
_OPTIM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "optim") + os.sep


class Origin(NamedTuple):
    """One operation that a program was captured from.

    Attributes:
        name: of the operation.
        location: the user's line that asked for it; of a gradient, for the operation that it
            belongs to.
        module: dotted path of the innermost module that ran, below the class of the outermost;
            "SGD.step" in an optimizer; empty outside of both.
        stage: "forward", "backward" or "optimizer".
    """

    name: str
    location: Location | None
    module: str
    stage: str

    def line(self) -> str:
        """The user's line, as file name, number and text."""
        if self.location is None:
            return ""
        where = describe(self.location)
        text = f"{os.path.basename(where.filename)}:{where.lineno}"
        source = where.source
        if len(source) > LONGEST:
            source = source[:LONGEST - 3] + "..."
        return f"{text}: {source}" if source else text


class Origins:
    """The operations of one capture, in order.

    Args:
        located: note lines and modules too; not where operations are written down later than the
            user's lines run.
    """

    def __init__(self, located: bool = True) -> None:
        self.located = located
        self.first = mark()
        self.ends: list[int] = []
        self.entries: list[Origin] = []
        self.orders: list[int] = []  # of the tape, negated: they rise
        self._forward: list[Origin] = []
        self._paths: dict[int, dict[int, str]] = {}
        self._known: dict[tuple, str] = {}

    def note(self, name: str, order: int, skip: int = 2) -> None:
        """An operation has been written down; nodes of the tape that are made for it come after
        `order`. `skip` frames belong to the capture."""
        origin = self._origin(name, sys._getframe(skip)) if self.located else (
            Origin(name, None, "", "forward"))
        self.ends.append(mark())
        self.entries.append(origin)
        if origin.stage != "backward":
            self.orders.append(-order)
            self._forward.append(origin)

    def of(self, value: Value) -> Origin | None:
        """The operation that a value was written down for; None if it was not captured."""
        if value.serial < self.first:
            return None
        at = bisect.bisect_left(self.ends, value.serial)
        return self.entries[at] if at < len(self.entries) else None

    def _origin(self, name: str, frame: FrameType | None) -> Origin:
        module_call, backwards = _module_call(), passes()
        location: Location | None = None
        modules: list[Any] = []
        group = ""
        while frame is not None:
            code = frame.f_code
            if code is module_call:
                modules.append(frame.f_locals["self"])
            elif code in backwards:
                found = self._of_node(frame.f_locals.get("node"))
                if found is not None:
                    return found._replace(stage="backward")
            elif code in BEGINS:
                break
            elif not group and code.co_name == "step" and code.co_filename.startswith(_OPTIM):
                group = f"{type(frame.f_locals.get('self')).__name__}.step"
            if location is None and not is_internal[code.co_filename]:
                location = code, frame.f_lasti
            frame = frame.f_back
        if group:
            return Origin(name, location, group, "optimizer")
        return Origin(name, location, self._path(modules[-1], modules[0]) if modules else "",
                      "forward")

    def _of_node(self, node: Any) -> Origin | None:
        """The operation that a node of the tape is the gradient of."""
        order = getattr(node, "tape_order", None)
        if order is None:
            return None
        at = bisect.bisect_left(self.orders, -order) - 1
        return self._forward[at] if at >= 0 else None

    def _path(self, root: Any, module: Any) -> str:
        key = id(root), id(module)
        if key not in self._known:
            if id(root) not in self._paths:
                self._paths[id(root)] = {id(m): name for name, m in root.named_modules()}
            below = self._paths[id(root)].get(id(module), type(module).__name__)
            self._known[key] = f"{type(root).__name__}.{below}" if below else type(root).__name__
        return self._known[key]


WALKS: set[CodeType] = set()
"""Functions that run a tape backwards, besides the engine; `node` is what they are at."""

BEGINS: set[CodeType] = set()
"""Functions that call what is captured."""


@functools.cache
def passes() -> frozenset[CodeType]:
    """All functions that run a tape backwards."""
    from flambeau.autograd import engine

    runs = [getattr(holder, "run", None) for holder in vars(engine).values()
            if isinstance(holder, type) and holder.__module__ == engine.__name__]
    return frozenset([run.__code__ for run in runs if run is not None]) | WALKS


@functools.cache
def _module_call() -> CodeType:
    from flambeau.nn.modules.module import Module

    return Module.__call__.__code__
