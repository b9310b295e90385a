"""`weights_only=False`: what the program has imported comes back, and still nothing is run."""

from __future__ import annotations

import collections
import dataclasses
import enum
import io
import os
import pickle
import struct
import sys

import numpy as np
import pytest

import flambeau as torch
from flambeau import serialization
from flambeau.serialization.archive import ArchiveWriter
from flambeau.serialization.tensors import FlambeauTensors, use_adapter


@pytest.fixture(autouse=True)
def real_tensors(numpy_tensors):
    with use_adapter(FlambeauTensors()):
        yield


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    width: int = 3
    colour: Colour = Colour.RED

    def __post_init__(self):
        raise AssertionError("__init__ is not called")


class Slots:
    __slots__ = ("a",)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.activation = torch.nn.functional.relu

    def forward(self, x):
        return self.activation(self.fc(x))


class Names(dict):
    def __setitem__(self, *_):
        raise AssertionError("no code of the class runs")


class Deleting:
    def __del__(self):
        os.unlink(self.path)


class Own:
    def __setstate__(self, state):
        raise AssertionError("no code of the class runs")


Point = collections.namedtuple("Point", "x y")


def again(value, legacy=False, **options):
    file = io.BytesIO()
    serialization.save(value, file, _use_new_zipfile_serialization=not legacy)
    file.seek(0)
    return serialization.load(file, **options)


@pytest.mark.parametrize("legacy", [False, True])
def test_modules_and_objects(legacy):
    settings, slots = object.__new__(Settings), Slots()
    settings.width, settings.colour, slots.a = 5, Colour.RED, [1]
    names = Names()
    dict.__setitem__(names, "a", 1)
    value = {"net": Net(), "settings": settings, "slots": slots, "names": names,
             "point": Point(torch.ones(2), 3), "colour": Colour.RED}
    found = again(value, legacy, weights_only=False)
    x = torch.randn(4, 3)
    assert torch.equal(found["net"](x), value["net"](x))
    assert (found["settings"].width, found["settings"].colour) == (5, Colour.RED)
    assert found["slots"].a == [1] and type(found["names"]) is Names and found["names"]["a"] == 1
    assert type(found["point"]) is Point and found["colour"] is Colour.RED
    for name in value:
        with pytest.raises(serialization.UnsafeError, match="add_safe_globals"):
            again(value[name], legacy)


@pytest.mark.parametrize("make", [
    lambda: torch.nn.LSTM(3, 4, 2, bidirectional=True), lambda: torch.nn.GRU(3, 4),
    lambda: torch.nn.TransformerEncoderLayer(4, 2, 8), lambda: torch.nn.MultiheadAttention(4, 2),
    lambda: torch.nn.Conv2d(2, 3, 3, padding_mode="circular"), lambda: torch.nn.Upsample(None, 2),
    lambda: torch.nn.functional.gelu, lambda: torch.tanh])
def test_what_is_ours(make):
    made = make()
    found = again(made, weights_only=False)
    assert repr(found) == repr(made)
    if isinstance(made, torch.nn.LSTM):
        x = torch.randn(5, 1, 3)
        assert torch.equal(found(x)[0], made(x)[0])


def test_the_environment_decides_where_the_call_does_not(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert again(Point(1, 2)) == again(Point(1, 2), weights_only=False) == Point(1, 2)
    with pytest.raises(serialization.UnsafeError):
        again(Point(1, 2), weights_only=True)
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(serialization.UnsafeError):
        again(Point(1, 2), weights_only=False)


def test_optimizers_keep_their_parameters():
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    net2, optimizer2 = again((net, optimizer), weights_only=False)
    assert optimizer2.param_groups[0]["params"][0] is net2.fc.weight
    for a, o in ((net, optimizer), (net2, optimizer2)):
        o.zero_grad()
        a(torch.ones(1, 3)).sum().backward()
        o.step()
    assert torch.equal(net.fc.weight, net2.fc.weight)


def _archive(data: bytes) -> io.BytesIO:
    file = io.BytesIO()
    writer = ArchiveWriter(file, "archive")
    writer.add("data.pkl", data)
    writer.close()
    file.seek(0)
    return file


def _refused(data: bytes) -> None:
    with pytest.raises(serialization.CheckpointError):
        serialization.load(_archive(data), weights_only=False)


def test_what_could_act_is_refused():
    for cls in (Deleting, Own):
        made = object.__new__(cls)
        made.__dict__["path"] = "x"
        with pytest.raises(serialization.UnsafeError):
            again(made, weights_only=False)
        made.__dict__["path"] = os.devnull + "/none"
        cls.__del__ = lambda self: None
    for name in ("os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "shutil.rmtree",
                 "builtins.getattr", "tempfile._TemporaryFileCloser", "functools.partial",
                 "pathlib.Path.unlink", "numpy.load", "torch.load", "torch.hub.load",
                 "torch.runtime.memory.Storage", "torch.tensor.meta.Meta"):
        module, _, attribute = name.rpartition(".")
        named = b"\x80\x02c" + module.encode() + b"\n" + attribute.encode() + b"\n"
        for end in (b"X\x01\x00\x00\x00a\x85R.", b")\x81.", b")\x81}b."):
            _refused(named + end)


def test_functions_are_values_only():
    call = b"\x80\x02ctorch.nn.functional\nrelu\nK\x01\x85R."
    _refused(call)
    asked = b"\x80\x02c__builtin__\ngetattr\nctorch._C\n_VariableFunctionsClass\n" \
            b"X\x04\x00\x00\x00%s\x86R."
    assert serialization.load(_archive(asked % b"tanh"), weights_only=False) is torch.tanh
    _refused(asked % b"load")


def test_tensors_cannot_be_forged():
    _refused(b"\x80\x02ctorch\nTensor\n)\x81}X\x08\x00\x00\x00_storageK\x01sb.")
    _refused(b"\x80\x02ctorch.nn.parameter\nUninitializedParameter\n)\x81}X\x01\x00\x00\x00aK\x01sb.")


def test_nothing_is_imported():
    assert "antigravity" not in sys.modules
    _refused(b"\x80\x02cantigravity\nGeohash\n)\x81.")
    assert "antigravity" not in sys.modules


# -- what is not a plain tensor -------------------------------------------------------------------

@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_of_every_kind(legacy):
    values = {
        "coo": torch.eye(3).to_sparse(), "csr": torch.eye(4).to_sparse_csr(),
        "bsr": torch.eye(4).to_sparse_bsr((2, 2)),
        "nested": torch.nested.nested_tensor([torch.arange(2.), torch.arange(3.)]),
        "jagged": torch.nested.nested_tensor([torch.arange(2.), torch.arange(3.)],
                                             layout=torch.jagged),
        "meta": torch.empty(2, 3, device="meta"), "layout": torch.sparse_csr,
        "generator": torch.Generator().manual_seed(3), "format": [torch.device("cuda:1"), ...],
        "buffer": torch.nn.Buffer(torch.ones(2))}
    found = again(values, legacy)
    for name in ("coo", "csr", "bsr"):
        assert found[name].layout is values[name].layout
        assert torch.equal(found[name].to_dense(), values[name].to_dense())
    for name in ("nested", "jagged"):
        assert found[name].layout is values[name].layout
        for one, other in zip(found[name].unbind(), values[name].unbind(), strict=True):
            assert torch.equal(one, other)
    assert found["meta"].device.type == "meta" and found["meta"].stride() == (3, 1)
    assert found["generator"].initial_seed() == 3 and found["layout"] is torch.sparse_csr
    assert found["format"] == values["format"] and isinstance(found["buffer"], torch.nn.Buffer)
    assert torch.equal(torch.rand(3, generator=found["generator"]),
                       torch.rand(3, generator=values["generator"]))


@pytest.mark.parametrize("legacy", [False, True])
def test_storages(legacy):
    x = torch.arange(4.)
    typed = torch.TypedStorage(wrap_storage=x.untyped_storage(), dtype=torch.float32)
    storage, tensor, raw = again([typed, x[1:], torch.ones(2).untyped_storage()], legacy)
    assert storage.dtype is torch.float32 and storage.tolist() == [0, 1, 2, 3]
    assert storage.data_ptr() == tensor.untyped_storage().data_ptr()
    assert bytes(raw.tolist()) == np.ones(2, np.float32).tobytes()


def test_map_location_is_given_a_storage():
    seen = []

    def keep(storage, location):
        seen.append((type(storage).__name__, location, storage.nbytes()))
        return storage.cpu()
    assert again(torch.ones(3), map_location=keep).tolist() == [1, 1, 1]
    assert seen == [("UntypedStorage", "cpu", 12)]
    with pytest.raises(TypeError, match="storage"):
        again(torch.ones(3), map_location=lambda storage, location: 3)
    found = again(torch.nn.Linear(2, 3).state_dict(), map_location="meta")
    assert found["weight"].device.type == "meta" and found["weight"].shape == (3, 2)


def test_scaler_and_pickle():
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    assert pickle.loads(pickle.dumps(scaler)).get_scale() == 4.0
    assert again(scaler, weights_only=False).get_scale() == 4.0


# -- options --------------------------------------------------------------------------------------

def _other_order(value, noted: bytes | None, swap) -> io.BytesIO:
    """A file of a machine of the other byte order."""
    file, out = io.BytesIO(), io.BytesIO()
    serialization.save(value, file)
    reader = serialization.api.ArchiveReader(file)
    writer = ArchiveWriter(out, "archive")
    for name in reader.records:
        data = reader.read(name)
        if name == "byteorder":
            if noted is not None:
                writer.add(name, noted)
            continue
        writer.add(name, swap(data) if name.startswith("data/") else data)
    writer.close()
    out.seek(0)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.uint8, torch.bool,
                                   torch.complex64, torch.float64, torch.bfloat16, torch.uint16,
                                   torch.uint32])
@pytest.mark.parametrize("noted", [b"big", None])
def test_the_other_byte_order(dtype, noted):
    if sys.byteorder == "big":
        pytest.skip("files of this machine are those of the other one")
    x = torch.arange(5).to(dtype)
    size = dtype.itemsize // (2 if dtype.is_complex else 1)

    def swap(data):
        return np.frombuffer(data, f"u{size}").byteswap().tobytes() if size > 1 else data
    file = _other_order([x, x[2:]], noted, swap)
    if noted is None:
        serialization.set_default_load_endianness(serialization.LoadEndianness.BIG)
    try:
        first, second = serialization.load(file)
    finally:
        serialization.set_default_load_endianness(None)
    assert torch.equal(first, x) and torch.equal(second, x[2:])
    with pytest.raises(TypeError):
        serialization.set_default_load_endianness("big")


def test_mappings_that_are_shared_with_the_file(tmp_path):
    import mmap

    path = tmp_path / "a.pt"
    serialization.save(torch.zeros(3), path)
    assert serialization.get_default_mmap_options() == mmap.MAP_PRIVATE
    serialization.load(path, mmap=True).fill_(1)
    assert serialization.load(path).tolist() == [0, 0, 0]
    with serialization.set_default_mmap_options(mmap.MAP_SHARED):
        loaded = serialization.load(path, mmap=True)
        loaded.fill_(2)
    assert serialization.load(path, mmap=True).tolist() == [2, 2, 2]
    assert serialization.get_default_mmap_options() == mmap.MAP_PRIVATE
    with pytest.raises(ValueError, match="MAP_PRIVATE"):
        serialization.set_default_mmap_options(77)


def test_data_can_be_left_out(tmp_path):
    path = tmp_path / "a.pt"
    with serialization.skip_data():
        serialization.save({"w": torch.ones(1_000_000), "e": torch.ones(0)}, path)
    assert path.stat().st_size > 4_000_000 and path.stat().st_blocks * 512 < 100_000
    assert serialization.load(path)["w"].sum() == 0
    with serialization.skip_data():
        assert serialization.load(path)["w"].shape == (1_000_000,)
        with pytest.raises(RuntimeError, match="skip_data"):
            serialization.save(1, path, _use_new_zipfile_serialization=False)


def test_versions_of_modules():
    check = serialization.check_module_version_greater_or_equal
    module = collections.namedtuple("module", "__version__ __name__", rename=True)

    class Fake:
        __name__, __version__ = "fake", "2.13.0+cpu"
    del module
    assert check(Fake, (2, 13, 0)) and check(Fake, (1, 99)) and not check(Fake, (2, 14))
    Fake.__version__ = "unknown"
    with pytest.raises(RuntimeError, match="malformed"):
        check(Fake, (1,))
    with pytest.warns(UserWarning, match="malformed"):
        assert check(Fake, (1,), error_if_malformed=False)


def test_old_files_follow_one_another():
    file = io.BytesIO()
    for number in range(3):
        serialization.save(torch.full((2,), number), file, _use_new_zipfile_serialization=False)
    file.seek(0)
    assert [serialization.load(file)[0].item() for _ in range(3)] == [0, 1, 2]


def test_files_that_cannot_be_searched():
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        serialization.save(torch.ones(2), file)
    with os.fdopen(reading, "rb") as file:
        assert serialization.load(file).tolist() == [1, 1]


def test_old_files_of_any_machine():
    """The old format is little-endian whatever its header says."""
    file = io.BytesIO()
    serialization.save(torch.arange(3.), file, _use_new_zipfile_serialization=False)
    data = file.getvalue().replace(b"little_endian" + b"q\x02\x88", b"little_endian" + b"q\x02\x89")
    assert serialization.load(io.BytesIO(data)).tolist() == [0, 1, 2]
    assert struct.calcsize("=q") == 8
