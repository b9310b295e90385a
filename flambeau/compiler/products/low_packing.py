"""Packing of 8- and 16-bit operands for `low.py`, in units of 32 bits.

A unit holds `Engine.group` elements that follow one another along the sum: 4 bytes, 2 bfloat16, or
1 float that was 16 bits wide in memory. In units, the packed layouts are those of `packing.py`:

    rows    of A: unit q of row i lies at i * Engine.pitch + q
    panels  of B: unit q of column j lies at q * width + j

The sum is filled up with zeros to a whole unit (`Engine.fill` units at a time), on both sides.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler.emitter import Function, Module, Value, lanes_of, vector
from flambeau.compiler.products.packing import tile_for, transpose
from flambeau.compiler.target import Target

__all__ = ["SIZES", "Engine", "engine_for", "has_split", "pack_rows", "pack_panels"]

SIZES = {"i8": 1, "i16": 2, "half": 2, "float": 4, "i32": 4}


@dataclasses.dataclass(frozen=True)
class Engine:
    """How one machine multiplies elements of one narrow type.

    Attributes:
        kind: the multiplication: "amx", "bf16" (pairs by vdpbf16ps), "i16" (pairs of widened
            bytes) or "widen" (one widened element at a time).
        memory: "i8", "half", "float", or "i16" for bfloat16.
        element: type of packed elements.
        sums: type of the sums, "float" or "i32".
        lanes: units in a vector register.
        rows: heights of the micro-kernels, tallest first.
        width: units in a row of a panel.
        masked: the machine loads parts of vectors of any type.
        parts: how many packed elements stand for one in memory (`split.py`).
    """

    kind: str
    memory: str
    element: str
    sums: str
    lanes: int
    rows: tuple[int, ...]
    width: int
    masked: bool
    parts: int = 1

    @property
    def group(self) -> int:
        """Elements in a unit."""
        return 4 // SIZES[self.element]

    @property
    def height(self) -> int:
        """Rows of a strip: those that are packed together."""
        return self.rows[0]

    @property
    def depth(self) -> int:
        """Units of the sum that are packed for one call of a micro-kernel."""
        return (128 if self.parts == 1 else 64) if self.kind == "amx" else 256

    @property
    def pitch(self) -> int:
        """Units between packed rows, so that they do not share cache sets."""
        return self.depth + 16

    @property
    def fill(self) -> int:
        """The packed sum has a multiple of this many units."""
        return 16 if self.kind == "amx" else 1

    @property
    def strip(self) -> int:
        """Packed rows of A that are written: `height` in whole vectors."""
        return -(-self.height // self.lanes) * self.lanes

    @property
    def units(self) -> str:
        return vector(self.lanes, "i32")


def engine_for(memory: str, target: Target) -> Engine:
    """The fastest engine that `target` has for "bfloat", "half" or "i8"; for "float" only the one
    that takes bfloat16 parts (`has_split` tells whether there is one)."""
    tile = tile_for("float", target)
    lanes, masked = tile.lanes, target.has("avx512bw") and target.vector_bits == 512
    shape = (lanes, tile.rows, tile.width, masked)
    tiles = masked and target.has("amx-tile")
    if memory == "float":
        return Engine("amx", "float", "i16", "float", lanes, (32, 16), 32, True, parts=3)
    if memory == "bfloat":
        if tiles and target.has("amx-bf16"):
            return Engine("amx", "i16", "i16", "float", lanes, (32, 16), 32, True)
        if masked and target.has("avx512bf16"):
            return Engine("bf16", "i16", "i16", "float", *shape)
        return Engine("widen", "i16", "float", "float", *shape)
    if memory == "half":
        return Engine("widen", "half", "float", "float", *shape)
    if tiles and target.has("amx-int8"):
        return Engine("amx", "i8", "i8", "i32", lanes, (32, 16), 32, True)
    if target.triple.startswith("x86_64"):
        return Engine("i16", "i8", "i16", "i32", *shape)
    return Engine("widen", "i8", "i32", "i32", *shape)


def has_split(target: Target) -> bool:
    """Whether float32 products may be taken as products of bfloat16 parts."""
    return target.vector_bits == 512 and all(
        target.has(feature) for feature in ("avx512bw", "amx-tile", "amx-bf16"))


@dataclasses.dataclass(frozen=True)
class Operand:
    """One side of a product: its engine, and whether its bytes are unsigned."""

    engine: Engine
    unsigned: bool = False

    # ------------------------------------------------------------------ elements
    def widened(self, f: Function, raw: Value) -> Value:
        """From memory to packed elements."""
        memory, element = self.engine.memory, self.engine.element
        count = lanes_of(raw.type)
        if memory == element:
            return raw
        if memory == "half":
            return f.cast("fpext", raw, vector(count, "float"))
        if element == "float":  # a bfloat16 is the upper half of a float
            bits = f.shl(f.cast("zext", raw, vector(count, "i32")), 16)
            return f.cast("bitcast", bits, vector(count, "float"))
        return f.cast("zext" if self.unsigned else "sext", raw, vector(count, element))

    def load(self, f: Function, pointer: Value, count: int, mask: Value | None = None) -> Value:
        """`count` elements; those that `mask` leaves out are 0."""
        type_ = vector(count, self.engine.memory)
        if mask is None:
            return self.widened(f, f.load(type_, pointer))
        return self.widened(f, f.masked_load(type_, pointer, mask))

    def along(self, f: Function, pointer: Value, mask: Value | None = None) -> Value:
        """A vector of units from elements that are contiguous along the sum."""
        count = self.engine.lanes * self.engine.group
        return f.cast("bitcast", self.load(f, pointer, count, mask), self.engine.units)

    def across(self, f: Function, rows: list[Value]) -> list[Value]:
        """Vectors of units from `group` vectors, each of which holds one element of all of them."""
        lanes = self.engine.lanes
        parts = [f.shuffle(row, None, range(at, at + lanes)) if lanes_of(row.type) > lanes else row
                 for at in range(0, lanes_of(rows[0].type), lanes) for row in rows]
        group = self.engine.group
        if group == 1:
            return [f.cast("bitcast", part, self.engine.units) for part in parts]
        while group > 1:  # twice, for bytes: (0 with 1) with (2 with 3)
            parts = [self._interleaved(f, *parts[at:at + 2]) for at in range(0, len(parts), 2)]
            group //= 2
        return [f.cast("bitcast", part, self.engine.units) for part in parts]

    def _interleaved(self, f: Function, a: Value, b: Value) -> Value:
        lanes, total = self.engine.lanes, lanes_of(a.type)
        unit = total // lanes  # elements of a unit that each side holds already
        return f.shuffle(a, b, [source + at * unit + q for at in range(lanes)
                                for source in (0, total) for q in range(unit)])


def bit_mask(f: Function, lanes: int, count: Value) -> Value:
    """As `Function.lane_mask`, for many lanes: made in a general register."""
    bits = f.sub(f.shl(f.const(1, "i64"), count), 1)
    bits = f.select(f.cmp("sge", count, lanes), f.const(-1, "i64"), bits)
    return f.cast("bitcast", f.cast("trunc", bits, f"i{lanes}"), vector(lanes, "i1"))


_PACK_ARGS = (("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "depth"), ("i64", "count"),
              ("i64", "stride"), ("i64", "step"))


def pack_rows(module: Module, name: str, operand: Operand, order: str) -> None:
    """Define `name`(src, dst, depth, count, stride, step): up to `height` rows of A.

    Element (i, k) lies at src[i * stride + k * step]; the order says which of the two is 1 in
    memory: "along" (step), "across" (stride) or "any".
    """
    f = module.function(name, _PACK_ARGS, part=name)
    if order == "along":
        _rows_along(f, operand)
    elif order == "across" and operand.engine.masked:
        _rows_across(f, operand)
    else:
        _scalars(f, operand, f.args["count"], operand.engine.pitch, 1)


def pack_panels(module: Module, name: str, operand: Operand, order: str) -> None:
    """Define `name`(src, dst, depth, count, stride, step): all panels of B, depth * width units
    apart. Element (k, j) lies at src[j * stride + k * step]; for the order see `pack_rows`."""
    f = module.function(name, _PACK_ARGS, part=name)
    masked, width = operand.engine.masked, operand.engine.width
    if order == "across" and masked:
        _panels_across(f, operand)
        return
    if order == "along" and masked:
        _panels_along(f, operand)
        return
    with f.loop(0, f.args["count"], width) as j:
        _scalars(f, operand, f.smin(f.sub(f.args["count"], j), width), 1, width, j)


def _scalars(f: Function, operand: Operand, count: Value, row: int, unit: int,
             first: Value | int = 0) -> None:
    """One element at a time: unit q of line i goes to i * row + q * unit."""
    a, group, element = f.args, operand.engine.group, operand.engine.element
    start = f.gep(a["dst"], f.mul(first, operand.engine.depth), "i32")
    padded = f.mul(f.ceil_div(a["depth"], group * operand.engine.fill),
                   group * operand.engine.fill)
    with f.loop(0, count) as i:
        line = f.gep(a["src"], f.mul(f.add(i, first), a["stride"]), operand.engine.memory)
        target = f.gep(start, f.mul(i, row), "i32")
        with f.loop(0, padded) as k:
            at = f.add(f.mul(f.mul(f.udiv(k, group), unit), group), f.urem(k, group))
            live = f.cmp("slt", k, a["depth"])
            safe = f.select(live, f.mul(k, a["step"]), 0)
            item = operand.widened(f, f.load(operand.engine.memory,
                                             f.gep(line, safe, operand.engine.memory)))
            f.store(f.select(live, item, f.const(0, element)), target, at)


def _rows_along(f: Function, operand: Operand) -> None:
    a, engine = f.args, operand.engine
    step = engine.lanes * engine.group
    whole = f.and_(a["depth"], -step)
    rest = f.sub(a["depth"], whole)
    with f.loop(0, a["count"]) as i:
        line = f.gep(a["src"], f.mul(i, a["stride"]), engine.memory)
        target = f.gep(a["dst"], f.mul(i, engine.pitch * engine.group), engine.element)
        with f.loop(0, whole, step) as k:
            f.store(operand.along(f, f.gep(line, k, engine.memory)),
                    f.gep(target, k, engine.element))
        with f.when(f.cmp("sgt", rest, 0)):
            if engine.masked:
                mask = bit_mask(f, step, rest)
                f.store(operand.along(f, f.gep(line, whole, engine.memory), mask),
                        f.gep(target, whole, engine.element))
            else:
                with f.loop(whole, f.mul(f.ceil_div(a["depth"], engine.group), engine.group)) as k:
                    live = f.cmp("slt", k, a["depth"])
                    item = operand.widened(f, f.load(engine.memory, line, f.select(live, k, 0)))
                    f.store(f.select(live, item, f.const(0, engine.element)), target, k)


def _rows_across(f: Function, operand: Operand) -> None:
    """Square blocks of units, transposed in registers."""
    a, lanes = f.args, operand.engine.lanes
    block = _across_block(f, operand)
    with f.loop(0, a["count"], lanes) as i, \
            f.loop(0, a["depth"], lanes * operand.engine.group) as k:
        src = f.gep(a["src"], f.add(i, f.mul(k, a["step"])), operand.engine.memory)
        place = f.add(f.mul(i, operand.engine.pitch), f.udiv(k, operand.engine.group))
        dst = f.gep(a["dst"], place, "i32")
        f.call("void", block, [src, dst, a["step"], f.sub(a["count"], i), f.sub(a["depth"], k)])


_BLOCK_ARGS = (("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "stride"), ("i64", "count"),
               ("i64", "depth"))


def _across_block(caller: Function, operand: Operand) -> str:
    """Define (src, dst, stride, count, depth): one block of `_rows_across`; lines of `count`
    elements, `stride` apart, of which there are `depth`."""
    engine, name = operand.engine, caller.name + "_block"
    f = caller.module.function(name, _BLOCK_ARGS, part=caller.part)
    type_ = vector(engine.lanes, engine.memory)
    mask, line = bit_mask(f, engine.lanes, f.args["count"]), f.args["src"]
    none = f.const(0, vector(engine.lanes, "i1"))
    units = []
    for q in range(engine.lanes):
        rows = []
        for k in range(q * engine.group, (q + 1) * engine.group):
            live = f.cmp("sgt", f.args["depth"], k)
            rows.append(operand.widened(
                f, f.masked_load(type_, line, f.select(live, mask, none))))
            line = f.gep(line, f.select(live, f.args["stride"], 0), engine.memory)
        units += operand.across(f, rows)
    for lane, row in enumerate(transpose(f, units, 4)):
        f.store(row, f.args["dst"], lane * engine.pitch)
    return name


def _panels_across(f: Function, operand: Operand) -> None:
    """Memory is read in lines as long as the block is wide."""
    a, engine = f.args, operand.engine
    group, width = engine.group, engine.width
    whole = f.and_(a["count"], -width)
    full = f.mul(f.udiv(a["depth"], group), group)

    def unit(k: Value, lines: list[Value | None]) -> None:
        target = f.gep(a["dst"], f.mul(f.udiv(k, group), width), "i32")
        zero = f.const(0, vector(width, engine.memory))

        def panel(j: Value, mask: Value | None) -> None:
            raw = [operand.widened(f, zero) if line is None
                   else operand.load(f, f.gep(line, j, engine.memory), width, mask)
                   for line in lines]
            for number, part in enumerate(operand.across(f, raw)):
                f.store(part, f.gep(target, f.mul(j, engine.depth), "i32"), number * engine.lanes)

        with f.loop(0, whole, width) as j:
            panel(j, None)
        with f.when(f.cmp("slt", whole, a["count"])):
            panel(whole, bit_mask(f, width, f.sub(a["count"], whole)))

    def line(k: Value) -> Value:
        return f.gep(a["src"], f.mul(k, a["step"]), engine.memory)

    with f.loop(0, full, group) as k:
        unit(k, [line(f.add(k, q)) for q in range(group)])
    if group > 1:
        for rest in range(1, group):
            with f.when(f.cmp("eq", f.sub(a["depth"], full), rest)):
                unit(full, [line(f.add(full, q)) if q < rest else None for q in range(group)])
    if engine.fill > 1:
        units = f.ceil_div(a["depth"], group)
        last = f.mul(f.ceil_div(units, engine.fill), engine.fill)
        with f.loop(0, a["count"], width) as j, f.loop(units, last) as q:
            target = f.gep(a["dst"], f.add(f.mul(j, engine.depth), f.mul(q, width)), "i32")
            for at in range(0, width, engine.lanes):
                f.store(f.const(0, engine.units), target, at)


def _panels_along(f: Function, operand: Operand) -> None:
    """Square blocks of units, transposed in registers."""
    a, engine = f.args, operand.engine
    block = _along_block(f, operand)
    with f.loop(0, a["count"], engine.lanes) as j:
        panel = f.add(f.mul(f.and_(j, -engine.width), engine.depth), f.and_(j, engine.width - 1))
        with f.loop(0, a["depth"], engine.lanes * engine.group) as k:
            src = f.gep(a["src"], f.add(f.mul(j, a["stride"]), k), engine.memory)
            place = f.add(panel, f.mul(f.udiv(k, engine.group), engine.width))
            f.call("void", block, [src, f.gep(a["dst"], place, "i32"), a["stride"],
                                   f.sub(a["count"], j), f.sub(a["depth"], k)])


def _along_block(caller: Function, operand: Operand) -> str:
    """Define (src, dst, stride, count, depth): one block of `_panels_along`; where there are
    fewer than `lanes` lines, the last one again."""
    engine, name = operand.engine, caller.name + "_block"
    f = caller.module.function(name, _BLOCK_ARGS, part=caller.part)
    line, rows = f.args["src"], []
    mask = bit_mask(f, engine.lanes * engine.group, f.args["depth"])
    for lane in range(engine.lanes):
        rows.append(operand.along(f, line, mask))
        step = f.select(f.cmp("sgt", f.args["count"], lane + 1), f.args["stride"], 0)
        line = f.gep(line, step, engine.memory)
    for lane, row in enumerate(transpose(f, rows, 4)):
        f.store(row, f.args["dst"], lane * engine.width)
    return name
