"""The derived gradients of every op, first and second order, against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_cases import RECORDS, Case, cases, function_of, leaves, tensors

import flambeau as torch
from flambeau.autograd import gradcheck, gradgradcheck

NAMES = sorted(name for name, record in RECORDS.items() if record.differentiable)

LARGEST = 24  # elements: the cost of a finite-difference check grows with their number


def small_cases(name: str) -> list[Case]:
    """The op's samples in float64 that are small and have something to differentiate."""
    found = []
    for case in cases(RECORDS[name], "float64"):
        given = [a for a in leaves([*case.args, *case.kwargs.values()])
                 if isinstance(a, np.ndarray)]
        if any(case.floating) and sum(a.size for a in given) <= LARGEST:
            found.append(case)
    return found


def as_function(case: Case, record: Any) -> tuple[Any, tuple]:
    """The call as a function of its floating tensors alone, and these tensors."""
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    flat = [a for a in leaves([*args, *kwargs.values()]) if isinstance(a, torch.Tensor)]
    inputs = [t for t, floating in zip(flat, case.floating, strict=True) if floating]
    places = {id(t): i for i, t in enumerate(inputs)}
    function = function_of(record)

    def call(*given: Any) -> Any:
        def filled(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return tuple(filled(item) for item in value)
            return given[places[id(value)]] if id(value) in places else value

        result = function(*filled(args), **{k: filled(v) for k, v in kwargs.items()})
        return tuple(r for r in leaves(result) if r.dtype.is_floating_point)

    return call, tuple(t.requires_grad_() for t in inputs)


@pytest.mark.parametrize("name", NAMES)
def test_first(name: str):
    for case in small_cases(name)[:4]:
        function, inputs = as_function(case, RECORDS[name])
        if function(*inputs):
            assert gradcheck(function, inputs, check_grad_dtypes=True), case.label


@pytest.mark.parametrize("name", NAMES)
def test_second(name: str):
    for case in small_cases(name)[:2]:
        function, inputs = as_function(case, RECORDS[name])
        results = function(*inputs)
        if results and any(r.requires_grad for r in results):
            assert gradgradcheck(function, inputs), case.label


def results_of(name: str) -> list[torch.Tensor]:
    """Of the first sample, whose inputs require grad."""
    record = RECORDS[name]
    case = next(cases(record, "float32"))
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    for tensor in leaves([*args, *kwargs.values()]):
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            tensor.requires_grad_()
    return [result for result in leaves(function_of(record)(*args, **kwargs))
            if isinstance(result, torch.Tensor)]


UNDERIVED = sorted(name for name, record in RECORDS.items() if record.no_derivative)


@pytest.mark.parametrize("name", sorted(set(RECORDS) - set(NAMES) - set(UNDERIVED)))
def test_results_without_gradient_require_none(name: str):
    assert not any(result.requires_grad for result in results_of(name))


@pytest.mark.parametrize("name", UNDERIVED)
def test_results_without_derivative_refuse_backward(name: str):
    for result in results_of(name):
        able = result.is_floating_point() or result.is_complex()
        assert result.requires_grad is able  # integers beside them (pivots) have no history
        if not able:
            continue
        with pytest.raises(RuntimeError, match="derivative"):
            result.sum().backward()
