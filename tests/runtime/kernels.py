"""Small kernels that several tests use, and helpers to reach memory."""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable

from flambeau.runtime import loader

IR = """
declare i32 @usleep(i32)

define void @nothing(ptr %args, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
  ret void
}

; slots: counters, threads. counters[chunk] += 1; threads[chunk] = thread
define void @count(ptr %args, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
  %counters = load ptr, ptr %args
  %second = getelementptr i64, ptr %args, i64 1
  %threads = load ptr, ptr %second
  %at = sext i32 %chunk to i64
  %counter = getelementptr i64, ptr %counters, i64 %at
  %old = atomicrmw add ptr %counter, i64 1 seq_cst
  %mine = getelementptr i32, ptr %threads, i64 %at
  store i32 %thread, ptr %mine
  ret void
}

; slots: counters, threads, microseconds. Sleeps, then counts.
define void @slow_count(ptr %args, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
  %third = getelementptr i64, ptr %args, i64 2
  %pause = load i32, ptr %third
  %r = call i32 @usleep(i32 %pause)
  call void @count(ptr %args, i32 %chunk, i32 %chunks, i32 %thread)
  ret void
}

; slots: counters, threads, microseconds for each chunk. Sleeps unless that is 0, then counts.
define void @uneven_count(ptr %args, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
  %third = getelementptr i64, ptr %args, i64 2
  %pauses = load ptr, ptr %third
  %at = sext i32 %chunk to i64
  %pausep = getelementptr i32, ptr %pauses, i64 %at
  %pause = load i32, ptr %pausep
  %some = icmp ne i32 %pause, 0
  br i1 %some, label %sleep, label %tell
sleep:
  %r = call i32 @usleep(i32 %pause)
  br label %tell
tell:
  call void @count(ptr %args, i32 %chunk, i32 %chunks, i32 %thread)
  ret void
}

; slots: out, value. *out = value + chunk
define void @write(ptr %args, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
  %out = load ptr, ptr %args
  %second = getelementptr i64, ptr %args, i64 1
  %value = load i64, ptr %second
  %wide = sext i32 %chunk to i64
  %sum = add i64 %value, %wide
  store i64 %sum, ptr %out
  ret void
}

; slots: status, code, value. Reports an error.
define void @fail(ptr %args, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
  %status = load ptr, ptr %args
  %second = getelementptr i64, ptr %args, i64 1
  %code = load i64, ptr %second
  %third = getelementptr i64, ptr %args, i64 2
  %value = load i64, ptr %third
  %value_at = getelementptr i64, ptr %status, i64 1
  store i64 %value, ptr %value_at
  store i64 %code, ptr %status
  ret void
}

; slots: pool, run, inner args. A kernel that starts a parallel job itself.
define void @nested(ptr %args, i32 %chunk, i32 %chunks, i32 %thread) nounwind {
  %pool = load ptr, ptr %args
  %second = getelementptr i64, ptr %args, i64 1
  %run = load ptr, ptr %second
  %third = getelementptr i64, ptr %args, i64 2
  call void %run(ptr %pool, ptr @count, ptr %third, i32 5)
  ret void
}
"""


def kernel(name: str) -> int:
    """The address of one of the kernels above."""
    return loader.load_kernel(name, IR)


def longs(count: int) -> ctypes.Array:
    return (ctypes.c_int64 * count)()


def ints(count: int) -> ctypes.Array:
    return (ctypes.c_int32 * count)()


def in_threads(work: Callable[[int], None], count: int = 4) -> None:
    """Run `work(0)` to `work(count - 1)`, each in a thread of its own, and wait for them."""
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in a fresh interpreter with further environment variables."""
    root = pathlib.Path(__file__).parents[2]
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(root), str(here), os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PYTHONPATH": path, **environment})
