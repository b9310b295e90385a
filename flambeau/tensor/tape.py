"""Recording: attaches results to the tape, and differentiates recorded calls through dispatch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.autograd import saved as saving
from flambeau.autograd.grad_mode import (
    ANOMALY,
    INSIDE,
    LEVELS,
    RECORD,
    SAVED_HOOKS,
    mode,
)
from flambeau.autograd.graph import (
    RELEASED,
    Node,
    accumulator_of,
    edge_of,
    next_order,
    note_stack,
)
from flambeau.autograd.registry import tensors
from flambeau.autograd.tape import node_type
from flambeau.core.errors import caller_location
from flambeau.tensor import launches
from flambeau.tensor.launches import BackwardPlan, Launch, LaunchCache, compile_call
from flambeau.tensor.meta import TensorBase

__all__ = ["OpNode", "RefusingNode", "attach", "attach_one", "alias_of", "apply_call",
           "check_gradient", "underivable"]


class OpNode(Node):
    """The backward of a recorded call: runs the gradient's launch on what was saved."""

    __slots__ = ("tape_launch", "tape_wanted", "tape_plan")

    def apply(self, grads: Sequence) -> tuple:
        plan = self.tape_plan
        if plan is None or len(grads) > 1:
            plan = self._plan_for(grads)
            grads = [g for g in grads if g is not None]
        kept = self._unpacked()
        if plan is not self.tape_plan and self.tape_plan is not None:
            kept = _chosen(kept, self.tape_plan, plan)
        if mode() & 3 == RECORD:
            kept = self._with_history(plan, kept)
            results = apply_call(plan.call, [*grads, *kept])
        elif mode() & LEVELS:
            results = launches.late.run(plan.call, [*grads, *kept])
        elif plan.moves and (not launches.late.observers or launches.late.observers[-1].exact) and (
                views := plan.views_of(grads[0]._meta)) is not None:
            results = [_moved(grads[0], meta, offset) for meta, offset in views]
            if launches.late.observers:  # a layout decides how a product rounds
                for view in results:
                    launches.late.observers[-1].aliased(grads[0], view)
        else:
            key = grads[0]._meta if len(grads) == 1 else tuple(g._meta for g in grads)
            launch = plan.launches.get(key)
            if launch is None:
                metas = [a._meta if isinstance(a, TensorBase) else type(a)
                         for a in (*grads, *kept)]
                launch = plan.launches[key] = compile_call(plan.call, metas)
            results = launch.runner(launch, *grads, *kept)
            if launches.late.observers:
                launches.late.observers[-1].ran(launch, (*grads, *kept), results)
        return tuple([None if place is None else results[place] for place in plan.produced])

    def _plan_for(self, grads: Sequence) -> BackwardPlan:
        given = tuple(g is not None for g in grads)
        plan = self.tape_launch.plan_for(self.tape_wanted, given)
        first = self.tape_plan
        if first is not None and not (set(plan.saved_inputs) <= set(first.saved_inputs) and
                                      set(plan.saved_outputs) <= set(first.saved_outputs)):
            # what was saved belongs to the full plan
            grads[:] = [zero if meta.dtype.kind in "fc" else None for zero, meta in zip(
                self.fill(grads), self.tape_launch.metas_out, strict=True)]
            return first
        return plan

    def fill(self, grads: Sequence) -> list:
        from flambeau.autograd.graph import fill_missing

        return fill_missing(self, list(grads))

    def _unpacked(self) -> Sequence:
        kept = self.tape_saved
        if kept is RELEASED:
            raise RuntimeError(saving.BACKWARD_TWICE)
        for item, version in zip(kept, self.tape_versions, strict=True):
            if version is None:
                if item.__class__ is saving.SavedTensor:
                    return [self._fitting(x.unpack(self), place)
                            if x.__class__ is saving.SavedTensor else x
                            for place, x in enumerate(kept)]
            elif item._storage.version != version:
                raise self._changed(item, version)
        return kept

    def _fitting(self, tensor: Any, place: int) -> Any:
        """What an unpack hook gave, in the layout of what was packed, as which it is read.

        Raises:
            RuntimeError: another shape, which does not broadcast to it.
        """
        plan, launch = self.tape_plan, self.tape_launch
        first = len(plan.saved_inputs)
        meta = (launch.metas[plan.saved_inputs[place]] if place < first
                else launch.metas_out[plan.saved_outputs[place - first]])
        if tensor._meta is meta or tensor._level is not None:
            return tensor
        if tensor._meta.shape != meta.shape and tensor._meta.ndim > meta.ndim:
            raise RuntimeError(f"an unpack hook of saved tensors gave a tensor of shape "
                               f"{list(tensor.shape)} for one of shape {list(meta.shape)}")
        made = tensors.make.empty_strided(tuple(meta.shape), meta.strides, dtype=meta.dtype,
                                          device=tensor.device)
        return made.copy_(tensor)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_saved_", "_raw_saved_")):
            from flambeau.tensor.saved_names import saved_value

            return saved_value(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        from flambeau.tensor.saved_names import names_of

        return [*super().__dir__(), *(f"_saved_{name}" for name in names_of(self))]

    def _changed(self, item: Any, version: int) -> RuntimeError:
        outputs = len(self.tape_plan.saved_outputs)
        position = next(i for i, x in enumerate(self.tape_saved) if x is item)
        if position >= len(self.tape_saved) - outputs:
            number = self.tape_plan.saved_outputs[position - len(self.tape_saved) + outputs]
            return saving._changed_error(item, version, self.tape_where, self, number)
        return saving._changed_error(item, version, self.tape_where)

    def _with_history(self, plan: BackwardPlan, kept: Sequence) -> list:
        """Saved outputs as results of this node again, so that they can be differentiated."""
        result = list(kept)
        first = len(result) - len(plan.saved_outputs)
        for place, number in enumerate(plan.saved_outputs):
            if result[first + place].__class__ is saving.SavedTensor:
                continue
            kept_one = result[first + place]
            alias = alias_of(kept_one)
            if kept_one._tangents is not None:
                alias._tangents = kept_one._tangents
            alias._rg, alias._grad_fn, alias._output_nr = True, self, number
            result[first + place] = alias
        return result


class RefusingNode(OpNode):
    """Stands where PyTorch has no derivative either, so that nobody takes its absence for 0."""

    __slots__ = ()

    def apply(self, grads: Sequence) -> tuple:
        raise RuntimeError(f"derivative for aten::{self.tape_launch.call.name} is not implemented")


class Underivable(Node):
    """The same for results of functions that are made of several operations."""

    __slots__ = ()
    what = ""

    def apply(self, grads: Sequence) -> tuple:
        raise NotImplementedError(f"the derivative for {self.what!r} is not implemented")


def underivable(what: str, result: Any, *sources: Any) -> Any:
    """`result`, which requires grad if a source does: then its derivative is asked for in vain."""
    edges = tuple([history_of(source) for source in sources
                   if isinstance(source, TensorBase) and source._rg])
    if not edges or mode() & 3 != RECORD or result._meta.dtype.kind not in "fc":
        return result
    words = "".join(word.capitalize() for word in what.split("_"))
    result = alias_of(result)
    result._grad_fn = node_type(f"{words}Backward0", Underivable, what=what)(
        edges, (result._meta,))
    result._rg = True
    return result


def _chosen(kept: Sequence, full: BackwardPlan, plan: BackwardPlan) -> list:
    """Of what was saved for the full plan what a plan for fewer gradients needs."""
    split = len(full.saved_inputs)
    inputs = dict(zip(full.saved_inputs, kept[:split], strict=True))
    outputs = dict(zip(full.saved_outputs, kept[split:], strict=True))
    return [*(inputs[i] for i in plan.saved_inputs), *(outputs[i] for i in plan.saved_outputs)]


def _moved(tensor: Any, meta: Any, offset: int) -> Any:
    """Another layout of a tensor's memory, without history; itself if it is the same."""
    if meta is tensor._meta and not offset:
        return tensor
    alias = alias_of(tensor)
    alias._ptr = tensor._ptr + offset
    alias._meta = meta
    return alias


def alias_of(tensor: Any) -> Any:
    """Another tensor object on the same memory, without history."""
    if tensor._level is not None:
        return tensor._bare()
    alias = launches.late.tensor.__new__(launches.late.tensor)
    alias._storage = tensor._storage
    alias._ptr = tensor._ptr
    alias._meta = tensor._meta
    alias._rg = False
    alias._grad_fn = None
    alias._base = None
    return alias


def attach_one(launch: Launch, args: tuple, out: Any, location: Any = None) -> Any:
    """Record that `out` is the only result of `launch` on `args`, one of which requires grad."""
    word = mode()
    if word & 3 != RECORD or launch.node_class is None:
        return out
    wanted = tuple([a._rg if isinstance(a, TensorBase) else False for a in args])
    plan = launch.plans.get(wanted)
    if plan is None:
        plan = launch.plans[wanted] = launch.plan_for(wanted, (True,))
    return record(launch, plan, wanted, args, (out,), word, location)


def record(launch: Launch, plan: BackwardPlan, wanted: tuple, args: tuple, outs: tuple, word: int,
           location: Any = None) -> Any:
    node = launch.node_class.__new__(launch.node_class)
    node.tape_hooks = None
    node.tape_launch, node.tape_wanted, node.tape_plan = launch, wanted, plan
    edges = []
    for arg, want in zip(args, wanted, strict=True):
        if not want:
            edges.append(None)
        elif arg._grad_fn is not None and arg._base is None:
            edges.append((arg._grad_fn, arg._output_nr))
        else:
            edges.append(history_of(arg))
    node.next_edges = tuple(edges)
    node.tape_order = next_order()  # after the edges: an accumulator made for one must be older
    node.output_metas = tuple([out._meta for out in outs])
    node.tape_where = where = location or (caller_location(4) if plan.saved_inputs
                                           or plan.saved_outputs else None)
    kept = [args[i] for i in plan.saved_inputs]
    if word & SAVED_HOOKS:
        _save_packed(node, plan, kept, outs, where)
    else:
        kept += [alias_of(outs[i]) for i in plan.saved_outputs]
        if word & INSIDE:
            _share_tangents(kept[len(plan.saved_inputs):], [outs[i] for i in plan.saved_outputs])
        node.tape_saved = kept
        node.tape_versions = [+k._storage.version if isinstance(k, TensorBase) else None
                              for k in kept]
    if word & ANOMALY:
        note_stack(node)
    for number, out in enumerate(outs):
        if out._meta.dtype.kind in "fc":
            out._grad_fn = node
            out._rg = True
            if number:
                out._output_nr = number
    return outs[0]


def _share_tangents(aliases: Sequence, outs: Sequence) -> None:
    """Let the kept aliases of results have the tangents that those are about to be given."""
    for alias, out in zip(aliases, outs, strict=True):
        if out._tangents is None:
            out._tangents = {}
        alias._tangents = out._tangents


def edge_to(arg: Any):
    """The edge of an argument that requires grad, the general way: leaves and views."""
    if arg._base is None:
        if arg._grad_fn is None:
            return accumulator_of(arg), 0
    elif arg._view_version == arg._storage.version and arg._grad_fn is not None:
        return arg._grad_fn, arg._output_nr
    return history_of(arg)


def history_of(arg: Any):
    """The edge of an argument; views take up what was done to their base in the meantime."""
    if arg._base is not None:
        launches.late.tensor._refresh_view(arg)
        if arg._inherits and arg._grad_fn is None:
            return None  # it requires grad as its base does, but is not connected to it
    return edge_of(arg)


def _save_packed(node: OpNode, plan: BackwardPlan, kept: list, outs: tuple, where: Any) -> None:
    """Saving under `saved_tensors_hooks`: every tensor goes through the hooks."""
    boxes = []
    for item in kept:
        tensor = isinstance(item, TensorBase)
        boxes.append(saving.SavedTensor(item, False, None, where) if tensor else item)
    for number in plan.saved_outputs:
        alias = alias_of(outs[number])
        alias._rg, alias._output_nr = True, number
        boxes.append(saving.SavedTensor(alias, True, None, where))
    node.tape_saved = boxes
    node.tape_versions = [None] * len(boxes)


def attach(launch: Launch, args: Sequence, outs: Sequence, location: Any = None) -> None:
    """Record that `outs` are the results of `launch` on `args`, if any of them requires grad."""
    word = mode()
    if word & 3 != RECORD or launch.node_class is None:
        return
    wanted = tuple([a._rg if isinstance(a, TensorBase) else False for a in args])
    if True not in wanted:
        return
    given = tuple(out._meta.dtype.kind in "fc" for out in outs)
    plan = launch.plan_for(wanted, given)
    record(launch, plan, wanted, tuple(args), tuple(outs), word, location)


def check_gradient(tensor: Any, value: Any) -> None:
    """Raise if `value` cannot be the gradient of a tensor: another type, shape, dtype or device."""
    if not isinstance(value, TensorBase):
        raise TypeError("assigned grad expected to be a Tensor or None but got grad of "
                        f"type {type(value).__name__}")
    if value is tensor:
        raise RuntimeError("can't assign Variable as its own grad")
    if value.shape != tensor.shape:
        raise RuntimeError(f"attempting to assign a gradient of size '{list(value.shape)}' "
                           f"to a tensor of size '{list(tensor.shape)}'. Please ensure that "
                           "the gradient and the tensor are the same size")
    wanted = tensor.dtype if tensor._grad_dtype is False else tensor._grad_dtype
    if wanted is not None and value.dtype is not wanted:
        raise RuntimeError(f"attempting to assign a gradient with dtype '{value.dtype!r}' "
                           f"to a tensor with grad_dtype '{wanted!r}' (by default the tensor's own "
                           "dtype). Convert it with .to(dtype), or set grad_dtype first")
    if value.device is not tensor.device:
        raise RuntimeError("attempting to assign a gradient with device type "
                           f"'{value.device}' to a tensor with device type "
                           f"'{tensor.device}'. Please ensure that the gradient and the "
                           "tensor are on the same device")


_call_launches = LaunchCache()


def clear_cache() -> None:
    """Forget the launches of differentiated gradients."""
    _call_launches.clear()


def apply_call(call: Any, args: Sequence) -> list:
    """Run a derived call on tensors and numbers, recording it: how gradients are differentiated."""
    return launches.late.run(call, args) if mode() & LEVELS else run_call(call, args)


def run_call(call: Any, args: Sequence) -> list:
    """`apply_call` that no transform sees."""
    return run_launch(launch_of(call, args), args)


def launch_of(call: Any, args: Sequence) -> Launch:
    """A call compiled for the layouts of these arguments."""
    metas = tuple([a._meta if isinstance(a, TensorBase) else a.__class__ for a in args])
    launch = _call_launches.get((call, metas))
    if launch is None:
        launch = _call_launches[call, metas] = compile_call(call, metas)
    return launch


def run_launch(launch: Launch, args: Sequence) -> list:
    """The results of a launch, recorded where recording is on."""
    results = launch.run(args)
    if launches.late.observers:
        launches.late.observers[-1].ran(launch, args, results)
    attach(launch, args, results)
    return results
