"""Scans: every intermediate result of a reduction is stored."""

from __future__ import annotations

from flambeau.compiler.emitter import vector
from flambeau.compiler.lanes import register_type
from flambeau.compiler.loops.kernel import Result
from flambeau.compiler.loops.sweep import Sweep
from flambeau.core import dtypes

__all__ = ["emit_scan"]


def emit_scan(sweep: Sweep, result: Result) -> None:
    """Walk the inner loop in order and store every intermediate result. Sums and products of
    floats are carried in double precision."""
    rule = result.reduce.removeprefix("scan_")
    if sweep.lane_reduced:
        (_emit_row_scan if result.position is None else _emit_row_extrema)(sweep, result)
        return
    dtype = sweep.dtype(result.value)
    counts = rule.startswith("arg")
    wide = dtypes.float64 if dtype is dtypes.float32 and not counts else dtype
    start = {"sum": 0, "prod": 1, "logsumexp": float("-inf"), "recurrence": 0}.get(rule)
    if start is None:
        start = sweep.k.identity(rule, dtype)
    carried = sweep.f.var(vector(sweep.lanes, register_type(wide)), start)
    spot = sweep.f.var(vector(sweep.lanes, "i64"), 0) if counts else None
    sweep.evaluate(sweep.open_places(0), 1)
    places = sweep.open_places(1) | ({sweep.lane_place} if sweep.has_lane else set())

    def row(part: int) -> None:
        carried.set(start)
        sweep.evaluate(places - {sweep.outer_count}, sweep.lanes)
        saved = dict(sweep.values)
        with sweep.f.loop(0, sweep.extent(0)) as i:
            sweep.indices[sweep.outer_count] = i
            sweep.evaluate(places, sweep.lanes)
            value = sweep.k.splat(sweep.values[result.value], sweep.lanes)
            if spot is None:
                before, value = carried.get(), sweep.k.convert(value, dtype, wide)
                if rule == "recurrence":
                    factor = sweep.k.splat(sweep.values[result.position], sweep.lanes)
                    factor = sweep.k.convert(factor, dtype, wide)
                    total = sweep.f.fadd(sweep.f.fmul(before, factor), value)
                else:
                    total = sweep.k.scan_step(rule, wide, before, value)
                carried.set(total)
                sweep.store(result, sweep.k.convert(total, wide, dtype), sweep.lanes)
            else:
                at = sweep.k.splat(sweep.values[result.position], sweep.lanes)
                better = sweep.k.extends(rule, dtype, carried.get(), value)
                carried.set(sweep.f.select(better, value, carried.get()))
                spot.set(sweep.f.select(better, at, spot.get()))
                sweep.store(result, spot.get(), sweep.lanes)
            sweep.values = dict(saved)

    if sweep.has_lane:
        sweep.lane_loop(row)
    else:
        row(0)


def _emit_row_scan(sweep: Sweep, result: Result) -> None:
    """Lanes run along the scan: a register is scanned in itself, by doubling distances, and
    goes on where the one before ended."""
    rule = result.reduce.removeprefix("scan_")
    f, k, lanes = sweep.f, sweep.k, sweep.lanes
    dtype = sweep.dtype(result.value)
    wide = dtypes.float64 if dtype is dtypes.float32 else dtype
    type_ = vector(lanes, register_type(wide))
    identity = f.const(k.identity(rule, wide), type_)
    carried = f.var(type_)
    sweep.evaluate(sweep.open_places(0), 1)
    carried.set(identity if sweep.carry is None else f.splat(sweep.values[sweep.carry], lanes))

    def body(part: int) -> None:
        sweep.evaluate(sweep.open_places(len(sweep.loops)), lanes)
        local = k.convert(k.splat(sweep.values[result.value], lanes), dtype, wide)
        distance = 1
        while distance < lanes:
            before = f.shuffle(local, identity, [
                lane - distance if lane >= distance else lanes for lane in range(lanes)])
            local = k.scan_step(rule, wide, before, local)
            distance *= 2
        before, last = carried.get(), f.splat(f.extract(local, lanes - 1), lanes)
        carried.set(k.scan_step(rule, wide, before, last))
        value = k.scan_step(rule, wide, before, local)
        sweep.store(result, k.convert(value, wide, dtype), lanes)

    sweep.lane_loop(body)


def _emit_row_extrema(sweep: Sweep, result: Result) -> None:
    """Lanes run along the scan. Most registers hold no new extremum."""
    rule = result.reduce.removeprefix("scan_")
    f, k, lanes = sweep.f, sweep.k, sweep.lanes
    dtype = sweep.dtype(result.value)
    best, spot = f.var(vector(lanes, register_type(dtype))), f.var(vector(lanes, "i64"))
    sweep.evaluate(sweep.open_places(0), 1)
    best.set(k.identity(rule, dtype))
    spot.set(0)

    def body(part: int) -> None:
        sweep.evaluate(sweep.open_places(len(sweep.loops)), lanes)
        value = k.splat(sweep.values[result.value], lanes)
        first = f.extract(k.splat(sweep.values[result.position], lanes), 0)
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
            sweep.store(result, at, lanes)
            best.set(f.splat(f.extract(local, lanes - 1), lanes))
            spot.set(f.splat(f.extract(at, lanes - 1), lanes))
            otherwise()
            sweep.store(result, spot.get(), lanes)

    sweep.lane_loop(body)
