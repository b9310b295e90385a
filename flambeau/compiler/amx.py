"""Intel AMX: tile registers of 16 rows x 64 bytes, and one instruction that multiplies two of them.

    C[16 x 16] += A[16 x 16 units] B[16 units x 16]     a unit is 32 bits: 2 bfloat16 or 4 bytes

The operating system grants tiles to a process on request (`permitted`). Tiles are numbered
registers here, not LLVM values: a kernel configures them once (`configure`) and releases them.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Mapping

from flambeau.compiler.emitter import Function, Module, Value

__all__ = ["TILE_ARGS", "permitted", "usable", "configure", "release", "tile_kernel"]

_ARCH_PRCTL = 158  # the system call
_ARCH_REQ_XCOMP_PERM = 0x1023
_XFEATURE_XTILEDATA = 18

SIDE = 16  # rows and columns of a tile, in units of 32 bits
_TILES = 8


@functools.cache
def permitted() -> bool:
    """Ask Linux, once, for the use of tiles; threads and forked children inherit the answer."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        syscall = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return False
    syscall.restype = ctypes.c_long
    return syscall(ctypes.c_long(_ARCH_PRCTL), ctypes.c_long(_ARCH_REQ_XCOMP_PERM),
                   ctypes.c_long(_XFEATURE_XTILEDATA)) == 0


def usable(features: Mapping[str, bool]) -> dict[str, bool]:
    """`features` of this machine, without AMX where the system does not grant it."""
    kept = dict(features)
    if any(kept.get(name) for name in features if name.startswith("amx")) and not permitted():
        kept |= {name: False for name in features if name.startswith("amx")}
    return kept


def _tile(number: int) -> Value:
    return Value(str(number), "i8")


def configure(f: Function) -> None:
    """Give all eight tiles their full size; they start as zeros."""
    area = f.array("i8", 64)
    for word in range(8):
        f.store(f.const(0, "i64"), area, word)
    f.store(f.const(1, "i8"), area)  # the palette
    for tile in range(_TILES):
        f.store(f.const(4 * SIDE, "i16"), f.gep(area, 16 + 2 * tile, "i8"))
        f.store(f.const(SIDE, "i8"), f.gep(area, 48 + tile, "i8"))
    f.intrinsic_call("void", "llvm.x86.ldtilecfg", [area])


def release(f: Function) -> None:
    """Leave the tiles: threads that use none are switched faster."""
    f.intrinsic_call("void", "llvm.x86.tilerelease", [])


TILE_ARGS = (("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr", "old"), ("ptr", "c"),
             ("i64", "depth"), ("i64", "ld_old"), ("i64", "ldc"), ("i1", "add"))


def tile_kernel(module: Module, instruction: str, shape: tuple[int, int], pitch: int,
                width: int, layers: tuple[int, int] | None = None, name: str = "tiles") -> str:
    """Define a block of `shape` tiles, at most 2 x 2: C = A B (+ old, if `add`);
    returns its name, which begins with `name`.

    Arguments of the function: a (rows `pitch` units apart), b (`width` units in a row), old, c,
    depth (units, taken up to a multiple of 16), distances of rows of old and c (units), add.
    `instruction` is "tdpbf16ps",
    "tdpbssd", "tdpbusd" or "tdpbsud". With `layers`, a and b consist of three parts each, so many
    units apart, and the products of all but the smallest are summed up, small ones first.
    """
    rows, columns = shape
    part, name = name, f"{name}_{rows}_{columns}"
    f = module.function(name, list(TILE_ARGS), part=part)
    a, b = f.args["a"], f.args["b"]

    def places(base: str, pitch: str) -> list[tuple[int, Value]]:
        return [(2 * i + j, f.gep(f.args[base], f.add(f.mul(f.args[pitch], SIDE * i), SIDE * j),
                                  "i32")) for i in range(rows) for j in range(columns)]

    sums = places("c", "ldc")
    with f.when_else(f.args["add"]) as otherwise:
        stride = f.mul(f.args["ld_old"], 4)
        for tile, place in places("old", "ld_old"):
            f.intrinsic_call("void", "llvm.x86.tileloadd64", [_tile(tile), place, stride])
        otherwise()
        for tile, _ in sums:
            f.intrinsic_call("void", "llvm.x86.tilezero", [_tile(tile)])
    with f.loop(0, f.args["depth"], SIDE) as k:
        block = _Block(f, f.gep(a, k, "i32"), f.gep(b, f.mul(k, width), "i32"), shape,
                       (pitch, width), layers or (0, 0))
        for a_part, b_part in _PAIRS if layers else ((0, 0),):
            block.multiply(instruction, a_part, b_part)
    stride = f.mul(f.args["ldc"], 4)
    for tile, place in sums:
        f.intrinsic_call("void", "llvm.x86.tilestored64", [_tile(tile), place, stride])
    return name


_PAIRS = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))  # parts of a and b that are multiplied


class _Block:
    """The tiles of one step along the sum: sums in 0 to 3, a in 4 and 5, b in 6 and 7."""

    def __init__(self, f: Function, a: Value, b: Value, shape: tuple[int, int],
                 pitches: tuple[int, int], layers: tuple[int, int]):
        self.f, self.shape, self.pitches, self.layers = f, shape, pitches, layers
        self.places = a, b
        self.loaded: list[int | None] = [None, None]  # which part is in the registers

    def multiply(self, instruction: str, a_part: int, b_part: int) -> None:
        """Add the products of one part of a with one of b."""
        f, (rows, columns) = self.f, self.shape
        fresh_a, fresh_b = self.loaded[0] != a_part, self.loaded[1] != b_part
        self.loaded = [a_part, b_part]
        for j in range(columns if fresh_b else 0):
            self._load(6 + j, 1, b_part * self.layers[1] + SIDE * j)
        for i in range(rows):
            if fresh_a:
                self._load(4 + i, 0, a_part * self.layers[0] + SIDE * i * self.pitches[0])
            for j in range(columns):
                f.intrinsic_call("void", f"llvm.x86.{instruction}",
                                 [_tile(2 * i + j), _tile(4 + i), _tile(6 + j)])

    def _load(self, tile: int, side: int, offset: int) -> None:
        f = self.f
        f.intrinsic_call("void", "llvm.x86.tileloadd64", [
            _tile(tile), f.gep(self.places[side], offset, "i32"),
            f.const(4 * self.pitches[side], "i64")])
