"""Independent steps in one job: the same bits as one by one, and nothing at the wrong time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler import program
from flambeau.compiler.horizontal import batches
from flambeau.compiler.nest import Pointer
from flambeau.compiler.program import Plan, buffer_for, plan
from flambeau.compiler.step import Step
from flambeau.compiler.target import host
from flambeau.core import dtypes
from flambeau.ir.graph import Graph, tensor_input
from flambeau.ops import primitives as p
from flambeau.runtime.executable import build_program
from flambeau.runtime.launch import launch


def made(name: str, nchunks: int, slots: list | None = None, group: int = 1, after: int = 0
         ) -> Step:
    return Step(name, str, slots or [], nchunks, after, group=group)


def dense(kind: str, number: int, shape: tuple[int, ...]):
    strides = tuple(int(np.prod(shape[d + 1:])) for d in range(len(shape)))
    return buffer_for(kind, number, dtypes.float32, shape, strides)


class Problem:
    """A graph over arrays: its program is run by as many threads as wanted."""

    def __init__(self, shapes: list[tuple[int, ...]]):
        self.inputs = [tensor_input(shape, dtypes.float32) for shape in shapes]
        draw = np.random.default_rng(0)
        self.arrays = [draw.standard_normal(shape).astype(np.float32) for shape in shapes]

    def plan(self, outputs: list, threads: int, together: bool, aliases: dict | None = None
             ) -> Plan:
        inputs = [dense("in", i, v.shape) for i, v in enumerate(self.inputs)]
        results = [dense("out", i, v.shape) for i, v in enumerate(outputs)]
        return plan(Graph(self.inputs, outputs), inputs, results, host(), threads, aliases,
                    together=together)

    def run(self, outputs: list, threads: int, together: bool, aliases: dict | None = None
            ) -> tuple[Plan, list[np.ndarray]]:
        planned = self.plan(outputs, threads, together, aliases)
        native = build_program(planned, [None] * len(self.inputs), len(outputs))
        given = [array.copy() for array in self.arrays]
        results = [given[aliases[i]] if aliases and i in aliases else np.full(v.shape, np.nan, "f4")
                   for i, v in enumerate(outputs)]
        arena = np.full(planned.arena_bytes + 64, 0xA5, np.uint8)
        addresses = [array.ctypes.data for array in given + results]
        if planned.arena_bytes:
            addresses.append(arena.ctypes.data + 63 & -64)
        assert launch(native.address, *addresses) is None
        return planned, results


def pool_of(count: int):
    class Threads:
        def __enter__(self):
            self.before = torch.get_num_threads()
            torch.set_num_threads(count)

        def __exit__(self, *failure):
            torch.set_num_threads(self.before)

    return Threads()


def mixed(problem: Problem) -> list:
    """Sums of columns and of everything, products, elementwise: none reads another's result."""
    a, b, c, d = problem.inputs
    return [p.reduce_sum(a, (0,)), p.dot(a, b), p.reduce_sum(a, (0, 1)), p.mul(c, c),
            p.dot(p.transpose(b), p.transpose(a)), p.exp(d), p.reduce_sum(p.mul(c, c), (0,))]


SHAPES = [(300, 190), (190, 70), (257, 1031), (7,)]


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_bits_do_not_depend_on_company(threads):
    problem = Problem(SHAPES)
    _, alone = problem.run(mixed(problem), 1, False)
    with pool_of(threads):
        planned, found = problem.run(mixed(problem), threads, True)
    assert len(planned.batches) < len(planned.steps) and any(
        batch.last - batch.first >= 2 for batch in planned.batches)
    for one, other in zip(alone, found, strict=True):
        assert one.tobytes() == other.tobytes()


def test_what_reads_a_result_waits_for_it():
    problem = Problem([(64, 64), (64, 64)])
    a, b = problem.inputs
    first = p.dot(a, b)
    second = p.dot(first, b)
    outputs = [p.dot(second, a), p.dot(a, p.transpose(b)), p.reduce_sum(second, (0,))]
    _, alone = problem.run(outputs, 1, False)
    planned, found = problem.run(outputs, 2, True)
    for one, other in zip(alone, found, strict=True):
        assert one.tobytes() == other.tobytes()
    place = {id(step.source): at for at, step in enumerate(planned.steps)}
    for batch in planned.batches:
        assert batch.last < len(planned.steps)
    assert len(place) == len(planned.steps)
    spans = [(batch.first, batch.last) for batch in planned.batches]
    assert (0, len(planned.steps) - 1) not in spans


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_is_overwritten_is_read_before(threads):
    problem = Problem([(200, 300), (300, 64), (300,)])
    a, b, c = problem.inputs
    outputs = [p.dot(a, b), p.mul(a, p.expand(c, a.shape)), p.add(b, b), p.reduce_sum(a, (1,))]
    aliases = {1: 0, 2: 1}
    _, alone = problem.run(outputs, 1, False, aliases)
    planned, found = problem.run(outputs, threads, True, aliases)
    for one, other in zip(alone, found, strict=True):
        assert one.tobytes() == other.tobytes()
    _, plain = problem.run(outputs, 1, False)
    np.testing.assert_array_equal(found[0], plain[0])
    np.testing.assert_array_equal(found[3], plain[3])
    assert planned.steps


def test_temporaries_of_a_batch_do_not_share():
    problem = Problem([(128, 96), (96, 80)])
    a, b = problem.inputs
    outputs = []
    for factor in range(4):
        scaled = p.dot(p.mul(a, p.filled(factor + 1, a)), b)
        outputs.append(p.dot(p.transpose(scaled), scaled))
    _, alone = problem.run(outputs, 1, False)
    for threads in (1, 2, 3):
        planned, found = problem.run(outputs, threads, True)
        for one, other in zip(alone, found, strict=True):
            assert one.tobytes() == other.tobytes()
        for batch in planned.batches:
            inside = [place for place in planned.places
                      if place[4] <= batch.last and place[5] >= batch.first]
            inside.sort(key=lambda place: place[2])
            for one, following in itertools.pairwise(inside):
                assert one[2] + one[3] <= following[2]


def test_batches():
    steps = [(made("a", 4), 400), (made("b", 1), 10), (made("c", 1, group=2), 5),
             (made("d", 2, group=2), 600)]
    first, second = batches(steps, 2, 100)
    assert (first.first, first.last, first.order) == (0, 1, (0, 1))
    assert first.parts == ((0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 1))
    assert second.order == (3, 2) and second.nchunks == 3
    assert batches([(made("a", 4), 400), (made("b", 9), 90)], 2, 100)[0].nchunks == 5
    assert all(batch.nchunks == 1 for batch in batches(steps, 1, 100))
    assert batches(steps, 2, 10_000)[0].nchunks == 1


def test_what_runs_alone():
    error = made("a", 1, [Pointer("status", 0)])
    wide = made("b", 8, [Pointer("temp", 0)])
    none, later = made("c", 1, group=0), made("d", 1, after=1)
    for odd, work in ((error, 10), (wide, 1 << 24), (none, 10), (later, 10)):
        assert not batches([(odd, work), (made("e", 1), 10)], 2, 100)
    assert batches([(made("f", 8, [Pointer("in", 0)]), 1 << 24), (made("g", 1), 10)], 2, 100)


def test_a_training_step_by_any_number_of_threads():
    def losses(threads: int, compiled: bool) -> bytes:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        x, y = torch.randn(32, 40), torch.randint(0, 8, (32,))

        def step():
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = torch.compile(step, options={"exact": True}) if compiled else step
        with pool_of(threads):
            found = [run() for _ in range(6)]
        found += [parameter.detach() for parameter in net.parameters()]
        return b"".join(tensor.numpy().tobytes() for tensor in found)

    eager = losses(1, False)
    for threads in (1, 2, 3, 4):
        assert losses(threads, True) == eager


def test_calls_that_write_into_arguments_keep_their_order(monkeypatch):
    """Arguments of an eager call may overlap."""
    seen = []
    genuine = program.batches

    def watched(steps, threads, grain):
        found = genuine(steps, threads, grain)
        seen.append(found)
        return found

    monkeypatch.setattr(program, "batches", watched)
    x = torch.arange(12.0).reshape(3, 4)
    torch.frexp(x, out=(x, torch.empty(3, 4, dtype=torch.int32)))
    assert not any(seen)
