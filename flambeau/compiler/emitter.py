"""The emitter: Python in which a loop nest looks like a loop nest, and which writes LLVM IR text.

    module = Module()
    f = module.function("scale", [("ptr", "args"), ("i32", "chunk")])
    x, n = f.load("ptr", f.args["args"]), f.load("i64", f.args["args"], 1)
    with f.loop(0, n) as i:
        f.store(f.fmul(f.load("float", x, i), 2.0), x, i)

Values are typed (`Value.type`); a Python int or float beside a Value becomes a constant of its
type. Mutable variables (`f.var`) are stack slots that LLVM's SROA pass turns into registers.
"""

from __future__ import annotations

import contextlib
import functools
import re
import struct
from collections.abc import Iterator, Sequence

__all__ = ["Module", "Function", "Value", "Var", "float_literal", "lanes_of", "scalar_of", "vector"]

_VECTOR = re.compile(r"<(\d+) x (\w+)>")


def vector(lanes: int, scalar: str) -> str:
    """The type of `lanes` elements of type `scalar`; the scalar type itself for one lane."""
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


@functools.cache
def lanes_of(type_: str) -> int:
    """How many elements a value of an LLVM type holds."""
    found = _VECTOR.fullmatch(type_)
    return int(found[1]) if found else 1


@functools.cache
def scalar_of(type_: str) -> str:
    """The type of one element of an LLVM type."""
    found = _VECTOR.fullmatch(type_)
    return found[2] if found else type_


def float_literal(value: float, scalar: str) -> str:
    """LLVM's hexadecimal spelling of a floating constant, rounded to the precision of `scalar`."""
    if scalar == "half":
        bits = struct.unpack("<H", struct.pack("<e", value))[0]
        return f"0xH{bits:04X}"
    if scalar == "bfloat":
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        return f"0xR{(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16:04X}"
    if scalar == "float":
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return f"0x{bits:016X}"


class Value:
    """An SSA value or a literal, with its LLVM type."""

    __slots__ = ("name", "type")

    def __init__(self, name: str, type_: str):
        self.name = name
        self.type = type_

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


class Var:
    """A mutable variable: `get` reads it, `set` writes it."""

    __slots__ = ("function", "pointer", "type")

    def __init__(self, function: Function, pointer: Value, type_: str):
        self.function = function
        self.pointer = pointer
        self.type = type_

    def get(self) -> Value:
        return self.function.load(self.type, self.pointer)

    def set(self, value: Value | int | float) -> None:
        self.function.store(self.function.typed(value, self.type), self.pointer)


class Module:
    """Functions, declarations and globals that become one LLVM module."""

    def __init__(self, attributes: str = "nounwind"):
        self.attributes = attributes
        self.functions: list[Function] = []
        self.declarations: dict[str, str] = {}
        self.texts: dict[str, str] = {}  # name -> definition of a library function or global

    def function(self, name: str, args: Sequence[tuple[str, str]], ret: str = "void",
                 internal: bool = False, attributes: str = "", part: str = "") -> Function:
        """Open a function. `args` are (type, name) pairs, the type with its attributes.

        The functions of a `part`, which call no others of this module, are compiled once for all
        modules that have the same ones (`parts.py`). Worth it for long code that many kernels have.
        """
        made = Function(self, name, args, ret, internal or bool(part), attributes, part)
        self.functions.append(made)
        return made

    def defines(self, name: str) -> bool:
        """Is there a function of this name?"""
        return any(function.name == name for function in self.functions)

    def declare(self, ret: str, name: str, arg_types: Sequence[str]) -> None:
        self.declarations.setdefault(name, f"declare {ret} @{name}({', '.join(arg_types)})")

    def text(self) -> str:
        """The module as LLVM IR. Library definitions come in order of name: equal modules give
        equal text, which is what the object cache is keyed by."""
        defined = {function.name for function in self.functions} | set(self.texts)
        parts = [line for name, line in sorted(self.declarations.items()) if name not in defined]
        parts += [text for _, text in sorted(self.texts.items())]
        shared = dict.fromkeys(function.part for function in self.functions if function.part)
        for part in shared:
            members = [f.text() for f in self.functions if f.part == part]
            parts.append("; part\n" + "\n".join(members) + "; end")
        parts += [function.text() for function in self.functions if not function.part]
        parts.append('!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}')
        return "\n".join(parts) + "\n"


class Function:
    """One function under construction; the current block is always the last one opened."""

    def __init__(self, module: Module, name: str, args: Sequence[tuple[str, str]], ret: str,
                 internal: bool, attributes: str, part: str = ""):
        self.module = module
        self.name = name
        self.ret = ret
        self.internal = internal
        self.attributes = attributes
        self.part = part
        self.signature = ", ".join(f"{type_} %{arg}" for type_, arg in args)
        self.args = {arg: Value(f"%{arg}", type_.split()[0]) for type_, arg in args}
        self._entry: list[str] = []
        self._body: list[str] = []
        self._count = 0
        self._block = "entry"
        self._terminated = False

    @property
    def block(self) -> str:
        """The label of the block that is open."""
        return self._block

    # ------------------------------------------------------------------ plumbing
    def fresh(self, prefix: str = "v") -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def line(self, text: str) -> None:
        """Append one raw instruction without result."""
        self._body.append("  " + text)

    def emit(self, type_: str, text: str) -> Value:
        """Append one raw instruction and name its result."""
        value = Value("%" + self.fresh(), type_)
        self.line(f"{value.name} = {text}")
        return value

    def label(self, prefix: str = "b") -> str:
        return self.fresh(prefix)

    def at(self, label: str) -> None:
        """Open the block `label` (its predecessor must have branched already)."""
        self._body.append(f"{label}:")
        self._block = label

    def branch(self, label: str, metadata: str = "") -> None:
        self.line(f"br label %{label}{metadata}")

    def branch_if(self, condition: Value, then: str, otherwise: str) -> None:
        self.line(f"br {condition}, label %{then}, label %{otherwise}")

    def ret_value(self, value: Value | None = None) -> None:
        """Return and end the function's last block."""
        self.line("ret void" if value is None else f"ret {value}")
        self._terminated = True

    def text(self) -> str:
        if not self._terminated:
            if self.ret != "void":
                raise ValueError(f"function {self.name} does not return a value")
            self.ret_value()
        linkage = "internal " if self.internal else ""
        attributes = f"{self.module.attributes} {self.attributes}".strip()
        body = "\n".join(self._entry + self._body)
        return (f"define {linkage}{self.ret} @{self.name}({self.signature}) {attributes} {{\n"
                f"entry:\n{body}\n}}\n")

    # ------------------------------------------------------------------ constants
    def const(self, value: bool | int | float, type_: str) -> Value:
        """A constant of `type_`; the same in every lane if `type_` is a vector."""
        scalar = scalar_of(type_)
        if scalar in ("float", "double", "half", "bfloat"):
            literal = float_literal(float(value), scalar)
        elif scalar == "ptr":
            literal = "null"
        elif scalar == "i1":
            literal = "true" if value else "false"
        else:
            literal = str(int(value))
        if type_ != scalar:
            literal = f"splat ({scalar} {literal})"
        return Value(literal, type_)

    def typed(self, value: Value | bool | int | float, type_: str) -> Value:
        return value if isinstance(value, Value) else self.const(value, type_)

    def _pair(self, a, b, default: str = "i64") -> tuple[Value, Value]:
        type_ = a.type if isinstance(a, Value) else b.type if isinstance(b, Value) else default
        return self.typed(a, type_), self.typed(b, type_)

    def iota(self, lanes: int, scalar: str = "i64") -> Value:
        """<0, 1, 2, ...>; the constant 0 for one lane."""
        if lanes == 1:
            return self.const(0, scalar)
        items = ", ".join(f"{scalar} {lane}" for lane in range(lanes))
        return Value(f"<{items}>", vector(lanes, scalar))

    # ------------------------------------------------------------------ arithmetic
    def op(self, name: str, a, b, flags: str = "") -> Value:
        """A two-operand instruction: op("fadd", a, b, "contract")."""
        a, b = self._pair(a, b)
        word = f"{name} {flags}" if flags else name
        return self.emit(a.type, f"{word} {a.type} {a.name}, {b.name}")

    def _index(self, name: str, a, b, fold) -> Value | int:
        if isinstance(a, int) and isinstance(b, int):
            return fold(a, b)
        return self.op(name, a, b)

    def add(self, a, b):
        if isinstance(a, int) and a == 0:
            return b
        if isinstance(b, int) and b == 0:
            return a
        return self._index("add", a, b, lambda x, y: x + y)

    def sub(self, a, b):
        if isinstance(b, int) and b == 0:
            return a
        return self._index("sub", a, b, lambda x, y: x - y)

    def mul(self, a, b):
        for one, other in ((a, b), (b, a)):
            if isinstance(one, int) and one == 1:
                return other
            if isinstance(one, int) and one == 0:
                return 0
        return self._index("mul", a, b, lambda x, y: x * y)

    def sdiv(self, a, b):
        if isinstance(b, int) and b == 1:
            return a
        return self._index("sdiv", a, b, lambda x, y: x // y)

    def srem(self, a, b):
        return self._index("srem", a, b, lambda x, y: x % y)

    def udiv(self, a, b):
        if isinstance(b, int) and b == 1:
            return a
        return self._index("udiv", a, b, lambda x, y: x // y)

    def urem(self, a, b):
        return self._index("urem", a, b, lambda x, y: x % y)

    def ceil_div(self, a, b):
        """ceil(a / b) of non-negative integers."""
        return self.udiv(self.add(a, self.sub(b, 1)), b)

    def and_(self, a, b) -> Value:
        return self.op("and", a, b)

    def or_(self, a, b) -> Value:
        return self.op("or", a, b)

    def xor(self, a, b) -> Value:
        return self.op("xor", a, b)

    def shl(self, a, b) -> Value:
        return self.op("shl", a, b)

    def lshr(self, a, b) -> Value:
        return self.op("lshr", a, b)

    def ashr(self, a, b) -> Value:
        return self.op("ashr", a, b)

    def fadd(self, a, b, flags: str = "") -> Value:
        return self.op("fadd", a, b, flags)

    def fsub(self, a, b, flags: str = "") -> Value:
        return self.op("fsub", a, b, flags)

    def fmul(self, a, b, flags: str = "") -> Value:
        return self.op("fmul", a, b, flags)

    def fdiv(self, a, b, flags: str = "") -> Value:
        return self.op("fdiv", a, b, flags)

    def fneg(self, a: Value) -> Value:
        return self.emit(a.type, f"fneg {a}")

    def fma(self, a, b, c) -> Value:
        """a * b + c rounded once."""
        type_ = next(v.type for v in (a, b, c) if isinstance(v, Value))
        return self.intrinsic("llvm.fma", type_, a, b, c)

    def cmp(self, predicate: str, a, b) -> Value:
        """Compare: "eq ne slt sle sgt ult ..." for integers, "oeq ogt uno une ..." for floats."""
        a, b = self._pair(a, b)
        floating = scalar_of(a.type) in ("float", "double", "half", "bfloat")
        word = "fcmp" if floating else "icmp"
        return self.emit(vector(lanes_of(a.type), "i1"), f"{word} {predicate} {a}, {b.name}")

    def select(self, condition: Value, a, b) -> Value:
        a, b = self._pair(a, b)
        return self.emit(a.type, f"select {condition}, {a}, {b}")

    def not_(self, a: Value) -> Value:
        return self.xor(a, -1 if scalar_of(a.type) != "i1" else 1)

    def smin(self, a, b):
        return self._index_minmax("llvm.smin", a, b, min)

    def smax(self, a, b):
        return self._index_minmax("llvm.smax", a, b, max)

    def _index_minmax(self, name: str, a, b, fold):
        if isinstance(a, int) and isinstance(b, int):
            return fold(a, b)
        a, b = self._pair(a, b)
        return self.intrinsic(name, a.type, a, b)

    # ------------------------------------------------------------------ conversions
    def cast(self, word: str, a: Value, type_: str) -> Value:
        """sext zext trunc sitofp uitofp fptosi fptoui fpext fptrunc bitcast ptrtoint inttoptr."""
        return a if a.type == type_ else self.emit(type_, f"{word} {a} to {type_}")

    def splat(self, a: Value, lanes: int) -> Value:
        """`a` in every lane."""
        if lanes == 1:
            return a
        type_ = vector(lanes, a.type)
        one = self.emit(type_, f"insertelement {type_} poison, {a}, i32 0")
        mask = f"<{lanes} x i32> zeroinitializer"
        return self.emit(type_, f"shufflevector {one}, {type_} poison, {mask}")

    def extract(self, a: Value, lane: int) -> Value:
        if lanes_of(a.type) == 1:
            return a
        return self.emit(scalar_of(a.type), f"extractelement {a}, i32 {lane}")

    def insert(self, a: Value, item: Value, lane: int) -> Value:
        return self.emit(a.type, f"insertelement {a}, {item}, i32 {lane}")

    def shuffle(self, a: Value, b: Value | None, lanes: Sequence[int]) -> Value:
        """Pick lanes from a (0..n-1) and b (n..2n-1)."""
        other = Value("poison", a.type) if b is None else b
        picks = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.emit(vector(len(lanes), scalar_of(a.type)),
                         f"shufflevector {a}, {other}, <{len(lanes)} x i32> <{picks}>")

    # ------------------------------------------------------------------ memory
    def var(self, type_: str, initial: Value | int | float | None = None) -> Var:
        """A mutable variable; its slot lies in the entry block."""
        pointer = Value("%" + self.fresh("slot"), "ptr")
        self._entry.append(f"  {pointer.name} = alloca {type_}")
        made = Var(self, pointer, type_)
        if initial is not None:
            made.set(initial)
        return made

    def array(self, type_: str, count: int, align: int = 64) -> Value:
        """Uninitialised stack memory for `count` elements."""
        pointer = Value("%" + self.fresh("array"), "ptr")
        self._entry.append(f"  {pointer.name} = alloca {type_}, i64 {count}, align {align}")
        return pointer

    def gep(self, pointer: Value, index, type_: str) -> Value:
        """The address of element `index` of an array of `type_`."""
        if isinstance(index, int) and index == 0:
            return pointer
        index = self.typed(index, "i64")
        result = "ptr" if lanes_of(index.type) == 1 else vector(lanes_of(index.type), "ptr")
        return self.emit(result, f"getelementptr {type_}, {pointer}, {index}")

    def load(self, type_: str, pointer: Value, index=0, align: int | None = None) -> Value:
        """Load; `index` counts elements of the scalar type. Vectors assume element alignment."""
        pointer = self.gep(pointer, index, scalar_of(type_))
        if align is None and lanes_of(type_) > 1:
            align = _ALIGN[scalar_of(type_)]
        return self.emit(type_, f"load {type_}, {pointer}" + (f", align {align}" if align else ""))

    def store(self, value: Value, pointer: Value, index=0, align: int | None = None) -> None:
        pointer = self.gep(pointer, index, scalar_of(value.type))
        if align is None and lanes_of(value.type) > 1:
            align = _ALIGN[scalar_of(value.type)]
        self.line(f"store {value}, {pointer}" + (f", align {align}" if align else ""))

    def masked_load(self, type_: str, pointer: Value, mask: Value, passthru=0, index=0) -> Value:
        pointer = self.gep(pointer, index, scalar_of(type_))
        return self.intrinsic_call(type_, f"llvm.masked.load.{_mangle(type_)}.p0", [
            Value(f"align {_ALIGN[scalar_of(type_)]} {pointer.name}", "ptr"), mask,
            self.typed(passthru, type_)])

    def masked_store(self, value: Value, pointer: Value, mask: Value, index=0) -> None:
        pointer = self.gep(pointer, index, scalar_of(value.type))
        self.intrinsic_call("void", f"llvm.masked.store.{_mangle(value.type)}.p0", [
            value, Value(f"align {_ALIGN[scalar_of(value.type)]} {pointer.name}", "ptr"), mask])

    def gather(self, type_: str, pointers: Value, mask: Value, passthru=0) -> Value:
        """Load each lane from its own address."""
        count = lanes_of(type_)
        return self.intrinsic_call(type_, f"llvm.masked.gather.{_mangle(type_)}.v{count}p0", [
            Value(f"align {_ALIGN[scalar_of(type_)]} {pointers.name}", pointers.type), mask,
            self.typed(passthru, type_)])

    def scatter(self, value: Value, pointers: Value, mask: Value) -> None:
        """Store each lane to its own address, lane 0 first."""
        count = lanes_of(value.type)
        self.intrinsic_call("void", f"llvm.masked.scatter.{_mangle(value.type)}.v{count}p0", [
            value, Value(f"align {_ALIGN[scalar_of(value.type)]} {pointers.name}", pointers.type),
            mask])

    def lane_mask(self, lanes: int, count) -> Value:
        """<lane 0 < count, lane 1 < count, ...>: the mask of a loop's tail."""
        limit = self.splat(self.typed(count, "i64"), lanes)
        return self.cmp("slt", self.iota(lanes), limit)

    # ------------------------------------------------------------------ calls
    def call(self, ret: str, name: str, args: Sequence[Value]) -> Value | None:
        """Call a function of this module or of the process (declared here)."""
        self.module.declare(ret, name, [arg.type for arg in args])
        text = f"call {ret} @{name}({', '.join(map(str, args))})"
        if ret == "void":
            self.line(text)
            return None
        return self.emit(ret, text)

    def call_pointer(self, ret: str, pointer: Value, args: Sequence[Value]) -> Value | None:
        text = f"call {ret} {pointer.name}({', '.join(map(str, args))})"
        if ret == "void":
            self.line(text)
            return None
        return self.emit(ret, text)

    def intrinsic(self, name: str, type_: str, *args) -> Value:
        """A one-type intrinsic: intrinsic("llvm.sqrt", "<16 x float>", x)."""
        values = [self.typed(arg, type_) for arg in args]
        return self.intrinsic_call(type_, f"{name}.{_mangle(type_)}", values)

    def intrinsic_call(self, ret: str, name: str, args: Sequence[Value]) -> Value | None:
        return self.call(ret, name, list(args))

    # ------------------------------------------------------------------ control flow
    @contextlib.contextmanager
    def loop(self, start, stop, step=1, unroll: bool = False) -> Iterator[Value]:
        """for (i64 i = start; i < stop; i += step). LLVM's own unrolling stays off by default."""
        start, stop = self.typed(start, "i64"), self.typed(stop, "i64")
        before = self._block
        head, body, latch, done = (self.label(p) for p in ("head", "body", "latch", "done"))
        i, following = Value("%" + self.fresh("i"), "i64"), Value("%" + self.fresh("n"), "i64")
        self.branch(head)
        self.at(head)
        self.line(f"{i.name} = phi i64 [ {start.name}, %{before} ], [ {following.name}, %{latch} ]")
        self.branch_if(self.cmp("slt", i, stop), body, done)
        self.at(body)
        yield i
        self.branch(latch)
        self.at(latch)
        self.line(f"{following.name} = add nsw i64 {i.name}, {self.typed(step, 'i64').name}")
        self.branch(head, "" if unroll else ", !llvm.loop !0")
        self.at(done)

    @contextlib.contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """if (condition) { ... }"""
        then, done = self.label("then"), self.label("done")
        self.branch_if(condition, then, done)
        self.at(then)
        yield
        self.branch(done)
        self.at(done)

    @contextlib.contextmanager
    def when_else(self, condition: Value) -> Iterator:
        """if (condition) { ... } else { ... }; call the yielded function where the else begins."""
        then, other, done = self.label("then"), self.label("else"), self.label("done")
        self.branch_if(condition, then, other)
        self.at(then)

        def otherwise() -> None:
            self.branch(done)
            self.at(other)

        yield otherwise
        self.branch(done)
        self.at(done)


_ALIGN = {"i1": 1, "i8": 1, "i16": 2, "half": 2, "bfloat": 2, "i32": 4, "float": 4, "i64": 8,
          "double": 8, "ptr": 8}


def _mangle(type_: str) -> str:
    """LLVM's suffix for an overloaded intrinsic: <16 x float> -> v16f32."""
    scalar = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16", "ptr": "p0"}.get(
        scalar_of(type_), scalar_of(type_))
    count = lanes_of(type_)
    return scalar if count == 1 else f"v{count}{scalar}"
