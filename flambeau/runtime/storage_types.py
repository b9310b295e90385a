"""Storage and SizeClass as native types: the hot path of allocation.

A freed Storage goes back to its class's free list as it is, its block, its `ptr` and `nbytes`
integers and its place in Python's heap included; `new` pops it, gives it one reference and a
version of 0. Both hold the GIL, so plain loads and stores do. The attributes are object members,
which CPython's specialising interpreter reads as fast as __slots__.

    Storage     16 ptr  24 nbytes  32 version  40 owner  (objects)  48 class  56 next  64 address
    SizeClass   16 first free  24 size  32 mapped  40 ledger  (words)  48 refill  56 zero  (objects)

A Storage whose class is null is foreign: it does not own what ptr points to.

While operations are put off (compile/deferral.py), memory that dies may still be needed by them:
`hold_back(list)` lets storages that die go to that list, alive, until `hold_back(None)`, and
`let_go(list)` empties such a list, whose storages die now.

While `mark_new(+1, ...)` is in effect somewhere in the process, a new Storage asks whether the
mode of its own thread has a bit set, and then begins with another version than 0.
"""

from __future__ import annotations

import ctypes
import functools

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.runtime import loader, native

__all__ = ["NativeTypes", "build"]

_TYPE, _PTR, _NBYTES, _VERSION, _OWNER, _CLASS, _NEXT, _ADDRESS = 1, 2, 3, 4, 5, 6, 7, 8  # words
_STORAGE_BYTES = 72
_FIRST, _SIZE, _MAPPED, _LEDGER, _REFILL, _ZERO = 2, 3, 4, 5, 6, 7
_CLASS_BYTES = 64
_IN_USE, _PEAK, _CACHED, _CAP = range(4)  # words of memory.py's ledger

_NULL = Value("null", "ptr")
_MARKING = Value("@marking", "ptr")  # words: regions, mode variable, bit of the mode, version
_REGIONS, _MODE, _BIT, _MARK = range(4)
_API = ("_Py_NoneStruct", "Py_IncRef", "Py_DecRef", "PyObject_Malloc", "PyObject_Free",
        "PyObject_Init", "PyErr_NoMemory", "PyErr_Occurred", "PyObject_CallFunctionObjArgs",
        "PyLong_AsUnsignedLongLongMask", "PyLong_FromLong", "PyList_Append", "PyList_SetSlice",
        "PyList_Size", "PyLong_AsLong", "PyContextVar_Get")


class NativeTypes:
    """The two types and `make`, as memory.py wants them."""

    def __init__(self, storage: type, class_: type, make, exchange, hold_back, let_go, mark_new):
        self.storage = storage
        self.exchange = exchange
        self.mark_new = mark_new
        self.hold_back, self.let_go = hold_back, let_go
        self._class = class_
        self._make = make

    def size_class(self, size: int, ledger: ctypes.Array, refill, mapped: bool):
        made = native.immortal(self._class())  # its storages hold its address
        made.size, made.mapped, made.ledger = size, int(mapped), ctypes.addressof(ledger)
        made.refill, made.zero = refill, 0
        return made

    def make(self, pool, ptr: int, nbytes: int, owner: object):
        return self._make(self.storage, pool, ptr, nbytes, owner)


@functools.cache
def build() -> NativeTypes:
    """Make the types."""
    native.provide(_API)
    code = loader.load_module(storage_ir())
    member, method = native.Member, native.MethodDef
    fixed = native.READONLY
    storage = native.heap_type("flambeau.runtime.memory.Storage", _STORAGE_BYTES, [
        member(b"ptr", native.OBJECT_EX, 8 * _PTR, fixed, b"address of the first byte"),
        member(b"nbytes", native.OBJECT_EX, 8 * _NBYTES, fixed, b"bytes that may be used"),
        member(b"version", native.OBJECT_EX, 8 * _VERSION, 0, b"counts in-place changes"),
        member(b"owner", native.OBJECT, 8 * _OWNER, 0, b"keeps foreign memory alive"),
    ], [], code["storage_dealloc"], "Memory that is freed with this object.", instances=False)
    class_ = native.heap_type("flambeau.runtime.memory.SizeClass", _CLASS_BYTES, [
        member(b"size", native.LONGLONG, 8 * _SIZE, 0, b"bytes of each block"),
        member(b"mapped", native.LONGLONG, 8 * _MAPPED, 0, b"1: blocks come from mmap"),
        member(b"ledger", native.LONGLONG, 8 * _LEDGER, 0, b"address of the statistics"),
        member(b"refill", native.OBJECT_EX, 8 * _REFILL, 0, b"makes a Storage with a new block"),
        member(b"zero", native.OBJECT_EX, 8 * _ZERO, 0, b"the first version"),
    ], [method(b"new", code["class_new"], native.ONE,
               b"new(nbytes): a Storage of nbytes, which must not exceed size."),
        method(b"trim", code["class_trim"], native.NOARGS,
               b"Give the free blocks back to the system.")],
        0, "The free list of one size.", instances=True)
    make = native.function(code["make"], "make", native.FASTCALL,
                           "make(type, pool or None, address, nbytes, owner)")
    exchange = native.function(code["exchange"], "exchange", native.FASTCALL, "exchange(a, b)")
    hold_back = native.function(code["hold_back"], "hold_back", native.ONE, "hold_back(list)")
    let_go = native.function(code["let_go"], "let_go", native.ONE, "let_go(list)")
    mark_new = native.function(code["mark_new"], "mark_new", native.FASTCALL,
                               "mark_new(change, mode, bit, version)")
    return NativeTypes(storage, class_, make, exchange, hold_back, let_go, mark_new)


def storage_ir() -> str:
    """LLVM IR of the types' functions."""
    module = Module()
    module.texts["_Py_NoneStruct"] = "@_Py_NoneStruct = external global i8"
    module.texts["held_back"] = "@held_back = internal global ptr null"
    module.texts["marking"] = "@marking = internal global [4 x i64] zeroinitializer"
    module.texts["PyObject_CallFunctionObjArgs"] = (
        "declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)")
    _emit_discard(module)
    _emit_release(module)
    _emit_mark(module)
    _emit_new(module)
    _emit_make(module)
    _emit_dealloc(module)
    _emit_trim(module)
    _emit_exchange(module)
    _emit_hold_back(module)
    _emit_let_go(module)
    _emit_mark_new(module)
    return module.text()


def _emit_new(module: Module) -> None:
    """SizeClass.new(nbytes)"""
    f = module.function("class_new", [("ptr", "self"), ("ptr", "nbytes")], ret="ptr")
    pool, nbytes = f.args["self"], f.args["nbytes"]
    first = f.load("ptr", pool, _FIRST)
    reuse, refill = f.label("reuse"), f.label("refill")
    f.branch_if(f.cmp("ne", first, _NULL), reuse, refill)
    f.at(refill)
    callee = f.load("ptr", pool, _REFILL)
    made = f.emit("ptr", f"call ptr (ptr, ...) @PyObject_CallFunctionObjArgs({callee}, {pool}, "
                         f"{nbytes}, ptr null)")
    f.line(f"ret {made}")
    f.at(reuse)
    f.store(f.load("ptr", first, _NEXT), pool, _FIRST)
    f.store(Value("1", "i64"), first)
    _put(f, first, _NBYTES, nbytes)
    _put(f, first, _VERSION, f.load("ptr", pool, _ZERO))
    _mark_if_asked(f, first)
    ledger, size = f.load("ptr", pool, _LEDGER), f.load("i64", pool, _SIZE)
    f.store(f.sub(f.load("i64", ledger, _CACHED), size), ledger, _CACHED)
    in_use = f.add(f.load("i64", ledger, _IN_USE), size)
    f.store(in_use, ledger, _IN_USE)
    f.store(f.smax(f.load("i64", ledger, _PEAK), in_use), ledger, _PEAK)
    f.ret_value(first)


def _put(f: Function, storage: Value, word: int, new: Value) -> None:
    """Set an object member. A reused storage often holds the right object already."""
    old = f.load("ptr", storage, word)
    with f.when(f.cmp("ne", old, new)):
        f.call("void", "Py_IncRef", [new])
        f.store(new, storage, word)
        f.call("void", "Py_DecRef", [old])


def _mark_if_asked(f: Function, storage: Value) -> None:
    with f.when(f.cmp("ne", f.load("i64", _MARKING, _REGIONS), 0)):
        f.call("void", "mark", [storage])


def _emit_mark(module: Module) -> None:
    """Give a new storage the other version if the thread's mode has the bit."""
    f = module.function("mark", [("ptr", "storage")], internal=True)
    found = f.var("ptr", _NULL)
    f.call("i32", "PyContextVar_Get", [f.load("ptr", _MARKING, _MODE), _NULL, found.pointer])
    mode = found.get()
    with f.when(f.cmp("ne", mode, _NULL)):
        word = f.call("i64", "PyLong_AsLong", [mode])
        f.call("void", "Py_DecRef", [mode])
        with f.when(f.cmp("ne", f.and_(word, f.load("i64", _MARKING, _BIT)), 0)):
            _put(f, f.args["storage"], _VERSION, f.load("ptr", _MARKING, _MARK))


def _emit_mark_new(module: Module) -> None:
    """mark_new(change, mode, bit, version): the caller keeps the objects."""
    f = module.function("mark_new", [("ptr", "self"), ("ptr", "args"), ("i64", "count")],
                        ret="ptr")
    change, mode, bit, version = (f.load("ptr", f.args["args"], i) for i in range(4))
    f.store(mode, _MARKING, _MODE)
    f.store(f.call("i64", "PyLong_AsLong", [bit]), _MARKING, _BIT)
    f.store(version, _MARKING, _MARK)
    regions = f.add(f.load("i64", _MARKING, _REGIONS), f.call("i64", "PyLong_AsLong", [change]))
    f.store(regions, _MARKING, _REGIONS)
    none = Value("@_Py_NoneStruct", "ptr")
    f.call("void", "Py_IncRef", [none])
    f.ret_value(none)


def _emit_make(module: Module) -> None:
    """make(type, pool or None, address, nbytes, owner)"""
    f = module.function("make", [("ptr", "self"), ("ptr", "args"), ("i64", "count")], ret="ptr")
    kind, pool, address, nbytes, owner = (f.load("ptr", f.args["args"], i) for i in range(5))
    failed, number, fine = f.label("failed"), f.label("number"), f.label("fine")
    word = f.call("i64", "PyLong_AsUnsignedLongLongMask", [address])
    with f.when(f.cmp("eq", word, -1)):
        raised = f.cmp("ne", f.call("ptr", "PyErr_Occurred", []), _NULL)
        f.branch_if(raised, failed, number)
        f.at(number)
    memory = f.call("ptr", "PyObject_Malloc", [Value(str(_STORAGE_BYTES), "i64")])
    none_left = f.label("none_left")
    f.branch_if(f.cmp("ne", memory, _NULL), fine, none_left)
    f.at(none_left)
    f.call("ptr", "PyErr_NoMemory", [])
    f.branch(failed)
    f.at(fine)
    made = f.call("ptr", "PyObject_Init", [memory, kind])
    none = Value("@_Py_NoneStruct", "ptr")
    f.store(f.select(f.cmp("eq", pool, none), _NULL, pool), made, _CLASS)
    f.store(_NULL, made, _NEXT)
    f.store(word, made, _ADDRESS)
    own = f.select(f.cmp("eq", owner, none), _NULL, owner)
    f.store(own, made, _OWNER)
    f.call("void", "Py_IncRef", [own])  # both functions ignore null
    f.store(address, made, _PTR)
    f.call("void", "Py_IncRef", [address])
    f.store(nbytes, made, _NBYTES)
    f.call("void", "Py_IncRef", [nbytes])
    f.store(_NULL, made, _VERSION)
    zero = f.call("ptr", "PyLong_FromLong", [Value("0", "i64")])
    f.store(zero, made, _VERSION)
    _mark_if_asked(f, made)
    f.line(f"ret {made}")
    f.at(failed)
    f.ret_value(_NULL)


def _emit_dealloc(module: Module) -> None:
    """Storage's tp_dealloc: back to the free list, or to the system above the cap; while memory is
    held back, to the list for that."""
    f = module.function("storage_dealloc", [("ptr", "self")])
    self = f.args["self"]
    held = f.load("ptr", Value("@held_back", "ptr"))
    spare, free = f.label("spare"), f.label("free")
    f.branch_if(f.cmp("ne", held, _NULL), spare, free)
    f.at(spare)
    # It has no reference left: it gets one, the list takes its own, and the first is taken back.
    # (If the list has no memory for it, nobody has it: better than freeing it too early.)
    f.store(Value("1", "i64"), self)
    f.call("i32", "PyList_Append", [held, self])
    f.store(f.sub(f.load("i64", self), 1), self)
    f.line("ret void")
    f.at(free)
    owner = f.load("ptr", self, _OWNER)
    with f.when(f.cmp("ne", owner, _NULL)):
        f.store(_NULL, self, _OWNER)
        f.call("void", "Py_DecRef", [owner])
    pool = f.load("ptr", self, _CLASS)
    owned, foreign = f.label("owned"), f.label("foreign")
    f.branch_if(f.cmp("ne", pool, _NULL), owned, foreign)
    f.at(foreign)
    f.call("void", "discard", [self])
    f.line("ret void")
    f.at(owned)
    ledger, size = f.load("ptr", pool, _LEDGER), f.load("i64", pool, _SIZE)
    f.store(f.sub(f.load("i64", ledger, _IN_USE), size), ledger, _IN_USE)
    cached = f.add(f.load("i64", ledger, _CACHED), size)
    keep, back = f.label("keep"), f.label("back")
    f.branch_if(f.cmp("sle", cached, f.load("i64", ledger, _CAP)), keep, back)
    f.at(back)
    f.call("void", "release", [self])
    f.call("void", "discard", [self])
    f.line("ret void")
    f.at(keep)
    f.store(cached, ledger, _CACHED)
    f.store(f.load("ptr", pool, _FIRST), self, _NEXT)
    f.store(self, pool, _FIRST)


def _emit_release(module: Module) -> None:
    """Give an owned block back to the system."""
    f = module.function("release", [("ptr", "self")], internal=True)
    self = f.args["self"]
    pool, address = f.load("ptr", self, _CLASS), f.load("ptr", self, _ADDRESS)
    mapped = f.cmp("ne", f.load("i64", pool, _MAPPED), 0)
    with f.when_else(mapped) as otherwise:
        f.call("i32", "munmap", [address, f.load("i64", pool, _SIZE)])
        otherwise()
        f.call("void", "free", [address])


def _emit_discard(module: Module) -> None:
    """Free the object itself (not its block): members, memory, its reference to the type."""
    f = module.function("discard", [("ptr", "self")], internal=True)
    self = f.args["self"]
    for word in (_PTR, _NBYTES, _VERSION, _OWNER):
        f.call("void", "Py_DecRef", [f.load("ptr", self, word)])  # ignores null
    kind = f.load("ptr", self, _TYPE)
    f.call("void", "PyObject_Free", [self])
    f.call("void", "Py_DecRef", [kind])


def _emit_trim(module: Module) -> None:
    """SizeClass.trim()"""
    f = module.function("class_trim", [("ptr", "self"), ("ptr", "none")], ret="ptr")
    pool = f.args["self"]
    ledger, size = f.load("ptr", pool, _LEDGER), f.load("i64", pool, _SIZE)
    head, body, done = f.label("head"), f.label("body"), f.label("done")
    f.branch(head)
    f.at(head)
    first = f.load("ptr", pool, _FIRST)
    f.branch_if(f.cmp("ne", first, _NULL), body, done)
    f.at(body)
    f.store(f.load("ptr", first, _NEXT), pool, _FIRST)
    f.store(f.sub(f.load("i64", ledger, _CACHED), size), ledger, _CACHED)
    f.call("void", "release", [first])
    f.call("void", "discard", [first])
    f.branch(head)
    f.at(done)
    none = Value("@_Py_NoneStruct", "ptr")
    f.call("void", "Py_IncRef", [none])
    f.ret_value(none)


def _emit_exchange(module: Module) -> None:
    """exchange(a, b) of two storages, which the caller has checked."""
    f = module.function("exchange", [("ptr", "self"), ("ptr", "args"), ("i64", "count")],
                        ret="ptr")
    a, b = (f.load("ptr", f.args["args"], i) for i in range(2))
    for word in (_PTR, _NBYTES, _OWNER, _CLASS, _ADDRESS):
        mine, other = f.load("ptr", a, word), f.load("ptr", b, word)
        f.store(other, a, word)
        f.store(mine, b, word)
    none = Value("@_Py_NoneStruct", "ptr")
    f.call("void", "Py_IncRef", [none])
    f.ret_value(none)


def _emit_hold_back(module: Module) -> None:
    """hold_back(list or None): where storages go that die from now on. The caller keeps the
    list."""
    f = module.function("hold_back", [("ptr", "self"), ("ptr", "list")], ret="ptr")
    none = Value("@_Py_NoneStruct", "ptr")
    given = f.args["list"]
    f.store(f.select(f.cmp("eq", given, none), _NULL, given), Value("@held_back", "ptr"))
    f.call("void", "Py_IncRef", [none])
    f.ret_value(none)


def _emit_let_go(module: Module) -> None:
    """let_go(list): what is in it dies, while nothing is held back."""
    f = module.function("let_go", [("ptr", "self"), ("ptr", "list")], ret="ptr")
    place, given = Value("@held_back", "ptr"), f.args["list"]
    before = f.load("ptr", place)
    f.store(_NULL, place)
    size = f.call("i64", "PyList_Size", [given])
    f.call("i32", "PyList_SetSlice", [given, Value("0", "i64"), size, _NULL])
    f.store(before, place)
    none = Value("@_Py_NoneStruct", "ptr")
    f.call("void", "Py_IncRef", [none])
    f.ret_value(none)
