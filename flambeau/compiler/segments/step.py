"""Sums over segments as a step of a program."""

from __future__ import annotations

from flambeau.compiler.expression import Buffer
from flambeau.compiler.nest import Pointer
from flambeau.compiler.segments.kernel import (
    SEGMENT_SLOTS,
    SegmentSpec,
    segment_chunks,
    segment_kernel,
)
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["segment_step"]


def _pointer(buffer: Buffer) -> Pointer:
    return Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)


def segment_step(library, target: Target, threads: int) -> tuple[Step, int]:
    """(Step, work) of a LibraryStep "segment_sum"."""
    offsets, index, x, *weights = library.sources
    (segments, width), (size, _) = library.target.shape, x.shape
    checked = library.attrs[0].checked
    entries = index.shape[0] if size else 0  # of an empty table nothing may be read
    spec = SegmentSpec(x.dtype.llvm, bool(weights), width == 1, checked)
    work = (entries + segments) * width
    values = {"offsets": _pointer(offsets), "index": _pointer(index), "x": _pointer(x),
              "w": _pointer(weights[0]) if weights else 0, "out": _pointer(library.target),
              "segments": segments, "entries": entries, "size": size, "width": width,
              "x_row": x.strides[0], "w_step": weights[0].strides[0] if weights else 0,
              "status": Pointer("status", 0) if checked else 0}
    slots = [values[slot] for slot in SEGMENT_SLOTS]
    return Step(spec.name, lambda: segment_kernel(spec, target)[1], slots,
                segment_chunks(segments, work, threads)), work
