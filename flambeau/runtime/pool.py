"""The thread pool: one job of numbered chunks at a time, run by the caller and the pool's threads.

It is native code made here (`run(kernel, args, nchunks)`), so a launch without the GIL needs no
Python. Its threads are started by the first job that has more than one chunk.

How a job is handed out. Its chunks are cut into *parts*, one for each thread: neighbours in memory
and, as a program's kernels are cut alike, what the thread's core has in its cache since the last
kernel. A part is one atomic word, end << 32 | next. Its thread claims `next` from the front; a
thread whose own part is empty goes round the others and claims from their ends, so that it takes
what their owners would come to last. Each claim exchanges the whole word, and is the only proof
that there is a job:
- a thread that wakes late finds every part empty and goes back to sleep: nobody waits for it;
- a thread cannot take a chunk of a finished job: a job finishes when `done` reaches its number of
  chunks, that is, after every claimed chunk has run; from then on all parts are empty until the
  next job is published, whose chunk a late claim gets, rightly;
- kernel, args, count and `done` are written before the parts are (release) and read after a claim
  (acquire); they cannot change between a thread's claim and its report of it to `done`, since the
  job is not finished before.
A thread reports once for all chunks of a part, before it looks for more elsewhere.

How threads sleep. They poll `generation`, which every job changes: `spin` times with a pause in
between, then, for some ten milliseconds, yielding to whoever else wants the processor; then they
announce themselves in `sleeping` and wait on it by futex. The publisher stores `generation`, then
reads `sleeping` (both sequentially consistent): one of the two sees the other. The caller waits for
the last chunks in the same way, on `done`, with `waiting` as its announcement. Sleeping is dear: a
processor that has halted, a virtual one above all, wakes late and runs at a half to two thirds of
its speed for tens of milliseconds; a thread that naps within a program slows down all of it.
With more threads than processors they yield from the first poll on, and not for long: else they
would keep from running what they wait for.

A second caller (another Python thread, or a kernel) finds `busy` taken and runs its chunks itself,
as thread 0: so a workspace that is picked by thread number must belong to one launch alone.
After a fork the child has no pool threads: the state is reset and they start anew when needed.
Where there is no futex (not Linux, or an unknown processor) every job runs in its caller.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import sys
import threading
import time

from flambeau.core import config
from flambeau.runtime import loader

__all__ = ["get_num_threads", "handle", "run", "set_num_threads", "started_threads", "stop"]

# Byte offsets in the pool's state. Words that different threads write lie in different cache lines;
# those of the parts two lines apart, since processors fetch lines in pairs.
_DONE, _WAITING, _KERNEL, _ARGS, _COUNT, _PARTS = 64, 128, 192, 200, 208, 212
_SLEEPING, _GENERATION, _BUSY, _ENTERED, _LEFT = 256, 320, 384, 448, 452
_LIMIT, _STARTED, _SPIN, _POLLS = 512, 516, 520, 524
_PART, _STRIDE = 1024, 128
_MOST_PARTS = 64  # with more threads, some begin in the same part
_YIELD = 10  # pauses that a system call which yields takes as long as, about
_PATIENCE = 3  # polls that yield for each that pauses: 60,000, about 10 ms
_BYTES = _PART + _MOST_PARTS * _STRIDE

# Numbers of the futex system call.
_FUTEX = {"x86_64": 202, "AMD64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98,
          "ppc64le": 221, "s390x": 238}
_PAUSE = {"x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
          "aarch64": ("declare void @llvm.aarch64.hint(i32)",
                      "call void @llvm.aarch64.hint(i32 1)")}
_SIG_SETMASK = 2  # on Linux

_SERIAL = """
define void @run_serial(ptr %kernel, ptr %args, i32 %n) nounwind {
entry:
  br label %head
head:
  %i = phi i32 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i32 %i, %n
  br i1 %more, label %body, label %out
body:
  call void %kernel(ptr %args, i32 %i, i32 %n, i32 0)
  %next = add i32 %i, 1
  br label %head
out:
  ret void
}
"""

# Used where there is no futex.
_INLINE = _SERIAL + """
define void @run(ptr %pool, ptr %kernel, ptr %args, i32 %n) nounwind {
  call void @run_serial(ptr %kernel, ptr %args, i32 %n)
  ret void
}
"""

_THREADED = _SERIAL + """
declare i64 @syscall(i64, ...)
declare i32 @sched_yield()
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
{declare_pause}

; Sleep unless the word has changed; wake up to n sleepers (FUTEX_WAIT, FUTEX_WAKE, both private).
define internal void @wait(ptr %word, i32 %expected) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 128, i32 %expected, ptr null)
  ret void
}
define internal void @wake(ptr %word, i32 %n) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 129, i32 %n)
  ret void
}

; What is done after a poll: nothing, or what another thread of this processor has to do.
define internal void @rest(i32 %poll, i32 %spin) nounwind alwaysinline {
entry:
  %late = icmp sge i32 %poll, %spin
  br i1 %late, label %yield, label %pause
yield:
  %r = call i32 @sched_yield()
  br label %out
pause:
  {pause}
  br label %out
out:
  ret void
}

; The word of a part.
define internal ptr @part(ptr %pool, i32 %index) nounwind alwaysinline {
  %wide = zext i32 %index to i64
  %distance = mul i64 %wide, {STRIDE}
  %offset = add i64 %distance, {PART}
  %word = getelementptr i8, ptr %pool, i64 %offset
  ret ptr %word
}

; Take a chunk from the front or the end of a part; -1 when it is empty.
define internal i32 @claim(ptr %word, i1 %end) nounwind alwaysinline {
entry:
  %first = load atomic i64, ptr %word monotonic, align 8
  br label %look
look:
  %seen = phi i64 [ %first, %entry ], [ %now, %take ]
  %next = trunc i64 %seen to i32
  %high = lshr i64 %seen, 32
  %stop = trunc i64 %high to i32
  %some = icmp slt i32 %next, %stop
  br i1 %some, label %take, label %none
take:
  %change = select i1 %end, i64 -4294967296, i64 1
  %rest = add i64 %seen, %change
  %pair = cmpxchg ptr %word, i64 %seen, i64 %rest acq_rel monotonic, align 8
  %now = extractvalue { i64, i1 } %pair, 0
  %got = extractvalue { i64, i1 } %pair, 1
  br i1 %got, label %mine, label %look
mine:
  %last = sub i32 %stop, 1
  %chunk = select i1 %end, i32 %last, i32 %next
  ret i32 %chunk
none:
  ret i32 -1
}

; Run chunks of a part until it is empty and report them; whether that finished the job.
define internal i1 @drain_part(ptr %pool, ptr %word, i1 %end, i32 %thread) nounwind {
entry:
  %kernelp = getelementptr i8, ptr %pool, i64 {KERNEL}
  %argsp = getelementptr i8, ptr %pool, i64 {ARGS}
  %countp = getelementptr i8, ptr %pool, i64 {COUNT}
  %donep = getelementptr i8, ptr %pool, i64 {DONE}
  %waitingp = getelementptr i8, ptr %pool, i64 {WAITING}
  br label %next
next:
  %ran = phi i32 [ 0, %entry ], [ %ran1, %execute ]
  %chunk = call i32 @claim(ptr %word, i1 %end)
  %empty = icmp slt i32 %chunk, 0
  br i1 %empty, label %report, label %execute
execute:
  %kernel = load ptr, ptr %kernelp
  %args = load ptr, ptr %argsp
  %chunks = load i32, ptr %countp
  call void %kernel(ptr %args, i32 %chunk, i32 %chunks, i32 %thread)
  %ran1 = add i32 %ran, 1
  br label %next
report:
  %idle = icmp eq i32 %ran, 0
  br i1 %idle, label %unfinished, label %tell
tell:
  ; The count is read first: after the report it may be the next job's.
  %count = load i32, ptr %countp
  %before = atomicrmw add ptr %donep, i32 %ran seq_cst, align 4
  %sum = add i32 %before, %ran
  %all = icmp eq i32 %sum, %count
  br i1 %all, label %finished, label %unfinished
finished:
  ; The caller may be gone by now: a wake too many is harmless, the state is never freed.
  %waiting = load atomic i32, ptr %waitingp seq_cst, align 4
  %asleep = icmp ne i32 %waiting, 0
  br i1 %asleep, label %wake, label %over
wake:
  call void @wake(ptr %donep, i32 1)
  br label %over
over:
  ret i1 true
unfinished:
  ret i1 false
}

; Run chunks until none is left: the thread's own part, then what the others have not come to.
define internal void @drain(ptr %pool, i32 %thread) nounwind {
entry:
  %partsp = getelementptr i8, ptr %pool, i64 {PARTS}
  %parts = load atomic i32, ptr %partsp acquire, align 4
  %none = icmp eq i32 %parts, 0
  br i1 %none, label %out, label %begin
begin:
  ; A thread beyond the parts has none of its own: it takes from their ends from the start.
  %own = urem i32 %thread, %parts
  %guest = icmp uge i32 %thread, %parts
  br label %part
part:
  %i = phi i32 [ 0, %begin ], [ %i1, %onwards ]
  %end = phi i1 [ %guest, %begin ], [ true, %onwards ]
  %sum = add i32 %own, %i
  %index = urem i32 %sum, %parts
  %word = call ptr @part(ptr %pool, i32 %index)
  %finished = call i1 @drain_part(ptr %pool, ptr %word, i1 %end, i32 %thread)
  br i1 %finished, label %out, label %onwards
onwards:
  %i1 = add i32 %i, 1
  %more = icmp ult i32 %i1, %parts
  br i1 %more, label %part, label %out
out:
  ret void
}

; Cut a job's chunks into parts, one for each thread, and lay them out for claims.
define internal void @publish(ptr %pool, i32 %n, i32 %threads) nounwind {
entry:
  %partsp = getelementptr i8, ptr %pool, i64 {PARTS}
  %fewer = icmp slt i32 %n, %threads
  %wanted = select i1 %fewer, i32 %n, i32 %threads
  %many = icmp sgt i32 %wanted, {MOST_PARTS}
  %parts = select i1 %many, i32 {MOST_PARTS}, i32 %wanted
  %divisor = zext i32 %parts to i64
  %chunks = zext i32 %n to i64
  br label %cut
cut:
  %i = phi i32 [ 0, %entry ], [ %i1, %cut ]
  %start = phi i64 [ 0, %entry ], [ %stop, %cut ]
  %total = phi i64 [ %chunks, %entry ], [ %total1, %cut ]
  %stop = udiv i64 %total, %divisor
  %high = shl i64 %stop, 32
  %range = or i64 %high, %start
  %word = call ptr @part(ptr %pool, i32 %i)
  store atomic i64 %range, ptr %word release, align 8
  %total1 = add i64 %total, %chunks
  %i1 = add i32 %i, 1
  %more = icmp slt i32 %i1, %parts
  br i1 %more, label %cut, label %out
out:
  store atomic i32 %parts, ptr %partsp release, align 4
  ret void
}

; A pool thread. Its argument is the pool's state; its number is the order in which it came.
define internal ptr @worker(ptr %pool) nounwind {
entry:
  %enteredp = getelementptr i8, ptr %pool, i64 {ENTERED}
  %leftp = getelementptr i8, ptr %pool, i64 {LEFT}
  %generationp = getelementptr i8, ptr %pool, i64 {GENERATION}
  %sleepingp = getelementptr i8, ptr %pool, i64 {SLEEPING}
  %limitp = getelementptr i8, ptr %pool, i64 {LIMIT}
  %spinp = getelementptr i8, ptr %pool, i64 {SPIN}
  %pollsp = getelementptr i8, ptr %pool, i64 {POLLS}
  %place = atomicrmw add ptr %enteredp, i32 1 seq_cst, align 4
  %thread = add i32 %place, 1
  br label %work
work:
  ; The generation is read before the parts: a job that comes in between is noticed later.
  %seen = load atomic i32, ptr %generationp seq_cst, align 4
  %limit = load atomic i32, ptr %limitp seq_cst, align 4
  %stay = icmp ne i32 %limit, 0
  br i1 %stay, label %drain, label %leave
drain:
  call void @drain(ptr %pool, i32 %thread)
  %spin = load i32, ptr %spinp
  %polls = load i32, ptr %pollsp
  br label %poll
poll:
  %i = phi i32 [ 0, %drain ], [ %i1, %again ]
  %g = load atomic i32, ptr %generationp acquire, align 4
  %same = icmp eq i32 %g, %seen
  br i1 %same, label %again, label %work
again:
  call void @rest(i32 %i, i32 %spin)
  %i1 = add i32 %i, 1
  %more = icmp slt i32 %i1, %polls
  br i1 %more, label %poll, label %announce
announce:
  %s0 = atomicrmw add ptr %sleepingp, i32 1 seq_cst, align 4
  br label %look
look:
  %g2 = load atomic i32, ptr %generationp seq_cst, align 4
  %still = icmp eq i32 %g2, %seen
  br i1 %still, label %sleep, label %rise
sleep:
  call void @wait(ptr %generationp, i32 %seen)
  br label %look
rise:
  %s1 = atomicrmw sub ptr %sleepingp, i32 1 seq_cst, align 4
  br label %work
leave:
  %gone = atomicrmw add ptr %leftp, i32 1 seq_cst, align 4
  ret ptr null
}

; Start the threads that are missing, with all signals blocked: those are the interpreter's.
define internal void @start(ptr %pool, i32 %have, i32 %want) nounwind noinline {
entry:
  %all = alloca [128 x i8], align 8
  %old = alloca [128 x i8], align 8
  %id = alloca i64, align 8
  %startedp = getelementptr i8, ptr %pool, i64 {STARTED}
  %limitp = getelementptr i8, ptr %pool, i64 {LIMIT}
  call void @llvm.memset.p0.i64(ptr %all, i8 -1, i64 128, i1 false)
  %m0 = call i32 @pthread_sigmask(i32 {setmask}, ptr %all, ptr %old)
  br label %head
head:
  %n = phi i32 [ %have, %entry ], [ %n1, %made ]
  %more = icmp slt i32 %n, %want
  br i1 %more, label %make, label %out
make:
  %failed = call i32 @pthread_create(ptr %id, ptr null, ptr @worker, ptr %pool)
  %bad = icmp ne i32 %failed, 0
  br i1 %bad, label %give_up, label %made
made:
  %handle = load i64, ptr %id
  %d = call i32 @pthread_detach(i64 %handle)
  %n1 = add i32 %n, 1
  store i32 %n1, ptr %startedp
  br label %head
give_up:
  ; The system lets us have no more: do with fewer, and do not ask at every job.
  %fewer = add i32 %n, 1
  store atomic i32 %fewer, ptr %limitp seq_cst, align 4
  br label %out
out:
  %m1 = call i32 @pthread_sigmask(i32 {setmask}, ptr %old, ptr null)
  ret void
}

define void @run(ptr %pool, ptr %kernel, ptr %args, i32 %n) nounwind {
entry:
  %kernelp = getelementptr i8, ptr %pool, i64 {KERNEL}
  %argsp = getelementptr i8, ptr %pool, i64 {ARGS}
  %countp = getelementptr i8, ptr %pool, i64 {COUNT}
  %donep = getelementptr i8, ptr %pool, i64 {DONE}
  %waitingp = getelementptr i8, ptr %pool, i64 {WAITING}
  %sleepingp = getelementptr i8, ptr %pool, i64 {SLEEPING}
  %generationp = getelementptr i8, ptr %pool, i64 {GENERATION}
  %busyp = getelementptr i8, ptr %pool, i64 {BUSY}
  %limitp = getelementptr i8, ptr %pool, i64 {LIMIT}
  %startedp = getelementptr i8, ptr %pool, i64 {STARTED}
  %spinp = getelementptr i8, ptr %pool, i64 {SPIN}
  %pollsp = getelementptr i8, ptr %pool, i64 {POLLS}
  %limit = load atomic i32, ptr %limitp seq_cst, align 4
  %alone = icmp slt i32 %limit, 2
  %tiny = icmp slt i32 %n, 2
  %either = or i1 %alone, %tiny
  br i1 %either, label %inline, label %lock
lock:
  %pair = cmpxchg ptr %busyp, i32 0, i32 1 acq_rel acquire, align 4
  %got = extractvalue { i32, i1 } %pair, 1
  br i1 %got, label %prepare, label %inline
inline:
  call void @run_serial(ptr %kernel, ptr %args, i32 %n)
  ret void
prepare:
  %started = load i32, ptr %startedp
  %want = sub i32 %limit, 1
  %missing = icmp slt i32 %started, %want
  br i1 %missing, label %start, label %publish
start:
  call void @start(ptr %pool, i32 %started, i32 %want)
  br label %publish
publish:
  store ptr %kernel, ptr %kernelp
  store ptr %args, ptr %argsp
  store i32 %n, ptr %countp
  store atomic i32 0, ptr %donep monotonic, align 4
  call void @publish(ptr %pool, i32 %n, i32 %limit)
  %old = atomicrmw add ptr %generationp, i32 1 seq_cst, align 4
  %sleeping = load atomic i32, ptr %sleepingp seq_cst, align 4
  %some = icmp sgt i32 %sleeping, 0
  br i1 %some, label %wake, label %help
wake:
  %others = sub i32 %n, 1
  call void @wake(ptr %generationp, i32 %others)
  br label %help
help:
  call void @drain(ptr %pool, i32 0)
  %spin = load i32, ptr %spinp
  %polls = load i32, ptr %pollsp
  br label %poll
poll:
  %i = phi i32 [ 0, %help ], [ %i1, %again ]
  %d = load atomic i32, ptr %donep acquire, align 4
  %all = icmp eq i32 %d, %n
  br i1 %all, label %finish, label %again
again:
  call void @rest(i32 %i, i32 %spin)
  %i1 = add i32 %i, 1
  %more = icmp slt i32 %i1, %polls
  br i1 %more, label %poll, label %announce
announce:
  store atomic i32 1, ptr %waitingp seq_cst, align 4
  br label %look
look:
  %d2 = load atomic i32, ptr %donep seq_cst, align 4
  %all2 = icmp eq i32 %d2, %n
  br i1 %all2, label %awake, label %sleep
sleep:
  call void @wait(ptr %donep, i32 %d2)
  br label %look
awake:
  store atomic i32 0, ptr %waitingp seq_cst, align 4
  br label %finish
finish:
  store atomic i32 0, ptr %busyp release, align 4
  ret void
}

; Wake every thread so that it sees a limit of 0 and leaves.
define void @dismiss(ptr %pool) nounwind {
  %generationp = getelementptr i8, ptr %pool, i64 {GENERATION}
  %old = atomicrmw add ptr %generationp, i32 1 seq_cst, align 4
  call void @wake(ptr %generationp, i32 2147483647)
  ret void
}

; 1 when the pool was taken.
define i32 @acquire(ptr %pool) nounwind {
  %busyp = getelementptr i8, ptr %pool, i64 {BUSY}
  %pair = cmpxchg ptr %busyp, i32 0, i32 1 acq_rel acquire, align 4
  %got = extractvalue { i32, i1 } %pair, 1
  %r = zext i1 %got to i32
  ret i32 %r
}

define void @release(ptr %pool) nounwind {
  %busyp = getelementptr i8, ptr %pool, i64 {BUSY}
  store atomic i32 0, ptr %busyp release, align 4
  ret void
}
"""


def get_num_threads() -> int:
    """Threads that share a parallel kernel, the caller included."""
    return _chosen or config.settings().num_threads


def set_num_threads(count: int) -> None:
    """Set the number of threads, the caller included. Fewer than before ends the pool's threads;
    they start again with the next parallel kernel."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"the number of threads should be a positive integer, not {count!r}")
    global _chosen
    _chosen = count
    if _pool.cache_info().currsize:
        _pool().resize(count)


def started_threads() -> int:
    """Native threads that run now, the caller not included."""
    return _pool().word(_STARTED).value if _pool.cache_info().currsize else 0


def stop() -> None:
    """End the pool's threads; the next parallel kernel starts them again."""
    if _pool.cache_info().currsize:
        _pool().resize(_pool().limit, restart=True)


def handle() -> tuple[int, int]:
    """Addresses of native `run(pool, kernel, args, nchunks)` and of its first argument."""
    pool = _pool()
    return pool.run_address, pool.address


def run(kernel: int, args: int, nchunks: int) -> None:
    """Run kernel(args, chunk, nchunks, thread) for every chunk; the GIL is released meanwhile."""
    _pool().call(_pool().address, kernel, args, nchunks)


_chosen: int | None = None  # by set_num_threads


class _Pool:
    """The native state, and what only Python needs of it."""

    def __init__(self):
        # Never freed: a thread may still look at the state when the interpreter has ended.
        memory = (ctypes.c_char * (_BYTES + 64))()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        self.address = (ctypes.addressof(memory) + 63) & -64
        self.threaded = has_threads()
        functions = loader.load_module(pool_ir())
        self.run_address = functions["run"]
        pointer = ctypes.c_void_p
        self.call = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, ctypes.c_int)(
            functions["run"])
        if self.threaded:
            self._acquire = ctypes.CFUNCTYPE(ctypes.c_int, pointer)(functions["acquire"])
            self._release = ctypes.CFUNCTYPE(None, pointer)(functions["release"])
            self._dismiss = ctypes.CFUNCTYPE(None, pointer)(functions["dismiss"])
        self.limit = get_num_threads()
        self._resizing = threading.Lock()
        self._allow(self.limit)

    def word(self, offset: int) -> ctypes.c_int32:
        return ctypes.c_int32.from_address(self.address + offset)

    def resize(self, count: int, restart: bool = False) -> None:
        with self._resizing:
            if self.threaded and (restart or count <= self.word(_STARTED).value):
                self._end_threads()
            self._allow(count)

    def _allow(self, count: int) -> None:
        """Let jobs have `count` threads."""
        crowded = count > config.available_threads()
        self.limit = count
        spin = config.settings().spin
        self.word(_SPIN).value = 0 if crowded else spin
        self.word(_POLLS).value = spin // _YIELD if crowded else spin * (1 + _PATIENCE)
        self.word(_LIMIT).value = count

    def _end_threads(self) -> None:
        """A limit of 0 tells the threads to leave; jobs run in their callers meanwhile."""
        while not self._acquire(self.address):
            time.sleep(0.0001)
        self.word(_LIMIT).value = 0
        self._dismiss(self.address)
        while self.word(_LEFT).value != self.word(_STARTED).value:
            time.sleep(0.0001)
        for offset in (_STARTED, _ENTERED, _LEFT):
            self.word(offset).value = 0
        self._release(self.address)

    def forget_threads(self) -> None:
        """In the child of a fork there are none, whatever the state says."""
        ctypes.memset(self.address, 0, _BYTES)
        self._allow(self.limit)
        self._resizing = threading.Lock()


def has_threads() -> bool:
    """Whether this platform's pool has threads of its own."""
    return (sys.platform == "linux" and platform.machine() in _FUTEX
            and ctypes.sizeof(ctypes.c_void_p) == 8)


def pool_ir() -> str:
    """The pool's native code for this machine."""
    if not has_threads():
        return _INLINE
    machine = platform.machine()
    declare, pause = _PAUSE.get(machine, ("", ""))
    words = {"futex": _FUTEX[machine], "setmask": _SIG_SETMASK, "declare_pause": declare,
             "pause": pause, "DONE": _DONE, "WAITING": _WAITING, "KERNEL": _KERNEL, "ARGS": _ARGS,
             "COUNT": _COUNT, "PARTS": _PARTS, "PART": _PART, "STRIDE": _STRIDE,
             "MOST_PARTS": _MOST_PARTS, "SLEEPING": _SLEEPING, "GENERATION": _GENERATION,
             "BUSY": _BUSY, "ENTERED": _ENTERED, "LEFT": _LEFT, "LIMIT": _LIMIT,
             "STARTED": _STARTED, "SPIN": _SPIN, "POLLS": _POLLS}
    return re.sub(r"\{(\w+)\}", lambda found: str(words[found[1]]), _THREADED)


@functools.cache
def _pool() -> _Pool:
    pool = _Pool()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=pool.forget_threads)
    return pool
