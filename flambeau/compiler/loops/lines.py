"""The lines of a sweep: what each computes, and in which loop it does so.

A line is emitted in the outermost loop body in which its operands are known, so that what does not
change in the innermost loop is computed outside it.
"""

from __future__ import annotations

from flambeau.compiler.emitter import Value
from flambeau.compiler.lanes import memory_type, register_type
from flambeau.compiler.loops.access import Access
from flambeau.compiler.loops.kernel import Kernel, Result
from flambeau.core import dtypes
from flambeau.core.dtypes import DType, by_name
from flambeau.ops.primitives.elementwise import ELEMENTWISE

__all__ = ["Lines"]


class Lines(Access):
    """The values of a canonical sweep's lines."""

    def __init__(self, kernel: Kernel, sweep: tuple, outer: list[Value]):
        (self.own_lanes, self.outer_count, self.loops, self.has_lane, self.lane_reduced,
         self.lines, results, self.tiled, self.carry, self.narrow, self.registers) = sweep
        self.results = [Result(*result) for result in results]
        self.maps = [r for r in self.results if r.reduce is None]
        self.sums = [r for r in self.results if r.reduce is not None]
        self.kernel, self.f, self.k = kernel, kernel.f, kernel.k
        self.lanes = self.own_lanes if self.has_lane else 1
        self.indices: dict[int, Value] = dict(enumerate(outer))
        self.lane_place = self.outer_count + len(self.loops) - 1 if self.has_lane else None
        self.values: dict[int, Value] = {}
        self.block, self.bases = "", {}
        self.tail: Value | None = None  # the mask of the last register of a short lane loop
        self.depends = self._find_dependencies()

    def _find_dependencies(self) -> list[frozenset[int]]:
        """For each line the loops (by place) that its value changes with."""
        self.depends: list[frozenset[int]] = []
        for kind, _, args, data in self.lines:
            places = frozenset().union(*(self.depends[arg] for arg in args))
            if kind == "load":
                places |= self._places_of(data[2])
                places = places.union(*(self.depends[condition] for condition in data[3]))
            elif kind == "index":
                places |= self._places_of(data)
            elif kind in ("inside", "divides", "quotient"):
                places |= self._places_of(data[0])
            self.depends.append(places)
        return self.depends

    def _places_of(self, index: tuple) -> frozenset[int]:
        terms, _, dynamic = index
        places = frozenset(place for place, _ in terms)
        return places.union(*(self.depends[line] for line, _ in dynamic))

    def hoist(self, stored: set) -> None:
        """Emit what is the same everywhere, before all loops; `stored` are the pointers of what
        this kernel writes."""
        if self.registers is not None and self.registers[1]:
            count, stop = self.registers[0], self.kernel.slot(self.loops[-1][0])
            left = self.f.sub(stop, (count - 1) * self.lanes)
            self.tail = self.f.lane_mask(self.lanes, left)
        movable: set[int] = set()
        for number, (kind, _, args, data) in enumerate(self.lines):
            if self.depends[number] or kind == "wrap" or kind == "op" and data[1] is not None:
                continue
            needed = set(args)
            if kind == "load":
                if data[0] in stored or not isinstance(data[0], int):
                    continue
                needed |= set(data[3]) | {line for line, _ in data[2][2]}
            if needed <= movable:
                movable.add(number)
                self.values[number] = self._line(self.lines[number], 1)

    def scalar_loops(self) -> range:
        return range(len(self.loops) - (1 if self.has_lane else 0))

    def evaluate(self, ready: set[int], lanes: int) -> None:
        """Emit every line that depends only on the loops in `ready` and is not there yet."""
        for number, line in enumerate(self.lines):
            if number not in self.values and self.depends[number] <= ready:
                across = self.lane_place in self.depends[number]
                self.values[number] = self._line(line, lanes if across else 1)

    def open_places(self, inner: int) -> set[int]:
        return set(range(self.outer_count + inner))

    def dtype(self, line: int) -> DType:
        return by_name(self.lines[line][1])

    def _line(self, line: tuple, lanes: int) -> Value:
        kind, dtype_name, args, data = line
        dtype = by_name(dtype_name)
        operands = [self.k.splat(self.values[arg], lanes) for arg in args]
        return getattr(self, f"line_{kind}")(dtype, operands, data, lanes, line)

    def line_op(self, dtype, operands, data, lanes, line) -> Value:
        # an operation is typed by its operands (a comparison gives bool, `where` selects by bool)
        name, status = data
        if status is not None:
            self.k.status = self.kernel.slot(status, "ptr")
        source = by_name(self.lines[line[2][-1]][1])
        return ELEMENTWISE[name].emit(self.k, source, *operands)

    def line_cast(self, dtype, operands, data, lanes, line) -> Value:
        return self.k.convert(operands[0], by_name(self.lines[line[2][0]][1]), dtype)

    def line_const(self, dtype, operands, data, lanes, line) -> Value:
        where, content = data
        if where == "literal":
            return self.f.const(content, register_type(dtype))
        if dtype.kind == "f":
            return self.k.convert(self.kernel.slot(content, "double"), dtypes.float64, dtype)
        return self.k.convert(self.kernel.slot(content), dtypes.int64, dtype)

    def line_number(self, dtype, operands, data, lanes, line) -> Value:
        slot, source = data
        type_ = "double" if source == "float64" else "i64"
        raw = self.kernel.slot(slot, type_)
        return self.k.convert(raw, dtypes.float64 if type_ == "double" else dtypes.int64, dtype)

    def line_index(self, dtype, operands, index, lanes, line) -> Value:
        return self.offset(index, lanes)

    def line_wrap(self, dtype, operands, data, lanes, line) -> Value:
        size, status = data
        self.k.status = self.kernel.slot(status, "ptr")
        return self.k.wrap_index(operands[0], self.kernel.slot(size))

    def line_inside(self, dtype, operands, data, lanes, line) -> Value:
        index, size = data
        return self.f.cmp("ult", self.offset(index, lanes),
                          self.k.splat(self.kernel.slot(size), lanes))

    def line_divides(self, dtype, operands, data, lanes, line) -> Value:
        index, step = data
        step = self.k.splat(self.kernel.slot(step), lanes)
        return self.f.cmp("eq", self.f.srem(self.offset(index, lanes), step), 0)

    def line_quotient(self, dtype, operands, data, lanes, line) -> Value:
        index, step = data
        return self.f.sdiv(self.offset(index, lanes), self.k.splat(self.kernel.slot(step), lanes))

    def line_load(self, dtype, operands, data, lanes, line) -> Value:
        slot, memory_name, index, conditions = data
        source = by_name(memory_name)
        raw = self.load(self.kernel.address(slot), memory_type(source), index,
                         [self.values[c] for c in conditions], lanes)
        return self.k.widen(raw, source)
