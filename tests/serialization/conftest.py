"""All tests here use the NumPy-backed tensors of numpy_tensors.py."""

from __future__ import annotations

import pytest
from serialization.numpy_tensors import FakeAdapter

from flambeau import serialization
from flambeau.serialization.tensors import use_adapter


@pytest.fixture(autouse=True)
def numpy_tensors():
    with use_adapter(FakeAdapter()):
        yield
    serialization.clear_safe_globals()
    serialization.set_crc32_options(True)
