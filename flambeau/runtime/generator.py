"""Generators: the state of a random stream, seeded and laid out as PyTorch's on the CPU.

The MT19937 state lies in native memory, where the kernels of compiler/random find it. Its byte
layout for saving is PyTorch's, so that either framework resumes the other's stream.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import threading
from collections.abc import Callable

import numpy as np

from flambeau.compiler.random.engine import (
    FLOAT_NORMAL_OFFSET,
    HAS_FLOAT_NORMAL_OFFSET,
    HAS_NORMAL_OFFSET,
    INDEX_OFFSET,
    NORMAL_OFFSET,
    STATE_BYTES,
    WORDS,
)
from flambeau.core.device import Device, as_device

__all__ = ["DEFAULT_SEED", "SAVED_STATE_BYTES", "Generator", "default_generator"]

DEFAULT_SEED = 67280421310721
SAVED_STATE_BYTES = 5056

# seed, words left + 1, seeded, next word | 624 words of 8 bytes | x, normal, rho, has normal |
# float normal, has float normal. `x` and `rho` are relics and always 0.
_HEAD = struct.Struct("<QiiQ")
_TAIL = struct.Struct("<dddi4xf?3x")
_UNUSED = WORDS + 1  # index of a block that was seeded but never regenerated

watchers: list[Callable[[Generator], None]] = []
"""Called with a generator before its stream is set to another place."""


class Generator:
    """One random stream.

    Attributes:
        address: of the native state block, the `state` slot of random kernels.
        lock: held while a kernel runs on the state.
    """

    def __init__(self, device: object = "cpu"):
        kind = str(device).split(":")[0]
        if kind != "cpu":
            raise NotImplementedError(f"a generator on {device!r} is not available: only the cpu "
                                      "has one so far; use Generator('cpu')")
        self._device = as_device(kind)
        memory = np.zeros(STATE_BYTES + 64, np.uint8)
        offset = -memory.ctypes.data % 64
        self._block = memory[offset:offset + STATE_BYTES]
        self.address = self._block.ctypes.data
        self.lock = threading.RLock()
        self.manual_seed(DEFAULT_SEED)

    @property
    def device(self) -> Device:
        """Where it draws: the CPU."""
        return self._device

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed`, in [-2^63, 2^64); a negative one means 2^64 + seed.

        Raises:
            RuntimeError: the seed is not an integer.
            ValueError: it does not fit 64 bits.
        """
        if type(seed) is not int:
            raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
        if not -2**63 <= seed < 2**64:
            raise ValueError(f"Overflow when unpacking long long: seed {seed} is not in "
                             "[-0x8000_0000_0000_0000, 0xffff_ffff_ffff_ffff]")
        for told in watchers:
            told(self)
        with self.lock:
            self._seed = seed % 2**64
            _seed_words(self.address, self._seed & 0xFFFFFFFF)
            ctypes.memset(self.address + INDEX_OFFSET, 0, STATE_BYTES - INDEX_OFFSET)
            self._set_index(_UNUSED)
        return self

    def initial_seed(self) -> int:
        """The seed that the stream started from, as an unsigned number."""
        return self._seed

    def seed(self) -> int:
        """Start a stream that nobody can foresee; the seed (64 bits) is returned."""
        chosen = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(chosen)
        return chosen

    def state_bytes(self) -> bytes:
        """The whole state in PyTorch's layout, 5056 bytes."""
        with self.lock:
            index = self._field("i", INDEX_OFFSET)
            following = 0 if index == _UNUSED else index
            left = 1 if index == _UNUSED else WORDS + 1 - index
            words = self._block[:4 * WORDS].view("<u4").astype("<u8").tobytes()
            normal, has_normal = self._field("d", NORMAL_OFFSET), self._field(
                "i", HAS_NORMAL_OFFSET)
            tail = _TAIL.pack(0.0, normal, 0.0, has_normal, self._field("f", FLOAT_NORMAL_OFFSET),
                              bool(self._field("i", HAS_FLOAT_NORMAL_OFFSET)))
            return _HEAD.pack(self._seed, left, 1, following) + words + tail

    def load_state_bytes(self, state: object) -> None:
        """Continue from `state`: 5056 bytes (or a uint8 array) as `state_bytes` returns them.

        Raises:
            RuntimeError: the size is wrong or the contents are no state.
        """
        for told in watchers:
            told(self)
        data = bytes(memoryview(state).cast("B"))
        if len(data) != SAVED_STATE_BYTES:
            raise RuntimeError(f"Expected a CPUGeneratorImplState of size {SAVED_STATE_BYTES} but "
                               f"found the input RNG state size to be {len(data)}")
        seed, left, seeded, following = _HEAD.unpack_from(data)
        index = _UNUSED if (left, following) == (1, 0) else following
        if seeded != 1 or (index != _UNUSED and not (1 <= following <= WORDS
                                                     and left == WORDS + 1 - following)):
            raise RuntimeError("Invalid mt19937 state")
        words = np.frombuffer(data, "<u8", WORDS, _HEAD.size)
        _, normal, _, has_normal, float_normal, has_float = _TAIL.unpack_from(
            data, _HEAD.size + 8 * WORDS)
        with self.lock:
            self._seed = seed
            self._block[:4 * WORDS].view("<u4")[:] = words
            self._set_index(index)
            self._set_field("d", NORMAL_OFFSET, normal)
            self._set_field("i", HAS_NORMAL_OFFSET, int(has_normal != 0))
            self._set_field("f", FLOAT_NORMAL_OFFSET, float_normal)
            self._set_field("i", HAS_FLOAT_NORMAL_OFFSET, int(has_float))

    def clone_state(self) -> Generator:
        """A new generator that continues this stream on its own."""
        made = Generator(self._device)
        made.load_state_bytes(self.state_bytes())
        return made

    def _set_index(self, index: int) -> None:
        self._set_field("i", INDEX_OFFSET, index)

    def _field(self, code: str, offset: int) -> int | float:
        return struct.unpack_from(code, self._block, offset)[0]

    def _set_field(self, code: str, offset: int, value: float) -> None:
        struct.pack_into(code, self._block, offset, value)


@functools.cache
def _seeder() -> tuple:
    """NumPy's MT19937, whose integer seeding is Matsumoto and Nishimura's, and its memory."""
    bits = np.random.MT19937(0)
    return np.random.RandomState(bits), bits.ctypes.state_address, threading.Lock()


def _seed_words(address: int, seed: int) -> None:
    """Write the 624 words that follow from a 32-bit seed to native memory."""
    state, source, lock = _seeder()
    with lock:
        state.seed(seed)
        ctypes.memmove(address, source, 4 * WORDS)


default_generator = Generator()
