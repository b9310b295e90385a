"""The functions that users call: one per op record, derived, plus the few whose arguments PyTorch
overloads in ways that a single signature cannot express."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

from flambeau.ops.record import REGISTRY
from flambeau.tensor import launches
from flambeau.tensor.dispatch import make_function, make_inplace, make_mutating

__all__ = ["FAMILIES", "ops"]

FAMILIES = ("elementwise", "views", "reduce", "matmul", "activation", "loss", "norm", "pool", "conv",
            "index", "optim", "creation", "random",
            "complex_numbers", "scan", "sort")
"""The modules of flambeau.ops that define ops."""

ops = launches.late.ops = SimpleNamespace()
"""Every op by its short name, and its in-place form with an underscore."""


def _load() -> None:
    import importlib.util
    for family in FAMILIES:
        if not importlib.util.find_spec(f"flambeau.ops.{family}"): continue  # TEMPORARY
        importlib.import_module(f"flambeau.ops.{family}")
    for name, record in REGISTRY.items():
        short = name.split(".")[-1]
        setattr(ops, short, make_function(record))
        if record.mutates:
            setattr(ops, short + "_", make_mutating(record))
        elif record.inplace:
            setattr(ops, short + "_", make_inplace(record))


def __getattr__(name: str) -> Any:
    """Ops are also attributes of this module; so are the hand-written functions beside them."""
    found = getattr(ops, name, None)
    if found is None and not name.startswith("__"):
        for home in ("overloads", "random", "compress", "creation"):
            module = importlib.import_module(f"flambeau.tensor.{home}")
            if name in module.__all__:
                return getattr(module, name)
    if found is None and name.startswith("__"):
        raise AttributeError(name)
    if found is None:
        raise NotImplementedError(f"the operation {name!r} is not implemented yet")
    return found


_load()
