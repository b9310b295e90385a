"""What a user has to keep: the installed size of all of Flambeau's hard dependencies together."""

from __future__ import annotations

import re
import sys
from importlib import metadata

PACKAGE = "flambeau"
# Measured 2026-11 on x86-64 Linux: llvmlite 0.50 174 MB (LLVM), numpy 2.4 74 MB, ml_dtypes 2 MB.
# PyTorch: 750 MB or more.
BUDGET_MB = 270


def name_of(requirement: str) -> str:
    """"numpy>=2.0; python_version > '3'" -> "numpy"."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return match.group()


def hard_requirements(distribution: str) -> list[str]:
    """The names that a plain `pip install` brings; extras do not count."""
    requirements = metadata.requires(distribution) or []
    return [name_of(text) for text in requirements if "extra ==" not in text.partition(";")[2]]


def closure(distribution: str) -> set[str]:
    """All hard dependencies, theirs included."""
    found: set[str] = set()
    waiting = hard_requirements(distribution)
    while waiting:
        name = waiting.pop()
        try:
            further = hard_requirements(name)
        except metadata.PackageNotFoundError:
            continue  # a marker excludes it here
        if name not in found:
            found.add(name)
            waiting += further
    return found


def megabytes(distribution: str) -> float:
    """The size of a distribution's installed files in 10^6 bytes, compiled bytecode left out."""
    total = 0
    for file in metadata.files(distribution) or ():
        path = file.locate()
        if file.suffix != ".pyc" and path.is_file():
            total += path.stat().st_size
    return total / 1e6


def main() -> int:
    """Print each size; returns 1 beyond the budget."""
    total = 0.0
    for name in sorted(closure(PACKAGE)):
        size = megabytes(name)
        total += size
        print(f"   {name} {metadata.version(name)}: {size:.0f} MB")
    print(f"   together {total:.0f} MB of at most {BUDGET_MB} MB")
    return 1 if total > BUDGET_MB else 0


if __name__ == "__main__":
    sys.exit(main())
