"""A log of launches: `record` writes a call down that `launch` would make, `launch_from` makes it.

A log is an array of 64-bit words that Python owns:

    0 words used    2 calls     4 address of a Python function    6 the most bytes of memory in use
    1 words at most 3 thread    5 address of that count           7 the most calls
    8 bytes of memory that may be taken while it is written
    9... for each call the program's address and its arguments, converted as `launch` converts them

`record` hands a call on to the Python function if another thread makes it, or if the log is full,
or if more memory than that is in use.

`matches` compares a log with a *table*, which says what it should be like, at a few ns a word:

    0 words    1 storages that have died
    2... for each word (rule, value): EXACT this value, SAME as the word at this index, ANY value,
         or HERE: an address, which was this value the last time
    then for each dead storage the index of the word that is its address, -1 for one that no call
         mentions
"""

from __future__ import annotations

import array
import functools
import sys
from collections.abc import Callable

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.runtime import launch as launching
from flambeau.runtime import loader, native
from flambeau.runtime.launch import _Launch

__all__ = ["ANY", "CALLS", "DIFFERENT", "EXACT", "FIRST", "HERE", "MATCH", "MOVED", "SAME", "USED",
           "LogCode", "code", "new_log"]

(USED, CAPACITY, CALLS, THREAD, ELSEWHERE, IN_USE, MOST_IN_USE, MOST_CALLS,
 ALLOWANCE) = range(9)
FIRST = 9  # index of the first call
EXACT, SAME, ANY, HERE = range(4)
DIFFERENT, MATCH, MOVED = range(3)  # MOVED: like the table, but at other addresses

_CLASS, _ADDRESS = 6, 8  # words of a Storage (storage_types.py)
_ITEMS = 3  # word of a list that points to its items
_NULL = Value("null", "ptr")


class LogCode:
    """The native functions.

    begin(address of a log): where `record` writes; it is emptied.
    record(program's address, *arguments): None
    launch_from(program, address of words, address of indices or 0, arena): launches a program with
        the words at these indices as its arguments (0: one after the other), and the address of
        its arena last, if that is not 0.
    matches(address of a table, address of a log, list of dead storages): DIFFERENT, MATCH or MOVED
    """

    def __init__(self, addresses: dict[str, int]):
        self.begin = native.function(addresses["begin"], "begin", native.ONE, "begin(log)")
        self.record = native.function(addresses["record"], "record", native.FASTCALL,
                                      "record(program, *args)")
        self.launch_from = native.function(addresses["launch_from"], "launch_from",
                                           native.FASTCALL,
                                           "launch_from(program, words, indices, arena)")
        self.matches = native.function(addresses["matches"], "matches", native.FASTCALL,
                                       "matches(table, log, dead)")


@functools.cache
def code() -> LogCode:
    """The native functions, made at the first use; only where `native.allowed()`."""
    launching.launcher()  # provides the API that is shared
    native.provide(("PyThread_get_thread_ident", "PyObject_Vectorcall", "PyLong_FromLong",
                    "PyList_Size"))
    return LogCode(loader.load_module(log_ir(sys.version_info < (3, 12))))


def new_log(words: int) -> array.array:
    """An empty log."""
    log = array.array("q", bytes(8 * words))
    log[USED], log[CAPACITY] = FIRST, words
    return log


def log_ir(incref_none: bool) -> str:
    """LLVM IR of the functions."""
    module = Module()
    for name in ("_Py_NoneStruct", "PyFloat_Type", "PyExc_TypeError", "PyExc_RuntimeError"):
        module.texts[name] = f"@{name} = external global i8"
    module.texts["log"] = "@log = internal global ptr null"
    launching.declare_messages(module)
    _emit_begin(module)
    _Record(_function(module, "record"), incref_none).emit()
    _LaunchFrom(_function(module, "launch_from"), incref_none).emit()
    _emit_matches(module)
    return module.text()


def _function(module: Module, name: str) -> Function:
    return module.function(name, [("ptr", "self"), ("ptr", "args"), ("i64", "count")], ret="ptr")


def _emit_begin(module: Module) -> None:
    f = module.function("begin", [("ptr", "self"), ("ptr", "log")], ret="ptr")
    address = f.call("i64", "PyLong_AsUnsignedLongLongMask", [f.args["log"]])
    log = f.cast("inttoptr", address, "ptr")
    f.store(log, Value("@log", "ptr"))
    f.store(Value(str(FIRST), "i64"), log, USED)
    f.store(Value("0", "i64"), log, CALLS)
    in_use = f.load("i64", f.load("ptr", log, IN_USE))
    f.store(f.add(in_use, f.load("i64", log, ALLOWANCE)), log, MOST_IN_USE)
    none = Value("@_Py_NoneStruct", "ptr")
    f.call("void", "Py_IncRef", [none])
    f.ret_value(none)


class _Record(_Launch):
    """record(program, *args)"""

    def emit(self) -> None:
        f = self.f
        self.failed = f.label("failed")
        log = f.load("ptr", Value("@log", "ptr"))
        used = f.load("i64", log, USED)
        after, calls = f.add(used, self.count), f.load("i64", log, CALLS)
        thread = f.call("i64", "PyThread_get_thread_ident", [])
        bytes_used = f.load("i64", f.load("ptr", log, IN_USE))
        away = f.cmp("ne", thread, f.load("i64", log, THREAD))
        for over in (f.cmp("sgt", after, f.load("i64", log, CAPACITY)),
                     f.cmp("sgt", bytes_used, f.load("i64", log, MOST_IN_USE)),
                     f.cmp("sge", calls, f.load("i64", log, MOST_CALLS))):
            away = f.or_(away, over)
        hand_on, write = f.label("hand_on"), f.label("write")
        f.branch_if(away, hand_on, write)
        f.at(hand_on)
        callee = f.load("ptr", log, ELSEWHERE)
        made = f.call("ptr", "PyObject_Vectorcall", [callee, self.argv, self.count, _NULL])
        f.line(f"ret {made}")
        f.at(write)
        self.take_program()
        stored = f.gep(log, used, "i64")
        f.store(f.cast("ptrtoint", self.program, "i64"), stored)
        self.convert(stored)
        works = f.cmp("ne", self.word(0), 0)  # a program without steps need not be run later
        f.store(f.select(works, after, used), log, USED)
        f.store(f.select(works, f.add(calls, 1), calls), log, CALLS)
        none = Value("@_Py_NoneStruct", "ptr")
        if self.incref_none:
            f.call("void", "Py_IncRef", [none])
        f.line(f"ret {none}")
        f.at(self.failed)
        f.ret_value(_NULL)


class _LaunchFrom(_Launch):
    """launch_from(program, words, indices, arena)"""

    def take_program(self) -> None:
        f = self.f
        words = [f.call("i64", "PyLong_AsUnsignedLongLongMask", [f.load("ptr", self.argv, i)])
                 for i in range(4)]
        self.program, self.words, self.indices = (f.cast("inttoptr", w, "ptr") for w in words[:3])
        self.arena = words[3]

    def convert(self, stored: Value) -> None:
        f = self.f
        count = self.word(1)
        in_order = f.cmp("eq", self.indices, _NULL)
        with f.when(f.cmp("ne", self.arena, 0)):
            f.store(self.arena, stored, count)
        plain = f.select(f.cmp("ne", self.arena, 0), f.sub(count, 1), count)
        with f.when_else(in_order) as otherwise:
            f.call("void", "llvm.memcpy.p0.p0.i64", [
                f.gep(stored, Value("1", "i64"), "i64"), self.words, f.shl(plain, 3),
                Value("false", "i1")])
            otherwise()
            with f.loop(0, plain) as i:
                word = f.load("i64", self.words, f.load("i64", self.indices, i))
                f.store(word, stored, f.add(i, 1))


def _emit_matches(module: Module) -> None:
    """matches(table, log, dead)"""
    f = _function(module, "matches")
    argv = f.args["args"]
    table, log = (f.cast("inttoptr", f.call("i64", "PyLong_AsUnsignedLongLongMask",
                                            [f.load("ptr", argv, i)]), "ptr") for i in range(2))
    dead = f.load("ptr", argv, 2)
    different = f.label("different")

    def require(condition: Value) -> None:
        fine = f.label("fine")
        f.branch_if(condition, fine, different)
        f.at(fine)

    count, deaths = f.load("i64", table, 0), f.load("i64", table, 1)
    require(f.cmp("eq", f.load("i64", log, USED), f.add(count, FIRST)))
    require(f.cmp("eq", f.call("i64", "PyList_Size", [dead]), deaths))
    words = f.gep(log, Value(str(FIRST), "i64"), "i64")
    moved = f.var("i64")
    moved.set(Value("0", "i64"))
    with f.loop(0, count) as i:
        rule = f.add(f.shl(i, 1), 2)
        kind, value = f.load("i64", table, rule), f.load("i64", table, f.add(rule, 1))
        word = f.load("i64", words, i)
        with f.when_else(f.cmp("eq", kind, SAME)) as otherwise:
            require(f.cmp("eq", word, f.load("i64", words, value)))
            otherwise()
            unequal = f.cmp("ne", word, value)
            with f.when(f.and_(unequal, f.cmp("ne", kind, ANY))):
                require(f.cmp("ne", kind, EXACT))
                moved.set(Value("1", "i64"))
    _match_dead(f, table, words, dead, require)
    f.line(f"ret {f.call('ptr', 'PyLong_FromLong', [f.add(moved.get(), MATCH)])}")
    f.at(different)
    f.ret_value(f.call("ptr", "PyLong_FromLong", [Value(str(DIFFERENT), "i64")]))


def _match_dead(f: Function, table: Value, words: Value, dead: Value, require: Callable) -> None:
    """Have the same storages died, in the same order?"""
    items = f.load("ptr", dead, _ITEMS)
    count, deaths = f.load("i64", table, 0), f.load("i64", table, 1)
    first = f.add(f.shl(count, 1), 2)
    with f.loop(0, deaths) as i:
        index = f.load("i64", table, f.add(first, i))
        storage = f.load("ptr", items, i)
        foreign = f.cmp("eq", f.load("ptr", storage, _CLASS), _NULL)
        address = f.load("i64", storage, _ADDRESS)
        with f.when_else(f.cmp("slt", index, 0)) as otherwise:
            with f.loop(0, f.select(foreign, Value("0", "i64"), count)) as j:
                require(f.cmp("ne", address, f.load("i64", words, j)))
            otherwise()
            require(f.cmp("eq", foreign, Value("false", "i1")))
            require(f.cmp("eq", address, f.load("i64", words, index)))
