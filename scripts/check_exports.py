"""`__all__` tells the truth: every public module has one, its names exist, none is there twice."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType

PACKAGE = "flambeau"
# Here the op records are what is exported: a list of the same names beside them could only drift.
RECORDS = "flambeau.ops."


def is_public(module: str) -> bool:
    """Whether no part of the dotted name starts with an underscore."""
    return not any(part.startswith("_") for part in module.split("."))


def modules(package: str) -> Iterator[ModuleType]:
    """Every module of the package, imported."""
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.walk_packages(root.__path__, package + "."):
        if not found.name.endswith(".__main__"):
            yield importlib.import_module(found.name)


def problems(module: ModuleType) -> Iterator[str]:
    """What is wrong with one module's `__all__`."""
    names = getattr(module, "__all__", None)
    if names is None:
        if is_public(module.__name__) and not module.__name__.startswith(RECORDS):
            yield f"{module.__name__} has no __all__"
        return
    for name in names:
        try:
            getattr(module, name)
        except (AttributeError, ImportError) as error:
            yield f"{module.__name__}.__all__ lists {name}, which does not exist: {error}"
    for name in sorted({name for name in names if list(names).count(name) > 1}):
        yield f"{module.__name__}.__all__ lists {name} twice"


def main() -> int:
    """Print the problems; returns 1 if there are any."""
    found = [problem for module in modules(PACKAGE) for problem in problems(module)]
    for line in found:
        print(f"   {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
