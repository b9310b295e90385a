"""What docs and stubs say about an op: its signature, and whether it gives one tensor or more."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

__all__ = ["PUBLIC_TYPES", "registry", "short_name", "signature", "family", "result_count",
           "update"]

# The annotations of records, as users see them.
PUBLIC_TYPES = {
    "Operand": "Tensor | Number", "Operand | None": "Tensor | Number | None", "Index": "Tensor",
    "Index | None": "Tensor | None", "Tensors": "Sequence[Tensor]", "object": "Any",
    "<class 'inspect._empty'>": "Any", "tuple": "Sequence[int]",
    "tuple | None": "Sequence[int] | None", "int | tuple": "int | Sequence[int]",
    "int | tuple | None": "int | Sequence[int] | None",
    "int | tuple | str": "int | Sequence[int] | str",
}


def registry() -> Mapping[str, Any]:
    """The op table, with every family imported."""
    importlib.import_module("flambeau.tensor.functions")
    return importlib.import_module("flambeau.ops.record").REGISTRY


def short_name(record: Any) -> str:
    """The name without its namespace."""
    return record.name.split(".")[-1]


def family(record: Any) -> str:
    """The module of flambeau.ops that holds the op."""
    return record.body.__module__.rpartition(".")[2]


def signature(record: Any, types: bool = False, out: bool = False, first: str | None = None) -> str:
    """The parameters as Python writes them.

    Args:
        types: with annotations.
        out: with `out=None` at the end.
        first: what the first parameter is called instead ("self").
    """
    words, keywords = [], False
    for number, param in enumerate(record.params):
        if param.keyword_only and not keywords:
            keywords = True
            words.append("*")
        name = first if first and number == 0 else param.name
        typed = types and not (first and number == 0)
        words.append(_parameter(name, PUBLIC_TYPES.get(param.annotation, param.annotation)
                                if typed else "", param))
    if out and record.out:
        words += [] if keywords else ["*"]
        words.append("out: Any = None" if types else "out=None")
    return ", ".join(words)


def _parameter(name: str, annotation: str, param: Any) -> str:
    text = f"{name}: {annotation}" if annotation else name
    if param.required:
        return text
    equals = " = " if annotation else "="
    default = {float("inf"): "float('inf')"}.get(param.default) if isinstance(
        param.default, float) else None
    return f"{text}{equals}{default or repr(param.default)}"


def result_count(record: Any) -> int | None:
    """How many tensors a call gives; None if that depends on its arguments."""
    if record.returns:
        return len(record.returns)
    if getattr(record, "many", False):
        return None
    return 1


def update(path: Any, text: str, check: bool) -> int:
    """Write a generated file, or with `check` only compare; returns 1 if it was out of date."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if old == text:
        print(f"   {path.name} is up to date")
        return 0
    if check:
        print(f"   {path.name} is out of date: run scripts/{_maker(path)}")
        return 1
    path.write_text(text, encoding="utf-8")
    print(f"   {path.name} written")
    return 0


def _maker(path: Any) -> str:
    return "make_docs.py" if path.suffix == ".md" else "make_stubs.py"
