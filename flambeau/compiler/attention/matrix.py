"""Attention's products of bfloat16 operands on tile registers (`compiler/amx.py`).

Queries and weights are left factors: rows of units, two elements that follow one another along the
sum. Keys and values are right ones: panels of 32 columns, unit by unit. A sum of more than
`Engine.depth` units goes part by part. Weights overwrite their scores, in half the space.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler import amx
from flambeau.compiler.attention.tiles import ONE, Blocks
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.products.low_packing import (
    Engine,
    Operand,
    engine_for,
    pack_panels,
    pack_rows,
)
from flambeau.compiler.products.packing import narrow_tile
from flambeau.compiler.target import Target

__all__ = ["MatrixBlocks", "matrix_blocks"]


@dataclasses.dataclass(frozen=True)
class MatrixBlocks(Blocks):
    """`Blocks` of 32 queries; sizes are in units of 32 bits, two elements of an operand.

    Attributes:
        engine: how such operands are packed.
    """

    engine: Engine

    late_scale = True

    @property
    def part(self) -> int:
        """Elements of a query that are packed together."""
        return self.engine.depth * self.engine.group

    @property
    def deep_step(self) -> int:
        return self.part

    @property
    def query_items(self) -> int:
        """Packed queries, for each element of depth: no fraction, rows being padded."""
        return -(-self.height * self.engine.pitch // self.part)

    @property
    def column_items(self) -> int:
        return self.keys // self.engine.group

    @property
    def value_items(self) -> int:
        return self.engine.depth

    # ------------------------------------------------------------------ functions of the kernel
    def begin(self, f: Function) -> None:
        """Take the tile registers."""
        amx.configure(f)

    def end(self, f: Function) -> None:
        """Leave them."""
        amx.release(f)

    def define(self, module: Module) -> None:
        """What the methods below call."""
        operand = Operand(self.engine)
        pack_rows(module, "pack_queries", operand, "along")
        pack_panels(module, "pack_columns", operand, "along")
        pack_panels(module, "pack_values", operand, "across")
        for name, pitch in (("score", self.engine.pitch), ("weigh", self.pitch)):
            for rows in self.tile.rows:
                amx.tile_kernel(module, "tdpbf16ps", (rows // 16, 2), pitch, self.width, name=name)

    def pack_queries(self, f: Function, source: Value, stride: Value, rows: Value, depth: Value,
                     target: Value) -> None:
        """Up to `height` rows of (rows, depth)."""
        self._pack_parts(f, "pack_queries", (source, stride, rows), depth, target,
                         self.height * self.engine.pitch)

    def pack_columns(self, f: Function, source: Value, stride: Value, rows: Value, depth: Value,
                     target: Value) -> None:
        """The transpose of (rows, depth)."""
        self._pack_parts(f, "pack_columns", (source, stride, rows), depth, target,
                         self.keys * self.engine.depth)

    def _pack_parts(self, f: Function, name: str, rows: tuple[Value, Value, Value], depth: Value,
                    target: Value, step: int) -> None:
        source, stride, count = rows
        with f.loop(0, depth, self.part) as k:
            f.call("void", name, [
                f.gep(source, k, self.engine.memory),
                f.gep(target, f.mul(f.udiv(k, self.part), step), "i32"),
                f.smin(f.sub(depth, k), self.part), count, stride, ONE])

    def pack_values(self, f: Function, source: Value, stride: Value, rows: Value, columns: Value,
                    target: Value) -> None:
        """Rows (rows, columns), at most `keys` of them."""
        f.call("void", "pack_values", [source, target, rows, columns, ONE, stride])

    def score(self, f: Function, rows: Value, queries: Value, columns: Value, scores: Value,
              seen: Value, depth: Value, factor: Value) -> None:
        """Rows of scores of the keys up to `seen`; not scaled."""
        pitch = f.const(self.pitch, "i64")
        units = f.ceil_div(depth, self.engine.group)
        with f.loop(0, seen, self.width) as j, \
                f.loop(0, units, self.engine.depth) as k:
            number = f.udiv(k, self.engine.depth)
            panel = f.add(f.mul(number, self.keys * self.engine.depth),
                          f.mul(j, self.engine.depth))
            place = f.gep(scores, j, "i32")
            self._run(f, "score", rows, [
                f.gep(queries, f.mul(number, self.height * self.engine.pitch), "i32"),
                f.gep(columns, panel, "i32"), place, place,
                f.smin(f.sub(units, k), self.engine.depth), pitch, pitch, f.cmp("sgt", k, 0)])

    def weigh(self, f: Function, rows: Value, weights: Value, values: Value, sums: Value,
              seen: Value, width: Value, alpha: Value) -> None:
        """sums = alpha[row] sums + weights values."""
        self._scale(f, rows, sums, width, alpha)
        pitch, units = f.const(self.width, "i64"), f.ceil_div(seen, self.engine.group)
        with f.loop(0, width, self.width) as j:
            place = f.gep(sums, f.mul(j, self.height), "i32")
            self._run(f, "weigh", rows, [
                weights, f.gep(values, f.mul(j, self.engine.depth), "i32"), place, place, units,
                pitch, pitch, f.const(True, "i1")])

    def _scale(self, f: Function, rows: Value, sums: Value, width: Value, alpha: Value) -> None:
        tile = self.tile
        with f.loop(0, width, self.width) as j, f.loop(0, rows) as i:
            factor = f.splat(f.load(tile.compute, alpha, i), tile.lanes)
            line = f.gep(sums, f.add(f.mul(j, self.height), f.mul(i, self.width)), tile.compute)
            for at in range(0, self.width, tile.lanes):
                f.store(f.fmul(f.load(tile.vector, line, at), factor), line, at)

    def _run(self, f: Function, name: str, rows: Value, args: list[Value]) -> None:
        """A block of tiles, half as high where that is enough."""
        with f.when_else(f.cmp("sgt", rows, self.low)) as otherwise:
            f.call("void", f"{name}_{self.height // 16}_2", args)
            otherwise()
            f.call("void", f"{name}_{self.low // 16}_2", args)

    # ------------------------------------------------------------------ weights
    def store_weights(self, f: Function, weights: Value, line: Value, column: Value) -> None:
        """A vector of weights over scores that were read before. The processor's own conversion
        drops denormals, which no sum of weights feels."""
        narrow = f.intrinsic_call(
            vector(self.tile.lanes, "bfloat"),
            f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * self.tile.lanes}", [weights])
        f.store(narrow, f.gep(line, column, "i16"))

    def filled(self, f: Function, seen: Value) -> Value:
        """Up to where weights are read: whole tiles."""
        return f.and_(f.add(seen, self.width - 1), -self.width)


def matrix_blocks(dtype_llvm: str, target: Target, keys: int) -> MatrixBlocks | None:
    """The blocks for elements that `target` multiplies in tiles; None for others."""
    if dtype_llvm != "bfloat" or not target.has("avx512bf16"):
        return None
    engine = engine_for(dtype_llvm, target)
    if engine.kind != "amx":
        return None
    tile = dataclasses.replace(narrow_tile(dtype_llvm, target), rows=engine.rows, vectors=2)
    return MatrixBlocks(tile, keys, engine)
