"""In-place operations on the tape: the tensor's history is rewritten, through views into their
base.

When a view is written to, its base becomes the result of a `CopySlices` node (the old base with the
view's part replaced), and the view's own history becomes a view of the new base, made when it is
next asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.autograd.grad_mode import LEVELS, mode
from flambeau.autograd.graph import Node, edge_of, next_order
from flambeau.autograd.hooks import move_retain_grad
from flambeau.core.errors import caller_location
from flambeau.ops.derive import OpCall
from flambeau.ops.record import REGISTRY
from flambeau.tensor import launches, tape
from flambeau.tensor.launches import Launch
from flambeau.tensor.meta import TensorBase
from flambeau.tensor.viewing import ViewLaunch, pass_on

__all__ = ["History", "CopySlices", "rebase", "refresh_view"]


class History:
    """What must be noted before an in-place operation runs, so that it can be recorded after."""

    def __init__(self, launch: Launch, flat: Sequence, target: Any,
                 wanted: tuple[bool, ...] | None = None):
        _check_view(target, launch)
        self.launch, self.flat, self.target = launch, list(flat), target
        self.wanted = tuple([a._rg if isinstance(a, TensorBase) else False
                             for a in flat]) if wanted is None else wanted
        self.plan = launch.plan_for(self.wanted, (True,))
        self.edges = [tape.history_of(a) if w else None
                      for a, w in zip(flat, self.wanted, strict=True)]
        self.kept = []
        self.versions: list[int | None] = []
        for i in self.plan.saved_inputs:
            item = flat[i]
            if item is target:  # its old value, which the operation is about to overwrite
                item = _old_value(target)
            self.kept.append(item)
            self.versions.append(+item._storage.version if isinstance(item, TensorBase) else None)

    def rebase(self) -> None:
        """Make `target` the result of the recorded operation."""
        target, launch = self.target, self.launch
        node = launch.node_class.__new__(launch.node_class)
        node.tape_hooks = None
        node.tape_launch, node.tape_wanted, node.tape_plan = launch, self.wanted, self.plan
        node.next_edges = tuple(self.edges)
        node.tape_order = next_order()
        node.output_metas = (target._meta,)
        node.tape_where = caller_location(4)
        aliases = [tape.alias_of(target) for _ in self.plan.saved_outputs]
        node.tape_saved = self.kept + aliases
        node.tape_versions = self.versions + [a._storage.version for a in aliases]
        position = next((i for i, a in enumerate(self.flat) if a is target), None)
        rebase(target, node, position)


def _check_view(target: Any, launch: Launch) -> None:
    """Raise if `target` is a view through which no recorded write may pass."""
    if target._base is None:
        return
    if target._view_of_many:
        raise RuntimeError(f"{target._view_of_many} is a view and is being modified inplace "
                           f"({launch.call.name}_). This view is the output of a function that "
                           "returns multiple views. Such functions do not allow the output views "
                           "to be modified inplace: index the tensor instead, or use an "
                           "out-of-place operation.")
    if target._view_no_grad:
        raise RuntimeError("A view was created in no_grad mode and is being modified inplace with "
                           f"grad mode enabled ({launch.call.name}_). Make the view outside of "
                           "no_grad, or modify it inside.")


def rebase(target: Any, node: Node, position: int | None = None, output_nr: int = 0) -> None:
    """Make `target` the result of `node`; `position`: which input of the node its old value was."""
    base = target._base
    old, old_nr = target._grad_fn, target._output_nr
    whole = target if base is None else base
    if not whole._rg and whole._views is not None:
        whole._rg = True
        pass_on(whole)
    if base is None:
        target._grad_fn, target._rg, target._output_nr = node, True, output_nr
        move_retain_grad(target, old, old_nr)
        return
    base_old, base_nr = base._grad_fn, base._output_nr
    base._grad_fn = CopySlices.of(base, target, node, position)
    base._rg, base._output_nr = True, 0
    move_retain_grad(base, base_old, base_nr)
    target._rg = True
    target._view_version = None
    refresh_view(target)
    move_retain_grad(target, old, old_nr)


def _old_value(target: Any) -> Any:
    """A copy of `target` with its history, for the backward."""
    from flambeau.autograd.grad_mode import no_grad

    with no_grad():
        copy = target.clone()
    copy._rg, copy._grad_fn, copy._output_nr = target._rg, target._grad_fn, target._output_nr
    return copy


class CopySlices(Node):
    """The backward of writing to a part of `base` (or all of it) through a view."""

    __slots__ = ("shape", "strides", "offset", "inner", "position", "parts")

    @classmethod
    def of(cls, base: Any, view: Any, inner: Node, position: int | None) -> CopySlices:
        others = tuple(edge for i, edge in enumerate(inner.next_edges) if i != position)
        node = cls((edge_of(base), *others), (base._meta,))
        node.shape, node.strides = tuple(view._meta.shape), view._meta.strides
        node.offset = (view._ptr - base._ptr) // view._meta.dtype.itemsize
        node.inner, node.position = inner, position
        node.parts = view._meta.dtype is not base._meta.dtype
        return node

    def apply(self, grads: Sequence) -> tuple:
        whole = grads[0].contiguous().clone()
        ops = launches.late.ops
        strided = ops._as_strided_parts if self.parts else ops.as_strided
        part = strided(whole, self.shape, self.strides, self.offset)
        results = list(self.inner.apply([part.clone()]))
        own = results.pop(self.position) if self.position is not None else None
        if mode() & LEVELS and own is not None:  # it may have examples that the whole has not
            whole = ops.add(own.new_zeros(tuple(whole._meta.shape)), whole)
            part = strided(whole, self.shape, self.strides, self.offset)
        if own is None:
            part.zero_()
        else:
            part.copy_(own)
        return (whole if self.next_edges[0] is not None else None, *results)

    def release(self) -> None:
        self.inner.release()
        super().release()

    def name(self) -> str:
        return "CopySlices"


_strided_views: dict = {}


def refresh_view(view: Any) -> None:
    """Give a view whose base was rewritten its history anew."""
    base = view._base
    if base is None or not base._rg or not view._rg or (
            view._view_version == view._storage.version):
        return
    if view._view_of_many:
        raise RuntimeError(f"{view._view_of_many} is a view and its base or another view of its "
                           "base has been modified inplace. This view is the output of a function "
                           "that returns multiple views: such must be made again after the write, "
                           "or the write be replaced by an out-of-place operation.")
    if view._view_no_grad and view._view_version is None:
        return  # it was asked to require grad itself, before its base did
    if view._view_no_grad:
        raise RuntimeError("A view was created in no_grad mode and its base or another view of its "
                           "base has been modified inplace with grad mode enabled. Make the view "
                           "again after the write, or both inside of no_grad.")
    view._view_version = view._storage.version
    offset = (view._ptr - base._ptr) // view._meta.dtype.itemsize
    key = (base._meta, view._meta, offset)
    launch = _strided_views.get(key)
    if launch is None:
        launch = _strided_views[key] = _strided_launch(base, view, offset)
    old, old_nr = view._grad_fn, view._output_nr
    view._grad_fn, view._output_nr = None, 0
    tape.record(launch, launch.plan_for((True,), (True,)), (True,), (base,), (view,), mode())
    if old is not None:
        move_retain_grad(view, old, old_nr)


def _strided_launch(base: Any, view: Any, offset: int) -> Any:
    structure = [("input", 0), ("static", tuple(view._meta.shape)),
                 ("static", tuple(view._meta.strides)), ("static", offset)]
    same = view._meta.dtype is base._meta.dtype
    record = REGISTRY["as_strided" if same else "_as_strided_parts"]
    call = OpCall(record, structure, [(tuple(base._meta.shape), base._meta.dtype)])
    return ViewLaunch(call, [base._meta])


