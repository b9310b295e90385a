"""Names that third-party code takes from PyTorch's compiled module; they live elsewhere here."""

from __future__ import annotations

from flambeau.runtime.generator import Generator
from flambeau.tensor.overriding import (
    DisableTorchFunction,
    DisableTorchFunctionSubclass,
)
from flambeau.tensor.overriding import disabled_torch_function as _disabled_torch_function_impl

__all__ = ["DisableTorchFunction", "DisableTorchFunctionSubclass", "Generator",
           "_disabled_torch_function_impl", "_is_torch_function_enabled"]


def _is_torch_function_enabled() -> bool:
    """Are classes of arguments asked about operations now?"""
    from flambeau.tensor.overriding import state

    return state.subclasses
