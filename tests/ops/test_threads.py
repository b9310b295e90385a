"""Equal bits on any number of threads: every operation and gradient, cut as finely as can be."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import RECORDS, cases, function_of, leaves, tensors

import flambeau as torch
from flambeau.compiler import program

NAMES = sorted(RECORDS)
SAMPLES = 2  # of each operation


@pytest.fixture(autouse=True)
def fine_cuts(monkeypatch):
    """The least work is worth a chunk of its own."""
    monkeypatch.setattr(program, "GRAIN", 1)
    before = torch.get_num_threads()
    yield
    monkeypatch.undo()
    torch.set_num_threads(1 if before > 1 else 2)  # forget what was cut finely
    torch.set_num_threads(before)


def results(record, case) -> list[bytes]:
    """Results and gradients as bytes."""
    torch.manual_seed(0)
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    inputs = [t for t in leaves([*args, *kwargs.values()]) if isinstance(t, torch.Tensor)]
    for tensor, floating in zip(inputs, case.floating, strict=True):
        tensor.requires_grad_(floating and record.differentiable)
    found = [t for t in leaves(function_of(record)(*args, **kwargs))
             if isinstance(t, torch.Tensor)]
    outs = [t for t in found if t.requires_grad]
    if outs:
        torch.autograd.backward(outs, [torch.ones_like(t) for t in outs])
        found += [t.grad for t in inputs if t.grad is not None]
    return [np.ascontiguousarray(t.detach().view(torch.int16).numpy() if t.dtype is torch.bfloat16
                                 else t.detach().numpy()).tobytes() for t in found]


@pytest.mark.parametrize("name", NAMES)
def test_bits(name):
    record = RECORDS[name]
    chosen = list(cases(record))[:SAMPLES]
    found = []
    for count in (1, 2, 3, 4):
        torch.set_num_threads(count)
        found.append([results(record, case) for case in chosen])
    for count, other in zip((2, 3, 4), found[1:], strict=True):
        assert other == found[0], f"{count} threads"
