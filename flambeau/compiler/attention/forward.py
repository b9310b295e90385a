"""Attention: softmax(Q K^T scale + mask) V in one pass, with the softmax computed as it goes.

    for each head                       (or the part of its queries that belongs to this chunk)
      for each block of keys            pack K^T and V: they stay in the second-level cache
        for each tile of queries        scores = Q K^T           (register tiles)
                                        masks, running maximum, exp, running sum
                                        sums = sums * exp(old maximum - new) + scores V
      sums / running sum -> result; log of the sum of exponentials for the backward pass

No more than a block of scores exists at a time, so memory is linear in the lengths. Tiles of
queries and blocks of keys begin at fixed multiples: bits do not depend on the chunks. Exponentials
are to base 2, log2(e) being part of the scale. After Milakov and Gimelshein (arXiv:1805.02867) and
Dao (arXiv:2307.08691).
"""

from __future__ import annotations

import dataclasses
import functools

from flambeau.compiler import vectormath
from flambeau.compiler.attention.matrix import matrix_blocks
from flambeau.compiler.attention.tiles import (
    LOG2_E,
    Blocks,
    blocks_for,
    exp2,
    horizontal,
    larger,
)
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range, kernel_function, thread_workspace
from flambeau.compiler.target import Target

__all__ = ["ATTENTION_SLOTS", "AttentionSpec", "AttentionPlan", "attention_kernel",
           "attention_plan", "OperandSlots", "kept", "kernel_name", "masked_scores",
           "operand_slots", "store_row", "visible"]

KEYS = 256  # of one block


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """What is fixed when an attention kernel is compiled.

    Attributes:
        dtype_llvm: of queries, keys and values: "float", "double", "half" or "bfloat". The last
            two are multiplied as floats, or in tile registers; the rest is float.
        mask: None, "bool" (which keys count) or "float" (added to the scores).
        drop: whether a mask says which weights are kept, each times a factor.
    """

    dtype_llvm: str
    mask: str | None = None
    drop: bool = False


@dataclasses.dataclass(frozen=True)
class AttentionPlan:
    """Chunks, and workspace in bytes: for all threads, and for one."""

    nchunks: int
    work_bytes: int
    work_stride: int


def operand_slots(*names: str) -> tuple[str, ...]:
    """Slots of operands (batch, head, row, column): pointer and three strides each."""
    return tuple(slot for name in names for slot in (name, f"{name}_b", f"{name}_h", f"{name}_r"))


SIZE_SLOTS = ("batch", "heads", "group", "rows", "keys", "depth", "width", "causal", "scale",
              "factor", "work", "work_stride")
ATTENTION_SLOTS = (*operand_slots("q", "k", "v", "mask", "drop"), "out", "lse", *SIZE_SLOTS)
POINTERS = ("q", "k", "v", "mask", "drop", "out", "lse", "work")


class OperandSlots(Slots):
    """Slots, and the addresses of rows of operands."""

    def number(self, name: str, type_: str) -> Value:
        """A floating slot, as `type_`."""
        value = self.f.load("double", self.f.args["args"], self.index[name])
        return self.f.cast("fptrunc", value, type_)

    def row(self, name: str, batch: Value, head: Value, row, type_: str) -> Value:
        """The address of the first column of one row."""
        f = self.f
        place = f.add(f.mul(batch, self[f"{name}_b"]), f.mul(head, self[f"{name}_h"]))
        return f.gep(self[name], f.add(place, f.mul(self[f"{name}_r"], row)), type_)


# ---------------------------------------------------------------------- the softmax of one tile
def masked_scores(f: Function, spec: AttentionSpec, blocks: Blocks, score: Value, mask: Value,
                  column: Value, count: Value | None) -> Value:
    """The scores of one vector with the mask applied; `count`: how many lanes there are."""
    tile = blocks.tile
    some = None if count is None else f.lane_mask(tile.lanes, count)
    if spec.mask == "bool":
        bytes_ = vector(tile.lanes, "i8")
        place = f.gep(mask, column, "i8")
        found = f.load(bytes_, place) if some is None else f.masked_load(bytes_, place, some)
        score = f.select(f.cmp("ne", found, 0), score, -float("inf"))
    elif spec.mask == "float":
        place = f.gep(mask, column, tile.compute)
        found = f.load(tile.vector, place) if some is None else (
            f.masked_load(tile.vector, place, some))
        score = f.fadd(score, f.fmul(found, LOG2_E))
    return score if some is None else f.select(some, score, -float("inf"))


def _mask_scores(module: Module, spec: AttentionSpec, blocks: Blocks) -> None:
    """Define mask_scores(scores, rows, visible, step, count, scale, mask, mask_row, tops).

    Row i sees clamp(visible + i step, 0, count) columns: what is masked or beyond becomes -inf, up
    to the end of the vector. tops[i] gets the largest score of the row. Products that are not yet
    scaled are multiplied by scale[0].
    """
    tile = blocks.tile
    f = module.function("mask_scores", [
        ("ptr noalias", "scores"), ("i64", "rows"), ("i64", "visible"), ("i64", "step"),
        ("i64", "count"), ("ptr noalias", "scale"), ("ptr noalias", "mask"), ("i64", "mask_row"),
        ("ptr noalias", "tops")], internal=True)
    scale = f.splat(f.load(tile.compute, f.args["scale"]), tile.lanes)

    def scaled(score: Value) -> Value:
        return f.fmul(score, scale) if blocks.late_scale else score

    mask_type = "i8" if spec.mask == "bool" else tile.compute
    top = f.var(tile.vector)
    with f.loop(0, f.args["rows"]) as i:
        line = f.gep(f.args["scores"], f.mul(i, blocks.pitch), tile.compute)
        mask = f.gep(f.args["mask"], f.mul(i, f.args["mask_row"]), mask_type)
        seen = visible(f, i)
        whole = f.and_(seen, -tile.lanes)
        top.set(-float("inf"))
        with f.loop(0, whole, tile.lanes) as j:
            score = scaled(f.load(tile.vector, line, j))
            if spec.mask:
                score = masked_scores(f, spec, blocks, score, mask, j, None)
            if spec.mask or blocks.late_scale:
                f.store(score, line, j)
            top.set(larger(f, score, top.get()))
        with f.when(f.cmp("slt", whole, seen)):
            score = scaled(f.load(tile.vector, line, whole))
            score = masked_scores(f, spec, blocks, score, mask, whole, f.sub(seen, whole))
            f.store(score, line, whole)
            top.set(larger(f, score, top.get()))
        f.store(horizontal(f, tile, top.get(), "max"), f.args["tops"], i)


def visible(f: Function, i: Value) -> Value:
    """Columns that row i sees, from the arguments of the function."""
    seen = f.add(f.args["visible"], f.mul(f.args["step"], i))
    return f.smin(f.smax(seen, 0), f.args["count"])


def _renew(module: Module, blocks: Blocks) -> None:
    """Define renew(tops, best, total, alpha): the running maximum of each row of a tile.

    best becomes the larger of best and tops, alpha 2**(old best - new best), total is multiplied
    by alpha, and tops becomes best, or 0 where that is -inf.
    """
    tile = blocks.tile
    f = module.function("renew", [("ptr noalias", name) for name in
                                  ("tops", "best", "total", "alpha")], internal=True)
    for j in range(0, blocks.stats, tile.lanes):
        old = f.load(tile.vector, f.args["best"], j)
        new = larger(f, f.load(tile.vector, f.args["tops"], j), old)
        base = f.select(f.cmp("oeq", new, -float("inf")), 0.0, new)
        alpha = exp2(f, tile, f.fsub(old, base))
        f.store(new, f.args["best"], j)
        f.store(base, f.args["tops"], j)
        f.store(alpha, f.args["alpha"], j)
        f.store(f.fmul(f.load(tile.vector, f.args["total"], j), alpha), f.args["total"], j)


def _exponentials(module: Module, spec: AttentionSpec, blocks: Blocks) -> None:
    """Define exponentials(scores, rows, visible, step, count, end, tops, total, drop, drop_row,
    factor): scores become weights, 0 up to column `end` where nothing is seen."""
    tile = blocks.tile
    f = module.function("exponentials", [
        ("ptr noalias", "scores"), ("i64", "rows"), ("i64", "visible"), ("i64", "step"),
        ("i64", "count"), ("i64", "end"), ("ptr noalias", "tops"), ("ptr noalias", "total"),
        ("ptr noalias", "drop"), ("i64", "drop_row"), (tile.compute, "factor")], internal=True)
    sum_ = f.var(tile.vector)
    factor = f.splat(f.args["factor"], tile.lanes)
    with f.loop(0, f.args["rows"]) as i:
        line = f.gep(f.args["scores"], f.mul(i, blocks.pitch), tile.compute)
        drop = f.gep(f.args["drop"], f.mul(i, f.args["drop_row"]), "i8")
        seen = visible(f, i)
        top = f.splat(f.load(tile.compute, f.args["tops"], i), tile.lanes)
        sum_.set(0)
        with f.loop(0, seen, tile.lanes) as j:
            weight = exp2(f, tile, f.fsub(f.load(tile.vector, line, j), top))
            sum_.set(f.fadd(sum_.get(), weight))
            if spec.drop:
                weight = kept(f, blocks, weight, drop, j, seen, factor)
            blocks.store_weights(f, weight, line, j)
        filled = f.and_(f.add(seen, tile.lanes - 1), -tile.lanes)
        with f.loop(filled, blocks.filled(f, f.args["end"]), tile.lanes) as j:
            blocks.store_weights(f, f.const(0.0, tile.vector), line, j)
        total = f.load(tile.compute, f.args["total"], i)
        f.store(f.fadd(total, horizontal(f, tile, sum_.get(), "add")), f.args["total"], i)


def kept(f: Function, blocks: Blocks, value: Value, drop: Value, column: Value, end: Value,
         factor: Value) -> Value:
    """`value` times `factor` where `drop` says so, else 0."""
    lanes = blocks.tile.lanes
    some = f.lane_mask(lanes, f.sub(end, column))
    found = f.masked_load(vector(lanes, "i8"), f.gep(drop, column, "i8"), some)
    return f.select(f.cmp("ne", found, 0), f.fmul(value, factor), 0.0)


# ---------------------------------------------------------------------- one tile of queries
_TILE_ARGS = (("ptr", "queries"), ("i64", "rows"), ("i64", "depth"), ("i64", "width"),
              ("ptr", "columns"), ("ptr", "values"), ("i64", "visible"), ("i64", "step"),
              ("i64", "count"), ("ptr", "mask"), ("i64", "mask_row"), ("ptr", "drop"),
              ("i64", "drop_row"), ("ptr", "scale"), ("ptr", "sums"), ("ptr", "stats"),
              ("ptr", "scratch"))


def _attend(module: Module, spec: AttentionSpec, blocks: Blocks) -> None:
    """Define attend(...): one tile of queries and one block of keys."""
    tile = blocks.tile
    f = module.function("attend", _TILE_ARGS, internal=True)
    a = f.args
    item = tile.compute
    tops, alpha = (f.array(item, blocks.stats) for _ in range(2))
    scores = a["scratch"]
    best, total = a["stats"], f.gep(a["stats"], blocks.stats, item)
    last = f.add(a["visible"], f.mul(a["step"], f.sub(a["rows"], 1)))
    seen = f.smin(last, a["count"])  # by any row
    with f.when(f.cmp("sgt", seen, 0)):
        blocks.score(f, a["rows"], a["queries"], a["columns"], scores, seen, a["depth"],
                     a["scale"])
        for j in range(0, blocks.stats, tile.lanes):
            f.store(f.const(-float("inf"), tile.vector), tops, j)
        seen_args = [scores, a["rows"], a["visible"], a["step"], a["count"]]
        f.call("void", "mask_scores", [*seen_args, a["scale"], a["mask"], a["mask_row"], tops])
        f.call("void", "renew", [tops, best, total, alpha])
        f.call("void", "exponentials", [
            *seen_args, seen, tops, total, a["drop"], a["drop_row"],
            f.load(item, a["scale"], 1)])
        blocks.weigh(f, a["rows"], scores, a["values"], a["sums"], seen, a["width"], alpha)


def _finish(module: Module, blocks: Blocks) -> None:
    """Define finish(sums, stats, rows, width, out, out_row, lse): the results of one tile."""
    tile = blocks.tile
    f = module.function("finish", [
        ("ptr noalias", "sums"), ("ptr noalias", "stats"), ("i64", "rows"), ("i64", "width"),
        ("ptr noalias", "out"), ("i64", "out_row"), ("ptr noalias", "lse")], internal=True)
    a, item = f.args, tile.compute
    inverse, logs = (f.array(item, blocks.stats) for _ in range(2))
    for j in range(0, blocks.stats, tile.lanes):
        best, total = (f.load(tile.vector, a["stats"], start + j) for start in (0, blocks.stats))
        total = f.select(f.cmp("oeq", total, 0.0), 1.0, total)  # nothing is seen: 0
        best = f.select(f.cmp("oeq", best, -float("inf")), 0.0, best)
        f.store(f.fdiv(1.0, total), inverse, j)
        f.store(f.fadd(f.fmul(best, 1 / LOG2_E), vectormath.log(f, total)), logs, j)
    with f.when(f.cmp("ne", a["lse"], 0)), f.loop(0, a["rows"]) as i:
        f.store(f.load(item, logs, i), a["lse"], i)
    with f.when(f.cmp("ne", a["out"], 0)), f.loop(0, a["rows"]) as i:
        factor = f.splat(f.load(item, inverse, i), tile.lanes)
        line = f.gep(a["out"], f.mul(i, a["out_row"]), tile.compute)
        store_row(f, blocks, a["sums"], i, a["width"], line, factor)


def store_row(f: Function, blocks: Blocks, sums: Value, i: Value, width: Value, line: Value,
              factor: Value) -> None:
    """Row i of a tile of sums, times `factor`, to memory."""
    tile, item = blocks.tile, blocks.tile.compute
    row = f.gep(sums, f.mul(i, blocks.width), item)

    def part(j: Value) -> Value:
        panel = f.mul(f.and_(j, -blocks.width), blocks.height)
        value = f.load(tile.vector, row, f.add(panel, f.and_(j, blocks.width - 1)))
        return f.fmul(value, factor)

    whole = f.and_(width, -tile.lanes)
    with f.loop(0, whole, tile.lanes) as j:
        f.store(part(j), line, j)
    with f.when(f.cmp("slt", whole, width)):
        f.masked_store(part(whole), line, f.lane_mask(tile.lanes, f.sub(width, whole)), whole)


# ---------------------------------------------------------------------- the kernel
@functools.lru_cache(maxsize=64)
def attention_kernel(spec: AttentionSpec, target: Target) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `ATTENTION_SLOTS`.

    Results are dense: out (batch, heads, rows, width) and lse (batch, heads, rows), either may be
    null. Chunks share out tiles of queries. The last dimension of every operand is contiguous;
    "scale" and "factor" are floats.
    """
    blocks = _blocks(spec, target)
    module = Module(target.attributes)
    blocks.define(module)
    _mask_scores(module, spec, blocks)
    _renew(module, blocks)
    _exponentials(module, spec, blocks)
    _attend(module, spec, blocks)
    _finish(module, blocks)
    name = kernel_name("attention", spec)
    f = kernel_function(module, name)
    slot = OperandSlots(f, ATTENTION_SLOTS, POINTERS)
    tiles = f.ceil_div(slot["rows"], blocks.height)
    first, last = chunk_range(f, f.mul(f.mul(slot["batch"], slot["heads"]), tiles))
    blocks.begin(f)
    with f.loop(f.udiv(first, tiles), f.ceil_div(last, tiles)) as head:
        start = f.mul(head, tiles)
        _Head(f, spec, blocks, slot, head).emit(
            f.smax(f.sub(first, start), 0), f.smin(f.sub(last, start), tiles))
    blocks.end(f)
    return name, module.text()


def _blocks(spec: AttentionSpec, target: Target) -> Blocks:
    return matrix_blocks(spec.dtype_llvm, target, KEYS) or blocks_for(
        spec.dtype_llvm, target, KEYS)


def kernel_name(kind: str, spec: AttentionSpec) -> str:
    """The symbol of a kernel."""
    return f"{kind}_{spec.dtype_llvm}_{spec.mask}{'_drop' if spec.drop else ''}"


class _Head:
    """Emits the work on one head."""

    def __init__(self, f: Function, spec: AttentionSpec, blocks: Blocks, slot: OperandSlots,
                 head: Value):
        self.f, self.spec, self.blocks, self.slot, self.number = f, spec, blocks, slot, head
        self.batch, self.head = f.udiv(head, slot["heads"]), f.urem(head, slot["heads"])
        self.shared = f.udiv(self.head, slot["group"])
        self.scale = f.array(blocks.tile.compute, 2)

    def emit(self, first: Value, last: Value) -> None:
        """Tiles first .. last of this head's queries."""
        f, slot, blocks = self.f, self.slot, self.blocks
        item, memory = blocks.tile.compute, blocks.tile.memory
        f.store(f.fmul(slot.number("scale", item), LOG2_E), self.scale)
        f.store(slot.number("factor", item), self.scale, 1)
        self._divide_workspace()
        self._begin(first, last)
        end = f.smin(f.mul(last, blocks.height), slot["rows"])
        end = f.select(f.cmp("ne", slot["causal"], 0), f.smin(end, slot["keys"]), slot["keys"])
        with f.loop(0, end, blocks.keys) as key:
            count = f.smin(f.sub(slot["keys"], key), blocks.keys)
            source = slot.row("k", self.batch, self.shared, key, memory)
            blocks.pack_columns(f, source, slot["k_r"], count, slot["depth"], self.columns)
            source = slot.row("v", self.batch, self.shared, key, memory)
            blocks.pack_values(f, source, slot["v_r"], count, slot["width"], self.values)
            with f.loop(first, last) as tile:
                self._attend(tile, f.sub(tile, first), key, count)
        with f.loop(first, last) as tile:
            self._finish(tile, f.sub(tile, first))

    def _divide_workspace(self) -> None:
        f, slot, blocks = self.f, self.slot, self.blocks
        item = blocks.tile.compute
        self.scratch = thread_workspace(f, slot["work"], slot["work_stride"])
        wide = blocks.wide(f, slot["width"])
        deep = f.mul(f.ceil_div(slot["depth"], blocks.deep_step), blocks.deep_step)
        self.columns = f.gep(self.scratch, blocks.height * blocks.pitch, item)
        self.values = f.gep(self.columns, f.mul(deep, blocks.column_items), item)
        self.stats = f.gep(self.values, f.mul(wide, blocks.value_items), item)
        self.sum_items = f.add(f.mul(wide, blocks.height), 2 * blocks.stats)
        self.tile_items = f.add(self.sum_items, f.mul(deep, blocks.query_items))

    def _begin(self, first: Value, last: Value) -> None:
        """Every tile's state: -inf, zeros, and the packed queries."""
        f, slot, blocks = self.f, self.slot, self.blocks
        with f.loop(first, last) as tile:
            stats, _, queries = self._state(f.sub(tile, first))
            f.call("void", "llvm.memset.p0.i64", [
                stats, f.const(0, "i8"), f.mul(self.sum_items, blocks.tile.itemsize),
                f.const(False, "i1")])
            for j in range(0, blocks.stats, blocks.tile.lanes):
                f.store(f.const(-float("inf"), blocks.tile.vector), stats, j)
            row = f.mul(tile, blocks.height)
            blocks.pack_queries(
                f, slot.row("q", self.batch, self.head, row, blocks.tile.memory), slot["q_r"],
                f.smin(f.sub(slot["rows"], row), blocks.height), slot["depth"], queries)

    def _state(self, number: Value) -> tuple[Value, Value, Value]:
        """(statistics, sums, packed queries) of one tile."""
        f, item = self.f, self.blocks.tile.compute
        stats = f.gep(self.stats, f.mul(number, self.tile_items), item)
        return (stats, f.gep(stats, 2 * self.blocks.stats, item),
                f.gep(stats, self.sum_items, item))

    def _attend(self, tile: Value, number: Value, key: Value, count: Value) -> None:
        f, slot, blocks, spec = self.f, self.slot, self.blocks, self.spec
        item = blocks.tile.compute
        row = f.mul(tile, blocks.height)
        causal = f.cmp("ne", slot["causal"], 0)
        stats, sums, queries = self._state(number)
        null = Value("null", "ptr")
        mask = drop = null
        if spec.mask:
            type_ = "i8" if spec.mask == "bool" else item
            mask = f.gep(slot.row("mask", self.batch, self.head, row, type_), key, type_)
        if spec.drop:
            drop = f.gep(slot.row("drop", self.batch, self.head, row, "i8"), key, "i8")
        f.call("void", "attend", [
            queries, f.smin(f.sub(slot["rows"], row), blocks.height), slot["depth"], slot["width"],
            self.columns, self.values,
            f.select(causal, f.sub(f.add(row, 1), key), count), slot["causal"], count,
            mask, slot["mask_r"], drop, slot["drop_r"], self.scale, sums, stats, self.scratch])

    def _finish(self, tile: Value, number: Value) -> None:
        f, slot, blocks = self.f, self.slot, self.blocks
        item = blocks.tile.compute
        row = f.mul(tile, blocks.height)
        place = f.add(f.mul(self.number, slot["rows"]), row)
        stats, sums, _ = self._state(number)
        out, lse = (f.select(f.cmp("ne", slot[name], 0), f.gep(slot[name], index, item),
                             Value("null", "ptr"))  # nobody wants this result
                    for name, index in (("out", f.mul(place, slot["width"])), ("lse", place)))
        f.call("void", "finish", [
            sums, stats, f.smin(f.sub(slot["rows"], row), blocks.height), slot["width"], out,
            slot["width"], lse])


# ---------------------------------------------------------------------- planning
_SMALLEST_CHUNK = 5e5  # operations below which a second thread costs more than it gives


def attention_plan(spec: AttentionSpec, target: Target, heads: int, rows: int, keys: int,
                   depth: int, width: int, threads: int) -> AttentionPlan:
    """Cut attention of `heads` (of all batches) for `threads` threads."""
    blocks = _blocks(spec, target)
    tiles = -(-rows // blocks.height)
    work = 2.0 * heads * rows * keys * (depth + width)
    want = int(min(threads * 4 if threads > 1 else 1, max(1, work // _SMALLEST_CHUNK)))
    if threads > 1 and heads >= threads:  # whole heads: keys and values are packed once
        want = min(heads, max(1, int(work // _SMALLEST_CHUNK)), 16 * threads)
    deep, wide = (-(-size // step) * step
                  for size, step in ((depth, blocks.deep_step), (width, blocks.width)))
    state = wide * blocks.height + 2 * blocks.stats + deep * blocks.query_items
    items = (blocks.height * blocks.pitch + deep * blocks.column_items
             + wide * blocks.value_items + tiles * state)
    stride = -(-items * blocks.tile.itemsize // 64) * 64 + 64
    return AttentionPlan(max(1, min(want, heads * tiles)), stride * threads, stride)
