"""A compiled module: the module itself, with a forward that is compiled."""

from __future__ import annotations

from typing import Any

from flambeau.compile.compiled import Compiled
from flambeau.nn.modules.module import Module

__all__ = ["OptimizedModule"]


class OptimizedModule(Module):
    """`torch.compile(module)`. Parameters, state and attributes are those of the module."""

    def __init__(self, module: Module, exact: bool = False, fullgraph: bool = False):
        super().__init__()
        self._orig_mod = module
        self.__dict__["_compiled"] = Compiled(module, exact, fullgraph)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["_compiled"](*args, **kwargs)

    def explain(self) -> str:
        """The captured programs, in plain words."""
        return self.__dict__["_compiled"].explain()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["_orig_mod"], name)
