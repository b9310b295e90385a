"""Small text helpers for reprs."""

from __future__ import annotations

__all__ = ["indent"]


def indent(text: str, spaces: int) -> str:
    """`text` with every line but the first moved right."""
    return text.replace("\n", "\n" + " " * spaces)
