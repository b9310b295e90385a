"""Helpers beside the core: tables of hooks, names of types, data loading.

Lives here: `hooks` (removable handles), `naming`, `checkpoint` (activations computed again),
`tensorboard` (logs), `benchmark` (timing), `dlpack` (memory of other libraries) and `data`
(datasets, samplers, the loader), `model_zoo` (an older name), each loaded at first use. May not
live here: anything that computes on tensors.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["benchmark", "checkpoint", "data", "dlpack", "hooks", "model_zoo", "naming",
           "tensorboard"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__ or name in ("_pytree", "_python_dispatch"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
