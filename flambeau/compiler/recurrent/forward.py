"""Recurrent layers over a whole sequence: one kernel for all steps.

    once                          pack the recurrent weights; the first state
    for each step                 (threads wait for one another: see gang.py)
      for each 32 units           (their weights stay in the second-level cache)
        for each tile of rows     all gates = h W^T      (register tiles, to scratch)
                                  + the input's part, activations, new state

What the inputs contribute to the gates comes from one product over all steps, done before. Threads
share out the rows of the batch where each of them can hold all weights in its cache, else the
units. Every element is computed in one order, whatever the parts: equal bits on any number of
threads.
"""

from __future__ import annotations

from flambeau.compiler.attention.tiles import Blocks
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.frame import Slots, kernel_function
from flambeau.compiler.recurrent.gang import Gang
from flambeau.compiler.recurrent.tiles import (
    SAVED,
    SHARED_SLOTS,
    Lanes,
    RecurrentSpec,
    kernel_name_of,
    products,
    run_rows,
    split_work,
    start_rows,
    start_units,
    tile_of,
)
from flambeau.compiler.target import Target

__all__ = ["RECURRENT_SLOTS", "STEP_ARGS", "recurrent_kernel", "run_gang"]

_OPTIONAL = ("cells", "saved", "last_h", "last_c", "bias", "h0", "c0")
RECURRENT_SLOTS = ("pre", "pre_t", "pre_n", "h0_n", "c0_n", "hidden", *_OPTIONAL, *SHARED_SLOTS)
_POINTERS = ("pre", "hidden", *_OPTIONAL, "w", "work")

STEP_ARGS = (("ptr", "args"), ("i64", "part"), ("i64", "step"), ("ptr", "scratch"))


def recurrent_kernel(spec: RecurrentSpec, target: Target) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `RECURRENT_SLOTS`, then `gang_slots`.

    pre is (steps, batch, gates * size); w (gates * size, size) with contiguous rows; bias
    (gates * size), h0 and c0 (batch, size) may be null. Results are dense, and null if not wanted:
    hidden and cells (steps, batch, size), saved (steps, batch, SAVED * size), last_h and last_c
    (batch, size). Step s is at time first + s direction.
    """
    module, blocks = Module(target.attributes), tile_of(spec.dtype_llvm, target)
    products(module, blocks, spec, "along")
    _advance(module, spec, blocks, target)
    _start(module, spec, blocks, target)
    _step(module, spec, blocks)
    name = kernel_name_of("recurrent", spec)
    f = kernel_function(module, name)
    slot = Slots(f, RECURRENT_SLOTS, _POINTERS)
    gang = Gang(f, len(RECURRENT_SLOTS), slot["groups"], slot["members"], target.triple)
    run_gang(f, slot, gang, f.add(slot["steps"], 1))
    return name, module.text()


def run_gang(f: Function, slot: Slots, gang: Gang, steps: Value) -> None:
    """Step 0 is `start`, the others are `step`."""
    thread = f.cast("sext", f.args["thread"], "i64")
    scratch = f.gep(slot["work"], f.add(slot["scratch"], f.mul(thread, slot["scratch_stride"])),
                    "i8")

    def work(part: Value, step: Value) -> None:
        args = [f.args["args"], part, step, scratch]
        with f.when_else(f.cmp("eq", step, 0)) as otherwise:
            f.call("void", "start", args)
            otherwise()
            f.call("void", "step", args)

    gang.run(steps, work)


class _Places:
    """Where things lie in the common workspace."""

    def __init__(self, f: Function, slot: Slots, blocks: Blocks, spec: RecurrentSpec):
        self.f, self.slot, self.blocks, self.spec = f, slot, blocks, spec
        self.item = blocks.tile.compute
        self.panel_items = f.mul(blocks.wide(f, slot["size"]), blocks.width)
        self.group_items = f.mul(self.panel_items, spec.gates)
        panels = f.ceil_div(slot["size"], blocks.width)
        self.hidden_items = f.mul(f.add(slot["batch"], blocks.height), spec.pitch)
        self.hidden = f.gep(slot["work"], f.mul(panels, self.group_items), self.item)
        self.state = f.gep(self.hidden, f.mul(self.hidden_items, 2), self.item)
        self.state_row = blocks.wide(f, slot["size"])

    def panel(self, unit: Value, gate: int) -> Value:
        """The packed weights of one gate of 32 units."""
        f = self.f
        group = f.mul(f.udiv(unit, self.blocks.width), self.group_items)
        return f.gep(self.slot["work"], f.add(group, f.mul(self.panel_items, gate)), self.item)

    def rows(self, step: Value, row: Value) -> Value:
        """The left factor that a step reads."""
        f = self.f
        place = f.add(f.mul(f.and_(step, 1), self.hidden_items), f.mul(row, self.spec.pitch))
        return f.gep(self.hidden, place, self.item)


def _start(module: Module, spec: RecurrentSpec, blocks: Blocks, target: Target) -> None:
    """Define start(...): pack a part of the weights, and set a part of the first state."""
    f = module.function("start", STEP_ARGS, internal=True)
    slot = Slots(f, RECURRENT_SLOTS, _POINTERS)
    places = _Places(f, slot, blocks, spec)
    item = blocks.tile.compute
    with f.loop(*start_units(f, slot, blocks, f.args["part"]), blocks.width) as unit:
        for gate in range(spec.gates):
            row = f.add(f.mul(slot["size"], gate), unit)
            f.call("void", "pack", [
                f.gep(slot["w"], f.mul(row, slot["w_r"]), blocks.tile.memory),
                places.panel(unit, gate), slot["size"], f.sub(slot["size"], unit), slot["w_r"],
                f.const(1, "i64")])
    lanes = Lanes(f, blocks, target)
    with f.loop(*start_rows(f, slot, f.args["part"])) as row:
        hidden = places.rows(f.const(1, "i64"), row)
        state = f.gep(places.state, f.mul(row, places.state_row), item)
        with f.loop(0, slot["size"], blocks.tile.lanes) as j:
            lanes.mask = f.lane_mask(blocks.tile.lanes, f.sub(slot["size"], j))
            for name, line in (("h0", hidden), ("c0", state)):
                given = f.cmp("ne", slot[name], 0)
                value = lanes.load(slot[name], f.add(f.mul(row, slot[f"{name}_n"]), j), given)
                f.store(value, line, j)


def _step(module: Module, spec: RecurrentSpec, blocks: Blocks) -> None:
    """Define step(...): one part of one step."""
    f = module.function("step", STEP_ARGS, internal=True)
    slot = Slots(f, RECURRENT_SLOTS, _POINTERS)
    places = _Places(f, slot, blocks, spec)
    item, memory = blocks.tile.compute, blocks.tile.memory
    rows, units = split_work(f, slot, blocks, f.args["part"])
    step, size = f.args["step"], slot["size"]
    one = f.array(item, 1)
    f.store(f.const(1.0, item), one)
    time = f.add(slot["first"], f.mul(f.sub(step, 1), slot["direction"]))
    last = f.cmp("eq", step, slot["steps"])
    with f.loop(*units, blocks.width) as unit, f.loop(*rows, slot["tile_rows"]) as row:
        count = f.smin(f.sub(rows[1], row), slot["tile_rows"])
        before = places.rows(step, row)
        for gate in range(spec.gates):
            run_rows(f, blocks, count, [
                before, places.panel(unit, gate),
                f.gep(f.args["scratch"], gate * blocks.height * blocks.width, item), size, one])
        pre = f.add(f.add(f.mul(time, slot["pre_t"]), f.mul(row, slot["pre_n"])), unit)
        place = f.add(f.mul(time, slot["batch"]), row)
        dense = f.add(f.mul(place, size), unit)
        end = f.add(f.mul(row, size), unit)

        def wanted(name: str, index: Value, when: Value | None = None) -> Value:
            there = f.cmp("ne", slot[name], 0)
            there = there if when is None else f.and_(there, when)
            return f.select(there, f.gep(slot[name], index, memory), Value("null", "ptr"))

        f.call("void", "advance", [
            f.args["scratch"], f.gep(slot["pre"], pre, memory), wanted("bias", unit),
            f.gep(before, unit, item),
            f.gep(places.rows(f.add(step, 1), row), unit, item),
            f.gep(places.state, f.add(f.mul(row, places.state_row), unit), item),
            wanted("hidden", dense), wanted("cells", dense),
            wanted("saved", f.add(f.mul(place, f.mul(size, SAVED[spec.mode])), unit)),
            wanted("last_h", end, last), wanted("last_c", end, last),
            count, f.smin(f.sub(size, unit), blocks.width), size, slot["pre_n"],
            places.state_row])


# ---------------------------------------------------------------------- what comes after the
# product
_ADVANCE_ARGS = tuple(("ptr", name) for name in (
    "scratch", "pre", "bias", "before", "after", "state", "hidden", "cells", "saved", "last_h",
    "last_c")) + tuple(("i64", name) for name in (
        "rows", "units", "size", "pre_row", "state_row"))


def _advance(module: Module, spec: RecurrentSpec, blocks: Blocks, target: Target) -> None:
    """Define advance(...): the new state of a tile of rows and up to 32 units."""
    f = module.function("advance", _ADVANCE_ARGS, internal=True)
    a, tile = f.args, blocks.tile
    lanes = Lanes(f, blocks, target)
    present = {name: f.cmp("ne", a[name], 0)
               for name in ("bias", "hidden", "cells", "saved", "last_h", "last_c")}
    with f.loop(0, a["rows"]) as i, f.loop(0, a["units"], tile.lanes) as j:
        lanes.mask = f.lane_mask(tile.lanes, f.sub(a["units"], j))
        products_, given = [], []
        for gate in range(spec.gates):
            line = f.add(f.mul(i, blocks.width), j)
            found = f.load(tile.vector, a["scratch"],
                           f.add(line, gate * blocks.height * blocks.width))
            shift = f.add(f.mul(a["size"], gate), j)
            bias = lanes.load(a["bias"], shift, present["bias"])
            products_.append(f.fadd(found, bias))
            given.append(lanes.load(a["pre"], f.add(f.mul(i, a["pre_row"]), shift)))
        place = f.add(f.mul(i, a["size"]), j)
        state = f.gep(a["state"], f.add(f.mul(i, a["state_row"]), j), tile.compute)
        old = f.gep(a["before"], f.add(f.mul(i, spec.pitch), j), tile.compute)
        new, cell, saved = _RULES[spec.mode](f, lanes, products_, given, state, old)
        lanes.store(new, a["after"], f.add(f.mul(i, spec.pitch), j))
        for name in ("hidden", "last_h"):
            with f.when(present[name]):
                lanes.store(new, a[name], place)
        if cell is not None:
            lanes.store(cell, state, 0)
            for name in ("cells", "last_c"):
                with f.when(present[name]):
                    lanes.store(cell, a[name], place)
        if saved:
            with f.when(present["saved"]):
                line = f.add(f.mul(i, f.mul(a["size"], len(saved))), j)
                for number, value in enumerate(saved):
                    lanes.store(value, a["saved"], f.add(line, f.mul(a["size"], number)))


def _lstm(f: Function, lanes: Lanes, products_: list, given: list, state: Value, old: Value
          ) -> tuple:
    i, o_f, g, o = (f.fadd(a, b) for a, b in zip(products_, given, strict=True))
    i, o_f, o = (lanes.sigmoid(x) for x in (i, o_f, o))
    g = lanes.tanh(g)
    cell = lanes.fma(o_f, lanes.load(state, 0), f.fmul(i, g))
    return f.fmul(o, lanes.tanh(cell)), cell, [i, o_f, g, o]


def _gru(f: Function, lanes: Lanes, products_: list, given: list, state: Value, old: Value
         ) -> tuple:
    r, z = (lanes.sigmoid(f.fadd(a, b)) for a, b in zip(products_[:2], given[:2], strict=True))
    n = lanes.tanh(lanes.fma(r, products_[2], given[2]))
    new = lanes.fma(z, f.fsub(lanes.load(old, 0), n), n)
    return new, None, [r, z, n, products_[2]]


def _tanh(f: Function, lanes: Lanes, products_: list, given: list, state: Value, old: Value
          ) -> tuple:
    return lanes.tanh(f.fadd(products_[0], given[0])), None, []


def _relu(f: Function, lanes: Lanes, products_: list, given: list, state: Value, old: Value
          ) -> tuple:
    total = f.fadd(products_[0], given[0])
    return f.select(f.cmp("ole", total, 0.0), 0.0, total), None, []


_RULES = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _tanh, "RNN_RELU": _relu}
"""(f, lanes, recurrent products, inputs' products, old cell, old hidden) -> (hidden, cell or None,
what the gradient needs)."""
