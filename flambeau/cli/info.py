"""`flambeau info`: what this installation is, and what it found on this machine."""

from __future__ import annotations

import argparse
import platform
from importlib import metadata
from typing import Any

__all__ = ["add_command", "run", "collect"]


def add_command(commands: Any) -> None:
    """Register `flambeau info`."""
    parser = commands.add_parser("info", help="version, CPU features, threads, cache, devices")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one `name: value` line per fact."""
    facts = collect()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name + ':':<{width + 1}} {value}")
    return 0


def collect() -> dict[str, str]:
    """The facts by name, in printing order."""
    facts = {
        "flambeau": version_of("flambeau"),
        "python": f"{platform.python_version()} on {platform.platform()}",
    }
    facts.update((name, version_of(name)) for name in ("numpy", "llvmlite", "ml_dtypes"))
    facts.update(cpu_facts())
    facts.update(cache_facts())
    facts["devices"] = ", ".join(devices())
    return facts


def version_of(distribution: str) -> str:
    """The installed version, or a note that the package was not installed by pip."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed as a package (running from a source tree)"


def cpu_facts() -> dict[str, str]:
    """The processor as the code generators see it, and the threads that the pool would use."""
    from flambeau.compiler.target import host
    from flambeau.core.config import settings

    target = host()
    enabled = [word[1:] for word in target.features.split(",") if word.startswith("+")]
    return {
        "target": f"{target.triple}, {target.cpu}",
        "vectors": f"{target.registers} registers of {target.vector_bits} bits",
        "cpu features": " ".join(sorted(enabled)) or "none",
        "threads": str(settings().num_threads),
    }


def cache_facts() -> dict[str, str]:
    """Where compiled kernels are kept, and how much lies there."""
    from flambeau.runtime.object_cache import default_cache

    stats = default_cache().stats()
    if stats["folder"] is None:
        return {"kernel cache": "off (FLAMBEAU_NO_CACHE)"}
    return {
        "kernel cache": str(stats["folder"]),
        "cached": f"{cached_text(stats)} of at most {megabytes(stats['budget'])}",
    }


def cached_text(stats: dict[str, Any]) -> str:
    """What a cache with these statistics holds, in words."""
    plans = f", {stats['plans']} plans of programs" if stats["plans"] else ""
    return f"{stats['files'] - stats['plans']} kernels{plans}, {megabytes(stats['bytes'])}"


def megabytes(count: Any) -> str:
    """Bytes as MiB with one decimal."""
    return f"{int(count) / 2**20:.1f} MiB"


def devices() -> list[str]:
    """The devices that tensors can live on."""
    return ["cpu"]
