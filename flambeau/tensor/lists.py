"""Operations over lists of tensors: one launch for all of them.

`over_lists("adam_step", MUTATE)` is a function with the parameters of the op, of which some are
lists (*columns*): it does what a loop over the op would do, call by call (*row* by row). Rows whose
layouts are known go out as one launch (runtime/rows.py). Whatever else there is (somebody who
watches operations, gradients to record, tensors that share memory or have none) goes row by row.
"""

from __future__ import annotations

import array
import ctypes
import functools
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flambeau.autograd.grad_mode import LEVELS, RECORD, mode
from flambeau.core import errors
from flambeau.core.device import CPU
from flambeau.ops.derive import OpCall
from flambeau.runtime import memory, native
from flambeau.runtime.rows import READ, WRITTEN, RowPlan, build_rows, gatherer, new_table
from flambeau.tensor.dispatch import (
    ACTIVE,
    COMPOSED,
    FUNCTIONS,
    aval,
    check_castable,
    flatten,
    key_of,
    metas_of,
    normalised,
)
from flambeau.tensor.functions import ops
from flambeau.tensor.launches import (
    Launch,
    LaunchCache,
    fresh,
    late,
    plan_call,
    resettable,
    run_native,
)
from flambeau.tensor.meta import TensorBase

__all__ = ["INPLACE", "MUTATE", "NEW", "drop_gradients", "over_lists"]

NEW, INPLACE, MUTATE = "new", "inplace", "mutate"
"""The forms of an op: with new results, into its first argument, into those that it mutates."""


@functools.cache
def over_lists(name: str, form: str) -> ListOp:
    """The op `name`, in one of its forms, over lists."""
    return ListOp(name, form)


def drop_gradients(parameters: Iterable, set_to_none: bool) -> None:
    """Drop the gradients of parameters, or fill them with zeros."""
    if set_to_none:
        for parameter in parameters:
            parameter.grad = None
        return
    found = [grad for parameter in parameters if (grad := parameter._grad) is not None]
    for grad in found:
        if grad.grad_fn is not None:
            grad.detach_()
        elif grad._rg:
            grad.requires_grad_(False)
    if found:
        over_lists("zero", INPLACE)(found)


class ListOp:
    """One form of an op over lists. Its arguments follow the op's parameters; tensors or numbers
    may be given as lists, all of one length. With NEW the results are lists, else there are none.
    """

    def __init__(self, name: str, form: str):
        self.function = FUNCTIONS[name]
        self.record = self.function.record
        self.form = form
        self.single = getattr(ops, name.split(".")[-1] + ("" if form is NEW else "_"))
        names = [p.name for p in self.record.params]
        self.defaults = [(p.name, p.default) for p in self.record.params]
        self.targets = {NEW: (), INPLACE: (0,)}.get(form) if form is not MUTATE else tuple(
            names.index(name) for name in self.record.mutates)
        self.known, self.recent = LaunchCache(), LaunchCache()
        resettable.add(self)

    def forget(self) -> None:
        """Drop the compiled programs."""
        self.known.clear()
        self.recent.clear()

    def __call__(self, *args: Any, **options: Any) -> Any:
        if options or len(args) < len(self.defaults):
            args += tuple([options.get(name, default)
                           for name, default in self.defaults[len(args):]])
        current = mode()
        if not ACTIVE and late.deferred is None and not current & LEVELS and (
                current & 3 != RECORD or not _requires_grad(args)):
            try:
                key = self._short_key(args)
                merged = self.recent.get(key)
            except (AttributeError, TypeError, IndexError):
                key = merged = None
            made = None if merged is None else merged.run(args)
            if made is None and key is not None and native.allowed():
                found = self._found(args)
                if found is not None and found is not merged:
                    self.recent[key] = found
                    made = found.run(args)
            if made is not None:
                return made[0] if len(made) == 1 else tuple(made) if made else None
        return self.each(args)

    def each(self, args: Sequence) -> Any:
        """Row by row."""
        params = self.record.params
        rows = max(len(arg) for arg in args if arg.__class__ is list)
        made = []
        for i in range(rows):
            row = [arg[i] if arg.__class__ is list else arg for arg in args]
            given = [arg for param, arg in zip(params, row, strict=True) if not param.keyword_only]
            named = {param.name: arg for param, arg in zip(params, row, strict=True)
                     if param.keyword_only}
            made.append(self.single(*given, **named))
        if self.form is not NEW:
            return None
        return made if not made or not isinstance(made[0], tuple) else tuple(
            list(column) for column in zip(*made, strict=True))

    # ------------------------------------------------------------------ known calls
    def _short_key(self, args: Sequence) -> tuple:
        """Tells calls apart well enough to guess: the rest is seen when tensors are gathered."""
        row = [arg[0] if arg.__class__ is list else arg for arg in args]
        rest = [len(arg) if isinstance(arg[0], TensorBase) else _number_parts(param, arg)
                for param, arg in zip(self.record.params, args, strict=True)
                if arg.__class__ is list]
        return (*key_of(self.record, row), *rest)

    def _found(self, args: Sequence) -> Merged | None:
        """The launch of exactly these rows, made if necessary; None if there cannot be one."""
        count = max(len(arg) for arg in args if arg.__class__ is list)
        if any(arg.__class__ is list and len(arg) != count for arg in args):
            return None
        rows = [[arg[i] if arg.__class__ is list else arg for arg in args] for i in range(count)]
        if not all(_plain(arg) for row in rows for arg in row if isinstance(arg, TensorBase)):
            return None
        rows = [normalised(self.record, row) for row in rows]
        key = tuple([key_of(self.record, row) for row in rows]), tuple(
            [arg.__class__ is list for arg in args])
        if key not in self.known:
            self.known[key] = self._made(args, rows)
        return self.known[key]

    def _made(self, args: Sequence, rows: Sequence[list]) -> Merged | None:
        known: dict = {}
        planned = []
        for row in rows:
            key = key_of(self.record, row)
            if key not in known:
                known[key] = self._planned(row)
            planned.append(known[key])
        if any(each is None for each in planned):
            return None
        return Merged(self, args, planned)

    def _planned(self, row: list) -> tuple | None:
        """(call, structure, plan, layouts of new results) of one row."""
        targets = [row[place] for place in self.targets]
        if any(_overlaps_itself(target) for target in targets):
            return None
        structure, flat = flatten(self.record, row)
        call = OpCall(self.record, structure, [aval(a) for a in flat])
        into = aliases = None
        if self.form is not NEW:
            for value, target in zip(call.graph.outputs, targets, strict=True):
                check_castable(value.dtype, target._meta.dtype)
            into = [target._meta for target in targets]
            aliases = {number: next(j for j, a in enumerate(flat) if a is target)
                       for number, target in enumerate(targets)}
        plan, outs = plan_call(call, metas_of(flat), into, aliases)
        return None if plan.checked else (call, structure, plan, outs)


def _requires_grad(args: Sequence) -> bool:
    return any(arg.__class__ is list and any(getattr(t, "_rg", False) for t in arg)
               or isinstance(arg, TensorBase) and arg._rg for arg in args)


def _number_parts(param: Any, numbers: Sequence) -> tuple:
    """What a key holds for the numbers of a list: their types, and which have kernels of their
    own."""
    return tuple([None if x is param.default else (param.fixed.get(x), x.__class__)
                  for x in numbers])


def _plain(tensor: TensorBase) -> bool:
    meta = tensor._meta
    return type(tensor) not in COMPOSED and meta.strided and meta.device is CPU


def _overlaps_itself(target: TensorBase) -> bool:
    meta = target._meta
    return any(stride == 0 and size > 1
               for size, stride in zip(meta.shape, meta.strides, strict=True))


class Merged:
    """A launch for rows of certain layouts.

    Attributes:
        columns: places of the arguments that are tensors or lists of them.
        numbers: places of numbers that all rows have in common; `listed`: of lists of numbers.
        outs: for each result the layouts, with their pools, of the tensors that are made.
    """

    def __init__(self, op: ListOp, args: Sequence, rows: Sequence[tuple]):
        self.op = op
        params = op.record.params
        inputs = {place for _, structure, _, _ in rows
                  for place, (kind, _) in enumerate(structure) if kind == "input"}
        first = [arg[0] if arg.__class__ is list else arg for arg in args]
        self.columns = [p for p in range(len(params)) if isinstance(first[p], TensorBase)]
        others = [p for p in sorted(inputs) if p not in self.columns]
        self.listed = [p for p in others if args[p].__class__ is list]
        self.numbers = [p for p in others if args[p].__class__ is not list]
        self.outs = [] if op.form is not NEW else [
            [(meta, memory.pool_on(meta.device, meta.nbytes)) for meta in metas]
            for metas in zip(*[outs for *_, outs in rows], strict=True)]
        self._build(args, rows)

    def _build(self, args: Sequence, rows: Sequence[tuple]) -> None:
        targets = self.op.targets
        columns = [_column(args[p]) for p in self.columns]
        layouts = [([t._meta for t in column], WRITTEN if p in targets else READ)
                   for p, column in zip(self.columns, columns, strict=True)]
        layouts += [([meta for meta, _ in outs], READ) for outs in self.outs]
        begin, total = [], 0
        for metas, _ in layouts:
            begin.append(total)
            total += len(metas)
        self.total, self.listed_at = total, 24 * total
        places = dict(zip(self.columns, begin, strict=False))
        outs_at = begin[len(self.columns):]
        listed = {p: 3 * total + k * len(rows) for k, p in enumerate(self.listed)}

        def word(p: int, i: int) -> int:
            if p in self.numbers:
                return ~self.numbers.index(p)
            if p in listed:
                return listed[p] + i
            return places[p] + (i if args[p].__class__ is list else 0)

        plans = []
        for i, (_, structure, plan, _) in enumerate(rows):
            inputs = [word(p, i) for p, (kind, _) in enumerate(structure) if kind == "input"]
            outputs = [at + i for at in outs_at] or [word(p, i) for p in targets]
            plans.append(RowPlan(plan, inputs, outputs))
        call = rows[0][0]
        program, arena_bytes, keep = build_rows(plans, [type(args[p]) for p in self.numbers])
        self.launch = Launch(call, (), program, (), arena_bytes, False)
        self.address = program.address
        self.arena = memory.size_class(arena_bytes) if arena_bytes else None
        nbytes = self.listed_at + 8 * len(self.listed) * len(rows)
        self.words, self.nbytes = memory.size_class(nbytes), nbytes
        table, metas = new_table(TensorBase, memory.Storage, layouts)
        self.table, self.keep = table.buffer_info()[0], (keep, table, metas, layouts)
        self.gather = _gather()

    def run(self, args: Sequence) -> list[list] | None:
        """Run for these arguments, unless the tensors are others than expected; gives the lists of
        new tensors, or None."""
        columns = [_column(args[p]) for p in self.columns]
        made = [[fresh(meta, pool) for meta, pool in outs] for outs in self.outs]
        words = self.words.new(self.nbytes)
        if not self.gather(self.table, words.ptr, *columns, *made):
            return None
        at = words.ptr + self.listed_at
        for place in self.listed:
            numbers = _words(args[place])
            ctypes.memmove(at, numbers.buffer_info()[0], 8 * len(numbers))
            at += 8 * len(numbers)
        argv = [args[p] for p in self.numbers]
        if self.arena is not None:
            arena = self.arena.new(self.launch.arena_bytes)
            argv.append(arena.ptr)
        if late.launch is run_native:
            run_native(self.address, words.ptr, *argv)
        else:
            late.launch(self.address, words.ptr, *argv)
        if self.op.form is not NEW:
            errors.note_writes(_Writes(words, self.total), errors.caller_location(3))
        return made


def _words(numbers: Sequence) -> array.array:
    """Numbers as words: floating ones as the bits of doubles."""
    kinds = {number.__class__ for number in numbers}
    if len(kinds) == 1:
        return array.array("d" if kinds == {float} else "q", numbers)
    packed = [struct.pack("d" if number.__class__ is float else "q", number) for number in numbers]
    return array.array("q", b"".join(packed))


def _column(arg: Any) -> list:
    return arg if arg.__class__ is list else [arg]


class _Writes:
    """To which versions a launch has taken the storages that it has written to."""

    __slots__ = ("words", "total")

    def __init__(self, words: Any, total: int):
        self.words, self.total = words, total

    def __call__(self, storage: Any) -> int | None:
        """The version of a storage; None if it was not written to."""
        read = array.array("q", ctypes.string_at(self.words.ptr + 8 * self.total, 16 * self.total))
        for k in range(self.total):
            if read[k] == id(storage):
                return read[self.total + k]
        return None


@functools.cache
def _gather() -> Callable:
    """`gather` for the attributes of tensors, where they lie in memory."""
    probe = TensorBase.__new__(TensorBase)
    marks = [object() for _ in range(3)]
    probe._storage, probe._ptr, probe._meta = marks
    words = array.array("q", ctypes.string_at(id(probe), TensorBase.__basicsize__))
    return gatherer(*(words.index(id(mark)) for mark in marks))
