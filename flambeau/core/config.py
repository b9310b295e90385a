"""Settings that come from outside: environment variables and what the machine allows us to use.

The environment is read once, when `settings` is first asked for. All names start with FLAMBEAU_:

    FLAMBEAU_CACHE_DIR     directory of compiled kernels (default: the user's cache directory)
    FLAMBEAU_NO_CACHE      1: neither read nor write compiled kernels
    FLAMBEAU_NO_PLANS      1: neither read nor write plans of programs there, only kernels
    FLAMBEAU_CACHE_SIZE    budget of that directory in MiB (default 512)
    FLAMBEAU_NUM_THREADS   threads of the pool (default: OMP_NUM_THREADS, else `available_threads`)
    FLAMBEAU_SPIN          polls of an idle pool thread until it yields between them (default 20000)
    FLAMBEAU_MEMORY_CACHE  freed memory kept for reuse, in MiB (default: a quarter of the memory)
    FLAMBEAU_NATIVE        0: no JIT-made Python functions and types, ctypes instead
    FLAMBEAU_TARGET        x86-64, x86-64-v2, x86-64-v3 or x86-64-v4: kernels use no newer
                           instructions than that (default: all that the machine has)
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import sys
from collections.abc import Callable, Mapping

__all__ = ["Settings", "available_memory", "available_threads", "free_memory", "settings"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the environment asks for.

    Attributes:
        cache_dir: where compiled kernels are kept; None for nowhere.
        cache_bytes: budget of that directory.
        num_threads: threads of the pool, at least 1.
        spin: polls of an idle thread before it sleeps.
        memory_cache_bytes: freed tensor memory that is kept for reuse.
        native: whether JIT-made Python functions and types may be used.
        target: the architecture level that kernels are made for; None for this machine itself.
        plans: whether plans of programs are kept, too.
    """

    cache_dir: pathlib.Path | None
    cache_bytes: int
    num_threads: int
    spin: int
    memory_cache_bytes: int
    native: bool
    target: str | None = None
    plans: bool = True


@functools.cache
def settings() -> Settings:
    """The settings of this process, read from the environment at the first call."""
    return read_settings(os.environ)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from `environment`; a value that is no number raises ValueError and names it."""
    threads = _number(environment, "FLAMBEAU_NUM_THREADS", None, least=1)
    if threads is None:
        threads = _first_of_list(environment.get("OMP_NUM_THREADS", "")) or available_threads()
    kept = _number(environment, "FLAMBEAU_MEMORY_CACHE", None)
    return Settings(
        cache_dir=None if _flag(environment, "FLAMBEAU_NO_CACHE") else _cache_dir(environment),
        cache_bytes=_number(environment, "FLAMBEAU_CACHE_SIZE", 512) << 20,
        num_threads=threads,
        spin=_number(environment, "FLAMBEAU_SPIN", 20000),
        memory_cache_bytes=available_memory() // 4 if kept is None else kept << 20,
        native=environment.get("FLAMBEAU_NATIVE", "1") != "0",
        target=environment.get("FLAMBEAU_TARGET", "").strip() or None,
        plans=not _flag(environment, "FLAMBEAU_NO_PLANS"),
    )


def _flag(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


def _number(environment: Mapping[str, str], name: str, default, least: int = 0):
    text = environment.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise ValueError(f"{name}={text!r} should be a whole number of at least {least}")
    return value


def _first_of_list(text: str) -> int | None:
    """OMP_NUM_THREADS may be a list, one item a nesting level; rubbish is OpenMP's to report."""
    first = text.split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def _cache_dir(environment: Mapping[str, str]) -> pathlib.Path | None:
    chosen = environment.get("FLAMBEAU_CACHE_DIR")
    if chosen:
        return pathlib.Path(chosen).expanduser()
    try:
        home = pathlib.Path.home()
    except RuntimeError:  # no HOME and no entry in the password database
        return None
    if sys.platform == "win32":
        return pathlib.Path(environment.get("LOCALAPPDATA") or home) / "flambeau" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "flambeau"
    return pathlib.Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "flambeau"


def available_threads(root: str = "/") -> int:
    """Threads worth running: the affinity mask, bounded by the cgroup's CPU quota (v1 or v2).

    `root` is where /proc and /sys are looked for.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _cgroup_limit(pathlib.Path(root), "cpu", _cpus_v2, _cpus_v1)
    if quota is not None:
        count = min(count, math.ceil(quota))
    return max(1, count)


def available_memory(root: str = "/") -> int:
    """Bytes of physical memory, bounded by the cgroup's limit; 8 GiB where nobody tells."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        physical = 8 << 30
    limit = _cgroup_limit(pathlib.Path(root), "memory", _bytes_v2, _bytes_v1)
    return physical if limit is None else min(physical, int(limit))


def free_memory(root: str = "/") -> int:
    """Bytes that a process may still take without swapping: what Linux calls available, bounded by
    what is left of the cgroup's limit. A very large number where nobody tells."""
    try:
        text = (pathlib.Path(root) / "proc/meminfo").read_text()
        free = int(text.split("MemAvailable:", 1)[1].split(None, 1)[0]) << 10
    except (OSError, IndexError, ValueError):
        return sys.maxsize
    limit = _cgroup_limit(pathlib.Path(root), "memory", _left_v2, _left_v1)
    return free if limit is None else min(free, max(0, int(limit)))


_Reader = Callable[[pathlib.Path], float | None]


def _cgroup_limit(root: pathlib.Path, controller: str, read_v2: _Reader,
                  read_v1: _Reader) -> float | None:
    """The tightest limit of a controller from our cgroup up to the top; None without one."""
    if sys.platform != "linux":
        return None
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            mount, read = root / "sys/fs/cgroup", read_v2
        elif controller in controllers.split(","):
            mount, read = root / "sys/fs/cgroup" / controllers, read_v1
            if not mount.is_dir():
                mount = root / "sys/fs/cgroup" / controller
        else:
            continue
        # In a container the path is often the host's: then only the mount itself answers.
        group = mount / path.strip("/")
        for folder in [group, *group.parents]:
            limits.append(read(folder))
            if folder == mount:
                break
    return min((limit for limit in limits if limit is not None), default=None)


def _cpus_v2(folder: pathlib.Path) -> float | None:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _cpus_v1(folder: pathlib.Path) -> float | None:
    try:
        limit = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return limit / period if limit > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _bytes_v2(folder: pathlib.Path) -> float | None:
    return _bytes(folder / "memory.max")


def _bytes_v1(folder: pathlib.Path) -> float | None:
    return _bytes(folder / "memory.limit_in_bytes")  # about 2**63 for no limit


def _left_v2(folder: pathlib.Path) -> float | None:
    return _left(folder / "memory.max", folder / "memory.current")


def _left_v1(folder: pathlib.Path) -> float | None:
    return _left(folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes")


def _left(limit: pathlib.Path, usage: pathlib.Path) -> float | None:
    most, used = _bytes(limit), _bytes(usage)
    return None if most is None else most - (used or 0)


def _bytes(path: pathlib.Path) -> float | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number
        return None
