"""The searching kernel: for every value the place where it belongs in its sorted row.

A register of values is searched at once: each lane halves its own interval, one gather a step, as
many steps as the row's length has bits. Several registers take turns, so that the memory works on
one while another compares.
"""

from __future__ import annotations

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.lanes import Lanes, memory_type
from flambeau.compiler.target import Target
from flambeau.core.dtypes import DType

__all__ = ["BLOCK", "SEARCH_SLOTS", "search_chunks", "search_kernel"]

SEARCH_SLOTS = ("ordered", "values", "out", "items", "blocks", "n", "m", "row_stride", "steps")
BLOCK = 1024  # values of one row that one iteration of the outermost loop takes
TURNS = 4  # registers that take turns
GRAIN = 8  # blocks below which a chunk is not worth another thread
MAX_CHUNKS = 64


def search_chunks(items: int, threads: int) -> int:
    """Into how many chunks `items` blocks of values are cut."""
    return 1 if threads == 1 else max(1, min(items // GRAIN, MAX_CHUNKS))


def search_kernel(dtype: DType, right: bool, small: bool, target: Target) -> tuple[str, str]:
    """(name, LLVM IR) of the kernel: out[row, j] = how many elements of the sorted row are less
    than values[row, j] (less or equal if `right`).

    Args:
        small: rows have fewer than 2^31 elements, so that places fit in 32 bits.
    """
    name = f"search_{dtype.name}_{'right' if right else 'left'}{'' if small else '_64'}"
    module = Module(target.attributes)
    f = module.function(name, KERNEL_ARGS)
    lanes = max(2, target.lanes(max(4, dtype.itemsize)))
    _Search(f, dtype, right, "i32" if small else "i64", lanes).emit()
    return name, module.text()


class _Search:
    """Emits the body. Places are counted in `word`s."""

    def __init__(self, f: Function, dtype: DType, right: bool, word: str, lanes: int):
        self.f, self.dtype, self.right, self.lanes = f, dtype, right, lanes
        self.k, self.word, self.memory = Lanes(f), word, memory_type(dtype)
        pointers = ("ordered", "values", "out")
        self.slots = {name: f.load("ptr" if name in pointers else "i64",
                                   f.gep(f.args["args"], place, "i64"))
                      for place, name in enumerate(SEARCH_SLOTS)}

    def emit(self) -> None:
        f, slots = self.f, self.slots
        chunk = f.cast("zext", f.args["chunk"], "i64")
        count = f.cast("zext", f.args["nchunks"], "i64")
        self.many = [(f.var(vector(self.lanes, self.word)), f.var(vector(self.lanes, self.word)))
                     for _ in range(TURNS)]
        with f.loop(f.udiv(f.mul(slots["items"], chunk), count),
                    f.udiv(f.mul(slots["items"], f.add(chunk, 1)), count)) as item:
            row, block = f.udiv(item, slots["blocks"]), f.urem(item, slots["blocks"])
            low = f.mul(block, BLOCK)
            high = f.smin(f.add(low, BLOCK), slots["m"])
            row_start = f.gep(slots["ordered"], f.mul(row, slots["row_stride"]), self.memory)
            first = f.mul(row, slots["m"])
            with f.loop(low, high, TURNS * self.lanes) as at:
                self._group(row_start, first, at, high)

    def _group(self, row: Value, first: Value, at: Value, high: Value) -> None:
        """Search `TURNS` registers of values from place `at` of a row on."""
        f, lanes = self.f, self.lanes
        wide = vector(lanes, self.memory)
        length = f.splat(f.cast("trunc", self.slots["n"], self.word)
                         if self.word == "i32" else self.slots["n"], lanes)
        wanted, masks, places = [], [], []
        for turn, (start, stop) in enumerate(self.many):
            place = f.add(at, turn * lanes)
            masks.append(f.lane_mask(lanes, f.sub(high, place)))
            places.append(f.add(first, place))
            raw = f.masked_load(wide, self.slots["values"], masks[-1], 0, places[-1])
            wanted.append(self.k.widen(raw, self.dtype))
            start.set(f.const(0, length.type))
            stop.set(length)
        with f.loop(0, self.slots["steps"]):
            for value, mask, ends in zip(wanted, masks, self.many, strict=True):
                self._halve(row, value, mask, *ends)
        for mask, place, (start, _) in zip(masks, places, self.many, strict=True):
            found = start.get()
            if self.word == "i32":
                found = f.cast("sext", found, vector(lanes, "i64"))
            f.masked_store(found, self.slots["out"], mask, place)

    def _halve(self, row: Value, value: Value, mask: Value, start, stop) -> None:
        f = self.f
        low, high = start.get(), stop.get()
        live = f.and_(f.cmp("slt", low, high), mask)
        middle = f.add(low, f.lshr(f.sub(high, low), 1))
        found = f.gather(vector(self.lanes, self.memory), f.gep(row, middle, self.memory), live)
        beyond = f.and_(live, self._goes_behind(value, self.k.widen(found, self.dtype)))
        before = f.and_(live, f.not_(beyond))
        start.set(f.select(beyond, f.add(middle, 1), low))
        stop.set(f.select(before, middle, high))

    def _goes_behind(self, value: Value, found: Value) -> Value:
        """Does the value belong behind this element? NaN does always."""
        kind = {"f": "u", "i": "s"}.get(self.dtype.kind, "u")
        return self.f.cmp(f"{kind}{'le' if self.right else 'lt'}", found, value)
