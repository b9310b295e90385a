"""Futures are completed once, from any thread, and what waits for them runs."""

from __future__ import annotations

import threading

import pytest

import flambeau as torch
from flambeau.futures import Future, collect_all, wait_all


def later(future, value):
    timer = threading.Timer(0.02, future.set_result, (value,))
    timer.start()
    return timer


def test_wait_waits_for_another_thread():
    future = Future()
    timer = later(future, 7)
    assert not future.done()
    with pytest.raises(RuntimeError, match="no value yet"):
        future.value()
    assert future.wait() == 7 and future.done() and future.value() == 7
    timer.join()


def test_a_future_is_completed_once():
    future = Future()
    future.set_result(None)
    for again in (lambda: future.set_result(1), lambda: future.set_exception(ValueError())):
        with pytest.raises(RuntimeError, match="only be marked completed once"):
            again()
    with pytest.raises(AssertionError, match="not an Exception"):
        Future().set_exception(3)
    with pytest.raises(RuntimeError, match="no accelerator"):
        Future(devices=["cuda:0"])


def test_errors_come_out_of_wait_and_value():
    future = Future()
    future.set_exception(ValueError("lost"))
    for ask in (future.wait, future.value):
        with pytest.raises(ValueError, match="lost"):
            ask()
    assert future.done()


def test_then_chains_values_and_errors():
    future = Future()
    chained = future.then(lambda done: done.wait() + 1).then(lambda done: done.wait() * 10)
    broken = future.then(lambda done: 1 / 0)
    future.set_result(1)
    assert chained.wait() == 20
    with pytest.raises(RuntimeError, match="callback: ZeroDivisionError") as caught:
        broken.wait()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert future.then(lambda done: done.value()).wait() == 1  # at once, when it is done


def test_done_callbacks_run_and_print_their_errors(capsys):
    future, seen = Future(), []
    future.add_done_callback(lambda done: seen.append(done.value()))
    future.add_done_callback(lambda done: 1 / 0)
    future.set_result(5)
    assert seen == [5]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_several_together():
    parts = [Future() for _ in range(3)]
    whole = collect_all(parts)
    timers = [later(part, number) for number, part in enumerate(parts)]
    assert [part.value() for part in whole.wait()] == [0, 1, 2]
    assert wait_all(parts) == [0, 1, 2]
    for timer in timers:
        timer.join()
    assert collect_all([]).wait() == [] and wait_all([]) == []
    failed = Future()
    failed.set_exception(KeyError("x"))
    assert collect_all([parts[0], failed]).done()
    with pytest.raises(KeyError):
        wait_all([parts[0], failed])
    with pytest.raises(TypeError, match="list of futures"):
        collect_all([3])


def test_fork_and_wait():
    x = torch.ones(2, requires_grad=True)
    future = torch.fork(lambda a, b=0: a * b, x, b=3)
    torch.wait(future).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    with pytest.raises(ZeroDivisionError):
        torch.fork(lambda: 1 / 0)
