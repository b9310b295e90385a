"""Profiling: what a piece of code spends its time on.

`profile` is what users open; `collecting.py` times launches, `events.py` nests and sums them up,
`timeline.py` writes the memory in use, `execution_trace.py` launches with their tensors.
"""

from __future__ import annotations

from flambeau.profiler.execution_trace import ExecutionTraceObserver
from flambeau.profiler.profile import (
    DeviceType,
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)

__all__ = ["DeviceType", "ExecutionTraceObserver", "ProfilerAction", "ProfilerActivity",
           "kineto_available", "profile", "record_function", "schedule", "supported_activities",
           "tensorboard_trace_handler"]


def kineto_available() -> bool:
    """Is there PyTorch's collector of GPU activities? No."""
    return False
