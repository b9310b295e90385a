"""The pass that removes dtypes without arithmetic: their values become the integers they are stored
as, so that moving them keeps every bit, and no kernel ever sees such a dtype.

What converts 8-bit floats or compares them goes through float32 (`ops/primitives/float8.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from flambeau.compiler.expression import Buffer
from flambeau.core import dtypes
from flambeau.core.dtypes import DType, to_float8
from flambeau.ir.graph import Graph, Value, constant, sort, tensor_input
from flambeau.ops import primitives as p
from flambeau.ops.primitives.float8 import FLOAT8_FROM_BITS, FLOAT8_TO_BITS
from flambeau.ops.stored import MOVED_KINDS, MOVED_NAMES, refusal

__all__ = ["as_stored", "has_stored"]


def has_stored(graph: Graph) -> bool:
    """Does any value of the graph have a dtype without arithmetic?"""
    return any(value.dtype.carrier is not None for value in (*graph.inputs, *graph.order()))


def as_stored(graph: Graph, inputs: Sequence[Buffer | None], outputs: Sequence[Buffer],
              effects: Sequence[Value]) -> tuple:
    """The same program over integers in place of such values: (graph, inputs, outputs, effects), as
    `plan` takes them.

    Raises:
        NotImplementedError: an operation that such values do not have.
    """
    made: dict[Value, Value] = {}
    given = []
    for value in graph.inputs:
        carrier = value.dtype.carrier
        made[value] = value if carrier is None else tensor_input(value.shape, carrier)
        given.append(made[value])
    for value in sort([*graph.outputs, *effects], graph.inputs):
        made[value] = _stored(value, made)
    return (Graph(given, [made[value] for value in graph.outputs]),
            [_carried(buffer) for buffer in inputs], [_carried(buffer) for buffer in outputs],
            [made[value] for value in effects])


def _carried(buffer: Buffer | None) -> Buffer | None:
    if buffer is None or buffer.dtype.carrier is None:
        return buffer
    return dataclasses.replace(buffer, dtype=buffer.dtype.carrier)


def _stored(value: Value, made: dict[Value, Value]) -> Value:
    """What stands for `value` in the new program."""
    inputs = tuple(made[v] for v in value.inputs)
    dtype = value.dtype
    meant = [v.dtype for v in value.inputs if v.dtype.carrier is not None]
    if dtype.carrier is None and not meant:
        return value if inputs == value.inputs else Value(
            value.prim, inputs, value.attrs, value.shape, dtype, value.number)
    name = value.prim.name
    if name == "constant":
        return constant(_bits(value.attrs[0], dtype), dtype.carrier, number=False)
    if name == "cast":
        return _cast(value.inputs[0], inputs[0], dtype)
    if name in ("eq", "ne"):
        return value.prim(*(_number(x, meant[0]) for x in inputs))
    if name == "abs":
        return FLOAT8_TO_BITS[dtype](p.abs_(_number(inputs[0], dtype)))
    if value.prim.kind not in MOVED_KINDS and name not in MOVED_NAMES:
        raise refusal(name, (meant or [dtype])[0])
    if name == "spread":
        *where, fill = value.attrs
        return p.spread(*inputs, *where, _bits(fill, dtype))
    return Value(value.prim, inputs, value.attrs, value.shape, dtype.carrier, value.number)


def _bits(number: float, dtype: DType) -> int:
    """A number's representation as an integer."""
    if dtype.kind != "f":
        return int(number)
    return int(to_float8(np.asarray(number, np.float64), dtype).view(np.uint8)[()])


def _number(x: Value, dtype: DType) -> Value:
    """Stored bits as what is compared: float32, or the bits themselves."""
    return FLOAT8_FROM_BITS[dtype](x) if dtype.kind == "f" else x


def _cast(before: Value, x: Value, dtype: DType) -> Value:
    """A conversion to or from (or between) dtypes without arithmetic."""
    if before.dtype is dtype:
        return x
    if before.dtype.carrier is not None:
        x = FLOAT8_FROM_BITS[before.dtype](x)
    return FLOAT8_TO_BITS[dtype](p.convert(x, dtypes.float32)) if (
        dtype.carrier is not None) else p.convert(x, dtype)
