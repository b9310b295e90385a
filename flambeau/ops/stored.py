"""Dtypes that are only stored: which operations their values have.

8-bit floats are moved, chosen, compared for equality and converted; products widen them. Opaque
dtypes (`int4`, `bits8` ...) are moved only. Everything else is refused, in the op's name.
"""

from __future__ import annotations

from collections.abc import Iterable

from flambeau.core.dtypes import DType
from flambeau.ir.graph import Value

__all__ = ["MOVED_KINDS", "MOVED_NAMES", "check_stored", "refusal"]

MOVED_KINDS = frozenset(("movement", "lookup", "cat", "source"))
MOVED_NAMES = frozenset(("where", "copy", "stop_gradient", "boundary", "in_memory",
                         "spread", "scatter"))
_COMPARED = frozenset(("eq", "ne", "cast"))


def check_stored(name: str, order: Iterable[Value]) -> None:
    """Raise NotImplementedError if the program `order` of op `name` computes with a dtype that has
    no arithmetic."""
    for value in order:
        dtype = next((v.dtype for v in (*value.inputs, value) if v.dtype.carrier is not None), None)
        if dtype is not None and not _allowed(value, dtype):
            raise refusal(name, dtype)


def _allowed(value: Value, dtype: DType) -> bool:
    name = value.prim.name
    if name == "scatter":
        return value.attrs[1] == "set"
    if value.prim.kind in MOVED_KINDS or name in MOVED_NAMES or name in _COMPARED:
        return True
    return name == "abs" and dtype.kind == "f"


def refusal(name: str, dtype: DType) -> NotImplementedError:
    """The error for an operation that `dtype` does not have."""
    advice = ("convert the input first, for example with .to(torch.float32)" if dtype.kind == "f"
              else "its elements are only bits; .view(torch.uint8) shows them as numbers")
    return NotImplementedError(f"\"{name}_cpu\" not implemented for '{dtype.scalar_name}': "
                               f"{advice}")
