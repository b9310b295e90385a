"""Every operation on about a million elements, forward and backward, in several layouts, Flambeau
beside PyTorch in one process.

    ops.py                        all operations; those slower than twice PyTorch's time
    ops.py --only 'scatter|sort'  some of them
    ops.py --part 3/20            every twentieth of them, so that a run stays short
    ops.py --families index,sort --all --ways forward
    ops.py --warm                 only compile the kernels, so that a later run only measures

Calls come from the op table's samples, made larger (every size is multiplied by one factor, so
that sizes that agree go on agreeing), and from `op_calls.py`. What of the table cannot be made
larger so is named at the end. All calls of an op (both sides, all layouts) take short windows in
random order, with pauses in which the other side's threads go to sleep; a time is the best of
several windows.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import re
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

import ml_dtypes
import numpy as np
import torch
from op_calls import CALLS, Call, Operand
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
MEMORY = 10 << 30  # bytes of addresses: an enlarged sample may ask for absurd results
SLOW = 0.05  # seconds from which a call gets one window
TOO_SLOW = 0.4  # seconds from which one call says it all, and from both sides: an absurd sample
OVERLOADS = {"max_dim": "max", "min_dim": "min", "max_all": "max", "min_all": "min"}
LAYOUTS = ("contiguous", "transposed", "broadcast")
WAYS = ("forward", "backward")
DOMAINS = ("int64", "bool", "complex64")  # tried in this order where the asked dtype is refused


@dataclasses.dataclass
class Pair:
    """One call on both sides, ready to run, and the best seconds of each."""

    label: str
    calls: tuple[Callable, Callable]
    best: list[float]

    @property
    def ratio(self) -> float:
        return self.best[0] / self.best[1]


# ---------------------------------------------------------------------- calls from the op table
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


# ---------------------------------------------------------------------- calls that are written down
def drawn(operand: Operand, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """The array of an operand."""
    if operand.dtype == "int64":
        return rng.integers(int(operand.low), int(operand.high), operand.shape)
    values = rng.uniform(operand.low, operand.high, operand.shape)
    if operand.kind == "normal":
        n = operand.shape[-1]
        values = values @ values.swapaxes(-1, -2) / n + np.eye(n)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def written_case(call: Call, dtype: str) -> tuple[Case, Callable[[Any], Callable]]:
    """The operands as a case, and what makes the expression a function for a module."""
    rng = np.random.default_rng(7)
    arrays = tuple(drawn(item, dtype, rng) for item in call.operands.values())
    shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in call.operands.items())
    code = compile(f"lambda {', '.join(call.operands)}: {call.text}", "<call>", "eval")

    def function(module: Any) -> Callable:
        return eval(code, {"torch": module, "F": module.nn.functional})

    floating = [a.dtype.kind not in "ib" for a in arrays]
    return Case(f"{call.text}  {shapes}", arrays, {}, floating), function


# ---------------------------------------------------------------------- layouts
def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same elements with another order of memory (images: channels last), or one row for
    all."""
    if layout == "contiguous" or array.ndim < 2:
        return array
    if layout == "broadcast":
        return np.broadcast_to(array[:1], array.shape)
    places = (1, -1) if array.ndim > 3 else (-1, -2)
    moved = np.moveaxis(array, *places)
    return np.moveaxis(np.ascontiguousarray(moved), places[1], places[0])


def in_layout(case: Case, layout: str) -> Case | None:
    """The case with its first array of several dimensions in that layout; None without any."""
    done = False

    def visit(item: Any) -> Any:
        nonlocal done
        if isinstance(item, tuple):
            return tuple(visit(part) for part in item)
        if not isinstance(item, np.ndarray) or item.ndim < 2 or done:
            return item
        done = True
        return laid_out(item, layout)

    args = visit(case.args)
    if layout == "contiguous":
        return case
    return Case(f"{case.label} {layout}", args, case.kwargs, case.floating) if done else None


def to_tensors(module: Any, value: Any) -> Any:
    """`tensors`, but what is repeated in memory stays so."""
    if isinstance(value, tuple):
        return tuple(to_tensors(module, item) for item in value)
    if isinstance(value, np.ndarray) and value.ndim and 0 in value.strides and value.size > 1:
        return tensors(module, value[:1]).expand(value.shape)
    return tensors(module, value)


# ---------------------------------------------------------------------- running them
def bound(module: Any, function: Callable, case: Case, way: str) -> Callable:
    """A call of the function, or of its gradient, on the case's arguments as tensors."""
    args, kwargs = to_tensors(module, case.args), tensors(module, case.kwargs)

    def forward() -> Any:
        return function(*args, **kwargs)

    if way == "forward":
        return forward
    flat = [t for t in leaves([*args, *kwargs.values()]) if isinstance(t, module.Tensor)]
    inputs = [t.requires_grad_() for t, wanted in zip(flat, case.floating, strict=True) if wanted]
    results = list(leaves([forward()]))
    place = next(i for i, r in enumerate(results)
                 if isinstance(r, module.Tensor) and r.requires_grad)
    cotangent = module.ones_like(results[place])

    def both() -> Any:
        result = list(leaves([forward()]))[place]
        return module.autograd.grad(result, inputs, cotangent, allow_unused=True)

    return both


def pairs_of(case: Case, functions: tuple[Callable, Callable], options: Any) -> Iterator[Pair]:
    """The case on both sides, in every layout and way that both accept."""
    for layout in options.layouts:
        made = in_layout(case, layout)
        for way in options.ways if made else ():
            try:
                calls = [bound(module, function, made, way)
                         for module, function in zip((flambeau, torch), functions, strict=True)]
                spent = [once(call) for call in calls]
            except Exception:  # what cannot be enlarged, or has no gradient, may fail in any way
                continue
            if min(spent) < TOO_SLOW:
                label = made.label if way == "forward" else f"{made.label} backward"
                yield Pair(label, tuple(calls), spent)


def once(call: Callable) -> float:
    """Seconds of one call, after one that may compile."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def seconds(call: Callable, expected: float) -> float:
    """Seconds per call over one window."""
    count = max(1, int(WINDOW / max(expected, 1e-7)))
    time.sleep(PAUSE)
    call()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def measure(pairs: list[Pair], windows: int) -> None:
    """The best of several windows of every call of every pair, in random order."""
    order = random.Random(len(pairs))
    for window in range(windows):
        jobs = [(pair, side) for pair in pairs for side in (0, 1)
                if max(pair.best) < (SLOW if window else TOO_SLOW)]
        order.shuffle(jobs)
        for pair, side in jobs:
            pair.best[side] = min(pair.best[side], seconds(pair.calls[side], pair.best[side]))


def table_pairs(name: str, options: Any) -> list[Pair]:
    """Those of an op's samples, some at most, that can be made large."""
    record = RECORDS[name]
    theirs, ours = theirs_of(record), function_of(record)
    for dtype in (options.dtype, *DOMAINS):
        found, used = [], 0
        for case in large_cases(record, dtype):
            if theirs is None or used == options.samples:
                break
            pairs = list(pairs_of(case, (ours, theirs), options))
            used += bool(pairs)
            found += pairs
        if found:
            return found
    return []


def written_pairs(call: Call, options: Any) -> list[Pair]:
    """One entry of `op_calls.py`."""
    case, function = written_case(call, options.dtype)
    return list(pairs_of(case, (function(flambeau), function(torch)), options))


def jobs(options: Any) -> Iterator[tuple[str, Callable[[], list[Pair]]]]:
    """What the command line names: (name, what makes its pairs)."""
    wanted = options.families.split(",") if options.families else None
    for name, record in sorted(RECORDS.items()):
        if (not private(record) or name in OVERLOADS) and record.kind == "compute" \
                and re.search(options.only, name) and (not wanted or family(record) in wanted):
            yield name, lambda name=name: table_pairs(name, options)
    for room, calls in CALLS.items():
        for call in calls:
            if re.search(options.only, f"{room}: {call.text}") \
                    and (not wanted or room in wanted):
                yield call.text, lambda call=call: written_pairs(call, options)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a regular expression for names; the written "
                        "calls are called 'room: expression'")
    parser.add_argument("--families", default="", help="modules of flambeau.ops, rooms of op_calls")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2, help="how many of each op")
    parser.add_argument("--ways", default=",".join(WAYS), type=lambda text: text.split(","))
    parser.add_argument("--layouts", default=",".join(LAYOUTS),
                        type=lambda text: text.split(","))
    parser.add_argument("--limit", type=float, default=2.0, help="show what is slower than this")
    parser.add_argument("--all", action="store_true", help="show everything")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--part", default="1/1", help="3/20: the third of twenty parts")
    parser.add_argument("--warm", action="store_true", help="run every call once, measure nothing")
    return parser.parse_args()


def main() -> None:
    """Time what the command line names, and print what is slow."""
    options = parsed()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(options.threads)
    flambeau.set_num_threads(options.threads)
    missing, count = [], 0
    start = time.perf_counter()
    part, parts = map(int, options.part.split("/"))
    for name, make in list(jobs(options))[part - 1::parts]:
        if time.perf_counter() - start > options.seconds:
            print(f"time is up before: {name}")
            break
        pairs = make()
        count += len(pairs)
        if not pairs:
            missing.append(name)
        if options.warm:
            continue
        measure(pairs, options.windows)
        for pair in pairs:
            if options.all or pair.ratio > options.limit:
                print(f"{pair.ratio:6.2f}  ours {1e3 * pair.best[0]:8.3f} ms  PyTorch "
                      f"{1e3 * pair.best[1]:8.3f} ms  {pair.label[:120]}", flush=True)
    print(f"{count} calls; not compared: {' '.join(missing)}")


if __name__ == "__main__":
    main()
