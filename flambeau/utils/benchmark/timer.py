"""`Timer`: runs a statement until its time is known."""

from __future__ import annotations

import contextlib
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import flambeau
from flambeau.utils.benchmark.measurement import Measurement, TaskSpec

__all__ = ["Timer"]

_OVERHEAD = 1e-3  # of a block: what reading the clock may be


class Timer:
    """Times a statement of Python, which sees `flambeau` as `torch`.

        Timer("x @ y", globals={"x": x, "y": y}).blocked_autorange()

    Differs from `timeit.Timer` in that it warms up, sets the number of threads (1 unless told
    otherwise), repeats, and gives a `Measurement`.

    Args:
        stmt, setup: code; the setup runs once before each measurement.
        global_setup: only for C++, which is not there.
        timer: gives seconds.
        globals: names that the code sees.
        label, sub_label, description: name of the table, of the row, of the column (`Compare`).
        env: where it runs, for tables of several environments.
        num_threads: threads that compute.
        language: "python".

    Raises:
        NotImplementedError: another language.
    """

    def __init__(self, stmt: str = "pass", setup: str = "pass", global_setup: str = "",
                 timer: Callable[[], float] = timeit.default_timer,
                 globals: dict[str, Any] | None = None, label: str | None = None,
                 sub_label: str | None = None, description: str | None = None,
                 env: str | None = None, num_threads: int = 1, language: Any = "python") -> None:
        if not isinstance(stmt, str):
            raise ValueError("Currently only a `str` stmt is supported.")
        if str(language).lower() not in ("python", "language.python", "py"):
            raise NotImplementedError(f"Timer(language={language!r}): only Python is timed here")
        if global_setup:
            raise ValueError("global_setup is C++ only, most likely you wanted to specify "
                             f"`setup` instead: {global_setup}")
        names = {"torch": flambeau, **(globals or {})}
        self._globals = names
        self._task_spec = TaskSpec(stmt, setup, "", label, sub_label, description, env,
                                   num_threads)
        self._timer = timeit.Timer(stmt, setup, timer, names)

    @contextlib.contextmanager
    def _ready(self, warm_up: int = 2) -> Iterator[None]:
        """The wanted number of threads for a block, in which the statement has run before: with
        another number of threads, kernels are planned anew."""
        before = flambeau.get_num_threads()
        flambeau.set_num_threads(self._task_spec.num_threads)
        try:
            self._timer.timeit(warm_up)
            yield
        finally:
            flambeau.set_num_threads(before)

    def timeit(self, number: int = 1000000) -> Measurement:
        """One measurement of `number` executions, after a warm-up."""
        with self._ready(max(number // 100, 2)):
            return Measurement(number, [self._timer.timeit(number)], self._task_spec)

    def repeat(self, repeat: int = -1, number: int = -1) -> None:
        """Not there; `timeit.Timer.repeat`'s place is taken by the others."""
        raise NotImplementedError("See `Timer.blocked_autorange.`")

    def autorange(self, callback: Callable | None = None) -> None:
        """Not there; `timeit.Timer.autorange`'s place is taken by the others."""
        raise NotImplementedError("See `Timer.blocked_autorange.`")

    def _block_size(self, min_run_time: float) -> int:
        """Executions of one measurement, for which reading the clock does not matter."""
        clock = min(self._clock() for _ in range(5))
        number = 1
        while True:
            seconds = self._timer.timeit(number)
            if clock / max(seconds, 1e-12) <= _OVERHEAD and seconds >= min_run_time / 1000:
                return number
            if seconds > min_run_time or number > 1 << 40:
                return number
            number *= 10

    def _clock(self) -> float:
        """Seconds of a measurement of nothing."""
        return timeit.Timer("pass", timer=self._timer.timer).timeit(0)

    def blocked_autorange(self, callback: Callable[[int, float], Any] | None = None,
                          min_run_time: float = 0.2) -> Measurement:
        """Measurements of as many executions as the clock needs, for at least `min_run_time`
        seconds in all; `callback` is told (executions, seconds) of each."""
        with self._ready():
            number = self._block_size(min_run_time)
            times: list[float] = []
            while sum(times) < min_run_time:
                times.append(self._timer.timeit(number))
                if callback is not None:
                    callback(number, times[-1])
        return Measurement(number, times, self._task_spec)

    def adaptive_autorange(self, threshold: float = 0.1, *, min_run_time: float = 0.01,
                           max_run_time: float = 10.0,
                           callback: Callable[[int, float], Any] | None = None) -> Measurement:
        """Measurements until the middle half of the times is narrower than `threshold` of their
        median, for at most `max_run_time` seconds."""
        with self._ready():
            number = self._block_size(0.05)
            times: list[float] = []
            while sum(times) < max_run_time:
                times.append(self._timer.timeit(number))
                if callback is not None:
                    callback(number, times[-1])
                made = Measurement(number, times, self._task_spec)
                if sum(times) > min_run_time and made.meets_confidence(threshold):
                    break
        return Measurement(number, times, self._task_spec)

    def collect_callgrind(self, number: int = 100, *, repeats: int | None = None,
                          collect_baseline: bool = True, retain_out_file: bool = False) -> Any:
        """Not there.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("collect_callgrind is not implemented: Valgrind cannot count "
                                  "code that is generated while it runs; use blocked_autorange")
