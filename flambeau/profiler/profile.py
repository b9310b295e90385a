"""`profile`: what users open around their code; its schedule, and named ranges."""

from __future__ import annotations

import enum
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from flambeau.nn.modules.module import (
    Module,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from flambeau.profiler.collecting import Collector, opened
from flambeau.profiler.events import EventList, events_of
from flambeau.profiler.timeline import write_timeline

__all__ = ["DeviceType", "ProfilerAction", "ProfilerActivity", "profile", "record_function",
           "schedule", "supported_activities", "tensorboard_trace_handler"]


class ProfilerActivity(enum.Enum):
    """What can be watched; here operations on the CPU."""

    CPU = 0
    XPU = 1
    CUDA = 2
    HPU = 3
    MTIA = 4
    PrivateUse1 = 5


class DeviceType(enum.IntEnum):
    """The kinds of devices, by PyTorch's numbers."""

    CPU, CUDA, MKLDNN, OPENGL, OPENCL, IDEEP, HIP, FPGA, MAIA, XLA = range(10)
    Vulkan, Metal, XPU, MPS, Meta, HPU, VE, Lazy, IPU, MTIA = range(10, 20)
    PrivateUse1 = 20


class ProfilerAction(enum.Enum):
    """What a schedule wants of a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """The activities that this machine can watch."""
    return {ProfilerActivity.CPU}


# ---------------------------------------------------------------------- ranges
class record_function:
    """A named range of a profile: a context, or a decorator. Without an open profile, nothing.

    Args:
        name: what the profile calls it.
        args: a text that the trace shows with it.
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name, self.args = name, args
        self._starts: list[int] = []

    def __enter__(self) -> record_function:
        self._starts.append(time.perf_counter_ns())
        return self

    def __exit__(self, *error: Any) -> None:
        start = self._starts.pop()
        for collector in opened():
            if not collector.paused and start >= collector.began:
                collector.note(self.name, start, time.perf_counter_ns(), threading.get_ident(),
                               "user_annotation", self.args)

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):
                return function(*args, **kwargs)

        return inside


class _Modules:
    """Ranges for the calls of all modules."""

    def __init__(self) -> None:
        self.numbers: dict[int, str] = {}
        self.open: list[record_function] = []

    def __enter__(self) -> None:
        self.handles = (register_module_forward_pre_hook(self._begin),
                        register_module_forward_hook(self._end, always_call=True))

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()

    def _begin(self, module: Module, args: Any) -> None:
        name = self.numbers.setdefault(
            id(module), f"nn.Module: {type(module).__name__}_{len(self.numbers)}")
        self.open.append(record_function(name).__enter__())

    def _end(self, module: Module, args: Any, result: Any) -> None:
        if self.open:
            self.open.pop().__exit__()


# ---------------------------------------------------------------------- schedules
def schedule(*, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0,
             skip_first_wait: int = 0) -> Callable[[int], ProfilerAction]:
    """Steps in cycles: `wait` that are not watched, `warmup` that are watched and dropped, `active`
    that are kept.

    Args:
        repeat: cycles; 0: until the profile ends.
        skip_first: steps before the first cycle.
        skip_first_wait: not 0: the first cycle does not wait.

    Raises:
        AssertionError: a number is negative, or `active` is not positive.
    """
    if min(wait, warmup, repeat, skip_first) < 0 or active <= 0:
        raise AssertionError(
            "Invalid profiler schedule arguments: wait, warmup, repeat and skip_first must not be "
            f"negative and active must be positive, got wait={wait}, warmup={warmup}, "
            f"active={active}, repeat={repeat}, skip_first={skip_first}")
    cycle = wait + warmup + active

    def action(step: int) -> ProfilerAction:
        if step < 0:
            raise AssertionError(f"Step must be non-negative. Got {step}.")
        if step < skip_first:
            return ProfilerAction.NONE
        step -= skip_first
        if skip_first_wait != 0:
            step += wait
        if repeat > 0 and step // cycle >= repeat:
            return ProfilerAction.NONE
        place = step % cycle
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        last = place == cycle - 1
        return ProfilerAction.RECORD_AND_SAVE if last else ProfilerAction.RECORD

    return action


def _always(step: int) -> ProfilerAction:
    return ProfilerAction.RECORD


def tensorboard_trace_handler(dir_name: str, worker_name: str | None = None,
                              use_gzip: bool = False, use_python_export: bool = False
                              ) -> Callable[[profile], None]:
    """A handler (`on_trace_ready`) that writes each trace to a file of its own in a folder."""

    def write(finished: profile) -> None:
        os.makedirs(dir_name, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        name = f"{worker}.{time.time_ns()}.pt.trace.json" + (".gz" if use_gzip else "")
        finished.export_chrome_trace(os.path.join(dir_name, name))

    return write


# ---------------------------------------------------------------------- the profile
class profile:
    """Watch what runs in a block: each operation, gradient and compiled program, and ranges.

        with profile(record_shapes=True) as prof:
            step()
        print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))

    An operation's time is that of its native code; Python's own shows in the ranges around it.

    Args:
        activities: the CPU only; others are refused.
        schedule: says for each step (`step()` ends one) whether it is watched.
        on_trace_ready: called with the profile whenever steps have been kept.
        record_shapes: note the shapes of inputs.
        profile_memory: note the memory that operations take.
        with_stack: note the user's line of each operation.
        with_modules: a range for each call of a module.
        with_flops: refused: operations are not counted.
        execution_trace_observer: an `ExecutionTraceObserver`, which watches the steps that are
            kept.
        acc_events: keep the events of all cycles, not of the last one only.

    Raises:
        ValueError: an activity that this machine cannot watch.
    """

    def __init__(self, *, activities: Iterable[ProfilerActivity] | None = None,
                 schedule: Callable[[int], ProfilerAction] | None = None,
                 on_trace_ready: Callable[[profile], Any] | None = None,
                 record_shapes: bool = False, profile_memory: bool = False,
                 with_stack: bool = False, with_flops: bool = False, with_modules: bool = False,
                 experimental_config: Any = None, execution_trace_observer: Any = None,
                 acc_events: bool = False, use_cuda: bool | None = None,
                 custom_trace_id_callback: Callable[[], str] | None = None,
                 post_processing_timeout_s: float | None = None) -> None:
        wanted = supported_activities() if activities is None else set(activities)
        unknown = wanted - supported_activities()
        if use_cuda or unknown and not wanted & supported_activities():
            raise ValueError(f"this machine cannot watch {sorted(a.name for a in unknown)}; "
                             "ask for ProfilerActivity.CPU")
        if with_flops:
            raise NotImplementedError("profile(with_flops=True): operations are not counted; leave "
                                      "it out")
        self.execution_trace_observer = execution_trace_observer
        self._schedule = schedule or _always
        self._steps = schedule is not None
        self.on_trace_ready = on_trace_ready
        self.record_shapes, self.profile_memory = record_shapes, profile_memory
        self.with_stack, self.with_modules, self.acc_events = with_stack, with_modules, acc_events
        self.trace_id_callback = custom_trace_id_callback
        self._trace_id = ""
        self._metadata: dict[str, Any] = {}
        self._modules: _Modules | None = None
        self._collector: Collector | None = None
        self._events = EventList()
        self._kept = EventList()  # of earlier cycles
        self._held: list[tuple[int, int]] = []  # (nanoseconds, bytes in use)
        self.step_num = 0
        self.current_action = ProfilerAction.NONE
        self._range: record_function | None = None

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()

    def start(self) -> None:
        """Begin with step 0."""
        if self.with_modules:
            self._modules = _Modules()
            self._modules.__enter__()
        self.current_action = self._schedule(self.step_num)
        self._follow(ProfilerAction.NONE, self.current_action)
        self._begin_step()

    def stop(self) -> None:
        """End; what is being kept is ready."""
        self._end_step()
        if self._modules is not None:
            self._modules.__exit__()
            self._modules = None
        keeping = self.current_action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        self._close(keeping)
        self.current_action = ProfilerAction.NONE

    def step(self) -> None:
        """The end of a step, for the schedule."""
        self._end_step()
        before = self.current_action
        self.step_num += 1
        self.current_action = self._schedule(self.step_num)
        self._follow(before, self.current_action)
        self._begin_step()

    def _begin_step(self) -> None:
        if self._steps and self._collector is not None:
            self._range = record_function(f"ProfilerStep#{self.step_num}").__enter__()

    def _end_step(self) -> None:
        if self._range is not None:
            self._range.__exit__()
            self._range = None

    def _follow(self, before: ProfilerAction, now: ProfilerAction) -> None:
        """Open and close collectors as the schedule goes on."""
        recording = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        if before is ProfilerAction.RECORD_AND_SAVE or before is ProfilerAction.RECORD and (
                now not in recording):
            self._close(keep=True)
        elif before is ProfilerAction.WARMUP:
            self._close(keep=False)
        if now is not ProfilerAction.NONE and self._collector is None:
            self._collector = Collector(self.with_stack, self.profile_memory)
            self._collector.start()
        observer = self.execution_trace_observer
        if observer is not None and now in recording:
            observer.start()

    def _close(self, keep: bool) -> None:
        if self.execution_trace_observer is not None:
            self.execution_trace_observer.stop()  # opened last, closed first
        collector, self._collector = self._collector, None
        if collector is None:
            return
        collector.stop()
        if not keep:
            return
        self._trace_id = (self.trace_id_callback or _new_id)()
        self._held = collector.held
        found = events_of(collector.raw, collector.began, self.record_shapes)
        if self.acc_events:
            self._kept = EventList([*self._kept, *found])
            found = self._kept
        self._events = found
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)

    # ------------------------------------------------------------------ results
    def events(self) -> EventList:
        """All events that were kept last.

        Raises:
            AssertionError: the profile is still open.
        """
        if self._collector is not None and not self._steps:
            raise AssertionError("Profiler didn't finish running: call this after the block")
        return self._events

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0,
                     group_by_overload_name: bool = False) -> EventList:
        """The events summed up by name, and by the shapes of inputs and the line if asked for."""
        return self.events().key_averages(group_by_input_shape, group_by_stack_n)

    def export_chrome_trace(self, path: str, use_python_export: bool = False) -> None:
        """Write a trace that chrome://tracing and Perfetto show; compressed if the name ends in
        .gz. `use_python_export` is accepted: there is one way to write."""
        self.events().export_chrome_trace(path, {"trace_id": self._trace_id, **self._metadata})

    def export_stacks(self, path: str, metric: str = "self_cpu_time_total") -> None:
        """Write the lines with their microseconds, as flame graph tools take them; needs
        `with_stack`."""
        self.events().export_stacks(path, metric)

    def export_memory_timeline(self, path: str, device: str | None = None) -> None:
        """Write the memory in use over time; `path` ends in .html, .json, .json.gz or
        .raw.json.gz. What it is used for, `torch.compiler.plan` tells, by module and line.

        Raises:
            ValueError: the profile was not made with profile_memory=True, or another device.
        """
        if not self.profile_memory:
            raise ValueError("record_shapes=True, profile_memory=True, with_stack=True required "
                             "for memory profiling; here profile_memory=True is enough.")
        if device is not None and str(device).split(":")[0] != "cpu":
            raise ValueError(f"export_memory_timeline: only the CPU is watched, not {device!r}")
        write_timeline(path, self._held)

    def add_metadata(self, key: str, value: str) -> None:
        """A text that the trace carries."""
        self._metadata[key] = str(value)

    def add_metadata_json(self, key: str, value: str) -> None:
        """JSON that the trace carries."""
        self._metadata[key] = json.loads(value)

    preset_metadata_json = add_metadata_json

    def toggle_collection_dynamic(self, enable: bool, activities: Iterable[ProfilerActivity]
                                  ) -> None:
        """Stop watching for a while, or go on, inside of an open profile."""
        if self._collector is not None and ProfilerActivity.CPU in set(activities):
            self._collector.paused = not enable

    def get_trace_id(self) -> str | None:
        """The identity of the last trace; None if there is none yet."""
        return self._trace_id or None

    def set_custom_trace_id_callback(self, callback: Callable[[], str]) -> None:
        """Let `callback` give the identities of traces."""
        self.trace_id_callback = callback


def _new_id() -> str:
    return uuid.uuid4().hex.upper()
