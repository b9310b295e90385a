"""The frame of a native kernel: its slots, its share of the work, its workspace.

Every kernel is `void name(ptr args, i32 chunk, i32 nchunks, i32 thread)`; `args` is an array of
64-bit slots.
"""

from __future__ import annotations

from collections.abc import Iterable

from flambeau.compiler.emitter import Function, Module, Value

__all__ = ["kernel_function", "Slots", "thread_workspace", "chunk_range", "share"]


def kernel_function(module: Module, name: str, routines: Iterable[str] = (), part: str = ""
                    ) -> Function:
    """Open a kernel that mostly calls other functions: LLVM spends no time on optimising it.

    `routines`: functions whose addresses are further arguments; `part`: that of a function which
    kernels share.
    """
    return module.function(name, [("ptr", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                                  ("i32", "thread"), *(("ptr", name) for name in routines)],
                           attributes="optnone noinline", part=part)


class Slots:
    """A kernel's arguments by name. Each use loads again: a value that stays live over all loops
    would cost more registers, and LLVM's time, than the load."""

    def __init__(self, f: Function, names: tuple[str, ...], pointers: tuple[str, ...]):
        self.f, self.pointers = f, frozenset(pointers)
        self.index = {name: index for index, name in enumerate(names)}

    def __getitem__(self, name: str) -> Value:
        type_ = "ptr" if name in self.pointers else "i64"
        return self.f.load(type_, self.f.args["args"], self.index[name])


def thread_workspace(f: Function, work: Value, stride: Value) -> Value:
    """This thread's part of the workspace; `stride` in bytes."""
    thread = f.cast("sext", f.args["thread"], "i64")
    return f.gep(work, f.mul(thread, stride), "i8")


def chunk_range(f: Function, tasks: Value) -> tuple[Value, Value]:
    """The half-open range of tasks that belongs to this chunk."""
    chunk = f.cast("sext", f.args["chunk"], "i64")
    count = f.cast("sext", f.args["nchunks"], "i64")
    return (f.udiv(f.mul(tasks, chunk), count), f.udiv(f.mul(tasks, f.add(chunk, 1)), count))


def share(f: Function, total: Value, unit: int, part: Value, parts: Value) -> tuple[Value, Value]:
    """Part `part` of `parts` of 0..total, cut at multiples of `unit`."""
    units = f.ceil_div(total, unit)
    start = f.mul(f.udiv(f.mul(units, part), parts), unit)
    stop = f.mul(f.udiv(f.mul(units, f.add(part, 1)), parts), unit)
    return start, f.smin(stop, total)
