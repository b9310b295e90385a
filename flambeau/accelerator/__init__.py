"""`torch.accelerator`: whichever accelerator there is; so far there is none."""

from __future__ import annotations

from typing import Any

from flambeau.core.device import as_device

__all__ = ["AcceleratorError", "Event", "Stream", "current_accelerator", "current_device_idx",
           "current_device_index", "current_stream", "device_count", "device_index", "empty_cache",
           "empty_host_cache", "get_device_capability", "get_memory_info", "is_available",
           "max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved",
           "memory_stats", "reset_accumulated_memory_stats", "reset_peak_memory_stats",
           "set_device_idx", "set_device_index", "set_stream", "synchronize"]


def is_available() -> bool:
    """Can tensors live on an accelerator? Not yet."""
    return False


def device_count() -> int:
    """Accelerators that can be used: none."""
    return 0


def current_accelerator(check_available: bool = False) -> None:
    """The device of the accelerator: None, there is none."""


class device_index:
    """A context in which an accelerator is current: None is none; any other raises when it is
    entered."""

    def __init__(self, device: int | None, /) -> None:
        self.wanted = device

    def __enter__(self) -> None:
        if self.wanted is not None:
            _missing()

    def __exit__(self, *error: Any) -> None:
        return None


def _missing() -> Any:
    raise RuntimeError("Cannot access accelerator device when none is available. Ask "
                       "torch.accelerator.is_available() first; tensors live on the CPU.")


class AcceleratorError(RuntimeError):
    """An accelerator has reported a failure. Nothing raises it here; programs may catch it."""


class Stream:
    """`torch.Stream`: a queue of a device's work. The CPU has one, which is always done.

    Raises:
        RuntimeError: of another device.
    """

    device_index = -1
    stream_id = 0

    def __init__(self, device: Any = None, *, priority: int = 0) -> None:
        self.device = as_device(device)

    def query(self) -> bool:
        """Is all work done? The CPU's always is."""
        return True

    def synchronize(self) -> None:
        """Wait for all work: there is nothing to wait for."""

    def wait_event(self, event: Event) -> None:
        """Let later work wait for an event: nothing is waited for."""

    def wait_stream(self, stream: Stream) -> None:
        """Raises: the CPU has no events."""
        _no_events()

    def record_event(self, event: Event | None = None) -> Event:
        """Raises: the CPU has no events."""
        return _no_events()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def __repr__(self) -> str:
        return f"torch.Stream device_type={self.device.type}, device_index=-1, stream_id=0"


class Event:
    """`torch.Event`: a mark in a queue of a device's work. On the CPU it cannot be set.

    Raises:
        RuntimeError: of another device.
    """

    event_id = 0

    def __init__(self, device: Any = None, *, enable_timing: bool = False, blocking: bool = False,
                 interprocess: bool = False) -> None:
        self.device = as_device(device)

    def query(self) -> bool:
        """Has what the event marks happened? There is nothing."""
        return True

    def synchronize(self) -> None:
        """Wait for the event: there is nothing to wait for."""

    def record(self, stream: Stream | None = None) -> None:
        """Raises: the CPU has no events."""
        _no_events()

    def wait(self, stream: Stream | None = None) -> None:
        """Let a stream wait for the event: nothing is waited for."""

    def elapsed_time(self, end_event: Event) -> float:
        """Raises: nothing is timed."""
        return _no_events()


def _no_events() -> Any:
    raise RuntimeError("cpu backend doesn't support events. Time the CPU by time.perf_counter or "
                       "torch.utils.benchmark.Timer.")


def synchronize(device: Any = None, /) -> None:
    """Raises: there is nothing to wait for."""
    _missing()


def current_device_index() -> int:
    """Raises: there is none."""
    return _missing()


def current_device_idx() -> int:
    """Deprecated spelling of `current_device_index`."""
    return _missing()


def set_device_index(device: Any, /) -> None:
    """Raises: there is none."""
    _missing()


def set_device_idx(device: Any, /) -> None:
    """Deprecated spelling of `set_device_index`."""
    _missing()


def current_stream(device: Any = None, /) -> Any:
    """Raises: there is none."""
    return _missing()


def set_stream(stream: Any) -> None:
    """Raises: there is none."""
    _missing()


def get_device_capability(device: Any = None, /) -> dict[str, Any]:
    """Raises: there is none."""
    return _missing()


def get_memory_info(device_index: Any = None, /) -> tuple[int, int]:
    """Raises: there is none."""
    return _missing()


def memory_stats(device_index: Any = None, /) -> Any:
    """Raises: there is none."""
    return _missing()


def memory_allocated(device_index: Any = None, /) -> int:
    """Raises: there is none."""
    return _missing()


def max_memory_allocated(device_index: Any = None, /) -> int:
    """Raises: there is none."""
    return _missing()


def memory_reserved(device_index: Any = None, /) -> int:
    """Raises: there is none."""
    return _missing()


def max_memory_reserved(device_index: Any = None, /) -> int:
    """Raises: there is none."""
    return _missing()


def reset_peak_memory_stats(device_index: Any = None, /) -> None:
    """Raises: there is none."""
    _missing()


def reset_accumulated_memory_stats(device_index: Any = None, /) -> None:
    """Raises: there is none."""
    _missing()


def empty_cache() -> None:
    """Raises: there is none."""
    _missing()


def empty_host_cache() -> None:
    """Raises: there is none."""
    _missing()
