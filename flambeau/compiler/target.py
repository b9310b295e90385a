"""Targets: what the code generators must know of a machine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

from flambeau.compiler import amx
from flambeau.core import config

__all__ = ["LEVELS", "Target", "host"]

_V2 = "cx16 popcnt sse sse2 sse3 ssse3 sse4.1 sse4.2"
_V3 = f"{_V2} avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave"
LEVELS = {"x86-64": "sse sse2", "x86-64-v2": _V2, "x86-64-v3": _V3,
          "x86-64-v4": f"{_V3} avx512f avx512bw avx512cd avx512dq avx512vl"}
"""The levels of the x86-64 ABI and the features that each guarantees."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One machine to generate code for.

    Attributes:
        triple: LLVM's name of the machine, for example "x86_64-unknown-linux-gnu".
        cpu: LLVM's name of the processor.
        features: LLVM's feature string, exact ("+avx2,-avx512f,...").
        vector_bits: width of the vector registers that the generators use.
        registers: number of vector registers.
        cache: bytes of the second-level cache of one core.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    cache: int = 1 << 19

    def has(self, feature: str) -> bool:
        return f"+{feature}" in self.features.split(",")

    def lanes(self, itemsize: int) -> int:
        """Elements of `itemsize` bytes in one vector register."""
        return max(1, self.vector_bits // (8 * itemsize))

    @property
    def attributes(self) -> str:
        """Function attributes that every kernel carries."""
        if self.vector_bits == 512:
            return 'nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512"'
        return "nounwind"


@functools.cache
def host() -> Target:
    """The machine that this process runs on, with its exact features; or as much of it as the
    setting FLAMBEAU_TARGET allows."""
    import llvmlite.binding as llvm

    features = amx.usable(llvm.get_host_cpu_features())
    triple = llvm.get_process_triple()
    level = config.settings().target
    if level is not None:
        return limited(triple, features, level)
    bits, registers = _vectors(triple, features)
    flat = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(features.items()))
    return Target(triple, llvm.get_host_cpu_name(), flat, bits, registers, _second_level_cache())


def _second_level_cache() -> int:
    """Bytes, as the operating system tells them; a cautious guess where it does not."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return Target.cache


def _vectors(triple: str, features: Mapping[str, bool]) -> tuple[int, int]:
    """(width of the vector registers to use, their number)."""
    if not triple.startswith(("x86_64", "i686", "i386")):
        return 128, 32
    if features.get("avx512f"):
        return 512, 32
    return (256, 16) if features.get("avx2") else (128, 16)


def limited(triple: str, features: Mapping[str, bool], level: str) -> Target:
    """A machine with these features, taken for one of `level` and no more.

    Raises:
        ValueError: there is no such level, or the machine does not reach it.
    """
    if level not in LEVELS or not triple.startswith("x86_64"):
        raise ValueError(f"FLAMBEAU_TARGET={level!r}: on {triple} it may be one of "
                         f"{sorted(LEVELS) if triple.startswith('x86_64') else []}")
    kept = dict.fromkeys(LEVELS[level].split(), True)
    missing = sorted(name for name in kept if not features.get(name))
    if missing:
        raise ValueError(f"FLAMBEAU_TARGET={level!r}: this machine lacks {', '.join(missing)}")
    flat = ",".join(f"+{name}" for name in sorted(kept))
    return Target(triple, level, flat, *_vectors(triple, kept), _second_level_cache())
