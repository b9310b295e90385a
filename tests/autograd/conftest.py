"""Tests here run on a fake tensor, unless their module says REAL_TENSORS."""

from __future__ import annotations

import pathlib
import sys

import pytest

from flambeau.autograd import graph

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for `import fake_tensor`


@pytest.fixture(autouse=True)
def fake(request):
    if getattr(request.module, "REAL_TENSORS", False):
        yield
        return
    import fake_tensor

    before = graph.tensors.cls, graph.tensors.make, graph.tensors.forward
    fake_tensor.install()
    yield
    graph.register_tensor_class(*before)
