"""The thread pool under load: many jobs of random shape from native code, uneven chunks, stealing,
more threads than processors, interrupts."""

from __future__ import annotations

import ctypes
import random
import threading
import time

import kernels
import numpy as np
import pytest

import flambeau as torch
from flambeau.core import config
from flambeau.runtime import loader, pool

pytestmark = pytest.mark.skipif(not pool.has_threads(), reason="no native threads here")

_LARGEST = 61  # chunks of a job
_RING = 3  # jobs whose memory is in use at a time: a late thread would meet a later job's

# A job's memory, in 64-bit words: alive, its number of chunks, faults seen, a seed, counters.
_STRESS = """
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define internal i64 @random(i64 %x0) nounwind {
  %a = shl i64 %x0, 13
  %x1 = xor i64 %x0, %a
  %b = lshr i64 %x1, 7
  %x2 = xor i64 %x1, %b
  %c = shl i64 %x2, 17
  %x3 = xor i64 %x2, %c
  ret i64 %x3
}

; Counts without atomics, as a kernel stores its results; some chunks take longer than others.
define void @tally(ptr %job, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
entry:
  %chunksp = getelementptr i64, ptr %job, i64 1
  %faultsp = getelementptr i64, ptr %job, i64 2
  %seedp = getelementptr i64, ptr %job, i64 3
  %alive = load volatile i64, ptr %job
  %wanted = load volatile i64, ptr %chunksp
  %wide = zext i32 %chunks to i64
  %same = icmp eq i64 %wanted, %wide
  %living = icmp eq i64 %alive, 1
  %fine = and i1 %same, %living
  %bad = xor i1 %fine, true
  %fault = zext i1 %bad to i64
  %old = atomicrmw add ptr %faultsp, i64 %fault monotonic
  %at = zext i32 %chunk to i64
  %seed = load i64, ptr %seedp
  %mixed = xor i64 %seed, %at
  %drawn = call i64 @random(i64 %mixed)
  %kind = and i64 %drawn, 3
  %long = icmp eq i64 %kind, 0
  %bits = lshr i64 %drawn, 40
  %turns = and i64 %bits, 1023
  %place = add i64 %at, 4
  %counter = getelementptr i64, ptr %job, i64 %place
  br i1 %long, label %work, label %done
work:
  %i = phi i64 [ 0, %entry ], [ %i1, %work ]
  %busy = load volatile i64, ptr %seedp
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %turns
  br i1 %more, label %work, label %done
done:
  %count = load volatile i64, ptr %counter
  %count1 = add i64 %count, 1
  store volatile i64 %count1, ptr %counter
  ret void
}

; Slots: pool, run, ring, jobs, seed. Runs jobs one after the other; the faults go to slot 5.
define void @stress(ptr %slots, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
entry:
  %pool = load ptr, ptr %slots
  %runp = getelementptr i64, ptr %slots, i64 1
  %run = load ptr, ptr %runp
  %ringp = getelementptr i64, ptr %slots, i64 2
  %ring = load ptr, ptr %ringp
  %jobsp = getelementptr i64, ptr %slots, i64 3
  %jobs = load i64, ptr %jobsp
  %seedp = getelementptr i64, ptr %slots, i64 4
  %seed = load i64, ptr %seedp
  %faultsp = getelementptr i64, ptr %slots, i64 5
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %x = phi i64 [ %seed, %entry ], [ %x1, %next ]
  %x1 = call i64 @random(i64 %x)
  %bits = lshr i64 %x1, 33
  %draw = urem i64 %bits, {LARGEST}
  %n = add i64 %draw, 1
  %turn = urem i64 %i, {RING}
  %offset = mul i64 %turn, {WORDS}
  %job = getelementptr i64, ptr %ring, i64 %offset
  %first = getelementptr i64, ptr %job, i64 4
  call void @llvm.memset.p0.i64(ptr %first, i8 0, i64 {BYTES}, i1 false)
  %np = getelementptr i64, ptr %job, i64 1
  store volatile i64 %n, ptr %np
  %xp = getelementptr i64, ptr %job, i64 3
  store i64 %x1, ptr %xp
  store volatile i64 1, ptr %job
  %n32 = trunc i64 %n to i32
  call void %run(ptr %pool, ptr @tally, ptr %job, i32 %n32)
  store volatile i64 0, ptr %job
  br label %check
check:
  %c = phi i64 [ 0, %head ], [ %c1, %check ]
  %counter = getelementptr i64, ptr %first, i64 %c
  %count = load volatile i64, ptr %counter
  %inside = icmp ult i64 %c, %n
  %right = zext i1 %inside to i64
  %wrong = icmp ne i64 %count, %right
  %fault = zext i1 %wrong to i64
  %known = load i64, ptr %faultsp
  %sum = add i64 %known, %fault
  store i64 %sum, ptr %faultsp
  %c1 = add i64 %c, 1
  %further = icmp ult i64 %c1, {LARGEST}
  br i1 %further, label %check, label %next
next:
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %jobs
  br i1 %more, label %head, label %out
out:
  ret void
}
"""


def stress(jobs: int, seed: int) -> int:
    """Run jobs of 1 to `_LARGEST` chunks from native code; chunks that did not run exactly once,
    or ran while their job was not under way."""
    words = _LARGEST + 4
    text = _STRESS
    for name, value in {"LARGEST": _LARGEST, "RING": _RING, "WORDS": words,
                        "BYTES": 8 * _LARGEST}.items():
        text = text.replace("{" + name + "}", str(value))
    ring = kernels.longs(_RING * words)
    run_address, pool_address = pool.handle()
    slots = (ctypes.c_int64 * 6)(pool_address, run_address, ctypes.addressof(ring), jobs, seed, 0)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    driver = ctypes.CFUNCTYPE(None, pointer, number, number, number)(
        loader.load_kernel("stress", text))
    driver(ctypes.addressof(slots), 0, 1, 0)
    return slots[5] + sum(ring[turn * words + 2] for turn in range(_RING))


def timed(pauses: list[int]) -> tuple[list[int], list[int], float]:
    """Run a chunk for each of `pauses` (microseconds): runs of each, their threads, seconds."""
    counters, where = kernels.longs(len(pauses)), kernels.ints(len(pauses))
    sleeps = (ctypes.c_int32 * len(pauses))(*pauses)
    args = (ctypes.c_int64 * 3)(*map(ctypes.addressof, (counters, where, sleeps)))
    start = time.perf_counter()
    pool.run(kernels.kernel("uneven_count"), ctypes.addressof(args), len(pauses))
    return list(counters), list(where), time.perf_counter() - start


@pytest.fixture
def polls():
    """Set how often idle threads look before they sleep, and whether they yield; put back
    afterwards."""
    words = [pool._pool().word(offset) for offset in (pool._SPIN, pool._POLLS)]
    before = [word.value for word in words]

    def set_polls(*values: int) -> None:
        for word, value in zip(words, values, strict=True):
            word.value = value

    yield set_polls
    set_polls(*before)


@pytest.mark.parametrize(("spin", "yields"), [(0, 0), (0, 40), (40, 0), (40, 40), (2000, 100)])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_random_jobs(threads, polls, count, spin, yields):
    threads(count)
    polls(spin, spin + yields)
    assert stress(1000, 1 + count) == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 8, 80])
def test_very_many_random_jobs(threads, count):
    threads(count)
    assert stress(200_000, count) == 0


def test_random_jobs_from_several_python_threads(threads):
    threads(3)
    faults = []

    def work(seed: int) -> None:
        faults.append(stress(2000, seed + 1))

    kernels.in_threads(work)
    assert faults == [0] * 4


def test_random_jobs_while_the_pool_changes(threads):
    threads(2)
    faults, ended = [], threading.Event()

    def work(seed: int) -> None:
        while not ended.is_set():
            faults.append(stress(100, seed + 1))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for count in (4, 1, 8, 2, 70, 3) * 3:
        pool.set_num_threads(count)
        time.sleep(0.005)
    ended.set()
    for worker in workers:
        worker.join()
    assert faults
    assert not any(faults)


def test_more_threads_than_parts(threads):
    """Threads without a part of their own help all the same."""
    threads(pool._MOST_PARTS + 6)
    counts, where, _ = timed([30_000] * (2 * pool._MOST_PARTS))
    assert counts == [1] * (2 * pool._MOST_PARTS)
    assert max(where) > pool._MOST_PARTS


def test_each_thread_begins_with_its_part(threads):
    """Neighbouring chunks go to one thread, the same ones in every job."""
    threads(2)
    timed([2000] * 4)
    for _ in range(3):
        counts, where, _ = timed([10_000] * 8)
        assert counts == [1] * 8
        assert where[:2] == [0, 0]  # the last of a part may be stolen
        assert where[4:6] == [1, 1]


@pytest.mark.parametrize("slow", [range(6), range(6, 12), (11,), (0, 6)])
def test_uneven_chunks_are_stolen(threads, slow):
    threads(2)
    timed([2000] * 4)
    pauses = [40_000 if chunk in slow else 0 for chunk in range(12)]
    counts, where, seconds = timed(pauses)
    assert counts == [1] * 12
    if len(slow) == 6:  # one part has all the work, 0.24 s: the other's thread takes from its end
        assert seconds < 0.2
        assert len({where[chunk] for chunk in slow}) == 2
        owner = int(6 in slow)
        assert where[slow[0]] == owner
        assert where[slow[-1]] == 1 - owner


@pytest.mark.parametrize("count", [2, 3, 8])
def test_random_times(threads, count):
    threads(count)
    source = random.Random(count)
    for _ in range(10):
        pauses = [source.choice((0, 0, 50, 2000)) for _ in range(source.randrange(1, 40))]
        assert timed(pauses)[0] == [1] * len(pauses)


def test_threads_that_share_processors_yield(threads):
    word = pool._pool().word
    threads(config.available_threads())
    spin = config.settings().spin
    assert word(pool._SPIN).value == spin
    assert word(pool._POLLS).value > 2 * spin
    threads(config.available_threads() + 1)
    assert word(pool._SPIN).value == 0
    assert word(pool._POLLS).value < spin
    assert stress(500, 9) == 0


def test_recurrent_layers_with_more_threads_than_processors(threads):
    """Their chunks wait for one another's steps, whoever runs them."""
    torch.manual_seed(3)
    layer, x = torch.nn.LSTM(24, 40), torch.randn(30, 5, 24)
    results = []
    for count in (1, 2, 8, 13):
        threads(count)
        for _ in range(3):
            out = layer(x)[0]
            grads = torch.autograd.grad(out.sum(), tuple(layer.parameters()))
            results.append([value.detach().numpy().copy() for value in (out, *grads)])
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))


def test_an_interrupt_comes_after_the_job():
    """A chunk is never left behind, and the pool works on."""
    found = kernels.python("""
import ctypes, kernels, os, signal, threading
from flambeau.runtime import pool
import test_pool
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
pool.set_num_threads(3)
test_pool.run("slow_count", 3, 1)
kept = [kernels.longs(9), kernels.ints(9)]
args = test_pool.job(*kept, 30_000)
threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    pool.run(kernels.kernel("slow_count"), ctypes.addressof(args), 9)
    for _ in range(10_000_000):
        pass
except KeyboardInterrupt:
    assert list(kept[0]) == [1] * 9, list(kept[0])
    assert test_pool.run("count", 20)[0] == [1] * 20
    print("interrupted")
""")
    assert found.stdout.strip() == "interrupted", found.stderr
