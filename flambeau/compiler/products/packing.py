"""Packing: how the operands of a matrix product are laid out before the micro-kernel reads them.

The macro-kernel (`blocks.py`) asks an operand for one block at a time; how the elements are found
in memory is the operand's business. Two packed layouts exist:

    rows    A only: row i of the panel is contiguous, `Tile.pitch` elements after row i - 1
    panels  element (i, k) lies at k * width + i: what a register tile reads in one step of k

Rows and columns that lie outside of the matrix may hold anything: nothing of them is ever stored.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler.emitter import Function, Module, Value, lanes_of, vector
from flambeau.compiler.target import Target

__all__ = ["Tile", "tile_for", "narrow_tile", "pack_rows", "pack_panel", "transpose",
           "load_lanes", "load_scalar", "widen", "narrow", "multiply_add", "add", "fold"]

_SIZES = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "float": 4, "double": 8}
_ROW_PADDING = 32  # elements between packed rows, so that rows do not share cache sets


@dataclasses.dataclass(frozen=True)
class Tile:
    """The register tile and the cache blocks of one element type on one machine.

    Attributes:
        memory: LLVM type of the elements in memory.
        compute: type in which they are packed and multiplied (i8 and i16 widen to i32: the
            product modulo 2**n needs no more than that).
        lanes: elements of `compute` in a vector register.
        rows: heights of the micro-kernels, tallest first.
        vectors: width of the register tile in vectors.
        depth: largest K block; `columns`: largest N block of convolutions.
        block: packed elements of B that stay in the second-level cache.
        masked: the machine loads and stores parts of vectors at full speed.
        fused: the machine multiplies and adds with one rounding.
    """

    memory: str
    compute: str
    lanes: int
    rows: tuple[int, ...]
    vectors: int
    depth: int
    columns: int
    masked: bool
    fused: bool
    block: int = 1 << 17

    @property
    def height(self) -> int:
        return self.rows[0]

    @property
    def width(self) -> int:
        return self.lanes * self.vectors

    @property
    def pitch(self) -> int:
        """Distance between the packed rows of A."""
        return self.depth + _ROW_PADDING

    @property
    def panel_height(self) -> int:
        """Width of a packed panel of A: `height` in whole vectors."""
        return -(-self.height // self.lanes) * self.lanes

    @property
    def vector(self) -> str:
        return vector(self.lanes, self.compute)

    @property
    def memory_vector(self) -> str:
        return vector(self.lanes, self.memory)

    @property
    def itemsize(self) -> int:
        """Bytes of a packed element."""
        return _SIZES[self.compute]

    def scalar(self) -> Tile:
        """The same arithmetic one element at a time."""
        return self.with_lanes(1)

    def with_lanes(self, lanes: int) -> Tile:
        """The same arithmetic on `lanes` elements at a time."""
        return dataclasses.replace(self, lanes=lanes, vectors=1)

    def slim(self) -> Tile:
        """The tile that is one vector wide."""
        return dataclasses.replace(self, vectors=1)

    def stored(self) -> Tile:
        """The tile of the result's elements: sums of 16-bit floats are stored as they are."""
        return dataclasses.replace(self, memory=self.compute) if self.floating else self

    @property
    def floating(self) -> bool:
        return self.compute in ("float", "double")


def tile_for(memory: str, target: Target) -> Tile:
    """The tile of elements of type `memory` on `target`.

    Raises:
        NotImplementedError: the type has no matrix product; convert to float before.
    """
    if memory not in _SIZES:
        raise NotImplementedError(
            f"no matrix product of {memory} elements: convert them to float before")
    compute = "i32" if memory in ("i8", "i16") else memory
    wide = target.vector_bits >= 256
    narrow_masks = target.has("avx512bw")
    masked = wide and (_SIZES[memory] >= 4 or narrow_masks)
    if compute not in ("float", "double"):
        rows, vectors = (4, 1), 2
    elif target.vector_bits >= 512:
        rows, vectors = (14, 8, 4), 2
    elif target.registers >= 32:
        rows, vectors = (8, 4), 2
    else:
        rows, vectors = (6, 3), 2
    depth = 320 if _SIZES[compute] == 4 else 256
    fused = target.has("fma") or not target.triple.startswith(("x86", "i686", "i386", "wasm"))
    block = max(target.cache // 2, 1 << 17) // _SIZES[compute]
    return Tile(memory, compute, target.lanes(_SIZES[compute]), rows, vectors, depth, 512, masked,
                fused, block)


def narrow_tile(memory: str, target: Target) -> Tile:
    """The tile of operands of "half" or "bfloat", which are widened when they are loaded; the
    result is float (`Tile.stored`)."""
    tile = tile_for("float", target)
    masked = tile.masked and target.has("avx512bw")
    return dataclasses.replace(tile, memory=memory, masked=masked)


# ---------------------------------------------------------------------- elements
def widen(f: Function, value: Value, tile: Tile) -> Value:
    """From the type in memory to the type of the arithmetic."""
    if tile.memory == tile.compute:
        return value
    lanes = lanes_of(value.type) if value.type.startswith("<") else 1
    wide = vector(lanes, tile.compute) if lanes > 1 else tile.compute
    if tile.memory == "half":
        return f.cast("fpext", value, wide)
    if tile.memory == "bfloat":  # the upper half of a float
        narrow_bits, bits = ((vector(lanes, n) if lanes > 1 else n) for n in ("i16", "i32"))
        units = f.cast("zext", f.cast("bitcast", value, narrow_bits), bits)
        return f.cast("bitcast", f.shl(units, f.const(16, bits)), wide)
    return f.cast("sext", value, wide)


def narrow(f: Function, value: Value, tile: Tile) -> Value:
    """From the type of the arithmetic to the type in memory (integers wrap)."""
    if tile.memory == tile.compute:
        return value
    return f.cast("trunc", value,
                  tile.memory_vector if value.type.startswith("<") else tile.memory)


def load_lanes(f: Function, tile: Tile, pointer: Value, mask: Value | None = None) -> Value:
    """One vector of elements, widened; lanes that `mask` leaves out are 0."""
    if mask is None:
        return widen(f, f.load(tile.memory_vector, pointer), tile)
    return widen(f, f.masked_load(tile.memory_vector, pointer, mask), tile)


def load_scalar(f: Function, tile: Tile, pointer: Value) -> Value:
    """One element, widened."""
    return widen(f, f.load(tile.memory, pointer), tile)


def multiply_add(f: Function, tile: Tile, a: Value, b: Value, c: Value) -> Value:
    """a * b + c in the type of the arithmetic."""
    if tile.floating and tile.fused:
        return f.fma(a, b, c)
    return add(f, tile, f.fmul(a, b) if tile.floating else f.mul(a, b), c)


def add(f: Function, tile: Tile, a: Value, b: Value) -> Value:
    """a + b in the type of the arithmetic."""
    return f.fadd(a, b) if tile.floating else f.add(a, b)


def fold(f: Function, tile: Tile, value: Value) -> Value:
    """The sum of a vector's lanes: halves onto each other."""
    lanes = tile.lanes
    while lanes > 2:
        lanes //= 2
        low, high = (f.shuffle(value, None, range(start, start + lanes)) for start in (0, lanes))
        value = add(f, tile, low, high)
    return add(f, tile, f.extract(value, 0), f.extract(value, 1)) if lanes > 1 else value


# ---------------------------------------------------------------------- packing functions
_PACK_ARGS = (("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "depth"), ("i64", "count"),
              ("i64", "stride"), ("i64", "step"))


def pack_rows(module: Module, name: str, tile: Tile, order: str) -> None:
    """Define `name`(src, dst, depth, count, stride, step): the layout "rows".

    dst[i * pitch + k] = src[i * stride + k * step] for i < count, k < depth; the last row again
    for the rest of `Tile.height`. Order "row" means that step is 1. Up to a vector may be written
    behind each row.
    """
    f = module.function(name, _PACK_ARGS, part=name)
    a = f.args
    whole = _whole_vectors(f, a["depth"], tile) if order == "row" else 0
    mask = None
    if order == "row" and tile.masked:
        mask = f.lane_mask(tile.lanes, f.sub(a["depth"], whole))
    last = f.sub(a["count"], 1)
    with f.loop(0, tile.height) as i:
        src = f.gep(a["src"], f.mul(f.smin(i, last), a["stride"]), tile.memory)
        dst = f.gep(a["dst"], f.mul(i, tile.pitch), tile.compute)
        if order == "row":
            with f.loop(0, whole, tile.lanes) as k:
                f.store(load_lanes(f, tile, f.gep(src, k, tile.memory)), dst, k)
        if mask is not None:
            with f.when(f.cmp("slt", whole, a["depth"])):
                f.store(load_lanes(f, tile, f.gep(src, whole, tile.memory), mask), dst, whole)
        else:
            with f.loop(whole, a["depth"]) as k:
                offset = k if order == "row" else f.mul(k, a["step"])
                f.store(load_scalar(f, tile, f.gep(src, offset, tile.memory)), dst, k)


def pack_panel(module: Module, name: str, tile: Tile, order: str, width: int) -> None:
    """Define `name`(src, dst, depth, count, stride, step): the layout "panels".

    dst[k * width + i] = src[i * stride + k * step] for i < count, k < depth. The order says what
    is contiguous in memory: "across" (stride is 1), "along" (step is 1) or "any". Order "along"
    may write rows of the panel up to the next multiple of the vector length.
    """
    f = module.function(name, _PACK_ARGS, part=name)
    if order == "any":
        _pack_scalars(f, tile, width)
    elif tile.masked:
        (_pack_across if order == "across" else _pack_along)(f, tile, width, masked=True)
    else:
        with f.when_else(f.cmp("sge", f.args["count"], width)) as otherwise:
            (_pack_across if order == "across" else _pack_along)(f, tile, width, masked=False)
            otherwise()
            _pack_scalars(f, tile, width)


def _whole_vectors(f: Function, count: Value, tile: Tile) -> Value:
    return f.and_(count, -tile.lanes) if tile.lanes > 1 else count


def _pack_scalars(f: Function, tile: Tile, width: int) -> None:
    a = f.args
    with f.loop(0, a["depth"]) as k:
        src = f.gep(a["src"], f.mul(k, a["step"]), tile.memory)
        dst = f.gep(a["dst"], f.mul(k, width), tile.compute)
        with f.loop(0, f.smin(a["count"], width)) as i:
            value = load_scalar(f, tile, f.gep(src, f.mul(i, a["stride"]), tile.memory))
            f.store(value, dst, i)


def _pack_across(f: Function, tile: Tile, width: int, masked: bool) -> None:
    a = f.args
    starts = range(0, width, tile.lanes)
    masks = [f.lane_mask(tile.lanes, f.sub(a["count"], j)) if masked else None for j in starts]
    with f.loop(0, a["depth"]) as k:
        src = f.gep(a["src"], f.mul(k, a["step"]), tile.memory)
        dst = f.gep(a["dst"], f.mul(k, width), tile.compute)
        for j, mask in zip(starts, masks, strict=True):
            f.store(load_lanes(f, tile, f.gep(src, j, tile.memory), mask), dst, j)


def _pack_along(f: Function, tile: Tile, width: int, masked: bool) -> None:
    """Square blocks of lanes x lanes elements, transposed in registers."""
    a = f.args
    whole = a["depth"] if masked else _whole_vectors(f, a["depth"], tile)
    block = _transposer(f, tile, width, masked)
    with f.loop(0, f.smin(a["count"], width), tile.lanes) as j, \
            f.loop(0, whole, tile.lanes) as k:
        src = f.gep(a["src"], f.add(f.mul(j, a["stride"]), k), tile.memory)
        dst = f.gep(a["dst"], f.add(f.mul(k, width), j), tile.compute)
        f.call("void", block, [src, dst, a["stride"], f.sub(a["count"], j), f.sub(a["depth"], k)])
    if not masked:
        with f.loop(whole, a["depth"]) as k:
            dst = f.gep(a["dst"], f.mul(k, width), tile.compute)
            src = f.gep(a["src"], k, tile.memory)
            with f.loop(0, width) as j:
                value = load_scalar(f, tile, f.gep(src, f.mul(j, a["stride"]), tile.memory))
                f.store(value, dst, j)


def _transposer(caller: Function, tile: Tile, width: int, masked: bool) -> str:
    """Define a function (src, dst, stride, count, depth): one square block of `_pack_along`.

    A function of its own, without loops: LLVM takes much longer over so many pointers in a loop.
    """
    name = caller.name + "_block"
    f = caller.module.function(name, [
        ("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "stride"), ("i64", "count"),
        ("i64", "depth")], part=caller.part)
    line, mask, rows = f.args["src"], None, []
    if masked:
        mask = f.lane_mask(tile.lanes, f.args["depth"])
    for lane in range(tile.lanes):
        rows.append(load_lanes(f, tile, line, mask))
        step = f.args["stride"]
        if masked:  # where there are no more rows, the last one again
            step = f.select(f.cmp("sgt", f.args["count"], lane + 1), step, 0)
        line = f.gep(line, step, tile.memory)
    for lane, row in enumerate(transpose(f, rows, 16 // tile.itemsize)):
        f.store(row, f.args["dst"], lane * width)
    return name


def transpose(f: Function, rows: list[Value], block: int) -> list[Value]:
    """Transpose n vectors of n lanes. `block` lanes make 128 bits: shuffles inside of such blocks
    and of whole blocks are the ones that machines have."""
    n = len(rows)
    if n <= block:
        return _transpose_blocks(f, rows, 1)
    strips = [_transpose_in_blocks(f, rows[i:i + block], block) for i in range(0, n, block)]
    columns = [_transpose_blocks(f, [strip[j] for strip in strips], block) for j in range(block)]
    return [columns[i % block][i // block] for i in range(n)]


def _transpose_in_blocks(f: Function, rows: list[Value], block: int) -> list[Value]:
    """Of 2 or 4 rows: result j holds, in each block of `block` lanes, column j of that block."""
    n = lanes_of(rows[0].type)

    def interleave(a: Value, b: Value, unit: int) -> list[Value]:
        half = block // 2
        return [f.shuffle(a, b, [start + part * half + u + q + source
                                 for start in range(0, n, block) for u in range(0, half, unit)
                                 for source in (0, n) for q in range(unit)])
                for part in (0, 1)]

    if block == 2:
        return interleave(*rows, 1)
    (low, high), (low2, high2) = interleave(*rows[:2], 1), interleave(*rows[2:], 1)
    return interleave(low, low2, 2) + interleave(high, high2, 2)


def _transpose_blocks(f: Function, rows: list[Value], unit: int) -> list[Value]:
    """Transpose n vectors of n units of `unit` lanes each: halves first, then even and odd."""
    n = len(rows)
    if n == 1:
        return rows

    def pick(a: Value, b: Value, units: list[int]) -> Value:
        return f.shuffle(a, b, [u * unit + q for u in units for q in range(unit)])

    if n == 2:
        return [pick(*rows, [0, 2]), pick(*rows, [1, 3])]
    if n > 4:
        return _transpose_segments(f, rows, unit, 1)
    (ab, ab_high), (cd, cd_high) = (
        (pick(a, b, [0, 1, 4, 5]), pick(a, b, [2, 3, 6, 7])) for a, b in (rows[:2], rows[2:]))
    return [pick(ab, cd, [0, 2, 4, 6]), pick(ab, cd, [1, 3, 5, 7]),
            pick(ab_high, cd_high, [0, 2, 4, 6]), pick(ab_high, cd_high, [1, 3, 5, 7])]


def _transpose_segments(f: Function, rows: list[Value], unit: int, segments: int) -> list[Value]:
    """Transpose m vectors of `segments` times m units, each segment on its own: columns 0 .. m/2 of
    the upper and lower halves of the rows come together, then those of half as many."""
    m = len(rows)
    if m == 1:
        return rows
    half, total = m // 2, m * segments * unit

    def gather(a: Value, b: Value, first: int) -> Value:
        return f.shuffle(a, b, [source + (segment * m + column) * unit + q
                                for segment in range(segments) for source in (0, total)
                                for column in range(first, first + half) for q in range(unit)])

    pairs = list(zip(rows[:half], rows[half:], strict=True))
    return (_transpose_segments(f, [gather(a, b, 0) for a, b in pairs], unit, 2 * segments)
            + _transpose_segments(f, [gather(a, b, half) for a, b in pairs], unit, 2 * segments))
