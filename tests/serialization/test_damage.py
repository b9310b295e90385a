"""Damaged files, missing devices, refused arguments: messages name the file and a way out."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from serialization.numpy_tensors import FakeDevice, FakeStorage, tensor

from flambeau import serialization
from flambeau.serialization.archive import ArchiveReader, ArchiveWriter
from flambeau.serialization.errors import CheckpointError, CorruptError, TruncatedError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.pt"
    serialization.save({"w": tensor(np.arange(1000, dtype=np.float32)), "lr": 0.1}, path)
    return path


def refused(path, kind, match=None, **options):
    with pytest.raises(kind, match=match) as caught:
        serialization.load(path, **options)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, pickle.UnpicklingError)
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_truncated(path, share, mapped):
    data = path.read_bytes()
    path.write_bytes(data[:max(4, int(len(data) * share))])
    refused(path, TruncatedError, "get it again", mmap=mapped)


def test_empty_file(path):
    path.write_bytes(b"")
    refused(path, EOFError, "empty")


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"abc", b"\x89PNG\r\n"])
def test_something_else(path, content):
    path.write_bytes(content)
    refused(path, CheckpointError, "no checkpoint.*HTML")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.pt"):
        serialization.load(tmp_path / "nothing.pt")


def test_flipped_bits(path):
    data = bytearray(path.read_bytes())
    data[ArchiveReader(io.BytesIO(bytes(data))).find("data/0").offset + 100] ^= 1
    path.write_bytes(bytes(data))
    refused(path, CorruptError, "'data/0' is damaged.*checksum")


def rewrite(path, change):
    reader, out = ArchiveReader(io.BytesIO(path.read_bytes())), io.BytesIO()
    writer = ArchiveWriter(out, "model")
    for name in reader.records:
        data = change(name, reader.read(name))
        if data is not None:
            writer.add(name, data)
    writer.close()
    path.write_bytes(out.getvalue())


def test_missing_records(path):
    original = path.read_bytes()
    for missing in ("data.pkl", "data/0"):
        path.write_bytes(original)
        rewrite(path, lambda name, data, missing=missing: None if name == missing else data)
        refused(path, CorruptError, f"'{missing}' is missing")


def test_short_record(path):
    rewrite(path, lambda name, data: data[:-4] if name == "data/0" else data)
    refused(path, CorruptError, "4000 bytes, but record data/0 has 3996")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_compressed_archives(path, method):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path.with_suffix(".zip"), "w",
                                                       method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    data = path.with_suffix(".zip").read_bytes()
    path.write_bytes(data)
    if method == zipfile.ZIP_BZIP2:
        refused(path, CheckpointError, "only deflate")
        return
    assert serialization.load(path)["lr"] == 0.1
    path.write_bytes(data.replace(b"model/data/0", b"\xff\xffdel/data/0", 1))  # not the directory's
    refused(path, CorruptError, "cannot be decompressed")


def test_unknown_byte_order(path):
    rewrite(path, lambda name, data: b"middle" if name == "byteorder" else data)
    refused(path, CorruptError, "byte order")


def test_truncated_pickle(path):
    rewrite(path, lambda name, data: data[:-20] if name == "data.pkl" else data)
    refused(path, CheckpointError, "ends in the middle|damaged pickle")


def test_foreign_archives(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", b"")
        archive.writestr("model/data.pkl", b"")
    refused(path, CheckpointError, "jit.load")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"text")
    refused(path, CorruptError, "'data.pkl' is missing")
    with tarfile.open(path, "w") as archive:
        archive.add(__file__)
    refused(path, CheckpointError, "tar format")
    path.write_bytes(pickle.dumps({"a": 1}))
    refused(path, CheckpointError, "not one that torch.save wrote")


def test_old_format_damage(path):
    file = io.BytesIO()
    serialization.save([tensor(np.arange(9)), tensor(np.ones(3))], file,
                       _use_new_zipfile_serialization=False)
    data = file.getvalue()
    for length in (len(data) - 1, len(data) - 30, len(data) - 120, 20, 3):
        path.write_bytes(data[:length])
        refused(path, CheckpointError)
    at = data.rindex(struct.pack("<q", 9) + np.arange(9).tobytes())
    path.write_bytes(data[:at] + struct.pack("<q", 8) + data[at + 8:])
    refused(path, CorruptError, "8 elements")
    count = data.index(b"K\x09N", data.index(b"cpu"))  # elements, in the persistent id
    path.write_bytes(data[:count] + b"\x8a\x06" + b"\xff" * 5 + b"\x0f" + data[count + 2:])
    refused(path, TruncatedError, "more than the file has left")
    path.write_bytes(data)
    refused(path, CheckpointError, "zip format", mmap=True)
    assert serialization.load(path)[1].numpy().tolist() == [1, 1, 1]


# -- locations ------------------------------------------------------------------------------------

def on_device(path, location: str) -> None:
    """Pretend that the tensors were saved on another device."""
    text = location.encode()

    def change(name, data):
        if name != "data.pkl":
            return data
        return data.replace(b"X\x03\x00\x00\x00cpu", b"X" + struct.pack("<I", len(text)) + text)
    rewrite(path, change)


@pytest.mark.parametrize("location", ["cuda:0", "mps", "xpu:1"])
def test_missing_device(path, location):
    on_device(path, location)
    refused(path, CheckpointError, f"{location}.*map_location='cpu'")


@pytest.mark.parametrize("map_location", [
    "cpu", b"cpu", FakeDevice("cpu"), {"cuda:0": "cpu"}, lambda storage, location: storage,
    lambda storage, location: storage if location == "cuda:0" else None,
])
def test_map_location(path, map_location):
    on_device(path, "cuda:0")
    assert serialization.load(path, map_location)["w"].numpy()[3] == 3
    assert serialization.load(path, map_location, mmap=True)["w"].numpy()[3] == 3


def test_map_location_that_does_not_help(path):
    on_device(path, "cuda:0")
    refused(path, CheckpointError, "'cuda:1'", map_location="cuda:1")
    refused(path, CheckpointError, "cuda:0", map_location={"cuda:1": "cpu"})
    refused(path, CheckpointError, "cuda:0", map_location=lambda storage, location: None)
    with pytest.raises(TypeError, match="map_location"):
        serialization.load(path, 3)


def test_map_location_is_asked_once_per_storage(path):
    x = tensor(np.arange(4))
    serialization.save([x, x.view((2,), (1,), 1), tensor(np.ones(1))], path)
    asked = []

    def keep(storage, location):
        asked.append((type(storage), location))
        return storage
    serialization.load(path, keep)
    assert asked == [(FakeStorage, "cpu")] * 2


def test_further_devices_can_register(path):
    on_device(path, "moon:0")
    from flambeau.serialization import locations
    before = list(locations._packages)
    try:
        serialization.register_package(
            5, lambda storage: None,
            lambda storage, location: storage if location.startswith("moon") else None)
        assert serialization.load(path)["lr"] == 0.1
    finally:
        locations._packages[:] = before


# -- arguments ------------------------------------------------------------------------------------

def test_code_is_never_run(path):
    for weights_only in (True, False, None):
        assert serialization.load(path, weights_only=weights_only)["lr"] == 0.1
    assert serialization.load(path, pickle_module=pickle, weights_only=False)["lr"] == 0.1
    with pytest.raises(RuntimeError, match="pickle_module"):
        serialization.load(path, pickle_module=pickle)
    with pytest.raises(RuntimeError, match="pickle_module"):
        serialization.load(path, pickle_module=struct, weights_only=False)


def test_wrong_files(path):
    with pytest.raises(AttributeError, match="no 'read'"):
        serialization.load(3)
    with pytest.raises(TypeError, match="text mode"):
        serialization.load(io.StringIO(""))
    with pytest.raises(ValueError, match="path"), path.open("rb") as file:
        serialization.load(file, mmap=True)
    with pytest.raises(TypeError, match="unexpected"):
        serialization.load(path, something=1)


def test_open_files_are_named(path):
    path.write_bytes(b"abc")
    with pytest.raises(CheckpointError, match=r"model.pt"), path.open("rb") as file:
        serialization.load(file)
    with pytest.raises(CheckpointError, match="<BytesIO>"):
        serialization.load(io.BytesIO(b"abc"))


def test_strings_of_python_2():
    def load(encoding):
        file = io.BytesIO()
        writer = ArchiveWriter(file, "archive")
        writer.add("data.pkl", b"\x80\x02U\x02\xc3\xa9.")
        writer.close()
        file.seek(0)
        return serialization.load(file, encoding=encoding)
    assert load("utf-8") == "\u00e9"
    assert load("latin1") == "\u00c3\u00a9"
    assert load("bytes") == b"\xc3\xa9"
