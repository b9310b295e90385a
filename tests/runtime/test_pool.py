"""The thread pool: every chunk once, never late, from any caller."""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time

import kernels
import pytest

from flambeau.runtime import launch, pool

pytestmark = pytest.mark.skipif(not pool.has_threads(), reason="no native threads here")


def job(counters, threads_, *more) -> ctypes.Array:
    return (ctypes.c_int64 * (2 + len(more)))(ctypes.addressof(counters),
                                              ctypes.addressof(threads_), *more)


def run(name: str, nchunks: int, *more):
    """Run a counting kernel; how often each chunk ran, and on which threads."""
    counters, where = kernels.longs(nchunks), kernels.ints(nchunks)
    args = job(counters, where, *more)
    pool.run(kernels.kernel(name), ctypes.addressof(args), nchunks)
    return list(counters), list(where)


@pytest.mark.parametrize("nchunks", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_chunk_runs_once(threads, count, nchunks):
    threads(count)
    counts, where = run("count", nchunks)
    assert counts == [1] * nchunks
    assert all(0 <= thread < count for thread in where)


def test_threads_share_the_work(threads):
    threads(4)
    start = time.perf_counter()
    counts, where = run("slow_count", 8, 20_000)
    assert counts == [1] * 8
    assert len(set(where)) == 4
    assert time.perf_counter() - start < 0.14  # 8 * 20 ms one after the other


def test_threads_start_with_the_first_parallel_job(threads):
    threads(3)
    pool.stop()
    assert pool.started_threads() == 0
    run("count", 1)
    assert pool.started_threads() == 0
    run("count", 2)
    assert pool.started_threads() == 2


def test_fewer_threads(threads):
    threads(6)
    run("count", 6)
    assert pool.started_threads() == 5
    threads(2)
    assert pool.get_num_threads() == 2
    counts, where = run("slow_count", 6, 1000)
    assert counts == [1] * 6
    assert set(where) <= {0, 1}
    assert pool.started_threads() == 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", None, True])
def test_bad_thread_counts(wrong):
    with pytest.raises(ValueError, match="number of threads"):
        pool.set_num_threads(wrong)


@pytest.mark.parametrize("spin", [0, 50, 2000])
def test_many_tiny_jobs(threads, spin):
    """Old jobs' counters are looked at again much later: nobody may run a finished job's chunk."""
    threads(3)
    polls = pool._pool().word(pool._POLLS)
    before = polls.value
    polls.value = spin
    try:
        stress(random.Random(spin), 3000)
    finally:
        polls.value = before


def stress(source: random.Random, jobs: int) -> None:
    kernel, kept = kernels.kernel("count"), []
    for _ in range(jobs):
        nchunks = source.choice((1, 2, 2, 3, 5, 17))
        counters, where = kernels.longs(nchunks), kernels.ints(nchunks)
        args = job(counters, where)
        pool.run(kernel, ctypes.addressof(args), nchunks)
        assert list(counters) == [1] * nchunks
        kept.append((counters, where, args))
        if source.random() < 0.01:
            time.sleep(0.0002)  # let the threads fall asleep
    assert all(set(counters) == {1} for counters, _, _ in kept)


def test_a_hundred_thousand_jobs_of_one_program(threads):
    threads(2)
    counters, where = kernels.longs(2), kernels.ints(2)
    program = launch.Program.build([(kernels.kernel("count"), 2, 2)], [(2, 0, 0), (3, 1, 0)],
                                   [launch.INTEGER] * 2, [0] * 4)
    run_it = launch.launcher()
    for done in range(1, 100_001):
        run_it(program.address, ctypes.addressof(counters), ctypes.addressof(where))
        if done % 1000 == 0:
            assert list(counters) == [done, done]


def test_several_python_threads(threads):
    """One caller has the pool, the others run their chunks themselves."""
    threads(3)
    failures = []

    def work(seed: int) -> None:
        try:
            stress(random.Random(seed), 1500)
        except AssertionError as error:
            failures.append(error)

    kernels.in_threads(work)
    assert not failures


def test_resizing_while_others_run(threads):
    threads(2)
    failures, ended = [], threading.Event()

    def work(seed: int) -> None:
        try:
            while not ended.is_set():
                stress(random.Random(seed), 50)
        except AssertionError as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for count in (4, 1, 3, 2, 5, 1, 2) * 5:
        pool.set_num_threads(count)
        time.sleep(0.002)
    ended.set()
    for worker in workers:
        worker.join()
    assert not failures


def test_a_kernel_may_not_nest(threads):
    threads(2)
    counters, where = kernels.longs(5), kernels.ints(5)
    run_address, pool_address = pool.handle()
    args = (ctypes.c_int64 * 4)(pool_address, run_address, ctypes.addressof(counters),
                                ctypes.addressof(where))
    pool.run(kernels.kernel("nested"), ctypes.addressof(args), 2)
    assert list(counters) == [2] * 5  # by each of the two outer chunks, in line
    assert list(where) == [0] * 5


def test_idle_threads_sleep(threads):
    threads(2)
    run("count", 2)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.05
    assert pool._pool().word(pool._SLEEPING).value == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork(threads):
    """A child has no pool threads and starts its own; the parent goes on with its own."""
    threads(3)
    run("count", 3)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fresh = pool.started_threads() == 0
            counts, _ = run("count", 50)
            code = 0 if fresh and counts == [1] * 50 and pool.started_threads() == 2 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert run("count", 9)[0] == [1] * 9
    assert pool.started_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_while_another_thread_runs_a_job(threads):
    threads(2)
    runner = threading.Thread(target=run, args=("slow_count", 4, 50_000))
    runner.start()
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if run("count", 4)[0] == [1] * 4 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    runner.join()


def test_signals_stay_with_the_interpreter():
    """Pool threads block signals: a handler runs in the main thread and interrupts its sleep."""
    found = kernels.python("""
import kernels, signal, threading, time
from flambeau.runtime import pool
import test_pool
pool.set_num_threads(3)
test_pool.run("count", 3)
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(threading.current_thread()))
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(0.3)
assert seen == [threading.main_thread()], seen
import os
blocked = []
for task in os.listdir("/proc/self/task"):
    for line in open(f"/proc/self/task/{task}/status"):
        if line.startswith("SigBlk"):
            blocked.append(int(line.split()[1], 16) >> (signal.SIGALRM - 1) & 1)
assert sorted(blocked) == [0, 1, 1], blocked
""")
    assert found.returncode == 0, found.stderr


def test_the_interpreter_ends_with_sleeping_and_spinning_threads():
    for pause in ("0", "0.1"):
        found = kernels.python(f"""
import kernels, test_pool, time
from flambeau.runtime import pool
pool.set_num_threads(4)
test_pool.run("count", 8)
time.sleep({pause})
""")
        assert found.returncode == 0, found.stderr


def test_the_environment_sets_the_number_of_threads():
    found = kernels.python("from flambeau.runtime import pool; print(pool.get_num_threads())",
                           FLAMBEAU_NUM_THREADS="5")
    assert found.stdout.strip() == "5", found.stderr


def test_the_platform_without_futex():
    """The code for it runs here too."""
    from flambeau.runtime import loader

    address = loader.load_kernel("run", pool._INLINE)
    counters, where = kernels.longs(6), kernels.ints(6)
    args = job(counters, where)
    pointer = ctypes.c_void_p
    ctypes.CFUNCTYPE(None, pointer, pointer, pointer, ctypes.c_int)(address)(
        None, kernels.kernel("count"), ctypes.addressof(args), 6)
    assert list(counters) == [1] * 6
