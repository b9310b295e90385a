"""`torch.cpu`: the CPU as a device, and statistics of the memory that tensors use.

The statistics have the names of `torch.cuda`'s. "allocated" are the blocks that tensors hold,
"reserved" those and the freed ones that are kept for reuse. Sizes are in bytes and count whole
blocks, which are up to 12.5 % larger than what was asked for; memory that NumPy or another owner
lent to a tensor is not counted.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

__all__ = ["Stream", "current_device", "current_stream", "device_count", "empty_cache",
           "is_available", "is_initialized", "max_memory_allocated", "memory_allocated",
           "memory_reserved", "memory_stats", "memory_summary", "reset_peak_memory_stats",
           "set_device", "stream", "synchronize"]


def is_available() -> bool:
    """There is always a CPU."""
    return True


def is_initialized() -> bool:
    """It needs no starting."""
    return True


def device_count() -> int:
    """The CPU is one device, whatever its cores."""
    return 1


def current_device() -> str:
    """Always "cpu"."""
    return "cpu"


def set_device(device: Any) -> None:
    """Accepted: there is one CPU."""


def synchronize(device: Any = None) -> None:
    """Returns at once: operations on the CPU are complete when they return."""


class Stream:
    """A stream of work; on the CPU everything runs in order, in any of them."""

    def __init__(self, priority: int = -1) -> None:
        pass

    def wait_stream(self, stream: Stream) -> None:
        """Nothing is waited for."""


def current_stream(device: Any = None) -> Stream:
    """The CPU's only stream."""
    return _STREAM


@contextlib.contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """A block that works in `stream`; on the CPU that changes nothing."""
    yield


_STREAM = Stream()


def memory_stats(device: Any = None) -> dict[str, int]:
    """The allocator's numbers, in bytes."""
    from flambeau.runtime import memory

    stats = memory.memory_stats()
    return {
        "allocated_bytes.all.current": stats["in_use"],
        "allocated_bytes.all.peak": stats["peak"],
        "reserved_bytes.all.current": stats["in_use"] + stats["cached"],
        "inactive_split_bytes.all.current": stats["cached"],
        "cache_limit_bytes": stats["cache_limit"],
    }


def memory_allocated(device: Any = None) -> int:
    """Bytes in blocks that tensors hold."""
    return memory_stats()["allocated_bytes.all.current"]


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that tensors ever held, since the start or `reset_peak_memory_stats`."""
    return memory_stats()["allocated_bytes.all.peak"]


def memory_reserved(device: Any = None) -> int:
    """Bytes in blocks that tensors hold or that are kept for reuse."""
    return memory_stats()["reserved_bytes.all.current"]


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let the peak start again from what is held now."""
    from flambeau.runtime import memory

    memory.reset_peak()


def empty_cache() -> None:
    """Give the freed blocks that are kept for reuse back to the system."""
    from flambeau.runtime import memory

    memory.empty_cache()


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The statistics as a small table, in MiB."""
    rows = [f"{name:36}{value / 2**20:12.1f} MiB" for name, value in memory_stats().items()]
    return "\n".join(["memory of CPU tensors", *rows])


def __getattr__(name: str) -> Any:
    if name == "amp":
        return importlib.import_module("flambeau.cpu.amp")
    raise AttributeError(f"module 'flambeau.cpu' has no attribute {name!r}", name=name)
