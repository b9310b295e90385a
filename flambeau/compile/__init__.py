"""Compiling whole functions: capture of one real run, guards, replay as one native call.

- What users hold: `compiled.py` chooses a program for a call (`quick.py`: the shortest way to one);
  `module.py` wraps modules; `control.py`, `stance.py` are `torch.compiler`, `choices.py` the
  arguments.
- A program: `capture.py` follows a run and writes it down as values, `recording.py` finds its
  inputs and results, `interface.py` says how these lie in memory, `replay.py` runs it.
- When it may be used again: `reach.py` walks over what the code may read, `surroundings.py` is what
  lies around it, `guards.py` compares; `trees.py` takes arguments and results apart.
- Gradients computed later: `differentiable.py`, and `partition.py`, which parts the joint graph.
- Functions that look at values run in parts: `deferral.py` puts operations off until then,
  `segments.py` runs them, `segment_programs.py` compiles them.
- Sizes that vary: `dynamic.py`.
- Telling what was done: `origins.py`, `report.py`, `explain.py`, `listing.py`, `timing.py`,
  `page.py`, and `planning.py` before anything runs.
"""

from __future__ import annotations

from typing import Any

__all__ = ["CaptureError", "compile", "mark_dynamic", "mark_static"]


def compile(model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None,
            backend: Any = None, mode: str | None = None,
            options: dict[str, Any] | None = None, name: str | None = None,
            disable: bool = False, recompile_limit: int | None = None,
            isolate_recompiles: bool = False, shapes_spec: Any = None) -> Any:
    """A function (or module) that runs as one native call after it has been captured.

    The first calls run in Python and are captured; as soon as a run leaves no new state
    behind (an optimizer makes its state in its first step) the program is compiled, and later calls
    with the same layouts replay it. What can change between calls is an input (tensors, learning
    rates, numbers that have been seen to change) or guarded (other Python values); a new situation
    is captured anew. Without `model` the result is a decorator.

    A program cannot hold what happens in Python: reading a value computed inside (`.item()`,
    `if loss > 1`), stepping a scheduler. A function that does so runs in captured parts, with
    Python between them.

    Args:
        fullgraph: raise `CaptureError`, which names the line and a rewrite, instead.
        dynamic: as in PyTorch, whether sizes are symbolic; None: once they have changed.
        backend: "inductor" (the default, see `torch.compiler.set_default_backend`) compiles;
            "eager" and "aot_eager" run the function as it is.
        mode: "strict" makes results equal eager runs' bit for bit; PyTorch's modes mean the same
            one compiler.
        options: {"exact": True} is the same as mode="strict". By default operations are fused,
            which rounds less often.
        disable: return `model` itself.
        name, recompile_limit, isolate_recompiles: accepted, without effect.

    Raises:
        RuntimeError: an unknown mode, option or backend.
        NotImplementedError: a backend of one's own, or `shapes_spec`.

    >>> f = torch.compile(lambda x: x.sin() * 2)
    >>> f(torch.zeros(2))
    tensor([0., 0.])
    """
    from flambeau.compile.choices import choose
    from flambeau.compile.compiled import Compiled
    from flambeau.compile.module import OptimizedModule
    from flambeau.nn.modules.module import Module

    if shapes_spec is not None:
        raise NotImplementedError("shapes_spec: use dynamic=True or torch.compiler.mark_dynamic")
    choices = choose(mode, options, backend)
    if model is None:
        def decorate(function: Any) -> Any:
            return compile(function, fullgraph=fullgraph, dynamic=dynamic, backend=backend,
                           mode=mode, options=options, disable=disable)
        return decorate
    if isinstance(model, type) or not callable(model):
        raise TypeError("torch.compile takes a function, a method or a module, not "
                        + (f"the class {model.__name__}" if isinstance(model, type)
                           else type(model).__name__))
    if disable:
        return model
    settings = {"exact": choices.exact, "fullgraph": fullgraph, "dynamic": dynamic}
    if isinstance(model, Module):
        return OptimizedModule(model, settings if choices.compiled else None)
    return Compiled(model, **settings) if choices.compiled else model


def __getattr__(name: str) -> Any:
    if name == "CaptureError":
        from flambeau.compile.capture import CaptureError

        return CaptureError
    if name in ("mark_dynamic", "mark_static"):
        from flambeau.compile import dynamic

        return getattr(dynamic, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
