"""What the arguments of `torch.compile` choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["BACKENDS", "MODES", "Choices", "choose"]

MODES = ("default", "lite", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs",
         "strict")
"""There is one compiler, without autotuning or graphs of launches to choose: all of PyTorch's modes
mean the same. "strict" stores the result of every operation, so that bits equal eager runs'."""

BACKENDS = {"inductor": "compile", "flambeau": "compile", "eager": "run", "aot_eager": "run"}
"""Names, and whether functions are compiled or just run."""

_ELSEWHERE = ("cudagraphs", "openxla", "tvm", "onnxrt")
_IGNORED = frozenset((
    "triton.cudagraphs", "triton.cudagraph_trees", "max_autotune", "max_autotune_gemm",
    "max_autotune_pointwise", "epilogue_fusion", "shape_padding", "fallback_random",
    "trace.enabled", "trace.graph_diagram", "coordinate_descent_tuning", "guard_filter_fn",
    "freezing", "cpp_wrapper", "fx_graph_cache", "force_disable_caches", "debug"))
_DEFAULT = ["inductor"]


class Choices(NamedTuple):
    """How a function is compiled.

    Attributes:
        exact: equal bits to eager runs.
        compiled: False for backends that only run the function.
    """

    exact: bool = False
    compiled: bool = True


def choose(mode: str | None, options: Mapping[str, Any] | None, backend: Any) -> Choices:
    """The choices, checked.

    Raises:
        RuntimeError: an unknown mode, option or backend, or both mode and options.
        NotImplementedError: a backend of one's own.
    """
    if mode is not None and options:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified "
                           "at the same time.")
    if mode is not None and mode not in MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(MODES)}")
    for name in options or ():
        if name != "exact" and name.replace("-", "_") not in _IGNORED:
            raise RuntimeError(f"Unexpected optimization option {name}, known options are "
                               f"['exact', {', '.join(map(repr, sorted(_IGNORED)))}]")
    exact = mode == "strict" or bool((options or {}).get("exact"))
    return Choices(exact, _kind(backend) == "compile")


def get_default_backend() -> Any:
    """What `torch.compile` takes where no backend is named: "inductor" unless it was set."""
    return _DEFAULT[0]


def set_default_backend(backend: Any) -> None:
    """Set that; None sets it back.

    Raises:
        as `torch.compile(backend=...)`.
    """
    _kind(backend)
    _DEFAULT[0] = "inductor" if backend is None else backend


def _kind(backend: Any) -> str:
    if backend is None:
        backend = _DEFAULT[0]
    if isinstance(backend, str):
        if backend in BACKENDS:
            return BACKENDS[backend]
        if backend in _ELSEWHERE:
            raise RuntimeError(f"The backend {backend!r} belongs to another compiler than this "
                               f"one. There are {', '.join(BACKENDS)}.")
        raise RuntimeError(f"Invalid backend: {backend!r}, see torch.compiler.list_backends() for "
                           "available backends.")
    if callable(backend):
        raise NotImplementedError(
            "torch.compile(backend=<function>) hands graphs of torch.fx to the function, which do "
            "not exist here. Leave `backend` out to compile, or pass backend='eager' to run the "
            "function as it is.")
    raise TypeError(f"backend must be a string, not {type(backend).__name__}")
