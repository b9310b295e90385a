"""`flambeau cache`: look at the compiled kernels on disk, delete them, take them elsewhere."""

from __future__ import annotations

import argparse
from typing import Any

from flambeau.cli.errors import UserError
from flambeau.cli.info import cache_facts, cached_text

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Register `flambeau cache`."""
    parser = commands.add_parser("cache", help="the compiled kernels on disk")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("info", help="where they are, and how much").set_defaults(run=info)
    actions.add_parser("clear", help="delete them all").set_defaults(run=clear)
    for name, run, text in (
            ("pack", pack, "write them to an archive, for other machines of this kind"),
            ("unpack", unpack, "add those of an archive (of a source that you trust: it is code)")):
        action = actions.add_parser(name, help=text)
        action.add_argument("file", help="the archive")
        action.set_defaults(run=run)


def info(options: argparse.Namespace) -> int:
    """Print where the cache is and how full."""
    for name, value in cache_facts().items():
        print(f"{name}: {value}")
    return 0


def clear(options: argparse.Namespace) -> int:
    """Delete every cached kernel."""
    cache = _cache()
    stats = cache.stats()
    cache.clear()
    left = cache.stats()["files"]
    if left:
        raise UserError(f"{left} files in {cache.folder} could not be deleted",
                        "look at its permissions")
    print(f"deleted {cached_text(stats)}")
    return 0


def pack(options: argparse.Namespace) -> int:
    """Write the cached kernels to an archive."""
    from flambeau.runtime.cache_archive import pack as write

    try:
        count = write(_cache(), options.file)
    except OSError as error:
        raise UserError(f"cannot write {options.file}: {error.strerror or error}",
                        "choose a place that exists and has room") from None
    print(f"packed {count} kernels into {options.file}")
    return 0


def unpack(options: argparse.Namespace) -> int:
    """Add the kernels of an archive to the cache."""
    from flambeau.runtime.cache_archive import ArchiveError
    from flambeau.runtime.cache_archive import unpack as read

    try:
        count = read(_cache(), options.file)
    except ArchiveError as error:
        raise UserError(str(error), "pack one on a machine like this one") from None
    except OSError as error:
        raise UserError(f"cannot unpack {options.file}: {error.strerror or error}",
                        "look at the file and at the cache's folder (flambeau cache info)"
                        ) from None
    print(f"unpacked {count} kernels")
    return 0


def _cache() -> Any:
    from flambeau.runtime.object_cache import default_cache

    cache = default_cache()
    if cache.folder is None:
        raise UserError("the kernel cache is off", "unset FLAMBEAU_NO_CACHE")
    return cache
