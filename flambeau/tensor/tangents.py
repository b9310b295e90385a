"""Forward mode: tensors with tangents.

A tensor keeps its tangents by level, so that derivatives of derivatives do not mix. A call on such
tensors is run for its results, and its `JvpCall` for their tangents; both are ordinary calls below
the level, recorded there if somebody differentiates in reverse as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from flambeau.autograd.grad_mode import no_grad
from flambeau.autograd.registry import tensors
from flambeau.ops.derive import Call
from flambeau.ops.tangents import JvpCall
from flambeau.tensor import launches, levels
from flambeau.tensor.levels import Below, Level
from flambeau.tensor.meta import TensorBase

__all__ = ["JvpLevel", "dual", "fitting", "set_tangent", "shown", "tangent_of",
           "without"]


moving: ContextVar[bool] = ContextVar("flambeau_forward_mode", default=True)
"""Do results have tangents, in this thread?"""


class JvpLevel(Level):
    """A level at which tensors may have tangents.

    Args:
        named: it is the level of `autograd.forward_ad`, not of a transform of functions.
    """

    def __init__(self, named: bool = False):
        self.named = named

    def compute(self, call: Call, flat: Sequence) -> list:
        with Below(self):
            results = levels.run(call, flat)
            if not moving.get():
                return results
            tangents = [tangent_of(a, self) if isinstance(a, TensorBase) else None for a in flat]
            push = JvpCall.of(call, tuple([t is not None for t in tangents]))
            if any(place is not None for place in push.produced):
                found = levels.run(push, [*[t for t in tangents if t is not None],
                                          *[flat[i] for i in push.saved_inputs],
                                          *[results[i] for i in push.saved_outputs]])
                for result, place in zip(results, push.produced, strict=True):
                    if place is not None:
                        set_tangent(result, self, found[place])
        return results

    def view(self, call: Call, base: Any) -> list:
        with Below(self):
            views = levels.run_view(call, base)
            if not moving.get() or not call.record.differentiable:  # as `detach`
                for view in views:
                    set_tangent(view, self, None)
                return views
            tangent = tangent_of(base, self)
            try:
                moved = levels.run_view(call, tangent)
            except RuntimeError:  # another layout than the base's, of which it is no view
                moved = levels.run(call, (tangent,))
            for view, one in zip(views, moved, strict=True):
                set_tangent(view, self, one)
        return views

    def write(self, target: Any, source: Any) -> None:
        with Below(self):
            levels.assign(target, source)
            moved, held = tangent_of(source, self), tangent_of(target, self)
            if held is None:
                held = _begin(target, self)
            ops = launches.late.ops
            if moved is None:
                moved = ops.mul(held.detach(), 0)
            levels.assign(held, moved)


def tangent_of(tensor: Any, level: Level) -> Any:
    """The tangent of a tensor at a level, or None. A view has its part of its base's."""
    known = tensor._tangents
    if known is not None and level in known:
        return known[level]
    base = tensor._base
    if base is None or base._tangents is None or level not in base._tangents or (
            tensor._meta.dtype is not base._meta.dtype):
        return None
    found = _part(base, tensor, base._tangents[level])
    set_tangent(tensor, level, found)
    return found


def set_tangent(tensor: Any, level: Level, tangent: Any) -> None:
    """Note the tangent of a tensor at a level."""
    if tensor._tangents is None:
        tensor._tangents = {}
    tensor._tangents[level] = tangent


def shown(tensor: Any) -> list[str]:
    """What the text of a tensor says of its tangents at the levels of this thread."""
    found = [tangent for level in levels.current() if isinstance(level, JvpLevel)
             and (tangent := tangent_of(tensor, level)) is not None]
    return [f"tangent={t.item() if t.dim() == 0 and t._level is None else t}" for t in found]


def _part(base: Any, view: Any, tangent: Any) -> Any:
    """The elements of a base's tangent that belong to a view."""
    offset = (view._ptr - base._ptr) // view._meta.dtype.itemsize
    return launches.late.ops.as_strided(tangent, tuple(view._meta.shape), view._meta.strides,
                                        offset)


def _begin(target: Any, level: Level) -> Any:
    """A tangent of zeros for a tensor about to be written to; a view's is part of its base's."""
    make = tensors.make
    base = target._base
    if base is None or base._meta.dtype is not target._meta.dtype:
        set_tangent(target, level, make.zeros_like(target.detach()))
        return target._tangents[level]
    if base._tangents is None or level not in base._tangents:
        set_tangent(base, level, make.zeros_like(base.detach()))
    return tangent_of(target, level)


def fitting(tensor: Any, tangent: Any) -> Any:
    """The tangent, in the tensor's layout.

    Raises:
        RuntimeError: another shape.
    """
    if tangent._meta.shape != tensor._meta.shape:
        raise RuntimeError("Trying to set a forward gradient that has a different size than that "
                           f"of the original Tensor, this is not supported. Tensor is of size "
                           f"{list(tensor._meta.shape)} while the given forward gradient is of "
                           f"size {list(tangent._meta.shape)}.")
    if tangent._meta.strides == tensor._meta.strides or tensor._meta.contiguous and (
            tangent._meta.contiguous):
        return tangent
    like = tensors.make.empty_like(tensor.detach())
    if tangent._level is not None or tangent._rg or like._meta.strides == tangent._meta.strides:
        return tangent
    with no_grad():
        return like.copy_(tangent)


def dual(tensor: Any, tangent: Any, level: Level) -> Any:
    """The same tensor with a tangent: another object on its memory, with its history."""
    made = launches.late.ops.alias(tensor)
    set_tangent(made, level, tangent)
    return made


def without(tensor: Any, level: Level) -> Any:
    """The same tensor without its tangent at a level."""
    if tangent_of(tensor, level) is None:
        return tensor
    made = launches.late.ops.alias(tensor)
    set_tangent(made, level, None)  # said expressly: its base has one
    return made

