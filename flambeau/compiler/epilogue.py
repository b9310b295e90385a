"""Epilogues: elementwise phases that a product's kernel runs on each finished rectangle.

The generator of a product calls `Epilogue.define` once in its module and then, wherever a rectangle
of the result is complete (after the last block of the sum, while it is in cache), the function that
it defined. The phases' launch arguments follow the kernel's own slots.
"""

from __future__ import annotations

import dataclasses
import hashlib

from flambeau.compiler.codegen import emit_sweep
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.fusing import ACCUMULATOR
from flambeau.compiler.lanes import memory_type
from flambeau.compiler.loops.kernel import Kernel
from flambeau.compiler.loops.sweep import Sweep
from flambeau.compiler.nest import Phase, Pointer, canonical
from flambeau.core.dtypes import by_name

__all__ = ["Epilogue", "call_finish", "epilogue_of"]

_NAME = "finish"


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """What to do with finished rectangles; equal keys give equal code.

    Attributes:
        key: the canonical form of the phases.
        accumulator: the slot (of this epilogue) that stands for the product; its content is unused.
    """

    key: tuple
    accumulator: int

    @property
    def name(self) -> str:
        return hashlib.sha256(repr(self.key).encode()).hexdigest()[:16]

    def define(self, module: Module) -> None:
        """Define the function that `call` calls."""
        _, _, phases = self.key
        f = module.function(_NAME, [
            ("ptr", "args"), ("ptr", "sums"), ("i64", "pitch"), ("i64", "batch"), ("i64", "row"),
            ("i64", "rows"), ("i64", "column"), ("i64", "columns")], internal=True)
        kernel = Kernel(f)
        sweeps = [_RectangleSweep(kernel, phase, self.accumulator) for phase in phases]
        stored = {result[-1][0] for phase in phases for result in phase[6]}
        for sweep in sweeps:
            sweep.hoist(stored)
        with f.loop(0, f.args["rows"]) as i:
            outer = [f.args["batch"], f.add(f.args["row"], i)]
            offset = f.mul(i, f.args["pitch"])
            for sweep in sweeps:
                sweep.start = offset
                emit_sweep(sweep, outer)

    def address(self) -> Value:
        """Of the function that `define` defines."""
        return Value(f"@{_NAME}", "ptr")

    def call(self, f: Function, first_slot: int, sums: Value, pitch: Value | int,
             batch: Value | int, rows: tuple, columns: tuple) -> None:
        """Finish a rectangle; for the arguments see `call_finish`."""
        f.call("void", _NAME, _arguments(f, first_slot, sums, pitch, batch, rows, columns))


def call_finish(f: Function, finish: Value, first_slot: int, sums: Value, pitch: Value | int,
                batch: Value | int, rows: tuple, columns: tuple) -> None:
    """Finish a rectangle by the function at the address `finish`.

    Args:
        f: the kernel; `first_slot` is where the epilogue's launch arguments begin.
        sums: address of the rectangle's first element, in the product's own dtype; the next
            row is `pitch` elements further.
        batch: which matrix.
        rows, columns: (first, count) in the matrix.
    """
    f.call_pointer("void", finish, _arguments(f, first_slot, sums, pitch, batch, rows, columns))


def _arguments(f: Function, first_slot: int, sums: Value, pitch: Value | int, batch: Value | int,
               rows: tuple, columns: tuple) -> list[Value]:
    args = f.gep(f.args["args"], first_slot, "i64")
    return [args, sums, *(f.typed(n, "i64") for n in (pitch, batch, *rows, *columns))]


def epilogue_of(phases: tuple[Phase, ...], lanes: int) -> tuple[Epilogue, list]:
    """(epilogue, contents of its slots) of phases over (batch, rows | columns in lanes)."""
    key, slots = canonical([[phase] for phase in phases], [lanes] * len(phases))
    accumulator = next((number for number, slot in enumerate(slots)
                        if isinstance(slot, Pointer) and slot.kind == ACCUMULATOR), -1)
    if accumulator >= 0:
        slots[accumulator] = 0
    return Epilogue(key, accumulator), slots


class _RectangleSweep(Sweep):
    """A phase over the columns of one row of a rectangle.

    Attributes:
        start: where this row's sums begin.
        local: the column within the rectangle.
    """

    def __init__(self, kernel: Kernel, phase: tuple, accumulator: int):
        super().__init__(kernel, phase, [])
        self.accumulator = accumulator
        self.start: Value | int = 0
        self.local: Value | None = None

    def extent(self, loop: int) -> Value:
        return self.f.args["columns"]

    def lane_body(self, i: Value, mask: Value | None, body, part: int) -> None:
        self.local = i
        super().lane_body(self.f.add(self.f.args["column"], i), mask, body, part)

    def line_load(self, dtype, operands, data, lanes, line) -> Value:
        slot, memory_name, _, _ = data
        if slot != self.accumulator:
            return super().line_load(dtype, operands, data, lanes, line)
        f, source = self.f, by_name(memory_name)
        type_ = memory_type(source)
        address = f.gep(f.args["sums"], f.add(self.start, self.local), type_)
        if lanes == 1:
            raw = f.load(type_, address)
        elif self.k.active is None:
            raw = f.load(vector(lanes, type_), address)
        else:
            raw = f.masked_load(vector(lanes, type_), address, self.k.active)
        return self.k.widen(raw, source)
