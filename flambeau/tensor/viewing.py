"""View ops: a layout becomes another, the memory stays; the gradient is the traced op's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import RECORD, mode
from flambeau.autograd.graph import node_type
from flambeau.ops.derive import OpCall
from flambeau.tensor import launches, tape
from flambeau.tensor.launches import Launch
from flambeau.tensor.meta import Meta, meta_of

__all__ = ["ViewPlan", "ViewLaunch", "call_view", "make_view"]


class ViewPlan:
    """How a view op turns a layout into another."""

    __slots__ = ("meta", "offset", "launch")

    def __init__(self, meta: Meta, offset: int, launch: Launch):
        self.meta = meta
        self.offset = offset
        self.launch = launch


class _LayoutOf:
    """Evaluates a traced view op on a layout instead of on elements."""

    def __init__(self, meta: Meta, call: OpCall):
        self.layouts = {call.graph.inputs[0]: (tuple(meta.strides), 0)}

    def of(self, value: Any) -> tuple | None:
        if value in self.layouts:
            return self.layouts[value]
        if value.prim.kind == "elementwise" and value.prim.name == "stop_gradient":
            return self.of(value.inputs[0])
        if value.prim.layout is None:
            return None
        below = self.of(value.inputs[0])
        if below is None:
            return None
        shape = value.inputs[0].shape
        return value.prim.layout(shape, below[0], below[1], value.attrs, value.shape)


class ViewLaunch:
    """Stands for a launch on the tape: a view computes nothing, but has a gradient."""

    plan_for = Launch.plan_for

    def __init__(self, call: OpCall, metas: Sequence):
        self.call = call
        self.metas = tuple(metas)
        self.plans: dict = {}
        floating = metas[0].dtype.kind in "fc"
        self.node_class = tape_node(call) if floating and call.record.differentiable else None


def tape_node(call: OpCall) -> type:
    return node_type(call.grad_name, tape.OpNode)


def call_view(function: Any, args: Sequence) -> Any:
    """A view op: shares its first argument's memory, or raises if the layout allows no view."""
    record, base = function.record, args[0]
    key = (base._meta, *args[1:])
    plans = function.cache.get(key)
    if plans is None:
        plans = function.cache[key] = _plan_view(function, args)
    results = tuple([make_view(base, plan) for plan in plans])
    return results if record.many else results[0]


def _plan_view(function: Any, args: Sequence) -> list[ViewPlan]:
    record, base = function.record, args[0]
    structure = [("input", 0)] + [("static", a) for a in args[1:]]
    plans = []
    call = OpCall(record, structure, [(tuple(base._meta.shape), base._meta.dtype)])
    for number, output in enumerate(call.graph.outputs):
        layout = _LayoutOf(base._meta, call).of(output)
        if layout is None:
            raise RuntimeError(
                f"{record.name}: the result is not a view of a tensor of shape "
                f"{list(base._meta.shape)} and strides {list(base._meta.strides)} (at least one "
                "dimension spans across two contiguous subspaces). Use .reshape(...) instead.")
        strides, offset = layout
        meta = meta_of(output.dtype, output.shape, strides)
        single = call if len(call.graph.outputs) == 1 else _Part(call, number)
        plans.append(ViewPlan(meta, offset * meta.dtype.itemsize, ViewLaunch(single, [base._meta])))
    return plans


class _Part(OpCall):
    """One of several results of a view op, as a call of its own."""

    def __init__(self, whole: OpCall, number: int):
        super().__init__(whole.record, whole.structure, whole.avals)
        self.number = number

    def build(self, values: Sequence) -> tuple:
        return (super().build(values)[self.number],)


def make_view(base: Any, plan: ViewPlan) -> Any:
    """The view of `base` that `plan` describes."""
    view = launches.late.tensor.__new__(launches.late.tensor)
    view._storage = base._storage
    view._ptr = base._ptr + plan.offset
    view._meta = plan.meta
    view._rg = False
    view._grad_fn = None
    view._base = base if base._base is None else base._base
    if launches.late.observers:
        launches.late.observers[-1].viewed(plan.launch, base, view)
    if base._rg and mode() & 3 == RECORD and plan.launch.node_class is not None:
        tape.attach_one(plan.launch, (base,), view)
        view._view_version = view._storage.version
    elif mode() & 3 != RECORD:
        view._view_no_grad = True
    return view
