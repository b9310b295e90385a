"""A compiled module: the module itself, with a forward that is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.compile.compiled import Compiled
from flambeau.nn.modules.module import Module

__all__ = ["OptimizedModule"]

_OWN = frozenset(("_orig_mod", "_compiled", "_settings"))


class OptimizedModule(Module):
    """`torch.compile(module)`. Parameters, state and attributes are those of the module, which is
    `_orig_mod`; copies and pickles carry it along and compile anew.

    Args:
        settings: keyword arguments of `Compiled`; None runs the module as it is.
    """

    def __init__(self, module: Module, settings: dict[str, Any] | None = None):
        super().__init__()
        self._modules["_orig_mod"] = module
        self.__dict__["_settings"] = settings
        self._compile()

    def _compile(self) -> None:
        module, settings = self._modules["_orig_mod"], self.__dict__["_settings"]
        self.__dict__.pop("training", None)  # the module's is the only one
        self.__dict__["_compiled"] = module if settings is None else Compiled(module, **settings)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["_compiled"](*args, **kwargs)

    def explain(self, times: bool = True) -> str:
        """The captured programs, in plain words; see `Compiled.explain`."""
        compiled = self.__dict__["_compiled"]
        return compiled.explain(times) if isinstance(compiled, Compiled) else "runs as it is"

    def graph_html(self, path: Any = None, times: bool = True) -> str:
        """The captured programs as an HTML page; see `Compiled.graph_html`."""
        compiled = self.__dict__["_compiled"]
        if not isinstance(compiled, Compiled):
            raise RuntimeError("graph_html: the module runs as it is; there is no program")
        return compiled.graph_html(path, times)

    @property
    def training(self) -> bool:  # type: ignore[override]
        """The flag of the module."""
        return self._modules["_orig_mod"].training

    @training.setter
    def training(self, value: bool) -> None:
        if "_orig_mod" in self.__dict__.get("_modules", ()):
            self._modules["_orig_mod"].training = value

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod" or "_orig_mod" not in self.__dict__.get("_modules", ()):
            return super().__getattr__(name)
        return getattr(self._modules["_orig_mod"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        inside = "_orig_mod" in self.__dict__.get("_modules", ())
        if inside and name != "training" and name not in _OWN and name not in self.__dict__:
            setattr(self._modules["_orig_mod"], name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._modules["_orig_mod"], name)

    def __len__(self) -> int:
        return len(self._modules["_orig_mod"])  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __getstate__(self) -> dict:
        state = super().__getstate__()
        state.pop("_compiled", None)
        return state

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._compile()

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._modules["_orig_mod"])})

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile anew, with these arguments of `torch.compile`."""
        import flambeau

        again: Callable = flambeau.compile(self._modules["_orig_mod"], *args, **kwargs)
        self.__dict__["_settings"] = again.__dict__["_settings"]
        self._compile()
