"""Whether operations are recorded: the mode word and the context managers that set it.

The mode is one small integer in a `ContextVar`, so every thread (and every asyncio task) has its
own, and a new thread starts with recording on. A read costs 8 ns (an attribute of a
`threading.local`: 34 ns). What dispatch does:

    current = mode()              # bound once: from flambeau.autograd.grad_mode import mode
    if current == RECORD:         # the usual case: record, nothing else is asked for
        ...
    elif current & 3 == RECORD:   # record, and look at ANOMALY and SAVED_HOOKS
        ...
    else:                         # no_grad or inference mode: do not record
        ...
"""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["RECORD", "INFERENCE", "ANOMALY", "NAN_CHECK", "SAVED_HOOKS", "LEVELS", "INSIDE", "mode",
           "set_mode", "set_bits", "is_recording", "is_grad_enabled", "is_inference_mode_enabled",
           "no_grad", "enable_grad", "set_grad_enabled", "set_multithreading_enabled",
           "inference_mode", "ContextDecorator", "UncountedVersion", "check_countable"]

RECORD = 1
"""Grad mode is on. The only bit set in the usual case."""
INFERENCE = 2
"""Inference mode: nothing is recorded whatever RECORD says, and results are inference tensors."""
ANOMALY = 4
"""New nodes keep the stack of the forward call (`graph.note_stack`)."""
NAN_CHECK = 8
"""With ANOMALY: the engine looks for NaN in every gradient."""
SAVED_HOOKS = 16
"""Saved tensors pass through `saved_tensors_hooks`."""
LEVELS = 32
"""Transforms (vmap, forward mode) are at work, and see every operation: `tensor/levels.py`."""
INSIDE = 64
"""The same, also while what happens lies below all of them: results may be given tangents yet."""

_MODE: ContextVar[int] = ContextVar("flambeau_grad_mode", default=RECORD)

mode: Callable[[], int] = _MODE.get
"""The mode word of this thread."""
set_mode: Callable[[int], object] = _MODE.set
"""Replace the whole mode word."""

_F = TypeVar("_F", bound=Callable[..., Any])


def is_recording() -> bool:
    """True if an operation on a tensor that requires grad is recorded now."""
    return mode() & 3 == RECORD


def is_grad_enabled() -> bool:
    """True if grad mode is on in this thread.

    >>> with torch.no_grad():
    ...     print(torch.is_grad_enabled())
    False
    >>> torch.is_grad_enabled()
    True
    """
    return bool(mode() & RECORD)


def is_inference_mode_enabled() -> bool:
    """True inside `inference_mode()`.

    >>> with torch.inference_mode():
    ...     print(torch.is_inference_mode_enabled())
    True
    >>> torch.is_inference_mode_enabled()
    False
    """
    return bool(mode() & INFERENCE)


def set_bits(mask: int, value: int) -> int:
    """Set the bits of `mask` to those of `value`; returns the former mode word."""
    before = mode()
    set_mode(before & ~mask | value)
    return before


class ContextDecorator:
    """A context manager that also decorates functions and generator functions.

    Each call (and each step of a generator) runs inside a fresh context made by `clone()`; the
    caller's mode returns between the steps of a generator.
    """

    def clone(self) -> ContextDecorator:
        return type(self)()

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(self, *exc_info: object) -> None:
        raise NotImplementedError

    def __call__(self, func: _F) -> _F:
        if inspect.isclass(func):
            warnings.warn(
                "Decorating classes is deprecated and will be disabled in future versions. You "
                "should only decorate functions or methods. To preserve the current behavior of "
                "class decoration, you can directly decorate the `__init__` method and nothing "
                "else.",
                FutureWarning, stacklevel=2)
            func.__init__ = self(func.__init__)
            return func
        if inspect.isgeneratorfunction(func):
            return _wrap_generator(self, func)

        @functools.wraps(func)
        def in_context(*args: Any, **kwargs: Any) -> Any:
            with self.clone():
                return func(*args, **kwargs)

        return in_context


def _wrap_generator(context: ContextDecorator, func: Callable) -> Callable:
    @functools.wraps(func)
    def generator_in_context(*args: Any, **kwargs: Any) -> Any:
        with context.clone():
            generator = func(*args, **kwargs)
        step, payload = generator.send, None
        try:
            while True:
                try:
                    with context.clone():
                        value = step(payload)
                except StopIteration as stop:
                    return stop.value
                try:
                    payload = yield value
                    step = generator.send
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step, payload = generator.throw, error
        finally:
            with context.clone():
                generator.close()

    return generator_in_context


class _Recording(ContextDecorator):
    """Switches recording, and back; lets `@no_grad` stand for `@no_grad()`."""

    def __new__(cls, func: Callable | None = None) -> Any:
        if func is None:
            return super().__new__(cls)
        return cls()(func)

    def __exit__(self, *exc_info: object) -> None:
        set_mode(mode() & ~RECORD | self._before & RECORD)


class no_grad(_Recording):
    """Turn recording off: results do not require grad. Context manager and decorator.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with torch.no_grad():
    ...     y = 2 * x
    >>> y.requires_grad
    False
    """

    def __enter__(self) -> None:
        self._before = mode()
        set_mode(self._before & ~RECORD)


class enable_grad(_Recording):
    """Turn recording on again inside `no_grad`. Context manager and decorator.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with torch.no_grad(), torch.enable_grad():
    ...     y = 2 * x
    >>> y.requires_grad
    True
    """

    def __new__(cls, orig_func: Callable | None = None) -> Any:
        return super().__new__(cls, orig_func)

    def __enter__(self) -> None:
        self._before = mode()
        set_mode(self._before | RECORD)


class set_grad_enabled(ContextDecorator):
    """Set grad mode at once; as a context manager, put the former mode back at the end.

    Args:
        mode: True to record, False not to.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with torch.set_grad_enabled(False):
    ...     y = 2 * x
    >>> y.requires_grad
    False
    """

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self.prev = is_grad_enabled()
        set_bits(RECORD, RECORD if mode else 0)

    def __call__(self, func: _F) -> _F:
        set_bits(RECORD, RECORD if self.prev else 0)  # a decorator must not act at definition
        return super().__call__(func)

    def clone(self) -> set_grad_enabled:
        return type(self)(self.mode)

    def __enter__(self) -> None:
        set_bits(RECORD, RECORD if self.mode else 0)

    def __exit__(self, *exc_info: object) -> None:
        set_bits(RECORD, RECORD if self.prev else 0)

    def __repr__(self) -> str:
        return f"set_grad_enabled(mode={self.mode})"


class set_multithreading_enabled(ContextDecorator):
    """Accepted and ignored: a backward runs in the thread that asks for it."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode

    def clone(self) -> set_multithreading_enabled:
        return type(self)(self.mode)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass


class enforce_grad_layout_policy(ContextDecorator):
    """Must the first gradient of a leaf get the leaf's strides? True by default: one in another
    layout is copied. Otherwise a gradient that nobody else holds is taken as it is. In effect from
    its call on; as a context manager until the end of the block.

    >>> x = torch.ones(2, 3, requires_grad=True)
    >>> with torch.autograd.enforce_grad_layout_policy(False):
    ...     x.t().exp().sum().backward()
    >>> x.grad.shape
    torch.Size([2, 3])
    """

    def __init__(self, enable: bool = True) -> None:
        self.mode, self.before = enable, GRAD_LAYOUT.enforced
        GRAD_LAYOUT.enforced = enable

    def clone(self) -> enforce_grad_layout_policy:
        return type(self)(self.mode)

    def __call__(self, function: Any) -> Any:
        GRAD_LAYOUT.enforced = self.before  # only while the function runs
        return super().__call__(function)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        GRAD_LAYOUT.enforced = self.before


class _GradLayout(threading.local):
    enforced = True


GRAD_LAYOUT = _GradLayout()
"""Of a thread: `enforced`, see `enforce_grad_layout_policy`."""


class UncountedVersion(int):
    """The version of memory that was taken in inference mode, which only that mode may write to.

    A write raises the version of its storage by 1, and saving for backward asks for `+version`:
    both come here, so ordinary memory pays nothing for the question.
    """

    def __add__(self, count: int) -> UncountedVersion:
        if mode() & INFERENCE:
            return UncountedVersion(int(self) + count)
        raise RuntimeError(
            "Inplace update to inference tensor outside InferenceMode is not allowed. You can make "
            "a clone to get a normal tensor before doing inplace update. See "
            "https://github.com/pytorch/rfcs/pull/17 for more details.")

    def __pos__(self) -> int:
        raise RuntimeError(
            "Inference tensors cannot be saved for backward. Please do not use Tensors created in "
            "inference mode in computation tracked by autograd. To work around this, you can make "
            "a clone to get a normal tensor and use it in autograd, or use `torch.no_grad()` "
            "instead of `torch.inference_mode()`.")


_FIRST_UNCOUNTED = UncountedVersion()


def check_countable(version: int) -> None:
    """Raise if memory of this version may not be written to now."""
    if version.__class__ is UncountedVersion:
        version + 1


def _note_regions(change: int) -> None:
    """So many more regions take memory with versions that are not counted."""
    from flambeau.runtime import memory

    memory.mark_new(change, _MODE, INFERENCE, _FIRST_UNCOUNTED)


class inference_mode(ContextDecorator):
    """Like `no_grad`, and results can never enter a graph: outside of the mode they can neither be
    written to nor be saved for a backward. Context manager and decorator.

    Args:
        mode: False turns inference mode off inside a block that has it on.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with torch.inference_mode():
    ...     y = 2 * x
    >>> y.requires_grad, y.is_inference()
    (False, True)
    """

    def __new__(cls, mode: Any = True) -> Any:
        if isinstance(mode, bool):
            return super().__new__(cls)
        return cls()(mode)  # used as a bare decorator

    def __init__(self, mode: bool = True) -> None:
        self.mode = mode

    def clone(self) -> inference_mode:
        return type(self)(self.mode)

    def __enter__(self) -> None:
        # Grad mode follows: off inside, on again where inference mode is switched off.
        self._before = set_bits(INFERENCE | RECORD, INFERENCE if self.mode else RECORD)
        if self.mode:
            _note_regions(1)

    def __exit__(self, *exc_info: object) -> None:
        set_bits(INFERENCE | RECORD, self._before & (INFERENCE | RECORD))
        if self.mode:
            _note_regions(-1)
