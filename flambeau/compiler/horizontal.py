"""Steps that do not depend on one another run as one job of the thread pool.

The updates of all parameters, a weight's gradient beside the input's, sums for biases, fills and
casts: each of them alone is often too small to be worth waking a thread, and ends with threads that
wait for the last chunk. Since the work of a chunk is cut by (chunk, number of chunks) alone, chunks
of different kernels may run in any company: the bits are the same.

A *set* is consecutive steps of a program of which none reads or writes what another one writes.
`independent` finds sets from what steps touch, `batches` (when sizes are known) decides what of a
set runs as a *batch*: its chunks, those of the longest first, stand in one line, which is cut into
parts of about equal work. Each part is a chunk of the batch, done by one call of `together`. A
batch of little work is one part: the calling thread does it, and nobody is woken.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

from flambeau.compiler.cutting import buffers_read
from flambeau.compiler.emitter import Module
from flambeau.compiler.expression import Buffer
from flambeau.compiler.joint_steps import JOINT_RULES
from flambeau.compiler.nest import Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.sweeps import Nest

__all__ = ["Batch", "batches", "independent", "joinable", "table", "together_kernel"]

LARGE = 1 << 23  # work of a step that gains nothing: it fills all threads for long enough
MOST_PARTS = 64
# kinds of steps that wait for threads, or change hidden state
ALONE = (*JOINT_RULES, "random", "factor")

Memory = Callable[[Buffer], tuple[str, int]]


# ---------------------------------------------------------------------- what may run together
def independent(steps: Sequence, memory: Memory) -> list[int]:
    """For each nest or library step the number of its set; 0: it runs alone.

    `memory` names what a buffer lies in: buffers that share memory have the same name.
    """
    found, number = [], 0
    reads: set[tuple[str, int]] = set()
    writes: set[tuple[str, int]] = set()
    last = 0
    for step in steps:
        if not _may_join(step):
            found.append(0)
            last = 0
            continue
        read, written = _names(buffers_read(step), memory), _names(_written(step), memory)
        if not last or written & (reads | writes) or read & writes:
            number += 1
            last, reads, writes = number, set(), set()
        reads |= read
        writes |= written
        found.append(number)
    return found


def _may_join(source) -> bool:
    return isinstance(source, Nest) or source.kind not in ALONE


def joinable(step: Step) -> bool:
    """May a kernel call run beside others that touch other memory?"""
    return _may_join(step.source)


def _names(buffers: Iterable[Buffer | None], memory: Memory) -> set[tuple[str, int]]:
    return {memory(buffer) for buffer in buffers
            if buffer is not None and buffer.kind in ("in", "out", "temp")}


def _written(step) -> list[Buffer | None]:
    if isinstance(step, Nest):
        return [phase.target for phase in step.phases()]
    return [step.target, *step.results, *(phase.target for phase in step.epilogue)]


# ---------------------------------------------------------------------- what does
@dataclasses.dataclass(frozen=True)
class Batch:
    """Steps `first` to `last` (both included) of a program, which run as one job.

    Attributes:
        order: the steps, in the order in which their chunks stand in line.
        parts: for each part, and for one behind the last, the place in line of its first chunk and
            which of `order` that belongs to.
    """

    first: int
    last: int
    order: tuple[int, ...]
    parts: tuple[tuple[int, int], ...]

    @property
    def nchunks(self) -> int:
        """Into how many chunks the job goes."""
        return len(self.parts) - 1


def batches(steps: Sequence[tuple[Step, int]], threads: int, grain: int) -> list[Batch]:
    """What runs together of kernel calls with their amounts of work, in order; steps that are in no
    batch run by themselves. `grain`: work that is worth a part."""
    found, at = [], 0
    while at < len(steps):
        end = at + 1
        if _joins(*steps[at]):
            while end < len(steps) and steps[end][0].group == steps[at][0].group \
                    and _joins(*steps[end]):
                end += 1
        if end - at > 1:
            found.append(_batch(steps, at, end, threads, grain))
        at = end
    return found


def _joins(step: Step, work: int) -> bool:
    if not step.group or step.after:
        return False
    temporary = work > LARGE  # two at a time would need the temporaries of both at a time
    return not any(isinstance(slot, Pointer) and (
        slot.kind == "status" or temporary and slot.kind in ("temp", "work"))
        for slot in step.slots)


def _batch(steps: Sequence[tuple[Step, int]], first: int, end: int, threads: int,
           grain: int) -> Batch:
    each = {at: steps[at][1] / steps[at][0].nchunks for at in range(first, end)}
    order = tuple(sorted(each, key=lambda at: -each[at]))  # long chunks first: nobody waits long
    total = sum(steps[at][1] for at in order)
    size = max(grain, total / MOST_PARTS)
    parts, place, filled = [(0, 0)], 0, 0.0
    for member, at in enumerate(order):
        for _ in range(steps[at][0].nchunks):
            if filled and filled + each[at] / 2 > size and threads > 1:
                parts.append((place, member))
                filled = 0.0
            filled += each[at]
            place += 1
    return Batch(first, end - 1, order, (*parts, (place, len(order) - 1)))


# ---------------------------------------------------------------------- how
def table(batch: Batch, steps: Sequence[Step], places: Sequence[int], here: int) -> list[int]:
    """The slots of `together`: for each part, and for one behind the last, its place in line and
    its member; then for each member its kernel, where its slots are, its place in line and its
    number of chunks. `places`: the first slot of each step of the program; `here`: of the table."""
    words = [word for part in batch.parts for word in part]
    place = 0
    for at in batch.order:
        step = steps[at]
        words += (step.address, places[at] - here, place, step.nchunks)
        place += step.nchunks
    return words


@functools.cache
def together_kernel() -> tuple[str, str]:
    """(name, LLVM IR) of the kernel that runs the chunks of one part of a batch, as thread
    `thread`; `nchunks` is the number of parts."""
    module = Module()
    f = module.function("together", [("ptr", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                                     ("i32", "thread")])
    args = f.args["args"]
    part = f.shl(f.cast("sext", f.args["chunk"], "i64"), 1)
    begin, first = f.load("i64", args, part), f.load("i64", args, f.add(part, 1))
    end, last = f.load("i64", args, f.add(part, 2)), f.load("i64", args, f.add(part, 3))
    members = f.shl(f.add(f.cast("sext", f.args["nchunks"], "i64"), 1), 1)
    with f.loop(first, f.add(last, 1)) as member:  # the last one may have no chunk in this part
        row = f.add(members, f.shl(member, 2))
        place, count = f.load("i64", args, f.add(row, 2)), f.load("i64", args, f.add(row, 3))
        low = f.smax(f.sub(begin, place), 0)
        high = f.smin(f.sub(end, place), count)
        kernel = f.load("ptr", args, row)
        own = f.gep(args, f.load("i64", args, f.add(row, 1)), "i64")
        with f.loop(low, high) as chunk:
            f.call_pointer("void", kernel, [own, f.cast("trunc", chunk, "i32"),
                                            f.cast("trunc", count, "i32"), f.args["thread"]])
    return "together", module.text()
