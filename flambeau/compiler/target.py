"""Targets: what the code generators must know of a machine."""

from __future__ import annotations

import dataclasses
import functools

__all__ = ["Target", "host"]


@dataclasses.dataclass(frozen=True)
class Target:
    """One machine to generate code for.

    Attributes:
        triple: LLVM's name of the machine, for example "x86_64-unknown-linux-gnu".
        cpu: LLVM's name of the processor.
        features: LLVM's feature string, exact ("+avx2,-avx512f,...").
        vector_bits: width of the vector registers that the generators use.
        registers: number of vector registers.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int

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
    """The machine that this process runs on, with its exact features."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    bits, registers = 128, 32
    if triple.startswith(("x86_64", "i686", "i386")):
        bits, registers = (512, 32) if features.get("avx512f") else (256, 16) if features.get(
            "avx2") else (128, 16)
    return Target(triple, llvm.get_host_cpu_name(), features.flatten(), bits, registers)
