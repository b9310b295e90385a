"""The tests of tests/tensor run once more under PyTorch: what they expect is what PyTorch does."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from programs import ROOT

FILES = ("creation", "indexing", "inplace", "views", "autograd_core", "errors", "interop",
         "promotion")


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, where the tests of tests/tensor get Flambeau."""
    return pytest.importorskip("torch")


def load(name: str) -> ModuleType:
    path = ROOT / "tests" / "tensor" / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"under_pytorch_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


for _name in FILES:
    for _member, _value in vars(load(_name)).items():
        if _member.startswith("test_"):
            globals()[f"test_{_name}_{_member.removeprefix('test_')}"] = _value
        elif isinstance(_value, type(torch)):  # a fixture
            globals()[_member] = _value
