"""`spawn`: the same function in several processes, with the first failure raised here."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait

__all__ = ["ENV_VAR_PARALLEL_START", "ProcessContext", "ProcessException",
           "ProcessExitedException", "ProcessRaisedException", "SpawnContext", "spawn",
           "start_processes"]

ENV_VAR_PARALLEL_START = "TORCH_MP_PARALLEL_START"
_PATIENCE = 30.0  # seconds between asking processes to end and killing them


class ProcessException(Exception):
    """A process failed.

    Attributes:
        error_index: which of them; pid: its number for the system.
    """

    def __init__(self, msg: str, error_index: int, pid: int):
        super().__init__(msg)
        self.msg, self.error_index, self.pid = msg, error_index, pid

    def __reduce__(self) -> tuple:
        return type(self), (self.msg, self.error_index, self.pid)


class ProcessRaisedException(ProcessException):
    """A process ended with an exception, whose traceback the message holds."""

    def __init__(self, msg: str, error_index: int, error_pid: int):
        super().__init__(msg, error_index, error_pid)


class ProcessExitedException(ProcessException):
    """A process ended by itself or by a signal.

    Attributes:
        exit_code: what it left; signal_name: of the signal, or None.
    """

    def __init__(self, msg: str, error_index: int, error_pid: int, exit_code: int,
                 signal_name: str | None = None):
        super().__init__(msg, error_index, error_pid)
        self.exit_code, self.signal_name = exit_code, signal_name

    def __reduce__(self) -> tuple:
        return type(self), (self.msg, self.error_index, self.pid, self.exit_code,
                            self.signal_name)


def _run(function: Callable, index: int, args: Sequence, error_file: str) -> None:
    """What a process does."""
    try:
        function(index, *args)
    except KeyboardInterrupt:
        pass  # the parent says it
    except Exception:
        with open(error_file, "wb") as file:
            pickle.dump(traceback.format_exc(), file)
        sys.exit(1)


class ProcessContext:
    """Running processes.

    Attributes:
        processes: Python's process objects; error_files: where each writes its exception.
    """

    def __init__(self, processes: list, error_files: list[str]):
        self.processes, self.error_files = processes, error_files
        self.sentinels = {process.sentinel: index for index, process in enumerate(processes)}

    def pids(self) -> list[int]:
        """The processes' numbers for the system."""
        return [int(process.pid) for process in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait until a process ends; True once all have ended well.

        Raises:
            ProcessRaisedException, ProcessExitedException: one failed; the others are ended.
        """
        if not self.sentinels:
            return True
        failed = None
        for sentinel in wait(list(self.sentinels), timeout=timeout):
            index = self.sentinels.pop(sentinel)
            self.processes[index].join()
            if self.processes[index].exitcode != 0 and failed is None:
                failed = index
        if failed is None:
            if not self.sentinels:
                self._forget_files()
                return True
            return False
        self._end_all(grace_period)
        try:
            raise self._failure(failed)
        finally:
            self._forget_files()

    def _end_all(self, grace_period: float | None) -> None:
        for process in self.processes:
            if process.is_alive():
                process.terminate()
        end = time.monotonic() + (_PATIENCE if grace_period is None else grace_period)
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()

    def _failure(self, index: int) -> ProcessException:
        process = self.processes[index]
        if os.path.getsize(self.error_files[index]):
            with open(self.error_files[index], "rb") as file:
                text = pickle.load(file)
            return ProcessRaisedException(f"\n\n-- Process {index} terminated with the following "
                                          f"error:\n{text}", index, process.pid)
        code = process.exitcode
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"<Unknown signal {-code}>"
            return ProcessExitedException(f"process {index} terminated with signal {name}", index,
                                          process.pid, code, name)
        return ProcessExitedException(f"process {index} terminated with exit code {code}", index,
                                      process.pid, code)

    def _forget_files(self) -> None:
        for path in self.error_files:
            if os.path.exists(path):
                os.unlink(path)


class SpawnContext(ProcessContext):
    """The old name of `ProcessContext`."""


def start_processes(fn: Callable, args: Sequence = (), nprocs: int = 1, join: bool = True,
                    daemon: bool = False, start_method: str = "spawn") -> ProcessContext | None:
    """Run fn(i, *args) in `nprocs` processes, i being 0 ... nprocs - 1.

    Args:
        join: wait until all have ended; else return their context.
        daemon: end them with this process.
        start_method: "spawn", "fork" or "forkserver".

    Raises:
        ProcessRaisedException, ProcessExitedException: one failed (with `join`).
    """
    context = multiprocessing.get_context(start_method)
    processes, files = [], []
    for index in range(nprocs):
        handle, path = tempfile.mkstemp(prefix="flambeau-errorfile-", suffix=".pickle")
        os.close(handle)
        process = context.Process(target=_run, args=(fn, index, args, path), daemon=daemon)
        process.start()
        processes.append(process)
        files.append(path)
    running = SpawnContext(processes, files)
    if not join:
        return running
    while not running.join():
        pass
    return None


def spawn(fn: Callable, args: Sequence = (), nprocs: int = 1, join: bool = True,
          daemon: bool = False, start_method: str = "spawn") -> ProcessContext | None:
    """`start_processes` with new interpreters. See there."""
    return start_processes(fn, args, nprocs, join, daemon, start_method)
