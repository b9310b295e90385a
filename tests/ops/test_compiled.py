"""Every op inside `compile`, forward and backward: the program gives the bits that eager gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
from op_cases import (
    RECORDS,
    Case,
    cases,
    function_of,
    inplace_of,
    leaves,
    tensors,
    to_array,
)

import flambeau as torch

NAMES = sorted(RECORDS)
DIFFERENTIABLE = [name for name in NAMES if RECORDS[name].differentiable]


def prepared(record: Any, case: Case, lay: Callable | None = None, function: Any = None
             ) -> tuple[Any, list[Any]]:
    """The call as a function of its tensors, and these, lying in memory as `lay` puts them."""
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    if lay is not None:
        args, kwargs = laid(args, lay), laid(kwargs, lay)
    function = function or function_of(record)
    given = [a for a in leaves([*args, *kwargs.values()]) if isinstance(a, torch.Tensor)]
    places = {id(tensor): i for i, tensor in enumerate(given)}

    def call(*inputs: Any) -> tuple:
        def filled(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return tuple(filled(item) for item in value)
            return inputs[places[id(value)]] if id(value) in places else value

        result = function(*filled(args), **{k: filled(v) for k, v in kwargs.items()})
        return tuple(leaves(result))

    return call, given


# --------------------------------------------------------------------------- layouts
def turned(x: Any) -> Any:
    """Column-major in memory."""
    dims = tuple(reversed(range(x.dim())))
    return x.permute(dims).clone(memory_format=torch.contiguous_format).permute(dims)


def sliced(x: Any) -> Any:
    """Every second element of a larger tensor, from an odd place on."""
    wide = torch.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1) if x.dim() else (3,), dtype=x.dtype)
    view = wide[..., 1::2] if x.dim() else wide[1]
    return view.copy_(x)


def expanded(x: Any) -> Any:
    """One element along the first dimension that has several, read again and again."""
    for dim, size in enumerate(x.shape):
        if size > 1:
            return x.narrow(dim, 0, 1).expand(x.shape)
    return x


def overlapping(x: Any) -> Any:
    """Rows that share their elements with the next ones."""
    return x.flatten().as_strided(x.shape, (1,) * x.dim()) if x.dim() > 1 and x.numel() else x


def conjugated(x: Any) -> Any:
    """Complex numbers whose conjugate lies in memory."""
    return x.conj().resolve_conj().conj() if x.is_complex() else x


def negated(x: Any) -> Any:
    """Reals whose negative lies in memory, beside other numbers."""
    plain = x.dtype in (torch.float32, torch.float64)
    return torch.complex(torch.zeros_like(x), -x).conj().imag if plain else x


LAYOUTS = (turned, sliced, expanded, overlapping, conjugated, negated)


def laid(value: Any, lay: Callable) -> Any:
    if isinstance(value, torch.Tensor):
        return lay(value)
    if isinstance(value, (tuple, list)):
        return tuple(laid(item, lay) for item in value)
    if isinstance(value, dict):
        return {key: laid(item, lay) for key, item in value.items()}
    return value


def assert_same_bits(found: tuple, expected: tuple, label: str) -> None:
    assert len(found) == len(expected), label
    for mine, theirs in zip(found, expected, strict=True):
        if theirs is None:
            assert mine is None, label
            continue
        a, b = to_array(torch, mine), to_array(torch, theirs)
        assert a.dtype == b.dtype and a.shape == b.shape, label
        assert a.tobytes() == b.tobytes() or np.array_equal(a, b, equal_nan=True), label


@pytest.mark.parametrize("name", NAMES)
def test_forward(name: str):
    record = RECORDS[name]
    for case in islice(cases(record, "float32"), 4):
        call, given = prepared(record, case)
        if not given:
            continue
        compiled = torch.compile(call)
        expected = call(*given)
        for _ in range(2):  # the capture, the replay
            assert_same_bits(compiled(*given), expected, case.label)
        assert compiled.programs, f"{case.label}: {compiled.history}"


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_backward(name: str):
    """A gradient that is computed inside the compiled function."""
    record = RECORDS[name]
    for case in islice(cases(record, "float32"), 2):
        call, given = prepared(record, case)
        inputs = [t for t, floating in zip(given, case.floating, strict=True) if floating]
        for tensor in inputs:
            tensor.requires_grad_()
        first = [r for r in call(*given) if r.requires_grad]
        if not first:
            continue
        weights = [torch.linspace(0.5, 1.5, r.numel(), dtype=r.dtype).reshape(r.shape)
                   for r in first]

        def gradients(*tensors: Any, call: Any = call, weights: Any = weights) -> tuple:
            wanted = [t for t in tensors if t.requires_grad]
            results = [r for r in call(*tensors) if r.requires_grad]
            return torch.autograd.grad(results, wanted, weights, allow_unused=True)

        compiled = torch.compile(gradients, options={"exact": True})
        expected = gradients(*given)
        for _ in range(2):
            assert_same_bits(compiled(*given), expected, case.label)


# --------------------------------------------------------------------------- every dtype and layout
TREES = "sums in another order: eager follows the strides of its operands, a program its own"
INEXACT_TURNED = dict.fromkeys(("_householder_product", "_ormqr", "lp_pool2d", "lp_pool3d"),
                               TREES)
"""Records whose programs differ from eager in the last bits on column-major operands."""


def check_exact(record: Any, case: Case, lay: Callable | None) -> None:
    """Results, in-place forms and errors of an exact program are eager's, bit for bit."""
    call, given = prepared(record, case, lay)
    if not given:
        return
    compiled = torch.compile(call, options={"exact": True})
    try:
        expected = call(*given)
    except Exception as error:
        with pytest.raises(type(error)):
            compiled(*given)
        return
    for _ in range(2):
        found = compiled(*given)
        assert_same_bits(found, expected, case.label)
        assert [r.stride() for r in found if isinstance(r, torch.Tensor) and r.numel()] == [
            r.stride() for r in expected if isinstance(r, torch.Tensor) and r.numel()], case.label
    if record.inplace and lay not in (expanded, overlapping) and isinstance(
            case.args[0], np.ndarray):
        check_inplace(record, case, lay)


def check_inplace(record: Any, case: Case, lay: Callable | None) -> None:
    """The first call too, which is captured: every write is made once."""
    call, given = prepared(record, case, lay, inplace_of(record))
    other, others = prepared(record, case, lay, inplace_of(record))
    compiled = torch.compile(other, options={"exact": True})
    try:
        call(*given)
    except Exception as error:
        with pytest.raises(type(error)):
            compiled(*others)
        return
    compiled(*others)
    assert_same_bits(tuple(others), tuple(given), f"in place: {case.label}")


@pytest.mark.parametrize("lay", LAYOUTS)
@pytest.mark.parametrize("name", NAMES[::20])
def test_layouts(name: str, lay: Callable):
    dtype = "complex64" if lay is conjugated else "float32"
    for case in islice(cases(RECORDS[name], dtype), 2):
        if lay is not turned or name not in INEXACT_TURNED:
            check_exact(RECORDS[name], case, lay)


@pytest.mark.parametrize("name", sorted({n for n in NAMES if RECORDS[n].inplace}
                                        & {"put", "index_add", "index_copy", "index_fill",
                                           "scatter", "scatter_add", "scatter_reduce", "take",
                                           "index_reduce", "masked_scatter", "_index_put", "add",
                                           "clamp", "lerp", "pow"}))
def test_in_place(name: str):
    for case in cases(RECORDS[name], "float32"):
        if isinstance(case.args[0], np.ndarray):
            check_inplace(RECORDS[name], case, None)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "complex64",
                                   "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("name", NAMES)
def test_every_dtype(name: str, dtype: str):
    for case in cases(RECORDS[name], dtype):
        check_exact(RECORDS[name], case, None)


@pytest.mark.slow
@pytest.mark.parametrize("lay", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_layout(name: str, lay: Callable, request: pytest.FixtureRequest):
    if lay is turned and name in INEXACT_TURNED:
        request.applymarker(pytest.mark.xfail(reason=INEXACT_TURNED[name], strict=True))
    for dtype in ("complex64",) if lay is conjugated else ("float32", "int64"):
        for case in cases(RECORDS[name], dtype):
            check_exact(RECORDS[name], case, lay)
