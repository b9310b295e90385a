"""What the attention kernels are made of: small products in registers, packing, and exponentials.

All blocks of the kernels have one of three layouts:

    panels   an operand of a product: element (i, k) lies at k * width + i of its panel
    scores   rows of `Blocks.pitch` elements: products of queries and keys, then the softmax
    sums     tiles of `height` rows: element (i, j) of a tile at (j // width) * height * width
             + i * width + j % width
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler import vectormath
from flambeau.compiler.emitter import Function, Module, Value, scalar_of
from flambeau.compiler.products.packing import (
    Tile,
    fold,
    multiply_add,
    narrow_tile,
    pack_panel,
    tile_for,
)
from flambeau.compiler.target import Target

__all__ = ["Blocks", "ONE", "blocks_for", "exp2", "factor_columns", "factor_rows", "horizontal",
           "mask_lanes", "pack", "packers", "product", "run_product", "LOG2_E"]

LOG2_E = 1.4426950408889634
ONE = Value("1", "i64")


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How the kernels cut attention: a register tile and the keys that are worked on at a time.

    Attributes:
        tile: element type and vectors; `tile.rows` are the heights of the register tiles.
        keys: keys of one block, a multiple of the tile's width.
    """

    tile: Tile
    keys: int

    @property
    def height(self) -> int:
        return self.tile.rows[0]

    @property
    def low(self) -> int:
        """Height of the register tile for the last few rows."""
        return self.tile.rows[-1]

    @property
    def width(self) -> int:
        return self.tile.width

    @property
    def pitch(self) -> int:
        """Distance between rows of scores; no multiple of a page."""
        return self.keys + 16

    @property
    def stats(self) -> int:
        """Elements that a number per row of a tile takes: whole vectors."""
        return -(-self.height // self.tile.lanes) * self.tile.lanes

    def wide(self, f: Function, size: Value) -> Value:
        """`size` rounded up to the width of the register tile."""
        return f.mul(f.ceil_div(size, self.width), self.width)

    # ------------------------------------------------------------------ packed operands
    late_scale = False
    """Are products scaled after they were stored?"""

    @property
    def deep_step(self) -> int:
        """The packed depth is a multiple of this."""
        return self.width

    @property
    def query_items(self) -> int:
        """Elements of a tile's packed queries, for each of the packed depth."""
        return self.tile.panel_height

    @property
    def column_items(self) -> int:
        """Elements of a block's packed keys, for each of the packed depth."""
        return self.keys

    @property
    def value_items(self) -> int:
        """Elements of a block's packed values, for each of the packed width."""
        return self.keys

    # ------------------------------------------------------------------ functions of the kernel
    def begin(self, f: Function) -> None:
        """What a kernel does first."""

    def end(self, f: Function) -> None:
        """What a kernel does last."""

    def define(self, module: Module) -> None:
        """What the methods below call."""
        packers(module, self)
        product(module, self, "score", (1, self.tile.panel_height), self.pitch, "set")
        product(module, self, "weigh", (self.pitch, 1), self.width, "add")

    def pack_queries(self, f: Function, source: Value, stride: Value, rows: Value, depth: Value,
                     target: Value) -> None:
        """Up to `height` rows of (rows, depth)."""
        pack(f, self, source, stride, rows, depth, target)

    def pack_columns(self, f: Function, source: Value, stride: Value, rows: Value, depth: Value,
                     target: Value) -> None:
        """The transpose of (rows, depth)."""
        factor_columns(f, self, source, stride, rows, depth, target)

    def pack_values(self, f: Function, source: Value, stride: Value, rows: Value, columns: Value,
                    target: Value) -> None:
        """Rows (rows, columns), at most `keys` of them."""
        factor_rows(f, self, source, stride, rows, columns, target, self.keys)

    def score(self, f: Function, rows: Value, queries: Value, columns: Value, scores: Value,
              seen: Value, depth: Value, factor: Value) -> None:
        """Rows of scores of the keys up to `seen`, times factor[0]."""
        item = self.tile.compute
        panel = f.mul(self.wide(f, depth), self.width)
        with f.loop(0, f.ceil_div(seen, self.width)) as p:
            run_product(f, self, "score", rows, queries, 1, f.gep(columns, f.mul(p, panel), item),
                        f.gep(scores, f.mul(p, self.width), item), self.pitch, depth, factor, 0)

    def weigh(self, f: Function, rows: Value, weights: Value, values: Value, sums: Value,
              seen: Value, width: Value, alpha: Value) -> None:
        """sums = alpha[row] sums + weights values."""
        item = self.tile.compute
        with f.loop(0, width, self.width) as j:
            run_product(f, self, "weigh", rows, weights, self.pitch,
                        f.gep(values, f.mul(j, self.keys), item),
                        f.gep(sums, f.mul(j, self.height), item), self.width, seen, alpha, 1)

    def store_weights(self, f: Function, weights: Value, line: Value, column: Value) -> None:
        """A vector of weights over the scores they come from."""
        f.store(weights, line, column)

    def filled(self, f: Function, seen: Value) -> Value:
        """Up to where weights are read."""
        return seen


def blocks_for(dtype_llvm: str, target: Target, keys: int) -> Blocks:
    """The blocks for elements of that type, 16-bit ones being widened when they are packed;
    `keys` as of `Blocks`, about."""
    narrow = dtype_llvm in ("half", "bfloat")
    tile = (narrow_tile if narrow else tile_for)(dtype_llvm, target)
    if target.vector_bits >= 512:
        rows = 14, 4
    else:
        rows = (8, 4) if target.registers >= 32 else (6, 2)
    tile = dataclasses.replace(tile, rows=rows, vectors=2)
    return Blocks(tile, -(-keys // tile.width) * tile.width)


# ---------------------------------------------------------------------- packing
def packers(module: Module, blocks: Blocks) -> None:
    """Define what `pack` calls: "along" and "across" for factors that are `width` wide, "tall" for
    those as high as the register tile."""
    tile = blocks.tile
    pack_panel(module, "pack_along", tile, "along", blocks.width)
    pack_panel(module, "pack_across", tile, "across", blocks.width)
    pack_panel(module, "pack_tall", tile, "along", tile.panel_height)


def factor_columns(f: Function, blocks: Blocks, source: Value, stride: Value, rows: Value,
                   depth: Value, target: Value) -> None:
    """Pack the transpose of source (rows, depth): panels of `width` rows, along depth.

    Panels lie `wide(depth)` * width elements apart.
    """
    step = f.mul(blocks.wide(f, depth), blocks.width)
    with f.loop(0, f.ceil_div(rows, blocks.width)) as panel:
        first = f.mul(panel, blocks.width)
        f.call("void", "pack_along", [
            f.gep(source, f.mul(first, stride), blocks.tile.memory),
            f.gep(target, f.mul(panel, step), blocks.tile.compute),
            depth, f.sub(rows, first), stride, ONE])


def factor_rows(f: Function, blocks: Blocks, source: Value, stride: Value, rows: Value,
                columns: Value, target: Value, most: int) -> None:
    """Pack source (rows, columns): panels of `width` columns, along the rows.

    Panels lie `most` * width elements apart; `most` rows at most.
    """
    with f.loop(0, columns, blocks.width) as j:
        f.call("void", "pack_across", [
            f.gep(source, j, blocks.tile.memory),
            f.gep(target, f.mul(j, most), blocks.tile.compute),
            rows, f.sub(columns, j), ONE, stride])


def pack(f: Function, blocks: Blocks, source: Value, stride: Value, rows: Value, depth: Value,
         target: Value) -> None:
    """Pack up to `height` rows of source (rows, depth) as the left factor of a product."""
    f.call("void", "pack_tall", [source, target, depth, rows, stride, ONE])


# ---------------------------------------------------------------------- products
_PRODUCT_ARGS = (("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr noalias", "c"),
                 ("i64", "depth"), ("ptr noalias", "factor"))


def product(module: Module, blocks: Blocks, name: str, a: tuple[int, int], pitch: int,
            how: str) -> None:
    """Define `name`_h(a, b, c, depth, factor) for each height h of the tile: C[h, width] from A B.

    Args:
        a: where element (i, k) of A lies: (step of i, step of k).
        pitch: elements between the rows of C.
        how: "set": C = factor[0] A B. "add": C = factor[i] C + A B.
    """
    for rows in blocks.tile.rows:
        _product(module, blocks.tile, f"{name}_{rows}", rows, a, pitch, how)


def _product(module: Module, tile: Tile, name: str, rows: int, a: tuple[int, int], pitch: int,
             how: str) -> None:
    f = module.function(name, _PRODUCT_ARGS, part=name)
    row_step, k_step = a
    sums = [[f.var(tile.vector, 0) for _ in range(tile.vectors)] for _ in range(rows)]
    with f.loop(0, f.args["depth"]) as k:
        b_row = f.gep(f.args["b"], f.mul(k, tile.width), tile.compute)
        columns = [f.load(tile.vector, b_row, j * tile.lanes) for j in range(tile.vectors)]
        a_column = f.gep(f.args["a"], f.mul(k, k_step), tile.compute)
        for i in range(rows):
            item = f.splat(f.load(tile.compute, a_column, i * row_step), tile.lanes)
            for total, column in zip(sums[i], columns, strict=True):
                total.set(multiply_add(f, tile, item, column, total.get()))
    scale = f.splat(f.load(tile.compute, f.args["factor"]), tile.lanes) if how == "set" else None
    for i in range(rows):
        if how == "add":
            scale = f.splat(f.load(tile.compute, f.args["factor"], i), tile.lanes)
        for j, total in enumerate(sums[i]):
            place = f.gep(f.args["c"], i * pitch + j * tile.lanes, tile.compute)
            if how == "set":
                value = f.fmul(total.get(), scale)
            else:
                value = multiply_add(f, tile, f.load(tile.vector, place), scale, total.get())
            f.store(value, place)


def run_product(f: Function, blocks: Blocks, name: str, rows: Value, a: Value, a_step: int,
                b: Value, c: Value, c_step: int, depth: Value, factor: Value,
                factor_step: int) -> None:
    """Call a product for up to `height` rows: whole, or in low tiles where few are left."""
    few = 2 * blocks.low
    item = blocks.tile.compute
    with f.when_else(f.cmp("sgt", rows, few)) as otherwise:
        f.call("void", f"{name}_{blocks.height}", [a, b, c, depth, factor])
        otherwise()
        with f.loop(0, rows, blocks.low) as i:
            f.call("void", f"{name}_{blocks.low}", [
                f.gep(a, f.mul(i, a_step), item), b, f.gep(c, f.mul(i, c_step), item), depth,
                f.gep(factor, f.mul(i, factor_step), item)])


# ---------------------------------------------------------------------- vectors
def exp2(f: Function, tile: Tile, x: Value) -> Value:
    """2**x for x <= 0, to about 2 ulp; 0 below the normal numbers and for -inf, NaN for NaN."""
    if scalar_of(x.type) != "float":
        return vectormath.exp2(f, x)
    magic = 1.5 * 2.0**23 + 127
    t = f.fadd(x, magic)
    r = f.fsub(x, f.fsub(t, magic))
    total = f.const(_EXP2[-1], x.type)
    for item in _EXP2[-2::-1]:
        total = multiply_add(f, tile, total, r, f.const(item, x.type))
    total = multiply_add(f, tile, total, r, f.const(1.0, x.type))
    integers = x.type.replace("float", "i32")
    power = f.cast("bitcast", f.shl(f.cast("bitcast", t, integers), 23), x.type)
    return f.select(f.cmp("olt", x, -126.0), 0.0, f.fmul(total, power))


# (2**r - 1) / r on |r| <= 0.501 (minimax): 2**-28.2, as in vectormath
_EXP2 = (0.693147182, 0.240226507, 0.055503577, 0.00961807743, 0.00133918587, 0.000154563939)


def horizontal(f: Function, tile: Tile, value: Value, how: str) -> Value:
    """The sum ("add") or the largest ("max") of a vector's lanes."""
    if how == "add":
        return fold(f, tile, value)
    lanes = tile.lanes
    while lanes > 1:
        lanes //= 2
        low, high = (f.shuffle(value, None, range(start, start + lanes))
                     for start in (0, lanes)) if lanes > 1 else (
            f.extract(value, 0), f.extract(value, 1))
        value = larger(f, low, high)
    return value


def larger(f: Function, a: Value, b: Value) -> Value:
    """max(a, b), b if one of them is NaN: one instruction."""
    return f.select(f.cmp("ogt", a, b), a, b)


def mask_lanes(f: Function, tile: Tile, value: Value, count: Value, fill: float) -> Value:
    """`value` with all lanes from `count` on replaced."""
    return f.select(f.lane_mask(tile.lanes, count), value, fill)
