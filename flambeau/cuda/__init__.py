"""`torch.cuda` on a build without CUDA: questions are answered, the rest says what is missing."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from flambeau.core.device import unavailable

__all__ = ["Event", "Stream", "StreamContext", "current_device", "device", "device_count",
           "device_of", "empty_cache", "get_rng_state", "get_rng_state_all", "is_available",
           "is_bf16_supported", "is_current_stream_capturing", "is_initialized",
           "is_tf32_supported", "manual_seed", "manual_seed_all", "max_memory_allocated",
           "max_memory_cached", "max_memory_reserved", "memory_allocated", "memory_cached",
           "memory_reserved", "memory_stats", "memory_summary", "reset_accumulated_memory_stats",
           "reset_max_memory_allocated", "reset_max_memory_cached", "reset_peak_memory_stats",
           "seed", "seed_all", "set_rng_state", "set_rng_state_all", "stream", "synchronize"]


def is_available() -> bool:
    """Can tensors live on a GPU? Not yet."""
    return False


def is_initialized() -> bool:
    """Has CUDA been started? It never is."""
    return False


def device_count() -> int:
    """GPUs that can be used: none yet."""
    return 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Can GPUs compute in bfloat16? There are none."""
    return False


def is_tf32_supported() -> bool:
    """Can GPUs compute in TF32? There are none."""
    return False


def is_current_stream_capturing() -> bool:
    """Is a CUDA graph being captured? No."""
    return False


# ---------------------------------------------------------------------- random numbers
def manual_seed(seed: int) -> None:
    """Accepted: there is no GPU whose generator could be seeded."""


def manual_seed_all(seed: int) -> None:
    """Accepted: there is no GPU whose generator could be seeded."""


def seed() -> None:
    """Accepted: there is no GPU whose generator could be seeded."""


def seed_all() -> None:
    """Accepted: there is no GPU whose generator could be seeded."""


def get_rng_state(device: Any = "cuda") -> Any:
    """Raises: there is no GPU."""
    _missing("get_rng_state")


def get_rng_state_all() -> list:
    """The states of all GPUs' generators: none."""
    return []


def set_rng_state(new_state: Any, device: Any = "cuda") -> None:
    """Raises: there is no GPU."""
    _missing("set_rng_state")


def set_rng_state_all(new_states: Iterable[Any]) -> None:
    """Set the states of all GPUs' generators; raises if there are any states."""
    for state in new_states:
        set_rng_state(state)


# ---------------------------------------------------------------------- memory
def empty_cache() -> None:
    """Nothing is cached on a GPU."""


def memory_allocated(device: Any = None) -> int:
    """Bytes in use on a GPU: none. The CPU's are told by `torch.cpu`."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that were in use on a GPU: none."""
    return 0


def memory_reserved(device: Any = None) -> int:
    """Bytes held on a GPU: none."""
    return 0


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes that were held on a GPU: none."""
    return 0


def memory_cached(device: Any = None) -> int:
    """Deprecated spelling of `memory_reserved`."""
    return 0


def max_memory_cached(device: Any = None) -> int:
    """Deprecated spelling of `max_memory_reserved`."""
    return 0


def memory_stats(device: Any = None) -> OrderedDict:
    """Figures of a GPU's allocator: none."""
    return OrderedDict()


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The same as a text."""
    return "no GPU: no memory is in use there"


def reset_peak_memory_stats(device: Any = None) -> None:
    """Accepted: there are no figures."""


def reset_accumulated_memory_stats(device: Any = None) -> None:
    """Accepted: there are no figures."""


def reset_max_memory_allocated(device: Any = None) -> None:
    """Accepted: there are no figures."""


def reset_max_memory_cached(device: Any = None) -> None:
    """Accepted: there are no figures."""


# ---------------------------------------------------------------------- devices and streams
def synchronize(device: Any = None) -> None:
    """Raises: there is no GPU to wait for."""
    _missing("synchronize")


def current_device() -> int:
    """Raises: there is no GPU."""
    return _missing("current_device")


class device:
    """A context in which a GPU is current: None, or a negative number, is no GPU; any other raises
    when it is entered."""

    def __init__(self, device: Any) -> None:
        self.wanted = device

    def __enter__(self) -> None:
        if self.wanted is not None and not (isinstance(self.wanted, int) and self.wanted < 0):
            _missing("device")

    def __exit__(self, *error: Any) -> None:
        return None


class device_of(device):
    """A context in which the GPU of a tensor is current; nothing for a tensor on the CPU."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.device if getattr(obj, "is_cuda", False) else None)


class Stream:
    """A queue of a GPU's work. Making one raises: there is no GPU."""

    def __init__(self, device: Any = None, priority: int = 0, **options: Any) -> None:
        _missing("Stream")


class Event:
    """A mark in a queue of a GPU's work. Making one raises: there is no GPU."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False,
                 interprocess: bool = False, external: bool = False) -> None:
        _missing("Event")


class StreamContext:
    """A context in which a stream is current: None is none, and there are no others."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None


def stream(stream: Any) -> StreamContext:
    """A context in which a stream is current: None is none, and there are no others."""
    return StreamContext(stream)


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


_FUNCTIONS = ("cudart", "current_stream", "default_stream", "get_device_capability",
              "get_device_name", "get_device_properties", "init", "initial_seed", "ipc_collect",
              "mem_get_info", "set_device", "set_per_process_memory_fraction", "set_stream")


def _raiser(name: str) -> Any:
    """A function of PyTorch that needs a GPU: it exists, and says so when it is called."""

    def needs_gpu(*args: Any, **kwargs: Any) -> Any:
        _missing(name)

    needs_gpu.__name__ = name
    return needs_gpu
