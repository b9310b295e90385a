"""The functions that users call: one per op record, derived, plus the few whose arguments PyTorch
overloads in ways that a single signature cannot express."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

from flambeau.ops.record import REGISTRY
from flambeau.tensor.dispatch import make_function, make_inplace

__all__ = ["FAMILIES", "ops"]

FAMILIES = ("elementwise", "views", "reduce", "matmul", "activation", "loss", "norm", "pool", "conv",
            "index", "optim", "creation", "random")
"""The modules of flambeau.ops that define ops."""

ops = SimpleNamespace()
"""Every op by its short name, and its in-place form with an underscore."""


def _load() -> None:
    import importlib.util
    for family in FAMILIES:
        if not importlib.util.find_spec(f"flambeau.ops.{family}"): continue  # TEMPORARY
        importlib.import_module(f"flambeau.ops.{family}")
    for name, record in REGISTRY.items():
        short = name.split(".")[-1]
        setattr(ops, short, make_function(record))
        if record.inplace:
            setattr(ops, short + "_", make_inplace(record))


_load()
