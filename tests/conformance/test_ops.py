"""Every public op on all its samples, Flambeau beside PyTorch in one process on the same data."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from op_cases import RECORDS, Case, cases, leaves, private, short_name, tensors, to_array

import flambeau

pytorch = pytest.importorskip("torch")

DTYPES = ("float32", "float64", "int64", "bool", "bfloat16", "float16", "uint8", "int32")

# rtol and atol by dtype, as torch.testing.assert_close has them.
TOLERANCE = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5),
             "float64": (1e-7, 1e-7), "complex64": (1.3e-6, 1e-5), "complex128": (1e-7, 1e-7)}

PUBLIC = {name: record for name, record in RECORDS.items() if not private(record)}

# Ops that PyTorch reaches through an overload of another name.
OVERLOADS = {"max_dim": "max", "min_dim": "min", "max_all": "max", "min_all": "min"}


def places(record: Any) -> list[tuple[str, str]]:
    """(namespace, name) of every public function of the op; namespace "Tensor" for a method."""
    names = (short_name(record), *record.aliases)
    found = [(space, name) for space in record.public for name in names]
    if record.method and not record.public:
        found += [("Tensor", name) for name in names]
    return found


def function_in(torch: ModuleType, space: str, name: str) -> Callable | None:
    """The function, or None if the framework has none of that name."""
    if space == "Tensor":
        return getattr(torch.Tensor, name, None)
    try:
        module = torch if space == "torch" else importlib.import_module(f"{torch.__name__}.{space}")
    except ModuleNotFoundError:
        return None
    return getattr(module, name, None)


def outcome(function: Callable, args: tuple, kwargs: dict) -> Any:
    """The result as a flat list, or the exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return error
    return list(leaves(result))


def difference(found: Any, expected: Any, strides: bool = False) -> str | None:
    """How two outcomes differ, or None."""
    if isinstance(found, Exception) or isinstance(expected, Exception):
        return error_difference(found, expected)
    if len(found) != len(expected):
        return f"{len(found)} results instead of {len(expected)}"
    for mine, theirs in zip(found, expected, strict=True):
        text = value_difference(mine, theirs, strides)
        if text:
            return text
    return None


def error_difference(found: Any, expected: Any) -> str | None:
    if not isinstance(found, Exception):
        return f"no error; PyTorch raises {type(expected).__name__}: {first_line(expected)}"
    if not isinstance(expected, Exception):
        return f"raises {type(found).__name__}: {first_line(found)}"
    if not isinstance(found, type(expected)):
        return (f"raises {type(found).__name__} ({first_line(found)}) instead of "
                f"{type(expected).__name__} ({first_line(expected)})")
    return None


def first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:160]


def value_difference(mine: Any, theirs: Any, strides: bool) -> str | None:
    if not isinstance(theirs, pytorch.Tensor):
        return None if mine == theirs else f"{mine!r} instead of {theirs!r}"
    if repr(mine.dtype) != repr(theirs.dtype):
        return f"dtype {mine.dtype} instead of {theirs.dtype}"
    if tuple(mine.shape) != tuple(theirs.shape):
        return f"shape {tuple(mine.shape)} instead of {tuple(theirs.shape)}"
    if strides and tuple(mine.stride()) != tuple(theirs.stride()):
        return f"strides {mine.stride()} instead of {theirs.stride()}"
    a, b = to_array(flambeau, mine), to_array(pytorch, theirs)
    rtol, atol = TOLERANCE.get(repr(mine.dtype).removeprefix("torch."), (0, 0))
    close = np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return None
    where = tuple(int(i) for i in np.argwhere(~close)[0])
    return (f"{(~close).sum()} of {close.size} values differ, first at {where}: {a[where]!r} "
            f"instead of {b[where]!r}")


def pairs(record: Any) -> Iterator[tuple[str, Callable, Callable]]:
    """(name, Flambeau's function, PyTorch's)."""
    for space, name in places(record):
        mine, theirs = function_in(flambeau, space, name), function_in(pytorch, space, name)
        assert theirs is not None, f"PyTorch has no {space}.{name}"
        assert mine is not None, f"Flambeau has no {space}.{name}"
        yield f"{space}.{name}", mine, theirs


def assert_none(problems: list[str]) -> None:
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems[:12])


def compare(record: Any, dtype: str, change: Callable[[Case], Case | None] = lambda case: case,
            strides: bool = False) -> list[str]:
    problems = []
    for name, mine, theirs in list(pairs(record))[:1]:
        for case in cases(record, dtype):
            changed = change(case)
            if changed is None:
                continue
            found = outcome(mine, tensors(flambeau, case.args), tensors(flambeau, case.kwargs))
            expected = outcome(theirs, tensors(pytorch, case.args), tensors(pytorch, case.kwargs))
            text = difference(found, expected, strides)
            if text:
                problems.append(f"{name}: {case.label}: {text}")
    return problems


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PUBLIC)
def test_forward(name: str, dtype: str):
    assert_none(compare(PUBLIC[name], dtype))
