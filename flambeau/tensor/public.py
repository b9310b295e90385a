"""Which op is public where: `torch.exp`, `torch.nn.functional.gelu`, `torch.linalg.vector_norm`."""

from __future__ import annotations

import functools
from typing import Any

from flambeau.ops.record import REGISTRY
from flambeau.tensor.functions import ops

__all__ = ["lookup", "names"]


@functools.cache
def _table(namespace: str) -> dict[str, str]:
    """Public name -> name in `ops`."""
    table: dict[str, str] = {}
    for record in REGISTRY.values():
        if namespace not in record.public:
            continue
        short = record.name.split(".")[-1]
        for name in (short, *record.aliases):
            table[name] = short
            if record.inplace:
                table[name + "_"] = short + "_"
    return table


def lookup(namespace: str, name: str) -> Any:
    """The function called `name` in a public namespace ("torch", "nn.functional", ...), or None."""
    short = _table(namespace).get(name)
    return None if short is None else getattr(ops, short)


def names(namespace: str) -> list[str]:
    """All names of a public namespace that are ops."""
    return sorted(_table(namespace))
