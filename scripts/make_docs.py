"""Writes docs/ops.md, a table of all ops by family, and the pages of docs/reference, from records
and docstrings; `--check` only compares."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entries import entries
from op_signatures import family, registry, short_name, signature, update
from reference_pages import anchor, pages

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "docs" / "ops.md"
REFERENCE = ROOT / "docs" / "reference"

HEAD = """# Operations

Generated from the op records by `scripts/make_docs.py`; do not edit. Each op is defined once, in
the module of `flambeau/ops/` that heads its table; what else there is of it is derived. Names lead
to the [reference](reference/README.md), which has descriptions and examples.

- **where**: `torch`, `F` (`torch.nn.functional`), other namespaces, `.` for a method of `Tensor`.
- **forms**: `_` in place, `out` with `out=`, `view` shares memory with its first argument where the
  layout allows it.
- **gradient**: `derived` from the primitives, `rule` written beside the op, `-` none.
"""


def rows(records: list[Any], links: dict[int, str]) -> Iterator[str]:
    """The lines of one family's table."""
    yield "| op | does | where | forms | gradient |"
    yield "|---|---|---|---|---|"
    for record in sorted(records, key=short_name):
        name = f"`{short_name(record)}({signature(record)})`".replace("|", "\\|")
        if id(record) in links:
            name = f"[{name}]({links[id(record)]})"
        also = "".join(f", `{alias}`" for alias in record.aliases)
        yield (f"| {name}{also} | {first_sentence(record.doc)} | {where(record)} | {forms(record)} "
               f"| {gradient(record)} |")


def first_sentence(doc: str) -> str:
    """The first line of the docstring, or its first sentence if that is longer."""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    sentence = re.match(r".*?[.?](?=\s+[A-Z`(\"]|$)", paragraph)
    return (sentence.group() if sentence else paragraph).replace("|", "\\|")


def where(record: Any) -> str:
    """The namespaces that have it, and "." for a method."""
    places = ["F" if space == "nn.functional" else space for space in record.public]
    if record.method and not short_name(record).startswith("_"):
        places.append(".")
    return " ".join(places)


def forms(record: Any) -> str:
    """The derived forms beside the function."""
    found = ["view"] if record.kind == "view" else []
    found += ["_"] if record.inplace or getattr(record, "mutates", None) else []
    return " ".join(found + (["out"] if record.out else []))


def gradient(record: Any) -> str:
    """Where the gradient comes from."""
    if not record.differentiable:
        return "-"
    return "rule" if record.gradient is not None else "derived"


def page() -> str:
    """The whole text."""
    families: dict[str, list[Any]] = {}
    for record in registry().values():
        if short_name(record).startswith("_") or not (record.public or record.method):
            continue
        families.setdefault(family(record), []).append(record)
    links = {id(entry.record): f"reference/{entry.page}.md#{anchor(entry.title)}"
             for entry in entries() if entry.record is not None}
    parts = [HEAD]
    for name in sorted(families):
        doc = importlib.import_module(f"flambeau.ops.{name}").__doc__ or ""
        parts.append(f"## {name}\n\n{doc.strip().split(chr(10) + chr(10))[0]}\n\n"
                     + "\n".join(rows(families[name], links)) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say whether they are up to date."""
    check = "--check" in arguments
    status = update(PATH, page(), check)
    REFERENCE.mkdir(exist_ok=True)
    texts = pages()
    changed = [path for name, text in texts.items() if (path := REFERENCE / f"{name}.md")
               and (not path.exists() or path.read_text(encoding="utf-8") != text)]
    for path in changed:
        status |= update(path, texts[path.stem], check)
    print(f"   docs/reference: {len(texts) - len(changed)} of {len(texts)} pages were up to date")
    for stale in REFERENCE.glob("*.md"):
        if stale.stem not in texts:
            print(f"   {stale.name} is of an operation that is gone")
            status |= check
            stale.unlink(missing_ok=True) if not check else None
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
