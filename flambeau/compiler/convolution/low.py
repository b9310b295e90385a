"""Convolutions of bfloat16 images by tiles or dot products: the parts that both kernels share.

A piece of an image is copied once, padded, channels innermost and filled up to whole blocks of 32.
Its pixels then form one long line, in which a tap is a fixed distance: a block of pixels times a
panel of weights is one product for each tap, whose rows are read from where they lie (`tile`). A
line of the copy ends where the next one begins: what pads one at its end pads the other at its
start. Where images move by more than one pixel, the copy is parted by the residue of the pixel
(a *plane* each), so that neighbours in the result are neighbours in the copy.

Images of few channels are laid out as patches instead: all taps of a pixel follow each other.
"""

from __future__ import annotations

import dataclasses

from flambeau.compiler import amx
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots
from flambeau.compiler.products.low_packing import Engine, bit_mask, engine_for
from flambeau.compiler.target import Target

__all__ = ["BLOCK", "COLD", "IMAGE", "PATCH", "Shape", "clear", "define_fill", "define_patches",
           "define_tile", "dot_engine", "image_slots", "shape_for"]

AXES = range(3)
COLD = "optnone noinline"
"""Attributes of functions that mostly call others: LLVM spends no time on optimising them."""
BLOCK = 32  # elements of the sum that are multiplied at once
_CHUNK = vector(BLOCK, "i16")

IMAGE = ("data", "n", *(f"x{d}" for d in AXES), *(f"size{d}" for d in AXES),
         *(f"move{d}" for d in AXES), *(f"low{d}" for d in AXES), *(f"line{d}" for d in AXES),
         "channels", "pitch", "planes", "plane_step", "slack")
"""Slots of an image and its copy: memory (strides in elements), geometry; numbers of positions
along each axis of the copy, elements of a pixel and their distance, planes and their distance, and
how many pixels of zeros follow."""

PATCH = ("kernel0", "kernel1", "kernel2", "dilation0", "dilation1")


def image_slots(prefix: str, patches: bool = False) -> tuple[str, ...]:
    """The names of `IMAGE` (and `PATCH`) for one of several images."""
    return tuple(prefix + name for name in (IMAGE + PATCH if patches else IMAGE))


@dataclasses.dataclass(frozen=True)
class Shape:
    """A register tile: pixels, lanes, and items between the rows of its sums."""

    height: int
    width: int
    pitch: int


def dot_engine(target: Target) -> Engine | None:
    """How `target` multiplies pairs of bfloat16; None where it has no instruction for that."""
    engine = engine_for("bfloat", target)
    return engine if engine.kind in ("amx", "bf16") else None


def shape_for(engine: Engine, lanes: int) -> Shape:
    """The tile for results of `lanes` channels."""
    width = engine.lanes if lanes <= engine.lanes else 2 * engine.lanes
    return Shape(32 if engine.kind == "amx" else 14, width, width + 16)


# ---------------------------------------------------------------------- multiplying
_TILE_ARGS = (("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr noalias", "c"),
              ("ptr noalias", "offsets"), ("i64", "taps"), ("i64", "blocks"), ("i64", "row"),
              ("i1", "add"))


def define_tile(module: Module, engine: Engine, shape: Shape) -> None:
    """Define tile(a, b, c, offsets, taps, blocks, row, add): c (+)= the sum over taps of A B.

    Rows of A are `row` elements apart, for each tap from a[offsets[tap]] on; B holds `blocks`
    blocks of 16 pairs for each tap, one after the other; `shape` tells how C lies.
    """
    f = module.function("tile", list(_TILE_ARGS), internal=True)
    (_tile_amx if engine.kind == "amx" else _tile_dots)(f, engine, shape)


def _tile_amx(f: Function, engine: Engine, shape: Shape) -> None:
    a, side = f.args, amx.SIDE
    rows, columns = shape.height // side, shape.width // side
    pitch, row_bytes = f.const(4 * shape.pitch, "i64"), f.mul(a["row"], 2)

    def number(tile: int) -> Value:
        return Value(str(tile), "i8")

    sums = [(2 * i + j, f.gep(a["c"], side * (i * shape.pitch + j), "float"))
            for i in range(rows) for j in range(columns)]
    with f.when_else(a["add"]) as otherwise:
        for tile, place in sums:
            f.intrinsic_call("void", "llvm.x86.tileloadd64", [number(tile), place, pitch])
        otherwise()
        for tile, _ in sums:
            f.intrinsic_call("void", "llvm.x86.tilezero", [number(tile)])
    step = f.const(4 * shape.width, "i64")
    with f.loop(0, a["taps"]) as tap:
        start = f.gep(a["a"], f.load("i64", a["offsets"], tap), "i16")
        lower = f.gep(start, f.mul(a["row"], side), "i16")
        panel = f.gep(a["b"], f.mul(f.mul(tap, a["blocks"]), side * shape.width), "i32")
        with f.loop(0, a["blocks"]) as k:
            b = f.gep(panel, f.mul(k, side * shape.width), "i32")
            for j in range(columns):
                f.intrinsic_call("void", "llvm.x86.tileloadd64", [
                    number(6 + j), f.gep(b, side * j, "i32"), step])
            for i, base in enumerate((start, lower)[:rows]):
                f.intrinsic_call("void", "llvm.x86.tileloadd64", [
                    number(4 + i), f.gep(base, f.mul(k, BLOCK), "i16"), row_bytes])
                for j in range(columns):
                    f.intrinsic_call("void", "llvm.x86.tdpbf16ps", [
                        number(2 * i + j), number(4 + i), number(6 + j)])
    for tile, place in sums:
        f.intrinsic_call("void", "llvm.x86.tilestored64", [number(tile), place, pitch])


def _tile_dots(f: Function, engine: Engine, shape: Shape) -> None:
    a, lanes = f.args, engine.lanes
    sums, pairs = vector(lanes, "float"), vector(2 * lanes, "bfloat")
    starts = range(0, shape.width, lanes)
    totals = [[f.var(sums, 0) for _ in starts] for _ in range(shape.height)]
    with f.when(a["add"]):
        for i, row in enumerate(totals):
            for start, total in zip(starts, row, strict=True):
                total.set(f.load(sums, a["c"], i * shape.pitch + start))
    units = f.mul(a["blocks"], BLOCK // 2)
    with f.loop(0, a["taps"]) as tap:
        start = f.gep(a["a"], f.load("i64", a["offsets"], tap), "i16")
        panel = f.gep(a["b"], f.mul(f.mul(tap, units), shape.width), "i32")
        lines = [f.gep(start, f.mul(a["row"], i), "i16") for i in range(shape.height)]
        with f.loop(0, units) as q:
            b = f.gep(panel, f.mul(q, shape.width), "i32")
            columns = [f.cast("bitcast", f.load(engine.units, b, at), pairs) for at in starts]
            for line, row in zip(lines, totals, strict=True):
                factor = f.splat(f.load("i32", f.gep(line, f.mul(q, 2), "i16"), align=2), lanes)
                factor = f.cast("bitcast", factor, pairs)
                for total, column in zip(row, columns, strict=True):
                    total.set(f.intrinsic_call(
                        sums, f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}",
                        [total.get(), factor, column]))
    for i, row in enumerate(totals):
        for start, total in zip(starts, row, strict=True):
            f.store(total.get(), a["c"], i * shape.pitch + start)


# ---------------------------------------------------------------------- copying
_FILL_ARGS = (("ptr noalias", "args"), ("ptr noalias", "dst"), ("i64", "image0"), ("i64", "images"),
              ("i64", "start0"), ("i64", "start2"), ("i64", "stop0"), ("i64", "stop2"))


def clear(f: Function, dst: Value, elements: Value) -> None:
    """Zeros to a multiple of `BLOCK` elements."""
    with f.loop(0, elements, BLOCK) as i:
        f.store(f.const(0, _CHUNK), dst, i)


def define_fill(module: Module, name: str, slots: tuple[str, ...], prefix: str,
                residues: str | None = "residues_at") -> None:
    """Define name(args, dst, image0, images, start0, start2, stop0, stop2): the copy of a piece.

    It begins at position (start0, 0, start2) of the image's copy as a whole; pixels of the image
    from `stop` on are zeros. The slot `residues` tells where, among the slots, the table of planes
    begins: three residues for each; without one all are 0.
    """
    _define_pixels(module)
    f = module.function(name, list(_FILL_ARGS), internal=True, attributes=COLD)
    a, slot = f.args, Slots(f, slots, (prefix + "data",))

    def of(word: str) -> Value:
        return slot[prefix + word]

    with f.loop(0, of("planes")) as plane:
        base = [of(f"low{d}") for d in AXES]
        if residues:
            table = f.gep(a["args"], f.add(slot[residues], f.mul(plane, 3)), "i64")
            base = [f.add(f.load("i64", table, d), low) for d, low in enumerate(base)]
        start = f.gep(a["dst"], f.mul(plane, of("plane_step")), "i16")
        lines = f.mul(of("line0"), of("line1"))
        first2 = f.add(f.mul(a["start2"], of("move2")), base[2])
        head, last = _inside(f, first2, of("move2"), a["stop2"], of("line2"))
        with f.loop(0, a["images"]) as image, f.loop(0, of("line0")) as p0, \
                f.loop(0, of("line1")) as p1:
            at0 = f.add(f.mul(f.add(a["start0"], p0), of("move0")), base[0])
            at1 = f.add(f.mul(p1, of("move1")), base[1])
            inside = f.and_(f.cmp("ult", at0, a["stop0"]), f.cmp("ult", at1, of("size1")))
            begin = f.select(inside, head, of("line2"))
            end = f.select(inside, last, of("line2"))
            line = f.add(f.mul(image, lines), f.add(f.mul(p0, of("line1")), p1))
            dst = f.gep(start, f.mul(f.mul(line, of("line2")), of("pitch")), "i16")
            at2 = f.add(f.mul(begin, of("move2")), first2)
            offset = f.add(f.mul(f.add(a["image0"], image), of("n")), f.mul(at0, of("x0")))
            offset = f.add(offset, f.add(f.mul(at1, of("x1")), f.mul(at2, of("x2"))))
            clear(f, dst, f.mul(begin, of("pitch")))
            f.call("void", "pixels", [
                f.gep(of("data"), offset, "i16"),
                f.gep(dst, f.mul(begin, of("pitch")), "i16"), f.sub(end, begin),
                f.mul(of("x2"), of("move2")), of("channels"), of("pitch")])
            clear(f, f.gep(dst, f.mul(end, of("pitch")), "i16"),
                  f.mul(f.sub(of("line2"), end), of("pitch")))
        whole = f.mul(f.mul(f.mul(a["images"], lines), of("line2")), of("pitch"))
        clear(f, f.gep(start, whole, "i16"), f.mul(of("slack"), of("pitch")))


def _inside(f: Function, start: Value, move: Value, size: Value, count: Value
            ) -> tuple[Value, Value]:
    """The half-open range of positions p of 0..count with 0 <= start + p * move < size."""
    first = f.smin(f.ceil_div(f.smax(f.sub(0, start), 0), move), count)
    last = f.smin(f.ceil_div(f.smax(f.sub(size, start), 0), move), count)
    return first, f.smax(first, last)


def _define_pixels(module: Module) -> None:
    """Define pixels(src, dst, count, step, channels, pitch), unless that was done."""
    if module.defines("pixels"):
        return
    f = module.function("pixels", [("ptr noalias", "src"), ("ptr noalias", "dst"), ("i64", "count"),
                                   ("i64", "step"), ("i64", "channels"), ("i64", "pitch")],
                        internal=True)
    a = f.args
    whole = f.and_(a["channels"], -BLOCK)
    rest = f.sub(a["channels"], whole)
    mask, ragged = bit_mask(f, BLOCK, rest), f.cmp("sgt", rest, 0)
    with f.loop(0, a["count"]) as i:
        src = f.gep(a["src"], f.mul(i, a["step"]), "i16")
        dst = f.gep(a["dst"], f.mul(i, a["pitch"]), "i16")
        with f.loop(0, whole, BLOCK) as c:
            f.store(f.load(_CHUNK, f.gep(src, c, "i16")), f.gep(dst, c, "i16"))
        with f.when(ragged):
            f.store(f.masked_load(_CHUNK, f.gep(src, whole, "i16"), mask),
                    f.gep(dst, whole, "i16"))


def define_patches(module: Module, name: str, slots: tuple[str, ...], prefix: str) -> None:
    """Define `name` with the arguments of `define_fill`: the patches of a piece, which has one
    plane. Pixels of the image follow each other and taps along the last axis do, too."""
    f = module.function(name, list(_FILL_ARGS), internal=True)
    a, slot = f.args, Slots(f, slots, (prefix + "data",))

    def of(word: str) -> Value:
        return slot[prefix + word]

    each = of("x2")  # channels
    run = f.mul(of("kernel2"), each)
    with f.loop(0, a["images"]) as image, f.loop(0, of("line0")) as p0, \
            f.loop(0, of("line1")) as p1:
        line = f.add(f.mul(f.add(f.mul(image, of("line0")), p0), of("line1")), p1)
        dst = f.gep(a["dst"], f.mul(f.mul(line, of("line2")), of("pitch")), "i16")
        base0 = f.add(f.mul(f.add(a["start0"], p0), of("move0")), of("low0"))
        base1 = f.add(f.mul(p1, of("move1")), of("low1"))
        source = f.gep(of("data"), f.mul(f.add(a["image0"], image), of("n")), "i16")
        with f.loop(0, of("line2")) as x:
            row = f.gep(dst, f.mul(x, of("pitch")), "i16")
            f.store(f.const(0, _CHUNK), f.gep(row, f.sub(of("pitch"), BLOCK), "i16"))
            at2 = f.add(f.mul(f.add(a["start2"], x), of("move2")), of("low2"))
            first = f.mul(f.smax(f.sub(0, at2), 0), each)
            last = f.mul(f.smin(f.sub(a["stop2"], at2), of("kernel2")), each)
            with f.loop(0, of("kernel0")) as k0, f.loop(0, of("kernel1")) as k1:
                at0 = f.add(base0, f.mul(k0, of("dilation0")))
                at1 = f.add(base1, f.mul(k1, of("dilation1")))
                inside = f.and_(f.cmp("ult", at0, a["stop0"]), f.cmp("ult", at1, of("size1")))
                end = f.select(inside, last, 0)
                place = f.add(f.mul(at0, of("x0")), f.mul(at1, of("x1")))
                src = f.gep(source, f.add(place, f.mul(at2, each)), "i16")
                tap = f.add(f.mul(k0, of("kernel1")), k1)
                to = f.gep(row, f.mul(tap, run), "i16")
                with f.loop(0, run, BLOCK) as c:
                    upper = bit_mask(f, BLOCK, f.smax(f.sub(end, c), 0))
                    lower = bit_mask(f, BLOCK, f.smax(f.sub(first, c), 0))
                    mask = f.and_(upper, f.xor(lower, f.const(1, lower.type)))
                    f.store(f.masked_load(_CHUNK, f.gep(src, c, "i16"), mask),
                            f.gep(to, c, "i16"))
    rows = f.mul(f.mul(f.mul(a["images"], of("line0")), of("line1")), of("line2"))
    clear(f, f.gep(a["dst"], f.mul(rows, of("pitch")), "i16"), f.mul(of("slack"), of("pitch")))
