"""Epilogues of convolutions: what a kernel does with what it has just stored, a piece of some
channels whose pixels follow each other. `matrix.py` tells how images are matrices."""

from __future__ import annotations

import dataclasses

from flambeau.compiler.emitter import Function, Value
from flambeau.compiler.epilogue import Epilogue

__all__ = ["Finish"]


@dataclasses.dataclass(frozen=True)
class Finish:
    """What a convolution's kernel does with finished pieces of its result.

    Attributes:
        epilogue: the phases.
        slots: the contents of their launch arguments, on which no kernel depends.
        by_pixel: how the result lies in memory.
    """

    epilogue: Epilogue
    slots: list = dataclasses.field(compare=False)
    by_pixel: bool

    def call(self, f: Function, first_slot: int, place: Value, pitch: Value, image: Value,
             area: Value, pixels: tuple, channels: tuple) -> None:
        """Finish a piece.

        Args:
            first_slot: where the epilogue's launch arguments begin.
            place: its first element; `pitch` from a pixel (by plane: a channel) to the next.
            image: which image, of `area` pixels.
            pixels, channels: (first, count).
        """
        if self.by_pixel:
            rows = f.add(f.mul(image, area), pixels[0]), pixels[1]
            self.epilogue.call(f, first_slot, place, pitch, 0, rows, channels)
        else:
            self.epilogue.call(f, first_slot, place, pitch, image, channels, pixels)
