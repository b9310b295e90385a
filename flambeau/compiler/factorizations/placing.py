"""Where the operands and results of a factorization lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.compiler.expression import Buffer
from flambeau.compiler.factorizations.step import fits
from flambeau.core.shapes import contiguous_strides
from flambeau.ir.graph import Value
from flambeau.ops.primitives.factors import operands_of, results_of

__all__ = ["place_factor"]


def place_factor(scheduler: Any, value: Value, buffer: Buffer, step: Callable) -> None:
    """Add the step (a schedule.LibraryStep, made by `step`) of the run that `value` is a result of,
    it being put into `buffer`. The kernel needs memory for all results, wanted or not, and operands
    whose rows are contiguous."""
    run = {v.attrs[1]: v for v in scheduler.order if v.prim is value.prim
           and v.inputs == value.inputs and v.attrs[0] == value.attrs[0]}
    sources = tuple(_operand(scheduler, *operand) for operand in operands_of(value))
    results: list[Buffer] = []
    for number, member in enumerate(results_of(value)):
        where = buffer if number == value.attrs[1] else scheduler.final.get(run.get(number))
        dense = where is not None and where.strides == contiguous_strides(where.shape)
        results.append(where if dense else scheduler.temporary(member))
    scheduler.steps.append(step("factor", value.attrs, sources, results[value.attrs[1]],
                                results=tuple(results)))
    for number, member in run.items():
        where = buffer if member is value else scheduler.final.get(member) or results[number]
        if results[number] is not where:
            scheduler._copy(results[number], where)
        scheduler.placed[member] = where


def _operand(scheduler: Any, value: Value, batch: int, pairs: bool) -> Buffer:
    buffer = scheduler.view(value)
    if fits(buffer, batch, pairs):
        return buffer
    dense = scheduler.temporary(value)
    scheduler._copy(buffer, dense)
    return dense
