"""How long each kernel of a program takes, on memory of its own.

Nothing that the user holds is written: arguments that a program changes are copied, those that are
not known any more (the arguments of an earlier call) are made up, random streams continue from a
copy of their state.
"""

from __future__ import annotations

import itertools
import mmap
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from flambeau.compile.interface import room_of
from flambeau.runtime.launch import STATUS, Program, launcher
from flambeau.tensor.meta import Meta

__all__ = ["Memory", "time_steps"]

BUDGET = 0.25  # seconds of measuring, but at least two rounds
ROUNDS = 30


class Memory:
    """Blocks that no statistic counts, freed with this object."""

    def __init__(self) -> None:
        self._blocks: list[Any] = []

    def block(self, nbytes: int) -> int:
        """The address of so many bytes, on a page boundary."""
        block = mmap.mmap(-1, max(nbytes, 1))
        array = np.frombuffer(block, np.uint8)
        self._blocks.append((block, array))
        return array.ctypes.data

    def copy(self, address: int, nbytes: int) -> int:
        """A copy of memory."""
        made = self.block(nbytes)
        np.copyto(_bytes_at(made, nbytes), _bytes_at(address, nbytes))
        return made

    def invented(self, meta: Meta) -> int:
        """Memory for a tensor of this layout: numbers from 0.5 to 1, zeros for integers."""
        nbytes = room_of(meta)
        made = self.block(nbytes)
        if meta.dtype.kind == "f" and nbytes:
            values = _bytes_at(made, nbytes).view(meta.dtype.numpy)
            values[:] = (np.arange(values.size, dtype=np.uint32) * 2654435761 % 1024
                         ).astype(np.float32) / 2048 + 0.5
        return made


def _bytes_at(address: int, nbytes: int) -> np.ndarray:
    import ctypes

    if not nbytes:
        return np.empty(0, np.uint8)
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


def time_steps(program: Program, arguments: Sequence[int | float],
               exchanged: dict[int, int] | None = None) -> list[float]:
    """Seconds that each step of a program takes, the least of several rounds in order.

    `exchanged`: words of the template -> what stands for them (addresses of random states).
    """
    singles = _singles(program, arguments, exchanged or {})
    best = [float("inf")] * len(singles)
    launch, clock = launcher(), time.perf_counter
    begin = clock()
    for round_ in range(ROUNDS):
        for i, single in enumerate(singles):
            address = single.address
            before = clock()
            launch(address)
            taken = clock() - before
            if taken < best[i]:
                best[i] = taken
        if round_ >= 1 and clock() - begin > BUDGET:
            break
    return best


def _singles(program: Program, arguments: Sequence[int | float], exchanged: dict[int, int]
             ) -> list[Program]:
    """Each step as a program of its own, without arguments."""
    slots = [exchanged.get(word, word) if word else 0 for word in program.template]
    status = set()
    for slot, argument, offset in program.patches:
        if argument == STATUS:
            status.add(slot)
        elif isinstance(arguments[argument], float):
            slots[slot] = int(np.float64(arguments[argument]).view(np.int64))
        else:
            slots[slot] = arguments[argument] + offset
    starts = sorted({first for _, first, _ in program.members} | {len(slots)})
    following = dict(itertools.pairwise(starts))
    singles = []
    for kernel, first, nchunks in program.members:
        end = following.get(first, first)
        patches = [(2 + slot - first, STATUS, 0) for slot in range(first, end) if slot in status]
        singles.append(Program.build([(kernel, 2, nchunks)], patches, [],
                                     [0, 0, *slots[first:end]], program.release_gil))
    return singles
