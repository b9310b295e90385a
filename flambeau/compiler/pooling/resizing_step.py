"""Resizing as a step of a program: which layout it runs in, and what its slots hold."""

from __future__ import annotations

from flambeau.compiler.expression import Buffer
from flambeau.compiler.nest import Pointer
from flambeau.compiler.pooling.layout import runs_last
from flambeau.compiler.pooling.resizing import (
    FEW,
    MANY,
    RESIZE_SLOTS,
    ResizeSpec,
    resize_kernel,
    resize_plan,
    ring,
)
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["resize_step"]


def resize_step(library, target: Target, threads: int) -> tuple[Step, int]:
    """(Step, work) of a resizing LibraryStep; source and target fit one layout."""
    how, (x, *tables), y = library.attrs[0], library.sources, library.target
    taps = tuple(count if count <= FEW else MANY for count in how.taps)
    spec = ResizeSpec(library.kind == "resize_back", x.dtype.name, y.dtype.name, runs_last(x, 2),
                      taps, how.weighted)
    batch, channels = x.shape[:2]
    cut = resize_plan(spec, target, how, batch, channels, threads)
    values: dict = dict.fromkeys(RESIZE_SLOTS, 0)
    values |= {"x": _pointer(x), "y": _pointer(y), "work": Pointer("work", cut.work_bytes),
               "work_stride": cut.work_stride, "tasks": cut.tasks, "parts": cut.parts,
               "channels": channels, "ring": ring(how)}
    given = iter(tables)
    for d in range(2):
        values |= {f"size{d}": how.size[d], f"out{d}": how.out[d], f"most{d}": cut.most[d],
                   f"taps{d}": how.taps[d]}
        if how.taps[d]:
            values[f"i{d}"] = _pointer(next(given))
            if how.weighted:
                values[f"w{d}"] = _pointer(next(given))
    for who, array in (("x", x), ("y", y)):
        values |= {f"{who}_{axis}": step
                   for axis, step in zip("nchw", array.strides, strict=True)}
    name, text = resize_kernel(spec, target)
    work = y.shape[0] * y.shape[1] * y.shape[2] * y.shape[3] * 8
    return Step(name, lambda: text, [values[slot] for slot in RESIZE_SLOTS], cut.nchunks), work


def _pointer(buffer: Buffer) -> Pointer:
    return Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)
