"""`torch.cuda` on a build without CUDA: questions are answered, the rest says what is missing."""

from __future__ import annotations

import importlib
from typing import Any

from flambeau.core.device import unavailable

__all__ = ["is_available", "device_count", "manual_seed", "manual_seed_all", "empty_cache",
           "synchronize", "current_device", "is_initialized"]


def is_available() -> bool:
    """Can tensors live on a GPU? Not yet."""
    return False


def is_initialized() -> bool:
    """Has CUDA been started? It never is."""
    return False


def device_count() -> int:
    """GPUs that can be used: none yet."""
    return 0


def manual_seed(seed: int) -> None:
    """Accepted: there is no GPU whose generator could be seeded."""


def manual_seed_all(seed: int) -> None:
    """Accepted: there is no GPU whose generator could be seeded."""


def empty_cache() -> None:
    """Nothing is cached on a GPU."""


def synchronize(device: Any = None) -> None:
    """Raises: there is no GPU to wait for."""
    _missing("synchronize")


def current_device() -> int:
    """Raises: there is no GPU."""
    return _missing("current_device")


def _missing(name: str) -> Any:
    raise unavailable(f"a GPU (torch.cuda.{name})")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name == "amp":
        return importlib.import_module("flambeau.cuda.amp")
    if name in _FUNCTIONS:
        return _raiser(name)
    raise AttributeError(f"module 'flambeau.cuda' has no attribute {name!r}: Flambeau runs on the "
                         "CPU so far, or there is no such name in PyTorch", name=name)


_FUNCTIONS = ("current_stream", "get_device_capability", "get_device_name", "get_device_properties",
              "init", "ipc_collect", "set_device")


def _raiser(name: str) -> Any:
    """A function of PyTorch that needs a GPU: it exists, and says so when it is called."""

    def needs_gpu(*args: Any, **kwargs: Any) -> Any:
        _missing(name)

    needs_gpu.__name__ = name
    return needs_gpu
