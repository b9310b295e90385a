"""Code generation: the canonical form of a nest -> LLVM IR text.

The generator sees only the canonical key, never a size: equal keys give equal kernels.
"""

from __future__ import annotations

import functools
import hashlib

from flambeau.compiler.emitter import Function, Module, Value, Var
from flambeau.compiler.loops.kernel import Kernel
from flambeau.compiler.loops.maps import emit_map, start_carried
from flambeau.compiler.loops.scans import emit_scan
from flambeau.compiler.loops.sums import (
    emit_columns,
    emit_horizontal,
    emit_vertical,
    in_registers,
)
from flambeau.compiler.loops.sweep import Sweep
from flambeau.compiler.target import Target

__all__ = ["KERNEL_ARGS", "emit_nest", "emit_sweep", "nest_name"]

KERNEL_ARGS = (("ptr noalias", "args"), ("i32", "chunk"), ("i32", "nchunks"), ("i32", "thread"))


def nest_name(key: tuple) -> str:
    """The kernel's symbol: stable across processes."""
    return "nest_" + hashlib.sha256(repr(key).encode()).hexdigest()[:24]


@functools.cache
def emit_nest(key: tuple, target: Target) -> str:
    """The LLVM module that holds the kernel of this canonical nest."""
    outer, carried, sweeps = key
    module = Module(target.attributes)
    f = module.function(nest_name(key), KERNEL_ARGS)
    kernel = Kernel(f)
    extents = [kernel.slot(number) for number in outer]
    places = [f.var("i64", 0) for _ in extents]
    made = [Sweep(kernel, sweep, []) for sweep in sweeps]
    stored = {result[-1][0] for sweep in sweeps for result in sweep[6]}
    for sweep in made:
        sweep.hoist(stored)
    start, stop = _share(f, extents, places)
    with f.loop(start, stop):
        indices = [place.get() for place in places]
        if carried is None:
            for sweep in made:
                emit_sweep(sweep, indices)
        else:
            _emit_rows(kernel, carried, made, indices)
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


def _emit_rows(kernel: Kernel, carried: tuple, sweeps: list[Sweep], indices: list[Value]) -> None:
    """The rows of a block, one after the other."""
    f = kernel.f
    extent, clip = carried
    size = kernel.slot(extent)
    if clip is not None:
        place, total = clip
        size = f.smin(size, f.sub(kernel.slot(total), f.mul(indices[place], size)))
    with f.loop(0, size) as row:
        for sweep in sweeps:
            emit_sweep(sweep, [*indices, row])


def emit_sweep(sweep: Sweep, outer: list[Value] | None = None) -> None:
    """Emit the sweep's own loops, where the loops outside it stand at `outer`."""
    if outer is not None:
        sweep.indices = dict(enumerate(outer))
    saved = dict(sweep.values)
    start_carried(sweep)
    if not sweep.sums:
        emit_map(sweep, 0)
    elif sweep.sums[0].reduce.startswith("scan_"):
        emit_scan(sweep, sweep.sums[0])
    elif sweep.lane_reduced or not sweep.has_lane:
        emit_horizontal(sweep)
    elif in_registers(sweep):
        emit_vertical(sweep)
    else:
        emit_columns(sweep)
    sweep.values = saved
