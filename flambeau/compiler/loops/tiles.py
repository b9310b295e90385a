"""Maps whose loads are contiguous along another loop than the lanes: squares are transposed."""

from __future__ import annotations

from flambeau.compiler.emitter import Value, vector
from flambeau.compiler.lanes import memory_type
from flambeau.compiler.loops.sweep import Sweep
from flambeau.compiler.products.packing import transpose
from flambeau.core.dtypes import by_name

__all__ = ["TILE_ROWS", "emit_tiles"]

TILE_ROWS = 64  # rows that are transposed together: several lines of cache are read in turn
TILE_RUN = 8  # registers of each of them


def emit_tiles(sweep: Sweep, depth: int) -> None:
    """All rows of a tile. Loads that are contiguous along the rows, not along the lanes, are
    done in squares, which are transposed into a buffer; a run of lanes at a time, so that
    results are stored in long pieces."""
    f, lanes, place = sweep.f, sweep.lanes, sweep.outer_count + depth
    rows, stop = sweep.extent(depth), sweep.extent(len(sweep.loops) - 1)
    run = lanes * TILE_RUN
    loads = {n: f.array(memory_type(by_name(line[3][1])), TILE_ROWS * (run + lanes))
             for n, line in enumerate(sweep.lines) if _is_crosswise(sweep, line, place)}
    with f.loop(0, stop, run) as left:
        right = f.smin(f.add(left, run), stop)
        with f.loop(left, right, lanes) as column, f.loop(0, rows, lanes) as low:
            # squares at the ends end with the tile, even if they begin before it
            sweep.indices[place] = f.smin(low, f.sub(rows, lanes))
            sweep.indices[sweep.lane_place] = f.smin(column, f.sub(stop, lanes))
            at = f.add(f.mul(low, run + lanes), f.sub(column, left))
            for number, buffer in loads.items():
                _load_square(sweep, sweep.lines[number][3], buffer, at, run + lanes)
        with f.loop(0, rows) as row:
            saved = dict(sweep.values)
            sweep.indices[place] = row
            low = f.and_(row, -lanes)
            shift = f.sub(low, f.smin(low, f.sub(rows, lanes)))
            start = f.sub(f.mul(f.add(row, shift), run + lanes), left)
            _tile_row(sweep, loads, start, left, right, stop)
            sweep.values = saved


def _tile_row(sweep: Sweep, loads: dict[int, Value], start: Value, left: Value, right: Value,
              stop: Value) -> None:
    """The lanes from `left` to `right` of one row; lane i of it lies at start + i."""
    f, lanes = sweep.f, sweep.lanes

    def body(part: int) -> None:
        i = sweep.indices[sweep.lane_place]
        at = f.add(start, f.add(i, f.sub(i, f.smin(i, f.sub(stop, lanes)))))
        for number, buffer in loads.items():
            dtype = by_name(sweep.lines[number][3][1])
            raw = f.load(vector(lanes, memory_type(dtype)), buffer, at)
            sweep.values[number] = sweep.k.widen(raw, dtype)
        sweep.store_lanes(part)

    full = f.sub(right, f.and_(f.sub(right, left), lanes - 1))
    with f.loop(left, full, lanes) as i:
        sweep.lane_body(i, None, body, 0)
    if lanes > 1:
        with f.when(f.cmp("slt", full, right)):
            sweep.lane_body(full, f.lane_mask(lanes, f.sub(right, full)), body, 0)


def _is_crosswise(sweep: Sweep, line: tuple, place: int) -> bool:
    """Is this a load along the tile's rows that takes steps along the lanes?"""
    if line[0] != "load" or line[3][3] or line[3][2][2]:
        return False
    terms = dict(line[3][2][0])
    return terms.get(place) == "unit" and isinstance(terms.get(sweep.lane_place), int)


def _load_square(sweep: Sweep, data: tuple, buffer: Value, at: Value, pitch: int) -> None:
    """Put the square that begins at the current indices into a buffer, its rows `pitch` apart.
    """
    f, lanes, (slot, name, index, _) = sweep.f, sweep.lanes, data
    type_ = memory_type(by_name(name))
    base, step, _ = sweep.parts(index)
    start = f.add(base, f.mul(sweep.indices[sweep.lane_place], step))
    address, columns = f.gep(sweep.kernel.address(slot), start, type_), []
    for _ in range(lanes):
        columns.append(f.load(vector(lanes, type_), address))
        address = f.gep(address, step, type_)
    if lanes > 1:
        columns = transpose(f, columns, 2 if by_name(name).itemsize == 8 else 4)
    for row, value in enumerate(columns):
        f.store(value, buffer, f.add(at, row * pitch))
