"""`torch.autograd.profiler`: the older face of the profiler."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

from flambeau.profiler.events import EventList, FunctionEvent, FunctionEventAvg
from flambeau.profiler.profile import profile as newer
from flambeau.profiler.profile import record_function

__all__ = ["EnforceUnique", "EventList", "FunctionEvent", "FunctionEventAvg", "KinetoStepTracker",
           "MemRecordsAcc", "emit_itt", "emit_nvtx", "load_nvprof", "profile", "record_function"]


class profile:
    """Watch what runs in a block; `flambeau.profiler.profile` is the newer form.

    Args:
        enabled: False: a block like any other.
        record_shapes, with_stack, profile_memory, with_modules: as there.
        use_cuda, use_device: GPUs are refused. The rest is accepted.
    """

    def __init__(self, enabled: bool = True, *, use_cuda: bool = False, use_device: Any = None,
                 record_shapes: bool = False, with_flops: bool = False,
                 profile_memory: bool = False, with_stack: bool = False,
                 with_modules: bool = False, use_kineto: bool = False, use_cpu: bool = True,
                 experimental_config: Any = None, acc_events: bool = False,
                 custom_trace_id_callback: Any = None,
                 post_processing_timeout_s: float | None = None,
                 activity_filters: Any = None) -> None:
        self.enabled = enabled
        self._profile = newer(
            record_shapes=record_shapes, with_flops=with_flops, profile_memory=profile_memory,
            with_stack=with_stack, with_modules=with_modules, acc_events=acc_events,
            use_cuda=use_cuda or use_device not in (None, "cpu"))

    def __enter__(self) -> profile:
        if self.enabled:
            self._profile.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.enabled:
            self._profile.stop()

    @property
    def function_events(self) -> EventList:
        """All events."""
        return self._profile.events()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all, each moment counted once."""
        return self.function_events.self_cpu_time_total

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0,
                     group_by_overload_name: bool = False) -> EventList:
        """The events summed up by name, and by the shapes of inputs and the line if asked for."""
        return self.function_events.key_averages(group_by_input_shape, group_by_stack_n)

    def total_average(self) -> FunctionEventAvg | None:
        """All together."""
        return self.function_events.total_average()

    def table(self, *args: Any, **kwargs: Any) -> str:
        """A table of all events; see `EventList.table`."""
        return self.function_events.table(*args, **kwargs)

    def export_chrome_trace(self, path: str) -> None:
        """Write a trace that chrome://tracing and Perfetto show."""
        self._profile.export_chrome_trace(path)

    def export_stacks(self, path: str, metric: str = "self_cpu_time_total") -> None:
        """Write the lines with their microseconds, as flame graph tools take them."""
        self._profile.export_stacks(path, metric)


class EnforceUnique:
    """Keys that may be seen once only."""

    def __init__(self) -> None:
        self.seen: set = set()

    def see(self, *key: Any) -> None:
        """Note a key.

        Raises:
            RuntimeError: it was seen before.
        """
        if key in self.seen:
            raise RuntimeError("duplicate key: " + str(key))
        self.seen.add(key)


class KinetoStepTracker:
    """One count of steps for all who count some of their own: it is that of the fastest."""

    _steps: ClassVar[dict[str, int]] = {}
    _current = 0

    @classmethod
    def init_step_count(cls, requester: str) -> None:
        """Begin to count for `requester`, where all are."""
        cls._steps[requester] = cls._current

    @classmethod
    def erase_step_count(cls, requester: str) -> bool:
        """Forget `requester`; was it known?"""
        return cls._steps.pop(requester, None) is not None

    @classmethod
    def increment_step(cls, requester: str) -> int:
        """One step more for `requester`; gives the step of all."""
        if requester not in cls._steps:
            cls.init_step_count(requester)
        cls._steps[requester] += 1
        cls._current = max(cls._current, *cls._steps.values())
        return cls._current

    @classmethod
    def current_step(cls) -> int:
        """The step of all."""
        return cls._current


class MemRecordsAcc:
    """Records of memory by the moment they were made at, for looking up intervals."""

    def __init__(self, mem_records: Any) -> None:
        self._records = sorted(mem_records, key=_moment)
        self._moments = [_moment(record) for record in self._records]

    def in_interval(self, start_us: int, end_us: int) -> Iterator[Any]:
        """The records from `start_us` to `end_us`, in microseconds."""
        first = bisect.bisect_left(self._moments, start_us)
        yield from self._records[first:bisect.bisect_right(self._moments, end_us)]


def _moment(record: Any) -> float:
    """When a record was made, in microseconds; records know nanoseconds."""
    return record[0].start_ns() / 1000


def load_nvprof(path: str) -> EventList:
    """Raises NotImplementedError: NVIDIA's profiles come from GPUs, and there are none."""
    raise NotImplementedError("load_nvprof reads profiles of GPUs, and there are none; "
                              "flambeau.profiler.profile makes profiles of what runs here")


@contextlib.contextmanager
def emit_nvtx(enabled: bool = True, record_shapes: bool = False) -> Iterator[None]:
    """Marks for NVIDIA's profiler.

    Raises:
        NotImplementedError: unless not enabled.
    """
    if enabled:
        raise NotImplementedError("emit_nvtx marks work on GPUs, and there are none; use "
                                  "flambeau.profiler.profile")
    yield


@contextlib.contextmanager
def emit_itt(enabled: bool = True, record_shapes: bool = False) -> Iterator[None]:
    """Marks for Intel's profiler.

    Raises:
        NotImplementedError: unless not enabled.
    """
    if enabled:
        raise NotImplementedError("emit_itt is not implemented; use flambeau.profiler.profile")
    yield
