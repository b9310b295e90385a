"""IR -> native code: scheduling into loop nests, code generation, vector maths, GEMM, LLVM.

A graph becomes a run-list of *nests*: native functions `void nest(ptr args, i32 chunk, i32 nchunks,
i32 thread)` whose sizes, strides and scalars are run-time parameters. Nothing here runs code or
owns memory: that is runtime/. What users know as `torch.compiler` lives in compile/control.py; this
package hands it out by name, and knows nothing of it.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__: list[str] = []

_USERS = frozenset((
    "allow_in_graph", "assume_constant_result", "compile", "cudagraph_mark_step_begin", "disable",
    "get_default_backend", "set_default_backend",
    "is_compiling", "is_dynamo_compiling", "is_exporting", "list_backends",
    "load_cache_artifacts", "nested_compile_region", "plan", "reset", "save_cache_artifacts",
    "set_stance", "substitute_in_graph", "wrap_numpy"))


def __getattr__(name: str) -> Any:
    if name in _USERS:
        return getattr(importlib.import_module("flambeau.compile.control"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
