"""What timing a statement gave: times, and how much they can be trusted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["Measurement", "TaskSpec", "select_unit", "trim_sigfig"]

_UNITS = (("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0))
_WIDE = 0.1  # of the median: a middle half as wide as this is worth a warning
_VERY_WIDE = 0.25
_ENOUGH = 4  # runs from which the middle half means something


def select_unit(t: float) -> tuple[str, float]:
    """(name, seconds) of the unit that suits a time."""
    power = max(min(math.floor(math.log10(t) / 3), 0), -3) if t > 0 else 0
    return _UNITS[power + 3]


def trim_sigfig(x: float, n: int) -> float:
    """`x` rounded to `n` significant digits."""
    if x == 0 or not math.isfinite(x):
        return x
    scale = 10 ** (math.floor(math.log10(abs(x))) + 1 - n)
    return float(round(x / scale) * scale)


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """What was timed; equal ones can be merged.

    Attributes:
        stmt, setup, global_setup: the code.
        label, sub_label, description: name of the table, of the row, of the column.
        env: where it ran; num_threads: how many threads computed.
    """

    stmt: str
    setup: str
    global_setup: str = ""
    label: str | None = None
    sub_label: str | None = None
    description: str | None = None
    env: str | None = None
    num_threads: int = 1

    @property
    def title(self) -> str:
        """What a reader calls it."""
        if self.label is not None:
            return self.label + (f": {self.sub_label}" if self.sub_label else "")
        if "\n" not in self.stmt:
            return self.stmt
        return "stmt:" + (f" ({self.sub_label})" if self.sub_label else "") + "\n" + _indented(
            self.stmt)

    def setup_str(self) -> str:
        """The setup, as it is shown."""
        if self.setup == "pass" or not self.setup:
            return ""
        if "\n" in self.setup:
            return f"setup:\n{_indented(self.setup)}"
        return f"setup: {self.setup}"

    def summarize(self) -> str:
        """All of it in a few lines."""
        return "\n".join(filter(None, [self.title, self.description or "", self.setup_str()]))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip("\n").splitlines())


@dataclasses.dataclass
class Measurement:
    """Times of a statement.

    Attributes:
        number_per_run: how often it ran in each measurement.
        raw_times: seconds of each measurement.
        task_spec: what was timed.
        metadata: whatever the user adds.
    """

    number_per_run: int
    raw_times: list[float]
    task_spec: TaskSpec
    metadata: dict[Any, Any] | None = None

    @property
    def times(self) -> list[float]:
        """Seconds of one execution, of each measurement."""
        return [time / self.number_per_run for time in self.raw_times]

    def _quantiles(self, *q: float) -> list[float]:
        if not self.raw_times:
            raise ValueError("the measurement has no times")
        return [float(each) for each in np.quantile(self.times, q)]

    @property
    def median(self) -> float:
        """Median of the seconds of one execution."""
        return self._quantiles(0.5)[0]

    @property
    def mean(self) -> float:
        """Mean of the seconds of one execution."""
        return float(np.mean(self.times))

    @property
    def iqr(self) -> float:
        """How wide the middle half of the times is."""
        low, high = self._quantiles(0.25, 0.75)
        return high - low

    @property
    def significant_figures(self) -> int:
        """Digits of the median that mean something.

        As if times were normal with the spread of the middle half, of which the median of n has
        1.2533 / sqrt(n); a digit counts if that is less than half of it.
        """
        if len(self.raw_times) < 2 or self.median <= 0:
            return 1
        deviation = max(self.iqr / 1.349, np.std(self.times) * 1e-3)
        spread = 1.645 * 1.2533 * deviation / math.sqrt(len(self.raw_times))
        if spread <= 0:
            return 5
        return max(1, min(5, math.floor(math.log10(self.median / spread)) + 1))

    @property
    def has_warnings(self) -> bool:
        """Do the times differ so much that they say little?"""
        return len(self.raw_times) >= _ENOUGH and self.iqr > _WIDE * self.median

    def meets_confidence(self, threshold: float = _WIDE) -> bool:
        """Is the middle half narrower than this share of the median?"""
        return len(self.raw_times) >= _ENOUGH and self.iqr < threshold * self.median

    # ------------------------------------------------------------------ the task
    @property
    def title(self) -> str:
        """What a reader calls it."""
        return self.task_spec.title

    @property
    def env(self) -> str:
        """Where it ran."""
        return self.task_spec.env or "Unspecified env"

    @property
    def as_row_name(self) -> str:
        """Name of its row in a table."""
        spec = self.task_spec
        return spec.sub_label or spec.stmt or "[Unknown]"

    @staticmethod
    def merge(measurements: Iterable[Measurement]) -> list[Measurement]:
        """Measurements of equal tasks together; each execution counts alike."""
        grouped: dict[TaskSpec, list[Measurement]] = {}
        for each in measurements:
            grouped.setdefault(each.task_spec, []).append(each)
        return [Measurement(1, [time for each in group for time in each.times], spec)
                for spec, group in grouped.items()]

    def __repr__(self) -> str:
        spec = self.task_spec
        unit, seconds = select_unit(self.median)
        digits = self.significant_figures
        lines = [f"{type(self).__module__}.{type(self).__name__} object", spec.summarize()]
        several = len(self.raw_times) > 1
        lines.append(f"  {'Median: ' if several else ''}{self.median / seconds:.2f} {unit}")
        if len(self.raw_times) >= _ENOUGH:
            low, high = self._quantiles(0.25, 0.75)
            lines.append(f"  IQR:    {self.iqr / seconds:.2f} {unit} ({low / seconds:.2f} to "
                         f"{high / seconds:.2f})")
        runs = f"{self.number_per_run} runs{' per measurement' if several else ''}, "
        lines.append(f"  {len(self.raw_times)} measurement{'s' if several else ''}, "
                     f"{runs if self.number_per_run > 1 else ''}{spec.num_threads} "
                     f"thread{'s' if spec.num_threads > 1 else ''}")
        if self.has_warnings:
            bad = "very " if self.iqr > _VERY_WIDE * self.median else ""
            share = 100 * self.iqr / self.median
            lines.append(f"  WARNING: the middle half is {share:.1f}% of the median, which makes "
                         f"it {bad}uncertain ({digits} digits)")
        return "\n".join(lines)
