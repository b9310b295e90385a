"""A save happens completely or not at all; the container's layout; safetensors."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import stat
import struct
import zipfile

import numpy as np
import pytest
from serialization.numpy_tensors import FakeTensor, tensor

from flambeau import serialization
from flambeau.core import dtypes
from flambeau.serialization import safetensors
from flambeau.serialization.archive import ArchiveReader, ArchiveWriter
from flambeau.serialization.errors import CheckpointError, CorruptError, SaveError, TruncatedError


def test_overwriting_keeps_mode_and_link(tmp_path):
    real, link = tmp_path / "real.pt", tmp_path / "link.pt"
    serialization.save(1, real)
    assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~current_umask()
    real.chmod(0o640)
    link.symlink_to(real)
    serialization.save(2, link)
    assert link.is_symlink() and serialization.load(real) == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.pt", "real.pt"]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_saving_to_the_file_that_is_mapped(tmp_path):
    path = tmp_path / "model.pt"
    serialization.save(tensor(np.arange(100_000)), path)
    loaded = serialization.load(path, mmap=True)
    serialization.save(loaded, path)
    assert loaded.numpy()[-1] == serialization.load(path).numpy()[-1] == 99_999


class Explosive:
    def __getstate__(self):
        raise KeyboardInterrupt


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    serialization.save({"step": 1}, path)
    with pytest.raises(KeyboardInterrupt):
        serialization.save(Explosive(), path)

    def interrupt(self):
        raise KeyboardInterrupt
    monkeypatch.setattr(ArchiveWriter, "close", interrupt)  # everything but the directory written
    with pytest.raises(KeyboardInterrupt):
        serialization.save({"step": 2}, path)
    monkeypatch.undo()
    assert serialization.load(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["model.pt"]


def test_no_room(tmp_path):
    """A limit on file sizes acts like a full disk."""
    path = tmp_path / "model.pt"
    serialization.save({"step": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(SaveError, match=r"model\.pt.*needs 97\d\.\d KiB.*unchanged") as caught:
            serialization.save(tensor(np.zeros(125_000)), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert isinstance(caught.value, OSError) and isinstance(caught.value, RuntimeError)
    assert serialization.load(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["model.pt"]


def test_full_device():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(SaveError, match="/dev/full") as caught:
        serialization.save(tensor(np.zeros(10_000)), "/dev/full")
    assert caught.value.errno == errno.ENOSPC


def test_missing_folder(tmp_path):
    with pytest.raises(SaveError, match="does not exist; create it first"):
        serialization.save(1, tmp_path / "no" / "x.pt")
    with pytest.raises(SaveError, match="directory"):
        serialization.save(1, tmp_path)


def test_long_and_odd_names(tmp_path):
    for name in ("x" * 250, ".pt", "no suffix", "\u00e9\u4e16.pt"):
        serialization.save([1], tmp_path / name)
        assert serialization.load(tmp_path / name) == [1]


# -- container ------------------------------------------------------------------------------------

def test_records_are_aligned_and_listed():
    file = io.BytesIO()
    writer = ArchiveWriter(file, "folder")
    contents = {f"r{n}": bytes([n % 256]) * n for n in (0, 1, 30, 63, 64, 65, 1000)}
    for name, data in contents.items():
        writer.add(name, data)
    writer.close()
    reader = ArchiveReader(io.BytesIO(file.getvalue()))
    assert list(reader.records) == list(contents)
    for name, data in contents.items():
        assert reader.records[name].offset % 64 == 0
        assert reader.read(name) == data
    with zipfile.ZipFile(file) as plain:  # any zip program reads it
        assert plain.testzip() is None
        assert plain.namelist() == [f"folder/{name}" for name in contents]


class SparseFile:
    """Swallows writes of zeros, so that files beyond 4 GiB can be laid out in a test."""

    def __init__(self):
        self.size, self.parts = 0, {}

    def write(self, data):
        if len(data) < 1 << 20:
            self.parts[self.size] = bytes(data)
        self.size += len(data)


@pytest.mark.slow
def test_beyond_four_gib():
    huge = np.zeros((1 << 32) + 100, np.uint8)  # untouched pages
    file = SparseFile()
    writer = ArchiveWriter(file, "a", checksum=False)
    writer.add("huge", memoryview(huge))
    writer.add("after", b"abc")
    writer.close()

    class Seekable(io.RawIOBase):
        at = 0

        def readable(self):
            return True

        def seekable(self):
            return True

        def tell(self):
            return self.at

        def seek(self, offset, whence=0):
            self.at = offset + (file.size if whence == 2 else self.at if whence == 1 else 0)
            return self.at

        def readinto(self, out):
            count = min(len(out), file.size - self.at)
            out[:count] = bytes(count)
            for start, data in file.parts.items():
                low, high = max(start, self.at), min(start + len(data), self.at + count)
                if low < high:
                    out[low - self.at:high - self.at] = data[low - start:high - start]
            self.at += count
            return count

    reader = ArchiveReader(Seekable())
    assert reader.records["huge"].size == len(huge)
    assert reader.records["after"].offset > 1 << 32
    assert reader.read("after") == b"abc"


# -- safetensors ----------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", dtypes.ALL_DTYPES, ids=repr)
def test_safetensors_round_trip(dtype, tmp_path):
    if dtype in (dtypes.complex32, dtypes.complex128):
        with pytest.raises(ValueError, match="no name for"):
            safetensors.save_file({"a": tensor(np.ones(2, dtype.numpy))}, tmp_path / "m")
        assert not list(tmp_path.iterdir())
        return
    path = tmp_path / "m.safetensors"
    values = {"a.weight": np.arange(6).reshape(2, 3).astype(dtype.numpy),
              "scalar": np.ones((), dtype.numpy), "empty": np.zeros((0, 2), dtype.numpy)}
    safetensors.save_file({name: tensor(value) for name, value in values.items()}, path,
                          {"format": "pt"})
    loaded = serialization.load(path)
    for name, value in values.items():
        assert loaded[name].dtype is dtype
        np.testing.assert_array_equal(loaded[name].numpy(), value)


def test_safetensors_one_by_one(tmp_path):
    path = tmp_path / "m.safetensors"
    flags, rows = np.array([True, False, True]), np.arange(12.0, dtype=np.float32).reshape(4, 3)
    state = {"z.flags": tensor(flags), "a.rows": tensor(rows), "\u00fc": tensor(np.arange(3))}
    safetensors.save_file(state, path, {"note": "text"})
    assert safetensors.save(state, {"note": "text"}) == path.read_bytes()
    with safetensors.safe_open(path, framework="pt", device="cpu") as file:
        assert file.keys() == list(file) == ["a.rows", "z.flags", "\u00fc"]
        assert file.offset_keys() == ["\u00fc", "a.rows", "z.flags"]
        assert file.metadata() == {"note": "text"}
        found, part = file.get_tensor("a.rows"), file.get_slice("a.rows")
        assert part.get_shape() == [4, 3] and part.get_dtype() == "F32"
        with pytest.raises(KeyError, match="nothing"):
            file.get_tensor("nothing")
    np.testing.assert_array_equal(found.numpy(), rows)
    found.numpy()[0] = 99  # the file stays as it is
    again = safetensors.load(path.read_bytes())
    np.testing.assert_array_equal(again["a.rows"].numpy(), rows)
    np.testing.assert_array_equal(again["z.flags"].numpy(), flags)


def test_safetensors_that_share_memory(tmp_path):
    x = tensor(np.arange(6.0))
    halves = {"a": x.view((3,), (1,), 0), "b": x.view((3,), (1,), 3)}
    assert safetensors.load(safetensors.save(halves))["b"].numpy().tolist() == [3, 4, 5]
    with pytest.raises(RuntimeError, match="share memory"):
        safetensors.save_file({**halves, "c": x.view((2,), (1,), 2)}, tmp_path / "m")
    with pytest.raises(ValueError, match="texts"):
        safetensors.save({}, {"epoch": 3})


@pytest.mark.parametrize("header", [
    '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',  # 4 bytes are left
    '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},'
    '"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
    '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},'
    '"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
    '{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
    '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,8]}}',
    '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"__metadata__":{"x":1}}', "[" * 100_000])
def test_safetensors_headers_that_lie(header):
    text = header.encode()
    with pytest.raises(CheckpointError):
        safetensors.load(struct.pack("<Q", len(text)) + text + bytes(8))


def test_safetensors_mistakes(tmp_path):
    path = tmp_path / "m.safetensors"
    x = tensor(np.arange(6.0))
    with pytest.raises(ValueError, match="contiguous"):
        safetensors.save_file({"x": FakeTensor(x.storage, x.dtype, (2,), (3,), 0)}, path)
    with pytest.raises(ValueError, match="only tensors"):
        safetensors.save_file({"x": 3}, path)
    safetensors.save_file({"x": x}, path)
    data = path.read_bytes()
    no_json = data[:8] + b"x" + data[9:]
    for damaged, kind in ((data[:-1], TruncatedError), (data[:5], TruncatedError),
                          (b"\xff" * 8, TruncatedError), (no_json, CorruptError)):
        path.write_bytes(damaged)
        with pytest.raises(kind, match=r"m\.safetensors"):
            serialization.load(path)
    for entry in ({"dtype": "F64", "shape": [7], "data_offsets": [0, 48]},
                  {"dtype": "F64", "shape": [-1], "data_offsets": [0, 48]},
                  {"dtype": "F64", "shape": [1], "data_offsets": [-8, 48]},
                  {"dtype": "F99", "shape": [1], "data_offsets": [0, 48]}, {}, 3):
        header = json.dumps({"x": entry}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(48))
        with pytest.raises(CheckpointError, match=r"'x'|tensor"):
            serialization.load(path)
    with pytest.raises(RuntimeError, match="one device"):
        serialization.load(path, {"cuda:0": "cpu"})
