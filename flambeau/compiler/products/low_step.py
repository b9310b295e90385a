"""One product of narrow elements, or of float32 in parts (`low.py`), as a kernel call."""

from __future__ import annotations

import dataclasses
from typing import Any

from flambeau.compiler.epilogue import Epilogue
from flambeau.compiler.nest import Pointer
from flambeau.compiler.products.low import (
    GEMM_LOW_SLOTS,
    GemmLowSpec,
    gemm_low_kernel,
    gemm_low_plan,
    is_swapped,
)
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["Matrix", "low_step"]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Matrices in memory: the content of their slot; distances of matrices, rows and columns."""

    slot: Any
    batch: int
    row: int
    col: int

    def turned(self) -> Matrix:
        """The transposes."""
        return Matrix(self.slot, self.batch, self.col, self.row)

    def named(self, name: str) -> dict[str, Any]:
        """What the slots of operand `name` hold."""
        return {name: self.slot, f"{name}_batch": self.batch, f"{name}_row": self.row,
                f"{name}_col": self.col}


def low_step(spec: GemmLowSpec, target: Target, threads: int, a: Matrix, b: Matrix, c: Matrix,
             sizes: tuple[int, int, int, int], follows: Epilogue | None = None,
             more: list | None = None, before: int = 0) -> Step:
    """C = A B by the faster one of `spec` and its transpose.

    `sizes`: (batch, m, n, k). `follows`, `more`: an epilogue and the contents of its slots.
    `before`: bytes of a workspace shared with other steps that lie before this one's.
    """
    batch, m, n, k = sizes
    if is_swapped(spec, target, m, n, k):
        spec, a, b, m, n = spec.transposed(), b.turned(), a.turned(), n, m
    cut = gemm_low_plan(spec, target, batch, m, n, k, threads)
    name, text = gemm_low_kernel(spec, target, follows)
    values = dataclasses.asdict(cut) | a.named("a") | b.named("b") | c.named("c") | {
        "work": Pointer("work", before + cut.work_bytes, before), "batch": batch,
        "m": m, "n": n, "k": k}
    slots = [values[slot] for slot in GEMM_LOW_SLOTS] + (more or [])
    return Step(name, lambda: text, slots, cut.nchunks)
