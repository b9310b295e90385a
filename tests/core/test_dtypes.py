"""Promotion of every pair of dtypes and kinds of operands, against what PyTorch gives (recorded by
tests/data/promotion_record.py); the limits of dtypes; how dtypes behave as objects."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from programs import ROOT

import flambeau as torch
from flambeau.core import dtypes

TABLE = json.loads((ROOT / "tests" / "data" / "promotion.json").read_text())
NAMES = [dtype.name for dtype in dtypes.ALL_DTYPES]
NUMBERS = {"bool": True, "int": 2, "float": 1.5, "complex": 1 + 2j}


def dtype_of(name: str) -> torch.dtype:
    return getattr(torch, name)


def found_by(call) -> str | None:
    """The name of the dtype that the call gives; None for an error."""
    try:
        result = call()
    except (RuntimeError, NotImplementedError):
        return None
    return getattr(result, "dtype", result).name


def operands(key: str) -> tuple:
    """The operands that a key of the record means."""
    first, second, third = key.split()
    if third in NUMBERS and first in ("tensor", "zero"):
        return torch.ones((2,) if first == "tensor" else (), dtype=dtype_of(second)), NUMBERS[third]
    return (torch.ones(2, dtype=dtype_of(first)),
            torch.ones((2,) if second == "tensor" else (), dtype=dtype_of(third)))


def wrong(table: str, call) -> dict[str, tuple]:
    """{key: (found, expected)} where they differ."""
    pairs = {key: (call(key), expected) for key, expected in TABLE[table].items()}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def test_promote_types():
    def promote(key: str) -> str | None:
        a, b = map(dtype_of, key.split())
        return found_by(lambda: torch.promote_types(a, b))

    assert wrong("promote_types", promote) == {}


def test_result_type():
    def promote(key: str) -> str | None:
        a, b = operands(key)
        return found_by(lambda: torch.result_type(a, b))

    assert wrong("result_type", promote) == {}


def test_sums_have_the_promoted_dtype():
    def add(key: str) -> str | None:
        a, b = operands(key)
        return found_by(lambda: a + b)

    assert wrong("add", add) == {}


def test_can_cast():
    def castable(key: str) -> bool:
        return torch.can_cast(*map(dtype_of, key.split()))

    assert wrong("can_cast", castable) == {}


@pytest.mark.parametrize("kind", ["finfo", "iinfo"])
def test_limits(kind: str):
    for name, expected in TABLE[kind].items():
        info = getattr(torch, kind)(dtype_of(name))
        assert {key: getattr(info, key) for key in expected if key != "repr"} == {
            key: value for key, value in expected.items() if key != "repr"}
        assert repr(info) == expected["repr"]


def test_limits_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError):
        torch.finfo(torch.int32)
    with pytest.raises(TypeError):
        torch.iinfo(torch.float32)
    assert torch.finfo().dtype == "float32"


@pytest.mark.parametrize("name", NAMES)
def test_dtypes_are_single_objects(name: str):
    dtype = dtype_of(name)
    assert repr(dtype) == f"torch.{name}"
    assert pickle.loads(pickle.dumps(dtype)) is dtype
    assert copy.deepcopy(dtype) is dtype and copy.copy(dtype) is dtype
    assert {dtype: 1}[dtype] == 1
    assert isinstance(dtype, torch.dtype)
    assert dtypes.by_numpy(dtype.numpy) is dtype
    assert torch.empty(0, dtype=dtype).element_size() == dtype.itemsize


def test_facts_about_dtypes():
    assert torch.float is torch.float32 and torch.double is torch.float64
    assert torch.half is torch.float16 and torch.long is torch.int64 and torch.int is torch.int32
    assert torch.short is torch.int16 and torch.cfloat is torch.complex64
    assert torch.bfloat16.is_floating_point and not torch.int8.is_floating_point
    assert torch.complex64.is_complex and not torch.float64.is_complex
    assert torch.int8.is_signed and not torch.uint8.is_signed and not torch.bool.is_signed
    assert torch.float32.to_complex() is torch.complex64
    assert torch.complex128.to_real() is torch.float64


@pytest.mark.parametrize("numpy_type", ["datetime64[s]", "U3", "object", "float128"])
def test_numpy_types_without_a_tensor_are_refused(numpy_type: str):
    with pytest.raises(TypeError, match=r"can't convert np\.ndarray of type"):
        torch.from_numpy(np.zeros(2, numpy_type))


class TestDefaultDtype:
    @pytest.fixture(autouse=True)
    def restored(self):
        yield
        torch.set_default_dtype(torch.float32)

    def test_decides_new_tensors_and_numbers(self):
        torch.set_default_dtype(torch.float64)
        assert torch.get_default_dtype() is torch.float64
        assert torch.tensor(1.5).dtype is torch.float64
        assert torch.ones(2).dtype is torch.float64
        assert (torch.arange(2) + 1.5).dtype is torch.float64
        assert torch.arange(2).div(2).dtype is torch.float64
        assert torch.tensor(1j).dtype is torch.complex128

    def test_must_be_floating(self):
        with pytest.raises(TypeError, match="only floating-point types are supported"):
            torch.set_default_dtype(torch.int64)
