"""Plans on disk: restored programs are the same programs, and nothing stale or partial is used."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

import flambeau as torch
import flambeau.nn as nn
from flambeau.compiler import program
from flambeau.ir.graph import Graph, constant, tensor_input
from flambeau.ops.primitives.elementwise import mul
from flambeau.runtime import object_cache, plan_cache


@pytest.fixture
def planning(tmp_path, monkeypatch):
    """A cache of its own; the calls of the planner."""
    monkeypatch.setattr(object_cache, "_default", object_cache.ObjectCache(tmp_path / "cache"))
    monkeypatch.setattr(plan_cache, "usable", lambda: True)
    calls = []
    plan = program.plan

    def planner(*args, **more):
        calls.append(args)
        return plan(*args, **more)

    monkeypatch.setattr(program, "plan", planner)
    return calls


def training():
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                          nn.Dropout(0.2), nn.Linear(8 * 36, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, y = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0])

    @torch.compile
    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(4)]
    return losses, [p.detach().clone() for p in model.parameters()], torch.get_rng_state(), step


def test_a_restored_step_is_the_same_step(planning):
    training()  # from now on each operation's gradient is known, and written down alike
    first = training()
    planned = len(planning)
    assert planned >= 2
    second = training()
    assert len(planning) == planned
    assert first[0] == second[0]
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))
    assert torch.equal(first[2], second[2])


def test_explain_of_a_restored_program(planning):
    told = [training()[3].explain(times=False) for _ in range(2)]
    assert told[0] == told[1]
    assert "conv" in told[0]
    assert training()[3].explain(times=True)


def test_gradients_later_and_parts(planning):
    def function(x, w):
        y = (x @ w).relu()
        if y.sum().item() > 0:  # Python looks at it: the function runs in parts
            y = y * 2
        return y.sum()

    def run(body):
        compiled = torch.compile(body)
        torch.manual_seed(1)
        x, w = torch.randn(4, 5), torch.randn(5, 6, requires_grad=True)
        for _ in range(3):
            w.grad = None
            compiled(x, w).backward()
        return w.grad

    for body in (function, lambda x, w: (x @ w).tanh().sum()):
        run(body)
        first = run(body)
        planned = len(planning)
        assert torch.equal(run(body), first)
        assert len(planning) == planned


def test_what_another_process_cannot_find_is_not_stored(planning):
    def spectrum(x):
        return torch.fft.fft(x).abs()

    def solved(x):
        return torch.linalg.eigvalsh(x @ x.T)

    for body in (spectrum, solved):
        before = len(planning)
        for _ in range(2):
            torch.compile(body)(torch.randn(40, 40))
        assert len(planning) == before + 2


def test_a_plan_whose_kernel_has_gone_is_made_anew(planning, monkeypatch):
    monkeypatch.setattr(plan_cache.loader, "load_stored", lambda modules: False)
    first = training()
    planned = len(planning)
    assert training()[0] == first[0]
    assert len(planning) == 2 * planned


def test_a_damaged_plan_is_made_anew(planning):
    first = training()
    planned = len(planning)
    cache = object_cache.default_cache()
    plans = list(cache.folder.glob("*/*.plan"))
    assert plans
    for path in plans:
        path.write_bytes(path.read_bytes()[:-1])
    assert training()[0] == first[0]
    assert len(planning) == 2 * planned


def key_of(**changes):
    x = tensor_input((4,), torch.float32)
    value = mul(x, constant(changes.get("number", 1)))
    value.attrs = changes.get("attrs", ())
    face = program.buffer_for("in", 0, x.dtype, x.shape, (1,))
    out = program.buffer_for("out", 0, value.dtype, x.shape, changes.get("strides", (1,)))
    return plan_cache._key(Graph([x], [value]), [face], [out], "target",
                           changes.get("threads", 2), changes.get("aliases"), ())


@dataclasses.dataclass(frozen=True)
class Form:
    size: int


@dataclasses.dataclass(frozen=True)
class Other:
    size: int


def test_keys_tell_apart_what_plans_depend_on(planning):
    attrs = [(), (1,), (1.0,), (True,), (0.0,), (-0.0,), ("1",), ((1,),), ([1],), (None,),
             (Form(1),), (Other(1),), (Form(2),), (torch.float32,), ("float32",)]
    keys = [key_of(attrs=each)[0] for each in attrs]
    keys += [key_of(threads=3)[0], key_of(strides=(2,))[0], key_of(aliases={0: 0})[0],
             key_of(number=2)[0], key_of(number=1.0)[0]]
    assert len(set(keys)) == len(keys)
    assert key_of() == key_of()
    assert key_of(attrs=(object(),)) is None


def test_keys_follow_the_code(planning, monkeypatch):
    before = key_of()
    monkeypatch.setattr(plan_cache, "_code", lambda: "another")
    assert key_of()[0] != before[0]


PROCESS = """
import flambeau as torch
from flambeau.compiler import program
plan, calls = program.plan, []
program.plan = lambda *args, **more: calls.append(args) or plan(*args, **more)
@torch.compile
def f(x):
    return torch.nn.functional.dropout((x @ x).softmax(-1)).sum(0)
torch.manual_seed(3)
print(len(calls), f(torch.ones(8, 8)).tolist())
print(len(calls))
"""


def test_another_process_restores(tmp_path):
    environment = {**os.environ, "FLAMBEAU_CACHE_DIR": str(tmp_path)}
    told = [subprocess.run([sys.executable, "-c", PROCESS], env=environment, check=True,
                           capture_output=True, text=True).stdout.splitlines() for _ in range(2)]
    assert told[0][0] == told[1][0]
    assert int(told[1][1]) < int(told[0][1])
