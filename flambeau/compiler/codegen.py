"""Code generation: the canonical form of a nest -> LLVM IR text.

The generator sees only the canonical key, never a size: equal keys give equal kernels.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

from flambeau.compiler.emitter import (
    Function,
    Module,
    Value,
    Var,
    lanes_of,
    scalar_of,
    vector,
)
from flambeau.compiler.lanes import Lanes, memory_type, register_type
from flambeau.compiler.products.packing import transpose
from flambeau.compiler.target import Target
from flambeau.core import dtypes
from flambeau.core.dtypes import DType, by_name
from flambeau.ops.primitives.elementwise import ELEMENTWISE

__all__ = ["KERNEL_ARGS", "emit_nest", "nest_name"]

KERNEL_ARGS = (("ptr noalias", "args"), ("i32", "chunk"), ("i32", "nchunks"), ("i32", "thread"))
TILE_ROWS = 32  # rows that are transposed together: pairs of lines of cache are read
TILE_RUN = 16  # registers of each of them
UNROLL_REDUCE = 4  # independent accumulators, to hide the latency of the addition
ROWS_AT_ONCE = 8  # rows that are added to a row of results in one pass over it


def nest_name(key: tuple) -> str:
    """The kernel's symbol: stable across processes."""
    return "nest_" + hashlib.sha256(repr(key).encode()).hexdigest()[:24]


@functools.cache
def emit_nest(key: tuple, target: Target) -> str:
    """The LLVM module that holds the kernel of this canonical nest."""
    outer, carried, sweeps = key
    module = Module(target.attributes)
    f = module.function(nest_name(key), KERNEL_ARGS)
    nest = _Nest(f)
    extents = [nest.slot(number) for number in outer]
    places = [f.var("i64", 0) for _ in extents]
    made = [_Phase(nest, sweep, []) for sweep in sweeps]
    stored = {result[-1][0] for sweep in sweeps for result in sweep[6]}
    for sweep in made:
        sweep.hoist(stored)
    start, stop = _share(f, extents, places)
    with f.loop(start, stop):
        indices = [place.get() for place in places]
        if carried is None:
            for sweep in made:
                sweep.emit(indices)
        else:
            _emit_rows(nest, carried, made, indices)
        _advance(f, extents, places)
    return module.text()


def _share(f: Function, extents: list[Value], places: list[Var]) -> tuple[Value, Value]:
    """This chunk's part of the product of the outer loops; `places` are set to its first one."""
    total: Value | int = 1
    for extent in extents:
        total = f.mul(total, extent)
    chunk = f.cast("zext", f.args["chunk"], "i64")
    count = f.cast("zext", f.args["nchunks"], "i64")
    start = f.udiv(f.mul(f.typed(total, "i64"), chunk), count)
    stop = f.udiv(f.mul(f.typed(total, "i64"), f.add(chunk, 1)), count)
    rest = start
    for extent, place in reversed(list(zip(extents, places, strict=True))[1:]):
        place.set(f.urem(rest, extent))
        rest = f.udiv(rest, extent)
    if places:
        places[0].set(rest)
    return start, stop


def _advance(f: Function, extents: list[Value], places: list[Var]) -> None:
    """Count the outer loops on, innermost first: no division in every iteration."""
    step: Value | int = 1
    for number, (extent, place) in enumerate(reversed(list(zip(extents, places, strict=True)))):
        following = f.add(place.get(), step)
        if number == len(places) - 1:
            place.set(following)
            break
        over = f.cmp("eq", following, extent)
        place.set(f.select(over, 0, following))
        step = f.cast("zext", over, "i64")


def _emit_rows(nest: _Nest, carried: tuple, sweeps: list[_Phase], indices: list[Value]) -> None:
    """The rows of a block, one after the other."""
    f = nest.f
    extent, clip = carried
    size = nest.slot(extent)
    if clip is not None:
        place, total = clip
        size = f.smin(size, f.sub(nest.slot(total), f.mul(indices[place], size)))
    with f.loop(0, size) as row:
        for sweep in sweeps:
            sweep.emit([*indices, row])


class _Nest:
    """What all sweeps of a kernel share: the function and its slots."""

    def __init__(self, f: Function):
        self.f = f
        self.k = Lanes(f)
        self._slots: dict[tuple[int, str], Value] = {}

    def slot(self, number: int, type_: str = "i64") -> Value:
        """The content of a launch argument, read once, in the entry block."""
        if (number, type_) not in self._slots:
            f = self.f
            saved, f._body = f._body, f._entry
            value = f.load(type_, f.gep(f.args["args"], number, "i64"))
            f._body = saved
            self._slots[number, type_] = value
        return self._slots[number, type_]

    def address(self, slot: int | tuple[int, int]) -> Value:
        """What a pointer's slot holds; (slot, stride): this thread's copy of a row."""
        if isinstance(slot, int):
            return self.slot(slot, "ptr")
        if slot not in self._slots:
            base, stride = self.slot(slot[0], "ptr"), self.slot(slot[1])
            f = self.f
            saved, f._body = f._body, f._entry
            thread = f.cast("zext", f.args["thread"], "i64")
            self._slots[slot] = f.gep(base, f.mul(thread, stride), "i8")
            f._body = saved
        return self._slots[slot]


class _Result(NamedTuple):
    """What a phase of a sweep does with a line: stores it, or reduces it and stores that."""

    value: int
    reduce: str | None
    mode: str
    position: int | None
    where: tuple


class _Phase:
    """One sweep of a kernel: phases in the same loops.

    Lines are evaluated in *scopes*: a line is emitted in the outermost loop body in which its
    operands are known, so that what does not change in the innermost loop is computed outside it.
    """

    def __init__(self, nest: _Nest, sweep: tuple, outer_indices: list[Value]):
        (self.own_lanes, self.outer_count, self.loops, self.has_lane, self.lane_reduced,
         self.lines, results, self.tiled, self.carry, self.narrow) = sweep
        self.results = [_Result(*result) for result in results]
        self.maps = [r for r in self.results if r.reduce is None]
        self.sums = [r for r in self.results if r.reduce is not None]
        self.nest, self.f, self.k = nest, nest.f, nest.k
        self.lanes = self.own_lanes if self.has_lane else 1
        self.indices: dict[int, Value] = dict(enumerate(outer_indices))
        self.lane_place = self.outer_count + len(self.loops) - 1 if self.has_lane else None
        self.values: dict[int, Value] = {}
        self.depends = self._find_dependencies()

    # ------------------------------------------------------------------ structure of lines
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

    # ------------------------------------------------------------------ loops
    def hoist(self, stored: set) -> None:
        """Emit what is the same everywhere, before all loops; `stored` are the pointers of what
        this kernel writes."""
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

    def emit(self, outer_indices: list[Value] | None = None) -> None:
        if outer_indices is not None:
            self.indices = dict(enumerate(outer_indices))
        saved = dict(self.values)
        self._start_carried()
        if not self.sums:
            self._emit_map(0)
        elif self.sums[0].reduce.startswith("scan_"):
            self._emit_scan(self.sums[0])
        elif self.lane_reduced or not self.has_lane:
            self._emit_horizontal()
        elif self._in_registers():
            self._emit_vertical()
        else:
            self._emit_columns()
        self.values = saved

    def _extent(self, loop: int) -> Value:
        extent, clip = self.loops[loop]
        size = self.nest.slot(extent)
        if clip is None:
            return size
        outer_place, total = clip
        left = self.f.sub(self.nest.slot(total), self.f.mul(self.indices[outer_place], size))
        return self.f.smin(size, left)

    def _scalar_loops(self) -> range:
        return range(len(self.loops) - (1 if self.has_lane else 0))

    def _evaluate(self, ready: set[int], lanes: int) -> None:
        """Emit every line that depends only on the loops in `ready` and is not there yet."""
        for number, line in enumerate(self.lines):
            if number not in self.values and self.depends[number] <= ready:
                across = self.lane_place in self.depends[number]
                self.values[number] = self._line(line, lanes if across else 1)

    def _open_places(self, inner: int) -> set[int]:
        return set(range(self.outer_count + inner))

    def _emit_map(self, depth: int) -> None:
        saved = dict(self.values)
        self._evaluate(self._open_places(depth), 1)
        if self.tiled and depth + 1 == len(self._scalar_loops()):
            self._emit_tiles(depth)
        elif depth < len(self._scalar_loops()):
            with self.f.loop(0, self._extent(depth)) as i:
                self.indices[self.outer_count + depth] = i
                self._emit_map(depth + 1)
        elif self.has_lane:
            self._map_loop(self._map_unroll())
        else:
            self._store_all(1)
        self.values = saved

    def _map_unroll(self) -> int:
        """Short bodies are repeated, so that counting does not cost as much as they do."""
        return 4 if len(self.lines) <= 8 else 2 if len(self.lines) <= 20 else 1

    def _map_loop(self, unroll: int) -> None:
        """Store over the lane loop: full registers at addresses that are multiples of a register's
        size, since others touch two cache lines each; before them masked ones, for both ends."""
        f, stop = self.f, self._extent(len(self.loops) - 1)
        if self.lanes == 1:
            self._lane_loop(self._store_lanes, unroll)
            return
        head = self._misaligned(stop)
        step = self.lanes * unroll
        full = f.add(head, f.mul(f.sdiv(f.sub(stop, head), step), step))
        count = f.add(f.ceil_div(f.sub(stop, full), self.lanes), 1)
        first = f.cast("zext", f.cmp("eq", head, 0), "i64")
        with f.loop(first, count) as edge:
            front = f.cmp("eq", edge, 0)
            behind = f.add(full, f.mul(f.sub(edge, 1), self.lanes))
            i = f.select(front, 0, behind)
            end = f.select(front, head, stop)
            self._lane_body(i, f.lane_mask(self.lanes, f.sub(end, i)), self._store_lanes, 0)
        with f.loop(head, full, step) as i:
            for part in range(unroll):
                self._lane_body(f.add(i, part * self.lanes), None, self._store_lanes, part)

    def _misaligned(self, stop: Value) -> Value:
        """Elements before the first aligned address that is stored to; 0 for short loops."""
        f = self.f
        for result in self.maps:
            slot, dtype_name, index = result.where
            dtype = by_name(dtype_name)
            if index[2] or self._parts(index)[1] != 1 or dtype.itemsize < 4:
                continue
            self.indices[self.lane_place] = f.const(0, "i64")
            start = f.gep(self.nest.address(slot), self._offset(index, 1), memory_type(dtype))
            address = f.cast("ptrtoint", start, "i64")
            size = self.lanes * dtype.itemsize
            over = f.and_(f.sub(0, address), size - 1)
            fits = f.cmp("eq", f.and_(address, dtype.itemsize - 1), 0)
            long = f.cmp("sge", stop, 8 * self.lanes)
            shift = dtype.itemsize.bit_length() - 1
            return f.select(f.and_(fits, long), f.lshr(over, shift), 0)
        return f.const(0, "i64")

    def _start_carried(self) -> None:
        """Clear the row of results that the rows of a block are added to, before the first one."""
        carried = [r for r in self.maps if r.mode.startswith("carry_")]
        if carried:
            first = self.f.cmp("eq", self.indices[self.outer_count - 1], 0)
            with self.f.when(first):
                self._clear(carried)

    def _clear(self, results: list[_Result], depth: int = 0, rows: int = 0) -> None:
        """Store the neutral element of each result's rule, over its loops from `depth` on."""
        if depth < rows:  # a loop that is summed over
            self.indices[self.outer_count + depth] = self.f.const(0, "i64")
            self._clear(results, depth + 1, rows)
        elif depth < len(self._scalar_loops()):
            with self.f.loop(0, self._extent(depth)) as i:
                self.indices[self.outer_count + depth] = i
                self._clear(results, depth + 1, rows)
        else:
            def fill(part: int) -> None:
                for result in results:
                    dtype = self._dtype(result.value)
                    type_ = vector(self.lanes, register_type(dtype))
                    neutral = self.k.identity(result.reduce or result.mode[6:], dtype)
                    self._store(result._replace(mode="set"), self.f.const(neutral, type_),
                                self.lanes)

            if self.has_lane:
                self._lane_loop(fill)
            else:
                fill(0)

    # ------------------------------------------------------------------ loads across the lanes
    def _emit_tiles(self, depth: int) -> None:
        """All rows of a tile. Loads that are contiguous along the rows, not along the lanes, are
        done in squares, which are transposed into a buffer; a run of lanes at a time, so that
        results are stored in long pieces."""
        f, lanes, place = self.f, self.lanes, self.outer_count + depth
        rows, stop = self._extent(depth), self._extent(len(self.loops) - 1)
        run = lanes * TILE_RUN
        loads = {n: f.array(memory_type(by_name(line[3][1])), TILE_ROWS * (run + lanes))
                 for n, line in enumerate(self.lines) if self._is_crosswise(line, place)}
        with f.loop(0, stop, run) as left:
            right = f.smin(f.add(left, run), stop)
            with f.loop(0, rows, lanes) as low, f.loop(left, right, lanes) as column:
                # squares at the ends end with the tile, even if they begin before it
                self.indices[place] = f.smin(low, f.sub(rows, lanes))
                self.indices[self.lane_place] = f.smin(column, f.sub(stop, lanes))
                at = f.add(f.mul(low, run + lanes), f.sub(column, left))
                for number, buffer in loads.items():
                    self._load_square(self.lines[number][3], buffer, at, run + lanes)
            with f.loop(0, rows) as row:
                saved = dict(self.values)
                self.indices[place] = row
                low = f.and_(row, -lanes)
                shift = f.sub(low, f.smin(low, f.sub(rows, lanes)))
                start = f.sub(f.mul(f.add(row, shift), run + lanes), left)
                self._tile_row(loads, start, left, right, stop)
                self.values = saved

    def _tile_row(self, loads: dict[int, Value], start: Value, left: Value, right: Value,
                  stop: Value) -> None:
        """The lanes from `left` to `right` of one row; lane i of it lies at start + i."""
        f, lanes = self.f, self.lanes

        def body(part: int) -> None:
            i = self.indices[self.lane_place]
            at = f.add(start, f.add(i, f.sub(i, f.smin(i, f.sub(stop, lanes)))))
            for number, buffer in loads.items():
                dtype = by_name(self.lines[number][3][1])
                raw = f.load(vector(lanes, memory_type(dtype)), buffer, at)
                self.values[number] = self.k.widen(raw, dtype)
            self._store_lanes(part)

        full = f.sub(right, f.and_(f.sub(right, left), lanes - 1))
        with f.loop(left, full, lanes) as i:
            self._lane_body(i, None, body, 0)
        if lanes > 1:
            with f.when(f.cmp("slt", full, right)):
                self._lane_body(full, f.lane_mask(lanes, f.sub(right, full)), body, 0)

    def _is_crosswise(self, line: tuple, place: int) -> bool:
        """Is this a load along the tile's rows that takes steps along the lanes?"""
        if line[0] != "load" or line[3][3] or line[3][2][2]:
            return False
        terms = dict(line[3][2][0])
        return terms.get(place) == "unit" and isinstance(terms.get(self.lane_place), int)

    def _load_square(self, data: tuple, buffer: Value, at: Value, pitch: int) -> None:
        """Put the square that begins at the current indices into a buffer, its rows `pitch` apart.
        """
        f, lanes, (slot, name, index, _) = self.f, self.lanes, data
        type_ = memory_type(by_name(name))
        base, step, _ = self._parts(index)
        start = f.add(base, f.mul(self.indices[self.lane_place], step))
        address, columns = f.gep(self.nest.address(slot), start, type_), []
        for _ in range(lanes):
            columns.append(f.load(vector(lanes, type_), address))
            address = f.gep(address, step, type_)
        if lanes > 1:
            columns = transpose(f, columns, 2 if by_name(name).itemsize == 8 else 4)
        for row, value in enumerate(columns):
            f.store(value, buffer, f.add(at, row * pitch))

    def _lane_loop(self, body, unroll: int = 1) -> None:
        """Run `body(lanes)` over the lane loop: full registers, then one masked tail."""
        f, stop = self.f, self._extent(len(self.loops) - 1)
        step = self.lanes * unroll
        full = f.mul(f.sdiv(stop, step), step)
        with f.loop(0, full, step) as i:
            for part in range(unroll):
                self._lane_body(f.add(i, part * self.lanes), None, body, part)
        if self.lanes == 1 and unroll == 1:
            return
        with f.loop(full, stop, self.lanes) as i:
            mask = None if self.lanes == 1 else f.lane_mask(self.lanes, f.sub(stop, i))
            self._lane_body(i, mask, body, 0)

    def _lane_body(self, i: Value, mask: Value | None, body, part: int) -> None:
        saved = dict(self.values)
        self.indices[self.lane_place], self.k.active = i, mask
        body(part)
        self.k.active = None
        self.values = saved

    def _store_lanes(self, part: int) -> None:
        self._evaluate(self._open_places(len(self.loops)), self.lanes)
        self._store_all(self.lanes)

    def _store_all(self, lanes: int) -> None:
        for result in self.maps:
            self._store(result, self.k.splat(self.values[result.value], lanes), lanes)

    # ------------------------------------------------------------------ reductions
    def _dtype(self, line: int) -> DType:
        return by_name(self.lines[line][1])

    def _accumulators(self, result: _Result, count: int, lanes: int
                      ) -> list[tuple[Var, Var | None]]:
        dtype = self._dtype(result.value)
        type_ = vector(lanes, register_type(dtype))
        made = []
        for _ in range(count):
            best = self.f.var(type_, self.k.identity(result.reduce, dtype))
            spot = (self.f.var(vector(lanes, "i64"), 2**63 - 1)
                    if result.position is not None else None)
            made.append((best, spot))
        return made

    def _reset(self, result: _Result, accumulators) -> None:
        dtype = self._dtype(result.value)
        for best, spot in accumulators:
            best.set(self.k.identity(result.reduce, dtype))
            if spot is not None:
                spot.set(2**63 - 1)

    def _accumulate(self, result: _Result, accumulator, value: Value, spot: Value | None) -> None:
        best, where = accumulator
        f, dtype = self.f, self._dtype(result.value)
        if where is None:
            best.set(self.k.combine(result.reduce, dtype, best.get(), value))
            return
        old, old_spot = best.get(), where.get()
        better = self.k.better(result.reduce, dtype, old, old_spot, value, spot)
        best.set(f.select(better, value, old))
        where.set(f.select(better, spot, old_spot))

    def _absorb(self, result: _Result, accumulator, lanes: int) -> None:
        """Evaluate the reduced value here and add it; lanes past the end count as the identity."""
        self._evaluate(self._open_places(len(self.loops)), self.lanes)
        value = self.k.splat(self.values[result.value], lanes)
        spot = None
        if result.position is not None:
            spot = self.k.splat(self.values[result.position], lanes)
        if self.k.active is not None and lanes > 1 and self.lane_reduced:
            neutral = self.k.identity(result.reduce, self._dtype(result.value))
            value = self.f.select(self.k.active, value, neutral)
            if spot is not None:
                spot = self.f.select(self.k.active, spot, 2**63 - 1)
        self._accumulate(result, accumulator, value, spot)

    def _emit_horizontal(self) -> None:
        """Lanes run along a reduced loop; one scalar per iteration of the outer loops.

        Each run of the innermost loop is summed on its own and then added: the error grows with the
        run, not with the whole.
        """
        unroll = UNROLL_REDUCE if self.has_lane else 1  # for every rule: the tree must not differ
        totals = [self._accumulators(r, 1, self.lanes)[0] for r in self.sums]
        runs = [self._accumulators(r, unroll, self.lanes) if self.has_lane else []
                for r in self.sums]

        def body(part: int) -> None:
            for result, run in zip(self.sums, runs, strict=True):
                self._absorb(result, run[part], self.lanes)
            self._store_all(self.lanes)

        def descend(depth: int) -> None:
            saved = dict(self.values)
            self._evaluate(self._open_places(depth), 1)
            if depth < len(self._scalar_loops()):
                with self.f.loop(0, self._extent(depth)) as i:
                    self.indices[self.outer_count + depth] = i
                    descend(depth + 1)
            elif self.has_lane:
                for result, run in zip(self.sums, runs, strict=True):
                    self._reset(result, run)
                self._lane_loop(body, unroll)
                for result, run, total in zip(self.sums, runs, totals, strict=True):
                    for best, spot in run:
                        self._accumulate(result, total, best.get(), spot.get() if spot else None)
            else:
                for result, total in zip(self.sums, totals, strict=True):
                    self._absorb(result, total, 1)
                self._store_all(1)
            self.values = saved

        for result, total in zip(self.sums, totals, strict=True):
            self._reset(result, [total])
        descend(0)
        for result, total in zip(self.sums, totals, strict=True):
            best, spot = self._across_lanes(result, total)
            self._store(result, spot if spot is not None else best, 1)

    def _across_lanes(self, result: _Result, accumulator) -> tuple[Value, Value | None]:
        """Combine the lanes by halves: a fixed tree."""
        f, dtype = self.f, self._dtype(result.value)
        best, spot = accumulator[0].get(), accumulator[1].get() if accumulator[1] else None
        width = self.lanes
        while width > 1:
            width //= 2
            a, b = self._halves(best, width)
            if spot is None:
                best = self.k.combine(result.reduce, dtype, a, b)
            else:
                ai, bi = self._halves(spot, width)
                better = self.k.better(result.reduce, dtype, a, ai, b, bi)
                best, spot = f.select(better, b, a), f.select(better, bi, ai)
        return best, spot

    def _halves(self, x: Value, width: int) -> tuple[Value, Value]:
        if width == 1:
            return self.f.extract(x, 0), self.f.extract(x, 1)
        return (self.f.shuffle(x, None, range(width)),
                self.f.shuffle(x, None, range(width, 2 * width)))

    def _in_registers(self) -> bool:
        """Is each register of results completed before the next one? Else whole rows are added up,
        in the order of memory; the sums are the same."""
        if self.narrow or any((self.lane_place, "unit") not in r.where[2][0] for r in self.sums):
            return True
        if any(r.position is not None or by_name(r.where[1]) is not self._dtype(r.value)
               or self._dtype(r.value).is_reduced for r in self.sums):
            return True
        return any(place == self.lane_place and factor != "unit" for kind, _, _, data in self.lines
                   if kind == "load" for place, factor in data[2][0])

    def _emit_vertical(self) -> None:
        """Lanes run along a kept loop; the reduced loops run inside, register by register."""
        self._evaluate(self._open_places(0), 1)
        totals = [self._accumulators(r, 1, self.lanes)[0] for r in self.sums]
        lane_only = self._open_places(0) | {self.lane_place}

        def descend(depth: int, places: set[int]) -> None:
            saved = dict(self.values)
            self._evaluate(places, self.lanes)
            if depth < len(self._scalar_loops()):
                with self.f.loop(0, self._extent(depth)) as i:
                    self.indices[self.outer_count + depth] = i
                    descend(depth + 1, places | {self.outer_count + depth})
            else:
                for result, total in zip(self.sums, totals, strict=True):
                    self._absorb(result, total, self.lanes)
            self.values = saved

        def body(part: int) -> None:
            for result, total in zip(self.sums, totals, strict=True):
                self._reset(result, [total])
            descend(0, lane_only)
            for result, (best, spot) in zip(self.sums, totals, strict=True):
                self._store(result, spot.get() if spot is not None else best.get(), self.lanes)

        self._lane_loop(body)

    def _emit_columns(self) -> None:
        """Lanes run along a kept loop: rows are added to the row of results, in the order of
        memory, several at a time."""
        rows = len(self._scalar_loops())
        self._evaluate(self._open_places(0), 1)
        self._clear(self.sums, 0, rows)

        def descend(depth: int) -> None:
            saved = dict(self.values)
            self._evaluate(self._open_places(depth), 1)
            if depth >= rows - 1:
                self._add_rows(depth, rows)
            else:
                with self.f.loop(0, self._extent(depth)) as i:
                    self.indices[self.outer_count + depth] = i
                    descend(depth + 1)
            self.values = saved

        descend(0)

    def _add_rows(self, depth: int, rows: int) -> None:
        """The innermost of the loops that are summed over."""
        if not rows:
            self._lane_loop(lambda part: self._add_to_results([{}]))
            return
        f, place = self.f, self.outer_count + depth
        stop = self._extent(depth)
        count = ROWS_AT_ONCE if len(self.lines) <= 12 else 2
        full = f.mul(f.udiv(stop, count), count)
        for start, end, step in ((0, full, count), (full, stop, 1)):
            with f.loop(start, end, step) as i:
                several = []
                for part in range(step):
                    saved = dict(self.values)
                    self.indices[place] = f.add(i, part)
                    self._evaluate(self._open_places(depth + 1), 1)
                    several.append({"index": self.indices[place], "values": self.values})
                    self.values = saved
                self._lane_loop(lambda part, several=several: self._add_to_results(several, place))

    def _add_to_results(self, several: list[dict], place: int = 0) -> None:
        """Add rows (their index and what is known of each) to a register of each result."""
        totals = [self._load_result(result) for result in self.sums]
        saved = self.values
        for row in several:
            if row:
                self.indices[place], self.values = row["index"], dict(row["values"])
            self._evaluate(self._open_places(len(self.loops)), self.lanes)
            for number, result in enumerate(self.sums):
                value = self.k.splat(self.values[result.value], self.lanes)
                totals[number] = self.k.combine(result.reduce, self._dtype(result.value),
                                                totals[number], value)
        self.values = saved
        for result, total in zip(self.sums, totals, strict=True):
            self._store(result, total, self.lanes)

    def _load_result(self, result: _Result) -> Value:
        slot, dtype_name, index = result.where
        dtype = by_name(dtype_name)
        raw = self._load(self.nest.address(slot), memory_type(dtype), index, [], self.lanes)
        return self.k.widen(raw, dtype)

    # ------------------------------------------------------------------ scans
    def _emit_scan(self, result: _Result) -> None:
        """Walk the inner loop in order and store every intermediate result. Sums and products of
        floats are carried in double precision."""
        rule = result.reduce.removeprefix("scan_")
        if self.lane_reduced:
            (self._emit_row_scan if result.position is None else self._emit_row_extrema)(result)
            return
        dtype = self._dtype(result.value)
        wide = dtypes.float64 if dtype is dtypes.float32 and result.position is None else dtype
        start = {"sum": 0, "prod": 1, "logsumexp": float("-inf")}.get(rule)
        if start is None:
            start = self.k.identity(rule, dtype)
        carried = self.f.var(vector(self.lanes, register_type(wide)), start)
        spot = self.f.var(vector(self.lanes, "i64"), 0) if result.position is not None else None
        self._evaluate(self._open_places(0), 1)
        places = self._open_places(1) | ({self.lane_place} if self.has_lane else set())

        def row(part: int) -> None:
            carried.set(start)
            self._evaluate(places - {self.outer_count}, self.lanes)
            saved = dict(self.values)
            with self.f.loop(0, self._extent(0)) as i:
                self.indices[self.outer_count] = i
                self._evaluate(places, self.lanes)
                value = self.k.splat(self.values[result.value], self.lanes)
                if spot is None:
                    total = self.k.scan_step(rule, wide, carried.get(),
                                             self.k.convert(value, dtype, wide))
                    carried.set(total)
                    self._store(result, self.k.convert(total, wide, dtype), self.lanes)
                else:
                    at = self.k.splat(self.values[result.position], self.lanes)
                    better = self.k.extends(rule, dtype, carried.get(), value)
                    carried.set(self.f.select(better, value, carried.get()))
                    spot.set(self.f.select(better, at, spot.get()))
                    self._store(result, spot.get(), self.lanes)
                self.values = dict(saved)

        if self.has_lane:
            self._lane_loop(row)
        else:
            row(0)

    def _emit_row_scan(self, result: _Result) -> None:
        """Lanes run along the scan: a register is scanned in itself, by doubling distances, and
        goes on where the one before ended."""
        rule = result.reduce.removeprefix("scan_")
        f, k, lanes = self.f, self.k, self.lanes
        dtype = self._dtype(result.value)
        wide = dtypes.float64 if dtype is dtypes.float32 else dtype
        type_ = vector(lanes, register_type(wide))
        identity = f.const(k.identity(rule, wide), type_)
        carried = f.var(type_)
        self._evaluate(self._open_places(0), 1)
        carried.set(identity if self.carry is None else f.splat(self.values[self.carry], lanes))

        def body(part: int) -> None:
            self._evaluate(self._open_places(len(self.loops)), lanes)
            local = k.convert(k.splat(self.values[result.value], lanes), dtype, wide)
            distance = 1
            while distance < lanes:
                before = f.shuffle(local, identity, [
                    lane - distance if lane >= distance else lanes for lane in range(lanes)])
                local = k.scan_step(rule, wide, before, local)
                distance *= 2
            before, last = carried.get(), f.splat(f.extract(local, lanes - 1), lanes)
            carried.set(k.scan_step(rule, wide, before, last))
            value = k.scan_step(rule, wide, before, local)
            self._store(result, k.convert(value, wide, dtype), lanes)

        self._lane_loop(body)

    def _emit_row_extrema(self, result: _Result) -> None:
        """Lanes run along the scan. Most registers hold no new extremum."""
        rule = result.reduce.removeprefix("scan_")
        f, k, lanes = self.f, self.k, self.lanes
        dtype = self._dtype(result.value)
        best, spot = f.var(vector(lanes, register_type(dtype))), f.var(vector(lanes, "i64"))
        self._evaluate(self._open_places(0), 1)
        best.set(k.identity(rule, dtype))
        spot.set(0)

        def body(part: int) -> None:
            self._evaluate(self._open_places(len(self.loops)), lanes)
            value = k.splat(self.values[result.value], lanes)
            first = f.extract(k.splat(self.values[result.position], lanes), 0)
            newer = k.extends(rule, dtype, best.get(), value)
            bits = f.cast("bitcast", newer, f"i{lanes}")
            with f.when_else(f.cmp("ne", bits, 0)) as otherwise:
                local, place, distance = value, f.iota(lanes, "i32"), 1
                while distance < lanes:
                    order = [max(lane - distance, 0) for lane in range(lanes)]
                    before, where = (f.shuffle(v, None, order) for v in (local, place))
                    later = k.extends(rule, dtype, before, local)
                    # lanes that nothing stands before keep what they have
                    keep = f.cmp("slt", f.iota(lanes, "i32"), distance)
                    later = f.or_(later, keep)
                    local, place = f.select(later, local, before), f.select(later, place, where)
                    distance *= 2
                newer = k.extends(rule, dtype, best.get(), local)
                at = f.add(f.cast("sext", place, vector(lanes, "i64")), f.splat(first, lanes))
                at, local = f.select(newer, at, spot.get()), f.select(newer, local, best.get())
                self._store(result, at, lanes)
                best.set(f.splat(f.extract(local, lanes - 1), lanes))
                spot.set(f.splat(f.extract(at, lanes - 1), lanes))
                otherwise()
                self._store(result, spot.get(), lanes)

        self._lane_loop(body)

    # ------------------------------------------------------------------ lines
    def _line(self, line: tuple, lanes: int) -> Value:
        kind, dtype_name, args, data = line
        dtype = by_name(dtype_name)
        operands = [self.k.splat(self.values[arg], lanes) for arg in args]
        return getattr(self, f"_line_{kind}")(dtype, operands, data, lanes, line)

    def _line_op(self, dtype, operands, data, lanes, line) -> Value:
        # an operation is typed by its operands (a comparison gives bool, `where` selects by bool)
        name, status = data
        if status is not None:
            self.k.status = self.nest.slot(status, "ptr")
        source = by_name(self.lines[line[2][-1]][1])
        return ELEMENTWISE[name].emit(self.k, source, *operands)

    def _line_cast(self, dtype, operands, data, lanes, line) -> Value:
        return self.k.convert(operands[0], by_name(self.lines[line[2][0]][1]), dtype)

    def _line_const(self, dtype, operands, data, lanes, line) -> Value:
        where, content = data
        if where == "literal":
            return self.f.const(content, register_type(dtype))
        if dtype.kind == "f":
            return self.k.convert(self.nest.slot(content, "double"), dtypes.float64, dtype)
        return self.k.convert(self.nest.slot(content), dtypes.int64, dtype)

    def _line_number(self, dtype, operands, data, lanes, line) -> Value:
        slot, source = data
        type_ = "double" if source == "float64" else "i64"
        raw = self.nest.slot(slot, type_)
        return self.k.convert(raw, dtypes.float64 if type_ == "double" else dtypes.int64, dtype)

    def _line_index(self, dtype, operands, index, lanes, line) -> Value:
        return self._offset(index, lanes)

    def _line_wrap(self, dtype, operands, data, lanes, line) -> Value:
        size, status = data
        self.k.status = self.nest.slot(status, "ptr")
        return self.k.wrap_index(operands[0], self.nest.slot(size))

    def _line_inside(self, dtype, operands, data, lanes, line) -> Value:
        index, size = data
        return self.f.cmp("ult", self._offset(index, lanes),
                          self.k.splat(self.nest.slot(size), lanes))

    def _line_divides(self, dtype, operands, data, lanes, line) -> Value:
        index, step = data
        step = self.k.splat(self.nest.slot(step), lanes)
        return self.f.cmp("eq", self.f.srem(self._offset(index, lanes), step), 0)

    def _line_quotient(self, dtype, operands, data, lanes, line) -> Value:
        index, step = data
        return self.f.sdiv(self._offset(index, lanes), self.k.splat(self.nest.slot(step), lanes))

    # ------------------------------------------------------------------ addresses
    def _offset(self, index: tuple, lanes: int) -> Value:
        """An element index in every lane, as i64."""
        base, lane_factor, dynamic = self._parts(index)
        f = self.f
        total = f.typed(base, "i64")
        if lanes == 1:
            if lane_factor is not None:
                total = f.add(total, f.mul(self.indices[self.lane_place], lane_factor))
        else:
            total = f.splat(total, lanes)
            if lane_factor is not None:
                position = f.add(f.splat(self.indices[self.lane_place], lanes), f.iota(lanes))
                scale = lane_factor if isinstance(lane_factor, int) else f.splat(lane_factor, lanes)
                total = f.add(total, f.mul(position, scale))
        for value, stride in dynamic:
            stride = stride if isinstance(stride, int) else self.k.splat(stride, lanes)
            total = f.add(total, f.mul(self.k.splat(value, lanes), stride))
        return f.typed(total, vector(lanes, "i64"))

    def _parts(self, index: tuple):
        """(scalar part, factor of the lane loop or None, data-dependent terms)."""
        terms, const, dynamic = index
        f = self.f
        base = 0 if const is None else self.nest.slot(const)
        lane_factor = None
        for place, factor in terms:
            scale = {"unit": 1, "back": -1}.get(factor)
            scale = self.nest.slot(factor) if scale is None else scale
            if place == self.lane_place:
                lane_factor = scale
            else:
                base = f.add(base, f.mul(self.indices[place], scale))
        return base, lane_factor, [
            (self.values[line], 1 if stride is None else self.nest.slot(stride))
            for line, stride in dynamic]

    def _line_load(self, dtype, operands, data, lanes, line) -> Value:
        slot, memory_name, index, conditions = data
        source = by_name(memory_name)
        raw = self._load(self.nest.address(slot), memory_type(source), index,
                         [self.values[c] for c in conditions], lanes)
        return self.k.widen(raw, source)

    def _load(self, pointer: Value, type_: str, index: tuple, conditions: list[Value],
              lanes: int) -> Value:
        f, k = self.f, self.k
        _, lane_factor, _ = self._parts(index)
        if lanes == 1:
            address = f.gep(pointer, self._offset(index, 1), type_)
            if conditions:
                nothing = f.var("i64", 0).pointer
                address = f.select(functools.reduce(f.and_, conditions), address, nothing)
            return f.load(type_, address)
        mask = k.active
        for condition in conditions:
            condition = k.splat(condition, lanes)
            mask = condition if mask is None else f.and_(mask, condition)
        wide = vector(lanes, type_)
        if lane_factor in (1, -1) and all(line not in self._across for line, _ in index[2]):
            address = f.gep(pointer, self._scalar_offset(index), type_)
            if lane_factor == 1:
                return f.load(wide, address) if mask is None else f.masked_load(wide, address, mask)
            return self._load_backwards(wide, address, mask)
        addresses = f.gep(pointer, self._offset(index, lanes), type_)
        full = mask if mask is not None else f.const(True, vector(lanes, "i1"))
        return f.gather(wide, addresses, full)

    def _load_backwards(self, wide: str, last: Value, mask: Value | None) -> Value:
        """Lane 0 from the address `last`, the others from before it."""
        f, lanes = self.f, lanes_of(wide)
        order = range(lanes - 1, -1, -1)
        first = f.gep(last, 1 - lanes, scalar_of(wide))
        if mask is None:
            return f.shuffle(f.load(wide, first), None, order)
        return f.shuffle(f.masked_load(wide, first, f.shuffle(mask, None, order)), None, order)

    def _is_rounded(self, result: _Result, dtype: DType) -> bool:
        """Does what is stored have the precision of `dtype` already?"""
        kind, name = self.lines[result.value][:2]
        return (result.mode == "set" and result.reduce is None and kind in ("cast", "load")
                and name == dtype.name)

    def _store(self, result: _Result, value: Value, lanes: int) -> None:
        slot, dtype_name, index = result.where
        f, k, dtype = self.f, self.k, by_name(dtype_name)
        pointer, type_ = self.nest.address(slot), memory_type(dtype)
        if result.mode != "set":
            old = k.widen(self._load(pointer, type_, index, [], lanes), dtype)
            mode = result.mode.removeprefix("carry_")
            value = k.combine({"add": "sum", "mul": "prod"}.get(mode, mode), dtype, old, value)
        raw = k.narrow(value, dtype, self._is_rounded(result, dtype))
        _, lane_factor, dynamic = self._parts(index)
        if lanes == 1:
            f.store(raw, f.gep(pointer, self._offset(index, 1), type_))
        elif lane_factor == -1 and not dynamic:
            order, mask = range(lanes - 1, -1, -1), k.active
            first = f.gep(f.gep(pointer, self._scalar_offset(index), type_), 1 - lanes, type_)
            if mask is None:
                f.store(f.shuffle(raw, None, order), first)
            else:
                f.masked_store(f.shuffle(raw, None, order), first, f.shuffle(mask, None, order))
        elif lane_factor == 1 and all(line not in self._across for line, _ in index[2]):
            address = f.gep(pointer, self._scalar_offset(index), type_)
            if k.active is None:
                f.store(raw, address)
            else:
                f.masked_store(raw, address, k.active)
        else:
            addresses = f.gep(pointer, self._offset(index, lanes), type_)
            mask = k.active if k.active is not None else f.const(True, vector(lanes, "i1"))
            f.scatter(raw, addresses, mask)

    @functools.cached_property
    def _across(self) -> set[int]:
        """Lines whose value differs between lanes."""
        return {n for n, places in enumerate(self.depends) if self.lane_place in places}

    def _scalar_offset(self, index: tuple) -> Value:
        """The element index of lane 0, when the data-dependent part is the same in every lane."""
        base, lane_factor, dynamic = self._parts(index)
        f = self.f
        total = f.add(base, f.mul(self.indices[self.lane_place], lane_factor))
        for value, stride in dynamic:
            total = f.add(total, f.mul(value, stride))
        return total
