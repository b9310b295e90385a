"""Functions made from generated source text."""

from __future__ import annotations

import linecache
from collections.abc import Callable

__all__ = ["define"]


def define(name: str, source: str, filename: str, space: dict) -> Callable:
    """Compile our own generated source, entered in linecache so that debuggers can step through it.

    `filename` starts with "<flambeau", which marks the frames as internal.
    """
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), space)
    return space[name]
