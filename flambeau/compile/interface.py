"""What a program is called with: the layouts of its arguments, as a planner wants them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from flambeau.compiler.expression import Buffer
from flambeau.compiler.program import buffers_for
from flambeau.core.shapes import dense_order, may_overlap, required_span
from flambeau.tensor.meta import Meta, contiguous_meta

__all__ = ["Interface", "has_own_elements", "interface_of", "room_of"]


@dataclasses.dataclass(frozen=True)
class Interface:
    """Arguments in order: tensors, numbers, results, and again the tensors that are overwritten.

    Attributes:
        given: layouts of the tensors.
        results: layouts of the results.
        numbers: how many numbers there are.
        updated: which of `given` are overwritten.
    """

    given: list[Meta]
    results: list[Meta]
    numbers: int = 0
    updated: Sequence[int] = ()

    @property
    def made(self) -> list[Meta]:
        """Layouts of all that is written."""
        return [*self.results, *[self.given[i] for i in self.updated]]

    @property
    def inputs(self) -> list[Buffer | None]:
        """What is read, as buffers; None for numbers."""
        return [*buffers_for("in", self.given), *[None] * self.numbers]

    @property
    def outputs(self) -> list[Buffer | None]:
        """What is written, as buffers."""
        return buffers_for("out", self.made)

    @property
    def aliases(self) -> dict[int, int]:
        """Which output overwrites which input."""
        return {len(self.results) + i: source for i, source in enumerate(self.updated)}


def interface_of(recording: Any, given: list[Meta]) -> Interface:
    """The interface of a recorded program whose inputs have the layouts `given`."""
    results = [_result_layout(tensor._meta) for tensor in recording.results]
    results += [contiguous_meta(value.dtype, value.shape) for value in recording.kept]
    position = {value: i for i, (value, _, _) in enumerate(recording.inputs)}
    updated = [position[memory.initial] for memory in recording.updates]
    return Interface(given, results, len(recording.numbers), updated)


def _result_layout(meta: Meta) -> Meta:
    """The layout of a result: the one that it had, unless elements share memory."""
    if has_own_elements(meta):
        return meta
    return contiguous_meta(meta.dtype, tuple(meta.shape))


def has_own_elements(meta: Meta) -> bool:
    """Does each element of a layout have a place of its own? There may be gaps."""
    return dense_order(meta.shape, meta.strides) is not None or not may_overlap(
        meta.shape, meta.strides)


def room_of(meta: Meta) -> int:
    """Bytes that a tensor of this layout takes, gaps included."""
    return required_span(meta.shape, meta.strides) * meta.dtype.itemsize
