"""One launch for many tensors: the programs of single calls (*rows*), merged into one.

A merged program runs the first steps of all rows as one job, then their second steps, and so on
(compiler/horizontal.py): small tensors cost neither a call from Python nor a wake-up of the pool
each. Its first argument is the address of an array of *words*, the addresses of the tensors, which
its first step puts where the kernels look for them.

The words come from `gather`, native code that walks lists of tensors. A program fits tensors of
exactly the layouts that it was made for, in memory that no two of them share: `gather` looks at
both, at some 15 ns a tensor, or says that somebody must look closer.
"""

from __future__ import annotations

import array
import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.horizontal import LARGE, batches, joinable
from flambeau.compiler.nest import Number, Pointer
from flambeau.compiler.program import GRAIN, Plan
from flambeau.compiler.step import Step
from flambeau.runtime import loader, native, pool
from flambeau.runtime.executable import WORTH_RELEASING, joined_steps, load_kernels, slot_word
from flambeau.runtime.launch import FLOAT, INTEGER, NUMBER, STATUS, Program

__all__ = ["READ", "WRITTEN", "RowPlan", "build_rows", "gatherer", "new_table"]

_NULL = Value("null", "ptr")
_TYPE, _SIZE, _ITEMS = 1, 2, 3  # words of an object; of a list
_VERSION, _CLASS = 4, 6  # words of a Storage (storage_types.py)
_HEAD, _COLUMN = 3, 3  # words of a table's head, and for each of its columns
READ, WRITTEN = range(2)
MUCH = 1 << 20  # bytes of scratch memory that not every row may have at the same time


class RowPlan(NamedTuple):
    """The plan of one row, and what its arguments are.

    Attributes:
        inputs: for each input of the plan the place of its word, or ~i for the number i that all
            rows have in common.
        outputs: for each result the place of its word.
    """

    plan: Plan
    inputs: Sequence[int]
    outputs: Sequence[int]


# ---------------------------------------------------------------------- programs
def build_rows(rows: Sequence[RowPlan], number_kinds: Sequence[type]) -> tuple[Program, int, list]:
    """(program, bytes of its arena, what must live as long as it). Its arguments are the address of
    the words, the numbers, and the arena's address if it needs one."""
    steps, arena_bytes = _in_stages(rows)
    kinds = [INTEGER, *({float: FLOAT, int: NUMBER}.get(kind, INTEGER) for kind in number_kinds)]
    arena = len(kinds)
    if arena_bytes:
        kinds.append(INTEGER)
    load_kernels([step for step, _ in steps])
    template, patches = [0, 0, 0, 0, 0, 0], [(2, 0, 0), (3, STATUS, 0)]
    words, members = array.array("q"), []
    for step, _ in steps:
        first = len(template)
        for slot in step.slots:
            here = len(template)
            if isinstance(slot, Pointer) and slot.kind == "word":
                words.extend((here, slot.number, slot.offset))
            elif isinstance(slot, Pointer):
                patches.append((here, arena, slot.offset))
            elif isinstance(slot, Number):
                patches.append((here, 1 + slot.number, 0))
            template.append(slot_word(slot))
        members.append((step.address, first, step.nchunks))
    joined = batches(steps, pool.get_num_threads(), GRAIN)
    together = joined_steps(joined, [step for step, _ in steps], members, template)
    template[4:6] = words.buffer_info()
    place = loader.load_kernel(*_place_kernel())
    work = sum(work for _, work in steps)
    program = Program.build([(place, 2, 1), *together], patches, kinds, template,
                            work > WORTH_RELEASING, members)
    return program, arena_bytes, [words]


def _in_stages(rows: Sequence[RowPlan]) -> tuple[list[tuple[Step, int]], int]:
    """The steps of all rows with their work, and the size of the common arena: stage by stage, then
    those of large rows, one row after the other."""
    large = [row for row in rows if _is_large(row.plan)]
    joined = [row for row in rows if not _is_large(row.plan)]
    steps, begin = [], []
    size = 0
    for row in joined:
        begin.append(size)
        size += row.plan.arena_bytes
    for stage in range(max((len(row.plan.steps) for row in joined), default=0)):
        for row, offset in zip(joined, begin, strict=True):
            if stage < len(row.plan.steps):
                step = row.plan.steps[stage]
                steps.append(_step(step, row, offset, stage + 1 if joinable(step) else 0))
    for row in large:
        steps += [_step(step, row, 0, 0) for step in row.plan.steps]
        size = max(size, row.plan.arena_bytes)
    return steps, size


def _is_large(plan: Plan) -> bool:
    """Does a row keep all threads busy by itself, and find in cache what its last step has read, or
    need much memory meanwhile?"""
    several = sum(step.work > GRAIN for step in plan.steps) > 1
    return plan.arena_bytes > MUCH or several and plan.work > LARGE


def _step(step: Step, row: RowPlan, arena: int, group: int) -> tuple[Step, int]:
    slots = [_slot(slot, row, arena) for slot in step.slots]
    return dataclasses.replace(step, slots=slots, group=group), step.work


def _slot(slot: object, row: RowPlan, arena: int) -> object:
    """A slot of a row as one of the merged program: pointers name words or the common arena."""
    if isinstance(slot, Number):
        place = row.inputs[slot.number]
        return Number(~place) if place < 0 else Pointer("word", place)
    if not isinstance(slot, Pointer):
        return slot
    if slot.kind == "arena":
        return Pointer("arena", 0, slot.offset + arena)
    word = (row.inputs if slot.kind == "in" else row.outputs)[slot.number]
    return Pointer("word", word, slot.offset)


@functools.cache
def _place_kernel() -> tuple[str, str]:
    """(name, LLVM IR) of the step that fills in the addresses. Its slots: the words, where slots
    begin, the address and the length of a list of (slot, word, bytes to add)."""
    module = Module()
    f = module.function("place", [("ptr", "args"), ("i32", "chunk"), ("i32", "nchunks"),
                                  ("i32", "thread")])
    words, slots, table = (f.load("ptr", f.args["args"], i) for i in range(3))
    with f.loop(0, f.load("i64", f.args["args"], 3), 3) as i:
        slot, word, offset = (f.load("i64", table, f.add(i, k)) for k in range(3))
        f.store(f.add(f.load("i64", words, word), offset), slots, slot)
    return "place", module.text()


# ---------------------------------------------------------------------- lists of tensors
def new_table(base: type, storage: type, columns: Sequence[tuple[Sequence[object], int]]
              ) -> tuple[array.array, list]:
    """(table, what must live as long as it). `base`: the class of tensors; columns: the layouts
    that are expected, and READ or WRITTEN."""
    arrays = [array.array("q", [id(meta) for meta in metas]) for metas, _ in columns]
    table = array.array("q", [len(columns), id(base), id(storage)])
    for metas, (_, use) in zip(arrays, columns, strict=True):
        table.extend((len(metas), use, metas.buffer_info()[0]))
    return table, arrays


@functools.cache
def gatherer(storage_at: int, pointer_at: int, meta_at: int):
    """The function `gather(table, address of memory, *lists)`; where a tensor has its storage, its
    address and its layout, in words. Only where `native.allowed()`.

    It returns 1, or 0 if the lists are not what the table says, or if a storage that will be
    written to occurs twice; nothing has happened then. The memory, 3 words for each tensor,
    receives the addresses of all tensors, then the storages that will be written to (filled up
    with 0), then their versions, which have been raised.
    """
    native.provide(("PyLong_AsUnsignedLongLongMask", "PyLong_AsLong", "PyLong_FromLong",
                    "PyType_IsSubtype", "Py_DecRef", "PyLong_Type"))
    address = loader.load_kernel("gather", _gather_ir(storage_at, pointer_at, meta_at))
    return native.function(address, "gather", native.FASTCALL, "gather(table, memory, *lists)")


def _gather_ir(storage_at: int, pointer_at: int, meta_at: int) -> str:
    module = Module()
    module.texts["PyLong_Type"] = "@PyLong_Type = external global i8"
    f = module.function("gather", [("ptr", "self"), ("ptr", "args"), ("i64", "count")], ret="ptr")
    code = _Gather(f, storage_at, pointer_at, meta_at)
    code.emit()
    return module.text()


class _Gather:
    """Emits `gather`. While storages are compared, each that will be written to has its number in
    place of its version (times two, plus one: objects have even addresses)."""

    def __init__(self, f: Function, storage_at: int, pointer_at: int, meta_at: int):
        self.f = f
        self.at = storage_at, pointer_at, meta_at

    def emit(self) -> None:
        f = self.f
        argv = f.args["args"]
        self.table, self.words = (
            f.cast("inttoptr", f.call("i64", "PyLong_AsUnsignedLongLongMask",
                                      [f.load("ptr", argv, i)]), "ptr") for i in range(2))
        columns = f.load("i64", self.table)
        total = f.var("i64", 0)
        self.failed, done = f.label("failed"), f.label("done")
        self.seen = f.var("i64", 0)  # how many storages have a number now
        self.good = f.var("ptr", _NULL)  # a class known to be one of tensors
        with f.loop(0, columns) as c:
            total.set(f.add(total.get(), self.column(c)[0]))
        self.storages = f.gep(self.words, total.get(), "i64")
        self.versions = f.gep(self.storages, total.get(), "i64")
        self.require(f.cmp("eq", f.args["count"], f.add(columns, 2)))
        place = f.var("i64", 0)
        for wanted in (WRITTEN, READ):
            place.set(Value("0", "i64"))
            with f.loop(0, columns) as c:
                rows, use, _ = self.column(c)
                with f.when(f.cmp("eq", use, wanted)):
                    self.check(c, f.load("ptr", argv, f.add(c, 2)), place.get(), wanted)
                place.set(f.add(place.get(), rows))
        with f.loop(0, self.seen.get()) as k:
            self.raise_version(k)
        with f.loop(self.seen.get(), total.get()) as k:
            f.store(Value("0", "i64"), self.storages, k)
        f.branch(done)
        f.at(self.failed)
        with f.loop(0, self.seen.get()) as k:
            f.store(f.load("i64", self.versions, k), f.load("ptr", self.storages, k), _VERSION)
        f.ret_value(f.call("ptr", "PyLong_FromLong", [Value("0", "i64")]))
        f.at(done)
        f.ret_value(f.call("ptr", "PyLong_FromLong", [Value("1", "i64")]))

    def column(self, c: Value) -> tuple[Value, Value, Value]:
        """(rows, use, address of the layouts)"""
        f = self.f
        at = f.add(f.mul(c, _COLUMN), _HEAD)
        rows, use = f.load("i64", self.table, at), f.load("i64", self.table, f.add(at, 1))
        return rows, use, f.load("ptr", self.table, f.add(at, 2))

    def require(self, condition: Value) -> None:
        fine = self.f.label("fine")
        self.f.branch_if(condition, fine, self.failed)
        self.f.at(fine)

    def check(self, c: Value, given: Value, place: Value, use: int) -> None:
        """Look at the tensors of a list, the first of which has this place among all; note their
        addresses, and number the storages that will be written to."""
        f = self.f
        storage_at, pointer_at, meta_at = self.at
        rows, _, metas = self.column(c)
        self.require(f.cmp("eq", f.load("i64", given, _SIZE), rows))
        items = f.load("ptr", given, _ITEMS)
        with f.loop(0, rows) as i:
            item = f.load("ptr", items, i)
            kind = f.load("ptr", item, _TYPE)
            with f.when(f.cmp("ne", kind, self.good.get())):
                tensors = f.call("i32", "PyType_IsSubtype", [kind, f.load("ptr", self.table, 1)])
                self.require(f.cmp("ne", tensors, 0))
                self.good.set(kind)
            self.require(f.cmp("eq", f.load("i64", item, meta_at), f.load("i64", metas, i)))
            storage = f.load("ptr", item, storage_at)
            self.require(f.cmp("ne", storage, _NULL))
            own = f.cmp("eq", f.load("i64", storage, _TYPE), f.load("i64", self.table, 2))
            self.require(own)
            self.require(f.cmp("ne", f.load("ptr", storage, _CLASS), _NULL))
            version = f.load("i64", storage, _VERSION)
            self.require(f.cmp("eq", f.and_(version, 1), 0))
            pointer = f.call("i64", "PyLong_AsUnsignedLongLongMask",
                             [f.load("ptr", item, pointer_at)])
            f.store(pointer, self.words, f.add(place, i))
            if use == WRITTEN:
                kind = f.load("ptr", f.cast("inttoptr", version, "ptr"), _TYPE)
                self.require(f.cmp("eq", kind, Value("@PyLong_Type", "ptr")))  # it counts
                k = self.seen.get()
                f.store(storage, self.storages, k)
                f.store(version, self.versions, k)
                f.store(f.or_(f.shl(k, 1), 1), storage, _VERSION)
                self.seen.set(f.add(k, 1))

    def raise_version(self, k: Value) -> None:
        f = self.f
        old = f.load("ptr", self.versions, k)
        version = f.add(f.call("i64", "PyLong_AsLong", [old]), 1)
        storage = f.load("ptr", self.storages, k)
        f.store(f.call("ptr", "PyLong_FromLong", [version]), storage, _VERSION)
        f.call("void", "Py_DecRef", [old])
        f.store(version, self.versions, k)
