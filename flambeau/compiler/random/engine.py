"""MT19937 (Matsumoto and Nishimura, 1998) as native code, and loops that consume its words.

The state is a block of native memory, `STATE_BYTES` long, laid out by the offsets below. A word is
drawn from a block of 624; the whole block is regenerated when it is used up, in vectors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from flambeau.compiler.emitter import Function, Module, Value, lanes_of, scalar_of, vector
from flambeau.compiler.target import Target

__all__ = ["FLOAT_NORMAL_OFFSET", "HAS_FLOAT_NORMAL_OFFSET", "HAS_NORMAL_OFFSET", "INDEX_OFFSET",
           "NORMAL_OFFSET", "STATE_BYTES", "WORDS", "define_engine", "each_draw", "uniform_24",
           "uniform_53", "while_"]

WORDS = 624
_SHIFT = 397
_LAG = WORDS - _SHIFT  # 227: word i of the new block needs word i - 227 of the new block

# Byte offsets in the state block. The words come first, and one more as room for a copy of word 0.
INDEX_OFFSET = 2560  # i32: the next word to hand out; >= 624 when the block is used up
HAS_NORMAL_OFFSET = 2564  # i32: whether NORMAL_OFFSET holds a sample
NORMAL_OFFSET = 2568  # double: the second normal sample of the last pair
HAS_FLOAT_NORMAL_OFFSET = 2576  # i32 and float: kept for the state's byte layout, never drawn
FLOAT_NORMAL_OFFSET = 2580
STATE_BYTES = 2624

Body = Callable[[Value, Value], None]


@contextlib.contextmanager
def while_(f: Function, condition: Callable[[], Value]) -> Iterator[None]:
    """while (condition()) { ... }"""
    head, body, done = f.label("while"), f.label("body"), f.label("done")
    f.branch(head)
    f.at(head)
    f.branch_if(condition(), body, done)
    f.at(body)
    yield
    f.branch(head)
    f.at(done)


def define_engine(module: Module, target: Target) -> None:
    """Define @mt_refill(state) and @mt_draw(state) in `module`."""
    _define_refill(module, target.lanes(4))
    _define_draw(module)


def _define_refill(module: Module, lanes: int) -> None:
    """@mt_refill(ptr state): the next 624 words, in place; the index becomes 0."""
    f = module.function("mt_refill", [("ptr", "state")], internal=True, attributes="noinline")
    state = f.args["state"]

    def twist(i: Value, other, width: int) -> None:
        type_ = vector(width, "i32")
        high = f.load(type_, state, i)
        low = f.load(type_, state, f.add(i, 1))
        mixed = f.or_(f.and_(high, 0x80000000), f.and_(low, 0x7FFFFFFF))
        odd = f.and_(f.sub(f.const(0, type_), f.and_(low, 1)), 0x9908B0DF)
        far = f.load(type_, state, f.add(i, other))
        f.store(f.xor(far, f.xor(f.lshr(mixed, 1), odd)), state, i)

    def span(start: int, stop: int, other: int) -> None:
        whole = start + (stop - start) // lanes * lanes
        with f.loop(start, whole, lanes) as i:
            twist(i, other, lanes)
        if whole < stop and lanes > 1:
            with f.loop(whole, stop) as i:
                twist(i, other, 1)

    span(0, _LAG, _SHIFT)
    f.store(f.load("i32", state), state, WORDS)  # the last word's neighbour is the new word 0
    span(_LAG, WORDS, -_LAG)
    f.store(f.const(0, "i32"), state, INDEX_OFFSET // 4)


def _define_draw(module: Module) -> None:
    """@mt_draw(ptr state) -> i32: one tempered word."""
    f = module.function("mt_draw", [("ptr", "state")], ret="i32", internal=True)
    state = f.args["state"]
    index = _next_index(f, state)
    word = f.load("i32", state, index)
    f.store(f.cast("trunc", f.add(index, 1), "i32"), state, INDEX_OFFSET // 4)
    f.ret_value(_temper(f, word))


def _next_index(f: Function, state: Value) -> Value:
    """The index (i64) of the next word, after a refill if there is none left."""
    index = f.load("i32", state, INDEX_OFFSET // 4)
    with f.when(f.cmp("sge", index, WORDS)):
        f.call("void", "mt_refill", [state])
    return f.cast("sext", f.load("i32", state, INDEX_OFFSET // 4), "i64")


def _temper(f: Function, word: Value) -> Value:
    word = f.xor(word, f.lshr(word, 11))
    word = f.xor(word, f.and_(f.shl(word, 7), 0x9D2C5680))
    word = f.xor(word, f.and_(f.shl(word, 15), 0xEFC60000))
    return f.xor(word, f.lshr(word, 18))


def each_draw(f: Function, state: Value, n: Value, bits: int, lanes: int, body: Body) -> None:
    """Draw `n` numbers of `bits` (32 or 64) bits and call `body(numbers, index)` on them.

    `body` is emitted for a vector of `lanes` numbers and for a single one; `index` is that of the
    first. A 64-bit number takes two words, the first of which becomes its upper half.
    """
    words = bits // 32
    done = f.var("i64", 0)

    def unfinished() -> Value:
        return f.cmp("slt", done.get(), n)

    with while_(f, unfinished):
        index = _next_index(f, state)
        count = f.smin(f.udiv(f.sub(f.const(WORDS, "i64"), index), words), f.sub(n, done.get()))
        if words == 2:
            with f.when(f.cmp("eq", count, 0)):  # the block's last word begins a pair
                high = f.cast("zext", f.call("i32", "mt_draw", [state]), "i64")
                low = f.cast("zext", f.call("i32", "mt_draw", [state]), "i64")
                body(f.or_(f.shl(high, 32), low), done.get())
                done.set(f.add(done.get(), 1))
        start = done.get()
        first = f.gep(state, index, "i32")
        whole = f.mul(f.udiv(count, lanes), lanes)

        def numbers(i: Value, width: int, first: Value = first) -> Value:
            drawn = _temper(f, f.load(vector(width * words, "i32"), first, f.mul(i, words)))
            return drawn if words == 1 else _joined(f, drawn, width)

        if lanes > 1:
            with f.loop(0, whole, lanes) as i:
                body(numbers(i, lanes), f.add(start, i))
        with f.loop(whole if lanes > 1 else 0, count) as i:
            body(numbers(i, 1), f.add(start, i))
        # A refill by the pair above left `count` at 0, so the index it wrote must stand.
        with f.when(f.cmp("sgt", count, 0)):
            used = f.add(index, f.mul(count, words))
            f.store(f.cast("trunc", used, "i32"), state, INDEX_OFFSET // 4)
            done.set(f.add(start, count))


def _joined(f: Function, words: Value, lanes: int) -> Value:
    """Pairs of words as 64-bit numbers, the first word above the second."""
    high = f.shuffle(words, None, range(0, 2 * lanes, 2))
    low = f.shuffle(words, None, range(1, 2 * lanes, 2))
    if lanes == 1:
        high, low = (Value(half.name, "<1 x i32>") for half in (high, low))
        high, low = (f.emit("i32", f"extractelement <1 x i32> {half.name}, i32 0")
                     for half in (high, low))
    type_ = vector(lanes, "i64")
    return f.or_(f.shl(f.cast("zext", high, type_), 32), f.cast("zext", low, type_))


def uniform_24(f: Function, words: Value) -> Value:
    """float32 in [0, 1): the lower 24 bits of a word."""
    type_ = vector(lanes_of(words.type), "float")
    return f.fmul(f.cast("sitofp", f.and_(words, 0xFFFFFF), type_), 2.0**-24)


def uniform_53(f: Function, numbers: Value) -> Value:
    """float64 in [0, 1): the lower 53 bits of a 64-bit number."""
    assert scalar_of(numbers.type) == "i64"
    type_ = vector(lanes_of(numbers.type), "double")
    return f.fmul(f.cast("sitofp", f.and_(numbers, (1 << 53) - 1), type_), 2.0**-53)
