"""Runs the Python blocks of a page, in one process and in order, and writes what they print into
the text blocks that follow them.

    python scripts/make_printed.py docs/compile.md           # write
    python scripts/make_printed.py docs/compile.md --check   # exit 1 if the page is not up to date
"""

from __future__ import annotations

import contextlib
import difflib
import io
import linecache
import os
import re
import sys
from pathlib import Path

os.environ["FLAMBEAU_NO_PLANS"] = "1"  # the page looks at plans that were just made

BLOCK = re.compile(r"```python\n(.*?)```(\n+```text\n(.*?)```)?", re.DOTALL)


def printed(path: Path) -> str:
    """The page, with what its blocks print now."""
    space: dict = {"__name__": "__main__"}
    text = path.read_text("utf-8")
    blocks: list[str] = []

    def run(match: re.Match) -> str:
        name = f"{path.name}[{len(blocks) + 1}]"
        blocks.append(name)
        source = match[1]
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(source, name, "exec"), space)
        block = f"```python\n{source}```"
        if match[2] is None:
            assert not out.getvalue(), f"{name} prints, but no text block follows it"
            return block
        return f"{block}\n\n```text\n{out.getvalue().rstrip()}\n```"

    return BLOCK.sub(run, text)


def main(arguments: list[str]) -> int:
    """The exit status."""
    check = "--check" in arguments
    for name in arguments:
        if name == "--check":
            continue
        path = Path(name)
        old, new = path.read_text("utf-8"), printed(path)
        if check and old != new:
            sys.stdout.writelines(difflib.unified_diff(
                old.splitlines(True), new.splitlines(True), name, "as printed now"))
            print(f"\n{name} is not up to date: python scripts/make_printed.py {name}")
            return 1
        if not check:
            path.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
