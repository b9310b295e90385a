"""Factorizations as steps of a program: which kernel runs, with which slots."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Module
from flambeau.compiler.expression import Buffer
from flambeau.compiler.factorizations.exponential import EXPONENTIAL
from flambeau.compiler.factorizations.least_squares import LEAST_SQUARES
from flambeau.compiler.factorizations.room import Room, Routine, Task
from flambeau.compiler.factorizations.spectral import SPECTRAL
from flambeau.compiler.factorizations.triangular import TRIANGULAR
from flambeau.compiler.nest import Address, Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target
from flambeau.core.shapes import one_stride
from flambeau.ops.primitives.factors import is_paired

__all__ = ["factorization_steps", "fits", "provide"]

ROUTINES: dict[str, Routine] = TRIANGULAR | SPECTRAL | LEAST_SQUARES | EXPONENTIAL
TOGETHER = 128  # size of matrices up to which threads share a batch; LAPACK has threads of its own
GRAIN = 20000  # work that is worth a chunk
MAX_CHUNKS = 64
MEMBER = 300  # work that a member of the batch takes whatever its size
WORD = 8  # bytes of the longest of Fortran's integers

_library: list[Callable[[str], int]] = []


def provide(address_of: Callable[[str], int]) -> None:
    """Say where LAPACK is: `address_of("dgetrf")` is a function's address, and of "int_bytes" the
    width of its integers."""
    _library[:] = [address_of]


def factorization_steps(library, target: Target, threads: int) -> list[tuple[Step, int]]:
    """The kernel calls of a LibraryStep of a factorization, each with its amount of work."""
    form = library.attrs[0]
    routine = ROUTINES[form.routine]
    batch = math.prod(library.sources[0].shape[:form.lead])
    read = [_as_elements(form, number, b) for number, b in enumerate(library.sources)]
    task = Task(form.routine, form.dtype, form.flags)
    sizes = routine.sizes([shape for shape, _ in read])
    regions, work_stride = _placed(task, routine.regions(task, sizes))
    work = routine.work(sizes) + MEMBER
    apart = threads > 1 and max(sizes.values()) <= TOGETHER or not routine.functions(task)
    nchunks = max(1, min(batch, batch * work // GRAIN, MAX_CHUNKS)) if apart else 1
    values = {"batch": batch, "work": Pointer("work", work_stride * threads),
              "work_stride": work_stride, "int_bytes": _library[0]("int_bytes"), **sizes,
              **{f"w_{name}": place for name, place in regions.items()}}
    for name, of in routine.functions(task).items():
        values[f"f_{name}"] = Address(_library[0](task.letter + of))
    for number, (buffer, (_, steps)) in enumerate(zip(library.sources, read, strict=True)):
        values |= {f"s{number}": _pointer(buffer), f"s{number}_batch": steps[0],
                   f"s{number}_row": steps[1]}
    for number, buffer in enumerate(library.results):
        values |= {f"r{number}": _pointer(buffer),
                   f"r{number}_batch": math.prod(buffer.shape[form.lead:])}
    names = tuple(sorted(values))
    name, text = factorization_kernel(task, names, target)
    slots = [values[slot] for slot in names]
    steps = [(Step(name, lambda: text, slots, nchunks), batch * work)]
    if form.code:
        steps.append(_check(library.results[-1], form, batch, target))
    return steps


def _pointer(buffer: Buffer) -> Pointer:
    return Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)


def _as_elements(form, number: int, buffer: Buffer) -> tuple[tuple, tuple[int, int]]:
    """Of an operand the shape of its matrix, and its (batch, row) strides: those of a batch in its
    own numbers, those of rows in elements."""
    shape, strides, lead = buffer.shape, buffer.strides, form.lead
    batch = one_stride(shape[:lead], strides[:lead])
    assert batch is not None
    parts = 2 if is_paired(form, number, buffer.dtype) else 1
    core = shape[lead:len(shape) - (parts == 2)]
    return core, (batch[1], strides[lead] // parts if len(core) > 1 else 0)


def fits(buffer: Buffer, lead: int, pairs: bool) -> bool:
    """Can a kernel read an operand as it lies? One loop walks its batch, rows are contiguous."""
    if one_stride(buffer.shape[:lead], buffer.strides[:lead]) is None:
        return False
    shape, strides = buffer.shape[lead:], buffer.strides[lead:]
    unit = 1
    if pairs:
        if strides[-1] != 1:
            return False
        shape, strides, unit = shape[:-1], strides[:-1], 2
    if not shape:
        return True
    if strides[-1] != unit and shape[-1] != 1:
        return False
    return len(shape) == 1 or (strides[-2] >= unit * shape[-1] and strides[-2] % unit == 0
                               and strides[-2] >= unit)


def _placed(task: Task, regions: dict[str, int]) -> tuple[dict[str, int], int]:
    """(where each workspace of a thread begins, bytes of all of them)."""
    places, total = {}, 0
    for name, count in regions.items():
        places[name] = total
        size = WORD if name[0] == "i" and name != "im" else (
            task.dtype.to_real().itemsize if name[0] == "r" and name != "re" else
            task.dtype.itemsize)
        total += (count * size + WORD + 63) & -64
    return places, max(total, 64)


@functools.cache
def factorization_kernel(task: Task, names: tuple[str, ...], target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel of a task, whose slots have these names."""
    flags = "".join(f"_{flag}" for flag in task.flags)
    name = f"factor_{task.routine}_{task.dtype.name}{flags}"
    module = Module(target.attributes)
    f = module.function(name, KERNEL_ARGS)
    room = Room(f, task, names, target.lanes(task.dtype.to_real().itemsize))
    start, stop = room.members()
    with f.loop(start, stop) as member:
        room.member = member
        ROUTINES[task.routine].body(room)
    return name, module.text()


# ---------------------------------------------------------------------- errors
def _check(info: Buffer, form, batch: int, target: Target) -> tuple[Step, int]:
    """The step that reports the first member of the batch whose factorization failed."""
    name, text = check_kernel(target)
    slots = [Pointer("status", 0), _pointer(info), batch, form.code, int(form.lead > 0)]
    return Step(name, lambda: text, slots, 1), batch


@functools.cache
def check_kernel(target: Target) -> tuple[str, str]:
    """(name, LLVM IR): status = (code, info | (member + 1) << 32) of the first info that is not 0;
    the member is left out if there is no batch."""
    module = Module(target.attributes)
    f = module.function("factor_check", KERNEL_ARGS)
    args = f.args["args"]
    status, info = f.load("ptr", args), f.load("ptr", f.gep(args, 1, "i64"))
    batch, code, numbered = (f.load("i64", args, place) for place in (2, 3, 4))
    with f.loop(0, batch) as back:
        member = f.sub(f.sub(batch, 1), back)  # the first one is reported last
        found = f.load("i32", info, member)
        with f.when(f.cmp("ne", found, 0)):
            place = f.mul(f.add(member, 1), numbered)
            value = f.or_(f.shl(place, 32), f.cast("zext", found, "i64"))
            f.store(value, status, 1)
            f.store(code, status)
    return "factor_check", module.text()
