"""View ops: a layout becomes another, the memory stays; the gradient is the traced op's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ref

from flambeau.autograd.grad_mode import LEVELS, RECORD, mode
from flambeau.autograd.graph import node_type
from flambeau.core.symbolic import environment, key_of
from flambeau.ops.derive import Call, OpCall
from flambeau.tensor import tape
from flambeau.tensor.launches import Launch, LaunchCache, late
from flambeau.tensor.layouts import LayoutOf
from flambeau.tensor.meta import Meta, meta_of

__all__ = ["ViewPlan", "ViewLaunch", "call_view", "make_view", "pass_on"]


new = object.__new__  # `Tensor.__new__` takes what users may give it


class ViewPlan:
    """How a view op turns a layout into another.

    `launch` is the view on its own, `whole` the call that it is a result of: the same unless there
    are several.
    """

    __slots__ = ("meta", "offset", "launch", "whole")

    def __init__(self, meta: Meta, offset: int, launch: ViewLaunch, whole: ViewLaunch):
        self.meta = meta
        self.offset = offset
        self.launch = launch
        self.whole = whole


class ViewLaunch:
    """Stands for a launch on the tape: a view computes nothing, but has a gradient."""

    plan_for = Launch.plan_for

    def __init__(self, call: Call, metas: Sequence):
        self.call = call
        self.metas = tuple(metas)
        self.metas_out: tuple = ()
        self.plans: dict = {}
        floating = metas[0].dtype.kind in "fc"
        self.node_class = tape_node(call) if floating and call.record.differentiable else None


def tape_node(call: Call) -> type:
    return node_type(call.grad_name, tape.OpNode)


def call_view(function: Any, args: Sequence) -> Any:
    """A view op: shares its first argument's memory, or raises if the layout allows no view."""
    record, base = function.record, args[0]
    if mode() & LEVELS and (views := late.view(function, args)) is not NotImplemented:
        return views
    key = (base._meta, *(key_of(tuple(args[1:])) if environment else args[1:]))
    plans = function.cache.get(key)
    if plans is None:
        plans = function.cache[key] = _plan_view(function, args)
    if not record.many:
        return make_view(base, plans[0])
    return _make_views(record, base, plans)


def _make_views(record: Any, base: Any, plans: Sequence[ViewPlan]) -> tuple:
    """The several results of a view op."""
    results = tuple([make_view(base, plan, alone=False) for plan in plans])
    if mode() & 3 == RECORD:
        for number, view in enumerate(results):
            view._view_of_many = f"Output {number} of {record.name}"
        if base._rg and results:
            tape.attach(plans[0].whole, (base,), results)
    return results


_view_plans = LaunchCache()


def views_of(call: Call, base: Any) -> list:
    """The views that a call of a view op gives of a tensor."""
    plans = _view_plans.get((call, base._meta))
    if plans is None:
        plans = _view_plans[call, base._meta] = _plans_of(call, base)
    if len(plans) == 1 and not call.record.many:
        return [make_view(base, plans[0])]
    return list(_make_views(call.record, base, plans))


def _plan_view(function: Any, args: Sequence) -> list[ViewPlan]:
    base = args[0]
    structure = [("input", 0)] + [("static", a) for a in args[1:]]
    return _plans_of(OpCall(function.record, structure,
                            [(tuple(base._meta.shape), base._meta.dtype)]), base)


def _plans_of(call: Call, base: Any) -> list[ViewPlan]:
    record = call.record
    plans: list[ViewPlan] = []
    whole = None
    for number, output in enumerate(call.graph.outputs):
        layout = LayoutOf(base._meta, call.graph).of(output)
        if layout is None:
            raise RuntimeError(
                f"{record.name}: the result is not a view of a tensor of shape "
                f"{list(base._meta.shape)} and strides {list(base._meta.strides)} (at least one "
                "dimension spans across two contiguous subspaces). Use .reshape(...) instead.")
        strides, offset = layout
        meta = meta_of(output.dtype, output.shape, strides, base._meta.device)
        single = call if len(call.graph.outputs) == 1 else _Part(call, number)
        launch = ViewLaunch(single, [base._meta])
        launch.metas_out = (meta,)
        whole = whole or (launch if single is call else ViewLaunch(call, [base._meta]))
        plans.append(ViewPlan(meta, offset * meta.dtype.itemsize, launch, whole))
    return plans


class _Part(Call):
    """One of several results of a view op, as a call of its own."""

    def __init__(self, whole: Call, number: int):
        super().__init__(whole.avals)
        self.whole, self.number = whole, number
        self.record, self.name = whole.record, whole.name

    @property
    def grad_name(self) -> str:
        return self.whole.grad_name

    def build(self, values: Sequence) -> tuple:
        return (self.whole.build(values)[self.number],)


def make_view(base: Any, plan: ViewPlan, alone: bool = True) -> Any:
    """The view of `base` that `plan` describes; `alone`: recorded as a call of its own."""
    view = new(late.tensor)
    view._storage = storage = base._storage
    view._ptr = base._ptr + plan.offset
    view._meta = plan.meta
    view._rg = False
    view._grad_fn = None
    whole = base._base
    if whole is None:
        whole = base
    view._base = whole
    if late.observers:
        late.observers[-1].viewed(plan.launch, base, view)
    if plan.launch.node_class is None:
        return view
    word = mode()
    if word & 3 != RECORD:
        view._view_no_grad = True
        if whole._rg:  # a view that is asked says what its base says
            view._rg = view._inherits = True
            view._view_version = storage.version
    elif base._rg:
        if word == RECORD and alone:
            _record(plan.launch, base, view)
        elif alone:
            tape.attach_one(plan.launch, (base,), view)
        view._view_version = storage.version
        if whole is not base and (base._view_no_grad or base._view_of_many):
            view._view_no_grad, view._view_of_many = base._view_no_grad, base._view_of_many
    else:
        note_view(whole, view, storage.version)
    return view


def note_view(whole: Any, view: Any, version: int) -> None:
    """Note a view of a tensor that needs no grad, for `pass_on`."""
    views = whole._views
    if views is None:
        whole._views = [32, (ref(view), version)]
    else:
        views.append((ref(view), version))
        if len(views) > views[0]:
            views[1:] = [pair for pair in views[1:] if pair[0]() is not None]
            views[0] = 2 * len(views) + 32


_ONE = (True,)


def _record(launch: ViewLaunch, base: Any, view: Any) -> None:
    """What `tape.record` does, for a view: nothing is saved."""
    plan = launch.plans.get(_ONE)
    if plan is None:
        plan = launch.plans[_ONE] = launch.plan_for(_ONE, _ONE)
    node = new(launch.node_class)
    node.tape_launch, node.tape_wanted, node.tape_plan = launch, _ONE, plan
    node.next_edges = (tape.edge_to(base),)
    node.tape_order = tape.next_order()
    node.output_metas = launch.metas_out
    node.tape_saved = node.tape_versions = ()
    node.tape_where = node.tape_hooks = None
    view._grad_fn = node
    view._rg = True


def pass_on(base: Any) -> None:
    """Tell the views of `base` that were made before it required grad (or stopped to) that it does.

    What follows reads each tensor's own flag; so views are noted (weakly, in `base._views` behind
    the length at which dead ones are swept out) when they are made of tensors that need no grad.
    """
    for reference, version in base._views[1:]:
        view = reference()
        if view is None:
            continue
        if not base._rg:
            if view._inherits and view._grad_fn is None:
                view._rg = view._inherits = False
        elif not view._rg:
            view._rg = view._inherits = True
            view._view_version = version
        elif view._view_version is None:  # one that was asked to require grad itself
            view._view_version = version
