"""launch: conversions, patches, steps, errors; the native function and its Python twin alike."""

from __future__ import annotations

import ctypes
import math
import random
import struct
import sys
import threading
import time

import kernels
import pytest

from flambeau.runtime import launch, native, pool
from flambeau.runtime.launch import FLOAT, INTEGER, STATUS, Program


def run_natively(program: Program, *args):
    return launch.launcher()(program.address, *args)


def run_in_python(program: Program, *args):
    return program.run(*args)


both = pytest.mark.parametrize("run", [run_natively, run_in_python])


def writer(kind: int = INTEGER, offset: int = 0, release_gil: bool = False):
    """A program of one argument that writes it to `out`."""
    out = kernels.longs(1)
    program = Program.build([(kernels.kernel("write"), 2, 1)], [(3, 0, offset)], [kind],
                            [0, 0, ctypes.addressof(out), 0], release_gil)
    return program, out


@both
@pytest.mark.parametrize("release_gil", [False, True])
@pytest.mark.parametrize("value", [0, 1, -1, 255, 2**31, -2**31, 2**62, 2**63 - 1, -2**63,
                                   2**63, 2**64 - 1, 2**64 + 5, -2**64 - 5, True, 140737488355327])
def test_integers_are_taken_modulo_2_64(run, value, release_gil):
    program, out = writer(release_gil=release_gil)
    assert run(program, value) is None
    assert out[0] & (2**64 - 1) == value & (2**64 - 1)


@both
@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -1.0, math.inf, -math.inf, math.nan, 5e-324,
                                   3, -1, True, 2**70])
def test_floats_are_stored_as_their_bits(run, value):
    program, out = writer(FLOAT)
    assert run(program, value) is None
    assert struct.pack("<q", out[0]) == struct.pack("<d", float(value))


class Index:
    def __index__(self):
        return 41


class Half(float):
    pass


class Broken:
    def __index__(self):
        raise ZeroDivisionError("from __index__")

    def __float__(self):
        raise ZeroDivisionError("from __float__")


@both
def test_what_python_takes_for_a_number(run):
    program, out = writer(offset=1)
    run(program, Index())
    assert out[0] == 42
    program, out = writer(FLOAT)
    run(program, Half(2.5))
    assert struct.unpack("<d", struct.pack("<q", out[0]))[0] == 2.5


@both
@pytest.mark.parametrize("kind", [INTEGER, FLOAT])
@pytest.mark.parametrize("value", ["1", None, b"", [], 1j])
def test_conversion_errors_propagate(run, kind, value):
    program, out = writer(kind)
    with pytest.raises(TypeError):
        run(program, value)
    assert out[0] == 0
    with pytest.raises(ZeroDivisionError):
        run(program, Broken())
    assert run(program, 1) is None


@both
def test_a_float_is_no_integer(run):
    program, _ = writer()
    with pytest.raises(TypeError):
        run(program, 1.0)


@both
def test_an_integer_may_be_too_large_for_a_float(run):
    program, _ = writer(FLOAT)
    with pytest.raises(OverflowError):
        run(program, 10**400)


@both
@pytest.mark.parametrize("args", [(), (1, 2), (1, 2, 3)])
def test_number_of_arguments(run, args):
    program, _ = writer()
    with pytest.raises(TypeError, match=rf"takes 1 arguments, got {len(args)}"):
        run(program, *args)


@pytest.mark.skipif(not native.allowed(), reason="no native launch")
@pytest.mark.parametrize("address", [0, -1, 7, 8])
def test_what_is_no_program(address):
    run = launch.launcher()
    with pytest.raises(TypeError, match="address"):
        run()
    with pytest.raises(TypeError):
        run("x")
    if address != 8:
        with pytest.raises(RuntimeError, match="not the address of a program"):
            run(address)


@both
def test_offsets(run):
    out = kernels.longs(4)
    program = Program.build([(kernels.kernel("write"), 2, 1)], [(2, 0, 24)], [INTEGER],
                            [0, 0, 0, 99])
    run(program, ctypes.addressof(out))
    assert list(out) == [0, 0, 0, 99]
    program = Program.build([(kernels.kernel("write"), 2, 1)], [(2, 0, -8)], [INTEGER],
                            [0, 0, 0, 98])
    run(program, ctypes.addressof(out) + 8)
    assert list(out) == [98, 0, 0, 99]


@both
@pytest.mark.parametrize("release_gil", [False, True])
@pytest.mark.parametrize("code, value", [(1, 2), (-3, -4), (2**63 - 1, -2**63)])
def test_errors_of_kernels(run, code, value, release_gil):
    """The status comes back, and the steps after it do not run."""
    out = kernels.longs(1)
    program = Program.build(
        [(kernels.kernel("fail"), 2, 1), (kernels.kernel("write"), 5, 1)],
        [(2, STATUS, 0), (3, 0, 0), (4, 1, 0)], [INTEGER] * 2,
        [0, 0, 0, 0, 0, ctypes.addressof(out), 7], release_gil)
    assert run(program, code, value) == (code, value)
    assert out[0] == 0
    assert run(program, 0, 5) is None  # a value without a code is no error
    assert out[0] == 7


@both
def test_steps_run_in_order_and_through_the_pool(run, threads):
    threads(3)
    counters, where, out = kernels.longs(8), kernels.ints(8), kernels.longs(1)
    program = Program.build(
        [(kernels.kernel("write"), 2, 1), (kernels.kernel("count"), 4, 8),
         (kernels.kernel("write"), 6, 1)], [(4, 0, 0), (5, 1, 0)], [INTEGER] * 2,
        [0, 0, ctypes.addressof(out), 1, 0, 0, ctypes.addressof(out), 2])
    assert run(program, ctypes.addressof(counters), ctypes.addressof(where)) is None
    assert list(counters) == [1] * 8
    assert out[0] == 2


@both
def test_an_error_in_a_parallel_step(run, threads):
    threads(2)
    program = Program.build([(kernels.kernel("fail"), 2, 6)], [(2, STATUS, 0)], [],
                            [0, 0, 0, 9, 10])
    assert run(program) == (9, 10)


@both
@pytest.mark.parametrize("slots", [512, 513, 5000])
def test_large_templates(run, slots):
    out = kernels.longs(1)
    program = Program.build([(kernels.kernel("write"), slots - 2, 1)], [(slots - 1, 0, 0)],
                            [INTEGER], [0] * (slots - 2) + [ctypes.addressof(out), 0])
    for value in (5, 6):
        assert run(program, value) is None
        assert out[0] == value


@both
def test_many_arguments(run):
    out = kernels.longs(300)
    steps, patches, template = [], [], [0, 0]
    for i in range(300):
        steps.append((kernels.kernel("write"), len(template), 1))
        patches.append((len(template) + 1, i, 0))
        template += [ctypes.addressof(out) + 8 * i, 0]
    program = Program.build(steps, patches, [INTEGER] * 300, template)
    assert run(program, *range(1000, 1300)) is None
    assert list(out) == list(range(1000, 1300))


@both
def test_an_empty_program(run):
    assert run(Program.build([], [], [], [0, 0])) is None


@pytest.mark.parametrize("arguments, message", [
    (([(1, 2, 1)], [], [], [0]), "slots 0 and 1"),
    (([], [], [], [0, 1]), "slots 0 and 1"),
    (([], [], [3], [0, 0]), "kind"),
    (([(0, 2, 1)], [], [], [0, 0, 0]), "bad step"),
    (([(1, 4, 1)], [], [], [0, 0, 0]), "bad step"),
    (([(1, 2, 0)], [], [], [0, 0, 0]), "bad step"),
    (([], [(1, 0, 0)], [0], [0, 0, 0]), "bad patch"),
    (([], [(3, 0, 0)], [0], [0, 0, 0]), "bad patch"),
    (([], [(2, 1, 0)], [0], [0, 0, 0]), "bad patch"),
    (([], [(2, -2, 0)], [0], [0, 0, 0]), "bad patch"),
    (([], [(2, 0, 8)], [1], [0, 0, 0]), "bytes to a float"),
])
def test_bad_programs(arguments, message):
    with pytest.raises(ValueError, match=message):
        Program.build(*arguments)


def test_the_gil_is_released_on_demand():
    """Another Python thread counts while a kernel sleeps."""
    for release in (False, True):
        counters, where = kernels.longs(1), kernels.ints(1)
        program = Program.build([(kernels.kernel("slow_count"), 2, 1)], [], [], [
            0, 0, ctypes.addressof(counters), ctypes.addressof(where), 100_000], release)
        ticks, ended = [], threading.Event()

        def count(ticks=ticks, ended=ended) -> None:
            while not ended.is_set():
                ticks.append(time.perf_counter())
                time.sleep(0.001)

        counter = threading.Thread(target=count)
        counter.start()
        time.sleep(0.01)
        start = time.perf_counter()
        launch.launch(program.address)
        end = time.perf_counter()
        ended.set()
        counter.join()
        during = sum(start + 0.01 < tick < end - 0.01 for tick in ticks)
        if release or not native.allowed():
            assert during > 10
        else:
            assert during == 0


def test_launches_from_several_python_threads(threads):
    threads(2)
    failures = []

    def work(seed: int) -> None:
        source = random.Random(seed)
        out = kernels.longs(1)
        program = Program.build(
            [(kernels.kernel("write"), 2, 1)] * 3, [(2, 0, 0), (3, 1, 0)], [INTEGER] * 2,
            [0] * source.choice((4, 600)), release_gil=seed % 2 == 0)
        for _ in range(5000):
            value = source.getrandbits(60)
            if launch.launch(program.address, ctypes.addressof(out), value) is not None or (
                    out[0] != value):
                failures.append((seed, value, out[0]))

    kernels.in_threads(work)
    assert not failures


def test_none_is_counted_right():
    program, _ = writer()
    run = launch.launcher()
    before = sys.getrefcount(None)
    for i in range(10_000):
        run(program.address, i)
    assert abs(sys.getrefcount(None) - before) < 100


def test_memory_does_not_grow_with_errors():
    program = Program.build([(kernels.kernel("fail"), 2, 1)], [(2, STATUS, 0)], [],
                            [0, 0, 0, 12345678901, -98765432109])
    run = launch.launcher()
    result = run(program.address)
    assert sys.getrefcount(result) == 2
    assert [sys.getrefcount(item) <= 3 for item in result] == [True, True]


def test_a_program_knows_its_pool():
    program = Program.build([], [], [], [0, 0])
    words = (ctypes.c_int64 * 12).from_address(program.address)
    assert (words[9], words[10]) == pool.handle()


@pytest.mark.skipif(not native.allowed(), reason="this is that process")
def test_without_native_functions():
    """The same tests with FLAMBEAU_NATIVE=0."""
    found = kernels.python(f"""
import pytest, sys
from flambeau.runtime import launch
assert launch.launcher() is launch._launch_by_ctypes
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "not several", {__file__!r}]))
""", FLAMBEAU_NATIVE="0")
    assert found.returncode == 0, found.stdout + found.stderr
