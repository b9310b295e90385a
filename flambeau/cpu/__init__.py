"""`torch.cpu`: the CPU as a device, and statistics of the memory that tensors use.

The statistics have the names of `torch.cuda`'s. "allocated" are the blocks that tensors hold,
"reserved" those and the freed ones that are kept for reuse. Sizes are in bytes and count whole
blocks, which are up to 12.5 % larger than what was asked for; memory that NumPy or another owner
lent to a tensor is not counted.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import platform
import types
from collections.abc import Mapping
from typing import Any

__all__ = ["Stream", "StreamContext", "current_device", "current_stream", "device_count",
           "empty_cache", "get_capabilities", "is_available", "is_initialized",
           "max_memory_allocated", "memory_allocated", "memory_reserved", "memory_stats",
           "memory_summary", "reset_peak_memory_stats", "set_device", "stream", "synchronize"]


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


class StreamContext(contextlib.AbstractContextManager):
    """A block that works in `stream`; on the CPU that changes nothing."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __exit__(self, *error: object) -> None:
        pass


def stream(stream: Stream | None) -> StreamContext:
    """A block that works in `stream`; on the CPU that changes nothing."""
    return StreamContext(stream)


@functools.cache
def get_capabilities() -> Mapping[str, Any]:
    """What the processor can do: "architecture", "cpu_name", "num_logical_cores", and for each
    extension of its instructions ("avx2", "avx512_bf16", "neon" ...) whether it has it."""
    from flambeau.compiler.target import host

    flags = [(flag[1:], flag[0] == "+") for flag in host().features.split(",") if flag]
    found = {_EXTENSIONS.get(name, name).replace("-", "_").replace(".", "_"): has
             for name, has in flags}
    return types.MappingProxyType({
        **found, "architecture": platform.machine(), "cpu_name": _cpu_name(),
        "num_logical_cores": len(os.sched_getaffinity(0))})


# PyTorch's names of what LLVM calls otherwise.
_EXTENSIONS = {f"avx512{part}": f"avx512_{part}" for part in (
    "f", "cd", "dq", "bw", "vl", "ifma", "vbmi", "vbmi2", "bitalg", "vpopcntdq", "vnni", "bf16",
    "fp16", "vp2intersect")}
_EXTENSIONS |= {"fma": "fma3", "avxvnni": "avx_vnni", "avxneconvert": "avx_ne_convert"}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            named = next((line for line in file if line.startswith("model name")), "")
    except OSError:
        named = ""
    return named.partition(":")[2].strip() or platform.processor() or platform.machine()


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
