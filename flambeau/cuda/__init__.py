"""`torch.cuda` on a build without CUDA: questions are answered, the rest says what is missing."""

from __future__ import annotations

from typing import Any

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
    raise AttributeError(f"torch.cuda.{name}: Flambeau runs on the CPU so far")
