"""The names by which messages call types."""

from __future__ import annotations

from typing import Any

from flambeau.tensor import Tensor

__all__ = ["typename"]


def typename(obj: Any) -> str:
    """The type of `obj` as messages name it: "int", "torch.FloatTensor", "module.Class"."""
    if isinstance(obj, Tensor):
        return obj.type()
    kind = type(obj)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
