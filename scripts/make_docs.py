"""Writes docs/ops.md, a table of all ops by family, from their records; `--check` only compares."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from op_signatures import family, registry, short_name, signature, update

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "docs" / "ops.md"

HEAD = """# Operations

Generated from the op records by `scripts/make_docs.py`; do not edit. Each op is defined once, in
the module of `flambeau/ops/` that heads its table; what else there is of it is derived.

- **where**: `torch`, `F` (`torch.nn.functional`), other namespaces, `.` for a method of `Tensor`.
- **forms**: `_` in place, `out` with `out=`, `view` shares memory with its first argument where the
  layout allows it.
- **gradient**: `derived` from the primitives, `rule` written beside the op, `-` none.
"""


def rows(records: list[Any]) -> Iterator[str]:
    """The lines of one family's table."""
    yield "| op | does | where | forms | gradient |"
    yield "|---|---|---|---|---|"
    for record in sorted(records, key=short_name):
        name = f"`{short_name(record)}({signature(record)})`".replace("|", "\\|")
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
    parts = [HEAD]
    for name in sorted(families):
        doc = importlib.import_module(f"flambeau.ops.{name}").__doc__ or ""
        parts.append(f"## {name}\n\n{doc.strip().split(chr(10) + chr(10))[0]}\n\n"
                     + "\n".join(rows(families[name])) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is up to date."""
    return update(PATH, page(), "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
