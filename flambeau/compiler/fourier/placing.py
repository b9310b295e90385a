"""Where the operands and results of a transform lie: what the scheduler asks."""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.expression import Buffer
from flambeau.compiler.fourier.step import fits_fourier
from flambeau.ir.graph import Value

__all__ = ["place_fourier"]


def place_fourier(scheduler, value: Value, buffer: Buffer, step: Callable) -> None:
    """Add the step (a LibraryStep) that computes `value`, a part of a transform, and the other part
    with it. Parts of an operand lie alike, as do those of the result."""
    how, which = value.attrs
    parts = [value]
    if how.kind != "c2r":
        parts.insert(1 - which, _other_part(scheduler, value))
    if not value.numel:
        return
    sources = [scheduler.view(operand) for operand in value.inputs]
    if not _alike(sources, how.dim):
        for number, (source, operand) in enumerate(zip(sources, value.inputs, strict=True)):
            sources[number] = scheduler.temporary(operand)
            scheduler._copy(source, sources[number])
    where = [buffer if part is value else scheduler.final.get(part) or scheduler.temporary(part)
             for part in parts]
    results = where if _alike(where, how.dim) else [scheduler.temporary(part) for part in parts]
    scheduler.steps.append(step("fourier", value.attrs, tuple(sources), results[0],
                                results=tuple(results)))
    for part, result, place in zip(parts, results, where, strict=True):
        if result is not place:
            scheduler._copy(result, place)
        scheduler.placed[part] = place


def _alike(buffers: list[Buffer], dim: int) -> bool:
    return all(fits_fourier(b, dim) and b.strides == buffers[0].strides for b in buffers)


def _other_part(scheduler, value: Value) -> Value:
    """The other part of the same transform; a new value if nobody wants it."""
    how, which = value.attrs
    wanted = how, 1 - which
    for other in scheduler.order:
        if other.prim is value.prim and other.inputs == value.inputs and other.attrs == wanted:
            return other
    return value.prim(*value.inputs, attrs=wanted)
