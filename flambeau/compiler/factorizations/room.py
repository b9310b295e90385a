"""What a kernel that calls LAPACK is written with: operands, workspaces, Fortran's arguments.

Matrices come and go row-major, LAPACK reads them column-major: the transpose. Routines that serve a
transpose as well (Cholesky, inverses, singular values) are called on the rows as they are; others
get a transposed copy.

Fortran's integers have 32 or 64 bits, which is known at run time only. Scalars are passed as
64-bit words: their lower half is what a 32-bit library reads (addresses of bytes are in
little-endian order wherever the package runs). Arrays are walked in steps of `int_bytes`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from flambeau.compiler.emitter import Function, Value, vector
from flambeau.core.dtypes import DType

__all__ = ["Room", "Routine", "Task", "plain"]

NOT_FINITE = -4  # `info` for operands with NaN or infinities: as of a wrong argument
TILE = 8  # columns that a transposed copy walks side by side


@dataclasses.dataclass(frozen=True)
class Task:
    """What a kernel is: a routine for a dtype (of real or complex elements) with its flags."""

    routine: str
    dtype: DType
    flags: tuple

    @property
    def letter(self) -> str:
        """LAPACK's letter for the dtype."""
        return {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}[
            self.dtype.name]

    @property
    def complex(self) -> bool:
        return self.dtype.is_complex

    def has(self, flag: str) -> bool:
        return flag in self.flags


@dataclasses.dataclass(frozen=True)
class Routine:
    """One routine.

    Attributes:
        functions: (task) -> the functions of BLAS and LAPACK that it calls: the name that the body
            uses -> the name without the letter of the dtype.
        sizes: (shapes of the operands' matrices) -> the sizes that the body knows, by name.
        regions: (task, sizes) -> workspaces of a thread by name, in elements; a name that starts
            with "i" counts integers, one with "r" real numbers.
        body: emits the work on one member of the batch.
        work: (sizes) -> operations on one member, roughly.
    """

    functions: Callable[[Task], dict[str, str]]
    sizes: Callable[[Sequence[tuple[int, ...]]], dict[str, int]]
    regions: Callable[[Task, dict[str, int]], dict[str, int]]
    body: Callable[[Room], None]
    work: Callable[[dict[str, int]], int]


def plain(*names: str) -> Callable[[Task], dict[str, str]]:
    """Functions whose names are the same for all dtypes but for the letter."""
    def functions(task: Task) -> dict[str, str]:
        return dict(zip(names, names, strict=True))

    return functions


class Room:
    """The inside of a kernel. Pointers are those of the present member of the batch.

    Attributes:
        task: what the kernel is.
        element, real: LLVM types of an element and of a real number.
        parts: real numbers in an element.
        lanes: of a register, in real numbers.
    """

    def __init__(self, f: Function, task: Task, names: Sequence[str], lanes: int):
        self.f, self.task, self.lanes = f, task, lanes
        self.places = {name: place for place, name in enumerate(names)}
        self.real = task.dtype.to_real().llvm
        self.parts = 2 if task.complex else 1
        self.element = vector(self.parts, self.real)
        thread = f.cast("zext", f.args["thread"], "i64")
        self.work = f.gep(self.slot("work", "ptr"), f.mul(thread, self.slot("work_stride")), "i8")
        self.member: Value | None = None

    def slot(self, name: str, type_: str = "i64") -> Value:
        """A slot of the kernel, loaded in the entry block's order."""
        return self.f.load(type_, self.f.gep(self.f.args["args"], self.places[name], "i64"))

    def size(self, name: str) -> Value:
        return self.slot(name)

    def members(self) -> tuple[Value, Value]:
        """This chunk's share of the batch: (start, stop)."""
        f = self.f
        chunk = f.cast("zext", f.args["chunk"], "i64")
        count = f.cast("zext", f.args["nchunks"], "i64")
        batch = self.slot("batch")
        return (f.udiv(f.mul(batch, chunk), count),
                f.udiv(f.mul(batch, f.add(chunk, 1)), count))

    # ------------------------------------------------------------------ operands
    def source(self, number: int, type_: str | None = None) -> Value:
        """The address of an operand's matrix or vector. Its rows are contiguous."""
        f = self.f
        step = f.mul(self.member, self.slot(f"s{number}_batch"))
        return f.gep(self.slot(f"s{number}", "ptr"), step, type_ or self.real)

    def rows(self, number: int) -> Value:
        """Elements from one row of an operand to the next."""
        return self.slot(f"s{number}_row")

    def result(self, number: int, type_: str | None = None) -> Value:
        """The address of a result's matrix, vector or number; it is dense, row-major."""
        f = self.f
        step = f.mul(self.member, self.slot(f"r{number}_batch"))
        return f.gep(self.slot(f"r{number}", "ptr"), step, type_ or self.real)

    def region(self, name: str) -> Value:
        """A workspace of this thread."""
        return self.f.gep(self.work, self.slot(f"w_{name}"), "i8")

    def at(self, pointer: Value, index: Value | int) -> Value:
        """The address of an element."""
        return self.f.gep(pointer, self.f.mul(index, self.parts), self.real)

    def load(self, pointer: Value, index: Value | int = 0) -> Value:
        return self.f.load(self.element, pointer, self.f.mul(index, self.parts))

    def store(self, value: Value, pointer: Value, index: Value | int = 0) -> None:
        self.f.store(value, pointer, self.f.mul(index, self.parts))

    def number(self, value: float) -> Value:
        """A real number as an element."""
        f = self.f
        if self.parts == 1:
            return f.const(value, self.real)
        return f.insert(f.const(0, self.element), f.const(value, self.real), 0)

    # ------------------------------------------------------------------ copies
    def copy(self, source: Value, pitch: Value, rows: Value, columns: Value, target: Value,
             target_pitch: Value) -> None:
        """target[i, j] = source[i, j]"""
        f = self.f
        with f.loop(0, rows) as i:
            of, to = self.at(source, f.mul(i, pitch)), self.at(target, f.mul(i, target_pitch))
            with f.loop(0, columns) as j:
                self.store(self.load(of, j), to, j)

    def turn(self, source: Value, pitch: Value, rows: Value, columns: Value, target: Value,
             target_pitch: Value) -> None:
        """target[j, i] = source[i, j]"""
        f = self.f
        with f.loop(0, columns, TILE) as low:
            high = f.smin(f.add(low, TILE), columns)
            with f.loop(0, rows) as i:
                of, to = self.at(source, f.mul(i, pitch)), self.at(target, i)
                with f.loop(low, high) as j:
                    self.store(self.load(of, j), to, f.mul(j, target_pitch))

    def keep(self, target: Value, pitch: Value, rows: Value, columns: Value, upper: bool) -> None:
        """Set what lies beyond one triangle of target to 0."""
        f = self.f
        with f.loop(0, rows) as i:
            to = self.at(target, f.mul(i, pitch))
            low, high = (0, f.smin(i, columns)) if upper else (f.add(i, 1), columns)
            with f.loop(low, high) as j:
                self.store(f.const(0, self.element), to, j)

    # ------------------------------------------------------------------ integers
    def get_int(self, array: Value, index: Value | int) -> Value:
        """An element of an array of Fortran's integers, as i32."""
        f = self.f
        return f.load("i32", f.gep(array, f.mul(index, self.slot("int_bytes")), "i8"))

    def put_int(self, value: Value, array: Value, index: Value | int) -> None:
        """Set an element; in ascending order, for the upper half of what is written may lie on the
        next one."""
        f = self.f
        f.store(value, f.gep(array, f.mul(index, self.slot("int_bytes")), "i8"), align=4)

    def give_ints(self, array: Value, count: Value, target: Value) -> None:
        """Fortran's integers as int32 elements of a result."""
        f = self.f
        with f.loop(0, count) as i:
            f.store(self.get_int(array, i), target, i)

    def take_pivots(self, source: Value, count: Value, array: Value, signed: bool = False) -> None:
        """int32 elements of an operand, numbers of rows (`signed`: with either sign), as Fortran's
        integers; whatever they are, no row beyond the matrix is named."""
        f = self.f
        with f.loop(0, count) as i:
            row = f.cast("sext", f.load("i32", source, i), "i64")
            if signed:
                below = f.smax(f.smin(row, -1), f.sub(0, count))
                above = f.smin(f.smax(row, 1), count)
                row = f.select(f.cmp("slt", row, 0), below, above)
            else:
                row = f.smin(f.smax(row, 1), count)
            self.put_int(row, array, i)

    # ------------------------------------------------------------------ calls
    def int(self, value: Value | int) -> Value:
        """The address of an integer."""
        return self.f.var("i64", value).pointer if isinstance(value, int) else self._boxed(value)

    def _boxed(self, value: Value) -> Value:
        box = self.f.var("i64")
        box.set(value)
        return box.pointer

    def pitch(self, value: Value) -> Value:
        """The address of a leading dimension: LAPACK wants at least 1."""
        return self.int(self.f.smax(value, 1))

    def box(self, value: Value) -> Value:
        """The address of an element or a number of any type."""
        made = self.f.var(value.type)
        made.set(value)
        return made.pointer

    def call(self, name: str, *args: Value | str) -> None:
        """Call a function of BLAS or LAPACK; letters are given as text."""
        f = self.f
        given = [self.box(f.const(ord(a), "i8")) if isinstance(a, str) else a for a in args]
        # Fortran passes the lengths of texts behind everything else
        lengths = [f.const(1, "i64") for a in args if isinstance(a, str)]
        f.call_pointer("void", self.slot(f"f_{name}", "ptr"), given + lengths)

    @contextlib.contextmanager
    def info(self) -> Iterator[Value]:
        """The address of `info`; afterwards it is what the last result holds."""
        box = self.f.var("i64")
        box.set(0)
        yield box.pointer
        self.f.store(self.f.load("i32", box.pointer), self.result(self.last, "i32"))

    @contextlib.contextmanager
    def if_finite(self, info: Value, number: int, rows: Value, columns: Value) -> Iterator[None]:
        """Do something unless an operand holds NaN or infinities, which some iterations would not
        end with: `info` is then NOT_FINITE."""
        f = self.f
        found = f.var(self.real, 0.0)
        found.set(0.0)
        with f.loop(0, rows) as i:
            row = self.at(self.source(number), f.mul(i, self.rows(number)))
            with f.loop(0, f.mul(columns, self.parts)) as j:
                item = f.load(self.real, row, j)
                found.set(f.fadd(found.get(), f.fmul(item, 0.0)))
        finite = f.cmp("oeq", found.get(), 0.0)
        f.store(f.select(finite, f.const(0, "i32"), f.const(NOT_FINITE, "i32")), info)
        with f.when(finite):
            yield

    @property
    def last(self) -> int:
        """The number of the last result."""
        return max(int(name[1:]) for name in self.places if name[0] == "r" and name[1:].isdigit())
