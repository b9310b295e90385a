"""The cases of `bench/kernels.py`, one module a family.

A module has one public function, `cases(full)`: an iterator of `Case`s, a sample of them or all.
A case builds itself for both sides with the same code: `build(T, variant)` receives `flambeau` or
`torch` and gives a function that runs the kernel once and returns its result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy

__all__ = ["FAMILIES", "Case", "normal"]

FAMILIES = ("gemm", "gemm_low", "epilogue", "conv", "depthwise", "norm", "pool", "index", "order",
            "attention", "recurrent", "optimizer", "random", "pointwise")


@dataclasses.dataclass
class Case:
    """One kernel call.

    Attributes:
        build: (module, variant) -> a function without arguments that runs it once.
        variants: settings of ours that are timed one by one, for example memory formats.
        peer_variants: the peer's settings; its best counts. Empty: the same as `variants`.
        flops, bytes: the work of one call, for rates; 0 where it means nothing.
        tolerance: of the results, relative to the largest element. `check` False: not compared.
    """

    family: str
    name: str
    build: Callable
    variants: tuple[str, ...] = ("",)
    peer_variants: tuple[str, ...] = ()
    flops: float = 0.0
    bytes: float = 0.0
    tolerance: float = 1e-4
    check: bool = True


def normal(T, *shape: int, seed: int = 0, dtype: str = "float32", grad: bool = False):
    """A tensor of standard normal numbers, the same on both sides."""
    data = numpy.random.default_rng([seed, *shape]).standard_normal(shape, dtype=numpy.float32)
    # a copy: memory of each side's own allocator, aligned as it aligns
    return T.from_numpy(data).to(getattr(T, dtype), copy=True).requires_grad_(grad)
