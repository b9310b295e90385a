"""Code written for PyTorch that is to use this package: its `import torch` gives flambeau.

Nothing that others see is changed: neither `sys.modules` nor what `torch` means elsewhere, where
PyTorch itself may be in use. Only the modules that are loaded from the repository's folder get an
`__import__` of their own, which also serves imports that their functions make later.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

__all__ = ["as_torch", "is_mapped", "mapped_spec"]

_WANTED: ContextVar[bool] = ContextVar("flambeau_hub_as_torch", default=False)


@contextlib.contextmanager
def as_torch() -> Iterator[None]:
    """Within the block, `torch.hub` loads repositories so that their `import torch` gives this
    package, whether PyTorch is installed or not.

    It holds for the repository's own modules, and for what their functions import later. Packages
    that it needs from elsewhere (torchvision, say) import what they always import.
    """
    token = _WANTED.set(True)
    try:
        yield
    finally:
        _WANTED.reset(token)


def is_mapped() -> bool:
    """Does the thread load repositories so?"""
    return _WANTED.get()


def mapped_spec(name: str, path: str, folder: str) -> importlib.machinery.ModuleSpec | None:
    """How the module in the file `path` is loaded, if all in `folder` shall use this package."""
    return importlib.util.spec_from_file_location(name, path, loader=_Loader(name, path, folder))


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module whose imports go through `_import`."""

    def __init__(self, name: str, path: str, folder: str):
        super().__init__(name, path)
        self.folder = folder

    def exec_module(self, module: types.ModuleType) -> None:
        own = dict(vars(builtins))
        own["__import__"] = _Import(self.folder)
        module.__dict__["__builtins__"] = own  # what Python asks for the names of a module's code
        super().exec_module(module)


class _Import:
    """The `__import__` of a repository's modules."""

    def __init__(self, folder: str):
        self.folder = folder

    def __call__(self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (),
                 level: int = 0) -> Any:
        if level == 0 and name.partition(".")[0] == "torch":
            name = "flambeau" + name.removeprefix("torch")
            return builtins.__import__(name, globals, locals, fromlist, 0)
        finder = _Finder(self.folder)
        sys.meta_path.insert(0, finder)
        try:
            return builtins.__import__(name, globals, locals, fromlist, level)
        finally:
            sys.meta_path.remove(finder)


class _Finder:
    """Finds the other modules of the repository's folder."""

    def __init__(self, folder: str):
        self.folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of a module that lies in the folder; None for others."""
        places = [self.folder] if path is None else [
            place for place in path
            if os.path.commonpath([self.folder, os.path.abspath(place)]) == self.folder]
        spec = importlib.machinery.PathFinder.find_spec(name, places) if places else None
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path, self.folder)
        return spec
