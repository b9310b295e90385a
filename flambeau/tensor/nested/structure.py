"""Structures: the shapes of a nested tensor's parts, and where their numbers are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from flambeau.core.device import CPU, Device
from flambeau.core.dtypes import DType
from flambeau.tensor.composed import ComposedMeta, composed_meta
from flambeau.tensor.creation import tensor
from flambeau.tensor.formats import Layout, jagged
from flambeau.tensor.functions import ops

__all__ = ["NestedInt", "Structure", "ragged_dims"]

_numbers = itertools.count(1)


class NestedInt(int):
    """The size of a ragged dimension: equal to itself only; as a number the largest of the parts'.
    It prints as j1, j2 ..."""

    number: int

    def __new__(cls, sizes: Sequence[int], named: bool = True) -> NestedInt:
        made = super().__new__(cls, max(sizes, default=0))
        made.number = next(_numbers) if named else 0
        return made

    def __repr__(self) -> str:
        return f"j{self.number}"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)


def ragged_dims(shapes: Sequence[Sequence[int]]) -> list[int]:
    """The dimensions of a nested tensor, counted with the batch's, in which its parts differ."""
    return [d for d, column in enumerate(zip(*shapes, strict=True), 1) if len(set(column)) > 1]


class Structure:
    """What a nested tensor is besides its numbers.

    In the jagged layout the numbers are the parts joined along their only ragged dimension; in the
    strided one they are a vector, each part row-major.

    Attributes:
        layout: torch.jagged or torch.strided.
        shapes: of the parts.
        ragged: the dimension of the nested tensor whose size differs; 0: any (strided layout).
        offsets: (parts + 1,) int64, where parts begin along it; None for the strided layout.
    """

    __slots__ = ("layout", "shapes", "ragged", "offsets", "shape", "_rows")

    def __init__(self, layout: Layout, shapes: Sequence[tuple], ragged: int = 0,
                 offsets: Any = None, shape: tuple | None = None):
        self.layout, self.ragged = layout, ragged
        self.shapes = tuple(tuple(s) for s in shapes)
        if layout is jagged and offsets is None:
            lengths = [s[ragged - 1] for s in self.shapes]
            offsets = tensor([0, *itertools.accumulate(lengths)])
        self.offsets = offsets
        self.shape = shape or self._shape()
        self._rows = None

    def _shape(self) -> tuple:
        sizes: list = [len(self.shapes)]
        for dim, column in enumerate(zip(*self.shapes, strict=True), 1):
            same = len(set(column)) == 1 and dim != self.ragged
            sizes.append(column[0] if same else NestedInt(column, self.layout is jagged))
        return tuple(sizes)

    def meta(self, dtype: DType, device: Device = CPU) -> ComposedMeta:
        """The layout of a nested tensor with this structure."""
        made = composed_meta(dtype, self.shape, self.layout, device)
        made.numel = self.numel
        return made

    @property
    def numel(self) -> int:
        """The numbers of all parts."""
        return sum(map(math.prod, self.shapes))

    @property
    def lengths(self) -> list[int]:
        """The sizes of the ragged dimension."""
        return [shape[self.ragged - 1] for shape in self.shapes]

    def rows(self) -> Any:
        """The part that each entry along the ragged dimension belongs to."""
        if self._rows is None:
            self._rows = ops._segment_rows(self.offsets, sum(self.lengths))
        return self._rows

    def matches(self, other: Structure) -> bool:
        """Do the parts have the same shapes, in the same layout?"""
        return self is other or (self.layout is other.layout and self.shapes == other.shapes
                                 and self.ragged == other.ragged)

    def parts(self, values: Any) -> tuple:
        """The parts, as views of the numbers."""
        if self.layout is jagged:
            dim = self.ragged - 1
            return ops.split(values, self.lengths, dim) if self.shapes else ()
        counts = [math.prod(shape) for shape in self.shapes]
        pieces = ops.split(values, counts, 0) if counts else ()
        return tuple(piece.reshape(shape) for piece, shape in zip(pieces, self.shapes,
                                                                  strict=True))

    def join(self, parts: Sequence) -> Any:
        """The numbers of parts."""
        if self.layout is jagged:
            return ops.cat(tuple(parts), self.ragged - 1)
        return ops.cat(tuple(part.reshape(-1) for part in parts), 0)

    def with_last(self, size: int | None) -> Structure:
        """The structure of a result whose parts have another last size (None: none at all)."""
        shapes = [(*s[:-1], *(() if size is None else (size,))) for s in self.shapes]
        shape = (*self.shape[:-1], *(() if size is None else (size,)))
        return Structure(self.layout, shapes, self.ragged, self.offsets, shape)
