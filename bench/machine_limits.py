"""What this machine can do at most: fused multiply-adds in registers, and copying memory."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy

from flambeau.compiler.emitter import Module, vector
from flambeau.compiler.target import host
from flambeau.runtime import loader

__all__ = ["copy_bandwidth", "peak_flops"]

_ACCUMULATORS = 12  # enough to hide the latency of a multiply-add on two units


def _best(work, threads: int, repeat: int = 7) -> float:
    """The shortest time in which `threads` Python threads each run `work(thread)` once."""
    best = float("inf")
    for _ in range(repeat):
        gate = threading.Barrier(threads + 1)
        spans = [0.0] * threads

        def run(number: int, gate=gate, spans=spans) -> None:
            gate.wait()
            start = time.perf_counter()
            work(number)
            spans[number] = time.perf_counter() - start

        pool = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
        for thread in pool:
            thread.start()
        gate.wait()
        for thread in pool:
            thread.join()
        best = min(best, max(spans))
    return best


def peak_flops(threads: int) -> float:
    """float32 operations per second of `threads` cores that do nothing else."""
    target = host()
    lanes = target.lanes(4)
    module = Module(target.attributes)
    f = module.function("peak", [("ptr", "data"), ("i64", "count")])
    sums = [f.var(vector(lanes, "float"), float(n)) for n in range(_ACCUMULATORS)]
    factor = f.load(vector(lanes, "float"), f.args["data"])
    with f.loop(0, f.args["count"]):
        for total in sums:
            total.set(f.intrinsic("llvm.fma", factor.type, total.get(), factor, factor))
    result = sums[0].get()
    for total in sums[1:]:
        result = f.fadd(result, total.get())
    f.store(result, f.args["data"])
    address = loader.load_kernel("peak", module.text())
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)
    count = 1_000_000
    data = [numpy.full(64, 0.5, numpy.float32) for _ in range(threads)]
    seconds = _best(lambda n: call(data[n].ctypes.data, count), threads)
    return 2.0 * lanes * _ACCUMULATORS * count * threads / seconds


def copy_bandwidth(threads: int, nbytes: int = 1 << 28) -> float:
    """Bytes per second, read and written, of copying blocks larger than the caches."""
    count = nbytes // 4 // threads
    pairs = [(numpy.ones(count, numpy.float32), numpy.empty(count, numpy.float32))
             for _ in range(threads)]
    seconds = _best(lambda n: numpy.copyto(pairs[n][1], pairs[n][0]), threads)
    return 2.0 * count * 4 * threads / seconds
