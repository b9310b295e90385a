"""Float32 operands as three bfloat16 parts each, for products on AMX tiles.

    x = high + mid + low        each rounded to the nearest bfloat16 of what is left: exact

A float32 has 24 bits, a bfloat16 has 8, so nothing is lost. Of the nine products of parts the six
largest are summed up (in float32): what is left out is below 2**-24 of a product, as much as one
rounding. That is 6 tile instructions in place of the multiply-adds of vectors, which take three
times as long (Henry, Tang and Heinecke 2019: "Leveraging the bfloat16 artificial intelligence
datatype for higher-precision computations"; the same is BF16X3 in Intel's libraries).

Where tiles differ from float32 arithmetic: an infinity, or a number that rounds to one, gives NaN,
so every sum that is NaN is taken again, element by element (`define_repair`). Numbers below
2**-126, and parts of numbers below 2**-110, count as 0.

The packed layouts are those of `low_packing.py`, one for each part, one after the other.
"""

from __future__ import annotations

from flambeau.compiler.emitter import Function, Module, Value, lanes_of, vector
from flambeau.compiler.products.blocks import prefetch
from flambeau.compiler.products.low_packing import Engine, bit_mask
from flambeau.compiler.products.packing import transpose

__all__ = ["PARTS", "define_repair", "pack_rows", "pack_panels"]

PARTS = 3
_AHEAD, _BEYOND = 8, 64  # lines, and elements, ahead of what is packed: asked of memory
_UPPER = 0xFFFF0000 - (1 << 32)
_BLOCK_ARGS = (("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "stride"), ("i64", "count"),
               ("i64", "depth"))
_PACK_ARGS = (("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "depth"), ("i64", "count"),
              ("i64", "stride"), ("i64", "step"))


# ---------------------------------------------------------------------- parts
def _parts(f: Function, x: Value, lanes: int) -> list[Value]:
    """Of a vector of floats: three vectors of i32 whose upper halves are the parts."""
    floats, bits = vector(lanes, "float"), vector(lanes, "i32")
    found, left = [], x
    for _ in range(PARTS - 1):
        near = f.and_(f.add(f.cast("bitcast", left, bits), 0x8000), _UPPER)
        found.append(near)
        left = f.fsub(left, f.cast("bitcast", near, floats))
    return [*found, f.cast("bitcast", left, bits)]


def _along(f: Function, first: Value, second: Value, lanes: int) -> list[Value]:
    """Units of each part, of twice `lanes` elements that follow one another along the sum."""
    halves = vector(2 * lanes, "i16")
    return [f.cast("bitcast", f.shuffle(f.cast("bitcast", a, halves), f.cast("bitcast", b, halves),
                                        range(1, 4 * lanes, 2)), vector(lanes, "i32"))
            for a, b in zip(_parts(f, first, lanes), _parts(f, second, lanes), strict=True)]


def _across(f: Function, first: Value, second: Value, lanes: int) -> list[Value]:
    """Units of each part, of two vectors that hold one element of `lanes` sums each."""
    return [f.or_(f.lshr(a, 16), f.and_(b, _UPPER))
            for a, b in zip(_parts(f, first, lanes), _parts(f, second, lanes), strict=True)]


def _load_pair(f: Function, engine: Engine, line: Value, mask: Value | None) -> list[Value]:
    """Twice as many elements as a vector has; those that the mask leaves out are 0."""
    lanes = engine.lanes
    type_ = vector(lanes, "float")
    if mask is None:
        return [f.load(type_, line, at) for at in (0, lanes)]
    return [f.masked_load(type_, line, f.shuffle(mask, None, range(at, at + lanes)), index=at)
            for at in (0, lanes)]


# ---------------------------------------------------------------------- packing
def pack_rows(module: Module, name: str, engine: Engine, order: str) -> None:
    """Define `name`(src, dst, depth, count, stride, step): up to `height` rows of A.

    Element (i, k) lies at src[i * stride + k * step]; the order says which of the two is 1:
    "along" (step) or "across" (stride).
    """
    f = module.function(name, _PACK_ARGS, part=name)
    a, step = f.args, engine.lanes * engine.group
    layer = engine.strip * engine.pitch
    if order == "across":
        block = _rows_block(f, engine, layer)
        with f.loop(0, a["count"], engine.lanes) as i, f.loop(0, a["depth"], step) as k:
            src = f.gep(a["src"], f.add(i, f.mul(k, a["step"])), "float")
            place = f.add(f.mul(i, engine.pitch), f.udiv(k, engine.group))
            f.call("void", block, [src, f.gep(a["dst"], place, "i32"), a["step"],
                                   f.sub(a["count"], i), f.sub(a["depth"], k)])
        return
    whole = f.and_(a["depth"], -step)
    rest = f.sub(a["depth"], whole)

    def units(line: Value, target: Value, k: Value, mask: Value | None) -> None:
        pair = _load_pair(f, engine, f.gep(line, k, "float"), mask)
        place = f.gep(target, f.udiv(k, engine.group), "i32")
        for part, unit in enumerate(_along(f, *pair, engine.lanes)):
            f.store(unit, place, part * layer)

    with f.loop(0, a["count"]) as i:
        line = f.gep(a["src"], f.mul(i, a["stride"]), "float")
        target = f.gep(a["dst"], f.mul(i, engine.pitch), "i32")
        with f.loop(0, whole, step) as k:
            units(line, target, k, None)
        with f.when(f.cmp("sgt", rest, 0)):
            units(line, target, whole, bit_mask(f, step, rest))


def _rows_block(caller: Function, engine: Engine, layer: int) -> str:
    """Define (src, dst, stride, count, depth): 16 rows, 16 units, of lines across the sum."""
    name = caller.name + "_block"
    f = caller.module.function(name, _BLOCK_ARGS, part=caller.part)
    lanes = engine.lanes
    type_ = vector(lanes, "float")
    turned = f.array("float", engine.group * lanes * lanes)  # row by row: LLVM is slow on long code
    mask = bit_mask(f, lanes, f.args["count"])
    none = f.const(0, vector(lanes, "i1"))
    with f.loop(0, engine.group * lanes, lanes) as k0:
        lines = []
        for k in range(lanes):
            at = f.add(k0, k)
            live = f.cmp("sgt", f.args["depth"], at)
            line = f.gep(f.args["src"], f.select(live, f.mul(at, f.args["stride"]), 0), "float")
            lines.append(f.masked_load(type_, line, f.select(live, mask, none)))
        for row, line in enumerate(transpose(f, lines, 4)):
            f.store(line, f.gep(turned, f.add(k0, row * engine.group * lanes), "float"))
    with f.loop(0, lanes) as row:
        source = f.gep(turned, f.mul(row, engine.group * lanes), "float")
        place = f.gep(f.args["dst"], f.mul(row, engine.pitch), "i32")
        for part, unit in enumerate(_along(f, *_load_pair(f, engine, source, None), lanes)):
            f.store(unit, place, part * layer)
    return name


def pack_panels(module: Module, name: str, engine: Engine, order: str) -> None:
    """Define `name`(src, dst, depth, count, stride, step): all panels of B, PARTS * depth * width
    units apart. Element (k, j) lies at src[j * stride + k * step]; for the order see `pack_rows`.
    """
    f = module.function(name, _PACK_ARGS, part=name)
    (_panels_across if order == "across" else _panels_along)(f, engine)


def _panels_across(f: Function, engine: Engine) -> None:
    """Two lines of memory at a time, each as long as the block is wide."""
    a, lanes, width = f.args, engine.lanes, engine.width
    layer, type_ = engine.depth * width, vector(engine.lanes, "float")
    units = f.ceil_div(a["depth"], engine.group)
    last = f.mul(f.ceil_div(units, engine.fill), engine.fill)
    ahead = f.mul(a["step"], _AHEAD)
    with f.loop(0, units) as q:
        k = f.mul(q, engine.group)
        line = f.gep(a["src"], f.mul(k, a["step"]), "float")
        alone = f.cmp("sge", f.add(k, 1), a["depth"])
        below = f.gep(line, f.select(alone, 0, a["step"]), "float")
        target = f.gep(a["dst"], f.mul(q, width), "i32")
        with f.loop(0, a["count"], lanes) as j:
            mask = bit_mask(f, lanes, f.sub(a["count"], j))
            none = f.const(0, vector(lanes, "i1"))
            for source in (line, below):
                prefetch(f, f.gep(source, f.add(j, ahead), "float"), near=False)
            first = f.masked_load(type_, f.gep(line, j, "float"), mask)
            second = f.masked_load(type_, f.gep(below, j, "float"), f.select(alone, none, mask))
            panel = f.mul(f.and_(j, -width), engine.depth * PARTS)
            place = f.gep(target, f.add(panel, f.and_(j, width - 1)), "i32")
            for part, unit in enumerate(_across(f, first, second, lanes)):
                f.store(unit, place, part * layer)
    with f.loop(units, last) as q, f.loop(0, a["count"], width) as j:
        place = f.add(f.mul(j, engine.depth * PARTS), f.mul(q, width))
        target = f.gep(a["dst"], place, "i32")
        for part in range(PARTS):
            for at in range(0, width, lanes):
                f.store(f.const(0, engine.units), target, part * layer + at)


def _panels_along(f: Function, engine: Engine) -> None:
    """Square blocks of units, transposed in registers."""
    a, lanes, width = f.args, engine.lanes, engine.width
    block = _panels_block(f, engine)
    with f.loop(0, a["count"], lanes) as j:
        panel = f.add(f.mul(f.and_(j, -width), engine.depth * PARTS), f.and_(j, width - 1))
        with f.loop(0, a["depth"], lanes * engine.group) as k:
            src = f.gep(a["src"], f.add(f.mul(j, a["stride"]), k), "float")
            place = f.add(panel, f.mul(f.udiv(k, engine.group), width))
            f.call("void", block, [src, f.gep(a["dst"], place, "i32"), a["stride"],
                                   f.sub(a["count"], j), f.sub(a["depth"], k)])


def _panels_block(caller: Function, engine: Engine) -> str:
    """Define (src, dst, stride, count, depth): 16 columns, 16 units, of lines along the sum;
    where there are fewer lines, the last one again."""
    name = caller.name + "_block"
    f = caller.module.function(name, _BLOCK_ARGS, part=caller.part)
    lanes, layer = engine.lanes, engine.depth * engine.width
    units = f.array("i32", PARTS * lanes * lanes)  # line by line: LLVM is slow on long code
    mask = bit_mask(f, engine.group * lanes, f.args["depth"])
    last = f.sub(f.args["count"], 1)
    with f.loop(0, lanes) as lane:
        line = f.gep(f.args["src"], f.mul(f.smin(lane, last), f.args["stride"]), "float")
        for at in (0, lanes):
            prefetch(f, f.gep(line, _BEYOND + at, "float"), near=False)
        place = f.gep(units, f.mul(lane, lanes), "i32")
        for part, unit in enumerate(_along(f, *_load_pair(f, engine, line, mask), lanes)):
            f.store(unit, place, part * lanes * lanes)
    with f.loop(0, PARTS) as part:
        source = f.gep(units, f.mul(part, lanes * lanes), "i32")
        place = f.gep(f.args["dst"], f.mul(part, layer), "i32")
        lines = [f.load(engine.units, source, lane * lanes) for lane in range(lanes)]
        for lane, line in enumerate(transpose(f, lines, 4)):
            f.store(line, place, lane * engine.width)
    return name


# ---------------------------------------------------------------------- what tiles cannot do
_LOOK = 64  # steps of a sum between looks at whether it is NaN already


def define_repair(module: Module, engine: Engine, width: int) -> None:
    """Define repair(sums, pitch, rows, columns, k, a, a_row, a_col, b, b_row, b_col): take the sums
    that are NaN again, in float32, one after the other along k. Of each row `width` sums exist."""
    f = module.function("repair", [
        ("ptr", "sums"), ("i64", "pitch"), ("i64", "rows"), ("i64", "columns"), ("i64", "k"),
        ("ptr", "a"), ("i64", "a_row"), ("i64", "a_col"),
        ("ptr", "b"), ("i64", "b_row"), ("i64", "b_col")], part="repair")
    a, again = f.args, _define_sum(module)
    suspect = _suspect(f, vector(engine.lanes, "float"), width)
    with f.when(suspect), f.loop(0, a["rows"]) as i, f.loop(0, a["columns"]) as j:
        place = f.gep(a["sums"], f.add(f.mul(i, a["pitch"]), j), "float")
        value = f.load("float", place)
        with f.when(f.cmp("uno", value, value)):
            row = f.gep(a["a"], f.mul(i, a["a_row"]), "float")
            other = f.gep(a["b"], f.mul(j, a["b_col"]), "float")
            f.store(f.call("float", again, [row, a["a_col"], other, a["b_row"], a["k"]]), place)


def _suspect(f: Function, type_: str, width: int) -> Value:
    """Whether a sum may be NaN: whether any is not finite, or anything behind the last column."""
    lanes = lanes_of(type_)
    zero = f.const(0, type_)
    totals = [f.var(type_, 0) for _ in range(0, width, lanes)]
    with f.loop(0, f.args["rows"]) as i:
        line = f.gep(f.args["sums"], f.mul(i, f.args["pitch"]), "float")
        for number, total in enumerate(totals):
            total.set(f.fma(f.load(type_, line, number * lanes), zero, total.get()))
    total = totals[0].get()
    for other in totals[1:]:
        total = f.fadd(total, other.get())
    return f.cmp("ne", f.cast("bitcast", f.cmp("uno", total, total), f"i{lanes}"), 0)


def _define_sum(module: Module) -> str:
    """Define a dot product of strided floats; it goes no further when it is NaN."""
    name = "sum_again"
    f = module.function(name, [("ptr", "a"), ("i64", "a_step"), ("ptr", "b"), ("i64", "b_step"),
                               ("i64", "k")], "float", part="repair")
    a, total = f.args, f.var("float", 0)
    with f.loop(0, a["k"], _LOOK) as start:
        old = total.get()
        with f.when(f.cmp("ord", old, old)), \
                f.loop(start, f.smin(f.add(start, _LOOK), a["k"])) as k:
            x = f.load("float", f.gep(a["a"], f.mul(k, a["a_step"]), "float"))
            y = f.load("float", f.gep(a["b"], f.mul(k, a["b_step"]), "float"))
            total.set(f.fma(x, y, total.get()))
    f.ret_value(total.get())
    return name
