"""Images read at places that data tells: y[n, c, o] = sum of w[n, t, o] x[n, c, i[n, t, o]].

Lanes are places of the result. A tile of them turns its places into offsets once; then all channels
are gathered with these, some at a time, so that offsets and weights are loaded once for several.
"""

from __future__ import annotations

from flambeau.compiler.codegen import KERNEL_ARGS
from flambeau.compiler.emitter import Function, Module, Value, vector
from flambeau.compiler.frame import Slots, chunk_range, thread_workspace
from flambeau.compiler.nest import Pointer
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["sampled_step"]

POINTERS = ("x", "places", "weights", "y", "work")
SLOTS = (*POINTERS, "work_stride", "tasks", "tiles", "channels", "out", "taps", "x_n", "x_c", "x_s",
         "places_n", "places_t", "places_o", "weights_n", "weights_t", "weights_o", "y_n")
TILE = 256  # places
BLOCK = 4  # channels that are summed side by side
GRAIN = 1 << 13  # elements read that a chunk is worth
MAX_CHUNKS = 64


def sampled_step(library, target: Target, threads: int) -> tuple[Step, int]:
    """(Step, work) of a LibraryStep "sampled"."""
    x, places, weights = library.sources
    (batch, taps, out), channels, size = places.shape, x.shape[1], x.dtype.itemsize
    tiles = -(-out // TILE)
    stride = taps * TILE * (8 + size)
    values = {name: Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)
              for name, buffer in (("x", x), ("places", places), ("weights", weights),
                                   ("y", library.target))}
    for name, buffer, axes in (("x", x, "ncs"), ("places", places, "nto"),
                               ("weights", weights, "nto")):
        values |= {f"{name}_{axis}": step for axis, step in zip(axes, buffer.strides, strict=True)}
    values |= {"work": Pointer("work", stride * threads), "work_stride": stride,
               "tasks": batch * tiles, "tiles": tiles, "channels": channels, "out": out,
               "taps": taps, "y_n": channels * out}
    name = f"sampled_{x.dtype.llvm}"

    def text() -> str:
        module = Module(target.attributes)
        f = module.function(name, KERNEL_ARGS)
        _Kernel(f, x.dtype.llvm, target.lanes(size)).emit()
        return module.text()

    work = batch * channels * out * taps
    nchunks = 1 if threads == 1 else max(1, min(batch * tiles, work // GRAIN, MAX_CHUNKS))
    return Step(name, text, [values[slot] for slot in SLOTS], nchunks), 4 * work


class _Kernel:
    def __init__(self, f: Function, scalar: str, lanes: int):
        self.f, self.scalar, self.lanes = f, scalar, lanes
        self.slot, self.vector = Slots(f, SLOTS, POINTERS), vector(lanes, scalar)
        self.offset = vector(lanes, "i64")

    def emit(self) -> None:
        f, slot = self.f, self.slot
        self.offsets = thread_workspace(f, slot["work"], slot["work_stride"])
        self.shares = f.gep(self.offsets, f.mul(slot["taps"], TILE), "i64")
        with f.loop(*chunk_range(f, slot["tasks"])) as task:
            n = f.udiv(task, slot["tiles"])
            first = f.mul(f.urem(task, slot["tiles"]), TILE)
            count = f.smin(f.sub(slot["out"], first), TILE)
            self._prepare(n, first, count)
            whole = f.mul(f.udiv(slot["channels"], BLOCK), BLOCK)
            for low, high, step in ((0, whole, BLOCK), (whole, slot["channels"], 1)):
                with f.loop(low, high, step) as c:
                    x = f.gep(slot["x"], f.add(f.mul(n, slot["x_n"]), f.mul(c, slot["x_c"])),
                              self.scalar)
                    y = f.add(f.add(f.mul(n, slot["y_n"]), f.mul(c, slot["out"])), first)
                    self._channels(x, f.gep(slot["y"], y, self.scalar), count, step)

    def _prepare(self, n: Value, first: Value, count: Value) -> None:
        """Offsets, -1 where there is nothing, and weights of a tile's taps."""
        f, slot = self.f, self.slot
        with f.loop(0, slot["taps"]) as tap:
            starts = []
            for name, kind in (("places", "i64"), ("weights", self.scalar)):
                at = f.add(f.mul(n, slot[f"{name}_n"]), f.mul(tap, slot[f"{name}_t"]))
                at = f.add(at, f.mul(first, slot[f"{name}_o"]))
                starts.append(f.gep(slot[name], at, kind))
            row = f.mul(tap, TILE)
            with f.loop(0, count) as o:
                place = f.load("i64", starts[0], f.mul(o, slot["places_o"]))
                there = f.cmp("sge", place, 0)
                offset = f.select(there, f.mul(place, slot["x_s"]), f.const(-1, "i64"))
                f.store(offset, self.offsets, f.add(row, o))
                f.store(f.load(self.scalar, starts[1], f.mul(o, slot["weights_o"])),
                        self.shares, f.add(row, o))
            with f.loop(count, f.mul(f.ceil_div(count, self.lanes), self.lanes)) as o:
                f.store(f.const(-1, "i64"), self.offsets, f.add(row, o))
                f.store(f.const(0, self.scalar), self.shares, f.add(row, o))

    def _channels(self, x: Value, y: Value, count: Value, channels: int) -> None:
        """A tile of some channels."""
        f, slot, lanes = self.f, self.slot, self.lanes
        sources = [f.gep(x, f.mul(k, slot["x_c"]), self.scalar) for k in range(channels)]
        targets = [f.gep(y, f.mul(k, slot["out"]), self.scalar) for k in range(channels)]
        totals = [f.var(self.vector) for _ in range(channels)]
        full = f.mul(f.udiv(count, lanes), lanes)

        def span(o: Value, mask: Value | None) -> None:
            for total in totals:
                total.set(0.0)
            with f.loop(0, slot["taps"]) as tap:
                at = f.add(f.mul(tap, TILE), o)
                offsets = f.load(self.offset, self.offsets, at)
                there = f.cmp("sge", offsets, 0)
                share = f.load(self.vector, self.shares, at)
                for source, total in zip(sources, totals, strict=True):
                    found = f.gather(self.vector, f.gep(source, offsets, self.scalar), there)
                    total.set(f.fma(found, share, total.get()))
            for target, total in zip(targets, totals, strict=True):
                if mask is None:
                    f.store(total.get(), target, o)
                else:
                    f.masked_store(total.get(), target, mask, o)

        with f.loop(0, full, lanes) as o:
            span(o, None)
        with f.when(f.cmp("slt", full, count)):
            span(full, f.lane_mask(lanes, f.sub(count, full)))
