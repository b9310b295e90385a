"""Elementwise sweeps: every element is stored once."""

from __future__ import annotations

from flambeau.compiler.emitter import Value, vector
from flambeau.compiler.lanes import memory_type, register_type
from flambeau.compiler.loops.kernel import Result
from flambeau.compiler.loops.sweep import Sweep
from flambeau.compiler.loops.tiles import emit_tiles
from flambeau.core.dtypes import by_name

__all__ = ["clear", "emit_map", "start_carried"]


def emit_map(sweep: Sweep, depth: int) -> None:
    """The loops from `depth` on, then the lanes."""
    saved = dict(sweep.values)
    sweep.evaluate(sweep.open_places(depth), 1)
    if sweep.tiled and depth + 1 == len(sweep.scalar_loops()):
        emit_tiles(sweep, depth)
    elif depth < len(sweep.scalar_loops()):
        with sweep.f.loop(0, sweep.extent(depth)) as i:
            sweep.indices[sweep.outer_count + depth] = i
            emit_map(sweep, depth + 1)
    elif sweep.has_lane:
        _map_loop(sweep, _map_unroll(sweep))
    else:
        sweep.store_all(1)
    sweep.values = saved


def _map_unroll(sweep: Sweep) -> int:
    """Short bodies are repeated, so that counting does not cost as much as they do."""
    return 4 if len(sweep.lines) <= 8 else 2 if len(sweep.lines) <= 20 else 1


def _map_loop(sweep: Sweep, unroll: int) -> None:
    """Store over the lane loop: full registers at addresses that are multiples of a register's
    size, since others touch two cache lines each; before them masked ones, for both ends."""
    if sweep.lanes == 1 or sweep.registers is not None:
        sweep.lane_loop(sweep.store_lanes, unroll)
        return
    f, stop = sweep.f, sweep.extent(len(sweep.loops) - 1)
    head = _misaligned(sweep, stop)
    step = sweep.lanes * unroll
    full = f.add(head, f.mul(f.sdiv(f.sub(stop, head), step), step))
    count = f.add(f.ceil_div(f.sub(stop, full), sweep.lanes), 1)
    first = f.cast("zext", f.cmp("eq", head, 0), "i64")
    with f.loop(first, count) as edge:
        front = f.cmp("eq", edge, 0)
        behind = f.add(full, f.mul(f.sub(edge, 1), sweep.lanes))
        i = f.select(front, 0, behind)
        end = f.select(front, head, stop)
        sweep.lane_body(i, f.lane_mask(sweep.lanes, f.sub(end, i)), sweep.store_lanes, 0)
    with f.loop(head, full, step) as i:
        for part in range(unroll):
            sweep.lane_body(f.add(i, part * sweep.lanes), None, sweep.store_lanes, part)


def _misaligned(sweep: Sweep, stop: Value) -> Value:
    """Elements before the first aligned address that is stored to; 0 for short loops."""
    f = sweep.f
    for result in sweep.maps:
        slot, dtype_name, index = result.where
        dtype = by_name(dtype_name)
        if index[2] or sweep.lane_factor(index) != 1 or dtype.itemsize < 4:
            continue
        sweep.indices[sweep.lane_place] = f.const(0, "i64")
        start = f.gep(sweep.kernel.address(slot), sweep.offset(index, 1), memory_type(dtype))
        address = f.cast("ptrtoint", start, "i64")
        size = sweep.lanes * dtype.itemsize
        over = f.and_(f.sub(0, address), size - 1)
        fits = f.cmp("eq", f.and_(address, dtype.itemsize - 1), 0)
        long = f.cmp("sge", stop, 8 * sweep.lanes)
        shift = dtype.itemsize.bit_length() - 1
        return f.select(f.and_(fits, long), f.lshr(over, shift), 0)
    return f.const(0, "i64")


def start_carried(sweep: Sweep) -> None:
    """Clear the row of results that the rows of a block are added to, before the first one."""
    carried = [r for r in sweep.maps if r.mode.startswith("carry_")]
    if carried:
        first = sweep.f.cmp("eq", sweep.indices[sweep.outer_count - 1], 0)
        with sweep.f.when(first):
            clear(sweep, carried)


def clear(sweep: Sweep, results: list[Result], depth: int = 0, rows: int = 0) -> None:
    """Store the neutral element of each result's rule, over its loops from `depth` on."""
    if depth < rows:  # a loop that is summed over
        sweep.indices[sweep.outer_count + depth] = sweep.f.const(0, "i64")
        clear(sweep, results, depth + 1, rows)
    elif depth < len(sweep.scalar_loops()):
        with sweep.f.loop(0, sweep.extent(depth)) as i:
            sweep.indices[sweep.outer_count + depth] = i
            clear(sweep, results, depth + 1, rows)
    else:
        def fill(part: int) -> None:
            for result in results:
                dtype = sweep.dtype(result.value)
                type_ = vector(sweep.lanes, register_type(dtype))
                neutral = sweep.k.identity(result.reduce or result.mode[6:], dtype)
                sweep.store(result._replace(mode="set"), sweep.f.const(neutral, type_),
                            sweep.lanes)

        if sweep.has_lane:
            sweep.lane_loop(fill)
        else:
            fill(0)
