"""`Pool`, whose workers give back tensors as shared memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Pool"]


def Pool(processes: int | None = None, initializer: Callable | None = None,
         initargs: Iterable = (), maxtasksperchild: int | None = None,
         context: Any = None) -> Any:
    """Processes that call functions, as `multiprocessing.Pool`."""
    return (context or multiprocessing).Pool(processes, initializer, initargs, maxtasksperchild)
