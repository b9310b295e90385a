"""`torch.futures`: results that are not there yet, and `torch.fork`, `torch.wait`.

A future is completed from any thread, once. Callbacks run in the thread that completes it, or at
once if that has happened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

__all__ = ["Future", "collect_all", "fork", "wait", "wait_all"]

T = TypeVar("T")


class Future(Generic[T]):
    """A value that somebody sets later.

    Args:
        devices: those whose work a value may wait for; there are none without an accelerator.

    >>> future = torch.futures.Future()
    >>> doubled = future.then(lambda done: 2 * done.wait())
    >>> future.set_result(21)
    >>> doubled.wait()
    42
    """

    def __init__(self, *, devices: Sequence[Any] | None = None):
        if devices:
            raise RuntimeError(f"Future(devices={list(devices)!r}): there is no accelerator whose "
                               "work could be waited for; leave devices out")
        self._changed = threading.Condition()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable] = []

    def done(self) -> bool:
        """Has it a value, or an error?"""
        return self._done

    def wait(self) -> T:
        """The value, when it is there.

        Raises:
            what was given to `set_exception`.
        """
        with self._changed:
            self._changed.wait_for(self.done)
        return self.value()

    def value(self) -> T:
        """The value of a future that is done.

        Raises:
            RuntimeError: it is not done; what was given to `set_exception`.
        """
        if not self._done:
            raise RuntimeError("Future.value(): there is no value yet; wait() waits for it")
        if self._error is not None:
            raise self._error
        return self._value

    def set_result(self, result: T) -> None:
        """Complete it, and run what waits for it.

        Raises:
            RuntimeError: it is complete.
        """
        self._complete(result, None)

    def set_exception(self, result: BaseException) -> None:
        """Complete it with an error, which `wait` and `value` raise."""
        assert isinstance(result, Exception), (
            f"{result} is of type {type(result)}, not an Exception.")
        self._complete(None, result)

    def _complete(self, value: Any, error: BaseException | None) -> None:
        with self._changed:
            if self._done:
                raise RuntimeError("Attempting to mark a completed Future as complete again. Note "
                                   "that a Future can only be marked completed once.")
            self._value, self._error, self._done = value, error, True
            waiting, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in waiting:
            callback(self)

    def _when_done(self, callback: Callable) -> None:
        with self._changed:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self)

    def then(self, callback: Callable[[Future], Any]) -> Future:
        """A future of what `callback` makes of this one, when it is done.

        An error of the callback becomes that of the new future: a RuntimeError that tells it.
        """
        following: Future = Future()

        def run(done: Future) -> None:
            try:
                result = callback(done)
            except Exception as error:
                following.set_exception(_told(error))
            else:
                following.set_result(result)

        self._when_done(run)
        return following

    def add_done_callback(self, callback: Callable[[Future], Any]) -> None:
        """Call `callback(self)` when it is done. An error of it is printed, not raised: nobody
        waits for it."""

        def run(done: Future) -> None:
            try:
                callback(done)
            except Exception:
                import traceback

                traceback.print_exc()

        self._when_done(run)


def _told(error: Exception) -> RuntimeError:
    told = RuntimeError("Got the following error when running the callback: "
                        f"{type(error).__name__}: {error}")
    told.__cause__ = error
    return told


def collect_all(futures: Sequence[Future]) -> Future[list[Future]]:
    """A future of the list of `futures`, done when all of them are, with values or errors.

    >>> parts = [torch.futures.Future() for _ in range(2)]
    >>> whole = torch.futures.collect_all(parts)
    >>> parts[0].set_result(1), whole.done(), parts[1].set_result(2), whole.done()
    (None, False, None, True)
    """
    futures = list(futures)
    wrong = next((one for one in futures if not isinstance(one, Future)), None)
    if wrong is not None:
        raise TypeError(f"collect_all() takes a list of futures, got one {type(wrong).__name__}")
    whole: Future[list[Future]] = Future()
    lock, left = threading.Lock(), [len(futures)]

    def one_is_done(_: Future) -> None:
        with lock:
            left[0] -= 1
            last = left[0] == 0
        if last:
            whole.set_result(futures)

    for one in futures:
        one._when_done(one_is_done)
    if not futures:
        whole.set_result(futures)
    return whole


def wait_all(futures: Sequence[Future]) -> list:
    """The values of all futures, in order.

    Raises:
        the error of the first one that has one.

    >>> parts = [torch.futures.Future() for _ in range(2)]
    >>> parts[1].set_result("b"), parts[0].set_result("a")
    (None, None)
    >>> torch.futures.wait_all(parts)
    ['a', 'b']
    """
    return [one.wait() for one in collect_all(futures).wait()]


def fork(func: Callable, *args: Any, **kwargs: Any) -> Future:
    """A future of `func(*args, **kwargs)`. As in PyTorch outside of TorchScript the call is made at
    once, in this thread: the future is done, and an error of the call is raised here.

    >>> torch.wait(torch.fork(torch.add, torch.ones(2), 1))
    tensor([2., 2.])
    """
    future: Future = Future()
    future.set_result(func(*args, **kwargs))
    return future


def wait(future: Future[T]) -> T:
    """The value of a future, when it is there.

    >>> torch.wait(torch.fork(max, 2, 3))
    3
    """
    return future.wait()
