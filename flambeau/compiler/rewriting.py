"""Which results are written into an input's own memory: scatters whose base that input is.

They need no copy of the base. They come after everything that reads the input; if what is written
is computed from the input itself, they go through a temporary like any other update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flambeau.compiler.expression import Buffer
from flambeau.ir.graph import Value

__all__ = ["rewritten"]


def rewritten(pairs: Sequence[tuple[Value, Buffer]], aliases: Mapping[int, int],
              placed: Mapping[Value, Buffer]) -> dict[Value, Buffer]:
    """The results that are scatters into the memory that they overwrite, and their buffers.

    Args:
        pairs: the results and where they go; aliases: of some, the number of the input whose memory
            that is.
        placed: where the inputs are.
    """
    found: dict[Value, Buffer] = {}
    for number, source in aliases.items():
        value, buffer = pairs[number]
        if value.prim.kind != "scatter" or value in placed:
            continue
        base = placed.get(value.inputs[0])
        if base is not None and (base.kind, base.number) == ("in", source) and (
                base.dtype, base.strides, base.offset) == (buffer.dtype, buffer.strides,
                                                           buffer.offset):
            found[value] = buffer
    return found
