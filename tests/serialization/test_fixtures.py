"""Files that PyTorch 2.13 wrote (by tests/conformance/test_checkpoints.py) load to the bit."""

from __future__ import annotations

import json
import pathlib

import pytest
from serialization.numpy_tensors import FakeParameter, FakeTensor

from flambeau import serialization

DATA = pathlib.Path(__file__).parent.parent / "data"


def described(value: object) -> object:
    """The JSON form in which the fixtures' content is noted."""
    if isinstance(value, FakeTensor):
        return {"dtype": repr(value.dtype), "shape": list(value.shape),
                "strides": list(value.strides), "requires_grad": value.requires_grad,
                "parameter": isinstance(value, FakeParameter),
                "bytes": value.numpy().tobytes().hex()}
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    return value if isinstance(value, int | float | str | type(None)) else str(value)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", ["kinds", "training"])
def test_pytorchs_files(name, mapped):
    loaded = serialization.load(DATA / f"checkpoint_{name}.pt", mmap=mapped)
    assert described(loaded) == json.loads((DATA / f"checkpoint_{name}.json").read_text())


def test_pytorchs_old_files():
    loaded = described(serialization.load(DATA / "checkpoint_old.pt"))
    expected = json.loads((DATA / "checkpoint_kinds.json").read_text())
    assert len(loaded) > 50
    assert loaded == {name: expected[name] for name in loaded}


def test_sharing_and_metadata():
    for name in ("kinds", "old"):
        loaded = serialization.load(DATA / f"checkpoint_{name}.pt")
        assert loaded["base"].storage is loaded["view"].storage is loaded["parameter"].storage
        assert loaded["ordered"]._metadata == {"": {"version": 1}}


def test_a_file_from_a_gpu_machine():
    path = DATA / "checkpoint_cuda.pt"
    with pytest.raises(serialization.CheckpointError, match=r"'cuda:0'.*map_location='cpu'"):
        serialization.load(path)
    loaded = serialization.load(path, map_location="cpu")
    assert loaded["w"].numpy().tolist() == [0, 1, 2]
