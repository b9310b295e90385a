"""The gradients of attention, with the softmax computed anew from the saved log of its sums.

    for each head                         (of keys and values: queries' heads may share one)
      for each block of keys              pack K^T, V^T and K
        for each block of queries         pack Q and G, the gradient of the result
          for each tile of queries        P = exp(Q K^T - lse), D = P (G V^T - delta) scale
                                          dQ += D K
          for each tile of keys           dV += P^T G, dK += D^T Q

delta is the sum over each row of G times the result. A task is a head; or, where there are too few
heads for all threads, a part of the keys (dK, dV) or of the queries (dQ) of one head: the products
that both need are then computed twice. Every sum has one order, whatever the tasks: equal bits on
any number of threads.
"""

from __future__ import annotations

import dataclasses
import functools

from flambeau.compiler.attention.forward import (
    AttentionSpec,
    OperandSlots,
    kept,
    kernel_name,
    masked_scores,
    operand_slots,
    store_row,
    visible,
)
from flambeau.compiler.attention.tiles import (
    LOG2_E,
    Blocks,
    blocks_for,
    exp2,
    factor_columns,
    factor_rows,
    pack,
    packers,
    product,
    run_product,
)
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.frame import chunk_range, kernel_function, share, thread_workspace
from flambeau.compiler.products.packing import multiply_add
from flambeau.compiler.target import Target

__all__ = ["BACKWARD_SLOTS", "BackwardPlan", "attention_backward_kernel",
           "attention_backward_plan"]

KEYS = 224  # of one block: whole tiles, as columns and as rows
TILES = 4  # of queries in one block

_RESULTS = ("dq", "dk", "dv")
BACKWARD_SLOTS = (*operand_slots("q", "k", "v", "g", "mask", "drop"), "lse", "delta", *_RESULTS,
                  "want_q", "want_k", "want_v", "batch", "heads", "group", "rows", "keys", "depth",
                  "width", "causal", "scale", "factor", "key_parts", "row_parts", "work",
                  "work_stride")
_POINTERS = ("q", "k", "v", "g", "mask", "drop", "lse", "delta", *_RESULTS, "work")


@dataclasses.dataclass(frozen=True)
class BackwardPlan:
    """How the gradients are cut: slots `key_parts`, `row_parts` (0: a task is a whole head),
    chunks, and workspace in bytes for all threads and for one."""

    key_parts: int
    row_parts: int
    nchunks: int
    work_bytes: int
    work_stride: int


# ---------------------------------------------------------------------- one tile of queries
def _gradients(module: Module, spec: AttentionSpec, blocks: Blocks) -> None:
    """Define gradients(scores, slopes, rows, visible, step, count, end, mask, mask_row, drop,
    drop_row, lse, delta, numbers): scores become P, slopes (G V^T) become D.

    Both are 0 from where a row sees nothing up to column `end`, at least. `numbers` holds the
    scale times log2(e), the factor of kept weights, and the scale.
    """
    tile = blocks.tile
    names = ("scores", "slopes", "mask", "drop", "lse", "delta", "numbers")
    f = module.function("gradients", [("ptr noalias", name) for name in names] + [
        ("i64", name) for name in ("rows", "visible", "step", "count", "end", "mask_row",
                                   "drop_row")], internal=True)
    mask_type = "i8" if spec.mask == "bool" else tile.memory
    factor, scale = (f.splat(f.load(tile.compute, f.args["numbers"], i), tile.lanes)
                     for i in (1, 2))
    zero = f.const(0.0, tile.vector)
    with f.loop(0, f.args["rows"]) as i:
        lines = [f.gep(f.args[name], f.mul(i, blocks.pitch), tile.compute)
                 for name in ("scores", "slopes")]
        mask = f.gep(f.args["mask"], f.mul(i, f.args["mask_row"]), mask_type)
        drop = f.gep(f.args["drop"], f.mul(i, f.args["drop_row"]), "i8")
        base, delta = (f.splat(f.fmul(f.load(tile.compute, f.args[name], i), how), tile.lanes)
                       for name, how in (("lse", LOG2_E), ("delta", f.extract(scale, 0))))
        negative = f.fneg(delta)
        seen = visible(f, i)
        whole = f.and_(seen, -tile.lanes)

        def part(j: Value, some: Value | None, lines=lines, mask=mask, drop=drop, base=base,
                 negative=negative, seen=seen) -> None:
            score, slope = (f.load(tile.vector, line, j) for line in lines)
            score = masked_scores(f, spec, blocks, score, mask, j, some)
            weight = used = exp2(f, tile, f.fsub(score, base))
            if spec.drop:
                used, slope = (kept(f, blocks, value, drop, j, seen, factor)
                               for value in (weight, slope))
            change = f.fmul(weight, multiply_add(f, tile, slope, scale, negative))
            if some is not None:
                inside = f.lane_mask(tile.lanes, some)
                used, change = (f.select(inside, value, 0.0) for value in (used, change))
            f.store(used, lines[0], j)
            f.store(change, lines[1], j)

        with f.loop(0, whole, tile.lanes) as j:
            part(j, None)
        with f.when(f.cmp("slt", whole, seen)):
            part(whole, f.sub(seen, whole))
        filled = f.and_(f.add(seen, tile.lanes - 1), -tile.lanes)
        with f.loop(filled, f.args["end"], tile.lanes) as j:
            for line in lines:
                f.store(zero, line, j)


_QUERY_ARGS = tuple(("ptr", name) for name in (
    "scores", "slopes", "mask", "drop", "lse", "delta", "numbers", "queries", "grads", "columns",
    "values", "keys", "sums")) + tuple(("i64", name) for name in (
        "rows", "visible", "step", "count", "end", "mask_row", "drop_row", "depth", "width",
        "want_q"))


def _queries(module: Module, blocks: Blocks) -> None:
    """Define queries(...): P, D and dQ of one tile of queries and one block of keys."""
    f = module.function("queries", _QUERY_ARGS, internal=True)
    a, item = f.args, blocks.tile.compute
    ones = _ones(f, blocks)
    seen = f.smin(f.add(a["visible"], f.mul(a["step"], f.sub(a["rows"], 1))), a["count"])
    for left, right, size, target, factor in (
            ("queries", "columns", "depth", "scores", a["numbers"]),
            ("grads", "values", "width", "slopes", ones)):
        panel = f.mul(blocks.wide(f, a[size]), blocks.width)
        with f.loop(0, seen, blocks.width) as j:
            source = f.gep(a[right], f.mul(f.udiv(j, blocks.width), panel), item)
            run_product(f, blocks, "score", a["rows"], a[left], 1, source,
                        f.gep(a[target], j, item), blocks.pitch, a[size], factor, 0)
    f.call("void", "gradients", [a[name] for name in (
        "scores", "slopes", "mask", "drop", "lse", "delta", "numbers", "rows", "visible", "step",
        "count", "end", "mask_row", "drop_row")])
    wanted = f.and_(f.cmp("ne", a["want_q"], 0), f.cmp("sgt", seen, 0))
    with f.when(wanted), f.loop(0, a["depth"], blocks.width) as j:
        run_product(f, blocks, "weigh", a["rows"], a["slopes"], blocks.pitch,
                    f.gep(a["keys"], f.mul(j, blocks.keys), item),
                    f.gep(a["sums"], f.mul(j, blocks.height), item), blocks.width, seen, ones, 1)


def _ones(f: Function, blocks: Blocks) -> Value:
    found = f.array(blocks.tile.compute, blocks.stats)
    for j in range(0, blocks.stats, blocks.tile.lanes):
        f.store(f.const(1.0, blocks.tile.vector), found, j)
    return found


def _gather(module: Module, blocks: Blocks) -> None:
    """Define gather(weights, rows, seen, factor, size, sums, step): sums += weights^T factor, for
    all tiles of keys; `step` elements of sums a tile."""
    f = module.function("gather", [("ptr", "weights"), ("i64", "rows"), ("i64", "seen"),
                                   ("ptr", "factor"), ("i64", "size"), ("ptr", "sums"),
                                   ("i64", "step")], internal=True)
    a, item = f.args, blocks.tile.compute
    ones = _ones(f, blocks)
    most = blocks.height * TILES
    with f.loop(0, a["seen"], blocks.height) as key, \
            f.loop(0, a["size"], blocks.width) as j:
        sums = f.gep(a["sums"], f.mul(f.udiv(key, blocks.height), a["step"]), item)
        run_product(f, blocks, "sum_rows", f.smin(f.sub(a["seen"], key), blocks.height),
                    f.gep(a["weights"], key, item), 1, f.gep(a["factor"], f.mul(j, most), item),
                    f.gep(sums, f.mul(j, blocks.height), item), blocks.width, a["rows"], ones, 1)


def _store_rows(module: Module, blocks: Blocks) -> None:
    """Define store_rows(sums, rows, width, out): one tile of sums to a dense result."""
    f = module.function("store_rows", [("ptr noalias", "sums"), ("i64", "rows"), ("i64", "width"),
                                       ("ptr noalias", "out")], internal=True)
    one = f.const(1.0, blocks.tile.vector)
    with f.loop(0, f.args["rows"]) as i:
        line = f.gep(f.args["out"], f.mul(i, f.args["width"]), blocks.tile.memory)
        store_row(f, blocks, f.args["sums"], i, f.args["width"], line, one)


# ---------------------------------------------------------------------- the kernel
@functools.lru_cache(maxsize=64)
def attention_backward_kernel(spec: AttentionSpec, target: Target) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `BACKWARD_SLOTS`.

    lse and delta are dense (batch, heads, rows), as are the results dq (batch, heads, rows,
    depth), dk and dv (batch, heads / group, keys, .). The last dimension of every operand is
    contiguous.
    """
    blocks = blocks_for(spec.dtype_llvm, target, KEYS)
    module = Module(target.attributes)
    packers(module, blocks)
    product(module, blocks, "score", (1, blocks.tile.panel_height), blocks.pitch, "set")
    product(module, blocks, "weigh", (blocks.pitch, 1), blocks.width, "add")
    product(module, blocks, "sum_rows", (1, blocks.pitch), blocks.width, "add")
    _gradients(module, spec, blocks)
    _queries(module, blocks)
    _gather(module, blocks)
    _store_rows(module, blocks)
    name = kernel_name("attention_backward", spec)
    f = kernel_function(module, name)
    slot = OperandSlots(f, BACKWARD_SLOTS, _POINTERS)
    _Kernel(f, spec, blocks, slot).emit()
    return name, module.text()


class _Kernel:
    """Emits the loops around the functions above."""

    def __init__(self, f: Function, spec: AttentionSpec, blocks: Blocks, slot: OperandSlots):
        self.f, self.spec, self.blocks, self.slot = f, spec, blocks, slot
        self.item = blocks.tile.compute
        self.numbers = f.array(self.item, 4)
        scale = slot.number("scale", self.item)
        f.store(f.fmul(scale, LOG2_E), self.numbers)
        f.store(slot.number("factor", self.item), self.numbers, 1)
        f.store(scale, self.numbers, 2)
        self.most = blocks.height * TILES  # queries of a block
        self.key_tiles = -(-blocks.keys // blocks.height)  # of a block
        self._divide_workspace()
        self.variables = {name: f.var("i64") for name in (
            "key_from", "key_to", "row_from", "row_to", "head_from", "head_to", "want_q",
            "want_k", "want_v", "batch", "shared")}

    def __getitem__(self, name: str) -> Value:
        return self.variables[name].get()

    def _divide_workspace(self) -> None:
        """Where things lie in this thread's workspace."""
        f, slot, blocks = self.f, self.slot, self.blocks
        place = f.var("ptr", thread_workspace(f, slot["work"], slot["work_stride"]))

        def take(count) -> Value:
            found = place.get()
            place.set(f.gep(found, count, self.item))
            return found

        self.deep, self.wide = (blocks.wide(f, slot[name]) for name in ("depth", "width"))
        tall = TILES * blocks.tile.panel_height
        self.scores, self.slopes = (take(self.most * blocks.pitch) for _ in range(2))
        self.columns, self.values, self.keys = (
            take(f.mul(size, blocks.keys)) for size in (self.deep, self.wide, self.deep))
        self.queries, self.grads = (take(f.mul(size, tall)) for size in (self.deep, self.wide))
        self.query_rows, self.grad_rows = (take(f.mul(size, self.most))
                                           for size in (self.deep, self.wide))
        self.sums_q = take(f.mul(f.mul(self.deep, blocks.height),
                                 f.ceil_div(slot["rows"], blocks.height)))
        key_sums = f.mul(f.ceil_div(slot["keys"], blocks.keys), self.key_tiles * blocks.height)
        self.sums_k, self.sums_v = (take(f.mul(size, key_sums))
                                    for size in (self.deep, self.wide))

    def emit(self) -> None:
        """All tasks of this chunk: first parts of keys, then parts of queries, or whole heads."""
        f, slot = self.f, self.slot
        shared = f.mul(slot["batch"], f.udiv(slot["heads"], slot["group"]))
        apart = f.cmp("ne", slot["row_parts"], 0)
        some = f.or_(slot["want_k"], slot["want_v"])
        with_keys = f.select(f.cmp("ne", some, 0), f.mul(shared, slot["key_parts"]), 0)
        with_rows = f.select(f.cmp("ne", slot["want_q"], 0), f.mul(
            f.mul(slot["batch"], slot["heads"]), slot["row_parts"]), 0)
        count = f.select(apart, f.add(with_keys, with_rows), shared)
        limit = f.var("i64", with_keys)
        first, last = chunk_range(f, count)
        with f.loop(first, last) as task:
            with f.when_else(f.cmp("eq", slot["row_parts"], 0)) as otherwise:
                self._choose(task, 0, True, True)
                otherwise()
                with f.when_else(f.cmp("slt", task, limit.get())) as rows:
                    part = f.urem(task, slot["key_parts"])
                    self._choose(f.udiv(task, slot["key_parts"]), part, True, False)
                    rows()
                    rest = f.sub(task, limit.get())
                    part = f.urem(rest, slot["row_parts"])
                    self._choose(f.udiv(rest, slot["row_parts"]), part, False, True)
            self._task()

    def _choose(self, unit: Value, part, keys: bool, queries: bool) -> None:
        """Set what a task is about: a head of keys, or of queries alone; or a part of it."""
        f, slot = self.f, self.slot
        heads = f.udiv(slot["heads"], slot["group"]) if keys else slot["heads"]
        batch, head = f.udiv(unit, heads), f.urem(unit, heads)
        zero = f.const(0, "i64")
        values = {"batch": batch, "key_from": zero, "key_to": slot["keys"], "row_from": zero,
                  "row_to": slot["rows"],
                  "want_q": slot["want_q"] if queries else zero,
                  "want_k": slot["want_k"] if keys else zero,
                  "want_v": slot["want_v"] if keys else zero}
        if keys:
            first = f.mul(head, slot["group"])
            values |= {"shared": head, "head_from": first, "head_to": f.add(first, slot["group"])}
        else:
            values |= {"shared": f.udiv(head, slot["group"]), "head_from": head,
                       "head_to": f.add(head, 1)}
        if not (keys and queries):
            side, size, unit_ = ("key", "keys", self.blocks.keys) if keys else (
                "row", "rows", self.most)
            values[f"{side}_from"], values[f"{side}_to"] = share(
                f, slot[size], unit_, part, slot["key_parts" if keys else "row_parts"])
        for name, value in values.items():
            self.variables[name].set(value)

    def _task(self) -> None:
        f, blocks, slot = self.f, self.blocks, self.slot
        for want, sums, size in (("want_k", self.sums_k, self.deep),
                                 ("want_v", self.sums_v, self.wide)):
            with f.when(f.cmp("ne", self[want], 0)):
                self._zero(sums, f.mul(f.mul(size, self.key_tiles * blocks.height), f.ceil_div(
                    f.sub(self["key_to"], self["key_from"]), blocks.keys)))
        with f.loop(self["head_from"], self["head_to"]) as head:
            with f.when(f.cmp("ne", self["want_q"], 0)):
                self._zero(self.sums_q, f.mul(f.mul(self.deep, blocks.height), f.ceil_div(
                    f.sub(self["row_to"], self["row_from"]), blocks.height)))
            with f.loop(self["key_from"], self["key_to"], blocks.keys) as key:
                self._keys(head, key)
            with f.when(f.cmp("ne", self["want_q"], 0)):
                number = f.add(f.mul(self["batch"], slot["heads"]), head)
                self._store("dq", number, self.sums_q, self.deep, slot["depth"], "row",
                            slot["rows"], blocks.height)
        number = f.add(f.mul(self["batch"], f.udiv(slot["heads"], slot["group"])), self["shared"])
        for name, want, sums, wide, size in (
                ("dk", "want_k", self.sums_k, self.deep, slot["depth"]),
                ("dv", "want_v", self.sums_v, self.wide, slot["width"])):
            with f.when(f.cmp("ne", self[want], 0)):
                self._store(name, number, sums, wide, size, "key", slot["keys"], blocks.keys)

    def _zero(self, start: Value, count: Value) -> None:
        f = self.f
        f.call("void", "llvm.memset.p0.i64", [
            start, f.const(0, "i8"), f.mul(count, self.blocks.tile.itemsize),
            f.const(False, "i1")])

    def _keys(self, head: Value, key: Value) -> None:
        """One head of queries and one block of keys."""
        f, slot, blocks = self.f, self.slot, self.blocks
        count = f.smin(f.sub(slot["keys"], key), blocks.keys)
        for name, size, target in (("k", "depth", self.columns), ("v", "width", self.values)):
            source = slot.row(name, self["batch"], self["shared"], key, self.item)
            factor_columns(f, blocks, source, slot[f"{name}_r"], count, slot[size], target)
        source = slot.row("k", self["batch"], self["shared"], key, self.item)
        factor_rows(f, blocks, source, slot["k_r"], count, slot["depth"], self.keys, blocks.keys)
        start = f.mul(f.udiv(key, self.most), self.most)  # causal: nothing before sees the block
        start = f.select(f.cmp("ne", slot["causal"], 0), f.smax(start, self["row_from"]),
                         self["row_from"])
        with f.loop(start, self["row_to"], self.most) as row:
            self._block(head, key, count, row)

    def _block(self, head: Value, key: Value, count: Value, row: Value) -> None:
        """One block of queries and one of keys."""
        f, slot, blocks = self.f, self.slot, self.blocks
        rows = f.smin(f.sub(slot["rows"], row), self.most)
        causal = f.cmp("ne", slot["causal"], 0)
        visible_ = f.select(causal, f.sub(f.add(row, 1), key), count)
        last = f.add(visible_, f.mul(slot["causal"], f.sub(rows, 1)))
        seen = f.var("i64", f.smin(last, count))
        with f.when(f.cmp("sgt", seen.get(), 0)):
            for name, want, size, target in (("q", "want_k", "depth", self.query_rows),
                                             ("g", "want_v", "width", self.grad_rows)):
                with f.when(f.cmp("ne", self[want], 0)):
                    source = slot.row(name, self["batch"], head, row, self.item)
                    factor_rows(f, blocks, source, slot[f"{name}_r"], rows, slot[size], target,
                                self.most)
            with f.loop(0, rows, blocks.height) as i:
                self._tile(head, key, count, row, i, f.smin(f.sub(rows, i), blocks.height),
                           f.add(visible_, f.mul(slot["causal"], i)), seen.get())
            block = f.mul(f.udiv(f.sub(key, self["key_from"]), blocks.keys), self.key_tiles)
            for want, weights, factor, size, wide, sums in (
                    ("want_v", self.scores, self.grad_rows, "width", self.wide, self.sums_v),
                    ("want_k", self.slopes, self.query_rows, "depth", self.deep, self.sums_k)):
                with f.when(f.cmp("ne", self[want], 0)):
                    step = f.mul(wide, blocks.height)
                    f.call("void", "gather", [weights, rows, seen.get(), factor, slot[size],
                                              f.gep(sums, f.mul(block, step), self.item), step])

    def _tile(self, head: Value, key: Value, count: Value, row: Value, i: Value, rows: Value,
              visible_: Value, seen: Value) -> None:
        """One tile of queries, which begins `i` rows into its block."""
        f, slot, blocks, spec = self.f, self.slot, self.blocks, self.spec
        place = f.add(row, i)
        number = f.udiv(i, blocks.height)
        packed = []
        for name, size, wide, target in (("q", "depth", self.deep, self.queries),
                                         ("g", "width", self.wide, self.grads)):
            target = f.gep(target, f.mul(f.mul(number, wide), blocks.tile.panel_height),
                           self.item)
            pack(f, blocks, slot.row(name, self["batch"], head, place, self.item),
                 slot[f"{name}_r"], rows, slot[size], target)
            packed.append(target)
        mask = drop = Value("null", "ptr")
        if spec.mask:
            type_ = "i8" if spec.mask == "bool" else self.item
            mask = f.gep(slot.row("mask", self["batch"], head, place, type_), key, type_)
        if spec.drop:
            drop = f.gep(slot.row("drop", self["batch"], head, place, "i8"), key, "i8")
        stat = f.add(f.mul(f.add(f.mul(self["batch"], slot["heads"]), head), slot["rows"]), place)
        lines = [f.gep(x, f.mul(i, blocks.pitch), self.item) for x in (self.scores, self.slopes)]
        stats = [f.gep(slot[name], stat, self.item) for name in ("lse", "delta")]
        tile = f.udiv(f.sub(place, self["row_from"]), blocks.height)
        sums = f.gep(self.sums_q, f.mul(f.mul(tile, self.deep), blocks.height), self.item)
        f.call("void", "queries", [
            *lines, mask, drop, *stats, self.numbers, *packed, self.columns, self.values,
            self.keys, sums, rows, visible_, slot["causal"], count,
            f.add(seen, blocks.height), slot["mask_r"], slot["drop_r"], slot["depth"],
            slot["width"], self["want_q"]])

    def _store(self, name: str, number: Value, sums: Value, wide: Value, size: Value, side: str,
               total: Value, unit: int) -> None:
        """A finished sum to memory; sums lie in tiles, which begin anew with every `unit` rows."""
        f, blocks = self.f, self.blocks
        first, last = self[f"{side}_from"], self[f"{side}_to"]
        tiles = -(-unit // blocks.height)
        with f.loop(first, last, unit) as start:
            here = f.smin(f.sub(last, start), unit)
            block = f.mul(f.udiv(f.sub(start, first), unit), tiles)
            with f.loop(0, here, blocks.height) as i:
                tile = f.add(block, f.udiv(i, blocks.height))
                place = f.add(f.mul(number, total), f.add(start, i))
                f.call("void", "store_rows", [
                    f.gep(sums, f.mul(f.mul(tile, wide), blocks.height), self.item),
                    f.smin(f.sub(here, i), blocks.height), size,
                    f.gep(self.slot[name], f.mul(place, size), self.item)])


# ---------------------------------------------------------------------- planning
_SMALLEST_CHUNK = 5e5  # operations below which a second thread costs more than it gives


def attention_backward_plan(spec: AttentionSpec, target: Target, heads: int, group: int,
                            rows: int, keys: int, depth: int, width: int, threads: int
                            ) -> BackwardPlan:
    """Cut the gradients of `heads` heads (of all batches) for `threads` threads."""
    blocks = blocks_for(spec.dtype_llvm, target, KEYS)
    most = blocks.height * TILES
    shared = heads // group
    work = 5.0 * heads * rows * keys * (depth + width)
    want = int(min(threads, max(1, work // _SMALLEST_CHUNK)))
    key_parts = row_parts = 0
    nchunks = min(shared, want * 8)
    if want > 1 and shared / want / -(-shared // want) < 0.7:
        key_parts = min(-(-keys // blocks.keys), -(-2 * want // shared))
        row_parts = min(-(-rows // most), -(-2 * want // heads))
        nchunks = shared * key_parts + heads * row_parts
    elif want == 1:
        nchunks = 1
    deep, wide = (-(-size // blocks.width) * blocks.width for size in (depth, width))
    tall = TILES * blocks.tile.panel_height
    key_rows = -(-keys // blocks.keys) * -(-blocks.keys // blocks.height) * blocks.height
    row_rows = -(-rows // blocks.height) * blocks.height
    items = (2 * most * blocks.pitch + (2 * deep + wide) * blocks.keys
             + (deep + wide) * (tall + most) + deep * row_rows + (deep + wide) * key_rows)
    stride = -(-items * blocks.tile.itemsize // 64) * 64 + 64
    return BackwardPlan(key_parts, row_parts, nchunks, stride * threads, stride)
