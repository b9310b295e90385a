"""Small text helpers for messages and reprs."""

from __future__ import annotations

from typing import Any

from flambeau.tensor import Tensor

__all__ = ["indent", "type_name"]


def indent(text: str, spaces: int) -> str:
    """`text` with every line but the first moved right."""
    return text.replace("\n", "\n" + " " * spaces)


def type_name(value: Any) -> str:
    """The type of `value` as messages name it: "int", "torch.FloatTensor", "module.Class"."""
    if isinstance(value, Tensor):
        return value.type()
    kind = type(value)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
