"""`TorchDispatchMode`: Python code that is asked about the operations that are really run.

Where PyTorch asks below autograd, about its own small operators, this asks about the calls of the
op table, under the names that PyTorch has for them (`library/aten.py`), and about custom operators.
Views, writes in place and the steps of a backward are not asked about: here they are no operators
of their own. Tensors that are made of others below autograd (classes with `__torch_dispatch__`) do
not exist; classes take operations over through `__torch_function__`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flambeau.autograd.grad_mode import no_grad
from flambeau.library import aten
from flambeau.ops.record import Op
from flambeau.tensor import Tensor, dispatch, tape

__all__ = ["TorchDispatchMode", "is_traceable_wrapper_subclass", "return_and_correct_aliasing"]

_entered: list[TorchDispatchMode] = []


class TorchDispatchMode:
    """A context in which `__torch_dispatch__(self, func, types, args, kwargs)` is asked about
    operations. `func(*args, **kwargs)` with the arguments as they came does what would be done
    without the mode; while a mode answers, it is not asked itself."""

    def __init__(self, _dispatch_key: Any = None) -> None:
        self._before: list = []

    def __torch_dispatch__(self, func: Callable, types: Sequence[type], args: Sequence = (),
                           kwargs: dict | None = None) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __torch_dispatch__")

    def __enter__(self) -> TorchDispatchMode:
        before = self.__dict__.setdefault("_before", [])
        outer = dispatch.taking_over.runner
        before.append(outer)
        dispatch.taking_over.runner = functools.partial(self._answer, outer)
        dispatch.ACTIVE.append(self)
        _entered.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _entered.remove(self)
        dispatch.ACTIVE.remove(self)
        dispatch.taking_over.runner = self._before.pop()

    def _answer(self, outer: Callable | None, what: Any, args: Sequence, run: Callable[[], Any]
                ) -> Any:
        """The results of an operation, in the form that `run` gives them."""
        op, shown = aten.called(what, args) if isinstance(what, Op) else (what, tuple(args))
        inner = dispatch.taking_over.runner
        plain = run if outer is None else functools.partial(outer, what, args, run)
        step = _Step(op, shown, plain)
        dispatch.taking_over.runner = outer
        try:
            with no_grad(), aten.pending(step):
                rule = getattr(op, "modes", {}).get(type(self))
                answer = (self.__torch_dispatch__(op, step.types(), shown, {}) if rule is None
                          else rule(self, op, step.types(), shown, {}))
        finally:
            dispatch.taking_over.runner = inner
        if not isinstance(what, Op):
            return answer
        given = list(answer) if isinstance(answer, (tuple, list)) else [answer]
        # what is no fresh result must not get the history of this one
        return [one if any(one is own for own in step.made) or not isinstance(one, Tensor)
                else tape.alias_of(one) for one in given]


class _Step:
    """One operation that a mode is asked about."""

    def __init__(self, op: Any, args: tuple, run: Callable[[], Any]):
        self.op, self.args, self.run = op, args, run
        self.made: list = []

    def types(self) -> tuple:
        return tuple({type(arg) for arg in self.args
                      if isinstance(arg, Tensor) and type(arg) is not Tensor})

    def fits(self, op: Any, args: Sequence, kwargs: dict) -> bool:
        """Is a call of `op` the one that was asked about?"""
        return op is self.op and not kwargs and len(args) == len(self.args) and all(
            a is b for a, b in zip(args, self.args, strict=True))

    def __call__(self) -> Any:
        found = self.run()
        if not isinstance(found, list):
            return found
        self.made += found
        return found[0] if len(found) == 1 else tuple(found)


# -- what goes with modes -------------------------------------------------------------------------
def is_traceable_wrapper_subclass(t: Any) -> bool:
    """Is it a tensor made of others below autograd? Never: such classes do not exist here."""
    return False


def return_and_correct_aliasing(func: Any, args: Sequence, kwargs: dict | None, out: Any) -> Any:
    """The result of an operation as a mode may return it: the result itself."""
    return out


def _get_current_dispatch_mode() -> TorchDispatchMode | None:
    return _entered[-1] if _entered else None


def _get_current_dispatch_mode_stack() -> list[TorchDispatchMode]:
    return list(_entered)


@contextlib.contextmanager
def _disable_current_modes() -> Iterator[list[TorchDispatchMode]]:
    """Within the block no mode is asked."""
    before, dispatch.taking_over.runner = dispatch.taking_over.runner, None
    try:
        yield list(_entered)
    finally:
        dispatch.taking_over.runner = before
