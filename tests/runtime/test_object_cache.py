"""The on-disk cache: damage, budgets, directories that cannot be used."""

from __future__ import annotations

import os
import time

import kernels
import pytest

from flambeau.runtime.object_cache import ObjectCache

KEY = "ab" * 32


@pytest.fixture
def cache(tmp_path):
    return ObjectCache(tmp_path / "objects")


def test_round_trip(cache):
    assert cache.get(KEY) is None
    assert cache.put(KEY, b"code")
    assert cache.get(KEY) == b"code"
    assert ObjectCache(cache.folder).get(KEY) == b"code"
    assert cache.put(KEY, b"")
    assert cache.get(KEY) == b""
    stats = cache.stats()
    assert (stats["files"], stats["hits"], stats["misses"], stats["written"]) == (1, 2, 1, 2)
    cache.clear()
    assert cache.get(KEY) is None
    assert cache.stats()["files"] == 0


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:20],
    lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b"X" + data[1:],
    lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:], lambda data: bytes(len(data))])
def test_damaged_files_are_discarded(cache, damage):
    cache.put(KEY, b"some code")
    path = cache._path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY) is None
    assert not path.exists()
    assert cache.stats()["corrupt"] == 1
    cache.put(KEY, b"some code")
    assert cache.get(KEY) == b"some code"


def test_no_folder():
    cache = ObjectCache(None)
    assert cache.put(KEY, b"x") is False
    assert cache.get(KEY) is None
    assert cache.stats()["files"] == 0
    cache.clear()
    cache.trim()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path):
    tmp_path.chmod(0o777)
    cache = ObjectCache(tmp_path)
    assert cache.put(KEY, b"x") is False
    assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ObjectCache(tmp_path / "file" / "objects")
    assert cache.put(KEY, b"x") is False
    assert cache.get(KEY) is None


def test_a_disk_that_fails(cache, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    assert cache.put(KEY, b"x") is False
    assert cache.stats()["files"] == 0  # no temporary file stays


def test_the_oldest_go_first(tmp_path):
    cache = ObjectCache(tmp_path / "objects", budget=10_000)
    now = time.time()
    for i in range(20):
        key = f"{i:02x}" * 32
        cache.put(key, bytes(960))
        os.utime(cache._path(key), (now - 100 + i, now - 100 + i))
    cache.trim()
    kept = [i for i in range(20) if cache.get(f"{i:02x}" * 32) is not None]
    assert kept == list(range(12, 20))  # 8000 of 10000 bytes: some room is left
    assert cache.stats()["bytes"] == 8000


def test_use_keeps_a_file_young(cache):
    cache.put(KEY, b"x")
    old = time.time() - 10 * 86400
    os.utime(cache._path(KEY), (old, old))
    cache.get(KEY)
    assert time.time() - cache._path(KEY).stat().st_mtime < 3600


USE = """
from flambeau.runtime import loader, object_cache
import kernels
kernels.kernel("count")
stats = object_cache.default_cache().stats()
print(stats["hits"], stats["written"], stats["corrupt"])
"""


def test_between_processes(tmp_path):
    folder = str(tmp_path / "cache")

    def use(**more: str) -> str:
        found = kernels.python(
            USE, **{"FLAMBEAU_CACHE_DIR": folder, "FLAMBEAU_NO_CACHE": "", **more})
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()

    assert use() == "0 1 0"
    assert use() == "1 0 0"
    (path,) = (tmp_path / "cache").glob("*/*.o")
    path.write_bytes(path.read_bytes()[:-5])
    assert use() == "0 1 1"
    assert use() == "1 0 0"
    assert use(FLAMBEAU_NO_CACHE="1") == "0 0 0"


def test_many_processes_at_once(tmp_path):
    import concurrent.futures

    folder = str(tmp_path / "cache")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(kernels.python, USE, FLAMBEAU_CACHE_DIR=folder, FLAMBEAU_NO_CACHE="")
                   for _ in range(4)]
        found = [process.result() for process in waiting]
    assert all(process.returncode == 0 for process in found), found
    assert len(list((tmp_path / "cache").glob("*/*"))) == 1
