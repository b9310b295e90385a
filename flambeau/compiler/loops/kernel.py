"""What all sweeps of a kernel share: the function, its launch arguments, and what results are."""

from __future__ import annotations

from typing import NamedTuple

from flambeau.compiler.emitter import Function, Value
from flambeau.compiler.lanes import Lanes

__all__ = ["Kernel", "Result"]


class Kernel:
    """What all sweeps of a kernel share: the function and its slots."""

    def __init__(self, f: Function):
        self.f = f
        self.k = Lanes(f)
        self._slots: dict[tuple[int, str], Value] = {}

    def slot(self, number: int, type_: str = "i64") -> Value:
        """The content of a launch argument, read once, in the entry block."""
        if (number, type_) not in self._slots:
            f = self.f
            saved, f._body = f._body, f._entry
            value = f.load(type_, f.gep(f.args["args"], number, "i64"))
            f._body = saved
            self._slots[number, type_] = value
        return self._slots[number, type_]

    def address(self, slot: int | tuple[int, int]) -> Value:
        """What a pointer's slot holds; (slot, stride): this thread's copy of a row."""
        if isinstance(slot, int):
            return self.slot(slot, "ptr")
        if slot not in self._slots:
            base, stride = self.slot(slot[0], "ptr"), self.slot(slot[1])
            f = self.f
            saved, f._body = f._body, f._entry
            thread = f.cast("zext", f.args["thread"], "i64")
            self._slots[slot] = f.gep(base, f.mul(thread, stride), "i8")
            f._body = saved
        return self._slots[slot]


class Result(NamedTuple):
    """What a phase of a sweep does with a line: stores it, or reduces it and stores that."""

    value: int
    reduce: str | None
    mode: str
    position: int | None
    where: tuple
