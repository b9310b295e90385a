"""We aim at files of 800 lines and functions of 60; beyond 1000 and 100 the gate fails."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("flambeau", "tests", "scripts", "examples", "bench")


class Limit(NamedTuple):
    """Lines: what we aim at, and where the gate fails."""

    aim: int
    most: int


FILE = Limit(800, 1000)
FUNCTION = Limit(60, 100)


class Size(NamedTuple):
    """The length of one file or function, and its limit."""

    name: str
    lines: int
    limit: Limit


def sizes(path: Path, name: str) -> Iterator[Size]:
    """The file itself, then each function in it."""
    text = path.read_text(encoding="utf-8")
    yield Size(name, text.count("\n"), FILE)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            lines = node.end_lineno - node.lineno + 1
            yield Size(f"{name}:{node.lineno} {node.name}", lines, FUNCTION)


def main() -> int:
    """Print what passes the aim; returns 1 if something passes the limit."""
    status = count = 0
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            count += 1
            for size in sizes(path, str(path.relative_to(ROOT))):
                if size.lines > size.limit.most:
                    status = 1
                    print(f"   too long: {size.name}: {size.lines} lines of {size.limit.most}")
                elif size.lines > size.limit.aim:
                    print(f"   long: {size.name}: {size.lines} lines, better {size.limit.aim}")
    print(f"   {count} files")
    return status


if __name__ == "__main__":
    sys.exit(main())
