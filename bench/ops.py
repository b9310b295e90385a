"""Every operation on about a million elements, Flambeau beside PyTorch in one process.

    ops.py                        all operations; those slower than twice PyTorch's time
    ops.py --only 'scatter|sort'  some of them
    ops.py --families index,sort --all --backward

The calls are those of the op table's samples, made larger: every size is multiplied by one factor,
so that sizes that agree go on agreeing. What cannot be made larger so (the sizes are written in
other arguments too) is left out and named at the end. Sides alternate; a time is the best of
several short windows.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import torch
from op_cases import (
    RECORDS,
    Case,
    cases,
    family,
    function_of,
    leaves,
    private,
    short_name,
    tensors,
)

import flambeau
from flambeau.ops.samples import Arr, Sample

ELEMENTS = 1_000_000
MOST = 4  # an argument may become this many times as large as that
WINDOW = 0.004  # seconds of one window
PAUSE = 0.003  # seconds for the other side's threads to go to sleep
OVERLOADS = {"max_dim": "max", "min_dim": "min", "max_all": "max", "min_all": "min"}


@dataclasses.dataclass
class Timing:
    """Seconds per call."""

    label: str
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def enlarged(item: Any, factor: float) -> Any:
    """The arguments with every size but 0 and 1 of every array times the factor."""
    if isinstance(item, Arr):
        shape = tuple(n if n < 2 else max(2, round(n * factor)) for n in item.shape)
        return dataclasses.replace(item, shape=shape)
    if isinstance(item, (tuple, list)):
        return tuple(enlarged(part, factor) for part in item)
    return item


def factor_for(item: Sample) -> float | None:
    """What makes the largest array of a sample as large as wanted."""
    shapes = [a.shape for a in leaves([*item.args, *item.kwargs.values()]) if isinstance(a, Arr)]
    sizes = [[n for n in shape if n > 1] for shape in shapes]
    sizes = [found for found in sizes if found]
    if not sizes or any(0 in shape for shape in shapes):
        return None
    largest = max(sizes, key=np.prod)
    return (ELEMENTS / float(np.prod(largest))) ** (1 / len(largest))


def large_cases(record: Any, dtype: str) -> Iterator[Case]:
    """The record's samples, made large."""
    found = []
    for item in record.samples():
        factor = factor_for(item)
        if factor is None:
            continue
        made = Sample(tuple(enlarged(a, factor) for a in item.args),
                      {k: enlarged(a, factor) for k, a in item.kwargs.items()})
        shapes = [a.shape for a in leaves([*made.args, *made.kwargs.values()])
                  if isinstance(a, Arr)]
        if max(float(np.prod(shape)) for shape in shapes) <= MOST * ELEMENTS:
            found.append(made)
    large = type("Large", (), {"name": record.name, "samples": staticmethod(lambda: found)})
    yield from cases(large, dtype)


def theirs_of(record: Any) -> Callable | None:
    """PyTorch's function of the op."""
    name = OVERLOADS.get(record.name, short_name(record))
    for space in (*sorted(record.public, key="nn.functional".__ne__), "Tensor"):
        place: Any = torch
        for part in () if space == "torch" else space.split("."):
            place = getattr(place, part, None)
        if hasattr(place, name):
            return getattr(place, name)
    return None


def seconds(call: Callable, once: float) -> float:
    """Seconds per call over one window."""
    count = max(1, int(WINDOW / max(once, 1e-7)))
    time.sleep(PAUSE)
    call()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def timed(label: str, ours: Callable, theirs: Callable, windows: int) -> Timing:
    """The best of several windows, the sides in turn."""
    best = []
    for call in (ours, theirs):
        call()
        start = time.perf_counter()
        call()
        best.append(time.perf_counter() - start)
    for _ in range(windows):
        best = [min(old, seconds(call, old))
                for old, call in zip(best, (ours, theirs), strict=True)]
    return Timing(label, *best)


def bound(module: Any, function: Callable, case: Case, backward: bool) -> Callable:
    """A call of the function, or of its gradient, on the case's arguments as tensors."""
    args, kwargs = tensors(module, case.args), tensors(module, case.kwargs)
    def forward() -> Any:
        return function(*args, **kwargs)

    if not backward:
        return forward
    flat = [t for t in leaves([*args, *kwargs.values()]) if isinstance(t, module.Tensor)]
    inputs = [t.requires_grad_() for t, wanted in zip(flat, case.floating, strict=True) if wanted]
    place = next(i for i, r in enumerate(leaves([forward()])) if r.requires_grad)
    cotangent = module.ones_like(list(leaves([forward()]))[place])

    def both() -> Any:
        result = list(leaves([forward()]))[place]
        return module.autograd.grad(result, inputs, cotangent, allow_unused=True)

    return both


def timings(record: Any, dtype: str, windows: int, backward: bool, most: int) -> list[Timing]:
    """Those of an op's samples, `most` at most, that can be made large."""
    theirs = theirs_of(record)
    ours = function_of(record)
    found: list[Timing] = []
    for case in large_cases(record, dtype):
        if theirs is None or len(found) == most:
            break
        try:
            calls = [bound(module, function, case, backward)
                     for module, function in ((flambeau, ours), (torch, theirs))]
            for call in calls:
                call()
        except Exception:  # a sample that cannot be enlarged may fail in any way
            continue
        found.append(timed(case.label, *calls, windows))
    return found


def chosen(options: argparse.Namespace) -> list[str]:
    """The names of the ops to time."""
    wanted = options.families.split(",") if options.families else None
    return [name for name, record in sorted(RECORDS.items())
            if (not private(record) or name in OVERLOADS) and re.search(options.only, name)
            and record.kind == "compute" and (wanted is None or family(record) in wanted)]


def main() -> None:
    """Time what the command line names, and print what is slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a regular expression for names")
    parser.add_argument("--families", default="", help="modules of flambeau.ops")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2, help="how many of each op")
    parser.add_argument("--backward", action="store_true", help="with gradients")
    parser.add_argument("--limit", type=float, default=2.0, help="show what is slower than this")
    parser.add_argument("--all", action="store_true", help="show everything")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    flambeau.set_num_threads(options.threads)
    missing, count = [], 0
    for name in chosen(options):
        found = timings(RECORDS[name], options.dtype, options.windows, options.backward,
                        options.samples)
        if not found:
            missing.append(name)
        for timing in found:
            count += 1
            if options.all or timing.ratio > options.limit:
                print(f"{timing.ratio:6.2f}  ours {1e3 * timing.ours:8.3f} ms  PyTorch "
                      f"{1e3 * timing.theirs:8.3f} ms  {timing.label[:110]}", flush=True)
    print(f"{count} calls; not compared: {' '.join(missing)}")


if __name__ == "__main__":
    main()
