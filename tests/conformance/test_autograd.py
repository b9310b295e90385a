"""PyTorch has the semantics that the tests of autograd demand of Flambeau."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[1] / "autograd" / "semantics.py"
_SPEC = importlib.util.spec_from_file_location("autograd_semantics", _PATH)
semantics = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(semantics)


@pytest.mark.parametrize("check", semantics.CHECKS, ids=lambda check: check.__name__)
# PyTorch's own notices (create_graph's cycle and the like) are not what is tested.
@pytest.mark.filterwarnings("ignore")
def test_pytorch_agrees(check):
    import torch
    check(torch)
