"""Joint primitives as calls of generated kernels: attention, recurrent layers, segments,
samples of images."""

from __future__ import annotations

from flambeau.compiler.attention.backward import (
    BACKWARD_SLOTS,
    attention_backward_kernel,
    attention_backward_plan,
)
from flambeau.compiler.attention.forward import (
    ATTENTION_SLOTS,
    AttentionSpec,
    attention_kernel,
    attention_plan,
    kernel_name,
)
from flambeau.compiler.expression import Buffer
from flambeau.compiler.margins.kernel import label_margins_step
from flambeau.compiler.nest import Float, Pointer
from flambeau.compiler.pairs import pairs_step
from flambeau.compiler.pooling.sampling import sampled_step
from flambeau.compiler.recurrent.backward import (
    RECURRENT_BACKWARD_SLOTS,
    recurrent_backward_kernel,
)
from flambeau.compiler.recurrent.forward import RECURRENT_SLOTS, recurrent_kernel
from flambeau.compiler.recurrent.gang import gang_slots
from flambeau.compiler.recurrent.tiles import (
    GATES,
    RecurrentPlan,
    kernel_name_of,
    recurrent_plan,
    spec_for,
)
from flambeau.compiler.segments.step import segment_step
from flambeau.compiler.step import Step
from flambeau.compiler.target import Target

__all__ = ["JOINT_RULES"]


def _pointer(buffer: Buffer | None) -> Pointer | int:
    """The address of a buffer; 0 for a result that nobody wants."""
    if buffer is None:
        return 0
    return Pointer(buffer.kind, buffer.number, buffer.offset * buffer.dtype.itemsize)


def _attention_values(library) -> tuple[AttentionSpec, dict, tuple]:
    """(what the kernel is, the slots that both directions have, what comes after the operands)."""
    form = library.attrs[0]
    query, key, value, mask, drop, rest = form.split(library.sources)
    kind = None if mask is None else "bool" if mask.dtype.kind == "b" else "float"
    spec = AttentionSpec(query.dtype.llvm, kind, drop is not None)
    batch, heads, rows, depth = query.shape
    values = {"batch": batch, "heads": heads, "group": heads // key.shape[1], "rows": rows,
              "keys": key.shape[2], "depth": depth, "width": value.shape[3],
              "causal": int(form.causal), "scale": Float(form.scale),
              "factor": Float(form.factor)}
    for name, buffer in (("q", query), ("k", key), ("v", value), ("mask", mask), ("drop", drop)):
        values |= _operand(name, buffer)
    return spec, values, rest


def _operand(name: str, buffer: Buffer | None) -> dict:
    steps = (0, 0, 0) if buffer is None else buffer.strides[:3]
    return {name: _pointer(buffer)} | {f"{name}_{axis}": step
                                       for axis, step in zip("bhr", steps, strict=True)}


def _work(values: dict) -> int:
    return (values["batch"] * values["heads"] * values["rows"] * values["keys"]
            * (values["depth"] + values["width"])) // 4


def _attention(library, target: Target, threads: int) -> tuple[Step, int]:
    spec, values, _ = _attention_values(library)
    out, lse = library.results
    cut = attention_plan(spec, target, values["batch"] * values["heads"], values["rows"],
                         values["keys"], values["depth"], values["width"], threads)
    values |= {"out": _pointer(out), "lse": _pointer(lse),
               "work": Pointer("work", cut.work_bytes), "work_stride": cut.work_stride}
    slots = [values[slot] for slot in ATTENTION_SLOTS]
    step = Step(kernel_name("attention", spec), lambda: attention_kernel(spec, target)[1], slots,
                cut.nchunks)
    return step, _work(values)


def _attention_gradient(library, target: Target, threads: int) -> tuple[Step, int]:
    spec, values, (g, lse, delta) = _attention_values(library)
    cut = attention_backward_plan(spec, target, values["batch"] * values["heads"],
                                  values["group"], values["rows"], values["keys"],
                                  values["depth"], values["width"], threads)
    values |= _operand("g", g)
    values |= {"lse": _pointer(lse), "delta": _pointer(delta),
               "work": Pointer("work", cut.work_bytes), "work_stride": cut.work_stride,
               "key_parts": cut.key_parts, "row_parts": cut.row_parts}
    for letter, buffer in zip("qkv", library.results, strict=True):
        values |= {f"d{letter}": _pointer(buffer), f"want_{letter}": int(buffer is not None)}
    slots = [values[slot] for slot in BACKWARD_SLOTS]
    step = Step(kernel_name("attention_backward", spec),
                lambda: attention_backward_kernel(spec, target)[1], slots, cut.nchunks)
    return step, 5 * _work(values) // 2


# ---------------------------------------------------------------------- recurrent layers
def _shared_values(weight: Buffer, steps: int, batch: int, backwards: bool, cut: RecurrentPlan
                   ) -> dict:
    return {"w": _pointer(weight), "w_r": weight.strides[0], "steps": steps, "batch": batch,
            "size": weight.shape[1], "first": steps - 1 if backwards else 0,
            "direction": -1 if backwards else 1, "groups": cut.groups, "members": cut.members,
            "tile_rows": cut.tile_rows, "work": Pointer("work", cut.work_bytes),
            "scratch": cut.scratch, "scratch_stride": cut.scratch_stride}


def _lines(name: str, buffer: Buffer | None, axes: str) -> dict:
    """An operand and its strides but the last."""
    steps = (0,) * len(axes) if buffer is None else buffer.strides
    return {name: _pointer(buffer)} | {f"{name}_{axis}": step
                                       for axis, step in zip(axes, steps, strict=False)}


def _gang_step(name: str, text, values: dict, names: tuple[str, ...], cut: RecurrentPlan) -> Step:
    slots = [values[slot] for slot in names] + gang_slots(cut.groups * cut.members, cut.groups)
    return Step(name, text, slots, cut.groups * cut.members)


def _recurrent(library, target: Target, threads: int) -> tuple[Step, int]:
    form = library.attrs[0]
    pre, weight, bias, hidden, cell = form.split(library.sources)
    (steps, batch, width), size = pre.shape, weight.shape[1]
    spec = spec_for(form.mode, pre.dtype.llvm, size)
    cut = recurrent_plan(spec, target, batch, size, spec.gates, size, threads)
    values = _shared_values(weight, steps, batch, form.backwards, cut)
    values |= _lines("pre", pre, "tn") | _lines("h0", hidden, "n") | _lines("c0", cell, "n")
    names = ("hidden", "cells", "saved", "last_h", "last_c")
    values |= {name: _pointer(buffer)
               for name, buffer in zip(names, library.results, strict=True)}
    values["bias"] = _pointer(bias)
    step = _gang_step(kernel_name_of("recurrent", spec),
                      lambda: recurrent_kernel(spec, target)[1], values, RECURRENT_SLOTS, cut)
    return step, 2 * steps * batch * width * size // 8


def _recurrent_gradient(library, target: Target, threads: int) -> tuple[Step, int]:
    form = library.attrs[0]
    unread = (None,) * form.unread  # operands that the kernel has no use for
    weight, states, saved, old, g, g_hidden, g_cell = form.split(
        (*unread, *library.sources))[6:]
    steps, batch, size = states.shape
    width = GATES[form.mode] * size
    spec = spec_for(form.mode, states.dtype.llvm, width)
    cut = recurrent_plan(spec, target, batch, size, 1, width, threads)
    values = _shared_values(weight, steps, batch, not form.backwards, cut)
    values |= _lines("g", g, "tn") | _lines("g_h", g_hidden, "n") | _lines("g_c", g_cell, "n")
    values |= _lines("old", old, "n")
    names = ("d_in", "d_hid", "d_h0", "d_c0")
    values |= {name: _pointer(buffer)
               for name, buffer in zip(names, library.results, strict=True)}
    values |= _lines("saved", saved, "tn") | _lines("states", states, "tn")
    step = _gang_step(kernel_name_of("recurrent_backward", spec),
                      lambda: recurrent_backward_kernel(spec, target)[1], values,
                      RECURRENT_BACKWARD_SLOTS, cut)
    return step, 2 * steps * batch * width * size // 8


JOINT_RULES = {"attention": _attention, "attention_gradient": _attention_gradient,
               "recurrent": _recurrent, "recurrent_gradient": _recurrent_gradient,
               "segment_sum": segment_step, "label_margins": label_margins_step,
               "sampled": sampled_step, "pair_distances": pairs_step}
"""Kind of step -> (step, target, threads) -> (kernel call, amount of work)."""
