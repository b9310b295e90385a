"""Wrong calls of every op: an error at once, in the user's terms, naming the function and the
argument where the type is wrong; nothing internal, nothing accepted in silence."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from op_cases import RECORDS, Case, cases, function_of, leaves, private, short_name, tensors

import flambeau as torch

PUBLIC = sorted(name for name, record in RECORDS.items() if not private(record))

USERS = (TypeError, ValueError, RuntimeError, IndexError, OverflowError)
"""What a mistake may raise. Not: KeyError, AttributeError, AssertionError, ZeroDivisionError ..."""

INTERNAL = re.compile(
    r"LLVM|object has no attribute|unhashable|zip\(\) argument|tuple index out of range|<lambda>|"
    r"unsupported operand type\(s\) for|not subscriptable|cannot unpack|list index out|primitive|"
    r"<\d+ x |broadcast_shapes\(\)|_meta")


class Thing:
    """No number, no tensor, nothing that an operation takes."""


THING = Thing()
WRONG_TENSORS = ("a", THING, {}, [1.0, "b"], torch.float32)
WRONG_STATICS = {"int": ("a", THING, 1.5, True, [THING], 1 << 70), "bool": ("a", THING, 1.5, 2, []),
                 "float": ("a", THING, [THING], 1j), "str": (THING, 7, b"mean", ["sum"]),
                 "tuple": ("a", THING, 1.5, ("a",), (1.5,))}


def case_of(name: str, dtype: str = "float32") -> Case:
    """The sample that gives the most arguments."""
    return max(cases(RECORDS[name], dtype), key=lambda case: len(case.args) + len(case.kwargs))


def arguments(name: str, case: Case) -> Iterator[tuple[Any, Any, Any]]:
    """(place or keyword, parameter, given value) of every argument that may be given."""
    params = RECORDS[name].params
    for place, (param, value) in enumerate(zip(params, case.args, strict=False)):
        yield place, param, value
    for param in params[len(case.args):]:
        yield param.name, param, case.kwargs.get(param.name)


def apart(value: Any) -> Any:
    """Arguments whose tensors have strides that no other test has: a known call is found by its
    layouts and by arguments that are equal, as True is to 1, and looks at no types."""
    if isinstance(value, (tuple, list)):
        return tuple(apart(item) for item in value)
    if not isinstance(value, torch.Tensor) or not value.ndim:
        return value
    wide = torch.zeros(*value.shape[:-1], value.shape[-1] + 97, dtype=value.dtype)[..., 97:]
    return wide.copy_(value)


def called(name: str, case: Case, place: Any = None, value: Any = None, unknown: bool = False
           ) -> Exception | None:
    """What a call raises in which one argument is `value`; `unknown`: none like it was made."""
    args, kwargs = list(tensors(torch, case.args)), dict(tensors(torch, case.kwargs))
    if unknown:
        args, kwargs = [*apart(args)], {key: apart(item) for key, item in kwargs.items()}
    if isinstance(place, int):
        args[place] = value
    elif place is not None:
        kwargs[place] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function_of(RECORDS[name])(*args, **kwargs)
    except Exception as error:
        return error
    return None


def said_well(error: Exception | None, label: str) -> None:
    """Is this no error at all, or one of a user's mistake?"""
    if error is None:
        return
    assert isinstance(error, USERS), f"{label}: {type(error).__name__}: {error}"
    assert str(error) and not INTERNAL.search(str(error)), f"{label}: {error}"


def named(error: Exception | None, name: str, argument: str, label: str) -> None:
    """Is this an error that names the function and the argument?"""
    said_well(error, label)
    assert error is not None, f"{label}: accepted"
    if "is not a valid value for reduction" in str(error):  # what PyTorch says
        return
    assert short_name(RECORDS[name]) in str(error), f"{label}: {error}"
    words = (repr(argument), "expected Tensor as element", "not implemented", f'"{argument}"')
    assert any(word in str(error) for word in words), f"{label}: {error}"


@pytest.mark.parametrize("name", PUBLIC)
def test_types_of_tensors(name: str):
    case = case_of(name)
    for place, param, value in arguments(name, case):
        if param.role == "static":
            continue
        for wrong in WRONG_TENSORS:
            if value is None and param.role == "number" and wrong is torch.float32:
                continue
            label = f"{case.label} with {param.name}={wrong!r}"
            named(called(name, case, place, wrong), name, param.name, label)
        if param.required and "None" not in param.annotation:
            named(called(name, case, place, None), name, param.name, f"{param.name}=None")


@pytest.mark.parametrize("name", PUBLIC)
def test_types_of_other_arguments(name: str):
    case = case_of(name)
    for place, param, _ in arguments(name, case):
        kinds = param.annotation.replace("[int | None, ...]", "").split(" | ")
        if param.role != "static" or not {*kinds} <= {*WRONG_STATICS, "None"}:
            continue
        for wrong in WRONG_STATICS[kinds[0]]:
            fits = {"tuple": isinstance(wrong, (list, tuple)) and not wrong,
                    "float": isinstance(wrong, (int, float)), "str": isinstance(wrong, str)}
            if not any(fits.get(kind) for kind in kinds):
                label = f"{case.label} with {param.name}={wrong!r}"
                named(called(name, case, place, wrong, unknown=True), name, param.name, label)


def other_shapes(value: np.ndarray) -> Iterator[np.ndarray]:
    """Tensors of other ranks and sizes in the place of one."""
    for shape in ((), (0,), (7,), (7, 6, 5)[:max(value.ndim, 1)], (1, *value.shape), (2,) * 9):
        yield np.ones(shape, value.dtype)


def check_shapes_and_dtypes(name: str) -> None:
    """Whatever the shape and the dtype: a result, or an error in the user's terms."""
    case = case_of(name)
    for place, param, value in arguments(name, case):
        if not isinstance(value, np.ndarray):
            continue
        for wrong in other_shapes(value):
            label = f"{case.label} with {param.name} of shape {wrong.shape}"
            said_well(called(name, case, place, torch.from_numpy(wrong)), label)
        for dtype in ("bool", "uint8", "complex64") if value.dtype.kind == "f" else ("bool",):
            label = f"{case.label} with {param.name} of {dtype}"
            wrong = np.asarray(np.abs(value)).astype(dtype)
            said_well(called(name, case, place, torch.from_numpy(wrong)), label)
        if sum(isinstance(item, np.ndarray) for item in leaves([*case.args])) > 1 and value.ndim:
            error = called(name, case, place, torch.ones(value.shape, device="meta"))
            said_well(error, f"{case.label} with {param.name} on another device")
            assert error is not None, f"{case.label} with {param.name} on another device"


@pytest.mark.parametrize("name", PUBLIC[::12])
def test_shapes_and_dtypes(name: str):
    check_shapes_and_dtypes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_shapes_and_dtypes_of_all(name: str):
    check_shapes_and_dtypes(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_numbers_of_arguments(name: str):
    case, short = case_of(name), short_name(RECORDS[name])
    for args, kwargs in ((case.args, {**case.kwargs, "unheard_of": 1}), ((), {}),
                         ((*case.args, *range(12)), {})):
        error = called(name, Case(case.label, args, kwargs, []))
        assert isinstance(error, TypeError) and short in str(error), f"{args} {kwargs}: {error}"
