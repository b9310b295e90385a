"""Writes promotion.json: the dtypes that PyTorch gives (run by hand where PyTorch is installed).

    python tests/data/promotion_record.py
"""

from __future__ import annotations

import json
import operator
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
          "float64", "complex64", "complex128", "uint16", "uint32", "uint64")
WIDE_UNSIGNED = {"uint16", "uint32", "uint64"}  # PyTorch computes little with them
NUMBERS = {"bool": True, "int": 2, "float": 1.5, "complex": 1 + 2j}


def operand(kind: str, dtype: str):
    """A tensor with a dimension, one without, or a Python number."""
    if kind in NUMBERS:
        return NUMBERS[kind]
    return torch.ones((2,) if kind == "tensor" else (), dtype=getattr(torch, dtype))


def name(call: Callable, *args) -> str | None:
    """The dtype that the call gives; None for an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call(*args)
    except (RuntimeError, NotImplementedError):
        return None
    return str(getattr(result, "dtype", result)).removeprefix("torch.")


def main() -> None:
    """Record every pair of dtypes and kinds of operands."""
    table: dict[str, dict] = {"result_type": {}, "add": {}, "promote_types": {}, "can_cast": {},
                              "finfo": {}, "iinfo": {}}
    for a in DTYPES:
        for b in DTYPES:
            key = f"{a} {b}"
            one, other = getattr(torch, a), getattr(torch, b)
            table["promote_types"][key] = name(torch.promote_types, one, other)
            table["can_cast"][key] = torch.can_cast(one, other)
            for kind in ("tensor", "zero"):
                x, y = operand("tensor", a), operand(kind, b)
                table["result_type"][f"{a} {kind} {b}"] = name(torch.result_type, x, y)
                if not WIDE_UNSIGNED & {a, b}:
                    table["add"][f"{a} {kind} {b}"] = name(operator.add, x, y)
        for kind in NUMBERS:
            for place in ("tensor", "zero"):
                x, y = operand(place, a), operand(kind, "")
                table["result_type"][f"{place} {a} {kind}"] = name(torch.result_type, x, y)
                if a not in WIDE_UNSIGNED:
                    table["add"][f"{place} {a} {kind}"] = name(operator.add, x, y)
        dtype = getattr(torch, a)
        if dtype.is_floating_point or dtype.is_complex:
            info = torch.finfo(dtype)
            table["finfo"][a] = {k: getattr(info, k) for k in (
                "bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution", "dtype")}
            table["finfo"][a]["repr"] = repr(info)
        elif a != "bool":
            info = torch.iinfo(dtype)
            table["iinfo"][a] = {k: getattr(info, k) for k in ("bits", "max", "min", "dtype")}
            table["iinfo"][a]["repr"] = repr(info)
    path = Path(__file__).with_name("promotion.json")
    path.write_text(json.dumps(table, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
