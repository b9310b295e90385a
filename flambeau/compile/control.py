"""`torch.compiler`: what users say about compilation from inside and outside of their functions.

`flambeau.compiler` is the folder of the compiler itself; it hands out these names.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from flambeau.compile import compile
from flambeau.compile.choices import BACKENDS, get_default_backend, set_default_backend
from flambeau.compile.compiled import Compiled
from flambeau.compile.deferral import deferring
from flambeau.compile.planning import plan
from flambeau.compile.stance import STANCES, current, enter, leave
from flambeau.tensor import dispatch, launches

__all__ = ["allow_in_graph", "assume_constant_result", "compile", "cudagraph_mark_step_begin",
           "disable", "get_default_backend", "is_compiling", "is_dynamo_compiling", "is_exporting",
           "list_backends", "nested_compile_region", "plan", "reset", "set_default_backend",
           "set_stance", "substitute_in_graph"]

_F = TypeVar("_F", bound=Callable[..., Any])


def reset() -> None:
    """Forget all captured programs; the next calls of compiled functions are captured again."""
    for holder in list(launches.resettable):
        if isinstance(holder, Compiled):
            holder.forget()


class disable(contextlib.ContextDecorator):
    """Run as if nothing was compiled: `disable(function)`, `@disable`, `with disable():`.

    A compiled function that calls a disabled one is captured in parts around it (an error with
    `fullgraph=True`).

    Args:
        fn: the function or module; None for a decorator or context manager.
        recursive: True also runs what the function calls uncompiled.
        reason: shown where `fullgraph=True` refuses it.
    """

    def __new__(cls, fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
        made = super().__new__(cls)
        if fn is None:
            return made
        made.__init__(None, recursive, reason=reason)
        return made(fn)

    def __init__(self, fn: Any = None, recursive: bool = True, *,
                 reason: str | None = None) -> None:
        self.recursive, self.reason = recursive, reason

    def __call__(self, func: Any) -> Any:
        if isinstance(func, Compiled):
            func = func.function
        if hasattr(func, "forward") and not isinstance(func, type):  # a module keeps its class
            func.forward = self(func.forward)
            return func

        @functools.wraps(func)
        def disabled(*args: Any, **kwargs: Any) -> Any:
            with self:
                return func(*args, **kwargs)

        return disabled

    def __enter__(self) -> disable:
        dispatch.host_action("a function marked with torch.compiler.disable"
                             + (f" ({self.reason})" if self.reason else ""))
        if self.recursive:
            enter("force_eager")
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.recursive:
            leave()


class set_stance(contextlib.ContextDecorator):
    """Say what compiled functions do from now on; as a context manager, until its end.

    Args:
        stance: "default"; "force_eager" runs them uncompiled; "eager_on_recompile" compiles nothing
            new, "fail_on_recompile" raises instead; "eager_then_compile" lets the first call of
            each function run eagerly.
        skip_guard_eval_unsafe: accepted and ignored: guards are cheap.
        force_backend: None, or "eager", which is the same as "force_eager".
    """

    def __init__(self, stance: str = "default", *, skip_guard_eval_unsafe: bool = False,
                 force_backend: Any = None) -> None:
        if stance not in STANCES:
            raise RuntimeError(f"invalid torch.compile stance '{stance}'; there are "
                               f"{', '.join(STANCES)}")
        if force_backend is not None and BACKENDS.get(force_backend) == "run":
            stance = "force_eager"
        elif force_backend is not None and BACKENDS.get(force_backend) != "compile":
            raise RuntimeError(f"Invalid backend: {force_backend!r}, see "
                               "torch.compiler.list_backends() for available backends.")
        self.stance = stance
        enter(stance)

    def __call__(self, func: _F) -> _F:
        leave()  # a decorator must not act at definition

        @functools.wraps(func)
        def within(*args: Any, **kwargs: Any) -> Any:
            enter(self.stance)
            try:
                return func(*args, **kwargs)
            finally:
                leave()

        return within  # type: ignore[return-value]

    def __enter__(self) -> set_stance:
        return self

    def __exit__(self, *exc_info: object) -> None:
        leave()


def is_compiling() -> bool:
    """Is this line run to be captured? Replays run no Python."""
    return bool(dispatch.observers) or deferring()


def is_dynamo_compiling() -> bool:
    """The same as `is_compiling`."""
    return is_compiling()


def is_exporting() -> bool:
    """Is this line run by `torch.export.export`?"""
    return current() == "export"


def allow_in_graph(fn: Any) -> Any:
    """`fn` (or each of a list), unchanged: captures go through every function."""
    if isinstance(fn, (list, tuple)):
        return [allow_in_graph(one) for one in fn]
    if not callable(fn):
        raise TypeError("allow_in_graph expects a callable")
    return fn


def assume_constant_result(fn: _F) -> _F:
    """`fn`, whose result programs keep without looking again at what it was made of."""
    fn.constant_result = True  # type: ignore[attr-defined]
    return fn


def substitute_in_graph(original_fn: Any, *, can_constant_fold_through: bool = False,
                        skip_signature_check: bool = False, **unused: Any) -> Callable[[_F], _F]:
    """A decorator that changes nothing: captures run the original itself."""
    def decorate(traceable_fn: _F) -> _F:
        return traceable_fn

    return decorate


def nested_compile_region(fn: _F | None = None, **unused: Any) -> Any:
    """`fn`, unchanged: equal kernels are compiled once wherever they occur."""
    return allow_in_graph if fn is None else fn


def cudagraph_mark_step_begin() -> None:
    """Accepted for compatibility: results never lie in memory that the next step overwrites."""


def list_backends(exclude_tags: Iterable[str] | None = ("debug", "experimental")) -> list[str]:
    """Names that `torch.compile(backend=)` takes; those that do not compile only without
    `exclude_tags`."""
    everything = "debug" not in (exclude_tags or ())
    return sorted(name for name, kind in BACKENDS.items() if everything or kind == "compile")


def __getattr__(name: str) -> Any:
    if name in _MISSING:
        raise NotImplementedError(f"torch.compiler.{name} does not exist here: {_MISSING[name]}")
    raise AttributeError(f"module 'torch.compiler' has no attribute {name!r}")


_MISSING = {
    "wrap_numpy": "programs hold tensor operations only. Write the function with torch's, and "
                  "convert with torch.from_numpy and .numpy() around it.",
    "save_cache_artifacts": "kernels are kept on disk by themselves; `flambeau cache pack` makes "
                            "an archive of them.",
    "load_cache_artifacts": "`flambeau cache unpack` reads an archive of kernels.",
}
