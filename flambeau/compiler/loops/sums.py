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
ROWS_AT_ONCE = 8  # rows that are added to a row of results in one pass over it


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


def emit_horizontal(sweep: Sweep) -> None:
    """Lanes run along a reduced loop; one scalar per iteration of the outer loops.

    Each run of the innermost loop is summed on its own and then added: the error grows with the
    run, not with the whole.
    """
    if sweep.registers is not None:
        _emit_short(sweep)
        return
    unroll = UNROLL_REDUCE if sweep.has_lane else 1  # for every rule: the tree must not differ
    totals = [_accumulators(sweep, r, 1, sweep.lanes)[0] for r in sweep.sums]
    runs = [_accumulators(sweep, r, unroll, sweep.lanes) if sweep.has_lane else []
            for r in sweep.sums]

    def body(part: int) -> None:
        for result, run in zip(sweep.sums, runs, strict=True):
            _absorb(sweep, result, run[part], sweep.lanes)
        sweep.store_all(sweep.lanes)

    def descend(depth: int) -> None:
        saved = dict(sweep.values)
        sweep.evaluate(sweep.open_places(depth), 1)
        if depth < len(sweep.scalar_loops()):
            with sweep.f.loop(0, sweep.extent(depth)) as i:
                sweep.indices[sweep.outer_count + depth] = i
                descend(depth + 1)
        elif sweep.has_lane:
            for result, run in zip(sweep.sums, runs, strict=True):
                _reset(sweep, result, run)
            sweep.lane_loop(body, unroll)
            for result, run, total in zip(sweep.sums, runs, totals, strict=True):
                for best, spot in run:
                    _accumulate(sweep, result, total, best.get(), spot.get() if spot else None)
        else:
            for result, total in zip(sweep.sums, totals, strict=True):
                _absorb(sweep, result, total, 1)
            sweep.store_all(1)
        sweep.values = saved

    for result, total in zip(sweep.sums, totals, strict=True):
        _reset(sweep, result, [total])
    descend(0)
    for result, total in zip(sweep.sums, totals, strict=True):
        best, spot = _across_lanes(sweep, result, total)
        sweep.store(result, spot if spot is not None else best, 1)


def _emit_short(sweep: Sweep) -> None:
    """The lane loop is a few registers: each has a total of its own, which no run comes between."""
    totals = [_accumulators(sweep, r, sweep.registers[0], sweep.lanes) for r in sweep.sums]

    def body(part: int) -> None:
        for result, total in zip(sweep.sums, totals, strict=True):
            _absorb(sweep, result, total[part], sweep.lanes)
        sweep.store_all(sweep.lanes)

    def descend(depth: int) -> None:
        saved = dict(sweep.values)
        sweep.evaluate(sweep.open_places(depth), 1)
        if depth < len(sweep.scalar_loops()):
            with sweep.f.loop(0, sweep.extent(depth)) as i:
                sweep.indices[sweep.outer_count + depth] = i
                descend(depth + 1)
        else:
            sweep.lane_loop(body)
        sweep.values = saved

    for result, total in zip(sweep.sums, totals, strict=True):
        _reset(sweep, result, total)
    descend(0)
    for result, (first, *others) in zip(sweep.sums, totals, strict=True):
        for best, spot in others:
            _accumulate(sweep, result, first, best.get(), spot.get() if spot else None)
        best, spot = _across_lanes(sweep, result, first)
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
    totals = [_accumulators(sweep, r, 1, sweep.lanes)[0] for r in sweep.sums]
    lane_only = sweep.open_places(0) | {sweep.lane_place}

    def descend(depth: int, places: set[int]) -> None:
        saved = dict(sweep.values)
        sweep.evaluate(places, sweep.lanes)
        if depth < len(sweep.scalar_loops()):
            with sweep.f.loop(0, sweep.extent(depth)) as i:
                sweep.indices[sweep.outer_count + depth] = i
                descend(depth + 1, places | {sweep.outer_count + depth})
        else:
            for result, total in zip(sweep.sums, totals, strict=True):
                _absorb(sweep, result, total, sweep.lanes)
        sweep.values = saved

    def body(part: int) -> None:
        for result, total in zip(sweep.sums, totals, strict=True):
            _reset(sweep, result, [total])
        descend(0, lane_only)
        for result, (best, spot) in zip(sweep.sums, totals, strict=True):
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
    count = ROWS_AT_ONCE if len(sweep.lines) <= 12 else 2
    full = f.mul(f.udiv(stop, count), count)
    for start, end, step in ((0, full, count), (full, stop, 1)):
        with f.loop(start, end, step) as i:
            several = []
            for part in range(step):
                saved = dict(sweep.values)
                sweep.indices[place] = f.add(i, part)
                sweep.evaluate(sweep.open_places(depth + 1), 1)
                several.append({"index": sweep.indices[place], "values": sweep.values})
                sweep.values = saved
            sweep.lane_loop(lambda part, several=several: _add_to_results(sweep, several, place))


def _add_to_results(sweep: Sweep, several: list[dict], place: int = 0) -> None:
    """Add rows (their index and what is known of each) to a register of each result."""
    totals = [_load_result(sweep, result) for result in sweep.sums]
    saved = sweep.values
    for row in several:
        if row:
            sweep.indices[place], sweep.values = row["index"], dict(row["values"])
        sweep.evaluate(sweep.open_places(len(sweep.loops)), sweep.lanes)
        for number, result in enumerate(sweep.sums):
            value = sweep.k.splat(sweep.values[result.value], sweep.lanes)
            totals[number] = sweep.k.combine(result.reduce, sweep.dtype(result.value),
                                            totals[number], value)
    sweep.values = saved
    for result, total in zip(sweep.sums, totals, strict=True):
        sweep.store(result, total, sweep.lanes)


def _load_result(sweep: Sweep, result: Result) -> Value:
    slot, dtype_name, index = result.where
    dtype = by_name(dtype_name)
    raw = sweep.load(sweep.kernel.address(slot), memory_type(dtype), index, [], sweep.lanes)
    return sweep.k.widen(raw, dtype)
