"""Profiling: what a piece of code spends its time on.

`profile` is what users open; `collecting.py` times launches, `events.py` nests and sums them up.
"""

from __future__ import annotations

from flambeau.profiler.profile import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)

__all__ = ["ProfilerAction", "ProfilerActivity", "kineto_available", "profile", "record_function",
           "schedule", "supported_activities", "tensorboard_trace_handler"]


def kineto_available() -> bool:
    """Is there PyTorch's collector of GPU activities? No."""
    return False
