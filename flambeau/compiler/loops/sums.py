"""Reductions: across the lanes, register by register, or row by row in the order of memory."""

from __future__ import annotations

from flambeau.compiler.emitter import Value, Var, vector
from flambeau.compiler.lanes import memory_type, register_type
from flambeau.compiler.loops.kernel import Result
from flambeau.compiler.loops.maps import clear
from flambeau.compiler.loops.sweep import Sweep
from flambeau.core.dtypes import by_name

__all__ = ["emit_columns", "emit_horizontal", "emit_vertical", "in_registers"]

UNROLL_REDUCE = 4  # independent accumulators, to hide the latency of the addition
LONG_RUNS = (16384, 1024)  # elements along the lanes that are summed on their own
FEW_ITERATIONS = 16  # of the loops around the lanes, that one sum takes in order
GROUP, GROUPS = 8, (64,)  # iterations of the next loop that are summed on their own


def _accumulators(sweep: Sweep, result: Result, count: int, lanes: int
                  ) -> list[tuple[Var, Var | None]]:
    dtype = sweep.dtype(result.value)
    type_ = vector(lanes, register_type(dtype))
    made = []
    for _ in range(count):
        best = sweep.f.var(type_, sweep.k.identity(result.reduce, dtype))
        spot = (sweep.f.var(vector(lanes, "i64"), 2**63 - 1)
                if result.position is not None else None)
        made.append((best, spot))
    return made


def _reset(sweep: Sweep, result: Result, accumulators) -> None:
    dtype = sweep.dtype(result.value)
    for best, spot in accumulators:
        best.set(sweep.k.identity(result.reduce, dtype))
        if spot is not None:
            spot.set(2**63 - 1)


def _accumulate(sweep: Sweep, result: Result, accumulator, value: Value,
                spot: Value | None) -> None:
    best, where = accumulator
    f, dtype = sweep.f, sweep.dtype(result.value)
    if where is None:
        best.set(sweep.k.combine(result.reduce, dtype, best.get(), value))
        return
    old, old_spot = best.get(), where.get()
    better = sweep.k.better(result.reduce, dtype, old, old_spot, value, spot)
    best.set(f.select(better, value, old))
    where.set(f.select(better, spot, old_spot))


def _absorb(sweep: Sweep, result: Result, accumulator, lanes: int) -> None:
    """Evaluate the reduced value here and add it; lanes past the end count as the identity."""
    sweep.evaluate(sweep.open_places(len(sweep.loops)), sweep.lanes)
    value = sweep.k.splat(sweep.values[result.value], lanes)
    spot = None
    if result.position is not None:
        spot = sweep.k.splat(sweep.values[result.position], lanes)
    if sweep.k.active is not None and lanes > 1 and sweep.lane_reduced:
        neutral = sweep.k.identity(result.reduce, sweep.dtype(result.value))
        value = sweep.f.select(sweep.k.active, value, neutral)
        if spot is not None:
            spot = sweep.f.select(sweep.k.active, spot, 2**63 - 1)
    _accumulate(sweep, result, accumulator, value, spot)


def _few(sweep: Sweep) -> Value:
    """Are the scalar loops so short that one sum takes all of their iterations, in order? Then it
    does not matter which of them were merged."""
    count: Value | int = 1
    for extent, _ in (sweep.loops[loop] for loop in sweep.scalar_loops()):
        count = sweep.f.mul(count, sweep.kernel.slot(extent))
    return sweep.f.cmp("sle", sweep.f.typed(count, "i64"), FEW_ITERATIONS)


def _first(sweep: Sweep, result: Result, few: Value, total: Value) -> Value:
    """What a part of a sum begins with: nothing, or all that comes before it."""
    return sweep.f.select(few, total, sweep.k.identity(result.reduce, sweep.dtype(result.value)))


def _last(sweep: Sweep, result: Result, few: Value, total: Value, part: Value) -> Value:
    """The sum after a part of it."""
    whole = sweep.k.combine(result.reduce, sweep.dtype(result.value), total, part)
    return sweep.f.select(few, part, whole)


def _cascade(sweep: Sweep, stop: Value, sizes: tuple[int, ...], levels: list, leaf,
             few: Value | None = None) -> None:
    """Run `leaf(start, stop)` over a loop in parts of parts: the error of a sum then grows with the
    sizes of the parts and their number, not with the whole.

    `levels`, outermost first, hold for each result a list of accumulators; `leaf` adds to the last.
    What a part adds up to goes to the accumulators of the level before.
    """
    f = sweep.f

    def part(depth: int, start: Value, stop: Value) -> None:
        if depth == len(sizes):
            leaf(start, stop)
            return
        above, below = levels[depth], levels[depth + 1]
        with f.loop(start, stop, sizes[depth]) as low:
            for result, totals, each in zip(sweep.sums, above, below, strict=True):
                _reset(sweep, result, each)
                if few is not None:
                    for (total, _), (best, _) in zip(totals, each, strict=True):
                        best.set(_first(sweep, result, few, total.get()))
            part(depth + 1, low, f.smin(f.add(low, sizes[depth]), stop))
            for result, totals, each in zip(sweep.sums, above, below, strict=True):
                if len(totals) < len(each):
                    each = _folded(sweep, result, each)
                for total, (best, spot) in zip(totals, each, strict=True):
                    if few is None or spot is not None:
                        _accumulate(sweep, result, total, best.get(), spot.get() if spot else None)
                    else:
                        total[0].set(_last(sweep, result, few, total[0].get(), best.get()))

    part(0, f.const(0, "i64"), stop)


def _folded(sweep: Sweep, result: Result, accumulators: list) -> list:
    """All of them added to the first one, pair by pair."""
    left = list(accumulators)
    while len(left) > 1:
        for first, (best, spot) in zip(left[::2], left[1::2], strict=False):
            _accumulate(sweep, result, first, best.get(), spot.get() if spot else None)
        left = left[::2]
    return left


def _levels(sweep: Sweep, counts: list[int]) -> list:
    return [[_accumulators(sweep, r, count, sweep.lanes) for r in sweep.sums] for count in counts]


def _walk(sweep: Sweep, levels: list, sizes: tuple[int, ...], places, leaf) -> None:
    """The scalar loops of a reduction, the innermost one in parts of `sizes`; `leaf(level)` adds
    one iteration. `places(depth)`: the loops that are open below `depth` of them, and lanes."""
    rows = len(sweep.scalar_loops())

    def several(start: Value, stop: Value) -> None:
        with sweep.f.loop(start, stop) as i:
            sweep.indices[sweep.outer_count + rows - 1] = i
            descend(rows)

    def descend(depth: int) -> None:
        saved = dict(sweep.values)
        sweep.evaluate(*places(depth))
        if depth == rows:
            leaf(levels[-1] if rows else levels[0])
        elif depth == rows - 1:
            _cascade(sweep, sweep.extent(depth), sizes, levels, several, _few(sweep))
        else:
            with sweep.f.loop(0, sweep.extent(depth)) as i:
                sweep.indices[sweep.outer_count + depth] = i
                descend(depth + 1)
        sweep.values = saved

    descend(0)


def emit_horizontal(sweep: Sweep) -> None:
    """Lanes run along a reduced loop; one scalar per iteration of the outer loops."""
    def scalar_places(depth: int) -> tuple[set[int], int]:
        return sweep.open_places(depth), 1

    short = sweep.registers[0] if sweep.registers is not None else 0
    if short or not sweep.has_lane:
        levels, sizes = _levels(sweep, [max(1, short)] * 2), (GROUP,)
    else:
        levels, sizes = _levels(sweep, [1, 1, UNROLL_REDUCE]), LONG_RUNS

    def leaf(accumulators: list) -> None:
        def body(part: int) -> None:
            for result, each in zip(sweep.sums, accumulators, strict=True):
                _absorb(sweep, result, each[part], sweep.lanes)
            sweep.store_all(sweep.lanes)

        def run(start: Value, stop: Value) -> None:
            sweep.lane_loop(body, UNROLL_REDUCE, start, stop)

        if not sweep.has_lane:
            body(0)
        elif short:
            sweep.lane_loop(body)
        else:
            _cascade(sweep, sweep.extent(len(sweep.loops) - 1), sizes, levels, run)

    for result, totals in zip(sweep.sums, levels[0], strict=True):
        _reset(sweep, result, totals)
    if short or not sweep.has_lane:
        _walk(sweep, levels, sizes, scalar_places, leaf)
    else:
        _walk(sweep, levels[:1], (), scalar_places, lambda _: leaf(levels[-1]))
    for result, totals in zip(sweep.sums, levels[0], strict=True):
        best, spot = _across_lanes(sweep, result, *_folded(sweep, result, totals))
        sweep.store(result, spot if spot is not None else best, 1)


def _across_lanes(sweep: Sweep, result: Result, accumulator) -> tuple[Value, Value | None]:
    """Combine the lanes by halves: a fixed tree."""
    f, dtype = sweep.f, sweep.dtype(result.value)
    best, spot = accumulator[0].get(), accumulator[1].get() if accumulator[1] else None
    width = sweep.lanes
    while width > 1:
        width //= 2
        a, b = _halves(sweep, best, width)
        if spot is None:
            best = sweep.k.combine(result.reduce, dtype, a, b)
        else:
            ai, bi = _halves(sweep, spot, width)
            better = sweep.k.better(result.reduce, dtype, a, ai, b, bi)
            best, spot = f.select(better, b, a), f.select(better, bi, ai)
    return best, spot


def _halves(sweep: Sweep, x: Value, width: int) -> tuple[Value, Value]:
    if width == 1:
        return sweep.f.extract(x, 0), sweep.f.extract(x, 1)
    return (sweep.f.shuffle(x, None, range(width)),
            sweep.f.shuffle(x, None, range(width, 2 * width)))


def in_registers(sweep: Sweep) -> bool:
    """Is each register of results completed before the next one? Else whole rows are added up,
    in the order of memory; the sums are the same."""
    if sweep.narrow or any((sweep.lane_place, "unit") not in r.where[2][0] for r in sweep.sums):
        return True
    if any(r.position is not None or by_name(r.where[1]) is not sweep.dtype(r.value)
           or sweep.dtype(r.value).is_reduced for r in sweep.sums):
        return True
    return any(place == sweep.lane_place and factor != "unit" for kind, _, _, data in sweep.lines
               if kind == "load" for place, factor in data[2][0])


def emit_vertical(sweep: Sweep) -> None:
    """Lanes run along a kept loop; the reduced loops run inside, register by register."""
    sweep.evaluate(sweep.open_places(0), 1)
    sizes = (*GROUPS, GROUP) if sweep.narrow else (GROUP,)
    levels = _levels(sweep, [1] * (len(sizes) + 1))

    def register_places(depth: int) -> tuple[set[int], int]:
        return sweep.open_places(depth) | {sweep.lane_place}, sweep.lanes

    def leaf(accumulators: list) -> None:
        for result, (each,) in zip(sweep.sums, accumulators, strict=True):
            _absorb(sweep, result, each, sweep.lanes)

    def body(part: int) -> None:
        for result, totals in zip(sweep.sums, levels[0], strict=True):
            _reset(sweep, result, totals)
        _walk(sweep, levels, sizes, register_places, leaf)
        for result, ((best, spot),) in zip(sweep.sums, levels[0], strict=True):
            sweep.store(result, spot.get() if spot is not None else best.get(), sweep.lanes)

    sweep.lane_loop(body)


def emit_columns(sweep: Sweep) -> None:
    """Lanes run along a kept loop: rows are added to the row of results, in the order of
    memory, several at a time."""
    rows = len(sweep.scalar_loops())
    sweep.evaluate(sweep.open_places(0), 1)
    clear(sweep, sweep.sums, 0, rows)

    def descend(depth: int) -> None:
        saved = dict(sweep.values)
        sweep.evaluate(sweep.open_places(depth), 1)
        if depth >= rows - 1:
            _add_rows(sweep, depth, rows)
        else:
            with sweep.f.loop(0, sweep.extent(depth)) as i:
                sweep.indices[sweep.outer_count + depth] = i
                descend(depth + 1)
        sweep.values = saved

    descend(0)


def _add_rows(sweep: Sweep, depth: int, rows: int) -> None:
    """The innermost of the loops that are summed over."""
    if not rows:
        sweep.lane_loop(lambda part: _add_to_results(sweep, [{}]))
        return
    f, place = sweep.f, sweep.outer_count + depth
    stop = sweep.extent(depth)
    full = f.mul(f.udiv(stop, GROUP), GROUP)
    (rest,) = _levels(sweep, [1])
    with f.loop(0, full, GROUP) as i:
        several = []
        for part in range(GROUP):
            saved = dict(sweep.values)
            sweep.indices[place] = f.add(i, part)
            sweep.evaluate(sweep.open_places(depth + 1), 1)
            several.append({"index": sweep.indices[place], "values": sweep.values})
            sweep.values = saved

        def group(part: int) -> None:
            if sweep.k.active is None or sweep.registers is not None:
                _add_to_results(sweep, several, place)
            else:  # one register at the end of a row: the same sums by a loop, in less code
                _add_rest(sweep, rest, place, i, f.add(i, GROUP))

        sweep.lane_loop(group)
    with f.when(f.cmp("ne", full, stop)):
        sweep.lane_loop(lambda part: _add_rest(sweep, rest, place, full, stop))


def _add_to_results(sweep: Sweep, several: list[dict], place: int = 0) -> None:
    """Add rows (their index and what is known of each) to a register of each result."""
    before = [_load_result(sweep, result) for result in sweep.sums]
    few, saved = _few(sweep), sweep.values
    totals = [_first(sweep, r, few, total) for r, total in zip(sweep.sums, before, strict=True)]
    for row in several:
        if row:
            sweep.indices[place], sweep.values = row["index"], dict(row["values"])
        sweep.evaluate(sweep.open_places(len(sweep.loops)), sweep.lanes)
        for number, result in enumerate(sweep.sums):
            value = sweep.k.splat(sweep.values[result.value], sweep.lanes)
            totals[number] = sweep.k.combine(result.reduce, sweep.dtype(result.value),
                                             totals[number], value)
    sweep.values = saved
    for result, old, part in zip(sweep.sums, before, totals, strict=True):
        sweep.store(result, _last(sweep, result, few, old, part), sweep.lanes)


def _add_rest(sweep: Sweep, rest: list, place: int, start: Value, stop: Value) -> None:
    """Add rows from `start` to `stop`, at most a group, to a register of each result."""
    few = _few(sweep)
    before = [_load_result(sweep, result) for result in sweep.sums]
    for result, ((best, _),), total in zip(sweep.sums, rest, before, strict=True):
        best.set(_first(sweep, result, few, total))
    with sweep.f.loop(start, stop) as i:
        saved = dict(sweep.values)
        sweep.indices[place] = i
        for result, (each,) in zip(sweep.sums, rest, strict=True):
            _absorb(sweep, result, each, sweep.lanes)
        sweep.values = saved
    for result, ((best, _),), old in zip(sweep.sums, rest, before, strict=True):
        sweep.store(result, _last(sweep, result, few, old, best.get()), sweep.lanes)


def _load_result(sweep: Sweep, result: Result) -> Value:
    slot, dtype_name, index = result.where
    dtype = by_name(dtype_name)
    raw = sweep.load(sweep.kernel.address(slot), memory_type(dtype), index, [], sweep.lanes)
    return sweep.k.widen(raw, dtype)
