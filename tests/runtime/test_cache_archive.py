"""Archives of the object cache: round trips, damage, other machines."""

from __future__ import annotations

import json
import zipfile

import pytest

from flambeau.runtime import cache_archive
from flambeau.runtime.cache_archive import ArchiveError, pack, unpack
from flambeau.runtime.object_cache import ObjectCache

OBJECTS = {f"{n:02x}" * 32: bytes([n]) * (100 + n) for n in range(20)}


@pytest.fixture
def cache(tmp_path):
    made = ObjectCache(tmp_path / "objects")
    for key, data in OBJECTS.items():
        made.put(key, data)
    return made


def test_round_trip(cache, tmp_path):
    assert pack(cache, tmp_path / "kernels.zip") == len(OBJECTS)
    other = ObjectCache(tmp_path / "other")
    assert unpack(other, tmp_path / "kernels.zip") == len(OBJECTS)
    assert {key: other.get(key) for key in other.keys()} == OBJECTS  # noqa: SIM118 - no mapping
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels.zip", "objects", "other"]


def test_damaged_objects_are_not_packed(cache, tmp_path):
    (cache.folder / "03" / ("03" * 32 + ".o")).write_bytes(b"rubbish")
    assert pack(cache, tmp_path / "kernels.zip") == len(OBJECTS) - 1


def rewrite(path, change):
    """Write the archive anew with `change(name, data)` in the place of each member."""
    with zipfile.ZipFile(path) as archive:
        members = [change(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)


@pytest.mark.parametrize("fact, value", [
    ("cpu", "pentium4"), ("features", "+sse2"), ("llvm", "3.0.0"), ("triple", "riscv64-linux"),
    ("pipeline", -1), ("format", 2)])
def test_other_machines_are_refused(cache, tmp_path, fact, value):
    path = tmp_path / "kernels.zip"
    pack(cache, path)
    manifest = json.dumps(cache_archive.machine() | {fact: value}).encode()
    rewrite(path, lambda name, data: (name, manifest if name == "machine.json" else data))
    other = ObjectCache(tmp_path / "other")
    with pytest.raises(ArchiveError, match="made for"):
        unpack(other, path)
    assert other.stats()["files"] == 0


def test_what_is_no_archive(cache, tmp_path):
    path = tmp_path / "kernels.zip"
    for content in (b"", b"rubbish" * 100):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="no archive"):
            unpack(cache, path)
    pack(cache, path)
    whole = path.read_bytes()
    other = ObjectCache(tmp_path / "other")
    for end in (len(whole) // 3, len(whole) - 5):
        path.write_bytes(whole[:end])
        with pytest.raises(ArchiveError):
            unpack(other, path)
    for place in range(40, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1:])
        try:
            unpack(other, path)
        except ArchiveError:
            continue
    assert all(other.get(key) in (None, OBJECTS[key]) for key in OBJECTS)


def test_names_that_are_no_keys(cache, tmp_path):
    path = tmp_path / "kernels.zip"
    pack(cache, path)
    rewrite(path, lambda name, data: (name.replace("05" * 32, "../../evil"), data))
    with pytest.raises(ArchiveError, match="is no kernel"):
        unpack(ObjectCache(tmp_path / "other"), path)
