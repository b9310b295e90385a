"""`torch.special`: special functions, ops of the op table under their special names."""

from __future__ import annotations

from typing import Any

from flambeau.tensor.functions import ops

__all__ = ["expit"]

_NAMES = {"expit": "sigmoid", "psi": "digamma", "gammaln": "lgamma"}


def __getattr__(name: str) -> Any:
    found = getattr(ops, _NAMES.get(name, name), None)
    if found is None or name.startswith("_"):
        raise AttributeError(f"module 'flambeau.special' has no attribute {name!r}: not "
                             "implemented yet, or no such name in PyTorch")
    return found
