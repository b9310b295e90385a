"""Every op inside `compile`, forward and backward: the program gives the bits that eager gives."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from op_cases import RECORDS, Case, cases, function_of, leaves, tensors, to_array

import flambeau as torch

NAMES = sorted(RECORDS)
DIFFERENTIABLE = [name for name in NAMES if RECORDS[name].differentiable]


def prepared(record: Any, case: Case) -> tuple[Any, list[Any]]:
    """The call as a function of its tensors, and these."""
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    given = [a for a in leaves([*args, *kwargs.values()]) if isinstance(a, torch.Tensor)]
    places = {id(tensor): i for i, tensor in enumerate(given)}

    def call(*inputs: Any) -> tuple:
        def filled(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return tuple(filled(item) for item in value)
            return inputs[places[id(value)]] if id(value) in places else value

        result = function_of(record)(*filled(args), **{k: filled(v) for k, v in kwargs.items()})
        return tuple(leaves(result))

    return call, given


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
