"""Settings from the environment, CPU quotas from cgroups."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

from flambeau.core import config


def test_defaults():
    found = config.read_settings({"HOME": "/home/x"})
    assert found.num_threads == config.available_threads()
    assert found.cache_bytes == 512 << 20
    assert found.native is True
    assert found.cache_dir is not None
    assert found.cache_dir.name in ("flambeau", "cache")


def test_the_environment(tmp_path):
    found = config.read_settings({
        "FLAMBEAU_CACHE_DIR": str(tmp_path), "FLAMBEAU_NUM_THREADS": "3", "OMP_NUM_THREADS": "9",
        "FLAMBEAU_CACHE_SIZE": "1", "FLAMBEAU_SPIN": "0", "FLAMBEAU_MEMORY_CACHE": "2",
        "FLAMBEAU_NATIVE": "0"})
    assert found == config.Settings(tmp_path, 1 << 20, 3, 0, 2 << 20, False)
    assert config.read_settings({"FLAMBEAU_NO_CACHE": "1"}).cache_dir is None
    assert config.read_settings({"FLAMBEAU_NO_CACHE": "0"}).cache_dir is not None


@pytest.mark.parametrize("text, count", [("4", 4), ("4,2", 4), (" 2 ", 2), ("x", None),
                                         ("0", None), ("", None)])
def test_openmp_names_the_threads_too(text, count):
    found = config.read_settings({"OMP_NUM_THREADS": text})
    assert found.num_threads == (count or config.available_threads())


@pytest.mark.parametrize("name, text", [("NUM_THREADS", "0"), ("NUM_THREADS", "many"),
                                        ("SPIN", "-1"), ("CACHE_SIZE", "1.5")])
def test_rubbish_is_named(name, text):
    with pytest.raises(ValueError, match=f"FLAMBEAU_{name}='{text}'"):
        config.read_settings({f"FLAMBEAU_{name}": text})


@pytest.fixture
def many_cpus(monkeypatch):
    monkeypatch.setattr(config.sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def write(root: pathlib.Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize("files, count", [
    ({}, 64),
    ({"proc/self/cgroup": "0::/\n"}, 64),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "rubbish\n"}, 64),
    # the tightest of all levels
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
      "sys/fs/cgroup/a/cpu.max": "400000 100000\n",
      "sys/fs/cgroup/cpu.max": "800000 100000\n"}, 4),
    # in a container the path is the host's
    ({"proc/self/cgroup": "0::/docker/123\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    # version 1
    ({"proc/self/cgroup": "3:cpu,cpuacct:/x\n1:cpuset:/\n",
      "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "150000\n",
      "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 2),
    ({"proc/self/cgroup": "3:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 64),
])
def test_cpu_quota(tmp_path, many_cpus, files, count):
    assert config.available_threads(write(tmp_path, files)) == count


@pytest.mark.parametrize("files, size", [
    ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, None),
    ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n",
      "sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20),
    ({"proc/self/cgroup": "4:memory:/a\n",
      "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "2097152\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 2 << 20),
    ({"proc/self/cgroup": "4:memory:/\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
])
def test_memory_limit(tmp_path, many_cpus, files, size):
    physical = config.available_memory(str(tmp_path / "nothing"))
    assert config.available_memory(write(tmp_path, files)) == (size or physical)


@pytest.mark.parametrize("files, size", [
    ({"proc/self/cgroup": "0::/a\n", "proc/meminfo": "MemFree: 1 kB\nMemAvailable: 2048 kB\n",
      "sys/fs/cgroup/a/memory.max": "max\n"}, 2 << 20),
    ({"proc/self/cgroup": "0::/a\n", "proc/meminfo": "MemAvailable:    9999999 kB\n",
      "sys/fs/cgroup/a/memory.max": "1000000\n", "sys/fs/cgroup/a/memory.current": "400000\n"},
     600_000),
    ({"proc/self/cgroup": "0::/a\n", "proc/meminfo": "MemAvailable:    9999999 kB\n",
      "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.current": "4000\n"}, 0),
    ({"proc/self/cgroup": "0::/a\n", "proc/meminfo": "rubbish"}, sys.maxsize),
])
def test_free_memory(tmp_path, files, size):
    assert config.free_memory(write(tmp_path, files)) == size
