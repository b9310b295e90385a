"""Every op of the table has a docstring and samples: its documentation and tests come of them."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

# Shorter than this is a placeholder, not a description.
LEAST_DOC = 10


def registry() -> Mapping[str, Any]:
    """The op table, with every family imported."""
    families = importlib.import_module("flambeau.ops")
    for family in pkgutil.walk_packages(families.__path__, "flambeau.ops."):
        importlib.import_module(family.name)
    return importlib.import_module("flambeau.ops.record").REGISTRY


def problems(ops: Mapping[str, Any]) -> Iterator[str]:
    """What is missing from the records."""
    if not ops:
        yield "the op table is empty"
    for name, op in sorted(ops.items()):
        if len((op.doc or "").strip()) < LEAST_DOC:
            yield f"{name} has no docstring"
        if op.samples is None:
            yield f"{name} has no samples"
        elif not callable(op.samples):
            yield f"{name}: samples should be a function, it is a {type(op.samples).__name__}"


def main() -> int:
    """Print the problems; returns 1 if there are any."""
    ops = registry()
    found = list(problems(ops))
    for line in found:
        print(f"   {line}")
    print(f"   {len(ops)} ops")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
