"""The caching allocator: reuse, statistics, foreign memory, running out."""

from __future__ import annotations

import ctypes
import gc
import itertools
import mmap
import random
import sys
import weakref

import kernels
import pytest

from flambeau.runtime import memory, native


@pytest.fixture(autouse=True)
def clean():
    """Start with an empty cache, and leave no cap behind."""
    gc.collect()
    memory.empty_cache()
    limit = memory.memory_stats()["cache_limit"]
    yield
    memory.set_cache_limit(limit)


def in_use() -> int:
    return memory.memory_stats()["in_use"]


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, 511, 512, 513, 4095, 4096, 4097, 10**5,
                                    (1 << 20) - 1, 1 << 20, (1 << 22) + 1, 10**7])
def test_a_storage(nbytes):
    storage = memory.allocate(nbytes)
    assert storage.nbytes == nbytes
    assert storage.version == 0
    assert storage.owner is None
    assert storage.ptr % (64 if nbytes < 1 << 20 else 4096) == 0
    ctypes.memset(storage.ptr, 0xA5, nbytes)
    assert ctypes.string_at(storage.ptr, nbytes) == b"\xa5" * nbytes
    storage.version += 3
    assert storage.version == 3
    for name in ("ptr", "nbytes"):
        if native.allowed():
            with pytest.raises(AttributeError):
                setattr(storage, name, 1)


def test_size_classes_waste_less_than_an_eighth():
    for nbytes in [*range(1, 5000), *(random.Random(0).randrange(1, 1 << 40) for _ in range(5000))]:
        size = memory.class_bytes(nbytes)
        assert size >= nbytes
        assert size % 64 == 0
        assert memory.class_bytes(size) == size
        assert size - nbytes < 64 or (size - nbytes) * 8 < nbytes
    sizes = {memory.class_bytes(nbytes) for nbytes in range(1, 1 << 20, 16)}
    assert len(sizes) < 110
    assert all(size % 4096 == 0 for size in sizes if size > 1 << 15)


def test_freed_memory_is_used_again():
    storage = memory.allocate(1000)
    address = storage.ptr
    storage.version = 12
    del storage
    again = memory.allocate(1020)
    assert (again.ptr, again.nbytes, again.version) == (address, 1020, 0)
    other = memory.allocate(1000)
    assert other.ptr != address


def test_living_storages_never_overlap():
    source, living = random.Random(1), {}
    for step in range(20_000):
        if living and source.random() < 0.5:
            key = source.choice(list(living))
            storage = living.pop(key)
            assert ctypes.c_int64.from_address(storage.ptr).value == key
            del storage
        else:
            storage = memory.allocate(source.choice((8, 64, 100, 1000, 5000, 70_000)))
            ctypes.c_int64.from_address(storage.ptr).value = step
            living[step] = storage
        if step % 5000 == 0:
            memory.empty_cache()
    spans = sorted((s.ptr, s.ptr + s.nbytes) for s in living.values())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    expected = sum(memory.class_bytes(s.nbytes) for s in living.values())
    assert in_use() >= expected


def test_statistics():
    base = in_use()
    memory.reset_peak()
    a, b = memory.allocate(1000), memory.allocate(3000)
    size = memory.class_bytes(1000) + memory.class_bytes(3000)
    assert memory.memory_stats()["in_use"] == base + size
    assert memory.memory_stats()["peak"] == base + size
    assert memory.memory_stats()["cached"] == 0
    del a, b
    stats = memory.memory_stats()
    assert (stats["in_use"], stats["peak"], stats["cached"]) == (base, base + size, size)
    assert memory.empty_cache() == size
    assert memory.memory_stats()["cached"] == 0
    memory.reset_peak()
    assert memory.memory_stats()["peak"] == base


@pytest.mark.parametrize("nbytes", [100, 4096, 70_000, 300_001, (1 << 20) - 1, 1 << 20, 5_000_001])
def test_pages_that_nobody_reads_go_back(nbytes):
    blocks = [memory.allocate(nbytes) for _ in range(5)]
    for block in blocks:
        ctypes.memset(block.ptr, 0xA5, nbytes)
    memory.untouch(blocks[1])
    memory.untouch(blocks[3])
    for block in blocks[::2]:
        assert ctypes.string_at(block.ptr, nbytes) == b"\xa5" * nbytes
    if sys.platform == "linux":
        left = ctypes.string_at(blocks[1].ptr, nbytes).count(b"\xa5")
        assert left < min(nbytes + 1, 2 * mmap.PAGESIZE)
    for block in blocks:  # still theirs
        ctypes.memset(block.ptr, 0x5A, nbytes)
    shared = ctypes.create_string_buffer(b"\xa5" * nbytes, nbytes)
    memory.untouch(memory.foreign(ctypes.addressof(shared), nbytes, shared))
    assert shared.raw == b"\xa5" * nbytes


def test_the_cap():
    for limit, cached in ((0, 0), (1 << 20, 1 << 20)):
        memory.set_cache_limit(limit)
        living = [memory.allocate(1 << 18) for _ in range(8)]
        living += [memory.allocate(100) for _ in range(8)]
        del living
        assert memory.memory_stats()["cached"] <= cached
    memory.set_cache_limit(100)
    assert memory.memory_stats()["cached"] == 0


def test_big_blocks_go_back_to_the_system():
    memory.set_cache_limit(0)
    for _ in range(20):  # 20 GiB one after the other
        storage = memory.allocate(1 << 30)
        ctypes.memset(storage.ptr + (1 << 30) - 64, 1, 64)
        del storage
    assert memory.memory_stats()["cached"] == 0


class Owner:
    pass


def test_foreign_memory_keeps_its_owner():
    owner = Owner()
    gone = weakref.ref(owner)
    buffer = ctypes.create_string_buffer(b"hello")
    base = in_use()
    storage = memory.foreign(ctypes.addressof(buffer), 6, owner)
    assert (storage.ptr, storage.nbytes, storage.version) == (ctypes.addressof(buffer), 6, 0)
    assert storage.owner is owner
    del owner
    assert gone() is not None
    del storage
    assert gone() is None
    assert in_use() == base
    with pytest.raises(TypeError):
        memory.foreign("x", 6, None)


def test_an_owner_may_allocate_when_it_dies():
    class Allocating:
        def __del__(self):
            kept.append(memory.allocate(64))

    kept = []
    storage = memory.allocate(64)
    storage.owner = Allocating()
    address = storage.ptr
    del storage
    assert len(kept) == 1
    assert kept[0].ptr != address
    assert memory.allocate(64).ptr == address


def test_exchange():
    owner = Owner()
    gone = weakref.ref(owner)
    ours, theirs = memory.allocate(100), memory.foreign(4096, 10, owner)
    del owner
    address = ours.ptr
    ours.version = 5
    memory.exchange(ours, theirs)
    assert (ours.ptr, ours.nbytes, ours.version, ours.owner) == (4096, 10, 5, gone())
    assert (theirs.ptr, theirs.nbytes, theirs.version, theirs.owner) == (address, 100, 0, None)
    base = in_use()
    del ours
    assert gone() is None
    assert in_use() == base
    del theirs
    assert in_use() == base - memory.class_bytes(100)
    assert memory.allocate(100).ptr == address
    with pytest.raises(TypeError):
        memory.exchange(memory.allocate(1), object())


def test_out_of_memory():
    with pytest.raises(MemoryError, match=r"cannot allocate 1048576\.00 GiB .*in use .*cached"):
        memory.allocate(1 << 50)
    with pytest.raises(ValueError, match="-1 bytes"):
        memory.allocate(-1)
    assert memory.allocate(10).nbytes == 10


def test_out_of_memory_gives_cycles_and_cache_a_chance(monkeypatch):
    cycle = [memory.allocate(10 << 20)]
    cycle.append(cycle)
    del cycle
    acquire, calls = memory._acquire, []

    def scarce(size: int) -> int:
        calls.append(size)
        return acquire(size) if len(calls) > 1 else 0

    monkeypatch.setattr(memory, "_acquire", scarce)
    gc.collect()
    base = in_use()
    storage = memory.allocate(20 << 20)
    assert len(calls) == 2
    assert in_use() == base + storage.nbytes


def test_references_are_counted_right():
    pool = memory.size_class(1000)
    size, marker = 100_003 - 99_003, object()
    before = sys.getrefcount(memory.Storage), sys.getrefcount(size), sys.getrefcount(marker)
    for i in range(1000):
        storage = pool.new(size)
        assert sys.getrefcount(storage) == 2
        storage.version = marker
        storage.owner = marker
        del storage
        if i % 100 == 0:
            memory.empty_cache()
    memory.empty_cache()
    del i
    after = sys.getrefcount(memory.Storage), sys.getrefcount(size), sys.getrefcount(marker)
    assert after == before


def test_python_threads():
    failures = []

    def work(seed: int) -> None:
        source, living = random.Random(seed), []
        for _ in range(5000):
            storage = memory.allocate(source.choice((8, 64, 100, 1000)))
            ctypes.c_int64.from_address(storage.ptr).value = id(storage)
            living.append(storage)
            if len(living) > 20:
                victim = living.pop(source.randrange(20))
                if ctypes.c_int64.from_address(victim.ptr).value != id(victim):
                    failures.append(seed)

    before = in_use()
    kernels.in_threads(work)
    assert not failures
    assert in_use() == before


@pytest.mark.skipif(not native.allowed(), reason="no native types")
def test_the_native_types():
    with pytest.raises(TypeError, match="cannot create"):
        memory.Storage()
    storage = memory.allocate(1)
    with pytest.raises(AttributeError):
        storage.other = 1
    del storage.version
    with pytest.raises(AttributeError):
        _ = storage.version
    del storage
    assert memory.allocate(1).version == 0
    import copy

    with pytest.raises(TypeError):
        copy.deepcopy(memory.allocate(1))


def test_the_interpreter_ends_with_living_storages():
    found = kernels.python("""
import sys
from flambeau.runtime import memory
kept = [memory.allocate(n) for n in range(0, 3000, 7)]
sys.kept = kept            # dies very late
class Late:
    storage = memory.allocate(99)
    def __del__(self): self.storage = None
late = Late()
cycle = [late, memory.allocate(5)]
cycle.append(cycle)
import builtins
builtins.kept = memory.allocate(1 << 21)
""")
    assert found.returncode == 0, found.stderr


@pytest.mark.skipif(not native.allowed(), reason="this is that process")
def test_without_native_types():
    """The same tests with FLAMBEAU_NATIVE=0."""
    found = kernels.python(f"""
import pytest, sys
from flambeau.runtime import memory
assert memory.Storage is memory.PythonStorage
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {__file__!r}]))
""", FLAMBEAU_NATIVE="0")
    assert found.returncode == 0, found.stdout + found.stderr


def test_cached_blocks_go_back_when_the_machine_runs_short(monkeypatch):
    limit = memory.memory_stats()["cache_limit"]
    memory.set_cache_limit(1 << 30)
    memory.empty_cache()
    memory.allocate(32 << 20)
    assert memory.memory_stats()["cached"] >= 32 << 20
    monkeypatch.setattr(memory.config, "free_memory", lambda: 1 << 20)
    block = memory.allocate(300 << 20)  # of another class, so a new one
    assert memory.memory_stats()["cached"] == 0
    del block
    memory.set_cache_limit(limit)
