"""Every kernel family against PyTorch, side by side in one process: the table of
docs/performance.md.

    kernels.py                         all families, a sample of the shapes of each
    kernels.py gemm conv --full        these families, every shape
    kernels.py --only 3x3 --threads 1 --json out.json

A line is one case: our time, PyTorch's best time over its settings (memory formats, and so on), the
ratio of the two (below 1: we are faster), our GFLOP/s or GB/s and what part that is of this
machine's measured limit (fused multiply-adds in registers; copying memory). Sides alternate in
short windows, with pauses in which the other side's threads go to sleep; the ratio is the median
over the windows. Each case is checked before it is timed: both sides must agree.

The cases live in `kernel_cases/`, one module a family: a function `cases(full)` that yields
`Case`s.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch
from kernel_cases import FAMILIES, Case
from machine_limits import copy_bandwidth, peak_flops

import flambeau

PAUSE = 0.004  # seconds for the other side's spinning threads to go to sleep


@dataclasses.dataclass
class Result:
    """What one case gave; times in seconds per call, `spread` the quartiles of the ratio."""

    family: str
    name: str
    variant: str
    ours: float
    theirs: float
    best: str
    ratio: float
    spread: tuple[float, float]
    rate: float = 0.0
    part: float = 0.0
    error: str = ""


def window(call, seconds: float, once: float) -> float:
    """Seconds per call over a short window, after one call that wakes threads up."""
    time.sleep(PAUSE)
    call()
    count = max(1, int(seconds / max(once, 1e-7)))
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def settle(call) -> float:
    """Warm a call up; seconds per call."""
    call()
    call()
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    count = max(1, min(100, int(0.003 / max(once, 1e-7))))
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def agree(case: Case, ours, theirs) -> str:
    """An empty string, or how far apart the results are."""
    mine = [t.detach().double().numpy() for t in _tensors(ours)]
    other = [t.detach().double().numpy() for t in _tensors(theirs)]
    for a, b in zip(mine, other, strict=True):
        if a.shape != b.shape:
            return f"shapes {a.shape} and {b.shape}"
        scale = max(1e-30, float(abs(b).max())) if b.size else 1.0
        worst = float(abs(a - b).max()) / scale if b.size else 0.0
        if not worst <= case.tolerance:
            return f"results differ by {worst:.1e} of the largest"
    return ""


def _tensors(value) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (tuple, list)) else [value]


def measure(case: Case, seconds: float, rounds: int, limits: dict) -> list[Result]:
    """Time every variant of ours against the best of theirs."""
    sides = {("ours", v): case.build(flambeau, v) for v in case.variants}
    theirs = case.peer_variants or case.variants
    sides |= {("torch", v): case.build(torch, v) for v in theirs}
    reference = sides["torch", theirs[0]]()
    problems = {v: agree(case, sides["ours", v](), reference) if case.check else ""
                for v in case.variants}
    once = {key: settle(call) for key, call in sides.items()}
    times: dict = {key: [] for key in sides}
    for turn in range(rounds):
        keys = list(sides)
        for key in keys[turn % len(keys):] + keys[:turn % len(keys)]:
            times[key].append(window(sides[key], seconds, once[key]))
    best = min(theirs, key=lambda v: statistics.median(times["torch", v]))
    results = []
    for variant in case.variants:
        ratios = sorted(a / b for a, b in zip(times["ours", variant], times["torch", best],
                                              strict=True))
        ours = statistics.median(times["ours", variant])
        work, limit = (case.flops, limits["flops"]) if case.flops else (case.bytes, limits["copy"])
        results.append(Result(
            case.family, case.name, variant, ours, statistics.median(times["torch", best]), best,
            statistics.median(ratios), (ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]),
            work / ours, work / ours / limit if limit else 0.0, problems[variant]))
    return results


def line(result: Result, case: Case) -> str:
    """One line of the table."""
    unit = "GFLOP/s" if case.flops else "GB/s"
    low, high = result.spread
    name = f"{result.family}: {result.name}" + (f" [{result.variant}]" if result.variant else "")
    rate = f"{result.rate / 1e9:8.1f} {unit:7} {result.part:5.0%}" if result.rate else ""
    return (f"{name:58} {result.ours * 1e6:10.1f} us {result.theirs * 1e6:10.1f} us "
            f"{result.ratio:6.2f} [{low:.2f}-{high:.2f}] {rate} {result.error}")


def geometric_mean(values: list[float]) -> float:
    """The geometric mean; NaN of nothing."""
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else math.nan


def main() -> int:
    """Measure the families that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--full", action="store_true", help="every shape of each family")
    parser.add_argument("--only", default="", help="cases whose name contains one of these (a,b,c)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.02, help="length of one window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the results to this file, too")
    args = parser.parse_args()
    unknown = sorted(set(args.families) - set(FAMILIES))
    if unknown:
        parser.error(f"no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    for module in (torch, flambeau):
        module.set_num_threads(args.threads)
    limits = {"flops": peak_flops(args.threads), "copy": copy_bandwidth(args.threads)}
    print(f"{args.threads} threads; limits of this machine: {limits['flops'] / 1e9:.0f} GFLOP/s "
          f"float32, {limits['copy'] / 1e9:.1f} GB/s copied")
    print(f"{'case':58} {'ours':>13} {'torch':>13} {'ratio':>6} [quartiles]")
    results: list[Result] = []
    for family in args.families or FAMILIES:
        ratios, before = [], len(results)
        cases = importlib.import_module(f"kernel_cases.{family}")
        for case in cases.cases(args.full):
            if args.only and not any(word in case.name for word in args.only.split(",")):
                continue
            try:
                found = measure(case, args.seconds, args.rounds, limits)
            except (NotImplementedError, RuntimeError, AttributeError, TypeError) as error:
                print(f"{family}: {case.name}: {type(error).__name__}: {str(error)[:200]}")
                continue
            for result in found:
                print(line(result, case), flush=True)
            ratios.append(min(r.ratio for r in found))
            results += found
        print(f"{family}: geometric mean {geometric_mean(ratios):.2f}, "
              f"largest {max(ratios, default=math.nan):.2f}, {len(ratios)} cases")
        for text in cases.totals(results[before:]) if hasattr(cases, "totals") else ():
            print(text)
        print()
    if args.json:
        Path(args.json).write_text(json.dumps([dataclasses.asdict(r) for r in results], indent=1))
    return 1 if any(r.error for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
