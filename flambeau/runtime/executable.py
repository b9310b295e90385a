"""Plans -> launchable programs: kernels are loaded and addresses filled in.

A *late* program gets its kernels when it is first run, or asked to be `ready`: until then its
header names one kernel, which calls back. So a program costs little that is never run.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence

from flambeau.compiler.horizontal import Batch, table, together_kernel
from flambeau.compiler.nest import Address, Float, Number, Pointer
from flambeau.compiler.program import Plan
from flambeau.compiler.step import Step
from flambeau.runtime import (
    lapack,  # noqa: F401 - tells the compiler where LAPACK is
    launch_log,
    loader,
    plan_cache,
    pool,
)
from flambeau.runtime.launch import FLOAT, HEADER_WORDS, INTEGER, NUMBER, STATUS, Program
from flambeau.runtime.loader import load_kernel

__all__ = ["build_late", "build_program", "joined_steps", "load_kernels", "make_ready", "missing",
           "ready", "slot_word"]

WORTH_RELEASING = 1 << 17  # work from which other Python threads are let run meanwhile


def build_program(plan: Plan, number_kinds: Sequence[type | None], outputs: int) -> Program:
    """The program of `plan`. Its arguments are, in order: one per graph input (an address, or the
    number where `number_kinds` gives its type), the `outputs` addresses, and the arena's address if
    there is one."""
    inputs = len(number_kinds)
    kinds = [{float: FLOAT, int: NUMBER}.get(kind, INTEGER) for kind in number_kinds]
    kinds += [INTEGER] * outputs
    if plan.arena_bytes:
        kinds.append(INTEGER)
    template: list[int] = [0, 0]
    members, patches = [], []
    load_kernels(plan.steps)
    for step in plan.steps:
        first = len(template)
        for slot in step.slots:
            if isinstance(slot, Pointer):
                argument = {"in": slot.number, "out": inputs + slot.number,
                            "arena": inputs + outputs, "status": STATUS}[slot.kind]
                patches.append((len(template), argument, slot.offset))
            elif isinstance(slot, Number):
                patches.append((len(template), slot.number, 0))
            template.append(slot_word(slot))
        members.append((step.address, first, step.nchunks))
    plan_cache.keep(plan)
    steps = joined_steps(plan.batches, plan.steps, members, template)
    return Program.build(steps, patches, kinds, template, plan.work > WORTH_RELEASING, members)


def slot_word(slot: object) -> int:
    """What a template holds in place of a slot; 0 for those that are patched."""
    if isinstance(slot, Address):
        return slot.value
    if isinstance(slot, Float):
        return struct.unpack("<q", struct.pack("<d", slot.value))[0]
    return 0 if isinstance(slot, Pointer | Number) else int(slot)


def load_kernels(steps: Iterable[Step]) -> None:
    """Give the steps the addresses of their kernels."""
    texts: dict[tuple, str] = {}
    waiting = [(step, _kernel(step)) for step in steps if not step.address]
    for step, key in waiting:
        if key not in texts:
            texts[key] = step.text()
    loader.load_all(texts.values(), pool.get_num_threads())
    loaded = {key: (load_kernel(key[0], text), loader.digest_of(text))
              for key, text in texts.items()}
    for step, key in waiting:
        step.address, step.module = loaded[key]


def _kernel(step: Step) -> tuple:
    """What tells the kernels of a program apart: the name of a nest says all of it."""
    return (step.name,) if step.name.startswith("nest_") else (step.name, step.text())


def joined_steps(batches: Iterable[Batch], steps: Sequence[Step], members: list,
                 template: list[int]) -> list[tuple[int, int, int]]:
    """The kernel calls, those of each batch as one; its table is added to the template."""
    calls, at = [], 0
    places = [first for _, first, _ in members]
    for batch in batches:
        calls += members[at:batch.first]
        kernel = load_kernel(*together_kernel())
        calls.append((kernel, len(template), batch.nchunks))
        template += table(batch, steps, places, len(template))
        at = batch.last + 1
    return calls + members[at:]


# ---------------------------------------------------------------------- late programs
_serial = itertools.count(1)
_late: dict[int, weakref.ref] = {}  # programs by number
_waiting: weakref.WeakKeyDictionary[Program, Callable[[], Program]] = weakref.WeakKeyDictionary()
_real: weakref.WeakKeyDictionary[Program, Program] = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def build_late(plan: Plan, number_kinds: Sequence[type | None], outputs: int) -> Program:
    """Like `build_program`, but its kernels are loaded when it is first run, or by `ready`. Only
    where `native.allowed()`."""
    kinds = [{float: FLOAT, int: NUMBER}.get(kind, INTEGER) for kind in number_kinds]
    kinds += [INTEGER] * (outputs + bool(plan.arena_bytes))
    number = next(_serial)
    template = [0, 0, number, 0] + [0] * len(kinds)
    patches = [(3, STATUS, 0), *[(4 + i, i, 0) for i in range(len(kinds))]]
    program = Program.build([(_first_run()[1], 2, 1)], patches, kinds, template)
    _waiting[program] = functools.partial(build_program, plan, number_kinds, outputs)
    _late[number] = weakref.ref(program)
    weakref.finalize(program, _late.pop, number, None)
    return program


def ready(program: Program) -> None:
    """Load the kernels of a late program, if they are not."""
    if program not in _waiting:
        return
    with _lock:
        build = _waiting.get(program)
        if build is None:  # another thread was faster
            return
        real = _real[program] = build()  # kept: the header points into it
        program._memory[:HEADER_WORDS] = real._memory[:HEADER_WORDS]
        del _waiting[program]


def make_ready(programs: Iterable[Program]) -> None:
    """Load the kernels of late programs."""
    programs = list(programs)
    load_kernels([step for program in programs for step in _unloaded(program)])
    for program in programs:
        ready(program)


def missing(programs: Iterable[Program]) -> int:
    """How many kernels of late programs would have to be compiled."""
    wanted = {step.text() for program in programs for step in _unloaded(program)}
    return sum(not loader.compiled(text) for text in wanted)


def _unloaded(program: Program) -> list[Step]:
    build = _waiting.get(program)
    return [] if build is None else [step for step in build.args[0].steps if not step.address]


def _run_first(arguments: int, chunk: int, chunks: int, thread: int) -> None:
    """The kernel of late programs: its slots are (number, address of the status, arguments...)."""
    words = ctypes.cast(arguments, ctypes.POINTER(ctypes.c_int64))
    try:
        program = _late[words[0]]()  # alive: it is being run
        ready(program)
        failure = launch_log.code().launch_from(program.address, arguments + 16, 0, 0)
        if failure is not None:
            status = ctypes.cast(words[1], ctypes.POINTER(ctypes.c_int64))
            status[1], status[0] = failure[1], failure[0]
    except BaseException as error:  # raised in this thread as soon as native code has returned
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(threading.get_ident()), ctypes.py_object(type(error)))


@functools.cache
def _first_run() -> tuple[object, int]:
    """(the callback, its address)"""
    made = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32,
                            ctypes.c_int32)(_run_first)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))  # programs may outlive this module
    return made, ctypes.cast(made, ctypes.c_void_p).value
