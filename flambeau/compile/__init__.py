"""Compiling whole functions: capture of one real run, guards, replay as one native call.

`compiled.py` is what users hold: it chooses a program for a call. `capture.py` follows a run and
writes it down as values, `recording.py` finds the program's inputs and results, `replay.py` runs
it, `guards.py` says when it may be used again.
"""

from __future__ import annotations

from typing import Any

__all__ = ["compile", "CaptureError"]


def compile(model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None,
            backend: Any = None, mode: Any = None, options: Any = None,
            disable: bool = False) -> Any:
    """A function (or module) that runs as one native call after it has been captured.

    The first calls run eagerly, for real, and are captured; as soon as a run leaves no new state
    behind (an optimizer makes its state in its first step) the program is compiled, and later calls
    with the same layouts replay it. What can change between calls is an input (tensors, learning
    rates) or guarded (other Python values); a new situation is captured anew.

    A program cannot hold what happens in Python: reading a value computed inside (`.item()`,
    `if loss > 1`), stepping a scheduler. A function that does so runs eagerly, with a warning that
    names the line and a rewrite.

    Args:
        fullgraph: raise `CaptureError` instead of that warning.
        options: {"exact": True} stores the result of every operation, so that the program rounds
            exactly as eager runs do; by default operations are fused.
        dynamic, backend, mode: accepted; there is one compiler, and kernels serve all sizes.
    """
    from flambeau.compile.compiled import Compiled
    from flambeau.compile.module import OptimizedModule
    from flambeau.nn.modules.module import Module

    if model is None:
        def decorate(function: Any) -> Any:
            return compile(function, fullgraph=fullgraph, options=options, disable=disable)

        return decorate
    if disable:
        return model
    exact = bool((options or {}).get("exact"))
    kind = OptimizedModule if isinstance(model, Module) else Compiled
    return kind(model, exact, fullgraph)


def __getattr__(name: str) -> Any:
    if name == "CaptureError":
        from flambeau.compile.capture import CaptureError

        return CaptureError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
