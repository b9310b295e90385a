"""Checkpoints between Flambeau's serialization and real PyTorch, in both directions.

The fixtures tests/data/checkpoint_* are made by `python tests/conformance/test_checkpoints.py`.
"""

from __future__ import annotations

import collections
import io
import json
import os
import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from serialization.numpy_tensors import FakeAdapter, FakeParameter, FakeTensor, tensor

from flambeau import serialization
from flambeau.core import dtypes
from flambeau.serialization.tensors import use_adapter

DATA = pathlib.Path(__file__).parent.parent / "data"


@pytest.fixture(autouse=True)
def numpy_tensors(monkeypatch):
    # PyTorch then checks the offsets that it computes for each record.
    monkeypatch.setenv("TORCH_SERIALIZATION_DEBUG", "1")
    with use_adapter(FakeAdapter()):
        yield


def bits(value: torch.Tensor) -> bytes:
    value = value.detach().resolve_conj().resolve_neg().reshape(-1)
    value = value.clone(memory_format=torch.contiguous_format)
    return value.view(torch.uint8).numpy().tobytes() if value.numel() else b""


def assert_same(ours: object, theirs: object) -> None:
    """Equal values and types, tensors bit for bit."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, FakeTensor)
        assert isinstance(ours, FakeParameter) == isinstance(theirs, torch.nn.Parameter)
        assert repr(ours.dtype) == repr(theirs.dtype)
        assert tuple(ours.shape) == tuple(theirs.shape)
        assert ours.requires_grad == theirs.requires_grad
        if not theirs.is_conj():
            assert tuple(ours.strides) == theirs.stride()
        assert ours.numpy().tobytes() == bits(theirs)
        return
    if isinstance(theirs, torch.dtype | torch.Size | torch.device):
        assert str(ours) == str(theirs)
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
        assert getattr(ours, "_metadata", None) == getattr(theirs, "_metadata", None)
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs or (ours != ours and theirs != theirs)


def every_kind() -> dict:
    """Tensors of all dtypes and layouts that both know, and plain values."""
    made = {}
    for dtype in dtypes.ALL_DTYPES:
        if dtype is dtypes.complex32:  # which the old format of PyTorch does not hold
            continue
        kind = getattr(torch, dtype.name)
        values = torch.arange(12).remainder(2) if dtype.kind == "b" else torch.arange(12)
        made[dtype.name] = values.to(kind).reshape(3, 4)
        made[f"{dtype.name}.scalar"] = torch.ones((), dtype=kind)
        made[f"{dtype.name}.empty"] = torch.empty((2, 0, 3), dtype=kind)
    base = torch.arange(24.0)
    made |= {
        "base": base, "view": base[3:9], "transposed": base.reshape(4, 6).t(),
        "strided": base.reshape(2, 3, 4)[:, ::2, 1], "expanded": base[:1].expand(5),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "grad": torch.ones(3, requires_grad=True), "parameter": torch.nn.Parameter(base[:4]),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "conj": torch.tensor([1 + 2j, 3 - 4j]).conj(), "special": torch.tensor(
            [float("nan"), float("inf"), -0.0, 1e-45]),
        "plain": [1, -1, 2**40, 2**100, 0.1, float("nan"), True, None, "text\u4e16", b"\x00\xff",
                  b"", (), (1,), (1, 2, 3, 4), {1, 2}, 1 + 2j, bytearray(b"ab")],
        "size": torch.Size([2, 3]), "dtype": torch.bfloat16, "device": torch.device("cuda", 1),
        "counter": collections.Counter("abca"), "many": list(range(2000)),
        "nested": {"a": {"b": []}},
    }
    made["ordered"] = collections.OrderedDict(w=base[2:4])
    made["ordered"]._metadata = {"": {"version": 1}}
    return made


def training() -> dict:
    """A checkpoint as training scripts write it, after a few steps."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
                                torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 1, 8, 8)).square().mean().backward()
        optimizer.step()
        schedule.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(), "rng": torch.get_rng_state(), "epoch": 3,
            "best": 0.25}


def in_memory(save, *arguments, **options) -> io.BytesIO:
    file = io.BytesIO()
    save(*arguments, file, **options)
    file.seek(0)
    return file


FORMATS = [{}, {"_use_new_zipfile_serialization": False}]


@pytest.mark.parametrize("options", FORMATS)
@pytest.mark.parametrize("make", [every_kind, training])
def test_pytorch_to_flambeau(make, options):
    theirs = make()
    if options:  # PyTorch's old format cannot hold these itself
        theirs = {name: value for name, value in theirs.items()
                  if not name.startswith(("uint16", "uint32", "uint64"))}
    assert_same(serialization.load(in_memory(torch.save, theirs, **options)), theirs)


@pytest.mark.parametrize("options", FORMATS)
@pytest.mark.parametrize("make", [every_kind, training])
def test_flambeau_to_pytorch(make, options):
    ours = serialization.load(in_memory(torch.save, make()))
    if options:
        ours.pop("conj", None)  # metadata of a view; PyTorch's old format has the same
    file = in_memory(serialization.save, ours, **options)
    theirs = torch.load(file, weights_only=True)
    assert_same(ours, theirs)
    file.seek(0)
    assert_same(ours, torch.load(file, weights_only=False))


def test_sharing_survives_both_ways():
    ours = serialization.load(in_memory(torch.save, every_kind()))
    assert ours["base"].storage is ours["view"].storage is ours["parameter"].storage
    theirs = torch.load(in_memory(serialization.save, ours))
    pointers = {theirs[name].untyped_storage().data_ptr()
                for name in ("base", "view", "transposed", "strided", "expanded", "parameter")}
    assert len(pointers) == 1


@pytest.mark.parametrize("calculate", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_paths_and_memory_maps(tmp_path, mapped, calculate):
    path = tmp_path / "model.pt"
    serialization.save(serialization.load(in_memory(torch.save, training())), path)
    from torch.utils.serialization import config
    before = config.load.calculate_storage_offsets
    config.load.calculate_storage_offsets = calculate
    try:
        theirs = torch.load(path, mmap=mapped)
    finally:
        config.load.calculate_storage_offsets = before
    assert_same(serialization.load(path, mmap=mapped), theirs)
    path = tmp_path / "other.pt"  # PyTorch must not write to the file that it has mapped
    torch.save(theirs, path)
    assert_same(serialization.load(path, mmap=mapped), theirs)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_the_container_is_laid_out_like_pytorchs(tmp_path):
    """All bytes between the records agree, apart from PyTorch's content hash at the end."""
    ours, theirs = tmp_path / "x" / "m.pt", tmp_path / "y" / "m.pt"
    values = [np.arange(n, dtype=np.float32) for n in (0, 1, 7, 100, 1000)]
    for path in (ours, theirs):
        path.parent.mkdir()
    serialization.save([tensor(value) for value in values], ours)
    torch.save([torch.from_numpy(value) for value in values], theirs)
    with zipfile.ZipFile(ours) as a, zipfile.ZipFile(theirs) as b:
        sizes = [[(info.filename, info.file_size, info.CRC, info.flag_bits)
                  for info in archive.infolist() if "data.pkl" not in info.filename
                  and "serialization_id" not in info.filename] for archive in (a, b)]
    assert sizes[0] == sizes[1]


def test_one_storage_as_several_dtypes():
    """PyTorch refuses to save this, but reads it."""
    base = tensor(np.arange(7, dtype=np.float32))
    views = [base, FakeTensor(base.storage, dtypes.int32, (7,), (1,), 0),
             FakeTensor(base.storage, dtypes.float64, (3,), (1,), 0),
             FakeTensor(base.storage, dtypes.uint16, (14,), (1,), 0)]
    for first in range(4):
        ours = views[first:] + views[:first]
        theirs = torch.load(in_memory(serialization.save, ours))
        assert_same(ours, theirs)
        assert len({value.untyped_storage().data_ptr() for value in theirs}) == 1


def test_attributes_and_hooks():
    x, p = torch.ones(3), torch.nn.Parameter(torch.ones(2))
    x.note = p.note = [1, "two"]
    ours = serialization.load(in_memory(torch.save, [x, p]))
    assert ours[0].note == ours[1].note == [1, "two"]
    theirs = torch.load(in_memory(serialization.save, ours))
    assert theirs[0].note == theirs[1].note == [1, "two"]


def test_numpy_values_of_pytorchs_files():
    values = [np.float64(0.5), np.arange(6).reshape(2, 3), np.float32(2), np.array(["a"])]
    ours = serialization.load(in_memory(torch.save, values))
    for one, other in zip(ours, values, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore")  # PyTorch calls half of these beta or deprecated
def test_what_is_missing_is_explained():
    with pytest.raises(serialization.CheckpointError, match="Linear"):
        serialization.load(in_memory(torch.save, torch.nn.Linear(1, 1)))


class Settings:
    def __init__(self):
        self.width = 3


def test_user_classes_both_ways():
    with torch.serialization.safe_globals([Settings]), serialization.safe_globals([Settings]):
        ours = serialization.load(in_memory(torch.save, Settings()))
        assert ours.width == 3
        assert torch.load(in_memory(serialization.save, ours)).width == 3


def test_location_of_another_device(monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    file = in_memory(torch.save, torch.ones(2))
    for load in (torch.load, serialization.load):
        file.seek(0)
        with pytest.raises(RuntimeError):
            load(file)
    for map_location in ("cpu", {"cuda:0": "cpu"}, lambda storage, location: storage):
        file.seek(0)
        assert_same(serialization.load(file, map_location), torch.ones(2))


def test_errors_are_of_pytorchs_kinds():
    class Bad:
        def __reduce__(self):
            return os.system, ("true",)
    file = in_memory(torch.save, Bad())
    for load in (torch.load, serialization.load):
        file.seek(0)
        with pytest.raises(pickle.UnpicklingError):
            load(file)
        with pytest.raises(RuntimeError):
            load(io.BytesIO(file.getvalue()[:200]))
        with pytest.raises(EOFError):
            load(io.BytesIO(b""))
        with pytest.raises(FileNotFoundError):
            load("/no/such/file.pt")


def test_random_views():
    """Any strides, offsets and dtypes, both ways."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        dtype = dtypes.ALL_DTYPES[rng.integers(len(dtypes.ALL_DTYPES))]
        if dtype is dtypes.complex32:
            continue
        if dtype is dtypes.bfloat16:
            raw = torch.from_numpy(rng.standard_normal(500)).to(torch.bfloat16)
        else:
            raw = torch.from_numpy(rng.integers(0, 2, 500).astype(dtype.numpy))
        shape = [int(n) for n in rng.integers(0, 5, rng.integers(0, 5))]
        strides = [int(n) for n in rng.integers(0, 20, len(shape))]
        theirs = raw.as_strided(shape, strides, int(rng.integers(0, 40)))
        ours = serialization.load(in_memory(torch.save, theirs))
        assert_same(ours, theirs)
        assert_same(ours, torch.load(in_memory(serialization.save, ours)))


def test_safetensors():
    safetensors = pytest.importorskip("safetensors.torch")
    path = DATA / "unused.safetensors"
    state = dict(training()["model"].items())
    try:
        safetensors.save_file(state, path)
        ours = serialization.load(path)
        assert_same(dict(sorted(ours.items())), dict(sorted(state.items())))
        serialization.safetensors.save_file(ours, path)
        assert_same(dict(sorted(ours.items())), dict(sorted(safetensors.load_file(path).items())))
    finally:
        path.unlink(missing_ok=True)


# -- fixtures for tests/serialization/test_fixtures.py --------------------------------------------

def _described(value: object) -> object:
    """JSON of a checkpoint: tensors as dtype, shape, strides and bytes in hexadecimal."""
    if isinstance(value, torch.Tensor):
        return {"dtype": str(value.dtype), "shape": list(value.shape),
                "strides": list(value.stride()), "requires_grad": value.requires_grad,
                "parameter": isinstance(value, torch.nn.Parameter), "bytes": bits(value).hex()}
    if isinstance(value, dict):
        return {str(key): _described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    return value if isinstance(value, int | float | str | type(None)) else str(value)


def write_fixtures() -> None:
    kinds = every_kind()
    for name in ("channels_last", "plain", "many", "conj"):
        del kinds[name]
    checkpoints = {"kinds": kinds, "training": training()}
    del checkpoints["training"]["rng"]
    for name, value in checkpoints.items():
        torch.save(value, DATA / f"checkpoint_{name}.pt")
        described = json.dumps(_described(value), indent=0)
        (DATA / f"checkpoint_{name}.json").write_text(described + "\n")
    old = {name: value for name, value in kinds.items()
           if not name.startswith(("uint16", "uint32", "uint64"))}
    torch.save(old, DATA / "checkpoint_old.pt", _use_new_zipfile_serialization=False)
    tag, torch.serialization.location_tag = torch.serialization.location_tag, _cuda_tag
    try:
        torch.save({"w": torch.arange(3.0)}, DATA / "checkpoint_cuda.pt")
    finally:
        torch.serialization.location_tag = tag


def _cuda_tag(storage: object) -> str:
    return "cuda:0"


assert ml_dtypes.bfloat16  # NumPy learns the type by this import

if __name__ == "__main__":
    write_fixtures()
