"""What is saved is what is loaded: values, types, sharing, views, attributes."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import os
import pathlib
import random

import numpy as np
import pytest
from serialization.numpy_tensors import FakeDevice, FakeParameter, FakeTensor, tensor

from flambeau import serialization
from flambeau.core import dtypes
from flambeau.core.shapes import Size

FORMATS = [{}, {"_use_new_zipfile_serialization": False}]


def again(value, **options):
    file = io.BytesIO()
    serialization.save(value, file, **options)
    file.seek(0)
    return serialization.load(file)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("options", FORMATS)
@pytest.mark.parametrize("dtype", dtypes.ALL_DTYPES, ids=repr)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 0, 3), (1, 1, 4)])
def test_every_dtype_and_shape(dtype, shape, options):
    rng = np.random.default_rng(len(shape))
    values = rng.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype.numpy)
    loaded = again(tensor(values), **options)
    assert loaded.dtype is dtype
    assert same_bits(loaded.numpy(), values)


@pytest.mark.parametrize("options", FORMATS)
def test_views_share_their_storage(options):
    base = tensor(np.arange(12, dtype=np.float32))
    views = {"base": base, "transposed": base.view((4, 3), (1, 4), 0),
             "tail": base.view((3,), (2,), 5), "spread": base.view((2, 3), (0, 1), 1),
             "scalar": base.view((), (), 11), "empty": base.view((0,), (1,), 3)}
    loaded = again(views, **options)
    for name, view in views.items():
        assert loaded[name].strides == view.strides
        assert same_bits(loaded[name].numpy(), view.numpy())
    assert len({id(view.storage) for view in loaded.values()}) == 1
    loaded["base"].numpy()[5] = -1
    assert loaded["tail"].numpy()[0] == -1
    assert base.numpy()[5] == 5


@pytest.mark.parametrize("options", FORMATS)
@pytest.mark.parametrize("first", [0, 1, 2])
def test_one_storage_seen_as_several_dtypes(first, options):
    base = tensor(np.arange(7, dtype=np.float32))  # 28 bytes: no whole number of float64
    views = [base, FakeTensor(base.storage, dtypes.int32, (7,), (1,), 0),
             FakeTensor(base.storage, dtypes.float64, (3,), (1,), 0)]
    views = views[first:] + views[:first]
    loaded = again(views, **options)
    for view, found in zip(views, loaded, strict=True):
        assert found.dtype is view.dtype and same_bits(found.numpy(), view.numpy())
    assert loaded[0].storage is loaded[1].storage is loaded[2].storage


def test_the_same_tensor_twice_is_one_object():
    x = tensor(np.ones(3))
    loaded = again([x, x])
    assert loaded[0] is loaded[1]


@pytest.mark.parametrize("requires_grad", [True, False])
def test_parameters(requires_grad):
    parameter = FakeParameter(tensor(np.ones(3)), requires_grad)
    loaded = again({"p": parameter, "q": parameter})
    assert type(loaded["p"]) is FakeParameter
    assert loaded["p"].requires_grad is requires_grad
    assert loaded["p"] is loaded["q"]


def test_requires_grad():
    assert again(tensor(np.ones(3), requires_grad=True)).requires_grad
    assert not again(tensor(np.ones(3))).requires_grad


def test_attributes_survive():
    x, p = tensor(np.ones(3)), FakeParameter(tensor(np.ones(2)))
    x.note = p.note = {"added": [1, 2]}
    loaded = again([x, p])
    assert [type(value) for value in loaded] == [FakeTensor, FakeParameter]
    assert loaded[0].note == loaded[1].note == {"added": [1, 2]}


class Subclass(FakeTensor):
    pass


def test_subclasses_need_permission():
    made = Subclass(*tensor(np.ones(3))._parts[:6])
    made.note = 1
    with pytest.raises(serialization.UnsafeError, match=r"test_roundtrip\.Subclass"):
        again(made)
    with serialization.safe_globals([Subclass]):
        loaded = again(made)
    assert type(loaded) is Subclass and loaded.note == 1


def test_conjugate_views():
    x = tensor(np.array([1 + 2j, 3 - 4j]))
    conj = FakeTensor(*x._parts[:6], conj=True)
    assert same_bits(again(conj).numpy(), np.array([1 - 2j, 3 + 4j]))


VALUES = [
    None, True, False, 0, -1, 255, 256, 65535, 65536, 2**31, -2**31, 2**63, -2**200, 2**3000, 0.1,
    float("inf"), -0.0, 1e-320, "", "text", "é\u4e16\U0001f600", "\udc80", b"", b"\x00\xff", (),
    (1,), (1, 2, 3, 4), [], [[]], {}, {1: "a", "b": (2.5, None)}, {1, 2}, frozenset({3}), 1 + 2j,
    bytearray(b"ab"), range(1, 9, 2), slice(1, None, 2), ["x"] * 3000, list(range(3000)),
    {i: str(i) for i in range(3000)}, collections.Counter("abca"), collections.deque([1, 2], 3),
    collections.defaultdict(list, {"a": [1]}), pathlib.PurePath("a"), datetime.timedelta(1, 2),
    datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), datetime.date(2024, 1, 2),
    argparse.Namespace(lr=0.1, layers=[1, 2]), Size((2, 3)), dtypes.bfloat16, dtypes.bool_,
    {dtypes.float32: FakeDevice("cuda", 1)}, random.Random(3).getstate(),
    {(1, (2, 3)): "tuple key"},
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_plain_values(value, protocol):
    if isinstance(value, pathlib.PurePath):
        value = pathlib.Path("folder", "file")
    loaded = again(value, pickle_protocol=protocol)
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_values(protocol):
    values = [np.float64(0.1), np.int32(7), np.bool_(True), np.arange(6).reshape(2, 3).T,
              np.array(2.5, np.float16), np.zeros((0, 3)), np.array(["ab", "c"]),
              np.arange(3, dtype=np.complex64)]
    for value in values:
        loaded = again(value, pickle_protocol=protocol)
        assert type(loaded) is type(value) and np.asarray(loaded).dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(loaded, value)


def test_cycles_and_shared_containers():
    inner = [1]
    value = {"a": inner, "b": inner}
    value["self"] = value
    loaded = again(value)
    assert loaded["a"] is loaded["b"] and loaded["self"] is loaded


def test_state_dict_metadata():
    state = collections.OrderedDict(weight=tensor(np.ones(2)))
    state._metadata = collections.OrderedDict({"": {"version": 1}, "0": {"version": 2}})
    loaded = again(state)
    assert type(loaded) is collections.OrderedDict
    assert loaded._metadata == state._metadata


@pytest.mark.parametrize("mapped", [False, True])
def test_paths(tmp_path, mapped):
    path = tmp_path / "model.v1.pt"
    x = tensor(np.arange(100, dtype=np.float32))
    serialization.save({"x": x, "h": tensor(np.float16([1, 2, 3])), "e": tensor(np.empty(0))}, path)
    loaded = serialization.load(str(path), mmap=mapped)
    before = path.read_bytes()
    assert same_bits(loaded["x"].numpy(), x.numpy())
    assert loaded["x"].storage.ptr % 64 == 0
    loaded["x"].numpy()[:] = 0  # private pages: the file does not change
    assert path.read_bytes() == before
    assert b"model.v1/data.pkl" in before


def test_equal_objects_give_equal_files():
    def made():
        file = io.BytesIO()
        serialization.save({"x": tensor(np.arange(5)), "lr": 0.1}, file)
        return file.getvalue()
    assert made() == made()


def test_file_in_the_middle_of_a_stream():
    file = io.BytesIO(b"header")
    file.seek(6)
    serialization.save([1, tensor(np.arange(3))], file)
    file.seek(6)
    assert serialization.load(file)[1].numpy().tolist() == [0, 1, 2]


class Unseekable:
    def __init__(self, data):
        self._file = io.BytesIO(data)

    def read(self, count=-1):
        return self._file.read(count)


def test_streams_that_cannot_seek():
    parts = []

    class Sink:
        def write(self, data):
            parts.append(bytes(data))

    serialization.save(tensor(np.arange(3)), Sink())
    loaded = serialization.load(Unseekable(b"".join(parts)))
    assert loaded.numpy().tolist() == [0, 1, 2]


class Config:
    def __init__(self, width):
        self.width = width


class Slotted:
    __slots__ = ("a", "b")

    def __getstate__(self):
        return None, {"a": self.a}


class Stateful:
    def __setstate__(self, state):
        self.seen = state

    def __getstate__(self):
        return {"x": 1}


class Outer:
    class Inner:
        pass


def test_user_classes():
    slotted = Slotted()
    slotted.a = 5
    value = {"c": Config(3), "s": slotted, "t": Stateful(), "i": Outer.Inner()}
    with pytest.raises(serialization.UnsafeError) as caught:
        again(value)
    for name in ("Config", "Slotted", "Stateful", "Outer.Inner"):
        assert f"test_roundtrip.{name}" in str(caught.value)  # all of them at once
    assert "add_safe_globals([Config, Slotted, Stateful, Inner])" in str(caught.value)
    with serialization.safe_globals([Config, Slotted, Stateful, Outer.Inner]):
        loaded = again(value)
    assert loaded["c"].width == 3 and loaded["s"].a == 5 and loaded["t"].seen == {"x": 1}
    assert type(loaded["i"]) is Outer.Inner
    assert serialization.get_safe_globals() == []


def test_safe_globals_under_another_name():
    serialization.add_safe_globals([(Config, "elsewhere.Settings")])
    from flambeau.serialization.globals import user_rule
    assert user_rule("elsewhere.Settings").value is Config
    assert user_rule("test_roundtrip.Config") is None
    with pytest.raises(TypeError, match="pairs"):
        serialization.add_safe_globals([(Config, 1)])


def test_unsafe_globals_are_listed_without_loading(tmp_path):
    path = tmp_path / "c.pt"
    serialization.save([Config(1), np.float32(1), Stateful()], path)
    names = serialization.get_unsafe_globals_in_checkpoint(path)
    assert [name.rpartition(".")[2] for name in names] == ["Config", "Stateful"]


def test_big_endian_files():
    from flambeau.serialization.archive import ArchiveReader, ArchiveWriter
    file = io.BytesIO()
    values = [np.arange(4, dtype=np.float32), np.array([1 + 2j, 3j]), np.int16([1, 256])]
    serialization.save([tensor(value) for value in values], file)
    reader, swapped = ArchiveReader(io.BytesIO(file.getvalue())), io.BytesIO()
    writer = ArchiveWriter(swapped, "archive")
    for name in reader.records:
        data = reader.read(name)
        if name.startswith("data/"):
            data = np.frombuffer(data, values[int(name[5:])].dtype).byteswap().tobytes()
        writer.add(name, b"big" if name == "byteorder" else data)
    writer.close()
    swapped.seek(0)
    for value, loaded in zip(values, serialization.load(swapped), strict=True):
        assert same_bits(loaded.numpy(), value)


def test_checksums_can_be_left_out():
    serialization.set_crc32_options(False)
    assert serialization.get_crc32_options() is False
    assert again(tensor(np.arange(3))).numpy().tolist() == [0, 1, 2]


def test_what_cannot_be_saved_is_named(tmp_path):
    value = {"model": {}, "schedule": [1, {"rule": lambda epoch: 0.1}]}
    with pytest.raises(Exception, match=r"function at checkpoint\['schedule'\]\[1\]\['rule'\]"):
        serialization.save(value, tmp_path / "x.pt")
    assert os.listdir(tmp_path) == []
    with pytest.raises(Exception, match=r"generator at checkpoint\.batches"):
        serialization.save(argparse.Namespace(batches=iter(i for i in ())), tmp_path / "x.pt")


def test_arguments_of_save(tmp_path):
    with pytest.raises(AttributeError, match="no 'write'"):
        serialization.save(1, 3)
    with pytest.raises(RuntimeError, match="pickle_module"):
        serialization.save(1, tmp_path / "x", pickle_module=collections)
