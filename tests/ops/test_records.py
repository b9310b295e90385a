"""What is derived from every op record: values, dtypes, layouts, in-place and out= forms."""

from __future__ import annotations

import inspect
import re
from itertools import islice
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from op_cases import (
    RECORDS,
    cases,
    family,
    function_of,
    inplace_of,
    leaves,
    private,
    short_name,
    tensors,
    to_array,
    widened,
)

import flambeau as torch
from flambeau.core import dtypes
from flambeau.ops.examples import without_example
from flambeau.ops.outputs import EXACT_INPLACE
from flambeau.ops.samples import Arr

ALL = sorted(RECORDS)
COMPUTING = [name for name in ALL if RECORDS[name].kind == "compute"]
INPLACE = [name for name in ALL if RECORDS[name].inplace]
OUT = [name for name in ALL if RECORDS[name].out]
FEW = 4  # samples for what depends on them little; values are checked on all
ORACLES = [name for name in ALL if RECORDS[name].oracle is not None]

# What an op may raise on a dtype it does not compute: errors in the user's terms, nothing else.
REFUSALS = (RuntimeError, TypeError, NotImplementedError, ValueError, IndexError)
INTERNAL = re.compile(r"LLVM|vector mathematics|<\d+ x |primitive")


def run(record: Any, case: Any, function: Any = None, **more: Any) -> Any:
    function = function or function_of(record)
    return function(*tensors(torch, case.args), **tensors(torch, case.kwargs), **more)


def results(value: Any) -> list[Any]:
    return [item for item in leaves(value) if isinstance(item, torch.Tensor)]


def arrays(value: Any) -> list[np.ndarray]:
    return [to_array(torch, item) for item in results(value)]


def refused(record: Any, case: Any) -> bool:
    """Does the op decline this dtype, in the user's terms?"""
    try:
        run(record, case)
    except REFUSALS as error:
        assert not INTERNAL.search(str(error)), f"{case.label}: {type(error).__name__}: {error}"
        return True
    return False


# --------------------------------------------------------------------------- the record itself
@pytest.mark.parametrize("name", ALL)
def test_record_is_complete(name: str):
    record = RECORDS[name]
    assert without_example(record.doc).endswith((".", "?")), "a docstring is sentences"
    assert record.samples is not None and list(record.samples()), "no samples"
    names = [param.name for param in record.params]
    assert record.inplace is False or record.params[0].role in ("tensor", "operand")
    for item in record.samples():
        inspect.signature(record.body).bind(*item.args, **item.kwargs)
    if record.gradient is not None:
        known = {*names, "g", "output"}
        assert set(inspect.signature(record.gradient).parameters) <= known


@pytest.mark.parametrize("name", ALL)
def test_public_function(name: str):
    record, function = RECORDS[name], function_of(RECORDS[name])
    assert function.__name__ == short_name(record)
    assert function.__doc__ == record.doc
    if "torch" in record.public:
        for public in (short_name(record), *record.aliases):
            assert callable(getattr(torch, public))
            assert not record.inplace or callable(getattr(torch, public + "_"))
    if record.method and not private(record):
        for public in (short_name(record), *record.aliases):
            assert callable(getattr(torch.Tensor, public))


# --------------------------------------------------------------------------- values
TRANSLATED = {"dim": "axis", "keepdim": "keepdims"}


def oracle_of(record: Any, case: Any) -> list[np.ndarray]:
    kwargs = {TRANSLATED.get(k, k): v for k, v in case.kwargs.items()}
    with np.errstate(all="ignore"):
        return [np.asarray(record.oracle(*case.args, **kwargs))]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
@pytest.mark.parametrize("name", ORACLES)
def test_values(name: str, dtype: str):
    record = RECORDS[name]
    tolerance = {"float64": 1e-12, "float32": 1e-5, "int64": 1e-6}[dtype]
    for case in cases(record, dtype):
        if refused(record, case):
            continue
        for found, expected in zip(arrays(run(record, case)), oracle_of(record, case), strict=True):
            assert found.shape == expected.shape, case.label
            np.testing.assert_allclose(found, expected, tolerance, tolerance, err_msg=case.label)


SIXTEEN = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("dtype", list(SIXTEEN))
@pytest.mark.parametrize("name", [n for n in COMPUTING if RECORDS[n].opmath])
def test_sixteen_bits_are_rounded_once(name: str, dtype: str):
    """A 16-bit result is the float32 result of the same inputs, rounded."""
    record = RECORDS[name]
    step = {"float16": 2.0 ** -10, "bfloat16": 2.0 ** -7}[dtype]
    for case in islice(cases(record, dtype), FEW):
        if refused(record, case):
            continue
        wide = type(case)(case.label, widened(case.args), widened(case.kwargs), case.floating)
        narrow, reference = results(run(record, case)), arrays(run(record, wide))
        for mine, expected in zip(narrow, reference, strict=True):
            if expected.dtype == np.float32 and mine.dtype is not torch.float32:
                assert mine.dtype is getattr(torch, dtype), case.label
            if mine.is_complex():
                continue
            found = to_array(torch, mine).astype(np.float32)
            np.testing.assert_allclose(found, expected, step, 1e-7, err_msg=case.label)


# --------------------------------------------------------------------------- dtypes
def expected_dtype(record: Any, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of floating results where the record alone tells it."""
    if record.name == "float_power":  # always in double precision
        return torch.float64
    if record.promote == "float" and dtype.is_integral:
        return torch.get_default_dtype()
    return dtype if dtype.kind in "fc" or record.promote == "float" else None


@pytest.mark.parametrize("name", [n for n in ALL if not private(RECORDS[n])])
def test_dtypes(name: str):
    """Every dtype is computed in the dtype that the record says, or refused in the user's terms."""
    record = RECORDS[name]
    for dtype in dtypes.ALL_DTYPES:
        case = next(cases(record, dtype.name))
        own = [a for a in leaves([*next(iter(record.samples())).args]) if isinstance(a, Arr)]
        if refused(record, case) or not own or any(a.dtype for a in own) or case.kwargs:
            continue
        wanted = expected_dtype(record, dtype)
        for result in results(run(record, case)):
            if result.dtype.kind == dtype.kind == "f" and record.differentiable:
                assert result.dtype is wanted, case.label


# --------------------------------------------------------------------------- layouts
def transposed(array: np.ndarray) -> np.ndarray:
    """The same elements, column-major in memory."""
    return np.array(array, order="F")


def strided(array: np.ndarray) -> np.ndarray:
    """The same elements, every second one of a larger array."""
    if not array.ndim:
        return array
    wide = np.repeat(array, 2, axis=-1)
    return wide[..., ::2]


def relaid(value: Any, layout: Any) -> Any:
    """Arguments whose tensors lie in memory as `layout` puts them."""
    if isinstance(value, np.ndarray):
        if value.dtype == ml_dtypes.bfloat16:
            raise AssertionError("not for bfloat16")
        return torch.from_numpy(layout(value))
    if isinstance(value, tuple):
        return tuple(relaid(item, layout) for item in value)
    if isinstance(value, dict):
        return {key: relaid(item, layout) for key, item in value.items()}
    return value


@pytest.mark.parametrize("layout", [transposed, strided])
@pytest.mark.parametrize("name", COMPUTING)
def test_layouts(name: str, layout: Any):
    """The order in memory of the inputs does not change the values."""
    record = RECORDS[name]
    for case in islice(cases(record, "float32"), FEW):
        if refused(record, case):
            continue
        plain = arrays(run(record, case))
        other = function_of(record)(*relaid(case.args, layout), **relaid(case.kwargs, layout))
        for a, b in zip(plain, arrays(other), strict=True):
            np.testing.assert_allclose(b, a, 1e-6, 1e-6, err_msg=case.label)


# --------------------------------------------------------------------------- in place
@pytest.mark.parametrize("name", INPLACE)
def test_inplace(name: str):
    """x.op_() returns x itself, which then holds what op(x) gives, bit for bit."""
    record = RECORDS[name]
    tried = 0
    for dtype in ("float32", "float64", "int64", "bool"):
        for case in islice(cases(record, dtype), FEW):
            if refused(record, case) or not isinstance(case.args[0], np.ndarray):
                continue
            expected = run(record, case)
            args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
            target, before = args[0], args[0]._version
            exact = name in EXACT_INPLACE and expected.dtype is not target.dtype
            if tuple(expected.shape) != tuple(target.shape) or exact or not torch.can_cast(
                    expected.dtype, target.dtype):
                with pytest.raises(RuntimeError):
                    inplace_of(record)(*args, **kwargs)
                continue
            assert inplace_of(record)(*args, **kwargs) is target
            assert target._version == before + 1
            assert torch.equal(target, expected.to(target.dtype)) or np.array_equal(
                target.numpy(), expected.to(target.dtype).numpy(), equal_nan=True), case.label
            tried += 1
    assert tried, "no sample can be computed in place"


# --------------------------------------------------------------------------- out=
@pytest.mark.parametrize("name", OUT)
def test_out(name: str):
    """out= receives the result, is returned, and is resized if its shape differs."""
    record = RECORDS[name]
    for case in islice(cases(record, "float32"), FEW):
        if refused(record, case):
            continue
        expected = results(run(record, case))
        right = [torch.empty(e.shape, dtype=e.dtype) for e in expected]
        empty = [torch.empty(0, dtype=e.dtype) for e in expected]
        for outs in (right, empty):
            given = tuple(outs) if record.returns else outs[0]
            back = run(record, case, out=given)
            back = results(back) if record.returns else [back]
            for target, result, value in zip(outs, back, expected, strict=True):
                assert result is target, case.label
                assert np.array_equal(target.numpy(), value.numpy(), equal_nan=True), case.label


@pytest.mark.parametrize("name", OUT)
def test_out_of_a_lesser_kind_is_refused(name: str):
    record = RECORDS[name]
    case = next(cases(record, "float32"))
    expected = results(run(record, case))
    if any(e.dtype.kind != "f" for e in expected):
        pytest.skip("the result is not floating")
    outs = tuple(torch.empty(e.shape, dtype=torch.int32) for e in expected)
    with pytest.raises(RuntimeError, match=r"can't be cast|to have dtype"):
        run(record, case, out=outs if record.returns else outs[0])


def test_every_family_has_ops():
    from flambeau.tensor.functions import FAMILIES

    assert {family(record) for record in RECORDS.values()} == set(FAMILIES)
