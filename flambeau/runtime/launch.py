"""Launch: run a program, a list of kernels over packed arguments, in one call from Python.

`launch(program.address, *args)` is a Python function made by the JIT (METH_FASTCALL): it converts
the arguments, copies the program's template of slots to the stack, patches the arguments in, and
runs the steps. It returns None, or (code, value) when a kernel reported an error.

A program in memory, in 64-bit words:

    0 number of steps    4 number of patches   8 address of the template
    1 number of args     5 address of kinds    9 address of the pool's run
    2 number of slots    6 address of steps   10 address of the pool
    3 flags              7 address of patches 11 magic number

    kinds[args]    0: an integer or address, taken modulo 2**64; 1: a float, stored as its f64 bits
    steps[steps]   kernel, index of its first slot, number of chunks
    patches[..]    index of the slot, argument + 1, bytes to add (not to floats)
    template[slots]

Slots 0 and 1 are the status (code, value), zero at first. The argument -1 of a patch is the address
of the status: a kernel that is given it in a slot may store an error there (value first, if chunks
run in parallel), and the steps after it do not run. Flag 1 releases the GIL around the steps.
"""

from __future__ import annotations

import array
import ctypes
import functools
import struct
import sys
import weakref
from collections.abc import Sequence

from flambeau.compiler.emitter import Function, Module, Value
from flambeau.runtime import loader, native, pool

__all__ = ["FLOAT", "HEADER_WORDS", "INTEGER", "NUMBER", "STATUS", "Program", "launch", "launcher"]

INTEGER, FLOAT = 0, 1
NUMBER = 2  # a user's integer: unlike addresses, OverflowError if it needs more than 64 bits
STATUS = -1  # as the argument of a patch: the address of the status slots

(_STEPS, _ARGS, _SLOTS, _FLAGS, _PATCHES, _KINDS_AT, _STEPS_AT, _PATCHES_AT, _TEMPLATE_AT,
 _POOL_RUN, _POOL, _MAGIC) = range(12)
HEADER_WORDS = 12
_MAGIC_NUMBER = 0x464C424150524F47
_RELEASE_GIL = 1
_STACK_SLOTS = 512  # more than this and the copy of the template comes from the heap
_MASK = (1 << 64) - 1

_programs: weakref.WeakValueDictionary[int, Program] = weakref.WeakValueDictionary()


class Program:
    """A launchable run-list, made by `Program.build`.

    `launch(program.address, ...)` runs it; the caller keeps the program, and what its arguments
    point to, alive meanwhile.
    """

    __slots__ = ("__weakref__", "_memory", "address", "kinds", "members", "patches", "release_gil",
                 "steps", "template")

    @classmethod
    def build(cls, steps: Sequence[tuple[int, int, int]], patches: Sequence[tuple[int, int, int]],
              kinds: Sequence[int], template: Sequence[int], release_gil: bool = False,
              members: Sequence[tuple[int, int, int]] | None = None) -> Program:
        """Lay a program out in memory.

        steps: (address of the kernel, index of its first slot, number of chunks).
        patches: (index of the slot, index of the argument or STATUS, bytes to add).
        kinds: INTEGER or FLOAT for each argument.
        template: every slot's value, 64-bit integers (floats as their bits); [0] and [1] are 0.
        members: the steps apart where some of `steps` run several; kept for those who ask.
        Raises ValueError for indices out of range.
        """
        _check(steps, patches, kinds, template)
        self = cls.__new__(cls)
        self.steps, self.patches = tuple(steps), tuple(patches)
        self.members = self.steps if members is None else tuple(members)
        self.kinds, self.template = tuple(kinds), tuple(template)
        self.release_gil = release_gil
        words = [0] * HEADER_WORDS
        words += kinds
        steps_at = len(words)
        for step in steps:
            words += step
        patches_at = len(words)
        for slot, argument, offset in patches:
            words += (slot, argument + 1, offset)
        template_at = len(words)
        words += template
        self._memory = memory = _words(words)
        self.address = base = memory.buffer_info()[0]
        run_address, pool_address = pool.handle()
        memory[:HEADER_WORDS] = array.array("q", (
            len(steps), len(kinds), len(template), _RELEASE_GIL if release_gil else 0,
            len(patches), base + 8 * HEADER_WORDS, base + 8 * steps_at, base + 8 * patches_at,
            base + 8 * template_at, run_address, pool_address, _MAGIC_NUMBER))
        if not native.allowed():
            _programs[base] = self
        return self

    def run(self, *args) -> tuple[int, int] | None:
        """What `launch` does, in Python and ctypes (which always releases the GIL)."""
        if len(args) != len(self.kinds):
            raise TypeError(f"the program takes {len(self.kinds)} arguments, got {len(args)}")
        values = [_float_bits(arg) if kind == FLOAT else _index(arg, kind == NUMBER)
                  for arg, kind in zip(args, self.kinds, strict=True)]
        slots = _words(self.template)
        base = slots.buffer_info()[0]
        for slot, argument, offset in self.patches:
            slots[slot] = _signed((base if argument == STATUS else values[argument]) + offset)
        for kernel, first, nchunks in self.steps:
            if nchunks == 1:
                _kernel_type()(kernel)(base + 8 * first, 0, 1, 0)
            else:
                pool.run(kernel, base + 8 * first, nchunks)
            if slots[0]:
                return slots[0], slots[1]
        return None


def _check(steps, patches, kinds, template) -> None:
    if len(template) < 2 or template[0] or template[1]:
        raise ValueError("slots 0 and 1 of a program's template are its status and must be 0")
    for kind in kinds:
        if kind not in (INTEGER, FLOAT, NUMBER):
            raise ValueError(f"an argument's kind is {INTEGER}, {FLOAT} or {NUMBER}, not {kind!r}")
    for kernel, first, nchunks in steps:
        if not kernel or not 0 <= first <= len(template) or not 0 < nchunks < 1 << 31:
            raise ValueError(f"bad step: kernel {kernel:#x}, first slot {first} of "
                             f"{len(template)}, {nchunks} chunks")
    for slot, argument, offset in patches:
        if not 2 <= slot < len(template) or not STATUS <= argument < len(kinds):
            raise ValueError(f"bad patch: slot {slot} of {len(template)}, argument {argument} of "
                             f"{len(kinds)}")
        if offset and argument != STATUS and kinds[argument] == FLOAT:
            raise ValueError(f"bad patch: an offset of {offset} bytes to a float")


def _words(values: Sequence[int]) -> array.array:
    try:
        return array.array("q", values)
    except OverflowError:
        return array.array("q", [_signed(value) for value in values])


def _signed(value: int) -> int:
    return ((value & _MASK) ^ (1 << 63)) - (1 << 63)


def _index(value, checked: bool = False) -> int:
    number = value.__index__() if hasattr(value, "__index__") else _refuse(value)
    if checked and not -1 << 63 <= number < 1 << 63:
        raise OverflowError("int too big to convert")
    return number & _MASK


def _refuse(value):
    raise TypeError(f"an integer is required, got type {type(value).__name__}")


def _float_bits(value) -> int:
    return struct.unpack("<q", struct.pack("<d", ctypes.c_double(value).value))[0]


@functools.cache
def _kernel_type():
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int)


# ------------------------------------------------------------------ the native function
def launch_ir(incref_none: bool) -> str:
    """LLVM IR of `launch`. `incref_none`: None is counted (before CPython 3.12)."""
    module = Module()
    f = module.function("launch", [("ptr", "self"), ("ptr", "args"), ("i64", "count")], ret="ptr")
    for name in ("_Py_NoneStruct", "PyFloat_Type", "PyExc_TypeError", "PyExc_RuntimeError"):
        module.texts[name] = f"@{name} = external global i8"
    declare_messages(module)
    code = _Launch(f, incref_none)
    code.emit()
    return module.text()


def declare_messages(module: Module) -> None:
    """What `_Launch` says when it is called wrongly, and with what."""
    module.texts["message"] = _string("message", "the program takes %zd arguments, got %zd")
    module.texts["lonely"] = _string("lonely", "launch needs the address of a program")
    module.texts["stale"] = _string("stale", "not the address of a program")
    module.texts["pair"] = _string("pair", "(LL)")
    module.texts["PyErr_Format"] = "declare ptr @PyErr_Format(ptr, ptr, ...)"
    module.texts["Py_BuildValue"] = "declare ptr @Py_BuildValue(ptr, ...)"


def _string(name: str, text: str) -> str:
    return f'@{name} = private constant [{len(text) + 1} x i8] c"{text}\\00"'


class _Launch:
    """Emits the body of `launch`, part by part."""

    def __init__(self, f: Function, incref_none: bool):
        self.f = f
        self.incref_none = incref_none
        self.argv, self.count = f.args["args"], f.args["count"]
        self.null = Value("null", "ptr")

    def word(self, index: int, type_: str = "i64") -> Value:
        """A word of the program's header."""
        return self.f.load(type_, self.program, index)

    def emit(self) -> None:
        f = self.f
        self.failed = f.label("failed")
        self.take_program()
        stored = f.emit("ptr", f"alloca i64, i64 {f.add(self.word(_ARGS), 1).name}, align 8")
        self.convert(stored)
        count = self.word(_SLOTS)
        small = f.cmp("sle", count, _STACK_SLOTS)
        heap, stack, ready = f.label("heap"), f.label("stack"), f.label("ready")
        f.branch_if(small, stack, heap)
        f.at(stack)
        here = f.emit("ptr", f"alloca i64, i64 {count.name}, align 16")
        f.branch(ready)
        f.at(heap)
        there = f.call("ptr", "PyMem_RawMalloc", [f.shl(count, 3)])
        enough = f.cmp("ne", there, self.null)
        usable, short = f.label("usable"), f.label("short")
        f.branch_if(enough, usable, short)
        f.at(short)
        f.call("ptr", "PyErr_NoMemory", [])
        f.branch(self.failed)
        f.at(usable)
        f.branch(ready)
        f.at(ready)
        slots = f.emit("ptr", f"phi ptr [ {here.name}, %{stack} ], [ {there.name}, %{usable} ]")
        self.fill(slots, stored, count)
        self.run(slots)
        code, value = f.load("i64", slots), f.load("i64", slots, 1)
        with f.when(f.not_(small)):
            f.call("void", "PyMem_RawFree", [slots])
        self.result(code, value)
        f.at(self.failed)
        f.ret_value(self.null)

    def take_program(self) -> None:
        """The first argument, checked; and the number of the others."""
        f = self.f
        given = f.cmp("sgt", self.count, 0)
        begin, lacking = f.label("begin"), f.label("lacking")
        f.branch_if(given, begin, lacking)
        f.at(lacking)
        self.raise_("PyExc_TypeError", "lonely")
        f.at(begin)
        address = f.call("i64", "PyLong_AsUnsignedLongLongMask", [f.load("ptr", self.argv)])
        self.program = f.cast("inttoptr", address, "ptr")
        plausible, look, stale, sane = (f.label(p) for p in ("some", "look", "stale", "sane"))
        with f.when(f.cmp("eq", address, -1)):
            raised = f.cmp("ne", f.call("ptr", "PyErr_Occurred", []), self.null)
            f.branch_if(raised, self.failed, plausible)
            f.at(plausible)
        # Null, -1 and misaligned numbers are caught; memory that is gone cannot be told.
        odd = f.cmp("ne", f.and_(address, 7), 0)
        bad = f.or_(odd, f.cmp("eq", address, 0))
        f.branch_if(bad, stale, look)
        f.at(look)
        f.branch_if(f.cmp("eq", self.word(_MAGIC), _MAGIC_NUMBER), sane, stale)
        f.at(stale)
        self.raise_("PyExc_RuntimeError", "stale")
        f.at(sane)
        got, wanted = f.sub(self.count, 1), self.word(_ARGS)
        match, differ = f.label("match"), f.label("differ")
        f.branch_if(f.cmp("eq", got, wanted), match, differ)
        f.at(differ)
        self.raise_("PyExc_TypeError", "message", wanted, got)
        f.at(match)

    def raise_(self, exception: str, message: str, *values: Value) -> None:
        f = self.f
        kind = f.load("ptr", Value(f"@{exception}", "ptr"))
        rest = "".join(f", {value}" for value in values)
        f.emit("ptr", f"call ptr (ptr, ptr, ...) @PyErr_Format({kind}, ptr @{message}{rest})")
        f.branch(self.failed)

    def convert(self, stored: Value) -> None:
        """Python arguments to 64-bit words stored[1..]; stored[0] is left to the status."""
        f = self.f
        kinds = self.word(_KINDS_AT, "ptr")
        with f.loop(0, self.word(_ARGS)) as i:
            after = f.add(i, 1)
            item = f.load("ptr", self.argv, after)
            kind = f.load("i64", kinds, i)
            with f.when_else(f.cmp("eq", kind, INTEGER)) as otherwise:
                number = f.call("i64", "PyLong_AsUnsignedLongLongMask", [item])
                f.store(number, stored, after)
                self.check_error(f.cmp("eq", number, -1))
                otherwise()
                whole = f.cmp("eq", kind, NUMBER)
                with f.when_else(whole) as floating:
                    number = f.call("i64", "PyLong_AsLongLong", [item])
                    f.store(number, stored, after)
                    self.check_error(f.cmp("eq", number, -1))
                    floating()
                    self.convert_float(item, stored, after)

    def convert_float(self, item: Value, stored: Value, after: Value) -> None:
        f = self.f
        exact = f.cmp("eq", f.load("ptr", item, 1), Value("@PyFloat_Type", "ptr"))
        with f.when_else(exact) as general:
            f.store(f.load("i64", item, 2), stored, after)  # PyFloatObject.ob_fval
            general()
            number = f.call("double", "PyFloat_AsDouble", [item])
            f.store(f.cast("bitcast", number, "i64"), stored, after)
            self.check_error(f.cmp("oeq", number, -1.0))

    def check_error(self, suspicious: Value) -> None:
        """Conversions return -1 for an error, and for -1."""
        f = self.f
        fine = f.label("fine")
        with f.when(suspicious):
            raised = f.cmp("ne", f.call("ptr", "PyErr_Occurred", []), self.null)
            f.branch_if(raised, self.failed, fine)
            f.at(fine)

    def fill(self, slots: Value, stored: Value, count: Value) -> None:
        """Copy the template and apply the patches."""
        f = self.f
        f.call("void", "llvm.memcpy.p0.p0.i64", [
            slots, self.word(_TEMPLATE_AT, "ptr"), f.shl(count, 3), Value("false", "i1")])
        f.store(f.cast("ptrtoint", slots, "i64"), stored)
        patches = self.word(_PATCHES_AT, "ptr")
        with f.loop(0, f.mul(self.word(_PATCHES), 3), 3) as i:
            slot, argument = f.load("i64", patches, i), f.load("i64", patches, f.add(i, 1))
            offset = f.load("i64", patches, f.add(i, 2))
            f.store(f.add(f.load("i64", stored, argument), offset), slots, slot)

    def run(self, slots: Value) -> None:
        """The steps, with or without the GIL, until one reports an error."""
        f = self.f
        release = f.cmp("ne", f.and_(self.word(_FLAGS), _RELEASE_GIL), 0)
        state = f.var("ptr")
        with f.when(release):
            state.set(f.call("ptr", "PyEval_SaveThread", []))
        steps = self.word(_STEPS_AT, "ptr")
        ended = f.label("ended")
        with f.loop(0, f.mul(self.word(_STEPS), 3), 3) as i:
            kernel = f.load("ptr", steps, i)
            first, chunks = f.load("i64", steps, f.add(i, 1)), f.load("i64", steps, f.add(i, 2))
            base = f.gep(slots, first, "i64")
            with f.when_else(f.cmp("eq", chunks, 1)) as otherwise:
                f.call_pointer("void", kernel, [base, Value("0", "i32"), Value("1", "i32"),
                                                Value("0", "i32")])
                otherwise()
                f.call_pointer("void", self.word(_POOL_RUN, "ptr"), [
                    self.word(_POOL, "ptr"), kernel, base, f.cast("trunc", chunks, "i32")])
            going = f.label("going")
            f.branch_if(f.cmp("eq", f.load("i64", slots), 0), going, ended)
            f.at(going)
        f.branch(ended)
        f.at(ended)
        with f.when(release):
            f.call("void", "PyEval_RestoreThread", [state.get()])

    def result(self, code: Value, value: Value) -> None:
        f = self.f
        none = Value("@_Py_NoneStruct", "ptr")
        fine, error = f.label("fine"), f.label("error")
        f.branch_if(f.cmp("eq", code, 0), fine, error)
        f.at(error)
        pair = f.emit("ptr", f"call ptr (ptr, ...) @Py_BuildValue(ptr @pair, {code}, {value})")
        f.line(f"ret {pair}")
        f.at(fine)
        if self.incref_none:
            f.call("void", "Py_IncRef", [none])
        f.line(f"ret {none}")


@functools.cache
def launcher():
    """The function `launch(address, *args)`: native where that is possible, else through ctypes."""
    if not native.allowed():
        return _launch_by_ctypes
    native.provide(("_Py_NoneStruct", "PyFloat_Type", "PyExc_TypeError", "PyExc_RuntimeError",
                    "PyLong_AsUnsignedLongLongMask", "PyErr_Occurred", "PyErr_Format",
                    "PyLong_AsLongLong",
                    "PyErr_NoMemory", "PyFloat_AsDouble", "PyMem_RawMalloc", "PyMem_RawFree",
                    "PyEval_SaveThread", "PyEval_RestoreThread", "Py_BuildValue", "Py_IncRef"))
    address = loader.load_kernel("launch", launch_ir(sys.version_info < (3, 12)))
    return native.function(address, "launch", native.FASTCALL,
                           "launch(program_address, *args) -> None | (code, value)")


def _launch_by_ctypes(address: int, *args) -> tuple[int, int] | None:
    """launch(program_address, *args) -> None | (code, value)"""
    return _programs[address].run(*args)


def launch(address: int, *args) -> tuple[int, int] | None:
    """Run the program at `address`. Hot code keeps `launcher()`, which this calls."""
    return launcher()(address, *args)
