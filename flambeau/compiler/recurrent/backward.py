"""The gradient of recurrent layers over a whole sequence: one kernel for all steps, back in time.

    once                            pack the recurrent weights; the gradient of the last state
    for each step, from the end     (threads wait for one another: see gang.py)
      for each 32 units, each tile of rows
        dh = (gradients of the gates of the step after) W + the result's gradient
        gradients of all gates of these units
    once                            the gradient of the first state

Gradients of weights and inputs are then products over all steps at once, which is not done here.
"""

from __future__ import annotations

from flambeau.compiler.attention.tiles import Blocks
from flambeau.compiler.emitter import Function, Module, Value
from flambeau.compiler.frame import Slots, kernel_function
from flambeau.compiler.recurrent.forward import STEP_ARGS, run_gang
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

__all__ = ["RECURRENT_BACKWARD_SLOTS", "recurrent_backward_kernel"]

_POINTED = ("g", "g_h", "g_c", "saved", "states", "old", "d_in", "d_hid", "d_h0", "d_c0")
RECURRENT_BACKWARD_SLOTS = (*_POINTED, "g_t", "g_n", "g_h_n", "g_c_n", "old_n", "saved_t",
                            "saved_n", "states_t", "states_n", *SHARED_SLOTS)
_POINTERS = (*_POINTED, "w", "work")


def recurrent_backward_kernel(spec: RecurrentSpec, target: Target) -> tuple[str, str]:
    """The kernel of `spec` as (name, LLVM IR); slots are `RECURRENT_BACKWARD_SLOTS`, then
    `gang_slots`.

    g (steps, batch, size), g_h and g_c (batch, size) are gradients of the hidden states, of the
    last one and of the last cell, any of them null. saved is what the layer kept; states its
    cells (LSTM) or hidden states; old what came before the first of these, or null. Results
    are dense: d_in and d_hid (steps, batch, gates * size) with respect to what inputs and hidden
    states contribute to the gates (d_hid for a GRU only: else they are the same), d_h0 and d_c0
    (null if not wanted). Step s is at time first + s direction, the last time first.
    """
    module, blocks = Module(target.attributes), tile_of(spec.dtype_llvm, target)
    products(module, blocks, spec, "across")
    _retreat(module, spec, blocks, target)
    _start(module, spec, blocks, target)
    _fill(module, blocks, target)
    _end(module, spec, blocks, target)
    _step(module, spec, blocks)
    name = kernel_name_of("recurrent_backward", spec)
    f = kernel_function(module, name)
    slot = Slots(f, RECURRENT_BACKWARD_SLOTS, _POINTERS)
    gang = Gang(f, len(RECURRENT_BACKWARD_SLOTS), slot["groups"], slot["members"], target.triple)
    more = f.or_(f.cmp("ne", slot["d_h0"], 0), f.cmp("ne", slot["d_c0"], 0))
    run_gang(f, slot, gang, f.add(f.add(slot["steps"], 1), f.cast("zext", more, "i64")))
    return name, module.text()


class _Places:
    """Where things lie in the common workspace."""

    def __init__(self, f: Function, slot: Slots, blocks: Blocks, spec: RecurrentSpec):
        self.f, self.slot, self.blocks, self.spec = f, slot, blocks, spec
        self.item = blocks.tile.compute
        self.depth = f.mul(slot["size"], spec.gates)
        self.panel_items = f.mul(blocks.wide(f, self.depth), blocks.width)
        panels = f.ceil_div(slot["size"], blocks.width)
        self.slope_items = f.mul(f.add(slot["batch"], blocks.height), spec.pitch)
        self.slopes = f.gep(slot["work"], f.mul(panels, self.panel_items), self.item)
        self.carry = f.gep(self.slopes, f.mul(self.slope_items, 2), self.item)
        self.carry_row = blocks.wide(f, slot["size"])

    def panel(self, unit: Value) -> Value:
        """The packed weights of 32 units."""
        f = self.f
        group = f.mul(f.udiv(unit, self.blocks.width), self.panel_items)
        return f.gep(self.slot["work"], group, self.item)

    def rows(self, step: Value, row: Value) -> Value:
        """The gradients of gates that a step reads."""
        f = self.f
        place = f.add(f.mul(f.and_(step, 1), self.slope_items), f.mul(row, self.spec.pitch))
        return f.gep(self.slopes, place, self.item)

    def carried(self, row: Value, unit: Value) -> Value:
        """What goes straight to the step before: the cell's gradient, or a GRU's share."""
        f = self.f
        return f.gep(self.carry, f.add(f.mul(row, self.carry_row), unit), self.item)


def _start(module: Module, spec: RecurrentSpec, blocks: Blocks, target: Target) -> None:
    """Define start(...): pack a part of the weights, and set a part of what is carried."""
    f = module.function("start", STEP_ARGS, internal=True)
    slot = Slots(f, RECURRENT_BACKWARD_SLOTS, _POINTERS)
    places = _Places(f, slot, blocks, spec)
    with f.loop(*start_units(f, slot, blocks, f.args["part"]), blocks.width) as unit:
        f.call("void", "pack", [
            f.gep(slot["w"], unit, blocks.tile.memory), places.panel(unit), places.depth,
            f.sub(slot["size"], unit), f.const(1, "i64"), slot["w_r"]])
    lanes = Lanes(f, blocks, target)
    with f.loop(*start_rows(f, slot, f.args["part"])) as row, \
            f.loop(0, slot["size"], blocks.tile.lanes) as j:
        lanes.mask = f.lane_mask(blocks.tile.lanes, f.sub(slot["size"], j))
        place = f.add(f.mul(row, slot["g_c_n"]), j)
        value = lanes.load(slot["g_c"], place, f.cmp("ne", slot["g_c"], 0))
        f.store(value, places.carried(row, j))


def _fill(module: Module, blocks: Blocks, target: Target) -> None:
    """Define fill(scratch, source, row_step, rows, units): a tile from memory, 0 for null."""
    f = module.function("fill", [("ptr", "scratch"), ("ptr", "source"), ("i64", "row_step"),
                                 ("i64", "rows"), ("i64", "units")], internal=True)
    lanes = Lanes(f, blocks, target)
    there = f.cmp("ne", f.args["source"], 0)
    with f.loop(0, f.args["rows"]) as i, f.loop(0, f.args["units"], blocks.tile.lanes) as j:
        lanes.mask = f.lane_mask(blocks.tile.lanes, f.sub(f.args["units"], j))
        value = lanes.load(f.args["source"], f.add(f.mul(i, f.args["row_step"]), j), there)
        f.store(value, f.args["scratch"], f.add(f.mul(i, blocks.width), j))


def _end(module: Module, spec: RecurrentSpec, blocks: Blocks, target: Target) -> None:
    """Define end(scratch, carry, d_h0, d_c0, rows, units, size, carry_row)."""
    f = module.function("end", [("ptr", name) for name in ("scratch", "carry", "d_h0", "d_c0")]
                        + [("i64", name) for name in ("rows", "units", "size", "carry_row")],
                        internal=True)
    a, lanes = f.args, Lanes(f, blocks, target)
    with f.loop(0, a["rows"]) as i, f.loop(0, a["units"], blocks.tile.lanes) as j:
        lanes.mask = f.lane_mask(blocks.tile.lanes, f.sub(a["units"], j))
        value = f.load(blocks.tile.vector, a["scratch"], f.add(f.mul(i, blocks.width), j))
        carry = lanes.load(a["carry"], f.add(f.mul(i, a["carry_row"]), j))
        if spec.mode == "GRU":
            value = f.fadd(value, carry)
        for name, found in (("d_h0", value), ("d_c0", carry)):
            with f.when(f.cmp("ne", a[name], 0)):
                lanes.store(found, a[name], f.add(f.mul(i, a["size"]), j))


def _step(module: Module, spec: RecurrentSpec, blocks: Blocks) -> None:
    """Define step(...): one part of one step, or of what comes after the last."""
    f = module.function("step", STEP_ARGS, internal=True)
    slot = Slots(f, RECURRENT_BACKWARD_SLOTS, _POINTERS)
    places = _Places(f, slot, blocks, spec)
    item, memory = blocks.tile.compute, blocks.tile.memory
    rows, units = split_work(f, slot, blocks, f.args["part"])
    step, size, scratch = f.args["step"], slot["size"], f.args["scratch"]
    one = f.array(item, 1)
    f.store(f.const(1.0, item), one)
    time = f.add(slot["first"], f.mul(f.sub(step, 1), slot["direction"]))

    def wanted(name: str, index: Value, when: Value | None = None) -> Value:
        there = f.cmp("ne", slot[name], 0)
        there = there if when is None else f.and_(there, when)
        return f.select(there, f.gep(slot[name], index, memory), Value("null", "ptr"))

    with f.loop(*units, blocks.width) as unit, f.loop(*rows, slot["tile_rows"]) as row:
        count = f.smin(f.sub(rows[1], row), slot["tile_rows"])
        width = f.smin(f.sub(size, unit), blocks.width)
        with f.when_else(f.cmp("eq", step, 1)) as otherwise:
            given = wanted("g_h", f.add(f.mul(row, slot["g_h_n"]), unit))
            f.call("void", "fill", [scratch, given, slot["g_h_n"], count, width])
            otherwise()
            run_rows(f, blocks, count, [places.rows(step, row), places.panel(unit), scratch,
                                        places.depth, one])
        carry = places.carried(row, unit)
        final = f.cmp("eq", step, slot["steps"])
        with f.when_else(f.cmp("sgt", step, slot["steps"])) as otherwise:
            place = f.add(f.mul(row, size), unit)
            f.call("void", "end", [scratch, carry, wanted("d_h0", place), wanted("d_c0", place),
                                   count, width, size, places.carry_row])
            otherwise()
            place = f.add(f.mul(time, slot["batch"]), row)
            gates = f.add(f.mul(place, f.mul(size, spec.gates)), unit)
            given, saved, states = (
                f.add(f.add(f.mul(time, slot[f"{name}_t"]), f.mul(row, slot[f"{name}_n"])), unit)
                for name in ("g", "saved", "states"))
            earlier = f.add(states, f.mul(slot["direction"], slot["states_t"]))
            old = f.select(final, wanted("old", f.add(f.mul(row, slot["old_n"]), unit)),
                           f.gep(slot["states"], earlier, memory))
            f.call("void", "retreat", [
                scratch, carry,
                wanted("g", given), wanted("saved", saved),
                f.gep(slot["states"], states, memory), old,
                f.gep(places.rows(f.add(step, 1), row), unit, item),
                wanted("d_in", gates), wanted("d_hid", gates), count, width, size,
                slot["g_n"], f.select(final, slot["old_n"], slot["states_n"]), places.carry_row,
                slot["saved_n"], slot["states_n"]])


# ---------------------------------------------------------------------- the gradients of gates
_RETREAT_ARGS = tuple(("ptr", name) for name in (
    "scratch", "carry", "g", "saved", "states", "old", "after", "d_in", "d_hid")) + tuple(
        ("i64", name) for name in ("rows", "units", "size", "g_row", "old_row", "carry_row",
                                     "saved_row", "states_row"))


def _retreat(module: Module, spec: RecurrentSpec, blocks: Blocks, target: Target) -> None:
    """Define retreat(...): from the gradient of a step's hidden state to those of its gates."""
    f = module.function("retreat", _RETREAT_ARGS, internal=True)
    a, tile = f.args, blocks.tile
    lanes = Lanes(f, blocks, target)
    present = {name: f.cmp("ne", a[name], 0) for name in ("g", "old", "d_in", "d_hid")}
    with f.loop(0, a["rows"]) as i, f.loop(0, a["units"], tile.lanes) as j:
        lanes.mask = f.lane_mask(tile.lanes, f.sub(a["units"], j))
        slope = f.load(tile.vector, a["scratch"], f.add(f.mul(i, blocks.width), j))
        slope = f.fadd(slope, lanes.load(a["g"], f.add(f.mul(i, a["g_row"]), j), present["g"]))
        line = f.add(f.mul(i, a["saved_row"]), j)
        saved = [lanes.load(a["saved"], f.add(line, f.mul(a["size"], number)))
                 for number in range(SAVED[spec.mode])]
        state = lanes.load(a["states"], f.add(f.mul(i, a["states_row"]), j))
        old = lanes.load(a["old"], f.add(f.mul(i, a["old_row"]), j), present["old"])
        carry = f.gep(a["carry"], f.add(f.mul(i, a["carry_row"]), j), tile.compute)
        to_input, to_hidden, kept = _RULES[spec.mode](f, lanes, slope, saved, state, old,
                                                      lanes.load(carry, 0))
        if kept is not None:
            lanes.store(kept, carry, 0)
        line = f.add(f.mul(i, f.mul(a["size"], spec.gates)), j)
        for gate, slope in enumerate(to_hidden):
            shift = f.mul(a["size"], gate)
            lanes.store(slope, a["after"], f.add(f.add(f.mul(i, spec.pitch), shift), j))
        for name, slopes in (("d_in", to_input), ("d_hid", to_hidden)):
            with f.when(present[name]):
                for gate, slope in enumerate(slopes):
                    lanes.store(slope, a[name], f.add(line, f.mul(a["size"], gate)))


def _of_sigmoid(f: Function, lanes: Lanes, slope: Value, value: Value) -> Value:
    return f.fmul(slope, f.fmul(value, lanes.one_minus(value)))


def _of_tanh(f: Function, lanes: Lanes, slope: Value, value: Value) -> Value:
    square = f.fmul(value, value)
    return f.fmul(slope, lanes.one_minus(square))


def _lstm(f: Function, lanes: Lanes, slope: Value, saved: list, cell: Value, old: Value,
          carry: Value) -> tuple:
    i, forget, g, o = saved
    bent = lanes.tanh(cell)
    to_cell = f.fadd(carry, _of_tanh(f, lanes, f.fmul(slope, o), bent))
    gates = [_of_sigmoid(f, lanes, f.fmul(to_cell, g), i),
             _of_sigmoid(f, lanes, f.fmul(to_cell, old), forget),
             _of_tanh(f, lanes, f.fmul(to_cell, i), g),
             _of_sigmoid(f, lanes, f.fmul(slope, bent), o)]
    return gates, gates, f.fmul(to_cell, forget)


def _gru(f: Function, lanes: Lanes, slope: Value, saved: list, hidden: Value, old: Value,
         carry: Value) -> tuple:
    r, z, n, product = saved
    slope = f.fadd(slope, carry)
    to_new = _of_tanh(f, lanes, f.fmul(slope, lanes.one_minus(z)), n)
    to_reset = _of_sigmoid(f, lanes, f.fmul(to_new, product), r)
    to_update = _of_sigmoid(f, lanes, f.fmul(slope, f.fsub(old, n)), z)
    return ([to_reset, to_update, to_new], [to_reset, to_update, f.fmul(to_new, r)],
            f.fmul(slope, z))


def _tanh(f: Function, lanes: Lanes, slope: Value, saved: list, hidden: Value, old: Value,
          carry: Value) -> tuple:
    gates = [_of_tanh(f, lanes, slope, hidden)]
    return gates, gates, None


def _relu(f: Function, lanes: Lanes, slope: Value, saved: list, hidden: Value, old: Value,
          carry: Value) -> tuple:
    gates = [f.select(f.cmp("ole", hidden, 0.0), 0.0, slope)]
    return gates, gates, None


_RULES = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _tanh, "RNN_RELU": _relu}
"""(f, lanes, gradient of the hidden state, what was kept, new state, old state, what is carried)
-> (gradients of the input's part of the gates, of the hidden state's part, what is carried)."""
