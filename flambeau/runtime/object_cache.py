"""The on-disk cache of compiled kernels.

One file an object, named by its key, `<dir>/<first two digits>/<key>.o`: a magic word, the sha256
of the object, the object. Plans of whole programs (`plan_cache.py`) lie beside them, as
`<key>.plan`. Files appear atomically (written aside, then renamed), are checked when
they are read, and are only trusted in a directory that nobody else can write to, since they hold
machine code. Any trouble with the disk means that the cache does not answer, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import stat
import tempfile
import threading
import time
import zlib

from flambeau.core import config

__all__ = ["OBJECT", "PLAN", "ObjectCache", "default_cache"]

OBJECT, PLAN = ".o", ".plan"  # kinds of files
_MAGIC = b"FLBOBJ01"
_HEADER = len(_MAGIC) + 32
_TRIM_EVERY = 64  # puts between two looks at the directory's size, on average
_TRIM_TO = 0.8  # of the budget
_TOUCH_AFTER = 86400.0  # seconds: a file that is used stays young at one write a day


class ObjectCache:
    """Objects and plans by key (a hex digest) in `folder`; `folder=None` keeps nothing.

    `budget` bounds the bytes on disk: when it is passed, the files that were used longest ago go.
    """

    def __init__(self, folder: str | os.PathLike | None, budget: int = 512 << 20):
        self.folder = None if folder is None else pathlib.Path(folder)
        self.budget = budget
        self.hits = self.misses = self.corrupt = self.written = 0
        self._lock = threading.Lock()
        self._ready: bool | None = None

    def get(self, key: str, kind: str = OBJECT) -> bytes | None:
        """What is stored under `key`, or None. A damaged file is deleted."""
        if not self._usable():
            return None
        path = self._path(key, kind)
        try:
            with open(path, "rb") as file:
                data = file.read()
                age = time.time() - os.fstat(file.fileno()).st_mtime
        except OSError:
            self.misses += 1
            return None
        body = data[_HEADER:]
        if data[:len(_MAGIC)] != _MAGIC or data[len(_MAGIC):_HEADER] != hashlib.sha256(
                body).digest():
            self.discard(key, kind)
            self.corrupt += 1
            self.misses += 1
            return None
        if age > _TOUCH_AFTER:
            with contextlib.suppress(OSError):
                os.utime(path)
        self.hits += 1
        return body

    def holds(self, key: str, kind: str = OBJECT) -> bool:
        """Is there anything under `key`?"""
        return self._usable() and os.path.exists(self._path(key, kind))

    def put(self, key: str, data: bytes, kind: str = OBJECT) -> bool:
        """Store something; False when the disk does not let us."""
        if not self._usable():
            return False
        path = self._path(key, kind)
        temporary = None
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with open(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(data).digest() + data)
            os.replace(temporary, path)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            return False
        self.written += 1
        if zlib.crc32(key.encode()) % _TRIM_EVERY == 0:  # chosen by the key: short runs count, too
            self.trim()
        return True

    def discard(self, key: str, kind: str = OBJECT) -> None:
        """Forget what is stored under `key`."""
        with contextlib.suppress(OSError):
            os.unlink(self._path(key, kind))

    def clear(self) -> None:
        """Delete everything."""
        if self._usable():
            for folder in self._shards():
                shutil.rmtree(folder, ignore_errors=True)

    def keys(self) -> list[str]:
        """The keys of the objects."""
        names = [pathlib.PurePath(path).name for _, _, path in self._files()] if self._usable() \
            else []
        return [name.removesuffix(OBJECT) for name in names if name.endswith(OBJECT)]

    def stats(self) -> dict[str, int | str | None]:
        """What the directory holds (plans are among its files), and this process's hits, misses,
        corrupt and written files."""
        files = self._files() if self._usable() else []
        plans = sum(path.endswith(PLAN) for _, _, path in files)
        return {"folder": None if self.folder is None else str(self.folder), "files": len(files),
                "plans": plans,
                "bytes": sum(size for _, size, _ in files), "budget": self.budget,
                "hits": self.hits, "misses": self.misses, "corrupt": self.corrupt,
                "written": self.written}

    def trim(self) -> None:
        """Delete what was used longest ago until the directory is well within its budget."""
        if not self._usable():
            return
        with self._lock:
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            if total <= self.budget:
                return
            for _, size, path in files:
                if total <= self.budget * _TRIM_TO:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    total -= size

    # ------------------------------------------------------------------ plumbing
    def _path(self, key: str, kind: str = OBJECT) -> pathlib.Path:
        return self.folder / key[:2] / f"{key}{kind}"

    def _shards(self) -> list[pathlib.Path]:
        try:
            return [entry for entry in self.folder.iterdir()
                    if len(entry.name) == 2 and entry.is_dir()]
        except OSError:
            return []

    def _files(self) -> list[tuple[float, int, str]]:
        """(time of last use, bytes, path) of every file, forgotten temporary ones included."""
        found = []
        for shard in self._shards():
            with contextlib.suppress(OSError), os.scandir(shard) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        state = entry.stat()
                        found.append((state.st_mtime, state.st_size, entry.path))
        return found

    def _usable(self) -> bool:
        if self._ready is None:
            self._ready = self.folder is not None and self._prepare()
        return self._ready

    def _prepare(self) -> bool:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = self.folder.stat()
        except OSError:
            return False
        if not hasattr(os, "getuid"):
            return True
        return state.st_uid == os.getuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


_default: ObjectCache | None = None


def default_cache() -> ObjectCache:
    """The cache that the settings name (FLAMBEAU_CACHE_DIR, FLAMBEAU_NO_CACHE)."""
    global _default
    if _default is None:
        chosen = config.settings()
        _default = ObjectCache(chosen.cache_dir, chosen.cache_bytes)
    return _default
