"""Archives of the object cache: one file that takes compiled kernels to other machines of a kind.

The archive is a zip file of the cache's own files and `machine.json`, which says for which
processor and LLVM they were made. An archive holds machine code: unpack only what comes from a
source that you would also run a program of.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import zipfile
import zlib
from typing import Any

from flambeau.compiler import llvm
from flambeau.compiler.target import host
from flambeau.runtime.object_cache import ObjectCache

__all__ = ["ArchiveError", "machine", "pack", "unpack"]

_MANIFEST = "machine.json"
_NAME = re.compile(r"([0-9a-f]{64})\.o")
_LARGEST = 64 << 20  # bytes of one object; kernels are some kilobytes


class ArchiveError(ValueError):
    """The file is no archive of kernels, is damaged, or was made for another machine."""


def machine() -> dict[str, Any]:
    """What compiled kernels depend on besides their text."""
    target = host()
    return {"format": 1, "triple": target.triple, "cpu": target.cpu, "features": target.features,
            "llvm": llvm.version(), "pipeline": llvm.PIPELINE_VERSION}


def pack(cache: ObjectCache, path: str | os.PathLike) -> int:
    """Write the objects of `cache` that are whole to an archive at `path`; returns their number.

    The file appears when it is complete.

    Raises:
        OSError: it cannot be written.
    """
    path = pathlib.Path(path)
    aside = path.with_name(path.name + f".{os.getpid()}.tmp")
    count = 0
    try:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_MANIFEST, json.dumps(machine(), indent=1))
            for key in sorted(cache.keys()):
                data = cache.get(key)
                if data is not None:
                    archive.writestr(f"{key}.o", data)
                    count += 1
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def unpack(cache: ObjectCache, path: str | os.PathLike) -> int:
    """Add the objects of an archive to `cache`; returns how many were stored.

    Raises:
        ArchiveError: it is not an archive, damaged, or made for another processor or LLVM.
        OSError: it cannot be read, or the cache cannot be written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_machine(json.loads(archive.read(_MANIFEST)))
            names = [n for n in archive.namelist() if n != _MANIFEST]
            for name in names:
                if not _NAME.fullmatch(name) or archive.getinfo(name).file_size > _LARGEST:
                    raise ArchiveError(f"{path}: {name!r} is no kernel")
            broken = archive.testzip()
            if broken is not None:
                raise ArchiveError(f"{path}: {broken} is damaged; nothing was unpacked")
            stored = 0
            for name in names:
                if not cache.put(name.removesuffix(".o"), archive.read(name)):
                    raise OSError(f"the kernel cache {cache.folder} cannot be written to")
                stored += 1
            return stored
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, json.JSONDecodeError,
            UnicodeDecodeError, NotImplementedError, RuntimeError) as error:
        raise ArchiveError(f"{path} is no archive made by `flambeau cache pack`: {error}") from None


def _check_machine(made_for: Any) -> None:
    mine = machine()
    if not isinstance(made_for, dict):
        raise ArchiveError("the archive does not say which machine it was made for")
    for fact, value in mine.items():
        if made_for.get(fact) == value:
            continue
        if fact == "features":
            theirs, ours = (set(str(words).split(",")) for words in (made_for.get(fact), value))
            words = " ".join(sorted(word for word in theirs ^ ours if word.startswith("+"))[:8])
            raise ArchiveError("the archive was made for a processor with other features "
                               f"(differing in {words or 'their list'}): its kernels are of no "
                               "use here")
        raise ArchiveError(f"the archive was made for {fact} {made_for.get(fact)!r}, this machine "
                           f"has {value!r}: its kernels are of no use here")
