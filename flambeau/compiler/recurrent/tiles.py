"""What the kernels of recurrent networks share: products of few rows, and what gates do."""

from __future__ import annotations

import dataclasses

from flambeau.compiler.attention.tiles import Blocks, product
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.frame import Slots, share
from flambeau.compiler.products.packing import load_lanes, pack_panel, tile_for
from flambeau.compiler.target import Target
from flambeau.compiler.vectormath.basic import at_most, copysign, fabs, format_of
from flambeau.compiler.vectormath.exp_log import exp_reduced, power_of_two

__all__ = ["GATES", "Lanes", "RecurrentSpec", "RecurrentPlan", "SHARED_SLOTS", "SAVED",
           "kernel_name_of", "products", "recurrent_plan", "run_rows", "spec_for", "split_work",
           "start_rows", "start_units", "tile_of"]

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
SAVED = {"LSTM": 4, "GRU": 4, "RNN_TANH": 0, "RNN_RELU": 0}
"""Numbers per unit and step that a layer keeps for its gradient."""

SHARED_SLOTS = ("w", "w_r", "steps", "batch", "size", "first", "direction", "groups", "members",
                "tile_rows", "work", "scratch", "scratch_stride")


@dataclasses.dataclass(frozen=True)
class RecurrentSpec:
    """What is fixed when a kernel of a recurrent layer is compiled.

    Attributes:
        mode: of `GATES`.
        dtype_llvm: "float" or "double".
        pitch: elements between the rows of the left factor: enough for its columns.
    """

    mode: str
    dtype_llvm: str
    pitch: int

    @property
    def gates(self) -> int:
        return GATES[self.mode]


@dataclasses.dataclass(frozen=True)
class RecurrentPlan:
    """How a layer is cut: groups of rows, each with members that share out its units; rows of a
    register tile; workspace in bytes, `scratch` of which are common to all threads."""

    groups: int
    members: int
    tile_rows: int
    work_bytes: int
    scratch: int
    scratch_stride: int


def tile_of(dtype_llvm: str, target: Target) -> Blocks:
    """The register tile: of several heights, as there are few rows."""
    tile = tile_for(dtype_llvm, target)
    if target.vector_bits >= 512:
        rows = 14, 8, 4
    else:
        rows = (8, 4) if target.registers >= 32 else (6, 2)
    return Blocks(dataclasses.replace(tile, rows=rows, vectors=2), 0)


def spec_for(mode: str, dtype_llvm: str, columns: int) -> RecurrentSpec:
    """The kernel for a left factor with so many columns: one serves up to twice as many."""
    return RecurrentSpec(mode, dtype_llvm, max(64, 1 << (columns - 1).bit_length()) + 16)


def kernel_name_of(kind: str, spec: RecurrentSpec) -> str:
    """The symbol of a kernel."""
    return f"{kind}_{spec.mode}_{spec.dtype_llvm}_{spec.pitch}"


def products(module: Module, blocks: Blocks, spec: RecurrentSpec, order: str) -> None:
    """Define what `run_rows` calls, and "pack": the right factor by panels."""
    pack_panel(module, "pack", blocks.tile, order, blocks.width)
    product(module, blocks, "product", (spec.pitch, 1), blocks.width, "set")


def run_rows(f: Function, blocks: Blocks, rows: Value, args: list[Value]) -> None:
    """The product for a tile of rows, by the lowest register tile that holds them."""
    heights = blocks.tile.rows

    def choose(number: int) -> None:
        if number == len(heights) - 1:
            f.call("void", f"product_{heights[number]}", args)
            return
        with f.when_else(f.cmp("sgt", rows, heights[number + 1])) as otherwise:
            f.call("void", f"product_{heights[number]}", args)
            otherwise()
            choose(number + 1)

    choose(0)


# ---------------------------------------------------------------------- planning
_L2 = 1 << 20  # bytes that each thread may count on for its copy of the weights
_SMALLEST_STEP = 100_000  # operations of a step that are worth a second thread


def recurrent_plan(spec: RecurrentSpec, target: Target, batch: int, size: int, panels: int,
                   depth: int, threads: int) -> RecurrentPlan:
    """Cut a layer of `size` units: the right factor has `panels` panels for as many units as a
    register tile is wide, `depth` rows each."""
    blocks = tile_of(spec.dtype_llvm, target)
    itemsize, width = blocks.tile.itemsize, blocks.width
    wide, deep = (-(-count // width) * width for count in (size, depth))
    weights = panels * wide * deep
    wanted = max(1, min(threads, 2 * batch * panels * size * depth // _SMALLEST_STEP))
    groups, members = 1, max(1, min(wanted, wide // width))
    if batch >= 4 * wanted and weights * itemsize <= _L2:
        groups, members = wanted, 1
    rows = -(-batch // groups)
    scratch = (weights + width + 2 * (batch + blocks.height) * spec.pitch
               + (batch + 1) * wide)
    scratch = -(-scratch * itemsize // 64) * 64
    stride = spec.gates * blocks.height * width * itemsize
    return RecurrentPlan(groups, members, _tile_rows(blocks.tile.rows, rows),
                         scratch + threads * stride,  # any thread of the pool may come
                         scratch, stride)


def _tile_rows(heights: tuple[int, ...], rows: int) -> int:
    """The height of tiles that `rows` rows are best cut into; lower ones are a little dearer."""

    def cost(height: int) -> float:
        whole, rest = divmod(rows, height)
        last = min((h for h in heights if h >= rest), default=0) if rest else 0
        return whole * (height + 1) + (last + 1 if rest else 0)

    return min(heights, key=cost)


# ---------------------------------------------------------------------- who does what
def split_work(f: Function, slot: Slots, blocks: Blocks, part: Value
               ) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """(rows, units) of a part of a step: half-open ranges."""
    group, member = f.udiv(part, slot["members"]), f.urem(part, slot["members"])
    return (share(f, slot["batch"], 1, group, slot["groups"]),
            share(f, slot["size"], blocks.width, member, slot["members"]))


def start_units(f: Function, slot: Slots, blocks: Blocks, part: Value) -> tuple[Value, Value]:
    """Units whose weights a part packs before the first step."""
    return share(f, slot["size"], blocks.width, part, f.mul(slot["groups"], slot["members"]))


def start_rows(f: Function, slot: Slots, part: Value) -> tuple[Value, Value]:
    """Rows whose state a part prepares before the first step."""
    return share(f, slot["batch"], 1, part, f.mul(slot["groups"], slot["members"]))


# ---------------------------------------------------------------------- gates
class Lanes:
    """Vectors of units, some of whose lanes may lie outside; and the functions of gates."""

    def __init__(self, f: Function, blocks: Blocks, target: Target):
        self.f, self.tile = f, blocks.tile
        self.approximate = target.has("avx512f") and self.tile.vector == "<16 x float>"
        self.mask: Value | None = None

    def load(self, pointer: Value, index, wanted: Value | None = None) -> Value:
        """Lanes at an index; 0 where there are none, or where `wanted` is false."""
        f, mask = self.f, self.mask
        if wanted is not None:
            mask = f.select(wanted, mask, f.const(False, mask.type))
        return load_lanes(f, self.tile, f.gep(pointer, index, self.tile.memory), mask)

    def store(self, value: Value, pointer: Value, index) -> None:
        f = self.f
        f.masked_store(value, f.gep(pointer, index, self.tile.memory), self.mask)

    def fma(self, a, b, c) -> Value:
        f = self.f
        if self.tile.fused:
            return f.fma(a, b, c)
        return f.fadd(f.fmul(a, b), c)

    def one_minus(self, a: Value) -> Value:
        return self.f.fsub(self.f.const(1.0, a.type), a)

    def reciprocal(self, a: Value) -> Value:
        """1 / a to an ulp, for normal results."""
        f = self.f
        if not self.approximate:
            return f.fdiv(f.const(1.0, a.type), a)
        r = f.intrinsic_call(a.type, "llvm.x86.avx512.rcp14.ps.512", [
            a, f.const(0.0, a.type), f.const(-1, "i16")])
        return f.fma(f.fma(f.fneg(a), r, 1.0), r, r)

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + e**-x), to about 2 ulp where it is normal."""
        f, fmt = self.f, format_of(x)
        most = 87.0 if fmt.scalar == "float" else 700.0
        t = at_most(f, f.fneg(x), most)
        t = f.select(f.cmp("olt", t, -most), -most, t)
        q, n = exp_reduced(f, t, fmt.bias)
        power = power_of_two(f, n)
        return self.reciprocal(f.fadd(f.fma(power, q, power), 1.0))

    def tanh(self, x: Value) -> Value:
        """The hyperbolic tangent to about 2 ulp: u / (u + 2) with u = expm1(2 |x|)."""
        f, fmt = self.f, format_of(x)
        t = at_most(f, fabs(f, x), 9.1 if fmt.scalar == "float" else 19.1)
        q, n = exp_reduced(f, f.fadd(t, t), fmt.bias)
        power = power_of_two(f, n)
        u = f.fma(power, q, f.fsub(power, 1.0))
        return copysign(f, f.fmul(u, self.reciprocal(f.fadd(u, 2.0))), x)
