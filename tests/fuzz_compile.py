"""Compiled functions against eager ones: random programs, everything that can be seen of them.

    python tests/fuzz_compile.py 1000 [--kind values|training|sizes] [--seed 7] [--seconds 600]

A program sets a world up (tensors, numbers, objects, modules, optimizers), calls a function several
times, and changes the world in between. It runs eagerly and compiled (default, strict, sometimes
with `dynamic=True`), from the same seeds. After each call everything is compared that the program
can reach: values (bit for bit if strict), dtypes, shapes, strides, shared memory, what is the same
object as before, what the tape says, gradients, random streams, Python state, output, warnings, and
errors with their messages. A difference is shrunk to the lines that it needs; `--only SEED` shows
a program. When the cause is repaired, add a test to tests/compile/test_fuzzed.py.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import itertools
import linecache
import random
import sys
import time
import types
import warnings
import weakref
from typing import Any

import numpy as np
from fuzz_compile_programs import PRELUDE_CODE, Maker, Program, SizeMaker, TrainMaker

import flambeau as torch

SKIPPED = {"torch", "nn", "F", "np", "warnings", "_random", "dataclass", "run"}


class Observer:
    """Describes everything that a program can see."""

    def __init__(self) -> None:
        self.previous: dict[str, Any] = {}  # path -> weak reference to the tensor there

    def look(self, space: dict, failure: Any) -> dict[str, Any]:
        self.found: dict[str, Any] = {}
        self.tensors: list[tuple[str, Any]] = []
        self.seen: dict[int, str] = {}
        for name in sorted(space):
            value = space[name]
            if name in SKIPPED or name.startswith("__") or isinstance(
                    value, (types.FunctionType, type, types.ModuleType)):
                continue
            self.walk(name, value)
        self.found["error"] = failure
        self.found["rng"] = hash(tuple(torch.get_rng_state().tolist()))
        self.found["random"] = hash(random.getstate())
        self.found["grad mode"] = torch.is_grad_enabled()
        self.found["autocast"] = torch.is_autocast_enabled("cpu")
        owners: dict[int, str] = {}
        for path, t in self.tensors:
            if t.numel():
                self.found[f"shares {path}"] = owners.setdefault(storage(t), path)
        current = {path: weakref.ref(t) for path, t in self.tensors}
        for path, t in self.tensors:
            before = self.previous.get(path)
            self.found[f"same as before {path}"] = before is not None and before() is t
        self.previous = current
        return self.found

    def walk(self, path: str, value: Any, depth: int = 0) -> None:
        kind = type(value)
        if isinstance(value, torch.Tensor):
            self.tensor(path, value)
        elif kind in (int, float, bool, str, type(None), complex, bytes):
            self.found[path] = kind.__name__, repr(value)
        elif isinstance(value, np.ndarray):
            self.found[path] = "array", str(value.dtype), value.tolist()
        elif isinstance(value, np.generic):
            self.found[path] = kind.__name__, repr(value)
        elif id(value) in self.seen and kind is not tuple:
            self.found[path] = "the same as", self.seen[id(value)]
        elif depth > 8:
            return
        elif isinstance(value, (list, tuple)):
            if kind is list:
                self.seen[id(value)] = path
            self.found[path] = kind.__name__, len(value)
            for i, item in enumerate(value):
                self.walk(f"{path}[{i}]", item, depth + 1)
        elif isinstance(value, dict):
            self.seen[id(value)] = path
            names = [str(k) if isinstance(k, (str, int)) and len(str(k)) < 12 else "object"
                     for k in value]  # ids are long numbers
            self.found[path] = kind.__name__, names
            for i, (key, item) in enumerate(value.items()):
                shown = f"#{i}" if names[i] == "object" else key
                self.walk(f"{path}[{shown!r}]", item, depth + 1)
        elif isinstance(value, torch.Generator):
            self.found[path] = "generator", hash(tuple(value.get_state().tolist()))
        elif isinstance(value, torch.optim.Optimizer):
            self.seen[id(value)] = path
            self.walk(f"{path}.state", dict(value.state), depth + 1)
            self.walk(f"{path}.param_groups", value.param_groups, depth + 1)
        elif isinstance(value, torch.nn.Module):
            self.seen[id(value)] = path
            for name in ("training", "_parameters", "_buffers", "_modules"):
                self.walk(f"{path}.{name}", value.__dict__[name], depth + 1)
            for name, item in vars(value).items():
                if not name.startswith("_") and name != "training":
                    self.walk(f"{path}.{name}", item, depth + 1)
        elif "Handle" in kind.__name__:
            return
        elif hasattr(value, "__dict__") and not callable(value):
            self.seen[id(value)] = path
            for name, item in vars(value).items():
                if name not in ("optimizer",):
                    self.walk(f"{path}.{name}", item, depth + 1)

    def tensor(self, path: str, t: Any) -> None:
        if id(t) in self.seen:
            self.found[path] = "the tensor", self.seen[id(t)]
            return
        self.seen[id(t)] = path
        self.tensors.append((path, t))
        self.found[path] = (kindof(t), str(t.dtype), tuple(t.shape))
        self.found[f"stride {path}"] = order(t)
        with contextlib.suppress(RuntimeError):
            self.found[f"tape {path}"] = (t.requires_grad, t.is_leaf, t.grad_fn is None)
        self.found[f"value {path}"] = Value(t)
        with contextlib.suppress(RuntimeError):
            if t.is_leaf and t.grad is not None:
                self.tensor(f"{path}.grad", t.grad)
            elif t.is_leaf:
                self.found[f"{path}.grad"] = None
        self.found[f"class {path}"] = type(t).__name__


def kindof(t: Any) -> str:
    return "parameter" if isinstance(t, torch.nn.Parameter) else "tensor"


def storage(t: Any) -> int:
    held = t._storage
    while type(held.owner) is type(held):
        held = held.owner
    return held.ptr


def order(t: Any) -> tuple:
    if not t.numel():
        return ()
    return tuple(step for n, step in zip(t.shape, t.stride(), strict=True) if n > 1)


class Value:
    """The elements of a tensor."""

    def __init__(self, t: Any):
        with torch.no_grad():
            t = t.detach()
            self.dtype = str(t.dtype)
            if self.dtype == "torch.bfloat16":
                t = t.float()
            self.array = np.array(t.resolve_conj().numpy() if t.numel() else []).copy()

    def same(self, other: Value, exact: bool) -> bool:
        a, b = self.array, other.array
        if a.shape != b.shape or self.dtype != other.dtype:
            return False
        if a.dtype.kind not in "fc":
            return np.array_equal(a, b)
        if exact:
            if a.dtype.kind == "c":
                a, b = (np.stack([each.real, each.imag]) for each in (a, b))
            return bool(np.array_equal(a, b, equal_nan=True) and np.array_equal(
                np.signbit(a) & ~np.isnan(a), np.signbit(b) & ~np.isnan(b)))
        with np.errstate(all="ignore"):
            size = np.abs(a[np.isfinite(a)]).max(initial=0)
            tolerance = {"torch.float16": 3e-2, "torch.bfloat16": 1e-1}.get(self.dtype, 2e-3)
            return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * max(1e-2, size),
                                    equal_nan=True))

    def __repr__(self) -> str:
        return f"{self.array.ravel()[:12].tolist()}"


def execute(program: Program, wrap: str, seed: int, filename: str) -> list[dict]:
    """What could be seen after each call; `wrap` is the text of the wrapper."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    space: dict[str, Any] = {"__name__": "fuzzed", "WRAP": eval(wrap, {"torch": torch})}
    exec(PRELUDE_CODE, space)
    text = program.text()
    linecache.cache[filename] = len(text), None, text.splitlines(True), filename
    exec(compile(text, filename, "exec", dont_inherit=True), space)
    space["run"] = space["WRAP"](space["step"])
    del space["WRAP"]
    observer, seen = Observer(), []
    for before, args, after in program.calls:
        failure = None
        shown = io.StringIO()
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(shown):
            warnings.simplefilter("always")
            space["out"] = None
            for line in (*before, f"out = run({args})", *after):
                try:
                    exec(line, space)
                except Exception as error:
                    failure = (*(failure or ()), type(error).__name__, str(error), line)
                    error.__traceback__ = None
                    del error
        found = observer.look(space, failure)
        found["printed"] = shown.getvalue()
        found["warned"] = [(w.category.__name__, str(w.message)[:200]) for w in warned]
        seen.append(found)
    return seen


def differences(eager: list[dict], other: list[dict], exact: bool) -> list[str]:
    for number, (one, two) in enumerate(zip(eager, other, strict=True)):
        lines = []
        for key in dict.fromkeys((*one, *two)):
            a, b = one.get(key, "absent"), two.get(key, "absent")
            if isinstance(a, Value) and isinstance(b, Value):
                if not a.same(b, exact):
                    lines.append(f"{key}: eager {a}, compiled {b}")
            elif not exact and near(a, b):
                continue
            elif a != b and (exact or not key.startswith("stride ")):
                lines.append(f"{key}: eager {str(a)[:300]}, compiled {str(b)[:300]}")
        if lines:
            return [f"call {number + 1}", *lines]
    return []


def near(a: Any, b: Any) -> bool:
    """Are these equal numbers, but for rounding?"""
    try:
        return a[0] == b[0] == "float" and abs(float(a[1]) - float(b[1])) <= 2e-3 * max(
            1e-2, abs(float(a[1])))
    except (TypeError, ValueError, KeyError, IndexError):
        return False


WRAPS = {"default": "lambda f: torch.compile(f)",
         "exact": "lambda f: torch.compile(f, mode='strict')",
         "dynamic": "lambda f: torch.compile(f, dynamic=True, mode='strict')"}

_numbers = itertools.count()


def check(program: Program, seed: int, wraps: Any = ("exact", "default")) -> list[str]:
    """What differs, in words; empty if nothing does."""
    filename = f"<fuzzed {next(_numbers)}>"
    try:
        eager = execute(program, "lambda f: f", seed, filename)
    except Exception:
        return []  # no program
    for name in wraps:
        try:
            found = differences(eager, execute(program, WRAPS[name], seed, filename),
                                name != "default")
        except Exception as error:
            found = ["the program itself", repr(error)]
        if found:
            return [f"[{name}]", *found]
    return []


def shrink(program: Program, seed: int, wraps: Any, same: str) -> Program:
    """The program with everything left out that the difference does not need."""
    def fails(candidate: Program) -> bool:
        return check(candidate, seed, wraps)[:1] == [same]

    changed = True
    while changed:
        changed = False
        for n in range(len(program.calls) - 1, -1, -1):
            if len(program.calls) > 1:
                smaller = program._replace(calls=program.calls[:n] + program.calls[n + 1:])
                if fails(smaller):
                    program, changed = smaller, True
        for name in ("body", "setup"):
            step = max(1, len(getattr(program, name)) // 2)
            while step >= 1:
                lines = getattr(program, name)
                at = 0
                while at < len(lines):
                    smaller = program._replace(**{name: lines[:at] + lines[at + step:]})
                    if fails(smaller):
                        program, changed, lines = smaller, True, getattr(smaller, name)
                    else:
                        at += step
                step //= 2
        for n, (before, args, after) in enumerate(program.calls):
            for part in (0, 2):
                lines = (before, args, after)[part]
                for at in range(len(lines) - 1, -1, -1):
                    call = list(program.calls[n])
                    call[part] = call[part][:at] + call[part][at + 1:]
                    smaller = program._replace(calls=[*program.calls[:n], tuple(call),
                                                      *program.calls[n + 1:]])
                    if fails(smaller):
                        program, changed = smaller, True
        if program.result.startswith("(") and program.result.endswith(",)"):
            parts = program.result[1:-2].split(", ")
            for at in range(len(parts) - 1, -1, -1):
                if len(parts) > 1:
                    left = parts[:at] + parts[at + 1:]
                    smaller = program._replace(result="(" + ", ".join(left) + ",)")
                    if fails(smaller):
                        program, parts, changed = smaller, left, True
    return program


KINDS = {"values": Maker, "training": TrainMaker, "sizes": SizeMaker}


def main() -> int:
    """Run programs; the number of those that differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--kind", choices=KINDS, default="values")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--only", type=int, help="this program, shown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faulthandler.enable()
    begin, done, wrong = time.time(), 0, 0
    first = options.seed if options.only is None else options.only
    for seed in range(first, first + (options.count if options.only is None else 1)):
        if time.time() - begin > options.seconds:
            break
        program = KINDS[options.kind](seed).program()
        if options.only is not None:
            print(program.whole())
        wraps = WRAPS if options.kind == "sizes" or not seed % 4 else ("exact", "default")
        found = check(program, seed, wraps)
        done += 1
        if found:
            wrong += 1
            own = (found[0].strip("[]"),)
            small = shrink(program, seed, own, found[0])
            print(f"=== {options.kind} {seed} {found[0]}", small.whole(),
                  *check(small, seed, own)[:12], sep="\n", flush=True)
    print(f"{done} programs in {time.time() - begin:.0f} s, {wrong} differ")
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
