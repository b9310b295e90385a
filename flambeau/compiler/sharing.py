"""Values that several sweeps of a nest compute from the same elements: the first one keeps them.

Scheduling computes cheap values again wherever they are read, since memory is slow. Within a nest a
row of them stays in the nearest cache, where storing and loading cost less than a transcendental
function: `softmax` sums its exponentials, then scales those very numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from flambeau.compiler.expression import Buffer, Expr, Index
from flambeau.compiler.nest import Loop, Phase, renamed, rewrite, walk
from flambeau.compiler.sweeps import Nest, extent_of
from flambeau.core.shapes import contiguous_strides

__all__ = ["share"]

DEAR = 10  # cycles per element from which on a value is kept
LARGEST_ROW = 1 << 17  # bytes of a row that is kept: part of the second-level cache

Memory = Callable[[Buffer], tuple[str, int]]


def share(nest: Nest, temps: list[Buffer], memory: Memory) -> Nest:
    """`nest` with what its sweeps have in common computed once; `temps` grows by what is kept."""
    if not nest.rows or nest.block or len(nest.sweeps) < 2:
        return nest
    sweeps = [list(sweep) for sweep in nest.sweeps]
    for late in range(1, len(sweeps)):
        for early in range(late):
            written = {memory(p.target) for sweep in sweeps[early:late] for p in sweep}
            names = _same_loops(sweeps[early][0], sweeps[late][0])
            if names is None:
                continue
            moved = [renamed(phase, names) for phase in sweeps[late]]
            common = [expr for expr in _common(sweeps[early], moved) if not any(
                memory(e.data[0]) in written for e in walk([expr]) if e.kind == "load")]
            if not common:
                continue
            exchange = {}
            for expr in common:
                kept = _kept(expr, nest.rows, sweeps[early][0], temps)
                sweeps[early].append(kept)
                exchange[expr] = Expr("load", expr.dtype, (), (kept.target, kept.where, ()))
            back = {new: old for old, new in names.items()}
            sweeps[late] = [_exchanged(phase, exchange, back) for phase in moved]
    return dataclasses.replace(nest, sweeps=sweeps)


def _inner(phase: Phase) -> list[Loop]:
    return [*phase.inner, *([phase.lane] if phase.lane else [])]


def _same_loops(early: Phase, late: Phase) -> dict[int, int] | None:
    """The variables of `late` by their names in `early`, if the two walk the same elements."""
    ours, theirs = _inner(early), _inner(late)
    if early.lane is None or late.lane is None or len(ours) != len(theirs) or any(
            a.extent != b.extent or a.clip or b.clip for a, b in zip(ours, theirs, strict=True)):
        return None
    if any(p.reduce is not None and not p.lane_reduced or p.scans for p in (early, late)):
        return None
    return {b.var: a.var for a, b in zip(ours, theirs, strict=True)}


def _common(early: Sequence[Phase], late: Sequence[Phase]) -> list[Expr]:
    """Dear values of every element that both compute; none of them is part of another."""
    inner = {loop.var for loop in _inner(early[0])}
    size = extent_of(_inner(early[0]))
    known = set(walk([root for phase in early for root in phase.roots()]))
    found: list[Expr] = []
    parts: set[Expr] = set()
    for expr in reversed(walk([root for phase in late for root in phase.roots()])):
        if expr in parts or expr not in known or expr.kind != "op" or expr.dtype.kind != "f" \
                or expr.dtype.is_reduced or size * expr.dtype.itemsize > LARGEST_ROW:
            continue
        below = walk([expr])
        cost = sum(each.data.cost for each in below if each.kind == "op")
        variables = {var for each in below for index in each.indices() for var in index.terms}
        if cost >= DEAR and inner <= variables:
            found.append(expr)
            parts.update(below)
    return found


def _kept(expr: Expr, rows: Sequence[Loop], model: Phase, temps: list[Buffer]) -> Phase:
    """A phase in the loops of `model` that stores `expr` in a new temporary."""
    loops = [*rows, *_inner(model)]
    shape = tuple(loop.extent for loop in loops)
    strides = contiguous_strides(shape)
    target = Buffer("temp", len(temps), expr.dtype, shape, strides)
    temps.append(target)
    where = Index(dict(zip((loop.var for loop in loops), strides, strict=True)))
    return Phase(model.outer, model.inner, model.lane, expr, target, where, kept=loops,
                 lanes=model.lanes)


def _exchanged(phase: Phase, exchange: dict[Expr, Expr], names: dict[int, int]) -> Phase:
    return renamed(rewrite(phase, lambda index: index, exchange=exchange), names)
