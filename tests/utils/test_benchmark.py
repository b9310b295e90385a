"""benchmark: what is measured is counted and summed up right. Times themselves are not asserted."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau.utils.benchmark import (
    Compare,
    Measurement,
    TaskSpec,
    Timer,
    select_unit,
    trim_sigfig,
)


def test_a_statement_runs_as_often_as_said_and_sees_its_names():
    runs, threads = [], []
    timer = Timer("f()", "threads.append(torch.get_num_threads())", num_threads=1,
                  globals={"f": lambda: runs.append(1), "threads": threads})
    before = torch.get_num_threads()
    made = timer.timeit(200)
    assert made.number_per_run == 200
    assert len(made.raw_times) == 1
    assert len(runs) == 202  # two to warm up
    assert set(threads) == {1}
    assert torch.get_num_threads() == before


def test_ranges_measure_blocks_for_long_enough():
    told = []
    made = Timer("x.sin()", "x = torch.ones(10)").blocked_autorange(
        lambda *each: told.append(each), min_run_time=0.02)
    assert sum(made.raw_times) >= 0.02
    assert told == [(made.number_per_run, time) for time in made.raw_times]
    made = Timer("x.sin()", "x = torch.ones(10)").adaptive_autorange(max_run_time=0.05)
    assert made.raw_times


def test_a_statement_that_fails_says_so_and_threads_are_restored():
    before = torch.get_num_threads()
    with pytest.raises(NameError):
        Timer("nothing_of_this_name", num_threads=1).timeit(1)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="str"):
        Timer(lambda: 1)
    with pytest.raises(NotImplementedError, match="Python"):
        Timer("1", language="c++")
    with pytest.raises(NotImplementedError, match="blocked_autorange"):
        Timer("1").collect_callgrind()


def measured(times, number=10, **task):
    return Measurement(number, times, TaskSpec("x", "pass", **task))


def test_statistics():
    made = measured([1.0, 2.0, 3.0, 4.0, 5.0])
    assert made.times == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert made.median == pytest.approx(0.3)
    assert made.mean == pytest.approx(0.3)
    assert made.iqr == pytest.approx(0.2)
    assert made.has_warnings
    assert not made.meets_confidence()
    assert made.significant_figures == 1
    steady = measured([1.0, 1.0001, 0.9999, 1.0, 1.0])
    assert steady.meets_confidence()
    assert steady.significant_figures >= 4
    assert "WARNING" in repr(made)
    assert "WARNING" not in repr(steady)
    one, two = Measurement.merge([made, steady, measured([1.0], label="other")])
    assert len(one.raw_times) == 10
    assert two.title == "other"
    with pytest.raises(ValueError, match="no times"):
        _ = measured([]).median


def test_units_and_digits():
    assert [select_unit(t)[0] for t in (3e-10, 3e-9, 2e-6, 5e-3, 7.0, 5000.0)] == [
        "ns", "ns", "us", "ms", "s", "s"]
    assert trim_sigfig(123456.789, 3) == 123000
    assert trim_sigfig(0.0012345, 2) == pytest.approx(0.0012)
    assert trim_sigfig(0.0, 2) == 0


def test_tables():
    results = [measured([1e-5] * 4, label="add", sub_label=size, description=how,
                        num_threads=threads)
               for size in ("small", "large") for how in ("eager", "compiled")
               for threads in (1, 2) if (size, how) != ("large", "compiled")]
    results.append(measured([4e-5] * 4, label="add", sub_label="large", description="compiled"))
    compare = Compare(results)
    text = str(compare)
    lines = text.splitlines()
    assert lines[0].startswith("[-")
    assert " add " in lines[0]
    assert [line.split(":")[0] for line in lines if "thread" in line] == ["1 thread", "2 threads"]
    assert sum("small" in line for line in lines) == 2
    assert "microseconds" in text
    assert len({len(line) for line in lines[:7]}) == 1
    compare.colorize()
    compare.trim_significant_figures()
    compare.highlight_warnings()
    assert "\033[92m" in str(compare)
    assert "\033[31m" in str(compare)
    with pytest.raises(ValueError, match="Measurement"):
        compare.extend_results([1])
