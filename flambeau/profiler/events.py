"""Events of a profile: what took time, nested, and summed up by name.

Times are microseconds, memory is in bytes, as in PyTorch's profiler.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from flambeau.core.errors import describe
from flambeau.profiler.collecting import Raw
from flambeau.serialization.files import replacing

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "Interval", "events_of"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """From `start` to `end`, in microseconds since the profile began."""

    start: float
    end: float

    def elapsed_us(self) -> float:
        """Its length."""
        return self.end - self.start


class _Times:
    """What events and sums of events share."""

    count: int
    cpu_time_total: float
    device_time_total = device_time = self_device_time_total = 0.0
    device_memory_usage = self_device_memory_usage = 0

    @property
    def cpu_time(self) -> float:
        """Microseconds of one call on average."""
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def cpu_time_str(self) -> str:
        """The same with its unit."""
        return _time(self.cpu_time)

    @property
    def cpu_time_total_str(self) -> str:
        """Time with everything inside, with its unit."""
        return _time(self.cpu_time_total)

    @property
    def self_cpu_time_total_str(self) -> str:
        """Time without what is inside, with its unit."""
        return _time(self.self_cpu_time_total)  # type: ignore[attr-defined]


class FunctionEvent(_Times):
    """One operation, gradient of an operation, compiled program, or named range.

    Attributes:
        name: of the op ("..._backward": its gradient), or of the range.
        thread: number of the thread, from 1.
        time_range: when.
        cpu_parent, cpu_children: the events around it and inside of it.
        input_shapes: of an operation, if they were asked for; [] for numbers.
        stack: the user's line, if it was asked for.
        self_cpu_memory_usage: bytes taken, less those freed, if that was asked for.
    """

    count = 1

    def __init__(self, number: int, name: str, thread: int, time_range: Interval,
                 is_user_annotation: bool, input_shapes: list, stack: list[str],
                 self_memory: int, arguments: str | None) -> None:
        self.id, self.name, self.thread, self.time_range = number, name, thread, time_range
        self.is_user_annotation = is_user_annotation
        self.input_shapes, self.stack, self.arguments = input_shapes, stack, arguments
        self.self_cpu_memory_usage = self_memory
        self.cpu_parent: FunctionEvent | None = None
        self.cpu_children: list[FunctionEvent] = []

    @property
    def key(self) -> str:
        """What events are summed up by."""
        return self.name

    @property
    def cpu_time_total(self) -> float:  # type: ignore[override]
        """Microseconds with everything inside."""
        return self.time_range.elapsed_us()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds without what is inside."""
        return self.cpu_time_total - sum(c.cpu_time_total for c in self.cpu_children)

    @property
    def cpu_memory_usage(self) -> int:
        """Bytes taken with everything inside."""
        return self.self_cpu_memory_usage + sum(c.cpu_memory_usage for c in self.cpu_children)

    def __repr__(self) -> str:
        return (f"<FunctionEvent id={self.id} name={self.name} cpu_time={self.cpu_time_str} "
                f"thread={self.thread} input_shapes={self.input_shapes}>")


class FunctionEventAvg(_Times):
    """Events of one name (and shape, and line) together.

    Attributes:
        count: how many there are; `key`: their name.
        cpu_time_total, self_cpu_time_total: sums of the events' microseconds.
    """

    def __init__(self, first: FunctionEvent) -> None:
        self.key, self.is_user_annotation = first.key, first.is_user_annotation
        self.input_shapes, self.stack = first.input_shapes, first.stack
        self.count = 0
        self.cpu_time_total = self.self_cpu_time_total = 0.0
        self.cpu_memory_usage = self.self_cpu_memory_usage = 0

    def add(self, event: FunctionEvent | FunctionEventAvg) -> None:
        """Count an event in."""
        self.count += event.count
        self.cpu_time_total += event.cpu_time_total
        self.self_cpu_time_total += event.self_cpu_time_total
        self.cpu_memory_usage += event.cpu_memory_usage
        self.self_cpu_memory_usage += event.self_cpu_memory_usage

    def __repr__(self) -> str:
        return (f"<FunctionEventAvg key={self.key} self_cpu_time={self.self_cpu_time_total_str} "
                f"cpu_time={self.cpu_time_str} count={self.count}>")


def events_of(raw: Iterable[Raw], began: int, shapes: bool) -> EventList:
    """The events of what was collected, nested by time, in the order in which they began."""
    threads: dict[int, int] = {}
    found = []
    for item in sorted(raw, key=_by_start):
        thread = threads.setdefault(item.thread, len(threads) + 1)
        span = Interval((item.start - began) / 1e3, (item.end - began) / 1e3)
        annotation = item.kind == "user_annotation"
        found.append(FunctionEvent(
            len(found), item.name, thread, span, annotation,
            _shapes(item.detail) if shapes and not annotation and item.detail else [],
            [str(describe(item.where))] if item.where else [], item.nbytes,
            item.detail if annotation else None))
    _nest(found)
    return EventList(found)


def _by_start(item: Raw) -> tuple[int, int]:
    return item.start, -item.end


def _shapes(launch: Any) -> list[list[int]]:
    return [[] if isinstance(m, type) else list(m.shape) for m in launch.metas]


def _nest(events: Sequence[FunctionEvent]) -> None:
    """Find the event around each; they are sorted by their beginnings."""
    open_: dict[int, list[FunctionEvent]] = {}
    for event in events:
        around = open_.setdefault(event.thread, [])
        while around and around[-1].time_range.end < event.time_range.end:
            around.pop()
        if around:
            event.cpu_parent = around[-1]
            around[-1].cpu_children.append(event)
        around.append(event)


class EventList(list):
    """Events, or sums of events."""

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all, each moment counted once."""
        return sum(event.self_cpu_time_total for event in self)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0,
                     group_by_overload_name: bool = False) -> EventList:
        """The events summed up by name, and by the shapes of inputs and the line if asked for."""
        sums: dict[tuple, FunctionEventAvg] = {}
        for event in self:
            key = (event.key, event.is_user_annotation,
                   str(event.input_shapes) if group_by_input_shape else "",
                   *event.stack[:group_by_stack_n])
            if key not in sums:
                sums[key] = FunctionEventAvg(event)
                if not group_by_input_shape:
                    sums[key].input_shapes = []
                sums[key].stack = event.stack[:group_by_stack_n]
            sums[key].add(event)
        return EventList(sums.values())

    def total_average(self) -> FunctionEventAvg | None:
        """All together; None if there is none."""
        if not self:
            return None
        total = FunctionEventAvg(self[0])
        for event in self:
            total.add(event)
        total.key = "Total"
        return total

    def table(self, sort_by: str | None = None, row_limit: int = 100,
              max_src_column_width: int = 75, max_name_column_width: int = 55,
              max_shapes_column_width: int = 80, header: str | None = None,
              top_level_events_only: bool = False, time_unit: str | None = None) -> str:
        """A table for the terminal.

        Args:
            sort_by: an attribute: cpu_time, cpu_time_total, self_cpu_time_total, count,
                cpu_memory_usage, self_cpu_memory_usage; largest first.
            row_limit: lines at most; -1: all.
            top_level_events_only: leave out what happened inside of another event.
            time_unit: "s", "ms" or "us" for all times; by default what suits each.
        """
        rows = [event for event in self
                if not top_level_events_only or getattr(event, "cpu_parent", None) is None]
        total = sum(event.self_cpu_time_total for event in rows)
        if sort_by is not None:
            known = [name for name in _SORTABLE if rows and hasattr(rows[0], name)]
            if rows and sort_by not in known:
                raise AttributeError(f"cannot sort by {sort_by!r}; one of {', '.join(known)}")
            rows.sort(key=lambda event: getattr(event, sort_by), reverse=True)
        if row_limit >= 0:
            rows = rows[:row_limit]
        columns = _columns(rows, total, time_unit, max_name_column_width, max_shapes_column_width,
                           max_src_column_width)
        text = _written(columns, header)
        return f"{text}\nSelf CPU time total: {_time(total, time_unit)}\n"

    def __str__(self) -> str:
        return self.table()

    def export_chrome_trace(self, path: str | os.PathLike, metadata: dict | None = None) -> None:
        """Write a trace that chrome://tracing and Perfetto show; compressed if the name ends in
        .gz."""
        text = json.dumps({"schemaVersion": 1, "displayTimeUnit": "ms", **(metadata or {}),
                           "traceEvents": [_traced(event) for event in self]}).encode()
        _write(path, gzip.compress(text) if os.fspath(path).endswith(".gz") else text)

    @property
    def supported_export_stacks_metrics(self) -> list[str]:
        """What `export_stacks` can count."""
        return ["self_cpu_time_total"]

    def export_stacks(self, path: str | os.PathLike, metric: str = "self_cpu_time_total") -> None:
        """Write the lines with their microseconds, as flame graph tools take them.

        Raises:
            ValueError: an unknown metric.
        """
        if metric not in self.supported_export_stacks_metrics:
            raise ValueError(f"metric should be one of {self.supported_export_stacks_metrics}")
        lines = []
        for event in self:
            if event.stack:
                line = ";".join(text.replace(";", ",") for text in reversed(event.stack))
                lines.append(f"{line} {int(getattr(event, metric))}\n")
        _write(path, "".join(lines).encode())


_SORTABLE = ("cpu_time", "cpu_time_total", "self_cpu_time_total", "count", "cpu_memory_usage",
             "self_cpu_memory_usage", "device_time", "device_time_total",
             "self_device_time_total", "device_memory_usage", "self_device_memory_usage")


def _write(path: str | os.PathLike, data: bytes) -> None:
    with replacing(path, len(data)) as file:
        file.write(data)


def _traced(event: FunctionEvent) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if event.input_shapes:
        details["Input Dims"] = event.input_shapes
    if event.stack:
        details["Call stack"] = ";".join(event.stack)
    if event.arguments:
        details["arguments"] = event.arguments
    return {"ph": "X", "cat": "user_annotation" if event.is_user_annotation else "cpu_op",
            "name": event.name, "pid": os.getpid(), "tid": event.thread,
            "ts": event.time_range.start, "dur": event.time_range.elapsed_us(), "args": details}


# ---------------------------------------------------------------------- tables
def _columns(rows: Sequence, total: float, unit: str | None, name_width: int, shapes_width: int,
             source_width: int) -> list[list[str]]:
    """Each column with its title first."""
    columns = [
        ["Name", *[_cut(event.key, name_width) for event in rows]],
        ["Self CPU %", *[_share(event.self_cpu_time_total, total) for event in rows]],
        ["Self CPU", *[_time(event.self_cpu_time_total, unit) for event in rows]],
        ["CPU total %", *[_share(event.cpu_time_total, total) for event in rows]],
        ["CPU total", *[_time(event.cpu_time_total, unit) for event in rows]],
        ["CPU time avg", *[_time(event.cpu_time, unit) for event in rows]]]
    if any(event.cpu_memory_usage for event in rows):
        columns.append(["CPU Mem", *[_memory(event.cpu_memory_usage) for event in rows]])
        columns.append(["Self CPU Mem", *[_memory(e.self_cpu_memory_usage) for e in rows]])
    columns.append(["# of Calls", *[str(event.count) for event in rows]])
    if any(event.input_shapes for event in rows):
        columns.append(["Input Shapes", *[_cut(str(e.input_shapes), shapes_width) for e in rows]])
    if any(event.stack for event in rows):
        columns.append(["Source Location",
                        *[_cut(e.stack[0] if e.stack else "", source_width) for e in rows]])
    return columns


def _written(columns: Sequence[Sequence[str]], header: str | None) -> str:
    widths = [max(map(len, column)) for column in columns]
    rule = "  ".join("-" * width for width in widths)
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
             for row in zip(*columns, strict=True)]
    top = [header] if header else []
    return "\n".join([*top, rule, lines[0], rule, *lines[1:], rule])


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width or width <= 3 else text[:width - 3] + "..."


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.2f}%" if total else "-"


def _time(microseconds: float, unit: str | None = None) -> str:
    if unit is None:
        unit = "s" if microseconds >= 1e6 else "ms" if microseconds >= 1e3 else "us"
    return f"{microseconds / {'s': 1e6, 'ms': 1e3, 'us': 1.0}[unit]:.3f}{unit}"


def _memory(nbytes: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if abs(nbytes) >= size:
            return f"{nbytes / size:.2f} {unit}"
    return f"{nbytes} B"
