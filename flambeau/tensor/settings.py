"""Settings that change what operations do: default dtype, threads, determinism."""

from __future__ import annotations

from typing import Any

from flambeau.core.device import CPU, Device, as_device
from flambeau.core.dtypes import DType
from flambeau.ops import record
from flambeau.runtime import pool
from flambeau.tensor import dispatch

__all__ = ["get_default_dtype", "set_default_dtype", "set_num_threads", "get_num_threads",
           "get_num_interop_threads", "set_num_interop_threads",
           "are_deterministic_algorithms_enabled", "use_deterministic_algorithms",
           "get_default_device", "set_default_device", "set_float32_matmul_precision",
           "get_float32_matmul_precision"]


def get_default_dtype() -> DType:
    """The dtype of floating tensors made without one."""
    return record.dtypes_default()


def set_default_dtype(d: DType) -> None:
    """Set the dtype of floating tensors made without one.

    Raises:
        TypeError: not a floating dtype.
    """
    if not isinstance(d, DType) or not d.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    if d is not record.dtypes_default():
        record.set_dtypes_default(d)
        dispatch.clear_caches()


def set_num_threads(count: int) -> None:
    """Use `count` threads inside operations; results do not depend on it."""
    if not isinstance(count, int) or count <= 0:
        raise RuntimeError("set_num_threads expects a positive integer")
    if count != pool.get_num_threads():
        pool.set_num_threads(count)
        dispatch.clear_caches()


def get_num_threads() -> int:
    """Threads used inside operations."""
    return pool.get_num_threads()


def get_num_interop_threads() -> int:
    """Operations never run beside each other: 1."""
    return 1


def set_num_interop_threads(count: int) -> None:
    """Accepted for compatibility; operations never run beside each other."""


def are_deterministic_algorithms_enabled() -> bool:
    """Always: results are deterministic by construction."""
    return True


def use_deterministic_algorithms(mode: Any, *, warn_only: bool = False) -> None:
    """Accepted for compatibility: results are always deterministic."""


def get_default_device() -> Device:
    """The device of tensors made without one."""
    return CPU


def set_default_device(device: Any) -> None:
    """Only the CPU exists so far."""
    as_device(device)


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted for compatibility: float32 products are always computed in float32.

    Raises:
        RuntimeError: not one of "highest", "high", "medium".
    """
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"{precision} is not one of 'highest', 'high', or 'medium'")


def get_float32_matmul_precision() -> str:
    """Always "highest"."""
    return "highest"
