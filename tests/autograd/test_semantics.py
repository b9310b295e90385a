"""The semantics that PyTorch was checked to have (`tests/conformance/test_autograd.py`)."""

from __future__ import annotations

import sys

import pytest
import semantics

REAL_TENSORS = True


@pytest.fixture
def as_torch(torch, monkeypatch):
    """Flambeau, also as what `from torch.autograd... import` finds."""
    if not hasattr(torch, "tensor"):
        pytest.skip("the tensor layer is not there yet")
    import flambeau.autograd
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.autograd", flambeau.autograd)
    monkeypatch.setitem(sys.modules, "torch.autograd.gradcheck",
                        sys.modules["flambeau.autograd.gradcheck"])
    return torch


@pytest.mark.parametrize("check", semantics.CHECKS, ids=lambda check: check.__name__)
def test_semantics(check, as_torch):
    check(as_torch)
