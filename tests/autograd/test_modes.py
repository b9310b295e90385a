"""Grad mode, inference mode, and the decorators that set them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from flambeau.autograd import grad_mode
from flambeau.autograd.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    is_recording,
    no_grad,
    set_grad_enabled,
)


def test_contexts_nest_and_survive_errors():
    assert is_grad_enabled()
    with no_grad():
        assert not is_grad_enabled()
        with enable_grad():
            assert is_grad_enabled()
        assert not is_grad_enabled()
        with pytest.raises(KeyError), set_grad_enabled(True):
            raise KeyError
        assert not is_grad_enabled()
    assert grad_mode.mode() == grad_mode.RECORD


def test_set_grad_enabled_acts_at_once_but_not_as_decorator():
    set_grad_enabled(False)
    assert not is_grad_enabled()
    set_grad_enabled(True)

    @set_grad_enabled(False)
    def inside():
        return is_grad_enabled()

    assert is_grad_enabled() and inside() is False and is_grad_enabled()


@pytest.mark.parametrize("decorator", [no_grad, no_grad(), inference_mode, inference_mode()])
def test_decorators(decorator):
    @decorator
    def function(a, *, b):
        """Doc."""
        return is_recording(), a, b

    assert function(1, b=2) == (False, 1, 2)
    assert function.__name__ == "function" and function.__doc__ == "Doc."
    assert is_recording()

    @decorator
    def recursive(n):
        return [is_recording()] + (recursive(n - 1) if n else [])

    assert recursive(3) == [False] * 4 and is_recording()


def test_generators_leave_the_caller_alone():
    events = []

    @no_grad()
    def generator():
        try:
            got = yield is_grad_enabled()
            events.append((got, is_grad_enabled()))
            try:
                yield 1
            except ValueError:
                events.append(("caught", is_grad_enabled()))
                yield 2
            return "end"
        finally:
            events.append(("finally", is_grad_enabled()))

    g = generator()
    assert next(g) is False and is_grad_enabled()
    assert g.send("hello") == 1 and is_grad_enabled()
    assert g.throw(ValueError) == 2 and is_grad_enabled()
    with pytest.raises(StopIteration) as stop:
        next(g)
    assert stop.value.value == "end"
    assert events == [("hello", False), ("caught", False), ("finally", False)]
    closed = generator()
    next(closed)
    closed.close()
    assert events[-1] == ("finally", False) and is_grad_enabled()


def test_classes_warn():
    with pytest.warns(FutureWarning, match="Decorating classes is deprecated"):
        @no_grad()
        class Thing:
            def __init__(self):
                self.mode = is_grad_enabled()

    assert Thing().mode is False


def test_inference_mode():
    with inference_mode():
        assert is_inference_mode_enabled() and not is_grad_enabled()
        with enable_grad():
            assert is_grad_enabled() and not is_recording()
        with inference_mode(False):
            assert not is_inference_mode_enabled() and is_grad_enabled()
        assert is_inference_mode_enabled()
    assert not is_inference_mode_enabled() and is_recording()


def test_each_thread_and_task_has_its_own_mode():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]

    async def off():
        with no_grad():
            await asyncio.sleep(0.01)
            return is_grad_enabled()

    async def on():
        await asyncio.sleep(0.005)
        return is_grad_enabled()

    async def both():
        return await asyncio.gather(off(), on())

    assert asyncio.run(both()) == [False, True]
