"""Every op of the table has a docstring and samples, every public operation a description and an
example: documentation and tests come of them."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from entries import entries

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


def undescribed(found: Iterable[Any]) -> Iterator[str]:
    """The public operations whose docstring says nothing or shows nothing."""
    for entry in found:
        said, example, _ = entry.doc.partition(">>> ")
        if len(said.strip()) < LEAST_DOC:
            yield f"{entry.title} has no docstring"
        if not example:
            yield f"{entry.title} has no example: `>>> {entry.title}(...)` and what it prints"


def main() -> int:
    """Print the problems; returns 1 if there are any."""
    ops, public = registry(), entries()
    found = [*problems(ops), *undescribed(public)]
    for line in found:
        print(f"   {line}")
    print(f"   {len(ops)} ops, {len(public)} public operations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
