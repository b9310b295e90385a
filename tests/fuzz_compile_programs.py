"""Random programs for `fuzz_compile.py`: statements over tensors and Python values, training steps,
and functions of sizes that vary."""

from __future__ import annotations

import contextlib
import io
import random
import sys
import types
import warnings
from typing import Any, NamedTuple

from fuzz_compile_templates import (
    AFTER,
    ARGUMENTS,
    BETWEEN,
    BLOCKS,
    ERRORS,
    LOOKS,
    MODELS,
    MODES,
    OPTIMIZERS,
    PARAMS,
    PYTHON,
    RANDOM,
    SCHEDULERS,
    SIZED,
    SIZED_WORLD,
    TAPE,
    TRAIN_AFTER,
    TRAIN_BETWEEN,
    TRAIN_WORLD,
    WORLD,
)
from fuzz_programs import Gen, kind_of

import flambeau as torch

PRELUDE = '''
import random as _random
import warnings
import numpy as np
import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F
from dataclasses import dataclass

notes = []

def note(grad):
    notes.append(round(float(grad.sum()), 3))

def double_grad(grad):
    return grad * 2

def total(x):
    return (x * x).sum()

class Config:
    scale = 1.5
    def __init__(self):
        self.flag, self.loops, self.steps, self.rate, self.last = True, 2, 0, 0.25, None

class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        x, = ctx.saved_tensors
        return grad * 2 + x

@dataclass
class Pair:
    first: torch.Tensor
    second: float = 1.0

class Net(nn.Module):
    def __init__(self, norm=True, drop=0.25):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 5), nn.Linear(5, 4)])
        self.norm = nn.BatchNorm1d(5) if norm else nn.LayerNorm(5)
        self.drop = nn.Dropout(drop)
        self.calls, self.gain = 0, 1.0
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.calls += 1
        h = torch.relu(self.norm(self.layers[0](x)))
        y = self.layers[1](self.drop(h)) * self.gain
        with torch.no_grad():
            self.seen += x.detach().sum(0)
        return y
'''


PRELUDE_CODE = compile(PRELUDE, "<prelude>", "exec", dont_inherit=True)
sys.modules["fuzzed"] = types.ModuleType("fuzzed")  # where data classes look for their module


class Program(NamedTuple):
    """A program in parts; each line (which may hold newlines) can be left out by itself.

    Attributes:
        setup: run once; `params`: of the function; `body`, `result`: its text.
        calls: (statements before, arguments, statements after).
    """

    setup: list[str]
    params: str
    body: list[str]
    result: str
    calls: list[tuple[list[str], str, list[str]]]

    def text(self) -> str:
        lines = [*self.setup, f"def step({self.params}):",
                 "    global alpha, beta, g1, cache, model, gain"]
        lines += ["    " + line.replace("\n", "\n    ") for line in self.body]
        return "\n".join([*lines, f"    return {self.result}", ""])

    def whole(self) -> str:
        """As a script."""
        lines = [self.text(), "run = torch.compile(step)"]
        for before, args, after in self.calls:
            lines += [*before, f"out = run({args})", *after]
        return "\n".join(lines)


TEMPLATES = {"python": PYTHON, "random": RANDOM, "looks": LOOKS, "errors": ERRORS, "tape": TAPE,
             "arguments": ARGUMENTS}


class Maker(Gen):
    """Makes programs around random statements over tensors."""

    def __init__(self, seed: int):
        super().__init__(seed, compiled=random.Random(seed).random() < 0.75)
        r = self.rng
        kinds = ["python", "random", "looks", "errors", "tape", "arguments"]
        self.weights = {kind: r.choice([0, 0, 1, 3]) for kind in kinds}
        if r.random() < 0.6:
            self.weights["looks"] = 0
        if r.random() < 0.6:
            self.weights["errors"] = 0
        self.weights["tensors"] = r.choice([2, 4, 8])
        self.weights["modes"] = r.choice([0, 0, 1])

    def program(self) -> Program:
        r = self.rng
        self.space: dict[str, Any] = {"__name__": "fuzzed", "WRAP": lambda f: f}
        exec(PRELUDE_CODE, self.space)
        setup = list(WORLD)
        for line in setup:
            exec(line, self.space)
        pool = []
        for n in range(r.randint(2, 4)):
            pool.append(f"a{n}")
            setup.append(self.made(f"a{n}"))
            exec(setup[-1], self.space)
        count = r.randint(1, 3)
        names = [self.new() for _ in range(count)]
        params = ", ".join([*names, "lst=()", "d=None", "k=2", "a=None", "name='x'"])
        calls = [self.call(pool, count) for _ in range(r.randint(4, 7))]
        if r.random() < 0.7:  # mostly alike
            first = calls[0][1]
            calls = [(before, first if r.random() < 0.75 else args, after)
                     for before, args, after in calls]
        body = self.body(names, calls[0][1], params)
        own = [n for n in self.order if n not in names]
        shown = own[-r.randint(1, 4):] if own else names
        if r.random() < 0.3:
            shown = [*shown, r.choice(names)]
        return Program(setup, params, body, "(" + ", ".join(shown) + ",)", calls)

    def made(self, name: str) -> str:
        r = self.rng
        shape = r.choice([(2, 3), (2, 3), (3,), (3, 2), (4, 3), (1, 3), (2, 2, 3), (), (0, 3)])
        dtype = r.choice(["float32"] * 6 + ["float64", "int64", "bfloat16", "bool", "complex64"])
        grad = dtype in ("float32", "float64") and r.random() < 0.4
        n = 1
        for size in shape:
            n *= size
        text = f"(torch.arange({n}, dtype=torch.float32) * 0.37 - 0.8).reshape({shape})"
        text += "" if dtype == "float32" else f".to(torch.{dtype})"
        if len(shape) > 1:
            text += r.choice([""] * 5 + [".t().contiguous().t()" if len(shape) == 2 else "",
                                         "[:, ::2]", ".flip(0)", "[..., 1:]"])
        if len(shape) == 1 and r.random() < 0.1:
            text += ".expand(2, 3)"
        return f"{name} = {text}" + ("\n" + f"{name} = {name}.detach().requires_grad_()" if grad
                                     else "")

    def call(self, pool: list, count: int) -> tuple[list, str, list]:
        r = self.rng
        args = []
        for _ in range(count):
            name = r.choice(pool)
            args.append(r.choice(["{}"] * 8 + ["{}.clone()", "{}.detach()", "{}[...]", "{}[:1]",
                                               "{}.detach().clone().requires_grad_()", "g1", "w1",
                                               "base[1]", "part", "{}.t()", "{}.double()",
                                               "{}.unsqueeze(0)", "{} * 1"]).format(name))
        given = []
        if r.random() < 0.4:
            given.append(f"lst=[{', '.join(r.choice(pool) for _ in range(r.randint(1, 3)))}]")
        if r.random() < 0.3:
            given.append("d={'k': " + r.choice(pool) + "}")
        if r.random() < 0.4:
            given.append(f"k={r.choice(['1', '2', '3', '0', '2.5', '0.5', 'True', '-1'])}")
        if r.random() < 0.2:
            given.append(r.choice(["a=arr", "a=np.ones(3)"]))
        if r.random() < 0.2:
            given.append(r.choice(["name='x'", "name='y'", "name=None"]))
        r.shuffle(given)
        before = [r.choice(BETWEEN) for _ in range(r.choice([0, 0, 0, 1, 2]))]
        after = [r.choice(AFTER) for _ in range(r.choice([0, 0, 1, 1, 2]))]
        return before, ", ".join([*args, *given]), after

    # -- the body
    def body(self, names: list, args: str, params: str) -> list[str]:
        space, r = self.space, self.rng
        self.order: list[str] = []
        try:
            exec(f"def step({params}): return locals()\ngiven = step({args})", space)
        except Exception:
            space["given"] = {n: torch.ones(2, 3) for n in names} | {
                "lst": [torch.ones(3)], "d": None, "k": 2, "a": None, "name": "x"}
        space |= space["given"]
        self.env = {n: space[n] for n in names}
        lines = []
        for _ in range(r.randint(3, 10)):
            text = self.line()
            if text is None:
                continue
            before = dict(space)
            try:
                with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                    warnings.simplefilter("ignore")
                    exec(text.replace("return", "pass;"), space)
            except Exception:
                if r.random() < 0.85:
                    continue
            lines.append(text)
            if text.startswith(("if ", "def ")):
                for name in list(space):
                    if name not in before and name[0] == "t" and name[1:].isdigit():
                        del space[name]
            fresh = [n for n, v in space.items() if n[0] == "t" and n[1:].isdigit()]
            self.order = [*[n for n in self.order if n in fresh],
                          *[n for n in fresh if n not in self.order]]
            self.env = {n: space[n] for n in fresh if isinstance(space[n], torch.Tensor)
                        and space[n].numel() < 300 and space[n].layout == torch.strided}
            if not self.env:
                space["t1"] = torch.ones(2)
                self.env = {"t1": space["t1"]}
        return lines

    def line(self) -> str | None:
        r = self.rng
        kind, = r.choices(list(self.weights), self.weights.values())
        with contextlib.suppress(Exception):
            if kind == "tensors":
                return self.statement()
            if kind == "modes":
                inner = self.line()
                if inner is None or "return" in inner:
                    return None
                return r.choice(MODES).format(body=inner.replace("\n", "\n    "))
            text = r.choice(TEMPLATES[kind])
            x = self.pick()
            f = self.pick(lambda t: kind_of(t.dtype) == "f") or "g2"
            grown = self.pick(lambda t: t.requires_grad) or "w1"
            for mark, name in (("{x}", x), ("{f}", f), ("{r}", grown)):
                text = text.replace(mark, str(name))
            return text.replace("{n}", self.new()) if "{n}" in text else text
        return None


class TrainMaker:
    """Training steps."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)

    def program(self) -> Program:
        r = self.rng
        setup = ["import copy", f"model = {r.choice(MODELS)}"]
        params = r.choice([*PARAMS, "list(model.parameters())", "list(model.parameters())"])
        setup.append(f"opt = torch.optim.{r.choice(OPTIMIZERS).replace('{p}', params)}")
        setup.append(f"sched = torch.optim.lr_scheduler.{r.choice(SCHEDULERS)}")
        kinds = list(BLOCKS)
        if r.random() < 0.15:
            r.shuffle(kinds)
        body = [r.choice(BLOCKS[kind]) for kind in kinds]
        result = r.choice(["loss", "loss.detach()", "None", "(loss, model(x))", "loss.item()",
                           "{'loss': loss}", "model(x)", "[loss, len(history)]"])
        calls = []
        for _ in range(r.randint(4, 7)):
            before = [r.choice(TRAIN_BETWEEN) for _ in range(r.choice([0, 0, 0, 1, 1, 2]))]
            after = [r.choice(TRAIN_AFTER)] if r.random() < 0.2 else []
            calls.append((before, "x, y", after))
        body = [text for text in body if text != "pass"]
        return Program(setup + TRAIN_WORLD, "x, y", body, result, calls)


class SizeMaker:
    """Functions of sizes that change from call to call."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)

    def program(self) -> Program:
        r = self.rng
        setup = SIZED_WORLD + (["bn.eval()"] if r.random() < 0.3 else [])
        names, body = self.body(setup)
        shown = [name for name in names if name[0] == "v"][-3:] or ["x"]
        wanted = r.choice(["", "", ".requires_grad_()"])
        columns = r.choice([4, 4, 4, None])
        calls = []
        for _ in range(r.randint(4, 8)):
            n = r.choice([2, 3, 4, 5, 6, 7, 9, 12, 1, 0, 17])
            shape = n, columns or r.choice([4, 4, 4, 2, 8, 5])
            count = shape[0] * shape[1]
            before = [f"x = torch.linspace(-1, 2, {count}).reshape{shape}{wanted}",
                      f"y = torch.linspace(1, -2, {count}).reshape{shape}"]
            if r.random() < 0.1:
                before.append("x = x.detach().t().contiguous().t()")
            if r.random() < 0.1:
                before.append("y = y[:1]")
            calls.append((before, "x, y", AFTER[2:3] if r.random() < 0.5 else []))
        return Program(setup, "x, y", body, "(" + ", ".join(shown) + ",)", calls)

    def body(self, setup: list[str]) -> tuple[list[str], list[str]]:
        """(the variables, the statements)."""
        r = self.rng
        space: dict[str, Any] = {"__name__": "fuzzed", "WRAP": lambda f: f}
        exec(PRELUDE_CODE, space)
        for line in setup:
            exec(line, space)
        space["x"], space["y"] = torch.rand(6, 4), torch.rand(6, 4) - 0.5
        names, body = ["x", "y"], []
        for number in range(r.randint(2, 9)):
            known = [n for n in names if isinstance(space[n], torch.Tensor)]
            flat = [n for n in known if space[n].ndim == 2]
            x = r.choice(flat or known) if r.random() < 0.8 else r.choice(known)
            y = r.choice([n for n in known if space[n].shape == space[x].shape])
            text = r.choice(SIZED).replace("{x}", x).replace("{y}", y)
            text = text.replace("{n}", f"v{number}")
            try:
                exec(text, space)
            except Exception:
                if r.random() < 0.9:
                    continue
            body.append(text)
            if f"v{number}" in space:
                names.append(f"v{number}")
        return names, body
