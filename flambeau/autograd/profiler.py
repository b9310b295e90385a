"""The older place of the profiler, for `import flambeau.autograd.profiler`.

It watches operations, so it lives above the tensor layer, in `flambeau/profiler/legacy.py`; this
module only knows its name.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("flambeau.profiler.legacy"), name)


def __dir__() -> list[str]:
    return importlib.import_module("flambeau.profiler.legacy").__all__
