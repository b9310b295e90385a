"""Transforms of functions: derivatives and batches, as `torch.func`.

Lives here: what users call. The tape, forward mode and batches of tensors are `autograd/` and
`tensor/`; what an operation does with examples and tangents follows from its primitives (`ops/`).
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "grad": "derivatives", "grad_and_value": "derivatives", "vjp": "derivatives",
    "jvp": "derivatives", "linearize": "derivatives",
    "jacrev": "jacobians", "jacfwd": "jacobians", "hessian": "jacobians",
    "vmap": "batches", "functional_call": "modules", "stack_module_state": "modules",
    "replace_all_batch_norm_modules_": "modules", "functionalize": "functionalization",
    "debug_unwrap": "derivatives", "rearrange": "rearrangement",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
